"""Finds the reports a kernel prints about itself in its console, incrementally, in linear time."""

from __future__ import annotations

import bisect
import copy
import itertools
import re
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from rig import wordings
from rig.consoleline import (
    LINE_MAX,
    RUNNING,
    STAMPED,
    before,
    by_a_program,
    lines_like,
    looked_at,
    shortened,
    split,
)
from rig.culprits import DRIVER_CORE, ENTRIES, HELPERS, function
from rig.headings import (
    AFTERMATH,
    ASKED_FOR,
    BANNER,
    BOXED,
    CONSEQUENCE,
    CUT,
    DUMPED,
    GIVEN_UP,
    HEADINGS,
    KILLED_INIT,
    SYMBOL,
    WARN_MESSAGES,
    Rule,
    device,
)
from rig.results import Splat


def _plain_rules() -> Iterator[Rule]:
    """Those of what has no heading. What is followed by a stack may be the words of a BUG(), else
    those of a WARN().
    """
    for kind, trigger, pattern, title, source, traced in wordings.all_of_them():
        ends = "oops" if traced else ""
        yield Rule(
            *(kind, trigger, re.compile(pattern), title, source, ends),
            frame=traced, to_bug=traced, said=not traced,
        )  # fmt: skip


# The last one takes any words behind BUG.
RULES = (*HEADINGS[:-1], *_plain_rules(), HEADINGS[-1])
_DFA = Implementation.DFA
_WINDOW = 1 << 18  # bytes that are looked through at once
_PARTIAL_MAX = 1 << 16  # bytes kept of a line that has not ended
_REPORT_LINES = 600  # lines kept of one report
_REPORT_SPAN = 4000  # console lines after which a report that never ended is closed
_OPEN_MAX = 16  # reports open at once, one a printing context
_FIRST_MOMENT_S = 5.0  # on a kernel's clock
_WRAPS_S = 4294667.296  # where that began by which kernels before 2.6.17 stamped: INITIAL_JIFFIES
_DEATH, _DYING = 200, ("exit_signals", "do_exit", "make_task_dead", "rewind_stack_do_exit")
# All but those that take any words for one.
_EXACT = frozenset(rule for rule in RULES if not rule.pattern.pattern.endswith(".*)"))
_NUMBERED = {rule: number for number, rule in enumerate(RULES)}
_HEAD = 6  # lines in which a fault says its address
_BEGUN = 3  # lines of a report that has just begun
_ABOVE = 12  # lines above one that may be looked at again
_SHORT = 4  # lines of one in which the heading may not have ended
_BETWEEN = 8  # lines of others that come between those of a report
_SOON = 40  # lines in which what follows from a report comes
_STRANGERS = 3  # lines in a row that belong to no report, and the report is over
_PATIENCE = 100  # of such that lists every partition before it panics
_TEXTS_MAX = 20  # reports of one title that keep their text
_TITLES_MAX = 1000
# What journalctl puts between the journals of two boots, however the first one ended.
_NEXT_BOOT, _NEXT_BOOTS = (
    re.compile(rb"^-- (?:Reboot|Boot [0-9a-f]{32}) --\r?$", re.MULTILINE),
    1024,
)
_LINES_OF_A_BOOT = 3  # that may come before its banner
_ABORTED = re.compile(r"BTRFS: Transaction aborted", re.IGNORECASE)
# Types whose panic says nothing new where they were reported before.
_PANICS = ("oom-panic", "hung-task", "soft-lockup", "hard-lockup", "rcu-stall")
# What is read from debugfs is a report as well, though the reader prints it.
_READ_OUT, _READER = (
    re.compile(r"unreferenced object (?:\(percpu\) )?0x[0-9a-f]{8,16} \(size \d+\):"),
    "reader",
)
# drivers/of/unittest.c says word by word what it is about to cause, and that it has.
_ANNOUNCED = "### dt-test ### EXPECT "
# A heading that a mail program has broken behind one of these, and what may come before the rest.
_FILE_LINE = re.compile(r"^\s*[\w./-]+:\d+ ")
# Behind a text that has not been ended: the level of another printk(), what a boot does, or what
# init has said.
_BEHIND = re.compile(
    r".*?(?:<[0-7]>(?=[A-Z]|-{8,}\[)"
    r"|\.\.\.+ ?(?=Unable to handle kernel|[kK]ernel BUG at|Oops: |Kernel panic)"
    r"|\w(?=Kernel panic - not syncing: [A-Z]|Unable to handle kernel [A-Z]))"
)
# Where a heading may begin behind a prefix that is not known, and a body that shows it is one.
_PREFIX_MAX, _MARKS = 160, 24
_MARK = re.compile(
    r"^[\d.]+ - |^\w{3} [ \d]\d [\d:]{8} [\w.-]{1,64} |^\d{1,8} ?|\d[A-Z]\? *|[\]):;#>$|*]+ *"
)
# Where what somebody puts in front of each line may end; and that it is a column of brackets or
# bars, a time, or the key of an object: no program's name, no count, no mark of a list.
_BREAK = re.compile(r"[^\w\s-]+ *|-(?!-) *|\s+")
_COLUMN = re.compile(
    r"(?:^|\s)[(\[][^()\[\]]{1,40}[)\]] *$|[|\u2502\u2503] *$"
    r"|^\s*\d+(?:[.:]\d+)+:? +$|^\d{9,}[.\d]* +$|^\d+\.\d+: *$"
    r"|[\"'](?:log|msg|message)[\"']: ?[\"']$|^b['\"]$"
)
_KIN = 2  # lines that have to have it as well
_SURE = re.compile(
    r"\s*(?:CPU: ?\d|Call [Tt]race|R[IS]P[: ]|E[IS]P|[Pp][cC] ?:|PC is at|NIP|Modules linked"
    r"|Hardware name|Pid: |(?:Read|Write|Free) of (?:size|addr)|\[<[0-9a-f]*>\]|Workqueue: |#PF"
    r"|PGD |Code: |Mem abort|Internal error|Oops|---\[ end|stack backtrace|\d+ locks? held by"
    r"|pc = \[<|PSW: |\[?ECR\b|\[EFA |STAT32: |BLK: |COMM=|SR: [0-9a-f]{4}|TSTATE: |a00: "
    r"|epc +: |GPR00: |r0:|r00-03|\$ 0 +:|Stopper: |in_atomic|but task is"
    r"|.* is trying to acquire|task:|NMI backtrace|lr : |tsk->\{mm,)"
)
# Of a stack without a heading: the words before it, and that it is one.
# A list of modules has no marks but brackets.
_SAID = re.compile(r"(?P<what>(?=.*[A-Za-z]{3})(?=.*[:,=.!?;'\"]).*)")
_TRACE = re.compile(
    rf"\s*(?:Call [Tt]race|\[?[Bb]acktrace|\$ 0 |\[<[0-9a-f]*>\]|(?:\? )?{SYMBOL}|stack:)"
)
_OF_A_PROGRAM = re.compile(r"\bMode USER|User PSW|\bcpsr *: .*USER")
_ONLY_MARK = re.compile(r"[^\[\]:]{6,20}:\d\d[^\[\]]{0,80} kernel: *(?P<stamp>\[ *[\d.]+\] *)?\s*$")
_KTAP = re.compile(r"\s*(?:(?:not )?ok \d+\b|K?TAP version|1\.\.\d+$|# \S)")  # of unit tests
_TORN, _TORN_LOCK = re.compile(r" (?:in:?|at|at \S+:\d+)(?: ?=)?\s*$"), re.compile(r" at:\s*$")
# What could not be handled is in a line of its own where another CPU's has come between.
_SAYS_ITS_NAME = "Kernel OOPS in progress"  # in each report (blackfin)
_UNABLE = re.compile(r"BUG: unable to handle kernel *$")


