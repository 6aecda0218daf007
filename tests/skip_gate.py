"""On CI only the skips that ci/skips.toml lists are allowed; any other skip or xfail is a failure.

A pytest plugin, loaded by tests/conftest.py. CI is CI=true in the environment, as in .ci/run;
elsewhere the plugin does nothing. An entry that no test uses any more is reported.
"""

from __future__ import annotations

import fnmatch
import os
import tomllib
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

FILE = "ci/skips.toml"
_KEYS = {"test", "reason", "until"}
_AnyReport = pytest.TestReport | pytest.CollectReport


@dataclass(frozen=True)
class Allowed:
    """One [[skip]] entry: a pattern of test ids, why, and what has to happen for it to go."""

    test: str
    reason: str
    until: str


@dataclass
class Gate:
    """The state of one pytest session."""

    allowed: tuple[Allowed, ...]
    used: set[Allowed] = field(default_factory=set)
    ran: set[str] = field(default_factory=set)

    def entry(self, nodeid: str) -> Allowed | None:
        """The first entry whose pattern fits this test."""
        fitting = (a for a in self.allowed if matches(nodeid, a.test))
        return next(fitting, None)

    def judge(self, report: _AnyReport) -> None:
        """Turn a skip that no entry allows into a failure, in the report itself."""
        if not report.skipped:
            return
        if entry := self.entry(report.nodeid):
            self.used.add(entry)
            return
        why = "expected failure" if hasattr(report, "wasxfail") else "skip"
        if hasattr(report, "wasxfail"):
            del report.wasxfail
        report.outcome = "failed"
        report.longrepr = f"{why} on CI without an entry in {FILE}: {_reason(report)}"

    def stale(self, *, whole: bool) -> list[Allowed]:
        """Entries no test used: theirs ran, or, after a whole run, there is none of that name."""
        unused = [entry for entry in self.allowed if entry not in self.used]
        return [e for e in unused if whole or any(matches(i, e.test) for i in self.ran)]


def matches(nodeid: str, pattern: str) -> bool:
    """True when the id fits; * stands for anything, and brackets mean themselves."""
    return fnmatch.fnmatchcase(nodeid, pattern.replace("[", "[[]"))


def read(path: Path) -> tuple[Allowed, ...]:
    """The entries of skips.toml; pytest.UsageError naming the mistake."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise pytest.UsageError(f"{path}: {error}") from error
    if extra := set(data) - {"skip"}:
        raise pytest.UsageError(f"{path}: unknown {', '.join(sorted(extra))}; only [[skip]]")
    for entry in data.get("skip", []):
        if set(entry) != _KEYS or not all(isinstance(v, str) and v for v in entry.values()):
            raise pytest.UsageError(f"{path}: {entry}: needs exactly {', '.join(sorted(_KEYS))}")
    return tuple(Allowed(**entry) for entry in data.get("skip", []))


def _reason(report: _AnyReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    return str(report.longrepr)


_GATE: pytest.StashKey[Gate] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Read the list where the gate stands."""
    if os.environ.get("CI") == "true":
        config.stash[_GATE] = Gate(read(config.rootpath / FILE))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Judge a test, and every subtest (they come through here as well)."""
    report = yield
    if gate := item.config.stash.get(_GATE, None):
        gate.judge(report)
        if report.when == "call" and not report.skipped:
            gate.ran.add(report.nodeid)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Judge a file that skips itself while it is collected."""
    report = yield
    if gate := collector.config.stash.get(_GATE, None):
        gate.judge(report)
    return report


def _whole(config: pytest.Config) -> bool:
    """True when nothing on the command line narrowed the run down."""
    option = config.option
    narrowed = option.keyword or option.markexpr or getattr(option, "lf", False) or option.maxfail
    return config.args_source is not pytest.Config.ArgsSource.ARGS and not narrowed


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the entries that nothing uses any more."""
    config = terminalreporter.config
    if not (gate := config.stash.get(_GATE, None)):
        return
    if stale := gate.stale(whole=_whole(config)):
        terminalreporter.section(f"stale entries in {FILE}", sep="-")
        for entry in stale:
            terminalreporter.line(f"{entry.test}: not skipped any more, take it out")
