"""Run the abi suite on a board and record it in docs/boards/: `.venv/bin/python ci/record_board.py
BOARD [DEPLOY ...]`, once for each way of getting kernels there (default: that of rig.toml).

Nothing of a network gets into the record: no address, no name of a host or a user.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from rig import cells, config  # noqa: E402
from rig.config import DEPLOYS, BoardConfig  # noqa: E402
from rig.errors import RigError, UsageError  # noqa: E402
from rig.results import Run, Status, load_run  # noqa: E402

PLACE = ROOT / "docs/boards"
FACTS = ("product", "firmware", "cpu", "cpus", "memory_kib", "microcode", "known_good")


def text(
    board: BoardConfig, runs: Mapping[str, Run], commit: str, lost: Mapping[str, str] | None = None
) -> str:
    """The record: what the board is, and what came of each way. lost: ways of which there is no
    run, and why; without what names a host. Pure.
    """
    first = next(iter(runs.values()))
    facts = {name: first.machine[name] for name in FACTS if first.machine.get(name)}
    console = board.console.kind if board.console else "none"
    lines = [
        f"# {facts.get('product', board.name)}",
        "",
        f"Recorded by `ci/record_board.py` on {first.started[:10]}, commit {commit or 'unknown'}.",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {value} |" for name, value in facts.items()),
        f"| power | {board.power.kind} |",
        f"| console | {console} |",
        f"| in every kernel | {', '.join(board.configs) or 'nothing more'} |",
        "",
        "| kernels get there by | kernel | verdict | cases | from the jump to login | back after |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_row(way, run) for way, run in runs.items()),
        *(f"| {way} | - | NOT RUN | {why} | - | - |" for way, why in (lost or {}).items()),
        "",
    ]
    return "\n".join(lines)


def _row(way: str, run: Run) -> str:
    counts = ", ".join(f"{run.count(one)} {one}" for one in Status if run.count(one))
    release = run.kernel.get("release", "")
    ready, back = (run.machine.get(name, "") for name in ("ready_s", "back_s"))
    verdict = "PASS" if run.exit_code == 0 else "FAIL"
    times = f"{ready and f'{ready} s'} | {f'{back} s' if back else 'NOT BACK'}"
    return f"| {way} | {release} | {verdict} | {counts} | {times} |"


def file_name(run: Run, board: BoardConfig) -> str:
    """Of the record, by what the board calls itself."""
    words = run.machine.get("product") or board.name
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") + ".md"


def main(argv: Sequence[str]) -> int:
    """0 when every way passed; the record is written either way."""
    parser = argparse.ArgumentParser(description="record the abi suite on a board in docs/boards/")
    parser.add_argument("board", help="[machine.BOARD] of rig.toml")
    parser.add_argument("ways", nargs="*", metavar="DEPLOY", help=", ".join(DEPLOYS))
    options = parser.parse_args(argv)
    try:
        return _recorded(options.board, options.ways)
    except RigError as error:
        _tell(error)
        return error.exit_code


def _tell(error: RigError) -> None:
    sys.stderr.write(f"error: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"hint: {error.hint}\n")


def _recorded(name: str, ways: Sequence[str]) -> int:
    whole = config.load(ROOT / config.FILE_NAME)
    board = whole.board(name)
    whole.machine(name)  # all is told that a kernel needs
    ways = ways or (board.deploy,)
    if wrong := [way for way in ways if way not in DEPLOYS]:
        raise UsageError(f"{wrong[0]} is no way to deploy", hint=", ".join(DEPLOYS))
    runs: dict[str, Run] = {}
    failed: dict[str, RigError] = {}
    with tempfile.TemporaryDirectory(prefix="rig-record-") as place:
        for way in ways:
            try:
                runs[way] = _run(name, way, Path(place, f"{way}.json"))
            except RigError as error:  # what other ways came to is not lost by that
                failed[way] = error
    if not runs:
        raise next(iter(failed.values()))
    for one in failed.values():
        _tell(one)
    PLACE.mkdir(exist_ok=True)
    path = _free(PLACE / file_name(next(iter(runs.values())), board))
    lost = {way: f"`rig` ended with {error.exit_code}" for way, error in failed.items()}
    path.write_text(text(board, runs, cells.commit(ROOT), lost))
    sys.stdout.write(f"recorded: {path.relative_to(ROOT)}\n")
    return int(bool(failed) or any(run.exit_code for run in runs.values()))


def _free(path: Path) -> Path:
    """Another board of the same product has a page of its own."""
    names = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return path if not path.exists() else next(one for one in names if not one.exists())


def _run(name: str, way: str, saved: Path) -> Run:
    # Beside the other one: relative paths of a rig.toml begin where it is.
    toml = ROOT / f".record-{way}.toml"
    toml.write_text(_with_deploy((ROOT / config.FILE_NAME).read_text(), name, way))
    words = ["boot-and-test", "--suite", "abi", "--machine", name, "--json", str(saved)]
    try:
        argv = [sys.executable, "-m", "rig", "--rig-toml", str(toml), *words]
        subprocess.run(argv, cwd=ROOT, check=False)
    finally:
        toml.unlink()
    if not saved.exists():
        raise UsageError(f"{way}: there was no run to be recorded")
    run = load_run(saved)
    if (found := run.machine.get("deploy", way)) != way:
        hint = f"write its table as [machine.{name}], with nothing behind it"
        raise UsageError(f"{way} was asked for, and {found} it was", hint=hint)
    return run


def _with_deploy(toml: str, name: str, way: str) -> str:
    """A rig.toml in which the board gets its kernels this way."""
    lines: list[str] = []
    inside = False
    for line in toml.splitlines():
        if line.startswith("["):
            inside = line.strip() == f"[machine.{name}]"
        if inside and re.match(r"deploy\s*=", line):
            continue
        lines.append(line)
        if inside and line.startswith("["):
            lines.append(f'deploy = "{way}"')
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
