"""Compiled suites on a disk of their own, from which every machine of a run takes them."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from rig import process
from rig.errors import InfrastructureError
from rig.machine.plan import SHELF_MIB
from rig.suite import BuiltSuite

# The disk in a guest, and where its suites lie then.
PLACE = "/opt/rig"
MOUNT = f"mkdir -p {PLACE} && mount -t ext4 /dev/vdb {PLACE}"

_BLOCK = 4096
# Room for what programs write beside themselves; the file is sparse.
_SPARE_MIB, _SPARE_FILES = 256, 16384


class Shelf:
    """A file without a name, so that nothing is ever left behind: a file system with the suites, in
    front of a machine's second disk.

    The disk is always of one size, since a saved machine remembers that. What a guest writes there
    is its own and goes with it. names: where each suite lies, by the directory it was compiled
    to; empty when they are too large for the disk.
    """

    def __init__(self, suites: Sequence[BuiltSuite]) -> None:
        """Needs mke2fs; InfrastructureError when it fails."""
        self.names = {
            built.directory: f"{number}-{re.sub(r'[^0-9A-Za-z_.-]', '_', built.suite.name)}"
            for number, built in enumerate(suites)
        }
        with tempfile.TemporaryDirectory(prefix="rig-shelf-") as place:
            work, disk = Path(place), Path(place, "disk")
            top = work / "suites"
            top.mkdir()
            for directory, name in self.names.items():
                shutil.copytree(directory, top / name, symlinks=True)
            if _make_file_system(top, disk) > SHELF_MIB:
                self.names = {}
                disk.write_bytes(b"")
            self._file = disk.open("r+b")
            self._file.truncate(SHELF_MIB << 20)

    @property
    def descriptor(self) -> int:
        """The open file, to be handed to QEMU."""
        return self._file.fileno()

    def name(self, directory: Path) -> str:
        """Where a compiled suite lies, or "" when it is not here."""
        return self.names.get(directory, "")


def _make_file_system(top: Path, disk: Path) -> int:
    """Everything below top, owned by root; its MiB."""
    files = sorted(top.rglob("*"))
    blocks = sum(-(-path.lstat().st_size // _BLOCK) + 1 for path in files)
    size_mib = blocks * _BLOCK // (1 << 20) * 5 // 4 + _SPARE_MIB
    if size_mib <= SHELF_MIB:
        words = ["mke2fs", "-q", "-t", "ext4", "-b", str(_BLOCK), "-m", "0"]
        words += ["-O", "^has_journal,^resize_inode", "-E", "root_owner=0:0,lazy_itable_init=1"]
        words += ["-N", str(len(files) + _SPARE_FILES), "-d", str(top), str(disk), f"{size_mib}M"]
        process.run(words, timeout_s=600)
        _give_to_root(disk, [path.relative_to(top) for path in files if _is_ours(path)])
    return size_mib


def _is_ours(path: Path) -> bool:
    status = path.lstat()
    return bool(status.st_uid or status.st_gid)


def _give_to_root(disk: Path, paths: Iterable[Path]) -> None:
    """mke2fs keeps owners, and they may be a person's on this host."""
    names = [str(path).replace('"', '""') for path in paths]
    if not names:
        return
    script = disk.with_name("owners")
    lines = [f'set_inode_field "/{name}" {owner} 0' for name in names for owner in ("uid", "gid")]
    script.write_text("\n".join(lines) + "\n")
    done = process.run(["debugfs", "-w", "-f", str(script), str(disk)], timeout_s=600)
    # It ends well whatever it could not do, and says nothing but the commands when all is well.
    known = {f"debugfs: {line}" for line in lines}
    if more := [line for line in done.output.splitlines()[1:] if line not in known]:
        raise InfrastructureError("debugfs cannot set owners", output="\n".join(more)[-2000:])


__all__ = ["MOUNT", "PLACE", "Shelf"]
