"""Measure what the spine must hold, on this machine, and write ci/acceptance/spine.json.

Run by `make accept WHAT=spine`. It measures the commit that is checked out, in fresh clones of it,
with an empty home directory, store and compiler cache; Debian packages are whatever is installed.
A step that passed is kept, so an interrupted measurement goes on where it stopped; a step that
failed is done again the next time, and counted. Exit code 1 when a bar is missed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

import acceptance  # noqa: E402
from acceptance import (  # noqa: E402
    LIMIT_S,
    MARK,
    Acceptance,
    Figure,
    Place,
    Step,
    kernels,
    leftovers,
    marked,
    same,
    say,
    timed,
    until,
)

from rig.process import end, spawn  # noqa: E402

COLD_S, AGAIN_S, CI_S = 25 * 60, 40, 30 * 60


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
        gone = until(lambda: not marked(mark), 3 * acceptance.GONE_S)
    finally:
        end(rig)
    how = "time until no process was left after SIGKILL of rig boot-and-test with QEMU running"
    ok = came < limit and gone <= acceptance.GONE_S
    bar = f"<= {acceptance.GONE_S}"
    return [Figure("gone_after_sigkill", round(gone, 1), "s", bar, ok, how)]


def tests(place: Place) -> list[Figure]:
    """CI's own command from nothing: its time, and what pytest counted."""
    place.start_over()
    done = place.run("bash", ".ci/run", CI="true")
    how = "bash .ci/run: new clone, empty home, store and compiler cache"
    last = (done.output.rstrip().splitlines() or [""])[-1]
    return [timed("cold_ci_run", done, CI_S, how), *counts(last, done.returncode), leftovers(place)]


def counts(summary: str, code: int) -> list[Figure]:
    """pytest's closing line as figures.

    code: of the run. A skip that ci/skips.toml does not list fails the run, and no test of it.
    """
    found = {word: int(n) for n, word in re.findall(r"(\d+) ([a-z]+)", summary.split(" in ")[0])}
    bad = found.get("failed", 0) + found.get("error", 0) + found.get("errors", 0)
    passed, skipped = found.get("passed", 0), found.get("skipped", 0) + found.get("xfailed", 0)
    how = summary.strip("= ")
    return [
        Figure("tests_passed", passed, "tests", "> 0", passed > 0, how),
        Figure("tests_failed", bad, "tests", "0", bad == 0, how),
        Figure("tests_skipped", skipped, "tests", "only ci/skips.toml's", code == 0, how),
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


STEPS: dict[str, Step] = {
    "cold": cold,
    "killed": killed,
    "lint": lint,
    "identical": identical,
    "tests": tests,
}


def notices(work: Path) -> list[str]:
    """What the verdict of the cold run said of this machine."""
    saved = work / "cold/checkout/results/latest/run.json"
    ran = json.loads(saved.read_bytes()) if saved.is_file() else {}
    return list(ran.get("notices", []))


def main(argv: list[str]) -> int:
    """Measure; 0 when every bar was held, else 1."""
    about = "measure the spine's must-hold list"

    def place(work: Path, name: str, commit: str) -> Place:
        return Place(ROOT, work, name, commit)

    return Acceptance("spine", about, ROOT, STEPS, place, notices).main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
