"""The verbs; the only place that prints and exits."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import logging
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rig import __doc__ as about
from rig import config as configuration
from rig.config import BoardConfig, Config, KernelConfig
from rig.errors import InfrastructureError, RigError, UsageError
from rig.results import Run, Splat
from rig.terminal import TerminalProgress, show_error

if TYPE_CHECKING:
    from rig import upkeep
    from rig.exact import Request as ExactRequest
    from rig.history import History, Line, Trend
    from rig.matrix import Cell
    from rig.outcome import Outcome
    from rig.runner import Request

    # argparse has no public name for it.
    _Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

_INTERRUPTED = 130
# `rig boot -- CMD` and `rig exact -- PROGRAM` return its own code; the rig's failures lie above.
_PASS_ON, _OFFSET = {"boot", "exact"}, 120
_TOLD_OF_A_SPLAT = ("type", "title", "start", "end", "frame", "corrupted")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; its exit code (docs/architecture.md has the table)."""
    words = list(sys.argv[1:] if argv is None else argv)
    words, command = _split_command(words)
    offset = _OFFSET if _verb_of(words) in _PASS_ON else 0
    try:
        arguments = _parser().parse_args(words)
    except SystemExit as end:
        # argparse has said what is wrong; 0 is --help.
        return offset + UsageError.exit_code if end.code else 0
    arguments.command_line = command
    signal.signal(signal.SIGTERM, _as_interrupt)
    logging.basicConfig(format="rig: %(message)s", level=logging.WARNING)
    try:
        return int(arguments.run(arguments))
    except RigError as error:
        show_error(error)
        return offset + error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\nrig: interrupted\n")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return offset + InfrastructureError.exit_code
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        hint = "the disk is full" if error.errno == errno.ENOSPC else ""
        show_error(InfrastructureError(f"{error.strerror}{where}", hint=hint))
        return offset + InfrastructureError.exit_code


def _verb_of(words: Sequence[str]) -> str:
    """The verb of a line that may be wrong."""
    rest = iter(words)
    for word in rest:
        if word == "--rig-toml":
            next(rest, None)
        elif not word.startswith("-"):
            return word
    return ""


def _as_interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _split_command(words: list[str]) -> tuple[list[str], list[str] | None]:
    """Everything after the first "--" is a command for the guest, or for pytest."""
    if "--" not in words:
        return words, None
    cut = words.index("--")
    return words[:cut], words[cut + 1 :]


# --- arguments ---------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rig", description=about, allow_abbrev=False)
    parser.add_argument("--rig-toml", type=Path, metavar="PATH", help="the rig.toml to use")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in (
        _add_doctor, _add_build, _add_boot, _add_boot_and_test, _add_kselftest, _add_kunit,
        _add_exact, _add_bench, _add_mutants, _add_scan, _add_report, _add_history, _add_matrix,
        _add_nightly, _add_repro, _add_store, _add_power, _add_console,
    ):  # fmt: skip
        add(verbs)
    return parser


def _verb(
    verbs: _Verbs, name: str, run: Callable[[argparse.Namespace], int], words: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=words, description=words)
    parser.set_defaults(run=run)
    return parser


def _kernel_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kernel", nargs="?", metavar="KERNEL", help="[kernel.KERNEL] of rig.toml")
    parser.add_argument("--source", help="deb, a directory, REPOSITORY#REF, a tarball or its URL")
    parser.add_argument("--sha256", help="what the tarball's sha256 must be")
    parser.add_argument("--series", help="a quilt directory or an mbox; 'none' for no series")
    parser.add_argument(
        "--config", action="append", default=[], metavar="FRAG",
        help="a further config fragment: a name under kernel-configs/ or a file (repeatable)",
    )  # fmt: skip


def _cold_flag(parser: argparse.ArgumentParser) -> None:
    words = "boot from power-on, not from the saved ready state"
    parser.add_argument("--cold", action="store_true", help=words)


def _json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _results_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--machine", metavar="M", help="[machine.M] of rig.toml")
    parser.add_argument("--junit", type=Path, metavar="F", help="write JUnit XML to F too")
    parser.add_argument("--json", type=Path, metavar="F", help="write the run as JSON to F too")
    parser.add_argument("--results", type=Path, metavar="DIR", help="instead of results/")


def _jobs_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-n", dest="jobs", metavar="N", default="1",
        help="N machines side by side; auto: as many as cores and memory allow",
    )  # fmt: skip


def _add_doctor(verbs: _Verbs) -> None:
    parser = _verb(verbs, "doctor", _doctor, "check every tool, disk space and the accelerator")
    _json_flag(parser)


def _add_build(verbs: _Verbs) -> None:
    parser = _verb(verbs, "build", _build, "build a patched kernel")
    _kernel_options(parser)
    _json_flag(parser)


def _add_boot(verbs: _Verbs) -> None:
    words = "boot a kernel; a shell in it over SSH, or the exit code of the CMD after --"
    parser = _verb(verbs, "boot", _boot, words)
    _kernel_options(parser)
    parser.add_argument("--machine", metavar="M", help="[machine.M] of rig.toml")
    parser.add_argument("--append", default="", help="more words for the kernel command line")
    parser.add_argument("--dry-run", action="store_true", help="print the QEMU line, boot nothing")
    parser.add_argument("--gdb", action="store_true", help="stop at power-on for a debugger")
    _cold_flag(parser)
    _json_flag(parser)


