"""Machines side by side: the same verdicts in the same order, whatever goes wrong in one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_machine import Late, LocalLab, LocalMachine, LocalSession, Writer
from processes import is_gone

from rig import budget, report, runner, suite
from rig.config import Config, KernelConfig, MachineConfig
from rig.durations import DURATIONS
from rig.errors import BootError, InfrastructureError, LostMachineError
from rig.fleet import Fleet
from rig.guest import Guest
from rig.outcome import Command, Outcome
from rig.rack import Order
from rig.record import Record
from rig.results import Run, Status, load_run
from rig.runner import Request
from rig.supply import Supply

TWO = "echo TAP version 13; echo 1..2; echo ok 1 one; echo ok 2 two"
HALF = "echo 1..2; echo ok 1 one; echo '# broken pipe'; echo not ok 2 two; exit 1"
PANIC = 'echo "[    2.000000] Kernel panic - not syncing: test" >&$RIG_KMSG; touch $RIG_STATE/dead'
WARNING = (
    'echo "[    1.000000] ------------[ cut here ]------------" >&$RIG_KMSG; '
    'echo "[    1.000000] WARNING: CPU: 0 PID: 7 at fs/pipe.c:1 pipe_read+0x1/0x2" >&$RIG_KMSG; '
    'echo "[    1.000000] ---[ end trace 0000000000000000 ]---" >&$RIG_KMSG'
)
# Every way a program can end, and enough of them that three machines have something to do.
EVERYTHING = {
    "a": TWO,
    "b": HALF,
    "c": f"{TWO}; {PANIC}",
    "d": "echo 1..0 '# SKIP no kvm'; exit 4",
    "e": f"{TWO}; {WARNING}",
    "f": "exec sleep 60",
    "g": f"{TWO}; exit 3",
    "h": f"{TWO}; touch $RIG_STATE/dead",
    "i": "echo 1..2; echo ok 1 one",
    "j": f"{TWO}; touch $RIG_STATE/late",
    "k": TWO,
}

Drive = Callable[..., Outcome]


class Notes:
    """A Progress that keeps its lines, and what it was told to show now."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shown: list[tuple[str, int | None]] = []

    def stage(self, title: str, total: int | None = None) -> None:
        self.shown.append((title, total))

    def step(self, text: str, done: int | None = None) -> None:
        self.shown.append((text, done))

    def note(self, text: str) -> None:
        self.lines.append(text)

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def large_host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines are the same whatever host the tests run on; a real kernel gets the real one."""
    if request.node.get_closest_marker("kernel"):
        return
    monkeypatch.setattr(budget, "this_host", lambda: budget.Host(cores=8, memory_mib=8192))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "rig.toml").write_text("")
    machines = {"default": MachineConfig("default", cpus=1, memory_mib=128)}
    kernels = {"async": KernelConfig("async")}
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
        request = dataclasses.replace(Request(jobs=3), **wishes)  # type: ignore[arg-type]
        suites = runner.chosen(request, config)
        command = Command("boot-and-test", config, request.machine, request.words, suites)
        return runner.drive(request, config, lab or LocalLab(), command, notes)

    return run


def timeless(run: Run) -> Run:
    """The run without what differs from one time, and from one console, to the next."""
    cases = tuple(dataclasses.replace(case, duration_s=0.0) for case in run.cases)
    splats = tuple(dataclasses.replace(splat, start=0, end=1) for splat in run.splats)
    changed = dataclasses.replace(run, cases=cases, splats=splats, duration_s=0.0, consoles=())
    return dataclasses.replace(changed, id="", started="", command="", notices=())


def told(run: Run) -> list[tuple[str, Status]]:
    return [(case.id, case.status) for case in run.cases]


def trouble(run: Run) -> list[str]:
    """What a log of CI has to say of each case that did not pass: the run itself is lost there."""
    good = (Status.PASS, Status.SKIP)
    return [
        f"{case.id}: {case.status.value}: {case.message}\n{case.output[-2000:]}"
        for case in run.cases
        if case.status not in good
    ]


# -- the same as one machine -------------------------------------------------------------------


def test_three_machines_say_what_one_says(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", timeout=1, **EVERYTHING)
    other = writer.suite("other", timeout=1, **EVERYTHING)
    wishes = {"suites": ("abi",), "tests": (other,)}
    one, three = drive(Late(), jobs=1, **wishes), drive(Late(), jobs=3, **wishes)
    assert told(one.run) == told(three.run)
    assert {case.status for case in one.run.cases} == set(Status) - {Status.FLAKY}
    first, second = timeless(one.run), timeless(three.run)
    assert first.cases == second.cases
    assert first == second
    assert report.junit(first) == report.junit(second)
    assert report.html(first, {}) == report.html(second, {})
    assert report.text(first, color=False) == report.text(second, color=False)
    assert one.exit_code == three.exit_code == 1
    assert three.run.command.endswith("-n 3")


def test_reports_come_in_order_though_the_longest_begins_first(
    writer: Writer, drive: Drive, notes: Notes, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    body = f"echo $0 >> {log}; {TWO}; sleep 0.5"
    writer.suite("abi", timeout=10, **dict.fromkeys("abcdef", body))
    (tmp_path / "results").mkdir()
    seconds = {"abi/a.sh": 1.0, "abi/b.sh": 5.0, "abi/c.sh": 2.0, "abi/d.sh": 4.0, "abi/e.sh": 3.0}
    (tmp_path / "results" / DURATIONS).write_text(json.dumps(seconds))
    outcome = drive(jobs=2)
    begun = [Path(line).stem for line in log.read_text().split()]
    # f is not known, and two at a time may overtake each other.
    assert set(begun[:2]) == {"f", "b"}
    assert set(begun[2:4]) == {"d", "e"}
    assert [line.split("/")[1][0] for line in notes.lines] == list("abcdef")
    assert [case.program[0] for case in outcome.run.cases] == [*"aabbccddeeff"]
    assert outcome.exit_code == 0


@pytest.mark.parametrize("jobs", [1, 2])
def test_how_long_programs_took_is_kept(
    writer: Writer, drive: Drive, tmp_path: Path, jobs: int
) -> None:
    writer.suite("abi", a=f"{TWO}; sleep 0.5", b=TWO)
    drive(jobs=jobs)
    kept = json.loads((tmp_path / "results" / DURATIONS).read_bytes())
    assert set(kept) == {"abi/a.sh", "abi/b.sh"}
    assert 0.5 <= kept["abi/a.sh"] < 20
    assert kept["abi/b.sh"] < kept["abi/a.sh"]


def test_they_do_run_side_by_side(writer: Writer, drive: Drive, tmp_path: Path) -> None:
    # Each waits for all three to be there.
    body = (
        f"touch {tmp_path}/$(basename $0).here; "
        f"until [ $(ls {tmp_path}/*.here | wc -l) = 3 ]; do sleep 0.1; done; {TWO}"
    )
    writer.suite("abi", timeout=30, a=body, b=body, c=body)
    lab = LocalLab()
    assert drive(lab).exit_code == 0
    assert len(lab.machines) == 3


def test_a_person_sees_what_runs_where(writer: Writer, drive: Drive, notes: Notes) -> None:
    writer.suite("abi", timeout=10, **dict.fromkeys("abcd", f"{TWO}; sleep 0.3"))
    drive(jobs=2)
    assert ("test in 2 machines", 4) in notes.shown
    assert any("1: abi/" in text and "2: abi/" in text for text, _ in notes.shown)
    assert notes.shown[-1] == ("", 4)


def test_no_more_machines_than_programs(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", a=TWO)
    lab = LocalLab()
    assert drive(lab, jobs=3).exit_code == 0
    assert len(lab.machines) == 1


# -- what goes wrong in one machine ------------------------------------------------------------


def test_a_crash_costs_one_program(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", timeout=10, a=PANIC, **dict.fromkeys("bcdefgh", f"{TWO}; sleep 0.1"))
    lab = LocalLab()
    outcome = drive(lab)
    bad = [case.id for case in outcome.run.cases if not case.status.good]
    assert bad == ["abi/a.sh"]
    assert outcome.run.cases[0].status is Status.CRASH
    assert len(outcome.run.cases) == 1 + 7 * 2
    assert 3 <= len(lab.machines) <= 4
    assert all(machine.closed for machine in lab.machines)
    assert len(set(outcome.run.consoles)) == len(lab.machines)


def test_late_splats_belong_to_the_program_before_in_that_machine(
    writer: Writer, drive: Drive
) -> None:
    late = f"{TWO}; sleep 0.3; touch $RIG_STATE/late"
    writer.suite("abi", a=late, b=late, c=f"{TWO}; sleep 0.6", d=TWO, e=TWO, f=TWO)
    lab = Late()
    outcome = drive(lab)
    bad = [case.id for case in outcome.run.cases if not case.status.good]
    assert bad == ["abi/a.sh::after its end", "abi/b.sh::after its end"]
    assert len(outcome.run.splats) == 2
    assert [case.program[0] for case in outcome.run.cases] == [*"aaabbbccddeeff"]
    assert outcome.exit_code == 1


def test_a_lost_machine_is_remembered(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", a=TWO, b="touch $RIG_STATE/dead", c=TWO)
    outcome = drive()
    assert outcome.exit_code == 6
    assert isinstance(outcome.error, LostMachineError)


@pytest.mark.parametrize("jobs", [2, 3])
def test_one_that_does_not_boot_ends_it_and_all_is_accounted_for(
    writer: Writer, drive: Drive, jobs: int
) -> None:
    writer.suite("abi", timeout=10, **dict.fromkeys("abcdef", f"{TWO}; sleep 0.3"))
    lab = _Counting(boots=1)
    outcome = drive(lab, jobs=jobs)
    assert outcome.exit_code == 5
    assert lab.tried <= jobs  # and nobody tried again
    assert isinstance(outcome.error, BootError)
    assert outcome.run.complete
    assert sorted({case.program for case in outcome.run.cases}) == [f"{one}.sh" for one in "abcdef"]
    ran = [case for case in outcome.run.cases if case.status is Status.PASS]
    refused = [case for case in outcome.run.cases if case.status is Status.ERROR]
    assert len(ran) >= 2
    assert len(ran) / 2 + len(refused) == 6
    assert all("did not reach login" in case.message for case in refused)
    assert all(machine.closed for machine in lab.machines)


@pytest.mark.parametrize(("broken", "seconds"), [("machine 1", (1, 9)), ("machine 0", (9, 1))])
def test_a_program_that_ran_ahead_of_the_error_is_shown(
    writer: Writer,
    drive: Drive,
    notes: Notes,
    config: Config,
    broken: str,
    seconds: tuple[int, int],
) -> None:
    """The first one asked for is the one whose machine does not boot."""
    writer.suite("abi", a=TWO, b=f"{TWO}; sleep 0.5")
    config.root.joinpath("results").mkdir()
    (config.root / "results" / DURATIONS).write_text(
        json.dumps(dict(zip(("abi/a.sh", "abi/b.sh"), seconds, strict=True)))
    )
    outcome = drive(_HalfBroken(broken), jobs=2)
    assert outcome.exit_code == 5
    assert [line.split(" (")[0] for line in notes.lines] == ["PASS    abi/b.sh"]
    assert told(outcome.run) == [
        ("abi/a.sh", Status.ERROR),
        ("abi/b.sh::one", Status.PASS),
        ("abi/b.sh::two", Status.PASS),
    ]


def test_a_mistake_of_the_rig_is_loud_and_never_green(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", a=TWO, b=TWO)
    with pytest.raises(ZeroDivisionError):
        drive(_Mistaken())


class _HalfBroken(LocalLab):
    """One of two machines does not boot, once the other one has; the first has the longest
    program."""

    def __init__(self, broken: str) -> None:
        super().__init__()
        self._broken = broken
        self._other = threading.Event()

    def boot(self, number: int, record: Record) -> Guest:
        if threading.current_thread().name == self._broken:
            assert self._other.wait(30)
            raise BootError("the kernel did not reach login")
        self._other.set()
        return super().boot(number, record)


class _Mistaken(LocalLab):
    def guest(self, machine: object) -> Guest:
        raise ZeroDivisionError


# -- cut short ---------------------------------------------------------------------------------


def test_x_begins_nothing_after_a_failure(writer: Writer, drive: Drive) -> None:
    slow = f"{TWO}; sleep 2"
    writer.suite("abi", a=slow, b=HALF, c=slow, d=slow, e=slow, f=slow)
    outcome = drive(exit_first=True)
    assert outcome.exit_code == 1
    # c was running beside b, and what was seen of it is not thrown away.
    assert {case.program for case in outcome.run.cases} == {"a.sh", "b.sh", "c.sh"}
    assert outcome.run.complete


def test_lf_runs_what_failed(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", a=TWO, b=HALF, c=HALF, d=TWO)
    drive()
    assert {case.program for case in drive(last_failed=True).run.cases} == {"b.sh", "c.sh"}


def test_an_interrupt_ends_every_machine_at_once(
    writer: Writer, drive: Drive, tmp_path: Path
) -> None:
    # When all three run, however long the last one takes to begin.
    waits = {name: f"touch {tmp_path}/{name}; sleep 60" for name in "ab"}
    others = f"until test -e {tmp_path}/a -a -e {tmp_path}/b; do sleep 0.1; done"
    interrupt = f"{others}; sleep 1; kill -INT {os.getpid()}; sleep 60"
    writer.suite("abi", timeout=90, **waits, c=interrupt, d=TWO)
    lab, started = LocalLab(), time.monotonic()
    outcome = drive(lab)
    assert time.monotonic() - started < 30
    assert outcome.exit_code == 130
    assert not load_run(outcome.directory / "run.json").complete
    assert len(lab.machines) == 3
    assert all(machine.closed for machine in lab.machines)
    # All three are said to have been stopped, none to have failed.
    assert [case.program for case in outcome.run.cases] == ["a.sh", "b.sh", "c.sh"]
    assert all("the rig was stopped" in case.message for case in outcome.run.cases)
    assert outcome.error is None


class _Stuck(LocalLab):
    """Its plugs are pulled, and then that goes wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.cuts = 0

    def cut(self) -> None:
        self.cuts += 1
        super().cut()
        raise ProcessLookupError("no such process")


