"""A recipe under images/ to a Debian root file system on an ext4 disk, as an ordinary user."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import io
import os
import re
import shlex
import shutil
import struct
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import msgspec

from rig import process
from rig.errors import InfrastructureError, UsageError
from rig.progress import QUIET, Progress
from rig.store import Store, digest

# Raised when the code below makes something else of the same recipe.
_FORMAT = "3"
# Fixed, so that the same packages make the same file system but for the keys in it.
_EPOCH = "1767225600"  # 2026-01-01
_UUID = "72696700-0000-4000-8000-000000000001"
_TIMEOUT_S = 900.0
_SCRATCH = "rig-image-"
_YOUNG_S = 10.0  # one that was made but not claimed yet
_DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_DEBIAN_ARCH = {"x86_64": "amd64", "arm64": "arm64", "riscv64": "riscv64"}
_COMPILER = {
    "x86_64": "gcc",
    "arm64": "aarch64-linux-gnu-gcc",
    "riscv64": "riscv64-linux-gnu-gcc",
}
# Where the guest has the programs that are part of the recipe.
_PROGRAMS = "usr/lib/rig"

# The last hook runs as root of the new system's own user namespace (or under fakeroot), where
# owners are what they will be in the guest: $1 is the root, standard input the disk file,
# reopened through /proc because its directory need not be reachable for the mapped user. It does
# by itself the clean-up that mmdebstrap would do only later. /proc, /sys and /dev are mounted in
# the root; a bind mount that is not recursive shows it bare, at /mnt. One line: mmdebstrap looks
# for a program of that name first.
_FINISH = " && ".join(
    (
        'cd "$1"',
        "rm -rf {remove}",
        "mkdir -p proc sys dev run tmp var/lib/apt/lists var/cache/apt/archives var/log",
        # run.c gives what is not from a session of ours to /bin/sh; sshd looks into etc/shells
        "sed -i 's|^root:.*|root:*:0:0:root:/root:/usr/lib/rig/run|' etc/passwd",
        "echo /usr/lib/rig/run >>etc/shells",
        # fakechroot leaves its own directory in front of absolute links
        'find . -xdev -type l -lname "$1/*" | while read -r link; do '
        'ln -sfn "$(readlink "$link" | sed "s|^$1||")" "$link"; done',
        """trap 'umount "$1/mnt" 2>/dev/null || :' EXIT""",
        'from="$1"',
        '{{ ! mount --bind "$1" "$1/mnt" 2>/dev/null || from="$1/mnt"; }}',
        "mke2fs -q -t ext4 -F -L rig-root -U {uuid} -m 0 "
        "-E lazy_itable_init=0,lazy_journal_init=0,nodiscard,hash_seed={uuid} "
        '-d "$from" /proc/self/fd/0',
    )
)


@dataclass(frozen=True)
class Recipe:
    """recipe.toml: what goes into the root file system.

    suite: Debian's name of the release. variant: what mmdebstrap starts from. size_mib: of the
    disk (sparse). packages: added. exclude: dpkg path globs never unpacked. remove: paths
    relative to the root, removed at the end. extends: the image beside this one that it is more
    of: programs and overlay are that one's, packages are added to its, the rest is as it has it.
    """

    suite: str = ""
    size_mib: int = 0
    packages: tuple[str, ...] = ()
    variant: str = "essential"
    exclude: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    extends: str = ""


@dataclass(frozen=True)
class Image:
    """A root file system in the store.

    disk: a raw ext4 file system nobody writes to (every boot has its own overlay).
    client_key: the private key that logs in as root. host_key: the guest's public key
    ("ssh-ed25519 AAAA..."), the only one a client accepts. facts: for the report.
    """

    key: str
    directory: Path
    disk: Path
    client_key: Path
    host_key: str
    facts: dict[str, str]


def load_recipe(directory: Path) -> Recipe:
    """Read recipe.toml of an image; UsageError naming the file and the mistake."""
    path = directory / "recipe.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"no such image: {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    known = [f.name for f in fields(Recipe)]
    for name in data:
        if name not in known:
            raise UsageError(f"{path}: unknown key {name!r}", hint=f"known: {', '.join(known)}")
    try:
        recipe = msgspec.convert(data, Recipe)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}") from error
    if recipe.extends:
        return _extended(recipe, data, path)
    for name in ("suite", "size_mib", "packages"):
        if name not in data:
            raise UsageError(f"{path}: no {name}")
    return recipe


def _extended(recipe: Recipe, data: Mapping[str, object], path: Path) -> Recipe:
    if Path(recipe.extends).name != recipe.extends or recipe.extends in (".", ".."):
        raise UsageError(f"{path}: extends is the name of another image, not {recipe.extends!r}")
    base = load_recipe(path.parent.parent / recipe.extends)
    if base.extends:
        raise UsageError(f"{path}: {recipe.extends} extends another image itself")
    own = {name: getattr(recipe, name) for name in data if name != "packages"}
    return replace(base, **own, packages=base.packages + recipe.packages)


def _home(recipe_dir: Path) -> Path:
    """The recipe that the programs and the overlay of an image belong to."""
    extended = load_recipe(recipe_dir).extends
    return recipe_dir.parent / extended if extended else recipe_dir


def build(
    recipe_dir: Path, store: Store, *, arch: str = "x86_64", progress: Progress = QUIET
) -> Image:
    """The image of a recipe: from the store, or made now (some 25 s and the network).

    Raises UsageError for a wrong recipe, InfrastructureError when the host lacks a tool or a
    right, or the archive cannot be reached.
    """
    recipe = load_recipe(recipe_dir)
    key = _key(recipe_dir, arch)

    def make(directory: Path) -> None:
        progress.stage(f"image {recipe_dir.name}: Debian {recipe.suite}")
        _make(recipe, recipe_dir, arch, directory, progress)

    return _open(key, store.publish("image", key, make))


def _open(key: str, directory: Path) -> Image:
    return Image(
        key=key,
        directory=directory,
        disk=directory / "disk.img",
        client_key=directory / "client_key",
        host_key=_public(directory / "host_key.pub"),
        facts=msgspec.json.decode((directory / "facts.json").read_bytes(), type=dict[str, str]),
    )


def _key(recipe_dir: Path, arch: str) -> str:
    """Hash of every file of the recipe with its mode, the command and the tools it runs."""
    command = bootstrap_command(load_recipe(recipe_dir), arch, "", Path("overlay.tar"), [])
    parts: list[str | Path] = [_FORMAT, *command, _tool("mmdebstrap"), _tool("mke2fs")]
    home = _home(recipe_dir)
    if _sources(home):
        found = shutil.which(_COMPILER[arch])
        parts.append(Path(found) if found else _COMPILER[arch])
    for place in dict.fromkeys((home, recipe_dir)):
        for name, path in _files(place):
            parts += [name, str(_mode(path)), path]
    return digest(*parts)


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(directory)), path


def _mode(path: Path) -> int:
    """The mode in the image: a checkout keeps no more than the executable bit."""
    return 0o755 if path.stat().st_mode & 0o100 else 0o644


def _path_env() -> str:
    """PATH with the sbin directories, which an ordinary user's lacks."""
    return os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"


