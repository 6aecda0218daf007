"""The cells of a matrix on this host: side by side within its cores and memory, to their end."""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from rig import budget, process
from rig.config import Config, MachineConfig
from rig.errors import (
    BuildError,
    InfrastructureError,
    LostMachineError,
    RigError,
    UsageError,
)
from rig.matrix import Cell
from rig.results import Case, Status, load_run
from rig.store import digest, write_whole

STATE = "matrix.json"
TRIES = 2  # of a cell whose machine or host was lost
_TIDY_S = 120.0  # for a rig that is interrupted
_LOOK_S = 0.2
# Their first lines say why; a kernel that does not compile is no cell's own fault.
LOST = (InfrastructureError.exit_code, LostMachineError.exit_code)


class End(enum.StrEnum):
    """What became of a cell. Only the first is good; a cell that is not run is no pass."""

    PASS = "pass"
    FAIL = "fail"
    LOST = "lost"
    UNBUILT = "unbuilt"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Told:
    """One cell's end. code: its last exit code. before: those of the tries that were lost before.
    counts: its cases by status. seconds: of its last try. place: of its results, below the
    matrix's. allowed: why it may fail. again: the command that runs it by itself. kernel, machine,
    suite: what it is of.
    """

    cell: str
    end: End = End.NOT_RUN
    code: int = 0
    tries: int = 0
    seconds: float = 0.0
    why: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    place: str = ""
    allowed: str = ""
    again: str = ""
    kernel: str = ""
    machine: str = ""
    suite: str = ""
    before: tuple[int, ...] = ()

    def of(self, cell: Cell) -> Told:
        """The same with what is known of its cell."""
        return replace(
            self,
            allowed=cell.allowed,
            again=cell.command,
            kernel=cell.kernel,
            machine=cell.machine,
            suite=cell.suite,
        )

    @property
    def saved(self) -> str:
        """Its saved run, below the matrix's results; there may be none."""
        return f"{self.place}/run-{self.tries}.json" if self.place else ""

    @property
    def final(self) -> bool:
        """Whether it need not be run again when the matrix goes on."""
        return self.end in (End.PASS, End.FAIL)

    @property
    def vanished(self) -> bool:
        """Whether its machine went away without a word in a try before: a kernel may do that."""
        return LostMachineError.exit_code in self.before


@dataclass(frozen=True)
class State:
    """A matrix so far: of which commit and which cells, and what became of each."""

    commit: str
    matrix: str
    cells: tuple[Told, ...]

    def exit_code(self, cells: Sequence[Cell]) -> int:
        """0 when every cell passed that may not fail."""
        ends = {one.cell: one.end for one in self.cells}
        return int(any(ends[c.name] is not End.PASS for c in cells if not c.allowed))


@dataclass(frozen=True)
class Request:
    """What is to be run. results: of the matrix, where it goes on if it was begun there. jobs: how
    many cells at a time at most, 0 for what fits. rig: the command that is `rig`.
    """

    cells: tuple[Cell, ...]
    results: Path
    commit: str
    jobs: int = 0
    rig: tuple[str, ...] = (sys.executable, "-m", "rig")


def begun(request: Request) -> State:
    """The state to go on from; UsageError where another matrix, or commit, was begun there, or
    nobody can tell.
    """
    mark = digest(*(cell.command for cell in request.cells))[:16]
    those = tuple(Told(cell.name).of(cell) for cell in request.cells)
    fresh = State(request.commit, mark, those)
    if not (request.results / STATE).exists():
        return fresh
    found = load(request.results)
    if not fresh.commit:
        raise UsageError(
            f"{request.results} has a matrix of before, and without git nobody can tell of what",
            hint="--results with a new directory begins anew",
        )
    if (found.commit, found.matrix) != (fresh.commit, fresh.matrix):
        what = "commit" if found.commit != fresh.commit else "matrix"
        raise UsageError(
            f"{request.results} has another {what} of before",
            hint="--results with a new directory begins anew",
        )
    kept = {one.cell: one for one in found.cells if one.final}
    return replace(fresh, cells=tuple(kept.get(one.cell, one) for one in fresh.cells))


