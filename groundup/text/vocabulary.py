"""The data of a tokenizer: what each id stands for, and how text is cut before ids are chosen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from groundup.text.config import NUM_BYTES, SPECIAL_TOKENS

if TYPE_CHECKING:
    from groundup.text.chat_format import ChatFormat

Kind = Literal["bpe", "char", "word", "byte"]
ALL_BYTES = tuple(bytes([value]) for value in range(NUM_BYTES))


@dataclass(frozen=True)
class Vocabulary:
    """Everything that decides how a tokenizer encodes. It is all that files and workers hold.

    pieces: (V,) the UTF-8 bytes each id stands for; b"" for special tokens. For kind "bpe" a lower
        id is merged earlier.
    special: the ids of the special tokens, by name. Two names may share an id.
    pattern: the regular expression that cuts text into words; "" leaves it whole.
    normal_form: the Unicode normal form text is put into first, or "" for none. Tokenizers trained
        here never use one, since it would break the round trip; some loaded ones do.
    chat: how somebody else's model wants conversations written; None for our own format.
    """

    kind: Kind
    pattern: str
    pieces: tuple[bytes, ...]
    special: Mapping[str, int] = field(default_factory=dict)
    normal_form: Literal["", "NFC", "NFD", "NFKC", "NFKD"] = ""
    chat: ChatFormat | None = None

    @classmethod
    def grown(cls, kind: Kind, pattern: str, extra: Iterable[bytes]) -> Vocabulary:
        """The layout of every tokenizer trained here: the 256 bytes, `extra`, special tokens."""
        pieces = (*ALL_BYTES, *extra)
        special = {name: len(pieces) + i for i, name in enumerate(SPECIAL_TOKENS)}
        return cls(kind, pattern, pieces + (b"",) * len(special), special)

    def __len__(self) -> int:
        return len(self.pieces)

    @cached_property
    def ids(self) -> dict[bytes, int]:
        """Bytes -> id, without the special tokens."""
        return {piece: id for id, piece in enumerate(self.pieces) if piece}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the pieces, the special tokens and the way text is cut."""
        content = {
            "kind": self.kind,
            "pattern": self.pattern,
            "normal_form": self.normal_form,
            "pieces": [piece.hex() for piece in self.pieces],
            "special": dict(self.special),
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()
