"""How a line of a console is read: who printed it, and what stands in front of the message."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterator

LINE_MAX = 4096  # bytes of a line that are looked at
STAMP_MAX = 64  # bytes that a stamp never has: what a cut may have left of one

# kernel/printk/printk.c: "<6>", the time, CONFIG_PRINTK_CALLER's thread or CPU. "]" is another sign
# on a mainframe's 3270 console: EBCDIC's code pages 037 and 1047 differ in the brackets.
_STAMP = re.compile(
    r"\[ {0,12}(?P<moment>\d{1,12}\.\d{6}) ?[\]\xa8\ufffd](?: ?\[ *(?P<caller>[TC]\d+)\])? ?",
    re.ASCII,
)
STAMPED = re.compile(rb"\[ {0,12}\d{1,12}\.\d{6} ?\]")
# In front of one, with console_msg_format=syslog and by dmesg -r: facility and level in a number;
# in words by dmesg -x. printk.c lets nobody who writes to /dev/kmsg have the kernel's own, which is
# 0 (and its levels 0 to 7): another one is that of a program.
_PROGRAMS = r"(?:[89]|[1-9]\d{1,2})"
_OTHERS = r"(?:user|mail|daemon|auth|authpriv|syslog|lpr|news|uucp|cron|ftp|local\d) *:"
_BY_A_PROGRAM = re.compile(
    rf"(?:<{_PROGRAMS}>|{_OTHERS}(?:emerg|alert|crit|err|warn|notice|info|debug) *: ?)$"
)
_BEGINS_LIKE_THAT = re.compile(rf"{_PROGRAMS},\d|{_OTHERS}")
_LONGEST_MARK = 20
_BY_KERNEL = re.compile(r"<[0-7]>$|kern *:[a-z]{3,6} *: ?$")
# So do /dev/kmsg itself and netconsole's long form, and either without times; but a log that was
# sent on as a program's may be the kernel's all the same.
_UNSTAMPED_BY_A_PROGRAM = re.compile(
    rf"{_PROGRAMS},\d+,\d+,[^,;\s]{{1,40}}(?:,[^;\s]{{1,80}})?;|<{_PROGRAMS}>(?!.{{0,120}}kernel: )"
)
# Behind a stamp: a level, the journal's monotonic form, which CPU and thread with some vendors.
_LEVEL = re.compile(
    r"<\d+>|\[\d{1,2}: {0,15}[^\]\n]{1,24}?: *\d{1,7}\] ?"
    r"|(?:[\w.-]{1,64} )?kernel: | {0,2}-?\(\d\)\[\d{1,8}:[^\]]{1,40}\] ?"
    r"|(?:EMERG|ALERT|CRIT|ERR|ERROR|WARN|WARNING|NOTICE|INFO|DEBUG) KERN "
    r"|\d{3}: (?=\S)|c\d{1,3} {1,7}\d{1,7} |c\d{1,2} (?=\S)|\[pid:\d+,cpu\d+,[^\]]{1,40}\] ?"
)
# What recorders put in front of that, or show in its place. `by`: only a kernel's lines have it.
# In any language.
_DAY = r"(?:\S{2,8} )?\S{2,8} {1,3}\d{1,2}"
_CLOCK = r"\d\d:\d\d(?::\d\d)?(?:[.,:]\d{3,9}|[.,]\d+)?"
_ISO = rf"\d{{4}}[-/]\d\d[-/]\d\d[T ,]{{1,2}}{_CLOCK}(?:Z|[+-]\d\d:?\d\d)?"
_RECORDED = re.compile(
    "|".join(
        (
            # syslog and the journal; dmesg --time-format ctime, iso, delta, reltime; dmesg -x
            rf"(?P<by>(?:(?:{_DAY} {_CLOCK}(?: \d{{4}})?|(?:\w{{3}} )?{_ISO}(?: [A-Z]{{2,5}})?"
            r"|\d{9,10}\.\d{6}) (?:\S{1,80} )?(?:\w{1,8}\.\w{1,8} )?"
            # on everybody's terminal, by syslogd
            r"|[\w.-]{1,64} (?=kernel: )|(?:\u2026|\.\.\.) ?(?=kernel: ))?"
            r"(?:kernel|vmunix|klogd)(?:(?:\[\d+\])?: {0,2}| - - - )"
            rf"|{_DAY} {_CLOCK} (?:\S{{1,80}} (?=kernel BUG at )|\[kernel\] )"
            rf"|\[{_DAY} {_CLOCK}(?: \d{{4}})?\] ?|\[\w{{3}} ?\d{{1,2}} {_CLOCK}\] ?"
            r"|\d{1,12}\.\d{6}[\]\xa8] |\[[<+ ]*\d+[.,]\d{2,9}>?\](?: ?\[ *[TC]\d+\])? ?"
            # typed off a screen, by a program: "]" has become "1"
            r"|\[ *\d{1,9}\.\d{7} (?=[A-Za-z])"
            # the same console, where "[" is another sign as well; in code page 500 "c|" and "!"
            r"|[\xdd\ufffd] {0,12}\d{1,12}\.\d{6}[\xa8\ufffd] ?"
            r"|[c\xa2\ufffd] {0,12}\d{1,12}\.\d{6}! ?"
            # sysvinit's own words, which the kernel speaks into
            r"|INIT: .{0,60}?(?=Kernel panic(?: - not syncing)?: )"
            r"|(?:kern|user|daemon) *:(?:emerg|alert|crit|err|warn|notice|info|debug) *: ?"
            # times that a hand has left out
            r"|\[ *x{4,12}(?:\.x{3,9})?\] ?"
            # a level; /dev/kmsg and netconsole's long form
            r"|<\d{1,3}>|\d{1,3},\d+,\d+,[^;\s]{1,40};)",
            # runners of CI, terminal programs, netconsole's receivers
            r"[\w.-]{1,40} {1,20}\| ?|\w+ +L\d{4} \w+ ?\| (?:\[std(?:out|err)\] )?"
            r"|\d\d-\d\d \d\d:\d\d:\d\d\.\d{3,6} {1,3}(?:\w+ +)?\d+ +\d+ [VDIWEF] [^:\n]{0,40}: ?"
            r"|MESSAGE=|E {3,10}(?=\S)"
            r"|(?:tty(?:S|AMA)\d|hvc\d|console|serial\d?(?:\.\w{3})?|dmesg): "
            r"|(?:Job|Infrastructure) error: |[\w./-]{1,80}:(?=\w{3} [ \d]\d \d\d:)"
            r"|[\w.@()-]{1,40}:[\w~/.-]{0,60}[#$] |\d{1,8}:(?=\w{3} +\d|[\[<])"
            # a shell's prompt, which waits while the kernel speaks
            r"|[~/][\w~/.-]{0,60} ?[#$] "
            rf"|{_DAY} {_CLOCK} (?:\S{{1,80}} )?(?=\d{{1,3}},\d+,\d+,)"
            rf"|\[?{_ISO}\]? {{0,3}}|\[?{_CLOCK}\]?:? {{1,3}}"
            r"|\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?[: ] ?"
            # lines that somebody has numbered
            r"|\d{1,6}\t",
            # which CPU or thread, as some vendors' kernels say it
            r"\[(?: {1,20}|\.{3})\] ?|\[c\d+ +\d+\] ?|\(\d\)\[\d+:[^\]]{1,40}\] ?"
            r"|\[ *[TC]\d+\] ?|-\(\d\)",
            r"\[ *\d{1,12}\.\d{3,9}@\d\] ?|\[\d: {0,15}[^\]: ]{1,16}: *\d+\] ?",
        )
    ),
    re.ASCII,
)
# Marks of a quoting mail, and the indentation of a pasted log: in front of all the others.
_QUOTED = re.compile(
    r"(?:[ \t]{0,8}(?:[>|]|&gt;))+ {0,2}\+?|(?:`{1,3}|\*{1,2}(?!\*)) ?|\+ {0,2}|[ \t]{1,40}(?=\S)"
)
_INDENTED = re.compile(r"[ \t]{1,40}")
_MAILED = re.compile("=C2=A0|=A0|=20|\xa0|&nbsp;")  # spaces that were made of others
_ENCODED = re.compile("=(2E|3D|5B|5D)")  # and other signs, by some mail programs
_ESCAPED = re.compile(r"\\([\[\]_*<>#`])")  # by who writes Markdown
_TYPESET = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")  # quotes, by who makes pages
_ODD_SPACE = re.compile("[=\xa0&]")
_PREFIXES = 6  # at most so many of them
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
# What syslog has recorded of a kernel that runs: not its own start, nor the boot's first lines.
# `stopped`: its recorder says that it is the end of it.
RUNNING = re.compile(
    rb" kernel: (?:(?P<stopped>Kernel log(?: daemon terminating|ging \(proc\) stopped))"
    rb"|(?!klogd|imklog|Inspecting|Loaded |Symbols |No module symbols|Cannot find map"
    rb"|\[ *0\.|Linux version|microcode|Booting |random: |printk: |efi: |early|bootconsole"
    rb"|Initializing cgroup subsys|Kernel log))"
)


def _last_stamp(line: bytes) -> int:
    """Where the last stamp of a line begins, or -1."""
    return max((stamp.start() for stamp in STAMPED.finditer(line)), default=-1)


def looked_at(line: bytes) -> bytes:
    """A line, or what counts of a long one: from its last stamp, else its head.

    The console is shared: any amount of a user's text may stand in front of the kernel's.
    """
    if len(line) <= LINE_MAX:
        return line
    start = max(0, _last_stamp(line))
    return line[start : start + LINE_MAX]


def shortened(line: bytes) -> bytes:
    """The beginning of a very long line with its middle left out.

    However the line goes on, what is looked at of it stays the same: its head and what follows
    its last stamp are kept, and its end, which may be half a stamp. A zero byte, which no stamp
    has, stands for what is gone.
    """
    head, start = line[:LINE_MAX], _last_stamp(line)
    if start < 0:
        return head + b"\0" + line[-STAMP_MAX:]
    behind = line[start:]
    if len(behind) > LINE_MAX + STAMP_MAX:
        behind = behind[:LINE_MAX] + b"\0" + behind[-STAMP_MAX:]
    return head + b"\0" + behind


def split(raw: str) -> tuple[bool, str, str]:
    """Whether the kernel stamped the line and said it, who printed it, and the message.

    A user's text may stand in front of the stamp: the console is shared. What a program has written
    to /dev/kmsg is stamped by the kernel and not said by it, where the line shows that.
    """
    line = _ANSI.sub("", raw) if "\x1b" in raw else raw
    if _ODD_SPACE.search(line):
        line = _ENCODED.sub(lambda sign: chr(int(sign[1], 16)), _MAILED.sub(" ", line))
    if "\\" in line:
        line = _ESCAPED.sub(r"\1", line)
    if not line.isascii():
        line = line.translate(_TYPESET)
    stamped, caller, start = False, "", 0
    for stamp in _STAMP.finditer(line):
        stamped, start, caller = True, stamp.end(), stamp["caller"] or ""
    if not stamped:
        stamped, start = _recorded(line)
    elif level := _LEVEL.match(line, start):
        start = level.end()
    stamped = stamped and not by_a_program(line)
    message = line[start:]
    # Only then: an escaped stamp is nobody's.
    return stamped, caller, html.unescape(message) if "&" in message else message


def by_a_program(raw: str) -> bool:
    """Whether a line shows that a program has written it to /dev/kmsg, whatever it has written: a
    log with stamps of its own, too. The kernel may have gone on in the same line; its clock does
    not go back.
    """
    if "<" not in raw and not _BEGINS_LIKE_THAT.match(raw):
        return False
    when = None  # a program's, the last one; of who speaks at the end
    stamps = list(_STAMP.finditer(raw))
    for stamp in stamps:
        begin, moment = max(0, stamp.start() - _LONGEST_MARK), stamp["moment"]
        if _BY_A_PROGRAM.search(raw, begin, stamp.start()):
            when = float(moment)
        elif when is not None and _BY_KERNEL.search(raw, begin, stamp.start()):
            when = None if float(moment) >= when else when
    if not stamps:
        return _UNSTAMPED_BY_A_PROGRAM.match(raw) is not None
    return when is not None


def lines_like(prefix: str) -> re.Pattern[str]:
    """What stands in front of other lines of a log, by what stands in front of one."""
    pieces = re.findall(r"\[[^\[\]]{0,60}\]|\w+|\s+|.", prefix)
    return re.compile("^" + "".join(_shape(piece) for piece in pieces))


def _shape(piece: str) -> str:
    if piece.isdigit():
        return r"\d+"  # a level may stand right before the words
    if len(piece) > 1 and piece[0] == "[":
        return r"\[[^\[\]]{0,60}\]"
    return r"\w+" if piece[0].isalnum() else r"\s+" if piece.isspace() else re.escape(piece)


def before(raw: str, message: str) -> Iterator[tuple[str, str]]:
    """Messages of a line that another CPU's has gone on with: who printed them, and what."""
    if raw.count("[") < 2:
        return
    stamps = list(_STAMP.finditer(raw.removesuffix(message)))
    for stamp, following in itertools.pairwise(stamps):
        yield stamp["caller"] or "", raw[stamp.end() : following.start()]


def _recorded(line: str) -> tuple[bool, int]:
    """Whether a line without the kernel's own stamp is marked as the kernel's, and where what it
    says begins. Marks of a mail are skipped where such a mark follows, or where they are all.
    """
    stamped, start = False, 0
    quoted = _QUOTED.match(line)
    if quoted and (not quoted[0].isspace() or _RECORDED.match(line, quoted.end())):
        start = quoted.end()
        further = _INDENTED.match(line, start)
        if further and _RECORDED.match(line, further.end()):
            start = further.end()
    for _ in range(_PREFIXES):
        if not (mark := _RECORDED.match(line, start)):
            break
        stamped, start = stamped or bool(mark["by"]), mark.end()
    return stamped, start
