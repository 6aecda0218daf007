#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Offloaded calls: outstanding until their event, then final."""

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from async_submit import NR, is_pending, outstanding, submit
from ktap import Suite, equal, raises, true

suite = Suite()

PATIENCE_S = 30.0


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """The two ends of a pipe, closed at the end."""
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


@suite.case
def read_of_a_pipe() -> None:
    buffer = bytearray(16)
    with pipe() as (reader, writer):
        call = submit(NR["read"], reader, buffer, len(buffer), offload=True)
        true(not call.inline, "the call has a cookie")
        equal(call.word, call.cookie)
        true(not call.poll(), "the call is outstanding")
        os.write(writer, b"hello")
        equal(call.result(PATIENCE_S), 5)
    equal(bytes(buffer[:5]), b"hello")
    true(call.poll(), "the call has ended")


@suite.case
def write_into_a_full_pipe() -> None:
    with pipe() as (reader, writer):
        os.set_blocking(writer, False)
        filled = 0
        with_room = True
        while with_room:
            try:
                filled += os.write(writer, bytes(4096))
            except BlockingIOError:
                with_room = False
        os.set_blocking(writer, True)
        call = submit(NR["write"], writer, b"tail", 4, offload=True)
        true(not call.poll(), "the write waits")
        while filled:
            filled -= len(os.read(reader, min(filled, 65536)))
        equal(call.result(PATIENCE_S), 4)
        equal(os.read(reader, 10), b"tail")


@suite.case
def cookie_has_its_form_and_is_never_the_same() -> None:
    cookies = set()
    for _ in range(200):
        call = submit(NR["getppid"], offload=True)
        true(is_pending(call.cookie), "bit 62 without bit 63")
        cookies.add(call.cookie)
        equal(call.result(PATIENCE_S), os.getppid())
    equal(len(cookies), 200)


@suite.case
def error_of_the_call() -> None:
    call = submit(NR["close"], -1, offload=True)
    equal(call.wait(PATIENCE_S), -errno.EBADF)
    raises(errno.EBADF, call.result)


@suite.case
def value_like_a_cookie_is_eoverflow() -> None:
    far = (1 << 62) + 5
    with os.fdopen(os.memfd_create("sparse"), "rb") as file:
        call = submit(NR["lseek"], file.fileno(), far, os.SEEK_SET, offload=True)
        equal(call.wait(PATIENCE_S), -errno.EOVERFLOW)
        inline = submit(NR["lseek"], file.fileno(), far, os.SEEK_SET)
        equal(inline.wait(PATIENCE_S), far)


@suite.case
def file_is_synced() -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"data")
        file.flush()
        equal(submit(NR["fsync"], file.fileno(), offload=True).result(PATIENCE_S), 0)


@suite.case
def closed_pipe_is_at_its_end() -> None:
    for _ in range(50):
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        call = submit(NR["close"], writer, offload=True)
        while not call.poll():
            os.sched_yield()
        equal(os.read(reader, 1), b"")
        os.close(reader)


@suite.case
def ended_calls_are_forgotten() -> None:
    call = submit(NR["getppid"], offload=True)
    call.wait(PATIENCE_S)
    equal(outstanding(), [])


if __name__ == "__main__":
    sys.exit(suite.run())
