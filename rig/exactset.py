"""The exact set of `rig bench`: every program once on the exact machine, and what two kernels
differ by."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from rig import exact, explain, initramfs, kbuild, kconfig, process, rows
from rig.benchset import BenchSet, Entry, ExactEntry
from rig.budget import AUTO, budget
from rig.config import Config, KernelConfig, MachineConfig
from rig.errors import InfrastructureError, RigError
from rig.exact import Prepared, ProgramFailedError, Ran, Request
from rig.explain import Change
from rig.kbuild import Kernel
from rig.machine import exact as machine
from rig.progress import QUIET, Progress
from rig.rows import Row, RowError
from rig.store import Store, digest

_UNITS = {rows.EXACT_UNIT, "bytes"}

_Entry = TypeVar("_Entry", bound=Entry)


@dataclass(frozen=True)
class Measured:
    """The set on one kernel.

    rows: of all programs by name; of_which: the program's line by name of a row. gated: names of
    rows that may not get worse. identity: what has to be the same for two of these to be compared
    over time. host_s: wall seconds of all machines together. left_out: lines of programs that this
    kernel cannot run.
    """

    kernel: str
    facts: Mapping[str, str]
    identity: Mapping[str, str]
    rows: Mapping[str, Row]
    of_which: Mapping[str, str]
    gated: frozenset[str]
    host_s: float = 0.0
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """A row on two kernels: instructions or bytes of all its calls; None where it is not."""

    name: str
    before: int | None
    after: int | None
    unit: str

    @property
    def more(self) -> int:
        """How much more it is; 0 where one side is missing."""
        if self.before is None or self.after is None:
            return 0
        return self.after - self.before

    @property
    def words(self) -> str:
        """For a line: both values and what is between them."""
        if self.before is None:
            return f"{self.name}: {self.after} {self.unit}"
        if self.after is None:
            return f"{self.name}: not measured, {self.before} {self.unit} before"
        share = f", {self.more / self.before:+.1%}" if self.before > 0 else ""
        return f"{self.name}: {self.before} -> {self.after} {self.unit} ({self.more:+d}{share})"


def measure(
    wanted: BenchSet,
    config: Config,
    kernel: KernelConfig,
    store: Store,
    place: Path,
    progress: Progress = QUIET,
) -> Measured:
    """Run every program, as many side by side as the host has cores for.

    place: an existing directory; each program's run is kept in one of its own below it. Raises
    what `rig exact` does: a program that fails, a splat or a machine that hangs is no measurement.
    What needs options that the kernel does not have is left out, and the value says so.
    """
    built = kbuild.build(config, kernel, store, progress=progress)
    entries, left_out = possible(wanted.exact, built)
    programs = compiled(entries, wanted.directory, built, config.root, place)
    progress.stage(f"exact set on {kernel.name}", len(entries))
    found: list[tuple[ExactEntry, Ran]] = []
    identity: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        running: deque[tuple[ExactEntry, exact.Running]] = deque()
        waiting = deque(entries)
        while waiting or running:
            while waiting and len(running) < _side_by_side():
                entry = waiting.popleft()
                ready = prepare(entry, programs, config, kernel, store, place)
                identity = identity or _identity(ready, built)
                running.append((entry, exact.start(ready, "")))
                stack.callback(process.end, running[-1][1].process)
            entry, one = running.popleft()
            found.append((entry, _finished(entry, one)))
            progress.step(entry.run, len(found))
    measured = _measured(kernel.name, built, identity, found, wanted)
    return replace(measured, left_out=tuple(one.run for one in left_out))


def possible(
    entries: Sequence[_Entry], kernel: Kernel
) -> tuple[tuple[_Entry, ...], tuple[_Entry, ...]]:
    """Those that a kernel has the options for, and the others."""
    got = kconfig.values(kernel.config.read_text(encoding="utf-8"))
    split: tuple[list[_Entry], list[_Entry]] = ([], [])
    for entry in entries:
        split[any(got.get(symbol, "n") == "n" for symbol in entry.needs)].append(entry)
    return tuple(split[0]), tuple(split[1])


def _side_by_side() -> int:
    shape = MachineConfig("exact", cpus=1, memory_mib=machine.MEMORY_MIB)
    return budget(shape, AUTO).machines


def compiled(
    entries: Iterable[ExactEntry], directory: Path, kernel: Kernel, root: Path, place: Path
) -> dict[str, Path]:
    """Each source file once, against this kernel's headers; programs by name of their source."""
    sources = dict.fromkeys(entry.words[0] for entry in entries)
    into = place / "programs"
    into.mkdir()
    return {
        name: initramfs.compile_program(directory / name, into, kernel.headers, root)
        for name in sources
    }


