"""The fault drill: things that go wrong for real, and the verdict that each of them has to get.

Each row is one run of `rig boot-and-test` with three programs: one that has passed before, whose
result has to be kept; the first to meet the fault; a second that has to run all the same, where
there can still be a machine. What is required is the exit code, how the first program ended and
why, the time within which all of it is over, and that nothing is left: no process, no file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from rig import upkeep
from rig.store import Store, open_store

ROOT = Path(__file__).parents[2]
MARK = "RIG_DRILL"  # in the environment of all that a row starts
GONE_S = 10.0
HALF = "half-made"  # what was left of that in a store of a row's own
WHOLE = "echo TAP version 13; echo 1..1; echo ok 1 whole"

Act = Callable[[subprocess.Popen[str], "Seen"], None]
# What is set up around a row: its directory, and the environment of its rig, which it may change.
Around = Callable[[Path, dict[str, str]], contextlib.AbstractContextManager[None]]
SAVED_S = 5.0  # within which a result is on disk, on a host that has other things to do as well
# Of a store: all that a run begins with.
READY_MADE = ("kernel", "image", "snapshot", "source", "suites", "memo")
LKDTM = "drivers/misc/lkdtm/"
PROVOKE = "/sys/kernel/debug/provoke-crash/DIRECT"  # drivers/misc/lkdtm of kernels with lockdep


# What a kernel says, which here has said nothing of it.
REPORT = (
    "'BUG: kernel NULL pointer dereference, address: 0000000000000008' "
    "'#PF: supervisor read access in kernel mode' 'Oops: 0000 [#1] PREEMPT SMP' "
    "'CPU: 0 PID: 1 Comm: x Not tainted 6.12' 'RIP: 0010:filp_flush+0x1/0x2' "
    "'---[ end trace 0000000000000000 ]---' '<0>Kernel panic - not syncing: Fatal exception'"
)


@dataclass(frozen=True)
class Fault:
    """A row.

    script: what the first program does, between its plan and its only result. act: what is done on
    the host, to a rig that runs. around: what is set up before and taken down behind it. kernel:
    instead of the default one. exit_code, status, words: of the run, of the first program, and an
    expression for its message, or for what the rig said where no program ran. notice: one for what
    has to be said besides, in the run or to whoever watches. after: whether the second program has
    to pass; before: whether the one before has. title, place: of a report that has to stand in the
    run, decoded. again: the next rig has to run. within_s: wall seconds on an idle host. ci:
    whether it is part of CI.
    """

    name: str
    exit_code: int
    status: str
    words: str = ""
    script: str = "sleep 600"
    act: Act | None = None
    notice: str = ""
    before: bool = True
    after: bool = True
    title: str = ""
    place: str = ""
    again: bool = False
    within_s: float = 60.0
    ci: bool = False
    options: tuple[str, ...] = ()
    kernel: str = ""
    around: Around | None = None


@dataclass
class Seen:
    """What came of a row.

    left: command lines of processes that were left behind. litter: files that were. broken: why it
    could not be run. again: the exit code of the next rig. kin: what the rig had started when a
    fault came upon it.
    """

    directory: Path
    exit_code: int = -1
    took_s: float = 0.0
    output: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    litter: tuple[str, ...] = ()
    broken: str = ""
    again: int = 0
    kin: dict[int, str] = field(default_factory=dict)

    def case(self, program: str) -> Mapping[str, Any]:
        """The worst case of a program, that of the program as a whole among such; {} for none."""
        order = ("crash", "timeout", "error", "fail", "flaky", "pass", "skip")
        cases = [one for one in self.run.get("cases", []) if one["program"] == program]
        return min(cases, key=lambda o: (order.index(o["status"]), bool(o.get("name"))), default={})


# -- what is done on the host ---------------------------------------------------------------------


def marked(mark: str, name: str = "") -> list[tuple[int, str]]:
    """(pid, command line) of the processes of a row, of those whose command has the name."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    if name in words:
                        found.append((int(entry.name), words))
    return found


