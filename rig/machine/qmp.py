"""QEMU's monitor: one command at a time, each with a deadline."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from qemu.qmp import ExecuteError, Message, QMPClient, QMPError, Runstate

from rig.errors import InfrastructureError

# The library logs what it then also raises, and calls an interrupted greeting a bug of its own.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)

_CANCEL_S = 5.0  # that an interrupted command has to end
_ENDED = ("completed", "failed", "cancelled")  # a migration's last states


class Monitor:
    """A QMP connection on an inherited socket. Any thread may use it; they take turns."""

    def __init__(self, line: socket.socket, *, timeout_s: float) -> None:
        """Greet QEMU. InfrastructureError when it does not answer in time or is gone."""
        self._timeout_s = timeout_s
        self._turn = threading.RLock()
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("rig")
        self._seen: list[str] = []  # events that a wait for another one passed by
        try:
            self._wait(self._client.connect(line))
        except AssertionError as error:
            # What the library says of a peer that hangs up right after its greeting.
            self.close()
            raise InfrastructureError("QEMU's monitor went away") from error
        except BaseException:
            self.close()
            raise

    def command(self, name: str, **arguments: object) -> Any:
        """Execute a command; what it returned. InfrastructureError when refused or gone."""
        return self._wait(self._client.execute(name, arguments))

    def long_command(self, timeout_s: float, name: str, **arguments: object) -> Any:
        """The same with more time than the others have."""
        return self._wait(self._client.execute(name, arguments), timeout_s)

    @property
    def version(self) -> tuple[int, int, int]:
        """QEMU's version as it greeted us with it; zeros when it did not say."""
        greeting = self._client.greeting
        said = greeting.QMP.version.get("qemu") if greeting else None
        if not isinstance(said, Mapping):
            return 0, 0, 0
        major, minor, micro = (int(said.get(part, 0)) for part in ("major", "minor", "micro"))
        return major, minor, micro

    def events(self) -> list[str]:
        """Names of the events since the last call."""
        with self._turn:
            if not self._loop.is_closed():
                self._loop.run_until_complete(asyncio.sleep(0))
            seen, self._seen = self._seen, []
            return [*seen, *(str(event["event"]) for event in self._client.events.clear())]

    def save(self, file: int, timeout_s: float) -> None:
        """Write the machine's state to an open file; returns when that is done.

        Memory that is shared with a file is not part of the state (x-ignore-shared).
        InfrastructureError when QEMU fails, or after timeout_s.
        """
        self.command("migrate-set-capabilities", **_capabilities("events", "x-ignore-shared"))
        self._client.send_fd_scm(file)
        self.command("getfd", fdname="state")
        self.command("migrate", uri="fd:state")
        status = self._wait(self._next("MIGRATION", _ENDED), timeout_s)
        if status != "completed":
            why = self.command("query-migrate").get("error-desc", "no reason given")
            raise InfrastructureError(f"QEMU's migrate {status}: {why}")

    def load(self, file: int, timeout_s: float) -> None:
        """Have the state read from a file that QEMU inherited by this number; returns when the
        machine goes on from there. A QEMU that cannot load it ends: InfrastructureError.
        """
        self._wait(self._load(f"fd:{file}"))
        self._wait(self._next("RESUME"), timeout_s)

    async def _load(self, uri: str) -> None:
        """Both commands at once: QEMU executes them in their order, and does not wait for us."""
        await asyncio.gather(
            self._client.execute("migrate-set-capabilities", _capabilities("x-ignore-shared")),
            self._client.execute("migrate-incoming", {"uri": uri}),
        )

    async def _next(self, name: str, statuses: Sequence[str] = ("",)) -> str:
        """The status of the next event of this name that has one of these."""
        while True:
            event = await self._event()
            data = event.get("data")
            status = str(data.get("status", "")) if isinstance(data, Mapping) else ""
            if event["event"] == name and status in statuses:
                return status
            self._seen.append(str(event["event"]))

    async def _event(self) -> Message:
        """The next event. EOFError when QEMU goes instead, of which the library's queue says
        nothing.
        """
        client = self._client
        coming = asyncio.ensure_future(client.events.get())
        going = asyncio.ensure_future(client.runstate_changed())
        try:
            if client.runstate == Runstate.RUNNING:
                await asyncio.wait((coming, going), return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(0)  # what came before is there at once
            if not coming.done():
                raise EOFError("end of file")
            return coming.result()
        finally:
            coming.cancel()
            going.cancel()

    def close(self) -> None:
        """Hang up; idempotent."""
        with self._turn:
            self._close()

    def _close(self) -> None:
        if self._loop.is_closed():
            return
        try:
            self._loop.run_until_complete(asyncio.wait_for(self._client.disconnect(), 5))
        except (QMPError, OSError, EOFError, TimeoutError):
            pass  # QEMU went first
        finally:
            self._loop.close()

    def _wait(self, work: Any, timeout_s: float | None = None) -> Any:
        with self._turn:
            return self._answer(work, self._timeout_s if timeout_s is None else timeout_s)

    def _answer(self, work: Any, limit_s: float) -> Any:
        try:
            return self._done(asyncio.wait_for(work, limit_s))
        except ExecuteError as error:
            raise InfrastructureError(f"QEMU refused a command: {error}") from error
        except TimeoutError as error:
            raise InfrastructureError(
                f"QEMU's monitor did not answer in {limit_s:.0f} s"
            ) from error
        except (QMPError, OSError, EOFError) as error:
            raise InfrastructureError(f"QEMU's monitor went away: {error}") from error

    def _done(self, work: Any) -> Any:
        """What it comes to; one that is interrupted is ended, and its end is nobody's news."""
        task = self._loop.create_task(work)
        try:
            return self._loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            self._loop.run_until_complete(asyncio.wait({task}, timeout=_CANCEL_S))
            if task.done() and not task.cancelled():
                task.exception()
            raise


def _capabilities(*names: str) -> dict[str, object]:
    """What migrate-set-capabilities is to switch on."""
    return {"capabilities": [{"capability": name, "state": True} for name in names]}
