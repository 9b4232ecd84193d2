"""Bytes per token: exact counts, and known vocabularies found only where they are installed."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from groundup.text import evaluate
from groundup.text.config import TokenizerConfig
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import train_tokenizer


def test_rows_and_table(tiny_tokenizer: Tokenizer) -> None:
    byte = train_tokenizer(TokenizerConfig(kind="byte"), [])
    texts = {"plain": "the roof, the house", "umlauts": "äöü", "nothing": ""}
    rows = evaluate.compare({"tiny": tiny_tokenizer, "byte": byte}, texts)
    assert [(row.text, row.tokenizer) for row in rows][:3] == [
        ("plain", "tiny"),
        ("plain", "byte"),
        ("umlauts", "tiny"),
    ]
    plain = rows[0]
    assert plain.num_bytes == 19 and plain.num_tokens == len(tiny_tokenizer.encode(texts["plain"]))
    assert plain.bytes_per_token == 19 / plain.num_tokens > 1
    assert (rows[3].num_tokens, rows[3].num_bytes, rows[5].bytes_per_token) == (6, 6, 0)
    assert evaluate.table(rows).splitlines() == [
        "| bytes per token | tiny (320) | byte (263) |",
        "|---|---|---|",
        f"| plain | {plain.bytes_per_token:.2f} | 1.00 |",
        f"| umlauts | {rows[2].bytes_per_token:.2f} | 1.00 |",
        "| nothing | 0.00 | 0.00 |",
    ]


def test_samples_differ_in_kind(tiny_tokenizer: Tokenizer) -> None:
    rows = evaluate.compare({"tiny": tiny_tokenizer}, evaluate.sample_texts())
    assert len(rows) == 4 and all(row.num_bytes > 5000 for row in rows)
    assert len({round(row.bytes_per_token, 2) for row in rows}) == 4


def test_known_vocabularies_are_read_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))

    def place(name: str, content: bytes) -> None:
        address = evaluate._KNOWN[name].address
        (tmp_path / hashlib.sha1(address.encode()).hexdigest()).write_bytes(content)

    pieces = [*(bytes([value]) for value in range(255, -1, -1)), b"he", b" he", b"\n\n"]
    lines = (base64.b64encode(piece) + b" %d\n" % i for i, piece in enumerate(pieces))
    place("cl100k", b"".join(lines))
    place("gpt2", "#version: 0.2\nĠ h\nĠh e\n".encode())
    known = evaluate.installed_vocabularies()
    assert known["cl100k"].encode("he he\n\n") == [256, 257, 258]
    assert known["gpt2"].encode("! hea") == [0, 257, ord("a") - ord("!")]
    assert known["gpt2"].decode([256, 257]) == " h he"


def test_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(evaluate.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    assert evaluate.installed_vocabularies() == {}