def _add_exact(verbs: _Verbs) -> None:
    words = "run the static PROGRAM after -- on a machine whose every run is the same run"
    parser = _verb(verbs, "exact", _exact, words)
    _kernel_options(parser)
    parser.add_argument("--cpus", type=int, default=1, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S",
                        help="another timeline; 0 (the default) is calm")  # fmt: skip
    parser.add_argument("--timeout", type=int, default=10, metavar="S",
                        help="seconds of the machine's clock, 10^9 instructions each")  # fmt: skip
    parser.add_argument("--file", action="append", default=[], metavar="PATH[=NAME]",
                        help="a file to put beside the program (repeatable)")  # fmt: skip
    parser.add_argument("--ext4", action="store_true", help="an empty ext4 on a RAM disk at /ext4")
    parser.add_argument("--append", default="", help="more words for the kernel command line")
    parser.add_argument("--repeat", type=int, default=1, metavar="N",
                        help="run it N times; exit 1 unless every byte is the same")  # fmt: skip
    parser.add_argument("--explain", nargs=2, metavar=("A", "B"),
                        help="which functions run how many instructions more in B")  # fmt: skip
    _json_flag(parser)


def _add_bench(verbs: _Verbs) -> None:
    words = "measure kernels: instructions that are exact, times as ratios over boots"
    parser = _verb(verbs, "bench", _bench, words)
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help="[kernel.KERNEL] of rig.toml")
    parser.set_defaults(kernel=None)
    parser.add_argument("--against", metavar="BASE", help="a kernel to compare with; 1 if worse")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--exact", action="store_true", help="only the exact set")
    only.add_argument("--timed", action="store_true", help="only the timed set")
    parser.add_argument("--only", default="", metavar="WORDS",
                        help="programs whose line has these words (A|B: or those)")  # fmt: skip
    parser.add_argument("--boots", type=int, default=5, metavar="N",
                        help="boots of each kernel for the timed set (default 5)")  # fmt: skip
    parser.add_argument(
        "--machine", metavar="M", help="[machine.M] for the timed set: a board, too"
    )
    parser.add_argument("--check", action="store_true",
                        help="exact set against where this branch has left main, or on main "
                             "against ci/baselines; 1 if worse")  # fmt: skip
    parser.add_argument("--explain", type=int, nargs="?", const=1000, default=3, metavar="N",
                        help="say which functions a difference is made of for all programs, or "
                             "the N that tell most (default 3)")  # fmt: skip
    parser.add_argument("--accept", metavar="WHY",
                        help="keep the exact set as the baseline in ci/baselines")  # fmt: skip
    parser.add_argument("--results", type=Path, metavar="DIR", help="instead of results/")
    parser.add_argument("--json", type=Path, metavar="F", help="write everything as JSON to F too")


def _add_boot_and_test(verbs: _Verbs) -> None:
    words = "build, boot, run guest suites, give the verdict; words after -- go to pytest"
    parser = _verb(verbs, "boot-and-test", _boot_and_test, words)
    _kernel_options(parser)
    _results_options(parser)
    parser.add_argument("--suite", action="append", default=[], metavar="S", help="by name or path")
    parser.add_argument("--tests", action="append", default=[], type=Path, metavar="DIR",
                        help="a kselftest-shaped directory anywhere (repeatable)")  # fmt: skip
    parser.add_argument("--isolation", choices=("none", "suite", "program"), default="none",
                        help="what gets a machine of its own")  # fmt: skip
    _jobs_option(parser)
    words = "again after each change of a patch, a suite, a fragment, rig.toml or a local source"
    parser.add_argument("--watch", action="store_true", help=words)
    parser.add_argument("-k", dest="keyword", default="", help="pytest's -k")
    parser.add_argument("--case", action="append", default=[], type=_case,
                        metavar="[SUITE/]PROGRAM[::CASE]",
                        help="only this program and, with the kernel's harness, this case of it "
                             "(repeatable)")  # fmt: skip
    parser.add_argument("--env", action="append", default=[], type=_setting, metavar="NAME=VALUE",
                        help="in the environment of every program (repeatable)")  # fmt: skip
    parser.add_argument("--timeout", type=float, metavar="S",
                        help="for each program, instead of what its suite says")  # fmt: skip
    parser.add_argument("--append", default="", metavar="WORDS",
                        help="more words for the kernel command line")  # fmt: skip
    parser.add_argument("--dump", action="store_true",
                        help="keep the guest's memory where a program does not end, "
                             "for crash and drgn")  # fmt: skip
    parser.add_argument("--repeat", type=int, metavar="N",
                        help="run it N times; what passes in some runs only is FLAKY")  # fmt: skip
    parser.add_argument("--until-fail", action="store_true",
                        help="again until one is not green, --repeat times at most")  # fmt: skip
    parser.add_argument("-x", dest="exit_first", action="store_true", help="pytest's -x")
    parser.add_argument("--lf", dest="last_failed", action="store_true", help="pytest's --lf")
    _cold_flag(parser)


def _add_kselftest(verbs: _Verbs) -> None:
    parser = _verb(verbs, "kselftest", _kselftest, "run the kernel tree's own selftests")
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="timers, futex, pipe ...")
    parser.add_argument("--kernel", metavar="KERNEL", help="[kernel.KERNEL] of rig.toml")
    parser.add_argument("--against", metavar="BASE", help="report only what is new against BASE")
    parser.add_argument("-k", dest="keyword", default="", help="only programs that match")
    parser.add_argument("--env", action="append", default=[], type=_setting, metavar="NAME=VALUE",
                        help="in the environment of every program (repeatable)")  # fmt: skip
    parser.add_argument("--link", action="append", default=[], type=_object, metavar="OBJECT",
                        help="an object file for each compiled program (repeatable)")  # fmt: skip
    _cold_flag(parser)
    _jobs_option(parser)
    _results_options(parser)


