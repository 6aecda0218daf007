"""A board that is ours for a while: what is done to its power, and what is said, if it is away."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rig.config import BoardConfig, ConsoleConfig, PowerConfig, SystemConfig
from rig.errors import BootError, InfrastructureError
from rig.machine import baremetal
from rig.machine.baremetal import Board
from rig.machine.knowngood import About
from rig.machine.power import Switched
from rig.ramroot import RamRoot
from rig.session import ConnectionLost, Session

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
    switch = SimpleNamespace(where="the switch")

    def __init__(self) -> None:
        self.cycled, self.sees = 0, True

    def cycle(self) -> Switched:
        self.cycled += 1
        return Switched(True, self.sees, 0.1)


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


def test_that_nobody_saw_whether_it_was_switched_is_told(tmp_path: Path) -> None:
    one, switch, _ = board(tmp_path, System(True))
    said: list[str] = []
    one.say = said.append
    switch.sees = False
    one.come_back()
    assert said == ["nobody saw whether the power of board1 was switched: the switch cannot tell"]


class Line:
    """A console; what is said on it comes, or does not."""

    closed = False
    path = Path("system-0.log")

    def __init__(self, *heard: bool) -> None:
        self.heard, self.text = list(heard), "before\r\n"

    def size(self) -> int:
        return len(self.text)

    def since(self, start: int) -> str:
        return self.text[start:]

    def wait_news(self, _known: int, _timeout_s: float) -> bool:
        return False


@pytest.mark.parametrize("heard", [(True,), (False, True), (False, False)])
def test_the_line_has_to_be_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: tuple[bool, ...]
) -> None:
    """Also where it accepts whoever calls: of another board's, or of none."""
    monkeypatch.setattr(baremetal, "_HEARD_S", 0.05)
    line = Line(*heard)

    def ask(_session: Session, _script: str, word: str, serial: str) -> tuple[int, str, str]:
        assert serial == "ttyS0"
        line.text += f"[   12.0] {word}\r\n" if line.heard.pop(0) else "another board: login:"
        return 0, "", ""

    one, _, _ = board(tmp_path, System())
    one._console = cast(Any, line)
    one._wire = cast(Any, SimpleNamespace(down=False))
    one.system = cast(
        Any, SimpleNamespace(ask=ask, asked=contextlib.nullcontext, where="its system")
    )
    session = cast(Session, None)
    if True in heard:
        one._prove_line(session)
    else:
        with pytest.raises(InfrastructureError, match="nothing of its system is heard") as caught:
            one._prove_line(session)
        assert "console=ttyS0" in str(caught.value.hint)
    assert line.heard == []


OWN = "[    0.0] Linux version 6.12.1 (a@b) #1 SMP\n[    0.0] Command line: root=/dev/sda ro\n"
OURS = OWN.replace("root=/dev/sda ro", "BOOT_IMAGE=/x rdinit=/init brd.rd_nr=1 quiet")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", None),
        ("Linux version 6.12.1 (a@b) #1 SMP\n", None),
        (OURS[:-1], None),
        (OURS, True),
        (OWN, False),
        (OWN + OURS, False),  # the first one counts
        (OURS + OWN, True),
        (OURS.replace("[    0.0] Comm", "KERNEL supported cpus:\n  Intel\n[    0.0] Comm"), True),
        (OURS.replace("brd.", "bd."), True),  # a line that loses a letter
        (OURS.replace("Command", "Comand") + OWN, None),
        (OURS.replace("\n", "\r\n"), True),
    ],
)
def test_whose_kernel_speaks_is_told_by_what_it_was_told(said: str, told: bool | None) -> None:
    assert baremetal.was_told(said, "rdinit=/init brd.rd_nr=1") is told


class Asked(baremetal.BaremetalMachine):
    """A kernel that has said something, or nothing; who answers by SSH then."""

    def __init__(self, tmp_path: Path, said: str, *, system: bool, kernel: bool) -> None:
        self._board = cast(
            Any,
            SimpleNamespace(
                name="board1", config=replace(CONFIG, deploy="network"), deaf=False,
                check=lambda: None, in_its_system=lambda: system,
            ),
        )  # fmt: skip
        self._kernel = cast(Any, SimpleNamespace(name="k", release="6.12.1"))
        self._root = RamRoot(tmp_path, "", 1, 1)
        self._about = OLD
        self._path = tmp_path / "console-0.log"
        self._console = cast(Any, SimpleNamespace(text=lambda: said, ending=lambda: said))
        self._answers = kernel

    def _session(self, timeout_s: float, slowdown: float) -> Any:
        if not self._answers:
            raise ConnectionLost("nobody")
        return SimpleNamespace(close=lambda: None)


def test_a_kernel_that_is_not_heard_is_not_blamed_where_its_board_is_in_its_own_system(
    tmp_path: Path,
) -> None:
    one = Asked(tmp_path, "", system=True, kernel=False)
    with pytest.raises(InfrastructureError, match="is in its own system, and how it got there"):
        one._check_who(TimeoutError("x"))


def test_a_kernel_that_has_begun_and_is_not_there_any_more_is_blamed(tmp_path: Path) -> None:
    """What came after it was not heard: its system is quiet."""
    ours = OURS.replace("brd.rd_nr=1", "brd.rd_nr=1 brd.rd_size=1")
    one = Asked(tmp_path, ours, system=True, kernel=False)
    with pytest.raises(BootError, match="kernel k made the board begin anew before login"):
        one._check_who(TimeoutError("x"))


def test_a_kernel_that_is_up_and_not_heard_is_told_as_that(tmp_path: Path) -> None:
    one = Asked(tmp_path, "", system=False, kernel=True)
    with pytest.raises(BootError, match="kernel k is up, and printed nothing: is its console on"):
        one._check_who(TimeoutError("printed nothing"))
    Asked(tmp_path, "", system=False, kernel=False)._check_who(TimeoutError("x"))


def test_a_system_of_the_same_release_is_none_of_ours(tmp_path: Path) -> None:
    """Whose boot loader has begun it in place of the kernel."""
    menu = "GNU GRUB  version 2.06\n"
    one = Asked(tmp_path, menu + OWN, system=True, kernel=False)
    one._about = replace(OLD, facts={"known_good": "6.12.1"})
    assert isinstance(one._blamed("began anew"), InfrastructureError)
    ours = OURS.replace("brd.rd_nr=1", "brd.rd_nr=1 brd.rd_size=1")
    one = Asked(tmp_path, ours + menu + OWN, system=True, kernel=False)
    assert isinstance(one._blamed("began anew"), BootError)


@pytest.mark.parametrize(
    ("said", "own", "ours"),
    [
        ("", "6.1", None),
        (OURS, "6.1", True),
        (OWN, "6.1", True),  # by its release, whatever it was told
        (OWN.replace("6.12.1", "6.1"), "6.1", False),
        (OWN.replace("6.12.1", "6.1") + OURS, "6.1", False),
        (OURS, "6.12.1", True),
        (OWN, "6.12.1", False),
        (OWN.replace("6.12.1", "5.4"), "6.1", False),  # a third one, and not told our words
        (OWN.partition("\n")[0] + "\n", "6.12.1", None),
    ],
)
def test_whose_kernel_speaks_first(said: str, own: str, ours: bool | None) -> None:
    assert baremetal.spoke(said, "6.12.1", own, "rdinit=/init brd.rd_nr=1") is ours
