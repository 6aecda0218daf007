"""Measure what `rig bench` must hold, and write ci/acceptance/bench.json.

Run by `make accept WHAT=bench`, on a host that does nothing else. It works in a clone of the commit
that is checked out, with the user's store. Patches that it puts on top of the series are committed
on a branch of that clone, as a developer would. An hour and a half, most of it the ten timed runs,
each of which is a step.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from accept_handover import at_most  # noqa: E402
from accept_loop import Here, exactly, notices, opened, whole  # noqa: E402
from acceptance import Acceptance, Figure, Place, Step, leftovers, say, timed  # noqa: E402

from rig import benchset, series  # noqa: E402
from rig.errors import InfrastructureError  # noqa: E402
from rig.exact import STREAMS  # noqa: E402
from rig.store import digest  # noqa: E402

KERNEL = "async"
SERIES = "patches/async-submit/6.12"
SET_S = 180.0
TIMED_RUNS = 10
# A third of the models' work in each of the ten runs, in turn: what sleeps, what does not, and what
# both sides of a pipe take part in are in each of them.
TIMED_ONLY = (
    "timed nop|timed 'pread 1 B'|timed 'pipe read'|timed sleep",
    "timed 'pread 4 KiB'|timed stat|timed 'socket read'|timed fsync",
    "timed 'pread 64 KiB'|timed open|timed close|timed 'cold pread'",
)
# And where a call that has become three times as slow has to be seen.
SLOW_ONLY, SLOW_NAME, TURNS = "models.c timed nop", "nop, direct, 1: call", 5000
TEN = 10
MORE = "more-in-getppid"
NOTHING, SLOWER = "nothing", "slower-getppid"
GETPPID = """\
From: rig <rig@localhost>
Subject: [PATCH] {subject}

---
diff --git a/kernel/sys.c b/kernel/sys.c
--- a/kernel/sys.c
+++ b/kernel/sys.c
@@ -{line},{before} +{line},{after} @@
{body}
"""
MEASURED = (
    *("patches/async-submit", "kernel-configs", "rig.toml", "images", "rig", "guest-tests/bench"),
    *("ci/accept_bench.py",),
)


# -- the exact set ------------------------------------------------------------------------------


def exact_set(place: Place) -> list[Figure]:
    """Twice: the same to the last byte, and done in time once everything is there."""
    here = opened(place)
    words = f"bench {KERNEL} --exact"
    first = here.rig(*words.split())
    second = here.rig(*words.split())
    if first.returncode or second.returncode:
        raise InfrastructureError(f"rig {words} failed", output=second.output[-3000:])
    runs = [hashes(directory_of(done.output)) for done in (first, second)]
    same = sum(runs[0].get(name) == found for name, found in runs[1].items())
    how = f"rig {words}, twice: {', '.join(STREAMS)} of {len(runs[1])} runs"
    every = len(STREAMS) * len(benchset.load(here.clone).exact)
    return [
        exactly("exact_runs_that_are_the_same", same, "streams", every, how),
        timed("exact_set_warm", second, SET_S, f"rig {words}, the second time"),
        leftovers(place),
    ]


def directory_of(output: str) -> Path:
    """The run's directory, from the line that says where the page is."""
    line = next(one for one in output.splitlines() if one.startswith("report: "))
    return Path(line.removeprefix("report: ")).parent


def hashes(directory: Path) -> dict[str, str]:
    """Hash of every stream of every machine, by program (in the order of their start) and name."""
    found: dict[str, str] = {}
    machines = sorted(path.parent for path in directory.glob("exact-*/*/exact.json"))
    for number, machine in enumerate(machines):
        argv = json.loads((machine / "exact.json").read_bytes())["machine"]["argv"]
        found |= {f"{number} {argv} {name}": digest(machine / name) for name in STREAMS}
    return found


# -- a patch on top of the series ----------------------------------------------------------------


