"""What the store holds, whether it is sound, and what goes when it is over its budget."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rig import manifest
from rig.errors import UsageError
from rig.progress import QUIET, Progress
from rig.store import (
    GONE,
    LOCKS,
    MAKING,
    MEMOS,
    WORK_MARK,
    Store,
    discard,
    read_mark,
    remove,
    unheld,
    write_mark,
)

BUDGET_VARIABLE = "RIG_STORE_BUDGET"
DEFAULT_BUDGET = "30G"
_UNITS = {"M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# What is remembered of toolchains and series is a few hundred bytes; it goes when unused so long.
_MEMO_LIFE_S = 60 * 24 * 3600.0
_RANDOM = re.compile(r"-[a-z0-9_]{8}$")  # what tempfile adds to a name


@dataclass(frozen=True)
class Entry:
    """One directory of the store.

    size_bytes: on disk. used: when last, in seconds since 1970; what uses it counts as a use.
    uses: "kind/key" of what it needs. work: a work directory, which has no manifest.
    """

    kind: str
    key: str
    size_bytes: int
    used: float
    uses: tuple[str, ...] = ()
    work: bool = False

    @property
    def name(self) -> str:
        """ "kind/key"."""
        return f"{self.kind}/{self.key}"


@dataclass(frozen=True)
class Damage:
    """An entry that is not what its manifest says, and every reason; removed: by --repair."""

    kind: str
    key: str
    reasons: tuple[str, ...]
    removed: bool = False


@dataclass(frozen=True)
class Collected:
    """What a collection did, or with dry_run would do; sizes in bytes.

    in_use: what was over the budget too, but a living rig holds it.
    """

    before_bytes: int
    after_bytes: int
    budget_bytes: int
    removed: tuple[Entry, ...]
    in_use: tuple[Entry, ...]
    leftovers: tuple[str, ...]
    dry_run: bool = False


def parse_size(text: str) -> int:
    """Bytes in "20G", "1.5T" or "500M"; UsageError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MGT])(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"{text!r} is no size", hint="a number with M, G or T: 20G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def budget_bytes() -> int:
    """What the store may take on disk: $RIG_STORE_BUDGET, else 30 GiB."""
    named = os.environ.get(BUDGET_VARIABLE)
    try:
        return parse_size(named or DEFAULT_BUDGET)
    except UsageError as error:
        raise UsageError(f"{BUDGET_VARIABLE}: {error.message}", hint=error.hint) from error


def entries(store: Store) -> list[Entry]:
    """Everything in the store, work directories included, what was used last at the end."""
    found = (_entry(path) for path in _places(store))
    return _with_users(sorted((one for one in found if one), key=lambda one: one.used))


def verify(store: Store, *, repair: bool = False, progress: Progress = QUIET) -> list[Damage]:
    """Every entry that is damaged; all bytes are read. repair: remove those nobody uses."""
    damaged = []
    places = [path for path in _places(store) if not (path / WORK_MARK).exists()]
    progress.stage("verifying the store", len(places))
    for number, place in enumerate(places, 1):
        progress.step(f"{place.parent.name} {place.name}", number)
        reasons = _reasons(store, place)
        if reasons:
            removed = repair and _take_away(store, place)
            damaged.append(Damage(place.parent.name, place.name, tuple(reasons), removed))
    return damaged


def collect(store: Store, budget: int, *, dry_run: bool = False) -> Collected:
    """Remove what was used least recently until the store is within its budget (bytes).

    Nothing that a living rig holds goes, and nothing that something kept still needs. What
    killed rigs left is removed in any case.
    """
    leftovers = tuple(_sweep(store, dry_run))
    kept = {one.name: one for one in entries(store)}
    before = after = sum(one.size_bytes for one in kept.values())
    removed: list[Entry] = []
    in_use: list[Entry] = []
    while after > budget and (found := _next(kept, in_use)):
        place = store.root / found.kind / found.key
        if not (_is_free(store, place) if dry_run else _take_away(store, place)):
            in_use.append(found)
            continue
        removed.append(kept.pop(found.name))
        after -= found.size_bytes
    if not dry_run:
        _sweep_memos(store)
        _sweep_locks(store)
    return Collected(before, after, budget, tuple(removed), tuple(in_use), leftovers, dry_run)


def keep_to_budget(store: Store, progress: Progress = QUIET) -> None:
    """Collect when the store is over its budget, and say so; for after a build."""
    budget = budget_bytes()
    if sum(one.size_bytes for one in entries(store)) <= budget:
        return
    done = collect(store, budget)
    names = ", ".join(f"{one.kind} {one.key[:12]}" for one in done.removed) or "nothing"
    progress.note(
        f"notice: the store was over its budget of {budget / 2**30:.0f} GiB "
        f"({BUDGET_VARIABLE}): removed {names}; it has {done.after_bytes / 2**30:.1f} GiB now"
    )


# --- what there is -----------------------------------------------------------------------------


def _places(store: Store) -> list[Path]:
    """The directory of every entry; what is being made or removed is none."""
    found = []
    for path in sorted(store.root.glob("*/*")):
        hidden = path.name.startswith((MAKING, GONE)) or path.parent.name in (LOCKS, MEMOS)
        if not hidden and path.is_dir():
            found.append(path)
    return found


def _entry(place: Path) -> Entry | None:
    """What is told of a directory of the store; None when it went meanwhile."""
    try:
        used = place.stat().st_mtime
    except FileNotFoundError:
        return None
    kind, key = place.parent.name, place.name
    if (place / WORK_MARK).exists():
        mark = read_mark(place)
        return Entry(kind, key, _measured(place, used), used, tuple(mark.get("uses", ())), True)
    known = manifest.read(place)
    if known and known.disk_bytes:
        return Entry(kind, key, known.disk_bytes, used, tuple(known.uses))
    return Entry(kind, key, manifest.disk_use(place), used)


def _measured(place: Path, used: float) -> int:
    """Bytes of a work directory; a tree of 80,000 files is not walked again when nobody used it."""
    mark = read_mark(place)
    if mark.get("measured", 0.0) > used and "bytes" in mark:
        return int(mark["bytes"])
    measured = time.time()
    size = manifest.disk_use(place)
    with contextlib.suppress(OSError):  # it went, or is not ours: then it is measured again
        times = place.stat()
        write_mark(place, {**mark, "measured": measured, "bytes": size})
        # Being looked at is no use.
        os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))
    return size


