"""What is kept of a program that was not well."""

from __future__ import annotations

from rig.results import Status
from rig.verdict import End, Observation, Rules, judge


def test_of_a_long_diagnosis_its_beginning_is_kept() -> None:
    """What is blocked and what CPUs do comes first; then every task there is."""
    others = "task:other\n" * 20000
    said = f"sysrq: Show Blocked State\ntask:stuck\n{others}the last\n"
    seen = Observation(End.TIMEOUT, output="words\n" * 20000, diagnosis=said)
    (case,) = judge(Rules("s", "p"), seen)
    assert case.status is Status.TIMEOUT
    assert "task:stuck" in case.output
    assert case.output.endswith("the last")
    assert len(case.output) < 140_000
