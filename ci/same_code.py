"""Compare the code of two builds function by function: which differ, line numbers left out.

Run as `python ci/same_code.py KERNEL KERNEL`, names of rig.toml, both built before. It is shown
with it that the series, switched off, changes nothing: files whose objects are the same byte for
byte need no look; of all others every function is disassembled, with what it refers to by name.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from rig import config as configuration  # noqa: E402
from rig import kbuild  # noqa: E402
from rig.errors import InfrastructureError, RigError  # noqa: E402
from rig.store import open_store  # noqa: E402

# The series adds three system calls: these count them, are the table of them, or hold a bit for
# each number.
EXPECTED = {
    "arch/x86/entry/common.o": {"do_syscall_64"},
    "arch/x86/entry/syscall_64.o": {"x64_sys_call"},
    "kernel/sys_ni.o": {
        "__x64_sys_async_cancel",
        "__x64_sys_async_submit",
        "__x64_sys_wait_for_async",
    },
    # struct seccomp_filter has a bitmap of NR_syscalls bits, and what lies behind it moves.
    "kernel/seccomp.o": {
        "__put_seccomp_filter",
        "__seccomp_filter",
        "__seccomp_filter_orphan",
        "do_seccomp",
        "recv_wait_event",
        "seccomp_do_user_notification.constprop.0",
        "seccomp_notify_detach.part.0",
        "seccomp_notify_ioctl",
        "seccomp_notify_poll",
    },
}
# Objects that are data about the build itself.
SKIPPED = ("vmlinux.o", "init/version.o", "init/version-timestamp.o", "kernel/configs.o")

_FUNCTION = re.compile(r"^[0-9a-f]+ <(?P<name>[^>]+)>:$")
# An instruction, or what the linker will put into it: the name it refers to.
_CODE = re.compile(r"^\s+[0-9a-f]+:\s(?P<words>.*)$")
_JUMP = re.compile(r"\b[0-9a-f]+ (?=<)")
# Names that the compiler and the kernel's macros number, by how many there were before in the file.
_NUMBERED = re.compile(r"(?P<name>\b__UNIQUE_ID_\w*?|\.LC)\d+\b")
_SECTION = re.compile(r"(?P<section>\.(?:rodata|data)[\w.]*)\+0x[0-9a-f]+")


@dataclass(frozen=True)
class Verdict:
    """How many functions were there, which differ, and which of those had to."""

    functions: int
    different: tuple[str, ...]
    expected: tuple[str, ...]


def objects(tree: Path) -> set[str]:
    """Every object that the compiler made, relative to the build tree."""
    found = {str(path.relative_to(tree)) for path in tree.rglob("*.o")}
    own = ("tools/", "scripts/", "usr/", "arch/x86/boot/", "arch/x86/entry/vdso/", "installed/")
    return {one for one in found if not one.startswith(own) and not one.endswith(SKIPPED)}


def functions(path: Path) -> dict[str, list[str]]:
    """Name -> instructions of each function in an object, addresses by name."""
    done = subprocess.run(
        ["objdump", "-dr", "--no-show-raw-insn", str(path)], capture_output=True, check=True
    )
    found: dict[str, list[str]] = {}
    for line in done.stdout.decode().splitlines():
        if match := _FUNCTION.match(line):
            found[match["name"]] = current = []
        elif match := _CODE.match(line):
            current.append(normal(match["words"]))
    return found


def normal(words: str) -> str:
    """An instruction or a relocation without what depends on where things lie. Pure."""
    words = _NUMBERED.sub(lambda match: match["name"], _JUMP.sub("", words))
    # Strings and tables have no names of their own: where they lie depends on all before them.
    return _SECTION.sub(lambda match: match["section"], words)


def differences(name: str, ours: Path, theirs: Path) -> tuple[int, list[str]]:
    """How many functions an object has, and those that are not the same in both trees."""
    if not (ours / name).exists() or not (theirs / name).exists():
        return 0, [f"{name}: in one of the builds only"]
    one, two = functions(ours / name), functions(theirs / name)
    names = sorted(one.keys() | two.keys())
    return len(names), [f"{name}: {each}" for each in names if one.get(each) != two.get(each)]


def equal(name: str, ours: Path, theirs: Path) -> bool:
    """Both trees have it, byte for byte."""
    paths = ours / name, theirs / name
    return all(path.exists() for path in paths) and paths[0].read_bytes() == paths[1].read_bytes()


def compare(ours: Path, theirs: Path) -> Verdict:
    """Compare two build trees."""
    names = sorted(objects(ours) | objects(theirs))
    count, different, expected = 0, list[str](), list[str]()
    with ThreadPoolExecutor(max_workers=2) as pool:
        looked = [name for name in names if not equal(name, ours, theirs)]
        for name, (total, found) in zip(
            looked, pool.map(lambda one: differences(one, ours, theirs), looked), strict=True
        ):
            count += total
            for one in found:
                known = one.removeprefix(f"{name}: ") in EXPECTED.get(name, ())
                (expected if known else different).append(one)
    return Verdict(count, tuple(different), tuple(expected))


def build_tree(kernel: str) -> Path:
    """Where the objects of a kernel of rig.toml lie; it is built if it is not there."""
    config = configuration.load(ROOT / configuration.FILE_NAME)
    store = open_store()
    built = kbuild.build(config, config.kernel(kernel), store)
    try:
        return tree_of(built.directory)
    except InfrastructureError:
        # The store has made room, or another configuration has: the tree comes with the kernel.
        store.discard("kernel", built.key)
    return tree_of(kbuild.build(config, config.kernel(kernel), store).directory)


def same(entry: Path, tree: Path) -> bool:
    """Whether the kernel of an entry is the one that lies in a build tree."""
    return (entry / "vmlinux").samefile(tree / "vmlinux")


def tree_of(entry: Path) -> Path:
    """The build tree of a kernel in the store, by the command that its metadata keeps."""
    text = json.dumps(json.loads((entry / "metadata.json").read_bytes()))
    found = re.search(r"O=(/[^\s\"']+/build/[^\s\"']+)", text)
    tree = Path(found[1]) if found else None
    # The entry's vmlinux is a second name of the tree's, until another kernel is built there.
    if not tree or not (tree / "vmlinux").exists() or not same(entry, tree):
        raise InfrastructureError(
            f"{entry}: its build tree is gone, or has gone on to another configuration",
            hint="remove the entry and build it again",
        )
    return tree


def lines(verdict: Verdict) -> Iterator[str]:
    """For a person."""
    yield from (f"differs: {one}" for one in verdict.different)
    yield from (f"as it has to: {one}" for one in verdict.expected)
    yield f"{verdict.functions} functions of objects that differ, {len(verdict.different)} differ"


def main(argv: Sequence[str]) -> int:
    """Compare; 0 when nothing differs that should not."""
    if len(argv) != 2:
        sys.stderr.write(f"usage: {shlex.join(['same_code.py', 'KERNEL', 'KERNEL'])}\n")
        return 2
    try:
        verdict = compare(*(build_tree(name) for name in argv))
    except RigError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code
    sys.stdout.write("".join(f"{line}\n" for line in lines(verdict)))
    return 1 if verdict.different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