def _add_kunit(verbs: _Verbs) -> None:
    parser = _verb(verbs, "kunit", _kunit, "boot a kernel with its KUnit tests built in")
    parser.add_argument("--kernel", metavar="KERNEL", help="[kernel.KERNEL] of rig.toml")
    parser.add_argument("--kunitconfig", metavar="PATH", help="of the tree, e.g. lib/kunit")
    parser.add_argument("--against", metavar="BASE", help="report only what is new against BASE")
    _results_options(parser)


def _add_mutants(verbs: _Verbs) -> None:
    words = "break the series by a line at a time, and see each breakage caught by its test"
    parser = _verb(verbs, "mutants", _mutants, words)
    parser.set_defaults(kernel=None)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--list", action="store_true", help="only name them")
    parser.add_argument("--results", type=Path, metavar="DIR", help="instead of results/")
    _json_flag(parser)


def _add_power(verbs: _Verbs) -> None:
    parser = _verb(verbs, "power", _power, "switch a board's power, or say whether it has any")
    parser.add_argument("board", metavar="BOARD", help="[machine.BOARD] of rig.toml, a baremetal")
    words = "cycle: off, and on again; without any: status"
    choices = ("on", "off", "cycle", "status")
    parser.add_argument("what", nargs="?", choices=choices, default="status", help=words)
    _anyway_flag(parser)
    _json_flag(parser)


def _anyway_flag(parser: argparse.ArgumentParser) -> None:
    words = "also where somebody has the board"
    parser.add_argument("--anyway", action="store_true", help=words)


def _add_console(verbs: _Verbs) -> None:
    parser = _verb(verbs, "console", _console, "show and record what a board's console says")
    parser.add_argument("board", metavar="BOARD", help="[machine.BOARD] of rig.toml, a baremetal")
    words = "so long; without it until it is interrupted"
    parser.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help=words)
    _anyway_flag(parser)


def _add_scan(verbs: _Verbs) -> None:
    parser = _verb(verbs, "scan", _scan, "find what a kernel reported about itself in logs")
    parser.add_argument("files", nargs="+", metavar="FILE",
                        help="a console log, gzip, bzip2 or xz as well; - for stdin")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a file on stdout")


def _add_report(verbs: _Verbs) -> None:
    parser = _verb(verbs, "report", _report, "show a saved run again, and write its page")
    parser.add_argument("directory", nargs="?", type=Path, default=Path("results/latest"))


def _add_history(verbs: _Verbs) -> None:
    words = "since when a case fails and how often, how a figure has moved; what fails now"
    parser = _verb(verbs, "history", _history, words)
    parser.add_argument("name", nargs="?", metavar="CASE|MEASUREMENT",
                        help="a whole name, or a part of it (default: what fails now)")  # fmt: skip
    parser.add_argument("--kernel", metavar="K", help="only as run on this kernel")
    parser.add_argument("--machine", metavar="M", help="only as run on this machine")
    parser.add_argument("--add", nargs="+", type=Path, metavar="RUN.json", default=[],
                        help="take in runs first, of elsewhere: files of --json")  # fmt: skip
    _json_flag(parser)


def _add_matrix(verbs: _Verbs) -> None:
    parser = _verb(verbs, "matrix", _matrix_list, "kernels, machines and suites: many runs as one")
    whats = parser.add_subparsers(dest="what", metavar="WHAT")
    listing = _verb(whats, "list", _matrix_list, "its cells (the default)")
    running = _verb(whats, "run", _matrix_run, "run them; what was interrupted goes on")
    for one in (parser, listing, running):
        one.add_argument(
            "--only", default="", metavar="WORDS", help="cells with all of these words"
        )
        one.add_argument("--matrix", type=Path, metavar="F", help="instead of ci/matrix.toml")
        _json_flag(one)
    running.add_argument("--on", choices=("local", "slurm", "github", "gitlab"),
                         default="local",
                         help="run here, on a cluster, or print what runners take")  # fmt: skip
    running.add_argument("-n", dest="jobs", type=int, default=0, metavar="N",
                         help="cells at a time (default: what cores and memory allow)")  # fmt: skip
    running.add_argument("--results", type=Path, metavar="DIR",
                         help="default: results/matrix-COMMIT")  # fmt: skip


def _add_nightly(verbs: _Verbs) -> None:
    words = "everything of ci/nightly.toml within its time, what is news in it, pages and a mail"
    parser = _verb(verbs, "nightly", _nightly, words)
    parser.add_argument("--plan", type=Path, metavar="F", help="instead of ci/nightly.toml")
    parser.add_argument("--budget", type=float, default=0.0, metavar="HOURS",
                        help="instead of the plan's")  # fmt: skip
    parser.add_argument("--only", action="append", default=[], metavar="PART",
                        help="this part of the plan (repeatable)")  # fmt: skip
    parser.add_argument("--results", type=Path, metavar="DIR", help="instead of results/")
    parser.add_argument("--no-mail", action="store_true", help="neither a mail nor a hook")
    parser.add_argument("--accept", nargs=2, metavar=("NIGHT", "WHY"),
                        help="run nothing: have a night count as good, for a reason")  # fmt: skip
    _json_flag(parser)


def _add_repro(verbs: _Verbs) -> None:
    words = "one failure of a run as a tarball that shows it again and needs only QEMU"
    parser = _verb(verbs, "repro", _repro, words)
    parser.set_defaults(kernel=None)
    latest = Path("results/latest")
    parser.add_argument("directory", nargs="?", type=Path, default=latest, metavar="RUN",
                        help="a directory of results/ (default: the latest)")  # fmt: skip
    parser.add_argument("case", nargs="?", default="", metavar="CASE",
                        help="SUITE/PROGRAM[::CASE] (default: the first)")  # fmt: skip
    parser.add_argument("--disk", action="store_true",
                        help="with the guest's whole root file system")  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, metavar="F", help="the tarball to write")


