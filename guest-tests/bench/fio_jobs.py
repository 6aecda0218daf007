#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""One job of fio with each of its engines, and with the one beside this file, as rows.

    fio_jobs.py NAME OPTION...

Engines that this kernel does not have are left out and named on standard error. They run in an
order of their own in every boot: what one leaves behind for the next favours nobody.
"""

from __future__ import annotations

import ctypes
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

ENGINES = ("psync", "libaio", "io_uring", "posixaio", "async_submit")
DEPTH = 16
RUNTIME_S = 1
OWN = "fio_async_submit.so"
PERCENTILES = {"50": "50.000000", "90": "90.000000", "99": "99.000000", "99.9": "99.900000"}
ASYNC_SUBMIT, ENOSYS = 548, 38


def command(name: str, engine: str, options: list[str], directory: Path) -> list[str]:
    """The command line of one engine."""
    chosen = f"external:{Path(__file__).parent / OWN}" if engine == "async_submit" else engine
    return [
        *("fio", f"--name={name}", f"--directory={directory}", f"--ioengine={chosen}"),
        *(f"--iodepth={DEPTH}", "--time_based", f"--runtime={RUNTIME_S}", "--fallocate=none"),
        *("--output-format=json", "--randseed=1", "--allow_file_create=1", *options),
    ]


def rows(name: str, engine: str, found: dict[str, Any]) -> list[dict[str, object]]:
    """Calls a second, and from submission to completion."""
    read = found["jobs"][0]["read"]
    if not read["total_ios"]:
        raise SystemExit(f"{engine} read nothing")
    times = read["clat_ns"]["percentile"]
    head = {"work": f"fio {name}", "model": engine, "outstanding": DEPTH, "calls": 1}
    label = f"fio {name}, {engine}"
    return [
        {
            "name": f"{label}: throughput",
            "value": round(read["iops"], 1),
            "unit": "calls/s",
            "phase": "throughput",
            **head,
        },
        {
            "name": f"{label}: latency",
            "value": times[PERCENTILES["50"]],
            "unit": "ns",
            "phase": "latency",
            "percentiles": {key: times[long] for key, long in PERCENTILES.items()},
            **head,
        },
    ]


def has_async_submit() -> bool:
    """Whether this kernel has the series."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(ctypes.c_long(ASYNC_SUBMIT), ctypes.c_long(-1), None, 0, None)
    return ctypes.get_errno() != ENOSYS


def in_order(boot: str) -> list[str]:
    """The engines in the order of a boot: any name of it."""
    return random.Random(boot).sample(ENGINES, len(ENGINES))


def main(argv: list[str]) -> int:
    """Run all engines; 1 where one failed."""
    if len(argv) < 2:
        sys.stderr.write("usage: fio_jobs.py NAME OPTION...\n")
        return 2
    name, options = argv[0], argv[1:]
    directory = Path("/var/tmp/fio")
    directory.mkdir(exist_ok=True)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    for engine in in_order(boot):
        if engine == "async_submit" and not has_async_submit():
            sys.stderr.write("this kernel has no async_submit\n")
            continue
        done = subprocess.run(
            command(name, engine, options, directory), capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.stderr.write(f"fio with {engine}: {done.stdout[-1000:]}{done.stderr[-1000:]}\n")
            return 1
        # What it says before the JSON is for people.
        found = json.loads(done.stdout[done.stdout.index("{") :])
        for row in rows(name, engine, found):
            sys.stdout.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
