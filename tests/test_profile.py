"""Counts of the plugin to functions: a captured page fault, and streams that are not whole.

data/exact/page-fault.log is what QEMU 7.2 logged with the plugin between the two marks of a program
that touched a fresh page; System.map has the symbols of that kernel (6.12.117) around it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rig import profile
from rig.profile import Symbols, Trace, TraceError, Window

DATA = Path(__file__).parent / "data/exact"
MEASURED = 3212  # what the program itself read off the clock


def captured() -> list[str]:
    return (DATA / "page-fault.log").read_text().splitlines()


def read(lines: list[str]) -> list[Window]:
    trace = Trace()
    for line in lines:
        trace.feed(line)
    return trace.finish()


def test_a_captured_window_adds_up_to_what_was_measured() -> None:
    (window,) = read(captured())
    assert not window.whole
    assert window.halts == 0
    assert window.total == MEASURED


def test_an_instruction_that_faulted_counts_once() -> None:
    without = [line for line in captured() if " v=0e " not in line]
    assert read(without)[0].total == MEASURED + 1
    fetched = [line.replace(" e=0006 ", " e=0014 ") for line in captured()]
    assert read(fetched)[0].total == MEASURED + 1


def test_functions_are_named() -> None:
    (window,) = read(captured())
    found = profile.by_function(window, Symbols((DATA / "System.map").read_text()))
    assert sum(found.values()) == MEASURED
    assert found[profile.USER] == 5
    assert found["clear_page_rep"] == 516  # 512 words, and the code around them
    assert found["do_anonymous_page"] == 176
    assert profile.UNKNOWN not in found


SYMBOLS = Symbols(
    "ffffffff81000000 T _stext\n"
    "ffffffff81000000 t alias\n"
    "ffffffff81000040 t helper.constprop.0\n"
    "ffffffff81000080 W weak\n"
    "ffffffff810000c0 T _etext\n"
    "ffffffff82000000 D data\n"
)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (0, profile.USER),
        (0xFFFFFFFF81000000, "_stext"),
        (0xFFFFFFFF8100003F, "_stext"),
        (0xFFFFFFFF81000040, "helper.constprop.0"),
        (0xFFFFFFFF810000BF, "weak"),
        (0xFFFFFFFF810000C0, profile.UNKNOWN),
        (0xFFFFFFFF80FFFFFF, profile.UNKNOWN),
        (0xFFFFFFFFC0000000, profile.UNKNOWN),
    ],
)
def test_an_address_lies_in_a_function(address: int, name: str) -> None:
    assert SYMBOLS.name(address) == name


def test_windows_lie_inside_the_whole_program() -> None:
    lines = ["rig begin 3", "rig begin 1", "rig end 2", "rig count 0 4", "rig halts 0"]
    lines += ["rig done 2", "rig end 4", "rig count 0 a", "rig halts 2", "rig done 4"]
    inner, whole = read(lines)
    assert (inner.whole, inner.counts, inner.halts) == (False, {0: 4}, 0)
    assert (whole.whole, whole.counts, whole.halts) == (True, {0: 10}, 2)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["rig begin 1"], "not ended"),
        (["rig begin 1", "rig begin 1"], "inside another"),
        (["rig end 2"], "had not begun"),
        (["rig full"], "'full'"),
        (["rig count 0 1"], "had not begun"),
    ],
)
def test_marks_that_do_not_pair_are_an_error(lines: list[str], words: str) -> None:
    with pytest.raises(TraceError, match=words):
        read(lines)


def test_the_difference_is_sorted_by_size() -> None:
    found = profile.difference({"a": 5, "b": 1, "c": 2}, {"a": 5, "b": 8, "d": 7, "c": 1})
    assert found == [("b", 7), ("d", 7), ("c", -1)]
