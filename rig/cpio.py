"""A cpio archive as the kernel unpacks one into its first root, the same bytes every time."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Mapping
from dataclasses import dataclass

_MAGIC = b"070701"  # "newc": Documentation/driver-api/early-userspace/buffer-format.rst
_END = "TRAILER!!!"


@dataclass(frozen=True)
class Node:
    """One entry. mode: type and permissions as in st_mode; device: (major, minor) of a device."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(data: bytes, *, executable: bool = False) -> Node:
    """A regular file."""
    return Node(stat.S_IFREG | (0o755 if executable else 0o644), data)


def character_device(major: int, minor: int, permissions: int = 0o600) -> Node:
    """A character device; writing it into an archive takes no privilege."""
    return Node(stat.S_IFCHR | permissions, device=(major, minor))


def archive(nodes: Mapping[str, Node]) -> bytes:
    """The archive of nodes by path ("rig/plan"), with the directories they need. Pure.

    Owned by root, dated 1970, in the order of their names: equal nodes give equal bytes.
    """
    entries = {name: Node(stat.S_IFDIR | 0o755) for path in nodes for name in _parents(path)}
    entries.update(nodes)
    parts = [_entry(number, name, entries[name]) for number, name in enumerate(sorted(entries), 1)]
    return b"".join([*parts, _entry(0, _END, Node(0))])


def _parents(path: str) -> list[str]:
    """Every directory above a path, "" excluded."""
    parent = posixpath.dirname(path)
    return [*_parents(parent), parent] if parent else []


def _entry(number: int, name: str, node: Node) -> bytes:
    """Header, name and data, each padded to a multiple of four bytes."""
    raw = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(node.mode) else 1
    fields = (
        *(number, node.mode, 0, 0, links, 0, len(node.data)),
        *(0, 0, *node.device, len(raw), 0),
    )
    head = _MAGIC + b"".join(b"%08X" % value for value in fields) + raw
    return _padded(head) + _padded(node.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
