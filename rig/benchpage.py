"""What `rig bench` measured as a page with plots: exact figures, ratios of times, never mixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rig import plots, report
from rig.counted import Beside
from rig.exactset import Difference, Measured, top_functions
from rig.explain import Change
from rig.plots import Bar, Line, Span
from rig.rows import EXACT_UNIT, Row
from rig.timed import Comparison

OURS = "async_submit"
_AT = 64  # outstanding, in plots that show one number of them
_MEMORY = ("bytes, stack", "bytes, task", "bytes, rest")
_TICKS = ("50", "90", "99", "99.9")
_UNUSED = "unused.c"


@dataclass(frozen=True)
class Plot:
    """A figure of the page; caption: how and on what it was measured."""

    title: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Section:
    """Plots under one heading."""

    title: str
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class ChangeRow:
    """A row of the table of exact changes; why: functions that it is made of."""

    name: str
    before: int | None
    after: int | None
    more: int
    why: str


@dataclass(frozen=True)
class Table:
    """Rows under a heading."""

    title: str
    caption: str
    rows: tuple[Row | Comparison, ...]


@dataclass(frozen=True)
class CountedTable:
    """What a CPU counted beside what is exact, under a heading."""

    title: str
    caption: str
    rows: tuple[Beside, ...]


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    id: str
    started: str
    duration_s: float
    command: str
    kernels: tuple[str, ...]
    word: str
    because: str
    good: bool
    notices: tuple[str, ...] = ()
    changes: tuple[ChangeRow, ...] = ()
    sections: tuple[Section, ...] = ()
    counted: tuple[CountedTable, ...] = ()
    comparisons: tuple[Table, ...] = ()
    tables: tuple[Table, ...] = ()
    facts: tuple[tuple[str, Mapping[str, str]], ...] = field(default=())


def html(page: Page) -> str:
    """The page: self-contained, in the reader's colours."""
    return report.template("bench.html", page=page)


def change_rows(
    found: Sequence[Difference], explained: Mapping[str, Change]
) -> tuple[ChangeRow, ...]:
    """The differences with the functions that make them up. Pure."""
    return tuple(
        ChangeRow(
            one.name,
            one.before,
            one.after,
            one.more,
            top_functions(explained[one.name]) if one.name in explained else "",
        )
        for one in found
    )


# -- exact ----------------------------------------------------------------------------------------


def exact_sections(measured: Sequence[Measured]) -> tuple[Section, ...]:
    """Plots of the exact set; the last kernel's, and what differs between all of them. Pure."""
    if not measured:
        return ()
    last = measured[-1]
    every = tuple(last.rows.values())
    how = f"{last.kernel}, exact machine: {last.identity.get('cpu', '')}, one CPU"
    found = [
        Section("What a call costs, by model", _costs(every, how)),
        Section("How long the submitter is held up", _submits(every, how)),
        Section("By how many are outstanding", _outstanding(every, how)),
        Section("What a waiting call takes", _memory(every, how)),
        Section("Has it ended?", _status(every, how)),
        Section("Those who never call it", _unused(measured)),
    ]
    return tuple(one for one in found if one.plots)


def _works(every: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.work for row in every if row.work))


def _bars(rows: Sequence[Row]) -> list[Bar]:
    return [
        Bar(row.model, (row.each,), plots.number(row.each), row.model.startswith(OURS))
        for row in rows
    ]


def _at(every: Sequence[Row], work: str, phase: str) -> list[Row]:
    return [
        row
        for row in every
        if (row.work, row.phase, row.outstanding, row.unit) == (work, phase, _AT, EXACT_UNIT)
    ]


def _costs(every: Sequence[Row], how: str) -> tuple[Plot, ...]:
    made = []
    for work in _works(every):
        rows = _at(every, work, "call")
        if len(rows) > 1:
            title = f"{work}: instructions a call, {_AT} outstanding"
            caption = f"{how}. From submission until its value is there."
            made.append(Plot(title, plots.bars(_bars(rows), title), caption))
    return tuple(made)


def _submits(every: Sequence[Row], how: str) -> tuple[Plot, ...]:
    made = []
    for work in _works(every):
        rows = _at(every, work, "submit")
        # Where nothing sleeps, the plots above have it all.
        if len(rows) > 1 and (not _at(every, work, "call") or "read" in work.split()):
            title = f"{work}: instructions to submit, {_AT} outstanding"
            caption = f"{how}. Until the submitter goes on, with what the device took until then."
            made.append(Plot(title, plots.bars(_bars(rows), title), caption))
    return tuple(made)


def _outstanding(every: Sequence[Row], how: str) -> tuple[Plot, ...]:
    made = []
    for work in _works(every):
        rows = [row for row in every if row.work == work and row.phase == "call"]
        models = dict.fromkeys(row.model for row in rows if row.unit == EXACT_UNIT)
        series = [
            Line(
                model,
                tuple((r.outstanding, r.each) for r in rows if r.model == model and r.outstanding),
            )
            for model in models
        ]
        if work in ("pread 1 B", "pipe read") and series:
            title = f"{work}: instructions a call"
            svg = plots.lines(series, title, "outstanding at once")
            made.append(Plot(title, svg, f"{how}. Each is named with its figure at the right end."))
    return tuple(one for one in made if one.svg)