_AIEE = re.compile(r"Kernel panic(?: - not syncing)?: Aiee, killing interrupt handler")


# Programs say these as well, line after line: only with what a kernel goes on with, or where a mail
# has broken the line. Colours end in "m".
_ENDS = r"[ \t\r]*=?$"
_BOXES = (
    r"possible\b|inconsistent\b|suspicious\b|Invalid wait|bad (?:unlock|contention)|held lock"
    r"|Nested lock|lock held|chain_key|circular|\S+-safe\b|.{1,20}/\d+ still"
)
_COMMON = {
    "BUG": r"BUG(?<![A-Za-ln-z_]BUG)"
    rf"(?=[:!]| at | in \w+ at | \S{{1,64}} ?\(| [\w:.-]{{1,60}}:| \S+{_ENDS}|{_ENDS})",
    "INFO: ": rf"INFO: (?=task\b|trying\b|\w+ (?:self-)?detected|\w+{_ENDS}"
    rf"|{_BOXES}|{_ENDS})",
    # Of dump_stack(): top and ps say the first words as well.
    "PID: ": r"PID: (?=\d+ Comm: )",
    "Pid: ": r"Pid: (?=\d+, (?:CPU \d+, )?comm: )",
    "Cpu ": r"Cpu (?=\d+[ \t\r]*$)",
    "WARNING: ": r"WARNING: (?=CPU|at\b|[\w./-]+\.[chS]:\d|kernel stack|stack |can't |kmemcheck"
    r"|\[.{1,160}?\] [\w./-]+\.[chS]:\d"
    rf"|{_BOXES}|{_ENDS})",
}


def _search_words() -> list[str]:
    """Literals of which every heading contains one: what the fast search looks for."""
    words = {rule.trigger for rule in (*RULES, CUT, DUMPED, BANNER) if not _boxed(rule)}
    words |= _COMMON.keys()
    return sorted(word for word in words if not any(one in word for one in words - {word}))


def _boxed(rule: Rule) -> bool:
    return rule.pattern.pattern.startswith(BOXED)


def _meant(word: str) -> re.Pattern[bytes] | None:
    """Where a word has to be looked at more closely: how."""
    if word not in _COMMON:
        return None
    pattern = _COMMON[word].replace("\\ ", "[ \\n]").replace(": (?=", ":[ \\n](?=")
    return re.compile(pattern.encode(), re.MULTILINE)


# All of them are looked for in one pass. A mail program may have broken a line between two words of
# a heading: the search takes the end of a line for a space.
_WORDS = _search_words()
_MEANT = [_meant(word) for word in _WORDS]
_LONGEST = max(map(len, _WORDS))
_SEARCH = BytesAhoCorasick([word.encode() for word in _WORDS], MatchKind.Standard, _DFA)
_TRIGGERS = sorted({rule.trigger for rule in RULES})
_BY_TRIGGER = [[rule for rule in RULES if rule.trigger == trigger] for trigger in _TRIGGERS]
_RULES_OF = BytesAhoCorasick([word.encode() for word in _TRIGGERS], MatchKind.Standard, _DFA)


def _places(flat: bytes | memoryview, block: bytes, start: int = 0) -> Iterator[tuple[int, int]]:
    """Where search words begin and end. flat: what of the block is searched, with spaces for the
    ends of lines; it begins at start.
    """
    for number, begin, end in _SEARCH.find_matches_as_indexes(flat, overlapping=True):
        meant = _MEANT[number]
        if meant is None or meant.match(block, start + begin):
            yield start + begin, start + end


def _any_word(line: bytes) -> bool:
    if not _SEARCH.find_matches_as_indexes(line):
        return False
    return any(True for _ in _places(line, line))


def _possible(text: str) -> list[Rule]:
    """The rules whose trigger is in a text, in their order."""
    hits = _RULES_OF.find_matches_as_indexes(text.encode(errors="replace"), overlapping=True)
    if not hits:
        return []
    found = [rule for number in {hit[0] for hit in hits} for rule in _BY_TRIGGER[number]]
    return sorted(found, key=_NUMBERED.__getitem__) if len(found) > 1 else found


