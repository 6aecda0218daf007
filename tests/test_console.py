"""The serial stream: nothing lost, nobody waited for, every wait with an end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rig.console import Console
from rig.errors import InfrastructureError

WARNING = (
    b"[    1.000000][    T1] ------------[ cut here ]------------\r\n"
    b"[    1.000100][    T1] WARNING: CPU: 0 PID: 1 at fs/pipe.c:10 pipe_read+0x10/0x20\r\n"
    b"[    1.000200][    T1] Modules linked in:\r\n"
    b"[    1.000300][    T1] CPU: 0 UID: 0 PID: 1 Comm: t Not tainted 6.12.117 #1\r\n"
    b"[    1.000400][    T1] RIP: 0010:pipe_read+0x10/0x20\r\n"
    b"[    1.000500][    T1] Call Trace:\r\n"
    b"[    1.000600][    T1]  <TASK>\r\n"
    b"[    1.000700][    T1]  vfs_read+0x10/0x20\r\n"
    b"[    1.000800][    T1]  </TASK>\r\n"
    b"[    1.000900][    T1] ---[ end trace 0000000000000000 ]---\r\n"
)


@dataclass
class Line:
    """Both ends of a serial line."""

    console: Console
    machine: socket.socket


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    near, far = socket.socketpair()
    console = Console(near, tmp_path / "deep" / "console-0.log")
    with far:
        yield Line(console, far)
        console.close()


def test_recorded_byte_for_byte(line: Line) -> None:
    sent = bytes(range(256)) * 3 + b"\r\nno end of line"
    line.machine.sendall(sent)
    line.machine.close()
    assert line.console.wait_closed(5)
    assert line.console.path.read_bytes() == sent


def test_drained_though_nobody_expects(line: Line) -> None:
    line.machine.settimeout(20)
    for _ in range(64):
        line.machine.sendall(b"x" * 65535 + b"\n")
    line.machine.close()
    assert line.console.wait_closed(20)
    assert line.console.size() == 64 << 16


def test_mark_cut_in_two_and_older_than_the_question(line: Line) -> None:
    line.machine.sendall(b"....mark-")
    threading.Timer(0.1, line.machine.sendall, [b"17....\n"]).start()
    line.console.mark("mark-17", 5)
    line.machine.sendall(b"y" * 100_000)
    line.console.mark("mark-17", 5)


def test_mark_that_never_comes(line: Line) -> None:
    line.machine.sendall(b"mark-1")
    with pytest.raises(TimeoutError, match="mark-17"):
        line.console.mark("mark-17", 0.1)


def test_mark_of_a_machine_that_dies_ends_at_once(line: Line) -> None:
    threading.Timer(0.1, line.machine.close).start()
    started = time.monotonic()
    with pytest.raises(EOFError, match="mark-17"):
        line.console.mark("mark-17", 30)
    assert time.monotonic() - started < 5


def test_mark_that_came_before_the_end(line: Line) -> None:
    line.machine.sendall(b"mark-17\n")
    line.machine.close()
    line.console.mark("mark-17", 5)


def test_expect_goes_on_after_the_last_match(line: Line) -> None:
    line.machine.sendall(b"one 1\r\ntwo 2\r\none 3\r\n")
    assert line.console.expect(r"one \d", 5) == "one 1"
    assert line.console.expect([r"never", r"one \d"], 5) == "one 3"
    with pytest.raises(TimeoutError):
        line.console.expect(r"one \d", 0.1)


def test_expect_finds_what_is_far_back_in_a_flood(line: Line) -> None:
    line.machine.settimeout(20)
    line.machine.sendall(b"needle\n" + b"hay\n" * 100_000)
    assert line.console.expect("needle", 5) == "needle"


def test_expect_ends_with_the_machine(line: Line) -> None:
    line.machine.sendall(b"Linux")
    threading.Timer(0.1, line.machine.close).start()
    with pytest.raises(EOFError):
        line.console.expect("login:", 30)
    assert line.console.closed


def test_splat_is_seen_while_the_machine_lives(line: Line) -> None:
    line.machine.sendall(WARNING[:300])
    assert line.console.splats() == []
    line.machine.sendall(WARNING[300:] + b"[    2.000000][    T1] next\r\n")
    line.console.mark("next", 5)
    assert [splat.title for splat in line.console.splats()] == ["WARNING in pipe_read"]
    assert len(line.console.splats()) == 1


def test_who_looks_for_the_last_time_sees_what_has_not_ended(line: Line) -> None:
    line.machine.sendall(WARNING[:400])
    assert line.console.wait_news(399, 5)
    assert line.console.splats() == []
    assert [splat.type for splat in line.console.splats(unfinished=True)] == ["warning"]
    assert line.console.splats() == []


def test_splat_cut_by_the_end_is_seen(line: Line) -> None:
    line.machine.sendall(WARNING[:400])
    line.machine.close()
    assert line.console.wait_closed(5)
    assert [splat.type for splat in line.console.splats()] == ["warning"]


@pytest.mark.parametrize("end", ["", "---[ end Kernel panic - not syncing: why ]---\n"])
@pytest.mark.parametrize("behind", [1, 120, 3000])
def test_an_ending_has_a_panics_own_words(line: Line, behind: int, end: str) -> None:
    """What all CPUs did comes behind them."""
    said = "first\n[    1.0] Kernel panic - not syncing: why\n"
    said += "".join(f"[    1.1]  f{at}+0x1/0x2\n" for at in range(behind)) + end
    line.machine.sendall(said.encode())
    line.machine.close()
    assert line.console.wait_closed(5)
    shown = line.console.ending(2000)
    assert shown.count("[    1.0] Kernel panic - not syncing: why\n") == 1
    assert shown.endswith(said[-100:])
    assert len(shown) < 4100
    assert ("characters]" in shown) is (behind == 3000)
    if behind == 1:
        assert shown == said


def test_tail_is_whole_lines(line: Line) -> None:
    line.machine.sendall(b"first line\r\nsecond line\r\nthird\r\n")
    line.console.mark("third", 5)
    assert line.console.tail(15) == "third\n"
    assert line.console.tail() == "first line\nsecond line\nthird\n"
    assert line.console.since(12) == "second line\r\nthird\r\n"


def test_what_we_type_arrives(line: Line) -> None:
    line.console.send(b"w")
    assert line.machine.recv(10) == b"w"


def test_close_twice(line: Line) -> None:
    line.console.close()
    line.console.close()
    assert line.console.closed


# -- a host whose disk is full ---------------------------------------------------------------------


@pytest.fixture
def full() -> Iterator[Line]:
    near, far = socket.socketpair()
    console = Console(near, Path("/dev/full"))
    with far:
        yield Line(console, far)
        console.close()


def test_a_full_disk_never_stops_the_machine(full: Line) -> None:
    full.machine.settimeout(20)
    for _ in range(64):
        full.machine.sendall(b"x" * 65536)
    full.machine.close()
    assert full.console.wait_closed(20)
    assert full.console.size() == 64 << 16


def test_a_full_disk_is_our_side_whatever_is_asked(full: Line) -> None:
    full.machine.sendall(b"mark-17 needle\n")
    assert full.console.wait_news(0, 5)
    for ask in (
        lambda: full.console.expect("needle", 5),
        lambda: full.console.mark("mark-17", 5),
        lambda: full.console.since(0),
        full.console.text,
        full.console.tail,
    ):
        with pytest.raises(InfrastructureError, match="/dev/full: No space left on device"):
            ask()


@pytest.mark.parametrize("how", ["expect", "mark"])
def test_who_waits_already_is_told_of_the_full_disk_at_once(full: Line, how: str) -> None:
    threading.Timer(0.1, full.machine.sendall, [b"Linux\n"]).start()
    started = time.monotonic()
    with pytest.raises(InfrastructureError, match="No space left on device"):
        getattr(full.console, how)("never", 30)
    assert time.monotonic() - started < 5


def test_a_recording_that_cannot_be_made(tmp_path: Path) -> None:
    near, far = socket.socketpair()
    (tmp_path / "file").write_bytes(b"")
    with near, far, pytest.raises(InfrastructureError, match="cannot record the console"):
        Console(near, tmp_path / "file" / "console-0.log")


STALL = (
    b"[   21.000000][    C1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:\r\n"
    b"[   21.000100][    C1] rcu: \t0-...!: (1 GPs behind) idle=c9cc/1/0x4000000000000000\r\n"
    b"[   21.000200][    C1] rcu: \t(detected by 1, t=2102 jiffies, g=-1115, q=4 ncpus=2)\r\n"
    b"[   21.000300][    C1] Sending NMI from CPU 1 to CPUs 0:\r\n"
    b"[    3.662980][    C0] NMI backtrace for cpu 0\r\n"
    b"[    3.662980][    C0] CPU: 0 UID: 0 PID: 1 Comm: swapper/0 Not tainted 6.12.117 #1\r\n"
    b"[    3.662980][    C0] RIP: 0010:stuck+0x10/0x20\r\n"
    b"[    3.662980][    C0] Call Trace:\r\n"
    b"[    3.662980][    C0]  <TASK>\r\n"
    b"[    3.662980][    C0]  do_one_initcall+0x6e/0x310\r\n"
    b"[    3.662980][    C0]  </TASK>\r\n"
)


def progress_after(line: Line, sent: bytes, piece: int = 100) -> int:
    """Its number once all of that has come, looked at after each piece of so many bytes."""
    for start in range(0, len(sent), piece):
        wanted = line.console.size() + len(sent[start : start + piece])
        line.machine.sendall(sent[start : start + piece])
        while line.console.size() < wanted:
            assert line.console.wait_news(line.console.size(), 5)
        line.console.progress()
    return line.console.progress()


LOST_TIME = b"[   22.000000][    C1] hrtimer: interrupt took 61753398 ns\r\n"


@pytest.mark.parametrize("piece", [7, 100, 10_000])
def test_that_it_stands_still_is_no_progress(line: Line, piece: int) -> None:
    first = progress_after(line, b"[    3.600000][    T1] one\r\n", piece)
    assert progress_after(line, STALL + LOST_TIME, piece) == first
    assert progress_after(line, STALL + LOST_TIME + STALL, piece) == first
    assert progress_after(line, b"[   30.000000][    T1] two\r\n", piece) != first


def test_one_that_is_told_again_and_again_is_no_progress(line: Line) -> None:
    told = (
        b"[  %d.000000][    C1] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck "
        b"for %ds!\r\n[  %d.000001][    C1] Showing busy workqueues and worker pools:\r\n"
    )
    first = line.console.progress()
    for at in range(100, 400, 30):
        assert progress_after(line, told % (at, at - 70, at)) == first


def test_what_comes_right_behind_such_a_report_is_progress(line: Line) -> None:
    first = progress_after(line, STALL)
    assert progress_after(line, b"[   22.000000][    T1]     ok 1 slow_test\r\n") != first


def test_another_report_is_progress(line: Line) -> None:
    first = progress_after(line, WARNING)
    assert first == WARNING.count(b"\n")
    assert progress_after(line, b".") == first + 1
