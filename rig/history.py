"""What became of each case and each figure, run after run, in one SQLite file."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from rig import stats
from rig.config import nearest
from rig.errors import InfrastructureError, UsageError
from rig.results import Run, Status

_Where = TypeVar("_Where", tuple[str, str], tuple[str, str, str])

FILE = "RIG_HISTORY"
_OLD_S = 60 * 86400.0  # what was not run for so long, while its kernel's others were, is no more
_BUSY_S = 60.0
_MOST_WORDS = 300
_NEW_S = 60.0  # an empty file that is younger may be another rig's, which is about to fill it
# In the file a status is its place here: append only.
_STATUSES = (
    *(Status.PASS, Status.FAIL, Status.SKIP, Status.ERROR, Status.CRASH),
    *(Status.TIMEOUT, Status.FLAKY),
)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# What brings the file from each version to the next one. What was published is not changed.
_MIGRATIONS = (
    """
    CREATE TABLE cell (id INTEGER PRIMARY KEY, kernel TEXT NOT NULL, machine TEXT NOT NULL,
        UNIQUE (kernel, machine));
    CREATE TABLE run (id INTEGER PRIMARY KEY, name TEXT NOT NULL, began INTEGER NOT NULL,
        cell INTEGER NOT NULL REFERENCES cell, command TEXT NOT NULL, facts TEXT NOT NULL,
        UNIQUE (name, began));
    CREATE INDEX run_of_a_cell ON run (cell, began);
    CREATE TABLE subject (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE words (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
    CREATE TABLE result (subject INTEGER NOT NULL, run INTEGER NOT NULL, status INTEGER NOT NULL,
        words INTEGER, PRIMARY KEY (subject, run)) WITHOUT ROWID;
    CREATE INDEX result_that_is_bad ON result (run) WHERE status NOT IN (0, 2);
    CREATE TABLE figure (id INTEGER PRIMARY KEY, name TEXT NOT NULL, unit TEXT NOT NULL,
        UNIQUE (name, unit));
    CREATE TABLE value (figure INTEGER NOT NULL, run INTEGER NOT NULL, value REAL NOT NULL,
        PRIMARY KEY (figure, run)) WITHOUT ROWID;
    """,
    # Cells of a matrix run beside each other: two that begin in one second have one name.
    """
    CREATE TABLE run_of_all (id INTEGER PRIMARY KEY, name TEXT NOT NULL, began INTEGER NOT NULL,
        cell INTEGER NOT NULL REFERENCES cell, command TEXT NOT NULL, facts TEXT NOT NULL,
        UNIQUE (name, began, cell, command));
    INSERT INTO run_of_all SELECT id, name, began, cell, command, facts FROM run;
    DROP TABLE run;
    ALTER TABLE run_of_all RENAME TO run;
    CREATE INDEX run_of_a_cell ON run (cell, began);
    """,
)


@dataclass(frozen=True)
class Seen:
    """One run, as far as one case or one figure is concerned.

    began: seconds since 1970. facts: of the kernel (release, tree, config, compiler ...).
    status: of a case; value: of a figure.
    """

    run: str
    began: int
    facts: Mapping[str, str]
    status: Status = Status.PASS
    words: str = ""
    value: float = 0.0


@dataclass(frozen=True)
class Line:
    """A case on one kernel and machine, from its first run to its last. Never empty."""

    case: str
    kernel: str
    machine: str
    seen: tuple[Seen, ...]

    @property
    def since(self) -> int:
        """Where in seen that begins which is still so: good, or not good. That it was skipped
        changes nothing.
        """
        since, good = len(self.seen) - 1 if self.run else 0, self.last.status.good
        for at in range(len(self.seen) - 1, -1, -1):
            if self.seen[at].status is not Status.SKIP:
                if self.seen[at].status.good is not good:
                    break
                since = at
        return since

    @property
    def before(self) -> Seen | None:
        """When it was last run and was not what it is since then."""
        run = (one for one in reversed(self.seen[: self.since]) if one.status is not Status.SKIP)
        return next(run, None)

    @property
    def last(self) -> Seen:
        """When it was last run, and not skipped; where it always was, the last time."""
        run = (one for one in reversed(self.seen) if one.status is not Status.SKIP)
        return next(run, self.seen[-1])

    @property
    def bad(self) -> int:
        """In how many runs it was not good."""
        return sum(not one.status.good for one in self.seen)

    @property
    def run(self) -> int:
        """How often it was run, and not skipped."""
        return sum(one.status is not Status.SKIP for one in self.seen)

    @property
    def changed(self) -> dict[str, tuple[str, str]]:
        """What of the kernel is another one than in the run before it became what it is now: name
        of the fact -> before and after. Empty where it has always been so.
        """
        if self.before is None:
            return {}
        before, after = self.before.facts, self.seen[self.since].facts
        names = dict.fromkeys([*before, *after])
        pairs = {name: (before.get(name, ""), after.get(name, "")) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True)
class Trend:
    """A figure on a kernel and machine, never empty. steps: where in seen another level begins."""

    name: str
    unit: str
    kernel: str
    machine: str
    seen: tuple[Seen, ...]
    steps: tuple[int, ...] = field(default=())


@dataclass(frozen=True)
class Overview:
    """runs: how many are known, first: when the first of them began. failing: what was not good the
    last time.
    """

    runs: int
    first: int
    failing: tuple[Line, ...]


def place() -> Path:
    """$RIG_HISTORY, or where this host keeps the data of programs."""
    named = os.environ.get(FILE)
    return Path(named) if named else platformdirs.user_data_path("rig") / "history.sqlite"


class History(contextlib.AbstractContextManager["History"]):
    """The file, open. Several rigs may write at once; each run is written whole or not at all.

    A file that is damaged is put aside, and a new one begun; notices say so. InfrastructureError
    where it cannot be used otherwise, or was written by a newer rig.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notices: list[str] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InfrastructureError(f"no place for the history: {error}") from error
        self._open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent."""
        self._db.close()

    # -- what comes in ----------------------------------------------------------------------------

    def add(self, run: Run) -> bool:
        """Keep a run; False where it is known already, or is of no kernel."""
        if not run.kernel.get("name"):
            return False
        try:
            with self._writing():
                return self._add(run)
        except _DamagedError as error:
            self._begin_anew(error)
            with self._writing():
                return self._add(run)

    def _add(self, run: Run) -> bool:
        cell = self._id("cell", kernel=run.kernel["name"], machine=run.machine.get("name", ""))
        began = int(datetime.fromisoformat(run.started).timestamp())
        facts = json.dumps({k: v for k, v in run.kernel.items() if k != "name"})
        added = self._db.execute(
            "INSERT OR IGNORE INTO run (name, began, cell, command, facts) VALUES (?, ?, ?, ?, ?)",
            (run.id, began, cell, run.command, facts),
        )
        if not added.rowcount:
            return False
        number = added.lastrowid
        # A case may be told twice in a run: what is not good is what counts.
        for case in sorted(run.cases, key=lambda case: not case.status.good):
            if case.status is Status.ERROR and not run.complete:
                continue  # what a run did not come to says nothing
            words = case.message[:_MOST_WORDS] if not case.status.good else ""
            row = (
                self._id("subject", name=case.id),
                number,
                _STATUSES.index(case.status),
                self._id("words", text=words) if words else None,
            )
            self._db.execute("INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?)", row)
        for one in run.measurements:
            figure = self._id("figure", name=one.name, unit=one.unit)
            row_ = (figure, number, one.value)
            self._db.execute("INSERT OR REPLACE INTO value VALUES (?, ?, ?)", row_)
        return True

    def _id(self, table: str, **columns: str) -> int:
        where = " AND ".join(f"{name} = ?" for name in columns)
        values = tuple(columns.values())
        found = self._db.execute(f"SELECT id FROM {table} WHERE {where}", values).fetchone()
        if found:
            return int(found[0])
        marks = ", ".join("?" for _ in columns)
        words = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
        return int(self._db.execute(words, values).lastrowid or 0)

    # -- what is asked ----------------------------------------------------------------------------

    def overview(self) -> Overview:
        """What fails now, what has done so for longest first."""
        ((runs, first),) = self._rows("SELECT COUNT(*), MIN(began) FROM run")
        failing: list[Line] = []
        facts = _Facts()
        for subject, cell in self._bad_now():
            failing.append(self._since_good(subject, cell, facts))
        failing.sort(key=lambda line: (line.seen[line.since].began, line.case))
        return Overview(runs, first or 0, tuple(failing))

    def _bad_now(self) -> Iterator[tuple[int, int]]:
        """Case and cell of what was not good when it was last run, and not skipped."""
        last: dict[tuple[int, int], tuple[int, int]] = {}
        for subject, cell, began, run in self._rows(
            "SELECT r.subject, run.cell, run.began, run.id FROM result AS r "
            "JOIN run ON run.id = r.run WHERE r.status NOT IN (0, 2)"
        ):
            last[subject, cell] = max(last.get((subject, cell), (0, 0)), (began, run))
        newest = dict(self._rows("SELECT cell, MAX(began) FROM run GROUP BY cell"))
        for (subject, cell), when in last.items():
            # The last one first: it is good as a rule.
            good = self._rows(
                "SELECT 1 FROM result AS r JOIN run ON run.id = r.run WHERE r.subject = ? "
                "AND r.status = 0 AND run.cell = ? AND (run.began, run.id) > (?, ?) "
                "ORDER BY r.run DESC LIMIT 1",
                *(subject, cell, *when),
            )
            if good:
                continue
            ((last_seen,),) = self._rows(
                "SELECT MAX(run.began) FROM result AS r JOIN run ON run.id = r.run "
                "WHERE r.subject = ? AND run.cell = ?",
                *(subject, cell),
            )
            if newest[cell] - last_seen <= _OLD_S:
                yield subject, cell

    def _since_good(self, subject: int, cell: int, facts: _Facts) -> Line:
        """A case in a cell from the last run on that it was good in; all where it never was."""
        good = self._rows(
            "SELECT run.began, run.id FROM result AS r JOIN run ON run.id = r.run "
            "WHERE r.subject = ? AND run.cell = ? AND r.status = 0 "
            "ORDER BY run.began DESC, run.id DESC LIMIT 1",
            *(subject, cell),
        )
        rows = self._rows(
            "SELECT s.name, c.kernel, c.machine, run.name, run.began, run.facts, r.status, w.text "
            "FROM result AS r JOIN run ON run.id = r.run JOIN subject AS s ON s.id = r.subject "
            "JOIN cell AS c ON c.id = run.cell LEFT JOIN words AS w ON w.id = r.words "
            "WHERE r.subject = ? AND run.cell = ? AND (run.began, run.id) >= (?, ?) "
            "ORDER BY run.began, run.id",
            *(subject, cell, *(good[0] if good else (0, 0))),
        )
        seen = [
            Seen(run, began, facts[text], _STATUSES[status], words or "")
            for _, _, _, run, began, text, status, words in rows
        ]
        case, kernel, machine = rows[0][:3]
        return Line(case, kernel, machine, tuple(seen))

    def cases(self, name: str) -> tuple[Line, ...]:
        """A case by its whole name, a line for each kernel and machine it was run on."""
        rows = self._rows(
            "SELECT c.kernel, c.machine, run.name, run.began, run.facts, r.status, w.text "
            "FROM subject AS s JOIN result AS r ON r.subject = s.id JOIN run ON run.id = r.run "
            "JOIN cell AS c ON c.id = run.cell LEFT JOIN words AS w ON w.id = r.words "
            "WHERE s.name = ? ORDER BY run.began, run.id",
            name,
        )
        facts = _Facts()
        each = (
            ((kernel, machine), Seen(run, began, facts[text], _STATUSES[status], words or ""))
            for kernel, machine, run, began, text, status, words in rows
        )
        return tuple(Line(name, *where, seen) for where, seen in _grouped(each))

    def trends(self, name: str) -> tuple[Trend, ...]:
        """A figure by its whole name, with the runs from which on it has been another one."""
        rows = self._rows(
            "SELECT f.unit, c.kernel, c.machine, run.name, run.began, run.facts, v.value "
            "FROM figure AS f JOIN value AS v ON v.figure = f.id JOIN run ON run.id = v.run "
            "JOIN cell AS c ON c.id = run.cell WHERE f.name = ? ORDER BY run.began, run.id",
            name,
        )
        facts = _Facts()
        each = (
            ((unit, kernel, machine), Seen(run, began, facts[text], value=value))
            for unit, kernel, machine, run, began, text, value in rows
        )
        return tuple(
            Trend(name, *where, seen, stats.steps([one.value for one in seen]))
            for where, seen in _grouped(each)
        )

    def names(self) -> tuple[str, ...]:
        """Of all cases and all figures."""
        return tuple(
            name
            for table in ("subject", "figure")
            for (name,) in self._rows(f"SELECT DISTINCT name FROM {table} ORDER BY name")
        )

    def _rows(self, words: str, *values: object) -> list[tuple[Any, ...]]:
        with self._reading():
            return self._db.execute(words, values).fetchall()

    # -- the file ---------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self._connect()
        except _DamagedError as error:
            self._begin_anew(error)

    def _connect(self) -> None:
        self._look_for_nothing()
        with self._told():
            self._db = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
        try:
            with self._told():
                self._file = self.path.stat().st_ino
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._migrate()
        except BaseException:
            self._db.close()
            raise

    def _look_for_nothing(self) -> None:
        """A file that has lost all it had is a new one to SQLite."""
        with contextlib.suppress(OSError):
            there = self.path.stat()
            if not there.st_size and time.time() - there.st_mtime > _NEW_S:
                self.notices.append(f"{self.path} was empty: the history begins anew")

    def _migrate(self) -> None:
        if self._version() < len(_MIGRATIONS):
            with self._writing():  # whoever else has waited for the lock finds it done
                for step in _MIGRATIONS[self._version() :]:
                    for words in step.split(";"):
                        self._db.execute(words)
                self._db.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
        if (version := self._version()) > len(_MIGRATIONS):
            raise InfrastructureError(
                f"{self.path} is of version {version}, this rig knows {len(_MIGRATIONS)}",
                hint=f"a newer rig has written it: use that, or another file by {FILE}",
            )

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """All of it or nothing, and nobody else meanwhile."""
        with self._told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            with self._told():
                yield
        except _DamagedError as error:
            self._begin_anew(error)
            raise InfrastructureError(
                self.notices[-1], hint="what comes from now on is kept in a new file"
            ) from error

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
                raise _DamagedError(f"{self.path} is damaged: {error}") from error
            raise InfrastructureError(
                f"the history cannot be used: {error}", hint=f"it is in {self.path}"
            ) from error
        except OSError as error:
            raise InfrastructureError(f"the history cannot be used: {error}") from error

    def _begin_anew(self, error: _DamagedError) -> None:
        """Put the damaged file aside, unless another rig has done so meanwhile."""
        self._db.close()
        with self._told(), self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.path.exists() and self.path.stat().st_ino == self._file:
                stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
                aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}-{os.getpid()}")
                for more in ("", "-wal", "-shm"):
                    part = self.path.with_name(self.path.name + more)
                    if part.exists():
                        part.rename(aside.with_name(aside.name + more))
                self.notices.append(f"{error}; it is {aside.name} now, and the history begins anew")
            self._connect()


def _grouped(each: Iterable[tuple[_Where, Seen]]) -> list[tuple[_Where, tuple[Seen, ...]]]:
    """What was seen in each place, places in order."""
    found: dict[_Where, list[Seen]] = {}
    for where, one in each:
        found.setdefault(where, []).append(one)
    return [(where, tuple(found[where])) for where in sorted(found)]


class _DamagedError(Exception):
    """The file is not one of SQLite's, or not a whole one."""


class _Facts(dict[str, dict[str, str]]):
    """Most runs have the same."""

    def __missing__(self, text: str) -> dict[str, str]:
        self[text] = json.loads(text)
        return self[text]


def told(line: Line, *, seen: bool = True) -> dict[str, object]:
    """A line as JSON; times are seconds since 1970. seen: with each run, and how often it was bad;
    an overview's lines are of the last runs.
    """
    now, start = line.seen[-1], line.seen[line.since]
    value: dict[str, object] = {
        "case": line.case,
        "kernel": line.kernel,
        "machine": line.machine,
        "status": now.status,
        "words": now.words,
        "since": start.began,
        "since_run": start.run,
        "runs_since": len(line.seen) - line.since,
        "changed": line.changed,
    }
    if seen:
        pairs = [{"run": o.run, "began": o.began, "status": o.status} for o in line.seen]
        rate = stats.wilson(line.bad, line.run)
        value |= {"runs": line.run, "bad": line.bad, "bad_rate_95": rate, "seen": pairs}
    return value


# -- for people -----------------------------------------------------------------------------------

_MARKS: Mapping[Status, str] = {
    Status.PASS: ".", Status.SKIP: "s", Status.FAIL: "F", Status.ERROR: "E", Status.CRASH: "C",
    Status.TIMEOUT: "T", Status.FLAKY: "~",
}  # fmt: skip
_STRIP = 60
# Of a kernel's facts, those that somebody would ask for first.
_TELLING = ("release", "tree", "config", "compiler", "source", "series")


def when(began: int) -> str:
    """Local time, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(began))


def overview_text(found: Overview, path: Path) -> list[str]:
    """What `rig history` prints."""
    if not found.runs:
        return [f"no run is known yet: {path} gets each that ends"]
    lines = [f"{found.runs} runs since {when(found.first)}, in {path}"]
    for line in found.failing:
        now = line.last
        lines += [
            f"{now.status.upper():<8}{line.case}",
            f"        {_where(line)}: since {when(line.seen[line.since].began)}, "
            f"{_runs(len(line.seen) - line.since)}  {now.words}".rstrip(),
        ]
    count = len(found.failing)
    end = f"{count} case{'s were' if count > 1 else ' was'} not good when last run"
    return [*lines, end if count else "each case was good when it was last run"]


def case_text(line: Line) -> list[str]:
    """One line of `rig history CASE`: what it is now and since when, how often, and what it was."""
    now, start = line.seen[-1], line.seen[line.since]
    spell = f"{_runs(len(line.seen) - line.since)}, since {when(start.began)}"
    low, high = stats.wilson(line.bad, line.run)
    lines = [f"{_where(line)}: {now.status.upper()}, {spell} ({start.run})"]
    if before := line.before:
        lines.append(f"  before that {before.status} in {before.run}, {when(before.began)}")
        changed = line.changed
        lines += [
            f"  {name}: {changed[name][0] or 'none'} -> {changed[name][1] or 'none'}"
            for name in _TELLING
            if name in changed
        ]
    if now.words:
        lines.append(f"  {now.words}")
    skipped = f", {len(line.seen) - line.run} more skipped it" if line.run < len(line.seen) else ""
    rate = f"not good in {line.bad} of {_runs(line.run)}{skipped}"
    lines.append(f"  {rate} ({low:.1%} to {high:.1%}, 95 %)")
    return [*lines, f"  {''.join(_MARKS[one.status] for one in line.seen[-_STRIP:])}"]


def trend_text(trend: Trend) -> list[str]:
    """The same of a figure: each level it has been on."""
    where = f"{trend.kernel} on {trend.machine or 'no machine'}"
    lines = [f"{where}: {trend.seen[-1].value:,.6g} {trend.unit}, {_runs(len(trend.seen))}"]
    starts = (0, *trend.steps)
    for start, end in zip(starts, (*trend.steps, len(trend.seen)), strict=True):
        values = [one.value for one in trend.seen[start:end]]
        level, first = stats.median(values), trend.seen[start]
        around = f" ({min(values):,.6g} to {max(values):,.6g})" if len(set(values)) > 1 else ""
        since = f"  {when(first.began)}  {level:,.6g}{around}, {_runs(len(values))}"
        lines.append(f"{since}, from {first.run}")
    return lines


def _where(line: Line) -> str:
    return f"{line.kernel} on {line.machine or 'no machine'}"


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def matching(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """Those that are called so, or else have it in their names; UsageError where there is none."""
    if name in names:
        return (name,)
    found = tuple(one for one in names if name in one)
    if not found:
        raise UsageError(f"nothing is known of {name!r}", hint=nearest(name, [*names]))
    return found
