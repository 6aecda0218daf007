"""Set a checkout up: host packages, then .venv from requirements.lock. Needs git and python3 only.

Run by every target of the Makefile. When all is there it ends in a fraction of a second; it may
be interrupted anywhere and run twice at once. Exit codes: 0 set up, 3 something is missing that it
may not install (the line that installs it is printed), 130 interrupted.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036  the system's python3 may be older than the rig's
    import os

    # An older python3 cannot even import the rest; any newer one on the PATH can.
    for _name in ("/usr/bin/python3", "python3.11", "python3.12", "python3.13"):
        _test = "import sys; sys.exit(sys.version_info < (3, 11))"
        try:
            if os.spawnlp(os.P_WAIT, _name, _name, "-c", _test) == 0:
                os.execlp(_name, _name, *sys.argv)
        except OSError:
            continue
    sys.stderr.write("setup: rig needs Python 3.11 or newer (Debian 12's python3 is)\n")
    sys.exit(3)

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))
sys.dont_write_bytecode = True

from rig import doctor  # noqa: E402
from rig.errors import InfrastructureError  # noqa: E402
from rig.process import run  # noqa: E402

APT_TIMEOUT_S = 1500.0
PIP_TIMEOUT_S = 900.0
APT_ENV = ("DEBIAN_FRONTEND=noninteractive", "DEBIAN_PRIORITY=critical")


def say(text: str) -> None:
    """One line on stderr: stdout belongs to what runs next."""
    sys.stderr.write(f"setup: {text}\n")
    sys.stderr.flush()


def for_tests() -> bool:
    """Whether the rig's own tests will run, on CI: the Makefile says so for those of its targets.

    Elsewhere nobody is given servers for that; tests that want them are skipped.
    """
    return os.environ.get("RIG_SETUP") == "tests" and os.environ.get("CI") == "true"


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the one lock of a directory; no file is left behind, the kernel drops it on death."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another set-up of {directory}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def shout(line: str) -> None:
    """A line of a long command, as it comes."""
    sys.stderr.write(f"  {line}\n")
    sys.stderr.flush()


def host_ready(report: doctor.Report) -> bool:
    """Install what the host lacks where that is allowed; False (and said why) where not."""
    if not report.missing:
        return True
    names = ", ".join(check.name for check in report.missing)
    say(f"this host lacks {names}")
    if report.family == "debian" and not report.root and not sudo_works():
        say("not root, and sudo wants a password; run this line, then make again:")
    elif report.family == "debian" and install(report):
        return True
    else:
        say("install it, then run make again:")
    for family in (report.family,) if report.family else doctor.FAMILIES:
        sys.stdout.write(f"{report.mend(family)}\n")
    return False


def sudo_works() -> bool:
    """True when sudo is there and asks for no password."""
    if doctor.find_command("sudo") is None:
        return False
    try:
        return run(["sudo", "-n", "true"], timeout_s=20, check=False).returncode == 0
    except InfrastructureError:
        return False


def install_commands(report: doctor.Report) -> list[list[str]]:
    """What is run to give a Debian host all that the report asks for."""
    lead = [] if report.root else ["sudo", "-n"]
    apt = [*lead, "env", *APT_ENV, "apt-get", "-o", "DPkg::Lock::Timeout=600"]
    # An installation that was interrupted, ours or another's, has to be ended first.
    commands = [[*lead, "env", *APT_ENV, "dpkg", "--configure", "-a"]]
    names = report.packages("debian")
    remedies = [check.remedy for check in report.missing if check.remedy]
    if names or doctor.APT_UPDATE in remedies:
        commands.append([*apt, "update"])
    if names:
        commands.append([*apt, "install", "-y", "--no-install-recommends", *names])
    other = [remedy for remedy in remedies if remedy != doctor.APT_UPDATE]
    return commands + [[*lead, *shlex.split(remedy)] for remedy in other]


def install(report: doctor.Report) -> bool:
    """Run what install_commands says; False when one failed or something is missing still."""
    lock = Path("/var/lib/apt")
    with locked(lock if lock.is_dir() else ROOT):
        for command in install_commands(report):
            say(shlex.join(command))
            try:
                run(command, timeout_s=APT_TIMEOUT_S, on_line=shout)
            except InfrastructureError as error:
                say(error.message)
                # One archive of several may be away; another apt may be at work: the
                # installation that comes next waits for it, and decides.
                if command[-1] not in ("update", "-a"):
                    return False
    doctor.forget()
    left = doctor.host_report(tests=for_tests()).missing
    if left:
        say("still missing: " + ", ".join(check.name for check in left))
    return not left


def stamp_of(root: Path) -> str:
    """What .venv is made from: lock, package metadata, Python's version, and where .venv is."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    settings = project.get("tool", {}).get("setuptools")  # those of ruff and mypy do not matter
    parts = [python, str(root), project.get("project"), project.get("build-system"), settings]
    text = json.dumps(parts, sort_keys=True).encode()
    return hashlib.sha256(text + (root / "requirements.lock").read_bytes()).hexdigest()


def base_python() -> str:
    """This Python by its versioned name, so that an upgrade of `python3` does not change .venv."""
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    return str(base) if base.exists() else sys.executable


def venv_ready(root: Path) -> None:
    """Make .venv anew unless its stamp, written last, says that it is whole and of this lock."""
    venv, stamp = root / ".venv", stamp_of(root)
    mark = venv / "rig-setup-stamp"
    python = venv / "bin" / "python"  # a link: it dangles when that Python was uninstalled
    if mark.is_file() and mark.read_text(encoding="ascii") == stamp and python.exists():
        return
    say(f"making {venv} with Python {sys.version.split()[0]} (about 20 s)")
    shutil.rmtree(venv, ignore_errors=True)
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
    ]
    run([base_python(), "-m", "venv", venv], timeout_s=PIP_TIMEOUT_S)
    install = [*pip, "install"]
    lock = root / "requirements.lock"
    run(
        [*install, "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", lock],
        timeout_s=PIP_TIMEOUT_S,
    )
    run([*install, "--no-deps", "--no-build-isolation", "-e", root], timeout_s=PIP_TIMEOUT_S)
    run([*pip, "check"], timeout_s=PIP_TIMEOUT_S)
    fresh = mark.with_suffix(".new")
    fresh.write_text(stamp, encoding="ascii")
    fresh.rename(mark)


def refresh_lists(report: doctor.Report) -> None:
    """On CI as root: an old list names kernel sources that the archive has dropped since."""
    if os.environ.get("CI") != "true" or report.family != "debian" or not report.root:
        return
    if report.packages("debian"):
        return  # installing updates the lists anyway
    try:
        run(["apt-get", "-o", "DPkg::Lock::Timeout=600", "update"], timeout_s=300)
    except InfrastructureError as error:
        say(f"going on with the package lists as they are: {error.message}")


def main() -> int:
    """Set up; the exit code."""
    if sys.argv[1:]:
        sys.stderr.write(f"{__doc__}\nIt takes no arguments.\n")
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    try:
        report = doctor.host_report(tests=for_tests())
        refresh_lists(report)
        if not host_ready(report):
            return 3
        with locked(ROOT):
            venv_ready(ROOT)
    except InfrastructureError as error:
        say(error.message)
        sys.stderr.write(error.output)
        return error.exit_code
    except OSError as error:
        say(str(error))
        return 3
    except KeyboardInterrupt:
        say("interrupted; run it again to go on")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
