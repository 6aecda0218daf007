"""Several racks side by side: programs run ahead in machines of their own, reports stay in order.

The caller asks for one program after the other and waits for each. Meanwhile every rack, in a
thread of its own, takes the longest program that is left. What is common to all of them (the
record, the supply of guests, the queue) is safe for threads; a guest is only ever used by the
thread of its rack.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rig.board import Board
from rig.durations import Durations
from rig.errors import InfrastructureError, LostMachineError, RigError
from rig.expected import Expected
from rig.progress import QUIET
from rig.rack import Isolation, Judged, Lab, Order, Rack
from rig.record import Record
from rig.results import Case
from rig.suite import BuiltSuite, Program, Suite
from rig.supply import Supply

_log = logging.getLogger(__name__)

# How long a worker may take to end once its machine's plug was pulled.
_CUT_S = 15.0


@dataclass
class _Task:
    """One program on its way to a verdict."""

    order: Order
    place: int
    known_s: float | None
    asked: bool = False
    judged: Judged | None = None
    error: BaseException | None = None
    begun: bool = False
    over: threading.Event = field(default_factory=threading.Event)


class Fleet:
    """As rig.rack.Racks, with several machines side by side.

    board: where a person sees what runs on which machine.
    """

    def __init__(
        self,
        lab: Lab,
        record: Record,
        *,
        machines: int,
        isolation: Isolation = "none",
        reproduce: Callable[[Suite, Program], str] = lambda _suite, _program: "",
        supply: Supply | None = None,
        durations: Durations | None = None,
        board: Board | None = None,
        expected: Expected | None = None,
    ) -> None:
        self.record = record
        self._supply = supply or Supply(lab, record)
        self._isolation = isolation
        self._durations = durations or Durations()
        self._board = board or Board(QUIET)
        self._racks = [
            Rack(
                lab,
                record,
                isolation=isolation,
                reproduce=reproduce,
                supply=self._supply,
                upcoming=self._upcoming,
                durations=self._durations,
                expected=expected,
            )
            for _ in range(machines)
        ]
        self._tasks: dict[Order, _Task] = {}
        self._waiting: list[_Task] = []
        self._workers: list[threading.Thread] = []
        self._suites: dict[Rack, str] = {}
        self._lock = threading.Lock()
        self._last_words: dict[int, tuple[Case, ...]] = {}
        self._failures_left = 0
        self._in_order = self._stopped = False
        self._error: BaseException | None = None

    @property
    def lost(self) -> LostMachineError | None:
        """A machine that went away with no splat to explain it."""
        return next((rack.lost for rack in self._racks if rack.lost), None)

    def prepare(self, suites: Sequence[Suite]) -> Sequence[BuiltSuite]:
        """As Racks.prepare."""
        first, *others = self._racks
        built = first.prepare(suites)
        for rack in others:
            rack.hold(built)
        return built

    def expect(self, orders: Sequence[Order], *, max_failures: int = 0) -> None:
        """As Racks.expect; the machines begin to work.

        With max_failures programs begin in the order of reports and not the longest first, so that
        all before the one that ends the run have been begun.
        """
        self._in_order, self._failures_left = bool(max_failures), max_failures
        for rack in self._racks:
            rack.expect(orders)
        known = self._durations.known()
        tasks = [_Task(order, place, known.get(order.name)) for place, order in enumerate(orders)]
        self._tasks = {task.order: task for task in tasks}
        self._waiting = tasks if self._in_order else sorted(tasks, key=_longest_first)
        used = self._racks[: len(tasks)]
        self._board.begin(f"test in {len(used)} machines", len(tasks))
        self._workers = [
            threading.Thread(target=self._work, args=each, name=f"machine {each[0]}", daemon=True)
            for each in enumerate(used)
        ]
        for worker in self._workers:
            worker.start()

    def run(self, order: Order) -> Judged:
        """As Racks.run: wait for it."""
        task = self._tasks[order]
        task.asked = True
        task.over.wait()
        if task.error:
            raise task.error
        assert task.judged is not None
        return task.judged

    def refuse(self, order: Order, why: str, output: str = "") -> None:
        """As Racks.refuse."""
        task = self._tasks.get(order)
        if task is None or task.judged is None:
            self._racks[0].refuse(order, why, output)

    def unasked(self) -> Sequence[tuple[Order, Judged]]:
        """As Racks.unasked, in the order of reports."""
        left = (task for task in self._tasks.values() if task.judged and not task.asked)
        return [(task.order, task.judged) for task in left if task.judged]

    def close(self, *, hurry: bool = False) -> tuple[Case, ...]:
        """As Racks.close. What runs is waited for, or cut off in a hurry; nothing more begins."""
        self._stop(None)
        try:
            if hurry:
                self._supply.cut()
        finally:
            self._join(hurry)
        self._supply.close()
        self._durations.save()
        for task in self._tasks.values():
            if task.begun and task.judged is None:
                output = task.error.output if isinstance(task.error, RigError) else ""
                self.refuse(task.order, str(task.error or "the rig was stopped"), output)
        if self._error and not isinstance(self._error, RigError):
            raise self._error
        return tuple(case for _, cases in sorted(self._last_words.items()) for case in cases)

    def _join(self, hurry: bool) -> None:
        for worker in self._workers:
            worker.join(_CUT_S if hurry else None)
            if worker.is_alive():
                _log.warning("%s does not end, but its plug is pulled", worker.name)

    # -- in the workers' threads -------------------------------------------------------------------

    def _work(self, number: int, rack: Rack) -> None:
        """Run one program after the other; then a last look at the guest, and its end."""
        try:
            while task := self._next(rack):
                self._do(task, number, rack)
            self._last_words[number] = rack.close(hurry=self._supply.is_cut)
        except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
            self._stop(error)

    def _next(self, rack: Rack) -> _Task | None:
        """The next program for a rack: of the suite that is in its guest already if one is left,
        else of one that no other rack works on."""
        with self._lock:
            if self._stopped or not self._waiting:
                return None
            own, taken = self._suites.get(rack), set(self._suites.values())
            task = self._waiting[0]
            if not self._in_order:
                names = [one.order.suite.name for one in self._waiting]
                near = (own, next((name for name in names if name not in taken), None))
                best = next((name for name in near if name in names), names[0])
                task = self._waiting[names.index(best)]
            self._waiting.remove(task)
            self._suites[rack] = task.order.suite.name
            task.begun = True
            return task

    def _upcoming(self) -> Sequence[Order]:
        """The programs for which guests may be booted ahead.

        Which suite a rack takes next is decided when it does, so only where it does not matter.
        """
        with self._lock:
            return [task.order for task in self._waiting] if self._isolation == "program" else ()

    def _do(self, task: _Task, number: int, rack: Rack) -> None:
        try:
            self._board.began(number, task.order.name)
            task.judged = rack.run(task.order)
            self._board.ended(number)
            self._count(task.judged)
        except RigError as error:
            task.error = error
            self._stop(error)
        except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
            task.error = error
        finally:
            task.over.set()

    def _count(self, judged: Judged) -> None:
        """Stop at the last failure that is allowed."""
        if self._in_order and not all(case.status.good for case in judged.cases):
            with self._lock:
                self._failures_left -= 1
            if self._failures_left <= 0:
                self._stop(None)

    def _stop(self, error: BaseException | None) -> None:
        """Begin nothing more; who waits for what was not begun is told why."""
        with self._lock:
            self._stopped = True
            # A mistake of the rig itself is not to be missed behind what it led to.
            if error and (not self._error or not isinstance(error, RigError)):
                self._error = error
            left, self._waiting = self._waiting, []
        for task in left:
            task.error = self._error or InfrastructureError("the rig was stopped")
            task.over.set()


def _longest_first(task: _Task) -> tuple[float, int]:
    """What is not known may be long, so it comes first; equals stay in order."""
    return (float("-inf") if task.known_s is None else -task.known_s, task.place)
