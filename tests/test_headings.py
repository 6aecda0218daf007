"""Headings: a line or a few of each wording that no captured console shows, and what looks alike.

tests/data/wordings.txt: "= TYPE | TITLE", then the lines, which follow the format strings of the
sources that each rule names; some are broken as mail programs break them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rig import splat

DATA = Path(__file__).parent / "data"


def found(text: str) -> list[tuple[str, str]]:
    return [(one.type, one.title) for one in splat.scan(text)]


def wordings() -> list[tuple[str, str, str]]:
    """(type, title, lines) of each."""
    parts = (DATA / "wordings.txt").read_text(encoding="utf-8").removeprefix("= ").split("\n\n= ")
    heads = [part.partition("\n") for part in parts]
    return [(*head.split(" | ", 1), text.rstrip("\n")) for head, _, text in heads]  # type: ignore[misc]


@pytest.mark.parametrize(("type", "title", "text"), wordings())
def test_a_wording(type: str, title: str, text: str) -> None:
    assert found(text) == [(type, title)]


@pytest.mark.parametrize("text", (DATA / "lookalikes.txt").read_text().splitlines())
def test_what_looks_alike(text: str) -> None:
    assert found(text) == []


def test_words_of_what_prints_a_trace_belong_to_the_report() -> None:
    remark = "WARNING: stack recursion on stack type 4"
    fault = "BUG: unable to handle page fault for address: ff\nRIP: 0010:f+0x1/0x2"
    trace = "Call Trace:\n f+0x1/0x20\n g+0x2/0x30"
    assert found(f"{fault}\n{remark}\n{trace}") == [("page-fault", "BUG: page fault in f")]
    assert found(f"{remark}\n") == [("warning", "WARNING: stack recursion")]


def test_a_program_that_faults_is_no_report() -> None:
    fault = "Unhandled fault: alignment exception (0x001) at 0x000004d9\n[000004d9] *pgd=00000000\n"
    assert found(f"{fault}Bus error\n") == []
    assert found(fault) == []  # more often than a kernel's whose next line was cut off
    assert found(f"{fault}Internal error: : 1 [#1] ARM\nPC is at f+0x1/0x2\n") != []
