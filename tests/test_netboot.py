"""What a board boots from the network, and what GRUB boots once: fetched for real, on loopback."""

from __future__ import annotations

import contextlib
import errno
import http.client
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.config import NetworkConfig
from rig.errors import InfrastructureError, UsageError
from rig.machine import deploy, netboot

NAME = "/board1.ipxe"
NOTHING = "#!ipxe\nexit\n"


@pytest.fixture
def server() -> Iterator[netboot.Server]:
    with contextlib.closing(netboot.Server("127.0.0.1", 0)) as one:
        yield one


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {"/kernel": tmp_path / "bzImage", "/initrd": tmp_path / "initrd.gz"}
    found["/kernel"].write_bytes(b"k" * 3_000_000)
    found["/initrd"].write_bytes(b"i" * 5_000_001)
    return found


def got(server: netboot.Server, path: str) -> tuple[int, bytes]:
    """Status and body."""
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    with contextlib.closing(line):
        line.request("GET", path)
        answer = line.getresponse()
        return answer.status, answer.read()


def test_a_script_asks_for_both_and_says_when_it_is_done() -> None:
    text = netboot.script("board1", "http://192.0.2.1:8037", "console=ttyS0 a=b", "Go")
    lines = text.splitlines()
    assert lines[0] == "#!ipxe"
    assert (
        "kernel http://192.0.2.1:8037/kernel initrd=initrd console=ttyS0 a=b || goto disk" in lines
    )
    at = [next(n for n, line in enumerate(lines) if line.startswith(word))
          for word in ("kernel ", "initrd ", "echo Go", "boot ", ":disk", "exit")]  # fmt: skip
    assert at == sorted(at)


@pytest.mark.parametrize("words", ["a=${net0/ip}", "a || b", "a && b", "a ; b", "a #b"])
def test_words_that_ipxe_would_take_for_its_own(words: str) -> None:
    with pytest.raises(UsageError, match="iPXE cannot hand"):
        netboot.script("board1", "http://192.0.2.1", words, "Go")


def test_nothing_is_there_until_it_is_offered(
    server: netboot.Server, files: dict[str, Path]
) -> None:
    assert got(server, NAME) == (200, NOTHING.encode())
    assert got(server, "/kernel")[0] == 404
    server.offer.make(NAME, "#!ipxe\nboot\n", files)
    assert got(server, NAME) == (200, b"#!ipxe\nboot\n")
    assert got(server, "/another.ipxe") == (200, NOTHING.encode())  # that of another board
    for path in ("/../etc/passwd", "//etc/passwd", "/initrd/../kernel", "/"):
        assert got(server, path)[0] in (400, 404)


def test_it_is_there_until_all_of_it_was_fetched_and_once(
    server: netboot.Server, files: dict[str, Path]
) -> None:
    server.offer.make(NAME, "#!ipxe\nboot\n", files)
    assert got(server, "/kernel") == (200, files["/kernel"].read_bytes())
    assert not server.offer.taken
    assert got(server, NAME)[1] == b"#!ipxe\nboot\n"  # again, by firmware that gave up half-way
    assert got(server, "/kernel")[0] == 200
    before = time.monotonic()
    assert got(server, "/initrd") == (200, files["/initrd"].read_bytes())
    deadline = time.monotonic() + 10
    while not server.offer.taken and time.monotonic() < deadline:
        time.sleep(0.01)  # it is said behind the last byte
    assert server.offer.taken >= before
    assert got(server, NAME) == (200, NOTHING.encode())
    assert got(server, "/kernel")[0] == 404
    server.offer.make(NAME, "#!ipxe\nboot\n", files)
    assert (server.offer.taken, got(server, NAME)[1]) == (0.0, b"#!ipxe\nboot\n")
    server.offer.withdraw()
    assert got(server, NAME)[1] == NOTHING.encode()


def test_a_board_that_is_switched_off_in_the_middle_has_not_taken_it(
    server: netboot.Server, files: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    server.offer.make(NAME, "#!ipxe\nboot\n", {"/initrd": files["/initrd"]})
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.sendall(b"GET /initrd HTTP/1.0\r\n\r\n")
        assert re.match(rb"HTTP/1\.[01] 200 ", line.recv(100))
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.3)
    assert not server.offer.taken
    assert got(server, NAME)[1] == b"#!ipxe\nboot\n"
    server.check()
    assert capfd.readouterr().err == ""  # it is no news


