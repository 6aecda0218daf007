"""A series is checked, applied one commit a patch, and refused by patch, file and hunk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fake_kernel import PATCH, make_series, make_tree

from rig import series, source
from rig.config import KernelConfig
from rig.errors import BuildError, UsageError
from rig.source import Source
from rig.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def pristine(tmp_path: Path, store: Store) -> Source:
    make_tree(tmp_path / "linux")
    return source.fetch(KernelConfig("k", source="linux"), tmp_path, store)


def prepare(pristine: Source, store: Store, *texts: str) -> series.Tree:
    patches = tuple(series.Patch(f"{n}.patch", text.encode()) for n, text in enumerate(texts))
    return series.prepare(pristine, patches, "slot", store)


def test_each_patch_is_a_commit(pristine: Source, store: Store, tmp_path: Path) -> None:
    second = PATCH.replace("counter = 2", "counter = 3").replace("counter = 1", "counter = 2")
    path = make_series(tmp_path / "s", one=PATCH, two=second.replace("count from two", "three"))
    tree = series.prepare(pristine, series.read(path), "slot", store)
    assert [p.subject for p in tree.patches] == ["init: count from two", "init: three"]
    assert "counter = 3" in (tree.directory / "init/main.c").read_text()
    log = source.git("log", "--format=%an %ad %s", repository=tree.directory / ".git").output
    assert log.splitlines()[1].startswith("A Developer Mon Jan 5 10:00:00 2026")
    assert tree.patch_of(tree.patches[0].commit) == "one.patch"
    assert tree.patch_of(pristine.commit) == ""


def test_the_pristine_source_is_never_written(pristine: Source, store: Store) -> None:
    def state() -> list[tuple[Path, int]]:
        return sorted((p, p.lstat().st_mtime_ns) for p in pristine.repository.rglob("*"))

    before = state()
    prepare(pristine, store, PATCH)
    assert state() == before


def test_an_mbox_gives_the_same_tree(pristine: Source, store: Store, tmp_path: Path) -> None:
    cover = "From 0 Mon Sep 17 00:00:00 2001\nFrom: a <a@b>\nSubject: cover\n\nwords\n\n"
    (tmp_path / "mbox").write_text(cover + PATCH)
    patches = series.read(tmp_path / "mbox")
    assert [patch.name for patch in patches] == ["mbox#2"]
    by_mbox = series.prepare(pristine, patches, "a", store)
    assert by_mbox.tree == prepare(pristine, store, PATCH).tree


def test_files_that_stay_keep_their_mtime(pristine: Source, store: Store) -> None:
    before = prepare(pristine, store, PATCH)
    kept = (before.directory / "Kconfig").stat().st_mtime_ns
    changed = (before.directory / "init/main.c").stat().st_mtime_ns
    after = prepare(pristine, store, PATCH.replace("counter = 2", "counter = 5"))
    assert (after.directory / "Kconfig").stat().st_mtime_ns == kept
    assert (after.directory / "init/main.c").stat().st_mtime_ns != changed


def test_what_was_changed_by_hand_is_put_right(pristine: Source, store: Store) -> None:
    tree = prepare(pristine, store, PATCH)
    (tree.directory / "Kconfig").write_text("broken")
    (tree.directory / "stray.c").write_text("stray")
    (tree.directory / ".git" / "index.lock").write_text("")
    prepare(pristine, store, PATCH)
    assert "config FOO" in (tree.directory / "Kconfig").read_text()
    assert not (tree.directory / "stray.c").exists()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("-\tcounter = 1;", "-\tcounter = 9;", "hunk 1 of init/main.c (@@ -3,7 +3,7 @@)"),
        ("init/main.c", "init/gone.c", "init/gone.c: does not exist in index"),
        ("-3,7 +3,7", "-3,9 +3,9", "corrupt patch"),
        ("@@ -3,7", "@@ 3,7", "does not apply"),
    ],
)
def test_a_reject_is_named(pristine: Source, store: Store, old: str, new: str, reason: str) -> None:
    with pytest.raises(BuildError) as caught:
        prepare(pristine, store, PATCH.replace(old, new))
    assert caught.value.message.startswith("0.patch does not apply: ")
    assert reason in caught.value.message
    assert caught.value.exit_code == 4


def test_the_failing_hunk_of_several(pristine: Source, store: Store) -> None:
    hunks = "@@ -1,3 +1,3 @@\n-void start_kernel(void);\n+void start_kernel(void); /* x */\n"
    hunks += " int counter;\n \n@@ -6,4 +6,4 @@ void start_kernel(void)\n \tcounter = 1;\n"
    hunks += "-\tfor (;;) wrong\n+\tfor (;;) right\n \t\t;\n }\n"
    text = "--- a/init/main.c\n+++ b/init/main.c\n" + hunks
    with pytest.raises(BuildError, match=r"hunk 2 of init/main\.c \(@@ -6,4 \+6,4 @@\)"):
        prepare(pristine, store, text)


def test_a_series_that_changes_nothing(pristine: Source, store: Store) -> None:
    back = PATCH.replace("-\tcounter = 1", "-\tcounter = 2").replace(
        "+\tcounter = 2", "+\tcounter = 1"
    )
    with pytest.raises(BuildError, match="the series changes nothing"):
        prepare(pristine, store, PATCH, back)
    same = PATCH.replace("+\tcounter = 2", "+\tcounter = 1")
    with pytest.raises(BuildError, match=r"0\.patch changes nothing"):
        prepare(pristine, store, same)
    with pytest.raises(BuildError, match=r"0\.patch does not apply"):
        prepare(pristine, store, "only words\n")


LINK = (
    "diff --git a/{0} b/{0}\nnew file mode 120000\n--- /dev/null\n+++ b/{0}\n@@ -0,0 +1 @@\n+{1}\n"
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PATCH.replace("b/init/main.c", "b/../main.c"), "leaves the tree"),
        (PATCH.replace("+++ b/init/main.c", "+++ b/init/../../x"), "leaves the tree"),
        (PATCH.replace("+++ b/init/main.c", "+++ /etc/passwd"), "is absolute"),
        (PATCH.replace("a/init/main.c", "a//etc/passwd"), "is absolute"),
        (PATCH.replace("b/init/main.c", "b/.git/config"), "is inside .git"),
        (PATCH.replace("b/init/main.c", "b/x/.GIT/config"), "is inside .git"),
        ("diff --git a/x b/y\nrename from x\nrename to ../y\n", "leaves the tree"),
        (LINK.format("init/link", "../../x"), "symbolic link"),
        (LINK.format("link", "/etc/passwd"), "symbolic link"),
    ],
)
def test_a_path_that_leaves_the_tree(tmp_path: Path, text: str, reason: str) -> None:
    path = make_series(tmp_path / "s", bad=text)
    with pytest.raises(BuildError, match=reason) as caught:
        series.read(path)
    assert "bad.patch" in caught.value.message


def test_a_symlink_inside_is_fine_and_nothing_goes_through_it(
    pristine: Source, store: Store, tmp_path: Path
) -> None:
    inside = LINK.format("init/link", "../Kconfig")
    series.read(make_series(tmp_path / "s", fine=inside))
    through = "--- /dev/null\n+++ b/d/x\n@@ -0,0 +1 @@\n+x\n"
    link = LINK.format("d", "init")
    with pytest.raises(BuildError, match=r"1\.patch does not apply"):
        prepare(pristine, store, link, through)


def test_a_bare_diff_is_no_mbox(tmp_path: Path) -> None:
    (tmp_path / "x.patch").write_text(PATCH[PATCH.index("diff --git") :])
    with pytest.raises(UsageError, match="not an mbox"):
        series.read(tmp_path / "x.patch")


def test_series_files(tmp_path: Path) -> None:
    path = make_series(tmp_path / "s", one=PATCH)
    (path / "series").write_text("# words\n\none.patch -p1 # why\n")
    assert [(p.name, p.strip) for p in series.read(path)] == [("one.patch", 1)]
    (path / "series").write_text("gone.patch\n")
    with pytest.raises(UsageError, match=r"series:1: gone\.patch: No such file"):
        series.read(path)
    (path / "series").write_text("one.patch -R\n")
    with pytest.raises(UsageError, match="unknown option '-R'"):
        series.read(path)
    (path / "series").write_text("# nothing\n")
    with pytest.raises(UsageError, match="no patches"):
        series.read(path)
    (path / "series").unlink()
    with pytest.raises(UsageError, match="no `series` file"):
        series.read(path)
    with pytest.raises(UsageError, match="no such series"):
        series.read(tmp_path / "none")


class Steps:
    """A Progress that remembers which patches were worked on."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def stage(self, title: str, total: int | None = None) -> None: ...

    def step(self, text: str, done: int | None = None) -> None:
        self.steps.append(text)

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


