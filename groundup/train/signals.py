"""SIGTERM and Ctrl-C ask a run to save and leave at the next step, rather than dropping dead."""

from __future__ import annotations

import logging
import signal
from types import FrameType, TracebackType

log = logging.getLogger(__name__)


class Stopped(Exception):
    """A run left early because a signal asked it to; `saved` is its last checkpoint's step."""

    def __init__(self, name: str, step: int, saved: int | None) -> None:
        state = f"the state of step {saved} is saved" if saved is not None else "nothing is saved"
        super().__init__(f"Stopped by {name} after step {step}; {state}.")


class StopRequest:
    """Context manager that records the first SIGTERM or SIGINT; a second one acts as usual."""

    name: str | None = None

    def __enter__(self) -> StopRequest:
        self._previous = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._previous[number] = signal.signal(number, self._handle)
            except ValueError:  # not the main thread: signals are someone else's business
                break
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        log.warning("%s: leaving after this step; once more leaves at once.", self.name)
        for known, handler in self._previous.items():
            signal.signal(known, handler)
