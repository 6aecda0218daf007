"""The three forms of a report: nothing lost, nothing green by accident, nothing executed."""

from __future__ import annotations

import dataclasses
import html.parser
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import jinja2
import pytest

from rig import report, splat
from rig.errors import InfrastructureError
from rig.results import NOT_RUN, Case, Measurement, Run, Splat, Status, load_run

CONSOLES = Path(__file__).parent / "data" / "console"
HOSTILE = '<script>alert(1)</script>\x1b[31m\x1b]0;title\x07 & "x" \'\x00\u202e'
PASSED = Case("abi", "submit", "one", Status.PASS, 0.25)
FAILED = Case(
    "abi",
    "submit",
    "two",
    Status.FAIL,
    0.5,
    "expected 1, got 2",
    "# two.c:7: expected 1, got 2\n",
    "rig boot-and-test async --suite guest-tests/abi -k 'submit and two'",
)


def run(*cases: Case, complete: bool = True, splats: tuple[Splat, ...] = ()) -> Run:
    return Run(
        id="20261123-080000-async",
        started="2026-11-23T08:00:00+00:00",
        command="rig boot-and-test async",
        kernel={"name": "async", "release": "6.12.117+"},
        machine={"name": "default", "accelerator": "tcg"},
        notices=("emulated by TCG, not KVM: no /dev/kvm",),
        cases=cases,
        splats=splats,
        duration_s=83.0,
        complete=complete,
    )


def crashed() -> tuple[Run, dict[str, bytes]]:
    """A run with a real panic on the second of its consoles."""
    clean = (CONSOLES / "clean-boot.log").read_bytes()
    panic = (CONSOLES / "panic-sysrq-crash.log").read_bytes()
    consoles = {"console-0.log": clean, "console-1.log": panic}
    value = run(PASSED, Case("abi", "stress", "", Status.CRASH), splats=tuple(splat.scan(panic)))
    return dataclasses.replace(value, consoles=tuple(consoles)), consoles


# -- the verdict ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (run(PASSED), "PASS"),
        (run(PASSED, Case("s", "p", "n", Status.SKIP)), "PASS"),
        (run(PASSED, FAILED), "FAIL"),
        (run(), "FAIL"),
        (run(Case("s", "p", "n", Status.SKIP)), "FAIL"),
        (run(Case("s", "p", "n")), "FAIL"),
        (run(PASSED, splats=(Splat("bug", "kernel BUG in f", 1, 2),)), "FAIL"),
        (run(PASSED, complete=False), "INCOMPLETE"),
    ],
)
def test_every_form_agrees_with_the_exit_code(value: Run, word: str) -> None:
    assert report.verdict(value).word == word
    green = value.exit_code == 0
    assert report.verdict(value).good is green
    assert report.text(value, color=False).splitlines()[-1].startswith(f"{word}: ")
    root = ET.fromstring(report.junit(value))
    assert (int(root.get("failures", "0")) + int(root.get("errors", "0")) == 0) is green
    assert f"<title>{word} " in report.html(value, {})


# -- text ----------------------------------------------------------------------------------------


def test_text_says_what_failed_how_to_repeat_it_and_what_to_know() -> None:
    words = report.text(run(PASSED, FAILED), color=False)
    assert "FAIL abi/submit::two\n    expected 1, got 2\n" in words
    assert f"    reproduce: {FAILED.reproduce}\n" in words
    assert "note: emulated by TCG" in words
    assert words.endswith("FAIL: 1 failed, 1 passed in 1 min 23 s\n")


def test_what_was_not_run_for_one_reason_is_said_once() -> None:
    missed = [
        Case(
            "abi", f"p{number}", "", Status.ERROR, message=f"{NOT_RUN}no machine", reproduce="rig x"
        )
        for number in range(40)
    ]
    other = Case("abi", "q", "", Status.ERROR, message=f"{NOT_RUN}it is not built")
    told = dataclasses.replace(missed[0], program="r", output="its compiler said no")
    words = report.text(run(PASSED, *missed, other, told, FAILED), color=False)
    assert "ERROR abi/p0\n    not run: no machine\n    so were 39 more: abi/p1, abi/p2, " in words
    assert words.count("not run: no machine") == 2
    assert words.count("reproduce: rig x") == 2
    assert " abi/p39\n    reproduce: rig x\n" in words
    assert "ERROR abi/q\n    not run: it is not built\n\n" in words
    assert "    | its compiler said no\n" in words
    assert max(map(len, words.splitlines())) <= 100


def test_the_notices_are_in_a_green_verdict_too() -> None:
    value = run(PASSED)
    assert "note: emulated by TCG" in report.text(value, color=False)
    assert "emulated by TCG" in report.html(value, {})
    assert b"emulated by TCG" in report.junit(value)


