"""What a stage is, and how a run walks through its stages: skip, resume or do.

A stage is one file in `pipeline/stages/` that defines `STAGE`. It names the stage it follows, the
type of its section in the recipe and a function that does the work; nothing else needs to know of
it. A finished stage leaves `stages/NAME.json` with the fingerprint of all that it depended on, and
is skipped while that stays the same.
"""

from __future__ import annotations

import importlib
import json
import logging
import pkgutil
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.config import UserError, to_dict
from groundup.device import seed_everything
from groundup.files import read_json, sha256_bytes, write_json

if TYPE_CHECKING:
    from groundup.pipeline.run import Run

logger = logging.getLogger("groundup")
Results = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of the way from raw text to a chat."""

    name: str
    after: str | None
    """The stage whose artifact this one needs; None for the first."""
    before: tuple[str, ...] = ()
    """Stages that must wait for this one, though they do not name it: where it steps in between."""
    title: str
    """What the console says it is doing."""
    section: type
    """Dataclass of the recipe's section of the same name."""
    reads: tuple[str, ...] = ()
    """Other parts of the recipe that change this stage's outcome, such as "model"."""
    ignores: tuple[str, ...] = ()
    """Keys of its own section that only say how the work is carried out, such as "workers"."""
    inputs: Callable[[Any], Any] | None = None
    """What the outcome depends on outside the recipe, as JSON, given the recipe: file contents."""
    work: Callable[[Run, Any], Results]
    """Does it, given the run and the section; returns JSON-able results for the report."""
    outputs: tuple[str, ...] = ()
    """Paths below the run folder that must exist for the stage to count as done."""
    is_intact: Callable[[Run], bool] | None = None
    """Asked in addition, where the names of what must exist depend on the run."""
    artifact: str | None = None
    """The model folder it writes, below the run folder. A stage that finds nothing to do says why
    in its results as "skipped"; an earlier recipe's model then goes aside."""
    every_time: bool = False
    """Never skipped."""


@cache
def all_stages() -> tuple[Stage, ...]:
    """Every stage found in `pipeline/stages/`, in an order that suits all `after` and `before`."""
    package = importlib.import_module("groundup.pipeline.stages")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    found = [importlib.import_module(f"{package.__name__}.{name}").STAGE for name in names]
    ordered: list[Stage] = []
    while len(ordered) < len(found):
        done = {None, *(stage.name for stage in ordered)}
        waiting = [stage for stage in found if stage not in ordered]
        held_up = {name for stage in waiting for name in stage.before}
        ready = [s for s in waiting if s.after in done and s.name not in held_up]
        assert ready, "a stage follows one that does not exist, or itself"
        ordered.append(ready[0])
    return tuple(ordered)


def walk(run: Run, stages: Sequence[Stage]) -> None:
    """Bring every stage of the run up to date, in order.

    Each begins with the seed of the recipe: what it draws does not depend on whether the stages
    before it have just run or were skipped.
    """
    fingerprint = ""
    for stage in stages:
        fingerprint = _fingerprint(stage, run, fingerprint)
        # Asked by one: what it looks at may change between two looks.
        if run.world.share(run.world.is_main and _is_done(stage, run, fingerprint)):
            run.console.skipped(stage.title)
            continue
        _begin(stage, run, fingerprint)
        run.console.begin(stage.title)
        run.clock = StageClock(run, stage.name)
        seed_everything(run.config.seed, run.world.rank)
        try:
            results = stage.work(run, getattr(run.config, stage.name))
        finally:
            run.clock.keep()
        if stage.artifact and "skipped" in results and run.world.is_main:
            _retire_model(run.folder, stage.artifact)
        seconds = round(run.clock.seconds(), 2)
        record = {"fingerprint": fingerprint, "seconds": seconds, "results": results}
        run.write_json(_record(stage), record)
        run.console.finished(stage.title, seconds)