def _add_store(verbs: _Verbs) -> None:
    parser = _verb(verbs, "store", _store, "what the store holds, whether it is sound, what may go")
    whats = parser.add_subparsers(dest="what", metavar="WHAT")
    words = "everything in it, what was used last at the end (the default)"
    _verb(whats, "list", _store_list, words)
    _verb(whats, "path", _store_path, "where it is")
    words = "remove what was used least recently, and what killed rigs left; nothing in use"
    collecting = _verb(whats, "gc", _store_gc, words)
    collecting.add_argument("--budget", metavar="SIZE", help="20G; default: $RIG_STORE_BUDGET, 30G")
    collecting.add_argument("--dry-run", action="store_true", help="say what would go")
    checking = _verb(whats, "verify", _store_verify, "read every byte; exit 1 for a damaged entry")
    words = "remove damaged entries: the next build makes them again"
    checking.add_argument("--repair", action="store_true", help=words)
    for one in (parser, *whats.choices.values()):
        _json_flag(one)


# --- verbs -------------------------------------------------------------------------------------


def _doctor(arguments: argparse.Namespace) -> int:
    from rig import doctor

    root = arguments.rig_toml.parent if arguments.rig_toml else Path.cwd()
    report = doctor.examine(root)
    print(report.to_json() if arguments.json else doctor.render(report))
    return report.exit_code


def _build(arguments: argparse.Namespace) -> int:
    from rig import kbuild
    from rig.store import open_store

    config = _config(arguments)
    with _progress(arguments) as progress:
        kernel = kbuild.build(config, config.kernel(), open_store(), progress=progress)
    if arguments.json:
        sys.stdout.write(kernel.metadata.read_text())
        return 0
    print(f"{kernel.name} {kernel.release}: {'unchanged' if kernel.cached else 'built'}")
    print(f"  {kernel.image}\n  {kernel.metadata}")
    return 0


def _boot(arguments: argparse.Namespace) -> int:
    from rig import boot

    with _progress(arguments) as progress:
        request = boot.Request(
            machine=arguments.machine,
            argv=tuple(arguments.command_line) if arguments.command_line is not None else None,
            append=arguments.append,
            dry_run=arguments.dry_run,
            gdb=arguments.gdb,
            cold=arguments.cold,
            json=arguments.json,
        )
        return boot.run(request, _config(arguments), progress)


def _exact(arguments: argparse.Namespace) -> int:
    """The program's own code; 1 where --repeat or --explain found what must not be."""
    from rig import exact

    if not arguments.command_line:
        raise UsageError("there is no PROGRAM", hint="rig exact [KERNEL] -- PROGRAM [ARGS]")
    request = exact.Request(
        argv=tuple(arguments.command_line),
        cpus=arguments.cpus,
        seed=arguments.seed,
        timeout_s=arguments.timeout,
        files=tuple(arguments.file),
        ext4=arguments.ext4,
        append=arguments.append,
    )
    try:
        return _explained(request, arguments) if arguments.explain else _ran(request, arguments)
    except exact.DifferenceError as error:
        error.reproduce = shlex.join(["rig", *sys.argv[1:]])
        show_error(error)
        return error.exit_code


def _ran(request: ExactRequest, arguments: argparse.Namespace) -> int:
    from rig import exact, results
    from rig.store import open_store

    if arguments.repeat < 1:
        raise UsageError(f"--repeat {arguments.repeat}", hint="at least 1")
    config, store = _config(arguments), open_store()
    with _progress(arguments) as progress:
        prepared = exact.prepare(request, config, config.kernel(), store, progress)
        ran = exact.repeat(prepared, arguments.repeat, progress)
    for notice in ran.notices:
        sys.stderr.write(f"notice: {notice}\n")
    if arguments.json:
        value = exact.described(prepared, ran, prepared.directory)
        sys.stdout.buffer.write(results.to_json({**value, "identical_runs": arguments.repeat}))
    else:
        sys.stderr.flush()
        sys.stdout.buffer.write(ran.streams["stdout"])
        sys.stderr.buffer.write(ran.streams["stderr"])
    if arguments.repeat > 1:
        sys.stderr.write(f"{arguments.repeat} runs, all the same\n")
    return ran.exit_code


def _explained(request: ExactRequest, arguments: argparse.Namespace) -> int:
    from rig import explain, results
    from rig.store import open_store

    with _progress(arguments) as progress:
        kernels = (arguments.explain[0], arguments.explain[1])
        found = explain.explain(request, kernels, _config(arguments), open_store(), progress)
    if arguments.json:
        sys.stdout.buffer.write(results.to_json(found))
    else:
        sys.stdout.write(explain.render(found))
    return 0 if found.sound else 1


def _bench(arguments: argparse.Namespace) -> int:
    """1 where anything got worse than what it was compared with."""
    from rig import bench
    from rig.store import open_store

    request = bench.Request(
        kernels=tuple(arguments.kernels),
        against=arguments.against,
        exact=not arguments.timed,
        timed=not arguments.exact,
        only=arguments.only,
        boots=arguments.boots,
        machine=arguments.machine,
        check=arguments.check,
        accept=arguments.accept,
        explain=arguments.explain,
        results=arguments.results,
        json=arguments.json,
        words=_words_of("bench"),
    )
    with _progress(arguments) as progress:
        result = bench.run(request, _config(arguments), open_store(), progress)
    sys.stdout.write(bench.text(result))
    print(f"report: {result.directory / bench.PAGE_NAME}", flush=True)
    for run in bench.remembered(result):
        _remember(run)
    return result.exit_code


def _words_of(verb: str) -> tuple[str, ...]:
    """What was written after a verb, to be pasted again."""
    words = sys.argv[1:]
    return tuple(words[words.index(verb) + 1 :]) if verb in words else ()


