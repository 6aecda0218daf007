"""Runs repeated: rates with their intervals, and nothing that fails now and then is green."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rig import again, stats
from rig.errors import BootError, UsageError
from rig.outcome import Files, Outcome
from rig.results import Case, Run, Splat, Status


def run(*statuses: Status, number: int = 0, complete: bool = True) -> Run:
    cases = tuple(
        Case("s", "p", f"c{at}", status, 1.0, "" if status.good else "why")
        for at, status in enumerate(statuses)
    )
    return Run(f"run-{number}", "", "rig", cases=cases, consoles=("console-0.log",),
               duration_s=2.0, complete=complete)  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "total", "low", "high"),
    # Wilson's own formula, worked by hand for the first three.
    [(0, 10, 0.0, 0.2775), (1, 10, 0.0179, 0.4042), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0),
     (0, 0, 0.0, 1.0)],
)  # fmt: skip
def test_the_interval_of_a_rate(bad: int, total: int, low: float, high: float) -> None:
    assert stats.wilson(bad, total) == pytest.approx((low, high), abs=1e-4)


def test_what_ends_the_same_way_stays_so() -> None:
    whole = again.together([run(Status.PASS, Status.FAIL, Status.SKIP)] * 3)
    assert [case.status for case in whole.cases] == [Status.PASS, Status.FAIL, Status.SKIP]
    assert [case.duration_s for case in whole.cases] == [3.0] * 3
    assert whole.duration_s == 6.0


def test_what_ends_differently_is_flaky_and_never_green() -> None:
    whole = again.together([run(Status.PASS), run(Status.TIMEOUT), run(Status.PASS)])
    (case,) = whole.cases
    assert case.status is Status.FLAKY
    assert case.message == "not good in 1 of 3 (6.1% to 79.2% of runs, 95 %): why"
    assert whole.exit_code == 1
    assert not Status.FLAKY.good


def test_what_fails_in_two_ways_is_no_flake() -> None:
    (case,) = again.together([run(Status.FAIL), run(Status.CRASH)]).cases
    assert case.status is Status.CRASH


def test_a_boot_that_is_bad_now_and_then_is_flaky_with_its_rate() -> None:
    """Its case is there only where it was bad."""
    bad = Case("machine", "boot-1", "", Status.FAIL, message="WARNING in f")
    well = [run(Status.PASS, number=number) for number in range(9)]
    ill = replace(run(Status.PASS, number=9), cases=(bad, *well[0].cases))
    boot, own = again.together([*well[:4], ill, *well[4:]]).cases[::-1]
    assert (boot.status, own.status) == (Status.FLAKY, Status.PASS)
    assert boot.message == "not good in 1 of 10 (1.8% to 40.4% of runs, 95 %): WARNING in f"
    # One that did not come to its end says nothing of its boots.
    cut = replace(well[0], complete=False)
    (told,) = [case for case in again.together([ill, cut]).cases if case.suite == "machine"]
    assert told.status is Status.FAIL


def test_a_case_that_a_run_lacks_is_flaky() -> None:
    whole = again.together([run(Status.PASS, Status.PASS), run(Status.PASS)])
    assert [case.status for case in whole.cases] == [Status.PASS, Status.FLAKY]
    assert "it is missing from 1 of the runs" in whole.cases[1].message


def test_a_splat_of_any_run_is_kept() -> None:
    clean = run(Status.PASS)
    dirty = Run("x", "", "rig", cases=clean.cases, splats=(Splat("bug", "t", 0, 1),), complete=True)
    whole = again.together([dirty, clean])
    assert whole.exit_code == 1
    assert list(whole.consoles) == ["../run-0/console-0.log"]


class Once:
    """Hands out runs; says how often it was asked."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes, self.times = outcomes, 0

    def __call__(self) -> Outcome:
        self.times += 1
        return self.outcomes[min(self.times, len(self.outcomes)) - 1]


