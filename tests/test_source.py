"""Sources: directory, git ref, tarball by path and URL; the origin is only read."""

from __future__ import annotations

import functools
import hashlib
import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_kernel import commit_all, make_tree

from rig import source
from rig.config import KernelConfig
from rig.errors import InfrastructureError, UsageError
from rig.store import Store


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "linux")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def fetch(wanted: str, root: Path, store: Store, sha256: str = "") -> source.Source:
    return source.fetch(KernelConfig("k", source=wanted, sha256=sha256), root, store)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pack(tree: Path) -> Path:
    archive = tree.parent / "linux.tar.xz"
    subprocess.run(["tar", "-cJf", archive, "-C", tree.parent, tree.name], check=True)
    return archive


def names(found: source.Source) -> set[str]:
    listed = source.git("ls-tree", "-r", "--name-only", found.commit, repository=found.repository)
    return set(listed.output.split())


def test_every_way_gives_the_same_tree(tree: Path, store: Store, tmp_path: Path) -> None:
    archive = pack(tree)
    by_directory = fetch("linux", tmp_path, store)
    by_tarball = fetch(str(archive), tmp_path, store, sha256_of(archive))
    commit_all(tree, "one")
    by_ref = fetch("linux#HEAD", tmp_path, store)
    assert by_directory.tree == by_tarball.tree == by_ref.tree
    assert by_directory.version == "6.12.1"
    assert by_tarball.sha256 == sha256_of(archive)
    assert names(by_directory) == {"Makefile", "Kconfig", "conf.sh", "init/main.c", "drivers/it.c"}


def test_a_directory_is_taken_as_it_stands_and_not_touched(
    tree: Path, store: Store, tmp_path: Path
) -> None:
    commit_all(tree, "one")
    first = fetch("linux", tmp_path, store)
    (tree / "init/main.c").write_text("int changed;\n")
    (tree / ".gitignore").write_text("*.o\n")
    (tree / "built.o").write_text("object")
    before = sorted((path, path.stat().st_mtime_ns) for path in tree.rglob("*"))
    second = fetch("linux", tmp_path, store)
    assert first.tree != second.tree
    assert "built.o" not in names(second)
    assert before == sorted((path, path.stat().st_mtime_ns) for path in tree.rglob("*"))


def test_a_gitignore_without_git_hides_nothing(tree: Path, store: Store, tmp_path: Path) -> None:
    """Debian's linux-source has a .gitignore of "/*" and is no git work tree."""
    (tree / ".gitignore").write_text("/*\n")
    assert "init/main.c" in names(fetch("linux", tmp_path, store))


def test_a_tracked_file_that_is_ignored_stays(tree: Path, store: Store, tmp_path: Path) -> None:
    commit_all(tree, "one")
    (tree / ".gitignore").write_text("main.c\n")
    assert "init/main.c" in names(fetch("linux", tmp_path, store))


def test_a_ref_ignores_uncommitted_changes(tree: Path, store: Store, tmp_path: Path) -> None:
    commit_all(tree, "one")
    first = fetch("linux#HEAD", tmp_path, store)
    (tree / "init/main.c").write_text("int changed;\n")
    assert fetch("linux#HEAD", tmp_path, store) == first
    with pytest.raises(UsageError, match="no git commit 'v9'"):
        fetch("linux#v9", tmp_path, store)


def test_a_git_hook_around_us_misleads_nobody(
    tree: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_all(tree, "one")
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["git", "init", "-q", other], check=True)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert "init/main.c" in names(fetch("linux#HEAD", tmp_path, store))


def test_a_copy_stands_without_its_origin(tree: Path, store: Store, tmp_path: Path) -> None:
    commit_all(tree, "one")
    found = fetch("linux#HEAD", tmp_path, store)
    subprocess.run(["rm", "-r", tree], check=True)
    shown = source.git("show", f"{found.commit}:init/main.c", repository=found.repository)
    assert "start_kernel" in shown.output
    source.git("fsck", "--full", repository=found.repository)


