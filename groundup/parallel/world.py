"""The processes of a run: who am I, how many are we, and sums across all of us.

Everything here is a no-op in a single process, so callers never ask whether they are distributed.
Started by `torchrun`, which sets RANK, LOCAL_RANK and WORLD_SIZE.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class World:
    """One process's place among `size` processes."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """Element-wise sum over all processes, in float64."""
        if self.size == 1:
            return values
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        total = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return total.tolist()

    def any(self, flag: bool) -> bool:
        """True on every process when it is true on one."""
        return self.sum([float(flag)])[0] > 0

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def share(self, value: object) -> object:
        """The main process's `value`, on every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def local_rank() -> int:
    """Index of this process on its own machine: the GPU it owns (the global rank is not)."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """Join the process group that torchrun describes in the environment; leave it at the end."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    backend = "nccl" if device.startswith("cuda") else "gloo"
    # A restarted group must not read the addresses its dead predecessor left in the same store.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store, rank, size = next(iter(dist.rendezvous("env://", timeout=timedelta(seconds=120))))
    dist.init_process_group(
        backend, store=dist.PrefixStore(f"attempt{attempt}", store), rank=rank, world_size=size
    )
    try:
        yield World(rank=rank, size=size)
    finally:
        dist.destroy_process_group()
