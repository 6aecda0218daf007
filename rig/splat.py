"""Finds the reports a kernel prints about itself in its console, incrementally, in linear time.

Every rule names the kernel source that prints its heading (paths of Linux 6.12; "< 5.x" marks a
wording that later kernels no longer have).
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rig.results import Splat

_LINE_MAX = 4096  # bytes of a line that are looked at
_PARTIAL_MAX = 1 << 16  # bytes kept of a line that has not ended
_STAMP_MAX = 64  # bytes that a stamp never has: what a cut may have left of one
_REPORT_LINES = 600  # lines kept of one report
_REPORT_SPAN = 4000  # console lines after which a report that never ended is closed
_OPEN_MAX = 16  # reports open at once, one a printing context
_FIRST_MOMENT_S = 5.0  # on a kernel's clock
_STRANGERS = 3  # lines in a row that belong to no report, and the report is over
_TEXTS_MAX = 20  # reports of one title that keep their text
_TITLES_MAX = 1000


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
    to_bug: the report goes on to a BUG(). at: the function is the one that takes the lock.
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
) -> Rule:
    compiled = re.compile(pattern)
    return Rule(type, trigger, compiled, title, source, ends, frame, all_cpus, to_bug, at)


# A symbol with its offset (lib/vsprintf.c %pS, %pB) or, in a decoded trace, its source line.
_SYMBOL = (
    r"\.?(?P<func>[A-Za-z_$][\w.$]*)"
    r"(?:\+0x[0-9a-f]+/0x[0-9a-f]+| \([\w./-]+:\d+[^()]*(?:\([^()]*\)[^()]*)*\)"
    r"|(?= [\w./-]+\.[chSs]:\d+))"
)
_IN = rf"(?: in {_SYMBOL}| in (?P<bare>[A-Za-z_][\w.$]*))?"
_DIE = r"[^\[]*: [0-9a-f]{1,4}(?:[0-9a-f]{12})?(?: ilc:\d)? \[#\d+\]"
# lockdep's boxes: "WARNING: x", "INFO: x" and "[ INFO: x ]" (< 4.15).
_LOCKDEP = r"(?:\[ )?(?:WARNING|INFO|BUG): "
_LOCKDEP_C = "kernel/locking/lockdep.c"
_FAULT_C = "arch/x86/mm/fault.c"
_ARM64_FAULT = "arch/arm64/mm/fault.c, arch/riscv/mm/fault.c"
_KASAN_C = "mm/kasan/report.c"
_STALL_H = "kernel/rcu/tree_stall.h"

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
        rf"UBSAN: (?P<what>[\w/ -]+?) (?:in \S+:\d+(?::\d+)?|at {_SYMBOL})",
        "UBSAN: {what}{f}",
        "lib/ubsan.c, arch/x86/kernel/traps.c",
        "trace",
    ),
    # -- locking and context -------------------------------------------------------------------
    _rule(
        "lockdep",
        "possible ",
        _LOCKDEP + "possible (?:circular locking dependency|recursive locking|irq lock inversion "
        "dependency) detected",
        "possible deadlock{f}",
        f"{_LOCKDEP_C} print_circular_bug, print_deadlock_bug, print_irq_inversion_bug",
        at=True,
    ),
    _rule(
        "lockdep",
        "lock order detected",
        _LOCKDEP + r"\S+-safe -> \S+-unsafe lock order detected",
        "possible deadlock{f}",
        f"{_LOCKDEP_C} print_bad_irq_dependency",
        at=True,
    ),
    _rule(
        "lockdep",
        "inconsistent lock state",
        _LOCKDEP + "inconsistent lock state",
        "inconsistent lock state{f}",
        f"{_LOCKDEP_C} print_usage_bug",
        at=True,
    ),
    _rule(
        "rcu-usage",
        "suspicious ",
        _LOCKDEP + "suspicious (?:RCU usage|rcu_dereference_check)",
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
        _LOCKDEP + "Invalid wait context",
        "invalid wait context{f}",
        f"{_LOCKDEP_C} print_lock_invalid_wait_context",
        at=True,
    ),
    _rule(
        "lockdep",
        "bad unlock balance",
        _LOCKDEP + "bad unlock balance detected!",
        "bad unlock balance{f}",
        f"{_LOCKDEP_C} print_unlock_imbalance_bug",
        at=True,
    ),
    _rule(
        "lockdep",
        "bad contention",
        _LOCKDEP + "bad contention detected!",
        "bad lock contention{f}",
        f"{_LOCKDEP_C} print_lock_contention_bug",
        at=True,
    ),
    _rule(
        "lockdep",
        "held lock freed",
        _LOCKDEP + "held lock freed!",
        "held lock freed{f}",
        f"{_LOCKDEP_C} print_freed_lock_bug",
    ),
    _rule(
        "lockdep",
        "Nested lock was not taken",
        _LOCKDEP + "Nested lock was not taken",
        "nested lock was not taken{f}",
        f"{_LOCKDEP_C} print_lock_nested_lock_not_held",
        at=True,
    ),
    _rule(
        "lockdep",
        "lock held when returning",
        _LOCKDEP + "lock held when returning to user space!",
        "lock held when returning to user space{f}",
        f"{_LOCKDEP_C} lockdep_sys_exit",
    ),
    _rule(
        "lockdep",
        "still has locks held",
        _LOCKDEP + r".{1,20}/\d+ still has locks held!",
        "task still has locks held{f}",
        f"{_LOCKDEP_C} print_held_locks_bug",
    ),
    _rule(
        "lockdep",
        "chain_key collision",
        _LOCKDEP + "chain_key collision",
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
        "PANIC: double fault",
        "(?:traps: )?PANIC: double fault",
        "double fault{f}",
        "arch/x86/kernel/traps.c exc_double_fault",
        "oops",
    ),
    _rule(
        "bug",
        "BUG",
        r"[kK]ernel BUG at (?:(?P<file>[^\s:]+):\d+!|" + _SYMBOL + ")",
        "kernel BUG{f}",
        "lib/bug.c report_bug",
        "oops",
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
        rf"(?:Oops: Oops{_DIE}|Oops{_DIE}|Internal error: Oops{_DIE}|Oops ?\[#\d+\]"
        rf"|Oops: Kernel access of bad area, sig: \d+ \[#\d+\]"
        rf"|(?:Oops: )?Bad pagetable{_DIE})",
        "BUG: page fault{access}{f}",
        "arch/x86/mm/fault.c, arch/arm64/mm/fault.c, arch/riscv/mm/fault.c",
        "oops",
    ),
    _rule(
        "other",
        "[#",
        rf"(?:Oops: (?P<what>[^:\[]+){_DIE}|Internal error: (?P<error>[^:\[]+){_DIE}"
        rf"|Oops - (?P<trap>[\w (),-]+) \[#\d+\]|(?P<old>int3|debug|bounds|alignment check){_DIE}"
        rf"|Oops: (?P<power>[^\[,]{{3,60}}), sig: \d+ \[#\d+\]"
        rf"|(?P<mips>[A-Z][\w ]{{5,60}}) ?\[#\d+\]:"
        rf"|(?P<s390>[a-z][a-z ]{{5,40}}): [0-9a-f]{{4}} ilc:\d \[#)",
        "Oops: {what}{error}{trap}{old}{power}{mips}{s390}{f}",
        "arch/x86/kernel/dumpstack.c, arch/arm64/kernel/traps.c, arch/riscv/kernel/traps.c",
        "oops",
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
        "Kernel memory ",
        r"usercopy: Kernel memory (?P<what>exposure|overwrite) attempt detected",
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
        rf"WARNING: CPU: \d+ PID: \d+ at (?:(?P<file>[^\s:]+):\d+ )?(?:{_SYMBOL}|0x[0-9a-f]+)?",
        "WARNING{f}",
        "kernel/panic.c __warn",
        "trace",
    ),
    _rule(
        "warning",
        "WARNING: ",
        rf"WARNING: (?P<file>[\w./-]+\.[chS]):\d+ at (?:{_SYMBOL})?",
        "WARNING{f}",
        "kernel/panic.c __warn (later than 6.12)",
        "trace",
    ),
    _rule(
        "warning",
        "WARNING: ",
        rf"WARNING: at (?P<file>[^\s:]+):\d+(?: (?:{_SYMBOL}|(?P<bare>\w+)\(\)))?",
        "WARNING{f}",
        "kernel/panic.c warn_slowpath_common (< 3.12)",
        "trace",
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
        rf" ?(?:detected )?(?:at {_SYMBOL})?",
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
        r"UBIFS error(?: \([^)]*\))?:? ?(?:\(?pid \d+\)?:? )?(?P<bare>ubifs_\w+)?",
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
        "Usage count",
        "unregister_netdevice: waiting for .{1,40} to become free. Usage count",
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
        "stack-overflow",
        "Kernel panic",
        rf"Kernel panic - not syncing: .*stack is corrupted in: (?:{_SYMBOL})?",
        "kernel panic: stack is corrupted{f}",
        "kernel/panic.c __stack_chk_fail",
        "panic",
    ),
    _rule(
        "stack-overflow",
        "Kernel panic",
        "Kernel panic - not syncing: (?:corrupted stack end|.*stack guard hit|kernel stack overf)",
        "kernel panic: stack overflow{f}",
        "kernel/sched/core.c schedule_debug",
        "panic",
    ),
    _rule(
        "lost-init",
        "Kernel panic",
        "Kernel panic - not syncing: Attempted to kill init!",
        "kernel panic: Attempted to kill init!",
        "kernel/exit.c do_exit",
        "panic",
        frame=False,
    ),
    _rule(
        "no-init",
        "Kernel panic",
        r"Kernel panic - not syncing: (?:No (?:working )?init found|Requested init \S+ failed)",
        "kernel panic: no working init",
        "init/main.c kernel_init",
        "panic",
        frame=False,
    ),
    _rule(
        "no-root",
        "Kernel panic",
        "Kernel panic - not syncing: VFS: Unable to mount root fs",
        "kernel panic: VFS: Unable to mount root fs",
        "init/do_mounts.c mount_root_generic",
        "panic",
        frame=False,
    ),
    _rule(
        "oom-panic",
        "Kernel panic",
        r"Kernel panic - not syncing: (?P<what>[Oo]ut of memory|System is deadlocked on memory)",
        "kernel panic: {what}",
        "mm/oom_kill.c",
        "panic",
        frame=False,
    ),
    _rule(
        "hard-lockup",
        "Kernel panic",
        "Kernel panic - not syncing: (?:NMI )?(?:[Ww]atchdog detected )?[hH]ard LOCKUP",
        "hard lockup{f}",
        "kernel/watchdog.c, by itself",
        "panic",
    ),
    _rule(
        "soft-lockup",
        "Kernel panic",
        "Kernel panic - not syncing: softlockup: hung tasks",
        "BUG: soft lockup{f}",
        "kernel/watchdog.c, by itself",
        "panic",
    ),
    _rule(
        "hung-task",
        "Kernel panic",
        "Kernel panic - not syncing: hung_task: blocked tasks",
        "INFO: task hung{f}",
        "kernel/hung_task.c, by itself",
        "panic",
    ),
    _rule(
        "rcu-stall",
        "Kernel panic",
        "Kernel panic - not syncing: RCU Stall",
        "INFO: rcu detected stall{f}",
        f"{_STALL_H}, by itself",
        "panic",
    ),
    _rule(
        "panic",
        "Kernel panic",
        "Kernel panic(?: - not syncing)?: ?(?P<what>.*)",
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

_CUT = Rule(
    "other", "cut here", re.compile("-+\\[ cut here \\]-+"), "report cut off{f}", "", "trace"
)
_BANNER = Rule(  # init/version.c linux_banner
    "reboot", "Linux version ", re.compile(r"Linux version \d+\.\d"), "unexpected reboot", ""
)
# The panic that ends a machine because of the report before it is that report's end.
_CONSEQUENCE = re.compile(
    r"Kernel panic - not syncing: (?:Fatal exception|Fatal error|Fatal hardware error"
    r"|.*panic_on_warn set|.*panic_on_taint set|.*system warned too often|hung_task: blocked tasks"
    r"|softlockup: hung tasks|RCU Stall|Hard LOCKUP|Oops|Aiee, killing interrupt handler"
    r"|Attempted to kill the idle task|Machine halted|kasan\.fault=|.*stack guard hit"
    r"|stack guard page|kernel stack overflow|UBSAN: )"
)
_KILLED_INIT = re.compile(r"Kernel panic - not syncing: Attempted to kill init!")

# What a WARN() says before its heading, and the more exact type it gives: (message, type, title).
_WARN_MESSAGES: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"refcount_t: "), "refcount", "WARNING: refcount bug{f}"),  # lib/refcount.c
    (re.compile(r"list_add "), "list-corruption", "list_add corruption{f}"),  # lib/list_debug.c
    (re.compile(r"list_del "), "list-corruption", "list_del corruption{f}"),
    (re.compile(r"ODEBUG: "), "warning", "WARNING: ODEBUG bug{f}"),  # lib/debugobjects.c
    (re.compile(r"Bad or missing usercopy"), "usercopy", "usercopy: bad whitelist{f}"),  # < 5.18
    (re.compile(r"UBSAN: "), "ubsan", "UBSAN{f}"),
)

# -- lines ---------------------------------------------------------------------------------------

# kernel/printk/printk.c: "<6>", the time, CONFIG_PRINTK_CALLER's thread or CPU.
_STAMP = re.compile(r"\[ {0,12}\d{1,12}\.\d{6}\](?:\[ *(?P<caller>[TC]\d+)\])? ?", re.ASCII)
_STAMPED = re.compile(rb"\[ {0,12}\d{1,12}\.\d{6}\]")
_LEVEL = re.compile(r"<\d+>")
# What recorders put in front of that, or show in its place. `by`: only a kernel's lines have it.
_DAY = r"(?:\w{3} )?\w{3} [ \d]?\d"
_CLOCK = r"\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?"
_ISO = rf"\d{{4}}[-/]\d\d[-/]\d\d[T ]{_CLOCK}(?:Z|[+-]\d\d:?\d\d)?"
_RECORDED = re.compile(
    "|".join(
        (
            # syslog and the journal; dmesg --time-format ctime, iso, delta, reltime; dmesg -x
            rf"(?P<by>(?:(?:{_DAY} {_CLOCK}|{_ISO}) (?:\S{{1,80}} )?)?"
            r"(?:kernel|vmunix)(?:\[\d+\])?: {0,2}"
            rf"|\[{_DAY} {_CLOCK}(?: \d{{4}})?\] ?|\[[<+ ]*\d+\.\d{{3,9}}>?\](?:\[ *[TC]\d+\])? ?"
            r"|(?:kern|user|daemon) *:(?:emerg|alert|crit|err|warn|notice|info|debug) *: ?"
            # a level; /dev/kmsg and netconsole's long form
            r"|<\d{1,3}>|\d{1,3},\d+,\d+,[^;\s]{1,40};)",
            # terminal programs, runners of CI, netconsole's receivers
            rf"\[?{_ISO}\]? ?|\[?{_CLOCK}\]?:? |\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?::\d+)?[: ] ?",
            # which CPU or thread, as some vendors' kernels say it
            r"\[c\d+ +\d+\] ?|\(\d\)\[\d+:[^\]]{1,40}\] ?|\[ *[TC]\d+\] ?|-\(\d\)",
            r"\[ *\d{1,12}\.\d{3,9}@\d\] ?|\[\d: {0,15}[^\]: ]{1,16}: *\d+\] ?",
        )
    ),
    re.ASCII,
)
# Marks of a quoting mail, and the indentation of a pasted log: in front of all the others.
_QUOTED = re.compile(r"(?:[ \t]{0,8}[>|])+ {0,2}|[ \t]{1,12}(?=\S)")
_PREFIXES = 6  # at most so many of them
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def _search_words() -> list[str]:
    """Literals of which every heading contains one: what the fast search looks for."""
    words = {rule.trigger for rule in (*RULES, _CUT, _BANNER) if not _boxed(rule)}
    words |= {"WARNING: ", "INFO: ", "BUG"}
    return sorted(word for word in words if not any(one in word for one in words - {word}))


def _boxed(rule: Rule) -> bool:
    return rule.pattern.pattern.startswith(_LOCKDEP)


# Capitals are rare in a console: one alternation that starts with them runs at memory speed, and
# would crawl with lower-case words among them; those are searched for one by one.
_WORDS = _search_words()
_CAPITALS = re.compile("|".join(re.escape(w) for w in _WORDS if w[0].isupper()).encode())
_OTHERS = tuple(word.encode() for word in _WORDS if not word[0].isupper())
_ANY_WORD = re.compile("|".join(map(re.escape, _WORDS)).encode())

_END_TRACE = re.compile(r"---\[ end trace ")
_END_PANIC = re.compile(r"---\[ end Kernel panic|Rebooting in \d+ seconds")
_RULER = re.compile(r"={20,}$")
_STALL_ENDED = re.compile(r"(?:rcu: )?INFO: Stall ended before state dump start")
_FRAME = re.compile(
    rf"\s*(?:\(?\[<?[0-9a-f]+>?\]\s*)*(?P<guess>\? )?\(?{_SYMBOL}\)?"
    r"(?: \[[^\]]*\]| \([^)]*\)| [\w./-]+:\d+| from \[.*| \(unreliable\)|\))*\s*$"
)
_PC = re.compile(
    r"(?:RIP: 0010:|RIP  \[|EIP: (?:0060:)?|EIP is at |IP: |pc : |e?pc *: |PC is at |NIP \[|EPC *: "
    r"|Krnl PSW : |PC: |TPC: |IAOQ\[0\]: )(?P<rest>.*)"
)
_SECTION = re.compile(r"\s*<(?P<end>/)?(?P<name>IRQ|NMI|SOFTIRQ)>\s*$")
_SYMBOL_IN = re.compile(_SYMBOL)
_AT = re.compile(rf"at: (?:\[<[0-9a-f]+>\] )?{_SYMBOL}")
_NAMED = re.compile(rf"caller is {_SYMBOL}|\s+preempt=.*\bworkfn=(?P<work>[\w.$]+)")
_FRAME_STARTS = frozenset(" \t[?(")
_BARE_FRAME = re.compile(r"\.?[A-Za-z_][\w.]*(?:\+0x[0-9a-f]+/0x| \([\w./-]+:\d)")
_READ = re.compile(r"(?:Read of size|#PF: \w+ read access|BUG: KASAN: .*\bread\b)")
_WRITE = re.compile(r"(?:Write of size|#PF: \w+ write access|.*\bWnR = 1\b)")
_EXEC = re.compile(r"#PF: \w+ instruction fetch")

# A line that belongs to a report, whoever prints it.
_BODY_STARTS = (
    # registers and traces of x86, arm64, riscv
    r"\s|$|[=*>|-]{2}|\[<|\[[0-9a-f]{8,16}\]|[0-9a-f]{8}|CPU: |CPU#?\d|Hardware name|Call [Tt]race"
    r"|Modules linked|Code: |R[ISBDA][PXI]: |E[ISABCD][PXI]: |R\d\d?: |[FC]S: |CR\d: |DR\d: |PKRU"
    r"|Tainted|Workqueue: |pc :|lr :|sp :|x\d+ ?:|pstate|epc :|ra :|status:|gp :|[as]\d+ ?:|t\d :"
    r"|#PF|PGD |Oops|Internal error|Stack:|Process |task:|NMI |Sending NMI|note: |Kernel Offset"
    r"|Mem abort|Data abort|user pgtable|swapper pgtable|ESR|FAR|Exception|Unable to handle|Last "
    r"|Dumping|Rebooting|Disabling lock|Showing|Thread overran|CPU \d|Task stack|Overflow stack"
    r"|PC is at|LR is at|pgd = |psr|Flags: |Control: |[Rr]egister |[Bb]acktrace|Function entered"
    r"|Exception stack|ip :|fp :|r\d+ ?:|NIP|LR|MSR|GPR|CFAR|DAR|DSISR|TRAP|XER|CTR|IRQMASK|SOFTE"
    r"|Faulting instruction|Instruction dump|CPU:|epc|EPC|Status|Cause|BadVA|PrId|\$ ?\d|Hi |Lo "
    r"|Krnl|Fault in |AS:|Last Breaking|TSTATE|[gloi]\d: |RPC|I\d: |Caller\[|Disabling|CPU: \d"
    r"|EIP|EFLAGS|eax|esi|ds: |RSP |CR2|printing eip|\*pde|last sysfs|Pid: |Modules|PREEMPT|Comm: "
    r"|IP: |RIP|Cpu \d|Hardware|Fixing|Unable|invalid opcode|general protection|LE PAGE|BE PAGE",
    # lockdep, RCU, scheduler, watchdogs
    r"\d+ locks? held|no locks|irq event stamp|(?:hard|soft)irqs |\(|Preemption disabled|in_atomic"
    r"|preempt_count|RCU |INFO: lockdep|stack backtrace|other info|but |which |and |to an? |the "
    r"|turning off|The |you |Possible |.* is (?:trying|freeing|leaving|releasing)|.* just changed"
    r"|.*\bat: |-> #|#\d|inconsistent|\{|hash matches|rcu|All QSes|Tasks? |Blocked |.* kthread "
    r"|\"echo 0|workqueue |pool |\S+/\d+: \d|caller is",
    # memory: sanitizers, slab, pages, leaks
    r"(?:Read|Write|Free|Access) (?:of|at|to)|(?:Allocated|Freed|Last potentially) |Memory state"
    r"|page(?: |:)|flags: |raw: |head: |page_type|[oO]bject |Redzone|Padding|Slab 0x|FIX |INFO: "
    r"|Uninit |Local variable|Bytes? \d|Reported by|value changed|read |write |race at|kfence-"
    r"|index |shift |left shift|load of|division|negation|member access|signed|unsigned|KASAN: "
    r"|backtrace|comm |hex dump|aops|anon flags|addr:|file:|process |handlers:|irq_event|kobject",
)
_BODY = re.compile("|".join(_BODY_STARTS))
_REGISTERS = re.compile(
    r"R[ISBDA][PXI]: |E[ISABCD][PXI]: |R\d\d?: |[FC]S: |CR\d: |DR\d: |PKRU|Code: |note: |$|\s"
    r"|Modules linked|Kernel Offset|Disabling|Fixing recursive|x\d+ ?:|pc :|lr :|sp :"
)

# -- functions -----------------------------------------------------------------------------------

_SUFFIX = re.compile(r"(?:\.(?:constprop|isra|part|cold|llvm|lto_priv|localalias)(?:\.\d+)*)+$")

# Functions that report, check, allocate, copy, lock or wait for somebody else.
_HELPER_NAMES = (
    # the reporting itself: lib/dump_stack.c, kernel/panic.c, lib/bug.c, arch/*/kernel/traps.c
    r"_*dump_stack\w*|show_(?:stack|trace|regs)\w*|dump_trace|print_\w+|report_bug|fixup_bug|_*warn_\w+|__warn"
    r"|v?panic|die|die_\w+|__die\w*|oops_\w+|handle_bug|do_error_trap|do_trap|asm_exc_\w+|exc_\w+"
    r"|do_invalid_op|invalid_op|(?:async_)?page_fault\w*|no_context|bad_area\w*|error_entry"
    r"|do_(?:user|kern)_addr_fault|check_panic_on_warn|el[01]\w+|__stack_chk_fail|dump_backtrace\w*"
    r"|unwind_backtrace|warn_slowpath_\w+|__report_bad_irq|bad_page_fault|_exception\w*",
    # sanitizers: mm/kasan, mm/kmsan, kernel/kcsan, mm/kfence, lib/ubsan.c
    r"_*(?:kasan|asan|hwasan|kmsan|msan|kcsan|tsan|kfence|ubsan)_\w+|check_memory_region"
    r"|handle_overflow|val_to_string|end_report|start_report",
    # copying: lib/string.c, lib/usercopy.c, mm/usercopy.c
    r"_*mem(?:cpy|set|move|cmp|chr|scan|dup)\w*|_*str[nlrs]?(?:cpy|cat|len|cmp|chr|str|scpy)\w*"
    r"|rep_\w+|_*copy_(?:to|from|in)_\w+|_*copy_user\w*|_*clear_user\w*|__check_object_size"
    r"|_*check_heap_object|usercopy_\w+",
    # counters, lists, object debugging: lib/refcount.c, lib/list_debug.c, lib/debugobjects.c
    r"_*refcount_\w+|kref_\w+|_*h?list_(?:add|del|move|splice|replace)\w*|debug_object_\w+"
    r"|debug_print_object|__debug_\w+|debug_check_no_obj_freed",
    # allocators: mm/slub.c, mm/page_alloc.c, mm/vmalloc.c, mm/kmemleak.c
    r"k?v?free(?:_sensitive|_bulk|_rcu\w*)?|kv?free\w*|_*k?[vmz]*alloc\w*|_*vmalloc\w*|_*kmem_cache_\w+|_*cache_free\w*|_*slab_\w+"
    r"|do_slab_free|__free_slab|object_err|check_(?:object|slab)\w*|(?:free|alloc)_debug_processing"
    r"|free_to_partial_list|kmemleak_\w+|_*alloc_pages\w*|get_page_from_freelist|free_pcp\w*"
    r"|free_unref_\w+|_*free_pages\w*|bad_page|_*put_page\w*|release_pages|_*free_one_page",
    # sleeping and waiting: kernel/sched, kernel/locking
    r"_*might_(?:sleep|fault|resched|alloc)\w*|__schedule\w*|schedule(?:_\w+)?|preempt_schedule\w*"
    r"|_*cond_resched\w*|io_schedule\w*|_*wait_for_\w+|__wait_\w+|do_wait_\w+|out_of_line_wait\w*"
    r"|bit_wait\w*|wait_on_\w+|folio_wait_\w+|msleep\w*|usleep\w*|rwsem_\w+|_*down(?:_\w+)?"
    r"|_*mutex_\w+|ww_mutex\w*|_*rt_mutex\w*|percpu_(?:down|rwsem)\w*|__percpu_\w+|stop_machine_yield",
    # locks and lockdep: kernel/locking, lib/smp_processor_id.c
    r"_*raw_(?:spin|read|write)_\w+|do_raw_\w+|spin_(?:lock|unlock|bug|dump)\w*|rwlock_bug"
    r"|_*lock_(?:acquire|release|sock|page|is_held)\w*|__lock_\w+|lockdep_\w+|mark_(?:lock|usage|held)\w*"
    r"|check_\w*(?:lock|prev|usage|noncircular|path|redundant|deadlock|wait_context)\w*"
    r"|debug_check_no_locks_\w+|validate_chain|register_lock_class|assign_lock_key|debug_locks_off|trace_hardirqs\w*"
    r"|native_(?:queued_spin|halt|safe_halt|apic|send|smp|stop)\w*|check_preemption_disabled"
    r"|debug_smp_processor_id|__this_cpu_preempt_check",
    # watchdogs, ticks, interrupts: kernel/watchdog.c, kernel/rcu, kernel/time, arch entry code
    r"nmi_\w+|arch_trigger_\w+|trigger_\w*backtrace\w*|rcu_sched_clock_irq|rcu_(?:check|dump)_\w+"
    r"|rcu_\w*stall\w*|(?:sched|scheduler)_tick|tick_\w+|update_process_times|_*hrtimer_\w+"
    r"|local_apic_timer\w*|(?:asm_)?_*sysvec_\w+|(?:asm_)?common_interrupt|watchdog_\w+"
    r"|_*perf_\w*event\w*|csd_lock\w*|smp_call_function\w*|on_each_cpu\w*|generic_exec_single"
    r"|delay_\w+|__delay|__const_udelay|__[un]delay|console_\w+|vprintk\w*|_?printk",
    # stack walking and the ends of a stack
    r"unwind_\w+|stack_trace_\w+|stack_depot_\w+|arch_stack_walk|save_stack\w*|ret_from_fork\w*"
    r"|kthread|entry_SYSCALL\w*|do_syscall_\w+|x64_sys_call|rest_init",
)
_HELPERS = re.compile("|".join(_HELPER_NAMES))


def scan(text: str | bytes) -> list[Splat]:
    """All reports in a whole console log."""
    data = text.encode(errors="replace") if isinstance(text, str) else text
    pieces = (data[start : start + (1 << 20)] for start in range(0, len(data), 1 << 20))
    return list(scan_pieces(pieces))


def scan_pieces(pieces: Iterable[bytes]) -> Iterator[Splat]:
    """All reports of a log that comes piece by piece, in the order of their first lines.

    A report is handed out as soon as it and all that began before it have ended; what is kept
    meanwhile is bounded, as there are never more than so many open at once.
    """
    scanner = Scanner()
    waiting: list[Splat] = []
    for piece in pieces:
        waiting = sorted(waiting + scanner.feed(piece), key=_start)
        known = scanner.settled()
        ready = bisect.bisect_left(waiting, known, key=_start)
        yield from waiting[:ready]
        waiting = waiting[ready:]
    yield from sorted(waiting + scanner.finish(), key=_start)


def _start(splat: Splat) -> int:
    return splat.start


def function(symbol: str) -> str:
    """A function's name without what the compiler put behind it."""
    return _SUFFIX.sub("", symbol)


