"""A board's power: on, off, on again, each time seen to have taken effect."""

from __future__ import annotations

import base64
import contextlib
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
from rig.machine.labgrid import Place

_ASK_S = 30.0  # for one answer of a BMC or a daemon
_LOOK_S = 0.5  # between two looks at whether it has happened
_STEADY_S = 3.0  # for which a board stays as it is, where no change is under way
_IPMI_PORT, _HTTPS_PORT, _PDU_PORT = 623, 443, 16421
_AWAY = "does not answer"
# What ipmitool -v says of a session that it does not get, and what it means.
_REFUSALS = (
    (r"RAKP 2 HMAC is invalid", "refuses the password", "password = a reference to the right one"),
    (r"unauthorized name", "knows no such user", "user = one of its users that may log in"),
    (
        r"(?i)insufficient privilege|invalid role|unauthorized role|exceeds limit"
        r"|Set Session Privilege Level to \w+ failed",
        "does not let that user switch the power",
        "give the user operator rights there",
    ),
    (
        r"invalid (?:authentication|integrity|confidentiality) algorithm"
        r"|no matching (?:cipher suite|\w+ algorithm|\w+ payload)|Unsupported cipher suite",
        "does not know the cipher suite",
        "cipher = 3, or another that it knows",
    ),
    (r"Get Auth Capabilities error|No response|Address lookup", _AWAY, "address, port"),
)
# A BMC that begins anew, or has other things to do.
_BUSY = re.compile(r"(?i)Unable to establish|time?d? ?out|busy|insufficient resources")
# 0xD5: some say so where the power is as it is asked for.
_ALREADY = re.compile(r"not supported in present state", re.IGNORECASE)


class AwayError(InfrastructureError):
    """Nobody has answered, or only to say that it cannot just now."""


class Switch(Protocol):
    """One way of switching. where: it, for messages. tells: whether it can say how things are."""

    where: str

    @property
    def tells(self) -> bool: ...

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
        self._ask(on, began + self.takes_s)
        if not self.switch.tells:
            return Switched(on, False, time.monotonic() - began)
        while self._looked(on, began + self.takes_s) is not on:
            time.sleep(min(_LOOK_S, self.takes_s / 4))
        return Switched(on, True, time.monotonic() - began)

    def _ask(self, on: bool, deadline: float) -> None:
        """Again where nobody answered, a BMC being busy just now; not where it was refused."""
        while True:
            try:
                return self.switch.set(on)
            except AwayError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(min(_LOOK_S, self.takes_s / 4))

    def _looked(self, wanted: bool, deadline: float) -> bool | None:
        """How things are; None also where that could not be told, a BMC being busy just now. The
        deadline's passing is an InfrastructureError, by what was wrong last.
        """
        trouble: InfrastructureError | None = None
        try:
            found = self.switch.is_on()
        except InfrastructureError as error:
            found, trouble = None, error
        if found is wanted or time.monotonic() < deadline:
            return found
        if trouble:
            raise trouble
        raise InfrastructureError(
            f"{self.board} did not go {_word(wanted)}: {self.switch.where} says "
            f"{'that it changes' if found is None else _word(found)} "
            f"{self.takes_s:.0f} s after it was asked",
            hint="takes_s of its power says how long that may take",
        )

    def cycle(self) -> Switched:
        """Off, for rest_s, and on: both seen. Who is interrupted on the way leaves it on."""
        try:
            off = self.set(False)
            time.sleep(self.rest_s)
        except BaseException:
            with contextlib.suppress(InfrastructureError):
                self.switch.set(True)
            raise
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
        "labgrid": lambda: Labgrid(board),
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
        try:
            self._ask("power", _word(on))
        except InfrastructureError as error:
            if not (_ALREADY.search(error.output) and self.is_on() is on):
                raise

    def is_on(self) -> bool | None:
        said = self._ask("power", "status")
        found = re.search(r"Chassis Power is (on|off)", said)
        if not found:
            raise InfrastructureError(f"{self.where} says nothing of its power", output=said)
        return found[1] == "on"

    def _ask(self, *words: str) -> str:
        """ipmitool's answer. The password goes there in its environment, which is for this user's
        and root's eyes only; no more rights are asked for than the power takes.
        """
        config = self._config
        argv = ["ipmitool", "-v", "-I", "lanplus", "-H", config.address, "-p", str(self._port)]
        argv += ["-U", config.user, "-E", "-L", "OPERATOR", "-N", "2", "-R", "3"]
        argv += ["-C", str(config.cipher)] if config.cipher >= 0 else []
        env = {**os.environ, **passwords(self._secret)}
        done = process.run(
            [*argv, "chassis", *words], timeout_s=_ASK_S, env=env, check=False, separate=True
        )
        if done.returncode == 0:
            return done.output
        said = self._secret.hidden_in(f"{done.errors}{done.output}")
        if found := refusal(said):
            what, hint = found
            kind = AwayError if what == _AWAY else InfrastructureError
            raise kind(f"{self.where} {what}", hint=hint, output=said)
        kind = AwayError if _BUSY.search(said) else InfrastructureError
        raise kind(
            f"{self.where} did not do chassis {' '.join(words)}",
            output=said,
            reproduce=done.command,
        )


