"""Looks after a machine while a program runs in it: has it panicked, does it still answer?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

LOOK_S = 0.25  # a panic is known after so long
# Wall seconds on a machine of slowdown 1.
LAST_WORDS_S = 5.0
QUIET_S, ANSWER_S, TIMES = 20.0, 20.0, 2


class Looked(Protocol):
    """What is looked at. progress: another number once it has shown that it goes on. answers:
    whether somebody lets us in within so many seconds.
    """

    def panicked(self) -> bool: ...
    def progress(self) -> int: ...
    def answers(self, timeout_s: float) -> bool: ...


class _Question:
    """Whether the machine answers, asked in a thread: that may take as long as it may take."""

    def __init__(self, machine: Looked, timeout_s: float) -> None:
        self.over = self.answered = False
        threading.Thread(target=self._ask, args=(machine, timeout_s), daemon=True).start()

    def _ask(self, machine: Looked, timeout_s: float) -> None:
        try:
            self.answered = machine.answers(timeout_s)
        finally:
            self.over = True


@dataclass
class Vigil:
    """One watch over one program.

    slower: all deadlines are this many times as long. found: what was seen, "" while all is well.
    hung: the machine does not answer, though it has not panicked.
    """

    machine: Looked
    slower: float
    give_up: Callable[[], object]
    quiet_s: float = QUIET_S
    answer_s: float = ANSWER_S
    found: str = ""
    hung: bool = False
    _whole: bool = False

    @contextmanager
    def keep(self, heard: Callable[[], int]) -> Iterator[None]:
        """The time the program runs. heard: how much it has printed.

        Ends it, by give_up, once the machine has panicked and had its last words, or when there
        was no line on the console (but that it stands still), no output and no answer for as long
        as `bound_s` says.
        """
        over = threading.Event()
        watcher = threading.Thread(target=self._watched, args=(heard, over), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            # It may just be waiting for an answer; nobody has to wait with it.
            watcher.join(2 * LOOK_S)
            if not watcher.is_alive() and not self._whole:
                raise RuntimeError("the machine was not watched to the end")

    @property
    def bound_s(self) -> float:
        """Seconds after which a machine that is silent is called hung."""
        return (self.quiet_s + TIMES * self.answer_s) * self.slower

    def _watched(self, heard: Callable[[], int], over: threading.Event) -> None:
        """A program that nobody watches does not go on."""
        try:
            self._watch(heard, over)
            self._whole = True
        finally:
            if not self._whole:
                self.give_up()

    def _watch(self, heard: Callable[[], int], over: threading.Event) -> None:
        known, since, failed = (-1, -1), time.monotonic(), 0
        question: _Question | None = None
        while not over.wait(LOOK_S):
            # Also while an answer is waited for: what hangs may panic, by a watchdog of its own.
            if self.machine.panicked():
                self._panicked(over)
                return
            if question and not question.over:
                continue
            if question:
                failed = 0 if question.answered else failed + 1
                since = time.monotonic() if question.answered else since
                question = None
            now = (self.machine.progress(), heard())
            if now != known:
                known, since, failed = now, time.monotonic(), 0
            elif failed >= TIMES:
                self._hangs()
                return
            elif time.monotonic() - since > self.quiet_s * self.slower:
                question = _Question(self.machine, self.answer_s * self.slower)

    def _panicked(self, over: threading.Event) -> None:
        """The report is still being printed; a machine that does not end by itself is ended."""
        self.found = "the guest panicked"
        if not over.wait(LAST_WORDS_S * self.slower):
            self.give_up()

    def _hangs(self) -> None:
        self.hung = True
        self.found = f"the machine hangs: no line, no output, no answer in {self.bound_s:.0f} s"
        self.give_up()
