"""How a kernel gets onto a board: by kexec, or booted once: by GRUB, by systemd-boot, or from the
network.
"""

from __future__ import annotations

import contextlib
import fnmatch
import shlex
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from rig.config import BoardConfig, NetworkConfig
from rig.errors import InfrastructureError, UsageError
from rig.machine import uki
from rig.machine.knowngood import KnownGood
from rig.machine.netboot import Server, check_words, needed, script
from rig.session import ConnectionLost, Session, SessionTimeout

BANNER = "Linux version "
# What the known-good kernel says last (kernel/kexec_core.c, since 2.6.13); boot loaders are told to
# say the same.
JUMP = "Starting new kernel"
_LOAD_S = 300.0
_JUMP_S = 180.0  # its services come to an end first
_SILENT_S = 20.0  # from the last block that was fetched until a kernel has said something
# The console has to show what is said last ("Starting new kernel" is a notice). systemctl comes
# back at once, and says so where it may not; kexec itself never does.
_KEXEC = r"""
touch "$1/jumped"
echo 7 >/proc/sys/kernel/printk
if [ -d /run/systemd/system ]; then exec systemctl kexec; fi
(sleep 1; sync; exec kexec -e) </dev/null >/dev/null 2>&1 &
"""
_REBOOT = r"""
touch "$1/jumped"
echo 7 >/proc/sys/kernel/printk
if [ -d /run/systemd/system ]; then exec systemctl reboot; fi
(sleep 1; sync; exec reboot) </dev/null >/dev/null 2>&1 &
"""
# Which GRUB, and whether it can do what is asked of it: its entry is there, and it can write what
# it boots next, or that entry would be booted for ever (GRUB's manual: load_env, save_env).
_GRUB = r"""
say() { name=$1; shift; printf '%s\t%s\n' "$name" "$*"; }
for grub in grub grub2; do command -v "$grub-reboot" >/dev/null && break; done
command -v "$grub-reboot" >/dev/null || exit 0
say grub "$grub"
say uuid "$("$grub-probe" --target=fs_uuid "$1")"
say path "$("$grub-mkrelpath" "$1")"
say abstraction "$("$grub-probe" --target=abstraction "/boot/$grub" | xargs)"
say fs "$("$grub-probe" --target=fs "/boot/$grub")"
grep -qsE -- '^[^#]*menuentry .*--id[ =]*["'\'']?rig\b' "/boot/$grub/grub.cfg" \
    "/boot/$grub/custom.cfg" && say entry rig
true
"""
# Where it may not restart, it is not to boot that the next time either.
_ONCE = """
{grub}-reboot rig || exit 1
( {reboot} ) || {{ code=$?; {grub}-editenv - unset next_entry; exit $code; }}
"""
_WRITE = 'printf %s "$2" >"$1/grub.cfg.part" && mv -f "$1/grub.cfg.part" "$1/grub.cfg" && sync'
_ENTRY = """\
menuentry "rig: the kernel under test" --id rig {{
    search --no-floppy --fs-uuid --set=root {uuid}
    source {path}/grub.cfg
}}
"""
# Which boot loader there is, by what it has told the system of itself (systemd-boot(7)); where its
# files are, and whether its entry is there and leads to ours.
_SYSTEMD = r"""
say() { name=$1; shift; printf '%s\t%s\n' "$name" "$*"; }
command -v bootctl >/dev/null || exit 0
vars=/sys/firmware/efi/efivars
# Nobody can seek in one of these.
say loader "$(cat $vars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f 2>/dev/null |
    tail -c +5 | tr -d '\000')"
boot=$(realpath "$(bootctl --print-boot-path)")
say boot "$boot"
say directory "$(realpath "$1")"
[ "$(stat -c %d "$1")" = "$(stat -c %d "$boot")" ] && say same yes
say secure "$(cat $vars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c 2>/dev/null |
    tail -c +5 | od -An -tu1 | tr -d ' ')"
# What is booted when nothing is asked for: the variable comes before the file.
default=$(cat $vars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f 2>/dev/null |
    tail -c +5 | tr -d '\000')
[ "$default" ] || default=$(sed -n 's/^default[[:space:]][[:space:]]*//p' \
    "$(bootctl --print-esp-path)/loader/loader.conf" 2>/dev/null | tail -n 1)
say default "$default"
say entry "$(sed -n 's/^efi[[:space:]][[:space:]]*//p' "$boot/loader/entries/rig.conf" 2>/dev/null)"
case $(uname -m) in x86_64) cpu=x64 ;; aarch64) cpu=aa64 ;; *) cpu=$(uname -m) ;; esac
stub=/usr/lib/systemd/boot/efi/linux$cpu.efi.stub
[ -e "$stub" ] && say stub "$stub"
true
"""
_ONCE_SYSTEMD = """
bootctl set-oneshot rig.conf || exit 1
( {reboot} ) || {{ code=$?; bootctl set-oneshot ""; exit $code; }}
"""
_SYSTEMD_ENTRY = """\
title rig: the kernel under test
efi {path}
"""
# What a kernel's EFI stub says before the kernel has a console
# (drivers/firmware/efi/libstub/printk.c, since 5.8).
_STUB_WORDS = "EFI stub: "
# File systems on which GRUB cannot write a block in place.
_NO_SAVING = ("btrfs", "zfs", "f2fs")


