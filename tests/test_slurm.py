"""A matrix on a cluster of Slurm's, a real one on loopback: a lost node, Ctrl-C, no cluster."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import emulated_slurm
import pytest
from emulated_slurm import Cluster
from fake_kernel import make_project
from test_matrix import RIG, TOML

from rig import config, matrix, slurm
from rig.cells import End, Request, State
from rig.config import Config
from rig.errors import InfrastructureError, UsageError
from rig.matrix import Slurm
from rig.results import Case, Run, Status, to_json

MATRIX = """
[[cells]]
kernels = ["k", "other"]
machines = ["one", "two"]
suites = ["abi"]

[slurm]
hours = 0.5
build_cpus = 1
build_mib = 256
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    place = tmp_path_factory.mktemp("s")
    with emulated_slurm.cluster(place) as one:
        yield one


class Stage:
    """A project whose rig does as it is told, on the nodes of the cluster."""

    def __init__(self, root: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        make_project(root, TOML)
        (root / "matrix.toml").write_text(MATRIX)
        self.config: Config = config.load(root / "rig.toml")
        self.cluster, self.said = cluster, list[str]()
        self.here = root / "stage"
        self.here.mkdir()
        (self.here / "log").touch()
        monkeypatch.setenv("RIG_CELLS", str(self.here))
        monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
        for status in (Status.PASS, Status.FAIL):
            case = Case("abi", "wait", "a", status)
            run = Run("r", "2026-01-01T00:00:00+00:00", "rig", cases=(case,), complete=True)
            (self.here / f"run-{status}.json").write_bytes(to_json(run))

    def told(self, name: str, *words: str) -> None:
        (self.here / name).write_text("\n".join(words) + "\n")

    def runner(self) -> slurm.Runner:
        path = self.config.root / "matrix.toml"
        found = matrix.read(path, self.config)
        rig = (sys.executable, "-c", RIG)
        request = Request(found, self.config.root / "results", "c", 0, rig)
        return slurm.Runner(request, self.config, matrix.slurm(path), self.said.append)

    @property
    def log(self) -> list[str]:
        return (self.here / "log").read_text().splitlines()

    def until(self, line: str, limit_s: float = 60.0) -> None:
        end = time.monotonic() + limit_s
        while line not in self.log:
            assert time.monotonic() < end, self.log
            time.sleep(0.05)


@pytest.fixture
def stage(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, cluster, monkeypatch)


def ends(state: State) -> dict[str, End]:
    return {one.cell: one.end for one in state.cells}


def test_a_matrix_on_a_cluster(stage: Stage) -> None:
    stage.told("k-two", "fail")
    stage.told("other-one", "nothing 3", "pass")
    state = stage.runner().run()
    assert ends(state) == {
        "abi-k-one": End.PASS, "abi-k-two": End.FAIL, "abi-other-one": End.PASS,
        "abi-other-two": End.PASS,
    }  # fmt: skip
    tries = {one.cell: one.tries for one in state.cells}
    assert tries["abi-other-one"] == 2
    assert stage.log.count("build begins") == 2
    assert stage.log.index("build ends") < stage.log.index("k-one begins")
    assert "FAIL     abi-k-two" in "\n".join(stage.said)
    assert (stage.config.root / "results/cells/abi-k-two/run-1.json").is_file()
    # What has come to its end is not run again, all else is.
    stage.told("k-two", "pass")
    before = len(stage.log)
    assert stage.runner().run().cells == state.cells
    assert len(stage.log) == before


def test_a_kernel_that_does_not_compile_costs_its_cells_alone(stage: Stage) -> None:
    stage.told("build-k", "nothing 4")
    state = stage.runner().run()
    assert [one.end for one in state.cells] == [End.UNBUILT, End.UNBUILT, End.PASS, End.PASS]
    assert "rig build k ended with exit code 4: build-k.log" in state.cells[0].why


def test_what_is_interrupted_is_cancelled_and_goes_on(stage: Stage) -> None:
    stage.told("k-one", "awaits nobody", "pass")

    def interrupt() -> None:
        stage.until("k-one begins")
        os.kill(os.getpid(), signal.SIGINT)

    killer = threading.Thread(target=interrupt)
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        stage.runner().run()
    killer.join()
    stage.until("k-one tidies up")
    assert stage.cluster.said("squeue", "-h") == ""
    assert set(ends(stage.runner().run()).values()) == {End.PASS}


@pytest.mark.slow
def test_a_node_that_is_lost_costs_its_cells_one_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "cluster"
    place.mkdir()
    with emulated_slurm.cluster(place, cpus=2) as cluster:
        (tmp_path / "project").mkdir()
        stage = Stage(tmp_path / "project", cluster, monkeypatch)
        for cell in ("k-one", "k-two", "other-one", "other-two"):
            stage.told(cell, "awaits nobody", "pass")
        found: list[State] = []
        runner = stage.runner()
        thread = threading.Thread(target=lambda: found.append(runner.run()))
        thread.start()
        for cell in ("k-one", "k-two"):
            stage.until(f"{cell} begins")
        cluster.kill("n1")
        # What waits on the other node would wait for 30 s, and then fail.
        for cell in ("k-one", "k-two", "other-one", "other-two"):
            stage.told(cell, "pass")
        thread.join(240)
        assert found, stage.said
        (state,) = found
        by_end = {end: [o.cell for o in state.cells if o.end is end] for end in End}
        assert not by_end[End.LOST], state
        again = [one for one in state.cells if one.tries == 2]
        assert again, state
        assert all(one.end is End.PASS for one in again)
        assert len(by_end[End.PASS]) + len(by_end[End.FAIL]) == 4


def test_no_cluster_is_one_error(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = stage.runner()
    monkeypatch.setenv("SLURM_CONF", str(stage.here / "nothing.conf"))
    with pytest.raises(InfrastructureError, match="the cluster did not take the jobs"):
        runner.run()
    monkeypatch.setenv("PATH", str(stage.here))
    with pytest.raises(InfrastructureError, match="there is no sbatch here"):
        stage.runner()


def test_what_is_asked_of_a_cluster(stage: Stage) -> None:
    path = stage.config.root / "matrix.toml"
    assert matrix.slurm(path) == Slurm(hours=0.5, build_cpus=1, build_mib=256)
    path.write_text(MATRIX.replace("hours = 0.5", "hours = 0"))
    with pytest.raises(UsageError, match=r"\[slurm\] hours"):
        matrix.slurm(path)


def test_why_jobs_wait_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "_TELL_S", 0.2)
    nodes = stage.cluster.said("sinfo", "-h", "-o", "%N").strip()
    stage.cluster.said("scontrol", "update", f"nodename={nodes}", "state=drain", "reason=test")
    found: list[State] = []
    runner = stage.runner()
    thread = threading.Thread(target=lambda: found.append(runner.run()))
    thread.start()
    try:
        end = time.monotonic() + 60
        while not any("jobs wait for the cluster: " in words for words in stage.said):
            assert time.monotonic() < end, stage.said
            time.sleep(0.05)
    finally:
        stage.cluster.said("scontrol", "update", f"nodename={nodes}", "state=resume")
        thread.join(120)
    assert set(ends(found[0]).values()) == {End.PASS}


def test_a_controller_that_does_not_answer_is_not_waited_for_for_ever(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "_AWAY_S", 1.0)
    stage.told("k-one", "awaits nobody", "pass")
    found: list[Exception] = []

    def run() -> None:
        try:
            stage.runner().run()
        except InfrastructureError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    stage.until("k-one begins")
    (stage.here / "squeue").write_text(
        "#!/bin/sh\necho 'Unable to contact controller' >&2\nexit 1\n"
    )
    (stage.here / "squeue").chmod(0o755)
    with monkeypatch.context() as away:
        away.setenv("PATH", f"{stage.here}:{os.environ['PATH']}")
        away.setattr(slurm, "_TIDY_S", 1.0)
        thread.join(60)
    stage.cluster.said("scancel", "-u", "root")
    (error,) = found
    assert "squeue has not answered for 1 s: Unable to contact controller" in str(error)
    # It could not see them end, and says which may go on.
    assert any(re.match(r"jobs may go on: .*; scancel \d+", words) for words in stage.said)


class Job:
    """One that has left what cannot be had."""

    job_id = "7"
    paths = SimpleNamespace(result_pickle=Path(__file__))

    def __init__(self, error: Exception) -> None:
        self.error = error

    def result(self) -> object:
        raise self.error


def test_a_job_that_failed_without_a_word() -> None:
    assert slurm._result(Job(ValueError("\n"))) == (None, "job 7: ValueError")
    assert slurm._result(Job(ValueError("first\nlast"))) == (None, "job 7: last")
