"""tokenizer.json and tokenizer_config.json: the files other tools read our tokenizers from.

Every kind is written as the byte-level BPE of the `tokenizers` library, which then gives our ids
(kind, how words are cut, how pieces are found):

    bpe    the pattern          merges
    word   the pattern          the whole word or its bytes (`ignore_merges`, and no merges)
    char   each character       as for words
    byte   not at all           bytes alone

Two things differ there by the nature of the format: the text "<|bos|>" becomes the special token
(unless `encode_special_tokens` is set), and lone surrogates are refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.config import UserError, from_dict, to_dict
from groundup.files import atomic_write, read_json
from groundup.text.chat_format import ChatFormat, with_chat
from groundup.text.config import SPECIAL_TOKENS
from groundup.text.split import EACH_CHARACTER, PATTERNS
from groundup.text.vocabulary import Kind, Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
OURS_KEY = "groundup"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What we have found out about somebody else's tokenizer, in its tokenizer_config.json."""

    document_start: str
    """The special token that documents begin with; "" for none."""
    chat: ChatFormat | None = None


def write_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Write both files into `folder`, each whole or not at all."""
    with atomic_write(folder / TOKENIZER_FILE, "w") as file:
        json.dump(to_json(vocabulary), file, ensure_ascii=False, indent=1)
    with atomic_write(folder / CONFIG_FILE, "w") as file:
        json.dump(_tokenizer_config(vocabulary), file, ensure_ascii=False, indent=2)


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read a byte-level tokenizer.json, ours or another's; UserError where its ids would differ.

    From a foreign file the special tokens keep their names; "<|bos|>" also names the beginning or
    end token of tokenizer_config.json, so that documents can be told apart.
    """
    path = folder / TOKENIZER_FILE
    if not path.exists():
        raise UserError(f"{folder} holds no tokenizer: {path} does not exist.")
    data = read_json(path)
    try:
        vocabulary = _from_json(data, path)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{path} is not a valid tokenizer file ({error!r}).") from None
    if "<|bos|>" in vocabulary.special or not (folder / CONFIG_FILE).exists():
        return vocabulary
    config = read_json(folder / CONFIG_FILE)
    if OURS_KEY in config:
        chosen = from_dict(Chosen, config[OURS_KEY], f"{folder / CONFIG_FILE}: {OURS_KEY}")
        return with_chat(vocabulary, chosen.chat, chosen.document_start)
    begin, end = (token_name(config, key) for key in ("bos_token", "eos_token"))
    known = [name for name in (begin, end) if name in vocabulary.special]
    return with_chat(vocabulary, None, known[0] if known else "")


def token_name(config: Mapping[str, Any], key: str) -> str:
    """The name of a token in a tokenizer_config.json, which may say more of it; "" for none."""
    token = config.get(key)
    name = token.get("content") if isinstance(token, dict) else token
    return name if isinstance(name, str) else ""


def plain_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """The `tokenizers` object of a vocabulary, without its special tokens."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps({**to_json(vocabulary), "added_tokens": []}))


def to_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """The content of tokenizer.json."""
    steps: list[dict[str, Any]] = [_byte_level(use_regex=False)]
    if vocabulary.pattern:
        regex = {"Regex": vocabulary.pattern}
        split = {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False}
        steps.insert(0, split)
    form = vocabulary.normal_form
    names = _own_names(vocabulary)
    vocab = {_visible(piece): id for piece, id in vocabulary.ids.items()}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(name, id) for id, name in sorted(names.items())],
        "normalizer": {"type": form} if form else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None,
        "decoder": _byte_level(use_regex=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": vocabulary.kind in ("char", "word"),
            # `tokenizers` renumbers a special token that the vocabulary does not list as well
            "vocab": vocab | {name: id for id, name in names.items()},
            "merges": _merges(vocabulary.ids) if vocabulary.kind == "bpe" else [],
        },
    }


def _from_json(data: Mapping[str, Any], path: Path) -> Vocabulary:
    model = data["model"]
    if model.get("type", "BPE") != "BPE" or model.get("byte_fallback"):
        raise UserError(f"{path} is a {model.get('type')} tokenizer; only byte-level BPE is read.")
    special = {token["content"]: int(token["id"]) for token in data.get("added_tokens") or []}
    try:
        ids = {
            from_visible(text): int(id)
            for text, id in model["vocab"].items()
            if text not in special
        }
    except ValueError as error:
        raise UserError(f"{path} is not byte-level: {error}.") from None
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    pattern = _pattern(data.get("pre_tokenizer"), path)
    kind = _kind(pattern, bool(merges), bool(model.get("ignore_merges")))
    _check_bytes(ids, path)
    if kind == "bpe":
        _check_merges(ids, merges, path)
    pieces = [b""] * (1 + max([*ids.values(), *special.values()]))
    for piece, id in ids.items():
        pieces[id] = piece
    return Vocabulary(kind, pattern, tuple(pieces), special, _normal_form(data, path))


def _tokenizer_config(vocabulary: Vocabulary) -> dict[str, Any]:
    from groundup.text.chat import CHAT_TEMPLATE

    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    names, special, chat = _own_names(vocabulary), vocabulary.special, vocabulary.chat
    if "<|bos|>" in special:
        config["bos_token"] = names[special["<|bos|>"]]
    if "<|end|>" in special:
        config["eos_token"] = names[special["<|end|>"]]
    if set(SPECIAL_TOKENS) <= special.keys():
        return config | {"chat_template": CHAT_TEMPLATE}
    chosen = Chosen(document_start=config.get("bos_token", ""), chat=chat)
    template = {"chat_template": chat.template} if chat is not None else {}
    return config | template | {OURS_KEY: to_dict(chosen)}


def _own_names(vocabulary: Vocabulary) -> dict[int, str]:
    """Special tokens, each id once: where two names share an id the first is the file's own."""
    names: dict[int, str] = {}
    for name, id in vocabulary.special.items():
        names.setdefault(id, name)
    return names


