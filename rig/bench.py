"""`rig bench`: measures kernels, exactly and in time, compares them, and says what changed."""

from __future__ import annotations

import datetime
import io
import os
import shlex
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rig import (
    baseline,
    benchpage,
    benchset,
    counted,
    exactset,
    fio,
    image,
    kbuild,
    process,
    stats,
    timed,
)
from rig import config as configuration
from rig.baseline import Accepted
from rig.benchpage import CountedTable, Page, Section, Table
from rig.benchset import BenchSet
from rig.config import BoardConfig, Config, KernelConfig
from rig.counted import Beside
from rig.errors import InfrastructureError, UsageError
from rig.exactset import Difference, Measured
from rig.explain import Change
from rig.outcome import Files
from rig.progress import QUIET, Progress
from rig.record import Record
from rig.report import save
from rig.results import Measurement, Run, to_json
from rig.rows import EXACT_UNIT
from rig.stats import Word
from rig.store import Store, digest
from rig.timed import Comparison, Seen

FILE_NAME, PAGE_NAME = "bench.json", "bench.html"
MAIN = ("origin/main", "main")
EXPLAINED = 3  # so many programs are run once more to say why, if nothing else is asked for
_GIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Request(Files):
    """`rig bench`. kernels: of rig.toml, () for the default one. against: another, that they are
    compared with. exact, timed: which sets. only: programs whose line has this in it. machine: of
    rig.toml, for the timed set, instead of that of the set. check: exact
    figures against where the branch has left main, or on main against what was accepted. accept:
    why what is measured now is the baseline from now on, None to accept nothing. explain: how many
    programs are run once more to say which functions a difference is made of.
    """

    kernels: tuple[str, ...] = ()
    against: str | None = None
    exact: bool = True
    timed: bool = True
    only: str = ""
    boots: int = stats.LEAST_BOOTS
    machine: str | None = None
    check: bool = False
    accept: str | None = None
    explain: int = EXPLAINED
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Versus:
    """Exact figures of one kernel beside others.

    what: of which the others are. gated: names that may not get worse, None for all. same: it is
    one kernel at two times, so that what is not measured any more is worse; another kernel may
    lack what is measured. said: what could not be explained.
    """

    what: str
    differences: tuple[Difference, ...]
    explained: Mapping[str, Change] = field(default_factory=dict)
    gated: frozenset[str] | None = None
    same: bool = True
    said: tuple[str, ...] = ()

    @property
    def worse(self) -> tuple[Difference, ...]:
        """Those that cost more, among the gated ones, or are not measured any more."""
        return tuple(one for one in self.differences if self._is_worse(one))

    def _is_worse(self, one: Difference) -> bool:
        if one.after is None:
            return self.same
        return one.more > 0 and (self.gated is None or one.name in self.gated)

    def mark(self, one: Difference) -> str:
        """A word for what happened to a figure."""
        if self._is_worse(one):
            return "MORE" if one.after is not None else "GONE"
        if one.before is None or one.after is None:
            return "new" if one.before is None else "only there"
        return "less" if one.more < 0 else "more, not gated"


@dataclass(frozen=True)
class Result:
    """What was measured and what is said of it; directory: of the run, with bench.json and the
    page. counted: by a board's CPU, by kernel.
    """

    run: Run
    directory: Path
    exact: tuple[Measured, ...] = ()
    versus: tuple[Versus, ...] = ()
    seen: tuple[Seen, ...] = ()
    models: Mapping[str, tuple[Comparison, ...]] = field(default_factory=dict)
    counted: Mapping[str, tuple[Beside, ...]] = field(default_factory=dict)
    kernels: tuple[Comparison, ...] = ()
    said: tuple[str, ...] = ()

    @property
    def worse(self) -> tuple[str, ...]:
        """Everything that got worse, as lines; what --check and --against fail for."""
        exact = [one.words for versus in self.versus for one in versus.worse]
        slower = [one.words for one in self.kernels if one.word is Word.SLOWER]
        return (*exact, *slower)

    @property
    def compared(self) -> bool:
        """Whether there was anything to get worse than."""
        return bool(self.versus or self.kernels)

    @property
    def because(self) -> str:
        """What all comparisons came to, in a few words."""
        if not self.compared:
            return "compared with nothing"
        return f"{len(self.worse)} figure(s) got worse" if self.worse else "nothing got worse"

    @property
    def exit_code(self) -> int:
        """1 when anything got worse."""
        return 1 if self.worse else 0


