"""A run as it grows: its results directory, saved after every program, so a killed run is seen."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rig.errors import InfrastructureError
from rig.results import Case, Run, Splat, to_json

LATEST = "latest"
FILE_NAME = "run.json"


class Record:
    """The Run being made, and results/<run id>/ it is kept in."""

    def __init__(self, directory: Path, run: Run) -> None:
        self.directory = directory
        self.run = run
        self._started = time.monotonic()

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

    def add(self, cases: Iterable[Case], splats: Iterable[Splat] = ()) -> None:
        """Verdicts and what the console said; saved before this returns."""
        run = self.run
        self.run = replace(
            run, cases=(*run.cases, *cases), splats=(*run.splats, *splats), duration_s=self._age()
        )
        self.save()

    def console(self, path: Path) -> None:
        """A recorded console file (of one boot), kept in the directory."""
        name = os.path.relpath(path, self.directory)
        self.run = replace(self.run, consoles=(*self.run.consoles, name))

    def finish(self) -> Run:
        """The whole Run, saved; nothing is added after it."""
        self.run = replace(self.run, complete=True, duration_s=self._age())
        self.save()
        return self.run

    def save(self) -> None:
        """Write run.json so that a reader sees the old or the new one, whole."""
        partial = self.directory / f".{FILE_NAME}.partial"
        try:
            partial.write_bytes(to_json(self.run))
            partial.rename(self.directory / FILE_NAME)
        except OSError as error:
            raise InfrastructureError(
                f"{self.directory} cannot be written: {error.strerror}"
            ) from error

    def _age(self) -> float:
        return round(time.monotonic() - self._started, 3)


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
