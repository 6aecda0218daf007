#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Calls that do not sleep complete inline."""

import errno
import os
import sys
import tempfile
import threading
from pathlib import Path

from async_submit import NR, outstanding, submit, wait_all
from ktap import Suite, equal, raises, true

suite = Suite()


@suite.case
def value_of_a_call() -> None:
    call = submit(NR["getppid"])
    true(call.inline, "the call completed inline")
    equal(call.result(), os.getppid())


@suite.case
def error_of_a_call_is_an_oserror() -> None:
    call = submit(NR["close"], -1)
    true(call.inline, "the call completed inline")
    equal(call.wait(), -errno.EBADF)
    raises(errno.EBADF, call.result)


@suite.case
def bytearray_is_filled() -> None:
    buffer = bytearray(5)
    with tempfile.TemporaryFile() as file:
        file.write(b"hello world")
        file.flush()
        equal(submit(NR["pread64"], file.fileno(), buffer, len(buffer), 6).result(), 5)
    equal(buffer, b"world")


@suite.case
def bytes_are_written() -> None:
    reader, writer = os.pipe()
    equal(submit(NR["write"], writer, b"ping", 4).result(), 4)
    equal(os.read(reader, 10), b"ping")
    os.close(reader)
    os.close(writer)


@suite.case
def path_is_opened() -> None:
    at_cwd = -100
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "file"
        path.write_bytes(b"here")
        fd = submit(NR["openat"], at_cwd, path, os.O_RDONLY).result()
        equal(os.read(fd, 10), b"here")
        os.close(fd)
        raises(errno.ENOENT, submit(NR["openat"], at_cwd, f"{name}/none", os.O_RDONLY).result)


@suite.case
def memory_is_free_again() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x")
    buffer = bytearray(1)
    submit(NR["read"], reader, buffer, 1)
    # A bytearray that is exported cannot be resized.
    buffer.extend(b"more")
    equal(buffer, b"xmore")
    os.close(reader)
    os.close(writer)


@suite.case
def nothing_is_outstanding() -> None:
    submit(NR["getppid"])
    equal(outstanding(), [])
    wait_all(0)


@suite.case
def in_place_call_knows_its_thread() -> None:
    tids: list[tuple[int, int]] = []

    def ask() -> None:
        tids.append((submit(NR["gettid"]).result(), threading.get_native_id()))

    ask()
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    for seen, wanted in tids:
        equal(seen, wanted)
    true(tids[0] != tids[1], "two threads have two numbers")


if __name__ == "__main__":
    sys.exit(suite.run())
