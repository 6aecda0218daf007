"""What every acceptance measurement shares: steps that can be resumed, figures, their file.

`make accept WHAT=x` runs ci/accept_x.py, which names its steps and hands them to `Acceptance`.
A step that passed is kept, so an interrupted measurement goes on where it stopped; a step that
failed is done again the next time, and counted. Runs side by side, each with --step, share what
they have measured of one commit. Measurements of many hours name what they measure:
while none of these files changed, what passed on an earlier commit still holds, and each figure
says on which commit it was measured. Where a file changed in a way that cannot touch a figure,
whoever measures may say so (--although WHY): the figure then tells which files, and why.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig import doctor
from rig.process import Completed, run

GONE_S = 10  # seconds that processes have to go after the end of what started them
LIMIT_S = 90 * 60.0  # a step that takes longer than this is hung
MARK = "RIG_ACCEPTANCE"  # in the environment of all that a step starts, however deep
Hashes = dict[str, tuple[str, ...]]  # key of a kernel -> sha256 of its boot image and vmlinux
# What a person's shell or the make above may hold that a new machine does not.
FOREIGN = re.compile(
    r"ARGS$|WHAT$|XDG_|RIG_|CCACHE_|KBUILD_|PYTEST_|VIRTUAL_ENV|MAKE|MFLAGS|CI$|GIT_(?!SSL)"
)


@dataclass(frozen=True)
class Figure:
    """One thing measured: value in unit against its bar; how says what was run."""

    name: str
    value: float
    unit: str
    bar: str
    ok: bool
    how: str


@dataclass(frozen=True)
class Place:
    """Where one step works: a clone of root, and the home, store and mark of what runs in it."""

    root: Path
    work: Path
    name: str
    commit: str

    @property
    def clone(self) -> Path:
        """The fresh clone of the commit."""
        return self.work / self.name / "checkout"

    @property
    def store(self) -> Path:
        """The store of everything that runs here."""
        return self.work / self.name / "store"

    @property
    def mark(self) -> str:
        """What the environment of everything that runs here has in MARK."""
        return f"{self.commit[:12]}-{self.name}-{os.getpid()}"

    def start_over(self) -> None:
        """From nothing: a new clone, an empty home, an empty store."""
        shutil.rmtree(self.work / self.name, ignore_errors=True)
        (self.work / self.name / "home").mkdir(parents=True)
        run(["git", "clone", "--quiet", self.root, self.clone], timeout_s=300)
        run(["git", "checkout", "--quiet", self.commit], cwd=self.clone, timeout_s=60)

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a new user of this machine."""
        clean = {k: v for k, v in os.environ.items() if not FOREIGN.match(k)}
        home = str(self.work / self.name / "home")
        return {**clean, "HOME": home, "RIG_STORE": str(self.store), MARK: self.mark, **more}

    def run(self, *words: str, **more: str) -> Completed:
        """Run a command in the clone to its end, its output in a log beside it."""
        log = self.work / f"{self.name}.log"
        say(f"{self.name}: {' '.join(words)}")
        env = self.environment(**more)
        return run(words, cwd=self.clone, env=env, log=log, timeout_s=LIMIT_S, check=False)


Step = Callable[[Place], list[Figure]]
State = dict[str, Any]


