"""Reports without a heading: words that only their source knows, and stacks that somebody has
called for; and what looks like them.
"""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest

from rig import splat, wordings

LOGS = sorted((Path(__file__).parent / "data" / "console").glob("*.log"))
STACK = """\
[    3.100002] CPU: 1 PID: 77 Comm: kworker/1:1 Not tainted 6.12.0 #1
[    3.100003] Hardware name: QEMU Standard PC (Q35 + ICH9, 2009)
[    3.100004] Call Trace:
[    3.100005]  <TASK>
[    3.100006]  dump_stack_lvl+0x4d/0x70
[    3.100007]  foo_check+0x1d/0x40
[    3.100008]  foo_work+0x2a/0x90
[    3.100009]  </TASK>
[    3.200000] eth0: link up
"""
OLD_STACK = """\
Pid: 0, comm: swapper Not tainted 2.6.32 #1
Call Trace:
 [<ffffffff8101ab12>] ? foo_check+0x12/0x30
 [<ffffffff8101cd12>] foo_work+0x42/0x50
eth0: link up
"""


def lines() -> list[tuple[str, str, str]]:
    """Type, title and an example of each."""
    found = []
    for kind, _, _, title, _, _ in wordings.all_of_them():
        found.append((kind, title))
    templates = [one for _, _, _, those in wordings._SAID for one in those]
    return [
        (kind, title, one.replace("***", "\0").replace("*", "x1").replace("\0", "***"))
        for (kind, title), one in zip(found, templates, strict=True)
    ]


@pytest.mark.parametrize(("kind", "title", "line"), lines())
@pytest.mark.parametrize("stamp", ["[    1.000000] ", ""])
def test_each_is_found(kind: str, title: str, line: str, stamp: str) -> None:
    (found,) = splat.scan(f"{stamp}a: b\n{stamp}{line}\n{stamp}c: d\n")
    assert (found.type, found.start) == (kind, 1)
    assert not {"{", "}"} & set(found.title)
    assert found.title == title.replace("{f}", "").replace("{what}", "x1")


@pytest.mark.parametrize("between", ["", "(", ",", ":", " ", "*", "x1 "])
def test_none_takes_long_whatever_a_line_has_in_it(between: str) -> None:
    words = " ".join(trigger for _, trigger, *_ in wordings.all_of_them())
    began = time.process_time()
    for pattern in (pattern for _, _, pattern, *_ in wordings.all_of_them()):
        compiled = re.compile(pattern)
        pieces = re.findall(r"\W", pattern)
        compiled.match((between.join(pieces) * 40 + words)[:2000])
        compiled.match(between * 1000 + words)
    line = (
        b"-(" * 12 + b",,,,):" * 120 + b"x" * 200 + b" ERROR: bad block number on superblock: found"
    )
    splat.scan(b"\n".join([line + b" ERROR: bad root_blkno: 0"] * 5))
    assert time.process_time() - began < 5


def test_each_has_a_word_that_is_worth_looking_for() -> None:
    triggers = [trigger for _, trigger, *_ in wordings.all_of_them()]
    assert min(len(one.strip()) for one in triggers) >= 5
    assert len({pattern for _, _, pattern, *_ in wordings.all_of_them()}) == len(triggers)


@pytest.mark.parametrize(
    ("first", "stack", "title"),
    [
        (
            "[    3.100001] foo 12: checksum is wrong",
            STACK,
            "foo N: checksum is wrong in foo_check",
        ),
        ("foo 12: checksum is wrong", OLD_STACK, "foo N: checksum is wrong in foo_work"),
    ],
)
def test_a_stack_that_was_called_for_is_a_report(first: str, stack: str, title: str) -> None:
    (found,) = splat.scan(f"{first}\n{stack}")
    assert (found.type, found.start) == ("other", 0)
    assert found.title == title
    assert not found.corrupted


