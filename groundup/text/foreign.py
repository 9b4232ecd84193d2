"""The tokenizers of other people's models made ready: where documents begin, how chats are written.

Both stand in their tokenizer_config.json in ways that need interpreting: names of tokens, and a
chat template, which is a program. What was found out is kept with the tokenizer when it is saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.config import UserError, from_dict
from groundup.files import read_json
from groundup.text.base import PieceTokenizer
from groundup.text.chat_template import derive_format, read_template
from groundup.text.config import SPECIAL_TOKENS
from groundup.text.library import LibraryTokenizer, is_for_library
from groundup.text.store import CONFIG_FILE, OURS_KEY, TOKENIZER_FILE, Chosen, token_name
from groundup.text.tokenizer import Tokenizer, load_tokenizer
from groundup.text.wordpiece import (
    VOCABULARY_FILE,
    WordPieceTokenizer,
    from_vocabulary_file,
    is_wordpiece,
)


def read_tokenizer(folder: Path) -> tuple[Tokenizer, list[str]]:
    """The tokenizer of a model folder, ours or another's, and what could not be had of it."""
    tokenizer, beside = load_tokenizer(folder), folder / CONFIG_FILE
    config = read_json(beside) if beside.exists() else {}
    if OURS_KEY in config:  # found out before, when the model was pulled
        return tokenizer, []
    return adapt_tokenizer(tokenizer, config, read_template(folder, config))


def adapt_tokenizer(
    tokenizer: Tokenizer, config: Mapping[str, Any], template: str
) -> tuple[Tokenizer, list[str]]:
    """A foreign tokenizer with its chat format and the token its documents begin with.

    `config` is its tokenizer_config.json. Also returns what could not be had, in sentences.
    """
    special = tokenizer.special
    adaptable = isinstance(tokenizer, PieceTokenizer | LibraryTokenizer)
    if not adaptable or tokenizer.kind == "wordpiece" or set(SPECIAL_TOKENS) <= special.keys():
        return tokenizer, []
    notes, chat = [], None
    # `<|bos|>` may be there as an alias that the config gave; what counts is decided here.
    own = {name: id for name, id in special.items() if name not in ("<|bos|>", "<|end|>")}
    begin, end = (token_name(config, key) for key in ("bos_token", "eos_token"))
    if template:
        variables = {"bos_token": begin, "eos_token": end}
        try:
            chat = derive_format(template, own, variables)
        except UserError as error:
            notes.append(f"It can continue text but not chat: {error}")
    else:
        notes.append("It has no chat template: it can continue text but not chat.")
    # In some models the turns of a chat begin with what is called the beginning of a text.
    marks = "".join(turn.before + turn.after for turn in chat.turns) if chat is not None else ""
    candidates = [one for one in (begin, "<|endoftext|>", "</s>", end) if one in own]
    starts = [one for one in candidates if one not in marks] or candidates or [""]
    return tokenizer.with_chat(chat, starts[0]), notes


def read_foreign(folder: Path) -> Tokenizer | None:
    """The tokenizer in `folder` where the library computes it; None where we do.

    "<|bos|>" also names the beginning token of tokenizer_config.json, or whatever was found out.
    """
    path, beside = folder / TOKENIZER_FILE, folder / CONFIG_FILE
    config = read_json(beside) if beside.exists() else {}
    if not path.exists():
        lines = folder / VOCABULARY_FILE
        return from_vocabulary_file(lines, config) if lines.exists() else None
    data = read_json(path)
    try:
        if is_wordpiece(data):
            return WordPieceTokenizer(data, path.read_text(encoding="utf-8"), config)
        if not is_for_library(data):
            return None
        found = config.pop(OURS_KEY, None)
        chosen = from_dict(Chosen, found, f"{CONFIG_FILE}: {OURS_KEY}") if found else None
        tokenizer = LibraryTokenizer(data, path.read_text(encoding="utf-8"), config, chosen)
        begin = token_name(config, "bos_token")
        known = begin in tokenizer.special and chosen is None
        return tokenizer.with_chat(None, begin) if known else tokenizer
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is not a valid tokenizer file ({error!r}).") from None
