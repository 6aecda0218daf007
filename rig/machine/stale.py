"""Breakpoints of a kernel's own code patching that an emulator ran although they were gone."""

from __future__ import annotations

import re

_INT3 = re.compile(r"\bint3: 0000 ")
_CODE = re.compile(r"Code: (?P<before>(?:[0-9a-f]{2} )*)<[0-9a-f]{2}>")


def fell_over_nothing(console: str) -> bool:
    """Whether the kernel has met breakpoints, and none that was there. Pure.

    The trap leaves RIP behind the breakpoint (cc): where the byte before it is another one, memory
    had no breakpoint when the kernel looked, and the CPU ran what had been there before.
    """
    met = [found.end() for found in _INT3.finditer(console)]
    shown = [_CODE.search(console, start) for start in met]
    there = [code["before"].split()[-1:] if code else [] for code in shown]
    return bool(met) and all(last not in ([], ["cc"]) for last in there)
