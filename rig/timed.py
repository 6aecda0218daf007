"""The timed set of `rig bench`: rows of several boots, kernels in turn, and their ratios."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rig import conditions, counted, initramfs, noise, process, rows, stats
from rig.benchset import BenchSet, ExactEntry, TimedEntry
from rig.config import BoardConfig, Config, KernelConfig, MachineConfig
from rig.counted import Counted, NoCountersError
from rig.errors import CrashError, InfrastructureError, LostMachineError, RigError
from rig.guest import Guest
from rig.kbuild import Kernel
from rig.lab import KernelLab, lab_of
from rig.progress import QUIET, Progress
from rig.record import Record
from rig.results import Case, Measurement, Status
from rig.rows import Row
from rig.session import ConnectionLost, SessionTimeout
from rig.stats import Ratio, Word
from rig.store import Store
from rig.suite import BuiltSuite, Program, Suite
from rig.verdict import Observation

SUITE = "bench"
Pairs = Mapping[str, tuple[str, str, str, list[tuple[float, float]]]]
"""What is to be compared, by a key of its own: name, first, second, and a pair a boot."""
CPUS = "CPUS"  # in the line of a program: as many as its machine has

# What the other models of the same work are compared with, the first that is there.
REFERENCES = ("direct", "in the loop", "psync", "thread pool", "pool of threads")
_COMPARED = ("submit", "call", "throughput")
_MORE_IS_BETTER = ("throughput",)


@dataclass(frozen=True)
class Seen:
    """The rows of one boot of one kernel, by name; counted: what its CPU counted meanwhile; noise:
    of each CPU, how even its time was; facts: what a board's times depend on.
    """

    kernel: str
    boot: int
    rows: Mapping[str, Row]
    counted: Counted = field(default_factory=dict)
    noise: tuple[Row, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """A ratio with what is said of it.

    name: what was compared. first, second: what it was measured for, the second in units of the
    first: above 1 it is slower, or more where more is better.
    """

    name: str
    first: str
    second: str
    ratio: Ratio
    word: Word

    @property
    def words(self) -> str:
        """For a line."""
        one = self.ratio
        return (
            f"{self.name}: {self.second} is {one.value:.3f} times {self.first} "
            f"[{one.low:.3f}, {one.high:.3f}], {self.word}"
        )


@dataclass(frozen=True)
class Plan:
    """One kind of boot: a kernel, a number of CPUs, what runs there. board: its name, or "".
    counted: what runs there where its CPU counts.
    """

    kernel: KernelConfig
    lab: KernelLab
    cpus: int
    built: BuiltSuite
    entries: tuple[TimedEntry, ...]
    board: str = ""
    counted: tuple[ExactEntry, ...] = ()


def measure(
    wanted: BenchSet,
    config: Config,
    kernels: Sequence[KernelConfig],
    boots: int,
    record: Record,
    store: Store,
    progress: Progress = QUIET,
    extra: Mapping[str, Path] | None = None,
) -> tuple[Seen, ...]:
    """Boot each kernel so many times, from power-on and in turn, and run all programs in each; on a
    board whose CPU counts instructions the exact set's, too.

    A program that fails, a splat or a lost machine ends the measurement: raises what it was, with
    what has been seen on record. extra: more files beside the programs, by name.
    """
    plans = _plans(wanted, config, kernels, record, store, progress, extra or {})
    total = boots * sum(len(plan.entries) + len(plan.counted) for plan in plans)
    progress.stage("timed set", total)
    found: list[Seen] = []
    done = itertools.count(1)
    lacking: set[int] = set()
    uncounted: set[str] = set()
    for boot in range(boots):
        # Forwards and backwards: what drifts while this goes on favours nobody.
        for kernel, those in _in_turn(plans, boot):
            seen = Seen(kernel, boot, {})
            for plan in those:
                now = replace(plan, counted=()) if kernel in uncounted else plan
                if plan.cpus in lacking or not (now.entries or now.counted):
                    continue
                try:
                    more = _boot(now, boot, len(record.run.consoles), record, progress, done)
                except _TooFewCPUsError as error:
                    lacking.add(plan.cpus)
                    _notice(record, str(error))
                    _note_noise(now, _all_noise(found, seen), record)
                    continue
                seen = replace(
                    seen,
                    rows={**seen.rows, **more.rows},
                    counted={**seen.counted, **more.counted},
                    noise=(*seen.noise, *more.noise),
                    facts={**seen.facts, **more.facts},
                )
                _note_noise(now, _all_noise(found, seen), record)
                if now.counted and not more.counted:
                    uncounted.add(kernel)
            found.append(seen)
            _keep(record, seen)
            for words in conditions.differing(
                {one.kernel: one.facts for one in found if one.facts}
            ):
                _notice(record, f"the kernels differ in what times depend on: {words}")
    return tuple(found)


def _all_noise(found: Sequence[Seen], seen: Seen) -> list[Row]:
    return [row for one in (*found, seen) for row in one.noise]


def _in_turn(plans: Sequence[Plan], boot: int) -> list[tuple[str, list[Plan]]]:
    names = list(dict.fromkeys(plan.kernel.name for plan in plans))
    order = names if boot % 2 == 0 else names[::-1]
    return [(name, [plan for plan in plans if plan.kernel.name == name]) for name in order]


def _plans(
    wanted: BenchSet,
    config: Config,
    kernels: Sequence[KernelConfig],
    record: Record,
    store: Store,
    progress: Progress,
    extra: Mapping[str, Path],
) -> list[Plan]:
    process.prepare()
    place = record.directory
    plans = []
    base = _base(wanted, config)
    for kernel in kernels:
        built: BuiltSuite | None = None
        able, unable = _countable(wanted, config, kernel, base, store, progress)
        shapes = {cpus for entry in wanted.timed for cpus in entry.cpus}
        if able:
            shapes.add(counted.CPUS)
        if unable:
            those = ", ".join(entry.run for entry in unable)
            _notice(record, f"not counted on {kernel.name}, which has no options for it: {those}")
        for cpus in sorted(shapes):
            own = able if cpus == counted.CPUS else ()
            lab = lab_of(config, kernel, _shaped(base, cpus, own), store, progress, cold=True)
            lab.prepare(())
            board = base.name if isinstance(base, BoardConfig) else ""
            built = built or _built(
                wanted, able, kernel, lab.kernel, config.root, place, extra, store,
                on_a_board=bool(board),
            )  # fmt: skip
            entries = tuple(entry for entry in wanted.timed if cpus in entry.cpus)
            plans.append(Plan(kernel, lab, cpus, built, entries, board, own))
    return plans


def _countable(
    wanted: BenchSet,
    config: Config,
    kernel: KernelConfig,
    base: MachineConfig | BoardConfig,
    store: Store,
    progress: Progress,
) -> tuple[tuple[ExactEntry, ...], tuple[ExactEntry, ...]]:
    """What of the exact set a board is asked to count, and what its kernel cannot do."""
    if not isinstance(base, BoardConfig) or not counted.wanted(wanted.exact):
        return (), ()
    lab = lab_of(config, kernel, base, store, progress, cold=True)
    lab.prepare(())
    return counted.possible(wanted.exact, lab.kernel)


def _base(wanted: BenchSet, config: Config) -> MachineConfig | BoardConfig:
    """The machine, with the image that has what the programs need."""
    own = config.machine(wanted.machine or None)
    return replace(own, image=wanted.image) if wanted.image else own


def _shaped(
    machine: MachineConfig | BoardConfig, cpus: int, own: Sequence[ExactEntry]
) -> MachineConfig | BoardConfig:
    """A board has the CPUs it has: its kernel is told to leave the rest alone. own: what is counted
    there, and wants something of the kernel's command line.
    """
    if isinstance(machine, BoardConfig):
        words = f"{machine.append} maxcpus={cpus} {counted.append(own)}"
        return replace(machine, append=words.strip())
    return replace(machine, name=f"{machine.name}, {cpus} CPU{'s' * (cpus > 1)}", cpus=cpus)


def _built(
    wanted: BenchSet,
    able: Sequence[ExactEntry],
    kernel: KernelConfig,
    made: Kernel,
    root: Path,
    place: Path,
    extra: Mapping[str, Path],
    store: Store,
    *,
    on_a_board: bool,
) -> BuiltSuite:
    """All programs in one directory, as a guest is given it."""
    directory = place / "programs" / kernel.name
    directory.mkdir(parents=True)
    for name in dict.fromkeys(entry.words[0] for entry in wanted.timed):
        source = wanted.directory / name
        if source.suffix == ".c":
            initramfs.compile_program(source, directory, made.headers, root)
        else:
            shutil.copy2(source, directory / name)
    for name, path in extra.items():
        shutil.copy2(path, directory / name)
    if able:
        counted.place(able, wanted.directory, made, root, directory, store)
    if on_a_board:
        initramfs.compile_program(root / noise.SOURCE, directory, made.headers, root)
    suite = Suite(SUITE, directory)
    return BuiltSuite(suite, directory, ".", ())


def argv_of(entry: TimedEntry, cpus: int) -> tuple[str, ...]:
    """The command in the guest. Pure."""
    name, *arguments = (str(cpus) if word == CPUS else word for word in entry.words)
    program = Path(name)
    start = [f"./{program.stem}"] if program.suffix == ".c" else ["python3", name]
    return (*start, *arguments)


def _boot(
    plan: Plan, boot: int, number: int, record: Record, progress: Progress, done: Iterator[int]
) -> Seen:
    """All rows of one boot."""
    with contextlib.closing(plan.lab), contextlib.closing(plan.lab.boot(number, record)) as guest:
        record.update(plan.lab.describe)
        facts = _note_conditions(plan, guest, record) if plan.board else {}
        of_time = _noise(plan, boot, guest, record) if plan.board else ()
        found: dict[str, Row] = {}
        for entry in plan.entries:
            found |= _run(plan, entry, boot, guest, record)
            progress.step(f"{plan.kernel.name}, boot {boot + 1}: {entry.run}", next(done))
        of_cpu = _count(plan, boot, guest, record, progress, done)
        try:
            late = guest.farewell(brief=True)
        except (ConnectionLost, SessionTimeout, TimeoutError, EOFError) as error:
            raise LostMachineError(f"{plan.kernel.name}: {error}") from error
        if late:
            raise CrashError(f"{plan.kernel.name} reported {late[0].title}", output=late[0].text)
    record.update(plan.lab.describe)  # what its end has brought to light
    _note(facts, record)
    return Seen(plan.kernel.name, boot, found, of_cpu, of_time, facts)


def _count(
    plan: Plan, boot: int, guest: Guest, record: Record, progress: Progress, done: Iterator[int]
) -> Counted:
    """What the board's CPU counts; nothing, and a notice, where it has no counters."""
    found: dict[str, Mapping[str, Row]] = {}
    for entry in plan.counted:
        argv = counted.argv_of(entry)
        program = Program(SUITE, f"{entry.run}, counted", argv, counted.timeout_of(entry))
        seen = guest.run(program, plan.built)
        case = _case(plan, entry.words[0], program.name, boot, seen)
        try:
            those = counted.rows_of(entry, seen)
        except NoCountersError as error:
            where = f"{plan.kernel.name} on {plan.board}, boot {boot + 1}"
            _notice(record, f"nothing is counted of {where} ({entry.run}): {error}")
            return {}
        except RigError as error:
            record.add([_failed(case, error, seen)], seen.splats)
            raise
        record.add([case])
        found[entry.run] = counted.kept(those, entry, found)
        progress.step(f"{plan.kernel.name}, boot {boot + 1}: {entry.run}, counted", next(done))
    return found