def test_how_much_it_is_is_told_before_it_is_fetched(
    server: netboot.Server, files: dict[str, Path]
) -> None:
    """UEFI asks that first; it has taken nothing by it."""
    server.offer.make(NAME, "#!ipxe\nboot\n", files)
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    with contextlib.closing(line):
        for path, size in (("/kernel", 3_000_000), ("/initrd", 5_000_001), (NAME, 12)):
            line.request("HEAD", path)
            answer = line.getresponse()
            assert (answer.status, answer.length, answer.read()) == (200, 0, b"")
            assert answer.headers["Content-Length"] == str(size)
        line.request("POST", "/kernel", b"x")
        assert line.getresponse().status == 405
    assert not server.offer.taken


@pytest.mark.parametrize("what", ["gone", "unreadable", "of ours"])
def test_what_cannot_be_read_here_is_no_boards_fault(
    server: netboot.Server,
    files: dict[str, Path],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    server.offer.make(NAME, "#!ipxe\nboot\n", files)
    files["/kernel"].unlink()
    if what == "unreadable":  # it has a size
        files["/kernel"].mkdir()
    if what == "of ours":
        monkeypatch.setattr(server.offer, "file", {}.__getitem__)
    with contextlib.suppress(http.client.HTTPException, OSError):
        assert got(server, "/kernel")[0] == 500
    with pytest.raises(InfrastructureError, match="could not be served what it is to boot"):
        server.check()
    assert capfd.readouterr().err == ""


@pytest.fixture
def tftp(tmp_path: Path) -> Iterator[netboot.Server]:
    loader = tmp_path / "undionly.kpxe"
    loader.write_bytes(b"l" * (5 * 512))  # its last block is an empty one
    with contextlib.closing(netboot.Server("127.0.0.1", 0, tftp=0, loaders=[loader])) as one:
        yield one


def asked(server: netboot.Server, name: str) -> bytes | None:
    """What a client of another make gets by TFTP; None where there is nothing."""
    url = f"tftp://127.0.0.1:{server.tftp_port}/{name}"
    done = subprocess.run(["curl", "-s", "-m", "30", url], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def test_ipxe_and_its_script_are_there_by_tftp(
    tftp: netboot.Server,
    files: dict[str, Path],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    loader, script = b"l" * (5 * 512), b"#!ipxe\nboot\n"
    tftp.offer.make(NAME, script.decode(), files)
    assert asked(tftp, "board1.ipxe") == script
    assert asked(tftp, "another.ipxe") == NOTHING.encode()
    assert asked(tftp, "autoexec.ipxe") == script
    for name in ("kernel", "../etc/passwd", "/etc/passwd", "undionly.kpxe/"):
        assert asked(tftp, name) is None
    # DHCP tells iPXE the name that it told the firmware, and iPXE is given what it can use.
    assert asked(tftp, "undionly.kpxe") == loader
    assert asked(tftp, "undionly.kpxe") == script
    assert asked(tftp, "undionly.kpxe") == loader
    tftp.offer.withdraw()
    assert asked(tftp, "undionly.kpxe") == loader
    assert asked(tftp, "undionly.kpxe") == NOTHING.encode()
    assert asked(tftp, "autoexec.ipxe") == NOTHING.encode()
    tftp.check()
    assert capfd.readouterr().err == ""
    assert caplog.records == []  # which a rig shows


def test_firmware_that_only_asks_how_much_it_is_gets_it_the_next_time(
    tftp: netboot.Server, files: dict[str, Path]
) -> None:
    """As the ROMs of cards do: they ask for its size, and end that with an error."""
    tftp.offer.make(NAME, "#!ipxe\nboot\n", files)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.settimeout(20)
        line.sendto(b"\0\1undionly.kpxe\0octet\0tsize\0" + b"0\0", ("127.0.0.1", tftp.tftp_port))
        answer, where = line.recvfrom(2048)
        assert answer == b"\0\6tsize\0" + b"2560\0"
        line.sendto(b"\0\5\0\0TFTP Aborted\0", where)
    time.sleep(0.3)
    assert asked(tftp, "undionly.kpxe") == b"l" * (5 * 512)


def test_nobody_puts_anything_where_boards_boot_from(tftp: netboot.Server, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"#!ipxe\nshell\n")
    tftp.offer.make(NAME, "#!ipxe\nboot\n", {})
    for name in ("board1.ipxe", "undionly.kpxe", "autoexec.ipxe"):
        url = f"tftp://127.0.0.1:{tftp.tftp_port}/{name}"
        put = ["curl", "-s", "-m", "10", "-T", str(theirs), url]
        assert subprocess.run(put, capture_output=True, check=False).returncode
    assert asked(tftp, "board1.ipxe") == b"#!ipxe\nboot\n"
    assert asked(tftp, "undionly.kpxe") == b"l" * (5 * 512)


def test_firmware_that_begins_anew_is_given_ipxe_again(
    tftp: netboot.Server, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power cycle: a script is nothing that it could begin."""
    loader = b"l" * (5 * 512)
    tftp.offer.make(NAME, "#!ipxe\nboot\n", files)
    assert asked(tftp, "undionly.kpxe") == loader
    tftp.offer.withdraw()
    assert asked(tftp, "undionly.kpxe") == loader
    monkeypatch.setattr(netboot, "_SOON_S", 0.5)
    time.sleep(0.6)
    assert asked(tftp, "undionly.kpxe") == loader


@pytest.mark.parametrize(
    "packet",
    [
        b"\0\1board\xff1.ipxe\0octet\0", b"\0\4\0", b"\0\1a\0octet\0blksize",
        b"\0\1board1.ipxe\0octet\0blksize\0abc\0", b"", b"\xff" * 600,
    ],
)  # fmt: skip
def test_what_strangers_send_ends_nothing(tftp: netboot.Server, packet: bytes) -> None:
    port = tftp.tftp_port
    under_way = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    under_way.settimeout(20)
    under_way.sendto(b"\0\1undionly.kpxe\0octet\0", ("127.0.0.1", port))
    first, where = under_way.recvfrom(2048)
    assert first == b"\0\3\0\1" + b"l" * 512
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.sendto(packet, ("127.0.0.1", port))
    time.sleep(0.2)
    under_way.sendto(b"\0\4\0\1", where)
    assert under_way.recvfrom(2048)[0] == b"\0\3\0\2" + b"l" * 512
    under_way.close()
    assert asked(tftp, "board1.ipxe") == NOTHING.encode()
    assert tftp.tftp_port == port
    with socket.create_connection(("127.0.0.1", tftp.port), timeout=20) as line:
        line.sendall(b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n")
        line.recv(100)
    assert got(tftp, NAME) == (200, NOTHING.encode())
    tftp.check()


def test_what_goes_wrong_here_is_no_strangers_packet(
    tftp: netboot.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tftp.offer, "text", {}.__getitem__)
    assert asked(tftp, "board1.ipxe") is None
    with pytest.raises(InfrastructureError, match="TFTP: KeyError"):
        tftp.check()


@pytest.mark.parametrize("what", ["full", "stopped", "broken"])
def test_a_server_that_serves_no_more_is_told(
    server: netboot.Server, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    rounds: list[int] = []

    def run(_interval: float) -> None:
        rounds.append(1)
        raise OSError(errno.EMFILE, "Too many open files")

    http = server._http._server
    if what == "full":
        monkeypatch.setattr(http._connections, "run", run)
        http._connections.stop()  # the round that is under way
    elif what == "stopped":
        http.stop()
    else:
        http.interrupt = ValueError("it is broken")
    server._http._thread.join(3.0)
    words = {"full": "Too many open files", "stopped": "ended by itself", "broken": "it is broken"}
    with pytest.raises(InfrastructureError, match=words[what]):
        server.check()
    assert len(rounds) < 50
    assert len(server._http.trouble) == 1


def test_a_loader_that_has_gone_is_told_and_its_place_is_free_again(
    tftp: netboot.Server, tmp_path: Path
) -> None:
    (tmp_path / "undionly.kpxe").unlink()
    assert asked(tftp, "undionly.kpxe") is None
    with pytest.raises(InfrastructureError, match="could not be served what it is to boot"):
        tftp.check()
    port = tftp.tftp_port
    tftp.close()
    with contextlib.closing(netboot.Server("127.0.0.1", 0, tftp=port)) as again:
        assert asked(again, "board1.ipxe") == NOTHING.encode()


def test_what_nobody_has_thought_of_ends_no_server(tftp: netboot.Server) -> None:
    assert tftp._tftp is not None
    port = tftp.tftp_port
    tftp._tftp._server.sock.close()
    time.sleep(2.5)
    assert tftp.tftp_port == port
    assert asked(tftp, "board1.ipxe") == NOTHING.encode()
    tftp.check()


def test_nobody_waits_for_a_board_that_stands_still(files: dict[str, Path]) -> None:
    server = netboot.Server("127.0.0.1", 0)
    with contextlib.closing(server):
        server.offer.make(NAME, "#!ipxe\nboot\n", {"/initrd": files["/initrd"]})
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", server.port))
        line.sendall(b"GET /initrd HTTP/1.0\r\n\r\n")
        line.recv(100)
        time.sleep(0.3)
        began = time.monotonic()
    line.close()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["nowhere/undionly.kpxe"], "there is no iPXE at"),
        (["~nobody-at-all/x"], "there is no iPXE at"),
        (["a/ipxe.efi", "b/ipxe.efi"], "two loaders have one name"),
    ],
)
def test_loaders_that_are_none(tmp_path: Path, names: list[str], words: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ipxe.efi").write_bytes(b"x")
    network = NetworkConfig("127.0.0.1", tftp=69, loaders=tuple(names))
    with pytest.raises(UsageError, match=words):
        deploy.loaders(network, tmp_path)
    good = NetworkConfig("127.0.0.1", tftp=69, loaders=("a/ipxe.efi",))
    assert deploy.loaders(good, tmp_path) == [tmp_path / "a/ipxe.efi"]


def test_a_place_for_tftp_that_somebody_else_has(tftp: netboot.Server) -> None:
    before = threading.active_count()
    with pytest.raises(InfrastructureError, match=rf"at 127\.0\.0\.1:{tftp.tftp_port}: "):
        netboot.Server("127.0.0.1", 0, tftp=tftp.tftp_port)
    assert threading.active_count() <= before


def test_a_library_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cheroot.wsgi", None)
    with pytest.raises(InfrastructureError, match="takes cheroot") as caught:
        netboot.Server("127.0.0.1", 0)
    assert "pip install" in str(caught.value.hint)


def test_a_place_that_somebody_else_has(server: netboot.Server) -> None:
    with pytest.raises(InfrastructureError, match=rf"at 127\.0\.0\.1:{server.port}: "):
        netboot.Server("127.0.0.1", server.port)


def test_what_grub_reads() -> None:
    names = {"kernel": "/rig/kernel-1", "initrd": "/rig/initrd-1"}
    text = deploy.grub_file(names, "console=ttyS0,115200 a=$b")
    assert [line.strip() for line in text.splitlines()] == [
        "if linux /rig/kernel-1 console=ttyS0,115200 'a=$b'; then",
        "if initrd /rig/initrd-1; then",
        'echo "Starting new kernel"',
        "boot",
        "fi",
        "fi",
        "reboot",
    ]


@pytest.mark.parametrize("words", ['a="b c"', "a='b'", "a=\\b"])
def test_words_that_grub_would_change(words: str) -> None:
    with pytest.raises(UsageError, match="GRUB does not hand"):
        deploy.Grub.check_words(None, words)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("", None),
        ("reboot: Restarting system\nGNU GRUB\n", None),
        ("x\nStarting new kernel\nLinux version 6", 2),
        ("x\n[    0.000000] Linux version 6", 17),
    ],
)
def test_where_the_kernels_own_words_begin(said: str, at: int | None) -> None:
    assert deploy.first_word(said) == at
    assert at is None or re.match("Starting|Linux", said[at:])
