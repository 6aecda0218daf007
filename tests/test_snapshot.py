"""A machine's ready state: saved once, restored pristine and renewed, and never trusted blindly."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
import tty
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rig import upkeep
from rig.config import Config, MachineConfig
from rig.errors import InfrastructureError
from rig.image import Image
from rig.kbuild import Kernel
from rig.lab import KernelLab
from rig.machine import plan, qemu, snapshot
from rig.machine.plan import Plan
from rig.machine.qemu import QemuMachine
from rig.machine.snapshot import Snapshot
from rig.record import Record
from rig.store import Store

ROOT = Path(__file__).parents[1]
PLAN = Plan(
    binary="qemu-system-x86_64",
    accel="tcg",
    cpus=2,
    memory_mib=512,
    kernel=Path("/k/vmlinux"),
    append="console=ttyS0",
    disk=Path("/i/disk.img"),
    console="socket,fd=7",
)


def saved_in(directory: Path, discarded: list[str] | None = None) -> Snapshot:
    """The snapshot of a directory; what is discarded is put into the list."""
    gone = discarded if discarded is not None else []
    return snapshot.load("key", directory, lambda: gone.append("key"))


# ------------------------------------------------------------------------------- pure values


def test_what_a_saved_machine_writes_is_kept() -> None:
    words = plan.command_line(snapshot.saving(PLAN, Path("/s")))
    assert "memory-backend-file,id=memory,size=512M,mem-path=/s/memory,share=on" in words
    assert "q35,memory-backend=memory" in words
    drive = next(word for word in words if word.startswith("file="))
    assert drive.startswith("file=/s/disk.qcow2,format=qcow2,")
    assert "snapshot=off" in drive
    assert "-incoming" not in words


def test_what_a_restored_machine_writes_is_thrown_away() -> None:
    kept = Snapshot(
        "k", Path("/s/disk.qcow2"), Path("/s/memory"), Path("/s/state"), Path("/s/c"), b"", 1, list
    )
    words = plan.command_line(snapshot.restoring(PLAN, kept))
    assert "memory-backend-file,id=memory,size=512M,mem-path=/s/memory,share=off" in words
    assert "snapshot=on" in next(word for word in words if word.startswith("file="))
    assert words[-4:] == ["-incoming", "defer", "-global", "migration.announce-rounds=0"]
    assert "virtserialport,bus=lines.0,nr=2,chardev=renewal,name=rig.renewal" in words


@pytest.fixture
def binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of the emulator's name, first on PATH."""
    place = tmp_path / "bin" / PLAN.binary
    place.parent.mkdir()
    place.write_text("#!/bin/sh\n")
    place.chmod(0o755)
    monkeypatch.setenv("PATH", str(place.parent))
    return place


def test_the_key_depends_on_all_that_the_state_does(binary: Path) -> None:
    base = snapshot.key(PLAN, "kernel", "image")
    assert base == snapshot.key(
        replace(PLAN, console="x", monitor="y", session="z", port=1), "kernel", "image"
    )
    others = {
        snapshot.key(PLAN, "other", "image"),
        snapshot.key(PLAN, "kernel", "other"),
        snapshot.key(replace(PLAN, accel="kvm"), "kernel", "image"),
        snapshot.key(replace(PLAN, cpus=1), "kernel", "image"),
        snapshot.key(replace(PLAN, memory_mib=256), "kernel", "image"),
        snapshot.key(replace(PLAN, append="quiet"), "kernel", "image"),
    }
    os.utime(binary, ns=(0, 0))
    others.add(snapshot.key(PLAN, "kernel", "image"))
    assert len(others) == 7
    assert base not in others


def test_no_emulator_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfrastructureError, match="qemu-system-x86_64 is not installed"):
        snapshot.key(PLAN, "kernel", "image")
    with pytest.raises(InfrastructureError, match="qemu-img is not installed"):
        snapshot.make_disk(tmp_path / "disk.qcow2", tmp_path / "disk.img")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight": "x"}'])