_END_TRACE = re.compile(r"---\[ end trace ")
_END_PANIC = re.compile(r"---\[ end Kernel panic|Rebooting in \d+ seconds")
_END_OF = re.compile(r"---\[ end (Kernel panic - not syncing: .*?)(?: \]---)?$")
_RULER = re.compile(r"={20,}$")
_PERIOD = re.compile(r"\bg ?= ?(-?\d+)")
_INLINED = re.compile(r"\[inline\]\s*$")
_STALL_ENDED = re.compile(r"(?:rcu: )?INFO: Stall ended before state dump start")
_FRAME = re.compile(
    rf"\s*(?:\(?\[<?[0-9a-f]*>?\]\s*)*(?P<guess>\? )?\(?(?::\w+:)?{SYMBOL}\)?"
    r"(?: \[[^\]]*\]| \([^)]*\)| +[\w./-]+:\d+| from \[.*| \(unreliable\)|\))*\s*$"
)
# x86-64 until 2.6.13: several on a line, in decimal. arm: who was called, without an offset.
_BRACED = re.compile(r"<[0-9a-f]{8,16}>\{(?::\w+:)?(\w+)\+\d+\}")
_FROM = re.compile(r"\[<[0-9a-f]{8,16}>\] \((\w+)\) from \[<[0-9a-f]{8,16}>\] \((\w+)")
_FROM_NOW = re.compile(rf" *([A-Za-z_][\w.]*) from {SYMBOL}")  # since 5.18
_PC = re.compile(
    r"(?:RIP: (?:0010:)?|RIP  \[|EIP: (?:0060:)?|EIP is at |ip is at |IP: |pc : |e?pc *: "
    r"|PC is at |NIP \[|EPC *: |Krnl PSW : |PC: |TPC: |IAOQ\[0\]: )(?P<rest>.*)"
)
_LINK = re.compile(rf"\s*(?:ra|lr) : {SYMBOL}|LR is at {SYMBOL.replace('<func>', '<lr>')}")
_WORK = re.compile(r"Workqueue: \S+ ([A-Za-z_][\w.]*)")
_LOW, _PAGE = re.compile(r"\b(?:address:?|at|addr|DAR:)\s+(?:0x)?([0-9a-fA-F]{8,16})\b"), 4096
_SECTION = re.compile(r"\s*<(?P<end>/)?(?P<name>IRQ|NMI|SOFTIRQ)>\s*$")
# Of a thread's interrupt: its own.
_OWNER = re.compile(rf"(?:INFO: )?Allocated in {SYMBOL}")
_HANDLERS, _HANDLER = (
    "handlers:",
    re.compile(
        r"\[<[0-9a-f]+>\] (?:irq_default_primary_handler(?: \[\w+\])? threaded \[<[0-9a-f]+>\] )?"
        r"\(?([A-Za-z_]\w*)"
    ),
)
_SYMBOL_IN = re.compile(SYMBOL)
_AT = re.compile(rf"at: (?:\[<[0-9a-f]+>\] )?{SYMBOL}")
_NAMED = re.compile(rf"\s*caller is {SYMBOL}|\s+preempt=.*\bworkfn=(?P<work>[\w.$]+)")
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
    r"|#PF|P[G4UM]D |PTE |Oops|Internal error|Stopper: |Stack:|Process |task:|NMI "
    r"|Sending NMI|note: |Kernel Offset"
    r"|EC = |SET = |EA = |FSC = |ISV = |SSE = |SF = |CM = |GCS = |Access size = |\[[0-9a-f]+\] pgd="
    r"|Mem abort|Data abort|user pgtable|swapper pgtable|ESR|FAR|Exception|Unable to handle|Last "
    r"|Dumping|Rebooting|Disabling lock|Showing|Thread overran|CPU \d|Task stack|Overflow stack"
    r"|PC is at|LR is at|pgd = |psr|Flags: |Control: |[Rr]egister |[Bb]acktrace|Function entered"
    r"|Exception stack|ip :|fp :|r\d+ ?:|NIP|LR|MSR|GPR|CFAR|DAR|DSISR|TRAP|XER|CTR|IRQMASK|SOFTE"
    r"|Faulting instruction|Instruction dump|CPU:|epc|EPC|Status|Cause|BadVA|PrId|\$ ?\d|Hi |Lo "
    r"|Krnl|Fault in |AS:|Last Breaking|TSTATE|[gloi]\d: |RPC|I\d: |Caller\[|Disabling|CPU: \d"
    r"|SMP NR_CPUS|NUMA\b|p[sS]eries|PowerNV|PowerMac|C[Hh][Rr][Pp]\b|due to oops"
    r"|EIP|EFLAGS|eax|esi|ds: |RSP |CR2|printing eip|\*pde|last sysfs|Pid: |Modules|PREEMPT|Comm: "
    r"|IP: |RIP|Cpu \d|Hardware|Fixing|Unable|invalid opcode|general protection|LE PAGE|BE PAGE"
    r"|(?:NON-)?RESUMABLE ERROR: |Current process id is|BAD KERNEL TRAP|PC: |SR: |d\d: "
    r"|Frame format|Pass this trace"
    # alpha, arc, xtensa, openrisc, microblaze, nios2
    r"|(?:pc|ra|ps|v0|t1?\d|s\d|a\d|pv|at|gp|sp) ?= |Trace:|Path: |\[?(?:ECR|EFA|BLINK|ERET|STAT)"
    r"|BLK: |LPS: |ip is at |psr : |unat: "
    r"|BTA: |a\d\d: |pc: |lbeg: |CPU #|msr=|ear=|ea = |CURRENT PROCESS|COMM=|TEXT=|HW Error context"
    r"|Deferred Exception context|\S+ \(pid \d+\): "
    r"|IDT: |LDTR: |TR: |TPC|\S+\(\d+\): Oops|PSW|IA[SO]Q|IIR|ISR|r\d\d-\d\d|sr\d|YZ",
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
    r"|backtrace|comm |hex dump|aops|anon flags|addr:|mapping:|vma->|file:|process |handlers:"
    r"|irq_event|kobject",
)
_BODY = re.compile("|".join(_BODY_STARTS))
_REGISTERS = re.compile(
    r"R[ISBDA][PXI]: |E[ISABCD][PXI]: |R\d\d?: |[FC]S: |CR\d: |DR\d: |PKRU|Code: |note: |$|\s"
    r"|Modules linked|Kernel Offset|Disabling|Fixing recursive|x\d+ ?:|pc :|lr :|sp :"
)


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


@dataclass
class _Report:
    """A report that is being read.

    phase: "registers" after the end of its trace, "panic" after the panic it ended in. quiet: the
    end of a report that is out already. died: its die() line has been seen. from_cut: begun by
    "cut here", its heading has not come. aftermath: so far only what a file system does about
    it. device: of that file system. first, latest: headings. headings: how many lines are such.
    covered: how many lines of the log it is. prefix: what stands in front of its lines, where
    that is not known otherwise; it is unsure then, and none, until a line follows that only a
    report has.
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
    link: str = ""
    work: str = ""
    owner: str = ""
    pc_nowhere: bool = False
    section: str = ""
    phase: str = ""
    quiet: bool = False
    ended: bool = False
    died: bool = False
    pc_seen: bool = False
    from_cut: bool = False
    aftermath: bool = False
    device: str = ""
    first: str = ""
    latest: str = ""
    headings: int = 1
    prefix: re.Pattern[str] | None = None
    unsure: bool = False
    deaf: bool = False
    covered: int = 1

    def head(self, rule: Rule, match: re.Match[str], message: str) -> None:
        """What "cut here" announced. WARN() may say first what looks like a heading of its own."""
        self.rule, self.match = rule, match
        self.from_cut = rule.type not in ("warning", "bug", "ubsan") and not rule.die
        if self.from_cut and (not self.preamble or _tells(message)):
            self.preamble = message

    def go_on(self, rule: Rule, match: re.Match[str], message: str) -> None:
        """Take in a further heading of the same event; the one that says more is kept."""
        self.died = self.died or rule.die
        self.headings += 1
        self.latest = message
        self.learn(message)
        self.caller = self.caller or match.groupdict().get("func") or ""
        says_more = rule.frame > self.rule.frame or self.aftermath
        if self.from_cut:
            self.head(rule, match, message)
        elif rule is self.rule and not AFTERMATH.search(message):
            self.match, self.aftermath = match, False
        elif rule.type == self.rule.type and says_more:
            self.rule, self.match, self.aftermath = rule, match, False
        elif self.rule.type == "warning":
            self.preamble = self.preamble or message
        elif rule.type == "warning" and self.rule.type == "other" and not self.rule.frame:
            # Words without a function: of the WARN() more is known.
            self.rule, self.match, self.preamble = rule, match, self.first

    def add(self, number: int, raw: str) -> None:
        """Keep a line as part of the report."""
        between = number - self.end
        self.covered += 1 + (between if between <= _BETWEEN else 0)
        self.end = number + 1
        if len(self.lines) < _REPORT_LINES:
            self.lines.append(raw)

    def unfinished(self, raw: str, message: str) -> bool:
        """Whether this is the rest of the heading before it, which ends with a mail's "="."""
        if not self.latest.endswith("=") or len(self.lines) >= _SHORT or self.rule is DUMPED:
            return False
        match = self.rule.pattern.match(_joined(self.latest, message, raw))
        if match is None:
            return False
        self.match, self.latest = match, match.string
        return True

    def learn(self, message: str) -> None:
        """Take from a line what the title will need."""
        # A panic's look at all CPUs (panic_print) is no part of what it follows from.
        self.deaf = self.deaf or (self.phase == "panic" and "NMI backtrace for cpu" in message)
        if self.deaf:
            return
        if match := _PC.match(message.lstrip()):
            self._learn_pc(match["rest"])
        elif not self.link and (match := _LINK.match(message)):
            self.link = match["func"] or match["lr"]
        elif not self.work and (match := _WORK.match(message)):
            self.work = match[1]
        elif "}" in message and (braced := _BRACED.findall(message)):
            self.frames += braced[: 64 - len(self.frames)]
        elif match := _FROM.match(message) or _FROM_NOW.match(message):
            self.frames += match.groups()[: 64 - len(self.frames)]
        elif message[:1] in _FRAME_STARTS or _BARE_FRAME.match(message):
            if match := _FRAME.match(message):
                self._learn_frame(match)
            elif match := _SECTION.match(message):
                self.section = "" if match["end"] else match["name"]
            elif self.section == _HANDLERS and (match := _HANDLER.match(message)):
                self.caller = self.caller or match[1]
        if "at: " in message and self._wants_lock(message) and (match := _AT.search(message)):
            self.lock_at = match["func"]
        elif not self.owner and (match := _OWNER.match(message)):
            self.owner = match["func"]
        elif message.startswith(_HANDLERS):
            self.section = _HANDLERS
        elif match := _NAMED.match(message):
            self.caller = match["func"] or match["work"]
        if not self.access:
            self.access = _access(message)

    def _wants_lock(self, message: str) -> bool:
        return not self.lock_at or (self.rule.type == "rcu-usage" and "rcu_read_lock" in message)

    def _learn_pc(self, rest: str) -> None:
        if "[inline]" in rest:
            return  # the function that it was inlined into follows
        symbol = _SYMBOL_IN.search(rest)
        self.pc_nowhere = self.pc_nowhere or not (symbol or self.pc_seen)
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


