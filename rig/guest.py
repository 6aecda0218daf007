"""A booted machine with a session, and what is seen when one program runs in it."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from rig import splat
from rig.errors import InfrastructureError
from rig.machine import wire
from rig.results import Splat
from rig.session import ConnectionLost, Finished, SessionTimeout
from rig.shelf import MOUNT, PLACE, Shelf
from rig.suite import BuiltSuite, Program
from rig.verdict import End, Observation
from rig.vigil import Vigil

# Wall seconds on a machine of slowdown 1.
_MARK_TIMEOUT_S = 10.0
_LAST_WORDS_S = 10.0
_MOUNT_TIMEOUT_S = 60.0
# For so long a mark that came through is proof that the console speaks.
_FRESH_S = 1.0

_RESULT = re.compile(rb"^(?:not )?ok \d", re.MULTILINE)
# What a console says in place of lines that its buffer had no room for (kernel/printk/printk.c,
# console_prepend_dropped): anything may have been among them.
_DROPPED = re.compile(r"\*\* (\d+) printk messages dropped \*\*")

# Marks are written at the level of a WARNING (4): a console that hides those would hide a splat,
# and then the mark does not come back either. stderr joins stdout as kselftest/runner.sh does it.
_WRITE_MARK = 'echo "<4>$0" > /dev/kmsg'
_RUN_PROGRAM = 'echo "<4>$0" > /dev/kmsg; exec "$@" 2>&1'


class Console(Protocol):
    """What is needed of rig.console.Console."""

    @property
    def path(self) -> Path: ...
    @property
    def closed(self) -> bool: ...
    def mark(self, text: str, timeout_s: float) -> None: ...
    def text(self) -> str: ...
    def progress(self) -> int: ...
    def wait_closed(self, timeout_s: float) -> bool: ...


class Session(Protocol):
    """What is needed of rig.session.Session."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        on_output: Callable[[str, bytes], None] | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Finished: ...
    def put(self, local: Path, remote: str) -> None: ...
    def answers(self, timeout_s: float) -> bool: ...
    def close(self) -> None: ...


class Machine(Protocol):
    """What is needed of rig.machine.Machine."""

    @property
    def console(self) -> Console: ...
    @property
    def slowdown(self) -> float: ...
    def alive(self) -> bool: ...
    def panicked(self) -> bool: ...
    def slipped(self) -> bool: ...
    def diagnose(self) -> str: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Modules:
    """What belongs to a kernel beside itself, and where it is looked for in a guest."""

    directory: Path
    place: str


