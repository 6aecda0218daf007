"""Measure what the spine must hold, on this machine, and write ci/acceptance/spine.json.

Run by `make accept WHAT=spine`. It measures the commit that is checked out, in fresh clones of it,
with an empty home directory, store and compiler cache; Debian packages are whatever is installed.
A step that passed is kept, so an interrupted measurement goes on where it stopped; a step that
failed is done again the next time, and counted. Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from rig import doctor  # noqa: E402
from rig.process import Completed, end, run, spawn  # noqa: E402

RESULT = ROOT / "ci/acceptance/spine.json"
COLD_S, AGAIN_S, CI_S, GONE_S = 25 * 60, 40, 30 * 60, 10
Hashes = dict[str, tuple[str, ...]]  # key of a kernel -> sha256 of its boot image and vmlinux
LIMIT_S = 90 * 60.0  # a step that takes longer than this is hung
MARK = "RIG_ACCEPTANCE"  # in the environment of all that a step starts, however deep
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
    """Where one step works: a clone, and the home, store and mark of what runs in it."""

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
        run(["git", "clone", "--quiet", ROOT, self.clone], timeout_s=300)
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


def say(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"accept: {text}\n")
    sys.stderr.flush()


def marked(mark: str) -> list[str]:
    """The command lines of all living processes that carry this mark."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has ended, or it is another user's
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append(words.strip())
    return found


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


def cold(place: Place) -> list[Figure]:
    """From nothing to a verdict, then the same again."""
    place.start_over()
    how = "make boot-and-test: new clone, empty home, store and compiler cache"
    figures = [timed("cold_boot_and_test", place.run("make", "boot-and-test"), COLD_S, how)]
    figures += [cases(place)] if figures[0].ok else []
    again = place.run("make", "boot-and-test")
    figures.append(timed("boot_and_test_again", again, AGAIN_S, "make boot-and-test, no change"))
    return [*figures, leftovers(place)]


def cases(place: Place) -> Figure:
    """How many cases the cold run judged good; every one of them has to be."""
    saved = json.loads((place.clone / "results/latest/run.json").read_bytes())
    statuses = [case["status"] for case in saved["cases"]]
    passed, skipped = statuses.count("pass"), statuses.count("skip")
    how = f"run.json of the cold run: {passed} of {len(statuses)} pass, {skipped} skip"
    ok = passed > 0 and passed + skipped == len(statuses) and not saved["splats"]
    return Figure("cases_passed", passed, "cases", "all, no splat", ok, how)


def killed(place: Place) -> list[Figure]:
    """SIGKILL of the rig while its machine runs: how long anything of it outlives it."""
    here = dataclasses.replace(place, name="cold")
    mark = f"{place.mark}-killed"
    say("killed: rig boot-and-test, SIGKILL once QEMU runs")
    words = [str(here.clone / ".venv/bin/rig"), "boot-and-test"]
    log = (place.work / "killed.log").open("ab")
    env = here.environment(**{MARK: mark})
    with log:
        rig = spawn(words, cwd=here.clone, env=env, stdout=log, stderr=log)
    try:
        limit = 300.0
        came = until(lambda: any("qemu-system" in w.split(" ")[0] for w in marked(mark)), limit)
        os.kill(rig.pid, signal.SIGKILL)
        rig.wait(10)
        gone = until(lambda: not marked(mark), 3 * GONE_S)
    finally:
        end(rig)
    how = "time until no process was left after SIGKILL of rig boot-and-test with QEMU running"
    ok = came < limit and gone <= GONE_S
    return [Figure("gone_after_sigkill", round(gone, 1), "s", f"<= {GONE_S}", ok, how)]


def tests(place: Place) -> list[Figure]:
    """CI's own command from nothing: its time, and what pytest counted."""
    place.start_over()
    done = place.run("bash", ".ci/run", CI="true")
    how = "bash .ci/run: new clone, empty home, store and compiler cache"
    last = (done.output.rstrip().splitlines() or [""])[-1]
    return [timed("cold_ci_run", done, CI_S, how), *counts(last), leftovers(place)]


def counts(summary: str) -> list[Figure]:
    """pytest's closing line as figures."""
    found = {word: int(n) for n, word in re.findall(r"(\d+) ([a-z]+)", summary.split(" in ")[0])}
    bad = found.get("failed", 0) + found.get("error", 0) + found.get("errors", 0)
    passed, skipped = found.get("passed", 0), found.get("skipped", 0) + found.get("xfailed", 0)
    how = summary.strip("= ")
    return [
        Figure("tests_passed", passed, "tests", "> 0", passed > 0, how),
        Figure("tests_failed", bad, "tests", "0", bad == 0, how),
        Figure("tests_skipped", skipped, "tests", "only ci/skips.toml's", bad == 0, how),
    ]


def identical(place: Place) -> list[Figure]:
    """Two more directories, no compiler cache in either: the same bytes, and those of cold."""
    stores = [dataclasses.replace(place, name="cold").store]
    for name in (f"{place.name}-1", f"{place.name}-2"):
        here = dataclasses.replace(place, name=name)
        here.start_over()
        done = here.run("make", "setup")
        if not done.returncode:
            done = here.run(".venv/bin/rig", "build", "--json", CCACHE_DISABLE="1")
        if done.returncode != 0:
            return [timed("build_without_ccache", done, LIMIT_S, "rig build, CCACHE_DISABLE=1")]
        stores.append(here.store)
    through, first, second = (kernels(store) for store in stores)
    return [
        same(
            "identical_kernels",
            first,
            second,
            "bzImage and vmlinux of the default kernel, two directories, CCACHE_DISABLE=1 in both",
        ),
        same(
            "identical_through_ccache",
            through,
            second,
            "the same against the cold run's, a third directory, built through ccache",
        ),
    ]


