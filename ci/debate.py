"""Write the tables of docs/debate.md from what `rig bench` and code_paths.py have measured.

    rig bench async --exact --json exact.json
    rig bench async --timed --only "threads|asyncio|fio" --json timed.json
    python ci/code_paths.py async --json >paths.json
    python ci/debate.py exact.json paths.json timed.json

The figures are kept in docs/debate.json, with the commit and what they were measured on, and the
tables of the page stand between two comments each. Exact ones (with the paths) and timed ones may
be measured apart: without one of these files its tables stay as they are. The prose is written by a
person, who has to read it again after this: it says what the figures were.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from rig import stats  # noqa: E402

PAGE, FIGURES = ROOT / "docs/debate.md", ROOT / "docs/debate.json"
Cell = str | int | None
Rows = Mapping[tuple[str, str, int, str], int]

EVERY = (
    ("direct", "direct"), ("async_submit", "async_submit"), ("OFFLOAD", "async_submit OFFLOAD"),
    ("io_uring", "io_uring"), ("io_uring, 32 at a time", "io_uring by 32"),
    ("io_uring DEFER", "io_uring DEFER"), ("io_uring ASYNC", "io_uring ASYNC"),
    ("Linux AIO", "Linux AIO"), ("POSIX AIO", "POSIX AIO"), ("thread pool", "thread pool"),
)  # fmt: skip
WAITING = tuple(one for one in EVERY if one[1] not in ("direct", "io_uring by 32", "Linux AIO"))
COLD = tuple(one for one in EVERY if one[1] != "io_uring by 32")
SETUP = (
    ("getppid (a nop of io_uring's)", "nop", 64), ("pread, 1 byte", "pread 1 B", 64),
    ("pread, 4 KiB", "pread 4 KiB", 64), ("stat", "stat", 64), ("open", "open", 64),
    ("pread, 1 byte, one at a time", "pread 1 B", 1),
)  # fmt: skip
POOL = (
    ("read of an empty pipe: to submit", "pipe read", 64, "submit"),
    ("the same, one at a time", "pipe read", 1, "submit"),
    ("from submission to its value, one at a time", "pipe read", 1, "call"),
    ("1 ms of sleep: to submit", "sleep", 64, "submit"),
)
STATUS = (
    ("nothing at all (the clock's own share)", "status, nothing"),
    ("async_submit: its result word", "status, async_submit, result word"),
    ("io_uring: its completion queue", "status, io_uring, completion queue"),
    ("POSIX AIO: aio_error()", "status, POSIX AIO, aio_error"),
    ("io_uring: enter for no event", "status, io_uring, enter for no event"),
    (
        "async_submit: wait_for_async() of no time",
        "status, async_submit, wait_for_async of no time",
    ),
    ("Linux AIO: io_getevents() of no time", "status, Linux AIO, io_getevents of no time"),
    ("an eventfd: poll() of no time", "status, eventfd, poll of no time"),
)
MEMORY_CALLS = 1000
CPUS = (1, 2, 4)
SPREAD = "pread 1 B"
WAYS = ("pool of threads", "a thread each", "in the loop", "async_submit")
LOOPS = (
    ("a cached pread of 4 KiB", "asyncio pread 4 KiB"),
    ("a read that waits", "asyncio pipe read"),
)
ENGINES = ("psync", "libaio", "io_uring", "posixaio", "async_submit")
JOBS = (("cached", "fio cached"), ("cold, buffered", "fio cold"), ("direct", "fio direct"))


@dataclass(frozen=True)
class Measured:
    """rows: instructions or bytes of a call, by work, model, number outstanding and phase. named:
    by the whole name of a row. paths: of code_paths.py.
    """

    rows: Rows
    named: Mapping[str, int]
    paths: Sequence[Mapping[str, Any]]


def measured(bench: Mapping[str, Any], paths: Sequence[Mapping[str, Any]]) -> Measured:
    """What the tables are made of, of the last kernel that was measured. Pure."""
    rows, named = {}, {}
    for row in bench["exact"][-1]["rows"]:
        each = round(row["value"] / row.get("calls", 1))
        key = (row.get("work", ""), row.get("model", ""), row.get("outstanding", 0))
        rows[(*key, row.get("phase", ""))] = each
        named[row["name"]] = each
    return Measured(rows, named, paths)


def _setup(found: Measured) -> list[list[Cell]]:
    head: list[Cell] = ["", *(label for label, _ in EVERY)]
    lines: list[list[Cell]] = [
        [label, *(found.rows.get((work, model, count, "call")) for _, model in EVERY)]
        for label, work, count in SETUP
    ]
    return [head, *lines]


def _pool(found: Measured) -> list[list[Cell]]:
    head: list[Cell] = ["", *(label for label, _ in WAITING)]
    lines: list[list[Cell]] = [
        [label, *(found.rows.get((work, model, count, phase)) for _, model in WAITING)]
        for label, work, count, phase in POOL
    ]
    return [head, *lines]


def _memory(found: Measured) -> list[list[Cell]]:
    parts = ("bytes", "bytes, stack", "bytes, task", "bytes, rest")
    lines: list[list[Cell]] = []
    for label, model in (one for one in WAITING if one[1] != "io_uring DEFER"):
        cells = [found.rows.get(("pipe read", model, MEMORY_CALLS, part)) for part in parts]
        lines.append([label, *cells])
    return [["", "bytes each", "kernel stack", "task", "rest"], *lines]


def _status(found: Measured) -> list[list[Cell]]:
    lines: list[list[Cell]] = [[label, found.named.get(name)] for label, name in STATUS]
    return [["to ask about a call that has not ended", "instructions"], *lines]


def _cold(found: Measured) -> list[list[Cell]]:
    cells = [found.rows.get(("cold pread", model, 1, "submit")) for _, model in COLD]
    return [["", *(label for label, _ in COLD)], ["to submit", *cells]]


def _code(found: Measured) -> list[list[Cell]]:
    head: list[Cell] = ["model", "own files", "own lines", "lines elsewhere", "in files", "most of"]
    lines: list[list[Cell]] = []
    for one in found.paths:
        most = sorted(one["by_directory"].items(), key=lambda place: -place[1])[:4]
        where = ", ".join(f"{name} {count}" for name, count in most)
        numbers = (one["files"], one["lines"], one["others"], one["other_files"])
        lines.append([one["name"], *numbers, where])
    return [head, *lines]


@dataclass(frozen=True)
class Timed:
    """each: what a call took or how many there were a second, a figure a boot, by work, model,
    phase and number of CPUs (0 where all have the same).
    """

    each: Mapping[tuple[str, str, str, int], Sequence[float]]

    def ratio(self, first: tuple[str, str, str, int], second: tuple[str, str, str, int]) -> Cell:
        """The second in units of the first, with its interval; None where one was not measured."""
        if first not in self.each or second not in self.each:
            return None
        found = stats.ratio(list(zip(self.each[first], self.each[second], strict=True)))
        return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"

    def median(self, key: tuple[str, str, str, int]) -> Cell:
        """Of the boots, rounded."""
        return round(statistics.median(self.each[key])) if key in self.each else None


def in_time(bench: Mapping[str, Any]) -> Timed:
    """The figures of a timed run, boot by boot, of the last kernel measured. Pure."""
    kernel = bench["timed"][-1]["kernel"]
    each: dict[tuple[str, str, str, int], list[float]] = {}
    for boot in (one for one in bench["timed"] if one["kernel"] == kernel):
        for row in boot["rows"].values():
            key = (row["work"], row["model"], row["phase"], row.get("threads", 0))
            each.setdefault(key, []).append(row["value"] / row.get("calls", 1))
    return Timed(each)


def _spread(found: Timed) -> list[list[Cell]]:
    """Each model against itself on one CPU."""
    lines: list[list[Cell]] = []
    for label, model in EVERY:
        one, *more = [(SPREAD, model, "throughput", cpus) for cpus in CPUS]
        if (first := found.median(one)) is not None:
            lines.append([label, first, *(found.ratio(one, key) for key in more)])
    return [
        ["", "1 CPU, calls a second", *(f"{cpus} CPUs, times that" for cpus in CPUS[1:])],
        *lines,
    ]


def _asyncio(found: Timed) -> list[list[Cell]]:
    """Each way against the loop's own pool of threads."""
    lines: list[list[Cell]] = []
    for way in WAYS:
        keys = [((work, WAYS[0], "call", 0), (work, way, "call", 0)) for _, work in LOOPS]
        lines.append([way, *(found.ratio(*pair) for pair in keys)])
    return [["", *(label for label, _ in LOOPS)], *lines]


