"""The ready state of a machine: saved once, begun from many times."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rig import process
from rig.errors import InfrastructureError
from rig.machine.plan import Plan, command_line
from rig.store import digest

_RECIPE = "1"  # raise when a state saved before cannot be begun from any more
_SEED_BYTES = 32
_CPUINFO = Path("/proc/cpuinfo")

DISK, MEMORY, STATE = "disk.qcow2", "memory", "state"
CONSOLE, FACTS = "console.log", "facts.json"


@dataclass(frozen=True)
class Snapshot:
    """A saved machine in the store.

    disk, memory: what the machine had written, files that a restored machine gets a private view
    of. state: the rest of it. console: what it had said. weight: its slowdown over the
    one that a restore measures. discard: forgets it, after it turned out to be damaged.
    """

    key: str
    disk: Path
    memory: Path
    state: Path
    console: Path
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
    words = command_line(replace(bare, console="null", monitor="", gdb=""))
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
        weight=weight,
        discard=discard,
    )


# --- the line over which a restored machine is renewed (images/*/renew.c) -----------------------


def renewal() -> bytes:
    """A message that gives a machine randomness and time of day; it names itself anew from that."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"renew {secrets.token_hex(_SEED_BYTES)} {seconds}.{nanoseconds:09d}\n".encode()


def ask(line: socket.socket, message: bytes, expected: str, timeout_s: float) -> None:
    """Send a message over the renewal line and wait for the answer that has to come.

    InfrastructureError for any other answer, none in time, or a closed line.
    """
    line.settimeout(timeout_s)
    answer = b""
    deadline = time.monotonic() + timeout_s
    try:
        line.sendall(message)
        while b"\n" not in answer and time.monotonic() < deadline:
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
    return InfrastructureError(
        f"the guest did not answer {word!r} on its second serial line: {why}"
    )
