"""The ready state of a machine: saved once, begun from many times."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rig import process
from rig.errors import InfrastructureError
from rig.machine.plan import Plan, command_line
from rig.store import digest

_RECIPE = "2"  # raise when a state saved before cannot be begun from any more
_SEED_BYTES = 32
_CPUINFO = Path("/proc/cpuinfo")

DISK, MEMORY, STATE = "disk.qcow2", "memory", "state"
CONSOLE, FACTS = "console.log", "facts.json"
GREETING = "greeting"


@dataclass(frozen=True)
class Snapshot:
    """A saved machine in the store.

    disk, memory: what the machine had written, files that a restored machine gets a private view
    of. state: the rest of it. console: what it had said. greeting: what the sshd of its session
    line had said on that. weight: its slowdown over the one that a restore measures. discard:
    forgets it, after it turned out to be damaged.
    """

    key: str
    disk: Path
    memory: Path
    state: Path
    console: Path
    greeting: bytes
    weight: float
    discard: Callable[[], object]


def key(plan: Plan, kernel: str, image: str) -> str:
    """What the state of a machine depends on: kernel and image by their keys, the virtual
    hardware, this QEMU, and with KVM the host's processor.
    """
    found = shutil.which(plan.binary)
    if not found:
        raise InfrastructureError(
            f"{plan.binary} is not installed",
            hint="`rig doctor` prints the line that installs what is missing",
        )
    program = Path(found).resolve()
    status = program.stat()
    host = [str(program), str(status.st_size), str(status.st_mtime_ns)]
    if plan.accel == "kvm":
        model = re.search(r"^model name.*$|^flags.*$", _CPUINFO.read_text(), re.MULTILINE)
        host += [os.uname().release, model.group() if model else ""]
    # Of what the command line says, all but where files lie and lines end.
    bare = replace(plan, kernel=Path("kernel"), disk=Path("disk"), shelf="", port=0)
    words = command_line(replace(bare, console="null", monitor="", session="null", gdb=""))
    return digest(_RECIPE, kernel, image, *words, *host)[:32]


def saving(plan: Plan, directory: Path) -> Plan:
    """The plan of the machine that will be saved: it writes to files in this directory."""
    return replace(
        plan, disk=directory / DISK, memory=str(directory / MEMORY), kept=True, renewal="null"
    )


def restoring(plan: Plan, snapshot: Snapshot) -> Plan:
    """The plan of a machine that begins from a snapshot."""
    return replace(
        plan, disk=snapshot.disk, memory=str(snapshot.memory), incoming=True, renewal="null"
    )


def make_disk(disk: Path, image: Path) -> None:
    """An empty layer over an image's disk; by a relative path, so that the store can be moved."""
    base = os.path.relpath(image, disk.parent)
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, str(disk)]
    if not shutil.which(words[0]):
        raise InfrastructureError(
            "qemu-img is not installed",
            hint="`rig doctor` prints the line that installs what is missing",
        )
    process.run(words, timeout_s=60)


def finish(directory: Path, weight: float, logs: tuple[Path, Path]) -> None:
    """Put what opens the snapshot again beside its files: facts, and the console's recording.

    logs: the recording and QEMU's log, which belong to no run.
    """
    shutil.move(logs[0], directory / CONSOLE)
    logs[1].unlink()
    (directory / FACTS).write_text(json.dumps({"weight": round(weight, 2)}) + "\n")


def load(key: str, directory: Path, discard: Callable[[], object]) -> Snapshot:
    """The snapshot in a directory of the store. InfrastructureError when it is damaged."""
    try:
        facts = json.loads((directory / FACTS).read_bytes())
        weight = float(facts["weight"])
        greeting = (directory / GREETING).read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InfrastructureError(
            f"{directory}: damaged snapshot: {error}", hint=f"remove it: rm -r {directory}"
        ) from error
    return Snapshot(
        key=key,
        disk=directory / DISK,
        memory=directory / MEMORY,
        state=directory / STATE,
        console=directory / CONSOLE,
        greeting=greeting,
        weight=weight,
        discard=discard,
    )


# --- the line on which the first session is served (images/*/init.c) ----------------------------

_VERSION = re.compile(rb"(?:.*\n)*?SSH-.*\n")
_PACKET_MAX = 35000
_KEXINIT = 20


def greeting(line: socket.socket, timeout_s: float) -> bytes:
    """All that an sshd says before it is spoken to: its version and its offer for the key exchange.

    InfrastructureError for anything else, or when it does not come in time.
    """
    heard, deadline = b"", time.monotonic() + timeout_s
    while not (size := greeting_size(heard)) or len(heard) < size:
        try:
            line.settimeout(max(deadline - time.monotonic(), 0.001))
            chunk = line.recv(4096)
        except OSError as error:
            raise _no_greeting(str(error) or "time-out", heard) from error
        if not chunk:
            raise _no_greeting("it hung up", heard)
        heard += chunk
    if len(heard) > size:
        raise _no_greeting("it said more", heard)
    return heard


def greeting_size(heard: bytes) -> int:
    """How long the greeting is that begins with this; 0 when that cannot be known yet. Pure.

    RFC 4253: lines of text of which the last begins with "SSH-" (4.2), then a packet with its
    length before it (6), of type KEXINIT (7.1). InfrastructureError when it is none.
    """
    version = _VERSION.match(heard)
    if not version or len(heard) < version.end() + 6:
        return 0
    length, _, kind = struct.unpack_from(">IBB", heard, version.end())
    if length > _PACKET_MAX or kind != _KEXINIT:
        raise _no_greeting("it said something else", heard)
    return version.end() + 4 + int(length)


def _no_greeting(why: str, heard: bytes) -> InfrastructureError:
    return InfrastructureError(
        f"the guest's sshd did not greet us on the session line: {why}",
        output=heard[-2000:].decode(errors="replace"),
    )


# --- the line over which a restored machine is renewed (images/*/renew.c) -----------------------


def renewal(rehearse: str = "") -> bytes:
    """A message that gives a machine randomness and time of day; it names itself anew from that.

    rehearse: a program that it is to run after that, so that its processors know how.
    """
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    words = ["renew", secrets.token_hex(_SEED_BYTES), f"{seconds}.{nanoseconds:09d}"]
    return " ".join([*words, *([rehearse] if rehearse else [])]).encode() + b"\n"


def ask(line: socket.socket, message: bytes, expected: str, timeout_s: float) -> None:
    """Send a message over the renewal line and wait for the answer that has to come.

    InfrastructureError for any other answer, none in time, or a closed line.
    """
    answer = b""
    deadline = time.monotonic() + timeout_s
    try:
        line.sendall(message)
        while b"\n" not in answer:
            line.settimeout(max(deadline - time.monotonic(), 0.001))
            chunk = line.recv(4096)
            if not chunk:
                break
            answer += chunk
    except OSError as error:
        raise _no_answer(message, str(error) or "time-out") from error
    said = answer.decode(errors="replace").strip()
    if said != expected:
        raise _no_answer(message, repr(said))


def _no_answer(message: bytes, why: str) -> InfrastructureError:
    word = message.split()[0].decode()
    return InfrastructureError(f"the guest did not answer {word!r} on its renewal line: {why}")