def test_no_colour_means_no_escape_whatever_the_guest_printed() -> None:
    case = dataclasses.replace(FAILED, name=HOSTILE, output=f"a\n{HOSTILE}\n\x9b31m")
    value = dataclasses.replace(run(case), notices=(HOSTILE,), id=HOSTILE)
    plain = report.text(value, color=False)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", plain)
    painted = report.text(value, color=True)
    assert set(re.findall(r"\x1b\[[\d;]*m", painted)) <= {
        "\x1b[0m", "\x1b[31m", "\x1b[1;31m", "\x1b[32m", "\x1b[33m",
    }  # fmt: skip


@pytest.mark.parametrize("evil", ["\x1b]0;owned\x07", "\x1b]52;c;AAAA\x1b\\", "\x9d0;x\x9c", "\r"])
@pytest.mark.parametrize("place", ["suite", "program", "name", "message", "output", "reproduce"])
def test_no_word_of_a_case_commands_the_terminal(place: str, evil: str) -> None:
    case = dataclasses.replace(FAILED, **{place: f"before{evil}behind"})  # type: ignore[arg-type]
    words = report.text(run(case), color=False)
    assert re.search("before.*behind", words)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", words)


@pytest.mark.parametrize("place", ["type", "title", "text"])
def test_no_word_of_a_splat_commands_the_terminal(place: str) -> None:
    one = Splat("bug", "kernel BUG in f", 1, 2, text="x")
    evil = dataclasses.replace(one, **{place: "before\x1b]0;owned\x07behind"})  # type: ignore[arg-type]
    words = report.text(run(PASSED, splats=(evil,)), color=False)
    assert "beforebehind" in words
    assert "\x1b" not in words


def test_an_empty_run_still_has_a_verdict() -> None:
    assert "FAIL: no case at all" in report.text(run(), color=False)


# -- JUnit ---------------------------------------------------------------------------------------


def test_junit_has_the_structure_its_readers_share() -> None:
    value, _ = crashed()
    value = value.with_case(FAILED).with_case(Case("s", "p", "n", Status.SKIP, message="why"))
    root = ET.fromstring(report.junit(value))
    assert root.tag == "testsuites"
    assert [suite.get("name") for suite in root] == ["abi/submit", "abi/stress", "s/p", "console"]
    for suite in root:
        check_suite(suite)
    total = sum(int(suite.get("tests", "0")) for suite in root)
    assert int(root.get("tests", "0")) == total == len(value.cases) + len(value.splats)


def check_suite(suite: ET.Element) -> None:
    """The order and attributes of the schema most readers share (testsuite of Ant and Jenkins)."""
    assert suite.tag == "testsuite"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp", ""))
    assert suite[0].tag == "properties"
    cases = suite.findall("testcase")
    assert len(cases) == len(suite) - 1 == int(suite.get("tests", ""))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(attribute, "")) == len(suite.findall(f"testcase/{tag}"))
    for case in cases:
        assert case.get("name")
        assert case.get("classname")
        assert float(case.get("time", "")) >= 0
        outcomes = [child.tag for child in case if child.tag != "system-out"]
        assert len(outcomes) <= 1
        assert [child.tag for child in case][: len(outcomes)] == outcomes


def test_junit_gives_each_status_its_element() -> None:
    cases = [Case("s", "p", status.value, status, message="m") for status in Status]
    root = ET.fromstring(report.junit(run(*cases)))
    seen = {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")}
    assert seen == {
        "pass": [],
        "skip": ["skipped"],
        "fail": ["failure"],
        "error": ["error"],
        "crash": ["error"],
        "timeout": ["error"],
        "flaky": ["failure"],
    }


def test_junit_survives_what_xml_cannot_hold() -> None:
    case = Case("s", "p", HOSTILE, Status.FAIL, 0, HOSTILE, f"{HOSTILE}\n\ufffe\ud800]]>", HOSTILE)
    root = ET.fromstring(report.junit(dataclasses.replace(run(case), started="yesterday")))
    element = root.find(".//testcase")
    assert element is not None
    assert element.get("name", "").startswith("<script>alert(1)</script>")
    suite = root.find("testsuite")
    assert suite is not None
    assert suite.get("timestamp") is None


def test_facts_are_properties() -> None:
    root = ET.fromstring(report.junit(run(PASSED)))
    values = {item.get("name"): item.get("value") for item in root.iter("property")}
    assert values["kernel.release"] == "6.12.117+"
    assert values["machine.accelerator"] == "tcg"


# -- HTML ----------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """Collects what matters: tags, links to the outside, ids, text of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.unclosed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "link", "input", "br"):
            self.unclosed.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "action", "srcset", "poster", "data"):
                self.links.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_endtag(self, tag: str) -> None:
        assert self.unclosed.pop() == tag


