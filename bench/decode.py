"""How fast a model writes, next to transformers and llama.cpp: tokens per second by batch.

    python bench/decode.py [--model small|NAME] [--json PATH] [--batch 1,16] [--seconds N]

Every side reads the same prompt of 64 tokens and samples 128 more at temperature 0.8; the prompt's
time counts. "small" is a Llama of 30 million random weights; NAME any model folder or pulled model.
Sides take turns, and medians count. MBU is the share of the measured memory bandwidth that reading
the weights once per token step takes.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
from pathlib import Path
from typing import Any

from common import Worker, finish, machine, serve
from decode_sides import SIDES, TOKENS

from groundup.config import UserError
from groundup.device import measure_bandwidth
from groundup.native.build import status

Side = tuple[str, str]
ALL: tuple[Side, ...] = (
    *(("groundup", format) for format in ("bf16", "int8", "int4", "torch")),
    *(("transformers", format) for format in ("fp32", "bf16", "fp32 static", "bf16 static")),
    *(("llama.cpp", format) for format in ("f16", "q8_0")),
)


def main() -> None:
    """Measure every side at every batch; print a table and then the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument("--batch", default="1,16", help="sequences at once (default: 1,16)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements per side and batch")
    parser.add_argument("--worker", nargs=3, metavar=("MODEL", "SIDE", "FORMAT"), help="internal")
    options = parser.parse_args()
    if options.worker:
        serve_side(*options.worker)
        return
    batches = [int(batch) for batch in options.batch.split(",")]
    facts = machine() | {"bandwidth_gb": round(measure_bandwidth(), 1), "native": status().reason}
    print(f"{facts['cpu']}: {facts['bandwidth_gb']} GB/s, native kernels: {facts['native']}")
    sides = [side for side in ALL if side[0] != "llama.cpp" or _installed("llama_cpp")]
    try:
        rows = measure(options.model, sides, batches, options.rounds, facts["bandwidth_gb"])
    except UserError as error:
        sys.exit(str(error))
    result = {"model": options.model, "machine": facts, "rows": rows, "ratios": ratios(rows)}
    finish(result, options.json)


def measure(
    model: str, sides: list[Side], batches: list[int], rounds: int, bandwidth: float
) -> list[dict[str, Any]]:
    """A row of the result for every side and batch; all sides stay alive and take turns."""
    workers: dict[Side, Worker] = {}
    rows: list[dict[str, Any]] = []
    try:
        for side in sides:
            command = [sys.executable, __file__, "--worker", model, *side]
            workers[side] = Worker(" ".join(side), command)
        for batch in batches:
            able = [side for side in sides if side[0] != "llama.cpp" or batch == 1]
            seconds: dict[Side, list[float]] = {side: [] for side in able}
            for turn in range(rounds + 1):
                for side in able:
                    answer = workers[side].ask(batch=batch)
                    if turn:  # the first is for warming up
                        seconds[side].append(answer["seconds"])
                    size = answer["weight_bytes"]
                    if turn == rounds:
                        rows.append(row(side, batch, seconds[side], size, bandwidth))
    finally:
        for worker in workers.values():
            worker.close()
    return rows


def row(
    side: Side, batch: int, seconds: list[float], weight_bytes: int, bandwidth: float
) -> dict[str, Any]:
    """One row of the result, printed as a line of the table."""
    median = statistics.median(seconds)
    speed, mbu = batch * TOKENS / median, TOKENS / median * weight_bytes / (bandwidth * 1e9)
    print(f"{batch:4} {side[0]:13}{side[1]:12} {speed:9.1f} tokens/s  MBU {mbu:.2f}", flush=True)
    return {
        "side": side[0],
        "format": side[1],
        "batch": batch,
        "tokens_per_second": round(speed, 1),
        "mbu": round(mbu, 3),
        "rounds": len(seconds),
    }


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Our formats over each peer's fastest side, and over our own bf16."""
    found: dict[str, float] = {}
    speed = {(r["side"], r["format"], r["batch"]): r["tokens_per_second"] for r in rows}
    for (side, format, batch), value in speed.items():
        if side != "groundup":
            continue
        for peer in ("transformers", "llama.cpp"):
            theirs = [v for (s, _, b), v in speed.items() if s == peer and b == batch]
            if theirs:
                found[f"{format} x{batch} over {peer}"] = round(value / max(theirs), 3)
        found[f"{format} x{batch} over bf16"] = round(value / speed["groundup", "bf16", batch], 3)
    return found


def serve_side(model: str, side: str, format: str) -> None:
    """The worker: build the side, then write as often as asked."""
    write, facts = SIDES[side](model, format)
    serve(lambda request: {**facts, "seconds": write(request["batch"])})


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


if __name__ == "__main__":
    main()
