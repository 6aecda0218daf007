"""Builds: config verified, errors by file, line and patch, the same bytes, nothing made twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fake_kernel import MAIN_C, PATCH, make_project, make_series, make_tree

from rig import config, kbuild, upkeep
from rig.errors import BuildError, InfrastructureError, UsageError
from rig.store import Store, file_sha256

TOML = """
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
    return make_project(tmp_path, TOML)


class Notes:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[str, int | None]] = []

    def stage(self, title: str, total: int | None = None) -> None:
        self.notes.append(title)

    def step(self, text: str, done: int | None = None) -> None:
        self.steps.append((text, done))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def close(self) -> None:
        self.notes.append("closed")


def build(project: Path, store: str = "store", extra: Sequence[Path] = ()) -> kbuild.Kernel:
    loaded = config.load(project / "rig.toml")
    return kbuild.build(loaded, loaded.kernel(), Store(project / store), extra_configs=extra)


def make_runs(project: Path) -> int:
    runs = next((project / "store" / "build").glob("*/make.runs"))
    return len(runs.read_text().splitlines())


def test_a_kernel_and_its_metadata(project: Path) -> None:
    kernel = build(project)
    for path in (kernel.image, kernel.vmlinux, kernel.boot, kernel.config, kernel.metadata):
        assert path.is_file()
    assert (kernel.headers / "include").is_dir()
    assert kernel.release == "6.12.1-fake"
    assert "counter = 2" in (kernel.tree / "init/main.c").read_text()
    metadata = json.loads(kernel.metadata.read_text())
    assert metadata["series"]["patches"][0]["subject"] == "init: count from two"
    assert metadata["source"]["tree"] != metadata["series"]["tree"] == kernel.facts["tree"]
    assert metadata["timings"]["compile_s"] >= 0
    sections = subprocess.run(["readelf", "-S", kernel.boot], check=True, capture_output=True)
    assert b".debug_info" not in sections.stdout


def test_what_is_loaded_later_is_built_and_kept_with_its_lines_beside(project: Path) -> None:
    assert build(project).modules is None
    fragment = project / "kernel-configs" / "base.config"
    fragment.write_text("CONFIG_FOO=y\nCONFIG_MODULES=y\nCONFIG_IT=m\n")
    kernel = build(project)
    assert kernel.modules is not None
    assert kernel.debug is not None
    assert kernel.facts["modules"] == "1"
    assert "it.ko" in (kernel.modules / "modules.dep").read_text()
    assert not list(kernel.modules.glob("build")) + list(kernel.modules.glob("source"))
    lines = [
        b".debug_line" in (place / "kernel/drivers/it.ko").read_bytes()
        for place in (kernel.modules, kernel.debug)
    ]
    assert lines == [False, True]
    assert build(project).modules == kernel.modules
    left = {path.name for path in kernel.directory.iterdir()}
    assert not {name for name in left if name.endswith(".part")}


