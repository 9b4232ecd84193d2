"""The three families compared: equal sizes, answers as they are given, costs that are counted."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from groundup.cli import main
from groundup.config import UserError
from groundup.data.batch import IGNORE
from groundup.data.number_words import END, PAD, START
from groundup.data.ragged import RaggedLoader
from groundup.device import Policy, seed_everything
from groundup.inspect import sizes
from groundup.pipeline.compare import comparison as comparing
from groundup.pipeline.compare import report
from groundup.pipeline.compare.comparison import (
    CompareConfig,
    compare,
    equal_shapes,
    findings,
    plan_steps,
    table,
)
from groundup.pipeline.compare.competitors import COMPETITORS, NumberTask, Shape
from groundup.pipeline.compare.learning import TURNS, Budget, learn, time_answers, wilson_interval

CPU = Policy(device="cpu", compute_dtype="float32", compile=False, threads=1)
SHAPE = Shape(width=32, num_layers=2, feed_forward_width=40)
TINY = CompareConfig(
    level="easy", languages=("en", "fr"), steps=3, rows=8, parameters=30_000, test_examples=6
)
PAIRS = [(family, task) for family in COMPETITORS for task in ("sort", "write")]


@pytest.fixture(scope="module")
def measured():
    return compare(TINY, CPU)


def competitor(family: str, task: str):
    seed_everything(3)
    return COMPETITORS[family](NumberTask(task, "easy", ["en", "fr"]), SHAPE, CPU.torch_device)


@pytest.mark.parametrize("parameters", [60_000, 220_000, 2_500_000])
@pytest.mark.parametrize("num_layers", [2, 6])
def test_blocks_are_of_one_size(parameters, num_layers):
    task, counts = NumberTask("write", "easy", ["en"]), []
    for family, shape in equal_shapes(parameters, num_layers).items():
        with torch.device("meta"):
            made = COMPETITORS[family](task, shape, torch.device("meta"))
        counts.append(made.num_block_parameters())
        assert counts[-1] == pytest.approx(parameters, rel=0.03)
    assert max(counts) <= 1.03 * min(counts)


def test_block_parameters_are_those_of_the_blocks_and_norms():
    made = competitor("decoder", "write")
    expected = sum(p.numel() for name, p in made.model.named_parameters() if "embed" not in name)
    assert made.num_block_parameters() == expected < made.model.num_parameters()


def test_too_few_parameters_are_refused_with_how_many_it_takes():
    for parameters in (-5, 1_000, 12_415):
        with pytest.raises(UserError, match=r"give 12,416 or more"):
            equal_shapes(parameters, 2)
    assert all(shape.feed_forward_width >= 1 for shape in equal_shapes(12_416, 2).values())


@pytest.mark.parametrize(("family", "task"), PAIRS)
def test_what_is_learned_is_what_is_answered(family, task):
    """A model that predicts all targets of the rows gives the right answers: one is trained to."""
    made = competitor(family, task)
    rows = made.task.heldout[:4]
    loader = RaggedLoader([made.row(row) for row in rows], len(rows), 0, PAD)
    batch = loader.batch(np.arange(len(rows)))
    optimizer = torch.optim.Adam(made.model.parameters(), 5e-3)
    for _ in range(200):
        loss = made.loss(batch.inputs, batch.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5
    assert made.answers(rows) == [made.task.answer(row) for row in rows]
    assert made.right(rows) == len(rows)


@pytest.mark.parametrize(("family", "task"), PAIRS)
def test_answers_do_not_depend_on_the_company(family, task):
    made = competitor(family, task)
    rows = made.task.train[:40]
    assert made.answers(rows) == [made.answers([row])[0] for row in rows]


def test_an_encoder_has_a_place_for_every_piece_and_says_end_after_the_last():
    made = competitor("encoder", "write")
    row = made.task.heldout[0]
    inputs, targets = made.row(row)
    answer = made.task.answer(row)
    places = made.task.longest_answer + 1
    assert inputs[-places:].tolist() == [START] * places
    assert targets[-places:].tolist() == [*answer, *[END] * (places - len(answer))]
    assert set(targets[:-places].tolist()) == {IGNORE}


def test_one_language_is_asked_for_each_number_held_out():
    task = NumberTask("write", "medium", ["en", "de", "fr"])
    numbers = [one.number for one in task.heldout]
    assert len(set(numbers)) == len(numbers) > 900
    assert {one.language for one in task.heldout} == {"en", "de", "fr"}
    assert not set(numbers) & {one.number for one in task.train}


def test_the_interval_is_wilsons():
    assert wilson_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    low, high = wilson_interval(10, 10)
    assert low == pytest.approx(0.7225, abs=1e-4) and high == 1
    assert wilson_interval(0, 968)[0] == 0


def test_flops_are_those_of_the_products():
    task = NumberTask("sort", "easy", ["en"])
    _, outcome = learn("encoder", task, SHAPE, Budget(steps=1, rows=4, test_examples=6), CPU)
    # Each weight that multiplies a token costs two; attention's pairs and the head come on top.
    tokens = 1 + sum(len(task.question(one)) for one in task.heldout[:6]) / 6
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 40)
    head, pairs = 2 * 32 * task.num_classes, 2 * 2 * 2 * tokens**2 * 32
    assert outcome.answer_flops == pytest.approx(2 * weights * tokens + head + pairs, rel=0.05)
    assert outcome.training_flops > 1.5 * outcome.answer_flops


def test_everything_is_measured_and_a_seed_settles_it(measured):
    again = compare(TINY, CPU)
    for key, (one,) in measured.outcomes.items():
        (other,) = again.outcomes[key]
        assert (one.right, one.samples, one.curve) == (other.right, other.samples, other.curve)
        assert one.tested == 6 and one.examples_per_second > 0
        assert len(measured.latency[key]) == TURNS and min(measured.latency[key]) > 0
        assert one.curve[0][0] == 0 and one.curve[-1][0] == 3 * 8
    text = table(measured)
    assert [line.split()[0] for line in text.splitlines() if line[:3] in ("enc", "dec")] == [
        *COMPETITORS
    ] * 2


def test_findings_follow_from_the_figures(measured):
    def with_scores(right: dict[str, int]):
        outcomes = {
            key: [dataclasses.replace(one, right=right[key[1]], tested=1000)]
            for key, (one,) in measured.outcomes.items()
        }
        return dataclasses.replace(measured, outcomes=outcomes)

    led = findings(with_scores({"encoder": 900, "decoder": 990, "encoder-decoder": 985}))[0]
    assert "the decoder (99.0%) and the encoder-decoder (98.5%) are level" in led
    assert "behind: the encoder (90.0%)" in led
    clear = findings(with_scores({"encoder": 990, "decoder": 700, "encoder-decoder": 600}))[0]
    assert clear.startswith("sort: the encoder leads with 99.0%; behind: the decoder (70.0%)")


def test_a_ratio_of_speeds_is_told_only_where_every_turn_has_it(measured):
    def told(**latency: tuple[float, ...]) -> str:
        found = {key: latency[key[1].replace("-", "_")] for key in measured.outcomes}
        return findings(dataclasses.replace(measured, latency=found))[0]

    slow, noisy = (4.0, 6.0, 6.6), (4.0, 1.0, 6.6)
    clear = told(encoder=(2.0, 2.0, 3.0), decoder=slow, encoder_decoder=(3.0, 3.0, 4.0))
    assert clear.endswith(
        "the encoder answers 2.2 times as fast as the decoder (2.0 to 3.0 in 3 turns)."
    )
    noise = told(encoder=(2.0, 2.0, 3.0), decoder=noisy, encoder_decoder=(3.0, 3.0, 4.0))
    assert noise.endswith("how long an answer takes differs by no more than the noise.")


def test_competitors_take_turns(monkeypatch):
    order: list[str] = []
    made = [competitor(family, "sort") for family in COMPETITORS]
    for one in made:
        monkeypatch.setattr(one, "answers", lambda rows, name=one.family: order.append(name))
    assert [len(turns) for turns in time_answers(made)] == [TURNS] * 3
    rows = len(order) // (3 * (TURNS + 1))  # one turn more to warm up
    assert order == [name for name in COMPETITORS for _ in range(rows)] * (TURNS + 1)


def test_several_seeds_give_a_range():
    config = dataclasses.replace(TINY, seeds=2, tasks=("sort",), steps=2)
    found = compare(config, CPU)
    assert all(len(each) == 2 for each in found.outcomes.values())
    assert "2 trainings" in " ".join(findings(found))
    assert len(found.as_dict()["sort"]["decoder"]["scores"]) == 2


def test_minutes_become_steps(monkeypatch, measured):
    (one,) = measured.outcomes["sort", "encoder"]
    spent = dataclasses.replace(one, seconds=1.2)
    monkeypatch.setattr(comparing, "learn", lambda *_: (None, spent))
    config = dataclasses.replace(TINY, minutes=2.0, seeds=2)
    tasks = [NumberTask(name, "easy", ["en"]) for name in config.tasks]
    steps = plan_steps(config, tasks, equal_shapes(30_000, 2), Budget(steps=1), CPU)
    assert steps == 50  # 0.2 seconds a step, six trainings, twice


def test_the_page_holds_every_figure_and_the_picture_every_panel(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "MODELS", [one for one in sizes.MODELS if one[0] == "GPT-2"])
    picture, document = report.write(measured, tmp_path / "new")
    assert picture.stat().st_size > 20_000
    text = document.read_text(encoding="utf-8")
    assert text.count("<svg") == 2 + 4 + 3 and "124,439,808" in text
    for (one,) in measured.outcomes.values():
        assert f"{one.parameters:,}" in text


@pytest.mark.parametrize(
    "changes",
    [
        *({"tasks": ()}, {"tasks": ("sorts",)}, {"tasks": ("sort", "sort")}, {"num_layers": 3}),
        *({"seeds": 0}, {"minutes": math.nan}, {"minutes": math.inf}, {"minutes": -1.0}),
    ],
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(UserError, match=next(iter(changes))[:4]):
        CompareConfig(**changes)


def test_the_verb_prints_tables_and_asks_before_work(tmp_path, capsys, monkeypatch):
    path = tmp_path / "figures.json"
    words = ["compare", "--level", "easy", "--languages", "en", "--steps", "1", "--tasks", "sort"]
    main([*words, "--parameters", "30000", "--out", "", "--json", str(path)])
    assert "sum of its digits" in capsys.readouterr().out
    figures = json.loads(path.read_text())
    assert set(figures["sort"]) == set(COMPETITORS)
    (tmp_path / "file").touch()
    monkeypatch.setattr(report, "compare", lambda *_: pytest.fail("worked"))
    with pytest.raises(SystemExit):
        main([*words, "--out", str(tmp_path / "file")])
    assert "is a file" in capsys.readouterr().err
    for option, path in (("--out", "file/below"), ("--json", "file/x"), ("--json", ".")):
        with pytest.raises(SystemExit):
            main([*words, "--out", str(tmp_path / "new"), option, str(tmp_path / path)])
        assert "file" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
