"""Reports in lines that a mail program has broken, or that have a prefix nobody knows."""

from __future__ import annotations

import time

import pytest

from rig import splat
from rig.results import Splat

FAULT = [
    "BUG: unable to handle page fault for address: ffff888109572800",
    "#PF: supervisor read access in kernel mode",
    "RIP: 0010:f+0x1/0x2",
    "Call Trace:",
    " g+0x1/0x2",
]
TITLE = "BUG: page fault read in f"


def titles(text: str) -> list[str]:
    return [one.title for one in splat.scan(text)]


def by_line(text: str) -> list[Splat]:
    """As it comes over a serial line, a few bytes at a time."""
    scanner, found = splat.Scanner(), []
    data = text.encode()
    for start in range(0, len(data), 7):
        found += scanner.feed(data[start : start + 7])
    return sorted(found + scanner.finish(), key=lambda one: one.start)


PREFIXES = [
    "node7|dom0: ",
    "[pid:0,cpu0,swapper/0] 12:",
    "ttyS0;77> ",
    "2>&1 (serial) #",
    "<console:3> ",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("stamp", ["", "[   12.345678] "])
def test_a_report_behind_a_prefix_that_nobody_knows(prefix: str, stamp: str) -> None:
    text = "\n".join(f"{stamp}{prefix}{line}" for line in ["fine", *FAULT, "", "fine"])
    (found,) = splat.scan(text)
    assert (found.type, found.title, found.start) == ("page-fault", TITLE, 1)
    assert by_line(text) == [found]


BY_KERNEL_OR_PROGRAM = [
    ("<4>[   12.345678] ", "<12>[   12.345678] "),
    ("<7>[   12.345678][   T77] ", "<8>[   12.345678][   T77] "),
    ("<0>[   12.345678] [   T77] ", "<191>[   12.345678] [   T77] "),
    ("hi <4>[   12.345678] ", "hi <12>[   12.345678] "),
    ("kern  :warn  : [   12.345678] ", "user  :warn  : [   12.345678] "),
    ("kern:err : [ 12.345678] ", "daemon:err : [ 12.345678] "),
    ("4,345,12345678,-;", "12,345,12345678,-;"),
    ("7,345,12345678,-,caller=T77;", "8,345,12345678,-,caller=T77;"),
]


@pytest.mark.parametrize(("kernels", "programs"), BY_KERNEL_OR_PROGRAM)
def test_what_a_program_writes_to_dev_kmsg_is_no_report(kernels: str, programs: str) -> None:
    """Where the line says whose it is, as printk.c does not let a program say it."""
    body = ["fine", *FAULT, "---[ end trace 0000000000000000 ]---", "fine"]
    by_kernel = "\n".join(f"{kernels}{line}" for line in body)
    by_program = "\n".join(f"{programs}{line}" for line in body)
    assert titles(by_kernel) == [TITLE]
    assert titles(by_program) == []
    assert by_line(by_program) == []
    (found,) = splat.scan(f"{by_program}\n{by_kernel}\n{by_program}")
    assert (found.title, found.start) == (TITLE, len(body) + 1)
    assert by_line(f"{by_program}\n{by_kernel}\n{by_program}") == [found]


@pytest.mark.parametrize(
    ("prefix", "believed"),
    [
        ("<12>[   12.300000] [   10.000000] ", False),  # dmesg >/dev/kmsg
        ("<12>[   12.300000][  T123] [   10.000000][    T1] ", False),
        ("<12>[   12.300000] <1>[   10.000000] ", False),  # dmesg -r >/dev/kmsg
        ("<12>", False),  # without times
        ("<4>", True),
        ("<12>[   12.300000] x <1>[   13.000000] ", True),  # the kernel goes on in a line
        ("<14>Jan  1 00:00:00 host kernel: ", True),  # sent on by somebody
    ],
)
def test_a_log_that_a_program_writes_to_dev_kmsg_is_no_report(prefix: str, believed: bool) -> None:
    text = "\n".join(f"{prefix}{line}" for line in ["fine", *FAULT])
    before = "<6>[    1.000000] fine\n<6>[    2.000000] fine\n"
    for whole in (text, before + text):
        assert titles(whole) == [TITLE] * believed
        assert [one.title for one in by_line(whole)] == [TITLE] * believed


def test_a_program_does_not_go_on_with_what_the_kernel_says() -> None:
    """Nor is a heading that it writes part of a report that is open."""
    told = [f"<4>[    1.000000] {line}" for line in FAULT]
    told[3:3] = ["<12>[    1.000000] WARNING: CPU: 0 PID: 7 at fs/pipe.c:1 pipe_read+0x1/0x2"]
    (found,) = splat.scan("\n".join(told))
    assert (found.title, found.frame) == (TITLE, "f")
    assert "pipe_read" not in found.text


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("stamp", ["[   12.345678\xa8 ", "\xdd   12.345678\xa8 "])
def test_a_stamp_on_a_mainframes_console(stamp: str, encoding: str) -> None:
    fault = [
        "Unable to handle kernel pointer dereference in virtual kernel address space",
        "Oops: 003b ilc:2 \xdd#1\xa8 SMP",
        "Krnl PSW : 0704c00180000000 000003ff80123456 (f+0x1/0x2)",
        "Call Trace:",
        " g+0x1/0x2",
    ]
    text = "\n".join(f"{stamp}{line}" for line in ["fine", *fault, "fine"])
    (found,) = splat.scan(text.encode(encoding))
    assert (found.type, found.start) == ("page-fault", 1)


def test_a_prefix_has_other_numbers_and_words_in_each_line() -> None:
    text = "\n".join(f"cpu{n} [job {n * 7}/x]: {line}" for n, line in enumerate(FAULT, 8))
    assert titles(text) == [TITLE]


def test_a_heading_alone_behind_a_prompt_is_one_where_its_body_follows() -> None:
    assert titles("\n".join([f"~ (x) # {FAULT[0]}", *FAULT[1:]])) == [TITLE]


@pytest.mark.parametrize(
    "lines",
    [
        ["my-test: BUG: KASAN: use-after-free in f+0x1/0x2"],
        [
            "my-test: BUG: KASAN: use-after-free in f+0x1/0x2",
            "my-test: that was expected",
            "x",
            "y",
        ],
        [
            "Subject: [bug] BUG: unable to handle page fault for address: 0",
            "",
            "Hello,",
            "CPU? none",
        ],
        ["it ends in the following kernel panic: bad", "CPU: 1 PID: 2 Comm: x"],
        ["---[ end (x): Kernel panic - not syncing: Oops: stack ]---", "CPU: 1 PID: 2 Comm: x"],
        ["Then, BUG: unable to handle page fault for address: 0", "CPU: 1 PID: 2 Comm: x"],
        ["my-test: EXT4-fs error (device sda1): f:7: bad", "CPU: 1 PID: 2 Comm: x"],
        ["[    1.000000] Kernel command line: x=BUG: y"],
    ],
)
def test_a_heading_behind_a_prefix_is_none_by_itself(lines: list[str]) -> None:
    assert titles("\n".join(lines)) == []
    assert by_line("\n".join(lines)) == []


def test_a_heading_is_not_taken_for_a_line_with_that_prefix() -> None:
    first = [f"sh: {line}" for line in FAULT]
    second = "BUG: kernel NULL pointer dereference, address: 0"
    assert titles("\n".join([*first, second])) == [TITLE, "BUG: kernel NULL pointer dereference"]


def test_what_may_be_one_is_not_shown_before_it_is_one() -> None:
    scanner = splat.Scanner()
    scanner.feed(f"node7|dom0: {FAULT[0]}\n".encode())
    assert scanner.so_far() == []
    scanner.feed(b"node7|dom0: RIP: 0010:f+0x1/0x2\n")
    assert [one.title for one in scanner.so_far()] == ["BUG: page fault in f"]


def test_what_turns_out_to_be_none_leaves_nothing_behind() -> None:
    boot = "[    0.000000] Linux version 6.12.117 (x)"
    talk = "my-test: BUG: KASAN: use-after-free in f+0x1/0x2\nx\ny\nz\n"
    assert titles(f"{talk}{boot}\n") == []
    panic = "Kernel panic - not syncing: Fatal exception"
    assert titles(f"{talk}{panic}\n") == ["kernel panic: Fatal exception"]


TORN = [
    (["Unable to handle kernel paging request at virtual", "address dead0108"], "page-fault"),
    (["BUG: unable to handle kernel", "paging request at 0000000715a42801"], "page-fault"),
    (["BUG: scheduling while", "atomic: sh/0x00010000/3795"], "atomic-sleep"),
    (["Badness in f at", "drivers/base/core.c:85"], "warning"),
    (["unregister_netdevice: waiting for ppp0 to", "become free."], "unregister-netdevice"),
    (["XFS internal error", "XFS_WANT_CORRUPTED_GOTO at line 1"], "filesystem"),
    (["Kernel panic - not", "syncing: VFS: Unable to mount root fs on sda1"], "no-root"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "type"), TORN)
@pytest.mark.parametrize("mark", ["", "> "])
@pytest.mark.parametrize("stamp", ["", "[   12.345678] ", "Nov  8 15:38:08 ds kernel: "])
def test_a_heading_in_two_lines(lines: list[str], type: str, mark: str, stamp: str) -> None:
    text = f"{mark}{stamp}fine\n{mark}{stamp}{lines[0]}\n{mark}{lines[1]}\n{mark}{stamp}fine\n"
    (found,) = splat.scan(text)
    assert (found.type, found.start) == (type, 1)
    assert found.text.split("\n")[1:2] == [f"{mark}{lines[1]}"]
    assert by_line(text) == [found]


def test_a_heading_in_three_lines_of_which_one_says_that_it_goes_on() -> None:
    stamp = "Jun 26 12:23:15 host kernel: [87603.066176] "
    rest = "7088\nblocked for more than 120 seconds."
    text = f"{stamp}INFO: task kworker/u16:9:=\n{rest}\n{stamp}fine\n"
    (found,) = splat.scan(text)
    assert (found.type, found.start, found.end) == ("hung-task", 0, 3)
    assert found.text.count("\n") == 2
    assert by_line(text) == [found]
    assert titles(text.replace("7088\n", "7088\nx\n")) == []
    assert titles("unregister_netdevice: waiting\nfor ppp0 to\nbecome free.") != []
    assert titles("unregister_netdevice: waiting\nfor\nppp0\nto become free.") == []


@pytest.mark.parametrize(
    ("lines", "type"),
    [
        (["INFO:", "task ruby:3370 blocked for more than 120 seconds."], "hung-task"),
        (["general protection", "fault: 0000 [#1] SMP"], "general-protection"),
        (["UBSAN:", "array-index-out-of-bounds in net/a.c:10:4"], "ubsan"),
        (["sysfs: cannot create duplicate", "filename '/bus/a'"], "other"),
    ],
)
@pytest.mark.parametrize("stamp", ["", "[   12.345678] ", "Nov  8 15:38:08 ds kernel: "])
def test_a_heading_whose_first_words_are_torn(lines: list[str], type: str, stamp: str) -> None:
    text = f"{stamp}fine\n{stamp}{lines[0]}\n{lines[1]}\n{stamp}fine\n"
    (found,) = splat.scan(text)
    assert (found.type, found.start) == (type, 1)
    assert by_line(text) == [found]


@pytest.mark.parametrize("size", [7, 4096])
def test_a_heading_below_its_mark(size: int) -> None:
    mark = "Oct 12 09:53:22 ip-10-58-242-31 kernel: [15096446.245590]"
    text = f"{mark} fine\n{mark}\nINFO: task a:33 blocked for more than 120 seconds.\n".encode()
    scanner = splat.Scanner()
    found = [one for at in range(0, len(text), size) for one in scanner.feed(text[at : at + size])]
    (one,) = found + scanner.finish()
    assert (one.type, one.start) == ("hung-task", 2)
    # The kernel's own empty line says nothing of a user's below it.
    assert titles("[    1.000000] fine\n[    2.000000] \nINFO: task a:3 blocked for more\n") == []


def test_a_heading_that_a_pager_has_cut() -> None:
    for words in ("INFO: task a:33 blocked fo", "INFO: task a:33 blocked"):
        assert titles(f"Oct 12 09:53:22 host kernel: {words}\n") == ["INFO: task hung"]
    assert titles("rcu: INFO: rcu_preempt self-detected st\n") == ["INFO: rcu detected stall"]


def test_signs_that_a_page_has_spelt_out() -> None:
    box = "WARNING: HARDIRQ-safe -&gt; HARDIRQ-unsafe lock order detected\n"
    assert titles(box) == ["possible deadlock"]


def test_the_kernels_next_line_is_no_rest_of_the_one_before() -> None:
    first, rest = "Badness in f at", "drivers/base/core.c:85"
    assert titles(f"[    1.000000] {first}\n[    1.000001] {rest}\n") == []
    assert titles(f"[    1.000000] {first}\nx\n{rest}\n") == []


@pytest.mark.parametrize(
    "first",
    [
        "Unmounting remote filesystems... ",
        "checking if image is initramfs...<1>",
        " [<c014eadc>] <3>",
    ],
)
def test_a_heading_behind_a_line_that_was_not_ended(first: str) -> None:
    rest = "Unable to handle kernel NULL pointer dereference at virtual address 1"
    assert titles(f"{first}{rest}\nPC is at f+0x1/0x2") == [
        "BUG: kernel NULL pointer dereference in f"
    ]


def test_a_report_that_is_printed_again_is_one_more() -> None:
    once = [
        "BUG: scheduling while atomic: swapper/1/0/0xfffffe00",
        "Modules linked in: x",
        "[<c0014c84>] (__schedule_bug+0x48/0x60) from [<c0493bbc>] (f+0x68/0x798)",
        "[<c0493bbc>] (f+0x68/0x798) from [<c000f0b0>] (g+0x104/0x120)",
    ]
    assert len(splat.scan("\n".join(once * 2))) == 2
    assert len(splat.scan("\n".join([once[0], *once]))) == 1


def test_each_scan_for_leaks_is_one() -> None:
    line = "kmemleak: 8 new suspected memory leaks (see /sys/kernel/debug/kmemleak)"
    times = ("1832.796189", "2578.189075", "3330.710984")
    text = "\n".join(f"[ {time}] {line.replace('8', time[-1])}" for time in times)
    assert [one.type for one in splat.scan(text)] == ["memory-leak"] * 3


@pytest.mark.parametrize(
    "prefix", ["00034 ", "i? 1/2  7.000001A? ", "[108.84] ", "[  +0,000481] ", "0.605355 - ", "3"]
)
def test_a_prefix_of_a_runner_of_tests_or_of_a_hand(prefix: str) -> None:
    assert titles("\n".join(prefix + line for line in FAULT)) == [TITLE]


def test_a_stamp_that_was_typed_is_one_without_a_body() -> None:
    lines = ["[72.01] BUG: soft lockup - CPU#7 stuck for 22s! [a/7:1:259]"]
    lines.append("[240.02] INFO: task kworker/u8:1:12 blocked for more than 120 seconds.")
    assert titles("\n".join(lines)) == ["BUG: soft lockup", "INFO: task hung"]


def test_who_printed_a_heading_has_been_cut_off() -> None:
    head = "Hi, I see this:\nBUG: scheduling while atomic: a/1/0x00000002"
    frames = ["[    1.000000][   T12]  f+0x1/0x2", "[    1.000000][   T13]  g+0x1/0x2"]
    assert titles("\n".join([head, *frames])) == ["BUG: scheduling while atomic in f"]
    later = [head, "something else", *frames]
    assert titles("\n".join(later)) == ["BUG: scheduling while atomic"]


def test_a_number_before_a_heading_is_no_prefix_where_nothing_follows() -> None:
    assert titles("12 Unable to handle kernel paging request at 0000000c\n13 lines of that\n") == []


@pytest.mark.parametrize("cut", ["", "[    1.000000] ------------[ cut here ]------------\n"])
def test_a_heading_that_a_mail_has_broken_within_its_function(cut: str) -> None:
    head = f"{cut}[    1.000001] WARNING: CPU: 7 PID: 9 at kernel/sched/core.c:12 kth="
    body = "[    1.000002] CPU: 7 PID: 9 Comm: cc1"
    assert titles(f"{head}\nread_end_lazy_tlb_mm+0x1/0x2\n{body}\n") == [
        "WARNING in kthread_end_lazy_tlb_mm"
    ]


@pytest.mark.parametrize("quote", ["", "> "])
@pytest.mark.parametrize("broken", ["ima_lists=\n", "ima_=\nlists"])
def test_a_heading_that_a_mail_has_broken_before_the_offset(quote: str, broken: str) -> None:
    head = f"{quote}BUG: KASAN: global-out-of-bounds in {broken}+0x1/0x2"
    assert titles(f"{head}\n{quote}Read of size 8 at addr ffffffff80000138 by task a/1\n") == [
        "KASAN: global-out-of-bounds read in ima_lists"
    ]


def test_a_line_that_ends_with_an_equals_sign_is_no_half_of_one_that_is_whole() -> None:
    head = "[    1.000000] BUG: KASAN: use-after-free in f+0x1/0x2"
    assert titles(f"{head}\n[    1.000001] x=\ng+0x1/0x2\n") == ["KASAN: use-after-free in f"]


def test_stalls_of_two_grace_periods_are_two() -> None:
    line = "INFO: rcu_sched self-detected stall on CPU {{ 1}}  (t=21 jiffies g={} c=1)\n f+0x1/0x2"
    assert len(splat.scan(f"{line.format(7)}\n{line.format(8)}\n")) == 2
    assert len(splat.scan(f"{line.format(7)}\n{line.format(7)}\n")) == 1


def test_the_end_of_a_panic_is_one_where_nothing_else_of_it_is_there() -> None:
    end = "---[ end Kernel panic - not syncing: Attempted to kill init! ]---"
    head = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b"
    assert titles(f"{head}\nCPU: 0 PID: 1 Comm: init\nx\ny\nz\n{end}\n") == titles(end)
    assert len(titles(end)) == 1


def test_lockups_of_workqueues_that_are_told_of_apart_are_two() -> None:
    line = "  kernel:BUG: workqueue lockup - pool cpus={} node=0 flags=0x0 nice=0 stuck for 30s!"
    told = "\nMessage from syslogd@host at Oct 24 15:34:02 ...\n"
    assert len(splat.scan("\n" + told.join(["", line.format(4), "", line.format(31)]))) == 2


@pytest.mark.parametrize(
    "end", ["Kernel log daemon terminating.", "Kernel logging (proc) stopped."]
)
def test_a_recorder_that_says_the_kernel_stops_tells_of_another_boot(end: str) -> None:
    banner = "Jul 28 20:07:12 tony kernel: Linux version 2.6.9 (x@y) #1"
    before = f"Jul 28 20:02:42 tony kernel: {end}"
    assert titles(f"{before}\n{banner}\n") == ["unexpected reboot"]
    assert titles(f"{before.replace('Kernel log', 'klogd ')}\n{banner}\n") == []


def test_a_heading_that_a_mail_has_broken_behind_all_that_counts() -> None:
    told = "unregister_netdevice: waiting for lo to become free. Usage count =\n3\n"
    assert titles(told) == ["unregister_netdevice: waiting for device to become free"]
    panic = "Kernel panic - not syncing: hung_task: blocked tasks=\n\nCPU: 0 PID: 1 Comm: x\n"
    assert titles(panic) == ["INFO: task hung"]


def test_a_boot_between_a_running_kernel_and_its_recorders_end() -> None:
    lines = [f"Jul 28 20:02:4{n} host kernel: usb 1-{n}: new device" for n in range(4)]
    lines += ["Jul 28 20:03:00 host kernel: Linux version 2.6.9 (x@y) #1", *lines]
    lines += ["Jul 28 20:05:00 host kernel: Kernel log daemon terminating."]
    text = "\n".join(lines)
    assert titles(text) == ["unexpected reboot"]
    assert by_line(text) == splat.scan(text)


@pytest.mark.parametrize(
    "prose", ["commit 12ab3 ", "non-", "Hello! ", "test_1 ", "see 5.10 ", "the 3rd "]
)
def test_prose_is_no_prefix(prose: str) -> None:
    lines = [f"{prose}BUG: unable to handle page fault for address: 0", "CPU: 1 PID: 2 Comm: x"]
    assert titles("\n".join(lines)) == []


def test_a_race_of_a_program_is_none_of_the_kernel() -> None:
    lines = [
        "WARNING: ThreadSanitizer: data race (pid=12)",
        "  Write of size 4 at 0x1 by thread T1:",
    ]
    assert titles("\n".join(lines)) == []


def test_a_lockup_of_one_pool_that_lasts_is_one() -> None:
    line = "BUG: workqueue lockup - pool cpus=4 node=0 flags=0x0 nice=0 stuck for {}s!"
    dump = ["Showing busy workqueues and worker pools:", "workqueue events: flags=0x0"]
    text = "\n".join(word for stuck in (30, 60, 90) for word in (line.format(stuck), *dump))
    assert len(splat.scan(text)) == 1


def test_two_warnings_of_one_file_are_two_once_the_first_has_said_where() -> None:
    heading = "WARNING: CPU: {} PID: 7 at lib/sort_x.c:22 sort_x+0x9c/0xb8"
    pc = "pc : sort_x+0x9c/0xb8"
    assert len(splat.scan("\n".join([heading.format(2), pc, heading.format(3), pc]))) == 2
    other = "WARNING: CPU: 2 PID: 7 at lib/sort_x.c:31 sort_y+0x10/0x40"
    assert len(splat.scan(f"{heading.format(2)}\nModules linked in:\n{other}\n")) == 2
    again = f"{heading.format(2)}\n{heading.format(2)} [sort]\nCPU: 2 PID: 7 Comm: x\n"
    assert len(splat.scan(again)) == 1


def test_an_assertion_of_kcsan_is_of_its_kind() -> None:
    (one,) = splat.scan("BUG: KCSAN: assert: race in take_x / give_x\n\nwrite to 0x1 by task 4\n")
    assert (one.type, one.frame) == ("kcsan", "take_x")
    assert one.title == "KCSAN: assert: race in take_x / give_x"


def test_a_fault_near_zero_is_of_a_null_pointer_on_powerpc_and_parisc_too() -> None:
    fault = "Kernel Fault: Code=26 (Data memory access rights trap) at addr {}\nCPU: 1 PID: 2\n"
    kinds = [splat.scan(fault.format(at))[0].type for at in ("00000008", "40a01000")]
    assert kinds == ["null-deref", "page-fault"]
    fetch = "BUG: Unable to handle kernel instruction fetch{}\nFaulting instruction address: 0x1\n"
    kinds = [splat.scan(fetch.format(x))[0].type for x in (" (NULL pointer?)", "")]
    assert kinds == ["null-deref", "page-fault"]


def test_the_panic_behind_a_fault_of_parisc_is_its_end() -> None:
    fault = "Kernel Fault: Code=15 (Data TLB miss fault) at addr 40a01000"
    text = f"{fault}\nCPU: 0 PID: 2 Comm: x\n\nKernel panic - not syncing: Kernel Fault\n"
    assert [one.type for one in splat.scan(text)] == ["page-fault"]


@pytest.mark.parametrize(
    ("words", "type", "title"),
    [
        ("list_add corruption. next->prev should be prev (ffffffff816ec4d0), but was 0.",
         "list-corruption", "list_add corruption in add_x"),
        ("refcount_t: underflow; use-after-free.", "refcount", "WARNING: refcount bug in add_x"),
        ("ODEBUG: free active (active state 0)", "warning", "WARNING: ODEBUG bug in add_x"),
    ],
)  # fmt: skip
def test_words_of_another_cpu_before_those_of_a_warning(words: str, type: str, title: str) -> None:
    told = [
        "------------[ cut here ]------------",
        "mmc 16020000.mmc: IDMAC supports 32-bit address mode.",
        words,
        "mmc 16020000.mmc: Using internal DMA controller.",
        "WARNING: CPU: 2 PID: 10 at lib/list_debug.c:27 __list_add_valid+0x8a/0xac",
        "Call Trace:",
        " add_x+0x10/0x20",
    ]
    (one,) = splat.scan("\n".join(told))
    assert (one.type, one.title) == (type, title)


def test_what_a_program_writes_as_a_bug_is_none_until_a_kernel_goes_on() -> None:
    said = "[    5.000000][   T77] BUG: my test begins"
    assert titles(f"{said}\n[    5.100000][   T77] and goes on\n") == []
    trace = "[    5.000001][   T77] Call Trace:\n[    5.000002][   T77]  do_x+0x10/0x20\n"
    assert titles(f"{said}\n{trace}") == ["BUG: my test begins in do_x"]


@pytest.mark.parametrize(
    ("what", "helper"),
    [("BUG: assuming atomic context at lib/x.c:7", "__cant_sleep"),
     ("WARNING: CPU: 0 PID: 1 at kernel/dma/debug.c:9 check_unmap+0x1/0x2", "check_unmap")],
)  # fmt: skip
def test_who_called_the_check_is_to_blame(what: str, helper: str) -> None:
    text = f"{what}\nCPU: 0 PID: 1 Comm: x\nCall Trace:\n {helper}+0x1/0x2\n do_x+0x1/0x2\n"
    (one,) = splat.scan(text)
    assert one.frame == "do_x"


def test_a_panic_behind_what_init_has_said_last_without_an_end() -> None:
    said = "/sbin/initKernel panic - not syncing: Attempted to kill init!\n"
    assert titles(said) == ["kernel panic: Attempted to kill init!"]
    assert titles(said.replace("/sbin/init", "grep 'Kernel' of ")) == []


def test_what_a_test_of_the_kernels_says_that_it_expects() -> None:
    cut, end = "------------[ cut here ]------------", "---[ end trace <<int>> ]---"
    words = [cut, "WARNING: <<all>>", "refcount_t: underflow; use-after-free.", end]
    said = [
        f"[    1.4591{at}] ### dt-test ### EXPECT \\ : {one}" for at, one in enumerate(words, 10)
    ]
    assert titles("\n".join(said)) == []
    real = [f"[    1.460000] {cut}", "[    1.460001] WARNING: CPU: 0 PID: 1 at f.c:2 f+0x1/0x2"]
    assert titles("\n".join([*said, *real])) == ["WARNING in f"]


def test_the_next_boot_in_a_journal_is_no_reboot_of_this_one() -> None:
    ran = [f"Nov 07 18:17:0{n} host kernel: usb 1-{n}: new device" for n in range(8)]
    began = ["Nov 07 19:22:18 host kernel: Linux version 6.2.16 (tom@sbuild) #1 SMP"]
    for mark in ("-- Reboot --", f"-- Boot {'0a' * 16} --"):
        assert titles("\n".join([*ran, mark, *began, *ran])) == []
    assert titles("\n".join([*ran, "-- Reboot?", *began, *ran])) == ["unexpected reboot"]
    late = [*ran, "-- Reboot --", *ran, *ran, *ran, *ran, *ran, *began]
    assert titles("\n".join(late)) == ["unexpected reboot"]


@pytest.mark.parametrize(
    "text",
    [
        "INFO:\ntask a:3 blocked for more than 120 seconds.\n",
        "sysfs: cannot create duplicate\nfilename '/bus/a'\n",
        "general protection\nfault: 0000 [#1] SMP\n",
        "Oct 12 09:53:22 host kernel: \nKernel panic - not syncing: x\n",
        "&#91;    2.000000] Kernel panic - not syncing: x\n",
        "&lt;3&gt;BUG: KASAN: use-after-free in f+0x1/0x2\n",
    ],
)
def test_what_a_user_says_where_the_kernel_has_stamps(text: str) -> None:
    assert titles(f"[    1.000000] fine\n{text}") == []


@pytest.mark.parametrize(
    "text",
    [
        "> WARNING:\n> CPU: 0 PID: 1 at f.c:2 f+0x1/0x2\n",
        "INFO: task\nfine\nGFS2:\nfsid=a: fatal: foo bar\n",
        "x INFO:\ngeneral protection\nfault: 0000 [#1] SMP\n",
        "INFO:\nfault: 0000 [#1] SMP\nCall Trace:\n",
    ],
)
def test_torn_words_are_the_same_in_any_pieces(text: str) -> None:
    scanner = splat.Scanner()
    found = [one for letter in text for one in scanner.feed(letter.encode())]
    assert found + scanner.finish() == splat.scan(text)


def test_a_panic_is_not_swallowed_by_a_cgroup_that_ran_out_of_memory() -> None:
    ran_out = "[    1.000000] Out of memory and no killable processes...\n"
    fine = "".join(f"[    2.00000{n}] usb 1-{n}: new device\n" for n in range(6))
    panic = "[    3.000000] Kernel panic - not syncing: System is deadlocked on memory\n"
    assert titles(ran_out + fine) == []
    scanner = splat.Scanner()
    scanner.feed(ran_out.encode())
    assert scanner.so_far() == []
    assert titles(ran_out + fine + panic) == ["kernel panic: System is deadlocked on memory"]
    assert len(titles(ran_out + panic)) == 1


@pytest.mark.parametrize(
    "text", ["LustreError: 1:0:(" + "a:" * 2000 + "x\n", "-- Reboot --\n" * 30_000]
)
def test_no_line_takes_long(text: str) -> None:
    began = time.process_time()
    assert titles(text) == []
    assert time.process_time() - began < 2


@pytest.mark.parametrize("prefix", ["[   79.160394] c1 ", "localhost kernel: ", "sh kernel: "])
def test_a_prefix_of_a_vendor_and_of_who_tells_everybody(prefix: str) -> None:
    text = f"{prefix}BUG: Bad page state in process x  pfn:72b18\n{prefix}page:c1579300 count:0"
    (found,) = splat.scan(text)
    assert (found.type, found.start, found.end) == ("bad-page", 0, 2)


def test_errors_in_a_row_of_one_device_are_one_report() -> None:
    ext2 = "EXT2-fs error (device ide0(3,2)): ext2_free_blocks: not in datazone - block = {}\n"
    (found,) = splat.scan("".join(ext2.format(number) for number in (7, 8, 9)))
    assert (found.start, found.end) == (0, 3)
    btrfs = "BTRFS: error (device sda2{}) in free_log_tree:3284: errno=-5 IO failure\n"
    (found,) = splat.scan("".join(btrfs.format(one) for one in ("", ": state AL", ": state EAL")))
    assert (found.start, found.end) == (0, 3)


@pytest.mark.parametrize(
    ("line", "type"),
    [
        ("INFO: task jbd2/sda2-8:730 blo", "hung-task"),
        ("unregister_netdevice: waiting for tap0 to bec", "unregister-netdevice"),
        ("EXT4-fs error (device mmcblk0", "filesystem"),
    ],
)
def test_a_heading_that_a_terminal_has_cut(line: str, type: str) -> None:
    stamp = "Jul 30 15:26:52 venus kernel: [ 1084.169904] "
    (found,) = splat.scan(f"{stamp}{line}\n{stamp}eth0: link up\n")
    assert found.type == type


def test_what_a_hand_has_copied() -> None:
    panic = "Kernel panic - not syncing: VFS: Unable to mount root fs on unkown-block(0,0)"
    (found,) = splat.scan(f"[ 0.881860] md: x\n[ xxxxxxxx] {panic}\n[ xxxxxxxx] Pid: 1, comm: x\n")
    assert (found.type, found.start) == ("no-root", 1)
    oops = "Oops 0000\nCPU \t6\nEIP\t0010:[<c0246400>] Not tained\nEFLAGS: 00010246\n"
    (found,) = splat.scan(oops)
    assert (found.type, found.start, found.end) == ("page-fault", 0, 4)
    assert splat.scan("Oops 0000\nthat was wrong\n") == []


def test_cut_here_behind_a_line_that_had_not_ended() -> None:
    text = "[1.000000]    double unlock:  ok  |failed|<0>------------[ cut here ]------------\n"
    text += "[1.000001] kernel BUG at kernel/mutex.c:7!\n"
    (found,) = splat.scan(text)
    assert (found.type, found.start) == ("bug", 0)


def test_the_same_again_with_a_trace_of_its_own_is_another() -> None:
    one = "[1.000000] BUG: workqueue leaked lock or atomic: kworker/u16:3/0xffffffff/267\n"
    assert len(splat.scan(f"{one}[1.000001] Call trace:\n" * 2)) == 2
    assert len(splat.scan(one * 2)) == 1


RECORDERS = [
    "\u2502 {}",
    '{{"log":"{}\\n","stream":"stdout"}}',
    "b'{}\\r\\n'",
    "[vm1 {n}] {}",
    "(d1) [2024-01-02 03:04:{n}] {}",
    "170416464{n}.123 {}",
    "{n} | {}",
    "0{n}.250000: {}",
    "vm1 | {}",
    "MESSAGE={}",
    "E       {}",
    "ttyS0: {}",
    "serial0.txt: {}",
    "01-12 03:04:05.1{n}  1000     0     0 E         : {}",
    "2024-01-02 03:04:{n},123 process L0604 DEBUG| [stdout] {}",
]


@pytest.mark.parametrize("recorder", RECORDERS)
@pytest.mark.parametrize(
    ("lines", "type"),
    [
        (["EXT4-fs error (device sda1): f:7: bad"], "filesystem"),
        (["unregister_netdevice: waiting for eth0 to become free. Usage count = 1"],
         "unregister-netdevice"),
        (FAULT, "page-fault"),
        (["------------[ cut here ]------------", "kernel BUG at fs/x.c:7!"], "bug"),
    ],
)  # fmt: skip
def test_what_somebody_puts_in_front_of_every_line(
    recorder: str, lines: list[str], type: str
) -> None:
    said = ["usb 1-1: new high-speed USB device", "eth0: link up", *lines, "eth0: link down"]
    text = "\n".join(recorder.format(line, n=n) for n, line in enumerate(said, 10))
    (found,) = splat.scan(text)
    assert (found.type, found.start) == (type, 2)
    assert by_line(text) == [found]


@pytest.mark.parametrize(
    "tag",
    [
        *("my-test: {}", "test_x[12]: {}", "- {}", "3) {}", "3. {}", "python3 {}"),
        *("rig/a.py:30: {}", "     12 {}", '    "{}",', '{{"title": "{}"}}', "ok 3 - {}"),
        *("[gw0] [ 30%] PASSED {}", " * {}", "// {}", "  // {}"),
    ],
)
def test_a_program_and_a_list_put_their_names_in_front(tag: str) -> None:
    said = ["it begins", "it goes on", "EXT4-fs error (device sda1): f:7: bad", "it ends"]
    assert splat.scan("\n".join(tag.format(line) for line in said)) == []


def test_what_is_in_front_of_one_line_is_in_front_of_no_other() -> None:
    said = ["[a] it begins", "[b] it goes on", "[c] EXT4-fs error (device sda1): f:7: bad"]
    assert splat.scan("\n".join(said)) == []


def test_one_event_is_one_behind_a_prefix_as_well() -> None:
    oops = [*FAULT, *(f"eth0: link {n}" for n in range(8))]
    lines = ["a: b", "c: d", *oops, "Kernel panic - not syncing: Fatal exception", "e: f"]
    assert len(splat.scan("\n".join(lines))) == 1
    assert len(splat.scan("\n".join(f"[vm1] {line}" for line in lines))) == 1
    waits = [
        "unregister_netdevice: waiting for eth0 to become free. Usage count = 1",
        "a: b",
        "c: d",
    ]
    assert (
        len(splat.scan("\n".join(f"\u2502 {line}" for line in ["a: b", "c: d", *waits * 3]))) == 1
    )


def test_journals_of_two_boots_end_their_lines_in_any_way() -> None:
    head = "Jan  2 03:04:05 h kernel: eth0: link up\n" * 5
    text = f"{head}-- Reboot --\nJan  2 03:05:05 h kernel: Linux version 6.1.0 (a@b) #1\n"
    assert splat.scan(text) == splat.scan(text.replace("\n", "\r\n")) == []


@pytest.mark.parametrize("stamp", ["", "[   12.345678] "])
@pytest.mark.parametrize(
    ("rest", "type"), [("paging request", "page-fault"), ("NULL pointer dereference", "null-deref")]
)
def test_what_a_kernel_could_not_handle_is_said_below(rest: str, type: str, stamp: str) -> None:
    """Another CPU has ended the line."""
    lines = ["BUG: unable to handle kernel ", "", f"{rest} at ffff8800b3d5ed58", "IP: f+0x1/0x2"]
    (found,) = splat.scan("".join(f"{stamp}{line}\n" for line in lines))
    assert (found.type, found.start, found.end) == (type, 0, 4)
    assert found.title.endswith(" in f")
    other = [lines[0], "fine", "fine", "fine", lines[2]]
    assert splat.scan("".join(f"{stamp}{line}\n" for line in other)) == []


@pytest.mark.parametrize("mark", ["", "kernel: "])
def test_who_recorded_it_has_left_out_whose_words_they_are(mark: str) -> None:
    lines = ["fine", "Unable to handle kernel paging request at virtual address 00000000408f8000"]
    lines += ["tsk->{mm,active_mm}->context = 0000000000000625", "X(5651): Oops [#1]", "fine"]
    text = "".join(f"Apr 28 20:06:31 donald {mark}{line}\n" for line in lines)
    (found,) = splat.scan(text)
    assert (found.type, found.start, found.end) == ("page-fault", 1, 4)
    assert by_line(text) == [found]


def test_a_kernel_that_says_its_name_in_an_oops_has_not_begun_anew() -> None:
    name = "Linux version 2.6.34 (r@h) (gcc version 4.3.5) #68 Mon Jul 5 11:53:28 CST 2010"
    lines = [
        name,
        "bio: create slab <bio-0> at 0",
        "NULL pointer access",
        "Kernel OOPS in progress",
    ]
    lines += [
        "Deferred Exception context",
        "CURRENT PROCESS:",
        "COMM=swapper PID=1  CPU=0",
        "",
        name,
    ]
    assert [one.type for one in splat.scan("\n".join([*lines, ""]))] == ["other"]
    later = [*lines, *["fine"] * 40, name, ""]
    assert [one.type for one in splat.scan("\n".join(later))] == ["other", "reboot"]


def test_a_panic_that_no_oops_was_told_before_is_one() -> None:
    panic = "Kernel panic - not syncing: Aiee, killing interrupt handler!"
    warning = ["BUG: warning at kernel/a.c:1816/f() (Not tainted)", "Call Trace:", " f+0x1/0x2", ""]
    assert [one.type for one in splat.scan("\n".join([*warning, panic]))] == ["warning", "panic"]
    oops = ["Oops: 0000 [#1] SMP", "RIP: 0010:f+0x1/0x2", "Call Trace:", " g+0x1/0x2", "", panic]
    assert len(splat.scan("\n".join(oops))) == 1
    assert len(splat.scan("\n".join([*oops[:-1], *warning, panic]))) == 2


def test_a_stack_of_an_allocation_whose_words_are_torn_is_none() -> None:
    lines = ["sh: page allocation ", "failure: order:7, mode:0x40cc0(GFP_KERNEL|__GFP_COMP)"]
    stack = ["CPU: 5 PID: 144452 Comm: sh Not tainted 5.15.8 #4", "Call Trace:", " f+0x1/0x2", ""]
    stamp = "Dec 15 03:35:01 crashbox kernel: [47328.838718] "
    assert (
        splat.scan("\n".join([f"{stamp}{lines[0]}", lines[1], *(stamp + s for s in stack)])) == []
    )


def test_a_date_that_somebody_has_left_out() -> None:
    line = "BTRFS critical (device dm-8): unable to find chunk map for "
    for mark in ("\u2026 kernel: ", "... kernel: "):
        found = splat.scan(f"{mark}fine\n{mark}{line}\nlogical 372783278997504 length 4096\n")
        assert [(one.type, one.start) for one in found] == [("filesystem", 1)], mark


def test_an_old_kernels_clock_begins_before_it_wraps() -> None:
    banner = (
        "Linux version 2.6.12-rc3 (b@z) (gcc version 3.3.6) #15 SMP Sat May 21 09:31:23 CEST 2005"
    )
    assert splat.scan(f"[4294667.296000] {banner}\n[4294667.296000]  BIOS-e820: x\n") == []
    (found,) = splat.scan(f"[4294700.000000] fine\n[4294667.296000] {banner}\n")
    assert found.type == "reboot"


@pytest.mark.parametrize("hole", ["\0", "\0" * 5000])
def test_what_a_dead_line_sends_hides_nothing(hole: str) -> None:
    """In front of a line, within a heading, over the ends of chunks; live as well."""
    plain = "\n".join(["fine", *FAULT, "", "fine", ""])
    for text in (
        hole + plain,
        plain.replace("BUG:", f"{hole}BUG:"),
        plain.replace("to", f"t{hole}o"),
    ):
        assert splat.scan(text) == by_line(text) == splat.scan(plain)
    assert titles(plain) == [TITLE]
