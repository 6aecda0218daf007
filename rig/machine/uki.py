"""A unified kernel image: a kernel, its initramfs and its words in one program of the firmware's.

What begins them is systemd's stub (systemd-stub(7)), taken from the board itself: it is of the same
version as its systemd-boot. Put together by objcopy, section by section.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from rig import process
from rig.errors import InfrastructureError

NAME = "rig.efi"
_ALIGN = 0x1000
_TIMEOUT_S = 300.0
# name, size, address: three of the columns of `objdump --section-headers`.
_SECTION = re.compile(r"^\s*\d+\s+(\S+)\s+([0-9a-f]+)\s+([0-9a-f]+)\s", re.MULTILINE)


def first_free(listed: str) -> int:
    """The address behind the last section. listed: by `objdump --section-headers`. Pure.

    ValueError where there is no section.
    """
    ends = [int(size, 16) + int(address, 16) for _, size, address in _SECTION.findall(listed)]
    return _aligned(max(ends))


def placed(start: int, sections: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Addresses of sections of these sizes in bytes, one behind the other. Pure."""
    found = {}
    for name, size in sections:
        found[name] = start
        start = _aligned(start + size)
    return found


def build(stub: Path, kernel: Path, initrd: Path, words: str, into: Path) -> Path:
    """The image, in the directory `into`; InfrastructureError where objcopy does not take the stub.

    kernel: with an EFI stub of its own (CONFIG_EFI_STUB). words: its command line.
    """
    line, made = into / "cmdline", into / NAME
    line.write_text(words, encoding="ascii")
    listed = process.run(
        ["objdump", "--section-headers", str(stub)], timeout_s=_TIMEOUT_S, check=False
    )
    try:
        start = first_free(listed.output)
    except ValueError:
        hint = "it has to be /usr/lib/systemd/boot/efi/linux*.efi.stub of the board"
        raise InfrastructureError(
            "systemd's stub cannot be read by objdump", output=listed.output, hint=hint
        ) from None
    # The kernel is the last one: it may take more room in memory than in the file.
    parts = {".cmdline": line, ".initrd": initrd, ".linux": kernel}
    addresses = placed(start, ((name, path.stat().st_size) for name, path in parts.items()))
    # Its own date, not that of today: what is on the board already has not to be sent again.
    argv = ["objcopy", "--preserve-dates"]
    for name, path in parts.items():
        argv += ["--add-section", f"{name}={path}"]
        argv += ["--change-section-vma", f"{name}={addresses[name]:#x}"]
    process.run([*argv, str(stub), str(made)], timeout_s=_TIMEOUT_S)
    return made


def _aligned(address: int) -> int:
    return -(-address // _ALIGN) * _ALIGN


__all__ = ["NAME", "build", "first_free", "placed"]
