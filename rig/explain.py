"""`rig exact --explain A B`: which kernel functions run how many instructions more in B."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest
from pathlib import Path

from rig import exact, initramfs, process, profile
from rig.config import Config
from rig.errors import InfrastructureError
from rig.exact import DifferenceError, Prepared, Ran, Request
from rig.profile import ASLEEP, Symbols, Trace, TraceError, Window
from rig.progress import QUIET, Progress
from rig.store import Store

WHOLE, _WINDOW = "whole program", "window "
_SHOWN = 20


@dataclass(frozen=True)
class Piece:
    """One window of one run.

    measured: what the program itself read off the machine's clock. functions: instructions by
    function, with what was slept as one more; fault: why their sum is not what was measured, or "".
    """

    name: str
    measured: int
    functions: Mapping[str, int]
    fault: str = ""


@dataclass(frozen=True)
class Change:
    """One window of both runs. functions: (name, how many instructions more in the second).

    faults: why a side's functions are not what was measured there, with the kernel's name.
    """

    name: str
    before: int
    after: int
    functions: tuple[tuple[str, int], ...]
    faults: tuple[str, ...] = ()

    @property
    def explained(self) -> int:
        """What the functions' differences add up to; it must be after - before."""
        return sum(more for _, more in self.functions)

    @property
    def sound(self) -> bool:
        """Every instruction is accounted for."""
        return not self.faults and self.explained == self.after - self.before


@dataclass(frozen=True)
class Explanation:
    """The windows of a program on two kernels, in order, the whole program last."""

    kernels: tuple[str, str]
    changes: tuple[Change, ...]
    machines: tuple[Mapping[str, str], Mapping[str, str]]

    @property
    def sound(self) -> bool:
        """Every difference is explained to the last instruction."""
        return all(change.sound for change in self.changes)


def explain(
    request: Request,
    kernels: tuple[str, str],
    config: Config,
    store: Store,
    progress: Progress = QUIET,
) -> Explanation:
    """Run one program on both kernels, with and without the plugin, and take the difference.

    A .c file is compiled once, against the second kernel's headers. Raises DifferenceError where
    watching changed a run, or where the program did other things on one kernel than on the other.
    """
    before, after = (config.kernel(name) for name in kernels)
    second = exact.prepare(request, config, after, store, progress)
    source = Path(request.argv[0])
    if source.suffix == ".c":
        compiled = str(second.directory / source.stem)
        request = replace(request, argv=(compiled, *request.argv[1:]))
    first = exact.prepare(request, config, before, store, progress)
    return between(kernels, first, second, config.root, store, progress)


def between(
    kernels: tuple[str, str],
    first: Prepared,
    second: Prepared,
    root: Path,
    store: Store,
    progress: Progress = QUIET,
    *,
    in_common: bool = False,
) -> Explanation:
    """The same of two machines that are prepared, with one program. root: of the checkout.

    in_common: where the windows are not the same, those that have a figure on both.
    """
    plugin = initramfs.plugin(root, store)
    before, after = (_watched(one, plugin, progress) for one in (first, second))
    if in_common and [one.name for one in before] != [one.name for one in after]:
        before, after = shared(before, after)
    return Explanation(kernels, changes(kernels, before, after), (first.facts, second.facts))


def shared(first: list[Piece], second: list[Piece]) -> tuple[list[Piece], list[Piece]]:
    """The pieces that both sides have under a name of their own. Pure.

    Where threads take turns, how many windows without a figure there are is up to the scheduler.
    """
    counts = [Counter(one.name for one in side) for side in (first, second)]
    once = {
        name
        for name in counts[0]
        if counts[0][name] == counts[1][name] == 1 and not name.startswith(_WINDOW)
    }
    other = {one.name: one for one in second}
    before = [one for one in first if one.name in once]
    return before, [other[one.name] for one in before]


