"""SentencePiece vocabularies in a GGUF file: pieces with a score each ↔ a tokenizer.json.

llama.cpp joins the two neighbours whose union is the piece of the highest score; a tokenizer.json
lists every union there is, the highest score first. Each can be had from the other, where the file
lists them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from groundup.config import UserError, require
from groundup.text.library import SPACE, LibraryTokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
LONGEST = 1024
"""Characters of a piece; the time to find all its parts grows with the square."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def to_metadata(tokenizer: LibraryTokenizer, vocab_size: int) -> dict[str, Any]:
    """Keys of a GGUF file -> values. Raises UserError for a tokenizer llama.cpp would not match."""
    data = tokenizer.data
    model, vocab = data["model"], data["model"]["vocab"]
    unknown = vocab.get(model.get("unk_token"))
    if tokenizer.kind != "sentencepiece" or unknown is None or not model["byte_fallback"]:
        raise UserError(
            f"A {tokenizer.kind} tokenizer like this one cannot be written as GGUF; merges with "
            "bytes to fall back on can."
        )
    added = {token["id"]: token for token in data.get("added_tokens") or []}
    ranks: dict[str, int] = {}
    merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    for rank, (first, second) in enumerate(merges):
        ranks.setdefault(first + second, rank)
    texts = {id: piece for piece, id in vocab.items()} | {i: t["content"] for i, t in added.items()}
    kinds = [_kind(id, texts, added, unknown) for id in range(vocab_size)]
    listed, normal = set(merges), (texts[id] for id, kind in enumerate(kinds) if kind == NORMAL)
    missing = next(
        (pair for piece in normal for pair in _splits(piece, vocab) if pair not in listed), None
    )
    require(
        missing is None,
        f"llama.cpp would join {missing}, which this tokenizer's merges do not: it was not made by "
        "SentencePiece.",
    )
    lowest = float(-len(merges) - 1)
    scores = [-float(ranks.get(texts.get(id, ""), -lowest)) for id in range(vocab_size)]
    return {
        "model": "llama",
        "pre": "default",
        "tokens": [texts.get(id, f"[PAD{id}]") for id in range(vocab_size)],
        "token_type": kinds,
        "scores": [
            0.0 if kind in (CONTROL, UNKNOWN, BYTE) else score
            for kind, score in zip(kinds, scores, strict=True)
        ],
        "add_space_prefix": _puts_space_first(data),
        "unknown": unknown,
    }


def to_json(
    tokens: Sequence[str], kinds: Sequence[int], scores: Sequence[float], space_first: bool
) -> dict[str, Any]:
    """The content of a tokenizer.json with the ids of these pieces."""
    vocab = {
        token: id for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind != UNUSED
    }  # fmt: skip
    unknown = next(
        (token for token, kind in zip(tokens, kinds, strict=True) if kind == UNKNOWN), ""
    )
    if not unknown:
        raise UserError("tokenizer.ggml.token_type names no token for what is unknown.")
    longest = max(map(len, tokens))
    require(longest <= LONGEST, f"tokenizer.ggml.tokens holds a piece of {longest:,} characters.")
    joined = [
        (-scores[id], id, len(pair[0]), pair)
        for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (NORMAL, USER_DEFINED)  # runs of spaces, in Gemma's, are found by joining too
        for pair in _splits(token, vocab)
    ]
    off = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    ]
    read = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if space_first:
        steps.insert(0, {"type": "Prepend", "prepend": SPACE})
        read.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": id, "content": token, **off, "special": kind != USER_DEFINED}
            for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind in (UNKNOWN, CONTROL, USER_DEFINED)
        ],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": read},
        "model": {
            "type": "BPE",
            "unk_token": unknown,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": [list(pair) for *_, pair in sorted(joined)],
        },
    }


def _kind(
    id: int, texts: Mapping[int, str], added: Mapping[int, Mapping[str, Any]], unknown: int
) -> int:
    """What llama.cpp is to take a token for."""
    if id == unknown:
        return UNKNOWN
    if id in added:
        return CONTROL if added[id].get("special") else USER_DEFINED
    if id not in texts:
        return UNUSED
    return BYTE if _BYTE.fullmatch(texts[id]) else NORMAL


def _splits(piece: str, vocab: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """The ways to make a piece of two that are in the vocabulary."""
    for at in range(1, len(piece)):
        if piece[:at] in vocab and piece[at:] in vocab:
            yield piece[:at], piece[at:]


def _puts_space_first(data: Mapping[str, Any]) -> bool:
    normalizer, cut = data.get("normalizer") or {}, data.get("pre_tokenizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    metaspace = cut.get("type") == "Metaspace" and cut.get("prepend_scheme") != "never"
    return metaspace or any(step.get("type") == "Prepend" for step in steps)
