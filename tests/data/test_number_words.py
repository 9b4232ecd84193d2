"""Number names against lists written by hand, and the split that makes generalisation visible."""

from __future__ import annotations

import subprocess
import sys

import pytest

from groundup.config import UserError
from groundup.data.number_words import examples, is_held_out, name_of, pieces_of, vocabulary

NAMES = {
    "en": {
        0: "zero",
        13: "thirteen",
        40: "forty",
        99: "ninety-nine",
        100: "one hundred",
        427: "four hundred twenty-seven",
        1000: "one thousand",
        7018: "seven thousand eighteen",
        300_305: "three hundred thousand three hundred five",
        999_999: "nine hundred ninety-nine thousand nine hundred ninety-nine",
    },
    "de": {
        0: "null",
        1: "eins",
        21: "einundzwanzig",
        30: "dreißig",
        101: "einhunderteins",
        427: "vierhundertsiebenundzwanzig",
        1000: "eintausend",
        1017: "eintausendsiebzehn",
        21_000: "einundzwanzigtausend",
        101_001: "einhunderteintausendeins",
        731_616: "siebenhunderteinunddreißigtausendsechshundertsechzehn",
    },
    "fr": {
        0: "zéro",
        21: "vingt et un",
        70: "soixante-dix",
        71: "soixante et onze",
        77: "soixante-dix-sept",
        80: "quatre-vingts",
        81: "quatre-vingt-un",
        91: "quatre-vingt-onze",
        99: "quatre-vingt-dix-neuf",
        100: "cent",
        200: "deux cents",
        201: "deux cent un",
        280: "deux cent quatre-vingts",
        1000: "mille",
        1980: "mille neuf cent quatre-vingts",
        80_000: "quatre-vingt mille",
        200_000: "deux cent mille",
        471_071: "quatre cent soixante et onze mille soixante et onze",
    },
}


@pytest.mark.parametrize("language", NAMES)
def test_names(language):
    assert {n: name_of(n, language) for n in NAMES[language]} == NAMES[language]


@pytest.mark.parametrize("language", NAMES)
def test_every_number_has_a_name_of_its_own_from_few_pieces(language):
    numbers = [*range(12_000), *range(98_000, 1_000_000, 613)]
    names = {name_of(n, language) for n in numbers}
    assert len(names) == len(numbers)
    known = set(vocabulary([language]))
    assert {piece for n in numbers for piece in pieces_of(n, language)} <= known
    assert len(known) < 110


def test_the_split_is_by_number_and_covers_all():
    train = {e.number for e in examples("medium", ["en", "fr"], "train")}
    test = {e.number for e in examples("medium", ["en", "fr"], "test")}
    assert not train & test and train | test == set(range(10_000))
    assert 0.08 < len(test) / 10_000 < 0.12
    assert not any(is_held_out(number) for number in range(20))
    held_out = [e.number for e in examples("easy", ["en"], "test")]
    assert held_out == [n for n in range(100) if is_held_out(n)] and held_out


@pytest.mark.parametrize("number", [-1, 1_000_000])
def test_numbers_without_a_name_are_refused(number):
    with pytest.raises(UserError, match="from 0 to 999999"):
        name_of(number, "en")


def test_unknown_choices_are_refused():
    with pytest.raises(UserError, match="language 'it'"):
        name_of(3, "it")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Did you mean 'medium'"):
        next(examples("meduim", ["en"], "train"))  # type: ignore[arg-type]


def test_it_can_be_looked_at():
    command = [sys.executable, "-m", "groundup.data.number_words", "--languages", "de"]
    result = subprocess.run([*command, "--count", "3"], capture_output=True, text=True, check=True)
    assert "hundert | " in result.stdout and "pieces" in result.stdout.splitlines()[0]


def test_a_stride_keeps_some_numbers_on_the_side_they_were():
    for split in ("train", "test"):
        every = {one.number for one in examples("medium", ["de"], split)}
        some = {one.number for one in examples("medium", ["de"], split, stride=7)}
        assert some == {number for number in every if number % 7 == 0}
