"""`rig exact`: one static program on a machine whose every run is the same run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rig import initramfs, kbuild, kconfig, process, splat
from rig.budget import AUTO, budget
from rig.config import Config, KernelConfig, MachineConfig
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
_BOOT_S, _PER_GUEST_S = 120.0, 60.0
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


@dataclass(frozen=True)
class Running:
    """A machine that has been started; finish() ends it in every case."""

    prepared: Prepared
    plan: ExactPlan
    process: subprocess.Popen[bytes]
    started: float


def run(prepared: Prepared) -> Ran:
    """Run it once, to the machine's end; raises what finish() does."""
    return finish(start(prepared, ""))


def start(prepared: Prepared, name: str) -> Running:
    """Power on. name: a directory of its own among the results, or ""."""
    plan = _plan(prepared, name)
    with (plan.output / "qemu.log").open("wb") as log:
        words = machine.command_line(plan)
        qemu = process.spawn(words, stdout=log, stderr=subprocess.STDOUT)
    return Running(prepared, plan, qemu, time.monotonic())


def finish(running: Running) -> Ran:
    """Wait for the machine's end, and judge what it said.

    Raises CrashError for any splat, BootError when init did not speak, LostMachineError when the
    machine hung or went away, ProgramFailedError at the program's deadline.
    """
    left_s = running.started + running.prepared.deadline_s - time.monotonic()
    hung = False
    try:
        running.process.wait(max(0.0, left_s))
    except subprocess.TimeoutExpired:
        hung = True
    finally:
        code = process.end(running.process)
    if code and not hung:
        raise _qemu_failed(running.plan, code, _tail(running.plan.output / "qemu.log"))
    return _judge(running.prepared, running.plan, hung, time.monotonic() - running.started)


def watch(prepared: Prepared, name: str, plugin: Path, on_line: Callable[[str], None]) -> Ran:
    """Run it once with a plugin; on_line gets QEMU's log as it comes. Raises as finish()."""
    plan = replace(_plan(prepared, name), plugin=plugin)
    started, hung = time.monotonic(), False
    words, limit_s = machine.command_line(plan), prepared.deadline_s
    try:
        done = process.run(words, timeout_s=limit_s, on_line=on_line, check=False)
        if done.returncode:
            raise _qemu_failed(plan, done.returncode, done.output[-4000:])
    except InfrastructureError as error:
        if _DID_NOT_END not in error.message:
            raise
        hung = True
    return _judge(prepared, plan, hung, time.monotonic() - started)


def _plan(prepared: Prepared, name: str) -> ExactPlan:
    place = prepared.directory / name
    place.mkdir(exist_ok=True)
    return replace(prepared.plan, output=place)


def _qemu_failed(plan: ExactPlan, code: int, output: str) -> InfrastructureError:
    return InfrastructureError(
        f"{machine.BINARY} failed with exit code {code}",
        output=output,
        reproduce=shlex.join(machine.command_line(plan)),
    )


def _judge(prepared: Prepared, plan: ExactPlan, hung: bool, host_s: float) -> Ran:
    """The run, saved; raises where it is none."""
    streams = {one: _recorded(plan.output / one) for one in STREAMS}
    _judge_machine(plan, streams, hung)
    exit_code, clock = _judge_program(plan, verdict(streams["verdict"]))
    found = figures(streams["stdout"])
    ran = Ran(exit_code, streams, clock, round(host_s, 2), found, _unit_notices(found))
    (plan.output / FILE_NAME).write_bytes(to_json(described(prepared, ran, plan.output)))
    return ran


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
    """Run it so often, as many side by side as the host has cores for; the first run.

    Every byte of each run is compared with the first one: DifferenceError names the first place
    where one differs.
    """
    progress.stage("exact runs", times)
    first: Ran | None = None
    with contextlib.ExitStack() as stack:
        running: deque[Running] = deque()
        for number in range(1, times + 1):
            while len(running) < _side_by_side() and number + len(running) <= times:
                running.append(start(prepared, str(number + len(running))))
                stack.callback(process.end, running[-1].process)
            ran = finish(running.popleft())
            first = first or ran
            check_same(first, ran, f"run {number}", prepared.directory)
            progress.step(f"run {number}", number)
    assert first
    return first


def _side_by_side() -> int:
    """Each machine is one busy thread, whatever its CPUs."""
    shape = MachineConfig("exact", cpus=1, memory_mib=machine.MEMORY_MIB)
    return budget(shape, AUTO).machines


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
