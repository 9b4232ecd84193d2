"""The tokenizers that need no merges: bytes, characters and words.

All three have the layout of the byte-pair tokenizer (256 bytes, then longer pieces, then special
tokens), and what they have no piece for they spell in bytes; so every text has ids and every round
trip is exact.
"""

from __future__ import annotations

import numpy as np

from groundup.text.base import PieceTokenizer
from groundup.text.config import NUM_BYTES
from groundup.text.vocabulary import Vocabulary

_LAST_CODE_POINT = 0x10FFFF


class ByteTokenizer(PieceTokenizer):
    """Ids 0 to 255 are the bytes of the text in UTF-8. Nothing to train, nothing unknown."""

    def _encode_stretch(self, text: str) -> list[int]:
        return list(text.encode())


class CharTokenizer(PieceTokenizer):
    """One id per character: ASCII has its byte, other known characters their own id."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        self._id_of = np.full(_LAST_CODE_POINT + 1, -1, dtype=np.int32)
        self._id_of[:128] = np.arange(128)
        for piece, id in vocabulary.ids.items():
            if id >= NUM_BYTES:
                self._id_of[ord(piece.decode())] = id

    def _encode_stretch(self, text: str) -> list[int]:
        code_points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        ids = self._id_of[code_points]
        if (ids >= 0).all():
            return ids.tolist()
        spelled = ([id] if id >= 0 else text[i].encode() for i, id in enumerate(ids.tolist()))
        return [id for group in spelled for id in group]


class WordTokenizer(PieceTokenizer):
    """One id per frequent word (a leading space belongs to it); other words in bytes.

    The words are cut and looked up by the `tokenizers` library, which reads this kind as a
    byte-pair vocabulary without merges.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        from groundup.text.store import plain_tokenizer

        self._tokenizer = plain_tokenizer(vocabulary)

    def _encode_stretch(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids
