"""KTAP text to cases: nothing that was planned is lost, nothing that is cut looks whole.

Source of the format: Documentation/dev-tools/ktap.rst of Linux 6.12, and what its test programs
print in fact: tools/testing/selftests/kselftest.h, kselftest_harness.h, kselftest/runner.sh and
lib/kunit/test.c.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from rig.results import Status

# A plan may ask for more cases than memory holds ("1..4294967295" from a wild program): missing
# cases are named up to here, and an error says how many more there are.
_MISSING_MAX = 1000
# Longer diagnostic lines are shortened: a verdict is no place for a hex dump of a megabyte.
_LINE_MAX = 4096
# Deeper nesting than this is text that happens to be indented.
_DEPTH_MAX = 64
_DIAGNOSTICS_MAX = 1000

# printk's own prefix (kernel/printk/printk.c info_print_prefix): level, time, PRINTK_CALLER.
_PRINTK = re.compile(r"(?:<\d+>)?\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? ")
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_INDENT = re.compile(r"(?:# |[ \t])*")
_VERSION = re.compile(r"(K?TAP) version (\d+)\s*$")
_PLAN = re.compile(r"1\.\.(\d+)\s*(?:#\s*(.*?))?\s*$")
_RESULT = re.compile(r"(not )?ok (\d+)(?![^\s#-])(?:\s+-(?=\s))?\s*(.*?)\s*$")
# A result behind text whose newline never came ("Diff too high: 12..not ok 1 ITIMER_VIRTUAL").
_GLUED = re.compile(r"(?<=\S)((?:not )?ok (?P<number>\d+) \S.*)$")
_BAIL = re.compile(r"Bail out!\s*(.*?)\s*$", re.IGNORECASE)
_TAIL = re.compile(r"(?:^|(?<=\s))#+\s*(.*)$|(?<=\S)#\s+((?:SKIP|TODO|X?FAIL|TIMEOUT|ERROR)\b.*)$")
_DIRECTIVE = re.compile(r"(SKIP(?:PED)?|TODO|XFAIL|XPASS|TIMEOUT|ERROR)\b[:\s]*(.*)$", re.I)
_DURATION = re.compile(
    r"\b(?:duration_ms|time_ms)[=:] ?(\d+(?:\.\d+)?)|\btime=(\d+(?:\.\d+)?) ?s\b"
)

# Diagnostic lines that say something about structure.
_SUBTEST = re.compile(r"Subtest: (.+?)\s*$")  # lib/kunit/test.c kunit_print_suite_start
_RUN = re.compile(r"RUN\s+(\S.*?) \.\.\.$")  # kselftest_harness.h __run_test
_SELFTEST = re.compile(r"(selftests: .+?: \S.*)$")  # kselftest/runner.sh run_one
_TOTALS = re.compile(  # kselftest.h ksft_print_cnts
    r"Totals: pass:(\d+) fail:(\d+) xfail:(\d+) xpass:(\d+) skip:(\d+) error:(\d+)"
)
_STATS = re.compile(r"(.+): pass:(\d+) fail:(\d+) skip:(\d+) total:(\d+)")  # lib/kunit/test.c
_SUMMARY = re.compile(r"(?:Totals: |PASSED: |FAILED: |Planned tests != run tests)")

_KNOWN_VERSIONS = {("KTAP", 1), ("TAP", 12), ("TAP", 13), ("TAP", 14)}
_TALLIES = ("pass", "fail", "xfail", "xpass", "skip", "error")


@dataclass(frozen=True)
class KtapCase:
    """A leaf of the report.

    name: nested names joined with "/"; "case N" where the program gave none; "" for a whole
        program that skipped itself with `1..0 # SKIP`.
    directive: what stood behind the "#" of the result line ("SKIP no /dev/kvm", "exit=1"), or "".
    diagnostics: the lines said about it, without their "# ".
    duration_s: seconds, 0.0 where the program gave no time.
    """

    name: str
    status: Status
    directive: str = ""
    diagnostics: tuple[str, ...] = ()
    duration_s: float = 0.0


@dataclass(frozen=True)
class KtapReport:
    """All leaves in order; planned: results promised at the top level, None without a plan.

    errors: why the report is not whole (no plan, a plan not kept, a cut line, Bail out ...). Only
    a report without errors may count, whatever its cases say.
    """

    cases: tuple[KtapCase, ...]
    planned: int | None
    errors: tuple[str, ...]

    def count(self, status: Status) -> int:
        """How many cases ended as `status`."""
        return sum(case.status is status for case in self.cases)

    @property
    def green(self) -> bool:
        """No error, and every case good (an error-free report has at least one case)."""
        return not self.errors and all(case.status.good for case in self.cases)


@dataclass
class _Result:
    number: int
    name: str
    status: Status
    tally: str
    directive: str = ""
    diagnostics: list[str] = field(default_factory=list)
    groups: list[_Group] = field(default_factory=list)
    glued: bool = False

    @property
    def label(self) -> str:
        return self.name or f"case {self.number}"


@dataclass
class _Group:
    """Results of one nesting level between a version line (or what stands for it) and its end.

    waiting: closed groups below whose own result line has not come yet.
    """

    depth: int
    title: str = ""
    plan: int | None = None
    plan_skip: str = ""
    started: str = ""
    results: list[_Result] = field(default_factory=list)
    waiting: list[_Group] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    totals: bool = False
    errors: list[str] = field(default_factory=list)

    def drop_glued(self, number: int) -> None:
        """A result line of its own beats words that looked like one."""
        if self.results and self.results[-1].glued and self.results[-1].number == number:
            self.pending += self.results.pop().diagnostics

    @property
    def leaves(self) -> int:
        return sum(
            sum(group.leaves for group in result.groups) if result.groups else 1
            for result in self.results
        )


def parse(text: str) -> KtapReport:
    """Read a program's or a kernel's whole output.

    Planned results that never came are ERROR cases in their place. A result on an unterminated
    last line is not believed: "ok 3 x" may be the beginning of "ok 3 x # SKIP".
    """
    reader = _Reader()
    for line, whole in _lines(text):
        reader.take(line, whole)
    return reader.report()


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """The lines with KTAP in them, and whether each was terminated.

    On a console where KTAP comes from the kernel's log, all of it carries printk's prefix and
    what has none is foreign; in a program's own output it is the other way round.
    """
    pieces = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kernel: bool | None = None
    for number, raw in enumerate(pieces, 1):
        line = _ANSI.sub("", raw) if "\x1b" in raw else raw
        stamp = _PRINTK.match(line)
        body = line[stamp.end() :] if stamp else line
        if kernel is None and _structural(body):
            kernel = stamp is not None
        foreign = kernel is not None and kernel is not (stamp is not None)
        if line:
            yield (_quoted(line) if foreign else body), number < len(pieces)


def _quoted(line: str) -> str:
    """A foreign line as a diagnostic that no rule mistakes for structure."""
    return f"| {line}"


def _structural(line: str) -> bool:
    body = line[_indent(line) :]
    return any(rule.match(body) for rule in (_VERSION, _PLAN, _RESULT, _BAIL))


def _indent(line: str) -> int:
    match = _INDENT.match(line, 0, _DEPTH_MAX)
    return match.end() if match else 0


class _Reader:
    """Builds the tree of groups line by line; `stack` holds the open ones, outermost first."""

    def __init__(self) -> None:
        self.stack: list[_Group] = []
        self.done: list[_Group] = []
        self.before: list[str] = []
        self.errors: list[str] = []

    def take(self, line: str, whole: bool) -> None:
        depth = _indent(line)
        body = line[depth:]
        if match := _RESULT.match(body):
            self._result(depth, match, line, whole)
        elif match := _PLAN.match(body):
            self._plan(depth, int(match[1]), match[2] or "", line, whole)
        elif match := _VERSION.match(body):
            self._version(depth, match[1], int(match[2]))
        elif match := _BAIL.match(body):
            self._bail(depth, match[1])
        else:
            self._diagnostic(line, depth, whole)

    def report(self) -> KtapReport:
        self._close(-1)
        cases: list[KtapCase] = []
        for group in self.done:
            cases += _finish(group, "", self.errors)
        if not self.done:
            self.errors.append("no KTAP in the output")
        elif not cases:
            self.errors.append("no results")
        plans = [group.plan for group in self.done]
        planned = sum(plan or 0 for plan in plans) if plans and None not in plans else None
        return KtapReport(tuple(cases), planned, tuple(dict.fromkeys(self.errors)))

    # -- lines ---------------------------------------------------------------------------------

    def _version(self, depth: int, kind: str, version: int) -> None:
        if (kind, version) not in _KNOWN_VERSIONS:
            self.errors.append(f"{kind} version {version} is not known here")
        self._close(depth)
        self._open(depth)

    def _plan(self, depth: int, count: int, note: str, line: str, whole: bool) -> None:
        group = self._at(depth) or self._open(depth)
        if not whole and not note:
            self.errors.append(f"the output ends in the middle of a line: {line.strip()!r}")
        if group.plan is not None and group.plan != count:
            group.errors.append(f"a second plan 1..{count} after 1..{group.plan}")
        group.plan = count
        skip = _DIRECTIVE.match(note)
        if skip and skip[1].upper().startswith("SKIP"):
            group.plan_skip = note

    def _result(self, depth: int, match: re.Match[str], line: str, whole: bool) -> None:
        group = self._at(depth)
        if group is None and self.stack and depth > self.stack[0].depth:
            self._stray(line, bool(match[1]))
            return
        group = group or self._open(depth)
        result = _read_result(bool(match[1]), int(match[2]), match[3])
        group.drop_glued(result.number)
        if not whole and result.status.good:
            result.status = Status.ERROR
            self.errors.append(f"the output ends in the middle of a line: {line.strip()!r}")
        self._close_below(group)
        result.groups, group.waiting = group.waiting, []
        result.diagnostics, group.pending = group.pending, []
        group.started = ""
        group.results.append(result)

    def _stray(self, line: str, failed: bool) -> None:
        """A result deeper than any opened level: an unknown line, but a failure is not lost."""
        self._note(line)
        if failed and _read_result_status(line) is Status.FAIL:
            self.errors.append(f"a failure outside of any opened test: {line.strip()[:200]!r}")

    def _bail(self, depth: int, reason: str) -> None:
        group = self._at(depth) or (self.stack[-1] if self.stack else self._open(depth))
        group.errors.append(f"Bail out! {reason}".rstrip())

    def _diagnostic(self, line: str, depth: int, whole: bool) -> None:
        own = line.rfind("#", 0, depth)
        if own >= 0:
            self._hint(own, line[depth:].rstrip())
        self._note(line)
        group = self._at(depth)
        if group and whole and "ok " in line and (match := _GLUED.search(line, depth)):
            self._glued(group, match)

    def _glued(self, group: _Group, match: re.Match[str]) -> None:
        """Words that would be the next result: believed when the program's totals agree."""
        if self.stack[-1] is not group or int(match["number"]) != len(group.results) + 1:
            return
        if found := _RESULT.match(match[1]):
            result = _read_result(bool(found[1]), int(found[2]), found[3])
            result.glued = True
            result.diagnostics, group.pending = group.pending, []
            group.results.append(result)

    def _hint(self, depth: int, body: str) -> None:
        """Learn from a "# ..." line whose "#" stands at depth: names to come, totals."""
        group = self._at(depth)
        if match := _SUBTEST.match(body):
            if group is None or group.results or group.title:
                self._close(depth)
                group = self._open(depth)
            group.title = match[1]
        elif (match := _TOTALS.match(body)) and group:
            _compare(group, dict(zip(_TALLIES, map(int, match.groups()), strict=True)))
        elif match := _STATS.match(body):
            self._compare_stats(depth, match)
        elif group and (match := _RUN.match(body) or _SELFTEST.match(body)):
            group.started = match[1]

    def _compare_stats(self, depth: int, match: re.Match[str]) -> None:
        """KUnit counts, one level out, the group that has just ended."""
        below = next((group for group in self.stack if group.depth > depth), None)
        if below is None:
            return
        seen = below.leaves if match[1] == "Totals" else len(below.results)
        if seen != int(match[5]):
            below.errors.append(f"its own count is {match[5]} results, seen were {seen}")

    # -- the stack -----------------------------------------------------------------------------

    def _at(self, depth: int) -> _Group | None:
        return next((group for group in self.stack if group.depth == depth), None)

    def _open(self, depth: int) -> _Group:
        self._close(depth)
        group = _Group(depth)
        if not self.stack:
            group.pending, self.before = self.before, []
        self.stack.append(group)
        return group

    def _close(self, depth: int) -> None:
        """Close every group at this depth or deeper."""
        while self.stack and self.stack[-1].depth >= depth:
            group = self.stack.pop()
            (self.stack[-1].waiting if self.stack else self.done).append(group)

    def _close_below(self, group: _Group) -> None:
        while self.stack[-1] is not group:
            below = self.stack.pop()
            self.stack[-1].waiting.append(below)

    def _note(self, line: str) -> None:
        pending = self.stack[-1].pending if self.stack else self.before
        depth = self.stack[-1].depth if self.stack else 0
        cut = min(depth, _indent(line))
        body = line[cut:].rstrip()
        body = body[2:] if body.startswith("# ") else body
        if len(body) > _LINE_MAX:
            body = f"{body[:_LINE_MAX]} [... {len(body) - _LINE_MAX} more characters]"
        pending.append(body)
        if len(pending) > _DIAGNOSTICS_MAX:  # the newest tell most
            del pending[0]


