"""A night: its parts run for real, to their end or to that of the night; what is told of it."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import re
import shlex
import signal
import smtplib
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiosmtpd.controller
import kcidb_io
import pytest
from emulated_bmc import free_port
from fake_kernel import make_project

from rig import afterwards, cells, cli, config, nightly, nightmail, site
from rig.cells import State, Told
from rig.config import Config
from rig.errors import InfrastructureError, UsageError
from rig.matrix import Cell
from rig.night import End, Level, Night, Outcome, Part, summary
from rig.nightly import Hook, Mail, Nightly, Plan, Request
from rig.results import Case, Run, Splat, Status, to_json

ROOT = Path(__file__).parent.parent
TOML = """
[kernel.k]
[machine.one]
cpus = 1
memory_mib = 512
"""
# A part of a night: it leaves what lies there for it, waits if it is told to, and tidies up.
PART = """
import os, shutil, signal, sys, time
from pathlib import Path
name, place = sys.argv[1:]
here = Path(os.environ["RIG_STAGE"])
def interrupted(*_):
    (here / "log").open("a").write(f"{name} tidies up\\n")
    sys.exit(130)
signal.signal(signal.SIGINT, interrupted)
(here / "log").open("a").write(f"{name} begins\\n")
for one in (here / name).iterdir() if (here / name).is_dir() else ():
    if one.name != "how":
        (shutil.copytree if one.is_dir() else shutil.copy2)(one, Path(place) / one.name)
how = (here / name / "how").read_text().split() if (here / name / "how").exists() else ["0"]
if how[0] == "waits":
    time.sleep(60)
print("error: so it is told" if how[0] != "0" else "fine")
sys.exit(int(how[0]))
"""
RUN = Run(
    "20260101-000000-k",
    "2026-01-01T00:00:00+00:00",
    "rig boot-and-test k",
    {"name": "k", "release": "6.12.1"},
    {"name": "one"},
    cases=(Case("abi", "wait", "a", Status.PASS), Case("abi", "wait", "b", Status.PASS)),
    complete=True,
)
BROKEN = replace(
    RUN,
    cases=(
        Case("abi", "wait", "a", Status.PASS),
        Case("abi", "wait", "b", Status.FAIL, message="<b> & broke", reproduce="rig again b"),
    ),
    splats=(Splat("warning", "WARNING in f", 1, 2, "f", "", False),),
)
READS = {"matrix": "matrix", "exact": "bench", "faults": "junit", "stress": "run"}
JUNIT = """<testsuites><testsuite name="s"><testcase classname="drill" name="row one"/>
<testcase classname="drill" name="row two">{}</testcase></testsuite></testsuites>"""


def bench(value: int) -> str:
    row = {"name": "nop", "value": value, "unit": "instructions", "calls": 1}
    return json.dumps({"exact": [{"kernel": "k", "rows": [row]}]})


ONE = '[[part]]\nname="a"\nrun="x {place}"\nreads="run"\n'


class Stage:
    """A project whose parts leave what they are given."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_project(root, TOML)
        bench_ = root / "guest-tests/bench"
        bench_.mkdir(parents=True)
        (bench_ / "bench.toml").write_text("")
        self.config: Config = config.load(root / "rig.toml")
        self.here, self.results = root / "stage", root / "results"
        self.here.mkdir()
        (root / "part.py").write_text(PART)
        monkeypatch.setenv("RIG_STAGE", str(self.here))
        self.said: list[str] = []
        self.day = datetime.datetime(2026, 1, 1, 22, tzinfo=datetime.UTC)
        self.plan = Plan(
            tuple(
                nightly.PartOf(name, f"python part.py {name} {{place}}", reads)
                for name, reads in READS.items()
            )
        )
        self.whole()

    def leaves(self, part: str, files: dict[str, str | bytes], how: str = "0") -> None:
        place = self.here / part
        place.mkdir(exist_ok=True)
        for name, text in {**files, "how": how}.items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def matrix(self, run: Run, *more: Told) -> None:
        end = cells.End.PASS if run.exit_code == 0 else cells.End.FAIL
        told = Told("abi-k-one", end, run.exit_code, 1, 1.0, place="cells/abi-k-one")
        state = State("c", "m", (told, *more))
        at = "cells/abi-k-one"
        files: dict[str, str | bytes] = {
            "matrix.json": to_json(state),
            f"{at}/run-1.json": to_json(run),
            f"{at}/{run.id}/report.html": "<p>a report</p>",
        }
        self.leaves("matrix", files, str(run.exit_code))

    def whole(self) -> None:
        self.matrix(RUN)
        self.leaves("exact", {"bench.json": bench(100), "b/bench.html": "<p>figures</p>"})
        self.leaves("faults", {"junit.xml": JUNIT.format("")})
        stress = replace(RUN, id="s", cases=(Case("stress", "storm", "", Status.PASS),))
        self.leaves("stress", {"run.json": to_json(stress)})

    def night(self, **more: Any) -> nightly.Seen:
        """A day after the one before."""
        self.day += datetime.timedelta(days=1)
        request = Request(self.results, **more)
        now = self.day
        return Nightly(request, self.plan, self.config, self.said.append, lambda: now).run()

    def told(self, seen: nightly.Seen) -> Path:
        return afterwards.conclude(
            seen, self.plan, self.results, self.config.root, self.said.append
        )

    @property
    def log(self) -> list[str]:
        return (self.here / "log").read_text().splitlines()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


