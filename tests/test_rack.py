"""Every rule a pass must keep, broken by a real program in a machine of the local kind."""

from __future__ import annotations

import datetime
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from local_machine import Late, LocalLab, LocalMachine, Writer

from rig import guest, splat, suite, vigil
from rig.errors import BootError, InfrastructureError, RigError
from rig.expected import NOTHING, AllowedSplat, Expected, ExpectedCase
from rig.guest import Guest, Modules
from rig.rack import Isolation, Order, Rack
from rig.record import Record
from rig.results import Case, Splat, Status, load_run
from rig.session import ConnectionLost, Session, SessionTimeout
from rig.suite import BuiltSuite, Program, Suite
from rig.vigil import Vigil

TWO = "echo TAP version 13; echo 1..2; echo ok 1 one; echo ok 2 two"
WARNING = (
    'echo "[    1.000000] ------------[ cut here ]------------" >&$RIG_KMSG; '
    'echo "[    1.000000] WARNING: CPU: 0 PID: 7 at fs/pipe.c:1 pipe_read+0x1/0x2" >&$RIG_KMSG; '
    'echo "[    1.000000] ---[ end trace 0000000000000000 ]---" >&$RIG_KMSG'
)
DROPPED = 'echo "** 57 printk messages dropped **" >&$RIG_KMSG'
PANIC = 'echo "[    2.000000] Kernel panic - not syncing: test" >&$RIG_KMSG; touch $RIG_STATE/dead'

Bench = Callable[..., "Ran"]


class Ran:
    """Suites run on a rack: the cases of each program, by suite/program."""

    def __init__(self, rack: Rack, lab: LocalLab, places: list[Path]) -> None:
        self.rack, self.lab, self.cases = rack, lab, dict[str, tuple[Case, ...]]()
        suites = suite.distinct([suite.discover(place) for place in places])
        rack.prepare(suites)
        for one in suites:
            for program in suite.programs(one):
                name = f"{one.name}/{program.name.removesuffix('.sh')}"
                self.cases[name] = rack.run(Order(one, program)).cases
        self.last_words = rack.close()
        self.run = rack.record.finish()

    def told(self, name: str) -> list[tuple[str, Status]]:
        return [(case.name, case.status) for case in self.cases[name]]

    def message(self, name: str) -> str:
        return self.cases[name][-1].message


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path / "suites")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    def run(
        *places: Path,
        isolation: Isolation = "none",
        lab: LocalLab | None = None,
        known: Expected = NOTHING,
    ) -> Ran:
        record = Record.begin(tmp_path / "results", "rig boot-and-test", "local")
        lab = lab or LocalLab()
        again = lambda one, program: f"rig --suite {one.name} -k {program.name}"  # noqa: E731
        rack = Rack(lab, record, isolation=isolation, reproduce=again, expected=known)
        return Ran(rack, lab, list(places))

    return run


