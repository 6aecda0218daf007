#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Memory, forks and exits with calls outstanding."""

import errno
import gc
import os
import select
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from async_submit import NR, async_cancel, outstanding, submit, wait_all, wait_for_async
from ktap import Suite, equal, raises, true

suite = Suite()

PATIENCE_S = 30.0


def status_of(work: Callable[[], int]) -> int:
    """Runs `work` in a forked child; its exit code, or the signal that ended it, negative."""
    child = os.fork()
    if child == 0:
        code = 125
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def has_no_reader(writer: int) -> bool:
    """Whether nobody holds the other end of the pipe any more."""
    poll = select.poll()
    poll.register(writer, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


@suite.case
def forgotten_call_keeps_its_memory() -> None:
    reader, writer = os.pipe()
    for _ in range(50):
        submit(NR["read"], reader, bytearray(4096), 4096, offload=True)
    gc.collect()
    equal(len(outstanding()), 50)
    # Memory that would be used for the next objects if it had been let go.
    others = [bytearray(4096) for _ in range(200)]
    os.close(writer)
    wait_all(PATIENCE_S)
    true(all(not any(other) for other in others), "nothing was written into other objects")
    equal(outstanding(), [])
    os.close(reader)


@suite.case
def buffer_cannot_be_resized_while_outstanding() -> None:
    reader, writer = os.pipe()
    buffer = bytearray(4)
    call = submit(NR["read"], reader, buffer, len(buffer), offload=True)
    try:
        buffer.extend(b"x")
    except BufferError:
        refused = True
    else:
        refused = False
    true(refused, "a bytearray in use refuses to grow")
    os.write(writer, b"abcd")
    equal(call.result(PATIENCE_S), 4)
    buffer.extend(b"e")
    equal(buffer, b"abcde")
    os.close(reader)
    os.close(writer)


@suite.case
def child_has_no_calls() -> None:
    reader, writer = os.pipe()
    call = submit(NR["read"], reader, bytearray(1), 1, offload=True)

    def child() -> int:
        equal(outstanding(), [])
        raises(errno.EINVAL, partial(wait_for_async, 0, call.cookie, 0))
        raises(errno.EINVAL, partial(async_cancel, 0, call.cookie))
        wait_all(0)
        own = submit(NR["getpid"], offload=True)
        equal(own.result(PATIENCE_S), os.getpid())
        true(own.cookie != call.cookie, "the child has cookies of its own")
        return 0

    equal(status_of(child), 0)
    true(not call.poll(), "the parent's call is still outstanding")
    os.write(writer, b"x")
    equal(call.result(PATIENCE_S), 1)
    os.close(reader)
    os.close(writer)


@suite.case
def exit_with_calls_outstanding() -> None:
    reader, writer = os.pipe()

    def child() -> int:
        os.close(writer)
        for _ in range(5):
            submit(NR["read"], reader, bytearray(1), 1, offload=True)
        return 7

    equal(status_of(child), 7)
    os.close(reader)
    true(has_no_reader(writer), "the child's calls are gone")
    os.close(writer)


@suite.case
def kill_with_calls_outstanding() -> None:
    reader, writer = os.pipe()

    def child() -> int:
        os.close(writer)
        for _ in range(5):
            submit(NR["read"], reader, bytearray(1), 1, offload=True)
        os.kill(os.getpid(), signal.SIGKILL)
        return 1

    equal(status_of(child), -signal.SIGKILL)
    os.close(reader)
    true(has_no_reader(writer), "the child's calls are gone")
    os.close(writer)


LEAVES_CALLS_BEHIND = """
import os, sys
from async_submit import NR, submit
reader, writer = os.pipe()
for _ in range(20):
    submit(NR["read"], reader, bytearray(10000), 10000, offload=True)
sys.exit(5)
"""


@suite.case
def interpreter_ends_with_calls_outstanding() -> None:
    here = str(Path(__file__).resolve().parent)
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", LEAVES_CALLS_BEHIND],
        {**os.environ, "PYTHONPATH": here},
    )
    equal(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 5)


@suite.case
def exec_with_calls_outstanding() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)

    def child() -> int:
        submit(NR["read"], reader, bytearray(1), 1, offload=True)
        # The new program reads the byte that the old one's call must not take any more.
        program = f"import os; os._exit(os.read({reader}, 1)[0])"
        os.execv(sys.executable, [sys.executable, "-c", program])
        return 1

    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(125)
    feed_after_exec(pid, writer)
    equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 42)
    os.close(reader)
    os.close(writer)


def feed_after_exec(pid: int, writer: int) -> None:
    """Writes the byte once the child runs its new program."""
    while b"os._exit" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        os.sched_yield()
    os.write(writer, bytes([42]))


if __name__ == "__main__":
    sys.exit(suite.run())
