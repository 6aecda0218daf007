"""--watch: what it looks at, what it takes for a change, and how it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_kernel import PATCH, make_project, make_series, make_tree
from processes import is_gone

from rig import config, watch
from rig.errors import UsageError
from rig.kbuild import Kernel
from rig.watch import Watched, Watcher

LIMIT_S = 60.0
_BOOT_S = 300.0
ROOT = Path(__file__).parents[1]
TOML = """
[default]
suites = ["suites/abi"]
[kernel.k]
source = "linux"
series = "series"
configs = ["base"]
[machine.m]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make_tree(tmp_path / "linux")
    make_series(tmp_path / "series", one=PATCH)
    make_project(tmp_path, TOML)
    for name in ("images/debian", "suites/abi"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "data/suites/hello/Makefile", tmp_path / "suites/abi")
    return tmp_path


def watched(project: Path) -> Watched:
    suites = [project / "suites/abi", project / "suites/abi/inner"]
    suites[1].mkdir(exist_ok=True)
    return watch.inputs(config.load(project / "rig.toml"), None, suites)


def test_what_a_run_depends_on_is_watched(project: Path) -> None:
    found = watched(project)
    names = ["images/debian", "linux", "series", "suites/abi"]
    assert [str(path.relative_to(project)) for path in found.directories] == names
    names = ["rig.toml", "kernel-configs/base.config"]
    assert [str(path.relative_to(project)) for path in found.files] == names


def test_a_source_that_is_no_directory_is_not_watched(project: Path) -> None:
    (project / "deb").mkdir()
    (project / "rig.toml").write_text(TOML.replace('"linux"', '"deb"'))
    assert project / "deb" not in watched(project).directories


def seen(watcher: Watcher, change: Callable[[], object]) -> list[str]:
    """The names of what a watcher says changed, when a change is made while it waits."""
    timer = threading.Timer(0.3, change)
    timer.start()
    found = watcher.wait()
    timer.join()
    return [path.name for path in found]


def by_rename(path: Path, text: str) -> None:
    """Write as an editor does: a new file in the place of the old one."""
    fresh = path.with_name(f"{path.name}~")
    fresh.write_text(text)
    fresh.rename(path)


@pytest.mark.parametrize(
    "name",
    ["series/one.patch", "linux/init/main.c", "suites/abi/Makefile", "rig.toml",
     "kernel-configs/base.config", "images/debian/recipe.toml", "suites/abi/inner/new.c"],
)  # fmt: skip
def test_a_change_is_seen(project: Path, name: str) -> None:
    watcher = Watcher(watched(project))
    path = project / name
    assert seen(watcher, lambda: path.write_text("changed")) == [path.name]
    assert seen(watcher, lambda: by_rename(path, "again")) == [path.name]


NOISE = (
    "linux/.git/index",
    "linux/init/main.o",
    "linux/init/.main.c.swp",
    "x.toml",
    "series/one.patch~",
    "series/4913",
    "kernel-configs/kasan.config",
)


def test_what_nobody_means_is_no_change(project: Path) -> None:
    (project / "linux/.git").mkdir()
    watcher = Watcher(watched(project))

    def noise() -> None:
        for name in NOISE:
            (project / name).write_text("noise")
        (project / "linux/Kconfig").read_text()
        (project / "series/one.patch").write_text("meant")

    assert seen(watcher, noise) == ["one.patch"]


def test_what_changes_at_once_is_one_change(project: Path) -> None:
    watcher = Watcher(watched(project))

    def rebase() -> None:
        for number in range(20):
            (project / "series" / f"{number:02}.patch").write_text("text")
            time.sleep(0.02)

    assert len(seen(watcher, rebase)) == 20


def test_a_change_while_nobody_waits_is_not_missed(project: Path) -> None:
    watcher = Watcher(watched(project))
    (project / "series/one.patch").write_text("changed")
    time.sleep(1)
    assert [path.name for path in watcher.wait()] == ["one.patch"]


def test_runs_follow_changes_and_errors_end_nothing(project: Path) -> None:
    """A failing run, one with a rig.toml nobody can read, one that passes, one cut short."""
    codes = iter([4, 2, 0, 130])
    told: list[str] = []

    def look() -> Watched:
        if "broken" in (project / "rig.toml").read_text():
            raise UsageError("broken")
        return watched(project)

    def once() -> int:
        # A change in the middle of a run is the next one's.
        (project / "rig.toml").write_text("broken" if len(told) == 1 else TOML)
        return next(codes)

    assert watch.repeat(look, once, told.append) == 130
    changes = [words for words in told if words.startswith("changed: ")]
    assert len(changes) == 3
    assert all("rig.toml" in words for words in changes)
    assert sum(words.startswith("verdict ") for words in told) == 2


