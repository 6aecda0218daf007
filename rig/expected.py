"""ci/expected.toml: splats that are allowed and cases that fail, each with reason, link, expiry."""

from __future__ import annotations

import datetime
import fnmatch
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import msgspec

from rig.config import nearest
from rig.errors import UsageError
from rig.results import Case, Splat, Status

FILE = Path("ci/expected.toml")
EXPECTED = "expected: "  # so begins why a case that fails as expected is skipped


@dataclass(frozen=True)
class Line:
    """What every line says. kernels: names of rig.toml, () for all of them. expires: the first day
    on which it does not hold any more.
    """

    reason: str
    link: str
    expires: datetime.date
    kernels: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        """For a notice or a message."""
        return f"{self.reason} ({self.link}), until {self.expires}"


@dataclass(frozen=True, kw_only=True)
class AllowedSplat(Line):
    """title: of the splat, as a report has it; * stands for anything."""

    title: str


@dataclass(frozen=True, kw_only=True)
class ExpectedCase(Line):
    """id: suite/program or suite/program::case; * stands for anything. status: how it ends.
    flaky: it may pass as well.
    """

    id: str
    status: Status = Status.FAIL
    flaky: bool = False


@dataclass(frozen=True)
class Expected:
    """All lines that hold for one kernel today; expired: those that did until some day."""

    splats: tuple[AllowedSplat, ...] = ()
    cases: tuple[ExpectedCase, ...] = ()
    expired: tuple[str, ...] = ()

    def allowed(self, splats: Iterable[Splat]) -> tuple[tuple[Splat, ...], tuple[str, ...]]:
        """The splats that no line allows, and a notice for each of the others. Pure."""
        kept, notices = [], []
        for splat in splats:
            line = next((o for o in self.splats if _fits(splat.title, o.title)), None)
            if line:
                notices.append(f"allowed splat: {splat.title}: {line.why}")
            else:
                kept.append(splat)
        return tuple(kept), tuple(dict.fromkeys(notices))

    def judged(self, cases: Sequence[Case]) -> tuple[Case, ...]:
        """The cases in the light of the lines: what fails as expected is a SKIP that says why; what
        does not fail any more is a FAIL, so that its line goes. Pure.
        """
        return tuple(self._judged(case) for case in cases)

    def _judged(self, case: Case) -> Case:
        line = next((one for one in self.cases if _fits(case.id, one.id)), None)
        if line is None or case.status is Status.SKIP:
            return case
        if case.status is line.status:
            words = f"{EXPECTED}{line.why}: {case.message}"
            return replace(case, status=Status.SKIP, message=words)
        if case.status is Status.PASS and not line.flaky:
            words = f"it passes now: remove its line from {FILE} ({line.why})"
            return replace(case, status=Status.FAIL, message=words)
        return case


NOTHING = Expected()


def _fits(text: str, pattern: str) -> bool:
    """Only * is special: titles and cases have brackets and question marks of their own."""
    special = pattern.replace("[", "[[]").replace("?", "[?]")
    return fnmatch.fnmatchcase(text, special)


def load(root: Path, kernel: str, today: datetime.date | None = None) -> Expected:
    """The lines of a checkout that hold for a kernel of rig.toml; none where it has no such file.

    UsageError, naming file and line, for a line without reason, link or day.
    """
    path = root / FILE
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Expected()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
    for key in data:
        if key not in ("splat", "case"):
            raise UsageError(f"{path}: unknown table {key!r}", hint=nearest(key, ["splat", "case"]))
    splats = _lines(path, "splat", data, AllowedSplat)
    cases = _lines(path, "case", data, ExpectedCase)
    now = today or datetime.datetime.now(datetime.UTC).date()
    every = [*splats, *cases]
    over = [one for one in every if one.expires <= now and _of(one, kernel)]
    return Expected(
        tuple(one for one in splats if one.expires > now and _of(one, kernel)),
        tuple(one for one in cases if one.expires > now and _of(one, kernel)),
        tuple(f"{FILE}: expired: {_name(one)}: {one.why}" for one in over),
    )


def _of(line: Line, kernel: str) -> bool:
    return not line.kernels or kernel in line.kernels


def _name(line: Line) -> str:
    return line.title if isinstance(line, AllowedSplat) else getattr(line, "id", "")


def _lines(path: Path, kind: str, data: dict[str, Any], into: type[Any]) -> list[Any]:
    found = []
    tables = data.get(kind, [])
    if not isinstance(tables, list):
        raise UsageError(f"{path}: write [[{kind}]]")
    known = [one.name for one in fields(into)]
    for number, table in enumerate(tables, 1):
        where = f"{path}: [[{kind}]] number {number}"
        for key in table:
            if key not in known:
                raise UsageError(f"{where}: unknown key {key!r}", hint=nearest(key, known))
        try:
            one = msgspec.convert(table, into)
        except msgspec.ValidationError as error:
            raise UsageError(f"{where}: {error}") from error
        if not all((one.reason.strip(), one.link.strip(), _name(one).strip())):
            raise UsageError(f"{where}: reason, link and what it is about must say something")
        if isinstance(one, ExpectedCase) and one.status.good:
            raise UsageError(f"{where}: status {one.status.value!r} is no failure")
        found.append(one)
    return found
