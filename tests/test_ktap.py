"""KTAP: captured logs of real test programs, each way to be incomplete, and cuts anywhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from rig import ktap
from rig.ktap import KtapCase, KtapReport
from rig.results import Status

LOGS = Path(__file__).parent / "data" / "ktap"


def log(name: str) -> str:
    return (LOGS / f"{name}.log").read_text(encoding="utf-8", errors="replace")


def counts(report: KtapReport) -> dict[str, int]:
    return dict(Counter(case.status.value for case in report.cases))


def by_name(text: str) -> dict[str, KtapCase]:
    return {case.name: case for case in ktap.parse(text).cases}


# -- captured logs -------------------------------------------------------------------------------


def test_harness_log_is_green_and_carries_what_was_said_of_each_case() -> None:
    report = ktap.parse(log("harness-getfd"))
    assert report.green
    assert report.planned == 5
    assert [case.name for case in report.cases] == [
        "global.flags_set",
        "child.disable_ptrace",
        "child.fetch_fd",
        "child.test_unknown_fd",
        "child.no_strange_EBADF",
    ]
    assert "           OK  child.fetch_fd" in report.cases[2].diagnostics


def test_selftests_nested_by_hash_marks_become_leaves_of_their_program() -> None:
    report = ktap.parse(log("kselftest-pidfd"))
    assert report.green
    assert report.planned == 7
    assert counts(report) == {"pass": 29, "skip": 1}
    assert report.cases[-1].name == "selftests: pidfd: pidfd_setns_test/current_nsset.no_foul_play"
    skipped = next(case for case in report.cases if case.status is Status.SKIP)
    assert skipped.name.startswith("selftests: pidfd: pidfd_test/pidfd_send_signal signal recycled")


def test_several_runs_in_one_log_add_up_and_a_lying_program_is_found() -> None:
    report = ktap.parse(log("kselftest-several"))
    assert report.planned == 6
    assert counts(report) == {"pass": 42, "error": 3, "skip": 1}
    assert report.errors == (  # kcmp_test counts three passes and prints no result at all
        "selftests: kcmp: kcmp_test: planned 3 results, got 0",
        "selftests: kcmp: kcmp_test: its own totals say pass:3 (seen 0)",
    )


def test_bail_out_makes_all_planned_cases_errors() -> None:
    report = ktap.parse(log("kselftest-bail-out"))
    assert counts(report) == {"pass": 118, "error": 88, "fail": 1}
    assert any("Bail out! resolve_test.c:54 mount failed" in error for error in report.errors)


def test_results_behind_an_unfinished_line_count_when_the_totals_agree() -> None:
    cases = by_name(log("kselftest-timers-fail-and-skip"))
    virtual = cases["selftests: timers: posix_timers/ITIMER_VIRTUAL"]
    assert virtual.status is Status.FAIL
    assert any("Diff too high" in line for line in virtual.diagnostics)
    assert ktap.parse(log("kselftest-timers-fail-and-skip")).errors == ()


def test_a_program_that_skips_all_of_its_plan_is_all_skips() -> None:
    report = ktap.parse(log("program-skips-itself"))  # ksft_exit_skip() after ksft_set_plan()
    assert counts(report) == {"skip": 88}
    assert report.errors == ()
    assert {case.directive for case in report.cases} == {"SKIP all tests require euid == 0"}


def test_a_plan_may_come_last_and_yaml_is_diagnostics() -> None:
    report = ktap.parse(log("yaml-block"))
    assert report.green
    assert any("In use:" in line for line in report.cases[0].diagnostics)


def test_output_without_a_plan_and_without_results_is_an_error() -> None:
    report = ktap.parse(log("exit-without-plan"))
    assert report.cases == ()
    assert report.errors


@pytest.mark.parametrize("path", sorted(LOGS.glob("*.log")), ids=lambda path: path.stem)
def test_no_cut_of_a_log_passes_more_or_looks_whole(path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = Counter(case.name for case in ktap.parse(text).cases if case.status is Status.PASS)
    step = max(1, len(text) // 700)
    needed = _last_result(text)
    for end in {*range(0, len(text), step), *(i + 1 for i, c in enumerate(text) if c == "\n")}:
        report = ktap.parse(text[:end])
        passed = Counter(case.name for case in report.cases if case.status is Status.PASS)
        assert sum(passed.values()) <= sum(whole.values())
        assert end > needed or not report.green or "\n1..1\nok 1" in text[:end], text[:end][-200:]


def _last_result(text: str) -> int:
    """Where the last result line of the outermost level begins."""
    return max(text.rfind("\nok "), text.rfind("\nnot ok "))


@pytest.mark.parametrize("name", ["harness-getfd", "kselftest-pidfd"])
def test_every_line_that_is_lost_is_noticed(name: str) -> None:
    lines = log(name).splitlines(keepends=True)
    whole = ktap.parse(log(name))
    for index, line in enumerate(lines):
        report = ktap.parse("".join(lines[:index] + lines[index + 1 :]))
        if "ok " in line and "#  " not in line and "pidfd poll test" not in line:
            assert not report.green, line
        assert report.count(Status.PASS) <= whole.count(Status.PASS)


def test_each_byte_of_a_log_cut_off() -> None:
    text = log("harness-getfd")
    whole = ktap.parse(text).count(Status.PASS)
    last = _last_result(text)
    for end in range(len(text)):
        report = ktap.parse(text[:end])
        assert report.count(Status.PASS) <= whole
        assert not report.green or end > last


# -- the format ----------------------------------------------------------------------------------

SPEC_TREE = """\
KTAP version 1
1..1
  KTAP version 1
  1..2
    KTAP version 1
    1..2
    # second: half a word
    ok 1 first # SKIP no such thing
    not ok 2 second
  not ok 1 inner
  ok 2 leaf
