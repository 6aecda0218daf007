"""The flow itself, from suites to a verdict; the only module that sees all stages."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

from rig import config as configuration
from rig import ktap, report, splat, suite
from rig.config import Config, KernelConfig
from rig.errors import (
    BootError,
    CrashError,
    InfrastructureError,
    LostMachineError,
    RigError,
    UsageError,
)
from rig.guest import Guest
from rig.lab import KernelLab
from rig.machine import qemu
from rig.machine.qemu import QemuMachine
from rig.progress import QUIET, Progress
from rig.rack import Isolation, Lab, Rack
from rig.record import Record, fresh
from rig.results import Case, Run, Splat, Status, to_json
from rig.session import ConnectionLost, Session, SessionTimeout
from rig.store import open_store
from rig.suite import Program, Suite
from rig.verdict import NotPassed, worst

INTERRUPTED = 130

# Wall seconds on a machine of slowdown 1.
_LAST_WORDS_S = 10.0


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Where a run goes: results/<run id>/ under results (default: the checkout's results/), and
    copies in JUnit XML and JSON."""

    results: Path | None = None
    junit: Path | None = None
    json: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Request(_Files):
    """What `rig boot-and-test` is asked for; the kernel is the config's default one.

    suites: names or paths of rig.toml's suites, empty for all of them unless tests are given.
    tests: further suite directories from anywhere. words: how a person names the kernel on the
    command line, for commands to paste. pytest_args: handed on as they are.
    """

    machine: str | None = None
    suites: tuple[str, ...] = ()
    tests: tuple[Path, ...] = ()
    isolation: Isolation = "none"
    keyword: str = ""
    exit_first: bool = False
    last_failed: bool = False
    pytest_args: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KselftestRequest(_Files):
    """`rig kselftest TARGET...`: directories below tools/testing/selftests of the kernel's tree.

    against: a kernel of rig.toml whose failures are not reported again.
    """

    targets: tuple[str, ...]
    machine: str | None = None
    against: str | None = None
    keyword: str = ""


@dataclass(frozen=True, kw_only=True)
class KunitRequest(_Files):
    """`rig kunit`. kunitconfig: a path of the kernel's tree, its .kunitconfig may be left out."""

    kunitconfig: str | None = None
    machine: str | None = None
    against: str | None = None


_Wish = TypeVar("_Wish", KselftestRequest, KunitRequest)


