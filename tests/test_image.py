"""The image: recipes, keys and sources as values; and the real one, looked into."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

from rig import image, process
from rig.errors import InfrastructureError, UsageError
from rig.image import Image, Recipe
from rig.store import Store

RECIPE = Path(__file__).parents[1] / "images" / "debian"


def write_recipe(directory: Path, text: str) -> Path:
    (directory / "recipe.toml").write_text(text)
    return directory


def test_recipe_of_the_project() -> None:
    recipe = image.load_recipe(RECIPE)
    assert recipe.suite == "bookworm"
    assert {"dropbear-bin", "python3", "iproute2"} <= set(recipe.packages)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("suite = ", "not valid TOML"),
        ('suite = "x"\nsize_mib = 1\npackages = []\nsuit = 1', "unknown key 'suit'"),
        ('suite = "x"\npackages = []', "size_mib"),
        ('suite = "x"\nsize_mib = "big"\npackages = []', "size_mib"),
    ],
)
def test_wrong_recipe_is_a_usage_error(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        image.load_recipe(write_recipe(tmp_path, text))
    assert words in caught.value.message


def test_an_image_that_is_more_of_another(tmp_path: Path) -> None:
    shutil.copytree(RECIPE, tmp_path / "debian")
    more = tmp_path / "more"
    more.mkdir()
    write_recipe(more, 'extends = "debian"\nsize_mib = 4096\npackages = ["busybox"]\n')
    base, recipe = image.load_recipe(tmp_path / "debian"), image.load_recipe(more)
    assert recipe.packages == (*base.packages, "busybox")
    assert (recipe.size_mib, recipe.suite, recipe.remove) == (4096, base.suite, base.remove)
    assert image._home(more) == tmp_path / "debian"
    before = image._key(more, "x86_64")
    (tmp_path / "debian/run.c").write_text("int main(void) { return 0; }\n")
    assert image._key(more, "x86_64") != before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('extends = "nothing"', "no such image"),
        ('extends = "../debian"', "the name of another image"),
        ('extends = "more"', "extends another image itself"),
    ],
)
def test_an_image_that_is_more_of_nothing(tmp_path: Path, text: str, words: str) -> None:
    for name, content in (("debian", 'suite = "x"\nsize_mib = 1\npackages = []'), ("new", text)):
        (tmp_path / name).mkdir()
        write_recipe(tmp_path / name, content)
    (tmp_path / "more").mkdir()
    write_recipe(tmp_path / "more", 'extends = "debian"')
    with pytest.raises(UsageError, match=words):
        image.load_recipe(tmp_path / "new")


def test_no_such_image(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such image"):
        image.load_recipe(tmp_path / "nothing")


def test_sources_are_the_hosts_own() -> None:
    listed = [
        "Debian|http://mirror.example/debian-security|bookworm-security|main",
        "Debian|http://mirror.example/debian|bookworm|main",
        "Debian|http://mirror.example/debian|bookworm|contrib",
        "Debian|http://mirror.example/debian|bookworm-backports|main",
        "Debian|http://mirror.example/debian|bookworm-updates|main",
        "Other|http://packages.example|bookworm|main",
        "Debian|cdrom://disk|bookworm|main",
    ]
    lines = [line.split("] ")[-1].removeprefix("deb ") for line in _sources(listed)]
    assert lines == [
        "http://mirror.example/debian bookworm main",
        "http://mirror.example/debian bookworm-updates main",
        "http://mirror.example/debian-security bookworm-security main",
    ]


def _sources(listed: list[str]) -> list[str]:
    return image.sources_of("bookworm", listed)


def test_sources_of_another_suite_are_not_taken() -> None:
    assert _sources(["Debian|http://mirror.example/debian|trixie|main"]) == []
    assert _sources(["Debian|http://m.example/s|bookworm-security|main"]) == []


def test_bootstrap_command() -> None:
    recipe = Recipe("bookworm", 64, ("a", "b"), exclude=("/usr/share/man/*",), remove=("x y",))
    source = "deb http://m.example/debian bookworm main"
    words = image.bootstrap_command(recipe, "x86_64", "unshare", Path("/t/overlay.tar"), [source])
    finish = words[-4].removeprefix("--customize-hook=")
    assert "\n" not in finish
    assert "rm -rf 'x y'" in finish
    assert words[:8] == [
        "mmdebstrap",
        "--mode=unshare",
        "--variant=essential",
        "--architectures=amd64",
        "--include=a,b",
        "--format=null",
        '--aptopt=Acquire::Languages "none"',
        "--dpkgopt=path-exclude=/usr/share/man/*",
    ]
    assert words[8] == "--customize-hook=tar-in /t/overlay.tar /"
    assert words[-3:] == ["bookworm", "-", source]


def test_ordinary_user_without_any_way_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfrastructureError) as caught:
        image.namespace_mode()
    assert "newuidmap" in caught.value.message
    assert "/etc/subuid" in caught.value.hint


def test_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name, path=None: None)
    with pytest.raises(InfrastructureError, match="mmdebstrap is not installed"):
        image.build(RECIPE, Store(tmp_path))


def make_key(directory: Path) -> Path:
    path = directory / "key"
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], timeout_s=30)
    return path


def test_dropbear_reads_the_key_of_ssh_keygen(tmp_path: Path) -> None:
    path = make_key(tmp_path)
    blob = image.dropbear_key(path.read_text())
    name = b"ssh-ed25519"
    assert blob[:15] == struct.pack(">I", len(name)) + name
    assert struct.unpack_from(">I", blob, 15) == (64,)
    public = base64.b64decode((tmp_path / "key.pub").read_text().split()[1])
    assert blob[-32:] == public[-32:]
    assert len(blob) == 15 + 4 + 64


def test_overlay_belongs_to_root_with_tight_keys(tmp_path: Path) -> None:
    for name in ("client_key", "host_key"):
        make_key(tmp_path).rename(tmp_path / name)
        (tmp_path / "key.pub").rename(tmp_path / f"{name}.pub")
    packed = image._overlay(RECIPE / "overlay", tmp_path, {"renew": b"ELF"})
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        members = {member.name: member for member in tar}
    assert all(m.uid == m.gid == 0 for m in members.values())
    assert members["usr/lib/rig/renew"].mode == 0o755
    assert members["etc/fstab"].mode == 0o644
    assert members["root/.ssh"].mode == 0o700
    assert members["root/.ssh/authorized_keys"].mode == 0o600
    assert members["etc/dropbear/host_key"].mode == 0o600


def test_programs_need_nothing_of_the_guest_and_libraries_are_such(tmp_path: Path) -> None:
    sources = {path.stem: path for path in image._sources(RECIPE)}
    assert set(sources) == {"init", "renew", "run", "sshd.so"}
    for name, source in sources.items():
        (tmp_path / name).write_bytes(image._compiled(source, "x86_64"))
    needed = re.compile(r"\(NEEDED\)")
    for name in sources:
        listed = subprocess.run(
            ["readelf", "-hd", tmp_path / name], capture_output=True, check=True
        )
        text = listed.stdout.decode()
        assert bool(needed.search(text)) == name.endswith(".so"), name
        assert ("DYN (" in text) == name.endswith(".so"), name


PRELOADED = """
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
name, size = ctypes.create_string_buffer(16), ctypes.c_uint(16)
pipe, far = os.pipe()
for asked in (libc.getpeername, libc.getsockname):
    size.value = 16
    assert asked(pipe, name, ctypes.byref(size)) == 0
    assert (size.value, int.from_bytes(name.raw[:2], "little")) == (2, socket.AF_UNIX)
