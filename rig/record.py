"""A run as it grows: its results directory, saved as results come, so a killed run is seen."""

from __future__ import annotations

import bisect
import contextlib
import datetime
import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from rig.errors import InfrastructureError
from rig.results import Case, Run, Splat, to_json

LATEST = "latest"
FILE_NAME = "run.json"

# A run of many cases is long to write. Once that takes more than this it is written again only
# after 20 times as long, so that saving takes a twentieth of a run, however long that grows.
_CHEAP_S, _REST = 0.01, 20.0

FIRST, LAST = -1.0, math.inf


@dataclass(frozen=True, order=True)
class _Entry:
    """What was added at once; ordered by place, then by when it came."""

    place: float
    number: int
    cases: tuple[Case, ...] = field(compare=False)
    splats: tuple[Splat, ...] = field(compare=False)


class Record:
    """The Run being made, and results/<run id>/ it is kept in. Any thread may use it.

    Cases stand in the run by their place, whenever they came: machines side by side do not end
    their programs in order.
    """

    def __init__(self, directory: Path, run: Run) -> None:
        self.directory = directory
        self._run = run
        self._started = time.monotonic()
        self._lock = threading.RLock()
        self._entries: list[_Entry] = []
        self._whole = True  # _run has all of _entries
        self._due = 0.0
        self._timer: threading.Timer | None = None
        self._failure: InfrastructureError | None = None

    @classmethod
    def begin(cls, results: Path, command: str, label: str) -> Record:
        """Make a fresh directory under results/ and point results/latest at it.

        command: the line that runs all of it again. label: a word for the directory's name.
        Raises InfrastructureError when it cannot be written.
        """
        directory = fresh(results, label)
        try:
            _point(results / LATEST, directory.name)
        except OSError as error:
            raise InfrastructureError(f"{results} cannot be written: {error.strerror}") from error
        now = datetime.datetime.now(datetime.UTC)
        record = cls(directory, Run(directory.name, now.isoformat(timespec="seconds"), command))
        record.save()
        return record

    @property
    def run(self) -> Run:
        """The run so far."""
        with self._lock:
            if not self._whole:
                cases = itertools.chain.from_iterable(one.cases for one in self._entries)
                splats = itertools.chain.from_iterable(one.splats for one in self._entries)
                self._run = replace(self._run, cases=tuple(cases), splats=tuple(splats))
                self._whole = True
            return self._run

    def add(self, cases: Iterable[Case], splats: Iterable[Splat] = (), place: float = LAST) -> None:
        """Verdicts and what the console said.

        place: where they stand among the others, by the order of programs; those of equal place
        stand as they came. Saved before this returns, or, in a run so long that saving it takes
        long, within 20 times as long as that takes.
        """
        with self._lock:
            entry = _Entry(place, len(self._entries), tuple(cases), tuple(splats))
            bisect.insort(self._entries, entry)
            self._whole = False
            self._save_in_time()

    def update(self, change: Callable[[Run], Run]) -> None:
        """Change facts or notices of the run; saved as by add()."""
        with self._lock:
            self._run = change(self.run)
            self._save_in_time()

    def notice(self, words: str) -> None:
        """A sentence that every verdict must show; once."""
        self.update(lambda run: replace(run, notices=tuple(dict.fromkeys((*run.notices, words)))))

    def console(self, path: Path) -> None:
        """A recorded console file (of one boot), kept in the directory."""
        name = os.path.relpath(path, self.directory)
        with self._lock:
            self._run = replace(self._run, consoles=(*self._run.consoles, name))

    def finish(self) -> Run:
        """The whole Run, saved; nothing is added after it."""
        with self._lock:
            self._run = replace(self.run, complete=True)
            self.save()
            return self._run

    def save(self) -> None:
        """Write run.json so that a reader sees the old or the new one, whole.

        Raises InfrastructureError when that cannot be, now or since the last time.
        """
        with self._lock:
            if self._timer:
                self._timer.cancel()
                self._timer = None
            if self._failure:
                raise self._failure
            started = time.monotonic()
            self._run = replace(self.run, duration_s=round(started - self._started, 3))
            self._write()
            now = time.monotonic()
            self._due = now + _REST * (now - started) if now - started > _CHEAP_S else now

    def _save_in_time(self) -> None:
        """Save now, or as soon as the last time has been rested from."""
        left = self._due - time.monotonic()
        if left <= 0 or self._failure:
            self.save()
        elif not self._timer:
            self._timer = threading.Timer(left, self._save_late)
            self._timer.daemon = True
            self._timer.start()

    def _save_late(self) -> None:
        """The timer's: what goes wrong is told to whoever saves next."""
        with self._lock:
            if self._timer is not threading.current_thread():
                return  # somebody saved meanwhile
            try:
                self.save()
            except InfrastructureError as error:
                self._failure = error

    def _write(self) -> None:
        partial = self.directory / f".{FILE_NAME}.partial"
        try:
            partial.write_bytes(to_json(self._run))
            partial.rename(self.directory / FILE_NAME)
        except OSError as error:
            raise InfrastructureError(
                f"{self.directory} cannot be written: {error.strerror}"
            ) from error


def fresh(results: Path, label: str) -> Path:
    """A new directory results/<UTC time>-<label>; two made in one second get two names."""
    name = f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{label}"
    try:
        results.mkdir(parents=True, exist_ok=True)
        for number in itertools.count():
            directory = results / (f"{name}-{number}" if number else name)
            with contextlib.suppress(FileExistsError):
                directory.mkdir()
                return directory
    except OSError as error:
        raise InfrastructureError(f"{results} cannot be written: {error.strerror}") from error
    raise AssertionError("counting does not end")


def _point(link: Path, name: str) -> None:
    """Make link a symlink to name in one step."""
    partial = link.with_name(f".{link.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    partial.symlink_to(name)
    partial.rename(link)
