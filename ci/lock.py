"""Resolve requirements.lock anew from pyproject.toml: every package, every wheel's hash.

Run by `make lock`. Nothing of the host gets into the file: no index address, no path. The
versions in the file stay unless `--upgrade` is given.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent
HEADER = """\
# Every Python package of .venv with the hashes of all its files, for Python 3.11 and newer.
# Made by `make lock` from pyproject.toml; do not edit. Installed by ci/bootstrap.py.
"""


def main(argv: list[str]) -> int:
    """Write requirements.lock; the exit code."""
    sys.path.insert(0, str(ROOT))
    from rig.process import run

    lock = ROOT / "requirements.lock"
    with tempfile.TemporaryDirectory(prefix="rig-lock-") as name:
        place = Path(name)
        run([sys.executable, "-m", "venv", place / "venv"], timeout_s=300)
        python = place / "venv" / "bin" / "python"
        run([python, "-m", "pip", "-q", "install", "pip-tools"], timeout_s=600)
        out = place / "lock.txt"
        if lock.is_file():
            out.write_bytes(lock.read_bytes())
        flags = "--quiet --generate-hashes --allow-unsafe --all-build-deps --strip-extras"
        flags += " --no-header --no-annotate --no-emit-index-url --no-emit-trusted-host"
        flags += " --no-emit-find-links --no-emit-options --extra=dev"
        words: list[str | Path] = [
            python,
            "-m",
            "piptools",
            "compile",
            *flags.split(),
            "-o",
            out,
            *argv,
        ]
        env = {key: value for key, value in os.environ.items() if key != "PIP_FIND_LINKS"}
        env["PIP_CONFIG_FILE"] = os.devnull
        run([*words, "pyproject.toml"], cwd=ROOT, env=env, timeout_s=900)
        fresh = lock.with_suffix(".new")
        fresh.write_text(HEADER + out.read_text(encoding="ascii"), encoding="ascii")
        fresh.rename(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
