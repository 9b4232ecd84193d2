"""The keyboard: silent inside the block only, and harmless where there is no terminal."""

from __future__ import annotations

import io
import os
import pty
import termios

import pytest

from groundup.serve.keyboard import echo_off


def test_echo_is_off_inside_and_back_after() -> None:
    controller, terminal = pty.openpty()

    def echoes() -> bool:
        return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)

    with os.fdopen(terminal, "r") as stdin:
        assert echoes()
        with pytest.raises(KeyboardInterrupt), echo_off(stdin):
            assert not echoes()
            raise KeyboardInterrupt
        assert echoes()
    os.close(controller)


def test_a_stream_without_a_terminal_is_left_alone() -> None:
    with echo_off(io.StringIO("text")) as nothing:
        assert nothing is None
