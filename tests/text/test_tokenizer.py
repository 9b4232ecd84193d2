"""All kinds of tokenizer: exact round trips, equal ids in three libraries, batches, long texts."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from groundup.config import UserError
from groundup.text import base
from groundup.text.config import SPECIAL_TOKENS, TokenizerConfig
from groundup.text.split import STRETCH
from groundup.text.tokenizer import Tokenizer, load_tokenizer
from groundup.text.train import train_tokenizer

KINDS = ["bpe", "char", "word", "byte"]
CORPUS = [
    "Who would fardels bear, to grunt and sweat under a weary life? " * 3,
    "It's 1234 o'clock; we'll see 56 bananas, aaaa aaa aaaaa!!! hahaha\n\n\tdef f(x):\n    x += 1",
    "Größe, café, naïve; Привет, мир! 日本語のテキスト、すもももももももものうち。 🙂🙂🙃 مرحبا",
]
# Unicode at large, and pieces that meet the corners of merging and cutting
TEXT = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            ["a", "ha", " ", "\n", "'s", "12", "é", "🙂", "e\u0301", "もも", "<|bos|>"]
        ),
    ),
    max_size=20,
).map("".join)
PROPERTY = settings(deadline=None, max_examples=150, derandomize=True)


@pytest.fixture(scope="module", params=[*KINDS, "digits", "gpt2"])
def trio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Ours, `tokenizers` and transformers, the latter two from the saved folder."""
    return three(train(request.param), tmp_path_factory.mktemp(request.param))


def train(name: str) -> Tokenizer:
    if name in KINDS:
        return train_tokenizer(TokenizerConfig(kind=name, vocab_size=400), CORPUS)  # type: ignore[arg-type]
    return train_tokenizer(TokenizerConfig(pattern=name, vocab_size=400), CORPUS)  # type: ignore[arg-type]


def three(ours: Tokenizer, folder: Path):
    ours.save(folder)
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.encode_special_tokens = True  # "<|bos|>" in a text is text
    automatic = transformers.AutoTokenizer.from_pretrained(folder)
    return ours, theirs, automatic


@PROPERTY
@given(text=TEXT)
@example("")
@example("\x00\x7f\x80\uffff\U0010ffff")
def test_round_trip_and_equal_ids(trio, text: str) -> None:
    ours, theirs, automatic = trio
    ids = ours.encode(text)
    assert ours.decode(ids) == text
    assert ours.decode_bytes(ids) == text.encode()
    assert ours.token_bytes()[ids].sum() == len(text.encode())
    assert theirs.encode(text).ids == ids
    assert automatic(text, split_special_tokens=True)["input_ids"] == ids
    assert not {*ids} & {*ours.special.values()}


@PROPERTY
@given(ids=st.lists(st.integers(0, 255), max_size=30))
def test_any_bytes_decode(trio, ids: list[int]) -> None:
    assert trio[0].decode(ids) == bytes(ids).decode("utf-8", "replace")


def test_layout(trio) -> None:
    ours = trio[0]
    size = ours.vocab_size
    assert dict(ours.special) == {name: size - 7 + i for i, name in enumerate(SPECIAL_TOKENS)}
    assert ours.token_bytes().dtype == np.int64 and ours.token_bytes().shape == (size,)
    assert (ours.token_bytes() == 0).sum() == 7 and (ours.token_bytes()[:256] == 1).all()
    ids = [ours.special["<|bos|>"], *ours.encode("hé"), ours.special["<|end|>"]]
    assert ours.decode(ids) == "hé"
    assert ours.decode(np.array(ids), special=True) == "<|bos|>hé<|end|>"


@pytest.mark.parametrize("wrong", [-1, 10_000])
def test_an_id_outside_the_vocabulary_is_named(tiny_tokenizer: Tokenizer, wrong: int) -> None:
    with pytest.raises(UserError, match=f"Id {wrong} is outside"):
        tiny_tokenizer.decode([65, wrong])