def prepare(
    entry: ExactEntry,
    programs: Mapping[str, Path],
    config: Config,
    kernel: KernelConfig,
    store: Store,
    place: Path,
) -> Prepared:
    """The machine of one entry."""
    return exact.prepare(request(entry, programs, place), config, kernel, store)


def request(entry: ExactEntry, programs: Mapping[str, Path], place: Path) -> Request:
    """What `rig exact` is asked for. Pure."""
    name, *arguments = entry.words
    return Request(
        argv=(str(programs[name]), *arguments),
        cpus=entry.cpus,
        timeout_s=entry.timeout_s,
        ext4=entry.ext4,
        append=entry.append,
        results=place,
    )


def _finished(entry: ExactEntry, running: exact.Running) -> Ran:
    ran = exact.finish(running)
    if ran.exit_code:
        raise ProgramFailedError(
            f"{entry.run}: exit code {ran.exit_code}",
            output=ran.streams["stderr"].decode(errors="replace")[-2000:],
            hint=f"its run is in {running.plan.output}",
        )
    return ran


def _identity(ready: Prepared, kernel: Kernel) -> dict[str, str]:
    """Kernel version, configuration and compilers, and the machine; not the kernel's code."""
    facts = kernel.facts
    return {
        "release": kernel.release,
        "config": digest(kernel.config)[:16],
        "compiler": facts.get("compiler", facts.get("gcc", "")),
        "qemu": ready.facts["qemu"],
        "cpu": ready.facts["cpu"],
    }


def _measured(
    name: str,
    built: Kernel,
    identity: Mapping[str, str],
    found: Sequence[tuple[ExactEntry, Ran]],
    wanted: BenchSet,
) -> Measured:
    kept: dict[str, Row] = {}
    of_which: dict[str, str] = {}
    for entry, ran in found:
        own = named_apart(rows_of(entry, ran), entry, kept)
        kept |= own
        of_which |= dict.fromkeys(own, entry.run)
    host_s = round(sum(ran.host_s for _, ran in found), 1)
    gated = frozenset(one for one in kept if wanted.gated(one))
    return Measured(name, built.facts, identity, kept, of_which, gated, host_s)


def named_apart(
    found: Sequence[Row], entry: ExactEntry, known: Mapping[str, Row]
) -> dict[str, Row]:
    """A program's rows by name. What another program has measured under that name is another
    figure: the program's own name is added. Pure.
    """
    try:
        own = rows.by_name(found)
    except RowError as error:
        raise InfrastructureError(f"{entry.run}: {error}") from error
    names = {name: f"{name}, {entry.words[0]}" if name in known else name for name in own}
    return {names[name]: replace(row, name=names[name]) for name, row in own.items()}


def rows_of(entry: ExactEntry, ran: Ran) -> tuple[Row, ...]:
    """What a program measured. InfrastructureError where it is not what an exact run can give.

    Pure.
    """
    try:
        found = rows.parse(ran.streams["stdout"])
    except RowError as error:
        raise InfrastructureError(f"{entry.run}: {error}") from error
    if not found:
        raise InfrastructureError(f"{entry.run} measured nothing")
    for row in found:
        if row.unit not in _UNITS:
            raise InfrastructureError(
                f"{entry.run}: {row.name} is in {row.unit}, which an exact machine cannot measure",
                hint="instructions, or bytes; what is timed belongs to the timed set",
            )
    return found


