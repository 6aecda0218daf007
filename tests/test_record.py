"""A run's directory: its own, always readable, and the latest one is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.errors import InfrastructureError
from rig.record import Record
from rig.results import Case, Status, load_run


def test_every_run_has_a_directory_of_its_own(tmp_path: Path) -> None:
    runs = [Record.begin(tmp_path / "results", "rig boot-and-test", "async") for _ in range(5)]
    assert len({run.directory for run in runs}) == 5
    assert (tmp_path / "results" / "latest").resolve() == runs[-1].directory


def test_a_run_is_readable_from_its_first_moment(tmp_path: Path) -> None:
    record = Record.begin(tmp_path, "rig boot-and-test", "async")
    run = load_run(record.directory / "run.json")
    assert (run.complete, run.cases, run.exit_code) == (False, (), 1)
    record.add([Case("abi", "a", "", Status.PASS)])
    assert load_run(record.directory / "run.json").cases == record.run.cases
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
