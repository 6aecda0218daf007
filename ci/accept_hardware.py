"""Measure what boards must hold, on an emulated one, and write ci/acceptance/hardware.json.

Run by `make accept WHAT=hardware`; some four hours on an idle host. The board is a QEMU machine
with Debian on its disk (tests/emulated_board.py), its power OpenIPMI's simulator, its line telnet.
A step that passed is kept.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).absolute().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import emulated_bmc  # noqa: E402
import emulated_board  # noqa: E402
import emulated_lab  # noqa: E402
from accept_loop import Here, exactly, notices, opened, whole  # noqa: E402
from acceptance import Acceptance, Figure, Place, Step, leftovers, say  # noqa: E402
from emulated_board import EmulatedBoard  # noqa: E402
from local_machine import Writer  # noqa: E402

from rig import process  # noqa: E402
from rig.store import open_store  # noqa: E402

NAME = "board1"
KERNELS, EVERY = 20, 4  # of so many, one is broken
RUN_S = 3600.0
FILES = (
    "find $(ls -d / /efi 2>/dev/null) -xdev ! -type d ! -path '/var/lib/rig/*' "
    "! -path '/efi/rig/*' | sort"
)
LKDTM = "lkdtm.cpoint_name=DIRECT lkdtm.cpoint_type"
BROKEN = (
    ("panics early", f"{LKDTM}=PANIC", r"Kernel panic - not syncing: dumptest"),
    ("hangs with interrupts off", f"{LKDTM}=HARDLOCKUP", r"printed nothing more in \d+ s"),
    ("has no network", "rig_net=02:00:00:00:00:00,10.0.2.15,255.255.255.0,", "nobody can log in"),
    ("has no init", "rdinit=/dev/console", r"No working init found"),
    ("has the wrong root", "rdinit=/nothing root=/dev/nowhere", r"Unable to mount root fs"),
)
# Before there is a console; not by a boot loader, which heeds mem= itself.
EARLIER = ("panics before it has a console", "mem=4M", r"Kernel panic - not syncing: ")
# When a rig is killed, by what it or its kernel says then; the board is off at first.
MOMENTS = (
    ("while its board is switched on", b"is off: it is switched on"),
    ("while its kernel comes up", b"Linux version 6."),
    ("while a program runs there", b"there\n"),
    ("while the board comes back", f"waiting for the system of {NAME}".encode()),
)
NOT_BOOTED, LOST = 125, 123  # exit codes of `rig boot -- COMMAND`
BACK = f"{NAME} is back in its own system after"
MEASURED = (
    *("rig", "rig.toml", "images", "kernel-configs", "patches", "guest-tests/abi"),
    *("tests/emulated_board.py", "tests/emulated_bmc.py", "tests/emulated_lab.py"),
    *("ci/accept_hardware.py", "ci/accept_loop.py", "ci/acceptance.py"),
)


@dataclass(frozen=True)
class Bench:
    """A board on the table, its BMC, and the directory that rigs for it run in."""

    here: Here
    board: EmulatedBoard
    bmc: emulated_bmc.Emulated
    project: Path
    heard: list[str] = field(default_factory=list)  # all that its rigs have said

    def toml(self, **more: object) -> str:
        """The board's tables, its power the BMC's; more: of its machine's own."""
        head, _, rest = self.board.toml(**more).partition(f"[machine.{NAME}.power]")
        _, _, tail = rest.partition(f"[machine.{NAME}.console]")
        power = (
            f'[machine.{NAME}.power]\nkind = "ipmi"\naddress = "127.0.0.1"\n'
            f'port = {self.bmc.port}\nuser = "{emulated_bmc.USER}"\n'
            'password = "env:RIG_BMC"\nrest_s = 0.2\n\n'
        )
        lock = f'kind = "baremetal"\nlock = "{self.project / "locks"}"\n'
        own = head.replace('kind = "baremetal"\n', lock)
        return f"{own}{power}[machine.{NAME}.console]{tail}"

    def secrets_told(self) -> int:
        """How many times a password stands in what rigs have said, written or left here."""
        both = f"{emulated_bmc.USER}:{emulated_bmc.PASSWORD}".encode()
        wanted = (emulated_bmc.PASSWORD.encode(), base64.b64encode(both))
        said = ["\n".join(self.heard).encode()]
        said += [path.read_bytes() for path in self.project.rglob("*") if path.is_file()]
        return sum(text.count(one) for text in said for one in wanted)

    def remember(self) -> None:
        """How the disk of its own system, in which it has to be, is now: for changed()."""
        self.in_its_system(f"{FILES} >/var/tmp/before; touch /var/tmp/reference; sync")

    def changed(self) -> list[str]:
        """Files that have come, gone or changed since, outside of the one directory, but for what
        each boot of its own system writes.
        """
        newer = "-newer /var/tmp/reference -o -cnewer /var/tmp/reference"
        script = (
            f"find $(ls -d / /efi 2>/dev/null) -xdev -type f \\( {newer} \\) "
            f"! -path '/var/lib/rig/*' ! -path '/efi/rig/*'; "
            f"{FILES} | diff /var/tmp/before - | sed -n 's/^[<>] //p'; echo looked"
        )
        found = set(self.in_its_system(script).split())
        own = {*emulated_board.EVERY_BOOT, "/var/tmp/before", "/var/tmp/reference", "looked"}
        own |= {"/efi/loader/random-seed"}  # systemd-boot's own
        journal = {one for one in found if one.startswith("/var/log/journal/")}
        return sorted(found - own - journal) if "looked" in found else ["nobody could look"]

    def start(
        self, toml: str, *words: str, password: str = emulated_bmc.PASSWORD
    ) -> subprocess.Popen[bytes]:
        """A rig at work there; both of its streams are one."""
        head = (self.here.clone / "rig.toml").read_text(encoding="utf-8")
        (self.project / "rig.toml").write_text(f"{head}\n{toml}", encoding="utf-8")
        at = words.index("--") if "--" in words else len(words)
        rig = str(self.here.clone / ".venv/bin/rig")
        argv = [rig, *words[:at], "--machine", NAME, *words[at:]]
        env = {**self.here.environment(), "RIG_BMC": password}
        say(f"rig {' '.join(words)}"[:150])
        return process.spawn(
            ["env", "--default-signal=INT", *argv],
            cwd=self.project, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, toml: str, *words: str, password: str = emulated_bmc.PASSWORD) -> tuple[int, str]:
        """Exit code, and what it said."""
        started = self.start(toml, *words, password=password)
        try:
            said, _ = started.communicate(timeout=RUN_S)
        finally:
            process.end(started)
        self.heard.append(said.decode(errors="replace"))
        return int(started.returncode), self.heard[-1]

    def in_its_system(self, command: str) -> str:
        """What a command there says; "" where the board is not in its own system."""
        board = self.board
        known = f"KnownHostsCommand=/bin/echo board {board.installed.host_key}"
        words = [
            "ssh",
            "-i",
            str(board.installed.key),
            "-p",
            str(board.port),
            "-o",
            "BatchMode=yes",
        ]
        words += ["-o", "HostKeyAlias=board", "-o", known, "-o", "IdentitiesOnly=yes"]
        argv = [*words, "-o", "ConnectTimeout=30", "root@127.0.0.1", command]
        done = process.run(argv, timeout_s=120, check=False)
        return done.output if done.returncode == 0 else ""

    @property
    def is_back(self) -> bool:
        """Whether it is in its own system."""
        return "-amd64" in self.in_its_system("uname -r")