def _added_token(name: str, id: int) -> dict[str, Any]:
    off = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": name, **off, "special": True}


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _merges(ids: Mapping[bytes, int]) -> list[list[str]]:
    """The two halves of every token, in merge order: the last merge of its own bytes."""
    longer = sorted((id, piece) for piece, id in ids.items() if len(piece) > 1)
    return [[_visible(half) for half in _halves(piece, ids)] for _, piece in longer]


def _halves(piece: bytes, ids: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    parts = [bytes([value]) for value in piece]
    while len(parts) > 2:
        unions = [ids.get(a + b, sys.maxsize) for a, b in pairwise(parts)]
        lowest = unions.index(min(unions))
        assert unions[lowest] < ids[piece], f"{piece!r} cannot be reached by merges"
        parts[lowest : lowest + 2] = [parts[lowest] + parts[lowest + 1]]
    return parts[0], parts[1]


def _pattern(steps: Mapping[str, Any] | None, path: Path) -> str:
    """The one regular expression that cuts text as the file's pre-tokenizer does."""
    flat = (steps or {}).get("pretokenizers", [steps] if steps else [])
    if flat and flat[-1]["type"] == "ByteLevel" and not flat[-1].get("add_prefix_space"):
        before, gpt2 = flat[:-1], flat[-1].get("use_regex", True)
        if not before:
            return PATTERNS["gpt2"] if gpt2 else ""
        first = before[0]
        if len(before) == 1 and not gpt2 and _cuts_at_regex(first):
            return first["pattern"]["Regex"]
        if len(before) == 1 and gpt2 and first == {"type": "Digits", "individual_digits": True}:
            return SINGLE_DIGITS
    raise UserError(f"{path} cuts text in a way that is not supported: {json.dumps(steps)[:200]}.")


# Digits are cut out first, so the space before one never joins it, nor stays behind for it.
SINGLE_DIGITS = (
    r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
)


def _cuts_at_regex(step: Mapping[str, Any]) -> bool:
    return (
        step["type"] == "Split"
        and "Regex" in step["pattern"]
        and step["behavior"] in ("Isolated", "Removed")
        and step.get("invert", False) == (step["behavior"] == "Removed")
    )


def _kind(pattern: str, has_merges: bool, whole_words: bool) -> Kind:
    if has_merges:
        return "bpe"
    if not whole_words:
        return "bpe" if pattern else "byte"
    return "char" if pattern == EACH_CHARACTER else "word"


def _normal_form(data: Mapping[str, Any], path: Path) -> Literal["", "NFC", "NFD", "NFKC", "NFKD"]:
    normalizer = data.get("normalizer")
    if not normalizer:
        return ""
    if normalizer.get("type") not in ("NFC", "NFD", "NFKC", "NFKD"):
        raise UserError(f"{path} changes text in a way that is not supported: {normalizer}.")
    return normalizer["type"]


def _check_bytes(ids: Mapping[bytes, int], path: Path) -> None:
    """Refuse a vocabulary without bytes that text is made of. Some lack a few that hardly occur:
    control characters, and bytes of no or of unassigned characters; these are left out of a text.
    """
    missing = [value for value in range(256) if bytes([value]) not in ids]
    rare = {*range(32), 0x7F, 0xC0, 0xC1, *range(0xF1, 256)} - set(b"\t\n\r")
    if not set(missing) <= rare:
        raise UserError(f"{path} has no token for {len(missing)} of the 256 bytes.")


def _check_merges(ids: Mapping[bytes, int], merges: Sequence[tuple[str, ...]], path: Path) -> None:
    """Refuse files whose merges are not simply "lowest id first", which is how we merge."""
    made = [from_visible(first + second) for first, second in merges]
    order = [ids[piece] for piece in made if piece in ids]
    reachable = set(made) | {piece for piece in ids if len(piece) == 1}
    if len(order) < len(made) or order != sorted(order) or not reachable >= ids.keys():
        raise UserError(f"{path} does not number its tokens in the order of its merges.")


def visible_alphabet() -> list[str]:
    """The characters that stand for bytes in the file, GPT-2's: first the bytes that are visible
    as they are, then the others, which borrow the characters from U+0100 on."""
    return [chr(character) for character in _TO_VISIBLE.values()]


def from_visible(text: str) -> bytes:
    """The bytes that a token of the file stands for. Raises ValueError when it stands for none."""
    if any(ord(character) not in _TO_BYTE for character in text):
        raise ValueError(f"{text!r} is not made of byte characters")
    return text.translate(_TO_BYTE).encode("latin-1")


def _visible(piece: bytes) -> str:
    return piece.decode("latin-1").translate(_TO_VISIBLE)


def _byte_characters() -> dict[int, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    return {value: value for value in printable} | {b: 256 + i for i, b in enumerate(others)}


_TO_VISIBLE = _byte_characters()
_TO_BYTE = {character: value for value, character in _TO_VISIBLE.items()}
