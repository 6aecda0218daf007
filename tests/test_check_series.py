"""ci/check_series.py: what it takes for a remark, and what it does not take for silence."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from pathlib import Path

import pytest

from rig.errors import InfrastructureError

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "ci"))  # where a script of ci/ finds what it shares
check_series = importlib.import_module("check_series")

# What make prints for a file that sparse looks at, and what sparse does.
MAKEFILE = """\
%.o: %.c
\t@echo '  CHECK   $<'
\t@cat $*.said >&2
"""


def checkpatch(place: Path, said: str, code: int) -> Path:
    """A tree whose checkpatch says this."""
    (place / "scripts").mkdir(parents=True)
    (place / "scripts/checkpatch.pl").write_text(f"print <<'END';\n{said}END\nexit {code};\n")
    return place


def test_remarks_of_checkpatch(tmp_path: Path) -> None:
    said = "1.patch:7: CHECK: Alignment\n1.patch:9: WARNING: 'x' may be misspelled\n"
    tree = checkpatch(tmp_path, said, 1)
    assert check_series.style(tree, [tmp_path / "1.patch"]) == said.splitlines()


def test_a_clean_patch(tmp_path: Path) -> None:
    assert check_series.style(checkpatch(tmp_path, "", 0), [tmp_path / "1.patch"]) == []


@pytest.mark.parametrize("code", [1, 2])
def test_a_checkpatch_that_fails_is_not_a_clean_patch(tmp_path: Path, code: int) -> None:
    tree = checkpatch(tmp_path, "Must be run from the top-level dir\n", code)
    with pytest.raises(InfrastructureError, match=r"checkpatch\.pl failed"):
        check_series.style(tree, [tmp_path / "1.patch"])


def build(place: Path, said: str) -> Path:
    """A build tree with one file, of which sparse says this."""
    (place / "source").mkdir(parents=True)
    (place / "Makefile").write_text(MAKEFILE)
    (place / "x.c").touch()
    (place / "x.said").write_text(said)
    return place


def test_remarks_of_sparse_have_no_line_numbers(tmp_path: Path) -> None:
    said = "../x.c:1:2: warning: symbol 'a' was not declared\n../x.c:9:2: warning: other\n"
    other = "../x.c:4:2: warning: symbol 'a' was not declared\n"
    one, two = build(tmp_path / "1", said), build(tmp_path / "2", other)
    more = check_series.sparse(one, ["x.c"]) - check_series.sparse(two, ["x.c"])
    assert more == Counter({"x.c: warning: other": 1})


def test_a_file_that_was_not_looked_at(tmp_path: Path) -> None:
    tree = build(tmp_path / "1", "")
    (tree / "Makefile").write_text("%.o: %.c\n\t@true\n")
    with pytest.raises(InfrastructureError, match="sparse did not look at x"):
        check_series.sparse(tree, ["x.c"])


def test_a_file_that_does_not_compile(tmp_path: Path) -> None:
    tree = build(tmp_path / "1", "")
    (tree / "Makefile").write_text("%.o: %.c\n\t@false\n")
    with pytest.raises(InfrastructureError, match="failed"):
        check_series.sparse(tree, ["x.c"])


def test_a_header_of_others_is_not_counted() -> None:
    said = Counter({"a.h: warning: x": 3, "a.h: warning: y": 1, "b.c: warning: x": 2})
    before = Counter({"a.h: warning: x": 2, "b.c: warning: x": 1})
    more = check_series.fresh(said, before, ["b.c"])
    assert more == Counter({"a.h: warning: y": 1, "b.c: warning: x": 1})


def test_the_file_that_is_compiled_for_one_that_is_included(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "k/policy.c").write_text('#include "one.c"\n#include "two.c"\n')
    for name in ("one.c", "two.c", "three.c"):
        (tmp_path / "k" / name).write_text("int x;\n")
    assert check_series.compiled(tmp_path, "k/two.c") == "k/policy.c"
    assert check_series.compiled(tmp_path, "k/three.c") == "k/three.c"


OLDDEFCONFIG = """\
olddefconfig:
\tgrep -v NEVER_HERE $(O)/.config >$(O)/.new && mv $(O)/.new $(O)/.config
prepare:
"""


@pytest.mark.parametrize("lost", [True, False])
def test_an_option_that_is_not_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, lost: bool
) -> None:
    options = tmp_path / "options"
    options.write_text(f"CONFIG_X=y\n{'CONFIG_NEVER_HERE=y' if lost else ''}\n")
    monkeypatch.setattr(check_series, "_OPTIONS", options)
    built = tmp_path / "build"
    (built / "source").mkdir(parents=True)
    (built / "source/Makefile").write_text(OLDDEFCONFIG)
    (built / ".config").write_text("CONFIG_OLD=y\n")
    if lost:
        with pytest.raises(InfrastructureError, match="CONFIG_NEVER_HERE=y: not to be had"):
            check_series.configured(built, tmp_path / "new")
    else:
        tree = check_series.configured(built, tmp_path / "new")
        assert (tree / ".config").read_text().split() == ["CONFIG_OLD=y", "CONFIG_X=y"]