@dataclass(frozen=True)
class Acceptance:
    """One issue's must-hold list: its steps in their order, and the checkout they measure.

    place: makes what a step is given. notices: what the runs themselves said of the machine.
    measured: all files that a figure depends on, those that measure and judge it among them; ()
    when every commit has to be measured anew. tools: step -> files that only it depends on.
    """

    what: str
    about: str
    root: Path
    steps: Mapping[str, Step]
    place: Callable[[Path, str, str], Place]
    notices: Callable[[Path], list[str]]
    measured: tuple[str, ...] = ()
    tools: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def result(self) -> Path:
        """The file that is written."""
        return self.root / f"ci/acceptance/{self.what}.json"

    def main(self, argv: list[str]) -> int:
        """Measure; 0 when every bar was held, else 1."""
        options = self._options(argv)
        commit = self._git("rev-parse", "HEAD")
        default = Path.home() / ".cache" / "rig-acceptance"
        work = (options.work or default).absolute() / f"{self.what}-{commit[:12]}"
        if options.fresh:
            shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
        kept = work / "steps.json"
        if kept.is_file():
            state: State = json.loads(kept.read_bytes())
        else:
            state = {} if options.fresh else self._still_true(commit, options.although)
        say(f"commit {commit[:12]}, working in {work}")
        held = False
        for name in options.step or self.steps:
            figures = self._measure(self.place(work, name, commit), name, state)
            with _alone(work / "steps.lock"):
                if kept.is_file():  # what others have measured since
                    state.update({**json.loads(kept.read_bytes()), name: state[name]})
                _replace(kept, json.dumps(state))
                held = self._write(commit, work, state)
            for figure in figures:
                mark = "ok  " if figure.ok else "FAIL"
                say(f"  {mark} {figure.name} {figure.value} {figure.unit}")
        file = self.result.relative_to(self.root)
        say(f"{'every bar was held' if held else 'a bar was missed'}: {file}")
        return 0 if held else 1

    def _options(self, argv: list[str]) -> argparse.Namespace:
        parser = argparse.ArgumentParser(description=self.about)
        parser.add_argument("--work", type=Path, help="a directory with 30 GB of room")
        parser.add_argument("--fresh", action="store_true", help="measure every step again")
        parser.add_argument("--step", choices=self.steps, action="append", help="only these")
        parser.add_argument(
            "--although",
            metavar="WHY",
            help="keep what passed although files it depends on changed; WHY is written beside it",
        )
        return parser.parse_args(argv)

    def _measure(self, place: Place, name: str, state: State) -> list[Figure]:
        """Do a step unless it passed before; its figures and how often it was tried go to state.
        Returns the new ones.
        """
        before = state.get(name, {})
        if before.get("passed"):
            say(f"{name}: measured before")
            return []
        load = os.getloadavg()[0]
        figures = self.steps[name](place)
        state[name] = {
            "passed": all(figure.ok for figure in figures),
            "attempts": before.get("attempts", 0) + 1,
            "commit": place.commit,
            "load_before": round(load, 2),
            "figures": [dataclasses.asdict(figure) for figure in figures],
        }
        return figures

    def _write(self, commit: str, work: Path, state: State) -> bool:
        """Write the result; True when every bar was held."""
        figures = [
            _judged(figure, name, state[name])
            for name in self.steps
            if name in state
            for figure in state[name]["figures"]
        ]
        held = set(state) == set(self.steps) and all(f["verdict"] == "pass" for f in figures)
        own = f":!{self.result.parent.relative_to(self.root)}"
        value = {
            "what": self.what,
            "commit": commit,
            "dirty": bool(self._git("status", "--porcelain", "--", ".", own)),
            "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "verdict": "pass" if held else "fail",
            "machine": {**facts(), "notices": self.notices(work)},
            "figures": figures,
            "not_measured": sorted(set(self.steps) - set(state)),
        }
        self.result.parent.mkdir(exist_ok=True)
        self.result.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        return held

    def _still_true(self, commit: str, although: str | None) -> State:
        """The steps that passed on an earlier commit, of which nothing measured has changed.

        although: why those are kept, too, of which something has.
        """
        if not self.measured or not self.result.is_file():
            return {}
        by_step: dict[str, list[dict[str, Any]]] = {}
        for figure in json.loads(self.result.read_bytes())["figures"]:
            by_step.setdefault(figure.get("step", ""), []).append(figure)
        state: State = {}
        for name in self.steps:
            figures = by_step.get(name, [])
            if not figures or any(one["verdict"] != "pass" for one in figures):
                continue
            first = figures[0]
            files = (*self.measured, *self.tools.get(name, ()))
            changed = self._changed(first["commit"], commit, files)
            if changed is None:
                continue
            reasons: dict[str, dict[str, str]] = {}
            for file in changed:
                said = first.get("although", {}).get(file)
                # A reason was given for what had changed by then, not for what came after it.
                if said is None or self._changed(said["commit"], commit, (file,)) != []:
                    said = {"why": although or "", "commit": commit}
                reasons[file] = said
            if not all(said["why"] for said in reasons.values()):
                continue
            although_these = f", although of {', '.join(reasons)}" if reasons else ""
            say(f"{name}: holds since {first['commit'][:12]}{although_these}")
            state[name] = {
                "passed": True,
                "attempts": first["attempts"],
                "commit": first["commit"],
                "although": reasons,
                "figures": [_unjudged(figure) for figure in figures],
            }
        return state

    def _changed(self, before: str, commit: str, files: Iterable[str]) -> list[str] | None:
        """Which of the files, or of what lies in them, changed between the commits; None when git
        does not know one of the commits, so that nobody can give a reason.
        """
        words = ["git", "diff", "--name-only", before, commit, "--", *files]
        done = run(words, cwd=self.root, timeout_s=60, check=False, separate=True)
        return done.output.splitlines() if done.returncode == 0 else None

    def _git(self, *words: str) -> str:
        return run(["git", *words], cwd=self.root, timeout_s=60).output.strip()


