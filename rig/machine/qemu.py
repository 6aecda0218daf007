"""A machine made by QEMU."""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from rig import process
from rig.config import MachineConfig
from rig.console import Console
from rig.errors import BootError, InfrastructureError
from rig.image import Image
from rig.machine.accel import Acceleration, accelerator
from rig.machine.qmp import Monitor
from rig.session import ConnectionLost, Endpoint, Session

READY = "rig: ready"
_PANIC = r"Kernel panic - not syncing[^\n]*\n"
_DEAF = r"rig: sshd did not start"

# Seconds from QEMU's start to READY with KVM on a current machine: the slowdown's unit.
REFERENCE_BOOT_S = 0.7
MAX_SLOWDOWN = 20.0
# Deadlines of the boot itself, before a slowdown is known. A kernel with KASAN and lockdep on a
# busy runner's emulation takes 40 s; one that is alive says its first line within seconds.
_BOOT_S, _FIRST_LINE_S, _LOGIN_S = 180.0, 60.0, 30.0
_MONITOR_S = 30.0
_DEBUGGER_S = 24 * 3600.0

_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_BINARY = {"x86_64": "qemu-system-x86_64"}


class Bootable(Protocol):
    """What of a kernel the machine needs (rig.kbuild.Kernel has it)."""

    @property
    def name(self) -> str: ...

    @property
    def arch(self) -> str: ...

    @property
    def boot(self) -> Path: ...

    @property
    def vmlinux(self) -> Path: ...


@dataclass(frozen=True)
class Plan:
    """All that decides a QEMU command line.

    console, monitor: what -chardev is given without its id ("socket,fd=5"), monitor "" for none.
    port: the host's port forwarded to the guest's sshd; 0 lets QEMU choose a free one.
    gdb: a chardev for the debugger, "" for none; the machine then waits to be continued.
    """

    binary: str
    accel: str
    cpus: int
    memory_mib: int
    kernel: Path
    append: str
    disk: Path
    console: str
    monitor: str = ""
    port: int = 0
    gdb: str = ""


def command_line(plan: Plan) -> list[str]:
    """The whole QEMU command. Pure."""
    return [
        plan.binary,
        *_house(),
        *_processor(plan),
        *_kernel(plan),
        *_disk(plan),
        *_network(plan),
        *_lines(plan),
        *_debugger(plan),
    ]


def _house() -> list[str]:
    """Nothing but what is asked for; an end instead of a reboot; no rights beyond its files."""
    return [
        *("-nodefaults", "-no-user-config", "-display", "none"),
        # A panic is an event and not the end: the kernel still has to finish its report.
        *("-no-reboot", "-action", "panic=none"),
        *("-sandbox", _SANDBOX),
    ]


def _processor(plan: Plan) -> list[str]:
    cpu = "host" if plan.accel == "kvm" else "max"
    return [
        *("-machine", "q35", "-accel", plan.accel, "-cpu", cpu),
        *("-smp", str(plan.cpus), "-m", str(plan.memory_mib)),
        *("-device", "virtio-rng-pci", "-device", "pvpanic-pci"),
    ]


def _kernel(plan: Plan) -> list[str]:
    return ["-kernel", str(plan.kernel), "-append", plan.append]


def _disk(plan: Plan) -> list[str]:
    """snapshot=on writes to a temporary file that has no name: it cannot be left behind."""
    name = str(plan.disk).replace(",", ",,")
    drive = f"file={name},format=raw,if=none,id=root,snapshot=on,cache=unsafe,discard=unmap"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=root"]


