"""`rig nightly`: everything of ci/nightly.toml within its time, and what is news in it."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from rig import benchset, cells, process
from rig.config import Config, check_reference, check_table
from rig.errors import InfrastructureError, RigError, UsageError
from rig.night import (
    SCHEMA,
    End,
    Level,
    Night,
    Outcome,
    Part,
    Summary,
    name_of,
    of_run,
    summary,
    worse,
)
from rig.results import Status, load_run, to_json
from rig.store import write_whole

FILE = Path("ci/nightly.toml")
PLACE = Path("nights")
NIGHT, JUNIT = "night.json", "junit.xml"
LATEST = "latest"
_MARKS = {"skipped": Status.SKIP, "failure": Status.FAIL, "error": Status.ERROR}
READS = ("matrix", "bench", "run", "junit")
_LEAST_S = 30.0  # what is left of a night is not begun with anymore
_TIDY_S = 300.0  # for a part that is interrupted: it ends its machines and saves
_RECENT = 14  # nights that a night is seen beside
_LONG = 400  # of which the one may be that it is measured by
_WRONG = 1  # the exit code of a part that has come to its end, and has seen something bad
_TAIL = 2000


@dataclass(frozen=True)
class PartOf:
    """[[part]]: a command and what it leaves. run: words as of a shell, with {place} for the part's
    own directory; "rig" and "python" are this one's. reads: "matrix" (matrix.json), "bench"
    (bench.json), "run" (run.json) or "junit" (junit.xml), there. at_most_h: of the night.
    """

    name: str
    run: str
    reads: str
    at_most_h: float = 0.0


@dataclass(frozen=True)
class Mail:
    """[mail]. smtp: HOST or HOST:PORT. password: a reference, with user. when: "always", or "bad"
    for nights that are not good.
    """

    to: tuple[str, ...]
    sender: str
    smtp: str = "localhost"
    starttls: bool = False
    user: str = ""
    password: str = ""
    when: str = "always"


@dataclass(frozen=True)
class Hook:
    """[hook]: a shell command that gets the summary on standard input; RIG_NIGHT is the night's
    directory ("" where there is no night), RIG_NIGHT_GOOD is 1 or 0. when: as of a mail.
    """

    run: str
    when: str = "always"


@dataclass(frozen=True)
class Plan:
    """ci/nightly.toml. part: in order of value. budget_h: of a night. keep: nights whose logs are
    kept, at most keep_gib of them.
    """

    part: tuple[PartOf, ...]
    budget_h: float = 10.0
    keep: int = 30
    keep_gib: float = 40.0
    mail: Mail | None = None
    hook: Hook | None = None


@dataclass(frozen=True)
class Request:
    """`rig nightly`. results: where nights are kept. budget_h: instead of the plan's. only: parts
    by name, () for all.
    """

    results: Path
    budget_h: float = 0.0
    only: tuple[str, ...] = ()
    rig: tuple[str, ...] = (sys.executable, "-m", "rig")


@dataclass
class Seen:
    """A night, what is said of it, and the nights beside it. interrupted: by a person.
    thinned: nights whose logs went before it.
    """

    night: Night
    summary: Summary
    place: Path
    before: Sequence[Night] = field(default_factory=tuple)
    interrupted: bool = False
    thinned: tuple[str, ...] = ()


def read(path: Path) -> Plan:
    """The plan of a night; UsageError naming what is wrong in it."""
    try:
        data = msgspec.toml.decode(path.read_bytes())
        mail = data.get("mail")
        if isinstance(mail, dict) and "from" in mail:
            mail["sender"] = mail.pop("from")
        plan = msgspec.convert(data, Plan)
    except OSError as error:
        raise UsageError(f"no plan of a night: {path}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path}: {error}") from error
    check_table(path, "", data, Plan)
    for one in data["part"]:
        check_table(path, "[part]", one, PartOf)
    check_table(path, "mail", mail, Mail)
    check_table(path, "hook", data.get("hook"), Hook)
    _check(plan, path)
    return plan


def _check(plan: Plan, path: Path) -> None:
    names = [one.name for one in plan.part]
    if not names:
        raise UsageError(f"{path}: a night has no [[part]]")
    if plan.budget_h <= 0 or plan.keep < 1 or plan.keep_gib <= 0:
        raise UsageError(f"{path}: budget_h, keep and keep_gib are more than nothing")
    for one in plan.part:
        where = f"{path}: part {one.name!r}"
        if names.count(one.name) > 1 or not one.name or "/" in one.name:
            raise UsageError(f"{where}: each part has a name of its own, without /")
        if one.reads not in READS:
            raise UsageError(f"{where} reads {one.reads!r}", hint=f"one of {', '.join(READS)}")
        try:
            words = shlex.split(one.run)
        except ValueError as error:
            raise UsageError(f"{where}: run: {error}") from error
        if not words or "{place}" not in one.run:
            raise UsageError(f"{where}: run has no {{place}} to leave its results in")
    for told in (plan.mail, plan.hook):
        if told is not None and told.when not in ("always", "bad"):
            raise UsageError(f"{path}: when is {told.when!r}", hint='"always" or "bad"')
    if plan.mail is not None:
        _check_mail(plan.mail, path)


def _check_mail(mail: Mail, path: Path) -> None:
    if not mail.to or not mail.sender:
        raise UsageError(f"{path}: a mail needs `to` and `from`")
    for one in (mail.sender, *mail.to):
        _, address = email.utils.parseaddr(one)
        if not re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", address) or not one.isprintable():
            raise UsageError(f"{path}: {one!r} is no address of a mail", hint="NAME <USER@HOST>")
    host, _, port = mail.smtp.rpartition(":") if ":" in mail.smtp else (mail.smtp, "", "25")
    if not host or not port.isdecimal():
        raise UsageError(f"{path}: smtp is {mail.smtp!r}", hint="HOST or HOST:PORT")
    check_reference(mail.password, f"{path}: [mail] password")


# -- the nights there are -------------------------------------------------------------------------


def load(path: Path) -> Night:
    """One night; InfrastructureError where it cannot be read."""
    try:
        night = msgspec.json.decode(path.read_bytes(), type=Night)
    except (OSError, msgspec.MsgspecError) as error:
        raise InfrastructureError(f"{path}: no night: {error}") from error
    if night.schema != SCHEMA:
        raise InfrastructureError(f"{path}: schema {night.schema}, this rig reads {SCHEMA}")
    return night


def places(results: Path) -> list[Path]:
    """Of all nights there are, in their order."""
    found = (path.parent for path in (results / PLACE).glob(f"*/{NIGHT}"))
    return sorted(place for place in found if not place.is_symlink())


def beside(results: Path, name: str, figures: Iterable[str] = ()) -> list[Night]:
    """The last nights before this one, all since the last good one however long ago that was, and
    the last good one of each of these figures, of which a later one may have none. One that cannot
    be read is none.
    """
    earlier = [place for place in places(results) if place.name < name]
    found: list[Night] = []
    based, without = False, set(figures)
    for number, place in enumerate(reversed(earlier[-_LONG:])):
        recent = number < _RECENT
        if based and not without and not recent:
            break
        if (one := readable(place)) is None:
            continue
        if recent or not based or (one.is_base and without & one.figures.keys()):
            found.append(one)
        if one.is_base:
            based, without = True, without - one.figures.keys()
    return found[::-1]


def readable(place: Path) -> Night | None:
    """A night that was kept; None where it is damaged, or of another version."""
    with contextlib.suppress(InfrastructureError):
        return load(place / NIGHT)
    return None


def accept(results: Path, name: str, why: str) -> Night:
    """Have a night count as good, for a reason."""
    if not why.strip():
        raise UsageError("a night is accepted for a reason", hint="--accept 'WHY'")
    path = results / PLACE / name / NIGHT
    if not path.is_file():
        known = [place.name for place in places(results)[-3:]]
        raise UsageError(f"there is no night {name}", hint=f"the last are {', '.join(known)}")
    night = load(path)
    if not night.whole:
        raise UsageError(
            f"{name} was of some parts alone (--only): no other night is measured by it",
            hint="a night of all parts counts as good or does not",
        )
    night = replace(night, accepted=why)
    save(night, path.parent)
    return night


def save(night: Night, place: Path) -> None:
    """Write it where it is kept."""
    write_whole(place / NIGHT, to_json(night).decode())


# -- a night --------------------------------------------------------------------------------------


class Nightly:
    """Runs a night. What has been seen is on disk after each part."""

    def __init__(
        self,
        request: Request,
        plan: Plan,
        config: Config,
        tell: Callable[[str], None] = lambda words: None,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._now = now
        parts = plan.part
        if request.only:
            known = [one.name for one in parts]
            if wrong := next((name for name in request.only if name not in known), ""):
                raise UsageError(f"there is no part {wrong}", hint=f"there are {', '.join(known)}")
            parts = tuple(one for one in parts if one.name in request.only)
        self._request, self._plan, self._config, self._tell = request, plan, config, tell
        self._parts = parts
        self._running: subprocess.Popen[bytes] | None = None

    def run(self) -> Seen:
        """All of it, or what there is where somebody interrupts it."""
        with self._alone():
            now = self._now()
            name = f"{now:%Y%m%d-%H%M%S}"
            place = self._request.results / PLACE / name
            # Before, too: a full disk would let no night come to the end that makes room.
            gone = thinned(self._request.results, self._plan.keep, self._plan.keep_gib)
            place.mkdir(parents=True)
            _begin_latest(self._request.results / PLACE, name)
            began = time.monotonic()
            hours = self._request.budget_h or self._plan.budget_h
            night = Night(
                name,
                now.isoformat(timespec="seconds"),
                cells.commit(self._config.root),
                parts=tuple(Part(one.name) for one in self._parts),
                whole=not self._request.only,
            )
            save(night, place)
            interrupted: KeyboardInterrupt | None = None
            for one in self._parts:
                left_s = hours * 3600 - (time.monotonic() - began)
                try:
                    night = self._part(night, one, place, left_s)
                except KeyboardInterrupt as error:
                    interrupted = error
                    part = Part(one.name, End.OUT_OF_TIME, why="interrupted")
                    night = self._taken(night, one, place, part)
                except (RigError, OSError) as error:  # one part is not the night
                    why = str(error)
                    night = _with(night, Part(one.name, End.FAILED, why=why))
                    self._tell(f"{one.name}: {why}")
                night = replace(night, seconds=round(time.monotonic() - began, 1))
                save(night, place)
                if interrupted:
                    break
            before = beside(self._request.results, name, night.figures)
            said = summary(night, before)
            night = replace(night, good=said.good)
            save(night, place)
            return Seen(night, said, place, before, interrupted is not None, tuple(gone))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One night at a time."""
        nights = self._request.results / PLACE
        nights.mkdir(parents=True, exist_ok=True)
        with (nights / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InfrastructureError(
                    f"another night runs in {nights}", hint="wait for it, or use --results"
                ) from error
            yield

    def _part(self, night: Night, one: PartOf, place: Path, left_s: float) -> Night:
        if left_s < _LEAST_S:
            self._tell(f"{one.name}: not begun, the night is over")
            return _with(night, Part(one.name, End.NOT_BEGUN, why="the night was over"))
        limit_s = min(left_s, one.at_most_h * 3600 or left_s)
        own = place / one.name
        own.mkdir()
        words = [word.replace("{place}", str(own)) for word in shlex.split(one.run)]
        again = shlex.join(words)
        self._tell(f"{one.name}: {again} (at most {limit_s / 3600:.1f} h)")
        began = time.monotonic()
        code, in_time = self._run(words, own / "output.log", limit_s)
        end = End.DONE if code in (0, _WRONG) and in_time else End.FAILED
        if not in_time:
            end = End.OUT_OF_TIME
        why = (
            "" if end is not End.FAILED else f"exit code {code}: {_last_words(own / 'output.log')}"
        )
        part = Part(one.name, end, round(time.monotonic() - began, 1), code, why, again)
        return self._taken(night, one, place, part)

    def _taken(self, night: Night, one: PartOf, place: Path, part: Part) -> Night:
        """The night with what a part has left."""
        found = Collected(one.name)
        try:
            found = collected(one, place, self._config)
        except (RigError, ET.ParseError, LookupError, TypeError, ValueError) as error:
            if part.end is End.DONE:
                why = error.message if isinstance(error, RigError) else f"its results: {error!r}"
                part = replace(part, end=End.FAILED, why=why)
        if part.end is End.DONE and part.code == _WRONG and not (found.has_bad or found.left):
            why = f"exit code {_WRONG}, and none of its results says why"
            part = replace(part, end=End.FAILED, why=why)
        figures = f", {len(found.figures)} figures" if found.figures else ""
        if one.reads in ("junit", "run") and part.end is End.DONE and found.skipped_all:
            part = replace(part, end=End.FAILED, why=f"all of it was skipped: {found.skipped_all}")
        self._tell(f"{one.name}: {part.end}, {len(found.results)} results{figures}")
        night = _with(night, replace(part, left=found.left, may=found.may))
        results = dict(night.results)
        for what, outcome in found.results.items():
            results[what] = worse(results.get(what, outcome), outcome)
        return replace(
            night,
            kernels={**night.kernels, **found.kernels},
            results=results,
            figures={**night.figures, **found.figures},
            warnings={**night.warnings, **found.warnings},
            unbuilt={**night.unbuilt, **found.unbuilt},
            lost={**night.lost, **found.lost},
        )

    def _run(self, words: Sequence[str], log: Path, limit_s: float) -> tuple[int, bool]:
        """Exit code, and whether it ended by itself in time; what does not is interrupted, as by
        Ctrl-C, and killed if it does not heed that.
        """
        own = {"rig": self._request.rig, "python": (sys.executable,)}
        # A shell that put us into the background has us ignore SIGINT, and so what we start.
        argv = ["env", "--default-signal=INT", *own.get(words[0], (words[0],)), *words[1:]]
        with log.open("wb") as file:
            started = process.spawn(
                argv, cwd=self._config.root, stdout=file, stderr=subprocess.STDOUT
            )
            try:
                return started.wait(limit_s), True
            except subprocess.TimeoutExpired:
                return self._asked_to_end(started), False
            except BaseException:
                self._asked_to_end(started)
                raise
            finally:
                process.end(started)

    def _asked_to_end(self, started: subprocess.Popen[bytes]) -> int:
        with contextlib.suppress(ProcessLookupError):
            os.kill(started.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return started.wait(_TIDY_S)
        return -signal.SIGKILL


def _begin_latest(nights: Path, name: str) -> None:
    """From now on the last night is this one, which has not come to its end: whoever takes its
    files must not get those of the night before.
    """
    what = f'<testcase classname="night" name="{name}"><error message="it did not end"/></testcase>'
    suite = f'<testsuite name="results" tests="1" errors="1" failures="0">{what}</testsuite>'
    write_whole(nights / name / JUNIT, f"<testsuites>{suite}</testsuites>\n")
    fresh = nights / f".latest-{name}"
    fresh.symlink_to(name)
    fresh.rename(nights / LATEST)


def _with(night: Night, part: Part) -> Night:
    those = tuple(part if one.name == part.name else one for one in night.parts)
    return replace(night, parts=those)


def _last_words(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_bytes()[-_TAIL:].decode(errors="replace").strip().splitlines()
        return next((line for line in lines if "error: " in line), lines[-1] if lines else "")
    return ""


# -- what the parts leave -------------------------------------------------------------------------


@dataclass
class Collected:
    """Of one part."""

    part: str
    kernels: dict[str, str] = field(default_factory=dict)
    results: dict[str, Outcome] = field(default_factory=dict)
    figures: dict[str, Level] = field(default_factory=dict)
    warnings: dict[str, Outcome] = field(default_factory=dict)
    unbuilt: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    may: tuple[str, ...] = ()

    @property
    def skipped_all(self) -> str:
        """Why, in the words of the first of them; "" where anything was run."""
        if not self.results or any(o.status is not Status.SKIP for o in self.results.values()):
            return ""
        return next(iter(self.results.values())).words or "nobody says why"

    @property
    def has_bad(self) -> bool:
        """Whether anything in it says why the part was not good, also what may be bad."""
        return any(one.bad for one in self.results.values()) or bool(self.warnings)

    def add(self, what: str, one: Outcome) -> None:
        """A result; of two, what counts."""
        one = replace(one, part=self.part)
        self.results[what] = worse(self.results.get(what, one), one)

    def run(self, path: Path, place: Path, allowed: str = "", *, owner: str = "") -> None:
        """Take in a saved run. place: the night's. owner: goes into the names, for what the matrix
        has as well: each of them may be lost by itself.
        """
        run = load_run(path)
        own = path.parent / run.id
        at = str((own if own.is_dir() else path.parent).relative_to(place))
        results, warnings = of_run(run, at, allowed)
        for what, one in results.items():
            self.add(_owned(what, owner), one)
        self.warnings |= {
            _owned(what, owner): replace(one, part=self.part) for what, one in warnings.items()
        }
        if name := run.kernel.get("name"):
            self.kernels[name] = run.kernel.get("release", "")
        if not run.complete:
            self.left = (*self.left, f"{run.command} did not come to its end")


def _owned(what: str, owner: str) -> str:
    return f"{what.removesuffix(']')}, {owner}]" if owner else what


def collected(part: PartOf, place: Path, config: Config) -> Collected:
    """What a part has left in its directory; InfrastructureError where that is nothing."""
    own = place / part.name
    found = Collected(part.name)
    if part.reads == "matrix":
        _of_matrix(found, own, place)
    elif part.reads == "run":
        found.run(own / "run.json", place, owner=part.name)
    elif part.reads == "bench":
        _of_bench(found, own / "bench.json", config)
    else:
        _of_junit(found, own / "junit.xml", part, str(own.relative_to(place)), config.root)
    if not found.results and not found.figures and not found.left:
        raise InfrastructureError(f"{part.name} has left no result at all")
    return found


def _of_matrix(found: Collected, own: Path, place: Path) -> None:
    for told in cells.load(own).cells:
        saved, suite = own / told.saved if told.saved else None, told.suite.rpartition(":")[2]
        if saved is not None and saved.is_file() and told.final:
            found.run(saved, place, told.allowed)
        elif not told.final:
            why = f"{told.end}{told.why and f', {told.why}'}"
            if suite:
                found.lost[name_of(f"{suite}/{told.cell}", told.kernel, told.machine)] = why
            if told.end is cells.End.UNBUILT:
                found.unbuilt[told.kernel] = told.why
            if told.allowed:
                found.may = (*found.may, f"{told.cell}: {why} ({told.allowed})")
            else:
                again = f"; again: {told.again}" if told.again else ""
                found.left = (*found.left, f"{told.cell}: {why}{again}")
        if told.final:  # a cell may fail by what no case of it tells
            status = Status.PASS if told.end is cells.End.PASS else Status.FAIL
            at = str((own / told.place).relative_to(place)) if told.place else ""
            words = told.why if status is Status.FAIL else ""
            if status is Status.PASS and told.vanished:  # a kernel that resets does just that
                status, words = Status.FLAKY, "its machine went away in a try before"
            one = Outcome(status, words, told.again, at, told.allowed)
            found.add(name_of(f"{suite}/the cell", told.kernel, told.machine) if suite
                      else f"cell {told.cell}", one)  # fmt: skip


def _of_bench(found: Collected, path: Path, config: Config) -> None:
    wanted = benchset.load(config.root)
    value = _json(path)
    for one in value.get("exact", []):
        for row in one["rows"]:
            name = name_of(row["name"], one["kernel"], "exact")
            gated = wanted.gated(row["name"])
            found.figures[name] = Level(row["value"], row["unit"], gated, found.part)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InfrastructureError(f"{path}: cannot be read: {error}") from error
    return value if isinstance(value, dict) else {}


def _of_junit(found: Collected, path: Path, part: PartOf, place: str, checkout: Path) -> None:
    try:
        root = ET.parse(path).getroot()
    except (OSError, ET.ParseError) as error:
        raise InfrastructureError(f"{path}: no JUnit XML: {error}") from error
    for case in root.iter("testcase"):
        status, words = Status.PASS, ""
        for mark, its in _MARKS.items():  # a test that was skipped may fail on its way out
            if (told := case.find(mark)) is not None:
                status = its
                words = next(iter((told.get("message") or told.text or "").split("\n")), "").strip()
        owner, own = case.get("classname", ""), case.get("name", "")
        again = _once_more(part, owner, own, checkout)
        found.add(f"{part.name}: {owner}::{own}", Outcome(status, words[:300], again, place))


def _once_more(part: PartOf, owner: str, own: str, root: Path) -> str:
    """The command of a part for one of its tests alone, where it is pytest's and the test's file is
    found; else that for the part.
    """
    words, names = shlex.split(part.run), owner.split(".")
    for cut in range(len(names), 0, -1):
        file = Path("/".join(names[:cut]) + ".py")
        if "pytest" not in words or not all(names[:cut]) or not (root / file).is_file():
            continue
        kept = []
        for word, after in zip(words, [*words[1:], ""], strict=True):
            takes = word.startswith("--") and "=" not in word
            leaves = "{place}" in word or (takes and "{place}" in after.partition("=")[0])
            if not leaves and not (root / word.partition("::")[0]).exists():
                kept.append(word)
        return shlex.join([*kept, "::".join([str(file), *names[cut:], own])])
    return shlex.join(["rig", "nightly", "--only", part.name])


# -- room -----------------------------------------------------------------------------------------


def thinned(results: Path, keep: int, keep_gib: float) -> list[str]:
    """Remove the logs of old nights: of all but the last `keep`, and of more, the oldest first,
    until what is left is within keep_gib. What they came to (night.json, summary.txt) stays.
    Returns the names of those whose logs went.
    """
    those = places(results)
    sizes = {place: _size_of_logs(place) for place in those}
    gone = []
    for number, place in enumerate(those[:-1]):  # the last night is what this is about
        old = number < len(those) - keep
        if not old and sum(sizes.values()) <= keep_gib * 2**30:
            break
        removed = [one for one in place.iterdir() if one.is_dir()]
        for one in removed:
            shutil.rmtree(one, ignore_errors=True)
        sizes[place] = _size_of_logs(place)
        if removed:
            gone.append(place.name)
    return gone


def _size_of_logs(place: Path) -> int:
    """Bytes on the disk of what can be removed of a night."""
    total = 0
    for directory in place.iterdir():
        for one in directory.rglob("*") if directory.is_dir() else ():
            with contextlib.suppress(OSError):
                total += one.lstat().st_blocks * 512
    return total