# -- result lines ------------------------------------------------------------------------------


def _read_result(failed: bool, number: int, rest: str) -> _Result:
    tail = _TAIL.search(rest)
    name = rest[: tail.start()].rstrip() if tail else rest
    directive = (tail[1] or tail[2] or "").strip() if tail else ""
    status, tally = _status(failed, directive)
    if not name and (match := _DIRECTIVE.match(directive)):
        name = match[2]  # kselftest.h prints "ok 3 # SKIP <name>" (ksft_test_result_skip)
    return _Result(number, name, status, tally, directive)


def _read_result_status(line: str) -> Status:
    match = _RESULT.match(line[_indent(line) :])
    assert match
    return _read_result(bool(match[1]), int(match[2]), match[3]).status


def _status(failed: bool, directive: str) -> tuple[Status, str]:
    """Status and the word kselftest counts it under.

    XFAIL and TODO: an expected failure proves nothing, so it is a SKIP whose directive says why.
    XPASS: kselftest's ksft_finished() does not accept one, neither do we.
    """
    match = _DIRECTIVE.match(directive)
    word = match[1] if match else ""
    kind = word.upper()
    if kind.startswith("SKIP"):
        return Status.SKIP, "skip"
    if kind == "XFAIL" or (kind == "TODO" and failed):
        return Status.SKIP, "xfail"
    if kind == "XPASS":
        return Status.FAIL, "xpass"
    if kind == "ERROR" and (failed or word == kind):
        return Status.ERROR, "error"
    if kind == "TIMEOUT" and (failed or word == kind):
        return Status.TIMEOUT, "fail"
    return (Status.FAIL, "fail") if failed else (Status.PASS, "pass")