def run(request: Request, config: Config, store: Store, progress: Progress = QUIET) -> Result:
    """Measure what is asked for; raises what no measurement could be made for."""
    names = request.kernels or (config.default_kernel,)
    _check_request(request, names)
    wanted = _wanted(request, config)
    kernels = [config.kernel(name) for name in names]
    before = config.kernel(request.against) if request.against else None
    results = request.results or config.root / "results"
    record = Record.begin(results, shlex.join(["rig", "bench", *request.words]), "bench")
    result = Result(record.run, record.directory)
    try:
        if request.exact:
            result = _exactly(request, result, wanted, config, kernels, before, store, progress)
            _write(request, result)  # an hour's work, whatever the boots to come may bring
        if request.timed and not request.check and request.accept is None:
            result = _timed(
                request, result, wanted, config, kernels, before, record, store, progress
            )
    finally:
        run = record.finish()
    result = replace(result, run=run)
    _write(request, result)
    return result


def _check_request(request: Request, names: Sequence[str]) -> None:
    accepts = request.accept is not None
    if request.boots < 1:
        raise UsageError(f"--boots {request.boots}", hint="at least 1; 5 to be told a difference")
    if request.explain < 0:
        raise UsageError(f"--explain {request.explain}", hint="how many programs; 0 for none")
    those = [*([request.against] if request.against else []), *names]
    if twice := next((name for name in those if those.count(name) > 1), ""):
        raise UsageError(
            f"{twice} is named twice",
            hint="to see what chance alone does, give its table in rig.toml a second name",
        )
    if accepts and not (request.accept or "").strip():
        raise UsageError("a baseline is accepted for a reason", hint="--accept 'WHY'")
    if accepts and (request.check or request.against):
        raise UsageError(
            "--accept compares with nothing", hint="rig bench KERNEL --exact --accept 'WHY'"
        )
    if request.check and request.against:
        raise UsageError(
            "--check finds by itself what to compare with", hint="leave --against or --check out"
        )
    if (request.check or accepts) and len(names) > 1:
        raise UsageError("--check and --accept are for one kernel")
    if (request.check or accepts) and request.only:
        raise UsageError("--check and --accept are for the whole set", hint="leave --only out")
    if request.machine and not request.timed:
        raise UsageError("--machine is for the timed set: the exact machine is what it is")
    if (request.check or accepts) and not request.exact:
        raise UsageError("--check and --accept are for exact figures")


def _wanted(request: Request, config: Config) -> BenchSet:
    whole = benchset.load(config.root)
    found = replace(
        whole,
        exact=benchset.chosen(whole.exact, request.only),
        timed=benchset.chosen(whole.timed, request.only),
    )
    if request.machine:
        own = config.machine(whole.machine or None)
        found = replace(found, machine=request.machine, image=own.image)
    exact = found.exact if request.exact or _counts(request, found, config) else ()
    if not exact and not (found.timed if request.timed else ()):
        every: tuple[benchset.Entry, ...] = (*whole.exact, *whole.timed)
        known = ", ".join(dict.fromkeys(one.words[0] for one in every))
        raise UsageError(f"--only {request.only!r} fits no program", hint=f"there are {known}")
    return found


def _counts(request: Request, wanted: BenchSet, config: Config) -> bool:
    """Whether programs of the exact set are to be counted, on a machine that may be able to."""
    if not request.timed or request.check or request.accept is not None:
        return False
    board = isinstance(config.machine(wanted.machine or None), BoardConfig)
    return board and bool(counted.wanted(wanted.exact))


# -- exact ----------------------------------------------------------------------------------------


def _exactly(
    request: Request,
    result: Result,
    wanted: BenchSet,
    config: Config,
    kernels: Sequence[KernelConfig],
    before: KernelConfig | None,
    store: Store,
    progress: Progress,
) -> Result:
    if not wanted.exact:
        return result
    if request.check:
        return _checked(request, result, wanted, config, kernels[0], store, progress)
    those = [*([before] if before else []), *kernels]
    measured = [
        exactset.measure(wanted, config, one, store, _place(result, one.name), progress)
        for one in those
    ]
    versus = []
    if before:
        for one, kernel in zip(measured[1:], kernels, strict=True):
            sides = (measured[0], one)
            both = ((config, before), (config, kernel))
            beside = _versus(request, before.name, sides, both, wanted, store, result, progress)
            versus.append(replace(beside, same=False))
    result = replace(result, exact=tuple(measured), versus=tuple(versus))
    if request.accept is not None:
        return _accepted(request.accept, result, config, kernels[0])
    return result