def on_a_branch(here: Here, name: str, change: Callable[[list[str], int], list[str]]) -> None:
    """The series of the clone with one patch more, on a branch of its own."""
    here.run("git", "checkout", "-q", "-B", f"accept-{name}")
    # Where the branch has left main, which the clone knows from when it was made.
    here.run("git", "update-ref", "refs/remotes/origin/main", here.commit)
    directory = here.clone / SERIES
    patch = directory / f"9999-{name}.patch"
    patch.write_text(patch_of(here, name, change), encoding="utf-8")
    with (directory / "series").open("a", encoding="utf-8") as file:
        file.write(f"{patch.name}\n")
    identity = ("-c", "user.name=accept", "-c", "user.email=accept@localhost")
    here.run("git", "add", "-A", SERIES)
    done = here.run("git", *identity, "commit", "-qm", name)
    if done.returncode:
        raise InfrastructureError("git commit failed in the clone", output=done.output)


def patch_of(here: Here, name: str, change: Callable[[list[str], int], list[str]]) -> str:
    """A patch to getppid(). change: the function's lines and where its body begins -> new lines."""
    _, built = here.json("build", KERNEL, "--json")
    source = kernel_source(here, built)
    start = source.index("SYSCALL_DEFINE0(getppid)")
    end = source.index("}", start)
    before = source[start : end + 1]
    after = change(list(before), before.index("{") + 1)
    body = diff(before, after)
    line, counts = start + 1, (len(before), len(after))
    return GETPPID.format(
        subject=name, line=line, before=counts[0], after=counts[1], body="\n".join(body)
    )


def kernel_source(here: Here, built: dict[str, Any]) -> list[str]:
    """kernel/sys.c as the series leaves it."""
    with tempfile.TemporaryDirectory() as nowhere:
        show = Path(nowhere) / "sys.c"
        code = (
            "import sys; from pathlib import Path; from rig import config, kbuild;"
            "from rig.store import open_store; c = config.load(Path('rig.toml').absolute());"
            f"k = kbuild.build(c, c.kernel('{KERNEL}'), open_store());"
            f"Path(sys.argv[1]).write_bytes((k.tree / 'kernel/sys.c').read_bytes())"
        )
        done = here.run(".venv/bin/python", "-c", code, str(show))
        if done.returncode:
            raise InfrastructureError("no kernel/sys.c", output=done.output[-2000:])
        return show.read_text(encoding="utf-8").splitlines()