def _network(plan: Plan) -> list[str]:
    """A network on which there is only us: the guest reaches nobody, we reach its sshd."""
    forward = f"hostfwd=tcp:127.0.0.1:{plan.port}-:22"
    return [
        *("-netdev", f"user,id=net,restrict=on,ipv6=off,{forward}"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
    ]


def _lines(plan: Plan) -> list[str]:
    words = ["-chardev", f"{plan.console},id=console", "-serial", "chardev:console"]
    if plan.monitor:
        words += ["-chardev", f"{plan.monitor},id=monitor", "-mon", "monitor,mode=control"]
    return words


def _debugger(plan: Plan) -> list[str]:
    return ["-gdb", plan.gdb, "-S"] if plan.gdb else []


def kernel_command_line(accel: str, append: str = "") -> str:
    """What the kernel is told. Pure; append comes last and so overrides.

    panic=-1 with QEMU's -no-reboot: a panic ends the machine at once. Under emulation a busy
    host can stop a virtual CPU for many seconds, so the kernel's own watchdogs get more patience.
    """
    words = [
        *("console=ttyS0", "root=/dev/vda", "rootfstype=ext4", "rw", "init=/usr/sbin/init"),
        *("panic=-1", "oops=panic", "printk.devkmsg=on"),
    ]
    if accel == "tcg":
        words += ["tsc=reliable", "no_timer_check", "watchdog_thresh=30"]
        words += ["rcupdate.rcu_cpu_stall_timeout=60"]
    return " ".join([*words, *append.split()])


def make_plan(
    config: MachineConfig, kernel: Bootable, image: Image, accel: str, append: str = ""
) -> Plan:
    """The plan of a machine whose console is standard output; boot puts its own lines in."""
    return Plan(
        binary=binary(kernel.arch),
        accel=accel,
        cpus=config.cpus,
        memory_mib=config.memory_mib,
        kernel=kernel.boot,
        append=kernel_command_line(accel, f"{config.append} {append}"),
        disk=image.disk,
        console="stdio",
    )


def binary(arch: str) -> str:
    """The QEMU that makes this architecture; InfrastructureError for one we have no machine of."""
    if arch not in _BINARY:
        raise InfrastructureError(f"there is no QEMU machine for {arch} yet")
    return _BINARY[arch]


def dry_run(plan: Plan, image: Image) -> str:
    """Lines to paste into a shell: the machine on this terminal, and how to log in to it. Pure."""
    port = plan.port or 2222
    login = [
        *("ssh", "-i", str(image.client_key), "-p", str(port)),
        *("-o", "IdentitiesOnly=yes", "-o", "HostKeyAlias=rig"),
        *("-o", f"KnownHostsCommand=/bin/echo rig {image.host_key}", "root@127.0.0.1"),
    ]
    plain = replace(plan, console="stdio,mux=on,signal=off", monitor="", port=port)
    return f"{shlex.join(command_line(plain))}\n# log in: {shlex.join(login)}"


def attach_line(kernel: Bootable, address: str) -> str:
    """The command that attaches a debugger to a machine that waits at this unix socket. Pure."""
    return shlex.join(["gdb", str(kernel.vmlinux), "-ex", f"target remote {address}"])


# The kernel sends the "parent died" signal when the *thread* that started QEMU ends, so one
# thread that lives as long as the rig starts them all.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="qemu starter")


@functools.cache
def _with_parent() -> tuple[str, ...]:
    """Words that make a command die with its parent, where util-linux has them."""
    return ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()


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
    ) -> None:
        """Decide all, start nothing but perhaps the KVM probe.

        results: gets console-<number>.log and qemu-<number>.log. append: more words for the
        kernel. gdb: wait for a debugger; `attach` is then the line to give to a person.
        """
        self._kernel, self._image = kernel, image
        self._acceleration = accelerator(
            kernel.boot, config.accel, qemu=binary(kernel.arch), cache=accel_cache
        )
        self.plan = make_plan(config, kernel, image, self._acceleration.name, append)
        self._paths = results / f"console-{number}.log", results / f"qemu-{number}.log"
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._console: Console | None = None
        self._monitor: Monitor | None = None
        self._endpoint: Endpoint | None = None
        self._session: Session | None = None
        self._boot_s = 0.0
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
        if self._endpoint is None:
            raise InfrastructureError("the machine has not been booted")
        return self._endpoint

    @property
    def acceleration(self) -> Acceleration:
        """How the CPU is made, and why so."""
        return self._acceleration

    @property
    def notices(self) -> tuple[str, ...]:
        """What every verdict must say about this machine."""
        return (self._acceleration.notice,) if self._acceleration.notice else ()

    @property
    def slowdown(self) -> float:
        """This boot's seconds from QEMU's start to READY over REFERENCE_BOOT_S, from 1 to 20.

        It so counts emulation, a busy host and a kernel with expensive checks alike. Before the
        boot it is the upper bound.
        """
        if not self._boot_s:
            return MAX_SLOWDOWN
        return min(MAX_SLOWDOWN, max(1.0, self._boot_s / REFERENCE_BOOT_S))

    @property
    def facts(self) -> dict[str, str]:
        """For the report."""
        return {
            "kind": "qemu",
            "qemu": self.plan.binary,
            "accelerator": self._acceleration.name,
            "cpus": str(self.plan.cpus),
            "memory_mib": str(self.plan.memory_mib),
            "append": self.plan.append,
            "boot_s": f"{self._boot_s:.2f}",
            "slowdown": f"{self.slowdown:.2f}",
            "command": shlex.join(command_line(self.plan)),
        }

    def boot(self) -> None:
        """Start QEMU; returns when sshd let us in.

        Raises BootError as soon as the kernel panics or QEMU ends, or at a deadline, with the
        console's end; InfrastructureError when QEMU itself fails. The machine is closed then.
        """
        if self._process is not None:
            raise InfrastructureError("a machine boots once; make another one")
        try:
            started = time.monotonic()
            self._start()
            self._await_ready()
            self._boot_s = time.monotonic() - started
            self._endpoint = self._make_endpoint()
            self._session = self._login()
            self._stack.callback(self._session.close)
        except BaseException:
            self.close()
            raise

    def connect(self) -> Session:
        """A session: first the one that boot made (0.2 s saved), then new ones.

        Ends with the machine, or when its holder closes it. Raises ConnectionLost.
        """
        first, self._session = self._session, None
        return first or Session(self.endpoint, connect_timeout_s=_LOGIN_S * self.slowdown)

    def alive(self) -> bool:
        """QEMU runs and holds the console."""
        running = self._process is not None and self._process.poll() is None
        return running and self._console is not None and not self._console.closed

    def panicked(self) -> bool:
        """The guest told QEMU by its pvpanic device that it panicked."""
        return self._monitor is not None and "GUEST_PANICKED" in self._monitor.events()

    def diagnose(self) -> str:
        """Ask the kernel over the serial line what its tasks and CPUs do; what it printed.

        Blocked tasks, then running CPUs, then every program's stack (those of idle kernel
        threads stay in the recording only). "" when the machine is gone. Takes at most 10 s
        times the slowdown.
        """
        if not self.alive() or self._monitor is None:
            return ""
        start = self.console.size()
        deadline = time.monotonic() + 10.0 * self.slowdown
        for letter in "wlt":
            if not self._sysrq(letter, deadline):
                break
        return without_kernel_threads(self.console.since(start))

    def close(self) -> None:
        """End QEMU and all that belongs to it; idempotent. The console stays readable."""
        self._stack.close()

    def _wait_for_debugger(self) -> None:
        place = tempfile.mkdtemp(prefix="rig-gdb-")
        self._stack.callback(shutil.rmtree, place, ignore_errors=True)
        path = str(Path(place, "gdb"))
        self.plan = replace(self.plan, gdb=f"unix:{path},server=on,wait=off")
        self.attach = attach_line(self._kernel, path)

    def _start(self) -> None:
        line, far_line = socket.socketpair()
        monitor, far_monitor = socket.socketpair()
        with far_line, far_monitor:
            self._paths[0].parent.mkdir(parents=True, exist_ok=True)
            self._console = Console(line, self._paths[0])
            self._stack.callback(self._console.close)
            lines = (far_line.fileno(), far_monitor.fileno())
            plan = replace(
                self.plan, console=f"socket,fd={lines[0]}", monitor=f"socket,fd={lines[1]}"
            )
            self._stack.callback(monitor.close)
            self._process = self._spawn(command_line(plan), lines)
            self._stack.callback(process.end, self._process)
        self._connect_monitor(monitor)

    def _spawn(self, words: list[str], lines: tuple[int, int]) -> subprocess.Popen[bytes]:
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
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=lines,
            )
            return _starter.submit(start).result()

    def _connect_monitor(self, line: socket.socket) -> None:
        try:
            self._monitor = Monitor(line, timeout_s=_MONITOR_S)
        except InfrastructureError as error:
            raise self._qemu_failed() from error
        self._stack.callback(self._monitor.close)

    def _qemu_failed(self) -> InfrastructureError:
        return InfrastructureError(
            f"{self.plan.binary} did not start the machine",
            output=self._paths[1].read_text(errors="replace")[-4000:],
            reproduce=shlex.join(command_line(replace(self.plan, console="stdio"))),
        )

    def _await_ready(self) -> None:
        patience = _DEBUGGER_S if self.plan.gdb else _BOOT_S
        try:
            if not self.plan.gdb and not self.console.wait_news(0, _FIRST_LINE_S):
                raise self._not_booted(f"printed nothing in {_FIRST_LINE_S:.0f} s")
            seen = self.console.expect([re.escape(READY), _DEAF, _PANIC], patience)
        except TimeoutError as error:
            raise self._not_booted(f"did not reach login in {patience:.0f} s") from error
        except EOFError as error:
            raise self._ended() from error
        if seen != READY:
            self.console.wait_closed(5.0)  # the rest of the report
            raise self._not_booted(f"did not reach login: {seen.strip()}")

    def _ended(self) -> BootError | InfrastructureError:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        if self._process.poll() not in (0, None):
            return self._qemu_failed()
        return self._not_booted("ended the machine before login")

    def _not_booted(self, why: str) -> BootError:
        return BootError(
            f"kernel {self._kernel.name} {why}",
            hint=f"the whole console is in {self._paths[0]}",
            output=self.console.tail(),
            reproduce=dry_run(self.plan, self._image).splitlines()[0],
        )

    def _make_endpoint(self) -> Endpoint:
        assert self._monitor is not None
        listing = self._monitor.command("human-monitor-command", **{"command-line": "info usernet"})
        return Endpoint(
            host="127.0.0.1",
            port=forwarded_port(str(listing)),
            user="root",
            client_key=self._image.client_key,
            host_key=self._image.host_key,
        )

    def _login(self) -> Session:
        """SSH answers, or this was no boot."""
        try:
            return Session(self.endpoint, connect_timeout_s=_LOGIN_S * self.slowdown)
        except ConnectionLost as error:
            raise self._not_booted(f"let nobody log in: {error.message}") from error

    def _sysrq(self, letter: str, deadline: float) -> bool:
        """Send a break and a letter; True when the answer has come and been quiet for 0.5 s."""
        assert self._monitor is not None
        try:
            self._monitor.command("chardev-send-break", id="console")
            self.console.send(letter.encode())
        except (InfrastructureError, OSError):
            return False
        while (left := deadline - time.monotonic()) > 0:
            if not self.console.wait_news(self.console.size(), min(left, 0.5 * self.slowdown)):
                return True
            if self.console.closed:
                return False
        return False


def without_kernel_threads(console: str) -> str:
    """A list of tasks as sysrq-t prints it, less those whose parent is kthreadd. Pure.

    Each begins with a line "task:NAME state:S stack:N pid:N tgid:N ppid:N" (kernel/sched/core.c,
    sched_show_task) and ends where the next begins. Blocked ones (state:D) are kept.
    """
    kept, keep = [], True
    for line in console.splitlines():
        if "task:" in line and " ppid:" in line:
            keep = "state:D" in line or not re.search(r" pid:2 | ppid:2 ", f"{line} ")
        elif "sysrq: " in line:
            keep = True
        if keep:
            kept.append(line)
    return "\n".join(kept)


def forwarded_port(usernet: str) -> int:
    """The host's port in what the monitor says to "info usernet". Pure."""
    found = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+22\b", usernet)
    if not found:
        raise InfrastructureError("QEMU forwards no port to the guest's sshd", output=usernet)
    return int(found.group(1))
