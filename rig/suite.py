"""kselftest-shaped directories: find them, list their programs, compile them for a kernel."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rig import process
from rig.errors import BuildError, UsageError
from rig.progress import QUIET, Progress
from rig.store import Store, digest

if TYPE_CHECKING:
    from rig.kbuild import Kernel

# Seconds a program may run without a `timeout=` of its own: kselftest_default_timeout of
# tools/testing/selftests/kselftest/runner.sh. There, 0 switches the limit off; here nothing waits
# without a deadline.
DEFAULT_TIMEOUT_S = 45.0
UNLIMITED_TIMEOUT_S = 1800.0

SELFTESTS = Path("tools/testing/selftests")
_RECIPE = "4"  # part of every key: raise it when what `compile` does to a suite changes
# What a suite that is not the tree's own finds of the kernel's tree, so that a change anywhere else
# in it compiles no suite again. Headers a program may include are the installed ones.
_SEEN = ("arch", "include", "scripts", "tools")

_INCLUDES_LIB = re.compile(r"^\s*-?include\s+.*?((?:\.\./)*)lib\.mk\b", re.MULTILINE)
_NAMES_PROGRAMS = re.compile(r"\bTEST_(?:GEN_|CUSTOM_)?PROGS\b")
_MAKEFILE = """\
TEST_GEN_PROGS := {programs}
TEST_PROGS := {scripts}

include ../lib.mk
"""

# What `make emit_tests` needs of the kernel's lib.mk, so that the programs of a suite are known
# before there is a kernel tree.
_LISTING_LIB = """\
OUTPUT ?= $(CURDIR)
selfdir = $(realpath $(dir $(filter %/lib.mk,$(MAKEFILE_LIST))))
top_srcdir = $(selfdir)/../../..
KHDR_INCLUDES ?= -isystem $(top_srcdir)/usr/include
TEST_GEN_PROGS := $(addprefix $(OUTPUT)/,$(TEST_GEN_PROGS))
all:
emit_tests:
\t@for TEST in $(TEST_GEN_PROGS) $(TEST_CUSTOM_PROGS) $(TEST_PROGS); do \\
\t\techo "$(COLLECTION):`basename $$TEST`"; done
.PHONY: all emit_tests
"""

# What a surrounding make or a person's shell must not smuggle into the build of a suite.
_FOREIGN = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "OUTPUT", "CFLAGS", "LLVM")
_CROSS = {"arm64": "aarch64-linux-gnu-"}
_HOST_ARCH = {"aarch64": "arm64"}
_KBUILD_ARCH = {"riscv64": "riscv"}

_ERROR_LINE = re.compile(
    r"^(?P<file>[^\s:]+):(?P<line>\d+)(?::\d+)?: (?:fatal )?error: (?P<what>.+)$", re.MULTILINE
)
_LINK_LINE = re.compile(
    r"^(?:\S*ld: )?(?:(?P<file>[^\s:(]+):?\(\.text[^)]*\): )?"
    r"(?P<what>(?:undefined reference to|multiple definition of|cannot find) .+)$",
    re.MULTILINE,
)
_MAKE_LINE = re.compile(
    r"^(?:make(?:\[\d+\])?: \*\*\*|\S+:\d+: \*\*\*) (?P<what>.+)$", re.MULTILINE
)


@dataclass(frozen=True)
class Suite:
    """A directory of guest programs as kselftest knows it.

    name: what verdicts call it, unique within a run. config: Kconfig fragment of the symbols it
    needs, or None. timeout_s: wall seconds each program may take on a machine of slowdown 1.
    case_timeout_s: as many from one result of it to the next, 0 for no such limit.
    target: where it lies below tools/testing/selftests of its own kernel tree, "" for all others.
    levels: how far above it its Makefile looks for lib.mk. env: what its programs find in their
    environment beside what all do. cases: (program, case): only these, and of a program, which may
    be said with its suite (abi/inline), only these cases, or all for ""; () for everything. It has
    to know of cases, as a program with the kernel's own harness does. link: object files that each
    compiled program gets linked into it.
    """

    name: str
    directory: Path
    config: Path | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    case_timeout_s: float = 0.0
    target: str = ""
    levels: int = 1
    env: tuple[tuple[str, str], ...] = ()
    cases: tuple[tuple[str, str], ...] = ()
    link: tuple[Path, ...] = ()

    @property
    def place(self) -> str:
        """Where it is staged below tools/testing/selftests, and lies below its guest directory."""
        return self.target or "/".join(["suites"] * (self.levels - 1) + [self.directory.name])


@dataclass(frozen=True)
class Program:
    """One program of a suite; argv is relative to the suite's directory in the guest."""

    suite: str
    name: str
    argv: tuple[str, ...]
    timeout_s: float
    case_timeout_s: float = 0.0
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class BuiltSuite:
    """A suite made ready for a guest.

    directory: what is put into the guest; programs run in `workdir` below it.
    """

    suite: Suite
    directory: Path
    workdir: str
    programs: tuple[Program, ...]


