"""Where the time goes from QEMU's start to the end of the first SSH command.

Boots the default kernel from power-on several times, each line of its console and each step of the
login stamped as it comes, and prints the medians as the table of docs/boot-time.md. A boot is what
`rig boot --cold` makes of it, but for the console, which is read here. --restored does the same for
machines restored from a snapshot. --initcalls looks closer, which takes time itself: its
figures are good for comparing steps only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from rig import config as configuration  # noqa: E402
from rig import process, terminal  # noqa: E402
from rig.errors import BootError, RigError  # noqa: E402
from rig.lab import KernelLab  # noqa: E402
from rig.machine.plan import Plan, command_line  # noqa: E402
from rig.machine.qemu import READY, QemuMachine  # noqa: E402
from rig.session import Endpoint, Line, Session  # noqa: E402
from rig.store import open_store  # noqa: E402

BOOT_S = 120.0
TRUE = ["true"]
# What has been done when a line with these words comes. In the order of a boot.
CONSOLE = (
    ("QEMU, firmware, the kernel up to its console", "Linux version"),
    ("clocks, memory, scheduler", "Mountpoint-cache"),
    ("calibration of the local APIC's timer", "smpboot: CPU0:"),
    ("the other CPUs", "smp: Brought up"),
    ("ACPI and the PCI bus", "clocksource: Switched to clocksource"),
    ("network protocols, drivers", "sched_clock: Marking stable"),
    ("root file system", "devtmpfs: mounted"),
    ("initial memory overwritten and freed", "as init process"),
    ("init: sshd started, mounts, network", READY),
)
# The same in the words of the SSH client's log. Of what was done beside another step, as a key
# exchange while the guest was not ready yet, only the rest counts.
LOGIN = (
    ("sshd says its version", "Connected (version"),
    ("key exchange", "Switch to new keys"),
    ("login", "Authentication (publickey) successful"),
)
RESTORED = "QEMU, the saved state, renewal"
COMMAND = "first command: `true`"
INITCALL = re.compile(r"initcall (\S+?)\+\S+ returned \S+ after (\d+) usecs")


@dataclass
class Boot:
    """One boot: (seconds since QEMU's start, text) of the console and of the login's log.

    restored_s: when the snapshot was restored and renewed; 0 for a boot from power-on.
    """

    console: list[tuple[float, str]] = field(default_factory=list)
    login: list[tuple[float, str]] = field(default_factory=list)
    end_s: float = 0.0
    restored_s: float = 0.0

    def moments(self) -> dict[str, float]:
        """Step -> when it was done; a step whose words never came is missing."""
        found = {name: _first(self.console, words) for name, words in CONSOLE}
        found = {RESTORED: self.restored_s} if self.restored_s else found
        found |= {name: _first(self.login, words) for name, words in LOGIN}
        return {name: at for name, at in found.items() if at is not None} | {COMMAND: self.end_s}


def _first(lines: list[tuple[float, str]], words: str) -> float | None:
    return next((at for at, text in lines if words in text), None)


class Log(logging.Handler):
    """Keeps what the SSH client logs, with the time."""

    def __init__(self, started: float, lines: list[tuple[float, str]]) -> None:
        super().__init__(logging.DEBUG)
        self._started, self._lines = started, lines

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging, from any thread."""
        self._lines.append((time.monotonic() - self._started, record.getMessage()))


def read(stream: IO[bytes], started: float, boot: Boot, ready: threading.Event) -> None:
    """Stamp each line of the console as it comes; to be run in a thread."""
    partial = b""
    while chunk := os.read(stream.fileno(), 65536):
        now = time.monotonic() - started
        *lines, partial = (partial + chunk).split(b"\n")
        boot.console += [(now, line.decode(errors="replace").rstrip()) for line in lines]
        if any(READY.encode() in line for line in lines):
            ready.set()
    ready.set()


@contextlib.contextmanager
def logged(started: float, lines: list[tuple[float, str]]) -> Iterator[None]:
    """What the SSH client logs meanwhile goes to lines."""
    logger, log = logging.getLogger("paramiko"), Log(started, lines)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(log)
    try:
        yield
    finally:
        logger.removeHandler(log)


def boot(plan: Plan, lab: KernelLab) -> Boot:
    """Power on, log in, run one command, power off. BootError when it does not come that far."""
    made, ready = Boot(), threading.Event()
    near, far = socket.socketpair()
    with tempfile.TemporaryFile() as errors, near:
        words = command_line(replace(plan, session=f"socket,fd={far.fileno()}"))
        started = time.monotonic()
        qemu = process.spawn(words, stdout=-1, stderr=errors, pass_fds=(far.fileno(),))
        far.close()

        def await_ready() -> None:
            if not ready.wait(BOOT_S) or qemu.poll() is not None:
                errors.seek(0)
                said = errors.read().decode(errors="replace")
                tail = "\n".join(text for _, text in made.console[-30:])
                raise BootError("the kernel did not reach login", output=f"{said}{tail}")

        try:
            assert qemu.stdout is not None
            reader = threading.Thread(target=read, args=(qemu.stdout, started, made, ready))
            reader.start()
            at, line = endpoint(plan, lab), Line(near)
            with (
                logged(started, made.login),
                Session(at, connect_timeout_s=BOOT_S, line=line, meanwhile=await_ready) as session,
            ):
                session.run(TRUE, timeout_s=BOOT_S)
                made.end_s = time.monotonic() - started
        finally:
            process.end(qemu)
        reader.join()
    return made


def restore(lab: KernelLab) -> Boot:
    """Restore the snapshot (made first where there is none), run one command, end it."""
    lines: list[tuple[float, str]] = []
    with tempfile.TemporaryDirectory() as directory:
        machine = lab.machine(Path(directory))
        with contextlib.closing(machine), logged(0.0, lines):
            machine.boot()
            machine.connect().run(TRUE, timeout_s=BOOT_S)
            end_s = machine.age_s
            started = time.monotonic() - machine.age_s
            facts = machine.facts
    if facts["start"] == "power-on":
        raise BootError("the machine was not restored", output="\n".join(machine.notices))
    login = [(at - started, text) for at, text in lines]
    return Boot(login=login, end_s=end_s, restored_s=float(facts["ready_s"]))


def endpoint(plan: Plan, lab: KernelLab) -> Endpoint:
    """As whom to log in; where is the session line."""
    image = lab.image
    return Endpoint("127.0.0.1", plan.port, "root", image.client_key, image.host_key)


def steps(boots: list[Boot]) -> dict[str, float]:
    """Step -> median milliseconds it took; the steps add up to the median of the whole only
    about, as medians do."""
    taken: dict[str, list[float]] = {}
    for one in boots:
        before = 0.0
        for name, at in one.moments().items():
            taken.setdefault(name, []).append(max(at - before, 0.0) * 1000)
            before = max(at, before)
    return {name: round(statistics.median(values)) for name, values in taken.items()}


def whole(boots: list[Boot]) -> dict[str, int]:
    """Median and minimum milliseconds of the whole."""
    ends = [one.end_s * 1000 for one in boots]
    return {"median": round(statistics.median(ends)), "minimum": round(min(ends))}


def table(found: dict[str, dict[str, float]]) -> str:
    """Columns of figures, by name, as a Markdown table."""
    names = list(dict.fromkeys(name for column in found.values() for name in column))
    lines = [f"| step | {' | '.join(found)} |", f"| --- |{' ---: |' * len(found)}"]
    for name in names:
        cells = (f"{column[name]:.0f}" if name in column else "" for column in found.values())
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def initcalls(boots: list[Boot], at_least_ms: float) -> dict[str, float]:
    """Initcall -> median milliseconds, the longest first."""
    taken: dict[str, list[float]] = {}
    for one in boots:
        for match in (INITCALL.search(text) for _, text in one.console):
            if match:
                taken.setdefault(match[1], []).append(int(match[2]) / 1000)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    long = {name: ms for name, ms in medians.items() if ms >= at_least_ms}
    return dict(sorted(long.items(), key=lambda item: -item[1]))


def prepare(options: argparse.Namespace) -> tuple[Plan, KernelLab]:
    """What is to be booted: as `rig boot --cold` would, and the words for looking closer."""
    config = configuration.load(ROOT / configuration.FILE_NAME)
    with terminal.TerminalProgress() as progress:
        kernel, machine = config.kernel(options.kernel), config.emulated(options.machine)
        lab = KernelLab(config, kernel, machine, open_store(), progress)
        lab.prepare(())
    append = options.append
    if options.initcalls:
        append += " initcall_debug ignore_loglevel"
    with tempfile.TemporaryDirectory() as nowhere:
        made = lab.machine(Path(nowhere), append=append, cold=True)
        assert isinstance(made, QemuMachine)
        plan = made.plan
    return replace(plan, console="stdio,signal=off"), lab


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    made.add_argument("kernel", nargs="?", metavar="KERNEL", help="[kernel.KERNEL] of rig.toml")
    made.add_argument("-n", dest="boots", type=int, default=5, help="boots (default 5)")
    made.add_argument("--machine", metavar="M", help="[machine.M] of rig.toml")
    made.add_argument("--append", default="", help="more words for the kernel command line")
    made.add_argument("--json", type=Path, metavar="F", help="write the figures to F too")
    made.add_argument("--before", type=Path, metavar="F", help="an earlier --json, as a column")
    closer = made.add_mutually_exclusive_group()
    closer.add_argument("--restored", action="store_true", help="from a snapshot")
    closer.add_argument("--initcalls", action="store_true", help="the kernel's initcalls >= 4 ms")
    return made


def report(boots: list[Boot], options: argparse.Namespace) -> str:
    """What is printed."""
    if options.initcalls:
        return table({"ms": initcalls(boots, 4.0)})
    now = {**steps(boots), **{f"the whole ({name})": ms for name, ms in whole(boots).items()}}
    if options.json:
        options.json.write_text(json.dumps(now, indent=1) + "\n")
    before = {"before": json.loads(options.before.read_bytes())} if options.before else {}
    return table({**before, "after" if before else "ms": now})


def main(argv: list[str]) -> int:
    """Measure and print; 0, or the exit code of what failed."""
    options = parser().parse_args(argv)
    if options.boots < 1:
        parser().error("-n must be at least 1")
    try:
        plan, lab = prepare(options)
        boots = []
        for number in range(options.boots):
            boots.append(restore(lab) if options.restored else boot(plan, lab))
            sys.stderr.write(f"boot {number + 1}: {boots[-1].end_s:.2f} s\n")
    except RigError as error:
        terminal.show_error(error)
        return error.exit_code
    sys.stdout.write(report(boots, options) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
