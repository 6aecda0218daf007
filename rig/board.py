"""What several machines do at once, told to a watching person as one stage."""

from __future__ import annotations

import threading

from rig.progress import Progress


class Board:
    """A Progress for many threads.

    Only the main thread's words are handed on: what a machine does in a thread of its own is told
    by began() and ended(), and all of that together is what the stage works on now.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.RLock()
        self._names: dict[int, str] = {}
        self._done = 0

    def begin(self, title: str, total: int) -> None:
        """From now on machines work side by side for total programs."""
        with self._lock:
            self._done = 0
            self._progress.stage(title, total)

    def began(self, machine: int, name: str) -> None:
        """A machine (counted from 0) begins a program."""
        with self._lock:
            self._names[machine] = name
            self._tell()

    def ended(self, machine: int) -> None:
        """It has ended it."""
        with self._lock:
            self._done += 1
            del self._names[machine]
            self._tell()

    def stage(self, title: str, total: int | None = None) -> None:
        """As Progress."""
        with self._lock:
            if _is_main():
                self._progress.stage(title, total)

    def step(self, text: str, done: int | None = None) -> None:
        """As Progress."""
        with self._lock:
            if _is_main():
                self._progress.step(text, done)

    def note(self, text: str) -> None:
        """As Progress; every thread's."""
        with self._lock:
            self._progress.note(text)

    def close(self) -> None:
        """As Progress."""
        with self._lock:
            self._progress.close()

    def _tell(self) -> None:
        words = (f"{number + 1}: {self._names[number]}" for number in sorted(self._names))
        self._progress.step("  ".join(words), self._done)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
