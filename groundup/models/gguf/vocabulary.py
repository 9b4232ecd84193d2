"""The tokenizer inside a GGUF file ↔ the content of tokenizer.json and tokenizer_config.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from groundup.config import UserError, did_you_mean, require
from groundup.models.gguf import sentencepiece
from groundup.models.gguf.sentencepiece import CONTROL, NORMAL, UNUSED, USER_DEFINED
from groundup.text.base import PieceTokenizer
from groundup.text.library import LibraryTokenizer
from groundup.text.split import PATTERNS
from groundup.text.store import SINGLE_DIGITS, to_json
from groundup.text.tokenizer import Tokenizer

# llama.cpp's names for ways to cut text. Llama 3's and Qwen2's are ours but for the spelling.
_PATTERNS = {
    "smollm": SINGLE_DIGITS,
    "gpt-2": PATTERNS["gpt2"],
    "llama-bpe": PATTERNS["gpt4"],
    "qwen2": PATTERNS["digits"],
}


def to_metadata(tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """Keys of a GGUF file -> values. Raises UserError for a tokenizer llama.cpp does not know."""
    if isinstance(tokenizer, LibraryTokenizer):
        return sentencepiece.to_metadata(tokenizer, vocab_size)
    pattern = tokenizer.vocabulary.pattern if isinstance(tokenizer, PieceTokenizer) else ""
    names = {pattern: name for name, pattern in _PATTERNS.items()}
    if not isinstance(tokenizer, PieceTokenizer) or tokenizer.kind != "bpe":
        raise UserError(f"A {tokenizer.kind} tokenizer cannot be written as GGUF; bpe can.")
    require(pattern in names, f"llama.cpp does not cut text by the pattern {pattern!r}.")
    data = to_json(tokenizer.vocabulary)
    texts = {id: text for text, id in data["model"]["vocab"].items()}
    special = {token["id"]: token["content"] for token in data["added_tokens"]}
    tokens = [special.get(id) or texts.get(id, f"[PAD{id}]") for id in range(vocab_size)]
    kinds = [
        CONTROL if id in special else NORMAL if id in texts else UNUSED for id in range(vocab_size)
    ]
    return {
        "model": "gpt2",
        "pre": names[pattern],
        "tokens": tokens,
        "token_type": kinds,
        "merges": [f"{first} {second}" for first, second in data["model"]["merges"]],
    }


def from_metadata(metadata: Mapping[str, Any], vocab_size: int) -> tuple[dict, dict]:
    """The content of tokenizer.json and tokenizer_config.json. Raises UserError naming the key."""
    prefix = "tokenizer.ggml"
    model = metadata.get(f"{prefix}.model")
    require(
        model in ("gpt2", "llama"),
        f"{prefix}.model = {model!r} is not supported (only 'gpt2', byte-level BPE, and 'llama', "
        "SentencePiece, are).",
    )
    tokens = _strings(metadata, f"{prefix}.tokens")
    kinds = metadata.get(f"{prefix}.token_type", [NORMAL] * len(tokens))
    require(
        isinstance(kinds, list) and len(tokens) == vocab_size == len(kinds),
        f"{prefix}.tokens has {len(tokens)} entries and token_type {len(kinds)}, but the "
        f"embedding has {vocab_size}.",
    )
    if model == "gpt2":
        tokenizer = _byte_level(metadata, tokens, kinds)
    else:
        scores = metadata.get(f"{prefix}.scores")
        if not isinstance(scores, list) or len(scores) != len(tokens):
            raise UserError(f"{prefix}.scores should be {len(tokens)} numbers.")
        space_first = metadata.get(f"{prefix}.add_space_prefix", True) is True
        tokenizer = sentencepiece.to_json(tokens, kinds, scores, space_first)
    return tokenizer, _tokenizer_config(metadata, tokens)


def _byte_level(
    metadata: Mapping[str, Any], tokens: Sequence[str], kinds: Sequence[int]
) -> dict[str, Any]:
    pre = metadata.get("tokenizer.ggml.pre", "gpt-2")
    if pre not in _PATTERNS:
        hint = did_you_mean(str(pre), _PATTERNS)
        raise UserError(f"tokenizer.ggml.pre = {pre!r} is not supported.{hint}")
    added = [
        {"id": id, "content": token, "special": True}
        for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]
    split = {
        "type": "Split",
        "pattern": {"Regex": _PATTERNS[pre]},
        "behavior": "Isolated",
        "invert": False,
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    vocab = {
        token: id
        for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind != UNUSED
    }
    return {
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": _strings(metadata, "tokenizer.ggml.merges"),
        },
    }


def _tokenizer_config(metadata: Mapping[str, Any], tokens: Sequence[str]) -> dict[str, Any]:
    config: dict[str, Any] = {"chat_template": metadata.get("tokenizer.chat_template", "")}
    for key, name in (("bos_token_id", "bos_token"), ("eos_token_id", "eos_token")):
        id = metadata.get(f"tokenizer.ggml.{key}")
        if id is not None:
            require(
                isinstance(id, int) and 0 <= id < len(tokens),
                f"tokenizer.ggml.{key} is {id!r}, no id.",
            )
            config[name] = tokens[id]
    return config


def _strings(metadata: Mapping[str, Any], key: str) -> list[str]:
    value = metadata.get(key)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise UserError(f"{key} should be a list of strings, but is {str(value)[:40]!r}.")
    return value
