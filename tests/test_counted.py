"""The exact set where a CPU counts: what a program's end means, what is laid beside what, and real
counters: those of QEMU's ARM CPU, below Debian's kernel for it."""

from __future__ import annotations

import gzip
import itertools
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import cast

import emulated_bmc
import pytest

from rig import benchset, counted, cpio, initramfs, process, rows, timed
from rig.benchset import ExactEntry
from rig.config import KernelConfig
from rig.counted import Beside, NoCountersError
from rig.errors import CrashError, InfrastructureError, LostMachineError, RigError
from rig.exact import ProgramFailedError
from rig.exactset import Measured
from rig.guest import Guest as RealGuest
from rig.kbuild import Kernel
from rig.lab import KernelLab
from rig.progress import QUIET
from rig.record import Record
from rig.results import Splat
from rig.rows import Row
from rig.store import Store
from rig.suite import BuiltSuite, Program, Suite
from rig.verdict import End, Observation

ROOT = Path(__file__).parents[1]
HEADERS = ROOT / "images/exact"
BENCH = ROOT / "guest-tests/bench"
ENTRY = ExactEntry("file.c 'x y'", ext4=True)
LINE = '{"name": "a", "value": 5, "unit": "counted instructions", "cycles": 9}\n'


def seen(output: str = LINE, end: End = End.EXITED, code: int = 0) -> Observation:
    return Observation(end, exit_code=code, output=output)


def row(name: str, value: float, cycles: float = 1.0) -> Row:
    return Row(name, value, "counted instructions", cycles=cycles)


# -- what runs ------------------------------------------------------------------------------------


def test_the_command_in_the_guest() -> None:
    assert counted.argv_of(ENTRY) == ("sh", "counted.sh", "ext4", "./counted/file", "x y")
    assert counted.argv_of(replace(ENTRY, ext4=False))[2] == "plain"


def test_what_they_want_of_the_kernel_is_said_once() -> None:
    entries = (ENTRY, replace(ENTRY, append="a=1"), ExactEntry("b.c", append="a=1"))
    assert counted.append(entries) == "a=1"
    assert counted.append(()) == ""


def kernel_with(place: Path, *symbols: str) -> Kernel:
    config = place / "config"
    config.write_text("".join(f"CONFIG_{name}=y\n" for name in symbols))
    return Kernel(
        name="k",
        key="",
        directory=place,
        arch="x86_64",
        release="",
        image=place,
        vmlinux=place,
        boot=place,
        config=config,
        headers=place,
        checkout=lambda: place,
        metadata=place,
        cached=True,
    )


def test_what_a_kernel_cannot_do_is_named_and_what_is_no_instruction_left_out(
    tmp_path: Path,
) -> None:
    plain = ExactEntry("a.c")
    ours = ExactEntry("b.c", needs=("ASYNC_SUBMIT",))
    two = ExactEntry("c.c", cpus=2)
    memory = ExactEntry("d.c", counted=False)
    every = (plain, ours, two, memory, ENTRY)
    little = kernel_with(tmp_path, "EXT4_FS")
    assert counted.possible(every, little) == ((plain,), (ours, ENTRY))
    more = kernel_with(tmp_path, "EXT4_FS", "BLK_DEV_RAM", "ASYNC_SUBMIT")
    assert counted.possible(every, more) == ((plain, ours, ENTRY), ())


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        (seen(code=1), ProgramFailedError, "exit code 1"),
        (replace(seen(end=End.TIMEOUT), detail="too late"), ProgramFailedError, "too late"),
        (seen(end=End.LOST), LostMachineError, "the machine went away"),
        (seen(output="nothing\n"), InfrastructureError, "measured nothing"),
        (seen(output="{\n"), InfrastructureError, "no measurement"),
        (seen(output=LINE.replace("counted ", "")), InfrastructureError, "not counted"),
        (replace(seen(), splats=(Splat("bug", "BUG in x", 1, 2),)), CrashError, "BUG in x"),
    ],
)
def test_never_a_figure_of_what_went_wrong(
    what: Observation, error: type[RigError], words: str
) -> None:
    with pytest.raises(error, match=words):
        counted.rows_of(ENTRY, what)