def _place(result: Result, name: str) -> Path:
    place = result.directory / f"exact-{name}"
    place.mkdir()
    return place


def _versus(
    request: Request,
    what: str,
    sides: tuple[Measured, Measured],
    kernels: tuple[tuple[Config, KernelConfig], tuple[Config, KernelConfig]],
    wanted: BenchSet,
    store: Store,
    result: Result,
    progress: Progress,
) -> Versus:
    found = exactset.differences(sides[0].rows, sides[1].rows)
    place = result.directory / f"explained-{sides[1].kernel}"
    telling = most_telling(found, sides[1], request.explain)
    why, lost = exactset.explained(telling, wanted, sides, kernels, store, place, progress)
    return Versus(what, found, why, sides[1].gated, said=lost)


def most_telling(found: Sequence[Difference], after: Measured, most: int) -> tuple[Difference, ...]:
    """Those of the few programs that show a change best: gated ones before those that move by
    themselves. Bytes have no function that they are in. Pure.
    """
    lines: dict[str, None] = {}
    counted = [one for one in found if one.unit == EXACT_UNIT]
    for one in sorted(counted, key=lambda one: one.name not in after.gated):
        line = after.of_which.get(one.name)
        if line and one.before is not None and len(lines) < most:
            lines[line] = None
    return tuple(one for one in counted if after.of_which.get(one.name) in lines)


def _accepted(why: str, result: Result, config: Config, kernel: KernelConfig) -> Result:
    measured = result.exact[-1]
    path = baseline.place(config.root, kernel.name, measured.identity)
    kept = {name: row for name, row in measured.rows.items() if name in measured.gated}
    now = datetime.datetime.now(datetime.UTC)
    reason = {
        "why": why,
        "day": f"{now:%Y-%m-%d}",
        "commit": _git(config.root, "rev-parse", "HEAD"),
    }
    baseline.save(path, kernel.name, measured.identity, kept, reason)
    return replace(result, said=(*result.said, f"accepted: {len(kept)} figures in {path}"))


def _checked(
    request: Request,
    result: Result,
    wanted: BenchSet,
    config: Config,
    kernel: KernelConfig,
    store: Store,
    progress: Progress,
) -> Result:
    """Against where the branch has left main; on main itself against what was accepted."""
    root = config.root
    main = _main(root)
    base = _git(root, "merge-base", "HEAD", main)
    if base == _git(root, "rev-parse", "HEAD") and not _changed(root):
        return _checked_on_main(result, wanted, config, kernel, store, progress)
    place = store.scratch("bench-base", digest(str(root))[:16])
    with store.lock("bench-base", place.name):
        other = _checkout(root, base, place)
        first, second = other.kernel(kernel.name), kernel
        old = kbuild.build(other, first, store, progress=progress)
        new = kbuild.build(config, second, store, progress=progress)
        if old.key == new.key:
            words = f"the kernel is that of {base[:12]}, where the branch has left {main}"
            return replace(result, said=(*result.said, words))
        sides = (
            exactset.measure(wanted, other, first, store, _place(result, "base"), progress),
            exactset.measure(wanted, config, second, store, _place(result, "branch"), progress),
        )
        both = ((other, first), (config, second))
        what = f"{main} at {base[:12]}"
        versus = _versus(request, what, sides, both, wanted, store, result, progress)
    return replace(result, exact=sides, versus=(versus,))


def _checked_on_main(
    result: Result,
    wanted: BenchSet,
    config: Config,
    kernel: KernelConfig,
    store: Store,
    progress: Progress,
) -> Result:
    there = baseline.every(config.root, kernel.name)
    if not there:
        raise UsageError(
            f"there is no accepted baseline of {kernel.name} in {config.root / baseline.DIRECTORY}",
            hint=f"rig bench {kernel.name} --exact --accept 'WHY'",
        )
    place = _place(result, kernel.name)
    measured = exactset.measure(wanted, config, kernel, store, place, progress)
    versus = with_accepted(there, measured, wanted)
    return replace(result, exact=(measured,), versus=(versus,))


