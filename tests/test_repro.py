"""One failure as a tarball: what is picked, what it says, and that it shows the failure again."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from rig import cli, repro, runner
from rig import config as configuration
from rig.config import Config
from rig.errors import BootError, UsageError
from rig.kbuild import Kernel
from rig.repro import Failure, Request, Shape
from rig.results import BOOT_FAILED, Case, Run, Splat, Status, load_run

WARNING = Splat(
    "warning",
    "WARNING in pipe_read",
    3,
    9,
    "pipe_read",
    "[    1.000000][   T77] ------------[ cut here ]------------\n"
    "[    1.000000][   T77] WARNING: CPU: 1 PID: 77 at fs/pipe.c:123 pipe_read+0x12/0x340\n"
    "[    1.000000][   T77] ---[ end trace 0000000000000000 ]---",
    place="fs/pipe.c:123",
    patch="0003-x.patch",
)
GOOD = Case("abi", "wait", "a", Status.PASS)
BAD = Case("abi", "wait", "global.b", Status.FAIL, message="wait.c:1: no")
WHOLE = Case("abi", "storm", "", Status.FAIL, message="splat: WARNING in pipe_read")
LATE = Case("abi", "queue", "", Status.TIMEOUT, message="it did not end")
RUN = Run("r", "", "rig", kernel={"release": "6.12.1"}, machine={"cpus": "4", "memory_mib": "512",
          "append": "console=ttyS0 root=/dev/vda rw init=/x panic=-1"},
          cases=(GOOD, BAD, WHOLE, LATE), splats=(WARNING,))  # fmt: skip


def test_the_first_that_is_not_good() -> None:
    assert repro.failure(RUN, "").case == BAD
    assert repro.failure(RUN, "abi/storm").splat == WARNING
    assert repro.failure(RUN, "abi/wait").case == BAD
    assert repro.failure(RUN, "abi/wait::global.b").title == "abi/wait::global.b: wait.c:1: no"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [("abi/wait::a", "did not fail"), ("abi/nothing", "no case 'abi/nothing'")],
)
def test_what_cannot_be_shown(wanted: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        repro.failure(RUN, wanted)
    with pytest.raises(UsageError, match="run r did not fail"):
        repro.failure(replace(RUN, cases=(GOOD,)), "")


def grep(pattern: str, line: str) -> bool:
    done = subprocess.run(["grep", "-qE", pattern], input=line, text=True, check=False)
    return done.returncode == 0


def test_a_splat_is_known_again_with_other_numbers() -> None:
    pattern = repro.failure(RUN, "abi/storm").pattern
    again = "[   99.5] WARNING: CPU: 0 PID: 1234 at fs/pipe.c:125 pipe_read+0x19/0x344"
    assert grep(pattern, again)
    assert not grep(pattern, again.replace("pipe_read", "pipe_write"))


def test_another_bug_of_the_same_heading_is_not_it() -> None:
    text = "BUG: kernel NULL pointer dereference, address: 0000000000000000\n"
    null = replace(RUN.splats[0], type="null-deref", text=text, frame="pipe_read")
    case = next(one for one in RUN.cases if RUN.splats[0].title in one.message)
    found = repro.failure(replace(RUN, splats=(null,), cases=(case,)), "")
    assert grep(found.pattern, text)
    for line in (
        "RIP: 0010:pipe_read+0x19/0x344",
        " pipe_read.constprop.0+0x1/0x2",
        "Workqueue: x pipe_read",
    ):
        assert grep(found.blamed, line)
    for line in (
        "RIP: 0010:pipe_write+0x19/0x344",
        " anon_pipe_read+0x1/0x2",
        " pipe_read_x+0x1/0x2",
    ):
        assert not grep(found.blamed, line)


def test_a_case_within_another_is_known_again() -> None:
    inner = next(one for one in RUN.cases if one.name)
    nested = replace(inner, name="suite/b (1)", status=Status.FAIL)
    pattern = repro.failure(replace(RUN, cases=(nested,)), "").pattern
    assert grep(pattern, "    not ok 2 b (1)")
    assert grep(pattern, "not ok 2 suite/b (1)")
    assert not grep(pattern, "    not ok 2 c")


def test_a_case_and_a_time_out_are_known_again() -> None:
    assert grep(repro.failure(RUN, "").pattern, "not ok 7 global.b")
    assert not grep(repro.failure(RUN, "").pattern, "ok 7 global.b")
    assert not grep(repro.failure(RUN, "").pattern, "not ok 7 globalxb")
    assert grep(repro.failure(RUN, "abi/queue").pattern, "rig: repro: timeout after 9 s")
    whole = replace(LATE, status=Status.FAIL)
    pattern = repro.failure(replace(RUN, cases=(whole,)), "").pattern
    assert grep(pattern, "rig: repro: exit 3")
    assert not grep(pattern, "rig: repro: exit 0")


def test_the_script_needs_nothing_but_qemu() -> None:
    found = repro.failure(RUN, "abi/storm")
    text = repro.script(found, RUN, disk=False, limit_s=480)
    assert "-smp 4 -m 512" in text
    assert "'console=ttyS0 rdinit=/init panic=-1'" in text
    assert "/root" not in text
    assert "disk" not in text
    assert "file=disk.qcow2" in repro.script(found, RUN, disk=True, limit_s=480)
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)


def test_where_nothing_was_run_nothing_is_said_of_the_failure(tmp_path: Path) -> None:
    found = repro.failure(RUN, "abi/storm")
    (tmp_path / "run.sh").write_text(repro.script(found, RUN, disk=False, limit_s=480))
    for name in ("dirname", "sh"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    done = subprocess.run(
        ["sh", "run.sh"], cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no qemu-system-x86_64" in done.stderr


def test_the_mail_says_what_and_where_and_whose() -> None:
    found = repro.failure(RUN, "abi/storm")
    text = repro.mail(found, RUN, WARNING)
    assert "Subject: [BUG] WARNING in pipe_read\n" in text
    assert "scripts/get_maintainer.pl -f fs/pipe.c" in text
    assert "fs/pipe.c:123, last touched by 0003-x.patch" in text
    plain = repro.mail(Failure(BAD, None, "x"), RUN, None)
    assert "Subject: [BUG] abi/wait::global.b: wait.c:1: no\n" in plain


def test_the_mail_is_to_who_has_to_know_of_it() -> None:
    found = repro.failure(RUN, "abi/storm")
    text = repro.mail(found, RUN, WARNING, ("A B <a@example.org>", "list@example.org"))
    assert "To: A B <a@example.org>,\n\tlist@example.org\n" in text


# -- what says nothing, and what does not come up -------------------------------------------------

NOT_BOOTED = "kernel k did not reach login: Kernel panic - not syncing: VFS"
PANIC = Splat("no-root", "kernel panic: VFS", 0, 2, "mount_root",
              "[    1.000000] Kernel panic - not syncing: VFS: no root on block(0,0)\n"
              "[    1.000000]  mount_root+0x1/0x2")  # fmt: skip
UNBORN = Case("abi", "wait", "", Status.ERROR, message=f"not run: {NOT_BOOTED}")
UNBOOTED = replace(RUN, cases=(UNBORN,), splats=(PANIC,),
                   machine={**RUN.machine, BOOT_FAILED: NOT_BOOTED})  # fmt: skip
SHOWN = "[    9.0] Kernel panic - not syncing: VFS: no root on block(8,1)\n mount_root+0x5/0x9\n"


def verdict(run: Run, wanted: str, said: str, end: str, place: Path) -> int:
    """Of a script whose QEMU has said that, and ended so: its exit code."""
    found = repro.failure(run, wanted)
    (place / "run.sh").write_text(repro.script(found, run, disk=False, limit_s=9))
    (place / "qemu-system-x86_64").write_text(f"#!/bin/sh\nprintf '{said}'\n{end}\n")
    (place / "qemu-system-x86_64").chmod(0o755)
    env = {"PATH": f"{place}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "run.sh"], cwd=place, env=env, capture_output=True, check=False)
    return done.returncode


@pytest.mark.parametrize(
    ("said", "end", "code"),
    [
        ("rig: repro: begins\\nrig: repro: timeout after 180 s\\n", "exit 0", 0),
        ("rig: repro: begins\\n", "exit 124", 0),  # nothing more, until it was ended
        ("rig: repro: begins\\n", "exit 0", 1),  # it ended the machine by itself
        ("rig: repro: begins\\nrig: repro: exit 0\\n", "exit 124", 1),
        ("rig: repro: begins\\nrig: repro: error: /x: gone\\n", "exit 124", 1),
        ("Linux version 6.12\\n", "exit 124", 1),  # it never came to the program
    ],
)
def test_a_machine_that_says_nothing_more_is_a_time_out(
    tmp_path: Path, said: str, end: str, code: int
) -> None:
    assert repro.failure(RUN, "abi/queue").shape is Shape.SILENCE
    assert verdict(RUN, "abi/queue", said, end, tmp_path) == code


@pytest.mark.parametrize("wanted", ["", "abi/queue", "abi/queue::case 1"])
def test_a_result_that_never_came_is_what_kept_it_from_coming(wanted: str) -> None:
    never = Case("abi", "queue", "case 1", Status.ERROR, message="planned, but never came")
    run = replace(RUN, cases=(never, LATE, WHOLE))
    assert repro.failure(run, wanted).case == LATE
    alone = replace(RUN, cases=(never, WHOLE))
    assert repro.failure(alone, wanted if wanted else "abi/queue").case == never


@pytest.mark.parametrize(
    ("said", "end", "splats", "code"),
    [
        (SHOWN, "exit 0", (PANIC,), 0),
        (SHOWN, "exit 124", (PANIC,), 0),
        (SHOWN.replace("mount_root", "other"), "exit 0", (PANIC,), 1),
        (SHOWN + "rig: ready\n", "exit 124", (PANIC,), 1),
        ("Linux version 6.12\n", "exit 124", (), 0),
        ("Linux version 6.12\n", "exit 0", (), 0),
        ("Linux version 6.12\n", "exit 1", (), 1),  # QEMU itself
        ("Linux version 6.12\nrig: ready\n", "exit 124", (), 1),
    ],
)
def test_a_kernel_that_does_not_come_up_is_known_again(
    tmp_path: Path, said: str, end: str, splats: tuple[Splat, ...], code: int
) -> None:
    run = replace(UNBOOTED, splats=splats)
    found = repro.failure(run, "")
    assert found.shape is Shape.BOOT
    assert found.splat == (splats[0] if splats else None)
    assert verdict(run, "", said.replace("\n", "\\n"), end, tmp_path) == code


def test_a_boot_is_shown_as_it_was() -> None:
    text = repro.script(repro.failure(UNBOOTED, ""), UNBOOTED, disk=True, limit_s=300)
    assert "'console=ttyS0 root=/dev/vda rw init=/x panic=-1 earlycon=uart8250,io,0x3f8'" in text
    assert "timeout 300 qemu" in text
    assert "-initrd" not in text
    made = repro.texts(repro.failure(UNBOOTED, ""), UNBOOTED, PANIC, True, 300)
    assert "The boot fails on 6.12.1" in made["mail.txt"]
    assert "initramfs" not in made["README.txt"]
    # One that failed before, in a machine that did boot, is a case as any other.
    also = replace(UNBOOTED, cases=(BAD, UNBORN))
    assert repro.failure(also, "").shape is Shape.LINE


FAILING = """\
#include "../kselftest_harness.h"

