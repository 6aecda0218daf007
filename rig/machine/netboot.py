"""What a board boots from the network: a script of iPXE's and two files, once; by HTTP (cheroot),
the script and iPXE itself by TFTP as well (tftpy).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import socket
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from typing import Any

from rig.errors import InfrastructureError, UsageError
from rig.report import template

_Start = Callable[[str, list[tuple[str, str]]], object]  # as WSGI has it

_NOTHING = b"#!ipxe\nexit\n"  # nothing to be booted from here: the next of the firmware's devices
_STALLED_S = 60.0  # a board that was switched off in the middle of a file says no more
_END_S = 2.0  # for who serves to come to an end
_THREADS = 4
_PIECE, _BLOCK = 1 << 18, 512  # of HTTP, and of TFTP where nothing else is agreed on
_LOOK_S, _BEGIN_S = 0.2, 10.0
# TFTP: how soon it is noticed that it is to end, and a block is sent again; and how often.
_AGAIN_S, _AGAINS = 1.0, 20
# For so long iPXE, which firmware has just been given, is expected to ask for a script.
_SOON_S = 300.0
_ENDS = 50  # of TFTP, by what nobody has thought of; then it is broken
# The name that iPXE asks the server it came from for, of its own accord.
_BY_ITSELF = "/autoexec.ipxe"


def check_words(words: str) -> None:
    """UsageError where iPXE would read one as its own: a setting, a command's end, a comment."""
    each = words.split()
    own = [one for one in each if one in ("||", "&&", ";") or one[0] == "#" or "${" in one]
    if own:
        raise UsageError(
            f"iPXE cannot hand {own[0]} on to a kernel: {words}",
            hint='boot with deploy = "grub" or "kexec"',
        )


def script(board: str, url: str, words: str, jump: str) -> str:
    """For iPXE. words: the kernel's command line; jump: said before the kernel is begun. Pure but
    for the template. UsageError as check_words.
    """
    check_words(words)
    return template("boot.ipxe", board=board, url=url, words=words, jump=jump)


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise InfrastructureError(
            f"a board that boots from the network takes {package}: {error}",
            hint=".venv/bin/pip install 'cheroot>=10' 'tftpy>=0.8.5'",
        ) from error


def needed(*, tftp: bool) -> None:
    """InfrastructureError where a library is not there."""
    _library("cheroot.wsgi")
    if tftp:
        _library("tftpy")


class Offer:
    """What is to be had, until all of it was taken, and by whoever asks after that: nothing.

    taken: when it was, by the monotonic clock; 0.0 while it was not.
    """

    def __init__(self, loaders: Iterable[Path] = ()) -> None:
        """loaders: of iPXE, for firmware that has none; each is asked for by its own name."""
        self.taken = 0.0
        self._lock = threading.Lock()
        self._name, self._script = "", b""
        self._files: dict[str, Path] = {}
        self._missing: set[str] = set()
        self._loaders = {f"/{path.name}": path for path in loaders}
        self._loaded: dict[str, float] = {}  # who has iPXE, and since when

    def make(self, name: str, text: str, files: Mapping[str, Path]) -> None:
        """The script by its name, and the files it asks for, until they were fetched."""
        with self._lock:
            self.taken, self._name, self._script = 0.0, name, text.encode()
            self._files, self._missing = dict(files), set(files)
            self._loaded.clear()

    def withdraw(self) -> None:
        """Nothing any more."""
        with self._lock:
            self._script, self._files = b"", {}
            self._loaded.clear()

    def text(self, path: str) -> bytes | None:
        """A script; None where that is none."""
        with self._lock:
            if not path.endswith(".ipxe"):
                return None
            return self._script if self._script and path == self._name else _NOTHING

    def file(self, path: str) -> Path | None:
        """One of its files."""
        with self._lock:
            return self._files.get(path)

    def sent(self, path: str) -> None:
        """All of it has gone out; with the last one the offer ends."""
        with self._lock:
            self._missing.discard(path)
            if not self._missing and self._files:
                self._script, self._files = b"", {}
                self.taken = time.monotonic()

    def loader(self, path: str, who: str) -> Path | bytes | None:
        """What somebody is given that asks for iPXE: that, and the script where he has it.

        A DHCP server that knows of no iPXE sends that, too, to what it began with.
        """
        with self._lock:
            found = self._loaders.get(path)
            if path != _BY_ITSELF and not found:
                return None
            since = self._loaded.pop(who, -_SOON_S)
            soon = time.monotonic() - since < _SOON_S
            return (self._script or _NOTHING) if path == _BY_ITSELF or soon else found

    def loaded(self, who: str) -> None:
        """He has got all of iPXE."""
        with self._lock:
            self._loaded[who] = time.monotonic()


