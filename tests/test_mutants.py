"""rig mutants: what a mutant has to say of itself, and what counts as catching it."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_kernel import PATCH, make_project, make_series, make_tree
from guest_sources import source

from rig import config, mutants
from rig.config import Config
from rig.errors import BootError, UsageError
from rig.mutants import End, Mutant
from rig.results import Case, Run, Status

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "ci"))
HAZARDS = importlib.import_module("hazards")
DIFF = """
---
--- a/kernel/sys.c
+++ b/kernel/sys.c
@@ -1 +1 @@
-one
+two
"""
WORDS = "The clock stands still.\n\nHazard: clocks\nCaught-by: abi/state::ticks\n"
SMOKE = "abi/smoke"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def writing(text: str, name: str = "no-tick") -> Path:
        (tmp_path / f"{name}.patch").write_text(text)
        return tmp_path

    return writing


# -- what it says of itself -----------------------------------------------------------------------


def test_a_mutant_says_what_it_breaks_and_who_is_to_notice(write: Write) -> None:
    text = (
        WORDS.replace("still.", "still\nfor ever.") + "Kind: lifetime, concurrency\nKernel: kasan\n"
    )
    (mutant,) = mutants.read(write(text + DIFF))
    assert mutant.name == "no-tick"
    assert mutant.says == "The clock stands still for ever."
    assert mutant.hazard == "clocks"
    assert mutant.catcher == ("abi", "state", "ticks")
    assert mutant.kinds == ("lifetime", "concurrency")
    assert (mutant.kernel, mutant.machine) == ("kasan", None)
    assert mutant.patch == (text + DIFF).encode()


def test_mutants_come_by_their_names(write: Write) -> None:
    for name in ("b", "a", "c-2"):
        place = write(WORDS + DIFF, name)
    assert [one.name for one in mutants.read(place)] == ["a", "b", "c-2"]


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (WORDS, "a", "no line '---'"),
        (WORDS.replace("Hazard", "Hazrad") + DIFF, "a", "unknown header 'Hazrad'"),
        (WORDS + "Kernel:\n" + DIFF, "a", "Kernel is empty"),
        (WORDS + "Hazard: two\n" + DIFF, "a", "Hazard is twice"),
        (WORDS.replace("Hazard: clocks\n", "") + DIFF, "a", "no header Hazard:"),
        (WORDS.replace("abi/state::ticks", "ticks") + DIFF, "a", "Caught-by is 'ticks'"),
        (WORDS.replace("The clock stands still.", "") + DIFF, "a", "no word"),
        (WORDS + DIFF, "No_Tick", "small letters"),
    ],
)
def test_a_mutant_that_leaves_something_out_is_refused(
    write: Write, text: str, name: str, words: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        mutants.read(write(text, name))
    assert f"{name}.patch" in caught.value.message


def test_no_directory_and_no_mutant_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no directory"):
        mutants.read(tmp_path / "none")
    with pytest.raises(UsageError, match=r"no \*.patch"):
        mutants.read(tmp_path)


# -- what counts ----------------------------------------------------------------------------------


def seen(*cases: tuple[str, str, Status]) -> Run:
    made = (
        Case(program.split("/")[0], program.split("/")[1], name, status)
        for program, name, status in cases
    )
    return Run(id="", started="", command="", cases=tuple(made))


GOOD = (SMOKE, "works", Status.PASS)
OTHER = ("abi/state", "main.tocks", Status.PASS)


def mutant_caught_by(words: str) -> Mutant:
    return Mutant("no-tick", Path("no-tick.patch"), b"", "Still.", "clocks", words)


@pytest.mark.parametrize(
    ("cases", "end"),
    [
        ([GOOD, ("abi/state", "ticks", Status.FAIL)], End.CAUGHT),
        ([GOOD, OTHER, ("abi/state", "main.ticks", Status.FAIL)], End.CAUGHT),
        ([GOOD, ("abi/state", "a.ticks", Status.PASS), ("abi/state", "b.ticks", Status.FAIL)],
         End.CAUGHT),
        ([GOOD, ("abi/state", "main.ticks", Status.CRASH)], End.CAUGHT),
        ([GOOD, OTHER, ("abi/state", "main.ticks", Status.PASS)], End.MISSED),
        ([GOOD, OTHER], End.MISSED),
        # Only a whole name, or the end of one after a dot.
        ([GOOD, ("abi/state", "main.clock_ticks", Status.FAIL)], End.ELSEWHERE),
        ([GOOD, ("abi/states", "main.ticks", Status.FAIL), OTHER], End.MISSED),
        ([GOOD, ("abi/state", "main.tocks", Status.FAIL), ("abi/state", "main.ticks", Status.PASS)],
         End.ELSEWHERE),
        # The time limit of a program, or its end in the middle, is no test.
        ([GOOD, ("abi/state", "main.ticks", Status.ERROR), ("abi/state", "", Status.TIMEOUT)],
         End.HUNG),
        ([GOOD, ("abi/state", "main.ticks", Status.ERROR), ("abi/state", "", Status.ERROR)],
         End.ELSEWHERE),
        # A splat is of the program.
        ([GOOD, ("abi/state", "main.ticks", Status.PASS), ("abi/state", "", Status.FAIL)],
         End.ELSEWHERE),
        # What breaks everything shows nothing.
        ([(SMOKE, "works", Status.FAIL), ("abi/state", "ticks", Status.FAIL)], End.UNFIT),
        ([GOOD, (SMOKE, "", Status.TIMEOUT), ("abi/state", "ticks", Status.FAIL)], End.UNFIT),
        ([("abi/state", "ticks", Status.FAIL)], End.DEAD),
        ([GOOD], End.DEAD),
        ([], End.DEAD),
    ],
)  # fmt: skip
def test_a_mutant_is_caught_by_the_case_it_names_and_nothing_else(
    cases: list[tuple[str, str, Status]], end: End
) -> None:
    mutant = mutant_caught_by("abi/state::ticks")
    assert mutants.judge(mutant, SMOKE, seen(*cases), None)[0] is end


@pytest.mark.parametrize(
    ("status", "end"),
    [(Status.FAIL, End.CAUGHT), (Status.CRASH, End.CAUGHT), (Status.TIMEOUT, End.HUNG)],
)
def test_a_splat_catches_where_a_program_is_named(status: Status, end: End) -> None:
    mutant = mutant_caught_by("abi/state")
    cases = seen(GOOD, ("abi/state", "main.ticks", Status.PASS), ("abi/state", "", status))
    assert mutants.judge(mutant, SMOKE, cases, None)[0] is end
    cases = seen(GOOD, ("abi/state", "main.ticks", Status.FAIL))
    assert mutants.judge(mutant, SMOKE, cases, None)[0] is End.ELSEWHERE


def test_why_nothing_ran_is_told() -> None:
    error = BootError("no console line in 20 s")
    end, words = mutants.judge(mutant_caught_by("abi/state::ticks"), SMOKE, seen(), error)
    assert (end, words) == (End.DEAD, "no console line in 20 s")


# -- those of the series --------------------------------------------------------------------------


def hazards() -> list[str]:
    return [row.name for row in HAZARDS.read((ROOT / "docs/hazards.md").read_text())]


def test_every_mutant_is_of_a_hazard_and_changes_little(rig_config: Config) -> None:
    for mutant in mutants.read(ROOT / rig_config.mutants.directory):
        assert mutant.hazard in hazards(), mutant.name
        changed = re.findall(
            rb"^[-+](?![-+]{2} [ab]/).*$", mutant.patch.partition(b"\n---\n")[2], re.M
        )
        assert 1 <= len(changed) <= 8, mutant.name


def test_every_case_that_is_named_is_there(rig_config: Config) -> None:
    for mutant in mutants.chosen(mutants.Request(), rig_config):
        suite, program, case = mutant.catcher
        name = re.escape(re.split("[./]", case)[-1])
        assert not case or re.search(rf"\b{name}\b", source(suite, program)), mutant.name


def test_there_are_enough_in_concurrency_and_lifetime(rig_config: Config) -> None:
    found = mutants.read(ROOT / rig_config.mutants.directory)
    assert sum({"concurrency", "lifetime"} & set(one.kinds) != set() for one in found) >= 15


def test_a_name_that_is_none_gets_a_hint(rig_config: Config) -> None:
    first = mutants.chosen(mutants.Request(), rig_config)[0]
    with pytest.raises(UsageError, match="no mutant") as caught:
        mutants.chosen(mutants.Request(names=(first.name + "x",)), rig_config)
    assert first.name in caught.value.hint


@pytest.mark.parametrize("case", ["ticks", ""])
def test_what_is_run_of_a_mutant(rig_config: Config, case: str) -> None:
    one = mutants.Mutant("m", Path("m.patch"), b"", "", "h", f"abi/clock{case and '::'}{case}")
    asked = mutants.wish(one, mutants.Request(), rig_config)
    smoke = rig_config.mutants.smoke.partition("/")[2]
    assert asked.cases == ((smoke, ""), ("clock", case))
    assert dict(asked.env) == rig_config.mutants.env
    assert int(rig_config.mutants.env["ABI_DEADLINE_S"]) > 0


# -- with a tree that is small --------------------------------------------------------------------


TOML = """
[default]
suites = ["suites/abi"]
[mutants]
directory = "mutants"
smoke = "abi/fine"
[kernel.k]
source = "linux"
series = "series"
configs = ["base"]
[machine.m]
"""
BROKEN = """Nothing compiles.

