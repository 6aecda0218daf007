"""A run in the light of the same run on a base: only what is new counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from rig import report
from rig.config import Config
from rig.errors import LostMachineError
from rig.outcome import Files, Outcome, copy, exit_code
from rig.results import Case, Run, Status


@dataclass(frozen=True, kw_only=True)
class Wish(Files):
    """What can be asked of two kernels. against: a kernel of rig.toml whose failures are not
    reported again."""

    against: str | None = None


_Wish = TypeVar("_Wish", bound=Wish)


def only_new(run: Run, base: Run, base_name: str) -> Run:
    """The run with what the base shows as well taken out of the verdict.

    A bad case that ended the same way on the base becomes a SKIP that says so, a splat of the
    same title is dropped. A case that the base had and the run lacks is an ERROR.
    """
    before, after = _keyed(base), _keyed(run)
    titles = {splat.title for splat in base.splats}
    cases = [_unless_known(case, before.get(key), base_name) for key, case in after.items()]
    why = f"it ran on {base_name}, and is missing now"
    gone = [
        replace(case, status=Status.ERROR, message=why, output="")
        for key, case in before.items()
        if key not in after and case.status is Status.PASS
    ]
    splats = tuple(splat for splat in run.splats if splat.title not in titles)
    known = sum(case.status.good for case in cases) - sum(case.status.good for case in run.cases)
    notice = f"{known} case(s) that do not pass on {base_name} either are not counted"
    return replace(run, cases=(*cases, *gone), splats=splats, notices=(*run.notices, notice))


def _keyed(run: Run) -> dict[tuple[str, int], Case]:
    """A run's cases in order, by id and by which one of that id it is: a name may come twice."""
    counts: Counter[str] = Counter()
    keyed = {}
    for case in run.cases:
        keyed[case.id, counts[case.id]] = case
        counts[case.id] += 1
    return keyed


def _unless_known(case: Case, before: Case | None, base_name: str) -> Case:
    if case.status.good or before is None or not _alike(case, before):
        return case
    return replace(
        case, status=Status.SKIP, message=f"not new, {base_name} shows it too: {case.message}"
    )


def _alike(case: Case, before: Case) -> bool:
    """Whether a case ended the same way; a whole program also for the same reason.

    A time-out has no reason: its words are how long it had on this machine.
    """
    same = case.status is before.status
    reasonless = case.name or case.status is Status.TIMEOUT
    return same and bool(reasonless or case.message == before.message)


def compared(request: _Wish, on: Callable[[str, _Wish], Outcome], config: Config) -> Outcome:
    """The run on the config's kernel, after one on the base where one is named.

    A base that could not be run to its end proves nothing: its outcome is returned then.
    """
    if not request.against:
        return on(config.default_kernel, request)
    base = on(request.against, replace(request, junit=None, json=None))
    early = base.error and not isinstance(base.error, LostMachineError)
    if early or not base.run.complete:
        return base
    after = on(config.default_kernel, request)
    return _news(request, after, base) if after.run.complete else after


def _news(request: Wish, after: Outcome, base: Outcome) -> Outcome:
    """The outcome in the light of the base's."""
    assert request.against
    run = only_new(after.run, base.run, request.against)
    report.write(run, after.directory)
    copy(request, run)
    lost = after.error if isinstance(after.error, LostMachineError) else None
    return replace(after, run=run, exit_code=exit_code(run, None if lost else after.error, lost))