@dataclass
class _Report:
    """A report that is being read.

    phase: "registers" after the end of its trace, "panic" after the panic it ended in. quiet: the
    end of a report that is out already. died: its die() line has been seen. from_cut: begun by
    "cut here", its heading has not come.
    """

    rule: Rule
    start: int
    end: int
    match: re.Match[str] | None = None
    lines: list[str] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    preamble: str = ""
    pc: str = ""
    lock_at: str = ""
    caller: str = ""
    access: str = ""
    strangers: int = 0
    guess: str = ""
    section: str = ""
    phase: str = ""
    quiet: bool = False
    ended: bool = False
    died: bool = False
    pc_seen: bool = False
    from_cut: bool = False

    def head(self, rule: Rule, match: re.Match[str], message: str) -> None:
        """What "cut here" announced. WARN() may say first what looks like a heading of its own."""
        self.rule, self.match = rule, match
        self.from_cut = rule.type not in ("warning", "bug", "ubsan") and rule.trigger != "[#"
        if self.from_cut:
            self.preamble = self.preamble or message

    def add(self, number: int, raw: str) -> None:
        """Keep a line as part of the report."""
        self.end = number + 1
        if len(self.lines) < _REPORT_LINES:
            self.lines.append(raw)

    def learn(self, message: str) -> None:
        """Take from a line what the title will need."""
        if match := _PC.match(message.lstrip()):
            self._learn_pc(match["rest"])
        elif message[:1] in _FRAME_STARTS or _BARE_FRAME.match(message):
            if match := _FRAME.match(message):
                self._learn_frame(match)
            elif match := _SECTION.match(message):
                self.section = "" if match["end"] else match["name"]
        if not self.lock_at and "at: " in message and (match := _AT.search(message)):
            self.lock_at = match["func"]
        elif match := _NAMED.match(message):
            self.caller = match["func"] or match["work"]
        if not self.access:
            self.access = _access(message)

    def _learn_pc(self, rest: str) -> None:
        if "[inline]" in rest:
            return  # the function that it was inlined into follows
        symbol = _SYMBOL_IN.search(rest)
        if self.pc_seen or not symbol:
            return  # a second register of that name, or one in nobody's code
        self.pc, self.pc_seen = symbol["func"], True
        if self.rule.all_cpus:  # what came before was the stack of whoever noticed the stall
            self.frames.clear()

    def _learn_frame(self, match: re.Match[str]) -> None:
        aside = self.section == "NMI" or (self.section and self.rule.all_cpus)
        if match["guess"] or aside:
            self.guess = self.guess or match["func"]
        elif len(self.frames) < 64:
            self.frames.append(match["func"])


