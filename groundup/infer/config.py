"""How the next token is chosen and when a reply ends, as data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from groundup.config import UserError, from_dict, to_dict
from groundup.models import generation

StopReason = Literal["stop", "length", "context"]
"""Why a reply ended: a stop id or stop string, `max_tokens`, or a full context window."""


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Settings of one generation. The defaults change nothing but the temperature.

    The steps run in the order of the fields: penalties first, then temperature, then the filters,
    each on what the one before left (the order of `transformers`).
    """

    repetition_penalty: float = 1.0
    """Above 1 makes every token of the prompt and the reply less likely to come again."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit once per time it is in the reply."""
    presence_penalty: float = 0.0
    """Subtracted once from the logit of every token that is in the reply."""
    no_repeat_ngram: int = 0
    """No sequence of this many tokens comes twice; 0 is off."""
    temperature: float = 0.8
    """Below 1 sharpens the distribution, above 1 flattens it; 0 takes the most likely token."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 is off."""
    top_p: float = 1.0
    """Keep the most likely tokens up to and including the one that reaches this probability."""
    typical_p: float = 1.0
    """Keep the tokens whose surprise is nearest to the entropy, up to this probability."""
    min_p: float = 0.0
    """Keep tokens at least this fraction as likely as the most likely one; 0 is off."""
    seed: int | None = None
    """The same seed gives the same reply; none draws a new one."""
    max_tokens: int = 256
    """The longest reply, in tokens."""
    stop: tuple[str, ...] = ()
    """Strings that end the reply; they are not part of it."""

    def __post_init__(self) -> None:
        _check("repetition_penalty", self.repetition_penalty, "above 0", lambda v: v > 0)
        _check("frequency_penalty", self.frequency_penalty, "a number", lambda v: True)
        _check("presence_penalty", self.presence_penalty, "a number", lambda v: True)
        _check("no_repeat_ngram", self.no_repeat_ngram, "0 (off) or more", lambda v: v >= 0)
        _check(
            "temperature",
            self.temperature,
            "0 (greedy) or at least 1e-6",
            lambda v: v == 0 or v >= 1e-6,
        )
        _check("top_k", self.top_k, "0 (off) or more", lambda v: v >= 0)
        _check("top_p", self.top_p, "above 0 and at most 1 (off)", lambda v: 0 < v <= 1)
        _check("typical_p", self.typical_p, "above 0 and at most 1 (off)", lambda v: 0 < v <= 1)
        _check("min_p", self.min_p, "from 0 (off) to 1", lambda v: 0 <= v <= 1)
        _check("max_tokens", self.max_tokens, "1 or more", lambda v: v >= 1)
        if any(not string for string in self.stop):
            raise UserError("stop has an empty string, which every text contains; leave it out.")


def _check(name: str, value: float, expected: str, holds: Callable[[float], bool]) -> None:
    if not math.isfinite(value) or not holds(value):
        raise UserError(f"{name} is {value}, but must be {expected}.")


CHAT_SAMPLING = SamplingConfig(temperature=0.6, top_p=0.95)
"""For replies: a small model that draws from the whole distribution leaves the subject."""


def chat_sampling(folder: str | Path) -> SamplingConfig:
    """For replies of one model: as its generation_config.json recommends, else `CHAT_SAMPLING`.

    Raises UserError for a setting that cannot be.
    """
    found = generation.of_folder(folder)
    samples = found.pop("do_sample", None)
    if samples is False:
        return replace(CHAT_SAMPLING, temperature=0.0, top_p=1.0)
    # Who names a temperature, or wants sampling, leaves out what should stay as the model has it.
    stated = samples or "temperature" in found
    base = SamplingConfig(temperature=1.0) if stated else CHAT_SAMPLING
    return from_dict(SamplingConfig, to_dict(base) | found, str(Path(folder) / generation.FILE))