class Deploy(Protocol):
    """One way.

    limit_s: until the kernel has to be begun.
    """

    limit_s: float

    def check_words(self, words: str) -> None:
        """UsageError for words that would not arrive at the kernel as they are."""

    def load(self, session: Session, kernel: Path, root: Path, words: str) -> None:
        """Have a kernel and its initramfs where they are taken from. InfrastructureError."""

    def go(self, session: Session) -> None:
        """Leave the system for that kernel; the session is lost by it. InfrastructureError where
        the system refuses.
        """

    def unload(self, session: Session) -> None:
        """Forget a kernel that was loaded and is not gone to."""

    def forget(self) -> None:
        """The same without a session: the next boot is to be that of the board's own system."""

    def begun(self, said: str) -> int | None:
        """Where in what the console said the kernel's own words begin; None while they have not."""

    def close(self) -> None:
        """Idempotent."""


def of(board: BoardConfig, system: KnownGood, root: Path) -> Deploy:
    """The way of a board. root: relative paths start there. UsageError."""
    if board.deploy == "grub":
        return Grub(system)
    if board.deploy == "systemd-boot":
        return SystemdBoot(system)
    if board.deploy == "network":
        return Network(board, system, root)
    return Kexec(system)


class Kexec:
    """From kernel to kernel, with no firmware between."""

    limit_s = _JUMP_S

    def __init__(self, system: KnownGood) -> None:
        self._system = system

    def check_words(self, words: str) -> None:
        """As Deploy."""

    def load(self, session: Session, kernel: Path, root: Path, words: str) -> None:
        """As Deploy."""
        system = self._system
        with _sending(system):
            code, _, _ = system.ask(
                session, "command -v kexec && { kexec -u >/dev/null 2>&1; true; }"
            )
            if code:
                hint = "install kexec-tools on it"
                raise InfrastructureError(f"{system.where} has no kexec", hint=hint)
            names = system.copy(session, {"kernel": kernel, "initrd": root})
            argv = ["kexec", "-a", "-l", names["kernel"], f"--initrd={names['initrd']}"]
            argv.append(f"--command-line={words}")
            done = session.run(argv, timeout_s=_LOAD_S)
        if done.exit_code:
            raise InfrastructureError(
                f"{system.where} did not take the kernel (kexec ends with {done.exit_code})",
                output=(done.stdout + done.stderr)[-2000:].decode(errors="replace"),
                reproduce=shlex.join(argv),
            )

    def go(self, session: Session) -> None:
        """As Deploy."""
        _leave(self._system, session, _KEXEC)

    def unload(self, session: Session) -> None:
        """As Deploy."""
        with contextlib.suppress(ConnectionLost, SessionTimeout):
            self._system.ask(session, "kexec -u")

    def forget(self) -> None:
        """As Deploy: a power cycle does."""

    def begun(self, said: str) -> int | None:
        """As Deploy."""
        return first_word(said)

    def close(self) -> None:
        """As Deploy."""