def outcome(one: Run) -> Outcome:
    return Outcome(one, Path("/r"), one.exit_code)


GREEN, RED = outcome(run(Status.PASS)), outcome(run(Status.FAIL, number=1))


def repeat(once: Once, times: int, results: Path, *, until_fail: bool = False) -> Outcome:
    return again.repeat(once, times, until_fail, Files(), "rig x --repeat", results)


def test_so_many_runs_and_a_report(tmp_path: Path) -> None:
    once = Once(GREEN, RED, GREEN)
    done = repeat(once, 3, tmp_path)
    assert (once.times, done.exit_code) == (3, 1)
    assert done.run.cases[0].status is Status.FLAKY
    assert "3 runs: run-0, run-1, run-0" in done.run.notices
    assert "FLAKY" in (done.directory / "report.html").read_text().upper()
    assert 'failures="1"' in (done.directory / "junit.xml").read_text()


def test_until_it_fails(tmp_path: Path) -> None:
    once = Once(GREEN, GREEN, RED)
    assert repeat(once, 100, tmp_path, until_fail=True).exit_code == 1
    assert once.times == 3
    green = Once(GREEN)
    assert repeat(green, 4, tmp_path, until_fail=True).exit_code == 0
    assert green.times == 4


def test_a_run_that_did_not_reach_its_end_ends_all(tmp_path: Path) -> None:
    error = BootError("no login")
    cut = Outcome(run(Status.PASS, complete=False), Path("/r"), error.exit_code, error)
    once = Once(GREEN, cut)
    done = repeat(once, 9, tmp_path)
    assert (once.times, done.exit_code, done.error) == (2, 5, error)
    assert not done.run.complete


def test_once_is_as_it_was(tmp_path: Path) -> None:
    assert repeat(Once(RED), 1, tmp_path) is RED
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="--repeat 0"):
        repeat(Once(RED), 0, tmp_path)


def test_what_never_fails_says_so(tmp_path: Path) -> None:
    whole = repeat(Once(GREEN), 3, tmp_path, until_fail=True)
    assert "it did not fail in 3 runs" in whole.run.notices[-1]
    plain = repeat(Once(GREEN), 3, tmp_path)
    assert "did not fail" not in " ".join(plain.run.notices)


def whole_program(status: Status, number: int, *others: Status) -> Run:
    """A program's own case is told only where it is bad, and stands beside those it has told."""
    there = run(*others, number=number)
    own = Case("s", "p", "", status, 1.0, "it crashed", "words")
    return there if status.good else replace(there, cases=(own, *there.cases))


def test_a_program_that_crashes_now_and_then_is_flaky() -> None:
    runs = [whole_program(Status.PASS, n, Status.PASS) for n in range(4)]
    together = again.together([*runs, whole_program(Status.CRASH, 4, Status.PASS)])
    own, other = sorted(together.cases, key=lambda case: case.name)
    assert (own.status, other.status) == (Status.FLAKY, Status.PASS)
    assert own.message.startswith("not good in 1 of 5 (")
    assert own.message.endswith("it crashed")
    # Where nothing of it was run, nobody knows.
    (own, *_) = again.together([replace(runs[0], cases=()), whole_program(Status.CRASH, 4)]).cases
    assert own.status is Status.CRASH


def test_what_may_fail_now_and_then_is_told_how_often_it_did() -> None:
    expected = Case("s", "p", "c0", Status.SKIP, 1.0, "expected: it is known: why")
    runs = [replace(run(Status.PASS), cases=(expected,)) for _ in range(9)] + [run(Status.PASS)]
    together = again.together(runs)
    (case,) = together.cases
    assert case.status is Status.SKIP
    assert case.message.startswith("not good in 9 of 10 (")
    assert together.notices == (f"s/p::c0: {case.message}",)
    always = again.together(runs[:9])
    assert always.cases[0].message == expected.message
    assert not always.notices
