"""`rig repro`: one failure of a run as a tarball that shows it again and needs only QEMU."""

from __future__ import annotations

import enum
import itertools
import re
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rig import cpio, decode, elf, process, report, runner, suite
from rig.config import Config
from rig.cpio import Node
from rig.errors import InfrastructureError, RigError, UsageError
from rig.image import Image
from rig.kbuild import Kernel
from rig.lab import open_lab
from rig.machine import plan, qemu
from rig.progress import QUIET, Progress
from rig.results import BOOT_FAILED, Case, Run, Splat, Status, load_run
from rig.suite import BuiltSuite, Program, Suite

INIT = Path("images/repro/init.c")
_BOOT_S = 300  # of a machine that shows it again, to its first process, emulated
_SLOWER = 4  # of a program, emulated
_COMPRESS_S, _MORE_S, _ASKED_S = 900.0, 60.0, 60.0
# What its init says (images/repro/init.c).
_BEGINS, _ENDED = r"rig: repro: begins", r"rig: repro: (exit|signal|timeout|error)"
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")
_ENV = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LC_ALL=C",
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """`rig repro`. directory: of the run. case: suite/program or suite/program::case, "" for the
    first that is not good. output: the tarball, None for one beside the run's files. disk: with the
    image's disk, also where the program alone would do. env: the run's own, for its programs.
    """

    directory: Path
    case: str = ""
    output: Path | None = None
    disk: bool = False
    env: tuple[tuple[str, str], ...] = ()


class Shape(enum.Enum):
    """What a failure looks like from outside."""

    LINE = "a line on the console"
    SILENCE = "a program that does not end, or a machine that says nothing more"
    BOOT = "a kernel that does not come up"


@dataclass(frozen=True)
class Failure:
    """What is to be shown again. splat: None where it is a case by itself. pattern: an extended
    regular expression for the console line that shows it, "" where it is none. blamed: one for a
    line with the function that the splat blames, "" for none.
    """

    case: Case
    splat: Splat | None
    pattern: str
    blamed: str = ""
    shape: Shape = Shape.LINE

    @property
    def title(self) -> str:
        """One line."""
        return self.splat.title if self.splat else f"{self.case.id}: {self.case.message}"


@dataclass(frozen=True)
class Packed:
    """The tarball, and whether its own script has shown the failure again."""

    path: Path
    failure: Failure
    disk: bool
    shown: bool


# -- what is to be shown --------------------------------------------------------------------------


def failure(run: Run, wanted: str) -> Failure:
    """The failure of a run that is named, or its first. UsageError where there is none. Pure."""
    bad = [case for case in run.cases if not case.status.good]
    if wanted:
        named = [case for case in run.cases if wanted in (case.id, f"{case.suite}/{case.program}")]
        if not named:
            known = ", ".join(dict.fromkeys(case.id for case in bad)) or "nothing failed"
            raise UsageError(f"run {run.id} has no case {wanted!r}", hint=known[:500])
        bad = [case for case in named if not case.status.good]
    if not bad:
        raise UsageError(
            f"{wanted or f'run {run.id}'} did not fail: there is nothing to show again"
        )
    case = _telling(bad[0], run)
    why = run.machine.get(BOOT_FAILED, "")
    if why and why in case.message:
        splat = next(iter(run.splats), None)
        return Failure(case, splat, heading(splat) if splat else "", _blamed(splat), Shape.BOOT)
    splat = next((one for one in run.splats if one.title in case.message), None)
    silent = case.status is Status.TIMEOUT and not splat
    shape = Shape.SILENCE if silent else Shape.LINE
    return Failure(case, splat, _pattern(case, splat), _blamed(splat), shape)


def _telling(case: Case, run: Run) -> Case:
    """The same, or of a result that never came what kept it from coming: its program's own case."""
    if case.status is not Status.ERROR or not case.name:
        return case
    own = (
        one
        for one in run.cases
        if (one.suite, one.program, one.name) == (case.suite, case.program, "")
        and not one.status.good
    )
    return next(own, case)


