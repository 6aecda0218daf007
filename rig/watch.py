"""A run again and again: after each change of a patch, a worktree or a suite."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import watchfiles

from rig import kbuild
from rig.config import FILE_NAME, Config
from rig.errors import InfrastructureError, RigError

INTERRUPTED = 130
# Changes that come within so much of each other are one: a rebase writes many files.
_QUIET_MS = 250
_LONGEST_MS = 5000
_LOOK_MS = 200
_SHOWN = 4
_OLD_S = 3600.0
# What editors and compilers write beside a file that a person changed.
_NOISE = re.compile(r"^\.#|~$|\.sw[a-z]$|^4913$|\.(?:o|a|cmd|pyc|new|tmp)$|^\.new-")
_FOREIGN = {".git", "__pycache__", ".pytest_cache", ".venv"}


@dataclass(frozen=True)
class Watched:
    """What a run depends on: directories with all that is in them, and single files."""

    directories: tuple[Path, ...]
    files: tuple[Path, ...]


def inputs(config: Config, machine: str | None, suites: Sequence[Path]) -> Watched:
    """What a run of the config's default kernel depends on, as far as a person edits it.

    suites: their directories.
    """
    kernel = config.kernel()
    recipe = config.root / "images" / config.machine(machine).image
    named = [recipe, *suites, *(kbuild.fragment(config.root, name) for name in kernel.configs)]
    named += [config.root / path for path in kernel.patches]
    source = config.root / Path(kernel.source).expanduser()
    if kernel.source != "deb" and source.is_dir():
        named.append(source)
    files = [path for path in named if path.is_file()]
    directories = [path for path in named if path.is_dir()]
    return Watched(_outermost(directories), tuple(dict.fromkeys([config.root / FILE_NAME, *files])))


def _outermost(directories: Sequence[Path]) -> tuple[Path, ...]:
    """The directories without those inside another one of them."""
    real = sorted({path.resolve() for path in directories})
    return tuple(one for one in real if not any(other in one.parents for other in real))


class Watcher:
    """Sees changes from its making on, also while nobody waits for them.

    Raises InfrastructureError where the host has no room for so many watches.
    """

    def __init__(self, watched: Watched) -> None:
        self._files = {path.resolve() for path in watched.files}
        parents = sorted({path.parent for path in self._files})
        # A file is watched through its directory: most editors put a new one in its place.
        self._streams = [
            _stream(watched.directories, recursive=True),
            _stream(parents, recursive=False, only=self._files),
        ]
        for stream in self._streams:
            _next(stream)  # from here on nothing is missed

    def wait(self) -> list[Path]:
        """The files that changed, once one has and it has been quiet for a moment."""
        while True:
            changed = [path for stream in self._streams for path in _next(stream)]
            if changed:
                return sorted(set(changed))


def _stream(
    directories: Sequence[Path], *, recursive: bool, only: set[Path] | None = None
) -> Iterator[set[tuple[watchfiles.Change, str]]]:
    """Sets of changes as they come, empty ones now and then."""

    def wanted(_change: watchfiles.Change, name: str) -> bool:
        return Path(name) in only if only is not None else not _is_noise(Path(name), directories)

    return watchfiles.watch(
        *directories,
        watch_filter=wanted,
        debounce=_LONGEST_MS,
        step=_QUIET_MS,
        rust_timeout=_LOOK_MS,
        yield_on_timeout=True,
        recursive=recursive,
        raise_interrupt=True,
    )


def _is_noise(path: Path, directories: Sequence[Path]) -> bool:
    """Whether nobody means a change of this file as one."""
    inside = next((path.relative_to(d) for d in directories if path.is_relative_to(d)), path)
    return bool(_NOISE.search(path.name) or _FOREIGN & set(inside.parts))


def _next(stream: Iterator[set[tuple[watchfiles.Change, str]]]) -> list[Path]:
    try:
        return [Path(name) for _, name in next(stream)]
    except OSError as error:
        raise InfrastructureError(
            f"cannot watch for changes: {error.strerror or error}",
            hint="a kernel tree has 5,600 directories, each needs an inotify watch: "
            "sysctl fs.inotify.max_user_watches",
        ) from error


def repeat(
    look: Callable[[], Watched], once: Callable[[], int], say: Callable[[str], object]
) -> int:
    """Run once() now and after each change; its last exit code, when Ctrl-C ends it in between.

    look() says what to watch. once() shows its own failures and returns an exit code;
    130 from it, or Ctrl-C in it, ends the watch.
    """
    watched = look()
    watcher = Watcher(watched)
    code, changed_at = once(), None
    while code != INTERRUPTED:
        if changed_at is not None:
            say(f"verdict {time.time() - changed_at:.1f} s after the change")
        say(f"watching {', '.join(map(_shown, watched.directories))}; Ctrl-C ends")
        try:
            changed = watcher.wait()
        except KeyboardInterrupt:
            return code
        changed_at = _changed_at(changed)
        more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
        say(f"changed: {', '.join(map(_shown, changed[:_SHOWN]))}{more}")
        # What makes it impossible to say what to watch, once() fails for as well, and shows.
        with contextlib.suppress(RigError):
            now = look()
            if now != watched:
                watched, watcher = now, Watcher(now)
        code = once()
    return code


def _changed_at(changed: Sequence[Path]) -> float:
    """When the last of the changes was made, in seconds since 1970; a file may have gone, or have
    been put there with a time of long ago."""
    now = time.time()
    times = [path.stat().st_mtime for path in changed if path.exists()]
    latest = max(times, default=now)
    return latest if now - _OLD_S < latest <= now else now - _QUIET_MS / 1000


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
