"""ci/accept_spine.py on a project of a few shell lines: what it measures, and what it catches."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scratch_project import commit, git, write

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "ci"))  # where a script of ci/ finds what it shares
SHARED = importlib.import_module("acceptance")

MAKEFILE = """\
setup:
\t@mkdir -p .venv/bin && cp fake/* .venv/bin/
boot-and-test: setup
\t@mkdir -p results/latest $$RIG_STORE/kernel/key && cp run.json results/latest
\t@cp kernel $$RIG_STORE/kernel/key/vmlinux && cp kernel $$RIG_STORE/kernel/key/bzImage
"""
FAKE_RIG = f"""\
#!{sys.executable}
import os, pathlib, shutil, sys
sys.path.insert(0, {str(ROOT)!r})
from rig import process
if sys.argv[1] == "build":
    place = pathlib.Path(os.environ["RIG_STORE"], "kernel", "key")
    place.mkdir(parents=True)
    shutil.copy("kernel", place / "vmlinux")
    shutil.copy("kernel", place / "bzImage")
else:
    process.spawn([str(pathlib.Path(__file__).with_name("qemu-system-fake")), "60"]).wait()
"""
GOOD_RUN = {"cases": [{"status": "pass"}, {"status": "skip"}], "splats": [], "notices": ["slow"]}
SUMMARY = "======== 12 passed, 1 skipped, 3 deselected in 61.20s (0:01:01) ========"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A committed checkout whose every command succeeds at once."""
    place = tmp_path / "project"
    for name in ("ci", ".ci", "fake"):
        (place / name).mkdir(parents=True)
    shutil.copy(ROOT / "ci/accept_spine.py", place / "ci")
    shutil.copy(ROOT / ".gitignore", place)
    write(place / "Makefile", MAKEFILE)
    write(place / "run.json", json.dumps(GOOD_RUN))
    write(place / "kernel", "the bytes of a kernel")
    write(place / ".ci/run", f"make setup && echo '{SUMMARY}'\n")
    write(place / "fake/python", '#!/bin/sh\necho checked "$@"\n')
    write(place / "fake/rig", FAKE_RIG)
    shutil.copy("/bin/sleep", place / "fake/qemu-system-fake")
    git(place, "init", "--quiet")
    commit(place)
    return place


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left running has a second to go."""
    monkeypatch.setattr(SHARED, "GONE_S", 1)


def load(project: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("accept_spine", project / "ci/accept_spine.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["accept_spine"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def accept(project: Path, tmp_path: Path, *words: str) -> tuple[int, dict[str, Any]]:
    code = load(project).main(["--work", str(tmp_path / "work"), *words])
    return code, json.loads((project / "ci/acceptance/spine.json").read_bytes())


def figures(result: dict[str, Any]) -> dict[str, Any]:
    return {figure["name"]: figure for figure in result["figures"]}


def test_all_bars_held(project: Path, tmp_path: Path) -> None:
    code, result = accept(project, tmp_path)
    assert [f for f in result["figures"] if f["verdict"] != "pass"] == []
    assert (code, result["verdict"], result["dirty"]) == (0, "pass", False)
    assert result["machine"]["notices"] == ["slow"]
    found = figures(result)
    assert found["tests_passed"]["value"] == 12
    assert found["tests_skipped"]["value"] == 1
    assert found["cases_passed"]["value"] == 1
    assert found["identical_kernels"]["value"] == 1
    assert found["identical_through_ccache"]["value"] == 1
    assert str(tmp_path) not in json.dumps(result)


def test_what_passed_is_not_measured_again(project: Path, tmp_path: Path) -> None:
    code, result = accept(project, tmp_path, "--step", "cold")
    assert code == 1
    assert result["not_measured"] == ["identical", "killed", "lint", "tests"]
    sign = tmp_path / "work" / f"spine-{result['commit'][:12]}" / "cold" / "sign"
    sign.touch()
    code, result = accept(project, tmp_path)
    assert code == 0
    assert sign.exists()  # a second measurement would have started from nothing
    assert figures(result)["cold_boot_and_test"]["attempts"] == 1


def test_what_passed_holds_on_later_commits_while_nothing_measured_changed(
    project: Path, tmp_path: Path
) -> None:
    done: list[str] = []

    def step(name: str, ok: bool) -> object:
        def measure(_place: object) -> list[object]:
            done.append(name)
            return [SHARED.Figure(name, 1, "", "1", ok, "")]

        return measure

    def no_notices(_work: Path) -> list[str]:
        return []

    def measure(work: str, *words: str) -> list[tuple[str, str]]:
        steps = {"good": step("good", ok=True), "bad": step("bad", ok=False)}
        acceptance = SHARED.Acceptance(
            *("x", "", project, steps, partial(SHARED.Place, project), no_notices),
            *(("kernel", "fake"), {"good": ("tool",), "bad": ("saw",)}),
        )
        acceptance.main(["--work", str(tmp_path / work), *words])
        result = json.loads((project / "ci/acceptance/x.json").read_bytes())
        return [(figure["name"], figure["commit"]) for figure in result["figures"]]

    first = git(project, "rev-parse", "HEAD")
    assert measure("one") == [("good", first), ("bad", first)]
    write(project / "run.json", "{}")
    commit(project)
    second = git(project, "rev-parse", "HEAD")
    assert measure("two") == [("good", first), ("bad", second)]
    assert measure("three", "--fresh", "--step", "good") == [("good", second)]
    write(project / "kernel", "other bytes")
    commit(project)
    third = git(project, "rev-parse", "HEAD")
    assert measure("four") == [("good", third), ("bad", third)]
    for tool in ("tool", "saw"):
        write(project / tool, "of one step alone")
        commit(project)
    last = git(project, "rev-parse", "HEAD")
    assert measure("five") == [("good", last), ("bad", last)]
    write(project / "saw", "sharper")
    commit(project)
    assert measure("six")[0] == ("good", last)
    assert done == ["good", "bad", "bad", "good", "good", "bad", "good", "bad", "bad"]


def test_what_changed_without_effect_is_told_with_its_reason(project: Path, tmp_path: Path) -> None:
    done: list[str] = []

    def step(_place: object) -> list[object]:
        done.append("measured")
        return [SHARED.Figure("one", 1, "", "1", True, "")]

    def no_notices(_work: Path) -> list[str]:
        return []

    def measure(*words: str) -> tuple[int, dict[str, Any]]:
        acceptance = SHARED.Acceptance(
            *("x", "", project, {"one": step}, partial(SHARED.Place, project), no_notices),
            measured=("kernel", "run.json"),
        )
        acceptance.main(["--work", str(tmp_path / "work"), *words])
        result = json.loads((project / "ci/acceptance/x.json").read_bytes())
        return len(done), result["figures"][0].get("although", {})

    def change(text: str) -> str:
        write(project / "kernel", text)
        commit(project)
        return git(project, "rev-parse", "HEAD")

    assert measure("--although", "nothing has changed") == (1, {})
    second = change("the same bytes, but for a comment")
    reason = {"kernel": {"why": "a comment", "commit": second}}
    assert measure("--although", "a comment") == (1, reason)
    # The reason goes on holding, but not for what changes after it was given.
    write(project / "README", "not measured")
    commit(project)
    assert measure() == (1, reason)
    write(project / "run.json", "{}")
    commit(project)
    assert measure() == (2, {})
    change("a second comment")
    assert measure("--although", "a comment")[0] == 2
    change("other bytes")
    assert measure() == (3, {})
    # Of a commit that is not known here nobody can say what changed since.
    file = project / "ci/acceptance/x.json"
    file.write_text(file.read_text().replace(git(project, "rev-parse", "HEAD"), "f" * 40))
    change("a third comment")
    assert measure("--although", "a comment") == (4, {})


@pytest.mark.parametrize(
    ("name", "text", "step", "figure"),
    [
        ("Makefile", "boot-and-test:\n\t@exit 4\n", "cold", "cold_boot_and_test"),
        ("run.json", '{"cases": [{"status": "fail"}], "splats": []}', "cold", "cases_passed"),
        ("run.json", '{"cases": [{"status": "skip"}], "splats": []}', "cold", "cases_passed"),
        ("run.json", '{"cases": [{"status": "pass"}], "splats": [1]}', "cold", "cases_passed"),
        (".ci/run", "echo '=== 1 failed, 3 passed in 1.00s ==='; exit 1", "tests", "tests_failed"),
        (".ci/run", "echo '=== no tests ran in 1.00s ==='", "tests", "tests_passed"),
        (".ci/run", f"echo '{SUMMARY}'; exit 1", "tests", "cold_ci_run"),
        (".ci/run", f"echo '{SUMMARY}'; exit 1", "tests", "tests_skipped"),
        (
            ".ci/run",
            f"setsid sleep 4 >/dev/null 2>&1 & sleep 0.5; echo '{SUMMARY}'",
            "tests",
            "left_running_tests",
        ),
        ("fake/python", "#!/bin/sh\nexit 1\n", "lint", "mypy_exit_code"),
    ],
)
def test_a_missed_bar_is_seen(
    project: Path, tmp_path: Path, name: str, text: str, step: str, figure: str
) -> None:
    write(project / name, text)
    commit(project)
    steps = ["--step", "cold", "--step", step] if step == "lint" else ["--step", step]
    code, result = accept(project, tmp_path, *steps)
    assert code == 1
    assert result["verdict"] == "fail"
    assert figures(result)[figure]["verdict"] == "fail"


def test_a_slow_run_is_seen(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(project)
    module.AGAIN_S = 0  # type: ignore[attr-defined]
    assert module.main(["--work", str(tmp_path / "work"), "--step", "cold"]) == 1
    result = json.loads((project / "ci/acceptance/spine.json").read_bytes())
    assert figures(result)["boot_and_test_again"]["verdict"] == "fail"


def test_other_bytes_are_seen(project: Path, tmp_path: Path) -> None:
    write(
        project / "fake/rig", FAKE_RIG.replace('"kernel", place / "vml', '"run.json", place / "vml')
    )
    commit(project)
    _, result = accept(project, tmp_path, "--step", "cold", "--step", "identical")
    found = figures(result)
    assert found["identical_kernels"]["verdict"] == "pass"  # wrong, and the same way twice
    assert found["identical_through_ccache"]["verdict"] == "fail"


def test_a_directory_that_leaks_into_the_kernel_is_seen(project: Path, tmp_path: Path) -> None:
    leak = '    (place / "vmlinux").write_text(os.getcwd())\nelse:'
    write(project / "fake/rig", FAKE_RIG.replace("else:", leak))
    commit(project)
    _, result = accept(project, tmp_path, "--step", "cold", "--step", "identical")
    assert figures(result)["identical_kernels"]["verdict"] == "fail"


def test_what_outlives_a_killed_rig_is_seen(project: Path, tmp_path: Path) -> None:
    unguarded = FAKE_RIG.replace("process.spawn(", "__import__('subprocess').Popen(")
    write(project / "fake/rig", unguarded.replace("60", "6"))
    commit(project)
    _, result = accept(project, tmp_path, "--step", "cold", "--step", "killed")
    assert figures(result)["gone_after_sigkill"]["verdict"] == "fail"


def test_a_dirty_checkout_is_said(project: Path, tmp_path: Path) -> None:
    (project / "new").touch()
    _, result = accept(project, tmp_path, "--step", "tests")
    assert result["dirty"] is True


def test_the_environment_is_a_new_users(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "XDG_CACHE_HOME",
        "ARGS",
        "CCACHE_DIR",
        "MAKEFLAGS",
        "CI",
        "RIG_STORE",
        "PYTEST_ADDOPTS",
    ):
        monkeypatch.setenv(name, "mine")
    module = load(project)
    found = module.Place(project, tmp_path, "cold", "0123456789abcdef").environment()
    assert "mine" not in found.values()
    assert found["HOME"] != os.environ["HOME"]
    assert found["PATH"] == os.environ["PATH"]


def test_runs_side_by_side_share_what_they_measure(project: Path, tmp_path: Path) -> None:
    """The one begins and ends while the other is in the middle of a step."""

    def shared(steps: dict[str, Any]) -> Any:
        place = partial(SHARED.Place, project)
        return SHARED.Acceptance("side", "", project, steps, place, lambda work: [])

    def good(place: Any) -> list[Any]:
        return [SHARED.Figure(place.name, 1, "", "1", True, "")]

    def while_another_runs(place: Any) -> list[Any]:
        assert shared({"long": good, "short": good}).main([*words, "--step", "short"]) == 1
        return good(place)

    words = ["--work", str(tmp_path / "work")]
    both = shared({"long": while_another_runs, "short": good})
    assert both.main([*words, "--step", "long"]) == 0
    result = json.loads((project / "ci/acceptance/side.json").read_bytes())
    assert set(figures(result)) == {"long", "short"}
    assert result["not_measured"] == []