def _pattern(case: Case, splat: Splat | None) -> str:
    if splat:
        return heading(splat)
    if case.status is Status.TIMEOUT:
        return "rig: repro: timeout"
    if case.name:
        # A case within another is set in, and has its own name only.
        names = dict.fromkeys((case.name, case.name.rpartition("/")[2]))
        return rf"^ *not ok [0-9]+ .*({'|'.join(_literal(name) for name in names if name)})"
    return r"rig: repro: (exit [1-9]|signal)"


def _blamed(splat: Splat | None) -> str:
    """The function that a splat blames, as it stands in a trace; "" where there is none."""
    if not splat or not splat.frame:
        return ""
    return rf"(^|[^A-Za-z0-9_]){_literal(splat.frame)}(\.[a-z0-9.]+)?(\+0x|[ ]|$)"


def heading(splat: Splat) -> str:
    """The line that names a splat, as a pattern without stamps, numbers and addresses. Pure."""
    lines = [line for line in splat.text.splitlines() if "cut here" not in line]
    line = re.sub(r"^.*?\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?", "", lines[0] if lines else splat.title)
    parts = re.split(r"(0x[0-9a-f]+|\b[0-9a-f]{8,16}\b|\d+)", line.strip())
    return "".join("[0-9a-fx]+" if n % 2 else _literal(part) for n, part in enumerate(parts))


def _literal(text: str) -> str:
    """For grep -E."""
    return re.sub(r"([][\\.^$*+?(){}|/])", r"\\\1", text)


# -- packing --------------------------------------------------------------------------------------


def pack(request: Request, config: Config, progress: Progress = QUIET) -> Packed:
    """Make the tarball, and let its script show the failure once.

    Where the program with its libraries alone does not show it, the disk goes in too. Raises
    UsageError for a run without a failure, or of a kernel that is not the checkout's any more.
    """
    run = load_run(request.directory / "run.json")
    found = failure(run, request.case)
    kernel_name, machine = run.kernel.get("name", ""), run.machine.get("name", "")
    config.emulated(machine or None)  # a tarball has no board in it
    lab = open_lab(config, config.kernel(kernel_name), machine or None, progress)
    tree = lab.build().tree if _is_of_the_tree(run) else None
    (built,) = lab.prepare((_suite(run, found.case.suite, config, tree),))
    if run.kernel.get("key") not in (None, lab.kernel.key):
        raise UsageError(
            f"run {run.id} is of another kernel {kernel_name} than the checkout makes now",
            hint="check out what it was built from, then again",
        )
    if lab.modules:
        progress.note("notice: this kernel's modules are not in it; what needs one will not show")
    program = _program(built, found.case)
    program = replace(program, env=(*program.env, *request.env))
    output = request.output or request.directory / f"repro-{_slug(found.case.id)}.tar.gz"
    limit_s = _BOOT_S + (0 if found.shape is Shape.BOOT else int(program.timeout_s * _SLOWER))
    # A kernel that does not come up is shown with the disk that it should have come up with.
    for disk in [True] if request.disk or found.shape is Shape.BOOT else [False, True]:
        progress.stage(f"packing {found.case.id}{' with its disk' if disk else ''}")
        _write(output, found, run, lab.kernel, lab.image, built, program, config, disk, limit_s)
        progress.stage(f"showing it again (at most {limit_s} s)")
        if shown := _shows(output, limit_s):
            break
    return Packed(output, found, disk, shown)


def _is_of_the_tree(run: Run) -> bool:
    return "kselftest" in shlex.split(run.command)[:3]


def _suite(run: Run, name: str, config: Config, tree: Path | None) -> Suite:
    """That of a run: of the kernel's tree where it is given, of --tests, or of rig.toml."""
    if tree is not None:
        return runner.selftest(tree / suite.SELFTESTS, name)
    words = shlex.split(run.command)
    places = [Path(value) for option, value in itertools.pairwise(words) if option == "--tests"]
    for one in (suite.discover(place) for place in places):
        if one.name == name:
            return one
    (chosen,) = runner.chosen(runner.Request(suites=(name,)), config)
    return chosen


