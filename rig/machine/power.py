"""A board's power: on, off, on again, each time seen to have taken effect."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import ssl
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rig import credential, process
from rig.config import BoardConfig, PowerConfig
from rig.credential import Secret
from rig.errors import InfrastructureError

_ASK_S = 30.0  # for one answer of a BMC or a daemon
_LOOK_S = 0.5  # between two looks at whether it has happened
_IPMI_PORT, _HTTPS_PORT, _PDU_PORT = 623, 443, 16421
# What ipmitool -v says of a session that it does not get, and what it means.
_REFUSALS = (
    (r"RAKP 2 HMAC is invalid", "refuses the password", "password = a reference to the right one"),
    (
        r"unauthorized name",
        "knows no such user",
        "user = one of its users, with the right to log in",
    ),
    (
        r"invalid (?:authentication|integrity|confidentiality) algorithm|cipher suite",
        "does not know the cipher suite",
        "cipher = 3, or another that it knows",
    ),
    (
        r"insufficient privilege|Set Session Privilege Level to \w+ failed",
        "does not let that user switch the power",
        "give the user operator rights there",
    ),
    (r"Get Auth Capabilities error|No response|Address lookup", "does not answer", "address, port"),
)


class Switch(Protocol):
    """One way of switching. where: it, for messages. tells: whether it can say how things are."""

    where: str
    tells: bool

    def set(self, on: bool) -> None:
        """Ask for it; returns when that was accepted. InfrastructureError where it is not."""

    def is_on(self) -> bool | None:
        """How things are; None while they change, and where it cannot tell."""


@dataclass(frozen=True)
class Switched:
    """What came of it. seen: it was verified, and not only asked for. took_s: until then."""

    on: bool
    seen: bool
    took_s: float


@dataclass(frozen=True)
class Power:
    """A board's power. takes_s: how long a change may take. rest_s: off before it is on again."""

    board: str
    switch: Switch
    takes_s: float
    rest_s: float

    def status(self) -> bool | None:
        """Whether the board has power; None where its switch cannot tell."""
        return self.switch.is_on()

    def set(self, on: bool) -> Switched:
        """Switch it; returns once that is seen. InfrastructureError when it is not in takes_s."""
        began = time.monotonic()
        self.switch.set(on)
        if not self.switch.tells:
            return Switched(on, False, time.monotonic() - began)
        while (found := self.switch.is_on()) is not on:
            if time.monotonic() - began > self.takes_s:
                raise InfrastructureError(
                    f"{self.board} did not go {_word(on)}: {self.switch.where} says "
                    f"{'that it changes' if found is None else _word(found)} "
                    f"{self.takes_s:.0f} s after it was asked",
                    hint="takes_s of its power says how long that may take",
                )
            time.sleep(min(_LOOK_S, self.takes_s / 4))
        return Switched(on, True, time.monotonic() - began)

    def cycle(self) -> Switched:
        """Off, for rest_s, and on: both seen."""
        off = self.set(False)
        time.sleep(self.rest_s)
        on = self.set(True)
        return Switched(True, off.seen and on.seen, off.took_s + self.rest_s + on.took_s)


def _word(on: bool) -> str:
    return "on" if on else "off"


def of(board: BoardConfig, root: Path) -> Power:
    """The power of a board of rig.toml. UsageError for a secret that is not there."""
    config = board.power
    secret = credential.read(config.password, root)
    makers: Mapping[str, Callable[[], Switch]] = {
        "ipmi": lambda: Ipmi(board.name, config, secret),
        "redfish": lambda: Redfish(board.name, config, secret, root),
        "pdudaemon": lambda: Pdudaemon(config),
        "command": lambda: Command(config),
    }
    return Power(board.name, makers[config.kind](), config.takes_s, config.rest_s)


# -- IPMI -----------------------------------------------------------------------------------------


