"""Signals: the state is saved before leaving, and a second one acts at once."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from groundup.train.signals import Stopped, StopRequest


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_before_leaving(make_trainer: Any, tmp_path: Path, name: str) -> None:
    whole = make_trainer(steps=30)
    whole.trainer.fit()
    parts = make_trainer(tmp_path, steps=30)
    step = parts.trainer.train_step

    def interrupted() -> dict[str, float]:
        if parts.trainer.progress.step == 6:
            signal.raise_signal(getattr(signal, name))
        return step()

    parts.trainer.train_step = interrupted
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped, match=f"{name} after step 7; the state of step 7 is saved"):
        parts.trainer.fit()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    again = make_trainer(tmp_path, steps=30, seed=8)
    assert again.trainer.resume() == 7
    again.trainer.fit()
    assert parts.sink.losses() + again.sink.losses() == whole.sink.losses()


def test_the_first_signal_says_what_it_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.name == "SIGTERM"
    assert caplog.messages == ["SIGTERM: leaving after this step; once more leaves at once."]


def test_a_second_signal_acts_at_once() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    names: list[str | None] = []

    def work() -> None:
        with StopRequest() as stop:
            names.append(stop.name)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert names == [None]
