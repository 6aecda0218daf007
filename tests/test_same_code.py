"""ci/same_code.py on objects of the real compiler."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rig.errors import InfrastructureError

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "ci"))  # where a script of ci/ finds what it shares
same_code = importlib.import_module("same_code")

SOURCE = """\
const char *name(void) { return "a"; }
int fail(const char *file, int line);
int line(void) { return fail("x", __LINE__) + 1; }
int other(int a) { return a ADD; }
"""


def tree(place: Path, source: str, *flags: str) -> Path:
    """A build tree of one object."""
    (place / "kernel").mkdir(parents=True)
    (place / "x.c").write_text(source)
    words = ["gcc", "-O2", "-c", *flags, "-o", str(place / "kernel/x.o"), str(place / "x.c")]
    subprocess.run(words, check=True)
    return place


def compared(tmp_path: Path, one: str, two: str) -> tuple[int, tuple[str, ...]]:
    ours, theirs = tree(tmp_path / "1", one), tree(tmp_path / "2", two)
    verdict = same_code.compare(ours, theirs)
    return verdict.functions, verdict.different


def test_the_same_file_is_not_even_looked_at(tmp_path: Path) -> None:
    text = SOURCE.replace("ADD", "+ 1")
    assert compared(tmp_path, text, text) == (0, ())


def test_a_function_that_differs_is_named(tmp_path: Path) -> None:
    one, two = (SOURCE.replace("ADD", f"+ {number}") for number in (1, 2))
    assert compared(tmp_path, one, two) == (3, ("kernel/x.o: other",))


def test_where_a_string_lies_does_not_matter(tmp_path: Path) -> None:
    text = SOURCE.replace("ADD", "+ 1")
    more = 'const char *first(void) { return "before all others"; }\n'
    assert compared(tmp_path, text, more + text)[1] == ("kernel/x.o: first", "kernel/x.o: line")


def test_a_function_of_one_build_only(tmp_path: Path) -> None:
    text = SOURCE.replace("ADD", "+ 1")
    more = "int more(void) { return 7; } "  # no line of its own: there is a __LINE__
    assert compared(tmp_path, text, more + text) == (4, ("kernel/x.o: more",))


def test_an_object_of_one_build_only(tmp_path: Path) -> None:
    ours, theirs = (tree(tmp_path / one, "int a;\n") for one in "12")
    (theirs / "kernel/x.o").rename(theirs / "kernel/y.o")
    found = same_code.compare(ours, theirs).different
    assert found == tuple(f"kernel/{name}.o: in one of the builds only" for name in "xy")


def test_another_function_that_is_called(tmp_path: Path) -> None:
    text = "int one(void), two(void); int f(void) {{ return {}() + 1; }}\n"
    one, two = text.format("one"), text.format("two")
    assert compared(tmp_path, one, two) == (1, ("kernel/x.o: f",))


def test_the_number_in_a_name_does_not_matter(tmp_path: Path) -> None:
    # As the kernel's macros make one for each exported symbol, numbered by __COUNTER__.
    text = "extern int __UNIQUE_ID_addressable_x{0}; int f(void) {{ return {1}; }}\n"
    name = "__UNIQUE_ID_addressable_x"
    one = text.format(17, f"{name}17")
    assert compared(tmp_path / "same", one, text.format(18, f"{name}18")) == (1, ())
    other = text.format(18, f"{name}18 + 1")
    assert compared(tmp_path / "other", one, other)[1] == ("kernel/x.o: f",)


def test_what_has_to_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_code, "EXPECTED", {"kernel/x.o": {"other"}})
    ours, theirs = (
        tree(tmp_path / str(number), SOURCE.replace("ADD", f"+ {number}")) for number in (1, 2)
    )
    verdict = same_code.compare(ours, theirs)
    assert verdict.different == ()
    assert verdict.expected == ("kernel/x.o: other",)


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert same_code.main(["one"]) == 2
    assert "usage: same_code.py KERNEL KERNEL" in capsys.readouterr().err


def test_a_build_tree_that_has_gone_on_is_not_compared(tmp_path: Path) -> None:
    entry, tree = tmp_path / "entry", tmp_path / "build" / "plain-1"
    entry.mkdir()
    tree.mkdir(parents=True)
    (entry / "metadata.json").write_text(json.dumps({"by_hand": f"make O={tree} vmlinux"}))
    (tree / "vmlinux").write_text("one kernel")
    (entry / "vmlinux").hardlink_to(tree / "vmlinux")
    assert same_code.tree_of(entry) == tree
    (tree / "vmlinux").unlink()
    (tree / "vmlinux").write_text("another one")
    with pytest.raises(InfrastructureError, match="has gone on to another configuration"):
        same_code.tree_of(entry)
