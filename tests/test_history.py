"""What is remembered of runs: since when, how often, what was another one then; the file."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rig import history, stats
from rig.errors import InfrastructureError, UsageError
from rig.history import History, Line
from rig.results import Case, Measurement, Run, Status, to_json

FIRST = datetime(2026, 1, 1, 21, tzinfo=UTC)
PASS, FAIL, SKIP = Status.PASS, Status.FAIL, Status.SKIP


def night(number: int, *cases: tuple[str, Status], value: float | None = None, **facts: str) -> Run:
    """One night's run of the kernel k on the machine m."""
    started = FIRST + timedelta(days=number)
    figures = () if value is None else (Measurement("getppid", value, "instructions"),)
    return Run(
        id=f"night-{number}",
        started=started.isoformat(),
        command="rig boot-and-test k",
        kernel={"name": "k", "release": "6.12.1", **facts},
        machine={"name": "m"},
        cases=tuple(
            Case("abi", "wait", name, status, message="" if status.good else f"{name}.c:1: no")
            for name, status in cases
        ),
        measurements=figures,
        complete=True,
    )


def kept(path: Path, runs: Sequence[Run]) -> History:
    known = History(path)
    for run in runs:
        assert known.add(run)
    return known


def line_of(tmp_path: Path, *statuses: Status) -> Line:
    runs = [night(at, ("a", status)) for at, status in enumerate(statuses)]
    with kept(tmp_path / "h", runs) as known:
        (line,) = known.cases("abi/wait::a")
    return line


def test_since_when_a_case_fails_and_what_was_another_one_then(tmp_path: Path) -> None:
    good = [night(at, ("a", PASS), tree="one", config="c") for at in range(5)]
    bad = [night(at, ("a", FAIL), tree="two", config="c") for at in range(5, 8)]
    with kept(tmp_path / "h", [*good, *bad]) as known:
        (line,) = known.cases("abi/wait::a")
    assert (line.kernel, line.machine, line.since, line.bad) == ("k", "m", 5, 3)
    assert line.seen[line.since].run == "night-5"
    assert line.changed == {"tree": ("one", "two")}
    text = "\n".join(history.case_text(line))
    assert "FAIL, 3 runs, since 2026-01-0" in text
    assert "before that pass in night-4" in text
    assert "tree: one -> two" in text
    assert "a.c:1: no" in text
    assert "not good in 3 of 8 runs (13.7% to 69.4%, 95 %)" in text
    assert "  .....FFF" in text


@pytest.mark.parametrize(
    ("statuses", "since"),
    [
        ((PASS,), 0),
        ((FAIL, FAIL), 0),
        ((FAIL, PASS, SKIP), 1),
        ((PASS, FAIL, PASS, FAIL), 3),
        ((PASS, FAIL, SKIP, SKIP), 1),
        ((FAIL, SKIP, FAIL), 0),
        ((PASS, SKIP, FAIL), 2),
        ((SKIP, SKIP), 0),
    ],
)
def test_a_spell_is_of_what_is_good_or_of_what_is_not(
    tmp_path: Path, statuses: tuple[Status, ...], since: int
) -> None:
    assert line_of(tmp_path, *statuses).since == since


def test_what_is_skipped_is_not_mended_by_that(tmp_path: Path) -> None:
    runs = [*(night(at, ("a", FAIL)) for at in range(50)),
            *(night(at, ("a", SKIP)) for at in range(50, 100))]  # fmt: skip
    with kept(tmp_path / "h", runs) as known:
        (line,) = known.overview().failing
    text = "\n".join(history.case_text(line))
    assert "not good in 50 of 50 runs, 50 more skipped it (92.9% to 100.0%, 95 %)" in text
    assert history.told(line)["bad"] == history.told(line)["runs"] == 50


def test_a_case_that_others_have_run_beside_is_not_forgotten(tmp_path: Path) -> None:
    other = [replace(night(at), id=f"other-{at}", cases=(Case("abi", "x", "", PASS),))
             for at in range(1, 61)]  # fmt: skip
    with kept(tmp_path / "h", [night(0, ("a", FAIL)), *other]) as known:
        assert [line.case for line in known.overview().failing] == ["abi/wait::a"]
    # What was run no more for months, while others were, is no more.
    with kept(tmp_path / "i", [night(0, ("a", FAIL)), replace(other[-1], started=(
            FIRST + timedelta(days=61)).isoformat())]) as known:  # fmt: skip
        assert known.overview().failing == ()