def _power(arguments: argparse.Namespace) -> int:
    from rig import results
    from rig.machine import claim, power

    config = _as_written(arguments)
    board = config.board(arguments.board)
    one = power.of(board, config.root)
    what = arguments.what
    value: dict[str, object] = {"board": one.board}
    if what == "status":
        is_on = one.status()
        value["on"] = is_on
        words = "cannot be told" if is_on is None else "on" if is_on else "off"
    else:
        by_hand = claim.by_hand(board, f"rig power {board.name} {what}", anyway=arguments.anyway)
        with by_hand, _progress(arguments) as progress:
            progress.stage(f"power of {one.board}: {what}")
            done = one.cycle() if what == "cycle" else one.set(what == "on")
        value |= {"on": done.on, "seen": done.seen, "took_s": round(done.took_s, 2)}
        words = f"{'on' if done.on else 'off'}, after {done.took_s:.1f} s"
        words += "" if done.seen else "; asked for, and not seen: its switch cannot tell"
    if arguments.json:
        sys.stdout.buffer.write(results.to_json(value))
    else:
        print(f"{one.board}: {words}")
    return 0


def _console(arguments: argparse.Namespace) -> int:
    """1 when a kernel reported something about itself meanwhile."""
    from rig import listen
    from rig.machine import claim

    def say(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    config = _as_written(arguments)
    board = config.board(arguments.board)
    with contextlib.ExitStack() as held:
        asked = claim.by_hand(board, f"rig console {board.name}", anyway=arguments.anyway)
        held.enter_context(asked)
        if not board.console or board.console.kind != "ipmi":
            held.close()  # who listens is in nobody's way; a BMC has one line
        heard = listen.run(arguments.board, config, arguments.seconds, say)
    sys.stderr.write(f"\nrecorded: {heard.path}\n")
    if heard.lost:
        sys.stderr.write(f"notice: the line went down {heard.lost} time(s)\n")
    for one in heard.splats:
        sys.stderr.write(f"splat: {one.title}\n")
    return 1 if heard.splats else 0


def _scan(arguments: argparse.Namespace) -> int:
    """1 when any of the logs has a report, else 2 when one could not be read to its end."""
    from rig import logfile, report, results, splat, terminal

    dirty, lost = False, 0
    for file in arguments.files:
        name = os.fsencode(file).decode(errors="replace")
        found, error = 0, None
        if arguments.json:
            print(results.to_line({"file": name})[:-1] + ',"splats":[', end="")
        try:
            for one in splat.scan_pieces(logfile.pieces(file)):
                found += 1
                if arguments.json:  # each at once: a log may have more of them than fit in memory
                    words = results.to_line(_described(one))
                    print("," * (found > 1) + words, end="", flush=True)
                else:
                    print(f"{name}:{one.start + 1}: {report.clean(one.title)}", flush=True)
        except UsageError as caught:  # the others are looked at all the same
            terminal.show_error(caught)
            error, lost = caught, caught.exit_code
        except BaseException:
            if arguments.json:  # what is there is whole, and says that it is not all
                print('],"error":"it was not read to its end"}', flush=True)
            raise
        dirty = dirty or found > 0
        if arguments.json:
            why = ',"error":' + results.to_line(error.message) if error else ""
            print(f"]{why}}}", flush=True)
        elif not error:
            print(f"{name}: {found} splat(s)" if found else f"{name}: clean", flush=True)
    return 1 if dirty else lost


def _described(one: Splat) -> dict[str, object]:
    return {name: getattr(one, name) for name in _TOLD_OF_A_SPLAT}


def _report(arguments: argparse.Namespace) -> int:
    from rig import report, results

    run = results.load_run(arguments.directory / "run.json")
    report.write(run, arguments.directory)
    print(report.text(run, color=sys.stdout.isatty()))
    print(f"report: {(arguments.directory / 'report.html').absolute().as_uri()}")
    return run.exit_code


def _history(arguments: argparse.Namespace) -> int:
    from rig import history, results

    with history.History(history.place()) as known:
        for path in arguments.add:
            known.add(results.load_run(path))
        _say(known.notices)
        if arguments.name:
            return _history_of(arguments, known)
        found = known.overview()
        meant = tuple(line for line in found.failing if _is_meant(arguments, line))
        found = dataclasses.replace(found, failing=meant)
    if arguments.json:
        failing = [history.told(line, seen=False) for line in found.failing]
        return _print_json({"runs": found.runs, "first": found.first, "failing": failing})
    print("\n".join(history.overview_text(found, known.path)))
    return 0


def _history_of(arguments: argparse.Namespace, known: History) -> int:
    from rig import history

    found: list[dict[str, object]] = []
    for name in history.matching(arguments.name, known.names()):
        cases = [one for one in known.cases(name) if _is_meant(arguments, one)]
        trends = [one for one in known.trends(name) if _is_meant(arguments, one)]
        told = {"cases": [*map(history.told, cases)], "figures": trends}
        found.append({"name": name, **told})
        if not arguments.json:
            texts = [*map(history.case_text, cases), *map(history.trend_text, trends)]
            print("\n".join([name, *(line for text in texts for line in text)]))
    return _print_json(found) if arguments.json else 0


def _cells(arguments: argparse.Namespace, config: Config) -> tuple[Cell, ...]:
    from rig import matrix

    return matrix.only(matrix.read(_matrix_file(arguments, config), config), arguments.only)


def _matrix_file(arguments: argparse.Namespace, config: Config) -> Path:
    from rig import matrix

    named: Path | None = arguments.matrix
    return named.absolute() if named else config.root / matrix.FILE


def _matrix_list(arguments: argparse.Namespace) -> int:
    from rig import matrix

    found = _cells(arguments, _as_written(arguments))
    if arguments.json:
        return _print_json([{"name": one.name, **dataclasses.asdict(one)} for one in found])
    print("\n".join(matrix.lines(found)))
    return 0


def _matrix_run(arguments: argparse.Namespace) -> int:
    from rig import cells, matrix

    config = _as_written(arguments)
    found = _cells(arguments, config)
    if arguments.on in ("github", "gitlab"):
        print(matrix.github(found) if arguments.on == "github" else matrix.gitlab(found))
        return 0
    commit = cells.commit(config.root)
    results = arguments.results or config.root / "results" / f"matrix-{commit or 'none'}"
    request = cells.Request(found, results.absolute(), commit, arguments.jobs)
    with _progress(arguments) as progress:
        if arguments.on == "slurm":
            from rig import slurm

            asked = matrix.slurm(_matrix_file(arguments, config))
            state = slurm.Runner(request, config, asked, progress.note).run()
        else:
            state = cells.Runner(request, config, progress.note).run()
    if arguments.json:
        _print_json(state)
    else:
        print("\n".join(cells.summary(state, found)))
        print(f"results: {request.results}")
    return state.exit_code(found)


def _no_night(arguments: argparse.Namespace, error: RigError) -> None:
    """Tell whoever is told of nights, where rig.toml cannot be read and the plan can."""
    from rig import afterwards, nightly

    try:
        root = (arguments.rig_toml or configuration.find_root(Path.cwd()) / "x").absolute().parent
        plan = nightly.read(arguments.plan or root / nightly.FILE)
    except RigError:
        return
    if not arguments.no_mail and not arguments.accept:
        afterwards.broken_off(error, plan, root, lambda words: _say([words]))


def _nightly(arguments: argparse.Namespace) -> int:
    """0 when the night is good: nothing bad was seen, and all of it was run."""
    from rig import afterwards, nightly, nightmail, site

    try:
        config = _as_written(arguments)
    except RigError as error:
        _no_night(arguments, error)
        raise
    results = (arguments.results or config.root / "results").absolute()
    if arguments.accept:
        night = nightly.accept(results, *arguments.accept)
        site.accepted(results, night)
        print(f"{night.name} counts as good: {night.accepted}")
        return 0
    plan = nightly.read(arguments.plan or config.root / nightly.FILE)
    if arguments.no_mail:
        plan = dataclasses.replace(plan, mail=None, hook=None)
    request = nightly.Request(results, arguments.budget, tuple(arguments.only))
    with _progress(arguments) as progress:
        ours = nightly.Nightly(request, plan, config, progress.note)  # whoever asks has his error
        try:
            seen = ours.run()
        except Exception as error:
            afterwards.broken_off(error, plan, config.root, lambda words: _say([words]))
            raise
    page = afterwards.conclude(seen, plan, results, config.root, lambda words: _say([words]))
    if seen.interrupted:
        raise KeyboardInterrupt
    if arguments.json:
        _print_json(seen.summary)
    else:
        print(nightmail.text(seen.night, seen.summary), end="")
        print(f"pages: {page}")
    return 0 if seen.summary.good else 1


def _is_meant(arguments: argparse.Namespace, one: Line | Trend) -> bool:
    """By --kernel and --machine."""
    pairs = ((arguments.kernel, one.kernel), (arguments.machine, one.machine))
    return all(asked in (None, its) for asked, its in pairs)


def _say(notices: Sequence[str]) -> None:
    for words in notices:
        sys.stderr.write(f"rig: {words}\n")


def _remember(run: Run) -> None:
    """Keep a run for `rig history`; what it saw does not depend on that."""
    from rig import history

    try:
        with history.History(history.place()) as known:
            known.add(run)
            _say(known.notices)
    except RigError as error:
        _say([f"{error.message}: this run is not in it"])


def _repro(arguments: argparse.Namespace) -> int:
    """0 when the tarball's own script has shown the failure again."""
    from rig import report, repro, results

    run = results.load_run(arguments.directory / "run.json")
    given = _as_given(run.command, arguments)
    request = repro.Request(
        directory=arguments.directory,
        case=arguments.case,
        output=arguments.output,
        disk=arguments.disk,
        env=tuple(given.env) if given else (),
    )
    with _progress(arguments) as progress:
        packed = repro.pack(request, _config(given or arguments), progress)
    size = packed.path.stat().st_size / 2**20
    print(f"{report.clean(packed.failure.title)}")
    print(f"  {packed.path} ({size:.0f} MiB{', with its disk' if packed.disk else ''})")
    print("  its run.sh has shown it again" if packed.shown else "  NOT REPRODUCED by its run.sh")
    return 0 if packed.shown else 1


def _as_given(command: str, arguments: argparse.Namespace) -> argparse.Namespace | None:
    """What a saved run was asked for: its kernel may not be rig.toml's alone. None where it was no
    run of suites.
    """
    words = shlex.split(command)
    if not {"boot-and-test", "kselftest"} & set(words[:3]):
        return None
    try:
        given = _parser().parse_args(_split_command(words[1:])[0])
    except SystemExit as error:
        raise UsageError(f"the run's command is not known here: {command}") from error
    given.rig_toml = arguments.rig_toml
    return given


def _store(arguments: argparse.Namespace) -> int:
    return _store_list(arguments)


def _store_list(arguments: argparse.Namespace) -> int:
    from rig import upkeep
    from rig.store import open_store

    store = open_store()
    found = upkeep.entries(store)
    if arguments.json:
        return _print_json({"root": str(store.root), "entries": found})
    for entry in found:
        print(_stored(entry))
    print(f"{store.root}: {sum(e.size_bytes for e in found) / 2**30:.2f} GiB")
    return 0


def _stored(entry: upkeep.Entry) -> str:
    """One line for an entry: what it is, its size, when it was last used."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    return f"{entry.kind:12} {entry.key:40} {entry.size_bytes / 2**20:9.1f} MiB  {when}"


def _store_path(arguments: argparse.Namespace) -> int:
    from rig.store import open_store

    root = str(open_store().root)
    if arguments.json:
        return _print_json({"root": root})
    print(root)
    return 0


def _store_gc(arguments: argparse.Namespace) -> int:
    from rig import upkeep
    from rig.store import open_store

    budget = upkeep.parse_size(arguments.budget) if arguments.budget else upkeep.budget_bytes()
    done = upkeep.collect(open_store(), budget, dry_run=arguments.dry_run)
    if arguments.json:
        return _print_json(done)
    for name in done.leftovers:
        print(f"left by a killed rig: {name}")
    for title, those in (("removed", done.removed), ("in use", done.in_use)):
        for entry in those:
            print(f"{title:8} {_stored(entry)}")
    would = "would be" if done.dry_run else "is"
    sizes = [size / 2**30 for size in (done.before_bytes, done.after_bytes, done.budget_bytes)]
    print(
        "the store had {:.2f} GiB, {} at {:.2f}, budget {:.2f}".format(sizes[0], would, *sizes[1:])
    )
    return 0


def _store_verify(arguments: argparse.Namespace) -> int:
    from rig import upkeep
    from rig.store import open_store

    store = open_store()
    with _progress(arguments) as progress:
        damaged = upkeep.verify(store, repair=arguments.repair, progress=progress)
    code = 1 if any(not one.removed for one in damaged) else 0
    if arguments.json:
        _print_json({"root": str(store.root), "damaged": damaged})
        return code
    for one in damaged:
        fate = (
            "removed: it is made again when needed" if one.removed else "rig store verify --repair"
        )
        fate = "in use, not removed" if arguments.repair and not one.removed else fate
        more = f" and {len(one.reasons) - 1} more" if len(one.reasons) > 1 else ""
        print(f"{one.kind} {one.key}: {one.reasons[0]}{more} ({fate})")
    print(f"{store.root}: {f'{len(damaged)} damaged' if damaged else 'sound'}")
    return code


def _print_json(value: object) -> int:
    from rig import results

    sys.stdout.buffer.write(results.to_json(value))
    return 0


def _boot_and_test(arguments: argparse.Namespace) -> int:
    if arguments.watch:
        return _watch(arguments)
    from rig import runner

    config, request = _appended(_config(arguments), arguments), _request(arguments)
    if arguments.repeat is not None or arguments.until_fail:
        return _show(_repeated(arguments, request, config))
    with _progress(arguments) as progress:
        outcome = runner.boot_and_test(request, config, progress)
    return _show(outcome)


def _repeated(arguments: argparse.Namespace, request: Request, config: Config) -> Outcome:
    from rig import again, runner

    with _progress(arguments) as progress:
        plain = dataclasses.replace(request, junit=None, json=None)
        return again.repeat(
            lambda: runner.boot_and_test(plain, config, progress),
            again.UNTIL_FAIL if arguments.repeat is None else arguments.repeat,
            arguments.until_fail,
            request,
            shlex.join(["rig", *sys.argv[1:]]),
            request.results or config.root / "results",
            progress.note,
        )


def _watch(arguments: argparse.Namespace) -> int:
    """Run after run; an error is shown and ends none but its own."""
    from rig import runner, watch

    def look() -> watch.Watched:
        config = _appended(_config(arguments), arguments)
        suites = [one.directory for one in runner.chosen(_request(arguments), config)]
        return watch.inputs(config, arguments.machine, suites)

    def once() -> int:
        try:
            return _boot_and_test(argparse.Namespace(**{**vars(arguments), "watch": False}))
        except RigError as error:
            show_error(error)
            return error.exit_code

    def say(words: str) -> None:
        if not arguments.quiet:
            print(words, flush=True)

    return watch.repeat(look, once, say)


def _request(arguments: argparse.Namespace) -> Request:
    from rig import budget, runner

    return runner.Request(
        machine=arguments.machine,
        suites=tuple(arguments.suite),
        tests=tuple(Path.cwd() / path for path in arguments.tests),
        isolation=arguments.isolation,
        jobs=budget.parse(arguments.jobs),
        keyword=arguments.keyword,
        cold=arguments.cold,
        exit_first=arguments.exit_first,
        last_failed=arguments.last_failed,
        env=tuple(arguments.env),
        timeout_s=arguments.timeout,
        cases=tuple(arguments.case),
        pytest_args=tuple(arguments.command_line or ()),
        results=arguments.results,
        junit=arguments.junit,
        json=arguments.json,
        words=(*_kernel_words(arguments), *_program_words(arguments)),
    )


def _program_words(arguments: argparse.Namespace) -> list[str]:
    """What of the command line decides how programs run, for commands to paste."""
    words = [word for name, value in arguments.env for word in ("--env", f"{name}={value}")]
    words += [word for case in arguments.case for word in ("--case", "::".join(filter(None, case)))]
    words += ["--append", arguments.append] if arguments.append else []
    words += ["--dump"] if arguments.dump else []
    return [*words, *(["--timeout", f"{arguments.timeout:g}"] if arguments.timeout else [])]


def _setting(text: str) -> tuple[str, str]:
    """NAME=VALUE of --env."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _object(text: str) -> Path:
    """OBJECT of --link."""
    path = Path(text).absolute()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text}: No such file")
    return path


