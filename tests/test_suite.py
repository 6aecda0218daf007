"""Suites: found or refused with words, listed by make, compiled as the kernel's own are."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rig import suite
from rig.errors import BuildError, UsageError
from rig.kbuild import Kernel
from rig.progress import QUIET
from rig.store import Store
from rig.suite import BuiltSuite

SUITES = Path(__file__).parent / "data" / "suites"

# The parts of the kernel's lib.mk that decide where things are looked for and put.
LIB = """\
OUTPUT := $(shell pwd)
selfdir = $(realpath $(dir $(filter %/lib.mk,$(MAKEFILE_LIST))))
top_srcdir = $(selfdir)/../../..
TEST_GEN_PROGS := $(patsubst %,$(OUTPUT)/%,$(TEST_GEN_PROGS))
all: $(TEST_GEN_PROGS)
CFLAGS += -D_GNU_SOURCE=
install: all
\tmkdir -p $(INSTALL_PATH)
\tcp -rp $(TEST_PROGS) $(TEST_FILES) $(TEST_GEN_PROGS) $(wildcard config settings) $(INSTALL_PATH)/
emit_tests:
\tfor TEST in $(TEST_GEN_PROGS) $(TEST_PROGS); do echo "$(COLLECTION):`basename $$TEST`"; done
clean:
\trm -f $(TEST_GEN_PROGS) $(EXTRA_CLEAN)
$(OUTPUT)/%: %.c
\t$(CC) $(CFLAGS) $(LDFLAGS) $< -o $@
"""
MAKEFILE = "TEST_GEN_PROGS := prog\nTEST_PROGS := script.py\n\ninclude ../lib.mk\n"
HEADER = "#define ASYNC_SUBMIT_OFFLOAD 1\n"
PROGRAM = """\
#include <stdio.h>
#include <linux/async_submit.h>
#include "../kselftest.h"

int main(void)
{
	printf("%d %s\\n", ASYNC_SUBMIT_OFFLOAD, KSELFTEST);
	return 0;
}
"""

Compile = Callable[[Path], BuiltSuite]


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A kernel as far as a suite sees it: a tree with lib.mk, and installed headers."""
    tree, headers = tmp_path / "linux", tmp_path / "usr"
    selftests = tree / suite.SELFTESTS
    (selftests / "kselftest").mkdir(parents=True)
    (selftests / "kselftest" / "ktap_helpers.sh").write_text("true\n")
    (selftests / "lib.mk").write_text(LIB)
    (selftests / "kselftest.h").write_text('#define KSELFTEST "the tree\'s own"\n')
    (headers / "include" / "linux").mkdir(parents=True)
    (headers / "include" / "linux" / "async_submit.h").write_text(HEADER)
    nothing = tmp_path / "nothing"
    return Kernel(
        "test", "k1", nothing, os.uname().machine, "6.12.0", nothing, nothing, nothing, nothing,
        headers, lambda: tree, nothing, False,
    )  # fmt: skip


@pytest.fixture
def compile_(kernel: Kernel, tmp_path: Path) -> Compile:
    store = Store(tmp_path / "store")
    return lambda place: suite.compile(suite.discover(place), kernel, store, QUIET)


def make_suite(place: Path, **files: str) -> Path:
    """A suite directory with a Makefile, prog.c and script.py, and further or other files."""
    place.mkdir(parents=True)
    texts = {"Makefile": MAKEFILE, "prog.c": PROGRAM, "script.py": "#!/usr/bin/python3\n"}
    for name, text in {**texts, **files}.items():
        (place / name).write_text(text)
    return place


def ran(built: BuiltSuite, program: str) -> str:
    """What a compiled program prints on this host."""
    place = built.directory / built.workdir
    done = subprocess.run([f"./{program}"], cwd=place, capture_output=True, text=True, check=True)
    return done.stdout


# -- finding -----------------------------------------------------------------------------------


def test_discover_reads_what_a_suite_says_of_itself(tmp_path: Path) -> None:
    place = make_suite(tmp_path / "abi", settings="# why\ntimeout=7\n", config="CONFIG_NET=y\n")
    found = suite.discover(place)
    assert (found.name, found.timeout_s, found.target) == ("abi", 7.0, "")
    assert found.config == place / "config"


def test_a_case_has_a_limit_where_settings_give_one(tmp_path: Path) -> None:
    found = suite.discover(make_suite(tmp_path / "abi", settings="case_timeout=5\n"))
    assert (found.timeout_s, found.case_timeout_s) == (45.0, 5.0)
    assert suite.programs(found)[0].case_timeout_s == 5.0
    assert suite.discover(make_suite(tmp_path / "net")).case_timeout_s == 0.0