class Guest:
    """One boot, until something happens that makes it unfit for the next program.

    load: deadlines are this many times as long, for machines that share too few cores.
    """

    def __init__(
        self,
        machine: Machine,
        session: Session,
        shelf: Shelf | None = None,
        modules: Modules | None = None,
    ) -> None:
        """shelf: what the machine's second disk is full of, where suites need not be copied.
        modules: of its kernel; they are there before any suite is.
        """
        self.machine = machine
        self.fit = True
        self.load = 1.0
        self._session = session
        self._shelf, self._modules = shelf, modules
        self._suites: dict[Path, str] = {}
        self._numbers = itertools.count(1)
        self._nonce = secrets.token_hex(4)
        self._heard = 0  # characters of the console that have been judged
        self._scanner, self._told = splat.Scanner(), set[int]()  # who judged; lines of those told
        self._proven = -math.inf  # when a mark last came through
        self._counted = 0  # characters of the console that were searched for lost lines

    def run(self, program: Program, built: BuiltSuite) -> Observation:
        """Run a program and watch it to its end, whatever that is.

        Raises InfrastructureError when its suite cannot be put into the guest.
        """
        label = f"rig-mark {self._nonce}.{next(self._numbers)} {program.suite}/{program.name}"
        taken = _Taken()
        try:
            self.place(built)
        except ConnectionLost as error:
            return self._lost(taken, str(error))
        try:
            finished = self._execute(program, built, f"{label} begins", taken)
        except (SessionTimeout, ConnectionLost) as error:
            late = taken.overdue or taken.hung or isinstance(error, SessionTimeout)
            return self._timed_out(program, taken) if late else self._lost(taken, str(error))
        if taken.overdue or taken.hung:
            return self._timed_out(program, taken)
        try:
            self._prove(label)
        except ConnectionLost as error:
            return self._lost(taken, str(error))
        except (SessionTimeout, TimeoutError, EOFError) as error:
            words = f"the mark before or after the program did not come through ({error})"
            return self._silent(taken, words)
        if lost := self._dropped(f"{label} ended"):
            return self._silent(taken, f"{lost} before it ended")
        seen = taken.observe(End.EXITED, self.listen(f"{label} ended"))
        self.fit = not seen.splats
        return replace(seen, exit_code=finished.exit_code, duration_s=finished.duration_s)

    def listen(self, until: str = "") -> tuple[Splat, ...]:
        """The splats on the console since the last time, up to the line with `until`.

        The console is scanned from power-on, each part of it once: what a second boot banner means
        depends on what came before.
        """
        text = self.machine.console.text()
        whole = bool(until) or not self.machine.console.closed  # half a line is none yet
        end = text.rfind(until) if until else len(text)
        return self._judged(text.rfind("\n", 0, end) + 1 if whole else end)

    def _judged(self, end: int) -> tuple[Splat, ...]:
        """What was not told yet of the console up to there (in characters)."""
        if end <= self._heard:
            return ()
        new, self._heard = self.machine.console.text()[self._heard : end], end
        found = self._scanner.feed(new.encode(errors="replace")) + self._scanner.ended_here()
        # Not by where it begins: its first line may have been no report yet the last time.
        fresh = sorted((o for o in found if o.start not in self._told), key=lambda o: o.start)
        self._told |= {one.start for one in fresh}
        return tuple(fresh)

    def farewell(self, *, brief: bool = False) -> tuple[Splat, ...]:
        """Splats since the last program; proves first that the console still speaks.

        brief: where a program has only just ended, its own last mark is proof enough.
        Raises ConnectionLost, SessionTimeout, TimeoutError or EOFError when it does not.
        """
        label = f"rig-mark {self._nonce}.{next(self._numbers)} farewell"
        if not (brief and time.monotonic() - self._proven < _FRESH_S):
            self._write_mark(label)
            self.machine.console.mark(label, self._deadline(_MARK_TIMEOUT_S))
        elif not self.machine.alive():
            raise ConnectionLost("it runs no more")
        if lost := self._dropped():
            raise EOFError(f"the console is no proof: {lost}")
        return self.listen()

    def place(self, built: BuiltSuite) -> str:
        """Where the suite lies in the guest; put there the first time.

        Raises ConnectionLost, or InfrastructureError when the guest does not take it.
        """
        if built.directory not in self._suites:
            self._put_modules()
            name = self._shelf.name(built.directory) if self._shelf else ""
            try:
                self._suites[built.directory] = self._taken(name) if name else self._put(built)
            except SessionTimeout as error:
                raise InfrastructureError(
                    f"suite {built.suite.name} could not be put into the guest: {error}"
                ) from error
        return self._suites[built.directory]

    def ask(self, script: str) -> str:
        """What a shell script in the guest says; InfrastructureError where it fails, or
        ConnectionLost, SessionTimeout.
        """
        self._put_modules()
        done = self._session.run(["sh", "-c", script], timeout_s=self._deadline(_MOUNT_TIMEOUT_S))
        if done.exit_code:
            raise InfrastructureError(
                "the guest could not be asked about itself",
                output=(done.stdout + done.stderr)[-2000:].decode(errors="replace"),
            )
        return done.stdout.decode(errors="replace")

    def close(self) -> None:
        """End the session and the machine; nothing is left behind."""
        self.fit = False
        try:
            self._session.close()
        finally:
            self.machine.close()

    # ------------------------------------------------------------------------------------------

    def _taken(self, name: str) -> str:
        """A suite of the shelf, which is mounted when the first one is asked for."""
        if not self._suites:
            argv = ["sh", "-c", MOUNT]
            done = self._session.run(argv, timeout_s=self._deadline(_MOUNT_TIMEOUT_S))
            if done.exit_code:
                raise InfrastructureError(
                    "the guest cannot mount its second disk, which has the suites",
                    output=(done.stdout + done.stderr)[-2000:].decode(errors="replace"),
                )
        return f"{PLACE}/{name}"

    def _put_modules(self) -> None:
        if self._modules:
            try:
                self._session.put(self._modules.directory, self._modules.place)
            except SessionTimeout as error:
                raise InfrastructureError(
                    f"the kernel's modules could not be put into the guest: {error}"
                ) from error
        self._modules = None

    def _put(self, built: BuiltSuite) -> str:
        """Copy a suite over the session."""
        name = re.sub(r"[^\w.-]", "_", built.suite.name)
        place = f"{PLACE}/{len(self._suites)}-{name}"
        self._session.put(built.directory, place)
        return place

    def _execute(self, program: Program, built: BuiltSuite, mark: str, taken: _Taken) -> Finished:
        """A case without a result in time ends the session: the guest is dropped with it."""
        place = self.place(built)
        vigil = Vigil(Sight(self.machine, self._session), self._deadline(1.0), self._session.close)
        taken.vigil = vigil
        limit_s = self._deadline(program.case_timeout_s)
        with vigil.keep(taken.size), taken.watched(limit_s, self._session.close):
            return self._session.run(
                ["sh", "-c", _RUN_PROGRAM, mark, *program.argv],
                timeout_s=self._deadline(program.timeout_s),
                on_output=taken.add,
                cwd=f"{place}/{built.workdir}",
                env=dict(program.env),
            )

    def _prove(self, label: str) -> None:
        """Both marks came through: the console was there and showed all that was said between."""
        self.machine.console.mark(f"{label} begins", self._deadline(_MARK_TIMEOUT_S))
        self._write_mark(f"{label} ended")
        self.machine.console.mark(f"{label} ended", self._deadline(_MARK_TIMEOUT_S))
        self._proven = time.monotonic()

    def _write_mark(self, text: str) -> None:
        self._session.run(
            ["sh", "-c", _WRITE_MARK, text], timeout_s=self._deadline(_MARK_TIMEOUT_S)
        )

    def _timed_out(self, program: Program, taken: _Taken) -> Observation:
        self.fit = False
        if taken.hung:
            words = taken.vigil.found if taken.vigil else ""
        elif taken.overdue:
            case = f"case {taken.results + 1} gave no result"
            words = f"{case} within {self._limit(program.case_timeout_s)}"
        else:
            words = f"it did not end within {self._limit(program.timeout_s)}"
        seen = taken.observe(End.TIMEOUT, self.listen(), words)
        if not self.machine.alive():
            return replace(seen, end=End.LOST, detail="the machine went away")
        diagnosis = self.machine.diagnose()
        # What it says to being asked is no report of its own, its panic by our NMI least of all.
        self._judged(len(self.machine.console.text()))
        return replace(seen, diagnosis=diagnosis)

    def _lost(self, taken: _Taken, words: str) -> Observation:
        self.fit = False
        self.machine.console.wait_closed(self._deadline(_LAST_WORDS_S))
        if self.machine.panicked():
            return taken.observe(End.LOST, self.listen(), "the guest panicked")
        if self.machine.alive():
            words = f"the machine runs, but cannot be reached ({words})"
            return taken.observe(End.CUT_OFF, self.listen(), words)
        return taken.observe(End.LOST, self.listen(), f"the machine went away ({words})")

    def _dropped(self, until: str = "") -> str:
        """What the console lost since the last time, up to `until`, of the boot as well; "" for
        nothing.
        """
        text = self.machine.console.text()
        start, self._counted = self._counted, text.rfind(until)
        lines = sum(int(found[1]) for found in _DROPPED.finditer(text, start, self._counted))
        if lines:
            return f"{lines} printk messages were dropped"
        return "the console was lost" if wire.gaps(text[start : self._counted]) else ""

    def _silent(self, taken: _Taken, words: str) -> Observation:
        """The program ended, but the console was closed, or swallowed a mark or lines."""
        self.fit = False
        if not self.machine.alive():
            return self._lost(taken, words)
        return taken.observe(End.SILENT, self.listen(), words)

    def _limit(self, seconds: float) -> str:
        """For a person."""
        slower, had = self.machine.slowdown * self.load, f"{self._deadline(seconds):.0f} s"
        return had if slower == 1 else f"{had} ({seconds:.0f} s, slowdown {slower:.1f})"

    def _deadline(self, seconds: float) -> float:
        return seconds * self.machine.slowdown * self.load


