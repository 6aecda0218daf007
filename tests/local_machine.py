"""A machine of another kind: programs run on this host, the console is a real one.

It behaves as a booted guest does, at a thousandth of the time, so that every way a run can go
wrong can be caused for real. A program reaches its "kernel" through the environment:
  $RIG_KMSG   the descriptor of the console's far end: `echo text >&$RIG_KMSG`
  $RIG_STATE  a directory; a file `dead` in it ends the machine, `deaf` cuts the console off from
              marks, `unplugged` cuts the session but not the machine, `full` lets nothing be put
              into it and `stuck` lets that never end; `panicked` is what its pvpanic device says,
              and `mute` answers no new session
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rig import suite
from rig.console import Console
from rig.errors import BootError, InfrastructureError
from rig.guest import Guest
from rig.record import Record
from rig.results import BOOT_FAILED, Run, Splat
from rig.session import ConnectionLost, Finished, SessionTimeout
from rig.suite import BuiltSuite, Suite

# What the console's far end is in a program; of one digit, for shells that know no others.
_KMSG = 9
_WITH_KMSG = f'exec {_KMSG}>&"$0"; exec "$@"'
BANNER = b"[    0.000000] Linux version 6.12.0 (rig@rig) (gcc) #1 SMP\r\n"


class LocalMachine:
    """A directory, a console and a state."""

    def __init__(self, directory: Path, number: int, *, slowdown: float, says: bytes) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="rig-local-"))
        self.state = self.root / "state"
        self.state.mkdir()
        near, self.far = socket.socketpair()
        self.console = Console(near, directory / f"console-{number}.log")
        self.far.sendall(BANNER + says)
        self.console.wait_news(len(BANNER + says) - 1, 5.0)
        self.slowdown = slowdown
        self.notices = ("local: nothing is booted",)
        self.closed = False
        self.sessions: list[LocalSession] = []

    def has(self, word: str) -> bool:
        return (self.state / word).exists()

    def alive(self) -> bool:
        if self.has("dead"):
            self.far.close()
        return not self.has("dead")

    def panicked(self) -> bool:
        return self.has("panicked")

    def slipped(self) -> bool:
        return self.has("slipped")

    def diagnose(self) -> str:
        return "sysrq: Show Blocked State\ntask:sleeper state:D\n"

    def cut(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # closed already
            (self.state / "dead").touch()
        with contextlib.suppress(OSError):
            self.far.shutdown(socket.SHUT_RDWR)
        for session in self.sessions:
            session.kill()

    def close(self) -> None:
        self.closed = True
        self.far.close()
        self.console.close()
        shutil.rmtree(self.root, ignore_errors=True)


class LocalSession:
    """Runs the guest's commands on this host, in the machine's directory."""

    def __init__(self, machine: LocalMachine) -> None:
        self._machine = machine
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self.starts: Callable[[str], object] = lambda _command: None
        machine.sessions.append(self)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        on_output: Callable[[str, bytes], None] | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Finished:
        self._reach()
        far, started = str(self._machine.far.fileno()), time.monotonic()
        process = subprocess.Popen(
            ["bash", "-c", _WITH_KMSG, far, *(self._redirect(word) for word in argv)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._machine.root / (cwd or "").lstrip("/"),
            env={**os.environ, **self._environment(), **(env or {})},
            pass_fds=(int(far),),
            start_new_session=True,
        )
        self.starts(" ".join(argv))
        self._process = process
        if self._machine.has("dead"):
            self.kill()  # when the plug was pulled there was nothing to kill yet
        sink = on_output or (lambda _stream, _data: None)
        output, late = _watched(process, timeout_s, lambda data: sink("stdout", data))
        assert process.stderr is not None
        errors = process.stderr.read()
        if late:
            raise SessionTimeout(f"{argv[0]} did not end")
        self._reach()
        code = process.returncode
        taken = time.monotonic() - started
        return Finished(code if code >= 0 else 128 - code, output, errors, taken)

    def put(self, local: Path, remote: str) -> None:
        self._reach()
        if self._machine.has("full"):
            raise InfrastructureError(f"cannot copy {local} to {remote}")
        if self._machine.has("stuck"):
            raise SessionTimeout("sh did not end within 600.0 s")
        shutil.copytree(local, self._machine.root / remote.lstrip("/"), symlinks=True)

    def answers(self, timeout_s: float) -> bool:
        return not self._machine.has("mute")

    def close(self) -> None:
        self._closed = True
        self.kill()

    def kill(self) -> None:
        if self._process and self._process.poll() is None:
            # Another thread may have seen its end just now.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _reach(self) -> None:
        if self._closed or not self._machine.alive() or self._machine.has("unplugged"):
            raise ConnectionLost("connection reset by peer")

    def _redirect(self, word: str) -> str:
        place = "/dev/null" if self._machine.has("deaf") else f"&{_KMSG}"
        return word.replace("> /dev/kmsg", f">{place}")

    def _environment(self) -> dict[str, str]:
        return {"RIG_KMSG": str(_KMSG), "RIG_STATE": str(self._machine.state)}


def _watched(
    process: subprocess.Popen[bytes], timeout_s: float, sink: Callable[[bytes], None]
) -> tuple[bytes, bool]:
    """A program's output, handed on as it comes, and whether it had to be ended."""
    assert process.stdout is not None
    source, output = process.stdout.fileno(), bytearray()

    def drain() -> None:
        while chunk := os.read(source, 65536):
            output.extend(chunk)
            sink(chunk)

    reader = threading.Thread(target=drain)
    reader.start()
    try:
        reader.join(timeout_s)
        late = reader.is_alive()
    finally:
        if reader.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
        reader.join()
        process.wait()
    return bytes(output), late


