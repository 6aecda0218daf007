"""Measure what the complete series must hold, and write ci/acceptance/series.json.

Run by `make accept WHAT=series`. It takes hours; a step that passed is kept, and so is each mutant
that was caught, so an interrupted measurement goes on where it stopped. Exit code 1 when a bar is
missed. Some of the kernel's own selftests compile only where libcap-dev and libpopt-dev are.
"""

from __future__ import annotations

import collections
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from accept_handover import MACHINES, at_most  # noqa: E402
from accept_loop import Here, exactly, notices, opened, whole  # noqa: E402
from acceptance import Acceptance, Figure, Place, Step, leftovers, say  # noqa: E402
from hazards import Row, read  # noqa: E402

from rig.errors import InfrastructureError  # noqa: E402
from rig.process import run  # noqa: E402
from rig.store import digest  # noqa: E402

KERNEL, CHECKED, PROGRAMS, TRACED = "async", "lockdep", "programs", "perf"
OTHERS, WIDENED = "selftests", "widened"
HARD = "kasan"
FLAVOURS = (KERNEL, "lockdep", HARD, "kcsan")
SUITES = ("abi", "stress", "shim")
SELFTESTS = "kselftest async_submit"
BYTES_EACH = 24 * 1024
FUZZ_S, FUZZED = 600, ("lockdep", HARD, "kcsan")
LEAKS = "stress/generator::global.no_memory_is_lost"
HANDED_OVER = 0.9
STORM, STORM_S = 1000, 1800
AT_LENGTH = ("handover_cancel", "handover_identity", "handover_signals")
# Of the kernel's own selftests, whose programs are compiled and sleep; with which, where not
# all are run: the others watch a clock, or measure, for minutes.
COLLECTIONS = {
    "timers": "posix_timers or nanosleep or mqueue or threadtest",
    "rseq": "(basic or param) and not run_param_test",
    "seccomp": "seccomp_bpf",
    "mqueue": "mq_open",
    "pidfd": "fdinfo or open or wait or getfd or setns",
    **dict.fromkeys(("futex", "filesystems/epoll", "ipc", "splice", "proc", "ptrace"), ""),
    **dict.fromkeys(("clone3", "sigaltstack", "breakpoints", "kcmp", "filelock"), ""),
    **dict.fromkeys(("membarrier", "openat2", "prctl", "timens"), ""),
}
# It watches a clock by the millisecond, on a host that has other things to do as well: it has to
# pass once in three times. On one CPU: one that is woken by another may wait for a time slice.
ON_ONE_CPU = {"timers": "rtcpie"}
TRIES = 3
# Three of its cases make 100,000 calls each: all that the runner's 45 s have room for.
LONG = ("filesystems/epoll",)
ENOUGH = 100
DISPATCH = "it has the dispatch itself"
# Cases that look at what the shim is and not at what a call does; docs/shim.md has why.
SEEN = {
    r"seccomp_bpf::(TRACE_|global\.syscall_restart)": "a tracer sees the signals it works by",
    r"breakpoint_test::|get_syscall_info::": "a tracer sees the signals it works by",
    r"get_set_sud::": DISPATCH,
    r"proc-(empty-vm|self-syscall|loadavg-001)::": "it is mapped, and workers are threads",
    r"clone3_set_tid::": "workers have pids",
    r"epoll_wakeup_test::(global\.epoll|case )(59|6\d)": "100,000 calls within the harness's 30 s",
}
# As guest-tests/shim/Makefile has them.
SHIM_FLAGS = (
    *("-Wall", "-O2", "-g", "-fPIC", "-ffreestanding", "-fno-stack-protector"),
    *("-fno-tree-loop-distribute-patterns", "-mgeneral-regs-only", "-DSHIM_IS_PART=1"),
)

MEASURED = (
    *("patches/async-submit", "kernel-configs", "rig.toml", "images", "rig", "guest-tests"),
    *("tests/mutants", "tests/widened", "docs/hazards.md", "ci/accept_series.py", "ci/hazards.py"),
)
KEPT = "ci/acceptance/series-mutants.json"
# And what the end of a mutant depends on beside itself; they are caught by these suites.
OF_MUTANTS = (
    *("patches/async-submit", "kernel-configs", "rig.toml", "images", "rig"),
    *("guest-tests/abi", "guest-tests/checked", "guest-tests/stress", "tests/widened"),
)