def test_the_time_is_from_the_change_to_the_verdict(project: Path) -> None:
    told: list[str] = []
    codes = iter([0, 130])

    def once() -> int:
        code = next(codes)
        if code == 0:
            threading.Timer(0.5, (project / "rig.toml").write_text, [TOML]).start()
        return code

    watch.repeat(lambda: watched(project), once, told.append)
    now = time.time()
    patch = project / "series/one.patch"
    os.utime(patch, (now - 7, now - 7))
    assert watch._changed_at([patch]) == pytest.approx(now - 7, abs=0.01)
    os.utime(patch, (1e9, 1e9))  # put there with a time of long ago
    assert watch._changed_at([patch]) == pytest.approx(now, abs=5)
    assert watch._changed_at([project / "gone"]) == pytest.approx(now, abs=5)


# --- the command -------------------------------------------------------------------------------


class Command:
    """`rig boot-and-test --watch` in a project, and what it says."""

    def __init__(self, project: Path, log: Path, *words: str, **environment: str) -> None:
        self._log = log
        with self._log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rig", "boot-and-test", "--watch", *words],
                cwd=project,
                env={**os.environ, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def says(self, words: str, times: int = 1, limit_s: float = LIMIT_S) -> str:
        """Wait until it has said so; all it has said."""
        deadline = time.monotonic() + limit_s
        while (said := self._log.read_text()).count(words) < times:
            assert time.monotonic() < deadline, said
            assert self.process.poll() is None, said
            time.sleep(0.05)
        return said


@pytest.fixture
def command(project: Path) -> Iterator[Command]:
    (project / "series/one.patch").write_text(PATCH.replace("-\tcounter = 1", "-\tcounter = 9"))
    started = Command(project, project / "said", RIG_STORE=str(project / "store"))
    yield started
    started.process.kill()
    started.process.wait()


def test_a_reject_is_shown_and_the_next_patch_tried(project: Path, command: Command) -> None:
    command.says("one.patch does not apply: hunk 1 of init/main.c")
    said = command.says("Ctrl-C ends")
    assert "watching images/debian, linux, series, suites/abi" in said
    (project / "series/one.patch").write_text(PATCH.replace("= 2;", "= two;"))
    said = command.says("init/main.c:6: ")
    assert "changed: series/one.patch" in said
    said = command.says("Ctrl-C ends", 2)
    assert "s after the change" in said
    command.process.send_signal(signal.SIGINT)
    assert command.process.wait(LIMIT_S) == 4  # that of the last run
    assert "Traceback" not in (project / "said").read_text()


def test_ctrl_c_in_a_run_ends_it_all(project: Path, command: Command) -> None:
    makefile, pid = project / "linux/Makefile", project / "pid"
    command.says("Ctrl-C ends")
    copy = "\t@cp $(B)/vmlinux"
    slow = makefile.read_text().replace(copy, f"\t@echo $$$$ > {pid}; sleep 60\n{copy}")
    makefile.write_text(slow)
    (project / "series/one.patch").write_text(PATCH)
    command.says("compiling")
    deadline = time.monotonic() + LIMIT_S
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    command.process.send_signal(signal.SIGINT)
    assert command.process.wait(LIMIT_S) == 130
    assert is_gone(int(pid.read_text()))


@pytest.mark.kernel
def test_a_changed_suite_has_a_new_verdict(built_kernel: Kernel, tmp_path: Path) -> None:
    """The whole thing for real: build, boot, verdict; an edit; boot, verdict; Ctrl-C."""
    place = tmp_path / "mine"
    shutil.copytree(Path(__file__).parent / "data/suites/hello", place)
    script = place / "words.sh"
    script.write_text("#!/bin/sh\necho TAP version 13\necho 1..1\necho ok 1 one\n")
    script.chmod(0o755)
    (place / "Makefile").write_text("TEST_PROGS := words.sh\ninclude ../lib.mk\n")
    words = ("--tests", str(place), "--results", str(tmp_path / "results"))
    command = Command(ROOT, tmp_path / "said", *words)
    try:
        command.says("PASS: 1 passed", limit_s=_BOOT_S)
        command.says("Ctrl-C ends")
        script.write_text(script.read_text().replace("ok 1", "not ok 1"))
        said = command.says("Ctrl-C ends", 2, limit_s=_BOOT_S)
        assert "FAIL" in said
        assert "s after the change" in said
        command.process.send_signal(signal.SIGINT)
        assert command.process.wait(LIMIT_S) == 1
    finally:
        command.process.kill()
        command.process.wait()
    assert len([p for p in (tmp_path / "results").glob("2*") if not p.is_symlink()]) == 2
    assert built_kernel.key in (tmp_path / "results/latest/run.json").read_text()
