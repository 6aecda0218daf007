"""Programs one after another in guests that are fit for them; what was seen goes on record."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from rig.durations import Durations
from rig.errors import BootError, InfrastructureError, LostMachineError
from rig.expected import Expected
from rig.guest import Guest
from rig.record import FIRST, LAST, Record
from rig.results import BOOTS, NOT_RUN, Case, Run, Splat, Status
from rig.session import ConnectionLost, SessionTimeout
from rig.suite import BuiltSuite, Program, Suite
from rig.suite import programs as listed
from rig.supply import Supply
from rig.verdict import Observation, Rules, judge, late, unborn

Isolation = Literal["none", "suite", "program"]
ISOLATIONS: tuple[Isolation, ...] = ("none", "suite", "program")


class Lab(Protocol):
    """Where kernels, images, compiled suites and booted machines come from."""

    def prepare(self, suites: Sequence[Suite]) -> Sequence[BuiltSuite]:
        """Build what the suites need, and compile them, in their order."""

    def boot(self, number: int, record: Record) -> Guest:
        """A freshly booted guest, its console put on record. Raises BootError.

        Several threads may boot at once.
        """

    def last_words(self, error: BootError, number: int, record: Record) -> None:
        """Put on record what there is of a boot that failed."""

    def close(self) -> None:
        """Give back what is held for all boots of a run; idempotent."""

    def cut(self) -> None:
        """Pull the plug of every machine there is, also of one that boots, and boot none any
        more. From any thread; who uses such a machine finds it gone, and closes it."""

    def explain(self, splats: Sequence[Splat]) -> Sequence[Splat]:
        """The splats with what is known of their source lines. From any thread."""

    def describe(self, run: Run) -> Run:
        """The run with the facts of kernel, machine and image, and the notices, filled in."""


@dataclass(frozen=True)
class Judged:
    """A program's cases. duration_s: wall seconds it took, boots included; own_s: without them,
    0 when it was not run."""

    cases: tuple[Case, ...]
    duration_s: float
    own_s: float = 0.0


@dataclass(frozen=True)
class Order:
    """One program that will be asked for."""

    suite: Suite
    program: Program

    @property
    def name(self) -> str:
        """suite/program."""
        return f"{self.suite.name}/{self.program.name}"


class Racks(Protocol):
    """What runs programs: one rack, or several side by side (rig.fleet).

    record: where everything goes. lost: a machine that went away unexplained, if any.
    """

    @property
    def record(self) -> Record: ...

    @property
    def lost(self) -> LostMachineError | None: ...

    def prepare(self, suites: Sequence[Suite]) -> Sequence[BuiltSuite]:
        """Build and compile everything; raises BuildError, UsageError or InfrastructureError."""

    def expect(self, orders: Sequence[Order], *, max_failures: int = 0) -> None:
        """What will be asked for, in the order of reports; once, after prepare.

        max_failures: the caller will ask for no more after so many programs did not pass (0: it
        will go on).
        """

    def run(self, order: Order) -> Judged:
        """One program's verdict, on record before this returns.

        Among the cases may be some of others: of the program before it in that guest (a late
        splat) and of the boot. Raises BootError or InfrastructureError when there can be no guest.
        """

    def refuse(self, order: Order, why: str, output: str = "") -> None:
        """Put on record that a program was not run; nothing when it was. output: of what failed."""

    def unasked(self) -> Sequence[tuple[Order, Judged]]:
        """After close: what was run and never asked for."""

    def close(self, *, hurry: bool = False) -> tuple[Case, ...]:
        """End the guests; the cases of what their consoles said after their last programs.

        hurry: a person waits, and nothing will be called green; do not listen any more.
        """


class Rack:
    """Holds at most one guest and gives every program a fit one.

    isolation: "none" one guest for all, "suite" and "program" a new one for each of those. Beyond
    that a guest is replaced when a splat, a crash, a time-out or a silent console made it unfit.
    reproduce: the command that runs one program again. supply: where guests come from. durations:
    where it is kept how long programs take. expected: what is allowed to go wrong. upcoming: for
    one rack of a fleet, which shares the supply: the programs that will each want a new guest;
    without it that is the next one, if any.
    """

    def __init__(
        self,
        lab: Lab,
        record: Record,
        *,
        isolation: Isolation = "none",
        reproduce: Callable[[Suite, Program], str] = lambda _suite, _program: "",
        supply: Supply | None = None,
        upcoming: Callable[[], Sequence[Order]] | None = None,
        durations: Durations | None = None,
        expected: Expected | None = None,
    ) -> None:
        self.record = record
        self.lost: LostMachineError | None = None
        self._lab = lab
        self._isolation = isolation
        self._reproduce = reproduce
        self._supply = supply or Supply(lab, record)
        self._alone = upcoming is None
        self._durations = durations or Durations()
        self._expected = expected or Expected()
        self._built: dict[Path, BuiltSuite] = {}
        self._places: dict[Order, float] = {}
        self._next: dict[Order, Order] = {}
        self._upcoming = upcoming
        self._told: set[Order] = set()
        self._guest: Guest | None = None
        self._purpose: tuple[str, ...] = ()
        self._previous: Rules | None = None
        self._place_of_previous = LAST

    def prepare(self, suites: Sequence[Suite]) -> Sequence[BuiltSuite]:
        """As Racks.prepare.

        A program that was not there to be chosen, and came out of the build, is an error on
        record: nobody would miss it else.
        """
        ready = self._lab.prepare(suites)
        self.hold(ready)
        for built in ready:
            known = listed(built.suite)
            for program in built.programs:
                if program not in known:
                    words = f"{NOT_RUN}its Makefile names it only with a kernel"
                    case = unborn(self._rules(Order(built.suite, program)), words)
                    self.record.add((case,), place=FIRST)
        self.record.update(self._lab.describe)
        return ready

    def hold(self, suites: Sequence[BuiltSuite]) -> None:
        """Take suites that are compiled already."""
        for built in suites:
            self._built[built.suite.directory] = built

    def expect(self, orders: Sequence[Order], *, max_failures: int = 0) -> None:
        """As Racks.expect."""
        self._places = {order: float(place) for place, order in enumerate(orders)}
        self._next.update(itertools.pairwise(orders))

    def run(self, order: Order) -> Judged:
        """As Racks.run."""
        started = time.monotonic()
        cases, own_s = self._run(order)
        self._told.add(order)
        self._durations.note(order.name, own_s)
        return Judged(cases, time.monotonic() - started, own_s)

    def refuse(self, order: Order, why: str, output: str = "") -> None:
        """As Racks.refuse."""
        if order not in self._told:
            self._told.add(order)
            case = unborn(self._rules(order), f"{NOT_RUN}{why}")
            self._put_down(order, (replace(case, output=output),))

    def unasked(self) -> Sequence[tuple[Order, Judged]]:
        """As Racks.unasked; a single rack runs nothing ahead."""
        return ()

    def close(self, *, hurry: bool = False) -> tuple[Case, ...]:
        """As Racks.close."""
        try:
            if hurry:
                self._supply.cut()
                self._retire()
            return self._part()
        finally:
            self._retire()  # also if that went wrong
            if self._alone:
                self._supply.close()
                self.record.update(self._lab.describe)  # what the end has brought to light
                self._durations.save()

    # ------------------------------------------------------------------------------------------

    def _run(self, order: Order) -> tuple[tuple[Case, ...], float]:
        """The cases, and the seconds of the program alone."""
        rules = self._rules(order)
        before = self._make_fit(order)
        built = self._built[order.suite.directory]
        if order.program not in built.programs:
            missing = unborn(rules, "it did not come out of the build")
            return (*before, *self._put_down(order, (missing,))), 0.0
        before += self._place(order, built)
        guest = self._guest
        assert guest is not None
        self._look_ahead(order)
        started = time.monotonic()
        seen = guest.run(order.program, built)
        if self._slipped(order, guest, seen):
            before += self._boot(order)
            guest = self._guest
            assert guest is not None
            started = time.monotonic()
            seen = guest.run(order.program, built)
        own_s = time.monotonic() - started
        self._supply.check()  # what a machine without its plug says is no verdict
        if not seen.end.gone:
            seen = replace(seen, splats=self._unexpected(seen.splats))
        self._previous, self._place_of_previous = rules, self._places.get(order, LAST)
        raw = judge(rules, seen)
        judged = self._expected.judged(raw)
        self._told.add(order)  # whatever comes before its end
        cases = self._put_down(order, judged, self._not_of_a_crash(raw, judged, seen.splats))
        if seen.end.gone and not seen.splats:
            self.lost = LostMachineError(f"{order.name}: {seen.detail}")
        if not guest.fit:
            self._retire()
        return (*before, *cases), own_s

    def _slipped(self, order: Order, guest: Guest, seen: Observation) -> bool:
        """Whether the emulator has ended the machine, and so said nothing of the program, which is
        run once more then: a second time would be believed. The guest is gone, and it is noticed.
        """
        its = all("int3" in one.title for one in seen.splats)
        if not (seen.end.gone and seen.splats and its and guest.machine.slipped()):
            return False
        self.record.notice(
            f"{order.name} was run a second time: this QEMU's TCG ran a breakpoint that was not "
            f"there (mended in QEMU 8.1); the first console is {guest.machine.console.path.name}"
        )
        self._retire()
        return True

    def _rules(self, order: Order) -> Rules:
        suite, program = order.suite, order.program
        again = self._reproduce(suite, program)
        return Rules(suite.name, program.name, bare=bool(suite.target), reproduce=again)

    def _purpose_of(self, order: Order) -> tuple[str, ...]:
        """What the guest of a program is for: programs of equal purpose share one."""
        suite, program = order.suite.name, order.program.name
        purposes = {"none": (), "suite": (suite,), "program": (suite, program)}
        return purposes[self._isolation]

    def _make_fit(self, order: Order) -> tuple[Case, ...]:
        """See to it that a fit guest is there; the cases of what came to light meanwhile."""
        purpose = self._purpose_of(order)
        cases: tuple[Case, ...] = ()
        if self._guest and purpose != self._purpose:
            cases = self._part(brief=True)
        elif self._guest and (splats := self._guest.listen()):
            cases = self._put_down_late(self._unexpected(splats))
            self._retire()
        self._purpose = purpose
        return cases if self._guest else (*cases, *self._boot(order))

    def _look_ahead(self, order: Order) -> None:
        """Have the next guest booted while this one works, where the next program needs one."""
        if self._upcoming:
            after = self._upcoming()
        else:
            after = [self._next[order]] if order in self._next else []
        if after and self._purpose_of(after[0]) != self._purpose_of(order):
            built = self._built[after[0].suite.directory]
            self._supply.order(lambda guest: guest.place(built), len(after))

    def _place(self, order: Order, built: BuiltSuite) -> tuple[Case, ...]:
        """Put the suite into the guest; into a new one where a program before spoilt the guest.

        A fresh guest that does not take it is no program's fault: Guest.run tells of that.
        """
        guest = self._guest
        if guest is None or self._previous is None:
            return ()
        try:
            guest.place(built)
        except (InfrastructureError, ConnectionLost) as error:
            cases = (*self._part(), *self._boot(order))
            words = f"a new machine was booted for suite {built.suite.name}: {error.message}"
            self.record.notice(words)
            return cases
        return ()

    def _boot(self, order: Order) -> tuple[Case, ...]:
        taken = self._supply.take()
        self._guest, self._previous = taken.guest, None
        self.record.update(self._lab.describe)
        splats = self._unexpected(taken.guest.listen())
        if not splats:
            return ()
        rules = Rules(BOOTS, f"boot-{taken.number}")
        return self._put_down(order, (replace(late(rules, splats), name=""),), splats)

    def _part(self, *, brief: bool = False) -> tuple[Case, ...]:
        """End the guest after a last look at its console; brief as in Guest.farewell."""
        guest = self._guest
        if guest is None:
            return ()
        cases: tuple[Case, ...] = ()
        try:
            if guest.fit and self._previous and (splats := guest.farewell(brief=brief)):
                cases = self._put_down_late(self._unexpected(splats))
        except (ConnectionLost, SessionTimeout, TimeoutError, EOFError) as error:
            cases = self._gone(guest, str(error))
        finally:
            self._retire()
        return cases

    def _gone(self, guest: Guest, words: str) -> tuple[Case, ...]:
        """The machine was not there any more, or silent, when it was to be ended."""
        if self._supply.is_cut:
            return ()
        splats = guest.listen()
        if splats:
            return self._put_down_late(splats)
        assert self._previous is not None
        why = f"the machine was gone or silent after it: {words}"
        self.lost = LostMachineError(why)
        case = replace(unborn(self._previous, why), name="after its end")
        self.record.add((case,), place=self._place_of_previous)
        return (case,)

    def _unexpected(self, splats: Sequence[Splat]) -> tuple[Splat, ...]:
        """Those that nothing allows; of the others there is a notice."""
        kept, notices = self._expected.allowed(splats)
        for words in notices:
            self.record.notice(words)
        return kept

    def _not_of_a_crash(
        self, raw: Sequence[Case], judged: Sequence[Case], splats: tuple[Splat, ...]
    ) -> tuple[Splat, ...]:
        """The splats, or none where they are what a program was expected to crash with."""
        ends = zip(raw, judged, strict=True)
        if not any(one.status is Status.CRASH and two.status.good for one, two in ends):
            return splats
        for one in splats:
            self.record.notice(f"expected, with a crash: {one.title}")
        return ()

    def _put_down_late(self, splats: Sequence[Splat]) -> tuple[Case, ...]:
        """What the console said after the program before: it stands with that program's cases."""
        if not splats:
            return ()
        assert self._previous is not None
        case = late(self._previous, splats)
        self._keep((case,), splats, self._place_of_previous)
        return (case,)

    def _retire(self) -> None:
        guest, self._guest = self._guest, None
        if guest:
            guest.close()

    def _put_down(
        self, order: Order, cases: Sequence[Case], splats: Sequence[Splat] = ()
    ) -> tuple[Case, ...]:
        self._keep(cases, splats, self._places.get(order, LAST))
        return tuple(cases)

    def _keep(self, cases: Sequence[Case], splats: Sequence[Splat], place: float) -> None:
        """Put on record what was seen, also where somebody interrupts what explains it."""
        told = splats
        try:
            told = self._lab.explain(splats)
        finally:
            self.record.add(cases, told, place)
