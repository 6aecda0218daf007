"""How many machines a host can have side by side: its cores and memory against a machine's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rig.config import BoardConfig, MachineConfig
from rig.errors import UsageError

AUTO = 0

# What QEMU takes beside the guest's memory: 230 to 330 MiB were seen under TCG, most of it
# translated code; and what the host and the rig need for themselves.
QEMU_MIB = 350
_RESERVE_MIB = 512
_GROUPS = Path("/sys/fs/cgroup")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Host:
    """What this host can give now."""

    cores: int
    memory_mib: int


@dataclass(frozen=True)
class Budget:
    """What a run may use.

    machines: side by side. boots_at_once: of them. spares: how many may be booted ahead beside
    them. load: vCPUs for each core, 1.0 when there are enough cores: deadlines grow by it.
    notices: for every verdict.
    """

    machines: int = 1
    boots_at_once: int = 1
    spares: int = 0
    load: float = 1.0
    notices: tuple[str, ...] = ()


def budget(
    machine: MachineConfig | BoardConfig,
    asked: int,
    *,
    ahead: bool = False,
    host: Host | None = None,
) -> Budget:
    """The budget for `asked` machines (AUTO: as many as the host has cores and memory for).

    ahead: spares are of use. More vCPUs than cores are allowed, and noticed. UsageError when the
    memory cannot hold what is asked for. A board is one machine, whatever the host has.
    """
    if isinstance(machine, BoardConfig):
        if asked > 1:
            raise UsageError(f"-n {asked}: {machine.name} is one board")
        return Budget()
    host = host or this_host()
    needs_mib = machine.memory_mib + QEMU_MIB
    fit = max(0, (host.memory_mib - _RESERVE_MIB) // needs_mib)
    machines = asked or max(1, min(host.cores // machine.cpus, fit))
    if machines > fit and machines > 1:
        raise UsageError(
            f"{machines} machines of {machine.memory_mib} MiB need {machines * needs_mib} MiB, "
            f"and {host.memory_mib} MiB are available",
            hint=f"-n {max(1, fit)} fits, or a [machine.NAME] with less memory_mib",
        )
    spares = min(_spares(machine, machines, host), fit - machines) if ahead else 0
    load = max(1.0, (machines * machine.cpus + spares) / host.cores)
    load = load if machines > 1 or spares > 0 else 1.0
    return Budget(
        machines,
        boots_at_once=max(1, host.cores // machine.cpus),
        spares=max(0, spares),
        load=load,
        notices=(_overload(machine, machines, host, load),) if machines > 1 and load > 1 else (),
    )


def _spares(machine: MachineConfig, machines: int, host: Host) -> int:
    """How many guests are booted ahead: one core's work each, and idle when they are there.

    A single machine gets one wherever there are two cores, though its vCPUs may be as many: it
    waits for each boot otherwise, and few programs keep two of them busy.
    """
    least = 1 if machines == 1 and host.cores > 1 else 0
    return min(machines, max(least, host.cores - machines * machine.cpus))


def parse(words: str) -> int:
    """What -n is given: a number from 1, or "auto" (AUTO). UsageError for anything else."""
    if words == "auto":
        return AUTO
    if not words.isdecimal() or not 1 <= int(words) <= 256:
        raise UsageError(f"-n {words}: not a number of machines", hint="1 to 256, or auto")
    return int(words)


def _overload(machine: MachineConfig, machines: int, host: Host, load: float) -> str:
    return (
        f"{machines} machines of {machine.cpus} vCPU(s) share {host.cores} core(s): "
        f"deadlines are {load:.3g} times as long"
    )


def this_host() -> Host:
    """The cores this process may use, and the memory it may still have (MemAvailable, or less
    where a control group allows less)."""
    cores, memory_mib = len(os.sched_getaffinity(0)), _available_mib()
    if (quota := _read(_GROUPS / "cpu.max", _quota)) is not None:
        cores = max(1, min(cores, round(quota)))
    if (limit := _read(_GROUPS / "memory.max", _mib)) is not None:
        used = _read(_GROUPS / "memory.current", _mib) or 0
        cached = _read(_GROUPS / "memory.stat", _cached_mib) or 0
        memory_mib = min(memory_mib, max(0, limit - used + cached))
    return Host(cores, memory_mib)


def _available_mib() -> int:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    assert found, "every kernel since 3.14 has MemAvailable"
    return int(found[1]) // 1024


def _quota(words: str) -> float:
    quota, period = words.split()
    return int(quota) / int(period)


def _mib(words: str) -> int:
    return int(words) >> 20


def _cached_mib(words: str) -> int:
    """Pages of files, which the kernel gives back when memory is asked for."""
    counts = re.findall(r"^(?:in)?active_file (\d+)$", words, re.MULTILINE)
    return sum(int(count) for count in counts) >> 20


def _read(path: Path, meaning: Callable[[str], _T]) -> _T | None:
    """What a control group's file says, or None where it is not there or sets no limit."""
    try:
        words = path.read_text(encoding="ascii")
    except OSError:
        return None
    return None if words.startswith("max") else meaning(words)