def _fio(found: Timed) -> list[list[Cell]]:
    """Calls a second of each engine in units of psync's."""
    lines: list[list[Cell]] = []
    for engine in ENGINES:
        keys = [
            ((work, ENGINES[0], "throughput", 0), (work, engine, "throughput", 0))
            for _, work in JOBS
        ]
        lines.append([engine, *(found.ratio(*pair) for pair in keys)])
    return [["", *(label for label, _ in JOBS)], *lines]


EXACT: Mapping[str, Callable[[Measured], list[list[Cell]]]] = {
    "setup": _setup, "code": _code, "pool": _pool, "memory": _memory, "status": _status,
    "cold": _cold,
}  # fmt: skip
IN_TIME: Mapping[str, Callable[[Timed], list[list[Cell]]]] = {
    "spread": _spread, "asyncio": _asyncio, "fio": _fio,
}  # fmt: skip


def rendered(table: Sequence[Sequence[Cell]]) -> str:
    """A table as Markdown: words to the left, numbers to the right. Pure."""
    head, *lines = table
    right = ["---:" if isinstance(lines[0][at], int | None) else "---" for at in range(len(head))]
    return "\n".join(
        f"| {' | '.join(cells)} |"
        for cells in ([str(cell) for cell in head], right, *(map(_shown, line) for line in lines))
    )


