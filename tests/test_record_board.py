"""The record of a board: what is in it, and what must not be."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rig.config import BoardConfig, ConsoleConfig, PowerConfig, SystemConfig
from rig.errors import UsageError
from rig.results import Case, Run, Status

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def record() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record_board", ROOT / "ci/record_board.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["record_board"] = module
    spec.loader.exec_module(module)
    return module


BOARD = BoardConfig(
    "board1",
    PowerConfig("ipmi", "192.0.2.7", user="operator", password="env:SECRET"),
    ConsoleConfig("telnet", "192.0.2.9", 4001),
    SystemConfig("~/.ssh/key", "ssh-ed25519 AAAA", "192.0.2.8"),
    configs=("lkdtm",),
)


def run(status: Status) -> Run:
    machine = {"product": "ACME Server 7", "cpu": "Some CPU @ 2.0GHz", "ready_s": "31.50",
               "back_s": "42",
               "command_line": "console=ttyS0 rig_net=52:54:00:12:34:56,192.0.2.8"}  # fmt: skip
    return Run("r", "2026-11-29T10:00:00+00:00", "rig", {"name": "async", "release": "6.12.1"},
               machine, cases=(Case("abi", "x", "a", status),), complete=True)  # fmt: skip


def test_what_is_in_a_record(record: ModuleType) -> None:
    runs = {"kexec": run(Status.PASS), "grub": run(Status.FAIL)}
    text = record.text(BOARD, runs, "0123456789ab")
    assert text.startswith("# ACME Server 7\n")
    assert "| cpu | Some CPU @ 2.0GHz |" in text
    assert "| power | ipmi |" in text
    assert "| kexec | 6.12.1 | PASS | 1 pass | 31.50 s | 42 s |" in text
    assert "| grub | 6.12.1 | FAIL | 1 fail | 31.50 s | 42 s |" in text
    for secret in ("192.0.2", "52:54", "operator", "SECRET", "AAAA"):
        assert secret not in text
    assert record.file_name(runs["kexec"], BOARD) == "acme-server-7.md"


def test_the_way_is_that_which_is_asked_for(record: ModuleType) -> None:
    toml = (
        '[machine.a]\nkind = "x"\n[machine.b]\ndeploy = "kexec"\nx = 1\n[machine.b.power]\ny = 1\n'
    )
    assert record._with_deploy(toml, "b", "grub").splitlines() == [
        "[machine.a]", 'kind = "x"', "[machine.b]", 'deploy = "grub"', "x = 1",
        "[machine.b.power]", "y = 1",
    ]  # fmt: skip


def test_mistakes_are_one_line(record: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert record.main(["nosuch"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_way_that_fails_costs_no_other_its_record(
    record: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def one(_name: str, way: str, _saved: Path) -> Run:
        if way == "grub":
            raise UsageError("grub: there was no run to be recorded")
        return run(Status.PASS)

    monkeypatch.setattr(record, "_run", one)
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setattr(record, "PLACE", tmp_path / "boards")
    monkeypatch.setattr(record.config, "load", lambda _path: Whole())
    monkeypatch.setattr(record.cells, "commit", lambda _root: "c")
    assert record._recorded("board1", ["kexec", "grub"]) == 1
    assert "error: grub: there was no run" in capsys.readouterr().err
    said = (tmp_path / "boards/acme-server-7.md").read_text()
    assert "| kexec |" in said
    assert "| grub | - | NOT RUN | `rig` ended with 2 | - | - |" in said
    assert record._recorded("board1", ["kexec"]) == 0  # another of the same product
    assert (tmp_path / "boards/acme-server-7.md").read_text() == said
    assert "| grub |" not in (tmp_path / "boards/acme-server-7-2.md").read_text()


def test_a_board_that_did_not_come_back_is_recorded_so(record: ModuleType) -> None:
    away = run(Status.PASS)
    del away.machine["back_s"]
    assert "| 31.50 s | NOT BACK |" in record.text(BOARD, {"kexec": away}, "c")


class Whole:
    """A rig.toml with one board."""

    def board(self, _name: str) -> BoardConfig:
        return BOARD

    machine = board
