"""pytest on guest suites: what it collects, what it leaves alone, what it says and returns."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from local_machine import Writer

from rig.results import Status, load_run

pytest_plugins = ["pytester"]

TWO = "echo TAP version 13; echo 1..2; echo ok 1 one; echo ok 2 two"
HALF = "echo 1..2; echo ok 1 one; echo '# two: broken pipe'; echo not ok 2 two; exit 1"
PANIC = 'echo "[    2.000000] Kernel panic - not syncing: test" >&$RIG_KMSG; touch $RIG_STATE/dead'

CONFTEST = """
from pathlib import Path
from local_machine import LocalLab
from rig.fleet import Fleet
from rig.rack import Rack
from rig.record import Record

def pytest_rig_rack(config):
    results = Path(config.rootpath, "results")
    again = lambda one, program: f"rig boot-and-test --suite {one.name} -k {program.name}"
    lab = LocalLab(boots=BOOTS)
    record = Record.begin(results, "pytest", "local")
    isolation, jobs = config.getoption("--rig-isolation"), int(config.getoption("--rig-jobs"))
    if jobs == 1:
        return Rack(lab, record, isolation=isolation, reproduce=again)
    return Fleet(lab, record, machines=jobs, isolation=isolation, reproduce=again)
"""


MISTAKEN = f"""
from rig.errors import UsageError
{CONFTEST.replace("LocalLab(boots=BOOTS)", "Mistaken()")}

class Mistaken(LocalLab):
    def prepare(self, suites):
        raise UsageError("there is no such fragment")
"""


class Checkout:
    """A directory with a rig.toml, a conftest that lends local machines, and suites."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.writer = Writer(pytester.path / "guest-tests")
        pytester.makefile(".toml", rig="")
        self.boots(1000)

    def boots(self, number: int) -> None:
        self.pytester.makeconftest(CONFTEST.replace("BOOTS", str(number)))

    def pytest(self, *words: str) -> pytest.RunResult:
        return self.pytester.runpytest_inprocess("-p", "no:cacheprovider", *words)

    def statuses(self) -> dict[str, Status]:
        run = load_run(self.pytester.path / "results/latest/run.json")
        return {case.id: case.status for case in run.cases}


@pytest.fixture
def checkout(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    monkeypatch.delenv("CI", raising=False)
    return Checkout(pytester)


def test_a_program_is_an_item_and_a_case_a_subtest(checkout: Checkout) -> None:
    checkout.writer.suite("abi", submit=TWO, wait=HALF)
    done = checkout.pytest("guest-tests", "-v")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines_random(
        [
            "guest-tests/abi/Makefile::submit.sh SUBPASSED[[]one]*",
            "guest-tests/abi/Makefile::submit.sh PASSED*",
            "guest-tests/abi/Makefile::wait.sh SUBPASSED[[]one]*",
            "guest-tests/abi/Makefile::wait.sh SUBFAILED[[]two]*",
            "guest-tests/abi/Makefile::wait.sh FAILED*",
            "*FAIL abi/wait.sh::two: two: broken pipe",
            "*again: rig boot-and-test --suite abi -k wait.sh",
            "*local: nothing is booted*",
        ]
    )
    assert checkout.statuses()["abi/wait.sh::two"] is Status.FAIL


def test_green_is_exit_0(checkout: Checkout) -> None:
    checkout.writer.suite("abi", submit=TWO)
    assert checkout.pytest("guest-tests").ret == pytest.ExitCode.OK
    assert set(checkout.statuses().values()) == {Status.PASS}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (f"{TWO}; exit 3", "*FAIL abi/a.sh: exit code 3, although*"),
        ("echo 1..2; echo ok 1 one", "*ERROR abi/a.sh: incomplete KTAP*"),
        (f"{TWO}; {PANIC}", "*CRASH abi/a.sh: kernel panic: test*"),
        (f"{TWO}; touch $RIG_STATE/dead", "*ERROR abi/a.sh: the machine went away*"),
        ("sleep 60", "*TIMEOUT abi/a.sh: it did not end within 1 s*"),
    ],
)
def test_an_item_fails_although_its_cases_pass(checkout: Checkout, body: str, words: str) -> None:
    checkout.writer.suite("abi", a=body, timeout=1)
    done = checkout.pytest("guest-tests/abi")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines([words])


