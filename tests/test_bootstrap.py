"""The set-up: what it installs, what it refuses, and that it can be stopped anywhere."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import re
import shutil
import sys
import threading
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from rig import doctor, process
from rig.doctor import Check, Report
from rig.errors import InfrastructureError

ROOT = Path(__file__).parent.parent
GCC = Check("gcc", ok=False, packages={"debian": ("gcc", "libc6-dev")})
LISTS = Check("apt lists", ok=False, remedy=doctor.APT_UPDATE)
IDS = Check("subordinate ids", ok=False, remedy="usermod --add-subuids 1-2 ann")


@pytest.fixture
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "ci/bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout as far as the set-up looks at it."""
    place = tmp_path / "checkout"
    place.mkdir()
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, place)
    return place


class Commands:
    """Stands in for process.run: notes commands, makes what venv would make."""

    def __init__(self, failing: str = "") -> None:
        self.seen: list[str] = []
        self.failing = failing

    def __call__(self, argv: list[object], **_options: object) -> None:
        words = [str(word) for word in argv]
        self.seen.append(" ".join(words))
        if self.failing and self.failing in self.seen[-1]:
            raise InfrastructureError(f"{words[0]} failed")
        if words[1:3] == ["-m", "venv"]:
            (Path(words[3]) / "bin").mkdir(parents=True)
            (Path(words[3]) / "bin/python").symlink_to(sys.executable)


def test_what_is_run_on_debian(bootstrap: ModuleType) -> None:
    commands = bootstrap.install_commands(Report((GCC, LISTS, IDS), "debian", root=True))
    lines = [" ".join(command) for command in commands]
    assert len(lines) == 4
    assert lines[0].endswith(" dpkg --configure -a")
    assert lines[1].endswith(" update")
    assert "DEBIAN_FRONTEND=noninteractive" in lines[2]
    assert lines[2].endswith("install -y --no-install-recommends gcc libc6-dev")
    assert lines[3] == "usermod --add-subuids 1-2 ann"


def test_an_ordinary_user_goes_through_sudo(bootstrap: ModuleType) -> None:
    commands = bootstrap.install_commands(Report((LISTS, IDS), "debian", root=False))
    assert [command[:2] for command in commands] == [["sudo", "-n"]] * 3
    assert commands[1][-1] == "update"


@pytest.mark.parametrize("family", ["debian", "fedora", ""])
def test_without_the_right_to_install_it_prints_the_line(
    bootstrap: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    family: str,
) -> None:
    monkeypatch.setattr(bootstrap, "sudo_works", lambda: False)
    monkeypatch.setattr(bootstrap, "run", Commands())
    check = Check("gcc", ok=False, packages=dict.fromkeys(doctor.FAMILIES, ("gcc",)))
    report = Report((check,), family, root=False)
    assert not bootstrap.host_ready(report)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (1 if family else 3)
    assert all(line.startswith("sudo ") and line.endswith(" gcc") for line in lines)
    assert bootstrap.run.seen == []


def test_a_failed_install_prints_the_line_too(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap, "run", Commands(failing=" install "))
    assert not bootstrap.host_ready(Report((GCC,), "debian", root=True))
    assert "install -y --no-install-recommends gcc libc6-dev" in capsys.readouterr().out