class Ipmi:
    """A BMC that ipmitool talks to, over LAN (RMCP+)."""

    tells = True

    def __init__(self, board: str, config: PowerConfig, secret: Secret) -> None:
        self._config, self._secret = config, secret
        self._port = config.port or _IPMI_PORT
        self.where = f"the BMC of {board} at {config.address}:{self._port}"

    def set(self, on: bool) -> None:
        self._ask("power", _word(on))

    def is_on(self) -> bool | None:
        said = self._ask("power", "status")
        found = re.search(r"Chassis Power is (on|off)", said)
        if not found:
            raise InfrastructureError(f"{self.where} says nothing of its power", output=said)
        return found[1] == "on"

    def _ask(self, *words: str) -> str:
        """ipmitool's answer. The password goes there in its environment: no list shows that."""
        config = self._config
        argv = ["ipmitool", "-v", "-I", "lanplus", "-H", config.address, "-p", str(self._port)]
        argv += ["-U", config.user, "-E", "-N", "2", "-R", "3"]
        argv += ["-C", str(config.cipher)] if config.cipher >= 0 else []
        env = {**os.environ, "IPMI_PASSWORD": self._secret.value}
        done = process.run(
            [*argv, "chassis", *words], timeout_s=_ASK_S, env=env, check=False, separate=True
        )
        if done.returncode == 0:
            return done.output
        said = self._secret.hidden_in(f"{done.errors}{done.output}")
        for pattern, what, hint in _REFUSALS:
            if re.search(pattern, said):
                raise InfrastructureError(f"{self.where} {what}", hint=hint, output=said)
        raise InfrastructureError(
            f"{self.where} did not do chassis {' '.join(words)}",
            output=said,
            reproduce=done.command,
        )


# -- Redfish --------------------------------------------------------------------------------------


