"""The families of models, what each can learn, and which to take for what. Without torch.

| family          | reads                       | learns                                        |
|-----------------|-----------------------------|-----------------------------------------------|
| encoder         | a text at once, both ways   | a class of it, a tag per word, hidden tokens  |
| decoder         | a text, left to right       | what follows: an answer, or more of the text  |
| encoder-decoder | a source both ways, then    | a target; spans that were cut out             |
|                 | its own words so far        |                                               |
| lstm, gru, rnn  | a text, left to right, into | what follows, from a state of fixed size      |
|                 | a state of fixed size       |                                               |
| mlp             | all pixels in one row       | a class                                       |
| vit             | an image as patches         | a class                                       |
| vlm             | an image among its words    | a text about it                               |
"""

from __future__ import annotations

from dataclasses import dataclass

from groundup.config import UserError, did_you_mean
from groundup.data.tasks import Kind, Task


@dataclass(frozen=True)
class Family:
    """A family of models; `kinds` are the kinds of task it can learn, those it is best at first."""

    name: str
    kinds: tuple[Kind, ...]
    purpose: str


WRITES: tuple[Kind, ...] = ("write", "continue", "classify", "tag")
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("encoder", ("classify", "tag", "continue"), "understands a text as a whole"),
        Family("decoder", ("continue", "write", "classify", "tag"), "writes, one word at a time"),
        Family("encoder-decoder", WRITES, "turns one text into another"),
        Family("lstm", ("continue", "write", "classify", "tag"), "remembers in a gated state"),
        Family("gru", ("continue", "write", "classify", "tag"), "the same with fewer gates"),
        Family("rnn", ("continue", "write", "classify", "tag"), "the same without gates"),
        Family("mlp", ("image",), "knows pixels, not who is whose neighbour"),
        Family("vit", ("image",), "sees patches and how they belong together"),
        Family("vlm", ("caption", "image"), "writes about what it sees"),
    )
}
BEST: dict[Kind, str] = {
    "classify": "encoder",
    "tag": "encoder",
    "write": "encoder-decoder",
    "continue": "decoder",
    "image": "vit",
    "caption": "vlm",
}
"""The family that fits a kind of task best."""


@dataclass(frozen=True)
class Use:
    """What one may want to do, and with what."""

    case: str
    family: str
    why: str
    tasks: tuple[str, ...]
    """Of those that are there, the first is shown."""


GUIDE = (
    Use("sort texts into classes", "encoder", "each word sees the whole text", ("spam", "news")),
    Use("tag each word: names, parts of speech", "encoder", "with what follows it too", ("tags",)),
    Use("go on writing, chat", "decoder", "one model for all that is text", ("characters",)),
    Use("translate", "encoder-decoder", "reads it all before it writes", ("translate", "numbers")),
    Use("summarise, find a title", "encoder-decoder", "the same", ("titles",)),
    Use("sort images", "vit", "mlp where they are tiny", ("fashion", "digits", "shapes")),
    Use("say what is in an image", "vlm", "a decoder that is shown patches", ("emoji",)),
)


def find_family(name: str) -> Family:
    """The family of that name. Raises UserError where there is none."""
    if name not in FAMILIES:
        hint = did_you_mean(name, FAMILIES) or f" There are {', '.join(FAMILIES)}."
        raise UserError(f"There is no family {name!r}.{hint}")
    return FAMILIES[name]


def families_for(task: Task) -> list[str]:
    """The families that can learn a task, the one that fits best first."""
    able = [name for name, family in FAMILIES.items() if task.kind in family.kinds]
    best = BEST[task.kind]
    return [best, *(name for name in able if name != best)]


def check_pair(task: Task, family: str) -> None:
    """Raises UserError, naming families that can, where a family cannot learn a task."""
    if task.kind not in find_family(family).kinds:
        raise UserError(
            f"The family {family} cannot learn {task.name!r}, a task of kind {task.kind!r}: take "
            f"one of {', '.join(families_for(task))}."
        )
