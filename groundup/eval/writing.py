"""How near a written text is to the expected one: exactly, by characters, by their n-grams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from groundup.config import require

MAX_ORDER = 6
"""chrF's longest n-gram."""


def exact_match(written: Sequence[str], expected: Sequence[str]) -> float:
    """The share of texts that are right in every character, but for white space around them."""
    _check(written, expected)
    pairs = zip(written, expected, strict=True)
    return sum(a.strip() == b.strip() for a, b in pairs) / len(expected)


def character_error_rate(written: Sequence[str], expected: Sequence[str]) -> float:
    """Edits that turn what was written into what was expected, per expected character.

    Insertions, deletions and exchanges; above 1 where far too much was written.
    """
    _check(written, expected)
    edits = sum(edit_distance(a, b) for a, b in zip(written, expected, strict=True))
    return edits / max(1, sum(map(len, expected)))


def chrf(written: Sequence[str], expected: Sequence[str], beta: float = 2.0) -> float:
    """The F-score of character n-grams up to 6, from 0 to 1, over all texts together.

    Precision and recall are averaged over n, recall weighing `beta`² times as much; white space is
    left out. It gives credit for right stems and half right words, where exact match gives none.
    Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation".
    """
    _check(written, expected)
    precision = recall = 0.0
    orders = 0
    for order in range(1, MAX_ORDER + 1):
        matches = found = wanted = 0
        for a, b in zip(written, expected, strict=True):
            ours, theirs = _ngrams(a, order), _ngrams(b, order)
            matches += (ours & theirs).total()
            found += ours.total()
            wanted += theirs.total()
        if found and wanted:
            precision, recall, orders = (
                precision + matches / found,
                recall + matches / wanted,
                orders + 1,
            )
    if precision + recall == 0:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def word_accuracy(written: Sequence[str], expected: Sequence[str]) -> float:
    """The share of expected words that stand at their place in what was written."""
    _check(written, expected)
    right = total = 0
    for a, b in zip(written, expected, strict=True):
        words = b.split()
        right += sum(x == y for x, y in zip(a.split(), words, strict=False))
        total += len(words)
    return right / max(1, total)


def edit_distance(a: str, b: str) -> int:
    """The fewest insertions, deletions and exchanges of a character between two texts."""
    before = list(range(len(b) + 1))
    for row, left in enumerate(a, start=1):
        line = [row]
        for column, right in enumerate(b, start=1):
            exchange = before[column - 1] + (left != right)
            line.append(min(exchange, before[column] + 1, line[-1] + 1))
        before = line
    return before[-1]


def _ngrams(text: str, order: int) -> Counter[str]:
    text = "".join(text.split())
    return Counter(text[i : i + order] for i in range(len(text) - order + 1))


def _check(written: Sequence[str], expected: Sequence[str]) -> None:
    require(
        len(written) == len(expected) > 0,
        f"{len(written)} texts cannot be compared with {len(expected)} expected ones.",
    )
