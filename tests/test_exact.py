"""The exact machine: what it is told, what its files mean, that it is exact on a real kernel."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rig import exact, explain, initramfs
from rig.config import Config, KernelConfig
from rig.errors import (
    BootError,
    BuildError,
    CrashError,
    InfrastructureError,
    LostMachineError,
    RigError,
    UsageError,
)
from rig.exact import DifferenceError, Figure, ProgramFailedError, Ran, Request
from rig.explain import WHOLE, Change, Explanation
from rig.machine import exact as machine
from rig.machine.exact import ExactPlan
from rig.profile import ASLEEP, USER, Symbols, Window
from rig.store import Store

ROOT = Path(__file__).parents[1]
BENCH = ROOT / "guest-tests/bench"

PLAN = ExactPlan(
    cpus=2,
    seed=7,
    kernel=Path("/k/vmlinux.boot"),
    initramfs=Path("/r/initramfs"),
    append="console=ttyS0",
    output=Path("/r"),
)


# -- what it is told ----------------------------------------------------------------------------


def test_the_whole_command_line() -> None:
    sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    assert machine.command_line(PLAN) == [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-no-reboot", "-action", "panic=none", "-sandbox", sandbox),
        *("-accel", "tcg,thread=single,tb-size=512", "-icount", "shift=0,sleep=off"),
        *("-seed", "7", "-rtc", "base=2026-01-01T00:00:00,clock=vm"),
        *("-machine", "microvm,acpi=on,pit=off,pic=off,rtc=on,auto-kernel-cmdline=off"),
        *("-cpu", "max,-erms,-fsrm,-rdrand,-rdseed"),
        *("-smp", "cpus=2,sockets=1,cores=2,threads=1", "-m", "512"),
        *("-kernel", "/k/vmlinux.boot", "-initrd", "/r/initramfs", "-append", "console=ttyS0"),
        *("-chardev", "file,id=console,path=/r/console.log", "-serial", "chardev:console"),
        *("-device", "virtio-serial-device"),
        *("-chardev", "file,id=stdout,path=/r/stdout"),
        *("-device", "virtserialport,chardev=stdout,name=stdout,nr=1"),
        *("-chardev", "file,id=stderr,path=/r/stderr"),
        *("-device", "virtserialport,chardev=stderr,name=stderr,nr=2"),
        *("-chardev", "file,id=verdict,path=/r/verdict"),
        *("-device", "virtserialport,chardev=verdict,name=verdict,nr=3"),
    ]


def test_watching_adds_only_the_plugin_and_the_log() -> None:
    watched = machine.command_line(replace(PLAN, plugin=Path("/s/a,b/count")))
    assert watched == [
        *machine.command_line(PLAN),
        *("-plugin", "/s/a,,b/count", "-d", "plugin,int"),
    ]


def test_the_kernel_is_told_its_frequency() -> None:
    words = machine.kernel_command_line({"HZ": "1000"}, append="quiet a=1").split()
    assert "tsc_early_khz=1000000" in words
    assert "lpj=1000000" in words
    assert "lpj=4000000" in machine.kernel_command_line({}).split()
    assert words[-2:] == ["quiet", "a=1"]
    assert not any(word.startswith("brd.") for word in words)
    assert "brd.rd_size=32768" in machine.kernel_command_line({}, ram_disk_mib=32).split()


def test_a_seed_moves_the_start_by_less_than_a_tick() -> None:
    skips = {exact.skip_of(seed) for seed in range(1, 51)}
    assert len(skips) == 50
    assert all(0 <= skip < 4_000_000 for skip in skips)
    assert exact.skip_of(1) == 3_255_403
    assert exact.skip_of(0) == 0


# -- what is refused before a boot --------------------------------------------------------------


@pytest.fixture
def static(tmp_path: Path) -> Path:
    return compiled(tmp_path / "static", "int main(void) { return 0; }\n")


def compiled(program: Path, text: str, *flags: str) -> Path:
    source = program.with_suffix(".c")
    source.write_text(text)
    words = ["gcc", "-O2", *(flags or ("-static",)), "-I", str(ROOT / initramfs.RECIPE)]
    subprocess.run([*words, "-o", program, source], check=True)
    return program


def test_a_program_that_cannot_run_there(tmp_path: Path, static: Path) -> None:
    dynamic = compiled(tmp_path / "dynamic", "int main(void) { return 0; }\n", "-O1")
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    for path, words in (
        (dynamic, "dynamically linked"),
        (script, "not an ELF program"),
        (tmp_path / "absent", "No such file"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(UsageError, match=words):
            initramfs.load_program(path, "x86_64")
    with pytest.raises(UsageError, match="is for x86_64, the kernel for arm64"):
        initramfs.load_program(static, "arm64")
    assert initramfs.load_program(static, "x86_64") == static.read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cpus": 0}, "--cpus 0"),
        ({"cpus": 9}, "--cpus 9"),
        ({"seed": -1}, "--seed -1"),
        ({"timeout_s": 0}, "--timeout 0"),
        ({"files": ("a=/etc/x",)}, "not a place below"),
        ({"files": ("a=../x",)}, "not a place below"),
        ({"files": ("absent",)}, "cannot read the file absent"),
    ],
)
def test_a_request_that_cannot_be(
    rig_config: Config, tmp_path: Path, static: Path, change: dict[str, object], words: str
) -> None:
    request = replace(Request(argv=(str(static),)), **change)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=words):
        exact.prepare(request, rig_config, rig_config.kernel(), Store(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_a_kernel_of_another_architecture(rig_config: Config, tmp_path: Path) -> None:
    kernel = KernelConfig("other", arch="arm64")
    with pytest.raises(UsageError, match="for arm64"):
        exact.prepare(Request(argv=("x",)), rig_config, kernel, Store(tmp_path))


def test_a_c_file_that_does_not_compile(tmp_path: Path) -> None:
    source = tmp_path / "bad.c"
    source.write_text("int main(void) { return nothing; }\n")
    with pytest.raises(BuildError, match=r"bad\.c does not compile") as caught:
        initramfs.compile_program(source, tmp_path / "out", tmp_path, ROOT)
    assert "nothing" in caught.value.output
    assert caught.value.reproduce.startswith("gcc ")


def test_files_lie_beside_the_program(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    wishes = [str(tmp_path / "one"), f"{tmp_path / 'one'}=deep/two"]
    assert initramfs.load_files(wishes) == {"one": b"1", "deep/two": b"1"}
    with pytest.raises(UsageError, match="there is a one already"):
        initramfs.load_files([wishes[0], wishes[0]])


def test_the_archive_is_the_same_from_another_store(tmp_path: Path, static: Path) -> None:
    guest = initramfs.Guest(("./p", "a"), static.read_bytes(), {}, 5, 0, 10, ext4=True)
    one = initramfs.archive(guest, ROOT, Store(tmp_path / "one"))
    assert one == initramfs.archive(guest, ROOT, Store(tmp_path / "two"))
    assert one != initramfs.archive(replace(guest, skip=6), ROOT, Store(tmp_path / "one"))
    assert len(one) < 8 << 20


def test_numbered_blocks_leave_out_what_is_empty() -> None:
    full = b"x" * 4096
    assert initramfs.numbered_blocks(bytes(4096) + full + bytes(4096)) == (
        b"\x01" + bytes(7) + full
    )


# -- what came out ------------------------------------------------------------------------------

END = b"[    0.1][    T1] rig: exact: end\r\n[    0.1][    T1] reboot: Power down\r\n"
GOOD = b"exact 1\nclock 77\nexit 3\nend\n"


def streams(verdict: bytes, console: bytes = END) -> dict[str, bytes]:
    return {"stdout": b"", "stderr": b"", "verdict": verdict, "console.log": console}


@pytest.mark.parametrize(
    ("verdict", "console", "hung", "kind", "words"),
    [
        (b"", b"[    0.0][    T0] Linux version\r\n", False, BootError, "ended before"),
        (b"", b"", True, BootError, "hung before"),
        (b"exact 1\n", END, True, LostMachineError, "hung"),
        (b"exact 1\nclock 7\nexit 0\n", END, False, LostMachineError, "went away"),
        (GOOD, END.replace(b"exact: end", b"exact: en"), False, LostMachineError, "went away"),
    ],
)
def test_a_machine_that_did_not_end_properly(
    verdict: bytes, console: bytes, hung: bool, kind: type[RigError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        exact._judge_machine(PLAN, streams(verdict, console), hung)


def test_a_splat_comes_before_all_else() -> None:
    panic = b"[    1.000000][    T1] Kernel panic - not syncing: Attempted to kill init!\r\n"
    for verdict in (GOOD, b""):
        with pytest.raises(CrashError, match=r"the kernel reported: .*panic"):
            exact._judge_machine(PLAN, streams(verdict, panic + END), False)


def test_a_good_end_and_the_program_s_own() -> None:
    exact._judge_machine(PLAN, streams(GOOD), False)
    assert exact._judge_program(PLAN, exact.verdict(GOOD)) == (3, 77)
    killed = exact.verdict(b"exact 1\nclock 5\nsignal 11\nend\n")
    assert exact._judge_program(PLAN, killed) == (139, 5)


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        (b"timeout\n", ProgramFailedError, "did not end in its time"),
        (b"leftover\nexit 0\n", ProgramFailedError, "left tasks"),
        (b"error /dev/ram0: No such file\n", InfrastructureError, "/dev/ram0"),
    ],
)
def test_a_bad_end_of_the_program(line: bytes, kind: type[RigError], words: str) -> None:
    with pytest.raises(kind, match=words):
        exact._judge_program(PLAN, exact.verdict(b"exact 1\nclock 5\n" + line + b"end\n"))


def test_figures_are_lines_of_json() -> None:
    said = (
        b'{"name": "a", "value": 7, "unit": "instructions", "window": 2}\n'
        b"words\n{}\n{not json\n"
        b'{"name": "b", "value": 1.5, "unit": "ns"}\n{"name": "c", "value": "7", "unit": "x"}\n'
    )
    found = exact.figures(said)
    assert found == (Figure("a", 7, "instructions", 2), Figure("b", 1.5, "ns"))
    assert exact._unit_notices(found) == (
        "b is given in ns: on this machine that is a number of instructions",
    )


def test_the_first_difference_is_named() -> None:
    one = Ran(0, {**streams(GOOD), "stdout": b"a\nb\nc\n"}, 7, 1.0)
    two = replace(one, streams={**one.streams, "stdout": b"a\nB\nc\n"})
    exact.check_same(one, one, "run 2", Path("/r"))
    with pytest.raises(DifferenceError, match="run 2 is not the first run: stdout, line 2") as seen:
        exact.check_same(one, two, "run 2", Path("/r"))
    assert seen.value.output == "first: b\nother: B"
    assert exact.first_difference(b"a\n", b"a\nb\n") == (2, b"", b"b")


# -- the explanation ----------------------------------------------------------------------------

SYMBOLS = Symbols("ffffffff81000000 T f\nffffffff81000010 T g\nffffffff81000020 T _etext\n")
F, G = 0xFFFFFFFF81000000, 0xFFFFFFFF81000010


def ran(value: int, clock: int) -> Ran:
    return Ran(0, {}, clock, 1.0, (Figure("open", value, "instructions", 1),))


def test_what_is_measured_is_what_is_counted() -> None:
    windows = [Window(False, {F: 5, 0: 2}, 0), Window(True, {F: 9, 0: 2}, 0)]
    inner, whole = explain.pieces(windows, ran(7, 11), SYMBOLS)
    assert (inner.name, inner.measured, inner.functions) == ("open", 7, {"f": 5, USER: 2})
    assert (whole.name, whole.measured, whole.fault) == (WHOLE, 11, "")
    wrong, _ = explain.pieces(windows, ran(8, 11), SYMBOLS)
    assert wrong.fault == "8 measured, 7 counted"


def test_only_a_machine_that_halted_can_have_slept() -> None:
    windows = [Window(False, {F: 5}, 1)]
    (slept,) = explain.pieces(windows, ran(25, 0), SYMBOLS)
    assert slept.functions == {"f": 5, ASLEEP: 20}
    (never,) = explain.pieces(windows, ran(4, 0), SYMBOLS)
    assert never.fault


def test_the_two_sides_are_put_together() -> None:
    one = [explain.Piece("open", 7, {"f": 5, "g": 2})]
    two = [explain.Piece("open", 9, {"f": 5, "g": 3}, "9 measured, 8 counted")]
    (change,) = explain.changes(("a", "b"), one, two)
    assert change == Change("open", 7, 9, (("g", 1),), ("on b: 9 measured, 8 counted",))
    assert not change.sound
    with pytest.raises(DifferenceError, match="the same things") as caught:
        explain.changes(("a", "b"), one, [*one, *two])
    assert caught.value.output == "open | open\n- | open"


def test_of_other_windows_those_with_a_figure_are_put_together() -> None:
    def side(*names: str) -> list[explain.Piece]:
        return [explain.Piece(name, number, {}) for number, name in enumerate(names)]

    one = side("window 1", "open", "read", "twice", "twice", "whole program")
    two = side("read", "window 1", "window 2", "open", "twice", "stat", "whole program")
    before, after = explain.shared(one, two)
    assert [piece.name for piece in before] == ["open", "read", "whole program"]
    assert [(piece.name, piece.measured) for piece in after] == [
        ("open", 3),
        ("read", 0),
        ("whole program", 6),
    ]


def test_the_text_of_an_explanation() -> None:
    change = Change("open", 100, 107, (("g", 9), ("f", -2)))
    wrong = Change("read", 5, 9, (("f", 1),), ("on b: 9 measured, 8 counted",))
    same = Change("close", 3, 3, ())
    found = Explanation(("a", "b"), (change, change, same, wrong), ({}, {}))
    assert explain.render(found) == (
        "a -> b, instructions\n\n"
        "open: 100 -> 107 (+7), 2 times\n"
        "        +9  g\n"
        "        -2  f\n"
        "        +7  sum, is the difference measured\n\n"
        "close: 3 -> 3 (+0)\n"
        "read: 5 -> 9 (+4)\n"
        "        +1  f\n"
        "        +1  sum, IS NOT the difference measured\n"
        "  NOT SOUND on b: 9 measured, 8 counted\n\n"
    )
    assert not found.sound
    assert Explanation(("a", "b"), (change, same), ({}, {})).sound


# -- for real -----------------------------------------------------------------------------------

Runner = Callable[..., exact.Prepared]


@pytest.fixture
def prepare(rig_config: Config, user_store: Store, tmp_path: Path) -> Runner:
    def prepared(*argv: str | Path, **more: object) -> exact.Prepared:
        wish = Request(argv=tuple(map(str, argv)), results=tmp_path / "results")
        request = replace(wish, **more)  # type: ignore[arg-type]
        return exact.prepare(request, rig_config, rig_config.kernel(), user_store)

    return prepared


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("program", "cpus"), [("fork", 2), ("thread", 2), ("pipe", 2), ("file", 2), ("thread", 1)]
)
def test_three_runs_are_one(prepare: Runner, program: str, cpus: int) -> None:
    seen = exact.repeat(prepare(BENCH / f"{program}.c", cpus=cpus, ext4=program == "file"), 3)
    assert seen.exit_code == 0
    assert len(seen.figures) >= 5
    assert all(one.unit == exact.UNIT and one.value > 0 for one in seen.figures)
    assert sum(one.value for one in seen.figures) < seen.clock
    if program == "file":
        assert any(one.name == "ext4 fsync" for one in seen.figures)


@pytest.mark.kernel
def test_another_seed_is_another_timeline(prepare: Runner) -> None:
    source = BENCH / "pipe.c"
    one, again, two = (exact.run(prepare(source, cpus=2, seed=seed)) for seed in (1, 1, 2))
    exact.check_same(one, again, "the second run", Path("/r"))
    assert one.streams["stdout"] != two.streams["stdout"]
    assert [f.name for f in one.figures] == [f.name for f in two.figures]


CLOCKS = r"""
#include <stdio.h>
#include <time.h>
#include "exact.h"

