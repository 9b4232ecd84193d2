"""Every mistake a user can make at the command line: one sentence, exit code 2, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from groundup.cli import VERBS, main
from groundup.files import read_json

pytestmark = pytest.mark.usefixtures("known_roof")

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """`refused(words…)` runs the command line and returns its one sentence of complaint."""

    def run(*words: object) -> str:
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        error = capsys.readouterr().err
        assert caught.value.code == 2, error
        assert "Traceback" not in error
        last = error.rstrip("\n").splitlines()[-1]
        assert last.startswith("groundup: "), error
        assert len(last) < 600
        return last.removeprefix("groundup: ")

    return run


@pytest.fixture
def recipe(tmp_path: Path, tiny_recipe: Path) -> Callable[[object], Path]:
    """`recipe(source)` writes the tiny recipe with that one source."""

    def write(source: object) -> Path:
        lines = tiny_recipe.read_text().splitlines()
        start = next(i for i, line in enumerate(lines) if "data.sources" in line)
        lines[start : start + 4] = [f'data.sources = [{{ name = "{source}" }}]']
        path = tmp_path / "recipe.toml"
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`small_disk("size=1m")` mounts a small file system of its own."""
    folder = tmp_path / "disk"

    def mount(options: str) -> Path:
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("needs the right to mount a tmpfs")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "-l", str(folder)], check=True)


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


def test_sources_that_are_not_text(
    refused: Refused, recipe: Callable[[object], Path], tmp_path: Path
) -> None:
    def attempt(source: object) -> str:
        return refused("speedrun", recipe(source), "--run", tmp_path / "run")

    assert "There is no file or folder" in attempt(tmp_path / "missing.txt")
    assert "Did you mean 'shakespeare'?" in attempt("shakespere")
    file = tmp_path / "text.txt"
    file.write_bytes(b"")
    assert "is empty" in attempt(file)
    file.write_bytes(b" \n\n\t\n" * 100)
    assert "leaves nothing to train on" in attempt(file)
    file.write_bytes(b"\x7fELF\x02\x01\x01\0\0\0" * 50)
    assert "at byte 7" in attempt(file)
    file.write_bytes(b"good text\n" * 30 + b"\xff\xfe bad")
    assert "is not valid UTF-8 at byte 300" in attempt(file)
    file.write_text("one short text")
    assert "none can be held out" in attempt(file)
    (tmp_path / "folder").mkdir()
    assert "holds no .txt" in attempt(tmp_path / "folder")
    (tmp_path / "slides.pptx").write_text("x")
    assert "should end in" in attempt(tmp_path / "slides.pptx")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b'{"text": "cut of', "line 3"),
        (b"[1, 2]", "line 3"),
        (b'{"txet": "x"}', "line 3"),
        (b'{"text": 5}', "line 3"),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', "line 3"),
        (b'{"text": "\xff"}', "line 3"),
        (b'{"text": "a\0b"}', "line 3"),
    ],
)
def test_a_broken_json_line_is_named(
    refused: Refused,
    recipe: Callable[[object], Path],
    tmp_path: Path,
    bad: bytes,
    message: str,
) -> None:
    file = tmp_path / "data.jsonl"
    good = b'{"text": "The house grows stone by stone."}\n'
    file.write_bytes(good + b"\n" + bad + b"\n" + good)
    sentence = refused("speedrun", recipe(file), "--run", tmp_path / "run")
    assert f"{file} {message}" in sentence


def write_long_line(path: Path, megabytes: int) -> None:
    block = b"word and word, " * (2**20 // 15)
    with open(path, "wb") as file:
        for _ in range(megabytes):
            file.write(block)


def test_one_long_line_is_text_like_any_other(
    recipe: Callable[[object], Path], tmp_path: Path
) -> None:
    """20 MB without a line break, read as a source; a JSON line has a limit."""
    from groundup.data.config import SourceConfig
    from groundup.data.sources import read_source

    write_long_line(tmp_path / "long.txt", 20)
    lengths = [len(d.text) for d in read_source(SourceConfig(name=str(tmp_path / "long.txt")))]
    assert max(lengths) <= 4096 and sum(lengths) > 19 * 2**20


@pytest.mark.slow
def test_a_line_of_a_gigabyte(
    refused: Refused, recipe: Callable[[object], Path], tmp_path: Path
) -> None:
    """Read in bounded memory as text, refused with its number as JSON."""
    script = """
import resource, sys
from groundup.data.config import SourceConfig
from groundup.data.sources import read_source
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = sum(len(document.text) for document in read_source(SourceConfig(name=sys.argv[1])))
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    write_long_line(tmp_path / "long.txt", 1024)
    words = [sys.executable, "-c", script, str(tmp_path / "long.txt")]
    output = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert int(output[0]) > 1000 * 2**20 * 0.9
    assert int(output[1]) < 64, "megabytes"
    (tmp_path / "long.txt").rename(tmp_path / "long.jsonl")
    sentence = refused("speedrun", recipe(tmp_path / "long.jsonl"), "--run", tmp_path / "run")
    assert "line 1 is longer than 64 MB" in sentence


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


def test_truncated_checkpoints(
    refused: Refused, tiny_run: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "stages" / "pretrain.json").unlink()  # as if it had been killed at the end
    for file in (run / "checkpoints" / "pretrain").rglob("*.distcp"):
        os.truncate(file, file.stat().st_size // 3)
    sentence = refused("speedrun", tiny_recipe, "--run", run)
    assert "Every checkpoint in" in sentence and "is damaged" in sentence
    assert (run / "sft" / "model.safetensors").exists()


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


def test_a_run_folder_that_cannot_be_written(
    refused: Refused, tiny_recipe: Path, small_disk: Callable[..., Path], tmp_path: Path
) -> None:
    folder = small_disk("size=1m,ro")
    sentence = refused("speedrun", tiny_recipe, "--run", folder / "run")
    assert "Cannot write into the run folder" in sentence and "--run FOLDER" in sentence
    (tmp_path / "file").write_text("x")
    assert "Cannot write" in refused("speedrun", tiny_recipe, "--run", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("kilobytes", [60, 260, 440, 520, 560, 640])
def test_a_full_disk(
    refused: Refused, tiny_recipe: Path, small_disk: Callable[..., Path], kilobytes: int
) -> None:
    """Full while the text is stored, while checkpoints are, while models are: nothing is torn,
    and with more room the same command goes on."""
    disk = small_disk(f"size={kilobytes}k")
    sentence = refused("speedrun", tiny_recipe, "--run", disk / "run")
    assert "No space left on device" in sentence
    for path in (disk / "run").rglob("*.json"):
        read_json(path)
    subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
    main(["speedrun", str(tiny_recipe), "--run", str(disk / "run")])
    assert not list((disk / "run").rglob("*.tmp"))
    assert json.loads((disk / "run" / "report.json").read_text())["val_bpb"] > 0
