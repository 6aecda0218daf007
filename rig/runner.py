"""The flow itself, from suites to a verdict; the only module that sees all stages."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rig import config as configuration
from rig import expected, suite
from rig.against import Wish, compared
from rig.board import Board
from rig.budget import AUTO, Budget, budget, parse
from rig.config import Config
from rig.durations import DURATIONS, Durations
from rig.errors import RigError, UsageError
from rig.expected import NOTHING, Expected
from rig.fleet import Fleet
from rig.lab import open_lab
from rig.outcome import Command, Files, Outcome, check_places, copy, exit_code
from rig.progress import QUIET, Progress
from rig.rack import Isolation, Lab, Rack, Racks
from rig.record import Record
from rig.results import Case, Status
from rig.suite import Suite
from rig.supply import Supply
from rig.verdict import NotPassed, worst

INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Request(Files):
    """What `rig boot-and-test` is asked for; the kernel is the config's default one.

    suites: names or paths of rig.toml's suites, empty for all of them unless tests are given.
    tests: further suite directories from anywhere. words: how a person names the kernel on the
    command line, for commands to paste. pytest_args: handed on as they are. cold: machines begin
    from power-on, not from a snapshot. jobs: machines side by side, or rig.budget.AUTO. env: more
    for the environment of every program. timeout_s: for each program, instead of its suite's.
    cases, link: as of a Suite.
    """

    machine: str | None = None
    suites: tuple[str, ...] = ()
    tests: tuple[Path, ...] = ()
    isolation: Isolation = "none"
    jobs: int = 1
    keyword: str = ""
    cold: bool = False
    exit_first: bool = False
    last_failed: bool = False
    env: tuple[tuple[str, str], ...] = ()
    timeout_s: float | None = None
    cases: tuple[tuple[str, str], ...] = ()
    link: tuple[Path, ...] = ()
    pytest_args: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KselftestRequest(Wish):
    """`rig kselftest TARGET...`: directories below tools/testing/selftests of the kernel's tree.

    env, link: as of a Request.
    """

    targets: tuple[str, ...]
    machine: str | None = None
    jobs: int = 1
    keyword: str = ""
    cold: bool = False
    env: tuple[tuple[str, str], ...] = ()
    link: tuple[Path, ...] = ()


# -- boot-and-test ------------------------------------------------------------------------------


def boot_and_test(request: Request, config: Config, progress: Progress = QUIET) -> Outcome:
    """Build, boot, run the suites through pytest, and write the report.

    Raises UsageError when there is nothing to run; every other failure is in the Outcome, with
    what was seen until then.
    """
    check_places(request)
    suites = chosen(request, config)
    command = Command("boot-and-test", config, request.machine, request.words, suites)
    # What cannot be is refused before a build.
    budget(config.machine(request.machine), request.jobs)
    board = Board(progress)
    known = expected.load(config.root, config.default_kernel)
    lab = open_lab(config, config.kernel(), request.machine, board, cold=request.cold)
    return drive(request, config, lab, command, board, known)


def chosen(request: Request, config: Config) -> tuple[Suite, ...]:
    """The suites asked for, by name or path, and of --tests; UsageError if none.

    The name is that of a suite in rig.toml, or of one that lies beside those.
    """
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
    beside = sorted({Path(one).parent for one in config.suites})
    for place in (config.root / parent / name for parent in (Path(), *beside)):
        if (place / "Makefile").is_file():
            return suite.discover(place)
    raise UsageError(f"no suite {name!r}", hint=configuration.nearest(name, sorted(known)))


def drive(
    request: Request,
    config: Config,
    lab: Lab,
    command: Command,
    progress: Progress = QUIET,
    known: Expected = NOTHING,
) -> Outcome:
    """Run the command's suites as pytest items in this process; the report is written after.

    progress: a Board where several machines are to be seen at work. known: what may go wrong.
    """
    board = progress if isinstance(progress, Board) else Board(progress)
    driver = _Driver(lambda: _asked(request, config, lab, command, board, known), board)
    arguments = _pytest_arguments(request, config, command.suites)
    code = pytest.main(arguments, plugins=[driver])
    if driver.mistake:
        raise driver.mistake
    if driver.refused:
        raise UsageError(driver.refused)
    if driver.racks is None:
        if driver.interrupted:
            raise KeyboardInterrupt
        raise UsageError(_not_started(code, arguments))
    return _conclude(request, driver.racks, driver)


def _asked(
    request: Request, config: Config, lab: Lab, command: Command, board: Board, known: Expected
) -> Racks:
    """Racks with a fresh record; made when it is sure that something will run."""
    jobs = str(request.jobs) if request.jobs != AUTO else "auto"
    words = [
        *(["-n", jobs] if request.jobs != 1 else []),
        *(["--isolation", request.isolation] if request.isolation != "none" else []),
        *(["-k", request.keyword] if request.keyword else []),
    ]
    results = request.results or config.root / "results"
    record = Record.begin(results, command.whole(*words), config.default_kernel)
    machine, ahead = config.machine(request.machine), request.isolation != "none"
    allowed = budget(machine, request.jobs, ahead=ahead)
    return _racks(lab, record, allowed, request.isolation, command, board, known)


def _racks(
    lab: Lab,
    record: Record,
    allowed: Budget,
    isolation: Isolation,
    command: Command,
    board: Board,
    known: Expected,
) -> Racks:
    """One rack, or a fleet of them."""
    for notice in (*allowed.notices, *known.expired):
        record.notice(notice)
    supply = Supply(
        lab,
        record,
        boots_at_once=allowed.boots_at_once,
        spares=allowed.spares,
        load=allowed.load,
    )
    durations = Durations(record.directory.parent / DURATIONS)
    again = command.program
    if allowed.machines == 1:
        return Rack(
            lab,
            record,
            isolation=isolation,
            reproduce=again,
            supply=supply,
            durations=durations,
            expected=known,
        )
    return Fleet(
        lab,
        record,
        machines=allowed.machines,
        isolation=isolation,
        reproduce=again,
        supply=supply,
        durations=durations,
        board=board,
        expected=known,
    )


def _not_started(code: int, arguments: Sequence[str]) -> str:
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        return "no program was selected; -k, --lf or a suite's Makefile left nothing to run"
    return f"pytest ended with exit code {int(code)}; its words: {shlex.join(arguments)}"


def _pytest_arguments(request: Request, config: Config, suites: Sequence[Suite]) -> list[str]:
    """No ini file, no terminal output, nothing captured: the rig's own lines are what is seen. And
    no plugin that happens to be installed: it may know nothing of items that are no functions.
    """
    chosen = [
        *(["-k", request.keyword] if request.keyword else []),
        *(["-x"] if request.exit_first else []),
        *(["--lf"] if request.last_failed else []),
        *(word for name, value in request.env for word in ("--rig-env", f"{name}={value}")),
        *(word for path in request.link for word in ("--rig-link", str(path))),
        *(word for case in request.cases for word in ("--rig-case", "::".join(case))),
        *(["--rig-timeout", str(request.timeout_s)] if request.timeout_s else []),
    ]
    return [
        "-c", os.devnull, "--rootdir", str(config.root), "-s",
        "--disable-plugin-autoload", "-p", "rig.pytest_plugin",
        "-o", f"cache_dir={config.root / '.pytest_cache'}",
        "--rig-toml", str(config.root / configuration.FILE_NAME),
        *chosen, *request.pytest_args, *(str(one.directory) for one in suites),
    ]  # fmt: skip


class _Driver:
    """A pytest plugin that lends pytest our racks and turns verdicts into progress lines."""

    def __init__(self, make_racks: Callable[[], Racks], progress: Progress) -> None:
        self.error: RigError | None = None
        self.interrupted = False
        self.mistake: BaseException | None = None
        self.refused = ""
        self.racks: Racks | None = None
        self._make_racks, self._progress = make_racks, progress

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.pluginmanager.unregister(name="terminalreporter")

    def pytest_rig_rack(self) -> Racks:
        self.racks = self._make_racks()
        return self.racks

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


def _conclude(request: Files, racks: Racks, driver: _Driver) -> Outcome:
    """Write what was asked for beside the report; the exit code."""
    run = racks.record.run
    copy(request, run)
    code = INTERRUPTED if driver.interrupted else exit_code(run, driver.error, racks.lost)
    return Outcome(run, racks.record.directory, code, driver.error or racks.lost)


def racks(
    rig_toml: Path,
    *,
    kernel: str | None,
    machine: str | None,
    isolation: Isolation,
    jobs: str,
    results: str | None,
    cold: bool = False,
    progress: Progress = QUIET,
) -> Racks:
    """The racks of a plain `pytest guest-tests`."""
    config = configuration.load(rig_toml.absolute())
    chosen = config.kernel(kernel)
    allowed = budget(config.machine(machine), parse(jobs), ahead=isolation != "none")
    command = Command("boot-and-test", config, machine, (kernel,) if kernel else ())
    place = Path(results) if results else config.root / "results"
    record = Record.begin(place, shlex.join(["pytest", *sys.argv[1:]]), chosen.name)
    board = Board(progress)
    known = expected.load(config.root, chosen.name)
    lab = open_lab(config, chosen, machine, board, cold=cold)
    return _racks(lab, record, allowed, isolation, command, board, known)


# -- kselftest -----------------------------------------------------------------------------------


def kselftest(request: KselftestRequest, config: Config, progress: Progress = QUIET) -> Outcome:
    """The kernel tree's own selftests; with `against`, only what BASE does not show as well."""
    check_places(request)
    return compared(request, lambda name, wish: _kselftest_on(name, wish, config, progress), config)