# -- what is run ----------------------------------------------------------------------------------


def test_a_night_that_is_well(stage: Stage) -> None:
    seen = stage.night()
    assert seen.summary.good
    assert [(part.name, part.end) for part in seen.night.parts] == [
        ("matrix", End.DONE), ("exact", End.DONE), ("faults", End.DONE), ("stress", End.DONE),
    ]  # fmt: skip
    assert sorted(seen.night.results) == [
        "abi/wait::a [k, one]", "abi/wait::b [k, one]", "cell abi-k-one", "faults: drill::row one",
        "faults: drill::row two", "stress/storm [k, one, stress]",
    ]  # fmt: skip
    assert seen.night.figures == {"nop [k, exact]": Level(100.0, "instructions", part="exact")}
    assert seen.night.kernels == {"k": "6.12.1"}
    assert nightly.load(seen.place / nightly.NIGHT) == seen.night
    assert seen.night.good


def test_two_nights_with_a_failure_and_ten_instructions_more(stage: Stage) -> None:
    stage.night()
    stage.matrix(BROKEN)
    stage.leaves("exact", {"bench.json": bench(110)})
    stage.leaves("faults", {"junit.xml": JUNIT.format('<failure message="too late"/>')}, "1")
    seen = stage.night()
    said = seen.summary
    assert [one.what for one in said.new] == [
        "abi/wait::b [k, one]", "cell abi-k-one", "faults: drill::row two",
    ]  # fmt: skip
    assert [one.words for one in said.regressions] == [
        "nop [k, exact]: 100 -> 110 instructions (+10.00%)"
    ]
    assert [one.what for one in said.warnings] == ["WARNING in f [k, one]"]
    assert said.because == "3 new failures, 1 regression, 1 new warning"
    text = nightmail.text(seen.night, said).splitlines()
    assert text[2:7] == [
        "New failures:",
        "  FAIL abi/wait::b [k, one]",
        "    <b> & broke",
        "    was pass",
        "    rig again b",
    ]
    assert text.index("Regressions:") < text.index("New warnings of kernels:")
    assert max(len(line) for line in text) < 100


def test_what_there_is_no_time_for_is_the_end_of_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nightly, "_LEAST_S", 1.0)
    stage.leaves("exact", {}, "waits")
    seen = stage.night(budget_h=5 / 3600)
    assert [part.end for part in seen.night.parts] == [
        End.DONE, End.OUT_OF_TIME, End.NOT_BEGUN, End.NOT_BEGUN,
    ]  # fmt: skip
    assert stage.log == ["matrix begins", "exact begins", "exact tidies up"]
    assert seen.summary.because == "incomplete"
    assert "faults: not begun, the night was over" in seen.summary.left


def test_a_part_has_its_own_share(stage: Stage) -> None:
    first, *rest = stage.plan.part
    stage.plan = replace(stage.plan, part=(replace(first, at_most_h=1 / 3600), *rest))
    stage.leaves("matrix", {}, "waits")
    seen = stage.night()
    assert [part.end for part in seen.night.parts][:2] == [End.OUT_OF_TIME, End.DONE]


@pytest.mark.parametrize(
    ("files", "how", "words"),
    [
        ({}, "0", "not a saved run"),
        ({"run.json": "{"}, "0", "not a saved run"),
        ({}, "3", "exit code 3: error: so it is told"),
    ],
)
def test_a_part_that_leaves_nothing_is_no_pass(
    stage: Stage, files: dict[str, str | bytes], how: str, words: str
) -> None:
    (stage.here / "stress/run.json").unlink()
    stage.leaves("stress", files, how)
    seen = stage.night()
    part = seen.night.parts[-1]
    assert part.end is End.FAILED
    assert not seen.summary.good
    assert re.search(words, part.why), part.why


def test_one_part_is_not_the_night(stage: Stage) -> None:
    """What a part leaves may be anything."""
    first, *rest = stage.plan.part
    stage.plan = replace(stage.plan, part=(replace(first, run="no-such-tool {place}"), *rest))
    stage.leaves("exact", {"bench.json": '{"exact": [{"kernel": "k"}]}'})
    stage.leaves("faults", {"junit.xml": JUNIT.format("<failure>\n</failure>")}, "1")
    (stage.here / "stress/run.json").write_text('<?xml encoding="foo"?>')
    seen = stage.night()
    ends = [part.end for part in seen.night.parts]
    assert ends == [End.FAILED, End.FAILED, End.DONE, End.FAILED]
    assert "no-such-tool" in seen.night.parts[0].why
    assert seen.night.results["faults: drill::row two"].status is Status.FAIL


