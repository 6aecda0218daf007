"""A board's serial line, however one gets to it: kept up, and a gap in it is never silent."""

from __future__ import annotations

import contextlib
import os
import pty
import selectors
import socket
import subprocess
import termios
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from rig import credential, process
from rig.config import BoardConfig, ConsoleConfig
from rig.errors import InfrastructureError, UsageError
from rig.machine.labgrid import Place
from rig.machine.power import passwords

_CHUNK = 65536
_CONNECT_S = 10.0
_TRY_S, _TRY_MOST_S = 0.5, 5.0  # between two tries to get it back
# What a program that carries the line has to say for itself before it ends at once: no user, no
# password, no such console.
_BORN_S = 2.0
# Of what it reads at once ipmitool sends a break before the rest: the carriage return that its
# escape has to follow would be taken for the letter of a sysrq.
_KEYS_S = 0.3
_WAS_LOST = "the console was lost"
_LOST = f"[rig: {_WAS_LOST}"
# What ipmitool and conserver's client say once there is a line.
_CARRIED, _ENTERED = b"[SOL Session operational", b"[Enter `"


class Far(Protocol):
    """One connection to the line. said: what came while it was taken up."""

    said: bytes

    def fileno(self) -> int: ...
    def read(self) -> bytes | None: ...  # b"" at its end, None for nothing of the line
    def write(self, data: bytes) -> None: ...
    def send_break(self) -> None: ...
    def close(self) -> None: ...