@dataclass(frozen=True, kw_only=True)
class BootRequest:
    """`rig boot`. argv: the command to run in the guest, None for a shell."""

    machine: str | None = None
    argv: tuple[str, ...] | None = None
    append: str = ""
    dry_run: bool = False
    gdb: bool = False
    json: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a run ended: what it saw, where that is kept, the exit code of docs/architecture.md,
    and the error that ended it early or lost a machine, if any."""

    run: Run
    directory: Path
    exit_code: int
    error: RigError | None = None


# -- boot-and-test ------------------------------------------------------------------------------


def boot_and_test(request: Request, config: Config, progress: Progress = QUIET) -> Outcome:
    """Build, boot, run the suites through pytest, and write the report.

    Raises UsageError when there is nothing to run; every other failure is in the Outcome, with
    what was seen until then.
    """
    _check_places(request)
    suites = chosen(request, config)
    command = Command("boot-and-test", config, request.machine, request.words, suites)
    lab = _lab(config, config.kernel(), request.machine, progress)
    return drive(request, config, lab, command, progress)


def chosen(request: Request, config: Config) -> tuple[Suite, ...]:
    """The suites asked for, of rig.toml by name or path, and of --tests; UsageError if none."""
    found = [suite.discover(config.root / path) for path in config.suites]
    known = {one.name: one for one in found}
    chosen = [] if request.tests and not request.suites else found
    if request.suites:
        chosen = [_named(name, known, config) for name in request.suites]
    suites = suite.distinct([*chosen, *(suite.discover(path) for path in request.tests)])
    if not suites:
        raise UsageError(
            "there is no suite to run", hint="name some in rig.toml's [default], or --tests DIR"
        )
    return suites


def _named(name: str, known: Mapping[str, Suite], config: Config) -> Suite:
    if name in known:
        return known[name]
    if (config.root / name / "Makefile").is_file():
        return suite.discover(config.root / name)
    raise UsageError(f"no suite {name!r}", hint=configuration.nearest(name, sorted(known)))


@dataclass(frozen=True)
class Command:
    """The command line of this run, and of one program of it, to paste."""

    verb: str
    config: Config
    machine: str | None
    words: tuple[str, ...]
    suites: tuple[Suite, ...] = ()

    def whole(self, *more: str) -> str:
        """The run: its suites, then more words."""
        places = [word for one in self.suites for word in self._place(one)]
        return self._line([*places, *more])

    def program(self, of: Suite, program: Program) -> str:
        """One program."""
        return self._line([*self._place(of), "-k", program.name])

    def _line(self, words: Sequence[str]) -> str:
        machine = ["--machine", self.machine] if self.machine else []
        return shlex.join(["rig", self.verb, *self.words, *machine, *words])

    def _place(self, one: Suite) -> list[str]:
        if self.verb == "kselftest":
            return [one.target]
        known = {self.config.root / path for path in self.config.suites}
        in_toml = one.directory in known and one.name == one.directory.name
        return ["--suite", one.name] if in_toml else ["--tests", str(one.directory)]


def _lab(
    config: Config, kernel: KernelConfig, machine: str | None, progress: Progress
) -> KernelLab:
    return KernelLab(config, kernel, config.machine(machine), open_store(), progress)


def drive(
    request: Request, config: Config, lab: Lab, command: Command, progress: Progress = QUIET
) -> Outcome:
    """Run the command's suites as pytest items in this process; the report is written after."""
    driver = _Driver(lambda: _rack(request, config, lab, command), progress)
    arguments = _pytest_arguments(request, config, command.suites)
    code = pytest.main(arguments, plugins=[driver])
    if driver.mistake:
        raise driver.mistake
    if driver.refused:
        raise UsageError(driver.refused)
    if driver.rack is None:
        if driver.interrupted:
            raise KeyboardInterrupt
        raise UsageError(_not_started(code, arguments))
    return _conclude(request, driver.rack, driver)


def _rack(request: Request, config: Config, lab: Lab, command: Command) -> Rack:
    """A rack with a fresh record; made when it is sure that something will run."""
    words = ["-k", request.keyword] if request.keyword else []
    results = request.results or config.root / "results"
    record = Record.begin(results, command.whole(*words), config.default_kernel)
    return Rack(lab, record, isolation=request.isolation, reproduce=command.program)


def _not_started(code: int, arguments: Sequence[str]) -> str:
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        return "no program was selected; -k, --lf or a suite's Makefile left nothing to run"
    return f"pytest ended with exit code {int(code)}; its words: {shlex.join(arguments)}"


def _pytest_arguments(request: Request, config: Config, suites: Sequence[Suite]) -> list[str]:
    """No ini file, no terminal output, nothing captured: the rig's own lines are what is seen."""
    chosen = [
        *(["-k", request.keyword] if request.keyword else []),
        *(["-x"] if request.exit_first else []),
        *(["--lf"] if request.last_failed else []),
    ]
    return [
        "-c", os.devnull, "--rootdir", str(config.root), "-s", "-p", "no:randomly",
        "-o", f"cache_dir={config.root / '.pytest_cache'}",
        "--rig-toml", str(config.root / configuration.FILE_NAME),
        *chosen, *request.pytest_args, *(str(one.directory) for one in suites),
    ]  # fmt: skip


