"""The same run again and again: a case that both passes and fails is FLAKY, with its rate."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rig import report, stats
from rig.errors import UsageError
from rig.expected import EXPECTED
from rig.outcome import Files, Outcome, copy
from rig.record import Record
from rig.results import BOOTS, Case, Run, Status

UNTIL_FAIL = 1000  # how often at most, where nobody said
_WHOLE = ("", "after its end")  # names of a program's own cases
_RATED = re.compile(rf"not good in \d+ of \d+ .*: {EXPECTED}")


def together(runs: Sequence[Run]) -> Run:
    """Several runs of the same as one: what ended differently is FLAKY. Pure.

    A case that one run lacks counts as not good there: it did not pass. All splats are kept, and
    the consoles by the name of their run's directory.
    """
    last = runs[-1]
    seen: dict[str, list[Case | None]] = {}
    for number, run in enumerate(runs):
        for case in run.cases:
            of = seen.setdefault(case.id, [None] * len(runs))
            of[number] = _graver(of[number], case)
    for those in seen.values():
        _fill(those, runs)
    cases = tuple(_one(those) for those in seen.values())
    # What may fail now and then is told how often it did.
    rates = tuple(f"{case.id}: {case.message}" for case in cases if _RATED.match(case.message))
    return replace(
        last,
        cases=cases,
        splats=tuple(splat for run in runs for splat in run.splats),
        notices=tuple(dict.fromkeys((*(words for run in runs for words in run.notices), *rates))),
        consoles=tuple(f"../{run.id}/{name}" for run in runs for name in run.consoles),
        duration_s=round(math.fsum(run.duration_s for run in runs), 3),
        complete=all(run.complete for run in runs),
    )


def _fill(those: list[Case | None], runs: Sequence[Run]) -> None:
    """A case of a whole program is there only where that was not good: where its other cases are,
    and it is not, the program came to its end. So is that of a boot: of a run that came to its end
    without it, each boot was well.
    """
    own = next(case for case in those if case)
    if own.name not in _WHOLE:
        return
    if own.suite == BOOTS:
        for number, run in enumerate(runs):
            if those[number] is None and run.complete:
                those[number] = replace(own, status=Status.PASS, message="", output="")
        return
    for number, run in enumerate(runs):
        if those[number] is None and any(
            (case.suite, case.program) == (own.suite, own.program) for case in run.cases
        ):
            those[number] = replace(own, status=Status.PASS, message="", output="", duration_s=0.0)


def _graver(known: Case | None, case: Case) -> Case:
    """Of two cases of one id in one run the one that is not good."""
    return case if known is None or known.status.good else known


def _one(those: Sequence[Case | None]) -> Case:
    there = [case for case in those if case]
    bad = [case for case in there if not case.status.good]
    missing = len(those) - len(there)
    took = math.fsum(case.duration_s for case in there)
    expected = [case for case in there if case.message.startswith(EXPECTED)]
    if not bad and not missing:
        shown = there[-1]
        if 0 < len(expected) < len(those):
            rate = _rate(len(expected), len(those))
            shown = replace(expected[-1], message=f"{rate}: {expected[-1].message}")
        return replace(shown, duration_s=round(took, 4))
    shown = bad[-1] if bad else there[-1]
    if len(bad) + missing == len(those):
        return replace(shown, duration_s=round(took, 4))
    words = _rate(len(bad) + missing, len(those))
    why = shown.message if bad else f"it is missing from {missing} of the runs"
    return replace(shown, status=Status.FLAKY, message=f"{words}: {why}", duration_s=round(took, 4))


def _rate(bad: int, total: int) -> str:
    low, high = stats.wilson(bad, total)
    return f"not good in {bad} of {total} ({low:.1%} to {high:.1%} of runs, 95 %)"


def repeat(
    once: Callable[[], Outcome],
    times: int,
    until_fail: bool,
    files: Files,
    command: str,
    results: Path,
    tell: Callable[[str], None] = lambda words: None,
) -> Outcome:
    """Run so often, or until a run is not green; the outcome of all together, with a report.

    An error that ended a run early (no boot, no disk) ends all of it: it says nothing of a case.
    UsageError for less than one time.
    """
    if times < 1:
        raise UsageError(f"--repeat {times}", hint="at least once")
    outcomes: list[Outcome] = []
    while len(outcomes) < times:
        done = once()
        outcomes.append(done)
        tell(f"run {len(outcomes)} of {times}: {report.verdict(done.run).because}")
        if not done.run.complete or (until_fail and done.exit_code):
            break
    if len(outcomes) == 1:
        copy(files, outcomes[0].run)
        return outcomes[0]
    notices = [f"{len(outcomes)} runs: {', '.join(one.run.id for one in outcomes)}"]
    if until_fail and len(outcomes) == times and not outcomes[-1].exit_code:
        notices.append(f"it did not fail in {times} runs; --repeat N says after how many to stop")
        tell(notices[-1])
    return _concluded(outcomes, notices, files, command, results)


def _concluded(
    outcomes: Sequence[Outcome],
    notices: Sequence[str],
    files: Files,
    command: str,
    results: Path,
) -> Outcome:
    record = Record.begin(results, command, "repeated")
    whole = together([one.run for one in outcomes])
    own = record.run
    run = replace(
        whole, id=own.id, started=own.started, command=command, notices=(*whole.notices, *notices)
    )
    report.write(run, record.directory)
    copy(files, run)
    early = next((one for one in outcomes if not one.run.complete or one.error), None)
    code = early.exit_code if early else run.exit_code
    return Outcome(run, record.directory, code, early.error if early else None)