def test_of_other_architectures() -> None:
    ia64 = (
        "foo: it is broken\n\nPid: 498, CPU 1, comm:  udevd\npsr : 00001010085a6010\nCall Trace:\n"
    )
    ia64 += " [<a000000100014b20>] show_stack+0x80/0xa0\n [<a0000001000b0300>] foo+0x20/0x60\n"
    (found,) = splat.scan(ia64)
    assert (found.title, found.start, found.end) == ("foo: it is broken in foo", 0, 7)
    mips = "foo: it is broken\nCpu 0\n$ 0   : 00000000 1000e94b\nepc   : 80228860 foo+0x10/0x2c\n"
    (found,) = splat.scan(f"{mips}Call Trace:\n[<80228860>] foo+0x10/0x2c\n")
    assert (found.title, found.start) == ("foo: it is broken in foo", 0)
    (found,) = splat.scan("kernel: bash[10000]: NaT consumption 17179869216\nkernel: psr : 0000\n")
    assert found.title == "Oops: NaT consumption"


def test_a_shared_interrupt_that_is_refused_is_one_where_somebody_asks_for_a_stack() -> None:
    said = "[    3.100001] genirq: Flags mismatch irq 17. 00000000 (a) vs. 00000080 (b)\n"
    assert splat.scan(f"{said}[    3.200000] eth0: link up\n") == []
    (found,) = splat.scan(said + STACK)
    assert found.title == "genirq: flags mismatch in foo_check"


@pytest.mark.parametrize(
    "first",
    [
        "kworker/1:1: page allocation failure: order:5, mode:0xdc0(GFP_KERNEL), nodemask=(null)",
        "python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "python3 cpuset=/ mems_allowed=0",
        "sysrq: Show Regs",
        "NMI backtrace for cpu 1",
        "FAULT_INJECTION: forcing a failure.",
        "The following trace is a kernel self test and not a bug!",
        "name failslab, interval 1, probability 0, space 0, times 0",
        "sh[12]: unhandled signal 11 code 0x1 at 0x0000000000000008",
        "Modules linked in: virtio_net(E) net_failover(E) [last unloaded: foo]",
        " ip6_tables nf_tables x_tables",
        "",
    ],
)
@pytest.mark.parametrize("stamped", [True, False])
def test_a_stack_that_was_asked_for_is_none(first: str, stamped: bool) -> None:
    if stamped:
        assert splat.scan(f"[    3.100001] {first}\n{STACK}") == []
    else:
        assert splat.scan(f"{first}\n{OLD_STACK}") == []


def test_what_has_asked_may_be_broken_by_a_mail() -> None:
    stack = STACK.splitlines()
    said = "[    3.100001] kworker/1:1: page allocation failure: order:5,"
    rest = ["mode:0xdc0(GFP_KERNEL|__GFP_ZERO), all: of it"]
    assert splat.scan("\n".join([said, *rest, *stack])) == []
    scanner = splat.Scanner()  # also where it is in the block before
    found = scanner.feed(f"{said}\n".encode())
    found += scanner.feed("\n".join([*rest, *stack, ""]).encode())
    assert found + scanner.finish() == []


def test_what_has_asked_may_be_behind_words_of_others() -> None:
    asked = "[    3.000001] python3 invoked oom-killer: gfp_mask=0xcc0, order=0, oom_score_adj=0\n"
    users = "[  OK  ] Started a.service.\n[  OK  ] Started b.service.\nhello: world\n"
    assert splat.scan(asked + users + STACK) == []
    drivers = "".join(f"[    3.00001{n}] usb {n}-1: new device\n" for n in range(5))
    assert splat.scan(asked + drivers + STACK) == []


@pytest.mark.parametrize("users", ["", "hello: world\n", "a: b\nc: d\n"])
def test_it_begins_at_its_heading_also_behind_words_of_users(users: str) -> None:
    text = f"[    3.000000] a: b\n[    3.100001] foo: it is broken: it\n{users}{STACK}"
    (found,) = splat.scan(text)
    assert (found.start, found.title) == (1, "foo: it is broken: it in foo_check")
    scanner = splat.Scanner()
    seen = [one for line in text.splitlines(keepends=True) for one in scanner.feed(line.encode())]
    assert [*seen, *scanner.finish()] == [found]


@pytest.mark.parametrize(
    "lines",
    [
        ["iptables: unhandled page fault (11) at 0x00000000, code 0x017", "pgd = c1c04000",
         "[00000000] *pgd=81c10031, *pte=00000000, *ppte=00000000", ""],
        ["User process fault: interruption code 0011 ilc:3 in a.out"],
        ["vmap allocation for size 20480 failed: use vmalloc=<size> to increase size"],
        ["Stack traceback for pid 7"],
    ],
)  # fmt: skip
def test_a_program_that_dies_is_none(lines: list[str]) -> None:
    assert splat.scan("\n".join(["a: b", *lines, OLD_STACK])) == []


