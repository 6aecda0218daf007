"""Builds: config verified, errors by file, line and patch, the same bytes, nothing made twice."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from fake_kernel import PATCH, make_project, make_series, make_tree

from rig import config, kbuild
from rig.errors import BuildError, UsageError
from rig.store import Store

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


def build(project: Path, store: str = "store", **changes: Path) -> kbuild.Kernel:
    loaded = config.load(project / "rig.toml")
    extra = tuple(changes.values())
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
    keys.add(build(project, extra=extra).key)
    series = project / "series" / "one.patch"
    series.write_text(PATCH.replace("counter = 2", "counter = 7"))
    keys.add(build(project).key)
    main = project / "linux" / "init" / "main.c"
    main.write_text(main.read_text() + "\nint more;\n")
    keys.add(build(project).key)
    assert len(keys) == 4


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