def test_what_is_no_kernel_tree(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="not a Linux source tree"):
        fetch("empty", tmp_path, store)
    with pytest.raises(UsageError, match="no such file or directory"):
        fetch("nothing", tmp_path, store)
    (tmp_path / "empty" / "file").write_text("")
    archive = pack(tmp_path / "empty")
    with pytest.raises(UsageError, match="not a Linux source tree"):
        fetch(str(archive), tmp_path, store, sha256_of(archive))
    assert not list((store.root / "source").iterdir())


def test_a_tarball_that_is_not_the_one_named(tree: Path, store: Store, tmp_path: Path) -> None:
    archive = pack(tree)
    with pytest.raises(InfrastructureError, match="has sha256"):
        fetch(str(archive), tmp_path, store, sha256="0" * 64)
    with pytest.raises(UsageError, match="needs its sha256") as caught:
        fetch(str(archive), tmp_path, store)
    assert sha256_of(archive) in caught.value.hint
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(InfrastructureError, match="tar failed"):
        fetch(str(archive), tmp_path, store, sha256_of(archive))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_a_url_needs_its_sha256(tree: Path, store: Store, tmp_path: Path, server: str) -> None:
    archive = pack(tree)
    url = f"{server}/{archive.name}"
    with pytest.raises(UsageError, match="needs its sha256"):
        fetch(url, tmp_path, store)
    right = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert fetch(url, tmp_path, store, sha256=right).version == "6.12.1"
    with pytest.raises(InfrastructureError, match="has sha256"):
        fetch(url, tmp_path, store, sha256="1" * 64)
    with pytest.raises(InfrastructureError, match="could not be fetched"):
        fetch(f"{server}/none.tar", tmp_path, store, sha256="2" * 64)


def test_an_unknown_debian_package(store: Store, tmp_path: Path) -> None:
    kernel = KernelConfig("k", source="deb", package="linux-source-0.1")
    with pytest.raises(InfrastructureError, match="offers no package"):
        source.fetch(kernel, tmp_path, store)


def test_a_host_without_apt(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no apt-get"):
        source.fetch(KernelConfig("k"), tmp_path, store)


def test_apt_is_asked_again_when_anything_of_it_changed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists, settings, status = tmp_path / "lists", tmp_path / "etc", tmp_path / "status"
    lists.mkdir()
    (settings / "apt.conf.d").mkdir(parents=True)
    status.write_text("")
    for name, place in (
        ("_APT_LISTS", lists),
        ("_APT_SETTINGS", settings),
        ("_DPKG_STATUS", status),
    ):
        monkeypatch.setattr(source, name, place)
    monkeypatch.delenv("APT_CONFIG", raising=False)
    asked: list[str] = []

    def candidate(package: str) -> tuple[str, str]:
        asked.append(package)
        return f"6.12.{len(asked)}", "0" * 64

    monkeypatch.setattr(source, "_candidate", candidate)
    seen = [source._newest("linux", store), source._newest("linux", store)]
    for changed in (
        lists / "Packages",
        settings / "sources.list",
        settings / "preferences",
        status,
    ):
        changed.write_text("changed")
        seen += [source._newest("linux", store), source._newest("linux", store)]
    assert [version for version, _ in seen] == [f"6.12.{n}" for n in range(1, 6) for _ in (0, 1)]
    assert source._newest("other", store)[0] == "6.12.6"
    # Where apt's lists lie elsewhere, nothing here can vouch for them.
    (settings / "apt.conf.d" / "50").write_text('Dir::State "/elsewhere";\n')
    assert source._newest("linux", store) != source._newest("linux", store)


def test_a_tree_is_kept_in_few_files(tree: Path, store: Store, tmp_path: Path) -> None:
    """Every file of an entry is looked at when it is opened."""
    archive = pack(tree)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    got = fetch(str(archive), tmp_path, store, sha256=sha256)
    objects = [path for path in (got.repository / "objects").rglob("*") if path.is_file()]
    assert {path.suffix for path in objects} <= {".pack", ".idx", ".rev", ".bitmap", ""}
    assert all(path.parent.name in ("pack", "info") for path in objects)