class _TooFewCPUsError(Exception):
    """The board has not so many."""


def _note_conditions(plan: Plan, guest: Guest, record: Record) -> dict[str, str]:
    """What the board's times depend on; _TooFewCPUsError where it cannot run this at all."""
    facts = conditions.understood(guest.ask(conditions.SCRIPT))
    _note(facts, record)
    online = int(facts.get("cpus_online", "0"))
    if online < plan.cpus:
        those = ", ".join(dict.fromkeys(entry.words[0] for entry in plan.entries))
        raise _TooFewCPUsError(f"left out: {those} with {plan.cpus} CPUs, the board has {online}")
    for why in conditions.uneven(facts):
        _notice(record, f"times on {plan.board} differ by themselves: {why}")
    return facts


def _note(facts: Mapping[str, str], record: Record) -> None:
    record.update(lambda run: replace(run, machine={**run.machine, **facts}))


def _noise(plan: Plan, boot: int, guest: Guest, record: Record) -> tuple[Row, ...]:
    """How even the time of each CPU is in this boot, before anything is timed."""
    program = Program(SUITE, noise.SOURCE.name, (f"./{noise.SOURCE.stem}",), noise.TIMEOUT_S)
    seen = guest.run(program, plan.built)
    case = _case(plan, noise.SOURCE.name, "how even its time is", boot, seen)
    try:
        found = counted.measured(program.name, seen)
        noise.check(found)
    except RigError as error:
        record.add([_failed(case, error, seen)], seen.splats)
        raise
    record.add([case])
    return found


