"""Guests booted ahead: there when they are wanted, never left behind, never a silent failure."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from local_machine import LocalLab, Writer

from rig import suite
from rig.errors import BootError, InfrastructureError
from rig.guest import Guest
from rig.rack import Order, Rack
from rig.record import Record
from rig.results import BOOT_FAILED, Run, Status
from rig.supply import Supply

TWO = "echo TAP version 13; echo 1..2; echo ok 1 one; echo ok 2 two"


class Diary(LocalLab):
    """Writes down when boots and their ends came."""

    def __init__(self, *, boots: int = 1000) -> None:
        super().__init__(boots=boots)
        self.events: list[str] = []

    def boot(self, number: int, record: Record) -> Guest:
        self.events.append(f"boot {number}")
        return super().boot(number, record)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record.begin(tmp_path / "results", "rig", "local")


def run_all(lab: LocalLab, record: Record, place: Path, *, spares: int) -> Run:
    """A suite's programs, each in a machine of its own."""
    found = suite.discover(place)
    supply = Supply(lab, record, spares=spares)
    rack = Rack(lab, record, isolation="program", supply=supply)
    rack.prepare([found])
    orders = [Order(found, program) for program in suite.programs(found)]
    rack.expect(orders)
    try:
        for order in orders:
            rack.run(order)
    finally:
        rack.close()
    return record.finish()


def wait_for(boots: int) -> str:
    """A program that waits until so many machines have been booted."""
    return f"until [ $(ls $RIG_STATE/../.. | grep -c rig-local-) -ge {boots} ]; do sleep 0.1; done"


def test_the_next_machine_boots_while_a_program_runs(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "machines").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "machines"))
    place = Writer(tmp_path / "suites").suite(
        "abi", timeout=20, a=f"{wait_for(2)}; {TWO}", b=f"{wait_for(2)}; {TWO}", c=TWO
    )
    lab = Diary()
    run = run_all(lab, record, place, spares=1)
    assert [case.status for case in run.cases] == [Status.PASS] * 6
    assert lab.events == ["boot 0", "boot 1", "boot 2"]  # and none for a fourth program
    assert all(machine.closed for machine in lab.machines)
    assert list((tmp_path / "machines").iterdir()) == []


def test_without_room_nothing_is_booted_ahead(record: Record, tmp_path: Path) -> None:
    place = Writer(tmp_path / "suites").suite("abi", a=TWO, b=TWO)
    lab = Diary()
    supply = Supply(lab, record, spares=0)
    supply.order(lambda _: None)
    supply.close()
    assert lab.events == []
    assert run_all(lab, record, place, spares=0).exit_code == 0
    assert len(lab.machines) == 2


def test_the_suite_is_put_there_ahead(record: Record, tmp_path: Path) -> None:
    place = Writer(tmp_path / "suites").suite("abi", a=TWO, b=TWO)
    found = suite.discover(place)
    lab = LocalLab()
    (built,) = lab.prepare([found])
    supply = Supply(lab, record, spares=1)
    supply.order(lambda guest: guest.place(built))
    guest = supply.take().guest
    assert list(lab.machines[0].root.glob("opt/rig/0-abi/abi/a.sh"))
    guest.close()
    supply.close()


def test_a_boot_ahead_that_fails_is_told_to_who_takes_it(record: Record, tmp_path: Path) -> None:
    place = Writer(tmp_path / "suites").suite("abi", a=TWO, b=TWO)
    with pytest.raises(BootError):
        run_all(LocalLab(boots=1), record, place, spares=1)
    assert record.run.notices == ("local: nothing is booted",)


def test_a_boot_ahead_that_fails_and_nobody_takes_is_noticed(record: Record) -> None:
    supply = Supply(LocalLab(boots=0), record, spares=1)
    supply.order(lambda _: None)
    supply.close()
    (notice,) = record.run.notices
    assert "booted ahead did not boot: the kernel did not reach login" in notice


def test_what_was_booted_ahead_and_not_taken_is_ended(record: Record) -> None:
    lab = LocalLab()
    supply = Supply(lab, record, spares=1)
    supply.order(lambda _: None)
    supply.order(lambda _: None)  # one may wait, no more
    supply.close()
    assert [machine.closed for machine in lab.machines] == [True]


def test_nothing_boots_once_the_plugs_are_pulled(record: Record) -> None:
    lab = LocalLab()
    supply = Supply(lab, record, spares=1)
    supply.cut()
    supply.order(lambda _: None)
    with pytest.raises(InfrastructureError, match="stopped"):
        supply.take()
    supply.close()
    assert lab.machines == []


def test_a_boot_ahead_that_hangs_ends_with_the_cut(record: Record) -> None:
    lab = _Hanging()
    supply = Supply(lab, record, spares=1)
    supply.order(lambda _: None)
    assert lab.begun.wait(10)
    started = time.monotonic()
    supply.cut()
    supply.close()
    assert time.monotonic() - started < 10
    assert record.run.notices == ()


class _Hanging(LocalLab):
    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()

    def boot(self, number: int, record: Record) -> Guest:
        self.begun.set()
        self.is_cut.wait(60)
        raise InfrastructureError("the console closed")


def test_a_boot_that_failed_is_put_on_record_unless_we_ended_it(record: Record) -> None:
    supply = Supply(LocalLab(boots=1), record)
    supply.take().guest.close()
    with pytest.raises(BootError):
        supply.take()
    assert record.run.machine == {BOOT_FAILED: "1: the kernel did not reach login"}
    lab = _Cut()
    lab.supply = ended = Supply(lab, record)
    record.update(lambda run: replace(run, machine={}))
    with pytest.raises(BootError):
        ended.take()
    assert record.run.machine == {}


class _Cut(LocalLab):
    """Its plug is pulled while it boots."""

    supply: Supply

    def boot(self, number: int, record: Record) -> Guest:
        self.supply.cut()
        raise BootError("it ended")
