"""Numbers and their names in English, German and French: a translation task without any files.

    python -m groundup.data.number_words --level medium --languages en de --count 12

The rules of a language are few but not trivial: German says the ones before the tens, French counts
by twenties. Whole numbers are held out, in all languages at once, so a model that does well on them
has learned the rules and not the list. Everything follows from the arguments; nothing is drawn.
"""

# ruff: noqa: SIM905  (a list of numerals is easier to check as a sentence)
from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from groundup.config import UserError, did_you_mean, require
from groundup.data.examples import is_drawn

Language = Literal["en", "de", "fr"]
Level = Literal["easy", "medium", "hard"]
LIMITS: dict[Level, int] = {"easy": 100, "medium": 10_000, "hard": 1_000_000}
"""Numbers of a level are below its limit."""
HELD_OUT_SHARE = 10
"""One of so many numbers is for testing."""
PAD, START, END = 0, 1, 2
"""Ids of a `Vocabulary` that stand for no text."""
_DIGITS = 3  # the id of the digit 0

_EN = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_EN_TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
_DE = (
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn "
    "fünfzehn sechzehn siebzehn achtzehn neunzehn"
).split()
_DE_TENS = "- - zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split()
_FR = (
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize "
    "dix-sept dix-huit dix-neuf"
).split()
_FR_TENS = "- - vingt trente quarante cinquante soixante soixante quatre-vingt quatre-vingt".split()


@dataclass(frozen=True, slots=True)
class Example:
    """A number and its name, as text and in the pieces that make up the text."""

    number: int
    language: Language
    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def name_of(number: int, language: Language) -> str:
    """427 -> "four hundred twenty-seven". Raises UserError outside 0 to 999,999."""
    return "".join(pieces_of(number, language))


def pieces_of(number: int, language: Language) -> tuple[str, ...]:
    """427 -> ("four", " hundred", " twenty", "-seven"): a few dozen pieces name every number."""
    if language not in get_args(Language):
        hint = did_you_mean(str(language), get_args(Language))
        raise UserError(f"There are no number words in language {language!r}.{hint}")
    limit = LIMITS["hard"]
    require(0 <= number < limit, f"Numbers go from 0 to {limit - 1}, but this is {number}.")
    return tuple(_NAMES[language](number))


def examples(
    level: Level,
    languages: Sequence[Language],
    split: Literal["train", "test"],
    stride: int = 1,
) -> Iterator[Example]:
    """The numbers of a level, in order, each in every language; one of ten is for testing.

    With a `stride` above 1 only every `stride`-th number: of a million, some are enough.
    """
    if level not in LIMITS:
        raise UserError(f"There is no level {level!r}.{did_you_mean(str(level), LIMITS)}")
    for number in range(0, LIMITS[level], stride):
        if is_held_out(number) == (split == "test"):
            for language in languages:
                yield Example(number, language, pieces_of(number, language))


def is_held_out(number: int) -> bool:
    """Whether a number is for testing. Numbers below 20 never are: no rule gives their names."""
    return number >= 20 and is_drawn(str(number), HELD_OUT_SHARE)


def vocabulary(languages: Sequence[Language]) -> list[str]:
    """Every piece that a name can have, sorted."""
    # Each half of a number below a million is named on its own, so these hold all pieces.
    parts = [*range(1000), *range(1000, 1_000_000, 1000), *range(1001, 1100)]
    return sorted({piece for n in parts for lang in languages for piece in pieces_of(n, lang)})


class Vocabulary:
    """Ids of the digits and of the pieces of names; PAD, START and END are three more."""

    def __init__(self, languages: Sequence[Language]) -> None:
        self.languages = list(languages)
        self.pieces = vocabulary(languages)
        self._first = _DIGITS + 10 + len(languages)
        self._id_of = {piece: self._first + index for index, piece in enumerate(self.pieces)}
        self.size = self._first + len(self.pieces)

    def source(self, example: Example) -> list[int]:
        """The language, then the digits."""
        language = _DIGITS + 10 + self.languages.index(example.language)
        return [language, *self.digits(example.number)]

    def digits(self, number: int) -> list[int]:
        """The digits of a number, the highest first."""
        return [_DIGITS + int(digit) for digit in str(number)]

    def target(self, example: Example) -> list[int]:
        """The pieces of the name."""
        return [self._id_of[piece] for piece in example.pieces]

    def text(self, ids: Sequence[int]) -> str:
        """Digits and pieces up to the first END; what is neither shows as a dot."""
        ids = list(ids)
        ids = ids[: ids.index(END)] if END in ids else ids
        return "".join(map(self._piece, ids))

    def _piece(self, id: int) -> str:
        if id >= self._first:
            return self.pieces[id - self._first]
        return str(id - _DIGITS) if _DIGITS <= id < _DIGITS + 10 else "·"