def test_a_suite_without_settings_has_kselftests_time(tmp_path: Path) -> None:
    assert suite.discover(make_suite(tmp_path / "abi")).timeout_s == 45.0


def test_a_time_out_of_0_is_long_but_not_for_ever(tmp_path: Path) -> None:
    found = suite.discover(make_suite(tmp_path / "abi", settings="timeout=0\n"))
    assert found.timeout_s == suite.UNLIMITED_TIMEOUT_S


def test_a_target_knows_its_place_in_the_tree(kernel: Kernel) -> None:
    place = make_suite(kernel.tree / suite.SELFTESTS / "net" / "forwarding")
    found = suite.discover(place)
    assert (found.target, found.place) == ("net/forwarding", "net/forwarding")
    assert suite.distinct([found])[0].name == "net/forwarding"


@pytest.mark.parametrize(
    ("files", "reason", "hint"),
    [
        ({}, "it has no Makefile", "see docs"),
        ({"t.c": "", "u.py": ""}, "no Makefile", "TEST_GEN_PROGS := t\nTEST_PROGS := u.py"),
        ({"Makefile": "all:\n"}, "does not `include ../lib.mk`", "see docs"),
        ({"Makefile": "include ../lib.mk\n"}, "names no TEST_GEN_PROGS", "see docs"),
    ],
)
def test_what_is_no_suite_is_refused_with_words(
    tmp_path: Path, files: dict[str, str], reason: str, hint: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as caught:
        suite.discover(tmp_path)
    assert reason in caught.value.message
    assert hint in caught.value.hint


def test_a_directory_of_suites_names_them(tmp_path: Path) -> None:
    make_suite(tmp_path / "abi")
    with pytest.raises(UsageError) as caught:
        suite.discover(tmp_path)
    assert "suites inside it: abi" in caught.value.hint


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a directory"):
        suite.discover(tmp_path / "absent")


def test_a_wrong_time_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="timeout is '1m'"):
        suite.discover(make_suite(tmp_path / "abi", settings="timeout=1m\n"))


def test_names_that_clash_get_their_parents(tmp_path: Path) -> None:
    places = [make_suite(tmp_path / name) for name in ("a/abi", "b/abi", "b/net")]
    named = suite.distinct([suite.discover(place) for place in [*places, places[0]]])
    assert [one.name for one in named] == ["a/abi", "b/abi", "net"]


# -- listing -----------------------------------------------------------------------------------


def test_make_itself_lists_the_programs(tmp_path: Path) -> None:
    makefile = (
        "TEST_PROGS := $(wildcard test_*.sh)\n"
        "ifeq ($(shell echo yes),yes)\nTEST_GEN_PROGS += built\nendif\n"
        "include ../lib.mk\n$(OUTPUT)/built: $(LOCAL)\n"
    )
    place = make_suite(tmp_path / "abi", Makefile=makefile, **{"test_a.sh": "", "test_b.sh": ""})
    listed = suite.programs(suite.discover(place))
    assert [program.name for program in listed] == ["built", "test_a.sh", "test_b.sh"]
    assert listed[0].argv == ("./built",)


def test_nothing_to_run_is_refused(tmp_path: Path) -> None:
    place = make_suite(tmp_path / "abi", Makefile="TEST_PROGS :=\ninclude ../lib.mk\n")
    with pytest.raises(UsageError, match="names no program to run"):
        suite.programs(suite.discover(place))


def test_a_surrounding_make_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MAKEFLAGS": "n", "MAKELEVEL": "1", "OUTPUT": "/nowhere"}.items():
        monkeypatch.setenv(name, value)
    assert len(suite.programs(suite.discover(make_suite(tmp_path / "abi")))) == 2


# -- compiling ---------------------------------------------------------------------------------


def test_a_strangers_suite_compiles_unchanged(tmp_path: Path, compile_: Compile) -> None:
    built = compile_(make_suite(tmp_path / "elsewhere" / "abi", settings="timeout=3\n"))
    assert ran(built, "prog") == "1 the tree's own\n"
    assert [program.name for program in built.programs] == ["prog", "script.py"]
    assert built.programs[0].timeout_s == 3.0
    assert os.access(built.directory / "abi" / "script.py", os.X_OK)
    assert (built.directory / "kselftest" / "ktap_helpers.sh").is_file()


