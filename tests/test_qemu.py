"""QEMU: its command line as a value, its failures for real, kernels that boot and that die."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rig import boot
from rig.config import MachineConfig
from rig.errors import BootError, HangError, InfrastructureError, LostMachineError
from rig.guest import Sight
from rig.image import Image
from rig.kbuild import Kernel
from rig.machine import Machine, accel, plan, qemu, stale
from rig.machine.plan import Plan
from rig.machine.qemu import QemuMachine
from rig.machine.qmp import Monitor
from rig.session import ConnectionLost, Session
from rig.vigil import Vigil

PLAN = Plan(
    binary="qemu-system-x86_64",
    accel="tcg",
    cpus=2,
    memory_mib=512,
    kernel=Path("/k/vmlinux"),
    append="console=ttyS0 panic=-1",
    disk=Path("/i/disk.img"),
    console="socket,fd=7",
    monitor="socket,fd=8",
)


@dataclass(frozen=True)
class FakeKernel:
    """As much of a kernel as a machine looks at."""

    boot: Path
    name: str = "fake"
    arch: str = "x86_64"

    @property
    def vmlinux(self) -> Path:
        return self.boot


# ------------------------------------------------------------------------------- pure values


def test_command_line() -> None:
    assert plan.command_line(PLAN) == [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-no-reboot", "-action", "panic=none", "-sandbox"),
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        *("-machine", "sata=off,smbus=off", "-bios", "qboot.rom"),
        *("-chardev", "socket,fd=7,id=console", "-serial", "chardev:console"),
        *("-device", "virtio-serial-pci,id=lines", "-chardev", "null,id=session", "-device"),
        "virtserialport,bus=lines.0,nr=1,chardev=session,name=rig.session",
        *("-chardev", "socket,fd=8,id=monitor", "-mon", "monitor,mode=control"),
        *("-machine", "q35", "-accel", "tcg", "-cpu", "max,+invtsc,x-force-features=on"),
        *("-smp", "2", "-m", "512"),
        *("-device", "virtio-rng-pci", "-device", "pvpanic-pci"),
        *("-kernel", "/k/vmlinux", "-append", "console=ttyS0 panic=-1", "-drive"),
        "file=/i/disk.img,format=raw,if=none,id=root,snapshot=on,cache=unsafe,discard=unmap",
        *("-device", "virtio-blk-pci,drive=root", "-drive"),
        "driver=null-co,size=4096M,read-zeroes=on,if=none,id=shelf,cache=unsafe",
        *("-device", "virtio-blk-pci,drive=shelf", "-netdev"),
        "user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22",
        *("-device", "virtio-net-pci,netdev=net,romfile="),
    ]


def test_what_changes_with_the_plan() -> None:
    base = plan.command_line(PLAN)

    def changed(**fields: object) -> tuple[list[str], list[str]]:
        other = plan.command_line(replace(PLAN, **fields))  # type: ignore[arg-type]
        return [w for w in base if w not in other], [w for w in other if w not in base]

    assert changed(accel="kvm") == (
        ["-bios", "qboot.rom", "tcg", "max,+invtsc,x-force-features=on"],
        ["kvm", "host"],
    )
    assert changed(cpus=1) == (["2"], ["1"])
    empty = "driver=null-co,size=4096M,read-zeroes=on,if=none,id=shelf,cache=unsafe"
    full = "file=/dev/fd/9,format=raw,file.locking=off,snapshot=on,if=none,id=shelf,cache=unsafe"
    assert changed(shelf="/dev/fd/9") == ([empty], [full])
    assert changed(gdb="unix:/g") == ([], ["-gdb", "unix:/g", "-S"])
    gone, _ = changed(monitor="")
    assert gone == ["socket,fd=8,id=monitor", "-mon", "monitor,mode=control"]


def test_comma_in_a_path() -> None:
    words = plan.command_line(replace(PLAN, disk=Path("/a,b/disk.img")))
    assert any(word.startswith("file=/a,,b/disk.img,format=raw") for word in words)


def test_kernel_command_line() -> None:
    assert plan.kernel_command_line("kvm", "  extra=1 init=/x ") == (
        "console=ttyS0 root=/dev/vda rootfstype=ext4 rw init=/usr/lib/rig/init "
        "panic=-1 oops=panic printk.devkmsg=on console_msg_format=syslog unknown_nmi_panic "
        "panic_print=0x40 extra=1 init=/x"
    )
    emulated = plan.kernel_command_line("tcg").split()
    assert {"tsc=reliable", "no_timer_check", "watchdog_thresh=30"} <= set(emulated)
    assert "norandmaps" in emulated
    assert "norandmaps" not in plan.kernel_command_line("kvm")


def test_forwarded_port() -> None:
    listing = (
        "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port\r\n"
        "  TCP[HOST_FORWARD]   3       127.0.0.1 43243       10.0.2.15    22     0     0\r\n"
    )
    assert plan.forwarded_port(listing) == 43243
    with pytest.raises(InfrastructureError):
        plan.forwarded_port("Hub -1 (net):\r\n")


def test_tasks_of_the_kernel_are_left_out() -> None:
    text = "\n".join(
        [
            "[    6.0][    C1] sysrq: Show State",
            "[    6.1][    C1] task:init      state:S stack:0     pid:1   tgid:1   ppid:0  flags:0",
            "[    6.2][    C1]  schedule+0x1f/0xa0",
            "[    6.3][    C1] task:kthreadd  state:S stack:0     pid:2   tgid:2   ppid:0  flags:0",
            "[    6.4][    C1]  kthreadd+0x1/0x2",
            "[    6.5][    C1] task:kworker   state:I stack:0     pid:4   tgid:4   ppid:2  flags:0",
            "[    6.6][    C1]  worker+0x1/0x2",
            "[    6.7][    C1] task:jbd2      state:D stack:0     pid:5   tgid:5   ppid:2  flags:0",
            "[    6.8][    C1]  commit+0x1/0x2",
        ]
    )
    kept = plan.without_kernel_threads(text).splitlines()
    assert [line.split("] ")[1].split()[0] for line in kept] == [
        *("sysrq:", "task:init", "schedule+0x1f/0xa0", "task:jbd2", "commit+0x1/0x2"),
    ]


def test_unknown_architecture() -> None:
    with pytest.raises(InfrastructureError, match="m68k"):
        plan.binary("m68k")


# ------------------------------------------------------------------------------ acceleration


@pytest.fixture
def kernel_file(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinux"
    path.write_bytes(b"not a kernel")
    return path


def open_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A /dev/kvm that everybody may open."""
    monkeypatch.setattr(accel, "_DEVICE", Path(os.devnull))


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_tcg_asked_for_is_said(kernel_file: Path) -> None:
    chosen = accel.accelerator(kernel_file, "tcg")
    assert (chosen.name, chosen.notice) == ("tcg", "emulated by TCG, not KVM: asked for")


