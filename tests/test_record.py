"""A run's directory: its own, always readable, and the latest one is found."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rig import record as record_module
from rig.errors import InfrastructureError
from rig.record import FIRST, Record
from rig.results import Case, Run, Splat, Status, load_run, to_json

OOPS = Splat("page-fault", "BUG: page fault in x", 0, 1)


def test_every_run_has_a_directory_of_its_own(tmp_path: Path) -> None:
    runs = [Record.begin(tmp_path / "results", "rig boot-and-test", "async") for _ in range(5)]
    assert len({run.directory for run in runs}) == 5
    assert (tmp_path / "results" / "latest").resolve() == runs[-1].directory


def test_a_run_is_readable_from_its_first_moment(tmp_path: Path) -> None:
    record = Record.begin(tmp_path, "rig boot-and-test", "async")
    run = load_run(record.directory / "run.json")
    assert (run.complete, run.cases, run.exit_code) == (False, (), 1)
    record.add([Case("abi", "a", "", Status.PASS)])
    limit = time.monotonic() + 60
    while load_run(record.directory / "run.json").cases != record.run.cases:
        assert time.monotonic() < limit  # at once, but for a disk that takes its time
        time.sleep(0.01)
    record.finish()
    assert load_run(record.directory / "run.json").exit_code == 0


def test_consoles_are_named_relative_to_the_directory(tmp_path: Path) -> None:
    record = Record.begin(tmp_path, "", "async")
    record.console(record.directory / "console-0.log")
    assert record.run.consoles == ("console-0.log",)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match="cannot be written"):
        Record.begin(tmp_path / "file" / "results", "", "async")


def test_cases_stand_by_their_place_whenever_they_came(tmp_path: Path) -> None:
    record = Record.begin(tmp_path, "", "async")
    record.add([Case("abi", "c", "")], place=2)
    record.add([Case("abi", "a", "")], place=0)
    record.add([Case("abi", "b", "")], place=1)
    record.add([Case("abi", "a", "after its end")], [OOPS], place=0)
    record.add([Case("abi", "hidden", "")], place=FIRST)
    record.add([Case("abi", "z", "")])
    record.save()  # on a slow disk it may be due a little later
    names = [case.id for case in load_run(record.directory / "run.json").cases]
    first = ["abi/hidden", "abi/a", "abi/a::after its end"]
    assert names == [*first, "abi/b", "abi/c", "abi/z"]
    assert record.run.splats == (OOPS,)


def test_many_threads_may_add(tmp_path: Path) -> None:
    record = Record.begin(tmp_path, "", "async")

    def add(place: int) -> None:
        for number in range(50):
            record.add([Case("abi", f"p{place}", str(number), Status.PASS)], place=place)
            record.notice(f"notice {place}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(4)))
    wanted = [f"abi/p{place}::{number}" for place in range(4) for number in range(50)]
    assert [case.id for case in record.finish().cases] == wanted
    assert sorted(record.run.notices) == [f"notice {place}" for place in range(4)]
    assert load_run(record.directory / "run.json") == record.run


def test_a_long_run_is_not_written_again_for_every_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def slow(run: Run) -> bytes:
        written.append(len(run.cases))
        time.sleep(0.02)
        return to_json(run)

    monkeypatch.setattr(record_module, "to_json", slow)
    record = Record.begin(tmp_path, "", "async")
    for number in range(100):
        record.add([Case("abi", "a", str(number))])
    assert len(written) < 50
    path = record.directory / "run.json"
    deadline = time.monotonic() + 30
    while len(load_run(path).cases) < 100 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(load_run(path).cases) == 100


def test_what_went_wrong_between_two_results_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(run: Run) -> bytes:
        time.sleep(0.03)
        return to_json(run)

    monkeypatch.setattr(record_module, "to_json", slow)
    record = Record.begin(tmp_path, "", "async")
    shutil.rmtree(record.directory)
    record.add([Case("abi", "a", "1")])  # soon after the first time, so it is left to the timer
    timer = record._timer
    assert timer is not None
    timer.join(30)
    record.directory.mkdir()  # now it could be written, but what was lost has to be told
    with pytest.raises(InfrastructureError, match="cannot be written"):
        record.add([Case("abi", "a", "2")])
