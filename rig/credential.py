"""Credentials by reference: rig.toml says where a secret is, and never what it is."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from rig.config import check_reference
from rig.errors import UsageError

_HIDDEN = "..."


@dataclass(frozen=True)
class Secret:
    """A value that is not shown by accident: not in a repr, an f-string or a traceback."""

    value: str = field(repr=False)

    def __str__(self) -> str:
        return _HIDDEN

    def hidden_in(self, text: str) -> str:
        """A text for people, without it."""
        return text.replace(self.value, _HIDDEN) if self.value else text


NOTHING = Secret("")


def read(reference: str, root: Path) -> Secret:
    """The secret behind a reference; "" has none. root: where relative paths begin.

    UsageError, naming the reference, where it leads to nothing, or to a file that others may read.
    """
    check_reference(reference, "what was given")
    kind, _, rest = reference.partition(":")
    if kind == "env":
        return _from_environment(rest)
    if kind == "file":
        try:
            return _from_file(root / Path(rest).expanduser())
        except RuntimeError as error:  # ~somebody who is not there
            raise UsageError(f"file:{rest}: {error}") from error
    if kind == "keyring":
        return _from_keyring(rest)
    return NOTHING


def _from_environment(name: str) -> Secret:
    value = os.environ.get(name, "")
    if not value:
        raise UsageError(f"env:{name}: there is no ${name}", hint=f"export {name}=...")
    return Secret(value)


def _from_file(path: Path) -> Secret:
    """Its first line; the last look at its mode is at the file that is then read."""
    try:
        with path.open(encoding="utf-8") as file:
            seen = os.fstat(file.fileno())
            if stat.S_IMODE(seen.st_mode) & 0o077:
                mode = f"{stat.S_IMODE(seen.st_mode):04o}"
                raise UsageError(
                    f"file:{path}: others may read it (mode {mode})", hint=f"chmod 600 {path}"
                )
            if seen.st_uid not in (os.geteuid(), 0):
                raise UsageError(f"file:{path}: it belongs to somebody else (uid {seen.st_uid})")
            value = file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"file:{path}: {words}") from error
    if not value:
        raise UsageError(f"file:{path}: its first line is empty")
    return Secret(value)


def _from_keyring(rest: str) -> Secret:
    service, slash, user = rest.partition("/")
    if not slash or not user:
        raise UsageError(f"keyring:{rest}: whose?", hint="write keyring:SERVICE/USER")
    try:
        import keyring
    except ImportError as error:
        raise UsageError(
            f"keyring:{rest}: the keyring library is not installed",
            hint=".venv/bin/pip install keyring",
        ) from error
    try:
        value = keyring.get_password(service, user)
    except keyring.errors.KeyringError as error:
        raise UsageError(f"keyring:{rest}: {error}") from error
    if not value:
        raise UsageError(
            f"keyring:{rest}: the keyring has none", hint=f"keyring set {service} {user}"
        )
    return Secret(value)
