"""`rig console`: a board's console, shown and recorded, and searched for what a kernel reports."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rig.config import Config
from rig.console import Console
from rig.machine import wire
from rig.record import fresh
from rig.results import Splat

_LOOK_S = 0.2


@dataclass(frozen=True)
class Heard:
    """path: of the recording. lost: how often the line went down and was taken up again."""

    path: Path
    splats: Sequence[Splat]
    lost: int


def run(name: str, config: Config, seconds: float | None, say: Callable[[str], object]) -> Heard:
    """Show what a board's console says, for so long or until somebody interrupts.

    InfrastructureError where the console is dead; UsageError for a board without one.
    """
    line = wire.of(config.board(name), config.root)
    with contextlib.closing(line):
        ours = line.open()
        path = fresh(config.root / "results", f"{name}-console") / "console-0.log"
        with contextlib.closing(Console(ours, path)) as console:
            with contextlib.suppress(KeyboardInterrupt):
                _show(console, seconds, say)
            line.close()
            console.wait_closed(5.0)
            return Heard(path, console.splats(unfinished=True), line.lost)


def _show(console: Console, seconds: float | None, say: Callable[[str], object]) -> None:
    until = None if seconds is None else time.monotonic() + seconds
    shown = 0
    while not console.closed and (until is None or time.monotonic() < until):
        if console.wait_news(shown, _LOOK_S):
            text = console.since(shown)
            shown += len(text.encode())
            say(text)
