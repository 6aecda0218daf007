"""Build and boot a kernel after each patch of its series, so that none leans on a later one.

Run as `python ci/each_patch.py [KERNEL] [--from N]`. Needs a full build for nearly every patch
that touches a central header, so it belongs to acceptance and the nightly. Exit code 1 when one of
them does not build, boot or come out clean.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from rig import config, series  # noqa: E402
from rig.process import run  # noqa: E402

_LIMIT_S = 3600.0
# Prints the release, so that the kernel that answers is seen to be the one that was built.
_COMMAND = ("sh", "-c", "uname -r && dmesg --level emerg,alert,crit,err")


def prefix(patches: tuple[series.Patch, ...], directory: Path) -> Path:
    """A quilt directory of these patches. Always the same one: a worktree and a build tree belong
    to its path, so each patch costs what it makes necessary and no more.
    """
    directory.mkdir(exist_ok=True)
    for patch in patches:
        (directory / patch.name).write_bytes(patch.data)
    lines = (f"{patch.name} -p{patch.strip}\n" for patch in patches)
    (directory / "series").write_text("".join(lines), encoding="utf-8")
    return directory


def boots(kernel: str, directory: Path) -> tuple[bool, str]:
    """Build and boot; whether it did, and what the guest (or the rig) said."""
    rig = [sys.executable, "-m", "rig", "boot", kernel, "--series", str(directory), "--"]
    done = run([*rig, *_COMMAND], cwd=ROOT, timeout_s=_LIMIT_S, check=False, separate=True)
    clean = done.returncode == 0 and len(done.output.splitlines()) == 1
    return clean, done.output.strip() if clean else f"{done.errors[-3000:]}{done.output}"


def main(argv: list[str]) -> int:
    """Every prefix of the series; 0 when all of them are good."""
    parser = argparse.ArgumentParser(description="build and boot after each patch of a series")
    parser.add_argument("kernel", nargs="?", default=None)
    parser.add_argument("--from", dest="first", type=int, default=1, metavar="N")
    options = parser.parse_args(argv)
    kernel = config.load(ROOT / config.FILE_NAME).kernel(options.kernel)
    patches = series.read(ROOT / kernel.series)
    good = True
    with tempfile.TemporaryDirectory(prefix="rig-each-") as work:
        for count in range(options.first, len(patches) + 1):
            started = time.monotonic()
            ok, words = boots(kernel.name, prefix(patches[:count], Path(work) / "series"))
            good &= ok
            took = f"{time.monotonic() - started:.0f} s"
            mark = "ok  " if ok else "FAIL"
            sys.stdout.write(f"{mark} {patches[count - 1].name} ({took}) {words}\n")
            sys.stdout.flush()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
