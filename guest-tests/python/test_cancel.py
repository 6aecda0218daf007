#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Cancelled calls end with ECANCELED, or with what they had done."""

import ctypes
import errno
import os
import select
import socket
import sys
from functools import partial

from async_submit import NR, Call, async_cancel, submit
from ktap import Suite, equal, raises, true

suite = Suite()

PATIENCE_S = 30.0
NEVER = (ctypes.c_char * 16).from_buffer_copy((1_000_000).to_bytes(8, "little") + bytes(8))


def ends_cancelled(call: Call) -> None:
    """Cancels an outstanding call and checks how it ends."""
    true(not call.poll(), "the call is outstanding")
    true(call.cancel(), "the request was delivered")
    equal(call.wait(PATIENCE_S), -errno.ECANCELED)
    raises(errno.ECANCELED, call.result)


@suite.case
def read_of_a_pipe() -> None:
    reader, writer = os.pipe()
    ends_cancelled(submit(NR["read"], reader, bytearray(1), 1, offload=True))
    # No data was taken, and the next read is not cancelled.
    call = submit(NR["read"], reader, bytearray(1), 1, offload=True)
    os.write(writer, b"x")
    equal(call.result(PATIENCE_S), 1)
    os.close(reader)
    os.close(writer)


@suite.case
def sleep() -> None:
    ends_cancelled(submit(NR["nanosleep"], NEVER, None, offload=True))


@suite.case
def poll_without_limit() -> None:
    reader, writer = os.pipe()
    entry = bytearray(reader.to_bytes(4, "little") + select.POLLIN.to_bytes(4, "little"))
    ends_cancelled(submit(NR["ppoll"], entry, 1, None, None, offload=True))
    os.close(reader)
    os.close(writer)


@suite.case
def receive_and_accept() -> None:
    left, right = socket.socketpair()
    with left, right:
        ends_cancelled(submit(NR["recvfrom"], left.fileno(), bytearray(8), 8, offload=True))
    with socket.socket(socket.AF_UNIX) as listener:
        # An empty name: the kernel finds a free one.
        listener.bind("")
        listener.listen()
        ends_cancelled(submit(NR["accept4"], listener.fileno(), None, None, 0, offload=True))


@suite.case
def ended_call_cannot_be_cancelled() -> None:
    call = submit(NR["getppid"], offload=True)
    equal(call.result(PATIENCE_S), os.getppid())
    true(not call.cancel(), "there is nothing to cancel")
    raises(errno.ENOENT, partial(async_cancel, 0, call.cookie))


@suite.case
def one_of_many() -> None:
    pipes = [os.pipe() for _ in range(8)]
    calls = [submit(NR["read"], reader, bytearray(1), 1, offload=True) for reader, _ in pipes]
    ends_cancelled(calls[3])
    for index, (call, (_, writer)) in enumerate(zip(calls, pipes, strict=True)):
        if index != 3:
            true(not call.poll(), "the other calls are outstanding")
            os.write(writer, b"x")
            equal(call.result(PATIENCE_S), 1)
    for ends in pipes:
        for fd in ends:
            os.close(fd)


@suite.case
def cancel_or_data_but_not_both() -> None:
    reader, writer = os.pipe()
    for _ in range(200):
        buffer = bytearray(1)
        call = submit(NR["read"], reader, buffer, 1, offload=True)
        os.write(writer, b"x")
        call.cancel()
        value = call.wait(PATIENCE_S)
        true(value in (1, -errno.ECANCELED), f"{value} is one of the two outcomes")
        if value < 0:
            equal(os.read(reader, 1), b"x")
    os.close(reader)
    os.close(writer)


if __name__ == "__main__":
    sys.exit(suite.run())