def _kselftest_on(
    kernel: str, request: KselftestRequest, config: Config, progress: Progress
) -> Outcome:
    config = replace(config, default_kernel=config.kernel(kernel).name)
    budget(config.machine(request.machine), request.jobs)
    board = Board(progress)
    lab = open_lab(config, config.kernel(), request.machine, board, cold=request.cold)
    # The targets lie in the patched tree, and building is what makes that.
    selftests = lab.build().tree / suite.SELFTESTS
    suites = suite.distinct([selftest(selftests, name) for name in request.targets])
    words = (
        *("--kernel", kernel, *(("--cold",) if request.cold else ())),
        *(word for name, value in request.env for word in ("--env", f"{name}={value}")),
        *(word for path in request.link for word in ("--link", str(path))),
    )
    command = Command("kselftest", config, request.machine, words, suites)
    driven = Request(
        machine=request.machine,
        jobs=request.jobs,
        keyword=request.keyword,
        cold=request.cold,
        env=request.env,
        link=request.link,
        results=request.results,
        junit=request.junit,
        json=request.json,
    )
    return drive(driven, config, lab, command, board, expected.load(config.root, kernel))


def selftest(selftests: Path, name: str) -> Suite:
    """A target of the tree's; UsageError where there is none of that name."""
    if not (selftests / name / "Makefile").is_file():
        known = sorted(path.parent.name for path in selftests.glob("*/Makefile"))
        raise UsageError(
            f"no selftest target {name!r} in {selftests}", hint=configuration.nearest(name, known)
        )
    return suite.discover(selftests / name)