class StageClock:
    """How long a stage has been at work, with the earlier attempts that it goes on from.

    Time is kept at every checkpoint and at the end, so what a kill threw away does not count. An
    attempt that left no working state is started over, and does not count either.
    """

    def __init__(self, run: Run, stage: str) -> None:
        self._path = run.folder / f"stages/{stage}.begun.json"
        self._is_main = run.world.is_main
        claim = read_json(self._path) if self._path.exists() else {}
        self._work = run.work_folder(stage)
        self._earlier = claim.get("seconds", 0.0) if self._work.exists() else 0.0
        self._started = time.perf_counter()

    def seconds(self) -> float:
        return self._earlier + time.perf_counter() - self._started

    def keep(self) -> None:
        """Write the time so far into the stage's claim, where there is a state to go on from."""
        if self._is_main and self._work.exists():
            write_json(self._path, {**read_json(self._path), "seconds": round(self.seconds(), 2)})


def stage_record(run: Run, name: str) -> dict[str, Any]:
    """The "fingerprint", "seconds" and "results" of a finished stage.

    Raises UserError when it has not run.
    """
    path = run.folder / "stages" / f"{name}.json"
    if not path.exists():
        raise UserError(f"Stage '{name}' of {run.folder} has not run yet.")
    return read_json(path)


def _record(stage: Stage) -> str:
    return f"stages/{stage.name}.json"


def _fingerprint(stage: Stage, run: Run, upstream: str) -> str:
    parts = {name: to_dict(getattr(run.config, name)) for name in (stage.name, *stage.reads)}
    for key in stage.ignores:
        del parts[stage.name][key]
    outside = stage.inputs(run.config) if stage.inputs else None
    text = json.dumps([stage.name, parts, outside, upstream], sort_keys=True)
    return sha256_bytes(text.encode())


def _is_done(stage: Stage, run: Run, fingerprint: str) -> bool:
    path = run.folder / _record(stage)
    if stage.every_time or not path.exists():
        return False
    record = read_json(path)
    outputs = [*stage.outputs]
    if stage.artifact and "skipped" not in record["results"]:
        outputs.append(f"{stage.artifact}/model.safetensors")
    outputs_exist = all((run.folder / output).exists() for output in outputs)
    if record["fingerprint"] != fingerprint or not outputs_exist:
        return False
    return stage.is_intact is None or stage.is_intact(run)


def _begin(stage: Stage, run: Run, fingerprint: str) -> None:
    """Claim the stage's working state; another configuration's is moved out of the way.

    Where an earlier claim of this very configuration was moved, it is taken back up.
    """
    claim, work = run.folder / f"stages/{stage.name}.begun.json", run.work_folder(stage.name)
    claimed = read_json(claim)["fingerprint"] if claim.exists() else None
    if run.world.is_main and claimed != fingerprint:
        # What the stage left behind before is about to be replaced: it no longer counts as done.
        (run.folder / _record(stage)).unlink(missing_ok=True)
        if work.exists() and claimed is not None:
            aside = _aside(work, claimed)
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copy(claim, work / claim.name)
            work.rename(aside)
            logger.warning("The recipe changed: earlier %s state kept in %s.", stage.name, aside)
        if _aside(work, fingerprint).exists():
            _aside(work, fingerprint).rename(work)
        kept = work / claim.name
        earlier = read_json(kept) if kept.exists() else {}
        run.log.rewind(lambda row: row.get("stage") != stage.name)
        write_json(claim, {**earlier, "fingerprint": fingerprint})
        kept.unlink(missing_ok=True)
    run.world.barrier()


def _retire_model(folder: Path, artifact: str) -> None:
    """Move away a model that an earlier recipe made, where the stage now makes none.

    A stage that makes one replaces the earlier model when it is done, and not before.
    """
    if (folder / artifact).exists():
        kept = folder / "checkpoints" / f"{artifact}.earlier"
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        (folder / artifact).rename(kept)
        logger.warning("This recipe makes no %s/: the earlier one is kept in %s.", artifact, kept)


def _aside(work: Path, fingerprint: str) -> Path:
    return work.with_name(f"{work.name}.{fingerprint[:8]}")
