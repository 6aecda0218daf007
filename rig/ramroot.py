"""An image as an initramfs: a root file system that a board keeps in its memory alone."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rig import cpio, initramfs
from rig.image import Image
from rig.progress import QUIET, Progress
from rig.store import Store, digest

RECIPE = Path("images/board")

_KEY = "1"  # raise it when the way the archive is made here changes
_BLOCK = 4096
_FACTS = "facts.json"
# Level 1: half of the time of the default, a twentieth more to send.
_LEVEL = 1


@dataclass(frozen=True)
class RamRoot:
    """archive: gzipped. disk_kib: of the RAM disk. used_mib: of it, and as much of the board's
    memory. digest: sha256 of the archive.
    """

    archive: Path
    digest: str
    disk_kib: int
    used_mib: int

    @property
    def append(self) -> str:
        """What the kernel has to be told."""
        return f"rdinit=/init brd.rd_nr=1 brd.rd_size={self.disk_kib}"


def build(image: Image, root: Path, store: Store, progress: Progress = QUIET) -> RamRoot:
    """The archive of an image, from the store or made now (seconds). root: of the checkout."""
    init = initramfs.compiled(root / RECIPE / "init.c", store)

    def make(directory: Path) -> None:
        progress.stage("the image as an initramfs")
        blocks = b"".join(numbered(image.disk))
        nodes = {
            "init": cpio.file(init.read_bytes(), executable=True),
            "dev/console": cpio.character_device(5, 1),
            "rig/root.blocks": cpio.file(blocks),
        }
        packed = gzip.compress(cpio.archive(nodes), _LEVEL, mtime=0)
        (directory / "initrd.gz").write_bytes(packed)
        facts = {
            "digest": digest(packed),
            "disk_kib": image.disk.stat().st_size // 1024,
            "used_mib": len(blocks) >> 20,
        }
        (directory / _FACTS).write_text(json.dumps(facts), encoding="ascii")

    key = digest(_KEY, image.key, init)[:32]
    entry = store.publish("ramroot", key, make, uses=[f"image/{image.key}"])
    facts = json.loads((entry / _FACTS).read_bytes())
    return RamRoot(entry / "initrd.gz", **facts)


def numbered(disk: Path) -> Iterator[bytes]:
    """The blocks of a disk that are not empty, each behind its number (64 bits). Holes of the file
    are not read.
    """
    empty = bytes(_BLOCK)
    with disk.open("rb") as file:
        for start, end in _extents(file.fileno(), disk.stat().st_size):
            file.seek(start)
            for number in range(start // _BLOCK, end // _BLOCK):
                block = file.read(_BLOCK)
                if block != empty:
                    yield number.to_bytes(8, "little") + block


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """What of a file is not a hole, in whole blocks."""
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole follows
            return
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        at = -(-at // _BLOCK) * _BLOCK
        yield start // _BLOCK * _BLOCK, at
