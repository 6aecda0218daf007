"""The root of an exact machine: our init, one static program and its files, in one archive."""

from __future__ import annotations

import functools
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rig import cpio, elf, process
from rig.cpio import Node
from rig.errors import BuildError, UsageError
from rig.store import Store, digest

RECIPE = Path("images/exact")
WORK = "work"  # where the program and its files lie in the machine, and where it starts

_KEY = "1"  # part of every key: raise it when the way something is made here changes
_FLAGS = ("-O2", "-Wall", "-static", "-pthread")
_COMPILE_S = 120
_BLOCK = 4096
RAM_DISK_MIB = 32
_CREATED = 1767225600  # 2026-01-01, when the machine's clock begins
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # an ordinary user's lacks mke2fs
_UUID = "65786163-7400-4000-8000-000000000000"  # "exact"; anything that never changes would do
_MAX_ARGV_BYTES, _MAX_ARGV_WORDS = 65535, 1024  # images/exact/init.c


@dataclass(frozen=True)
class Guest:
    """What runs in the machine.

    argv: of the program, argv[0] being ./NAME. files: what lies in /work, by path below it.
    skip: instructions that pass before it starts. seed: of the moments at which it is interrupted,
    0 for none. timeout_s: seconds of the machine's clock, 10^9 instructions each where nothing
    sleeps.
    """

    argv: tuple[str, ...]
    program: bytes
    files: Mapping[str, bytes]
    skip: int
    seed: int
    timeout_s: int
    ext4: bool = False


def archive(guest: Guest, root: Path, store: Store) -> bytes:
    """The initramfs; equal guests give equal bytes. root: of the checkout, for our init."""
    words = b"".join(word.encode() + b"\0" for word in guest.argv)
    if len(words) > _MAX_ARGV_BYTES or len(guest.argv) > _MAX_ARGV_WORDS:
        raise UsageError(f"the program's arguments are too long: {len(words)} bytes")
    plan = {
        "timeout_s": guest.timeout_s,
        "skip": guest.skip,
        "seed": guest.seed,
        "ext4": int(guest.ext4),
    }
    nodes = {
        "init": cpio.file(_init(root, store).read_bytes(), executable=True),
        "dev/console": cpio.character_device(5, 1),
        "rig/argv": cpio.file(words),
        "rig/plan": cpio.file("".join(f"{key} {value}\n" for key, value in plan.items()).encode()),
        f"{WORK}/{guest.argv[0].removeprefix('./')}": cpio.file(guest.program, executable=True),
        **{f"{WORK}/{name}": cpio.file(data) for name, data in guest.files.items()},
    }
    if guest.ext4:
        nodes["rig/ext4.blocks"] = _ext4(store)
    return cpio.archive(nodes)


def load_program(path: Path, arch: str) -> bytes:
    """The program's bytes; UsageError, with what to do, unless it is static and of this arch."""
    data = _read(path, "program")
    found = elf.read(data)
    if found is None:
        raise UsageError(
            f"{path} is not an ELF program",
            hint="the machine has no interpreter of scripts: give a static binary or a .c file",
        )
    if found.arch != arch:
        raise UsageError(f"{path} is for {found.arch}, the kernel for {arch}")
    if found.interpreter:
        raise UsageError(
            f"{path} is dynamically linked (it asks for {found.interpreter})",
            hint="link it with -static: the machine has no libraries",
        )
    return data


def load_files(wishes: Sequence[str]) -> dict[str, bytes]:
    """--file PATH[=NAME]: contents by name below /work, the file's own name where none is given."""
    files = {}
    for wish in wishes:
        path, _, name = wish.partition("=")
        name = name or Path(path).name
        if name.startswith("/") or ".." in Path(name).parts:
            raise UsageError(f"--file {wish}: {name!r} is not a place below /{WORK}")
        if name in files:
            raise UsageError(f"--file {wish}: there is a {name} already")
        files[name] = _read(Path(path), "file")
    return files


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the {what} {path}: {error.strerror}") from error


# -- what is compiled ---------------------------------------------------------------------------


def compile_program(
    source: Path, into: Path, headers: Path, root: Path, defined: Sequence[str] = ()
) -> Path:
    """A .c file as a static program, against the kernel's own headers and exact.h.

    defined: macros. BuildError with the compiler's words when it does not compile.
    """
    _read(source, "program")
    program = into / source.stem
    includes = ["-isystem", str(headers / "include"), "-I", str(root / RECIPE)]
    macros = [f"-D{name}" for name in defined]
    _gcc([*_FLAGS, *macros, *includes, "-o", str(program), str(source)], source)
    return program


