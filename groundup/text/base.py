"""What all tokenizers share: decoding, long texts, batches over processes, saving."""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from groundup.config import UserError
from groundup.text.chat_format import ChatFormat, format_of, with_chat
from groundup.text.pool import WorkerPool
from groundup.text.split import STRETCH, stretches, well_formed
from groundup.text.vocabulary import Vocabulary

# Below this many characters starting processes takes longer than the encoding.
WORTH_PROCESSES = 1_000_000


class PieceTokenizer(ABC):
    """A tokenizer whose ids stand for fixed bytes. Subclasses turn a stretch of text into ids.

    Decoding an encoded text gives the text back, for any Unicode text. (Python strings with lone
    surrogates are not Unicode text: each becomes U+FFFD.)
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._pool: WorkerPool | None = None

    @abstractmethod
    def _encode_stretch(self, text: str) -> list[int]:
        """Ids of a text of at most 2·STRETCH characters, without surrogates."""

    @property
    def kind(self) -> str:
        return self.vocabulary.kind

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    @property
    def special(self) -> Mapping[str, int]:
        return self.vocabulary.special

    @property
    def fingerprint(self) -> str:
        return self.vocabulary.fingerprint

    def encode(self, text: str) -> list[int]:
        """Ids of a text. "<|bos|>" in the text is seven ordinary characters, never the token.

        Texts beyond half a million characters are encoded in stretches: see split.stretches.
        """
        text = self._prepare(text)
        if len(text) <= 2 * STRETCH:
            return self._encode_stretch(text)
        return [id for stretch in stretches(text) for id in self._encode_stretch(stretch)]

    def encode_batch(self, texts: Sequence[str], workers: int = 1) -> list[np.ndarray]:
        """Ids of each text as uint32, in order; the same for any number of worker processes.

        The processes import neither torch nor the caller's program, are kept for the next call,
        and end with this tokenizer. Small batches are encoded here, without them.
        """
        if workers <= 1 or sum(map(len, texts)) < WORTH_PROCESSES:
            return [self._encode_array(text) for text in texts]
        parts = [(i, part) for i, text in enumerate(texts) for part in stretches(text)]
        if self._pool is None or self._pool.workers != workers:
            self._pool = WorkerPool(self.vocabulary, workers)
        encoded: list[list[np.ndarray]] = [[] for _ in texts]
        arrays = self._pool.map([part for _, part in parts])
        for (i, _), array in zip(parts, arrays, strict=True):
            encoded[i].append(array)
        return [arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for arrays in encoded]

    def encode_parts(self, parts: Sequence[int | str]) -> list[list[int]]:
        """Ids of special tokens, and texts between them -> the ids of each text, encoded apart."""
        return [[part] if isinstance(part, int) else self.encode(part) for part in parts]

    def chat_format(self) -> ChatFormat:
        """How conversations are written for its model. Raises UserError when they cannot."""
        return format_of(self.vocabulary)

    def with_chat(self, chat: ChatFormat | None, document_start: str) -> Self:
        """The same tokenizer with another chat format, and token that documents begin with."""
        own = {name: id for name, id in self.special.items() if name not in ("<|bos|>", "<|end|>")}
        bare = replace(self.vocabulary, special=own)
        return type(self)(with_chat(bare, chat, document_start))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes the ids stand for; special tokens stand for none."""
        return self._join(self.vocabulary.pieces, ids)

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """Text of the ids. Bytes that are not UTF-8 become U+FFFD; `special` shows "<|bos|>"."""
        pieces = self._shown if special else self.vocabulary.pieces
        return self._join(pieces, ids).decode("utf-8", "replace")

    def token_bytes(self) -> np.ndarray:
        """(V,) int64: the number of UTF-8 bytes each id stands for, 0 for special tokens."""
        return np.array([len(piece) for piece in self.vocabulary.pieces], dtype=np.int64)

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, each whole or not at all."""
        from groundup.text.store import write_vocabulary

        write_vocabulary(Path(folder), self.vocabulary)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self), (self.vocabulary,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.vocab_size} ids, {self.fingerprint[:12]})"

    def _prepare(self, text: str) -> str:
        text = well_formed(text)
        form = self.vocabulary.normal_form
        return unicodedata.normalize(form, text) if form else text

    def _encode_array(self, text: str) -> np.ndarray:
        parts = stretches(self._prepare(text))
        arrays = [np.array(self._encode_stretch(part), dtype=np.uint32) for part in parts]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    @cached_property
    def _shown(self) -> tuple[bytes, ...]:
        shown = list(self.vocabulary.pieces)
        for name, id in reversed(list(self.special.items())):  # the file's own names come first
            shown[id] = name.encode()
        return tuple(shown)

    def _join(self, pieces: tuple[bytes, ...], ids: Iterable[int]) -> bytes:
        ids = list(ids)
        if ids and not (min(ids) >= 0 and max(ids) < len(pieces)):
            wrong = next(id for id in ids if not 0 <= id < len(pieces))
            raise UserError(f"Id {wrong} is outside this tokenizer's {len(pieces)} ids.")
        return b"".join([pieces[id] for id in ids])