class Grub:
    """By the board's own boot loader, once: an entry of its menu that reads a file of ours."""

    def __init__(self, system: KnownGood) -> None:
        self._system = system
        self._grub = "grub"
        self.limit_s = system.config.returns_s

    def check_words(self, words: str) -> None:
        """As Deploy: GRUB's `linux` puts a backslash before each of these (loader/cmdline.c)."""
        if wrong := sorted(set(words) & set("\"'\\")):
            raise UsageError(
                f"GRUB does not hand {' '.join(wrong)} on to a kernel as it is: {words}",
                hint='boot with deploy = "kexec"',
            )

    def load(self, session: Session, kernel: Path, root: Path, words: str) -> None:
        """As Deploy."""
        system = self._system
        with _sending(system):
            path = self._checked(session)
            names = system.copy(session, {"kernel": kernel, "initrd": root})
            text = grub_file(
                {one: f"{path}/{Path(name).name}" for one, name in names.items()}, words
            )
            code, said, complaint = system.ask(session, _WRITE, text)
        if code:
            raise InfrastructureError(
                f"{system.where} did not keep GRUB's file", output=said + complaint
            )

    def _checked(self, session: Session) -> str:
        """Our directory as GRUB calls it."""
        system = self._system
        _, said, complaint = system.ask(session, _GRUB)
        told = dict(line.split("\t", 1) for line in said.splitlines() if "\t" in line)
        if not told.get("grub"):
            hint = 'install grub2-common on it, or use deploy = "kexec"'
            raise InfrastructureError(f"{system.where} has no grub-reboot", hint=hint)
        if not told.get("uuid") or not told.get("path"):
            where = f"{system.where} cannot tell where GRUB finds {system.config.directory}"
            raise InfrastructureError(where, output=complaint)
        held = told.get("abstraction") or (told["fs"] if told.get("fs") in _NO_SAVING else "")
        if held:
            raise InfrastructureError(
                f"GRUB of {system.where} cannot boot anything once: it cannot write to {held}, "
                "where its own files are",
                hint='deploy = "kexec" needs no boot loader',
            )
        self._grub = told["grub"]
        if not told.get("entry"):
            raise InfrastructureError(
                f"GRUB of {system.where} has no entry rig",
                output=_ENTRY.format(uuid=told["uuid"], path=told["path"]),
                hint=f"put this into /boot/{self._grub}/custom.cfg, once",
            )
        return told["path"]

    def go(self, session: Session) -> None:
        """As Deploy."""
        _leave(self._system, session, _ONCE.format(grub=self._grub, reboot=_REBOOT))

    def unload(self, session: Session) -> None:
        """As Deploy."""
        with contextlib.suppress(ConnectionLost, SessionTimeout):
            self._system.ask(session, f"{self._grub}-editenv - unset next_entry")

    def forget(self) -> None:
        """As Deploy: GRUB itself has, or does with the next boot (Board cycles once more then)."""

    def begun(self, said: str) -> int | None:
        """As Deploy."""
        return first_word(said)

    def close(self) -> None:
        """As Deploy."""


def grub_file(names: dict[str, str], words: str) -> str:
    """What GRUB's entry reads. names: of kernel and initrd, as GRUB finds them. Pure.

    GRUB goes on after a command that fails, and back to its menu at the end: where the kernel
    cannot be begun the board restarts, into its own system.
    """
    quoted = " ".join(shlex.quote(word) for word in words.split())
    return (
        f"if linux {shlex.quote(names['kernel'])} {quoted}; then\n"
        f"    if initrd {shlex.quote(names['initrd'])}; then\n"
        f'        echo "{JUMP}"\n'
        "        boot\n"
        "    fi\n"
        "fi\n"
        "reboot\n"
    )