def _note_noise(plan: Plan, those: Sequence[Row], record: Record) -> None:
    """On record, of all boots so far; to be told where it hides what is looked for."""
    if not those:
        return
    words, start = noise.in_words(those), f"times on {plan.board} are noisy: "
    _note({"noise": words}, record)
    told = tuple(one for one in record.run.notices if not one.startswith(start))
    loud = (f"{start}{words}",) if noise.is_loud(those) else ()
    record.update(lambda run: replace(run, notices=(*told, *loud)))


def _notice(record: Record, words: str) -> None:
    if words not in record.run.notices:
        record.update(lambda run: replace(run, notices=(*run.notices, words)))


def _run(plan: Plan, entry: TimedEntry, boot: int, guest: Guest, record: Record) -> dict[str, Row]:
    """The rows of one program; its case is on record, however it ended."""
    argv = argv_of(entry, plan.cpus)
    program = Program(SUITE, entry.run, argv, entry.timeout_s)
    seen = guest.run(program, plan.built)
    case = _case(plan, entry.words[0], " ".join(argv[1:]), boot, seen)
    try:
        found = rows_of(entry, plan.cpus, seen)
    except RigError as error:
        record.add([_failed(case, error, seen)], seen.splats)
        raise
    record.add([case])
    return found


def _case(plan: Plan, source: str, what: str, boot: int, seen: Observation) -> Case:
    """A program that did what it should."""
    name = f"{what}, {plan.kernel.name}, {plan.cpus} CPUs, boot {boot + 1}"
    return Case(SUITE, Path(source).stem, name, Status.PASS, duration_s=seen.duration_s)


