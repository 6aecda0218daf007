"""What a watching person sees: a bar on a terminal, lines elsewhere, errors in full."""

from __future__ import annotations

import os
import pty
import select
import sys
import time

import pytest

from rig import process, terminal
from rig.errors import BuildError

DRAW = """
from rig.terminal import TerminalProgress
with TerminalProgress() as progress:
    progress.stage("compiling [x]", 4)
    for n in range(1, 6):
        progress.step(f"fs/file{n}.o", n)
    progress.note("a [note]")
    progress.stage("done")
"""


def on_a_terminal(code: str) -> str:
    """What the code writes to a pseudo terminal."""
    leader, follower = pty.openpty()
    argv = ["env", "TERM=xterm", "COLUMNS=100", sys.executable, "-c", code]
    child = process.spawn(argv, stderr=follower, stdout=follower)
    os.close(follower)
    seen, deadline = b"", time.monotonic() + 30
    while time.monotonic() < deadline:
        if not select.select([leader], [], [], 30)[0]:
            break
        try:
            chunk = os.read(leader, 4096)
        except OSError:  # EIO: the other side is closed
            break
        if not chunk:
            break
        seen += chunk
    os.close(leader)
    assert process.end(child) == 0
    return seen.decode()


def test_a_bar_on_a_terminal() -> None:
    seen = on_a_terminal(DRAW)
    assert "compiling [x]" in seen
    assert "5/5" in seen
    assert "a [note]" in seen
    assert seen.endswith(("\x1b[?25h", "\n", "\r\x1b[2K", "\x1b[2K"))


def test_lines_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with terminal.TerminalProgress() as progress:
        progress.stage("compiling", 2)
        progress.step("one.o", 1)
        progress.note("a [note]")
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "compiling ...\na [note]\n"


def test_quiet_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with terminal.TerminalProgress(quiet=True) as progress:
        progress.stage("compiling")
        progress.note("note")
    assert capfd.readouterr() == ("", "")


def test_an_error_in_full(capfd: pytest.CaptureFixture[str]) -> None:
    error = BuildError("a[b].c:1: broken", hint="look", output="out [1]\n", reproduce="make [x]")
    terminal.show_error(error)
    assert capfd.readouterr().err == (
        "out [1]\nrig: a[b].c:1: broken\n  hint: look\n  reproduce: make [x]\n"
    )


def test_a_guests_words_command_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;pwn\x07x"
    terminal.show_error(BuildError(evil, hint=evil, output=f"{evil}\nnext\n", reproduce=evil))
    with terminal.TerminalProgress() as progress:
        progress.note(evil)
    shown = capfd.readouterr().err
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "x\nnext\n" in shown
