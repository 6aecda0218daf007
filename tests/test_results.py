"""The verdict values: what earns a zero, and that nothing is lost through JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from rig.errors import InfrastructureError
from rig.results import SCHEMA, Case, Measurement, Run, Splat, Status, load_run, to_json

PASSED = Case("abi", "submit", "one", Status.PASS, 0.25)
SPLAT = Splat("warning", "WARNING in f", 3, 9, "f", "WARNING: ...\n", True)


def run(*cases: Case, complete: bool = True, splats: tuple[Splat, ...] = ()) -> Run:
    return Run(
        "id", "2026-11-23T08:00:00+00:00", "rig x", cases=cases, complete=complete, splats=splats
    )


def test_a_case_is_born_an_error() -> None:
    assert Case("abi", "submit", "one").status is Status.ERROR
    assert run(Case("abi", "submit", "one")).exit_code == 1


def test_all_that_is_expected_and_one_pass_is_zero() -> None:
    assert run(PASSED).exit_code == 0
    assert run(PASSED, Case("abi", "submit", "two", Status.SKIP)).exit_code == 0


@pytest.mark.parametrize("status", [status for status in Status if not status.good])
def test_one_case_that_is_not_good_is_not_zero(status: Status) -> None:
    assert run(PASSED, Case("abi", "submit", "two", status)).exit_code == 1


def test_nothing_is_not_green() -> None:
    assert run().exit_code == 1
    assert run(Case("abi", "submit", "one", Status.SKIP)).exit_code == 1


def test_a_run_that_did_not_end_is_not_green() -> None:
    assert run(PASSED, complete=False).exit_code == 1
    assert Run("id", "", "rig x", cases=(PASSED,)).exit_code == 1


def test_a_splat_is_not_green() -> None:
    assert run(PASSED, splats=(SPLAT,)).exit_code == 1


def test_every_field_survives_json(tmp_path: Path) -> None:
    whole = Run(
        id="x",
        started="2026-11-23T08:00:00+00:00",
        command="rig boot-and-test 'ü'",
        kernel={"name": "async", "strange": "\x1b[31m\u2028"},
        machine={"name": "m"},
        image={"key": "k"},
        notices=("emulated",),
        cases=tuple(
            Case("s", "p", f"n{status}", status, 1.5, "m", "o\n", "r") for status in Status
        ),
        splats=(SPLAT,),
        measurements=(Measurement("latency", 1.25, "us", "median"),),
        consoles=("console-0.log",),
        duration_s=12.5,
        complete=True,
    )
    path = tmp_path / "run.json"
    path.write_bytes(to_json(whole))
    assert load_run(path) == whole
    fields = {field.name for field in dataclasses.fields(Run)}
    assert set(json.loads(path.read_bytes())) == fields


def test_with_case_adds_and_counts() -> None:
    grown = run(PASSED).with_case(Case("abi", "wait", "", Status.CRASH))
    assert [case.id for case in grown.cases] == ["abi/submit::one", "abi/wait"]
    assert grown.count(Status.CRASH) == 1
    assert grown.exit_code == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"id": 1}', to_json(run(PASSED))[:-20], b"\xff\xfe"]
)
def test_what_is_not_a_saved_run_is_our_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(InfrastructureError, match="not a saved run"):
        load_run(path)


def test_a_missing_file_and_another_schema_are_our_errors(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError):
        load_run(tmp_path / "none.json")
    path = tmp_path / "run.json"
    path.write_bytes(to_json(dataclasses.replace(run(PASSED), schema=SCHEMA + 1)))
    with pytest.raises(InfrastructureError, match="schema"):
        load_run(path)


def test_a_status_that_is_unknown_is_not_read_as_a_good_one(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(to_json(run(PASSED)).replace(b'"pass"', b'"fine"'))
    with pytest.raises(InfrastructureError):
        load_run(path)
