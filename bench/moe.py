"""Training speed of a mixture of experts next to a dense model of equal active parameters.

    python bench/moe.py [--json PATH]

Both models multiply each token with the same number of feed-forward weights; the mixture holds
`experts / top-k` times as many and pays for the router, the sorting and smaller products. "loop" is
the same mixture by one expert after the other. Sides take turns in one process; medians count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import finish, machine

from groundup.models.config import DecoderConfig, ExpertsConfig
from groundup.models.decoder import Decoder
from groundup.models.presets import qwen3, with_experts
from groundup.nn import moe
from groundup.train.objectives import NextTokenLoss

VOCAB, LENGTH = 1024, 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument("--width", type=int, default=192, help="model width")
    parser.add_argument("--expert-width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rows", type=int, default=16, help=f"rows of {LENGTH} tokens in a step")
    parser.add_argument("--windows", type=int, default=7, help="steps per side")
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    sides = build_sides(arguments)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for window in range(arguments.windows + 1):
        for name, step in sides.items():
            begin = time.perf_counter()
            step()
            if window:  # the first is for warming up
                seconds[name].append(time.perf_counter() - begin)
    tokens = arguments.rows * LENGTH
    rates = {name: round(tokens / statistics.median(taken)) for name, taken in seconds.items()}
    finish(
        {
            "benchmark": "moe",
            "machine": machine(),
            "settings": {k: v for k, v in vars(arguments).items() if k != "json"},
            "tokens_per_second": rates,
            "of_dense": {name: round(rate / rates["dense"], 3) for name, rate in rates.items()},
        },
        arguments.json,
    )


def build_sides(arguments: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """A training step (forward, backward, plain SGD) of each side."""
    shape: dict[str, Any] = dict(
        vocab_size=VOCAB,
        width=arguments.width,
        num_layers=arguments.layers,
        num_heads=arguments.width // 64,
        context_length=LENGTH,
    )
    active = arguments.top_k * arguments.expert_width
    dense = qwen3(**shape, feed_forward_width=active)
    experts = ExpertsConfig(num_experts=arguments.experts, top_k=arguments.top_k)
    sparse = with_experts(qwen3(**shape, feed_forward_width=arguments.expert_width), experts)
    ids = torch.randint(0, VOCAB, (arguments.rows, LENGTH))

    def step_of(config: DecoderConfig, run: Any) -> Callable[[], None]:
        torch.manual_seed(0)
        loss = NextTokenLoss(Decoder(config).train())
        optimizer = torch.optim.SGD(loss.parameters(), lr=1e-3)

        def step() -> None:
            moe.grouped_experts, kept = run, moe.grouped_experts
            try:
                (loss(ids, ids) / ids.numel()).backward()
            finally:
                moe.grouped_experts = kept
            optimizer.step()
            optimizer.zero_grad()

        return step

    return {
        "dense": step_of(dense, moe.grouped_experts),
        "grouped": step_of(sparse, moe.grouped_experts),
        "loop": step_of(sparse, moe.loop_experts),
    }


if __name__ == "__main__":
    main()
