"""The flow: what is chosen, what it returns, what is left behind when it is cut short."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import pytest
from local_machine import LocalLab, LocalMachine, LocalSession, Writer

from rig import report, runner, suite
from rig.config import Config, KernelConfig, MachineConfig
from rig.errors import BootError, BuildError, CrashError, LostMachineError, UsageError
from rig.results import Case, Run, Splat, Status, load_run
from rig.runner import BootRequest, Command, KselftestRequest, KunitRequest, Outcome, Request
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
    assert bad.reproduce == "rig boot-and-test --suite abi -k a.sh"


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


@pytest.mark.parametrize("wishes", [{"keyword": "absent"}, {"keyword": "a b ("}])
def test_a_selection_of_nothing_is_a_usage_error(
    writer: Writer, drive: Drive, wishes: dict[str, str]
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
        runner.kunit(KunitRequest(**where), config)
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
config = config.load(Path({str(tmp_path)!r}, "rig.toml"))
request = runner.Request(suites=("guest-tests/abi",))
command = runner.Command("boot-and-test", config, None, (), runner.chosen(request, config))
runner.drive(request, config, LocalLab(), command)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -9
    run = load_run(tmp_path / "results" / "latest" / "run.json")
    assert [case.status for case in run.cases] == [Status.PASS, Status.PASS]
    assert not run.complete
    assert run.exit_code == 1


# -- against a base ----------------------------------------------------------------------------


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
    run = runner.only_new(run_of(case("a", Status.PASS), case("b", now)), base, "plain")
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
    run = runner.only_new(run_of(good, dataclasses.replace(bad, message=now)), base, "plain")
    assert run.exit_code == code


def test_cases_of_one_name_are_told_apart() -> None:
    base = run_of(case("a", Status.PASS), case("a", Status.FAIL), case("a", Status.PASS))
    assert runner.only_new(base, base, "plain").exit_code == 0
    worse = run_of(case("a", Status.FAIL), case("a", Status.FAIL), case("a", Status.PASS))
    assert runner.only_new(worse, base, "plain").exit_code == 1
    fewer = run_of(*base.cases[:2])
    assert runner.only_new(fewer, base, "plain").cases[-1].status is Status.ERROR


def test_what_is_missing_now_is_an_error() -> None:
    base = run_of(case("a", Status.PASS), case("b", Status.PASS))
    run = runner.only_new(run_of(case("a", Status.PASS)), base, "plain")
    assert run.cases[-1].status is Status.ERROR
    assert run.exit_code == 1


def test_splats_of_the_base_are_not_new() -> None:
    good = case("a", Status.PASS)
    base = run_of(good, splats=(OOPS,))
    assert runner.only_new(run_of(good, splats=(OOPS,)), base, "plain").exit_code == 0
    assert runner.only_new(run_of(good, splats=(OOPS, LEAK)), base, "plain").splats == (LEAK,)


def test_the_notice_says_how_many_are_not_counted() -> None:
    base = run_of(case("a", Status.FAIL), case("b", Status.FAIL))
    run = runner.only_new(base, base, "plain")
    assert run.notices == ("2 case(s) that do not pass on plain either are not counted",)


# -- kunit -------------------------------------------------------------------------------------

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
    return [(one.id, one.status) for one in runner.kunit_cases(console, splats, "rig kunit")]


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


# -- boot --------------------------------------------------------------------------------------

WARNING = (
    'echo "[    1.000000] ------------[ cut here ]------------" >&$RIG_KMSG; '
    'echo "[    1.000000] WARNING: CPU: 0 PID: 7 at fs/pipe.c:1 pipe_read+0x1/0x2" >&$RIG_KMSG; '
    'echo "[    1.000000] ---[ end trace 0000000000000000 ]---" >&$RIG_KMSG'
)


class _Bootable(LocalMachine):
    """A local machine as `rig boot` asks for one."""

    attach = "gdb vmlinux"
    facts: ClassVar[dict[str, str]] = {}

    def boot(self) -> None: ...

    def connect(self) -> _Streaming:
        return _Streaming(self)


class _Streaming(LocalSession):
    def __enter__(self) -> _Streaming:
        return self

    def __exit__(self, *_: object) -> None: ...

    def stream(
        self, argv: Sequence[str], _stdin: BinaryIO, stdout: BinaryIO, _stderr: BinaryIO
    ) -> int:
        done = self.run(argv, timeout_s=30.0)
        stdout.write(done.stdout)
        return done.exit_code


class _BootLab:
    def prepare(self, suites: object) -> None: ...

    def machine(self, directory: Path, **_: object) -> _Bootable:
        return _Bootable(directory, 0, slowdown=0.05, says=b"")


@pytest.fixture
def boot(config: Config, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr(runner, "_lab", lambda *_: _BootLab())

    def run(body: str, **wishes: Any) -> int:
        request = BootRequest(argv=("sh", "-c", body), **wishes)
        return runner.boot(request, config, say=sys.stdout.write)

    return run


def test_boot_tells_of_splats_that_do_not_kill(
    boot: Callable[..., int], config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boot(f"{WARNING}; exit 7") == 7
    (directory,) = (config.root / "results").iterdir()
    told = f"splat: WARNING in pipe_read (console {directory / 'console-0.log'})\n"
    assert capsys.readouterr().err == told
    assert boot("exit 7") == 7
    assert capsys.readouterr().err == ""


def test_boot_with_json_waits_for_the_console(
    boot: Callable[..., int], config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boot(f"{WARNING}; exit 7", json=True) == 7
    value = json.loads(capsys.readouterr().out)
    assert [one["title"] for one in value["splats"]] == ["WARNING in pipe_read"]
    assert b"farewell" in next((config.root / "results").glob("*/console-0.log")).read_bytes()


def test_boot_says_when_the_console_is_no_proof(
    boot: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert boot("touch $RIG_STATE/deaf") == 0
    assert "splats may be missing after the command" in capsys.readouterr().err


def test_boot_of_a_kernel_that_crashes_is_a_verdict(boot: Callable[..., int]) -> None:
    with pytest.raises(CrashError, match="the kernel crashed: kernel panic: test") as caught:
        boot(PANIC)
    assert caught.value.exit_code == 1
    with pytest.raises(LostMachineError):
        boot(DEAD)


def test_boot_tells_the_debuggers_line_even_when_quiet(
    boot: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    boot("true", gdb=True)
    assert capsys.readouterr().err == "waiting for a debugger: gdb vmlinux\n"


def test_boot_does_not_drop_gdb_from_a_dry_run(boot: Callable[..., int]) -> None:
    with pytest.raises(UsageError, match="--dry-run") as caught:
        boot("true", gdb=True, dry_run=True)
    assert "-gdb tcp:127.0.0.1:1234 -S" in caught.value.hint


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
        ("splat.sh", Status.FAIL, "splat: WARNING in rig_test"),
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


def test_the_examples_are_listed_as_they_are() -> None:
    listed = suite.programs(suite.discover(SUITES / "trouble"))
    assert [one.name for one in listed][::8] == ["fine.sh", "last.sh"]


def rig(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The rig as a person runs it."""
    argv = [sys.executable, "-m", "rig", "-q", *words]
    return subprocess.run(
        argv, input=stdin, capture_output=True, text=True, check=False, timeout=300
    )


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


@pytest.mark.kernel
@pytest.mark.usefixtures("built_kernel", "built_image")
def test_boot_runs_a_command_as_if_it_were_here() -> None:
    done = rig("boot", "--", "sh", "-c", "cat; echo e >&2; exit 7", stdin="from here\n")
    assert (done.returncode, done.stdout) == (7, "from here\n")
    assert "e\n" in done.stderr


@pytest.mark.kernel
@pytest.mark.usefixtures("built_kernel", "built_image")
def test_boot_of_a_kernel_that_crashes_is_121_and_says_why() -> None:
    done = rig("boot", "--", "sh", "-c", "echo c > /proc/sysrq-trigger")
    assert done.returncode == 121
    assert "the kernel crashed: kernel panic: sysrq triggered crash" in done.stderr