def same(name: str, ours: Hashes, theirs: Hashes, how: str) -> Figure:
    """How many of the second store's kernels the first has too, to the byte."""
    equal = {key for key in theirs if ours.get(key) == theirs[key]}
    ok = bool(theirs) and len(equal) == len(theirs)
    return Figure(name, len(equal), "kernels", str(len(theirs)), ok, how)


def kernels(store: Path) -> Hashes:
    """Key of every kernel in a store -> sha256 of its boot image and vmlinux."""
    return {
        place.name: tuple(
            hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(place.glob("**/*"))
            if path.name in ("bzImage", "vmlinux")
        )
        for place in (store / "kernel").glob("*")
        if not place.name.startswith(".")
    }


def lint(place: Place) -> list[Figure]:
    """ruff and mypy --strict over the clone of the cold run."""
    here, figures = dataclasses.replace(place, name="cold"), []
    scripts = sorted(str(p.relative_to(here.clone)) for p in (here.clone / "ci").glob("*.py"))
    tools = (
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("mypy", "--strict", *scripts),
    )
    for words in tools:
        done = here.run(".venv/bin/python", "-m", *words)
        if done.returncode != 0:
            sys.stderr.write(done.output[-3000:] + "\n")
        name, how = re.sub(r"[^a-z]+", "_", " ".join(words[:2])).strip("_"), " ".join(words)
        ok = done.returncode == 0
        figures.append(Figure(f"{name}_exit_code", done.returncode, "", "0", ok, how))
    return figures


STEPS: dict[str, Callable[[Place], list[Figure]]] = {
    "cold": cold,
    "killed": killed,
    "lint": lint,
    "identical": identical,
    "tests": tests,
}


def facts(work: Path) -> dict[str, Any]:
    """The machine the figures are from, without anything that names it."""
    cpu = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    saved = work / "cold/checkout/results/latest/run.json"
    ran = json.loads(saved.read_bytes()) if saved.is_file() else {}
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
        "notices": ran.get("notices", []),
    }


def git(*words: str) -> str:
    """What git says of the checkout."""
    return run(["git", *words], cwd=ROOT, timeout_s=60).output.strip()


def measure(place: Place, name: str, state: dict[str, Any], keep: Callable[[], None]) -> None:
    """Do a step unless it passed before; its figures and how often it was tried go to state."""
    before = state.get(name, {})
    if before.get("passed"):
        say(f"{name}: measured before")
        return
    load = os.getloadavg()[0]
    figures = STEPS[name](place)
    state[name] = {
        "passed": all(figure.ok for figure in figures),
        "attempts": before.get("attempts", 0) + 1,
        "load_before": round(load, 2),
        "figures": [dataclasses.asdict(figure) for figure in figures],
    }
    keep()
    for figure in figures:
        say(f"  {'ok  ' if figure.ok else 'FAIL'} {figure.name} {figure.value} {figure.unit}")


def judged(figure: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
    """A figure as the file has it."""
    rest = {key: value for key, value in figure.items() if key != "ok"}
    return {**rest, "verdict": "pass" if figure["ok"] else "fail", "attempts": step["attempts"]}


def write(commit: str, work: Path, state: dict[str, Any]) -> bool:
    """Write spine.json; True when every bar was held."""
    figures = [judged(figure, step) for step in state.values() for figure in step["figures"]]
    held = set(state) == set(STEPS) and all(f["verdict"] == "pass" for f in figures)
    dirty = bool(git("status", "--porcelain", "--", ".", f":!{RESULT.relative_to(ROOT)}"))
    value = {
        "what": "spine",
        "commit": commit,
        "dirty": dirty,
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "verdict": "pass" if held else "fail",
        "machine": facts(work),
        "figures": figures,
        "not_measured": sorted(set(STEPS) - set(state)),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    return held


def main(argv: list[str]) -> int:
    """Measure; 0 when every bar was held, else 1."""
    parser = argparse.ArgumentParser(description="measure the spine's must-hold list")
    parser.add_argument("--work", type=Path, help="a directory with 30 GB of room")
    parser.add_argument("--fresh", action="store_true", help="measure every step again")
    parser.add_argument("--step", choices=STEPS, action="append", help="only these")
    options = parser.parse_args(argv)
    commit = git("rev-parse", "HEAD")
    default = Path.home() / ".cache" / "rig-acceptance"
    work = (options.work or default).absolute() / f"spine-{commit[:12]}"
    if options.fresh:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "steps.json"
    state = json.loads(kept.read_bytes()) if kept.is_file() else {}

    def keep() -> None:
        fresh = kept.with_suffix(".new")
        fresh.write_text(json.dumps(state), encoding="utf-8")
        fresh.rename(kept)

    say(f"commit {commit[:12]}, working in {work}")
    for name in options.step or STEPS:
        measure(Place(work, name, commit), name, state, keep)
    held = write(commit, work, state)
    say(f"{'every bar was held' if held else 'a bar was missed'}: {RESULT.relative_to(ROOT)}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
