"""Run, put and get in a machine over SSH; the host key is pinned."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import select
import shlex
import signal
import socket
import sys
import tarfile
import tempfile
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Protocol

import paramiko
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from rig.errors import InfrastructureError, LostMachineError, RigError

# The library logs what it then also raises.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)

_CHUNK = 1 << 16
_COPY_TIMEOUT_S = 600.0
# Seconds on a machine of full speed; a slower one gets its slowdown's multiple.
_KILL_TIMEOUT_S = 15.0
# A process the program left behind may hold its output open: how long a silence we wait for after
# the program's end, and how long we listen at most when there is none.
_LINGER_S, _LINGER_MAX_S = 1.0, 30.0
_FOR_EVER_S = 1e6
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Sink = Callable[[str, bytes], None]


class Stream(Protocol):
    """What output goes to, as it comes."""

    def write(self, data: bytes, /) -> int: ...
    def flush(self) -> object: ...


class SessionTimeout(RigError):
    """A program in the guest did not end in time; stdout and stderr are what it wrote."""

    exit_code = 1

    def __init__(self, message: str, *, stdout: bytes = b"", stderr: bytes = b"") -> None:
        super().__init__(message, output=(stdout + stderr)[-4000:].decode(errors="replace"))
        self.stdout, self.stderr = stdout, stderr


class ConnectionLost(LostMachineError):
    """The machine or its sshd went away; stdout and stderr are what came before."""

    def __init__(self, message: str, *, stdout: bytes = b"", stderr: bytes = b"") -> None:
        super().__init__(message, output=(stdout + stderr)[-4000:].decode(errors="replace"))
        self.stdout, self.stderr = stdout, stderr


class StrangerError(InfrastructureError):
    """Somebody else answers: another host key than the one that is expected."""


@dataclass(frozen=True)
class Endpoint:
    """Where and as whom to log in. host_key: "ssh-ed25519 AAAA...", the only one accepted."""

    host: str
    port: int
    user: str
    client_key: Path
    host_key: str


@dataclass(frozen=True)
class Line:
    """A connection to an sshd that waits at its far end. heard: what it has said on it already."""

    socket: socket.socket
    heard: bytes = b""


@dataclass(frozen=True)
class Finished:
    """A program that ended. exit_code: its own, or 128 + n when signal n ended it."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    duration_s: float