def is_suite(directory: Path) -> bool:
    """Whether a directory is kselftest-shaped: a Makefile that names programs and has lib.mk."""
    return not _why_not(directory)


def discover(directory: Path) -> Suite:
    """Read a suite's directory; UsageError, with what to do, when it is not of that shape."""
    place = directory.absolute()
    if not place.is_dir():
        raise UsageError(f"{directory} is not a directory", hint="give a suite's directory")
    reason = _why_not(place)
    if reason:
        raise UsageError(f"{directory} is not a test suite: {reason}", hint=_shape_hint(place))
    _check_links(place)
    config = place / "config"
    return Suite(
        name=place.name,
        directory=place,
        config=config if config.is_file() else None,
        timeout_s=_timeout(place / "settings"),
        case_timeout_s=_seconds(place / "settings", "case_timeout") or 0.0,
        target=_target(place),
        levels=_levels(place),
    )


def distinct(suites: Sequence[Suite]) -> tuple[Suite, ...]:
    """The suites, once each, under names that tell them apart: parents are added where needed."""
    unique = tuple({suite.directory: suite for suite in suites}.values())
    return tuple(replace(suite, name=_short_name(suite, unique)) for suite in unique)


def programs(suite: Suite) -> tuple[Program, ...]:
    """A suite's programs in its own order, as make lists them; no kernel tree is needed.

    Raises UsageError when make cannot read the Makefile or it lists nothing.
    """
    with tempfile.TemporaryDirectory(prefix="rig-list-") as temporary:
        top = Path(temporary)
        _stage_for_listing(suite, top)
        names = _listed(suite, top / SELFTESTS / suite.place, _environment({}))
    if not names:
        raise UsageError(
            f"{suite.directory}/Makefile names no program to run",
            hint="set TEST_GEN_PROGS (compiled) or TEST_PROGS (scripts) above the include",
        )
    return _as_programs(suite, names)


def compile(suite: Suite, kernel: Kernel, store: Store, progress: Progress = QUIET) -> BuiltSuite:
    """Compile a suite against the kernel's own headers, or take it from the store.

    It is staged where it would lie in the kernel's tree, so the tree's lib.mk, kselftest.h and
    everything else above it are found unchanged. Raises BuildError naming file and line.
    """
    prefix = _cross_prefix(kernel.arch)
    key = _key(suite, kernel, prefix)
    if store.entry("suites", key) is None:
        progress.stage(f"compile suite {suite.name}")
    entry = store.publish(
        "suites",
        key,
        lambda entry: _make(suite, kernel, prefix, store.scratch("suite-stages", key), entry),
    )
    names = json.loads((entry / "programs.json").read_bytes())
    return BuiltSuite(suite, entry / "root", suite.place, _as_programs(suite, names))


# -- what a directory is -----------------------------------------------------------------------


def _why_not(directory: Path) -> str:
    """Why a directory is no suite, or ""."""
    makefile = directory / "Makefile"
    try:
        text = makefile.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "it has no Makefile"
    if not _INCLUDES_LIB.search(text):
        return "its Makefile does not `include ../lib.mk`"
    if not _NAMES_PROGRAMS.search(text):
        return "its Makefile names no TEST_GEN_PROGS and no TEST_PROGS"
    return ""


def _shape_hint(directory: Path) -> str:
    """A Makefile to start with when the directory has sources, else where to look."""
    sources = sorted(path.stem for path in directory.glob("*.c"))
    scripts = sorted(path.name for pattern in ("*.py", "*.sh") for path in directory.glob(pattern))
    if not sources and not scripts:
        inner = sorted(path.name for path in directory.iterdir() if is_suite(path))
        return f"suites inside it: {', '.join(inner)}" if inner else "see docs on adding a suite"
    makefile = _MAKEFILE.format(programs=" ".join(sources), scripts=" ".join(scripts))
    return f"this Makefile would make it one:\n{makefile}"


def _check_links(place: Path) -> None:
    """UsageError for a link that leaves the suite, unless it leads to a file: that is copied."""
    for relative in _files(place):
        path = place / relative
        if path.is_symlink() and not path.is_file() and not _stays(path, place):
            raise UsageError(
                f"{path} is a link that leaves its suite: {path.readlink()}",
                hint="a suite must be whole: put what the link leads to into its directory",
            )


