"""QEMU's monitor, with a test at the far end of the line: in order, in time, nothing lost."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rig.errors import InfrastructureError
from rig.machine.qmp import Monitor

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 5}}, "capabilities": []}}


class Far:
    """QEMU's end of the line: heard are the commands it got, files what came with them."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.heard: list[dict[str, Any]] = []
        self.files: list[int] = []
        self._unread = ""

    def say(self, *objects: object) -> None:
        self.line.sendall(b"".join(json.dumps(one).encode() + b"\r\n" for one in objects))

    def hear(self) -> dict[str, Any]:
        """The next command; the library ends them with no newline."""
        while True:
            with contextlib.suppress(ValueError):
                command, size = json.JSONDecoder().raw_decode(self._unread)
                self._unread = self._unread[size:]
                self.heard.append(command)
                return self.heard[-1]
            chunk, ancillary, _, _ = self.line.recvmsg(65536, 64)
            assert chunk, "the monitor hung up"
            for _, _, data in ancillary:
                self.files.extend(array.array("i", data))
            self._unread = (self._unread + chunk.decode()).lstrip()

    def answer(self, **reply: object) -> None:
        """Answer one command, with {"return": {}} where nothing else is said."""
        asked = self.hear()  # the first one, qmp_capabilities, has no number
        self.say({**(reply or {"return": {}}), **({"id": asked["id"]} if "id" in asked else {})})


Serve = Callable[[Far], None]
Start = Callable[[Serve], tuple[Far, Monitor]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Greets a monitor whose far end then does as it is told, in a thread of its own."""
    with contextlib.ExitStack() as stack:

        def begin(serve: Serve) -> tuple[Far, Monitor]:
            near, other = (stack.enter_context(one) for one in socket.socketpair())
            other.settimeout(10)
            far = Far(other)

            def talk() -> None:
                far.say(GREETING)
                far.answer()
                serve(far)

            thread = threading.Thread(target=talk, daemon=True)
            thread.start()
            stack.callback(thread.join, 10)
            monitor = Monitor(near, timeout_s=2.0)
            stack.callback(monitor.close)
            return far, monitor

        yield begin


def hang_up(far: Far) -> None:
    far.line.shutdown(socket.SHUT_RDWR)


def test_a_command_and_the_events_around_it(start: Start) -> None:
    def serve(far: Far) -> None:
        number = far.hear()["id"]
        far.say({"event": "STOP"}, {"return": "yes", "id": number}, {"event": "RESUME"})
        far.answer()

    far, monitor = start(serve)
    assert monitor.version == (7, 2, 5)
    assert monitor.command("one", key="value") == "yes"
    monitor.command("two")  # until it is answered, all that came before has been read
    assert monitor.events() == ["STOP", "RESUME"]
    assert monitor.events() == []
    assert far.heard[1]["arguments"] == {"key": "value"}


def test_a_refusal_is_an_error(start: Start) -> None:
    error = {"class": "GenericError", "desc": "no such thing"}
    _, monitor = start(lambda far: far.answer(error=error))
    with pytest.raises(InfrastructureError, match="refused a command: no such thing"):
        monitor.command("one")


def test_silence_has_an_end(start: Start) -> None:
    _, monitor = start(Far.hear)  # type: ignore[arg-type]
    with pytest.raises(InfrastructureError, match="did not answer in 2 s"):
        monitor.command("one")


def test_the_state_is_loaded_from_the_inherited_file(start: Start) -> None:
    def serve(far: Far) -> None:
        far.answer()
        far.answer()
        far.say({"event": "MIGRATION", "data": {"status": "completed"}}, {"event": "RESUME"})

    far, monitor = start(serve)
    monitor.load(7, 5.0)
    assert [one["execute"] for one in far.heard[1:]] == [
        *("migrate-set-capabilities", "migrate-incoming")
    ]
    wanted = far.heard[1]["arguments"]["capabilities"]
    assert wanted == [{"capability": "x-ignore-shared", "state": True}]
    assert far.heard[2]["arguments"] == {"uri": "fd:7"}
    assert monitor.events() == ["MIGRATION"]  # no news is lost


def test_a_qemu_that_cannot_load_its_state_is_not_waited_for(start: Start) -> None:
    def serve(far: Far) -> None:
        far.answer()
        far.answer()
        hang_up(far)

    _, monitor = start(serve)
    began = time.monotonic()
    with pytest.raises(InfrastructureError, match="went away"):
        monitor.load(7, 60.0)
    assert time.monotonic() - began < 20


def test_a_qemu_that_goes_at_once_is_not_waited_for_either(start: Start) -> None:
    def serve(far: Far) -> None:
        far.hear()
        hang_up(far)

    _, monitor = start(serve)
    for _ in range(2):
        with pytest.raises(InfrastructureError, match="went away"):
            monitor.load(7, 60.0)


def test_a_state_that_is_never_loaded_has_a_deadline(start: Start) -> None:
    def serve(far: Far) -> None:
        far.answer()
        far.answer()

    _, monitor = start(serve)
    with pytest.raises(InfrastructureError, match="did not answer in 0 s"):
        monitor.load(7, 0.3)


def test_saving_hands_over_the_file_and_waits_for_the_end(start: Start) -> None:
    def serve(far: Far) -> None:
        for _ in range(3):
            far.answer()
        for status in ("setup", "active", "completed"):
            far.say({"event": "MIGRATION", "data": {"status": status}})

    far, monitor = start(serve)
    with tempfile.TemporaryFile() as file:
        monitor.save(file.fileno(), 5.0)
        (handed,) = far.files
        assert os.path.sameopenfile(handed, file.fileno())
        os.close(handed)
    assert [one["execute"] for one in far.heard[2:]] == ["getfd", "migrate"]
    assert far.heard[3]["arguments"] == {"uri": "fd:state"}


def test_a_failed_save_says_why(start: Start) -> None:
    def serve(far: Far) -> None:
        for _ in range(3):
            far.answer()
        far.say({"event": "MIGRATION", "data": {"status": "failed"}})
        far.answer(**{"return": {"error-desc": "the disk is full"}})

    _, monitor = start(serve)
    with (
        tempfile.TemporaryFile() as file,
        pytest.raises(InfrastructureError, match="migrate failed: the disk is full"),
    ):
        monitor.save(file.fileno(), 5.0)
