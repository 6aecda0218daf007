"""Build, boot and test a kernel after each patch of its series, so that none leans on a later one.

Run as `python ci/each_patch.py [KERNEL] [--from N]`. Needs a full build for nearly every patch
that touches a central header, so it belongs to acceptance and the nightly. Exit code 1 when one of
them does not build, boot or come out clean.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from rig import config, series  # noqa: E402
from rig.process import Completed, run  # noqa: E402

_LIMIT_S = 3600.0
# Prints the release, so that the kernel that answers is seen to be the one that was built.
_COMMAND = ("sh", "-c", "uname -r && dmesg --level emerg,alert,crit,err")
# From which patch on (by its file name) which programs of the abi suite have to pass: before the
# first of these nothing can be outstanding, the tests of the hand-over ask the counters, which come
# with the second, and each of the others is about programs of its own.
_SUITE = "abi"
_EVENTS = "not queue and not eventfd and not cqe and not handover_counters"
_KEYS = "not classes and not every_call"
_PROGRAMS = (
    (
        "async_submit-offload-calls-to-workers",
        f"not handover and not storm and not audit and {_KEYS} and {_EVENTS}",
    ),
    (
        "async_submit-show-which-way-calls-go",
        f"not handover_alone and not audit and {_KEYS} and {_EVENTS}",
    ),
    ("async_submit-make-a-key-where", f"not handover_alone and not audit and {_EVENTS}"),
    ("async_submit-let-a-process-be-one", f"not audit and {_EVENTS}"),
    ("audit-let-the-record-of-a-call-go", _EVENTS),
    ("async_submit-queue-completions", "not eventfd and not cqe"),
    ("async_submit-tell-an-eventfd", "not cqe"),
    ("async_submit-io_uring-post", ""),
)


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


def project(directory: Path) -> Path:
    """The project as it is, but for debug information: with it each build takes twice as long."""
    directory.mkdir()
    for name in ("guest-tests", "images", "kernel-configs", "patches"):
        (directory / name).symlink_to(ROOT / name)
    text = (ROOT / config.FILE_NAME).read_text(encoding="utf-8")
    (directory / config.FILE_NAME).write_text(text.replace(', "debuginfo"', ""), encoding="utf-8")
    return directory


def boots(
    kernel: str, directory: Path, programs: str | None, where: Path = ROOT
) -> tuple[bool, str]:
    """Build, boot and test; whether it did, and what the guest (or the rig) said.

    programs: pytest's -k for the abi suite; None when none of it can pass yet.
    where: the project.
    """
    words = ["boot", kernel, "--series", str(directory), "--", *_COMMAND]
    done = _rig(words, where)
    if done.returncode != 0 or len(done.output.splitlines()) != 1:
        return False, f"{done.errors[-3000:]}{done.output}"
    said = done.output.strip()
    if programs is None:
        return True, said
    words = ["boot-and-test", kernel, "--series", str(directory), "--suite", _SUITE]
    done = _rig([*words, *(["-k", programs] if programs else [])], where)
    verdict = re.search(r"^(PASS|FAIL|ERROR): .*", done.output, re.MULTILINE)
    if done.returncode != 0 or not verdict:
        return False, f"{said}\n{done.output[-3000:]}{done.errors[-1000:]}"
    return True, f"{said}, {verdict[0]}"


def _rig(words: Sequence[str], where: Path) -> Completed:
    argv = [sys.executable, "-m", "rig", "--quiet", *words]
    return run(argv, cwd=where, timeout_s=_LIMIT_S, check=False, separate=True)


def programs(names: Sequence[str]) -> str | None:
    """What has to pass after the patches of these names. Pure."""
    for patch, which in reversed(_PROGRAMS):
        if any(patch in name for name in names):
            return which
    return None


def main(argv: list[str]) -> int:
    """Every prefix of the series; 0 when all of them are good."""
    parser = argparse.ArgumentParser(
        description="build, boot and test after each patch of a series"
    )
    parser.add_argument("kernel", nargs="?", default=None)
    parser.add_argument("--from", dest="first", type=int, default=1, metavar="N")
    options = parser.parse_args(argv)
    kernel = config.load(ROOT / config.FILE_NAME).kernel(options.kernel)
    patches = series.read(ROOT / kernel.series)
    good = True
    with tempfile.TemporaryDirectory(prefix="rig-each-") as work:
        where = project(Path(work) / "project")
        for count in range(options.first, len(patches) + 1):
            started = time.monotonic()
            directory = prefix(patches[:count], Path(work) / "series")
            which = programs([patch.name for patch in patches[:count]])
            ok, words = boots(kernel.name, directory, which, where)
            good &= ok
            took = f"{time.monotonic() - started:.0f} s"
            mark = "ok  " if ok else "FAIL"
            sys.stdout.write(f"{mark} {patches[count - 1].name} ({took}) {words}\n")
            sys.stdout.flush()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