class _Driver:
    """A pytest plugin that lends pytest our rack and turns verdicts into progress lines."""

    def __init__(self, make_rack: Callable[[], Rack], progress: Progress) -> None:
        self.error: RigError | None = None
        self.interrupted = False
        self.mistake: BaseException | None = None
        self.refused = ""
        self.rack: Rack | None = None
        self._make_rack, self._progress = make_rack, progress

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.pluginmanager.unregister(name="terminalreporter")

    def pytest_rig_rack(self) -> Rack:
        self.rack = self._make_rack()
        return self.rack

    def pytest_rig_verdict(self, name: str, cases: tuple[Case, ...], duration_s: float) -> None:
        self._progress.note(verdict_line(name, cases, duration_s))

    def pytest_rig_abort(self, error: RigError) -> None:
        self.error = error

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self.interrupted = isinstance(excinfo.value, KeyboardInterrupt)

    def pytest_exception_interact(self, call: pytest.CallInfo[object]) -> None:
        """An exception that is no verdict is a mistake in the rig itself: drive() raises it."""
        assert call.excinfo is not None
        if not isinstance(call.excinfo.value, (NotPassed, pytest.Collector.CollectError)):
            self.mistake = self.mistake or call.excinfo.value

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
        self.mistake = self.mistake or excinfo.value
        return True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.refused = report.longreprtext


def verdict_line(name: str, cases: Sequence[Case], duration_s: float) -> str:
    """One line for a person: verdict, program, seconds, and why it is not a plain pass."""
    status = worst(cases)
    good = sum(case.status is Status.PASS for case in cases)
    bad = [case for case in cases if not case.status.good]
    whole = next((case for case in bad if not case.name), None)
    if whole or (bad and len(bad) == 1):
        first = whole or bad[0]
        words = f"{first.name}: {first.message}" if first.name else first.message
    elif bad:
        words = f"{len(bad)} of {len(cases)} cases: {', '.join(case.name for case in bad[:3])}"
    else:
        words = f"{good} passed" + (f", {len(cases) - good} skipped" if good < len(cases) else "")
    return f"{status.upper():<8}{name} ({duration_s:.1f} s) {words}".rstrip()


def _conclude(request: _Files, rack: Rack, driver: _Driver) -> Outcome:
    """Write what was asked for beside the report; the exit code."""
    run = rack.record.run
    _copy(request, run)
    code = INTERRUPTED if driver.interrupted else exit_code(run, driver.error, rack.lost)
    return Outcome(run, rack.record.directory, code, driver.error or rack.lost)


def _copy(request: _Files, run: Run) -> None:
    """--junit and --json."""
    for path, make in ((request.junit, report.junit), (request.json, to_json)):
        if path:
            try:
                path.write_bytes(make(run))
            except OSError as error:
                raise InfrastructureError(f"cannot write {path}: {error.strerror}") from error


def _check_places(request: _Files) -> None:
    """--junit and --json must be writable before a run of an hour, and not after it."""
    for path in (request.junit, request.json):
        if path and not path.parent.is_dir():
            raise UsageError(f"cannot write {path}: there is no directory {path.parent}")
        if path and (path.is_dir() or not os.access(path.parent, os.W_OK)):
            raise UsageError(f"cannot write {path}", hint="give a file in a directory of yours")


def exit_code(run: Run, error: RigError | None, lost: LostMachineError | None) -> int:
    """Which of the exit codes tells a run.

    What ended it early comes first. A lost machine (6) says nothing about the kernel, so it
    yields to a case that failed (1).
    """
    if error:
        return error.exit_code
    blamed = (Status.FAIL, Status.CRASH, Status.TIMEOUT)
    if lost and not run.splats and not any(case.status in blamed for case in run.cases):
        return lost.exit_code
    return run.exit_code


def write_report(record: Record) -> None:
    """run.json, junit.xml and report.html into the run's directory."""
    report.write(record.run, record.directory)


def rack(
    rig_toml: Path,
    *,
    kernel: str | None,
    machine: str | None,
    isolation: Isolation,
    results: str | None,
    progress: Progress = QUIET,
) -> Rack:
    """The rack of a plain `pytest guest-tests`."""
    config = configuration.load(rig_toml.absolute())
    chosen = config.kernel(kernel)
    command = Command("boot-and-test", config, machine, (kernel,) if kernel else ())
    place = Path(results) if results else config.root / "results"
    record = Record.begin(place, shlex.join(["pytest", *sys.argv[1:]]), chosen.name)
    lab = _lab(config, chosen, machine, progress)
    return Rack(lab, record, isolation=isolation, reproduce=command.program)


# -- kselftest -----------------------------------------------------------------------------------