def _tool(name: str) -> Path:
    found = shutil.which(name, path=_path_env())
    if not found:
        raise InfrastructureError(
            f"the image cannot be made: {name} is not installed",
            hint="`rig doctor` prints the line that installs what is missing",
        )
    return Path(found)


def _make(recipe: Recipe, recipe_dir: Path, arch: str, directory: Path, progress: Progress) -> None:
    _keygen(directory / "host_key", "ed25519")
    _keygen(directory / "client_key", "rsa", "-b", "2048")
    overlay = directory / "overlay.tar"
    home = _home(recipe_dir)
    programs = {path.stem: _compiled(path, arch) for path in _sources(home)}
    overlay.write_bytes(_overlay(home / "overlay", directory, programs))
    disk = directory / "disk.img"
    sources, mode = host_sources(recipe.suite), namespace_mode()
    with disk.open("w+b") as file, _scratch(mode) as scratch:
        file.truncate(recipe.size_mib << 20)
        disk.chmod(0o666)  # for the mapped user; its directory is still 0700
        done = process.run(
            bootstrap_command(recipe, arch, mode, overlay, sources),
            timeout_s=_TIMEOUT_S,
            stdin=file,
            env=_environment(scratch),
            log=directory / "build.log",
            on_line=lambda line: progress.step(line.removeprefix("I: ")),
            check=False,
        )
    if done.returncode != 0:
        raise InfrastructureError(
            f"mmdebstrap could not make the image (exit code {done.returncode}, mode {mode})",
            hint=_hint(done.output),
            output=done.output[-4000:],
            reproduce=done.command,
        )
    disk.chmod(0o444)
    overlay.unlink()
    facts = _facts(recipe, recipe_dir.name, arch, mode, done.duration_s)
    (directory / "facts.json").write_bytes(msgspec.json.encode(facts))


def _facts(recipe: Recipe, name: str, arch: str, mode: str, build_s: float) -> dict[str, str]:
    return {
        "name": name,
        "suite": recipe.suite,
        "arch": arch,
        "mode": mode,
        "packages": " ".join(recipe.packages),
        "build_s": f"{build_s:.1f}",
    }


def _hint(output: str) -> str:
    for words in ("Could not resolve", "Temporary failure", "Cannot initiate", "Unable to connect"):
        if words in output:
            return "the Debian archive cannot be reached from here: check network and proxy"
    return ""


