"""A kernel on its way up: what on its console decides its boot, or that it stands still."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

_LOOK_S = 1.0


class Heard(Protocol):
    """What is needed of rig.console.Console."""

    def size(self) -> int: ...
    def progress(self) -> int: ...
    def expect(self, pattern: str | Sequence[str], timeout_s: float) -> str: ...


class StandsStillError(Exception):
    """It has shown no progress for a while: what it did not do, in words that follow its name.

    mute: it never said anything.
    """

    def __init__(self, words: str, *, mute: bool) -> None:
        super().__init__(words)
        self.mute = mute


def decided(console: Heard, wanted: Sequence[str], limit_s: float, silence_s: float) -> str:
    """The first text that matches one of the wanted expressions.

    Raises StandsStillError after silence_s in which nothing came but reports of just that,
    TimeoutError after limit_s, and EOFError and InfrastructureError as Console.expect does.
    """
    began = latest = time.monotonic()
    known, size = console.progress(), console.size()
    while True:
        try:
            return console.expect(wanted, min(_LOOK_S, silence_s / 4))
        except TimeoutError:
            now = time.monotonic()
        if (progress := console.progress()) != known:
            known, latest, size = progress, now, console.size()
        elif now - latest > silence_s:
            heard = console.size()
            words = f"printed nothing {'more ' if heard else ''}in {silence_s:.0f} s"
            if heard > size:
                words += " but that it stands still"
            raise StandsStillError(words, mute=not heard)
        if now - began > limit_s:
            raise TimeoutError(f"did not reach login in {limit_s:.0f} s")


__all__ = ["StandsStillError", "decided"]
