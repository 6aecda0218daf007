"""A machine of hardware: a board that a kernel under test is jumped to on, and that comes back."""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rig.config import BoardConfig
from rig.console import Console
from rig.errors import BootError, HangError, InfrastructureError, RigError
from rig.image import Image
from rig.kbuild import Kernel
from rig.machine import coming, deploy, power, wire
from rig.machine.deploy import BANNER, JUMP
from rig.machine.knowngood import About, KnownGood
from rig.machine.plan import WHO_SPEAKS, without_kernel_threads
from rig.machine.qemu import MAX_SLOWDOWN, READY, REFERENCE_LOGIN_S
from rig.machine.wire import Wire
from rig.ramroot import RamRoot
from rig.session import ConnectionLost, Endpoint, Session, SessionTimeout

Tell = Callable[[str], object]

_DEAF = "rig: nobody can log in"
_PANIC = r"Kernel panic - not syncing[^\n]*\n"
# That another system is coming up, which may say no more than that: images have no login there.
_OTHER = re.compile(
    r"GNU GRUB +version|^  Booting `"
    r"|^(?:\x1b\[[\d;?]*[A-Za-z])*(?:[\w.-]{1,64}|\(none\)) login: (?!\w)"
    r"|^U-Boot (?:SPL |TPL )?\d{4}\.\d\d|^iPXE (?:initialising devices|\d)"
    r"|^SeaBIOS \(version |^BdsDxe: (?:loading|starting) Boot",
    re.MULTILINE,
)
_BOOT_S, _SILENCE_S, _LOGIN_S = 1800.0, 90.0, 60.0
_LOOK_S, _OVERLAP = 0.25, 256
_QUIET_S = 5.0  # after which a kernel that has panicked has said all
_MOST_S = 60.0
_SYSRQ = re.compile(r"sysrq: (?!HELP)")  # what it says to a letter that it does not know
_ANSWER_S, _DIAGNOSIS_S = 3.0, 60.0
_AFTER_A_BREAK_S = (0.1, 1.0)  # the port takes the letter for an ordinary one otherwise
_FIRST_S = 30.0  # for a system that is up
_WHO_S = 20.0  # for who answers where nothing is heard
_HEARD_S, _TRIES = 10.0, 2  # what its system says, on its console
# To the console by the kernel, whatever it is told to leave out, and to whatever /dev/console is.
_SPEAK = 'echo "<1>$2" >/dev/kmsg; echo "$2" >/dev/console; echo "$2" >"/dev/$3"'
_TOLD = re.compile(r"\bCommand line: ([^\n]*)\n")
_EARLY_LINES = 40  # in which a kernel says what it was told
_PC_PORTS = {"ttyS0": 0x3F8, "ttyS1": 0x2F8, "ttyS2": 0x3E8, "ttyS3": 0x2E8}


def kernel_command_line(board: BoardConfig, root: RamRoot, about: About, append: str = "") -> str:
    """What a kernel under test is told. Pure; append comes last and so overrides.

    panic=0: what it says last stays there, until the board's power is cycled, which it is anyway.
    """
    own = f"{board.append} {append}"
    # A second console, or an early one of its own, and each line might come twice.
    early = "" if re.search(r"\b(?:console=|earlycon|earlyprintk)", own) else _early_console(board)
    words = [
        *(f"console={board.serial}", *early.split(), root.append, f"rig_net={about.net}"),
        *("panic=0", "oops=panic", "printk.devkmsg=on", "unknown_nmi_panic", "panic_print=0x40"),
        WHO_SPEAKS,
        "nokaslr",  # it can be moved (kernel-configs/board.config), and is where it always is
    ]
    return " ".join([*words, *own.split()])


def _early_console(board: BoardConfig) -> str:
    """What lets a kernel be heard before it has its console, "" where nobody knows how. Pure.

    Where PCs have their ports (arch/x86/include/asm/serial.h); elsewhere firmware may tell it.
    """
    name, _, rate = board.serial.partition(",")
    port = _PC_PORTS.get(name) if board.arch == "x86_64" else None
    return f"earlycon=uart8250,io,{port:#x}{',' if rate else ''}{rate}" if port else ""