def test_without_counters_the_reason_is_the_programs() -> None:
    with pytest.raises(NoCountersError, match=r"^no counters: x$"):
        counted.rows_of(ENTRY, seen(output="words\nno counters: x\n", code=counted.NO_COUNTERS))


# -- beside the exact ones ------------------------------------------------------------------------


def test_each_figure_has_the_fewest_instructions_and_the_fewest_cycles() -> None:
    found = counted.kept([row("a", 7, 50), row("a", 5, 60), row("b", 1, 2)], ENTRY, {})
    assert found == {"a": row("a", 5, 50), "b": row("b", 1, 2)}


def test_a_name_that_another_program_has_is_told_apart_as_in_the_exact_set() -> None:
    assert list(counted.kept([row("a", 7)], ENTRY, {"x.c": {"a": row("a", 5)}})) == ["a, file.c"]


EXACT = Measured(
    "k", {}, {}, {"a": Row("a", 100, "instructions"), "b": Row("b", 10, "instructions")},
    {"a": "f.c", "b": "other.c"}, frozenset({"a"}),
)  # fmt: skip


def test_medians_of_boots_beside_what_is_exact() -> None:
    boots = [
        {"f.c": {"a": row("a", value, cycles), "b": row("b", 3)}}
        for value, cycles in ((104, 7), (101, 9), (190, 8))
    ]
    boots[0]["f.c"]["c"] = row("c", 1)
    first, second = counted.beside(boots, EXACT)
    assert first == Beside("f.c", "a", 100, 104, 101, 190, 8)
    assert first.words == "a: 100 exact, 104 counted (+4.0%), 8 cycles"
    # Of another program, and so of another thing; "c" is not of all boots.
    assert second == Beside("f.c", "b", None, 3, 3, 3, 1)
    assert second.words == "b: 3 counted, 1 cycles"
    assert counted.not_in_all(boots) == ("c",)
    assert counted.beside([{}, boots[1]], EXACT) == counted.beside([], EXACT) == ()
    slept = replace(EXACT, gated=frozenset())
    assert counted.beside(boots, slept)[0].exact is None


def test_the_words_are_of_what_is_more_than_the_clocks_share() -> None:
    found = [Beside("f.c", name, exact, value, value, value, 1) for name, exact, value in
             (("a", 1000, 1020), ("b", 4, 0), ("c", 1000, 1030), ("d", 1000, 1500))]  # fmt: skip
    lines = counted.in_words(found)
    assert "over 3 of them: 1.030 counted for one exact instruction (median)" in lines[0]
    assert lines[1].startswith("  d: 1000 exact, 1500 counted (+50.0%)")
    assert not any("b:" in line for line in lines)
    assert counted.in_words([replace(found[0], exact=None)])[0].startswith("  a: 1020 counted")


# -- in a boot ------------------------------------------------------------------------------------


class Guest:
    """Whose programs say what they are told to, in their order."""

    def __init__(self, *said: Observation) -> None:
        self.said, self.asked = list(said), list[str]()

    def run(self, program: Program, built: object) -> Observation:
        self.asked.append(program.name)
        return self.said.pop(0)


def counts(guest: Guest, record: Record, *entries: ExactEntry) -> counted.Counted:
    kernel, made = KernelConfig("k", "s"), BuiltSuite(Suite("bench", ROOT), ROOT, ".", ())
    plan = timed.Plan(kernel, cast(KernelLab, None), 1, made, (), "board1", entries)
    return timed._count(plan, 0, cast(RealGuest, guest), record, QUIET, itertools.count())


A, B = ExactEntry("a.c"), ExactEntry("b.c")


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record.begin(tmp_path / "results", "rig bench", "bench")


