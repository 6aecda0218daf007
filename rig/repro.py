"""`rig repro`: one failure of a run as a tarball that shows it again and needs only QEMU."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rig import cpio, decode, elf, process, report, runner, suite
from rig.config import Config
from rig.cpio import Node
from rig.errors import InfrastructureError, RigError, UsageError
from rig.image import Image
from rig.kbuild import Kernel
from rig.lab import open_lab
from rig.machine import plan
from rig.progress import QUIET, Progress
from rig.results import Case, Run, Splat, Status, load_run
from rig.suite import BuiltSuite, Program, Suite

INIT = Path("images/repro/init.c")
_LIMIT_S = 600  # of a machine that shows it again, once; times what emulation costs
_SLOWER = 4
_COMPRESS_S, _RUN_S = 900.0, 3000.0
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
    image's disk, also where the program alone would do.
    """

    directory: Path
    case: str = ""
    output: Path | None = None
    disk: bool = False


@dataclass(frozen=True)
class Failure:
    """What is to be shown again. splat: None where it is a case by itself. pattern: an extended
    regular expression for the console line that shows it. blamed: one for a line with the function
    that the splat blames, "" for none.
    """

    case: Case
    splat: Splat | None
    pattern: str
    blamed: str = ""

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
    case = bad[0]
    splat = next((one for one in run.splats if one.title in case.message), None)
    return Failure(case, splat, _pattern(case, splat), _blamed(splat))


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
    program = _program(built, found.case)
    output = request.output or request.directory / f"repro-{_slug(found.case.id)}.tar.gz"
    for disk in [True] if request.disk else [False, True]:
        progress.stage(f"packing {found.case.id}{' with its disk' if disk else ''}")
        _write(output, found, run, lab.kernel, lab.image, built, program, config, disk)
        progress.stage("showing it again")
        if shown := _shows(output):
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
) -> None:
    with tempfile.TemporaryDirectory(prefix="rig-repro-") as temporary:
        name = output.name.removesuffix(".tar.gz")
        top = Path(temporary, name)
        top.mkdir()
        shutil.copy2(kernel.boot, top / "kernel")
        shutil.copy2(kernel.config, top / "config")
        archive = cpio.archive(nodes(built, program, config.root, disk))
        (top / "initramfs.cpio").write_bytes(archive)
        if disk:
            into = top / "disk.qcow2"
            words = ["qemu-img", "convert", "-c", "-O", "qcow2", str(image.disk), str(into)]
            process.run(words, timeout_s=_COMPRESS_S)
        splat = _decoded(found.splat, kernel)
        for file, text in texts(found, run, splat, disk).items():
            (top / file).write_text(text, encoding="utf-8")
        (top / "run.sh").chmod(0o755)
        partial = output.with_name(f".{output.name}.partial")
        with tarfile.open(partial, "w:gz", compresslevel=6) as tar:
            tar.add(top, arcname=name)
        partial.rename(output)


def _decoded(splat: Splat | None, kernel: Kernel) -> Splat | None:
    return decode.decode(splat, kernel) if splat and not splat.decoded else splat


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


def texts(found: Failure, run: Run, splat: Splat | None, disk: bool) -> dict[str, str]:
    """The files of words in the tarball, by name. Pure."""
    made = {
        "run.sh": script(found, run, disk),
        "mail.txt": mail(found, run, splat),
        "README.txt": _readme(found, disk),
    }
    if splat:
        made["splat.txt"] = f"{splat.decoded or splat.text}\n"
    return made