def test_an_exit_code_that_nothing_explains_is_no_pass(stage: Stage) -> None:
    stage.leaves("faults", {"junit.xml": JUNIT.format("")}, "1")
    seen = stage.night()
    assert seen.night.parts[2].why == "exit code 1, and none of its results says why"
    assert not seen.summary.good


def test_what_is_skipped_and_fails_on_its_way_out_has_failed(stage: Stage) -> None:
    both = '<skipped message="not here"/></testcase><testcase classname="drill" name="row two">'
    both += '<error message="teardown"/>'
    stage.leaves("faults", {"junit.xml": JUNIT.format(both)}, "1")
    assert stage.night().night.results["faults: drill::row two"].status is Status.ERROR


def test_a_damaged_night_costs_no_other_one_anything(stage: Stage) -> None:
    first = stage.night()
    (first.place / nightly.NIGHT).write_text('{"name": ')
    seen = stage.night()
    page = stage.told(seen)
    assert "it cannot be read" in (page.parent / "all.html").read_text()
    assert seen.summary.good


def test_cells_that_were_not_run_are_told(stage: Stage) -> None:
    lost = Told("abi-k-two", cells.End.LOST, 3, 2, why="exit code 3")
    may = Told("abi-k-three", cells.End.LOST, 3, 2, allowed="it is new")
    cell = Cell("k", "two", "kselftest:timers")
    stage.matrix(RUN, lost.of(cell), may)
    seen = stage.night()
    assert seen.night.lost == {"timers/abi-k-two [k, two]": "lost, exit code 3"}
    kernels, rows = site._grid(seen.night)
    assert kernels == ["k"]
    (row,) = [one for one in rows if one.suite == "timers"]
    assert (row.machine, row.squares[0].lost) == ("two", "lost, exit code 3")
    assert ">lost</span>" in stage.told(seen).read_text()
    again = "rig kselftest timers --kernel k --machine two"
    assert seen.summary.left == (f"matrix: abi-k-two: lost, exit code 3; again: {again}",)
    assert seen.summary.may == ("matrix: abi-k-three: lost (it is new)",)
    assert "  matrix: abi-k-three: lost (it is new)" in nightmail.text(seen.night, seen.summary)
    assert "abi-k-three" in stage.told(seen).read_text()
    # And when it is run again, nothing was mended.
    stage.matrix(RUN, Told("abi-k-three", cells.End.PASS, 0, 1, allowed="it is new"))
    assert not stage.night().summary.fixed


def test_a_part_of_which_all_is_skipped_has_not_been_run(stage: Stage) -> None:
    one = '<testcase classname="drill" name="x"><skipped message="no slurmctld"/></testcase>'
    stage.leaves("faults", {"junit.xml": f"<testsuites><testsuite>{one}</testsuite></testsuites>"})
    seen = stage.night()
    assert seen.night.parts[2].why == "all of it was skipped: no slurmctld"
    assert not seen.summary.good


def test_what_two_parts_have_run_is_of_each(stage: Stage) -> None:
    """Whether or not both were run."""
    again = replace(RUN, cases=(*RUN.cases[:1], Case("stress", "storm", "", Status.PASS)))
    stage.leaves("stress", {"run.json": to_json(again)})
    first = stage.night()
    assert "abi/wait::a [k, one, stress]" in first.night.results
    only = stage.night(only=("stress",))
    assert sorted(only.night.results) == [
        "abi/wait::a [k, one, stress]",
        "stress/storm [k, one, stress]",
    ]
    assert not only.summary.gone
    stage.leaves("stress", {"run.json": to_json(replace(again, cases=again.cases[1:]))})
    assert stage.night().summary.gone == ("abi/wait::a [k, one, stress]",)


def test_a_report_of_a_kernel_is_told_where_every_case_is_skipped(stage: Stage) -> None:
    skipped = Case("stress", "storm", "", Status.SKIP, message="no such device")
    run = replace(RUN, cases=(skipped,), splats=BROKEN.splats)
    stage.leaves("stress", {"run.json": to_json(run)})
    seen = stage.night()
    assert seen.night.parts[3].why == "all of it was skipped: nobody says why"
    assert [one.what for one in seen.summary.warnings] == ["WARNING in f [k, one, stress]"]


def test_each_test_of_a_part_can_be_run_once_more(stage: Stage) -> None:
    (stage.config.root / "tests").mkdir()
    (stage.config.root / "tests/test_x.py").touch()
    for leaves in ("--junitxml={place}/junit.xml", "--junitxml {place}/junit.xml"):
        run = f"python -m pytest -q tests tests/test_x.py --whole {leaves}"
        part = nightly.PartOf("faults", run, "junit")
        again = nightly._once_more(part, "tests.test_x.Those", "test_a[b c]", stage.config.root)
        assert again == "python -m pytest -q --whole 'tests/test_x.py::Those::test_a[b c]'"
    # What is not found is run with its part.
    whole = "rig nightly --only faults"
    for owner in ("drill", "", ".", "..", "tests..test_x"):
        assert nightly._once_more(part, owner, "row one", stage.config.root) == whole
    seen = stage.night()
    assert seen.night.results["faults: drill::row one"].again == whole


