"""The walk through stages: skipped, done again or resumed for the right reasons."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from groundup.config import UserError, from_dict
from groundup.device import Policy
from groundup.files import read_json
from groundup.parallel.world import World
from groundup.pipeline import stage as module
from groundup.pipeline import stages as package
from groundup.pipeline.console import Console
from groundup.pipeline.recipe import run_config_type
from groundup.pipeline.run import Run
from groundup.pipeline.stage import Stage, all_stages, stage_record, walk

POLICY = Policy(device="cpu", compute_dtype="float32", compile=False, threads=1)


@dataclass(frozen=True, kw_only=True)
class Section:
    value: int = 1
    workers: int = 1


@dataclass
class Fixture:
    """Three stages in a row, `calls` of those that worked, and a run folder."""

    folder: Path
    calls: list[str]
    stages: tuple[Stage, ...]

    def walk(self, **values: Any) -> list[str]:
        """Walk with `a=Section(…)` and the like; returns the stages that worked."""
        sections = {"a": Section(), "b": Section(), "c": Section(), "seed": 0, "extra": {"x": 1}}
        config: Any = SimpleNamespace(**{**sections, **values})
        self.calls.clear()
        walk(Run(self.folder, config, POLICY, World(), Console(quiet=True)), self.stages)
        return list(self.calls)


@pytest.fixture
def three(tmp_path: Path) -> Fixture:
    calls: list[str] = []

    def work(name: str) -> Callable[[Run, Section], dict[str, Any]]:
        def inner(run: Run, section: Section) -> dict[str, Any]:
            run.log.write({"stage": name, "step": section.value})
            run.work_folder(name).mkdir(parents=True, exist_ok=True)
            (run.work_folder(name) / f"state-{section.value}").write_text("x")
            (run.folder / f"{name}.out").write_text("x")
            calls.append(name)
            if section.value == 13:
                raise InterruptedError
            return {"value": section.value, "random": torch.rand(()).item()}

        return inner

    stages = tuple(
        Stage(
            name=name,
            after=after,
            title=name,
            section=Section,
            work=work(name),
            outputs=(f"{name}.out",),
            reads=("extra",) if name == "b" else (),
            ignores=("workers",),
        )
        for name, after in (("a", None), ("b", "a"), ("c", "b"))
    )
    return Fixture(tmp_path, calls, stages)


def test_a_finished_stage_is_skipped(three: Fixture) -> None:
    assert three.walk() == ["a", "b", "c"]
    assert three.walk() == []


def test_a_change_reaches_all_that_follow_and_nothing_before(three: Fixture) -> None:
    three.walk()
    assert three.walk(b=Section(value=2)) == ["b", "c"]
    assert three.walk(b=Section(value=2)) == []
    assert three.walk(a=Section(value=3), b=Section(value=2)) == ["a", "b", "c"]
    assert three.walk(a=Section(value=3), b=Section(value=2), c=Section(value=9)) == ["c"]


def test_what_a_stage_reads_counts_and_what_it_ignores_does_not(three: Fixture) -> None:
    three.walk()
    assert three.walk(extra={"x": 2}) == ["b", "c"]
    assert three.walk(extra={"x": 2}, a=Section(workers=8)) == []
    assert three.walk(extra={"x": 2}, seed=5) == []  # no stage here reads it


def test_a_missing_output_is_made_again(three: Fixture) -> None:
    three.walk()
    (three.folder / "b.out").unlink()
    assert three.walk() == ["b"]


def test_a_stage_may_look_for_its_outputs_itself(three: Fixture) -> None:
    def is_intact(run: Run) -> bool:
        return (run.folder / "b.out").exists()

    middle = dataclasses.replace(three.stages[1], outputs=(), is_intact=is_intact)
    three.stages = (three.stages[0], middle, three.stages[2])
    assert three.walk() == ["a", "b", "c"]
    assert three.walk() == []
    (three.folder / "b.out").unlink()
    assert three.walk() == ["b"]


def test_a_stage_that_always_works(three: Fixture) -> None:
    three.stages = (*three.stages[:2], dataclasses.replace(three.stages[2], every_time=True))
    three.walk()
    assert three.walk() == ["c"]


def test_an_interrupted_stage_keeps_its_working_state(three: Fixture) -> None:
    with pytest.raises(InterruptedError):
        three.walk(b=Section(value=13))
    assert three.calls == ["a", "b"]
    with pytest.raises(InterruptedError):
        three.walk(b=Section(value=13))
    assert three.calls == ["b"]
    assert (three.folder / "checkpoints" / "b" / "state-13").exists()


def test_the_state_of_another_recipe_is_kept_aside_and_taken_back(
    three: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    three.walk()
    with caplog.at_level(logging.WARNING, "groundup"), pytest.raises(InterruptedError):
        three.walk(b=Section(value=13))
    assert "earlier b state kept in" in caplog.text
    work = three.folder / "checkpoints" / "b"
    assert [p.name for p in work.iterdir()] == ["state-13"]
    (aside,) = three.folder.glob("checkpoints/b.*")
    assert sorted(p.name for p in aside.iterdir()) == ["b.begun.json", "state-1"]
    # b.out is of the interrupted recipe now: the first one may not pass for finished.
    assert three.walk() == ["b"]
    assert [p.name for p in work.iterdir()] == ["state-1"]


def test_an_earlier_model_goes_aside_where_a_stage_makes_none(three: Fixture) -> None:
    work = three.stages[1].work

    def tune(run: Run, section: Section) -> dict[str, Any]:
        results = work(run, section)
        if section.value == 0:
            return {"skipped": "nothing to do"}
        (run.folder / "tuned").mkdir(exist_ok=True)
        (run.folder / "tuned" / "model.safetensors").write_text(f"model {section.value}")
        return results

    tuner = dataclasses.replace(three.stages[1], work=tune, artifact="tuned")
    three.stages = (three.stages[0], tuner, three.stages[2])
    model = three.folder / "tuned" / "model.safetensors"
    three.walk()
    assert three.walk(b=Section(value=0)) == ["b", "c"]
    assert not model.parent.exists()
    kept = three.folder / "checkpoints" / "tuned.earlier" / "model.safetensors"
    assert kept.read_text() == "model 1"
    assert three.walk(b=Section(value=0)) == []  # nothing to do is done, too
    three.walk(b=Section(value=7))
    assert model.read_text() == "model 7"
    with pytest.raises(InterruptedError):
        three.walk(a=Section(value=13), b=Section(value=7))
    three.walk(b=Section(value=7))
    model.unlink()
    assert three.walk(b=Section(value=7)) == ["b"]


def test_the_time_of_earlier_attempts_counts(three: Fixture) -> None:
    with pytest.raises(InterruptedError):
        three.walk(b=Section(value=13))
    claim = three.folder / "stages" / "b.begun.json"
    begun = read_json(claim)
    assert begun["seconds"] >= 0
    claim.write_text(json.dumps(begun | {"seconds": 1000.0}))
    with pytest.raises(InterruptedError):
        three.walk(b=Section(value=13))
    assert 1000 <= read_json(claim)["seconds"] < 1100
    three.walk()  # another recipe: its time begins anew
    assert read_json(three.folder / "stages" / "b.json")["seconds"] < 100
    with pytest.raises(InterruptedError):
        three.walk(b=Section(value=13))  # taken back up, with its time
    assert read_json(claim)["seconds"] >= 1000


def test_the_log_holds_one_attempt_of_each_stage(three: Fixture) -> None:
    three.walk()
    three.walk(b=Section(value=2))
    config: Any = SimpleNamespace()
    run = Run(three.folder, config, POLICY, World(), Console(quiet=True))
    rows = sorted((row["stage"], row["step"]) for row in run.log.rows())
    assert rows == [("a", 1), ("b", 2), ("c", 1)]


def test_every_stage_draws_from_its_own_seed(three: Fixture) -> None:
    config: Any = SimpleNamespace()
    run = Run(three.folder, config, POLICY, World(), Console(quiet=True))
    three.walk()
    first = stage_record(run, "c")["results"]["random"]
    torch.manual_seed(99)
    (three.folder / "c.out").unlink()
    assert three.walk() == ["c"]  # alone, without a and b before it
    assert stage_record(run, "c")["results"]["random"] == first


def test_the_record_of_a_stage_that_has_not_run(three: Fixture) -> None:
    config: Any = SimpleNamespace()
    run = Run(three.folder, config, POLICY, World(), Console(quiet=True))
    with pytest.raises(UserError, match="Stage 'c' of .* has not run yet"):
        stage_record(run, "c")


@pytest.fixture
def with_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file `translate.py` among the stages."""
    (tmp_path / "translate.py").write_text(
        """
from dataclasses import dataclass
from groundup.pipeline.stage import Stage

@dataclass(frozen=True, kw_only=True)
class Section:
    strength: float = 0.5

STAGE = Stage(name="translate", after="sft", before=("evaluate",), title="Translate",
              section=Section, work=lambda run, section: {"strength": section.strength})
"""
    )
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    all_stages.cache_clear()
    run_config_type.cache_clear()
    yield
    monkeypatch.undo()
    all_stages.cache_clear()
    run_config_type.cache_clear()


@pytest.mark.usefixtures("with_new_file")
def test_adding_a_stage_is_one_file() -> None:
    names = [stage.name for stage in all_stages()]
    assert names.index("translate") == names.index("sft") + 1
    config: Any = from_dict(run_config_type(), {"translate": {"strength": 2}})
    assert config.translate.strength == 2.0
    with pytest.raises(UserError, match=r"'translate\.strenth'. Did you mean 'strength'"):
        from_dict(run_config_type(), {"translate": {"strenth": 2}})


def test_the_stages_come_in_order() -> None:
    found = {stage.name: position for position, stage in enumerate(all_stages())}
    for stage in module.all_stages():
        assert stage.after is None or found[stage.after] < found[stage.name]
    assert found["data"] == 0 and found["report"] == len(found) - 1
