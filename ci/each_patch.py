"""Build, boot and test a kernel after each patch of its series, so that none leans on a later one.

Run as `python ci/each_patch.py [KERNEL] [--from N]`. Needs a full build for nearly every patch
that touches a central header, so it belongs to acceptance and the nightly. What passed is noted in
~/.cache/rig-each, and not done again while nothing changes of what it was made with: the hours
need not be spent at once (--fresh forgets it). Exit code 1 when one of them does not build, boot or
come out clean.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from rig import config, series  # noqa: E402
from rig.errors import UsageError  # noqa: E402
from rig.process import Completed, run  # noqa: E402
from rig.store import digest  # noqa: E402

_LIMIT_S = 3600.0
# Prints the release, so that the kernel that answers is seen to be the one that was built.
_COMMAND = ("sh", "-c", "uname -r && dmesg --level emerg,alert,crit,err")
# From which patch on (by its file name) which programs of the abi suite have to pass: before the
# first of these nothing can be outstanding, the tests of the hand-over ask the counters, which come
# with the second, and each of the others is about programs of its own.
_SUITE = "abi"
_SIGNALFD = "not handover_signalfd"
_TOLD = f"not handover_told and {_SIGNALFD}"
_EVENTS = f"not queue and not eventfd and not cqe and not handover_counters and {_TOLD}"
_KEYS = "not classes and not every_call"
# Some of their cases need a call that is outstanding and was not offloaded, or one that is made
# again after a signal.
_SIGNALS = "not seccomp and not signals"
_PROGRAMS = (
    (
        "async_submit-offload-calls-to-workers",
        f"not handover and not storm and not audit and {_SIGNALS} and {_KEYS} and {_EVENTS}",
    ),
    (
        "async_submit-show-which-way-calls-go",
        f"not handover_alone and not audit and {_KEYS} and {_EVENTS}",
    ),
    ("async_submit-make-a-key-where", f"not handover_alone and not audit and {_EVENTS}"),
    ("async_submit-let-a-process-be-one", f"not audit and {_EVENTS}"),
    ("audit-let-the-record-of-a-call-go", _EVENTS),
    ("async_submit-queue-completions", f"not eventfd and not cqe and {_TOLD}"),
    ("async_submit-tell-an-eventfd", f"not cqe and {_TOLD}"),
    ("async_submit-io_uring-post", _TOLD),
    ("ipc-shm-async_submit-keep-segments", _SIGNALFD),
    ("signalfd-async_submit-read-the-signals", ""),
)


def prefix(patches: tuple[series.Patch, ...], directory: Path) -> Path:
    """A quilt directory of these patches. Always the same one: a worktree and a build tree belong
    to its path, so each patch costs what it makes necessary and no more.
    """
    directory.mkdir(exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    for patch in patches:
        (directory / patch.name).write_bytes(patch.data)
    lines = (f"{patch.name} -p{patch.strip}\n" for patch in patches)
    (directory / "series").write_text("".join(lines), encoding="utf-8")
    return directory


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """Nobody else works in there."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another run of this is at work in {place}") from None
        yield


def made_with(root: Path) -> list[str | Path]:
    """What a verdict depends on besides the patches, for a digest: files by name and content."""
    parts: list[str | Path] = [Path(shutil.which("gcc") or "gcc"), *_COMMAND]
    for name in (config.FILE_NAME, "kernel-configs", "guest-tests/abi", "images", "rig"):
        place = root / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and "__pycache__" not in path.parts:
                parts += [str(path.relative_to(root)), path]
    return parts


class Passed:
    """What has passed before, by the digest of all that it was made with."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lines: dict[str, str] = json.loads(file.read_bytes()) if file.exists() else {}

    def get(self, key: str) -> str | None:
        """What was said of it then."""
        return self._lines.get(key)

    def note(self, key: str, line: str) -> None:
        """Kept at once: whoever interrupts this loses nothing of it."""
        self._lines[key] = line
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self._lines), encoding="utf-8")
        fresh.rename(self._file)


def project(directory: Path) -> Path:
    """The project as it is, but for debug information: with it each build takes twice as long."""
    shutil.rmtree(directory, ignore_errors=True)
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
    parser.add_argument("--place", type=Path, default=Path.home() / ".cache/rig-each")
    parser.add_argument("--fresh", action="store_true", help="forget what has passed before")
    options = parser.parse_args(argv)
    kernel = config.load(ROOT / config.FILE_NAME).kernel(options.kernel)
    patches = series.read(ROOT / kernel.series)
    good, parts = True, made_with(ROOT)
    with alone(options.place):
        if options.fresh:
            (options.place / "passed.json").unlink(missing_ok=True)
        passed = Passed(options.place / "passed.json")
        where = project(options.place / "project")
        for count in range(options.first, len(patches) + 1):
            started = time.monotonic()
            which = programs([patch.name for patch in patches[:count]])
            key = digest(kernel.name, str(which), *(one.data for one in patches[:count]), *parts)
            line = passed.get(key)
            if line is None:
                directory = prefix(patches[:count], options.place / "series")
                ok, words = boots(kernel.name, directory, which, where)
                took = f"{time.monotonic() - started:.0f} s"
                line = f"{patches[count - 1].name} ({took}) {words}"
                if ok:
                    passed.note(key, line)
            else:
                ok = True
            good &= ok
            sys.stdout.write(f"{'ok  ' if ok else 'FAIL'} {line}\n")
            sys.stdout.flush()
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UsageError as error:
        sys.stderr.write(f"each_patch: {error}\n")
        sys.exit(error.exit_code)
