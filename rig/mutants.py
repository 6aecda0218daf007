"""Kernels that are wrong on purpose, by a line each: does the test that is to notice it do so?"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rig import config as configuration
from rig import runner, series
from rig.board import Board
from rig.config import Config
from rig.errors import BuildError, RigError, UsageError
from rig.lab import KernelLab, open_lab
from rig.outcome import Command, Outcome
from rig.progress import QUIET, Progress
from rig.results import Case, Run, Status
from rig.runner import INTERRUPTED
from rig.store import Store, digest, open_store

_HEADERS = ("Hazard", "Caught-by", "Kind", "Machine", "Kernel")
_HEADER = re.compile(r"^([A-Z][A-Za-z-]*): *(.*)$")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Mutant:
    """One breakage: a patch on top of the series.

    says: what is wrong with it, in a sentence. hazard: the row of docs/hazards.md. caught_by:
    "suite/program::case"; the case of any variant of a fixture will do, and without a case it is
    the program as a whole, where a splat shows. kinds: words such as "concurrency". machine,
    kernel: of rig.toml, None for the default ones.
    """

    name: str
    path: Path
    patch: bytes
    says: str
    hazard: str
    caught_by: str
    kinds: tuple[str, ...] = ()
    machine: str | None = None
    kernel: str | None = None

    @property
    def catcher(self) -> tuple[str, str, str]:
        """Suite, program and case ("" for the program as a whole) of caught_by."""
        program, _, case = self.caught_by.partition("::")
        suite, _, program = program.partition("/")
        return suite, program, case


class End(enum.StrEnum):
    """What became of a mutant. Only the first is good."""

    CAUGHT = "caught"
    MISSED = "missed"
    ELSEWHERE = "elsewhere"
    HUNG = "hung"
    UNFIT = "unfit"
    DEAD = "dead"
    UNBUILT = "unbuilt"


@dataclass(frozen=True)
class Verdict:
    """What became of it and how that was seen; seconds for the build, and for boot and tests."""

    mutant: Mutant
    end: End
    message: str
    build_s: float = 0.0
    test_s: float = 0.0

    @property
    def reproduce(self) -> str:
        """The command that shows it again."""
        return f"rig mutants {self.mutant.name}"


@dataclass(frozen=True, kw_only=True)
class Request:
    """`rig mutants`. names: which of them, empty for all. results: as in Files."""

    names: tuple[str, ...] = ()
    results: Path | None = None


# -- what there is --------------------------------------------------------------------------------


def read(directory: Path) -> tuple[Mutant, ...]:
    """The mutants of a directory, by name; UsageError naming file and line of a mistake."""
    if not directory.is_dir():
        raise UsageError(f"no directory {directory}", hint="[mutants] of rig.toml says where")
    found = tuple(_mutant(path) for path in sorted(directory.glob("*.patch")))
    if not found:
        raise UsageError(f"{directory} has no mutants: there is no *.patch")
    return found


def _mutant(path: Path) -> Mutant:
    if not _NAME.fullmatch(path.stem):
        raise UsageError(f"{path}: a name is small letters, digits and dashes")
    data = path.read_bytes()
    text, cut, _ = data.decode("utf-8", errors="replace").partition("\n---\n")
    if not cut:
        raise UsageError(f"{path}: no line '---' between the words and the patch")
    headers: dict[str, str] = {}
    words: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _HEADER.match(line)
        if not match:
            words.append(line)
            continue
        name, value = match[1], match[2].strip()
        if name not in _HEADERS:
            hint = configuration.nearest(name, list(_HEADERS))
            raise UsageError(f"{path}:{number}: unknown header {name!r}", hint=hint)
        if not value or name in headers:
            what = "twice" if name in headers else "empty"
            raise UsageError(f"{path}:{number}: {name} is {what}")
        headers[name] = value
    for name in ("Hazard", "Caught-by"):
        if name not in headers:
            raise UsageError(f"{path}: no header {name}:")
    mutant = Mutant(
        name=path.stem,
        path=path,
        patch=data,
        says=" ".join(" ".join(words).split()),
        hazard=headers["Hazard"],
        caught_by=headers["Caught-by"],
        kinds=tuple(headers.get("Kind", "").replace(",", " ").split()),
        machine=headers.get("Machine"),
        kernel=headers.get("Kernel"),
    )
    if not mutant.says:
        raise UsageError(f"{path}: no word on what is wrong with the mutant")
    if not all(mutant.catcher[:2]):
        raise UsageError(f"{path}: Caught-by is {mutant.caught_by!r}", hint="suite/program::case")
    return mutant


def chosen(request: Request, config: Config) -> tuple[Mutant, ...]:
    """The mutants asked for, in the order of their names; UsageError for a name that is none."""
    mutants = read(config.root / config.mutants.directory)
    known = {one.name: one for one in mutants}
    for name in request.names:
        if name not in known:
            raise UsageError(f"no mutant {name!r}", hint=configuration.nearest(name, [*known]))
    picked = [one for one in mutants if not request.names or one.name in request.names]
    for one in picked:
        # A mistake in the last of them is not for after an hour.
        config.kernel(one.kernel)
        config.machine(one.machine)
        runner.chosen(runner.Request(suites=_suites(one, config)), config)
    return tuple(picked)


def _suites(mutant: Mutant, config: Config) -> tuple[str, ...]:
    smoke = config.mutants.smoke.partition("/")[0]
    return tuple(dict.fromkeys(name for name in (smoke, mutant.catcher[0]) if name))


# -- what becomes of them -------------------------------------------------------------------------


def run(
    request: Request,
    config: Config,
    progress: Progress = QUIET,
    tell: Callable[[Verdict], None] = lambda verdict: None,
) -> tuple[Verdict, ...]:
    """Build, boot and test one after the other; tell gets to know each as soon as it is known.

    All of them are built in one worktree and one build tree a flavour, so that each costs what its
    line makes necessary. Raises what says nothing about a mutant: no disk, no machine.
    """
    return tuple(_run_all(request, config, progress, tell))


def _run_all(
    request: Request, config: Config, progress: Progress, tell: Callable[[Verdict], None]
) -> Iterator[Verdict]:
    store = open_store()
    mutants = chosen(request, config)
    place = store.scratch("mutant", digest(str(config.root))[:16])
    with store.lock("mutant", place.name):
        for number, mutant in enumerate(mutants, 1):
            progress.note(f"mutant {number} of {len(mutants)}: {mutant.name}")
            verdict = _run(mutant, request, config, place, store, progress)
            tell(verdict)
            yield verdict


def _run(
    mutant: Mutant, request: Request, config: Config, place: Path, store: Store, progress: Progress
) -> Verdict:
    kernel = config.kernel(mutant.kernel)
    if not kernel.series:
        raise UsageError(f"{mutant.path}: kernel {kernel.name} has no series to break")
    last = series.Patch(mutant.path.name, mutant.patch)
    whole = (*series.read_all(config.root, kernel.patches), last)
    broken = replace(kernel, series=str(_write(whole, place / kernel.name)), on_top="")
    config = replace(
        config, kernels={**config.kernels, kernel.name: broken}, default_kernel=kernel.name
    )
    board = Board(progress)
    lab = open_lab(config, broken, mutant.machine, board, cold=True)
    began = time.monotonic()
    try:
        built = lab.build()
    except BuildError as error:
        return Verdict(mutant, End.UNBUILT, error.message, time.monotonic() - began)
    build_s, began = time.monotonic() - began, time.monotonic()
    outcome = _test(mutant, request, config, lab, board)
    if outcome.exit_code == INTERRUPTED:
        raise KeyboardInterrupt
    end, message = judge(mutant, config.mutants.smoke, outcome.run, outcome.error)
    if end is End.CAUGHT:
        # Two hundred megabytes that nobody will ask for again.
        store.discard("kernel", built.key)
    return Verdict(mutant, end, message, build_s, time.monotonic() - began)


def _write(patches: Sequence[series.Patch], directory: Path) -> Path:
    """A quilt directory of these patches; what another mutant has left there goes."""
    directory.mkdir(exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    for patch in patches:
        (directory / patch.name).write_bytes(patch.data)
    lines = (f"{patch.name} -p{patch.strip}\n" for patch in patches)
    (directory / "series").write_text("".join(lines), encoding="utf-8")
    return directory


def wish(mutant: Mutant, request: Request, config: Config) -> runner.Request:
    """What is run of a mutant: its smoke test, and the case it names. Pure."""
    smoke, (_, program, case) = config.mutants.smoke.partition("/")[2], mutant.catcher
    wanted = {name: case for name in (smoke, program) if name}
    return runner.Request(
        machine=mutant.machine,
        suites=_suites(mutant, config),
        # What else the program has may hang on a kernel that is wrong.
        cases=tuple((name, "" if name == smoke else only) for name, only in wanted.items()),
        env=tuple(config.mutants.env.items()),
        results=request.results,
        cold=True,
    )


def _test(
    mutant: Mutant, request: Request, config: Config, lab: KernelLab, board: Board
) -> Outcome:
    asked = wish(mutant, request, config)
    command = Command("mutants", config, None, (mutant.name,), runner.chosen(asked, config))
    return runner.drive(asked, config, lab, command, board)


# -- how that is judged ---------------------------------------------------------------------------


def judge(mutant: Mutant, smoke: str, seen: Run, error: RigError | None) -> tuple[End, str]:
    """What became of a mutant that was built, and the words for it. Pure.

    Its smoke test has to pass: what breaks everything shows nothing about one test. Then the case
    it names has to fail by itself. What ends by the time limit of the program, or only elsewhere,
    is not caught, however wrong the kernel is. A splat is a failure of the whole program.
    """
    if smoke:
        first = [case for case in seen.cases if _of(case, smoke)]
        if not first:
            return End.DEAD, error.message if error else f"{smoke} did not run"
        bad = next((case for case in first if not case.status.good), None)
        if bad:
            return End.UNFIT, f"{bad.id}: {bad.status}: {bad.message}"
    suite, program, name = mutant.catcher
    own = [case for case in seen.cases if _of(case, f"{suite}/{program}")]
    if not own:
        return End.DEAD, error.message if error else f"{suite}/{program} did not run"
    named = [case for case in own if _is_named(case, name)]
    failed = (Status.FAIL, Status.CRASH)
    for case in named:
        if case.status in failed:
            return End.CAUGHT, _first_line(case)
    if any(case.status is Status.TIMEOUT for case in own):
        return End.HUNG, "the program ran into its time limit"
    bad = next((case for case in own if not case.status.good), None)
    if bad:
        return End.ELSEWHERE, f"{bad.id}: {bad.status}: {_first_line(bad)}"
    if name and not named:
        return End.MISSED, f"{suite}/{program} has no case {name!r}"
    return End.MISSED, "every case passed"


def _of(case: Case, program: str) -> bool:
    return f"{case.suite}/{case.program}" == program


def _is_named(case: Case, name: str) -> bool:
    """Cases of a fixture are named fixture.variant.case."""
    return case.name == name or (bool(name) and case.name.endswith(f".{name}"))


def _first_line(case: Case) -> str:
    return case.message or next(iter(case.output.strip().splitlines()), "")


# -- for people and programs ----------------------------------------------------------------------


def line(verdict: Verdict) -> str:
    """One line of the table, and below it what to do about a mutant that was not caught."""
    mutant = verdict.mutant
    took = f"{verdict.build_s:.0f} + {verdict.test_s:.0f} s"
    text = f"{verdict.end.upper():<10}{mutant.name} ({took}) {mutant.caught_by}"
    if verdict.end is End.CAUGHT:
        return text
    return f"{text}\n    {mutant.says}\n    {verdict.message}\n    again: {verdict.reproduce}"


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many of them were caught, and the hazards of which none was."""
    caught = [one for one in verdicts if one.end is End.CAUGHT]
    hazards = {one.mutant.hazard for one in verdicts}
    missing = sorted(hazards - {one.mutant.hazard for one in caught})
    words = f"{len(caught)} of {len(verdicts)} mutants were caught by the tests they name"
    return words + (f"; no one of: {'; '.join(missing)}" if missing else "")


def described(mutant: Mutant) -> dict[str, object]:
    """A mutant as JSON."""
    return {
        "name": mutant.name,
        "says": mutant.says,
        "hazard": mutant.hazard,
        "caught_by": mutant.caught_by,
        "kinds": list(mutant.kinds),
        "machine": mutant.machine,
        "kernel": mutant.kernel,
    }


def told(verdict: Verdict) -> dict[str, object]:
    """A verdict as JSON; seconds."""
    return {
        **described(verdict.mutant),
        "end": verdict.end.value,
        "message": verdict.message,
        "build_s": round(verdict.build_s, 1),
        "test_s": round(verdict.test_s, 1),
        "reproduce": verdict.reproduce,
    }