def test_a_mistake_with_the_plugs_is_loud_and_leaves_no_machine(
    writer: Writer, drive: Drive
) -> None:
    interrupt = f"sleep 1; kill -INT {os.getpid()}; sleep 60"
    writer.suite("abi", timeout=90, a=interrupt, b="sleep 60", c="sleep 60")
    lab = _Stuck()
    with pytest.raises(ProcessLookupError):
        drive(lab)
    assert all(machine.closed for machine in lab.machines)
    assert lab.cuts == 1


class _Slow(LocalLab):
    """Its second machine, or the program there, has just begun when all plugs were pulled."""

    def __init__(self, moment: str) -> None:
        super().__init__()
        self._moment, self._pulled = moment, threading.Event()

    def cut(self) -> None:
        super().cut()
        self._pulled.set()

    def boot(self, number: int, record: Record) -> Guest:
        if number == 1 and self._moment == "boot":
            self._pulled.wait(60)
        return super().boot(number, record)

    def guest(self, machine: LocalMachine) -> Guest:
        session = LocalSession(machine)
        if len(self.machines) == 2 and self._moment == "program":
            session.starts = lambda command: "b.sh" in command and self._pulled.wait(60)
        return Guest(machine, session)


@pytest.mark.parametrize("moment", ["boot", "program"])
def test_what_begins_when_the_plugs_are_pulled_ends_too(
    writer: Writer, drive: Drive, moment: str
) -> None:
    interrupt = f"sleep 1; kill -INT {os.getpid()}; sleep 60"
    writer.suite("abi", timeout=90, a=interrupt, b="sleep 60; sleep 60", c=TWO)
    lab, started = _Slow(moment), time.monotonic()
    outcome = drive(lab, jobs=2)
    assert time.monotonic() - started < 14  # a worker that does not end is waited for 15 s
    assert outcome.exit_code == 130
    assert all(machine.closed for machine in lab.machines)