class Wire:
    """The line of one board. where: it, for messages. lost: how often it had to be taken up anew.

    What comes is in the socket that `open` gives, for rig.console.Console, until `handed_on` gives
    another one. A thread of its own takes the line up again where it goes down, and writes into the
    stream that there is a gap.
    """

    def __init__(self, connect: Callable[[], Far], where: str) -> None:
        self._connect, self.where, self.lost = connect, where, 0
        self._ours, self._theirs = socket.socketpair()
        self._far: Far | None = None
        self._writing, self._telling = threading.Lock(), threading.Lock()
        self._over = threading.Event()
        self._pump = threading.Thread(target=self._run, name=f"wire {where}", daemon=True)

    def open(self) -> socket.socket:
        """Take the line up; our end of it. InfrastructureError where it is dead."""
        try:
            self._far = self._connected()
        except BaseException:
            self.close()
            raise
        self._pump.start()
        return self._ours

    def handed_on(self) -> socket.socket:
        """A new end for us: what comes from now on is in it, and the one before comes to its end.

        That one is to be closed after this, and not before: a line that nobody listens to is hung
        up.
        """
        ours, theirs = socket.socketpair()
        with self._telling:
            before, self._theirs = self._theirs, theirs
            self._ours = ours
            with contextlib.suppress(OSError):
                before.shutdown(socket.SHUT_RDWR)
        return ours

    @property
    def over(self) -> bool:
        """Whether it was hung up."""
        return self._over.is_set()

    @property
    def down(self) -> bool:
        """Whether nothing can be heard now."""
        return self._far is None

    def send_break(self) -> None:
        """A break, for sysrq. InfrastructureError where the line is down, or carries none."""
        with self._writing:
            if self._far is None:
                raise InfrastructureError(f"{self.where} is down")
            try:
                self._far.send_break()
            except OSError as error:
                raise InfrastructureError(f"{self.where} carries no break: {error}") from error

    def close(self) -> None:
        """Hang up; idempotent. Whoever reads our end comes to its end."""
        self._over.set()
        with contextlib.suppress(OSError):  # without the lock: who has it may wait for this
            self._theirs.shutdown(socket.SHUT_RDWR)
        if self._pump.is_alive():
            self._pump.join(_CONNECT_S + _BORN_S)
        with self._writing:
            far, self._far = self._far, None
        if far:
            far.close()
        self._theirs.close()

    def _connected(self) -> Far:
        try:
            return self._connect()
        except OSError as error:
            raise InfrastructureError(f"{self.where} is dead: {error}") from error

    def _run(self) -> None:
        while not self._over.is_set():
            assert self._far is not None
            if not (why := self._carry(self._far)):
                return
            with self._writing:
                self._far.close()
                self._far = None
            if not self._again(why):
                return

    def _carry(self, far: Far) -> str:
        """Bytes in both directions; why the line is down, "" when our side has hung up."""
        if far.said and not self._tell(far.said):
            return ""
        listener = self._theirs
        with selectors.DefaultSelector() as ready:
            ready.register(far.fileno(), selectors.EVENT_READ)
            ready.register(listener, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    try:
                        if key.fileobj is not listener:
                            heard = far.read()
                            if heard == b"":
                                return "it was closed"
                            if heard and not self._tell(heard):
                                return ""
                            continue
                        if typed := listener.recv(_CHUNK):
                            with self._writing:
                                far.write(typed)
                            continue
                    except OSError as error:
                        return "" if self._over.is_set() else str(error)
                    if (now := self._theirs) is listener:
                        return ""  # hung up
                    ready.unregister(listener)
                    listener.close()
                    listener = now
                    ready.register(listener, selectors.EVENT_READ)

    def _tell(self, heard: bytes) -> bool:
        """Hand on what came; False when our side has hung up."""
        with self._telling:
            try:
                self._theirs.sendall(heard)
            except OSError:
                return False
        return True

    def _again(self, why: str) -> bool:
        """Take the line up again, for as long as somebody listens; whether it is up."""
        self.lost += 1
        began, pause = time.monotonic(), _TRY_S
        if not self._tell(_remark(f"{_WAS_LOST}: {why}")):
            return False
        while not self._over.wait(pause):
            pause = min(2 * pause, _TRY_MOST_S)
            try:
                far = self._connect()
            except (InfrastructureError, OSError):
                continue  # the gap goes on, and its end will be said
            with self._writing:
                if self._over.is_set():  # nobody would hang it up any more
                    far.close()
                    return False
                self._far = far
            return self._tell(_remark(f"it is back after {time.monotonic() - began:.1f} s"))
        return False


def gaps(text: str) -> int:
    """How often a console says that it was lost. Pure."""
    return text.count(_LOST)


def _remark(words: str) -> bytes:
    return f"\r\n[rig: {words}]\r\n".encode()


def of(board: BoardConfig, root: Path) -> Wire:
    """The line of a board of rig.toml, not taken up yet. UsageError for a secret that is not there,
    or a board without a console."""
    config = board.console
    if config is None:
        raise UsageError(f"{board.name} has no console in rig.toml", hint="docs/add-a-board.md")
    if config.kind in ("tcp", "telnet"):
        made = Telnet if config.kind == "telnet" else Tcp
        where = f"the console of {board.name} at {config.address}:{config.port}"
        return Wire(lambda: made(config.address, config.port), where)
    if config.kind == "labgrid":
        place = Place(board)
        return Wire(lambda: _of_place(place, config.name), f"the console of {place.where}")
    if config.kind == "serial":
        where = f"the console of {board.name} at {config.device}"
        return Wire(lambda: Serial(config.device, config.speed), where)
    if config.kind == "ipmi":
        return _over_lan(board, config, root)
    if config.kind == "conserver":
        server = f"{config.address}:{config.port or 782}"
        argv = ["console", "-n", "-U", "-M", config.address, "-p", str(config.port or 782)]
        argv += ["-f", config.name]
        where = f"console {config.name} of the conserver at {server}"
        return Wire(lambda: Program(argv, where, break_keys=(b"\x05cl0",), carried=_ENTERED), where)
    where = f"the console of {board.name} by `{config.command}`"
    return Wire(lambda: Program(["sh", "-c", config.command], where), where)


def _of_place(place: Place, name: str) -> Far:
    port = place.serial(name)
    made = Tcp if port.protocol == "raw" else Telnet
    return made(port.host, port.port)


def _over_lan(board: BoardConfig, config: ConsoleConfig, root: Path) -> Wire:
    """Serial over LAN. Somebody's session that was never ended is ended first: there is one."""
    bmc = config if config.address else board.power
    secret = credential.read(bmc.password, root)
    port = bmc.port or 623
    where = f"the serial console of the BMC of {board.name} at {bmc.address}:{port}"
    argv = ["ipmitool", "-I", "lanplus", "-H", bmc.address, "-p", str(port), "-U", bmc.user, "-E"]
    argv += ["-L", "OPERATOR"]  # no more than the line takes
    argv += ["-C", str(bmc.cipher)] if bmc.cipher >= 0 else []
    env = {**os.environ, **passwords(secret)}

    def connect() -> Far:
        free = [*argv, "-N", "2", "-R", "2", "sol", "deactivate"]
        process.run(free, timeout_s=60, env=env, check=False)
        if wire.over:
            raise OSError("it was hung up")
        return Program(
            [*argv, "sol", "activate"], where, env=env, break_keys=(b"\r", b"~B"), carried=_CARRIED
        )

    wire = Wire(connect, where)  # which connect() looks at
    return wire


# -- connections ----------------------------------------------------------------------------------


class Tcp:
    """Raw bytes on a TCP connection."""

    said = b""

    def __init__(self, address: str, port: int) -> None:
        self._line = socket.create_connection((address, port), _CONNECT_S)
        self._line.settimeout(_CONNECT_S)
        # A server that is gone without a word is noticed within a minute.
        self._line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4)):
            self._line.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def fileno(self) -> int:
        return self._line.fileno()

    def read(self) -> bytes | None:
        return self._line.recv(_CHUNK)

    def write(self, data: bytes) -> None:
        self._line.sendall(data)

    def send_break(self) -> None:
        raise OSError("raw TCP has none; telnet has")

    def close(self) -> None:
        self._line.close()