def test_a_whole_program_passes(writer: Writer, bench: Bench) -> None:
    ran = bench(writer.suite("abi", a=TWO))
    assert ran.told("abi/a") == [("one", Status.PASS), ("two", Status.PASS)]
    assert ran.run.exit_code == 0


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (f"{TWO}; exit 1", Status.FAIL, "exit code 1, although it reported every case good"),
        (f"{TWO}; kill -SEGV $$", Status.FAIL, "killed by signal 11"),
        (f"{TWO}; exit 4", Status.FAIL, "exit code 4, although it reported every case good"),
        ("echo TAP version 13; echo ok 1 one", Status.ERROR, "incomplete KTAP: no plan"),
        ("echo 1..3; echo ok 1 one", Status.ERROR, "planned 3 results, got 1"),
        ("echo 1..1; printf 'ok 1 one'", Status.ERROR, "ends in the middle of a line"),
        ("echo 1..1; echo ok 1 x; echo Bail out! disk", Status.ERROR, "Bail out! disk"),
        ("echo 1..0", Status.ERROR, "1..0) without a SKIP"),
        ("echo all is well", Status.ERROR, "it printed no KTAP (exit code 0)"),
        ("exit 4", Status.ERROR, "it printed no KTAP (exit code 4)"),
        (f"{TWO}; {WARNING}", Status.FAIL, "splat: WARNING in pipe_read"),
        (f"{TWO}; {PANIC}", Status.CRASH, "kernel panic: test"),
        (f"{TWO}; touch $RIG_STATE/dead", Status.ERROR, "no splat explains it"),
        (f"{TWO}; touch $RIG_STATE/unplugged", Status.ERROR, "cannot be reached"),
        (f"{TWO}; {WARNING}; touch $RIG_STATE/unplugged", Status.FAIL, "splat: WARNING in pipe"),
        (f"{TWO}; touch $RIG_STATE/deaf", Status.ERROR, "the console is no proof"),
        (f"{DROPPED}; {TWO}", Status.ERROR, "the console is no proof: 57 printk messages"),
        (f"{DROPPED}; {WARNING}; {TWO}", Status.FAIL, "splat: WARNING in pipe"),
        (f"{TWO}; exec sleep 60", Status.TIMEOUT, "it did not end within 1 s (5 s, slowdown 0.2)"),
    ],
)
def test_never_green(writer: Writer, bench: Bench, body: str, status: Status, words: str) -> None:
    lab = LocalLab(slowdown=0.2)
    ran = bench(writer.suite("abi", a=body, b=TWO, timeout=5), lab=lab)
    own = ran.cases["abi/a"][-1]
    assert (own.name, own.status) == ("", status)
    assert words in own.message
    assert own.reproduce == "rig --suite abi -k a.sh"
    assert ran.told("abi/b") == [("one", Status.PASS), ("two", Status.PASS)]
    assert ran.run.exit_code == 1


def test_a_failed_case_explains_the_exit_code(writer: Writer, bench: Bench) -> None:
    body = (
        "echo 1..2; echo ok 1 one; echo '# x.c:7:two: Expected 1 == 2'; echo not ok 2 two; exit 1"
    )
    ran = bench(writer.suite("abi", a=body))
    assert ran.told("abi/a") == [("one", Status.PASS), ("two", Status.FAIL)]
    assert ran.message("abi/a") == "x.c:7:two: Expected 1 == 2"


def test_stderr_is_part_of_the_story(writer: Writer, bench: Bench) -> None:
    body = "echo 1..1; echo '# why it broke' >&2; echo not ok 1 one; exit 1"
    ran = bench(writer.suite("abi", a=body))
    assert ran.cases["abi/a"][0].output == "why it broke"


@pytest.mark.parametrize("body", ["echo 1..0 '# SKIP no kvm'; exit 4", "echo 1..0 '# SKIP no kvm'"])
def test_a_program_may_skip_itself(writer: Writer, bench: Bench, body: str) -> None:
    ran = bench(writer.suite("abi", a=body, b=TWO))
    assert ran.told("abi/a") == [("", Status.SKIP)]
    assert "no kvm" in ran.message("abi/a")
    assert ran.run.exit_code == 0


def test_nothing_but_skips_is_not_green(writer: Writer, bench: Bench) -> None:
    assert bench(writer.suite("abi", a="echo 1..0 '# SKIP no kvm'; exit 4")).run.exit_code == 1


def test_the_trees_own_scripts_are_judged_by_their_exit_code(tmp_path: Path, bench: Bench) -> None:
    selftests = Writer(tmp_path / "linux/tools/testing/selftests")
    place = selftests.suite("net", good="true", skips="exit 4", bad="exit 3", half="echo 1..2")
    (selftests.root / "lib.mk").write_text(suite._LISTING_LIB)
    ran = bench(place)
    assert ran.told("net/good") == [("", Status.PASS)]
    assert ran.told("net/skips") == [("", Status.SKIP)]
    assert ran.told("net/bad") == [("", Status.FAIL)]
    assert ran.told("net/half")[-1] == ("", Status.ERROR)