# -- two of them ----------------------------------------------------------------------------------


def differences(before: Mapping[str, Row], after: Mapping[str, Row]) -> tuple[Difference, ...]:
    """Every row that is not the same in both, the largest share first, those missing last. Pure."""
    names = dict.fromkeys((*before, *after))
    found = [_difference(name, before.get(name), after.get(name)) for name in names]
    changed = [one for one in found if one.before != one.after]
    return tuple(sorted(changed, key=_weight))


def _difference(name: str, before: Row | None, after: Row | None) -> Difference:
    some = after or before
    assert some
    return Difference(
        name,
        int(before.value) if before else None,
        int(after.value) if after else None,
        some.unit,
    )


def _weight(one: Difference) -> tuple[bool, float, str]:
    missing = one.before is None or one.after is None
    share = abs(one.more) / abs(one.before) if one.before else float(abs(one.more))
    return missing, -share, one.name


def explained(
    found: Sequence[Difference],
    wanted: BenchSet,
    sides: tuple[Measured, Measured],
    kernels: tuple[tuple[Config, KernelConfig], tuple[Config, KernelConfig]],
    store: Store,
    place: Path,
    progress: Progress = QUIET,
) -> tuple[dict[str, Change], tuple[str, ...]]:
    """Which functions make up a difference, by name of the row, for the programs that have one.

    Each of those programs runs twice more on both kernels, counted instruction by instruction. And
    what could not be explained, and why: what was measured is not lost by that.
    """
    after = sides[1]
    lines = dict.fromkeys(after.of_which[one.name] for one in found if one.name in after.of_which)
    entries = [entry for entry in wanted.exact if entry.run in lines]
    if not entries:
        return {}, ()
    # One program for both kernels, so that they run the same bytes.
    config, kernel = kernels[1]
    place.mkdir(exist_ok=True)
    built = kbuild.build(config, kernel, store, progress=progress)
    programs = compiled(entries, wanted.directory, built, config.root, place)
    changes: dict[str, Change] = {}
    troubles: list[str] = []
    names = (sides[0].kernel, sides[1].kernel)
    for number, entry in enumerate(entries, 1):
        progress.note(f"explaining {entry.run} ({number} of {len(entries)})")
        try:
            first, second = (prepare(entry, programs, one, of, store, place) for one, of in kernels)
            why = explain.between(
                names, first, second, config.root, store, progress, in_common=True
            )
        except RigError as error:
            troubles.append(f"{entry.run} could not be explained: {error.message}")
            continue
        for change in why.changes:
            kept = changes.get(change.name)
            if kept is None or _nearer(change, kept, sides):
                changes[change.name] = change
    return {one.name: changes[one.name] for one in found if one.name in changes}, tuple(troubles)


def _nearer(change: Change, kept: Change, sides: tuple[Measured, Measured]) -> bool:
    """Whether this window has more of what was reported than the one kept for its name."""
    before, after = (side.rows.get(change.name) for side in sides)
    if before is None or after is None:
        return False
    wanted = (int(before.value), int(after.value))
    return (change.before, change.after) == wanted != (kept.before, kept.after)


def top_functions(change: Change, most: int = 4) -> str:
    """The functions that make up most of a change, for a line. Pure."""
    shown = [f"{name} {more:+d}" for name, more in change.functions[:most]]
    rest = len(change.functions) - most
    lost = [] if change.sound else [f"not sound: {'; '.join(change.faults) or 'another sum'}"]
    return ", ".join([*shown, *([f"{rest} more"] if rest > 0 else []), *lost])
