#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What is refused raises OSError with the right errno, and nothing ran."""

import ctypes
import errno
import os
import sys
from functools import partial

from async_submit import (
    ASYNC_SUBMIT_OFFLOAD,
    NR,
    async_cancel,
    async_submit,
    is_pending,
    outstanding,
    submit,
    wait_for_async,
)
from ktap import Suite, equal, raises, true

suite = Suite()

UNTOUCHED = 0x0123456789ABCDEF
UNKNOWN_FLAG = 1 << 31
ARGS = (ctypes.c_ulong * 6)()


def refused(number: int, flags: int, nr: int, args: int) -> None:
    """Checks the error and that the result word did not change."""
    word = ctypes.c_long(UNTOUCHED)
    raises(number, partial(async_submit, flags, ctypes.addressof(word), nr, args))
    equal(word.value, UNTOUCHED)


@suite.case
def unknown_flag_is_einval() -> None:
    refused(errno.EINVAL, UNKNOWN_FLAG, NR["getppid"], ctypes.addressof(ARGS))


@suite.case
def no_system_call_is_enosys() -> None:
    equal(submit(NR["getppid"]).wait(), os.getppid())
    for number in (-1, 511, 4096, 1 << 32):
        refused(errno.ENOSYS, 0, number, ctypes.addressof(ARGS))
        raises(errno.ENOSYS, partial(submit, number))


@suite.case
def refused_call_is_eopnotsupp() -> None:
    for name in ("exit", "exit_group"):
        refused(errno.EOPNOTSUPP, 0, NR[name], ctypes.addressof(ARGS))
        raises(errno.EOPNOTSUPP, partial(submit, NR[name], 99))


@suite.case
def offloaded_in_place_call_is_eopnotsupp() -> None:
    refused(errno.EOPNOTSUPP, ASYNC_SUBMIT_OFFLOAD, NR["gettid"], ctypes.addressof(ARGS))


@suite.case
def unreadable_arguments_are_efault() -> None:
    refused(errno.EFAULT, 0, NR["getppid"], 0)
    refused(errno.EFAULT, ASYNC_SUBMIT_OFFLOAD, NR["getppid"], 0)


@suite.case
def unwritable_result_is_efault() -> None:
    for flags in (0, ASYNC_SUBMIT_OFFLOAD):
        raises(
            errno.EFAULT,
            partial(async_submit, flags, 0, NR["getppid"], ctypes.addressof(ARGS)),
        )


@suite.case
def refused_submission_keeps_no_memory() -> None:
    buffer = bytearray(8)
    raises(errno.EOPNOTSUPP, partial(submit, NR["exit"], buffer))
    raises(errno.ENOSYS, partial(submit, -1, buffer))
    buffer.extend(b"resized")
    equal(outstanding(), [])


@suite.case
def foreign_cookie_is_einval() -> None:
    cookie = submit(NR["getppid"], offload=True).cookie
    for wrong in (-1, 1, cookie + 1000, cookie & ~(1 << 62)):
        raises(errno.EINVAL, partial(wait_for_async, 0, wrong, 0))
        raises(errno.EINVAL, partial(async_cancel, 0, wrong))


@suite.case
def wait_refuses_unknown_flags() -> None:
    raises(errno.EINVAL, partial(wait_for_async, UNKNOWN_FLAG, 0, 0))


@suite.case
def pending_is_told_by_two_bits() -> None:
    true(is_pending(1 << 62), "the smallest cookie")
    true(is_pending((1 << 63) - 1), "the largest cookie")
    for value in (0, 1, (1 << 62) - 1, -1, -(1 << 63), -(1 << 62)):
        true(not is_pending(value), f"{value} is a value")


if __name__ == "__main__":
    sys.exit(suite.run())
