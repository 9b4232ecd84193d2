"""Training checkpoints: all that is needed to go on as if never stopped, whole or absent.

A checkpoint is a folder `step-00000100/` of torch.distributed.checkpoint files plus `state.json`
(step, data position, schedule, best metric, sha256 of each file). It is built beside its final
name and renamed, so a kill or a full disk leaves the previous one. A damaged newest checkpoint is
passed over, with a warning, for the one before it.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from groundup.config import UserError
from groundup.files import read_json, sha256_file, write_json
from groundup.parallel.world import World

logger = logging.getLogger("groundup")


class Checkpoints:
    """The checkpoints of one stage: `folder/step-NNNNNNNN`, the newest `keep_last` of them."""

    def __init__(self, folder: str | Path, keep_last: int = 2, world: World | None = None) -> None:
        self.folder = Path(folder)
        self.keep_last = keep_last
        self.world = world or World()

    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint, oldest first."""
        found = self.folder.glob("step-*/state.json")
        return sorted(int(path.parent.name.removeprefix("step-")) for path in found)

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
        """Write a checkpoint of `tensors` (flat names) and JSON-able `facts`, then drop old ones.

        Collective: every process calls it. Raises OSError, with everything older intact, when the
        disk is full or read-only.
        """
        final = self.folder / f"step-{step:08d}"
        temporary = self.folder / f".step-{step:08d}.tmp"
        if self.world.is_main:
            for leftover in self.folder.glob(".step-*.tmp"):  # of a save that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            temporary.mkdir(parents=True)
        self.world.barrier()
        try:
            _dcp_save(dict(tensors), temporary, self.world)
            if self.world.is_main:
                files = {f.name: sha256_file(f) for f in temporary.iterdir() if f.is_file()}
                write_json(temporary / "state.json", {"step": step, "files": files, **facts})
                shutil.rmtree(final, ignore_errors=True)
                os.rename(temporary, final)
        finally:
            if self.world.is_main:
                shutil.rmtree(temporary, ignore_errors=True)
        self.world.barrier()
        if self.world.is_main:
            # A later step is a damaged checkpoint that `load_latest` passed over: it must not
            # push out a good one.
            good = [saved for saved in self.steps() if saved <= step]
            for old in good[: -self.keep_last]:
                shutil.rmtree(self.folder / f"step-{old:08d}")
        return final

    def load_latest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and facts of the newest undamaged checkpoint, or None when there is none yet.

        Raises UserError when checkpoints exist but all are damaged: starting over silently would
        throw the user's work away.
        """
        steps = self.steps()
        for step in reversed(steps):
            path = self.folder / f"step-{step:08d}"
            try:
                return load_checkpoint(path)
            except UserError as error:
                logger.warning("%s Trying the checkpoint before it.", error)
        if steps:
            raise UserError(
                f"Every checkpoint in {self.folder} is damaged. Delete that folder to train this "
                "stage from its start."
            )
        return None


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read one checkpoint folder. Raises UserError, naming the file, when one is damaged."""
    facts = read_json(path / "state.json")
    for name, digest in facts["files"].items():
        file = path / name
        if not file.exists():
            raise UserError(f"Checkpoint {path} is damaged: {name} is missing.")
        if sha256_file(file) != digest:
            size = file.stat().st_size
            raise UserError(
                f"Checkpoint {path} is damaged: {name} ({size:,} bytes) was cut off or altered."
            )
    metadata = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    with _alone():
        dcp.load(tensors, checkpoint_id=path, no_dist=True)
    return tensors, facts


def _dcp_save(tensors: dict[str, Tensor], folder: Path, world: World) -> None:
    single = world.size == 1
    try:
        # torch prints the traceback that it then raises
        with _alone(), redirect_stderr(io.StringIO()):
            dcp.save(tensors, checkpoint_id=folder, no_dist=single)
    except dcp.api.CheckpointException as error:
        cause: BaseException | None = next(iter(error.failures.values()))[0]
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__  # torch's writer covers up "disk full" when it closes
        raise cause or OSError(f"Could not write checkpoint {folder}: {error}") from None


@contextmanager
def _alone() -> Iterator[None]:
    """Quiet: torch warns every process without a group that it has none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