_IAC, _DONT, _DO, _WONT, _WILL, _SB, _SE, _BRK = 255, 254, 253, 252, 251, 250, 240, 243
_BINARY, _ECHO, _SGA = 0, 1, 3
_OURS, _THEIRS = {_BINARY, _SGA}, {_BINARY, _ECHO, _SGA}


class Negotiation:
    """What of a telnet stream (RFC 854, 856) is data, and what is answered to the rest. Pure."""

    def __init__(self) -> None:
        self._state, self._verb, self._cr = "data", 0, False
        self._agreed: dict[tuple[int, int], bool] = {}

    def feed(self, chunk: bytes) -> tuple[bytes, bytes]:
        """(data, what to answer)."""
        data, answer = bytearray(), bytearray()
        for byte in chunk:
            if self._state == "data" and byte == _IAC:
                self._state = "iac"
            elif self._state == "data":
                if not (self._cr and byte == 0):  # CR NUL is a CR
                    data.append(byte)
                self._cr = byte == 13
            elif self._state == "iac":
                self._command(byte, data)
            elif self._state == "verb":
                answer += self._answer(self._verb, byte)
                self._state = "data"
            elif self._state == "sub":
                self._state = "sub iac" if byte == _IAC else "sub"
            else:  # IAC IAC within is a byte of it
                self._state = "data" if byte == _SE else "sub"
        return bytes(data), bytes(answer)

    def _command(self, byte: int, data: bytearray) -> None:
        if byte in (_DO, _DONT, _WILL, _WONT):
            self._state, self._verb = "verb", byte
            return
        if byte == _IAC:
            data.append(byte)
        self._state = "sub" if byte == _SB else "data"

    def _answer(self, verb: int, option: int) -> bytes:
        """Nothing where it is as agreed: two that answer answers would never end."""
        theirs = verb in (_WILL, _WONT)
        wanted = verb in (_WILL, _DO) and option in (_THEIRS if theirs else _OURS)
        known = self._agreed.get((int(theirs), option))
        if known is wanted or (known is None and verb in (_WONT, _DONT)):
            return b""
        self._agreed[int(theirs), option] = wanted
        yes, no = (_DO, _DONT) if theirs else (_WILL, _WONT)
        return bytes((_IAC, yes if wanted else no, option))


