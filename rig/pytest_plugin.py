"""Guest suites as pytest items: a program is an item, every KTAP case of it a subtest.

Loaded in every pytest run of the environment, so nothing heavy is imported before a suite is met.
It acts on kselftest-shaped directories only, only when they (or the directory they lie in) are
named on the command line, and only where a rig.toml is found above them or given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from _pytest._code.code import TerminalRepr
    from _pytest.terminal import TerminalReporter

    from rig.errors import RigError
    from rig.rack import Judged, Order, Racks
    from rig.results import Case
    from rig.suite import Program, Suite

_RIG_TOML = "rig.toml"


class Hooks:
    """The hooks the plugin offers."""

    @pytest.hookspec(firstresult=True)
    def pytest_rig_rack(self, config: pytest.Config) -> Racks | None:
        """What runs the programs in guests; asked once, when the first one is to run."""

    def pytest_rig_verdict(self, name: str, cases: tuple[Case, ...], duration_s: float) -> None:
        """A program (name is suite/program) ended; duration_s: wall seconds, boots included.

        With several machines also one that was run ahead and that pytest never came to.
        """

    def pytest_rig_abort(self, error: RigError) -> None:
        """Nothing more can run; the session ends after this."""


class _State:
    """What the plugin knows in one session."""

    def __init__(self) -> None:
        self.rack: Racks | None = None
        self.left: dict[str, ProgramItem] = {}
        self.error: RigError | None = None
        self.last_words: tuple[Case, ...] = ()


_STATE: pytest.StashKey[_State] = pytest.StashKey()


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rig", "kernel test rig: guest suites in a booted machine")
    group.addoption("--rig-toml", metavar="PATH", help="the rig.toml to use, for suites anywhere")
    group.addoption("--rig-kernel", metavar="NAME", help="[kernel.NAME] of rig.toml")
    group.addoption("--rig-machine", metavar="NAME", help="[machine.NAME] of rig.toml")
    group.addoption(
        "--rig-isolation",
        choices=("none", "suite", "program"),
        default="none",
        help="what gets a machine of its own",
    )
    group.addoption("--rig-cold", action="store_true", help="boot from power-on, not a snapshot")
    group.addoption("--rig-jobs", metavar="N", default="1", help="N machines side by side, or auto")
    group.addoption(
        "--rig-env",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="in the environment of every program",
    )
    group.addoption(
        "--rig-case",
        metavar="[SUITE/]PROGRAM[::CASE]",
        action="append",
        default=[],
        help="only this program, and this case of it",
    )
    group.addoption(
        "--rig-link",
        metavar="OBJECT",
        action="append",
        default=[],
        help="linked into each compiled program",
    )
    group.addoption("--rig-timeout", metavar="S", type=float, help="for each program")
    group.addoption("--rig-results", metavar="DIR", help="where results/<run id>/ are kept")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STATE] = _State()


# -- collecting --------------------------------------------------------------------------------


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if not (path / "Makefile").is_file() or not _asked_for(path, parent.config):
        return None
    from rig.suite import is_suite

    if not is_suite(path):
        return None
    return SuiteDirectory.from_parent(parent, path=path)


def _asked_for(path: Path, config: pytest.Config) -> bool:
    """Whether a directory, or the one it lies in, is an argument, and a rig.toml is in reach."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return False
    start = config.invocation_params.dir
    named = {(start / argument.partition("::")[0]).resolve() for argument in config.args}
    place = path.resolve()
    # A directory in it is a suite of its own (filesystems/epoll of the kernel's), or nothing.
    files = (one for one in place.iterdir() if one.is_file())
    if not named & {place, place.parent, *files}:
        return False
    return bool(config.getoption("--rig-toml")) or find_rig_toml(place) is not None


def find_rig_toml(start: Path) -> Path | None:
    """The nearest rig.toml at or above a directory."""
    places = (parent / _RIG_TOML for parent in (start, *start.parents))
    return next((place for place in places if place.is_file()), None)


class SuiteDirectory(pytest.Directory):
    """A suite; only its Makefile speaks for it, so a test_x.py in it stays a guest program."""

    def collect(self) -> Iterable[pytest.Collector]:
        yield SuiteMakefile.from_parent(self, path=self.path / "Makefile")


class SuiteMakefile(pytest.File):
    """The Makefile of a suite, which names its programs."""

    def collect(self) -> Iterator[ProgramItem]:
        from rig import suite
        from rig.errors import RigError

        try:
            found = _as_asked(suite.discover(self.path.parent), self.config)
            programs = suite.programs(found)
        except RigError as error:
            raise self.CollectError(_words(error)) from error
        for program in programs:
            yield ProgramItem.from_parent(self, name=program.name, suite=found, program=program)