def test_no_device(kernel_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(accel, "_DEVICE", tmp_path / "kvm")
    chosen = accel.accelerator(kernel_file, "auto", cache=tmp_path / "c.json")
    assert chosen == accel.Acceleration("tcg", "this host has no /dev/kvm")
    with pytest.raises(InfrastructureError, match="KVM was asked for and cannot be used"):
        accel.accelerator(kernel_file, "kvm", cache=tmp_path / "c.json")


def test_probe_that_sees_the_banner(
    kernel_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    open_kvm(monkeypatch)
    monkeypatch.setattr(accel, "_PROBE_S", 0.5)
    fake = script(tmp_path / "qemu", "echo '[    0.000000] Linux version 6.12'; exec sleep 60")
    cache = tmp_path / "deep" / "kvm.json"
    assert accel.accelerator(kernel_file, "kvm", qemu=fake, cache=cache).name == "kvm"
    assert accel.remembered(qemu=fake, cache=cache) == accel.Acceleration("kvm")


def test_probe_has_a_deadline_and_is_kept(
    kernel_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    open_kvm(monkeypatch)
    monkeypatch.setattr(accel, "_PROBE_S", 1.0)
    cache, fake = tmp_path / "kvm.json", script(tmp_path / "qemu", "exec sleep 60")
    assert accel.remembered(qemu=fake, cache=cache) is None
    started = time.monotonic()
    first = accel.accelerator(kernel_file, "auto", qemu=fake, cache=cache)
    assert 0.9 < time.monotonic() - started < 8
    assert first.name == "tcg"
    assert "no console line in 1 s" in first.notice
    started = time.monotonic()
    assert accel.accelerator(kernel_file, "auto", qemu=fake, cache=cache) == first
    assert time.monotonic() - started < 0.9


@pytest.mark.parametrize("dead", ["exec sleep 60", "exit 0", "echo SeaBIOS; exec sleep 60"])
def test_a_dead_kernel_or_a_busy_host_is_believed_for_a_day(
    dead: str, kernel_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    open_kvm(monkeypatch)
    monkeypatch.setattr(accel, "_PROBE_S", 0.3)
    cache, fake = tmp_path / "kvm.json", script(tmp_path / "qemu", dead)
    assert accel.accelerator(kernel_file, "auto", qemu=fake, cache=cache).name == "tcg"
    script(tmp_path / "qemu", "echo '[    0.000000] Linux version 6.12'")
    assert accel.accelerator(kernel_file, "auto", qemu=fake, cache=cache).name == "tcg"
    monkeypatch.setattr(accel, "_DOUBT_S", 0.0)
    assert accel.remembered(qemu=fake, cache=cache) is None
    assert accel.accelerator(kernel_file, "auto", qemu=fake, cache=cache).name == "kvm"
    script(tmp_path / "qemu", dead)
    assert accel.accelerator(kernel_file, "auto", qemu=fake, cache=cache).name == "kvm"


def test_what_qemu_says_is_the_reason(
    kernel_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    open_kvm(monkeypatch)
    fake = script(tmp_path / "qemu", "echo 'Could not access KVM kernel module' >&2; exit 1")
    cache = tmp_path / "kvm.json"
    chosen = accel.accelerator(kernel_file, "auto", qemu=fake, cache=cache)
    assert "Could not access KVM kernel module" in chosen.reason
    monkeypatch.setattr(accel, "_DOUBT_S", 0.0)
    assert accel.remembered(qemu=fake, cache=cache) == chosen


@pytest.mark.parametrize("content", ["", "[]", '{"a": "an older rig wrote this"}', '{"a": {}}'])
def test_a_cache_of_another_form_is_no_knowledge(
    content: str, kernel_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    open_kvm(monkeypatch)
    cache, fake = tmp_path / "kvm.json", script(tmp_path / "qemu", "echo Linux version 6")
    cache.write_text(content.replace('"a"', f'"{accel._key(fake)}"'))
    assert accel.remembered(qemu=fake, cache=cache) is None
    assert accel.accelerator(kernel_file, "kvm", qemu=fake, cache=cache).name == "kvm"


# --------------------------------------------------------------------- a QEMU that misbehaves


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """An image of which there is no more than the key to log in with."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")]
    subprocess.run(words, check=True)
    return Image("k", tmp_path, tmp_path / "disk.img", tmp_path / "key", "ssh-ed25519 AAAA", {})


def fake_machine(kernel_file: Path, image: Image, tmp_path: Path) -> QemuMachine:
    config = MachineConfig("test", accel="tcg")
    return QemuMachine(config, FakeKernel(kernel_file), image, results=tmp_path / "results")


def on_path(directory: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_ = directory / "bin"
    bin_.mkdir()
    script(bin_ / "qemu-system-x86_64", body)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")


def test_qemu_is_missing(
    kernel_file: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    machine = fake_machine(kernel_file, image, tmp_path)
    with pytest.raises(InfrastructureError, match="qemu-system-x86_64 is not installed"):
        machine.boot()
    machine.close()


def test_qemu_dies_at_start(
    kernel_file: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_path(tmp_path, "echo 'qemu: no such thing' >&2; exit 1", monkeypatch)
    machine = fake_machine(kernel_file, image, tmp_path)
    started = time.monotonic()
    with pytest.raises(InfrastructureError) as caught:
        machine.boot()
    assert "qemu: no such thing" in caught.value.output
    assert time.monotonic() - started < 10
    assert not machine.alive()


def test_a_temporary_disk_that_qemu_did_not_come_to_remove_is_removed(
    kernel_file: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    seen = tmp_path / "seen"
    on_path(tmp_path, f'echo "$TMPDIR" >{seen}; : >"$TMPDIR/vl.ABC123"; exit 1', monkeypatch)
    machine = fake_machine(kernel_file, image, tmp_path)
    with pytest.raises(InfrastructureError):
        machine.boot()
    machine.close()
    assert Path(seen.read_text().strip()).parent == scratch
    assert list(scratch.iterdir()) == []


def test_real_qemu_refuses_its_kernel(kernel_file: Path, image: Image, tmp_path: Path) -> None:
    image.disk.write_bytes(b"\0" * 1024)
    machine = fake_machine(kernel_file, image, tmp_path)
    with pytest.raises(InfrastructureError) as caught:
        machine.boot()
    assert str(kernel_file) in caught.value.output + caught.value.reproduce


def test_real_qemu_says_its_version() -> None:
    near, far = socket.socketpair()
    line = f"-chardev socket,fd={far.fileno()},id=monitor -mon monitor,mode=control"
    words = f"qemu-system-x86_64 -M none -S -nodefaults -display none {line}".split()
    started = subprocess.Popen(words, pass_fds=[far.fileno()])
    far.close()
    monitor = Monitor(near, timeout_s=30)
    try:
        version = ".".join(map(str, monitor.version))
        monitor.command("quit")
    finally:
        monitor.close()
        started.kill()
        started.wait()
    said = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, check=True)
    assert f"version {version}" in said.stdout.decode()


MONITOR = r"""
import json, os, re, socket, sys
words = " ".join(sys.argv)
named = {name: int(fd) for fd, name in re.findall(r"socket,fd=(\d+),id=(\w+)", words)}
line, monitor = (socket.socket(fileno=named[name]) for name in ("console", "monitor"))
version = {"qemu": VERSION, "package": ""}
monitor.sendall(json.dumps({"QMP": {"version": version, "capabilities": []}}).encode() + b"\n")
request = json.loads(monitor.recv(65536))
reply = {"return": {}} | ({"id": request["id"]} if "id" in request else {})
monitor.sendall(json.dumps(reply).encode() + b"\n")
"""


def speaking(
    tmp_path: Path, then: str, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int] = (7, 2)
) -> None:
    """A QEMU whose monitor answers, and whose console does as `then` says."""
    program = tmp_path / "speaking.py"
    numbers = {"major": version[0], "minor": version[1], "micro": 0}
    program.write_text(f"VERSION = {numbers}\n{MONITOR}{then}")
    on_path(tmp_path, f'exec {sys.executable} {program} "$@"', monkeypatch)


def test_kernel_that_prints_nothing(
    kernel_file: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaking(tmp_path, "monitor.recv(1)\n", monkeypatch)
    monkeypatch.setattr(qemu, "_SILENCE_S", 0.5)
    with pytest.raises(BootError, match=r"printed nothing in 0 s$"):
        fake_machine(kernel_file, image, tmp_path).boot()


def test_kernel_that_hangs_half_way(
    kernel_file: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaking(tmp_path, "line.sendall(b'Linux version 6\\r\\n'); monitor.recv(1)\n", monkeypatch)
    monkeypatch.setattr(qemu, "_SILENCE_S", 0.5)
    with pytest.raises(HangError, match="printed nothing more in") as caught:
        fake_machine(kernel_file, image, tmp_path).boot()
    assert "Linux version 6" in caught.value.output
    assert caught.value.heard == len(b"Linux version 6\r\n")


def test_kernel_that_talks_for_ever(
    kernel_file: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = "import time\nwhile True: line.sendall(b'again\\r\\n'); time.sleep(0.2)\n"
    speaking(tmp_path, talk, monkeypatch)
    monkeypatch.setattr(qemu, "_SILENCE_S", 0.5)
    monkeypatch.setattr(qemu, "_BOOT_S", 1.0)
    with pytest.raises(BootError, match="did not reach login in 1 s"):
        fake_machine(kernel_file, image, tmp_path).boot()


STUCK = (
    b"[   21.000000][    C1] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [migration/1:23]\r\n"
    b"[   21.100000][    C1] CPU: 1 UID: 0 PID: 23 Comm: migration/1 Not tainted 6.12.117 #1\r\n"
    b"[   21.200000][    C1] Stopper: multi_cpu_stop+0x0/0x100 <- __stop_cpus+0x71/0xb0\r\n"
    b"[   21.300000][    C1] RIP: 0010:multi_cpu_stop+0x8a/0x100\r\n"
    b"[   21.400000][    C1] Call Trace:\r\n"
    b"[   21.500000][    C1]  <TASK>\r\n"
    b"[   21.600000][    C1]  cpu_stopper_thread+0x8a/0x100\r\n"
    b"[   21.700000][    C1]  </TASK>\r\n"
    b"[   22.000000][    C1] hrtimer: interrupt took 61753398 ns\r\n"
)


def test_kernel_that_only_reports_that_it_is_stuck(
    kernel_file: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = f"import time\nwhile True: line.sendall({STUCK!r}); time.sleep(0.2)\n"
    speaking(tmp_path, talk, monkeypatch)
    monkeypatch.setattr(qemu, "_SILENCE_S", 1.0)
    monkeypatch.setattr(qemu, "_BOOT_S", 15.0)
    monkeypatch.setattr(qemu, "_UNBORN", 0.1)
    with pytest.raises(HangError, match="nothing more in 1 s but that it stands still"):
        fake_machine(kernel_file, image, tmp_path).boot()


def test_kernel_that_is_stuck_now_and_then_is_let_go_on(
    kernel_file: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = (
        f"import time\nwhile True:\n    line.sendall({STUCK!r}); time.sleep(0.2)\n"
        "    line.sendall(b'[   23.000000][    T1] on\\r\\n'); time.sleep(0.1)\n"
    )
    speaking(tmp_path, talk, monkeypatch)
    monkeypatch.setattr(qemu, "_SILENCE_S", 1.0)
    monkeypatch.setattr(qemu, "_BOOT_S", 3.0)
    with pytest.raises(BootError, match="did not reach login in 3 s"):
        fake_machine(kernel_file, image, tmp_path).boot()


def test_panic_is_not_waited_for_to_time_out(
    kernel_file: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "line.sendall(b'Kernel panic - not syncing: no root\\r\\nCall Trace:\\r\\n')\n"
    speaking(tmp_path, said, monkeypatch)
    started = time.monotonic()
    machine = fake_machine(kernel_file, image, tmp_path)
    with pytest.raises(BootError, match="Kernel panic - not syncing: no root") as caught:
        machine.boot()
    assert len(machine.notices) == 1
    assert "Call Trace:" in caught.value.output
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("words", ["VFS: Unable to mount root fs on unknown-block(0,0)", "x"])
def test_who_finds_no_root_is_told_how_to_look_at_the_image(
    kernel_file: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    speaking(tmp_path, f"line.sendall(b'Kernel panic - not syncing: {words}\\r\\n')\n", monkeypatch)
    with pytest.raises(BootError) as caught:
        fake_machine(kernel_file, image, tmp_path).boot()
    assert ("rig store verify" in caught.value.hint) == words.startswith("VFS")


INT3 = (
    b"[    1.5][    C0] Oops: int3: 0000 [#1] SMP\r\n"
    b"[    1.6][    C0] Kernel panic - not syncing: Fatal exception in interrupt\r\n"
)
# As a real one it does not end in the moment of its greeting.
DIES_OF_INT3 = f"import time; time.sleep(0.3); line.sendall({INT3!r})\n"


def test_boot_lost_by_the_emulator_is_tried_once_more(
    kernel_file: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaking(tmp_path, DIES_OF_INT3, monkeypatch, (8, 0))
    machine = fake_machine(kernel_file, image, tmp_path)
    assert list(machine.consoles) == []
    with pytest.raises(BootError, match="Fatal exception in interrupt"):
        machine.boot()
    first, second = machine.consoles
    assert (first.name, second.name) == ("console-0.int3.log", "console-0.log")
    assert first.read_bytes() == second.read_bytes() == INT3
    assert "booted a second time" in machine.notices[-1]
    assert machine.notices[-1].endswith(first.name)


@pytest.mark.parametrize("version", [(8, 1), (10, 0), (0, 0)])
def test_a_kernel_that_patches_badly_gets_no_second_chance(
    version: tuple[int, int],
    kernel_file: Path,
    image: Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    speaking(tmp_path, DIES_OF_INT3, monkeypatch, version)
    machine = fake_machine(kernel_file, image, tmp_path)
    with pytest.raises(BootError, match="Fatal exception in interrupt"):
        machine.boot()
    assert [path.name for path in machine.consoles] == ["console-0.log"]
    assert not any("second time" in notice for notice in machine.notices)


def test_a_full_disk_is_no_boot_error(
    kernel_file: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaking(tmp_path, "line.sendall(b'Linux\\r\\n'); monitor.recv(1)\n", monkeypatch)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "console-0.log").symlink_to("/dev/full")
    machine = fake_machine(kernel_file, image, tmp_path)
    with pytest.raises(InfrastructureError, match="cannot record the console"):
        machine.boot()
    assert not machine.alive()


def test_end_before_login(
    kernel_file: Path, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaking(tmp_path, "line.sendall(b'Linux\\r\\n')\n", monkeypatch)
    with pytest.raises(BootError, match="ended the machine before login"):
        fake_machine(kernel_file, image, tmp_path).boot()


def test_a_machine_boots_once(kernel_file: Path, image: Image, tmp_path: Path) -> None:
    machine = fake_machine(kernel_file, image, tmp_path)
    with pytest.raises(InfrastructureError, match="has not been started"):
        _ = machine.console
    with pytest.raises(InfrastructureError, match="has not been booted"):
        _ = machine.endpoint
    assert machine.diagnose() == ""
    machine.close()


# ------------------------------------------------------------------------------ a real kernel

Make = Callable[..., QemuMachine]


@pytest.fixture
def make(built_kernel: Kernel, built_image: Image, tmp_path: Path) -> Iterator[Make]:
    """Machines of the default kernel, ended with the test."""
    with contextlib.ExitStack() as stack:

        def made(
            *, accel: str = "auto", cpus: int = 2, dump: bool = False, **options: object
        ) -> QemuMachine:
            config = MachineConfig("test", accel=accel, cpus=cpus, dump=dump)
            machine = QemuMachine(
                config,
                built_kernel,
                built_image,
                results=tmp_path / "results",
                **options,  # type: ignore[arg-type]
            )
            stack.callback(machine.close)
            return machine

        yield made


def running(pid: int) -> bool:
    """The process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int, timeout_s: float) -> bool:
    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while running(pid) and time.monotonic() < deadline:
        pause.wait(0.05)
    return not running(pid)


def pid_of(machine: QemuMachine) -> int:
    assert machine._process is not None
    return machine._process.pid


@pytest.mark.kernel
def test_boots_and_says_how(make: Make, tmp_path: Path) -> None:
    machine = make()
    machine.boot()
    as_protocol: Machine = machine
    assert as_protocol.alive()
    assert 1.0 <= machine.slowdown <= qemu.MAX_SLOWDOWN
    assert float(machine.facts["ready_s"]) > 0
    assert machine.facts["name"] == "test"  # what the report is headed with
    assert bool(machine.notices) == (machine.facts["accelerator"] == "tcg")
    with machine.connect() as session:
        release = session.run(["uname", "-r"], timeout_s=30).stdout.decode().strip()
    recorded = (tmp_path / "results" / "console-0.log").read_text(errors="replace")
    assert f"Linux version {release}" in recorded
    assert not [splat for splat in machine.console.splats() if splat.type != "other"]
    machine.close()
    machine.close()
    assert not machine.alive()


@pytest.mark.kernel
def test_the_first_session_is_on_the_line_and_the_next_over_tcp(make: Make) -> None:
    machine = make()
    machine.boot()
    # Its own sshd: that of the session before may end at any moment.
    shown = (
        "tr '\\0' '\\n' </proc/self/environ; p=$$; "
        'until [ "$(cat /proc/$p/comm)" = dropbear ]; do '
        "p=$(sed -n 's/^PPid:\t//p' /proc/$p/status); done; "
        'echo "oom $(cat /proc/self/oom_score_adj) $(cat /proc/$p/oom_score_adj)"'
    )
    for over in ("localhost", "10.0.2.15"):
        with machine.connect() as session:
            said = session.run(["sh", "-c", shown], timeout_s=60 * machine.slowdown).stdout.decode()
        words = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        assert over in words["SSH_CONNECTION"]
        assert words["SHELL"] == "/bin/sh"
        assert "LD_PRELOAD" not in words
        assert "oom 0 -1000" in said.splitlines()


@pytest.mark.kernel
def test_orphans_are_reaped(make: Make) -> None:
    machine = make()
    machine.boot()
    orphan = "sh -c 'sleep 0.2 & echo $!'"
    script = f"pid=$({orphan}); while [ -e /proc/$pid ]; do sleep 0.1; done"
    with machine.connect() as session:
        done = session.run(["sh", "-c", script], timeout_s=30 * machine.slowdown)
    assert done.exit_code == 0


@pytest.mark.kernel
def test_a_kernel_without_the_port_is_reached_over_tcp(make: Make) -> None:
    machine = make(append="initcall_blacklist=virtio_console_init")
    machine.boot()
    with machine.connect() as session:
        assert session.run(["true"], timeout_s=60 * machine.slowdown).exit_code == 0
    assert "its kernel has no virtio port: sessions are over TCP" in machine.notices


@pytest.mark.kernel
def test_the_guest_reaches_nobody(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        machine = make()
        machine.boot()
        with machine.connect() as session:
            script = f"import socket; socket.create_connection(('10.0.2.2', {port}), 3)"
            done = session.run(["python3", "-c", script], timeout_s=60)
    assert done.exit_code != 0


@pytest.mark.kernel
def test_overlay_is_thrown_away(make: Make, built_image: Image) -> None:
    before = built_image.disk.stat()
    for number in range(2):
        machine = make(number=number)
        machine.boot()
        with machine.connect() as session:
            assert session.run(["test", "-e", "/left"], timeout_s=30).exit_code == 1
            assert session.run(["sh", "-c", "echo x >/left; sync"], timeout_s=30).exit_code == 0
        machine.close()
    assert built_image.disk.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("append", "words"),
    [("init=/no/such", "Kernel panic"), ("root=/dev/nothing", "Kernel panic")],
)
def test_kernel_that_panics_is_a_boot_error_at_once(make: Make, append: str, words: str) -> None:
    machine = make(append=append)
    started = time.monotonic()
    with pytest.raises(BootError, match=words) as caught:
        machine.boot()
    assert time.monotonic() - started < 60
    assert "not syncing" in caught.value.output
    assert wait_until_gone(pid_of(machine), 5)


@pytest.mark.kernel
def test_panic_in_mid_command(make: Make) -> None:
    machine = make()
    machine.boot()
    with machine.connect() as session, pytest.raises(ConnectionLost):
        session.run(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 100"], timeout_s=100)
    assert machine.console.wait_closed(30)
    assert "panic" in [splat.type for splat in machine.console.splats()]
    assert machine.panicked()
    assert not machine.alive()


@pytest.mark.kernel
def test_qemu_killed_in_mid_command(make: Make) -> None:
    machine = make()
    machine.boot()
    with machine.connect() as session:
        threading.Timer(1.0, os.kill, [pid_of(machine), signal.SIGKILL]).start()
        started = time.monotonic()
        with pytest.raises(ConnectionLost):
            session.run(["sleep", "100"], timeout_s=100)
        assert time.monotonic() - started < 20
    assert machine.console.wait_closed(5)
    assert machine.console.splats() == []
    assert not machine.alive()
    assert machine.diagnose() == ""


@pytest.mark.kernel
def test_what_a_hanging_program_waits_for_is_shown(make: Make) -> None:
    machine = make()
    machine.boot()
    said: list[str] = []
    with machine.connect() as session, pytest.raises(Exception, match="did not end"):
        session.run(
            ["sleep", "1000"], timeout_s=2, on_timeout=lambda: said.append(machine.diagnose())
        )
    assert "task:sleep" in said[0]
    assert "nanosleep" in said[0]
    assert "task:kthreadd" not in said[0]


RIG = """
import sys, threading
from pathlib import Path
import test_qemu
from rig.config import MachineConfig
from rig.image import Image
from rig.machine.qemu import QemuMachine
boot, disk, key, host_key, results = sys.argv[1:]
image = Image("k", Path(disk).parent, Path(disk), Path(key), host_key, {})
config = MachineConfig("t", accel="tcg")
machine = QemuMachine(config, test_qemu.FakeKernel(Path(boot)), image, results=Path(results))
machine.boot()
print(machine._process.pid, flush=True)
threading.Event().wait(120)
"""


@pytest.mark.kernel
def test_rig_killed_leaves_nothing(
    built_kernel: Kernel, built_image: Image, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    places = [built_kernel.boot, built_image.disk, built_image.client_key]
    rig = subprocess.Popen(
        [sys.executable, "-c", RIG, *places, built_image.host_key, tmp_path / "results"],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    assert rig.stdout is not None
    pid = int(rig.stdout.readline())
    assert running(pid)
    rig.kill()
    rig.wait()
    rig.stdout.close()
    assert wait_until_gone(pid, 5)
    deadline = time.monotonic() + 5  # its guard is still tidying up
    while list(scratch.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(scratch.iterdir()) == []


@pytest.mark.kernel
def test_debugger_starts_the_machine(make: Make) -> None:
    # Alone, a CPU cannot run what another one is patching, QEMU's fault that gets no second chance
    # under a debugger.
    machine = make(gdb=True, cpus=1)
    assert machine.attach.startswith("gdb ")
    path = Path(machine.attach.split("target remote ")[1].rstrip("'"))
    booting = threading.Thread(target=machine.boot)
    booting.start()
    deadline = time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    assert machine.console.size() == 0
    with socket.socket(socket.AF_UNIX) as debugger:
        debugger.connect(str(path))
        debugger.sendall(b"+$c#63")
        booting.join(120)
        assert machine.alive()
    machine.close()
    assert not path.exists()


@pytest.mark.kernel
def test_pasted_line_boots(make: Make, built_image: Image) -> None:
    line, login = plan.dry_run(make(accel="tcg", cpus=1).plan, built_image).splitlines()
    assert "KnownHostsCommand=" in login
    child = subprocess.Popen(
        ["sh", "-c", f"exec {line}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert child.stdout is not None
        said = b""
        while qemu.READY.encode() not in said:
            chunk = os.read(child.stdout.fileno(), 4096)
            assert chunk, said
            said += chunk
        words = shlex.split(login.partition(": ")[2])
        done = subprocess.run([*words, "echo in"], capture_output=True, timeout=60, check=False)
        assert done.stdout == b"in\n", done.stderr
    finally:
        child.kill()
        child.communicate()


@pytest.mark.kernel
def test_ports_never_clash(make: Make) -> None:
    first, second = make(number=0), make(number=1)
    first.boot()
    second.boot()
    assert first.endpoint.port != second.endpoint.port
    first.close()
    with Session(second.endpoint, connect_timeout_s=30) as session:
        assert session.run(["true"], timeout_s=30).exit_code == 0


@pytest.mark.parametrize(
    ("code", "fell"),
    [
        ("Code: 44 00 00 0f <1f> 44 00", True),  # what is there is a long no-operation
        ("Code: 44 00 00 cc <1f> 44 00", False),  # a breakpoint
        ("Code: <1f> 44 00", False),  # nobody knows
        ("Code: Unable to access opcode bytes at 0x0.", False),
    ],
)
def test_a_breakpoint_that_is_not_there_is_the_emulators(code: str, fell: bool) -> None:
    oops = f"[    1.5] Oops: int3: 0000 [#1] SMP\n[    1.6] RIP: 0010:f+0x1/0x2\n[    1.7] {code}\n"
    assert stale.fell_over_nothing(oops) is fell
    assert stale.fell_over_nothing(oops + oops) is fell
    true = oops.replace(code, "Code: 90 cc <1f>")
    assert not stale.fell_over_nothing(oops + true)
    assert not stale.fell_over_nothing(oops.replace("int3", "divide error"))


@pytest.mark.kernel
def test_a_machine_that_stands_still_is_looked_at_from_outside(make: Make) -> None:
    machine = make()
    machine.boot()
    with machine.connect() as session:
        assert session.answers(30)
        assert machine._monitor is not None
        machine._monitor.command("stop")
        assert not session.answers(2)
        said = machine.diagnose()
    assert "the kernel did not answer sysrq" in said
    for number in range(machine.plan.cpus):
        assert f"CPU {number}, as QEMU sees it" in said
    assert re.search(r"RIP: 0010:(\w+[\w.]*\+0x|\(user space\))", said)


@pytest.mark.kernel
def test_a_command_in_a_machine_that_hangs_comes_to_an_end(make: Make) -> None:
    machine = make()
    machine.boot()
    with machine.connect() as session:
        assert machine._monitor is not None
        vigil = Vigil(Sight(machine, session), 1.0, session.close, quiet_s=1.0, answer_s=1.0)
        threading.Timer(1.0, machine._monitor.command, ("stop",)).start()
        with pytest.raises(LostMachineError, match="the machine hangs") as caught:
            boot.watched(
                vigil,
                machine,
                lambda: session.run(["sleep", "1000"], timeout_s=300).exit_code,
                lambda: 0,
            )
    assert "as QEMU sees it" in caught.value.output


@pytest.mark.kernel
def test_a_kernel_shows_its_cpus_when_it_gets_an_nmi(make: Make) -> None:
    machine = make()
    machine.boot()
    said = machine._from_outside(60.0 * machine.slowdown)
    assert said.startswith("an NMI was sent to it:")
    assert "NMI: Not continuing" in said
    for number in range(machine.plan.cpus):
        assert f"NMI backtrace for cpu {number}" in said
    assert "as QEMU sees it" not in said
    assert machine.console.wait_closed(5)


@pytest.mark.kernel
def test_one_that_does_not_care_for_nmis_is_looked_at_from_outside(make: Make) -> None:
    machine = make(append="sysctl.kernel.unknown_nmi_panic=0")
    machine.boot()
    said = machine._from_outside(60.0 * machine.slowdown)
    assert "trying to continue" in said
    for number in range(machine.plan.cpus):
        assert f"CPU {number}, as QEMU sees it" in said
    # Whole stacks, with source lines: down to where a CPU's life begins.
    unwound = said.partition("its stacks, as gdb unwinds them:\n")[2]
    assert len(re.findall(r"^Thread .*CPU#\d", unwound, re.MULTILINE)) == machine.plan.cpus
    assert re.search(r"^#\d+ .*\bcpu_startup_entry .* at \S*kernel/sched/idle\.c:\d+$", unwound,
                     re.MULTILINE)  # fmt: skip
    with machine.connect() as session:  # and it runs on
        assert session.run(["true"], timeout_s=60).exit_code == 0


@pytest.mark.kernel
def test_a_machine_that_stood_still_does_so_after_a_debugger(make: Make) -> None:
    machine = make()
    machine.boot()
    assert machine._monitor is not None
    machine._monitor.command("stop")
    said = machine._unwound()
    assert said.startswith("its stacks, as gdb unwinds them:\nThread ")
    assert machine._monitor.command("query-status")["running"] is False


def _watch_for_panic(machine: QemuMachine, told: list[float]) -> None:
    """When the kernel has said so, and when QEMU has."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(told) < 2:
        if not told and "Kernel panic - not syncing" in machine.console.tail():
            told.append(time.monotonic())
        if machine.panicked():
            told += [time.monotonic()] * (2 - len(told))
        time.sleep(0.02)


@pytest.mark.kernel
def test_a_panic_that_ends_nothing_is_known(make: Make) -> None:
    """Within a second of the kernel's saying so."""
    machine = make(append="panic=0")
    machine.boot()
    with machine.connect() as session:
        told: list[float] = []
        watcher = threading.Thread(target=_watch_for_panic, args=(machine, told))
        watcher.start()
        threading.Timer(0.5, session.close).start()
        with pytest.raises(ConnectionLost):
            session.run(["sh", "-c", "echo c >/proc/sysrq-trigger"], timeout_s=100)
    watcher.join(60)
    said, known = told
    assert known - said <= 1.0
    assert machine.panicked()  # and stays so
    assert machine.alive()


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("append", "words"),
    [
        ("mem=4M", "with an early console: Kernel panic - not syncing: "),
        ("8250.nr_uarts=0", "it runs, as an early console shows: is its console on ttyS0?"),
    ],
)
def test_why_there_is_no_console_is_found_out(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, append: str, words: str
) -> None:
    monkeypatch.setattr(qemu, "_SILENCE_S", 8.0)
    machine = make(append=append)
    with pytest.raises(BootError, match=re.escape(words)) as caught:
        machine.boot()
    assert (tmp_path / "results/early-console-0.log").stat().st_size > 0
    assert "early-console-0.log" in caught.value.hint
    assert "earlycon" not in caught.value.reproduce


@pytest.mark.kernel
def test_a_machine_that_is_to_be_diagnosed_keeps_its_memory(make: Make, tmp_path: Path) -> None:
    machine = make(dump=True)
    machine.boot()
    said = machine.diagnose()
    kept = tmp_path / "results/memory-0.kdump"
    assert "sysrq: " in said
    assert f"the guest's memory is kept: {kept} (crash " in said
    assert kept.read_bytes()[:8] == b"makedump"


@pytest.mark.kernel
def test_the_memory_of_a_machine_is_dumped(make: Make, tmp_path: Path) -> None:
    machine = make()
    machine.boot()
    path = tmp_path / "memory.kdump"
    machine.dump(path)
    assert path.read_bytes()[:8] == b"makedump"
