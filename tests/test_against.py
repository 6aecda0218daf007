"""A run against a base: only what is new counts."""

from __future__ import annotations

import dataclasses

import pytest

from rig import against
from rig.results import Case, Run, Splat, Status


def case(name: str, status: Status) -> Case:
    return Case("futex", "wait", name, status)


def run_of(*cases: Case, splats: tuple[Splat, ...] = ()) -> Run:
    return Run("1", "", "", cases=cases, splats=splats, complete=True)


OOPS = Splat("page-fault", "BUG: page fault in x", 0, 1)
LEAK = Splat("memory-leak", "memory leak in y", 0, 1)


@pytest.mark.parametrize(
    ("now", "before", "code"),
    [
        (Status.FAIL, Status.FAIL, 0),
        (Status.FAIL, Status.PASS, 1),
        (Status.FAIL, Status.SKIP, 1),
        (Status.CRASH, Status.FAIL, 1),
        (Status.PASS, Status.FAIL, 0),
    ],
)
def test_only_what_is_new_counts(now: Status, before: Status, code: int) -> None:
    base = run_of(case("a", Status.PASS), case("b", before))
    run = against.only_new(run_of(case("a", Status.PASS), case("b", now)), base, "plain")
    assert run.exit_code == code


@pytest.mark.parametrize(
    ("status", "now", "before", "code"),
    [
        (Status.FAIL, "killed by signal 11", "exit code 1", 1),
        (Status.FAIL, "exit code 1", "exit code 1", 0),
        (Status.ERROR, "it printed no KTAP (exit code 2)", "incomplete KTAP: no plan", 1),
        (Status.TIMEOUT, "not within 9 s (5 s, slowdown 1.8)", "not within 5 s", 0),
    ],
)
def test_a_program_that_fails_in_another_way_is_new(
    status: Status, now: str, before: str, code: int
) -> None:
    good, bad = case("a", Status.PASS), case("", status)
    base = run_of(good, dataclasses.replace(bad, message=before))
    run = against.only_new(run_of(good, dataclasses.replace(bad, message=now)), base, "plain")
    assert run.exit_code == code


def test_cases_of_one_name_are_told_apart() -> None:
    base = run_of(case("a", Status.PASS), case("a", Status.FAIL), case("a", Status.PASS))
    assert against.only_new(base, base, "plain").exit_code == 0
    worse = run_of(case("a", Status.FAIL), case("a", Status.FAIL), case("a", Status.PASS))
    assert against.only_new(worse, base, "plain").exit_code == 1
    fewer = run_of(*base.cases[:2])
    assert against.only_new(fewer, base, "plain").cases[-1].status is Status.ERROR


def test_what_is_missing_now_is_an_error() -> None:
    base = run_of(case("a", Status.PASS), case("b", Status.PASS))
    run = against.only_new(run_of(case("a", Status.PASS)), base, "plain")
    assert run.cases[-1].status is Status.ERROR
    assert run.exit_code == 1


def test_splats_of_the_base_are_not_new() -> None:
    good = case("a", Status.PASS)
    base = run_of(good, splats=(OOPS,))
    assert against.only_new(run_of(good, splats=(OOPS,)), base, "plain").exit_code == 0
    assert against.only_new(run_of(good, splats=(OOPS, LEAK)), base, "plain").splats == (LEAK,)


def test_the_notice_says_how_many_are_not_counted() -> None:
    base = run_of(case("a", Status.FAIL), case("b", Status.FAIL))
    run = against.only_new(base, base, "plain")
    assert run.notices == ("2 case(s) that do not pass on plain either are not counted",)
