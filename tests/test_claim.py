"""One run at a time for a board, on this host and between hosts."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ssh_host

from rig import process
from rig.config import BoardConfig, PowerConfig
from rig.errors import InfrastructureError
from rig.machine import claim
from rig.machine.claim import BusyError, Holder

ROOT = Path(__file__).parents[1]
POWER = PowerConfig("command", on="true", off="true", status="true")
HELD = """
import sys
sys.path.insert(0, {root!r})
from rig.config import BoardConfig, PowerConfig
from rig.machine import claim
power = PowerConfig("command", on="true", off="true", status="true")
held = claim.take(BoardConfig("board1", power, lock={lock!r}), claim.ourselves("rig boot long"))
print("held", flush=True)
sys.stdin.read()
held.over()
"""


def board(lock: str) -> BoardConfig:
    return BoardConfig("board1", POWER, lock=lock)


@contextlib.contextmanager
def somebody(lock: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds it."""
    words = [sys.executable, "-c", HELD.format(root=str(ROOT), lock=lock)]
    started = process.spawn(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == b"held\n"
        yield started
    finally:
        process.end(started)


def ours(what: str = "rig boot") -> Holder:
    return claim.ourselves(what)


@pytest.fixture(params=["local", "remote"])
def lock(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place for it: of this host, and of one that is reached by ssh."""
    directory = tmp_path / "locks"
    if request.param == "local":
        yield str(directory)
        return
    with ssh_host.serving(tmp_path) as (host, path), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", path)
        yield f"{host}:{directory}"


def test_what_a_person_does_to_a_board_somebody_has(tmp_path: Path) -> None:
    lock = str(tmp_path)
    with somebody(lock):
        with (
            pytest.raises(
                InfrastructureError, match=r"board1 is held by .*: rig boot long"
            ) as held,
            claim.by_hand(board(lock), "rig power", anyway=False),
        ):
            raise AssertionError
        assert "--anyway" in held.value.hint
        with claim.by_hand(board(lock), "rig power", anyway=True):
            pass
    with claim.by_hand(board(lock), "rig power", anyway=False), pytest.raises(BusyError):
        claim.take(board(lock), ours())
    # What somebody else has left is told to the next run all the same.
    left = claim.take(board(lock), ours("rig boot one"))
    left.tidy = False
    left.over()
    with claim.by_hand(board(lock), "rig power board1 cycle", anyway=False):
        pass
    last = claim.take(board(lock), ours()).left
    assert last is not None
    assert re.fullmatch(
        r"rig power board1 cycle, after .*: rig boot one\) had left it", last.what
    ), last


def test_one_at_a_time(lock: str) -> None:
    first = claim.take(board(lock), ours("rig boot one"))
    assert first.left is None
    with pytest.raises(BusyError) as busy:
        claim.take(board(lock), ours("rig boot two"))
    assert busy.value.holder is not None
    assert busy.value.holder.what == "rig boot one"
    first.over()
    first.over()
    second = claim.take(board(lock), ours("rig boot three"))
    assert second.left is None  # it came to its end, and left nothing
    second.over()


def test_who_leaves_a_board_as_it_is_leaves_word(lock: str) -> None:
    first = claim.take(board(lock), ours("rig boot one"))
    assert first.held()
    first.tidy = False
    first.over()
    second = claim.take(board(lock), ours("rig boot two"))
    assert second.left is not None
    assert second.left.what == "rig boot one"
    second.over()
    assert not second.held()


def test_another_board_is_free(lock: str) -> None:
    first = claim.take(board(lock), ours())
    other = claim.take(BoardConfig("board2", POWER, lock=lock), ours())
    other.over()
    first.over()


def test_who_is_killed_leaves_word_and_no_lock(lock: str) -> None:
    with somebody(lock) as other:
        with pytest.raises(BusyError, match=f"process {other.pid}, .*: rig boot long"):
            claim.take(board(lock), ours())
        other.send_signal(signal.SIGKILL)
        other.wait(10)
        held = awaited(lock)
        assert held.left is not None
        assert (held.left.pid, held.left.what) == (other.pid, "rig boot long")
        held.over()


def awaited(lock: str) -> claim.Hold:
    """A connection that is gone is noticed in its own time."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return claim.take(board(lock), ours())
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_who_waits_is_told_for_whom(lock: str) -> None:
    said: list[str] = []
    told = threading.Event()

    def tell(words: str) -> None:
        said.append(words)
        told.set()

    with somebody(lock) as other:
        entered = threading.Event()

        def wait() -> None:
            with claim.claimed(board(lock), "rig boot", tell) as hold:
                assert hold.left is None
                entered.set()

        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        assert told.wait(30)
        assert not entered.is_set()
        assert other.stdin is not None
        other.stdin.close()
        assert entered.wait(30)
        waiter.join(30)
    assert len(said) == 1
    assert said[0].startswith("waiting for board1, which is held by ")
    assert f"process {other.pid}" in said[0]


def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(InfrastructureError, match=r"cannot be had: .*: File exists"):
        claim.take(board(str(tmp_path / "file")), ours())


def test_a_host_that_lets_nobody_in(tmp_path: Path) -> None:
    where = f"nobody@127.0.0.1:{tmp_path}"
    with pytest.raises(InfrastructureError, match=r"cannot be had: nobody@127\.0\.0\.1:") as error:
        claim.take(board(where), ours())
    assert "`ssh nobody@127.0.0.1` has to work" in error.value.hint


@pytest.mark.parametrize(("fails", "said"), [("", "free"), ("71", "free"), ("always", "")])
def test_a_file_system_that_locks_what_is_open_for_writing_alone(
    tmp_path: Path, fails: str, said: str
) -> None:
    """As NFS: flock says that the descriptor is bad, and nobody has the lock for that."""
    tools = tmp_path / "bin"
    tools.mkdir()
    real = shutil.which("flock")
    written = f"grep -q '^flags:.*[12]$' /proc/$$/fdinfo/9 && exec {real} \"$@\""
    body = {"": f'exec {real} "$@"', "71": f"{written}; exit 71", "always": "exit 71"}[fails]
    (tools / "flock").write_text(f"#!/bin/sh\n{body}\n")
    (tools / "flock").chmod(0o755)
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    argv = ["sh", "-c", claim._REMOTE, "rig", str(tmp_path / "locks"), "board1"]
    done = subprocess.run(
        argv, env=env, input="us\nover\n", capture_output=True, text=True, check=False, timeout=20
    )
    assert done.stdout.split()[:1] == ([said] if said else [])
    assert ("held" in done.stdout) is bool(said)
    assert done.returncode == (0 if said else 1)
