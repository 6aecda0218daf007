#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What asyncio pays for reads of files and pipes, by four ways, in one process and one boot.

Four ways: the call made in the loop itself, which is held up; the loop's own pool of threads; one
thread a call; and async_submit() with an eventfd that the loop watches. A line of JSON for each.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import statistics
import struct
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

READS, ROUNDS, WARM = 64, 15, 2
BYTES = 4096
ASYNC_SUBMIT, EVENTFD = 548, 1 << 2
PREAD64, READ = 17, 0

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_Args = ctypes.c_ulong * 6

Way = Callable[[int, int, int], Awaitable[int]]


class Submitter:
    """async_submit() for one loop: calls that sleep wake it by an eventfd."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = os.eventfd(0, os.EFD_NONBLOCK)
        self._waiting: dict[int, tuple[ctypes.c_long, asyncio.Future[int], object]] = {}
        loop.add_reader(self._event, self._ended)

    def submit(self, nr: int, fd: int, length: int, offset: int) -> asyncio.Future[int]:
        """The value of the call, as a future; done already where it did not sleep."""
        word, future = ctypes.c_long(0), self._loop.create_future()
        memory = ctypes.create_string_buffer(length)
        args = _Args(fd, ctypes.addressof(memory), length, offset)
        cookie = _libc.syscall(
            ctypes.c_long(ASYNC_SUBMIT),
            ctypes.c_ulong(EVENTFD | self._event << 32),
            ctypes.byref(word),
            ctypes.c_long(nr),
            args,
        )
        if cookie < 0:
            raise OSError(ctypes.get_errno(), "async_submit")
        if cookie == 0:
            future.set_result(word.value)
        else:
            self._waiting[cookie] = (word, future, memory)
        return future

    def _ended(self) -> None:
        os.read(self._event, 8)
        for cookie, (word, future, _) in list(self._waiting.items()):
            if word.value != cookie:
                del self._waiting[cookie]
                future.set_result(word.value)

    def close(self) -> None:
        """No call is outstanding any more."""
        self._loop.remove_reader(self._event)
        os.close(self._event)


def direct(nr: int, fd: int, length: int, offset: int) -> int:
    """The call itself; how many bytes it read."""
    return len(os.pread(fd, length, offset) if nr == PREAD64 else os.read(fd, length))


def in_a_thread(loop: asyncio.AbstractEventLoop, *call: int) -> asyncio.Future[int]:
    """One thread for one call."""
    future = loop.create_future()

    def run() -> None:
        loop.call_soon_threadsafe(future.set_result, direct(*call))

    threading.Thread(target=run, daemon=True).start()
    return future


async def once(start: Callable[[int], Awaitable[int]], release: Callable[[], None]) -> float:
    """Seconds for READS calls, begun together; each has to have read something."""
    began = time.perf_counter()
    started = [asyncio.ensure_future(start(number)) for number in range(READS)]
    await asyncio.sleep(0)
    release()
    values = await asyncio.gather(*started)
    took = time.perf_counter() - began
    if any(value < 1 for value in values):
        raise SystemExit(f"a read came to {min(values)}")
    return took


async def measure(
    work: str, way: str, start: Callable[[int], Awaitable[int]], release: Callable[[], None]
) -> None:
    """Print the median of the rounds, per call."""
    seconds = [await once(start, release) for _ in range(WARM + ROUNDS)][WARM:]
    row = {
        "name": f"asyncio {work}, {way}",
        "value": round(statistics.median(seconds) / READS * 1e9),
        "unit": "ns",
        "work": f"asyncio {work}",
        "model": way,
        "outstanding": READS,
        "phase": "call",
        "calls": 1,
        "rounds": ROUNDS,
    }
    sys.stdout.write(json.dumps(row) + "\n")


def has_async_submit() -> bool:
    """Whether this kernel has the series: an unknown flag is refused, not unknown."""
    _libc.syscall(ctypes.c_long(ASYNC_SUBMIT), ctypes.c_long(-1), None, 0, None)
    return ctypes.get_errno() != 38


async def main() -> None:
    """Cached reads of a file, then reads of a pipe that come to wait."""
    loop = asyncio.get_running_loop()
    path = Path("/tmp/asyncio.bench")
    path.write_bytes(bytes(BYTES * READS))
    file = os.open(path, os.O_RDONLY)
    there, back = os.pipe()

    def nothing() -> None:
        pass

    def write() -> None:
        os.write(back, bytes(READS))

    async def by_loop(nr: int, fd: int, length: int, offset: int) -> int:
        return direct(nr, fd, length, offset)

    async def by_pool(*call: int) -> int:
        return await loop.run_in_executor(None, direct, *call)

    async def by_threads(*call: int) -> int:
        return await in_a_thread(loop, *call)

    ways: dict[str, Callable[..., Awaitable[int]]] = {
        "in the loop": by_loop,
        "pool of threads": by_pool,
        "a thread each": by_threads,
    }
    submitter = Submitter(loop) if has_async_submit() else None
    if submitter:
        ways["async_submit"] = submitter.submit
    for way, start in ways.items():
        await measure(
            "pread 4 KiB",
            way,
            lambda number, start=start: start(PREAD64, file, BYTES, number * BYTES),  # type: ignore[misc]
            nothing,
        )
        if way != "in the loop":  # which would wait for itself
            await measure(
                "pipe read",
                way,
                lambda _, start=start: start(READ, there, 1, 0),
                write,  # type: ignore[misc]
            )
    if submitter:
        submitter.close()
    path.unlink()


if __name__ == "__main__":
    if struct.calcsize("l") != 8:
        sys.exit("64-bit only")
    asyncio.run(main())