def test_modules_that_no_modprobe_would_find_are_none(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without depmod the tree's make does no more than to warn."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "depmod").write_text("#!/bin/sh\nexit 1\n")
    (tools / "depmod").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    (project / "kernel-configs" / "base.config").write_text("CONFIG_MODULES=y\n")
    with pytest.raises(InfrastructureError, match=r"modules\.dep") as caught:
        build(project)
    assert "kmod" in str(caught.value.hint)
    runs = make_runs(project)
    monkeypatch.setattr(shutil, "which", lambda name, **_: None if name == "depmod" else name)
    with pytest.raises(InfrastructureError, match="there is no depmod to list them"):
        build(project)
    assert make_runs(project) == runs  # and not after everything was compiled
    monkeypatch.undo()
    notes = Notes()
    loaded = config.load(project / "rig.toml")
    kbuild.build(loaded, loaded.kernel(), Store(project / "store"), progress=notes)
    assert not [one for one in notes.notes if "made anew" in one]


def test_the_commands_of_the_metadata_make_the_same_kernel(project: Path) -> None:
    kernel = build(project)
    before = kernel.vmlinux.read_bytes()
    metadata = json.loads(kernel.metadata.read_text())
    made = next((project / "store" / "build").glob("*/vmlinux"))
    made.unlink()
    script = "set -e\n" + "\n".join(metadata["by_hand"])
    subprocess.run(["sh", "-c", script], check=True)
    assert made.read_bytes() == before


def test_an_identical_build_does_not_run_make(project: Path) -> None:
    first = build(project)
    runs = make_runs(project)
    again = build(project)
    assert make_runs(project) == runs
    assert (first.cached, again.cached) == (False, True)
    assert again.directory == first.directory


def test_each_input_changes_the_key(project: Path, tmp_path: Path) -> None:
    keys = {build(project).key}
    extra = tmp_path / "extra.config"
    extra.write_text("CONFIG_NET=y\n")
    keys.add(build(project, extra=[extra]).key)
    series = project / "series" / "one.patch"
    series.write_text(PATCH.replace("counter = 2", "counter = 7"))
    keys.add(build(project).key)
    main = project / "linux" / "init" / "main.c"
    main.write_text(main.read_text() + "\nint more;\n")
    keys.add(build(project).key)
    assert len(keys) == 4


def test_variables_of_make_are_another_kernel(project: Path) -> None:
    plain = build(project)
    toml = project / "rig.toml"
    toml.write_text(TOML.replace("[machine", 'make = ["MORE=-Dcounter=renamed"]\n[machine'))
    made = build(project)
    assert made.key != plain.key
    assert b"renamed" in made.vmlinux.read_bytes()
    assert b"renamed" not in plain.vmlinux.read_bytes()
    metadata = json.loads(made.metadata.read_text())
    assert metadata["config"]["make"] == ["MORE=-Dcounter=renamed"]
    by_hand = [line for line in metadata["by_hand"] if line.startswith("env ")]
    assert by_hand
    assert all("MORE=-Dcounter=renamed" in line for line in by_hand)
    assert build(project).cached


@pytest.mark.parametrize("disable", ["", "1"])
def test_two_directories_give_the_same_bytes(
    project: Path, monkeypatch: pytest.MonkeyPatch, disable: str
) -> None:
    """With ccache in one of them or in none."""
    if disable:
        monkeypatch.setenv("CCACHE_DISABLE", disable)
    one = build(project)
    monkeypatch.setenv("CCACHE_DISABLE", "1")
    two = build(project, "another-longer-store-name")
    assert one.vmlinux.read_bytes() == two.vmlinux.read_bytes()
    assert str(project).encode() not in one.vmlinux.read_bytes()
    assert one.tree.parent.name.encode() not in one.vmlinux.read_bytes()
    assert b"/usr/src/linux" in one.vmlinux.read_bytes()
    assert b"\0init/main.c\0" in one.boot.read_bytes()


@pytest.mark.parametrize(
    ("line", "got", "reason"),
    [
        ("CONFIG_NOPE=y", "n", "the tree has no such symbol"),
        ("# CONFIG_FOO is not set\nCONFIG_BAR=y", "n", "unmet dependency: FOO (=n)"),
        ("CONFIG_HIDDEN=y", "n", "it has no prompt and is set by its default (Kconfig:10)"),
    ],
)
def test_a_dropped_symbol_fails_before_compiling(
    project: Path, line: str, got: str, reason: str
) -> None:
    (project / "kernel-configs/base.config").write_text(f"{line}\n")
    with pytest.raises(BuildError) as caught:
        build(project)
    symbol = line.split("\n")[-1].removesuffix("=y")
    number = len(line.split("\n"))
    words = f"{symbol}: asked y (base.config:{number}), got {got}: {reason}"
    assert words in caught.value.output
    assert not list((project / "store" / "build").glob("*/vmlinux"))


def test_a_compile_error_names_file_line_and_patch(project: Path) -> None:
    broken = PATCH.replace("counter = 2", "counter = two")
    (project / "series/one.patch").write_text(broken)
    with pytest.raises(BuildError) as caught:
        build(project)
    assert caught.value.message.startswith("init/main.c:6: ")
    assert "two" in caught.value.message
    assert caught.value.hint == "line last touched by one.patch"
    assert "make -C" in caught.value.reproduce
    again = subprocess.run(["sh", "-c", caught.value.reproduce], check=False, capture_output=True)
    assert b"init/main.c:6" in again.stderr


def test_a_compile_error_of_the_pristine_source(project: Path) -> None:
    main = project / "linux/init/main.c"
    main.write_text(main.read_text().replace("int counter;", "int counter"))
    (project / "series/one.patch").write_text(PATCH.replace("int counter;", "int counter"))
    with pytest.raises(BuildError) as caught:
        build(project)
    assert caught.value.hint == "line unchanged from the pristine source"


def test_a_failure_that_is_not_the_compiler_s_says_what_make_said(project: Path) -> None:
    makefile = project / "linux/Makefile"
    makefile.write_text(makefile.read_text().replace("\nvmlinux:", "\nvmlinux: init/missing.o", 1))
    with pytest.raises(BuildError) as caught:
        build(project)
    assert caught.value.message.startswith("No rule to make target 'init/missing.o'")
    assert "No rule to make target" in caught.value.output


def test_an_output_that_is_missing_is_a_failure(project: Path) -> None:
    makefile = project / "linux/Makefile"
    text = makefile.read_text()
    makefile.write_text(text.replace("\t@cp $(B)/vmlinux $(B)/arch/x86/boot/bzImage\n", ""))
    with pytest.raises(BuildError, match="make said it succeeded"):
        build(project)
    assert not list((project / "store" / "kernel").iterdir())


def test_progress_and_the_notice_of_another_version(project: Path) -> None:
    text = (project / "rig.toml").read_text()
    (project / "rig.toml").write_text(
        text.replace("[machine.m]", 'accepted = "6.12.0"\n[machine.m]')
    )
    loaded, notes = config.load(project / "rig.toml"), Notes()
    kbuild.build(loaded, loaded.kernel(), Store(project / "store"), progress=notes)
    assert ("init/main.o", 1) in notes.steps
    assert "notice: the source is 6.12.1; series was last accepted on 6.12.0" in notes.notes


def test_fragments_that_cannot_be(project: Path) -> None:
    fragment = project / "kernel-configs/base.config"
    fragment.write_text("CONFIG_FOO\n")
    with pytest.raises(UsageError, match=r"base\.config:1: not a Kconfig setting"):
        build(project)
    fragment.unlink()
    with pytest.raises(UsageError, match="no config fragment 'base'"):
        build(project)


def test_other_settings_are_another_kernel(project: Path) -> None:
    """A kernel that was built from other settings is not taken for this one."""
    (project / "kernel-configs/base.config").write_text("CONFIG_FOO=y\nCONFIG_BAR=y\n")
    first = build(project)
    (project / "kernel-configs/base.config").write_text("CONFIG_FOO=y\n")
    second = build(project)
    assert first.key != second.key
    assert "CONFIG_BAR" not in second.config.read_text()


# --- again, and a little different -------------------------------------------------------------

# Ends with 3 when the command `rig build` starts a process or imports what it has no use for.
_FRUGAL = """
import sys
def watch(event, words):
    if event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec"):
        print("started", words[0], file=sys.stderr)
        sys.exit(3)
sys.addaudithook(watch)
from rig import cli
code = cli.main(["build"])
for name in ("paramiko", "pytest", "jinja2", "pexpect", "qemu.qmp", "urllib.request"):
    if name in sys.modules:
        sys.exit(name)
sys.exit(code)
"""


def test_a_repeated_build_starts_no_process_and_imports_little(project: Path) -> None:
    with tarfile.open(project / "linux.tar", "w") as tar:
        tar.add(project / "linux", "linux-6.12")
    toml = (project / "rig.toml").read_text()
    sha256 = file_sha256(project / "linux.tar")
    toml = toml.replace('"linux"', f'"linux.tar"\nsha256 = "{sha256}"')
    (project / "rig.toml").write_text(toml)
    first = frugal(project)
    assert first.returncode == 3  # it has to apt-get, tar, git and make
    assert "started" in first.stderr
    build(project)
    again = frugal(project)
    assert (again.returncode, again.stderr) == (0, "")
    assert "unchanged" in again.stdout


def frugal(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _FRUGAL],
        cwd=project,
        env={**os.environ, "RIG_STORE": str(project / "store")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_another_compiler_is_asked_for_its_version(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = project / "tools"
    tools.mkdir()
    gcc = tools / "gcc"
    gcc.write_text('#!/bin/sh\ntest "$1" = --version && { echo gcc one; exit; }\nexec cc "$@"\n')
    gcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    assert build(project).facts["compiler"] == "gcc one"
    gcc.write_text(gcc.read_text().replace("gcc one", "gcc two"))
    second = build(project)
    assert (second.facts["compiler"], second.cached) == ("gcc two", False)


def test_a_program_that_was_not_asked_for_does_not_change_the_kernel(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, asked = project / "tools", project / "rust.config"
    tools.mkdir()
    asked.write_text("CONFIG_RUST=y\n")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    rustc, seen = tools / "rustc", []
    for version in ("one", "two"):
        rustc.write_text(f"#!/bin/sh\necho rustc {version}\n")
        rustc.chmod(0o755)
        for extra in ((), (asked,)):
            kernel = build(project, extra=extra)
            found = [line for line in kernel.config.read_text().splitlines() if "RUSTC" in line]
            seen.append((kernel.cached, found))
    assert seen == [
        (False, []),
        (False, ['CONFIG_RUSTC="rustc one"']),
        (True, []),
        (False, ['CONFIG_RUSTC="rustc two"']),
    ]


def targets_made(project: Path) -> list[str]:
    """What make was asked for, oldest first."""
    logs = sorted(
        (project / "store" / "kernel").glob("*/build.log"), key=lambda p: p.stat().st_mtime
    )
    return [line.removeprefix("made ") for log in logs for line in log.read_text().splitlines()
            if line.startswith("made ")]  # fmt: skip


def test_what_did_not_change_is_not_configured_again(project: Path) -> None:
    makefile = project / "linux" / "Makefile"
    makefile.write_text(makefile.read_text().replace("%config:\n", "%config:\n\t@echo made $@\n"))
    build(project)
    assert targets_made(project) == ["tinyconfig", "olddefconfig"]
    patch = project / "series" / "one.patch"
    patch.write_text(PATCH.replace("counter = 2", "counter = 3"))
    assert not build(project).cached
    assert targets_made(project) == ["tinyconfig", "olddefconfig"]
    kconfig = project / "linux" / "Kconfig"
    kconfig.write_text(kconfig.read_text() + "config MORE\n\tbool\n")
    assert not build(project).cached
    assert len(targets_made(project)) == 4
    (project / "kernel-configs/base.config").write_text("CONFIG_NET=y\n")
    assert not build(project).cached
    assert len(targets_made(project)) == 6


def test_a_config_that_was_changed_by_hand_is_made_again(project: Path) -> None:
    build(project)
    (config_file,) = (project / "store" / "build").glob("*/.config")
    config_file.write_text("CONFIG_NET=y\n")
    (project / "series" / "one.patch").write_text(PATCH.replace("counter = 2", "counter = 3"))
    assert build(project).config.read_text() == "CONFIG_FOO=y\n"


def test_a_build_goes_on_in_its_worktree_and_leaves_the_kernel_before_it_whole(
    project: Path,
) -> None:
    first = build(project)
    text = first.vmlinux.read_bytes()
    kept = (first.tree / "Kconfig").stat()
    (project / "series" / "one.patch").write_text(PATCH.replace("counter = 2", "counter = 3"))
    second = build(project)
    assert second.tree == first.tree
    assert (second.tree / "Kconfig").stat().st_mtime_ns == kept.st_mtime_ns
    assert first.vmlinux.read_bytes() == text != second.vmlinux.read_bytes()
    assert upkeep.verify(Store(project / "store")) == []
    assert len(list((project / "store" / "build").iterdir())) == 1
    scratch = build(project, "from-scratch")
    assert scratch.vmlinux.read_bytes() == second.vmlinux.read_bytes()


def test_a_build_tree_of_a_killed_make_is_not_trusted(project: Path) -> None:
    """It may hold half an object file that is newer than its source."""
    build(project)
    (tree,) = (project / "store" / "build").iterdir()
    (tree / "left").write_text("half")
    (tree / ".rig-unfinished").touch()
    (project / "series" / "one.patch").write_text(PATCH.replace("counter = 2", "counter = 3"))
    loaded, notes = config.load(project / "rig.toml"), Notes()
    kbuild.build(loaded, loaded.kernel(), Store(project / "store"), progress=notes)
    assert any("was killed" in note for note in notes.notes)
    assert not (tree / "left").exists()
    assert not (tree / ".rig-unfinished").exists()


def test_a_compile_error_leaves_the_build_tree_as_it_is(project: Path) -> None:
    build(project)
    (tree,) = (project / "store" / "build").iterdir()
    (tree / "left").write_text("whole")
    (project / "series" / "one.patch").write_text(PATCH.replace("counter = 2", "counter = two"))
    with pytest.raises(BuildError):
        build(project)
    (project / "series" / "one.patch").write_text(PATCH.replace("counter = 2", "counter = 3"))
    build(project)
    assert (tree / "left").exists()


def test_two_series_in_turn_do_not_share_a_worktree(project: Path) -> None:
    make_series(project / "other", one=PATCH.replace("counter = 2", "counter = 8"))
    loaded, store = config.load(project / "rig.toml"), Store(project / "store")
    one, other = loaded.kernel(), replace(loaded.kernel(), series="other")
    trees = [kbuild.build(loaded, kernel, store).tree for kernel in (one, other)]
    assert trees[0] != trees[1]
    times = [(tree / "init/main.c").stat().st_mtime_ns for tree in trees]
    for number, (kernel, series) in enumerate([(one, "series"), (other, "other")] * 2):
        patch = project / series / "one.patch"
        patch.write_text(patch.read_text().replace("Two is better", f"Better: {number}"))
        kbuild.build(loaded, kernel, store).tree  # noqa: B018
    assert [(tree / "init/main.c").stat().st_mtime_ns for tree in trees] == times


def test_what_is_on_top_of_a_series_comes_after_it(project: Path) -> None:
    later = PATCH.replace("counter = 1", "counter = 2").replace("+\tcounter = 2", "+\tcounter = 3")
    make_series(project / "more", later=later)
    loaded, store = config.load(project / "rig.toml"), Store(project / "store")
    plain = kbuild.build(loaded, loaded.kernel(), store)
    kernel = kbuild.build(loaded, replace(loaded.kernel(), on_top="more"), store)
    assert "counter = 3" in (kernel.tree / "init/main.c").read_text()
    assert kernel.facts["series"] == "series + more"
    assert kernel.key != plain.key
    metadata = json.loads((kernel.directory / "metadata.json").read_bytes())
    assert [one["name"] for one in metadata["series"]["patches"]] == ["one.patch", "later.patch"]


def test_a_kernel_from_the_store_needs_no_worktree_until_it_is_asked_for(project: Path) -> None:
    directory = build(project).directory
    for kind in ("tree", "applied", "directory", "build"):
        shutil.rmtree(project / "store" / kind)
    kernel = build(project)
    assert kernel.cached
    assert kernel.directory == directory
    assert not (project / "store" / "tree").exists()
    assert "counter = 2" in (kernel.tree / "init/main.c").read_text()


def test_a_worktree_whose_source_went_is_made_anew(project: Path) -> None:
    build(project)
    for kind in ("applied", "directory"):
        shutil.rmtree(project / "store" / kind)
    (project / "linux" / "init" / "main.c").write_text(MAIN_C + "int more;\n")
    kernel = build(project)
    assert not kernel.cached
    assert "int more;" in (kernel.tree / "init/main.c").read_text()


@pytest.mark.parametrize("said", ["", "2>/dev/null"])
def test_a_disk_that_fills_up_is_no_fault_of_the_patch(project: Path, said: str) -> None:
    """Real ENOSPC, a store on 24 MiB; not every tool says that it is that."""
    makefile = project / "linux/Makefile"
    fill = f"\t@head -c 64M /dev/zero {said} >$(B)/fill\n"
    makefile.write_text(makefile.read_text().replace('\t@echo "  LD', f'{fill}\t@echo "  LD'))
    small = project / "small"
    small.mkdir()
    script = f'mount -t tmpfs -o size=24m none {small} && exec "$@"'
    argv = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-m", "rig", "build"]
    env = {**os.environ, "RIG_STORE": str(small)}
    done = subprocess.run(
        argv, cwd=project, env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 3, done.stderr
    assert re.search(r"the disk is full: \d MiB are left where \S+/small/build/", done.stderr)
    assert "rig store gc" in done.stderr
    assert "Traceback" not in done.stderr