class Session:
    """A logged-in connection; programs run one after the other or side by side."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        connect_timeout_s: float,
        slowdown: float = 1.0,
        alive: Callable[[], bool] = lambda: True,
        line: Line | None = None,
        meanwhile: Callable[[], float | None] = lambda: None,
    ) -> None:
        """Log in. ConnectionLost when nobody answers in time, InfrastructureError when the
        machine shows another host key or refuses ours.

        slowdown: the machine's; the session's own deadlines (not those it is given) are
        multiplied by it. alive: whether there is somebody to wait for; a dead machine's port may
        be another one's soon, with the host key of the same image. line: to be used in place of
        the endpoint's port. meanwhile: called while keys are exchanged, or the line is silent yet;
        nobody has logged in before it returns, and what it raises ends the session. It may return
        another connect_timeout_s, which begins then.
        """
        self.slowdown = slowdown
        self._numbers = itertools.count(1)
        if line:
            self._transport = _login(endpoint, _Continued(line), connect_timeout_s, meanwhile)
        else:
            self._transport = _connect(endpoint, connect_timeout_s, alive, meanwhile)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; idempotent."""
        self._transport.close()

    def answers(self, timeout_s: float) -> bool:
        """Whether the far end opens a channel in time: user space runs there, and is reached."""
        try:
            self._transport.open_session(timeout=timeout_s).close()
        except (paramiko.SSHException, OSError, EOFError):
            return False
        return True

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes | BinaryIO = b"",
        on_output: Sink | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        on_timeout: Callable[[], object] | None = None,
    ) -> Finished:
        """Run a program to its end and keep its output.

        on_output(stream, data): called as output comes, stream is "stdout" or "stderr".
        on_timeout: called at the deadline while the program is still there, to look at it.
        Raises SessionTimeout after having ended the program's process group in the guest, and
        ConnectionLost when the machine went away.
        """
        kept = {"stdout": bytearray(), "stderr": bytearray()}

        def sink(stream: str, data: bytes) -> None:
            kept[stream].extend(data)
            if on_output:
                on_output(stream, data)

        started = time.monotonic()
        try:
            code = self._execute(
                argv, _source(stdin), sink, timeout_s, cwd=cwd, env=env, on_timeout=on_timeout
            )
        except (SessionTimeout, ConnectionLost) as error:
            error.stdout, error.stderr = bytes(kept["stdout"]), bytes(kept["stderr"])
            error.output = (error.stdout + error.stderr)[-4000:].decode(errors="replace")
            raise
        took = time.monotonic() - started
        return Finished(code, bytes(kept["stdout"]), bytes(kept["stderr"]), took)

    def stream(self, argv: Sequence[str], stdin: BinaryIO, stdout: Stream, stderr: Stream) -> int:
        """Run a program with these as its streams, nothing kept; its exit code.

        No deadline: for a person, who can interrupt. Raises ConnectionLost.
        """
        files = {"stdout": stdout, "stderr": stderr}

        def sink(stream: str, data: bytes) -> None:
            files[stream].write(data)
            files[stream].flush()

        return self._execute(argv, stdin, sink, None)

    def put(self, local: Path, remote: str, *, timeout_s: float = _COPY_TIMEOUT_S) -> None:
        """Copy a file, or a directory and all in it, to the path `remote`; modes are kept.

        Missing parents are made; an existing directory is added to. Owner is root.
        """
        target = PurePosixPath(remote)
        with tempfile.TemporaryFile() as packed:
            with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
                tar.add(local, arcname=target.name, filter=_as_root)
            packed.seek(0)
            script = 'mkdir -p "$1" && exec tar -C "$1" -xf -'
            argv = ["sh", "-c", script, "put", str(target.parent)]
            done = self.run(argv, timeout_s=timeout_s, stdin=packed)
        _check_copy(done.exit_code, done.stderr, f"{local} to {remote}")

    def get(self, remote: str, local: Path, *, timeout_s: float = _COPY_TIMEOUT_S) -> None:
        """Copy a file, or a directory and all in it, from the guest to the path `local`."""
        source, errors = PurePosixPath(remote), bytearray()
        argv = ["tar", "-C", str(source.parent), "-cf", "-", "--", source.name]
        with tempfile.TemporaryFile() as packed:

            def sink(stream: str, data: bytes) -> None:
                if stream == "stdout":
                    packed.write(data)
                else:
                    errors.extend(data)

            code = self._execute(argv, None, sink, timeout_s)
            _check_copy(code, bytes(errors), f"{remote} to {local}")
            packed.seek(0)
            _unpack(packed, source.name, local)

    def interactive(self, argv: Sequence[str] | None = None) -> int:
        """A shell (or argv) on a terminal of its own, joined to ours; its exit code.

        Our terminal is restored whatever happens. Raises ConnectionLost.
        """
        command = shlex.join(argv) if argv else "exec bash -l"
        channel = self._open()
        with contextlib.closing(channel), _raw_terminal(sys.stdin) as resized:
            size = _window(sys.stdin)
            channel.get_pty(os.environ.get("TERM", "xterm"), size.columns, size.lines)
            channel.exec_command(f"{_ENTER}{command}")
            _join_terminal(channel, sys.stdin.fileno(), sys.stdout.fileno(), resized)
            return self._exit_code(channel)

    def _execute(
        self,
        argv: Sequence[str],
        stdin: IO[bytes] | None,
        sink: Sink,
        timeout_s: float | None,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        on_timeout: Callable[[], object] | None = None,
    ) -> int:
        tag = f"{os.getpid()}-{id(self):x}-{next(self._numbers)}"
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        channel = self._open()
        with contextlib.closing(channel):
            try:
                channel.exec_command(wrapped(argv, tag, cwd, env))
            except (paramiko.SSHException, OSError) as error:
                raise ConnectionLost(f"the machine went away before {argv[0]}") from error
            with _feeding(channel, stdin):
                ended = _pump(channel, sink, deadline, self.slowdown)
            if ended:
                return self._exit_code(channel)
            if on_timeout:
                on_timeout()
            self._kill(tag)
        raise SessionTimeout(f"{argv[0]} did not end within {timeout_s:.1f} s")

    def _open(self) -> paramiko.Channel:
        if not self._transport.is_active():
            raise ConnectionLost("the machine went away")
        try:
            return self._transport.open_session(timeout=_KILL_TIMEOUT_S * self.slowdown)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise ConnectionLost(f"the machine no longer answers: {error}") from error

    def _exit_code(self, channel: paramiko.Channel) -> int:
        """What the server said of the program's end, which comes before the channel's end."""
        channel.status_event.wait(_KILL_TIMEOUT_S * self.slowdown)
        if channel.exit_status >= 0:
            return channel.exit_status
        # Nothing said: either our own wrapper was killed together with the program, or the
        # connection ended, and then its thread ends now or has.
        self._transport.join(1.0)
        if not self._transport.is_alive():
            raise ConnectionLost("the machine went away while the program ran")
        return 128 + signal.SIGKILL

    def _kill(self, tag: str) -> None:
        """End a run's process group in the guest; a guest that cannot is about to be dropped."""
        script = f"kill -s KILL -- -$(cat {_group_file(tag)})"
        with contextlib.suppress(ConnectionLost, paramiko.SSHException, OSError):
            channel = self._open()
            with contextlib.closing(channel):
                channel.exec_command(script)
                deadline = time.monotonic() + _KILL_TIMEOUT_S * self.slowdown
                _pump(channel, lambda _stream, _data: None, deadline, self.slowdown)


