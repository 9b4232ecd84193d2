"""The terminal chat by script: replies, commands, interrupts, pipes and a real pseudo-terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from groundup.infer.config import CHAT_SAMPLING
from groundup.serve import terminal as terminal_module
from groundup.serve.terminal import Terminal


class Tty(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def talk(conversation, *lines: str | type[BaseException]) -> str:
    """What an interactive session shows after the given lines (or interrupts) are typed."""
    script = iter(lines)

    def ask() -> str:
        line = next(script, EOFError)
        if isinstance(line, str):
            return line
        raise line

    stdout = Tty()
    Terminal(conversation, Tty(), stdout, ask=ask).run()
    return stdout.getvalue()


def pipe(conversation, text: str) -> tuple[str, str]:
    """Standard output and error of a session that reads `text` from a pipe."""
    stdout, stderr = io.StringIO(), io.StringIO()
    Terminal(conversation, io.StringIO(text), stdout, stderr).run()
    return stdout.getvalue(), stderr.getvalue()


def test_a_reply_is_shown_with_its_speed(make_conversation) -> None:
    shown = talk(make_conversation("Good day."), "Hi!")
    assert shown.startswith("Good day.\n")
    assert "10 tokens" in shown


def test_long_replies_are_wrapped_between_words(make_conversation, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    words = "the quick brown fox jumps over the lazy dog"
    shown = talk(make_conversation(words), "Hi!")
    assert "\n".join(textwrap.wrap(words, 20)) in shown


def test_special_tokens_and_escapes_are_never_shown(make_conversation, tokenizer) -> None:
    conversation = make_conversation("a\x1b[2Jb")
    conversation.model.end = tokenizer.special["<|tool_call|>"]
    stdout, _ = pipe(conversation, "Hi!\n")
    assert stdout == "a[2Jb\n"


def test_a_pipe_gets_replies_alone(make_conversation) -> None:
    conversation = make_conversation("Good day.\nHow are you? " * 3, max_tokens=500, context=300)
    stdout, stderr = pipe(conversation, "Hi!\n\n/set temperature 0\nAnd?")
    assert stdout == ("Good day.\nHow are you? " * 3 + "\n") * 2
    assert "temperature" in stderr
    assert len(conversation.messages) == 4


def test_settings_are_checked_and_kept(make_conversation) -> None:
    conversation = make_conversation()
    shown = talk(
        conversation,
        "/set temperature 0.25",
        "/set top_k=7",
        '/set stop ["a b", "\\n"]',
        "/set seed 5",
        "/set tempratur 1",
        "/set top_p 1.5",
        "/set min_p lots",
        "/set seed",
        "/set",
    )
    sampling = conversation.sampling
    assert (sampling.temperature, sampling.top_k, sampling.seed) == (0.25, 7, 5)
    assert sampling.stop == ("a b", "\n")
    assert "Did you mean 'temperature'?" in shown
    assert "top_p is 1.5" in shown
    assert "'min_p' should be of type float" in shown
    assert "needs a value" in shown
    assert "max_tokens" in shown
    talk(conversation, "/set seed none", "/set stop User:")
    assert conversation.sampling.seed is None
    assert conversation.sampling.stop == ("User:",)


def test_what_a_chat_starts_with_is_the_default(make_conversation) -> None:
    conversation = make_conversation()
    conversation.sampling = CHAT_SAMPLING
    assert "(default" not in talk(conversation, "/set")
    assert "(default 0.6)" in talk(conversation, "/set temperature 0.8")


def test_unknown_commands_get_a_hint_and_two_slashes_a_reply(make_conversation) -> None:
    conversation = make_conversation()
    shown = talk(conversation, "/rest", "/xyzzy", "//usr/bin")
    assert "Did you mean 'reset'?" in shown
    assert "There is no command /xyzzy" in shown
    assert conversation.messages[0]["content"] == "/usr/bin"


def test_help_names_every_command(make_conversation) -> None:
    shown = talk(make_conversation(), "/help")
    for name in ("help", "reset", "retry", "system", "set", "save", "load", "quit"):
        assert f"/{name}" in shown


def test_commands_change_the_conversation(make_conversation) -> None:
    conversation = make_conversation("Yes.")
    talk(conversation, "/retry", "Hi!", "/retry", "/system Be brief.", "More?")
    assert [message["content"] for message in conversation.messages] == [
        "Hi!",
        "Yes.",
        "More?",
        "Yes.",
    ]
    assert conversation.system == "Be brief."
    talk(conversation, "/reset", "/quit", "Hi!")
    assert conversation.messages == []


def test_save_and_load(make_conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # a note about a long path stays on one line
    path = tmp_path / "a chat.json"
    conversation = make_conversation("Good day 🙂")
    shown = talk(conversation, "Hi!", f"/save {path}", "/save")
    assert "needs the name of a file" in shown
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert saved["messages"][1] == {"role": "assistant", "content": "Good day 🙂"}
    other = make_conversation()
    shown = talk(other, f"/load {path}", f"/load {tmp_path / 'missing.json'}", "/load")
    assert other.messages == conversation.messages
    assert "missing.json does not exist" in shown


def test_save_reports_what_the_system_refuses(make_conversation, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    assert "file" in talk(make_conversation(), f"/save {blocker}/chat.json")
    assert "folder" in talk(make_conversation(), f"/save {tmp_path}")
    assert os.listdir(tmp_path) == ["file"]


def test_an_interrupt_stops_the_reply_and_not_the_program(make_conversation) -> None:
    conversation = make_conversation("A long answer.")
    logits = conversation.model.logits
    calls = []

    def interrupted(hidden):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return logits(hidden)

    conversation.model.logits = interrupted
    shown = talk(conversation, "Hi!", KeyboardInterrupt, "Go on.")
    assert "stopped" in shown
    assert "/quit leaves" in shown
    assert [message["content"] for message in conversation.messages] == [
        "Hi!",
        "A long",
        "Go on.",
        "A long answer.",
    ]


def test_what_was_cut_or_forgotten_is_said(make_conversation) -> None:
    assert "max_tokens" in talk(make_conversation("Hello!", max_tokens=3), "Hi!")
    assert "context is full" in talk(make_conversation("y" * 99, context=30), "Hi!")
    forgetful = make_conversation("Yes.", context=40, max_tokens=10)
    assert "no longer fit" in talk(forgetful, "Question?", "Question?", "Question?")
    assert "tokens long" in talk(make_conversation(context=40), "x" * 60)


def test_a_prompt_gets_one_reply(make_conversation, monkeypatch) -> None:
    conversation = make_conversation("Good day.")
    stdout = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stdin", io.StringIO("never read\n"))
    terminal_module.chat(
        conversation.model, conversation.tokenizer, conversation.sampling, prompt="/not a command"
    )
    assert stdout.getvalue() == "Good day.\n"


PROGRAM = """
import sys
sys.path[:0] = [{folder!r}, {root!r}]
import torch
from conftest import Parrot
from groundup.infer.config import SamplingConfig
from groundup.models.presets import qwen3
from groundup.serve.terminal import chat
from groundup.text.config import TokenizerConfig
from groundup.text.train import train_tokenizer