class LocalLab:
    """Boots local machines; scripts need no compiling.

    boots: how many boots succeed. says: what every console says after the banner.
    """

    def __init__(self, *, slowdown: float = 1.0, boots: int = 1000, says: bytes = b"") -> None:
        self.machines: list[LocalMachine] = []
        self.prepared: list[Suite] = []
        self.is_cut = threading.Event()
        self._slowdown, self._boots, self._says = slowdown, boots, says

    def prepare(self, suites: Sequence[Suite]) -> Sequence[BuiltSuite]:
        self.prepared += suites
        return [self._build(one) for one in suites]

    def boot(self, number: int, record: Record) -> Guest:
        if number >= self._boots:
            raise BootError("the kernel did not reach login", output="Kernel panic")
        machine = LocalMachine(record.directory, number, slowdown=self._slowdown, says=self._says)
        self.machines.append(machine)
        if self.is_cut.is_set():
            machine.cut()
        record.console(machine.console.path)
        return self.guest(machine)

    def last_words(self, error: BootError, number: int, record: Record) -> None:
        words = f"{number}: {error.message}"
        record.update(lambda run: replace(run, machine={BOOT_FAILED: words}))

    def guest(self, machine: LocalMachine) -> Guest:
        return Guest(machine, LocalSession(machine))

    def close(self) -> None:
        self.closed = True

    def cut(self) -> None:
        self.is_cut.set()
        for machine in self.machines:
            machine.cut()

    def explain(self, splats: Sequence[Splat]) -> Sequence[Splat]:
        return [replace(one, place="x.c:1") for one in splats]

    def describe(self, run: Run) -> Run:
        notices = dict.fromkeys((*run.notices, "local: nothing is booted"))
        return replace(run, kernel={"name": "local"}, notices=tuple(notices))

    def _build(self, one: Suite) -> BuiltSuite:
        return BuiltSuite(one, one.directory.parent, one.directory.name, suite.programs(one))


class Late(LocalLab):
    """Its consoles speak, or its machines die, only after the program was judged."""

    def guest(self, machine: LocalMachine) -> Guest:
        return LateGuest(machine)


LATE_WORDS = {
    "late": b"[    3.000000] BUG: kernel NULL pointer dereference, address: 0\r\n",
    "dropping": b"** 57 printk messages dropped **\r\n",
}


class LateGuest(Guest):
    def __init__(self, machine: LocalMachine) -> None:
        super().__init__(machine, LocalSession(machine))
        self._local = machine

    def listen(self, until: str = "") -> tuple[Splat, ...]:
        splats = super().listen(until)
        for sign, text in LATE_WORDS.items():
            if until and self._local.has(sign):
                self._say(text)
        for sign, word in (("dying", "dead"), ("muting", "deaf")):
            if until and self._local.has(sign):
                (self._local.state / word).touch()
        return splats

    def _say(self, text: bytes) -> None:
        size = self._local.console.size()
        self._local.far.sendall(text)
        self._local.console.wait_news(size + len(text) - 1, 5.0)


class Writer:
    """Writes suites of shell scripts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._numbers = itertools.count()

    def suite(self, name: str, *, timeout: int = 10, **programs: str) -> Path:
        """A suite directory; each program is the body of a shell script."""
        place = self.root / name
        place.mkdir(parents=True)
        (place / "Makefile").write_text(
            f"TEST_PROGS := {' '.join(f'{one}.sh' for one in programs)}\ninclude ../lib.mk\n"
        )
        (place / "settings").write_text(f"timeout={timeout}\n")
        for program, body in programs.items():
            script = place / f"{program}.sh"
            script.write_text(f"#!/bin/sh\n{body}\n")
            script.chmod(0o755)
        return place
