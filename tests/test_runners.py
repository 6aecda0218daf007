"""What hands a night to a runner: files that their checkers take, and that call only the rig."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rig import config, matrix

ROOT = Path(__file__).parent.parent
RUNNERS = ROOT / "ci/runners"


def checked(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "check_jsonschema", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


SCHEMAS = {
    "github-nightly.yml": ("--builtin-schema", "vendor.github-workflows"),
    "gitlab-nightly.yml": (
        "--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_workflow_is_one(name: str, tmp_path: Path) -> None:
    done = checked(*SCHEMAS[name], str(RUNNERS / name))
    assert done.returncode == 0, done.stdout
    broken = tmp_path / name
    text = (RUNNERS / name).read_text()
    broken.write_text(text.replace("timeout-minutes: 720", "timeout-minutes: [x]")
                          .replace("timeout: 12h", "timeout: [x]"))  # fmt: skip
    assert checked(*SCHEMAS[name], str(broken)).returncode == 1


def test_the_units_are_some(tmp_path: Path) -> None:
    rig = tmp_path / "rig"
    (rig / ".venv/bin").mkdir(parents=True)
    (rig / ".venv/bin/rig").write_text("#!/bin/sh\n")
    (rig / ".venv/bin/rig").chmod(0o755)
    for name in ("rig-nightly.service", "rig-nightly.timer"):
        text = (RUNNERS / name).read_text().replace("/srv/rig", str(rig))
        (tmp_path / name).write_text(text)

    def verified(*names: str) -> subprocess.CompletedProcess[str]:
        argv = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / one) for one in names)]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    done = verified("rig-nightly.service", "rig-nightly.timer")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) not in done.stderr, done.stderr
    service = tmp_path / "rig-nightly.service"
    service.write_text(service.read_text().replace("KillSignal=SIGINT", "KillSignal=SIGNOT"))
    assert "rig-nightly.service" in verified("rig-nightly.service").stderr


@pytest.mark.parametrize("name", [*SCHEMAS, "rig-nightly.service"])
def test_they_call_the_rig_and_nothing_else(name: str) -> None:
    text = (RUNNERS / name).read_text()
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    marks = ("- run:", "- make", "- .venv", "ExecStart=")
    calls = [line for line in lines if line.startswith(marks)]
    (call,) = [call for call in calls if not call.endswith("make setup")]
    assert re.fullmatch(r"(- run: |- |ExecStart=/srv/rig/)\.venv/bin/rig( --quiet)? nightly", call)


def test_a_matrix_of_gitlabs_is_one(tmp_path: Path) -> None:
    """The child pipeline that `rig matrix run --on gitlab` prints, of the project's own cells."""
    root = RUNNERS.parents[1]
    cells = matrix.read(root / matrix.FILE, config.load(root / config.FILE_NAME))
    path = tmp_path / "child.yml"
    path.write_text(matrix.gitlab(cells))
    done = checked(*SCHEMAS["gitlab-nightly.yml"], str(path))
    assert done.returncode == 0, done.stdout
    path.write_text(matrix.gitlab(cells).replace('"max": 1', '"max": 9'))
    assert checked(*SCHEMAS["gitlab-nightly.yml"], str(path)).returncode == 1
