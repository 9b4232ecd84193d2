"""Token shards: nothing lost, the same bytes from any number of workers, damage noticed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.config import UserError
from groundup.data import shards as shards_module
from groundup.data.documents import Document
from groundup.data.shards import Shards, token_dtype, write_shards
from groundup.text.base import WORTH_PROCESSES

if TYPE_CHECKING:
    from groundup.text.tokenizer import Tokenizer

property_test = settings(
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def make_documents(texts: list[str]) -> list[Document]:
    return [Document("test", str(index), text) for index, text in enumerate(texts)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path, tiny_tokenizer: Tokenizer) -> Path:
    """Shards of four documents, 19 tokens to a file."""
    texts = ["A small house.", "", "Grows — from the ground 日本 up! " * 5, "\n"]
    write_shards(tmp_path / "s", make_documents(texts), tiny_tokenizer, 1, tokens_per_file=19)
    return tmp_path / "s"


@property_test
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1),
    tokens_per_file=st.integers(1, 64),
)
def test_every_document_comes_back_whole(
    tmp_path: Path, tiny_tokenizer: Tokenizer, texts: list[str], tokens_per_file: int
) -> None:
    documents = make_documents(texts)
    manifest = write_shards(
        tmp_path / "s", documents, tiny_tokenizer, workers=1, tokens_per_file=tokens_per_file
    )
    shards = Shards(tmp_path / "s", tiny_tokenizer.fingerprint)
    bos = tiny_tokenizer.special["<|bos|>"]
    expected = [[bos, *tiny_tokenizer.encode(text)] for text in texts]
    assert [shards.document(i).tolist() for i in range(shards.num_documents)] == expected
    stream = [token for ids in expected for token in ids]
    assert shards.tokens(0, shards.num_tokens).tolist() == stream
    assert shards.num_tokens == manifest.num_tokens == len(stream)
    assert shards.num_documents == manifest.num_documents == len(texts)
    assert shards.num_bytes == sum(len(text.encode()) for text in texts)
    files = [record for record in manifest.files if record.name.startswith("tokens_")]
    assert len(files) == -(-len(stream) // tokens_per_file)
    assert all(record.size == 2 * tokens_per_file for record in files[:-1])
    shards.verify()


def test_any_range_of_tokens_joins_the_files(folder: Path, tiny_tokenizer: Tokenizer) -> None:
    shards = Shards(folder, tiny_tokenizer.fingerprint)
    stream = np.concatenate([shards.document(i) for i in range(shards.num_documents)])
    for start in range(len(stream) + 1):
        for stop in range(start, len(stream) + 1):
            part = shards.tokens(start, stop)
            assert part.dtype == np.uint16 and np.array_equal(part, stream[start:stop])
    for start, stop in ((-1, 3), (5, 4), (0, len(stream) + 1)):
        with pytest.raises(IndexError):
            shards.tokens(start, stop)
    for index in (-1, shards.num_documents):
        with pytest.raises(IndexError):
            shards.document(index)


def test_workers_do_not_change_a_byte(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    generator = random.Random(5)
    words = ["stone", "beam", "roof", "fire", "naïve", "日本語", "21,", "🙂", "we'll\n"]
    texts = [" ".join(generator.choices(words, k=generator.randrange(6000))) for _ in range(90)]
    assert sum(map(len, texts)) > WORTH_PROCESSES
    for count in (1, 2, 3):
        write_shards(tmp_path / str(count), make_documents(texts), tiny_tokenizer, count)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")


def test_progress_is_told_as_it_goes(
    tmp_path: Path, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "CHUNK_CHARACTERS", 100)
    seen: list[int] = []
    documents = make_documents(["x" * (n % 70) for n in range(50)])
    write_shards(tmp_path / "s", documents, tiny_tokenizer, 1, seen.append)
    assert len(seen) > 10 and seen == sorted(set(seen)) and seen[-1] == 50


def test_chunks_bound_memory_without_losing_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "CHUNK_CHARACTERS", 100)
    documents = make_documents(["x" * size for size in (99, 1, 500, 0, 0, 60, 60, 3)])
    groups = list(shards_module.chunks(iter(documents)))
    assert [text for group in groups for text in group] == [one.text for one in documents]
    assert [[len(text) for text in group] for group in groups] == [
        [99],
        [1, 500],
        [0, 0, 60, 60],
        [3],
    ]


def test_an_error_while_reading_leaves_the_old_shards(
    folder: Path, tiny_tokenizer: Tokenizer
) -> None:
    before = contents(folder)

    def broken() -> Iterator[Document]:
        yield from make_documents(["one", "two"])
        raise UserError("line 3 is broken")

    with pytest.raises(UserError, match="line 3 is broken"):
        write_shards(folder, broken(), tiny_tokenizer, workers=1)
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["s"]


def test_no_documents_are_an_error(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="no documents"):
        write_shards(tmp_path / "s", [], tiny_tokenizer)
    assert list(tmp_path.iterdir()) == []


def test_another_tokenizer_is_refused(folder: Path, tiny_tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError) as error:
        Shards(folder, "f" * 64)
    message = str(error.value)
    assert tiny_tokenizer.fingerprint in message and "f" * 64 in message
    assert "delete the folder" in message and "use the tokenizer" in message


def test_damage_is_noticed(folder: Path, tiny_tokenizer: Tokenizer) -> None:
    fingerprint = tiny_tokenizer.fingerprint
    shards = Shards(folder, fingerprint)
    path = folder / "tokens_00001.bin"
    whole = path.read_bytes()

    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(UserError, match=r"tokens_00001\.bin is not what manifest\.json says"):
        shards.verify()
    path.write_bytes(whole[:-2])
    with pytest.raises(UserError, match="should be 38 bytes, but is 36: it was cut off"):
        Shards(folder, fingerprint)
    path.unlink()
    with pytest.raises(UserError, match=r"tokens_00001\.bin is missing"):
        Shards(folder, fingerprint)
    path.write_bytes(whole)
    Shards(folder, fingerprint).verify()


def test_a_bad_manifest_is_noticed(folder: Path, tiny_tokenizer: Tokenizer) -> None:
    path = folder / "manifest.json"
    whole = path.read_text()
    for change in ({"version": 99}, {"kind": "conversations"}):
        path.write_text(json.dumps({**json.loads(whole), **change}))
        with pytest.raises(UserError, match="should hold tokens in format 1, but holds"):
            Shards(folder, tiny_tokenizer.fingerprint)
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut off"):
        Shards(folder, tiny_tokenizer.fingerprint)
    path.unlink()
    with pytest.raises(UserError, match=r"has no manifest\.json"):
        Shards(folder, tiny_tokenizer.fingerprint)


def test_ids_are_stored_in_the_smallest_type_that_holds_them() -> None:
    for vocab_size in (2, 65_535, 65_536, 65_537, 1 << 32):
        largest = vocab_size - 1
        assert np.array(largest, dtype=token_dtype(vocab_size)) == largest
    assert token_dtype(65_536) == "<u2" and token_dtype(65_537) == "<u4"