def _compare(group: _Group, claimed: dict[str, int]) -> None:
    """kselftest's own totals against what was seen."""
    group.totals = True
    seen = Counter(result.tally for result in group.results)
    wrong = [
        f"{word}:{count} (seen {seen[word]})"
        for word, count in claimed.items()
        if count != seen[word]
    ]
    if wrong:
        group.errors.append(f"its own totals say {' '.join(wrong)}")
        return
    for result in group.results:
        result.glued = False


# -- from groups to cases ----------------------------------------------------------------------


def _finish(group: _Group, path: str, errors: list[str]) -> list[KtapCase]:
    """The leaves of a group, missing ones included; what is wrong with it goes to errors."""
    if group.plan == 0 and group.plan_skip and not group.results:
        name = path.removesuffix("/")
        return [KtapCase(name, Status.SKIP, group.plan_skip, tuple(group.pending))]
    where = f"{path.removesuffix('/')}: " if path else ""
    _doubt_glued(group)
    missing = _missing(group, path)
    problems = [*_check_numbers(group), *_check_plan(group, nested=bool(path)), *group.errors]
    errors += [where + problem for problem in problems]
    placed = [(result.number, _leaves(result, path, errors)) for result in group.results]
    _place_pending(group, missing, placed)
    cases = [case for _, cases in _merge(placed, missing) for case in cases]
    return cases + _unclaimed(group, path, errors)


