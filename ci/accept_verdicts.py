"""Measure what verdicts must hold, and write ci/acceptance/verdicts.json.

Run by `make accept WHAT=verdicts`, on a host that does nothing else; some two hours, one with two
processes side by side, each with half of the steps (each row of the fault drill is one). Logs that
the detector has not been written from are not part of the project: RIG_LABELLED_LOGS names a
directory with NNN.log and NNN.json ({"reports": [{"type": ..., "line": first line, counted from 0,
"last": its last one, "alt_types": [others that could be argued for]}]}), which whoever measures
gathers anew.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from accept_handover import at_most  # noqa: E402
from accept_loop import Here, exactly, notices, opened, whole  # noqa: E402
from acceptance import MARK, Acceptance, Figure, Place, Step, leftovers, say  # noqa: E402

from rig import splat  # noqa: E402
from rig.errors import InfrastructureError  # noqa: E402
from rig.results import Splat  # noqa: E402
from rig.store import digest  # noqa: E402

LOGS = "RIG_LABELLED_LOGS"
NEAR = 6  # lines by which the begin of a report may be seen otherwise
RECALL, TYPE_RIGHT = 0.99, 0.95
BOOTED = ("async", "plain", "lockdep", "kasan", "kcsan", "baseline-6.1")
BOOTS = 100
TIMES = 5
# Half of the gigabyte: words that kernels begin a report with.
SAID_BY_PROGRAMS = b"""\
[   12.345678] foo 0000:00:1f.2: DEBUG value of the thing is 17 and so on
2026-01-01 12:00:00 app[123]: INFO: connection from 10.0.0.1 accepted, all is well
WARNING: module foo of package bar is deprecated and will go away
[   12.345678] app: see BUG 1234 for what this is about, please
"""
GIGABYTE, SPEED, MEMORY_MIB = 10**9, 20.0, 300.0
MEASURED = (
    *("rig", "rig.toml", "images", "kernel-configs", "patches", "tests/faults"),
    *("ci/accept_verdicts.py", "ci/accept_handover.py", "ci/accept_loop.py", "ci/acceptance.py"),
)


def recall(directory: Path) -> list[tuple[bool, bool]]:
    """For each labelled report whether it was found, and whether its type is right."""
    seen: list[tuple[bool, bool]] = []
    for labels in sorted(directory.rglob("*.json")):
        found = list(splat.scan(labels.with_suffix(".log").read_bytes()))
        for one in reports_of(labels):
            kinds = (one["type"], *one.get("alt_types", ()))
            own = _nearest(found, one["line"], one.get("last", one["line"]), kinds)
            if own:
                found.remove(own)
            seen.append((own is not None, own is not None and own.type in kinds))
    return seen


def reports_of(labels: Path) -> list[dict[str, Any]]:
    """What a log is labelled with."""
    found: list[dict[str, Any]] = json.loads(labels.read_bytes())["reports"]
    return found


def _nearest(found: Sequence[Splat], line: int, last: int, kinds: Sequence[str]) -> Splat | None:
    """The report that is meant by a label, of one of its types where there are several. What leads
    to its heading may be taken for a part of it.
    """
    near = [
        o
        for o in found
        if line - NEAR <= o.start <= max(line + NEAR, last) or o.start <= line < o.end
    ]
    return min(near, key=lambda o: (o.type not in kinds, abs(o.start - line)), default=None)


def unseen(_place: Place) -> list[Figure]:
    """Recall and types on logs that nobody looked at while the rules were written."""
    named = os.environ.get(LOGS, "")
    if not named or not list(Path(named).rglob("*.json")):
        raise InfrastructureError(f"no labelled logs: {LOGS} names no directory with them")
    seen = recall(Path(named))
    found, right = sum(one for one, _ in seen), sum(two for _, two in seen)
    labels = sorted(Path(named).rglob("*.json"))
    whose = digest("".join(digest(path) + digest(path.with_suffix(".log")) for path in labels))
    how = f"rig scan of {len(seen)} labelled reports in {len(labels)} logs ({whose[:12]})"
    clean = [path.with_suffix(".log") for path in labels if not reports_of(path)]
    calm = f"{how}: {len(clean)} of them clean"
    alarms = sum(bool(splat.scan(path.read_bytes())) for path in clean)
    return [
        at_most("false_alarms_on_unseen_logs", alarms, "logs", len(clean) // 100, calm),
        _share("recall_on_unseen_logs", found, len(seen), RECALL, how),
        _share("types_right_on_unseen_logs", right, max(1, found), TYPE_RIGHT, how),
    ]


def _share(name: str, part: int, whole_: int, bar: float, how: str) -> Figure:
    value = round(part / whole_, 4) if whole_ else 0.0
    return Figure(name, value, "of them", f">= {bar}", value >= bar, f"{how}: {part} of {whole_}")


def clean_boots(place: Place) -> list[Figure]:
    """Boots of kernels that are well, from power-on: nobody cries wolf."""
    here, alarms, boots = opened(place), 0, 0
    for number in range(BOOTS):
        kernel = BOOTED[number % len(BOOTED)]
        done, value = here.json("boot", kernel, "--cold", "--json", "--", "true")
        boots += done.returncode == 0
        for one in value.get("splats", []):
            alarms += 1
            say(f"{kernel}: {one['title']}")
    how = f"rig boot --cold of {', '.join(BOOTED)} in turn"
    return [
        exactly("clean_boots", boots, "boots", BOOTS, how),
        at_most("false_alarms_in_100_clean_boots", alarms, "reports", 1, how),
        leftovers(place),
    ]


def table(root: Path) -> ModuleType:
    """The fault drill of a checkout, which runs the rig of that checkout."""
    spec = importlib.util.spec_from_file_location("drill", root / "tests/faults/drill.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules["drill"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def called(fault: Any) -> str:
    """The step of a row."""
    return "drill_" + re.sub(r"\W+", "_", fault.name.replace("'", "").replace(",", ""))


def drilled(number: int) -> Step:
    """A row of the fault drill, five times: right each time, and in time."""

    def step(place: Place) -> list[Figure]:
        here = opened(place)
        drill = table(here.clone)
        fault, right, took = drill.FAULTS[number], 0, []
        os.environ[MARK] = place.mark  # what is left of a row is found by it
        assert called(fault) == place.name
        for turn in range(TIMES):
            directory = here.temporary / f"row-{number}-{turn}-{os.getpid()}"
            directory.mkdir()
            seen = drill.run(fault, directory)
            wrong = drill.troubles(fault, seen)
            right += not wrong
            took.append(seen.took_s)
            for words in wrong:
                say(f"{fault.name}: {words}")
        how = (
            f"tests/faults/drill.py, {fault.name}: the slowest in {max(took):.0f} s"
            f" of {fault.within_s:.0f}"
        )
        return [exactly(place.name, right, "times", TIMES, how), leftovers(place)]

    return step


def speed(place: Place) -> list[Figure]:
    """A gigabyte of console text: how fast, and in how much memory."""
    here = opened(place)
    done, value = here.json("boot", "async", "--cold", "--json", "--", "dmesg")
    if done.returncode:
        raise InfrastructureError("rig boot failed", output=done.output[-2000:])
    text = Path(value["console"]).read_bytes()
    # The banner once: a second one would be a report, rightly.
    body = text[text.index(b"\n", text.index(b"Linux version")) + 1 :]
    body += SAID_BY_PROGRAMS * (len(body) // len(SAID_BY_PROGRAMS))
    log = here.temporary / "gigabyte.log"
    with log.open("wb") as file:
        while file.tell() < GIGABYTE:
            file.write(body)
    began = time.monotonic()
    scanned = here.rig("scan", str(log))
    took = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    size = log.stat().st_size / 10**6
    log.unlink()
    how = f"rig scan of {size:.0f} MB in {took:.1f} s"
    rate = round(size / took, 1)
    return [
        exactly("scan_of_a_gigabyte", scanned.returncode, "exit code", 0, how),
        Figure("scan_speed", rate, "MB/s", f">= {SPEED}", rate >= SPEED, how),
        at_most("scan_memory", peak, "MiB", MEMORY_MIB, f"{how}; the largest of all children"),
    ]


def steps() -> dict[str, Step]:
    """All of them, in their order."""
    found: dict[str, Step] = {"speed": speed, "unseen": unseen, "clean_boots": clean_boots}
    rows = enumerate(table(ROOT).FAULTS)
    found.update({called(fault): drilled(number) for number, fault in rows})
    return {name: whole(step) for name, step in found.items()}


def main(argv: Sequence[str]) -> int:
    """Measure; 0 when every bar was held, else 1."""

    def place(work: Path, name: str, commit: str) -> Place:
        return Here(ROOT, work, name, commit)

    about = "measure the must-hold list of verdicts"
    measure = Acceptance("verdicts", about, ROOT, steps(), place, notices, MEASURED)
    return measure.main(list(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
