"""One process or two: the same rows in the same order, the same losses, the same checkpoints."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from groundup.data.documents import Document
from groundup.data.shards import write_shards
from groundup.parallel.world import World, join_world

if TYPE_CHECKING:
    from groundup.text.tokenizer import Tokenizer

WORKER = Path(__file__).with_name("worker.py")
STEPS = 20
RUNS = ("one", "two", "grown", "shrunk", "one-bias", "two-bias", "one-loss", "two-loss")


def load_worker() -> Any:
    spec = importlib.util.spec_from_file_location("data_parallel_worker", WORKER)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def records(
    tiny_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """What each process of eight runs recorded: "one" and "two" processes from the start; "grown"
    from one to two at step 10, and "shrunk" from two to one; and those of "one" and "two" with
    experts, kept busy by a bias or by a loss term."""
    folder = tmp_path_factory.mktemp("parallel")
    # Varied text: where gradients are of low rank, Muon scales rounding errors up to full size.
    words = random.Random(3)
    letters = "abcdefghijklmnopqrstuvwxyz    "
    texts = ["".join(words.choices(letters, k=words.randint(9, 200))) for _ in range(60)]
    documents = [Document("test", str(i), text) for i, text in enumerate(texts)]
    write_shards(folder / "shards", documents, tiny_tokenizer, workers=1)

    def job(name: str, micro_rows: int, balance: str | None = None) -> dict[str, Any]:
        return {
            "shards": str(folder / "shards"),
            "fingerprint": tiny_tokenizer.fingerprint,
            "checkpoints": str(folder / name),
            "record": str(folder / f"{name}.json"),
            "steps": STEPS,
            "micro_rows": micro_rows,
            "balance": balance,
        }

    def half_way(source: str, target: str) -> None:
        shutil.copytree(folder / source / "step-00000010", folder / target / "step-00000010")

    worker = load_worker()
    worker.train(job("one", 8), World())
    half_way("one", "grown")
    jobs = [job("two", 2), job("grown", 4)]
    for balance in ("bias", "loss"):
        worker.train(job(f"one-{balance}", 4, balance), World())
        jobs.append(job(f"two-{balance}", 4, balance))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*words, str(WORKER), str(folder / "jobs.json")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKER.parents[2])},
        timeout=280,
    )
    assert result.returncode == 0, result.stderr
    half_way("two", "shrunk")
    worker.train(job("shrunk", 8), World())
    return {
        name: [json.loads(path.read_text()) for path in sorted(folder.glob(f"{name}.json.*"))]
        for name in RUNS
    }


def test_the_worlds_were_as_meant(records: dict[str, list[dict[str, Any]]]) -> None:
    sizes = {name: [r["size"] for r in found] for name, found in records.items()}
    alone = ("one", "shrunk", "one-bias", "one-loss")
    assert sizes == {name: [1] if name in alone else [2, 2] for name in RUNS}
    assert len(records["two"][1]["rows"]) == 0  # one log, written by the first process


def test_the_rows_are_the_same_in_the_same_order(records: dict[str, list[dict[str, Any]]]) -> None:
    (one,) = records["one"]
    first, second = records["two"]
    assert not first["seen"].keys() & second["seen"].keys()
    assert first["seen"] | second["seen"] == one["seen"]
    assert len(one["seen"]) == 8 * STEPS
    assert len(set(one["seen"].values())) > 8


@pytest.mark.parametrize(("name", "start"), [("two", 0), ("grown", 10), ("shrunk", 10)])
def test_the_losses_are_the_same(
    records: dict[str, list[dict[str, Any]]], name: str, start: int
) -> None:
    expected = records["one"][0]["rows"][start:]
    found = records[name][0]["rows"]
    assert [row[0] for row in found] == list(range(start + 1, STEPS + 1))
    for (_, loss, norm, _), (_, other_loss, other_norm, _) in zip(expected, found, strict=True):
        assert math.isclose(loss, other_loss, rel_tol=1e-5)
        assert math.isclose(norm, other_norm, rel_tol=1e-3)


@pytest.mark.parametrize("balance", ["bias", "loss"])
def test_experts_learn_the_same_and_are_as_busy(
    records: dict[str, list[dict[str, Any]]], balance: str
) -> None:
    """Of the same micro-batches: a loss term is one of each. In the end rounding flips a choice."""
    expected, found = (records[f"{size}-{balance}"][0]["rows"] for size in ("one", "two"))
    assert [row[0] for row in found] == list(range(1, STEPS + 1))
    for (step, loss, _, busy), (_, other_loss, _, other_busy) in zip(expected, found, strict=True):
        assert math.isclose(loss, other_loss, rel_tol=1e-5 if step <= 10 else 1e-3), step
        for layer, other_layer in zip(busy["load"], other_busy["load"], strict=True):
            for share, other_share in zip(layer, other_layer, strict=True):
                assert math.isclose(share, other_share, abs_tol=2e-3 if step <= 10 else 0.02), step


def test_a_lone_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_world("cpu") as world:
        assert world == World(rank=0, size=1) and world.is_main
        assert world.sum([1.5, 2.0]) == [1.5, 2.0]
        assert world.any(True) and not world.any(False)
        assert world.share({"a": 1}) == {"a": 1}
        world.barrier()