class Server:
    """Serves an offer by HTTP, and by TFTP where a port is named for that."""

    def __init__(
        self, address: str, port: int, *, tftp: int | None = None, loaders: Iterable[Path] = ()
    ) -> None:
        """tftp: its port, 0 for any that is free, None for no TFTP. InfrastructureError where a
        place cannot be had.
        """
        self.offer = Offer(loaders)
        self._closing = contextlib.ExitStack()
        try:
            self._http = _Http(self.offer, address, port)
            self._closing.callback(self._http.close)
            self._tftp = None if tftp is None else _Tftp(self.offer, address, tftp)
            if self._tftp:
                self._closing.callback(self._tftp.close)
        except BaseException:
            self._closing.close()
            raise

    @property
    def port(self) -> int:
        """Of HTTP."""
        return self._http.port

    @property
    def tftp_port(self) -> int:
        """Of TFTP, where there is one."""
        assert self._tftp is not None
        return self._tftp.port

    @property
    def troubled(self) -> bool:
        """Whether it does not serve any more, or could not."""
        return any(one is not None and one.trouble for one in (self._http, self._tftp))

    def check(self) -> None:
        """InfrastructureError where it is troubled."""
        for one in (self._http, self._tftp):
            if one and one.trouble:
                raise InfrastructureError(
                    f"the board could not be served what it is to boot: {one.trouble[0]}",
                    output="\n".join(one.trouble[1:]),
                )

    def close(self) -> None:
        """Idempotent."""
        self._closing.close()


def _no_place(address: str, port: int, error: OSError) -> InfrastructureError:
    return InfrastructureError(
        f"nothing can be served to the board at {address}:{port}: {error.strerror or error}",
        hint="[machine.NAME.network] address and port are of this host",
    )


