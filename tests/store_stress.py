"""Many rigs at once on one store, killed at random; what they leave must be whole.

Run by tests/test_store_stress.py for some seconds, and by a person or the acceptance for minutes:

    python tests/store_stress.py --seconds 300 --rigs 8

The rigs are real ones (`rig build`, `rig store gc`, `rig store verify`), and so are git, make and
gcc; only the kernel tree is small (tests/fake_kernel.py). The last line on stdout is a JSON object;
exit code 1 when anything was not as it must be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fake_kernel import MAKEFILE, commit_all, make_project, make_series, make_tree

MARK = "RIG_STORE_STRESS"
VARIANTS = 6
# Longer than any of these commands takes on a busy machine; one that does is stuck.
LIMIT_S = 300.0
TOML = """
[kernel.one]
source = "linux#HEAD"
series = "series"
configs = ["base"]
[kernel.other]
source = "linux"
series = "other"
configs = ["base"]
[machine.m]
"""
MAIN_C = """\
void start_kernel(void);
const char *const which = "pristine";

void start_kernel(void)
{
\tfor (;;)
\t\t;
}
"""
PATCH = """\
From: A Developer <dev@example.org>
Subject: [PATCH] init: be variant {0}

---
diff --git a/init/main.c b/init/main.c
--- a/init/main.c
+++ b/init/main.c
@@ -1,3 +1,3 @@
 void start_kernel(void);
-const char *const which = "pristine";
+const char *const which = "variant {0}";
 
--
2.39.5
"""
# Make says when another make works in its build tree, or when its source changed under it.
LOG = "$(CURDIR)/../../../../clashes"  # beside the store
GUARDED = MAKEFILE.replace(
    "vmlinux:\n",
    f"vmlinux:\n\t@mkdir $(B)/busy || {{ echo clash in $(B) >> {LOG}; exit 1; }}\n"
    "\t@cp $(CURDIR)/init/main.c $(B)/before.c; sleep 0.$(shell shuf -i 0-9 -n 1)\n",
).replace(
    "\t@echo 0 > $(B)/System.map\n",
    "\t@echo 0 > $(B)/System.map; rmdir $(B)/busy\n"
    f"\t@cmp $(CURDIR)/init/main.c $(B)/before.c || echo changed under $(B) >> {LOG}\n",
)


@dataclass
class Rig:
    """One living rig: what it does, when it is to be killed (monotonic), and its output."""

    words: tuple[str, ...]
    process: subprocess.Popen[bytes]
    output: Path
    ends_at: float
    kill_at: float | None


@dataclass
class Tally:
    """What happened, and what should not have."""

    ended: Counter[str] = field(default_factory=Counter)
    killed: int = 0
    built: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Stress:
    """Two checkouts, a store, and rigs."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place, self.store = place, place / "store"
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self.random = random.Random(seed)
        self.tally = Tally()
        self.collects = False
        self.projects = [make_checkout(place / name) for name in ("a", "b")]
        self.environment = {
            **os.environ,
            "RIG_STORE": str(self.store),
            "RIG_STORE_BUDGET": "1T",
            MARK: self.mark,
        }

    def run(self, seconds: float, rigs: int, *, collect: bool) -> None:
        """Keep so many rigs alive for so long; then let them end."""
        until = time.monotonic() + seconds
        self.collects = collect
        living: list[Rig] = []
        while time.monotonic() < until or living:
            while len(living) < rigs and time.monotonic() < until:
                living.append(self.start())
            for rig in list(living):
                if self.look_at(rig):
                    living.remove(rig)
            time.sleep(0.02)

    def start(self) -> Rig:
        """A rig that does one thing; every second one is to be killed."""
        project = self.random.choice(self.projects)
        self.edit(project)
        words = self.random.choices(
            [
                ("build", "one"),
                ("build", "other"),
                ("store", "gc", "--budget", "1M" if self.collects else "1T"),
                ("store", "verify"),
            ],
            weights=[6, 3, 1, 1],
        )[0]
        return self.spawn(project, words, mortal=self.random.random() < 0.5)

    def spawn(self, project: Path, words: tuple[str, ...], *, mortal: bool) -> Rig:
        output = Path(tempfile.mkstemp(prefix="rig-", dir=self.place)[1])
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "rig", "-q", *words],
                cwd=project,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        now = time.monotonic()
        kill_at = now + self.random.uniform(0, 6) if mortal else None
        return Rig(words, process, output, now + LIMIT_S, kill_at)

    def edit(self, project: Path) -> None:
        """Change the series of a checkout as an editor does: whole, by a rename."""
        fresh = project / "series" / "fresh"
        fresh.write_text(PATCH.format(self.random.randrange(VARIANTS)))
        fresh.rename(project / "series" / "one.patch")

    def look_at(self, rig: Rig) -> bool:
        """Kill a rig whose time has come; True when it has ended and was judged."""
        now = time.monotonic()
        if rig.process.poll() is None:
            if rig.kill_at is not None and now >= rig.kill_at:
                rig.process.send_signal(signal.SIGKILL)
                rig.process.wait()
                self.tally.killed += 1
                rig.output.unlink()
                return True
            if now > rig.ends_at:
                rig.process.kill()
                self.tally.faults.append(f"{rig.words} did not end in {LIMIT_S:.0f} s")
            return False
        self.judge(rig)
        rig.output.unlink()
        return True

    def judge(self, rig: Rig) -> None:
        """A rig that was not killed must have done its work."""
        said = rig.output.read_text(errors="replace")
        self.tally.ended[" ".join(rig.words[:2])] += 1
        if rig.process.returncode != 0:
            self.tally.faults.append(f"{rig.words}: exit {rig.process.returncode}: {said[-1500:]}")
        elif rig.words[0] == "build":
            self.judge_kernel(said, self.collects)

    def judge_kernel(self, said: str, collected: bool) -> None:
        """The kernel has to be that of the series its metadata names, and was built once."""
        entry = Path(said.split()[-1]).parent
        if ": built" in said:
            self.tally.built[entry.name] += 1
        try:
            metadata = json.loads((entry / "metadata.json").read_bytes())
            vmlinux = (entry / "vmlinux").read_bytes()
        except FileNotFoundError:
            if not collected:
                self.tally.faults.append(f"{entry} was built and is gone")
            return
        which = metadata["series"]["patches"][0]["subject"].removeprefix("init: be ")
        if which.encode() + b"\0" not in vmlinux:
            self.tally.faults.append(f"{entry} is not {which!r}")

    def settle(self) -> None:
        """What must hold when all rigs have ended."""
        until = time.monotonic() + 10
        while marked(self.mark) and time.monotonic() < until:
            time.sleep(0.1)
        self.tally.faults += [f"still running: {words}" for words in marked(self.mark)]
        for words in (("store", "gc", "--budget", "1T"), ("store", "verify")):
            rig = self.spawn(self.projects[0], words, mortal=False)
            rig.process.wait(LIMIT_S)
            self.judge(rig)
        self.tally.faults += [f"left behind: {path}" for path in leavings(self.store)]
        clashes = self.place / "clashes"
        if clashes.exists():
            self.tally.faults += clashes.read_text().splitlines()
        if not self.collects:
            twice = [key for key, times in self.tally.built.items() if times > 1]
            self.tally.faults += [f"kernel {key} was built more than once" for key in twice]


