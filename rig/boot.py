"""`rig boot`: a machine with a shell in it, or with one command."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rig import report
from rig.config import Config
from rig.errors import (
    BootError,
    CrashError,
    HangError,
    InfrastructureError,
    LostMachineError,
    UsageError,
)
from rig.guest import Guest, Sight
from rig.lab import KernelLab, open_lab
from rig.machine import qemu
from rig.machine.baremetal import BaremetalMachine
from rig.machine.qemu import QemuMachine
from rig.progress import QUIET, Progress
from rig.record import fresh
from rig.results import Splat, to_json
from rig.session import ConnectionLost, Session, SessionTimeout
from rig.vigil import Vigil

AnyMachine = QemuMachine | BaremetalMachine
Explain = Callable[[Sequence[Splat]], Sequence[Splat]]  # with source lines, as Lab.explain
_SHOWN = 60  # lines of a report
# Wall seconds on a machine of slowdown 1.
_LAST_WORDS_S, _MODULES_S = 10.0, 600.0


@dataclass(frozen=True, kw_only=True)
class Request:
    """`rig boot`. argv: the command to run in the guest, None for a shell. cold: from power-on,
    even where a snapshot of the ready machine is kept.
    """

    machine: str | None = None
    argv: tuple[str, ...] | None = None
    append: str = ""
    dry_run: bool = False
    gdb: bool = False
    cold: bool = False
    json: bool = False


def run(
    request: Request,
    config: Config,
    progress: Progress = QUIET,
    say: Callable[[str], object] = sys.stdout.write,
) -> int:
    """Boot, then a shell, or the command with our streams; the exit code of that.

    Everything that goes wrong with the rig itself is raised. `say` gets what a person or a
    program asked to read: the QEMU line, or facts as JSON.
    """
    if request.dry_run and request.gdb:
        raise UsageError(
            "--dry-run starts nothing that a debugger could wait for",
            hint="add `-gdb tcp:127.0.0.1:1234 -S` to the line that --dry-run alone prints",
        )
    lab = open_lab(config, config.kernel(), request.machine, progress, cold=request.cold)
    if request.dry_run:
        config.emulated(request.machine)  # there is no line that boots a board
    lab.prepare(())
    if request.dry_run:
        with tempfile.TemporaryDirectory() as nowhere:
            machine = lab.machine(Path(nowhere), append=request.append, cold=True)
            assert isinstance(machine, QemuMachine)
            say(qemu.dry_run(machine.plan, lab.image) + "\n")
        return 0
    directory = fresh(config.root / "results", f"{config.default_kernel}-boot")
    with contextlib.closing(lab):
        machine = lab.machine(directory, append=request.append, gdb=request.gdb)
        with _brought_back(machine):
            try:
                _power_on(request, machine, progress)
            except BootError as error:
                lab.check_store(error)
                if not isinstance(error, HangError):  # that one has been made to say something
                    _tell(machine, lab.explain(machine.console.splats(unfinished=True)))
                raise
            progress.close()
            try:
                with machine.connect() as session:
                    _furnish(request, lab, machine, session)
                    return _in_guest(request, machine, session, say, lab.explain)
            except ConnectionLost as error:
                raise _explained(machine, error, lab.explain) from error


@contextlib.contextmanager
def _brought_back(machine: AnyMachine) -> Iterator[None]:
    """A machine that is closed after this; where a board does not come back, what was before that
    is told as well.
    """
    try:
        yield
    except BaseException as error:
        try:
            machine.close()
        except InfrastructureError as lost:
            lost.message += f" (after: {error or type(error).__name__})"
            raise lost from error
        raise
    machine.close()


def _power_on(request: Request, machine: AnyMachine, progress: Progress) -> None:
    for notice in machine.notices:
        progress.note(f"notice: {notice}")
    if request.gdb:
        # No progress but what was asked for: nothing happens until somebody has read it.
        sys.stderr.write(f"waiting for a debugger: {machine.attach}\n")
    progress.stage("boot")
    machine.boot()


def _furnish(request: Request, lab: KernelLab, machine: AnyMachine, session: Session) -> None:
    """Give the machine its kernel's modules, while it is looked after as by a command."""
    modules = lab.modules
    if modules is None:
        return

    def put() -> int:
        limit_s = _MODULES_S * machine.slowdown
        try:
            session.put(modules.directory, modules.place, timeout_s=limit_s)
        except SessionTimeout as error:
            raise InfrastructureError(
                f"the kernel's modules could not be sent within {limit_s:.0f} s: {error.message}"
            ) from error
        return 0

    if request.gdb:
        put()
        return
    vigil = Vigil(Sight(machine, session), machine.slowdown, session.close)
    watched(vigil, machine, put, lambda: 0)