def test_damaged_facts(tmp_path: Path, text: str) -> None:
    (tmp_path / snapshot.FACTS).write_text(text)
    with pytest.raises(InfrastructureError, match="damaged snapshot") as caught:
        saved_in(tmp_path)
    assert str(tmp_path) in caught.value.hint


# --------------------------------------------------------------------------- the session line

OFFER = struct.pack(">IBB", 30, 9, 20) + bytes(28)  # a packet of type KEXINIT
HELLO = b"SSH-2.0-dropbear_2022.83\r\n"


@pytest.mark.parametrize("heard", [HELLO + OFFER, b"Welcome\r\nto SSH-2\r\n" + HELLO + OFFER])
def test_a_greeting_in_pieces(heard: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(heard[:35])
        threading.Timer(0.05, theirs.sendall, [heard[35:]]).start()
        assert snapshot.greeting(ours, 5.0) == heard


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (HELLO + OFFER + b"x", "it said more"),
        (HELLO + OFFER.replace(b"\x09\x14", b"\x09\x15"), "it said something else"),
        (HELLO + b"\xff" + OFFER, "it said something else"),
        (HELLO + OFFER[:-1], "timed out"),
        (b"no version\r\n" + OFFER, "timed out"),
        (HELLO, "timed out"),
    ],
)
def test_any_other_greeting_is_an_error(said: bytes, why: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(said)
        with pytest.raises(InfrastructureError, match=f"did not greet us.*{why}"):
            snapshot.greeting(ours, 0.3)


def test_hanging_up_is_no_greeting() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(InfrastructureError, match="it hung up"):
        snapshot.greeting(ours, 5.0)


# --------------------------------------------------------------------------- the renewal line


def answering(line: socket.socket, answer: bytes) -> None:
    def answered() -> None:
        line.recv(4096)
        line.sendall(answer)

    threading.Thread(target=answered, daemon=True).start()


@pytest.mark.parametrize(
    ("answer", "words"),
    [(b"failed: clock: no\r\n", "failed: clock: no"), (b"renewe\n", "renewe"), (b"", "timed out")],
)
def test_any_other_answer_is_an_error(answer: bytes, words: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answering(theirs, answer)
        with pytest.raises(InfrastructureError, match=words):
            snapshot.ask(ours, b"renew x\n", "renewed", 0.3)


def test_a_closed_line_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(InfrastructureError, match="did not answer 'hello'"):
        snapshot.ask(ours, b"hello\n", "ready", 5.0)


def test_an_answer_in_two_pieces() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"rea")
        threading.Timer(0.05, theirs.sendall, [b"dy\r\n"]).start()
        snapshot.ask(ours, b"hello\n", "ready", 5.0)
        assert theirs.recv(4096) == b"hello\n"


def test_no_two_renewals_are_alike() -> None:
    first, second = (snapshot.renewal().split(b" ") for _ in range(2))
    assert len(first) == 3
    assert len(first[1]) == 64
    assert abs(float(first[2]) - time.time()) < 60
    assert all(a != b for a, b in zip(first[1:], second[1:], strict=True))
    assert snapshot.renewal("true").split(b" ")[3] == b"true\n"


@pytest.fixture(scope="module")
def renewer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest's side of the line, compiled for this host."""
    made = tmp_path_factory.mktemp("renew") / "renew"
    source = ROOT / "images/debian/renew.c"
    subprocess.run(["gcc", "-Wall", "-Wextra", "-Werror", "-o", made, source], check=True)
    return made


# What it refuses before it has changed anything; the rest would change this host.
@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"renew 00\n", b"failed: message: Bad message"),
        (b"renew 00 1.0\n", b"failed: seed: Invalid argument"),
        (b"renew " + b"0" * 66 + b" 1.0\n", b"failed: seed: Invalid argument"),
        (b"renew " + b"z" * 64 + b" 1.0\n", b"failed: seed: Invalid argument"),
        (b"renew " + b"0" * 64 + b" 1.0\n", b"failed: randomness: Bad file descriptor"),
        (b"renew " + b"0" * 64 + b" 1.0 true\n", b"failed: randomness: Bad file descriptor"),
    ],
)
def test_the_guests_side_of_the_line(renewer: Path, sent: bytes, answer: bytes) -> None:
    near, far = os.openpty()
    tty.setraw(far)  # as a port of its own is
    program = subprocess.Popen([renewer, os.ttyname(far)])
    try:
        os.write(near, sent)
        assert select.select([near], [], [], 10)[0], "it does not answer"
        assert os.read(near, 4096).strip() == answer
        assert program.wait(10) == 1
    finally:
        program.kill()
        program.wait()
        os.close(near)
        os.close(far)


