"""The skip gate, caught in the act by real pytest runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from skip_gate import Allowed, Gate, matches, read

from rig.process import run

TESTS = """\
import pytest

@pytest.mark.skip(reason="no such machine")
def test_marked(): pass

def test_called(): pytest.skip("half way")

@pytest.mark.xfail(reason="known")
def test_expected(): assert False

def test_sub(subtests):
    with subtests.test("inner"):
        pytest.skip("inner skip")

def test_good(): pass
"""
ENTRY = '[[skip]]\ntest = "{}"\nreason = "r"\nuntil = "u"\n'


def session(place: Path, tests: dict[str, str], skips: str, *args: str, ci: str = "true") -> str:
    """A whole pytest run in its own directory; what it printed."""
    (place / "ci").mkdir(parents=True)
    (place / "ci/skips.toml").write_text(skips)
    (place / "pytest.ini").write_text("[pytest]\n")
    for name, text in tests.items():
        (place / name).write_text(text)
    words = [sys.executable, "-m", "pytest", "-rA", "-p", "skip_gate", "-p", "no:rig", *args]
    env = {**os.environ, "CI": ci, "PYTHONPATH": str(Path(__file__).parent)}
    env.pop("PYTEST_ADDOPTS", None)
    return run(words, cwd=place, env=env, timeout_s=60, check=False).output


def last(output: str) -> str:
    return output.rstrip().splitlines()[-1]


def test_every_kind_of_unlisted_skip_fails(tmp_path: Path) -> None:
    output = session(tmp_path, {"test_a.py": TESTS}, "")
    assert "skipped" not in last(output)
    assert "xfailed" not in last(output)
    assert "ERROR test_a.py::test_marked" in output  # a mark skips before the test's own call
    assert "FAILED test_a.py::test_called" in output
    assert "FAILED test_a.py::test_expected" in output
    assert "SUBFAILED[inner] test_a.py::test_sub" in output
    assert "skip on CI without an entry in ci/skips.toml" in output
    assert "no such machine" in output
    assert "1 passed" in last(output)


def test_a_file_that_skips_itself_fails(tmp_path: Path) -> None:
    text = 'import pytest\npytest.importorskip("no_such_module")\n'
    output = session(tmp_path, {"test_a.py": text}, "")
    assert "1 error" in last(output)
    assert "without an entry" in output


def test_listed_skips_stay_skips_and_stale_entries_are_named(tmp_path: Path) -> None:
    names = ("test_a.py::test_marked", "test_a.py::test_called", "test_a.py::test_expected")
    more = ("test_a.py::test_sub", "test_a.py::test_good", "test_gone.py::*")
    skips = "".join(ENTRY.format(name) for name in (*names, *more))
    output = session(tmp_path, {"test_a.py": TESTS}, skips)
    assert "failed" not in last(output).replace("xfailed", "")
    assert "2 skipped, 1 xfailed" in last(output)
    stale = output[output.index("stale entries") :]
    assert "test_a.py::test_good: not skipped any more" in stale
    assert "test_gone.py::*: not skipped any more" in stale
    assert "test_marked:" not in stale


def test_a_narrowed_run_calls_nothing_stale_that_it_did_not_run(tmp_path: Path) -> None:
    skips = ENTRY.format("test_a.py::test_marked")
    output = session(tmp_path, {"test_a.py": TESTS}, skips, "-k", "good")
    assert "stale" not in output


def test_a_narrowed_run_names_what_it_did_run(tmp_path: Path) -> None:
    skips = ENTRY.format("test_a.py::test_good")
    output = session(tmp_path, {"test_a.py": TESTS}, skips, "-k", "good")
    assert "test_a.py::test_good: not skipped any more" in output


def test_an_unlisted_expected_failure_is_a_plain_one() -> None:
    report = pytest.TestReport("t.py::a", ("t.py", 1, "a"), {}, "skipped", "it broke", "call")
    report.wasxfail = "known"
    Gate(()).judge(report)
    assert report.failed
    assert not hasattr(report, "wasxfail")  # JUnit would call it an unexpected pass


def test_elsewhere_the_gate_is_open(tmp_path: Path) -> None:
    output = session(tmp_path, {"test_a.py": TESTS}, "not toml at all", ci="")
    assert "2 skipped, 1 xfailed" in last(output)


def test_the_summary_is_the_last_line(tmp_path: Path) -> None:
    output = session(tmp_path, {"test_a.py": TESTS}, ENTRY.format("test_gone.py::*"))
    assert last(output).startswith("=")
    assert " in " in last(output)


@pytest.mark.parametrize(
    "text",
    [
        "skip = 1 1",
        '[[skips]]\ntest = "x"\n',
        '[[skip]]\ntest = "x"\nreason = "r"\n',
        '[[skip]]\ntest = "x"\nreason = ""\nuntil = "u"\n',
        '[[skip]]\ntest = "x"\nreason = "r"\nuntil = "u"\nwhen = "w"\n',
    ],
)
def test_a_mistake_in_the_list_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "skips.toml"
    path.write_text(text)
    with pytest.raises(pytest.UsageError, match=r"skips\.toml"):
        read(path)


def test_the_projects_own_list_is_sound() -> None:
    entries = read(Path(__file__).parent.parent / "ci/skips.toml")
    assert len(set(entries)) == len(entries)


def test_patterns_take_brackets_as_they_are() -> None:
    assert matches("t.py::a[1-x]", "t.py::a[1-x]")
    assert matches("t.py::a[1-x]", "t.py::a*")
    assert not matches("t.py::a1", "t.py::a[1]")
    assert Gate((Allowed("t.py::*", "r", "u"),)).entry("u.py::a") is None
