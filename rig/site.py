"""The pages of all nights: nights/index.html, one for each night, strips of cases, trends. They are
files beside what they are about, and work from a disk.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from rig import nightly, plots, stats
from rig.night import Change, Night, Outcome, Summary, summary
from rig.report import template
from rig.results import Status, to_json
from rig.store import write_whole

PAGE = "index.html"
BRIEF = "brief.json"
SHOWN = 60  # nights in a strip
_MARKS: Mapping[Status, str] = {
    Status.PASS: ".", Status.SKIP: "s", Status.FAIL: "F", Status.ERROR: "E", Status.CRASH: "C",
    Status.TIMEOUT: "T", Status.FLAKY: "~",
}  # fmt: skip
_NAMED = re.compile(
    r"(?:(?P<suite>[^/\s]+)/)?(?P<case>.*) \[(?P<kernel>[^,\]]*), (?P<machine>[^\]]*)\]$"
)


@dataclass(frozen=True)
class Brief:
    """A night in a line. page: whether it has one: a night that was killed has none."""

    name: str
    began: str
    good: bool
    because: str
    accepted: str = ""
    page: bool = True

    @property
    def word(self) -> str:
        """Good, accepted or bad."""
        return "good" if self.good else "accepted" if self.accepted else "bad"


@dataclass(frozen=True)
class Mark:
    """A piece of a strip: some nights of one status. night: to link to, where it is one that was
    not good. None: the case was not run.
    """

    text: str
    status: str = ""
    night: str = ""


@dataclass(frozen=True)
class Strip:
    """A case through the nights."""

    name: str
    kernel: str
    machine: str
    marks: tuple[Mark, ...]
    now: str
    bad: int
    runs: int

    @property
    def rate(self) -> str:
        """How often it was not good, in words."""
        low, high = stats.wilson(self.bad, self.runs)
        return f"{self.bad} of {self.runs} ({low:.0%} to {high:.0%})" if self.bad else ""


@dataclass(frozen=True)
class Square:
    """A kernel's results of one suite on one machine. worst: a status, "" where there is none.
    lost: why there is none although it should have been run.
    """

    worst: str = ""
    good: int = 0
    bad: int = 0
    anchor: str = ""
    lost: str = ""


@dataclass(frozen=True)
class Trend:
    """A figure through the nights, with its plot."""

    name: str
    unit: str
    value: float
    moved: bool
    plot: str


@dataclass
class Row:
    """Of the grid."""

    suite: str
    machine: str
    squares: list[Square] = field(default_factory=list)


def write(seen: nightly.Seen, results: Path) -> Path:
    """All pages that this night changes; the page to begin with."""
    _brief(seen.night, seen.summary, seen.place)
    night_page(seen.night, seen.summary, seen.place)
    return _front(seen.night, seen.summary, seen.place, results)


def _front(night: Night, said: Summary, place: Path, results: Path) -> Path:
    """What is of all nights, this one the last of them; the page to begin with."""
    nights = results / nightly.PLACE
    recent = _recent(results)
    known = briefs(results)
    paged = {one.name for one in known if one.page}
    suites = _strips(recent, paged)
    for suite, those in suites.items():
        page = template("cases.html", suite=suite, strips=those, nights=[n.name for n in recent])
        write_whole(nights / f"cases-{_file(suite)}.html", page)
    trends = _trends(recent)
    write_whole(nights / "figures.html", template("figures.html", trends=trends))
    write_whole(nights / "all.html", template("nights.html", briefs=known[::-1]))
    page = template(
        "night_index.html",
        night=night,
        said=said,
        sections=list(sections(said)),
        grid=_grid(night),
        briefs=known[-SHOWN:],
        suites=[(name, f"cases-{_file(name)}.html", len(those)) for name, those in suites.items()],
        figures=len(trends),
        total=len(known),
        prefix=f"{night.name}/",
        link=_linked(place, f"{night.name}/"),
    )
    write_whole(nights / PAGE, page)
    return nights / PAGE


def night_page(night: Night, said: Summary, place: Path) -> None:
    """The page of one night."""
    page = template(
        "night.html",
        night=night,
        said=said,
        sections=list(sections(said)),
        grid=_grid(night),
        groups=_groups(night),
        pages={part.name: _pages(place, part.name) for part in night.parts},
        prefix="",
        link=_linked(place, ""),
    )
    write_whole(place / PAGE, page)


def _pages(place: Path, part: str) -> list[str]:
    """What a part has left to be read, below the night's directory."""
    found = [*place.glob(f"{part}/*/bench.html"), *place.glob(f"{part}/*/report.html")]
    return [str(one.relative_to(place)) for one in sorted(found) if not one.parent.is_symlink()]