class Telnet(Tcp):
    """A TCP connection that speaks telnet: ser2net, terminal servers."""

    def __init__(self, address: str, port: int) -> None:
        super().__init__(address, port)
        self._negotiation = Negotiation()

    def read(self) -> bytes | None:
        chunk = super().read()
        if not chunk:
            return chunk
        data, answer = self._negotiation.feed(chunk)
        if answer:
            self._line.sendall(answer)
        return data or None

    def write(self, data: bytes) -> None:
        self._line.sendall(data.replace(b"\xff", b"\xff\xff").replace(b"\r", b"\r\0"))

    def send_break(self) -> None:
        self._line.sendall(bytes((_IAC, _BRK)))


class Serial:
    """A serial port of this host, ours alone."""

    said = b""

    def __init__(self, device: str, speed: int) -> None:
        try:
            import serial
        except ImportError as error:
            raise InfrastructureError(
                "pyserial is not installed", hint=".venv/bin/pip install pyserial"
            ) from error
        try:
            self._port = serial.Serial(device, speed, timeout=0, write_timeout=10, exclusive=True)
        except (serial.SerialException, ValueError) as error:
            raise OSError(str(error)) from error

    def fileno(self) -> int:
        return int(self._port.fileno())

    def read(self) -> bytes | None:
        # Of a port that is ready to be read and has nothing the other end is gone.
        return os.read(self.fileno(), _CHUNK)

    def write(self, data: bytes) -> None:
        self._port.write(data)

    def send_break(self) -> None:
        self._port.send_break(0.25)

    def close(self) -> None:
        self._port.close()


class Program:
    """A program that carries the line on its terminal: ipmitool, console, ssh.

    break_keys: what it takes for a break, one after another. carried: what it says once there is a
    line; without it, that it still runs after two seconds has to do.
    """

    def __init__(
        self,
        argv: list[str],
        where: str,
        *,
        env: dict[str, str] | None = None,
        break_keys: tuple[bytes, ...] = (),
        carried: bytes = b"",
    ) -> None:
        self._break_keys, self.said = break_keys, b""
        self._ours, theirs = pty.openpty()
        try:
            tty.setraw(theirs, termios.TCSANOW)
            self._process = process.spawn(argv, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
        except BaseException:
            os.close(self._ours)
            raise
        finally:
            os.close(theirs)
        try:
            self._await_line(where, carried)
        except BaseException:
            self.close()
            raise

    def _await_line(self, where: str, carried: bytes) -> None:
        deadline = time.monotonic() + (60.0 if carried else _BORN_S)
        while (left := deadline - time.monotonic()) > 0:
            with selectors.DefaultSelector() as ready:
                ready.register(self._ours, selectors.EVENT_READ)
                chunk = self.read() if ready.select(left) else None
            if chunk == b"":
                said = self.said.decode(errors="replace").strip()
                raise InfrastructureError(f"{where} is dead", output=said)
            self.said += chunk or b""
            if carried and carried in self.said:
                return
        if carried:
            said = self.said.decode(errors="replace").strip()
            raise InfrastructureError(f"{where} is dead: no line within 60 s", output=said)

    def fileno(self) -> int:
        return self._ours

    def read(self) -> bytes | None:
        try:
            return os.read(self._ours, _CHUNK)
        except OSError:  # EIO: nobody has the other end any more
            return b""

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._ours, data) :]

    def send_break(self) -> None:
        if not self._break_keys:
            raise OSError("nobody has said how")
        for number, keys in enumerate(self._break_keys):
            time.sleep(_KEYS_S if number else 0.0)
            self.write(keys)

    def close(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.end(self._process, grace_s=2.0)
        with contextlib.suppress(OSError):
            os.close(self._ours)


__all__ = ["Far", "Negotiation", "Wire", "gaps", "of"]