def make_checkout(project: Path) -> Path:
    """A project with two series on a tree that is a git repository."""
    tree = make_tree(project / "linux")
    (tree / "Makefile").write_text(GUARDED)
    (tree / "init" / "main.c").write_text(MAIN_C)
    commit_all(tree, "tree")
    make_series(project / "series", one=PATCH.format(0))
    make_series(project / "other", one=PATCH.format(VARIANTS))
    return make_project(project, TOML)


def leavings(store: Path) -> Iterator[Path]:
    """What is neither an entry nor part of one."""
    for depth in ("*", "*/*", "*/*/*"):
        for path in store.glob(depth):
            if path.name.startswith((".making-", ".gone-", ".new-")):
                yield path


def marked(mark: str) -> list[str]:
    """The command lines of all living processes that carry this mark."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended, or it is another user's
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found.append(words.strip())
    return found


def main(argv: Sequence[str]) -> int:
    """Stress a store; 0 when everything was as it must be."""
    parser = argparse.ArgumentParser(description="many rigs at once on one store, killed at random")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--rigs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--work", type=Path, help="an empty directory to work in, which is kept")
    options = parser.parse_args(argv)
    with contextlib.ExitStack() as stack:
        place = options.work or stack.enter_context(tempfile.TemporaryDirectory(prefix="stress-"))
        stress = Stress(Path(place).absolute(), options.seed)
        # While nothing is collected, nothing may be built twice; then everything is, many times.
        for collect in (False, True):
            stress.run(options.seconds / 2, options.rigs, collect=collect)
            stress.settle()
        tally = stress.tally
        print(json.dumps({"seed": options.seed, "ended": tally.ended, "killed": tally.killed,
                          "kernels": len(tally.built), "faults": tally.faults}))  # fmt: skip
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