def _case(text: str) -> tuple[str, str]:
    """PROGRAM or PROGRAM::CASE of --case, each with its suite or without."""
    program, colons, case = text.partition("::")
    named = re.fullmatch(r"[\w.-]+(?:/[\w.-]+)*", program)
    if not named or (colons and not re.fullmatch(r"[\w.]+", case)):
        raise argparse.ArgumentTypeError(f"{text!r} is not PROGRAM or PROGRAM::CASE")
    return program, case


def _kernel_words(arguments: argparse.Namespace) -> tuple[str, ...]:
    """How this command line names its kernel, to be pasted into the next one."""
    words = [arguments.kernel] if arguments.kernel else []
    for option in ("source", "sha256", "series"):
        if value := getattr(arguments, option):
            words += [f"--{option}", value]
    for fragment in arguments.config:
        words += ["--config", fragment]
    if getattr(arguments, "cold", False):
        words.append("--cold")
    return tuple(words)


def _kselftest(arguments: argparse.Namespace) -> int:
    from rig import budget, runner

    request = runner.KselftestRequest(
        targets=tuple(arguments.targets),
        machine=arguments.machine,
        against=arguments.against,
        jobs=budget.parse(arguments.jobs),
        keyword=arguments.keyword,
        cold=arguments.cold,
        env=tuple(arguments.env),
        link=tuple(arguments.link),
        results=arguments.results,
        junit=arguments.junit,
        json=arguments.json,
    )
    with _progress(arguments) as progress:
        outcome = runner.kselftest(request, _config(arguments), progress)
    return _show(outcome)