def test_an_interrupt_ends_a_boot_that_hangs(writer: Writer, drive: Drive) -> None:
    writer.suite("abi", timeout=90, a=f"sleep 1; kill -INT {os.getpid()}; sleep 60", b=TWO, c=TWO)
    lab, started = _Hanging(), time.monotonic()
    outcome = drive(lab)
    assert time.monotonic() - started < 30
    assert outcome.exit_code == 130
    assert all(machine.closed for machine in lab.machines)
    assert threading.active_count() < 10


def test_an_interrupt_is_no_fault_of_a_machine_that_is_looked_at_last(
    writer: Writer, drive: Drive
) -> None:
    """The first machine's last look takes its time when the plugs are pulled."""
    interrupt = f"sleep 1; kill -INT {os.getpid()}; sleep 60"
    writer.suite("abi", timeout=90, a=f"{TWO}; touch $RIG_STATE/muting", b=interrupt)
    outcome = drive(Late(), jobs=2)
    assert outcome.exit_code == 130
    assert told(outcome.run) == [
        ("abi/a.sh::one", Status.PASS),
        ("abi/a.sh::two", Status.PASS),
        ("abi/b.sh", Status.ERROR),
    ]
    assert outcome.error is None


class _Hanging(LocalLab):
    """Its second boot hangs until its plug is pulled."""

    def boot(self, number: int, record: Record) -> Guest:
        if number == 1:
            self.is_cut.wait(60)
            raise InfrastructureError("the console closed")
        return super().boot(number, record)