_ENVIRONMENT = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8"}
_EXPORTS = " ".join(f"{name}={value}" for name, value in _ENVIRONMENT.items())
_ENTER = f"echo 0 >/proc/self/oom_score_adj; export {_EXPORTS}; "
_RUNNER = "/usr/lib/rig/run"  # images/*/run.c


def _group_file(tag: str) -> str:
    return f"/run/rig-{tag}"


def wrapped(
    argv: Sequence[str],
    tag: str,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    *,
    runner: str = _RUNNER,
) -> str:
    """The shell command that runs argv in a session and process group of its own. Pure.

    The group's number is left in a file of /run. Death by signal n becomes exit code 128 + n, and
    the protection from the out-of-memory killer that sshd has is undone. Where the guest has the
    runner, a small program of our images, that does it all; else a shell does, in four processes
    instead of one.
    """
    settings = [f"{name}={value}" for name, value in {**_ENVIRONMENT, **(env or {})}.items()]
    quick = shlex.join([runner, tag, cwd or "", *settings, "--", *argv])
    return f"[ -x {runner} ] && exec {quick}; {_by_shell(argv, tag, cwd, env or {})}"


def _by_shell(argv: Sequence[str], tag: str, cwd: str | None, env: Mapping[str, str]) -> str:
    """The inner shell keeps its own words about a death ("Segmentation fault") to itself.

    setsid has to wait (-w): where it is the first of its group, as under OpenSSH, it goes on in a
    child, and what is still to be read would be lost, and the exit code be 0.
    """
    lines = [f"echo $$ >{_group_file(tag)}", _ENTER.removesuffix("; ")]
    if cwd is not None:
        lines.append(f"cd {shlex.quote(cwd)} || exit 126")
    lines += [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
    lines += ["exec 3>&2 2>/dev/null", f"(exec {shlex.join(argv)} 2>&3 3>&-)", "exit $?"]
    return f"exec setsid -w sh -c {shlex.quote('; '.join(lines))}"


def _connect(
    endpoint: Endpoint,
    timeout_s: float,
    alive: Callable[[], bool],
    meanwhile: Callable[[], float | None],
) -> paramiko.Transport:
    """Log in, again and again until the deadline while nobody listens yet."""
    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while True:
        left = max(1.0, deadline - time.monotonic())
        try:
            return _login(endpoint, _dialled(endpoint, left), left, meanwhile)
        except (ConnectionLost, OSError) as error:
            if time.monotonic() > deadline:
                raise ConnectionLost(
                    f"no SSH answer from {endpoint.host}:{endpoint.port} in {timeout_s:.0f} s: "
                    f"{error}"
                ) from error
            if not alive():
                raise ConnectionLost("the machine went away before it let us in") from error
        pause.wait(0.1)  # nobody listens yet; nothing will tell us when


def _login(
    endpoint: Endpoint,
    line: socket.socket,
    timeout_s: float,
    meanwhile: Callable[[], float | None],
) -> paramiko.Transport:
    """Exchange keys, see that it is the machine it should be, prove that it is us.

    Raises ConnectionLost, or InfrastructureError for a wrong key on either side.
    """
    transport = paramiko.Transport(line)
    # The server's first word may be a boot away; a deadline for all of it follows below.
    transport.banner_timeout, transport.handshake_timeout = _FOR_EVER_S, timeout_s
    exchanged = threading.Event()
    try:
        _ask_for(transport, endpoint.host_key)
        transport.start_client(exchanged)
        ours = _private_key(endpoint.client_key)
        timeout_s = meanwhile() or timeout_s
        _await_keys(transport, exchanged, timeout_s)
        transport.auth_timeout = timeout_s
        theirs = transport.get_remote_server_key()
        if f"{theirs.get_name()} {theirs.get_base64()}" != endpoint.host_key:
            words, hint = _stranger(endpoint, f"its host key is {theirs.fingerprint}")
            raise StrangerError(words, hint=hint)
        transport.auth_publickey(endpoint.user, ours)
    except paramiko.AuthenticationException as error:
        refused = transport.is_active() and "timeout" not in str(error).lower()
        transport.close()
        if not refused:  # it has gone, or was too slow: the library has one word for all
            raise ConnectionLost(f"no SSH login: {error}") from error
        words, hint = _stranger(endpoint, str(error))
        raise InfrastructureError(words, hint=hint) from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        transport.close()
        raise ConnectionLost(f"no SSH login: {error}") from error
    except BaseException:
        transport.close()
        raise
    return transport


def _ask_for(transport: paramiko.Transport, host_key: str) -> None:
    """Of a server's several keys the one that is known."""
    kind, options = host_key.partition(" ")[0], transport.get_security_options()
    wanted = ("rsa-sha2-512", "rsa-sha2-256", kind) if kind == "ssh-rsa" else (kind,)
    first = tuple(one for one in wanted if one in options.key_types)
    options.key_types = (*first, *(one for one in options.key_types if one not in first))


def _private_key(path: Path) -> paramiko.PKey:
    """Our key. One of RSA is not proven to be of two primes each time, which takes 0.04 s."""
    try:
        loaded = load_ssh_private_key(path.read_bytes(), None, unsafe_skip_rsa_key_validation=True)
    except (OSError, ValueError) as error:
        raise InfrastructureError(f"{path} is no key to log in with: {error}") from error
    if isinstance(loaded, RSAPrivateKey):
        return paramiko.RSAKey(key=loaded)
    return paramiko.PKey.from_path(path)


def _await_keys(transport: paramiko.Transport, exchanged: threading.Event, limit_s: float) -> None:
    """Wait until keys are exchanged; SSHException when that failed, TimeoutError at the limit."""
    if not exchanged.wait(limit_s):
        raise TimeoutError(f"no keys exchanged in {limit_s:.0f} s")
    if not transport.is_active():
        raise transport.get_exception() or paramiko.SSHException("the key exchange failed")


def _stranger(endpoint: Endpoint, why: str) -> tuple[str, str]:
    return (
        f"{endpoint.host}:{endpoint.port} is not the machine it should be: {why}",
        "another program took the port, or the image was exchanged while running",
    )


class _Continued(socket.socket):
    """A line, taken over, that gives first what was heard on it before."""

    def __init__(self, line: Line) -> None:
        near = line.socket
        super().__init__(near.family, near.type, near.proto, near.detach())
        self._heard = line.heard

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As any socket's."""
        if not self._heard:
            return super().recv(size, flags)
        chunk, self._heard = self._heard[:size], self._heard[size:]
        return chunk


def _dialled(endpoint: Endpoint, timeout_s: float) -> socket.socket:
    """A TCP connection that sends at once: a login is many small messages."""
    line = socket.create_connection((endpoint.host, endpoint.port), timeout_s)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def _source(stdin: bytes | BinaryIO) -> IO[bytes] | None:
    if not isinstance(stdin, bytes):
        return stdin
    if not stdin:
        return None
    return io.BytesIO(stdin)


@contextlib.contextmanager
def _feeding(channel: paramiko.Channel, stdin: IO[bytes] | None) -> Iterator[None]:
    """Send stdin, then its end, from a thread beside us; the thread is ended on the way out."""
    if stdin is None:
        with contextlib.suppress(OSError, EOFError):
            channel.shutdown_write()
        yield
        return
    stop, stopped = os.pipe()
    feeder = threading.Thread(target=_feed, args=(channel, stdin, stop), daemon=True)
    feeder.start()
    try:
        yield
    finally:
        os.close(stopped)
        channel.close()  # wakes a feeder that waits for window space
        feeder.join()
        os.close(stop)


def _feed(channel: paramiko.Channel, stdin: IO[bytes], stop: int) -> None:
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        while chunk := _next_input(stdin, stop):
            channel.sendall(chunk)
        channel.shutdown_write()


def _next_input(stdin: IO[bytes], stop: int) -> bytes:
    """What stdin has next; b"" at its end or when `stop` closes."""
    try:
        source = stdin.fileno()
    except OSError:  # a file in memory never makes us wait
        return stdin.read(_CHUNK)
    ready, _, _ = select.select([source, stop], [], [])
    return b"" if stop in ready else os.read(source, _CHUNK)


class _Linger:
    """How long the output of a program that has ended is still listened to.

    Until it was silent for a while: a slow machine's sshd tells of the end long before it has
    sent all. Not for ever: what still writes may be a process that the program left behind.
    """

    def __init__(self, slowdown: float) -> None:
        self._silence_s = _LINGER_S * slowdown
        self._limit_s = _LINGER_MAX_S * slowdown
        self._ended: float | None = None
        self._moved = 0.0

    def over(self, now: float, *, moved: bool) -> bool:
        """Asked again and again from the program's end on; moved: something has just come."""
        if self._ended is None:
            self._ended = now
        if moved or self._ended == now:
            self._moved = now
        return now - self._moved > self._silence_s or now - self._ended > self._limit_s


def _pump(channel: paramiko.Channel, sink: Sink, deadline: float | None, slowdown: float) -> bool:
    """Hand output on until the program ended and its output is through; False at the deadline."""
    linger = _Linger(slowdown)
    while True:
        moved = _drain(channel, sink)
        if channel.closed or (channel.eof_received and channel.exit_status_ready()):
            while _drain(channel, sink):
                pass
            return True
        now = time.monotonic()
        if channel.exit_status_ready() and linger.over(now, moved=moved):
            return True
        if deadline is not None and now > deadline:
            return False
        if not moved:
            _await(channel, deadline, now)


def _await(channel: paramiko.Channel, deadline: float | None, now: float) -> None:
    """Wait for output or the end of it. The exit status alone wakes nobody: look each 50 ms."""
    left = 0.5 if deadline is None else max(0.0, deadline - now)
    if channel.eof_received:
        channel.status_event.wait(min(left, 0.5))
    else:
        select.select([channel.fileno()], [], [], min(left, 0.5))


def _drain(channel: paramiko.Channel, sink: Sink) -> bool:
    """Hand on what has come; False when there was nothing."""
    moved = False
    if channel.recv_ready():
        sink("stdout", channel.recv(_CHUNK))
        moved = True
    if channel.recv_stderr_ready():
        sink("stderr", channel.recv_stderr(_CHUNK))
        moved = True
    return moved


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def _check_copy(code: int, stderr: bytes, what: str) -> None:
    if code != 0:
        raise InfrastructureError(
            f"cannot copy {what}", output=stderr[-2000:].decode(errors="replace")
        )


def _unpack(packed: IO[bytes], name: str, local: Path) -> None:
    """Unpack beside `local` and rename, so that half a copy is never there."""
    local.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=local.parent, prefix=".get-") as directory:
        with tarfile.open(fileobj=packed) as tar:
            tar.extractall(directory, filter="data")
        (Path(directory) / name).rename(local)


