"""Training speed next to transformers: tokens per second, MFU and peak memory at two sizes.

    python bench/train.py [--json PATH] [--sizes s,m] [--seconds N] [--all]

Sides, all on random tokens, same batch, width, depth, vocabulary and tied head, without dropout:
groundup through the trainer's own step, with its default optimizer (Muon) and with AdamW; and
transformers' GPT2LMHeadModel and LlamaForCausalLM as they come (fp32, eager, torch.optim.AdamW) and
tuned (compiled, fused AdamW, in fp32 and in bf16 autocast). Sides take turns in windows of a step
or more. A side clearly slower than another of the same model gets no further windows, and where
the bf16 matmul measures slower than the fp32 one, the bf16 sides run only with --all.

The ratios compare groundup's default to the peers' fastest side, and to their defaults; those
with `_adamw` compare like with like, the update rule too. MFU is 6 N FLOPs per token for the N
weights of the linear layers and head, plus causal attention, over the faster of the measured fp32
and bf16 matmul.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import Worker, finish, machine, serve
from train_sides import SIZES, Size, groundup_side, peer_side

from groundup.config import UserError

PEERS = ("gpt2", "llama")
MODES = ("defaults", "compile+fused fp32", "compile+fused bf16")
Side = tuple[str, str]
SIDES: tuple[Side, ...] = (
    ("groundup", "default"),
    ("groundup", "adamw"),
    *((peer, mode) for peer in PEERS for mode in MODES),
)
LOST = 1.5  # a side this much slower than the fastest of its model is measured no further


def main() -> None:
    """Measure every side of every size; print a table and then the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--sizes", default="s,m", help="of s, m and tiny (default: s,m)")
    parser.add_argument("--seconds", type=float, default=10.0, help="measured per side and size")
    parser.add_argument("--all", action="store_true", help="bf16 even where it is slower")
    parser.add_argument("--worker", nargs=3, metavar=("SIZE", "SIDE", "MODE"), help="internal")
    options = parser.parse_args()
    if options.worker:
        size, side, mode = options.worker
        serve_side(SIZES[size], side, mode)
        return
    facts = machine()
    print(f"{facts['cpu']}: {facts['threads']} threads, matmul GFLOP/s {facts['matmul_gflops']}")
    bf16 = options.all or facts["matmul_gflops"]["bfloat16"] > facts["matmul_gflops"]["float32"]
    sides = [side for side in SIDES if bf16 or not side[1].endswith("bf16")]
    left_out = [list(side) for side in SIDES if side not in sides]
    result: dict[str, Any] = {**facts, "sizes": {}, "left_out": left_out, "rows": []}
    for name in options.sizes.split(","):
        if name not in SIZES:
            parser.error(f"--sizes holds '{name}', but the sizes are {', '.join(SIZES)}.")
        result["sizes"][name] = asdict(SIZES[name])
        try:
            rows = measure_size(name, sides, options.seconds, facts["roof_gflops"])
        except UserError as error:
            sys.exit(str(error))
        result["rows"] += rows
        print(flush=True)
    finish(result | ratios(result["rows"]), options.json)


def measure_size(name: str, sides: list[Side], seconds: float, roof: float) -> list[dict[str, Any]]:
    """Rows of the result for one size: start all sides, let them take turns, close them."""
    workers: dict[Side, Worker] = {}
    facts: dict[Side, dict[str, Any]] = {}
    try:
        for side in sides:
            workers[side] = Worker(
                " ".join(side), [sys.executable, __file__, "--worker", name, *side]
            )
            facts[side] = workers[side].ask()  # answers once it is compiled and warm
            print(
                f"  {name} {' '.join(side)}: ready in {facts[side]['ready_seconds']:.0f} s",
                flush=True,
            )
        steps = take_turns(workers, seconds)
        rows = [
            row(name, side, facts[side] | workers[side].ask(), steps[side], roof) for side in sides
        ]
    finally:
        for worker in workers.values():
            worker.close()
    return rows


def row(
    name: str, side: Side, facts: dict[str, Any], steps: list[float], roof: float
) -> dict[str, Any]:
    """One row of the result, printed as a line of the table."""
    speed = SIZES[name].tokens / statistics.median(steps)
    mfu, peak = facts["flops_per_token"] * speed / (roof * 1e9), facts["peak_mb"]
    print(
        f"{name:5}{side[0]:9} {side[1]:19} {speed:9.0f} tokens/s  MFU {mfu:.3f}  {peak:6.0f} MB",
        flush=True,
    )
    return {
        "size": name,
        "side": side[0],
        "mode": side[1],
        "tokens_per_second": round(speed, 1),
        "mfu": round(mfu, 4),
        "peak_mb": round(peak),
        "steps_measured": len(steps),
        **{key: facts[key] for key in ("parameters", "flops_per_token", "setting")},
    }


def take_turns(workers: dict[Side, Worker], seconds: float) -> dict[Side, list[float]]:
    """Seconds of every step measured, by side: about `seconds` in all, in two windows or more."""
    steps: dict[Side, list[float]] = {side: [] for side in workers}
    running = set(workers)
    rounds = 0
    while running:
        for side in [side for side in workers if side in running]:
            steps[side] += workers[side].ask(window=seconds / 4)["steps"]
        rounds += 1
        fastest = {
            model: min(statistics.median(times) for (m, _), times in steps.items() if m == model)
            for model, _ in workers
        }
        for side in list(running):
            median = statistics.median(steps[side])
            enough = sum(steps[side]) >= 0.95 * seconds
            # The defaults are what a ratio is taken of, so they are measured to the end.
            lost = side[1] != "defaults" and median > LOST * fastest[side[0]]
            if rounds >= 2 and (enough or lost):
                running.remove(side)
    return steps


def ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """groundup over the peers' fastest side and over their fastest defaults, by size."""

    def best(size: str, keep: Callable[[dict[str, Any]], bool]) -> float:
        return max(r["tokens_per_second"] for r in rows if r["size"] == size and keep(r))

    result: dict[str, dict[str, float]] = {}
    for suffix, mode in (("", "default"), ("_adamw", "adamw")):
        for size in dict.fromkeys(row["size"] for row in rows):
            ours = best(size, lambda r, m=mode: r["side"] == "groundup" and r["mode"] == m)
            tuned = best(size, lambda r: r["side"] in PEERS)
            defaults = best(size, lambda r: r["side"] in PEERS and r["mode"] == "defaults")
            by_tuned = result.setdefault(f"ratio_vs_best_tuned{suffix}", {})
            by_defaults = result.setdefault(f"ratio_vs_defaults{suffix}", {})
            by_tuned[size], by_defaults[size] = round(ours / tuned, 3), round(ours / defaults, 3)
    return result


def serve_side(size: Size, side: str, mode: str) -> None:
    """The worker: build the side, warm it up, then run windows of steps as asked."""
    from groundup.device import peak_memory_mb

    start = time.perf_counter()
    step, facts = groundup_side(size, mode) if side == "groundup" else peer_side(size, side, mode)
    step()  # compiles; what little is still cold in the next step, the median drops
    facts["ready_seconds"] = time.perf_counter() - start

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        times = list(timed_steps(step, request["window"])) if "window" in request else []
        return {**facts, "steps": times, "peak_mb": peak_memory_mb()}

    serve(answer)


def timed_steps(step: Callable[[], object], window: float) -> Iterator[float]:
    """Seconds of each step, until `window` seconds have passed; at least one."""
    end = time.perf_counter() + window
    while True:
        start = time.perf_counter()
        step()
        yield time.perf_counter() - start
        if time.perf_counter() >= end:
            return


if __name__ == "__main__":
    main()
