"""Splats: captured consoles, every split of them, look-alikes, and that memory stays bounded."""

from __future__ import annotations

import random
import re
import time
import tracemalloc
from pathlib import Path

import pytest

from rig import consoleline, culprits, headings, splat
from rig.results import Splat

LOGS = Path(__file__).parent / "data" / "console"
ALL = sorted(LOGS.glob("*.log"))

_NULL = "BUG: kernel NULL pointer dereference"

# What each captured console shows: (type, title) in order. A name that is not here is clean.
EXPECTED: dict[str, list[tuple[str, str]]] = {
    # The kernel's own ends.
    "init-exited": [("lost-init", "kernel panic: Attempted to kill init!")],
    "no-init-found": [("no-init", "kernel panic: no working init")],
    "requested-init-missing": [("no-init", "kernel panic: no working init")],
    "no-root": [("no-root", "kernel panic: VFS: Unable to mount root fs")],
    "panic-sysrq-crash": [("panic", "kernel panic: sysrq triggered crash")],
    "panic-sysrq-crash-oops-panic": [("panic", "kernel panic: sysrq triggered crash")],
    # A debugger called one kernel function with a bad argument; the kernel reported the rest. A
    # panic that follows (panic_on_oops, panic_on_warn, init killed by it) is no second splat.
    "null-deref-read": [("null-deref", f"{_NULL} read in filp_flush")],
    "null-deref-write": [("null-deref", f"{_NULL} write in __init_waitqueue_head")],
    "null-deref-oops-panic": [("null-deref", f"{_NULL} read in filp_flush")],
    "null-deref-in-init": [("null-deref", f"{_NULL} read in filp_flush")],
    "null-call": [("null-deref", f"{_NULL} execute in do_syscall_64")],
    "page-fault-read": [("page-fault", "BUG: page fault read in filp_flush")],
    "general-protection": [("general-protection", "general protection fault in filp_flush")],
    "divide-error": [("divide-error", "divide error in reciprocal_value")],
    "double-fault": [("double-fault", "double fault in __x64_sys_sethostname")],
    "bug": [("bug", "kernel BUG in clear_inode")],
    "warning": [("warning", "WARNING in drop_nlink")],
    "warning-panic-on-warn": [("warning", "WARNING in drop_nlink")],
    "refcount": [("refcount", "WARNING: refcount bug in refcount_warn_saturate")],
    "list-corruption": [("list-corruption", "list_add corruption in __list_add_valid_or_report")],
    "kasan-double-free": [("kasan-invalid-free", "KASAN: double-free in __x64_sys_sethostname")],
    "lockdep-circular": [("lockdep", "possible deadlock in __x64_sys_sethostname")],
    "lockdep-bad-unlock": [("lockdep", "bad unlock balance in __mutex_unlock_slowpath")],
    "lockdep-held-lock-freed": [("lockdep", "held lock freed in kfree")],
    "lockdep-held-on-return": [("lockdep", "lock held when returning to user space")],
    "rcu-usage": [
        ("rcu-usage", "suspicious RCU usage in find_task_by_pid_ns"),
        ("rcu-usage", "suspicious RCU usage in pid_task"),
    ],
    "atomic-sleep": [
        (
            "atomic-sleep",
            "BUG: sleeping function called from invalid context in __x64_sys_sethostname",
        ),
        ("atomic-sleep", "BUG: scheduling while atomic in __x64_sys_sethostname"),
        ("lockdep", "lock held when returning to user space"),
    ],
    "smp-processor-id": [
        ("other", "BUG: using smp_processor_id() in preemptible code in do_syscall_64")
    ],
    "hung-task": [("hung-task", "INFO: task hung in mnt_want_write")] * 2,
    "soft-lockup-and-rcu-stall": [
        ("rcu-stall", "INFO: rcu detected stall in __x64_sys_sethostname"),
        ("soft-lockup", "BUG: soft lockup in multi_cpu_stop"),
        ("soft-lockup", "BUG: soft lockup in __x64_sys_sethostname"),
        ("rcu-stall", "INFO: rcu detected stall in multi_cpu_stop"),
        ("soft-lockup", "BUG: soft lockup in multi_cpu_stop"),
        ("soft-lockup", "BUG: soft lockup in __x64_sys_sethostname"),
        ("rcu-stall", "INFO: rcu detected stall in __x64_sys_sethostname"),
    ],
}
CLEAN = [path for path in ALL if path.stem not in EXPECTED]


def read(name: str) -> bytes:
    return (LOGS / f"{name}.log").read_bytes()


