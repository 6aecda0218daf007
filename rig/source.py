"""A pristine, verified kernel tree, from Debian's archive, a tarball, a directory or a git ref."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rig import process
from rig.config import KernelConfig
from rig.errors import InfrastructureError, UsageError
from rig.progress import QUIET, Progress
from rig.store import Store, digest, file_identity, file_sha256

_BRANCH = "refs/heads/pristine"
_IMPORT_TIMEOUT_S = 1800
_APT_SETTINGS, _APT_LISTS = Path("/etc/apt"), Path("/var/lib/apt/lists")
_DPKG_STATUS = Path("/var/lib/dpkg/status")
# A setting that moves apt's lists or settings to where _apt_state does not look.
_APT_ELSEWHERE = re.compile(r"RootDir|\bDir(?:::(?:State|Etc)|\s*[\"{])")
_RECIPE = "2"  # raise when the way a tree is imported changes
# One name and one date: the same files give the same commit on every host.
_IDENTITY = {
    "GIT_AUTHOR_NAME": "rig",
    "GIT_AUTHOR_EMAIL": "rig@localhost",
    "GIT_AUTHOR_DATE": "@0 +0000",
    "GIT_COMMITTER_NAME": "rig",
    "GIT_COMMITTER_EMAIL": "rig@localhost",
    "GIT_COMMITTER_DATE": "@0 +0000",
}


@dataclass(frozen=True)
class Source:
    """A kernel tree kept as one commit of a bare git repository that nothing writes to.

    tree: git's hash over every file. version: the tree's own ("6.12.117").
    origin: where it came from, with the sha256 of what was fetched. release: the package
    version for Debian's source, else the same as version. home: "kind/key" of what holds the
    repository in the store.
    """

    repository: Path
    commit: str
    tree: str
    version: str
    release: str
    origin: str
    home: str
    sha256: str = ""


def git(
    *words: str | Path,
    repository: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: IO[bytes] | None = None,
    timeout_s: float = 300,
    check: bool = True,
) -> process.Completed:
    """Run git on exactly this repository: never on one found by walking up from a directory."""
    clean = _plain_environment()
    clean |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    clean |= {**_IDENTITY, **(env or {}), "GIT_DIR": str(repository)}
    settings = ("core.autocrlf=false", "core.looseCompression=0", "gc.auto=0", "safe.directory=*")
    options = [word for setting in settings for word in ("-c", setting)]
    argv = ["git", *options, *words]
    return process.run(
        argv, timeout_s=timeout_s, cwd=cwd, env=clean, stdin=stdin, check=check, separate=True
    )


def _git_in(tree: Path, *words: str, check: bool = True) -> process.Completed:
    """Run git in a user's own tree, read only, with the user's settings."""
    argv: list[str | Path] = ["git", "-C", tree, *words]
    env = _plain_environment()
    return process.run(argv, timeout_s=60, env=env, check=check, separate=True)


def _plain_environment() -> dict[str, str]:
    """Ours without what a git hook around us says of another repository."""
    return {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}


def fetch(kernel: KernelConfig, root: Path, store: Store, progress: Progress = QUIET) -> Source:
    """The pristine tree `kernel.source` names; root is where relative paths start.

    UsageError when it names nothing usable, InfrastructureError when it cannot be had or does
    not have the sha256 it should.
    """
    wanted = kernel.source
    if wanted == "deb" and not shutil.which("apt-get"):
        wanted = _tarball_instead(kernel)
    if wanted == "deb":
        return _debian(kernel.package, store, progress)
    if re.match(r"https?://", wanted):
        return _url(wanted, kernel.sha256, store, progress)
    path, hash_, ref = wanted.partition("#")
    place = (root / Path(path).expanduser()).absolute()
    if hash_:
        return _git_ref(place, ref, store, progress)
    if place.is_dir():
        return _directory(place, store, progress)
    if place.is_file():
        return _tarball(place, kernel.sha256, str(place), store, progress)
    raise UsageError(
        f"[kernel.{kernel.name}] source {kernel.source!r}: no such file or directory: {place}",
        hint="deb, a directory, a tarball (path or URL), or REPOSITORY#REF",
    )


def _tarball_instead(kernel: KernelConfig) -> str:
    if not kernel.tarball:
        raise UsageError(
            f"[kernel.{kernel.name}] source is 'deb', but this host has no apt-get",
            hint="give `tarball` and `sha256` in rig.toml, or --source PATH|URL",
        )
    return kernel.tarball


# --- Debian's linux-source package -------------------------------------------------------------


def _debian(package: str, store: Store, progress: Progress) -> Source:
    version, sha256 = _newest(package, store)
    key = digest("deb", package, version, sha256, _RECIPE)[:32]

    def make(directory: Path) -> None:
        progress.stage(f"fetching {package} {version}")
        # apt-get download needs no root: it verifies the archive's signature and the sha256.
        process.run(["apt-get", "download", f"{package}={version}"], timeout_s=1800, cwd=directory)
        deb = next(directory.glob("*.deb"))
        _verify(deb, sha256, package)
        progress.stage(f"unpacking {package} {version}")
        process.run(["dpkg-deb", "-x", deb, directory / "deb"], timeout_s=600)
        deb.unlink()
        _import_tarball(next((directory / "deb").glob("usr/src/*.tar.*")), directory)
        shutil.rmtree(directory / "deb")
        _record(directory, f"{package} {version} (Debian)", sha256, version)

    return _load(key, store.publish("source", key, make))


def _newest(package: str, store: Store) -> tuple[str, str]:
    """Version and sha256 of the newest package; apt is asked again when anything of it changed."""
    state = _apt_state()
    key = digest(package, state)[:32]
    if state and (known := store.recall("apt", key)):
        version, sha256 = known
        return version, sha256
    found = _candidate(package)
    if state:
        store.remember("apt", key, found)
    return found


def _apt_state() -> str:
    """Names, sizes and times of what apt's answer depends on; "" when it may lie elsewhere."""
    etc = sorted(path for path in _APT_SETTINGS.rglob("*") if path.is_file())
    settings = "".join(p.read_text(errors="replace") for p in etc if "apt.conf" in str(p))
    if "APT_CONFIG" in os.environ or _APT_ELSEWHERE.search(settings):
        return ""
    lists = sorted(path for path in _APT_LISTS.glob("*") if path.is_file())
    return "\n".join(map(file_identity, (*etc, *lists, _DPKG_STATUS)))