def rewritten(results: Path, names: Sequence[str]) -> None:
    """Pages of nights whose logs went."""
    for name in names:
        place = results / nightly.PLACE / name
        if night := nightly.readable(place):
            night_page(night, _said(night, results), place)


def briefs(results: Path) -> list[Brief]:
    """Of all nights there are, in their order; one without its line is read whole, if it can be."""
    found = []
    for place in nightly.places(results):
        page = (place / PAGE).is_file()
        try:
            own = msgspec.json.decode((place / BRIEF).read_bytes(), type=Brief)
        except (OSError, msgspec.MsgspecError):
            night = nightly.readable(place)
            if night is None:
                own = Brief(place.name, "", False, "it cannot be read")
            else:
                words = "good" if night.good else "not good, or not ended"
                own = Brief(night.name, night.began, night.good, words, night.accepted)
        found.append(replace(own, page=page))
    return found


def accepted(results: Path, night: Night) -> None:
    """A night counts as good from now on: its line and its page say so, and those of all."""
    place = results / nightly.PLACE / night.name
    said = _said(night, results)
    _brief(night, said, place)
    night_page(night, said, place)
    for last in reversed(nightly.places(results)):
        if (one := nightly.readable(last)) is not None:
            _front(one, _said(one, results), last, results)
            break


def _said(night: Night, results: Path) -> Summary:
    return summary(night, nightly.beside(results, night.name, night.figures))


def _brief(night: Night, said: Summary, place: Path) -> None:
    brief = Brief(night.name, night.began, night.good, said.because, night.accepted)
    write_whole(place / BRIEF, to_json(brief).decode())


def sections(said: Summary) -> Iterator[tuple[str, str, tuple[Change, ...]]]:
    """Title, anchor and changes of what a page has cards for, worst first."""
    for title, anchor, those in (
        ("New failures", "new", said.new),
        ("New warnings of kernels", "warnings", said.warnings),
        ("Flaky", "flaky", said.flaky),
        ("Still failing", "still", said.still),
        ("Skipped, and not before", "skipped", said.skipped),
        ("Failed, and may", "allowed", said.allowed),
    ):
        if those:
            yield title, anchor, those


def _recent(results: Path) -> list[Night]:
    last = nightly.places(results)[-SHOWN:]
    return [night for place in last if (night := nightly.readable(place))]


def _linked(place: Path, prefix: str) -> object:
    """From an outcome to the report of its run, "" where it is gone."""

    def link(one: Outcome) -> str:
        for name in ("report.html", "bench.html"):
            if one.place and (place / one.place / name).is_file():
                return f"{prefix}{one.place}/{name}"
        return ""

    return link


def _strips(nights: Sequence[Night], paged: Set[str]) -> dict[str, list[Strip]]:
    """By suite; what is or was not good comes first. paged: nights that have a page."""
    seen: dict[str, list[tuple[int, Outcome]]] = {}
    for at, night in enumerate(nights):
        for what, one in night.results.items():
            seen.setdefault(what, []).append((at, one))
    found: dict[str, list[Strip]] = {}
    for what, those in seen.items():
        match = _NAMED.match(what)
        suite = (match["suite"] if match else None) or what.partition(" ")[0].rstrip(":")
        name, kernel, machine = (
            (match["case"], match["kernel"], match["machine"]) if match else (what, "", "")
        )
        marks = tuple(_marks(those, nights, paged))
        now = those[-1][1].status if those[-1][0] == len(nights) - 1 else ""
        bad = sum(one.bad for _, one in those)
        run = sum(one.status is not Status.SKIP for _, one in those)
        found.setdefault(suite, []).append(Strip(name, kernel, machine, marks, now, bad, run))
    for strips in found.values():
        strips.sort(key=lambda s: (s.now in ("", "pass", "skip"), -s.bad, _natural(s.name)))
    return dict(sorted(found.items()))


