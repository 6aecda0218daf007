"""bench.toml: what is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig import benchset
from rig.benchset import ExactEntry, TimedEntry
from rig.errors import UsageError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / benchset.DIRECTORY
    directory.mkdir(parents=True)
    (directory / "a.c").touch()
    return tmp_path


def write(root: Path, text: str) -> None:
    (root / benchset.DIRECTORY / benchset.FILE_NAME).write_text(text)


def test_the_projects_own() -> None:
    found = benchset.load(ROOT)
    assert len(found.exact) > 15
    assert len(found.timed) > 10
    assert found.machine


def test_what_is_read(root: Path) -> None:
    write(
        root,
        'machine = "m"\n[[exact]]\nrun = "a.c exact \'x y\'"\next4 = true\n'
        '[[timed]]\nrun = "a.c timed"\ncpus = [1, 2]\n',
    )
    found = benchset.load(root)
    assert found.machine == "m"
    assert found.exact == (ExactEntry("a.c exact 'x y'", ext4=True),)
    assert found.exact[0].words == ("a.c", "exact", "x y")
    assert found.timed == (TimedEntry("a.c timed", cpus=(1, 2)),)
    assert benchset.chosen(found.exact, "x y") == found.exact
    assert benchset.chosen(found.exact, "z") == ()
    assert benchset.chosen(found.exact, "z|x y") == found.exact


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "not valid TOML"),
        ("exakt = 1", "unknown key 'exakt' in the top level"),
        ('[[exact]]\nrun = "b.c"', "no such program"),
        ('[[exact]]\nrun = ""', "no such program"),
        ('[[exact]]\nrun = "a.c"\ncpu = 1', r"unknown key 'cpu' in \[\[exact\]\]"),
        ('[[exact]]\nrun = "a.c"\ncpus = "1"', "Expected `int`"),
        ("exact = [1]", "must be a table"),
        ("[[timed]]\ncpus = [1]", "missing required field `run`"),
    ],
)
def test_what_is_wrong_is_said(root: Path, text: str, words: str) -> None:
    write(root, text)
    with pytest.raises(UsageError, match=words):
        benchset.load(root)


def test_no_set(root: Path) -> None:
    with pytest.raises(UsageError, match=r"bench\.toml: No such file"):
        benchset.load(root)
