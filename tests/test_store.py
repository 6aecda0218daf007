"""The store: an entry is whole or absent, and made once."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from processes import is_gone

from rig import process, upkeep
from rig import store as store_module
from rig.errors import InfrastructureError, UsageError
from rig.store import WORK_MARK, Store, digest


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []

    def make(directory: Path) -> None:
        calls.append(directory)
        (directory / "file").write_text("x")

    assert store.entry("kind", "key") is None
    first = store.publish("kind", "key", make)
    assert store.publish("kind", "key", make) == first == store.entry("kind", "key")
    assert len(calls) == 1
    assert (first / "file").read_text() == "x"


def test_a_failed_make_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def make(directory: Path) -> None:
        (directory / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.publish("kind", "key", make)
    assert list((tmp_path / "kind").iterdir()) == []


def test_a_truncated_entry_is_made_again(tmp_path: Path) -> None:
    store, texts = Store(tmp_path), iter(["first", "second"])

    def make(directory: Path) -> None:
        (directory / "file").write_text(next(texts))

    place = store.publish("kind", "key", make)
    (place / "file").write_text("fi")
    assert store.entry("kind", "key") is None
    assert (store.publish("kind", "key", make) / "file").read_text() == "second"


def test_waiting_for_another_rig_is_said_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    monkeypatch.setattr("rig.store._LOCK_TIMEOUT_S", 0.3)
    with (
        store.lock("kind", "key"),
        pytest.raises(InfrastructureError, match="another rig"),
        store.lock("kind", "key"),
    ):
        pass
    assert "waiting for another rig that makes kind key" in caplog.text


def test_what_a_killed_rig_left_is_swept(tmp_path: Path) -> None:
    def die(directory: Path) -> None:
        (directory / "half").write_text("x")
        os._exit(9)

    child = os.fork()
    if child == 0:
        Store(tmp_path).publish("kind", "key", die)
    os.waitpid(child, 0)
    assert list((tmp_path / "kind").glob(".making-*"))
    Store(tmp_path).publish("kind", "key", lambda made: (made / "file").touch())
    assert [path.name for path in (tmp_path / "kind").iterdir()] == ["key"]


def _count(root: Path, log: Path) -> None:
    def make(directory: Path) -> None:
        with log.open("a") as file:
            file.write("made\n")
        # Give every other maker, if the lock let one in, the time to be seen.
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline and len(log.read_text().splitlines()) == 1:
            os.sched_yield()
        (directory / "file").write_text("x")

    Store(root).publish("kind", "key", make)


def test_two_rigs_at_once_make_it_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    rigs = [context.Process(target=_count, args=(tmp_path / "store", log)) for _ in range(4)]
    for rig in rigs:
        rig.start()
    for rig in rigs:
        rig.join(60)
        assert rig.exitcode == 0
    assert log.read_text() == "made\n"


def test_a_store_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match="cannot be written"):
        Store(tmp_path / "file").publish("kind", "key", lambda _: None)


def test_digest_tells_its_parts_apart(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("ab")
    assert digest("a", "b") != digest("ab")
    assert digest(path) == digest("ab") == digest(b"ab")


# --- damage ------------------------------------------------------------------------------------


def full(directory: Path) -> None:
    """An entry with everything an entry may have."""
    (directory / "deep" / "down").mkdir(parents=True)
    (directory / "deep" / "file").write_text("words")
    (directory / "empty").mkdir()
    (directory / "program").write_text("#!/bin/sh\n")
    (directory / "program").chmod(0o755)
    (directory / "link").symlink_to("deep/file")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda place: (place / "deep/file").write_text("word"), "deep/file has 4 bytes, not 5"),
        (lambda place: (place / "deep/file").write_text("swore"), "deep/file has other bytes"),
        (lambda place: (place / "deep/file").unlink(), "deep/file: No such file"),
        (lambda place: (place / "link").unlink(), "the link link is gone"),
        (
            lambda place: relink(place / "link", "program"),
            "the link link leads to program, not deep/file",
        ),
        (lambda place: (place / ".manifest.json").unlink(), "it has no manifest"),
        (lambda place: (place / ".manifest.json").write_text("{}"), "it has no manifest"),
        (lambda place: (place / ".manifest.json").write_text('{"files": {'), "it has no manifest"),
    ],
)
def test_damage_is_found_told_and_mended(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], object],
    words: str,
) -> None:
    place = Store(tmp_path).publish("kind", "key", full)
    damage(place)
    assert Store(tmp_path).entry("kind", "key") is None
    assert Store(tmp_path).publish("kind", "key", full) == place
    assert f"kind key in the store is damaged: {words}" in caplog.text
    assert (place / "deep/file").read_text() == "words"
    assert not list(tmp_path.glob("kind/.*"))


def relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def test_a_file_touched_and_not_changed_is_whole(tmp_path: Path) -> None:
    place = Store(tmp_path).publish("kind", "key", full)
    before = (place / "program").stat().st_mtime_ns
    os.utime(place / "program", (1, 1))
    assert Store(tmp_path).entry("kind", "key") == place
    assert (place / "program").stat().st_mtime_ns == before  # it is not read each time


def damaged(root: Path, *, repair: bool = False) -> list[tuple[str, tuple[str, ...], bool]]:
    found = upkeep.verify(Store(root), repair=repair)
    return [(f"{one.kind}/{one.key}", one.reasons, one.removed) for one in found]


def test_verify_reads_every_byte_and_repair_removes(tmp_path: Path) -> None:
    for key in ("good", "bad"):
        Store(tmp_path).publish("kind", key, full)
    Store(tmp_path).scratch("work", "tree")
    assert damaged(tmp_path) == []
    program = tmp_path / "kind/bad/program"
    before = program.stat()
    program.write_bytes(program.read_bytes().replace(b"sh", b"hs"))
    os.utime(program, ns=(before.st_atime_ns, before.st_mtime_ns))
    program.chmod(0o700)
    (tmp_path / "kind/bad/stray").write_text("")
    (tmp_path / "kind/bad/empty").rmdir()
    assert Store(tmp_path).entry("kind", "bad")  # size and time are as they were
    ((name, reasons, removed),) = damaged(tmp_path)
    assert (name, removed) == ("kind/bad", False)
    assert set(reasons) == {
        "stray is not in the manifest",
        "program has mode 700, not 755",
        "program has other bytes",
        "empty/ is gone",
    }
    using = Store(tmp_path)
    assert using.entry("kind", "bad")
    assert damaged(tmp_path, repair=True)[0][2] is False  # somebody uses it
    del using
    assert damaged(tmp_path, repair=True)[0][2] is True
    assert [path.name for path in (tmp_path / "kind").iterdir()] == ["good"]
    assert damaged(tmp_path) == []


# --- collecting --------------------------------------------------------------------------------

BIG = 1 << 20


def big(directory: Path) -> None:
    (directory / "file").write_bytes(b"x" * BIG)


def fill(root: Path, *keys: str) -> None:
    """Entries of a little more than 1 MiB, the first used least recently."""
    for age, key in enumerate(reversed(keys)):
        place = Store(root).publish("kind", key, big)
        os.utime(place, (1e9 - age, 1e9 - age))


def names(found: Iterable[upkeep.Entry]) -> list[str]:
    return [one.key for one in found]


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    fill(tmp_path, "old", "older than it looks", "young")
    assert Store(tmp_path).entry("kind", "old")  # a use
    planned = upkeep.collect(Store(tmp_path), int(2.5 * BIG), dry_run=True)
    assert names(planned.removed) == ["older than it looks"]
    assert (tmp_path / "kind/older than it looks").exists()
    done = upkeep.collect(Store(tmp_path), int(2.5 * BIG))
    assert names(done.removed) == ["older than it looks"]
    assert done.before_bytes - done.after_bytes >= BIG
    assert sorted(path.name for path in (tmp_path / "kind").iterdir()) == ["old", "young"]
    assert names(upkeep.collect(Store(tmp_path), 0).removed) == ["young", "old"]


def test_nothing_in_use_is_collected(tmp_path: Path) -> None:
    fill(tmp_path, "held", "opened", "free", "locked")
    using = Store(tmp_path)
    assert using.entry("kind", "opened")
    work = using.scratch("work", "tree")
    with using.hold(tmp_path / "kind/held"), using.lock("kind", "locked"):
        done = upkeep.collect(Store(tmp_path), 0)
    assert names(done.removed) == ["free"]
    assert set(names(done.in_use)) == {"held", "opened", "locked", "tree"}
    del using
    assert set(names(upkeep.collect(Store(tmp_path), 0).removed)) == set(names(done.in_use))
    assert not work.exists()
    assert list((tmp_path / "locks").iterdir()) == []
    with (
        pytest.raises(InfrastructureError, match="not in the store any more"),
        Store(tmp_path).hold(tmp_path / "kind/held"),
    ):
        pass


def test_what_something_kept_needs_stays(tmp_path: Path) -> None:
    fill(tmp_path, "source", "other")
    tree = Store(tmp_path).scratch("tree", "slot", uses=("kind/source",))
    (tree / "file").write_bytes(b"x" * BIG)
    os.utime(tree, (2e9, 2e9))
    assert names(upkeep.collect(Store(tmp_path), int(2.5 * BIG)).removed) == ["other"]
    using = Store(tmp_path)
    assert using.take(tree)
    assert names(upkeep.collect(Store(tmp_path), 0).removed) == []
    del using
    assert names(upkeep.collect(Store(tmp_path), 0).removed) == ["slot", "source"]


def test_what_killed_rigs_left_is_swept_unless_it_is_being_made(tmp_path: Path) -> None:
    for name in (".making-some-key-abcd1234", ".making-other-abcd1234", ".gone-third-abcd1234"):
        (tmp_path / "kind" / name).mkdir(parents=True)
    with Store(tmp_path).lock("kind", "other"):
        done = upkeep.collect(Store(tmp_path), BIG)
    assert done.leftovers == ("kind/.making-some-key-abcd1234", "kind/.gone-third-abcd1234")
    assert [path.name for path in (tmp_path / "kind").iterdir()] == [".making-other-abcd1234"]


def test_a_lock_file_that_went_while_somebody_waited_locks_nobody_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One waits for the lock; its file goes; a third rig comes. The two never meet inside."""
    store = Store(tmp_path)
    inside: list[str] = []
    together: list[int] = []

    def enter(name: str) -> None:
        with Store(tmp_path).lock("kind", "key"):
            inside.append(name)
            time.sleep(0.3)  # long enough for the other one to be seen
            together.append(len(inside))
            inside.remove(name)

    waiting = threading.Thread(target=enter, args=("waiting",))
    with store.lock("kind", "key"):
        waiting.start()
        deadline = time.monotonic() + 30
        while "waiting for another rig" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        store.lock_path("kind", "key").unlink()
    enter("third")
    waiting.join(30)
    assert not waiting.is_alive()
    assert together == [1, 1]


