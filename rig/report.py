"""A run as text for the terminal, as JUnit XML and as one self-contained HTML page."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import tempfile
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rig.errors import InfrastructureError
from rig.results import NOT_RUN, Case, Run, Splat, Status, to_json

if TYPE_CHECKING:
    import jinja2

# The worst first: what a program's own status is when its cases differ.
_WORST = (
    Status.CRASH,
    Status.TIMEOUT,
    Status.ERROR,
    Status.FAIL,
    Status.FLAKY,
    Status.PASS,
    Status.SKIP,
)
_WORDS = {
    Status.PASS: "passed",
    Status.FAIL: "failed",
    Status.SKIP: "skipped",
    Status.ERROR: "errors",
    Status.CRASH: "crashed",
    Status.TIMEOUT: "timed out",
    Status.FLAKY: "flaky",
}
_COLORS = {
    Status.PASS: "32",
    Status.FAIL: "31",
    Status.SKIP: "33",
    Status.ERROR: "35",
    Status.CRASH: "31",
    Status.TIMEOUT: "31",
    Status.FLAKY: "35",
}
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
# What XML 1.0 cannot hold, and what a terminal would act on.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# Direction marks can make a line read other than it is.
_BIDI = re.compile(r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_OUTPUT_MAX = 64 * 1024  # characters of one case's output that go into XML and HTML
_CONSOLE_LINES = 6000  # a longer console is shown in part; the file is beside the page
_CONSOLE_HEAD, _CONSOLE_TAIL, _CONSOLE_AROUND = 300, 1500, 60


@dataclass(frozen=True)
class Program:
    """The cases of one program of a suite, in the order they came."""

    suite: str
    name: str
    cases: tuple[Case, ...]

    @property
    def id(self) -> str:
        """suite/program."""
        return f"{self.suite}/{self.name}"

    @property
    def status(self) -> Status:
        """The worst of its cases."""
        seen = {case.status for case in self.cases}
        return next(status for status in _WORST if status in seen)

    @property
    def duration_s(self) -> float:
        """Wall seconds over all cases."""
        return sum(case.duration_s for case in self.cases)

    def count(self, status: Status) -> int:
        """How many of its cases ended as `status`."""
        return sum(case.status is status for case in self.cases)


@dataclass(frozen=True)
class Verdict:
    """What the whole run comes to: word is PASS, FAIL or INCOMPLETE; because says why."""

    word: str
    because: str

    @property
    def good(self) -> bool:
        """True for PASS."""
        return self.word == "PASS"


@dataclass(frozen=True)
class ConsoleLine:
    """A line of a console for the page; number counts from 1; a gap stands for left_out lines."""

    number: int
    text: str
    splat: int | None = None
    left_out: int = 0


@dataclass(frozen=True)
class Console:
    """A recorded console, ready for the page."""

    name: str
    lines: tuple[ConsoleLine, ...]
    total: int
    splats: int


def verdict(run: Run) -> Verdict:
    """The run's verdict; its word is PASS exactly when run.exit_code is 0."""
    parts = [f"{run.count(status)} {_WORDS[status]}" for status in _WORST if run.count(status)]
    if run.splats:
        parts.append(_many(len(run.splats), "splat"))
    because = ", ".join(parts) or "no case at all"
    if not run.complete:
        return Verdict("INCOMPLETE", f"the run did not reach its end: {because}")
    if run.exit_code == 0:
        return Verdict("PASS", because)
    if run.cases and all(case.status is Status.SKIP for case in run.cases):
        because = f"nothing passed: {because}"
    return Verdict("FAIL", because)


def programs(run: Run) -> list[Program]:
    """The run's cases by program, in order of first appearance."""
    found: dict[tuple[str, str], list[Case]] = {}
    for case in run.cases:
        found.setdefault((case.suite, case.program), []).append(case)
    return [Program(suite, name, tuple(cases)) for (suite, name), cases in found.items()]


# -- text ----------------------------------------------------------------------------------------


