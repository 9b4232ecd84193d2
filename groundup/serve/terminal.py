"""The terminal chat: replies stream in, commands start with a slash, Ctrl-C stops a reply.

Where standard input or output is not a terminal it is a filter: each line in is a message, each
reply comes out as plain text, and everything else goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.markup import escape

from groundup.config import UserError, did_you_mean, from_dict, to_dict
from groundup.files import read_json, write_json
from groundup.infer.config import CHAT_SAMPLING, SamplingConfig
from groundup.infer.generate import Piece
from groundup.serve.conversation import Conversation
from groundup.serve.keyboard import echo_off, enable_line_editing
from groundup.serve.wrap import WordWrap, printable, use_utf8

if TYPE_CHECKING:
    from groundup.models.decoder import Decoder
    from groundup.text.tokenizer import Tokenizer

PROMPT = "› "


def chat(
    model: Decoder,
    tokenizer: Tokenizer,
    sampling: SamplingConfig,
    *,
    defaults: SamplingConfig = CHAT_SAMPLING,
    name: str = "",
    system: str = "",
    prompt: str | None = None,
) -> None:
    """Talk with a model on this process's terminal until the user leaves.

    With a `prompt`, print the reply to it and return. Raises UserError for a prompt that is too
    long.
    """
    use_utf8(sys.stdin)
    use_utf8(sys.stdout)
    terminal = Terminal(Conversation(model, tokenizer, sampling, system), sys.stdin, sys.stdout)
    terminal.defaults = defaults
    if prompt is not None:
        terminal.show_reply(terminal.conversation.reply(prompt))
    elif terminal.interactive:
        terminal.line_editing = enable_line_editing(terminal.words())
        terminal.welcome(Path(name).name)
        terminal.run()
    else:
        terminal.run()


class Terminal:
    """Reads lines, runs commands, shows replies. `ask` reads one line, for tests to replace."""

    def __init__(
        self,
        conversation: Conversation,
        stdin: TextIO,
        stdout: TextIO,
        stderr: TextIO | None = None,
        ask: Callable[[], str] | None = None,
    ) -> None:
        self.conversation = conversation
        self.defaults = CHAT_SAMPLING
        self.line_editing = False
        self.interactive = stdin.isatty() and stdout.isatty()
        self._stdin, self._stdout = stdin, stdout
        self._ask = ask or (self._ask_user if self.interactive else self._ask_pipe)
        self._console = Console(file=stdout, highlight=False)
        # In a pipe, standard output holds replies and nothing else.
        notes = stdout if self.interactive else (stderr or sys.stderr)
        self._notes = Console(file=notes, highlight=False)
        self.commands: dict[str, tuple[str, str, Callable[[str], None]]] = {
            "help": ("", "list the commands", self._help),
            "reset": ("", "forget the conversation", self._reset),
            "retry": ("", "answer your last message again", self._retry),
            "system": (
                "TEXT",
                "tell the model how to behave; alone, nothing",
                self._system,
            ),
            "set": ("NAME VALUE", "change a sampling setting; alone, list them", self._set),
            "save": ("FILE", "write the conversation as JSON", self._save),
            "load": ("FILE", "go on with a saved conversation", self._load),
            "quit": ("", "leave, as Ctrl-D does", self._quit),
        }

    def run(self) -> None:
        """Read and answer lines until /quit or the end of input."""
        while True:
            try:
                line = self._ask().strip()
                if line:
                    self.handle(line)
            except UserError as error:
                self.note(str(error), "red")
            except OSError as error:
                self.note(f"{error.filename or ''}: {error.strerror or error}", "red")
            except KeyboardInterrupt:
                self.note("\nCtrl-D or /quit leaves.")
            except EOFError:
                return

    def handle(self, line: str) -> None:
        """Run one command or answer one message. A message may begin with a slash written twice."""
        if not line.startswith("/") or line.startswith("//"):
            self.show_reply(self.conversation.reply(line.removeprefix("/")))
            return
        name, _, argument = line[1:].partition(" ")
        if name not in self.commands:
            raise UserError(f"There is no command /{name}.{did_you_mean(name, self.commands)}")
        self.commands[name][2](argument.strip())

    def show_reply(self, pieces: Generator[Piece]) -> None:
        """Stream a reply to standard output; Ctrl-C ends the reply and nothing else."""
        wrap = WordWrap(self._console.width) if self._stdout.isatty() else None
        quiet = echo_off(self._stdin) if self.interactive else contextlib.nullcontext()
        start, count, reason = time.perf_counter(), 0, "interrupted"
        try:
            with quiet, contextlib.closing(pieces):
                for piece in pieces:
                    count, reason = count + 1, piece.stop_reason or reason
                    text = printable(piece.text)
                    self._write(wrap.push(text) if wrap else text)
        except KeyboardInterrupt:
            if not self.interactive:
                raise
        self._write((wrap.finish() if wrap else "") + "\n")
        if self.interactive:
            self._footer(count, time.perf_counter() - start, reason)

    def words(self) -> list[str]:
        """What the Tab key completes: commands and the names of settings."""
        return [f"/{name}" for name in self.commands] + list(to_dict(self.conversation.sampling))

    def welcome(self, name: str) -> None:
        """Who is talking, and how to get help and out."""
        model = self.conversation.model
        size = f"{model.num_parameters() / 1e6:.1f}M parameters"
        context = f"context of {model.config.context_length} tokens"
        self._notes.print(f"[bold]{escape(name or 'groundup chat')}[/bold] · {size} · {context}")
        self.note("/help lists the commands · Ctrl-C stops a reply · Ctrl-D leaves\n")

    def note(self, text: str, style: str = "dim") -> None:
        """A line that is not part of the conversation."""
        self._notes.print(text, style=style, markup=False, soft_wrap=not self.interactive)

    def _footer(self, count: int, seconds: float, reason: str) -> None:
        notes = [f"{count} tokens, {count / seconds:.0f} a second"]
        if reason == "length":
            notes.append("cut at max_tokens")
        if reason == "context":
            notes.append("cut: the context is full")
        if reason == "interrupted":
            notes.append("stopped")
        if self.conversation.dropped:
            notes.append(f"the oldest {self.conversation.dropped} messages no longer fit")
        self.note(" · ".join(notes) + "\n")

    def _write(self, text: str) -> None:
        self._stdout.write(text)
        self._stdout.flush()

    def _ask_user(self) -> str:
        """One message from the keyboard; a backslash at the end of a line continues it."""
        prompt = PROMPT
        if self._console.color_system and self.line_editing:
            # \001 and \002 tell line editing that the colour between them takes no room.
            prompt = f"\001\033[1;36m\002{PROMPT}\001\033[0m\002"
        line = input(prompt)
        while line.endswith("\\"):
            line = line[:-1] + "\n" + input("… ")
        return line

    def _ask_pipe(self) -> str:
        line = self._stdin.readline()
        if not line:
            raise EOFError
        return line

    def _help(self, _: str) -> None:
        for name, (argument, description, _run) in self.commands.items():
            self.note(f"{f'/{name} {argument}':18} {description}")
        self.note("A line that ends with \\ goes on in the next one.\n")

    def _reset(self, _: str) -> None:
        self.conversation.reset()
        self.note("A new conversation.\n")

    def _retry(self, _: str) -> None:
        self.show_reply(self.conversation.retry())

    def _system(self, text: str) -> None:
        self.conversation.system = text
        self.note("From the next message on.\n" if text else "No system text.\n")

    def _set(self, argument: str) -> None:
        name, _, value = argument.replace("=", " ", 1).partition(" ")
        settings = to_dict(self.conversation.sampling)
        if name:
            settings[name] = _parse(name, value.strip())
            self.conversation.sampling = from_dict(SamplingConfig, settings)
            settings = {name: settings[name]}
        defaults = to_dict(self.defaults)
        for key, setting in settings.items():
            default = "" if setting == defaults[key] else f"  (default {_show(defaults[key])})"
            self.note(f"{key:18} {_show(setting)}{default}")

    def _save(self, file: str) -> None:
        path = _path(file, "save")
        write_json(path, self.conversation.as_dict())
        self.note(f"Saved {len(self.conversation.messages)} messages to {path}.\n")

    def _load(self, file: str) -> None:
        path = _path(file, "load")
        self.conversation.restore(read_json(path))
        self.note(f"Loaded {len(self.conversation.messages)} messages from {path}.\n")

    def _quit(self, _: str) -> None:
        raise EOFError


def _path(file: str, command: str) -> Path:
    if not file:
        raise UserError(f"/{command} needs the name of a file, such as /{command} chat.json.")
    path = Path(file).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it, such as {path / 'chat.json'}.")
    return path


def _parse(name: str, value: str) -> object:
    """A setting as typed: a number, a text, "none", or for `stop` a JSON list or one string."""
    if not value:
        raise UserError(f"/set {name} needs a value, such as /set temperature 0.7.")
    if value == "none":
        return [] if name == "stop" else None
    with contextlib.suppress(ValueError):
        parsed = json.loads(value)
        return [str(parsed)] if name == "stop" and not isinstance(parsed, list) else parsed
    return [value] if name == "stop" else value


def _show(setting: object) -> str:
    return json.dumps(setting, ensure_ascii=False) if setting not in (None, []) else "none"