class _Http:
    """trouble: what went wrong here, and not in the network: a board's power may go at any time,
    and strangers ask for anything.
    """

    def __init__(self, offer: Offer, address: str, port: int) -> None:
        wsgi: Any = _library("cheroot.wsgi")
        self._lines, self._adding, self._over = weakref.WeakSet[Any](), threading.Lock(), False
        taken_up = self._taken_up

        class Line(wsgi.Server.ConnectionClass):  # type: ignore[misc]
            def __init__(self, *arguments: Any, **more: Any) -> None:
                super().__init__(*arguments, **more)
                taken_up(self)

        self.trouble: list[str] = []
        self._offer = offer
        self._server = wsgi.Server(
            (address, port),
            self._answer,
            numthreads=_THREADS,
            timeout=_STALLED_S,
            shutdown_timeout=_END_S,
        )
        self._server.ConnectionClass = Line
        self._server.error_log = self._error
        try:
            self._server.prepare()
        except OSError as error:
            raise _no_place(address, port, error) from error
        self._thread = threading.Thread(target=self._serve, name="netboot by HTTP", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.bind_addr[1])

    def close(self) -> None:
        """As Server. Who is being sent something would be waited for: its line is cut."""
        with self._adding:
            self._over = True
            lines = list(self._lines)
        for line in lines:
            self._cut(line)
        self._server.stop()
        self._thread.join()

    def _taken_up(self, line: Any) -> None:
        with self._adding:
            self._lines.add(line)
            over = self._over
        if over:
            self._cut(line)

    def _cut(self, line: Any) -> None:
        with contextlib.suppress(OSError):
            line.socket.shutdown(socket.SHUT_RDWR)

    def _error(self, words: str = "", level: int = 20, traceback: bool = False) -> None:
        """Of what strangers ask, and of lines that go, there is nothing to be said."""
        if "HTTPServer.serve" in words and not self._over:
            if not self.trouble:
                self.trouble.append(f"HTTP: {words}: {sys.exception()}")
            time.sleep(_LOOK_S)  # it goes on at once, until it is closed for that

    def _serve(self) -> None:
        try:
            self._server.serve()
        except Exception as error:  # noqa: BLE001 - whoever waits for the board is told
            self.trouble.append(f"HTTP: {type(error).__name__}: {error}")
        if not self._over and not self.trouble:
            self.trouble.append("HTTP ended by itself")

    def _answer(self, environ: Mapping[str, Any], start: _Start) -> Iterable[bytes]:
        """As WSGI has it."""
        try:
            return self._answered(environ, start)
        except Exception as error:
            self.trouble.append(f"{type(error).__name__}: {error}")
            raise

    def _answered(self, environ: Mapping[str, Any], start: _Start) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            return self._refused(HTTPStatus.METHOD_NOT_ALLOWED, start)
        text, file = self._offer.text(path), self._offer.file(path)
        if text is None and file is None:
            return self._refused(HTTPStatus.NOT_FOUND, start)
        try:
            size = file.stat().st_size if file else len(text or b"")
        except OSError as error:
            self.trouble.append(str(error))
            return self._refused(HTTPStatus.INTERNAL_SERVER_ERROR, start)
        headers = [("Content-Type", "application/octet-stream"), ("Content-Length", str(size))]
        start(f"{HTTPStatus.OK.value} {HTTPStatus.OK.phrase}", headers)
        if method == "HEAD":  # UEFI asks first how much it is
            return ()
        return self._pieces(path, file) if file else (text or b"",)

    def _refused(self, why: HTTPStatus, start: _Start) -> Iterable[bytes]:
        start(f"{why.value} {why.phrase}", [("Content-Length", "0")])
        return ()

    def _pieces(self, path: str, file: Path) -> Iterator[bytes]:
        try:
            with file.open("rb") as source:
                while piece := source.read(_PIECE):
                    yield piece
        except OSError as error:  # it would be taken for one of the line to the board
            self.trouble.append(str(error))
            raise
        self._offer.sent(path)  # nobody asks for more before the last has gone out


class _Told(io.FileIO):
    """A file that tells when the last of it was read."""

    def __init__(self, data: bytes, over: Callable[[], object] = lambda: None) -> None:
        with tempfile.TemporaryFile() as file:  # tftpy locks what it sends: it has to be a real one
            file.write(data)
            file.seek(0)
            super().__init__(os.dup(file.fileno()))
        self._over = over

    def read(self, size: int | None = -1, /) -> bytes:
        """As any file's."""
        data = super().read(size) or b""
        if size is not None and 0 <= len(data) < size:
            self._over()
        return data


def _guard(library: Any) -> None:
    """A packet that it cannot read would end its loop, and everybody's transfers with it, whoever
    has sent that: it ends one session.
    """
    module: Any = importlib.import_module("tftpy.TftpServer")
    if hasattr(module.TftpContextServer, "guarded"):
        return

    class Session(module.TftpContextServer):  # type: ignore[misc]
        guarded = True

        def start(self, buffer: bytes) -> None:
            self._try(super().start, buffer)

        def cycle(self) -> None:
            self._try(super().cycle)

        def _try(self, what: Callable[..., object], *arguments: object) -> None:
            try:
                what(*arguments)
            except library.TftpException:
                raise
            except Exception as error:
                raise library.TftpException(f"{type(error).__name__}: {error}") from error

    module.TftpContextServer = Session


