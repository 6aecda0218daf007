"""A unified kernel image: where its sections lie, and that objcopy puts them there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from rig.errors import InfrastructureError
from rig.machine import uki

LISTED = """\
/usr/lib/systemd/boot/efi/linuxx64.efi.stub:     file format pei-x86-64

Sections:
Idx Name          Size      VMA               LMA               File off  Algn
  0 .text         0000a1c0  0000000000005000  0000000000005000  00000400  2**4
                  CONTENTS, ALLOC, LOAD, READONLY, CODE
  8 .sdmagic      00000030  0000000000014080  0000000000014080  00010000  2**2
                  CONTENTS, ALLOC, LOAD, READONLY, DATA
  9 .sbat         000000f8  0000000000013000  0000000000013000  00010200  2**2
                  CONTENTS, ALLOC, LOAD, READONLY, DATA
"""


def test_what_is_added_lies_behind_the_last_section() -> None:
    assert uki.first_free(LISTED) == 0x15000
    assert uki.placed(0x15000, [("a", 1), ("b", 0x1000), ("c", 0x1001), ("d", 0)]) == {
        "a": 0x15000,
        "b": 0x16000,
        "c": 0x17000,
        "d": 0x19000,
    }


def sections(path: Path) -> dict[str, bytes]:
    """What of a program is in which section."""
    listed = subprocess.run(["objdump", "-h", path], check=True, capture_output=True, text=True)
    data = path.read_bytes()
    line = r"^ *\d+ (\S+) +([0-9a-f]+) +[0-9a-f]+ +[0-9a-f]+ +([0-9a-f]+) "
    found = re.findall(line, listed.stdout, re.MULTILINE)
    return {name: data[int(at, 16) :][: int(size, 16)] for name, size, at in found}


def test_an_image_has_all_three(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int _start(void) { return 0; }\n")
    stub, kernel, initrd = (tmp_path / name for name in ("stub", "kernel", "initrd"))
    library = ["gcc", "-shared", "-nostdlib", "-fPIC", "-Wl,-Bsymbolic,--build-id=none"]
    subprocess.run([*library, "-o", str(tmp_path / "a.so"), str(tmp_path / "a.c")], check=True)
    parts = ["-j", ".text", "-j", ".data", "-j", ".dynamic"]
    pe = ["objcopy", *parts, "-O", "pei-x86-64", str(tmp_path / "a.so"), str(stub)]
    subprocess.run(pe, check=True)
    kernel.write_bytes(b"MZ" + bytes(range(256)) * 40)
    initrd.write_bytes(b"070701" * 3000)
    words = 'console=ttyS0,115200 it\'s="quoted" rdinit=/init'
    made = uki.build(stub, kernel, initrd, words, tmp_path)
    assert made == tmp_path / uki.NAME
    found = sections(made)
    assert found[".cmdline"] == words.encode()
    assert found[".initrd"] == initrd.read_bytes()
    assert found[".linux"] == kernel.read_bytes()


def test_what_is_no_stub_is_named(tmp_path: Path) -> None:
    one = tmp_path / "nothing"
    one.write_text("nothing")
    with pytest.raises(InfrastructureError, match="stub cannot be read"):
        uki.build(one, one, one, "x", tmp_path)