def text(run: Run, *, color: bool) -> str:
    """The verdict for a terminal: programs, what is not good, splats, notices, the verdict last.

    Nothing from a guest can move the cursor or set colours: control characters are removed.
    """
    paint = _paint if color else _plain
    blocks = [
        _text_head(run),
        _text_table(run, paint),
        *_text_cases([case for case in run.cases if not case.status.good], paint),
        *(_text_splat(splat, paint) for splat in run.splats),
        "\n".join(f"note: {clean(notice)}" for notice in run.notices),
        _text_verdict(run, paint),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _plain(words: str, _code: str) -> str:
    return words


def _paint(words: str, code: str) -> str:
    return f"\x1b[{code}m{words}\x1b[0m"


def _text_head(run: Run) -> str:
    kernel = " ".join(filter(None, (run.kernel.get("name"), run.kernel.get("release"))))
    machine = run.machine.get("name", "")
    facts = [f"kernel {kernel}" if kernel else "", f"machine {machine}" if machine else ""]
    return clean(" · ".join(filter(None, [f"run {run.id}", *facts])))


def _text_table(run: Run, paint: Any) -> str:
    rows = programs(run)
    if not rows:
        return ""
    shown = [status for status in Status if status is Status.PASS or run.count(status)]
    width = max(len("program"), *(len(clean(row.id)) for row in rows))
    head = ["program".ljust(width), *(f"{_WORDS[status]:>9}" for status in shown), "  seconds"]
    lines = ["  ".join(head)]
    for row in rows:
        cells = [paint(clean(row.id).ljust(width), _COLORS[row.status])]
        cells += [f"{row.count(status) or '-':>9}" for status in shown]
        lines.append("  ".join([*cells, f"{row.duration_s:9.2f}"]))
    return "\n".join(lines)


def _text_cases(cases: Sequence[Case], paint: Any) -> list[str]:
    """What was not run for one and the same reason is said once, with the names of all."""
    groups: dict[object, list[Case]] = {}
    for case in cases:
        alike = case.message.startswith(NOT_RUN) and not case.output
        groups.setdefault((case.status, case.message) if alike else case.id, []).append(case)
    return [_text_case(first, paint, [one.id for one in rest]) for first, *rest in groups.values()]


def _text_case(case: Case, paint: Any, others: Sequence[str] = ()) -> str:
    lines = [f"{paint(case.status.upper(), _COLORS[case.status])} {clean(case.id)}"]
    if case.message:
        lines.append(f"    {clean(case.message)}")
    if others:
        lines += textwrap.wrap(
            f"so were {len(others)} more: {clean(', '.join(others))}", 96,
            initial_indent="    ", subsequent_indent="        ", break_on_hyphens=False,
        )  # fmt: skip
    lines += [f"    | {line}" for line in clean_lines(case.output)[-12:]]
    if case.reproduce:
        lines.append(f"    reproduce: {clean(case.reproduce)}")
    return "\n".join(lines)


def _text_splat(splat: Splat, paint: Any) -> str:
    where = f"{splat.type}, console lines {splat.start + 1}-{splat.end}"
    lines = [f"{paint('SPLAT', '31')} {clean(splat.title)} ({clean(where)})"]
    if splat.place:
        lines.append(f"    at {clean(blame(splat))}")
    lines += [f"    | {line}" for line in clean_lines(splat.decoded or splat.text)[:20]]
    return "\n".join(lines)


def blame(splat: Splat) -> str:
    """Where the culprit was, and the patch that touched that line last; "" where not known."""
    if not splat.place:
        return ""
    return f"{splat.place}, last touched by {splat.patch or 'nobody: the pristine source'}"


def _text_verdict(run: Run, paint: Any) -> str:
    result = verdict(run)
    word = paint(result.word, "1;32" if result.good else "1;31")
    return f"{word}: {result.because} in {seconds(run.duration_s)}"


# -- JUnit ---------------------------------------------------------------------------------------


def junit(run: Run) -> bytes:
    """JUnit XML as Jenkins, GitLab and GitHub read it: a testsuite a program, then the console.

    A run that is not green has at least one failure or error in it, also when it is empty.
    """
    root = ET.Element("testsuites", name=clean(f"rig {run.id}"))
    for program in programs(run):
        root.append(_junit_program(program, run))
    root.append(_junit_console(run))
    if run.exit_code != 0 and not root.findall(".//failure") and not root.findall(".//error"):
        root.append(_junit_run(run))
    for suite in root:
        _junit_totals(suite)
    _junit_totals(root)
    ET.indent(root, " ")
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _junit_suite(name: str, run: Run) -> ET.Element:
    suite = ET.Element("testsuite", name=clean(name))
    if stamp := _timestamp(run.started):
        suite.set("timestamp", stamp)
    properties = ET.SubElement(suite, "properties")
    for group, facts in (("kernel", run.kernel), ("machine", run.machine), ("image", run.image)):
        for key, value in facts.items():
            ET.SubElement(properties, "property", name=f"{group}.{clean(key)}", value=clean(value))
    for number, notice in enumerate(run.notices):
        ET.SubElement(properties, "property", name=f"notice.{number}", value=clean(notice))
    return suite


def _junit_program(program: Program, run: Run) -> ET.Element:
    suite = _junit_suite(program.id, run)
    for case in program.cases:
        element = ET.SubElement(
            suite,
            "testcase",
            classname=clean(f"{case.suite}.{case.program}"),
            name=clean(case.name or case.program),
            time=f"{case.duration_s:.3f}",
        )
        _junit_outcome(element, case)
    return suite


def _junit_outcome(element: ET.Element, case: Case) -> None:
    """The one child that says how it ended, then the output."""
    output = "\n".join(clean_lines(case.output[-_OUTPUT_MAX:]))
    message = clean(case.message)
    if case.status is Status.SKIP:
        ET.SubElement(element, "skipped", message=message)
    elif case.status is not Status.PASS:
        tag = "failure" if case.status in (Status.FAIL, Status.FLAKY) else "error"
        child = ET.SubElement(
            element, tag, message=message or _WORDS[case.status], type=case.status.value
        )
        again = f"reproduce: {clean(case.reproduce)}\n" if case.reproduce else ""
        child.text = f"{message}\n{again}\n{output}".strip("\n")
    if output:
        ET.SubElement(element, "system-out").text = output


def _junit_console(run: Run) -> ET.Element:
    suite = _junit_suite("console", run)
    for splat in run.splats:
        element = ET.SubElement(
            suite, "testcase", classname="console", name=clean(splat.title), time="0.000"
        )
        where = f"{splat.type}, console lines {splat.start + 1}-{splat.end}"
        error = ET.SubElement(element, "error", message=clean(splat.title), type=clean(splat.type))
        known = [f"at {clean(blame(splat))}"] if splat.place else []
        text = (splat.decoded or splat.text)[:_OUTPUT_MAX]
        error.text = "\n".join([where, *known, *clean_lines(text)])
    if run.consoles and not run.splats:
        ET.SubElement(suite, "testcase", classname="console", name="no splat", time="0.000")
    return suite


def _junit_run(run: Run) -> ET.Element:
    suite = _junit_suite("run", run)
    element = ET.SubElement(suite, "testcase", classname="run", name="run", time="0.000")
    result = verdict(run)
    ET.SubElement(element, "error", message=result.because, type=result.word.lower())
    return suite


def _junit_totals(element: ET.Element) -> None:
    cases = list(element.iter("testcase"))
    element.set("tests", str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    element.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")


def _timestamp(started: str) -> str:
    """xs:dateTime without a zone, as the schema wants it, or "" when started is no time."""
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(started).strftime("%Y-%m-%dT%H:%M:%S")
    return ""


# -- HTML ----------------------------------------------------------------------------------------


def html(run: Run, consoles: Mapping[str, bytes]) -> str:
    """One page with everything in it: no script, style, font or picture from elsewhere.

    consoles: recorded bytes by the names in run.consoles; one that is missing is said to be.
    """
    logs = {name: _console_lines(data) for name, data in consoles.items()}
    places = [_place(splat, logs) for splat in run.splats]
    return template(
        "report.html",
        run=run,
        verdict=verdict(run),
        programs=programs(run),
        bad=[case for case in run.cases if not case.status.good],
        counts=[(status, run.count(status)) for status in _WORST if run.count(status)],
        words=_WORDS,
        splats=list(zip(run.splats, places, strict=True)),
        consoles=[_console(name, logs[name], run, places) for name in logs],
        absent=[name for name in run.consoles if name not in logs],
        facts=[("Kernel", run.kernel), ("Machine", run.machine), ("Image", run.image)],
        output_max=_OUTPUT_MAX,
    )


def template(name: str, **values: object) -> str:
    """Render one of rig/templates; .html and .xml are escaped, an unknown name is an error."""
    return _environment().get_template(name).render(**values)


@cache
def _environment() -> jinja2.Environment:
    import jinja2  # late: most commands write no page

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rig", "templates"),
        autoescape=jinja2.select_autoescape(("html", "xml"), default_for_string=True),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        clean=clean, block=_block, seconds=seconds, many=_many, when=_when, blame=blame
    )
    return environment


def _console_lines(data: bytes) -> list[str]:
    """The lines of a console, numbered as the splat scanner numbers them."""
    lines = data.decode(errors="replace").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [clean(line.rstrip("\r")) for line in lines]


def _place(splat: Splat, logs: Mapping[str, Sequence[str]]) -> str:
    """The console a splat is from: the one that has its first line where the splat says.

    On a very long line a user's text may stand in front of the splat's.
    """
    first = clean(splat.text.split("\n", 1)[0].rstrip("\r"))
    for name, lines in logs.items():
        if splat.start < len(lines) and first in lines[splat.start]:
            return name
    return ""


def _console(name: str, lines: Sequence[str], run: Run, places: Sequence[str]) -> Console:
    marks: dict[int, int] = {}
    for number, (splat, place) in enumerate(zip(run.splats, places, strict=True)):
        if place == name:
            marks.update(dict.fromkeys(range(splat.start, min(splat.end, len(lines))), number))
    shown = _shown(len(lines), marks)
    rows: list[ConsoleLine] = []
    previous = -1
    for index in shown:
        if index > previous + 1:
            rows.append(ConsoleLine(index, "", left_out=index - previous - 1))
        rows.append(ConsoleLine(index + 1, lines[index], marks.get(index)))
        previous = index
    return Console(name, tuple(rows), len(lines), places.count(name))


def _shown(total: int, marks: Mapping[int, int]) -> list[int]:
    """The lines a page shows: all, or the head, the tail and what is around the splats."""
    if total <= _CONSOLE_LINES:
        return list(range(total))
    keep = {*range(_CONSOLE_HEAD), *range(total - _CONSOLE_TAIL, total)}
    for index in itertools.islice(marks, _CONSOLE_LINES):
        keep.update(range(max(0, index - _CONSOLE_AROUND), min(total, index + _CONSOLE_AROUND)))
    return sorted(keep)


def _block(words: str) -> str:
    """Text of many lines for a <pre>, shortened in the middle of nowhere only when enormous."""
    kept = words[-_OUTPUT_MAX:]
    left = len(words) - len(kept)
    lines = [f"[{left} characters left out]"] if left else []
    return "\n".join([*lines, *clean_lines(kept)])


# -- words ---------------------------------------------------------------------------------------


def clean(words: str) -> str:
    """Untrusted text as one harmless line: no escapes, no control or direction characters."""
    return _BIDI.sub("", _CONTROL.sub("", _ANSI.sub("", words))).replace("\n", " ")


def clean_lines(words: str) -> list[str]:
    """The lines of untrusted text, each harmless, without an empty end."""
    return [clean(line.expandtabs()) for line in words.rstrip("\n").split("\n")] if words else []


def seconds(value: float) -> str:
    """A duration for people: "0.42 s", "3 min 20 s", "1 h 02 min"."""
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def _when(started: str) -> str:
    """A time as people write it, or what stands there when it is none."""
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(started)
        return f"{moment:%Y-%m-%d %H:%M:%S} {moment.tzname() or ''}".rstrip()
    return clean(started)


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


# -- files ---------------------------------------------------------------------------------------


def write(run: Run, directory: Path) -> None:
    """Write run.json, junit.xml and report.html into a results directory, each atomically.

    The consoles are read from there, by the names in run.consoles. InfrastructureError when a
    file cannot be written.
    """
    consoles = dict(_read_consoles(run, directory))
    save(directory / "run.json", to_json(run))
    save(directory / "junit.xml", junit(run))
    save(directory / "report.html", html(run, consoles).encode(errors="replace"))


def _read_consoles(run: Run, directory: Path) -> Iterator[tuple[str, bytes]]:
    for name in run.consoles:
        path = directory / name
        if directory.resolve() in path.resolve().parents:  # a run.json may come from anywhere
            with contextlib.suppress(OSError):
                yield name, path.read_bytes()


def save(path: Path, data: bytes) -> None:
    """Replace a file by data in one step: a reader sees the old one or the new one, never half."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InfrastructureError(f"cannot write {path}: {error.strerror}") from error
