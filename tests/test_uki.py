"""A unified kernel image: where its sections lie, and that objcopy puts them there."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from rig.errors import InfrastructureError, UsageError
from rig.machine import deploy, uki

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
WORDS = 'console=ttyS0,115200 it\'s="quoted" rdinit=/init'


def test_what_is_added_lies_behind_the_last_section() -> None:
    assert uki.first_free(LISTED) == 0x15000
    assert uki.placed(0x15000, [("a", 1), ("b", 0x1000), ("c", 0x1001), ("d", 0)]) == {
        "a": 0x15000,
        "b": 0x16000,
        "c": 0x17000,
        "d": 0x19000,
    }


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A stub, and what stands for a kernel and its initramfs."""
    (tmp_path / "a.c").write_text("int _start(void) { return 0; }\n")
    stub, kernel, initrd = (tmp_path / name for name in ("stub", "kernel", "initrd"))
    library = ["gcc", "-shared", "-nostdlib", "-fPIC", "-Wl,-Bsymbolic,--build-id=none"]
    subprocess.run([*library, "-o", str(tmp_path / "a.so"), str(tmp_path / "a.c")], check=True)
    kept = ["-j", ".text", "-j", ".data", "-j", ".dynamic"]
    pe = ["objcopy", *kept, "-O", "pei-x86-64", str(tmp_path / "a.so"), str(stub)]
    subprocess.run(pe, check=True)
    kernel.write_bytes(b"MZ" + bytes(range(256)) * 40)
    initrd.write_bytes(b"070701" * 3000)
    return stub, kernel, initrd


def sections(path: Path) -> dict[str, tuple[int, bytes]]:
    """Where each section of a program comes to lie, and what is in it."""
    listed = subprocess.run(["objdump", "-h", path], check=True, capture_output=True, text=True)
    data = path.read_bytes()
    line = r"^ *\d+ (\S+) +([0-9a-f]+) +([0-9a-f]+) +[0-9a-f]+ +([0-9a-f]+) "
    found = re.findall(line, listed.stdout, re.MULTILINE)
    return {
        name: (int(address, 16), data[int(at, 16) :][: int(size, 16)])
        for name, size, address, at in found
    }


def test_an_image_has_all_three(parts: tuple[Path, Path, Path], tmp_path: Path) -> None:
    stub, kernel, initrd = parts
    made = uki.build(stub, kernel, initrd, WORDS, tmp_path)
    assert made == tmp_path / uki.NAME
    found = sections(made)
    assert found[".cmdline"][1] == WORDS.encode()
    assert found[".initrd"][1] == initrd.read_bytes()
    assert found[".linux"][1] == kernel.read_bytes()
    ends = [(address, address + len(data)) for address, data in found.values()]
    assert ends == sorted(ends)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))
    assert all(found[name][0] % 0x1000 == 0 for name in (".cmdline", ".initrd", ".linux"))


def test_the_same_again_is_the_same(parts: tuple[Path, Path, Path], tmp_path: Path) -> None:
    began = int(time.time())
    first = uki.build(*parts, WORDS, tmp_path).read_bytes()
    os.utime(parts[0], (1, 1))  # the stub is fetched again by each run
    while int(time.time()) <= began + 1:  # such an image tells the second in which it was made
        time.sleep(0.05)
    assert uki.build(*parts, WORDS, tmp_path).read_bytes() == first


def test_what_is_no_stub_is_named(tmp_path: Path) -> None:
    one = tmp_path / "nothing"
    one.write_text("nothing")
    with pytest.raises(InfrastructureError, match="stub cannot be read"):
        uki.build(one, one, one, "x", tmp_path)


@pytest.mark.parametrize("words", ["x=\u00fc", "x=1\n", "\x1b"])
def test_words_that_would_not_arrive(words: str) -> None:
    with pytest.raises(UsageError, match="plain letters"):
        deploy.SystemdBoot.check_words(None, words)  # type: ignore[arg-type]


SAID = {
    "loader": "systemd-boot 252.39",
    "boot": "/efi",
    "directory": "/efi/rig",
    "same": "yes",
    "secure": "0",
    "default": "debian.conf",
    "entry": "/rig/rig.efi",
    "stub": "/usr/lib/systemd/boot/efi/linuxx64.efi.stub",
}


class Answering:
    """A board's system, as far as it answers one question."""

    where = "the system of b"

    def __init__(self, told: dict[str, str]) -> None:
        self._told = told

    def ask(self, *_: object) -> tuple[int, str, str]:
        """What the script says there."""
        return 0, "".join(f"{name}\t{value}\n" for name, value in self._told.items()), ""


def asked(**told: str) -> str:
    """Where the stub of such a board is."""
    way = deploy.SystemdBoot.__new__(deploy.SystemdBoot)
    way._system = Answering({**SAID, **told})  # type: ignore[assignment]
    return way._checked(None)  # type: ignore[arg-type]


def test_a_board_that_will_do() -> None:
    assert asked() == SAID["stub"]
    assert asked(secure="", default="debian*") == SAID["stub"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"loader": ""}, "no boot loader that tells its name"),
        ({"loader": "GRUB 2.06"}, "but by GRUB"),
        ({"stub": ""}, "no systemd-stub"),
        ({"secure": "1"}, "Secure Boot"),
        ({"directory": "/var/lib/rig"}, "does not see /var/lib/rig"),
        ({"directory": "/efix/rig"}, "does not see /efix/rig"),
        ({"default": ""}, "for ever: its default is whatever entry comes first"),
        ({"default": "@saved"}, "for ever"),
        ({"default": "r*"}, "for ever"),
        ({"entry": ""}, "no entry rig for /rig/rig.efi"),
        ({"entry": "/rig/other.efi"}, "no entry rig"),
    ],
)
def test_a_board_that_will_not_do(told: dict[str, str], words: str) -> None:
    with pytest.raises(InfrastructureError, match=words):
        asked(**told)


def test_a_directory_on_another_file_system_is_not_seen() -> None:
    way = deploy.SystemdBoot.__new__(deploy.SystemdBoot)
    told = {name: value for name, value in SAID.items() if name != "same"}
    way._system = Answering(told)  # type: ignore[assignment]
    with pytest.raises(InfrastructureError, match="does not see"):
        way._checked(None)  # type: ignore[arg-type]
