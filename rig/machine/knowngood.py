"""A board's own system, known to be good: reached, looked at, written to where it may be."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from pathlib import Path

from rig.config import BoardConfig, SystemConfig
from rig.errors import InfrastructureError, UsageError
from rig.session import ConnectionLost, Endpoint, Session, SessionTimeout, StrangerError
from rig.store import file_sha256

_TRY_S = 20.0  # for one login
_PAUSE_S = 1.0  # between two
_ASK_S, _COPY_S = 120.0, 1800.0
_SPARE_KIB = 16 * 1024  # of its disk, which is not ours to fill
# What we have sent: others' files may lie beside it, where a boot loader looks for all of them.
_OURS = r"\\(\\(kernel\\|initrd\\)-[0-9a-f]\\{16\\}\\|rig\\.efi\\)\\(\\.part\\)\\{0,1\\}$"
_ABOUT = r"""
mkdir -p "$1" || exit 1
say() { name=$1; shift; printf '%s\t%s\n' "$name" "$*"; }
say boot_id "$(cat /proc/sys/kernel/random/boot_id)"
say release "$(uname -r)"
say machine "$(uname -m)"
say cpus "$(nproc)"
say cpu "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)"
say microcode "$(sed -n 's/^microcode[^:]*: *//p' /proc/cpuinfo | head -n 1)"
say product "$(cat /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name 2>/dev/null | xargs)"
say firmware "$(cat /sys/class/dmi/id/bios_version 2>/dev/null)"
say memory_kib "$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)"
say room_kib "$(df -Pk "$1" | awk 'NR == 2 { print $4 }')"
set -- $SSH_CONNECTION
ip -4 -o addr show | while read -r _ card _ address _; do
    [ "${address%/*}" = "$3" ] || continue
    say net "$(cat "/sys/class/net/$card/address") $address"
    say card "${card%@*} $(sed -n 's/^DEVTYPE=//p' "/sys/class/net/${card%@*}/uevent")"
