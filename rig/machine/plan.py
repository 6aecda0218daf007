"""What QEMU is told and what it says, as pure functions."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from rig.config import MachineConfig
from rig.errors import InfrastructureError
from rig.image import Image

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
SHELF_MIB = 4096
# The time stamp counter is the host's, at one rate on every CPU. A kernel that is told so does not
# measure the second CPU's speed, for 0.06 s. TCG does not offer the flag, and has to be forced.
_EMULATED = "max,+invtsc,x-force-features=on"
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
    shelf: a raw file of SHELF_MIB, the machine's second disk; what is written to it is thrown away.
    "" for one full of zeros.
    port: the host's port forwarded to the guest's sshd; 0 lets QEMU choose a free one.
    gdb: a chardev for the debugger, "" for none; the machine then waits to be continued.
    disk: raw, or of qcow2 where its name ends so. memory: a file that is the machine's memory, ""
    for none. kept: what the machine writes to its disk and that memory goes to the files; else it
    is thrown away. session: a chardev for the line on which the machine's first session is served.
    renewal: a chardev for the line over which a restored machine is renewed, "" for none. incoming:
    the machine waits to be told of the state it begins with.
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
    shelf: str = ""
    port: int = 0
    gdb: str = ""
    memory: str = ""
    kept: bool = False
    session: str = "null"
    renewal: str = ""
    incoming: bool = False


def command_line(plan: Plan) -> list[str]:
    """The whole QEMU command. Pure."""
    return [
        plan.binary,
        *_house(),
        *_board(plan),
        *_lines(plan),
        *_processor(plan),
        *_kernel(plan),
        *_disk(plan),
        *_shelf(plan),
        *_network(plan),
        *_debugger(plan),
        *_incoming(plan),
    ]


def _house() -> list[str]:
    """Nothing but what is asked for; an end instead of a reboot; no rights beyond its files."""
    return [
        *("-nodefaults", "-no-user-config", "-display", "none"),
        # A panic is an event and not the end: the kernel still has to finish its report.
        *("-no-reboot", "-action", "panic=none"),
        *("-sandbox", SANDBOX),
    ]


def _board(plan: Plan) -> list[str]:
    """No AHCI and SMBus for the kernel to probe. Under emulation qboot, which does no more than
    start a kernel: 0.1 s less than SeaBIOS. With KVM it would save nothing to speak of.
    """
    firmware = ["-bios", "qboot.rom"] if plan.accel == "tcg" else []
    return ["-machine", "sata=off,smbus=off", *firmware]


def _processor(plan: Plan) -> list[str]:
    cpu = "host" if plan.accel == "kvm" else _EMULATED
    machine = "q35,memory-backend=memory" if plan.memory else "q35"
    return [
        *("-machine", machine, "-accel", plan.accel, "-cpu", cpu),
        *("-smp", str(plan.cpus), "-m", str(plan.memory_mib)),
        *_memory(plan),
        *("-device", "virtio-rng-pci", "-device", "pvpanic-pci"),
    ]


def _memory(plan: Plan) -> list[str]:
    """Shared with the file while a snapshot is made; later a private copy of what is written."""
    if not plan.memory:
        return []
    share = "on" if plan.kept else "off"
    name = plan.memory.replace(",", ",,")
    size = f"size={plan.memory_mib}M"
    return ["-object", f"memory-backend-file,id=memory,{size},mem-path={name},share={share}"]


def _kernel(plan: Plan) -> list[str]:
    return ["-kernel", str(plan.kernel), "-append", plan.append]


def _disk(plan: Plan) -> list[str]:
    """snapshot=on writes to a temporary file that has no name: it cannot be left behind."""
    name = str(plan.disk).replace(",", ",,")
    form = "qcow2" if plan.disk.suffix == ".qcow2" else "raw"
    throw = "off" if plan.kept else "on"
    drive = f"file={name},format={form},if=none,id=root,snapshot={throw},cache=unsafe,discard=unmap"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=root"]


def _shelf(plan: Plan) -> list[str]:
    """Always there and always of one size: a machine that was saved without it gets it later."""
    name = plan.shelf.replace(",", ",,")
    empty = f"driver=null-co,size={SHELF_MIB}M,read-zeroes=on"
    what = f"file={name},format=raw,file.locking=off,snapshot=on" if name else empty
    drive = f"{what},if=none,id=shelf,cache=unsafe"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=shelf"]


def _network(plan: Plan) -> list[str]:
    """A network on which there is only us: the guest reaches nobody, we reach its sshd."""
    forward = f"hostfwd=tcp:127.0.0.1:{plan.port}-:22"
    return [
        *("-netdev", f"user,id=net,restrict=on,ipv6=off,{forward}"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
    ]


def _lines(plan: Plan) -> list[str]:
    """The ports' device comes before every other virtio device: /dev/vport0p1 and /dev/vport0p2."""
    words = ["-chardev", f"{plan.console},id=console", "-serial", "chardev:console"]
    words += ["-device", "virtio-serial-pci,id=lines"]
    for number, name, line in ((1, "session", plan.session), (2, "renewal", plan.renewal)):
        if line:
            port = f"virtserialport,bus=lines.0,nr={number},chardev={name},name=rig.{name}"
            words += ["-chardev", f"{line},id={name}", "-device", port]
    if plan.monitor:
        words += ["-chardev", f"{plan.monitor},id=monitor", "-mon", "monitor,mode=control"]
    return words


def _debugger(plan: Plan) -> list[str]:
    return ["-gdb", plan.gdb, "-S"] if plan.gdb else []


def _incoming(plan: Plan) -> list[str]:
    """No word to the network of where we are now: it is not another place, and the guest would
    write its announcements first of all.
    """
    return ["-incoming", "defer", "-global", "migration.announce-rounds=0"] if plan.incoming else []


# Each line of the console says by its facility whether the kernel speaks, or a program by way of
# /dev/kmsg, whose words are no report (rig/consoleline.py).
WHO_SPEAKS = "console_msg_format=syslog"


def kernel_command_line(accel: str, append: str = "") -> str:
    """What the kernel is told. Pure; append comes last and so overrides.

    panic=-1 with QEMU's -no-reboot: a panic ends the machine at once. An NMI that nobody expected
    is ours, to a kernel that hangs (QemuMachine.diagnose): it panics, and a panic shows the stacks
    of all CPUs (panic_print, bit 6), by NMI also of those that have their interrupts off. Under
    emulation a busy host can stop a virtual CPU for many seconds, so the kernel's own watchdogs get
    more patience. brd would make 16 disks, in 0.02 s. norandmaps: code is translated once for every
    address it is at, and the C library at another address for each process costs 0.02 s a process;
    a test of the randomisation appends sysctl.kernel.randomize_va_space=2.
    """
    words = [
        *("console=ttyS0", "root=/dev/vda", "rootfstype=ext4", "rw", "init=/usr/lib/rig/init"),
        *("panic=-1", "oops=panic", "printk.devkmsg=on", WHO_SPEAKS),
        *("unknown_nmi_panic", "panic_print=0x40"),
    ]
    if accel == "tcg":
        words += ["tsc=reliable", "no_timer_check", "watchdog_thresh=30"]
        words += ["rcupdate.rcu_cpu_stall_timeout=60", "brd.rd_nr=1", "norandmaps"]
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
