"""What a Linux kernel says when it reports on itself: the heading of each kind of report.

Every rule names the kernel source that prints its heading (paths of Linux 6.12; "< 5.x" marks a
wording that later kernels no longer have).
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)  # each is itself: asked for in every line of a report
class Rule:
    """One heading.

    trigger: a literal every such heading contains.
    pattern: matched at the start of the message, behind printk's prefixes.
    title: a template; {f} becomes " in FUNCTION", {access} " read" or " write", {name} a group
        of the pattern.
    ends: how the report says that it is over: "trace" (---[ end trace), "rule" (a line of "="),
        "oops" (the end of the trace, then registers or the panic that follows), "panic", "" (it
        does not say).
    source: the file that prints it.
    frame: a function belongs to the title. all_cpus: other CPUs' backtraces are part of it.
    to_bug: the report goes on to a BUG(). said: it may be what a WARN() says, before its heading
        or behind it. aside: words of what prints a trace, a report only where none is open.
    at: the function is the one that takes the lock. die: it is the line of die(), which may follow
        what has said why. prelude: without a line of die() behind it, it was about a program of
        user space. named: the function is one that it names, none of its trace. patient: the panic
        that it leads to comes behind a list of no known length. core: whoever adds a device or a
        driver is to blame, and not what does that for him. shy: a program may say it, too; it
        counts where a line follows that only a report has.
    """

    type: str
    trigger: str
    pattern: re.Pattern[str]
    title: str
    source: str
    ends: str = ""
    frame: bool = True
    all_cpus: bool = False
    to_bug: bool = False
    at: bool = False
    die: bool = False
    prelude: bool = False
    said: bool = False
    aside: bool = False
    named: bool = False
    patient: bool = False
    shy: bool = False
    core: bool = False

    def __deepcopy__(self, memo: object) -> Rule:
        return self  # there is one of each


def _rule(
    type: str,
    trigger: str,
    pattern: str,
    title: str,
    source: str,
    ends: str = "",
    *,
    frame: bool = True,
    all_cpus: bool = False,
    to_bug: bool = False,
    at: bool = False,
    die: bool = False,
    prelude: bool = False,
    said: bool = False,
    aside: bool = False,
    named: bool = False,
    patient: bool = False,
    shy: bool = False,
    core: bool = False,
) -> Rule:
    return Rule(
        *(type, trigger, re.compile(pattern), title, source, ends, frame, all_cpus, to_bug, at),
        *(die or trigger == "[#", prelude, said, aside, named, patient, shy, core),
    )


# A symbol with its offset (lib/vsprintf.c %pS, %pB) or, in a decoded trace, its source line.
SYMBOL = (
    r"\.?(?P<func>[A-Za-z_$][\w.$]*)"
    r"(?:\+0x[0-9a-f]+/0x[0-9a-f]+|\+\d+(?:/\d+(?=\])|(?=\}))"
    r"| \([\w./-]+:[\d?]+[^()]*(?:\([^()]*\)[^()]*)*\)"
    r"|(?= [\w./-]+\.[chSs]:\d+))"
)
_IN = rf"(?: in {SYMBOL}| in (?P<bare>[A-Za-z_][\w.$]*))?"
_DIE = r"[^\[]*: [0-9a-f]{1,16}(?: ilc:\d)? \[#\d+\]"
# x86-64 until 2.6.27, and copies of a log that have lost the brackets.
_OTHER, _FAULT = "Oops: {what}{f}", "BUG: page fault{access}{f}"
_ALPHA = r"\S{{1,16}}\(\d+\): {} -?\d+$"
_OLD_DIE = (
    r"[^\[\]]*: [0-9a-f]{4} "
    r"(?:\[\d+\](?:\s|$)|\d+ (?:PREEMPT|SMP)\b)"
)
# lockdep's boxes: "WARNING: x", "INFO: x" and "[ INFO: x ]" (< 4.15).
BOXED = r"(?:\[ )?(?:WARNING|INFO|BUG): "
_LOCKDEP_C = "kernel/locking/lockdep.c"
_FAULT_C = "arch/x86/mm/fault.c"
_ARM64_FAULT = "arch/arm64/mm/fault.c, arch/riscv/mm/fault.c"
_RACING = r"(?P<func>[\w.$]+)(?:\+0x\S+)?(?: / (?P<other>[\w.$]+))?"
_KASAN_C = "mm/kasan/report.c"
_STALL_H = "kernel/rcu/tree_stall.h"
# The oldest say no more than the first two words.
_PANIC = "[kK]ernel [pP]anic ?(?:[-\u2013\u2014] ?not syncing)? ?: ?"

# Most special first: the first rule that matches wins.
HEADINGS: tuple[Rule, ...] = (
    # -- memory sanitizers ---------------------------------------------------------------------
    _rule(
        "kasan-uaf",
        "BUG",
        rf"BUG: KASAN: (?P<what>\S*use-after-(?:free|scope))\S*{_IN}",
        "KASAN: {what}{access}{f}",
        _KASAN_C,
        "rule",
    ),
    _rule(
        "kasan-oob",
        "BUG",
        rf"BUG: KASAN: (?P<what>\S*out-of-bounds)\S*{_IN}",
        "KASAN: {what}{access}{f}",
        _KASAN_C,
        "rule",
    ),
    _rule(
        "kasan-invalid-free",
        "BUG",
        rf"BUG: KASAN: (?P<what>double-free or invalid-free|double-free|invalid-free){_IN}",
        "KASAN: {what}{f}",
        _KASAN_C,
        "rule",
    ),
    *(
        _rule(
            type,
            "BUG",
            rf"BUG: KASan: {what}(?: in {SYMBOL}|(?: in)?$)",
            title,
            "mm/kasan/report.c (< 4.4)",
            "rule",
        )
        for type, what, title in (
            ("kasan-uaf", "use after free", "KASAN: use-after-free{access}{f}"),
            ("kasan-oob", "out of bounds[ \\w]*?", "KASAN: out-of-bounds{access}{f}"),
            ("kasan", "(?P<what>[\\w -]+?)", "KASAN: {what}{access}{f}"),
        )
    ),
    _rule(
        "kasan",
        "BUG",
        rf"BUG: KASAN: (?P<what>\S+){_IN}",
        "KASAN: {what}{access}{f}",
        _KASAN_C,
        "rule",
    ),
    _rule(
        "kmsan",
        "BUG",
        rf"BUG: KMSAN: (?P<what>\S+){_IN}",
        "KMSAN: {what}{f}",
        "mm/kmsan/report.c",
        "rule",
    ),
    _rule(
        "kcsan",
        "BUG",
        rf"BUG: KCSAN: (?P<what>[\w-]+) in {_RACING}",
        "KCSAN: {what}{f}{other}",
        "kernel/kcsan/report.c",
        "rule",
    ),
    _rule(
        "kcsan",
        "BUG",
        rf"BUG: KCSAN: assert: race in {_RACING}",
        "KCSAN: assert: race{f}{other}",
        "kernel/kcsan/report.c get_bug_type",
        "rule",
    ),
    _rule(
        "kcsan",
        "ThreadSanitizer: ",
        r"ThreadSanitizer: (?P<what>[\w-]+) in (?P<bare>[A-Za-z_][\w.$]*)",
        "KTSAN: {what}{f}",
        "mm/ktsan/report.c (a tree of its own)",
        "rule",
    ),
    _rule(
        "kfence",
        "BUG",
        rf"BUG: KFENCE: (?P<what>[\w-]+(?: (?:read|write|free|corruption))?){_IN}",
        "KFENCE: {what}{f}",
        "mm/kfence/report.c",
        "rule",
    ),
    _rule(
        "ubsan",
        "UBSAN: ",
        rf"UBSAN: (?P<what>[\w/ -]+?) at {SYMBOL}",
        "UBSAN: {what}{f}",
        "arch/x86/kernel/traps.c handle_bug, which goes on to die() (6.11 and later)",
        "oops",
        to_bug=True,
    ),
    _rule(
        "ubsan",
        "UBSAN: ",
        r"Internal error: UBSAN: (?P<what>[\w/ -]+): [0-9a-f]{1,16} \[#",
        "UBSAN: {what}{f}",
        "arch/arm64/kernel/traps.c, arch/riscv/kernel/traps.c ubsan_handler",
        "oops",
        die=True,
    ),
    _rule(
        "ubsan",
        "UBSAN: ",
        rf"UBSAN: (?P<what>[\w/ -]+?) (?:in \S+:\d+(?::\d+)?|at {SYMBOL}|in(?: \S*/\S*)?$)",
        "UBSAN: {what}{f}",
        "lib/ubsan.c, arch/x86/kernel/traps.c",
        "trace",
    ),
    # -- locking and context -------------------------------------------------------------------
    _rule(
        "lockdep",
        "possible ",
        BOXED + "possible (?:circular locking|recursive locking|irq lock inversion)",
        "possible deadlock{f}",
        f"{_LOCKDEP_C} print_circular_bug, print_deadlock_bug, print_irq_inversion_bug",
        at=True,
    ),
    _rule(
        "lockdep",
        "-unsafe lock order",
        BOXED + r"\S+-safe -> \S+-unsafe lock order",
        "possible deadlock{f}",
        f"{_LOCKDEP_C} print_bad_irq_dependency",
        at=True,
    ),
    _rule(
        "lockdep",
        "inconsistent lock state",
        BOXED + "inconsistent lock state",
        "inconsistent lock state{f}",
        f"{_LOCKDEP_C} print_usage_bug",
        at=True,
    ),
    _rule(
        "rcu-usage",
        "suspicious ",
        BOXED + "suspicious (?:RCU|rcu_dereference_check)",
        "suspicious RCU usage{f}",
        f"{_LOCKDEP_C} lockdep_rcu_suspicious",
    ),
    _rule(
        "rcu-usage",
        "suspicious ",
        r"\S+:\d+ suspicious rcu_dereference\w*\(\) usage!",
        "suspicious RCU usage{f}",
        f"{_LOCKDEP_C} lockdep_rcu_suspicious, whose heading was cut",
    ),
    _rule(
        "lockdep",
        "Invalid wait context",
        BOXED + "Invalid wait context",
        "invalid wait context{f}",
        f"{_LOCKDEP_C} print_lock_invalid_wait_context",
        at=True,
    ),
    _rule(
        "lockdep",
        "bad unlock balance",
        BOXED + "bad unlock balance",
        "bad unlock balance{f}",
        f"{_LOCKDEP_C} print_unlock_imbalance_bug",
        at=True,
    ),
    _rule(
        "lockdep",
        "bad contention",
        BOXED + "bad contention detected!",
        "bad lock contention{f}",
        f"{_LOCKDEP_C} print_lock_contention_bug",
        at=True,
    ),
    _rule(
        "lockdep",
        "held lock freed",
        BOXED + "held lock freed!",
        "held lock freed{f}",
        f"{_LOCKDEP_C} print_freed_lock_bug",
    ),
    _rule(
        "lockdep",
        "Nested lock was not taken",
        BOXED + "Nested lock was not taken",
        "nested lock was not taken{f}",
        f"{_LOCKDEP_C} print_lock_nested_lock_not_held",
        at=True,
    ),
    _rule(
        "lockdep",
        "lock held when returning",
        BOXED + "lock held when returning",
        "lock held when returning to user space{f}",
        f"{_LOCKDEP_C} lockdep_sys_exit",
    ),
    _rule(
        "lockdep",
        "still has locks held",
        BOXED + r".{1,20}/\d+ still has locks held!",
        "task still has locks held{f}",
        f"{_LOCKDEP_C} print_held_locks_bug",
    ),
    _rule(
        "lockdep",
        "chain_key collision",
        BOXED + "chain_key collision",
        "lockdep chain_key collision{f}",
        f"{_LOCKDEP_C} print_collision",
    ),
    _rule(
        "lockdep",
        "deadlock detected!",
        BOXED + "(?:circular locking|lock recursion) deadlock detected!",
        "possible deadlock{f}",
        "kernel/locking/rtmutex-debug.c (< 5.11)",
    ),
    _rule(
        "lockdep",
        "[ BUG: ",
        r"\[ BUG: (?:\S{1,20}/\d+, )?(?P<what>[a-z][\w ]{5,50}?)[!.]* \]",
        "{what}{f}",
        "any other box of kernel/locking",
    ),
    _rule(
        "lockdep",
        "INFO: ",
        "INFO: trying to register non-static key",
        "trying to register non-static key{f}",
        f"{_LOCKDEP_C} assign_lock_key",
    ),
    _rule(
        "lockdep",
        "BUG",
        r"BUG: (?P<what>MAX_[A-Z_]+ too low|looking up invalid subclass|key \S+ has not been)",
        "lockdep: {what}",
        f"{_LOCKDEP_C} print_lockdep_off",
        frame=False,
        said=True,
    ),
    _rule(
        "other",
        "BUG",
        r"BUG: (?P<what>(?:raw_)?(?:spinlock|rwlock|rwsem|(?:read|write)-lock) [\w ,-]+?) on CPU",
        "BUG: {what}{f}",
        "kernel/locking/spinlock_debug.c",
    ),
    _rule(
        "atomic-sleep",
        "sleeping function called",
        "(?:BUG|Debug): sleeping function called from",
        "BUG: sleeping function called from invalid context{f}",
        "kernel/sched/core.c __might_resched",
    ),
    _rule(
        "atomic-sleep",
        "BUG",
        "BUG: scheduling (?P<what>while atomic|in a non-blocking section)",
        "BUG: scheduling {what}{f}",
        "kernel/sched/core.c __schedule_bug",
    ),
    _rule(
        "atomic-sleep",
        "scheduling ",
        r"scheduling (?P<what>while atomic): \S.*/0x[0-9a-f]+/\d"
        r"|bad: scheduling (?P<bad>while atomic!|from the idle thread!)",
        "BUG: scheduling {what}{bad}{f}",
        "kernel/sched.c (< 2.6.20), kernel/sched/idle.c",
    ),
    _rule(
        "other",
        "BUG",
        r"BUG: using (?P<what>\w+)\(\) in\b",
        "BUG: using {what}() in preemptible code{f}",
        "lib/smp_processor_id.c",
    ),
    _rule(
        "other",
        "BUG",
        r"BUG: workqueue leaked (?:lock or atomic|atomic, lock or RCU)",
        "BUG: workqueue leaked atomic, lock or RCU{f}",
        "kernel/workqueue.c process_one_work",
    ),
    # -- stalls and hangs ----------------------------------------------------------------------
    _rule(
        "rcu-stall",
        "INFO: ",
        r"(?:rcu: )?INFO: \w+ (?:self-)?detected (?:expedited )?(?:CPU \d* ?)?(?:stalls?\b|sta?l?$)"
        r"|(?:rcu: )?\w+ kthread (?:timer wakeup didn't happen for|starved for) \d+ jiffies",
        "INFO: rcu detected stall{f}",
        f"{_STALL_H}, kernel/rcu/tree_exp.h, kernel/rcu/tasks.h",
        all_cpus=True,
    ),
    _rule(
        "rcu-stall",
        "RCU detected CPU",
        r"RCU detected CPU(?: \d+)? stalls?\b",
        "INFO: rcu detected stall{f}",
        "kernel/rcuclassic.c (2.6.28)",
        all_cpus=True,
    ),
    _rule(
        "soft-lockup",
        "BUG",
        r"(?:NMI )?(?:watchdog: )?BUG: soft lockup (?:- CPU|-$|detected)",
        "BUG: soft lockup{f}",
        "kernel/watchdog.c watchdog_timer_fn",
        all_cpus=True,
    ),
    _rule(
        "hard-lockup",
        "LOCKUP",
        r"(?:BUG: )?(?:NMI )?(?:[Ww]atchdog: )?(?:CPU ?\d+: )?"
        r"(?:[Ww]atchdog|Watchdog CPU:?\d+|NMI Watchdog) detected (?:[hH]ard )?LOCKUP\b"
        r"|(?:NMI )?(?:watchdog: )?CPU \d+ (?:self-detected hard LOCKUP|Hard LOCKUP\s*$"
        r"|detected hard LOCKUP on other CPUs)",
        "hard lockup{f}",
        "kernel/watchdog.c watchdog_hardlockup_check",
        all_cpus=True,
        said=True,
    ),
    _rule(
        "hard-lockup",
        "watchdog detected lockup",
        r"NMI watchdog detected lockup on CPU#\d+",
        "hard lockup{f}",
        "arch/i386/kernel/nmi.c nmi_watchdog_tick (2.6-rt)",
        all_cpus=True,
        said=True,
    ),
    _rule(
        "hung-task",
        "INFO: ",
        r"INFO: task .{1,40}:\d+ (?:<writer> )?(?:(?:blocked|can't die)"
        r"(?: in I/O wait)? for(?: |$)|bl?$|bloc?k?e?d?(?: fo?)?$)",
        "INFO: task hung{f}",
        "kernel/hung_task.c check_hung_task",
    ),
    _rule(
        "workqueue-lockup",
        "BUG",
        r"BUG: workqueue lockup - (?P<pool>pool(?: \S+)?)",
        "BUG: workqueue lockup",
        "kernel/workqueue.c wq_watchdog_timer_fn",
        frame=False,
        all_cpus=True,
    ),
    _rule(
        "other",
        "CSD lock",
        r"(?:smp: )?csd: Detected non-responsive CSD lock",
        "CSD lock not answered{f}",
        "kernel/smp.c csd_lock_wait_toolong",
        all_cpus=True,
    ),
    # -- faults of the CPU ---------------------------------------------------------------------
    _rule(
        "null-deref",
        "BUG",
        r"BUG: (?:unable to handle )?kernel NULL pointer\b",
        "BUG: kernel NULL pointer dereference{access}{f}",
        f"{_FAULT_C} show_fault_oops",
        "oops",
    ),
    _rule(
        "page-fault",
        "BUG",
        r"BUG: unable to handle (?:kernel paging|page fault)\b",
        "BUG: page fault{access}{f}",
        f"{_FAULT_C} show_fault_oops",
        "oops",
    ),
    *(
        _rule(
            type,
            trigger,
            pattern.format(trap),
            title,
            "arch/x86/mm/extable.c early_fixup_exception, arch/x86/kernel/head_32.S",
            "oops",
        )
        for trigger, pattern in (
            ("PANIC: early ", "PANIC: early exception (?:0x)?0?{}\\b"),
            ("BUG", "BUG: Int {}: CR2 "),
        )
        for type, trap, title in (
            ("page-fault", "(?:e|14)", "BUG: page fault{access}{f}"),
            ("general-protection", "(?:d|13)", "general protection fault{f}"),
            ("bug", "6", "kernel BUG{f}"),
            ("other", "(?P<what>[0-9a-f]+)", "Oops: early exception {what}{f}"),
        )
    ),
    *(
        _rule(
            type,
            "Vector: ",
            rf"(?:\d+:mon> )?cpu 0x[0-9a-f]+: Vector: {vector}\b",
            title,
            "arch/powerpc/xmon/xmon.c excprint",
            "oops",
            to_bug=type == "bug",
        )
        for type, vector, title in (
            ("page-fault", "(?:300|380|400|480)", "BUG: page fault{access}{f}"),
            ("bug", "700", "kernel BUG{f}"),
            ("other", "(?P<what>[0-9a-f]+)", "Oops: trap {what}{f}"),
        )
    ),
    _rule(
        "null-deref",
        "Unable to handle",
        r"Unable to handle kernel NULL pointer\b",
        "BUG: kernel NULL pointer dereference{access}{f}",
        _ARM64_FAULT,
        "oops",
    ),
    _rule(
        "page-fault",
        "Unable to handle",
        r"(?:CPU \d+ )?Unable to handle kernel [^:]{1,60} (?:at virtual address|for data at address"
        "|for instruction fetch|for unaligned access|in virtual kernel address space|address)"
        r"|Unable to handle kernel paging request(?: at [0-9a-f]{8,16}\b|$| at$)"
        r"|Unable to handle kernel (?:paging|access to user memory)$"
        r"|Unable to handle kernel (?:read|write|execute) (?:from|to) [\w -]{3,40}$",
        "BUG: page fault{access}{f}",
        f"{_ARM64_FAULT}, arch/{{mips,s390}}/mm/fault.c, arch/powerpc/mm/fault.c (< 5.6)",
        "oops",
    ),
    _rule(
        "null-deref",
        "BUG",
        r"BUG: (?:Kernel NULL pointer dereference"
        r"|Unable to handle kernel instruction fetch \(NULL pointer\?\))",
        "BUG: kernel NULL pointer dereference{access}{f}",
        "arch/powerpc/mm/fault.c",
        "oops",
    ),
    _rule(
        "page-fault",
        "BUG",
        r"BUG: Unable to handle (?:unaligned access|kernel (?:(?:data|unaligned) access"
        r"|instruction fetch)"
        r"|unknown paging fault)",
        "BUG: page fault{access}{f}",
        "arch/powerpc/mm/fault.c",
        "oops",
    ),
    _rule(
        "other",
        "Unhandled ",
        r"(?:Unhandled fault|Unhandled prefetch abort): (?P<what>[^(]{1,60}) \(0x[0-9a-f]+\) at 0x",
        "Oops: {what}{f}",
        "arch/arm/mm/fault.c",
        "oops",
        prelude=True,
    ),
    *(
        _rule(
            type,
            trigger,
            rf"{what} in {file}::\w+, line",
            title,
            "arch/mips/kernel/traps.c __die (< 2.6.17; 2.4 without the directory)",
            "oops",
            die=True,
        )
        for trigger, file in ((" in arch/mips", r"arch/mips\S*"), (".c::do_", r"\w+\.c"))
        for type, what, title in (
            ("page-fault", "Oops", _FAULT),
            ("bug", "(?:Reserved|Break) instruction in kernel code", "kernel BUG{f}"),
            ("other", "(?P<what>[A-Z][\\w ]{5,60}?)", "Oops: {what}{f}"),
        )
    ),
    *(
        _rule(
            "page-fault",
            trigger,
            rf"{trigger} at 0x[0-9a-f]+(?: in \w+ \w+ \(pc=|$)",
            "BUG: page fault{access}{f}",
            "arch/m68k/kernel/traps.c bus_error030",
            "oops",
            prelude=True,
        )
        for trigger in ("Data read fault", "Data write fault", "Instruction fault")
    ),
    _rule(
        "page-fault",
        "BAD KERNEL BUSERR",
        "BAD KERNEL BUSERR$",
        "BUG: page fault{access}{f}",
        "arch/m68k/kernel/traps.c bus_error030",
        "oops",
    ),
    *(
        _rule(
            "other",
            f"{what} bus error, epc == ",
            rf"{what} bus error, epc == [0-9a-f]+, ra ==(?: [0-9a-f]+{joined}|{end})",
            f"Oops: {what} bus error{{f}}",
            f"arch/mips/kernel/traps.c do_be{', joined with what follows' if joined else ''}",
            "oops",
            die=bool(joined),
            prelude=not joined,
        )
        for what in ("Data", "Instruction")
        for joined, end in ((" ?Oops", "(?!)"), ("", r"\s*$"))
    ),
    _rule(
        "divide-error",
        "FORMAT=",
        r"(?:\*\*\* )?ZERO DIVIDE \*\*\* +FORMAT=[0-9A-F]",
        "divide error{f}",
        "arch/m68k/kernel/traps.c bad_super_trap",
        "oops",
    ),
    _rule(
        "other",
        "FORMAT=",
        r"(?:\*\*\* )?(?P<what>[A-Z][A-Z0-9 /-]{3,40}) \*\*\* +FORMAT=[0-9A-F]",
        "Oops: {what}{f}",
        "arch/m68k/kernel/traps.c bad_super_trap",
        "oops",
    ),
    _rule(
        "other",
        "RESUMABLE ERROR: ",
        r"(?P<what>(?:NON-)?RESUMABLE ERROR): Reporting on cpu \d+",
        "{what}{f}",
        "arch/sparc/kernel/traps_64.c sun4v_log_error",
        "oops",
    ),
    _rule(
        "warning",
        "buffer layer error at ",
        r"buffer layer error at [\w./-]+:\d+",
        "buffer layer error{f}",
        "fs/buffer.c __buffer_error (2.5)",
    ),
    _rule(
        "other",
        "RTNL: assertion failed at ",
        r"RTNL: assertion failed at [\w./-]+ \(\d+\)",
        "RTNL: assertion failed{f}",
        "include/linux/rtnetlink.h ASSERT_RTNL (< 4.17; later ones are warnings)",
        aside=True,
    ),
    _rule(
        "other",
        "Kernel unaligned access at TPC",
        rf"Kernel unaligned access at TPC\[[0-9a-f]+\](?: {SYMBOL})?",
        "unaligned access{f}",
        "arch/sparc/kernel/unaligned_64.c log_unaligned",
    ),
    _rule(
        "page-fault",
        "Code=",
        r"(?:Kernel Fault|Bad Address \(null pointer deref\?\)): Code=(?:15|16|17|18|26)\b",
        "BUG: page fault{access}{f}",
        "arch/parisc/kernel/traps.c parisc_terminate",
        "oops",
    ),
    _rule(
        "other",
        "Code=",
        r"Kernel Fault: Code=(?P<what>\d+)",
        "Oops: trap {what}{f}",
        "arch/parisc/kernel/traps.c parisc_terminate",
        "oops",
    ),
    _rule(
        "other",
        "Code=",
        r"(?P<what>[A-Z][\w ()?]{5,60}): Code=\d+ (?:\(|regs=)",
        "Oops: {what}{f}",
        "arch/parisc/kernel/traps.c parisc_terminate",
        "oops",
        shy=True,
    ),
    _rule(
        "other",
        "Unhandled fault at",
        r"Unhandled fault at 0x[0-9a-f]+$",
        "Oops: unhandled fault{f}",
        "arch/arm64/mm/fault.c do_mem_abort",
        "oops",
    ),
    _rule(
        "other",
        "SError Interrupt on CPU",
        r"SError Interrupt on CPU\d+, (?:code|ESR) 0x",
        "SError interrupt{f}",
        "arch/arm64/kernel/traps.c arm64_serror_panic",
        "oops",
    ),
    _rule(
        "other",
        "External Abort",
        r"(?P<what>\w+ External Abort): [\w ,()-]{3,60} \(0x[0-9a-f]+\) at 0x",
        "Oops: {what}{f}",
        "arch/arm64/mm/fault.c do_sea",
        "oops",
    ),
    _rule(
        "other",
        "exception on CPU",
        r"Unhandled (?P<what>[\w -]+ exception) on CPU\d+, (?:ESR|code) 0x",
        "Oops: unhandled {what}{f}",
        "arch/arm64/kernel/traps.c __show_unhandled",
        "oops",
    ),
    _rule(
        "other",
        "Bad mode in ",
        r"Bad mode in (?P<what>[\w ]+?) handler detected",
        "Oops: bad mode in {what} handler{f}",
        "arch/arm64/kernel/traps.c bad_mode (< 5.13), arch/arm/kernel/traps.c",
        "oops",
    ),
    _rule(
        "bug",
        "BUG",
        r"BUG: failure at \S+:\d+/(?P<bare>\w+)\(\)!",
        "kernel BUG{f}",
        "include/asm-generic/bug.h",
        "oops",
    ),
    _rule(
        "bug",
        "Assertion failure in ",
        r"Assertion failure in (?P<bare>\w+)\(\) at \S+:\d+",
        "kernel BUG{f}",
        "fs/ext4/ext4.h, fs/ext4/mballoc.c, fs/jbd2 (< 2.6.39)",
        "oops",
        to_bug=True,
    ),
    _rule(
        "bug",
        "BUG at ",
        r"BUG at [\w./-]+:\d+",
        "kernel BUG{f}",
        "fs/jfs/jfs_debug.h",
        "oops",
        to_bug=True,
    ),
    _rule(
        "other",
        "CFI failure ",
        rf"CFI failure (?:at {SYMBOL} )?\((?:target: |no target)",
        "CFI failure{f}",
        "kernel/cfi.c report_cfi_failure",
        "oops",
        to_bug=True,
        said=True,
    ),
    _rule(
        "stack-overflow",
        "BUG",
        r"BUG: (?:\w+ )?stack guard page was hit at",
        "BUG: stack overflow{f}",
        "arch/x86/kernel/traps.c handle_stack_overflow",
        "oops",
    ),
    _rule(
        "stack-overflow",
        "IRQ: stack overflow",
        r"do_IRQ: stack overflow: ",
        "BUG: stack overflow{f}",
        "arch/x86/kernel/irq_32.c (< 5.0)",
    ),
    *(
        _rule(type, trigger, pattern, title, source, "oops", shy=True)
        for type, trigger, pattern, title, source in (
            (
                *("other", "SFSR["),
                r"(?P<what>\w+): SFSR\[[0-9a-f]+\] SFAR\[",
                *("Oops: {what}{f}", "arch/sparc64/kernel/traps.c (2.4)"),
            ),
            (
                *("other", "TLB: Error at TPC["),
                r"SUN4V-(?P<what>[ID]TLB): Error at TPC\[",
                *("{what} error{f}", "arch/sparc/kernel/traps_64.c sun4v_tlb_error_report"),
            ),
            (
                *("other", "Error at trap level"),
                r"TRAPLOG: Error at trap level 0x[0-9a-f]+",
                *("error at a trap level{f}", "arch/sparc/kernel/traps_64.c dump_tl1_traplog"),
            ),
            (
                *("other", "Unrecoverable "),
                r"Unrecoverable (?P<what>[\w/ ]*?)(?: Unavailable Exception [0-9a-f]+ at"
                r"|exception [0-9a-f]+ at) ?[0-9a-f]+",
                *("Oops: unrecoverable {what} exception{f}", "arch/powerpc/kernel/traps.c"),
            ),
            *(
                (
                    *("other", trigger),
                    rf"(?P<what>{trigger}[^']*'?(?: unavailable)?).* exception in kernel mode at",
                    *("Oops: {what}{f}", "arch/powerpc/kernel/traps.c"),
                )
                for trigger in ("Facility '", "VMX/Altivec assist")
            ),
            (
                *("other", "TM Bad Thing exception at"),
                r"Unexpected TM Bad Thing exception at [0-9a-f]+",
                *("Oops: TM bad thing{f}", "arch/powerpc/kernel/traps.c program_check_exception"),
            ),
            (
                *("other", "KERNEL: "),
                r"KERNEL: (?P<what>Illegal \w+(?: exception)?|Unaligned Access|Bus error)\b.* 0x",
                *("Oops: {what}{f}", "arch/openrisc/kernel/traps.c"),
            ),
            (
                *("other", "Unhandled exception #"),
                r"Unhandled exception #\d+ in kernel mode \(badaddr=",
                *("Oops: unhandled exception{f}", "arch/nios2/kernel/traps.c"),
            ),
            (
                *("other", "Machine check in kernel mode."),
                r"Machine check in kernel mode\.",
                *("machine check{f}", "arch/powerpc/kernel/traps.c machine_check_generic"),
            ),
            (
                *("other", "Kernel took bad trap"),
                r"Kernel took bad trap \d+ at PC 0x",
                *("Oops: bad trap{f}", "arch/tile/kernel/traps.c do_trap (< 4.17)"),
            ),
            (
                *("other", "Bad unaligned kernel access"),
                r"Bad unaligned kernel access at [0-9a-f]+: ",
                *("unaligned access{f}", "arch/alpha/kernel/traps.c do_entUna"),
            ),
            (
                *("other", "Entering kdb ("),
                r"Entering kdb \(current=\S+, pid \d+\) (?:on processor \d+ )?Oops: ",
                *("Oops, in the debugger{f}", "kernel/debug/kdb/kdb_main.c kdb_local"),
            ),
            (
                *("other", "Terminating task because of"),
                r"mcck: Terminating task because of machine malfunction",
                *("machine malfunction", "arch/s390/kernel/nmi.c s390_handle_mcck"),
            ),
        )
    ),
    *(
        _rule("other", trigger, pattern, title, source, "oops", shy=shy)
        for trigger, pattern, title, source, shy in (
            (
                "Machine check interrupt [",
                r"(?:Severe|Fatal) Machine check interrupt \[Not recovered",
                "machine check, not recovered",
                "arch/powerpc/kernel/mce.c (< 4.20)",
                False,
            ),
            (
                "MCE: CPU",
                r"MCE: CPU\d+: machine check \((?:Severe|Fatal)\).*\[Not recovered\]",
                "machine check, not recovered",
                "arch/powerpc/kernel/mce.c machine_check_print_event_info",
                False,
            ),
            (
                "Hypervisor Maintenance interrupt [",
                r"(?:Severe|Fatal) Hypervisor Maintenance interrupt \[Not recovered",
                "hypervisor maintenance, not recovered",
                "arch/powerpc/platforms/powernv/opal-hmi.c",
                False,
            ),
            (
                "Bad trap at PC: ",
                r"Bad trap at PC: [0-9a-f]+, (?:SR|MSR): [0-9a-f]+, vector=",
                "Oops: bad trap{f}",
                "arch/powerpc/kernel/traps.c unknown_exception",
                True,
            ),
            (
                "Bad kernel stack pointer ",
                r"Bad kernel stack pointer [0-9a-f]+ at [0-9a-f]+",
                "Oops: bad kernel stack pointer{f}",
                "arch/powerpc/kernel/traps.c bad_stack",
                True,
            ),
        )
    ),
    _rule(
        "page-fault",
        "Corrupted page table at",
        r"\S{1,16}: Corrupted page table at address [0-9a-f]+",
        "Oops: corrupted page table{f}",
        "arch/x86/mm/fault.c pgtable_bad",
        "oops",
    ),
    _rule(
        "stack-overflow",
        "Kernel stack overflow in process",
        r"Kernel stack overflow in process \S+, r1=",
        "BUG: stack overflow{f}",
        "arch/powerpc/kernel/traps.c StackOverflow, kernel_bad_stack",
        "oops",
    ),
    _rule(
        "other",
        "BUG",
        r"BUG: Dentry \S+ ?\{[^}]*\} +still in use",
        "BUG: dentry still in use{f}",
        "fs/dcache.c umount_check",
        "oops",
        to_bug=True,
    ),
    _rule(
        "other",
        "BUG",
        r"BUG: (?P<what>arch topology borken|assuming (?:atomic|non migratable) context"
        r"|mempool element poison mismatch|FPU is used in kernel mode"
        r"|unsupported FP instruction in kernel mode|FP instruction issued in kernel mode"
        r"|Function graph tracer hang|fixmap and pkmap areas overlap)",
        "BUG: {what}{f}",
        "kernel/sched/{core,topology}.c, mm/mempool.c, arch/{arm,sh,sparc}, kernel/trace",
    ),
    _rule(
        "other",
        "PANIC: ",
        r"PANIC: (?P<what>Unsupported exit-code|Failure in communication with VMM"
        r"|Failed to decode instruction|invalid or fatal FRED event)",
        "PANIC: {what}{f}",
        "arch/x86/coco/sev/core.c, arch/x86/entry/entry_fred.c",
        "oops",
    ),
    _rule(
        "other",
        "BUG",
        "BUG: recent printk recursion!",
        "BUG: recent printk recursion",
        "kernel/printk.c (2.6.26 to 3.x)",
        frame=False,
    ),
    _rule(
        "bad-page",
        ": Bad swap ",
        r"\w*(?:swap|get)_\w+: Bad swap (?:file|offset) entry ",
        "Bad swap entry{f}",
        "mm/swapfile.c",
        frame=False,
    ),
    _rule(
        "bug",
        "LustreError: ",
        r"LustreError: \d+:\d+:\([\w.-]+:\d+:(?P<bare>\w+)\(\)\) "
        r"(?:LBUG|ASSERTION ?\(.*\) failed)",
        "LBUG{f}",
        "drivers/staging/lustre/lustre/libcfs (4.17 and before)",
        "oops",
        to_bug=True,
    ),
    _rule(
        "stack-overflow",
        "Insufficient stack",
        "Insufficient stack space to handle exception!",
        "BUG: stack overflow{f}",
        "arch/arm64/kernel/traps.c, arch/riscv/kernel/traps.c",
        "oops",
    ),
    _rule(
        "double-fault",
        "double fault",
        "(?:(?:traps: )?PANIC: double fault|double fault, (?:gdt|tss) at )",
        "double fault{f}",
        "arch/x86/kernel/traps.c exc_double_fault, arch/x86/kernel/doublefault_32.c",
        "oops",
    ),
    _rule(
        "bug",
        "BUG",
        r"[kK]ernel BUG at (?:(?P<file>[^\s:]+):\d+!|" + SYMBOL + ")",
        "kernel BUG{f}",
        "lib/bug.c report_bug",
        "oops",
    ),
    *(
        _rule("bug", trigger, pattern, "kernel BUG{f}", source, "oops", to_bug=True)
        for trigger, pattern, source in (
            (
                "BUG",
                r"[kK]ernel BUG in (?P<bare>\w+) at [\w./-]+:\d+!",
                "include/asm-ppc/bug.h (< 2.6.10)",
            ),
            (
                "Kernel bug at ",
                r"Kernel bug at [\w./-]+:\d+$",
                "arch/alpha/kernel/traps.c do_entIF",
            ),
        )
    ),
    *(
        _rule(
            type,
            trap,
            rf"(?:Oops: )?{trap}{_OLD_DIE}",
            title,
            "arch/x86_64/kernel/traps.c (< 2.6.28)",
            "oops",
            die=True,
        )
        for type, trap, title in (
            ("double-fault", "double fault", "double fault{f}"),
            ("other", "stack segment", "Oops: stack segment{f}"),
            ("divide-error", "divide error", "divide error{f}"),
            ("general-protection", "general protection fault", "general protection fault{f}"),
            ("bug", "invalid opcode", "kernel BUG{f}"),
            ("bug", "invalid operand", "kernel BUG{f}"),
            ("page-fault", "Oops", _FAULT),
        )
    ),
    _rule(
        "double-fault",
        "[#",
        rf"(?:Oops: )?double fault{_DIE}",
        "double fault{f}",
        "arch/x86/kernel/dumpstack.c __die_header",
        "oops",
    ),
    _rule(
        "stack-overflow",
        "[#",
        rf"(?:Oops: )?(?:kernel stack overflow|stack guard page){_DIE}",
        "BUG: stack overflow{f}",
        "arch/x86/kernel/traps.c",
        "oops",
    ),
    _rule(
        "divide-error",
        "[#",
        rf"(?:Oops: )?divide error{_DIE}",
        "divide error{f}",
        "arch/x86/kernel/traps.c exc_divide_error",
        "oops",
    ),
    _rule(
        "divide-error",
        "Division by zero in",
        r"Division by zero in kernel",
        "divide error{f}",
        "arch/arm/kernel/traps.c __div0",
    ),
    _rule(
        "general-protection",
        "[#",
        rf"(?:Oops: )?(?:segment-related )?general protection fault{_DIE}",
        "general protection fault{f}",
        "arch/x86/kernel/traps.c exc_general_protection",
        "oops",
    ),
    _rule(
        "general-protection",
        "general protection fault",
        "(?:Oops: )?general protection fault, (?:probably|maybe) for "
        "|Oops: general protection fault$",
        "general protection fault{f}",
        "arch/x86/kernel/traps.c exc_general_protection, whose number was cut",
        "oops",
        die=True,
    ),
    *(
        _rule(
            type,
            "KASAN: ",
            rf"KASAN: {what} in range(?: \[0x[0-9a-f]+-0x[0-9a-f]+\]|$)",
            title,
            "mm/kasan/report.c kasan_non_canonical_hook, whose oops was cut",
            "oops",
            aside=True,
        )
        for type, what, title in (
            ("null-deref", "null-ptr-deref", "BUG: kernel NULL pointer dereference{f}"),
            ("kasan", r"(?P<what>[\w -]+)", "KASAN: {what}{f}"),
        )
    ),
    _rule(
        "bug",
        "[#",
        rf"(?:Oops: )?invalid opcode{_DIE}|Internal error: Oops - BUG{_DIE}"
        rf"|Internal error: Oops - [uU]ndefined instruction{_DIE}|Oops - illegal instruction \[#"
        r"|(?:Reserved|Break) instruction in kernel code ?\[#"
        rf"|(?:illegal operation|invalid operand){_DIE}"
        rf"|Kernel [bB][uU][gG](?: detected)?(?:: [0-9a-f]{{4}})? ?\[#\d+\]|monitor event{_DIE}"
        r"|Oops - BUG ?\[#\d+\]",
        "kernel BUG{f}",
        "arch/x86/kernel/traps.c exc_invalid_op, arch/arm64/kernel/traps.c bug_handler, "
        "arch/{loongarch,mips,s390,sh}/kernel/traps.c",
        "oops",
    ),
    _rule(
        "page-fault",
        "[#",
        rf"(?:(?:Oops: )?Oops: [0-9a-f]{{1,16}}(?: ilc:\d)? \[#\d+\]"
        rf"|Internal error: Oops(?= ?:){_DIE}"
        rf"|(?:\S{{1,16}}\(\d+\): )?Oops(?:: sig: \d+)? ?\[#\d+\]"
        rf"|Oops: Kernel access of bad area, sig: \d+ \[#\d+\]"
        rf"|(?:Oops: )?Bad pagetable{_DIE})",
        "BUG: page fault{access}{f}",
        "arch/x86/mm/fault.c, arch/arm64/mm/fault.c, arch/{riscv,sparc}",
        "oops",
    ),
    *(
        _rule(
            type,
            trigger,
            rf"\S{{1,16}}\[\d+\]: {what} ?(?:\([^)]*\) )?-?\d+(?: \[\d+\]|\s*$)",
            title,
            "arch/ia64/kernel/traps.c die (< 6.7; 2.4 does not count them)",
            "oops",
            die=True,
        )
        for type, trigger, what, title in (
            ("bug", "bugcheck! ", "bugcheck!", "kernel BUG{f}"),
            ("page-fault", "Oops ", "Oops", "BUG: page fault{access}{f}"),
            (
                "other",
                "General Exception: ",
                "General Exception: (?P<what>[^(]+)",
                "Oops: {what}{f}",
            ),
            ("bug", "IA-64 Illegal ", "IA-64 Illegal operation fault", "kernel BUG{f}"),
            *(
                ("other", what, f"(?P<what>{what}[\\w /!-]*)", _OTHER)
                for what in (
                    *(
                        "NaT consumption",
                        "IA-64 ",
                        "Disabled FPL fault",
                        "IA-32 Interruption Fault",
                    ),
                    *("Unsupported data reference", "Unimplemented Instruction Address fault"),
                    "Got debug trap in fsys-mode",
                )
            ),
        )
    ),
    _rule(
        "page-fault",
        "Oops ",
        r"Oops [0-9a-f]{4}\s*$",
        "BUG: page fault{access}{f}",
        "arch/i386/kernel/traps.c die (2.4), copied by hand",
        "oops",
        shy=True,
    ),
    _rule(
        "page-fault",
        "access of bad area",
        r"Oops: [Kk]ernel access of bad area, sig: \d+",
        "BUG: page fault{access}{f}",
        "arch/powerpc/kernel/traps.c die (< 2.6)",
        "oops",
        die=True,
    ),
    _rule(
        "page-fault",
        "Internal error: ",
        "Internal error: Accessing user space memory outside uaccess",
        "BUG: access of user memory{f}",
        "arch/arm64/mm/fault.c (< 5.6)",
        "oops",
        die=True,
    ),
    _rule(
        "other",
        "[#",
        rf"(?:Oops: (?P<what>[^:\[]+){_DIE}|Internal error: (?P<error>[^:\[]*){_DIE}"
        rf"|Oops - (?P<trap>[\w (),-]+) \[#\d+\]|(?P<old>int3|debug|bounds|alignment check){_DIE}"
        rf"|Oops: (?P<power>[^\[,]{{3,60}}), sig: \d+ \[#\d+\]"
        rf"|(?P<mips>(?:[A-Z]|do_cpu )[\w ]{{5,60}})!? ?\[#\d+\]:?"
        rf"|(?P<s390>[A-Za-z][a-z -]{{5,40}}): [0-9a-f]{{4}}(?: ilc:\d)? \[#"
        rf"|\S{{1,16}}\(\d+\): (?P<sparc>[\w ]{{3,40}}) \[#\d+\])",
        "Oops: {what}{error}{trap}{old}{power}{mips}{s390}{sparc}{f}",
        "arch/x86/kernel/dumpstack.c, arch/arm64/kernel/traps.c, arch/riscv/kernel/traps.c",
        "oops",
    ),
    _rule(
        "divide-error",
        "[#",
        r"\S{1,16}\(\d+\): TL\d: (?:Kernel divide by zero\.|DIV0 Exception) \[#\d+\]",
        "divide error{f}",
        "arch/sparc/kernel/traps_64.c",
        "oops",
    ),
    # Whatever else an architecture tells its die().
    _rule(
        "other",
        "[#",
        r"(?:\S{1,16}\(\d+\): |Oops: )?(?P<what>(?!.*::)[A-Za-z][^\[\]]{2,80}?)"
        r"(?:: (?:sig: \d+|[0-9a-f]{1,16}))? ?\[#\d+\](?=:|\s|$)",
        "Oops: {what}{f}",
        "arch/*/kernel/traps.c die, die_if_kernel",
        "oops",
        shy=True,
    ),
    *(
        _rule(
            type,
            trigger,
            pattern,
            title,
            "arch/{alpha,m68k}/kernel/traps.c die_if_kernel, arch/openrisc/kernel/traps.c die",
            "oops",
            die=True,
            shy=True,
        )
        for trigger, form, type, what, title in (
            ("Oops: 0", "{}: [0-9a-f]{{4}}(?:[0-9a-f]{{4}})?$", "page-fault", "Oops", _FAULT),
            ("BAD KERNEL ", "(?P<what>BAD KERNEL {}): [0-9a-f]{{8}}$", "other", r"\w+", _OTHER),
            ("Oops#: ", "{}#: [0-9a-f]{{4}}$", "page-fault", "Oops", _FAULT),
            ("Die:#: ", "{}#: [0-9a-f]{{4}}$", "other", "Die:", "Oops: die{f}"),
            ("): Oops ", _ALPHA, "page-fault", "Oops", _FAULT),
            ("): Kernel Bug ", _ALPHA, "bug", "Kernel Bug", "kernel BUG{f}"),
            *(
                (f"): {what} ", _ALPHA, "other", f"(?P<what>{what})", _OTHER)
                for what in ("Arithmetic fault", "Instruction fault")
            ),
        )
        for pattern in (form.format(what),)
    ),
    *(
        _rule(
            "page-fault",
            f"Invalid {what} @ 0x",
            rf"Invalid {what} @ 0x[0-9a-f]+ by insn @ ",
            _FAULT,
            "arch/arc/kernel/troubleshoot.c show_ecr_verbose (< 5.9)",
            "oops",
            shy=True,
        )
        for what in ("Read", "Write", "Insn")
    ),
    *(
        _rule(
            type,
            "ECR",
            rf"\[?ECR *\]?: 0x[0-9a-f]+(?: => {what}| EFA: 0x)",
            title,
            "arch/arc/kernel/troubleshoot.c show_ecr_verbose",
            "oops",
            aside=True,
            shy=True,
        )
        for type, what, title in (
            ("page-fault", "Invalid (?:Read|Write|Insn)", _FAULT),
            ("other", "(?P<what>[A-Z][\\w /()-]{3,40})", "Oops: {what}{f}"),
        )
    ),
    _rule(
        "other",
        "Oops",
        r"Oops: (?P<what>[^\[,]{3,60}), sig: \d+\s*$",
        "Oops: {what}{f}",
        "arch/{microblaze,nios2}/kernel die, arch/ppc/kernel/traps.c (< 2.6)",
        "oops",
        die=True,
    ),
    _rule(
        "other",
        "naligned data reference ",
        r"\S{1,16}\[\d+\]: (?P<what>Unaligned data reference) \d+\s*$",
        "Oops: {what}{f}",
        "arch/parisc/kernel/traps.c die_if_kernel (< 2.6)",
        "oops",
        shy=True,
    ),
    _rule(
        "other",
        "Your System ate a SPARC!",
        "< Your System ate a SPARC! Gah! >",
        "Oops{f}",
        "arch/parisc/kernel/traps.c die_if_kernel",
        "oops",
    ),
    _rule(
        "other",
        "Internal error: ",
        r"Internal error: (?P<what>[^:\[]+): [0-9a-f]{1,16} \d+ (?:PREEMPT|SMP|ARM)\b",
        "Oops: {what}{f}",
        "arch/arm64/kernel/traps.c, copied without the brackets",
        "oops",
        die=True,
    ),
    _rule(
        "bug",
        "Internal error: ",
        "Internal error: Oops - BUG",
        "kernel BUG{f}",
        "arch/arm64/kernel/traps.c, whose number was cut",
        "oops",
        die=True,
    ),
    # -- checks of the kernel's own data -------------------------------------------------------
    _rule(
        "slab",
        "BUG",
        r"BUG (?P<cache>\S+) \([^)]*\): (?P<what>.+)"
        r"|BUG (?P<old>[\w:.-]{1,60}): (?P<why>[A-Z][a-z].+)",
        "slab {cache}{old}: {what}{why}{f}",
        "mm/slub.c slab_bug",
    ),
    _rule(
        "slab",
        "lab ",
        r"slab error in \w+\(\): cache +[`']?(?P<cache>[^'`]+)': (?P<what>.+)",
        "slab {cache}: {what}",
        "mm/slab.c __slab_error (< 6.8)",
        frame=False,
    ),
    _rule(
        "slab",
        "lab",
        r"slab: Internal list corruption detected in cache '(?P<cache>[^']+)'",
        "slab {cache}: list corruption",
        "mm/slab.c check_slabp (< 6.8)",
        "oops",
        frame=False,
        to_bug=True,
        patient=True,
    ),
    _rule(
        "slab",
        "lab ",
        r"[Ss]lab corruption(?: \([^)]*\))?: (?:(?P<cache>\S+) )?start=",
        "slab {cache}: corruption",
        "mm/slab.c check_poison_obj (< 6.8)",
        frame=False,
    ),
    _rule(
        "slab",
        "lab ",
        r"kmem_cache_destroy (?P<cache>\S+): Slab cache still has objects",
        "slab {cache}: cache still has objects",
        "mm/slab_common.c kmem_cache_destroy",
        frame=False,
        said=True,
    ),
    _rule(
        "bad-page",
        "Bad page ",
        r"(?:BUG: )?Bad page (?P<what>state|map|cache)\b",
        "BUG: Bad page {what}{f}",
        "mm/page_alloc.c bad_page, mm/memory.c print_bad_pte, mm/filemap.c",
    ),
    _rule(
        "bad-page",
        ": bad p",
        r"\S+\.[ch]:\d+: bad (?P<what>pgd|p4d|pud|pmd|pte)\b",
        "BUG: bad {what}",
        "mm/pgtable-generic.c, arch/*/include/asm/pgtable*.h",
        frame=False,
    ),
    _rule(
        "bad-page",
        "pagealloc: ",
        r"pagealloc: (?P<what>memory corruption|single bit error)",
        "pagealloc: {what}{f}",
        "mm/page_poison.c check_poison_mem",
    ),
    _rule(
        "bad-page",
        "BUG",
        r"BUG: (?P<what>Bad rss-counter state|non-zero pgtables_bytes|non-zero nr_ptes)",
        "BUG: {what}",
        "kernel/fork.c check_mm",
        frame=False,
    ),
    _rule(
        "usercopy",
        "ernel memory ",
        r"usercopy: [Kk]ernel memory (?P<what>exposure|overwrite)\b",
        "usercopy: kernel memory {what}{f}",
        "mm/usercopy.c usercopy_abort",
        "oops",
        to_bug=True,
        said=True,
    ),
    _rule(
        "list-corruption",
        "list_",
        r"(?P<what>list_add|list_del) (?:corruption|double add)",
        "{what} corruption{f}",
        "lib/list_debug.c",
        "oops",
        to_bug=True,
        said=True,
    ),
    _rule(
        "refcount",
        "refcount_t: ",
        r"refcount_t: (?:addition on 0|underflow|saturated|decrement hit 0|hit |increment on 0)",
        "WARNING: refcount bug{f}",
        "lib/refcount.c, whose WARN() was cut",
        "trace",
        said=True,
    ),
    _rule(
        "memory-leak",
        "BUG",
        "BUG: memory leak",
        "memory leak{f}",
        "tools of others, over what mm/kmemleak.c prints",
    ),
    _rule(
        "memory-leak",
        "nreferenced object",
        r"(?:kmemleak: )?[uU]nreferenced object (?:\(percpu\) )?0x",
        "memory leak{f}",
        "mm/kmemleak.c print_unreferenced",
    ),
    _rule(
        "memory-leak",
        "suspected memory leak",
        r"kmemleak: \d+ new suspected memory leaks",
        "memory leak",
        "mm/kmemleak.c kmemleak_scan",
        frame=False,
    ),
    *(
        _rule(
            "warning",
            trigger,
            rf"{words}: \d+ PID: \d+ at(?: |$)(?:(?P<file>[^\s:]+:\d+)(?: |$))?"
            rf"(?:{SYMBOL}|0x[0-9a-f]+)?",
            "WARNING{f}",
            "kernel/panic.c __warn",
            "trace",
        )
        for trigger, words in (("WARNING: ", "WARNING: CPU"), ("WARNING CPU: ", "WARNING CPU"))
    ),
    _rule(
        "warning",
        "WARNING: ",
        # 6.18 can say the condition
        rf"WARNING: (?:\[.{{1,160}}?\] )?(?P<file>[\w./-]+\.[chS]:\d+) at (?:{SYMBOL})?",
        "WARNING{f}",
        "kernel/panic.c __warn (later than 6.12)",
        "trace",
    ),
    _rule(
        "warning",
        "WARNING: ",
        rf"WARNING: at (?P<file>[^\s:]+:\d+)(?: (?:{SYMBOL}|(?P<bare>\w+)\(\)))?",
        "WARNING{f}",
        "kernel/panic.c warn_slowpath_common (< 3.12)",
        "trace",
    ),
    _rule(
        "warning",
        "BUG",
        r"BUG: warning at (?P<file>[^\s:/]+(?:/[^\s:]+)*):\d+/(?P<bare>\w+)\(\)",
        "WARNING{f}",
        "include/asm-generic/bug.h (< 2.6.21)",
    ),
    _rule(
        "warning",
        "Badness ",
        r"Badness (?:in (?P<bare>\w+) )?at (?:(?P<file>[\w./-]+\.[chS]):\d+|\w*[0-9a-f]{8,16}\b)",
        "WARNING{f}",
        "include/asm-generic/bug.h (< 2.6.17), lib/bug.c (< 2.6.29)",
    ),
    _rule(
        "warning",
        "KERNEL: assertion ",
        r"KERNEL: assertion \(.*\) failed at (?P<file>[\w./-]+) ",
        "WARNING: assertion failed{f}",
        "include/linux/netdevice.h BUG_TRAP (< 2.6.27)",
    ),
    _rule(
        "warning",
        "WARNING: ",
        r"WARNING: (?P<what>kernel stack (?:frame pointer|regs)|stack recursion|stack going in the"
        r" wrong direction|can't (?:access|dereference) \w+)",
        "WARNING: {what}",
        "arch/x86/kernel/unwind_*.c, arch/x86/kernel/dumpstack_*.c",
        frame=False,
        aside=True,
    ),
    _rule(
        "other",
        "MSR access error",
        r"unchecked MSR access error: (?P<what>RDMSR|WRMSR) ",
        "unchecked MSR access error: {what}{f}",
        "arch/x86/mm/extable.c ex_handler_msr",
    ),
    _rule(
        "other",
        "WARNING: kmemcheck: ",
        "WARNING: kmemcheck: Caught ",
        "kmemcheck{f}",
        "arch/x86/mm/kmemcheck (< 4.15)",
    ),
    _rule(
        "other",
        "huh, entered softirq",
        r"(?:softirq: )?huh, entered softirq \d+ (?P<what>\w+)",
        "softirq {what} left with another preempt count",
        "kernel/softirq.c handle_softirqs",
        frame=False,
    ),
    # -- file systems and devices --------------------------------------------------------------
    _rule(
        "filesystem",
        "-fs error",
        r"(?P<what>EXT[234])-fs error \(device [^)]*(?:\)+|$)"
        r"(?:(?::? | in )(?P<func>[\w.]+):(?: ?\d+)?)?",
        "{what}-fs error{f}",
        "fs/ext4/super.c __ext4_error, fs/ext2/super.c ext2_error, fs/ext3 (< 4.3)",
    ),
    _rule(
        "filesystem",
        "): error: ",
        r"(?P<what>EXT[23])-fs \([^)]*\): error: (?P<func>\w+):",
        "{what}-fs error{f}",
        "fs/ext2/super.c ext2_error, fs/ext3/super.c (< 4.3)",
    ),
    _rule(
        "filesystem",
        "BTRFS",
        r"BTRFS(?: critical|: error) \(device [^)]*\)(?: in (?P<func>\w+):\d+)?"
        r"|BTRFS error \(device [^)]*\)(?: in (?P<bare>\w+):\d+)?:? (?:.*(?:checksum|csum|corrupt"
        r"|transid|block=|Missing references|bad tree|level verify|uncorrectable|errno=-(?:5|117)))"
        r"|BTRFS warning \(device [^)]*\)[^:]*: (?:csum failed|checksum (?:verify failed"
        "|error)|.*csum mismatch)",
        "BTRFS error{f}",
        "fs/btrfs/messages.c",
        frame=False,
    ),
    *(
        _rule(
            "filesystem",
            words,
            rf"EXT4-fs \([^)]*\): .*{words}",
            "EXT4-fs error",
            "fs/ext4/inode.c, fs/ext4/super.c, fs/ext4/orphan.c",
            frame=False,
        )
        for words in ("This should not happen", "ext4_check_descriptors: ", "orphan list check")
    ),
    _rule(
        "filesystem",
        "Spotted dirty metadata",
        r"JBD2?: Spotted dirty metadata buffer",
        "JBD2: dirty metadata buffer",
        "fs/jbd2/transaction.c warn_dirty_buffer",
        frame=False,
    ),
    *(
        _rule(
            "filesystem",
            name,
            rf"{name}:? (?:error|ERROR|abort|panic) \(device [^)]*\):?(?: [a-z]+-\d+)?"
            r"(?: (?P<func>\w+))?",
            f"{name} error{{f}}",
            source,
        )
        for name, source in (
            ("REISERFS", "fs/reiserfs/prints.c"),
            ("NILFS", "fs/nilfs2/super.c"),
            ("OCFS2", "fs/ocfs2/super.c"),
            ("UDF-fs", "fs/udf/super.c"),
            ("NTFS-fs", "fs/ntfs/debug.c (< 6.9)"),
            ("AFFS", "fs/affs/amigaffs.c"),
            ("ADFS-fs", "fs/adfs/super.c"),
            ("Quota", "fs/quota/dquot.c __quota_error"),
        )
    ),
    _rule(
        "filesystem",
        "hpfs: ",
        r"hpfs: filesystem error: ",
        "hpfs error",
        "fs/hpfs/super.c hpfs_error",
        frame=False,
    ),
    *(
        _rule(
            "filesystem",
            trigger,
            rf"(?:ReiserFS: |reiserfs: |warning: )*{pattern}",
            "ReiserFS error",
            "fs/reiserfs/stree.c, without the device's name",
            frame=False,
        )
        for trigger, pattern in (
            ("is_tree_node: ", "is_tree_node: node level"),
            ("is_leaf: ", "is_leaf: (?:free space|nr_items|item|wrong)"),
        )
    ),
    _rule(
        "filesystem",
        "JBD2: journal transaction ",
        r"JBD2: journal transaction \d+ on \S+ is corrupt",
        "JBD2: corrupt journal",
        "fs/jbd2/journal.c jbd2_journal_load",
        frame=False,
    ),
    _rule(
        "filesystem",
        "ERROR: (device ",
        r"ERROR: \(device [^)]*\): (?P<func>\w+)",
        "JFS error{f}",
        "fs/jfs/super.c jfs_error",
    ),
    _rule(
        "filesystem",
        "ReiserFS: ",
        r"ReiserFS: \S+: (?:warning|error|panic): (?:vs-|is_|zam-|clm-)",
        "ReiserFS error",
        "fs/reiserfs/prints.c (< 2.6.30)",
        frame=False,
    ),
    _rule(
        "filesystem",
        ": fsid=",
        r"(?:GFS2|gfs2): fsid=\S+:? fatal: (?P<what>I/O error|[a-z ]+)",
        "GFS2 error: {what}",
        "fs/gfs2/util.c",
        frame=False,
    ),
    _rule(
        "filesystem",
        "NTFS errors",
        r"ntfs3(?:: \S+:|\(\S+\):) .*Mark volume as dirty due to NTFS errors",
        "NTFS error",
        "fs/ntfs3/fsntfs.c ntfs_set_state",
        frame=False,
    ),
    _rule(
        "filesystem",
        "erofs",
        r"erofs:? \(device [^)]*\): .*(?:corrupted|bogus|failed to decompress)",
        "EROFS error",
        "fs/erofs",
        frame=False,
    ),
    _rule(
        "filesystem",
        "bcachefs (",
        r"bcachefs \([^)]*\)(?: \w+)*: .*(?:fatal error|emergency read.only|nconsisten|corrupt)",
        "bcachefs error",
        "fs/bcachefs/error.c",
        frame=False,
    ),
    _rule(
        "filesystem",
        "XFS (",
        r"XFS \([^)]*\): (?:Internal error|[Cc]orruption|Metadata (?:CRC error|corruption)|corrupt)"
        rf" ?(?:detected )?(?:at {SYMBOL})?",
        "XFS corruption{f}",
        "fs/xfs/xfs_error.c",
    ),
    _rule(
        "filesystem",
        "XFS (",
        r"XFS \([^)]*\): (?:(?P<what>(?:Metadata |Log )?I/O Error)(?: \(0x[0-9a-f]+\))? [dD]etected"
        r"\b.*[sS]hutting down filesystem|Filesystem has been shut down due to log error)",
        "XFS shut down",
        "fs/xfs/xfs_fsops.c xfs_do_force_shutdown, fs/xfs/xfs_log.c",
        frame=False,
    ),
    _rule(
        "filesystem",
        "nternal error",
        r"(?:Filesystem \S+: )?XFS:? [iI]nternal error (?:(?P<what>XFS_\w+) )?",
        "XFS corruption{f}",
        "fs/xfs/xfs_error.c (< 3.0)",
    ),
    _rule(
        "filesystem",
        "orruption of in-memory",
        r'Filesystem "?[^" :]{1,40}"?: Corruption of in-memory data',
        "XFS corruption",
        "fs/xfs/xfs_fsops.c xfs_do_force_shutdown (< 3.0)",
        frame=False,
    ),
    _rule(
        "filesystem",
        "FAT-fs (",
        r"(?:ex)?FAT-fs \([^)]*\): error, (?P<what>[^(]+)",
        "FAT-fs error: {what}",
        "fs/fat/misc.c __fat_fs_error",
        frame=False,
    ),
    _rule(
        "filesystem",
        "F2FS-fs (",
        r"F2FS-fs \([^)]*\): (?:[Ii]nconsistent|invalid|corrupted|access invalid|wrong|.*run fsck"
        r"|Bitmap was wrong)",
        "F2FS-fs error",
        "fs/f2fs",
        frame=False,
    ),
    _rule(
        "filesystem",
        "SQUASHFS error",
        r"SQUASHFS error: (?!Can't find a SQUASHFS superblock)(?P<what>[^,\[]+)",
        "SQUASHFS error: {what}",
        "fs/squashfs",
        frame=False,
    ),
    _rule(
        "filesystem",
        "UBIFS error",
        r"UBIFS error(?!.*cannot open)(?: \([^)]*\))?:? ?(?:\(?pid \d+\)?:? )?(?P<bare>ubifs_\w+)?",
        "UBIFS error{f}",
        "fs/ubifs/misc.c ubifs_err",
    ),
    _rule(
        "filesystem",
        "Aborting journal",
        r"(?:JBD2?: )?Aborting journal on device",
        "journal aborted",
        "fs/jbd2/journal.c",
        frame=False,
    ),
    _rule(
        "unregister-netdevice",
        "unregister_netdevice: ",
        r"unregister_netdevice: waiting for (?P<device>.{1,40}) to be(?:come\b|c?o?m?$)",
        "unregister_netdevice: waiting for device to become free",
        "net/core/dev.c netdev_wait_allrefs_any",
        frame=False,
    ),
    _rule(
        "other",
        "nobody cared",
        r"irq \d+: nobody cared",
        "irq: nobody cared{f}",
        "kernel/irq/spurious.c __report_bad_irq",
        named=True,
    ),
    _rule(
        "other",
        "bogus return value",
        r"irq event \d+: bogus return value",
        "irq: bogus return value",
        "kernel/irq/spurious.c __report_bad_irq",
        frame=False,
    ),
    _rule(
        "other",
        "duplicate filename",
        r"sysfs: (?:cannot create )?duplicate filename ",
        "sysfs: duplicate filename{f}",
        "fs/sysfs/dir.c sysfs_warn_dup",
        said=True,
        core=True,
    ),
    _rule(
        "other",
        "kobject_add",
        r"kobject_add(?:_internal)? failed for \S+ (?:with -EEXIST|\(error)",
        "kobject_add failed{f}",
        "lib/kobject.c kobject_add_internal",
        aside=True,
    ),
    _rule(
        "other",
        "VFS: Busy inodes",
        r"VFS: Busy inodes after unmount",
        "VFS: busy inodes after unmount",
        "fs/super.c generic_shutdown_super",
        frame=False,
        said=True,
    ),
    _rule(
        "other",
        "VERIFY",
        r"VERIFY\w*\(.+\) failed\b",
        "PANIC{f}",
        "module/os/linux/spl/spl-err.c of OpenZFS",
        frame=False,
    ),
    _rule(
        "other",
        "PANIC at ",
        r"PANIC at [\w./-]+:\d+:(?P<bare>\w+)\(\)",
        "PANIC{f}",
        "module/os/linux/spl/spl-err.c of OpenZFS",
    ),
    # -- the end -------------------------------------------------------------------------------
    _rule(
        "panic",
        "anic",
        rf"{_PANIC}.*stack is corrupted in:(?: {SYMBOL}| [0-9a-f]{{8,16}}\b|[ =]*$)",
        "kernel panic: stack is corrupted{f}",
        "kernel/panic.c __stack_chk_fail",
        "panic",
    ),
    _rule(
        "stack-overflow",
        "anic",
        rf"{_PANIC}(?:corrupted stack end|.*stack guard hit|[kK]ernel stack overf)",
        "kernel panic: stack overflow{f}",
        "kernel/sched/core.c schedule_debug",
        "panic",
    ),
    _rule(
        "lost-init",
        "anic",
        rf"{_PANIC}[aA]ttempted to kill init!",
        "kernel panic: Attempted to kill init!",
        "kernel/exit.c do_exit",
        "panic",
        frame=False,
    ),
    _rule(
        "no-init",
        "anic",
        rf"{_PANIC}(?:No (?:working )?init found|Requested init \S+ failed)",
        "kernel panic: no working init",
        "init/main.c kernel_init",
        "panic",
        frame=False,
    ),
    _rule(
        "no-root",
        "anic",
        rf"{_PANIC}(?:VFS: [uU]nable to mount root fs|I have no root and I want to scream)",
        "kernel panic: VFS: Unable to mount root fs",
        "init/do_mounts.c mount_root_generic",
        "panic",
        frame=False,
    ),
    _rule(
        "no-root",
        "annot open root device",
        r"VFS: Cannot open root device",
        "kernel panic: VFS: Unable to mount root fs",
        "init/do_mounts.c mount_root_generic",
        frame=False,
        patient=True,
    ),
    _rule(
        "oom-panic",
        "anic",
        rf"{_PANIC}(?P<what>[Oo]ut of memory|System is deadlocked on memory)",
        "kernel panic: {what}",
        "mm/oom_kill.c",
        "panic",
        frame=False,
    ),
    _rule(
        "hard-lockup",
        "anic",
        rf"{_PANIC}(?:NMI )?(?:[Ww]atchdog detected )?[hH]ard LOCKUP",
        "hard lockup{f}",
        "kernel/watchdog.c, by itself",
        "panic",
    ),
    _rule(
        "soft-lockup",
        "anic",
        rf"{_PANIC}softlockup: hung tasks",
        "BUG: soft lockup{f}",
        "kernel/watchdog.c, by itself",
        "panic",
    ),
    _rule(
        "hung-task",
        "anic",
        rf"{_PANIC}hung_task: blocked tasks",
        "INFO: task hung{f}",
        "kernel/hung_task.c, by itself",
        "panic",
    ),
    _rule(
        "rcu-stall",
        "anic",
        rf"{_PANIC}RCU Stall",
        "INFO: rcu detected stall{f}",
        f"{_STALL_H}, by itself",
        "panic",
    ),
    _rule(
        "panic",
        "anic",
        rf"{_PANIC}(?P<what>.*)",
        "kernel panic: {what}",
        "kernel/panic.c panic",
        "panic",
        frame=False,
    ),
    _rule(
        "panic",
        "System halted",
        r" *-- System halted",
        "kernel panic: halted before it was unpacked",
        "arch/x86/boot/compressed/error.c, lib/decompress*.c",
        frame=False,
    ),
    # What its own makers thought worth a trace (dump_stack() in 6.12), and is no WARN().
    *(
        _rule(type, trigger, pattern, title, source, aside=True, shy=True)
        for type, trigger, pattern, title, source in (
            (
                *("other", "hw csum failure", r"\S{1,32}: hw csum failure"),
                *("hw csum failure{f}", "net/core/dev.c netdev_rx_csum_fault"),
            ),
            (
                *(
                    "other",
                    "bad of_node_put",
                    r"(?:OF: )?ERROR: (?:Bad|\w+\(\) detected bad) of_node_put",
                ),
                *("bad of_node_put{f}", "drivers/of/dynamic.c of_node_release"),
            ),
            (
                *(
                    "other",
                    "when no workqueue created",
                    r".{0,60}ERROR: .{1,60} attempted to (?:queue|flush)",
                ),
                *(
                    "work without a workqueue{f}",
                    "drivers/scsi/hosts.c, drivers/scsi/scsi_transport_fc.c",
                ),
            ),
            (
                *(
                    "other",
                    "lock not held!",
                    r".{0,60}(?:MDIO bus|Switch registers) lock not held!",
                ),
                *("bus lock not held{f}", "drivers/net/phy/mscc, drivers/net/dsa/mv88e6xxx/chip.c"),
            ),
            (
                *("other", "iounmap: bad address", r"iounmap: bad address"),
                *("iounmap: bad address{f}", "arch/x86/mm/ioremap.c iounmap"),
            ),
            (
                *("stack-overflow", "low stack detected", r"low stack detected by irq handler"),
                *("BUG: stack overflow{f}", "arch/x86/kernel/irq_32.c print_stack_overflow"),
            ),
            (
                *("other", "double timer add", r"NEIGH: BUG, double timer add"),
                *("NEIGH: double timer add{f}", "net/core/neighbour.c neigh_add_timer"),
            ),
            (
                *(
                    "other",
                    "Destroying alive neighbour",
                    r"(?:neighbour: )?Destroying alive neighbour",
                ),
                *("destroying alive neighbour{f}", "net/core/neighbour.c neigh_destroy"),
            ),
            (
                *("other", "FAULT_FLAG_ALLOW_RETRY", r"FAULT_FLAG_ALLOW_RETRY missing"),
                *("FAULT_FLAG_ALLOW_RETRY missing{f}", "fs/userfaultfd.c handle_userfault"),
            ),
            (
                *("slab", "Unexpected gfp", r"Unexpected gfp: 0x[0-9a-f]+ .* Fix your code!"),
                *("slab: unexpected gfp{f}", "mm/slab_common.c kmalloc_fix_flags"),
            ),
            (
                *(
                    "slab",
                    "failed with error -",
                    r"(?:__)?kmem_cache_create\w*\(.{1,60}\) failed with error -?\d+",
                ),
                *("kmem_cache_create failed{f}", "mm/slab_common.c __kmem_cache_create_args"),
            ),
            (
                *("other", "getblk(): invalid block size", r"getblk\(\): invalid block size"),
                *("getblk: invalid block size{f}", "fs/buffer.c __getblk_slow"),
            ),
            (
                *(
                    "other",
                    "prior to jump label init",
                    r"Warning! \w+\(\) used prior to jump label init!",
                ),
                *(
                    "feature used before jump label init{f}",
                    "arch/powerpc/include/asm/cpu_has_feature.h",
                ),
            ),
            (
                *(
                    "filesystem",
                    "inode tracked as orphan",
                    r"EXT4-fs \(\S+\): Inode \d+ .* inode tracked as orphan",
                ),
                *(
                    "EXT4-fs error: inode tracked as orphan{f}",
                    "fs/ext4/super.c ext4_destroy_inode",
                ),
            ),
            (
                *("filesystem", "no buf ops on daddr", r"XFS \(\S+\): .{0,60}no buf ops on daddr"),
                *("XFS: no buf ops{f}", "fs/xfs/xfs_buf.c xfs_buf_submit"),
            ),
            (
                *(
                    "filesystem",
                    "MetaData crosses page",
                    r"(?:jfs: )?MetaData crosses page boundary",
                ),
                *(
                    "JFS error: metadata crosses page boundary{f}",
                    "fs/jfs/jfs_metapage.c __get_metapage",
                ),
            ),
            (
                *(
                    "other",
                    "UBI assert failed in",
                    r"(?:\S+ error: )?.{0,40}UBI assert failed in (?P<bare>\w+) at \d+",
                ),
                *("UBI assert failed{f}", "drivers/mtd/ubi/debug.h ubi_assert"),
            ),
            (
                *("other", "OOPS: ", r"OOPS: (?:Bogus kernel PC \[|RPC \[)"),
                *("Oops: bogus kernel PC{f}", "arch/sparc/mm/fault_64.c bad_kernel_pc"),
            ),
            (
                *(
                    "general-protection",
                    "general protection fault",
                    r"general protection fault: +[0-9a-f]{4}\s*$",
                ),
                *("general protection fault{f}", "arch/i386/kernel/traps.c die_if_kernel (< 2.6)"),
            ),
            (
                *("bug", "invalid operand", r"invalid operand: +[0-9a-f]{4}\s*$"),
                *("kernel BUG{f}", "arch/i386/kernel/traps.c die_if_kernel (< 2.6)"),
            ),
            (
                *("bug", "invalid opcode", r"invalid opcode: +[0-9a-f]{4}\s*$"),
                *("kernel BUG{f}", "arch/x86_64/kernel/traps.c (2.4)"),
            ),
            (
                *("double-fault", "double fault", r"double fault: +[0-9a-f]{4}\s*$"),
                *("double fault{f}", "arch/i386/kernel/traps.c die_if_kernel (< 2.6)"),
            ),
            (
                *("other", "stack segment", r"stack segment: +[0-9a-f]{4}\s*$"),
                *("Oops: stack segment{f}", "arch/i386/kernel/traps.c die_if_kernel (< 2.6)"),
            ),
            (
                *("other", "Kernel OOPS in progress", "Kernel OOPS in progress"),
                *("Oops{f}", "arch/blackfin/kernel/trace.c (< 4.17)"),
            ),
            (
                *("divide-error", "divide error", r"divide error: +[0-9a-f]{4}\s*$"),
                *("divide error{f}", "arch/i386/kernel/traps.c die_if_kernel (< 2.6)"),
            ),
        )
    ),
    _rule(
        "other",
        "BUG",
        r"BUG: +(?P<what>\d+ unexpected failures \(out of \d+\) - debugging disabled)",
        "BUG: {what}",
        "lib/locking-selftest.c locking_selftest",
        frame=False,
    ),
    _rule(
        "oom-panic",
        "Out of memory and no killable",
        r"Out of memory and no killable processes\.\.\.",
        "kernel panic: System is deadlocked on memory",
        "mm/oom_kill.c out_of_memory; the panic comes with it, but in a memory cgroup",
        "panic",
        frame=False,
        prelude=True,
    ),
    _rule(
        "other",
        "something is seriously wrong",
        r"kobject (?:'[^']*' )?\([^)]*\): tried to "
        r"(?P<what>init an initialized|add an uninitialized) object, something is seriously wrong",
        "kobject: tried to {what} object{f}",
        "lib/kobject.c kobject_init, kobject_add",
    ),
    _rule(
        "other",
        "kmemleak: ",
        r"kmemleak: (?P<what>Cannot insert|Freeing unknown object|Partially freeing unknown object"
        r"|Unknown object|Trying to color unknown object)\b",
        "kmemleak: {what}",
        "mm/kmemleak.c kmemleak_warn, kmemleak_stop",
        frame=False,
    ),
    _rule(
        "other",
        "map_count ",
        r"map_count -?\d+ vma iterator -?\d+",
        "mm: areas are miscounted{f}",
        "mm/vma.c validate_mm",
    ),
    _rule(
        "other",
        "wrong timeout value",
        r"schedule_timeout: wrong timeout value",
        "schedule_timeout: wrong timeout value{f}",
        "kernel/time/timer.c, kernel/time/sleep_timeout.c schedule_timeout",
    ),
    _rule(
        "other",
        "Flags mismatch irq",
        r"(?:genirq: )?Flags mismatch irq \d+\. ",
        "genirq: flags mismatch{f}",
        "kernel/irq/manage.c __setup_irq, with CONFIG_DEBUG_SHIRQ: then a stack follows",
        shy=True,
    ),
    _rule(
        "other",
        "suspiciously returned",
        r".{1,80}: '(?P<what>[^']*)'->init suspiciously returned -?\d+",
        "init of module {what} suspiciously returned",
        "kernel/module/main.c do_init_module",
        frame=False,
    ),
    _rule(
        "other",
        "NETDEV WATCHDOG: CPU: ",
        r"(?:\S{1,40} ){0,3}\S{1,40}: NETDEV WATCHDOG: CPU: \d+: transmit queue \d+ timed out",
        "NETDEV WATCHDOG: transmit queue timed out",
        "net/sched/sch_generic.c dev_watchdog (since 6.4; a WARN() before)",
        frame=False,
    ),
    _rule(
        "other",
        "BUG",
        r"BUG: +(?P<what>\S.*)",
        "BUG: {what}{f}",
        "any other heading of this shape",
    ),
)

CUT = Rule(
    "other",
    "--[",
    re.compile(r"-+\[ cut here \]-+|-{8,}\[ ?$"),
    "report cut off{f}",
    "",
    "trace",
)
# dump_stack() behind words that no rule knows: somebody has called for help.
DUMPED = Rule(
    "other",
    "PID: ",
    re.compile(r"CPU: \d+ (?:UID: \d+ )?PID: \d+ Comm: |Pid: \d+, (?:CPU \d+, )?comm: |Cpu \d+$"),
    "{what}{f}",
    "lib/dump_stack.c dump_stack_print_info (arch/*/kernel/process.c < 3.10)",
)
# What asks for a trace with nothing wrong in the kernel: memory that was not to be had, a person, a
# test that has memory or I/O fail, a program that dies; or one of several CPUs.
ASKED_FOR = re.compile(
    r".*page allocation(?: (?:failure|stalls)|\s*$)|.*invoked oom-killer|.*cpuset=|.*mems_allowed"
    r"|.*allocation (?:failure|failed|for size)|.*[Ss]ys[Rr]q"
    r"|.*NMI (?:backtrace|pc|watchdog)|.*Sending NMI"
    r"|FAULT_INJECTION|name \w+, interval|.*fatal signal|.*[Uu]nhandled |.*\*pgd="
    r"|User process fault|Failing address|Stack traceback for"
    r"|.*segfault|.*Tainted: |.*[Oo]ut of memory|.*Killed process"
    r"|.*nodemask=|.*gfp_mask=|.*\[last unloaded|.*not a bug!|GUP no longer grows|COMPACTION is"
)
# What a file system does about what was said of it just before.
GIVEN_UP = re.compile(r"read-only|withdrawn")
BANNER = Rule(  # init/version.c linux_banner
    "reboot", "Linux version ", re.compile(r"Linux version \d+\.\d"), "unexpected reboot", ""
)
# The panic that ends a machine because of the report before it is that report's end.
CONSEQUENCE = re.compile(
    rf"{_PANIC}(?:Fatal exception|Fatal error|Fatal hardware error|.*panic_on_warn set"
    r"|.*panic_on_taint set|.*system warned too often|Oops|Aiee, killing interrupt handler"
    r"|Attempted to kill the idle task|Machine halted|kasan\.fault=|.*stack guard hit"
    r"|stack guard page|[kK]ernel stack overflow|UBSAN: |Asynchronous SError Interrupt"
    r"|Kernel Fault$|Non-resumable error|Unhandled exception"
    r"|EXT[234]-fs|REISERFS|[nN][mM][iI] watchdog|Non maskable interrupt)"
)
KILLED_INIT = re.compile(rf"{_PANIC}[aA]ttempted to kill init!")
# What a file system says and does after it has said, or before it says, what was wrong.
AFTERMATH = re.compile(
    r"(?:Filesystem \S+ )?Corruption (?:of in-memory data )?detected\. +|Aborting journal"
    r"|[Jj]ournal has aborted|[Dd]etected aborted journal"
    r"|I/O Error(?: \(0x[0-9a-f]+\))? [dD]etected\b.*[sS]hutting down"
    r"|has been shut down due to log error"
    r"|EXT[234]-fs error \(device [^)]*\)(?: in\b|:?$)"
)
_DEVICE = re.compile(
    r"\((?:device )?([^()]{1,40})\)|on device (\S{1,40}?)\.?(?:$| )"
    r"|at offset \d+ on (\S{1,40})"
)
_MAPPED, _INODE, _STATE = re.compile(r"dm-\d+"), re.compile(r"[-:]\d+$"), re.compile(": state .*")

# What a WARN() says before its heading, and the more exact type it gives: (message, type, title).
WARN_MESSAGES: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"refcount_t: "), "refcount", "WARNING: refcount bug{f}"),  # lib/refcount.c
    (re.compile(r"list_add "), "list-corruption", "list_add corruption{f}"),  # lib/list_debug.c
    (re.compile(r"list_del "), "list-corruption", "list_del corruption{f}"),
    (re.compile(r"ODEBUG: "), "warning", "WARNING: ODEBUG bug{f}"),  # lib/debugobjects.c
    (re.compile(r"Bad or missing usercopy"), "usercopy", "usercopy: bad whitelist{f}"),  # < 5.18
    (re.compile(r"UBSAN: "), "ubsan", "UBSAN{f}"),
    # kernel/watchdog.c (< 4.13)
    (re.compile(r"(?:NMI )?[Ww]atchdog detected hard LOCKUP"), "hard-lockup", "hard lockup{f}"),
)


def device(message: str) -> str:
    """Of a file system's message; that of a journal is called by its inode as well."""
    found = _DEVICE.search(message)
    name = next(filter(None, found.groups())) if found else ""
    return name if _MAPPED.fullmatch(name) else _INODE.sub("", _STATE.sub("", name))