def _candidate(package: str) -> tuple[str, str]:
    """Version and sha256 of the newest package the archive offers."""
    argv = ["apt-cache", "show", "--no-all-versions", package]
    shown = process.run(argv, timeout_s=60, check=False)
    fields = dict(re.findall(r"^(Version|SHA256): (\S+)$", shown.output, re.MULTILINE))
    if shown.returncode or len(fields) != 2:
        raise InfrastructureError(
            f"the Debian archive this host uses offers no package {package}",
            hint="run `sudo apt-get update`; if it stays away, give --source a tarball or a tree",
            output=shown.output[-1000:],
            reproduce=shown.command,
        )
    return fields["Version"], fields["SHA256"]


# --- tarballs, directories, git refs -----------------------------------------------------------


def _url(url: str, sha256: str, store: Store, progress: Progress) -> Source:
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise UsageError(
            f"source {url} needs its sha256",
            hint="set sha256 = '<64 hex digits>' beside source in rig.toml, or --sha256",
        )
    key = digest("tarball", sha256, _RECIPE)[:32]

    def make(directory: Path) -> None:
        progress.stage(f"fetching {url}")
        archive = directory / Path(url).name
        _download(url, archive, progress)
        _verify(archive, sha256, url)
        progress.stage(f"unpacking {archive.name}")
        _import_tarball(archive, directory)
        archive.unlink()
        _record(directory, url, sha256, "")

    return _load(key, store.publish("source", key, make))


def _download(url: str, target: Path, progress: Progress) -> None:
    import urllib.error  # late: slow to import, and most runs fetch nothing
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=60) as answer, target.open("wb") as file:
            while chunk := answer.read(1 << 20):
                file.write(chunk)
                progress.step(f"{file.tell() >> 20} MiB")
    except (urllib.error.URLError, OSError) as error:
        raise InfrastructureError(
            f"{url} could not be fetched: {error}", hint="check the address and the network"
        ) from error


