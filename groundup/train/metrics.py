"""Speed of training: tokens per second, model-FLOP utilisation and time left."""

from __future__ import annotations

import time


class Meter:
    """Measures the time of training steps alone, without evaluations, samples and saving."""

    def __init__(self, flops_per_token: float, roof_gflops: float) -> None:
        self.flops_per_token = flops_per_token
        self.roof_gflops = roof_gflops
        self.seconds = 0.0
        self.tokens = 0
        self._window_seconds = 0.0
        self._window_tokens = 0
        self._started = 0.0

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self, tokens: int) -> float:
        """Count one step of `tokens`; returns its seconds."""
        elapsed = time.perf_counter() - self._started
        self.seconds += elapsed
        self._window_seconds += elapsed
        self.tokens += tokens
        self._window_tokens += tokens
        return elapsed

    def window(self) -> dict[str, float]:
        """Tokens per second and MFU since the last call."""
        rate = self._window_tokens / max(self._window_seconds, 1e-9)
        self._window_seconds, self._window_tokens = 0.0, 0
        return {"tokens_per_second": rate, "mfu": self.utilisation(rate)}

    def utilisation(self, tokens_per_second: float) -> float:
        """Model-FLOP utilisation: useful FLOPs per second over the machine's measured limit.

        PaLM (Chowdhery et al. 2022, appendix B): recomputed activations do not count as useful.
        """
        return tokens_per_second * self.flops_per_token / (self.roof_gflops * 1e9)