def _as_asked(suite: Suite, config: pytest.Config) -> Suite:
    """A suite with what the command line says of its programs."""
    settings = (setting.partition("=") for setting in config.getoption("--rig-env"))
    env = tuple((name, value) for name, _, value in settings)
    asked_s = config.getoption("--rig-timeout")
    timeout_s = asked_s or suite.timeout_s
    # Who gives a program an hour may mean that for a single case of it.
    case_timeout_s = 0.0 if asked_s else suite.case_timeout_s
    cases = (case.partition("::") for case in config.getoption("--rig-case"))
    only = tuple((program, case) for program, _, case in cases)
    link = tuple(Path(name) for name in config.getoption("--rig-link"))
    return replace(
        suite,
        env=env,
        timeout_s=timeout_s,
        case_timeout_s=case_timeout_s,
        cases=only,
        link=link,
    )


class ProgramItem(pytest.Item):
    """One guest program.

    fixturenames: none. Plugins of others look at it as if each item was a function (labgrid's).
    """

    fixturenames: tuple[str, ...] = ()

    def __init__(self, *, suite: Suite, program: Program, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.suite = suite
        self.program = program
        self.extra_keyword_matches.add(suite.name)

    @property
    def order(self) -> Order:
        """What is asked of the racks."""
        from rig.rack import Order

        return Order(self.suite, self.program)

    def rename(self, suite: Suite) -> None:
        """Take the suite under the name that is its own among those of this session."""
        self.suite = suite
        self.program = replace(self.program, suite=suite.name)

    def runtest(self) -> None:
        from rig.errors import RigError

        state = self.config.stash[_STATE]
        rack = state.rack
        assert rack is not None
        try:
            judged = rack.run(self.order)
        except RigError as error:
            _abort(self.config, error)
        except BaseException as error:
            rack.refuse(self.order, f"the rig was stopped ({error!r})")
            raise
        state.left.pop(self.nodeid, None)
        _tell(self.config, self.order, judged)
        self._conclude(judged.cases)

    def _conclude(self, cases: tuple[Case, ...]) -> None:
        """Report each case as a subtest, and end as the whole program did."""
        from rig.results import Status
        from rig.verdict import NotPassed, worst

        own = [case for case in cases if not case.name and case.program == self.program.name]
        for case in cases:
            if case not in own:
                _report(self, case)
        bad = [case for case in cases if not case.status.good]
        if bad:
            raise NotPassed(own or bad, len(cases))
        if worst(cases) is Status.SKIP:
            pytest.skip(cases[0].message or "every case was skipped")

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None
    ) -> str | TerminalRepr:
        from rig.verdict import NotPassed

        if isinstance(excinfo.value, NotPassed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.suite.name}/{self.program.name}"


def _tell(config: pytest.Config, order: Order, judged: Judged) -> None:
    config.hook.pytest_rig_verdict(
        name=order.name, cases=judged.cases, duration_s=judged.duration_s
    )


def _report(item: ProgramItem, case: Case) -> None:
    """Tell pytest of one case, the way its own `subtests` fixture does."""
    from _pytest.subtests import SubtestContext, SubtestReport

    call = pytest.CallInfo.from_call(lambda: _end_as(case), when="call")
    call.duration = case.duration_s
    report = item.ihook.pytest_runtest_makereport(item=item, call=call)
    own = case.suite == item.suite.name and case.program == item.program.name
    context = SubtestContext(msg=case.name if own else case.id, kwargs={})
    item.ihook.pytest_runtest_logreport(
        report=SubtestReport._new(report, context, captured_output=None, captured_logs=None)
    )


def _end_as(case: Case) -> None:
    from rig.results import Status
    from rig.verdict import NotPassed

    if case.status is Status.SKIP:
        pytest.skip(case.message)
    if not case.status.good:
        raise NotPassed([case], 1)