def _doubt_glued(group: _Group) -> None:
    for result in group.results:
        if result.glued and result.status.good:
            result.status = Status.ERROR
            group.errors.append(f"{result.label}: its result does not stand on a line of its own")


def _leaves(result: _Result, path: str, errors: list[str]) -> list[KtapCase]:
    """A result without subtests is a leaf; one with them is their leaves, and itself if not good
    in a way no leaf tells."""
    own = KtapCase(
        path + result.label,
        result.status,
        result.directive,
        tuple(result.diagnostics),
        _duration(result),
    )
    cases: list[KtapCase] = []
    for group in result.groups:
        if result.status is Status.SKIP and group.plan == 0:
            # KUnit says of a suite without tests that it was skipped only when it ends.
            group.plan_skip = group.plan_skip or result.directive or "SKIP"
        cases += _finish(group, f"{path}{result.label}/", errors)
    if not result.groups or any(_whole_skip(group) for group in result.groups):
        return [own]
    if not cases:
        errors.append(f"{own.name}: opened a test, gave no results")
        good = own.status.good
        return [KtapCase(own.name, Status.ERROR, own.directive, own.diagnostics) if good else own]
    told = own.status is Status.PASS or any(case.status is own.status for case in cases)
    return cases if told else [*cases, own]


def _whole_skip(group: _Group) -> bool:
    return group.plan == 0 and bool(group.plan_skip) and not group.results


