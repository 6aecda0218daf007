"""The machine protocol and its kinds."""

from __future__ import annotations

from typing import Protocol

from rig.console import Console
from rig.session import Endpoint


class Machine(Protocol):
    """Something a kernel runs on, from power-on to the end. Used once, then closed.

    facts: for the report. notices: sentences every verdict must show. slowdown: how much slower
    than a current machine of its own this one is; every deadline is multiplied by it.
    """

    @property
    def console(self) -> Console: ...

    @property
    def endpoint(self) -> Endpoint: ...

    @property
    def facts(self) -> dict[str, str]: ...

    @property
    def notices(self) -> tuple[str, ...]: ...

    @property
    def slowdown(self) -> float: ...

    def boot(self) -> None:
        """Power on; returns when SSH answers, raises BootError with the console's end."""

    def alive(self) -> bool:
        """The machine runs: not powered off, its process still there."""

    def panicked(self) -> bool:
        """The guest has said that it panicked, by a way of its own. From any thread."""

    def slipped(self) -> bool:
        """What ended the kernel was its emulator's known fault, and nothing of its own."""

    def diagnose(self) -> str:
        """What the machine's tasks are stuck in, asked for over the console; takes seconds."""

    def close(self) -> None:
        """Power off and leave nothing behind; idempotent."""


__all__ = ["Machine"]