with socket.create_server(("127.0.0.1", 0)) as listener:
    size.value = 16
    assert libc.getsockname(listener.fileno(), name, ctypes.byref(size)) == 0
    assert name.raw[2:4] == listener.getsockname()[1].to_bytes(2, "big")
    assert libc.getpeername(listener.fileno(), name, ctypes.byref(size)) == -1
    assert ctypes.get_errno() == errno.ENOTCONN
assert libc.open(b"/proc/self/stat", 0) == -1
assert ctypes.get_errno() == errno.ENOENT
assert libc.open(b"/etc/passwd", 0) > 0
made = libc.open(b"made", os.O_CREAT | os.O_WRONLY, 0o640)
assert os.fstat(made).st_mode & 0o777 == 0o640
"""


def test_what_the_session_lines_sshd_is_answered(tmp_path: Path) -> None:
    library = tmp_path / "sshd.so"
    library.write_bytes(image._compiled(RECIPE / "sshd.so.c", "x86_64"))
    subprocess.run(
        [sys.executable, "-c", PRELOADED],
        env={"LD_PRELOAD": str(library)},
        cwd=tmp_path,
        check=True,
        umask=0,
    )


def test_every_byte_and_mode_of_the_recipe_counts(tmp_path: Path) -> None:
    copy = tmp_path / "debian"
    shutil.copytree(RECIPE, copy)
    first = image._key(copy, "x86_64")
    assert first == image._key(RECIPE, "x86_64")
    file = copy / "overlay/etc/hostname"
    file.chmod(0o755)
    second = image._key(copy, "x86_64")
    file.write_text(file.read_text() + "\n")
    assert len({first, second, image._key(copy, "x86_64"), image._key(RECIPE, "arm64")}) == 4


def test_what_a_killed_rig_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    left, young = tmp_path / "rig-image-left", tmp_path / "rig-image-young"
    for place in (left, young):
        (place / "usr").mkdir(parents=True)
    os.utime(left, (1, 1))
    with image._scratch("root") as first:
        os.utime(first, (1, 1))
        with image._scratch("root") as second:
            assert {first, second, young} == set(tmp_path.iterdir())
    assert set(tmp_path.iterdir()) == {young}


def debugfs(disk: Path, command: str) -> str:
    tool = shutil.which("debugfs", path="/usr/sbin:/sbin:/usr/bin")
    assert tool
    return process.run([tool, "-R", command, disk], timeout_s=60).output


@pytest.mark.kernel
def test_owners_and_modes_come_out_right(built_image: Image) -> None:
    su = debugfs(built_image.disk, "stat /usr/bin/su")
    assert "Mode:  04755" in su
    assert "User:     0   Group:     0" in su
    mail = debugfs(built_image.disk, "stat /var/mail")
    assert "Mode:  02775" in mail
    assert "User:     0   Group:     8" in mail
    assert "Mode:  01777" in debugfs(built_image.disk, "stat /tmp")
    assert debugfs(built_image.disk, "ls -p /proc").count("\n") <= 4


@pytest.mark.kernel
def test_file_system_is_sound(built_image: Image) -> None:
    tool = shutil.which("e2fsck", path="/usr/sbin:/sbin:/usr/bin")
    assert tool
    process.run([tool, "-fn", built_image.disk], timeout_s=120)


@pytest.mark.kernel
def test_image_is_kept(built_image: Image, user_store: Store) -> None:
    again = image.build(RECIPE, user_store)
    assert again == built_image
    assert built_image.client_key.stat().st_mode & 0o077 == 0
    assert not built_image.disk.stat().st_mode & 0o222
    assert built_image.host_key.startswith("ssh-ed25519 ")