def load(results: Path) -> State:
    """What was saved there; InfrastructureError where it cannot be read."""
    path = results / STATE
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except (OSError, msgspec.MsgspecError) as error:
        raise InfrastructureError(f"{path}: no state of a matrix: {error}") from error


def commit(root: Path) -> str:
    """Of the checkout; where something in it is not as committed, or is not in it, with "+" and a
    digest of that behind it. "" where there is no git: what is in a directory of results has to be
    of one state of everything.
    """

    def git(*words: str) -> process.Completed:
        return process.run(["git", *words], cwd=root, timeout_s=60, check=False, separate=True)

    head, changed = git("rev-parse", "HEAD"), git("diff", "--binary", "HEAD")
    ours = git("ls-tree", "-d", "--name-only", "HEAD")
    # Not what lies beside all that: somebody's notes, or results that this is writing.
    listed = ["ls-files", "-z", "--others", "--exclude-standard", "--"]
    others = git(*listed, *ours.output.splitlines()) if ours.output.strip() else None
    if head.returncode or changed.returncode or ours.returncode or (others and others.returncode):
        return ""
    names = sorted(filter(None, others.output.split("\0"))) if others else []
    own = [changed.output, *(f"{name} {_content(root / name)}" for name in names)]
    more = f"+{digest(*own)[:8]}" if any(own) else ""
    return head.output.strip()[:12] + more


def _content(path: Path) -> str:
    try:
        return digest(path)
    except OSError as error:  # it went meanwhile, or nobody may read it
        return error.strerror or "unreadable"


class Runner:
    """Runs what has no end yet. State is on disk after each: who kills it loses what runs."""

    def __init__(
        self,
        request: Request,
        config: Config,
        tell: Callable[[str], None] = lambda words: None,
        host: budget.Host | None = None,
    ) -> None:
        self.state = begun(request)
        self._request, self._config, self._tell = request, config, tell
        self._host = host or budget.this_host()
        self._by_name = {cell.name: cell for cell in request.cells}
        self._changed = threading.Condition()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._taken: dict[str, tuple[int, int]] = {}  # cores and MiB of what runs
        self._unbuilt: dict[str, str] = {}
        self._stop = False

    def run(self) -> State:
        """All of it; KeyboardInterrupt ends what runs, and it goes on with the next call."""
        request = self._request
        request.results.mkdir(parents=True, exist_ok=True)
        self._save()
        waiting = [self._by_name[one.cell] for one in self.state.cells if not one.final]
        threads: list[threading.Thread] = []
        try:
            for kernel in dict.fromkeys(cell.kernel for cell in waiting):
                self._build(kernel)
                for cell in (one for one in waiting if one.kernel == kernel):
                    self._admit(cell)
                    one = threading.Thread(target=self._cell, args=(cell,), name=cell.name)
                    threads.append(one)
                    one.start()
            for one in threads:
                while one.is_alive():
                    one.join(_LOOK_S)
        except BaseException:
            self._interrupt()
            for one in threads:
                one.join()
            raise
        return self.state

    # -- kernels ----------------------------------------------------------------------------------

    def _build(self, kernel: str) -> None:
        """By itself, with all cores: cells would only wait for it."""
        with self._changed:
            while self._taken:
                self._changed.wait(_LOOK_S)
        self._tell(f"building {kernel}")
        log = self._request.results / f"build-{kernel}.log"
        code = self._run(f"build {kernel}", ["build", kernel], log)
        if code in LOST or code < 0:
            self._tell(f"building {kernel} once more: exit code {code}, {log.name}")
            code = self._run(f"build {kernel}", ["build", kernel], log)
        if code == 130:
            raise KeyboardInterrupt
        if code:
            self._unbuilt[kernel] = f"rig build {kernel} ended with exit code {code}: {log.name}"

    # -- cells ------------------------------------------------------------------------------------

    def _admit(self, cell: Cell) -> None:
        """Wait until there is room for it; where nothing runs there is."""
        own = needs(cell, self._config)
        with self._changed:
            while self._taken and not self._fits(own):
                self._changed.wait(_LOOK_S)
            self._taken[cell.name] = own

    def _fits(self, own: tuple[int, int]) -> bool:
        cores, mib = (sum(one) for one in zip(own, *self._taken.values(), strict=True))
        few = not self._request.jobs or len(self._taken) < self._request.jobs
        return few and cores <= self._host.cores and mib <= self._host.memory_mib

    def _cell(self, cell: Cell) -> None:
        told = Told(cell.name).of(cell)
        try:
            told = self._tried(cell)
        except (RigError, OSError) as error:
            told = replace(told, end=End.LOST, code=InfrastructureError.exit_code, why=str(error))
        finally:
            with self._changed:
                del self._taken[cell.name]
                self._changed.notify_all()
        with self._changed:
            if self._stop and not told.final:
                return
            cells = tuple(told if one.cell == cell.name else one for one in self.state.cells)
            self.state = replace(self.state, cells=cells)
            self._save()
        self._tell(line(cell, told))

    def _tried(self, cell: Cell) -> Told:
        if cell.kernel in self._unbuilt:
            return unbuilt(cell, self._unbuilt[cell.kernel])
        told = Told(cell.name).of(cell)
        while not self._stop and told.tries < TRIES and told.end in (End.NOT_RUN, End.LOST):
            results = self._request.results
            told = once(
                cell, told.tries + 1, results, lambda w, log: self._run(cell.name, w, log), told
            )
        return told

    def _run(self, name: str, words: Sequence[str], log: Path) -> int:
        """The exit code of a rig, what it says in a log."""
        argv = (*self._request.rig, "--quiet", *words)
        with log.open("wb") as file:
            with self._changed:
                if self._stop:
                    return 130
                started = process.spawn(
                    argv, cwd=self._config.root, stdout=file, stderr=subprocess.STDOUT
                )
                self._running[name] = started
            try:
                code = started.wait()
            except BaseException:
                _ask_to_end([started])
                raise
            finally:
                process.end(started)
                with self._changed:
                    self._running.pop(name, None)
        return code

    def _interrupt(self) -> None:
        """As Ctrl-C would: each rig ends its machines and saves what it has."""
        with self._changed:
            self._stop = True
            those = [*self._running.values()]
        _ask_to_end(those)

    def _save(self) -> None:
        save(self.state, self._request.results)