def test_a_boot_in_which_a_cpu_counts(record: Record) -> None:
    guest = Guest(seen(), seen(LINE + LINE.replace('"a"', '"c"')))
    found = counts(guest, record, A, B)
    assert {run: list(rows) for run, rows in found.items()} == {
        "a.c": ["a"],
        "b.c": ["a, b.c", "c"],
    }
    assert guest.asked == ["a.c, counted", "b.c, counted"]
    assert [case.status for case in record.run.cases] == ["pass", "pass"]
    assert not record.run.notices


def test_a_boot_whose_counters_somebody_takes(record: Record) -> None:
    gone = seen("no counters: somebody has taken them\n", code=counted.NO_COUNTERS)
    assert counts(Guest(seen(), gone), record, A, B) == {}
    (notice,) = record.run.notices
    assert notice == (
        "nothing is counted of k on board1, boot 1 (b.c): no counters: somebody has taken them"
    )


def test_a_program_that_fails_is_no_count(record: Record) -> None:
    with pytest.raises(ProgramFailedError, match="exit code 1"):
        counts(Guest(seen("why\n", code=1)), record, A)
    (case,) = record.run.cases
    assert (case.status, case.output) == ("fail", "why\n")


# -- programs -------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_all_of_the_set_is_made_ready_to_count(
    built_kernel: Kernel, user_store: Store, tmp_path: Path
) -> None:
    wanted = benchset.load(ROOT)
    able, unable = counted.possible(wanted.exact, built_kernel)
    assert not unable
    assert len(able) > 15
    counted.place(able, wanted.directory, built_kernel, ROOT, tmp_path, user_store)
    for entry in able:
        script, _, program = counted.argv_of(entry)[1:4]
        assert (tmp_path / script).is_file()
        assert os.access(tmp_path / program, os.X_OK)
    disk = gzip.decompress((tmp_path / counted.IMAGE).read_bytes())
    assert len(disk) == initramfs.RAM_DISK_MIB << 20
    assert disk[1080:1082] == b"\x53\xef"  # of an ext4's first block


def test_an_image_is_made_whole_again() -> None:
    image = bytearray(10 * 4096)
    image[4096:4100] = b"one "
    image[-4:] = b"last"
    blocks = initramfs.numbered_blocks(bytes(image))
    assert len(blocks) == 2 * (8 + 4096)
    assert initramfs.whole_image(blocks, len(image)) == image


LOOP = r"""
#include "exact.h"

static void loop(unsigned long times)
{
	asm volatile("1:	subs %0, %0, #1\n\tb.ne 1b" : "+r"(times) : : "cc");
}

int main(void)
{
	static const unsigned long times[] = { 1, 1000, 100000 };
	struct exact_window window;
	char name[32];

	for (int at = 0; at < 3; at++) {
		for (int again = 0; again < 5; again++) {
			exact_begin(&window);
			loop(times[at]);
			exact_end(&window);
			snprintf(name, sizeof(name), "loop of %lu", times[at]);
			exact_report(name, &window);
			fprintf(stderr, "words of another stream\n");
		}
	}
	return 0;
}
"""
INIT = r"""
#include <stdio.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static const char *const programs[] = { "/loop", "/syscall", "/pipe" };

	for (int at = 0; at < 3; at++) {
		int status = -1, ends[2], byte;
		FILE *both;

		pipe(ends);
		if (!fork()) {
			dup2(ends[1], 1);
			dup2(ends[1], 2);
			close(ends[0]);
			execl(programs[at], programs[at], NULL);
			_exit(127);
		}
		close(ends[1]);
		both = fdopen(ends[0], "r");
		while ((byte = getc(both)) != EOF)
			putchar(byte);
		wait(&status);
		printf("%s ended with %d\n", programs[at], status);
	}
	fflush(stdout);
	reboot(RB_POWER_OFF);
}
"""
ARM = "aarch64-linux-gnu-gcc"
KERNEL = "linux-image-cloud-arm64"
BOOT_S = 120


