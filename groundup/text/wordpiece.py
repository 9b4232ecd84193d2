"""WordPiece, the tokenizer of BERT: words cut into the longest pieces the vocabulary holds.

Read from the files of others and never trained here: it lowers case and drops accents and spaces,
so that a text cannot be had back from its ids. Encoders do not need it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from groundup.config import UserError, require
from groundup.text.library import LibraryTokenizer
from groundup.text.store import TOKENIZER_FILE, Chosen

VOCABULARY_FILE = "vocab.txt"
_CONTINUES = "##"  # how a piece is written that does not begin its word
ROLES = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


class WordPieceTokenizer(LibraryTokenizer):
    """Greedy longest match from the left; a word that cannot be spelled is [UNK].

    Schuster & Nakajima 2012; Devlin et al. 2018, arXiv:1810.04805. It fills the `Tokenizer`
    protocol, but for a decoding that is not the text itself.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        text: str = "",
        config: Mapping[str, Any] | None = None,
        chosen: Chosen | None = None,
    ) -> None:
        named = {"tokenizer_class": "PreTrainedTokenizerFast", **ROLES}
        super().__init__(data, text, config or named, chosen)
        missing = [name for name in ROLES.values() if name not in self.special]
        require(not missing, f"{TOKENIZER_FILE} has no special token {', '.join(missing)}.")

    def chat_format(self) -> NoReturn:
        """Raises UserError: encoders are not talked to."""
        raise UserError("A WordPiece tokenizer belongs to an encoder, which has no chat format.")

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
        self._looked_up(self._pieces, ids)
        text = self._tokenizer.decode(ids, skip_special_tokens=not special)
        for name, id in self._own.items():
            text = text.replace(self._secret[id], name)
        return text

    def _piece_reader(self) -> Callable[[str], bytes]:
        return lambda piece: piece.removeprefix(_CONTINUES).encode()


def is_wordpiece(data: Mapping[str, Any]) -> bool:
    """Whether the content of a tokenizer.json is of this sort."""
    model = data.get("model")
    return isinstance(model, dict) and model.get("type") == "WordPiece"


def from_vocabulary_file(path: Path, config: Mapping[str, Any]) -> WordPieceTokenizer:
    """BERT's own file, a piece in each line, with the settings of its tokenizer_config.json.

    Raises UserError when pieces occur twice or a special token is missing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}).") from None
    pieces = {line.rstrip("\r"): id for id, line in enumerate(lines)}
    require(len(pieces) == len(lines), f"{path} holds a piece twice.")
    off = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": pieces[name], "content": name, **off, "special": True}
        for name in sorted(ROLES.values(), key=lambda name: pieces.get(name, 0))
        if name in pieces
    ]
    lower = bool(config.get("do_lower_case", True))
    return WordPieceTokenizer(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": bool(config.get("tokenize_chinese_chars", True)),
                "strip_accents": config.get("strip_accents"),
                "lowercase": lower,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": None,
            "decoder": {"type": "WordPiece", "prefix": _CONTINUES, "cleanup": True},
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": _CONTINUES,
                "max_input_chars_per_word": 100,
                "vocab": pieces,
            },
        },
        config=dict(config),
    )
