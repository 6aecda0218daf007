"""What a watching person sees on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from rig.errors import RigError
from rig.report import clean_lines

_PLAIN_INTERVAL_S = 15.0


def error_console() -> Console:
    """The console on stderr; colours only where stderr is a terminal that wants them."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


class TerminalProgress:
    """A Progress that draws; use as a context manager so that the terminal is left clean."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = error_console()
        self._quiet = quiet
        self._live = self._console.is_terminal and not quiet
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[now]}"),
        )
        self._bar = Bar(*columns, console=self._console, transient=True, disable=not self._live)
        self._task = self._bar.add_task("", total=None, visible=False, now="")
        self._title, self._total = "", 0
        self._began = self._said = time.monotonic()

    def __enter__(self) -> TerminalProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(cut=kind is not None)

    def close(self, *, cut: bool = False) -> None:
        """Leave the terminal clean; a stage that was cut short is not said to have ended."""
        if not cut:
            self._close_stage()
        self._live = False
        self._bar.stop()

    def stage(self, title: str, total: int | None = None) -> None:
        """End the stage before and begin this one."""
        self._close_stage()
        self._title, self._total = title, total or 0
        self._began = self._said = time.monotonic()
        self._bar.reset(self._task, description=escape(title), total=total, visible=True, now="")
        if not self._live:
            self.note(f"{title} ...")

    def step(self, text: str, done: int | None = None) -> None:
        """Move the bar; without a terminal, a line now and then."""
        if done is not None and done > self._total > 0:
            self._total = done
        total = self._total or None
        self._bar.update(self._task, completed=done, total=total, now=escape(text[-48:]))
        if not self._live and time.monotonic() - self._said > _PLAIN_INTERVAL_S:
            self._said = time.monotonic()
            count = f"{done}/{self._total} " if done is not None and self._total else ""
            self.note(f"  {count}{text}")

    def note(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet:
            self._console.print(escape(_harmless(text)))

    def _close_stage(self) -> None:
        seconds = time.monotonic() - self._began
        if self._live:
            self._bar.refresh()
        if self._title and self._live and seconds >= 0.5:
            self.note(f"{self._title}: {seconds:.1f} s")
        self._title = ""


def show_error(error: RigError) -> None:
    """What was wrong, what to do, what the failing thing said, and the command to see it again.

    A guest's words are among them: no control character of theirs reaches the terminal.
    """
    console = error_console()
    if error.output.strip():
        sys.stderr.write(_harmless(error.output.rstrip()) + "\n")
    console.print(f"[bold red]rig: {escape(_harmless(error.message))}[/]")
    if error.hint:
        console.print(f"  hint: {escape(_harmless(error.hint))}")
    if error.reproduce:
        console.print(f"  reproduce: {escape(_harmless(error.reproduce))}")


def _harmless(words: str) -> str:
    """Words with every control character but the newline taken out."""
    return "\n".join(clean_lines(words))