class _Tftp:
    """trouble: as of HTTP."""

    def __init__(self, offer: Offer, address: str, port: int) -> None:
        self._library: Any = _library("tftpy")
        _guard(self._library)
        # What it says of boards that ask for what is not there, or go away, is no news.
        logging.getLogger("tftpy").setLevel(logging.CRITICAL + 1)
        self.trouble: list[str] = []
        self._offer, self._address, self._wanted = offer, address, port
        self._empty = tempfile.TemporaryDirectory(prefix="rig-tftp-")  # it has to have a directory
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
                tried.bind((address, port))
        except OSError as error:
            self._empty.cleanup()
            raise _no_place(address, port, error) from error
        self._over = False
        self._server = self._library.TftpServer(
            self._empty.name,
            dyn_file_func=self._asked,
            upload_open=lambda _path, _context: None,  # it would take what anybody sends
        )
        self._thread = threading.Thread(target=self._listen, name="netboot by TFTP", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _BEGIN_S
        while not self._server.is_running.wait(_LOOK_S) and not self.trouble:
            if time.monotonic() > deadline:
                self.trouble.append(f"no TFTP within {_BEGIN_S:.0f} s")
        if self.trouble:
            self.close()
            raise InfrastructureError(f"nothing can be served by TFTP: {self.trouble[0]}")

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.listenport)

    def close(self) -> None:
        """As Server."""
        self._over = True
        self._server.stop(now=True)
        self._thread.join()
        self._empty.cleanup()

    def _listen(self) -> None:
        """What ends it that is not of one session: it begins anew then, where it can."""
        last: Exception | None = None
        for _ in range(_ENDS):
            if self._over:
                return
            try:
                self._server.listen(self._address, self._wanted, timeout=_AGAIN_S, retries=_AGAINS)
            except Exception as error:  # noqa: BLE001 - as said
                last = error
                time.sleep(_LOOK_S)
            finally:
                self._let_go()
            self._wanted = self._server.listenport or self._wanted
        self.trouble.append(f"TFTP: {type(last).__name__}: {last}")

    def _let_go(self) -> None:
        if self._server.sock is not None:
            self._server.sock.close()
        for session in self._server.sessions.values():
            session.end()
        self._server.sessions = {}

    def _asked(self, name: str, raddress: str = "", rport: int = 0) -> io.FileIO | None:
        """What goes wrong here is ours, and no packet's that it cannot read."""
        try:
            return self._answered(name, raddress, f"{raddress}:{rport}")
        except Exception as error:  # noqa: BLE001 - whoever waits for the board is told
            self.trouble.append(f"TFTP: {type(error).__name__}: {error}")
            return None

    def _answered(self, name: str, who: str, key: str) -> io.FileIO | None:
        path = f"/{name.lstrip('/')}"
        found = self._offer.loader(path, who)
        if found is None:
            found = self._offer.text(path)
        if found is None:
            return None
        session = self._server.sessions[key]
        self._mind_options(session.options)
        if self._address not in ("", "0.0.0.0"):  # firmware may heed where an answer comes from
            session.sock.bind((self._address, 0))
        if isinstance(found, Path):
            return _Told(found.read_bytes(), lambda: self._offer.loaded(who))
        return _Told(found)

    def _mind_options(self, options: dict[str, Any]) -> None:
        """Beside what was asked for it confirms a block size that was not, which firmware may take
        amiss (RFC 2347: "must not include any options which had not been specifically requested").
        """
        if len(options) > 1 and int(options.get("blksize", 0)) == _BLOCK:
            del options["blksize"]


__all__ = ["Offer", "Server", "check_words", "needed", "script"]