def apply(pristine: Source, store: Store, *texts: str) -> tuple[series.Tree, list[str]]:
    """The tree of these patches, and which of them had to be applied."""
    steps = Steps()
    patches = tuple(series.Patch(f"{n}.patch", text.encode()) for n, text in enumerate(texts))
    return series.apply(pristine, patches, "slot", store, steps), steps.steps


def test_only_what_comes_after_a_change_is_applied_again(pristine: Source, store: Store) -> None:
    second = PATCH.replace("counter = 2", "counter = 3").replace("counter = 1", "counter = 2")
    third = second.replace("counter = 3", "counter = 4").replace("-\tcounter = 2", "-\tcounter = 3")
    first, applied = apply(pristine, store, PATCH, second, third)
    assert applied == ["0.patch", "1.patch", "2.patch"]
    assert apply(pristine, store, PATCH, second, third) == (first, [])
    changed = third.replace("counter = 4", "counter = 5")
    after, applied = apply(pristine, store, PATCH, second, changed)
    assert applied == ["2.patch"]
    assert after.patches[:2] == first.patches[:2]
    anew = Store(store.root.parent / "anew")
    assert apply(pristine, anew, PATCH, second, changed)[0].commit == after.commit
    assert apply(pristine, store, PATCH)[1] == []


def test_what_is_remembered_and_gone_is_applied_again(pristine: Source, store: Store) -> None:
    tree, _ = apply(pristine, store, PATCH)
    shutil.rmtree(store.root / "applied")
    again, applied = apply(pristine, store, PATCH)
    assert (again, applied) == (tree, [])
    series.check_out(again, store)
    assert "counter = 2" in (again.directory / "init/main.c").read_text()
    shutil.rmtree(store.root / "applied")
    second = PATCH.replace("counter = 2", "counter = 3").replace("counter = 1", "counter = 2")
    assert apply(pristine, store, PATCH, second)[1] == ["0.patch", "1.patch"]
