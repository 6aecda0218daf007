"""The stacks of a machine's CPUs, unwound by gdb over QEMU's own gdbstub: on any architecture, also
where the kernel says nothing.
"""

from __future__ import annotations

import platform
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol

from rig import process
from rig.errors import InfrastructureError

LIMIT_S = 60.0  # a vmlinux has some 300 MB of debug info
_FRAMES = 24
_OWN = {"x86_64": "x86_64", "arm64": "aarch64", "riscv64": "riscv64"}
# What gdb says of itself, and of what it has no debug info of.
_CHATTER = re.compile(
    r"warning: |\[Switching to|\[Inferior|Remote debugging|Detaching|0x\w+ in \?\?"
)
_THREAD = re.compile(r"Thread (?P<thread>[\d.]+) .*", re.ASCII)


class Asked(Protocol):
    """What is needed of rig.machine.qmp.Monitor."""

    def command(self, name: str, **arguments: object) -> Any: ...


def debugger(arch: str) -> str:
    """The gdb that knows this architecture (as of a kernel's), "" where there is none."""
    own = _OWN.get(arch, arch) == platform.machine()
    names = ("gdb-multiarch", *(("gdb",) if own else ()))
    return next((name for name in names if shutil.which(name)), "")


def stacks(monitor: Asked, vmlinux: Path, arch: str, limit_s: float = LIMIT_S) -> str:
    """The stack of each CPU in gdb's words, with source lines; the machine runs on after it.

    InfrastructureError where there is no gdb for it, or it does not come to its end in time.
    """
    gdb = debugger(arch)
    if not gdb:
        raise InfrastructureError(
            f"there is no gdb for {arch}", hint="apt-get install gdb-multiarch"
        )
    # Of its own, and with a short name: a socket is in there.
    with tempfile.TemporaryDirectory(prefix="rig-gdb-") as place:
        path = f"{place}/stub"
        running = bool(monitor.command("query-status")["running"])
        _human(monitor, f"gdbserver unix:{path},server=on,wait=off")
        try:
            done = process.run(
                [gdb, "-nx", "-batch", "-iex", "set auto-load off", *_ARCHITECTURE.get(arch, ()),
                 "-ex", f"target remote {path}", "-ex", f"thread apply all backtrace {_FRAMES}",
                 "-ex", "detach", vmlinux],
                timeout_s=limit_s, check=False, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            )  # fmt: skip
        finally:
            _human(monitor, "gdbserver none")
            # A debugger stops what it looks at, and lets it go on; it may have been killed before.
            monitor.command("cont" if running else "stop")
    found = told(done.output)
    if not found:
        raise InfrastructureError(f"{gdb} unwound nothing", output=done.output[-2000:])
    return found


def told(output: str) -> str:
    """What gdb said, but for what is about itself; "" where no thread is in it. Pure."""
    lines = [line.rstrip() for line in output.splitlines()]
    first = next((n for n, line in enumerate(lines) if _THREAD.match(line)), None)
    if first is None:
        return ""
    return "\n".join(line for line in lines[first:] if line and not _CHATTER.match(line))


_ARCHITECTURE = {
    "arm64": ("-ex", "set architecture aarch64"),
    "riscv64": ("-ex", "set architecture riscv:rv64"),
}


def _human(monitor: Asked, line: str) -> str:
    words: dict[str, object] = {"command-line": line}
    return str(monitor.command("human-monitor-command", **words))
