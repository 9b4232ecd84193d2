"""Speed of training: tokens per second, model-FLOP utilisation, and where a step's time goes."""

from __future__ import annotations

import time
from typing import Any

PARTS = ("data", "forward_backward", "optimizer")
"""Parts of a step: reading the batch; the passes with gradient exchange and clipping; the update.
"""


class Meter:
    """Measures the time of training steps alone, without evaluations, samples and saving."""

    def __init__(self, flops_per_token: float, roof_gflops: float) -> None:
        self.flops_per_token = flops_per_token
        self.roof_gflops = roof_gflops
        self.seconds = 0.0
        self.tokens = 0
        self._started = self._lap = 0.0
        self._step: dict[str, float] = {}
        self._reset()

    def start(self) -> None:
        """Begin a step; one that was begun and never stopped is forgotten."""
        self._started = self._lap = time.perf_counter()
        self._step = {part: 0.0 for part in PARTS}

    def lap(self, part: str) -> None:
        """The time since the last lap went into `part`. Reads the clock, and does not wait for a
        GPU: put laps where the GPU has just been waited for."""
        now = time.perf_counter()
        self._step[part] += now - self._lap
        self._lap = now

    def stop(self, tokens: int) -> float:
        """Count one step of `tokens`, what is left of it as the update; returns its seconds."""
        self.lap("optimizer")
        elapsed = self._lap - self._started
        self.seconds += elapsed
        self.tokens += tokens
        self._window_tokens += tokens
        self._window_steps += 1
        for part, seconds in self._step.items():
            self._window[part] += seconds
        return elapsed

    def window(self) -> dict[str, Any]:
        """Since the last call: tokens per second, MFU, and `split`, the seconds of a mean step."""
        rate = self._window_tokens / max(sum(self._window.values()), 1e-9)
        steps = max(self._window_steps, 1)
        split = {part: round(seconds / steps, 6) for part, seconds in self._window.items()}
        self._reset()
        return {"tokens_per_second": rate, "mfu": self.utilisation(rate), "split": split}

    def utilisation(self, tokens_per_second: float) -> float:
        """Model-FLOP utilisation: useful FLOPs per second over the machine's measured limit.

        PaLM (Chowdhery et al. 2022, appendix B): recomputed activations do not count as useful.
        """
        return tokens_per_second * self.flops_per_token / (self.roof_gflops * 1e9)

    def _reset(self) -> None:
        self._window = {part: 0.0 for part in PARTS}
        self._window_tokens = self._window_steps = 0
