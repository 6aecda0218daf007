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
    assert set(known["tables"]) == set(debate.TABLES)
    cells = [cell for table in known["tables"].values() for line in table for cell in line]
    assert sum(isinstance(cell, int) for cell in cells) > 100


def test_a_table_of_rows_that_were_measured() -> None:
    rows = [
        {"name": "x", "value": 640, "calls": 64, "work": "nop", "model": "direct",
         "outstanding": 64, "phase": "call"},
        {"name": "status, nothing", "value": 8, "work": "status", "phase": "status"},
    ]  # fmt: skip
    found = debate.measured({"exact": [{"rows": []}, {"rows": rows}]}, [])
    setup = debate.TABLES["setup"](found)
    assert setup[1][:3] == ["getppid (a nop of io_uring's)", 10, None]
    assert debate.TABLES["status"](found)[1] == ["nothing at all (the clock's own share)", 8]
    assert debate.rendered([["", "a"], ["x", 1234], ["y", None]]) == (
        "|  | a |\n| --- | ---: |\n| x | 1,234 |\n| y | \u2013 |"
    )


def test_a_page_without_a_place_for_a_table() -> None:
    table = [["", "a"], ["x", 1]]
    page = "a\n<!-- cold -->\nold\n<!-- end -->\nb\n"
    assert "| x | 1 |\n<!-- end -->\nb" in debate.rewritten(page, {"cold": table})
    with pytest.raises(ValueError, match="no place for setup"):
        debate.rewritten(page, {"cold": table, "setup": table})
    with pytest.raises(KeyError):
        debate.rewritten(page, {})
