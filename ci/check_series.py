"""Have the kernel's own checkers look at a series: checkpatch.pl --strict, and sparse.

Run as `python ci/check_series.py [KERNEL] [--against BASE]`, names of rig.toml, both built before.
checkpatch must have nothing to say of any patch. sparse looks at every C file that the series adds
or changes: it must have nothing to say of an added one, and of a changed one nothing that it does
not say of the same file in BASE, the same kernel without the series. Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from same_code import tree_of  # noqa: E402

from rig import config, series  # noqa: E402
from rig.errors import InfrastructureError, RigError, UsageError  # noqa: E402

# One remark of checkpatch, as --terse prints it, and one of sparse.
_REMARK = re.compile(r"^.*:\d+: (?:ERROR|WARNING|CHECK): .*$", re.MULTILINE)
_WARNING = re.compile(r"^(?P<file>\S+?):\d+:\d+: (?P<what>(?:warning|error): .*)$", re.MULTILINE)
_FILE = re.compile(r"^\+\+\+ b/(?P<name>\S+\.c)$", re.MULTILINE)
_FOUND = re.compile(r"^\s+(/.*)/bzImage$", re.MULTILINE)
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


def built(kernel: str) -> Path:
    """The build tree of a kernel."""
    done = _run([sys.executable, "-m", "rig", "build", kernel], ROOT)
    found = _FOUND.search(done.stdout)
    if done.returncode or not found:
        raise InfrastructureError(f"rig build {kernel} failed", output=done.stderr[-3000:])
    return tree_of(Path(found[1]))


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
    build, base = built(kernel.name), built(options.against)
    source, before = (tree / "source" for tree in (build, base))

    remarks = style(source.resolve(), [where / patch.name for patch in patches])
    text = "\n".join(patch.data.decode() for patch in patches)
    names = sorted({one["name"] for one in _FILE.finditer(text) if _KERNEL.match(one["name"])})
    changed = [name for name in names if (before / name).exists()]
    more = sparse(build, names) - sparse(base, changed)
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