# -- boots -------------------------------------------------------------------------------------


class _Counting(LocalLab):
    """Knows how many boots there were at once.

    together: a boot goes on when so many are under way, and there was time for one more to come.
    """

    def __init__(self, *, boots: int = 1000, together: int = 1) -> None:
        super().__init__(boots=boots)
        self.now = self.most = self.tried = 0
        self.lock = threading.Lock()
        self.gate = threading.Barrier(together)

    def boot(self, number: int, record: Record) -> Guest:
        with self.lock:
            self.now += 1
            self.tried += 1
            self.most = max(self.most, self.now)
        self.gate.wait(60)
        time.sleep(0.2)
        try:
            return super().boot(number, record)
        finally:
            with self.lock:
                self.now -= 1


@pytest.mark.parametrize("boots_at_once", [1, 2])
def test_boots_are_staggered(writer: Writer, tmp_path: Path, boots_at_once: int) -> None:
    lab = _Counting(together=boots_at_once)
    run_fleet(writer, tmp_path, lab, boots_at_once=boots_at_once, machines=4, programs=8)
    assert len(lab.machines) == 4
    assert lab.most == boots_at_once


def test_deadlines_grow_with_the_load(writer: Writer, tmp_path: Path) -> None:
    run = run_fleet(
        writer, tmp_path, LocalLab(slowdown=0.5), load=3.0, body="exec sleep 60", programs=2
    )
    assert "it did not end within 2 s (1 s, slowdown 1.5)" in run.cases[0].message