def test_pickled_and_reloaded_tokenizers_are_the_same(trio, tmp_path: Path) -> None:
    ours = trio[0]
    ours.save(tmp_path)
    for copy in (load_tokenizer(tmp_path), pickle.loads(pickle.dumps(ours))):
        assert (copy.kind, copy.vocab_size) == (ours.kind, ours.vocab_size)
        assert copy.fingerprint == ours.fingerprint and dict(copy.special) == dict(ours.special)
        assert copy.encode(CORPUS[2]) == ours.encode(CORPUS[2])


def test_fingerprints_tell_vocabularies_apart() -> None:
    prints = {train(name).fingerprint for name in [*KINDS, "digits", "gpt2"]}
    assert len(prints) == 6 and all(len(print) == 64 for print in prints)
    assert train("bpe").fingerprint in prints


def test_surrogates_become_replacement_characters(trio) -> None:
    ours = trio[0]
    assert ours.decode(ours.encode("x\ud800y")) == "x\ufffdy"
    assert ours.decode(ours.encode_batch(["\ud83d\ude42"])[0]) == "🙂"


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_equal_for_any_number_of_workers(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "WORTH_PROCESSES", 1)
    tokenizer = train(kind)
    long = "x" * 600_000 if kind == "bpe" else ""
    texts = [*CORPUS, "", long, *(f"{i} {text}" for i in range(12) for text in CORPUS)]
    alone = tokenizer.encode_batch(texts)
    for workers in (2, 3, 2):
        together = tokenizer.encode_batch(texts, workers)
        assert [array.dtype for array in together] == [np.dtype(np.uint32)] * len(texts)
        assert all(map(np.array_equal, alone, together))
    assert [array.tolist() for array in alone] == [tokenizer.encode(text) for text in texts]


def test_workers_need_no_main_guard_load_no_torch_and_end(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from groundup.text import base
        from groundup.text.config import TokenizerConfig
        from groundup.text.train import train_tokenizer

        base.WORTH_PROCESSES = 1
        tokenizer = train_tokenizer(TokenizerConfig(kind="byte"), [])
        print([ids.tolist() for ids in tokenizer.encode_batch(["a", "b"], 2)])
        processes = [tokenizer._pool._idle.get() for _ in range(2)]
        maps = [open(f"/proc/{process.pid}/maps").read() for process in processes]
        print(any("libtorch" in text for text in maps), *(process.pid for process in processes))
        """)
    )
    root = Path(base.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.returncode == 0 and done.stderr == ""
    ids, loaded = done.stdout.splitlines()
    assert ids == "[[97], [98]]"
    torch_loaded, *pids = loaded.split()
    assert torch_loaded == "False"
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_dead_worker_is_an_error_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "WORTH_PROCESSES", 1)
    tokenizer = train("byte")
    tokenizer.encode_batch(["a"], 2)
    pool = tokenizer._pool  # type: ignore[attr-defined]
    for process in [pool._idle.get() for _ in range(2)]:
        process.kill()
        process.wait()
        pool._idle.put(process)
    with pytest.raises(RuntimeError, match="worker process died"):
        tokenizer.encode_batch(["a"], 2)


@pytest.mark.parametrize("unit", ["a", " ", "\n", "\t", "-", "7", "é", "ha", " \n", "日"])
def test_a_long_line_of_one_word_takes_linear_time(tiny_tokenizer: Tokenizer, unit: str) -> None:
    text = unit * (3_000_000 // len(unit)) + "x"
    start = time.process_time()
    ids = tiny_tokenizer.encode(text)
    assert time.process_time() - start < 8
    assert tiny_tokenizer.decode(ids) == text


def test_long_ordinary_texts_are_encoded_as_without_stretches(tmp_path: Path) -> None:
    ours, theirs, _ = three(train("bpe"), tmp_path)
    text = "\n".join(CORPUS) * (1 + 3 * STRETCH // len("\n".join(CORPUS)))
    ids = ours.encode(text)
    assert ours.encode_batch([text])[0].tolist() == ids
    assert theirs.encode(text).ids == ids