@contextlib.contextmanager
def _scratch(mode: str) -> Iterator[Path]:
    """A directory to build in, removed in the end with all that the mapped users own in it.

    Whoever is killed leaves one behind; the next one here removes it.
    """
    place = _roomy()
    for old in place.glob(f"{_SCRATCH}*"):
        with _claim(old) as ours:
            if ours and time.time() - old.stat().st_mtime > _YOUNG_S:
                _remove(old, mode)
    made = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=place))
    with _claim(made):
        made.chmod(0o711)
        try:
            yield made
        finally:
            _remove(made, mode)


@contextlib.contextmanager
def _claim(directory: Path) -> Iterator[bool]:
    """Hold the directory while we build in it; False when it is held or not ours."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        yield os.fstat(descriptor).st_uid == os.geteuid() and _locked(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(directory: Path, mode: str) -> None:
    """Never into another file system: what was mounted in there is the host's own /dev."""
    mapped = ["unshare", "--map-auto", "--map-root-user"] if mode == "unshare" else []
    process.run([*mapped, "rm", "-rf", "--one-file-system", directory], timeout_s=120, check=False)


def _roomy() -> Path:
    """Where the root file system grows: memory where there is room, twice as fast as a disk."""
    memory, fallback = Path("/dev/shm"), Path(tempfile.gettempdir())
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK):
        return fallback
    room = os.statvfs(memory)
    usable = not room.f_flag & (os.ST_NOEXEC | os.ST_NODEV)
    return memory if usable and room.f_bavail * room.f_frsize > 2 << 30 else fallback


def _environment(scratch: Path) -> dict[str, str]:
    keep = ("HOME", "USER", "LOGNAME", "http_proxy", "https_proxy", "no_proxy")
    return {name: os.environ[name] for name in keep if name in os.environ} | {
        "PATH": _path_env(),
        "TMPDIR": str(scratch),
        "LC_ALL": "C.UTF-8",
        "SOURCE_DATE_EPOCH": _EPOCH,
        "E2FSPROGS_FAKE_TIME": _EPOCH,
    }


def bootstrap_command(
    recipe: Recipe, arch: str, mode: str, overlay: Path, sources: list[str]
) -> list[str]:
    """The mmdebstrap call; its standard input must be the disk file. Pure.

    sources: lines of an apt sources.list; empty for mmdebstrap's own choice.
    """
    finish = _FINISH.format(remove=shlex.join(recipe.remove), uuid=_UUID)
    return [
        "mmdebstrap",
        f"--mode={mode}",
        f"--variant={recipe.variant}",
        f"--architectures={_DEBIAN_ARCH[arch]}",
        f"--include={','.join(recipe.packages)}",
        "--format=null",
        '--aptopt=Acquire::Languages "none"',
        *(f"--dpkgopt=path-exclude={glob}" for glob in recipe.exclude),
        f"--customize-hook=tar-in {shlex.quote(str(overlay))} /",
        f"--customize-hook={finish}",
        recipe.suite,
        "-",
        *sources,
    ]


def namespace_mode() -> str:
    """How a root file system with foreign owners can be made here, as a mode of mmdebstrap.

    "root" as root, "unshare" where this user has a range of subordinate ids, else "fakechroot";
    InfrastructureError saying what is missing when none can work.
    """
    if os.geteuid() == 0:
        return "root"
    reason = _no_unshare()
    if not reason:
        return "unshare"
    if shutil.which("fakechroot") and shutil.which("fakeroot"):
        return "fakechroot"
    raise InfrastructureError(
        f"the image cannot be made as an ordinary user: {reason}",
        hint="install uidmap and have a line in /etc/subuid and /etc/subgid "
        "(usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER), "
        "or install fakechroot and fakeroot",
    )


def _no_unshare() -> str:
    """Why no user namespace with a range of ids can be had, or ""."""
    if not (shutil.which("newuidmap") and shutil.which("newgidmap")):
        return "newuidmap is not installed (package uidmap)"
    tried = process.run(
        ["unshare", "--map-auto", "--map-root-user", "--mount", "true"], timeout_s=10, check=False
    )
    if tried.returncode == 0:
        return ""
    return tried.output.strip().splitlines()[-1] if tried.output.strip() else "unshare fails"


def host_sources(suite: str) -> list[str]:
    """The host's own apt sources of this Debian suite, updates and security included.

    As sources.list lines, the suite itself first; empty where the host is no Debian of that
    suite: mmdebstrap then takes deb.debian.org and Debian's keyring, which must be there.
    """
    lines = _indexed(suite) if shutil.which("apt-get") else []
    if not lines and not _DEBIAN_KEYRING.exists():
        raise InfrastructureError(
            "the Debian archive's keys are not on this host",
            hint="install the package debian-archive-keyring",
        )
    return lines


