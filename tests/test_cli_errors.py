"""Every mistake a user can make at the command line: one sentence, exit code 2, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.cli import VERBS, main

pytestmark = pytest.mark.usefixtures("known_roof")

Refused = Callable[..., str]


def test_words_that_are_no_verb(refused: Refused) -> None:
    assert "There is no verb 'sperun'. Did you mean 'speedrun'?" in refused("sperun")
    assert "Name a recipe" in refused("speedrun")
    assert "--run needs a value" in refused("speedrun", "x.toml", "--run")


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    main(["--help"])
    assert "speedrun" in capsys.readouterr().out
    for verb in VERBS:
        with pytest.raises(SystemExit) as caught:
            main([verb, "--help"])
        assert not caught.value.code, verb
        assert f"Example: groundup {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        ("classify", ["MODEL"]),
        ("pull", ["SOURCE", "NAME"]),
        ("export", ["MODEL", "PATH"]),
    ],
)
def test_what_is_missing_is_called_by_its_name(
    verb: str, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([verb])
    missing = capsys.readouterr().err.split()
    assert all(name in missing for name in names) and "STR" not in missing


def test_topics_that_cannot_be_shown(
    refused: Refused, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["show"])
    listed = capsys.readouterr().out
    assert "schedules" in listed and "memory" in listed
    assert "no topic 'format'. Did you mean 'formats'?" in refused("show", "format")
    assert "There is no folder" in refused("show", "cache", "--out", tmp_path / "no" / "a.png")
    assert "saved as" in refused("show", "cache", "--out", tmp_path / "a.gif")


def test_recipes_that_are_not(refused: Refused, tmp_path: Path) -> None:
    assert "nope.toml does not exist" in refused("speedrun", tmp_path / "nope.toml")
    assert "does not exist" in refused("speedrun", tmp_path)
    (tmp_path / "broken.toml").write_text("size = = 3")
    assert "is not valid TOML" in refused("speedrun", tmp_path / "broken.toml")
    (tmp_path / "binary.toml").write_bytes(bytes(range(256)))
    assert "is not valid TOML" in refused("speedrun", tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[pretrian]\nsteps = 1", "Unknown key 'pretrian'. Did you mean 'pretrain'?"),
        ("[pretrain]\nstep = 1", "Unknown key 'pretrain.step'. Did you mean 'steps'?"),
        ("[pretrain.schedule]\nkind = 'cosin'", "'pretrain.schedule.kind' cannot be 'cosin'."),
        ("size = 'big'", "'size' should be of type int, but is 'big' (str)."),
        ("size = 0", "size must be between 1 and 128"),
        ("[pretrain]\nsteps = 3\nminutes = 2", "Set only one of minutes, epochs and steps"),
        ("[pretrain]\nminutes = inf", "must be finite numbers"),
        ("[pretrain]\nminutes = -1", "cannot be negative"),
        ("[model]\nwidth = 100\nnum_heads = 3", "100"),
        ("[model]\nwidth = 64\nnum_heads = 4\nnum_kv_heads = 3", "3"),
        ("[tokenizer]\nvocab_size = 3", "3"),
        ("[device]\ndevice = 'gpu'", "device is 'gpu'"),
        ("[data]\nsources = []", "data.sources is empty"),
    ],
)
def test_what_a_recipe_may_not_say(
    refused: Refused, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert message in refused("speedrun", path, "--run", tmp_path / "run")
    assert not (tmp_path / "run" / "stages").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--pretrain.stepz", "3"],
        ["--pretrain.steps", "many"],
        ["--nonsense"],
        ["--model.family", "qwen"],
        ["--size", "0"],
        ["--pretrain.minutes", "1"],
    ],
)
def test_wrong_overrides(
    tiny_recipe: Path, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["speedrun", str(tiny_recipe), "--run", str(tmp_path / "run"), *words])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_that_does_not_match_the_shards(
    refused: Refused, tiny_run: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    from groundup.text.config import TokenizerConfig
    from groundup.text.train import train_tokenizer

    run = shutil.copytree(tiny_run, tmp_path / "run")
    other = train_tokenizer(TokenizerConfig(vocab_size=280), ["Other words entirely. " * 50])
    other.save(run / "tokenizer")
    sentence = refused("speedrun", tiny_recipe, "--run", run, "--pretrain.steps", "6")
    assert "tokenizer" in sentence and "shards" in sentence
    assert (run / "base" / "model.safetensors").exists()


@pytest.mark.parametrize("verb", ["chat", "generate", "inspect", "score"])
def test_damaged_and_missing_models(
    refused: Refused, tiny_run: Path, tiny_texts: Path, tmp_path: Path, verb: str
) -> None:
    extra = {
        "chat": ["--prompt", "Hi"],
        "generate": ["--prompt", "The"],
        "score": ["--text", str(tiny_texts / "text.txt")],
    }.get(verb, [])
    model = shutil.copytree(tiny_run / "sft", tmp_path / "model")
    weights = model / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    assert "damaged or cut off" in refused(verb, model, *extra)
    weights.unlink()
    assert "model.safetensors does not exist" in refused(verb, model, *extra)
    shutil.copy(tiny_run / "sft" / "model.safetensors", weights)
    (model / "tokenizer.json").write_text('{"version": "1.0", "mod')
    assert "tokenizer.json" in refused(verb, model, *extra)
    (model / "config.json").unlink()
    (model / "groundup.json").unlink()
    assert "holds no model" in refused(verb, model, *extra)
    assert "There is no model" in refused(verb, tmp_path / "nothing", *extra)
    assert "is a file" in refused(verb, tiny_texts / "text.txt", *extra)


def test_a_tokenizer_made_elsewhere_may_have_no_bos(
    refused: Refused, tiny_run: Path, tiny_texts: Path, tmp_path: Path, capsys
) -> None:
    from groundup.text.tokenizer import BPETokenizer, load_tokenizer
    from groundup.text.vocabulary import Vocabulary

    model = shutil.copytree(tiny_run / "base", tmp_path / "model")
    (model / "groundup.json").unlink()  # as downloaded
    (model / "tokenizer_config.json").unlink()
    ours = load_tokenizer(tiny_run / "base")
    assert isinstance(ours, BPETokenizer)
    vocabulary = ours.vocabulary
    pieces = vocabulary.pieces[: -len(vocabulary.special)]
    BPETokenizer(Vocabulary("bpe", vocabulary.pattern, pieces)).save(model)
    assert "no <|bos|> to start from" in refused("generate", model)
    capsys.readouterr()
    main(["generate", str(model), "--prompt", "The", "--max-tokens", "3", "--greedy"])
    assert capsys.readouterr().out.startswith("The")
    main(["score", str(model), "--text", str(tiny_texts / "text.txt")])
    assert json.loads(capsys.readouterr().out)["bits_per_byte"] > 0
    assert "cannot hold a chat" in refused("chat", model, "--prompt", "Hi!")


def test_greedy_and_a_temperature_are_two_wishes(refused: Refused, tiny_run: Path) -> None:
    assert "give one of the two" in refused(
        "generate", tiny_run, "--greedy", "--temperature", "0.5"
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_too_little_memory_is_said_in_a_sentence(
    refused: Refused, tiny_run: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("groundup.infer.load.load_any", fail)
    words = refused("inspect", tiny_run)
    assert "Out of memory: take a smaller model" in words
    assert "train.micro_rows" in words and "--accumulate" in words
    monkeypatch.setattr("groundup.infer.load.load_any", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["inspect", str(tiny_run)])


def test_texts_that_cannot_be_scored(refused: Refused, tiny_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    assert "Name the text" in refused("score", tiny_run)
    assert "does not exist" in refused("score", tiny_run, "--text", file)
    file.write_bytes(b"")
    assert "has no text" in refused("score", tiny_run, "--text", file)
    file.write_bytes(b"\x89PNG\0\0")
    assert "NUL byte" in refused("score", tiny_run, "--text", file)
    file.write_bytes(b"caf\xe9")
    assert "is not valid UTF-8" in refused("score", tiny_run, "--text", file)
    file.write_text("Fine text.")
    assert "65" in refused("score", tiny_run, "--text", file, "--length", "65")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "3",
        '{"role": "user"}',
        '[{"role": "user"}]',
        '[{"role": "robot", "content": "x"}]',
        '[{"role": "user", "content": 3}]',
        '["hello"]',
    ],
)
def test_chats_that_cannot_be_viewed(
    refused: Refused, tiny_run: Path, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "chat.json"
    file.write_text(content)
    refused("view", tiny_run, "--messages", file)
    assert "No such file" in refused("view", tiny_run, "--messages", tmp_path / "none.json")


@pytest.mark.parametrize(
    "words",
    [["--temperature", "-1"], ["--top-p", "2"], ["--max-tokens", "0"], ["--top-k", "-3"]],
)
def test_impossible_sampling(
    tiny_run: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["generate", str(tiny_run), "--prompt", "The", *words])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error and "Traceback" not in error
