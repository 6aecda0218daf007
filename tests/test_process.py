"""Host commands: deadlines, output, and nothing that outlives the rig."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import is_gone

from rig import process
from rig.errors import InfrastructureError


def test_output_of_both_streams_and_the_log(tmp_path: Path) -> None:
    lines: list[str] = []
    log = tmp_path / "log"
    argv = ["sh", "-c", "echo one; echo two >&2; printf three"]
    done = process.run(argv, timeout_s=10, log=log, on_line=lines.append)
    assert done.output == "one\ntwo\nthree" == log.read_text()
    assert lines == ["one", "two", "three"]


def test_streams_apart() -> None:
    done = process.run(["sh", "-c", "echo one; echo two >&2"], timeout_s=10, separate=True)
    assert (done.output, done.errors) == ("one\n", "two\n")


def test_a_failure_carries_output_and_command() -> None:
    with pytest.raises(InfrastructureError) as caught:
        process.run(["sh", "-c", "echo broken; exit 3"], timeout_s=10)
    assert "exit code 3" in caught.value.message
    assert caught.value.output == "broken\n"
    assert caught.value.reproduce == "sh -c 'echo broken; exit 3'"


def test_a_missing_program_is_named() -> None:
    with pytest.raises(InfrastructureError, match="cannot run no-such-program"):
        process.run(["no-such-program"], timeout_s=10)


def test_the_deadline_ends_the_command_and_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 100 & echo $! $$ > {pids}; wait"
    with pytest.raises(InfrastructureError, match="did not end within 1 s"):
        process.run(["sh", "-c", script], timeout_s=1)
    assert all(is_gone(int(pid)) for pid in pids.read_text().split())


def test_what_a_command_left_in_the_background_is_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    process.run(["sh", "-c", f"sleep 100 >/dev/null 2>&1 & echo $! > {pid}"], timeout_s=10)
    assert is_gone(int(pid.read_text()))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_children_die_with_the_rig(tmp_path: Path, number: signal.Signals) -> None:
    """Even grandchildren, even when the rig is killed with a signal it cannot see."""
    pids = tmp_path / "pids"
    inner = f"sleep 100 & echo $! $$ > {pids}.new; mv {pids}.new {pids}; wait"
    code = f"from rig import process; process.run(['sh', '-c', {inner!r}], timeout_s=90)"
    rig = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 20
    while not pids.exists() and time.monotonic() < deadline:
        os.sched_yield()
    rig.send_signal(number)
    rig.wait(10)
    assert all(is_gone(int(pid)) for pid in pids.read_text().split())