def _same(piece: str) -> str:
    """A piece of what is in front of a line, in front of another one."""
    if piece.isdigit():
        return r"\d+"
    return r"\s+" if piece.isspace() else re.escape(piece)


def _joined(first: str, message: str, raw: str) -> str:
    """A line that a mail has broken with "=": the offset of a function is no mark of a mail."""
    return first[:-1] + (raw if raw[:1] == "+" else message)


def _access(message: str) -> str:
    if _READ.match(message):
        return "read"
    if _WRITE.match(message):
        return "write"
    return "execute" if _EXEC.match(message) else ""


@dataclass(frozen=True)
class _Begun:
    """What may be the first part of a heading that a mail program has broken, and its lines."""

    caller: str
    message: str
    lines: list[str]


class _Words:
    """Where in a block the next of the search words begins; what is looked through at once is
    bounded, and so is what is found there.
    """

    def __init__(self, block: bytes) -> None:
        self._block, self._flat = block, memoryview(block.replace(b"\n", b" "))
        self._end = len(block) - 1  # what goes on behind it is not here
        self._starts: deque[int] = deque()
        self._looked = 0  # all that begin before it are known

    def after(self, position: int) -> int:
        """The first place at or after position (which never goes back), or -1."""
        while True:
            while self._starts and self._starts[0] < position:
                self._starts.popleft()
            if self._starts:
                return self._starts[0]
            begin = max(position, self._looked)
            if begin >= self._end:
                return -1
            self._looked = begin + _WINDOW
            window = self._flat[begin : min(self._looked + _LONGEST, self._end)]
            found = {start for start, _ in _places(window, self._block, begin)}
            self._starts.extend(sorted(start for start in found if start < self._looked))


class _Running:
    """From which line on a log without times has shown a kernel that runs: a banner behind it is
    that of another boot. A few lines may come before a boot's own.
    """

    def __init__(self) -> None:
        self.since = 1 << 62
        self._seen = 0

    def look(self, block: bytes, line: int) -> None:
        """At whole lines, of which the first has this number."""
        if self._seen >= _LINES_OF_A_BOOT:
            return
        for hit in RUNNING.finditer(block):
            stopped = hit["stopped"] is not None
            self._seen += _LINES_OF_A_BOOT if stopped else 1
            if self._seen >= _LINES_OF_A_BOOT:
                self.since = line + block.count(b"\n", 0, hit.start())
                return


