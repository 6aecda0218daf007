"""How long work tells a watching person where it stands; what draws it is the CLI's business."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told by a stage what it does; never asked anything back."""

    def stage(self, title: str, total: int | None = None) -> None:
        """A new piece of work begins; total is its number of steps where that is known."""

    def step(self, text: str, done: int | None = None) -> None:
        """The stage moved: text is what it works on now, done how many steps are behind it."""

    def note(self, text: str) -> None:
        """A line that stays on the screen."""

    def close(self) -> None:
        """The terminal is somebody else's from now on: draw nothing more."""


class _Quiet:
    def stage(self, title: str, total: int | None = None) -> None: ...

    def step(self, text: str, done: int | None = None) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


QUIET: Progress = _Quiet()