def once(
    cell: Cell,
    number: int,
    results: Path,
    run: Callable[[Sequence[str], Path], int],
    before: Told | None = None,
) -> Told:
    """The number-th try of a cell. run: a rig with these words, what it says in a log, to its exit
    code. before: what it came to in the try before.
    """
    place = results / "cells" / cell.name
    place.mkdir(parents=True, exist_ok=True)
    saved = place / f"run-{number}.json"
    saved.unlink(missing_ok=True)
    words = cell.words("--results", str(place), "--json", str(saved))
    began = time.monotonic()
    code = run(words, place / f"output-{number}.log")
    seconds = round(time.monotonic() - began, 1)
    end, why, counts = judged(code, saved)
    at = str(place.relative_to(results))
    lost = (*before.before, before.code) if before and before.end is End.LOST else ()
    return Told(cell.name, end, code, number, seconds, why, counts, at, before=lost).of(cell)


def unbuilt(cell: Cell, why: str) -> Told:
    """What a cell comes to whose kernel was not built."""
    return Told(cell.name, End.UNBUILT, BuildError.exit_code, why=why).of(cell)


def needs(cell: Cell, config: Config) -> tuple[int, int]:
    """Cores and MiB of a cell's machine; none of a board's."""
    machine = config.machine(cell.machine)
    if isinstance(machine, MachineConfig):
        return machine.cpus, machine.memory_mib + budget.QEMU_MIB
    return 0, 0


def save(state: State, results: Path) -> None:
    """Write it where the matrix goes on from."""
    text = msgspec.json.format(msgspec.json.encode(state), indent=1).decode()
    write_whole(results / STATE, text + "\n")