def tested(here: Here, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code and result of a run; InfrastructureError where it had none."""
    file = here.temporary / "run.json"
    file.unlink(missing_ok=True)
    done = here.rig(*words, "--json", str(file))
    if done.returncode != 0:
        sys.stderr.write(done.output[-4000:] + "\n")
    if not file.exists():
        raise InfrastructureError(f"rig {' '.join(words)} left no result")
    found: dict[str, Any] = json.loads(file.read_bytes())
    return done.returncode, found


def texts(found: Mapping[str, Any], program: str) -> str:
    """What the cases of a program printed; a script is called without its ending."""
    cases = [case for case in found["cases"] if case["program"].removesuffix(".py") == program]
    return "\n".join(f"{case.get('output', '')}\n{case.get('message', '')}" for case in cases)


def tally(found: Mapping[str, Any]) -> str:
    """How many cases ended how."""
    counts = collections.Counter(case["status"] for case in found["cases"])
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


def passes(found: Mapping[str, Any]) -> set[str]:
    """The cases that passed, as suite/program::case."""
    return {
        f"{case['suite']}/{case['program']}::{case['name']}"
        for case in found["cases"]
        if case["status"] == "pass"
    }


# -- memory -------------------------------------------------------------------------------------


def memory(place: Place) -> list[Figure]:
    """What 4,000 outstanding reads of one pipe take, split into stack, task and rest."""
    here = opened(place)
    words = f"boot-and-test {TRACED} --machine single --tests guest-tests/stress -k memory".split()
    code, found = tested(here, *words)
    said = re.search(
        r"bytes of each: (\d+) = stack (\d+) \+ task (\d+) \+ rest (-?\d+)", texts(found, "memory")
    )
    if code != 0 or not said:
        raise InfrastructureError(f"rig {' '.join(words)} measured nothing")
    each, stack, task, rest = map(int, said.groups())
    how = f"rig {' '.join(words)}: stack {stack}, task {task}, rest {rest}"
    return [at_most("bytes_of_an_outstanding_read", each, "bytes", BYTES_EACH, how)]


# -- hazards and mutants ------------------------------------------------------------------------


def mutants(place: Place) -> list[Figure]:
    """Each of them is caught by the case it names, and each row of the hazards has such a one."""
    here = opened(place)
    known = listed(here, "--list")
    kept = Kept.read(here)
    caught: dict[str, str] = {}
    for one in known:
        own = digest(here.clone / "tests/mutants" / f"{one['name']}.patch")
        if kept.holds(one["name"], own):
            caught[one["name"]] = one["hazard"]
            continue
        for verdict in listed(here, one["name"]):
            say(f"{verdict['name']}: {verdict['end']} {verdict['message'][:100]}")
            if verdict["end"] == "caught":
                caught[one["name"]] = one["hazard"]
                kept.add(one["name"], own)
    without = [row.name for row in rows(here) if row.name not in caught.values()]
    missed = sorted({one["name"] for one in known} - set(caught))
    return [
        exactly(
            "mutants_that_were_caught",
            *(len(caught), "mutants", len(known)),
            f"rig mutants; not caught: {', '.join(missed) or 'none'}",
        ),
        exactly(
            "hazards_without_a_caught_mutant",
            *(len(without), "rows", 0),
            f"docs/hazards.md: {'; '.join(without) or 'every row has one'}",
        ),
    ]


@dataclass
class Kept:
    """Mutants that were caught before, in a file that is committed: the hours need not be spent at
    once, nor on one machine.

    caught: name -> sha256 of its patch, and the commit on which it was caught. although: file ->
    why a change of it since then does not matter, and the commit up to which that was looked at; a
    person writes that. What changed of OF_MUTANTS without such words voids what was caught before.
    """

    here: Here
    path: Path
    caught: dict[str, dict[str, str]]
    although: dict[str, dict[str, str]]

    @classmethod
    def read(cls, here: Here) -> Kept:
        """What the checkout that is measured from has of it."""
        path = ROOT / KEPT
        value = json.loads(path.read_bytes()) if path.exists() else {}
        return cls(here, path, value.get("caught", {}), value.get("although", {}))

    def holds(self, name: str, patch: str) -> bool:
        """Whether this very mutant was caught, and nothing has changed that could matter."""
        one = self.caught.get(name, {})
        return one.get("patch") == patch and all(
            self._excused(file) for file in self._changed(one["commit"], OF_MUTANTS)
        )

    def add(self, name: str, patch: str) -> None:
        """It was caught now; written at once."""
        self.caught[name] = {"patch": patch, "commit": self.here.commit}
        value = {"although": self.although, "caught": dict(sorted(self.caught.items()))}
        self.path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

    def _excused(self, file: str) -> bool:
        said = self.although.get(file)
        return said is not None and not self._changed(said["commit"], (file,))

    def _changed(self, commit: str, files: Sequence[str]) -> list[str]:
        words = ["git", "diff", "--name-only", commit, "HEAD", "--", *files]
        done = run(words, cwd=self.here.clone, timeout_s=60, check=False, separate=True)
        return done.output.splitlines() if done.returncode == 0 else list(files)


def listed(here: Here, *words: str) -> list[dict[str, Any]]:
    """What `rig mutants --json` prints. The first build of a flavour is not done in minutes."""
    argv = (".venv/bin/rig", "--quiet", "mutants", "--json", *words)
    env = here.environment()
    done = run(argv, cwd=here.clone, env=env, timeout_s=3600, check=False, separate=True)
    try:
        found: list[dict[str, Any]] = json.loads(done.output)
    except ValueError:
        raise InfrastructureError(f"{done.command} printed no list", output=done.errors) from None
    return found


def hazards(place: Place) -> list[Figure]:
    """Every row names cases, and all that it names have passed."""
    here, passed, figures, wrong = opened(place), set[str](), list[Figure](), list[str]()
    # Behind the first what that one cannot run.
    asked = (
        *((KERNEL, "abi"), (CHECKED, "checked"), (TRACED, "abi --case tracing")),
        (CHECKED, "stress --case generator --case hostile"),
    )
    for kernel, suite in asked:
        words = f"boot-and-test {kernel} --machine quad --tests guest-tests/{suite}"
        code, found = tested(here, *words.split())
        name = f"{suite.partition(' ')[0]}_{kernel}"
        figures.append(exactly(f"hazards_{name}", code, "exit code", 0, f"rig {words}"))
        passed |= passes(found)
    for row in rows(here):
        gone = [str(case) for case in row.cases if not case.among(passed)]
        if gone or not row.cases:
            wrong.append(f"{row.name}: {', '.join(gone) or 'no test'}")
    how = f"docs/hazards.md: {'; '.join(wrong) or 'every case of every row has passed'}"
    figures.append(exactly("hazards_without_a_passing_test", len(wrong), "rows", 0, how))
    return [*figures, leftovers(place)]


def rows(here: Here) -> tuple[Row, ...]:
    """Those of the checkout that is measured."""
    return read((here.clone / "docs/hazards.md").read_text(encoding="utf-8"))


# -- suites -------------------------------------------------------------------------------------


def suites(kernel: str, machine: str) -> Callable[[Place], list[Figure]]:
    """All suites and the selftests of the series, once."""

    def step(place: Place) -> list[Figure]:
        here, figures = opened(place), []
        commands = [(f"boot-and-test {kernel} --tests guest-tests/{one}", one) for one in SUITES]
        for command, name in (*commands, (f"{SELFTESTS} --kernel {kernel}", "selftests")):
            words = (*command.split(), "--machine", machine)
            code, found = tested(here, *words)
            how = f"rig {' '.join(words)}: {tally(found)}"
            label = f"{name}_{kernel}_{machine}"
            figures.append(exactly(label, code, "exit code", 0, how))
        return [*figures, leftovers(place)]

    return step


def fuzz(kernel: str) -> Callable[[Place], list[Figure]]:
    """Made-up uses of the three calls, for ten minutes: no splat, no leak, none that is stuck."""

    def step(place: Place) -> list[Figure]:
        here = opened(place)
        words = ["boot-and-test", kernel, "--tests", "guest-tests/stress", "-k", "generator"]
        words += ["--env", f"STRESS_S={FUZZ_S}"]
        code, found = tested(here, *words)
        said = re.search(r"\d+ processes: .*", texts(found, "generator"))
        how = f"rig {' '.join(words)}: {said[0] if said else 'nothing said'}"
        figures = [exactly(f"fuzz_{kernel}", code, "exit code", 0, how)]
        if kernel == CHECKED:  # the one that looks for leaks
            looked = int(LEAKS in passes(found))
            figures.append(exactly("leaks_looked_for", looked, "case", 1, f"{LEAKS} has passed"))
        return [*figures, leftovers(place)]

    return step


def widened(place: Place) -> list[Figure]:
    """The races drawn out (tests/widened): a storm of kills, exits and execs, and all of abi."""
    here, figures = opened(place), []
    words = f"boot-and-test {WIDENED} --machine quad --tests guest-tests/abi --case storm".split()
    words += ["--env", f"STORM_PROCESSES={STORM}", "--timeout", f"{STORM_S}"]
    code, found = tested(here, *words)
    said = re.search(r"(\d+) exits, (\d+) other programs", texts(found, "storm"))
    how = f"rig {' '.join(words)}: {tally(found)}; {said[0] if said else 'nothing said'}"
    figures.append(exactly("storm_widened", code, "exit code", 0, how))
    execs = int(said[2]) if said else 0
    least = STORM // 20
    figures.append(Figure("execs_widened", execs, "programs", f">= {least}", execs >= least, how))
    words = f"boot-and-test {WIDENED} --machine default --tests guest-tests/abi".split()
    code, found = tested(here, *words)
    how = f"rig {' '.join(words)}: {tally(found)}"
    figures.append(exactly("abi_widened", code, "exit code", 0, how))
    return [*figures, leftovers(place)]


def programs(place: Place) -> list[Figure]:
    """Programs of others under the shim: the same results, and nine in ten handed over."""
    here = opened(place)
    words = (
        f"boot-and-test {KERNEL} --machine {PROGRAMS} --tests guest-tests/shim -k programs".split()
    )
    code, found = tested(here, *words)
    said = texts(found, "programs")
    counts = re.findall(r"; (\d+) calls, (\d+) slept, (\d+) handed over", said)
    slept, over = (sum(int(one[at]) for one in counts) for at in (1, 2))
    skipped = [case["name"] for case in found["cases"] if case["status"] == "skip"]
    how = f"rig {' '.join(words)}: {tally(found)}"
    share = over / slept if slept else 0.0
    return [
        exactly("programs", code, "exit code", 0, how),
        exactly("programs_skipped", len(skipped), "programs", 0, ", ".join(skipped) or how),
        Figure(
            "handed_over_of_what_slept",
            *(round(share, 4), "of it", f">= {HANDED_OVER}", share >= HANDED_OVER),
            f"{over} of {slept} calls that slept, by the counters",
        ),
        leftovers(place),
    ]


def trinity(kernel: str) -> Callable[[Place], list[Figure]]:
    """Random calls, nearly right, all of them asynchronous: no splat, no leak, none is stuck."""

    def step(place: Place) -> list[Figure]:
        here = opened(place)
        words = ["boot-and-test", kernel, "--machine", PROGRAMS, "--tests", "guest-tests/shim"]
        words += ["--case", "trinity.py"]
        words += ["--env", f"TRINITY_S={FUZZ_S}", "--timeout", f"{3 * FUZZ_S}"]
        code, found = tested(here, *words)
        said = re.search(r"\d+ runs: .*", texts(found, "trinity"))
        how = f"rig {' '.join(words)}: {said[0] if said else 'nothing said'}"
        figures = [exactly(f"trinity_{kernel}", code, "exit code", 0, how)]
        if kernel == CHECKED:  # the one that looks for leaks
            looked = int("shim/trinity.py::no_memory_is_lost" in passes(found))
            figures.append(exactly("leaks_looked_for_by_trinity", looked, "case", 1, how))
        return [*figures, leftovers(place)]

    return step


def long(place: Place) -> list[Figure]:
    """The races that go by luck, as often as a night would have them: cancels, stale cookies,
    hand-overs among signals and look-ups.
    """
    here = opened(place)
    words = ["boot-and-test", KERNEL, "--machine", "default", "--tests", "guest-tests/abi"]
    words += [word for program in AT_LENGTH for word in ("--case", program)]
    words += ["--env", "ASYNC_LONG=1", "--timeout", "3600"]
    code, found = tested(here, *words)
    how = f"rig {' '.join(words)}: {tally(found)}"
    return [exactly("at_length", code, "exit code", 0, how), leftovers(place)]


def others(place: Place) -> list[Figure]:
    """The kernel's own selftests, linked with the shim: each has the result it has without."""
    here, wrong, loose, total = opened(place), list[str](), list[str](), 0
    seen: dict[str, int] = {}
    part = shim_part(here)
    asked = [(*one, "default", TRIES if one[0] in LONG else 1) for one in COLLECTIONS.items()]
    asked += [(*one, "single", TRIES) for one in ON_ONE_CPU.items()]
    for collection, keyword, machine, tries in asked:
        words = f"kselftest {collection} --kernel {OTHERS} --machine {machine}".split()
        words += ["-k", keyword] if keyword else []
        shim = ("--link", str(part), "--env", "ASYNC_SHIM=async")
        before = results(here, *words, tries=tries)
        after = results(here, *words, *shim, tries=tries)
        total += len(before)
        odd = {case for case in {**before, **after} if before.get(case) != after.get(case)}
        again = results(here, *words, tries=tries) if odd else before
        for case in sorted(odd):
            why = next((why for pattern, why in SEEN.items() if re.match(pattern, case)), "")
            if why and (case in after or before.get(case) != "pass"):
                seen[why] = seen.get(why, 0) + 1
            elif before.get(case) != again.get(case):
                loose.append(case)  # by itself
            else:
                wrong.append(f"{case} {before.get(case)}, with it {after.get(case)}")
        if not before:
            wrong.append(f"{collection} has no result at all")
    for line in (*wrong, *(f"not the same twice without it: {case}" for case in loose)):
        say(line)
    how = f"rig kselftest of {', '.join(COLLECTIONS)}, without and with --link async_shim.o"
    at_work = int(DISPATCH in seen)  # whoever else wants it does not get it
    left_out = "; ".join(f"{count} because {why}" for why, count in seen.items()) or "none"
    differ = f"{how}: {'; '.join(wrong)[:2000] or 'none'}; not steady: {', '.join(loose) or 'none'}"
    differ += f"; that see the shim itself: {left_out}"
    return [
        exactly("selftests_that_differ_with_the_shim", len(wrong), "cases", 0, differ),
        Figure("selftests_under_the_shim", total, "cases", f">= {ENOUGH}", total >= ENOUGH, how),
        exactly("shim_at_work", at_work, "runs", 1, "get_set_sud, which wants the dispatch"),
        leftovers(place),
    ]


def results(here: Here, *words: str, tries: int = 1) -> dict[str, str]:
    """Program and case -> status, and the splats. Some of them do not pass on this configuration,
    either way. With tries, what passes in one of them passes.
    """
    statuses: dict[str, str] = {}
    for _ in range(tries):
        _, found = tested(here, *words)
        for case in found["cases"]:
            if case.get("message", "").startswith("not run: "):
                raise InfrastructureError(f"rig {' '.join(words)}: {case['message']}")
            name = f"{case['program']}::{case['name']}"
            if statuses.get(name) != "pass":
                statuses[name] = case["status"]
        statuses |= {splat["title"]: "splat" for splat in found["splats"]}
        if set(statuses.values()) == {"pass"}:
            break
    return statuses


def shim_part(here: Here) -> Path:
    """The shim as an object file, for programs that are linked statically."""
    done = here.rig("build", OTHERS)
    built = re.search(r"^\s+(/.*)/bzImage$", done.output, re.MULTILINE)
    if done.returncode != 0 or not built:
        raise InfrastructureError(f"rig build {OTHERS} failed", output=done.output[-3000:])
    part = here.temporary / "async_shim.o"
    words = ["gcc", *SHIM_FLAGS, "-isystem", f"{built[1]}/usr/include", "-c", "-o", str(part)]
    done = here.run(*words, "guest-tests/shim/async_shim.c")
    if done.returncode != 0:
        raise InfrastructureError("the shim does not compile", output=done.output[-3000:])
    return part


def steps() -> dict[str, Step]:
    """All of them, in their order."""
    found: dict[str, Step] = {"memory": memory, "mutants": mutants, "hazards": hazards}
    for kernel in FLAVOURS:
        for machine in MACHINES:
            found[f"suites_{kernel}_{machine}"] = suites(kernel, machine)
    for kernel in FUZZED:
        found[f"fuzz_{kernel}"] = fuzz(kernel)
        found[f"trinity_{kernel}"] = trinity(kernel)
    found[f"suites_{TRACED}_default"] = suites(TRACED, "default")
    found |= {"long": long, "widened": widened, "programs": programs, "others": others}
    return {name: whole(step) for name, step in found.items()}


def main(argv: Sequence[str]) -> int:
    """Measure; 0 when every bar was held, else 1."""
    about = "measure the must-hold list of the complete series"

    def place(work: Path, name: str, commit: str) -> Place:
        return Here(ROOT, work, name, commit)

    measure = Acceptance("series", about, ROOT, steps(), place, notices, MEASURED)
    return measure.main(list(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
