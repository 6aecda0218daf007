"""A machine made by QEMU."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from rig import process
from rig.config import MachineConfig
from rig.console import Console
from rig.errors import BootError, HangError, InfrastructureError
from rig.image import Image
from rig.machine import coming, gdbstub, stuck
from rig.machine import snapshot as saved
from rig.machine.accel import Acceleration, accelerator
from rig.machine.plan import (
    Bootable,
    Plan,
    attach_line,
    binary,
    command_line,
    dry_run,
    forwarded_port,
    make_plan,
    without_kernel_threads,
)
from rig.machine.qmp import Monitor
from rig.machine.snapshot import Snapshot
from rig.machine.stale import fell_over_nothing
from rig.profile import Symbols
from rig.session import ConnectionLost, Endpoint, Line, Session

# What init says on the console (images/*/init.c).
READY, _NO_LINE, _DEAF = "rig: ready", "rig: no session line", "rig: nobody can log in"
_PANIC = r"Kernel panic - not syncing[^\n]*\n"

# Says so once only the session line's sshd is left, and the disk has been written.
_AT_REST = "rig: at rest"
_REST = (
    "sync; setsid sh -c '"
    'while [ "$(pgrep -c dropbear)" != 1 ]; do sleep 0.05; done; '
    f'echo "{_AT_REST}" >/dev/kmsg\' >/dev/null 2>&1 </dev/null &'
)

# Seconds from QEMU's start to READY with KVM on a current machine: the slowdown's unit.
REFERENCE_BOOT_S = 0.7
# The same from READY, and for a restored machine from QEMU's start, until it let us in.
REFERENCE_LOGIN_S, REFERENCE_RESTORE_S = 0.075, 0.17
MAX_SLOWDOWN = 20.0
# Deadlines of the boot itself, before a slowdown is known. A kernel with KASAN and lockdep on a
# busy runner's emulation takes 40 s, and one that runs its unit tests many minutes; but one that
# is alive has something to say.
_BOOT_S, _SILENCE_S, _LOGIN_S = 1800.0, 90.0, 30.0
_MONITOR_S, _DUMP_S = 30.0, 300.0
_WORDLESS_S = 5.0  # of a kernel that answers an NMI
_UNBORN = 4.0  # for a slowdown, of a kernel that is asked what it does before it is ready
_CPUS = "backtrace of all active CPUs"  # sysrq_handle_showallcpus
_SYSRQ = "sysrq: "  # drivers/tty/sysrq.c begins each answer so
_ROOTLESS = "Unable to mount root fs"
_VERIFY = "; whether the image is still as it was made: rig store verify"
_EARLY_S, _EARLY_LINES = 15.0, 40
# drivers/tty/serial/earlycon.c; elsewhere the device tree says where.
EARLY_CONSOLE = {"x86_64": "earlycon=uart8250,io,0x3f8", "riscv64": "earlycon=sbi"}
_SAVE_S, _RESTORE_S = 600.0, 60.0
_SCRATCH = "/var/tmp"  # as QEMU has it
_DEBUGGER_S = 24 * 3600.0
# The first QEMU whose TCG keeps track of code that the kernel patches.
_TCG_MENDED = (8, 1, 0)
_SOCKET_PATH = 107  # bytes a unix socket's path may have, unix(7)

# The kernel sends the "parent died" signal when the *thread* that started QEMU ends, so one
# thread that lives as long as the rig starts them all.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="qemu starter")


@functools.cache
def _with_parent() -> tuple[str, ...]:
    """Words that make a command die with its parent, where util-linux has them."""
    return ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()


class _NoLineError(Exception):
    """The guest serves no session on the line."""


class QemuMachine:
    """One QEMU, from start to end; a second boot needs a second object."""

    def __init__(
        self,
        config: MachineConfig,
        kernel: Bootable,
        image: Image,
        *,
        results: Path,
        append: str = "",
        gdb: bool = False,
        number: int = 0,
        accel_cache: Path | None = None,
        snapshot: Snapshot | None = None,
        saving: Path | None = None,
        shelf: int | None = None,
    ) -> None:
        """Decide all, start nothing but perhaps the KVM probe.

        results: gets console-<number>.log and qemu-<number>.log. append: more words for the
        kernel. gdb: wait for a debugger; `attach` is then the line to give to a person.
        snapshot: begin from this one instead of power-on. saving: a directory where the machine's
        disk and memory go to, for save(). shelf: an open file, the second disk (rig.shelf).
        """
        self._name, self._kernel, self._image = config.name, kernel, image
        self._acceleration = accelerator(
            kernel.boot, config.accel, qemu=binary(kernel.arch), cache=accel_cache
        )
        self.plan = make_plan(config, kernel, image, self._acceleration.name, append)
        self._whole = self.plan  # that from power-on, with the image itself, which stays
        self._snapshot, self._saving, self._shelf = snapshot, saving, shelf
        if saving:
            self.plan = saved.saving(self.plan, saving)
        self._config, self._extra = config, append
        self._dump_to = results / f"memory-{number}.kdump" if config.dump else None
        self._paths = results / f"console-{number}.log", results / f"qemu-{number}.log"
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._plug, self._cut = threading.Lock(), False
        self._console: Console | None = None
        self._monitor: Monitor | None = None
        self._monitor_line: socket.socket | None = None
        self._endpoint: Endpoint | None = None
        self._session: Session | None = None
        self._first_consoles: tuple[Path, ...] = ()
        self._started = self._boot_s = self._login_s = 0.0
        self._renewal: socket.socket | None = None
        self._session_line: socket.socket | None = None
        self._not_restored = ""
        self._panicked = False
        self.attach = ""
        if gdb:
            self._wait_for_debugger()

    @property
    def console(self) -> Console:
        """The serial line; there from the first moment of boot."""
        if self._console is None:
            raise InfrastructureError("the machine has not been started")
        return self._console

    @property
    def endpoint(self) -> Endpoint:
        """Where to log in; there once boot returned."""
        if not self._boot_s:
            raise InfrastructureError("the machine has not been booted")
        if self._endpoint is None:
            self._endpoint = self._make_endpoint(self._forwarded_port())
        return self._endpoint

    @property
    def acceleration(self) -> Acceleration:
        """How the CPU is made, and why so."""
        return self._acceleration

    @property
    def notices(self) -> tuple[str, ...]:
        """What every verdict must say about this machine."""
        emulated = (self._acceleration.notice,) if self._acceleration.notice else ()
        slips = (
            f"booted a second time: this QEMU's TCG lost track of patched code (int3, mended in "
            f"QEMU 8.1); the first console is {kept.name}"
            for kept in self._first_consoles
        )
        slow = ("its kernel has no virtio port: sessions are over TCP",) if self.lineless else ()
        cold = (f"booted from power-on: {self._not_restored}",) if self._not_restored else ()
        return (*emulated, *slips, *slow, *cold)

    @property
    def lineless(self) -> bool:
        """The guest has said that it serves no session line: its kernel has no virtio ports."""
        return self._console is not None and _NO_LINE in self._console.text()

    @property
    def consoles(self) -> tuple[Path, ...]:
        """The recorded consoles of this machine that are there, that of a lost boot first."""
        now = (self._paths[0],) if self._paths[0].exists() else ()
        return (*self._first_consoles, *now)

    @property
    def slowdown(self) -> float:
        """This boot's seconds from QEMU's start to READY over REFERENCE_BOOT_S, from 1 to 20.

        It so counts emulation, a busy host and a kernel with expensive checks alike. A restored
        machine is measured by its restore, times the snapshot's weight. Before that it is the
        upper bound.
        """
        if not self._boot_s:
            return MAX_SLOWDOWN
        measured = self._boot_s / REFERENCE_BOOT_S
        if self._snapshot:
            login_s = self._login_s or MAX_SLOWDOWN * REFERENCE_RESTORE_S
            measured = self._snapshot.weight * login_s / REFERENCE_RESTORE_S
        return min(MAX_SLOWDOWN, max(1.0, measured))

    @property
    def _patience(self) -> float:
        """How much more time it gets to answer what it is asked: its slowdown, once it is known."""
        return self.slowdown if self._boot_s else _UNBORN

    @property
    def _weight(self) -> float:
        """How much slower the boot was than the login after it lets expect, on the same host at
        the same time: a kernel with expensive checks boots slower than it does cryptography.
        """
        expected = (self._login_s - self._boot_s) / REFERENCE_LOGIN_S
        return max(1.0, self._boot_s / REFERENCE_BOOT_S / expected)

    @property
    def age_s(self) -> float:
        """Wall seconds since QEMU was started."""
        return time.monotonic() - self._started

    @property
    def facts(self) -> dict[str, str]:
        """For the report. start: "power-on" or the snapshot; ready_s, login_s: seconds from QEMU's
        start until the guest was ready (restored and renewed), and until we were logged in.
        """
        return {
            "name": self._name,
            "kind": "qemu",
            "qemu": self.plan.binary,
            "accelerator": self._acceleration.name,
            "cpus": str(self.plan.cpus),
            "memory_mib": str(self.plan.memory_mib),
            "append": self.plan.append,
            "start": f"snapshot {self._snapshot.key}" if self._snapshot else "power-on",
            "ready_s": f"{self._boot_s:.2f}",
            "login_s": f"{self._login_s:.2f}",
            "slowdown": f"{self.slowdown:.2f}",
            "command": shlex.join(command_line(self.plan)),
        }

    def boot(self) -> None:
        """Start QEMU; returns when sshd let us in.

        A boot that QEMU's own known fault ended is tried once more, and noticed. A snapshot that
        cannot be restored is discarded, noticed, and costs a boot from power-on.
        Raises BootError as soon as the kernel panics or QEMU ends, or at a deadline, with the
        console's end; InfrastructureError when QEMU itself fails. The machine is closed then.
        """
        if self._process is not None:
            raise InfrastructureError("a machine boots once; make another one")
        if self._snapshot and self._restored(self._snapshot):
            return
        try:
            self._boot_once()
        except BootError:
            if not self._emulator_slipped():
                raise
            self._set_aside()
            self._boot_once()

    def save(self) -> None:
        """Write the ready machine's state beside its disk and memory, and end it.

        Only for a machine made with `saving`. A first login has been made, so that what it needs
        is in the guest's memory. InfrastructureError when the machine cannot be saved.
        """
        assert self._saving is not None
        assert self._monitor is not None
        assert self._renewal is not None
        saved.ask(self._renewal, b"hello\n", "ready", _LOGIN_S * self.slowdown)
        self._warm_up()
        assert self._session_line is not None
        heard = saved.greeting(self._session_line, _LOGIN_S * self.slowdown)
        saved.ask(self._renewal, b"rest\n", "rested", _LOGIN_S * self.slowdown)
        (self._saving / saved.GREETING).write_bytes(heard)
        with (self._saving / saved.STATE).open("wb") as file:
            self._monitor.save(file.fileno(), _SAVE_S)
        self._monitor.command("quit")
        self.console.wait_closed(_MONITOR_S)
        self.close()
        saved.finish(self._saving, self._weight, self._paths)

    def _warm_up(self) -> None:
        """A whole session, so that a restored machine finds in memory what one needs, and its end,
        so that nothing of it is left in the guest.
        """
        with self.connect() as session:
            session.run(["true"], timeout_s=_LOGIN_S * self.slowdown)
            session.run(["sh", "-c", _REST], timeout_s=_LOGIN_S * self.slowdown)
        self.console.expect(re.escape(_AT_REST), _LOGIN_S * self.slowdown)

    def _boot_once(self) -> None:
        try:
            if self._saving:
                Path(self.plan.memory).unlink(missing_ok=True)
                saved.make_disk(self.plan.disk, self._image.disk)
            self._start(self.plan)
            self._session = self._login()
            self._login_s = self.age_s
            self._session.slowdown = self.slowdown  # known only now
            self._stack.callback(self._session.close)
        except BaseException:
            self.close()
            raise

    def _restored(self, snapshot: Snapshot) -> bool:
        """Begin from the snapshot; False, with a notice to show, when that cannot be done."""
        try:
            self._restore(snapshot)
        except (InfrastructureError, BootError, ConnectionLost, FileNotFoundError) as error:
            self.close()
            if self._cut:
                raise
            if isinstance(error, FileNotFoundError):  # of somebody else's by now, if it is there
                why = f"{error.strerror}: {error.filename}"
            else:
                why = error.message
                snapshot.discard()
            self._snapshot, self._boot_s = None, 0.0
            self._not_restored = f"snapshot {snapshot.key} could not be restored: {why}"
            return False
        except BaseException:
            self.close()
            raise
        return True

    def _restore(self, snapshot: Snapshot) -> None:
        """All that can be said before the guest runs is said before: it finds our part of the key
        exchange when it gets there.
        """
        with snapshot.state.open("rb") as state:
            number = state.fileno()
            self._start(saved.restoring(self.plan, snapshot), snapshot, number)
        assert self._session_line is not None
        self._session = Session(
            self._make_endpoint(0),  # nobody dials it: the line is there
            connect_timeout_s=_LOGIN_S,
            line=Line(self._session_line, snapshot.greeting),
            meanwhile=functools.partial(self._renew, number),
        )
        self._login_s = self.age_s
        self._session.slowdown = self.slowdown  # known only now
        self._stack.callback(self._session.close)

    def _renew(self, state: int) -> float:
        """Have QEMU read the state, a file that it inherited, and give the guest, as soon as it
        runs, what no two machines may share.
        """
        self._greet_monitor()
        if self._monitor is None or self._renewal is None:
            raise self._ended()
        try:
            self._monitor.load(state, _RESTORE_S)
        except InfrastructureError as error:
            raise self._qemu_failed() from error
        # Emulated, every piece of code is slow once; the other CPU has nothing else to do now.
        spare = self.plan.accel == "tcg" and self.plan.cpus > 1
        saved.ask(self._renewal, saved.renewal("true" if spare else ""), "renewed", _LOGIN_S)
        self._boot_s = self.age_s
        return _LOGIN_S

    def _emulator_slipped(self) -> bool:
        """The kernel fell over the breakpoint of its own code patching, under TCG.

        Before QEMU 8.1 a virtual CPU could run a stale translation of code that another one was
        patching (linux-kernel, July 2023, "qemu-x86_64 booting with 8.0.0 stil see int3"): one
        boot in some hundreds on a busy host. Under any other QEMU, and under one that did not say
        which it is, it is the kernel that did it, and gets no second chance.
        """
        if self._acceleration.name != "tcg" or self.plan.gdb or self._monitor is None:
            return False
        faulty = (0, 0, 0) < self._monitor.version < _TCG_MENDED
        return faulty and bool(re.search(r"(Oops: )?int3: 0000", self.console.text()))

    def slipped(self) -> bool:
        """The same, and what there is on the console of a machine that had booted proves it."""
        return self._emulator_slipped() and fell_over_nothing(self.console.text())

    def _set_aside(self) -> None:
        """Keep what the lost boot said; the notices name it."""
        kept = self._paths[0].with_suffix(".int3.log")
        self._paths[0].rename(kept)
        self._first_consoles = (kept,)

    def connect(self) -> Session:
        """A session: first the one that boot made (0.2 s saved), then new ones.

        Ends with the machine, or when its holder closes it. Raises ConnectionLost.
        """
        first, self._session = self._session, None
        return first or self._new_session()

    def alive(self) -> bool:
        """QEMU runs and holds the console."""
        running = self._process is not None and self._process.poll() is None
        return running and self._console is not None and not self._console.closed

    def panicked(self) -> bool:
        """The guest told QEMU by its pvpanic device that it panicked. From any thread."""
        if self._monitor is not None and not self._panicked:
            self._panicked = "GUEST_PANICKED" in self._monitor.events()
        return self._panicked

    def diagnose(self) -> str:
        """Ask the kernel over the serial line what its tasks and CPUs do; what it printed.

        Blocked tasks, then running CPUs, then every program's stack (those of idle kernel
        threads stay in the recording only). A kernel that does not answer gets an NMI, which it
        does not survive; where that brings nothing its CPUs are looked at from outside. "" when the
        machine is gone. Takes at most 10 s times the slowdown (40 s before login), and as
        long again for a kernel that does not answer; QEMU itself may take 30 s for each question,
        and 300 s to keep the memory.
        """
        if not self.alive() or self._monitor is None:
            return ""
        start, began = self.console.size(), time.monotonic()
        limit_s = 10.0 * self._patience
        for letter in "wlt":
            if not self._sysrq(letter, began + limit_s):
                break
        said = without_kernel_threads(self.console.since(start))
        # Not any line: another CPU may have something to say of its own. Nor any answer: one that
        # says what is blocked, and then no more, has not told what its CPUs do.
        if _CPUS in said:
            return said + self._dumped()
        took_s = time.monotonic() - began
        how = "did not say what its CPUs do" if _SYSRQ in said else "did not answer sysrq"
        head = f"the kernel {how} in {took_s:.0f} s\n{said}"
        # Its memory first: it does not survive the NMI.
        return f"{head}{self._dumped()}{self._from_outside(limit_s)}"

    def _dumped(self) -> str:
        """Where the guest's memory is now, a file beside the console, or why not; "" where it is
        not to be kept.
        """
        path = self._dump_to
        if path is None:
            return ""
        try:
            self.dump(path)
        except InfrastructureError as error:
            path.unlink(missing_ok=True)
            return f"\nthe guest's memory could not be kept: {error.message}\n"
        return f"\nthe guest's memory is kept: {path} (crash {self._kernel.vmlinux} {path})\n"

    def _from_outside(self, limit_s: float) -> str:
        """What an NMI makes the kernel say: the stack of each CPU, and its end. Where it does not
        say that of all of them, what each CPU executes by QEMU's account comes before it, and its
        stack as gdb unwinds it: both are looked at before, the machine may end.
        """
        assert self._monitor is not None
        parts: list[str] = []
        try:
            symbols = Symbols(self._system_map().read_text(encoding="ascii"))
            for number in range(self.plan.cpus):
                parts.append(stuck.cpu(self._monitor, number, symbols))
        except (InfrastructureError, OSError) as error:
            parts.append(f"its CPUs could not be looked at: {error}")
        else:
            parts.append(self._unwound())
        start = self.console.size()
        try:
            self._monitor.command("inject-nmi")
        except InfrastructureError as error:
            parts.append(f"it could not be sent an NMI: {error}")
        else:
            self._listen_to_the_end(start, limit_s)
        said = self.console.since(start)
        if stuck.shown_by_kernel(said) >= set(range(self.plan.cpus)):
            return f"an NMI was sent to it:\n{said}"
        return "\n".join([*parts, said])

    def _unwound(self) -> str:
        """Each CPU's stack by gdb, or why there is none."""
        assert self._monitor is not None
        try:
            said = gdbstub.stacks(self._monitor, self._kernel.vmlinux, self._kernel.arch)
        except InfrastructureError as error:
            hint = f" ({error.hint})" if error.hint else ""
            return f"its stacks could not be unwound: {error.message}{hint}"
        return f"its stacks, as gdb unwinds them:\n{said}"

    def _listen_to_the_end(self, start: int, limit_s: float) -> None:
        """Until the machine has ended, or said nothing more for a while; limit_s at most."""
        deadline = time.monotonic() + limit_s
        while not self.console.closed and (left := deadline - time.monotonic()) > 0:
            quiet_s = _WORDLESS_S * self._patience
            if not self.console.wait_news(self.console.size(), min(left, quiet_s)):
                return

    def _system_map(self) -> Path:
        return self._kernel.vmlinux.with_name("System.map")

    def dump(self, path: Path) -> None:
        """Write the guest's memory, compressed, for crash or drgn. InfrastructureError."""
        if self._monitor is None:
            raise InfrastructureError("the machine has no monitor")
        words = {"paging": False, "protocol": f"file:{path}", "format": "kdump-zlib"}
        self._monitor.long_command(_DUMP_S, "dump-guest-memory", **words)

    def cut(self) -> None:
        """Pull the plug, from any thread, at any time, also before or during boot.

        Whoever uses the machine finds it gone; it has to be closed all the same.
        """
        with self._plug:
            self._cut = True
            if self._process:
                self._process.kill()

    def close(self) -> None:
        """End QEMU and all that belongs to it; idempotent. The console stays readable."""
        self._stack.close()

    def _wait_for_debugger(self) -> None:
        """A socket among the results; in a directory of its own where that path is too long."""
        path = str(self._paths[1].with_suffix(".gdb").absolute())
        if len(path) > _SOCKET_PATH:
            place = tempfile.mkdtemp(prefix="rig-gdb-")
            self._stack.callback(shutil.rmtree, place, ignore_errors=True)
            path = str(Path(place, "gdb"))
        self._stack.callback(Path(path).unlink, missing_ok=True)
        self.plan = replace(self.plan, gdb=f"unix:{path},server=on,wait=off")
        self.attach = attach_line(self._kernel, path)

    def _start(
        self, plan: Plan, snapshot: Snapshot | None = None, state: int | None = None
    ) -> None:
        """Start QEMU with our ends of its lines in place. state: the open file that a snapshot's
        machine begins with; else its monitor is greeted.
        """
        with contextlib.ExitStack() as far:

            def joined(wanted: str) -> tuple[socket.socket | None, str]:
                if not wanted:
                    return None, ""
                ours, theirs = socket.socketpair()
                far.enter_context(theirs)
                inherited.append(theirs.fileno())
                return ours, f"socket,fd={theirs.fileno()}"

            inherited: list[int] = []
            line, console = joined("console")
            self._monitor_line, control = joined("monitor")
            self._session_line, session = joined("session")
            self._renewal, renewal = joined(plan.renewal)
            assert line is not None
            assert self._monitor_line is not None
            self._paths[0].parent.mkdir(parents=True, exist_ok=True)
            before = snapshot.console.read_bytes() if snapshot else b""
            self._console = Console(line, self._paths[0], before)
            self._stack.callback(self._console.close)
            for ours in (self._monitor_line, self._session_line, self._renewal):
                if ours:
                    self._stack.callback(ours.close)
            plan = replace(plan, console=console, monitor=control, session=session, renewal=renewal)
            if self._shelf is not None:
                inherited.append(self._shelf)
                plan = replace(plan, shelf=f"/dev/fd/{self._shelf}")
            if state is not None:
                inherited.append(state)
            # QEMU makes its temporary disks by a name that it removes at once; a QEMU that is ended
            # in between leaves them.
            parent = os.environ.get("TMPDIR", _SCRATCH)
            scratch = self._stack.enter_context(process.scratch("rig-qemu-", parent))
            self._started = time.monotonic()
            self._process = self._spawn(command_line(plan), tuple(inherited), scratch)
            self._stack.callback(process.end, self._process)
        if state is None:
            self._greet_monitor()

    def _spawn(
        self, words: list[str], lines: tuple[int, ...], scratch: str
    ) -> subprocess.Popen[bytes]:
        if not shutil.which(words[0]):
            raise InfrastructureError(
                f"{words[0]} is not installed",
                hint="`rig doctor` prints the line that installs what is missing",
            )
        with self._paths[1].open("wb") as log:
            log.write(f"{shlex.join(words)}\n".encode())
            log.flush()
            start = functools.partial(
                process.spawn,
                [*_with_parent(), *words],
                env={**os.environ, "TMPDIR": scratch},
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=lines,
            )
            with self._plug:
                if self._cut:
                    raise InfrastructureError("the rig was stopped before the machine began")
                self._process = _starter.submit(start).result()
                return self._process

    def _greet_monitor(self) -> None:
        """Wait for QEMU. When it has ended well already, the console says why."""
        assert self._monitor_line is not None
        self._monitor = None  # of a machine before this one
        try:
            self._monitor = Monitor(self._monitor_line, timeout_s=_MONITOR_S)
        except InfrastructureError as error:
            if self._ended_well():
                return
            raise self._qemu_failed() from error
        self._stack.callback(self._monitor.close)

    def _ended_well(self) -> bool:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(5.0) == 0
        return False

    def _qemu_failed(self) -> InfrastructureError:
        return InfrastructureError(
            f"{self.plan.binary} did not start the machine",
            output=self._paths[1].read_text(errors="replace")[-4000:],
            reproduce=shlex.join(command_line(replace(self.plan, console="stdio"))),
        )

    def _await_ready(self) -> None:
        wanted = [READY, _DEAF, _PANIC]
        limits = (_DEBUGGER_S, _DEBUGGER_S) if self.plan.gdb else (_BOOT_S, _SILENCE_S)
        try:
            seen = coming.decided(self.console, wanted, *limits)
        except TimeoutError as error:
            raise self._not_booted(str(error)) from error
        except coming.StandsStillError as error:
            raise self._stands_still(error) from error
        except EOFError as error:
            raise self._ended() from error
        if seen != READY:
            self.console.wait_closed(5.0)  # the rest of the report
            raise self._not_booted(f"did not reach login: {seen.strip()}")
        self._boot_s = self.age_s

    def _stands_still(self, error: coming.StandsStillError) -> BootError:
        if self.plan.gdb or not self.alive():
            return self._not_booted(str(error))
        return self._silent(str(error)) if error.mute else self._hangs(str(error))

    def _ended(self) -> BootError | InfrastructureError:
        if self._ended_well():
            return self._not_booted("ended the machine before login")
        return self._qemu_failed()

    def _not_booted(self, why: str) -> BootError:
        return BootError(
            f"kernel {self._kernel.name} {why}",
            hint=f"the whole console is in {self._paths[0]}{_VERIFY if _ROOTLESS in why else ''}",
            output=self.console.ending(),
            reproduce=dry_run(self._whole, self._image).splitlines()[0],
        )

    def _hangs(self, why: str) -> HangError:
        """It has said something, and no more: what its tasks and CPUs do."""
        heard, plain = self.console.size(), self._not_booted(why)
        output = f"{plain.output}\n{self.diagnose()}"
        words = {"hint": plain.hint, "output": output, "reproduce": plain.reproduce}
        return HangError(plain.message, **words, heard=heard)

    def _silent(self, why: str) -> BootError:
        """It died before it had a console, or has none: another boot, with one from its first
        moment on and for a few seconds only, tells which. Its words are kept in their own file.
        """
        early = EARLY_CONSOLE.get(self._kernel.arch, "earlycon")
        append = f"{self._extra} {early}"
        plan = make_plan(self._config, self._kernel, self._image, self.plan.accel, append)
        path = self._paths[0].with_name(f"early-{self._paths[0].name}")
        try:
            done = process.run(command_line(plan), timeout_s=_EARLY_S, log=path, check=False)
            failed = done.returncode != 0
        except InfrastructureError:  # that it runs into its limit is no surprise
            failed = False
        said = path.read_text(errors="replace") if path.exists() and not failed else ""
        if found := re.search(_PANIC, said):
            why += f"; with an early console: {said[found.start() :].splitlines()[0]}"
        elif said:
            why += "; it runs, as an early console shows: is its console on ttyS0?"
        error = self._not_booted(why)
        if said:
            error.output = "\n".join(said.splitlines()[-_EARLY_LINES:])
            error.hint = f"the console of a second boot, with {early}, is in {path}"
        return error

    def _forwarded_port(self) -> int:
        if self._monitor is None:
            raise self._ended()
        words = {"command-line": "info usernet"}
        return forwarded_port(str(self._monitor.command("human-monitor-command", **words)))

    def _make_endpoint(self, port: int) -> Endpoint:
        return Endpoint(
            host="127.0.0.1",
            port=port,
            user="root",
            client_key=self._image.client_key,
            host_key=self._image.host_key,
        )

    def _login(self) -> Session:
        """SSH answers, or this was no boot. A machine that will be saved leaves its line alone."""
        try:
            if self._saving:
                self._await_ready()
                return self._new_session()
            return self._first_session()
        except ConnectionLost as error:
            raise self._not_booted(f"let nobody log in: {error.message}") from error

    def _first_session(self) -> Session:
        """On the session line, where keys are exchanged before the machine is ready."""
        assert self._session_line is not None
        try:
            return Session(
                self._make_endpoint(0),
                connect_timeout_s=_LOGIN_S,
                line=Line(self._session_line),
                meanwhile=self._await_line,
            )
        except _NoLineError:
            return self._new_session()

    def _await_line(self) -> float:
        """Wait until the guest is ready; the seconds that a login may take from then on."""
        self._await_ready()
        if self.lineless:
            raise _NoLineError("there is none")
        return _LOGIN_S * self.slowdown

    def _new_session(self) -> Session:
        slowdown = self.slowdown
        return Session(
            self.endpoint,
            connect_timeout_s=_LOGIN_S * slowdown,
            slowdown=slowdown,
            alive=self.alive,
        )

    def _sysrq(self, letter: str, deadline: float) -> bool:
        """Send a break and a letter; True when an answer has come and been quiet for 0.5 s, or none
        has come in three seconds.
        """
        assert self._monitor is not None
        try:
            self._monitor.command("chardev-send-break", id="console")
            self.console.send(letter.encode())
        except (InfrastructureError, OSError):
            return False
        start = self.console.size()
        while (left := deadline - time.monotonic()) > 0:
            quiet_s = (0.5 if self.console.size() > start else 3.0) * self._patience
            if not self.console.wait_news(self.console.size(), min(left, quiet_s)):
                return True
            if self.console.closed:
                return False
        return False


__all__ = ["READY", "QemuMachine", "command_line", "dry_run"]