def test_what_is_skipped_for_months_is_no_more_forgotten_than_what_fails(tmp_path: Path) -> None:
    runs = [night(0, ("a", FAIL)), *(night(at, ("a", SKIP)) for at in range(1, 66))]
    with kept(tmp_path / "h", runs) as known:
        (line,) = known.overview().failing
    assert (line.since, line.last.run) == (0, "night-0")


def test_since_when_is_told_where_the_last_runs_were_skipped_first(tmp_path: Path) -> None:
    runs = [night(0, ("a", PASS)), night(1, ("a", FAIL)),
            *(night(at, ("a", SKIP)) for at in range(2, 70)), night(70, ("a", FAIL))]  # fmt: skip
    with kept(tmp_path / "h", runs) as known:
        (line,) = known.overview().failing
    assert line.seen[line.since].run == "night-1"
    assert line.before is not None
    assert line.before.run == "night-0"


def test_runs_count_by_when_they_began_and_not_by_when_they_were_told(tmp_path: Path) -> None:
    with kept(tmp_path / "h", [night(2, ("a", FAIL)), night(1, ("a", PASS))]) as known:
        (line,) = known.cases("abi/wait::a")
    assert [one.status for one in line.seen] == [PASS, FAIL]


def test_what_fails_now_is_told_and_what_has_failed_once_is_not(tmp_path: Path) -> None:
    runs = [
        night(0, ("a", PASS), ("b", FAIL), ("c", PASS)),
        night(1, ("a", FAIL), ("b", PASS), ("c", PASS)),
        night(2, ("a", FAIL), ("b", PASS), ("c", Status.CRASH)),
    ]
    with kept(tmp_path / "h", runs) as known:
        found = known.overview()
    assert [line.case for line in found.failing] == ["abi/wait::a", "abi/wait::c"]
    text = history.overview_text(found, tmp_path / "h")
    assert text[0].startswith("3 runs since 2026-01-0")
    assert text[1].split() == ["FAIL", "abi/wait::a"]
    assert text[-1] == "2 cases were not good when last run"


@pytest.mark.parametrize("count", [50, 70])
def test_what_has_failed_for_long_is_told_from_its_first_night_on(
    tmp_path: Path, count: int
) -> None:
    bad = [night(at, ("a", FAIL)) for at in range(1, count)]
    with kept(tmp_path / "h", [night(0, ("a", PASS)), *bad]) as known:
        (line,) = known.overview().failing
    assert line.seen[line.since].run == "night-1"
    assert len(line.seen) - line.since == count - 1


def test_each_kernel_and_machine_has_a_line_of_its_own(tmp_path: Path) -> None:
    other = replace(night(1, ("a", FAIL)), machine={"name": "quad"})
    with kept(tmp_path / "h", [night(0, ("a", PASS)), other]) as known:
        lines = known.cases("abi/wait::a")
    assert [(line.machine, line.seen[-1].status) for line in lines] == [("m", PASS), ("quad", FAIL)]


def test_a_run_is_known_once(tmp_path: Path) -> None:
    with kept(tmp_path / "h", [night(0, ("a", PASS))]) as known:
        assert not known.add(night(0, ("a", FAIL)))
        (line,) = known.cases("abi/wait::a")
    assert [one.status for one in line.seen] == [PASS]


def test_what_a_run_did_not_come_to_says_nothing(tmp_path: Path) -> None:
    stopped = replace(night(1, ("a", PASS), ("b", Status.ERROR)), complete=False)
    with kept(tmp_path / "h", [night(0, ("a", PASS), ("b", PASS)), stopped]) as known:
        assert [len(known.cases(f"abi/wait::{name}")[0].seen) for name in "ab"] == [2, 1]


def test_a_case_told_twice_in_a_run_is_what_is_not_good(tmp_path: Path) -> None:
    assert line_of(tmp_path, PASS).seen[0].status is PASS
    with kept(tmp_path / "other", [night(0, ("a", FAIL), ("a", PASS))]) as known:
        assert known.cases("abi/wait::a")[0].seen[0].status is FAIL


# -- figures --------------------------------------------------------------------------------------