def test_a_crash_costs_one_program(writer: Writer, bench: Bench) -> None:
    ran = bench(writer.suite("abi", a=TWO, b=PANIC, c=TWO))
    ended = [ran.cases[f"abi/{name}"][-1].status for name in "abc"]
    assert ended == [Status.PASS, Status.CRASH, Status.PASS]
    assert len(ran.lab.machines) == 2
    assert all(machine.closed for machine in ran.lab.machines)
    assert [splat.type for splat in ran.run.splats] == ["panic"]
    assert ran.run.consoles == ("console-0.log", "console-1.log")


def test_a_tainted_machine_is_replaced(writer: Writer, bench: Bench) -> None:
    ran = bench(writer.suite("abi", a=f"{WARNING}; {TWO}", b=TWO))
    assert len(ran.lab.machines) == 2
    assert "pipe_read" in ran.cases["abi/a"][-1].output


def allowed(title: str) -> Expected:
    day = datetime.date(2100, 1, 1)
    return Expected((AllowedSplat("upstream", "https://x", day, title=title),))


def test_a_splat_that_is_allowed_is_told_and_fails_nothing(writer: Writer, bench: Bench) -> None:
    known = allowed("WARNING in pipe_*")
    ran = bench(writer.suite("abi", a=f"{WARNING}; {TWO}", b=TWO), known=known)
    assert ran.told("abi/a") == [("one", Status.PASS), ("two", Status.PASS)]
    assert ran.run.splats == ()
    assert any(words.startswith("allowed splat: WARNING in pipe_read") for words in ran.run.notices)
    assert len(ran.lab.machines) == 2  # it may have broken more than it said


def test_another_splat_is_not_allowed(writer: Writer, bench: Bench) -> None:
    ran = bench(writer.suite("abi", a=f"{WARNING}; {TWO}"), known=allowed("WARNING in other"))
    assert ran.cases["abi/a"][-1].status is Status.FAIL
    assert [one.place for one in ran.run.splats] == ["x.c:1"]  # and is explained


def test_what_ends_the_machine_is_never_allowed(writer: Writer, bench: Bench) -> None:
    ran = bench(writer.suite("abi", a=PANIC), known=allowed("*"))
    assert ran.cases["abi/a"][-1].status is Status.CRASH


def test_a_case_that_is_known_to_fail(writer: Writer, bench: Bench) -> None:
    day = datetime.date(2100, 1, 1)
    line = ExpectedCase("upstream", "https://x", day, id="abi/a.sh::one")
    failing = "printf 'TAP version 13\\n1..2\\nnot ok 1 one\\nok 2 two\\n'; exit 1"
    ran = bench(writer.suite("abi", a=failing), known=Expected(cases=(line,)))
    assert [(case.name, case.status) for case in ran.cases["abi/a"]] == [
        ("one", Status.SKIP), ("two", Status.PASS),
    ]  # fmt: skip


def test_a_program_that_is_known_to_crash(writer: Writer, bench: Bench) -> None:
    day = datetime.date(2100, 1, 1)
    line = ExpectedCase("upstream", "https://x", day, id="abi/a.sh", status=Status.CRASH)
    ran = bench(writer.suite("abi", a=PANIC, b=TWO), known=Expected(cases=(line,)))
    assert [case.status for case in ran.cases["abi/a"]] == [Status.SKIP]
    assert ran.told("abi/b") == [("one", Status.PASS), ("two", Status.PASS)]
    assert ran.run.splats == ()
    assert "expected, with a crash: kernel panic: test" in ran.run.notices
    assert ran.run.exit_code == 0
    other = replace(line, id="abi/x.sh")
    assert bench(writer.suite("abi2", a=PANIC), known=Expected(cases=(other,))).run.splats