def _program(built: BuiltSuite, case: Case) -> Program:
    names = {program.name: program for program in built.programs}
    if case.program not in names:
        raise UsageError(f"suite {case.suite} has no program {case.program} any more")
    return names[case.program]


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text)


def _write(
    output: Path,
    found: Failure,
    run: Run,
    kernel: Kernel,
    image: Image,
    built: BuiltSuite,
    program: Program,
    config: Config,
    disk: bool,
    limit_s: int,
) -> None:
    with tempfile.TemporaryDirectory(prefix="rig-repro-") as temporary:
        name = output.name.removesuffix(".tar.gz")
        top = Path(temporary, name)
        top.mkdir()
        shutil.copy2(kernel.boot, top / "kernel")
        shutil.copy2(kernel.config, top / "config")
        if found.shape is not Shape.BOOT:
            archive = cpio.archive(nodes(built, program, config.root, disk))
            (top / "initramfs.cpio").write_bytes(archive)
        if disk:
            into = top / "disk.qcow2"
            words = ["qemu-img", "convert", "-c", "-O", "qcow2", str(image.disk), str(into)]
            process.run(words, timeout_s=_COMPRESS_S)
        splat = _decoded(found.splat, kernel)
        to = _maintainers(splat, kernel)
        for file, text in texts(found, run, splat, disk, limit_s, to).items():
            (top / file).write_text(text, encoding="utf-8")
        (top / "run.sh").chmod(0o755)
        partial = output.with_name(f".{output.name}.partial")
        with tarfile.open(partial, "w:gz", compresslevel=6) as tar:
            tar.add(top, arcname=name)
        partial.rename(output)


def _decoded(splat: Splat | None, kernel: Kernel) -> Splat | None:
    return decode.decode(splat, kernel) if splat and not splat.decoded else splat


def _maintainers(splat: Splat | None, kernel: Kernel) -> tuple[str, ...]:
    """Who has to know of it, by the tree's own get_maintainer.pl; () where that cannot say."""
    script = "scripts/get_maintainer.pl"
    file = splat.place.partition(":")[0] if splat else ""
    if not file or not (kernel.tree / file).is_file() or not (kernel.tree / script).is_file():
        return ()
    words = ["perl", script, "--no-git", "--no-git-fallback", "--no-rolestats", "-f", file]
    done = process.run(words, cwd=kernel.tree, timeout_s=_ASKED_S, check=False, separate=True)
    named = [line.strip() for line in done.output.splitlines() if "@" in line]
    return () if done.returncode else tuple(dict.fromkeys(named))


def nodes(built: BuiltSuite, program: Program, root: Path, disk: bool) -> dict[str, Node]:
    """What lies in the initramfs; of a program without a disk its libraries as well."""
    with tempfile.TemporaryDirectory(prefix="rig-repro-init-") as temporary:
        source = root / INIT
        made = Path(temporary) / "init"
        words: list[str | Path] = ["gcc", "-O2", "-Wall", "-static", "-o", made, source]
        process.run(words, timeout_s=120)
        init = made.read_bytes()
    argv = [*_through_shell(program), *program.argv]
    env = [*_ENV, *(f"{name}={value}" for name, value in program.env)]
    found = {
        "init": cpio.file(init, executable=True),
        "dev/console": cpio.character_device(5, 1),
        "repro/argv": cpio.file(_words(argv)),
        "repro/env": cpio.file(_words(env)),
        "repro/plan": cpio.file(f"{built.workdir}\n{int(program.timeout_s * _SLOWER)}\n".encode()),
    }
    if disk:
        found["repro/disk"] = cpio.file(b"")
    for path in sorted(built.directory.rglob("*")):
        if path.is_file():
            executable = bool(path.stat().st_mode & 0o100)
            inside = path.relative_to(built.directory)
            found[f"suite/{inside}"] = cpio.file(path.read_bytes(), executable=executable)
    if not disk:
        found |= _libraries(built.directory / built.workdir / program.argv[0])
    return found


