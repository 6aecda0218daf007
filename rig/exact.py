"""`rig exact`: one static program on a machine whose every run is the same run."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rig import initramfs, kbuild, kconfig, process, splat
from rig.config import Config, KernelConfig
from rig.errors import (
    BootError,
    CrashError,
    InfrastructureError,
    LostMachineError,
    RigError,
    UsageError,
)
from rig.initramfs import Guest
from rig.kbuild import Kernel
from rig.machine import exact as machine
from rig.machine.exact import ExactPlan
from rig.progress import QUIET, Progress
from rig.record import fresh
from rig.results import Splat, to_json
from rig.store import Store

UNIT = "instructions"
STREAMS = (*machine.PORTS, "console.log")
FILE_NAME = "exact.json"

_ARCH = "x86_64"
_LAST_LINE = "rig: exact: end"
# One tick of a kernel with HZ=250: by so much at most another seed moves the program's start.
_SKIP_MAX = 4_000_000
_SIGNAL_OFFSET = 128  # as a shell says that a program was killed
# Wall seconds for the boot, and for one second of the machine's clock: an idle host needs some 3
# and 10 of them, a busy one with an expensive kernel many times that.
_BOOT_S, _PER_GUEST_S = 180.0, 120.0
_TIME_UNITS = frozenset({"ns", "us", "ms", "s", "sec", "seconds", "nanoseconds"})
_DID_NOT_END = "did not end within"


class ProgramFailedError(RigError):
    """The program did not end by itself, or left tasks that cannot be ended (exit 1)."""

    exit_code = 1


class DifferenceError(RigError):
    """Two runs that had to be the same were not (exit 1)."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be run. argv[0]: a static program or a .c file on this host.

    seed: 0 for the calm timeline, the one to measure in; every other has interrupts at moments of
    its own. timeout_s: of the machine's clock.
    files: PATH or PATH=NAME, put beside the program. ext4: one of 32 MiB on /ext4.
    results: instead of the checkout's results/.
    """

    argv: tuple[str, ...]
    cpus: int = 1
    seed: int = 0
    timeout_s: int = 10
    files: tuple[str, ...] = ()
    ext4: bool = False
    append: str = ""
    results: Path | None = None


@dataclass(frozen=True)
class Figure:
    """A measurement as the program printed it: one line of JSON with these keys.

    window: which of its windows it is (images/exact/exact.h), 0 for none.
    """

    name: str
    value: int | float
    unit: str
    window: int = 0


@dataclass(frozen=True)
class Prepared:
    """A machine ready to be started, any number of times.

    facts: everything that decides what it does, but for the kernel's own. deadline_s: wall seconds.
    """

    plan: ExactPlan
    kernel: Kernel
    facts: Mapping[str, str]
    deadline_s: float
    directory: Path


@dataclass(frozen=True)
class Ran:
    """One run that came to its end.

    streams: bytes by name, of STREAMS. exit_code: the program's own, 128 + N when signal N killed
    it. clock: by how much the machine's clock advanced from before the program's fork to after its
    end: instructions of all CPUs and what they slept.
    """

    exit_code: int
    streams: Mapping[str, bytes]
    clock: int
    host_s: float
    figures: tuple[Figure, ...] = ()
    notices: tuple[str, ...] = field(default=())


# -- before the boot ----------------------------------------------------------------------------


def prepare(
    request: Request, config: Config, kernel: KernelConfig, store: Store, progress: Progress = QUIET
) -> Prepared:
    """Check the program, build the kernel, lay out the machine; nothing is started.

    Raises UsageError for a program that cannot run there, before anything is built.
    """
    _check(request, kernel)
    source = Path(request.argv[0])
    program = b"" if source.suffix == ".c" else initramfs.load_program(source, kernel.arch)
    files = initramfs.load_files(request.files)
    built = kbuild.build(config, kernel, store, progress=progress)
    symbols = kconfig.values(built.config.read_text(encoding="utf-8"))
    _check_kernel(built, symbols, request.ext4)
    place = fresh(request.results or config.root / "results", f"{kernel.name}-exact")
    if not program:
        made = initramfs.compile_program(source, place, built.headers, config.root)
        program = initramfs.load_program(made, kernel.arch)
    guest = Guest(
        argv=(f"./{source.stem if source.suffix == '.c' else source.name}", *request.argv[1:]),
        program=program,
        files=files,
        skip=skip_of(request.seed),
        seed=request.seed,
        timeout_s=request.timeout_s,
        ext4=request.ext4,
    )
    root = initramfs.archive(guest, config.root, store)
    (place / "initramfs").write_bytes(root)
    disk = initramfs.RAM_DISK_MIB if request.ext4 else 0
    plan = ExactPlan(
        cpus=request.cpus,
        seed=request.seed,
        kernel=built.boot,
        initramfs=place / "initramfs",
        append=machine.kernel_command_line(symbols, ram_disk_mib=disk, append=request.append),
        output=place,
    )
    deadline_s = _BOOT_S + _PER_GUEST_S * request.timeout_s
    return Prepared(plan, built, _facts(plan, guest, root), deadline_s, place)


def skip_of(seed: int) -> int:
    """How many instructions a seed lets pass before the program starts; 0 none. Pure."""
    if not seed:
        return 0
    hashed = hashlib.sha256(str(seed).encode()).digest()
    return int.from_bytes(hashed[:8], "little") % _SKIP_MAX


def _check(request: Request, kernel: KernelConfig) -> None:
    if kernel.arch != _ARCH:
        raise UsageError(f"kernel {kernel.name} is for {kernel.arch}; the exact machine is {_ARCH}")
    if not 1 <= request.cpus <= machine.MAX_CPUS:
        raise UsageError(f"--cpus {request.cpus}", hint=f"between 1 and {machine.MAX_CPUS}")
    if not 0 <= request.seed < 1 << 63:
        raise UsageError(f"--seed {request.seed}", hint="a number from 0 to 2^63 - 1")
    if request.timeout_s < 1:
        raise UsageError(f"--timeout {request.timeout_s}", hint="at least one second")
    if not shutil.which(machine.BINARY):
        raise InfrastructureError(
            f"{machine.BINARY} is not installed",
            hint="`rig doctor` prints the line that installs what is missing",
        )


def _check_kernel(kernel: Kernel, symbols: Mapping[str, str], ext4: bool) -> None:
    needed = (*machine.NEEDED, *(machine.NEEDED_BY_EXT4 if ext4 else ()))
    missing = [f"CONFIG_{name}=y" for name in needed if symbols.get(name) != "y"]
    if missing:
        raise UsageError(
            f"kernel {kernel.name} lacks what the exact machine needs: {' '.join(missing)}",
            hint="put it into a fragment of that kernel",
        )


def _facts(plan: ExactPlan, guest: Guest, root: bytes) -> dict[str, str]:
    version = process.run([machine.BINARY, "--version"], timeout_s=20).output.splitlines()[0]
    return {
        "kind": "exact",
        "qemu": version,
        "cpu": machine.CPU,
        "cpus": str(plan.cpus),
        "memory_mib": str(machine.MEMORY_MIB),
        "seed": str(plan.seed),
        "clock_start": machine.CLOCK_START,
        "append": plan.append,
        "argv": shlex.join(guest.argv),
        "program_sha256": hashlib.sha256(guest.program).hexdigest(),
        "initramfs_sha256": hashlib.sha256(root).hexdigest(),
        "command": shlex.join(machine.command_line(plan)),
    }


# -- one run ------------------------------------------------------------------------------------


def run(
    prepared: Prepared,
    *,
    name: str = "",
    plugin: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Ran:
    """Run it once, to the machine's end.

    name: a directory of its own among the results. plugin: watched with it, and on_line gets QEMU's
    log. Raises CrashError for any splat, BootError when init did not speak, LostMachineError when
    the machine hung or went away, ProgramFailedError at the program's deadline.
    """
    place = prepared.directory / name
    place.mkdir(exist_ok=True)
    plan = replace(prepared.plan, output=place, plugin=plugin)
    started = time.monotonic()
    hung = _start(plan, prepared.deadline_s, on_line)
    streams = {one: _recorded(place / one) for one in STREAMS}
    _judge_machine(plan, streams, hung)
    exit_code, clock = _judge_program(plan, verdict(streams["verdict"]))
    found = figures(streams["stdout"])
    host_s = round(time.monotonic() - started, 2)
    ran = Ran(exit_code, streams, clock, host_s, found, _unit_notices(found))
    (place / FILE_NAME).write_bytes(to_json(described(prepared, ran, place)))
    return ran


def _start(plan: ExactPlan, deadline_s: float, on_line: Callable[[str], None] | None) -> bool:
    """Whether the machine had to be stopped at the deadline."""
    log = None if on_line else plan.output / "qemu.log"
    words = machine.command_line(plan)
    try:
        done = process.run(words, timeout_s=deadline_s, log=log, on_line=on_line, check=False)
    except InfrastructureError as error:
        if _DID_NOT_END not in error.message:
            raise
        return True
    if done.returncode:
        raise InfrastructureError(
            f"{machine.BINARY} failed with exit code {done.returncode}",
            output=done.output[-4000:],
            reproduce=done.command,
        )
    return False


def _recorded(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _judge_machine(plan: ExactPlan, streams: Mapping[str, bytes], hung: bool) -> None:
    """Raise unless the machine ran to its proper end with a clean console that was read whole."""
    console = streams["console.log"]
    splats = splat.scan(console)
    if splats:
        raise _crashed(plan, splats)
    tail = console.decode(errors="replace").replace("\r", "")[-4000:]
    again = shlex.join(machine.command_line(plan))
    if b"\n" not in streams["verdict"]:
        why = "hung before" if hung else "ended before"
        raise BootError(f"the machine {why} its init ran", output=tail, reproduce=again)
    if hung:
        raise LostMachineError(
            "the machine hung: it did not end by itself", output=tail, reproduce=again
        )
    if not streams["verdict"].endswith(b"\nend\n") or _LAST_LINE.encode() not in console:
        raise LostMachineError("the machine went away", output=tail, reproduce=again)


def _crashed(plan: ExactPlan, splats: Sequence[Splat]) -> CrashError:
    return CrashError(
        f"the kernel reported: {splats[0].title}",
        output=splats[0].text,
        hint=f"the whole console is in {plan.console}",
        reproduce=shlex.join(machine.command_line(plan)),
    )


def verdict(said: bytes) -> dict[str, str]:
    """What init wrote to its own port, by first word. Pure."""
    lines = (line.partition(" ") for line in said.decode(errors="replace").splitlines())
    return {key: rest for key, _, rest in lines}


def _judge_program(plan: ExactPlan, said: Mapping[str, str]) -> tuple[int, int]:
    """The program's exit code and the clock."""
    again = shlex.join(machine.command_line(plan))
    if "error" in said:
        raise InfrastructureError(f"the machine's init: {said['error']}", reproduce=again)
    if "timeout" in said:
        raise ProgramFailedError(
            "the program did not end in its time",
            hint="--timeout SECONDS gives it more of the machine's seconds",
            output=_tail(plan.port("stderr")),
            reproduce=again,
        )
    if "leftover" in said:
        raise ProgramFailedError("the program left tasks that cannot be ended", reproduce=again)
    code = int(said["exit"]) if "exit" in said else _SIGNAL_OFFSET + int(said["signal"])
    return code, int(said["clock"])