class Scanner:
    """Feed it a console as it comes; it hands out each report when that has ended.

    Chunks may be cut anywhere. Memory is bounded whatever comes; the time is linear.
    """

    def __init__(self) -> None:
        self._partial = b""
        self._line = 0
        self._open: dict[str, _Report] = {}
        self._stamped_from: int | None = None
        self._stamped_first: int | None = None
        self._banner, self._running = False, _Running()
        self._next_boots: deque[int] = deque(maxlen=_NEXT_BOOTS)
        self._titles: dict[str, int] = {}
        self._last_oops = -(10**9)
        self._named = -_REPORT_SPAN  # an oops that says which kernel it is of
        self._types: dict[str, int] = {}  # the line of the last heading of each
        self._headed = -(10**9)  # the line of the last heading
        self._aborted = -(10**9)  # when a file system has given up a transaction
        self._devices: dict[str, int] = {}
        self._any = False
        self._begun: _Begun | None = None
        self._above, self._looked, self._at = [b""], True, (b"", 0)
        self._covered: Counter[str] = Counter()
        self._ended = -(10**9)  # the line behind the last report
        self._out: list[Splat] = []

    def feed(self, chunk: bytes) -> list[Splat]:
        """Read on; the reports that have ended by now. Bytes that are 0 are passed over: a dead
        line sends them, a file system that has lost something has them in its place.
        """
        chunk = chunk.replace(b"\0", b"")
        data = self._partial + chunk if self._partial else chunk
        cut = data.rfind(b"\n") + 1
        self._partial = data[cut:]
        if len(self._partial) > _PARTIAL_MAX:
            self._partial = shortened(self._partial)
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

    def ended_here(self) -> list[Splat]:
        """What finish() would give now; this one can be fed on as if it had not been asked."""
        return copy.deepcopy(self).finish()

    def so_far(self) -> list[Splat]:
        """What finish() would give now, without ending anything: reports that are still open."""
        those = (
            one
            for one in self._open.values()
            if not (one.quiet or one.unsure or (one.rule.prelude and not one.died))
        )
        return [_splat(report, cut=True) for report in those]

    def lines_of(self, types: Collection[str]) -> int:
        """How many lines are those of reports of these types, and few others' between them."""
        still_open = (one.covered for one in self._open.values() if one.rule.type in types)
        return sum(self._covered[one] for one in types) + sum(still_open)

    def settled(self) -> int:
        """The first line that a report to come may begin with: those before it are all out."""
        return min((report.start for report in self._open.values()), default=self._line)

    def _take_out(self) -> list[Splat]:
        out, self._out = self._out, []
        return out

    # -- lines ---------------------------------------------------------------------------------

    def _block(self, block: bytes) -> None:
        """Whole lines. While no report is open, only lines with a trigger are looked at."""
        if self._stamped_from is None:
            self._look_for_stamps(block)
        self._running.look(block, self._line)
        line, at = self._line, 0
        for hit in _NEXT_BOOT.finditer(block) if b"-- " in block else ():
            line += block.count(b"\n", at, hit.start())
            at = hit.start()
            self._next_boots.append(line)
        if self._looked and not self._open and not self._begun and self._line:
            self._look_across(block)
        self._lines(block)
        self._above = self._before(block, len(block), _ABOVE)

    def _look_across(self, block: bytes) -> None:
        """Whether a search word begins in the line above and ends in the first of these."""
        first = block[: block.index(b"\n")][:LINE_MAX]
        above = self._above[-1]
        if _any_word(above):
            return
        both = above + b" " + first
        if any(start <= len(above) < end for start, end in _places(both, both)):
            self._begin(above)

    def _begin(self, line: bytes) -> None:
        """A heading whose first words end in the next line; it has to be the kernel's."""
        raw = line.decode(errors="replace").rstrip("\r")
        stamped, caller, message = split(raw)
        if stamped or (self._stamped_from is None and not by_a_program(raw)):
            self._begun = _Begun(caller, message, [raw])

    def _lines(self, block: bytes) -> None:
        position, words = 0, _Words(block)
        while position < len(block):
            self._looked = looked_for = not self._open and not self._begun
            if looked_for:
                hit = words.after(position)
                if hit < 0:
                    self._line += block.count(b"\n", position)
                    self._looked = True
                    return
                start = max(block.rfind(b"\n", position, hit) + 1, position)
                self._line += block.count(b"\n", position, start)
                position = start
            end = block.index(b"\n", position)
            line = looked_at(block[position:end])
            self._at = block, position
            self._take(line)
            if looked_for and not self._open and not self._begun and not _any_word(line):
                self._begin(line)
            self._line += 1
            position = end + 1

    def _before(self, block: bytes, position: int, most: int) -> list[bytes]:
        """The last lines before a place in a block, also of the block before: their ends."""
        start = position
        for _ in range(most):
            start = block.rfind(b"\n", 0, max(0, start - 1)) + 1
        own = block[start:position].split(b"\n")[:-1]
        lines = own if start else [*self._above, *own]
        return [line[-LINE_MAX:] for line in lines[-most:]]

    def _lines_above(self, most: int) -> list[tuple[int, str]]:
        """Of the line that is looked at, with their numbers; of others than the kernel none where
        it stamps its own.
        """
        lines = self._before(*self._at, _ABOVE)
        numbered = enumerate(lines, self._line - len(lines))
        texts = [(number, line.decode(errors="replace").rstrip("\r")) for number, line in numbered]
        ours = self._stamped_from is not None and self._line > self._stamped_from
        return [one for one in texts if not ours or split(one[1])[0]][-most:]

    def _look_for_stamps(self, block: bytes) -> None:
        """Whether the kernel stamps its lines here. One behind a shell's prompt is not enough to
        call what has none a user's: who took the stamps away has left it there.
        """
        for stamp in STAMPED.finditer(block):
            line = self._line + block.count(b"\n", 0, stamp.start())
            if self._stamped_first is None:
                self._stamped_first = line
                # The banner comes in a boot's first moment: this is from before the log's begin.
                moment = float(stamp[0].strip(b"[] "))
                began = _WRAPS_S if _WRAPS_S - 1 < moment < _WRAPS_S + _FIRST_MOMENT_S else 0.0
                self._banner = moment - began > _FIRST_MOMENT_S
            if block[max(0, stamp.start() - 2) : stamp.start()] in (b"# ", b"$ "):
                continue
            self._stamped_from = line
            return

    def _take(self, line: bytes) -> None:
        raw = line.decode(errors="replace").rstrip("\r")
        stamped, caller, message = split(raw)
        if message.startswith(_ANNOUNCED):
            return
        stamped = stamped or self._is_marked_above()
        begun, self._begun = self._begun, None
        if begun and not stamped and self._rest(begun, message, raw):
            return
        known = self._open.get(caller)
        if known and known.end == self._line and not stamped and known.unfinished(raw, message):
            known.add(self._line, raw)
            return
        if known and known.prefix and not _is_heading(message):
            message = known.prefix.sub("", message, count=1)
        known_by_stamps = self._stamped_from is not None and self._line > self._stamped_from
        if not stamped and (known_by_stamps or by_a_program(raw)):
            if _READ_OUT.match(message):
                self._heading(_READER, message, raw)
            elif _READER in self._open:
                self._body(_READER, message, raw)
            else:
                self._torn(message, raw)
            self._age()
            return  # a user's text on a console where the kernel stamps its own
        if _any_word(line):
            if self._heading(caller, message, raw):
                if self._is_vague(caller):
                    self._begun = _Begun(caller, message, [raw])
                return
            behind = _BEHIND.match(message)
            if behind and self._heading(caller, message[behind.end() :], raw):
                return
            if not self._open and (
                self._inside(caller, message, raw, stamped) or self._dumped(caller, message, raw)
            ):
                return
            self._begun = _Begun(caller, message, [raw])
        for one, words in before(raw, message):
            if self._heading(one, words, raw):
                return
        if self._open:
            self._body(caller, message, raw)
            self._age()

    def _is_marked_above(self) -> bool:
        """Whether a mail program has broken this line right behind the recorder's mark."""
        block, position = self._at
        if position:  # without a list of what most lines do not have
            above = block[block.rfind(b"\n", 0, position - 1) + 1 : position - 1]
        else:
            above = self._above[-1]
        if b" kernel:" not in above:
            return False
        mark = _ONLY_MARK.match(above[-LINE_MAX:].decode(errors="replace"))
        return bool(mark and (mark["stamp"] or self._stamped_from is None))

    def _inside(self, caller: str, message: str, raw: str, stamped: bool) -> bool:
        """Open a report at a heading behind a prefix that is not known: one that the lines above
        have as well, or an unsure one.
        """
        found = _possible(message)
        if message.startswith("---["):
            return self._only_end(caller, message, raw)
        # Nobody writes between the kernel's stamp and its words.
        if not stamped and self._recorder(caller, message, raw, found):
            return True
        rules = [rule for rule in found if rule is not RULES[-1] and _has_body(rule)]
        if not rules:
            return False
        marks = _MARK.finditer(message, 0, _PREFIX_MAX)
        ends = [mark.end() for mark in itertools.islice(marks, _MARKS)]
        # Words that nobody else says, right behind those of a program.
        for end in (*ends, message.find("kernel BUG at ", 1, _PREFIX_MAX)):
            bare = message[end:] if end > 0 else ""
            for rule in rules:
                if match := rule.pattern.match(bare):
                    self._start(caller, rule, match, raw, prefix=lines_like(message[:end]))
                    return True
        return False

    def _recorder(self, caller: str, message: str, raw: str, rules: list[Rule]) -> bool:
        """Open a report behind what somebody puts in front of every line: a column, a time or a
        key, and but for numbers the same in the lines above.
        """
        if not rules and "cut here" not in message:
            return False
        others: list[str] = []
        for mark in itertools.islice(_BREAK.finditer(message, 0, _PREFIX_MAX), _MARKS):
            head, bare = message[: mark.end()], message[mark.end() :]
            if not _COLUMN.search(head):
                continue
            others = others or [split(line)[2] for _, line in self._lines_above(_KIN)]
            if len(others) < _KIN:
                return False
            like = re.compile("^" + "".join(map(_same, re.findall(r"\d+|\s+|.", head))))
            if not all(map(like.match, others)):
                return False  # nor has a longer one
            if self._behind(caller, bare, raw, rules):
                report = self._open.get(caller)
                if report and report.start == self._line:
                    report.prefix = like
                return True
        return False

    def _behind(self, caller: str, bare: str, raw: str, rules: list[Rule]) -> bool:
        """Whether what is behind a prefix is a heading, which is taken in then."""
        if CUT.pattern.match(bare):
            self._cut_here(caller, raw)
            return True
        for rule in rules:
            if rule is not RULES[-1] and not rule.shy and (match := rule.pattern.match(bare)):
                return self._opened(caller, rule, match, bare, raw)
        return False

    def _only_end(self, caller: str, message: str, raw: str) -> bool:
        """Whether this is the end of a panic of which the log has nothing else."""
        end = _END_OF.match(message)
        if not end or self._line - self._headed < _REPORT_SPAN:
            return False
        return self._heading(caller, end[1], raw)

    def _dumped(self, caller: str, message: str, raw: str) -> bool:
        """Open a report, an unsure one, at a stack that the line above has called for."""
        if not DUMPED.pattern.match(message):
            return False
        read = [(one, split(one[1])) for one in self._lines_above(_ABOVE)]
        # Others speak between.
        read = [pair for pair in read if not caller or pair[1][1] in ("", caller)]
        lines = [one for one, _ in read]
        said = [message.strip() for _, (_, _, message) in read]
        while said and (not said[-1] or said[-1].startswith("Modules linked in")):
            said.pop()  # print_modules() comes between the words and their stack
        told = _SAID.match(said[-1]) if said else None
        near = _SOON if said and GIVEN_UP.search(said[-1]) else _BETWEEN
        # What has asked for it may be lines above, behind others' and in a mail's pieces.
        if not told or any(map(ASKED_FOR.match, said)) or self._line - self._ended < near:
            return False
        lines = lines[len(said) - 1 :]
        self._start(caller, DUMPED, told, lines[0][1])
        report = self._open[caller]
        report.start = lines[0][0]
        report.lines = [*(line for _, line in lines), raw]
        return True

    def _rest(self, begun: _Begun, message: str, raw: str) -> bool:
        """Whether this is the rest of a heading that a mail program has broken."""
        first, caller = begun.message.rstrip(), begun.caller
        # With "=" it says that the line goes on.
        whole = _joined(first, message, raw) if first[-1:] == "=" else f"{first} {message.lstrip()}"
        if _is_heading(message, sure=True):
            return False
        if not _is_heading(whole, exact=True):
            if len(begun.lines) < _BEGUN - 1:
                self._begun = _Begun(caller, whole, [*begun.lines, raw])
            return False
        self._line -= len(begun.lines)
        if self._is_vague(caller):
            del self._open[caller]
        self._heading(caller, whole, begun.lines[0])
        self._line += len(begun.lines)
        if report := self._open.get(caller):
            for line in (*begun.lines[1:], raw):
                report.add(self._line, line)
        return True

    def _is_vague(self, caller: str) -> bool:
        """Whether this line has begun a report that says nothing but BUG, or panic."""
        report = self._open.get(caller)
        return report is not None and report.rule not in _EXACT and report.start == self._line

    def _torn(self, message: str, raw: str) -> None:
        """The rest of a line that a mail program has broken in two: the function of a heading, or
        who has taken a lock.
        """
        for report in self._open.values():
            if report.end == self._line and report.unfinished(raw, message):
                report.add(self._line, raw)
                continue
            torn = (
                len(report.lines) < _SHORT
                and report.end == self._line
                and _TORN.search(report.lines[-1])
            )
            lock = report.end == self._line and _TORN_LOCK.search(report.lines[-1])
            if not (torn or lock) or not (match := _FRAME.match(_FILE_LINE.sub("", message))):
                continue
            report.add(self._line, raw)
            if torn:
                report.caller = match["func"]
            else:
                report.lock_at = report.lock_at or match["func"]

    def _age(self) -> None:
        """Close what has been open for too long."""
        long_ago = self._line - _REPORT_SPAN
        for key in [key for key, report in self._open.items() if report.start < long_ago]:
            self._close(key)

    # -- headings ------------------------------------------------------------------------------

    def _heading(self, caller: str, message: str, raw: str) -> bool:
        """Open or continue a report if this line is the head of one."""
        if CUT.pattern.match(message):
            self._cut_here(caller, raw)
            return True
        if BANNER.pattern.match(message):
            self._linux_banner(raw)
            return True
        bare = message.lstrip(" \t")
        for rule in _possible(bare):
            if match := rule.pattern.match(bare):
                if len(bare) < len(message) and rule is RULES[-1]:
                    return False  # words of somebody's, set in
                if rule.aside and (self._open or self._line - self._ended < _BEGUN):
                    return False
                return self._opened(caller, rule, match, bare, raw)
        return False

    def _cut_here(self, caller: str, raw: str) -> None:
        report = self._open.get(caller)
        begun = report and report.rule.said and len(report.lines) < _BEGUN
        if report and (begun or report.rule.to_bug) and not report.died:
            report.add(self._line, raw)  # usercopy and list corruption go on to a BUG()
            return
        self._start(caller, CUT, None, raw)

    def _linux_banner(self, raw: str) -> None:
        if self._line - self._named < _SOON:
            return
        told = any(0 < self._line - line <= _SOON for line in self._next_boots)
        if not told and (self._banner or self._any or self._line > self._running.since):
            for key in list(self._open):
                self._close(key, cut=True)
            self._start("", BANNER, None, raw)
            self._close("")
        self._banner = True

    def _opened(
        self, caller: str, rule: Rule, match: re.Match[str], message: str, raw: str
    ) -> bool:
        report = self._open.get(caller)
        if rule.type == "unregister-netdevice" and self._is_told(f"net {match['device']}"):
            return True  # again, every ten seconds
        if rule.type == "filesystem" and not report and self._is_aftermath(message):
            return True
        if rule.ends == "panic" and self._is_consequence(rule, message, report):
            self._absorb_panic(caller, rule, report, raw)
        elif report and _continues(report, rule, match, message):
            report.add(self._line, raw)
            report.go_on(rule, match, message)
            if report.unsure and rule.die:
                self._count(report)
        else:
            self._start(caller, rule, match, raw)
            self._open[caller].died = rule.die
            if rule.type == "filesystem":
                self._open[caller].aftermath = bool(AFTERMATH.search(message))
                self._open[caller].device = device(message)
        return True

    def _is_aftermath(self, message: str) -> bool:
        """Whether a file system still does something about what is out already."""
        if "BTRFS" in message and self._line - self._aborted < _SOON:
            return True
        return self._is_told(device(message)) and bool(AFTERMATH.search(message))

    def _is_told(self, name: str) -> bool:
        """Whether something was said of this device just before; it is from here on."""
        known = self._line - self._devices.get(name, -_REPORT_SPAN) < _REPORT_LINES
        if len(self._devices) < _TITLES_MAX or name in self._devices:
            self._devices[name] = self._line
        return known

    def _is_consequence(self, rule: Rule, message: str, report: _Report | None) -> bool:
        if rule.type in _PANICS:  # those that follow from a report of their own type
            return self._line - self._types.get(rule.type, -_REPORT_SPAN) < _REPORT_LINES
        if rule.type == "no-root":
            return report is not None and report.rule.patient
        if KILLED_INIT.match(message):
            near = self._line - self._last_oops < _DEATH
            return near or (report is not None and report.rule.ends == "oops")
        if _AIEE.match(message) and not self._follows_an_oops():
            return False
        soon = self._line - self._headed < _REPORT_SPAN
        return bool(CONSEQUENCE.match(message)) and (soon or bool(self._open))

    def _follows_an_oops(self) -> bool:
        """Whether something is told, or was just before, that a kernel thread or a task dies of."""
        near = self._line - self._last_oops < _REPORT_SPAN
        return near or any(one.rule.type != "warning" for one in self._open.values())

    def _absorb_panic(self, caller: str, rule: Rule, report: _Report | None, raw: str) -> None:
        report = report or next(iter(self._open.values()), None)
        if report:
            report.add(self._line, raw)
            report.phase, report.ended, report.strangers = "panic", True, 0
            return
        self._start(caller, rule, None, raw)  # its report is out already: swallow the rest
        self._open[caller].quiet = True

    def _start(
        self,
        caller: str,
        rule: Rule,
        match: re.Match[str] | None,
        raw: str,
        prefix: re.Pattern[str] | None = None,
    ) -> None:
        if caller in self._open:
            self._close(caller, cut=True)
        if len(self._open) >= _OPEN_MAX:
            self._close(min(self._open, key=lambda key: self._open[key].start))
        report = _Report(rule, self._line, self._line + 1, match, [raw], from_cut=rule is CUT)
        if rule.trigger == _SAYS_ITS_NAME:
            self._named = self._line
        report.first = report.latest = match.string if match else ""
        # Any words behind BUG may be a program's, written where the kernel's own go.
        report.prefix = prefix
        report.unsure = prefix is not None or rule in (RULES[-1], DUMPED) or rule.shy
        self._open[caller] = report
        if not report.unsure:
            self._count(report)

    def _count(self, report: _Report) -> None:
        """It is one; what comes later may follow from it."""
        report.unsure = False
        if report.rule.prelude:
            return  # what comes may be the very thing
        self._types[report.rule.type] = self._headed = report.start
        self._any = self._any or report.rule is not CUT

    # -- bodies --------------------------------------------------------------------------------

    def _body(self, caller: str, message: str, raw: str) -> None:
        if caller not in self._open and caller and self._is_headless():
            self._open[caller] = self._open.pop("")
        report = self._open.get(caller)
        if report is None:
            key = next((key for key, one in self._open.items() if one.rule.all_cpus), None)
            if key is None or not _BODY.match(message) or _KTAP.match(message):
                return
            self._open[key].add(self._line, raw)
            self._open[key].learn(message)
            return
        if report.rule is CUT and len(report.lines) < 30 and not _END_TRACE.match(message):
            # Another CPU's words may come between.
            if not report.preamble or (_tells(message) and not _tells(report.preamble)):
                report.preamble = message
            report.add(self._line, raw)
            return
        self._known(caller, report, message, raw)

    def _is_headless(self) -> bool:
        """Whether of the heading before this line it has been cut off who printed it."""
        report = self._open.get("")
        return report is not None and len(report.lines) == 1 and report.end == self._line

    def _known(self, key: str, report: _Report, message: str, raw: str) -> None:
        """A line of a report's own context: part of it, its end, or a stranger."""
        if len(report.lines) < _SHORT and self._is_told_what(report, message, raw):
            return
        if not report.preamble and len(report.lines) <= 4 and _ABORTED.match(message):
            report.preamble = message.upper()  # a warning's words behind it
        if report.rule.all_cpus and _STALL_ENDED.match(message):
            del self._open[key]
            return
        pattern = _REGISTERS if report.phase == "registers" else _BODY
        own = (pattern, _END_TRACE, _END_PANIC, _BARE_FRAME, *((_SURE,) if report.unsure else ()))
        if _KTAP.match(message) or not any(one.match(message) for one in own):
            report.strangers += 1
            most = _PATIENCE if report.rule.patient and not report.ended else _STRANGERS
            if report.strangers >= (1 if report.phase == "registers" else most):
                self._close(key)
            return
        report.strangers = 0
        report.add(self._line, raw)
        report.learn(message)
        if report.rule is DUMPED and _OF_A_PROGRAM.search(message):
            del self._open[key]
            return
        sure = _TRACE if report.rule is DUMPED else _SURE
        if report.unsure and sure.match(message):
            self._count(report)
        self._maybe_end(key, report, message)

    def _is_told_what(self, report: _Report, message: str, raw: str) -> bool:
        """Whether this says what a kernel was unable to handle."""
        if report.rule is not RULES[-1] or not _UNABLE.match(report.first):
            return False
        whole = f"{report.first.rstrip()} {message}"
        for rule in _possible(whole):
            if rule is not RULES[-1] and (match := rule.pattern.match(whole)):
                report.rule, report.match, report.latest = rule, match, whole
                report.add(self._line, raw)
                self._count(report)
                return True
        return False

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
        if report.unsure:
            return
        self._covered[report.rule.type] += report.covered
        self._ended = report.end
        if report.rule.ends == "oops":
            self._last_oops = report.end
        if report.preamble.startswith("BTRFS"):
            self._aborted = report.end
        if report.quiet or (report.rule.prelude and not report.died):
            return
        self._any = self._any or report.rule is not CUT
        splat = _splat(report, cut=cut)
        dying = report.rule.type == "atomic-sleep" and splat.frame in _DYING
        if dying and report.start - self._last_oops < _DEATH:
            return  # of a task that ends where it must not sleep, because of the oops before
        seen = self._titles.get(splat.title, 0)
        if len(self._titles) < _TITLES_MAX or seen:
            self._titles[splat.title] = seen + 1
        if seen >= _TEXTS_MAX:
            splat = Splat(
                splat.type, splat.title, splat.start, splat.end, splat.frame, "", splat.corrupted
            )
        self._out.append(splat)


