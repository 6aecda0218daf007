"""What is news in a night: told from the nights before it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rig import night
from rig.night import End, Level, Night, Outcome, Part, Summary, of_run, summary
from rig.results import Case, Run, Splat, Status

PASS = Outcome(Status.PASS, part="matrix")
FAIL = Outcome(Status.FAIL, "it broke", "rig boot-and-test", part="matrix")
DONE = (Part("matrix", End.DONE),)


def nights(*rows: str, what: str = "abi/x [k, m]") -> list[Night]:
    """A night a row: of ".", "F" and "~" for the case, " " where it was not run."""
    status = {".": Status.PASS, "F": Status.FAIL, "~": Status.FLAKY, "s": Status.SKIP}
    found = []
    for number, mark in enumerate("".join(rows)):
        results = {what: replace(PASS, status=status[mark])} if mark != " " else {}
        results["abi/other [k, m]"] = PASS
        night = Night(f"2026{number:04}", "2026-01-01T00:00:00+00:00", parts=DONE, results=results)
        found.append(replace(night, good=mark in ".s "))
    return found


def told(*rows: str) -> Summary:
    *before, now = nights(*rows)
    return summary(now, before)


def kinds(said: Summary) -> dict[str, list[str]]:
    """What of the case is said, by kind."""
    every = {
        "new": said.new, "still": said.still, "flaky": said.flaky, "fixed": said.fixed,
        "allowed": said.allowed, "skipped": said.skipped,
    }  # fmt: skip
    return {name: [one.what for one in those] for name, those in every.items() if those}


@pytest.mark.parametrize(
    ("row", "kind", "good"),
    [
        (".", "", True),
        ("F", "new", False),
        ("..F", "new", False),
        (". F", "new", False),  # not run the night between
        ("..FF", "still", False),
        (".F F", "still", False),
        (".FF.", "fixed", True),
        ("FF.", "fixed", True),
        ("..s", "skipped", False),
        ("FFs", "skipped", False),  # which has mended nothing
        (".ss", "", True),
        ("s", "", True),
        (".s.", "", True),
        ("Fss", "still", False),
        ("Fs.", "fixed", True),
        ("FsF", "still", False),
        ("...~", "flaky", False),
        (".F.F", "flaky", False),
        (".F.F.", "", True),  # good this time; a flaky case that is good is no fix
        (".F............F", "new", False),  # long ago
        (".F.F.....F", "new", False),  # five good ones in a row have mended what came and went
        (".F.F.....FF", "still", False),
        (".F.F....F", "flaky", False),
    ],
)
def test_of_which_kind_a_case_is(row: str, kind: str, good: bool) -> None:
    said = told(row)
    assert kinds(said) == ({kind: ["abi/x [k, m]"]} if kind else {})
    assert said.good is good
    assert (said.because == "all good") is (good and kind != "fixed")


def test_since_when() -> None:
    (one,) = told("..FFF").still
    assert (one.since, one.before) == ("20260002", Status.FAIL)
    (one,) = told("..F").new
    assert (one.since, one.before) == ("", Status.PASS)
    (one,) = told("F").new
    assert one.before == ""


def test_what_may_fail_is_told_and_is_no_failure() -> None:
    now = replace(nights(".")[0], results={"abi/x [k, m]": replace(FAIL, allowed="it is new")})
    said = summary(now, [])
    assert kinds(said) == {"allowed": ["abi/x [k, m]"]}
    assert said.good


def test_what_may_fail_may_be_skipped() -> None:
    before, now = nights(".s")
    skip = replace(now.results["abi/x [k, m]"], allowed="it is new")
    assert summary(replace(now, results={**now.results, "abi/x [k, m]": skip}), [before]).good


def figures(**values: float) -> dict[str, Level]:
    return {
        name: Level(value, "instructions", name != "ungated", "matrix")
        for name, value in values.items()
    }


def test_a_figure_is_held_against_the_last_good_night() -> None:
    good, bad, now = nights("...")
    good = replace(good, figures=figures(a=100, b=200, c=5, ungated=1))
    bad = replace(bad, figures=figures(a=110, b=200, c=5, ungated=1), good=False)
    now = replace(now, figures=figures(a=110, b=198, c=5, ungated=9))
    said = summary(now, [good, bad])
    assert [one.words for one in said.regressions] == ["a: 100 -> 110 instructions (+10.00%)"]
    assert [one.words for one in said.better] == ["b: 200 -> 198 instructions (-1.00%)"]
    assert said.regressions[0].base == good.name
    assert said.base == good.name
    assert not said.good
    assert said.because == "1 regression"
    accepted = replace(bad, accepted="it is worth it")
    assert not summary(now, [good, accepted]).regressions
    assert summary(now, [good, accepted]).base == bad.name


def test_the_largest_regression_comes_first() -> None:
    good, now = nights("..")
    good = replace(good, figures=figures(a=1000, b=10, c=0))
    now = replace(now, figures=figures(a=1100, b=20, c=1))
    assert [one.what for one in summary(now, [good]).regressions] == ["c", "b", "a"]


def test_some_parts_alone_are_no_night_to_measure_by() -> None:
    good, part, now = nights("...")
    good = replace(good, figures=figures(a=100))
    now = replace(now, figures=figures(a=110))
    said = summary(now, [good, replace(part, whole=False)])
    assert [one.before for one in said.regressions] == [100]
    assert said.base == good.name


def test_a_warning_is_new_once_and_bad_as_long_as_it_is_there() -> None:
    first, now = nights("..")
    warning = {"WARNING in f [k, m]": Outcome(Status.CRASH, "warning")}
    said = summary(replace(now, warnings=warning), [first])
    assert [one.what for one in said.warnings] == ["WARNING in f [k, m]"]
    assert not said.good
    said = summary(replace(now, warnings=warning), [replace(first, warnings=warning)])
    assert not said.warnings
    assert [(one.what, one.since) for one in said.still] == [("WARNING in f [k, m]", first.name)]
    assert not said.good
    allowed = {"WARNING in f [k, m]": Outcome(Status.CRASH, "warning", allowed="known")}
    assert summary(replace(now, warnings=allowed), [first]).good


def test_what_is_gone_is_told_of_each_part_that_was_run_to_its_end() -> None:
    first, now = nights(". ")
    assert summary(now, [first]).gone == ("abi/x [k, m]",)
    assert not summary(now, [first]).good
    for part in (Part("matrix", End.FAILED), Part("matrix", End.DONE, left=("a cell",))):
        said = summary(replace(now, parts=(part,)), [first])
        assert not said.gone
        assert not said.good
        assert said.because == "incomplete"
    # A night in which it could not have been seen hides nothing, and other parts are not asked.
    lost = replace(now, name="20260001x", parts=(Part("matrix", End.FAILED),))
    later = replace(now, name="20260002")
    assert summary(later, [first, lost]).gone == ("abi/x [k, m]",)
    other = replace(later, parts=(Part("exact", End.DONE),))
    assert summary(replace(other, whole=False), [first]).good
    assert summary(replace(later, whole=False), [first]).gone == ("abi/x [k, m]",)
    # But a plan that has a part no more is told, until a night without it counts as good.
    said = summary(other, [first])
    assert said.gone == ("all of matrix: the plan has no such part",)
    assert summary(other, [first, replace(later, name="20260001", good=False)]).gone == said.gone
    agreed = replace(other, name="20260001", accepted="the matrix is a plan of its own now")
    assert summary(other, [first, agreed]).good


def test_what_is_gone_is_told_until_a_night_without_it_counts_as_good() -> None:
    """Also where the night that told it reached nobody."""
    first, second, third = nights(".  ")
    second = replace(second, good=False)
    assert summary(third, [first, second]).gone == ("abi/x [k, m]",)
    assert summary(third, [first, replace(second, accepted="its test is no more")]).good
    # One that came and went since the last good night is missed as well.
    fourth, fifth, sixth = nights(" . ")
    assert summary(sixth, [fourth, replace(fifth, good=False)]).gone == ("abi/x [k, m]",)
    skips = nights(".ss")
    assert summary(skips[2], [skips[0], replace(skips[1], good=False)]).skipped
    assert summary(skips[2], [skips[0], replace(skips[1], accepted="no KVM here")]).good


def test_a_part_that_was_not_whole_in_a_night_that_counts_as_good_is_no_measure() -> None:
    first, second, third = nights(".  ")
    lost = replace(
        second, parts=(Part("matrix", End.OUT_OF_TIME),), good=False, accepted="rebooted"
    )
    assert summary(third, [first, lost]).gone == ("abi/x [k, m]",)


def test_what_may_fail_may_end_early() -> None:
    first, now = nights(". ")
    may = {what: replace(one, allowed="it is new") for what, one in first.results.items()}
    assert summary(now, [replace(first, results=may)]).good


def test_a_figure_in_another_unit_is_gone() -> None:
    good, now = nights("..")
    good = replace(good, figures=figures(a=100))
    now = replace(now, figures={"a": Level(1, "ns", part="matrix")})
    assert summary(now, [good]).gone == ("a",)


@pytest.mark.parametrize("turn", [False, True])
def test_of_two_of_one_case_the_bad_one_counts(turn: bool) -> None:
    may = replace(FAIL, allowed="it is new")
    for worst, other in ((FAIL, PASS), (may, PASS), (FAIL, may)):
        pair = (other, worst) if turn else (worst, other)
        assert night.worse(*pair) == worst


def test_what_was_not_run_is_no_good_night() -> None:
    (now,) = nights(".")
    parts = (
        Part("matrix", End.OUT_OF_TIME, left=("abi-k-m: not run",)),
        Part("stress", End.NOT_BEGUN, why="the night was over"),
    )
    said = summary(replace(now, parts=parts), [])
    assert said.left == (
        "matrix: out of time",
        "matrix: abi-k-m: not run",
        "stress: not begun, the night was over",
    )
    assert not said.good


def test_nights_that_came_later_say_nothing() -> None:
    first, second, third = nights("F..")
    assert kinds(summary(second, [first, third])) == {"fixed": ["abi/x [k, m]"]}


def test_results_of_a_run() -> None:
    cases = (
        Case("abi", "x", "a", Status.PASS),
        Case("abi", "x", "a", Status.FAIL, message="broke", reproduce="rig boot-and-test --case"),
        Case("abi", "x", "b", Status.PASS, message="fine"),
    )
    splat = Splat("warning", "WARNING in f", 1, 2, "f", "", False)
    kernel, machine = {"name": "k"}, {"name": "m"}
    run = Run("r", "", "rig x", kernel, machine, cases=cases, splats=(splat,), complete=True)
    results, warnings = of_run(run, "matrix/cells/c", "may fail")
    bad = results["abi/x::a [k, m]"]
    assert (bad.status, bad.words, bad.again) == (Status.FAIL, "broke", "rig boot-and-test --case")
    assert (bad.place, bad.allowed) == ("matrix/cells/c", "may fail")
    assert results["abi/x::b [k, m]"].words == ""
    assert list(warnings) == ["WARNING in f [k, m]"]