def _failed(case: Case, error: RigError, seen: Observation) -> Case:
    return replace(case, status=Status.FAIL, message=error.message, output=seen.output)


def rows_of(entry: TimedEntry, cpus: int, seen: Observation) -> dict[str, Row]:
    """What a program measured; raises where it did not come to its end, or measured nothing. Pure.

    One that runs on several machines gets the number of CPUs into its names.
    """
    found = counted.measured(entry.run, seen)
    if any(row.unit in (rows.EXACT_UNIT, rows.COUNTED_UNIT) for row in found):
        raise InfrastructureError(f"{entry.run} calls a time a number of instructions")
    if len(entry.cpus) > 1:
        found = tuple(replace(row, name=f"{row.name}, {cpus} CPUs", threads=cpus) for row in found)
    return {row.name: row for row in found}


def _keep(record: Record, seen: Seen) -> None:
    """Every figure in the run, as it came."""
    method = f"{seen.kernel}, boot {seen.boot + 1}"
    every = (
        *seen.rows.values(),
        *(row for those in seen.counted.values() for row in those.values()),
    )
    more = tuple(Measurement(row.name, row.value, row.unit, method) for row in every)
    record.update(lambda run: replace(run, measurements=(*run.measurements, *more)))


# -- what they say --------------------------------------------------------------------------------