def _mutants(arguments: argparse.Namespace) -> int:
    """0 when each of them was caught by the test it names, 1 when one was not."""
    from rig import mutants

    request = mutants.Request(names=tuple(arguments.names), results=arguments.results)
    config = _config(arguments)
    if arguments.list:
        picked = mutants.chosen(request, config)
        if arguments.json:
            return _print_json([mutants.described(one) for one in picked])
        for one in picked:
            print(f"{one.name}: {one.says} ({one.caught_by})")
        return 0

    def tell(verdict: mutants.Verdict) -> None:
        if not arguments.json:
            print(mutants.line(verdict), flush=True)

    with _progress(arguments) as progress:
        verdicts = mutants.run(request, config, progress, tell)
    if arguments.json:
        _print_json([mutants.told(one) for one in verdicts])
    else:
        print(mutants.summary(verdicts))
    return 0 if all(one.end is mutants.End.CAUGHT for one in verdicts) else 1


def _kunit(arguments: argparse.Namespace) -> int:
    from rig import kunit

    request = kunit.Request(
        kunitconfig=arguments.kunitconfig,
        machine=arguments.machine,
        against=arguments.against,
        results=arguments.results,
        junit=arguments.junit,
        json=arguments.json,
    )
    with _progress(arguments) as progress:
        outcome = kunit.run(request, _config(arguments), progress)
    return _show(outcome)


