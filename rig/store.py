"""The content-addressed cache everything expensive is kept in."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import platformdirs

from rig import manifest, process
from rig.errors import InfrastructureError
from rig.manifest import sha256 as file_sha256

__all__ = ["Store", "digest", "file_identity", "file_sha256", "open_store"]

WORK_MARK = ".scratch"  # in a work directory: what it uses, and its size when that was measured
MAKING, GONE = ".making-", ".gone-"  # names of what is not an entry yet, and not one any more
LOCKS, MEMOS = "locks", "memo"
_LOCK_TIMEOUT_S = 4 * 3600.0
_LOCK_POLL_S = 0.1
_log = logging.getLogger(__name__)


def digest(*parts: bytes | str | Path) -> str:
    """sha256 (hex) over the parts in order; a Path stands for the bytes of that file."""
    total = hashlib.sha256()
    for part in parts:
        total.update(_hash_part(part))
    return total.hexdigest()


def _hash_part(part: bytes | str | Path) -> bytes:
    if isinstance(part, Path):
        return bytes.fromhex(file_sha256(part))
    data = part.encode() if isinstance(part, str) else part
    return hashlib.sha256(data).digest()


def file_identity(path: Path) -> str:
    """Path, size and time of a file, links followed: another file or another content has another;
    "absent" when it is not there."""
    try:
        real = path.resolve(strict=True)
        status = real.stat()
    except OSError:
        return f"{path} absent"
    return f"{path} {real} {status.st_size} {status.st_mtime_ns} {status.st_ino}"


class _Hold:
    """A shared lock on a directory, until this value is gone: nothing in use is collected.

    The lock is on the directory itself and not on a file beside it, so it follows a rename and
    cannot outlive what it protects.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def is_at(self, directory: Path) -> bool:
        """Whether what is held still has this name."""
        return _is_at(self._descriptor, directory)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # open() failed
            os.close(self._descriptor)


@dataclass(frozen=True)
class Store:
    """Directories <root>/<kind>/<key>, each complete or absent.

    An entry is made in a temporary directory and renamed into place, so a reader never sees
    half of one; one lock a (kind, key) keeps two rigs from making the same thing twice. What
    a Store value handed out stays until that value is gone: rig.upkeep collects nothing of it.
    """

    root: Path
    _holds: dict[Path, _Hold] = field(default_factory=dict, init=False, repr=False, compare=False)

    def entry(self, kind: str, key: str) -> Path | None:
        """The published entry, or None when it is not there or not as its manifest says."""
        place = self.root / kind / key
        return place if self._fault(place) == "" else None

    def publish(
        self, kind: str, key: str, make: Callable[[Path], None], *, uses: Sequence[str] = ()
    ) -> Path:
        """The entry, made by make(directory) when it is not there yet.

        When make raises, nothing is left behind. Blocks while another rig makes the same entry.
        uses: "kind/key" of other things in the store that it is worth nothing without.
        """
        if found := self.entry(kind, key):
            return found
        with self.lock(kind, key):
            place = self.root / kind / key
            fault = self._fault(place)
            if fault == "":
                return place
            if fault:
                _log.warning("%s %s in the store is damaged: %s; making it again", kind, key, fault)
            self._clear(place)
            self._make(place, make, uses)
            return place

    def _make(self, place: Path, make: Callable[[Path], None], uses: Sequence[str]) -> None:
        work = Path(tempfile.mkdtemp(prefix=f"{MAKING}{place.name}-", dir=place.parent))
        try:
            make(work)
            manifest.write(work, uses)
            work.chmod(0o755)
            hold = _Hold(work)
            work.rename(place)
            self._holds[place] = hold
        finally:
            remove(work)

    def discard(self, kind: str, key: str) -> bool:
        """Remove an entry that turned out to be damaged. False where somebody else uses it: it may
        be sound for him, and its files must not become others under his hands.
        """
        place = self.root / kind / key
        with self.lock(kind, key):
            self._holds.pop(place, None)
            with unheld(place) as free:
                if free:
                    self._clear(place)
                return free

    def scratch(self, kind: str, key: str, *, uses: Sequence[str] = ()) -> Path:
        """A directory for work that lasts (worktrees, build trees); hold its lock to use it.

        uses: as in publish.
        """
        place = self.root / kind / key
        while not self.take(place):
            self._make_scratch(place, uses)
        mark = place / WORK_MARK
        if not mark.exists() or read_mark(place).get("uses", []) != list(uses):
            write_mark(place, {"uses": list(uses)})
        os.utime(place)
        return place

    def _make_scratch(self, place: Path, uses: Sequence[str]) -> None:
        """Make it with its mark, at once: without one it would be an entry that is damaged."""
        self._make_directories(place.parent)
        work = Path(tempfile.mkdtemp(prefix=f"{MAKING}{place.name}-", dir=place.parent))
        try:
            write_mark(work, {"uses": list(uses)})
            work.chmod(0o755)
            work.rename(place)
        except OSError as error:
            # Another rig was first, or took this one for what a killed rig had left.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
        finally:
            remove(work)

    @contextlib.contextmanager
    def hold(self, entry: Path) -> Iterator[None]:
        """Keep an entry from being collected until the block ends, whatever becomes of this value.

        InfrastructureError when it is not there any more.
        """
        try:
            held = _Hold(entry)
        except FileNotFoundError:
            held = None
        if held is None or not held.is_at(entry):
            raise InfrastructureError(f"{entry} is not in the store any more")
        try:
            yield
        finally:
            del held

    @contextlib.contextmanager
    def lock(self, kind: str, key: str) -> Iterator[None]:
        """Held by one rig at a time; the kernel drops it when its holder dies, and all that the
        holder started meanwhile."""
        path = self.lock_path(kind, key)
        self._make_directories(path.parent, self.root / kind)
        while True:
            with path.open("w") as file:
                _acquire(file, f"{kind} {key}")
                # Whoever collects removes the file while it has the lock: then this one locks out
                # nobody any more.
                if _is_at(file.fileno(), path):
                    with _locked(file.fileno()):
                        yield
                    return

    @contextlib.contextmanager
    def locked_now(self, kind: str, key: str) -> Iterator[bool]:
        """The lock of an entry without waiting for it; False when another rig has it."""
        path = self.lock_path(kind, key)
        self._make_directories(path.parent)
        with path.open("w") as file:
            yield try_lock(file.fileno()) and _is_at(file.fileno(), path)

    def lock_path(self, kind: str, key: str) -> Path:
        """The file that stands for the lock of an entry."""
        return self.root / LOCKS / f"{kind}-{key}.lock"

    def recall(self, kind: str, key: str) -> Any:
        """What was remembered under this name (JSON), or None."""
        path = self._memo(kind, key)
        try:
            saved = json.loads(path.read_bytes())
            whole = saved["sha256"] == digest(json.dumps(saved["value"]))
            os.utime(path)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return saved["value"] if whole else None

    def remember(self, kind: str, key: str, value: Any) -> None:
        """Keep a small JSON value; the key must hash all that it depends on."""
        path = self._memo(kind, key)
        self._make_directories(path.parent)
        # Read back, so that the sum is over what recall will see.
        value = json.loads(json.dumps(value))
        text = json.dumps({"sha256": digest(json.dumps(value)), "value": value})
        write_whole(path, text)

    def _memo(self, kind: str, key: str) -> Path:
        return self.root / MEMOS / f"{kind}-{key}.json"

    def _fault(self, place: Path) -> str | None:
        """What is wrong with an entry, "" for nothing; None when there is none. Holds it."""
        if not self.take(place):
            return None
        known = manifest.read(place)
        fault = manifest.glance(place, known) if known else "it has no manifest"
        if not fault:
            os.utime(place)  # its last use
        return fault

    def take(self, place: Path) -> bool:
        """Hold an entry's directory as long as this value lives; False when it is not there."""
        while not ((held := self._holds.get(place)) and held.is_at(place)):
            try:
                self._holds[place] = _Hold(place)
            except (FileNotFoundError, NotADirectoryError):
                self._holds.pop(place, None)
                return False
        return True

    def _clear(self, place: Path) -> None:
        """Remove what is there of a key whose lock is ours, a killed rig's leavings too."""
        self._holds.pop(place, None)
        discard(place)
        for prefix in (MAKING, GONE):
            for left in place.parent.glob(f"{prefix}{place.name}-*"):
                remove(left)

    def _make_directories(self, *paths: Path) -> None:
        try:
            for path in paths:
                path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InfrastructureError(
                f"the store {self.root} cannot be written: {error.strerror}",
                hint="set RIG_STORE to a directory of yours with some 12 GB free",
            ) from error