not ok 1 outer
"""


def test_nesting_by_indentation() -> None:
    report = ktap.parse(SPEC_TREE)
    assert [(case.name, case.status) for case in report.cases] == [
        ("outer/inner/first", Status.SKIP),
        ("outer/inner/second", Status.FAIL),
        ("outer/leaf", Status.PASS),
    ]
    assert report.errors == ()
    assert not report.green


@pytest.mark.parametrize("prefix", ["[    1.234567] ", "<6>[   12.000001][    T1] "])
def test_a_kernel_log_is_read_through_its_prefix_and_foreign_lines(prefix: str) -> None:
    lines = SPEC_TREE.splitlines()
    text = "ok 1 a user's text\n" + "".join(f"{prefix}{line}\r\nok 2 noise\r\n" for line in lines)
    stray = ktap.parse(prefix + "KTAP version 1\n" + text)
    report = ktap.parse("".join(f"{prefix}{line}\r\nok 2 noise\r\n" for line in lines))
    assert [case.name for case in report.cases] == [
        case.name for case in ktap.parse(SPEC_TREE).cases
    ]
    assert not stray.green


def test_kernel_messages_between_a_programs_lines_are_not_its_results() -> None:
    report = ktap.parse(
        "TAP version 13\n1..2\nok 1 a\n[    5.000000] ok 2 b\n[    5.000001][    T9] 1..7\n"
    )
    assert [(case.name, case.status) for case in report.cases] == [
        ("a", Status.PASS),
        ("case 2", Status.ERROR),
    ]


@pytest.mark.parametrize(
    ("line", "status", "name"),
    [
        ("ok 1 a", Status.PASS, "a"),
        ("ok 1 - a", Status.PASS, "a"),
        ("ok 1 C# and a-b", Status.PASS, "C# and a-b"),
        ("ok 1", Status.PASS, "case 1"),
        ("ok 1 a # rcode=0", Status.PASS, "a"),
        ("not ok 1 a", Status.FAIL, "a"),
        ("not ok 1 a # exit=1", Status.FAIL, "a"),
        ("ok 1 a # SKIP why", Status.SKIP, "a"),
        ("not ok 1 a # SKIP why", Status.SKIP, "a"),
        ("ok 1 a # skip", Status.SKIP, "a"),
        ("ok 1 # SKIP a", Status.SKIP, "a"),
        ("ok 1 # XFAIL a", Status.SKIP, "a"),
        ("not ok 1 a # XFAIL why", Status.SKIP, "a"),
        ("not ok 1 a # TODO why", Status.SKIP, "a"),
        ("ok 1 a # TODO why", Status.PASS, "a"),
        ("ok 1 a # XPASS why", Status.FAIL, "a"),
        ("not ok 1 a # TIMEOUT 45 seconds", Status.TIMEOUT, "a"),
        ("ok 1 a # TIMEOUT 45 seconds", Status.TIMEOUT, "a"),
        ("not ok 1 # error a", Status.ERROR, "a"),
        ("not ok 1 a # ERROR why", Status.ERROR, "a"),
        ("ok 1 a # error rate 0", Status.PASS, "a"),
    ],
)
def test_result_lines(line: str, status: Status, name: str) -> None:
    report = ktap.parse(f"KTAP version 1\n1..1\n{line}\n")
    assert [(case.name, case.status) for case in report.cases] == [(name, status)]
    assert report.errors == ()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no KTAP"),
        ("hello\n", "no KTAP"),
        ("KTAP version 1\n", "no plan"),
        ("KTAP version 1\nok 1 a\n", "no plan"),
        ("ok 1 a\n", "no plan"),
        ("TAP version 13\n1..0\n", "a plan of no tests"),
        ("1..1\nok 1 a\nok 2 b\n", "planned 1 results, got 2"),
        ("1..3\nok 1 a\nok 2 b\n", "planned 3 results, got 2"),
        ("1..2\nok 1 a\nok 1 b\n", "number 1 used twice"),
        ("1..2\nok 1 a\nok 3 b\n", "numbered 3 where 2 was due"),
        ("1..2\nok 2 a\nok 1 b\n", "numbered 2 where 1 was due"),
        ("1..1\nok 1 a\n1..2\n", "a second plan"),
        ("1..1\nok 1 a\nBail out! no memory\n", "Bail out! no memory"),
        ("KTAP version 9\n1..1\nok 1 a\n", "KTAP version 9 is not known"),
        ("1..1\nok 1 a", "ends in the middle of a line"),
        ("ok 1 a\n1..1", "ends in the middle of a line"),
        ("1..1\nok 1 a\n    not ok 1 b\n", "a failure outside of any opened test"),
        ("1..2\nok 1 a\nxx..ok 2 b\n", "does not stand on a line of its own"),
        ("1..1\nok 1 a\n# Totals: pass:2 fail:0 xfail:0 xpass:0 skip:0 error:0\n", "own totals"),
        ("1..1\n  KTAP version 1\n  1..1\n  ok 1 a\n", "no result line"),
        ("1..1\n  KTAP version 1\n  1..2\n  ok 1 a\nok 1 b\n", "b: planned 2 results, got 1"),
        ("1..1\n# TAP version 13\nok 1 b\n", "opened a test, gave no results"),
        (
            "1..1\n    # Subtest: s\n    ok 1 a\n# s: pass:2 fail:0 skip:0 total:2\nok 1 s\n",
            "count",
        ),
    ],
)
def test_what_is_not_whole_is_never_green(text: str, error: str) -> None:
    report = ktap.parse(text)
    assert any(error in seen for seen in report.errors), report.errors
    assert not report.green


def test_a_crash_in_the_middle_leaves_errors_that_name_what_ran() -> None:
    report = ktap.parse(
        "TAP version 13\n1..5\nok 1 a\nok 2 b\nok 3 c\n#  RUN           global.d ...\nKilled\n"
    )
    assert [(case.name, case.status) for case in report.cases[3:]] == [
        ("global.d", Status.ERROR),
        ("case 5", Status.ERROR),
    ]
    assert report.cases[3].diagnostics[-1] == "Killed"


def test_a_missing_number_is_an_error_in_its_place() -> None:
    report = ktap.parse("1..4\nok 1 a\nok 2 b\nok 4 d\n")
    assert [case.name for case in report.cases] == ["a", "b", "case 3", "d"]


def test_a_wild_plan_is_bounded() -> None:
    report = ktap.parse("1..4294967295\nok 1 a\n")
    assert len(report.cases) <= 1001
    assert any("more results are missing" in error for error in report.errors)


def test_a_whole_program_that_skips() -> None:
    report = ktap.parse("TAP version 13\n1..0 # SKIP no /dev/kvm")
    assert report.cases == (KtapCase("", Status.SKIP, "SKIP no /dev/kvm"),)
    assert report.errors == ()


def test_kunit_suite_without_tests_is_skipped_by_its_own_result() -> None:
    report = ktap.parse(log("kunit-boot"))
    assert report.green
    assert report.errors == ()
    skipped = [case.name for case in report.cases if case.status is Status.SKIP]
    assert "kunit_fault" in skipped
    assert counts(report)["pass"] == 60


def test_a_suite_without_tests_that_claims_to_pass_is_an_error() -> None:
    report = ktap.parse(log("kunit-boot").replace("ok 8 kunit_fault # SKIP ", "ok 8 kunit_fault"))
    assert not report.green
    assert any("1..0" in error for error in report.errors)


def test_kunit_parameters_have_no_plan_and_are_counted() -> None:
    report = ktap.parse(
        "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: suite\n    1..1\n"
        "        KTAP version 1\n        # Subtest: params\n        ok 1 one\n        ok 2 two\n"
        "    # params: pass:2 fail:0 skip:0 total:2\n    ok 1 params\n"
        "# Totals: pass:2 fail:0 skip:0 total:2\nok 1 suite\n"
    )
    assert report.green
    assert [case.name for case in report.cases] == ["suite/params/one", "suite/params/two"]


def test_a_parent_that_fails_alone_is_a_failure() -> None:
    report = ktap.parse("1..1\n    # Subtest: s\n    1..1\n    ok 1 a\nnot ok 1 s # exit=139\n")
    assert [(case.name, case.status) for case in report.cases] == [
        ("s/a", Status.PASS),
        ("s", Status.FAIL),
    ]


def test_a_parent_that_passes_does_not_hide_a_child() -> None:
    report = ktap.parse("1..1\n    # Subtest: s\n    1..1\n    not ok 1 a\nok 1 s\n")
    assert not report.green


def test_durations_are_read_where_given() -> None:
    cases = by_name("1..2\nok 1 a # time=0.25s\n# duration_ms: 12.5\nok 2 b\n")
    assert cases["a"].duration_s == 0.25
    assert cases["b"].duration_s == 0.0125


def test_enormous_and_broken_lines_are_survived() -> None:
    junk = "\ufffd\x00" * 100_000
    report = ktap.parse(f"1..1\n# {junk}\n{junk}\nok 1 a\n")
    assert report.green
    assert all(len(line) < 5000 for line in report.cases[0].diagnostics)
    deep = "".join(f"{'  ' * depth}KTAP version 1\n" for depth in range(2000))
    assert not ktap.parse(deep).green