def _judged(figure: dict[str, Any], name: str, step: dict[str, Any]) -> dict[str, Any]:
    """A figure as the file has it."""
    rest = {key: value for key, value in figure.items() if key != "ok"}
    verdict = "pass" if figure["ok"] else "fail"
    origin = {"step": name, "commit": step["commit"], "attempts": step["attempts"]}
    # What changed since, and why that does not matter.
    although = {"although": step["although"]} if step.get("although") else {}
    return {**rest, "verdict": verdict, **origin, **although}


def _unjudged(figure: dict[str, Any]) -> dict[str, Any]:
    """A figure as it was measured, from the file's."""
    names = {field.name for field in dataclasses.fields(Figure)}
    rest = {key: value for key, value in figure.items() if key in names}
    return {**rest, "ok": figure["verdict"] == "pass"}


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Nobody else is in here with the same file."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.rename(path)


def say(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"accept: {text}\n")
    sys.stderr.flush()


def carriers(mark: str) -> dict[int, str]:
    """Process id -> command line of all living processes that carry this mark."""
    wanted, found = f"{MARK}={mark}".encode(), {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has ended, or it is another user's
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(entry.name)] = words.strip()
    return found


def marked(mark: str) -> list[str]:
    """The command lines of all living processes that carry this mark."""
    return list(carriers(mark).values())


def until(condition: Callable[[], bool], limit_s: float) -> float:
    """Seconds until condition held, looked at ten times a second; limit_s when it never did."""
    started = time.monotonic()
    while (passed := time.monotonic() - started) < limit_s:
        if condition():
            return passed
        time.sleep(0.1)
    return limit_s


def leftovers(place: Place) -> Figure:
    """What a finished step left running, after the time it has to go."""
    until(lambda: not marked(place.mark), GONE_S)
    left = marked(place.mark)
    for words in left:
        say(f"still running: {words[:200]}")
    how = f"processes {GONE_S} s after the end of: {place.name}"
    return Figure(f"left_running_{place.name}", len(left), "processes", "0", not left, how)


def timed(name: str, done: Completed, bar_s: float, how: str) -> Figure:
    """The wall time of a command that has to succeed."""
    ok = done.returncode == 0 and done.duration_s <= bar_s
    if done.returncode != 0:
        how += f" (exit code {done.returncode})"
        sys.stderr.write(done.output[-3000:] + "\n")
    return Figure(name, round(done.duration_s, 1), "s", f"<= {bar_s:.0f}", ok, how)


def same(name: str, ours: Hashes, theirs: Hashes, how: str) -> Figure:
    """How many of the second store's kernels the first has too, to the byte."""
    equal = {key for key in theirs if ours.get(key) == theirs[key]}
    ok = bool(theirs) and len(equal) == len(theirs)
    return Figure(name, len(equal), "kernels", str(len(theirs)), ok, how)


def kernels(store: Path) -> Hashes:
    """Key of every kernel in a store -> sha256 of its boot image and vmlinux."""
    return {
        place.name: hashes(place)
        for place in (store / "kernel").glob("*")
        if not place.name.startswith(".")
    }


def hashes(kernel: Path) -> tuple[str, ...]:
    """sha256 of the boot image and vmlinux of one kernel in a store."""
    paths: Iterable[Path] = sorted(kernel.glob("**/*"))
    return tuple(
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.name in ("bzImage", "vmlinux")
    )


def facts() -> dict[str, Any]:
    """The machine the figures are from, without anything that names it."""
    cpu = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    missing = [check.name for check in doctor.host_report().missing]
    return {
        "cpu": cpu.group(1) if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory.group(1)) / 2**20, 1) if memory else 0,
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "user": "root" if doctor.is_root() else "ordinary",
        "host_packages": f"missing {', '.join(missing)}" if missing else "installed before",
    }
