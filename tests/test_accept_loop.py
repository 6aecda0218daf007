"""ci/accept_loop.py on a project of a few scripts: what it measures, and what it catches."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scratch_project import commit, git, write

from rig import process

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "ci"))  # where a script of ci/ finds what it shares
SHARED = importlib.import_module("acceptance")

MAKEFILE = "setup:\n\t@mkdir -p .venv/bin && cp fake/* .venv/bin/\n"
# A rig without kernels. The file `mode` of the checkout names the one thing it does wrong.
FAKE_RIG = f"""\
#!{sys.executable}
import hashlib, json, os, pathlib, re, subprocess, sys, time, uuid
mode = pathlib.Path(__file__).parent.parent.parent.joinpath("mode").read_text().strip()
words = [word for word in sys.argv[1:] if word != "--quiet"]
store = pathlib.Path(os.environ["RIG_STORE"])

def build():
    patches = b"".join(p.read_bytes() for p in sorted(pathlib.Path("patches").rglob("*.patch")))
    place = store / "kernel" / hashlib.sha256(patches).hexdigest()[:16]
    there = place.exists() or mode == "not built"
    if mode == "make":
        subprocess.run(["make", "--silent", "setup"], check=True)
    elif mode == "slow build":
        time.sleep(1.5)
    place.mkdir(parents=True, exist_ok=True)
    where = os.getcwd().encode() if mode == "leak" else b""
    for name in ("bzImage", "vmlinux"):
        (place / name).write_bytes(patches + where)
    print(f"async 6.12: {{'unchanged' if there and mode != 'rebuilt' else 'built'}}")
    print(f"  {{place}}/bzImage")