def until_it_runs(seen: Seen, limit_s: float = 240.0) -> None:
    """Wait until the first program has begun: its mark is on the console. And a moment more, until
    the result of the one before is saved: that may take some twenty times as long as one saving.
    """
    deadline = time.monotonic() + limit_s
    while not _says(seen, "console-*.log", b"drill/first.sh begins"):
        if time.monotonic() > deadline:
            raise TimeoutError("the first program did not begin")
        time.sleep(0.2)
    deadline = time.monotonic() + SAVED_S
    while not _says(seen, "run.json", b"before.sh") and time.monotonic() < deadline:
        time.sleep(0.05)


def _says(seen: Seen, files: str, words: bytes) -> bool:
    return any(words in one.read_bytes() for one in seen.directory.glob(f"results/*/{files}"))


def until_it_boots(seen: Seen, limit_s: float = 240.0) -> None:
    """Wait until there is a QEMU."""
    deadline = time.monotonic() + limit_s
    while not marked(seen.directory.name, "qemu-system"):
        if time.monotonic() > deadline:
            raise TimeoutError("no QEMU was started")
        time.sleep(0.05)


def to_qemu(number: int) -> Act:
    """Send a signal to the machine, once the first program runs."""

    def act(_rig: subprocess.Popen[str], seen: Seen) -> None:
        until_it_runs(seen)
        for pid, _ in marked(seen.directory.name, "qemu-system"):
            os.kill(pid, number)

    return act


def to_rig(number: int, *, running: bool = True) -> Act:
    """Send a signal to the rig: once the first program runs, or while the machine boots."""

    def act(rig: subprocess.Popen[str], seen: Seen) -> None:
        if running:
            until_it_runs(seen)
        else:
            until_it_boots(seen)
        rig.send_signal(number)

    return act


def offspring(pid: int) -> dict[int, str]:
    """Process id -> command line of all that a process has started, and those in turn. What is
    started with an environment of its own has no mark.
    """
    parents: dict[int, int] = {}
    words: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(stat[1])
                line = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                words[int(entry.name)] = line.strip()
    found = {pid}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return {one: words[one] for one in found - {pid} if one in words}


def the_disk_fills_up(_rig: subprocess.Popen[str], seen: Seen) -> None:
    """Once the first program runs, somebody else takes all that is left of the results' disk."""
    until_it_runs(seen)
    try:
        with (seen.directory / "results/fill").open("wb", 0) as file:
            while True:
                file.write(bytes(1024))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def to_rig_in(command: str, number: int = signal.SIGINT) -> Act:
    """Send a signal to the rig, once it runs a command of this name ("cc1")."""

    def act(rig: subprocess.Popen[str], seen: Seen) -> None:
        deadline = time.monotonic() + 600
        while True:
            seen.kin = offspring(rig.pid)
            if any(Path(words.split(" ")[0]).name == command for words in seen.kin.values()):
                break
            if rig.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it never came to {command}")
            time.sleep(0.1)
        rig.send_signal(number)

    return act


def once_it_has_ended(rig: subprocess.Popen[str], seen: Seen) -> None:
    """Interrupt the rig when its run is whole, and only what it is told by is still to come."""
    deadline = time.monotonic() + 240
    while not _says(seen, "run.json", b'"complete": true'):
        if rig.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("its run was never whole")
        time.sleep(0.005)
    rig.send_signal(signal.SIGINT)


