#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Threads submit, wait and cancel side by side."""

import errno
import os
import queue
import sys
import threading
from collections.abc import Callable

from async_submit import NR, Call, submit, wait_all
from ktap import Suite, equal, true

suite = Suite()

PATIENCE_S = 30.0
THREADS = 6


def in_threads(work: Callable[[int], None]) -> None:
    """Runs `work(index)` in several threads; the first exception of one becomes this one's."""
    failures: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def guarded(index: int) -> None:
        try:
            work(index)
        except (AssertionError, OSError) as error:
            failures.put(error)

    threads = [threading.Thread(target=guarded, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        true(not thread.is_alive(), "the thread has ended")
    if not failures.empty():
        raise failures.get()


@suite.case
def each_thread_reads_its_own_pipe() -> None:
    def work(index: int) -> None:
        reader, writer = os.pipe()
        for turn in range(20):
            message = f"{index}/{turn}".encode()
            buffer = bytearray(16)
            call = submit(NR["read"], reader, buffer, len(buffer), offload=True)
            os.write(writer, message)
            equal(call.result(PATIENCE_S), len(message))
            equal(bytes(buffer[: len(message)]), message)
        os.close(reader)
        os.close(writer)

    in_threads(work)


@suite.case
def one_thread_submits_another_waits() -> None:
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    reader, writer = os.pipe()

    def submits() -> None:
        for _ in range(10):
            calls.put(submit(NR["read"], reader, bytearray(1), 1, offload=True))

    submitter = threading.Thread(target=submits)
    submitter.start()
    # Calls outlive the thread that submitted them.
    submitter.join()
    os.write(writer, bytes(10))
    for _ in range(10):
        equal(calls.get_nowait().result(PATIENCE_S), 1)
    os.close(reader)
    os.close(writer)


@suite.case
def all_wait_for_one_call() -> None:
    reader, writer = os.pipe()
    call = submit(NR["read"], reader, bytearray(1), 1, offload=True)
    gate = threading.Barrier(THREADS)

    def work(index: int) -> None:
        gate.wait(PATIENCE_S)
        if index == 0:
            os.write(writer, b"x")
        equal(call.wait(PATIENCE_S), 1)

    in_threads(work)
    os.close(reader)
    os.close(writer)


@suite.case
def cookies_of_threads_differ() -> None:
    cookies: queue.SimpleQueue[int] = queue.SimpleQueue()

    def work(_index: int) -> None:
        for _ in range(50):
            call = submit(NR["getppid"], offload=True)
            equal(call.result(PATIENCE_S), os.getppid())
            cookies.put(call.cookie)

    in_threads(work)
    equal(len({cookies.get_nowait() for _ in range(THREADS * 50)}), THREADS * 50)


@suite.case
def inline_and_offloaded_calls_mix() -> None:
    def work(_index: int) -> None:
        for _ in range(50):
            equal(submit(NR["gettid"]).result(), threading.get_native_id())
            equal(submit(NR["getpid"], offload=True).result(PATIENCE_S), os.getpid())

    in_threads(work)
    wait_all(PATIENCE_S)


@suite.case
def another_thread_cancels() -> None:
    reader, writer = os.pipe()
    call = submit(NR["read"], reader, bytearray(1), 1, offload=True)
    thread = threading.Thread(target=call.cancel)
    thread.start()
    thread.join()
    equal(call.wait(PATIENCE_S), -errno.ECANCELED)
    os.close(reader)
    os.close(writer)


if __name__ == "__main__":
    sys.exit(suite.run())
