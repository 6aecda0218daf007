"""The cells of a matrix on a cluster of Slurm's: array jobs, a cell a task, through submitit.

Nodes share the checkout, the store and the results with this host. A build is a job of its own, so
a kernel is built once. A node that goes away costs what ran there one try: Slurm requeues it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from rig import cells, process
from rig.cells import TRIES, End, Request, State, Told
from rig.config import Config
from rig.errors import InfrastructureError
from rig.matrix import Cell, Slurm

JOBS = "slurm"  # below the results: what submitit keeps of its jobs
_LOOK_S = 1.0
_GONE_S = 30.0  # so long out of the queue and without a result: it has none
_AWAY_S = 900.0  # the controller
_TELL_S = 300.0  # between two words of what waits
_TIDY_S = 120.0
_RESTARTS = "SLURM_RESTART_COUNT"
# One task of an array more than this is a second array: slurm.conf's MaxArraySize is 1001.
_ARRAY = 1000


# -- on a node ------------------------------------------------------------------------------------


def on_node(rig: Sequence[str], root: str, results: str, what: bytes, before: int) -> bytes:
    """What a task does: a cell, to what it came to. Both as JSON. before: tries in other jobs."""
    cell = msgspec.json.decode(what, type=Cell)
    tries = before + int(os.environ.get(_RESTARTS, "0"))
    told = Told(cell.name, End.LOST, InfrastructureError.exit_code, why="its node was lost",
                tries=tries).of(cell)  # fmt: skip
    with _interrupted_by_scancel():
        while told.tries < TRIES and told.end in (End.NOT_RUN, End.LOST):
            told = cells.once(
                cell,
                told.tries + 1,
                Path(results),
                lambda w, log: _run(rig, root, w, log),
                told if told.tries else None,
            )
            if told.end is End.NOT_RUN:
                break
    return msgspec.json.encode(told)


def build_on_node(rig: Sequence[str], root: str, log: str, kernel: str) -> int:
    """The exit code of `rig build`."""
    with _interrupted_by_scancel():
        return _run(rig, root, ["build", kernel], Path(log))


@contextlib.contextmanager
def _interrupted_by_scancel() -> Iterator[None]:
    """SIGTERM is Ctrl-C: machines are ended first. submitit itself passes it over."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(rig: Sequence[str], root: str, words: Sequence[str], log: Path) -> int:
    with log.open("wb") as file:
        started = process.spawn(
            [*rig, "--quiet", *words], cwd=Path(root), stdout=file, stderr=subprocess.STDOUT
        )
        try:
            return started.wait()
        except KeyboardInterrupt:
            with contextlib.suppress(ProcessLookupError):
                os.kill(started.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return started.wait(_TIDY_S)
            return -signal.SIGKILL
        finally:
            process.end(started)


# -- here -----------------------------------------------------------------------------------------


class Runner:
    """Hands what has no end yet to the cluster, and gathers. State is on disk after each."""

    def __init__(
        self,
        request: Request,
        config: Config,
        asked: Slurm,
        tell: Callable[[str], None] = lambda words: None,
    ) -> None:
        for one in ("sbatch", "squeue", "scancel"):
            if not shutil.which(one):
                raise InfrastructureError(
                    f"there is no {one} here", hint="install slurm-client, and its slurm.conf"
                )
        self.state = cells.begun(request)
        self._request, self._config, self._asked, self._tell = request, config, asked, tell
        self._by_name = {cell.name: cell for cell in request.cells}

    def run(self) -> State:
        """All of it; KeyboardInterrupt cancels what is queued or runs, and it goes on with the next
        call.
        """
        self._request.results.mkdir(parents=True, exist_ok=True)
        self._forget()
        cells.save(self.state, self._request.results)
        waiting = [self._by_name[one.cell] for one in self.state.cells if not one.final]
        unbuilt = self._built([*dict.fromkeys(cell.kernel for cell in waiting)])
        for cell in waiting:
            if cell.kernel in unbuilt:
                self._keep(cell, cells.unbuilt(cell, unbuilt[cell.kernel]))
        ready = [cell for cell in waiting if cell.kernel not in unbuilt]
        # One that a cluster does not requeue, or that was killed there, is handed to it once more.
        for tries in range(TRIES):
            ready = self._gathered(self._submitted(ready, tries), last=tries + 1 == TRIES)
        self._known.unlink(missing_ok=True)
        return self.state

    @property
    def _known(self) -> Path:
        """The jobs that were handed over, for who comes after one that was killed."""
        return self._request.results / JOBS / "ids"

    def _forget(self) -> None:
        """Cancel what a rig that was killed has left on the cluster: it would do the same again."""
        with contextlib.suppress(FileNotFoundError):
            _cancelled(self._known.read_text().split(), self._tell)
            self._known.unlink()

    def _keep(self, cell: Cell, told: Told) -> None:
        those = tuple(told if one.cell == cell.name else one for one in self.state.cells)
        self.state = replace(self.state, cells=those)
        cells.save(self.state, self._request.results)
        self._tell(cells.line(cell, told))

    # -- jobs -------------------------------------------------------------------------------------

    def _executor(self, name: str, cpus: int, mib: int) -> Any:
        try:
            import submitit  # late, and an extra: rig[slurm]
        except ImportError as error:
            raise InfrastructureError(
                "submitit is not installed", hint=".venv/bin/pip install submitit"
            ) from error
        executor = submitit.AutoExecutor(self._request.results / JOBS / "%j", cluster="slurm")
        more: dict[str, object] = {"requeue": True, "open_mode": "append"}
        more |= {"account": self._asked.account} if self._asked.account else {}
        executor.update_parameters(
            name=name,
            timeout_min=max(1, round(self._asked.hours * 60)),
            cpus_per_task=max(1, cpus),
            slurm_mem=f"{max(mib, 256)}M",
            slurm_array_parallelism=self._request.jobs or _ARRAY,
            slurm_additional_parameters=more,
            **({"slurm_partition": self._asked.partition} if self._asked.partition else {}),
        )
        return executor

    def _built(self, kernels: Sequence[str]) -> dict[str, str]:
        """Why a kernel was not, for those that were not. One whose node was lost is built once
        more.
        """
        found: dict[str, str] = {}
        for tries in range(TRIES):
            again: list[str] = []
            found |= self._built_once(kernels, again, last=tries + 1 == TRIES)
            kernels = again
        return found

    def _built_once(
        self, kernels: Sequence[str], again: list[str], *, last: bool
    ) -> dict[str, str]:
        if not kernels:
            return {}
        self._tell(f"building {', '.join(kernels)}")
        executor = self._executor("rig-build", self._asked.build_cpus, self._asked.build_mib)
        logs = [str(self._request.results / f"build-{kernel}.log") for kernel in kernels]
        rig, root = list(self._request.rig), str(self._config.root)
        jobs = self._handed(executor, build_on_node, [[rig, root, log, kernel]
                            for log, kernel in zip(logs, kernels, strict=True)])  # fmt: skip
        found: dict[str, str] = {}
        for kernel, job in self._as_they_end(dict(zip(kernels, jobs, strict=True))):
            code, why = _result(job)
            said = why or (f"rig build {kernel} ended with exit code {code}" if code else "")
            if said and not last and (why or code in cells.LOST or code < 0):
                self._tell(f"{said}; once more")
                again.append(kernel)
            elif said:
                found[kernel] = f"{said}: build-{kernel}.log"
        return found

    def _submitted(self, those: Sequence[Cell], before: int) -> dict[str, Any]:
        """Jobs by cell: one array for those of the same size. before: tries they have had."""
        sizes: dict[tuple[int, int], list[Cell]] = {}
        for cell in those:
            sizes.setdefault(cells.needs(cell, self._config), []).append(cell)
        if self._request.jobs and sizes:  # at most so many of all of them: that is of one array
            cpus, mib = (max(one) for one in zip(*sizes, strict=True))
            sizes = {(cpus, mib): list(those)}
        found: dict[str, Any] = {}
        try:
            self._hand_in(sizes, before, found)
        except BaseException:
            _cancelled([job.job_id for job in found.values()], self._tell)
            raise
        return found

    def _hand_in(
        self, sizes: Mapping[tuple[int, int], list[Cell]], before: int, found: dict[str, Any]
    ) -> None:
        rig, root = list(self._request.rig), str(self._config.root)
        for (cpus, mib), alike in sizes.items():
            for start in range(0, len(alike), _ARRAY):
                part = alike[start : start + _ARRAY]
                words = [
                    [rig, root, str(self._request.results), msgspec.json.encode(cell), before]
                    for cell in part
                ]
                jobs = self._handed(self._executor("rig-cells", cpus, mib), on_node, words)
                found.update({cell.name: job for cell, job in zip(part, jobs, strict=True)})

    def _handed(self, executor: Any, what: Callable[..., object], each: list[list[Any]]) -> Any:
        try:
            jobs = executor.map_array(what, *(list(one) for one in zip(*each, strict=True)))
        except Exception as error:  # submitit's own, whatever sbatch says
            raise InfrastructureError(
                "the cluster did not take the jobs", output=str(error)[-2000:],
                hint="`sbatch --wrap true` has to work here",
            ) from error  # fmt: skip
        try:
            with self._known.open("a") as file:
                file.write("".join(f"{job.job_id}\n" for job in jobs))
        except OSError:  # the next run would not know of them
            _cancelled([job.job_id for job in jobs], self._tell)
            raise
        return jobs

    def _gathered(self, jobs: dict[str, Any], *, last: bool) -> list[Cell]:
        """Keep what each came to; cells whose jobs left nothing, and which may be tried again."""
        again: list[Cell] = []
        for name, job in self._as_they_end(jobs):
            cell = self._by_name[name]
            value, why = _result(job)
            if not why:
                self._keep(cell, msgspec.json.decode(value, type=Told))
            elif last:
                lost = Told(name, End.LOST, InfrastructureError.exit_code, TRIES, why=why)
                self._keep(cell, lost.of(cell))
            else:
                self._tell(f"{name}: {why}; once more")
                again.append(cell)
        return again

    def _as_they_end(self, jobs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Names and jobs; an interrupt cancels the rest."""
        left, gone = dict(jobs), dict[str, float]()
        told = heard = time.monotonic()
        try:
            while left:
                ids = [job.job_id for job in left.values()]
                answer = _queued(ids)
                now = time.monotonic()
                away = answer if isinstance(answer, str) else ""
                queued = dict.fromkeys(ids, "") if isinstance(answer, str) else answer
                heard = heard if away else now
                if now - heard > _AWAY_S:
                    raise InfrastructureError(
                        f"squeue has not answered for {_AWAY_S:.0f} s: {away}",
                        hint="when it does, the same command goes on where this one stopped",
                    )
                if queued and all(queued.values()) and now - told > _TELL_S:
                    why = ", ".join(sorted(set(queued.values())))
                    self._tell(f"{len(queued)} jobs wait for the cluster: {why}")
                    told = now
                for name, job in [*left.items()]:
                    if job.paths.result_pickle.exists():
                        heard = now  # jobs go on while their controller is away
                        del left[name]
                        yield name, job
                    elif job.job_id in queued:
                        gone.pop(name, None)
                    elif now - gone.setdefault(name, now) > _GONE_S:
                        del left[name]
                        yield name, job
                time.sleep(_LOOK_S)
        except BaseException:
            _cancelled([job.job_id for job in left.values()], self._tell)
            raise


def _queued(ids: Sequence[str]) -> dict[str, str] | str:
    """Of those that wait, run or are requeued why they wait, "" for those that run. Words where
    the controller does not answer, of why: it may be away for a while.
    """
    whole = sorted({one.partition("_")[0] for one in ids})
    argv = ["squeue", "-h", "-r", "-o", "%i|%T|%r", f"--jobs={','.join(whole)}"]
    try:
        done = process.run(argv, timeout_s=120, check=False, separate=True)
    except InfrastructureError as error:
        return error.message
    if done.returncode and "Invalid job id" not in done.errors:
        return " ".join(done.errors.split()) or f"exit code {done.returncode}"
    found = {}
    for line in done.output.splitlines():
        number, _, rest = line.strip().partition("|")
        state, _, why = rest.partition("|")
        found[number] = why or "no reason" if state == "PENDING" else ""
    return found


def _cancelled(ids: Sequence[str], tell: Callable[[str], None]) -> None:
    """And waited for, as long as it takes them to end their machines. Nothing is raised, for what
    ends us is to be raised, and not this; what goes on running is told.
    """
    if not ids:
        return
    why = "they are still there"
    try:
        done = process.run(["scancel", *ids], timeout_s=120, check=False)
        why = done.output.strip() if done.returncode else why
    except InfrastructureError as error:
        why = error.message
    deadline = time.monotonic() + _TIDY_S
    while time.monotonic() < deadline:
        queued = _queued(ids)
        if not isinstance(queued, str) and not queued.keys() & set(ids):
            return
        time.sleep(_LOOK_S)
    tell(f"jobs may go on: {why}; scancel {' '.join(ids)}")


def _result(job: Any) -> tuple[Any, str]:
    """What a job came to, or why there is nothing."""
    if not job.paths.result_pickle.exists():
        return None, f"job {job.job_id} ended without a result{_said(job)}"
    try:
        return job.result(), ""
    except Exception as error:  # noqa: BLE001 - whatever was raised there
        words = str(error).strip() or type(error).__name__
        return None, f"job {job.job_id}: {words.splitlines()[-1][:300]}"


def _said(job: Any) -> str:
    with contextlib.suppress(OSError):
        lines = job.paths.stderr.read_text(errors="replace").strip().splitlines()
        return f": {lines[-1][:300]}" if lines else ""
    return ""


__all__ = ["Runner", "build_on_node", "on_node"]