int main(void)
{
	struct timespec one, two;
	uint64_t start, end;
	int i;

	for (i = 0; i < 2; i++) {
		clock_gettime(CLOCK_MONOTONIC, &one);
		start = exact_clock();
		for (volatile int spin = 0; spin < 1000000; spin++)
			;
		clock_gettime(CLOCK_MONOTONIC, &two);
		end = exact_clock();
	}
	printf("%ld ", (two.tv_sec - one.tv_sec) * 1000000000 + two.tv_nsec - one.tv_nsec);
	printf("%ld\n", (long)(end - start));
	return 0;
}
"""


@pytest.mark.kernel
def test_a_nanosecond_is_an_instruction(prepare: Runner, tmp_path: Path) -> None:
    """Both readings have the way out of clock_gettime once, so they differ by almost nothing."""
    seen = exact.run(prepare(compiled(tmp_path / "clocks", CLOCKS)))
    nanoseconds, instructions = map(int, seen.streams["stdout"].split())
    assert instructions > 1_000_000
    assert abs(nanoseconds - instructions) < 100


ENDS = r"""
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *how = argv[1];

	if (!strcmp(how, "exit"))
		return atoi(argv[2]);
	if (!strcmp(how, "signal"))
		raise(atoi(argv[2]));
	if (!strcmp(how, "spin"))
		for (;;)
			;
	if (!strcmp(how, "forge")) {
		int port = open("/dev/vport0p3", O_WRONLY);

		printf("%d\n", port < 0 ? errno : 0);
		puts("exit 0\nend");
		fprintf(stderr, "to stderr\n");
		return 9;
	}
	if (!strcmp(how, "crash")) {
		int trigger = open("/proc/sysrq-trigger", O_WRONLY);

		return write(trigger, "c", 1) != 1;
	}
	if (!strcmp(how, "leave") && !fork())
		for (;;)
			pause();
	if (!strcmp(how, "cat")) {
		char line[64];
		FILE *file = fopen(argv[2], "r");

		return !file || !fgets(line, sizeof(line), file) || fputs(line, stdout) < 0;
	}
	return 0;
}
"""


@pytest.fixture
def ends(tmp_path: Path) -> Path:
    return compiled(tmp_path / "ends", ENDS)


@pytest.mark.kernel
def test_how_a_program_ends(prepare: Runner, ends: Path) -> None:
    for argv, code in ((("exit", "7"), 7), (("signal", "6"), 134), (("leave",), 0)):
        assert exact.run(prepare(ends, *argv)).exit_code == code
    assert (
        exact.run(prepare(ends, "cat", "f", files=(f"{__file__}=f",)))
        .streams["stdout"]
        .startswith(b'"""The exact machine')
    )


