"""Text that arrives in pieces, made fit for a terminal: words wrapped, control characters gone."""

from __future__ import annotations

import io
import unicodedata
from typing import TextIO

from rich.cells import cell_len


class WordWrap:
    """Breaks lines between words as they stream: a word is shown once it is known where it goes.

    Nothing shown is ever moved, so nothing flickers. A wide character (Chinese, Japanese, emoji)
    is a word of its own; a word longer than a line is cut.
    """

    def __init__(self, width: int) -> None:
        self.width = max(width, 2)
        self._column = 0
        self._spaces = ""
        self._word = ""

    def push(self, text: str) -> str:
        """What can be shown now."""
        return "".join(self._push(character) for character in text)

    def finish(self) -> str:
        """The last word."""
        return self._release()

    def _push(self, character: str) -> str:
        if character == "\n":
            shown = self._release() + "\n"
            self._column, self._spaces = 0, ""
            return shown
        if character.isspace():
            shown = self._release()
            self._spaces += " "
            return shown
        wide = cell_len(character) > 1
        if wide or cell_len(self._word + character) > self.width:
            shown = self._release()
            self._word = character
            return shown + (self._release() if wide else "")
        self._word += character
        return ""

    def _release(self) -> str:
        if not self._word:
            return ""
        word, spaces = self._word, self._spaces
        self._word = self._spaces = ""
        cells = cell_len(word)
        if self._column + len(spaces) + cells > self.width:
            self._column = cells
            return "\n" + word
        self._column += len(spaces) + cells
        return spaces + word


def printable(text: str) -> str:
    """The text without control characters but newline and tab.

    What a model writes must not move the cursor, change colours or retitle the window.
    """
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def use_utf8(stream: TextIO) -> None:
    """A terminal may be set to ASCII; text is not."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="replace")