def of_models(seen: Sequence[Seen], kernel: str) -> Pairs:
    """Every model of a work against the one it is compared with, within each boot. Pure."""
    boots = [one.rows for one in seen if one.kernel == kernel]
    pairs: dict[str, tuple[str, str, str, list[tuple[float, float]]]] = {}
    for own in boots:
        for row in own.values():
            other = reference(row, own)
            if other is None:
                continue
            name = _what(row)
            key = f"{name}: {row.model}"
            _, _, _, kept = pairs.setdefault(key, (name, other.model, row.model, []))
            kept.append((other.each, row.each))
    return {key: one for key, one in pairs.items() if len(one[3]) == len(boots)}


def reference(row: Row, own: Mapping[str, Row]) -> Row | None:
    """The row of the same boot that a row is compared with, None for none. Pure."""
    if row.phase not in _COMPARED:
        return None
    alike = {
        other.model: other
        for other in own.values()
        if (other.work, other.outstanding, other.phase, other.threads)
        == (row.work, row.outstanding, row.phase, row.threads)
    }
    model = next((name for name in REFERENCES if name in alike), row.model)
    return None if model == row.model else alike[model]


def _what(row: Row) -> str:
    where = f", {row.threads} CPUs" if row.threads else ""
    return f"{row.work}, {row.outstanding} outstanding, {row.phase}{where}"


def of_kernels(seen: Sequence[Seen], before: str, after: str) -> Pairs:
    """Every row on one kernel against the same on another, boots paired as they came. Pure."""
    firsts = {one.boot: one.rows for one in seen if one.kernel == before}
    seconds = {one.boot: one.rows for one in seen if one.kernel == after}
    boots = sorted(firsts.keys() & seconds.keys())
    pairs: dict[str, tuple[str, str, str, list[tuple[float, float]]]] = {}
    for boot in boots:
        for name, row in seconds[boot].items():
            other = firsts[boot].get(name)
            if other is None or other.each <= 0 or row.each <= 0:
                continue
            _, _, _, kept = pairs.setdefault(name, (name, before, after, []))
            kept.append((other.each, row.each))
    return {key: one for key, one in pairs.items() if len(one[3]) == len(boots)}


def not_compared(seen: Sequence[Seen], before: str, after: str) -> tuple[str, ...]:
    """Names of rows of either kernel for which not every boot of both has a figure above nothing,
    so that nothing is said of them. Pure.
    """
    own = [one for one in seen if one.kernel in (before, after)]
    names = dict.fromkeys(name for one in own for name in one.rows)
    compared = of_kernels(seen, before, after)
    return tuple(name for name in names if name not in compared)


def compared(groups: Mapping[str, Pairs]) -> dict[str, tuple[Comparison, ...]]:
    """What is said of all that a run compares: each group judged at once, by itself. Pure.

    Models differ, mostly by far. One in a hundred of so many discoveries may be false, and would be
    one of the few that are said of two kernels, where most likely there is nothing to discover.
    """
    return {group: _compared(pairs) for group, pairs in groups.items()}


def _compared(pairs: Pairs) -> tuple[Comparison, ...]:
    ratios = {
        key: stats.ratio(one[3])
        for key, one in pairs.items()
        if all(min(pair) > 0 for pair in one[3])
    }
    words = stats.judge(ratios)
    return tuple(
        Comparison(name, first, second, ratios[key], _said(name, words[key]))
        for key, (name, first, second, _) in pairs.items()
        if key in ratios
    )


def _said(name: str, word: Word) -> Word:
    return stats.flipped(word) if any(one in name for one in _MORE_IS_BETTER) else word


def medians(seen: Sequence[Seen], kernel: str) -> dict[str, Row]:
    """A row for each name with the medians of the boots: value, and each percentile. Pure."""
    every: dict[str, list[Row]] = {}
    for one in seen:
        if one.kernel == kernel:
            for name, row in one.rows.items():
                every.setdefault(name, []).append(row)
    return {name: _median(those) for name, those in every.items()}


def _median(those: Sequence[Row]) -> Row:
    percentiles = {
        key: statistics.median(row.percentiles[key] for row in those if key in row.percentiles)
        for key in those[0].percentiles
    }
    value = statistics.median(row.value for row in those)
    return replace(those[0], value=value, percentiles=percentiles)