def _watched(prepared: Prepared, plugin: Path, progress: Progress) -> list[Piece]:
    """The windows of one kernel, of a run that was the same as without being watched."""
    progress.stage(f"exact runs on {prepared.kernel.name}")
    trace = Trace()
    plain = exact.start(prepared, "plain")
    try:
        seen = exact.watch(prepared, "counted", plugin, trace.feed)
        windows = trace.finish()
        exact.check_same(exact.finish(plain), seen, "the counted run", prepared.directory)
    except TraceError as error:
        raise InfrastructureError(f"cannot count on {prepared.kernel.name}: {error}") from error
    finally:
        process.end(plain.process)
    symbols = Symbols((prepared.kernel.directory / "System.map").read_text(encoding="utf-8"))
    return pieces(windows, seen, symbols)


def pieces(windows: list[Window], ran: Ran, symbols: Symbols) -> list[Piece]:
    """Each window with the figure the program printed for it. Pure."""
    printed = {one.window: one for one in ran.figures if one.unit == exact.UNIT}
    found, number = [], 0
    for window in windows:
        if window.whole:
            found.append(_piece(WHOLE, ran.clock, window, symbols))
            continue
        number += 1
        figure = printed.get(number)
        name = figure.name if figure else f"{_WINDOW}{number}"
        measured = int(figure.value) if figure else window.total
        found.append(_piece(name, measured, window, symbols))
    return found


def _piece(name: str, measured: int, window: Window, symbols: Symbols) -> Piece:
    """With what nobody executed as time asleep, which there is only where a CPU halted."""
    functions = profile.by_function(window, symbols)
    rest = measured - window.total
    fault = ""
    if rest > 0 and window.halts:
        functions[ASLEEP] = rest
    elif rest:
        fault = f"{measured} measured, {window.total} counted"
    return Piece(name, measured, functions, fault)


def changes(
    kernels: tuple[str, str], first: list[Piece], second: list[Piece]
) -> tuple[Change, ...]:
    """The pieces of both kernels side by side; DifferenceError where they are not the same ones."""
    names = [one.name for one in first], [one.name for one in second]
    if names[0] != names[1]:
        raise DifferenceError(
            "the program did not measure the same things on both kernels",
            output="\n".join(f"{one} | {two}" for one, two in zip_longest(*names, fillvalue="-")),
        )
    return tuple(_change(kernels, one, two) for one, two in zip(first, second, strict=True))


def _change(kernels: tuple[str, str], one: Piece, two: Piece) -> Change:
    functions = profile.difference(one.functions, two.functions)
    sides = zip(kernels, (one, two), strict=True)
    faults = tuple(f"on {kernel}: {side.fault}" for kernel, side in sides if side.fault)
    return Change(one.name, one.measured, two.measured, tuple(functions), faults)


def render(found: Explanation) -> str:
    """For a terminal: a line a window, a paragraph where something changed, equal ones once."""
    head = f"{found.kernels[0]} -> {found.kernels[1]}, instructions\n\n"
    grouped = ((change, len(list(same))) for change, same in groupby(found.changes))
    return head + "".join(_paragraph(change, times) for change, times in grouped)


def _paragraph(change: Change, times: int) -> str:
    more = change.after - change.before
    again = f", {times} times" if times > 1 else ""
    title = f"{change.name}: {change.before} -> {change.after} ({more:+d}){again}"
    if not (change.functions or change.faults):
        return f"{title}\n"
    shown = [f"{count:+10d}  {name}" for name, count in change.functions[:_SHOWN]]
    rest = change.functions[_SHOWN:]
    if rest:
        total = sum(count for _, count in rest)
        shown.append(f"{total:+10d}  ({len(rest)} more functions)")
    equal = "is" if change.explained == more else "IS NOT"
    check = f"{change.explained:+10d}  sum, {equal} the difference measured"
    wrong = [f"  NOT SOUND {fault}" for fault in change.faults]
    return "\n".join([title, *shown, check, *wrong]) + "\n\n"
