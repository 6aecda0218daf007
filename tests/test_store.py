"""The store: an entry is whole or absent, and made once."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from rig.errors import InfrastructureError
from rig.store import Store, digest


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
