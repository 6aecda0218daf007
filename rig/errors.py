"""Who must act when something fails: each error has message, hint, output and exit code."""

from __future__ import annotations

from typing import ClassVar


class RigError(Exception):
    """A failure the rig understands.

    message: one line, what was wrong and where.
    hint: what the reader can do about it, or "".
    output: text a person needs to see (a compiler's words, the end of a console), or "".
    reproduce: the one shell command that shows the failure again, or "".
    """

    exit_code: ClassVar[int] = 3

    def __init__(
        self, message: str, *, hint: str = "", output: str = "", reproduce: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.output = output
        self.reproduce = reproduce


class CrashError(RigError):
    """The kernel crashed, and its console has the splat (exit 1)."""

    exit_code = 1


class UsageError(RigError):
    """The command line or rig.toml asks for something that cannot be (exit 2)."""

    exit_code = 2


class InfrastructureError(RigError):
    """Our side: host, network, a missing tool, QEMU's binary, a key, the disk (exit 3)."""

    exit_code = 3


class BuildError(RigError):
    """A patch does not apply, a config symbol was dropped, or it does not compile (exit 4)."""

    exit_code = 4


class BootError(RigError):
    """The kernel did not reach login (exit 5)."""

    exit_code = 5


class HangError(BootError):
    """It went silent on its way to login.

    heard: how many bytes of its console it had said by itself, before it was asked what it does.
    """

    def __init__(
        self, message: str, *, hint: str = "", output: str = "", reproduce: str = "", heard: int = 0
    ) -> None:
        super().__init__(message, hint=hint, output=output, reproduce=reproduce)
        self.heard = heard


class LostMachineError(RigError):
    """The machine went away with no splat to explain it (exit 6)."""

    exit_code = 6
