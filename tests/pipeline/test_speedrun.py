"""From raw text to a chat, tiny: the artifacts, the report's contract, running again, the verbs."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.cli import main
from groundup.data.shards import Shards
from groundup.files import read_json
from groundup.models.folder import load_model, resolve_model
from groundup.text.tokenizer import load_tokenizer
from groundup.train.log import JsonLog

pytestmark = pytest.mark.usefixtures("known_roof")


def rows(run: Path, stage: str) -> list[dict[str, Any]]:
    return [row for row in JsonLog(run / "log.jsonl").rows() if row["stage"] == stage]


def test_the_run_folder(tiny_run: Path) -> None:
    expected = {
        "base", "checkpoints", "config.toml", "device.json", "documents", "log.jsonl",
        "report.html", "report.json", "sft", "shards", "stages", "tokenizer",
    }  # fmt: skip
    assert expected <= {path.name for path in tiny_run.iterdir()}
    assert not list(tiny_run.rglob("*.tmp"))
    assert not list(tiny_run.rglob("*.p*kl*"))


def test_the_log(tiny_run: Path) -> None:
    for stage, steps, vocabulary in (("pretrain", 5, 300), ("sft", 4, 300)):
        found = [row for row in rows(tiny_run, stage) if "loss" in row]
        assert [row["step"] for row in found] == list(range(1, steps + 1))
        assert {"tokens", "grad_norm", "lr", "tokens_per_second", "mfu"} <= found[0].keys()
        assert found[-1]["tokens"] == steps * 4 * 64
        assert found[-1]["loss"] < found[0]["loss"]
        if stage == "pretrain":
            assert found[0]["loss"] == pytest.approx(math.log(vocabulary), rel=0.05)
        assert any("val_loss" in row for row in rows(tiny_run, stage))
        assert any("sample" in row for row in rows(tiny_run, stage))


def test_the_report_keeps_its_contract(tiny_run: Path) -> None:
    def refuse(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    report = json.loads((tiny_run / "report.json").read_text(), parse_constant=refuse)
    assert 0 < report["val_bpb"] < 20
    assert report["wall_seconds"] > 0
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert list(stages)[:4] == ["data", "tokenizer", "shards", "pretrain"]
    for name in ("pretrain", "sft"):
        figures = stages[name]
        for key in ("seconds", "tokens", "tokens_per_second", "mfu", "train_loss", "val_loss"):
            assert figures[key] > 0, (name, key)
        assert figures["peak_memory_mb"] > 10 and min(figures["split"].values()) > 0
    assert report["chats"][0][0] == {"role": "user", "content": "Hi!"}
    assert report["chats"][0][1]["role"] == "assistant"
    assert report["config"]["pretrain"]["steps"] == 5
    assert report["model"]["parameters"] > 0
    page = (tiny_run / "report.html").read_text(encoding="utf-8")
    assert f"{report['val_bpb']:.3f}" in page


def test_the_held_out_documents_are_in_no_training_shard(tiny_run: Path) -> None:
    tokenizer = load_tokenizer(tiny_run / "tokenizer")
    texts: dict[str, set[bytes]] = {"train": set(), "heldout": set()}
    for split, found in texts.items():
        for folder in sorted((tiny_run / "shards").glob(f"[0-9]*-{split}")):
            shards = Shards(folder, tokenizer.fingerprint)
            for i in range(shards.num_documents):
                found.add(np.ascontiguousarray(shards.document(i)).tobytes())
    assert texts["train"] and texts["heldout"]
    assert not texts["train"] & texts["heldout"]


@pytest.mark.parametrize("name", ["base", "sft"])
def test_transformers_computes_the_same(tiny_run: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    ours, tokenizer, _ = load_model(tiny_run / name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tiny_run / name).eval()
    ids = torch.randint(0, tokenizer.vocab_size, (3, 37))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-5, atol=1e-5)
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_run / name)
    text = "The house — naïve 日本 🙂\n\n  <|end|>?"
    assert their_tokenizer.encode("The house grows.", add_special_tokens=False) == tokenizer.encode(
        "The house grows."
    )
    from groundup.text.chat import Message, render

    messages: list[Message] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": text.replace("<|end|>", "")},
        {"role": "assistant", "content": "Rain falls."},
        {"role": "user", "content": " And?  "},
    ]
    chat = their_tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    assert list(chat) == render(tokenizer, messages, reply=True).ids


def test_running_again_skips_everything(
    tiny_run: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {
        path: path.stat().st_mtime_ns
        for path in tiny_run.rglob("*")
        if path.is_file() and path.parent != tiny_run and path.name != "report.json"
    }
    log = (tiny_run / "log.jsonl").read_bytes()
    val_bpb = read_json(tiny_run / "report.json")["val_bpb"]
    main(["speedrun", str(tiny_recipe), "--run", str(tiny_run)])
    assert capsys.readouterr().err.count("(unchanged)") == 6
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert (tiny_run / "log.jsonl").read_bytes() == log
    assert read_json(tiny_run / "report.json")["val_bpb"] == val_bpb


def test_deleted_shards_are_made_again(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # What a damaged file's message asks for: "Delete the folder to make it again."
    run = shutil.copytree(tiny_run, tmp_path / "run")
    gone = next((run / "shards").glob("0-*-train"))
    before = {file.name: file.read_bytes() for file in gone.iterdir()}
    shutil.rmtree(gone)
    main(["speedrun", str(tiny_recipe), "--run", str(run)])
    assert capsys.readouterr().err.count("(unchanged)") == 5
    assert {file.name: file.read_bytes() for file in gone.iterdir()} == before


def test_how_the_work_is_done_may_change_without_doing_it_again(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    words = ["--pretrain.train.micro_rows", "2", "--shards.workers", "2"]
    main(["speedrun", str(tiny_recipe), "--run", str(tmp_path / "run"), *words])
    assert capsys.readouterr().err.count("(unchanged)") == 6


def test_a_longer_sft_keeps_the_pretrained_model(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    base = (run / "base" / "model.safetensors").read_bytes()
    before = rows(run, "pretrain")
    main(["speedrun", str(tiny_recipe), "--run", str(run), "--sft.steps", "6"])
    assert capsys.readouterr().err.count("(unchanged)") == 4
    assert (run / "base" / "model.safetensors").read_bytes() == base
    assert rows(run, "pretrain") == before
    losses = [row["step"] for row in rows(run, "sft") if "loss" in row]
    assert losses == [1, 2, 3, 4, 5, 6]
    assert "sft.steps" not in (run / "config.toml").read_text()
    assert "steps = 6" in (run / "config.toml").read_text()


def test_no_tuned_model_of_an_earlier_recipe_answers(
    tiny_run: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    tuned = (run / "sft" / "model.safetensors").read_bytes()
    words = ["speedrun", str(tiny_recipe), "--run", str(run)]
    main([*words, "--sft.steps", "0"])
    assert resolve_model(run).name == "base" and not (run / "sft").exists()
    assert read_json(run / "report.json")["chats"] == []
    main(words)
    assert (run / "sft" / "model.safetensors").read_bytes() == tuned
    shutil.rmtree(run / "sft")
    main(words)
    assert (run / "sft" / "model.safetensors").read_bytes() == tuned


def test_nothing_held_out_and_nothing_tuned(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data.heldout_fraction", "0", "--sft.steps", "0", "--pretrain.steps", "2"]
    main(["speedrun", str(tiny_recipe), "--run", str(tmp_path / "run"), *words])
    report = read_json(tmp_path / "run" / "report.json")
    assert report["val_bpb"] is None
    assert report["chats"] == []
    assert resolve_model(tmp_path / "run").name == "base"
    assert "no training time was asked for" in capsys.readouterr().err


def test_chat_answers_once(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--prompt", "Hi!", "--seed", "3", "--max-tokens", "12"]
    main(["chat", str(tiny_run), *words])
    first = capsys.readouterr().out
    main(["chat", str(tiny_run), *words])
    assert capsys.readouterr().out == first != ""


def test_generate(tiny_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", str(tiny_run / "base"), "--prompt", "The house", "--max-tokens", "9"]
    outputs = []
    for extra in (["--greedy"], ["--greedy"], ["--seed", "1"], ["--seed", "1"], ["--seed", "2"]):
        main([*words, *extra])
        outputs.append(capsys.readouterr().out)
    assert all(output.startswith("The house") for output in outputs)
    assert outputs[0] == outputs[1] and outputs[2] == outputs[3] != outputs[4]


def test_score_is_json(
    tiny_run: Path, tiny_texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["score", str(tiny_run), "--text", str(tiny_texts / "text.txt")])
    score = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert score["tokens"] > 1000
    text_bytes = (tiny_texts / "text.txt").stat().st_size
    bits = score["nll_per_token"] * score["tokens"] / math.log(2)
    assert score["bits_per_byte"] == pytest.approx(bits / text_bytes, rel=1e-6)


def test_inspect_view_and_doctor(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["inspect", str(tiny_run)])
    assert "embedding" in capsys.readouterr().out
    path = tmp_path / "chat.json"
    messages = [{"role": "user", "content": "Hello there"}]
    for saved in (messages, {"system": "", "messages": messages}):
        path.write_text(json.dumps(saved))
        main(["view", str(tiny_run), "--messages", str(path)])
        assert "Hello there" in capsys.readouterr().out