def _access(message: str) -> str:
    if _READ.match(message):
        return "read"
    if _WRITE.match(message):
        return "write"
    return "execute" if _EXEC.match(message) else ""


class _Words:
    """Where in a block the next of the search words is; each word is searched for once."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._next = [0] * (len(_OTHERS) + 1)
        self._stale = [True] * (len(_OTHERS) + 1)

    def after(self, position: int) -> int:
        """The first place at or after position (which never goes back), or -1."""
        for index, place in enumerate(self._next):
            if self._stale[index] or 0 <= place < position:
                self._next[index] = self._find(index, position)
                self._stale[index] = False
        return min((place for place in self._next if place >= 0), default=-1)

    def _find(self, index: int, position: int) -> int:
        if index < len(_OTHERS):
            return self._block.find(_OTHERS[index], position)
        hit = _CAPITALS.search(self._block, position)
        return hit.start() if hit else -1


class Scanner:
    """Feed it a console as it comes; it hands out each report when that has ended.

    Chunks may be cut anywhere. Memory is bounded whatever comes; the time is linear.
    """

    def __init__(self) -> None:
        self._partial = b""
        self._line = 0
        self._open: dict[str, _Report] = {}
        self._stamped_from: int | None = None
        self._banner = False
        self._titles: dict[str, int] = {}
        self._last_oops = -(10**9)
        self._any = False
        self._out: list[Splat] = []

    def feed(self, chunk: bytes) -> list[Splat]:
        """Read on; the reports that have ended by now."""
        data = self._partial + chunk if self._partial else chunk
        cut = data.rfind(b"\n") + 1
        self._partial = data[cut:]
        if len(self._partial) > _PARTIAL_MAX:
            self._partial = _shortened(self._partial)
        if cut:
            self._block(data[:cut])
        return self._take_out()

    def finish(self) -> list[Splat]:
        """The console has ended: the last line and the reports still open."""
        if self._partial:
            self._block(self._partial + b"\n")
            self._partial = b""
        for key in list(self._open):
            self._close(key, cut=True)
        return self._take_out()

    def so_far(self) -> list[Splat]:
        """What finish() would give now, without ending anything: reports that are still open."""
        return [_splat(report, cut=True) for report in self._open.values() if not report.quiet]

    def settled(self) -> int:
        """The first line that a report to come may begin with: those before it are all out."""
        return min((report.start for report in self._open.values()), default=self._line)

    def _take_out(self) -> list[Splat]:
        out, self._out = self._out, []
        return out

    # -- lines ---------------------------------------------------------------------------------

    def _block(self, block: bytes) -> None:
        """Whole lines. While no report is open, only lines with a trigger are looked at."""
        if self._stamped_from is None and (stamp := _STAMPED.search(block)):
            self._stamped_from = self._line + block.count(b"\n", 0, stamp.start())
            # The banner comes in a boot's first moment: this one is from before the log's begin.
            self._banner = float(stamp[0].strip(b"[] ")) > _FIRST_MOMENT_S
        position, words = 0, _Words(block)
        while position < len(block):
            if not self._open:
                hit = words.after(position)
                if hit < 0:
                    self._line += block.count(b"\n", position)
                    return
                start = max(block.rfind(b"\n", position, hit) + 1, position)
                self._line += block.count(b"\n", position, start)
                position = start
            end = block.index(b"\n", position)
            self._take(_looked_at(block[position:end]))
            self._line += 1
            position = end + 1

    def _take(self, line: bytes) -> None:
        raw = line.decode(errors="replace").rstrip("\r")
        stamped, caller, message = _split(raw)
        if not stamped and self._stamped_from is not None and self._line > self._stamped_from:
            self._age()
            return  # a user's text on a console where the kernel stamps its own
        if _ANY_WORD.search(line) and self._heading(caller, message, raw):
            return
        if self._open:
            self._body(caller, message, raw)
            self._age()

    def _age(self) -> None:
        """Close what has been open for too long."""
        for key, report in list(self._open.items()):
            if self._line - report.start > _REPORT_SPAN:
                self._close(key)

    # -- headings ------------------------------------------------------------------------------

    def _heading(self, caller: str, message: str, raw: str) -> bool:
        """Open or continue a report if this line is the head of one."""
        if _CUT.pattern.match(message):
            self._cut_here(caller, raw)
            return True
        if _BANNER.pattern.match(message):
            self._linux_banner(raw)
            return True
        bare = message.lstrip(" \t")
        for rule in RULES:
            if rule.trigger in bare and (match := rule.pattern.match(bare)):
                if len(bare) < len(message) and rule is RULES[-1]:
                    return False  # words of somebody's, set in
                return self._opened(caller, rule, match, bare, raw)
        return False

    def _cut_here(self, caller: str, raw: str) -> None:
        report = self._open.get(caller)
        if report and report.rule.to_bug and not report.died:
            report.add(self._line, raw)  # usercopy and list corruption go on to a BUG()
            return
        self._start(caller, _CUT, None, raw)

    def _linux_banner(self, raw: str) -> None:
        if self._banner:
            for key in list(self._open):
                self._close(key, cut=True)
            self._start("", _BANNER, None, raw)
            self._close("")
        self._banner = True

    def _opened(
        self, caller: str, rule: Rule, match: re.Match[str], message: str, raw: str
    ) -> bool:
        report = self._open.get(caller)
        if rule.ends == "panic" and self._is_consequence(message, report):
            self._absorb_panic(caller, rule, report, raw)
        elif report and _continues(report, rule):
            report.add(self._line, raw)
            report.died = report.died or "[#" in rule.trigger
            report.learn(message)
            if report.from_cut:
                report.head(rule, match, message)
            elif rule is report.rule:
                report.match = match
        else:
            self._start(caller, rule, match, raw)
            self._open[caller].died = rule.trigger == "[#"
        return True

    def _is_consequence(self, message: str, report: _Report | None) -> bool:
        if _KILLED_INIT.match(message):
            near = self._line - self._last_oops < 200
            return near or (report is not None and report.rule.ends == "oops")
        return bool(_CONSEQUENCE.match(message)) and (self._any or bool(self._open))

    def _absorb_panic(self, caller: str, rule: Rule, report: _Report | None, raw: str) -> None:
        report = report or next(iter(self._open.values()), None)
        if report:
            report.add(self._line, raw)
            report.phase, report.ended, report.strangers = "panic", True, 0
            return
        self._start(caller, rule, None, raw)  # its report is out already: swallow the rest
        self._open[caller].quiet = True

    def _start(self, caller: str, rule: Rule, match: re.Match[str] | None, raw: str) -> None:
        if caller in self._open:
            self._close(caller, cut=True)
        if len(self._open) >= _OPEN_MAX:
            self._close(min(self._open, key=lambda key: self._open[key].start))
        report = _Report(rule, self._line, self._line + 1, match, [raw], from_cut=rule is _CUT)
        self._open[caller] = report
        self._any = self._any or rule is not _CUT

    # -- bodies --------------------------------------------------------------------------------

    def _body(self, caller: str, message: str, raw: str) -> None:
        report = self._open.get(caller)
        if report is None:
            key = next((key for key, one in self._open.items() if one.rule.all_cpus), None)
            if key is None or not _BODY.match(message):
                return
            self._open[key].add(self._line, raw)
            self._open[key].learn(message)
            return
        if report.rule is _CUT and len(report.lines) < 30 and not _END_TRACE.match(message):
            report.preamble = report.preamble or message
            report.add(self._line, raw)
            return
        self._known(caller, report, message, raw)

    def _known(self, key: str, report: _Report, message: str, raw: str) -> None:
        """A line of a report's own context: part of it, its end, or a stranger."""
        if report.rule.all_cpus and _STALL_ENDED.match(message):
            del self._open[key]
            return
        pattern = _REGISTERS if report.phase == "registers" else _BODY
        own = (pattern, _END_TRACE, _END_PANIC, _BARE_FRAME)
        if not any(one.match(message) for one in own):
            report.strangers += 1
            if report.strangers >= (1 if report.phase == "registers" else _STRANGERS):
                self._close(key)
            return
        report.strangers = 0
        report.add(self._line, raw)
        report.learn(message)
        self._maybe_end(key, report, message)

    def _maybe_end(self, key: str, report: _Report, message: str) -> None:
        ends = report.rule.ends
        if _END_PANIC.match(message):
            report.ended = True
            self._close(key)
        elif _END_TRACE.match(message):
            report.ended, report.phase = True, "registers"
            if ends == "trace":
                self._close(key)
        elif ends in ("rule", "trace") and _RULER.match(message) and len(report.lines) > 3:
            report.ended = True
            self._close(key)

    def _close(self, key: str, *, cut: bool = False) -> None:
        report = self._open.pop(key)
        if report.rule.ends == "oops":
            self._last_oops = report.end
        if report.quiet:
            return
        splat = _splat(report, cut=cut)
        seen = self._titles.get(splat.title, 0)
        if len(self._titles) < _TITLES_MAX or seen:
            self._titles[splat.title] = seen + 1
        if seen >= _TEXTS_MAX:
            splat = Splat(
                splat.type, splat.title, splat.start, splat.end, splat.frame, "", splat.corrupted
            )
        self._out.append(splat)


