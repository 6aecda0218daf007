"""The flow: what is chosen, what it returns, what is left behind when it is cut short."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from local_machine import LocalLab, Writer

from rig import kunit, report, runner, suite
from rig.config import Config, KernelConfig, MachineConfig
from rig.errors import BootError, BuildError, InfrastructureError, LostMachineError, UsageError
from rig.outcome import Command, Outcome
from rig.results import Status, load_run
from rig.runner import KselftestRequest, Request
from rig.suite import BuiltSuite, Suite

SUITES = Path(__file__).parent / "data" / "suites"
TWO = "echo TAP version 13; echo 1..2; echo ok 1 one; echo ok 2 two"
HALF = "echo 1..2; echo ok 1 one; echo '# broken pipe'; echo not ok 2 two; exit 1"
PANIC = 'echo "[    2.000000] Kernel panic - not syncing: test" >&$RIG_KMSG; touch $RIG_STATE/dead'
DEAD = "touch $RIG_STATE/dead"

Drive = Callable[..., Outcome]


class Notes:
    """A Progress that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def stage(self, title: str, total: int | None = None) -> None: ...

    def step(self, text: str, done: int | None = None) -> None: ...

    def note(self, text: str) -> None:
        self.lines.append(text)

    def close(self) -> None: ...


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "rig.toml").write_text("")
    kernels = {"async": KernelConfig("async"), "plain": KernelConfig("plain")}
    machines = {"default": MachineConfig("default")}
    return Config(tmp_path, "async", "default", ("guest-tests/abi",), kernels, machines)


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path / "guest-tests")


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def drive(config: Config, notes: Notes) -> Drive:
    def run(lab: LocalLab | None = None, **wishes: object) -> Outcome:
        request = dataclasses.replace(Request(), **wishes)  # type: ignore[arg-type]
        suites = runner.chosen(request, config)
        command = Command("boot-and-test", config, request.machine, request.words, suites)
        return runner.drive(request, config, lab or LocalLab(), command, notes)

    return run


# -- verdicts ----------------------------------------------------------------------------------


def test_a_green_run(writer: Writer, drive: Drive, notes: Notes) -> None:
    writer.suite("abi", submit=TWO)
    outcome = drive()
    assert (outcome.exit_code, outcome.error) == (0, None)
    assert outcome.run.complete
    assert outcome.run.command == "rig boot-and-test --suite abi"
    assert outcome.run.notices == ("local: nothing is booted",)
    assert [line.split("(")[0] for line in notes.lines] == ["PASS    abi/submit.sh "]
    assert notes.lines[0].endswith("2 passed")
    assert load_run(outcome.directory / "run.json") == outcome.run
    assert (outcome.directory / "report.html").is_file()
    assert (outcome.directory.parent / "latest").resolve() == outcome.directory


def test_a_plugin_that_happens_to_be_installed_is_none_of_ours(
    writer: Writer, drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for pytest in general may know nothing of items that are no functions, as labgrid's."""
    installed = tmp_path / "installed"
    (installed / "other-1.0.dist-info").mkdir(parents=True)
    (installed / "other-1.0.dist-info/METADATA").write_text("Name: other\nVersion: 1.0\n")
    (installed / "other-1.0.dist-info/entry_points.txt").write_text("[pytest11]\nother = other\n")
    (installed / "other.py").write_text(
        "def pytest_runtest_setup(item):\n    item.fixturenames  # of functions only\n"
    )
    monkeypatch.syspath_prepend(installed)
    writer.suite("abi", submit=TWO)
    assert drive().exit_code == 0


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        (HALF, 1, None),
        (f"{TWO}; exit 3", 1, None),
        (PANIC, 1, None),
        ("exec sleep 60", 1, None),
        (DEAD, 6, LostMachineError),
    ],
)
def test_exit_codes(
    writer: Writer, drive: Drive, body: str, code: int, error: type[Exception] | None
) -> None:
    writer.suite("abi", a=body, b=TWO, timeout=1)
    outcome = drive()
    assert outcome.exit_code == code
    assert type(outcome.error) is (error or type(None))
    assert outcome.run.complete
    assert outcome.run.cases[-1].status is Status.PASS
    bad = next(case for case in outcome.run.cases if not case.status.good)
    assert bad.reproduce == "rig boot-and-test --suite abi --case a.sh"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("", "--suite abi --case a.sh"),
        ("--cold --case b.sh::x --case b.sh", "--cold --suite abi --case a.sh"),
        ("--case a.sh::x --case b.sh --cold", "--case a.sh::x --cold --suite abi"),
        ("--case abi/a.sh::x --case net/a.sh", "--case abi/a.sh::x --suite abi"),
    ],
)
def test_the_command_of_one_program(config: Config, writer: Writer, asked: str, said: str) -> None:
    writer.suite("abi", a=TWO, b=TWO)
    (abi,) = runner.chosen(Request(), config)
    command = Command("boot-and-test", config, None, tuple(asked.split()), (abi,))
    assert command.program(abi, suite.programs(abi)[0]) == f"rig boot-and-test {said}"


