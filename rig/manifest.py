"""What every file of a directory was when it was made, and which is not so any more."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

NAME = ".manifest.json"


@dataclass(frozen=True)
class Manifest:
    """Relative paths and what they are; the manifest itself is not among them.

    files: size in bytes. sha256, mtime_ns and mode: of the same files. links: where a symbolic
    link leads. folders: directories, the empty ones too. disk_bytes: taken on disk.
    uses: "kind/key" of what this needs to be of use.
    """

    files: dict[str, int] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    mtime_ns: dict[str, int] = field(default_factory=dict)
    mode: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    uses: list[str] = field(default_factory=list)
    disk_bytes: int = 0


def write(directory: Path, uses: Sequence[str] = ()) -> Manifest:
    """Read every byte below a directory and write its manifest into it."""
    made = Manifest(uses=list(uses))
    disk_bytes = 0
    for name, status in _walk(directory):
        disk_bytes += status.st_blocks * 512
        path = directory / name
        if stat.S_ISDIR(status.st_mode):
            made.folders.append(name)
        elif stat.S_ISLNK(status.st_mode):
            made.links[name] = str(path.readlink())
        else:
            made.files[name] = status.st_size
            made.sha256[name] = sha256(path)
            made.mtime_ns[name] = status.st_mtime_ns
            made.mode[name] = stat.S_IMODE(status.st_mode)
    value = {**asdict(made), "disk_bytes": disk_bytes}
    (directory / NAME).write_text(json.dumps(value, indent=1) + "\n")
    return Manifest(**value)


def read(directory: Path) -> Manifest | None:
    """The manifest in a directory; None when it is not there or cannot be read as one."""
    try:
        value: Any = json.loads((directory / NAME).read_bytes())
        return Manifest(files=value.pop("files"), **value)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def glance(directory: Path, manifest: Manifest) -> str:
    """What is wrong with a directory at first sight, or "".

    Sizes and times of all files, no byte of most: a file whose time is another is read.
    """
    for name, size in manifest.files.items():
        path = directory / name
        try:
            status = path.lstat()
        except OSError as error:
            return f"{name}: {error.strerror}"
        if not stat.S_ISREG(status.st_mode):
            return f"{name} is no file any more"
        if status.st_size != size:
            return f"{name} has {status.st_size} bytes, not {size}"
        if status.st_mtime_ns != manifest.mtime_ns.get(name, status.st_mtime_ns):
            wrong = _other_bytes(path, name, manifest)
            if wrong:
                return wrong
            # git renews the time of a pack it found something in; once read is enough.
            os.utime(path, ns=(status.st_atime_ns, manifest.mtime_ns[name]))
    return next(_other_links(directory, manifest), "")


def examine(directory: Path, manifest: Manifest) -> list[str]:
    """Everything that is wrong with a directory; every byte is read."""
    found = dict(_walk(directory))
    wrong = [f"{name} is not in the manifest" for name in found if not _known(name, manifest)]
    for name, size in manifest.files.items():
        if name not in found:
            wrong.append(f"{name} is gone")
        elif not stat.S_ISREG(found[name].st_mode):
            wrong.append(f"{name} is no file any more")
        elif found[name].st_size != size:
            wrong.append(f"{name} has {found[name].st_size} bytes, not {size}")
        else:
            wrong += filter(None, [_other_mode(found[name], name, manifest)])
            wrong += filter(None, [_other_bytes(directory / name, name, manifest)])
    wrong += [f"{name}/ is gone" for name in manifest.folders if not (directory / name).is_dir()]
    return [*wrong, *_other_links(directory, manifest)]


def sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def disk_use(directory: Path) -> int:
    """Bytes on disk below a directory; a file with several names counts a part for each."""
    total = 0
    for _, status in _walk(directory):
        total += status.st_blocks * 512 // max(1, status.st_nlink if _is_file(status) else 1)
    return total


def _is_file(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode)


def _known(name: str, manifest: Manifest) -> bool:
    return name in manifest.files or name in manifest.links or name in manifest.folders


def _other_mode(status: os.stat_result, name: str, manifest: Manifest) -> str:
    mode = stat.S_IMODE(status.st_mode)
    wanted = manifest.mode.get(name, mode)
    return "" if mode == wanted else f"{name} has mode {mode:o}, not {wanted:o}"


def _other_bytes(path: Path, name: str, manifest: Manifest) -> str:
    try:
        same = sha256(path) == manifest.sha256.get(name)
    except OSError as error:
        return f"{name}: {error.strerror}"
    if same:
        return ""
    return f"{name} has other bytes" if name in manifest.sha256 else f"{name} has no checksum"


def _other_links(directory: Path, manifest: Manifest) -> Iterator[str]:
    for name, leads in manifest.links.items():
        path = directory / name
        if not path.is_symlink():
            yield f"the link {name} is gone"
        elif str(path.readlink()) != leads:
            yield f"the link {name} leads to {path.readlink()}, not {leads}"


def _walk(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    """(relative path, lstat) of all below a directory, sorted, but for its manifest; what
    vanishes meanwhile is left out."""
    pending = [""]
    while pending:
        inside = pending.pop()
        try:
            with os.scandir(directory / inside) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        for entry in entries:
            name = f"{inside}/{entry.name}" if inside else entry.name
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if name != NAME:
                yield name, status
            if stat.S_ISDIR(status.st_mode):
                pending.append(name)