def _is_heading(message: str, *, exact: bool = False, sure: bool = False) -> bool:
    """exact: by a rule that does not take any words for one. sure: by one that no program's words
    are like.
    """
    bare = message.lstrip(" \t")
    return any(
        rule.pattern.match(bare)
        for rule in _possible(bare)
        if (not exact or rule in _EXACT) and not (sure and rule.shy)
    )


def _has_body(rule: Rule) -> bool:
    """Whether lines follow its heading that only a report has."""
    one_line = rule.type == "filesystem" and "nternal error" not in rule.pattern.pattern
    return not one_line and (rule.frame or rule.ends == "panic")


def _is_once_more(rule: Rule, match: re.Match[str], report: _Report) -> bool:
    """Whether a second heading by the same rule is of the same event."""
    before = report.match
    if rule.type == "workqueue-lockup":  # a line for each pool, and again while it lasts
        again = any(match["pool"] in line for line in report.lines)
        return again or (not report.strangers and len(report.lines) <= 2 * report.headings)
    if rule.type == "rcu-stall" and report.headings == len(report.lines):
        return True  # said again and again, and nothing else
    if rule.type == "rcu-stall" and before:  # two CPUs tell of one grace period
        periods = [_PERIOD.search(one.string) for one in (match, before)]
        return all(periods) and len({one and one[1] for one in periods}) == 1
    counters = rule.type == "bad-page" and not rule.frame  # a line for each of a process
    if rule.ends == "rule":  # a line for each function that was inlined, which a mail may break
        others = [line for line in report.lines[1:] if not rule.pattern.search(line)]
        return all(_INLINED.search(line) for line in others)
    if rule.trigger == "Kernel unaligned access at TPC" or counters:
        return report.headings == len(report.lines)
    if rule.type == "warning" and rule.ends == "trace" and before:
        same = match["file"] == before["file"]
        return same and len(report.lines) <= 6 and not report.pc_seen
    return rule.type == "double-fault"  # of i386, in two lines


