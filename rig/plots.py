"""Plots as SVG text: bars, stacked bars, spans, lines. Colours are the page's, light or dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

_WIDTH = 640
_LABEL = 190
_VALUE = 96
_ROW = 22
_TOP = 6
_BAR = 14
_AXIS = 26
_STEPS = 64


@dataclass(frozen=True)
class Bar:
    """One row: a label, its parts from left to right, what stands behind it."""

    label: str
    parts: tuple[float, ...]
    words: str
    mark: bool = False


@dataclass(frozen=True)
class Span:
    """One row of a distribution: the percentiles, ascending."""

    label: str
    points: tuple[float, ...]
    words: str


@dataclass(frozen=True)
class Line:
    """A series of points (x, y)."""

    label: str
    points: tuple[tuple[float, float], ...]


def number(value: float) -> str:
    """A figure for a person: whole, with thin spaces; three digits below ten. Pure."""
    if value != 0 and abs(value) < 10 and value != int(value):
        return f"{value:.3g}"
    return f"{round(value):,}".replace(",", "\u2009")


def bars(rows: Sequence[Bar], title: str, legend: Sequence[str] = ()) -> str:
    """Horizontal bars from zero. legend: names of the parts where there are several. Pure."""
    most = max((sum(max(0.0, part) for part in row.parts) for row in rows), default=0.0) or 1.0
    scale = (_WIDTH - _LABEL - _VALUE) / most
    height = _TOP + len(rows) * _ROW + (_AXIS if legend else 4)
    body = []
    for at, row in enumerate(rows):
        y = _TOP + at * _ROW
        body.append(_label(row.label, y))
        x = float(_LABEL)
        for which, part in enumerate(row.parts):
            width = max(0.0, part) * scale
            style = "mark" if row.mark else f"s{which}"
            body.append(
                f'<rect class="{style}" x="{x:.1f}" y="{y + 3}" width="{max(width, 0.5):.1f}" '
                f'height="{_BAR}"><title>{escape(row.label)}: {escape(row.words)}</title></rect>'
            )
            x += width
        body.append(_text(x + 6, y + _BAR, row.words, "value"))
    body += _legend(legend, height - 8)
    return _svg(body, height, title)


def spans(rows: Sequence[Span], title: str, names: Sequence[str]) -> str:
    """Distributions on a logarithmic axis: a band from the first percentile to the last, a tick at
    each. Pure. Every point is above zero.
    """
    every = [point for row in rows for point in row.points if point > 0]
    if not every:
        return ""
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    high = max(high, low + 1)
    room = _WIDTH - _LABEL - _VALUE

    def place(value: float) -> float:
        return _LABEL + (math.log10(value) - low) / (high - low) * room

    height = _TOP + len(rows) * _ROW + 2 * _AXIS
    bottom = _TOP + len(rows) * _ROW
    body = []
    for power in range(low, high + 1):
        x = place(10.0**power)
        body.append(f'<line class="grid" x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{bottom}"/>')
        body.append(_text(x, bottom + 14, _ns(10.0**power), "axis"))
    for at, row in enumerate(rows):
        y = _TOP + at * _ROW
        points = [point for point in row.points if point > 0]
        body.append(_label(row.label, y))
        first, last = place(points[0]), place(points[-1])
        body.append(
            f'<rect class="band" x="{first:.1f}" y="{y + 6}" width="{max(last - first, 1):.1f}" '
            f'height="8"><title>{escape(row.label)}: {escape(row.words)}</title></rect>'
        )
        body += [
            f'<line class="tick t{which}" x1="{place(point):.1f}" y1="{y + 3}" '
            f'x2="{place(point):.1f}" y2="{y + 17}"/>'
            for which, point in enumerate(points)
        ]
        body.append(_text(_WIDTH - _VALUE + 12, y + _BAR, _ns(points[0]), "value"))
    body.append(_text(_LABEL, height - 6, "ticks: " + ", ".join(names), "note"))
    return _svg(body, height, title)


def steps(points: Sequence[tuple[str, float]], title: str) -> str:
    """A value that is held until the next one, from its least to its most. points: name and value,
    in their order. Pure.
    """
    if not points:
        return ""
    values = [value for _, value in points]
    low, high = min(values), max(values)
    span, width = high - low or 1.0, _WIDTH - 2 * _VALUE
    each = width / max(len(points) - 1, 1)

    def place(value: float) -> float:
        return _STEPS - 14 - (value - low) / span * (_STEPS - 24)

    path, body = f"M{_VALUE:.1f} {place(values[0]):.1f}", []
    for at, (name, value) in enumerate(points[1:], 1):
        x = _VALUE + at * each
        path += f"H{x:.1f}V{place(value):.1f}"
        if value != values[at - 1]:
            words = f"{name}: {number(values[at - 1])} \u2192 {number(value)}"
            style = "dot worse" if value > values[at - 1] else "dot"
            body.append(
                f'<circle class="{style}" cx="{x:.1f}" cy="{place(value):.1f}" r="4">'
                f"<title>{escape(words)}</title></circle>"
            )
    body.insert(0, f'<path class="trend" d="{path}"/>')
    body.append(_text(_VALUE - 8, place(values[0]) + 4, number(values[0]), "label"))
    body.append(_text(_WIDTH - _VALUE + 8, place(values[-1]) + 4, number(values[-1]), "value"))
    return _svg(body, _STEPS, title)


def lines(rows: Sequence[Line], title: str, x_name: str) -> str:
    """Lines over a few values of x, y from zero; each is named at its last point. Pure."""
    xs = sorted({x for row in rows for x, _ in row.points})
    ys = [y for row in rows for _, y in row.points]
    if len(xs) < 2 or not ys:
        return ""
    height, left, right = 260, 44, 230
    top = max(ys) or 1.0
    step = (_WIDTH - left - right) / (len(xs) - 1)

    def at(x: float, y: float) -> str:
        return f"{left + xs.index(x) * step:.1f},{height - 40 - y / top * (height - 60):.1f}"

    body = [
        f'<line class="grid" x1="{left}" y1="{height - 40}" x2="{_WIDTH - right}" '
        f'y2="{height - 40}"/>'
    ]
    body += [_text(left + n * step, height - 22, f"{x:g}", "axis") for n, x in enumerate(xs)]
    body.append(_text(left, height - 6, x_name, "note"))
    body.append(_text(left - 6, height - 36, "0", "end"))
    body.append(_text(left - 6, 24, f"{top:.2g}", "end"))
    ends = _apart([(row.points[-1][1] / top * (height - 60), row) for row in rows])
    for which, row in enumerate(rows):
        points = " ".join(at(x, y) for x, y in row.points)
        body.append(f'<polyline class="l{which % 8}" points="{points}"/>')
        y = height - 40 - ends[row.label]
        shown = f"{row.label} {row.points[-1][1]:.2f}"
        body.append(_text(_WIDTH - right + 10, y + 4, shown, f"name k{which % 8}"))
    return _svg(body, height, title)


def _apart(ends: Sequence[tuple[float, Line]], least: float = 15.0) -> Mapping[str, float]:
    """Heights of names beside their lines, none over another."""
    placed: dict[str, float] = {}
    last = -least
    for wanted, row in sorted(ends, key=lambda one: one[0]):
        last = max(wanted, last + least)
        placed[row.label] = last
    return placed


def _ns(value: float) -> str:
    """Nanoseconds for a person."""
    for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "\u00b5s")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} ns"


def _label(text: str, y: float) -> str:
    return _text(_LABEL - 8, y + _BAR, text, "label")


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _legend(names: Sequence[str], y: float) -> list[str]:
    body, x = [], float(_LABEL)
    for which, name in enumerate(names):
        body.append(f'<rect class="s{which}" x="{x:.1f}" y="{y - 10:.1f}" width="11" height="11"/>')
        body.append(_text(x + 16, y, name, "note"))
        x += 34 + 7.2 * len(name)
    return body


def _svg(body: Sequence[str], height: float, title: str) -> str:
    inner = "".join(body)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label={quoteattr(title)}>'
        f"{inner}</svg>"
    )
