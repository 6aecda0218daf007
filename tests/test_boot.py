"""`rig boot`: exit codes, splats after a command, the debugger, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, cast

import pytest
from local_machine import LocalMachine, LocalSession

import rig.boot
from rig.config import Config, KernelConfig, MachineConfig
from rig.errors import BootError, CrashError, InfrastructureError, LostMachineError, UsageError
from rig.results import Splat

PANIC = 'echo "[    2.000000] Kernel panic - not syncing: test" >&$RIG_KMSG; touch $RIG_STATE/dead'
DEAD = "touch $RIG_STATE/dead"
WARNING = (
    'echo "[    1.000000] ------------[ cut here ]------------" >&$RIG_KMSG; '
    'echo "[    1.000000] WARNING: CPU: 0 PID: 7 at fs/pipe.c:1 pipe_read+0x1/0x2" >&$RIG_KMSG; '
    'echo "[    1.000000] ---[ end trace 0000000000000000 ]---" >&$RIG_KMSG'
)


class _Bootable(LocalMachine):
    """A local machine as `rig boot` asks for one."""

    attach = "gdb vmlinux"
    facts: ClassVar[dict[str, str]] = {}
    age_s = 1.5

    def boot(self) -> None: ...

    def connect(self) -> _Streaming:
        return _Streaming(self)


class _Streaming(LocalSession):
    def __enter__(self) -> _Streaming:
        return self

    def __exit__(self, *_: object) -> None: ...

    def stream(
        self, argv: Sequence[str], _stdin: BinaryIO, stdout: BinaryIO, _stderr: BinaryIO
    ) -> int:
        done = self.run(argv, timeout_s=30.0)
        stdout.write(done.stdout)
        return done.exit_code


class _BootLab:
    modules = None

    def prepare(self, suites: object) -> None: ...

    def check_store(self, after: BootError) -> None: ...

    def explain(self, splats: Sequence[Splat]) -> Sequence[Splat]:
        decoded = "one+0x1/0x2 (a.c:1)\ntwo\x1b[31m"
        return [replace(one, decoded=decoded, place="a.c:7", patch="1.patch") for one in splats]

    def close(self) -> None: ...

    def machine(self, directory: Path, **_: object) -> _Bootable:
        return _Bootable(directory, 0, slowdown=0.05, says=b"")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    kernels, machines = {"async": KernelConfig("async")}, {"default": MachineConfig("default")}
    return Config(tmp_path, "async", "default", (), kernels, machines)


@pytest.fixture
def boot(config: Config, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr(rig.boot, "open_lab", lambda *_, **__: _BootLab())

    def run(body: str, **wishes: Any) -> int:
        request = rig.boot.Request(argv=("sh", "-c", body), **wishes)
        return rig.boot.run(request, config, say=sys.stdout.write)

    return run


def test_boot_tells_of_splats_that_do_not_kill(
    boot: Callable[..., int], config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boot(f"{WARNING}; exit 7") == 7
    (directory,) = (config.root / "results").iterdir()
    told = (
        "splat: WARNING in pipe_read at a.c:7, last touched by 1.patch "
        f"(console {directory / 'console-0.log'})\n  | one+0x1/0x2 (a.c:1)\n  | two\n"
    )
    assert capsys.readouterr().err == told
    assert boot("exit 7") == 7
    assert capsys.readouterr().err == ""


def test_boot_with_json_waits_for_the_console(
    boot: Callable[..., int], config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    assert boot(f"{WARNING}; exit 7", json=True) == 7
    value = json.loads(capsys.readouterr().out)
    assert [one["title"] for one in value["splats"]] == ["WARNING in pipe_read"]
    assert value["splats"][0]["place"] == "a.c:7"
    assert b"farewell" in next((config.root / "results").glob("*/console-0.log")).read_bytes()


def test_boot_says_when_the_console_is_no_proof(
    boot: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert boot("touch $RIG_STATE/deaf") == 0
    assert "splats may be missing after the command" in capsys.readouterr().err


def test_boot_of_a_kernel_that_crashes_is_a_verdict(boot: Callable[..., int]) -> None:
    with pytest.raises(CrashError, match="the kernel crashed: kernel panic: test at a") as caught:
        boot(PANIC)
    assert "one+0x1/0x2 (a.c:1)" in caught.value.output
    assert caught.value.exit_code == 1
    with pytest.raises(LostMachineError):
        boot(DEAD)


def test_boot_tells_the_debuggers_line_even_when_quiet(
    boot: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    boot("true", gdb=True)
    assert capsys.readouterr().err == "waiting for a debugger: gdb vmlinux\n"


def test_boot_does_not_drop_gdb_from_a_dry_run(boot: Callable[..., int]) -> None:
    with pytest.raises(UsageError, match="--dry-run") as caught:
        boot("true", gdb=True, dry_run=True)
    assert "-gdb tcp:127.0.0.1:1234 -S" in caught.value.hint


# -- a real kernel -----------------------------------------------------------------------------


def run_rig(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The rig as a person runs it."""
    argv = [sys.executable, "-m", "rig", "-q", *words]
    return subprocess.run(
        argv, input=stdin, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.kernel
@pytest.mark.usefixtures("built_kernel", "built_image")
def test_boot_runs_a_command_as_if_it_were_here() -> None:
    done = run_rig("boot", "--", "sh", "-c", "cat; echo e >&2; exit 7", stdin="from here\n")
    assert (done.returncode, done.stdout) == (7, "from here\n")
    assert "e\n" in done.stderr


@pytest.mark.kernel
@pytest.mark.usefixtures("built_kernel", "built_image")
def test_boot_of_a_kernel_that_crashes_is_121_and_says_why() -> None:
    done = run_rig("boot", "--", "sh", "-c", "echo c > /proc/sysrq-trigger")
    assert done.returncode == 121
    assert "the kernel crashed: kernel panic: sysrq triggered crash" in done.stderr


class Machine:
    """One that ends as it is told."""

    def __init__(self, lost: bool) -> None:
        self.lost, self.closed = lost, 0

    def close(self) -> None:
        self.closed += 1
        if self.lost:
            raise InfrastructureError("board1 did not come back")


def test_a_board_that_does_not_come_back_says_what_was_before() -> None:
    machine = Machine(lost=True)
    held = rig.boot._brought_back(cast(rig.boot.AnyMachine, machine))
    with pytest.raises(InfrastructureError) as lost, held:
        raise BootError("it panicked")
    assert lost.value.message == "board1 did not come back (after: it panicked)"
    machine = Machine(lost=False)
    with pytest.raises(BootError), rig.boot._brought_back(cast(rig.boot.AnyMachine, machine)):
        raise BootError("it panicked")
    with rig.boot._brought_back(cast(rig.boot.AnyMachine, machine)):
        pass
    assert machine.closed == 2