def kselftest(request: KselftestRequest, config: Config, progress: Progress = QUIET) -> Outcome:
    """The kernel tree's own selftests; with `against`, only what BASE does not show as well."""
    _check_places(request)
    return _against(request, lambda name, wish: _kselftest_on(name, wish, config, progress), config)


def _kselftest_on(
    kernel: str, request: KselftestRequest, config: Config, progress: Progress
) -> Outcome:
    config = replace(config, default_kernel=config.kernel(kernel).name)
    lab = _lab(config, config.kernel(), request.machine, progress)
    # The targets lie in the patched tree, and building is what makes that.
    selftests = lab.build().tree / suite.SELFTESTS
    suites = suite.distinct([_target(selftests, name) for name in request.targets])
    command = Command("kselftest", config, request.machine, ("--kernel", kernel), suites)
    driven = Request(
        machine=request.machine,
        keyword=request.keyword,
        results=request.results,
        junit=request.junit,
        json=request.json,
    )
    return drive(driven, config, lab, command, progress)


def _target(selftests: Path, name: str) -> Suite:
    if not (selftests / name / "Makefile").is_file():
        known = sorted(path.parent.name for path in selftests.glob("*/Makefile"))
        raise UsageError(
            f"no selftest target {name!r} in {selftests}", hint=configuration.nearest(name, known)
        )
    return suite.discover(selftests / name)


# -- what is new against a base ------------------------------------------------------------------


def only_new(run: Run, base: Run, base_name: str) -> Run:
    """The run with what the base shows as well taken out of the verdict.

    A bad case that ended the same way on the base becomes a SKIP that says so, a splat of the
    same title is dropped. A case that the base had and the run lacks is an ERROR.
    """
    before, after = _keyed(base), _keyed(run)
    titles = {splat.title for splat in base.splats}
    cases = [_unless_known(case, before.get(key), base_name) for key, case in after.items()]
    why = f"it ran on {base_name}, and is missing now"
    gone = [
        replace(case, status=Status.ERROR, message=why, output="")
        for key, case in before.items()
        if key not in after and case.status is Status.PASS
    ]
    splats = tuple(splat for splat in run.splats if splat.title not in titles)
    known = sum(case.status.good for case in cases) - sum(case.status.good for case in run.cases)
    notice = f"{known} case(s) that do not pass on {base_name} either are not counted"
    return replace(run, cases=(*cases, *gone), splats=splats, notices=(*run.notices, notice))


def _keyed(run: Run) -> dict[tuple[str, int], Case]:
    """A run's cases in order, by id and by which one of that id it is: a name may come twice."""
    counts: Counter[str] = Counter()
    keyed = {}
    for case in run.cases:
        keyed[case.id, counts[case.id]] = case
        counts[case.id] += 1
    return keyed


def _unless_known(case: Case, before: Case | None, base_name: str) -> Case:
    if case.status.good or before is None or not _alike(case, before):
        return case
    return replace(
        case, status=Status.SKIP, message=f"not new, {base_name} shows it too: {case.message}"
    )


def _alike(case: Case, before: Case) -> bool:
    """Whether a case ended the same way; a whole program also for the same reason.

    A time-out has no reason: its words are how long it had on this machine.
    """
    same = case.status is before.status
    reasonless = case.name or case.status is Status.TIMEOUT
    return same and bool(reasonless or case.message == before.message)


def _against(request: _Wish, on: Callable[[str, _Wish], Outcome], config: Config) -> Outcome:
    """The run on the config's kernel, after one on the base where one is named.

    A base that could not be run to its end proves nothing: its outcome is returned then.
    """
    if not request.against:
        return on(config.default_kernel, request)
    base = on(request.against, replace(request, junit=None, json=None))
    early = base.error and not isinstance(base.error, LostMachineError)
    if early or not base.run.complete:
        return base
    after = on(config.default_kernel, request)
    return _news(request, after, base) if after.run.complete else after


def _news(request: KselftestRequest | KunitRequest, after: Outcome, base: Outcome) -> Outcome:
    """The outcome in the light of the base's."""
    assert request.against
    run = only_new(after.run, base.run, request.against)
    report.write(run, after.directory)
    _copy(request, run)
    lost = after.error if isinstance(after.error, LostMachineError) else None
    return replace(after, run=run, exit_code=exit_code(run, None if lost else after.error, lost))


