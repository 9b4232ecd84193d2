"""The keyboard of a terminal chat: line editing at the prompt, silence while a reply streams."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO


def enable_line_editing(words: Sequence[str]) -> bool:
    """History on the arrow keys, and Tab to complete `words`. Returns whether the system can."""
    try:
        import readline
    except ImportError:
        return False

    def complete(start: str, index: int) -> str | None:
        matches = [word for word in words if start and word.startswith(start)]
        return matches[index] + " " if index < len(matches) else None

    readline.set_completer_delims(" ")
    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    return True


@contextmanager
def echo_off(stdin: TextIO) -> Iterator[None]:
    """Keys pressed inside the block are not shown; they wait for the next prompt."""
    try:
        import termios

        terminal = stdin.fileno()
        before = termios.tcgetattr(terminal)
    except (ImportError, io.UnsupportedOperation):  # not a POSIX terminal
        yield
        return
    silent = termios.tcgetattr(terminal)
    silent[3] &= ~termios.ECHO  # 3: the local modes
    termios.tcsetattr(terminal, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