def test_skips_are_skips(checkout: Checkout) -> None:
    checkout.writer.suite("abi", a="echo 1..0 '# SKIP no kvm'; exit 4", b=TWO)
    done = checkout.pytest("guest-tests", "-rs")
    assert done.ret == pytest.ExitCode.OK
    done.stdout.fnmatch_lines(["SKIPPED*no kvm"])


def test_nothing_but_skips_is_not_green(checkout: Checkout) -> None:
    checkout.writer.suite("abi", a="echo 1..0 '# SKIP no kvm'; exit 4")
    done = checkout.pytest("guest-tests")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["nothing passed: skips alone prove nothing"])


def test_a_late_splat_is_not_green(checkout: Checkout) -> None:
    late = '(sleep 0.2; echo "[    3.000000] BUG: Bad page state in process x" >&$RIG_KMSG) &'
    checkout.writer.suite("abi", a=f"{TWO}; exec > /dev/null 2>&1; {late}", b="sleep 1; exit 0")
    (checkout.writer.root / "abi" / "b.sh").write_text(f"#!/bin/sh\n{TWO}\nexec sleep 0.5\n")
    assert checkout.pytest("guest-tests").ret == pytest.ExitCode.TESTS_FAILED


def test_k_and_x(checkout: Checkout) -> None:
    checkout.writer.suite("abi", submit=HALF, wait=TWO, submit_more=TWO)
    assert checkout.pytest("guest-tests", "-k", "wait").ret == pytest.ExitCode.OK
    assert {name.partition("::")[0] for name in checkout.statuses()} == {"abi/wait.sh"}
    checkout.pytest("guest-tests", "-x")
    assert {name.partition("::")[0] for name in checkout.statuses()} == {"abi/submit.sh"}


def test_lf_runs_what_failed(checkout: Checkout) -> None:
    checkout.writer.suite("abi", submit=TWO, wait=HALF)
    checkout.pytester.runpytest_inprocess("guest-tests")
    done = checkout.pytester.runpytest_inprocess("guest-tests", "--lf")
    done.assert_outcomes(failed=2, deselected=0)
    assert set(checkout.statuses()) == {"abi/wait.sh::one", "abi/wait.sh::two"}


def test_one_program_by_its_id(checkout: Checkout) -> None:
    checkout.writer.suite("abi", submit=TWO, wait=HALF)
    done = checkout.pytest("guest-tests/abi/Makefile::submit.sh")
    done.assert_outcomes(passed=1)


def test_collecting_builds_and_boots_nothing(checkout: Checkout) -> None:
    checkout.writer.suite("abi", submit=TWO)
    done = checkout.pytest("guest-tests", "--collect-only", "-q")
    done.stdout.fnmatch_lines(["guest-tests/abi/Makefile::submit.sh"])
    assert not (checkout.pytester.path / "results").exists()


def test_guest_programs_in_python_are_not_host_tests(checkout: Checkout) -> None:
    place = checkout.writer.suite("python", submit=TWO)
    (place / "test_on_the_host.py").write_text("raise AssertionError('imported on the host')\n")
    checkout.pytest("guest-tests").assert_outcomes(passed=1)


def test_a_crash_costs_one_program(checkout: Checkout) -> None:
    checkout.writer.suite("abi", a=PANIC, b=TWO)
    checkout.pytest("guest-tests").assert_outcomes(passed=1, failed=1)


def test_a_kernel_that_does_not_boot_ends_it_and_all_is_accounted_for(checkout: Checkout) -> None:
    checkout.boots(1)
    checkout.writer.suite("abi", a=TWO, b=PANIC, c=TWO, d=TWO)
    assert checkout.pytest("guest-tests").ret == 5
    found = checkout.statuses()
    assert found["abi/a.sh::one"] is Status.PASS
    assert [found[f"abi/{name}.sh"] for name in "bcd"] == [
        Status.CRASH,
        Status.ERROR,
        Status.ERROR,
    ]


def test_a_makefile_that_cannot_be_read_is_a_collection_error(checkout: Checkout) -> None:
    place = checkout.writer.suite("abi", a=TWO)
    (place / "Makefile").write_text("TEST_PROGS := a.sh\ninclude ../lib.mk\nifdef X\n")
    done = checkout.pytest("guest-tests")
    assert done.ret == pytest.ExitCode.INTERRUPTED
    done.stdout.fnmatch_lines(["*make cannot list the programs of*missing 'endif'*"])


