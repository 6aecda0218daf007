"""The exact set where a CPU counts: its instructions and cycles, beside the exact machine's."""

from __future__ import annotations

import gzip
import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rig import exactset, initramfs, kconfig, rows
from rig.benchset import ExactEntry
from rig.errors import CrashError, InfrastructureError, LostMachineError
from rig.exact import ProgramFailedError
from rig.exactset import Measured
from rig.kbuild import Kernel
from rig.machine import exact as machine
from rig.rows import COUNTED_UNIT, Row, RowError
from rig.store import Store
from rig.verdict import End, Observation

CPUS = 1  # of the machine: what counts is its only one (images/exact/counted.h)
DIRECTORY = "counted"  # of the programs, beside those of the timed set
SCRIPT = "counted.sh"
IMAGE = "ext4.img.gz"
NO_COUNTERS = 77  # exit code of a program that has nothing to count with
_DEFINED = ("EXACT_COUNTED",)
_SHOWN = 8
_TELLING = 200  # instructions of a figure that is not mostly the clock's own share
_LEAST_TIMEOUT_S = 120.0  # an entry's own is the exact machine's, which has no disk to wait for

Counted = Mapping[str, Mapping[str, Row]]
"""What a boot counted: rows by name, by the line of their program."""


class NoCountersError(Exception):
    """The machine has nothing to count with; says why."""


@dataclass(frozen=True)
class Beside:
    """A figure of one kernel, counted, beside the exact one.

    run: the program's line. exact: instructions on the exact machine, None where that was not
    asked, or has a clock's time in it. counted, cycles: of all calls, medians over boots. low,
    high: the least and the most instructions of any boot.
    """

    run: str
    name: str
    exact: int | None
    counted: float
    low: float
    high: float
    cycles: float

    @property
    def ratio(self) -> float | None:
        """How many of the CPU's instructions are one of the exact machine's."""
        return self.counted / self.exact if self.exact else None

    @property
    def words(self) -> str:
        """For a line."""
        exact = ""
        if self.ratio is not None:
            exact = f"{self.exact} exact, "
        more = f" ({self.ratio - 1:+.1%})" if self.ratio is not None else ""
        return f"{self.name}: {exact}{self.counted:.0f} counted{more}, {self.cycles:.0f} cycles"


def wanted(entries: Sequence[ExactEntry]) -> tuple[ExactEntry, ...]:
    """Those that are counted at all: in instructions, and on one CPU. Pure."""
    return tuple(one for one in entries if one.counted and one.cpus == CPUS)


def possible(
    entries: Sequence[ExactEntry], kernel: Kernel
) -> tuple[tuple[ExactEntry, ...], tuple[ExactEntry, ...]]:
    """Those that can be counted on a kernel, and those that it lacks options for. What is not in
    instructions is neither.
    """
    got = kconfig.values(kernel.config.read_text(encoding="utf-8"))
    ext4 = all(got.get(symbol) == "y" for symbol in machine.NEEDED_BY_EXT4)
    able, unable = exactset.possible(wanted(entries), kernel)
    return (
        tuple(one for one in able if ext4 or not one.ext4),
        (*unable, *(one for one in able if one.ext4 and not ext4)),
    )


def append(entries: Iterable[ExactEntry]) -> str:
    """What all of them want of the kernel's command line. Pure."""
    return " ".join(dict.fromkeys(one.append for one in entries if one.append))


def place(
    entries: Sequence[ExactEntry],
    sources: Path,
    kernel: Kernel,
    root: Path,
    into: Path,
    store: Store,
) -> None:
    """Their programs, compiled to count, with what they need, in a directory that a guest gets."""
    programs = into / DIRECTORY
    programs.mkdir()
    for name in dict.fromkeys(one.words[0] for one in entries):
        initramfs.compile_program(sources / name, programs, kernel.headers, root, _DEFINED)
    shutil.copy2(sources / SCRIPT, into)
    if any(one.ext4 for one in entries):
        (into / IMAGE).write_bytes(gzip.compress(initramfs.ext4_image(store), mtime=0))


def argv_of(entry: ExactEntry) -> tuple[str, ...]:
    """The command in the guest. Pure."""
    name, *arguments = entry.words
    kind = "ext4" if entry.ext4 else "plain"
    return ("sh", SCRIPT, kind, f"./{DIRECTORY}/{Path(name).stem}", *arguments)


def timeout_of(entry: ExactEntry) -> float:
    """Wall seconds on a machine of slowdown 1. Pure."""
    return max(float(entry.timeout_s), _LEAST_TIMEOUT_S)