@pytest.mark.parametrize("isolation", ["suite", "program"])
def test_isolation_holds_in_a_fleet(writer: Writer, drive: Drive, isolation: str) -> None:
    """Every program looks for what another one left in its machine."""
    body = f"test ! -e $RIG_STATE/seen || exit 1; touch $RIG_STATE/seen; {TWO}"
    if isolation == "suite":
        body = f"touch $RIG_STATE/$RIG_SUITE; test $(ls $RIG_STATE | wc -l) = 1 || exit 1; {TWO}"
    for name in ("abi", "other"):
        bodies = dict.fromkeys("abcd", body.replace("$RIG_SUITE", name))
        writer.suite(name, timeout=10, **bodies)
    lab = LocalLab()
    outcome = drive(lab, isolation=isolation, suites=("abi", "guest-tests/other"), jobs=2)
    assert outcome.exit_code == 0
    # A machine that is done with its own suite helps with the other, in a new one.
    assert len(lab.machines) in ({8} if isolation == "program" else {2, 3})


def run_fleet(
    writer: Writer,
    tmp_path: Path,
    lab: LocalLab,
    *,
    boots_at_once: int = 1,
    load: float = 1.0,
    machines: int = 2,
    programs: int = 4,
    body: str = TWO,
) -> Run:
    """A suite of equal programs in a fleet of its own."""
    place = writer.suite("abi", timeout=1, **{f"p{number}": body for number in range(programs)})
    found = suite.discover(place)
    record = Record.begin(tmp_path / "results", "rig", "local")
    supply = Supply(lab, record, boots_at_once=boots_at_once, load=load)
    fleet = Fleet(lab, record, machines=machines, supply=supply)
    fleet.prepare([found])
    orders = [Order(found, program) for program in suite.programs(found)]
    fleet.expect(orders)
    for order in orders:
        fleet.run(order)
    fleet.close()
    return record.finish()


# -- a real kernel -----------------------------------------------------------------------------

SUITES = Path(__file__).parent / "data" / "suites"


