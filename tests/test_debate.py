"""docs/debate.md: its tables are what was measured, and are written only where they belong."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "ci"))

debate = importlib.import_module("debate")


def test_the_page_says_what_was_measured() -> None:
    known = json.loads(debate.FIGURES.read_bytes())
    page = debate.PAGE.read_text(encoding="utf-8")
    assert debate.rewritten(page, known["tables"]) == page
    # Those of times stand there once they have been measured.
    assert {*known["tables"]} - {*debate.IN_TIME} == {*debate.EXACT}
    cells = [cell for table in known["tables"].values() for line in table for cell in line]
    assert sum(isinstance(cell, int) for cell in cells) > 100


def test_a_table_of_rows_that_were_measured() -> None:
    rows = [
        {"name": "x", "value": 640, "calls": 64, "work": "nop", "model": "direct",
         "outstanding": 64, "phase": "call"},
        {"name": "status, nothing", "value": 8, "work": "status", "phase": "status"},
    ]  # fmt: skip
    found = debate.measured({"exact": [{"rows": []}, {"rows": rows}]}, [])
    setup = debate.EXACT["setup"](found)
    assert setup[1][:3] == ["getppid (a nop of io_uring's)", 10, None]
    assert debate.EXACT["status"](found)[1] == ["nothing at all (the clock's own share)", 8]
    assert debate.rendered([["", "a"], ["x", 1234], ["y", None]]) == (
        "|  | a |\n| --- | ---: |\n| x | 1,234 |\n| y | \u2013 |"
    )


def test_a_table_of_times() -> None:
    def boot(number: int, **figures: float) -> dict[str, object]:
        named = {"one": ("direct", 1), "two": ("direct", 2), "ours": ("async_submit", 1)}
        rows = {
            key: {
                "work": "pread 1 B", "model": named[key][0], "phase": "throughput",
                "threads": named[key][1], "value": value, "calls": 1,
            }
            for key, value in figures.items()
        }  # fmt: skip
        return {"kernel": "async", "boot": number, "rows": rows}

    boots = [boot(0, one=100.0, two=200.0, ours=50.0), boot(1, one=110.0, two=209.0, ours=55.0)]
    other = {"kernel": "plain", "boot": 0, "rows": {}}
    found = debate.in_time({"timed": [other, *boots]})
    spread = debate.IN_TIME["spread"](found)
    assert spread[0] == ["", "1 CPU, calls a second", "2 CPUs, times that", "4 CPUs, times that"]
    assert spread[1:] == [
        ["direct", 105, "1.95 [1.90, 2.00]", None],
        ["async_submit", 52, None, None],
    ]
    assert [line[1] for line in debate.IN_TIME["fio"](found)[1:]] == [None] * 5


def test_a_page_without_a_place_for_a_table() -> None:
    table = [["", "a"], ["x", 1]]
    page = "a\n<!-- cold -->\nold\n<!-- end -->\nb\n"
    assert "| x | 1 |\n<!-- end -->\nb" in debate.rewritten(page, {"cold": table})
    with pytest.raises(ValueError, match="no place for setup"):
        debate.rewritten(page, {"cold": table, "setup": table})
    with pytest.raises(KeyError):
        debate.rewritten(page, {})