def test_a_mistake_in_the_asking_is_no_interruption(checkout: Checkout) -> None:
    checkout.pytester.makeconftest(MISTAKEN)
    checkout.writer.suite("abi", a=TWO)
    assert checkout.pytest("guest-tests").ret == 2
    run = load_run(checkout.pytester.path / "results/latest/run.json")
    assert run.complete
    assert [case.message for case in run.cases] == ["not run: there is no such fragment"]


def test_machines_side_by_side(checkout: Checkout) -> None:
    checkout.writer.suite("abi", a=TWO, b=HALF, c=TWO, d=PANIC)
    done = checkout.pytest("guest-tests", "--rig-jobs", "3", "-v")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    ends = [line for line in done.outlines if line.endswith("%]") and "SUB" not in line]
    words = [(line.split("::")[1][0], line.split()[1]) for line in ends]
    assert words == [("a", "PASSED"), ("b", "FAILED"), ("c", "PASSED"), ("d", "FAILED")]
    assert checkout.statuses()["abi/d.sh"] is Status.CRASH


def test_jobs_that_are_no_number_are_a_usage_error(checkout: Checkout) -> None:
    (checkout.pytester.path / "conftest.py").unlink()
    checkout.pytester.makefile(".toml", rig="[kernel.a]\n[machine.b]\n")
    checkout.writer.suite("abi", a=TWO)
    done = checkout.pytest("guest-tests", "--rig-jobs", "many")
    assert done.ret == 2
    done.stdout.fnmatch_lines(["*-n many: not a number of machines*"])
    assert not (checkout.pytester.path / "results").exists()


# -- leaving others alone ----------------------------------------------------------------------


def test_without_a_rig_toml_nothing_is_touched(checkout: Checkout) -> None:
    checkout.writer.suite("abi", submit=TWO)
    (checkout.pytester.path / "rig.toml").unlink()
    assert checkout.pytest("guest-tests").ret == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.parametrize("words", [[], ["."]])
def test_only_suites_that_were_named_are_collected(checkout: Checkout, words: list[str]) -> None:
    checkout.writer.suite("abi", submit=TWO)
    checkout.pytester.makepyfile(test_host="def test_it(): pass")
    checkout.pytest(*words).assert_outcomes(passed=1)
    assert not (checkout.pytester.path / "results").exists()


def test_a_suite_in_the_directory_of_another_is_its_own(checkout: Checkout) -> None:
    """As filesystems and filesystems/epoll of the kernel's."""
    checkout.writer.suite("filesystems", a=TWO)
    checkout.writer.suite("filesystems/epoll", b=TWO)
    assert checkout.pytest("guest-tests/filesystems/epoll").ret == pytest.ExitCode.OK
    assert set(checkout.statuses()) == {"epoll/b.sh::one", "epoll/b.sh::two"}
    assert checkout.pytest("guest-tests/filesystems").ret == pytest.ExitCode.OK
    assert set(checkout.statuses()) == {"filesystems/a.sh::one", "filesystems/a.sh::two"}


def test_a_makefile_of_another_kind_is_none_of_ours(checkout: Checkout) -> None:
    place = checkout.pytester.mkdir("lib")
    (place / "Makefile").write_text("all:\n\tcc x.c\n")
    (place / "test_lib.py").write_text("def test_it(): pass\n")
    checkout.pytest("lib").assert_outcomes(passed=1)


def test_an_ordinary_run_imports_nothing_heavy(checkout: Checkout) -> None:
    checkout.pytester.makepyfile(
        test_host="""
        import sys
        def test_it():
            heavy = {"paramiko", "pexpect", "jinja2", "rich", "rig.runner", "rig.suite"}
            assert not heavy & set(sys.modules)
        """
    )
    (checkout.pytester.path / "conftest.py").unlink()
    ours = ("--disable-plugin-autoload", "-p", "rig.pytest_plugin")  # others may import anything
    checkout.pytester.runpytest_subprocess(*ours).assert_outcomes(passed=1)


def test_the_plugin_is_installed() -> None:
    assert "rig.pytest_plugin" in sys.modules


def test_a_suite_from_anywhere(checkout: Checkout, tmp_path: Path) -> None:
    place = Writer(tmp_path / "elsewhere").suite("stranger", a=TWO)
    toml, root = checkout.pytester.path / "rig.toml", str(checkout.pytester.path)
    (place / "conftest.py").write_text((checkout.pytester.path / "conftest.py").read_text())
    done = checkout.pytest("--rootdir", root, "--rig-toml", str(toml), str(place))
    done.assert_outcomes(passed=1)
    assert checkout.statuses()["stranger/a.sh::one"] is Status.PASS
