"""Tokenizers of other people's models that our own code does not compute: `tokenizers` does.

That is Unigram (T5) and byte-pair encoding on characters with bytes to fall back on (Llama 2,
Mistral, Gemma), both from SentencePiece (Kudo & Richardson 2018, arXiv:1808.06226), and WordPiece
(`groundup.text.wordpiece`). Ids are those of the library; the file is kept byte for byte.

Inside the library every special token goes by a secret name, drawn anew in each process, which no
text can hold. So text never becomes a special token, whatever the model of the file would make of
it, and a conversation can still be encoded in one piece, as these models expect it: there the ids
of a word depend on what stands before it.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from groundup.config import UserError, require, to_dict
from groundup.files import atomic_write
from groundup.text.chat_format import ChatFormat, aliases, no_chat
from groundup.text.split import well_formed
from groundup.text.store import CONFIG_FILE, OURS_KEY, TOKENIZER_FILE, Chosen

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPACE = "▁"
"""How SentencePiece writes a space."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_KINDS = {"BPE": "sentencepiece", "Unigram": "unigram", "WordPiece": "wordpiece"}


class LibraryTokenizer:
    """A tokenizer.json as the library reads it, behind our protocol.

    Decoding an encoded text gives the text back where the file does not change the text itself
    (T5's puts it into a normal form, for one).
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        text: str = "",
        config: Mapping[str, Any] | None = None,
        chosen: Chosen | None = None,
    ) -> None:
        """`data` is the content of tokenizer.json and `text` the file, letter by letter; `config`
        that of tokenizer_config.json, and `chosen` what has been found out about it.

        Raises UserError for a file that the library or we cannot read.
        """
        self.data, self.text, self.config = data, text, dict(config or {})
        self.kind = _KINDS.get(str(data["model"].get("type", "BPE")), "")
        added = [token for token in data.get("added_tokens") or [] if token.get("special")]
        self._own = {str(token["content"]): int(token["id"]) for token in added}
        self._secret = {id: f"\ue000{secrets.token_hex(16)}" for id in self._own.values()}
        self._tokenizer = _load(_renamed(data, {n: self._secret[i] for n, i in self._own.items()}))
        for name, id in self._own.items():
            found = self._tokenizer.token_to_id(self._secret[id])
            require(found == id, f"{TOKENIZER_FILE} gives {name!r} the id {id}, but it is {found}.")
        self._vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self._pieces = self._read_pieces()
        names = {id: name.encode() for name, id in self._own.items()}
        self._shown = tuple(names.get(id, piece) for id, piece in enumerate(self._pieces))
        self._adopt(chosen or Chosen(document_start=""))

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return max(self._vocabulary.values()) + 1

    @property
    def fingerprint(self) -> str:
        """sha256 of the content of tokenizer.json, however it is laid out."""
        # Both act on what callers get back; they ask for that themselves.
        data = {**self.data, "truncation": None, "padding": None}
        canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def chat_format(self) -> ChatFormat:
        """How conversations are written for its model. Raises UserError when they cannot."""
        return self._chosen.chat or no_chat(self.special)

    def with_chat(self, chat: ChatFormat | None, document_start: str) -> Self:
        """The same tokenizer with another chat format, and token that documents begin with."""
        other = object.__new__(type(self))  # a copy would have the library read the file again
        other.__dict__ |= self.__dict__
        other._adopt(Chosen(document_start=document_start, chat=chat))
        return other

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without the special tokens that some put around it."""
        return self._tokenizer.encode(well_formed(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str], workers: int = 1) -> list[np.ndarray]:
        """Ids of each text as uint32, in order. The library spreads the work over its threads."""
        texts = [well_formed(text) for text in texts]
        found = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in found]

    def encode_parts(self, parts: Sequence[int | str]) -> list[list[int]]:
        """Ids of special tokens, and texts between them -> the ids of each, encoded in one piece.

        A token that reaches from one text into the next belongs to the later one.
        """
        texts = [self._secret[p] if isinstance(p, int) else well_formed(p) for p in parts]
        encoding = self._tokenizer.encode("".join(texts), add_special_tokens=False)
        ends = list(accumulate(map(len, texts)))
        found: list[list[int]] = [[] for _ in parts]
        for id, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True):
            found[bisect_left(ends, max(stop, start + 1))].append(id)
        return found

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the pieces; special tokens stand for none.

        Where a text is encoded as if a space stood before it, that space is among them.
        """
        return b"".join(self._looked_up(self._pieces, ids))

    def decode(self, ids: Iterable[int], special: bool = False) -> str:
        """Text of the ids. Bytes that are not UTF-8 become U+FFFD; `special` shows "<s>"."""
        pieces = self._looked_up(self._shown if special else self._pieces, ids)
        text = b"".join(pieces).decode("utf-8", "replace")
        return text.removeprefix(" ") if self._space_first else text

    def token_bytes(self) -> np.ndarray:
        """(V,) int64: the number of UTF-8 bytes each id stands for, 0 for special tokens."""
        return np.array([len(piece) for piece in self._pieces], dtype=np.int64)

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, each whole or not at all."""
        config = self.config or {"tokenizer_class": "PreTrainedTokenizerFast"}
        if self._chosen.chat is not None and self._chosen.chat.template:
            config = config | {"chat_template": self._chosen.chat.template}
        if self._chosen.document_start or self._chosen.chat is not None:
            config = config | {OURS_KEY: to_dict(self._chosen)}
        with atomic_write(Path(folder) / TOKENIZER_FILE, "w") as file:
            file.write(self.text or json.dumps(self.data, ensure_ascii=False, indent=1))
        with atomic_write(Path(folder) / CONFIG_FILE, "w") as file:
            json.dump(config, file, ensure_ascii=False, indent=2)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self), (self.data, self.text, self.config, self._chosen)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.vocab_size} ids, {self.fingerprint[:12]})"

    def _adopt(self, chosen: Chosen) -> None:
        self._chosen = chosen
        self.special: Mapping[str, int] = aliases(self._own, chosen.chat, chosen.document_start)

    def _read_pieces(self) -> tuple[bytes, ...]:
        """What each id stands for; special tokens for nothing."""
        to_bytes = self._piece_reader()
        pieces = [b""] * self.vocab_size
        for piece, id in self._vocabulary.items():
            pieces[id] = b"" if id in self._secret else to_bytes(piece)
        return tuple(pieces)

    def _piece_reader(self) -> Callable[[str], bytes]:
        """How a piece of the vocabulary is read: the file's decoder, token by token."""
        steps = _flat(self.data.get("decoder"), "decoders")
        kinds = {step["type"]: step for step in steps}
        unknown = kinds.keys() - {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
        spaces = "Metaspace" in kinds or "Replace" in kinds
        if unknown or not spaces:
            named = ", ".join(sorted(unknown)) or "nothing"
            raise UserError(f"{TOKENIZER_FILE} decodes by {named}, which is not supported.")
        scheme = kinds.get("Metaspace", {}).get("prepend_scheme", "always")
        self._space_first = "Strip" in kinds or ("Metaspace" in kinds and scheme != "never")
        falls_back = "ByteFallback" in kinds

        def to_bytes(piece: str) -> bytes:
            byte = _BYTE.fullmatch(piece) if falls_back else None
            return bytes([int(byte[1], 16)]) if byte else piece.replace(SPACE, " ").encode()

        return to_bytes

    def _looked_up(self, pieces: Sequence[bytes], ids: Iterable[int]) -> list[bytes]:
        ids = list(ids)
        if ids and not 0 <= min(ids) <= max(ids) < len(pieces):
            wrong = next(id for id in ids if not 0 <= id < len(pieces))
            raise UserError(f"Id {wrong} is outside this tokenizer's {len(pieces)} ids.")
        return [pieces[id] for id in ids]


def is_for_library(data: Mapping[str, Any]) -> bool:
    """Whether the content of a tokenizer.json is of a sort that only the library computes."""
    model = data.get("model")
    if not isinstance(model, dict):
        return False
    steps = _flat(data.get("decoder"), "decoders")
    kinds = {step.get("type") for step in steps if isinstance(step, dict)}
    return model.get("type") == "Unigram" or (
        model.get("type", "BPE") == "BPE"
        and bool(model.get("byte_fallback") or kinds & {"ByteFallback", "Metaspace"})
    )


def _renamed(data: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The content of a tokenizer.json with other names for some tokens, and nothing that acts
    around the encoding of a text."""

    def new(name: str) -> str:
        return names.get(name, name)

    model = dict(data["model"])
    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        model["vocab"] = {new(piece): id for piece, id in vocab.items()}
    elif isinstance(vocab, list):
        model["vocab"] = [[new(str(piece)), score] for piece, score in vocab]
    if model.get("unk_token"):
        model["unk_token"] = new(str(model["unk_token"]))
    added = [
        {**token, "content": new(token["content"])} for token in data.get("added_tokens") or []
    ]
    around = dict.fromkeys(("truncation", "padding", "post_processor"))
    return {**data, **around, "model": model, "added_tokens": added}


def _load(data: Mapping[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(json.dumps(data))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"{TOKENIZER_FILE} is not a valid tokenizer file ({error}).") from None


def _flat(step: Any, key: str) -> list[dict[str, Any]]:
    """The steps of a sequence, or the one step there is."""
    if not isinstance(step, dict):
        return []
    return list(step[key]) if isinstance(step.get(key), list) else [step]
