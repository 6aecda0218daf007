"""One run at a time for each board, whoever's and wherever: who holds it, and what was left."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from rig import process
from rig.config import BoardConfig
from rig.errors import InfrastructureError
from rig.machine.labgrid import Place, TakenError

# Whoever may use the board may see who does: /run/lock is everybody's.
DEFAULT = "/run/lock"
_LOOK_S = 1.0  # between two looks at whether it is free
_SAY_S = 60.0  # after which it is said again who is waited for
_SSH_S = 30.0
_NOBODY = ("", "None")  # as labgrid says who has a place; "" where it cannot say
# The lock is flock's, so it goes when its holder does, however that ends; what is in the file says
# who it is, and a holder that came to its end empties it: words of somebody who does not hold the
# lock any more were left by a run that was killed.
_REMOTE = r"""
umask 0
mkdir -p "$1" || exit 1
file=$1/$2
# What is there is opened as it is: a kernel refuses to create it over another user's in a directory
# for all (fs.protected_regular).
[ -e "$file" ] || : >>"$file" || exit 1
exec 9<"$file" || exit 1
put() { dd of="$file" conv=nocreat 2>/dev/null || cat >"$file"; }
have() { # 1: somebody else has it; some file systems lock what is open for writing alone
    flock -n 9 && return
    [ $? = 1 ] && return 1
    exec 9>>"$file" && flock -n 9
}
have
case $? in 0) echo free ;; 1) echo busy ;; *) exit 1 ;; esac
cat "$file"; echo; echo .
flock -n 9 || exit 75
IFS= read -r own || exit 1
printf '%s\n' "$own" | put || exit 1
echo held
IFS= read -r last
[ "$last" = over ] && put </dev/null
"""


@dataclass(frozen=True)
class Holder:
    """Who holds a board. since: ISO 8601, UTC. what: the command. placed: a place of labgrid's was
    acquired for that, and not by a person before.
    """

    host: str
    user: str
    pid: int
    since: str
    what: str
    placed: bool = False

    @property
    def words(self) -> str:
        """For a person."""
        if not self.pid:
            return f"{self.user} on {self.host} ({self.what})"
        return f"{self.user} on {self.host} (process {self.pid}, since {self.since}: {self.what})"


def ourselves(what: str) -> Holder:
    """This process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Holder(socket.gethostname(), user, os.getpid(), now, what)


class BusyError(Exception):
    """Somebody else holds it. holder: who; None where they have not said so yet."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__(holder.words if holder else "somebody")
        self.holder = holder


class Hold(Protocol):
    """A lock that is held.

    left: whose it was before, if that one did not come to its end. tidy: nobody has to be told of
    us when we have gone; else our words stay there.
    """

    left: Holder | None
    tidy: bool

    def held(self) -> bool:
        """Whether it still is: that of another host goes with the connection."""

    def over(self) -> None:
        """Give it back; idempotent."""


@contextlib.contextmanager
def claimed(board: BoardConfig, what: str, tell: Callable[[str], object]) -> Iterator[Hold]:
    """Hold the board for a while.

    Waits for as long as somebody else holds it, and tells who that is. InfrastructureError where
    the lock's place cannot be used.
    """
    hold = _awaited(board, ourselves(what), tell)
    try:
        yield hold
    finally:
        hold.over()


@contextlib.contextmanager
def by_hand(board: BoardConfig, what: str, *, anyway: bool) -> Iterator[None]:
    """Hold the board for what a person does to it; InfrastructureError where somebody else has it.

    anyway: all the same. A place of labgrid's is for labgrid to guard, but for a run of this user:
    to labgrid that is who asks.
    """
    if anyway:
        yield
        return
    own = ourselves(what)
    try:
        hold = (
            _Local(_of_place(board), own, by_hand=True)
            if board.place
            else take(board, own, by_hand=True)
        )
    except BusyError as busy:
        raise InfrastructureError(
            f"{board.name} is held by {busy}", hint="wait for that, or say --anyway"
        ) from busy
    # Nobody has seen it back in its own system: the next run has to be told of who left it.
    hold.tidy = hold.left is None
    try:
        yield
    finally:
        hold.over()


def _awaited(board: BoardConfig, own: Holder, tell: Callable[[str], object]) -> Hold:
    said, when = "", 0.0
    while True:
        try:
            return take(board, own)
        except BusyError as busy:
            now = time.monotonic()
            if str(busy) != said or now - when > _SAY_S:
                said, when = str(busy), now
                tell(f"waiting for {board.name}, which is held by {busy}")
        time.sleep(_LOOK_S)


def take(board: BoardConfig, own: Holder, *, by_hand: bool = False) -> Hold:
    """Hold it from now on; BusyError where somebody does. by_hand: whoever left it is told with us,
    for this does not bring it back.
    """
    if board.place:
        return _Placed(board, own)
    place = board.lock or DEFAULT
    host, colon, directory = place.partition(":")
    name = f"rig-{board.locked_as}.lock"
    if colon and "/" not in host:
        return _Remote(host, directory, name, own, by_hand=by_hand)
    return _Local(Path(place) / name, own, by_hand=by_hand)


def _after(own: Holder, left: Holder | None, by_hand: bool) -> Holder:
    if left is None or not by_hand:
        return own
    return replace(own, what=f"{own.what}, after {left.words} had left it", placed=left.placed)


def _holder(text: str) -> Holder | None:
    """Who a lock's file tells of; None where it is empty, or not written to its end."""
    try:
        return msgspec.json.decode(text.strip(), type=Holder)
    except msgspec.MsgspecError:
        return None


