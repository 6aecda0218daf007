"""Measure what the loop must hold, on this machine, and write ci/acceptance/loop.json.

Run by `make accept WHAT=loop`, on a host that does nothing else. It measures the commit that is
checked out in a clone of it, with the user's store and compiler cache: sources, image and the
default kernel need not be made again. A step that passed is kept, so an interrupted measurement
goes on where it stopped; a step that failed is done again the next time, and counted. Exit code 1
when a bar is missed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from acceptance import (  # noqa: E402
    Acceptance,
    Figure,
    Place,
    Step,
    carriers,
    hashes,
    leftovers,
    same,
    say,
    timed,
)

from rig.errors import InfrastructureError, RigError  # noqa: E402
from rig.process import Completed, run  # noqa: E402
from rig.store import open_store  # noqa: E402

REPEAT_S, REBUILD_S = 1.0, 45.0
COLD_S, RESTORED_S = 2.5, 0.5
STRETCH = {"cold": 2.0, "restored": 0.35}
COLD_TIMES, RESTORED_TIMES = 4.5, 22.0
PROGRAMS, PROGRAMS_S = 40, 60.0
SIDE_BY_SIDE = 1.6
BOOTS, BUILDS, COMPARED, RUNS = 10, 5, 5, 3
RESTORES = 100
CLOCK_S = 0.5  # so far the restored clock may lie outside of the time that we saw pass
EXACT_CASES, EXACT_CPUS, EXACT_TIMES = ("fork", "pthread", "pipe", "file"), (1, 2), 10
STRESS, STRESS_RIGS, STRESS_S = "tests/store_stress.py", 8, 300.0

SERIES = "patches/async-submit/6.12"
# Stands in for make: says that it was run, and with what, then is make.
WITNESS = '#!/bin/sh\necho "$*" >>"{log}"\nexec {make} "$@"\n'
# What one restored machine has to say of itself: whether another one's file is there, fresh
# randomness, its clock and its machine id.
PRISTINE = (
    "test ! -e /root/been-here && touch /root/been-here && echo pristine; "
    "od -An -tx1 -N16 /dev/urandom | tr -d ' '; date +%s.%N; cat /etc/machine-id"
)
PROGRAM = """\
#include <stdio.h>

int main(void)
{{
\tunsigned int sum = {number};

\tfor (unsigned int i = 0; i < 1000; i++)
\t\tsum = sum * {factor}u + i;
\tprintf("TAP version 13\\n1..1\\n%sok 1 program {number}\\n", sum == {sum}u ? "" : "not ");
\treturn sum != {sum}u;
}}
"""


@dataclass(frozen=True)
class Here(Place):
    """The clone that all steps share, and the user's own home and store."""

    @property
    def clone(self) -> Path:
        """One directory for all commits, so that its worktree and build tree are reused."""
        return self.work.parent / "loop" / "checkout"

    @property
    def store(self) -> Path:
        """The user's."""
        return open_store().root

    def environment(self, **more: str) -> dict[str, str]:
        """As the user has it, less what a make above may have put in; temporary files apart."""
        kept = {k: v for k, v in os.environ.items() if re.match("RIG_STORE$|XDG_", k)}
        base = super().environment(**{"HOME": str(Path.home()), "TMPDIR": str(self.temporary)})
        del base["RIG_STORE"]
        return {**base, **kept, **more}

    @property
    def temporary(self) -> Path:
        """Where temporary files of this step go, and nothing else."""
        return self.work / self.name / "tmp"

    def start_over(self) -> None:
        """The commit checked out and set up; what lies in the clone beside it is removed."""
        self.temporary.mkdir(parents=True, exist_ok=True)
        if not (self.clone / ".git").exists():
            run(["git", "clone", "--quiet", self.root, self.clone], timeout_s=300)
        for words in (
            ("fetch", "--quiet", str(self.root), "HEAD"),
            ("checkout", "--quiet", "--force", "--detach", self.commit),
            ("clean", "-fdq", "-e", ".venv"),
        ):
            run(["git", *words], cwd=self.clone, timeout_s=300)
        done = self.run("make", "setup")
        if done.returncode != 0:
            raise InfrastructureError("make setup failed in the clone", output=done.output[-3000:])

    def rig(self, *words: str, **more: str) -> Completed:
        """Run rig in the clone."""
        return self.run(".venv/bin/rig", "--quiet", *words, **more)

    def json(self, *words: str) -> tuple[Completed, dict[str, Any]]:
        """Run rig in the clone and read its one JSON object; empty where there is none."""
        words = (".venv/bin/rig", "--quiet", *words)
        env = self.environment()
        done = run(words, cwd=self.clone, env=env, timeout_s=600, check=False, separate=True)
        try:
            value = json.loads(done.output)
        except ValueError:
            value = {}
        if done.returncode != 0 or not value:
            said = (done.errors + done.output)[-2000:]
            say(f"{done.command}: exit code {done.returncode}\n{said}")
        return done, value