def _ask_to_end(those: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt all, then wait for each; what does not end is killed."""
    for one in those:
        if one.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGINT)
    deadline = time.monotonic() + _TIDY_S
    for one in those:
        with contextlib.suppress(subprocess.TimeoutExpired):
            one.wait(max(0.0, deadline - time.monotonic()))
        if one.poll() is None:
            process.end(one)


def judged(code: int, saved: Path) -> tuple[End, str, dict[str, int]]:
    """What a cell's exit code and saved run come to, in words where it is no pass, and its counts.

    Exit code 0 alone is not a pass: the run has to say the same, and to have come to its end.
    """
    if not saved.exists():
        end = End.FAIL if code not in (*LOST, 130) and code >= 0 else End.LOST
        return (End.NOT_RUN if code == 130 else end), f"exit code {code}, and no run was saved", {}
    run = load_run(saved)
    counts = {str(one): count for one in Status if (count := run.count(one))}
    if code == 0 and run.exit_code == 0:
        return End.PASS, "", counts
    if code == 130:
        return End.NOT_RUN, "interrupted", counts
    # What was lost says nothing of the kernel; what it was seen to do before that does.
    lost = code in LOST or code < 0
    bad = next((c for c in run.cases if not c.status.good and not (lost and _of_loss(c))), None)
    said = f"{bad.id}: {bad.status}" if bad else next((s.title for s in run.splats), "")
    if lost and not said:
        return End.LOST, f"exit code {code}", counts
    return End.FAIL, said or f"exit code {code}, and its run says {run.exit_code}", counts


def _of_loss(case: Case) -> bool:
    """Whether a case is what a program comes to that has lost its machine."""
    return case.status is Status.ERROR


# -- for people -----------------------------------------------------------------------------------


def line(cell: Cell, told: Told) -> str:
    """One line for a cell that has come to its end."""
    counts = ", ".join(f"{count} {name}" for name, count in told.counts.items())
    word = told.end.upper() if not cell.allowed or told.end is End.PASS else f"({told.end})"
    codes = ", ".join(f"exit code {code}" for code in told.before)
    again = f", {told.tries} tries{codes and f': {codes} before'}" if told.tries > 1 else ""
    text = f"{word:<9}{cell.name} ({told.seconds:.0f} s{again}) {counts}".rstrip()
    if told.end is End.PASS:
        return text
    why = f"{told.why} (may fail: {cell.allowed})" if cell.allowed else told.why
    return f"{text}\n         {why}\n         again: {cell.command}"


def summary(state: State, cells: Sequence[Cell]) -> list[str]:
    """A grid: a row for each suite and machine, a column for each kernel; below it what they come
    to.
    """
    ends = {one.cell: one.end for one in state.cells}
    kernels = [*dict.fromkeys(cell.kernel for cell in cells)]
    rows = [*dict.fromkeys((cell.suite, cell.machine) for cell in cells)]
    grid = [["", "", *kernels]]
    for suite, machine in rows:
        those = {c.kernel: c for c in cells if (c.suite, c.machine) == (suite, machine)}
        marks = [_mark(those.get(kernel), ends) for kernel in kernels]
        grid.append([suite, machine, *marks])
    widths = [max(len(row[at]) for row in grid) for at in range(len(grid[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in grid]  # fmt: skip
    passed = sum(ends[cell.name] is End.PASS for cell in cells)
    allowed = [c for c in cells if c.allowed and ends[c.name] is not End.PASS]
    words = f"{passed} of {len(cells)} cells passed"
    more = f", {len(allowed)} of the others may fail" if allowed else ""
    vanished = [one.cell for one in state.cells if one.vanished and one.end is End.PASS]
    once_lost = [f"passed in a second try, when its machine had gone away: {name}"
                 for name in vanished]  # fmt: skip
    return [*table, "", words + more, *once_lost]


def _mark(cell: Cell | None, ends: Mapping[str, End]) -> str:
    if cell is None:
        return "-"
    end = ends[cell.name]
    return f"({end})" if cell.allowed and end is not End.PASS else str(end)
