"""A small committed checkout, for tests of what works on a checkout."""

from __future__ import annotations

from pathlib import Path

from rig import process


def write(path: Path, text: str) -> None:
    """A file that may be executed."""
    path.write_text(text)
    path.chmod(0o755)


def git(place: Path, *words: str) -> str:
    """What git says, run as somebody of no name."""
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    return process.run(["git", *who, *words], cwd=place, timeout_s=30).output.strip()


def commit(place: Path) -> None:
    """All that is there, in a new commit, even when nothing changed."""
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--allow-empty", "--message", "x")