def test_a_work_directory_is_measured_when_it_was_used(tmp_path: Path) -> None:
    place = Store(tmp_path).scratch("work", "tree")
    os.utime(place, (1e9, 1e9))
    small = upkeep.entries(Store(tmp_path))[0]
    (place / "sub").mkdir()
    Store(tmp_path).scratch("work", "tree")
    big(place / "sub")
    os.utime(place, (time.time() + 1, time.time() + 1))
    grown = upkeep.entries(Store(tmp_path))[0]
    assert grown.size_bytes - small.size_bytes >= BIG
    assert grown.work


@pytest.mark.parametrize(
    ("text", "size"), [("20G", 20 << 30), ("1.5t", 3 << 39), ("500 MiB", 500 << 20)]
)
def test_sizes(text: str, size: int) -> None:
    assert upkeep.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "20", "G", "-1G", "20 apples"])
def test_no_sizes(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="is no size"):
        upkeep.parse_size(text)
    monkeypatch.setenv("RIG_STORE_BUDGET", text or "?")
    with pytest.raises(UsageError, match=r"RIG_STORE_BUDGET: .* is no size"):
        upkeep.budget_bytes()


def test_a_store_over_its_budget_is_brought_back_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "old", "young")
    notes: list[str] = []
    progress: Any = SimpleNamespace(note=notes.append)
    monkeypatch.setenv("RIG_STORE_BUDGET", "3M")
    upkeep.keep_to_budget(Store(tmp_path), progress)
    assert notes == []
    monkeypatch.setenv("RIG_STORE_BUDGET", "1.5M")
    upkeep.keep_to_budget(Store(tmp_path), progress)
    assert "removed kind old;" in notes[0]
    assert [path.name for path in (tmp_path / "kind").iterdir()] == ["young"]