def _tarball(path: Path, sha256: str, origin: str, store: Store, progress: Progress) -> Source:
    got = file_sha256(path)
    if not sha256:
        raise UsageError(f"source {path} needs its sha256", hint=f"what it has now: {got}")
    if sha256 != got:
        raise _mismatch(path, sha256, got)
    key = digest("tarball", got, _RECIPE)[:32]

    def make(directory: Path) -> None:
        progress.stage(f"unpacking {path.name}")
        _import_tarball(path, directory)
        _record(directory, origin, got, "")

    return _load(key, store.publish("source", key, make))


def _directory(path: Path, store: Store, progress: Progress) -> Source:
    """A snapshot of a tree as it stands now, uncommitted changes included; path is only read.

    Its snapshots share one repository, which has each file that changed once more: a person who
    edits a tree does not wait for 85,000 others to be copied.
    """
    _must_be_kernel(path, (path / "Kconfig").is_file() and (path / "Makefile").is_file())
    scratch = store.scratch("directory", digest(str(path.resolve()))[:32])
    with store.lock("directory", scratch.name):
        progress.stage(f"reading {path}")
        repository = scratch / "linux.git"
        if not (repository / "HEAD").exists():
            git("init", "-q", "--bare", repository, repository=repository)
        # The lock is ours, so that of the index is what a killed rig left.
        (repository / "index.lock").unlink(missing_ok=True)
        # The index stays between runs, so that an unchanged tree is one stat per file.
        _add_files(repository, path)
        facts = _facts(repository, _commit_index(repository))
    home = f"directory/{scratch.name}"
    release = facts["version"]
    return Source(repository=repository, home=home, origin=str(path), release=release, **facts)


def _git_ref(path: Path, ref: str, store: Store, progress: Progress) -> Source:
    found = _git_in(path, "rev-parse", "--verify", "-q", f"{ref}^{{commit}}", check=False)
    if found.returncode:
        raise UsageError(f"{path} has no git commit {ref!r}", hint=found.errors.strip()[:300])
    commit = found.output.strip()
    key = digest("git", commit, _RECIPE)[:32]
    repository = Path(_git_in(path, "rev-parse", "--absolute-git-dir").output.strip())
    listed = git("ls-tree", "--name-only", commit, repository=repository).output.split()
    _must_be_kernel(path, {"Kconfig", "Makefile"} <= set(listed))
    make = _pull(repository, commit, f"{path} at {ref} ({commit[:12]})", progress)
    return _load(key, store.publish("source", key, make))


def _pull(origin: Path, commit: str, described: str, progress: Progress) -> Callable[[Path], None]:
    """Makes a source entry out of one commit's tree in another repository."""

    def make(directory: Path) -> None:
        progress.stage(f"copying {described}")
        repository = directory / "linux.git"
        git("init", "-q", "--bare", repository, repository=repository)
        env = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": str(_objects(origin))}
        tree = git("rev-parse", f"{commit}^{{tree}}", repository=repository, env=env)
        own = git(
            "commit-tree", "-m", "pristine", tree.output.strip(), repository=repository, env=env
        )
        git("update-ref", _BRANCH, own.output.strip(), repository=repository, env=env)
        # Without -l the borrowed objects are packed too: the copy stands by itself.
        git("repack", "-q", "-a", "-d", repository=repository, env=env, timeout_s=_IMPORT_TIMEOUT_S)
        _record(directory, described, "", "")

    return make


def _objects(repository: Path) -> Path:
    shared = git("rev-parse", "--git-common-dir", repository=repository).output.strip()
    return (repository / shared).resolve() / "objects"


def _must_be_kernel(path: Path, is_kernel: bool) -> None:
    if not is_kernel:
        raise UsageError(
            f"{path} is not a Linux source tree: it has no top-level Kconfig and Makefile"
        )


# --- importing ---------------------------------------------------------------------------------


