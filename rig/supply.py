"""Where racks take their guests from: booted so many at a time, one ahead where there is room."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from rig.errors import BootError, InfrastructureError, RigError
from rig.guest import Guest
from rig.record import Record

# How long we wait for the end of machines whose plug was pulled.
_CUT_S = 15.0


class Boots(Protocol):
    """What is needed of a Lab (rig.rack)."""

    def boot(self, number: int, record: Record) -> Guest: ...
    def last_words(self, error: BootError, number: int, record: Record) -> None: ...
    def cut(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Taken:
    """A guest, and which boot of the run it is of."""

    number: int
    guest: Guest


class Supply:
    """Boots guests, for any thread that asks; ends those booted ahead that nobody took.

    boots_at_once: emulated machines that boot together starve each other. spares: how many
    guests may wait to be taken (0: none is booted ahead). load: by how much deadlines grow
    because more is asked of the host's cores than there are.
    """

    def __init__(
        self,
        lab: Boots,
        record: Record,
        *,
        boots_at_once: int = 1,
        spares: int = 0,
        load: float = 1.0,
    ) -> None:
        self._lab, self._record, self._load = lab, record, load
        self._gate = threading.BoundedSemaphore(boots_at_once)
        self._spares = spares
        self._ahead: list[Future[Taken]] = []
        self._threads: list[threading.Thread] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._cut = threading.Event()

    def take(self) -> Taken:
        """A guest that was booted ahead, or a fresh one. Raises BootError as Lab.boot does."""
        with self._lock:
            ready = self._ahead.pop(0) if self._ahead else None
        return ready.result() if ready else self._boot(next(self._numbers))

    def order(self, made_ready: Callable[[Guest], object], wanted: int = 1) -> None:
        """Begin to boot one ahead, unless as many as may wait, or will be wanted, do; made_ready
        is done to it.

        What goes wrong in made_ready is met again by who runs a program in that guest.
        """
        with self._lock:
            if len(self._ahead) >= min(self._spares, wanted) or self.is_cut:
                return
            future: Future[Taken] = Future()
            self._ahead.append(future)
            arguments = (next(self._numbers), future, made_ready)
            thread = threading.Thread(target=self._boot_ahead, args=arguments, daemon=True)
            self._threads.append(thread)
        thread.start()

    @property
    def is_cut(self) -> bool:
        """Whether the plugs were pulled."""
        return self._cut.is_set()

    def check(self) -> None:
        """InfrastructureError once the plugs were pulled."""
        if self.is_cut:
            raise InfrastructureError("the rig was stopped")

    def cut(self) -> None:
        """Pull every machine's plug, and boot none any more; from any thread, the first time."""
        with self._lock:
            first = not self.is_cut
            self._cut.set()
        if first:
            self._lab.cut()

    def close(self) -> None:
        """End what was booted ahead and not taken, and the lab. That such a boot failed goes on
        record.
        """
        with self._lock:
            left, self._ahead = self._ahead, []
        for thread in self._threads:
            thread.join(_CUT_S if self.is_cut else None)
        for future in left:
            if not future.done():
                continue  # cut, and stuck all the same: its machine is dead
            try:
                future.result().guest.close()
            except RigError as error:
                if not self.is_cut:
                    words = f"a machine that was booted ahead did not boot: {error.message}"
                    self._record.notice(words)
        self._lab.close()

    def _boot(self, number: int) -> Taken:
        with self._gate:
            self.check()
            try:
                guest = self._lab.boot(number, self._record)
            except BootError as error:
                if not self.is_cut:  # by us, and no kernel's doing
                    self._lab.last_words(error, number, self._record)
                raise
        guest.load = self._load
        return Taken(number, guest)

    def _boot_ahead(
        self, number: int, future: Future[Taken], made_ready: Callable[[Guest], object]
    ) -> None:
        try:
            taken = self._boot(number)
            with contextlib.suppress(RigError):
                made_ready(taken.guest)
            future.set_result(taken)
        except BaseException as error:  # noqa: BLE001 - whoever takes the guest raises it
            future.set_exception(error)
