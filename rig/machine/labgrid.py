"""A place of labgrid's: acquired, switched and found by its client (of version 24 or later)."""

from __future__ import annotations

import ast
import contextlib
import re
import shutil
import sys
from dataclasses import dataclass
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
_RESOURCE = re.compile(r"^Acquired resource '[^']*' \([^)]*\):\n((?:  .*\n?)+)", re.MULTILINE)


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

    def release(self) -> None:
        """Give it back. InfrastructureError."""
        done = self._asked("release")
        if done.returncode:
            raise self._refused(done)

    def set(self, on: bool) -> None:
        """Its power."""
        done = self._asked("power", "on" if on else "off")
        if done.returncode:
            raise self._refused(done)

    def is_on(self) -> bool | None:
        """Its power; None where that cannot be told, as by pdudaemon."""
        done = self._asked("power", "get")
        if done.returncode and "NotImplementedError" in done.output:
            self.tells = False
            return None
        if done.returncode:
            raise self._refused(done)
        match = re.search(r"power for place .* is (on|off)\s*$", done.output)
        return match[1] == "on" if match else None

    def serial(self) -> Port:
        """Of the place, which has to be ours. InfrastructureError where it has none, or it cannot
        be got to from here.
        """
        done = self._asked("show")
        if done.returncode:
            raise self._refused(done)
        for text in _RESOURCE.findall(done.output):
            found: dict[str, Any] = ast.literal_eval(text.strip())
            if found.get("cls") != "NetworkSerialPort":
                continue
            told = found["params"]
            if told.get("extra", {}).get("proxy_required"):
                host = told["extra"].get("proxy")
                raise InfrastructureError(
                    f"the console of {self.where} is reached through {host} alone",
                    hint="run the exporter without --isolated, or the rig on that host",
                )
            return Port(str(told["host"]), int(told["port"]), told.get("protocol") or "rfc2217")
        raise InfrastructureError(
            f"{self.where} has no NetworkSerialPort",
            hint=f"`labgrid-client -p {self._name} show` has what it has",
            output=done.output[-2000:],
        )

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


def _client() -> str:
    """Beside our own interpreter, or on the path."""
    own = Path(sys.executable).with_name("labgrid-client")
    found = str(own) if own.exists() else shutil.which("labgrid-client")
    if not found:
        raise InfrastructureError(
            "labgrid-client is not installed", hint=".venv/bin/pip install labgrid"
        )
    return found


__all__ = ["Place", "Port", "TakenError"]