def script(found: Failure, run: Run, disk: bool) -> str:
    """What shows it again: exit code 0 when it has, 1 when it has not, 2 when nothing was run.
    Pure.
    """
    machine = run.machine
    cpus, memory = machine.get("cpus", "2"), machine.get("memory_mib", "1024")
    append = f"console=ttyS0 rdinit=/init {_append(machine)}"
    drive = ["-drive", "file=disk.qcow2,if=none,id=root,snapshot=on", "-device",
             "virtio-blk-pci,drive=root"] if disk else []  # fmt: skip
    words = [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-cpu", "max", "-smp", cpus, "-m", memory),
        *("-device", "virtio-rng-pci", "-serial", "stdio", *drive),
        *("-kernel", "kernel", "-initrd", "initramfs.cpio", "-append", append),
    ]
    # Another bug may have the same heading.
    blamed = f" && grep -qE {shlex.quote(found.blamed)} console.log" if found.blamed else ""
    return "\n".join(
        [
            "#!/bin/sh",
            f"# Shows again: {report.clean(found.title)}",
            "# ACCEL=kvm ./run.sh where there is a /dev/kvm; it is emulated otherwise.",
            'cd "$(dirname "$0")" || exit 2',
            "command -v qemu-system-x86_64 >/dev/null || {",
            '\techo "there is no qemu-system-x86_64: nothing was run" >&2; exit 2',
            "}",
            f'timeout {_LIMIT_S * _SLOWER} {shlex.join(words)} -accel "${{ACCEL:-tcg}}" </dev/null '
            "| tr -d '\\r' | tee console.log",
            f"if grep -qE {shlex.quote(found.pattern)} console.log{blamed}; then",
            '\techo "REPRODUCED"',
            "else",
            '\techo "not reproduced"; exit 1',
            "fi",
            "",
        ]
    )


def _append(machine: Mapping[str, str]) -> str:
    """What the kernel was told, but for its console, root and init."""
    own = re.compile(r"(?:console|root|rootfstype|init)=\S+|rw")
    words = machine.get("append", plan.kernel_command_line("tcg")).split()
    return " ".join(word for word in words if not own.fullmatch(word))


def _readme(found: Failure, disk: bool) -> str:
    root = "the root file system of its guest (disk.qcow2)" if disk else "its libraries alone"
    return (
        f"{report.clean(found.title)}\n\n"
        "./run.sh boots the kernel in QEMU (qemu-system-x86_64, nothing else is needed), runs\n"
        f"{report.clean(found.case.id)} with {root},\n"
        "and exits with 0 when the console shows the failure again, with 1 when it does not:\n\n"
        f"    {found.pattern}\n"
        + (f"    and {found.blamed}\n\n" if found.blamed else "\n")
        + "kernel, config: what was tested. initramfs.cpio: init and the test. mail.txt: a report\n"
        "to be finished by a person.\n"
    )


def mail(found: Failure, run: Run, splat: Splat | None) -> str:
    """A report for a kernel's list; a person has to finish it. Pure."""
    kernel = run.kernel
    shown = (splat.decoded or splat.text) if splat else found.case.output
    lines = [report.clean(line) for line in shown.splitlines()[:120]]
    place = splat.place.split(":")[0] if splat else ""
    who = f"scripts/get_maintainer.pl{f' -f {place}' if place else ''}"
    blame = [f"The line to blame: {report.blame(splat)}", ""] if splat and splat.place else []
    return "\n".join(
        [
            f"Subject: [BUG] {report.clean(found.title)}",
            f"To: ({who})",
            "",
            "Hello,",
            "",
            f"{report.clean(found.case.id)} fails on {kernel.get('release', 'this kernel')} "
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
            "The attached tarball has kernel, config and test; ./run.sh in it shows the failure",
            "again and needs only QEMU.",
            "",
        ]
    )


def _shows(tarball: Path) -> bool:
    """Unpack it somewhere else and run its script, as whoever gets it would."""
    with tempfile.TemporaryDirectory(prefix="rig-repro-try-") as temporary:
        with tarfile.open(tarball) as tar:
            tar.extractall(temporary, filter="data")
        (top,) = Path(temporary).iterdir()
        try:
            done = process.run([top / "run.sh"], timeout_s=_RUN_S, check=False)
        except RigError as error:
            raise InfrastructureError(f"{tarball}: its script did not end: {error}") from error
        return done.returncode == 0
