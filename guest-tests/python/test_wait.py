#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Waiting for one call, for all, with time limits and with signals."""

import errno
import os
import signal
import sys
import threading
import time
from functools import partial
from types import FrameType

from async_submit import NR, Call, submit, wait_all, wait_for_async
from ktap import Suite, equal, raises, true

suite = Suite()

PATIENCE_S = 30.0


class Reader:
    """A pipe with an offloaded read of one byte."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.buffer = bytearray(1)
        self.call: Call = submit(NR["read"], self.reader, self.buffer, 1, offload=True)

    def feed(self) -> None:
        """Gives the read its byte."""
        os.write(self.writer, b"x")

    def close(self) -> None:
        """Closes both ends; a read that is still outstanding ends by that."""
        os.close(self.writer)
        self.call.wait(PATIENCE_S)
        os.close(self.reader)


@suite.case
def poll_of_an_outstanding_call_is_etime() -> None:
    one = Reader()
    raises(errno.ETIME, partial(one.call.wait, 0))
    raises(errno.ETIME, partial(wait_all, 0))
    one.feed()
    equal(one.call.wait(PATIENCE_S), 1)
    one.close()


@suite.case
def time_limit_is_kept() -> None:
    one = Reader()
    start = time.monotonic()
    raises(errno.ETIME, partial(one.call.wait, 0.05))
    true(time.monotonic() - start >= 0.05, "the wait took the time it was given")
    one.close()


@suite.case
def wait_all_is_for_each() -> None:
    readers = [Reader() for _ in range(10)]
    for one in readers[:-1]:
        one.feed()
        equal(one.call.wait(PATIENCE_S), 1)
    raises(errno.ETIME, partial(wait_all, 0))
    readers[-1].feed()
    wait_all(PATIENCE_S)
    for one in readers:
        true(one.call.poll(), "every call is final")
        equal(one.buffer, b"x")
        one.close()


@suite.case
def wait_all_with_nothing_outstanding() -> None:
    wait_all()
    wait_all(0)


@suite.case
def ended_call_is_waited_for_again() -> None:
    one = Reader()
    one.feed()
    equal(one.call.wait(PATIENCE_S), 1)
    equal(wait_for_async(0, one.call.cookie, 0), 0)
    equal(wait_for_async(0, one.call.cookie), 0)
    one.close()


@suite.case
def wait_goes_on_after_a_signal() -> None:
    one = Reader()
    seen: list[int] = []

    def feed_at_the_third(number: int, _frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) == 3:
            one.feed()

    previous = signal.signal(signal.SIGUSR1, feed_at_the_third)
    try:
        signaller = threading.Thread(target=signal_until_ended, args=(one.call,))
        signaller.start()
        equal(one.call.wait(PATIENCE_S), 1)
        signaller.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    true(len(seen) >= 3, "the handler ran while the wait went on")
    one.close()


def signal_until_ended(call: Call) -> None:
    """Sends the main thread signals as long as the call is outstanding."""
    while not call.poll():
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        os.sched_yield()


@suite.case
def interrupted_wait_is_eintr() -> None:
    one = Reader()
    failure: list[OSError] = []
    previous = signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    stop = threading.Event()

    def interrupt() -> None:
        while not stop.is_set():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            os.sched_yield()

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    try:
        wait_for_async(0, one.call.cookie, int(PATIENCE_S * 1e9))
    except OSError as error:
        failure.append(error)
    finally:
        stop.set()
        interrupter.join()
        signal.signal(signal.SIGUSR1, previous)
    equal([error.errno for error in failure], [errno.EINTR])
    true(not one.call.poll(), "the call is still outstanding")
    one.feed()
    equal(one.call.wait(PATIENCE_S), 1)
    one.close()


if __name__ == "__main__":
    sys.exit(suite.run())
