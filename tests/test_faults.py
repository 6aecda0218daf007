"""The part of the fault drill that belongs to CI; all of it is `make accept WHAT=verdicts`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))

import drill
from drill import FAULTS, Fault, Seen

SLOWER = 4.0  # a runner that does other things as well


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_what_is_not_as_it_should_be_is_said(tmp_path: Path) -> None:
    fault = Fault("x", 1, "crash", "boom", within_s=10)
    case = {"program": "first.sh", "status": "pass", "message": "fine"}
    run = {"cases": [case], "notices": ["all is well"]}
    reports = ({"title": "a BUG", "place": "b.c", "decoded": "x"},
               {"title": "a BUG", "place": "a.c", "decoded": ""})  # fmt: skip
    run = {**run, "splats": reports}
    seen = Seen(tmp_path, 0, 99.0, "Traceback (most recent call last)", run, ("qemu",), ("rig-x",))
    seen.again = 3
    fault = replace(fault, notice="booted from", title="BUG", place="a.c")
    assert drill.troubles(fault, seen) == [
        "exit code 0, not 1",
        "the result of the program before is not kept",
        "the first program is pass, not crash",
        "its message is 'fine'",
        "the second program is None: None",
        "it is not said: booted from",
        "it took 99 s, not 10",
        "left running: qemu",
        "the next rig: exit code 3",
        "no decoded report 'BUG' at 'a.c': [('a BUG', 'b.c'), ('a BUG', 'a.c')]",
        "files left: rig-x",
        "a traceback",
    ]
    quiet = replace(fault, before=False, notice="", place="b.c")
    said = drill.troubles(quiet, seen)
    assert not any("decoded" in words or "before" in words or "said" in words for words in said)
    broken = drill.troubles(fault, Seen(tmp_path, broken="no QEMU was started"))
    assert broken[0] == "it could not be run: no QEMU was started"
    assert "nothing of it was saved" in drill.troubles(fault, Seen(tmp_path))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fault" in metafunc.fixturenames:
        whole = metafunc.config.getoption("--whole-drill")
        rows = [one for one in FAULTS if whole or one.ci]
        metafunc.parametrize("fault", rows, ids=[one.name for one in rows])


@pytest.mark.kernel
def test_a_fault_gets_its_verdict(fault: Fault, tmp_path: Path) -> None:
    directory = tmp_path / f"drill-{abs(hash(fault.name)) % 10**8}"
    directory.mkdir()
    seen = drill.run(fault, directory)
    assert drill.troubles(fault, seen, SLOWER) == [], seen.output[-3000:]