@contextlib.contextmanager
def table(
    place: Place, *, uefi: bool, by_tftp: bool = False, over_lan: bool = False
) -> Iterator[Bench]:
    """A board and its BMC, until the step is over. over_lan: its line is the BMC's."""
    here = opened(place)
    project = here.temporary / "project"
    bmc = here.temporary / "bmc"
    for one in (project, bmc):
        one.mkdir()
    for name in ("patches", "kernel-configs", "images", "guest-tests", "ci", "tests"):
        (project / name).symlink_to(here.clone / name)
    with contextlib.ExitStack() as stack:
        install = emulated_board.installed_for_uefi if uefi else emulated_board.installed
        made, memory = install(open_store()), 2048 if uefi else 1536
        board = stack.enter_context(
            emulated_board.standing(NAME, made, here.temporary, memory_mib=memory, by_tftp=by_tftp)
        )
        switch = emulated_bmc.Switch(board.power("on"), board.power("off"))
        # OpenIPMI's simulator hands a break on as telnet has it, which the board's line speaks.
        sol = f"tcp:127.0.0.1:{board.serial}" if over_lan else ""
        powered = stack.enter_context(emulated_bmc.ipmi(bmc, sol, switch=switch))
        yield Bench(here, board, powered, project)


def _name(step: Callable[[Bench], list[Figure]]) -> str:
    return str(getattr(step, "name", step.__name__))


