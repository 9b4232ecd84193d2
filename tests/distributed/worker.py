"""One process of a data-parallel run: trains a small decoder on shards and records what it saw.

    python worker.py JOB.json     (alone, or under torchrun)

The jobs are a list of {"shards", "fingerprint", "checkpoints", "record", "steps", "micro_rows",
"balance"}; each is trained in turn. "balance" says how experts are kept busy; null is for none.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from groundup.data.batch import Batch
from groundup.data.loader import PretrainLoader
from groundup.data.shards import Shards
from groundup.device import Policy
from groundup.models.config import ExpertsConfig
from groundup.models.decoder import Decoder
from groundup.models.presets import qwen3, with_experts
from groundup.optim.build import build_optimizer
from groundup.optim.config import OptimizerConfig
from groundup.parallel.world import World, join_world
from groundup.train.checkpoints import Checkpoints
from groundup.train.config import TrainConfig
from groundup.train.trainer import Trainer


class Recorder(PretrainLoader):
    """Notes a digest of every row it hands out."""

    def rows(self, index: int, start: int, stop: int) -> Batch:
        batch = super().rows(index, start, stop)
        for offset in range(stop - start):
            row = batch.inputs[offset].numpy().tobytes() + batch.targets[offset].numpy().tobytes()
            self.seen[f"{index}:{start + offset}"] = hashlib.sha256(row).hexdigest()
        return batch

    seen: dict[str, str]


class Losses:
    def __init__(self) -> None:
        self.rows: list[Any] = []

    def write(self, row: Any) -> None:
        self.rows.append([row["step"], row["loss"], row["grad_norm"], row.get("experts")])


def train(job: dict[str, Any], world: World) -> None:
    """One job; writes `record`.RANK with the losses and the digests of this process's rows."""
    shards = Shards(Path(job["shards"]), job["fingerprint"])
    loader = Recorder([shards], [1.0], 24, 8, seed=5, documents=True)
    loader.seen = {}
    torch.manual_seed(1 + world.rank)  # the weights of rank 0 are sent to everyone
    shape = qwen3(vocab_size=320, width=24, num_layers=2, num_heads=2, context_length=24)
    if job["balance"]:
        experts = ExpertsConfig(num_experts=5, top_k=2, balance=job["balance"], bias_rate=0.01)
        network = replace(shape.feed_forward, width=28)
        shape = with_experts(replace(shape, feed_forward=network), experts)
    model = Decoder(shape)
    sink = Losses()
    trainer = Trainer(
        stage="test",
        model=model,
        optimizer=build_optimizer(model, OptimizerConfig()),
        schedule=lambda step, total: 1.0 - 0.5 * step / total,
        loader=loader,
        total_steps=job["steps"],
        clip_norm=1.0,
        config=TrainConfig(
            log_every=1,
            checkpoint_every=10,
            keep_last=9,
            checkpoint_minutes=1e6,
            micro_rows=job["micro_rows"],
        ),
        policy=Policy(device="cpu", compute_dtype="float32", compile=False, threads=1),
        roof_gflops=1.0,
        sink=sink,
        checkpoints=Checkpoints(job["checkpoints"], 9, world),
        world=world,
    )
    trainer.resume()
    trainer.fit()
    record = {"rows": sink.rows, "seen": loader.seen, "rank": world.rank, "size": world.size}
    Path(f"{job['record']}.{world.rank}").write_text(json.dumps(record))


def main() -> None:
    torch.set_num_threads(1)
    with join_world("cpu") as world:
        for job in json.loads(Path(sys.argv[1]).read_text()):
            train(job, world)


if __name__ == "__main__":
    main()
