"""What was seen of one program to cases: born ERROR, PASS only when every rule holds."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rig import ktap
from rig.ktap import KtapCase, KtapReport
from rig.results import Case, Splat, Status

# kselftest's exit code for "skipped" (KSFT_SKIP in tools/testing/selftests/kselftest.h).
SKIP_EXIT_CODE = 4

# Exit codes that say "killed by signal n" (rig.session.Finished).
_SIGNALS = range(129, 129 + 64)
_OUTPUT_MAX = 64 * 1024
# What a bad case without a word of its own is said to be.
_WORDLESS = {
    Status.FAIL: "not ok",
    Status.ERROR: "planned, but its result never came",
    Status.TIMEOUT: "it ran out of time",
    Status.CRASH: "it crashed",
}
# Lines of kselftest_harness.h that say where it is, and empty ones: no reason for anything.
_BOOKKEEPING = re.compile(r"\s*(?:$|(?:RUN|OK|FAIL|SKIP)\s+\S+|Starting |Test terminated )")
_NO_KTAP = ("no KTAP in the output",)


class End(enum.Enum):
    """How the watching of a program ended."""

    EXITED = "it ended by itself and both markers came through the console"
    SILENT = "a marker did not come through the console"
    TIMEOUT = "it did not end in time"
    LOST = "the machine went away"
    CUT_OFF = "the machine runs, but cannot be reached"

    @property
    def gone(self) -> bool:
        """Nothing more can be run in that machine, and it was not the rig's doing."""
        return self in (End.LOST, End.CUT_OFF)


@dataclass(frozen=True)
class Observation:
    """One program as the rig saw it.

    exit_code: the program's own when it EXITED (128 + n: signal n), else -1.
    output: stdout and stderr as they came. splats: what the console said meanwhile.
    detail: words on SILENT, LOST and TIMEOUT. diagnosis: the guest's
    blocked tasks after a TIMEOUT. result_times: seconds from the start to each "ok" line of the
    outermost level.
    """

    end: End
    exit_code: int = -1
    output: str = ""
    duration_s: float = 0.0
    splats: tuple[Splat, ...] = ()
    detail: str = ""
    diagnosis: str = ""
    result_times: tuple[float, ...] = ()


@dataclass(frozen=True)
class Rules:
    """What is asked of a program.

    suite, program: names for its cases.
    bare: a program without any KTAP is judged by its exit code, as kselftest's own runner does.
    reproduce: the command that runs it again.
    """

    suite: str
    program: str
    bare: bool = False
    reproduce: str = ""


class NotPassed(Exception):
    """A case, or a program, that did not pass."""

    def __init__(self, bad: list[Case], total: int) -> None:
        self.bad = bad
        self.total = total
        super().__init__(bad, total)

    def __str__(self) -> str:
        case = self.bad[0]
        if len(self.bad) > 1 and case.name:
            return f"{len(self.bad)} of {self.total} cases did not pass"
        again = f"again: {case.reproduce}" if case.reproduce else ""
        head = f"{case.status.upper()} {case.id}: {case.message}"
        return "\n".join(part for part in (head, case.output, again) if part)


def judge(rules: Rules, seen: Observation) -> tuple[Case, ...]:
    """The program's KTAP cases, and one for the program itself (name "") unless all is well.

    The program's own case is what a splat, a crash, a time-out, a lost marker, an incomplete plan
    or an exit code that contradicts the cases show up in: no case of it may hide them.
    """
    report = ktap.parse(seen.output)
    durations = _durations(seen, report)
    cases = [_case(rules, *both) for both in zip(report.cases, durations, strict=True)]
    status, message = _whole(rules, seen, report)
    if status is None:
        return tuple(cases)
    named = [case for case in cases if case.name]
    return (*named, _own_case(rules, seen, status, message))


def worst(cases: Sequence[Case]) -> Status:
    """The verdict of a program: the gravest status among its cases; ERROR when there is none."""
    gravity = (
        *(Status.CRASH, Status.TIMEOUT, Status.ERROR, Status.FAIL, Status.FLAKY),
        *(Status.PASS, Status.SKIP),
    )
    return min((case.status for case in cases), key=gravity.index, default=Status.ERROR)


def unborn(rules: Rules, why: str) -> Case:
    """The case of a program that never ran."""
    return Case(rules.suite, rules.program, "", message=why, reproduce=rules.reproduce)


def late(rules: Rules, splats: Sequence[Splat]) -> Case:
    """The case for what the console said after the program had been judged."""
    return Case(
        rules.suite,
        rules.program,
        "after its end",
        Status.FAIL,
        message=_titles(splats),
        output=_texts(splats),
        reproduce=rules.reproduce,
    )


