"""WordPiece, the tokenizer of BERT: words cut into the longest pieces the vocabulary holds.

Read from the tokenizer.json of others and never trained here: it lowers case and drops accents and
spaces, so that a text cannot be had back from its ids. Encoders do not need it back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from groundup.config import UserError, require
from groundup.files import atomic_write, read_json
from groundup.text.split import well_formed

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
_CONTINUES = "##"  # how a piece is written that does not begin its word
ROLES = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


class WordPieceTokenizer:
    """Greedy longest match from the left; a word that cannot be spelled is [UNK].

    Schuster & Nakajima 2012; Devlin et al. 2018, arXiv:1810.04805. `tokenizers` does the work. It
    fills the `Tokenizer` protocol, but for a decoding that is not the text itself.
    """

    kind = "wordpiece"

    def __init__(self, data: Mapping[str, Any]) -> None:
        """`data` is the content of a tokenizer.json."""
        from tokenizers import Tokenizer

        # Both act on what callers get back; they ask for that themselves.
        self.data = {**data, "truncation": None, "padding": None}
        try:
            self._tokenizer = Tokenizer.from_str(json.dumps(self.data))
        except Exception as error:  # the library raises nothing narrower
            raise UserError(f"{TOKENIZER_FILE} is not a valid tokenizer file ({error}).") from None
        self._tokenizer.encode_special_tokens = True  # text can never become a special token
        added = self.data.get("added_tokens") or []
        self.special: Mapping[str, int] = {token["content"]: int(token["id"]) for token in added}
        missing = [name for name in ROLES.values() if name not in self.special]
        require(not missing, f"{TOKENIZER_FILE} has no special token {', '.join(missing)}.")

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def fingerprint(self) -> str:
        """sha256 of the content of tokenizer.json, however it is laid out."""
        canonical = json.dumps(self.data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def chat(self) -> NoReturn:
        """Raises UserError: encoders are not talked to."""
        raise UserError("A WordPiece tokenizer belongs to an encoder, which has no chat format.")

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without [CLS] and [SEP]; "[SEP]" in the text is five characters."""
        return self._tokenizer.encode(well_formed(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str], workers: int = 1) -> list[np.ndarray]:
        """Ids of each text as uint32, in order. The library spreads the work over its threads."""
        found = self._tokenizer.encode_batch(
            list(map(well_formed, texts)), add_special_tokens=False
        )
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in found]

    def frame(
        self, first: Sequence[int], second: Sequence[int] | None = None
    ) -> tuple[list[int], list[int]]:
        """Ids of one text or two -> the ids an encoder reads, and the type of each.

        [CLS] first [SEP] with type 0, then second [SEP] with type 1.
        """
        begin, between = self.special["[CLS]"], self.special["[SEP]"]
        ids, types = [begin, *first, between], [0] * (len(first) + 2)
        if second is not None:
            ids, types = [*ids, *second, between], [*types, *[1] * (len(second) + 1)]
        return ids, types

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """UTF-8 of `decode`; special tokens stand for nothing."""
        return self.decode(ids).encode()

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """The words of the ids, a space between them; `special` shows "[CLS]"."""
        ids = list(ids)
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            wrong = next(id for id in ids if not 0 <= id < self.vocab_size)
            raise UserError(f"Id {wrong} is outside this tokenizer's {self.vocab_size} ids.")
        return self._tokenizer.decode(ids, skip_special_tokens=not special)

    def token_bytes(self) -> np.ndarray:
        """(V,) int64: the number of UTF-8 bytes of each piece, 0 for special tokens."""
        sizes = np.zeros(self.vocab_size, dtype=np.int64)
        for piece, id in self._tokenizer.get_vocab(with_added_tokens=False).items():
            sizes[id] = len(piece.removeprefix(_CONTINUES).encode())
        sizes[list(self.special.values())] = 0
        return sizes

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, each whole or not at all."""
        config = {"tokenizer_class": "PreTrainedTokenizerFast", **ROLES}
        with atomic_write(Path(folder) / TOKENIZER_FILE, "w") as file:
            json.dump(self.data, file, ensure_ascii=False, indent=1)
        with atomic_write(Path(folder) / CONFIG_FILE, "w") as file:
            json.dump(config, file, ensure_ascii=False, indent=2)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self), (self.data,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.vocab_size} ids, {self.fingerprint[:12]})"


def read_wordpiece(folder: str | Path) -> WordPieceTokenizer | None:
    """The tokenizer in `folder`; None when its tokenizer.json is of another sort, or missing."""
    path = Path(folder) / TOKENIZER_FILE
    if not path.exists():
        return None
    data = read_json(path)
    model = data.get("model")
    if not isinstance(model, dict) or model.get("type") != "WordPiece":
        return None
    return WordPieceTokenizer(data)
