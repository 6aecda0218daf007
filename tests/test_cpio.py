"""The archive as another program unpacks it, and that its bytes depend on nothing else."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

from rig import cpio

NODES = {
    "init": cpio.file(b"\x7fELF...", executable=True),
    "rig/argv": cpio.file(b"./x\0"),
    "rig/deep/er/empty": cpio.file(b""),
}


def test_cpio_unpacks_it(tmp_path: Path) -> None:
    subprocess.run(
        ["cpio", "-i", "--quiet", "--make-directories"],
        input=cpio.archive(NODES),
        cwd=tmp_path,
        check=True,
    )
    for name, node in NODES.items():
        assert (tmp_path / name).read_bytes() == node.data
    assert stat.S_IMODE((tmp_path / "init").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "rig/argv").stat().st_mode) == 0o644


def test_cpio_lists_a_device_root_owns() -> None:
    archive = cpio.archive({"dev/console": cpio.character_device(5, 1)})
    listed = subprocess.run(
        ["cpio", "-itv", "--quiet", "--numeric-uid-gid"],
        input=archive,
        capture_output=True,
        env={"TZ": "UTC", "LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        check=True,
    ).stdout.decode()
    directory, console = listed.splitlines()
    assert directory.split()[:4] == ["drwxr-xr-x", "2", "0", "0"]
    assert console.split()[:6] == ["crw-------", "1", "0", "0", "5,", "1"]
    assert "Jan  1  1970" in console


def test_the_order_of_nodes_does_not_matter() -> None:
    backwards = dict(reversed(list(NODES.items())))
    assert cpio.archive(backwards) == cpio.archive(NODES)
    assert cpio.archive({**NODES, "init": cpio.file(b"other")}) != cpio.archive(NODES)
