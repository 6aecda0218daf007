"""One night: what was seen in it, and what is another than in the nights before. Pure."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rig.results import Run, Status

SCHEMA = 1
_TURNS, _RECENT = 3, 14  # so often good and bad in so many nights is no news but a flaky case
_CALM = 5  # so many good nights in a row, and it is not flaky any more


class End(enum.StrEnum):
    """What became of a part of a night. Only the first is good."""

    DONE = "done"
    FAILED = "failed"  # it gave no results, or not all
    OUT_OF_TIME = "out of time"
    NOT_BEGUN = "not begun"


@dataclass(frozen=True)
class Outcome:
    """Of one case, or of one report of a kernel. words: why it is not good. again: the command that
    runs it once more. place: the run it is from, below the night's directory. allowed: why it may
    be bad. part: that saw it.
    """

    status: Status
    words: str = ""
    again: str = ""
    place: str = ""
    allowed: str = ""
    part: str = ""

    @property
    def bad(self) -> bool:
        """Whether somebody has to look at it."""
        return not self.status.good


@dataclass(frozen=True)
class Level:
    """A figure. gated: it may not become more. part: that measured it."""

    value: float
    unit: str
    gated: bool = True
    part: str = ""


@dataclass(frozen=True)
class Part:
    """What belonged together. code: its exit code. left: what of it was not run, in words. may:
    of that, what need not be.
    """

    name: str
    end: End = End.NOT_BEGUN
    seconds: float = 0.0
    code: int = 0
    why: str = ""
    again: str = ""
    left: tuple[str, ...] = ()
    may: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """It came to its end, and to all of it."""
        return self.end is End.DONE and not self.left


@dataclass(frozen=True)
class Night:
    """All of it. name: when it began, to sort by. kernels: name -> release. results, figures,
    warnings: by what they are of, in words; warnings are reports of kernels. unbuilt: kernel -> why
    it could not be built. lost: cells that came to no result, and why. whole: all of
    the plan was asked for. accepted: why it counts as good although something was not.
    """

    name: str
    began: str
    commit: str = ""
    kernels: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    results: Mapping[str, Outcome] = field(default_factory=dict)
    figures: Mapping[str, Level] = field(default_factory=dict)
    warnings: Mapping[str, Outcome] = field(default_factory=dict)
    unbuilt: Mapping[str, str] = field(default_factory=dict)
    lost: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    whole: bool = True
    good: bool = False
    accepted: str = ""
    schema: int = SCHEMA

    @property
    def is_base(self) -> bool:
        """Whether others are measured by it: some parts alone have not seen what the rest has."""
        return self.whole and (self.good or bool(self.accepted))


@dataclass(frozen=True)
class Change:
    """A case or a warning. before: what it was when it was last run, "" where it never was. since:
    the night it has been so from, as far as is known.
    """

    what: str
    now: Outcome
    before: str = ""
    since: str = ""


@dataclass(frozen=True)
class Moved:
    """A figure that is another one than in the last good night it was in. again: the command that
    measured it.
    """

    what: str
    before: float
    after: float
    unit: str
    base: str
    again: str = ""

    @property
    def more(self) -> float:
        """By how much."""
        return self.after - self.before

    @property
    def words(self) -> str:
        """For a line."""
        share = f" ({self.more / self.before:+.2%})" if self.before else ""
        return f"{self.what}: {self.before:,.10g} -> {self.after:,.10g} {self.unit}{share}"


@dataclass(frozen=True)
class Summary:
    """What a reader has to know, in that order. gone: what was run in the last night and is not in
    this one, although its part came to its end. skipped: what was run the last time, and is skipped
    now. left: what there was no time for, or what failed
    before it gave results. may: what was not run, and need not be.
    """

    new: tuple[Change, ...] = ()
    regressions: tuple[Moved, ...] = ()
    warnings: tuple[Change, ...] = ()
    flaky: tuple[Change, ...] = ()
    still: tuple[Change, ...] = ()
    fixed: tuple[Change, ...] = ()
    better: tuple[Moved, ...] = ()
    gone: tuple[str, ...] = ()
    skipped: tuple[Change, ...] = ()
    left: tuple[str, ...] = ()
    allowed: tuple[Change, ...] = ()
    may: tuple[str, ...] = ()
    base: str = ""

    @property
    def good(self) -> bool:
        """Nothing bad was seen, and nothing was left out."""
        bad = (self.new, self.regressions, self.warnings, self.flaky, self.still, self.gone)
        return not any((*bad, self.skipped, self.left))

    @property
    def because(self) -> str:
        """All of it in a few words, as the subject of a mail has them."""
        counted = (
            (len(self.new), "new failure"),
            (len(self.regressions), "regression"),
            (len(self.warnings), "new warning"),
            (len(self.flaky), "flaky case"),
            (len(self.still), "still failing"),
            (len(self.gone), "gone"),
            (len(self.skipped), "skipped and not before"),
            (len(self.fixed), "fixed"),
        )
        words = [f"{count} {_plural(what, count)}" for count, what in counted if count]
        if self.left:
            words.append("incomplete")
        return ", ".join(words) or "all good"


def _plural(what: str, count: int) -> str:
    alike = ("still failing", "gone", "skipped and not before", "fixed")
    return f"{what}s" if count > 1 and what not in alike else what


def name_of(case: str, kernel: str, machine: str) -> str:
    """What a case of a run is called here."""
    return f"{case} [{kernel}, {machine}]"


def of_run(
    run: Run, place: str, allowed: str = ""
) -> tuple[dict[str, Outcome], dict[str, Outcome]]:
    """Results and warnings of a run. allowed: why all of it may fail."""
    kernel, machine = run.kernel.get("name", "no kernel"), run.machine.get("name", "no machine")
    results: dict[str, Outcome] = {}
    for case in run.cases:
        key = name_of(case.id, kernel, machine)
        words = case.message if not case.status.good else ""
        now = Outcome(case.status, words, case.reproduce, place, allowed)
        results[key] = worse(results.get(key, now), now)
    warnings = {
        name_of(one.title, kernel, machine): Outcome(
            Status.CRASH, one.type, run.command, place, allowed
        )
        for one in run.splats
    }
    return results, warnings


def worse(one: Outcome, other: Outcome) -> Outcome:
    """Of two of one case, what counts: what is bad, and of that what may not be."""
    return max(other, one, key=lambda o: (o.bad, not o.allowed))


def summary(now: Night, before: Sequence[Night]) -> Summary:
    """What is to be said of a night. before: the nights before it, in their order, the last good
    one among them if there was one.
    """
    earlier = [one for one in before if one.name < now.name]
    base = next((one for one in reversed(earlier) if one.is_base), None)
    changes: dict[str, list[Change]] = {
        name: [] for name in ("new", "still", "flaky", "fixed", "skipped")
    }
    allowed: list[Change] = []
    from_base = base.name if base else ""
    for what, outcome in now.results.items():
        seen = [(one.name, one.results[what]) for one in earlier if what in one.results]
        own = [one for _, one in seen]
        kind = _kind(outcome, own, [one for name, one in seen if name >= from_base])
        if not kind or (kind == "skipped" and outcome.allowed):
            continue
        since = "" if outcome.status is Status.SKIP else _since(seen, outcome)
        change = Change(what, outcome, _before(outcome, own), since)
        if outcome.allowed and outcome.bad:
            allowed.append(change)
        else:
            changes[kind].append(change)
    moved = _moved(now, earlier)
    warnings = _warnings(now, earlier)
    return Summary(
        new=tuple(changes["new"]),
        regressions=tuple(sorted((m for m in moved if m.more > 0), key=_size, reverse=True)),
        warnings=tuple(one for one in warnings if not one.before),
        flaky=tuple(changes["flaky"]),
        still=(*changes["still"], *(one for one in warnings if one.before)),
        fixed=tuple(changes["fixed"]),
        better=tuple(sorted((m for m in moved if m.more < 0), key=_size, reverse=True)),
        gone=_gone(now, earlier),
        skipped=tuple(changes["skipped"]),
        left=tuple(_left(now.parts)),
        allowed=tuple(allowed),
        may=tuple(f"{part.name}: {what}" for part in now.parts for what in part.may),
        base=base.name if base else "",
    )


def _kind(now: Outcome, seen: Sequence[Outcome], lately: Sequence[Outcome]) -> str:
    """Of which sort of news a case is; "" for none. lately: since the last good night, with it:
    what was run in one of them is missed until a night without it counts as good.
    """
    # What is skipped is neither mended by that nor broken.
    run = [one for one in seen if one.status is not Status.SKIP]
    was_bad = bool(run) and run[-1].bad
    if now.status is Status.SKIP:
        if was_bad and seen[-1].status is Status.SKIP:
            return "still"
        missed = any(one.status is not Status.SKIP for one in lately)
        return "skipped" if missed else "still" if was_bad else ""
    row = _lately([one.bad for one in (*run[-_RECENT + 1 :], now)])
    turns = sum(a != b for a, b in itertools.pairwise(row))
    if now.status is Status.FLAKY or (now.bad and turns >= _TURNS):
        return "flaky"
    if now.bad:
        return "still" if was_bad else "new"
    return "fixed" if was_bad and turns < _TURNS else ""


def _lately(row: Sequence[bool]) -> Sequence[bool]:
    """Of good and bad nights those behind the last long row of good ones: what came and went before
    that has been mended.
    """
    good = 0
    for at, bad in reversed([*enumerate(row)]):
        good = 0 if bad else good + 1
        if good >= _CALM and any(row[at + good :]):
            return row[at:]
    return row


def _before(now: Outcome, seen: Sequence[Outcome]) -> str:
    """What it was when it was last run; of what is skipped now, what it was before that."""
    those = [one for one in seen if now.status is not Status.SKIP or one.status is not Status.SKIP]
    return those[-1].status if those else ""


def _since(seen: Sequence[tuple[str, Outcome]], now: Outcome) -> str:
    """The first of the nights in a row that it has been so in; "" for this one."""
    since = ""
    for name, one in reversed(seen):
        if one.bad != now.bad:
            break
        since = name
    return since


def _moved(now: Night, earlier: Sequence[Night]) -> list[Moved]:
    """Gated figures that are others than in the last good night that has them."""
    found = []
    bases = [one for one in earlier if one.is_base]
    for what, level in now.figures.items():
        base = next((one for one in reversed(bases) if what in one.figures), None)
        if base is None or not level.gated:
            continue
        old = base.figures[what]
        if old.unit == level.unit and old.value != level.value:
            again = f"rig nightly --only {level.part}" if level.part else ""
            found.append(Moved(what, old.value, level.value, level.unit, base.name, again))
    return found


def _size(one: Moved) -> float:
    return abs(one.more) / one.before if one.before else float("inf")


def _warnings(now: Night, earlier: Sequence[Night]) -> list[Change]:
    """Reports of kernels; `before` is that of the last nights that had it, "" where none had."""
    found = []
    for what, outcome in now.warnings.items():
        if outcome.allowed:
            continue
        those = [one.name for one in earlier if what in one.warnings]
        before = earlier[-1].warnings.get(what) if earlier else None
        since = those[0] if before and those else ""
        found.append(Change(what, outcome, str(outcome.status) if those else "", since))
    return found


def _gone(now: Night, earlier: Sequence[Night]) -> tuple[str, ...]:
    """What is not there any more, of each part that came to its end: of what it had in the last
    night that counts as good, or in one after that. So it is told until it is back, or a night
    without it counts as good. What was allowed to be bad may end early.
    """
    found: dict[str, None] = {}
    for part in now.parts:
        if not part.whole:
            continue
        for night in _since_good(earlier, part.name):
            found |= dict.fromkeys(
                what
                for what, one in night.results.items()
                if one.part == part.name and not one.allowed and what not in now.results
            )
            found |= dict.fromkeys(
                what
                for what, level in night.figures.items()
                if level.part == part.name and _unlike(now.figures.get(what), level)
            )
    return (*_parts_gone(now, earlier), *found)


def _since_good(earlier: Sequence[Night], part: str) -> Sequence[Night]:
    """The last good night in which a part came to its end, and those after it in which it did."""
    those = [one for one in earlier if _has_whole(one, part)]
    last = max((at for at, one in enumerate(those) if one.is_base), default=0)
    return those[last:]


def _parts_gone(now: Night, earlier: Sequence[Night]) -> list[str]:
    """Of a night of all parts, those of the last good one that the plan has no more."""
    base = next((one for one in reversed(earlier) if one.is_base), None)
    if base is None or not now.whole:
        return []
    names = {part.name for part in now.parts}
    return [f"all of {part.name}: the plan has no such part" for part in base.parts
            if part.name not in names]  # fmt: skip


def _has_whole(night: Night, part: str) -> bool:
    return any(one.name == part and one.whole for one in night.parts)


def _unlike(now: Level | None, before: Level) -> bool:
    """It is not measured any more, or as something else."""
    return now is None or now.unit != before.unit


def _left(parts: Iterable[Part]) -> Iterable[str]:
    for part in parts:
        if part.end is not End.DONE:
            yield f"{part.name}: {part.end}{f', {part.why}' if part.why else ''}"
        yield from (f"{part.name}: {what}" for what in part.left)


__all__ = ["Change", "End", "Level", "Moved", "Night", "Outcome", "Part", "Summary", "summary"]