def _last_stamp(line: bytes) -> int:
    """Where the last stamp of a line begins, or -1."""
    return max((stamp.start() for stamp in _STAMPED.finditer(line)), default=-1)


def _looked_at(line: bytes) -> bytes:
    """A line, or what counts of a long one: from its last stamp, else its head.

    The console is shared: any amount of a user's text may stand in front of the kernel's.
    """
    if len(line) <= _LINE_MAX:
        return line
    start = max(0, _last_stamp(line))
    return line[start : start + _LINE_MAX]


def _shortened(line: bytes) -> bytes:
    """The beginning of a very long line with its middle left out.

    However the line goes on, what is looked at of it stays the same: its head and what follows
    its last stamp are kept, and its end, which may be half a stamp. A zero byte, which no stamp
    has, stands for what is gone.
    """
    head, start = line[:_LINE_MAX], _last_stamp(line)
    if start < 0:
        return head + b"\0" + line[-_STAMP_MAX:]
    behind = line[start:]
    if len(behind) > _LINE_MAX + _STAMP_MAX:
        behind = behind[:_LINE_MAX] + b"\0" + behind[-_STAMP_MAX:]
    return head + b"\0" + behind


def _split(raw: str) -> tuple[bool, str, str]:
    """Whether the kernel stamped the line, who printed it, and the message.

    A user's text may stand in front of the stamp: the console is shared.
    """
    line = _ANSI.sub("", raw) if "\x1b" in raw else raw
    stamped, caller, start = False, "", 0
    for stamp in _STAMP.finditer(line):
        stamped, start, caller = True, stamp.end(), stamp["caller"] or ""
    if not stamped:
        stamped, start = _recorded(line)
    elif level := _LEVEL.match(line, start):
        start = level.end()
    return stamped, caller, line[start:]