def _tail(path: Path) -> str:
    return _recorded(path).decode(errors="replace")[-2000:]


def figures(stdout: bytes) -> tuple[Figure, ...]:
    """Lines of JSON that have a name, a numeric value and a unit. Pure."""
    found = []
    for line in stdout.splitlines():
        if line.startswith(b"{") and (one := _figure(line)):
            found.append(one)
    return tuple(found)


def _figure(line: bytes) -> Figure | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    match value:
        case {"name": str(name), "value": int() | float() as number, "unit": str(unit)}:
            return Figure(name, number, unit, int(value.get("window", 0)))
    return None


def _unit_notices(found: Sequence[Figure]) -> tuple[str, ...]:
    """A sentence for each figure that calls instructions a time."""
    return tuple(
        f"{one.name} is given in {one.unit}: on this machine that is a number of instructions"
        for one in found
        if one.unit.lower() in _TIME_UNITS
    )


def described(prepared: Prepared, ran: Ran, place: Path) -> dict[str, object]:
    """Everything of a run that another program could want, and all that decided it."""
    return {
        "exit_code": ran.exit_code,
        "measurements": ran.figures,
        "notices": ran.notices,
        "clock": ran.clock,
        "stdout": ran.streams["stdout"].decode(errors="replace"),
        "stderr": ran.streams["stderr"].decode(errors="replace"),
        "kernel": prepared.kernel.facts,
        "machine": prepared.facts,
        "directory": str(place),
        "host_s": ran.host_s,
    }