def test_a_case_of_no_class(stage: Stage) -> None:
    one = '<testsuites><testsuite><testcase name="x"/><testcase classname="" name="y"/>'
    stage.leaves("faults", {"junit.xml": f"{one}</testsuite></testsuites>"})
    assert {"faults: ::x", "faults: ::y"} <= stage.night().night.results.keys()


def test_the_last_night_is_this_one_from_its_first_moment_on(stage: Stage) -> None:
    """Whoever takes its files after it was killed gets no other night's."""
    stage.told(stage.night())
    latest = stage.results / nightly.PLACE / nightly.LATEST
    assert ET.parse(latest / "junit.xml").getroot()[0].get("errors") == "0"
    seen = stage.night()
    assert latest.resolve() == seen.place.resolve()
    assert ET.parse(latest / "junit.xml").getroot()[0].get("errors") == "1"
    stage.told(seen)
    assert ET.parse(latest / "junit.xml").getroot()[0].get("errors") == "0"


def test_only_some_parts(stage: Stage) -> None:
    seen = stage.night(only=("exact",))
    assert [part.name for part in seen.night.parts] == ["exact"]
    with pytest.raises(UsageError, match="there is no part exakt"):
        stage.night(only=("exakt",))


def test_one_night_at_a_time(stage: Stage) -> None:
    runner = Nightly(Request(stage.results), stage.plan, stage.config)
    with runner._alone(), pytest.raises(InfrastructureError, match="another night runs"):
        stage.night()


def test_a_night_that_is_interrupted_keeps_what_there_is(stage: Stage) -> None:
    stage.leaves("exact", {}, "waits")

    def interrupt() -> None:
        end = time.monotonic() + 30
        while not (stage.here / "log").exists() or "exact begins" not in stage.log:
            if time.monotonic() > end:
                return
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    killer = threading.Thread(target=interrupt)
    killer.start()
    seen = stage.night()
    killer.join()
    assert seen.interrupted
    assert (stage.told(seen).parent / seen.night.name / "index.html").is_file()
    assert stage.log[-1] == "exact tidies up"
    night = nightly.load(nightly.places(stage.results)[-1] / nightly.NIGHT)
    assert "abi/wait::a [k, one]" in night.results
    assert [part.end for part in night.parts][:3] == [End.DONE, End.OUT_OF_TIME, End.NOT_BEGUN]
    assert not night.good


def test_a_regression_stays_until_it_is_accepted(stage: Stage) -> None:
    stage.night()
    stage.leaves("exact", {"bench.json": bench(110)})
    stage.night()
    again = stage.night()
    stage.told(again)
    assert len(again.summary.regressions) == 1
    with pytest.raises(UsageError, match="for a reason"):
        nightly.accept(stage.results, again.night.name, " ")
    with pytest.raises(UsageError, match="there is no night 1999"):
        nightly.accept(stage.results, "1999", "why not")
    night = nightly.accept(stage.results, again.night.name, "it is what the check costs")
    site.accepted(stage.results, night)
    assert "it is what the check costs" in (again.place / "index.html").read_text()
    assert site.briefs(stage.results)[-1].word == "accepted"
    front = (stage.results / "nights/index.html").read_text()
    assert "it is what the check costs" in front
    assert ">ACCEPTED<" in front
    assert stage.night().summary.good


def test_a_night_of_some_parts_is_accepted_by_nobody(stage: Stage) -> None:
    """It would count as good, and no other be measured by it."""
    stage.whole()
    seen = stage.night(only=("exact",))
    with pytest.raises(UsageError, match="was of some parts alone"):
        nightly.accept(stage.results, seen.night.name, "why not")


def test_a_regression_outlives_a_night_that_did_not_measure_it(stage: Stage) -> None:
    """That somebody has called good for another reason, when the last to have it is long ago."""
    stage.night()
    stage.leaves("exact", {"bench.json": bench(110)})
    for _ in range(15):
        assert stage.night().summary.regressions
    (stage.here / "exact/bench.json").unlink()
    stage.leaves("exact", {}, "3")
    blind = stage.night()
    assert not blind.night.figures
    nightly.accept(stage.results, blind.night.name, "the host was rebooted")
    stage.leaves("exact", {"bench.json": bench(110)}, "0")
    for _ in range(2):
        (moved,) = stage.night().summary.regressions
        assert (moved.before, moved.after) == (100, 110)