class SystemdBoot:
    """By the board's own boot loader, once: an entry that is a program of ours on its partition."""

    def __init__(self, system: KnownGood) -> None:
        self._system = system
        self._stub_at = 0.0  # when a kernel's EFI stub was first heard
        self.limit_s = system.config.returns_s

    def check_words(self, words: str) -> None:
        """As Deploy: the stub makes two bytes of each."""
        if not (words.isascii() and words.isprintable()):
            hint = 'boot with deploy = "kexec"'
            raise UsageError(f"systemd's stub takes plain letters only: {words!r}", hint=hint)

    def load(self, session: Session, kernel: Path, root: Path, words: str) -> None:
        """As Deploy."""
        with _sending(self._system), tempfile.TemporaryDirectory(prefix="rig-uki-") as place:
            stub = Path(place, "stub")
            session.get(self._checked(session), stub)
            made = uki.build(stub, kernel, root, words, Path(place))
            self._system.put(session, made, uki.NAME)
        self._stub_at = 0.0

    def _checked(self, session: Session) -> str:
        """Where its stub is."""
        system = self._system
        _, said, complaint = system.ask(session, _SYSTEMD)
        told = dict(line.split("\t", 1) for line in said.splitlines() if "\t" in line)
        if not told.get("loader", "").startswith("systemd-boot"):
            there = told.get("loader") or "no boot loader that tells its name"
            raise InfrastructureError(
                f"{system.where} was not booted by systemd-boot, but by {there}",
                output=complaint,
                hint='deploy = "kexec" needs no boot loader',
            )
        if not told.get("stub"):
            hint = "it is in the package systemd-boot-efi, or systemd-boot"
            raise InfrastructureError(f"{system.where} has no systemd-stub", hint=hint)
        boot, directory = told.get("boot", ""), told.get("directory", "")
        if told.get("secure") == "1":
            raise InfrastructureError(
                f"the firmware of {system.where} begins signed programs only (Secure Boot)",
                hint='deploy = "kexec" needs no firmware; or switch Secure Boot off',
            )
        if not boot or not directory.startswith(f"{boot}/") or "same" not in told:
            seen = directory or system.config.directory
            raise InfrastructureError(
                f"systemd-boot of {system.where} does not see {seen}",
                output=complaint,
                hint=f'directory = "{boot or "/boot"}/rig": it boots from that partition alone',
            )
        default = told.get("default", "")
        if not default or default.startswith("@") or fnmatch.fnmatch("rig.conf", default):
            raise InfrastructureError(
                f"systemd-boot of {system.where} may boot the kernel under test for ever: its "
                f"default is {default or 'whatever entry comes first'}",
                hint=f"put `default NAME.conf`, that of its own system, into {boot}"
                "/loader/loader.conf",
            )
        path = f"{directory.removeprefix(boot)}/{uki.NAME}"
        if told.get("entry") != path:
            raise InfrastructureError(
                f"systemd-boot of {system.where} has no entry rig for {path}",
                output=_SYSTEMD_ENTRY.format(path=path),
                hint=f"put this into {boot}/loader/entries/rig.conf, once",
            )
        return told["stub"]

    def go(self, session: Session) -> None:
        """As Deploy."""
        _leave(self._system, session, _ONCE_SYSTEMD.format(reboot=_REBOOT))

    def unload(self, session: Session) -> None:
        """As Deploy."""
        with contextlib.suppress(ConnectionLost, SessionTimeout):
            self._system.ask(session, 'bootctl set-oneshot ""')

    def forget(self) -> None:
        """As Deploy: systemd-boot itself has, or does with the next boot (as GRUB)."""

    def begun(self, said: str) -> int | None:
        """As Deploy; also where a kernel's stub was heard, and nothing after it."""
        at, stub = first_word(said), said.find(_STUB_WORDS)
        if at is None and stub >= 0:
            self._stub_at = self._stub_at or time.monotonic()
            if time.monotonic() - self._stub_at > _SILENT_S:
                return stub
        return at

    def close(self) -> None:
        """As Deploy."""


