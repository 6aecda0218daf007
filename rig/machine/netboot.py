"""What a board boots from the network: a script of iPXE's and two files, served by HTTP, once."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rig.errors import InfrastructureError, UsageError
from rig.report import template

_NOTHING = b"#!ipxe\nexit\n"  # nothing to be booted from here: the next of the firmware's devices
_STALLED_S = 60.0  # a board that was switched off in the middle of a file says no more


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


class _Quiet(ThreadingHTTPServer):
    """A board whose power goes resets its connections: that is no news."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Server:
    """Serves what was offered until it was taken whole, and to whoever asks after that: nothing."""

    def __init__(self, address: str, port: int) -> None:
        """InfrastructureError where that place cannot be had."""
        self.taken = 0.0
        self._lock = threading.Lock()
        self._name, self._script = "", b""
        self._files: dict[str, Path] = {}
        self._missing: set[str] = set()
        try:
            self._http = _Quiet((address, port), self._handler())
        except OSError as error:
            raise InfrastructureError(
                f"nothing can be served to the board at {address}:{port}: {error.strerror}",
                hint="[machine.NAME.network] address and port are of this host",
            ) from error
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.1}, name="netboot"
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._http.server_address[1])

    def offer(self, name: str, text: str, files: dict[str, Path]) -> None:
        """The script by its name, and the files it asks for, until they were fetched."""
        with self._lock:
            self.taken, self._name, self._script = 0.0, name, text.encode()
            self._files, self._missing = dict(files), set(files)

    def withdraw(self) -> None:
        """Nothing any more."""
        with self._lock:
            self._script, self._files = b"", {}

    def close(self) -> None:
        """Idempotent."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _text(self, path: str) -> bytes | None:
        with self._lock:
            if not path.endswith(".ipxe"):
                return None
            return self._script if self._script and path == self._name else _NOTHING

    def _file(self, path: str) -> Path | None:
        with self._lock:
            return self._files.get(path)

    def _sent(self, path: str) -> None:
        """All of it has gone out; with the last one the offer ends."""
        with self._lock:
            self._missing.discard(path)
            if not self._missing and self._files:
                self._script, self._files = b"", {}
                self.taken = time.monotonic()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _STALLED_S

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if (text := server._text(path)) is not None:
                    self._head(len(text))
                    self.wfile.write(text)
                elif (file := server._file(path)) is not None:
                    with file.open("rb") as source:
                        self._head(file.stat().st_size)
                        shutil.copyfileobj(source, self.wfile, 1 << 20)
                    self.wfile.flush()
                    server._sent(path)
                else:
                    self.send_error(HTTPStatus.NOT_FOUND)

            def _head(self, size: int) -> None:
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", "application/octet-stream")
                self.send_header("Content-Length", str(size))
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Whether it was fetched is seen by what the board does."""

        return Handler


__all__ = ["Server", "script"]
