"""How even a board's time is, by one piece of work that it does again and again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rig.errors import InfrastructureError
from rig.rows import Row

SOURCE = Path("images/board/noise.c")
TIMEOUT_S = 120.0

_LOUD = 0.02  # of a time: what differs by so much hides what a patch costs


def lost(row: Row) -> float:
    """The share of a CPU's time in which it did something else than its work, or that more slowly
    than it mostly does. row: of all its pieces. Pure.
    """
    return max(0.0, 1 - row.rounds * row.percentiles["50"] / row.value)


def spread(row: Row) -> float:
    """By what share of the middle one all pieces but one in twenty are longer at most. Pure.

    One in eighty has a tick of the clock in it, 250 times a second.
    """
    return row.percentiles["95"] / row.percentiles["50"] - 1


def check(rows: Sequence[Row]) -> None:
    """InfrastructureError where these are no rows of that program."""
    for row in rows:
        known = {"50", "95", "100"} <= row.percentiles.keys()
        counted = row.rounds > 0 and row.calls >= row.rounds
        if row.unit != "ns" or not counted or not known or row.percentiles["50"] <= 0:
            raise InfrastructureError(f"{SOURCE.name} says nothing of how even a time is: {row}")


def in_words(rows: Sequence[Row]) -> str:
    """For a report: the worst of all CPUs and boots. rows: at least one. Pure."""
    longest = max(row.percentiles["100"] - row.percentiles["50"] for row in rows)
    middle = min(row.percentiles["50"] for row in rows)
    return (
        f"of 20 pieces of work of {middle / 1000:.0f} us 19 took at most "
        f"{max(map(spread, rows)):.1%} more than the middle one, the longest {_time(longest)}; "
        f"{max(map(lost, rows)):.2%} of the time went elsewhere; "
        f"{unequal(rows):.1%} from one CPU or boot to another"
    )


def unequal(rows: Sequence[Row]) -> float:
    """By how much the slowest CPU or boot differs from the fastest, in what a step of the work
    takes: how many are a piece is counted out in each boot. Pure.
    """
    middles = [row.percentiles["50"] * row.rounds / row.calls for row in rows]
    return max(middles) / min(middles) - 1


def is_loud(rows: Sequence[Row]) -> bool:
    """Whether a reader has to be told before he reads any time. Pure."""
    worst = max(*map(spread, rows), *map(lost, rows), unequal(rows))
    return worst > _LOUD


def _time(ns: float) -> str:
    return f"{ns / 1e6:.1f} ms" if ns >= 1e6 else f"{ns / 1000:.0f} us"


__all__ = ["SOURCE", "TIMEOUT_S", "check", "in_words", "is_loud", "lost", "spread", "unequal"]
