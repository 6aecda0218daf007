"""Programs of this host and heads of others."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from rig import elf
from rig.elf import Executable


def compiled(directory: Path, *flags: str) -> bytes:
    source = directory / "one.c"
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", *flags, "-o", directory / "one", source], check=True)
    return (directory / "one").read_bytes()


def test_a_static_program(tmp_path: Path) -> None:
    assert elf.read(compiled(tmp_path, "-static")) == Executable(os.uname().machine)


def test_a_static_program_that_may_lie_anywhere(tmp_path: Path) -> None:
    assert elf.read(compiled(tmp_path, "-static-pie")) == Executable(os.uname().machine)


def test_a_dynamic_program(tmp_path: Path) -> None:
    found = elf.read(compiled(tmp_path))
    assert found
    assert found.interpreter.startswith("/lib")


def test_what_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "one.c").write_text("int f(void) { return 0; }\n")
    subprocess.run(["gcc", "-c", "one.c"], cwd=tmp_path, check=True)
    assert elf.read((tmp_path / "one.o").read_bytes()) is None
    for data in (b"", b"#!/bin/sh\n", b"\x7fELF", Path(__file__).read_bytes()):
        assert elf.read(data) is None


@pytest.mark.parametrize(
    ("machine", "arch"), [(183, "arm64"), (243, "riscv64"), (9999, "machine 9999")]
)
def test_another_architecture(machine: int, arch: str) -> None:
    data = bytearray(Path(sys.executable).resolve().read_bytes()[:64])
    struct.pack_into("<H", data, 18, machine)
    struct.pack_into("<H", data, 56, 0)  # no segments
    found = elf.read(bytes(data))
    assert found == Executable(arch)