def kinds(found: list[Splat]) -> list[tuple[str, str]]:
    return [(one.type, one.title) for one in found]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_what_a_captured_console_shows(name: str) -> None:
    found = splat.scan(read(name))
    assert kinds(found) == EXPECTED[name]
    lines = read(name).decode(errors="replace").split("\n")
    for one in found:
        assert one.start < one.end <= len(lines)
        assert one.text.split("\n")[0] == lines[one.start].rstrip("\r")
        assert one.title == " ".join(one.title.split())
        assert not re.search(r"0x[0-9a-f]|\.(?:cold|isra|constprop|part)\b", one.title)


@pytest.mark.parametrize("path", CLEAN, ids=lambda path: path.stem)
def test_no_false_alarm_on_a_clean_console(path: Path) -> None:
    assert kinds(splat.scan(path.read_bytes())) == []


def test_expected_names_are_captured_logs() -> None:
    assert set(EXPECTED) <= {path.stem for path in ALL}
    assert len(CLEAN) >= 3


# -- splits --------------------------------------------------------------------------------------


def in_pieces(data: bytes, cuts: list[int]) -> list[Splat]:
    scanner = splat.Scanner()
    found: list[Splat] = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        found += scanner.feed(data[start:end])
    return sorted(found + scanner.finish(), key=lambda one: one.start)