def _with_users(found: list[Entry]) -> list[Entry]:
    """The entries, each last used when anything that needs it was."""
    by_name = {one.name: one for one in found}
    used = {name: one.used for name, one in by_name.items()}
    # A worktree uses a series, which uses a source: as many rounds as the chain is long.
    for _ in range(4):
        for one in found:
            for name in one.uses:
                if name in used:
                    used[name] = max(used[name], used[one.name])
    changed = (replace(one, used=used[one.name]) for one in found)
    return sorted(changed, key=lambda one: one.used)


def _next(kept: dict[str, Entry], in_use: list[Entry]) -> Entry | None:
    """What is to go next: the least recently used of all that nothing kept needs."""
    needed = {name for one in kept.values() for name in one.uses}
    free = [one for one in kept.values() if one.name not in needed and one not in in_use]
    return min(free, key=lambda one: one.used, default=None)


# --- whether it is sound -----------------------------------------------------------------------


def _reasons(store: Store, place: Path) -> list[str]:
    """What is wrong with an entry; it is held meanwhile, and [] when it went."""
    reader = Store(store.root)
    if not reader.take(place):
        return []
    known = manifest.read(place)
    return manifest.examine(place, known) if known else ["it has no manifest"]


# --- what goes ---------------------------------------------------------------------------------


def _take_away(store: Store, place: Path) -> bool:
    """Remove an entry that nobody makes and nobody holds; False when somebody does."""
    with _alone(store, place) as free:
        if free:
            discard(place)
        return free


def _is_free(store: Store, place: Path) -> bool:
    with _alone(store, place) as free:
        return free


@contextlib.contextmanager
def _alone(store: Store, place: Path) -> Iterator[bool]:
    """Whether the entry is ours alone for the block: its lock, and its directory unheld."""
    with contextlib.ExitStack() as stack:
        if not stack.enter_context(store.locked_now(place.parent.name, place.name)):
            yield False
            return
        yield stack.enter_context(unheld(place)) and place.is_dir()


def _sweep(store: Store, dry_run: bool) -> Iterator[str]:
    """Remove what killed rigs left half made and half removed; its names."""
    for prefix in (MAKING, GONE):
        for left in sorted(store.root.glob(f"*/{prefix}*")):
            key = _RANDOM.sub("", left.name.removeprefix(prefix))
            with store.locked_now(left.parent.name, key) as free:
                if free and left.exists():
                    yield f"{left.parent.name}/{left.name}"
                    if not dry_run:
                        remove(left)


def _sweep_memos(store: Store) -> None:
    old = time.time() - _MEMO_LIFE_S
    for path in (store.root / MEMOS).glob("*"):
        with contextlib.suppress(FileNotFoundError):
            young = time.time() - 600 if path.name.startswith(".new-") else old
            if path.stat().st_mtime < young:
                path.unlink()


def _sweep_locks(store: Store) -> None:
    """Remove the lock files of entries that are gone; whoever waits for one sees that it went."""
    for path in (store.root / LOCKS).glob("*.lock"):
        kind, _, key = path.stem.partition("-")
        if not (store.root / kind / key).exists():
            with store.locked_now(kind, key) as free:
                if free:
                    path.unlink(missing_ok=True)