def boot():
    cold = "--cold" in words or mode == "never restored"
    seconds = {{"slow boot": "2.51", "slow restore": "0.51"}}.get(mode, "0.31")
    kinds = {{"slow boot": cold, "slow restore": not cold}}
    first = seconds if kinds.get(mode, True) else "0.31"
    shared = mode == "shared"
    clock = time.time() - (60 if mode == "clock" else 0)
    said = "been-here" if mode == "not pristine" else "pristine"
    lines = [said, "00" if shared else os.urandom(16).hex(), str(clock), uuid.uuid4().hex]
    if mode == "file":
        (store / "snapshot" / uuid.uuid4().hex).mkdir(parents=True)
    if mode == "process":
        subprocess.Popen(["sleep", "5"], start_new_session=True, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    start = "power-on" if cold else "snapshot abc"
    print(json.dumps({{"machine": {{"start": start, "first_command_s": first}}, "splats": [],
                      "stdout": "\\n".join(lines)}}))

def test():
    if "--tests" in words:
        suite = pathlib.Path(words[words.index("--tests") + 1])
        names = re.findall(r"program_\\d+", (suite / "Makefile").read_text())
        for name in names[:1]:
            program = suite / name
            subprocess.run(["gcc", "-o", program, f"{{program}}.c"], check=True)
            subprocess.run([program], check=True)
        cases = [{{"program": name, "status": "pass"}} for name in names]
        if mode == "one fails":
            cases[3]["status"] = "fail"
        pathlib.Path(words[words.index("--json") + 1]).write_text(json.dumps({{"cases": cases}}))
    else:
        jobs = 1 if mode == "one by one" else int(words[words.index("-n") + 1])
        time.sleep(0.8 / jobs)

def exact():
    if mode == "no exact":
        sys.exit("rig: invalid choice: 'exact'")
    many = "--repeat" in words
    if mode != "no result":
        value = 123 + (mode == "differs later" and not many)
        print(f'{{{{"name": "x", "value": {{value}}, "unit": "instructions", "window": 1}}}}')
    if many and mode != "ran once":
        sys.stderr.write("10 runs, all the same\\n")
    sys.exit(mode == "differs")

{{"build": build, "boot": boot, "boot-and-test": test, "exact": exact}}[words[0]]()
"""
PATCH = """\
--- a/include/linux/x.h
+++ b/include/linux/x.h
@@ -0,0 +1,1 @@
+\treturn 1;
--- a/kernel/x.c
+++ b/kernel/x.c
@@ -0,0 +1,4 @@
+int x(int a)
+{
+\tif (a)
+\t\treturn 0;
+\treturn a + 1;
+}
"""
STRESS = """\
print("stressing")
print('{"faults": [], "killed": 3, "ended": 5}')
"""
COMPARE = """\
#!/bin/sh
echo '{"virtme_ng": {"version": "1", "median_s": 12}, "rig_cold": {"median_s": 2},
 "rig_restored": {"median_s": 0.5}, "ratio_cold": 6.0, "ratio_restored": 24.0}' >"$4"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed checkout whose every command succeeds at once, and a store with a source."""
    place = tmp_path / "project"
    for name in ("ci", "fake", "tests", "images/exact", "patches/async-submit/6.12"):
        (place / name).mkdir(parents=True)
    for name in ("accept_loop.py", "exact_calls.c"):
        shutil.copy(ROOT / "ci" / name, place / "ci")
    shutil.copy(ROOT / ".gitignore", place)
    header = "struct exact_window { int number; };\n#define exact_begin(window)\n"
    header += "#define exact_end(window)\n#define exact_report(name, window)\n#include <stdio.h>\n"
    write(place / "images/exact/exact.h", header)
    write(place / "patches/async-submit/6.12/0001-x.patch", PATCH)
    write(place / "patches/async-submit/6.12/0002-doc.patch", "+++ b/Documentation/x.rst\n+x\n")
    write(place / "Makefile", MAKEFILE)
    write(place / "mode", "")
    write(place / "fake/rig", FAKE_RIG)
    write(place / "fake/python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    write(place / "ci/compare-virtme-ng", COMPARE)
    write(place / "tests/store_stress.py", STRESS)
    monkeypatch.setenv("RIG_STORE", str(tmp_path / "store"))
    (tmp_path / "store/source/debian").mkdir(parents=True)
    git(place, "init", "--quiet")
    commit(place)
    return place


def load(project: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with fewer repetitions."""
    spec = importlib.util.spec_from_file_location("accept_loop", project / "ci/accept_loop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["accept_loop"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    monkeypatch.setattr(SHARED, "GONE_S", 1)
    fewer = {"BOOTS": 2, "BUILDS": 3, "RUNS": 1, "RESTORES": 3, "STRESS_S": 0.0, "EXACT_CPUS": (1,)}
    fewer["SIDE_BY_SIDE"] = 1.3  # beside what starting the stand-in takes on a busy host
    for name, value in fewer.items():
        monkeypatch.setattr(module, name, value)
    return module


def accept(
    project: Path, monkeypatch: pytest.MonkeyPatch, *steps: str
) -> tuple[int, dict[str, Any]]:
    words = [word for step in steps for word in ("--step", step)]
    work = str(project.parent / "work")
    code = load(project, monkeypatch).main(["--work", work, *words])
    return code, json.loads((project / "ci/acceptance/loop.json").read_bytes())


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    return {figure["name"]: figure["verdict"] for figure in result["figures"]}


def test_all_bars_held(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, result = accept(project, monkeypatch)
    assert [f for f in result["figures"] if f["verdict"] != "pass"] == []
    assert (code, result["verdict"], result["dirty"]) == (0, "pass", False)
    assert result["not_measured"] == []
    values = {figure["name"]: figure["value"] for figure in result["figures"]}
    assert values["first_command_restored"] == 0.31
    assert values["faster_than_virtme_ng_restored"] == 24
    assert values["isolated_passes"] == 40
    assert values["one_line_build_identical"] == 1
    assert 1.3 < values["side_by_side"] < 2.1
    assert str(project.parent) not in json.dumps(result)


def test_what_passed_is_kept_for_this_commit_only(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(project, monkeypatch, "exact")
    _, result = accept(project, monkeypatch, "exact", "stress")
    assert {figure["attempts"] for figure in result["figures"]} == {1}
    write(project / "mode", "differs")
    commit(project)
    code, result = accept(project, monkeypatch, "exact")
    assert code == 1
    assert verdicts(result)["exact_fork_1_cpu"] == "fail"


@pytest.mark.parametrize(
    ("mode", "step", "figure"),
    [
        ("rebuilt", "repeat", "repeat_builds_unchanged"),
        ("make", "repeat", "repeat_build_make_runs"),
        ("slow build", "repeat", "repeat_build"),
        ("not built", "incremental", "one_line_build"),
        ("leak", "incremental", "one_line_build_identical"),
        ("slow boot", "boots", "first_command_cold"),
        ("slow restore", "boots", "first_command_restored"),
        ("never restored", "boots", "restored_boots"),
        ("process", "boots", "left_running_boots"),
        ("never restored", "restores", "pristine_restores"),
        ("not pristine", "restores", "pristine_restores"),
        ("clock", "restores", "pristine_restores"),
        ("shared", "restores", "distinct_random_pools"),
        ("file", "restores", "left_by_restores"),
        ("one fails", "isolation", "isolated_passes"),
        ("one by one", "fleet", "side_by_side"),
        ("differs", "exact", "exact_pipe_1_cpu"),
        ("differs later", "exact", "exact_fork_1_cpu"),
        ("ran once", "exact", "exact_fork_1_cpu"),
        ("no result", "exact", "exact_fork_1_cpu"),
        ("no exact", "exact", "exact_file_1_cpu"),
    ],
)
def test_a_missed_bar_is_seen(
    project: Path, monkeypatch: pytest.MonkeyPatch, mode: str, step: str, figure: str
) -> None:
    write(project / "mode", mode)
    commit(project)
    code, result = accept(project, monkeypatch, step)
    assert (code, result["verdict"]) == (1, "fail")
    assert verdicts(result)[figure] == "fail"


@pytest.mark.parametrize(
    ("name", "text", "step", "figure"),
    [
        ("ci/compare-virtme-ng", "#!/bin/sh\nexit 3\n", "virtme", "compare_virtme_ng"),
        ("ci/compare-virtme-ng", "", "virtme", "virtme_measured"),
        ("ci/compare-virtme-ng", COMPARE.replace("24.0", "21.9"), "virtme",
         "faster_than_virtme_ng_restored"),
        ("ci/compare-virtme-ng", COMPARE.replace("6.0", "4.4"), "virtme",
         "faster_than_virtme_ng_cold"),
        ("tests/store_stress.py", f"{STRESS}raise SystemExit(1)\n", "stress",
         "stressed_store_faults"),
        ("tests/store_stress.py", STRESS.replace("[]", '["torn"]'), "stress",
         "stressed_store_faults"),
        ("tests/store_stress.py", STRESS.replace("3", "0"), "stress", "stressed_rigs_killed"),
        ("tests/store_stress.py", "", "stress", "stress_measured"),
        ("Makefile", "setup:\n\t@exit 1\n", "boots", "boots_measured"),
        ("patches/async-submit/6.12/0001-x.patch", "", "incremental", "incremental_measured"),
    ],
)  # fmt: skip
def test_what_a_script_says_counts(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    text: str,
    step: str,
    figure: str,
) -> None:
    """An empty text: the script is not there."""
    (project / name).unlink()
    if text:
        write(project / name, text)
    commit(project)
    code, result = accept(project, monkeypatch, step)
    assert code == 1
    assert verdicts(result)[figure] == "fail"


def test_a_port_that_is_left_is_seen(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(project, monkeypatch)
    here = module.Here(project, project.parent / "work", "restores", "0" * 40)
    listen = "import socket,time;s=socket.socket();s.bind(('127.0.0.1',0));s.listen();"
    listen += "print(s.getsockname()[1],flush=True);time.sleep(30)"
    started = process.spawn([sys.executable, "-c", listen], stdout=-1, env={SHARED.MARK: here.mark})
    try:
        assert started.stdout is not None
        assert int(started.stdout.readline()) in module.ports(here)
    finally:
        process.end(started)
