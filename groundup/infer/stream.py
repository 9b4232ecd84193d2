"""Token ids to text as it grows: no half characters, no stop strings, nothing taken back.

A token may end in the middle of a UTF-8 character or of a stop string. What could still turn out
to be either is held back until the next tokens decide, so text once shown stays right.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groundup.text.tokenizer import Tokenizer


class TextStream:
    """Turns one reply's ids into text, piece by piece. `stopped` tells that a stop string came."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def push(self, id: int) -> str:
        """The text that is certain now that `id` has come; "" after a stop string."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(self._tokenizer.decode_bytes([id]))
        found = [(self._held.find(string), len(string)) for string in self._stop]
        # The stop string that is complete first ends the reply, however the tokens fell.
        ends = [(start + length, start) for start, length in found if start >= 0]
        if ends:
            self.stopped = True
            return self._release(min(ends)[1])
        return self._release(len(self._held) - self._undecided())

    def finish(self) -> str:
        """What was held back, when the reply ends here. A character cut in half is left out."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, end: int) -> str:
        text, self._held = self._held[:end], self._held[end:]
        return text

    def _undecided(self) -> int:
        """Length of the longest tail of the held text that a stop string begins with."""
        longest = max((len(string) for string in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(string.startswith(tail) for string in self._stop):
                return length
        return 0
