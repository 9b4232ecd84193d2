"""Examples as rows of ids, in the form each family reads.

| family             | source                      | target                                        |
|--------------------|-----------------------------|-----------------------------------------------|
| decoder, recurrent | <bos><user>…<end>           | <assistant>…<end>: a chat, answered           |
| encoder            | <user>…<end>                | a class, or one for the first token of a word |
| encoder-decoder    | <user>…<end>                | …<end>, after <bos>                           |
| vlm                | <bos><user><image>…<end>    | <assistant>…<end>                             |

`<bos>` is also what pads the rows of encoders and encoder-decoders, and stands nowhere else in what
they read; see `groundup.text.framing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from groundup.data.batch import IGNORE
from groundup.data.examples import Example
from groundup.data.ragged import Row
from groundup.text.base import PieceTokenizer
from groundup.text.chat import Message, render
from groundup.text.framing import frame, frame_words, room
from groundup.text.tokenizer import Tokenizer, from_vocabulary

IMAGE, MASK = "<|image|>", "<|mask|>"
SENTINELS = tuple(f"<|span_{number}|>" for number in range(32))


def with_special(tokenizer: Tokenizer, names: Sequence[str]) -> Tokenizer:
    """The tokenizer with more special tokens after its last id."""
    assert isinstance(tokenizer, PieceTokenizer)
    vocabulary = tokenizer.vocabulary
    added = {name: len(vocabulary) + i for i, name in enumerate(names)}
    pieces = vocabulary.pieces + (b"",) * len(names)
    return from_vocabulary(
        replace(vocabulary, pieces=pieces, special={**vocabulary.special, **added})
    )


def cut(tokenizer: Tokenizer, text: str, most: int) -> str:
    """The text's first `most` tokens."""
    ids = tokenizer.encode(text)
    return text if len(ids) <= most else tokenizer.decode(ids[:most])


def question(tokenizer: Tokenizer, source: str) -> list[int]:
    """A chat up to where the answer begins."""
    return render(tokenizer, [Message(role="user", content=source)], reply=True).ids


def conversation(tokenizer: Tokenizer, source: str, target: str) -> Row:
    """A chat of which the answer is to be predicted."""
    turns = [Message(role="user", content=source), Message(role="assistant", content=target)]
    rendered = render(tokenizer, turns)
    ids = np.array(rendered.ids)
    return ids[:-1], np.where(np.array(rendered.mask[1:]), ids[1:], IGNORE)


def reading(tokenizer: Tokenizer, source: str, most: int) -> np.ndarray:
    """What encoders and encoder-decoders read of a text: its beginning, between two marks."""
    return np.array(frame(tokenizer, tokenizer.encode(source)[: room(tokenizer, most)]))


def word_starts(tokenizer: Tokenizer, source: str, most: int) -> tuple[np.ndarray, list[int]]:
    """What an encoder reads of words, and where each begins; those beyond `most` are left out."""
    ids, starts = frame_words(tokenizer, source.split())
    return np.array(ids[:most]), [start for start in starts if start < most]


def tagging(tokenizer: Tokenizer, example: Example, tags: dict[str, int], most: int) -> Row:
    """Words, each of whose first tokens has a tag."""
    ids, starts = word_starts(tokenizer, example.source, most)
    targets = np.full(len(ids), IGNORE)
    for start, tag in zip(starts, example.target.split(), strict=False):
        targets[start] = tags[tag]
    return ids, targets


def closed(tokenizer: Tokenizer, text: str, most: int) -> np.ndarray:
    """What is written: a text, cut where it is too long, and its end."""
    return np.array([*tokenizer.encode(text)[: most - 1], tokenizer.special["<|end|>"]])


def picture(tokenizer: Tokenizer, places: int) -> list[int]:
    """A chat that shows an image, up to where the answer begins."""
    special = tokenizer.special
    before = [special["<|bos|>"], special["<|user|>"]]
    return [*before, *[special[IMAGE]] * places, special["<|end|>"], special["<|assistant|>"]]


def captioning(tokenizer: Tokenizer, places: int, target: str, most: int) -> Row:
    """An image and the text about it, which is to be predicted."""
    prompt = picture(tokenizer, places)
    ids = np.array([*prompt, *closed(tokenizer, target, most)])
    return ids[:-1], np.where(np.arange(1, len(ids)) < len(prompt), IGNORE, ids[1:])


def texts(examples: Sequence[Example]) -> Iterator[str]:
    """All that a tokenizer should know how to spell."""
    for example in examples:
        if example.source:
            yield example.source
        if example.target:
            yield example.target
