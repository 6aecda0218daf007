"""The fault drill: things that go wrong for real, and the verdict that each of them has to get.

Each row is one run of `rig boot-and-test` with two programs: the first meets the fault, the second
has to run all the same, where there can still be a machine. What is required is the exit code, how
the first program ended and why, and the time within which all of it is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MARK = "RIG_DRILL"  # in the environment of all that a row starts
GONE_S = 10.0
AFTER = "echo TAP version 13; echo 1..1; echo ok 1 after"

Act = Callable[[subprocess.Popen[str], "Seen"], None]


@dataclass(frozen=True)
class Fault:
    """A row.

    script: what the first program does, between its plan and its only result. act: what is done on
    the host, to a rig that runs. exit_code, status, words: of the run, of the first program, and an
    expression for its message. after: whether the second program has to pass. within_s: wall
    seconds on an idle host. ci: whether it is part of CI.
    """

    name: str
    exit_code: int
    status: str
    words: str = ""
    script: str = "sleep 600"
    act: Act | None = None
    after: bool = True
    within_s: float = 60.0
    ci: bool = False
    options: tuple[str, ...] = ()


@dataclass
class Seen:
    """What came of a row. left: command lines of processes that were left behind."""

    directory: Path
    exit_code: int = -1
    took_s: float = 0.0
    output: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)
    left: tuple[str, ...] = ()

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
    """Wait until the first program has begun: its mark is on the console."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        for console in seen.directory.glob("results/*/console-*.log"):
            if b"drill/first.sh begins" in console.read_bytes():
                return
        time.sleep(0.2)
    raise TimeoutError("the first program did not begin")


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
            deadline = time.monotonic() + 240
            while not marked(seen.directory.name, "qemu-system") and time.monotonic() < deadline:
                time.sleep(0.05)
        rig.send_signal(number)

    return act


# -- the table ------------------------------------------------------------------------------------

FAULTS = (
    Fault(
        "a kernel panics in a test", 1, "crash", "sysrq triggered crash",
        script="echo c >/proc/sysrq-trigger", ci=True,
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
        script="dd if=/dev/zero of=/fill bs=1M 2>/dev/null; rm /fill", within_s=180,
    ),
    Fault("the guest's network is down", 0, "pass", "", script="ip link set eth0 down", ci=True),
    Fault(
        "the guest's clock jumps", 0, "pass", "",
        script="date -s @86400 >/dev/null; date -s @4000000000 >/dev/null; sleep 1", ci=True,
    ),
    Fault(
        "the console hides what matters", 1, "error", "the console is no proof",
        script="echo 1 >/proc/sys/kernel/printk", within_s=120,
    ),
    Fault(
        "the machine stands still", 1, "timeout", "the machine hangs",
        act=to_qemu(signal.SIGSTOP), within_s=420,
    ),
    Fault(
        "QEMU is killed", 6, "error", "the machine went away",
        act=to_qemu(signal.SIGKILL), ci=True, within_s=90,
    ),
    Fault("the rig is interrupted in a test", 130, "error", "", act=to_rig(signal.SIGINT),
          after=False, ci=True),
    Fault("the rig is interrupted in a boot", 130, "", "", act=to_rig(signal.SIGINT, running=False),
          after=False),
    Fault("the rig is killed", -signal.SIGKILL, "", "", act=to_rig(signal.SIGKILL), after=False,
          ci=True),
)  # fmt: skip


# -- how it is run --------------------------------------------------------------------------------


def run(fault: Fault, directory: Path) -> Seen:
    """One row, in an empty directory; its name marks all that it starts."""
    suite = directory / "drill"
    suite.mkdir()
    begin = "echo TAP version 13; echo 1..1"
    scripts = {"first": f"{begin}\n{fault.script}\necho ok 1 first", "second": AFTER}
    for name, text in scripts.items():
        (suite / f"{name}.sh").write_text(f"#!/bin/sh\n{text}\n")
        (suite / f"{name}.sh").chmod(0o755)
    (suite / "Makefile").write_text("TEST_PROGS := first.sh second.sh\ninclude ../lib.mk\n")
    (suite / "settings").write_text("timeout=120\n")
    seen = Seen(directory)
    words = [
        *(sys.executable, "-m", "rig", "--quiet", "boot-and-test", "--tests", str(suite)),
        *("--results", str(directory / "results"), *fault.options),
    ]
    env = {**os.environ, MARK: directory.name, "PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    with (directory / "output").open("w+") as output:
        rig = subprocess.Popen(words, cwd=ROOT, env=env, stdout=output, stderr=output, text=True)
        try:
            if fault.act:
                fault.act(rig, seen)
            seen.exit_code = rig.wait(max(1.0, 10 * fault.within_s))
        finally:
            rig.kill()
            rig.wait()
        output.seek(0)
        seen.output = output.read()
    seen.took_s = time.monotonic() - began
    seen.left = _left(directory.name)
    latest = directory / "results/latest/run.json"
    seen.run = json.loads(latest.read_bytes()) if latest.exists() else {}
    return seen


def _left(mark: str) -> tuple[str, ...]:
    """What still runs after the time that it has to go; it is ended then."""
    deadline = time.monotonic() + GONE_S
    while (found := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid, _ in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return tuple(words for _, words in found)


def troubles(fault: Fault, seen: Seen, slower: float = 1.0) -> list[str]:
    """What is not as the row has it, [] when all is. slower: how much more time there is."""
    found = []
    if seen.exit_code != fault.exit_code:
        found.append(f"exit code {seen.exit_code}, not {fault.exit_code}")
    first, second = seen.case("first.sh"), seen.case("second.sh")
    if fault.status and first.get("status") != fault.status:
        found.append(f"the first program is {first.get('status')}, not {fault.status}")
    message = f"{first.get('message', '')}\n{first.get('output', '')}"
    if fault.words and not re.search(fault.words, message):
        found.append(f"its message is {first.get('message')!r}")
    if fault.after and second.get("status") != "pass":
        found.append(f"the second program is {second.get('status')}: {second.get('message')}")
    if seen.took_s > fault.within_s * slower:
        found.append(f"it took {seen.took_s:.0f} s, not {fault.within_s * slower:.0f}")
    if not seen.run:
        found.append("nothing of it was saved")
    if seen.left:
        found.append(f"left running: {'; '.join(seen.left)[:300]}")
    if "Traceback" in seen.output:
        found.append("a traceback")
    return found
