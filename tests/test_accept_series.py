"""What was caught before is kept, as long as nothing has changed that could matter."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "ci"))

accept_series = importlib.import_module("accept_series")
Kept = accept_series.Kept


class Clone:
    """The checkout that is measured."""

    def __init__(self, path: Path) -> None:
        self.clone = path
        (path / "rig").mkdir(parents=True)
        self.git("init", "-q")
        self.change("rig/a.py", "1")

    def git(self, *words: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@t")
        done = subprocess.run(
            ["git", *identity, *words], cwd=self.clone, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def change(self, name: str, text: str) -> None:
        (self.clone / name).write_text(text)
        self.git("add", ".")
        self.git("commit", "-qm", text)

    @property
    def commit(self) -> str:
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    (tmp_path / "ci/acceptance").mkdir(parents=True)
    monkeypatch.setattr(accept_series, "ROOT", tmp_path)
    return Clone(tmp_path / "clone")


def test_a_mutant_that_was_caught_is_kept(clone: Clone) -> None:
    Kept.read(clone).add("one", "hash")
    clone.change("README.md", "nothing of it")
    kept = Kept.read(clone)
    assert kept.holds("one", "hash")
    assert not kept.holds("one", "another patch")
    assert not kept.holds("two", "hash")


def test_a_change_voids_it_but_for_a_reason(clone: Clone, tmp_path: Path) -> None:
    Kept.read(clone).add("one", "hash")
    clone.change("rig/a.py", "2")
    assert not Kept.read(clone).holds("one", "hash")
    path = tmp_path / accept_series.KEPT
    value = json.loads(path.read_text())
    value["although"] = {"rig/a.py": {"why": "words", "commit": clone.commit}}
    path.write_text(json.dumps(value))
    assert Kept.read(clone).holds("one", "hash")
    clone.change("rig/a.py", "3")  # what came after the reason
    assert not Kept.read(clone).holds("one", "hash")


def test_a_commit_that_git_does_not_know_voids_it(clone: Clone, tmp_path: Path) -> None:
    value = {"caught": {"one": {"patch": "hash", "commit": "0" * 40}}}
    (tmp_path / accept_series.KEPT).write_text(json.dumps(value))
    assert not Kept.read(clone).holds("one", "hash")
