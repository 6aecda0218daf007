"""The table of docs/hazards.md: which cases of guest-tests are named to see which hazard."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection
from dataclasses import dataclass

COLUMNS = 3
NONE = "-"
SUITE = "abi"
"""That of a program that is named without one."""


@dataclass(frozen=True)
class Named:
    """A case of a program, or all that a pattern matches."""

    suite: str
    program: str
    case: str

    def __str__(self) -> str:
        return f"{self.suite}/{self.program}::{self.case}"

    def among(self, cases: Collection[str]) -> bool:
        """Whether one of the cases, "suite/program::fixture.variant.case", is it."""
        program = f"{self.suite}/{self.program}::"
        return bool(
            fnmatch.filter(cases, f"{program}*.{self.case}")
            or fnmatch.filter(cases, f"{program}{self.case}")
        )


@dataclass(frozen=True)
class Row:
    """A hazard and the cases that would see it; () where none is named."""

    name: str
    cases: tuple[Named, ...]


def read(text: str) -> tuple[Row, ...]:
    """The rows of the table; ValueError naming the line that cannot be read."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| ") or cells[0] in ("row", "---"):
            continue
        if len(cells) != COLUMNS:
            raise ValueError(f"line {number}: {len(cells)} columns, not {COLUMNS}")
        rows.append(Row(cells[0], _cases(cells[1], number)))
    return tuple(rows)


def _cases(cell: str, number: int) -> tuple[Named, ...]:
    if cell == NONE:
        return ()
    found = []
    for part in cell.split(";"):
        path, colon, cases = part.strip().partition(":")
        names = [case.strip() for case in cases.split(",")]
        if not colon or not all(names):
            raise ValueError(f"line {number}: {part.strip()!r} is not 'program: case, case'")
        suite, _, program = path.rpartition("/")
        found += [Named(suite or SUITE, program, case) for case in names]
    return tuple(found)