def _words(words: Sequence[str]) -> bytes:
    return b"".join(word.encode() + b"\0" for word in words)


def _through_shell(program: Program) -> list[str]:
    """execve() looks nowhere for a program: one that is not a path needs somebody who does."""
    return [] if "/" in program.argv[0] else ["/usr/bin/env"]


def _libraries(path: Path) -> dict[str, Node]:
    """What the dynamic loader would load, and itself; nothing for a static program or a script."""
    head = elf.read(path.read_bytes()) if path.is_file() else None
    if head is None or not head.interpreter:
        return {}
    listed = process.run(["ldd", path], timeout_s=30).output
    places = {*_LIBRARY.findall(listed), head.interpreter}
    return {
        place.lstrip("/"): cpio.file(Path(place).read_bytes(), executable=True)
        for place in sorted(places)
    }


# -- its texts ------------------------------------------------------------------------------------


def texts(
    found: Failure,
    run: Run,
    splat: Splat | None,
    disk: bool,
    limit_s: int,
    to: Sequence[str] = (),
) -> dict[str, str]:
    """The files of words in the tarball, by name. Pure."""
    made = {
        "run.sh": script(found, run, disk, limit_s),
        "mail.txt": mail(found, run, splat, to),
        "README.txt": _readme(found, disk),
    }
    if splat:
        made["splat.txt"] = f"{splat.decoded or splat.text}\n"
    return made


def script(found: Failure, run: Run, disk: bool, limit_s: int) -> str:
    """What shows it again: exit code 0 when it has, 1 when it has not, 2 when nothing was run.
    Pure.
    """
    machine = run.machine
    cpus, memory = machine.get("cpus", "2"), machine.get("memory_mib", "1024")
    drive = ["-drive", "file=disk.qcow2,if=none,id=root,snapshot=on", "-device",
             "virtio-blk-pci,drive=root"] if disk else []  # fmt: skip
    words = [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-cpu", "max", "-smp", cpus, "-m", memory),
        *("-device", "virtio-rng-pci", "-serial", "stdio", *drive),
        *("-kernel", "kernel"),
    ]
    if found.shape is Shape.BOOT:  # as it was booted, but with a console from the first moment on
        words += ["-append", f"{machine.get('append', '')} {qemu.EARLY_CONSOLE['x86_64']}"]
    else:
        append = f"console=ttyS0 rdinit=/init {_append(machine)}"
        words += ["-initrd", "initramfs.cpio", "-append", append]
    return "\n".join(
        [
            "#!/bin/sh",
            f"# Shows again: {report.clean(found.title)}",
            f"# It takes {limit_s} s at most. ACCEL=kvm ./run.sh where there is a /dev/kvm; it is",
            "# emulated otherwise.",
            'cd "$(dirname "$0")" || exit 2',
            "command -v qemu-system-x86_64 >/dev/null || {",
            '\techo "there is no qemu-system-x86_64: nothing was run" >&2; exit 2',
            "}",
            f'{{ timeout {limit_s} {shlex.join(words)} -accel "${{ACCEL:-tcg}}" </dev/null',
            "echo \"rig: repro: QEMU ended with $?\"; } | tr -d '\\r' | tee console.log",
            f"if {_condition(found)}; then",
            '\techo "REPRODUCED"',
            "else",
            '\techo "not reproduced"; exit 1',
            "fi",
            "",
        ]
    )


def _condition(found: Failure) -> str:
    """For a shell, on console.log."""

    def seen(pattern: str) -> str:
        return f"grep -qE {shlex.quote(pattern)} console.log"

    cut = seen(r"rig: repro: QEMU ended with 124$")
    if found.shape is Shape.SILENCE:
        quiet = f"{seen(_BEGINS)} && ! {seen(_ENDED)} && {cut}"
        return f"{seen(found.pattern)} || {{ {quiet}; }}"
    # Another bug may have the same heading.
    those = [seen(one) for one in (found.pattern, found.blamed) if one]
    if found.shape is Shape.BOOT:
        # It ended by itself, or did not come as far as it should have.
        late = f"! {seen(_literal(qemu.READY))}"
        those += [late] if found.splat else [late, seen(r"rig: repro: QEMU ended with (0|124)$")]
    return " && ".join(those)