def median(name: str, values: list[float], unit: str, bar: float, how: str) -> Figure:
    """The median of several, which must not be over the bar."""
    value = round(statistics.median(values), 3) if values else 0.0
    how += f"; all: {', '.join(f'{one:.2f}' for one in sorted(values))}" if values else "; none"
    ok = bool(values) and value <= bar
    return Figure(name, value, unit, f"<= {bar:g}", ok, how)


def at_least(name: str, value: float, unit: str, bar: float, how: str) -> Figure:
    """A value that must not be under the bar."""
    return Figure(name, round(value, 2), unit, f">= {bar:g}", value >= bar, how)


def exactly(name: str, value: int, unit: str, bar: int, how: str) -> Figure:
    """A number that must be this one."""
    return Figure(name, value, unit, str(bar), value == bar, how)


# -- builds -------------------------------------------------------------------------------------


def repeat(place: Place) -> list[Figure]:
    """The same kernel again: how long the whole process takes, and that make has no part in it."""
    here = opened(place)
    first = here.rig("build")
    if first.returncode != 0:
        return [timed("build", first, REBUILD_S, "rig build")]
    log, path = witness(here)
    done = [here.rig("build", PATH=path) for _ in range(BUILDS)]
    good = [one.duration_s for one in done if one.returncode == 0 and "unchanged" in one.output]
    ran = [line for line in log.read_text().splitlines() if line != "--version"]
    how = f"rig build, nothing changed, whole process, median of {BUILDS}"
    return [
        exactly("repeat_builds_unchanged", len(good), "builds", BUILDS, "those that said so"),
        median("repeat_build", good, "s", REPEAT_S, how),
        exactly("repeat_build_make_runs", len(ran), "runs", 0, "make on PATH counts its calls"),
    ]


def witness(here: Here) -> tuple[Path, str]:
    """A make that keeps a log, and the PATH on which it comes first."""
    place = here.temporary / "witness"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    log, script = place / "log", place / "make"
    log.touch()
    script.write_text(WITNESS.format(log=log, make=shutil.which("make")))
    script.chmod(0o755)
    return log, f"{place}:{os.environ['PATH']}"


def incremental(place: Place) -> list[Figure]:
    """One line of one .c file of a patch changed: the time, and the bytes."""
    here = opened(place)
    tag = time.time_ns() % 1000
    change(here.clone, tag)
    warm = here.rig("build")  # so that this directory has a worktree and a build tree
    if warm.returncode != 0:
        return [timed("first_build", warm, REBUILD_S, "rig build of a changed patch")]
    name = change(here.clone, tag + 1)
    done = here.rig("build")
    figure = timed("one_line_build", done, REBUILD_S, f"rig build, one line of {name} changed")
    if done.returncode == 0 and "built" not in done.output:
        return [replace(figure, ok=False, how=f"{figure.how} (nothing was built)")]
    return [figure, *scratch(here, built(done))] if done.returncode == 0 else [figure]