def test_no_such_line_is_no_error(renewer: Path, tmp_path: Path) -> None:
    assert subprocess.run([renewer, tmp_path / "none"], check=False).returncode == 0


# ------------------------------------------------------------------------------ a real kernel


@pytest.fixture(scope="module")
def kept(
    built_kernel: Kernel, built_image: Image, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A saved machine, made for these tests."""
    place = tmp_path_factory.mktemp("saved")
    with contextlib.closing(machine_of(built_kernel, built_image, place, saving=place)) as machine:
        machine.boot()
        machine.save()
    return place


def machine_of(kernel: Kernel, image: Image, results: Path, **options: object) -> QemuMachine:
    return QemuMachine(MachineConfig("test"), kernel, image, results=results, **options)  # type: ignore[arg-type]


@pytest.fixture
def restored(
    kept: Path, built_kernel: Kernel, built_image: Image, tmp_path: Path
) -> Iterator[list[QemuMachine]]:
    """Two machines restored from it, side by side."""
    with contextlib.ExitStack() as stack:
        machines = []
        for number in range(2):
            one = machine_of(
                built_kernel, built_image, tmp_path, number=number, snapshot=saved_in(kept)
            )
            stack.callback(one.close)
            one.boot()
            machines.append(one)
        yield machines


def told(machine: QemuMachine, script: str) -> str:
    with machine.connect() as session:
        done = session.run(["sh", "-c", script], timeout_s=30 * machine.slowdown)
    assert done.exit_code == 0, done.stderr
    return done.stdout.decode().strip()


@pytest.mark.kernel
def test_two_restored_machines_share_nothing(restored: list[QemuMachine]) -> None:
    script = (
        "test ! -e /left && echo x >/left && sync; hostname; cat /etc/machine-id; "
        "head -c 16 /dev/urandom | od -An -tx1; getent hosts $(hostname) | cut -d' ' -f1; date +%s"
    )
    first, second = (told(machine, script).splitlines() for machine in restored)
    assert all(a != b for a, b in zip(first[:3], second[:3], strict=True))
    assert first[0] == f"rig-{first[1][:8]}"
    assert first[3] == "127.0.0.1"
    assert abs(int(second[4]) - time.time()) < 60
    assert all(machine.facts["start"] == "snapshot key" for machine in restored)
    assert not any("power-on" in notice for one in restored for notice in one.notices)
    assert all(1.0 <= machine.slowdown < qemu.MAX_SLOWDOWN for machine in restored)


@pytest.mark.kernel
def test_the_first_session_has_the_slowdown_that_was_measured(restored: list[QemuMachine]) -> None:
    machine = restored[0]
    with machine.connect() as session:
        assert session.slowdown == machine.slowdown < qemu.MAX_SLOWDOWN


@pytest.mark.kernel
def test_the_console_begins_at_power_on(restored: list[QemuMachine]) -> None:
    told(restored[0], 'echo "<4>after the restore" >/dev/kmsg')
    restored[0].console.mark("after the restore", 30)
    text = restored[0].console.path.read_text(errors="replace")
    assert text.index("Linux version") < text.index("rig: ready") < text.index("after the restore")
    assert restored[0].console.splats() == []


@pytest.mark.kernel
def test_nothing_of_the_saved_session_is_left(restored: list[QemuMachine]) -> None:
    assert told(restored[0], "pgrep -c dropbear") == "1"  # the one that has this session
    assert told(restored[1], "pgrep -c renew || :") == "0"


@pytest.mark.kernel
@pytest.mark.parametrize("name", [snapshot.STATE, snapshot.MEMORY])
def test_a_damaged_snapshot_costs_a_boot(
    kept: Path, built_kernel: Kernel, built_image: Image, tmp_path: Path, name: str
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(kept, damaged)
    image = os.path.relpath(built_image.disk, damaged)
    subprocess.run(
        ["qemu-img", "rebase", "-u", "-F", "raw", "-b", image, damaged / snapshot.DISK], check=True
    )
    with (damaged / name).open("r+b") as file:
        file.truncate(4096)
    discarded: list[str] = []
    machine = machine_of(
        built_kernel, built_image, tmp_path / "results", snapshot=saved_in(damaged, discarded)
    )
    with contextlib.closing(machine):
        machine.boot()
        assert told(machine, "hostname") == "rig"
        assert machine.facts["start"] == "power-on"
        assert "snapshot key could not be restored" in machine.notices[-1]
        assert discarded == ["key"]


@pytest.mark.kernel
def test_the_first_boot_saves_and_the_next_restore(
    built_kernel: Kernel, rig_config: Config, user_store: Store, tmp_path: Path
) -> None:
    place = Store(tmp_path / "store")
    for kind in ("kernel", "image", "source", "tree", "build"):
        (user_store.root / kind).mkdir(exist_ok=True)
        place.root.mkdir(exist_ok=True)
        (place.root / kind).symlink_to(user_store.root / kind)
    starts = []
    for number in range(3):
        if number == 2:  # QEMU would take this for an empty disk; the store must not
            os.truncate(next((place.root / "snapshot").glob("*/disk.qcow2")), 4096)
        lab = KernelLab(rig_config, rig_config.kernel(), rig_config.machine(), place)
        lab.prepare(())
        machine = lab.machine(tmp_path / "results", number=number)
        assert isinstance(machine, QemuMachine)
        with contextlib.closing(machine):
            machine.boot()
            starts.append((machine.facts["start"], told(machine, "cat /etc/machine-id")))
    (entry,) = (one for one in upkeep.entries(place) if one.kind == "snapshot")
    assert {start for start, _ in starts} == {f"snapshot {entry.key}"}
    assert len({machine_id for _, machine_id in starts}) == 3
    assert (place.root / "snapshot" / entry.key / snapshot.DISK).stat().st_size > 4096
    left = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert left == [f"{kind}-{number}.log" for kind in ("console", "qemu") for number in range(3)]
    lab = KernelLab(rig_config, rig_config.kernel(), rig_config.machine(), place, cold=True)
    lab.prepare(())
    with contextlib.closing(lab.machine(tmp_path / "results", number=3)) as machine:
        machine.boot()
        assert machine.facts["start"] == "power-on"


@pytest.mark.kernel
@pytest.mark.usefixtures("built_kernel", "built_image")
def test_a_kernel_without_the_port_is_not_saved(
    rig_config: Config, user_store: Store, tmp_path: Path
) -> None:
    machine = replace(rig_config.machine(), append="initcall_blacklist=virtio_console_init")
    lab = KernelLab(rig_config, rig_config.kernel(), machine, user_store)
    lab.prepare(())
    for number in range(2):
        with contextlib.closing(lab.machine(tmp_path / "results", number=number)) as one:
            one.boot()
            assert one.facts["start"] == "power-on"
    told_of = lab.describe(Record.begin(tmp_path / "record", "rig", "k").run).notices
    assert "booted from power-on: no snapshot is kept, its kernel has no virtio port" in told_of