# -- kunit ---------------------------------------------------------------------------------------


def kunit(request: KunitRequest, config: Config, progress: Progress = QUIET) -> Outcome:
    """The kernel's own unit tests, which run while it boots and speak KTAP on its console."""
    _check_places(request)
    return _against(request, lambda name, wish: _kunit_on(name, wish, config, progress), config)


def _kunit_on(kernel: str, request: KunitRequest, config: Config, progress: Progress) -> Outcome:
    lab = _kunit_lab(kernel, request, config, progress)
    words = ["--kernel", kernel]
    words += ["--kunitconfig", request.kunitconfig] if request.kunitconfig else []
    command = Command("kunit", config, request.machine, tuple(words)).whole()
    record = Record.begin(request.results or config.root / "results", command, f"{kernel}-kunit")
    error: RigError | None = None
    try:
        lab.boot(0, record).close()
    except BootError as failure:
        error = failure
    record.run = lab.describe(record.run)
    recorded = record.directory / "console-0.log"
    console = recorded.read_bytes() if recorded.exists() else b""
    splats = splat.scan(console)
    record.add(kunit_cases(console.decode(errors="replace"), splats, command), splats)
    run = record.finish()
    write_report(record)
    _copy(request, run)
    crashed = any(case.status is Status.CRASH for case in run.cases)
    error = None if crashed else error  # a unit test that takes the kernel down is its verdict
    return Outcome(run, record.directory, exit_code(run, error, None), error)


def _kunit_lab(kernel: str, request: KunitRequest, config: Config, progress: Progress) -> KernelLab:
    """A lab with the kernel, its `kunit` flavour kept apart so that neither rebuilds the other."""
    plain = config.kernel(kernel)
    flavour = replace(plain, name=f"{plain.name}-kunit", configs=(*plain.configs, "kunit"))
    lab = _lab(config, flavour, request.machine, progress)
    wished = [_kunitconfig(request.kunitconfig, lab)] if request.kunitconfig else []
    lab.prepare((), [*wished, _no_faults()])
    return lab


def _no_faults() -> Path:
    """A fragment without KUnit's own tests that oops on purpose: an oops ends our machines."""
    path = open_store().scratch("fragments", "kunit") / "no-faults.config"
    path.write_text("# CONFIG_KUNIT_FAULT_TEST is not set\n")
    return path


def _kunitconfig(name: str, lab: KernelLab) -> Path:
    """A kunitconfig on this host, or in the kernel's tree."""
    places = [Path(name).absolute(), lab.build().tree / name]
    for place in places:
        found = place / ".kunitconfig" if place.is_dir() else place
        if found.is_file():
            return found
    raise UsageError(f"no kunitconfig {name!r} here or in {lab.kernel.tree}")


def kunit_cases(console: str, splats: Sequence[Splat], command: str) -> tuple[Case, ...]:
    """The unit tests of a console: a KUnit suite is a program, a test a case."""
    told = ktap.parse(console)
    cases = []
    for one in told.cases:
        program, _, name = one.name.partition("/")
        cases.append(
            Case(
                "kunit",
                program or "kunit",
                name,
                one.status,
                one.duration_s,
                "" if one.status is Status.PASS else one.directive,
                "\n".join(one.diagnostics),
                command,
            )
        )
    if splats or told.errors:
        cut = any(one.type in ("panic", "bug", "lost-init") for one in splats)
        status = Status.CRASH if cut else Status.FAIL if splats else Status.ERROR
        words = "; ".join([*(one.title for one in splats), *told.errors])
        output = "\n".join(one.text for one in splats)
        cases.append(Case("kunit", "kernel", "", status, 0.0, words, output, command))
    return tuple(cases)


# -- boot ----------------------------------------------------------------------------------------