def built(done: Completed) -> Path:
    """The kernel that `rig build` names."""
    found = re.search(r"^\s+(/.*)/bzImage$", done.output, re.MULTILINE)
    if not found:
        raise InfrastructureError("rig build named no bzImage", output=done.output)
    return Path(found[1])


def change(clone: Path, number: int) -> str:
    """Change one line that a patch adds to a .c file, every time to something else; the file.

    The line is the first "return" at a function's top level in the last patch that has one. The
    new instruction does nothing, and no compiler cache has seen it.
    """
    for patch in sorted((clone / SERIES).glob("*.patch"), reverse=True):
        lines, file = patch.read_text(encoding="utf-8").split("\n"), ""
        for at, line in enumerate(lines):
            file = line[6:] if line.startswith("+++ b/") else file
            found = re.fullmatch(r"\+\t(?:asm volatile\(.*?\); )?(return .*;)", line)
            if found and file.endswith(".c") and file.startswith("kernel/"):
                lines[at] = f'+\tasm volatile(".nops 5\\n# {number}"); {found[1]}'
                patch.write_text("\n".join(lines), encoding="utf-8")
                return file
    raise InfrastructureError(f"no patch of {SERIES} has a line that can be changed")


def scratch(here: Here, kernel: Path) -> list[Figure]:
    """The same from nothing: another directory, another store, no compiler cache."""
    other = Place(here.root, here.work, "scratch", here.commit)
    other.start_over()
    shutil.copytree(here.clone / SERIES, other.clone / SERIES, dirs_exist_ok=True)
    shutil.copytree(here.store / "source", other.store / "source", symlinks=True)
    rig = str(here.clone / ".venv/bin/rig")
    done = other.run(rig, "--quiet", "build", CCACHE_DISABLE="1")
    if done.returncode != 0:
        return [timed("scratch_build", done, 3600.0, "rig build in another directory and store")]
    ours, theirs = {kernel.name: hashes(kernel)}, {built(done).name: hashes(built(done))}
    how = (
        "bzImage and vmlinux against a build from nothing: another directory, another store, "
        f"CCACHE_DISABLE=1 ({done.duration_s:.0f} s)"
    )
    figure = same("one_line_build_identical", ours, theirs, how)
    if figure.ok:
        shutil.rmtree(here.work / "scratch", ignore_errors=True)
    else:
        say(f"not the same: {kernel} and {built(done)}, kept with their trees")
    return [figure]


# -- boots --------------------------------------------------------------------------------------


def boots(place: Place) -> list[Figure]:
    """QEMU's start to the first command's exit code, from power-on and restored, in turn."""
    here = opened(place)
    here.json("boot", "--json", "--", "true")  # makes the snapshot
    taken: dict[str, list[float]] = {"cold": [], "restored": []}
    for _ in range(BOOTS):
        for kind, option in (("cold", ["--cold"]), ("restored", [])):
            value = first_command(here, kind, option)
            taken[kind] += [value] if value is not None else []
    figures = []
    for kind, bar in (("cold", COLD_S), ("restored", RESTORED_S)):
        values = taken[kind]
        how = (
            f"rig boot --json{' --cold' if kind == 'cold' else ''} -- true: from QEMU's start to "
            f"its exit code; median of {BOOTS}, load {os.getloadavg()[0]:.1f}; stretch "
            f"{STRETCH[kind]:g}"
        )
        good = f"{kind}_boots"
        figures.append(exactly(good, len(values), "boots", BOOTS, f"that were {kind} and good"))
        figures.append(median(f"first_command_{kind}", values, "s", bar, how))
    return [*figures, leftovers(place)]