def plugin(root: Path, store: Store) -> Path:
    """The counting plugin as a shared object."""
    source = root / RECIPE / "count.c"
    flags = ("-O2", "-Wall", "-shared", "-fPIC", "-fvisibility=hidden")
    return _compiled(source, (), flags, store)


def compiled(source: Path, store: Store) -> Path:
    """A static program of ours, kept in the store by content and compiler."""
    return _compiled(source, (), _FLAGS, store)


def _init(root: Path, store: Store) -> Path:
    recipe = root / RECIPE
    return _compiled(recipe / "init.c", (recipe / "exact.h",), _FLAGS, store)


def _compiled(source: Path, beside: Sequence[Path], flags: Sequence[str], store: Store) -> Path:
    """What gcc makes of a source of ours, kept in the store by content and compiler."""
    if not source.is_file():
        raise UsageError(f"{source} is missing", hint="it belongs to the rig's own checkout")
    key = digest(_KEY, source, *beside, json.dumps(flags), _compiler())[:32]
    entry = store.publish(
        "exact",
        key,
        lambda made: _gcc([*flags, "-o", str(made / source.stem), str(source)], source),
    )
    return entry / source.stem


@functools.cache
def _compiler() -> str:
    return process.run(["gcc", "--version"], timeout_s=20).output.splitlines()[0]


def _gcc(words: Sequence[str], source: Path) -> None:
    argv = ["gcc", *words]
    done = process.run(argv, timeout_s=_COMPILE_S, check=False)
    if done.returncode:
        static = "cannot find -l" in done.output
        raise BuildError(
            f"{source} does not compile",
            hint="a static C library is missing: `rig doctor`" if static else "",
            output=done.output[-4000:],
            reproduce=shlex.join(argv),
        )


# -- the disk -----------------------------------------------------------------------------------


def _ext4(store: Store) -> Node:
    return cpio.file(_ext4_blocks(store))


def ext4_image(store: Store) -> bytes:
    """The RAM disk's empty ext4, whole: the same bytes that the exact machine has."""
    return whole_image(_ext4_blocks(store), RAM_DISK_MIB << 20)


def _ext4_blocks(store: Store) -> bytes:
    """An empty ext4, the same bytes every time, as init.c takes it: numbered blocks."""
    version = process.run(["mke2fs", "-V"], timeout_s=20, env={"PATH": _PATH}).output.splitlines()[
        0
    ]
    key = digest(_KEY, version, _UUID, str(RAM_DISK_MIB))[:32]
    entry = store.publish("exact", key, _make_ext4)
    return (entry / "ext4.blocks").read_bytes()


def _make_ext4(entry: Path) -> None:
    image = entry / "ext4"
    with image.open("wb") as file:
        file.truncate(RAM_DISK_MIB << 20)
    options = f"lazy_itable_init=0,lazy_journal_init=0,nodiscard,hash_seed={_UUID}"
    process.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-U", _UUID, "-E", options, image],
        timeout_s=60,
        env={"PATH": _PATH, "E2FSPROGS_FAKE_TIME": str(_CREATED), "MKE2FS_CONFIG": os.devnull},
    )
    (entry / "ext4.blocks").write_bytes(numbered_blocks(image.read_bytes()))
    image.unlink()


def numbered_blocks(image: bytes) -> bytes:
    """The blocks of an image that are not empty, each behind its number (64 bits). Pure."""
    empty = bytes(_BLOCK)
    parts = []
    for number in range(len(image) // _BLOCK):
        block = image[number * _BLOCK : (number + 1) * _BLOCK]
        if block != empty:
            parts += [number.to_bytes(8, "little"), block]
    return b"".join(parts)


def whole_image(blocks: bytes, size: int) -> bytes:
    """The image of so many bytes that numbered_blocks() was made of. Pure."""
    image = bytearray(size)
    for at in range(0, len(blocks), 8 + _BLOCK):
        start = int.from_bytes(blocks[at : at + 8], "little") * _BLOCK
        image[start : start + _BLOCK] = blocks[at + 8 : at + 8 + _BLOCK]
    return bytes(image)
