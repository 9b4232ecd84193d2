"""`groundup train`: what it lists, prints and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groundup.cli import main
from groundup.data.tasks import TASKS
from groundup.pipeline.tasks import command
from groundup.pipeline.tasks.families import FAMILIES
from groundup.pipeline.tasks.settings import TaskOutcome

SMALL = ["--steps", "2", "--width", "32", "--layers", "2", "--rows", "8"]


def test_alone_it_lists_the_tasks_and_what_to_take_for_what(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["train"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*TASKS, *FAMILIES))
    for case in ("classes", "tag each word", "go on writing", "translate", "summarise"):
        assert case in listed


def test_one_training_prints_a_table_and_answers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "scores.json"
    words = ["train", "last-digit", *SMALL, "--run", str(tmp_path / "run"), "--json", str(out)]
    main(words)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].split()[:3] == ["family", "task", "parameters"]
    assert lines[1].startswith("encoder") and "the most frequent class" in lines[2]
    assert sum(" → " in line for line in lines) == 5
    assert "parameters" in printed.err and "2 steps of 8 rows" in printed.err
    found = json.loads(out.read_text())
    assert found["family"] == "encoder" and 0 <= found["after"] <= 1
    main(words)
    assert "unchanged" in capsys.readouterr().err


def test_all_trains_in_a_row_with_accumulation(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = {"mlp": "shapes", "lstm": "numbers"}
    monkeypatch.setattr(command, "EVERYTHING", everything)
    out = tmp_path / "scores.json"
    main(["train", "--all", *SMALL, "--run", str(tmp_path / "all"), "--json", str(out)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [list(p) for p in everything.items()]
    assert json.loads(out.read_text()).keys() == everything.keys()
    task = json.loads((tmp_path / "all/mlp/task.json").read_text())
    assert task["settings"]["accumulate"] == 2


def test_all_has_the_families_its_help_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(command.EVERYTHING) == set(FAMILIES) - {"gru", "rnn"}
    assert all(TASKS[name].megabytes == 0 for name in command.EVERYTHING.values())
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"one family of each sort ({', '.join(command.EVERYTHING)})" in shown


def test_the_scores_are_printed_before_they_are_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(command, "write_json", full)
    run = str(tmp_path / "run")
    with pytest.raises(SystemExit):
        main(["train", "last-digit", *SMALL, "--run", run, "--json", str(tmp_path / "scores.json")])
    printed = capsys.readouterr()
    assert "accuracy" in printed.out and "No space left" in printed.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nmbers"], "Did you mean 'numbers'"),
        (["numbers", "--family", "encodr"], "Did you mean 'encoder'"),
        (["numbers", "--family", "vit"], "take one of encoder-decoder"),
        (["--family", "vlm"], "vlm can learn"),
        (["numbers", "--all"], "leave TASK"),
        (["numbers", "--steps", "3", "--minutes", "1"], "not both"),
        (["numbers", "--rows", "9", "--accumulate", "2", "--steps", "1"], "does not divide"),
        (["shapes", "--seed", "-1"], "seed should be from 0"),
        (["shapes", "--steps", "9" * 23], "steps should be from 0 to 1,000,000,000"),
        (["shapes", *SMALL, "--run", "file"], "file is a file, but a folder is needed"),
        (["shapes", *SMALL, "--run", "."], "holds other files (file)"),
        (["shapes", *SMALL, "--json", "file/scores.json"], "file is not a folder"),
        (["shapes", *SMALL, "--json", "."], "is a folder; name a file"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    with pytest.raises(SystemExit) as left:
        main(["train", *words])
    complaint = capsys.readouterr().err
    assert left.value.code == 2 and message in complaint and "\n\n" not in f"\n{complaint}"
    assert Path("file").read_text() == "mine"


def test_a_wrong_answer_stands_beside_the_expected_one() -> None:
    outcome = TaskOutcome(
        task="numbers",
        family="lstm",
        parameters=1,
        metric="exact_match",
        before=0.0,
        after=0.5,
        baseline=0.0,
        baseline_name="a copy",
        samples=[("1", "one", "one "), ("2", "two", "too")],
    )
    assert command.answers(outcome).splitlines() == [
        "  1 → one ✓",
        "  2 → too ✗",
        "    expected two",
    ]