def page(text: str) -> Page:
    parsed = Page()
    parsed.feed(text)
    parsed.close()
    assert parsed.unclosed == []
    return parsed


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    value, consoles = crashed()
    value = dataclasses.replace(value, measurements=(Measurement("m", 1.5, "us", "how"),))
    text = report.html(value, consoles)
    parsed = page(text)
    assert all(link.startswith("#") or link == "data:," for link in parsed.links)
    assert parsed.handlers == []
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert not re.search(r"@import|url\(|https?://", text)


def test_what_a_guest_printed_is_never_markup() -> None:
    hostile = Case(HOSTILE, HOSTILE, HOSTILE, Status.FAIL, 0, HOSTILE, HOSTILE, HOSTILE)
    value = Run(
        HOSTILE, HOSTILE, HOSTILE, {HOSTILE: HOSTILE}, {HOSTILE: HOSTILE}, {HOSTILE: HOSTILE},
        (HOSTILE,), (hostile,), (Splat(HOSTILE, HOSTILE, 0, 1, HOSTILE, HOSTILE),),
        (Measurement(HOSTILE, 1, HOSTILE, HOSTILE),), (HOSTILE, "absent" + HOSTILE),
    )  # fmt: skip
    text = report.html(value, {HOSTILE: HOSTILE.encode() * 3})
    parsed = page(text)
    assert parsed.tags.count("script") == 1
    assert "<script>alert" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_splat_is_marked_on_the_console_it_came_from() -> None:
    value, consoles = crashed()
    text = report.html(value, consoles)
    first = value.splats[0].start + 1
    assert f'<a class="where" href="#console-1.log-{first}">line {first}</a>' in text
    assert f'<div id="console-1.log-{first}" class="hit">' in text
    assert not re.search(r'id="console-0.log-\d+" class="hit"', text)
    marked = len(re.findall('class="hit"', text))
    assert marked == value.splats[0].end - value.splats[0].start


def test_a_splat_behind_a_users_text_is_marked_too() -> None:
    data = b"x" * 5_000 + b"[    1.234567] Kernel panic - not syncing: out of ideas\n"
    value = run(PASSED, splats=tuple(splat.scan(data)))
    value = dataclasses.replace(value, consoles=("console-0.log",))
    assert '<div id="console-0.log-1" class="hit">' in report.html(value, {"console-0.log": data})


def test_a_long_console_is_shown_in_part_and_says_so() -> None:
    panic = (CONSOLES / "panic-sysrq-crash.log").read_bytes()
    long = b"a line\n" * 20_000 + panic + b"another\n" * 20_000
    value = dataclasses.replace(
        run(PASSED, splats=tuple(splat.scan(long))), consoles=("console-0.log",)
    )
    text = report.html(value, {"console-0.log": long})
    assert "lines left out, all are in console-0.log" in text
    assert len(text) < 1_000_000
    assert f'id="console-0.log-{value.splats[0].start + 1}" class="hit"' in text


def test_escapes_and_direction_marks_leave_no_trace() -> None:
    assert (
        report.clean("\x1b[1;31mred\x1b[0m \x1b]8;;x\x1b\\link\x9b0m\u202e\nend")
        == "red link0m end"
    )
    assert report.clean_lines("a\tb\n\x1b[2Jc\n") == ["a       b", "c"]


def test_an_unknown_value_in_a_template_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        report._environment().from_string("{{ nobody_gave_this }}").render()
    with pytest.raises(jinja2.UndefinedError):
        report.template("report.html")
    with pytest.raises(jinja2.TemplateNotFound):
        report.template("none.html")


# -- files ---------------------------------------------------------------------------------------


def test_write_makes_the_three_files_and_nothing_else(tmp_path: Path) -> None:
    value, consoles = crashed()
    for name, data in consoles.items():
        (tmp_path / name).write_bytes(data)
    report.write(value, tmp_path)
    report.write(value, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "run.json", "junit.xml", "report.html", "console-0.log", "console-1.log",
    }  # fmt: skip
    assert load_run(tmp_path / "run.json") == value
    assert "Kernel panic" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_missing_console_is_said_to_be_missing(tmp_path: Path) -> None:
    report.write(dataclasses.replace(run(PASSED), consoles=("console-0.log",)), tmp_path)
    assert "console-0.log was not found" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_run_from_elsewhere_cannot_pull_in_other_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hidden words", encoding="utf-8")
    inner = tmp_path / "results"
    inner.mkdir()
    value = dataclasses.replace(run(PASSED), consoles=("../secret", str(tmp_path / "secret")))
    report.write(value, inner)
    assert "hidden words" not in (inner / "report.html").read_text(encoding="utf-8")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    report.save(path, b"old")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InfrastructureError, match="cannot write"):
        report.save(tmp_path / "file" / "run.json", b"new")
    with pytest.raises(TypeError):
        report.save(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "run.json"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0.00 s"),
        (9.994, "9.99 s"),
        (59.9, "59.9 s"),
        (83, "1 min 23 s"),
        (7320, "2 h 02 min"),
    ],
)
def test_durations_for_people(value: float, words: str) -> None:
    assert report.seconds(value) == words