def _memory(every: Sequence[Row], how: str) -> tuple[Plot, ...]:
    made = []
    for work in _works(every):
        by_model: dict[str, dict[str, float]] = {}
        for row in every:
            if row.work == work and row.unit == "bytes":
                by_model.setdefault(row.model, {})[row.phase] = row.each
        rows = [
            Bar(model, tuple(parts.get(p, 0.0) for p in _MEMORY), plots.number(parts["bytes"]))
            for model, parts in by_model.items()
            if "bytes" in parts
        ]
        if rows:
            title = f"{work}: bytes of each of 1,000 that wait"
            legend = [phase.removeprefix("bytes, ") for phase in _MEMORY]
            caption = f"{how}. /proc/meminfo before the model had anything, and when all slept."
            made.append(Plot(title, plots.bars(rows, title, legend), caption))
    return tuple(made)


def _status(every: Sequence[Row], how: str) -> tuple[Plot, ...]:
    rows = [row for row in every if row.phase == "status"]
    if not rows:
        return ()
    title = "To ask about one that has not ended: instructions"
    return (Plot(title, plots.bars(_bars(rows), title), f"{how}. The clock's own share is in it."),)


def _unused(measured: Sequence[Measured]) -> tuple[Plot, ...]:
    if len(measured) < 2:
        return ()
    made = []
    names = [name for name, line in measured[-1].of_which.items() if line == _UNUSED]
    for name in names:
        rows = [
            Bar(one.kernel, (one.rows[name].value,), plots.number(one.rows[name].value))
            for one in measured
            if name in one.rows
        ]
        title = f"{name}: instructions"
        caption = "Exact machine, one CPU; the least of eight."
        made.append(Plot(title, plots.bars(rows, title), caption))
    return tuple(made)


# -- timed ----------------------------------------------------------------------------------------


def timed_sections(medians: Mapping[str, Row], how: str) -> tuple[Section, ...]:
    """Plots of the timed set of one kernel, medians over boots. how: on what. Pure."""
    every = tuple(medians.values())
    found = [
        Section("Latency of one call at a time", _latencies(every, how)),
        Section("Throughput over CPUs", _scaling(every, how)),
        Section("fio and asyncio", _programs(every, how)),
    ]
    return tuple(one for one in found if one.plots)


def _latencies(every: Sequence[Row], how: str) -> tuple[Plot, ...]:
    made = []
    for work in _works(every):
        rows = [
            row
            for row in every
            if row.work == work and row.percentiles and row.phase in ("call", "latency")
            and (row.outstanding == 1 or row.phase == "latency")
        ]  # fmt: skip
        shown = [Span(r.model, tuple(r.percentiles[t] for t in _TICKS), _spread(r)) for r in rows]
        if len(shown) > 1:
            title = f"{work}: from submission to its value"
            names = [f"{tick} %" for tick in _TICKS]
            svg = plots.spans(shown, title, names)
            made.append(Plot(title, svg, f"{how}. Medians over boots of each percentile."))
    return tuple(made)


def _spread(row: Row) -> str:
    return ", ".join(f"{tick} %: {row.percentiles[tick]:.0f} ns" for tick in _TICKS)


def _scaling(every: Sequence[Row], how: str) -> tuple[Plot, ...]:
    rows = [row for row in every if row.phase == "throughput" and row.threads]
    made = []
    for work in dict.fromkeys(row.work for row in rows):
        own = [row for row in rows if row.work == work]
        series = [_relative(model, own) for model in dict.fromkeys(row.model for row in own)]
        title = f"{work}: calls a second of N threads on N CPUs, times those of one"
        svg = plots.lines([one for one in series if one.points], title, "threads, and CPUs")
        if svg:
            made.append(Plot(title, svg, f"{how}. Each model against itself with one CPU."))
    return tuple(made)


def _relative(model: str, rows: Sequence[Row]) -> Line:
    own = sorted((row.threads, row.value) for row in rows if row.model == model)
    first = own[0][1] if own and own[0][0] == 1 else 0.0
    return Line(model, tuple((at, value / first) for at, value in own) if first else ())


def _programs(every: Sequence[Row], how: str) -> tuple[Plot, ...]:
    made = []
    for work in _works(every):
        if not work.startswith(("fio", "asyncio")):
            continue
        rows = [row for row in every if row.work == work and row.phase in ("throughput", "call")]
        if not rows:
            continue
        unit = "calls a second" if rows[0].phase == "throughput" else "ns a call"
        title = f"{work}: {unit}"
        caption = f"{how}. One boot has them all; compare the bars, not this host's figures."
        made.append(Plot(title, plots.bars(_bars(rows), title), caption))
    return tuple(made)
