"""Have the kernel's own checkers look at a series: checkpatch.pl --strict, and sparse.

Run as `python ci/check_series.py [KERNEL] [--against BASE]`, names of rig.toml, both built before.
checkpatch must have nothing to say of any patch. sparse looks at every C file that the series adds
or changes: it must have nothing to say of an added one, and of a changed one nothing that it does
not say of the same file in BASE, the same kernel without the series. Exit code 1 otherwise.

The configuration is that of the kernel with all of ci/check_series.config on top: what the series
changes for the sake of an option is compiled there, in a build tree that goes when it is done.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from same_code import build_tree  # noqa: E402

from rig import config, series  # noqa: E402
from rig.errors import InfrastructureError, RigError, UsageError  # noqa: E402

# One remark of checkpatch, as --terse prints it, and one of sparse.
_REMARK = re.compile(r"^.*:\d+: (?:ERROR|WARNING|CHECK): .*$", re.MULTILINE)
_WARNING = re.compile(r"^(?P<file>\S+?):\d+:\d+: (?P<what>(?:warning|error): .*)$", re.MULTILINE)
_FILE = re.compile(r"^\+\+\+ b/(?P<name>\S+\.c)$", re.MULTILINE)
_OPTIONS = ROOT / "ci/check_series.config"
_SYMBOL = re.compile(r"^(CONFIG_\w+)=.*$", re.MULTILINE)
# Programs for user space are not sparse's, and not built with the kernel.
_KERNEL = re.compile(r"^(?!tools/|samples/|Documentation/)")


def _run(words: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, check=False, cwd=cwd, capture_output=True, text=True)


def style(source: Path, patches: Sequence[Path]) -> list[str]:
    """What checkpatch says."""
    said = []
    for patch in patches:
        words = ["scripts/checkpatch.pl", "--strict", "--terse", "--no-summary", str(patch)]
        done = _run(["perl", *words], source)
        remarks = _REMARK.findall(done.stdout)
        if done.returncode not in (0, 1) or (done.returncode == 1 and not remarks):
            raise InfrastructureError(f"{words[0]} failed", output=done.stdout + done.stderr)
        said += remarks
    return said


def configured(build: Path, tree: Path) -> Path:
    """A build tree for single files: of the same source, with all of _OPTIONS that it knows."""
    source, wanted = (build / "source").resolve(), _OPTIONS.read_text(encoding="utf-8")
    tree.mkdir()
    (tree / ".config").write_text((build / ".config").read_text(encoding="utf-8") + wanted)
    make = ["make", "-C", str(source), f"O={tree}"]
    for target in (["olddefconfig"], [f"-j{os.cpu_count()}", "prepare"]):
        done = _run([*make, *target], tree)
        if done.returncode:
            raise InfrastructureError(f"make {target[-1]} failed", output=done.stderr[-3000:])
    came = set((tree / ".config").read_text(encoding="utf-8").splitlines())
    if lost := [one[0] for one in _SYMBOL.finditer(wanted) if one[0] not in came]:
        raise InfrastructureError(f"{_OPTIONS.name}: {' '.join(lost)}: not to be had with {build}")
    return tree


def compiled(source: Path, file: str) -> str:
    """The file that is compiled for a C file: itself, or the one that has it by #include."""
    name = Path(file)
    include = f'#include "{name.name}"\n'
    for other in sorted((source / name.parent).glob("*.c")):
        if include in other.read_text(encoding="utf-8", errors="replace"):
            return str(name.parent / other.name)
    return file


def sparse(build: Path, files: Sequence[str]) -> Counter[str]:
    """What sparse says of these files: "file: remark" -> how often."""
    found: Counter[str] = Counter()
    for file in files:
        words = ["make", "C=2", "CF=-D__CHECK_ENDIAN__", f"{file[:-2]}.o"]
        done = _run(words, build)
        if done.returncode:
            raise InfrastructureError(f"{' '.join(words)} failed", output=done.stderr[-3000:])
        if "CHECK" not in done.stdout:
            raise InfrastructureError(f"sparse did not look at {file}", output=done.stdout)
        for one in _WARNING.finditer(done.stderr):
            name = one["file"].removeprefix("../").removeprefix(f"{(build / 'source').resolve()}/")
            found[f"{name}: {one['what']}"] += 1
    return found


def _objects(source: Path, files: Sequence[str]) -> list[str]:
    return sorted({compiled(source, file) for file in files})


def fresh(said: Counter[str], before: Counter[str], names: Sequence[str]) -> Counter[str]:
    """What is said, and was not before. In a file that is not of the series (a header) it is not
    counted how often: that is as often as it is included.
    """
    own = tuple(f"{name}: " for name in names)
    more = said - before
    return Counter({k: n for k, n in more.items() if k.startswith(own) or k not in before})


def main(argv: Sequence[str]) -> int:
    """Print every remark; 0 when there is none."""
    parser = argparse.ArgumentParser(description="checkpatch --strict and sparse over a series")
    parser.add_argument("kernel", nargs="?", default=None)
    parser.add_argument("--against", default="plain", metavar="BASE")
    options = parser.parse_args(argv)
    if not shutil.which("sparse"):
        raise UsageError("sparse is not installed: apt-get install sparse")
    kernel = config.load(ROOT / config.FILE_NAME).kernel(options.kernel)
    where = ROOT / kernel.series
    patches = series.read(where)
    build, base = build_tree(kernel.name), build_tree(options.against)
    source, before = (tree / "source" for tree in (build, base))

    remarks = style(source.resolve(), [where / patch.name for patch in patches])
    text = "\n".join(patch.data.decode() for patch in patches)
    names = sorted({one["name"] for one in _FILE.finditer(text) if _KERNEL.match(one["name"])})
    changed = [name for name in names if (before / name).exists()]
    with tempfile.TemporaryDirectory(prefix="rig-series-") as work:
        here, there = (configured(tree, Path(work) / tree.name) for tree in (build, base))
        said = sparse(here, _objects(source, names))
        more = fresh(said, sparse(there, _objects(before, changed)), names)
    remarks += [f"{line} ({count})" for line, count in sorted(more.items())]
    for line in remarks:
        sys.stdout.write(line + "\n")
    sys.stdout.write(
        f"{len(patches)} patches by checkpatch --strict, {len(names)} files by sparse, "
        f"{len(names) - len(changed)} of them new: {len(remarks)} remarks\n"
    )
    return 1 if remarks else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except RigError as error:
        sys.stderr.write(f"check_series: {error}\n")
        sys.exit(error.exit_code)