def _whole(rules: Rules, seen: Observation, report: KtapReport) -> tuple[Status | None, str]:
    """Status and words for the program as a whole; None when its cases say everything."""
    if seen.end is not End.EXITED or seen.splats:
        return _disturbed(rules, seen)
    if report.errors == _NO_KTAP:
        return _bare(rules, seen)
    if report.errors:
        ended = [_exit_words(seen.exit_code)] if seen.exit_code else []
        return Status.ERROR, f"incomplete KTAP: {'; '.join([*report.errors, *ended])}"
    return _contradiction(seen.exit_code, report)


def _disturbed(rules: Rules, seen: Observation) -> tuple[Status, str]:
    """What kept the program from being watched to a clean end."""
    splats = f"; splat: {_titles(seen.splats)}" if seen.splats else ""
    if seen.end is End.LOST and seen.splats:
        return Status.CRASH, _titles(seen.splats)
    if seen.end.gone and not seen.splats:
        return Status.ERROR, f"{seen.detail}, and no splat explains it"
    if seen.end is End.TIMEOUT:
        return Status.TIMEOUT, f"{seen.detail}{splats}"
    if seen.end is End.SILENT and not seen.splats:
        return Status.ERROR, f"the console is no proof: {seen.detail}"
    return Status.FAIL, f"splat: {_titles(seen.splats)}"


def _bare(rules: Rules, seen: Observation) -> tuple[Status, str]:
    """A program that printed no KTAP at all."""
    code = seen.exit_code
    if not rules.bare:
        return Status.ERROR, f"it printed no KTAP ({_exit_words(code)})"
    if code == SKIP_EXIT_CODE:
        return Status.SKIP, (seen.output.strip().splitlines() or [""])[-1]
    return (Status.PASS, "") if code == 0 else (Status.FAIL, _exit_words(code))


def _contradiction(code: int, report: KtapReport) -> tuple[Status | None, str]:
    """A whole KTAP report against the exit code."""
    if code in _SIGNALS:
        return Status.FAIL, _exit_words(code)
    if any(not case.status.good for case in report.cases):
        return None, ""
    skipped = all(case.status is Status.SKIP for case in report.cases)
    if code == 0 or (code == SKIP_EXIT_CODE and skipped):
        nameless = [case for case in report.cases if not case.name]
        return (Status.SKIP, nameless[0].directive) if nameless else (None, "")
    return Status.FAIL, f"{_exit_words(code)}, although it reported every case good"


def _durations(seen: Observation, report: KtapReport) -> list[float]:
    """Seconds of each case: its own figure, else from the result before it to its own, where
    results and cases go one to one."""
    times = seen.result_times
    if len(times) != len(report.cases):
        return [case.duration_s for case in report.cases]
    steps = [after - before for before, after in zip((0.0, *times), times, strict=False)]
    return [case.duration_s or step for case, step in zip(report.cases, steps, strict=True)]


def _case(rules: Rules, case: KtapCase, duration_s: float) -> Case:
    message = case.directive
    if not case.status.good and not message:
        telling = (line for line in case.diagnostics if not _BOOKKEEPING.match(line))
        message = next(telling, _WORDLESS[case.status])
    return Case(
        rules.suite,
        rules.program,
        case.name,
        case.status,
        round(duration_s, 4),
        "" if case.status is Status.PASS else message,
        _tail("\n".join(case.diagnostics)),
        rules.reproduce,
    )


def _own_case(rules: Rules, seen: Observation, status: Status, message: str) -> Case:
    parts = [_tail(seen.output), _tail(_texts(seen.splats)), _ends(seen.diagnosis)]
    output = "\n".join(part.rstrip() for part in parts if part.strip())
    return Case(
        rules.suite, rules.program, "", status, seen.duration_s, message, output, rules.reproduce
    )


def _exit_words(code: int) -> str:
    return f"killed by signal {code - 128}" if code in _SIGNALS else f"exit code {code}"


def _titles(splats: Sequence[Splat]) -> str:
    more = f" (and {len(splats) - 1} more)" if len(splats) > 1 else ""
    return f"{splats[0].title}{more}"


def _texts(splats: Sequence[Splat]) -> str:
    return "\n".join(splat.text for splat in splats)


def _ends(text: str) -> str:
    """At most 64 KiB, most of it the first: what is blocked, and what CPUs do, comes before all the
    other tasks.
    """
    cut = len(text) - _OUTPUT_MAX
    head, end = _OUTPUT_MAX * 3 // 4, _OUTPUT_MAX // 4
    return f"{text[:head]}\n[... {cut} characters]\n{text[-end:]}" if cut > 0 else text


def _tail(text: str) -> str:
    """At most the last 64 KiB: a verdict is no place for a megabyte of output."""
    cut = len(text) - _OUTPUT_MAX
    return f"[... {cut} characters before]\n{text[cut:]}" if cut > 0 else text