def test_a_suite_made_for_a_deeper_place_compiles_too(tmp_path: Path, compile_: Compile) -> None:
    deeper = MAKEFILE.replace("../lib.mk", "../../lib.mk")
    program = PROGRAM.replace("../kselftest.h", "../../kselftest.h")
    place = make_suite(tmp_path / "lower", Makefile=deeper, **{"prog.c": program})
    assert len(suite.programs(suite.discover(place))) == 2
    assert ran(compile_(place), "prog") == "1 the tree's own\n"


def test_programs_are_static(tmp_path: Path, compile_: Compile) -> None:
    built = compile_(make_suite(tmp_path / "abi"))
    program = built.directory / "abi" / "prog"
    assert b"/lib64/ld-linux" not in program.read_bytes()


def test_an_object_is_linked_into_programs(
    tmp_path: Path, kernel: Kernel, compile_: Compile
) -> None:
    source = tmp_path / "part.c"
    source.write_text('const char part_of_it[] = "a part of it";\n')
    subprocess.run(["gcc", "-c", "-o", tmp_path / "part.o", source], check=True)
    place = make_suite(tmp_path / "abi")
    plain = compile_(place)
    asked = dataclasses.replace(suite.discover(place), link=(tmp_path / "part.o",))
    linked = suite.compile(asked, kernel, Store(tmp_path / "store"), QUIET)
    has = [
        b"a part of it" in (built.directory / "abi/prog").read_bytes() for built in (plain, linked)
    ]
    assert has == [False, True]


def test_the_suites_own_directory_stays_clean(tmp_path: Path, compile_: Compile) -> None:
    place = make_suite(tmp_path / "abi")
    before = sorted(path.name for path in place.iterdir())
    compile_(place)
    assert sorted(path.name for path in place.iterdir()) == before


def test_what_was_built_for_another_kernel_is_not_used(tmp_path: Path, compile_: Compile) -> None:
    place = make_suite(tmp_path / "abi")
    shutil.copy("/bin/false", place / "prog")
    assert ran(compile_(place), "prog") == "1 the tree's own\n"


def test_an_unchanged_suite_comes_from_the_store(tmp_path: Path, compile_: Compile) -> None:
    place = make_suite(tmp_path / "abi")
    first = compile_(place)
    stamp = (first.directory / "abi" / "prog").stat().st_mtime_ns
    again = compile_(place)
    assert again.directory == first.directory
    assert (again.directory / "abi" / "prog").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("name", ["prog.c", "script.py", "data"])
def test_any_changed_file_compiles_it_again(tmp_path: Path, compile_: Compile, name: str) -> None:
    place = make_suite(tmp_path / "abi", data="1")
    first = compile_(place)
    with (place / name).open("a") as file:
        file.write("\n")
    assert compile_(place).directory != first.directory


def test_a_target_of_the_tree_compiles_in_its_place(kernel: Kernel, compile_: Compile) -> None:
    place = make_suite(
        kernel.tree / suite.SELFTESTS / "net" / "lower",
        Makefile=MAKEFILE.replace("../lib.mk", "../../lib.mk"),
        **{"prog.c": PROGRAM.replace("../kselftest.h", "../../kselftest.h")},
    )
    (place.parent / "beside.h").write_text("")
    built = compile_(place)
    assert built.workdir == "net/lower"
    assert ran(built, "prog") == "1 the tree's own\n"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("int main(void)\n{\n\treturn wrong;\n}\n", "prog.c:3: 'wrong' undeclared"),
        ("#include <linux/absent.h>\n", "prog.c:1: linux/absent.h: No such file"),
        ("int absent(void);\nint main(void) { return absent(); }\n", "undefined reference to"),
    ],
)
def test_a_compile_error_names_file_and_line(
    tmp_path: Path, compile_: Compile, program: str, words: str
) -> None:
    place = make_suite(tmp_path / "abi", **{"prog.c": program})
    with pytest.raises(BuildError) as caught:
        compile_(place)
    error = caught.value
    assert words in error.message.replace("‘", "'").replace("’", "'")  # noqa: RUF001
    assert error.exit_code == 4
    again = subprocess.run(error.reproduce, shell=True, capture_output=True, text=True, check=False)  # noqa: S602
    assert again.returncode != 0
    assert "prog.c" in again.stderr


def test_a_program_that_make_did_not_make_is_an_error(
    tmp_path: Path, compile_: Compile, kernel: Kernel
) -> None:
    (kernel.tree / suite.SELFTESTS / "lib.mk").write_text(
        LIB.replace("$(CC) $(CFLAGS) $(LDFLAGS) $< -o $@", "true").replace("cp -rp", "true")
    )
    with pytest.raises(BuildError, match="made no prog"):
        compile_(make_suite(tmp_path / "abi"))


