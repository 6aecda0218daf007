"""A host that one can log in to by ssh, on loopback: paramiko's server, running commands here."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko

from rig import process


class _Guest(paramiko.ServerInterface):
    """One who logs in: with this key and no other; commands are run by a shell."""

    def __init__(self, key: paramiko.PKey) -> None:
        self._key = key

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        same = key == self._key
        return paramiko.common.AUTH_SUCCESSFUL if same else paramiko.common.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_env_request(
        self, channel: paramiko.Channel, name: bytes, value: bytes
    ) -> bool:
        return True

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=_run, args=(channel, command.decode()), daemon=True).start()
        return True


def _run(channel: paramiko.Channel, command: str) -> None:
    """Its input ends where the connection does, as a shell's does under sshd."""
    started = process.spawn(
        ["sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert started.stdin is not None
    assert started.stdout is not None

    def feed() -> None:
        assert started.stdin is not None
        with contextlib.suppress(OSError):
            while data := channel.recv(4096):
                started.stdin.write(data)
                started.stdin.flush()
        with contextlib.suppress(OSError):
            started.stdin.close()

    threading.Thread(target=feed, daemon=True).start()
    with contextlib.suppress(OSError):
        while data := started.stdout.read1(4096):  # type: ignore[attr-defined]
            channel.sendall(data)
    with contextlib.suppress(OSError, EOFError):
        channel.send_exit_status(started.wait())
        channel.close()


@contextlib.contextmanager
def serving(place: Path) -> Iterator[tuple[str, str]]:
    """The name of the host, and a PATH whose ssh knows it: the real one, told of a configuration
    that is not the user's.
    """
    for name in ("client", "host"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)]
        process.run(words, timeout_s=30)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        known = " ".join(["lab", *(place / "host.pub").read_text().split()[:2]])
        (place / "known").write_text(f"{known}\n")
        told = {
            "HostName": "127.0.0.1",
            "Port": port,
            "HostKeyAlias": "lab",
            "IdentityFile": place / "client",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": place / "known",
        }
        lines = "".join(f"  {name} {value}\n" for name, value in told.items())
        (place / "ssh_config").write_text(f"Host lab\n{lines}")
        programs = place / "bin"
        programs.mkdir()
        (programs / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {place}/ssh_config "$@"\n')
        (programs / "ssh").chmod(0o755)
        threading.Thread(target=_accept, args=(listener, place), daemon=True).start()
        yield "lab", f"{programs}:/usr/local/bin:/usr/bin:/bin"


def _accept(listener: socket.socket, place: Path) -> None:
    host, client = (paramiko.PKey.from_path(place / name) for name in ("host", "client"))
    with contextlib.suppress(OSError):  # the test is over
        while True:
            caller, _ = listener.accept()
            transport = paramiko.Transport(caller)
            transport.add_server_key(host)
            with contextlib.suppress(paramiko.SSHException, EOFError):
                transport.start_server(server=_Guest(client))
