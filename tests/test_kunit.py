"""The kernel's unit tests, read from a console."""

from __future__ import annotations

import datetime
from pathlib import Path

from rig import expected, kunit, splat
from rig.expected import AllowedSplat, Expected, ExpectedCase
from rig.results import Splat, Status

ROOT = Path(__file__).parents[1]
KUNIT = """\
[    0.100000] KTAP version 1
[    0.100001] 1..2
[    0.100002]     KTAP version 1
[    0.100003]     # Subtest: list
[    0.100004]     1..2
[    0.100005]     ok 1 add
[    0.100006]     ok 2 del # SKIP no memory
[    0.100007] # list: pass:1 fail:0 skip:1 total:2
[    0.100008] ok 1 list
"""
REST = """\
[    0.200000]     KTAP version 1
[    0.200001]     # Subtest: rbtree
[    0.200002]     1..1
[    0.200003]     not ok 1 rotate
[    0.200004] not ok 2 rbtree
"""


def told(console: str, *splats: Splat) -> list[tuple[str, Status]]:
    return [(one.id, one.status) for one in kunit.cases_of(console, splats, "rig kunit")]


def test_kunit_suites_are_programs() -> None:
    assert told(KUNIT + REST) == [
        ("kunit/list::add", Status.PASS),
        ("kunit/list::del", Status.SKIP),
        ("kunit/rbtree::rotate", Status.FAIL),
    ]


def test_kunit_that_stops_in_the_middle_is_an_error() -> None:
    assert ("kunit/kernel", Status.ERROR) in told(KUNIT)


def test_kunit_that_says_nothing_is_an_error() -> None:
    assert told("[    0.100000] Linux version 6.12\n") == [("kunit/kernel", Status.ERROR)]


def test_kunit_that_takes_the_kernel_down_is_a_crash() -> None:
    panic = Splat("panic", "kernel panic: test", 0, 1)
    assert ("kunit/kernel", Status.CRASH) in told(KUNIT, panic)


def test_a_kernel_whose_unit_tests_all_pass_is_good() -> None:
    """One of them has the kernel refuse what it is to refuse, with a trace."""
    console = (ROOT / "tests/data/ktap/kunit-boot.log").read_text(encoding="utf-8")
    found = splat.scan(console)
    assert [one.frame for one in found] == ["kunit_platform_device_add_twice_fails_test"]
    cases, splats, notices = kunit.judged(console, found, expected.load(ROOT, "async"), "rig kunit")
    assert splats == ()
    assert [one for one in cases if not one.status.good] == []
    assert any("duplicate filename" in one for one in notices)
    elsewhere = console.replace("kunit_platform_device_add_twice_fails_test+", "foo_init+")
    found = splat.scan(elsewhere)
    cases, splats, _ = kunit.judged(elsewhere, found, expected.load(ROOT, "async"), "rig kunit")
    assert [one.title for one in splats] == ["sysfs: duplicate filename in foo_init"]
    assert [one.id for one in cases if not one.status.good] == ["kunit/kernel"]


def test_a_crash_that_is_expected_is_a_notice() -> None:
    line = ("known", "https://example.org/1", datetime.date(2099, 1, 1))
    held = Expected(cases=(ExpectedCase(*line, id="kunit/kernel", status=Status.CRASH),))
    panic = Splat("panic", "kernel panic: test", 0, 1)
    cases, splats, notices = kunit.judged(KUNIT, [panic], held, "rig kunit")
    assert (splats, notices) == ((), ("expected, with a crash: kernel panic: test",))
    assert not any(one.status is Status.CRASH for one in cases)
    assert kunit.crashed(cases, notices)
    cases, splats, notices = kunit.judged(KUNIT, [panic], Expected(), "rig kunit")
    assert splats == (panic,)
    assert kunit.crashed(cases, notices)
    assert not kunit.crashed((), ())


def test_what_is_expected_to_fail_is_no_failure() -> None:
    line = ("known", "https://example.org/1", datetime.date(2099, 1, 1))
    held = Expected(
        splats=(AllowedSplat(*line, title="WARNING in rotate"),),
        cases=(ExpectedCase(*line, id="kunit/rbtree::*"),),
        expired=("an old one",),
    )
    warning = Splat("warning", "WARNING in rotate", 0, 1)
    cases, splats, notices = kunit.judged(KUNIT + REST, [warning], held, "rig kunit")
    assert [(one.id, one.status) for one in cases] == [
        ("kunit/list::add", Status.PASS),
        ("kunit/list::del", Status.SKIP),
        ("kunit/rbtree::rotate", Status.SKIP),
    ]
    assert splats == ()
    assert notices[0] == "an old one"
    assert notices[1].startswith("allowed splat: WARNING in rotate: known")
    other = Splat("warning", "WARNING in list_add", 0, 1)
    cases, splats, _ = kunit.judged(KUNIT + REST, [other], held, "rig kunit")
    assert splats == (other,)
    assert ("kunit/kernel", Status.FAIL) in [(one.id, one.status) for one in cases]


def test_a_console_that_was_lost_is_no_proof() -> None:
    text = "KTAP version 1\n1..1\nok 1 x\n[rig: the console was lost: reset]\n"
    (case,) = kunit._lost(text, "rig kunit")
    assert case.status is Status.ERROR
    assert "it was lost 1 time(s)" in case.message
    assert kunit._lost("KTAP version 1\n1..1\nok 1 x\n", "rig kunit") == []
