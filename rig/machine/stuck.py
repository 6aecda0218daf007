"""What a CPU of a machine that does not answer is at: registers and stack, by QEMU's account."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from rig.profile import UNKNOWN, USER, Symbols

_WORDS = 192  # of a stack that are read
_FRAMES = 24
_VALUE = re.compile(r"0x([0-9a-f]{16})")
_REGISTER = re.compile(r"\b(RIP|RSP|RFL)=([0-9a-f]{8,16})")
_INTERRUPTS = 1 << 9
_SHOWN = re.compile(r"\bNMI backtrace for cpu (\d+)\b")


class Asked(Protocol):
    """What is needed of rig.machine.qmp.Monitor."""

    def command(self, name: str, **arguments: object) -> Any: ...


def cpu(monitor: Asked, number: int, symbols: Symbols) -> str:
    """One CPU in the words of a kernel's trace: where it is, and what may be its callers.

    Raises what the monitor does.
    """
    said = _human(monitor, "info registers", number)
    registers = {name: int(value, 16) for name, value in _REGISTER.findall(said)}
    if "RIP" not in registers:
        # Another architecture's: as QEMU has them.
        return f"CPU {number}, as QEMU sees it:\n{said.strip() or 'nothing of its registers'}"
    stack: list[int] = []
    if registers.get("RSP", 0) >> 63:
        words = _human(monitor, f"x /{_WORDS}gx 0x{registers['RSP']:x}", number)
        stack = [int(value, 16) for value in _VALUE.findall(words)]
    return told(number, registers["RIP"], registers.get("RFL", _INTERRUPTS), stack, symbols)


def told(number: int, rip: int, flags: int, stack: Sequence[int], symbols: Symbols) -> str:
    """The same from what was read. Pure.

    Every word of the stack that points into a function is shown, as a guess: a return address that
    was left there looks like one that is in use.
    """
    off = "" if flags & _INTERRUPTS else ", interrupts off"
    where = symbols.place(rip) if rip >> 63 else USER
    lines = [f"CPU {number}, as QEMU sees it{off}:", f"RIP: 0010:{where}"]
    found = [place for word in stack if (place := symbols.place(word)) not in (UNKNOWN, USER)]
    lines += [f" ? {place}" for place in found[:_FRAMES]]
    return "\n".join(lines)


def shown_by_kernel(console: str) -> set[int]:
    """CPUs of which the kernel has told where they are, to an NMI (lib/nmi_backtrace.c). Pure."""
    return {int(found[1]) for found in _SHOWN.finditer(console)}


def _human(monitor: Asked, line: str, number: int) -> str:
    words: dict[str, object] = {"command-line": line, "cpu-index": number}
    return str(monitor.command("human-monitor-command", **words))
