"""A matrix: what is in it, how its cells end, what an interrupted one goes on with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_kernel import make_project

from rig import cells, config, matrix
from rig.budget import Host
from rig.cells import End, Request, Runner, Told
from rig.config import Config
from rig.errors import UsageError
from rig.matrix import Cell
from rig.results import Case, Run, Splat, Status, to_json

ROOT = Path(__file__).parent.parent
TOML = """
[kernel.k]
[kernel.other]
[machine.one]
cpus = 1
memory_mib = 512
[machine.two]
cpus = 2
memory_mib = 512
"""
MATRIX = """
[[cells]]
kernels = ["k", "other"]
machines = ["one", "two"]
suites = ["abi"]

[[exclude]]
kernel = "other"
machine = "two"
why = "there is no such thing"

[[allowed]]
kernel = "other"
why = "it is new"
"""


@pytest.fixture
def project(tmp_path: Path) -> Config:
    make_project(tmp_path, TOML)
    (tmp_path / "matrix.toml").write_text(MATRIX)
    return config.load(tmp_path / "rig.toml")


def read(project: Config, text: str = MATRIX) -> tuple[Cell, ...]:
    path = project.root / "matrix.toml"
    path.write_text(text)
    return matrix.read(path, project)


# -- what is in it --------------------------------------------------------------------------------


def test_the_cells_of_a_block_but_for_what_is_left_out(project: Config) -> None:
    found = read(project)
    assert [cell.name for cell in found] == ["abi-k-one", "abi-k-two", "abi-other-one"]
    assert [cell.allowed for cell in found] == ["", "", "it is new"]
    assert found[0].command == "rig boot-and-test k --machine one --suite abi"
    assert matrix.lines(found)[-1] == "abi    other   one      may fail: it is new"


def test_a_cell_that_two_blocks_have_is_one(project: Config) -> None:
    block = '\n[[cells]]\nkernels = ["k"]\nmachines = ["one"]\nsuites = ["abi", "stress"]\n'
    names = [cell.name for cell in read(project, MATRIX + block)]
    assert names == ["abi-k-one", "abi-k-two", "abi-other-one", "stress-k-one"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('["one", "two"]', '["one", "twoo"]', "no machine 'twoo' in rig.toml"),
        ('["k", "other"]', '["kk", "other"]', "no kernel 'kk' in rig.toml"),
        ('machine = "two"', 'machine = "three"', "a rule is about no cell: kernel other, machine"),
        ('why = "it is new"', 'why = " "', "a rule has no reason"),
        ('suites = ["abi"]', "suites = []", "has no kernels, no machines or no suites"),
        ('kernel = "other"\nmachine = "two"\n', "", "there are no cells in it"),
        ('suites = ["abi"]', 'suites = "abi"', "Expected `array`"),
        ('kernel = "other"\nmachine', 'kernl = "other"\nmachine', "unknown key 'kernl'"),
        ("[[allowed]]", "[slurm]\nhour = 1\n[[allowed]]", "unknown key 'hour'"),
    ],
)
def test_what_is_wrong_in_it(project: Config, old: str, new: str, words: str) -> None:
    assert MATRIX.count(old) >= 1
    with pytest.raises(UsageError, match=words):
        read(project, MATRIX.replace(old, new, 1))


def test_a_cell_of_the_trees_own_tests(project: Config) -> None:
    found = read(project, MATRIX.replace('suites = ["abi"]', 'suites = ["kselftest:timers"]'))
    assert found[0].name == "kselftest-timers-k-one"
    assert found[0].command == "rig kselftest timers --kernel k --machine one"
    for wrong in ("kunit:x", "kselftest:"):
        with pytest.raises(UsageError, match="is no suite"):
            read(project, MATRIX.replace('suites = ["abi"]', f'suites = ["{wrong}"]'))


def test_two_cells_of_one_name_are_one_too_many(project: Config) -> None:
    """Results are found by it: one of them would get what the other came to."""
    toml = project.root / "rig.toml"
    more = '[machine.two-one]\n[kernel.k-two]\nsource = "linux"\n'
    toml.write_text(f"{toml.read_text()}\n{more}")
    (project.root / "matrix.toml").write_text(
        '[[cells]]\nkernels = ["k"]\nmachines = ["two-one"]\nsuites = ["abi"]\n'
        '[[cells]]\nkernels = ["k-two"]\nmachines = ["one"]\nsuites = ["abi"]\n'
    )
    with pytest.raises(UsageError, match="two cells are called abi-k-two-one"):
        matrix.read(project.root / "matrix.toml", config.load(toml))


def test_only_those_with_these_words(project: Config) -> None:
    found = read(project)
    assert [cell.name for cell in matrix.only(found, "one k-")] == ["abi-k-one"]
    with pytest.raises(UsageError, match="no cell has 'three'"):
        matrix.only(found, "three")


def test_what_runners_of_others_take(project: Config) -> None:
    found = read(project)
    include = json.loads(matrix.github(found))["include"]
    assert [one["name"] for one in include] == [cell.name for cell in found]
    assert include[2]["allowed_to_fail"] is True
    assert "\n" not in matrix.github(found)
    jobs = json.loads(matrix.gitlab(found))
    assert [*jobs] == ["stages", *(cell.name for cell in found)]
    script = jobs["abi-k-one"]["script"]
    assert script[0] == "make setup"
    assert script[2].startswith(".venv/bin/rig boot-and-test k --machine one")
    assert [jobs[cell.name]["allow_failure"] for cell in found] == [False, False, True]
    with pytest.raises(UsageError, match="300 cells"):
        matrix.github([Cell("k", f"m{number}", "abi") for number in range(300)])


def test_that_of_the_project(rig_config: Config) -> None:
    found = matrix.read(ROOT / matrix.FILE, rig_config)
    assert {cell.kernel for cell in found} >= {
        "async",
        "perf",
        "widened",
        "lockdep",
        "kasan",
        "kcsan",
        "baseline",
        "baseline-6.1",
    }
    own = [cell.suite for cell in found if not cell.suite.startswith("kselftest:")]
    assert all((ROOT / "guest-tests" / suite / "Makefile").exists() for suite in own)


# -- how its cells end ----------------------------------------------------------------------------

# In the place of rig: it logs when it begins and ends, and does what the file of its cell says. To
# wait is to wait for a line of the log, of another cell's or one that never comes; to last is to
# give another one the time to begin that must not.
RIG = """
import os, signal, sys, time
from pathlib import Path
words = sys.argv[2:]
here = Path(os.environ["RIG_CELLS"])
kernel = words[1]
name = words[0] if words[0] == "build" else f"{kernel}-{words[3]}"
def interrupted(*_):
    with open(here / "log", "a") as log:
        log.write(f"{name} tidies up\\n")
    sys.exit(130)
