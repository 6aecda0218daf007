"""`rig bench`: what got worse, what a branch is held against, its page; exact on a real kernel."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from rig import baseline, bench, benchpage, benchset, exactset
from rig.baseline import Accepted
from rig.bench import Request, Result, Versus
from rig.benchset import BenchSet, ExactEntry
from rig.config import Config
from rig.counted import Beside
from rig.errors import InfrastructureError, UsageError
from rig.exact import Ran
from rig.exactset import Difference, Measured
from rig.explain import Change
from rig.results import Run, to_json
from rig.rows import Row
from rig.stats import Ratio, Word
from rig.store import open_store
from rig.timed import Comparison, Seen

ROOT = Path(__file__).parents[1]
UNIT = "instructions"


def rows(**values: int) -> dict[str, Row]:
    return {name: Row(name, value, UNIT) for name, value in values.items()}


def measured(kernel: str, found: Mapping[str, Row], identity: str = "same") -> Measured:
    lines = dict.fromkeys(found, "syscall.c")
    return Measured(kernel, {}, {"release": identity}, found, lines, frozenset(found))


def result(**more: object) -> Result:
    run = Run("20260101-000000-bench", "2026-01-01T00:00:00+00:00", "rig bench")
    return replace(Result(run, Path("/r")), **more)  # type: ignore[arg-type]


# -- what got worse -------------------------------------------------------------------------------


def test_every_difference_is_found_the_largest_share_first() -> None:
    found = exactset.differences(
        rows(same=5, less=100, more=1000, gone=1, zero=0),
        rows(same=5, less=90, more=1001, new=2, zero=1),
    )
    assert [(one.name, one.more) for one in found] == [
        ("zero", 1), ("less", -10), ("more", 1), ("gone", 0), ("new", 0),
    ]  # fmt: skip
    assert [one.words for one in found[1:]] == [
        "less: 100 -> 90 instructions (-10, -10.0%)",
        "more: 1000 -> 1001 instructions (+1, +0.1%)",
        "gone: not measured, 1 instructions before",
        "new: 2 instructions",
    ]


def test_one_instruction_more_is_worse_one_less_is_not() -> None:
    before, after = rows(a=100, b=100, c=100), rows(a=101, b=99)
    versus = Versus("base", exactset.differences(before, after))
    assert {one.name for one in versus.worse} == {"a", "c"}
    assert result(versus=(versus,)).exit_code == 1
    less = Versus("base", exactset.differences(rows(b=100), rows(b=99)))
    assert result(versus=(less,)).exit_code == 0


def test_another_kernel_may_lack_what_one_has() -> None:
    found = exactset.differences(rows(a=100, gone=1, b=5, c=9), rows(a=101, new=2, b=4, c=10))
    versus = Versus("plain", found, gated=frozenset("ab"), same=False)
    assert [one.name for one in versus.worse] == ["a"]
    marks = {one.name: versus.mark(one) for one in found}
    assert marks == {
        "a": "MORE", "gone": "only there", "new": "new", "b": "less", "c": "more, not gated",
    }  # fmt: skip
    gone = next(one for one in found if one.name == "gone")
    assert replace(versus, same=True).mark(gone) == "GONE"


def test_a_share_of_less_than_nothing_is_none() -> None:
    (one,) = exactset.differences(rows(a=-300), rows(a=-200))
    assert one.words == "a: -300 -> -200 instructions (+100)"


def test_what_is_gated_is_explained_first() -> None:
    found = exactset.differences(rows(a=100, b=1000, c=100), rows(a=200, b=1001, c=150))
    after = replace(
        measured("async", rows(a=200, b=1001, c=150)),
        of_which={"a": "a.c", "b": "b.c", "c": "c.c"},
        gated=frozenset("b"),
    )
    assert [one.name for one in bench.most_telling(found, after, 1)] == ["b"]
    assert [one.name for one in bench.most_telling(found, after, 2)] == ["a", "b"]
    assert bench.most_telling(found, after, 0) == ()


def test_two_programs_that_measure_under_one_name() -> None:
    known = exactset.named_apart([Row("a", 5, UNIT), Row("a", 4, UNIT)], ExactEntry("x.c 1"), {})
    assert {name: row.value for name, row in known.items()} == {"a": 4}
    more = exactset.named_apart([Row("a", 9, UNIT), Row("b", 1, UNIT)], ExactEntry("y.c"), known)
    assert {name: (row.name, row.value) for name, row in more.items()} == {
        "a, y.c": ("a, y.c", 9), "b": ("b", 1),
    }  # fmt: skip
    with pytest.raises(InfrastructureError, match=r"y\.c: a is in"):
        exactset.named_apart([Row("a", 9, UNIT), Row("a", 1, "bytes")], ExactEntry("y.c"), {})


def test_what_is_not_gated_is_told_and_no_more() -> None:
    found = exactset.differences(rows(a=100), rows(a=101))
    assert Versus("base", found, gated=frozenset()).worse == ()
    gone = exactset.differences(rows(a=100), {})
    assert [one.name for one in Versus("base", gone, gated=frozenset()).worse] == ["a"]


def test_slower_is_worse_faster_is_not() -> None:
    ratio = Ratio(1.5, 1.4, 1.6, 0.0, 5)
    words = {
        word: result(kernels=(Comparison("it", "a", "b", ratio, word),)).exit_code for word in Word
    }
    assert words == {Word.SLOWER: 1, Word.FASTER: 0, Word.NONE: 0}


def test_a_program_that_measured_nothing_or_a_time(tmp_path: Path) -> None:
    entry = ExactEntry("x.c")
    for stdout, words in (
        (b"", "x.c measured nothing"),
        (b'{"name": "a", "value": 1, "unit": "ns"}\n', "a is in ns, which an exact machine"),
        (b'{"name": 1}\n', "x.c: line 1 is no measurement"),
    ):
        with pytest.raises(InfrastructureError, match=words):
            exactset.rows_of(entry, Ran(0, {"stdout": stdout}, 1, 0.1))


# -- what a branch is held against ----------------------------------------------------------------


def test_an_accepted_baseline_of_another_kernel_says_nothing() -> None:
    known = Accepted("async", {"release": "6.12.1"}, (), {"a": (1, UNIT)})
    there = {Path("x"): known, Path("y"): replace(known, identity={"a": "b", "c": "d"})}
    with pytest.raises(InfrastructureError, match=r"^x says .*release was 6\.12\.1, is 6\.12\.2"):
        bench.with_accepted(there, measured("async", rows(a=1), "6.12.2"), BenchSet(Path()))


def test_an_accepted_baseline_is_held_against() -> None:
    known = Accepted("async", {"release": "same"}, (), {"a": (1, UNIT), "b": (1, UNIT)})
    there = {Path("x"): replace(known, identity={"release": "other"}), Path("y"): known}
    now = measured("async", rows(a=2, b=1, c=9))
    versus = bench.with_accepted(there, now, BenchSet(Path()))
    assert [one.name for one in versus.worse] == ["a"]
    less = replace(now, gated=frozenset("bc"))
    assert bench.with_accepted(there, less, BenchSet(Path(), ungated=("a*",))).worse == ()


def git(root: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    done = subprocess.run(
        ["git", *identity, *words], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose branch changed a patch, a fragment and a benchmark."""
    root = tmp_path / "project"
    for name in ("patches", "kernel-configs", "guest-tests/bench", "images"):
        (root / name).mkdir(parents=True)
    (root / "rig.toml").write_text(
        '[default]\nkernel = "a"\n[kernel.a]\nsource = "x"\n[machine.m]\n'
    )
    (root / "kernel-configs/base.config").touch()
    (root / "patches/one").write_text("old")
    (root / "patches/gone").write_text("old")
    (root / "guest-tests/bench/a.c").write_text("old")
    git(tmp_path, "init", "-q", "-b", "main", "project")
    git(root, "add", ".")
    git(root, "commit", "-qm", "main")
    git(root, "checkout", "-qb", "branch")
    (root / "patches/one").write_text("new")
    (root / "guest-tests/bench/a.c").write_text("new")
    git(root, "commit", "-qam", "branch")
    return root