def boot(
    request: BootRequest,
    config: Config,
    progress: Progress = QUIET,
    say: Callable[[str], object] = sys.stdout.write,
) -> int:
    """Boot, then a shell, or the command with our streams; the exit code of that.

    Everything that goes wrong with the rig itself is raised. `say` gets what a person or a
    program asked to read: the QEMU line, or facts as JSON.
    """
    if request.dry_run and request.gdb:
        raise UsageError(
            "--dry-run starts nothing that a debugger could wait for",
            hint="add `-gdb tcp:127.0.0.1:1234 -S` to the line that --dry-run alone prints",
        )
    lab = _lab(config, config.kernel(), request.machine, progress)
    lab.prepare(())
    if request.dry_run:
        with tempfile.TemporaryDirectory() as nowhere:
            machine = lab.machine(Path(nowhere), append=request.append)
            say(qemu.dry_run(machine.plan, lab.image) + "\n")
        return 0
    directory = fresh(config.root / "results", f"{config.default_kernel}-boot")
    machine = lab.machine(directory, append=request.append, gdb=request.gdb)
    with contextlib.closing(machine):
        _power_on(request, machine, progress)
        progress.close()
        try:
            with machine.connect() as session:
                return _in_guest(request, machine, session, say)
        except ConnectionLost as error:
            raise _explained(machine, error) from error


def _power_on(request: BootRequest, machine: QemuMachine, progress: Progress) -> None:
    for notice in machine.notices:
        progress.note(f"notice: {notice}")
    if request.gdb:
        # No progress but what was asked for: nothing happens until somebody has read it.
        sys.stderr.write(f"waiting for a debugger: {machine.attach}\n")
    progress.stage("boot")
    machine.boot()


def _in_guest(
    request: BootRequest, machine: QemuMachine, session: Session, say: Callable[[str], object]
) -> int:
    """The shell, or the command; with json its output is part of the one object on stdout.

    Splats are told on stderr; the exit code stays that of the command.
    """
    if request.json:
        return _as_json(request, machine, session, say)
    if request.argv is None:
        code = session.interactive()
        _tell(machine, machine.console.splats())
        return code
    streams = sys.stdin.buffer, sys.stdout.buffer, sys.stderr.buffer
    code = session.stream(request.argv, *streams)
    _tell(machine, _last_look(machine, session))
    return code


def _tell(machine: QemuMachine, splats: Sequence[Splat]) -> None:
    for one in splats:
        sys.stderr.write(f"splat: {one.title} (console {machine.console.path})\n")


def _last_look(machine: QemuMachine, session: Session) -> Sequence[Splat]:
    """The splats since power-on, once a mark has proved that the console told all of them.

    Raises CrashError when the kernel crashed after the command.
    """
    try:
        return Guest(machine, session).farewell()
    except ConnectionLost as error:
        explained = _explained(machine, error)
        if isinstance(explained, CrashError):
            raise explained from error
        words = str(error)
    except (SessionTimeout, TimeoutError, EOFError) as error:
        words = str(error)
    sys.stderr.write(f"rig: splats may be missing after the command: {words}\n")
    return machine.console.splats()


def _as_json(
    request: BootRequest, machine: QemuMachine, session: Session, say: Callable[[str], object]
) -> int:
    value: dict[str, object] = {"machine": machine.facts, "notices": machine.notices}
    code, output, errors = 0, io.BytesIO(), io.BytesIO()
    if request.argv is not None:
        code = session.stream(request.argv, sys.stdin.buffer, output, errors)
        value["command"] = request.argv
        value["exit_code"] = code
        value["stdout"] = output.getvalue().decode(errors="replace")
        value["stderr"] = errors.getvalue().decode(errors="replace")
    value["console"] = str(machine.console.path)
    value["splats"] = _last_look(machine, session)
    say(to_json(value).decode())
    return code


def _explained(machine: QemuMachine, error: ConnectionLost) -> LostMachineError | CrashError:
    """The lost connection with what the console has to say about it."""
    machine.console.wait_closed(_LAST_WORDS_S * machine.slowdown)
    splats = machine.console.splats()
    if not splats:
        return LostMachineError(error.message, output=machine.console.tail(), hint=error.hint)
    return CrashError(f"the kernel crashed: {splats[0].title}", output=splats[0].text)