def measured(step: Callable[[Bench], list[Figure]], *, uefi: bool = False, **more: bool) -> Step:
    """A step on a table of its own, that leaves nothing running. uefi: what the board has for
    firmware, and systemd-boot on its disk. more: as of table.
    """

    def on_a_table(place: Place) -> list[Figure]:
        with table(place, uefi=uefi, **more) as bench:
            figures = step(bench)
            how = "the BMC's password in output, results, consoles, locks"
            told = exactly(f"secrets_told_{_name(step)}", bench.secrets_told(), "times", 0, how)
        return [*figures, told, leftovers(place)]

    return on_a_table


def abi(way: str) -> Step:
    """The abi suite on a kernel that got there this way."""

    def step(bench: Bench) -> list[Figure]:
        toml = bench.toml(deploy=way)
        code, said = bench.run(toml, "boot-and-test", "--suite", "abi", "--json", "run.json")
        run = json.loads((bench.project / "run.json").read_bytes()) if code in (0, 1) else {}
        cases = [case["status"] for case in run.get("cases", [])]
        if code:
            say(said[-3000:])
        how = f"rig boot-and-test --suite abi on a board, deploy = {way!r}: "
        how += f"{cases.count('pass')} passed, {cases.count('skip')} skipped"
        right = code == 0 and run.get("machine", {}).get("deploy") == way and "pass" in cases
        return [
            exactly(f"abi_by_{name}", int(right), "runs that pass", 1, how),
            exactly(f"back_after_abi_by_{name}", int(bench.is_back), "boards", 1, how),
        ]

    name = way.replace("-", "_")
    step.name = f"abi_by_{name}"  # type: ignore[attr-defined]
    return measured(step, uefi=way == "systemd-boot")


