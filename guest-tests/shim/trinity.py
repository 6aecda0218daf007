#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""trinity makes random calls with arguments that are nearly right, all of them asynchronous.

It may end as it likes: what is asked is that it does end, with all that it has started, that its
calls did sleep and were handed over, and what the kernel thinks of it is on the console.

Environment: TRINITY_S=10, for how many seconds; TRINITY_SEED=N, to begin with the same again.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from programs import EXIT_FAIL, EXIT_PASS, EXIT_SKIP, SHIM, counted, say

NOBODY = 65534
KMEMLEAK = Path("/sys/kernel/debug/kmemleak")
YOUNG_S = 6
"""It takes nothing for lost that is younger than five seconds."""
CHILDREN = 4
PATIENCE_S = 120.0
"""For all that trinity has started to be gone, once it was killed."""


def of_nobody() -> list[int]:
    """The processes of the user that trinity runs as; those that have ended are not meant."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "status").read_text()
        except OSError:
            continue
        if re.search(rf"^Uid:\t{NOBODY}\b", status, re.M) and "\nState:\tZ" not in status:
            found.append(int(entry.name))
    return found


def end_all() -> list[int]:
    """Kill them until there is none; those that do not go."""
    limit = time.monotonic() + PATIENCE_S
    while (left := of_nobody()) and time.monotonic() < limit:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.2)
    return left


def stacks(pid: int) -> list[str]:
    """Where the tasks of a process are, for whoever has to find out why."""
    lines = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            lines += [f"task {task.name}:", *(task / "stack").read_text().splitlines()]
        except OSError:
            continue
    return lines


def look(seen: dict[int, int]) -> None:
    """Note how many calls each process has handed over, as long as it is there to be asked."""
    for pid in of_nobody():
        try:
            text = Path(f"/proc/{pid}/async_submit").read_text()
        except OSError:
            continue
        found = re.search(r"^handed_over: (\d+)$", text, re.M)
        seen[pid] = int(found[1]) if found else 0


def fuzz(place: Path, report: Path, seconds: float, seed: int, seen: dict[int, int]) -> str:
    """Run it for so long; the end of what it printed."""
    # Debian's crashes where it sets up its sockets, also without the shim.
    words = ["trinity", "-q", "-l", "off", "-a", "64", "--disable-fds=sockets", "-C", str(CHILDREN)]
    words += ["-s", str(seed), "-N", "100000000"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(place)}
    environment |= {"LD_PRELOAD": str(SHIM), "ASYNC_SHIM_REPORT": str(report)}
    log = place / "log"
    with log.open("wb") as file:
        child = subprocess.Popen(
            words, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=file,
            stderr=subprocess.STDOUT, user=NOBODY, group=NOBODY, extra_groups=[],
            start_new_session=True,
        )  # fmt: skip
        limit = time.monotonic() + seconds
        while child.poll() is None and time.monotonic() < limit:
            time.sleep(0.2)
            look(seen)
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return log.read_text(errors="replace")[-2000:]


def lost() -> str | None:
    """What memory of the kernel nobody points to any more; None where it does not look."""
    if not KMEMLEAK.exists():
        return None
    time.sleep(YOUNG_S)
    for _ in range(2):  # a pointer may be on its way
        KMEMLEAK.write_text("scan")
    return KMEMLEAK.read_text(errors="replace")


def main() -> int:
    """Fuzz, and see what is left; KTAP on standard output."""
    if not shutil.which("trinity"):
        say("1..0 # SKIP no trinity in this image")
        return EXIT_SKIP
    seconds = float(os.environ.get("TRINITY_S", "10"))
    seed = int(os.environ.get("TRINITY_SEED") or int.from_bytes(os.urandom(3)))
    say(f"TAP version 13\n1..2\n# TRINITY_SEED={seed}, for {seconds:g} s")
    wrong = []
    with tempfile.TemporaryDirectory(prefix="trinity.", dir="/var/tmp") as scratch:
        place = Path(scratch)
        report = place / "report"
        report.write_bytes(b"")
        for path in (place, report):
            os.chown(path, NOBODY, NOBODY)
        started, said, runs, again = time.monotonic(), "", 0, True
        seen: dict[int, int] = {}
        # It gives up when a child of its own has gone astray: then another one begins.
        while again:
            left = seconds - (time.monotonic() - started)
            said = fuzz(place, report, max(left, 1), seed + runs, seen)
            stuck = end_all()
            runs += 1
            again = not stuck and runs < 1000 and time.monotonic() - started < seconds - 1
        for pid in stuck:
            wrong += [f"process {pid} does not end", *stacks(pid)]
        numbers = counted(report)
    calls, slept = numbers.get("calls", 0), numbers.get("outstanding", 0)
    over = sum(seen.values())
    if calls < 100 or not over:
        wrong.append(f"only {calls} calls, {over} handed over; it said: {said}")
    for line in "\n".join(wrong).splitlines():
        say(f"# {line}")
    # Of processes that were gone before they could be asked, nobody knows what they handed over.
    say(f"# {runs} runs: {calls} calls, {slept} slept, {over} seen to be handed over")
    say(f"{'not ok' if wrong else 'ok'} 1 everything_ends")
    leaks = lost()
    for line in (leaks or "").splitlines():
        say(f"# {line}")
    skipped = "" if leaks is not None else " # SKIP not a kernel that looks for leaks"
    say(f"{'not ok' if leaks else 'ok'} 2 no_memory_is_lost{skipped}")
    return EXIT_FAIL if wrong or leaks else EXIT_PASS


if __name__ == "__main__":
    sys.exit(main())