def test_a_branch_is_held_against_where_it_left_main(project: Path, tmp_path: Path) -> None:
    assert bench._main(project) == "main"
    base = git(project, "merge-base", "HEAD", "main")
    place = tmp_path / "place"
    place.mkdir()
    other = bench._checkout(project, base, place)
    assert other.root == place / "checkout"
    assert (other.root / "patches/one").read_text() == "old"
    assert (other.root / "guest-tests/bench/a.c").read_text() == "new"  # one program for both
    git(project, "rm", "-q", "patches/gone")
    git(project, "commit", "-qm", "gone")
    bench._checkout(project, "HEAD", place)
    assert not (place / "checkout/patches/gone").exists()
    assert (place / "checkout/patches/one").read_text() == "new"


def test_what_counts_as_changed(project: Path) -> None:
    assert not bench._changed(project)
    (project / "guest-tests/bench/a.c").write_text("newer")
    assert not bench._changed(project)
    (project / "patches/one").write_text("newer")
    assert bench._changed(project)


def test_a_project_without_main(project: Path) -> None:
    git(project, "branch", "-D", "main")
    with pytest.raises(UsageError, match="nothing to compare with"):
        bench._main(project)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(boots=0), "--boots 0"),
        (Request(check=True, against="x"), "finds by itself"),
        (Request(check=True, kernels=("a", "b")), "for one kernel"),
        (Request(accept="why", only="x"), "for the whole set"),
        (Request(accept="why", check=True), "compares with nothing"),
        (Request(accept="why", against="x"), "compares with nothing"),
        (Request(accept=""), "for a reason"),
        (Request(accept=" "), "for a reason"),
        (Request(kernels=("a", "a")), "a is named twice"),
        (Request(kernels=("b", "a"), against="a"), "a is named twice"),
        (Request(explain=-1), "--explain -1"),
        (Request(check=True, exact=False), "for exact figures"),
    ],
)
def test_what_is_refused(request_: Request, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        bench._check_request(request_, request_.kernels or ("default",))


def test_a_pattern_that_fits_nothing(rig_config: Config) -> None:
    with pytest.raises(UsageError, match="fits no program"):
        bench._wanted(Request(only="no such thing"), rig_config)


# -- what is shown --------------------------------------------------------------------------------


def full() -> Result:
    def cost(model: str, value: int, phase: str = "call") -> Row:
        name = f"pread 1 B, {model}, 64: {phase}"
        return Row(
            name, value * 64, UNIT, 0, "pread 1 B", model, 64, phase, 64, paths={"inline": 3}
        )

    def taken(model: str, value: float) -> Row:
        spread = {"50": value, "90": 2 * value, "99": 3 * value, "99.9": 9 * value}
        name = f"pread 1 B, {model}, 1: call"
        return Row(name, value, "ns", 0, "pread 1 B", model, 1, "call", percentiles=spread)

    exact = [cost("direct", 1000), cost("async_submit", 1100), cost("<script>", 1)]
    found = {row.name: row for row in exact}
    change = Change("pread 1 B, direct, 64: call", 1, 2, (("ksys_pread64", 10),))
    differences = (Difference("pread 1 B, direct, 64: call", 64, 128, UNIT),)
    seen = tuple(
        Seen("async", n, {r.name: r for r in (taken("direct", 900), taken("async_submit", 950))})
        for n in range(2)
    )
    ratio = Ratio(1.5, 1.4, 1.6, 0.0, 5)
    return result(
        exact=(measured("plain", found), measured("async", found)),
        versus=(Versus("plain", differences, {change.name: change}),),
        seen=seen,
        models={"async": (Comparison("pread", "direct", "async_submit", ratio, Word.SLOWER),)},
        counted={"async": (Beside("m.c", "pread 1 B, <b>", 64000, 66000, 65500, 67000, 24000),)},
        said=("a note",),
    )


def test_the_page_has_plots_that_say_how_and_on_what() -> None:
    text = benchpage.html(bench.page(full()))
    assert "WORSE" in text
    assert "pread 1 B: instructions a call, 64 outstanding" in text
    assert "async, exact machine" in text
    assert "Medians over boots" in text
    assert "ksys_pread64 +10" in text
    assert "a note" in text
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "Counted by the CPU" in text
    assert "pread 1 B, &lt;b&gt;" in text
    assert '<td class="number">1.031</td><td class="number">65500 ' in text
    assert text.count("<figure>") == text.count("<figcaption>") >= 2


def test_what_the_history_keeps_of_it() -> None:
    twice = result(exact=(measured("plain", rows(a=1)), measured("async", rows(a=5)),
                          measured("async", rows(a=7))))  # fmt: skip
    kept = {run.kernel["name"]: run for run in bench.remembered(twice)}
    assert [*kept] == ["plain", "async"]
    assert [(one.name, one.value, one.unit) for one in kept["async"].measurements] == [
        ("a", 7.0, "instructions")
    ]
    assert len({run.id for run in kept.values()}) == 2
    assert kept["async"].machine == {"name": "exact"}


def test_the_words_for_a_terminal() -> None:
    text = bench.text(full())
    assert "MORE pread 1 B, direct, 64: call: 64 -> 128 instructions (+64, +100.0%)" in text
    assert "ksys_pread64 +10" in text
    assert "counted by the CPU of a board on async: 1 figures\n" in text
    assert "  pread 1 B, <b>: 64000 exact, 66000 counted (+3.1%), 24000 cycles\n" in text
    assert text.endswith("1 figure(s) got worse\n")
    quiet = bench.text(result(exact=(measured("async", rows(a=5)),)))
    assert "a            5 instructions" in quiet
    assert quiet.endswith("compared with nothing\n")
    same = bench.text(result(versus=(Versus("plain", ()),)))
    assert same.endswith("nothing got worse\n")


def test_a_time_that_is_an_emulators_says_so() -> None:
    whole = full()
    assert "under emulation" not in bench.text(whole)
    emulated = replace(whole, run=replace(whole.run, machine={"accel": "tcg (no KVM)"}))
    assert "times under emulation of the first" in bench.text(emulated)
    assert json.loads(to_json(bench.described(emulated)))["emulated"] is True
    assert "within each boot, emulated by TCG" in benchpage.html(bench.page(emulated))


def test_how_sharp_a_comparison_was_is_said() -> None:
    many = [
        Comparison("it", "a", "b", Ratio(1.0, 0.9, 0.9 * wide, 1.0, 5), Word.NONE)
        for wide in (1.1, 1.2, 1.5)
    ]
    text = bench.text(result(kernels=tuple(many)))
    assert "no difference seen in 3: their intervals are 20.0% wide (median), the widest 50.0%" in (
        text
    )


def test_what_could_not_be_explained_or_run_is_said() -> None:
    left = replace(measured("plain", rows(a=1)), left_out=("async_block.c",))
    versus = Versus("plain", (), said=("x.c could not be explained: why",))
    text = bench.text(result(exact=(left,), versus=(versus,)))
    assert "note: plain cannot run async_block.c\n" in text
    assert "note: x.c could not be explained: why\n" in text


def test_json_has_it_all() -> None:
    value = json.loads(to_json(bench.described(full())))
    assert value["exit_code"] == 1
    assert value["exact"][0]["rows"][0]["paths"] == {"inline": 3}
    assert value["against"][0]["functions"]["pread 1 B, direct, 64: call"] == [["ksys_pread64", 10]]
    assert value["models"]["async"][0]["word"] == "slower"
    assert value["counted"]["async"][0]["cycles"] == 24000


# -- on a real kernel -----------------------------------------------------------------------------


SMALL = (
    ExactEntry("syscall.c"),
    ExactEntry("models.c exact 'pread 1 B' direct async_submit 'io_uring by 32'", ext4=True),
    ExactEntry("models.c memory 'pipe read' async_submit", needs=("ASYNC_SUBMIT",)),
    ExactEntry("no_such_program.c", needs=("NO_SUCH_OPTION",)),
)


@pytest.mark.kernel
def test_two_exact_runs_are_the_same(rig_config: Config, tmp_path: Path) -> None:
    wanted = BenchSet(benchset.load(ROOT).directory, exact=SMALL)
    found = []
    for name in ("one", "two"):
        place = tmp_path / name
        place.mkdir()
        found.append(exactset.measure(wanted, rig_config, rig_config.kernel(), open_store(), place))
    first, second = found
    assert first.rows == second.rows
    assert exactset.differences(first.rows, second.rows) == ()
    each = {name: row.each for name, row in first.rows.items()}
    inline = each["pread 1 B, async_submit, 64: call"]
    assert (
        each["pread 1 B, direct, 64: call"] < inline < each["pread 1 B, io_uring by 32, 64: call"]
    )
    assert first.rows["pread 1 B, async_submit, 64: call"].paths["inline"] == 64 * 6
    assert 16384 <= first.rows["pipe read, async_submit, 1000: bytes, stack"].each <= 17000
    assert first.identity["release"].startswith("6.12.")
    assert first.left_out == ("no_such_program.c",)
    known = baseline.place(tmp_path, "async", first.identity)
    baseline.save(known, "async", first.identity, first.rows, {"why": "test"})
    assert bench.with_accepted(baseline.every(tmp_path, "async"), second, wanted).differences == ()