def _shown(cell: Cell) -> str:
    return "\u2013" if cell is None else f"{cell:,}" if isinstance(cell, int) else cell


def rewritten(page: str, tables: Mapping[str, Sequence[Sequence[Cell]]]) -> str:
    """The page with these tables between their comments. KeyError for one that it has and that was
    not measured, ValueError where it lacks one that was. Pure.
    """
    wanted = re.compile(r"(<!-- (\w+) -->\n).*?(\n<!-- end -->)", re.DOTALL)
    there = {match[2] for match in wanted.finditer(page)}
    if lost := tables.keys() - there:
        raise ValueError(f"the page has no place for {', '.join(sorted(lost))}")
    return wanted.sub(lambda match: f"{match[1]}{rendered(tables[match[2]])}{match[3]}", page)


def main(argv: Sequence[str]) -> int:
    """0 when the page was written."""
    given = [json.loads(Path(name).read_bytes()) for name in argv]
    benches = [one for one in given if isinstance(one, dict)]
    paths = next((one for one in given if isinstance(one, list)), None)
    exact = next((one for one in benches if one["exact"]), None)
    timed = next((one for one in benches if one["timed"]), None)
    if (exact is None) != (paths is None) or not benches:
        sys.stderr.write("usage: debate.py [EXACT.json PATHS.json] [TIMED.json]\n")
        return 2
    words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    value = json.loads(FIGURES.read_bytes())
    if exact is not None and paths is not None:
        figures = measured(exact, paths)
        value["tables"] |= {name: table(figures) for name, table in EXACT.items()}
        value["exact"] = {"commit": commit, "identity": exact["exact"][-1]["identity"]}
    if timed is not None:
        times = in_time(timed)
        value["tables"] |= {name: table(times) for name, table in IN_TIME.items()}
        boots = len({one["boot"] for one in timed["timed"]})
        how = {"boots": boots, "emulated": timed["emulated"], "cores": os.cpu_count()}
        value["timed"] = {"commit": commit, **how}
    FIGURES.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(rewritten(page, value["tables"]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
