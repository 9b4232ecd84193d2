"""Texts that differ in more than a name: of those made from one template, one is kept.

Package descriptions, mail and news repeat themselves: "the development files for libfoo" says
nothing new after the same of libbar. A model would be praised for remembering such a text, so what
is held out must not have a sibling to train on, and the surest way is to keep one of a family.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from groundup.data.clean import SHINGLE, Deduplicator

COMMON = 20
"""A word that is in fewer of the texts is a name, as far as templates are concerned."""
_WORD = re.compile(r"\w+")
_BREAK = re.compile(r"[.;:,]? [(\[–-]|[.;:] |\.$")
_INVISIBLE = str.maketrans("", "", "\u00ad\u200b\u200c\u200d\u2060\ufeff\ufffc")


def distinct(texts: Sequence[str]) -> list[int]:
    """The numbers of the texts that resemble none before them, in order.

    Two texts resemble each other when they are equal but for their rare words and numbers, or
    share most of their word sequences; see `groundup.data.clean`.
    """
    words = [_WORD.findall(text.lower()) for text in texts]
    counts = Counter(word for found in words for word in set(found))
    common = {word for word, count in counts.items() if count >= COMMON and not word.isdigit()}
    copies, templates, kept, noted = Deduplicator(), set[str](), list[int](), list[int]()
    for number, text in enumerate(texts):
        template = " ".join(word if word in common else "_" for word in words[number])
        if template not in templates:
            templates.add(template)
            kept.append(number)
            # Fewer words have so few sequences that a near-copy would have all the same.
            if len(words[number]) >= SHINGLE + 3 and not copies.is_copy(text):
                noted.append(number)
    near = copies.near_copies(lambda index: texts[noted[index]])
    dropped = {number for number, is_near in zip(noted, near, strict=True) if is_near}
    return [number for number in kept if number not in dropped]


def opening(text: str) -> str:
    """What a text begins with, up to a bracket, a dash or the end of a sentence.

    "strategy game (data files)" and "strategy game (documentation)" are worth keeping both, but on
    the same side.
    """
    return _BREAK.split(text.lower(), maxsplit=1)[0]


def tidy(text: str) -> str:
    """Running text on one line, without characters that nobody sees."""
    return one_line(text.translate(_INVISIBLE))


def one_line(text: str) -> str:
    """Printable characters only, runs of white space as one space."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, cut after a sentence in the second half, else after a word."""
    if len(text) <= limit:
        return text
    head = text[: limit + 1]
    end = max(head.rfind(mark, limit // 2, limit) for mark in (". ", "! ", "? "))
    return head[: end + 1] if end > 0 else head.rpartition(" ")[0] or text[:limit]
