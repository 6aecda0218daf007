# SPDX-License-Identifier: GPL-2.0
"""Python binding of the system calls async_submit, wait_for_async and async_cancel.

    call = submit(NR["read"], fd, buffer, len(buffer), offload=True)
    ...
    length = call.result(timeout_s=5)

While a call is outstanding the kernel may read and write the memory its arguments point to, and
will write its result word. A `Call` therefore keeps all of it alive, and this module keeps the
`Call` alive until it has ended, whether or not the program still knows it.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import os
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType

NR_ASYNC_SUBMIT = 548
NR_WAIT_FOR_ASYNC = 549
NR_ASYNC_CANCEL = 550

ASYNC_SUBMIT_OFFLOAD = 1 << 0
ASYNC_SUBMIT_QUEUE = 1 << 1
ASYNC_SUBMIT_EVENTFD = 1 << 2
ASYNC_SUBMIT_CQE = 1 << 3
ASYNC_WAIT_ANY = 1 << 0

EXIT_PATIENCE_S = 2.0
"""Time the exit of the interpreter gives cancelled calls to end."""

_X86_64 = {
    "read": 0, "write": 1, "close": 3, "lseek": 8, "pread64": 17, "nanosleep": 35, "getpid": 39,
    "recvfrom": 45, "exit": 60, "fsync": 74, "getppid": 110, "gettid": 186, "futex": 202,
    "exit_group": 231, "openat": 257, "ppoll": 271, "accept4": 288,
}  # fmt: skip
_GENERIC = {
    "read": 63, "write": 64, "close": 57, "lseek": 62, "pread64": 67, "nanosleep": 101,
    "getpid": 172, "recvfrom": 207, "exit": 93, "fsync": 82, "getppid": 173, "gettid": 178,
    "futex": 98, "exit_group": 94, "openat": 56, "ppoll": 73, "accept4": 242,
}  # fmt: skip

NR: Mapping[str, int] = MappingProxyType(_X86_64 if os.uname().machine == "x86_64" else _GENERIC)
"""Numbers of the system calls used here, by name (arch/x86/.../syscall_64.tbl and syscall.tbl)."""

Argument = int | bytes | bytearray | str | os.PathLike[str] | ctypes.Array[ctypes.c_char] | None
"""What a call may be given: a number, memory to read or write, a path, or a null pointer."""


class _Timespec(ctypes.Structure):
    """struct __kernel_timespec."""

    _fields_ = (("tv_sec", ctypes.c_longlong), ("tv_nsec", ctypes.c_longlong))


_Args = ctypes.c_ulong * 6

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _system_call(number: int, *args: int) -> int:
    """Makes a system call; raises OSError with its error number."""
    value = int(_libc.syscall(ctypes.c_long(number), *(ctypes.c_long(arg) for arg in args)))
    if value == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return value


def is_pending(word: int) -> bool:
    """Tells whether a result word holds a cookie: bit 63 clear, bit 62 set (ASYNC_PENDING)."""
    return (word >> 62) & 3 == 1


def async_submit(flags: int, result: int, number: int, args: int) -> int:
    """The system call itself; `result` and `args` are addresses. A cookie, or 0 if complete."""
    return _system_call(NR_ASYNC_SUBMIT, flags, result, number, args)


def wait_for_async(flags: int, cookie: int, timeout_ns: int | None = None) -> int:
    """The system call itself: waits for one call, or with cookie 0 for all; None is for ever."""
    if timeout_ns is None:
        return _system_call(NR_WAIT_FOR_ASYNC, flags, cookie, 0)
    limit = _Timespec(timeout_ns // 1_000_000_000, timeout_ns % 1_000_000_000)
    return _system_call(NR_WAIT_FOR_ASYNC, flags, cookie, ctypes.addressof(limit))


def async_cancel(flags: int, cookie: int) -> int:
    """The system call itself: asks for the end of a call."""
    return _system_call(NR_ASYNC_CANCEL, flags, cookie)


def _wait(cookie: int, timeout_s: float | None) -> None:
    """Waits on through interruptions; signal handlers run in between and may raise."""
    end_ns = None if timeout_s is None else time.monotonic_ns() + int(timeout_s * 1e9)
    while True:
        left_ns = None if end_ns is None else max(0, end_ns - time.monotonic_ns())
        try:
            wait_for_async(0, cookie, left_ns)
        except InterruptedError:
            continue
        return


def _as_register(argument: Argument) -> tuple[int, object]:
    """The value that goes into the register, and the object that must live as long as the call."""
    if argument is None:
        return 0, None
    if isinstance(argument, int):
        return argument & 0xFFFF_FFFF_FFFF_FFFF, None
    if isinstance(argument, str | os.PathLike):
        argument = os.fsencode(argument)
    if isinstance(argument, bytes):
        # A bytes object ends with a zero of its own and is not moved.
        pointer = ctypes.c_char_p(argument)
        return ctypes.cast(pointer, ctypes.c_void_p).value or 0, (argument, pointer)
    if isinstance(argument, bytearray):
        # The export keeps the bytearray from being resized.
        export = (ctypes.c_char * len(argument)).from_buffer(argument)
        return ctypes.addressof(export), export
    return ctypes.addressof(argument), argument


class Call:
    """One system call that was submitted; made by `submit`."""

    def __init__(self, flags: int, number: int, args: Iterable[Argument]) -> None:
        """Submits the call; raises OSError if it is refused, and then nothing ran."""
        registers = [_as_register(arg) for arg in args]
        self._memory: list[object] = [owner for _, owner in registers]
        self._word = ctypes.c_long(0)
        self._final: int | None = None
        self._submitted = False
        self.cookie = 0
        values = _Args(*(value for value, _ in registers))
        # Known before it can be outstanding: a signal handler may raise at any later point.
        _alive.add(self)
        try:
            self.cookie = async_submit(
                flags, ctypes.addressof(self._word), number, ctypes.addressof(values)
            )
        except OSError:
            _alive.discard(self)
            raise
        self._submitted = True
        if not self.cookie:
            self._end()

    def _end(self) -> int:
        """Takes the final value and lets go of the memory the call used."""
        self._final = self._word.value
        self._memory.clear()
        _alive.discard(self)
        return self._final

    @property
    def word(self) -> int:
        """What the result word holds now: the cookie or the final value."""
        return self._word.value

    @property
    def inline(self) -> bool:
        """Whether the call was complete when async_submit returned."""
        return self.cookie == 0

    def poll(self) -> bool:
        """Tells whether the call has ended; does not wait."""
        if self._final is not None:
            return True
        if not self._submitted or is_pending(self._word.value):
            return False
        # Python has no acquire load. The wait is one, and does not wait: the word is final.
        wait_for_async(0, self.cookie, 0)
        self._end()
        return True

    def wait(self, timeout_s: float | None = None) -> int:
        """Waits for the end; the raw value, an error as a negative number.

        Raises OSError with ETIME if the call has not ended after the timeout.
        """
        if self._final is not None:
            return self._final
        _wait(self.cookie, timeout_s)
        return self._end()

    def result(self, timeout_s: float | None = None) -> int:
        """Waits for the end as `wait` does; raises OSError if the call failed."""
        value = self.wait(timeout_s)
        if -4096 < value < 0:
            raise OSError(-value, os.strerror(-value))
        return value

    def cancel(self) -> bool:
        """Asks for the end of the call; False if it had ended already."""
        if self._final is not None:
            return False
        try:
            async_cancel(0, self.cookie)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True


_alive: set[Call] = set()


def submit(number: int, *args: Argument, offload: bool = False) -> Call:
    """Submits a system call by number, `NR[name]`, with up to six arguments.

    With `offload` a worker runs it and the `Call` is outstanding; else it is complete on return,
    or outstanding if it had to sleep. Raises OSError if it is refused; nothing ran then.
    """
    outstanding()
    return Call(ASYNC_SUBMIT_OFFLOAD if offload else 0, number, args)


def outstanding() -> list[Call]:
    """The calls that have not ended; lets go of the memory of those that have."""
    return [call for call in list(_alive) if not call.poll()]


def wait_all(timeout_s: float | None = None) -> None:
    """Waits for every call outstanding at entry; raises OSError with ETIME after the timeout."""
    _wait(0, timeout_s)
    outstanding()


def _end_all() -> None:
    """Before the interpreter frees its memory: no call may write there any more."""
    calls = outstanding()
    if not calls:
        return
    for call in calls:
        call.cancel()
    try:
        wait_all(EXIT_PATIENCE_S)
    except OSError as error:
        if error.errno != errno.ETIME:
            raise
    for call in outstanding():
        # It sleeps where nothing can wake it. Its memory must not be used for anything else.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(call))


# The parent's calls are not the child's: nobody writes into its copy of their memory.
os.register_at_fork(after_in_child=_alive.clear)
atexit.register(_end_all)