def refusal(said: str) -> tuple[str, str] | None:
    """What ipmitool's words mean, and what to do; None where nobody knows. Pure."""
    for pattern, what, hint in _REFUSALS:
        if re.search(pattern, said):
            return what, hint
    return None


def passwords(secret: Secret) -> dict[str, str]:
    """For ipmitool's environment: both names that it knows, or one that is there already wins."""
    return {"IPMI_PASSWORD": secret.value, "IPMITOOL_PASSWORD": secret.value}


# -- Redfish --------------------------------------------------------------------------------------


class Redfish:
    """A BMC that speaks Redfish (DMTF DSP0266) over HTTPS."""

    tells = True

    def __init__(self, board: str, config: PowerConfig, secret: Secret, root: Path) -> None:
        self._config, self._secret = config, secret
        self._port = config.port or _HTTPS_PORT
        self.where = f"the BMC of {board} at {config.address}:{self._port}"
        self._system = ""
        self._certificate = self._pinned(root)
        self._tls = ssl.create_default_context()
        if self._certificate:
            # It is compared itself: BMCs sign their own, for names and times of their makers.
            self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE

    def set(self, on: bool) -> None:
        """Asked for also where it seems to be so already: a change may be under way."""
        found = self._get(self._board())
        action = _table(_table(found.get("Actions")).get("#ComputerSystem.Reset"))
        known = action.get("ResetType@Redfish.AllowableValues") or []
        wanted = ("On", "ForceOn") if on else ("ForceOff",)
        kind = next((one for one in wanted if one in known or not known), None)
        if not action.get("target") or kind is None:
            raise InfrastructureError(
                f"{self.where} has no reset of the kind {wanted[0]}",
                output=f"it has {', '.join(map(str, known)) or 'none'}",
            )
        try:
            self._call("POST", str(action["target"]), {"ResetType": kind})
        except _RefusedError:
            # To some it is an error that the power is as it is asked for.
            if not self._stays(on):
                raise

    def _stays(self, on: bool) -> bool:
        looks = []
        for pause in (0.0, _STEADY_S):
            time.sleep(pause)
            looks.append(self.is_on())
        return looks == [on, on]

    def is_on(self) -> bool | None:
        return _STATES.get(str(self._get(self._board()).get("PowerState")))

    def _board(self) -> str:
        """The path of the board among the BMC's systems, found once."""
        if not self._system:
            root = self._get("/redfish/v1/")
            where = _table(root.get("Systems")).get("@odata.id") or "/redfish/v1/Systems"
            members = self._get(str(where)).get("Members") or []
            paths = [str(_table(one).get("@odata.id", "")) for one in members]
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
        try:
            line = http.client.HTTPSConnection(host, port, timeout=_ASK_S, context=self._tls)
            with contextlib.closing(line):
                line.connect()
                self._check_peer(line.sock)
                line.request(method, path, text, headers)
                answer = line.getresponse()
                said = answer.read()
        except ssl.SSLCertVerificationError as error:
            raise self._distrusted(error.verify_message) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise AwayError(f"{self.where} {_AWAY}: {error}") from error
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
            kind = _RefusedError if 400 <= status < 500 else AwayError
            raise kind(f"{self.where} answers {method} {path} with {status}", output=shown)
        try:
            found = json.loads(said) if said.strip() else {}
        except ValueError as error:
            raise InfrastructureError(
                f"{self.where} does not speak Redfish: {path} is no JSON", output=shown
            ) from error
        return found if isinstance(found, dict) else {}

    def _pinned(self, root: Path) -> bytes:
        """The BMC's own certificate by rig.toml; b"" where the host's authorities decide."""
        named = self._config.certificate
        if not named:
            return b""
        try:
            path = root / Path(named).expanduser()
            return ssl.PEM_cert_to_DER_cert(path.read_text(encoding="ascii").strip())
        except (OSError, ValueError, RuntimeError) as error:
            raise InfrastructureError(
                f"certificate {named} cannot be used: {error}",
                hint="a PEM file with the BMC's own certificate and nothing else",
            ) from error

    def _check_peer(self, line: ssl.SSLSocket) -> None:
        """Before anything is said to it: it is the one whose certificate we have."""
        if self._certificate and line.getpeercert(binary_form=True) != self._certificate:
            raise self._distrusted("it shows another certificate than the one in rig.toml")

    def _distrusted(self, why: str) -> InfrastructureError:
        return InfrastructureError(
            f"{self.where} cannot be trusted: {why}",
            hint="certificate = a PEM file with its own certificate, fetched once over a safe line",
        )


class _RefusedError(InfrastructureError):
    """An answer of 4xx."""


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


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


class Labgrid:
    """A place of labgrid's, which has to be acquired."""

    def __init__(self, board: BoardConfig) -> None:
        self._place, self._name = Place(board), board.power.name
        self.where = self._place.where

    @property
    def tells(self) -> bool:
        """Not all of labgrid's drivers can: once one was asked, that is known."""
        return self._place.tells

    def set(self, on: bool) -> None:
        self._place.set(on, self._name)
        self._place.is_on(self._name)

    def is_on(self) -> bool | None:
        return self._place.is_on(self._name)


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
            raise AwayError(f"pdudaemon at {host}:{port} does not answer: {error}") from error
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