def _show(outcome: Outcome) -> int:
    """The verdict table, where the report lies, and the error that ended the run early."""
    from rig import report

    print(report.text(outcome.run, color=sys.stdout.isatty()))
    print(f"report: {outcome.directory / 'report.html'}", flush=True)
    _remember(outcome.run)
    if outcome.error:
        show_error(outcome.error)
    return outcome.exit_code


@contextlib.contextmanager
def _progress(arguments: argparse.Namespace) -> Iterator[TerminalProgress]:
    with TerminalProgress(quiet=arguments.quiet) as progress:
        yield progress


def _config(arguments: argparse.Namespace) -> Config:
    """rig.toml with what the command line changes of the kernel it names; that is the default."""
    config = _as_written(arguments)
    kernel = _changed(config.kernel(arguments.kernel), arguments)
    kernels = {**config.kernels, kernel.name: kernel}
    return dataclasses.replace(config, kernels=kernels, default_kernel=kernel.name)


def _as_written(arguments: argparse.Namespace) -> Config:
    """rig.toml as it is."""
    path = arguments.rig_toml or configuration.find_root(Path.cwd()) / configuration.FILE_NAME
    return configuration.load(path.absolute())


def _appended(config: Config, arguments: argparse.Namespace) -> Config:
    """The machine of the command line with --append's words behind its own, and --dump."""
    machine = config.machine(arguments.machine)
    words = f"{machine.append} {arguments.append}".strip()
    if isinstance(machine, BoardConfig):
        if arguments.dump:
            raise UsageError(f"--dump: {machine.name} is a board, whose memory nobody can read")
        board = dataclasses.replace(machine, append=words)
        return dataclasses.replace(config, boards={**config.boards, board.name: board})
    changed = dataclasses.replace(machine, append=words, dump=machine.dump or arguments.dump)
    return dataclasses.replace(config, machines={**config.machines, machine.name: changed})


def _changed(kernel: KernelConfig, arguments: argparse.Namespace) -> KernelConfig:
    """The kernel with --source, --sha256, --series and --config put in; paths from here."""
    changes: dict[str, object] = {}
    if source := getattr(arguments, "source", None):
        changes["source"] = source if source == "deb" or "://" in source else _from_here(source)
        changes["sha256"] = ""
    if getattr(arguments, "sha256", None):
        changes["sha256"] = arguments.sha256
    if series := getattr(arguments, "series", None):
        changes["series"] = "" if series == "none" else _from_here(series)
        if series == "none":
            changes["on_top"] = ""
    if fragments := getattr(arguments, "config", []):
        named = [_from_here(f) if "/" in f or f.endswith(".config") else f for f in fragments]
        changes["configs"] = (*kernel.configs, *named)
    return dataclasses.replace(kernel, **changes)  # type: ignore[arg-type]


def _from_here(path: str) -> str:
    return str(Path.cwd() / Path(path).expanduser())