def _recorded(line: str) -> tuple[bool, int]:
    """Whether a line without the kernel's own stamp is marked as the kernel's, and where what it
    says begins. Marks of a mail are skipped where such a mark follows, or where they are all.
    """
    stamped, start = False, 0
    quoted = _QUOTED.match(line)
    if quoted and (not quoted[0].isspace() or _RECORDED.match(line, quoted.end())):
        start = quoted.end()
    for _ in range(_PREFIXES):
        if not (mark := _RECORDED.match(line, start)):
            break
        stamped, start = stamped or bool(mark["by"]), mark.end()
    return stamped, start


def _continues(report: _Report, rule: Rule) -> bool:
    """Whether this heading is a further line of the open report, not one of its own."""
    if report.from_cut:
        return True
    first = len(report.lines) <= 4
    if first and rule is report.rule and rule.ends == "rule":
        return True  # one line for each function that was inlined
    if first and rule.type == report.rule.type and rule.type in ("rcu-usage", "memory-leak"):
        return True  # a second line of the same heading
    if first and rule.type == "warning" and report.rule.type in ("refcount", "list-corruption"):
        return True  # the WARN() whose message it is
    if rule.trigger == "[#":  # die() after what has already said why
        return report.rule.ends == "oops" and not report.died
    return rule.type == "bug" and report.rule.to_bug and not report.died


