"""Programs one after another in guests that are fit for them; what was seen goes on record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

from rig.errors import InfrastructureError, LostMachineError
from rig.guest import Guest
from rig.record import Record
from rig.results import Case, Run, Splat
from rig.session import ConnectionLost, SessionTimeout
from rig.suite import BuiltSuite, Program, Suite
from rig.suite import programs as listed
from rig.verdict import Rules, judge, late, unborn

Isolation = Literal["none", "suite", "program"]
ISOLATIONS: tuple[Isolation, ...] = ("none", "suite", "program")


class Lab(Protocol):
    """Where kernels, images, compiled suites and booted machines come from."""

    def prepare(self, suites: Sequence[Suite]) -> Sequence[BuiltSuite]:
        """Build what the suites need, and compile them, in their order."""

    def boot(self, number: int, record: Record) -> Guest:
        """A freshly booted guest, its console put on record. Raises BootError."""

    def describe(self, run: Run) -> Run:
        """The run with the facts of kernel, machine and image, and the notices, filled in."""


class Rack:
    """Holds at most one guest and gives every program a fit one.

    isolation: "none" one guest for all, "suite" and "program" a new one for each of those. Beyond
    that a guest is replaced when a splat, a crash, a time-out or a silent console made it unfit.
    reproduce: the command that runs one program again.
    """

    def __init__(
        self,
        lab: Lab,
        record: Record,
        *,
        isolation: Isolation = "none",
        reproduce: Callable[[Suite, Program], str] = lambda _suite, _program: "",
    ) -> None:
        self.record = record
        self.lost: LostMachineError | None = None
        self._lab = lab
        self._isolation = isolation
        self._reproduce = reproduce
        self._built: dict[Path, BuiltSuite] = {}
        self._guest: Guest | None = None
        self._purpose: tuple[str, ...] = ()
        self._previous: Rules | None = None
        self._boots = 0

    def prepare(self, suites: Sequence[Suite]) -> None:
        """Build and compile everything; raises BuildError, UsageError or InfrastructureError.

        A program that was not there to be chosen, and came out of the build, is an error on
        record: nobody would miss it else.
        """
        for built in self._lab.prepare(suites):
            self._built[built.suite.directory] = built
            known = listed(built.suite)
            for program in built.programs:
                if program not in known:
                    self.refuse(built.suite, program, "its Makefile names it only with a kernel")
        self.record.run = self._lab.describe(self.record.run)
        self.record.save()

    def run(self, suite: Suite, program: Program) -> tuple[Case, ...]:
        """Run one program, in a new guest if need be; its cases, on record before this returns.

        Among them may be cases of others: of the program before (a late splat) and of the boot.
        Raises BootError or InfrastructureError when there can be no guest.
        """
        rules = self._rules(suite, program)
        before = self._make_fit(suite, program)
        built = self._built[suite.directory]
        if program not in built.programs:
            return self._put_down((*before, unborn(rules, "it did not come out of the build")))
        before += self._place(built)
        guest = self._guest
        assert guest is not None
        seen = guest.run(program, built)
        self._previous = rules
        cases = self._put_down(judge(rules, seen), seen.splats)
        if seen.end.gone and not seen.splats:
            self.lost = LostMachineError(f"{suite.name}/{program.name}: {seen.detail}")
        if not guest.fit:
            self._retire()
        return (*before, *cases)

    def refuse(self, suite: Suite, program: Program, why: str) -> None:
        """Put on record that a program was not run."""
        self._put_down((unborn(self._rules(suite, program), f"not run: {why}"),))

    def close(self, *, hurry: bool = False) -> tuple[Case, ...]:
        """End the last guest; the cases of what its console said after its last program.

        hurry: a person waits, and nothing will be called green; do not listen any more.
        """
        if hurry:
            self._retire()
        return self._part()

    # ------------------------------------------------------------------------------------------

    def _rules(self, suite: Suite, program: Program) -> Rules:
        return Rules(
            suite.name,
            program.name,
            bare=bool(suite.target),
            reproduce=self._reproduce(suite, program),
        )

    def _make_fit(self, suite: Suite, program: Program) -> tuple[Case, ...]:
        """See to it that a fit guest is there; the cases of what came to light meanwhile."""
        purposes = {"none": (), "suite": (suite.name,), "program": (suite.name, program.name)}
        purpose: tuple[str, ...] = purposes[self._isolation]
        cases: tuple[Case, ...] = ()
        if self._guest and purpose != self._purpose:
            cases = self._part()
        elif self._guest and (splats := self._guest.listen()):
            cases = self._put_down(self._late(splats), splats)
            self._retire()
        self._purpose = purpose
        return cases if self._guest else (*cases, *self._boot())

    def _place(self, built: BuiltSuite) -> tuple[Case, ...]:
        """Put the suite into the guest; into a new one where a program before spoilt the guest.

        A fresh guest that does not take it is no program's fault: Guest.run tells of that.
        """
        guest = self._guest
        if guest is None or self._previous is None:
            return ()
        try:
            guest.place(built)
        except (InfrastructureError, ConnectionLost) as error:
            cases = (*self._part(), *self._boot())
            words = f"a new machine was booted for suite {built.suite.name}: {error.message}"
            self._notice(words)
            return cases
        return ()

    def _notice(self, words: str) -> None:
        run = self.record.run
        self.record.run = replace(run, notices=(*run.notices, words))
        self.record.save()

    def _boot(self) -> tuple[Case, ...]:
        number, self._boots = self._boots, self._boots + 1
        guest = self._lab.boot(number, self.record)
        self._guest, self._previous = guest, None
        self.record.run = self._lab.describe(self.record.run)
        splats = guest.listen()
        if not splats:
            return ()
        rules = Rules("machine", f"boot-{number}")
        return self._put_down((replace(late(rules, splats), name=""),), splats)

    def _part(self) -> tuple[Case, ...]:
        """End the guest after a last look at its console."""
        guest = self._guest
        if guest is None:
            return ()
        cases: tuple[Case, ...] = ()
        try:
            if guest.fit and self._previous and (splats := guest.farewell()):
                cases = self._put_down(self._late(splats), splats)
        except (ConnectionLost, SessionTimeout, TimeoutError, EOFError) as error:
            cases = self._gone(guest, str(error))
        finally:
            self._retire()
        return cases

    def _gone(self, guest: Guest, words: str) -> tuple[Case, ...]:
        """The machine was not there any more, or silent, when it was to be ended."""
        splats = guest.listen()
        if splats:
            return self._put_down(self._late(splats), splats)
        assert self._previous is not None
        why = f"the machine was gone or silent after it: {words}"
        self.lost = LostMachineError(why)
        return self._put_down((replace(unborn(self._previous, why), name="after its end"),))

    def _late(self, splats: Sequence[Splat]) -> tuple[Case, ...]:
        assert self._previous is not None
        return (late(self._previous, splats),)

    def _retire(self) -> None:
        guest, self._guest = self._guest, None
        if guest:
            guest.close()

    def _put_down(self, cases: Sequence[Case], splats: Sequence[Splat] = ()) -> tuple[Case, ...]:
        self.record.add(cases, splats)
        return tuple(cases)
