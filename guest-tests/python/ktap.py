# SPDX-License-Identifier: GPL-2.0
"""Runs the test functions of a program and reports them as KTAP."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType, TracebackType

CASE_TIMEOUT_S = 60
"""Time one case may take; far more than any needs on the slowest machine."""

EXIT_PASS = 0
EXIT_FAIL = 1
EXIT_SKIP = 4


class Skip(BaseException):
    """Raised by a case that cannot be tried here; its argument says why."""


class BailOut(BaseException):
    """Raised when no further case can mean anything; its argument says why."""


class CaseTimeout(BaseException):
    """The case ran out of time. Not an Exception, so that no case swallows it."""


def equal(seen: object, wanted: object) -> None:
    """Raises AssertionError with both values unless they are equal."""
    if seen != wanted:
        raise AssertionError(f"expected {wanted!r}, got {seen!r}")


def true(seen: object, what: str) -> None:
    """Raises AssertionError with `what` unless `seen` is true."""
    if not seen:
        raise AssertionError(f"not so: {what}")


def raises(number: int, call: Callable[[], object]) -> None:
    """Raises AssertionError unless `call` raises OSError with this errno."""
    try:
        value = call()
    except OSError as error:
        equal(error.errno, number)
        return
    raise AssertionError(f"expected errno {number}, got the value {value!r}")


@dataclass
class _Outcome:
    """Holds what became of one case; as a context manager it lets no exception but BailOut out."""

    ok: bool = True
    directive: str = ""
    diagnostics: list[str] = field(default_factory=list)

    def __enter__(self) -> _Outcome:
        signal.alarm(CASE_TIMEOUT_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> bool:
        signal.alarm(0)
        if isinstance(error, BailOut):
            return False
        if isinstance(error, Skip):
            self.directive = f" # SKIP {error}"
        elif error is not None:
            self.ok = False
            text = "".join(traceback.format_exception(kind, error, where))
            self.diagnostics = text.splitlines()
        return True


@dataclass
class Suite:
    """The cases of one program, in the order of their definition."""

    cases: list[Callable[[], None]] = field(default_factory=list)

    def case(self, function: Callable[[], None]) -> Callable[[], None]:
        """Decorator: adds a function without arguments as a case of the same name."""
        self.cases.append(function)
        return function

    def run(self) -> int:
        """Runs all cases, writes KTAP to standard output, returns the exit code."""
        signal.signal(signal.SIGALRM, _time_is_up)
        _say("TAP version 13")
        _say(f"1..{len(self.cases)}")
        failed = skipped = 0
        for number, function in enumerate(self.cases, start=1):
            outcome = _Outcome()
            try:
                with outcome:
                    function()
            except BailOut as reason:
                _say(f"Bail out! {reason}")
                return EXIT_FAIL
            for line in outcome.diagnostics:
                _say(f"# {line}")
            verdict = "ok" if outcome.ok else "not ok"
            _say(f"{verdict} {number} {function.__name__}{outcome.directive}")
            failed += not outcome.ok
            skipped += bool(outcome.directive)
        _say(f"# Totals: pass:{len(self.cases) - failed - skipped} fail:{failed} skip:{skipped}")
        if failed:
            return EXIT_FAIL
        return EXIT_SKIP if skipped == len(self.cases) else EXIT_PASS


def diagnostic(text: str) -> None:
    """Writes lines that accompany the case in progress."""
    for line in text.splitlines():
        _say(f"# {line}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _time_is_up(_signal: int, _frame: FrameType | None) -> None:
    raise CaseTimeout(f"no end after {CASE_TIMEOUT_S} s")
