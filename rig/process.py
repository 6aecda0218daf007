"""The one way to run or spawn a host command: argv, deadline, log, sandbox, dies with us."""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rig.errors import InfrastructureError

# Reads "+PGID" and "-PGID" lines; when the rig's end of the pipe closes, for whatever reason
# (SIGKILL included), it kills every process group still on the list.
_GUARD = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
print("ready", flush=True)
groups, places = set(), set()
for line in sys.stdin:
    if line[0] in "@!":
        (places.add if line[0] == "@" else places.discard)(line[1:-1])
    else:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
if places:
    import shutil
    for place in places:
        shutil.rmtree(place, ignore_errors=True)
"""

_TAIL_BYTES = 1 << 20


@dataclass(frozen=True)
class Sandbox:
    """What a host command may touch. Today there is one policy, "none"; the type is the seam."""

    name: str = "none"

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs argv under this policy."""
        return list(argv)


UNCONFINED = Sandbox()


@dataclass(frozen=True)
class Completed:
    """A host command that ended.

    output: the last MiB of stdout and stderr as they came; of stdout alone where they were
    asked for separately, with stderr in `errors`.
    """

    argv: tuple[str, ...]
    returncode: int
    output: str
    duration_s: float
    errors: str = ""

    @property
    def command(self) -> str:
        """The command as a line to paste into a shell."""
        return shlex.join(self.argv)


class _Guard:
    """The watcher process of this rig, started with the first command."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def start(self) -> None:
        """Start it where it does not run; it is waited for only by who has to tell it something."""
        with self._lock:
            self._start()

    def tell(self, line: str) -> None:
        """Send a line; "" only sees to it that the guard is there."""
        with self._lock:
            guard = self._start()
            assert guard.stdin is not None
            assert guard.stdout is not None
            # It ignores signals and reads from its word on: a command started before could be lost.
            if not guard.stdout.closed:
                guard.stdout.readline()
                guard.stdout.close()
            try:
                guard.stdin.write(line.encode())
                guard.stdin.flush()
            except BrokenPipeError as error:
                raise InfrastructureError("the rig's process guard was killed") from error

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid():
            self._owner = os.getpid()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _GUARD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._process


_guard = _Guard()


@contextlib.contextmanager
def scratch(prefix: str, parent: str) -> Iterator[str]:
    """A temporary directory that is gone in the end, also where the rig is killed."""
    place = tempfile.mkdtemp(prefix=prefix, dir=parent)
    try:
        _guard.tell(f"@{place}\n")
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        _guard.tell(f"!{place}\n")


def prepare() -> None:
    """Have the watcher start while the caller does something else, before the first command."""
    _guard.start()


_lent: list[int] = []
_lent_lock = threading.Lock()


@contextlib.contextmanager
def lent(descriptor: int) -> Iterator[None]:
    """Give every command started in this block an open file of ours, for the lock that is on it.

    A flock goes with the last process that has the file: what a killed rig started still keeps
    others out until it is dead too.
    """
    with _lent_lock:
        _lent.append(descriptor)
    try:
        yield
    finally:
        with _lent_lock:
            _lent.remove(descriptor)


def spawn(
    argv: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    sandbox: Sandbox = UNCONFINED,
) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own that dies with the rig; end it with `end`.

    env replaces the whole environment when given. Raises InfrastructureError when the
    program is not there.
    """
    words = sandbox.wrap([os.fspath(word) for word in argv])
    _guard.tell("")
    try:
        # Nobody takes a lent file back while a command is given it.
        with _lent_lock:
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env=None if env is None else dict(env),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(*pass_fds, *_lent),
                start_new_session=True,
            )
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise InfrastructureError(
            f"cannot run {words[0]}: {error.strerror}: {error.filename}",
            hint="`rig doctor` says what is missing and how to install it",
        ) from error
    try:
        _guard.tell(f"+{process.pid}\n")
    except BaseException:
        _kill_group(process.pid)
        process.wait()
        raise
    return process


def end(process: subprocess.Popen[bytes], *, grace_s: float = 0.0) -> int:
    """End a spawned command and all it started (SIGTERM, grace_s, SIGKILL); its return code."""
    if process.poll() is None and grace_s > 0:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    _kill_group(process.pid)
    code = process.wait()
    _guard.tell(f"-{process.pid}\n")
    return code


def _kill_group(pgid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signal.SIGKILL)


def _watch(process: subprocess.Popen[bytes], sink: _Sink, timeout_s: float | None) -> None:
    """Take what the process says until it ends; TimeoutError or TimeoutExpired at the deadline."""
    assert process.stdout is not None
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with process.stdout:
        for chunk in _chunks(process.stdout, deadline):
            sink.feed(chunk)
    process.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))


def _chunks(pipe: IO[bytes], deadline: float | None) -> Iterator[bytes]:
    """What comes through pipe until it closes; TimeoutError at the deadline (monotonic)."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if (left is not None and left <= 0) or not selector.select(left):
                raise TimeoutError
            chunk = os.read(pipe.fileno(), 65536)
            if not chunk:
                return
            yield chunk


class _Sink:
    """Keeps the tail of an output, copies it to a log and hands whole lines on."""

    def __init__(self, log: IO[bytes] | None, on_line: Callable[[str], None] | None) -> None:
        self.tail = bytearray()
        self._log, self._on_line, self._partial = log, on_line, b""

    def feed(self, chunk: bytes) -> None:
        self.tail += chunk
        del self.tail[:-_TAIL_BYTES]
        if self._log:
            self._log.write(chunk)
            self._log.flush()
        if self._on_line:
            *lines, self._partial = (self._partial + chunk).split(b"\n")
            for line in lines:
                self._on_line(line.decode(errors="replace"))

    def finish(self) -> str:
        if self._on_line and self._partial:
            self._on_line(self._partial.decode(errors="replace"))
        return self.tail.decode(errors="replace")


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout_s: float | None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    check: bool = True,
    separate: bool = False,
    sandbox: Sandbox = UNCONFINED,
) -> Completed:
    """Run a command to its end, stdout and stderr together unless `separate`.

    timeout_s: seconds before it and all it started are killed; None only where a person waits.
    log: a file the output is appended to as it comes. on_line: called with every line.
    check: raise InfrastructureError on a non-zero exit. A time-out always raises it.
    """
    words = tuple(os.fspath(word) for word in argv)
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        sink = _Sink(stack.enter_context(log.open("ab")) if log else None, on_line)
        errors = stack.enter_context(tempfile.TemporaryFile()) if separate else None
        process = spawn(
            words,
            cwd=cwd,
            env=env,
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors or subprocess.STDOUT,
            sandbox=sandbox,
        )
        stack.callback(end, process)
        try:
            _watch(process, sink, timeout_s)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            raise InfrastructureError(
                f"{words[0]} did not end within {timeout_s:g} s",
                output=sink.finish()[-4000:],
                reproduce=shlex.join(words),
            ) from error
        said = _read_back(errors) if errors else ""
    took = time.monotonic() - started
    done = Completed(words, process.returncode, sink.finish(), took, said)
    if check and done.returncode != 0:
        raise InfrastructureError(
            f"{words[0]} failed with exit code {done.returncode}",
            output=(done.errors + done.output)[-4000:],
            reproduce=done.command,
        )
    return done


def _read_back(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(_TAIL_BYTES).decode(errors="replace")