def interesting(data: bytes) -> tuple[bytes, int]:
    """The part of a log around its reports, so that every split of it can be tried."""
    found = splat.scan(data)
    lines = data.split(b"\n")
    first = max(0, found[0].start - 3)
    return b"\n".join(lines[first : min(len(lines), found[0].end + 3)]), first


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_split_gives_the_same(name: str) -> None:
    data, _ = interesting(read(name))
    whole = splat.scan(data)
    assert whole
    for cut in range(0, len(data), max(1, len(data) // 400)):
        assert in_pieces(data, [cut]) == whole


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_random_pieces_give_the_same(path: Path) -> None:
    data = path.read_bytes()
    whole = splat.scan(data)
    chance = random.Random(1)
    for pieces in (5, 50, 500):
        cuts = sorted(chance.randrange(len(data)) for _ in range(pieces))
        assert in_pieces(data, cuts) == whole


def test_byte_by_byte_gives_the_same() -> None:
    data = read("panic-sysrq-crash")
    assert in_pieces(data, list(range(1, len(data)))) == splat.scan(data)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_log_cut_anywhere_behind_the_heading_still_tells(name: str) -> None:
    data = read(name)
    first = splat.scan(data)[0]
    lines = data.split(b"\n")
    head = _heading_line(first)
    for end in range(head + 1, first.end + 1):
        found = splat.scan(b"\n".join(lines[:end]))
        assert len(found) >= 1
        assert found[0].type == first.type


def _heading_line(one: Splat) -> int:
    """The line that decides the type: behind "cut here" and what a WARN() says."""
    for offset, line in enumerate(one.text.split("\n")):
        if re.search(r"\] (?!-+\[ cut|=+)", line) and (
            re.search(r"WARNING: |BUG|Kernel panic|Oops|UBSAN|INFO: |LOCKUP|list_|usercopy", line)
        ):
            return one.start + offset
    return one.start


# -- prefixes, users, look-alikes ----------------------------------------------------------------

PANIC = "Kernel panic - not syncing: out of ideas"


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "[    1.234567] ",
        "[   12.345678][   T12] ",
        "[12345.678901][    C0] ",
        "<0>[    1.234567] ",
        "<0>",
        "login: [    1.234567] ",
        "Nov  3 08:00:00 host kernel: [    1.234567] ",
        "2026-11-23T08:00:00.000000+00:00 host kernel: ",
        "\x1b[0m[    1.234567] ",
        "50%\r[    1.234567] ",
        "[    1.234567 ] ",
        "[    1.234567] kernel: ",
        "[    1.234567] host kernel: ",
        "[    1.234567]  (1)[99:some_task]",
        "[Nov 3 08:00] ",
        "[ ] ",
        "[...] ",
        "+    ",
        "> >     kernel:",
        "Job error: ",
        "root@board:~# ",
        "~ # ",
        "/mnt/x-1 $ ",
        "июл 27 14:08:03 laptop kernel: ",
        "[2021/07/05, 13:43:52.334] ",
        "2021-08-18T13:22:01.915669  kern  :emerg : ",
        "nov   30 14:18:09 host kernel: ",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n", ""])
def test_prefixes(prefix: str, end: str) -> None:
    assert kinds(splat.scan(f"{prefix}{PANIC}{end}")) == [("panic", "kernel panic: out of ideas")]


@pytest.mark.parametrize(
    "line",
    [
        "[    0.054776] Kernel command line: console=ttyS0 panic=-1 oops=panic BUG: WARNING: x",
        "[    5.000000] a.out[123]: segfault at 0 ip 000000000040 sp 00007ffc error 4 in a.out",
        "[    5.000000] traps: a.out[9] trap invalid opcode ip:401136 sp:7ffd0 error:0 in a.out",
        "[    5.000000] traps: a.out[9] general protection fault ip:401136 sp:7ffd0 error:0",
        "[    5.000000] traps: a.out[9] trap divide error ip:401136 sp:7ffd0 error:0",
        "[    5.000000] INFO: lockdep is turned off.",
        "[    0.100000] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on",
        "[    0.100000] RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable",
        "[    0.100000] MDS: WARNING: SMT on may be vulnerable",
        "[    0.100000] WARNING: 'bootconfig' found on the kernel command line",
        "[    0.100000] kasan: KernelAddressSanitizer initialized (generic)",
        "[    0.100000] kfence: initialized - using 2097152 bytes for 255 objects",
        "[    5.000000] mytest: looking for BUG: KASAN: use-after-free in f+0x1/0x2",
        "[    5.000000] rig: marker before abi/submit",
        "[    5.000000] perf: interrupt took too long (2501 > 2500)",
        "[    5.000000] INFO: NMI handler (perf_event_nmi_handler) took too long to run: 1.2 msecs",
        "[    5.000000] systemd[1]: Kernel panic - not syncing: only words",
        "[    5.000000] clocksource: timekeeping watchdog on CPU0: WARNING: skewed",
        "[    5.000000] x: page allocation failure: order:4",
        "[    5.000000] rcu: INFO: Stall ended before state dump start",
        "[    5.000000] # kasan_test: EXPECTATION FAILED",
    ],
)
def test_look_alikes(line: str) -> None:
    assert kinds(splat.scan(line + "\n")) == []


def test_a_stamp_behind_a_prompt_does_not_make_the_rest_a_users() -> None:
    rest = [
        "WARNING: a/b.c:7 at f+0x1/0x2, CPU#1: k/24",
        "CPU: 1 UID: 0 PID: 24 Comm: k",
        "pc : f+1",
    ]
    assert [
        one.type for one in splat.scan("\n".join(["root@x:/# [   30.090146] a: b", *rest]))
    ] == ["warning"]
    assert splat.scan("\n".join(["[   30.090146] a: b", *rest])) == []


def test_a_users_words_on_a_console_with_stamps_are_not_the_kernels() -> None:
    data = f"[    0.000000] Linux version 6.12.1 (x)\n{PANIC}\nBUG: KASAN: x in f+0x1/0x2\n"
    assert splat.scan(data) == []


def test_a_second_banner_is_a_reboot() -> None:
    twice = read("clean-boot") * 2
    assert kinds(splat.scan(twice)) == [("reboot", "unexpected reboot")]


def test_a_stall_that_ended_is_none() -> None:
    lines = [
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "rcu: \t(detected by 0, t=2102 jiffies, g=5, q=7 ncpus=2)",
        "rcu: INFO: Stall ended before state dump start",
    ]
    assert splat.scan("".join(f"[   20.000000][    C0] {line}\n" for line in lines)) == []


def test_a_banner_after_lines_of_a_kernel_that_runs_is_a_reboot() -> None:
    banner = "Nov  3 08:05:00 host kernel: Linux version 6.1.0 (x)\n"
    runs = "".join(f"Nov  3 08:00:0{n} host kernel: eth0: link is up\n" for n in range(3))
    assert kinds(splat.scan(runs + banner)) == [("reboot", "unexpected reboot")]
    early = "Nov  3 08:05:00 host kernel: microcode: updated early to 0x1\n" * 3
    assert splat.scan(early + banner + runs) == []


def test_a_banner_after_a_panic_is_a_reboot() -> None:
    found = kinds(splat.scan(f"{PANIC}\n\nLinux version 2.4.0 (x)\n"))
    assert found == [("panic", "kernel panic: out of ideas"), ("reboot", "unexpected reboot")]


@pytest.mark.parametrize("stamp", ["", "[    1.000000] "])
def test_the_condition_of_a_warning(stamp: str) -> None:
    line = f"{stamp}WARNING: [p == NULL || !p->x] a/b.c:7 at f+0x1/0x2, CPU#1: k/24\n"
    assert kinds(splat.scan(line)) == [("warning", "WARNING in f")]


@pytest.mark.parametrize("where", ["", "(percpu) "])
def test_what_is_read_from_debugfs_is_a_report_on_a_console_with_stamps(where: str) -> None:
    lines = [
        "[    1.000000] boot",
        "# cat /sys/kernel/debug/kmemleak",
        f"unreferenced object {where}0xffff888012345678 (size 64):",
        '  comm "x", pid 1, jiffies 4294937460',
        "  backtrace:",
        "    [<00000000fe3aa979>] kmalloc_trace+0xf0/0x140",
        "    [<0000000034bd6bc0>] leaves_it+0x18/0x38",
    ]
    assert kinds(splat.scan("\n".join(lines))) == [("memory-leak", "memory leak in leaves_it")]


def test_two_cpus_on_one_line() -> None:
    line = "[  1.664002] INFO: rcu_sched self-detected stall on CPU[  1.676008] INFO: r)\n"
    assert kinds(splat.scan(line)) == [("rcu-stall", "INFO: rcu detected stall")]


@pytest.mark.parametrize("mark", ["", "> ", ">> "])
def test_a_heading_that_a_mail_has_broken_in_two(mark: str) -> None:
    for heading, rest, title in (
        ("BUG: KASAN: wild-memory-access in", "reads_it+0x39/0x60", "KASAN: wild-memory-access"),
        ("WARNING: CPU: 0 PID: 1 at", "a/b.c:24 warns+0x6c/0xf0", "WARNING"),
        ("WARNING: CPU: 0 PID: 1 at a/b.c:24", "warns+0x6c/0xf0", "WARNING"),
        ("UBSAN: shift-out-of-bounds in", "a/b.c:1:2", "UBSAN: shift-out-of-bounds"),
        (f"{PANIC[:29]}stack-protector: stack is corrupted in:", "f+0x1/0x2", ""),
    ):
        (found,) = splat.scan(f"{mark}[    1.000000] {heading}\n{mark}{rest}\n")
        name = rest.split()[-1].split("+")[0] if "+0x" in rest else ""
        assert (found.frame, found.title.startswith(title)) == (name, True), heading


def test_the_message_of_a_warning_may_come_behind_it() -> None:
    for message, type in (
        ("refcount_t: saturated; leaking memory.", "refcount"),
        ("list_add corruption. prev->next should be next", "list-corruption"),
    ):
        for at in (
            "WARNING: at lib/a.c:33 f+0xc8/0xd0()",
            "WARNING: CPU: 1 PID: 9 at lib/a.c:2 f+0x1/0x2",
        ):
            lines = ["------------[ cut here ]------------", at, "Hardware name: x", message]
            assert [one.type for one in splat.scan("\n".join(lines))] == [type]


def test_one_event_is_one_report() -> None:
    pool = "BUG: workqueue lockup - pool cpus={} node=0 flags=0x1 nice=0 stuck for 171s!"
    waits = "unregister_netdevice: waiting for {} to become free. Usage count = 1"
    stuck = "watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [x:1]"
    for lines, many in (
        ([pool.format(1), pool.format(2)], 1),
        ([waits.format("lo"), "x", "x", "x", waits.format("lo")], 1),
        ([waits.format("lo"), waits.format("eth0")], 2),
        (["double fault, gdt at c0449a80 [255 bytes]", "double fault, tss at c04d5800"], 1),
        ([f"BUG: KMSAN: uninit-value in f{n} a/b.c:1 [inline]" for n in range(9)], 1),
        ([f"kernel:{stuck}", f"Nov  3 08:00:00 host kernel: {stuck}"], 1),
        (["WARNING: CPU: 0 PID: 1 at a/b.c:2 f+0x1/0x2"] * 2, 1),
        (["EXT4-fs error (device a1): f:2: x", "EXT4-fs error (device a1): f:2: y"], 1),
        (["EXT4-fs error (device a1): f:2: x", "EXT4-fs error (device a1): g:2: x"], 2),
        (["EXT4-fs error (device a1): f:2: x", "EXT4-fs error (device b1): f:2: x"], 2),
    ):
        assert len(splat.scan("\n".join(lines))) == many, lines


@pytest.mark.parametrize("late", [False, True])
def test_what_comes_of_a_transaction_that_was_aborted_is_no_second_report(late: bool) -> None:
    """The words come before the WARNING where warnings are traps, else behind it."""
    words, at = "BTRFS: Transaction aborted (error -5)", "WARNING: at fs/a.c:254 f+0x1/0x2()"
    warning = [at, words] if late else [words, at]
    lines = ["------------[ cut here ]------------", *warning, "Modules linked in: x"]
    lines += ["---[ end trace a0b92057287120e6 ]---"]
    error = "BTRFS error (device sda1) in g:5783: errno=-5 IO failure"
    assert [one.type for one in splat.scan("\n".join([*lines, error]))] == ["warning"]
    much_later = splat.scan("\n".join([*lines, *["fine"] * 99, error]))
    assert [one.type for one in much_later] == ["warning", "filesystem"]


def test_two_reports_close_together_are_two() -> None:
    first, second = (f"BUG: KASAN: slab-use-after-free in {name}+0x1/0x2" for name in "fg")
    lines = [first, "Read of size 4 at addr ffff888012345678 by task x/1", second]
    assert [one.frame for one in splat.scan("\n".join(lines))] == ["f", "g"]


def test_a_panic_long_after_a_report_is_none_of_its_consequences() -> None:
    warning = "WARNING: CPU: 0 PID: 1 at a/b.c:2 f+0x1/0x2\n---[ end trace 0 ]---\n"
    panic = "Kernel panic - not syncing: Asynchronous SError Interrupt\n"
    assert [one.type for one in splat.scan(warning + panic)] == ["warning"]
    found = splat.scan(warning + "fine\n" * 5000 + panic)
    assert [one.type for one in found] == ["warning", "panic"]


def test_a_panic_about_a_hang_is_its_own_report_where_nothing_was_said_before() -> None:
    panic = "Kernel panic - not syncing: hung_task: blocked tasks"
    hung = "INFO: task x:1 blocked for more than 120 seconds."
    other = "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 65s!"
    assert [one.type for one in splat.scan(f"{hung}\n{panic}\n")] == ["hung-task"]
    found = splat.scan(f"{other}\nx\nx\nx\n{panic}\n")
    assert [one.type for one in found] == ["workqueue-lockup", "hung-task"]


def test_a_fault_of_user_space_is_none_of_the_kernels() -> None:
    fault = "Unhandled fault: alignment exception (0x011) at 0x00508ae4"
    assert splat.scan(f"{fault}\n" + "x\n" * 5) == []
    (found,) = splat.scan(f"{fault}\npgd = c0204000\nInternal error: : 8 [#1] SMP ARM\n")
    assert found.type == "other"


def test_file_systems_say_one_thing_in_several_lines() -> None:
    error = "EXT4-fs error (device dm-26): ext4_find_extent:909: bad header"
    abort = "Aborting journal on device dm-26-8."
    other = "EXT4-fs error (device dm-4): ext4_lookup:1: bad entry"
    title = ("filesystem", "EXT4-fs error in ext4_find_extent")
    assert kinds(splat.scan(f"{error}\n{abort}\n")) == [title]
    assert kinds(splat.scan(f"{abort}\n{error}\n")) == [title]
    assert kinds(splat.scan(f"{error}\n" + "x\n" * 9 + f"{abort}\n")) == [title]
    second = ("filesystem", "EXT4-fs error in ext4_lookup")
    assert kinds(splat.scan(f"{error}\n{abort}\n{other}\n")) == [title, second]
    xfs = "XFS (sda1): Internal error at line 1.  Caller f+0x1/0x2"
    repair = "XFS (sda1): Corruption detected. Unmount and run xfs_repair"
    assert len(splat.scan(f"{xfs}\n{repair}\n")) == 1


@pytest.mark.parametrize(
    ("lines", "type", "frame"),
    [
        (
            ["general protection fault: 0000 [1] SMP", "RIP: 0010:[<ff>] f+0x1e/0x45"],
            "general-protection",
            "f",
        ),
        (
            ["Oops: general protection fault, probably x: 0000 1 SMP NOPTI"],
            "general-protection",
            "",
        ),
        (["Oops: 0002 [2] PREEMPT SMP"], "page-fault", ""),
        (["invalid opcode: 0000 [3] SMP"], "bug", ""),
        (["BUG: warning at kernel/a.c:1816/warns_here() (Not tainted)"], "warning", "warns_here"),
        (
            [
                "Unhandled 64-bit el1h sync exception on CPU0, ESR 0x34000002 -- BTI",
                "pc : f+0x4/0x20",
            ],
            "other",
            "f",
        ),
        (["SError Interrupt on CPU3, code 0xbf000002 -- SError", "pc : f+0x4/0x20"], "other", "f"),
        (
            ["Internal error: Oops - BTI: 0000000036000002 [#1] SMP", "pc : f+0x4/0x20"],
            "other",
            "f",
        ),
        (["Internal error: Oops - BUG: ="], "bug", ""),
        (["Oops: int3: 0000 [#1] SMP", "RIP: 0010:f+0x4/0x20"], "other", "f"),
        (["Oops: Oops: 0002 [#1] SMP", "RIP: 0010:f+0x4/0x20"], "page-fault", "f"),
        (["Oops: kernel access of bad area, sig: 11"], "page-fault", ""),
        (["invalid operand: 0000 [1] SMP"], "bug", ""),
        (["general protection fault: 0000 [1]"], "general-protection", ""),
        (["Unable to handle kernel paging request at virtual address 00000018"], "null-deref", ""),
        (["Unable to handle kernel paging request at virtual address 00100018"], "page-fault", ""),
        (
            [
                "WARNING: suspicious RCU usage",
                "kernel/a.c:7 Illegal context switch in RCU-bh read-side critical section!",
                " #0:  (lock){+.+.+.}, at: [<ffffffff815f0c8f>] other+0x1f/0x40",
                " #1:  (rcu_read_lock_bh){......}, at: [<ffffffff816a34e2>] f+0x62/0x540",
            ],
            "rcu-usage",
            "f",
        ),
        (
            ["BUG: Bad page state in process x  pfn:1", "Workqueue: q f", " dump_stack+0x1/0x2"],
            "bad-page",
            "f",
        ),
        (["> =C2=A0 Oops: Oops: 0002 [#1] SMP", "> RIP: 0010:f+0x4/0x20"], "page-fault", "f"),
        (["Bad mode in Synchronous Abort handler detected, code 0x8600000f"], "other", ""),
        (
            ["Kernel panic - not syncing : VFS: Unable to mount root fs on unknown-block(0,0)"],
            "no-root",
            "",
        ),
        (["Kernel panic: No init found.  Try passing init= option to kernel."], "no-init", ""),
        (
            ["Kernel panic - not syncing: stack-protector: stack is corrupted in: f+0x1/0x2"],
            "panic",
            "f",
        ),
        (
            ["usercopy: kernel memory exposure attempt detected from 12 (x) (1 bytes)"],
            "usercopy",
            "",
        ),
        (
            [
                "Unable to handle kernel NULL pointer dereference at virtual address 0",
                "epc : 0x0",
                " ra : f+0x1/0x2",
            ],
            "null-deref",
            "f",
        ),
        (
            [
                "BUG: kernel NULL pointer dereference, address: 0",
                "EIP:    0010:[f+447/768]    Not tainted",
            ],
            "null-deref",
            "f",
        ),
        (
            [
                "INFO: task x:1 blocked for more than 120 seconds.",
                " [] schedule+0x29/0x70",
                " [] f+0x1/0x2",
            ],
            "hung-task",
            "f",
        ),
    ],
)
def test_headings(lines: list[str], type: str, frame: str) -> None:
    (found,) = splat.scan("\n".join(lines))
    assert (found.type, found.frame) == (type, frame)


# -- the rules -----------------------------------------------------------------------------------


def test_every_rule_says_where_it_is_from_and_can_be_found() -> None:
    types = {rule.type for rule in splat.RULES}
    for rule in splat.RULES:
        assert rule.source
        boxed = rule.pattern.pattern.startswith(headings.BOXED)
        words = (*splat._WORDS, *splat._COMMON)
        assert boxed or any(word in rule.trigger for word in words), rule.title
    assert {
        "panic", "bug", "warning", "null-deref", "page-fault", "general-protection",
        "double-fault", "divide-error", "stack-overflow", "kasan-uaf", "kasan-oob",
        "kasan-invalid-free", "kasan", "kmsan", "kcsan", "kfence", "ubsan", "slab", "bad-page",
        "usercopy", "memory-leak", "list-corruption", "atomic-sleep", "lockdep", "rcu-stall",
        "rcu-usage", "soft-lockup", "hard-lockup", "hung-task", "workqueue-lockup", "oom-panic",
        "no-init", "no-root", "unregister-netdevice", "filesystem", "lost-init", "other",
    } <= types  # fmt: skip


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("f", "f"),
        ("f.cold", "f"),
        ("f.constprop.0", "f"),
        ("f.isra.0.cold", "f"),
        ("f.part.12", "f"),
        ("a.b", "a.b"),
        ("x.llvm.123456", "x"),
    ],
)
def test_compiler_suffixes_go(symbol: str, name: str) -> None:
    assert culprits.function(symbol) == name


