"""Which programs `rig bench` runs, and how: guest-tests/bench/bench.toml."""

from __future__ import annotations

import dataclasses
import fnmatch
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from rig.config import nearest
from rig.errors import UsageError

DIRECTORY = Path("guest-tests/bench")
FILE_NAME = "bench.toml"

_Entry = TypeVar("_Entry", bound="Entry")


@dataclass(frozen=True)
class Entry:
    """A program. run: its source file or script and its arguments, as a shell splits them. needs:
    options that a kernel must have, or it is not run there: "ASYNC_SUBMIT".
    """

    run: str
    needs: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """Source file or script, and arguments."""
        return tuple(shlex.split(self.run))


@dataclass(frozen=True)
class ExactEntry(Entry):
    """A program of the exact set: boots once by itself.

    cpus: of its machine. ext4, append, timeout_s: as of `rig exact`. counted: whether a board whose
    CPU counts instructions runs it, too.
    """

    cpus: int = 1
    ext4: bool = False
    append: str = ""
    timeout_s: int = 30
    counted: bool = True


@dataclass(frozen=True)
class TimedEntry(Entry):
    """A program of the timed set: each boot runs it, beside the others.

    cpus: the machines it runs on, by their number of CPUs. timeout_s: wall seconds on a machine of
    slowdown 1.
    """

    cpus: tuple[int, ...] = (2,)
    timeout_s: float = 120.0


@dataclass(frozen=True)
class BenchSet:
    """All of it. directory: where programs are. machine: of rig.toml, what timed ones run on.
    image: with what they need, where that machine has another one. ungated: patterns, as of a
    shell, of the names of exact figures that are told and not held against anything.
    """

    directory: Path
    exact: tuple[ExactEntry, ...] = ()
    timed: tuple[TimedEntry, ...] = ()
    machine: str = ""
    image: str = ""
    ungated: tuple[str, ...] = ()

    def gated(self, name: str) -> bool:
        """Whether a figure of this name may not get worse."""
        return not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.ungated)


def load(root: Path) -> BenchSet:
    """The set of a checkout; UsageError naming what is wrong with it, and where."""
    directory = root / DIRECTORY
    path = directory / FILE_NAME
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    _known(path, "the top level", data, ("exact", "timed", "machine", "ungated"))
    found = BenchSet(
        directory=directory,
        exact=tuple(_entry(path, "exact", one, ExactEntry) for one in data.get("exact", [])),
        timed=tuple(_entry(path, "timed", one, TimedEntry) for one in data.get("timed", [])),
        machine=_converted(path, "machine", data.get("machine", ""), str),
        ungated=_converted(path, "ungated", data.get("ungated", []), tuple[str, ...]),
    )
    every: tuple[Entry, ...] = (*found.exact, *found.timed)
    for one in every:
        if not one.words or not (directory / one.words[0]).is_file():
            raise UsageError(f"{path}: {one.run!r}: there is no such program in {directory}")
    return found


def _entry(path: Path, kind: str, value: Any, into: type[Any]) -> Any:
    where = f"[[{kind}]]"
    if not isinstance(value, dict):
        raise UsageError(f"{path}: {where} must be a table")
    _known(path, where, value, tuple(one.name for one in dataclasses.fields(into)))
    return _converted(path, where, value, into)


def _known(path: Path, where: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"{path}: unknown key {key!r} in {where}", hint=nearest(key, [*known]))


def _converted(path: Path, where: str, value: Any, into: Any) -> Any:
    try:
        return msgspec.convert(value, into)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {where}: {error}") from error


def chosen(entries: tuple[_Entry, ...], pattern: str) -> tuple[_Entry, ...]:
    """Those whose line has the pattern in it, or one of several with | between; all for ""."""
    return tuple(one for one in entries if any(part in one.run for part in pattern.split("|")))
