"""What a Linux kernel says when it reports on itself: the heading of each kind of report.

Every rule names the kernel source that prints its heading (paths of Linux 6.12; "< 5.x" marks a
wording that later kernels no longer have).
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
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
    to_bug: the report goes on to a BUG(). at: the function is the one that takes the lock. die: it
        is the line of die(), which may follow what has said why. prelude: without a line of
        die() behind it, it was about a program of user space.
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
) -> Rule:
    compiled, died = re.compile(pattern), die or trigger == "[#"
    return Rule(
        type, trigger, compiled, title, source, ends, frame, all_cpus, to_bug, at, died, prelude
    )


# A symbol with its offset (lib/vsprintf.c %pS, %pB) or, in a decoded trace, its source line.
SYMBOL = (
    r"\.?(?P<func>[A-Za-z_$][\w.$]*)"
    r"(?:\+0x[0-9a-f]+/0x[0-9a-f]+|\+\d+/\d+(?=\])| \([\w./-]+:[\d?]+[^()]*(?:\([^()]*\)[^()]*)*\)"
    r"|(?= [\w./-]+\.[chSs]:\d+))"
)
_IN = rf"(?: in {SYMBOL}| in (?P<bare>[A-Za-z_][\w.$]*))?"
_DIE = r"[^\[]*: [0-9a-f]{1,16}(?: ilc:\d)? \[#\d+\]"
# x86-64 until 2.6.27, and copies of a log that have lost the brackets.
_OLD_DIE = (
    r"[^\[\]]*: [0-9a-f]{4} "
    r"(?:\[\d+\]\s*(?:$|PREEMPT\b|SMP\b)|\d+ (?:PREEMPT|SMP)\b)"
)
# lockdep's boxes: "WARNING: x", "INFO: x" and "[ INFO: x ]" (< 4.15).
BOXED = r"(?:\[ )?(?:WARNING|INFO|BUG): "
_LOCKDEP_C = "kernel/locking/lockdep.c"
_FAULT_C = "arch/x86/mm/fault.c"
_ARM64_FAULT = "arch/arm64/mm/fault.c, arch/riscv/mm/fault.c"
_KASAN_C = "mm/kasan/report.c"
_STALL_H = "kernel/rcu/tree_stall.h"
_PANIC = "Kernel panic(?: - not syncing)? ?: ?"  # the oldest say no more than the first two words

# Most special first: the first rule that matches wins.
RULES: tuple[Rule, ...] = (
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
        r"BUG: KCSAN: (?P<what>[\w-]+) in (?P<func>[\w.$]+)(?:\+0x\S+)?(?: / (?P<other>[\w.$]+))?",
        "KCSAN: {what}{f}{other}",
        "kernel/kcsan/report.c",
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
        rf"UBSAN: (?P<what>[\w/ -]+?) (?:in \S+:\d+(?::\d+)?|at {SYMBOL}|in(?: \S*/\S*)?$)",
        "UBSAN: {what}{f}",
        "lib/ubsan.c, arch/x86/kernel/traps.c",
        "trace",
    ),
    # -- locking and context -------------------------------------------------------------------
    _rule(
        "lockdep",
        "possible ",
        BOXED + "possible (?:circular locking dependency|recursive locking|irq lock inversion "
        "dependency) detected",
        "possible deadlock{f}",
        f"{_LOCKDEP_C} print_circular_bug, print_deadlock_bug, print_irq_inversion_bug",
        at=True,
    ),
    _rule(
        "lockdep",
        "lock order detected",
        BOXED + r"\S+-safe -> \S+-unsafe lock order detected",
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
        BOXED + "suspicious (?:RCU usage|rcu_dereference_check)",
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
        BOXED + "bad unlock balance detected!",
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
        BOXED + "lock held when returning to user space!",
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
    ),
    _rule(
        "lockdep",
        "BUG",
        r"BUG: (?P<what>(?:raw_)?(?:spinlock|rwlock|rwsem|(?:read|write)-lock) [\w ,-]+?) on CPU",
        "BUG: {what}{f}",
        "kernel/locking/spinlock_debug.c",
    ),
    _rule(
        "atomic-sleep",
        "sleeping function called",
        "(?:BUG|Debug): sleeping function called from invalid context at",
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
        "other",
        "BUG",
        r"BUG: using (?P<what>\w+)\(\) in preemptible",
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
        r"(?:rcu: )?INFO: \w+ (?:self-)?detected (?:expedited )?stalls?\b"
        r"|(?:rcu: )?\w+ kthread (?:timer wakeup didn't happen for|starved for) \d+ jiffies",
        "INFO: rcu detected stall{f}",
        f"{_STALL_H}, kernel/rcu/tree_exp.h, kernel/rcu/tasks.h",
        all_cpus=True,
    ),
    _rule(
        "soft-lockup",
        "BUG",
        r"(?:NMI )?(?:watchdog: )?BUG: soft lockup (?:- CPU|detected on CPU)",
        "BUG: soft lockup{f}",
        "kernel/watchdog.c watchdog_timer_fn",
        all_cpus=True,
    ),
    _rule(
        "hard-lockup",
        "LOCKUP",
        r"(?:NMI )?(?:[Ww]atchdog: )?(?:CPU ?\d+: )?(?:[Ww]atchdog|Watchdog CPU:?\d+|NMI Watchdog) "
        r"detected (?:hard )?LOCKUP\b|(?:NMI )?(?:watchdog: )?CPU \d+ (?:self-detected hard LOCKUP"
        r"|detected hard LOCKUP on other CPUs)",
        "hard lockup{f}",
        "kernel/watchdog.c watchdog_hardlockup_check",
        all_cpus=True,
    ),
    _rule(
        "hung-task",
        "INFO: ",
        r"INFO: task .{1,40}:\d+ (?:<writer> )?blocked (?:in I/O wait )?for more than \d+ seconds",
        "INFO: task hung{f}",
        "kernel/hung_task.c check_hung_task",
    ),
    _rule(
        "workqueue-lockup",
        "BUG",
        "BUG: workqueue lockup - pool",
        "BUG: workqueue lockup",
        "kernel/workqueue.c wq_watchdog_timer_fn",
        frame=False,
        all_cpus=True,
    ),
    # -- faults of the CPU ---------------------------------------------------------------------
    _rule(
        "null-deref",
        "BUG",
        r"BUG: (?:unable to handle )?kernel NULL pointer dereference",
        "BUG: kernel NULL pointer dereference{access}{f}",
        f"{_FAULT_C} show_fault_oops",
        "oops",
    ),
    _rule(
        "page-fault",
        "BUG",
        r"BUG: unable to handle (?:kernel paging request|page fault for address)",
        "BUG: page fault{access}{f}",
        f"{_FAULT_C} show_fault_oops",
        "oops",
    ),
    _rule(
        "null-deref",
        "Unable to handle",
        "Unable to handle kernel NULL pointer dereference",
        "BUG: kernel NULL pointer dereference{access}{f}",
        _ARM64_FAULT,
        "oops",
    ),
    _rule(
        "page-fault",
        "Unable to handle",
        r"(?:CPU \d+ )?Unable to handle kernel [^:]{1,60} (?:at virtual address|for data at address"
        "|for instruction fetch|for unaligned access|in virtual kernel address space|address)",
        "BUG: page fault{access}{f}",
        f"{_ARM64_FAULT}, arch/{{mips,s390}}/mm/fault.c, arch/powerpc/mm/fault.c (< 5.6)",
        "oops",
    ),
    _rule(
        "null-deref",
        "BUG",
        r"BUG: Kernel NULL pointer dereference",
        "BUG: kernel NULL pointer dereference{access}{f}",
        "arch/powerpc/mm/fault.c",
        "oops",
    ),
    _rule(
        "page-fault",
        "BUG",
        r"BUG: Unable to handle (?:unaligned access|kernel (?:data access|instruction fetch)"
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
        "stack-overflow",
        "BUG",
        r"BUG: (?:\w+ )?stack guard page was hit at",
        "BUG: stack overflow{f}",
        "arch/x86/kernel/traps.c handle_stack_overflow",
        "oops",
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
        _rule(
            type,
            trigger,
            rf"(?:Oops: )?{trap}{_OLD_DIE}",
            title,
            "arch/x86_64/kernel/traps.c (< 2.6.28)",
            "oops",
            die=True,
        )
        for type, trap, title in (
            ("double-fault", "double fault", "double fault{f}"),
            ("stack-overflow", "stack segment", "BUG: stack overflow{f}"),
            ("divide-error", "divide error", "divide error{f}"),
            ("general-protection", "general protection fault", "general protection fault{f}"),
            ("bug", "invalid opcode", "kernel BUG{f}"),
            ("bug", "invalid operand", "kernel BUG{f}"),
            ("page-fault", "Oops", "BUG: page fault{access}{f}"),
        )
        for trigger in (f"{trap}: ", " SMP")
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
        rf"(?:Oops: )?(?:kernel stack overflow|stack guard page|stack segment){_DIE}",
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
        "general-protection",
        "[#",
        rf"(?:Oops: )?general protection fault{_DIE}",
        "general protection fault{f}",
        "arch/x86/kernel/traps.c exc_general_protection",
        "oops",
    ),
    _rule(
        "bug",
        "[#",
        rf"(?:Oops: )?invalid opcode{_DIE}|Internal error: Oops - BUG{_DIE}"
        rf"|Kernel [bB][uU][gG](?: detected)? ?\[#\d+\]|monitor event{_DIE}",
        "kernel BUG{f}",
        "arch/x86/kernel/traps.c exc_invalid_op, arch/arm64/kernel/traps.c bug_handler, "
        "arch/mips/kernel/traps.c do_trap_or_bp, arch/s390/kernel/traps.c",
        "oops",
    ),
    _rule(
        "page-fault",
        "[#",
        rf"(?:(?:Oops: )?Oops: [0-9a-f]{{1,16}} \[#\d+\]|Internal error: Oops(?= ?:){_DIE}"
        rf"|Oops ?\[#\d+\]"
        rf"|Oops: Kernel access of bad area, sig: \d+ \[#\d+\]"
        rf"|(?:Oops: )?Bad pagetable{_DIE})",
        "BUG: page fault{access}{f}",
        "arch/x86/mm/fault.c, arch/arm64/mm/fault.c, arch/riscv/mm/fault.c",
        "oops",
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
        rf"|(?P<mips>[A-Z][\w ]{{5,60}}) ?\[#\d+\]:"
        rf"|(?P<s390>[a-z][a-z ]{{5,40}}): [0-9a-f]{{4}} ilc:\d \[#)",
        "Oops: {what}{error}{trap}{old}{power}{mips}{s390}{f}",
        "arch/x86/kernel/dumpstack.c, arch/arm64/kernel/traps.c, arch/riscv/kernel/traps.c",
        "oops",
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
        r"|BUG (?P<old>\S+): (?P<why>(?:Redzone|Poison|Object|Padding|Free ?pointer|Wrong|Invalid"
        r"|Slab).*)",
        "slab {cache}{old}: {what}{why}",
        "mm/slub.c slab_bug",
        frame=False,
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
        "BUG",
        r"BUG: (?P<what>Bad rss-counter state|non-zero pgtables_bytes|non-zero nr_ptes)",
        "BUG: {what}",
        "kernel/fork.c check_mm",
        frame=False,
    ),
    _rule(
        "usercopy",
        "ernel memory ",
        r"usercopy: [Kk]ernel memory (?P<what>exposure|overwrite) attempt detected",
        "usercopy: kernel memory {what}{f}",
        "mm/usercopy.c usercopy_abort",
        "oops",
        to_bug=True,
    ),
    _rule(
        "list-corruption",
        "list_",
        r"(?P<what>list_add|list_del) (?:corruption|double add)",
        "{what} corruption{f}",
        "lib/list_debug.c",
        "oops",
        to_bug=True,
    ),
    _rule(
        "refcount",
        "refcount_t: ",
        r"refcount_t: (?:addition on 0|underflow|saturated|decrement hit 0|hit |increment on 0)",
        "WARNING: refcount bug{f}",
        "lib/refcount.c, whose WARN() was cut",
        "trace",
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
        "unreferenced object",
        r"(?:kmemleak: )?unreferenced object 0x",
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
    _rule(
        "warning",
        "WARNING: ",
        rf"WARNING: CPU: \d+ PID: \d+ at(?: |$)(?:(?P<file>[^\s:]+):\d+(?: |$))?"
        rf"(?:{SYMBOL}|0x[0-9a-f]+)?",
        "WARNING{f}",
        "kernel/panic.c __warn",
        "trace",
    ),
    _rule(
        "warning",
        "WARNING: ",
        rf"WARNING: (?P<file>[\w./-]+\.[chS]):\d+ at (?:{SYMBOL})?",
        "WARNING{f}",
        "kernel/panic.c __warn (later than 6.12)",
        "trace",
    ),
    _rule(
        "warning",
        "WARNING: ",
        rf"WARNING: at (?P<file>[^\s:]+):\d+(?: (?:{SYMBOL}|(?P<bare>\w+)\(\)))?",
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
    # -- file systems and devices --------------------------------------------------------------
    _rule(
        "filesystem",
        "-fs error",
        r"(?P<what>EXT[234])-fs error \(device [^)]*\)(?:(?::? | in )(?P<func>[\w.]+):(?: ?\d+)?)?",
        "{what}-fs error{f}",
        "fs/ext4/super.c __ext4_error, fs/ext2/super.c ext2_error, fs/ext3 (< 4.3)",
    ),
    _rule(
        "filesystem",
        "BTRFS",
        r"BTRFS(?: critical|: error) \(device [^)]*\)(?: in (?P<func>\w+):\d+)?"
        r"|BTRFS error \(device [^)]*\)(?: in (?P<bare>\w+):\d+)?:? (?:.*(?:checksum|csum|corrupt"
        r"|transid|block=|bad tree|level verify|uncorrectable|errno=-(?:5|117)))",
        "BTRFS error{f}",
        "fs/btrfs/messages.c",
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
        "nternal error",
        r"(?:Filesystem \S+: )?XFS:? [iI]nternal error (?:(?P<what>XFS_\w+) )?",
        "XFS corruption{f}",
        "fs/xfs/xfs_error.c (< 3.0)",
    ),
    _rule(
        "filesystem",
        "FAT-fs (",
        r"FAT-fs \([^)]*\): error, (?P<what>[^(]+)",
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
        r"SQUASHFS error: (?P<what>[^,\[]+)",
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
        r"unregister_netdevice: waiting for (?P<device>.{1,40}) to become free",
        "unregister_netdevice: waiting for device to become free",
        "net/core/dev.c netdev_wait_allrefs_any",
        frame=False,
    ),
    _rule(
        "other",
        "nobody cared",
        r"irq \d+: nobody cared",
        "irq: nobody cared",
        "kernel/irq/spurious.c __report_bad_irq",
        frame=False,
    ),
    # -- the end -------------------------------------------------------------------------------
    _rule(
        "panic",
        "Kernel panic",
        rf"{_PANIC}.*stack is corrupted in:(?: {SYMBOL}|[ =]*$)",
        "kernel panic: stack is corrupted{f}",
        "kernel/panic.c __stack_chk_fail",
        "panic",
    ),
    _rule(
        "stack-overflow",
        "Kernel panic",
        rf"{_PANIC}(?:corrupted stack end|.*stack guard hit|kernel stack overf)",
        "kernel panic: stack overflow{f}",
        "kernel/sched/core.c schedule_debug",
        "panic",
    ),
    _rule(
        "lost-init",
        "Kernel panic",
        rf"{_PANIC}Attempted to kill init!",
        "kernel panic: Attempted to kill init!",
        "kernel/exit.c do_exit",
        "panic",
        frame=False,
    ),
    _rule(
        "no-init",
        "Kernel panic",
        rf"{_PANIC}(?:No (?:working )?init found|Requested init \S+ failed)",
        "kernel panic: no working init",
        "init/main.c kernel_init",
        "panic",
        frame=False,
    ),
    _rule(
        "no-root",
        "Kernel panic",
        rf"{_PANIC}VFS: Unable to mount root fs",
        "kernel panic: VFS: Unable to mount root fs",
        "init/do_mounts.c mount_root_generic",
        "panic",
        frame=False,
    ),
    _rule(
        "oom-panic",
        "Kernel panic",
        rf"{_PANIC}(?P<what>[Oo]ut of memory|System is deadlocked on memory)",
        "kernel panic: {what}",
        "mm/oom_kill.c",
        "panic",
        frame=False,
    ),
    _rule(
        "hard-lockup",
        "Kernel panic",
        rf"{_PANIC}(?:NMI )?(?:[Ww]atchdog detected )?[hH]ard LOCKUP",
        "hard lockup{f}",
        "kernel/watchdog.c, by itself",
        "panic",
    ),
    _rule(
        "soft-lockup",
        "Kernel panic",
        rf"{_PANIC}softlockup: hung tasks",
        "BUG: soft lockup{f}",
        "kernel/watchdog.c, by itself",
        "panic",
    ),
    _rule(
        "hung-task",
        "Kernel panic",
        rf"{_PANIC}hung_task: blocked tasks",
        "INFO: task hung{f}",
        "kernel/hung_task.c, by itself",
        "panic",
    ),
    _rule(
        "rcu-stall",
        "Kernel panic",
        rf"{_PANIC}RCU Stall",
        "INFO: rcu detected stall{f}",
        f"{_STALL_H}, by itself",
        "panic",
    ),
    _rule(
        "panic",
        "Kernel panic",
        rf"{_PANIC}(?P<what>.*)",
        "kernel panic: {what}",
        "kernel/panic.c panic",
        "panic",
        frame=False,
    ),
    _rule(
        "other",
        "BUG",
        r"BUG: (?P<what>\S.*)",
        "BUG: {what}{f}",
        "any other heading of this shape",
    ),
)

CUT = Rule(
    "other", "cut here", re.compile("-+\\[ cut here \\]-+"), "report cut off{f}", "", "trace"
)
BANNER = Rule(  # init/version.c linux_banner
    "reboot", "Linux version ", re.compile(r"Linux version \d+\.\d"), "unexpected reboot", ""
)
# The panic that ends a machine because of the report before it is that report's end.
CONSEQUENCE = re.compile(
    rf"{_PANIC}(?:Fatal exception|Fatal error|Fatal hardware error|.*panic_on_warn set"
    r"|.*panic_on_taint set|.*system warned too often|Oops|Aiee, killing interrupt handler"
    r"|Attempted to kill the idle task|Machine halted|kasan\.fault=|.*stack guard hit"
    r"|stack guard page|kernel stack overflow|UBSAN: |Asynchronous SError Interrupt)"
)
KILLED_INIT = re.compile(rf"{_PANIC}Attempted to kill init!")
# What a file system says and does after it has said, or before it says, what was wrong.
AFTERMATH = re.compile(
    r"Corruption (?:of in-memory data )?detected\. +|Aborting journal|[Jj]ournal has aborted"
    r"|[Dd]etected aborted journal"
)
_DEVICE = re.compile(r"\((?:device )?([^()]{1,40})\)|on device (\S{1,40}?)\.?(?:$| )")
_MAPPED, _INODE = re.compile(r"dm-\d+"), re.compile(r"[-:]\d+$")

# What a WARN() says before its heading, and the more exact type it gives: (message, type, title).
WARN_MESSAGES: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"refcount_t: "), "refcount", "WARNING: refcount bug{f}"),  # lib/refcount.c
    (re.compile(r"list_add "), "list-corruption", "list_add corruption{f}"),  # lib/list_debug.c
    (re.compile(r"list_del "), "list-corruption", "list_del corruption{f}"),
    (re.compile(r"ODEBUG: "), "warning", "WARNING: ODEBUG bug{f}"),  # lib/debugobjects.c
    (re.compile(r"Bad or missing usercopy"), "usercopy", "usercopy: bad whitelist{f}"),  # < 5.18
    (re.compile(r"UBSAN: "), "ubsan", "UBSAN{f}"),
)


def device(message: str) -> str:
    """Of a file system's message; that of a journal is called by its inode as well."""
    found = _DEVICE.search(message)
    name = (found[1] or found[2]) if found else ""
    return name if _MAPPED.fullmatch(name) else _INODE.sub("", name)