@pytest.mark.parametrize(
    ("message", "title"),
    [
        ("Attempted 12 things at 0xffff888000000000", "Attempted N things at"),
        ("kmalloc-64 stays, 64 goes", "kmalloc-64 stays, N goes"),
        ("on unknown-block(0,0)", "on unknown-block"),
    ],
)
def test_two_occurrences_read_the_same(message: str, title: str) -> None:
    assert splat._plain(message) == title


# -- long lines ----------------------------------------------------------------------------------

HEADING = b"[    1.234567][    T1] BUG: KASAN: slab-use-after-free in f+0x1/0x2"
UAF = [("kasan-uaf", "KASAN: slab-use-after-free in f")]


@pytest.mark.parametrize("length", [10, 4_000, 4_096, 5_000, 70_000, 300_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_a_heading_behind_any_amount_of_a_users_text_is_seen(length: int, end: bytes) -> None:
    data = b"[    0.000000] Linux version 6.12.1 (x)\n" + b"x" * length + HEADING + end
    assert kinds(splat.scan(data)) == UAF
    assert kinds(in_pieces(data, list(range(1000, len(data), 1000)))) == UAF


def test_a_long_line_without_a_stamp_counts_from_its_head() -> None:
    assert kinds(splat.scan(f"{PANIC}{' ' * 200_000}\n")) == [
        ("panic", "kernel panic: out of ideas")
    ]


@pytest.mark.parametrize("before", [5_000, 66_000])
@pytest.mark.parametrize("behind", [0, 4_060, 4_300, 70_000])
def test_every_split_of_a_long_line_gives_the_same(before: int, behind: int) -> None:
    data = b"[    0.000001] a" + b"x" * before + HEADING + b" " + b"y" * behind
    whole = splat.scan(data + b"\n")
    assert kinds(whole) == UAF
    heading = data.index(HEADING)
    near = [*range(heading - 3, heading + 30), *range(heading + 4_090, heading + 4_170)]
    for cut in [1, 4_095, 4_096, 4_097, *(near if behind else near[:30])]:
        if cut < len(data):
            assert in_pieces(data + b"\n", [cut]) == whole
            assert in_pieces(data + b"\n", [cut, min(cut + 20, len(data))]) == whole


@pytest.mark.parametrize("seed", range(8))
def test_shortening_never_changes_what_is_looked_at(seed: int) -> None:
    chance = random.Random(seed)
    parts = [b"[    1.234567]", b"[   12.34", b"5678]", b"[", b"]", b"z" * 50, b"q" * 4_060]
    for _ in range(40):
        line = b"".join(chance.choices(parts, k=chance.randrange(20, 60)))
        cut = chance.randrange(consoleline.LINE_MAX + 1, len(line) + consoleline.LINE_MAX + 2)
        line = line.ljust(cut, b"p")
        short = consoleline.shortened(line[:cut])
        assert len(short) <= 2 * (consoleline.LINE_MAX + consoleline.STAMP_MAX)
        assert consoleline.looked_at(short + line[cut:]) == consoleline.looked_at(line)


# -- bounds --------------------------------------------------------------------------------------


def test_a_line_without_end_is_bounded() -> None:
    scanner = splat.Scanner()
    tracemalloc.start()
    for _ in range(200):
        assert scanner.feed(b"x" * 100_000) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000
    assert scanner.feed(f"\n{PANIC}\n".encode()) + scanner.finish()


def test_a_flood_of_reports_is_counted_but_not_kept() -> None:
    body = read("panic-sysrq-crash").split(b"\n")
    one = splat.scan(b"\n".join(body))[0]
    report = b"\n".join(body[one.start : one.end]) + b"\n"
    found = splat.scan(report * 300)
    assert len(found) == 300
    assert sum(bool(splat_.text) for splat_ in found) == splat._TEXTS_MAX


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_console_that_is_asked_about_again_and_again(path: Path) -> None:
    """Wherever it is asked, it says what a scan up to there says, and what comes is the same."""
    data, scanner, out, at = path.read_bytes(), splat.Scanner(), list[Splat](), 0
    for end in sorted(random.Random(path.stem).sample(range(len(data)), min(12, len(data)))):
        out += scanner.feed(data[at:end])
        at = end
        assert sorted(kinds([*out, *scanner.ended_here()])) == sorted(kinds(splat.scan(data[:end])))
    out += scanner.feed(data[at:]) + scanner.finish()
    assert sorted(out, key=lambda one: one.start) == splat.scan(data)


def test_so_far_shows_what_is_open_and_ends_nothing() -> None:
    scanner = splat.Scanner()
    assert scanner.feed(f"{PANIC}\n".encode()) == []
    assert kinds(scanner.so_far()) == [("panic", "kernel panic: out of ideas")]
    assert kinds(scanner.so_far()) == [("panic", "kernel panic: out of ideas")]
    assert len(scanner.finish()) == 1
    assert scanner.so_far() == []


def test_any_bytes_at_all() -> None:
    chance = random.Random(2)
    for _ in range(50):
        splat.scan(chance.randbytes(20_000))
    assert splat.scan(b"") == splat.scan(b"\n\n\n") == []


@pytest.mark.parametrize(
    "line",
    [
        "[   12.345678] foo 0000:00:1f.2: DEBUG value of the thing is {} and so on",
        "2026-01-01 12:00:00 app[{}]: INFO: connection accepted, all is well",
        "WARNING: module foo of package {} is deprecated and will go away",
        "[   12.345678] app: see BUG {} for what this is about",
    ],
)
def test_what_programs_say_is_passed_over_as_fast_as_all_else(line: str) -> None:
    """Beside a log of the same length without such words; slow, it was thirty times as slow."""

    def taken(line: str) -> float:
        text = "\n".join(line.format(n) for n in range(20000)).encode()
        start = time.process_time()
        assert splat.scan(text) == []
        return (time.process_time() - start) / len(text)

    plain = min(taken("[   12.345678] usb 1-1: new high-speed device number {}") for _ in range(3))
    assert min(taken(line) for _ in range(3)) < 5 * plain


@pytest.mark.parametrize(
    "line",
    [
        "\x1b[1;31mBUG: KASAN: slab-out-of-bounds in f+0x1/0x2",
        "[    1.000000] INFO: possible circular locking dependency detected",
        "WARNING: possible\ncircular locking dependency detected",
        "INFO: rcu_preempt\nself-detected stall on CPU",
        "BUG kmalloc-64\n(Tainted: G    B): Redzone overwritten",
        "INFO: inconsistent lock state",
        "WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected",
        "INFO: init/1 still has locks held!",
    ],
)
def test_words_of_programs_that_are_a_kernels_all_the_same(line: str) -> None:
    assert len(splat.scan(f"{line}\nCPU: 0 PID: 1 Comm: x\n")) == 1


def test_a_panics_look_at_all_cpus_blames_nobody() -> None:
    hung = [
        "INFO: task a:7 blocked for more than 120 seconds.",
        "      Not tainted 6.12.0 #1",
        "task:a               state:D stack:0     pid:7     tgid:7     ppid:1      flags:0x0",
        "Call Trace:",
        " <TASK>",
        " schedule+0x1/0x2",
        " victim+0x1/0x2",
        " </TASK>",
        "Kernel panic - not syncing: hung_task: blocked tasks",
    ]
    others = [
        "Sending NMI from CPU 0 to CPUs 1:",
        "NMI backtrace for cpu 1",
        "CPU: 1 UID: 0 PID: 8 Comm: b Not tainted 6.12.0 #1",
        "RIP: 0010:innocent+0x1/0x2",
        "Call Trace:",
        " <TASK>",
        " innocent_too+0x1/0x2",
        " </TASK>",
        "---[ end Kernel panic - not syncing: hung_task: blocked tasks ]---",
    ]
    titles = [[one.title for one in splat.scan("\n".join(log))] for log in (hung, hung + others)]
    assert titles[0] == titles[1] == ["INFO: task hung in victim"]


def test_no_root_is_one_report_however_many_partitions_are_listed() -> None:
    head = 'VFS: Cannot open root device "sda1" or unknown-block(0,0): error -6'
    listed = ["Please append a correct root=", *(f"01{n:02} 4096 ram{n} " for n in range(40))]
    panic = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
    end = f"---[ end {panic} ]---"
    title = "kernel panic: VFS: Unable to mount root fs"
    for log in ([head, *listed, panic, "CPU: 0 PID: 1", end], [head, *listed], [panic, end]):
        (found,) = splat.scan("\n".join(log))
        assert (found.type, found.title) == ("no-root", title)
    assert panic in splat.scan("\n".join([head, *listed, panic, end]))[0].text


@pytest.mark.parametrize(
    "line",
    [
        "> > +Kernel panic - not syncing: Attempted to kill init! exitcode=3D0x00000000",
        "> [121972=2E910000] Kernel panic - not syncing: Attempted to kill init!",
    ],
)
def test_what_mail_programs_make_of_a_line(line: str) -> None:
    assert [one.type for one in splat.scan(line)] == ["lost-init"]


def test_an_xfs_that_gives_up() -> None:
    lines = ['XFS (loop6): metadata I/O error in "f+0x1/0x2" at daddr 0x4 len 4 error 74']
    lines += [
        "XFS (loop6): Metadata I/O Error (0x1) detected at f+0x1/0x2 (fs/xfs/a.c:311).  Shutting"
    ]
    lines[-1] += " down filesystem."
    lines += ["XFS (loop6): Filesystem has been shut down due to log error (0x2)."]
    assert kinds(splat.scan("\n".join(lines))) == [("filesystem", "XFS shut down")]
    assert kinds(splat.scan(lines[2])) == [("filesystem", "XFS shut down")]
    assert (
        splat.scan("XFS (a): User initiated shutdown received.  Shutting down filesystem\n") == []
    )
    first = "XFS (loop6): Internal error f+0x1/0x2 at line 3 of file fs/xfs/a.c.  Caller g+0x1/0x2"
    assert len(splat.scan("\n".join([first, *lines]))) == 1
