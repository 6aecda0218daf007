"""A baseline says what was accepted, why, and for which kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig import baseline
from rig.errors import InfrastructureError, UsageError
from rig.rows import Row

ROOT = Path(__file__).parents[1]
ROWS = {"b": Row("b", 7, "bytes"), "a": Row("a", 5, "instructions")}
WHO = {"release": "6.12", "compiler": "gcc 12"}


def test_what_was_accepted_is_read_again(tmp_path: Path) -> None:
    path = baseline.place(tmp_path, "async", WHO)
    assert baseline.load(path) is None
    baseline.save(path, "async", WHO, ROWS, {"why": "first", "commit": "1"})
    baseline.save(path, "async", WHO, {"a": ROWS["a"]}, {"why": "less", "commit": "2"})
    found = baseline.load(path)
    assert found
    assert [one["why"] for one in found.reasons] == ["first", "less"]
    assert found.as_rows() == {"a": Row("a", 5, "instructions")}
    assert baseline.foreign(found, WHO) == []


def test_each_version_configuration_and_compiler_has_one_of_its_own(tmp_path: Path) -> None:
    debian = "gcc (Debian 12.2.0-14+deb12u1) 12.2.0"
    who = {"release": "6.12.117", "config": "c9f1d3de2f6cce07", "compiler": debian}
    path = baseline.place(tmp_path, "async", who)
    assert path.name == "exact-async-6.12.117-c9f1d3de-gcc-12.2.0.json"
    newer = {**who, "compiler": "clang version 19.1.0"}
    other = baseline.place(tmp_path, "async", newer)
    assert other.name == "exact-async-6.12.117-c9f1d3de-clang-19.1.0.json"
    for where, whose, kernel in (
        (path, who, "async"), (other, newer, "async"), (tmp_path / "x.json", who, "async"),
        (baseline.place(tmp_path, "async-6", who), who, "async-6"),
    ):  # fmt: skip
        baseline.save(where, kernel, whose, ROWS, {"why": "first"})
    assert sorted(baseline.every(tmp_path, "async")) == sorted([path, other])
    assert baseline.every(tmp_path, "plain") == {}


def test_those_of_the_project_are_where_they_are_looked_for() -> None:
    found = [path for path in (ROOT / baseline.DIRECTORY).glob("*.json") if baseline.load(path)]
    assert found
    for path in found:
        known = baseline.load(path)
        assert known
        assert path == baseline.place(ROOT, known.kernel, known.identity)


def test_another_kernel_is_another_baseline(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    baseline.save(path, "async", WHO, ROWS, {"why": "first"})
    found = baseline.load(path)
    assert found
    other = {**WHO, "compiler": "gcc 13"}
    assert baseline.foreign(found, other) == ["compiler was gcc 12, is gcc 13"]
    assert baseline.foreign(found, {"compiler": "gcc 12"}) == ["release was 6.12, is nothing"]


def test_nothing_is_accepted_without_a_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="for a reason"):
        baseline.save(tmp_path / "x.json", "async", WHO, ROWS, {"why": " "})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 9}', "[]"])
def test_what_is_no_baseline(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InfrastructureError, match=r"x\.json: not a baseline"):
        baseline.load(path)


def test_a_baseline_of_another_time(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    baseline.save(path, "async", WHO, ROWS, {"why": "first"})
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(InfrastructureError, match="schema 2, this rig reads 1"):
        baseline.load(path)
