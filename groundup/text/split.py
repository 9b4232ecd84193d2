"""Cutting text: the patterns that make words of it, and stretches that bound the memory used."""

from __future__ import annotations

import re
from collections.abc import Iterator

# The first is the pattern of GPT-4's cl100k vocabulary (github.com/openai/tiktoken) written for
# speed: everything that needs no look-ahead stands in one group, which the engine inside tiktoken
# hands whole to a finite automaton (1.4 times as fast as the original: see bench/tokenizer.py). The
# engines that run it (fancy-regex in tiktoken and rustbpe, Oniguruma in tokenizers) class every
# Unicode character alike, which the tests check.
_GPT4 = (
    r"(?:'(?:[sdmtSDMT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+)|\s+(?!\S)|\s+"
)
PATTERNS = {
    "gpt4": _GPT4,
    "digits": _GPT4.replace(r"\p{N}{1,3}", r"\p{N}"),
    "gpt2": r"(?:'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+)|\s+(?!\S)|\s+",
}
EACH_CHARACTER = r"[\s\S]"

STRETCH = 1 << 18

# Places where every pattern above ends one word and begins the next, whatever stands around them:
# between a non-space and a space, and between a letter or digit and a line break.
_SAFE_CUT = re.compile(r"(?<=\S) |(?<=[^\W_])\n")


def stretches(text: str, size: int = STRETCH) -> Iterator[str]:
    """Cut a long text into parts of `size` to 2·`size` characters that encode as the whole does.

    The cut is made at the first safe place after `size` characters. Only where `size` characters
    follow each other without one (no space after a word, no line break after a letter) is it made
    regardless, and there the ids may differ from those of an uncut encoder. Without this a run of
    a million spaces overflows the stack of the regex engine inside tiktoken, and a line of 1 GB
    would be held as one list of Python integers.
    """
    start = 0
    while len(text) - start > 2 * size:
        cut = _SAFE_CUT.search(text, start + size, start + 2 * size)
        end = cut.start() if cut else start + 2 * size
        yield text[start:end]
        start = end
    yield text[start:] if start else text


def well_formed(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced by U+FFFD.

    A Python string can hold surrogates, which no UTF-8 text can; everything else is untouched.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
