"""A character n-gram model: what counting alone makes of a text, to compare a network with."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping


class CharacterNgrams:
    """Predicts each character from the `order` - 1 before it; order 1 knows frequencies alone.

    Orders are interpolated after Witten and Bell 1991: what was often followed by something new
    trusts the shorter context more. Characters never seen share what is left among all of Unicode.
    """

    ALPHABET = 0x110000

    def __init__(self, texts: Iterable[str], order: int = 5) -> None:
        self.order = order
        self.counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for text in texts:
            for place, character in enumerate(text):
                for length in range(min(order - 1, place) + 1):
                    self.counts[text[place - length : place]][character] += 1
        self.totals = {context: sum(after.values()) for context, after in self.counts.items()}

    def bits_per_character(self, texts: Iterable[str]) -> float:
        """The mean of -log2 p over all characters of the texts."""
        bits, characters = 0.0, 0
        for text in texts:
            for place, character in enumerate(text):
                start = max(0, place - self.order + 1)
                bits -= math.log2(self.probability(text[start:place], character))
            characters += len(text)
        return bits / max(1, characters)

    def probability(self, context: str, character: str) -> float:
        """Of the character after a context of at most `order` - 1; all of them sum to 1."""
        chance = 1 / self.ALPHABET
        for length in range(len(context) + 1):
            after: Mapping[str, int] | None = self.counts.get(context[len(context) - length :])
            if after is None:
                break  # neither has a longer context been seen
            total = self.totals[context[len(context) - length :]]
            chance = (after.get(character, 0) + len(after) * chance) / (total + len(after))
        return chance
