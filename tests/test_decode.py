"""Traces with source lines: what the script is given, what comes back, and for real."""

from __future__ import annotations

import pytest

from rig import decode, report
from rig.errors import InfrastructureError
from rig.kbuild import Kernel
from rig.results import Run, Splat

TRACE = """\
BUG: kernel NULL pointer dereference, address: 0000000000000000
RIP: 0010:one.isra.0+0x12/0x40
 two+0x1/0x2
 ? two+0x1/0x2
 in_a_module+0x1/0x2 [module]
"""


def test_each_function_is_looked_up_once() -> None:
    ours = ["one.isra.0+0x12/0x40", "two+0x1/0x2", "in_a_module+0x1/0x2 [module]"]
    assert decode.wanted(TRACE) == ours
    built = "f+0x1/0x2 [m 0123456789abcdef0123456789abcdef01234567]\ng+0x1/0x2 [inline $(x)]\n"
    assert decode.wanted(built) == [built.splitlines()[0], "g+0x1/0x2"]
    many = "\n".join(f"f{n}+0x1/0x2" for n in range(200))
    assert len(decode.wanted(many)) == 60


def test_the_script_is_given_nothing_of_a_guests() -> None:
    """It does arithmetic on what it reads, and a[$(reboot)] is arithmetic to a shell."""
    text = "x+0xa[$(touch /tmp/x)]/0x2\nx$(id)+0x1/0x2 `id`\n+0x1/0x2\nx+0x123456789/0x1\n"
    assert all(token.replace(".", "").replace("+0x", "").replace("/0x", "").isalnum()
               for token in decode.wanted(text))  # fmt: skip
    assert decode.wanted("a[$(touch x)]+0x1/0x2") == []


def test_lines_come_back_one_for_each() -> None:
    tokens = ["one+0x1/0x2", "two+0x1/0x2", "three+0x1/0x2"]
    said = [" one (/usr/src/linux/a.c:1 b/../c.h:2)", " two+0x1/0x2", " three (??:?)"]
    assert decode.paired(tokens, said) == {"one+0x1/0x2": "a.c:1 c.h:2"}
    pieces = decode.paired(["f+0x1/0x2"], [" f (a.c:4 (discriminator 3) b.c:5 (discriminator 1))"])
    assert pieces == {"f+0x1/0x2": "a.c:4 b.c:5"}
    of_a_module = decode.paired(["f+0x1/0x2 [m]"], [" f (/usr/src/linux/d.c:4) m"])
    assert of_a_module == {"f+0x1/0x2 [m]": "d.c:4"}
    with pytest.raises(InfrastructureError, match="3 functions with 2 lines"):
        decode.paired(tokens, said[1:])


def test_places_stand_behind_their_functions() -> None:
    places = {"one.isra.0+0x12/0x40": "i.h:5 a.c:7", "two+0x1/0x2": "b.c:9"}
    text = decode.with_places(TRACE, places)
    assert "RIP: 0010:one.isra.0+0x12/0x40 (i.h:5 a.c:7)\n two+0x1/0x2 (b.c:9)\n ? two" in text
    assert " in_a_module+0x1/0x2 [module]\n" in text
    blamed = [Splat("bug", "t", 0, 5, frame, TRACE) for frame in ("one", "two", "three", "")]
    assert [decode.place_of(one, places) for one in blamed] == ["a.c:7", "b.c:9", "", ""]


def test_a_splat_without_a_trace_stays_as_it_is() -> None:
    one = Splat("panic", "kernel panic: x", 0, 1, "", "Kernel panic - not syncing: x")
    assert decode.decode(one, None) is one  # type: ignore[arg-type]


@pytest.mark.kernel
def test_a_line_of_the_series_and_one_of_the_source(built_kernel: Kernel) -> None:
    def splat(name: str) -> Splat:
        text = f"WARNING: x\nRIP: 0010:{name}+0x1/0x20\n do_syscall_64+0x5/0xb0\n"
        return decode.decode(Splat("warning", "t", 0, 3, name, text), built_kernel)

    ours, theirs = splat("__x64_sys_async_submit"), splat("filp_flush")
    assert ours.place.startswith("kernel/async_submit.c:")
    assert ours.patch.endswith(".patch")
    assert "async_submit" in ours.patch
    assert theirs.place.startswith("fs/open.c:")
    assert theirs.patch == ""
    assert "do_syscall_64+0x5/0xb0 (arch/x86/entry/common.c:" in theirs.decoded


def test_the_report_says_where_and_whose() -> None:
    one = Splat(
        "bug", "kernel BUG in f", 0, 1, "f", "raw", False, "decoded", "a.c:7", "0001-x.patch"
    )
    run = Run("id", "2026-01-01T00:00:00+00:00", "rig", splats=(one,))
    for text in (
        report.text(run, color=False), report.junit(run).decode(), report.html(run, {}),
    ):  # fmt: skip
        assert "at a.c:7, last touched by 0001-x.patch" in text
        assert "decoded" in text
    pristine = Splat("bug", "t", 0, 1, "f", "raw", place="a.c:7")
    assert report.blame(pristine) == "a.c:7, last touched by nobody: the pristine source"