@contextlib.contextmanager
def _raw_terminal(terminal: IO[str]) -> Iterator[int]:
    """Our terminal raw, and back again whatever happens; yields an fd readable after a resize."""
    resized, poke = os.pipe()
    os.set_blocking(poke, False)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, resized)
        stack.callback(os.close, poke)
        if terminal.isatty():
            descriptor = terminal.fileno()
            stack.callback(
                termios.tcsetattr, descriptor, termios.TCSADRAIN, termios.tcgetattr(descriptor)
            )
            for number in (signal.SIGTERM, signal.SIGHUP):
                stack.callback(signal.signal, number, signal.signal(number, _leave))
            old = signal.signal(signal.SIGWINCH, lambda _n, _f: _poke(poke))
            stack.callback(signal.signal, signal.SIGWINCH, old)
            tty.setraw(descriptor)
        yield resized


def _window(terminal: IO[str]) -> os.terminal_size:
    """The terminal's size; 80 by 24 for one that has none or is none."""
    fallback = os.terminal_size((80, 24))
    try:
        size = os.get_terminal_size(terminal.fileno())
    except OSError:
        return fallback
    return size if size.columns and size.lines else fallback


def _poke(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.write(descriptor, b".")


def _leave(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _join_terminal(channel: paramiko.Channel, keys: int, screen: int, resized: int) -> None:
    """Carry keys there, output here and window sizes, until the far end closes."""
    sources = [channel.fileno(), keys, resized]
    while not (channel.closed or channel.eof_received) or channel.recv_ready():
        ready, _, _ = select.select(sources, [], [], 1.0)
        if channel.recv_ready():
            _write_all(screen, channel.recv(_CHUNK))
        if resized in ready:
            os.read(resized, 64)
            size = os.get_terminal_size(screen)
            channel.resize_pty(size.columns, size.lines)
        if keys in ready and not channel.closed:
            typed = os.read(keys, _CHUNK)
            if typed:
                channel.sendall(typed)
            else:
                sources.remove(keys)
                channel.shutdown_write()


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