@pytest.mark.parametrize(("timeout_s", "code"), [(None, 1), (50.0, 0)])
def test_time_that_is_asked_for_is_that_of_a_single_case_too(
    writer: Writer, drive: Drive, timeout_s: float | None, code: int
) -> None:
    place = writer.suite("abi", a="echo 1..1; sleep 3; echo ok 1 slow")
    (place / "settings").write_text("case_timeout=1\n")
    assert drive(timeout_s=timeout_s).exit_code == code


def test_a_failed_case_says_more_than_a_lost_machine(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", a=DEAD, b=HALF)
    assert drive().exit_code == 1


def test_a_kernel_that_does_not_boot_is_exit_5(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", a=TWO, b=TWO)
    outcome = drive(LocalLab(boots=0))
    assert outcome.exit_code == 5
    assert isinstance(outcome.error, BootError)
    assert [case.status for case in outcome.run.cases] == [Status.ERROR, Status.ERROR]
    assert all("did not reach login" in case.message for case in outcome.run.cases)


def test_a_suite_that_does_not_compile_is_exit_4(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", a=TWO)
    outcome = drive(_NoCompiler())
    assert outcome.exit_code == 4
    assert [case.status for case in outcome.run.cases] == [Status.ERROR]


def test_a_mistake_of_the_rig_is_loud_and_never_green(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", a=TWO, b=TWO)
    with pytest.raises(ZeroDivisionError):
        drive(_Mistaken())


def test_what_is_skipped_alone_is_not_green(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", a="echo '1..0 # SKIP no kvm'; exit 4")
    assert drive().exit_code == 1


def test_a_board_that_does_not_come_back_is_no_pass(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", a=TWO)
    outcome = drive(_Gone())
    assert outcome.exit_code == 3
    assert outcome.error is not None
    assert outcome.error.message == "board1 did not come back"
    assert [case.status for case in outcome.run.cases] == [Status.PASS, Status.PASS, Status.ERROR]
    assert outcome.run.exit_code == 1


class _Gone(LocalLab):
    def close(self) -> None:
        raise InfrastructureError("board1 did not come back")


class _NoCompiler(LocalLab):
    def prepare(self, suites: object) -> list[BuiltSuite]:
        raise BuildError("suite abi does not compile")


class _Mistaken(LocalLab):
    def guest(self, machine: object) -> object:  # type: ignore[override]
        return 1 // 0


# -- choosing ----------------------------------------------------------------------------------


def names(suites: tuple[Suite, ...]) -> list[str]:
    return [one.name for one in suites]


def test_the_suites_of_rig_toml_are_the_default(writer: Writer, config: Config) -> None:
    writer.suite("abi", a=TWO)
    writer.suite("other", a=TWO)
    assert names(runner.chosen(Request(), config)) == ["abi"]


def test_suites_by_name_by_path_and_from_anywhere(
    writer: Writer, config: Config, tmp_path: Path
) -> None:
    writer.suite("abi", a=TWO)
    writer.suite("other", a=TWO)
    stranger = Writer(tmp_path / "far").suite("stranger", a=TWO)
    request = Request(suites=("abi", "guest-tests/other"), tests=(stranger,))
    assert names(runner.chosen(request, config)) == ["abi", "other", "stranger"]
    assert names(runner.chosen(Request(tests=(stranger,)), config)) == ["stranger"]
    assert names(runner.chosen(Request(suites=("other",)), config)) == ["other"]  # beside abi


def test_an_unknown_suite_names_the_nearest(writer: Writer, config: Config) -> None:
    writer.suite("abi", a=TWO)
    with pytest.raises(UsageError) as caught:
        runner.chosen(Request(suites=("abo",)), config)
    assert caught.value.hint == "did you mean 'abi'?"


def test_k_selects_and_is_part_of_the_command(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", submit=TWO, wait=HALF)
    outcome = drive(keyword="submit", words=("async",))
    assert outcome.exit_code == 0
    assert outcome.run.command == "rig boot-and-test async --suite abi -k submit"


def test_a_program_is_told_the_only_cases_it_is_to_run(writer: Writer, drive: Drive) -> None:
    told = 'echo TAP version 13; echo 1..1; echo "ok 1 $(echo "$@" | tr -d " -")"'
    writer.suite("abi", wait=told, wait_long=told, other=told)
    cases = (("wait.sh", "one"), ("wait.sh", "a.b.two"), ("other.sh", ""))
    outcome = drive(cases=cases)
    assert outcome.exit_code == 0
    assert [case.id for case in outcome.run.cases] == [
        "abi/wait.sh::tonera.b.two",
        "abi/other.sh::case 1",
    ]


@pytest.mark.parametrize(
    "wishes", [{"keyword": "absent"}, {"keyword": "a b ("}, {"cases": (("absent", ""),)}]
)
def test_a_selection_of_nothing_is_a_usage_error(
    writer: Writer, drive: Drive, wishes: dict[str, object]
) -> None:
    writer.suite("abi", submit=TWO)
    with pytest.raises(UsageError):
        drive(**wishes)
    assert not (writer.root.parent / "results").exists()


def test_a_makefile_make_cannot_read_is_a_usage_error(writer: Writer, drive: Drive) -> None:
    place = writer.suite("abi", submit=TWO)
    (place / "Makefile").write_text("TEST_PROGS := a.sh\ninclude ../lib.mk\nifdef X\n")
    with pytest.raises(UsageError, match="missing 'endif'"):
        drive()


def test_x_and_lf(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", a=TWO, b=HALF, c=TWO)
    assert {case.program for case in drive(exit_first=True).run.cases} == {"a.sh", "b.sh"}
    assert {case.program for case in drive(last_failed=True).run.cases} == {"b.sh"}


def test_copies_in_junit_and_json(writer: Writer, drive: Drive, tmp_path: Path) -> None:
    writer.suite("abi", a=TWO)
    outcome = drive(junit=tmp_path / "j.xml", json=tmp_path / "r.json")
    assert (tmp_path / "j.xml").read_bytes() == report.junit(outcome.run)
    assert load_run(tmp_path / "r.json") == outcome.run


@pytest.mark.parametrize("option", ["junit", "json"])
@pytest.mark.parametrize("place", ["absent/x", "."])
def test_a_copy_that_cannot_be_written_is_refused_before_the_run(
    writer: Writer, config: Config, tmp_path: Path, option: str, place: str
) -> None:
    writer.suite("abi", a=TWO)
    where: dict[str, Any] = {option: tmp_path / place}
    with pytest.raises(UsageError, match="cannot write"):
        runner.boot_and_test(Request(**where), config)
    with pytest.raises(UsageError, match="cannot write"):
        runner.kselftest(KselftestRequest(targets=("futex",), **where), config)
    with pytest.raises(UsageError, match="cannot write"):
        kunit.run(kunit.Request(**where), config)
    assert not (tmp_path / "results").exists()


# -- cut short ---------------------------------------------------------------------------------


def test_an_interrupted_run_is_130_and_saved(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", a=TWO, b="kill -INT $PPID; sleep 5", c=TWO)
    lab = LocalLab()
    outcome = drive(lab)
    assert outcome.exit_code == 130
    assert not load_run(outcome.directory / "run.json").complete
    assert [case.status for case in outcome.run.cases[:2]] == [Status.PASS, Status.PASS]
    assert all(machine.closed for machine in lab.machines)


def test_a_killed_rig_leaves_what_it_saw(writer: Writer, tmp_path: Path) -> None:
    writer.suite("abi", a=TWO, b="kill -KILL $PPID; sleep 5")
    (tmp_path / "rig.toml").write_text("[kernel.local]\n[machine.local]\n[default]\nsuites = []\n")
    program = f"""
import sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
from pathlib import Path
from local_machine import LocalLab
from rig import config, runner
from rig.outcome import Command
config = config.load(Path({str(tmp_path)!r}, "rig.toml"))
request = runner.Request(suites=("guest-tests/abi",))
command = Command("boot-and-test", config, None, (), runner.chosen(request, config))
runner.drive(request, config, LocalLab(), command)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -9
    run = load_run(tmp_path / "results" / "latest" / "run.json")
    assert [case.status for case in run.cases] == [Status.PASS, Status.PASS]
    assert not run.complete
    assert run.exit_code == 1


# -- a real kernel -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trouble(rig_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The suite whose every program breaks a rule, on the default kernel."""
    request = Request(
        tests=(SUITES / "trouble", SUITES / "hello"), results=tmp_path_factory.mktemp("results")
    )
    return runner.boot_and_test(request, rig_config)


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("program", "status", "words"),
    [
        ("lie.sh", Status.FAIL, "exit code 1, although"),
        ("cut.sh", Status.ERROR, "planned 2 results, got 1"),
        ("splat.sh", Status.FAIL, "splat: EXT4-fs error in trigger_test_error"),
        ("crash.sh", Status.CRASH, "kernel panic: sysrq triggered crash"),
        ("hush.sh", Status.ERROR, "the console is no proof"),
        ("unreachable.sh", Status.TIMEOUT, "it did not end within"),
        ("hang.sh", Status.TIMEOUT, "it did not end within"),
    ],
)
def test_a_real_kernel_never_gives_a_false_green(
    trouble: Outcome, program: str, status: Status, words: str
) -> None:
    own = [case for case in trouble.run.cases if case.program == program and not case.name]
    assert [case.status for case in own] == [status]
    assert words in own[0].message


@pytest.mark.kernel
def test_a_real_crash_costs_one_program(trouble: Outcome) -> None:
    fine = [case.status for case in trouble.run.cases if case.program in ("fine.sh", "last.sh")]
    assert fine == [Status.PASS, Status.PASS]
    assert trouble.exit_code == 1
    hung = next(case for case in trouble.run.cases if case.id == "trouble/hang.sh")
    assert "Show Blocked State" in hung.output


@pytest.mark.kernel
def test_a_real_suite_passes(trouble: Outcome) -> None:
    hello = {case.id: case.status for case in trouble.run.cases if case.suite == "hello"}
    assert hello == {
        "hello/greeting::words.are_beside_the_program": Status.PASS,
        "hello/greeting::global.headers_are_those_of_the_kernel": Status.PASS,
        "hello/greeting::global.one_may_skip": Status.SKIP,
        "hello/release.sh::release": Status.PASS,
    }


@pytest.mark.kernel
def test_programs_get_the_environment_and_the_time_they_are_given(
    rig_config: Config, tmp_path: Path
) -> None:
    request = Request(
        tests=(SUITES / "environment",),
        env=(("WORDS", "two words"), ("PATIENCE", "60")),
        timeout_s=2.0,
        words=("--env", "WORDS=two words"),
        results=tmp_path,
    )
    outcome = runner.boot_and_test(request, rig_config)
    found = {case.id: case.status for case in outcome.run.cases}
    assert found == {
        "environment/words.sh::words": Status.PASS,
        "environment/patient.sh": Status.TIMEOUT,
        "environment/patient.sh::case 1": Status.ERROR,
    }
    assert "--env 'WORDS=two words'" in outcome.run.command


def test_the_examples_are_listed_as_they_are() -> None:
    listed = suite.programs(suite.discover(SUITES / "trouble"))
    assert [one.name for one in listed][::8] == ["fine.sh", "last.sh"]


@pytest.mark.parametrize(
    ("said", "argv"),
    [
        ((("fine.sh", ""),), [("./fine.sh",)]),
        ((("trouble/fine.sh", "a"), ("other/last.sh", "")), [("./fine.sh", "-t", "a")]),
        ((("other/fine.sh", "a"),), []),
    ],
)
def test_a_case_may_be_said_with_its_suite(
    said: tuple[tuple[str, str], ...], argv: list[tuple[str, ...]]
) -> None:
    found = suite.discover(SUITES / "trouble")
    listed = suite.programs(dataclasses.replace(found, cases=said))
    assert [one.argv for one in listed] == argv


@pytest.mark.kernel
def test_a_target_of_the_tree_runs_and_nothing_of_it_is_new(
    rig_config: Config, tmp_path: Path
) -> None:
    kernel = rig_config.default_kernel
    request = KselftestRequest(targets=("sigaltstack",), against=kernel, results=tmp_path)
    outcome = runner.kselftest(request, rig_config)
    assert outcome.exit_code == 0
    assert outcome.run.count(Status.PASS) >= 2
    assert outcome.run.command == f"rig kselftest --kernel {kernel} sigaltstack"
    assert len(list(tmp_path.glob("*/run.json"))) == 3  # two runs, and latest


@pytest.mark.kernel
def test_an_unknown_target_names_the_nearest(rig_config: Config) -> None:
    with pytest.raises(UsageError) as caught:
        runner.kselftest(KselftestRequest(targets=("futx",)), rig_config)
    assert caught.value.hint == "did you mean 'futex'?"