def test_a_case_that_is_skipped_since_it_failed_is_no_pass_to_anybody(stage: Stage) -> None:
    case = Case("abi", "wait", "a", Status.FAIL, message="a.c:1: no")
    stage.matrix(replace(RUN, cases=(case, RUN.cases[1])))
    stage.night()
    skipped = replace(case, status=Status.SKIP, message="no such call")
    stage.matrix(replace(RUN, cases=(skipped, RUN.cases[1])))
    stage.night()
    seen = stage.night()
    assert not seen.summary.good
    stage.told(seen)
    xml = ET.parse(seen.place / "junit.xml").getroot()
    assert xml[0].get("failures") == "1"
    text = (seen.place / "summary.txt").read_text()
    assert "  SKIP abi/wait::a [k, one] (it was fail)\n" in text
    assert "1 skipped, " in text


def test_a_square_is_no_better_than_its_cell(stage: Stage) -> None:
    """Where all cases are good, and the kernel was not; where all was skipped."""
    cell = Cell("k", "one", "abi")
    splat = Splat("kasan-uaf", "KASAN: use-after-free in f", 1, 2)
    for run in (
        replace(RUN, splats=(splat,)),
        replace(RUN, cases=tuple(replace(c, status=Status.SKIP) for c in RUN.cases)),
    ):
        stage.matrix(run)
        told = cells.load(stage.here / "matrix").cells[0]
        state = State("c", "m", (replace(told.of(cell), end=cells.End.FAIL, code=1, why="it"),))
        (stage.here / "matrix/matrix.json").write_bytes(to_json(state))
        (row,) = [one for one in site._grid(stage.night().night)[1] if one.suite == "abi"]
        assert (row.squares[0].worst, row.squares[0].bad) == ("fail", 1)


def test_a_square_of_which_all_was_skipped_is_not_green() -> None:
    skip, well = Outcome(Status.SKIP), Outcome(Status.PASS)
    assert site._square([skip, skip], "x").worst == "skip"
    assert site._square([skip, well], "x").worst == "pass"