def _indexed(suite: str) -> list[str]:
    form = "$(ORIGIN)|$(SITE)|$(RELEASE)|$(COMPONENT)"
    listed = process.run(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages"],
        timeout_s=30,
        check=False,
    )
    found = {line for line in listed.output.splitlines() if line.count("|") == 3}
    return sources_of(suite, sorted(found)) if listed.returncode == 0 else []


def sources_of(suite: str, listed: list[str]) -> list[str]:
    """sources.list lines from "origin|site|release|component" lines; [] without the suite. Pure."""
    lines = []
    for origin, site, release, component in (line.split("|") for line in listed):
        base = re.fullmatch(rf"{re.escape(suite)}(-updates|-security)?", release)
        if origin == "Debian" and base and component == "main" and site.startswith("http"):
            signed = f"[signed-by={_DEBIAN_KEYRING}] " if _DEBIAN_KEYRING.exists() else ""
            lines.append((base.group(1) is not None, f"deb {signed}{site} {release} {component}"))
    lines.sort()
    return [line for _, line in lines] if lines and not lines[0][0] else []


def _keygen(path: Path, *kind: str) -> None:
    """What of all that sshd knows takes the guest least: ed25519 to sign with, RSA to be shown."""
    process.run(["ssh-keygen", "-q", "-t", *kind, "-N", "", "-C", "rig", "-f", path], timeout_s=60)


def _public(path: Path) -> str:
    return " ".join(path.read_text(encoding="ascii").split()[:2])


def _sources(recipe_dir: Path) -> list[Path]:
    """The recipe's own programs: each NAME.c beside recipe.toml is /usr/lib/rig/NAME; where NAME
    ends in ".so", a library to preload.
    """
    return sorted(recipe_dir.glob("*.c"))


def _compiled(source: Path, arch: str) -> bytes:
    """A small program for the guest, linked statically: the host's libraries are not there. A
    library takes nothing from the C library that the oldest one does not have.
    """
    with tempfile.TemporaryDirectory(prefix="rig-program-") as place:
        made = Path(place, source.stem)
        kind = ["-shared", "-fPIC"] if made.suffix == ".so" else ["-static"]
        words = [*kind, "-Os", "-s", "-Wall", "-Wextra", "-o", str(made), str(source)]
        done = process.run([_tool(_COMPILER[arch]), *words], timeout_s=120, check=False)
        if done.returncode:
            raise InfrastructureError(
                f"{source} does not compile", output=done.output[-4000:], reproduce=done.command
            )
        return made.read_bytes()


def _overlay(tree: Path, keys: Path, programs: Mapping[str, bytes]) -> bytes:
    """A tar of the recipe's overlay, its programs and the keys, everything owned by root."""
    files = {name: (path.read_bytes(), _mode(path)) for name, path in _files(tree)}
    files |= {f"{_PROGRAMS}/{name}": (data, 0o755) for name, data in programs.items()}
    client, host = keys / "client_key.pub", keys / "host_key"
    files["root/.ssh/authorized_keys"] = client.read_bytes(), 0o600
    files["etc/dropbear/host_key"] = dropbear_key(host.read_text("ascii")), 0o600
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(_entry("root", tarfile.DIRTYPE, 0o700))
        tar.addfile(_entry("root/.ssh", tarfile.DIRTYPE, 0o700))
        for name, (data, mode) in sorted(files.items()):
            entry = _entry(name, tarfile.REGTYPE, mode)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, int(_EPOCH)
    entry.uname = entry.gname = "root"
    return entry


def dropbear_key(pem: str) -> bytes:
    """An unencrypted ed25519 key as ssh-keygen writes it, in dropbear's format. Pure.

    From: openssh PROTOCOL.key. To: dropbear's ed25519.c, buf_put_ed25519_priv_key: the name and
    the 64 bytes of seed and public key, each with its length before it.
    """
    blob = base64.b64decode("".join(pem.strip().splitlines()[1:-1]))
    rest = blob.removeprefix(b"openssh-key-v1\0")
    for _ in range(3):  # cipher, key derivation, its options: all "none"
        _, rest = _string(rest)
    _, rest = _string(rest[4:])  # the count of keys, then the public key
    private, _ = _string(rest)
    name, rest = _string(private[8:])  # two equal check words first
    _, rest = _string(rest)
    secret, _ = _string(rest)
    if name != b"ssh-ed25519" or len(secret) != 64:
        raise InfrastructureError(f"ssh-keygen made an unexpected key: {name!r}")
    return struct.pack(">I", len(name)) + name + struct.pack(">I", 64) + secret


def _string(data: bytes) -> tuple[bytes, bytes]:
    """The SSH string (length, bytes) at the start of data, and what follows it."""
    (length,) = struct.unpack_from(">I", data)
    return data[4 : 4 + length], data[4 + length :]