def _append(machine: Mapping[str, str]) -> str:
    """What the kernel was told, but for its console, root and init."""
    own = re.compile(r"(?:console|root|rootfstype|init)=\S+|rw")
    words = machine.get("append", plan.kernel_command_line("tcg")).split()
    return " ".join(word for word in words if not own.fullmatch(word))


def _readme(found: Failure, disk: bool) -> str:
    title = f"{report.clean(found.title)}\n\n./run.sh boots the kernel in QEMU "
    title += "(qemu-system-x86_64, nothing else is needed)"
    root = "the root file system of its guest (disk.qcow2)" if disk else "its libraries alone"
    if found.shape is Shape.BOOT:
        does = f"\nwith {root}.\n"
        shown = (
            "it does not come up, and its console has\n" if found.pattern else "it does not come up"
        )
    else:
        does = f", runs\n{report.clean(found.case.id)} with {root}.\n"
        shown = "the console shows the failure again:\n"
    if found.shape is Shape.SILENCE:
        shown = "that does not end in its time, or the machine says nothing more:\n"
    lines = [line for line in (found.pattern, found.blamed and f"and {found.blamed}") if line]
    listed = "".join(f"\n    {line}" for line in lines)
    tests = "" if found.shape is Shape.BOOT else " initramfs.cpio: init and the test."
    return (
        f"{title}{does}It exits with 0 when {shown}{listed}\nand with 1 when not.\n\n"
        f"kernel, config: what was tested.{tests} mail.txt: a report to be finished by a person.\n"
    )


def mail(found: Failure, run: Run, splat: Splat | None, to: Sequence[str] = ()) -> str:
    """A report for a kernel's list; a person has to finish it. to: addresses. Pure."""
    kernel = run.kernel
    shown = (splat.decoded or splat.text) if splat else found.case.output
    lines = [report.clean(line) for line in shown.splitlines()[:120]]
    place = splat.place.split(":")[0] if splat else ""
    who = f"scripts/get_maintainer.pl{f' -f {place}' if place else ''}"
    addressed = ",\n\t".join(report.clean(one) for one in to)
    what = f"{report.clean(found.case.id)} fails"
    if found.shape is Shape.BOOT:
        what = "The boot fails"
    blame = [f"The line to blame: {report.blame(splat)}", ""] if splat and splat.place else []
    return "\n".join(
        [
            f"Subject: [BUG] {report.clean(found.title)}",
            f"To: {addressed or f'({who})'}",
            "",
            "Hello,",
            "",
            f"{what} on {kernel.get('release', 'this kernel')} "
            f"({kernel.get('arch', 'x86_64')}, {kernel.get('compiler', '')}):",
            "",
            *(f"  {line}" for line in lines),
            "",
            *blame,
            f"Source: {kernel.get('source', '')}",
            f"Patches on top: {kernel.get('series', 'none')}",
            f"Machine: QEMU, {run.machine.get('cpus', '?')} CPUs, "
            f"{run.machine.get('memory_mib', '?')} MiB, {run.machine.get('accelerator', '?')}",
            "",
            "The attached tarball has all that it takes; ./run.sh in it shows the failure again",
            "and needs only QEMU.",
            "",
        ]
    )


def _shows(tarball: Path, limit_s: int) -> bool:
    """Unpack it somewhere else and run its script, as whoever gets it would."""
    with tempfile.TemporaryDirectory(prefix="rig-repro-try-") as temporary:
        with tarfile.open(tarball) as tar:
            tar.extractall(temporary, filter="data")
        (top,) = Path(temporary).iterdir()
        try:
            done = process.run([top / "run.sh"], timeout_s=limit_s + _MORE_S, check=False)
        except RigError as error:
            raise InfrastructureError(f"{tarball}: its script did not end: {error}") from error
        return done.returncode == 0