# -- the same again -----------------------------------------------------------------------------


def repeat(prepared: Prepared, times: int, progress: Progress = QUIET) -> Ran:
    """Run it so often and compare every byte; the first run.

    Raises DifferenceError naming the first place where a run differs from the first one.
    """
    progress.stage("exact runs", times)
    first = run(prepared, name="1")
    progress.step(f"{first.host_s} s", 1)
    for number in range(2, times + 1):
        again = run(prepared, name=str(number))
        check_same(first, again, f"run {number}", prepared.directory)
        progress.step(f"{again.host_s} s", number)
    return first


def check_same(first: Ran, other: Ran, name: str, directory: Path) -> None:
    """Raise DifferenceError unless both have the same bytes in every stream."""
    for stream in STREAMS:
        if first.streams[stream] != other.streams[stream]:
            raise DifferenceError(
                f"{name} is not the first run: {stream}, line {_place(first, other, stream)}",
                hint=f"both are in {directory}; if nothing of the machine changed, this is a bug",
                output=_both(first.streams[stream], other.streams[stream]),
            )


def _place(first: Ran, other: Ran, stream: str) -> int:
    return first_difference(first.streams[stream], other.streams[stream])[0]


def _both(first: bytes, other: bytes) -> str:
    _, one, two = first_difference(first, other)
    return f"first: {one.decode(errors='replace')}\nother: {two.decode(errors='replace')}"


def first_difference(one: bytes, two: bytes) -> tuple[int, bytes, bytes]:
    """(line number from 1, that line of both) of the first line in which two texts differ. Pure.

    They differ; the shorter one has empty lines where it has ended.
    """
    left, right = one.split(b"\n"), two.split(b"\n")
    length = max(len(left), len(right))
    left += [b""] * (length - len(left))
    right += [b""] * (length - len(right))
    number = next((n for n in range(length) if left[n] != right[n]), length - 1)
    return number + 1, left[number], right[number]