def test_each_change_of_an_exact_figure_is_a_step(tmp_path: Path) -> None:
    values = [213, 213, 213, 223, 223, 221]
    runs = [night(at, value=value) for at, value in enumerate(values)]
    with kept(tmp_path / "h", runs) as known:
        (trend,) = known.trends("getppid")
    assert trend.steps == (3, 5)
    text = history.trend_text(trend)
    assert text[0] == "k on m: 221 instructions, 6 runs"
    assert [words.split("  ")[2] for words in text[1:]] == [
        "213, 3 runs, from night-0", "223, 2 runs, from night-3", "221, 1 run, from night-5",
    ]  # fmt: skip


def noisy(*levels: tuple[float, int]) -> list[float]:
    source = random.Random(20260101)
    return [source.gauss(level, 1.0) for level, count in levels for _ in range(count)]


def test_noise_is_no_step_and_a_level_is_found_where_it_begins() -> None:
    assert stats.steps(noisy((100, 200))) == ()
    found = stats.steps(noisy((100, 80), (104, 60), (98, 100)))
    assert len(found) == 2
    assert all(abs(at - where) <= 1 for at, where in zip(found, (80, 140), strict=True))


def test_a_single_run_that_was_disturbed_is_no_step() -> None:
    values = noisy((100, 100))
    values[50] += 5.0
    assert stats.steps(values) == ()


def test_steps_of_next_to_nothing() -> None:
    assert stats.steps([]) == stats.steps([1.0]) == stats.steps([1.0, 1.0]) == ()
    assert stats.steps([1.0, 2.0]) == ()


# -- the file -------------------------------------------------------------------------------------

_ADDS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_history import PASS, night
from rig.history import History
for number in range(20):
    with History(Path(sys.argv[1])) as known:
        assert known.add(night(int(sys.argv[2]) * 100 + number, ("a", PASS)))