TEST(two_and_two)
{
\tEXPECT_EQ(4, 2 + 2);
}

TEST(uptime_is_short)
{
\tEXPECT_NE(0, access("/proc/uptime", F_OK));
}

TEST_HARNESS_MAIN
"""


@pytest.mark.kernel
def test_a_failure_is_shown_again(rig_config: Config, tmp_path: Path) -> None:
    place = tmp_path / "guest-tests" / "failing"
    place.mkdir(parents=True)
    (place / "one.c").write_text(FAILING)
    (place / "Makefile").write_text("TEST_GEN_PROGS := one\ninclude ../lib.mk\n")
    config = replace(rig_config, suites=(*rig_config.suites, str(place)))
    asked = runner.Request(suites=("failing",), results=tmp_path / "results")
    done = runner.boot_and_test(asked, config)
    assert done.exit_code == 1
    packed = repro.pack(Request(directory=done.directory), config)
    assert packed.shown
    assert not packed.disk
    assert packed.failure.case.id == "failing/one::global.uptime_is_short"
    assert packed.path.parent == done.directory
    listed = subprocess.run(
        ["tar", "-tzf", packed.path], capture_output=True, text=True, check=True
    ).stdout.split()
    names = {re.sub(r"^[^/]*/", "", name) for name in listed}
    assert {"run.sh", "kernel", "config", "initramfs.cpio", "mail.txt", "README.txt"} <= names
    # And what does not fail there is not said to.
    (text,) = (name for name in listed if name.endswith("run.sh"))
    subprocess.run(["tar", "-xzf", packed.path, "-C", tmp_path], check=True)
    script = tmp_path / text
    script.write_text(script.read_text().replace("uptime_is_short", "two_and_two"))
    again = subprocess.run([script], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "not reproduced" in again.stdout


MAKEFILE = "TEST_PROGS := t.sh\ninclude ../lib.mk\n"


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("rig boot-and-test k --tests {here}/own --results x", "own"),
        ("rig kselftest timers --kernel k", "tree/tools/testing/selftests/timers"),
        ("rig -q kselftest timers", "tree/tools/testing/selftests/timers"),
    ],
)
def test_where_a_suite_is_that_the_checkout_does_not_have(
    tmp_path: Path, command: str, place: str
) -> None:
    for one in ("own", "tree/tools/testing/selftests/timers"):
        (tmp_path / one).mkdir(parents=True)
        (tmp_path / one / "Makefile").write_text(MAKEFILE)
    run = replace(RUN, command=command.format(here=tmp_path))
    tree = tmp_path / "tree" if repro._is_of_the_tree(run) else None
    config = make_config(tmp_path)
    found = repro._suite(run, Path(place).name, config, tree)
    assert found.directory == tmp_path / place
    with pytest.raises(UsageError, match="nosuch"):
        repro._suite(run, "nosuch", config, tree)


def make_config(root: Path) -> Config:
    (root / "rig.toml").write_text("[kernel.k]\n[machine.one]\n")
    return configuration.load(root / "rig.toml")


@pytest.mark.kernel
def test_a_kernel_that_does_not_come_up_is_shown_again(
    rig_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a person does it, who has asked for more words for the kernel."""
    words = ["--rig-toml", str(rig_config.root / "rig.toml"), "-q"]
    asked = ["--append", "root=/dev/nowhere", "--suite", "abi", "--results", str(tmp_path)]
    assert cli.main([*words, "boot-and-test", *asked]) == BootError.exit_code
    place = tmp_path / "latest"
    run = load_run(place / "run.json")
    (panic,) = run.splats
    assert panic.type == "no-root"
    assert re.search(r"prepare_namespace\S+ \(init/do_mounts\.c:\d+", panic.decoded)
    assert run.machine[BOOT_FAILED] in run.cases[0].message
    assert cli.main([*words, "repro", str(place)]) == 0
    (made,) = place.glob("repro-*.tar.gz")
    listed = subprocess.run(["tar", "-tzf", made], capture_output=True, text=True, check=True)
    names = {line.partition("/")[2] for line in listed.stdout.split()}
    assert {"run.sh", "kernel", "disk.qcow2", "splat.txt"} <= names
    assert "initramfs.cpio" not in names
    mail = subprocess.run(["tar", "-xzOf", made, f"{made.name.removesuffix('.tar.gz')}/mail.txt"],
                          capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert "Subject: [BUG] kernel panic: VFS: Unable to mount root fs\n" in mail


@pytest.mark.kernel
def test_who_has_to_know_is_who_the_tree_says(built_kernel: Kernel) -> None:
    found = repro._maintainers(replace(WARNING, place="kernel/async_submit.c:7"), built_kernel)
    assert len(found) > 1
    assert any("@" in one and "(" not in one for one in found)
    assert "linux-kernel@vger.kernel.org" in found
    assert repro._maintainers(replace(WARNING, place="no/such.c:7"), built_kernel) == ()
    assert repro._maintainers(None, built_kernel) == ()