def test_suites_of_one_name_do_not_meet(tmp_path: Path, compile_: Compile) -> None:
    other = PROGRAM.replace("ASYNC_SUBMIT_OFFLOAD", "2")
    one = compile_(make_suite(tmp_path / "a" / "abi"))
    two = compile_(make_suite(tmp_path / "b" / "abi", **{"prog.c": other}))
    assert (ran(one, "prog")[0], ran(two, "prog")[0]) == ("1", "2")


def test_links_inside_a_suite_stay_links(tmp_path: Path, compile_: Compile) -> None:
    place = make_suite(tmp_path / "abi", Makefile=f"TEST_FILES := data more now\n{MAKEFILE}")
    for name in ("data", "more"):
        (place / name).mkdir()
        (place / name / "one").write_text("1")
    (place / "now").symlink_to("data")
    first = compile_(place)
    assert (first.directory / "abi" / "now").readlink() == Path("data")
    assert (first.directory / "abi" / "now" / "one").read_text() == "1"
    (place / "now").unlink()
    (place / "now").symlink_to("more")
    assert compile_(place).directory != first.directory


def test_a_link_to_a_file_elsewhere_is_copied(tmp_path: Path, compile_: Compile) -> None:
    place = make_suite(tmp_path / "abi", Makefile=f"TEST_FILES := data\n{MAKEFILE}")
    (tmp_path / "shared").write_text("1")
    (place / "data").symlink_to("../shared")
    first = compile_(place)
    assert not (first.directory / "abi" / "data").is_symlink()
    (tmp_path / "shared").write_text("2")
    assert (compile_(place).directory / "abi" / "data").read_text() == "2"


@pytest.mark.parametrize("target", ["..", "/usr", "../absent"])
def test_a_link_that_leaves_its_suite_is_refused(tmp_path: Path, target: str) -> None:
    place = make_suite(tmp_path / "abi")
    (place / "data").symlink_to(target)
    with pytest.raises(UsageError, match=f"data is a link that leaves its suite: {target}"):
        suite.discover(place)


def test_nothing_is_left_of_a_compile(tmp_path: Path, compile_: Compile) -> None:
    compile_(make_suite(tmp_path / "abi"))
    compile_(tmp_path / "abi")
    assert list((tmp_path / "store" / "suite-stages").iterdir()) == []


def test_the_examples_are_suites() -> None:
    assert {path.name for path in SUITES.iterdir() if suite.is_suite(path)} == {
        "environment",
        "hello",
        "trouble",
    }


PARTS = dict.fromkeys(("arch", "include", "scripts", "tools", "kernel"), "1")


def with_parts(kernel: Kernel, /, **changes: str) -> Kernel:
    """The kernel, its parts known, some of them changed; another kernel has another key."""
    return replace(kernel, parts={**PARTS, **changes}, key=repr(changes))


def test_a_suite_is_compiled_again_for_what_it_sees_of_a_kernel(
    tmp_path: Path, kernel: Kernel
) -> None:
    store, found = Store(tmp_path / "store"), suite.discover(make_suite(tmp_path / "abi"))

    def compiled(seen: Kernel) -> Path:
        return suite.compile(found, seen, store, QUIET).directory

    first = compiled(with_parts(kernel))
    assert compiled(with_parts(kernel, kernel="2", mm="2")) == first
    others = [compiled(with_parts(kernel, **{name: "2"})) for name in PARTS if name != "kernel"]
    assert len({first, *others}) == 5
    (kernel.headers / "include/linux/async_submit.h").write_text(HEADER + "#define MORE 1\n")
    assert compiled(with_parts(kernel)) != first


def test_what_is_not_in_a_suites_key_is_not_there_for_it(tmp_path: Path, kernel: Kernel) -> None:
    (kernel.tree / "kernel").mkdir()
    (kernel.tree / "kernel" / "secret.h").write_text("")
    program = '#include "../../../../kernel/secret.h"\n' + PROGRAM
    found = suite.discover(make_suite(tmp_path / "abi", **{"prog.c": program}))
    store = Store(tmp_path / "store")
    with pytest.raises(BuildError, match=r"kernel/secret\.h: No such file"):
        suite.compile(found, with_parts(kernel), store, QUIET)
    suite.compile(found, kernel, store, QUIET)  # nothing is known of its parts: it sees all


def test_a_change_in_one_suite_compiles_only_that(tmp_path: Path, compile_: Compile) -> None:
    places = [make_suite(tmp_path / name) for name in ("a", "b")]
    before = [compile_(place).directory for place in places]
    (places[0] / "prog.c").write_text(PROGRAM + "\n")
    after = [compile_(place).directory for place in places]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True]