def _acquire(file: IO[str], what: str) -> None:
    """Lock a file; says so when another rig has it, and gives up after a build's longest time."""
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    if try_lock(file.fileno()):
        return
    _log.warning("waiting for another rig that makes %s", what)
    while time.monotonic() < deadline:
        # flock has no deadline of its own, and a signal to end it would need the main thread.
        time.sleep(_LOCK_POLL_S)
        if try_lock(file.fileno()):
            return
    raise InfrastructureError(
        f"another rig has made {what} for {_LOCK_TIMEOUT_S / 3600:.0f} hours",
        hint=f"see who it is: fuser -v {file.name}",
    )


@contextlib.contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """A lock of ours, lent to the commands of the block; free after it, whoever has it still."""
    try:
        with process.lent(descriptor):
            yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def try_lock(descriptor: int) -> bool:
    """Lock a file or directory for us alone; False when somebody else has it."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def open_store() -> Store:
    """The user's store: $RIG_STORE, else `rig` under the XDG cache directory."""
    named = os.environ.get("RIG_STORE")
    root = Path(named).absolute() if named else platformdirs.user_cache_path("rig")
    return Store(root)


def read_mark(place: Path) -> dict[str, Any]:
    """What a work directory's mark says; {} when it has none that can be read."""
    try:
        value = json.loads((place / WORK_MARK).read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_mark(place: Path, value: dict[str, Any]) -> None:
    """Mark a directory as one for work."""
    write_whole(place / WORK_MARK, json.dumps(value))


def write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody sees half of it."""
    # Not by mkstemp(): who may read it is for the user's umask to say.
    fresh = path.with_name(f".new-{secrets.token_hex(8)}")
    try:
        with fresh.open("x") as file:
            file.write(text)
        fresh.rename(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def unheld(place: Path) -> Iterator[bool]:
    """Whether nobody holds a directory, which stays so for the block: who comes meanwhile waits,
    and looks again. So it is where there is none.
    """
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        yield True
        return
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)


def discard(place: Path) -> None:
    """Take an entry's name away at once, then remove it: nobody ever sees half of it."""
    if not place.exists():
        return
    gone = Path(tempfile.mkdtemp(prefix=f"{GONE}{place.name}-", dir=place.parent))
    place.rename(gone)
    remove(gone)


def remove(path: Path) -> None:
    """Remove a directory and all in it; what another rig removes at the same time is fine."""

    def failed(_call: object, _name: str, why: tuple[type, BaseException, object]) -> None:
        if not isinstance(why[1], FileNotFoundError):
            raise why[1]

    if path.exists():
        shutil.rmtree(path, onerror=failed)
