"""What a benchmark prints: one line of JSON a figure, to values and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

EXACT_UNIT = "instructions"
COUNTED_UNIT = "counted instructions"


class RowError(ValueError):
    """A line that begins as a row is none, or two rows have one name."""


@dataclass(frozen=True)
class Row:
    """One figure.

    value: of all `calls` together, in unit: "instructions" on the exact machine and nowhere else,
    "counted instructions" of a CPU that counts, "ns", "bytes" of one call, "calls/s". cycles: of
    that CPU, beside what it counted. window: which of an exact run's windows it is.
    work: what was asked for. model: who did it. outstanding: how many calls at once. phase: what
    of them ("submit", "complete", "call" for both, ...). paths: what /proc/self/async_submit
    counted meanwhile. percentiles: of the rounds, in unit, by their number.
    """

    name: str
    value: float
    unit: str
    window: int = 0
    work: str = ""
    model: str = ""
    outstanding: int = 0
    phase: str = ""
    calls: int = 1
    threads: int = 0
    rounds: int = 0
    cycles: float = 0.0
    paths: Mapping[str, int] = field(default_factory=dict)
    percentiles: Mapping[str, float] = field(default_factory=dict)

    @property
    def each(self) -> float:
        """Of one call, in unit."""
        return self.value / self.calls


def parse(output: bytes) -> tuple[Row, ...]:
    """The rows among a program's output, in its order. Pure.

    Raises RowError for a line that begins with "{" and is no row: a figure is never lost silently.
    """
    lines = enumerate(output.splitlines(), 1)
    return tuple(_row(number, line) for number, line in lines if line.startswith(b"{"))


def _row(number: int, line: bytes) -> Row:
    try:
        return msgspec.json.decode(line, type=Row)
    except msgspec.MsgspecError as error:
        shown = line[:120].decode(errors="replace")
        raise RowError(f"line {number} is no measurement: {error}: {shown}") from error


def by_name(rows: Iterable[Row]) -> dict[str, Row]:
    """Rows by name; of several of one name the least: it met the fewest ticks of the clock. Pure.

    Raises RowError where the same name has two units.
    """
    found: dict[str, Row] = {}
    for row in rows:
        known = found.get(row.name)
        if known and known.unit != row.unit:
            raise RowError(f"{row.name} is in {known.unit} and in {row.unit}")
        if known is None or row.value < known.value:
            found[row.name] = row
    return found