def _english(number: int) -> Iterator[str]:
    thousands, rest = divmod(number, 1000)
    if thousands:
        yield from _english(thousands)
        yield " thousand"
    hundreds, rest = divmod(rest, 100)
    if hundreds:
        yield (" " if thousands else "") + _EN[hundreds]
        yield " hundred"
    space = " " if number >= 100 else ""
    if rest >= 20:
        yield space + _EN_TENS[rest // 10]
        if rest % 10:
            yield "-" + _EN[rest % 10]
    elif rest or number == 0:
        yield space + _EN[rest]


def _german(number: int) -> Iterator[str]:
    thousands, rest = divmod(number, 1000)
    if thousands:
        yield from _german_below_thousand(thousands, last=False)
        yield "tausend"
    if rest or number == 0:
        yield from _german_below_thousand(rest, last=True)


def _german_below_thousand(number: int, last: bool) -> Iterator[str]:
    """`last`: nothing follows, so that a one is "eins" and not "ein"."""
    hundreds, rest = divmod(number, 100)
    if hundreds:
        yield "ein" if hundreds == 1 else _DE[hundreds]
        yield "hundert"
    if rest >= 20:
        ones = rest % 10
        if ones:
            yield "ein" if ones == 1 else _DE[ones]
            yield "und"
        yield _DE_TENS[rest // 10]
    elif rest == 1 and not last:
        yield "ein"
    elif rest or number == 0:
        yield _DE[rest]


def _french(number: int) -> Iterator[str]:
    """In the spelling before 1990: hyphens below a hundred only, and not around "et"."""
    thousands, rest = divmod(number, 1000)
    if thousands:
        if thousands > 1:
            yield from _french_below_thousand(thousands, last=False)
        yield " mille" if thousands > 1 else "mille"
    if rest or number == 0:
        words = list(_french_below_thousand(rest, last=True))
        yield (" " if thousands else "") + words[0]
        yield from words[1:]


def _french_below_thousand(number: int, last: bool) -> Iterator[str]:
    """`last`: nothing follows, so that a round "cents" or "quatre-vingts" takes its s."""
    hundreds, rest = divmod(number, 100)
    space = " " if hundreds else ""
    if hundreds:
        if hundreds > 1:
            yield _FR[hundreds]
        plural = "s" if hundreds > 1 and not rest and last else ""
        yield (" cent" if hundreds > 1 else "cent") + plural
    if rest < 20:
        if rest or number == 0:
            yield space + _FR[rest]
        return
    tens, ones = divmod(rest, 10)
    if tens in (7, 9):  # sixty-ten, four-twenties-ten
        ones += 10
    yield space + _FR_TENS[tens] + ("s" if rest == 80 and last else "")
    if ones in (1, 11) and tens < 8:
        yield " et"
        yield " " + _FR[ones]
    elif ones:
        yield "-" + _FR[ones]


_NAMES: dict[str, Callable[[int], Iterator[str]]] = {
    "en": _english,
    "de": _german,
    "fr": _french,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Show a part of the task, evenly spaced over its numbers."""
    parser = argparse.ArgumentParser(description="Numbers and their names, as models see them.")
    parser.add_argument("--level", choices=list(LIMITS), default="medium")
    parser.add_argument("--languages", nargs="+", choices=get_args(Language), default=["en"])
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--count", type=int, default=12, help="how many examples to show")
    options = parser.parse_args(arguments)
    found = list(examples(options.level, options.languages, options.split))
    pieces = vocabulary(options.languages)
    print(f"{len(found):,} examples in {options.split}; {len(pieces)} pieces: {' '.join(pieces)}")
    for index in range(0, len(found), max(1, len(found) // max(1, options.count))):
        example = found[index]
        print(f"{example.number:>7,}  {example.language}  {' | '.join(example.pieces)}")


if __name__ == "__main__":
    main()
