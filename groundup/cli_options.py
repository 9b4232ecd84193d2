"""What the command line's verbs take: their options, one dataclass a verb, and the help.

tyro makes the options and their descriptions of these fields and the strings below them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from groundup.infer.config import CHAT_SAMPLING, SamplingConfig

HELP = """groundup: language models from the ground up.

  groundup speedrun RECIPE [--run DIR] [--section.key VALUE ...]   raw text to a chat model
  groundup chat MODEL [--prompt TEXT]                              talk to it
  groundup generate MODEL --prompt TEXT [--max-tokens N]           let it write
  groundup score MODEL --text FILE                                 how well it predicts a text
  groundup embed MODEL --text FILE                                 a vector for each line, as JSON
  groundup inspect MODEL                                           its parts, sizes and costs
  groundup view MODEL --messages FILE                              what a chat trains on, coloured
  groundup tokens MODEL [--text FILE]                              how well its tokenizer compresses
  groundup data                                                    texts a recipe can name
  groundup show [TOPIC] [--out FILE]                               how something works, in a picture
  groundup doctor                                                  what this machine can do

MODEL is a model folder, or a run folder such as runs/demo.
Examples:
  groundup speedrun recipes/demo.toml --run runs/first --pretrain.minutes 2
  groundup chat runs/demo --prompt "Hi! How are you?"
`groundup VERB --help` lists a verb's options."""


EXAMPLES = {
    "speedrun": "recipes/demo.toml --run runs/first --pretrain.minutes 2",
    "chat": 'runs/demo --prompt "Hi! How are you?"',
    "generate": 'runs/demo --prompt "ROMEO:" --max-tokens 200 --samples 3',
    "score": "runs/demo --text README.md",
    "embed": "minilm --text sentences.txt",
    "inspect": "runs/demo",
    "view": "runs/demo --messages chat.json",
    "tokens": "runs/demo --text README.md",
    "data": "",
    "show": "schedules --out schedules.png",
    "doctor": "--json",
}


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
    """The text to continue; empty starts a document."""
    greedy: bool = False
    """Always take the most likely token."""
    samples: int = 1
    """How many continuations to write, one after another; each has its own noise."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


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
class Show:
    topic: str
    """What about; `groundup show` alone lists the topics."""
    out: str = ""
    """Where to save the picture, .png or .svg; empty is TOPIC.png in this folder."""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    json: bool = False
    """Print JSON instead of a table."""