def _told(own: Holder) -> str:
    value: dict[str, Any] = asdict(own)
    return json.dumps(value)


class _Local:
    """A file of this host, or of a file system that hosts share (NFS from version 4 on)."""

    tidy = True
    _as = ""

    def __init__(self, path: Path, own: Holder, *, by_hand: bool = False) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _opened(path)
        except OSError as error:
            raise InfrastructureError(
                f"the lock of the board cannot be had: {path}: {error.strerror}",
                hint="lock = a directory that everybody who uses the board may write to",
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            there = _holder(os.pread(self._file, 65536, 0).decode(errors="replace"))
            os.close(self._file)
            raise BusyError(there) from error
        self.left = _holder(os.pread(self._file, 65536, 0).decode(errors="replace"))
        self._write(_after(own, self.left, by_hand))
        self._held = True

    def _write(self, own: Holder) -> None:
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{_told(own)}\n".encode(), 0)

    def held(self) -> bool:
        return self._held

    def over(self) -> None:
        if self._held:
            self._held = False
            if self.tidy:
                os.ftruncate(self._file, 0)
            os.close(self._file)


class _Placed(_Local):
    """A place of labgrid's, and a file of this host: labgrid knows users of hosts, and no
    processes.
    """

    def __init__(self, board: BoardConfig, own: Holder) -> None:
        super().__init__(_of_place(board), own)
        self._own, self._place, self._ours = own, Place(board), False
        try:
            # A person may have it who wants to keep it; what a killed run has acquired is nobody's.
            self._ours = self._place.holder() in _NOBODY or bool(self.left and self.left.placed)
            self._ours = not self._place.acquire() or self._ours
            self._as = self._place.holder()
            self._write(replace(own, placed=self._ours))
        except TakenError as taken:
            self._never()
            raise BusyError(Holder(taken.host, taken.user, 0, "", self._place.where)) from taken
        except InfrastructureError:
            self._never()
            raise
        except BaseException:  # it may have been acquired before we were interrupted
            self.over()
            raise

    def _never(self) -> None:
        """We did not get it: whoever left it is still to be told of."""
        if self.left:
            self._write(self.left)
            self.tidy = False
        super().over()

    def held(self) -> bool:
        """Whether labgrid says so as well: somebody may have kicked us. Not, that it cannot say."""
        if self._held and self._as and self._as != (now := self._place.holder()):
            return not now  # "": it cannot say
        return self._held

    def over(self) -> None:
        if self._held:
            try:
                if self._ours and self.held():
                    self._place.release()
                    self._write(replace(self._own, placed=False))
            finally:
                super().over()


def _of_place(board: BoardConfig) -> Path:
    """By the place: there may be several names for it."""
    return Path(board.lock or DEFAULT) / f"rig-labgrid-{board.place}.lock"


def _opened(path: Path) -> int:
    """For reading and writing, for everybody. Not created where it is there: a kernel refuses that
    to another user in a directory for all (fs.protected_regular).
    """
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    made = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with contextlib.suppress(PermissionError):  # somebody else has been quicker
        os.fchmod(made, 0o666)
    return made


class _Remote:
    """A file of a host that all can log in to: held there for as long as our connection is."""

    tidy = True

    def __init__(
        self, host: str, directory: str, name: str, own: Holder, *, by_hand: bool = False
    ) -> None:
        script = shlex.join(["sh", "-c", _REMOTE, "rig", directory, name])
        options = ("BatchMode=yes", f"ConnectTimeout={_SSH_S:.0f}", "ServerAliveInterval=15")
        argv = ["ssh", "-T", *(word for one in options for word in ("-o", one)), host, script]
        pipe = subprocess.PIPE
        self._process = process.spawn(argv, stdin=pipe, stdout=pipe, stderr=pipe)
        self._where = f"{host}:{directory}/{name}"
        try:
            word, there = self._heard()
            if word == "busy":
                raise BusyError(there)
            if word == "free":
                self.left = there
                self._say(_told(_after(own, there, by_hand)))
                word = self._line()
            if word != "held":
                raise InfrastructureError(
                    f"the lock of the board cannot be had: {self._where}",
                    hint=f"`ssh {host}` has to work without a question, and needs flock there",
                    output=self._complaint(),
                )
        except BaseException:
            process.end(self._process)
            raise

    def held(self) -> bool:
        return self._process.poll() is None

    def over(self) -> None:
        if self.held():
            with contextlib.suppress(OSError):
                self._say("over" if self.tidy else "left")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_SSH_S)
            process.end(self._process)

    def _heard(self) -> tuple[str, Holder | None]:
        """The first word, and who the file tells of."""
        word, text = self._line(), ""
        assert self._process.stdout is not None
        for line in self._process.stdout if word in ("busy", "free") else ():
            if line == b".\n":
                break
            text += line.decode(errors="replace")
        return word, _holder(text)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode(errors="replace").strip()

    def _complaint(self) -> str:
        """What ssh, or the shell there, has to say; it ends by itself or is ended."""
        process.end(self._process, grace_s=2.0)
        assert self._process.stderr is not None
        return self._process.stderr.read().decode(errors="replace").strip()

    def _say(self, words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{words}\n".encode())
        self._process.stdin.flush()


__all__ = ["BusyError", "Holder", "by_hand", "claimed", "ourselves", "take"]
