"""A place of labgrid's: acquired, switched and found by its client (of version 24 or later)."""

from __future__ import annotations

import ast
import contextlib
import re
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rig import process
from rig.config import BoardConfig
from rig.errors import InfrastructureError

_ASK_S = 60.0
_TAKEN = re.compile(r"is already acquired by (?P<host>[^/\s]+)/(?P<user>\S+?)\.")
# By who of the same name is on another host; by whoever was quicker, or has reserved it.
_ELSEWHERE = re.compile(r"You have already acquired place \S+ on (?P<host>\S+?)\. To work")
_BY_SOMEBODY = re.compile(r"is already acquired\s*$|was not reserved for", re.MULTILINE)
_OURS = re.compile(r"You have already acquired place \S+?\.\s*$", re.MULTILINE)
# "Acquired resource 'NetworkSerialPort' (lab1/...):" and a dictionary as pprint writes it.
_RESOURCE = re.compile(r"^Acquired resource '([^']*)' \([^)]*\):\n((?:  .*\n?)+)", re.MULTILINE)


class TakenError(Exception):
    """Somebody else has acquired it. host, user: who."""

    def __init__(self, host: str, user: str) -> None:
        super().__init__(f"{user} on {host}")
        self.host, self.user = host, user


@dataclass(frozen=True)
class Port:
    """Where a place's console is served. protocol: "rfc2217" (over telnet) or "raw"."""

    host: str
    port: int
    protocol: str


@dataclass(frozen=True)
class Service:
    """Where a place's system is reached by SSH, and as whom."""

    address: str
    user: str
    port: int


def with_system(board: BoardConfig) -> BoardConfig:
    """A board whose place has been acquired, with what labgrid knows of its system where rig.toml
    does not say. InfrastructureError where it knows nothing, either.
    """
    if not board.place or board.system is None or board.system.address:
        return board
    found = Place(board).service()
    system = replace(board.system, address=found.address, user=found.user, port=found.port)
    return replace(board, system=system)


class Place:
    """One of them, by its name. coordinator: HOST:PORT, "" for what labgrid's client takes."""

    def __init__(self, board: BoardConfig) -> None:
        self._name, self._coordinator = board.place, board.coordinator
        self.where = f"place {board.place} of labgrid"
        self.tells = True

    def acquire(self) -> bool:
        """Have it; whether we had it already, as a run leaves it that was killed. TakenError where
        somebody else has.
        """
        try:
            done = self._asked("acquire")
        except InfrastructureError:
            # It may have got it before it was ended; what is not ours its client does not release.
            with contextlib.suppress(InfrastructureError):
                self._asked("release")
            raise
        if done.returncode == 0:
            return False
        if _OURS.search(done.output):
            return True
        if match := _TAKEN.search(done.output):
            raise TakenError(match["host"], match["user"])
        if match := _ELSEWHERE.search(done.output):
            raise TakenError(match["host"], "you")
        if _BY_SOMEBODY.search(done.output):
            raise TakenError("another host", "somebody")
        raise self._refused(done)

    def holder(self) -> str:
        """HOST/USER who has acquired it, "None" where nobody has; "" where that cannot be told."""
        with contextlib.suppress(InfrastructureError):
            done = self._asked("show")
            found = re.search(r"^\s*acquired: (\S+)", done.output, re.MULTILINE)
            if done.returncode == 0 and found:
                return found[1]
        return ""

    def release(self) -> None:
        """Give it back. InfrastructureError."""
        done = self._asked("release")
        if done.returncode:
            raise self._refused(done)

    def set(self, on: bool, name: str = "") -> None:
        """Its power. name: of the port, where it has several."""
        done = self._asked(*_power(name), "on" if on else "off")
        if done.returncode:
            raise self._refused(done)

    def is_on(self, name: str = "") -> bool | None:
        """Its power, as set(); None where that cannot be told, as by pdudaemon."""
        done = self._asked(*_power(name), "get")
        if done.returncode and "NotImplementedError" in done.output:
            self.tells = False
            return None
        if done.returncode:
            raise self._refused(done)
        match = re.search(r"^power(?: .*)? for place .* is (on|off)\s*$", done.output, re.MULTILINE)
        return match[1] == "on" if match else None

    def serial(self, name: str = "") -> Port:
        """Of the place, which has to be ours. name: of the port, where it has several.
        InfrastructureError where it has none, or it cannot be got to from here.
        """
        told = self._resource("NetworkSerialPort", "the console", name, choose="name")
        return Port(str(told["host"]), int(told["port"]), told.get("protocol") or "rfc2217")

    def service(self) -> Service:
        """Where the system of the place is reached by SSH; as serial()."""
        told = self._resource("NetworkService", "the system", choose="address and user")
        return Service(str(told["address"]), str(told["username"]), int(told.get("port") or 22))

    def _resource(self, cls: str, what: str, name: str = "", *, choose: str) -> dict[str, Any]:
        """What its exporter says of the one it has of that class, or of that name. choose: what in
        rig.toml says which.
        """
        done = self._asked("show")
        if done.returncode:
            raise self._refused(done)
        every = [
            (own, ast.literal_eval(text.strip())) for own, text in _RESOURCE.findall(done.output)
        ]
        of_class = [(own, one["params"]) for own, one in every if one.get("cls") == cls]
        those = [params for own, params in of_class if own == name or not name]
        if len(those) != 1:
            named = f" {name!r}" if name else ""
            raise InfrastructureError(
                f"{self.where} has {len(those) or 'no'} {cls}{'s' * (len(those) > 1)}{named}",
                hint=f"{choose} = that of one of " + ", ".join(own for own, _ in of_class)
                if of_class
                else f"`labgrid-client -p {self._name} show` has what it has",
                output=done.output[-2000:],
            )
        told: dict[str, Any] = those[0]
        if told.get("extra", {}).get("proxy_required"):
            raise InfrastructureError(
                f"{what} of {self.where} is reached through {told['extra'].get('proxy')} alone",
                hint="run the exporter without --isolated, or the rig on that host",
            )
        return told

    def _asked(self, *words: str) -> process.Completed:
        more = ["-x", self._coordinator] if self._coordinator else []
        argv = [_client(), *more, "-p", self._name, *words]
        return process.run(argv, timeout_s=_ASK_S, check=False)

    def _refused(self, done: process.Completed) -> InfrastructureError:
        said = [line for line in done.output.strip().splitlines() if line.strip()]
        why = said[-1].removeprefix("labgrid-client: ").removeprefix("Error: ") if said else ""
        hint = "is it acquired? `labgrid-client who` tells by whom"
        if "coordinator" in why:
            hint = "coordinator = its HOST:PORT, or $LG_COORDINATOR"
        return InfrastructureError(
            f"{self.where}: {why or f'exit code {done.returncode}'}",
            hint=hint,
            output=done.output[-2000:],
            reproduce=done.command,
        )


def _power(name: str) -> tuple[str, ...]:
    return ("power", "--name", name) if name else ("power",)


def _client() -> str:
    """Beside our own interpreter, or on the path."""
    own = Path(sys.executable).with_name("labgrid-client")
    found = str(own) if own.exists() else shutil.which("labgrid-client")
    if not found:
        raise InfrastructureError(
            "labgrid-client is not installed", hint=".venv/bin/pip install labgrid"
        )
    return found


__all__ = ["Place", "Port", "Service", "TakenError", "with_system"]
