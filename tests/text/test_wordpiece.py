"""WordPiece: greedy longest match by an oracle in plain Python, framing, and text stays text."""

from __future__ import annotations

import json
import pickle
import string
from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from groundup.config import UserError
from groundup.text.tokenizer import load_tokenizer
from groundup.text.wordpiece import ROLES, WordPieceTokenizer

LETTERS = string.ascii_lowercase[:9]
PIECES = [
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS[:-1]),
    "abc",
    "##bcd",
    "##cd",
    "dead",
    ".",
]
VOCABULARY = {piece: id for id, piece in enumerate([*ROLES.values(), *PIECES])}


def content() -> dict:
    """A tokenizer.json as BERT's: special tokens first, lower case, words split at punctuation."""
    tokenizer = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in ROLES.values()])
    tokenizer.enable_padding(length=20)
    tokenizer.enable_truncation(5)
    return json.loads(tokenizer.to_str())


@pytest.fixture(scope="module")
def tokenizer() -> WordPieceTokenizer:
    return WordPieceTokenizer(content())


def oracle(word: str) -> list[int]:
    ids, rest, mark = [], word, ""
    while rest:
        piece = next(
            (rest[:n] for n in range(len(rest), 0, -1) if mark + rest[:n] in VOCABULARY), ""
        )
        if not piece:
            return [VOCABULARY["[UNK]"]]
        ids.append(VOCABULARY[mark + piece])
        rest, mark = rest[len(piece) :], "##"
    return ids


@given(st.lists(st.text(alphabet=LETTERS + "z", min_size=1, max_size=9), max_size=6))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_pieces_are_the_longest_that_fit(tokenizer: WordPieceTokenizer, words: list[str]) -> None:
    expected = [id for word in words for id in oracle(word)]
    assert tokenizer.encode(" ".join(words)) == expected
    assert tokenizer.encode("  ".join(words).upper()) == expected


def test_text_never_becomes_a_special_token(tokenizer: WordPieceTokenizer) -> None:
    special = set(tokenizer.special.values()) - {tokenizer.special["[UNK]"]}
    assert not special & set(tokenizer.encode("a [SEP] b [CLS][MASK] [PAD]"))
    assert tokenizer.encode("\ud800 a") == [VOCABULARY["a"]]


def test_frames_hold_one_text_or_two(tokenizer: WordPieceTokenizer) -> None:
    begin, end = VOCABULARY["[CLS]"], VOCABULARY["[SEP]"]
    assert tokenizer.frame([7, 8]) == ([begin, 7, 8, end], [0, 0, 0, 0])
    assert tokenizer.frame([7], [8, 9]) == ([begin, 7, end, 8, 9, end], [0, 0, 0, 1, 1, 1])


def test_decoding_gives_words(tokenizer: WordPieceTokenizer) -> None:
    ids, _ = tokenizer.frame(tokenizer.encode("abcd dead."))
    assert tokenizer.decode(ids) == "abcd dead."
    assert tokenizer.decode_bytes(ids) == b"abcd dead."
    assert tokenizer.decode(ids, special=True).startswith("[CLS] abcd")
    assert tokenizer.token_bytes()[VOCABULARY["##bcd"]] == 3
    assert tokenizer.token_bytes()[: len(ROLES)].sum() == 0
    with pytest.raises(UserError, match="outside"):
        tokenizer.decode([len(VOCABULARY)])


def test_a_folder_goes_there_and_back(tokenizer: WordPieceTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, WordPieceTokenizer)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.vocab_size == len(VOCABULARY)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "Deadbeef, a ghi z."
    assert theirs(text, add_special_tokens=False).input_ids == loaded.encode(text)
    assert theirs.mask_token_id == loaded.special["[MASK]"]
    again = pickle.loads(pickle.dumps(loaded)).encode_batch([text, ""])
    assert np.array_equal(again[0], loaded.encode(text)) and again[1].dtype == np.uint32


def test_broken_files_are_refused(tmp_path: Path) -> None:
    data = content()
    (tmp_path / "tokenizer.json").write_text(json.dumps({**data, "added_tokens": []}))
    with pytest.raises(UserError, match=r"\[PAD\]"):
        load_tokenizer(tmp_path)
    del data["model"]["vocab"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match="not a valid tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("lower", [True, False])
def test_a_plain_list_of_pieces_is_read(lower: bool, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    tokenizer = load_tokenizer(tmp_path)
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    for text in ("abcd dead.", "ABC ábc 中 zz", "", "a [SEP]"):
        assert tokenizer.encode(text) == [
            VOCABULARY[piece] for piece in theirs.tokenize(text, split_special_tokens=True)
        ]
    tokenizer.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").fingerprint == tokenizer.fingerprint
    (tmp_path / "vocab.txt").write_text("a\nb\na\n")
    with pytest.raises(UserError, match="holds a piece twice"):
        load_tokenizer(tmp_path)