def _stays(path: Path, place: Path) -> bool:
    """Whether a link means the same thing in a copy of the whole suite."""
    target = Path(os.path.realpath(path))  # Path.resolve raises on a loop
    return not path.readlink().is_absolute() and target.is_relative_to(place.resolve())


def _timeout(settings: Path) -> float:
    """`timeout=SECONDS` of a kselftest settings file."""
    seconds = _seconds(settings, "timeout")
    return DEFAULT_TIMEOUT_S if seconds is None else seconds or UNLIMITED_TIMEOUT_S


def _seconds(settings: Path, wanted: str) -> float | None:
    """The last `wanted=SECONDS` of a settings file."""
    seconds = None
    text = settings.read_text(encoding="utf-8", errors="replace") if settings.is_file() else ""
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if name.strip() != wanted:
            continue
        if not value.strip().isdigit():
            raise UsageError(f"{settings}: {wanted} is {value.strip()!r}", hint="whole seconds")
        seconds = float(value)
    return seconds


def _target(place: Path) -> str:
    """Where a suite lies in a kernel tree of its own: "net/forwarding", or ""."""
    for parent in place.parents:
        if parent.as_posix().endswith(f"/{SELFTESTS}") and (parent / "lib.mk").is_file():
            return place.relative_to(parent).as_posix()
    return ""


def _levels(place: Path) -> int:
    """2 for a Makefile that includes ../../lib.mk."""
    match = _INCLUDES_LIB.search((place / "Makefile").read_text(errors="replace"))
    return max(1, match[1].count("../")) if match else 1


def _short_name(suite: Suite, among: Sequence[Suite]) -> str:
    """The shortest tail of the suite's path that no other suite ends with."""
    parts = suite.directory.parts
    tails = [other.directory.parts for other in among if other is not suite]
    start = len(Path(suite.target or suite.directory.name).parts)
    for length in range(start, len(parts)):
        if not any(other[-length:] == parts[-length:] for other in tails):
            return "/".join(parts[-length:])
    return suite.directory.as_posix()


# -- asking make -------------------------------------------------------------------------------


def _stage_for_listing(suite: Suite, top: Path) -> None:
    """Links that make `include ../lib.mk` and paths into the tree work for reading."""
    if suite.target:
        depth = len(Path(suite.target).parts) + len(SELFTESTS.parts)
        _mirror(suite.directory.parents[depth - 1], top, SELFTESTS / suite.target)
    stage = top / SELFTESTS / suite.place
    stage.mkdir(parents=True, exist_ok=True)
    if not suite.target:
        (top / SELFTESTS / "lib.mk").write_text(_LISTING_LIB)
    for entry in suite.directory.iterdir():
        (stage / entry.name).symlink_to(entry)


def _listed(suite: Suite, stage: Path, environment: Mapping[str, str]) -> list[str]:
    """Program names from `make emit_tests`, which prints COLLECTION:NAME lines."""
    collection = "rig-program"
    done = process.run(
        ["make", "-s", "--no-print-directory", f"COLLECTION={collection}", "emit_tests"],
        cwd=stage,
        env=environment,
        timeout_s=60,
        check=False,
    )
    if done.returncode != 0:
        raise UsageError(
            f"make cannot list the programs of {suite.directory}: {_first_error(done.output)[2]}",
            output=done.output[-4000:],
            reproduce=f"make -C {shlex.quote(str(suite.directory))} emit_tests",
        )
    mark = f"{collection}:"
    names = (line.removeprefix(mark) for line in done.output.splitlines() if line.startswith(mark))
    return list(dict.fromkeys(name for name in names if name))


def _as_programs(suite: Suite, names: Sequence[str]) -> tuple[Program, ...]:
    shared = suite.timeout_s, suite.case_timeout_s, suite.env

    def argv(name: str) -> tuple[str, ...]:
        # As kselftest_harness.h has it: a name alone, or fixture.variant.name.
        only = [case for program, case in suite.cases if case and program in said[name]]
        return (f"./{name}", *(w for case in only for w in ("-r" if "." in case else "-t", case)))

    wanted = {program for program, _ in suite.cases}
    said = {name: {name, f"{suite.name}/{name}"} for name in names}
    chosen = [name for name in names if not wanted or said[name] & wanted]
    return tuple(Program(suite.name, name, argv(name), *shared) for name in chosen)


# -- compiling ---------------------------------------------------------------------------------