class Redfish:
    """A BMC that speaks Redfish (DMTF DSP0266) over HTTPS."""

    tells = True

    def __init__(self, board: str, config: PowerConfig, secret: Secret, root: Path) -> None:
        self._config, self._secret = config, secret
        self._port = config.port or _HTTPS_PORT
        self.where = f"the BMC of {board} at {config.address}:{self._port}"
        self._system = ""
        self._tls = self._context(root)

    def set(self, on: bool) -> None:
        found = self._get(self._board())
        action = found.get("Actions", {}).get("#ComputerSystem.Reset", {})
        known = action.get("ResetType@Redfish.AllowableValues", [])
        wanted = ("On", "ForceOn") if on else ("ForceOff",)
        kind = next((one for one in wanted if one in known or not known), None)
        if not action.get("target") or kind is None:
            raise InfrastructureError(
                f"{self.where} has no reset of the kind {wanted[0]}",
                output=f"it has {', '.join(map(str, known)) or 'none'}",
            )
        # To some it is an error that a board is on already.
        if _STATES.get(str(found.get("PowerState"))) is not on:
            self._call("POST", action["target"], {"ResetType": kind})

    def is_on(self) -> bool | None:
        return _STATES.get(str(self._get(self._board()).get("PowerState")))

    def _board(self) -> str:
        """The path of the board among the BMC's systems, found once."""
        if not self._system:
            root = self._get("/redfish/v1/")
            listed = self._get(root.get("Systems", {}).get("@odata.id", "/redfish/v1/Systems"))
            paths = [str(one.get("@odata.id", "")) for one in listed.get("Members", [])]
            self._system = self._chosen(paths)
        return self._system

    def _chosen(self, paths: list[str]) -> str:
        wanted = self._config.system
        names = [path.rstrip("/").rpartition("/")[2] for path in paths]
        fitting = [path for path, name in zip(paths, names, strict=True) if wanted in ("", name)]
        if wanted and not fitting:
            fitting = [path for path in paths if self._get(path).get("Name") == wanted]
        if len(fitting) != 1:
            have = ", ".join(names) or "none"
            raise InfrastructureError(
                f"{self.where} has {len(paths)} systems" + (f", none {wanted!r}" if wanted else ""),
                hint=f"system = one of {have}",
            )
        return fitting[0]

    def _get(self, path: str) -> dict[str, Any]:
        return self._call("GET", path, None)

    def _call(self, method: str, path: str, body: Mapping[str, str] | None) -> dict[str, Any]:
        login = f"{self._config.user}:{self._secret.value}".encode()
        headers = {
            "Accept": "application/json",
            "Authorization": f"Basic {base64.b64encode(login).decode()}",
            **({"Content-Type": "application/json"} if body is not None else {}),
        }
        text = None if body is None else json.dumps(body)
        host, port = self._config.address, self._port
        line = http.client.HTTPSConnection(host, port, timeout=_ASK_S, context=self._tls)
        try:
            line.request(method, path, text, headers)
            answer = line.getresponse()
            said = answer.read()
        except ssl.SSLError as error:
            raise InfrastructureError(
                f"{self.where} cannot be trusted: {error.reason or error}",
                hint="certificate = a PEM file with its certificate, or with who signed that",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise InfrastructureError(f"{self.where} does not answer: {error}") from error
        finally:
            line.close()
        return self._answer(method, path, answer.status, said)

    def _answer(self, method: str, path: str, status: int, said: bytes) -> dict[str, Any]:
        shown = self._secret.hidden_in(said[:2000].decode(errors="replace"))
        if status in (401, 403):
            raise InfrastructureError(
                f"{self.where} refuses user {self._config.user} ({status})",
                hint="user, and password = a reference to the right one",
                output=shown,
            )
        if not 200 <= status < 300:
            raise InfrastructureError(
                f"{self.where} answers {method} {path} with {status}", output=shown
            )
        try:
            found = json.loads(said) if said.strip() else {}
        except ValueError as error:
            raise InfrastructureError(
                f"{self.where} does not speak Redfish: {path} is no JSON", output=shown
            ) from error
        return found if isinstance(found, dict) else {}

    def _context(self, root: Path) -> ssl.SSLContext:
        """A certificate that was named vouches for the BMC whatever that calls itself: they are
        signed by themselves, for names of their makers.
        """
        named = self._config.certificate
        if not named:
            return ssl.create_default_context()
        path = root / Path(named).expanduser()
        try:
            context = ssl.create_default_context(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise InfrastructureError(f"certificate {path} cannot be used: {error}") from error
        context.check_hostname = False
        return context


_STATES = {"On": True, "Off": False}


# -- others ---------------------------------------------------------------------------------------


class Command:
    """Any shell commands. That for the status ends with 0 for on, with 1 for off."""

    def __init__(self, config: PowerConfig) -> None:
        self._config, self.tells = config, bool(config.status)
        self.where = f"`{config.status}`" if config.status else "nobody"

    def set(self, on: bool) -> None:
        line = self._config.on if on else self._config.off
        process.run(["sh", "-c", line], timeout_s=self._config.takes_s)

    def is_on(self) -> bool | None:
        if not self.tells:
            return None
        done = process.run(["sh", "-c", self._config.status], timeout_s=_ASK_S, check=False)
        if done.returncode not in (0, 1):
            raise InfrastructureError(
                f"{self.where} ended with {done.returncode}",
                hint="0 says that the board is on, 1 that it is off",
                output=done.output[-2000:],
                reproduce=done.command,
            )
        return done.returncode == 0


class Pdudaemon(Command):
    """An outlet of pdudaemon, which takes requests over HTTP and cannot say what became of them:
    a status command beside it can.
    """

    def set(self, on: bool) -> None:
        config = self._config
        host, port = config.address, config.port or _PDU_PORT
        query = urllib.parse.urlencode({"hostname": config.pdu, "port": config.outlet})
        path = f"/power/control/{_word(on)}?{query}"
        line = http.client.HTTPConnection(host, port, timeout=_ASK_S)
        try:
            line.request("GET", path)
            answer = line.getresponse()
            said = answer.read()[:2000].decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise InfrastructureError(
                f"pdudaemon at {host}:{port} does not answer: {error}"
            ) from error
        finally:
            line.close()
        if answer.status != 200:
            raise InfrastructureError(
                f"pdudaemon at {host}:{port} refuses {config.pdu}, outlet {config.outlet} "
                f"({answer.status})",
                hint="pdu and outlet as its own configuration has them",
                output=said,
            )


__all__ = ["Power", "Switch", "Switched", "of"]
