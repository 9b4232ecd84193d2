"""How much a task is trained, with what defaults, and what comes out of it. Without torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from groundup.config import require
from groundup.data.tasks import Task

MOST = 1_000_000_000
"""Of steps, rows, width and the like: beyond it there is a typing mistake."""
TokenizerKind = Literal["bpe", "char", "word", "byte"]


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What 0 and None leave open is decided by task and family, see `settled`."""

    minutes: float = 0.0
    """Plan as many steps as this machine manages in this time, evaluations included."""
    steps: int = 0
    width: int = 0
    """Of the model; 0 takes the one that comes nearest to `parameters`."""
    layers: int = 0
    parameters: int = 0
    """Numbers the model learns, about a million by default."""
    rows: int = 0
    """Examples in a step."""
    accumulate: int = 1
    """In how many parts a step is computed, whose gradients add up: less memory, same result."""
    length: int = 0
    """Most tokens of a row; longer sources are cut."""
    tokenizer: TokenizerKind | None = None
    vocab_size: int = 0
    optimizer: Literal["muon", "adamw"] | None = None
    rate: float = 0.0
    """The learning rate of AdamW; Muon's matrices have their own."""
    dropout: float | None = None
    evaluations: int = 8
    """Scores on the way, over `test_examples`."""
    test_examples: int = 0
    """Held-out examples that are scored, at most."""
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("minutes", "steps", "width", "layers", "parameters", "rows", "length",
                     "vocab_size", "rate", "test_examples"):  # fmt: skip
            value = getattr(self, name)
            require(0 <= value <= MOST, f"{name} should be from 0 to {MOST:,}, but is {value}.")
        require(
            not (self.minutes and self.steps),
            f"Set minutes or steps, not both: here they are {self.minutes:g} and {self.steps}.",
        )
        require(0 <= self.seed < 2**63, f"seed should be from 0 to 2^63 - 1, but is {self.seed}.")
        require(self.accumulate >= 1, f"accumulate is {self.accumulate}, but is 1 or more.")
        require(self.evaluations >= 1, f"evaluations is {self.evaluations}, but is 1 or more.")
        require(
            self.width % 32 == 0,
            f"width should be a multiple of 32, the width of a head, but is {self.width}.",
        )
        require(
            self.dropout is None or 0 <= self.dropout < 1,
            f"dropout should be at least 0 and below 1, but is {self.dropout}.",
        )


@dataclass(frozen=True, kw_only=True)
class TaskOutcome:
    """What a family made of a task."""

    task: str
    family: str
    parameters: int
    metric: str
    """Which of the scores `before` and `after` are."""
    before: float
    """The score of the random weights, on held-out examples as all others."""
    after: float
    baseline: float
    """The score of something simple that learns nothing but frequencies, or copies."""
    baseline_name: str
    scores: dict[str, float] = field(default_factory=dict)
    """All scores after training."""
    steps: int = 0
    seconds: float = 0.0
    """Of training steps."""
    tokens_per_second: float = 0.0
    """Ids read, padding included; images, where there is nothing else to read."""
    examples_seen: int = 0
    samples: list[tuple[str, str, str]] = field(default_factory=list)
    """(question, expected, answer)"""
    curve: list[dict[str, float]] = field(default_factory=list)
    """Of each evaluation: step, seconds of training so far, examples, score, val_loss."""


def format_score(metric: str, value: float) -> str:
    """96.5 % or 2.153."""
    return f"{value:.3f}" if metric == "bits_per_character" else f"{100 * value:.1f} %"


_BASE = TaskSettings(
    minutes=2.0,
    layers=4,
    parameters=1_000_000,
    rows=64,
    length=160,
    tokenizer="bpe",
    vocab_size=1024,
    optimizer="muon",
    rate=3e-3,
    dropout=0.0,
    test_examples=500,
)
_KINDS: dict[str, dict[str, Any]] = {
    "continue": {"rows": 32, "length": 128, "test_examples": 20},
    "classify": {"vocab_size": 2048, "dropout": 0.1, "parameters": 300_000, "rows": 32},
    "tag": {"vocab_size": 2048, "dropout": 0.1},
    "caption": {"dropout": 0.1, "rows": 32, "parameters": 400_000},
    "image": {"dropout": 0.1, "tokenizer": "word"},
}
_FAMILIES: dict[str, dict[str, Any]] = {
    "lstm": {"layers": 1, "rate": 1e-2},
    "gru": {"layers": 1, "rate": 1e-2},
    "rnn": {"layers": 1},
    "mlp": {"optimizer": "adamw", "rate": 1e-3},
}
_TASKS: dict[str, dict[str, Any]] = {
    # Few pieces make up all names: a small vocabulary, and a small model for many steps.
    "numbers": {"vocab_size": 400, "length": 64, "rows": 128, "parameters": 300_000},
    "last-digit": {"vocab_size": 400, "length": 64, "rows": 64, "dropout": 0.0},
    "pronounce": {"tokenizer": "char", "length": 64, "rows": 128, "parameters": 600_000},
    "translate": {"vocab_size": 2048},
    "translate-it": {"vocab_size": 2048},
    "titles": {"vocab_size": 2048, "length": 128, "rows": 32, "parameters": 600_000},
}
METRICS = {"numbers": "exact_match", "pronounce": "exact_match"}
"""Where it is not the one of the kind of task."""
_METRIC_OF_KIND = {"write": "chrf", "caption": "chrf", "continue": "bits_per_character"}


def metric_of(task: Task, family: str) -> str:
    """By which score a family is judged on a task."""
    if task.kind == "continue" and family in ("encoder", "encoder-decoder"):
        return "accuracy"  # of the tokens that are hidden from it
    return METRICS.get(task.name) or _METRIC_OF_KIND.get(task.kind, "accuracy")


def settled(task: Task, family: str, settings: TaskSettings) -> TaskSettings:
    """The settings with what they leave open decided by what has worked for task and family."""
    chosen = _BASE
    by_character = task.kind == "continue" and family not in ("encoder", "encoder-decoder")
    for changes in (
        _KINDS.get(task.kind, {}),
        {"tokenizer": "char"} if by_character else {},
        _FAMILIES.get(family, {}),
        _TASKS.get(task.name, {}),
    ):
        chosen = replace(chosen, **changes)
    if settings.steps:
        chosen = replace(chosen, minutes=0.0)
    untouched = vars(TaskSettings())
    given = {name: v for name, v in vars(settings).items() if v != untouched[name]}
    return replace(chosen, **given)