def in_a_row(bench: Bench) -> list[Figure]:
    """Twenty kernels, five of them broken, each in its own way."""
    right = back = 0
    slowest, bad = 0.0, (EARLIER, *BROKEN[1:])
    for number in range(KERNELS):
        broken = bad[number // EVERY] if number % EVERY == EVERY // 2 else None
        append = broken[1] if broken else f"rig_number={number}"
        began = time.monotonic()
        words = ("boot", "--append", append, "--", "cat", "/proc/cmdline")
        code, said = bench.run(bench.toml(), *words)
        slowest = max(slowest, time.monotonic() - began)
        if broken:
            fine = code == NOT_BOOTED and bool(re.search(broken[2], said))
        else:
            fine = code == 0 and f"rig_number={number}" in said
        fine = fine and "Traceback" not in said
        right += fine
        back += BACK in said and bench.is_back
        if not fine:
            say(f"kernel {number} ({broken[0] if broken else 'whole'}): {code}\n{said[-3000:]}")
    how = f"rig boot on a board by kexec: {', '.join(one[0] for one in bad)}, others whole"
    how += f"; the slowest took {slowest:.0f} s"
    return [
        exactly("kernels_in_a_row_judged_right", right, "kernels", KERNELS, how),
        exactly("kernels_in_a_row_board_back", back, "times", KERNELS, how),
    ]


def broken(way: str) -> Step:
    """Each of the five that are broken, where the board's firmware has begun it."""
    name = way.replace("-", "_")

    def step(bench: Bench) -> list[Figure]:
        right = back = 0
        toml = bench.toml(deploy=way)
        for number, (what, append, words) in enumerate(BROKEN):
            code, said = bench.run(toml, "boot", "--append", append, "--", "true")
            fine = code == NOT_BOOTED and bool(re.search(words, said)) and "Traceback" not in said
            right += fine
            back += BACK in said and bench.is_back
            if not fine:
                say(f"a kernel that {what}, by {way}: {code}\n{said[-3000:]}")
            if not number:
                bench.remember()
        changed = bench.changed()
        how = f"rig boot on a board, deploy = {way!r}: {', '.join(one[0] for one in BROKEN)}"
        return [
            exactly(f"broken_by_{name}_judged_right", right, "kernels", len(BROKEN), how),
            exactly(f"broken_by_{name}_board_back", back, "times", len(BROKEN), how),
            exactly(
                f"changed_by_{name}", len(changed), "files", 0,
                f"on the board's disk, outside of the one directory: {changed[:5]}",
            ),
        ]  # fmt: skip

    step.name = f"broken_by_{name}"  # type: ignore[attr-defined]
    return measured(step, uefi=way == "systemd-boot")


def of_the_tree(bench: Bench) -> list[Figure]:
    """The kernel tree's own tests there, and its unit tests while it boots."""
    figures = []
    for name, words in (("kselftest", ("kselftest", "ipc")), ("kunit", ("kunit",))):
        code, said = bench.run(bench.toml(), *words, "--json", "run.json")
        run = json.loads((bench.project / "run.json").read_bytes()) if code in (0, 1) else {}
        cases = [case["status"] for case in run.get("cases", [])]
        if code:
            say(said[-3000:])
        right = code == 0 and run.get("machine", {}).get("kind") == "baremetal" and "pass" in cases
        how = f"rig {' '.join(words)} on a board: {cases.count('pass')} passed, "
        how += f"{cases.count('skip')} skipped"
        figures.append(exactly(f"{name}_on_a_board", int(right), "runs that pass", 1, how))
    return [*figures, exactly("back_after_the_trees_tests", int(bench.is_back), "boards", 1, how)]


def killed(bench: Bench) -> list[Figure]:
    """kill -9 of a rig in the middle of a run; the next one gets the board back."""
    right = back = 0
    for when, seen in MOMENTS:
        came = _killed(bench, seen)
        code, said = bench.run(bench.toml(), "boot", "--", "echo", "again")
        told = "was left as it was by a run that did not come to its end" in said
        fine = came and code == 0 and told and "again" in said.splitlines()
        right += fine
        back += BACK in said and bench.is_back
        if not fine:
            say(f"kill -9 {when}{'' if came else ', which never came'}: {code}\n{said[-3000:]}")
    how = f"kill -9 of a rig {', '.join(when for when, _ in MOMENTS)}, then rig boot"
    return [
        exactly("recovered_after_kill_9", right, "times", len(MOMENTS), how),
        exactly("back_after_kill_9", back, "times", len(MOMENTS), how),
    ]


def _killed(bench: Bench, seen: bytes) -> bool:
    """Whether a rig has said that, or its kernel has, and was killed then."""
    before = _consoles(bench)
    words = ("boot", "--", "sh", "-c", "echo there; for one in $(seq 20); do sleep 1; done")
    started = bench.start(bench.toml(), *words)
    assert started.stdout is not None
    heard: list[bytes] = []
    reads = (started.stdout, seen, heard, bench.heard)
    reader = threading.Thread(target=_heard, args=reads, daemon=True)
    reader.start()
    while not heard and started.poll() is None:
        if any(seen in path.read_bytes() for path in _consoles(bench) - before):
            break
        time.sleep(0.1)
    came = started.poll() is None
    started.send_signal(signal.SIGKILL)
    process.end(started)
    reader.join()
    return came


def _heard(stream: IO[bytes], seen: bytes, heard: list[bytes], told: list[str]) -> None:
    for line in stream:
        told.append(line.decode(errors="replace"))
        if seen in line:
            heard.append(line)


def _consoles(bench: Bench) -> set[Path]:
    """Of kernels under test."""
    return set(bench.project.glob("results/*/console-0.log"))


def by_tftp(bench: Bench) -> list[Figure]:
    """A board whose firmware fetches the script by TFTP; the rest by HTTP."""
    return _booted(bench, bench.toml(deploy="network"), "by_tftp", "deploy = 'network', tftp")


def _booted(bench: Bench, toml: str, name: str, how: str) -> list[Figure]:
    code, said = bench.run(toml, "boot", "--", "sh", "-c", "echo on $(uname -r)")
    fine = code == 0 and bool(re.search(r"^on 6\.", said, re.MULTILINE))
    if not fine:
        say(f"{code}\n{said[-3000:]}")
    return [
        exactly(f"booted_{name}", int(fine), "kernels", 1, f"rig boot on a board, {how}"),
        exactly(f"back_after_{name}", int(bench.is_back), "boards", 1, how),
    ]


def by_labgrid(bench: Bench) -> list[Figure]:
    """A place of labgrid's whose outlet, line and system are the board's."""
    board, place = bench.board, bench.here.temporary / "lab"
    place.mkdir()

    def state(word: str) -> bool:
        return (
            process.run(["sh", "-c", board.power(word)], timeout_s=60, check=False).returncode == 0
        )

    with emulated_lab.outlet(
        lambda on: state("on" if on else "off"), lambda: state("status")
    ) as outlet:
        resources = (
            f"board:\n  NetworkSerialPort: {{host: 127.0.0.1, port: {board.serial}, "
            f"protocol: rfc2217}}\n  NetworkService: {{address: 127.0.0.1, username: root, "
            f"port: {board.port}}}\n"
            f"  NetworkPowerPort: {{model: simplerest, index: '3', host: '{outlet}'}}\n"
        )
        with emulated_lab.standing(place, resources) as coordinator:
            toml = (
                f'[machine.{NAME}]\nkind = "labgrid"\nplace = "{emulated_lab.PLACE}"\n'
                f'coordinator = "{coordinator}"\nlock = "{bench.project / "locks"}"\n'
                f'append = "{emulated_board.APPEND}"\nconfigs = ["lkdtm"]\n'
                f"[machine.{NAME}.system]\nkey = {json.dumps(str(board.installed.key))}\n"
                f"host_key = {json.dumps(board.installed.host_key)}\n"
            )
            how = "kind = 'labgrid': outlet, line and system are its place's"
            figures = _booted(bench, toml, "by_labgrid", how)
            given_back = emulated_lab.PLACE not in emulated_lab.client(coordinator, "who")
    return [*figures, exactly("place_given_back", int(given_back), "places", 1, how)]


def over_lan(bench: Bench) -> list[Figure]:
    """A board whose line is its BMC's: it is heard, and asked what it is stuck in, by that."""
    head, _, rest = bench.toml().partition(f"[machine.{NAME}.console]")
    _, _, tail = rest.partition(f"[machine.{NAME}.network]")
    toml = f'{head}[machine.{NAME}.console]\nkind = "ipmi"\n\n[machine.{NAME}.network]{tail}'
    figures = _booted(bench, toml, "over_lan", "its console IPMI's serial over LAN")
    path = Writer(bench.project / "mine").suite("stuck", timeout=2, sleeps="sleep 1000")
    code, said = bench.run(toml, "boot-and-test", "--suite", str(path), "--json", "run.json")
    run = json.loads((bench.project / "run.json").read_bytes()) if code in (0, 1) else {}
    late = [case for case in run.get("cases", []) if case["status"] == "timeout"]
    told = code == 1 and len(late) == 1 and "sysrq: Show Blocked State" in late[0]["output"]
    if not told:
        say(f"{code}\n{said[-3000:]}")
    how = "a program that does not end, asked by a break over LAN"
    return [*figures, exactly("asked_over_lan", int(told), "programs", 1, how)]


def modules(bench: Bench) -> list[Figure]:
    """A kernel with modules, of which one crashes: they are there, and its trace has lines."""
    (bench.project / "it.config").write_text(
        "CONFIG_LKDTM=m\nCONFIG_DUMMY=m\nCONFIG_DEBUG_FS=y\nCONFIG_RUNTIME_TESTING_MENU=y\n"
    )
    toml = bench.toml().replace('configs = ["lkdtm"]', "configs = []")
    script = (
        "mount -t debugfs none /sys/kernel/debug 2>/dev/null; ip link add d0 type dummy && lsmod "
        "&& modprobe lkdtm && echo WARNING >/sys/kernel/debug/provoke-crash/DIRECT"
    )
    configs = ("--config", "modules", "--config", "it.config")
    code, said = bench.run(toml, "boot", *configs, "--", "sh", "-c", script)
    there = code == 0 and bool(re.search(r"^dummy +\d+ ", said, re.MULTILINE))
    line = r"^splat: WARNING in lkdtm_WARNING at drivers/misc/lkdtm/bugs\.c:\d+"
    told = bool(re.search(line, said, re.MULTILINE))
    if not there or not told:
        say(f"{code}\n{said[-3000:]}")
    how = "rig boot --config modules: the kernel loads dummy by itself, modprobe lkdtm, which warns"
    return [
        exactly("modules_loaded", int(there), "kernels", 1, how),
        exactly("line_of_a_module_told", int(told), "traces", 1, how),
        exactly("back_after_modules", int(bench.is_back), "boards", 1, how),
    ]


def timed(bench: Bench) -> list[Figure]:
    """Times on a board: what they depend on and how noisy it was is in the report."""
    bench.run(bench.toml(), "boot", "--", "true")  # it is in its own system from here on
    bench.remember()
    words = ("bench", "--timed", "--boots", "1", "--only", "unused.c timed", "--json", "bench.json")
    code, said = bench.run(bench.toml(), *words)
    changed = bench.changed()
    runs = sorted(bench.project.glob("results/*/run.json"), key=lambda path: path.stat().st_mtime)
    machine = json.loads(runs[-1].read_bytes()).get("machine", {}) if runs else {}
    wanted = ("noise", "clocksource", "cpus_online", "back_s")
    lacking = [name for name in wanted if not machine.get(name)]
    if code or lacking:
        say(f"{code}, without {lacking}\n{said[-3000:]}")
    how = f"rig bench --timed on a board: {machine.get('noise', '')}"
    return [
        exactly("timed_on_a_board", code, "exit code", 0, how),
        exactly("conditions_not_told", len(lacking), "facts", 0, ", ".join(wanted)),
        exactly(
            "changed_by_kexec", len(changed), "files", 0,
            f"on the board's disk, outside of the one directory: {changed[:5]}",
        ),
    ]  # fmt: skip


def errors(bench: Bench) -> list[Figure]:
    """What is wrong with a board is one clear error, and no verdict on a kernel."""
    whole_ = bench.toml()
    board = bench.board
    dead = whole_.replace(f"port = {board.serial}\n", f"port = {emulated_bmc.free_port()}\n")
    gone = whole_.replace(f"port = {board.port}\n", f"port = {emulated_bmc.free_port()}\n")
    gone += "returns_s = 15\n"
    fill = "dd if=/dev/zero of=/fill bs=1M 2>/dev/null; sync; df -Pk / | tail -n 1"
    figures = [
        _error(bench, "wrong_bmc_password", whole_, r"password", password="not-that-one"),
        _error(bench, "dead_console", dead, rf"the console of {NAME} at .* is dead: "),
        _error(bench, "unreachable_board", gone, rf"{NAME} did not come back: the system of"),
    ]
    with socket.create_server(("127.0.0.1", 0)) as mute:  # as a terminal server's wrong port
        port = mute.getsockname()[1]
        wrong = whole_.replace(f"port = {board.serial}\n", f"port = {port}\n")
        words = rf"nothing of the system of {NAME} at .* is heard on the console"
        figures.append(_error(bench, "console_of_another", wrong, words))
    elsewhere = bench.toml(serial="ttyS1,115200")
    code, said = bench.run(elsewhere, "boot", "--", "true")
    fine = code == NOT_BOOTED and "is up, and printed nothing" in said
    if not fine:
        say(f"{code}\n{said[-3000:]}")
    how = "rig boot, serial = another port than the line's"
    figures.append(exactly("kernel_up_and_not_heard", int(fine), "kernels", 1, how))
    code, said = bench.run(whole_, "boot", "--", "true")  # it is in its own system from here on
    if code:
        say(said[-2000:])
    bench.in_its_system(f"rm -rf /var/lib/rig/*; {fill}")
    figures.append(_error(bench, "full_board_disk", whole_, rf"the disk of {NAME} is full: "))
    bench.in_its_system("rm -f /fill; sync")
    code, said = bench.run(whole_, "boot", "--", "true")
    how = "rig boot after all of them"
    return [*figures, exactly("board_well_after_errors", code, "exit code", 0, how)]


def _error(bench: Bench, name: str, toml: str, words: str, *, password: str = "") -> Figure:
    code, said = bench.run(toml, "boot", "--", "true", password=password or emulated_bmc.PASSWORD)
    told = [line for line in said.splitlines() if re.search(rf"^rig: .*{words}", line)]
    fine = code == LOST and len(told) == 1 and "Traceback" not in said
    if password and password in said:
        fine = False
    if not fine:
        say(f"{name}: exit code {code}\n{said[-3000:]}")
    how = f"rig boot: {told[0][:200] if told else 'nothing of it was said'}"
    return exactly(f"error_{name}", int(fine), "clear errors", 1, how)


STEPS: dict[str, Step] = {
    "abi_by_kexec": abi("kexec"),
    "abi_by_grub": abi("grub"),
    "abi_by_systemd_boot": abi("systemd-boot"),
    "abi_by_network": abi("network"),
    "in_a_row": measured(in_a_row),
    # Not by systemd-boot as well: that takes a kernel of its own, and nobody has measured it yet.
    "broken_by_grub": broken("grub"),
    "broken_by_network": broken("network"),
    "of_the_tree": measured(of_the_tree),
    "by_tftp": measured(by_tftp, by_tftp=True),
    "by_labgrid": measured(by_labgrid),
    "over_lan": measured(over_lan, over_lan=True),
    "modules": measured(modules),
    "timed": measured(timed),
    "killed": measured(killed),
    "errors": measured(errors),
}


def main(argv: Sequence[str]) -> int:
    """Measure; 0 when every bar was held, else 1."""

    def place(work: Path, name: str, commit: str) -> Place:
        return Here(ROOT, work, name, commit)

    steps = {name: whole(step) for name, step in STEPS.items()}
    about = "measure the must-hold list of boards"
    measure = Acceptance("hardware", about, ROOT, steps, place, notices, MEASURED)
    return measure.main(list(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