@dataclass
class Board:
    """A board that is ours for a while: its power, its line, its system, and what became of it.

    results: where its console is recorded while its own system runs: system-<n>.log, before the
    n-th kernel under test; keep: told of each. tell: a person. say: what every verdict has to say.
    held: whether it is still ours. lost: why it cannot be used any more. away: it has
    left its own system, and was not seen back. back_s: how long it took to be there, last.
    """

    config: BoardConfig
    root: Path
    results: Path
    tell: Tell
    say: Tell
    keep: Callable[[Path], object]
    held: Callable[[], bool] = lambda: True
    lost: str = ""
    about: About | None = None
    away: bool = False
    back_s: float = 0.0

    def __post_init__(self) -> None:
        self._power = power.of(self.config, self.root)
        self.system = KnownGood(self.config, self.root)
        self.deploy = deploy.of(self.config, self.system, self.root)
        self._wire: Wire = wire.of(self.config, self.root)
        self._console: Console | None = None
        self._session: Session | None = None
        self._number = 0

    @property
    def name(self) -> str:
        """As in rig.toml."""
        return self.config.name

    def ready(self, number: int) -> tuple[Session, About]:
        """Its system, up and looked at, its line recorded from before its power is touched.

        Whatever runs there instead, or nothing: the power is cycled. InfrastructureError.
        """
        self._check()
        self._number = number
        if self._console is None:
            self._record(self._wire.open(), number)
        powered = self._power.status()  # a switch that cannot be had is no surprise for later
        if self._session is None and powered is not False:
            self._session = self.system.login(_FIRST_S)
        if self._session is not None:
            try:
                self.about = self.system.about(self._session)
            except (ConnectionLost, SessionTimeout) as error:
                self.system.why = error.message
                self._hang_up()
            else:
                self.away = False
                # Else it would be put down to the kernel that comes now.
                self._collect(self._session, "earlier")
                self._prove_line(self._session)
                return self._session, self.about
        self.away = True
        if powered is False:
            self.tell(f"{self.name} is off: it is switched on")
            self._switched(self._power.set(True))
        else:
            why = f" ({self.system.why})" if self.system.why else ""
            self.tell(f"{self.name} is not in its own system{why}: its power is cycled")
            self._switched(self._power.cycle())
        self._return("")
        assert self._session is not None
        assert self.about is not None
        self._prove_line(self._session)
        return self._session, self.about

    def _switched(self, what: power.Switched) -> None:
        if not what.seen:
            where = self._power.switch.where
            self.say(
                f"nobody saw whether the power of {self.name} was switched: {where} cannot tell"
            )

    def _prove_line(self, session: Session) -> None:
        """What its system says on its console has to be heard: of a kernel on the line of another
        board, or on none, it would be told that it has said nothing.
        """
        assert self._console is not None
        serial = self.config.serial.partition(",")[0]
        complaint, start = "", self._console.size()
        for _ in range(_TRIES):
            word = f"rig: {secrets.token_hex(8)}"
            start = self._console.size()
            with self.system.asked():
                _, _, complaint = self.system.ask(session, _SPEAK, word, serial)
            if self._comes(word, start):
                return
        where = f"the console of {self.name}"
        raise InfrastructureError(
            f"{where} is down"
            if self.deaf
            else f"nothing of {self.system.where} is heard on {where}",
            hint=f"is that its line, and does its system have console={self.config.serial}? "
            f"`rig console {self.name}` shows what comes",
            output=f"{self._console.since(start)[-2000:]}\n{complaint}".strip(),
        )

    def _comes(self, word: str, start: int) -> bool:
        assert self._console is not None
        known, deadline = start, time.monotonic() + _HEARD_S
        while word not in self._console.since(start):
            if (left := deadline - time.monotonic()) <= 0 or self._console.closed:
                return False
            self._console.wait_news(known, min(left, 1.0))
            known = self._console.size()
        return True

    def in_its_system(self) -> bool:
        """Whether that answers just now. InfrastructureError where it does not let us in."""
        session = self.system.login(_WHO_S)
        if session is not None:
            session.close()
        return session is not None

    def jump(self, path: Path, release: str, words: str) -> Console:
        """Go to the loaded kernel; its console, from its first word, is recorded in path.

        release: the kernel's; words: of its command line, that no other kernel is told.
        InfrastructureError where the board does not leave its own system, or comes back into it.
        """
        assert self._console is not None
        assert self._session is not None
        before = self._console
        start = before.size()
        self._check()
        self.away = True
        self.deploy.go(self._session)
        self._hang_up()
        at = self._await_jump(before, start, release, words)
        line = self._wire.handed_on()
        before.wait_closed(_ANSWER_S)
        heard = before.since(start)[at:]
        console = self._listening(line, path, heard.encode())
        before.close()
        self._console = console
        return console

    def _await_jump(self, console: Console, start: int, release: str, words: str) -> int:
        """Where in what was said since start the kernel's own words begin."""
        limit_s = self.deploy.limit_s
        deadline, known = time.monotonic() + limit_s, start
        while (at := self.deploy.begun(console.since(start))) is None:
            left = deadline - time.monotonic()
            if left <= 0 or console.closed:
                why = f"{self.name} did not go to the kernel within {limit_s:.0f} s"
                if lost := wire.gaps(console.since(start)):
                    why += f": its console was lost {lost} time(s) meanwhile"
                raise self._astray(why, console, start)
            console.wait_news(known, min(left, 1.0))
            known = console.size()
        self._check_whose(console, start, release, words)
        return at

    def _check_whose(self, console: Console, start: int, release: str, words: str) -> None:
        """That it is not its own system again, whose boot says nothing of the kernel under test."""
        own = self.about.facts.get("known_good") if self.about else ""
        deadline = time.monotonic() + _ANSWER_S
        while True:
            said, known = console.since(start), console.size()
            # A part of it has come: the rest is not far, unless it says no more of itself.
            whole = was_told(said, words) is not None
            if whole or BANNER.strip() not in said or time.monotonic() > deadline or console.closed:
                break
            console.wait_news(known, 0.5)
        if spoke(said, release, own or "", words) is False:
            raise self._astray(
                f"{self.name} booted its own system again, and not the kernel it was given by "
                f"{self.config.deploy}",
                console,
                start,
            )

    def _astray(self, words: str, console: Console, start: int) -> InfrastructureError:
        return InfrastructureError(
            words,
            output=console.since(start)[-4000:],
            hint=f"the whole console is in {console.path}",
        )

    def let_go(self, number: int) -> None:
        """The kernel under test has ended, or is to: from here on the line is the system's again.

        Its console comes to its end, as if a plug had been pulled.
        """
        before = self._console
        try:
            self._record(self._wire.handed_on(), number)
        finally:
            if before is not None:
                before.wait_closed(_ANSWER_S)
                before.close()

    @property
    def deaf(self) -> bool:
        """Whether its line is down."""
        return self._wire.down

    def check(self) -> None:
        """InfrastructureError where it is not ours any more."""
        self._check()

    def send_break(self) -> None:
        """On its line."""
        self._wire.send_break()

    def come_back(self) -> None:
        """Its power is cycled, and its own system is there again: a boot of it that was not before.

        InfrastructureError, and nothing can be done with it any more, where it is not.
        """
        self._hang_up()
        self._check()
        self.deploy.forget()
        self._switched(self._power.cycle())
        self._return(self.about.boot_id if self.about else "")

    def unload(self) -> None:
        """Its own system stays, and forgets the kernel that it was given."""
        if self._session is not None:
            self.deploy.unload(self._session)

    def _return(self, before: str) -> None:
        began, limit_s = time.monotonic(), self.system.config.returns_s
        self.tell(f"waiting for {self.system.where} (up to {limit_s:.0f} s)")
        found = self.system.awaited(before, limit_s)
        if found is None and not self.lost:
            # What was to be booted once may have been booted just now: the run that asked for it,
            # or ours, came to its end before the board had got there.
            self.tell(f"{self.name} is not back ({self.system.why}): its power is cycled once more")
            self._check()
            self._switched(self._power.cycle())
            found = self.system.awaited(before, limit_s)
        took = time.monotonic() - began
        if found is None:
            self.lost = (
                f"{self.name} did not come back: {self.system.where} let nobody in within "
                f"{limit_s:.0f} s of its power being switched on ({self.system.why})"
            )
            self._check()
        assert found is not None
        self._session, self.about = found
        self.away, self.back_s = False, took
        self.tell(f"{self.name} is back in its own system after {took:.0f} s")
        self._collect(self._session, "earlier" if not before else str(self._number))

    def _collect(self, session: Session, label: str) -> None:
        """What the firmware has kept of a crash; that it cannot be had makes no board bad."""
        try:
            for path in self.system.crashes(session, self.results, label):
                words = f"{self.name} had kept something of a crash: {path}"
                self.tell(words)
                self.say(words)
        except InfrastructureError as error:
            self.say(f"what {self.name} has kept of a crash could not be had: {error.message}")

    def close(self) -> None:
        """Hang up; idempotent. Its power stays as it is."""
        self._hang_up()
        self.deploy.close()
        console, self._console = self._console, None
        self._wire.close()
        if console:
            console.close()

    def _record(self, line: socket.socket, number: int) -> None:
        path = self.results / f"system-{number}.log"
        self._console = self._listening(line, path)
        self.keep(path)

    def _listening(self, line: socket.socket, path: Path, before: bytes = b"") -> Console:
        """Where it cannot be recorded, nobody is left who would have to read."""
        try:
            return Console(line, path, before)
        except BaseException:
            line.close()
            raise

    def _check(self) -> None:
        if not self.held():
            raise InfrastructureError(
                f"the lock of {self.name} was lost: somebody else may have it by now",
                hint="the connection to the host that keeps it ended; see that the board is well",
            )
        if self.lost:
            output = self._console.tail() if self._console else ""
            raise InfrastructureError(
                self.lost,
                output=output,
                hint=f"its console is in {self.results}; returns_s says how long it may take",
            )

    def _hang_up(self) -> None:
        session, self._session = self._session, None
        if session:
            session.close()