# -- titles --------------------------------------------------------------------------------------


def _splat(report: _Report, *, cut: bool) -> Splat:
    """The finished value; cut: the log or another report came before this one's own end."""
    type, title = report.rule.type, report.rule.title
    if type == "warning" and report.preamble:
        type, title = _warn_kind(report.preamble, type, title)
    frame = _culprit(report)
    lone = report.rule.frame and not frame and len(report.lines) < 2
    unfinished = cut and bool(report.rule.ends) and report.rule.ends != "panic"
    corrupted = report.rule is _CUT or lone or (unfinished and not report.ended)
    text = "\n".join(report.lines)
    return Splat(
        type, _title(title, report, frame), report.start, report.end, frame, text, corrupted
    )


def _warn_kind(message: str, type: str, title: str) -> tuple[str, str]:
    for pattern, exact, words in _WARN_MESSAGES:
        if pattern.match(message):
            return exact, words
    return type, title


def _culprit(report: _Report) -> str:
    """The first function that is to blame and not a helper; the first of all when all are."""
    if not report.rule.frame:
        return ""
    groups = report.match.groupdict() if report.match else {}
    named = [report.lock_at] if report.rule.at else []
    named += [groups.get("func") or "", groups.get("bare") or "", report.caller, report.pc]
    candidates = [function(name) for name in (*named, *report.frames, report.guess) if name]
    blamed = (name for name in candidates if not _HELPERS.fullmatch(name))
    return next(blamed, candidates[0] if candidates else "")


def _title(template: str, report: _Report, frame: str) -> str:
    groups = report.match.groupdict() if report.match else {}
    values = {name: _plain(value or "") for name, value in groups.items()}
    if other := values.get("other"):
        values["other"] = f" / {function(other)}"
    values["f"] = f" in {frame}" if frame else ""
    values["access"] = f" {report.access}" if report.access else ""
    return " ".join(template.format_map(values).split())


_ADDRESS = re.compile(r"\b(?:0x)?[0-9a-f]{8,16}\b|\b0x[0-9a-f]+\b")
_PLACE = re.compile(r" at \S+:\d+\b|\w*[=:] *(?=$|[ ,.)])|\([\d, ]*\)|\[[^\]]*\]")
_NUMBER = re.compile(r"(?<![\w-])\d+(?![\w])")


def _plain(text: str) -> str:
    """Words without addresses, places and numbers: two occurrences of one bug read the same."""
    text = _PLACE.sub("", _ADDRESS.sub("", text))
    return " ".join(_NUMBER.sub("N", text).split()).strip(" :,;.!=-")[:120]


def titles(splats: Iterable[Splat]) -> list[str]:
    """The distinct titles, in the order they came."""
    return list(dict.fromkeys(splat.title for splat in splats))