def test_a_machine_that_hangs_is_not_waited_for(
    writer: Writer, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = functools.partial(Vigil, quiet_s=0.5, answer_s=0.2)
    monkeypatch.setattr(guest, "Vigil", quick)
    began = time.monotonic()
    ran = bench(writer.suite("abi", a=f"{TWO}; touch $RIG_STATE/mute; exec sleep 60", b=TWO))
    assert time.monotonic() - began < 30
    case = ran.cases["abi/a"][-1]
    assert case.status is Status.TIMEOUT
    assert case.message == "the machine hangs: no line, no output, no answer in 1 s"
    assert "task:sleeper state:D" in case.output
    assert ran.told("abi/b") == [("one", Status.PASS), ("two", Status.PASS)]


def test_a_guest_that_says_it_panicked_is_lost(
    writer: Writer, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vigil, "LAST_WORDS_S", 0.2)
    monkeypatch.setattr(guest, "_LAST_WORDS_S", 0.2)
    began = time.monotonic()
    ran = bench(writer.suite("abi", a="touch $RIG_STATE/panicked; exec sleep 60", b=TWO))
    assert time.monotonic() - began < 30
    case = ran.cases["abi/a"][-1]
    assert (case.status, case.message) == (
        Status.ERROR, "the guest panicked, and no splat explains it",
    )  # fmt: skip
    assert ran.told("abi/b") == [("one", Status.PASS), ("two", Status.PASS)]


OOPS = 'echo "[    2.000000] Oops: int3: 0000 [#1] SMP" >&$RIG_KMSG; '


def slips(place: Path, times: int, more: str = "", way: str = "slipped") -> str:
    """A program whose machine falls over its emulator so often, and says nothing more."""
    count = f"$(ls {place} | grep -c slip)"
    fall = f"mktemp {place}/slip.XXXXXX; {more}{OOPS}touch $RIG_STATE/{way} $RIG_STATE/dead"
    return f"if [ {count} -lt {times} ]; then {fall}; exit 0; fi; {TWO}"


def test_what_the_emulator_broke_is_run_once_more(
    writer: Writer, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest, "_LAST_WORDS_S", 0.2)
    ran = bench(writer.suite("abi", a=slips(tmp_path, 1), b=TWO))
    assert ran.told("abi/a") == ran.told("abi/b") == [("one", Status.PASS), ("two", Status.PASS)]
    assert ran.run.splats == ()
    (words,) = [one for one in ran.run.notices if "a second time" in one]
    assert words.startswith("abi/a.sh was run a second time: this QEMU's TCG")
    assert "console-0.log" in words
    assert len(ran.lab.machines) == 2
    assert ran.run.exit_code == 0


@pytest.mark.parametrize(
    ("times", "more", "way"),
    [
        (2, "", "slipped"),  # twice is believed
        (1, "", "other"),  # the breakpoint was there
        (1, f"{WARNING}; ", "slipped"),  # the kernel has said something else as well
    ],
)
def test_what_the_kernel_broke_is_not(
    writer: Writer,
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    times: int,
    more: str,
    way: str,
) -> None:
    monkeypatch.setattr(guest, "_LAST_WORDS_S", 0.2)
    ran = bench(writer.suite("abi", a=slips(tmp_path, times, more, way), b=TWO))
    assert ran.cases["abi/a"][-1].status is Status.CRASH
    assert any("int3" in one.title for one in ran.run.splats)
    assert ran.run.exit_code == 1


def test_a_time_out_shows_where_the_guest_hung(writer: Writer, bench: Bench) -> None:
    ran = bench(writer.suite("abi", a="exec sleep 60", b=TWO, timeout=1))
    assert "task:sleeper state:D" in ran.cases["abi/a"][-1].output
    assert len(ran.lab.machines) == 2


@pytest.mark.parametrize("harm", ["full", "stuck"])
def test_a_damaged_machine_is_replaced_for_the_next_suite(
    writer: Writer, bench: Bench, tmp_path: Path, harm: str
) -> None:
    other = Writer(tmp_path / "others").suite("b", c=TWO)
    ran = bench(writer.suite("abi", a=f"{TWO}; touch $RIG_STATE/{harm}"), other)
    assert ran.told("b/c") == [("one", Status.PASS), ("two", Status.PASS)]
    assert len(ran.lab.machines) == 2
    assert any("a new machine was booted for suite b" in words for words in ran.run.notices)
    assert ran.run.exit_code == 0


@pytest.mark.parametrize("harm", ["full", "stuck"])
def test_a_fresh_machine_that_takes_no_suite_is_no_time_out(
    writer: Writer, bench: Bench, harm: str
) -> None:
    with pytest.raises(InfrastructureError):
        bench(writer.suite("abi", a=TWO), lab=_Damaged(harm))


def test_a_machine_that_died_before_the_next_suite_is_remembered(
    writer: Writer, bench: Bench, tmp_path: Path
) -> None:
    other = Writer(tmp_path / "others").suite("b", c=TWO)
    ran = bench(writer.suite("abi", a=f"{TWO}; touch $RIG_STATE/dying"), other, lab=Late())
    first, *own = ran.cases["b/c"]
    assert (first.id, first.status) == ("abi/a.sh::after its end", Status.ERROR)
    assert [case.status for case in own] == [Status.PASS, Status.PASS]
    assert ran.rack.lost is not None


def test_lines_lost_after_the_last_program_are_not_green(writer: Writer, bench: Bench) -> None:
    ran = bench(writer.suite("abi", a=f"{TWO}; touch $RIG_STATE/dropping"), lab=Late())
    assert [case.status for case in ran.last_words] == [Status.ERROR]
    assert "57 printk messages were dropped" in ran.last_words[0].message


def test_a_case_that_hangs_is_named_before_the_programs_time_is_over(
    writer: Writer, bench: Bench
) -> None:
    hangs = "echo 1..3; echo ok 1 one; echo ok 2 two; exec sleep 60"
    place = writer.suite("abi", a=hangs, b=TWO, timeout=50)
    (place / "settings").write_text("timeout=50\ncase_timeout=1\n")
    ran = bench(place)
    own = ran.cases["abi/a"][-1]
    assert own.status is Status.TIMEOUT
    assert own.message == "case 3 gave no result within 1 s"
    assert own.duration_s < 10
    assert "task:sleeper state:D" in own.output
    assert ran.told("abi/b") == [("one", Status.PASS), ("two", Status.PASS)]


def test_every_result_gives_a_case_its_time_again(writer: Writer, bench: Bench) -> None:
    slow = "; ".join(["echo 1..4", *(f"sleep 0.5; echo ok {n} c{n}" for n in (1, 2, 3, 4))])
    place = writer.suite("abi", a=slow)
    (place / "settings").write_text("case_timeout=1\n")
    assert [status for _, status in bench(place).told("abi/a")] == [Status.PASS] * 4


def test_a_lost_machine_is_remembered(writer: Writer, bench: Bench) -> None:
    ran = bench(writer.suite("abi", a="touch $RIG_STATE/dead", b=TWO))
    assert ran.rack.lost is not None
    assert ran.rack.lost.exit_code == 6


def test_a_splat_between_programs_belongs_to_the_one_before(writer: Writer, bench: Bench) -> None:
    late = f"{TWO}; touch $RIG_STATE/late"
    ran = bench(writer.suite("abi", a=late, b=TWO), lab=Late())
    assert ran.told("abi/a") == [("one", Status.PASS), ("two", Status.PASS)]
    first, *own = ran.cases["abi/b"]
    assert (first.program, first.name, first.status) == ("a.sh", "after its end", Status.FAIL)
    assert [case.status for case in own] == [Status.PASS, Status.PASS]
    assert len(ran.lab.machines) == 2


@pytest.mark.parametrize(
    ("heading", "title"),
    [
        ("BUG: quux table is broken", "BUG: quux table is broken in foo_fn"),
        ("quux: descriptor ring is corrupted!", "quux: descriptor ring is corrupted! in foo_fn"),
    ],
)
def test_a_report_that_a_programs_end_falls_into_is_not_lost(
    tmp_path: Path, heading: str, title: str
) -> None:
    """Its first line is none by itself, and the next ones come after the mark: of another CPU."""
    lines = [
        *(f"[    {second}.000000][    T1] fine" for second in range(1, 5)),
        f"[   12.000001][   T99] {heading}",
        "[   12.000002][   T77] rig-mark x ended",
        "[   12.000003][   T99] CPU: 0 UID: 0 PID: 99 Comm: x Not tainted 6.12 #1",
        "[   12.000004][   T99] Call Trace:",
        "[   12.000005][   T99]  foo_fn+0x1/0x2",
        "[   12.000006][    T1] rig-mark y ended",
    ]
    text = "".join(f"{line}\n" for line in lines)
    (whole,) = splat.scan(text)
    assert whole.title == title
    heard = SimpleNamespace(console=SimpleNamespace(text=lambda: text, closed=False))
    one = Guest(cast("LocalMachine", heard), cast("Session", None))
    assert one.listen("rig-mark x ended") == ()
    (found,) = one.listen("rig-mark y ended")
    assert (found.title, found.start) == (title, whole.start)
    assert one.listen() == ()


def test_half_a_line_is_judged_when_it_is_whole() -> None:
    """Else it would be told as something else, and never as what it is."""
    report = "\n".join(
        [
            "[    1.000000][    T1] fine",
            "[   12.000001][   T99] WARNING: CPU: 0 PID: 99 at fs/foo.c:1 foo_fn+0x1/0x2",
            "[   12.000002][   T99] Call Trace:",
            "[   12.000003][   T99] ---[ end trace 0000000000000000 ]---",
            "",
        ]
    )
    said = [report[:70], report]
    console = SimpleNamespace(text=lambda: said[0], closed=False)
    one = Guest(cast("LocalMachine", SimpleNamespace(console=console)), cast("Session", None))
    assert one.listen() == ()
    said.pop(0)
    (found,) = one.listen()
    assert found.title == "WARNING in foo_fn"
    said[0] += "[   13.000000][   T99] Kernel panic - not syncing: out of ideas"
    assert one.listen() == ()
    console.closed = True  # nothing more will come of it
    (last,) = one.listen()
    assert last.type == "panic"


def test_each_part_of_the_console_is_looked_at_once(
    writer: Writer, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long run is not slower at its end; and every program has its own."""
    heard, feed = list[bytes](), splat.Scanner.feed

    def counted(scanner: splat.Scanner, chunk: bytes) -> list[Splat]:
        heard.append(chunk)
        return feed(scanner, chunk)

    monkeypatch.setattr(splat.Scanner, "feed", counted)
    noise = 'for i in $(seq 200); do echo "[    1.000000] fine $i" >&$RIG_KMSG; done'
    one = f"{TWO}; {noise}"
    ran = bench(writer.suite("abi", a=one, b=one, c=one, d=one, q=f"{TWO}; {WARNING}"))
    told = [case.status for name in "abcd" for case in ran.cases[f"abi/{name}"]]
    assert told == [Status.PASS] * 8
    assert "pipe_read" in ran.message("abi/q")
    lines = b"".join(heard).split(b"\n")
    assert [lines.count(f"[    1.000000] fine {i}".encode()) for i in (1, 200)] == [4, 4]


def test_a_splat_after_the_last_program_is_not_lost(writer: Writer, bench: Bench) -> None:
    ran = bench(writer.suite("abi", a=f"{TWO}; touch $RIG_STATE/late"), lab=Late())
    assert [case.name for case in ran.last_words] == ["after its end"]
    assert ran.run.exit_code == 1


def test_a_machine_found_dead_at_the_end_is_not_green(writer: Writer, bench: Bench) -> None:
    ran = bench(writer.suite("abi", a=f"{TWO}; touch $RIG_STATE/dying"), lab=Late())
    assert [case.status for case in ran.last_words] == [Status.ERROR]
    assert ran.rack.lost is not None
    assert ran.run.exit_code == 1


def test_a_console_found_silent_at_the_end_is_not_green(writer: Writer, bench: Bench) -> None:
    lab = Late(slowdown=0.1)
    ran = bench(writer.suite("abi", a=f"{TWO}; touch $RIG_STATE/muting", timeout=60), lab=lab)
    assert [case.status for case in ran.last_words] == [Status.ERROR]
    assert "gone or silent" in ran.last_words[0].message
    assert all(machine.closed for machine in lab.machines)


def test_a_splat_during_boot_is_a_failure(writer: Writer, bench: Bench) -> None:
    says = b"[    0.500000] BUG: kernel NULL pointer dereference, address: 0000000000000000\r\n"
    ran = bench(writer.suite("abi", a=TWO, b=TWO), lab=LocalLab(says=says))
    assert ran.cases["abi/a"][0].id == "machine/boot-0"
    assert ran.cases["abi/a"][0].status is Status.FAIL
    assert ran.told("abi/b") == [("one", Status.PASS), ("two", Status.PASS)]
    assert ran.run.exit_code == 1


@pytest.mark.parametrize(("isolation", "boots"), [("none", 1), ("suite", 2), ("program", 3)])
def test_isolation(writer: Writer, bench: Bench, isolation: Isolation, boots: int) -> None:
    places = writer.suite("abi", a=TWO, b=TWO), writer.suite("python", c=TWO)
    assert len(bench(*places, isolation=isolation).lab.machines) == boots


def test_a_kernel_that_does_not_boot_again_ends_the_run(writer: Writer, bench: Bench) -> None:
    with pytest.raises(BootError):
        bench(writer.suite("abi", a=PANIC, b=TWO), lab=LocalLab(boots=1))


def test_a_killed_run_still_says_what_it_saw(writer: Writer, bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(BootError):
        bench(writer.suite("abi", a=PANIC, b=TWO), lab=LocalLab(boots=1))
    run = load_run(tmp_path / "results/latest/run.json")
    assert not run.complete
    assert [case.status for case in run.cases] == [Status.CRASH]
    assert run.exit_code == 1


def test_equal_base_names_do_not_clash(tmp_path: Path, bench: Bench) -> None:
    here, there = Writer(tmp_path / "here"), Writer(tmp_path / "there")
    ran = bench(here.suite("abi", a=TWO), there.suite("abi", a="echo 1..1; echo ok 1 other"))
    assert set(ran.cases) == {"here/abi/a", "there/abi/a"}
    assert ran.told("there/abi/a") == [("other", Status.PASS)]


def test_a_program_that_only_the_build_knows_is_missed(writer: Writer, bench: Bench) -> None:
    ran = bench(writer.suite("abi", a=TWO), lab=_OneMore())
    assert ran.told("abi/a") == [("one", Status.PASS), ("two", Status.PASS)]
    assert [case.id for case in ran.run.cases if not case.status.good] == ["abi/hidden.sh"]
    assert ran.run.exit_code == 1


def test_a_program_that_the_build_lacks_is_an_error(writer: Writer, bench: Bench) -> None:
    ran = bench(writer.suite("abi", a=TWO), lab=_OneLess())
    assert ran.told("abi/a") == [("", Status.ERROR)]


class _OneMore(LocalLab):
    def prepare(self, suites: Sequence[Suite]) -> Sequence[BuiltSuite]:
        hidden = Program("abi", "hidden.sh", ("./hidden.sh",), 10.0)
        built = super().prepare(suites)
        return [replace(one, programs=(*one.programs, hidden)) for one in built]


class _OneLess(LocalLab):
    def prepare(self, suites: Sequence[Suite]) -> Sequence[BuiltSuite]:
        return [replace(one, programs=()) for one in super().prepare(suites)]


class _Damaged(LocalLab):
    """Its machines come damaged from the start."""

    def __init__(self, harm: str) -> None:
        super().__init__()
        self._harm = harm

    def guest(self, machine: LocalMachine) -> Guest:
        (machine.state / self._harm).touch()
        return super().guest(machine)


@pytest.mark.parametrize(
    ("sign", "status", "words"),
    [
        ("late", Status.FAIL, "BUG: kernel NULL pointer dereference"),
        ("dying", Status.ERROR, "gone or silent"),
        ("dropping", Status.ERROR, "57 printk messages were dropped"),
    ],
)
def test_what_comes_between_two_isolated_programs_is_not_lost(
    writer: Writer, bench: Bench, sign: str, status: Status, words: str
) -> None:
    first = f"{TWO}; touch $RIG_STATE/{sign}"
    ran = bench(writer.suite("abi", a=first, b=TWO), isolation="program", lab=Late())
    after, *own = ran.cases["abi/b"]
    assert (after.id, after.status) == ("abi/a.sh::after its end", status)
    assert words in after.message
    assert [case.status for case in own] == [Status.PASS, Status.PASS]
    assert ran.run.exit_code == 1


@pytest.mark.parametrize(("pause", "farewells"), [(0.0, 1), (1.5, 2)])
def test_a_mark_is_no_proof_for_long(
    writer: Writer, bench: Bench, monkeypatch: pytest.MonkeyPatch, pause: float, farewells: int
) -> None:
    """The last guest gets a farewell always, the one before only after a pause."""
    written: list[str] = []
    write, run = Guest._write_mark, Rack.run

    def noted(guest: Guest, text: str) -> None:
        written.append(text)
        write(guest, text)

    def late(rack: Rack, order: Order) -> object:
        time.sleep(pause)
        return run(rack, order)

    monkeypatch.setattr(Guest, "_write_mark", noted)
    monkeypatch.setattr(Rack, "run", late)
    bench(writer.suite("abi", a=TWO, b=TWO), isolation="program")
    said = [text for text in written if text.endswith("farewell")]
    assert len(said) == farewells


def test_modules_are_there_before_any_suite_is_and_once(tmp_path: Path) -> None:
    sent: list[tuple[Path, str]] = []
    session = SimpleNamespace(put=lambda local, remote: sent.append((local, remote)))
    modules = Modules(tmp_path / "modules", "/lib/modules/6.12.1")
    one = Guest(cast("LocalMachine", None), cast("Session", session), modules=modules)
    for name in ("a", "b", "a"):
        one.place(BuiltSuite(Suite(name, tmp_path / name), tmp_path / name, ".", ()))
    assert [local for local, _ in sent] == [tmp_path / name for name in ("modules", "a", "b")]
    assert sent[0] == (modules.directory, modules.place)


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (SessionTimeout("late"), InfrastructureError, "the kernel's modules could not be put"),
        (ConnectionLost("gone"), ConnectionLost, "gone"),  # whose fault that is the console tells
    ],
)
def test_modules_that_a_guest_does_not_take(
    tmp_path: Path, error: RigError, raised: type[RigError], words: str
) -> None:
    def put(_local: Path, _remote: str) -> None:
        raise error

    modules = Modules(tmp_path / "modules", "/lib/modules/6.12.1")
    session = cast("Session", SimpleNamespace(put=put))
    one = Guest(cast("LocalMachine", None), session, modules=modules)
    for _ in range(2):  # it is not taken for done
        with pytest.raises(raised, match=words):
            one.place(BuiltSuite(Suite("a", tmp_path), tmp_path, ".", ()))