def rows_of(entry: ExactEntry, seen: Observation) -> tuple[Row, ...]:
    """What a program counted, in its order; raises where it did not come to its end, or counted
    nothing, and NoCountersError where there is nothing to count with. Pure.
    """
    gone = seen.end is End.EXITED and seen.exit_code == NO_COUNTERS
    if gone and not seen.splats:
        raise NoCountersError(_last_line(seen.output))
    found = measured(f"{entry.run}, counted", seen)
    for row in found:
        if row.unit != COUNTED_UNIT:
            raise InfrastructureError(f"{entry.run}: {row.name} is in {row.unit}, and not counted")
    return found


def measured(what: str, seen: Observation) -> tuple[Row, ...]:
    """The rows of a program that came to its end, on a kernel that is well, and measured something;
    raises what has happened else. Pure.
    """
    if seen.splats:
        splat = seen.splats[0]
        raise CrashError(f"{what}: the kernel reported {splat.title}", output=splat.text)
    if seen.end is End.TIMEOUT or (seen.end is End.EXITED and seen.exit_code):
        why = seen.detail or f"exit code {seen.exit_code}"
        raise ProgramFailedError(f"{what}: {why}", output=seen.output[-2000:])
    if seen.end is not End.EXITED:
        raise LostMachineError(f"{what}: {seen.end.value}: {seen.detail}", output=seen.output)
    try:
        found = rows.parse(seen.output.encode())
    except RowError as error:
        raise InfrastructureError(f"{what}: {error}") from error
    if not found:
        raise InfrastructureError(f"{what} measured nothing", output=seen.output[-2000:])
    return found


def _last_line(output: str) -> str:
    return (output.strip().splitlines() or ["no counters"])[-1]


def kept(found: Sequence[Row], entry: ExactEntry, known: Counted) -> dict[str, Row]:
    """A program's rows by the names that the exact set has for them, each with the fewest cycles
    of all of its name: what was cold costs cycles, and an instruction more or less. Pure.
    """
    names = {name: row for those in known.values() for name, row in those.items()}
    least: dict[str, float] = {}
    for row in found:
        least[row.name] = min(row.cycles, least.get(row.name, row.cycles))
    return exactset.named_apart(
        [replace(row, cycles=least[row.name]) for row in found], entry, names
    )


def beside(boots: Sequence[Counted], exact: Measured | None) -> tuple[Beside, ...]:
    """Every figure that was counted in each of these boots of a kernel, in their order, beside what
    the exact set has for it. Pure.
    """
    names = _names(boots)
    every = {key: [boot[key[0]][key[1]] for boot in boots] for key in names if names[key]}
    return tuple(_beside(*key, rows, exact) for key, rows in every.items())


def not_in_all(boots: Sequence[Counted]) -> tuple[str, ...]:
    """Figures that only some of these boots have, which are not shown. Pure."""
    return tuple(name for (_, name), whole in _names(boots).items() if not whole)


def _names(boots: Sequence[Counted]) -> dict[tuple[str, str], bool]:
    """Program and name of each figure of any boot, and whether every boot has it."""
    keys = dict.fromkeys((run, name) for boot in boots for run in boot for name in boot[run])
    return {key: all(key[1] in boot.get(key[0], {}) for boot in boots) for key in keys}


def _beside(run: str, name: str, every: Sequence[Row], exact: Measured | None) -> Beside:
    values = [row.value for row in every]
    same = exact.rows.get(name) if exact and exact.of_which.get(name) == run else None
    if exact and name not in exact.gated:
        same = None  # what has slept has the machine's time in it; what meets a tick, the tick
    return Beside(
        run,
        name,
        int(same.value) if same else None,
        statistics.median(values),
        min(values),
        max(values),
        statistics.median(row.cycles for row in every),
    )


def in_words(found: Sequence[Beside]) -> list[str]:
    """Lines for a terminal: what one instruction of the exact machine is to the CPU, and the
    figures that are farthest from that; of those that are more than a few instructions. Pure.
    """
    ratios = {
        one: one.ratio for one in found if one.ratio is not None and (one.exact or 0) >= _TELLING
    }
    if not ratios:
        return [f"  {one.words}" for one in found[:_SHOWN]]
    values = sorted(ratios.values())
    middle = statistics.median(values)
    low, high = values[len(values) // 20], values[-1 - len(values) // 20]
    lines = [
        f"  over {len(values)} of them: {middle:.3f} counted for one exact instruction (median), "
        f"nine in ten from {low:.3f} to {high:.3f}; the farthest:"
    ]
    farthest = sorted(ratios, key=lambda one: -abs(ratios[one] - middle))[:_SHOWN]
    return [*lines, *(f"  {one.words}" for one in farthest)]