def was_told(text: str, words: str) -> bool | None:
    """Whether the first kernel that speaks was told any of these words, of which a line may have
    lost some; None where it says nothing of what it was told. Pure.
    """
    first = re.search(rf"{BANNER}(?:[^\n]*\n){{1,{_EARLY_LINES}}}", text)
    lines = first[0].partition("\n")[2].partition(BANNER)[0] if first else ""
    found = _TOLD.search(lines)
    return None if found is None else any(word in found[1] for word in words.split())


def spoke(text: str, release: str, own: str, words: str) -> bool | None:
    """Whether the first kernel that speaks is the one under test, and not the board's own: by its
    release, or where that tells nothing by what it was told; None where nobody can tell. Pure.
    """
    found = _releases(text)
    if found and release != own and found[0] in (release, own):
        return found[0] == release
    return was_told(text, words)


def _releases(text: str) -> list[str]:
    """Of the kernels whose banners are in a text. Pure."""
    return [found[1] for found in re.finditer(rf"{BANNER}(\S+) \(", text)]


class BaremetalMachine:
    """One kernel on a board, from the jump to it until the board is back in its own system."""

    attach = ""  # no debugger waits here

    def __init__(
        self,
        board: Board,
        kernel: Kernel,
        image: Image,
        root: RamRoot,
        *,
        results: Path,
        number: int = 0,
        append: str = "",
    ) -> None:
        """Decide all, touch nothing. results: gets console-<number>.log."""
        self._board, self._kernel, self._image, self._root = board, kernel, image, root
        self._path, self._number, self._append = results / f"console-{number}.log", number, append
        self._console: Console | None = None
        self._about: About | None = None
        self._started = self._ready_s = self._login_s = 0.0
        self._first: Session | None = None
        self._panicked = self._ended = self._loaded = self._jumped = self._closed = False
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="board", daemon=True)
        self._ending = threading.Lock()
        self.append = ""

    @property
    def console(self) -> Console:
        """The serial line from the kernel's first word on."""
        if self._console is None:
            raise InfrastructureError("the machine has not been started")
        return self._console

    @property
    def consoles(self) -> tuple[Path, ...]:
        """The recorded console, where there is one."""
        return (self._path,) if self._path.exists() else ()

    @property
    def endpoint(self) -> Endpoint:
        """Where to log in to the kernel under test."""
        system = self._board.system.config
        return Endpoint(
            host=system.address,
            port=system.kernel_port or system.port,
            user="root",
            client_key=self._image.client_key,
            host_key=self._image.host_key,
        )

    @property
    def notices(self) -> tuple[str, ...]:
        """What every verdict must say about this machine; the board says its own."""
        return ()

    @property
    def slowdown(self) -> float:
        """How long it took to log in once more, over what a current machine takes; from 1 to 20.
        Devices that are found slowly, and links, make a boot and the first login long, and no
        program slow.
        """
        if not self._login_s:
            return MAX_SLOWDOWN
        return min(MAX_SLOWDOWN, max(1.0, self._login_s / REFERENCE_LOGIN_S))

    @property
    def age_s(self) -> float:
        """Wall seconds since the jump."""
        return time.monotonic() - self._started

    @property
    def facts(self) -> dict[str, str]:
        """For the report. ready_s, login_s: seconds from the jump until the guest was ready, and
        from then until we were logged in. back_s: from when its power was switched on until its own
        system was there again, once it is.
        """
        found = {"name": self._board.name, "kind": "baremetal"}
        found["deploy"] = self._board.config.deploy
        found |= self._about.facts if self._about else {}
        found |= {"command_line": self.append} if self.append else {}
        if self._ready_s:
            found |= {"ready_s": f"{self._ready_s:.2f}", "slowdown": f"{self.slowdown:.2f}"}
        if self._login_s:
            found["login_s"] = f"{self._login_s:.2f}"
        if self._closed and self._board.back_s:
            found["back_s"] = f"{self._board.back_s:.0f}"
        return found

    def boot(self) -> None:
        """From the board's own system to the kernel's login. BootError when it does not get there,
        InfrastructureError when that is not the kernel's fault.
        """
        session, self._about = self._board.ready(self._number)
        self.append = kernel_command_line(self._board.config, self._root, self._about, self._append)
        self._check_memory(self._about)
        self._board.deploy.check_words(self.append)
        self._loaded = True
        self._board.deploy.load(session, self._kernel.image, self._root.archive, self.append)
        self._jumped = True
        self._console = self._board.jump(self._path, self._kernel.release, self._root.append)
        self._started = time.monotonic()
        self._watcher.start()
        self._await_ready()
        self._ready_s = self.age_s
        try:
            with self._session(_LOGIN_S, MAX_SLOWDOWN):
                began = time.monotonic()
                self._first = self._session(_LOGIN_S, MAX_SLOWDOWN)
        except ConnectionLost as error:
            raise self._not_booted(f"let nobody log in: {error.message}") from error
        self._login_s = time.monotonic() - began
        self._first.slowdown = self.slowdown

    def connect(self) -> Session:
        """A session: the first time that in which boot() logged in."""
        session, self._first = self._first, None
        if session is not None:
            return session
        return self._session(_LOGIN_S * self.slowdown, self.slowdown)

    def _session(self, timeout_s: float, slowdown: float) -> Session:
        return Session(
            self.endpoint, connect_timeout_s=timeout_s, slowdown=slowdown, alive=self.alive
        )

    def alive(self) -> bool:
        """It has not panicked to its end, nor has the board begun anew."""
        return self._console is not None and not self._ended

    def panicked(self) -> bool:
        """Its console has said so."""
        return self._panicked

    def slipped(self) -> bool:
        """Silicon does not."""
        return False

    def diagnose(self) -> str:
        """What its tasks are stuck in, by sysrq over its line: bounded, and says so."""
        if not self.alive():
            return ""
        start, deadline = self.console.size(), time.monotonic() + _DIAGNOSIS_S
        try:
            for letter in "wlt":
                if not self._sysrq(letter, deadline):
                    break
        except (InfrastructureError, OSError) as error:
            return f"the kernel could not be asked: {error}"
        said = without_kernel_threads(self.console.since(start))
        if _SYSRQ.search(said):
            return said
        return f"the kernel did not answer a break and sysrq in {_DIAGNOSIS_S:.0f} s\n{said}"

    def cut(self) -> None:
        """Whoever uses the machine finds it gone; it has to be closed all the same."""
        self._end()

    def close(self) -> None:
        """Bring the board back into its own system; idempotent. InfrastructureError where it does
        not come.
        """
        if self._closed:
            return
        self._over.set()
        session, self._first = self._first, None
        if session:
            session.close()
        if self._watcher.is_alive():
            self._watcher.join()
        if self._jumped:
            try:
                self._end()
            finally:
                self._board.come_back()
        elif self._loaded:
            self._board.unload()
        self._closed = True

    # ------------------------------------------------------------------------------------------

    def _check_memory(self, about: About) -> None:
        """Its image has to fit twice: packed, and as a disk."""
        needed = 2 * self._root.used_mib + 256
        if about.memory_kib // 1024 < needed:
            raise InfrastructureError(
                f"{self._board.name} has {about.memory_kib // 1024} MiB of memory, image "
                f"{self._board.config.image} needs {needed}"
            )

    def _end(self) -> None:
        with self._ending:
            if not self._ended:
                self._ended = True
                self._board.let_go(self._number + 1)

    def _watch(self) -> None:
        """Notice its end: a panic that has been told, or that the board begins anew. What cannot be
        recorded is noticed by who reads the console.
        """
        with contextlib.suppress(InfrastructureError, OSError):
            known, last, told, anew = 0, 0.0, 0.0, False
            while not self._over.wait(_LOOK_S):
                now = time.monotonic()
                if (size := self.console.size()) > known:
                    news = self.console.since(max(0, known - _OVERLAP), size)
                    self._panicked = self._panicked or bool(re.search(_PANIC, news))
                    anew = anew or self._begins_anew(news)
                    known, last = size, now
                    told = told or (now if self._panicked else 0.0)
                # What comes up says more of itself; a report is still being printed.
                silent = (told or anew) and now - last > _QUIET_S
                if silent or (told and now - told > _MOST_S):
                    self._end()
                    return

    def _begins_anew(self, news: str) -> bool:
        """Whether another kernel than ours speaks, or ours a second time, or a boot loader or a
        login, which images have not.
        """
        if _OTHER.search(news):
            return True
        if BANNER not in news:
            return False
        releases = _releases(self.console.text())
        return len(releases) > 1 or any(one != self._kernel.release for one in releases)

    def _await_ready(self) -> None:
        try:
            seen = coming.decided(self.console, [READY, _DEAF, _PANIC], _BOOT_S, _SILENCE_S)
        except TimeoutError as error:
            self._check_who(error)
            raise self._not_booted(str(error)) from error
        except coming.StandsStillError as error:
            self._check_who(error)
            words = str(error)
            raise (self._not_booted(words) if error.mute else self._hangs(words)) from error
        except EOFError as error:
            raise self._blamed("made the board begin anew before login") from error
        if seen != READY:
            self.console.wait_closed(_MOST_S if "panic" in seen else 0.0)
            raise self._not_booted(f"did not reach login: {seen.strip()}")

    def _check_line(self, error: Exception) -> None:
        """That a kernel has said nothing more is not its fault where nobody could hear it."""
        if wire.gaps(self.console.text()) or self._board.deaf:
            raise InfrastructureError(
                f"the console of {self._board.name} was lost while the kernel booted",
                hint=f"the whole console is in {self._path}",
            ) from error

    def _check_who(self, error: Exception) -> None:
        """That nobody answers, neither the board's own system (InfrastructureError) nor the kernel,
        which would be up then, and unheard (BootError).
        """
        self._check_line(error)
        self._board.check()
        if self._board.in_its_system():
            if self._has_begun(self.console.text()):
                raise self._not_booted("made the board begin anew before login") from error
            raise InfrastructureError(
                f"{self._board.name} is in its own system, and how it got there was not heard: "
                f"whether it has begun the kernel it was given by {self._board.config.deploy} "
                "nobody can tell",
                **self._words(),
            ) from error
        try:
            self._session(_WHO_S, MAX_SLOWDOWN).close()
        except (ConnectionLost, InfrastructureError):
            return
        serial = self._board.config.serial
        raise self._not_booted(
            f"is up, and {error}: is its console on {serial}, and has it a driver for that?"
        ) from error

    def _blamed(self, why: str) -> RigError:
        """BootError; InfrastructureError where the kernel has not said its first word yet, and what
        came instead is the board's own: it was never begun.
        """
        self._board.check()  # somebody else may have switched it
        text = self.console.text()
        began = self._has_begun(text)
        own = self._about.facts.get("known_good") if self._about else None
        if not began and (_OTHER.search(text) or own in _releases(text)):
            config = self._board.config
            return InfrastructureError(
                f"{config.name} did not begin the kernel it was given by {config.deploy}",
                **self._words(),
            )
        return self._not_booted(why)

    def _has_begun(self, text: str) -> bool:
        """Whether a console proves that it has."""
        # From kernel to kernel there is nobody who could have declined.
        if self._board.config.deploy == "kexec" and JUMP in text:
            return True
        own = self._about.facts.get("known_good", "") if self._about else ""
        ours = spoke(text, self._kernel.release, own, self._root.append)
        return self._kernel.release in _releases(text) if ours is None else ours

    def _not_booted(self, why: str) -> BootError:
        return BootError(f"kernel {self._kernel.name} {why}", **self._words())

    def _hangs(self, why: str) -> HangError:
        """It has said something, and no more: what its tasks do."""
        heard, words = self.console.size(), self._words()
        words["output"] += f"\n{self.diagnose()}"
        return HangError(f"kernel {self._kernel.name} {why}", **words, heard=heard)

    def _words(self) -> dict[str, str]:
        hint = f"the whole console is in {self._path}"
        return {"hint": hint, "output": self.console.ending()}

    def _sysrq(self, letter: str, deadline: float) -> bool:
        """Send a break and a letter; True when an answer has come and been quiet, or none has.
        InfrastructureError or OSError where the line carries none.

        The letter has to come when the break is over, and nothing says when that is: where none
        answers, it comes once more, and later.
        """
        start, quiet = self.console.size(), False
        for pause_s in _AFTER_A_BREAK_S:
            self._board.send_break()
            time.sleep(pause_s)
            self.console.send(letter.encode())
            quiet = self._is_quiet(start, deadline)
            # A port that took it for an ordinary one may show it.
            if _SYSRQ.search(self.console.since(start)) or self.console.closed:
                break
        return quiet

    def _is_quiet(self, start: int, deadline: float) -> bool:
        """Whether what has been said since start is over, or nothing was."""
        while (left := deadline - time.monotonic()) > 0:
            quiet_s = 1.0 if self.console.size() > start else _ANSWER_S
            if not self.console.wait_news(self.console.size(), min(left, quiet_s)):
                return True
            if self.console.closed:
                return False
        return False


__all__ = ["BaremetalMachine", "Board", "kernel_command_line"]
