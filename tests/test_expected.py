"""ci/expected.toml: what it lets pass, for how long, and what it never does."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from rig import expected
from rig.errors import UsageError
from rig.expected import Expected
from rig.results import Case, Splat, Status

ROOT = Path(__file__).parents[1]
TODAY = datetime.date(2027, 1, 1)
WHY = 'reason = "upstream"\nlink = "https://x"\nexpires = 2027-03-01\n'


def load(tmp_path: Path, text: str, kernel: str = "async") -> Expected:
    path = tmp_path / expected.FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return expected.load(tmp_path, kernel, TODAY)


def test_the_projects_own_is_sound() -> None:
    assert expected.load(ROOT, "async").expired == ()


def test_no_file(tmp_path: Path) -> None:
    assert expected.load(tmp_path, "async", TODAY) == Expected()


def test_an_allowed_splat_is_told_and_fails_nothing(tmp_path: Path) -> None:
    known = load(tmp_path, f'[[splat]]\ntitle = "WARNING in a*"\n{WHY}')
    splats = [Splat("warning", "WARNING in abc", 0, 1), Splat("bug", "kernel BUG in abc", 1, 2)]
    kept, notices = known.allowed(splats)
    assert kept == (splats[1],)
    assert notices == ("allowed splat: WARNING in abc: upstream (https://x), until 2027-03-01",)


def test_only_a_star_is_special(tmp_path: Path) -> None:
    known = load(tmp_path, f'[[splat]]\ntitle = "a?c [d]"\n{WHY}')
    assert known.allowed([Splat("bug", "a?c [d]", 0, 1)])[0] == ()
    assert len(known.allowed([Splat("bug", "abc d", 0, 1)])[0]) == 1


def test_a_line_may_be_of_some_kernels(tmp_path: Path) -> None:
    text = f'[[splat]]\ntitle = "x"\nkernels = ["kasan"]\n{WHY}'
    assert load(tmp_path, text, "async").splats == ()
    assert len(load(tmp_path, text, "kasan").splats) == 1


def test_an_expired_line_lets_nothing_pass(tmp_path: Path) -> None:
    text = f'[[splat]]\ntitle = "x"\n{WHY.replace("2027-03-01", "2027-01-01")}'
    known = load(tmp_path, text)
    assert known.allowed([Splat("bug", "x", 0, 1)])[0]
    assert known.expired == (
        "ci/expected.toml: expired: x: upstream (https://x), until 2027-01-01",
    )


def case(status: Status, name: str = "c") -> Case:
    return Case("s", "p", name, status, message="words")


@pytest.mark.parametrize(
    ("line", "was", "becomes"),
    [
        ("", Status.FAIL, Status.SKIP),
        ("", Status.CRASH, Status.CRASH),
        ("", Status.SKIP, Status.SKIP),
        ("", Status.PASS, Status.FAIL),
        ("flaky = true\n", Status.PASS, Status.PASS),
        ('status = "timeout"\n', Status.TIMEOUT, Status.SKIP),
        ('status = "timeout"\n', Status.FAIL, Status.FAIL),
    ],
)
def test_an_expected_failure(tmp_path: Path, line: str, was: Status, becomes: Status) -> None:
    known = load(tmp_path, f'[[case]]\nid = "s/p::c"\n{line}{WHY}')
    (found, other) = known.judged([case(was), case(Status.FAIL, "d")])
    assert found.status is becomes
    assert other == case(Status.FAIL, "d")
    if was is Status.FAIL and becomes is Status.SKIP:
        assert found.message == "expected: upstream (https://x), until 2027-03-01: words"
    if was is Status.PASS and becomes is Status.FAIL:
        assert "it passes now: remove its line" in found.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "Expected '='"),
        ("[[splot]]\n", "unknown table 'splot'"),
        ("[splat]\n", r"write \[\[splat\]\]"),
        (f'[[splat]]\ntitel = "x"\n{WHY}', "number 1: unknown key 'titel'"),
        ('[[splat]]\ntitle = "x"\nlink = "l"\nexpires = 2027-03-01\n', "`reason`"),
        ('[[splat]]\ntitle = "x"\nlink = "l"\nreason = "r"\n', "`expires`"),
        ('[[splat]]\ntitle = "x"\nlink = "l"\nreason = "r"\nexpires = "soon"\n', "number 1"),
        (f'[[splat]]\ntitle = " "\n{WHY}', "must say something"),
        (f'[[case]]\nid = "s/p"\nstatus = "pass"\n{WHY}', "'pass' is no failure"),
        (f'[[case]]\nid = "s/p"\nstatus = "bad"\n{WHY}', "Invalid enum value 'bad'"),
    ],
)
def test_a_line_that_says_too_little(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load(tmp_path, text)
