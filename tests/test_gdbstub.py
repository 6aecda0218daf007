"""Stacks from outside: what is kept of gdb's words, and a machine of another architecture."""

from __future__ import annotations

import platform
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import emulated_bmc
import pytest

from rig import process
from rig.errors import InfrastructureError
from rig.machine import gdbstub
from rig.machine.qmp import Monitor

ARM = "aarch64-linux-gnu-gcc"

# A "kernel" of its own that hangs two calls deep.
HANGS = """\
static volatile unsigned long turns;
__attribute__((noinline)) void waits_for_ever(unsigned long more)
{
\tfor (;;)
\t\tturns += more;
}
__attribute__((noinline)) void takes_a_lock(unsigned long more)
{
\twaits_for_ever(more + 1);
\tturns = 0;
}
__attribute__((naked, section(".text.start"))) void _start(void)
{
\t__asm__("ldr x30, =0x48000000\\n\\tmov sp, x30\\n\\tmov x29, #0\\n\\tmov x30, #0\\n"
\t\t"\\tmov x0, #1\\n\\tbl takes_a_lock\\n\\tb .");
}
"""

SAID = """\
warning: while parsing target description: something
0xffffffff81a2 in ?? ()
[Switching to Thread 1.2]

Thread 2 (Thread 1.2 (CPU#1 [halted ])):
#0  pv_native_safe_halt () at arch/x86/kernel/paravirt.c:128
#1  0xffffffff81a in do_idle () at kernel/sched/idle.c:325
Thread 1 (Thread 1.1 (CPU#0 [running])):
#0  lkdtm_HARDLOCKUP () at drivers/misc/lkdtm/bugs.c:10
[Inferior 1 (process 1) detached]
"""


def test_what_gdb_says_of_itself_is_left_out() -> None:
    assert gdbstub.told(SAID).splitlines() == [
        "Thread 2 (Thread 1.2 (CPU#1 [halted ])):",
        "#0  pv_native_safe_halt () at arch/x86/kernel/paravirt.c:128",
        "#1  0xffffffff81a in do_idle () at kernel/sched/idle.c:325",
        "Thread 1 (Thread 1.1 (CPU#0 [running])):",
        "#0  lkdtm_HARDLOCKUP () at drivers/misc/lkdtm/bugs.c:10",
    ]
    assert gdbstub.told("Remote connection closed\n") == ""


def test_a_gdb_is_taken_that_knows_the_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gdbstub.debugger("x86_64") == ""
    with pytest.raises(InfrastructureError, match="no gdb for arm64") as caught:
        gdbstub.stacks(None, tmp_path, "arm64")  # type: ignore[arg-type]
    assert "gdb-multiarch" in caught.value.hint
    for name in ("gdb", "gdb-multiarch"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        own = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine(), "")
        other = "riscv64"
        assert gdbstub.debugger(own) == name
        assert gdbstub.debugger(other) == (name if name == "gdb-multiarch" else "")


@pytest.fixture
def arm_machine(tmp_path: Path) -> Iterator[tuple[Monitor, Path]]:
    """One that hangs, and its kernel."""
    emulated_bmc.wanted(ARM, "qemu-system-aarch64", "gdb-multiarch")
    (tmp_path / "hangs.c").write_text(HANGS)
    kernel = tmp_path / "hangs"
    words = [ARM, "-g", "-O1", "-ffreestanding", "-nostdlib", "-static", "-Wl,-Ttext=0x40080000"]
    process.run([*words, "-o", kernel, tmp_path / "hangs.c"], timeout_s=60)
    ours, theirs = socket.socketpair()
    with theirs:
        qemu = subprocess.Popen(
            ["qemu-system-aarch64", "-M", "virt", "-cpu", "max", "-m", "256", "-display", "none",
             "-nodefaults", "-chardev", f"socket,id=monitor,fd={theirs.fileno()}",
             "-mon", "monitor,mode=control", "-kernel", kernel],
            pass_fds=[theirs.fileno()],
        )  # fmt: skip
    try:
        monitor = Monitor(ours, timeout_s=60)
        yield monitor, kernel
        monitor.close()
    finally:
        qemu.kill()
        qemu.wait()
        ours.close()


def test_another_architecture_is_unwound(arm_machine: tuple[Monitor, Path]) -> None:
    monitor, kernel = arm_machine
    said = gdbstub.stacks(monitor, kernel, "arm64").splitlines()
    assert said[0].startswith("Thread 1 ")
    assert "CPU#0" in said[0]
    assert "waits_for_ever (more=" in said[1]
    assert said[1].rpartition("hangs.c:")[2] in ("4", "5")
    assert "takes_a_lock (more=" in said[2]
    assert monitor.command("query-status")["running"] is True
    # Nobody can attach to it any more.
    words = {"command-line": "info chardev"}
    assert "stub" not in str(monitor.command("human-monitor-command", **words))


def test_a_gdb_that_is_not_done_in_time_leaves_the_machine_running(
    arm_machine: tuple[Monitor, Path], tmp_path: Path
) -> None:
    monitor, _ = arm_machine
    with pytest.raises(InfrastructureError, match=r"gdb-multiarch (unwound nothing|exceeded|did)"):
        gdbstub.stacks(monitor, tmp_path / "hangs", "arm64", limit_s=0.01)
    assert monitor.command("query-status")["running"] is True