def test_a_cell_that_passed_when_its_machine_had_gone_away_is_flaky(stage: Stage) -> None:
    stage.matrix(RUN)
    told = cells.load(stage.here / "matrix").cells[0]
    state = State("c", "m", (replace(told.of(Cell("k", "one", "abi")), tries=1, before=(6,)),))
    (stage.here / "matrix/matrix.json").write_bytes(to_json(state))
    (flaky,) = stage.night().summary.flaky
    assert flaky.what == "abi/the cell [k, one]"
    assert "went away in a try before" in flaky.now.words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "missing required field `part`"),
        ("part = []", "has no"),
        ('[[part]]\nname="a"\nrun="x {place}"\nreads="runs"', "reads 'runs'"),
        ('[[part]]\nname="a"\nrun="x"\nreads="run"', "has no {place}"),
        ('[[part]]\nname="a"\nrun="x \' {place}"\nreads="run"', "No closing quotation"),
        ('[[part]]\nname="a/b"\nrun="x {place}"\nreads="run"', "a name of its own"),
        ('x = 1\n[[part]]\nname="a"\nrun="x {place}"\nreads="run"', "unknown key 'x'"),
        ('budget_h = 0\n[[part]]\nname="a"\nrun="x {place}"\nreads="run"', "more than nothing"),
        ('[[part]]\nname="a"\nrun="x {place}"\nreads="run"\n[mail]\nto=[]\nfrom="x"', "needs `to`"),
        ('[[part]]\nname="a"\nrun="x {place}"\nreads="run"\n[hook]\nrun="x"\nwhen="no"', "when is"),
        ('[[part]]\nname="a"\nrun="x {place}"\nreads="run"\nat_most_hours=1', "'at_most_hours'"),
        (f'{ONE}[mail]\nto=["a@b"]\nfrom="a@b"\nstart_tls=true', "'start_tls'"),
        (f'{ONE}[mail]\nto=["a@b"]\nfrom="rig <"', "no address of a mail"),
        (f'{ONE}[mail]\nto=["a@b"]\nfrom="a@b"\nsmtp="x:y"', "smtp is 'x:y'"),
        (f'{ONE}[mail]\nto=["a@b"]\nfrom="a@b"\npassword="secret"', "no reference to a secret"),
    ],
)
def test_what_is_wrong_in_a_plan(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "nightly.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        nightly.read(path)


def test_that_of_the_project() -> None:
    plan = nightly.read(ROOT / nightly.FILE)
    assert [one.name for one in plan.part] == ["matrix", "exact", "faults", "boards", "stress"]
    for one in plan.part:
        words = [word.replace("{place}", "x") for word in shlex.split(one.run)]
        if words[0] == "rig":
            cli._parser().parse_args(words[1:])
        else:
            assert words[:3] == ["python", "-m", "pytest"]
            assert all((ROOT / word).is_file() for word in words if word.startswith("tests/"))


# -- what is told ---------------------------------------------------------------------------------


class Kept:
    """A handler of aiosmtpd's that keeps what it is sent, and what its server was told."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.refuses = False

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        if self.refuses:
            return "554 no such list"
        found = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(found, EmailMessage)
        self.mails.append(found)
        return "250 fine"


@contextlib.contextmanager
def a_mail_server() -> Iterator[tuple[Kept, int]]:
    kept = Kept()
    port = free_port()
    server = aiosmtpd.controller.Controller(kept, hostname="127.0.0.1", port=port)
    server.start()
    try:
        yield kept, port
    finally:
        server.stop()


def test_a_mail_names_both_first(stage: Stage) -> None:
    stage.night()
    stage.matrix(BROKEN)
    stage.leaves("exact", {"bench.json": bench(110)})
    with a_mail_server() as (kept, port):
        mail = Mail(
            ("l@example.org", "m@example.org"), "Rig <rig@example.org>", f"127.0.0.1:{port}"
        )
        stage.plan = replace(stage.plan, mail=mail)
        seen = stage.night()
        stage.told(seen)
        (one,) = kept.mails
        assert one["Subject"].startswith(
            "[rig] 6.12.1: 2 new failures, 1 regression, 1 new warning"
        )
        assert one["To"] == "l@example.org, m@example.org"
        assert one["Message-ID"].endswith("@example.org>")
        assert one.get_content_type() == "text/plain"
        body = one.get_content().splitlines()
        assert body[2:4] == ["New failures:", "  FAIL abi/wait::b [k, one]"]
        assert body[body.index("Regressions:") + 1].strip() == (
            "nop [k, exact]: 100 -> 110 instructions (+10.00%)"
        )
        stage.plan = replace(stage.plan, mail=replace(mail, when="bad"))
        stage.whole()
        stage.told(stage.night())
        assert len(kept.mails) == 1  # a good night
        kept.refuses = True
        stage.plan = replace(stage.plan, mail=mail)
        page = stage.told(stage.night())
        assert page.is_file()
        assert any("the mail could not be sent by 127.0.0.1" in words for words in stage.said)


def test_a_night_that_cannot_begin_is_told(stage: Stage) -> None:
    mail = '[mail]\nto = ["l@example.org"]\nfrom = "r@example.org"\nsmtp = "127.0.0.1:{}"\n'
    part = '[[part]]\nname = "p"\nrun = "true {place}"\nreads = "run"\n'
    root = stage.config.root
    words = ["--rig-toml", str(root / "rig.toml"), "-q", "nightly", "--plan"]
    (root / "results/nights").mkdir(parents=True)
    with (root / "results/nights/.lock").open("w") as lock, a_mail_server() as (kept, port):
        fcntl.flock(lock, fcntl.LOCK_EX)
        (root / "n.toml").write_text(part + mail.format(port))
        assert cli.main([*words, str(root / "n.toml")]) == InfrastructureError.exit_code
    (found,) = kept.mails
    assert found["Subject"].startswith("[rig] nightly: no night: another night runs in ")
    assert "could not begin" in found.get_content()
    heard = root / "heard"
    said = f'[hook]\nrun = "cat >{heard}; echo =$RIG_NIGHT=$RIG_NIGHT_GOOD >>{heard}"\n'
    (root / "n.toml").write_text(part + mail.format(1) + said)
    with (root / "results/nights/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cli.main([*words, str(root / "n.toml")]) == InfrastructureError.exit_code
    assert "could not begin" in heard.read_text()
    assert heard.read_text().endswith("\n==0\n")
    # One that cannot begin for what is in rig.toml is told as well; a mistake of who asks is his.
    heard.unlink()
    assert cli.main([*words, str(root / "n.toml"), "--only", "x"]) == UsageError.exit_code
    assert not heard.exists()
    with (root / "rig.toml").open("a") as toml:
        toml.write("[kernel.k]\n")
    assert cli.main([*words, str(root / "n.toml")]) == UsageError.exit_code
    assert "could not begin" in heard.read_text()


def test_a_mail_server_that_is_not_there_costs_no_night(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", "a-secret-word")
    mail = Mail(("l@example.org",), "rig@example.org", "127.0.0.1:1", user="rig",
                password="env:MAIL_PASSWORD")  # fmt: skip
    stage.plan = replace(stage.plan, mail=mail)
    page = stage.told(stage.night())
    assert page.is_file()
    assert any("could not be sent" in words for words in stage.said)


def test_a_password_is_not_shown_where_a_server_repeats_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", "a-secret-word")

    refused: list[str] = []

    def login(self: Any, user: str, password: str) -> None:
        refused.append(password)
        raise smtplib.SMTPAuthenticationError(535, f"not with {password}".encode())

    monkeypatch.setattr(smtplib.SMTP, "login", login)
    with a_mail_server() as (_, port):
        mail = Mail(("l@example.org",), "rig@example.org", f"127.0.0.1:{port}", user="rig",
                    password="env:MAIL_PASSWORD")  # fmt: skip
        stage.plan = replace(stage.plan, mail=mail)
        stage.told(stage.night())
    assert refused == ["a-secret-word"]
    assert any("could not be sent" in words and "not with ..." in words for words in stage.said)
    assert "a-secret-word" not in "\n".join(stage.said)


def test_what_a_guest_calls_its_cases_reaches_no_terminal(stage: Stage) -> None:
    case = Case("abi", "wait", "a\x1b]52;c;x\x07" + "b" * 1200, Status.FAIL, message="x\x1b[2J")
    stage.matrix(replace(RUN, cases=(case,)))
    seen = stage.night()
    text = nightmail.text(seen.night, seen.summary)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert max(len(line) for line in text.splitlines()) <= 500


def test_a_hook_gets_the_summary(stage: Stage) -> None:
    stage.plan = replace(stage.plan, hook=Hook('cat >"$RIG_NIGHT/heard"; echo $RIG_NIGHT_GOOD >&2'))
    seen = stage.night()
    stage.told(seen)
    assert (seen.place / "heard").read_text() == (seen.place / "summary.txt").read_text()
    assert (seen.place / "hook.log").read_text() == "1\n"
    stage.plan = replace(stage.plan, hook=Hook("echo no way; exit 7"))
    stage.told(stage.night())
    assert any("the hook ended with exit code 7: no way" in words for words in stage.said)


def test_no_line_of_a_mail_is_too_long_for_a_server(stage: Stage) -> None:
    case = Case("abi", "wait", "\u4e2d" * 600, Status.FAIL)
    stage.matrix(replace(RUN, cases=(case,)))
    seen = stage.night()
    lines = nightmail.text(seen.night, seen.summary).encode().splitlines()
    assert 400 < max(map(len, lines)) <= 500


def test_what_is_skipped_now_is_told(stage: Stage) -> None:
    stage.night()
    skip = '<skipped message="not here"/>'
    stage.leaves("faults", {"junit.xml": JUNIT.format(skip)})
    seen = stage.night()
    page = stage.told(seen).read_text()
    assert seen.summary.because == "1 skipped and not before"
    assert "Skipped, and not before:" in (seen.place / "summary.txt").read_text()
    assert "Skipped, and not before" in page
    suite = ET.parse(seen.place / "junit.xml").getroot()[0]
    assert suite.find("testcase[@classname='skipped']/error") is not None


def test_for_other_programs(stage: Stage) -> None:
    stage.night()
    stage.leaves("exact", {"bench.json": bench(110)})
    cell = Cell("other", "one", "abi")
    unbuilt = cells.unbuilt(cell, "rig build other ended with exit code 4").of(cell)
    stage.matrix(BROKEN, Told("abi-k-two", cells.End.LOST, 3, 2, why="exit code 3"), unbuilt)
    seen = stage.night()
    stage.told(seen)
    suite = ET.parse(seen.place / "junit.xml").getroot()[0]
    assert (suite.get("failures"), suite.get("errors")) == ("4", "1")
    assert suite.find("testcase[@classname='figure']/failure") is not None
    assert suite.find("testcase[@name='abi/wait::b [k, one]']/failure") is not None
    assert suite.find("testcase[@classname='part']/error") is not None
    told = json.loads((seen.place / "kcidb.json").read_bytes())
    kcidb_io.schema.V4_3.validate(told)
    valid = {one["config_name"]: one["valid"] for one in told["builds"]}
    assert valid == {"k": True, "other": False}
    statuses = {one["path"]: one["status"] for one in told["tests"]}
    assert statuses["abi.wait.b"] == "FAIL"
    assert statuses["abi.wait.a"] == "PASS"


# -- pages ----------------------------------------------------------------------------------------


def test_pages_escape_what_is_not_ours(stage: Stage) -> None:
    stage.night()
    evil = "<script>alert(1)</script>"
    case = Case("abi", "wait", evil, Status.FAIL, message=f'"{evil}', reproduce=f"rig '{evil}'")
    splat = Splat("warning", f"WARNING in {evil}", 1, 2, "f", "", False)
    stage.matrix(replace(RUN, cases=(case,), splats=(splat,), machine={"name": f"one{evil}"}))
    seen = stage.night()
    page = stage.told(seen)
    pages = [page, seen.place / "index.html", *page.parent.glob("*.html")]
    assert len(pages) >= 6
    for one in pages:
        text = one.read_text()
        assert evil not in text, one
        assert text.count("<script>") == text.count("</script>") == 1, one
    assert "&lt;script&gt;alert(1)" in page.read_text()


def test_pages_lead_to_what_they_tell_of(stage: Stage) -> None:
    stage.told(stage.night())
    stage.matrix(BROKEN)
    seen = stage.night()
    page = stage.told(seen)
    killed = stage.night()  # has no page
    assert killed.place.is_dir()
    page = stage.told(seen)
    for one in (page, seen.place / "index.html", *page.parent.glob("*.html")):
        for name in re.findall(r'href="([^"]+)"', one.read_text()):
            path, _, anchor = name.partition("#")
            if path.startswith("data:"):
                continue
            target = one.parent / path if path else one
            assert target.is_file(), f"{one}: {name}"
            assert not anchor or anchor == "main" or f'id="{anchor}"' in target.read_text(), name
    assert 'href="exact/b/bench.html">figures</a>' in (seen.place / "index.html").read_text()
    strips = (page.parent / "cases-abi.html").read_text()
    assert f'title="{seen.night.name}: fail">F</a>' in strips
    assert "report and console" in page.read_text()


def test_what_became_dearer_comes_before_what_has_failed_for_long(stage: Stage) -> None:
    stage.night()
    stage.matrix(BROKEN)
    stage.night()
    stage.leaves("exact", {"bench.json": bench(110)})
    seen = stage.night()
    page, mail = stage.told(seen).read_text(), (seen.place / "summary.txt").read_text()
    for text in (page, mail):
        assert -1 < text.index("Regressions") < text.index("Still failing")
    assert "\n    rig nightly --only exact\n" in mail
    assert ">rig nightly --only exact<" in page


def test_each_square_has_an_anchor_of_its_own() -> None:
    those = [("a-b", "c", "m"), ("a", "b-c", "m"), ("a", "b", "c-m"), ("a_b", "c", "m")]
    assert len({site._anchor(*one) for one in those}) == len(those)


def test_each_suite_has_a_page_of_its_own(stage: Stage) -> None:
    cases = tuple(Case(suite, "x", "", Status.PASS) for suite in ("a:b", "a?b", "a_b"))
    stage.matrix(replace(RUN, cases=cases))
    page = stage.told(stage.night())
    assert len([*page.parent.glob("cases-a_b*.html")]) == 3


def test_who_may_read_pages_is_for_the_umask_to_say(stage: Stage) -> None:
    before = os.umask(0o027)
    try:
        page = stage.told(stage.night())
    finally:
        os.umask(before)
    assert page.stat().st_mode & 0o777 == 0o640


def test_old_nights_keep_what_they_came_to(stage: Stage) -> None:
    stage.matrix(BROKEN)
    for _ in range(2):
        stage.told(stage.night())
    stage.plan = replace(stage.plan, keep=1)
    stage.told(stage.night())
    old, middle, last = nightly.places(stage.results)
    assert not (old / "matrix").exists()
    assert not (middle / "matrix").exists()
    assert (last / "matrix").is_dir()
    assert (old / "summary.txt").is_file()
    assert "report and console" not in (old / "index.html").read_text()
    assert "report and console" in (last / "index.html").read_text()
    assert nightly.load(old / nightly.NIGHT).results


def test_a_hundred_nights(stage: Stage) -> None:
    """Of a thousand results each; the thousand of them are a step of the acceptance."""
    nights = stage.results / nightly.PLACE
    results = {f"abi/p{n}::c [k, one]": Outcome(Status.PASS) for n in range(1000)}
    for number in range(100):
        bad = {"abi/p3::c [k, one]": Outcome(Status.FAIL, "x")} if number % 7 == 3 else {}
        figures = {"nop [k, exact]": Level(100 + number // 30, "instructions")}
        name = f"2025{number:04}-000000"
        night = Night(name, "2025-01-01T00:00:00+00:00", parts=(Part("matrix", End.DONE),),
                      results={**results, **bad}, figures=figures, good=not bad)  # fmt: skip
        (nights / name).mkdir(parents=True)
        nightly.save(night, nights / name)
    seen = stage.night()
    began = time.monotonic()
    page = stage.told(seen)
    took = time.monotonic() - began
    assert took < 30
    assert page.stat().st_size < 2_000_000
    assert "101" in page.read_text()
    assert (page.parent / "cases-abi.html").stat().st_size < 1_000_000


# -- the verb -------------------------------------------------------------------------------------


def test_the_verb(stage: Stage) -> None:
    root = stage.config.root
    (root / "ci").mkdir(exist_ok=True)
    parts = "\n".join(
        f'[[part]]\nname = "{one.name}"\nrun = "{one.run}"\nreads = "{one.reads}"\n'
        for one in stage.plan.part
    )
    (root / "ci/nightly.toml").write_text(parts)
    argv = [sys.executable, "-m", "rig", "nightly"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*argv, *words], cwd=root, env=env, capture_output=True, text=True, check=False
        )

    done = run()
    assert done.returncode == 0, done.stderr
    assert "all good" in done.stdout
    page = done.stdout.splitlines()[-1].removeprefix("pages: ")
    assert Path(page).is_file()
    stage.matrix(BROKEN)
    time.sleep(1)
    done = run("--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["new"][0]["what"] == "abi/wait::b [k, one]"
    name = nightly.places(stage.results)[-1].name
    assert run("--accept", name, "known").returncode == 0
    assert run("--accept", name, "").returncode == 2
    assert site.briefs(stage.results)[-1].name == name
    assert summary(nightly.load(stage.results / f"nights/{name}/night.json"), []).new
