#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A small event loop: generators yield calls and are resumed with their values or errors."""

import errno
import os
import sys
from collections import deque
from collections.abc import Generator, Iterable

from async_submit import NR, Call, submit, wait_for_async
from ktap import Suite, equal, true

suite = Suite()

PATIENCE_NS = 30_000_000_000

Task = Generator[Call, int, bytes]


def read(fd: int, size: int) -> Task:
    """Reads up to `size` bytes; the value of the generator is what came."""
    buffer = bytearray(size)
    length = yield submit(NR["read"], fd, buffer, size, offload=True)
    return bytes(buffer[:length])


def echo(source: int, sink: int) -> Task:
    """Copies from one descriptor to the other until the end; the value is all that passed."""
    passed = b""
    while data := (yield from read(source, 7)):
        done = 0
        while done < len(data):
            rest = data[done:]
            done += yield submit(NR["write"], sink, rest, len(rest), offload=True)
        passed += data
    os.close(sink)
    return passed


def write_all(fd: int, data: bytes) -> Task:
    """Writes and closes; the value is what was written."""
    done = 0
    while done < len(data):
        rest = data[done : done + 10]
        done += yield submit(NR["write"], fd, rest, len(rest), offload=True)
    os.close(fd)
    return data


def run(tasks: Iterable[Task]) -> list[bytes]:
    """Runs tasks to their ends; their values in the order of the tasks.

    Looks at every outstanding call in turn, and sleeps in the kernel for the oldest one when
    none has ended.
    """
    waiting: deque[tuple[int, Task, Call]] = deque()
    values: dict[int, bytes] = {}

    def resume(index: int, task: Task, ended: Call | None) -> None:
        try:
            call = next(task) if ended is None else _pass_on(task, ended)
        except StopIteration as end:
            values[index] = end.value
            return
        waiting.append((index, task, call))

    for index, task in enumerate(tasks):
        resume(index, task, None)
    while waiting:
        ended = [entry for entry in waiting if entry[2].poll()]
        if not ended:
            wait_for_some(waiting)
            continue
        waiting = deque(entry for entry in waiting if entry not in ended)
        for index, task, call in ended:
            resume(index, task, call)
    return [values[index] for index in sorted(values)]


def _pass_on(task: Task, ended: Call) -> Call:
    """Resumes a task with the value of its call, or with its error as an exception."""
    try:
        value = ended.result()
    except OSError as error:
        return task.throw(error)
    return task.send(value)


def wait_for_some(waiting: deque[tuple[int, Task, Call]]) -> None:
    """Waits a while for the first of the calls, then the next one's turn has come."""
    try:
        wait_for_async(0, waiting[0][2].cookie, 1_000_000)
    except OSError as error:
        if error.errno != errno.ETIME:
            raise
    waiting.rotate(-1)


@suite.case
def several_reads_are_reaped_in_any_order() -> None:
    pipes = [os.pipe() for _ in range(16)]
    for index in reversed(range(16)):
        os.write(pipes[index][1], b"message %d" % index)
    values = run(read(reader, 100) for reader, _ in pipes)
    equal(values, [b"message %d" % index for index in range(16)])
    for ends in pipes:
        for fd in ends:
            os.close(fd)


@suite.case
def chain_of_copies() -> None:
    text = b"all that goes in comes out, in order and once. " * 5
    pipes = [os.pipe() for _ in range(5)]
    tasks = [write_all(pipes[0][1], text)]
    tasks += [echo(pipes[i][0], pipes[i + 1][1]) for i in range(4)]
    tasks += [drain(pipes[4][0])]
    values = run(tasks)
    equal(values, [text] * 6)
    for reader, _ in pipes:
        os.close(reader)


def drain(fd: int) -> Task:
    """Reads to the end."""
    taken = b""
    while data := (yield from read(fd, 100)):
        taken += data
    return taken


@suite.case
def task_sees_the_error_of_its_call() -> None:
    def expects_it() -> Task:
        try:
            yield from read(-1, 10)
        except OSError as error:
            return errno.errorcode[error.errno or 0].encode()
        return b"none"

    equal(run([expects_it()]), [b"EBADF"])


@suite.case
def loop_runs_many_tasks() -> None:
    pipes = [os.pipe() for _ in range(40)]
    tasks = [write_all(writer, b"%d" % index * 20) for index, (_, writer) in enumerate(pipes)]
    tasks += [drain(reader) for reader, _ in pipes]
    values = run(tasks)
    true(len(values) == 80, "every task ended")
    equal(values[:40], values[40:])
    for reader, _ in pipes:
        os.close(reader)


if __name__ == "__main__":
    sys.exit(suite.run())
