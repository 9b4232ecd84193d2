"""The quickstart: a table, scores as JSON, and that all three families learn."""

from __future__ import annotations

import json
import time

import pytest

from groundup.cli import main
from groundup.config import UserError
from groundup.device import DeviceConfig, detect
from groundup.pipeline import quickstart as module
from groundup.pipeline.quickstart import LESSONS, QuickstartConfig, quickstart
from groundup.train.signals import Stopped
from groundup.train.trainer import Trainer


def test_the_verb_prints_a_table_and_writes_scores(tmp_path, capsys):
    path = tmp_path / "scores.json"
    main(
        ["quickstart", "--level", "easy", "--languages", "de", "--steps", "2", "--json", str(path)]
    )
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["family", "parameters", "before"] and len(table) == 4
    scores = json.loads(path.read_text())
    assert list(scores) == list(LESSONS)
    assert scores["encoder"]["accuracy"] >= 0 and scores["decoder"]["exact_match"] >= 0
    assert scores["encoder-decoder"]["seconds"] > 0


def test_a_signal_ends_it_with_a_sentence(capsys, monkeypatch):
    def stop(trainer):
        raise Stopped("SIGINT", 3, None)

    monkeypatch.setattr(Trainer, "fit", stop)
    with pytest.raises(SystemExit) as left:
        main(["quickstart", "--level", "easy", "--steps", "2"])
    assert left.value.code == 130
    assert capsys.readouterr().err == "Stopped by SIGINT after step 3; nothing is saved.\n"


@pytest.mark.slow
def test_all_families_learn_numbers_they_have_not_seen_in_less_than_five_minutes():
    policy = detect(DeviceConfig(dtype="float32", compile="off"))
    begin = time.perf_counter()
    outcomes = quickstart(QuickstartConfig(), policy)
    assert time.perf_counter() - begin < 300
    for outcome in outcomes:
        assert outcome.before < 0.1 and outcome.tested > 900
        assert outcome.score >= 0.95


@pytest.mark.parametrize("wrong", ["below a file", "a folder"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    wrong, tmp_path, capsys, monkeypatch
):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "scores.json" if wrong == "below a file" else tmp_path
    monkeypatch.setattr(Trainer, "fit", lambda _: pytest.fail("worked"))
    with pytest.raises(SystemExit) as left:
        main(["quickstart", "--json", str(path)])
    assert left.value.code == 2
    assert str(path) in capsys.readouterr().err


def test_the_table_is_told_before_scores_are_written(tmp_path, capsys, monkeypatch):
    def full(path, scores):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_json", full)
    words = ["quickstart", "--level", "easy", "--languages", "de", "--steps", "1"]
    with pytest.raises(SystemExit):
        main([*words, "--json", str(tmp_path / "scores.json")])
    said = capsys.readouterr()
    assert said.out.startswith("family") and "No space left" in said.err


@pytest.mark.parametrize(
    "changes",
    [
        *({"steps": 0}, {"steps": -1}, {"languages": ()}, {"level": "harder"}),
        *({"languages": ("en", "en")}, {"seed": -1}, {"seed": 2**63}),
    ],
)
def test_impossible_settings_are_refused(changes):
    policy = detect(DeviceConfig(dtype="float32", compile="off"))
    with pytest.raises(UserError, match=next(iter(changes))) as error:
        quickstart(QuickstartConfig(**changes), policy)
    assert "-2" not in str(error.value), "the number given is named"