def _import_tarball(archive: Path, directory: Path) -> None:
    unpacked = directory / "unpacked"
    unpacked.mkdir()
    process.run(
        ["tar", "-xf", archive, "-C", unpacked, "--no-same-owner", "--no-same-permissions"],
        timeout_s=_IMPORT_TIMEOUT_S,
    )
    inside = list(unpacked.iterdir())
    tree = inside[0] if len(inside) == 1 and inside[0].is_dir() else unpacked
    _must_be_kernel(archive, (tree / "Kconfig").is_file())
    repository = directory / "linux.git"
    git("init", "-q", "--bare", repository, repository=repository)
    _add_all(repository, tree)
    git("update-ref", _BRANCH, _commit_index(repository), repository=repository)
    (repository / "index").unlink()
    # The trees, some 5,000, are left: into the pack with them.
    git(
        "-c", "pack.window=0", "repack", "-q", "-a", "-d",
        repository=repository, timeout_s=_IMPORT_TIMEOUT_S,
    )  # fmt: skip
    shutil.rmtree(unpacked)


def _add_files(repository: Path, tree: Path) -> None:
    """Put every file of a tree into the index; of a git work tree, but for what git ignores.

    A tree without git is taken whole: Debian's source has a .gitignore that names everything.
    """
    env = _work_tree(tree)
    if not (tree / ".git").exists():
        _add_all(repository, tree)
        return
    _add_all(repository, tree, but_ignored=True)
    listed = _git_in(tree, "ls-files", "-z", "-i", "-c", "--exclude-standard")
    tracked = [name for name in listed.output.split("\0") if name and (tree / name).is_file()]
    if tracked:
        git("add", "-f", "--", *tracked, repository=repository, env=env, cwd=tree)


def _add_all(repository: Path, tree: Path, *, but_ignored: bool = False) -> None:
    """Bring the index to what a tree holds."""
    # Of a whole tree every file counts as big: git streams those into one pack, where 85,000 files
    # of their own would take five times the disk and make each look at the entry slow.
    first = not (repository / "index").exists()
    packed = ("-c", "core.bigFileThreshold=1", "-c", "pack.compression=1") if first else ()
    git(
        *packed, "add", "-A", *(() if but_ignored else ("-f",)), ".",
        repository=repository, env=_work_tree(tree), cwd=tree, timeout_s=_IMPORT_TIMEOUT_S,
    )  # fmt: skip


def _work_tree(tree: Path) -> dict[str, str]:
    return {"GIT_WORK_TREE": str(tree)}


def _commit_index(repository: Path) -> str:
    tree = git("write-tree", repository=repository, timeout_s=120).output.strip()
    return git("commit-tree", "-m", "pristine", tree, repository=repository).output.strip()


def _record(directory: Path, origin: str, sha256: str, release: str) -> None:
    """Write down what was imported, so that no later run has to ask git."""
    repository = directory / "linux.git"
    commit = git("rev-parse", _BRANCH, repository=repository).output.strip()
    facts = _facts(repository, commit)
    value = {**facts, "release": release or facts["version"], "origin": origin, "sha256": sha256}
    (directory / "source.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _facts(repository: Path, commit: str) -> dict[str, str]:
    """What git knows of a commit: its hash, that of its tree, the kernel's version."""
    tree = git("rev-parse", f"{commit}^{{tree}}", repository=repository).output.strip()
    makefile = git("show", f"{commit}:Makefile", repository=repository).output
    return {"commit": commit, "tree": tree, "version": _version(makefile)}


def _load(key: str, directory: Path) -> Source:
    value = json.loads((directory / "source.json").read_bytes())
    return Source(repository=directory / "linux.git", home=f"source/{key}", **value)


def _version(makefile: str) -> str:
    found: dict[str, str] = dict(
        re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *= *(\S*)", makefile, re.MULTILINE)
    )
    numbers = ".".join(found.get(part, "0") for part in ("VERSION", "PATCHLEVEL", "SUBLEVEL"))
    return numbers + found.get("EXTRAVERSION", "")


def _verify(path: Path, sha256: str, what: str) -> None:
    got = file_sha256(path)
    if got != sha256:
        raise _mismatch(what, sha256, got)


def _mismatch(what: str | Path, wanted: str, got: str) -> InfrastructureError:
    return InfrastructureError(
        f"{what} has sha256 {got}, not {wanted}",
        hint="the file was damaged on its way, or the sha256 in rig.toml is of another file",
    )
