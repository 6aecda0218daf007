"""Write the tables of docs/debate.md from what `rig bench` and code_paths.py have measured.

    rig bench async --exact --json bench.json
    python ci/code_paths.py async --json >paths.json
    python ci/debate.py bench.json paths.json

The figures are kept in docs/debate.json, with the commit and what they were measured on, and the
tables of the page stand between two comments each. The prose is written by a person, who has to
read it again after this: it says what the figures were.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parent.parent
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


TABLES: Mapping[str, Callable[[Measured], list[list[Cell]]]] = {
    "setup": _setup, "code": _code, "pool": _pool, "memory": _memory, "status": _status,
    "cold": _cold,
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
    if len(argv) != 2:
        sys.stderr.write("usage: debate.py BENCH.json PATHS.json\n")
        return 2
    bench, paths = (json.loads(Path(name).read_bytes()) for name in argv)
    found = measured(bench, paths)
    tables = {name: table(found) for name, table in TABLES.items()}
    words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    identity = bench["exact"][-1]["identity"]
    value = {"commit": commit, "identity": identity, "tables": tables}
    FIGURES.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(rewritten(page, tables), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
