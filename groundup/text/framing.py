"""What an encoder reads of a text: its ids between two marks, rows padded with a third.

| tokenizer           | row                     | padding | words of a text, for tags             |
|---------------------|-------------------------|---------|---------------------------------------|
| BERT's              | [CLS] ids [SEP]         | [PAD]   | each encoded alone                    |
| ours                | <|user|> ids <|end|>    | <|bos|> | each with the space before it         |
| others, as T5's     | ids </s>                | <pad>   | the same                              |

Padding is an id that no row holds otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from groundup.config import UserError
from groundup.text.tokenizer import Tokenizer

_BEGIN = ("[CLS]", "<|user|>")
_END = ("[SEP]", "<|end|>", "</s>")
_PAD = ("[PAD]", "<|bos|>", "<pad>")


def frame(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """The ids of a text -> the row an encoder reads."""
    return [*_first(tokenizer, _BEGIN), *ids, *_first(tokenizer, _END)]


def frame_words(tokenizer: Tokenizer, words: Sequence[str]) -> tuple[list[int], list[int]]:
    """The words of a text -> the row an encoder reads, and where in it each word begins."""
    space = "" if tokenizer.kind == "wordpiece" else " "
    ids: list[int] = []
    starts = []
    before = len(_first(tokenizer, _BEGIN))
    for number, word in enumerate(words):
        starts.append(before + len(ids))
        ids += tokenizer.encode(space * (number > 0) + word)
    return frame(tokenizer, ids), starts


def room(tokenizer: Tokenizer, length: int) -> int:
    """How many ids of a text a row of `length` holds."""
    return length - len(frame(tokenizer, []))


def pad_id(tokenizer: Tokenizer) -> int:
    """What rows are padded with. Raises UserError for a tokenizer that has no such token."""
    for id in _first(tokenizer, _PAD):
        return id
    raise UserError(f"The tokenizer has no token to pad with: none of {', '.join(_PAD)}.")


def _first(tokenizer: Tokenizer, names: Sequence[str]) -> list[int]:
    """The id of the first of these special tokens that there is, or nothing."""
    return [tokenizer.special[name] for name in names if name in tokenizer.special][:1]
