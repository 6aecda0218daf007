"""Which kernel function ran how many instructions: what the counting plugin wrote, read."""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

USER = "(user space)"
UNKNOWN = "(kernel, outside its symbols)"
ASLEEP = "(asleep)"

_KERNEL_SPACE = 1 << 63

# QEMU's line for an exception or interrupt (-d int; target/i386/tcg/seg_helper.c, do_interrupt_all)
# and what is told apart in it: a page fault that fetching an instruction caused.
_EXCEPTION = re.compile(r"^\s*\d+: v=(?P<vector>\w+) e=(?P<error>\w+) i=0 .* pc=(?P<pc>\w+)")
_PAGE_FAULT, _FETCH = 0x0E, 0x10
# Exceptions whose instruction QEMU takes back from its count, for it will start again or be given
# up: those raised while it runs. Traps (1, 3) come after it; 6 and 7 are found by the decoder.
_TAKEN_BACK = frozenset(range(32)) - {1, 2, 3, 4, 6, 7}


class TraceError(ValueError):
    """The plugin's stream is not what it should be; the message says how."""


@dataclass(frozen=True)
class Window:
    """Instructions that ran between two marks, by address; 0 stands for user space.

    whole: of the whole program, not one of its own windows. halts: how often a CPU slept.
    """

    whole: bool
    counts: dict[int, int]
    halts: int

    @property
    def total(self) -> int:
        """All instructions in it."""
        return sum(self.counts.values())


@dataclass
class _Open:
    faults: Counter[int] = field(default_factory=Counter)
    counts: Counter[int] = field(default_factory=Counter)
    closing: bool = False
    halts: int = 0


class Trace:
    """Takes the stream line by line; windows has what was closed so far, in order."""

    def __init__(self) -> None:
        self.windows: list[Window] = []
        self._open: dict[bool, _Open] = {}

    def feed(self, line: str) -> None:
        """One line of QEMU's log. TraceError when marks do not come in pairs."""
        if line.startswith("rig "):
            self._own(line.split()[1:])
        elif self._open and (match := _EXCEPTION.match(line)):
            self._fault(int(match["vector"], 16), int(match["error"], 16), int(match["pc"], 16))

    def finish(self) -> list[Window]:
        """All windows; TraceError when one was not closed."""
        if self._open:
            raise TraceError("a window was begun and not ended")
        return self.windows

    def _own(self, words: list[str]) -> None:
        match words:
            case ["begin", kind]:
                self._begin(kind == "3")
            case ["end", kind]:
                self._window(kind == "4").closing = True
            case ["count", address, times]:
                self._closing().counts[int(address, 16)] += int(times, 16)
            case ["halts", times]:
                self._closing().halts = int(times, 16)
            case ["done", kind]:
                self._done(kind == "4")
            case _:
                raise TraceError(f"the plugin said {' '.join(words)!r}")

    def _begin(self, whole: bool) -> None:
        if whole in self._open:
            raise TraceError("a window was begun inside another one")
        self._open[whole] = _Open()

    def _window(self, whole: bool) -> _Open:
        if whole not in self._open:
            raise TraceError("a window was ended that had not begun")
        return self._open[whole]

    def _closing(self) -> _Open:
        for one in self._open.values():
            if one.closing:
                return one
        raise TraceError("a window was counted that had not begun")

    def _done(self, whole: bool) -> None:
        """An instruction that faulted was counted when it started; QEMU's clock took it back."""
        done = self._open.pop(whole)
        done.counts.subtract(done.faults)
        counts = {address: times for address, times in done.counts.items() if times}
        self.windows.append(Window(whole, counts, done.halts))

    def _fault(self, vector: int, error: int, pc: int) -> None:
        fetching = vector == _PAGE_FAULT and error & _FETCH
        if vector in _TAKEN_BACK and not fetching:
            for one in self._open.values():
                one.faults[pc if pc >= _KERNEL_SPACE else 0] += 1


class Symbols:
    """Functions of a kernel by address."""

    def __init__(self, system_map: str) -> None:
        """Read a System.map; of several names for one address a global one is taken."""
        named: dict[int, tuple[bool, str]] = {}
        for line in system_map.splitlines():
            address, kind, name = line.split()
            if kind in "tTwW":
                candidate = (kind == "t", name)
                at = int(address, 16)
                named[at] = min(named.get(at, candidate), candidate)
        self._starts = sorted(named)
        self._names = [named[at][1] for at in self._starts]
        self._end = _text_end(system_map)

    def name(self, address: int) -> str:
        """The function an address lies in, as the symbol table says it (with .constprop, .isra)."""
        if not address:
            return USER
        index = bisect.bisect_right(self._starts, address) - 1
        return self._names[index] if index >= 0 and address < self._end else UNKNOWN

    def place(self, address: int) -> str:
        """The same as a kernel's trace has it: name+0xOFFSET/0xSIZE."""
        name = self.name(address)
        if name in (USER, UNKNOWN):
            return name
        index = bisect.bisect_right(self._starts, address) - 1
        ends = self._starts[index + 1] if index + 1 < len(self._starts) else self._end
        return f"{name}+0x{address - self._starts[index]:x}/0x{ends - self._starts[index]:x}"


def _text_end(system_map: str) -> int:
    """Where the last function ends: _einittext, or else _etext."""
    ends = re.findall(r"(?m)^(\w+) \w (?:_einittext|_etext)$", system_map)
    return max((int(end, 16) for end in ends), default=1 << 64)


def by_function(window: Window, symbols: Symbols) -> dict[str, int]:
    """A window's instructions by function. Static functions of one name are one."""
    found: Counter[str] = Counter()
    for address, times in window.counts.items():
        found[symbols.name(address)] += times
    return dict(found)


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> list[tuple[str, int]]:
    """(function, how many more in `after`), the largest first, those without one left out."""
    names = {*before, *after}
    found = [(name, after.get(name, 0) - before.get(name, 0)) for name in names]
    return sorted(((n, d) for n, d in found if d), key=lambda one: (-abs(one[1]), one[0]))