def _continues(report: _Report, rule: Rule, match: re.Match[str], message: str) -> bool:
    """Whether this heading is a further line of the open report, not one of its own."""
    if report.from_cut:
        return True
    first = len(report.lines) <= 4
    if message in (report.first, report.latest) and len(report.lines) <= 6 and not report.frames:
        return not any(_TRACE.match(split(line)[2]) for line in report.lines)  # recorded twice
    if rule.type == "slab" and report.rule.type.startswith("kasan") and "kasan: " in message:
        return True  # which object it is (< 4.6)
    if rule.type == report.rule.type == "slab" and message.startswith("slab error in check_poison"):
        return len(report.lines) <= 12  # who noticed it (< 2.6.4)
    if first and report.rule.trigger == "VERIFY" and rule.trigger == "PANIC at ":
        return True
    if rule is report.rule and _is_once_more(rule, match, report):
        return True
    twofold = ("rcu-usage", "memory-leak")
    if first and rule is not report.rule and rule.type == report.rule.type in twofold:
        return True  # a second line of the same heading
    if first and rule.type == "warning" and report.rule.said:
        return True  # the WARN() whose message it is
    if first and report.rule.type == "warning" and rule.said:
        return True  # its message, which comes after it where warnings are no traps
    if rule.type == "filesystem" and report.preamble.startswith("BTRFS") and "BTRFS" in message:
        return True  # what comes of the transaction that was aborted
    if rule.type == report.rule.type == "filesystem" and device(message) == report.device:
        alike = not rule.frame or rule.trigger.startswith("XFS") or rule.trigger == "nternal error"
        if rule is report.rule and report.match:
            functions = [one.groupdict().get("func") for one in (match, report.match)]
            alike = alike or functions[0] == functions[1] is not None
        return report.aftermath or bool(AFTERMATH.search(message)) or alike
    if rule.trigger == "Vector: ":  # the debugger, after the same
        return report.rule.ends == "oops"
    if rule.die:  # die() after what has already said why
        return report.rule.ends == "oops" and not report.died
    return rule.type == "bug" and report.rule.to_bug and not report.died