def with_accepted(there: Mapping[Path, Accepted], measured: Measured, wanted: BenchSet) -> Versus:
    """What was measured beside the baseline that is of the same kernel, compiler and machine;
    raises InfrastructureError where there is none.
    """
    others = {path: baseline.foreign(one, measured.identity) for path, one in there.items()}
    path = min(others, key=lambda path: len(others[path]))
    if others[path]:
        raise InfrastructureError(
            f"{path} says nothing about this kernel: {'; '.join(others[path])}",
            hint="measure both here (rig bench --against), then --accept with the reason",
        )
    # What is gated is said now, not when it was accepted.
    known = {name: row for name, row in there[path].as_rows().items() if wanted.gated(name)}
    now = {name: row for name, row in measured.rows.items() if name in measured.gated}
    return Versus("what was accepted", exactset.differences(known, now), {}, measured.gated)


def _main(root: Path) -> str:
    for name in MAIN:
        done = process.run(
            ["git", "rev-parse", "-q", "--verify", f"{name}^{{commit}}"],
            cwd=root,
            timeout_s=_GIT_S,
            check=False,
        )
        if done.returncode == 0:
            return name
    raise UsageError(
        f"{root} has neither {' nor '.join(MAIN)}: nothing to compare with",
        hint="rig bench KERNEL --against BASELINE compares two kernels of rig.toml",
    )


def _git(root: Path, *words: str) -> str:
    return process.run(["git", *words], cwd=root, timeout_s=_GIT_S).output.strip()


def _changed(root: Path) -> bool:
    """Whether anything that a kernel is made of is not as it was committed."""
    words = ("status", "--porcelain", "--", "patches", "kernel-configs", configuration.FILE_NAME)
    return bool(_git(root, *words))


def _checkout(root: Path, commit: str, place: Path) -> Config:
    """The files of another commit of the checkout, in one place, so that its build goes on."""
    words = ["patches", "kernel-configs", configuration.FILE_NAME]
    into = place / "checkout"
    into.mkdir(exist_ok=True)
    archive = place / "base.tar"
    process.run(["git", "archive", "-o", archive, commit, *words], cwd=root, timeout_s=_GIT_S)
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes())) as tar:
        wanted = {Path(member.name) for member in tar.getmembers()}
        for old in sorted(into.rglob("*"), reverse=True):
            if old.is_file() and old.relative_to(into) not in wanted:
                old.unlink()
        tar.extractall(into, filter="data")
    # Programs, image sources and our own tools are the branch's.
    for name in ("guest-tests", "images"):
        link = into / name
        if not link.is_symlink():
            link.symlink_to(root / name)
    return configuration.load(into / configuration.FILE_NAME)


# -- timed ----------------------------------------------------------------------------------------


def _timed(
    request: Request,
    result: Result,
    wanted: BenchSet,
    config: Config,
    kernels: Sequence[KernelConfig],
    before: KernelConfig | None,
    record: Record,
    store: Store,
    progress: Progress,
) -> Result:
    if not wanted.timed and not _counts(request, wanted, config):
        return result
    extra = _engine(wanted, config, store, progress)
    those = [*([before] if before else []), *kernels]
    seen = timed.measure(wanted, config, those, request.boots, record, store, progress, extra)
    if not result.exact and not any(one.rows or one.counted for one in seen):
        raise InfrastructureError("nothing was measured", hint="; ".join(record.run.notices))
    pairs = [(before.name, one.name) for one in kernels] if before else []
    # All at once: of what is called a difference in this run, one in a hundred may be none.
    judged = timed.compared(
        {f"models {one.name}": timed.of_models(seen, one.name) for one in those}
        | {f"kernels {one} {other}": timed.of_kernels(seen, one, other) for one, other in pairs}
    )
    models = {one.name: judged[f"models {one.name}"] for one in those}
    compared = tuple(it for one, other in pairs for it in judged[f"kernels {one} {other}"])
    of_cpu: dict[str, tuple[Beside, ...]] = {}
    said = [*result.said]
    for name in (one.name for one in those):
        whole = [one.counted for one in seen if one.kernel == name and one.counted]
        exact = next((one for one in result.exact if one.kernel == name), None)
        of_cpu[name] = counted.beside(whole, exact)
        if lost := counted.not_in_all(whole):
            said.append(
                f"{len(lost)} figures were not counted in every boot of {name}, and are not shown: "
                f"{', '.join(lost[:3])}{' ...' if len(lost) > 3 else ''}"
            )
    if request.boots < stats.LEAST_BOOTS:
        said.append(
            f"{request.boots} boot(s): {stats.LEAST_BOOTS} are the least that tell a difference"
        )
    for one, other in pairs:
        if lost := timed.not_compared(seen, one, other):
            said.append(
                f"{len(lost)} timed figures are not on both {one} and {other} in every boot, and "
                f"not compared: {', '.join(lost[:3])}{' ...' if len(lost) > 3 else ''}"
            )
    return replace(
        result,
        seen=seen,
        models=models,
        counted={name: found for name, found in of_cpu.items() if found},
        kernels=compared,
        said=tuple(said),
    )


