"""ci/accept_handover.py: which figures it takes from a benchmark, and when a bar is missed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rig.errors import InfrastructureError

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "ci"))  # where a script of ci/ finds what it shares
handover = importlib.import_module("accept_handover")

INLINE = {
    "getppid direct": [198, 198, 240],
    "getppid async_submit": [303, 303, 900],
    "pread direct": [1124],
    "pread async_submit": [1234],
    "nop io_uring": [828],
    "read io_uring": [1784],
    "pread aio": [2114],
}
BLOCK = {
    "read that sleeps, main thread": [4113, 4500],
    "read that sleeps, other thread": [4500],
    "read that sleeps, new worker": [26000, 12000],
    "read that sleeps, first of 4000": [7000, 4900, 4900],
    "read that sleeps, last of 4000": [5144, 5144, 9000],
    "mutex and condition, there and back": [10000],
    "one sleep of 100 ms": [100],
    "1000 sleeps of 100 ms": [300],
}
UNUSED = {
    "getppid": [200, 198],
    "pread": [1126],
    "two context switches": [5004],
    "fork": [60016],
    "fork, exit, wait": [90064],
}
OFF = {
    "getppid": [196],
    "pread": [1124, 3000],
    "two context switches": [5000],
    "fork": [60000],
    "fork, exit, wait": [90000],
}


def verdicts(
    monkeypatch: pytest.MonkeyPatch, step: str, on: dict[str, list[int]], **more: list[int]
) -> dict[str, bool]:
    """The figures of a step, with what the benchmarks print."""
    values = on | {name.replace("_", " "): value for name, value in more.items()}

    def exact(_here: object, _program: str, *_words: str, kernel: str = "async") -> object:
        return OFF if kernel == "off" else values

    monkeypatch.setattr(handover, "exact", exact)
    monkeypatch.setattr(handover, "opened", lambda _place: SimpleNamespace())
    return {figure.name: figure.ok for figure in getattr(handover, step)(None)}


@pytest.mark.parametrize(("step", "values"), [("inline", INLINE), ("block", BLOCK)])
def test_bars_that_are_just_held(
    monkeypatch: pytest.MonkeyPatch, step: str, values: dict[str, list[int]]
) -> None:
    found = verdicts(monkeypatch, step, values)
    # Half of a hand-over there and back is the one bar of BLOCK that these figures hold easily.
    assert {name for name, ok in found.items() if not ok} == set()


@pytest.mark.parametrize(
    ("step", "name", "value", "missed"),
    [
        ("inline", "getppid async_submit", [304], {"inline_getppid", "below_io_uring_nop"}),
        (
            "inline",
            "pread async_submit",
            [1235],
            {"inline_pread", "below_io_uring_read", "below_aio"},
        ),
        ("inline", "nop io_uring", [827], {"below_io_uring_nop"}),
        ("inline", "read io_uring", [1783], {"below_io_uring_read"}),
        ("inline", "pread aio", [2113], {"below_aio"}),
        ("block", "read that sleeps, main thread", [4000, 4501], {"warm_main"}),
        ("block", "read that sleeps, other thread", [4501], {"warm_other"}),
        ("block", "read that sleeps, new worker", [26001], {"cold"}),
        ("block", "read that sleeps, last of 4000", [5146], {"last_of_4000"}),
        ("block", "mutex and condition, there and back", [8000], {"of_a_thread_pool"}),
        ("block", "1000 sleeps of 100 ms", [301], {"thousand_sleeps"}),
        ("unused", "getppid", [199], {"unused_getppid"}),
        ("unused", "two context switches", [5005], {"unused_two_context_switches"}),
        ("unused", "fork", [60017], {"unused_fork"}),
        ("unused", "fork, exit, wait", [90065], {"unused_fork_exit_wait"}),
    ],
)
def test_a_bar_that_is_missed(
    monkeypatch: pytest.MonkeyPatch, step: str, name: str, value: list[int], missed: set[str]
) -> None:
    values = {"inline": INLINE, "block": BLOCK, "unused": UNUSED}[step]
    found = verdicts(monkeypatch, step, values | {name: value})
    assert {one for one, ok in found.items() if not ok} == missed


def test_who_does_not_use_it_pays_at_most_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(verdicts(monkeypatch, "unused", UNUSED).values()) == {True}


def test_a_figure_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InfrastructureError, match="no figure 'pread aio'"):
        verdicts(monkeypatch, "inline", {k: v for k, v in INLINE.items() if k != "pread aio"})


def test_every_step_has_a_name() -> None:
    names = list(handover.steps())
    assert names[:5] == ["inline", "block", "unused", "same", "detectors"]
    assert names[-1] == "patches"
    assert len(names) == 20