# -- titles --------------------------------------------------------------------------------------


def _splat(report: _Report, *, cut: bool) -> Splat:
    """The finished value; cut: the log or another report came before this one's own end."""
    type, title = report.rule.type, report.rule.title
    if report.rule is CUT and report.preamble and not _BODY.match(report.preamble):
        type, title = "warning", "WARNING{f}"  # BUG() says nothing before its heading
    if type == "warning" and report.preamble:
        type, title = _warn_kind(report.preamble, type, title)
    low = _LOW.search("\n".join(report.lines[:_HEAD])) if type == "page-fault" else None
    if low and int(low[1], 16) < _PAGE:
        type, title = "null-deref", "BUG: kernel NULL pointer dereference{access}{f}"
    frame = _culprit(report)
    lone = report.rule.frame and not frame and len(report.lines) < 2
    unfinished = cut and bool(report.rule.ends) and report.rule.ends != "panic"
    corrupted = report.rule is CUT or lone or (unfinished and not report.ended)
    text = "\n".join(report.lines)
    return Splat(
        type, _title(title, report, frame), report.start, report.end, frame, text, corrupted
    )


def _tells(message: str) -> bool:
    return any(pattern.match(message) for pattern, _, _ in WARN_MESSAGES)


def _warn_kind(message: str, type: str, title: str) -> tuple[str, str]:
    for pattern, exact, words in WARN_MESSAGES:
        if pattern.match(message):
            return exact, words
    return type, title


def _culprit(report: _Report) -> str:
    """The first function that is to blame and not a helper. When all are helpers: the one that the
    report names, else whose work it is, else the helper that called all the others.
    """
    if not report.rule.frame:
        return ""
    groups = report.match.groupdict() if report.match else {}
    named = [report.lock_at] if report.rule.at else []
    named += [groups.get("func") or "", groups.get("bare") or "", report.caller]
    if report.rule.named:
        return next((function(name) for name in named if name), "")
    named += [report.pc]
    named += [report.link] if report.pc_nowhere and not report.pc else []
    inside = report.lock_at if report.rule.type in ("rcu-usage", "atomic-sleep") else ""
    first = [function(name) for name in named if name]
    frames = [function(name) for name in report.frames]
    last = [function(name) for name in (report.owner, report.guess, inside) if name]
    for name in (*first, *frames, *last):
        core = report.rule.core and DRIVER_CORE.fullmatch(name)
        if not core and not HELPERS.fullmatch(name):
            return name
    called = [name for name in frames if not ENTRIES.fullmatch(name)]
    work = [function(report.work)] * bool(report.work)
    if report.rule.said or report.rule.type == "warning":
        first = work + first  # what is named has been the check
    return next(iter((*first, *work, *called[-1:], *frames, *last)), "")


def _title(template: str, report: _Report, frame: str) -> str:
    groups = report.match.groupdict() if report.match else {}
    plain = _without_numbers if report.rule is DUMPED else _plain
    values = {name: plain(value or "") for name, value in groups.items()}
    if other := values.get("other"):
        values["other"] = f" / {function(other)}"
    values["f"] = f" in {frame}" if frame else ""
    values["access"] = f" {report.access}" if report.access else ""
    return " ".join(template.format_map(values).split()).replace(" :", ":")


_ADDRESS = re.compile(r"\b(?:0x)?[0-9a-f]{8,16}\b|\b0x[0-9a-f]+\b")
_PLACE = re.compile(r" at \S+:\d+\b|\w*[=:] *(?=$|[ ,.)])|\([\d, ]*\)|\[[^\]]*\]")
_NUMBER = re.compile(r"(?<![\w-])\d+(?![\w])")


def _plain(text: str) -> str:
    """Words without addresses, places and numbers: two occurrences of one bug read the same."""
    text = _PLACE.sub("", _ADDRESS.sub("", text))
    return " ".join(_NUMBER.sub("N", text).split()).strip(" :,;.!=-")[:120]


def _without_numbers(text: str) -> str:
    """Words of any kind: what is before a colon may be all that they say."""
    return " ".join(_NUMBER.sub("N", _ADDRESS.sub("", text)).split())[:120]


def titles(splats: Iterable[Splat]) -> list[str]:
    """The distinct titles, in the order they came."""
    return list(dict.fromkeys(splat.title for splat in splats))
