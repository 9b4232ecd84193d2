"""Files people bring: what is read from them, and one clear sentence for each way to be wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config import UserError
from groundup.data import sources
from groundup.data.config import SourceConfig
from groundup.data.documents import Document
from groundup.data.sources import read_source

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]


def read(name: str | Path, **options: Any) -> list[Document]:
    return list(read_source(SourceConfig(name=str(name), **options)))


def failure(name: str | Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        read(name, **options)
    message = str(error.value)
    assert message.endswith((".", "?")) and "\n" not in message
    return message


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------- text


def test_text_is_cut_at_paragraphs(tmp_path):
    paragraphs = [f"Paragraph {i}.\n" + "words of {i} " * 29 + "end" for i in range(57)]
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(paragraphs), encoding="utf-8")
    documents = read(path)
    assert [document.id for document in documents[:2]] == ["book.txt:1", "book.txt:2"]
    assert all(document.source == str(path) for document in documents)
    assert len(documents) >= 20
    limit = path.stat().st_size // 20
    for document in documents:
        assert document.text.startswith("Paragraph ") and len(document.text) <= limit
    assert "\n\n".join(document.text for document in documents) == "\n\n".join(paragraphs)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    text=st.text(alphabet=st.sampled_from("ab \n\né€😀"), min_size=1, max_size=3000),
    block=st.integers(1, 700),
)
def test_text_loses_only_white_space(tmp_path_factory, text, block):
    path = tmp_path_factory.mktemp("text") / "any.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BLOCK", block)
        documents = read(path)
        patch.setattr(sources, "BLOCK", 2**20)
        assert documents == read(path)  # where blocks end does not matter
    assert "".join("".join(d.text.split()) for d in documents) == "".join(text.split())
    assert all(0 < len(document.text) <= 4096 for document in documents)


def test_one_endless_line_is_cut_into_documents(tmp_path):
    path = tmp_path / "line.txt"
    path.write_bytes(b"x" * 3_000_001)
    documents = read(path)
    assert {len(document.text) for document in documents[:-1]} == {4096}
    assert sum(len(document.text) for document in documents) == 3_000_001


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "bom.txt"
    path.write_bytes("\ufeffHello".encode())
    assert [document.text for document in read(path)] == ["Hello"]


def test_bad_text_files(tmp_path):
    missing = failure(tmp_path / "no.txt")
    assert "no.txt" in missing and "no file" in missing
    empty = tmp_path / "empty.txt"
    empty.touch()
    assert "empty.txt is empty" in failure(empty)
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"abc" * 1_000_000 + b"\0")
    assert "byte 3000000 holds a NUL byte" in failure(binary)
    wide = tmp_path / "wide.txt"
    wide.write_text("hello", encoding="utf-16")
    assert "UTF-16" in failure(wide)
    other = tmp_path / "notes.docx"
    other.write_bytes(b"x")
    assert ".txt, .jsonl, .parquet" in failure(other)


@pytest.mark.parametrize("offset", [0, 5, 2**20 - 1, 2**20, 2**20 + 3])
@pytest.mark.parametrize("bad", [b"\xff", b"\xe2\x82x", b"\xc3"])
def test_invalid_utf8_is_reported_with_its_offset(tmp_path, offset, bad):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"a" * offset + bad)
    assert f"not valid UTF-8 at byte {offset} " in failure(path)


# ------------------------------------------------------------------------------------------ jsonl


def test_jsonl_rows_are_documents(tmp_path):
    path = lines(tmp_path / "mix.jsonl", {"text": "one"}, {"messages": CHAT, "id": 7})
    with open(path, "a") as file:
        file.write("\n" + json.dumps({"text": "drei ü\nzwei"}))  # blank line, no last newline
    first, second, third = read(path)
    assert (first.id, first.text, first.messages) == ("mix.jsonl:1", "one", ())
    assert (second.text, second.messages) == ("", tuple(CHAT))
    assert second.as_text() == "Hi\nHello!"
    assert (third.id, third.text) == ("mix.jsonl:4", "drei ü\nzwei")


def test_columns_can_be_named(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"body": "words", "talk": CHAT}, {"body": "more"})
    documents = read(path, text_column="body", messages_column="talk")
    assert [bool(document.messages) for document in documents] == [True, False]
    assert read(path, text_column="body")[0].text == "words"


def test_broken_json_is_named_with_its_line(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"text": "fine"}, {"text": "fine"})
    path.write_text(path.read_text() + '{"text": "cut of\n')
    assert "a.jsonl line 3 is not valid JSON" in failure(path)
    path.write_bytes(b'{"text": "fine"}\n{"text": "\xff"}\n')
    assert "line 2 is not valid UTF-8 at byte 10 of the line" in failure(path)
    path.write_bytes(b'{"text": "fine"}\n\0\0')
    assert "line 2 at byte 0 holds a NUL byte" in failure(path)
    path.write_text('["text"]')
    assert "line 1 should be a JSON object" in failure(path)
    path.write_text("[" * 100_000)
    assert "line 1 is not valid JSON" in failure(path)
    path.write_text('{"text": "\\ud83d"}')
    assert "line 1 holds half a surrogate pair" in failure(path)


def test_an_endless_json_line_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_LINE", 2**20)
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"text": "fine"}) + "\n" + json.dumps({"text": "x" * 2**21}))
    assert "line 2 is longer than 1 MB" in failure(path)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"body": "x", "title": "y"}, "it has 'body', 'title'"),
        ({"text": 3}, "Column 'text' of {path} line 1 should be text, but is a int"),
        ({"text": None}, "but is null"),
        ({"messages": "hi"}, "should be a list of messages, but is a str"),
        ({"messages": [{"role": "user"}]}, "Message 1 of {path} line 1"),
        ({"messages": [*CHAT, "hi"]}, "Message 3 of"),
        ({"messages": [{"role": "asistant", "content": "x"}]}, "Did you mean 'assistant'?"),
    ],
)
def test_rows_that_hold_something_else(tmp_path, row, expected):
    path = lines(tmp_path / "a.jsonl", row)
    assert expected.format(path=path) in failure(path)


# ---------------------------------------------------------------------------------------- parquet


def test_parquet_rows_are_documents(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = [f"row {i}" for i in range(2500)]
    path = tmp_path / "t.parquet"
    table = pyarrow.table({"text": texts, "other": list(range(2500))})
    parquet.write_table(table, path, row_group_size=700)
    documents = read(path)
    assert [document.text for document in documents] == texts
    assert documents[-1].id == "t.parquet:2500"
    assert "it has 'text', 'other'" in failure(path, text_column="body")
    assert "row 1 should be text, but is a int" in failure(path, text_column="other")

    chats = tmp_path / "c.parquet"
    parquet.write_table(pyarrow.table({"messages": [CHAT, CHAT[:1]]}), chats)
    assert [document.messages for document in read(chats)] == [tuple(CHAT), tuple(CHAT[:1])]
    chats.write_bytes(chats.read_bytes()[:-9])
    assert "not a readable Parquet file" in failure(chats)


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "pip install 'groundup[hf]'" in failure(path)


# ------------------------------------------------------------------------------ folders and names


def test_folders_and_globs(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.txt").write_text("bee")
    (tmp_path / "deep" / "a.txt").write_text("ay")
    (tmp_path / "notes.md").write_text("skipped in a folder")
    lines(tmp_path / "c.jsonl", {"text": "sea"})
    assert [(d.id, d.text) for d in read(tmp_path)] == [
        ("b.txt:1", "bee"),
        ("c.jsonl:1", "sea"),
        ("deep/a.txt:1", "ay"),
    ]
    assert [d.text for d in read(f"{tmp_path}/**/*.txt")] == ["bee", "ay"]
    assert [d.text for d in read(tmp_path, max_documents=2)] == ["bee", "sea"]
    assert "No file matches" in failure(f"{tmp_path}/*.parquet")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no .txt, .jsonl, .parquet file" in failure(empty)


def test_unknown_corpus_gets_a_hint():
    assert "Did you mean 'shakespeare'?" in failure("shakespear")