def _duration(result: _Result) -> float:
    for line in (result.directive, *result.diagnostics):
        if match := _DURATION.search(line):
            return float(match[1]) / 1000 if match[1] else float(match[2])
    return 0.0


def _check_plan(group: _Group, *, nested: bool) -> list[str]:
    """A nested group may go without a plan (KUnit's parameterized tests do): its end is proven by
    the result line that claims it. Nothing proves the end of the outermost one."""
    seen = len(group.results)
    if group.plan is None:
        return [] if nested else ["no plan"]
    if group.plan == 0 and seen == 0:
        return ["a plan of no tests (1..0) without a SKIP"]
    if group.plan > seen and not _exit_skip(group):
        return [f"planned {group.plan} results, got {seen}"]
    return [f"planned {group.plan} results, got {seen}"] if group.plan < seen else []


def _check_numbers(group: _Group) -> list[str]:
    problems: list[str] = []
    seen: set[int] = set()
    due = 1
    for result in group.results:
        if result.number in seen:
            problems.append(f"number {result.number} used twice ({result.label})")
        elif result.number != due and not (_exit_skip(group) and result is group.results[-1]):
            problems.append(f"{result.label} is numbered {result.number} where {due} was due")
        seen.add(result.number)
        due = result.number + 1
    return problems


def _exit_skip(group: _Group) -> bool:
    """A program that skipped its rest: ksft_exit_skip() of kselftest.h counts the skip before it
    prints the number, so that last line is `ok N+2 # SKIP ...` after N results, and its totals
    follow (on the same line when the reason has no newline)."""
    last = group.results[-1] if group.results else None
    return (
        last is not None
        and last.status is Status.SKIP
        and last.tally == "skip"
        and last.number == len(group.results) + 1
        and (group.totals or "# Totals: " in last.directive)
    )


def _missing(group: _Group, path: str) -> dict[int, KtapCase]:
    """The planned results that never came, by number."""
    lacking = (group.plan or 0) - len(group.results)
    if lacking <= 0:
        return {}
    skipped = _exit_skip(group)
    numbers = [result.number for result in group.results]
    seen = {*numbers[:-1], len(numbers)} if skipped else set(numbers)
    absent = _absent(seen, group.plan or 0, min(lacking, _MISSING_MAX))
    if lacking > _MISSING_MAX:
        group.errors.append(f"{lacking - _MISSING_MAX} more results are missing")
    status = Status.SKIP if skipped else Status.ERROR
    directive = group.results[-1].directive if skipped else ""
    names = {absent[0]: group.started} if group.started and absent else {}
    return {
        number: KtapCase(path + (names.get(number) or f"case {number}"), status, directive)
        for number in absent
    }


def _absent(seen: set[int], plan: int, limit: int) -> list[int]:
    """The first `limit` numbers of 1..plan that are not in seen."""
    found: list[int] = []
    number = 0
    while len(found) < limit and number < plan:
        number += 1
        if number not in seen:
            found.append(number)
    return found


def _place_pending(
    group: _Group, missing: dict[int, KtapCase], placed: list[tuple[int, list[KtapCase]]]
) -> None:
    """Lines after the last result: the words of the first missing case, else of the last one."""
    lines = tuple(line for line in group.pending if not _SUMMARY.match(line))
    if not lines:
        return
    if missing:
        after = group.results[-1].number if group.results else 0
        number = next((number for number in missing if number > after), next(iter(missing)))
        missing[number] = _with_lines(missing[number], lines)
    elif placed and placed[-1][1]:
        placed[-1][1][-1] = _with_lines(placed[-1][1][-1], lines)


def _with_lines(case: KtapCase, lines: tuple[str, ...]) -> KtapCase:
    return KtapCase(
        case.name, case.status, case.directive, case.diagnostics + lines, case.duration_s
    )


def _merge(
    placed: list[tuple[int, list[KtapCase]]], missing: dict[int, KtapCase]
) -> Iterator[tuple[int, list[KtapCase]]]:
    """Results in the order they came, each missing one before the first later number."""
    left = sorted(missing.items())
    for number, cases in placed:
        while left and left[0][0] < number:
            absent, case = left.pop(0)
            yield absent, [case]
        yield number, cases
    for absent, case in left:
        yield absent, [case]


def _unclaimed(group: _Group, path: str, errors: list[str]) -> list[KtapCase]:
    """The leaves of subtests whose own result line never came."""
    cases: list[KtapCase] = []
    for below in group.waiting:
        number = len(group.results) + 1
        label = below.title or group.started or f"case {number}"
        errors.append(f"{path}{label}: no result line")
        cases += _finish(below, f"{path}{label}/", errors)
    return cases