def diff(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Lines of a hunk: those of both, and those that are new. Only adds."""
    body, at = [], 0
    for line in after:
        if at < len(before) and before[at] == line:
            body.append(f" {line}")
            at += 1
        else:
            body.append(f"+{line}")
    return body


def ten_more(lines: list[str], at: int) -> list[str]:
    """Ten instructions that do nothing, which no compiler leaves out."""
    return [*lines[:at], '\tasm volatile(".rept 10\\n\\tnop\\n\\t.endr");', *lines[at:]]


def many_more(lines: list[str], at: int) -> list[str]:
    """Some microseconds more, whatever the host: of a nop an emulator makes nothing at all."""
    loop = 'asm volatile("1:\\tdecl %0\\n\\tjnz 1b" : "+r" (turns));'
    return [*lines[:at], f"\t{{ unsigned int turns = {TURNS}; {loop} }}", *lines[at:]]


def a_comment(lines: list[str], at: int) -> list[str]:
    """Nothing but words."""
    return [*lines[:at], "\t/* A patch that adds nothing. */", *lines[at:]]


def caught(place: Place) -> list[Figure]:
    """Ten instructions in getppid(): named, counted, and the function they are in."""
    here = opened(place)
    on_a_branch(here, MORE, ten_more)
    words = f"bench {KERNEL} --check"
    done = here.rig(*words.split())
    lines = done.output.splitlines()
    named = [line for line in lines if line.strip().startswith("MORE getppid: ")]
    sized = [line for line in named if f"({TEN:+d}," in line]
    at = lines.index(named[0]) + 1 if named else len(lines)
    function = int(at < len(lines) and f"getppid {TEN:+d}" in lines[at])
    how = f"rig {words} on a branch whose last patch is: {MORE}"
    for line in lines[-40:]:
        say(line)
    # A run that broke off has an exit code of 1 as well.
    judged = any(line.endswith("figure(s) got worse") for line in lines)
    return [
        exactly(
            "ten_instructions_exit_code", done.returncode if judged else -1, "exit code", 1, how
        ),
        exactly("ten_instructions_by_name", int(bool(named)), "lines", 1, how),
        exactly("ten_instructions_by_size", int(bool(sized)), "lines", 1, how),
        exactly("ten_instructions_by_function", function, "lines", 1, how),
        leftovers(place),
    ]


def against_before(
    here: Here, name: str, change: Callable[[list[str], int], list[str]], only: str
) -> tuple[str, list[dict[str, Any]]]:
    """A patch to getppid() in a timed run against the kernel without it: how, and what was said of
    each figure.
    """
    on_a_branch(here, name, change)
    add_kernel(here, name)
    words = ["bench", KERNEL, "--against", "before", "--timed", "--only", only]
    out = here.temporary / "bench.json"
    out.unlink(missing_ok=True)
    done = here.rig(*words, "--json", str(out))
    if not out.exists():
        raise InfrastructureError(f"rig {' '.join(words)} failed", output=done.output[-3000:])
    found: list[dict[str, Any]] = json.loads(out.read_bytes())["kernels"]
    for one in found:
        if one["word"] != "no difference seen":
            say(f"{one}")
    return f"rig {' '.join(words)}: {len(found)} comparisons", found


def slower(place: Place) -> list[Figure]:
    """A call that takes some microseconds more is said to be slower, and no call to be faster.

    To submit one may well be: a pool's threads that are busy with the calls before need no waking.
    """
    here = opened(place)
    how, found = against_before(here, SLOWER, many_more, SLOW_ONLY)
    named = [one["word"] for one in found if one["name"] == SLOW_NAME]
    faster = sum(one["word"] == "faster" and one["name"].endswith(": call") for one in found)
    return [
        exactly("slower_call_is_seen", int(named == ["slower"]), "figures", 1, how),
        at_most("faster_by_a_slower_call", faster, "figures", 0, how),
        leftovers(place),
    ]


def nothing(place: Place) -> list[Figure]:
    """A patch that adds nothing, in a timed run against the kernel without it."""
    here, number = opened(place), int(place.name.partition("_")[2])
    only = TIMED_ONLY[number % len(TIMED_ONLY)]
    how, found = against_before(here, NOTHING, a_comment, only)
    flagged = [one for one in found if one["word"] != "no difference seen"]
    return [
        at_most(f"flagged_by_{place.name}", len(flagged), "figures", 0, how),
        exactly(f"compared_by_{place.name}", int(bool(found)), "runs", 1, how),
        leftovers(place),
    ]


def add_kernel(here: Here, name: str) -> None:
    """The kernel of before the patch of this name, as one of rig.toml's."""
    directory = here.clone / SERIES
    before = here.clone / "patches/before"
    before.mkdir(exist_ok=True)
    for old in before.iterdir():
        old.unlink()
    patches = [one for one in series.read(directory) if name not in one.name]
    for one in patches:
        (before / one.name).write_bytes(one.data)
    listed = "".join(f"{one.name} -p{one.strip}\n" for one in patches)
    (before / "series").write_text(listed, encoding="utf-8")
    text = (here.clone / "rig.toml").read_text(encoding="utf-8")
    table = text.split(f"[kernel.{KERNEL}]\n")[1].split("\n[")[0].replace(SERIES, "patches/before")
    (here.clone / "rig.toml").write_text(f"{text}\n[kernel.before]\n{table}\n", encoding="utf-8")


def steps() -> dict[str, Step]:
    """All of them, in their order."""
    found: dict[str, Step] = {"exact_set": exact_set, "caught": caught, "slower": slower}
    found.update({f"nothing_{number}": nothing for number in range(1, TIMED_RUNS + 1)})
    return {name: whole(step) for name, step in found.items()}


def main(argv: Sequence[str]) -> int:
    """Measure; 0 when every bar was held, else 1."""

    def place(work: Path, name: str, commit: str) -> Place:
        return Here(ROOT, work, name, commit)

    about = "measure the must-hold list of rig bench"
    measure = Acceptance("bench", about, ROOT, steps(), place, notices, MEASURED)
    return measure.main(list(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
