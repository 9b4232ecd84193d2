"""A run: its folder, its configuration, and what all its stages share."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from groundup.config import UserError, from_dict, to_toml
from groundup.data.shards import Shards
from groundup.device import Policy, available_cores, cpu_name, detect, roof_gflops
from groundup.files import atomic_write, read_json, write_json
from groundup.nn.kernel_choice import use_kernel
from groundup.parallel.world import World, join_world, local_rank
from groundup.pipeline.console import Console
from groundup.pipeline.lock import locked
from groundup.pipeline.recipe import RunConfig
from groundup.pipeline.shape import model_shape
from groundup.pipeline.stage import StageClock, all_stages, walk
from groundup.pipeline.start import check_place
from groundup.pipeline.store import read_index
from groundup.text.tokenizer import Tokenizer, load_tokenizer
from groundup.train.log import Fanout, JsonLog, Sink, TensorBoardSink
from groundup.train.state import software_versions


class Run:
    """The folder `runs/NAME` and everything a stage needs to work in it."""

    clock: StageClock
    """Of the stage at work."""

    def __init__(
        self, folder: Path, config: RunConfig, policy: Policy, world: World, console: Console
    ) -> None:
        self.folder, self.config, self.policy = folder, config, policy
        self.world, self.console = world, console
        self.log = JsonLog(folder / "log.jsonl")

    def work_folder(self, stage: str) -> Path:
        """Where a stage keeps its checkpoints while it is at work."""
        return self.folder / "checkpoints" / stage

    def model_folder(self, *names: str) -> Path | None:
        """The first of these model folders that the run has, such as "mid" before "base"."""
        paths = (self.folder / name for name in names)
        return next((path for path in paths if (path / "model.safetensors").exists()), None)

    def write_json(self, name: str, data: Any) -> None:
        """Write a JSON file below the run folder, once for all processes."""
        if self.world.is_main:
            write_json(self.folder / name, data)
        self.world.barrier()

    @cached_property
    def sink(self) -> Sink:
        sinks: list[Sink] = [self.log, self.console]
        if self.config.tensorboard and self.world.is_main:
            sinks.append(TensorBoardSink(self.folder / "tensorboard"))
        return Fanout(*sinks)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.folder / "tokenizer")

    def shards(self, split: str) -> list[Shards]:
        """The token shards of every source that has this split ("train" or "heldout")."""
        return [
            Shards(self.folder / "shards" / f"{source['key']}-{split}", self.tokenizer.fingerprint)
            for source in read_index(self.folder)
            if split == "train" or source["heldout"]
        ]

    @cached_property
    def machine(self) -> dict[str, Any]:
        """The processor and its measured limit, for MFU and for the report."""
        return {
            "cpu": cpu_name(),
            "cores": self.policy.threads,
            "policy": self.policy.describe(),
            "roof_gflops": read_json(self.folder / "device.json")["roof_gflops"],
            "processes": self.world.size,
            "versions": software_versions(),
        }


def speedrun(config: RunConfig, folder: Path) -> Path:
    """Bring the run in `folder` up to date with `config`, stage by stage; returns the folder."""
    started = time.perf_counter()
    check_place(config, folder)
    model_shape(config, config.tokenizer.vocab_size)  # an impossible one is refused before any work
    with open_run(config, folder) as run:
        walk(run, all_stages())
        prompt = vars(config)["pretrain"].sample_prompt or "Once upon a time"
        chats = run.model_folder("rl", "sft") is not None
        run.console.done(folder, time.perf_counter() - started, prompt, chats)
    return folder


@contextmanager
def open_run(config: RunConfig, folder: Path) -> Iterator[Run]:
    """Open (or create) a run folder under `config`, in as many processes as torchrun started."""
    policy = detect(config.device, local_rank())
    with (
        use_kernel(config.device.attention),
        join_world(policy.device) as world,
        _claimed(folder, config, world),
    ):
        policy = _settled_policy(folder, policy, config, world)
        with Console(quiet=not world.is_main) as console:
            console.headline(config.name, policy.describe(), folder)
            yield Run(folder, config, policy, world, console)


@contextmanager
def _claimed(folder: Path, config: RunConfig, world: World) -> Iterator[None]:
    """Create the run folder and keep other runs out of it; the main process does so for all.

    Raises UserError on every process when it cannot be written to, or another run is in it.
    """
    with ExitStack() as held:
        refusal = ""
        if world.is_main:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(folder))
                with atomic_write(folder / "config.toml") as file:
                    file.write(to_toml(config))
            except UserError as error:
                refusal = str(error)
            except OSError as error:
                refusal = (
                    f"Cannot write into the run folder {folder} ({error.strerror}); choose "
                    "another with --run FOLDER."
                )
        if refusal := str(world.share(refusal)):
            raise UserError(refusal)
        yield


def _settled_policy(folder: Path, policy: Policy, config: RunConfig, world: World) -> Policy:
    """The policy this run began with on this machine, so that a resumed run computes the same.

    The measured limit is kept beside it. Measuring again could tip a close decision between fp32
    and bf16 the other way, as it could on another process of the same run.
    """
    path = folder / "device.json"
    record = {
        "machine": cpu_name(),
        "asked": dataclasses.asdict(config.device),
        "processes": world.size,
    }
    if world.is_main:
        saved = read_json(path) if path.exists() else {}
        if {key: saved.get(key) for key in record} != record:
            roof = round(_roof(policy, world), 1)
            write_json(path, {**record, "policy": dataclasses.asdict(policy), "roof_gflops": roof})
    world.barrier()
    settled = from_dict(Policy, read_json(path)["policy"])
    return dataclasses.replace(settled, device=policy.device)


def _roof(policy: Policy, world: World) -> float:
    """The limit of all processes together, in GFLOP/s, which the MFU of their joint speed is of.

    Every process has a GPU of its own, so theirs add up. Processes on one CPU share it: it is
    measured once with the threads of all of them, and counted once for each machine.
    """
    if policy.device != "cpu":
        return world.size * roof_gflops(policy)
    import torch

    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(min(available_cores(), policy.threads * here))
    try:
        return roof_gflops(policy) * (world.size // here)
    finally:
        torch.set_num_threads(policy.threads)