"""


def test_many_write_at_once(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    argv = [sys.executable, "-c", _ADDS, str(tmp_path / "h")]
    those = [subprocess.Popen([*argv, str(number), here]) for number in range(4)]
    assert [one.wait(120) for one in those] == [0] * 4
    with History(tmp_path / "h") as known:
        assert known.overview().runs == 80
        assert len(known.cases("abi/wait::a")[0].seen) == 80
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h"]


def damaged(path: Path, at: int) -> bytes:
    """With some of it overwritten."""
    data = bytearray(path.read_bytes())
    data[at : at + 4000] = random.Random(1).randbytes(4000)
    path.write_bytes(data)
    return bytes(data)


@pytest.mark.parametrize("at", [0, 4096])
def test_a_damaged_file_is_put_aside_and_told(tmp_path: Path, at: int) -> None:
    kept(tmp_path / "h", [night(n, ("a", PASS)) for n in range(50)]).close()
    data = damaged(tmp_path / "h", at)
    with History(tmp_path / "h") as known:
        with contextlib.suppress(InfrastructureError):  # where it is damaged may be met late
            known.cases("abi/wait::a")
        (words,) = known.notices
        assert known.add(night(100, ("a", PASS)))
        assert [one.run for one in known.cases("abi/wait::a")[0].seen] == ["night-100"]
    (aside,) = tmp_path.glob("h.damaged-*[0-9]")
    assert aside.name in words
    assert aside.read_bytes() == data


def test_a_question_to_a_damaged_file_is_no_answer_that_there_is_nothing(tmp_path: Path) -> None:
    kept(tmp_path / "h", [night(n, ("a", PASS)) for n in range(2000)]).close()
    size = (tmp_path / "h").stat().st_size
    with History(tmp_path / "h") as known:
        for at in range(4096, size - 4096, 4096):  # all but what has been read to open it
            damaged(tmp_path / "h", at)
        with pytest.raises(InfrastructureError, match="is damaged") as caught:
            known.cases("abi/wait::a")
    assert "h.damaged-" in caught.value.message


def test_two_cells_that_begin_in_one_second_are_two_runs(tmp_path: Path) -> None:
    """Each in a directory of its own, so that both have the same name."""
    one = night(0, ("a", PASS))
    other = replace(night(0, ("b", PASS)), command="rig boot-and-test k --suite stress")
    with kept(tmp_path / "h", [one, other]) as known:
        assert known.overview().runs == 2
        assert not known.add(one)
        assert known.cases("abi/wait::b")


def test_a_file_of_an_older_rig_is_brought_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(history, "_MIGRATIONS", history._MIGRATIONS[:1])
        kept(tmp_path / "h", [night(n, ("a", PASS), value=n) for n in range(3)]).close()
    other = replace(night(1, ("b", PASS)), command="rig boot-and-test k --suite stress")
    with kept(tmp_path / "h", [other]) as known:
        assert known.overview().runs == 4
        assert [one.run for one in known.cases("abi/wait::a")[0].seen] == [
            "night-0", "night-1", "night-2",
        ]  # fmt: skip
        assert [one.value for one in known.trends("getppid")[0].seen] == [0, 1, 2]


def test_a_file_that_has_lost_all_of_it_is_told(tmp_path: Path) -> None:
    kept(tmp_path / "h", [night(0, ("a", PASS))]).close()
    (tmp_path / "h").write_bytes(b"")
    with History(tmp_path / "h") as known:  # it may be another rig's, new
        assert not known.notices
    (tmp_path / "h").write_bytes(b"")
    os.utime(tmp_path / "h", (1e9, 1e9))
    with History(tmp_path / "h") as known:
        assert known.notices == [f"{tmp_path / 'h'} was empty: the history begins anew"]


def test_a_file_of_a_newer_rig_is_left_alone(tmp_path: Path) -> None:
    kept(tmp_path / "h", [night(0, ("a", PASS))]).close()
    other = sqlite3.connect(tmp_path / "h")
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(InfrastructureError, match="is of version 99, this rig knows"):
        History(tmp_path / "h")
    assert [path.name for path in tmp_path.iterdir()] == ["h"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match="no place for the history"):
        History(tmp_path / "file" / "h")


def test_names_and_parts_of_them(tmp_path: Path) -> None:
    run = night(0, ("alpha", PASS), ("beta", PASS), value=1.0)
    with kept(tmp_path / "h", [run]) as known:
        names = known.names()
    assert names == ("abi/wait::alpha", "abi/wait::beta", "getppid")
    assert history.matching("wait::al", names) == ("abi/wait::alpha",)
    assert history.matching("wait", names) == names[:2]
    with pytest.raises(UsageError, match="nothing is known of 'getpid'") as caught:
        history.matching("getpid", names)
    assert "getppid" in caught.value.hint


# -- the verb -------------------------------------------------------------------------------------


def rig(*words: str, path: Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rig", "history", *words],
        env={**os.environ, history.FILE: str(path), "TZ": "UTC"},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_verb(tmp_path: Path) -> None:
    path = tmp_path / "data/h"
    assert "no run is known yet" in rig(path=path)
    files = []
    for run in [night(0, ("a", PASS)), night(1, ("a", FAIL), value=7.0)]:
        files.append(tmp_path / f"{run.id}.json")
        files[-1].write_bytes(to_json(run))
    out = rig("--add", *map(str, files), path=path)
    assert "FAIL    abi/wait::a\n        k on m: since 2026-01-02 21:00, 1 run  a.c:1: no\n" in out
    assert "1 case was not good when last run" in out
    assert "abi/wait::a\nk on m: FAIL" in rig("wait::a", path=path)
    assert "7 instructions, 1 run" in rig("getppid", path=path)
    (told,) = json.loads(rig("--json", path=path))["failing"]
    assert (told["case"], told["status"], told["runs_since"]) == ("abi/wait::a", "fail", 1)
    (told,) = json.loads(rig("--json", "wait::a", path=path))
    assert [one["status"] for one in told["cases"][0]["seen"]] == ["pass", "fail"]
    assert "each case was good" in rig("--machine", "other", path=path)
    assert "nothing is known of 'b::c'" in rig("b::c", path=path, code=2)


def test_many_nights_are_answered_at_once(tmp_path: Path) -> None:
    """A tenth of what acceptance asks, in five times a tenth of its time: CI's hosts are busy."""
    names = [f"case_{number}" for number in range(1000)]
    with History(tmp_path / "h") as known:
        for at in range(300):
            known.add(
                night(at, *((n, FAIL if n == "case_7" and at > 250 else PASS) for n in names))
            )
    began = time.monotonic()
    assert "since 2026-09-09" in rig("case_7", path=tmp_path / "h")
    assert "1 case was not good" in rig(path=tmp_path / "h")
    assert time.monotonic() - began < 5.0