def _key(suite: Suite, kernel: Kernel, prefix: str) -> str:
    """Names the result: recipe, every file of the suite, what it sees of the kernel, compiler."""
    version = kernel.facts.get("compiler") or _compiler(prefix)
    parts: list[str | Path] = [_RECIPE, kernel.arch, *_seen(suite, kernel), version, suite.place]
    for relative in _files(suite.directory):
        path = suite.directory / relative
        parts.append(f"{relative} {path.lstat().st_mode:o}")
        parts.append(str(path.readlink()) if path.is_symlink() else path)
        if path.is_symlink() and path.is_file():
            parts.append(path)
    return digest(*parts, *suite.link)


def _compiler(prefix: str) -> str:
    return process.run([f"{prefix}gcc", "--version"], timeout_s=30).output.splitlines()[0]


def _sees_all(suite: Suite, kernel: Kernel) -> bool:
    """Whether the whole tree is staged around a suite."""
    return bool(suite.target) or not set(_SEEN) <= kernel.parts.keys()


def _seen(suite: Suite, kernel: Kernel) -> list[str]:
    """A hash of each thing of the kernel that is staged."""
    if _sees_all(suite, kernel):
        return [kernel.key]
    return [kernel.headers_digest, *(kernel.parts[name] for name in _SEEN)]


def _files(directory: Path) -> Iterator[Path]:
    """A suite's files and links, sorted, relative; what a build or an editor left is not its."""
    for root, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if name not in ("__pycache__", ".git"))
        linked = [name for name in folders if (Path(root) / name).is_symlink()]
        for name in sorted([*names, *linked]):
            path = Path(root) / name
            regular = path.is_symlink() or path.is_file()
            if regular and not name.endswith((".o", ".pyc", "~", ".swp")):
                yield path.relative_to(directory)


def _make(suite: Suite, kernel: Kernel, prefix: str, work: Path, entry: Path) -> None:
    """Stage in work, compile, install into entry/root and list the programs beside it.

    work goes when it is done; after a failure it stays, for the line that shows it again.
    """
    top, root = work / "tree", entry / "root"
    if top.exists():
        shutil.rmtree(top)
    _stage_for_compiling(suite, kernel, top)
    stage = top / SELFTESTS / suite.place
    # What a compiler that is ended leaves half made goes with the rest of it.
    temporary = work / "tmp"
    temporary.mkdir(exist_ok=True)
    environment = _build_environment(kernel, prefix, suite.link) | {"TMPDIR": str(temporary)}
    installing = ["-j", str(os.cpu_count() or 1), *_make_arguments(suite, kernel, top, root)]
    try:
        _run_make(suite, stage, installing, environment)
    except BuildError:
        if not suite.target:
            raise
        # Some of the tree's own programs cannot be linked statically (exec, timers).
        environment = environment | {"LDFLAGS": shlex.join(map(str, suite.link))}
        _run_make(suite, stage, installing, environment)
    names = _listed(suite, stage, environment)
    helpers = kernel.tree / SELFTESTS / "kselftest"
    if helpers.is_dir() and not (root / "kselftest").exists():
        shutil.copytree(helpers, root / "kselftest")
    _check_programs(suite, root / suite.place, names)
    (entry / "programs.json").write_text(json.dumps(names))
    shutil.rmtree(work)


def _stage_for_compiling(suite: Suite, kernel: Kernel, top: Path) -> None:
    """The kernel's tree by links, with a real copy of the suite and the kernel's headers in it."""
    _mirror(kernel.tree, top, SELFTESTS / suite.place)
    if not _sees_all(suite, kernel):
        for entry in [entry for entry in top.iterdir() if entry.name not in _SEEN]:
            entry.unlink()
    usr = top / "usr"
    if usr.is_symlink():
        usr.unlink()
        _mirror(kernel.tree / "usr", usr, Path("include"))
        (usr / "include").rmdir()
    usr.mkdir(exist_ok=True)
    (usr / "include").symlink_to(kernel.headers / "include")
    stage = top / SELFTESTS / suite.place
    for relative in _files(suite.directory):
        target = stage / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        source = suite.directory / relative
        kept = source.is_symlink() and _stays(source, suite.directory)
        shutil.copy2(source, target, follow_symlinks=not kept)


def _mirror(source: Path, target: Path, way: Path) -> None:
    """target like source by links, but with real directories along `way`, the last one empty."""
    target.mkdir(parents=True, exist_ok=True)
    first, *rest = way.parts
    if source.is_dir():
        for entry in source.iterdir():
            if entry.name not in (first, ".git"):
                (target / entry.name).symlink_to(entry)
    if rest:
        _mirror(source / first, target / first, Path(*rest))
    else:
        (target / first).mkdir()


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    return {**kept, "LC_ALL": "C", **extra}