@pytest.mark.kernel
def test_two_real_machines_say_what_one_says(rig_config: Config, tmp_path: Path) -> None:
    one, two = (
        runner.boot_and_test(Request(machine="single", jobs=jobs, results=tmp_path), rig_config)
        for jobs in (1, 2)
    )
    assert (trouble(one.run), trouble(two.run)) == ([], [])
    assert told(one.run) == told(two.run)
    assert len(one.run.cases) > 100
    assert (one.exit_code, two.exit_code) == (0, 0)
    assert len(two.run.consoles) == 2


@pytest.mark.kernel
def test_real_trouble_in_one_machine_is_not_the_others(rig_config: Config, tmp_path: Path) -> None:
    """The suite whose every program breaks a rule, beside one that has nothing wrong with it."""
    request = Request(
        machine="single", jobs=2, tests=(SUITES / "trouble", SUITES / "hello"), results=tmp_path
    )
    outcome = runner.boot_and_test(request, rig_config)
    own = {case.program: case.status for case in outcome.run.cases if not case.name}
    assert own == {
        "lie.sh": Status.FAIL,
        "cut.sh": Status.ERROR,
        "splat.sh": Status.FAIL,
        "crash.sh": Status.CRASH,
        "hush.sh": Status.ERROR,
        "unreachable.sh": Status.TIMEOUT,
        "hang.sh": Status.TIMEOUT,
    }
    hello = {case.status for case in outcome.run.cases if case.suite == "hello"}
    assert hello == {Status.PASS, Status.SKIP}
    fine = [case.status for case in outcome.run.cases if case.program in ("fine.sh", "last.sh")]
    assert fine == [Status.PASS, Status.PASS]


class Rig:
    """A rig of its own with two machines at work; its processes carry its TMPDIR."""

    def __init__(self, tmp_path: Path) -> None:
        self.scratch, self.results = tmp_path / "scratch", tmp_path / "results"
        self.scratch.mkdir()
        body = f"{TWO}; exec sleep 600"
        suite = Writer(tmp_path / "suites").suite("slow", timeout=900, a=body, b=body)
        words = ["boot-and-test", "--machine", "single", "-n", "2", "--tests", str(suite)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rig", "-q", *words, "--results", str(self.results)],
            env={**os.environ, "TMPDIR": str(self.scratch)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def at_work(self) -> bool:
        """Whether both programs have begun."""
        logs = self.results.glob("latest/console-*.log")
        return sum(b" begins" in log.read_bytes() for log in logs) == 2

    def processes(self) -> list[int]:
        """Of this rig, itself included."""
        mark, found = f"TMPDIR={self.scratch}".encode(), []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                each = (entry / "environ").read_bytes().split(b"\0")
                # A QEMU has a directory of its own in there.
                if entry.name.isdigit() and any(one.startswith(mark) for one in each):
                    found.append(int(entry.name))
        return found


@pytest.fixture
def working(tmp_path: Path, built_kernel: object, built_image: object) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    deadline = time.monotonic() + 240
    try:
        while not rig.at_work():
            assert rig.process.poll() is None, "the rig ended"
            assert time.monotonic() < deadline, "the programs did not begin"
            time.sleep(0.1)
        assert len(rig.processes()) >= 4  # the rig, its guard and two QEMUs
        yield rig
    finally:
        rig.process.kill()
        rig.process.wait()


@pytest.mark.kernel
def test_a_killed_rig_with_two_machines_leaves_nothing(working: Rig) -> None:
    pids = working.processes()
    working.process.kill()
    working.process.wait()
    assert all(is_gone(pid, 20) for pid in pids)
    assert list(working.scratch.iterdir()) == []


@pytest.mark.kernel
def test_an_interrupted_rig_with_two_machines_ends_at_once(working: Rig) -> None:
    pids = working.processes()
    working.process.send_signal(signal.SIGINT)
    assert working.process.wait(30) == 130
    assert all(is_gone(pid, 20) for pid in pids)
    assert list(working.scratch.iterdir()) == []
    run = load_run(working.results / "latest" / "run.json")
    assert not run.complete
    assert [case.program for case in run.cases] == ["a.sh", "b.sh"]
    assert all("the rig was stopped" in case.message for case in run.cases)
    assert (working.results / "latest" / "report.html").is_file()
