"""The serial stream of a machine: always drained, recorded byte for byte, searched on demand."""

from __future__ import annotations

import codecs
import contextlib
import re
import selectors
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
from pexpect.spawnbase import SpawnBase

from rig.errors import InfrastructureError
from rig.results import Splat
from rig.splat import Scanner

if TYPE_CHECKING:
    _Spawn = SpawnBase[str]
else:
    _Spawn = SpawnBase

_CHUNK = 65536
# pexpect looks only at the last `searchwindowsize` characters after each read, so one read must
# never bring more than that.
_WINDOW, _READ = 16384, 4096
_PANIC = re.compile(r"(?<!\[ end )Kernel panic - not syncing")
# Come again and again for as long as what they tell of lasts.
_STANDS_STILL = ("rcu-stall", "soft-lockup", "hard-lockup", "hung-task", "workqueue-lockup")
# kernel/time/hrtimer.c, clocksource.c, kernel/events/core.c, workqueue.c, sched/deadline.c
_LOST_TIME = re.compile(
    rb"(?:hrtimer|perf): interrupt took |hogged CPU for |DL replenish lagged "
    rb"|clocksource: (?:timekeeping watchdog|Long readout| +'\w+' (?:wd|cs)_n)"
)


class Console:
    """One machine's serial line, from power-on to the end.

    A thread of its own reads the socket, so that the machine never waits for us, and appends to
    `path` at once. Everything else looks at what has come so far; no call waits without a
    deadline. Ends of lines are as the machine sent them (CR LF).

    Where the recording cannot be written (the host's disk is full) the machine is not the one
    to suffer: it is drained all the same, and who reads here gets an InfrastructureError.
    """

    def __init__(self, line: socket.socket, path: Path, before: bytes = b"") -> None:
        """Take over `line`; path is created (or truncated) for the recording.

        before: what the machine had said already when it was saved; the recording begins with it.
        InfrastructureError when it cannot be written.
        """
        self.path = path
        self._line = line
        self._data = bytearray(before)
        self._news = threading.Condition()
        self._closed = False
        self._failure: OSError | None = None
        self._scanner, self._scanned, self._splats = Scanner(), 0, list[Splat]()
        self._scan_ended = False
        self._lines, self._partial = 0, b""
        self._scanning = threading.Lock()
        self._stream = _Stream(self)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb", buffering=0)
            if before:
                self._file.write(before)
        except OSError as error:
            raise _not_recorded(path, error) from error
        self._reader = threading.Thread(target=self._record, name=f"console {path}", daemon=True)
        self._reader.start()

    @property
    def closed(self) -> bool:
        """The machine's end of the line is gone: power off, or its process died."""
        return self._closed

    def text(self) -> str:
        """All that came so far. InfrastructureError when it could not be recorded."""
        self._check()
        with self._news:
            return self._data.decode(errors="replace")

    def tail(self, characters: int = 4000) -> str:
        """The last of what came so far, as whole lines without carriage returns."""
        text = self.text().replace("\r", "")
        return text if len(text) <= characters else text[-characters:].partition("\n")[2]

    def ending(self, characters: int = 4000) -> str:
        """As tail(); with a panic's own words where those are further up: what all CPUs did comes
        behind them, and may be long.
        """
        text, last = self.text().replace("\r", ""), self.tail(characters)
        found = [one.start() for one in _PANIC.finditer(text)]
        start = text.rfind("\n", 0, found[-1]) + 1 if found else len(text)
        if start >= len(text) - len(last):
            return last
        head = text[start : min(start + characters, len(text) - len(last))]
        between = len(text) - len(last) - start - len(head)
        return f"{head}[... {between} characters]\n{last}" if between else f"{head}{last}"

    def size(self) -> int:
        """Bytes recorded so far; a place to hand to `since`."""
        return len(self._data)

    def since(self, offset: int, until: int | None = None) -> str:
        """What came after the first `offset` bytes, and before `until`. InfrastructureError as
        text()."""
        self._check()
        with self._news:
            return self._data[offset:until].decode(errors="replace")

    def expect(self, pattern: str | Sequence[str], timeout_s: float) -> str:
        """Wait for a regular expression (or the first of several); the text that matched.

        Searches on from the end of the last match. Raises TimeoutError, or EOFError when the
        line closed before; InfrastructureError when what comes cannot be recorded.
        """
        patterns = [pattern] if isinstance(pattern, str) else list(pattern)
        compiled = [re.compile(p, re.DOTALL) for p in patterns]
        try:
            self._stream.expect_list(list(compiled), timeout=timeout_s)
        except pexpect.TIMEOUT:
            raise TimeoutError(f"no {patterns} on the console in {timeout_s:.1f} s") from None
        except pexpect.EOF:
            raise EOFError(f"the console closed before {patterns}") from None
        return str(self._stream.after)

    def mark(self, text: str, timeout_s: float) -> None:
        """Wait until `text` has come through, anywhere since power-on: choose unique ones.

        The guest writes it to /dev/kmsg, so all the kernel printed before is recorded then.
        Raises TimeoutError, EOFError or, when what comes cannot be recorded, InfrastructureError.
        """
        wanted, start = text.encode(), 0

        def there() -> bool:
            nonlocal start
            if self._data.find(wanted, start) >= 0:
                return True
            start = max(0, len(self._data) - len(wanted))
            return False

        with self._news:
            self._news.wait_for(lambda: there() or self._ended(), timeout_s)
            self._check()
            if there():
                return
        if self._closed:
            raise EOFError(f"the console closed before the mark {text!r}")
        raise TimeoutError(f"the mark {text!r} did not come through in {timeout_s:.1f} s")

    def wait_news(self, offset: int, timeout_s: float) -> bool:
        """Wait until more than `offset` bytes came or the line closed; False at the deadline."""
        with self._news:
            return self._news.wait_for(lambda: len(self._data) > offset or self._closed, timeout_s)

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait until the machine's end is gone; False at the deadline."""
        with self._news:
            return self._news.wait_for(lambda: self._closed, timeout_s)

    def splats(self, *, unfinished: bool = False) -> list[Splat]:
        """Every report the kernel printed so far, in order; after the end also a cut one.

        unfinished: with those that may still go on, for who looks no more after this. What the
        scanner raises comes through here: a scan that cannot run is a failure.
        """
        with self._scanning:
            closed = self._closed
            with self._news:
                chunk = bytes(self._data[self._scanned :])
            self._splats += self._scanner.feed(chunk)
            self._scanned += len(chunk)
            self._lines += chunk.count(b"\n") - self._lost_time(chunk)
            if closed and not self._scan_ended:
                self._scan_ended = True
                self._splats += self._scanner.finish()
            open_yet = self._scanner.so_far() if unfinished and not self._scan_ended else []
            return [*self._splats, *open_yet]

    def _lost_time(self, chunk: bytes) -> int:
        """How many whole lines that end in this tell of nothing but lost time."""
        lines = self._partial + chunk
        cut = lines.rfind(b"\n") + 1
        self._partial = lines[cut:][-_WINDOW:]
        return len(_LOST_TIME.findall(lines[:cut]))

    def progress(self) -> int:
        """A number that is another one as soon as the machine has shown that it goes on.

        Lines so far and what has come of the next one, but for those of reports that something
        stands still, and for words of lost time. Raises what splats() does.
        """
        self.splats()
        with self._scanning:
            still = self._scanner.lines_of(_STANDS_STILL)
            return self._lines - still + len(self._partial)

    def send(self, data: bytes) -> None:
        """Type on the line (sysrq letters). OSError when it is gone."""
        self._line.sendall(data)

    def close(self) -> None:
        """Hang up and end the recording; idempotent."""
        with contextlib.suppress(OSError):  # the other end may be gone already
            self._line.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._line.close()

    def _record(self) -> None:
        with self._file, selectors.DefaultSelector() as selector:
            selector.register(self._line, selectors.EVENT_READ)
            while chunk := self._receive(selector):
                self._write(chunk)
                with self._news:
                    self._data += chunk
                    self._news.notify_all()
        with self._news:
            self._closed = True
            self._news.notify_all()

    def _write(self, chunk: bytes) -> None:
        """Append to the recording; after the first failure nothing more, so that it has no gap."""
        left = memoryview(chunk)
        try:
            while left and not self._failure:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._failure = error

    def _ended(self) -> bool:
        return self._closed or self._failure is not None

    def _check(self) -> None:
        if self._failure:
            raise _not_recorded(self.path, self._failure) from self._failure

    def _receive(self, selector: selectors.BaseSelector) -> bytes:
        selector.select()  # ends with the line: close() shuts it down
        try:
            return self._line.recv(_CHUNK)
        except ConnectionResetError:
            return b""

    def _read(self, offset: int, timeout_s: float | None) -> bytes | None:
        """Some bytes after offset; b"" when there will be none, None at the deadline."""
        with self._news:
            self._news.wait_for(lambda: len(self._data) > offset or self._ended(), timeout_s)
            self._check()
            found = bytes(self._data[offset : offset + _READ])
        return found if found or self._closed else None


def _not_recorded(path: Path, error: OSError) -> InfrastructureError:
    return InfrastructureError(
        f"cannot record the console in {path}: {error.strerror}",
        hint="this is the host's side, the kernel is not to blame: make room there and run again",
    )


class _Stream(_Spawn):
    """The recorded console as pexpect reads it."""

    def __init__(self, console: Console) -> None:
        super().__init__(maxread=_READ, searchwindowsize=_WINDOW, encoding="utf-8")
        self.delayafterread = None
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._console, self._offset = console, 0

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> str:
        chunk = self._console._read(self._offset, timeout)
        if chunk is None:
            raise pexpect.TIMEOUT("deadline")
        if not chunk:
            raise pexpect.EOF("the line closed")
        self._offset += len(chunk)
        return self._text.decode(chunk)
