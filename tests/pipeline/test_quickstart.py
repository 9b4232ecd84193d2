"""The three families on number words: what the score measures, and that all of them learn."""

from __future__ import annotations

import json

import pytest
import torch

from groundup.cli import main
from groundup.config import UserError
from groundup.data.number_words import examples
from groundup.device import seed_everything
from groundup.pipeline.quickstart import (
    FAMILIES,
    DecoderFamily,
    EncoderDecoderFamily,
    Family,
    QuickstartConfig,
    quickstart,
    run_family,
)

CPU = torch.device("cpu")
SMALL = QuickstartConfig(level="easy", languages=("en", "fr"), width=64, num_layers=1, rows=32)


def trained_a_little(family: type[Family], steps: int) -> Family:
    seed_everything(1)
    made = family(QuickstartConfig(**(vars(SMALL) | {"steps": steps})), CPU)
    run_family(made)
    return made


@pytest.mark.parametrize("family", [DecoderFamily, EncoderDecoderFamily])
def test_the_score_is_that_of_writing_greedily(family):
    made = trained_a_little(family, steps=25)
    rows = [*examples("easy", ["en"], "train")][::3]
    right = [made.answer(row) == row.text for row in rows]
    assert made.score(rows) == pytest.approx(sum(right) / len(rows))
    for row, is_right in zip(rows, right, strict=True):
        assert made.score([row]) == is_right


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_nothing(family):
    made = trained_a_little(family, steps=2)
    short, long = (
        next(e for e in examples("easy", ["en"], "train") if e.number == n) for n in (7, 47)
    )
    alone, _ = made.predict([short])
    together, _ = made.predict([short, long])
    torch.testing.assert_close(together[:1, : alone.shape[1]], alone, atol=1e-5, rtol=1e-5)


def test_a_seed_settles_everything():
    config = QuickstartConfig(**(vars(SMALL) | {"steps": 3}))
    first, second = quickstart(config, CPU), quickstart(config, CPU)
    assert [one.family for one in first] == ["encoder", "decoder", "encoder-decoder"]
    for one, other in zip(first, second, strict=True):
        assert (one.before, one.after, one.answer_after) == (
            other.before,
            other.after,
            other.answer_after,
        )


def test_the_verb_prints_a_table_and_writes_scores(tmp_path, capsys):
    path = tmp_path / "scores.json"
    main(
        ["quickstart", "--level", "easy", "--languages", "de", "--steps", "2", "--json", str(path)]
    )
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["family", "parameters", "before"] and len(table) == 4
    scores = json.loads(path.read_text())
    assert scores["encoder"]["accuracy"] >= 0 and scores["decoder"]["exact_match"] >= 0
    assert scores["encoder-decoder"]["seconds"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_all_families_learn_numbers_they_have_not_seen(family):
    seed_everything(1)
    outcome = run_family(family(QuickstartConfig(languages=("en",), steps=150), CPU))
    assert outcome.before < 0.2 and outcome.after >= 0.95


@pytest.mark.parametrize("changes", [{"steps": 0}, {"languages": ()}, {"width": 40}, {"rows": 0}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        QuickstartConfig(**changes)