def _engine(wanted: BenchSet, config: Config, store: Store, progress: Progress) -> dict[str, Path]:
    """The engine of fio's, where a program asks for it."""
    if not any(one.words[0] == fio.SCRIPT for one in wanted.timed):
        return {}
    recipe = config.root / "images" / config.machine(wanted.machine or None).image
    suite = image.load_recipe(recipe).suite
    return {fio.ENGINE: fio.engine(wanted.directory / fio.SOURCE, suite, store, progress)}


# -- what is left ---------------------------------------------------------------------------------


def described(result: Result) -> dict[str, object]:
    """Everything measured, and what is said of it, as JSON."""
    return {
        "run": result.run.id,
        "command": result.run.command,
        "started": result.run.started,
        "notices": [*result.run.notices, *notes(result)],
        "emulated": is_emulated(result),
        "exact": [
            {
                "kernel": one.kernel,
                "identity": one.identity,
                "host_s": one.host_s,
                "rows": list(one.rows.values()),
            }
            for one in result.exact
        ],
        "against": [
            {
                "what": one.what,
                "differences": one.differences,
                "worse": [difference.name for difference in one.worse],
                "functions": {name: change.functions for name, change in one.explained.items()},
            }
            for one in result.versus
        ],
        "timed": result.seen,
        "counted": result.counted,
        "models": {name: [asdict(one) for one in those] for name, those in result.models.items()},
        "kernels": [asdict(one) for one in result.kernels],
        "worse": result.worse,
        "exit_code": result.exit_code,
        "directory": str(result.directory),
    }


def remembered(result: Result) -> tuple[Run, ...]:
    """A run a kernel, with its exact figures, for the history; of a kernel that was measured twice
    the later one. Pure.
    """
    last = {one.kernel: one for one in result.exact}
    return tuple(
        replace(
            result.run,
            id=f"{result.run.id}-{name}",
            kernel={**one.facts, "name": name},
            machine={"name": "exact"},
            cases=(),
            splats=(),
            measurements=tuple(
                Measurement(row.name, row.value, row.unit) for row in one.rows.values()
            ),
        )
        for name, one in last.items()
    )


def text(result: Result) -> str:
    """For a terminal: what changed and why, ratios that differ, where the page is."""
    lines: list[str] = []
    for versus in result.versus:
        lines.append(
            f"against {versus.what}: {len(versus.differences)} of the exact figures differ"
        )
        for one in versus.differences:
            lines.append(f"  {versus.mark(one)} {one.words}")
            if one.name in versus.explained:
                lines.append(f"       {exactset.top_functions(versus.explained[one.name])}")
    if result.exact and not result.versus:
        lines += _exact_table(result.exact[-1])
    for kernel, found in result.counted.items():
        board = result.run.machine.get("name", "a board")
        lines.append(f"counted by the CPU of {board} on {kernel}: {len(found)} figures")
        lines += counted.in_words(found)
    how = " under emulation" if is_emulated(result) else ""
    for kernel, those in result.models.items():
        if not those:
            continue
        lines.append(f"models on {kernel}, times{how} of the first (95 % interval over boots):")
        lines += [f"  {one.words}" for one in those]
    if result.kernels:
        differ = [one for one in result.kernels if one.word is not Word.NONE]
        lines.append(f"kernels: {len(differ)} of {len(result.kernels)} figures differ in time{how}")
        lines += [f"  {one.words}" for one in differ]
        lines += _how_sharp(result.kernels)
    lines += [f"note: {words}" for words in (*result.run.notices, *notes(result))]
    lines.append(result.because)
    return "\n".join(lines) + "\n"


def notes(result: Result) -> tuple[str, ...]:
    """What a reader of the figures has to know beside them. Pure."""
    left_out = [
        f"{one.kernel} cannot run {', '.join(one.left_out)}" for one in result.exact if one.left_out
    ]
    lost = [words for one in result.versus for words in one.said]
    return (*result.said, *left_out, *lost)