def _in_guest(
    request: Request,
    machine: AnyMachine,
    session: Session,
    say: Callable[[str], object],
    explain: Explain,
) -> int:
    """The shell, or the command; with json its output is part of the one object on stdout.

    Splats are told on stderr; the exit code stays that of the command.
    """
    if request.json:
        return _as_json(request, machine, session, say, explain)
    if request.argv is None:
        code = session.interactive()
        _tell(machine, explain(machine.console.splats(unfinished=True)))
        return code
    streams = sys.stdin.buffer, sys.stdout.buffer, sys.stderr.buffer
    code = _command(request, request.argv, machine, session, streams)
    _tell(machine, _last_look(machine, session, explain))
    return code


def _command(
    request: Request,
    argv: Sequence[str],
    machine: AnyMachine,
    session: Session,
    streams: tuple[BinaryIO, BinaryIO, BinaryIO],
) -> int:
    """Its exit code. A machine that waits for a debugger may be silent for as long as it likes."""
    if request.gdb:
        return session.stream(argv, *streams)
    vigil = Vigil(Sight(machine, session), machine.slowdown, session.close)
    stdin, stdout, stderr = streams
    told = _Told(stdout), _Told(stderr)
    run = functools.partial(session.stream, argv, stdin, *told)
    return watched(vigil, machine, run, lambda: sum(one.bytes for one in told))


class _Told:
    """A stream that knows how much it was told."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.bytes = stream, 0
        self.flush = stream.flush

    def write(self, data: bytes) -> int:
        self.bytes += len(data)
        return self._stream.write(data)


def watched(
    vigil: Vigil, machine: AnyMachine, command: Callable[[], int], heard: Callable[[], int]
) -> int:
    """A command's exit code, while the machine is looked after as in a test. heard: how much the
    command has said.

    LostMachineError, with what its tasks and CPUs do, when it hangs; else what the command raises.
    """
    try:
        with vigil.keep(heard):
            return command()
    except ConnectionLost as error:
        if not vigil.hung:
            raise
        hint = f"the whole console is in {machine.console.path}"
        raise LostMachineError(vigil.found, output=machine.diagnose(), hint=hint) from error


def _tell(machine: AnyMachine, splats: Sequence[Splat]) -> None:
    """Each in a line, and where it was; its trace with source lines below, where it has one."""
    for one in splats:
        where = f" at {report.blame(one)}" if one.place else ""
        sys.stderr.write(
            f"splat: {report.clean(one.title)}{where} (console {machine.console.path})\n"
        )
        if one.decoded:
            text = "\n".join(f"  | {line}" for line in report.clean_lines(one.decoded)[:_SHOWN])
            sys.stderr.write(f"{text}\n")


def _last_look(machine: AnyMachine, session: Session, explain: Explain) -> Sequence[Splat]:
    """The splats since power-on, once a mark has proved that the console told all of them.

    Raises CrashError when the kernel crashed after the command.
    """
    try:
        return explain(Guest(machine, session).farewell())
    except ConnectionLost as error:
        explained = _explained(machine, error, explain)
        if isinstance(explained, CrashError):
            raise explained from error
        words = str(error)
    except (SessionTimeout, TimeoutError, EOFError) as error:
        words = str(error)
    sys.stderr.write(f"rig: splats may be missing after the command: {words}\n")
    return explain(machine.console.splats(unfinished=True))


def _as_json(
    request: Request,
    machine: AnyMachine,
    session: Session,
    say: Callable[[str], object],
    explain: Explain,
) -> int:
    facts = dict(machine.facts)
    value: dict[str, object] = {"machine": facts, "notices": machine.notices}
    code, output, errors = 0, io.BytesIO(), io.BytesIO()
    if request.argv is not None:
        streams = sys.stdin.buffer, output, errors
        code = _command(request, request.argv, machine, session, streams)
        facts["first_command_s"] = f"{machine.age_s:.2f}"  # since QEMU's start
        value["command"] = request.argv
        value["exit_code"] = code
        value["stdout"] = output.getvalue().decode(errors="replace")
        value["stderr"] = errors.getvalue().decode(errors="replace")
    value["console"] = str(machine.console.path)
    value["splats"] = _last_look(machine, session, explain)
    say(to_json(value).decode())
    return code


def _explained(
    machine: AnyMachine, error: ConnectionLost, explain: Explain
) -> LostMachineError | CrashError:
    """The lost connection with what the console has to say about it."""
    machine.console.wait_closed(_LAST_WORDS_S * machine.slowdown)
    splats = machine.console.splats(unfinished=True)
    if not splats:
        return LostMachineError(error.message, output=machine.console.tail(), hint=error.hint)
    (first, *_) = explain(splats[:1])
    where = f" at {report.blame(first)}" if first.place else ""
    return CrashError(
        f"the kernel crashed: {first.title}{where}", output=first.decoded or first.text
    )