# -- running -----------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give suites of equal base names, known only now, names that tell them apart."""
    ours = [item for item in items if isinstance(item, ProgramItem)]
    if not ours:
        return
    from rig.suite import distinct

    named = {suite.directory: suite for suite in distinct([item.suite for item in ours])}
    for item in ours:
        item.rename(named[item.suite.directory])


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Build everything the programs need, once, before the first one runs."""
    ours = [item for item in session.items if isinstance(item, ProgramItem)]
    failed = session.testsfailed and not session.config.option.continue_on_collection_errors
    if not ours or session.config.option.collectonly or failed:
        return
    from rig.errors import RigError

    state = session.config.stash[_STATE]
    state.left = {item.nodeid: item for item in ours}
    try:
        with _uncaptured(session.config):
            rack = state.rack = session.config.hook.pytest_rig_rack(config=session.config)
            rack.prepare(list({item.suite.directory: item.suite for item in ours}.values()))
            orders = [item.order for item in ours]
            rack.expect(orders, max_failures=session.config.getoption("maxfail"))
    except RigError as error:
        _abort(session.config, error)


@pytest.hookimpl(trylast=True)
def pytest_rig_rack(config: pytest.Config) -> Racks:
    """The real thing: the kernel, image and machine that rig.toml and the options name."""
    from rig import runner

    given = config.getoption("--rig-toml")
    first = next(iter(config.stash[_STATE].left.values()))
    place = Path(given) if given else find_rig_toml(first.suite.directory)
    assert place is not None  # or the suite would not have been collected
    return runner.racks(
        place,
        kernel=config.getoption("--rig-kernel"),
        machine=config.getoption("--rig-machine"),
        isolation=config.getoption("--rig-isolation"),
        jobs=config.getoption("--rig-jobs"),
        results=config.getoption("--rig-results"),
        cold=config.getoption("--rig-cold"),
        progress=_Lines(config),
    )


class _Lines:
    """Progress as lines of pytest's own terminal output."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._reporter = config.pluginmanager.get_plugin("terminalreporter")

    def stage(self, title: str, total: int | None = None) -> None:
        self.note(f"rig: {title} ...")

    def step(self, text: str, done: int | None = None) -> None:
        """Not shown: pytest's output is lines."""

    def note(self, text: str) -> None:
        if self._reporter:
            with _uncaptured(self._config):
                self._reporter.ensure_newline()
                self._reporter.write_line(text)

    def close(self) -> None:
        """pytest goes on printing."""


def _uncaptured(config: pytest.Config) -> AbstractContextManager[None]:
    """Progress of the build is for the terminal, not for a test's captured output."""
    capture = config.pluginmanager.get_plugin("capturemanager")
    return capture.global_and_fixture_disabled() if capture else nullcontext()


def _abort(config: pytest.Config, error: RigError) -> NoReturn:
    """End the session: nothing after this can run. What is left is put on record as not run."""
    config.stash[_STATE].error = error
    config.hook.pytest_rig_abort(error=error)
    pytest.exit(_words(error), returncode=error.exit_code)


def _words(error: RigError) -> str:
    again = f"again: {error.reproduce}" if error.reproduce else ""
    return "\n".join(part for part in (error.message, error.output, error.hint, again) if part)


# -- ending ------------------------------------------------------------------------------------


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the guest, put on record what could not be run, and write the report."""
    state = session.config.stash[_STATE]
    if state.rack is None:
        return
    from rig import report, results
    from rig.errors import RigError

    rack = state.rack
    # A UsageError's exit code is the one that pytest gives an interrupted session.
    interrupted = session.exitstatus == pytest.ExitCode.INTERRUPTED and state.error is None
    try:
        state.last_words = rack.close(hurry=interrupted)
    except RigError as error:  # a board that does not come back
        session.exitstatus = error.exit_code
        state.error = state.error or error
        # No file of this run is to say that all was well.
        words = error.message
        lost = results.Case("machine", "after its end", "", results.Status.ERROR, message=words)
        rack.record.add([lost])
        session.config.hook.pytest_rig_abort(error=error)
        if reporter := session.config.pluginmanager.get_plugin("terminalreporter"):
            reporter.write_line(_words(error))
    for order, judged in rack.unasked():
        _tell(session.config, order, judged)
    if state.error:
        output = state.error.output
        for item in state.left.values():
            rack.refuse(item.order, state.error.message, output)
            output = ""  # once is enough
    if not interrupted:
        rack.record.finish()
    report.write(rack.record.run, rack.record.directory)
    if session.exitstatus == pytest.ExitCode.OK and rack.record.run.exit_code:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    state = config.stash[_STATE]
    if state.rack is None:
        return
    run, directory = state.rack.record.run, state.rack.record.directory
    terminalreporter.section("rig")
    for case in state.last_words:
        terminalreporter.line(f"{case.status.upper()} {case.id}: {case.message}", red=True)
    if run.cases and all(case.status == "skip" for case in run.cases):
        terminalreporter.line("nothing passed: skips alone prove nothing", red=True)
    for notice in run.notices:
        terminalreporter.line(f"note: {notice}")
    terminalreporter.line(f"results: {directory}")