def _build_environment(kernel: Kernel, prefix: str, link: Sequence[Path] = ()) -> dict[str, str]:
    """The build's environment. LDFLAGS is in it, and not on the command line, so that a Makefile
    may add to it.

    Static, because the guest's C library need not be the host's. C_INCLUDE_PATH serves Makefiles
    that do not mention KHDR_INCLUDES.
    """
    include = str(kernel.headers / "include")
    flags = shlex.join(["-static", *map(str, link)])
    variables = {"LDFLAGS": flags, "C_INCLUDE_PATH": include, "CPLUS_INCLUDE_PATH": include}
    if prefix:
        variables["CROSS_COMPILE"] = prefix
        variables["ARCH"] = _KBUILD_ARCH.get(kernel.arch, kernel.arch)
    return _environment(variables)


def _make_arguments(suite: Suite, kernel: Kernel, top: Path, root: Path) -> list[str]:
    """lib.mk's `install` target with the variables tools/testing/selftests/Makefile gives it."""
    return [
        f"KHDR_INCLUDES=-isystem {kernel.headers / 'include'}",
        f"SRC_PATH={top / SELFTESTS}",
        f"OBJ_PATH={root}",
        f"INSTALL_PATH={root / suite.place}",
        "install",
    ]


def _cross_prefix(arch: str) -> str:
    host = platform.machine()
    return "" if arch == _HOST_ARCH.get(host, host) else _CROSS.get(arch, f"{arch}-linux-gnu-")


def _run_make(
    suite: Suite, stage: Path, arguments: list[str], environment: Mapping[str, str]
) -> None:
    """`make clean`, lest something built in the suite's directory for another kernel stays, and
    then make with the arguments."""
    make = ["make", "--no-print-directory", "-C", str(stage)]
    for argv in ([*make, "clean"], [*make, *arguments]):
        done = process.run(argv, env=environment, timeout_s=900, check=False)
        if done.returncode != 0:
            raise _build_error(suite, stage, done, _shell_line(argv, environment))


def _build_error(suite: Suite, stage: Path, done: process.Completed, again: str) -> BuildError:
    file, line, what = _first_error(done.output)
    source = _original(file, stage, suite)
    where = f"{source}:{line}: " if line else (f"{source}: " if file else "")
    return BuildError(
        f"suite {suite.name} does not compile: {where}{what}",
        hint=_build_hint(what),
        output=done.output[-4000:].replace(f"{stage}/", f"{suite.directory}/"),
        reproduce=again,
    )


def _build_hint(what: str) -> str:
    if match := re.match(r"cannot find -l(\w+)", what):
        return f"install the development files of lib{match[1]} (Debian: lib{match[1]}-dev)"
    return "it is compiled against the headers of the kernel under test"


def _shell_line(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    shown = ("LDFLAGS", "C_INCLUDE_PATH", "CROSS_COMPILE", "ARCH")
    given = [f"{name}={shlex.quote(environment[name])}" for name in shown if name in environment]
    kept = [word for word in argv if not word.startswith(("INSTALL_PATH=", "OBJ_PATH="))]
    return " ".join([*given, shlex.join("all" if word == "install" else word for word in kept)])


def _first_error(output: str) -> tuple[str, str, str]:
    """File, line and words of the first error in a compiler's or make's output."""
    if match := _ERROR_LINE.search(output):
        return match["file"], match["line"], match["what"]
    if match := _LINK_LINE.search(output):
        return match["file"] or "", "", match["what"]
    match = _MAKE_LINE.search(output)
    return "", "", match["what"] if match else "make failed"


def _original(file: str, stage: Path, suite: Suite) -> str:
    """The suite's own file for a staged one."""
    staged = suite.directory / file.removeprefix(f"{stage}/")
    return str(staged) if file and staged.is_file() else file


def _check_programs(suite: Suite, installed: Path, names: Sequence[str]) -> None:
    """Every program named must have come out; scripts are made executable as kselftest does."""
    for name in names:
        path = installed / name
        if not path.is_file():
            raise BuildError(
                f"suite {suite.name}: make succeeded but made no {name}",
                hint="`make install` installs TEST_GEN_PROGS, TEST_CUSTOM_PROGS and TEST_PROGS",
            )
        if not os.access(path, os.X_OK) and path.read_bytes()[:2] == b"#!":
            path.chmod(path.stat().st_mode | 0o111)
