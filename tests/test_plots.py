"""Plots are SVG that can be read, with what they show in their words."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import pytest

from rig import plots
from rig.plots import Bar, Line, Span


def parsed(svg: str) -> ET.Element:
    root = ET.fromstring(svg)
    assert root.tag == "svg"
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    assert (left, top) == (0, 0)
    for one in root.iter("rect"):
        x, w = float(one.attrib["x"]), float(one.attrib["width"])
        assert 0 <= x <= x + w <= width + 0.6
        assert float(one.attrib["y"]) + float(one.attrib["height"]) <= height
    for text in root.iter("text"):
        assert 0 <= float(text.attrib["y"]) <= height
    return root


def texts(root: ET.Element) -> list[str]:
    return [one.text or "" for one in root.iter("text")]


def test_bars_are_as_long_as_their_figures() -> None:
    root = parsed(plots.bars([Bar("a <b>", (100,), "100"), Bar("c", (25,), "25", mark=True)], "t"))
    long, short = (float(one.attrib["width"]) for one in root.iter("rect"))
    assert short == pytest.approx(long / 4, abs=0.1)
    assert [one.attrib["class"] for one in root.iter("rect")] == ["s0", "mark"]
    assert texts(root) == ["a <b>", "100", "c", "25"]
    assert root.attrib["aria-label"] == "t"


def test_parts_stand_beside_each_other() -> None:
    root = parsed(plots.bars([Bar("a", (30, 10, 0), "40")], "t", ["x", "y", "z"]))
    first, second, *_ = root.iter("rect")
    end = float(first.attrib["x"]) + float(first.attrib["width"])
    assert float(second.attrib["x"]) == pytest.approx(end, abs=0.1)
    assert texts(root)[-3:] == ["x", "y", "z"]


def test_a_part_below_nothing_is_not_drawn_backwards() -> None:
    parsed(plots.bars([Bar("a", (-5, 10), "5"), Bar("b", (0,), "0")], "t"))


def test_no_bars() -> None:
    parsed(plots.bars([], "t"))


def test_a_distribution_lies_on_a_logarithmic_axis() -> None:
    rows = [Span("a", (1e3, 1e4, 1e5), "w"), Span("b", (1e2, 1e2, 1e2), "w")]
    root = parsed(plots.spans(rows, "t", ["50 %", "90 %", "99 %"]))
    ticks = [float(one.attrib["x1"]) for one in root.iter("line") if "tick" in one.attrib["class"]]
    assert ticks[1] - ticks[0] == pytest.approx(ticks[2] - ticks[1], abs=0.2)
    assert {"100 ns", "1 \u00b5s", "100 \u00b5s", "ticks: 50 %, 90 %, 99 %"} <= {*texts(root)}


def test_lines_begin_at_zero_and_are_named_apart() -> None:
    rows = [Line("a", ((1, 1), (2, 2.0))), Line("b", ((1, 1), (2, 2.001))), Line("c", ((1, 0),))]
    root = parsed(plots.lines(rows, "t", "CPUs"))
    named = [one for one in root.iter("text") if one.attrib["class"].startswith("name")]
    heights = sorted(float(one.attrib["y"]) for one in named)
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 15
    assert len(list(root.iter("polyline"))) == 3


def test_one_point_is_no_line() -> None:
    assert plots.lines([Line("a", ((1, 1),))], "t", "x") == ""
    assert plots.spans([], "t", []) == ""


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (3, "3"), (2.345, "2.35"), (12.6, "13"), (1234567, "1\u2009234\u2009567")],
)
def test_a_figure_for_a_person(value: float, words: str) -> None:
    assert plots.number(value) == words
