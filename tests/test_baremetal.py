"""A board from its own system to a kernel under test and back, for real: on an emulated board, with
Debian on its disk, GRUB, kexec-tools and sshd, and a power switch that works.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import emulated_bmc
import emulated_board
import pytest
from emulated_board import EmulatedBoard
from local_machine import Writer

from rig import config as configuration
from rig import kbuild, process, ramroot
from rig.errors import InfrastructureError, UsageError
from rig.image import Image
from rig.kbuild import Kernel
from rig.machine import baremetal, knowngood
from rig.machine.knowngood import About, KnownGood
from rig.ramroot import RamRoot
from rig.session import Session
from rig.store import Store

ROOT = Path(__file__).parents[1]
RUN_S = 900.0
# Of a Debian that nobody does anything with.
SYSTEM = """
[machine.board1.system]
address = "192.0.2.8"
key = "key"
host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"
"""
BOARD = """
[machine.board1]
kind = "baremetal"
append = "quiet"

[machine.board1.power]
kind = "command"
on = "true"
off = "true"
status = "true"

[machine.board1.console]
kind = "tcp"
address = "127.0.0.1"
port = 9
"""
SAID = """\
boot_id	5b1c0f9e-0000-4000-8000-000000000000
release	6.1.0-41-amd64
machine	x86_64
cpus	2
cpu	QEMU TCG CPU version 2.5+
microcode	
product	QEMU Standard PC
firmware	1.16.2
memory_kib	1500000
room_kib	700000
net	52:54:00:12:34:56 10.0.2.15/24
gateway	10.0.2.2
"""  # noqa: W291


def loaded(directory: Path, text: str) -> configuration.Config:
    path = directory / "rig.toml"
    path.write_text(f"{(ROOT / 'rig.toml').read_text()}\n{text}")
    return configuration.load(path)


# -- what needs no board --------------------------------------------------------------------------


def test_a_board_is_a_machine_once_all_is_told(tmp_path: Path) -> None:
    whole = loaded(tmp_path, BOARD + SYSTEM)
    board = whole.machine("board1")
    assert isinstance(board, configuration.BoardConfig)
    assert board.system is not None
    assert (board.system.directory, board.system.returns_s) == ("/var/lib/rig", 300.0)
    with pytest.raises(UsageError, match="board1 is a board"):
        whole.emulated("board1")
    with pytest.raises(UsageError, match=r"\[machine\.board1\] has no system"):
        loaded(tmp_path, BOARD).machine("board1")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('host_key = "AAAA"', "host_key is no public key"),
        ('directory = "/"', "directory is '/'"),
        ('directory = "/var/../etc"', "directory is"),
        ("returns_s = 1", "returns_s is 10 to 3600"),
        ("port = 0", "port is 0"),
        ('user = ""', "has no user"),
        ('wired = "x"', "unknown key 'wired'"),
    ],
)
def test_mistakes_in_its_system(tmp_path: Path, line: str, words: str) -> None:
    name = line.partition(" ")[0]
    text = re.sub(rf"^{name} = .*\n", "", SYSTEM, flags=re.MULTILINE)
    with pytest.raises(UsageError, match=words):
        loaded(tmp_path, f"{BOARD}{text}{line}\n").machine("board1")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('deploy = "pxe"', "deploy is 'pxe'"),
        ('deploy = "network"', "has no network"),
        ('[machine.board1.network]\naddress = ""', "needs an address of this host"),
        ('[machine.board1.network]\naddress = "192.0.2.1"\nport = 0', "needs an address of this"),
        ('[machine.board1.network]\naddress = "192.0.2.1"\nurl = "tftp://x"', "url is 'tftp://x'"),
        ('[machine.board1.network]\naddress = "192.0.2.1"\nroot = "x"', "unknown key 'root'"),
    ],
)
def test_mistakes_in_how_kernels_get_there(tmp_path: Path, lines: str, words: str) -> None:
    head, _, rest = BOARD.partition("\n[machine.board1.power]")
    own, _, table = lines.partition("[machine.board1.network]")
    text = f"{head}\n{own}\n[machine.board1.power]{rest}{SYSTEM}"
    text += f"[machine.board1.network]{table}\n" if table else ""
    with pytest.raises(UsageError, match=words):
        loaded(tmp_path, text)


def known_good(tmp_path: Path) -> KnownGood:
    board = loaded(tmp_path, BOARD + SYSTEM).machine("board1")
    assert isinstance(board, configuration.BoardConfig)
    return KnownGood(board, tmp_path)


def test_what_a_system_says_of_itself(tmp_path: Path) -> None:
    found = known_good(tmp_path)._understood(SAID)
    assert found.net == "52:54:00:12:34:56,10.0.2.15,255.255.255.0,10.0.2.2"
    assert (found.room_kib, found.memory_kib) == (700000, 1500000)
    assert found.facts["known_good"] == "6.1.0-41-amd64"
    assert "microcode" not in found.facts


@pytest.mark.parametrize(
    ("line", "words"), [("room_kib", "how much room"), ("net", "does not say which card")]
)
def test_a_system_that_will_not_do(tmp_path: Path, line: str, words: str) -> None:
    said = re.sub(rf"^{line}\t.*$", f"{line}\t", SAID, flags=re.MULTILINE)
    with pytest.raises(InfrastructureError, match=words):
        known_good(tmp_path)._understood(said)


def test_two_tables_of_one_board_have_one_lock(tmp_path: Path) -> None:
    """By kexec and by GRUB, say: else two runs would have it."""
    one = BOARD + SYSTEM
    two = one.replace("machine.board1", "machine.again")
    with pytest.raises(UsageError, match=r"\[machine.again\] is the board of \[machine.board1\]"):
        loaded(tmp_path, one + two)
    named = two.replace("[machine.again]\n", '[machine.again]\nboard = "board1"\n')
    found = loaded(tmp_path, one + named)
    assert {found.board(name).locked_as for name in ("board1", "again")} == {"board1"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("card\teth0.7 vlan", "is reached over eth0.7, a vlan: a kernel under test has none"),
        ("six\t2001:db8::7", "kernels under test get IPv4 alone"),
    ],
)
def test_a_way_to_a_system_that_no_kernel_gets(tmp_path: Path, line: str, words: str) -> None:
    """It would boot well, and be blamed for letting nobody in."""
    known_good(tmp_path)._understood(f"{SAID}card\teth0 \n")
    with pytest.raises(InfrastructureError, match=words):
        known_good(tmp_path)._understood(f"{SAID}{line}\n")


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    board = loaded(tmp_path, BOARD + SYSTEM).machine("board1")
    assert isinstance(board, configuration.BoardConfig)
    assert board.system is not None
    key = tmp_path / board.system.key
    key.parent.mkdir(parents=True, exist_ok=True)
    knowngood.check_key(board, tmp_path)  # that it is not there is told by who logs in
    key.write_text("secret")
    for mode in (0o640, 0o604):
        key.chmod(mode)
        with pytest.raises(UsageError, match=rf"others may read it \(mode {mode:04o}\)"):
            knowngood.check_key(board, tmp_path)
    key.chmod(0o600)
    knowngood.check_key(board, tmp_path)
    if os.geteuid() == 0:  # a group's, as ssh takes it
        key.chmod(0o640)
        os.chown(key, 12345, -1)
        knowngood.check_key(board, tmp_path)


def test_what_others_have_beside_our_files_stays(tmp_path: Path) -> None:
    """A boot loader may take all there are: a directory of its own may be one that others use."""
    place, own = tmp_path / "EFI", "0123456789abcdef"
    place.mkdir()
    gone = {f"kernel-{own}", f"initrd-{own}", f"initrd-{own}.part", "rig.efi", "rig.efi.part"}
    stays = {
        f"kernel-{own[::-1]}", "debian-6.12.efi", "initrd-6.4.0-default", "kernel-6.1-gentoo",
        "systemd-bootx64.efi", "x.part", f"kernel-{own}0", "rig.efi.old", "jumped",
    }  # fmt: skip
    for name in gone | stays:
        (place / name).touch()

    def run(argv: list[str], timeout_s: float) -> SimpleNamespace:
        done = subprocess.run(argv, capture_output=True, check=False)
        return SimpleNamespace(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    system = known_good(tmp_path)
    object.__setattr__(system.config, "directory", str(place))
    system._keep_only(cast("Session", SimpleNamespace(run=run)), [f"/x/kernel-{own[::-1]}"])
    assert {one.name for one in place.iterdir()} == stays


def test_what_kdump_has_put_away_since_the_jump_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its words, not all of the kernel's memory; of before the jump nothing that is put away."""
    monkeypatch.setattr(
        knowngood,
        "_KEPT",
        re.sub(r"/(sys/fs/pstore|var/)", rf"{tmp_path}/root/\1", knowngood._KEPT),
    )
    place, into = tmp_path / "rig", tmp_path / "results"
    crash, old = (tmp_path / "root/var/crash" / one for one in ("202611301200", "202501010000"))
    for one in (place, into, crash, old):
        one.mkdir(parents=True)
    (place / "jumped").touch()
    for one, at_s in ((old, -100), (crash, 100)):
        for name in ("dmesg.txt", "dump.img"):
            (one / name).write_text(f"{one.name} {name}")
            now = (place / "jumped").stat().st_mtime
            os.utime(one / name, (now + at_s, now + at_s))

    def run(argv: list[str], timeout_s: float) -> SimpleNamespace:
        done = subprocess.run(argv, capture_output=True, check=False)
        return SimpleNamespace(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def get(remote: str, local: Path) -> None:
        local.write_bytes(Path(remote).read_bytes())

    system = known_good(tmp_path)
    object.__setattr__(system.config, "directory", str(place))
    session = cast("Session", SimpleNamespace(run=run, get=get))
    (found,) = system.crashes(session, into, "0")
    assert found.read_text() == "202611301200 dmesg.txt"
    assert found.parent == into
    assert crash.joinpath("dmesg.txt").exists()
    assert system.crashes(session, into, "earlier") == ()
    (place / "jumped").unlink()
    assert system.crashes(session, into, "1") == ()


def test_what_the_kernel_is_told(tmp_path: Path) -> None:
    board = loaded(tmp_path, BOARD + SYSTEM).machine("board1")
    assert isinstance(board, configuration.BoardConfig)
    root = RamRoot(tmp_path, "00", 2048, 1)
    about = About("id", "52:54:00:12:34:56,10.0.2.15,255.255.255.0,", 1, 1)
    words = baremetal.kernel_command_line(board, root, about, "debug").split()
    assert words[:2] == ["console=ttyS0,115200", "earlycon=uart8250,io,0x3f8,115200"]
    assert {"rdinit=/init", "brd.rd_size=2048", f"rig_net={about.net}"} <= set(words)
    assert words[-2:] == ["quiet", "debug"]
    for serial, early in (
        ("ttyS1", ["earlycon=uart8250,io,0x2f8"]), ("ttyS9,9600", []), ("ttyAMA0", []),
    ):  # fmt: skip
        other = dataclasses.replace(board, serial=serial)
        words = baremetal.kernel_command_line(other, root, about).split()
        assert [one for one in words if one.startswith("earlycon")] == early
    own = baremetal.kernel_command_line(board, root, about, "earlycon=none").split()
    assert [one for one in own if "earlycon" in one] == ["earlycon=none"]
    # Without a console that is preferred to it, the early one would stay beside the other.
    assert "earlycon" not in baremetal.kernel_command_line(board, root, about, "console=tty0")


def test_blocks_of_a_disk_with_holes(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(1 << 20)
        for number in (0, 7, 255):
            file.seek(number * 4096)
            file.write(bytes([number % 255 + 1]) * 4096)
        file.seek(9 * 4096)
        file.write(bytes(4096))  # there, and empty
    found = list(ramroot.numbered(disk))
    assert [int.from_bytes(one[:8], "little") for one in found] == [0, 7, 255]
    assert all(one[8:] == bytes([number % 255 + 1]) * 4096
               for number, one in zip((0, 7, 255), found, strict=True))  # fmt: skip


# -- a board --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def board(user_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedBoard]:
    place = tmp_path_factory.mktemp("board")
    with emulated_board.standing("board1", emulated_board.installed(user_store), place) as one:
        yield one


@pytest.fixture(scope="module")
def small_board(
    rig_config: configuration.Config,
    user_store: Store,
    built_kernel: Kernel,
    built_image: Image,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[EmulatedBoard]:
    place = tmp_path_factory.mktemp("small")
    # What a rig in another directory finds made: here only what differs is compiled.
    more = [kbuild.fragment(ROOT, name) for name in ("board", "lkdtm")]
    kbuild.build(rig_config, rig_config.kernel(), user_store, extra_configs=more)
    made = emulated_board.small(built_kernel, built_image, place)
    with emulated_board.standing("board1", made, place, memory_mib=1280) as one:
        yield one


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout's directory with a rig.toml of its own; all else is ours."""
    for name in ("patches", "kernel-configs", "images", "guest-tests", "ci", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def rig(project: Path, toml: str, *words: str, machine: str = "board1") -> subprocess.Popen[str]:
    """The rig at work there; what it says on both streams is one text."""
    head = (ROOT / "rig.toml").read_text(encoding="utf-8")
    lock = project / "locks"
    text = toml.replace('kind = "baremetal"\n', f'kind = "baremetal"\nlock = "{lock}"\n')
    (project / "rig.toml").write_text(f"{head}\n{text}", encoding="utf-8")
    at = words.index("--") if "--" in words else len(words)
    argv = [sys.executable, "-m", "rig", *words[:at], "--machine", machine, *words[at:]]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        argv,
        cwd=project,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(started: subprocess.Popen[str], limit_s: float = RUN_S) -> tuple[int, str]:
    """Exit code and text."""
    try:
        said, _ = started.communicate(timeout=limit_s)
    finally:
        started.kill()
        started.wait()
    return started.returncode, said


def in_its_system(board: EmulatedBoard, command: str) -> str:
    """What a command in the board's own system says; that system has to be there."""
    words = ["ssh", "-i", str(board.installed.key), "-p", str(board.port), "-o", "BatchMode=yes"]
    known = f"KnownHostsCommand=/bin/echo board {board.installed.host_key}"
    words += ["-o", "HostKeyAlias=board", "-o", known, "-o", "IdentitiesOnly=yes"]
    return process.run([*words, "root@127.0.0.1", command], timeout_s=60).output


def comes_back(
    board: EmulatedBoard, project: Path, options: list[str], command: str, code: int, words: str
) -> None:
    """A kernel is judged right, in these words, and the board is back."""
    argv = ("boot", *options, "--", "sh", "-c", command)
    seen, said = ended(rig(project, board.toml(), *argv))
    assert seen == code, said
    assert words in said
    assert "Traceback" not in said
    assert "board1 is back in its own system after" in said


def consoles(project: Path) -> dict[str, str]:
    """Of the last run, by name."""
    last = max((project / "results").iterdir())
    return {one.name: one.read_text(errors="replace") for one in sorted(last.glob("*.log"))}


@pytest.mark.parametrize(
    ("line", "another"),
    [
        ("                 GNU GRUB  version 2.06", True),
        ("debian login: ", True),
        ("(none) login: ", True),
        ("board-7.lab login: [   12.3] usb 1-1: new device", True),
        ("U-Boot SPL 2023.01-rc4 (Jan 01 2023)", True),
        ("U-Boot 2021.07", True),
        ("iPXE initialising devices...ok", True),
        ("SeaBIOS (version 1.16.2-debian-1.16.2-1)", True),
        ('BdsDxe: loading Boot0001 "UEFI QEMU"', True),
        ("checking that user login: works", False),
        ("root login: refused", False),
        ("[    1.0] systemd[1]: user login: x", False),
        ("# grep U-Boot 2021.07 log", False),
    ],
)
def test_what_says_that_another_system_comes_up(line: str, another: bool) -> None:
    assert bool(baremetal._OTHER.search(f"before\n{line}\n")) is another


def test_which_kernels_speak() -> None:
    said = "[    0.000000] Linux version 6.12.1 (rig@rig) (gcc 12) #1 SMP\n"
    assert baremetal._releases(said + "it is Linux version 5.10.0 that has it\n") == ["6.12.1"]


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("options", "command", "code", "words"),
    [
        (["--append", "lkdtm.cpoint_name=DIRECT lkdtm.cpoint_type=PANIC"], "true", 125, "dumptest"),
        (["--append", "rdinit=/nothing"], "true", 125, "Unable to mount root fs"),
        ([], "cat /proc/cmdline", 0, "rdinit=/init"),
    ],
    ids=["panics early", "wrong root", "whole"],
)
def test_a_small_board_comes_back(
    small_board: EmulatedBoard,
    project: Path,
    options: list[str],
    command: str,
    code: int,
    words: str,
) -> None:
    comes_back(small_board, project, options, command, code, words)
    assert "root=/dev/vda" in in_its_system(small_board, "cat /proc/cmdline")
    parts = consoles(project)
    assert parts["console-0.log"].count("Linux version") == 1
    assert parts["system-1.log"].count("Linux version") == 1


@pytest.mark.kernel
def test_a_suite_runs_on_a_small_board(small_board: EmulatedBoard, project: Path) -> None:
    words = ("boot-and-test", "--suite", "abi", "--case", "inline_result", "--json", "run.json")
    code, said = ended(rig(project, small_board.toml(), *words))
    assert code == 0, said
    run = json.loads((project / "run.json").read_bytes())
    assert {case["status"] for case in run["cases"]} == {"pass"}
    assert run["machine"]["kind"] == "baremetal"
    assert run["machine"]["deploy"] == "kexec"
    assert 1 <= float(run["machine"]["back_s"]) < 300


@pytest.mark.board
def test_what_a_kernel_on_a_board_is_stuck_in_is_asked_over_its_line(
    small_board: EmulatedBoard, project: Path
) -> None:
    """By a break and sysrq, where a program does not end."""
    path = Writer(project / "mine").suite("stuck", timeout=2, sleeps="sleep 1000")
    words = ("boot-and-test", "--suite", str(path), "--json", "run.json")
    code, said = ended(rig(project, small_board.toml(), *words))
    assert code == 1, said
    run = json.loads((project / "run.json").read_bytes())
    (late,) = [case for case in run["cases"] if case["status"] == "timeout"]
    for told in ("sysrq: Show Blocked State", "sysrq: Show backtrace of all active CPUs"):
        assert told in late["output"]
    assert 1 <= float(run["machine"]["back_s"]) < 300


@pytest.mark.kernel
def test_a_cpu_without_counters_is_told(small_board: EmulatedBoard, project: Path) -> None:
    """QEMU's has none. A program that wants an ext4 finds it: else it would have failed before."""
    words = ("bench", "--timed", "--boots", "1", "--only", "file.c")
    code, said = ended(rig(project, small_board.toml(), *words))
    assert code == 3, said
    assert "nothing was measured" in said
    why = "no counters: perf_event_open(instructions): No such file or directory"
    assert f"nothing is counted of async on board1, boot 1 (file.c): {why}" in said
    said = consoles(project)["console-0.log"]
    assert "EXT4-fs (ram1): mounted filesystem" in said
    assert "EXT4-fs (ram1): unmounting filesystem" in said
    run = json.loads(next((project / "results").glob("*/run.json")).read_bytes())
    assert re.search(r"of 20 pieces of work of \d+ us", run["machine"]["noise"])
    assert float(run["machine"]["back_s"]) >= 1


@pytest.mark.board
def test_a_kernel_is_booted_and_the_board_comes_back(
    board: EmulatedBoard, built_kernel: Kernel, project: Path
) -> None:
    looks = "uname -r; cat /proc/cmdline; findmnt -no SOURCE /; ls -A /sys/block | grep -c vda"
    code, said = ended(rig(project, board.toml(), "boot", "--", "sh", "-c", looks))
    assert code == 0, said
    assert "board1 is off: it is switched on" in said
    assert "board1 is back in its own system after" in said
    assert built_kernel.release in said
    assert "/dev/ram0" in said
    release = in_its_system(board, "uname -r").strip()
    assert release.endswith("-amd64")
    # Nothing was written outside of our directory since the jump but what each boot of it writes.
    changed = in_its_system(
        board, "find / -xdev -type f -newer /var/lib/rig/jumped ! -path '/var/lib/rig/*'"
    )
    others = {one for one in changed.split() if not one.startswith("/var/log/journal/")}
    assert others <= emulated_board.EVERY_BOOT, changed
    parts = consoles(project)
    assert "Booting `Debian GNU/Linux'" in parts["system-0.log"]  # GRUB, before any kernel
    assert "Linux version" in parts["system-0.log"]
    assert parts["console-0.log"].count("Linux version") == 1
    assert "rig: ready" in parts["console-0.log"]
    assert parts["system-1.log"].count("Linux version") == 1


@pytest.mark.board
@pytest.mark.parametrize("way", ["grub", "network"])
def test_it_is_booted_once_by_its_firmware(
    board: EmulatedBoard, built_kernel: Kernel, project: Path, way: str
) -> None:
    looks = "uname -r; findmnt -no SOURCE /; cat /proc/cmdline"
    toml = board.toml(deploy=way)
    code, said = ended(rig(project, toml, "boot", "--json", "--", "sh", "-c", looks))
    assert code == 0, said
    value, _ = json.JSONDecoder().raw_decode(said, f"\n{said}".index("\n{"))
    assert value["machine"]["deploy"] == way
    release = in_its_system(board, "uname -r").strip()
    assert release.endswith("-amd64")
    parts = consoles(project)
    # Firmware and boot loader speak in the system's recording, the kernel in its own.
    assert "reboot: " in parts["system-0.log"]
    assert parts["console-0.log"].startswith(("Starting new kernel", "Linux version"))
    assert parts["console-0.log"].count("Linux version") == 1
    assert "rig: ready" in parts["console-0.log"]
    assert parts["system-1.log"].count("Linux version") == 1
    if way == "grub":
        assert "next_entry=rig" not in in_its_system(board, "grub-editenv - list")
        changed = in_its_system(
            board, "find / -xdev -type f -newer /var/lib/rig/jumped ! -path '/var/lib/rig/*'"
        )
        others = {one for one in changed.split() if not one.startswith("/var/log/journal/")}
        assert others <= emulated_board.EVERY_BOOT, changed


@pytest.fixture
def uefi_board(user_store: Store, tmp_path: Path) -> Iterator[EmulatedBoard]:
    made = emulated_board.installed_for_uefi(user_store)
    with emulated_board.standing("board1", made, tmp_path, memory_mib=2048) as one:
        yield one


@pytest.mark.board
def test_its_firmware_fetches_the_script_by_tftp(
    user_store: Store, built_kernel: Kernel, project: Path, tmp_path: Path
) -> None:
    made = emulated_board.installed(user_store)
    with emulated_board.standing("board1", made, tmp_path, by_tftp=True) as board:
        toml = board.toml(deploy="network")
        code, said = ended(rig(project, toml, "boot", "--", "uname", "-r"))
    assert code == 0, said
    assert built_kernel.release in said


@pytest.mark.board
@pytest.mark.parametrize("machine", ["board1", "default"])
def test_modules_are_there_and_their_traces_have_lines(
    board: EmulatedBoard, project: Path, machine: str
) -> None:
    """On a board and on any other machine; the kernel finds one by itself, too."""
    (project / "it.config").write_text(
        "CONFIG_LKDTM=m\nCONFIG_DUMMY=m\nCONFIG_DEBUG_FS=y\nCONFIG_RUNTIME_TESTING_MENU=y\n"
    )
    toml = board.toml().replace('configs = ["lkdtm"]', "configs = []")
    crash = (
        "ip link add d0 type dummy && lsmod && modprobe lkdtm && uname -r && "
        "echo WARNING >/sys/kernel/debug/provoke-crash/DIRECT"
    )
    mount = "mount -t debugfs none /sys/kernel/debug 2>/dev/null"
    words = ("--config", "modules", "--config", "it.config", "--", "sh", "-c", f"{mount}; {crash}")
    code, said = ended(rig(project, toml, "boot", *words, machine=machine))
    assert code == 0, said
    assert re.search(r"^dummy +\d+ ", said, re.MULTILINE)
    told = r"^splat: WARNING in lkdtm_WARNING at drivers/misc/lkdtm/bugs\.c:\d+ "
    assert re.search(told, said, re.MULTILINE), said
    assert re.search(r"lkdtm_do_action\+\S+ \[lkdtm\] \(drivers/misc/lkdtm/core\.c:\d+\)", said)


@pytest.mark.board
def test_it_is_booted_once_by_systemd_boot(
    uefi_board: EmulatedBoard, built_kernel: Kernel, project: Path
) -> None:
    board = uefi_board
    toml = board.toml(deploy="systemd-boot")
    words = 'it\'s "quoted"'
    code, said = ended(
        rig(
            project,
            toml,
            "boot",
            "--append",
            words,
            "--",
            "sh",
            "-c",
            "uname -r; cat /proc/cmdline",
        )
    )
    assert code == 0, said
    assert built_kernel.release in said
    assert words in said  # nothing between here and the kernel takes quotes for its own
    assert in_its_system(board, "uname -r").strip().endswith("-amd64")
    parts = consoles(project)
    assert parts["console-0.log"].count("Linux version") == 1
    assert "rig: ready" in parts["console-0.log"]
    assert parts["system-1.log"].count("Linux version") == 1
    files = in_its_system(board, "cd /efi && find rig -type f | sort; ls loader/entries")
    assert files.split() == ["rig/jumped", "rig/rig.efi", "debian.conf", "rig.conf"]
    # Again, with what is there; a kernel that says nothing has begun all the same.
    mute = "console=ttyS7 rdinit=/nothing loglevel=0"
    code, said = ended(rig(project, toml, "boot", "--append", mute, "--", "true"))
    assert code == 125, said
    assert "board1 is back in its own system after" in said
    # What it says last stays with the firmware, and comes with the run.
    crash = "echo c >/proc/sysrq-trigger; sleep 60"
    code, said = ended(rig(project, toml, "boot", "--", "sh", "-c", crash))
    assert code == 121, said
    assert "board1 had kept something of a crash" in said
    last = max((project / "results").iterdir())
    kept = [one.read_text(errors="replace") for one in last.glob("pstore-0-*")]
    assert any("Kernel panic - not syncing: sysrq triggered crash" in text for text in kept)


@pytest.mark.board
def test_a_kernel_whose_board_boots_its_own_system_instead_is_not_blamed(
    board: EmulatedBoard, built_kernel: Kernel, project: Path
) -> None:
    # The kernel is not where the script says: the firmware goes on to the disk.
    toml = board.toml(deploy="network").replace("http://10.0.2.100:80", "http://10.0.2.100:81")
    code, said = ended(rig(project, toml, "boot", "--", "true"))
    assert code == 123, said
    told = r"board1 (booted its own system again, and not|did not begin) the kernel it was given by"
    assert re.search(f"{told} network", said), said
    assert "Traceback" not in said
    assert in_its_system(board, "uname -r").strip().endswith("-amd64")


@pytest.mark.board
def test_times_are_taken_on_it(board: EmulatedBoard, built_kernel: Kernel, project: Path) -> None:
    words = ("bench", "--timed", "--boots", "1", "--only", "unused.c timed", "--json", "bench.json")
    code, said = ended(rig(project, board.toml(), *words))
    assert code == 0, said
    assert "times on board1 differ by themselves: nobody can tell its clock rate" in said
    value = json.loads((project / "bench.json").read_bytes())
    assert value["timed"][0]["rows"]
    run = json.loads(next((project / "results").glob("*/run.json")).read_bytes())
    assert run["machine"]["kind"] == "baremetal"
    assert run["machine"]["clocksource"]
    assert re.search(r"of 20 pieces of work of \d+ us", run["machine"]["noise"])
    assert float(run["machine"]["back_s"]) >= 1


@pytest.mark.board
def test_suites_run_on_it(board: EmulatedBoard, built_kernel: Kernel, project: Path) -> None:
    words = ("boot-and-test", "--suite", "abi", "--case", "inline_result", "--json", "run.json")
    code, said = ended(rig(project, board.toml(), *words))
    assert code == 0, said
    run = json.loads((project / "run.json").read_bytes())
    assert {case["status"] for case in run["cases"]} == {"pass"}
    assert run["machine"]["kind"] == "baremetal"
    assert run["machine"]["known_good"].endswith("-amd64")
    assert [Path(one).name for one in run["consoles"]] == [
        "system-0.log", "console-0.log", "system-1.log",
    ]  # fmt: skip


@pytest.mark.board
@pytest.mark.parametrize(
    ("options", "command", "code", "words"),
    [
        ([], "echo c >/proc/sysrq-trigger; sleep 60", 121, "sysrq"),
        (["--append", "rdinit=/nothing"], "true", 125, "Unable to mount root fs"),
    ],
    ids=["crash", "no root"],
)
def test_a_kernel_that_is_broken_is_told_and_the_board_comes_back(
    board: EmulatedBoard,
    built_kernel: Kernel,
    project: Path,
    options: list[str],
    command: str,
    code: int,
    words: str,
) -> None:
    comes_back(board, project, options, command, code, words)
    assert in_its_system(board, "uname -r").strip().endswith("-amd64")


@pytest.mark.board
def test_a_run_that_is_killed_leaves_a_board_that_the_next_one_gets_back(
    board: EmulatedBoard, built_kernel: Kernel, project: Path
) -> None:
    started = rig(project, board.toml(), "boot", "--", "sh", "-c", "echo there; sleep 1000")
    assert started.stdout is not None
    for line in started.stdout:
        if line.strip() == "there":
            break
    started.send_signal(signal.SIGKILL)
    _, rest = ended(started, 30)
    # A second that waits sees who holds it; here nobody does any more.
    code, said = ended(rig(project, board.toml(), "boot", "--", "echo", "again"))
    assert code == 0, rest + said
    assert "was left as it was by a run that did not come to its end: " in said
    assert f"(process {started.pid}, since" in said
    assert re.search(r"board1 is not in its own system \(.*\): its power is cycled", said)
    assert "again" in said.splitlines()


@pytest.mark.board
def test_what_is_wrong_with_a_board_is_one_error(
    board: EmulatedBoard, built_kernel: Kernel, project: Path
) -> None:
    dead = board.toml().replace(f"port = {board.serial}", f"port = {emulated_bmc.free_port()}")
    code, said = ended(rig(project, dead, "boot", "--", "true"))
    assert code == 123, said
    assert "the console of board1 at 127.0.0.1:" in said
    assert "is dead: " in said
    gone = board.toml().replace(f"port = {board.port}", f"port = {emulated_bmc.free_port()}")
    code, said = ended(rig(project, f"{gone}returns_s = 12\n", "boot", "--", "true"))
    assert code == 123, said
    assert "board1 did not come back: the system of board1 at 127.0.0.1:" in said
    assert "Traceback" not in said
