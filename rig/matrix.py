"""What a night runs: the cells of ci/matrix.toml, and what runners of others make of them."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from rig.config import Config, check_table, nearest
from rig.errors import UsageError

FILE = Path("ci/matrix.toml")
_GITHUB_MOST = 256  # cells of one matrix of GitHub's
_RIG = ".venv/bin/rig"


@dataclass(frozen=True)
class Cell:
    """One suite on one kernel and one machine. suite: of guest-tests/, or "kselftest:TARGET", one
    of the kernel tree's own. allowed: why it may fail, "" where it may not.
    """

    kernel: str
    machine: str
    suite: str
    allowed: str = ""

    @property
    def name(self) -> str:
        """A word of letters, digits, dashes and dots, of which there is one in a matrix."""
        return re.sub(r"[^\w.]+", "-", f"{self.suite}-{self.kernel}-{self.machine}")

    def words(self, *more: str) -> list[str]:
        """The command that runs it, behind `rig`."""
        kind, _, target = self.suite.rpartition(":")
        if kind:
            what = [kind, target, "--kernel", self.kernel, "--machine", self.machine]
        else:
            what = ["boot-and-test", self.kernel, "--machine", self.machine, "--suite", self.suite]
        return [*what, *more]

    @property
    def command(self) -> str:
        """The same, to paste."""
        return shlex.join(["rig", *self.words()])


@dataclass(frozen=True)
class _Rule:
    """Cells that are left out, or may fail, and why. What is "" is any."""

    why: str
    kernel: str = ""
    machine: str = ""
    suite: str = ""

    def has(self, cell: Cell) -> bool:
        pairs = (
            (self.kernel, cell.kernel),
            (self.machine, cell.machine),
            (self.suite, cell.suite),
        )
        return all(asked in ("", its) for asked, its in pairs)


@dataclass(frozen=True)
class _Block:
    """Each of these kernels with each of these machines and suites."""

    kernels: tuple[str, ...]
    machines: tuple[str, ...]
    suites: tuple[str, ...]


@dataclass(frozen=True)
class Slurm:
    """[slurm]: what is asked of a cluster. partition, account: "" for its default ones. hours: of a
    cell or a build, at most. build_cpus, build_mib: for a kernel's build.
    """

    partition: str = ""
    account: str = ""
    hours: float = 6.0
    build_cpus: int = 4
    build_mib: int = 8192


@dataclass(frozen=True)
class _Matrix:
    cells: tuple[_Block, ...]
    exclude: tuple[_Rule, ...] = field(default=())
    allowed: tuple[_Rule, ...] = field(default=())
    slurm: Slurm = field(default_factory=Slurm)


def read(path: Path, config: Config) -> tuple[Cell, ...]:
    """The cells of a matrix, in its order, each once; UsageError for what is wrong in it.

    A kernel or machine that rig.toml lacks is, and so is a rule that is about no cell: it would be
    believed to do something.
    """
    matrix = _matrix(path)
    if not all((*matrix.cells, *(b.kernels and b.machines and b.suites for b in matrix.cells))):
        raise UsageError(f"{path}: a block of cells has no kernels, no machines or no suites")
    found = tuple(dict.fromkeys(cell for block in matrix.cells for cell in _product(block)))
    for cell in found:
        _check(cell, path, config)
    for rule in (*matrix.exclude, *matrix.allowed):
        if not rule.why.strip() or not any(rule.has(cell) for cell in found):
            what = "is about no cell" if rule.why.strip() else "has no reason (why)"
            raise UsageError(f"{path}: a rule {what}: {_shown(rule)}")
    kept = [cell for cell in found if not any(rule.has(cell) for rule in matrix.exclude)]
    names = Counter(cell.name for cell in kept)
    if twice := next((name for name, count in names.items() if count > 1), ""):
        raise UsageError(
            f"{path}: two cells are called {twice}",
            hint="a kernel or a machine of another name: results of a cell are found by its own",
        )
    if not kept:
        raise UsageError(f"{path}: there are no cells in it")
    return tuple(_with_allowance(cell, matrix.allowed) for cell in kept)


def _matrix(path: Path) -> _Matrix:
    try:
        raw = path.read_bytes()
        found = msgspec.toml.decode(raw, type=_Matrix)
        _check_keys(path, msgspec.toml.decode(raw))
        return found
    except OSError as error:
        raise UsageError(f"no matrix: {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path}: {error}") from error


def _check_keys(path: Path, data: dict[str, Any]) -> None:
    """A rule with a misspelt key would be a wider one."""
    check_table(path, "", data, _Matrix)
    check_table(path, "slurm", data.get("slurm", {}), Slurm)
    for name, cls in (("cells", _Block), ("exclude", _Rule), ("allowed", _Rule)):
        for one in data.get(name, []):
            check_table(path, f"[{name}]", one, cls)


def slurm(path: Path) -> Slurm:
    """What a matrix asks of a cluster; UsageError as read()."""
    found = _matrix(path).slurm
    if found.hours <= 0 or found.build_cpus < 1 or found.build_mib < 1:
        raise UsageError(f"{path}: [slurm] hours, build_cpus and build_mib are more than nothing")
    return found


def _product(block: _Block) -> Iterator[Cell]:
    for kernel in block.kernels:
        for machine in block.machines:
            for suite in block.suites:
                yield Cell(kernel, machine, suite)


def _check(cell: Cell, path: Path, config: Config) -> None:
    for what, name, known in (
        ("kernel", cell.kernel, [*config.kernels]),
        ("machine", cell.machine, [*config.machines, *config.boards]),
    ):
        if name not in known:
            raise UsageError(f"{path}: no {what} {name!r} in rig.toml", hint=nearest(name, known))
    kind, _, target = cell.suite.rpartition(":")
    if kind not in ("", "kselftest") or not target:
        hint = "one of guest-tests/, or kselftest:TARGET"
        raise UsageError(f"{path}: {cell.suite!r} is no suite", hint=hint)


def _shown(rule: _Rule) -> str:
    parts = {"kernel": rule.kernel, "machine": rule.machine, "suite": rule.suite}
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value) or "all cells"


def _with_allowance(cell: Cell, rules: Sequence[_Rule]) -> Cell:
    why = next((rule.why for rule in rules if rule.has(cell)), "")
    return Cell(cell.kernel, cell.machine, cell.suite, why)


def only(cells: Sequence[Cell], words: str) -> tuple[Cell, ...]:
    """Those with all of these words in their names; UsageError where there is none. Pure."""
    found = tuple(cell for cell in cells if all(word in cell.name for word in words.split()))
    if not found:
        raise UsageError(f"no cell has {words!r} in its name", hint="`rig matrix list` has them")
    return found


def lines(cells: Sequence[Cell]) -> list[str]:
    """`rig matrix list`: a table of kernels and machines by suite. Pure."""
    rows = [("suite", "kernel", "machine", "")]
    rows += [(c.suite, c.kernel, c.machine, c.allowed and f"may fail: {c.allowed}") for c in cells]
    widths = [max(len(row[at]) for row in rows) for at in range(3)]
    return [
        "  ".join([*(row[at].ljust(widths[at]) for at in range(3)), row[3]]).rstrip()
        for row in rows
    ]


def github(cells: Sequence[Cell]) -> str:
    """The matrix of a GitHub Actions job, on one line: for `matrix: ${{ fromJSON(...) }}`, with
    name, command, kernel, machine, suite and allowed_to_fail. Pure.
    """
    if len(cells) > _GITHUB_MOST:
        raise UsageError(
            f"{len(cells)} cells: GitHub takes {_GITHUB_MOST} in one matrix",
            hint="take some of them with --only",
        )
    include = [
        {
            "name": cell.name,
            "command": cell.command,
            "kernel": cell.kernel,
            "machine": cell.machine,
            "suite": cell.suite,
            "allowed_to_fail": bool(cell.allowed),
        }
        for cell in cells
    ]
    return json.dumps({"include": include})


def gitlab(cells: Sequence[Cell]) -> str:
    """A child pipeline of GitLab's, a job a cell: YAML, of which JSON is a part. Its runner is that
    of ci/runners/gitlab-nightly.yml, which keeps the checkout's .venv and the store. Pure.
    """
    jobs: dict[str, object] = {"stages": ["test"]}
    for cell in cells:
        place = f"cells/{cell.name}"
        jobs[cell.name] = {
            "stage": "test",
            "tags": ["rig"],
            "variables": {"GIT_CLEAN_FLAGS": "-ffd -e results/ -e .venv/"},
            "script": [
                "make setup",
                f"mkdir -p {place}",
                shlex.join([_RIG, *cell.words("--results", place, "--junit", f"{place}.xml")]),
            ],
            "allow_failure": bool(cell.allowed),
            "artifacts": {
                "when": "always",
                "paths": [place],
                "reports": {"junit": f"{place}.xml"},
            },
            "retry": {"max": 1, "when": ["runner_system_failure", "stuck_or_timeout_failure"]},
        }
    return json.dumps(jobs, indent=1)
