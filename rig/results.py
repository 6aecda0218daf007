"""The verdict values: what a run saw, as frozen data, in and out of JSON."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from rig.errors import InfrastructureError

SCHEMA = 1
BOOT_FAILED = "boot_failed"  # of a Run's machine: why there was none


class Status(enum.StrEnum):
    """How a case ended. A case is born ERROR and must earn PASS."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    ERROR = "error"
    CRASH = "crash"
    TIMEOUT = "timeout"
    FLAKY = "flaky"

    @property
    def good(self) -> bool:
        """True for what may stand in a run whose verdict is green."""
        return self in (Status.PASS, Status.SKIP)


@dataclass(frozen=True)
class Splat:
    """One report the kernel printed about itself.

    type: a word of the splat vocabulary (docs/glossary.md).
    title: one line, kind + function, stable over addresses and numbers.
    start, end: line numbers in the console log, counted from 0; end is exclusive.
    frame: the culprit function, or "".
    text: the report's own lines.
    corrupted: the report was cut or interleaved beyond trust.
    decoded: the text with a source line behind each function of a trace, "" where it is not known.
    place: "file:line" of the culprit. patch: the one of the series that touched that line last, ""
    where that is the pristine source's, or not known.
    """

    type: str
    title: str
    start: int
    end: int
    frame: str = ""
    text: str = ""
    corrupted: bool = False
    decoded: str = ""
    place: str = ""
    patch: str = ""


BOOTS = "machine"  # the suite of what a kernel reports while it boots
NOT_RUN = "not run: "  # what the message of a case begins with whose program never ran


@dataclass(frozen=True)
class Case:
    """One verdict: a KTAP case, or a whole program (name == "") that gave none.

    duration_s: wall seconds, 0.0 where the guest gave no time of its own.
    message: one line why it is not PASS. output: what the program printed about it.
    reproduce: the one command that runs this again.
    """

    suite: str
    program: str
    name: str
    status: Status = Status.ERROR
    duration_s: float = 0.0
    message: str = ""
    output: str = ""
    reproduce: str = ""

    @property
    def id(self) -> str:
        """suite/program or suite/program::name."""
        head = f"{self.suite}/{self.program}"
        return f"{head}::{self.name}" if self.name else head


@dataclass(frozen=True)
class Measurement:
    """One figure: value in unit, how it was taken in `method`."""

    name: str
    value: float
    unit: str
    method: str = ""


@dataclass(frozen=True)
class Run:
    """Everything one invocation saw.

    kernel, machine, image: plain facts for the report (name, release, hashes, accelerator ...).
    notices: sentences every verdict must show ("emulated by TCG: ...").
    consoles: recorded console files, relative to the results directory, one a boot.
    complete: False while running and in the file of a run that was killed.
    """

    id: str
    started: str
    command: str
    kernel: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    image: dict[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    cases: tuple[Case, ...] = ()
    splats: tuple[Splat, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    consoles: tuple[str, ...] = ()
    duration_s: float = 0.0
    complete: bool = False
    schema: int = SCHEMA

    def with_case(self, case: Case) -> Run:
        """This run and one more case."""
        return replace(self, cases=(*self.cases, case))

    def count(self, status: Status) -> int:
        """How many cases ended as `status`."""
        return sum(case.status is status for case in self.cases)

    @property
    def exit_code(self) -> int:
        """0 when all is as expected: complete, at least one case, all good, no splat; else 1."""
        earned = self.complete and any(case.status is Status.PASS for case in self.cases)
        clean = all(case.status.good for case in self.cases) and not self.splats
        return 0 if earned and clean else 1


def to_json(value: Any) -> bytes:
    """Any of the values above (or plain data) as indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def to_line(value: Any) -> str:
    """The same on one line, for streams of objects."""
    return msgspec.json.encode(value).decode()


def load_run(path: Path) -> Run:
    """Read a saved run; InfrastructureError when it cannot be read or is of another schema."""
    try:
        run = msgspec.json.decode(path.read_bytes(), type=Run)
    except (OSError, msgspec.MsgspecError) as error:
        raise InfrastructureError(
            f"{path}: not a saved run: {error}", hint="give the run.json of a results directory"
        ) from error
    if run.schema != SCHEMA:
        raise InfrastructureError(f"{path}: run schema {run.schema}, this rig reads {SCHEMA}")
    return run
