"""The tokenizers of other people's models made ready: where documents begin, how chats are written.

Both stand in their tokenizer_config.json in ways that need interpreting: names of tokens, and a
chat template, which is a program. What was found out is kept with the tokenizer when it is saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.config import UserError
from groundup.files import read_json
from groundup.text.base import PieceTokenizer
from groundup.text.chat_format import with_chat
from groundup.text.chat_template import derive_format, read_template
from groundup.text.config import SPECIAL_TOKENS
from groundup.text.store import CONFIG_FILE, OURS_KEY, token_name
from groundup.text.tokenizer import Tokenizer, from_vocabulary, load_tokenizer


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
    if not isinstance(tokenizer, PieceTokenizer) or set(SPECIAL_TOKENS) <= special.keys():
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
    bare = replace(tokenizer.vocabulary, special=own)
    return from_vocabulary(with_chat(bare, chat, starts[0])), notes
