"""What looks after a machine: panics are known at once, silence is told from work."""

from __future__ import annotations

import threading
import time

import pytest

from rig import vigil
from rig.machine import stuck
from rig.profile import Symbols
from rig.vigil import Vigil


class Machine:
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.dead = self.mute = False
        self.lines = self.asked = 0
        self.question = threading.Event()

    def panicked(self) -> bool:
        return self.dead

    def progress(self) -> int:
        return self.lines

    def answers(self, timeout_s: float) -> bool:
        self.asked += 1
        self.question.set()
        if self.mute:
            time.sleep(timeout_s)
        return not self.mute


def watched(machine: Machine, for_s: float, heard: list[int] | None = None) -> tuple[Vigil, float]:
    """A vigil over a program of so many seconds; when it was given up."""
    over = threading.Event()
    one = Vigil(machine, 1.0, over.set, quiet_s=0.4, answer_s=0.2)
    began = time.monotonic()
    with one.keep(lambda: heard[0] if heard else 0):
        over.wait(for_s)
    return one, time.monotonic() - began


def test_a_machine_that_works_is_left_alone() -> None:
    one, took = watched(Machine(), 1.5)
    assert (one.found, one.hung) == ("", False)
    assert took >= 1.5


def test_a_panic_is_known_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vigil, "LAST_WORDS_S", 0.1)
    machine = Machine()
    machine.dead = True
    one, took = watched(machine, 10)
    assert one.found == "the guest panicked"
    assert not one.hung
    assert took < 1.0


def test_a_panic_is_known_at_once_also_while_an_answer_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What hangs may panic after all: by its watchdog, just when it is asked whether it lives."""
    monkeypatch.setattr(vigil, "LAST_WORDS_S", 0.1)
    machine = Machine()
    machine.mute = True
    over = threading.Event()
    one = Vigil(machine, 1.0, over.set, quiet_s=0.1, answer_s=30.0)
    with one.keep(lambda: 0):
        assert machine.question.wait(10)
        # Not just when it is asked, but when the watch has come round and waits for the answer.
        time.sleep(4 * vigil.LOOK_S)
        machine.dead, began = True, time.monotonic()
        assert over.wait(10)
    assert time.monotonic() - began < 1.0
    assert one.found == "the guest panicked"


def test_a_panicked_machine_has_its_last_words() -> None:
    machine = Machine()
    machine.dead = True
    one, took = watched(machine, 1.0)  # it ends by itself before
    assert one.found == "the guest panicked"
    assert took >= 1.0


def test_a_machine_that_answers_nothing_hangs() -> None:
    machine = Machine()
    machine.mute = True
    one, took = watched(machine, 10)
    assert one.hung
    assert one.found == "the machine hangs: no line, no output, no answer in 1 s"
    assert took < 3
    assert machine.asked == vigil.TIMES


def test_one_that_still_prints_does_not_hang() -> None:
    machine, heard = Machine(), [0]
    machine.mute = True
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.1):
            heard[0] += 1

    worker = threading.Thread(target=work)
    worker.start()
    one, took = watched(machine, 2.0, heard)
    stop.set()
    worker.join()
    assert not one.hung
    assert took >= 2.0


def test_nobody_waits_for_an_answer_that_is_not_needed_any_more() -> None:
    machine = Machine()
    machine.mute = True
    one = Vigil(machine, 1.0, lambda: None, quiet_s=0.1, answer_s=30.0)
    with one.keep(lambda: 0):
        assert machine.question.wait(10)
        began = time.monotonic()
    assert time.monotonic() - began < 2.0


# -- a CPU from outside ---------------------------------------------------------------------------

MAP = """\
ffffffff81000000 T _text
ffffffff81000100 T spin
ffffffff81000180 T caller
ffffffff81000200 T _etext
"""


class Monitor:
    """QEMU's own words, of a CPU in the kernel and of one in a program."""

    def __init__(self, rip: str, rsp: str) -> None:
        self.rip, self.rsp = rip, rsp
        self.asked: list[str] = []

    def command(self, name: str, **arguments: object) -> str:
        assert name == "human-monitor-command"
        line = str(arguments["command-line"])
        self.asked.append(line)
        if line == "info registers":
            return (
                f"RAX=0000000000000000 RBX=0000000000000000\r\nRSI=0 RBP=0 RSP={self.rsp}\r\n"
                f"RIP={self.rip} RFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0\r\n"
            )
        return (
            "ffffc90000000000: 0xffffffff81000190 0x0000000000000000\r\n"
            "ffffc90000000010: 0xffffffff81000105 0xffff888000000000\r\n"
        )


def test_a_cpu_in_the_kernel_with_its_callers() -> None:
    monitor = Monitor("ffffffff81000120", "ffffc90000000000")
    assert stuck.cpu(monitor, 1, Symbols(MAP)) == (
        "CPU 1, as QEMU sees it, interrupts off:\n"
        "RIP: 0010:spin+0x20/0x80\n"
        " ? caller+0x10/0x80\n"
        " ? spin+0x5/0x80"
    )


def test_a_cpu_in_a_program_has_no_stack_of_ours() -> None:
    monitor = Monitor("0000000000401000", "00007ffff0000000")
    assert "RIP: 0010:(user space)" in stuck.cpu(monitor, 0, Symbols(MAP))
    assert monitor.asked == ["info registers"]


def test_which_cpus_the_kernel_has_shown() -> None:
    said = (
        "[    3.1] NMI backtrace for cpu 0\n[    3.2] Sending NMI from CPU 0 to CPUs 1,12:\n"
        "[    3.3] NMI backtrace for cpu 12 skipped: idling at default_idle+0xf/0x20\n"
    )
    assert stuck.shown_by_kernel(said) == {0, 12}


def test_a_program_that_nobody_watches_any_more_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_self: Machine) -> int:
        raise ValueError("no scan")

    monkeypatch.setattr(Machine, "progress", broken)
    monkeypatch.setattr(threading, "excepthook", lambda _args: None)
    with pytest.raises(RuntimeError, match="not watched to the end"):
        watched(Machine(), 10)