@pytest.fixture
def arm_kernel(user_store: Store) -> Path:
    """Debian's own, from its package."""

    emulated_bmc.wanted(ARM, "qemu-system-aarch64", "mmdebstrap")

    def fetch(place: Path) -> None:
        root = place / "root"
        words = ["mmdebstrap", "--variant=extract", "--architectures=arm64", f"--include={KERNEL}"]
        process.run([*words, "bookworm", root], timeout_s=600)
        (kernel,) = (root / "boot").glob("vmlinuz-*")
        (place / "vmlinuz").write_bytes(kernel.read_bytes())
        process.run(["rm", "-rf", root], timeout_s=60)

    return user_store.publish("testboard", f"{KERNEL}-1", fetch) / "vmlinuz"


@pytest.mark.kernel
def test_a_real_cpu_counter_counts_a_loop_of_known_length(arm_kernel: Path, tmp_path: Path) -> None:
    """QEMU's ARM CPU has counters, and with -icount one of them counts what it executes. Both
    streams of a program are one pipe, as in a guest.
    """
    nodes = {"dev/console": cpio.character_device(5, 1)}
    texts = {"loop": LOOP, "init": INIT}
    for name in ("loop", "init", "syscall", "pipe"):
        source = BENCH / f"{name}.c"
        if name in texts:
            source = tmp_path / f"{name}.c"
            source.write_text(texts[name])
        flags = ("-O2", "-Wall", "-static", "-DEXACT_COUNTED", "-I", HEADERS)
        process.run([ARM, *flags, "-o", tmp_path / name, source], timeout_s=60)
        nodes[name] = cpio.file((tmp_path / name).read_bytes(), executable=True)
    initrd, console = tmp_path / "initrd", tmp_path / "console.log"
    initrd.write_bytes(cpio.archive(nodes))
    words = ["qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth=off", "-m", "512"]
    words += ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-nodefaults"]
    words += ["-display", "none", "-no-reboot", "-serial", f"file:{console}"]
    words += ["-kernel", str(arm_kernel), "-initrd", str(initrd)]
    words += ["-append", "console=ttyAMA0 panic=-1 quiet"]
    process.run(words, timeout_s=BOOT_S)
    said = console.read_text()
    for name in ("loop", "syscall", "pipe"):
        assert f"/{name} ended with 0" in said, said
    lines = [line.rstrip("\r") for line in said.split("\n")]
    where = [at for at, line in enumerate(lines) if line == "words of another stream"]
    assert len(where) == 15
    assert all(lines[at - 1].startswith("{") for at in where)
    found = rows.by_name(rows.parse(said.encode()))
    assert {one.unit for one in found.values()} == {rows.COUNTED_UNIT}
    least = found["loop of 1"].value - 2
    assert 0 <= least <= 8  # what leads to the loop
    for times in (1000, 100_000):
        one = found[f"loop of {times}"]
        assert one.value == 2 * times + least
        assert one.cycles >= one.value
    assert found["empty"].value == 0
    assert 100 < found["getppid"].value < found["read of a pipe"].value


def test_a_program_that_has_nothing_to_count_with_says_so(tmp_path: Path) -> None:
    """Or counts, where this host has one CPU, and that lets it."""
    program = tmp_path / "syscall"
    flags = ("-O2", "-static", "-DEXACT_COUNTED", "-I", HEADERS)
    process.run(["gcc", *flags, "-o", program, BENCH / "syscall.c"], timeout_s=60)
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == counted.NO_COUNTERS:
        assert not done.stdout
        assert done.stderr.startswith("no counters: ")
        assert len(done.stderr.splitlines()) == 1
    else:
        assert done.returncode == 0
        assert rows.by_name(rows.parse(done.stdout.encode()))["getppid"].value > 0