@pytest.mark.kernel
def test_a_program_cannot_speak_for_init(prepare: Runner, ends: Path) -> None:
    seen = exact.run(prepare(ends, "forge"))
    assert seen.streams["stdout"] == b"16\nexit 0\nend\n"  # EBUSY
    assert seen.streams["stderr"] == b"to stderr\n"
    assert seen.exit_code == 9


@pytest.mark.kernel
def test_a_program_that_does_not_end(prepare: Runner, ends: Path) -> None:
    with pytest.raises(ProgramFailedError, match="did not end in its time"):
        exact.run(prepare(ends, "spin", timeout_s=1))


@pytest.mark.kernel
def test_a_panic_is_the_kernel_s(prepare: Runner, ends: Path) -> None:
    with pytest.raises(CrashError, match="panic") as caught:
        exact.run(prepare(ends, "crash"))
    assert "sysrq" in caught.value.output


@pytest.mark.kernel
def test_a_kernel_that_does_not_reach_init(prepare: Runner, ends: Path) -> None:
    prepared = prepare(ends, "exit", "0", append="rdinit=/absent")
    with pytest.raises((BootError, CrashError), match=r"init|panic"):
        exact.run(prepared)


@pytest.mark.kernel
def test_a_machine_that_hangs(prepare: Runner, ends: Path, user_store: Store) -> None:
    plugin = initramfs.plugin(ROOT, user_store)
    prepared = replace(prepare(ends, "exit", "0"), deadline_s=0.2)
    with pytest.raises(BootError, match="hung before its init"):
        exact.run(prepared)
    with pytest.raises(BootError, match="hung before its init"):
        exact.watch(prepared, "watched", plugin, lambda line: None)
    with pytest.raises(InfrastructureError, match="failed with exit code 1") as caught:
        exact.watch(prepared, "absent", Path("/absent"), lambda line: None)
    assert "/absent" in caught.value.output


@pytest.mark.kernel
def test_nothing_changed_is_explained_by_nothing(
    rig_config: Config, user_store: Store, tmp_path: Path
) -> None:
    name = rig_config.kernel().name
    request = Request(argv=(str(BENCH / "syscall.c"),), results=tmp_path)
    found = explain.explain(request, (name, name), rig_config, user_store)
    assert found.sound
    assert [change.name for change in found.changes].count("getppid") == 3
    assert found.changes[-1].name == WHOLE
    assert all(change.before == change.after > 0 for change in found.changes)


@pytest.mark.kernel
def test_the_run_is_recorded(prepare: Runner, ends: Path) -> None:
    prepared = prepare(ends, "exit", "0", seed=5)
    seen = exact.run(prepared)
    saved = json.loads((prepared.directory / exact.FILE_NAME).read_bytes())
    assert saved["machine"]["seed"] == "5"
    assert saved["machine"]["qemu"].startswith("QEMU emulator version")
    assert saved["machine"]["cpu"] == machine.CPU
    assert saved["kernel"]["key"] == prepared.kernel.key
    assert saved["clock"] == seen.clock
    assert shutil.which(saved["machine"]["command"].split()[0])
