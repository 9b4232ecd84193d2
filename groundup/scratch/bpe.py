"""Byte-pair encoding, trained and applied in plain Python.

Sennrich et al. 2016 (arXiv:1508.07909), on bytes as in GPT-2 (Radford et al. 2019). The merges are
those of the fast trainer: the most frequent pair first, and among equals the pair of lowest ids.

    tokenizer = train("the cat sat on the mat", vocab_size=262)
    tokenizer.decode(tokenizer.encode("the hat")) == "the hat"
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

Pair = tuple[int, int]

# GPT-4's pattern in Python's own dialect: contractions | a word with the one character before it |
# up to three digits | other signs with the space before and line breaks after | white space.
# `[^\W\d_]` is a letter; the last two alternatives leave one space for the word that follows.
WORDS = re.compile(
    r"'(?:[sdmtSDMT]|[lL][lL]|[vV][eE]|[rR][eE])|(?:[^\r\n\w]|_)?[^\W\d_]+|\d{1,3}"
    r"| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(texts: str | Iterable[str], vocab_size: int) -> BPE:
    """Learn `vocab_size - 256` merges, or as many as there are pairs to merge.

    Text is cut into words, and merges happen only inside words: so each distinct word is kept once,
    with its count. After a merge only the words that held the pair have changed.
    """
    words, word_counts = _count_words([texts] if isinstance(texts, str) else texts)
    pair_counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in _pairs(word):
            pair_counts[pair] += word_counts[index]
            where[pair].add(index)

    merges: dict[Pair, int] = {}
    for new_id in range(256, vocab_size):
        if not pair_counts:
            break
        best = min(pair_counts, key=lambda pair: (-pair_counts[pair], pair))
        merges[best] = new_id
        for index in where.pop(best):
            merged = merge(words[index], best, new_id)
            for pair in _pairs(words[index]):
                pair_counts[pair] -= word_counts[index]
            for pair in _pairs(merged):
                pair_counts[pair] += word_counts[index]
                where[pair].add(index)
            words[index] = merged
        pair_counts = +pair_counts  # drops the pairs that are gone
    return BPE(merges)


def merge(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    """Replace every `pair` in `ids` by `new_id`, from left to right.

    >>> merge([1, 1, 1, 2], (1, 1), 9)
    [9, 1, 2]
    """
    merged: list[int] = []
    i = 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


@dataclass(frozen=True)
class BPE:
    """A trained tokenizer: merges[left, right] is the id that replaces the pair."""

    merges: dict[Pair, int]

    def encode(self, text: str) -> list[int]:
        """In each word, apply the earliest learned merge that fits, until none does."""
        ids: list[int] = []
        for word in WORDS.findall(text):
            parts = list(word.encode())
            while candidates := self.merges.keys() & set(_pairs(parts)):
                earliest = min(candidates, key=self.merges.__getitem__)
                parts = merge(parts, earliest, self.merges[earliest])
            ids += parts
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Bytes of all ids, then UTF-8: one id alone may be half a character."""
        pieces = self.pieces()
        return b"".join(pieces[id] for id in ids).decode("utf-8", errors="replace")

    def pieces(self) -> list[bytes]:
        """The bytes of every id: first the 256 bytes, then each merge as the sum of its halves."""
        pieces = [bytes([value]) for value in range(256)]
        for left, right in self.merges:
            pieces.append(pieces[left] + pieces[right])
        return pieces


def _count_words(texts: Iterable[str]) -> tuple[list[list[int]], list[int]]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(WORDS.findall(text))
    return [list(word.encode()) for word in counts], list(counts.values())


def _pairs(ids: list[int]) -> list[Pair]:
    return list(pairwise(ids))
