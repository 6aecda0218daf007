"""A place of labgrid's as a board: with its own coordinator and exporter, for real, on loopback."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import emulated_lab
import pytest
from emulated_bmc import free_port

from rig import config
from rig.config import BoardConfig
from rig.errors import InfrastructureError, UsageError
from rig.machine import claim, labgrid, power, wire
from rig.machine.claim import BusyError


@dataclass
class Lab:
    """A coordinator with one place, its outlet and its console."""

    coordinator: str
    root: Path
    outlet: dict[str, bool]
    serial: socket.socket
    said: list[bytes] = field(default_factory=list)

    def client(self, *words: str, user: str = "", host: str = "") -> str:
        return emulated_lab.client(self.coordinator, *words, user=user, host=host)

    def board(self, more: str = "") -> BoardConfig:
        path = self.root / "rig.toml"
        path.write_text(
            f'[kernel.k]\n[machine.m]\n[machine.board1]\nkind = "labgrid"\nplace = "b1"\n'
            f'coordinator = "{self.coordinator}"\nlock = "{self.root / "locks"}"\n{more}'
        )
        return config.load(path).board("board1")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    if shutil.which("labgrid-coordinator", path=emulated_lab.PATH) is None:
        pytest.skip("labgrid is not installed")
    state = {"on": False}
    serial = socket.create_server(("127.0.0.1", 0))
    with (
        contextlib.closing(serial),
        emulated_lab.outlet(lambda on: state.update(on=on), lambda: state["on"]) as outlet,
        emulated_lab.standing(
            tmp_path,
            f"board:\n  NetworkSerialPort: {{host: 127.0.0.1, port: {serial.getsockname()[1]}, "
            f"protocol: raw}}\n  NetworkService: {{address: 192.0.2.9, username: operator, "
            f"port: 2222}}\n"
            f"  NetworkPowerPort: {{model: simplerest, index: '3', host: '{outlet}'}}\n"
            "more:\n  second: {cls: NetworkSerialPort, host: 127.0.0.1, port: 9, protocol: raw}\n"
            "  ssh: {cls: NetworkService, address: 192.0.2.10, username: root}\n"
            f"  outlet: {{cls: NetworkPowerPort, model: simplerest, index: '3', "
            f"host: 'http://127.0.0.1:9/{{index}}/{{value}}'}}\n",
        ) as coordinator,
    ):
        yield Lab(coordinator, tmp_path, state, serial)


def test_a_place_is_acquired_switched_heard_and_released(lab: Lab) -> None:
    board = lab.board()
    with claim.claimed(board, "rig boot", lambda words: None) as hold:
        assert hold.held()
        assert "b1" in lab.client("who")
        one = power.of(board, lab.root)
        assert one.status() is False
        assert (one.set(True).seen, lab.outlet["on"]) == (True, True)
        assert one.cycle().seen
        line = wire.of(board, lab.root)
        ours = line.open()
        far, _ = lab.serial.accept()
        far.sendall(b"Linux version 6.12\r\n")
        ours.settimeout(20)
        assert ours.recv(100).startswith(b"Linux version")
        ours.sendall(b"root\n")
        assert far.recv(100) == b"root\n"
        line.close()
        ours.close()
        far.close()
    assert "b1" not in lab.client("who")


def test_a_place_and_a_table_of_its_board_would_be_two_locks(lab: Lab) -> None:
    system = (
        '[machine.{0}.system]\naddress = "192.0.2.8"\nkey = "key"\n'
        'host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"\n'
    )
    other = (
        '[machine.other]\nkind = "baremetal"\nboard = "board1"\n[machine.other.power]\n'
        'kind = "command"\non = "true"\noff = "true"\nstatus = "true"\n'
    )
    lab.board(system.format("board1"))
    with pytest.raises(UsageError, match=r"other\] is the board of \[machine.board1\]") as caught:
        lab.board(system.format("board1") + other + system.format("other"))
    assert "labgrid guards a place" in str(caught.value.hint)


def test_which_of_several_ports_it_is_is_told(lab: Lab) -> None:
    lab.client("-p", "b1", "add-match", "*/more/*")
    with claim.claimed(lab.board(), "rig boot", lambda words: None):
        with pytest.raises(InfrastructureError, match="has 2 NetworkServices") as caught:
            labgrid.Place(lab.board()).service()
        assert str(caught.value.hint).startswith("address and user = that of one of ")
    for more in ("", '[machine.board1.console]\nkind = "labgrid"\nname = "third"\n'):
        board = lab.board(more)
        with claim.claimed(board, "rig boot", lambda words: None):
            with pytest.raises(
                InfrastructureError, match=r"has (2|no) NetworkSerialPort"
            ) as caught:
                wire.of(board, lab.root).open()
            assert {"NetworkSerialPort", "second"} <= set(
                re.findall(r"\w+", str(caught.value.hint))
            )
            if not more:
                with pytest.raises(InfrastructureError):
                    power.of(board, lab.root).set(True)
    board = lab.board(
        '[machine.board1.power]\nkind = "labgrid"\nname = "NetworkPowerPort"\n'
        '[machine.board1.console]\nkind = "labgrid"\nname = "NetworkSerialPort"\n'
    )
    with claim.claimed(board, "rig boot", lambda words: None):
        one = power.of(board, lab.root)
        assert (one.set(True).seen, one.status(), lab.outlet["on"]) == (True, True, True)
        line = wire.of(board, lab.root)
        ours = line.open()
        far, _ = lab.serial.accept()
        far.close()
        line.close()
        ours.close()


def test_a_client_that_was_ended_after_it_had_the_place_leaves_nothing(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "labgrid-client"
    client = emulated_lab.program("labgrid-client")
    slow.write_text(
        f'#!/bin/sh\n{client} "$@" || exit\n'
        f'case "$*" in *acquire) touch {tmp_path / "acquired"}; exec sleep 100;; esac\n'
    )
    slow.chmod(0o755)
    monkeypatch.setattr(labgrid, "_client", lambda: str(slow))
    monkeypatch.setattr(labgrid, "_ASK_S", 15.0)
    with pytest.raises(InfrastructureError, match="did not end within 15 s"):
        claim.take(lab.board(), claim.ourselves("rig boot"))
    assert (tmp_path / "acquired").exists()
    assert "b1" not in lab.client("who")


def test_who_has_it_is_told_and_waited_for(lab: Lab) -> None:
    assert "acquired place" in lab.client("-p", "b1", "acquire", user="somebody")
    board = lab.board()
    with pytest.raises(BusyError) as caught:
        claim.take(board, claim.ourselves("rig boot"))
    assert "somebody on " in str(caught.value)
    assert "place b1 of labgrid" in str(caught.value)
    said: list[str] = []
    threading.Timer(2.0, lambda: lab.client("-p", "b1", "release", user="somebody")).start()
    with claim.claimed(board, "rig boot", said.append):
        pass
    assert said[0].startswith("waiting for board1, which is held by somebody on ")


def test_a_second_run_of_this_user_waits_and_one_that_was_killed_does_not_matter(lab: Lab) -> None:
    board = lab.board()
    first = claim.take(board, claim.ourselves("rig boot first"))
    with pytest.raises(BusyError, match="rig boot first"):
        claim.take(board, claim.ourselves("rig boot second"))
    # To labgrid a person of this user is the run itself.
    with (
        pytest.raises(InfrastructureError, match=r"is held by .*rig boot first"),
        claim.by_hand(board, "rig power board1 off", anyway=False),
    ):
        raise AssertionError
    with claim.by_hand(board, "rig power board1 off", anyway=True):
        pass
    first.over()
    first.over()
    killed = claim.take(board, claim.ourselves("rig boot killed"))
    killed.tidy = False
    claim._Local.over(cast("claim._Local", killed))  # its place stays acquired
    assert "b1" in lab.client("who")
    second = claim.take(board, claim.ourselves("rig boot second"))
    second.over()
    assert "b1" not in lab.client("who")


def test_the_system_of_a_place_is_where_labgrid_says(lab: Lab) -> None:
    """Unless rig.toml does."""
    key = 'key = "key"\nhost_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"\n'
    board = lab.board(f"[machine.board1.system]\n{key}")
    with claim.claimed(board, "rig boot", lambda words: None):
        system = labgrid.with_system(board).system
        assert system is not None
        assert (system.address, system.user, system.port) == ("192.0.2.9", "operator", 2222)
        told = lab.board(f'[machine.board1.system]\naddress = "192.0.2.8"\n{key}')
        assert labgrid.with_system(told) is told


def test_a_place_that_a_person_has_acquired_stays_his(lab: Lab) -> None:
    lab.client("-p", "b1", "acquire")
    with claim.claimed(lab.board(), "rig boot", lambda words: None) as hold:
        assert hold.held()
    assert "b1" in lab.client("who")


def test_a_place_of_a_person_outlives_a_run_of_his_that_was_killed(lab: Lab) -> None:
    lab.client("-p", "b1", "acquire")
    killed = claim.take(lab.board(), claim.ourselves("rig boot killed"))
    killed.tidy = False
    claim._Local.over(cast("claim._Local", killed))
    with claim.claimed(lab.board(), "rig boot", lambda words: None) as hold:
        assert hold.left is not None
        assert "rig boot killed" in hold.left.words
    assert "b1" in lab.client("who")


def test_who_left_a_place_is_told_of_until_somebody_gets_it(lab: Lab) -> None:
    killed = claim.take(lab.board(), claim.ourselves("rig boot killed"))
    killed.tidy = False
    killed.over()
    lab.client("-p", "b1", "acquire", user="boss")
    for _ in range(2):
        with pytest.raises(BusyError, match="boss on"):
            claim.take(lab.board(), claim.ourselves("rig boot"))
    lab.client("-p", "b1", "release", user="boss")
    last = claim.take(lab.board(), claim.ourselves("rig boot"))
    assert last.left is not None
    assert "rig boot killed" in last.left.words
    last.over()


def test_a_place_that_somebody_takes_is_not_ours_any_more(lab: Lab) -> None:
    with claim.claimed(lab.board(), "rig boot", lambda words: None) as hold:
        lab.client("-p", "b1", "release", "-k", user="boss")
        assert not hold.held()
        lab.client("-p", "b1", "acquire", user="boss")
        assert not hold.held()
    assert "boss" in lab.client("who")  # nor is it given back for him


def test_a_coordinator_that_is_away_takes_no_place_away(lab: Lab) -> None:
    hold = claim.take(lab.board(), claim.ourselves("rig boot"))
    place = cast("claim._Placed", hold)._place
    known, place._coordinator = place._coordinator, f"127.0.0.1:{free_port()}"
    assert hold.held()
    place._coordinator = known
    hold.over()


def test_who_is_called_the_same_on_another_host_keeps_the_place(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "acquired place" in lab.client("-p", "b1", "acquire", host="elsewhere")
    with pytest.raises(BusyError, match="you on elsewhere"):
        claim.take(lab.board(), claim.ourselves("rig boot"))
    assert "elsewhere" in lab.client("who")


def test_two_names_of_one_place_are_one(lab: Lab) -> None:
    board = lab.board()
    other = dataclasses.replace(board, name="board2")
    first = claim.take(board, claim.ourselves("rig boot first"))
    with pytest.raises(BusyError, match="rig boot first"):
        claim.take(other, claim.ourselves("rig boot second"))
    first.over()


def test_a_lock_on_another_host_is_refused(lab: Lab) -> None:
    path = lab.root / "rig.toml"
    lab.board()
    path.write_text(path.read_text().replace(str(lab.root / "locks"), "labhost:/srv/rig"))
    with pytest.raises(UsageError, match="lock is 'labhost:/srv/rig'"):
        config.load(path)


def test_what_is_wrong_is_one_error(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    board = lab.board()
    with pytest.raises(InfrastructureError, match=r"place b1 of labgrid: .*not acquired"):
        power.of(board, lab.root).status()
    other = lab.board('[machine.board1.console]\nkind = "tcp"\naddress = "127.0.0.1"\nport = 1\n')
    assert other.console is not None
    assert (other.power.kind, other.console.kind) == ("labgrid", "tcp")
    lost = config.load(lab.root / "rig.toml").board("board1")
    object.__setattr__(lost, "coordinator", f"127.0.0.1:{free_port()}")
    with pytest.raises(InfrastructureError, match="coordinator"):
        claim.take(lost, claim.ourselves("rig boot"))
    object.__setattr__(lost, "coordinator", lab.coordinator)
    object.__setattr__(lost, "place", "nothing")
    with pytest.raises(InfrastructureError, match=r"place nothing of labgrid: .*matches nothing"):
        claim.take(lost, claim.ourselves("rig boot"))
    claim.take(board, claim.ourselves("rig boot")).over()  # nothing of that was left held


def test_no_client_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rig.machine import labgrid

    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("labgrid-client") is None
    with pytest.raises(InfrastructureError, match="labgrid-client is not installed"):
        labgrid._client()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('kind = "labgrid"', "has no place"),
        (
            'kind = "baremetal"\nplace = "x"\n[machine.b.power]\nkind = "labgrid"',
            "of labgrid, and is",
        ),
        (
            'kind = "labgrid"\nplace = "x"\n[machine.b.power]\nkind = "labgrid"\nport = 1',
            "has port",
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "rig.toml"
    path.write_text(f"[kernel.k]\n[machine.m]\n[machine.b]\n{text}\n")
    with pytest.raises(UsageError, match=words):
        config.load(path)