def first_command(here: Here, kind: str, option: list[str]) -> float | None:
    """Seconds of one boot; None when it failed or began otherwise than it should."""
    done, value = here.json("boot", "--json", *option, "--", "true")
    machine = value.get("machine", {})
    start = "cold" if machine.get("start") == "power-on" else "restored"
    if done.returncode != 0 or "first_command_s" not in machine or start != kind:
        say(f"not a good {kind} boot: start {machine.get('start')!r}, code {done.returncode}")
        return None
    return float(machine["first_command_s"])


def virtme(place: Place) -> list[Figure]:
    """Against virtme-ng, in one run, each in turn."""
    here = opened(place)
    file = here.temporary / "virtme.json"
    file.unlink(missing_ok=True)
    done = here.run("ci/compare-virtme-ng", "-n", str(COMPARED), "--json", str(file))
    if done.returncode != 0 or not file.exists():
        return [timed("compare_virtme_ng", done, 3600.0, "ci/compare-virtme-ng")]
    found = json.loads(file.read_bytes())
    theirs = found["virtme_ng"]
    how = (
        f"ci/compare-virtme-ng -n {COMPARED}: virtme-ng {theirs['version']} --exec true "
        f"{theirs['median_s']:.2f} s, ours {{:.2f}} s, medians, each from QEMU's start"
    )
    return [
        at_least(
            f"faster_than_virtme_ng_{kind}",
            found[f"ratio_{kind}"],
            "times",
            bar,
            how.format(found[f"rig_{kind}"]["median_s"]),
        )
        for kind, bar in (("cold", COLD_TIMES), ("restored", RESTORED_TIMES))
    ]


def restores(place: Place) -> list[Figure]:
    """Many restores in a row, each pristine, and nothing left of any."""
    here = opened(place)
    here.json("boot", "--json", "--", "true")  # makes the snapshot
    before = footprint(here)
    pristine, randoms, names = 0, set[str](), set[str]()
    for number in range(RESTORES):
        lines, (began, ended) = restored(here)
        in_time = len(lines) == 4 and began - CLOCK_S < float(lines[2]) < ended + CLOCK_S
        if in_time and lines[0] == "pristine":
            pristine += 1
            randoms.add(lines[1])
            names.add(lines[3])
        if (number + 1) % 20 == 0:
            say(f"restores: {pristine} of {number + 1} pristine")
    left = sorted(footprint(here) - before)
    for one in left:
        say(f"left behind: {one}")
    how = "rig boot -- sh -c ...: no file of another machine, the clock is ours"
    return [
        exactly("pristine_restores", pristine, "restores", RESTORES, how),
        exactly("distinct_random_pools", len(randoms), "values", RESTORES, "16 random bytes each"),
        exactly("distinct_machine_ids", len(names), "values", RESTORES, "/etc/machine-id"),
        exactly("left_by_restores", len(left), "files and ports", 0, "store, TMPDIR, listeners"),
        leftovers(place),
    ]


def restored(here: Here) -> tuple[list[str], tuple[float, float]]:
    """What one restored machine said of itself, and our clock before and after."""
    began = time.time()
    done, value = here.json("boot", "--json", "--", "sh", "-c", PRISTINE)
    ended = time.time()
    start = str(value.get("machine", {}).get("start", ""))
    if done.returncode != 0 or not start.startswith("snapshot") or value.get("splats"):
        say(f"not a good restore: start {start!r}, exit code {done.returncode}")
        return [], (began, ended)
    return str(value.get("stdout", "")).split(), (began, ended)


def footprint(here: Here) -> set[str]:
    """Files that could be left behind, by name, and the ports that our processes listen on."""
    places = [*here.store.glob("*/*"), *here.store.glob("*/.*"), *here.temporary.glob("*")]
    locks = {path for path in places if path.parent.name == "locks"}
    files = {str(path) for path in places if path not in locks}
    return files | {f"port {port}" for port in ports(here)}