def _marks(
    those: Sequence[tuple[int, Outcome]], nights: Sequence[Night], paged: Set[str]
) -> Iterator[Mark]:
    """Nights of one status together, where it is good; each by itself where it is not."""
    by_night = dict(those)
    text, status = "", ""
    for at, night in enumerate(nights):
        one = by_night.get(at)
        mark, now = (_MARKS[one.status], str(one.status)) if one else (" ", "none")
        if one and one.bad:
            if text:
                yield Mark(text, status)
            yield Mark(mark, now, night.name if night.name in paged else "")
            text = ""
        elif text and now == status:
            text += mark
        else:
            if text:
                yield Mark(text, status)
            text = mark
        status = now
    if text:
        yield Mark(text, status)


def _grid(night: Night) -> tuple[list[str], list[Row]]:
    """Kernels, and a row for each suite and machine."""
    counted: dict[tuple[str, str], dict[str, list[Outcome]]] = {}
    kernels: dict[str, None] = {}
    for what, one in night.results.items():
        match = _NAMED.match(what)
        if match and match["suite"]:
            key = (match["suite"], match["machine"])
            counted.setdefault(key, {}).setdefault(match["kernel"], []).append(one)
            kernels[match["kernel"]] = None
    lost: dict[tuple[str, str, str], str] = {}
    for what, why in night.lost.items():
        if match := _NAMED.match(what):
            suite, kernel, machine = match["suite"] or "", match["kernel"], match["machine"]
            lost[suite, kernel, machine] = why
            counted.setdefault((suite, machine), {})
            kernels[kernel] = None
    rows: list[Row] = []
    for (suite, machine), those in sorted(counted.items()):
        squares = [
            _square(those[kernel], _anchor(suite, kernel, machine))
            if kernel in those
            else Square(lost=lost.get((suite, kernel, machine), ""))
            for kernel in kernels
        ]
        rows.append(Row(suite, machine, squares))
    return [*kernels], rows


def _groups(night: Night) -> list[tuple[str, str, list[tuple[str, Outcome]]]]:
    """Title, anchor and results of each square of the grid, and of what is in none."""
    found: dict[tuple[str, str], list[tuple[str, Outcome]]] = {}
    for what, one in night.results.items():
        match = _NAMED.match(what)
        if match and match["suite"]:
            suite, kernel, machine = match["suite"], match["kernel"], match["machine"]
            key = (f"{suite} on {kernel}, {machine}", _anchor(suite, kernel, machine))
            found.setdefault(key, []).append((match["case"], one))
        else:
            found.setdefault(("others", "others"), []).append((what, one))
    return [(title, anchor, sorted(those, key=lambda pair: (not pair[1].bad, pair[0])))
            for (title, anchor), those in found.items()]  # fmt: skip


def _anchor(suite: str, kernel: str, machine: str) -> str:
    return _file(f"{suite} {kernel} {machine}")


def _square(those: Sequence[Outcome], anchor: str) -> Square:
    bad = [one for one in those if one.bad]
    worst = "skip" if all(one.status is Status.SKIP for one in those) else "pass"
    if bad:
        worst = "skip" if all(one.allowed for one in bad) else str(bad[0].status)
    return Square(worst, len(those) - len(bad), len(bad), anchor)


def _trends(nights: Sequence[Night]) -> list[Trend]:
    """Those that moved come first, with a plot."""
    seen: dict[str, list[tuple[str, float]]] = {}
    units: dict[str, str] = {}
    for night in nights:
        for what, level in night.figures.items():
            seen.setdefault(what, []).append((night.name, level.value))
            units[what] = level.unit
    found: list[Trend] = []
    for what, points in seen.items():
        moved = len({value for _, value in points}) > 1
        plot = plots.steps(points, what) if moved else ""
        found.append(Trend(what, units[what], points[-1][1], moved, plot))
    found.sort(key=lambda one: (not one.moved, _natural(one.name)))
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """To sort numbers in names by their size."""
    return [(int(part), "") if part.isdecimal() else (-1, part)
            for part in re.split(r"(\d+)", name)]  # fmt: skip


def _file(name: str) -> str:
    """A name as that of a file and an anchor: each name its own."""
    plain = re.sub(r"[^\w.-]+", "_", name)
    return plain if plain == name else f"{plain}-{zlib.crc32(name.encode()):08x}"