tokenizer = train_tokenizer(TokenizerConfig(kind="byte", vocab_size=263), [])
model = Parrot(
    qwen3(vocab_size=263, width=12, num_layers=1, num_heads=2, context_length=96)
).eval()
model.script, model.end = "Good day 🙂".encode(), tokenizer.special["<|end|>"]
model.opening = tokenizer.special["<|assistant|>"]
chat(model, tokenizer, SamplingConfig(), name="parrot")
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    path = tmp_path / "program.py"
    here = Path(__file__).parent
    path.write_text(PROGRAM.format(folder=str(here), root=str(here.parents[1])), encoding="utf-8")
    started: list[subprocess.Popen[bytes]] = []

    def start(**streams) -> subprocess.Popen[bytes]:
        # LC_ALL=C is a terminal set to ASCII: replies are UTF-8 all the same.
        environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "TERM": "xterm"}
        process = subprocess.Popen([sys.executable, str(path)], env=environment, **streams)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_real_pipe(program) -> None:
    process = program(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    stdout, stderr = process.communicate("Grüße 🙂\n".encode() + b"\xff broken\n", timeout=60)
    assert (stdout.decode(), stderr) == ("Good day 🙂\n" * 2, b"")
    assert process.returncode == 0


def test_a_real_terminal(program) -> None:
    controller, terminal = pty.openpty()
    process = program(stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    unread = b""

    def until(text: str, interrupt: bool = False) -> bytes:
        """Everything up to and including `text`."""
        nonlocal unread
        for _ in range(120):
            if text.encode() in unread:
                break
            if interrupt:  # what Ctrl-C sends; Python misses it in the moment before it waits
                process.send_signal(signal.SIGINT)
            if select.select([controller], [], [], 0.5)[0]:
                unread += os.read(controller, 4096)
        assert text.encode() in unread, unread
        before, found, unread = unread.partition(text.encode())
        return before + found

    welcome = until("› ")
    assert b"parrot" in welcome and b"/help" in welcome
    os.write(controller, b"Hi!\n")
    until("Good day 🙂")
    until("a second")
    until("› ")
    until("leaves", interrupt=True)
    until("› ")
    os.write(controller, b"\x04")  # Ctrl-D
    assert process.wait(timeout=30) == 0
    os.close(controller)
