"""The kernel's own unit tests, which run while it boots and speak KTAP on its console."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rig import expected, ktap, report, splat
from rig.against import Wish, compared
from rig.config import Config
from rig.errors import BootError, HangError, RigError, UsageError
from rig.expected import Expected
from rig.lab import KernelLab, open_lab
from rig.machine import wire
from rig.outcome import Command, Outcome, check_places, copy, exit_code
from rig.progress import QUIET, Progress
from rig.record import Record
from rig.results import Case, Splat, Status

_EXPECTED = "expected, with a crash: "


@dataclass(frozen=True, kw_only=True)
class Request(Wish):
    """`rig kunit`. kunitconfig: a path of the kernel's tree, its .kunitconfig may be left out."""

    kunitconfig: str | None = None
    machine: str | None = None


def run(request: Request, config: Config, progress: Progress = QUIET) -> Outcome:
    """The kernel's own unit tests, which run while it boots and speak KTAP on its console."""
    check_places(request)
    return compared(request, lambda name, wish: _kunit_on(name, wish, config, progress), config)


def _kunit_on(kernel: str, request: Request, config: Config, progress: Progress) -> Outcome:
    held = expected.load(config.root, kernel)
    lab = _kunit_lab(kernel, request, config, progress)
    words = ["--kernel", kernel]
    words += ["--kunitconfig", request.kunitconfig] if request.kunitconfig else []
    command = Command("kunit", config, request.machine, tuple(words)).whole()
    record = Record.begin(request.results or config.root / "results", command, f"{kernel}-kunit")
    error: RigError | None = None
    with contextlib.closing(lab):
        try:
            lab.boot(0, record).close()
        except BootError as failure:
            error = failure
        record.update(lab.describe)
    recorded = record.directory / "console-0.log"
    console = recorded.read_bytes() if recorded.exists() else b""
    if isinstance(error, HangError):  # the rest is what it was made to say
        console = console[: error.heard]
    found = lab.explain(splat.scan(console))
    cases, splats, notices = judged(console.decode(errors="replace"), found, held, command)
    for notice in notices:
        record.notice(notice)
    record.add([*cases, *_lost(console.decode(errors="replace"), command)], splats)
    run = record.finish()
    report.write(record.run, record.directory)
    copy(request, run)
    told = crashed(cases, notices)
    error = None if told else error  # a unit test that takes the kernel down is its verdict
    return Outcome(run, record.directory, exit_code(run, error, None), error)


def _lost(console: str, command: str) -> list[Case]:
    """A console that went down is no proof: what it had to say then may have been anything."""
    if not (count := wire.gaps(console)):
        return []
    words = f"the console is no proof: it was lost {count} time(s)"
    return [Case("kunit", "console", "", Status.ERROR, message=words, reproduce=command)]


def _kunit_lab(kernel: str, request: Request, config: Config, progress: Progress) -> KernelLab:
    """A lab with the kernel, its `kunit` flavour kept apart so that neither rebuilds the other."""
    plain = config.kernel(kernel)
    flavour = replace(plain, name=f"{plain.name}-kunit", configs=(*plain.configs, "kunit"))
    # The tests run while the kernel boots.
    lab = open_lab(config, flavour, request.machine, progress, cold=True)
    wished = [_kunitconfig(request.kunitconfig, lab)] if request.kunitconfig else []
    lab.prepare((), wished)
    return lab


def _kunitconfig(name: str, lab: KernelLab) -> Path:
    """A kunitconfig on this host, or in the kernel's tree."""
    places = [Path(name).absolute(), lab.build().tree / name]
    for place in places:
        found = place / ".kunitconfig" if place.is_dir() else place
        if found.is_file():
            return found
    raise UsageError(f"no kunitconfig {name!r} here or in {lab.kernel.tree}")


def judged(
    console: str, found: Sequence[Splat], held: Expected, command: str
) -> tuple[tuple[Case, ...], tuple[Splat, ...], tuple[str, ...]]:
    """The cases and splats of a console in the light of what is expected, and notices. Pure.

    Splats of a crash that is expected are notices.
    """
    splats, notices = held.allowed(found)
    raw = cases_of(console, splats, command)
    cases = held.judged(raw)
    ends = zip(raw, cases, strict=True)
    if any(one.status is Status.CRASH and two.status.good for one, two in ends):
        notices = (*notices, *(f"{_EXPECTED}{one.title}" for one in splats))
        splats = ()
    return cases, splats, (*held.expired, *notices)


def crashed(cases: Sequence[Case], notices: Sequence[str]) -> bool:
    """Whether the kernel went down in a unit test, expected or not. Pure."""
    died = any(case.status is Status.CRASH for case in cases)
    return died or any(one.startswith(_EXPECTED) for one in notices)


def cases_of(console: str, splats: Sequence[Splat], command: str) -> tuple[Case, ...]:
    """The unit tests of a console: a KUnit suite is a program, a test a case."""
    told = ktap.parse(console)
    cases = []
    for one in told.cases:
        program, _, name = one.name.partition("/")
        cases.append(
            Case(
                "kunit",
                program or "kunit",
                name,
                one.status,
                one.duration_s,
                "" if one.status is Status.PASS else one.directive,
                "\n".join(one.diagnostics),
                command,
            )
        )
    if splats or told.errors:
        cut = any(one.type in ("panic", "bug", "lost-init") for one in splats)
        status = Status.CRASH if cut else Status.FAIL if splats else Status.ERROR
        words = "; ".join([*(one.title for one in splats), *told.errors])
        output = "\n".join(one.text for one in splats)
        cases.append(Case("kunit", "kernel", "", status, 0.0, words, output, command))
    return tuple(cases)