signal.signal(signal.SIGINT, interrupted)
signal.signal(signal.SIGTERM, interrupted)
with open(here / "log", "a") as log:
    log.write(f"{name} begins\\n")
how = here / (f"build-{kernel}" if words[0] == "build" else name)
lines = how.read_text().splitlines() if how.exists() else ["pass"]
if len(lines) > 1:
    how.write_text("\\n".join(lines[1:]) + "\\n")
word, _, code = lines[0].partition(" ")
if word == "lasts":
    time.sleep(float(code))
    word, code = "pass", ""
if word == "awaits":
    end = time.monotonic() + 30
    while f"{code} begins" not in (here / "log").read_text().splitlines():
        if time.monotonic() > end:
            sys.exit(1)
        time.sleep(0.02)
    word, code = "pass", ""
if word == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
if word in ("pass", "fail", "liar") and words[0] != "build":
    saved = here / f"run-{'fail' if word in ('fail', 'liar') else 'pass'}.json"
    Path(words[words.index("--json") + 1]).write_bytes(saved.read_bytes())
with open(here / "log", "a") as log:
    log.write(f"{name} ends\\n")
sys.exit(int(code or (1 if word == "fail" else 0)))
"""


class Stage:
    """A project whose rig does as it is told."""

    def __init__(self, project: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config, self.said = project, list[str]()
        self.here = project.root / "stage"
        self.here.mkdir()
        monkeypatch.setenv("RIG_CELLS", str(self.here))
        for status in (Status.PASS, Status.FAIL):
            case = Case("abi", "wait", "a", status)
            run = Run("r", "2026-01-01T00:00:00+00:00", "rig", cases=(case,), complete=True)
            (self.here / f"run-{status}.json").write_bytes(to_json(run))

    def told(self, name: str, *words: str) -> None:
        """One line for each time it is run; the last one holds from there on."""
        (self.here / name).write_text("\n".join(words) + "\n")

    def runner(self, *, jobs: int = 0, cores: int = 2, commit: str = "c") -> Runner:
        found = matrix.read(self.config.root / "matrix.toml", self.config)
        rig = (sys.executable, "-c", RIG)
        request = Request(found, self.config.root / "results", commit, jobs, rig)
        return Runner(request, self.config, self.said.append, Host(cores, 8192))

    def run(self, *, jobs: int = 0, cores: int = 2) -> tuple[dict[str, Told], int]:
        runner = self.runner(jobs=jobs, cores=cores)
        state = runner.run()
        code = state.exit_code(matrix.read(self.config.root / "matrix.toml", self.config))
        return {one.cell: one for one in state.cells}, code

    @property
    def log(self) -> list[str]:
        return (self.here / "log").read_text().splitlines()


@pytest.fixture
def stage(project: Config, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(project, monkeypatch)


def test_a_matrix_that_is_well(stage: Stage) -> None:
    found, code = stage.run()
    assert {one.end for one in found.values()} == {End.PASS}
    assert code == 0
    assert found["abi-k-one"].counts == {"pass": 1}
    assert stage.log[:2] == ["build begins", "build ends"]
    assert sum("build" in line for line in stage.log) == 4
    assert "PASS     abi-k-one" in "\n".join(stage.said)


def test_a_cell_that_fails_and_one_that_may(stage: Stage) -> None:
    stage.told("k-one", "fail")
    stage.told("other-one", "fail")
    found, code = stage.run()
    assert [one.end for one in found.values()] == [End.FAIL, End.PASS, End.FAIL]
    assert code == 1
    assert found["abi-k-one"].why == "abi/wait::a: fail"
    said = "\n".join(stage.said)
    assert "again: rig boot-and-test k --machine one --suite abi" in said
    assert "(fail)   abi-other-one" in said
    stage.told("k-one", "pass")
    (stage.config.root / "results/matrix.json").unlink()
    assert stage.run()[1] == 0


def test_exit_code_0_alone_is_no_pass(stage: Stage) -> None:
    stage.told("k-one", "liar 0")
    stage.told("k-two", "nothing 0")
    found, code = stage.run()
    assert [one.end for one in found.values()] == [End.FAIL, End.FAIL, End.PASS]
    assert found["abi-k-two"].why == "exit code 0, and no run was saved"
    assert code == 1


@pytest.mark.parametrize("code", [3, 6, -9])
def test_what_was_seen_before_it_was_lost_is_not_tried_away(
    stage: Stage, code: int, tmp_path: Path
) -> None:
    run = Run("r", "2026-01-01T00:00:00+00:00", "rig", complete=True)
    failed = Case("abi", "wait", "a", Status.FAIL)
    lost = Case("abi", "wait", "b", Status.ERROR, message="the machine went away")
    warned = Splat("warning", "WARNING in f", 1, 2)
    saved = tmp_path / "run.json"
    for seen, end in (
        (replace(run, cases=(failed, lost)), End.FAIL),
        (replace(run, cases=(replace(failed, status=Status.TIMEOUT),)), End.FAIL),
        (replace(run, cases=(lost,), splats=(warned,)), End.FAIL),
        (replace(run, cases=(replace(failed, status=Status.PASS), lost)), End.LOST),
    ):
        saved.write_bytes(to_json(seen))
        assert cells.judged(code, saved)[0] is end
    assert cells.judged(code, tmp_path / "none")[0] is End.LOST
    # And so it is by the way of a run: its second try would have passed.
    if code > 0:
        stage.told("k-one", f"fail {code}", "pass")
        found, _ = stage.run()
        assert (found["abi-k-one"].end, found["abi-k-one"].tries) == (End.FAIL, 1)


def test_a_machine_that_went_away_is_told_where_a_second_try_has_passed(stage: Stage) -> None:
    stage.told("k-one", "nothing 6", "pass")
    stage.told("k-two", "nothing 3", "pass")
    found, code = stage.run()
    assert code == 0
    assert [found[name].before for name in ("abi-k-one", "abi-k-two")] == [(6,), (3,)]
    assert [found[name].vanished for name in ("abi-k-one", "abi-k-two")] == [True, False]
    assert any("(0 s, 2 tries: exit code 6 before)" in words for words in stage.said)
    those = matrix.read(stage.config.root / "matrix.toml", stage.config)
    told = cells.summary(stage.runner().state, those)
    assert told[-1] == "passed in a second try, when its machine had gone away: abi-k-one"


def test_a_build_that_was_lost_is_tried_once_more(stage: Stage) -> None:
    stage.told("build-k", "nothing 3", "nothing 0")
    found, code = stage.run()
    assert code == 0
    assert {one.end for one in found.values()} == {End.PASS}
    assert stage.log.count("build begins") == 3


@pytest.mark.parametrize("lost", ["nothing 3", "nothing 6", "dies"])
def test_what_is_lost_is_tried_once_more(stage: Stage, lost: str) -> None:
    stage.told("k-one", lost, "pass")
    stage.told("k-two", lost)
    found, code = stage.run()
    assert (found["abi-k-one"].end, found["abi-k-one"].tries) == (End.PASS, 2)
    assert (found["abi-k-two"].end, found["abi-k-two"].tries) == (End.LOST, 2)
    assert code == 1
    assert stage.log.count("k-two begins") == 2


def test_a_kernel_that_does_not_compile_costs_its_cells_alone(stage: Stage) -> None:
    stage.told("build-k", "nothing 4")
    found, code = stage.run()
    assert [one.end for one in found.values()] == [End.UNBUILT, End.UNBUILT, End.PASS]
    assert "build-k.log" in found["abi-k-one"].why
    assert code == 1
    assert "k-one begins" not in stage.log


def test_side_by_side_where_there_are_cores(stage: Stage) -> None:
    """Each ends only when the other one has begun."""
    stage.told("k-one", "awaits k-two")
    stage.told("k-two", "awaits k-one")
    found, _ = stage.run(cores=3)
    assert {one.end for one in found.values()} == {End.PASS}


@pytest.mark.parametrize(("cores", "jobs"), [(2, 0), (8, 1)])
def test_one_by_one_where_there_is_no_room_or_only_one_is_wanted(
    stage: Stage, cores: int, jobs: int
) -> None:
    stage.told("k-one", "lasts 0.5")
    found, _ = stage.run(cores=cores, jobs=jobs)
    assert {one.end for one in found.values()} == {End.PASS}
    assert [line for line in stage.log if "build" not in line] == [
        "k-one begins", "k-one ends", "k-two begins", "k-two ends", "other-one begins",
        "other-one ends",
    ]  # fmt: skip


def test_a_matrix_goes_on_where_it_was_killed(stage: Stage) -> None:
    stage.told("k-two", "awaits nobody", "pass")
    runner = stage.runner()
    (stage.here / "log").touch()

    def interrupt() -> None:
        end = time.monotonic() + 30
        while "k-two begins" not in stage.log and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    killer = threading.Thread(target=interrupt)
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    killer.join()
    assert "k-two tidies up" in stage.log
    kept = json.loads((stage.config.root / "results/matrix.json").read_bytes())["cells"]
    saved = {one["cell"]: one["end"] for one in kept}
    assert saved == {"abi-k-one": "pass", "abi-k-two": "not run", "abi-other-one": "not run"}
    found, code = stage.run()
    assert code == 0
    assert stage.log.count("k-one begins") == 1
    assert {one.end for one in found.values()} == {End.PASS}


def test_another_state_of_a_checkout_is_another_commit(project: Config) -> None:
    def git(*words: str) -> None:
        argv = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        subprocess.run(argv, cwd=root, check=True, capture_output=True)

    root = project.root
    assert cells.commit(root) == ""
    git("init", "-q")
    (root / ".gitignore").write_text("results/\n")
    git("add", "-A")
    git("commit", "-qm", "x")
    (root / "results").mkdir(exist_ok=True)
    (root / "results/x").write_text("no part of it")
    clean = cells.commit(root)
    assert re.fullmatch(r"[0-9a-f]{12}", clean)
    (root / "matrix.toml").write_text(MATRIX + "# one\n")
    one = cells.commit(root)
    (root / "matrix.toml").write_text(MATRIX + "# two\n")
    two = cells.commit(root)
    (root / "kernel-configs/new test.c").write_text("one")
    three = cells.commit(root)
    (root / "kernel-configs/new test.c").write_text("two")
    four = cells.commit(root)
    (root / "nohup.out").write_text("no part of it, either")
    (root / "out").mkdir()
    (root / "out/matrix.json").write_text("nor what it writes itself")
    assert cells.commit(root) == four
    assert len({clean, one, two, three, four}) == 5
    assert all(each.startswith(f"{clean}+") for each in (one, two, three, four))


def test_another_commit_does_not_go_on_there(stage: Stage) -> None:
    stage.run()
    with pytest.raises(UsageError, match="without git nobody can tell of what"):
        stage.runner(commit="")
    with pytest.raises(UsageError, match="has another commit of before"):
        stage.runner(commit="d")
    (stage.config.root / "matrix.toml").write_text(MATRIX.replace('"other"]', '"other", "k"]'))
    stage.runner()  # the same cells
    text = MATRIX.replace('suites = ["abi"]', 'suites = ["abi", "more"]')
    (stage.config.root / "matrix.toml").write_text(text)
    with pytest.raises(UsageError, match="has another matrix of before"):
        stage.runner()


def test_the_grid_says_what_there_is(stage: Stage) -> None:
    stage.told("other-one", "fail")
    runner = stage.runner()
    state = runner.run()
    found = matrix.read(stage.config.root / "matrix.toml", stage.config)
    assert cells.summary(state, found) == [
        "          k     other",
        "abi  one  pass  (fail)",
        "abi  two  pass  -",
        "",
        "2 of 3 cells passed, 1 of the others may fail",
    ]


def test_the_verb(project: Config) -> None:
    (project.root / "ci").mkdir()
    (project.root / "ci/matrix.toml").write_text(MATRIX)

    def rig(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "rig", "matrix", *words],
            cwd=project.root, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert "abi    k       two" in rig()
    assert [one["name"] for one in json.loads(rig("list", "--json", "--only", "two"))] == [
        "abi-k-two"
    ]
    assert len(json.loads(rig("run", "--on", "github"))["include"]) == 3
    assert "no cell has 'x'" in rig("list", "--only", "x", code=2)
    assert "no matrix" in rig("list", "--matrix", "none.toml", code=2)
