"""What a board boots from the network, and what GRUB boots once: fetched for real, on loopback."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    server.offer(NAME, "#!ipxe\nboot\n", files)
    assert got(server, NAME) == (200, b"#!ipxe\nboot\n")
    assert got(server, "/another.ipxe") == (200, NOTHING.encode())  # that of another board
    for path in ("/../etc/passwd", "//etc/passwd", "/initrd/../kernel", "/"):
        assert got(server, path)[0] == 404


def test_it_is_there_until_all_of_it_was_fetched_and_once(
    server: netboot.Server, files: dict[str, Path]
) -> None:
    server.offer(NAME, "#!ipxe\nboot\n", files)
    assert got(server, "/kernel") == (200, files["/kernel"].read_bytes())
    assert not server.taken
    assert got(server, NAME)[1] == b"#!ipxe\nboot\n"  # again, by firmware that gave up half-way
    assert got(server, "/kernel")[0] == 200
    before = time.monotonic()
    assert got(server, "/initrd") == (200, files["/initrd"].read_bytes())
    deadline = time.monotonic() + 10
    while not server.taken and time.monotonic() < deadline:
        time.sleep(0.01)  # it is said behind the last byte
    assert server.taken >= before
    assert got(server, NAME) == (200, NOTHING.encode())
    assert got(server, "/kernel")[0] == 404
    server.offer(NAME, "#!ipxe\nboot\n", files)
    assert (server.taken, got(server, NAME)[1]) == (0.0, b"#!ipxe\nboot\n")
    server.withdraw()
    assert got(server, NAME)[1] == NOTHING.encode()


def test_a_board_that_is_switched_off_in_the_middle_has_not_taken_it(
    server: netboot.Server, files: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    server.offer(NAME, "#!ipxe\nboot\n", {"/initrd": files["/initrd"]})
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.sendall(b"GET /initrd HTTP/1.0\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.0 200")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.3)
    assert not server.taken
    assert got(server, NAME)[1] == b"#!ipxe\nboot\n"
    assert capfd.readouterr().err == ""  # it is no news


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
