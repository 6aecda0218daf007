"""The content-addressed cache everything expensive is kept in."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import platformdirs

from rig.errors import InfrastructureError

_MANIFEST = ".manifest.json"
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


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Entry:
    """One directory of the store and what it takes on disk."""

    kind: str
    key: str
    size_bytes: int


@dataclass(frozen=True)
class Store:
    """Directories <root>/<kind>/<key>, each complete or absent.

    An entry is made in a temporary directory and renamed into place, so a reader never sees
    half of one; one lock a (kind, key) keeps two rigs from making the same thing twice.
    """

    root: Path

    def entry(self, kind: str, key: str) -> Path | None:
        """The published entry, or None when it is not there or a file at its top changed size."""
        place = self.root / kind / key
        try:
            manifest = json.loads((place / _MANIFEST).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            manifest = {}
        return place if manifest and _whole(place, manifest["files"]) else None

    def publish(self, kind: str, key: str, make: Callable[[Path], None]) -> Path:
        """The entry, made by make(directory) when it is not there yet.

        When make raises, nothing is left behind. Blocks while another rig makes the same entry.
        """
        with self.lock(kind, key):
            found = self.entry(kind, key)
            if found:
                return found
            place = self.root / kind / key
            _remove(place)
            # The lock is ours, so what is there of this key is what a killed rig left.
            for left in place.parent.glob(f".making-{key}-*"):
                _remove(left)
            work = Path(tempfile.mkdtemp(prefix=f".making-{key}-", dir=place.parent))
            try:
                make(work)
                (work / _MANIFEST).write_text(json.dumps({"files": _sizes(work)}, indent=1))
                work.chmod(0o755)
                work.rename(place)
            finally:
                _remove(work)
            return place

    def scratch(self, kind: str, key: str) -> Path:
        """A directory for work that lasts (worktrees, build trees); hold its lock to use it."""
        place = self.root / kind / key
        self._make_directories(place)
        return place

    def entries(self) -> list[Entry]:
        """Everything in the store, scratch directories included."""
        places = sorted(path for path in self.root.glob("*/*") if path.is_dir())
        return [Entry(path.parent.name, path.name, _disk_use(path)) for path in places]

    @contextlib.contextmanager
    def lock(self, kind: str, key: str) -> Iterator[None]:
        """Held by one rig at a time; the kernel drops it when its holder dies."""
        path = self.root / "locks" / f"{kind}-{key}.lock"
        self._make_directories(path.parent, self.root / kind)
        with path.open("w") as file:
            _acquire(file, f"{kind} {key}")
            yield

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
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    _log.warning("waiting for another rig that makes %s", what)
    while time.monotonic() < deadline:
        # flock has no deadline of its own, and a signal to end it would need the main thread.
        time.sleep(_LOCK_POLL_S)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
    raise InfrastructureError(
        f"another rig has made {what} for {_LOCK_TIMEOUT_S / 3600:.0f} hours",
        hint=f"see who it is: fuser -v {file.name}",
    )


def open_store() -> Store:
    """The user's store: $RIG_STORE, else `rig` under the XDG cache directory."""
    named = os.environ.get("RIG_STORE")
    root = Path(named).absolute() if named else platformdirs.user_cache_path("rig")
    return Store(root)


def _sizes(directory: Path) -> dict[str, int]:
    return {
        path.name: path.lstat().st_size for path in sorted(directory.iterdir()) if path.is_file()
    }


def _disk_use(directory: Path) -> int:
    """Bytes on disk; a file that vanishes meanwhile does not count."""
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += (Path(place) / name).lstat().st_blocks * 512
    return total


def _whole(place: Path, files: dict[str, int]) -> bool:
    try:
        return all((place / name).lstat().st_size == size for name, size in files.items())
    except OSError:
        return False


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