def test_the_state_of_a_program_is_none() -> None:
    said = "foo: it is: what\nPid: 7, comm: x\nCPU: 0    Not tainted  (2.6.32 #1)\n"
    said += "Flags: nZCv  IRQs on  FIQs on  Mode USER_32  ISA ARM  Segment user\n"
    assert (
        splat.scan(f"{said}Backtrace:\n[<c0101234>] (f+0x0/0x4) from [<c0101238>] (g+0x4/0x8)\n")
        == []
    )


def test_a_line_that_seems_to_go_on_is_no_heading_of_a_stack() -> None:
    splat.scan(b"x\n\nCPU: 1 PID: 1 Comm: a=\nCPU: 1 PID: 1 Comm: b\nh\nCall Trace:\n")
    text = "x: y=\nCPU: 1 PID: 1 Comm: a=\nCPU: 1 PID: 1 Comm: b\nCall Trace:\n f+0x1/0x2\n"
    assert len(splat.scan(text)) == 1


def test_a_state_without_a_stack_is_none() -> None:
    head = "\n".join(STACK.splitlines()[:2])
    said = f"[    3.100001] foo[12]: what: it is\n{head}\n[    3.100004] pc : 0000aaaac0de\n"
    assert splat.scan(said) == []


def test_what_a_file_system_does_about_a_report_is_none_of_its_own() -> None:
    error = "[    3.000001] gfs2: fsid=vdb.0: fatal: filesystem consistency error - function = f\n"
    withdrawn = "[    3.000005] gfs2: fsid=vdb.0: File system withdrawn\n"
    quiet = "[    3.000002] eth0: link up\n" * 5
    (found,) = splat.scan(error + quiet + withdrawn + STACK)
    assert (found.type, found.start) == ("filesystem", 0)
    (found,) = splat.scan(withdrawn + STACK)
    assert found.title == "gfs2: fsid=vdb.N: File system withdrawn in foo_check"


def test_where_a_block_is_looked_through_in_pieces_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "\n".join(path.read_text(errors="replace") for path in LOGS[:20])
    whole = splat.scan(text)
    assert len(whole) > 5
    chance = random.Random(7)
    for _ in range(6):
        monkeypatch.setattr(splat, "_WINDOW", chance.randint(1, 900))
        assert splat.scan(text) == whole


def test_words_on_end_take_no_memory_to_speak_of() -> None:
    words = splat._Words(b"BUG: x " * (1 << 20))
    assert words.after(0) == 0
    assert len(words._starts) <= splat._WINDOW // 7 + 1


@pytest.mark.parametrize(
    ("lines", "type", "end"),
    [
        (
            [
                "Bad kernel stack pointer 7fffffffeac0 at 700",
                "Oops: Bad kernel stack pointer, sig: 6 [#1]",
                "SMP NR_CPUS=2048",
                "NUMA",
                "pSeries",
                "Modules linked in: af_packet",
                "NIP: 0000000000000700 LR: 00003fff9ca0d6a8 CTR: 00003fff9cb0",
            ],
            "other",
            7,
        ),
        (
            [
                "Entering kdb (current=0xcb846c80, pid 1) Oops: (null)",
                "due to oops @ 0xc05bf468",
                "",
                "Pid: 1, comm:              swapper",
            ],
            "other",
            4,
        ),
        (
            [
                "segment-related general protection fault: e030 [#1] SMP NOPTI",
                "CPU: 0 PID: 0 Comm: swapper/0 Not tainted 5.15.0-91-generic",
            ],
            "general-protection",
            2,
        ),
        (
            ["Feb 13 19:58:30 sun4 klogd: OCFS2: ERROR (device dm-4): ocfs2_search_chain: bad"],
            "filesystem",
            1,
        ),
    ],
)
def test_of_who_else_has_a_word(lines: list[str], type: str, end: int) -> None:
    (found,) = splat.scan("\n".join([*lines, ""]))
    assert (found.type, found.start, found.end) == (type, 0, end)
