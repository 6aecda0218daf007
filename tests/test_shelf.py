"""The disk that machines take compiled suites from: whole, root's, and no file left behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from rig import shelf
from rig.errors import InfrastructureError
from rig.machine.plan import SHELF_MIB
from rig.shelf import Shelf
from rig.suite import BuiltSuite, Suite


def built(place: Path, name: str = "abi", size: int = 5000) -> BuiltSuite:
    """A compiled suite with a program, a link, a directory and an odd name."""
    root = place / name / "root"
    (root / name / "deep").mkdir(parents=True)
    program = root / name / "a.sh"
    program.write_bytes(b"#!/bin/sh\n" + b"#" * size)
    program.chmod(0o755)
    (root / name / "deep" / 'odd "name"').write_text("x")
    (root / name / "link").symlink_to("a.sh")
    return BuiltSuite(Suite(name, place / name), root, name, ())


def told(disk: Shelf, request: str) -> str:
    """What debugfs says of the file system."""
    path = f"/proc/{os.getpid()}/fd/{disk.descriptor}"
    done = subprocess.run(
        ["debugfs", "-R", request, path], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_it_has_every_suite_as_it_is(tmp_path: Path) -> None:
    suites = [built(tmp_path / "one", "abi"), built(tmp_path / "two", "net/x y")]
    disk = Shelf(suites)
    assert [disk.name(one.directory) for one in suites] == ["0-abi", "1-net_x_y"]
    assert disk.name(tmp_path) == ""
    assert told(disk, "cat 0-abi/abi/a.sh") == (suites[0].directory / "abi/a.sh").read_text()
    assert "Mode:  0755" in told(disk, "stat 0-abi/abi/a.sh")
    assert 'Fast link dest: "a.sh"' in told(disk, "stat 0-abi/abi/link")
    assert told(disk, 'cat "0-abi/abi/deep/odd ""name"""') == "x"
    assert os.fstat(disk.descriptor).st_size == SHELF_MIB << 20
    assert os.fstat(disk.descriptor).st_nlink == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_whoever_built_it_all_of_it_is_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, suite = shelf._make_file_system, built(tmp_path)

    def by_a_person(top: Path, disk: Path) -> int:
        for path in top.rglob("*"):
            os.chown(path, 1000, 1001, follow_symlinks=False)
        return make(top, disk)

    monkeypatch.setattr(shelf, "_make_file_system", by_a_person)
    disk = Shelf([suite])
    for name in ("abi", "abi/a.sh", "abi/link", "abi/deep"):
        assert "User:     0   Group:     0" in told(disk, f"stat 0-abi/{name}")
    assert "User:     0   Group:     0" in told(disk, 'stat "0-abi/abi/deep/odd ""name"""')


def test_what_is_too_large_is_left_to_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = built(tmp_path)
    monkeypatch.setattr(shelf, "SHELF_MIB", 16)
    disk = Shelf([suite])
    assert disk.name(suite.directory) == ""
    assert os.fstat(disk.descriptor).st_size == 16 << 20


def test_an_owner_that_cannot_be_set_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (built(tmp_path).directory / "abi" / "in two\nlines").write_text("")
    monkeypatch.setattr(shelf, "_is_ours", lambda _: True)
    with pytest.raises(InfrastructureError, match="cannot set owners"):
        Shelf([BuiltSuite(Suite("abi", tmp_path), tmp_path / "abi" / "root", "abi", ())])
