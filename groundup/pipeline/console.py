"""What a person sees while a run is at work: progress with time left, figures, samples.

A sink of the log like any other. On a terminal it draws a live bar; in a pipe or a CI log it
prints a line of figures now and then.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from groundup.train.log import Row

PLAIN_SECONDS = 15.0
"""Least time between two lines of figures where there is no terminal."""


class Console:
    """Prints to stderr, so that stdout stays free for results. Silent when `quiet`."""

    def __init__(self, quiet: bool = False) -> None:
        self.out = RichConsole(stderr=True, quiet=quiet, highlight=False)
        self._bar = Progress(
            TaskProgressColumn("  {task.percentage:>3.0f}%"),
            BarColumn(bar_width=24),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[figures]}"),
            console=self.out,
            transient=True,
        )
        self._task: TaskID | None = None
        self._latest: dict[str, float] = {}
        self._total = 0.0
        self._started = self._printed = time.monotonic()
        self._first = 0.0

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end_progress()

    def headline(self, name: str, policy: str, folder: Path) -> None:
        rest = escape(f"{name} · {policy} · {folder}")
        self.out.print(f"[bold]groundup[/] · {rest}")

    def begin(self, title: str) -> None:
        self.out.print(f"[bold cyan]▸[/] {escape(title)}")
        self._latest = {}

    def skipped(self, title: str) -> None:
        self.out.print(f"[dim]✓ {escape(title)} (unchanged)[/]")

    def finished(self, title: str, seconds: float) -> None:
        self.end_progress()
        self.out.print(f"[green]✓[/] {escape(title)} [dim]{format_seconds(seconds)}[/]")

    def say(self, text: str) -> None:
        """A line of plain information below the stage's title."""
        self.out.print(f"  {escape(text)}")

    def start_progress(self, total: float, done: float = 0.0) -> Callable[[float], None]:
        """Show a bar of `total` units; returns the function that moves it to a given count."""
        self.end_progress()
        self._latest = {}
        self._total, self._first = total, done
        self._started = self._printed = time.monotonic()
        if self.out.is_terminal:
            self._task = self._bar.add_task("", total=total, completed=int(done), figures="")
            self._bar.start()
        return self._move

    def start_count(self, unit: str) -> Callable[[int], None]:
        """Count `unit`, where the total is not known; returns the function to tell the count."""
        self.end_progress()
        self._printed = time.monotonic()
        if self.out.is_terminal:
            self._task = self._bar.add_task("", total=None, figures="")
            self._bar.start()

        def move(count: int) -> None:
            text = f"{count:,} {unit}"
            if self._task is not None:
                self._bar.update(self._task, figures=text)
            elif time.monotonic() - self._printed > PLAIN_SECONDS:
                self._printed = time.monotonic()
                self.say(text)

        return move

    def end_progress(self) -> None:
        if self._task is not None:
            self._bar.stop()
            self._bar.remove_task(self._task)
            self._task = None

    def write(self, row: Row) -> None:
        """A row of the training log: figures move the bar, a sample is printed in full."""
        if "sample" in row:
            self.out.print(f"[dim]  sample after step {row['step']}:[/]")
            self.out.print("\n".join(f"    {line}" for line in escape(row["sample"]).splitlines()))
            return
        self._latest |= {key: value for key, value in row.items() if isinstance(value, int | float)}
        if row.get("skipped"):
            self.out.print(f"[red]  step {row['step']} skipped: loss or gradient not finite[/]")
        if "val_loss" in row:
            self.out.print(f"  step {row['step']}: held-out {self._figures(row)}")
        self._move(row["step"])

    def done(self, folder: Path, seconds: float, prompt: str, chats: bool) -> None:
        """The end of a run: where its report is, and how to use its models."""
        name, prompt = shlex.quote(str(folder)), shlex.quote(prompt.strip())
        self.out.print(f"[bold green]Done[/] in {format_seconds(seconds)}.")
        self.say(f"report   {folder / 'report.html'}")
        if chats:
            self.say(f"talk     groundup chat {name}")
        self.say(f"write    groundup generate {name} --prompt {prompt} --max-tokens 200")

    def _move(self, count: float) -> None:
        figures = self._figures(self._latest)
        if self._task is not None:
            self._bar.update(self._task, completed=count, figures=figures)
        elif time.monotonic() - self._printed > PLAIN_SECONDS:
            self._printed = time.monotonic()
            done = max(count - self._first, 1e-9)
            left = (time.monotonic() - self._started) / done * (self._total - count)
            percent = 100 * count / max(self._total, 1e-9)
            self.out.print(f"  {percent:3.0f}%  {format_seconds(left)} left  {figures}")

    @staticmethod
    def _figures(row: Row) -> str:
        formats = {
            "loss": "loss {:.3f}",
            "val_loss": "loss {:.3f}",
            "val_bpb": "{:.3f} bits/byte",
            "tokens_per_second": "{:,.0f} tok/s",
            "mfu": "MFU {:.0%}",
            "accuracy": "{:.1%} right",
            "exact_match": "{:.1%} exactly right",
            "chrf": "chrF {:.1%}",
            "bits_per_character": "{:.3f} bits/character",
        }
        parts = [text.format(row[key]) for key, text in formats.items() if row.get(key) is not None]
        if "loss" in row and "val_loss" in row:
            parts[1] = f"held-out {row['val_loss']:.3f}"
        return " · ".join(parts)


def format_seconds(seconds: float) -> str:
    """1.2s, 42s, 3m05s, 1h02m."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