class Network:
    """By the board's firmware, which asks the network first: a script of iPXE's, served once."""

    def __init__(self, board: BoardConfig, system: KnownGood, root: Path) -> None:
        assert board.network is not None
        self._board, self._system, self._network = board.name, system, board.network
        self._loaders = loaders(board.network, root)
        self._server: Server | None = None
        self.limit_s = system.config.returns_s

    def check_words(self, words: str) -> None:
        """As Deploy."""
        check_words(words)

    def load(self, session: Session, kernel: Path, root: Path, words: str) -> None:
        """As Deploy."""
        network = self._network
        if self._server is not None and self._server.troubled:
            self.close()
        if self._server is None:
            self._server = Server(
                network.address, network.port, tftp=network.tftp or None, loaders=self._loaders
            )
        url = network.url or f"http://{network.address}:{network.port}"
        self._server.offer.make(
            f"/{self._board}.ipxe",
            script(self._board, url.rstrip("/"), words, JUMP),
            {"/kernel": kernel, "/initrd": root},
        )

    def go(self, session: Session) -> None:
        """As Deploy."""
        _leave(self._system, session, _REBOOT)

    def unload(self, session: Session) -> None:
        """As Deploy."""
        self.forget()

    def forget(self) -> None:
        """As Deploy."""
        if self._server is not None:
            self._server.offer.withdraw()

    def begun(self, said: str) -> int | None:
        """As Deploy; also where it has taken all of it and says nothing."""
        at = first_word(said)
        if self._server is not None and at is None:
            self._server.check()
        taken = self._server.offer.taken if self._server is not None else 0.0
        if at is None and taken and time.monotonic() - taken > _SILENT_S:
            return len(said)
        return at

    def close(self) -> None:
        """As Deploy."""
        server, self._server = self._server, None
        if server is not None:
            server.close()


def check(board: BoardConfig, root: Path) -> None:
    """UsageError or InfrastructureError where this host lacks what kernels get there by."""
    if board.deploy == "network" and board.network:
        loaders(board.network, root)
        needed(tftp=bool(board.network.tftp))


def loaders(network: NetworkConfig, root: Path) -> list[Path]:
    """iPXE, as it is handed out. root: relative paths start there. UsageError."""
    hint = "loaders of [machine.NAME.network] are files of this host (Debian: package ipxe)"
    try:
        found = [root / Path(name).expanduser() for name in network.loaders]
    except RuntimeError as error:
        raise UsageError(f"there is no iPXE at {network.loaders}: {error}", hint=hint) from error
    if lacking := [one for one in found if not one.is_file()]:
        raise UsageError(f"there is no iPXE at {lacking[0]}", hint=hint)
    if len({one.name for one in found}) < len(found):
        raise UsageError(f"two loaders have one name: {', '.join(network.loaders)}", hint=hint)
    return found


def first_word(said: str) -> int | None:
    """Where the last word before a kernel is, or its first where that was not heard. Pure."""
    starts = [at for at in (said.find(JUMP), said.find(BANNER)) if at >= 0]
    return min(starts, default=None)


@contextlib.contextmanager
def _sending(system: KnownGood) -> Iterator[None]:
    try:
        yield
    except (ConnectionLost, SessionTimeout) as error:
        raise InfrastructureError(
            f"{system.where} went away, or hung, while the kernel was sent to it: {error.message}"
        ) from error


def _leave(system: KnownGood, session: Session, go: str) -> None:
    """Its file systems in order."""
    with contextlib.suppress(ConnectionLost, SessionTimeout):
        code, _, complaint = system.ask(session, go)
        # Its services end now, the one that we are in among them.
        if code and code < 128 and complaint:
            raise InfrastructureError(f"{system.where} does not go to the kernel", output=complaint)


__all__ = ["BANNER", "JUMP", "Deploy", "check", "first_word", "grub_file", "loaders", "of"]
