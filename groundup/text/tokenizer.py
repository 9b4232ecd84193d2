"""The tokenizer protocol, the byte-pair tokenizer, and loading any kind from a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from groundup.text.base import PieceTokenizer
from groundup.text.chat_format import ChatFormat
from groundup.text.config import SPECIAL_TOKENS
from groundup.text.simple import ByteTokenizer, CharTokenizer, WordTokenizer
from groundup.text.vocabulary import ALL_BYTES, Vocabulary

__all__ = [
    "SPECIAL_TOKENS",
    "BPETokenizer",
    "Tokenizer",
    "from_vocabulary",
    "has_tokenizer",
    "load_tokenizer",
    "opening",
]


class Tokenizer(Protocol):
    """What the rest of the package knows of a tokenizer. Ids are 0 to vocab_size - 1."""

    @property
    def kind(self) -> str:
        """ "bpe", "char", "word", "byte"; of others "sentencepiece", "unigram", "wordpiece"."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        ...

    @property
    def special(self) -> Mapping[str, int]:
        """Ids of the special tokens by name; all of SPECIAL_TOKENS for tokenizers trained here."""
        ...

    @property
    def fingerprint(self) -> str:
        """sha256 of the vocabulary, by which shards and model folders know their tokenizer."""
        ...

    def encode(self, text: str) -> list[int]: ...

    def encode_batch(self, texts: Sequence[str], workers: int = 1) -> list[np.ndarray]: ...

    def encode_parts(self, parts: Sequence[int | str]) -> list[list[int]]: ...

    def chat_format(self) -> ChatFormat: ...

    def decode_bytes(self, ids: Iterable[int]) -> bytes: ...

    def decode(self, ids: Iterable[int], special: bool = False) -> str: ...

    def token_bytes(self) -> np.ndarray: ...

    def save(self, folder: str | Path) -> None: ...


class BPETokenizer(PieceTokenizer):
    """Byte-pair encoding: inside each word, the two neighbours whose union has the lowest id merge.

    Sennrich et al. 2016 (arXiv:1508.07909), on bytes as in GPT-2. tiktoken does the work. It merges
    two neighbours whenever their union is a token, where `tokenizers` follows a list of merges; for
    a vocabulary that was trained as one these are the same: what happens inside a token's bytes
    does not depend on what stands around them, so its two halves are always the same two.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        import tiktoken

        # Bytes that some vocabularies lack get ids beyond it, which are left out again.
        absent = [byte for byte in ALL_BYTES if byte not in vocabulary.ids]
        stand_ins = {byte: len(vocabulary) + i for i, byte in enumerate(absent)}
        self._limit = len(vocabulary) if absent else None
        self._encoding = tiktoken.Encoding(
            "groundup",
            pat_str=vocabulary.pattern,
            mergeable_ranks=vocabulary.ids | stand_ins,
            special_tokens={},
        )

    def _encode_stretch(self, text: str) -> list[int]:
        ids = self._encoding.encode_ordinary(text)
        return ids if self._limit is None else [id for id in ids if id < self._limit]


def opening(tokenizer: Tokenizer) -> list[int]:
    """The ids every document begins with: <|bos|>, or nothing where a tokenizer made elsewhere
    has no such token.
    """
    id = tokenizer.special.get("<|bos|>")
    return [] if id is None else [id]


def has_tokenizer(folder: Path) -> bool:
    """Whether there is a file in `folder` that `load_tokenizer` reads."""
    return any((folder / name).exists() for name in ("tokenizer.json", "vocab.txt"))


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer in `folder`: ours, another's in the tokenizer.json format, or BERT's vocab.txt.

    Raises UserError when tokenizer.json is missing, broken, or of a sort we cannot reproduce.
    """
    from groundup.text.foreign import read_foreign
    from groundup.text.store import read_vocabulary

    return read_foreign(Path(folder)) or from_vocabulary(read_vocabulary(Path(folder)))


def from_vocabulary(vocabulary: Vocabulary) -> PieceTokenizer:
    """The tokenizer class that goes with the vocabulary's kind."""
    classes: dict[str, type[PieceTokenizer]] = {
        "bpe": BPETokenizer,
        "char": CharTokenizer,
        "word": WordTokenizer,
        "byte": ByteTokenizer,
    }
    return classes[vocabulary.kind](vocabulary)
