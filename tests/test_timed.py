"""The timed set: what a program's end means, what rows say of each other, and one real boot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rig import benchset, timed
from rig.benchset import BenchSet, TimedEntry
from rig.config import Config
from rig.errors import CrashError, InfrastructureError, LostMachineError, RigError
from rig.exact import ProgramFailedError
from rig.record import Record
from rig.results import Splat, Status
from rig.rows import Row
from rig.stats import Word
from rig.store import open_store
from rig.timed import Seen
from rig.verdict import End, Observation

ROOT = Path(__file__).parents[1]
ENTRY = TimedEntry("models.c timed 'pread 1 B'")
LINE = '{"name": "a", "value": 5, "unit": "ns"}\n'


def seen(output: str = LINE, end: End = End.EXITED, code: int = 0) -> Observation:
    return Observation(end, exit_code=code, output=output)


# -- what a program's end means -------------------------------------------------------------------


def test_rows_of_a_program_that_ended_well() -> None:
    assert timed.rows_of(ENTRY, 2, seen(f"words\n{LINE}")) == {"a": Row("a", 5, "ns")}


def test_a_program_of_several_machines_says_which() -> None:
    entry = TimedEntry("models.c threads CPUS x", cpus=(1, 4))
    assert timed.rows_of(entry, 4, seen()) == {"a, 4 CPUs": Row("a, 4 CPUs", 5, "ns", threads=4)}
    assert timed.argv_of(entry, 4) == ("./models", "threads", "4", "x")
    assert timed.argv_of(TimedEntry("x.py a"), 1) == ("python3", "x.py", "a")


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        (seen(code=1), ProgramFailedError, "exit code 1"),
        (replace(seen(end=End.TIMEOUT), detail="too late"), ProgramFailedError, "too late"),
        (seen(end=End.LOST), LostMachineError, "the machine went away"),
        (seen(end=End.SILENT), LostMachineError, "marker"),
        (seen(output="nothing\n"), InfrastructureError, "measured nothing"),
        (seen(output="{\n"), InfrastructureError, "no measurement"),
        (seen(output=LINE.replace("ns", "instructions")), InfrastructureError, "calls a time"),
        (replace(seen(), splats=(Splat("bug", "BUG in x", 1, 2),)), CrashError, "BUG in x"),
    ],
)
def test_never_a_figure_of_what_went_wrong(
    what: Observation, error: type[RigError], words: str
) -> None:
    with pytest.raises(error, match=words):
        timed.rows_of(ENTRY, 2, what)


# -- what rows say of each other ------------------------------------------------------------------


def row(model: str, value: float, phase: str = "call", work: str = "w", threads: int = 0) -> Row:
    name = f"{work}, {model}: {phase}, {threads}"
    return Row(
        name, value, "ns", work=work, model=model, outstanding=1, phase=phase, threads=threads
    )


def boots(rows: Sequence[Sequence[Row]], kernel: str = "k") -> list[Seen]:
    return [Seen(kernel, n, {one.name: one for one in own}) for n, own in enumerate(rows)]


def models(seen: list[Seen]) -> tuple[timed.Comparison, ...]:
    return timed.compared({"it": timed.of_models(seen, "k")})["it"]


def kernels(seen: list[Seen]) -> tuple[timed.Comparison, ...]:
    return timed.compared({"it": timed.of_kernels(seen, "a", "b")})["it"]


def test_models_are_compared_within_a_boot() -> None:
    """The host is twice as slow from boot to boot; the ratio is not."""
    found = models(boots([[row("direct", 2**n), row("aio", 3 * 2**n + n / 100)] for n in range(5)]))
    assert [(one.name, one.first, one.second) for one in found] == [
        ("w, 1 outstanding, call", "direct", "aio")
    ]
    assert found[0].ratio.value == pytest.approx(3, rel=0.01)
    assert found[0].word is Word.SLOWER
    assert "aio is 3.0" in found[0].words


def test_without_a_direct_call_the_pool_is_the_measure() -> None:
    own = {one.name: one for one in (row("thread pool", 4), row("async_submit", 2))}
    first = next(iter(own.values()))
    assert timed.reference(first, own) is None
    assert timed.reference(row("async_submit", 2), own) == first
    assert timed.reference(row("async_submit", 2, phase="status"), own) is None


def test_of_throughput_more_is_better() -> None:
    own = [
        [row("direct", 100 + n, "throughput", threads=2),
         row("aio", 50 + n, "throughput", threads=2)]
        for n in range(5)
    ]  # fmt: skip
    (found,) = models(boots(own))
    assert found.ratio.value < 1
    assert found.word is Word.SLOWER
    assert found.name == "w, 1 outstanding, throughput, 2 CPUs"


def test_a_model_that_one_boot_lacks_is_not_compared() -> None:
    assert models(boots([[row("direct", 1), row("aio", 2)], [row("direct", 1)]])) == ()


def test_kernels_are_paired_by_boot() -> None:
    before = boots([[row("direct", 100 * (n + 1))] for n in range(5)], "a")
    after = boots([[row("direct", 150 * (n + 1) + n)] for n in range(5)], "b")
    (found,) = kernels([*before, *after])
    assert (found.first, found.second, found.word) == ("a", "b", Word.SLOWER)
    assert found.ratio.value == pytest.approx(1.5, rel=0.01)


def test_the_same_figures_are_no_difference() -> None:
    both = [*boots([[row("direct", 100 + n)] for n in range(5)], "a"),
            *boots([[row("direct", 100 + n)] for n in range(5)], "b")]  # fmt: skip
    (found,) = kernels(both)
    assert found.word is Word.NONE


def test_what_not_every_boot_of_both_kernels_has_is_told() -> None:
    before = boots([[row("direct", 5), row("aio", 1), row("nothing", 0)] for _ in range(2)], "a")
    after = boots([[row("direct", 5), row("nothing", 1), row("ours", 3)], [row("direct", 5)]], "b")
    lost = timed.not_compared([*before, *after], "a", "b")
    assert [name.split(",")[1] for name in lost] == [" aio: call", " nothing: call", " ours: call"]
    assert [one.first for one in kernels([*before, *after])] == ["a"]


DOUBTFUL = [(100.0, 100 * 1.1 * (1 + 0.01 * n)) for n in range(5)]


def test_a_group_is_judged_as_one() -> None:
    """What would be called a difference by itself is not, among a hundred that are none."""
    alone = {"it": ("it", "a", "b", DOUBTFUL)}
    many = {
        str(n): (str(n), "a", "b", [(100.0, 100.0 + (n + boot) % 3) for boot in range(5)])
        for n in range(400)
    }
    assert timed.compared({"x": alone})["x"][0].word is Word.SLOWER
    found = timed.compared({"x": {**alone, **many}})["x"]
    assert len(found) == 401
    assert {one.word for one in found} == {Word.NONE}


def test_what_is_said_of_models_makes_nothing_easier_to_say_of_kernels() -> None:
    """As was seen: one of 1,158 figures of a patch that adds nothing was called slower, for the
    sake of some hundred models that are.
    """
    nothing = {
        str(n): (str(n), "a", "b", [(100.0, 100.0 + (n + boot) % 3) for boot in range(5)])
        for n in range(400)
    }
    nothing["it"] = ("it", "a", "b", DOUBTFUL)
    models = {
        str(n): (str(n), "direct", "m", [(100.0, 300.0 + (n + boot) % 3) for boot in range(5)])
        for n in range(4000)
    }
    found = timed.compared({"models": models, "kernels": nothing})
    assert {one.word for one in found["models"]} == {Word.SLOWER}
    assert {one.word for one in found["kernels"]} == {Word.NONE}


def test_medians_of_boots() -> None:
    one = replace(row("direct", 1), percentiles={"50": 1, "99": 9})
    many = [replace(one, value=v, percentiles={"50": v, "99": 10 * v}) for v in (1, 5, 3)]
    found = timed.medians(boots([[r] for r in many]), "k")[one.name]
    assert (found.value, found.percentiles) == (3, {"50": 3, "99": 30})


# -- a real boot ----------------------------------------------------------------------------------


@pytest.mark.kernel
def test_two_boots_of_two_programs(rig_config: Config, tmp_path: Path) -> None:
    whole = benchset.load(ROOT)
    entries = (
        TimedEntry("models.c timed nop direct async_submit io_uring"),
        TimedEntry("models.c threads CPUS nop direct async_submit", cpus=(1, 2)),
    )
    wanted = BenchSet(whole.directory, timed=entries, machine=rig_config.default_machine)
    record = Record.begin(tmp_path / "results", "rig bench", "bench")
    found = timed.measure(wanted, rig_config, [rig_config.kernel()], 2, record, open_store())
    run = record.finish()
    assert [(one.kernel, one.boot) for one in found] == [("async", 0), ("async", 1)]
    assert len(run.cases) == 2 * 3
    assert {case.status for case in run.cases} == {Status.PASS}
    assert len(run.measurements) == sum(len(one.rows) for one in found)
    rows = found[0].rows
    inline = rows["nop, async_submit, 64: call"]
    assert inline.paths["inline"] == 64 * 2 * inline.rounds
    assert {"nop, direct, 64: throughput, 1 CPUs", "nop, direct, 64: throughput, 2 CPUs"} <= {*rows}
    compared = timed.compared({"it": timed.of_models(found, "async")})["it"]
    assert {(one.first, one.second) for one in compared} >= {("direct", "io_uring")}
    assert {one.word for one in compared} == {Word.NONE}  # two boots tell nothing


@pytest.mark.kernel
def test_a_program_that_fails_ends_it_and_is_on_record(rig_config: Config, tmp_path: Path) -> None:
    whole = benchset.load(ROOT)
    entries = (TimedEntry("models.c timed nop direct"), TimedEntry("models.c timed nothing"))
    wanted = BenchSet(whole.directory, timed=entries, machine=rig_config.default_machine)
    record = Record.begin(tmp_path / "results", "rig bench", "bench")
    with pytest.raises(ProgramFailedError, match="nothing: exit code 2"):
        timed.measure(wanted, rig_config, [rig_config.kernel()], 2, record, open_store())
    assert [case.status for case in record.finish().cases] == [Status.PASS, Status.FAIL]