def ports(here: Here) -> set[int]:
    """TCP ports of this host that somebody listens on who carries our mark, or nobody living."""
    others = set[str]()
    ours = carriers(here.mark)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in ours:
            others |= sockets(entry)
    found = set()
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(file).read_text().splitlines()[1:] if Path(file).exists() else []:
            words = line.split()
            if words[3] == "0A" and words[9] not in others:
                found.add(int(words[1].rsplit(":", 1)[1], 16))
    return found


def sockets(process: Path) -> set[str]:
    """Inodes of the sockets that a process has open; none where we may not look."""
    found = set()
    try:
        for link in (process / "fd").iterdir():
            match = re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink()))
            found |= {match[1]} if match else set()
    except OSError:
        pass
    return found


# -- runs ---------------------------------------------------------------------------------------


def isolation(place: Place) -> list[Figure]:
    """Many programs, each in a pristine machine of its own."""
    here = opened(place)
    suite = here.temporary / "forty"
    shutil.rmtree(suite, ignore_errors=True)
    write_programs(suite)
    file = here.temporary / "isolation.json"
    here.json("boot", "--json", "--", "true")  # makes the snapshot
    words = ("--tests", str(suite), "--isolation", "program", "--json", str(file))
    done = here.rig("boot-and-test", *words)
    how = f"rig boot-and-test --isolation program, {PROGRAMS} programs not compiled before"
    figures = [timed("isolated_programs", done, PROGRAMS_S, how)]
    if done.returncode == 0:
        cases = json.loads(file.read_bytes())["cases"]
        good = {case["program"] for case in cases if case["status"] == "pass"}
        figures.append(exactly("isolated_passes", len(good), "programs", PROGRAMS, "run.json"))
    return [*figures, leftovers(place)]


def write_programs(suite: Path) -> None:
    """A suite of programs of which no two are the same, nor the same as the last time."""
    suite.mkdir(parents=True)
    factor = time.time_ns() % (1 << 31) | 1
    names = [f"program_{number:02}" for number in range(PROGRAMS)]
    for number, name in enumerate(names):
        total = number
        for i in range(1000):
            total = (total * factor + i) % (1 << 32)
        text = PROGRAM.format(number=number, factor=factor, sum=total)
        (suite / f"{name}.c").write_text(text)
    text = f"CFLAGS += -Wall -O1\nTEST_GEN_PROGS := {' '.join(names)}\ninclude ../lib.mk\n"
    (suite / "Makefile").write_text(text)


def fleet(place: Place) -> list[Figure]:
    """The default suites on two machines of one CPU against one such machine, in turn."""
    here = opened(place)
    here.json("boot", "--json", "--machine", "single", "--", "true")  # makes the snapshot
    taken: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(RUNS):
        for jobs, seconds in taken.items():
            words = ("boot-and-test", "--machine", "single", "-n", str(jobs))
            done = here.rig(*words)
            if done.returncode != 0:
                return [timed(f"run_with_{jobs}", done, 600.0, f"rig {' '.join(words)}")]
            seconds.append(done.duration_s)
    one, two = (statistics.median(taken[jobs]) for jobs in (1, 2))
    how = (
        f"rig boot-and-test --machine single, the default suites, whole process, medians of {RUNS} "
        f"in turn: -n 1 {one:.1f} s, -n 2 {two:.1f} s"
    )
    return [at_least("side_by_side", one / two, "times", SIDE_BY_SIDE, how), leftovers(place)]


# -- exactness and the store --------------------------------------------------------------------


def exact(place: Place) -> list[Figure]:
    """The exact machine: every run the same, whatever the program does."""
    here, figures = opened(place), []
    program = here.temporary / "exact_calls"
    words = ("-O2", "-Wall", "-static", "-pthread", "-Iimages/exact", "ci/exact_calls.c")
    done = here.run("gcc", *words, "-o", str(program))
    if done.returncode != 0:
        return [timed("compile_exact_calls", done, 60.0, f"gcc {' '.join(words)}")]
    for cpus in EXACT_CPUS:
        figures += [exact_case(here, program, case, cpus) for case in EXACT_CASES]
    return [*figures, leftovers(place)]


