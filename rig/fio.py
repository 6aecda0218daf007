"""The engine that fio runs async_submit() with, compiled against the source of Debian's fio."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from rig import image, process
from rig.errors import BuildError, InfrastructureError
from rig.progress import QUIET, Progress
from rig.store import Store, digest

SCRIPT = "fio_jobs.py"  # of guest-tests/bench: who wants the engine
SOURCE = "fio_async_submit.c"
ENGINE = "fio_async_submit.so"

_RECIPE = "1"  # part of the key: raise it when the way it is made changes
_PACKAGE = "fio"
_FETCH_S, _CONFIGURE_S, _COMPILE_S = 600.0, 300.0, 120.0
_FLAGS = ("-O2", "-g", "-shared", "-fPIC", "-D_GNU_SOURCE", "-Wall", "-include", "config-host.h")


def engine(source: Path, suite: str, store: Store, progress: Progress = QUIET) -> Path:
    """The engine as a shared object, for the fio of a Debian suite ("bookworm").

    source: SOURCE of the checkout. Raises InfrastructureError where the archive has no source of
    fio, BuildError with the compiler's words where the engine does not compile.
    """
    tree = _tree(suite, store, progress)
    version = process.run(["gcc", "--version"], timeout_s=20).output.splitlines()[0]
    key = digest(_RECIPE, source, tree.name, version)[:32]
    entry = store.publish(
        "fio-engine", key, lambda made: _compile(source, tree, made), uses=[f"fio/{tree.name}"]
    )
    return entry / ENGINE


def _compile(source: Path, tree: Path, made: Path) -> None:
    argv = ["gcc", *_FLAGS, "-I", str(tree / "fio"), "-o", str(made / ENGINE), str(source)]
    done = process.run(argv, timeout_s=_COMPILE_S, cwd=tree / "fio", check=False)
    if done.returncode:
        raise BuildError(
            f"{source} does not compile", output=done.output[-4000:], reproduce=done.command
        )


def _tree(suite: str, store: Store, progress: Progress) -> Path:
    """The source of fio as the suite has it, configured."""
    lines = image.host_sources(suite)
    if not lines:
        raise InfrastructureError(
            f"this host has no Debian archive of {suite}, where the source of fio is",
            hint="on another host leave fio out: rig bench --only models",
        )
    key = digest(_RECIPE, *lines)[:32]

    def make(directory: Path) -> None:
        progress.stage(f"fetching the source of fio ({suite})")
        _fetch(lines, directory)
        progress.stage("configuring fio")
        process.run(
            ["sh", "configure", "--disable-native"],
            timeout_s=_CONFIGURE_S,
            cwd=directory / "fio",
            log=directory / "configure.log",
        )

    return store.publish("fio", key, make)


def _fetch(lines: list[str], directory: Path) -> None:
    """Download and unpack it, with apt's state in a directory of our own: no root is needed, and
    the host's lists stay as they are. apt verifies signatures and sums."""
    state = directory / "apt"
    for name in ("lists/partial", "cache/archives/partial", "download"):
        (state / name).mkdir(parents=True)
    wanted = "\n".join(re.sub(r"^deb ", "deb-src ", line) for line in lines)
    (state / "sources.list").write_text(wanted + "\n", encoding="ascii")
    settings = {
        "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache",
        "APT::Sandbox::User": "",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    process.run(["apt-get", *options, "-qq", "update"], timeout_s=_FETCH_S)
    words = ["-qq", "--download-only", "source", _PACKAGE]
    process.run(["apt-get", *options, *words], timeout_s=_FETCH_S, cwd=state / "download")
    described = next((state / "download").glob("*.dsc"), None)
    if described is None:
        raise InfrastructureError("apt-get source fio brought no .dsc file")
    _unpack(described, directory / "fio")
    shutil.rmtree(state)


def _unpack(described: Path, into: Path) -> None:
    """The upstream tarball: dpkg-source is not on every host, and Debian's patches of fio are to
    its manuals and build."""
    tarball = next(
        (path for path in described.parent.glob("*.orig.tar.*") if path.suffix != ".asc"), None
    )
    if tarball is None:
        raise InfrastructureError(f"{described.name} has no upstream tarball")
    into.mkdir()
    process.run(["tar", "-xf", tarball, "-C", into, "--strip-components=1"], timeout_s=_CONFIGURE_S)
