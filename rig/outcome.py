"""What every verb that runs something shares: where results go, lines to paste, how it ended."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rig import report
from rig.config import Config
from rig.errors import InfrastructureError, LostMachineError, RigError, UsageError
from rig.results import Run, Status, to_json
from rig.suite import Program, Suite


@dataclass(frozen=True, kw_only=True)
class Files:
    """Where a run goes: results/<run id>/ under results (default: the checkout's results/), and
    copies in JUnit XML and JSON."""

    results: Path | None = None
    junit: Path | None = None
    json: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: what it saw, where that is kept, the exit code of docs/architecture.md,
    and the error that ended it early or lost a machine, if any."""

    run: Run
    directory: Path
    exit_code: int
    error: RigError | None = None


@dataclass(frozen=True)
class Command:
    """The command line of this run, and of one program of it, to paste."""

    verb: str
    config: Config
    machine: str | None
    words: tuple[str, ...]
    suites: tuple[Suite, ...] = ()

    def whole(self, *more: str) -> str:
        """The run: its suites, then more words."""
        places = [word for one in self.suites for word in self._place(one)]
        return self._line([*places, *more])

    def program(self, of: Suite, program: Program) -> str:
        """One program, of which only those cases run that did."""
        if self.verb == "kselftest":
            return self._line([*self._place(of), "-k", program.name])
        asked = [at + 1 for at, word in enumerate(self.words[:-1]) if word == "--case"]
        names = (program.name, f"{of.name}/{program.name}")
        own = {at for at in asked if self.words[at].partition("::")[0] in names}
        others = {at for word in asked if word not in own for at in (word - 1, word)}
        words = [word for at, word in enumerate(self.words) if at not in others]
        only = [] if own else ["--case", program.name]
        return self._line([*self._place(of), *only], words)

    def _line(self, words: Sequence[str], first: Sequence[str] | None = None) -> str:
        machine = ["--machine", self.machine] if self.machine else []
        first = self.words if first is None else first
        return shlex.join(["rig", self.verb, *first, *machine, *words])

    def _place(self, one: Suite) -> list[str]:
        if self.verb == "kselftest":
            return [one.target]
        known = {self.config.root / path for path in self.config.suites}
        in_toml = one.directory in known and one.name == one.directory.name
        return ["--suite", one.name] if in_toml else ["--tests", str(one.directory)]


def copy(request: Files, run: Run) -> None:
    """--junit and --json."""
    for path, make in ((request.junit, report.junit), (request.json, to_json)):
        if path:
            try:
                path.write_bytes(make(run))
            except OSError as error:
                raise InfrastructureError(f"cannot write {path}: {error.strerror}") from error


def check_places(request: Files) -> None:
    """--junit and --json must be writable before a run of an hour, and not after it."""
    for path in (request.junit, request.json):
        if path and not path.parent.is_dir():
            raise UsageError(f"cannot write {path}: there is no directory {path.parent}")
        if path and (path.is_dir() or not os.access(path.parent, os.W_OK)):
            raise UsageError(f"cannot write {path}", hint="give a file in a directory of yours")


def exit_code(run: Run, error: RigError | None, lost: LostMachineError | None) -> int:
    """Which of the exit codes tells a run.

    What ended it early comes first. A lost machine (6) says nothing about the kernel, so it
    yields to a case that failed (1).
    """
    if error:
        return error.exit_code
    blamed = (Status.FAIL, Status.CRASH, Status.TIMEOUT, Status.FLAKY)
    if lost and not run.splats and not any(case.status in blamed for case in run.cases):
        return lost.exit_code
    return run.exit_code