class Sight:
    """A machine and its session, as they are looked at."""

    def __init__(self, machine: Machine, session: Session) -> None:
        self._machine, self._session = machine, session

    def panicked(self) -> bool:
        return self._machine.panicked()

    def progress(self) -> int:
        return self._machine.console.progress()

    def answers(self, timeout_s: float) -> bool:
        return self._session.answers(timeout_s)


class _Taken:
    """A program's output as it comes, and since when.

    overdue: a result did not come in time, and the watching was ended for that. vigil: what has
    been looking after the machine meanwhile.
    """

    def __init__(self) -> None:
        self._output = bytearray()
        self._started = time.monotonic()
        self._result_times: list[float] = []
        self._last_news = self._started
        self._over = threading.Event()
        self.overdue = False
        self.vigil: Vigil | None = None

    @property
    def hung(self) -> bool:
        """The machine did not answer any more, and the watching was ended for that."""
        return self.vigil is not None and self.vigil.hung

    def size(self) -> int:
        """Bytes of output so far."""
        return len(self._output)

    @property
    def results(self) -> int:
        """How many results have come."""
        return len(self._result_times)

    @contextlib.contextmanager
    def watched(self, limit_s: float, give_up: Callable[[], object]) -> Iterator[None]:
        """The time the program runs; give_up is called when limit_s (0: none) bring no result."""
        self._started = self._last_news = time.monotonic()
        watcher = threading.Thread(target=self._watch, args=(limit_s, give_up), daemon=True)
        if limit_s:
            watcher.start()
        try:
            yield
        finally:
            self._over.set()
            if limit_s:
                watcher.join()

    def _watch(self, limit_s: float, give_up: Callable[[], object]) -> None:
        while (left := self._last_news + limit_s - time.monotonic()) > 0:
            if self._over.wait(left):
                return
        self.overdue = True
        give_up()

    def add(self, _stream: str, data: bytes) -> None:
        line_start = self._output.rfind(b"\n") + 1
        self._output += data
        now = time.monotonic() - self._started
        whole = self._output.rfind(b"\n") + 1
        results = _RESULT.findall(self._output, line_start, max(line_start, whole))
        self._result_times += [now] * len(results)
        if results:
            self._last_news = self._started + now

    def observe(self, end: End, splats: tuple[Splat, ...], detail: str = "") -> Observation:
        return Observation(
            end,
            output=self._output.decode(errors="replace"),
            duration_s=time.monotonic() - self._started,
            splats=splats,
            detail=detail,
            result_times=tuple(self._result_times),
        )
