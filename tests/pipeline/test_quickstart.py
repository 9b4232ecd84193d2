"""The quickstart: a table, scores as JSON, and that all three families learn."""

from __future__ import annotations

import json

import pytest

from groundup.cli import main
from groundup.config import UserError
from groundup.device import DeviceConfig, detect
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
def test_all_families_learn_numbers_they_have_not_seen():
    policy = detect(DeviceConfig(dtype="float32", compile="off"))
    for outcome in quickstart(QuickstartConfig(), policy):
        assert outcome.before < 0.1 and outcome.tested > 900
        assert outcome.score >= 0.95


@pytest.mark.parametrize("changes", [{"steps": 0}, {"languages": ()}, {"level": "harder"}])
def test_impossible_settings_are_refused(changes):
    policy = detect(DeviceConfig(dtype="float32", compile="off"))
    with pytest.raises(UserError, match=next(iter(changes))):
        quickstart(QuickstartConfig(**changes), policy)
