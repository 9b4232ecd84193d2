"""Every family at every kind of task it can learn: its loss falls, it goes on, it is saved."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from groundup.config import UserError
from groundup.data.examples import Example, TaskData
from groundup.data.tasks import TASKS, Kind, Task
from groundup.models.folder import load_any
from groundup.pipeline.tasks.families import BEST, FAMILIES, GUIDE, families_for
from groundup.pipeline.tasks.runner import train_task
from groundup.pipeline.tasks.settings import TaskSettings, settled
from groundup.text.tokenizer import load_tokenizer
from groundup.train.signals import Stopped
from groundup.train.trainer import Trainer

SMALL: dict[str, Any] = {
    "steps": 30,
    "width": 32,
    "layers": 2,
    "rows": 8,
    "length": 48,
    "vocab_size": 300,
    "tokenizer": "char",
    "evaluations": 1,
    "test_examples": 12,
    "dropout": 0.1,
}
COLOURS = ("red", "green", "blue")


def made(kind: Kind) -> Task:
    """A tiny task of a kind."""
    data = {
        "classify": lambda: _texts(lambda word, colour: (f"{word} {colour}", colour)),
        "tag": lambda: _texts(lambda word, colour: (f"{word} {colour} x", "NOUN HUE END")),
        "write": lambda: _texts(lambda word, colour: (f"{colour} {word}", f"{word}!")),
        "continue": lambda: _texts(lambda word, colour: ("", f"the {colour} {word} is one " * 4)),
        "image": lambda: _images(lambda colour: colour),
        "caption": lambda: _images(lambda colour: f"it is {colour}"),
    }[kind]
    return Task(f"tiny-{kind}", kind, "a test", "none", "", 0, data)


def _texts(make: Any) -> TaskData:
    random = np.random.default_rng(4)
    pairs = []
    for number in range(60):
        word = "".join(random.choice(list("abcdef"), size=1 + number % 5))
        source, target = make(word, COLOURS[number % 3])
        pairs.append(Example(source, target))
    names = {word for pair in pairs for word in pair.target.split()}
    return TaskData(pairs[:48], pairs[48:], tuple(sorted(names)))


def _images(make: Any) -> TaskData:
    random = np.random.default_rng(4)
    examples = []
    for number in range(60):
        image = random.integers(0, 60, (3, 8, 8)).astype(np.uint8)
        image[number % 3] += 150
        examples.append(Example(target=make(COLOURS[number % 3]), image=image))
    return TaskData(examples[:48], examples[48:], COLOURS)


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


PAIRS = [(kind, name) for kind in BEST for name in families_for(made(kind))]


@pytest.mark.parametrize(("kind", "family"), PAIRS)
def test_a_family_learns_a_kind_of_task(kind: Kind, family: str, tmp_path: Path) -> None:
    settings = TaskSettings(**SMALL | ({"rate": 3e-3} if family == "rnn" else {}))
    outcome = train_task(made(kind), family, settings, tmp_path)
    fallen = losses(tmp_path)
    assert fallen[-1] < 0.97 * fallen[0]
    assert outcome.steps == 30 and outcome.examples_seen == 240
    assert outcome.after == outcome.curve[-1]["score"] == outcome.scores[outcome.metric]
    assert len(outcome.samples) == 5 and outcome.baseline >= 0
    loaded = load_any(tmp_path / "model")
    assert loaded.meta["task"] == f"tiny-{kind}" and loaded.meta["family"] == family
    assert sum(p.numel() for p in loaded.model.parameters()) == outcome.parameters
    assert train_task(made(kind), family, settings, tmp_path) == outcome  # read, not trained


@pytest.mark.parametrize(
    ("kind", "family"),
    [("classify", "encoder"), ("write", "encoder-decoder"), ("continue", "lstm")],
)
def test_going_on_equals_never_stopping(
    kind: Kind, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TaskSettings(**SMALL)
    whole = train_task(made(kind), family, settings, tmp_path / "whole")
    step = Trainer.train_step

    def stopping(self: Trainer) -> dict[str, Any]:
        if self.progress.step == 16:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", stopping)
    with pytest.raises(Stopped, match="step 17"):
        train_task(made(kind), family, settings, tmp_path / "parts")
    monkeypatch.undo()
    torch.rand(5)
    parts = train_task(made(kind), family, settings, tmp_path / "parts")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert parts.scores == whole.scores and parts.before == whole.before
    a, b = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "parts"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_accumulating_changes_nothing_but_the_memory(tmp_path: Path) -> None:
    settings = SMALL | {"dropout": 0.0, "steps": 20}
    train_task(made("tag"), "encoder", TaskSettings(**settings), tmp_path / "one")
    train_task(made("tag"), "encoder", TaskSettings(**settings, accumulate=4), tmp_path / "four")
    assert losses(tmp_path / "four") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


def test_a_time_is_turned_into_steps_once(tmp_path: Path) -> None:
    settings = TaskSettings(**SMALL | {"steps": 0, "minutes": 0.02})
    outcome = train_task(made("image"), "mlp", settings, tmp_path)
    assert outcome.steps == json.loads((tmp_path / "plan.json").read_text())["steps"] > 1


def test_a_folder_is_for_one_training(tmp_path: Path) -> None:
    train_task(made("image"), "mlp", TaskSettings(**SMALL | {"steps": 2}), tmp_path)
    with pytest.raises(UserError, match="was begun with steps 2 .now 3."):
        train_task(made("image"), "mlp", TaskSettings(**SMALL | {"steps": 3}), tmp_path)
    with pytest.raises(UserError, match="family mlp .now vit."):
        train_task(made("image"), "vit", TaskSettings(**SMALL | {"steps": 2}), tmp_path)
    with pytest.raises(UserError, match="take one of vit, mlp, vlm"):
        train_task(made("image"), "encoder", TaskSettings(), tmp_path)


@pytest.mark.parametrize(
    "theirs", ["checkpoints/mine.txt", "model/mine.txt", "log.jsonl", "config.toml"]
)
def test_a_folder_of_the_users_own_is_left_as_it_is(theirs: str, tmp_path: Path) -> None:
    file = tmp_path / theirs
    file.parent.mkdir(exist_ok=True)
    file.write_text("{}\n")
    with pytest.raises(
        UserError, match=rf"holds other files .{file.relative_to(tmp_path).parts[0]}"
    ):
        train_task(made("image"), "mlp", TaskSettings(**SMALL), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "{}\n"


def test_a_task_json_of_another_program_is_no_claim(tmp_path: Path) -> None:
    for theirs in ({"version": 2}, {"task": "a", "family": "b", "settings": 3}):
        (tmp_path / "task.json").write_text(json.dumps(theirs))
        with pytest.raises(UserError, match="something else"):
            train_task(made("image"), "mlp", TaskSettings(**SMALL), tmp_path)
        assert json.loads((tmp_path / "task.json").read_text()) == theirs


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file, but a folder is needed"):
        train_task(made("image"), "mlp", TaskSettings(**SMALL), tmp_path / "file")
    with pytest.raises(UserError, match="not a folder"):
        train_task(made("image"), "mlp", TaskSettings(**SMALL), tmp_path / "file/run")


def test_a_try_that_was_refused_claims_nothing(tmp_path: Path) -> None:
    small = SMALL | {"steps": 1}
    uneven: dict[str, Any] = {"rows": 3, "accumulate": 2}
    for wrong in (uneven, {**uneven, "tokenizer": "byte"}):
        with pytest.raises(UserError, match="does not divide"):
            train_task(made("write"), "decoder", TaskSettings(**small | wrong), tmp_path)
    outcome = train_task(made("write"), "decoder", TaskSettings(**small), tmp_path)
    fresh = train_task(made("write"), "decoder", TaskSettings(**small), tmp_path / "fresh")
    assert outcome.scores == fresh.scores and outcome.parameters == fresh.parameters
    assert load_tokenizer(tmp_path / "tokenizer").kind == "char"


def test_the_size_is_near_the_one_asked_for(tmp_path: Path) -> None:
    for family in ("encoder-decoder", "gru"):
        settings = TaskSettings(**SMALL | {"steps": 1, "width": 0, "parameters": 200_000})
        outcome = train_task(made("write"), family, settings, tmp_path / family)
        assert 100_000 < outcome.parameters < 300_000


def test_every_task_has_a_family_and_every_use_a_task() -> None:
    assert set(BEST) == {kind for family in FAMILIES.values() for kind in family.kinds}
    for task in TASKS.values():
        for family in families_for(task):
            chosen = settled(task, family, TaskSettings())
            assert chosen.rows and chosen.rate and chosen.length
    for use in GUIDE:
        assert use.family in FAMILIES
        named = [TASKS[name] for name in use.tasks if name in TASKS]
        assert named and all(use.family == families_for(task)[0] for task in named)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": -1},
        {"steps": 10**400},
        {"rows": 10**23},
        {"minutes": math.nan},
        {"steps": 3, "minutes": 1.0},
        {"width": 33},
        {"dropout": 1.0},
        {"seed": -1},
        {"seed": 2**63},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        TaskSettings(**wrong)


def test_what_was_given_goes_before_what_has_worked() -> None:
    task = TASKS["numbers"]
    chosen = settled(task, "decoder", TaskSettings(steps=7, dropout=0.0, seed=0, rows=3))
    assert (chosen.minutes, chosen.steps, chosen.seed, chosen.rows) == (0.0, 7, 0, 3)
