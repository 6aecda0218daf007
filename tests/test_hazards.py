"""ci/hazards.py: the table of docs/hazards.md, which says what would see which hazard."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
from guest_sources import source

from rig import mutants

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "ci"))
HAZARDS = importlib.import_module("hazards")

HEAD = "| row | tests | gaps |\n| --- | --- | --- |\n"


def test_a_row_names_cases_of_programs() -> None:
    (row,) = HAZARDS.read(f"# Words\n\n{HEAD}| forks | fork: one, two; slow/exit: * | |\n\nwords\n")
    assert (row.name, [str(case) for case in row.cases]) == (
        "forks",
        ["abi/fork::one", "abi/fork::two", "slow/exit::*"],
    )


def test_a_row_may_have_no_test() -> None:
    (row,) = HAZARDS.read(f"{HEAD}| stacks | - | |\n")
    assert row.cases == ()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("| forks | fork: one |", "line 3: 2 columns, not 3"),
        ("| forks | fork one | |", "line 3: 'fork one' is not 'program: case, case'"),
        ("| forks | fork: one, ; exit: * | |", "line 3: 'fork: one,' is not"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        HAZARDS.read(HEAD + line)


@pytest.mark.parametrize(
    ("case", "found"),
    [("one", True), ("o*", True), ("*", True), ("two", False), ("ne", False), ("main", False)],
)
def test_a_case_is_found_in_any_variant_of_its_fixture(case: str, *, found: bool) -> None:
    cases = {"abi/fork::thread.main.one", "abi/exit::two", "slow/fork::two"}
    assert HAZARDS.Named("abi", "fork", case).among(cases) is found


def test_every_case_in_the_table_is_there() -> None:
    rows = HAZARDS.read((ROOT / "docs/hazards.md").read_text())
    assert len(rows) > 20
    for case in (case for row in rows for case in row.cases):
        text = source(case.suite, case.program)
        name = re.escape(case.case.rpartition("/")[2])
        assert case.case == "*" or re.search(rf"\b{name}\b", text), f"{case} is not there"


def test_a_mutant_is_caught_by_a_case_of_its_row() -> None:
    rows = {row.name: row for row in HAZARDS.read((ROOT / "docs/hazards.md").read_text())}
    known = mutants.read(ROOT / "tests/mutants")
    assert len(known) > 80
    for mutant in known:
        suite, program, case = mutant.catcher
        cases = rows[mutant.hazard].cases
        named = [one for one in cases if (one.suite, one.program) == (suite, program)]
        own = [f"{suite}/{program}::{case}"]
        assert any(one.among(own) or not case for one in named), mutant.name
