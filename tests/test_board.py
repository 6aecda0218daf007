"""A board that is ours for a while: what is done to its power, and what is said, if it is away."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, cast

import pytest

from rig.config import BoardConfig, ConsoleConfig, PowerConfig, SystemConfig
from rig.errors import InfrastructureError
from rig.machine.baremetal import Board
from rig.machine.knowngood import About
from rig.session import Session

CONFIG = BoardConfig(
    "board1",
    PowerConfig("command", on="true", off="true", status="true"),
    ConsoleConfig("tcp", "127.0.0.1", 9),
    SystemConfig("key", "ssh-ed25519 AAAA", "192.0.2.8", returns_s=7),
)
OLD, NEW = (About(one, "", 1, 1, {"known_good": "6.1"}) for one in ("before", "after"))


class System:
    """Its own system: each time it is waited for, what comes of that."""

    config = CONFIG.system
    where, why = "the system of board1 at 192.0.2.8:22", "nobody answers"

    def __init__(self, *comes: bool) -> None:
        self.comes, self.kept = list(comes), list[str]()

    def awaited(self, before: str, limit_s: float) -> tuple[Session, About] | None:
        assert (before, limit_s) == ("before", 7)
        return (cast(Session, contextlib.nullcontext()), NEW) if self.comes.pop(0) else None

    def crashes(self, _session: Session, _into: Path, label: str) -> tuple[Path, ...]:
        self.kept.append(label)
        return ()


class Switch:
    def __init__(self) -> None:
        self.cycled = 0

    def cycle(self) -> None:
        self.cycled += 1


def board(tmp_path: Path, system: System, **more: Any) -> tuple[Board, Switch, list[str]]:
    told: list[str] = []
    said: list[str] = []
    found = Board(CONFIG, tmp_path, tmp_path, told.append, said.append, lambda _path: None, **more)
    switch = Switch()
    found._power = cast(Any, switch)
    found.system = cast(Any, system)
    found.about = OLD
    found.away = True
    return found, switch, told


def test_a_board_that_is_back_is_looked_at(tmp_path: Path) -> None:
    system = System(True)
    one, switch, told = board(tmp_path, system)
    one.come_back()
    assert (switch.cycled, one.away, one.about) == (1, False, NEW)
    assert told[-1].startswith("board1 is back in its own system after ")
    assert system.kept == ["0"]


def test_what_was_to_be_booted_once_may_have_been_booted_just_now(tmp_path: Path) -> None:
    one, switch, told = board(tmp_path, System(False, True))
    one.come_back()
    assert (switch.cycled, one.away) == (2, False)
    assert any("is not back (nobody answers): its power is cycled once more" in t for t in told)


def test_a_board_that_stays_away_is_lost_and_says_so_from_then_on(tmp_path: Path) -> None:
    one, switch, _ = board(tmp_path, System(False, False))
    for _ in range(2):
        with pytest.raises(InfrastructureError, match="board1 did not come back: the system of"):
            one.come_back()
    assert switch.cycled == 2  # and not for ever
    assert one.away
    with pytest.raises(InfrastructureError, match="did not come back"):
        one.ready(1)


def test_a_board_whose_lock_is_lost_is_not_touched(tmp_path: Path) -> None:
    one, switch, _ = board(tmp_path, System(), held=lambda: False)
    for use in (one.come_back, lambda: one.ready(1)):
        with pytest.raises(InfrastructureError, match="the lock of board1 was lost"):
            use()
    assert switch.cycled == 0


def test_a_lock_that_is_lost_while_it_is_waited_for(tmp_path: Path) -> None:
    held = [True, False]
    one, switch, _ = board(tmp_path, System(False), held=lambda: held.pop(0))
    with pytest.raises(InfrastructureError, match="the lock of board1 was lost"):
        one.come_back()
    assert switch.cycled == 1