Hazard: clocks
Caught-by: abi/state::ticks

---
--- a/init/main.c
+++ b/init/main.c
@@ -3,5 +3,5 @@
\x20
 void start_kernel(void)
 {
-\tcounter = 2;
+\tcounter = nothing_of_the_kind;
 \tfor (;;)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("RIG_STORE", str(tmp_path / "store"))
    make_tree(tmp_path / "linux")
    make_series(tmp_path / "series", one=PATCH)
    make_project(tmp_path, TOML)
    for name in ("images/debian", "suites/abi", "mutants"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(ROOT / "tests/data/suites/hello/Makefile", tmp_path / "suites/abi")
    return config.load(tmp_path / "rig.toml")


def test_what_does_not_compile_is_told_and_the_next_one_is_tried(project: Config) -> None:
    """Each on top of the series, in a series of its own."""
    for name, text in {"a": BROKEN, "b": BROKEN.replace("nothing_of", "another_of")}.items():
        (project.root / "mutants" / f"{name}.patch").write_text(text)
    told: list[mutants.Verdict] = []
    verdicts = mutants.run(mutants.Request(), project, tell=told.append)
    assert tuple(told) == verdicts
    assert [(one.mutant.name, one.end) for one in verdicts] == [
        ("a", End.UNBUILT),
        ("b", End.UNBUILT),
    ]
    assert "nothing_of_the_kind" in verdicts[0].message
    assert "another_of_the_kind" in verdicts[1].message
    assert verdicts[0].reproduce == "rig mutants a"
    assert "0 of 2" in mutants.summary(verdicts)


def test_what_does_not_apply_is_told(project: Config) -> None:
    stale = BROKEN.replace("counter = 2", "counter = 7")
    (project.root / "mutants" / "a.patch").write_text(stale)
    (verdict,) = mutants.run(mutants.Request(), project)
    assert verdict.end is End.UNBUILT
    assert "a.patch" in verdict.message


def test_no_series_is_nothing_to_break(project: Config) -> None:
    (project.root / "mutants" / "a.patch").write_text(BROKEN)
    bare = replace(project, kernels={"k": replace(project.kernel(), series="")})
    with pytest.raises(UsageError, match="no series to break"):
        mutants.run(mutants.Request(), bare)


def test_an_unknown_kernel_is_refused_before_any_is_built(project: Config) -> None:
    (project.root / "mutants" / "a.patch").write_text(BROKEN)
    late = BROKEN.replace("Hazard", "Kernel: k2\nHazard")
    (project.root / "mutants" / "z.patch").write_text(late)
    with pytest.raises(UsageError, match="no kernel 'k2'"):
        mutants.run(mutants.Request(), project, tell=lambda _: pytest.fail("one was built"))