def test_an_archive_that_is_away_stops_nothing(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = Commands(failing=" update")
    monkeypatch.setattr(bootstrap, "run", commands)
    healthy = Report((Check("gcc", ok=True),), "debian", root=True)
    monkeypatch.setattr(bootstrap.doctor, "host_report", lambda **_: healthy)
    assert bootstrap.host_ready(Report((GCC,), "debian", root=True))
    assert commands.seen[-1].endswith("gcc libc6-dev")


def test_nothing_missing_runs_nothing(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "run", Commands())
    assert bootstrap.host_ready(Report((Check("gcc", ok=True),), "debian", root=True))
    assert bootstrap.run.seen == []


def test_an_environment_is_made_once(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, checkout: Path
) -> None:
    monkeypatch.setattr(bootstrap, "run", Commands())
    bootstrap.venv_ready(checkout)
    made = len(bootstrap.run.seen)
    assert "--require-hashes" in bootstrap.run.seen[1]
    bootstrap.venv_ready(checkout)
    assert len(bootstrap.run.seen) == made


@pytest.mark.parametrize(
    ("name", "old", "new", "again"),
    [
        ("requirements.lock", "paramiko==", "paramiko==9", True),
        ("pyproject.toml", "paramiko>=", "paramiko>=9", True),
        ("pyproject.toml", "rig.cli:main", "rig.cli:other", True),
        ("pyproject.toml", "line-length = 100", "line-length = 99", False),
    ],
)
def test_a_changed_lock_makes_it_anew(
    bootstrap: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    checkout: Path,
    name: str,
    old: str,
    new: str,
    again: bool,
) -> None:
    monkeypatch.setattr(bootstrap, "run", Commands())
    bootstrap.venv_ready(checkout)
    sign = checkout / ".venv/sign"
    sign.touch()
    text = (checkout / name).read_text()
    assert old in text
    (checkout / name).write_text(text.replace(old, new))
    bootstrap.venv_ready(checkout)
    assert sign.exists() is not again


def test_another_python_makes_it_anew(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, checkout: Path
) -> None:
    monkeypatch.setattr(bootstrap, "run", Commands())
    bootstrap.venv_ready(checkout)
    made = len(bootstrap.run.seen)
    python = checkout / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/no/such/python")
    bootstrap.venv_ready(checkout)
    assert len(bootstrap.run.seen) == 2 * made
    stamp = bootstrap.stamp_of(checkout)
    monkeypatch.setattr(bootstrap.sys, "version_info", _Version(3, 99))
    assert bootstrap.stamp_of(checkout) != stamp


class _Version:
    def __init__(self, major: int, minor: int) -> None:
        self.major, self.minor = major, minor


@pytest.mark.parametrize("failing", ["venv", "-r", "-e", "check"])
def test_a_half_made_environment_is_made_anew(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, checkout: Path, failing: str
) -> None:
    monkeypatch.setattr(bootstrap, "run", Commands(failing=f" {failing}"))
    with pytest.raises(InfrastructureError):
        bootstrap.venv_ready(checkout)
    half = checkout / ".venv/half"
    half.parent.mkdir(exist_ok=True)
    half.touch()
    monkeypatch.setattr(bootstrap, "run", Commands())
    bootstrap.venv_ready(checkout)
    assert not half.exists()
    assert (checkout / ".venv/rig-setup-stamp").is_file()


def _hold(directory: Path, bootstrap_path: Path, ready: object, die: object) -> None:
    spec = importlib.util.spec_from_file_location("bootstrap", bootstrap_path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.locked(directory):
        ready.set()  # type: ignore[attr-defined]
        die.wait(30)  # type: ignore[attr-defined]
        os._exit(9)  # dies with the lock held


def test_one_set_up_waits_for_another_and_survives_its_death(
    bootstrap: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = multiprocessing.get_context("spawn")
    ready, die = context.Event(), context.Event()
    arguments = (tmp_path, ROOT / "ci/bootstrap.py", ready, die)
    other = context.Process(target=_hold, args=arguments)
    other.start()
    assert ready.wait(30)
    threading.Timer(0.3, die.set).start()
    with bootstrap.locked(tmp_path):
        other.join(10)
        assert other.exitcode == 9
    assert "waiting for another set-up" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_it_needs_no_package_of_python() -> None:
    code = f"import runpy; runpy.run_path({str(ROOT / 'ci/bootstrap.py')!r}, run_name='imported')"
    done = process.run([sys.executable, "-I", "-S", "-c", code], timeout_s=30, check=False)
    assert done.returncode == 0, done.output


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("--force", 2)])
def test_a_word_it_does_not_know_starts_nothing(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, word: str, code: int
) -> None:
    monkeypatch.setattr(bootstrap, "venv_ready", None)
    monkeypatch.setattr(bootstrap, "host_ready", None)
    monkeypatch.setattr(bootstrap.sys, "argv", ["bootstrap.py", word])
    assert bootstrap.main() == code


def test_the_lock_names_no_place() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="ascii")
    assert "://" not in text
    assert not re.search(r"(?m)^\s*-(?!-hash)", text)
    assert not re.search(r"(?m)^[^#]*[@/]", text)
    pinned = set(re.findall(r"(?m)^([a-z0-9._-]+)==", text))
    assert len(pinned) > 20
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"], "setuptools"]
    for requirement in wanted:
        name = re.split(r"[>=<\[; ]", requirement)[0].lower().replace(".", "-")
        assert name in pinned, f"{requirement} is not in requirements.lock: make lock"