done
case $3 in *:*) say six "$3" ;; esac
say gateway "$(ip -4 route show default | sed -n 's/.* via \([0-9.]*\).*/\1/p' | head -n 1)"
"""
# What the firmware kept of a kernel that died, and what the system has put away of it since.
_KEPT = r"""
ls -A /sys/fs/pstore 2>/dev/null | sed 's|^|/sys/fs/pstore/|'
[ -e "$1/jumped" ] && [ "$2" ] || exit 0
find /var/lib/systemd/pstore -type f -newer "$1/jumped" 2>/dev/null
# What kdump has put away: the words of the kernel, not all of its memory.
find /var/crash -type f -name '*dmesg*' -newer "$1/jumped" 2>/dev/null
true
"""


@dataclass(frozen=True)
class About:
    """What the system says of itself and of the board.

    boot_id: of this boot of it. net: for the kernel's command line (images/debian/init.c).
    room_kib: free where we may write. facts: for the report.
    """

    boot_id: str
    net: str
    room_kib: int
    memory_kib: int
    facts: dict[str, str] = field(default_factory=dict)


class KnownGood:
    """One board's system, by SSH."""

    def __init__(self, board: BoardConfig, root: Path) -> None:
        assert board.system is not None
        self.config: SystemConfig = board.system
        self._board = board.name
        self.endpoint = Endpoint(
            host=self.config.address,
            port=self.config.port,
            user=self.config.user,
            client_key=root / Path(self.config.key).expanduser(),
            host_key=self.config.host_key,
        )
        self.why = ""  # nobody, or somebody else, answered last
        self.where = f"the system of {board.name} at {self.config.address}:{self.config.port}"

    def login(self, timeout_s: float = _TRY_S) -> Session | None:
        """A session; None where nobody answers in time, or somebody else does (a kernel under
        test), which `why` tells then. InfrastructureError where it is the system, and does not let
        us in.
        """
        try:
            return Session(self.endpoint, connect_timeout_s=timeout_s)
        except (ConnectionLost, StrangerError) as error:
            self.why = error.message
            return None

    def awaited(self, before: str, limit_s: float) -> tuple[Session, About] | None:
        """The session of a boot that is not the one of before; None when there is none in time."""
        deadline = time.monotonic() + limit_s
        while (left := deadline - time.monotonic()) > 0:
            session = self.login(min(_TRY_S, left))
            if session is not None:
                found = self._looked_at(session)
                if found is not None and found.boot_id != before:
                    return session, found
                session.close()
            time.sleep(_PAUSE_S)
        return None

    def _looked_at(self, session: Session) -> About | None:
        try:
            return self.about(session)
        except (ConnectionLost, SessionTimeout) as error:
            self.why = error.message
            return None
        except BaseException:
            session.close()
            raise

    def about(self, session: Session) -> About:
        """What it is; InfrastructureError where it cannot do what it is there for. ConnectionLost
        and SessionTimeout where it does not answer.
        """
        code, said, complaint = self.ask(session, _ABOUT)
        if code:
            raise InfrastructureError(
                f"{self.where} has no directory {self.config.directory}, and none can be made",
                output=complaint,
                hint="directory = one that it may write to: is its disk mounted read-only?",
            )
        return self._understood(said)

    def _understood(self, said: str) -> About:
        told = dict(line.split("\t", 1) for line in said.splitlines() if "\t" in line)
        card, _, cidr = told.get("net", "").partition(" ")
        name, _, kind = told.get("card", "").partition(" ")
        if kind:  # its address is that of a card, or of several, and of no card that is just up
            raise InfrastructureError(
                f"{self.where} is reached over {name}, a {kind}: a kernel under test has none",
                hint="address = one of a network card itself",
            )
        if told.get("six"):
            raise InfrastructureError(
                f"{self.where} is reached by {told['six']}: kernels under test get IPv4 alone",
                hint="address = that of IPv4",
            )
        if not cidr:
            raise InfrastructureError(f"{self.where} does not say which card it is reached by")
        address = IPv4Interface(cidr)
        net = f"{card},{address.ip},{address.netmask},{told.get('gateway', '')}"
        names = ("product", "firmware", "cpu", "microcode", "cpus", "memory_kib", "release")
        facts = {name: told[name] for name in names if told.get(name)}
        facts["known_good"] = facts.pop("release", "")
        numbers = [told.get(name, "") for name in ("room_kib", "memory_kib")]
        if not told.get("boot_id") or not all(one.isdecimal() for one in numbers):
            raise InfrastructureError(
                f"{self.where} does not say how much room and memory it has",
                output=said,
                hint="it needs awk, df, sed and /proc",
            )
        return About(told["boot_id"], net, int(numbers[0]), int(numbers[1]), facts)

    def copy(self, session: Session, wanted: dict[str, Path]) -> dict[str, str]:
        """Where the files lie on the board; what lay there of others is removed, what is there
        already is not sent again. ConnectionLost, SessionTimeout, InfrastructureError.
        """
        directory = self.config.directory
        sums = {name: file_sha256(path) for name, path in wanted.items()}
        names = {name: f"{directory}/{name}-{sums[name][:16]}" for name in wanted}
        self._keep_only(session, sorted(names.values()))
        there = self._sums(session, names.values())
        missing = {
            name: path for name, path in wanted.items() if there.get(names[name]) != sums[name]
        }
        needed_kib = sum(path.stat().st_size for path in missing.values()) // 1024
        if missing:
            self._check_room(self._room(session), needed_kib)
        for name, path in missing.items():
            session.put(path, f"{names[name]}.part", timeout_s=_COPY_S)
            self._run(session, ["mv", "-f", f"{names[name]}.part", names[name]])
        there = self._sums(session, names.values())
        if wrong := [one for name, one in names.items() if there.get(one) != sums[name]]:
            raise InfrastructureError(f"{self.where} has not got {wrong[0]} as it was sent")
        return names

    def put(self, session: Session, path: Path, name: str) -> None:
        """A file under a name of its own in our directory, of any file system: what lies there is
        removed, unless it is that very file. ConnectionLost, SessionTimeout, InfrastructureError.
        """
        remote, wanted = f"{self.config.directory}/{name}", file_sha256(path)
        self._keep_only(session, [remote])
        if self._sums(session, [remote]).get(remote) == wanted:
            return
        self._run(session, ["rm", "-f", remote])
        self._check_room(self._room(session), path.stat().st_size // 1024)
        script = 'cat >"$1.part" && mv -f "$1.part" "$1" && sync || { rm -f "$1.part"; exit 1; }'
        with path.open("rb") as file:
            done = session.run(["sh", "-c", script, "rig", remote], timeout_s=_COPY_S, stdin=file)
        if done.exit_code or self._sums(session, [remote]).get(remote) != wanted:
            raise InfrastructureError(
                f"{self.where} has not got {remote} as it was sent",
                output=done.stderr[-2000:].decode(errors="replace"),
            )

    def _check_room(self, room_kib: int, needed_kib: int) -> None:
        if room_kib < needed_kib + _SPARE_KIB:
            raise InfrastructureError(
                f"the disk of {self._board} is full: {room_kib // 1024} MiB are free at "
                f"{self.config.directory}, {(needed_kib + _SPARE_KIB) // 1024} are needed",
                hint=f"make room there (what the rig leaves in {self.config.directory} it removes "
                "by itself)",
            )

    def _keep_only(self, session: Session, names: Sequence[str]) -> None:
        script = (
            'cd "$1" || exit 1; shift; for one in *; do keep=; '
            f'expr "$one" : "{_OURS}" >/dev/null || continue; '
            'for name; do [ "$one" = "${name##*/}" ] && keep=1; done; '
            '[ "$keep" ] || rm -f "$one"; done'
        )
        self._run(session, ["sh", "-c", script, "rig", self.config.directory, *names])

    def _sums(self, session: Session, names: Iterable[str]) -> dict[str, str]:
        done = session.run(["sha256sum", *names], timeout_s=_COPY_S)
        lines = done.stdout.decode(errors="replace").splitlines()
        return {path: found for found, _, path in (line.partition("  ") for line in lines)}

    def _room(self, session: Session) -> int:
        script = "df -Pk \"$1\" | awk 'NR == 2 { print $4 }'"
        return int(self._run(session, ["sh", "-c", script, "rig", self.config.directory]) or 0)

    def _run(self, session: Session, argv: Sequence[str]) -> str:
        done = session.run(argv, timeout_s=_ASK_S)
        if done.exit_code:
            raise InfrastructureError(
                f"{self.where} did not do `{shlex.join(argv[:1])}`",
                output=(done.stdout + done.stderr)[-2000:].decode(errors="replace"),
            )
        return done.stdout.decode(errors="replace")

    def ask(
        self, session: Session, script: str, *words: str, timeout_s: float = _ASK_S
    ) -> tuple[int, str, str]:
        """Exit code, output and complaints of a shell script there, whose $1 is our directory.
        ConnectionLost, SessionTimeout.
        """
        argv = ["sh", "-c", script, "rig", self.config.directory, *words]
        done = session.run(argv, timeout_s=timeout_s)
        said = (done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
        return done.exit_code, *said

    @contextlib.contextmanager
    def asked(self) -> Iterator[None]:
        """InfrastructureError where it does not answer meanwhile."""
        try:
            yield
        except (ConnectionLost, SessionTimeout) as error:
            raise InfrastructureError(
                f"{self.where} went away, or hung: {error.message}"
            ) from error

    def _kept(self, session: Session, label: str) -> list[str]:
        """What lies there now; of before the last jump ("earlier") only what is still to be put
        away, for that is removed.
        """
        words = ["rig", self.config.directory, "" if label == "earlier" else "since"]
        return self._run(session, ["sh", "-c", _KEPT, *words]).splitlines()

    def crashes(self, session: Session, into: Path, label: str) -> tuple[Path, ...]:
        """What a kernel has left in the firmware's store (pstore), where it is removed, for there
        is little room, or in a dump's directory; copied. label: into the files' names.
        """
        found: list[Path] = []
        try:
            wanted = self._kept(session, label)
            while wanted:
                remote = wanted.pop(0)
                name = re.sub(r"^/(?:sys/fs|var/lib/systemd|var)/", "", remote).replace("/", "-")
                path = into / name.replace("-", f"-{label}-", 1)
                if path in found:
                    continue
                try:
                    session.get(remote, path)
                except InfrastructureError:
                    wanted = self._kept(session, label)
                    if remote in wanted:
                        raise
                    continue  # systemd-pstore has put it away meanwhile: it is elsewhere now
                found.append(path)
                if remote.startswith("/sys/"):
                    self._run(session, ["rm", "-f", "--", remote])
        except (ConnectionLost, SessionTimeout) as error:
            raise InfrastructureError(f"{self.where}: {error.message}") from error
        return tuple(found)


def check_key(board: BoardConfig, root: Path) -> None:
    """UsageError for a key of ours that others may read, as ssh has it: who shares one with a group
    has it belong to somebody else. That it is not there, or none, who logs in tells.
    """
    if board.system is None:
        return
    path = root / Path(board.system.key).expanduser()
    with contextlib.suppress(OSError):
        seen = path.stat()
        mode = stat.S_IMODE(seen.st_mode)
        if seen.st_uid == os.geteuid() and mode & 0o077:
            raise UsageError(f"key {path}: others may read it (mode {mode:04o})",
                             hint=f"chmod 600 {path}")  # fmt: skip


__all__ = ["About", "KnownGood", "check_key"]
