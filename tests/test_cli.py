"""The command as a person runs it: exit codes, one clear error, no traceback, nothing left."""

from __future__ import annotations

import bz2
import fcntl
import gzip
import json
import lzma
import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_kernel import PATCH, make_project, make_series, make_tree
from processes import is_gone

from rig import cli

TOML = """
[default]
kernel = "k"
[kernel.k]
source = "linux"
series = "series"
configs = ["base"]
[machine.m]
"""
DATA = Path(__file__).parent / "data"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make_tree(tmp_path / "linux")
    make_series(tmp_path / "series", one=PATCH)
    return make_project(tmp_path, TOML)


def rig(
    project: Path, *words: str, stdin: str = "", code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run rig in the project, with a store of its own; it must exit with `code`."""
    done = subprocess.run(
        [sys.executable, "-m", "rig", *words],
        cwd=project,
        env={**os.environ, "RIG_STORE": str(project / "store")},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    return done


def test_build_and_build_again(project: Path) -> None:
    assert "k 6.12.1-fake: built" in rig(project, "build").stdout
    assert "unchanged" in rig(project, "build", "k").stdout


def test_json_is_alone_on_stdout(project: Path) -> None:
    done = rig(project, "build", "--json")
    assert json.loads(done.stdout)["release"] == "6.12.1-fake"
    assert "compiling" in done.stderr
    assert rig(project, "-q", "build", "--json").stderr == ""


def test_the_command_line_changes_the_kernel(project: Path, tmp_path: Path) -> None:
    fragment = tmp_path / "net.config"
    fragment.write_text("CONFIG_NET=y\n")
    done = rig(project, "build", "--json", "--config", str(fragment), "--series", "none")
    metadata = json.loads(done.stdout)
    assert metadata["config"]["asked"] == {"FOO": "y", "NET": "y"}
    assert metadata["series"]["patches"] == []


def test_paths_start_where_the_person_stands(project: Path) -> None:
    deep = project / "deep"
    deep.mkdir()
    make_series(deep / "other", two=PATCH.replace("counter = 2", "counter = 3"))
    rig(project, "build", "--series", "deep/other")
    done = subprocess.run(
        [sys.executable, "-m", "rig", "build", "--series", "other", "--json"],
        cwd=deep,
        env={**os.environ, "RIG_STORE": str(project / "store")},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["series"]["patches"][0]["name"] == "two.patch"


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        (["build", "kk"], 2, "no kernel 'kk'", "did you mean 'k'?"),
        (["build", "--source", "nowhere"], 2, "no such file or directory", "tarball"),
        (["build", "--series", "nowhere"], 2, "no such series", "quilt"),
        (["build", "--config", "nope"], 2, "no config fragment 'nope'", "known: base"),
        (["boot", "kk"], 122, "no kernel 'kk'", "did you mean 'k'?"),
        (["boot", "--machine", "mm", "--", "true"], 122, "no machine 'mm'", "'m'"),
        (["boot-and-test", "--suite", "abi"], 2, "no suite 'abi'", ""),
        (["boot-and-test", "--env", "WORDS"], 2, "'WORDS' is not NAME=VALUE", "usage"),
        (["boot-and-test", "--case", "a::b c"], 2, "'a::b c' is not PROGRAM or", "usage"),
        (["kselftest", "timers", "--link", "no.o"], 2, "no.o: No such file", "usage"),
        (["boot-and-test", "--case", "a::"], 2, "'a::' is not PROGRAM or", "usage"),
        (["boot", "--bogus", "--", "true"], 122, "unrecognized arguments: --bogus", "usage"),
        (["build", "--bogus"], 2, "unrecognized arguments: --bogus", "usage"),
        (["scan", "nowhere.log"], 2, "nowhere.log: No such file", ""),
        (["report", "nowhere"], 3, "not a saved run", "run.json"),
        (["--rig-toml", "nowhere.toml", "build"], 2, "nowhere.toml: No such file", ""),
    ],
)
def test_mistakes(project: Path, words: list[str], code: int, message: str, hint: str) -> None:
    done = rig(project, *words, code=code)
    assert message in done.stderr
    assert hint in done.stderr
    assert done.stdout == ""


def test_a_dropped_symbol_and_a_reject_exit_4(project: Path) -> None:
    (project / "bad.config").write_text("CONFIG_NOPE=y\n")
    done = rig(project, "build", "--config", "bad.config", code=4)
    assert "CONFIG_NOPE: asked y (bad.config:1), got n: the tree has no such symbol" in done.stderr
    (project / "series/one.patch").write_text(PATCH.replace("-\tcounter = 1", "-\tcounter = 9"))
    done = rig(project, "build", code=4)
    assert "one.patch does not apply: hunk 1 of init/main.c" in done.stderr


def test_a_compile_error_exits_4(project: Path) -> None:
    (project / "series/one.patch").write_text(PATCH.replace("counter = 2", "counter = two"))
    done = rig(project, "build", code=4)
    assert "init/main.c:6:" in done.stderr
    assert "hint: line last touched by one.patch" in done.stderr
    assert "reproduce: env " in done.stderr


def test_a_scan_is_a_line_a_splat(project: Path, tmp_path: Path) -> None:
    log = DATA / "console" / "warning.log"
    lines = rig(project, "scan", str(log), code=1).stdout.splitlines()
    assert lines[0].startswith(f"{log}:")
    assert "WARNING in " in lines[0]
    assert lines[-1] == f"{log}: {len(lines) - 1} splat(s)"
    (tmp_path / "clean.log").write_text("[    0.000000] Linux version 6.12\n")
    assert rig(project, "scan", "clean.log").stdout == "clean.log: clean\n"
    shown = json.loads(rig(project, "scan", "--json", str(log), code=1).stdout)
    assert set(shown["splats"][0]) == {"type", "title", "start", "end", "frame", "corrupted"}


def test_a_log_that_was_not_looked_at_is_not_clean(project: Path) -> None:
    log = (DATA / "console" / "warning.log").read_bytes()
    (project / "empty.log").touch()
    (project / "zeros.log").write_bytes(bytes(5000))
    (project / "zst.log").write_bytes(b"\x28\xb5\x2f\xfd....")
    (project / "cut.log.gz").write_bytes(gzip.compress(b"[    0.000000] x\n" * 5000)[:-9])
    (project / "clean.log").write_text("[    0.000000] Linux version 6.12\n")
    names = ["empty.log", "zeros.log", "zst.log", "cut.log.gz", "none.log", "clean.log"]
    done = rig(project, "scan", *names, code=2)
    assert done.stdout == "clean.log: clean\n"
    for words in (
        "empty.log: it is empty", "zeros.log: it is no text", "zst.log: packed in a way",
        "zstd -dc zst.log | rig scan -", "cut.log.gz: packed, and damaged", "none.log: No such",
    ):  # fmt: skip
        assert words in done.stderr
    (project / "dirty.log").write_bytes(log)
    assert "WARNING in " in rig(project, "scan", "none.log", "dirty.log", code=1).stdout


def test_what_was_found_of_a_log_that_ends_early_is_told(project: Path) -> None:
    log = (DATA / "console" / "warning.log").read_bytes()
    (project / "cut.log.gz").write_bytes(gzip.compress(log + b"[   99.0] fine\n" * 9000)[:-9])
    names = ["none.log", "cut.log.gz"]
    done = rig(project, "scan", "--json", *names, code=1)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["file"] for one in lines] == names
    assert "No such file" in lines[0]["error"]
    assert lines[0]["splats"] == []
    assert "packed, and damaged" in lines[1]["error"]
    assert "WARNING in " in lines[1]["splats"][0]["title"]


def test_a_report_is_told_as_json_before_its_log_ends(project: Path) -> None:
    """However many a log has: none waits in memory for the last."""
    log = (DATA / "console" / "warning.log").read_bytes()
    words = [sys.executable, "-m", "rig", "scan", "--json", "-"]
    env = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=project, env=env, stdin=pipe, stdout=pipe) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        one.stdin.write(log + log.split(b"\n", 1)[1] + b"[   99.0] fine\n" * 5000)
        one.stdin.flush()
        seen = b""
        while b"WARNING in " not in seen:  # while the log has no end
            assert select.select([one.stdout], [], [], 30)[0]
            seen += os.read(one.stdout.fileno(), 1 << 16)
        one.stdin.close()
        seen += one.stdout.read()
    value = json.loads(seen)
    assert set(value) == {"file", "splats"}
    assert len(value["splats"]) == 2
    assert one.returncode == 1


def unread(pipe: int) -> int:
    """Bytes that nobody has taken from it yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("size", [1, 5000, 3 << 20])
def test_holes_in_a_log_hide_nothing(project: Path, size: int) -> None:
    """What a serial line or a file system has lost."""
    log, hole = (DATA / "console" / "warning.log").read_bytes(), bytes(size)
    plain = rig(project, "scan", "--json", str(DATA / "console" / "warning.log"), code=1).stdout
    (project / "a.log").write_bytes(hole + log + hole)
    shown = rig(project, "scan", "--json", "a.log", code=1).stdout
    assert json.loads(shown)["splats"] == json.loads(plain)["splats"]
    words = [sys.executable, "-m", "rig", "scan", "-"]
    with subprocess.Popen(words, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdin is not None
        assert one.stdout is not None
        one.stdin.write(hole)
        one.stdin.flush()
        end = time.monotonic() + 30
        while unread(one.stdin.fileno()):  # so that it is read by itself
            assert time.monotonic() < end
            time.sleep(0.01)
        one.stdin.write(log)
        one.stdin.close()
        assert b"WARNING in " in one.stdout.read()
    assert one.returncode == 1


def test_what_is_no_text_is_not_clean(project: Path) -> None:
    (project / "elf").write_bytes(Path(sys.executable).resolve().read_bytes()[: 1 << 20])
    (project / "wide").write_bytes("[    0.0] Linux version 6.12\n".encode("utf-16-le"))
    done = rig(project, "scan", "elf", "wide", code=2)
    assert not done.stdout
    assert done.stderr.count("it is no text") == 2


@pytest.mark.parametrize("packed", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_a_log_is_read_as_it_is_packed(
    project: Path, packed: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    log = (DATA / "console" / "warning.log").read_bytes()
    plain = rig(project, "scan", "--json", str(DATA / "console" / "warning.log"), code=1).stdout
    (tmp_path / "a.log").write_bytes(packed(log))
    shown = rig(project, "scan", "--json", str(tmp_path / "a.log"), code=1).stdout
    assert json.loads(shown)["splats"] == json.loads(plain)["splats"]
    (tmp_path / "wide.log").write_bytes(log.decode(errors="replace").encode("utf-16"))
    shown = rig(project, "scan", "--json", str(tmp_path / "wide.log"), code=1).stdout
    assert json.loads(shown)["splats"] == json.loads(plain)["splats"]


def test_standard_input_that_is_closed_and_a_name_that_is_no_text(project: Path) -> None:
    words = [sys.executable, "-m", "rig", "scan"]
    script = 'exec "$@" - <&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *words],
        cwd=project, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "standard input is closed" in done.stderr
    name = os.fsencode(project) + b"/\xff.log"
    Path(os.fsdecode(name)).write_text("[    0.000000] Linux version 6.12\n")
    for option in ((), ("--json",)):
        found = subprocess.run(
            [*words, *option, name], cwd=project, capture_output=True, check=False, timeout=60
        )
        assert found.returncode == 0, found.stderr
        assert "\ufffd.log" in found.stdout.decode()


def test_a_full_disk_is_our_side(project: Path) -> None:
    """Real ENOSPC: a file system of 64 KiB for the store."""
    small = project / "small"
    small.mkdir()
    script = f'mount -t tmpfs -o size=64k none {small} && exec "$@"'
    argv = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-m", "rig", "build"]
    done = subprocess.run(
        argv,
        cwd=project,
        env={**os.environ, "RIG_STORE": str(small)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_rig_toml(tmp_path: Path) -> None:
    assert "no rig.toml" in rig(tmp_path, "build", code=2).stderr


def test_an_unknown_verb_and_help(project: Path) -> None:
    assert "invalid choice: 'biuld'" in rig(project, "biuld", code=2).stderr
    for verb in ("doctor", "build", "boot", "boot-and-test", "kselftest", "kunit", "scan", "store"):
        assert f"usage: rig {verb}" in rig(project, verb, "--help").stdout


@pytest.mark.parametrize("verb", ["boot-and-test", "kselftest"])
def test_machines_side_by_side_are_asked_for_with_n(project: Path, verb: str) -> None:
    assert "-n N" in rig(project, verb, "--help").stdout
    words = [verb, "-n", "many", *(["futex"] if verb == "kselftest" else [])]
    done = rig(project, *words, code=2)
    assert "-n many: not a number of machines" in done.stderr
    assert "1 to 256, or auto" in done.stderr


def test_more_machines_than_memory_are_refused_before_a_build(project: Path) -> None:
    place = project / "guest-tests" / "t"
    place.mkdir(parents=True)
    (place / "Makefile").write_text("TEST_PROGS := a.sh\ninclude ../lib.mk\n")
    (place / "a.sh").write_text("#!/bin/sh\n")
    with (project / "rig.toml").open("a") as toml:
        toml.write("\n[machine.huge]\nmemory_mib = 1000000\n")
    words = ["boot-and-test", "--tests", str(place), "--machine", "huge", "-n", "2"]
    done = rig(project, *words, code=2)
    assert "2 machines of 1000000 MiB need 2000700 MiB" in done.stderr
    assert not (project / "results").exists()


def test_the_store_is_shown(project: Path) -> None:
    assert rig(project, "store", "path").stdout.strip() == str(project / "store")
    rig(project, "build")
    shown = json.loads(rig(project, "store", "list", "--json").stdout)
    assert {"directory", "kernel", "tree", "build"} <= {entry["kind"] for entry in shown["entries"]}


def test_a_damaged_kernel_is_named_removed_and_built_again(project: Path) -> None:
    rig(project, "build")
    assert "sound" in rig(project, "store", "verify").stdout
    (kernel,) = (project / "store" / "kernel").iterdir()
    vmlinux = kernel / "vmlinux"
    times = vmlinux.stat()
    vmlinux.write_bytes(bytes(reversed(vmlinux.read_bytes())))
    os.utime(vmlinux, ns=(times.st_atime_ns, times.st_mtime_ns))
    told = rig(project, "store", "verify", code=1).stdout
    assert f"kernel {kernel.name}: vmlinux has other bytes" in told
    assert "rig store verify --repair" in told
    shown = json.loads(rig(project, "store", "verify", "--json", code=1).stdout)
    assert shown["damaged"][0]["reasons"] == ["vmlinux has other bytes"]
    assert "removed: it is made again" in rig(project, "store", "verify", "--repair").stdout
    assert "built" in rig(project, "build").stdout
    vmlinux.write_text("")
    again = rig(project, "build")
    assert "built" in again.stdout
    assert "is damaged: vmlinux has 0 bytes" in again.stderr


def test_room_is_made_in_the_store(project: Path) -> None:
    rig(project, "build")
    assert "is no size" in rig(project, "store", "gc", "--budget", "much", code=2).stderr
    planned = rig(project, "store", "gc", "--budget", "0M", "--dry-run").stdout
    assert "removed  kernel" in planned
    assert "would be at 0.00" in planned
    assert "unchanged" in rig(project, "build").stdout
    done = json.loads(rig(project, "store", "gc", "--budget", "0M", "--json").stdout)
    kinds = {entry["kind"] for entry in done["removed"]}
    assert {"directory", "kernel", "tree", "build"} <= kinds
    assert json.loads(rig(project, "store", "list", "--json").stdout)["entries"] == []
    assert "built" in rig(project, "build").stdout


def test_a_store_that_is_a_file(project: Path) -> None:
    (project / "store").write_text("")
    assert "cannot be written" in rig(project, "build", code=3).stderr


def test_doctor_speaks_json(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rig", "doctor", "--json"], capture_output=True, check=False
    )
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 3)
    assert {check["name"] for check in report["checks"]} >= {"gcc", "ccache"}


def test_an_interrupted_build_leaves_no_process(project: Path) -> None:
    """Ctrl-C in the middle of a compile: exit 130, no make left, and the next build is whole."""
    makefile = project / "linux/Makefile"
    text = makefile.read_text()
    pid = project / "pid"
    copy = "\t@cp $(B)/vmlinux"
    slow = text.replace(copy, f"\t@echo $$$$ > {pid}; sleep 60\n{copy}")
    makefile.write_text(slow)
    process = subprocess.Popen(
        [sys.executable, "-m", "rig", "build"],
        cwd=project,
        env={**os.environ, "RIG_STORE": str(project / "store")},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "rig: interrupted" in errors
    assert is_gone(int(pid.read_text()))
    assert not list((project / "store" / "kernel").iterdir())
    makefile.write_text(text)
    assert "built" in rig(project, "build").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("exact",), "there is no PROGRAM"),
        (("exact", "--"), "there is no PROGRAM"),
        (("exact", "--", "absent"), "cannot read the program absent"),
        (("exact", "--", "/bin/sh"), "dynamically linked"),
        (("exact", "--repeat", "0", "--", "/bin/sh"), "--repeat 0"),
        (("exact", "--explain", "k", "j", "--", "x.c"), "has no kernel 'j'"),
        (("exact", "--cpus", "two", "--", "x.c"), "invalid int value"),
    ],
)
def test_what_the_exact_machine_refuses(project: Path, words: tuple[str, ...], said: str) -> None:
    (project / "x.c").write_text("int main(void) { return 0; }\n")
    assert said in rig(project, *words, code=122).stderr


@pytest.mark.parametrize(
    ("words", "verb"),
    [
        (["nightly", "--only", "exact"], "nightly"),
        (["-q", "--rig-toml", "boot", "exact", "x"], "exact"),
        (["--rig-toml=boot", "scan"], "scan"),
        (["--help"], ""),
    ],
)
def test_whose_exit_code_is_passed_on(words: list[str], verb: str) -> None:
    assert cli._verb_of(words) == verb