# --- what is remembered ------------------------------------------------------------------------


def test_what_is_remembered_is_whole_or_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.recall("kind", "key") is None
    store.remember("kind", "key", {"a": [1, "ü"]})
    assert store.recall("kind", "key") == {"a": [1, "ü"]}
    (path,) = (tmp_path / "memo").iterdir()
    path.write_text(path.read_text().replace("1", "2", 1))
    assert store.recall("kind", "key") is None
    path.write_text("")
    assert store.recall("kind", "key") is None


def test_a_lock_outlives_its_rig_as_long_as_a_command_of_it(tmp_path: Path) -> None:
    """The rig dies by SIGKILL in the middle of a make, which lives a moment longer."""
    script = f"""
import os, signal
from pathlib import Path
from rig import process
from rig.store import Store
with Store(Path({str(tmp_path)!r})).lock("kind", "key"):
    command = process.spawn(["sleep", "60"], stdout=-3, stderr=-3)
    process._guard._process.kill()  # so that the test decides when the command dies
    print(command.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    rig = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert rig.returncode == -signal.SIGKILL
    command = int(rig.stdout)
    with Store(tmp_path).locked_now("kind", "key") as free:
        assert not free
    os.kill(command, signal.SIGKILL)
    assert is_gone(command)
    with Store(tmp_path).lock("kind", "key"):
        pass


def test_a_lock_is_free_after_its_block_whatever_still_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.lock("kind", "key"):
        command = process.spawn(["sleep", "60"])
    with store.locked_now("kind", "key") as free:
        assert free
    process.end(command)


def test_a_work_directory_that_was_not_finished_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_place: Path, _value: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_mark", killed)
        with pytest.raises(KeyboardInterrupt):
            Store(tmp_path).scratch("work", "tree")
    assert upkeep.verify(Store(tmp_path)) == []
    place = Store(tmp_path).scratch("work", "tree")
    assert (place / WORK_MARK).is_file()
    assert [path.name for path in place.parent.iterdir()] == ["tree"]


def test_another_rig_makes_the_same_work_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = store_module.write_mark

    def overtaken(place: Path, value: dict[str, object]) -> None:
        monkeypatch.setattr(store_module, "write_mark", write)
        (Store(tmp_path).scratch("work", "tree") / "file").touch()
        write(place, value)

    monkeypatch.setattr(store_module, "write_mark", overtaken)
    place = Store(tmp_path).scratch("work", "tree")
    assert (place / "file").exists()
    assert [path.name for path in place.parent.iterdir()] == ["tree"]


def test_what_somebody_uses_does_not_become_another_under_his_hands(tmp_path: Path) -> None:
    """A machine that was slow takes its snapshot for damaged, and others boot from it."""
    mine, theirs = Store(tmp_path), Store(tmp_path)

    def make(directory: Path) -> None:
        (directory / "state").write_text("x")

    place = mine.publish("snapshot", "key", make)
    assert theirs.publish("snapshot", "key", make) == place
    assert not mine.discard("snapshot", "key")
    assert (place / "state").read_text() == "x"
    del theirs
    gc.collect()
    assert mine.discard("snapshot", "key")
    assert not place.exists()
    assert mine.discard("snapshot", "key")  # there is none
