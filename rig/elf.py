"""What the head of an ELF file says: which architecture runs it, and whether it is static."""

from __future__ import annotations

import struct
from dataclasses import dataclass

# e_machine of <elf.h>, under the rig's names of architectures.
_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "arm64", 243: "riscv64"}
_CLASS_64, _LITTLE = 2, 1
_EXECUTABLE, _SHARED = 2, 3
_PT_INTERP = 3
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")


@dataclass(frozen=True)
class Executable:
    """interpreter: the dynamic loader it asks for, "" for a static program."""

    arch: str
    interpreter: str = ""


def read(data: bytes) -> Executable | None:
    """The head of a 64-bit little-endian executable, or None when it is not one. Pure."""
    if len(data) < _HEADER.size or data[:4] != b"\x7fELF":
        return None
    ident, kind, machine, _, _, table, _, _, _, size, count, *_ = _HEADER.unpack_from(data)
    if kind not in (_EXECUTABLE, _SHARED):
        return None
    arch = _MACHINES.get(machine, f"machine {machine}")
    if (ident[4], ident[5]) != (_CLASS_64, _LITTLE):
        return Executable(arch if arch == "i386" else f"32-bit or big-endian {arch}")
    offsets = [table + size * number for number in range(count)]
    return Executable(arch, _interpreter(data, offsets))


def _interpreter(data: bytes, offsets: list[int]) -> str:
    """The path in the PT_INTERP segment, or ""."""
    for offset in offsets:
        segment = data[offset : offset + 56]
        if len(segment) == 56 and struct.unpack_from("<I", segment)[0] == _PT_INTERP:
            (start,), (length,) = (
                struct.unpack_from("<Q", segment, 8),
                struct.unpack_from("<Q", segment, 32),
            )
            return data[start : start + length].split(b"\0")[0].decode(errors="replace")
    return ""
