"""The exact machine: one whose every run is the same run. What QEMU and the kernel are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rig.machine.plan import SANDBOX

BINARY = "qemu-system-x86_64"
MEMORY_MIB = 512
MAX_CPUS = 8

# All that TCG emulates but for four: erms and fsrm, so that the kernel copies by words and not by
# `rep movsb`, which counts one instruction a byte; rdrand and rdseed, whose numbers QEMU makes.
CPU = "max,-erms,-fsrm,-rdrand,-rdseed"

# The kernel's clock begins here, in every run.
CLOCK_START = "2026-01-01T00:00:00"

# Names of the virtio ports, in the order of images/exact/init.c.
PORTS = ("stdout", "stderr", "verdict")

# What a kernel must have built in to run here, and further for --ext4.
NEEDED = (
    "ACPI", "BLK_DEV_INITRD", "DEVTMPFS", "PVH", "SERIAL_8250_CONSOLE", "TMPFS", "VIRTIO_CONSOLE",
    "VIRTIO_MMIO",
)  # fmt: skip
NEEDED_BY_EXT4 = ("BLK_DEV_RAM", "EXT4_FS")

# Translated code QEMU keeps, in MiB. When it is full QEMU throws it away, which changes whose turn
# it is among several CPUs; its own choice of a size depends on the host's memory.
_TRANSLATED_MIB = 512


@dataclass(frozen=True)
class ExactPlan:
    """All that decides the command line of an exact machine.

    output: the directory that gets the console and one file for each port.
    plugin: a QEMU plugin to watch the run with, None for none.
    """

    cpus: int
    seed: int
    kernel: Path
    initramfs: Path
    append: str
    output: Path
    plugin: Path | None = None

    @property
    def console(self) -> Path:
        """Where the serial line is recorded."""
        return self.output / "console.log"

    def port(self, name: str) -> Path:
        """Where one of PORTS is recorded."""
        return self.output / name


def command_line(plan: ExactPlan) -> list[str]:
    """The whole QEMU command. Pure.

    Nothing in it may be driven by the host's clock: no network, no disk, no monitor, nobody to
    read from. All that leaves, leaves into plain files, which never make the machine wait.
    """
    return [BINARY, *_house(), *_clock(plan), *_board(plan), *_lines(plan), *_observer(plan)]


def _house() -> list[str]:
    return [
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-no-reboot", "-action", "panic=none", "-sandbox", SANDBOX),
    ]


def _clock(plan: ExactPlan) -> list[str]:
    """One instruction is one nanosecond; nobody sleeps: time jumps to the next timer instead."""
    return [
        *("-accel", f"tcg,thread=single,tb-size={_TRANSLATED_MIB}"),
        *("-icount", "shift=0,sleep=off", "-seed", str(plan.seed)),
        *("-rtc", f"base={CLOCK_START},clock=vm"),
    ]


def _board(plan: ExactPlan) -> list[str]:
    """A microvm, without PIT and PIC: the kernel then calibrates its timer once and not twice,
    which is most of the time that such a machine takes to boot."""
    return [
        *("-machine", "microvm,acpi=on,pit=off,pic=off,rtc=on,auto-kernel-cmdline=off"),
        *("-cpu", CPU, "-smp", f"cpus={plan.cpus},sockets=1,cores={plan.cpus},threads=1"),
        *("-m", str(MEMORY_MIB)),
        *("-kernel", str(plan.kernel), "-initrd", str(plan.initramfs), "-append", plan.append),
    ]


def _lines(plan: ExactPlan) -> list[str]:
    words = [*_recorded("console", plan.console), "-serial", "chardev:console"]
    words += ["-device", "virtio-serial-device"]
    for number, name in enumerate(PORTS, 1):
        words += _recorded(name, plan.port(name))
        words += ["-device", f"virtserialport,chardev={name},name={name},nr={number}"]
    return words


def _recorded(name: str, path: Path) -> list[str]:
    return ["-chardev", f"file,id={name},path={_escaped(path)}"]


def _observer(plan: ExactPlan) -> list[str]:
    """The plugin, and exceptions in the same stream: standard error."""
    return ["-plugin", _escaped(plan.plugin), "-d", "plugin,int"] if plan.plugin else []


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")


def kernel_command_line(
    config: Mapping[str, str], *, ram_disk_mib: int = 0, append: str = ""
) -> str:
    """What the kernel is told; config has its own symbols. Pure; append comes last and overrides.

    The frequency is given so that it is not measured: with it, one nanosecond of the kernel's clock
    is one instruction and not nearly one. There is nothing to seed the random pool with but what
    the machine did until then, which is always the same. A CPU that does not schedule for four
    of its seconds has hung: a busy host cannot make that happen here.
    """
    words = [
        *("console=ttyS0", "panic=-1", "oops=panic", "printk.devkmsg=on", "pci=off"),
        *("nokaslr", "norandmaps", "random.trust_cpu=off", "random.trust_bootloader=off"),
        *("tsc=reliable", "tsc_early_khz=1000000", "no_timer_check"),
        f"lpj={10**9 // int(config.get('HZ', '250'))}",
        *("softlockup_panic=1", "watchdog_thresh=2"),
    ]
    if ram_disk_mib:
        words.append(f"brd.rd_size={ram_disk_mib * 1024}")
    return " ".join([*words, *append.split()])