def beside_another(rig: subprocess.Popen[str], seen: Seen) -> None:
    """A second rig does the same at the same time; it has to come to the same."""
    words = [str(word) for word in cast("list[str]", rig.args)]
    words[words.index("--results") + 1] += "-of-the-other"
    env = {**os.environ, MARK: seen.directory.name, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"the other rig: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        )
    saved = seen.directory / "results-of-the-other/latest/run.json"
    ends = {one["program"]: one["status"] for one in json.loads(saved.read_bytes())["cases"]}
    if ends != dict.fromkeys(("before.sh", "first.sh", "second.sh"), "pass"):
        raise RuntimeError(f"the other rig: {ends}")


# -- what is set up -------------------------------------------------------------------------------


def on_a_disk_of(size: str) -> Around:
    """Results go to where there is so much room for them."""

    @contextlib.contextmanager
    def around(directory: Path, _env: dict[str, str]) -> Iterator[None]:
        place = directory / "results"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", place], check=True)

    return around


def with_only(*parts: str) -> Around:
    """The rig's store has these parts of the real one, and nothing else that was made of them. What
    somebody has begun to make there has to be gone in the end.
    """

    @contextlib.contextmanager
    def around(directory: Path, env: dict[str, str]) -> Iterator[None]:
        store, copy = open_store().root, directory / "store"
        for part in parts:
            if (store / part).is_dir():
                shutil.copytree(store / part, copy / part, copy_function=_linked, symlinks=True)
        env["RIG_STORE"] = str(copy)
        before = half_made(copy)  # by others, just now
        try:
            yield
            (directory / HALF).write_text("\n".join(sorted(half_made(copy) - before)))
        finally:
            shutil.rmtree(copy)

    return around


def half_made(store: Path) -> set[str]:
    """What somebody has begun to make there, and is not at it any more."""
    return set(upkeep.collect(Store(store), 1 << 60, dry_run=True).leftovers)


def with_damage(kind: str, name: str, damage: Callable[[Path], None]) -> Around:
    """The rig's store is a copy of the real one, in which all files of that name are damaged."""

    @contextlib.contextmanager
    def around(directory: Path, env: dict[str, str]) -> Iterator[None]:
        with with_only(*READY_MADE)(directory, env):
            found = list((directory / "store" / kind).glob(f"*/{name}"))
            if not found:
                raise RuntimeError(f"there is no {kind} in the store that could be damaged")
            for path in found:
                whole = path.with_suffix(".whole")
                path.rename(whole)
                subprocess.run(["cp", "--sparse=always", "--preserve=all", whole, path], check=True)
                whole.unlink()
                times = path.stat()
                path.chmod(0o644)
                damage(path)
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
                path.chmod(times.st_mode)
            yield

    return around


def _linked(source: str, target: str) -> None:
    """A second name of a file, or a copy where there cannot be one."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def cut_in_half(path: Path) -> None:
    """A download or a disk that ended too early."""
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    """The first megabyte is gone, the superblock with it."""
    with path.open("r+b") as file:
        file.write(bytes(1 << 20))


# A debugger's hand on the first process: its next instruction is at 0.
_KILL_INIT = """
import ctypes, os, signal
trace = ctypes.CDLL(None, use_errno=True).ptrace
trace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
ATTACH, POKEUSER, DETACH, RIP, WALL = 16, 6, 17, 16 * 8, 0x40000000
assert trace(ATTACH, 1, None, None) == 0
os.waitpid(1, WALL)
assert trace(POKEUSER, 1, RIP, None) == 0
assert trace(DETACH, 1, None, None) == 0
signal.pause()
"""

# -- the table ------------------------------------------------------------------------------------

FAULTS = (
    Fault(
        "a kernel panics in a test", 1, "crash", "sysrq triggered crash",
        script="echo c >/proc/sysrq-trigger", ci=True,
        title="sysrq triggered crash",
    ),
    Fault(
        "a program does not end",
        1,
        "timeout",
        "did not end",
        script="sleep 600",
        options=("--timeout", "2"),
        ci=True,
    ),
    Fault(
        "the guest's sshd is killed",
        1,
        "timeout",
        "no answer",
        script="pkill -9 dropbear; sleep 600",
        within_s=300,
    ),
    Fault(
        "the guest's memory is all used", 1, "error", "killed by signal 9",
        script="exec python3 -c 'x = [bytearray(1 << 20) for _ in range(1 << 20)]'", within_s=90,
    ),
    Fault(
        "the guest's disk is full", 0, "pass", "",
        # And it stays so: also the next program has to run, and its result to be kept.
        script="said=$(dd if=/dev/zero of=/fill bs=1M 2>&1); "
               'case $said in *"No space left"*) ;; *) echo "$said"; exit 1;; esac', within_s=180,
    ),
    # Sessions are on a line of their own, where the kernel has it.
    Fault("the guest's network is down", 0, "pass", "", script="ip link set eth0 down", ci=True),
    Fault(
        "the network of the sessions is down", 1, "timeout", "the machine hangs.*no answer",
        script="ip link set eth0 down; sleep 600", notice="sessions are over TCP",
        options=("--append", "initcall_blacklist=virtio_console_init"), within_s=300,
    ),
    Fault(
        "the guest's clock jumps", 0, "pass", "",
        script="date -s @86400 >/dev/null; date -s @4000000000 >/dev/null; sleep 1", ci=True,
    ),
    Fault(
        "the console hides what matters", 1, "error", "the console is no proof",
        script="echo 1 >/proc/sys/kernel/printk", within_s=120,
    ),
    Fault(
        "a program writes a report to /dev/kmsg", 0, "pass", "",
        script=f"for line in {REPORT}; do echo \"$line\" >/dev/kmsg; done; "
               f"for line in {REPORT}; do echo \"<1>[    1.000000] $line\" >/dev/kmsg; done",
        ci=True,
    ),
    Fault(
        "the machine stands still", 1, "timeout", "(?s)the machine hangs.*could not be looked at",
        act=to_qemu(signal.SIGSTOP), within_s=420,
    ),
    Fault(
        "QEMU is killed", 6, "error", "the machine went away",
        act=to_qemu(signal.SIGKILL), ci=True, within_s=90,
    ),
    Fault("the rig is interrupted in a test", 130, "error", "", act=to_rig(signal.SIGINT),
          after=False, again=True, ci=True),
    Fault("the rig is interrupted in a boot", 130, "", "", act=to_rig(signal.SIGINT, running=False),
          before=False, after=False, again=True),
    Fault("the rig is interrupted in a build", 130, "", "", act=to_rig_in("cc1"),
          around=with_only("source"), before=False, after=False, within_s=400),
    Fault("the rig is interrupted in making a tree", 130, "", "", act=to_rig_in("git"),
          around=with_only("source"), before=False, after=False, within_s=300),
    Fault("the rig is interrupted in making an image", 130, "", "", act=to_rig_in("perl"),
          around=with_only("source", "kernel", "memo"), before=False, after=False, again=True,
          within_s=120),
    Fault("the rig is interrupted in compiling a suite", 130, "", "", act=to_rig_in("cc1"),
          around=with_only("source", "kernel", "image", "snapshot", "memo"),
          options=("--suite", "abi"), before=False, after=False, again=True, within_s=120),
    Fault("the rig is interrupted in the first boot", 130, "", "",
          act=to_rig(signal.SIGINT, running=False),
          around=with_only("source", "kernel", "image", "suites", "memo"),
          before=False, after=False, again=True, within_s=120),
    Fault("the rig is interrupted in decoding a trace", 130, "crash", "sysrq triggered crash",
          script="echo c >/proc/sysrq-trigger", act=to_rig_in("bash"), after=False, again=True,
          ci=True),
    Fault("the rig is interrupted in writing its report", 130, "pass", "", script="true",
          act=once_it_has_ended, again=True),
    # -- kernels that do not come up
    Fault(
        "a panic before there is a console", 5, "error", "early console: Kernel panic",
        options=("--append", "mem=4M"), before=False, after=False, within_s=150,
    ),
    Fault(
        "a panic in an initcall", 5, "error", "Kernel panic - not syncing: dumptest",
        kernel="lockdep",
        options=("--append", "lkdtm.cpoint_name=DIRECT lkdtm.cpoint_type=PANIC"),
        title="kernel panic: dumptest",
        before=False, after=False, within_s=120,
    ),
    Fault(
        "a hang in an initcall", 5, "error", "(?s)printed nothing more.*lkdtm_HARDLOCKUP",
        kernel="lockdep",
        options=("--append", "lkdtm.cpoint_name=DIRECT lkdtm.cpoint_type=HARDLOCKUP"),
        before=False, after=False, within_s=240,
    ),
    Fault(
        "init ends at once", 5, "error", "Attempted to kill init", title="Attempted to kill init",
        options=("--append", "init=/bin/false"), before=False, after=False, ci=True,
    ),
    Fault(
        "there is no init", 5, "error", "Requested init /nothing/here failed",
        title="no working init",
        options=("--append", "init=/nothing/here"), before=False, after=False,
    ),
    Fault(
        "there is no root", 5, "error", "Unable to mount root fs",
        options=("--append", "root=/dev/nowhere"), before=False, after=False, ci=True,
        title="Unable to mount root fs",
    ),
    Fault(
        "there is no console", 5, "error", "is its console on ttyS0",
        options=("--append", "8250.nr_uarts=0"), before=False, after=False, within_s=180,
    ),
    # -- kernels that go wrong in a test
    Fault(
        "init is killed", 1, "crash", "Attempted to kill init",
        script=f"exec python3 -c '{_KILL_INIT}'", title="Attempted to kill init", within_s=90,
    ),
    Fault(
        "a system call oopses", 1, "crash", "NULL pointer dereference|page fault",
        script=f"echo EXCEPTION >{PROVOKE}", kernel="lockdep", title="in lkdtm_EXCEPTION$",
        place=LKDTM, within_s=120,
    ),
    Fault(
        "freed memory is read under KASAN", 1, "fail", "KASAN: .*use-after-free",
        script=f"echo READ_AFTER_FREE >{PROVOKE}", kernel="kasan",
        title="KASAN: .*use-after-free .*in lkdtm_READ_AFTER_FREE$", place=LKDTM, within_s=180,
    ),
    Fault(
        "a deadlock, under lockdep", 1, "timeout",
        "did not end.*splat: possible deadlock in lkdtm_",
        script=f"echo FIRST_THEN_SECOND >{PROVOKE} & echo SECOND_THEN_FIRST >{PROVOKE}; wait",
        kernel="drill", title="possible deadlock in lkdtm_(FIRST|SECOND)_THEN_", place=LKDTM,
        options=("--timeout", "20"), within_s=240,
    ),
    Fault(
        # Nobody calls for it again: what is reported first is that the lock stays held.
        "a lock that is not let go, under lockdep", 1, "fail",
        "lock held when returning|invalid wait context",
        script=f"echo SPINLOCKUP >{PROVOKE}", kernel="drill",
        # It has no stack: no culprit, no place. Where its task is sent away on the way out, lockdep
        # reports that first, and is silent from then on.
        title="lock held when returning to user space$|invalid wait context in ", within_s=180,
    ),
    Fault(
        "memory leaks until nobody is left to be killed", 1, "crash",
        "deadlocked on memory|no killable",
        script=f"echo LEAK >{PROVOKE}; sleep 600", kernel="drill",
        title="kernel panic: System is deadlocked on memory", within_s=300,
    ),
    Fault(
        "RCU stalls", 1, "timeout|fail|crash", "rcu detected stall", title="rcu detected stall",
        script=f"echo SOFTLOCKUP >{PROVOKE}", kernel="lockdep",
        options=("--append", "rcupdate.rcu_cpu_stall_timeout=5", "--timeout", "15"), within_s=240,
    ),
    Fault(
        "a loop with interrupts off", 1, "timeout",
        "(?s)the machine hangs.*NMI backtrace for cpu 0.*lkdtm_HARDLOCKUP",
        script=f"echo HARDLOCKUP >{PROVOKE}", kernel="lockdep",
        options=("--machine", "single"), within_s=600,
    ),
    Fault(
        "the console is flooded", 0, "pass", "",
        script="dd if=/dev/zero bs=4k count=2000 | tr '\\0' x | fold -w 99 >/dev/console",
        within_s=180,
    ),
    # -- hosts that go wrong
    Fault(
        "the host's disk is full", 3, "", "[Nn]o space left",
        script="seq 1 100000", before=False, after=False, around=on_a_disk_of("16k"), within_s=90,
    ),
    Fault(
        "the host's disk fills up", 3, "", "[Nn]o space left",
        script="sleep 8; seq 1 10000 >/dev/console", act=the_disk_fills_up, after=False,
        around=on_a_disk_of("4m"), within_s=90,
    ),
    Fault("two rigs at once", 0, "pass", "", script="sleep 1", act=beside_another, within_s=120),
    Fault(
        "a snapshot is cut in half", 0, "pass", "", script="true",
        notice="in the store is damaged: memory has .*; making it again",
        around=with_damage("snapshot", "memory", cut_in_half),
        within_s=180,
    ),
    Fault(
        "an image is overwritten", 3, "error", r"image \w+ in the store is damaged: .*disk\.img",
        script="true", around=with_damage("image", "disk.img", overwritten),
        options=("--cold",), before=False, after=False, within_s=180,
    ),
    Fault("the rig is killed", -signal.SIGKILL, "", "", act=to_rig(signal.SIGKILL), after=False,
          again=True, ci=True),
)  # fmt: skip


# -- how it is run --------------------------------------------------------------------------------


def run(fault: Fault, directory: Path) -> Seen:
    """One row, in an empty directory; its name marks all that it starts."""
    suite = directory / "drill"
    suite.mkdir()
    begin = "echo TAP version 13; echo 1..1"
    first = f"{begin}\n{fault.script}\necho ok 1 first"
    scripts = {"before": WHOLE, "first": first, "second": WHOLE}
    for name, text in scripts.items():
        (suite / f"{name}.sh").write_text(f"#!/bin/sh\n{text}\n")
        (suite / f"{name}.sh").chmod(0o755)
    programs = " ".join(f"{name}.sh" for name in scripts)
    (suite / "Makefile").write_text(f"TEST_PROGS := {programs}\ninclude ../lib.mk\n")
    (suite / "settings").write_text("timeout=120\n")
    seen = Seen(directory)
    words = [
        *(sys.executable, "-m", "rig", "--quiet", "boot-and-test", *filter(None, [fault.kernel])),
        *("--tests", str(suite), "--results", str(directory / "results"), *fault.options),
    ]
    # Of its own, and with a short name: sockets are in there.
    with tempfile.TemporaryDirectory(prefix="drill-") as own:
        env = {**os.environ, MARK: directory.name, "PYTHONPATH": str(ROOT), "TMPDIR": own}
        around = fault.around(directory, env) if fault.around else contextlib.nullcontext()
        try:
            with around:
                _drive(fault, seen, words, env)
                if fault.again:
                    more = [*words, "--case", "before.sh"]
                    then = subprocess.run(more, cwd=ROOT, env=env, capture_output=True, check=False)
                    seen.again = then.returncode
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            seen.broken = str(error)
        half = directory / HALF
        seen.litter = (
            *sorted(path.name for path in Path(own).iterdir()),
            *(half.read_text().splitlines() if half.exists() else ()),
        )
    return seen


def _drive(fault: Fault, seen: Seen, words: list[str], env: Mapping[str, str]) -> None:
    """The rig of a row from its start to its end, and what there is to see of it then."""
    directory = seen.directory
    began = time.monotonic()
    with (directory / "output").open("w+") as output:
        # A shell that puts us into the background has us ignore SIGINT, and so what we start.
        words = ["env", "--default-signal=INT", *words]
        rig = subprocess.Popen(words, cwd=ROOT, env=env, stdout=output, stderr=output, text=True)
        try:
            if fault.act:
                fault.act(rig, seen)
            seen.exit_code = rig.wait(max(1.0, 10 * fault.within_s))
        except (TimeoutError, RuntimeError, subprocess.TimeoutExpired) as error:
            seen.broken = str(error)
        finally:
            rig.kill()
            rig.wait()
        output.seek(0)
        seen.output = output.read()
    seen.took_s = time.monotonic() - began
    seen.left = _left(directory.name, seen.kin)
    latest = directory / "results/latest/run.json"
    seen.run = json.loads(latest.read_bytes()) if latest.exists() else {}


def _left(mark: str, kin: Mapping[int, str]) -> tuple[str, ...]:
    """What still runs after the time that it has to go; it is ended then."""
    deadline = time.monotonic() + GONE_S
    while (found := [*marked(mark), *_still(kin)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid, _ in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return tuple(words for _, words in found)


def _still(kin: Mapping[int, str]) -> list[tuple[int, str]]:
    """Those that run on, as what they were."""
    found = []
    for pid, words in kin.items():
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            if words and line.decode(errors="replace").strip() == words:
                found.append((pid, words))
    return found


def troubles(fault: Fault, seen: Seen, slower: float = 1.0) -> list[str]:
    """What is not as the row has it, [] when all is. slower: how much more time there is."""
    found = [f"it could not be run: {seen.broken}"] if seen.broken else []
    if seen.exit_code != fault.exit_code:
        found.append(f"exit code {seen.exit_code}, not {fault.exit_code}")
    first, second = seen.case("first.sh"), seen.case("second.sh")
    if fault.before and seen.case("before.sh").get("status") != "pass":
        found.append("the result of the program before is not kept")
    if fault.status and not re.fullmatch(fault.status, first.get("status", "")):
        found.append(f"the first program is {first.get('status')}, not {fault.status}")
    message = f"{first.get('message', '')}\n{first.get('output', '')}" if first else seen.output
    # Why there was no guest stands with the first program that wanted one.
    message += f"\n{seen.case('before.sh').get('output', '')}"
    message += "".join(f"\n{splat['title']}" for splat in seen.run.get("splats", []))
    if fault.words and not re.search(fault.words, message):
        found.append(f"its message is {first.get('message', seen.output[-300:])!r}")
    if fault.after and second.get("status") != "pass":
        found.append(f"the second program is {second.get('status')}: {second.get('message')}")
    notices = "\n".join([*seen.run.get("notices", []), seen.output])
    if fault.notice and not re.search(fault.notice, notices):
        found.append(f"it is not said: {fault.notice}")
    if seen.took_s > fault.within_s * slower:
        found.append(f"it took {seen.took_s:.0f} s, not {fault.within_s * slower:.0f}")
    if not seen.run:
        found.append("nothing of it was saved")
    if seen.left:
        found.append(f"left running: {'; '.join(seen.left)[:300]}")
    if seen.again:
        found.append(f"the next rig: exit code {seen.again}")
    reports = [one for one in seen.run.get("splats", []) if re.search(fault.title, one["title"])]
    if fault.title and not any(
        one["decoded"] and one["place"].startswith(fault.place) for one in reports
    ):
        those = [(one["title"], one["place"]) for one in seen.run.get("splats", [])]
        found.append(f"no decoded report {fault.title!r} at {fault.place!r}: {those}")
    if seen.litter:
        found.append(f"files left: {', '.join(seen.litter)[:300]}")
    if "Traceback" in seen.output:
        found.append("a traceback")
    return found
