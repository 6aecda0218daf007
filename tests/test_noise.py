"""How even a board's time is: what the program says for real, and what is made of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rig import noise, rows
from rig.errors import InfrastructureError
from rig.rows import Row

ROOT = Path(__file__).parents[1]


def row(
    middle: float, late: float, longest: float, elsewhere: float = 0.0, steps: int = 10_000
) -> Row:
    """A thousand pieces; elsewhere: the share of the time that was not spent in middle ones."""
    percentiles = {"1": middle, "50": middle, "95": late, "100": longest}
    value = 1000 * middle / (1 - elsewhere)
    calls = 1000 * steps
    return Row("noise, CPU 0", value, "ns", rounds=1000, calls=calls, percentiles=percentiles)


def cpus_of(words: str) -> list[int]:
    ends = [one.partition("-") for one in words.strip().split(",")]
    return [n for first, _, last in ends for n in range(int(first), int(last or first) + 1)]


def test_the_program_says_of_each_cpu_how_even_its_time_is(tmp_path: Path) -> None:
    program = tmp_path / "noise"
    source = ROOT / noise.SOURCE
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-static"]
    subprocess.run(["gcc", *flags, "-o", program, source], check=True)
    done = subprocess.run([program], capture_output=True, check=True, timeout=100)
    found = rows.parse(done.stdout)
    online = Path("/sys/devices/system/cpu/online").read_text()
    assert [one.name for one in found] == [f"noise, CPU {cpu}" for cpu in cpus_of(online)]
    assert len({one.calls / one.rounds for one in found}) == 1  # the same work on each
    noise.check(found)
    for one in found:
        every = [one.percentiles[key] for key in ("1", "50", "95", "100")]
        assert every == sorted(every)
        # What the work is made of is counted out once: half of it takes what was meant to be.
        assert 20_000 < one.percentiles["50"] < 1_000_000
        assert one.rounds * one.percentiles["1"] <= one.value <= one.rounds * every[-1]
        assert one.value >= 400e6


def test_an_even_board_and_one_that_is_not() -> None:
    even = row(50_000, 50_300, 51_000, 0.001)
    assert not noise.is_loud([even])
    assert noise.in_words([even]) == (
        "of 20 pieces of work of 50 us 19 took at most 0.6% more than the middle one, the longest "
        "1 us; 0.10% of the time went elsewhere; 0.0% from one CPU or boot to another"
    )
    late, gone = row(50_000, 52_000, 52_000), row(50_000, 50_000, 5_050_000, 0.03)
    slower = row(52_000, 52_000, 52_000)
    throttled = row(50_000, 50_000, 50_000, steps=8000)  # a piece is 50 us at any clock rate
    for one in (late, gone, slower, throttled):
        assert noise.is_loud([even, one])
    words = noise.in_words([even, late, gone])
    assert "at most 4.0% more than the middle one, the longest 5.0 ms; 3.00% of" in words
    assert "; 4.0% from one CPU" in noise.in_words([even, slower])


def test_a_time_that_is_shorter_than_its_middle_is_not_lost() -> None:
    assert noise.lost(row(50_000, 50_000, 50_000, -0.01)) == 0.0


@pytest.mark.parametrize(
    "bad",
    [
        Row("x", 1, "ns", rounds=3),
        Row("x", 1, "ns", percentiles={"50": 1, "95": 1, "100": 1}),
        Row("x", 1, "bytes", rounds=3, calls=3, percentiles={"50": 1, "95": 1, "100": 1}),
        Row("x", 1, "ns", rounds=3, calls=3, percentiles={"50": 0, "95": 1, "100": 1}),
        Row("x", 1, "ns", rounds=3, percentiles={"50": 1, "95": 1, "100": 1}),
    ],
)
def test_what_says_nothing_of_it_is_an_error(bad: Row) -> None:
    with pytest.raises(InfrastructureError, match=r"noise\.c says nothing"):
        noise.check([row(50_000, 50_300, 51_000), bad])