def is_emulated(result: Result) -> bool:
    """Whether its times are those of an emulator. Pure."""
    machine = result.run.machine
    return bool(result.seen) and "tcg" in machine.get("accel", machine.get("accelerator", ""))


def _how_sharp(compared: Sequence[Comparison]) -> list[str]:
    """How wide the intervals are of what was not seen to differ: no change below is ruled out."""
    spans = sorted(one.ratio.high / one.ratio.low - 1 for one in compared if one.word is Word.NONE)
    if not spans:
        return []
    middle, widest = spans[len(spans) // 2], spans[-1]
    return [
        f"  no difference seen in {len(spans)}: their intervals are {middle:.1%} wide "
        f"(median), the widest {widest:.1%}"
    ]


def _exact_table(measured: Measured) -> list[str]:
    """One line a row that is of one call, or of 64."""
    shown = [
        row
        for row in measured.rows.values()
        if row.outstanding in (0, 1, 64) or row.unit == "bytes"
    ]
    width = max((len(row.name) for row in shown), default=0)
    return [f"  {row.name.ljust(width)} {row.each:12.5g} {row.unit}" for row in shown]


def _write(request: Request, result: Result) -> None:
    value = to_json(described(result))
    save(result.directory / FILE_NAME, value)
    save(result.directory / PAGE_NAME, benchpage.html(page(result)).encode(errors="replace"))
    if request.json:
        save(request.json, value)


def page(result: Result) -> Page:
    """The page of a result. Pure."""
    kernels = [one.kernel for one in result.exact] + [one.kernel for one in result.seen]
    names = tuple(dict.fromkeys(kernels))
    last = names[-1] if names else ""
    how = _how(result, last)
    worse = result.worse
    changes = [row for one in result.versus for row in benchpage.change_rows(
        one.differences, one.explained)]  # fmt: skip
    sections: list[Section] = list(benchpage.exact_sections(result.exact))
    if result.seen:
        sections += benchpage.timed_sections(timed.medians(result.seen, last), how)
    return Page(
        id=result.run.id,
        started=result.run.started,
        duration_s=result.run.duration_s,
        command=result.run.command,
        kernels=names,
        word="WORSE" if worse else "OK" if result.compared else "MEASURED",
        because=result.because,
        good=not worse,
        notices=(*result.run.notices, *notes(result)),
        changes=tuple(changes),
        sections=tuple(sections),
        counted=tuple(
            CountedTable("Counted by the CPU", _how(result, kernel), found)
            for kernel, found in result.counted.items()
        ),
        comparisons=_comparisons(result),
        tables=_tables(result),
        facts=_facts(result),
    )


def _facts(result: Result) -> tuple[tuple[str, Mapping[str, str]], ...]:
    kernels = [(f"Kernel {one.kernel}", one.facts) for one in result.exact]
    return (*kernels, ("Machine", result.run.machine))


def _how(result: Result, kernel: str) -> str:
    boots = len({one.boot for one in result.seen})
    return (
        f"{kernel}, {boots} boots from power-on{_emulated(result)}; "
        f"host with {os.cpu_count()} cores"
    )


def _emulated(result: Result) -> str:
    if not is_emulated(result):
        return ""
    return ", emulated by TCG: no hardware is this slow or this even"


def _comparisons(result: Result) -> tuple[Table, ...]:
    tables = []
    if result.kernels:
        caption = f"second in units of the first, boots paired{_emulated(result)}"
        tables.append(Table("Kernels, in time", caption, result.kernels))
    for kernel, those in result.models.items():
        caption = (
            f"on {kernel}, within each boot{_emulated(result)}; "
            f"false discoveries {stats.FALSE_DISCOVERIES:.0%}"
        )
        tables.append(Table("Models, in time", caption, those))
    return tuple(one for one in tables if one.rows)


def _tables(result: Result) -> tuple[Table, ...]:
    exact = [Table(f"{one.kernel}, exact", "", tuple(one.rows.values())) for one in result.exact]
    names = dict.fromkeys(one.kernel for one in result.seen)
    in_time = [
        Table(f"{name}, in time, medians of boots", "",
              tuple(timed.medians(result.seen, name).values()))
        for name in names
    ]  # fmt: skip
    return (*exact, *in_time)