def exact_case(here: Here, program: Path, case: str, cpus: int) -> Figure:
    """One program: rig compares its runs byte by byte; then one more run on its own is compared."""
    words = ("exact", "--cpus", str(cpus))
    many = here.rig(*words, "--repeat", str(EXACT_TIMES), "--", str(program), case)
    one = here.rig(*words, "--", str(program), case)
    told, again = (re.findall(r'^{"name".*"value": (\d+).*}$', x.output, re.M) for x in (many, one))
    said = f"{EXACT_TIMES} runs, all the same" in many.output
    good = many.returncode == 0 and said and bool(told) and told == again
    if not good:
        say(f"exit codes {many.returncode}, {one.returncode}\n{many.output[-2000:]}")
        say(f"{told} and then {again}")
    how = (
        f"rig {' '.join(words)} --repeat {EXACT_TIMES} -- exact_calls {case}, and one run more: "
        f"{', '.join(told)} instructions; {many.duration_s:.0f} s"
    )
    value = EXACT_TIMES if good else 0
    return exactly(f"exact_{case}_{cpus}_cpu", value, "identical runs", EXACT_TIMES, how)


def stress(place: Place) -> list[Figure]:
    """Many rigs on one store, killed at random; the store is sound at the end."""
    here = opened(place)
    script, *words = (STRESS, "--rigs", str(STRESS_RIGS), "--seconds", f"{STRESS_S:.0f}")
    done = here.run(".venv/bin/python", script, *words)
    last = (done.output.splitlines() or [""])[-1]
    try:
        told = json.loads(last)
        faults, killed, ended = (told[key] for key in ("faults", "killed", "ended"))
    except (ValueError, KeyError, TypeError):
        raise InfrastructureError(
            f"{STRESS} told no result, exit code {done.returncode}", output=done.output[-3000:]
        ) from None
    for fault in faults:
        say(fault)
    how = f"{script} {' '.join(words)}: {ended} rigs ended by themselves, then rig store verify"
    good = done.returncode == 0 and not faults
    return [
        Figure("stressed_store_faults", len(faults), "faults", "0", good, how),
        at_least("stressed_rigs_killed", killed, "rigs", 1, "by SIGKILL, at random moments"),
        at_least("stress_lasted", done.duration_s, "s", STRESS_S, "the whole of it"),
        leftovers(place),
    ]


def whole(step: Step) -> Step:
    """A step whose error is a missed bar, and does not end the steps after it."""

    def run_step(place: Place) -> list[Figure]:
        try:
            return step(place)
        except RigError as error:
            say(f"{error.message}\n{error.output}")
            how = f"could not be measured: {error.message}"
            return [Figure(f"{place.name}_measured", 0, "", "1", False, how)]

    return run_step


STEPS: dict[str, Step] = {
    "repeat": whole(repeat),
    "boots": whole(boots),
    "virtme": whole(virtme),
    "restores": whole(restores),
    "isolation": whole(isolation),
    "fleet": whole(fleet),
    "exact": whole(exact),
    "stress": whole(stress),
    "incremental": whole(incremental),
}


def opened(place: Place) -> Here:
    """The place of this step, with the commit checked out in it."""
    here = Here(place.root, place.work, place.name, place.commit)
    here.start_over()
    return here


def notices(_work: Path) -> list[str]:
    """What a verdict of these figures must say."""
    return ["the user's own store and compiler cache were used"]


def main(argv: list[str]) -> int:
    """Measure; 0 when every bar was held, else 1."""
    about = "measure the loop's must-hold list"

    def place(work: Path, name: str, commit: str) -> Place:
        return Here(ROOT, work, name, commit)

    return Acceptance("loop", about, ROOT, STEPS, place, notices).main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
