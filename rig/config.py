"""rig.toml to frozen dataclasses, validated once; an unknown key names the nearest known one."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from rig.errors import UsageError

FILE_NAME = "rig.toml"

_T = TypeVar("_T")


MAKE_OF_RIG = (
    *("ARCH", "BINDGEN", "CC", "CROSS_COMPILE", "INSTALL_HDR_PATH", "KAFLAGS", "KCFLAGS"),
    *("LOCALVERSION", "O", "PAHOLE", "RUSTC"),
)
"""Make's variables that the rig sets itself."""


@dataclass(frozen=True)
class KernelConfig:
    """[kernel.<name>]: what to build.

    source: "deb" (Debian's linux-source package), a directory, a git ref ("REPO#REF"), or a
        tarball path or URL. sha256: required with a tarball. tarball: the URL that stands in
        for "deb" on a host without apt.
    series: directory or mbox of patches, or "" for an unpatched kernel. on_top: more of them that
        are no part of it, "" for none.
    base: a config target of the tree (tinyconfig, defconfig ...). configs: fragment names under
        kernel-configs/ or paths, merged in order.
    make: "NAME=VALUE", variables for make beside those that the rig sets.
    accepted: the source version the series was last accepted on, or "".
    """

    name: str
    source: str = "deb"
    package: str = "linux-source-6.12"
    sha256: str = ""
    tarball: str = ""
    series: str = ""
    on_top: str = ""
    arch: str = "x86_64"
    base: str = "tinyconfig"
    configs: tuple[str, ...] = ()
    make: tuple[str, ...] = ()
    accepted: str = ""

    @property
    def patches(self) -> tuple[str, ...]:
        """Where its patches are, in the order in which they are applied."""
        return tuple(path for path in (self.series, self.on_top) if path)


@dataclass(frozen=True)
class MachineConfig:
    """[machine.<name>]: what to boot on.

    accel: "auto", "tcg" or "kvm". append: more words for the kernel. dump: keep the guest's memory
    when a program in it does not end.
    """

    name: str
    kind: str = "qemu"
    arch: str = "x86_64"
    cpus: int = 2
    memory_mib: int = 1024
    accel: str = "auto"
    image: str = "debian"
    append: str = ""
    dump: bool = False


@dataclass(frozen=True)
class PowerConfig:
    """[machine.<name>.power]: how a board's power is switched.

    kind: "ipmi" (ipmitool), "redfish", "pdudaemon" or "command". address, port: of the BMC or the
    daemon. user, password: who logs in there; password is a reference (rig/credential.py).
    cipher: IPMI's cipher suite, where it cannot be agreed on. system: Redfish's name for the board,
    where its BMC has several. certificate: a PEM file, the BMC's own. pdu, outlet: of
    pdudaemon. on, off, status: shell commands; status ends with 0 for on and 1 for off, and may
    stand with pdudaemon as well, which cannot tell by itself. takes_s: how long a change may take
    until it is seen. rest_s: off before it is on again. name: of the port, where a place of
    labgrid's has several.
    """

    kind: str
    name: str = ""
    address: str = ""
    port: int = 0
    user: str = ""
    password: str = ""
    cipher: int = -1
    system: str = ""
    certificate: str = ""
    pdu: str = ""
    outlet: str = ""
    on: str = ""
    off: str = ""
    status: str = ""
    takes_s: float = 60.0
    rest_s: float = 3.0


@dataclass(frozen=True)
class ConsoleConfig:
    """[machine.<name>.console]: how one gets to a board's serial line.

    kind: "tcp" (raw), "telnet" (ser2net, terminal servers), "ipmi" (serial over LAN), "conserver",
    "serial" (a port of this host) or "command" (a program that carries the line: ssh). address,
    port: of the server. user, password, cipher: as of the power; where "ipmi" has no address it is
    the BMC that switches the power. name: of the conserver's console, or of the
    port where a place of labgrid's has several. device, speed: of the port.
    """

    kind: str
    address: str = ""
    port: int = 0
    user: str = ""
    password: str = ""
    cipher: int = -1
    name: str = ""
    device: str = ""
    speed: int = 115200
    command: str = ""


@dataclass(frozen=True)
class SystemConfig:
    """[machine.<name>.system]: the board's own, known-good system, which its disk boots.

    address, port: of its sshd; of a place of labgrid's without an address those, and the user, are
    those of its NetworkService. kernel_port: where a kernel under test is reached, which listens on
    port 22 of the same card; 0 for the same as port (22, or one that is forwarded there). user: one
    who may do everything there. key: the file of a private key that logs in. host_key:
    "ssh-ed25519 AAAA...", the only one that is accepted. directory: the one place on the disk where
    the rig writes. returns_s: how long after its power is on again the system may take until it
    lets us in.
    """

    key: str
    host_key: str
    address: str = ""
    port: int = 22
    kernel_port: int = 0
    user: str = "root"
    directory: str = "/var/lib/rig"
    returns_s: float = 300.0


@dataclass(frozen=True)
class NetworkConfig:
    """[machine.<name>.network]: where kernels are served to a board that boots from the network.

    address, port: of this host, towards the board. url: what the board calls that, where it is
    another one ("" for http://ADDRESS:PORT). tftp: the port of TFTP, 0 for none; loaders: files of
    iPXE that firmware without it is given there, by their names.
    """

    address: str
    port: int = 8037
    url: str = ""
    tftp: int = 0
    loaders: tuple[str, ...] = ()


@dataclass(frozen=True)
class BoardConfig:
    """[machine.<name>] of kind "baremetal": a board.

    image: what kernels under test find as their root, in memory. append: more words for them.
    serial: their console, as the kernel names it. configs: fragments that the board's hardware
    needs in each kernel. lock: a directory, or HOST:DIRECTORY, for one run at a time. board: what
    the lock is called there, where several tables are of one board. deploy: how
    they get there: "kexec", "grub" or "systemd-boot" (booted once), or "network" (the firmware asks
    there first).
    place, coordinator: of labgrid, for kind "labgrid": whose turn it is, power and console by it.
    """

    name: str
    power: PowerConfig
    console: ConsoleConfig | None = None
    system: SystemConfig | None = None
    network: NetworkConfig | None = None
    deploy: str = "kexec"
    place: str = ""
    coordinator: str = ""
    kind: str = "baremetal"
    arch: str = "x86_64"
    image: str = "debian"
    append: str = ""
    serial: str = "ttyS0,115200"
    configs: tuple[str, ...] = ()
    lock: str = ""
    board: str = ""

    @property
    def locked_as(self) -> str:
        """What its lock is called."""
        return self.board or self.name


@dataclass(frozen=True)
class MutantsConfig:
    """[mutants]: a directory of patches that each break the series, for `rig mutants`.

    smoke: "suite/program" that has to pass in spite of each of them, or "". env: more for the
    environment of the programs.
    """

    directory: str = "tests/mutants"
    smoke: str = ""
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """The whole of rig.toml; root is the directory that holds it, relative paths start there."""

    root: Path
    default_kernel: str
    default_machine: str
    suites: tuple[str, ...] = ()
    kernels: dict[str, KernelConfig] = field(default_factory=dict)
    machines: dict[str, MachineConfig] = field(default_factory=dict)
    boards: dict[str, BoardConfig] = field(default_factory=dict)
    mutants: MutantsConfig = field(default_factory=MutantsConfig)

    def kernel(self, name: str | None = None) -> KernelConfig:
        """The named kernel, or the default one; UsageError naming the nearest known name."""
        return _pick(self.kernels, name or self.default_kernel, "kernel", self.root)

    def machine(self, name: str | None = None) -> MachineConfig | BoardConfig:
        """The named machine, or the default one; UsageError naming the nearest known name, or what
        a board has to be told before kernels are booted on it.
        """
        wanted = name or self.default_machine
        board = self.boards.get(wanted)
        if board is None:
            return _pick(self.machines, wanted, "machine", self.root)
        for part in ("console", "system"):
            if getattr(board, part) is None:
                where = f"{self.root / FILE_NAME}: [machine.{wanted}]"
                raise UsageError(
                    f"{where} has no {part}: no kernel can be booted on it",
                    hint=f"[machine.{wanted}.{part}], docs/add-a-board.md",
                )
        return board

    def emulated(self, name: str | None = None) -> MachineConfig:
        """As machine(), for what only QEMU's machines can do."""
        found = self.machine(name)
        if isinstance(found, BoardConfig):
            raise UsageError(f"machine {found.name} is a board: it has the CPUs and memory it has")
        return found

    def board(self, name: str) -> BoardConfig:
        """The named board; UsageError naming the nearest known one."""
        if name in self.machines:
            raise UsageError(f"machine {name} is no board: it has no power to be switched")
        return _pick(self.boards, name, "board", self.root)


def find_root(start: Path) -> Path:
    """The nearest directory at or above start with a rig.toml; UsageError when there is none."""
    for place in (start.absolute(), *start.absolute().parents):
        if (place / FILE_NAME).is_file():
            return place
    raise UsageError(
        f"no {FILE_NAME} in {start.absolute()} or above it",
        hint="run rig inside a checkout of the project, or give --rig-toml PATH",
    )


def load(path: Path) -> Config:
    """Read and validate a rig.toml; every mistake is a UsageError naming file, table and key."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error
    _reject_unknown(path, "", data, ("kernel", "machine", "default", "mutants"))
    default = _table(path, "default", data.get("default", {}))
    _reject_unknown(path, "default", default, ("kernel", "machine", "suites"))
    kernels = _tables(path, "kernel", data, KernelConfig)
    machines, boards = _machines(path, data)
    mutants = _table(path, "mutants", data.get("mutants", {}))
    _reject_unknown(path, "mutants", mutants, ("directory", "smoke", "env"))
    config = _convert(
        path,
        "default",
        {
            "root": path.parent.absolute(),
            "default_kernel": default.get("kernel", next(iter(kernels), "")),
            "default_machine": default.get("machine", next(iter(machines), "")),
            "suites": default.get("suites", []),
            "kernels": kernels,
            "machines": machines,
            "boards": boards,
            "mutants": _convert(path, "mutants", mutants, MutantsConfig),
        },
        Config,
    )
    for kernel in kernels.values():
        _check_make(path, kernel)
    for machine in machines.values():
        _check_machine(path, machine)
    for board in boards.values():
        _check_power(path, board)
        _check_console(path, board)
        _check_system(path, board)
        _check_deploy(path, board)
        _check_place(path, board)
    _check_tables_of_one(path, list(config.boards.values()))
    config.kernel()
    config.machine()
    return config


def check_table(path: Path, where: str, value: Any, cls: type) -> None:
    """UsageError for a key that the dataclass has not: it would be believed to do something."""
    assert dataclasses.is_dataclass(cls)
    if isinstance(value, dict):
        _reject_unknown(path, where, value, tuple(one.name for one in dataclasses.fields(cls)))


def nearest(word: str, known: list[str]) -> str:
    """A hint naming the known word closest to this one, or listing them all."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"


def check_reference(reference: str, where: str) -> None:
    """UsageError for what is no reference to a secret; it may be the secret, so it is not shown.

    What there is: env:NAME, file:PATH, keyring:SERVICE/USER; "" for none. rig/credential.py reads
    them.
    """
    kind, _, rest = reference.partition(":")
    if reference and (kind not in ("env", "file", "keyring") or not rest):
        raise UsageError(
            f"{where} is no reference to a secret",
            hint="write env:NAME, file:PATH (of mode 0600) or keyring:SERVICE/USER",
        )


def _check_make(path: Path, kernel: KernelConfig) -> None:
    where = f"{path}: [kernel.{kernel.name}] make"
    for one in kernel.make:
        name, equals, _ = one.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.-]*", name):
            raise UsageError(f"{where} has {one!r}", hint="NAME=VALUE, as on make's command line")
        if name in MAKE_OF_RIG:
            raise UsageError(f"{where} sets {name}, which the rig does")


def _check_machine(path: Path, machine: MachineConfig) -> None:
    where = f"{path}: [machine.{machine.name}]"
    if machine.accel not in ("auto", "tcg", "kvm"):
        raise UsageError(f"{where} accel is {machine.accel!r}", hint="one of auto, tcg, kvm")
    if machine.kind != "qemu":
        raise UsageError(
            f"{where} kind is {machine.kind!r}", hint="known: qemu, baremetal, labgrid"
        )
    if not 1 <= machine.cpus <= 64:
        raise UsageError(f"{where} cpus is {machine.cpus}", hint="between 1 and 64")
    if not 128 <= machine.memory_mib <= 1 << 20:
        raise UsageError(f"{where} memory_mib is {machine.memory_mib}", hint="at least 128")


DEPLOYS = ["kexec", "grub", "systemd-boot", "network"]
_LOGIN = ("address", "port", "user", "password")
_SWITCHES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ipmi": (("address", "user", "password"), (*_LOGIN, "cipher")),
    "redfish": (("address", "user", "password"), (*_LOGIN, "system", "certificate")),
    "pdudaemon": (("address", "pdu", "outlet"), ("address", "port", "pdu", "outlet", "status")),
    "command": (("on", "off", "status"), ("on", "off", "status")),
    "labgrid": ((), ("name",)),
}
"""What each kind of switch has to be told, and what it may be told."""


_LINES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "tcp": (("address", "port"), ("address", "port")),
    "telnet": (("address", "port"), ("address", "port")),
    "ipmi": ((), (*_LOGIN, "cipher")),
    "conserver": (("address", "name"), ("address", "port", "name")),
    "serial": (("device",), ("device", "speed")),
    "command": (("command",), ("command",)),
    "labgrid": ((), ("name",)),
}
"""The same of each kind of console."""


def _check_power(path: Path, board: BoardConfig) -> None:
    where = f"{path}: [machine.{board.name}.power]"
    power = board.power
    _check_way(where, power, _SWITCHES, ("takes_s", "rest_s"))
    if not 1 <= power.takes_s <= 3600 or not 0 <= power.rest_s <= 600:
        raise UsageError(f"{where} takes_s is 1 to 3600, rest_s 0 to 600")


def _check_console(path: Path, board: BoardConfig) -> None:
    where = f"{path}: [machine.{board.name}.console]"
    line = board.console
    if line is None:
        return
    _check_way(where, line, _LINES, ())
    if line.kind == "ipmi" and not line.address and board.power.kind != "ipmi":
        raise UsageError(f"{where} has no address", hint="the power's switch is no BMC of IPMI")
    if line.kind == "ipmi" and line.address and not (line.user and line.password):
        raise UsageError(f"{where} has no {'password' if line.user else 'user'}")


def _check_system(path: Path, board: BoardConfig) -> None:
    where, system = f"{path}: [machine.{board.name}.system]", board.system
    if system is None:
        return
    for name in ("address", "key", "user"):
        if not getattr(system, name) and not (name == "address" and board.place):
            raise UsageError(f"{where} has no {name}")
    if not re.fullmatch(r"(ssh|ecdsa)-[\w.-]+ [A-Za-z0-9+/=]+", system.host_key):
        hint = f"`ssh-keyscan -t ed25519 {system.address}`, less the address, over a safe line"
        raise UsageError(f"{where} host_key is no public key of a host", hint=hint)
    if not re.fullmatch(r"(/[\w.-]+){2,}", system.directory) or "/.." in system.directory:
        raise UsageError(f"{where} directory is {system.directory!r}", hint="as /var/lib/rig")
    if not 10 <= system.returns_s <= 3600:
        raise UsageError(f"{where} returns_s is 10 to 3600")
    if not 1 <= system.port <= 65535 or not 0 <= system.kernel_port <= 65535:
        wrong = system.port if not 1 <= system.port <= 65535 else system.kernel_port
        raise UsageError(f"{where} port is {wrong}", hint="between 1 and 65535")
    if board.arch != "x86_64":
        raise UsageError(f"{where}: no kernel is booted on a board of {board.arch} yet")


def _check_deploy(path: Path, board: BoardConfig) -> None:
    where, network = f"{path}: [machine.{board.name}]", board.network
    if board.deploy not in DEPLOYS:
        raise UsageError(f"{where} deploy is {board.deploy!r}", hint=nearest(board.deploy, DEPLOYS))
    if network is None:
        if board.deploy == "network":
            raise UsageError(f"{where} has no network", hint=f"[machine.{board.name}.network]")
        return
    if not network.address or not 1 <= network.port <= 65535:
        raise UsageError(f"{where[:-1]}.network] needs an address of this host, and a port")
    if network.url and not re.fullmatch(r"http://[\w.:\[\]-]+(/[\w./-]*)?", network.url):
        hint = "as http://192.0.2.1:8037; firmware knows no other kind everywhere"
        raise UsageError(f"{where[:-1]}.network] url is {network.url!r}", hint=hint)
    if not 0 <= network.tftp <= 65535:
        hint = "firmware asks port 69; 0 for no TFTP"
        raise UsageError(f"{where[:-1]}.network] tftp is {network.tftp}", hint=hint)
    if network.loaders and not network.tftp:
        hint = "tftp = 69, where firmware asks"
        raise UsageError(f"{where[:-1]}.network] has loaders, and no TFTP", hint=hint)


def _check_tables_of_one(path: Path, boards: Sequence[BoardConfig]) -> None:
    """One board in two tables would have two locks, and two runs."""
    seen: dict[tuple[str, int], BoardConfig] = {}
    for board in boards:
        if not re.fullmatch(r"[\w.-]+", board.locked_as):
            raise UsageError(
                f"{path}: [machine.{board.name}] {board.locked_as!r} is no name of a lock",
                hint='board = "...": letters, digits, dots and dashes',
            )
        if board.system is None or not board.system.address:
            continue
        first = seen.setdefault((board.system.address, board.system.port), board)
        if first.place != board.place:
            raise UsageError(
                f"{path}: [machine.{board.name}] is the board of [machine.{first.name}], and would "
                "be held twice",
                hint="labgrid guards a place, and knows nothing of another table of its board",
            )
        names = (first.locked_as, board.locked_as) if not board.place else ("", "")
        if first.lock != board.lock or names[0] != names[1]:
            raise UsageError(
                f"{path}: [machine.{board.name}] is the board of [machine.{first.name}], and would "
                "be held twice",
                hint=f'board = "{first.locked_as}" and one lock in each of them: that of both',
            )


def _check_place(path: Path, board: BoardConfig) -> None:
    where = f"{path}: [machine.{board.name}]"
    by_labgrid = [
        part
        for part in ("power", "console")
        if getattr(getattr(board, part), "kind", "") == "labgrid"
    ]
    if board.kind == "labgrid" and (":" in board.lock or "/" in board.place):
        what = "lock" if ":" in board.lock else "place"
        raise UsageError(
            f"{where} {what} is {getattr(board, what)!r}",
            hint="lock is a directory of this host: between hosts labgrid's coordinator decides",
        )
    if board.kind != "labgrid" and (board.place or board.coordinator or by_labgrid):
        what = by_labgrid[0] if by_labgrid else "a place"
        raise UsageError(f"{where} has {what} of labgrid, and is of kind {board.kind}")


def _check_way(
    where: str,
    told: PowerConfig | ConsoleConfig,
    kinds: dict[str, tuple[tuple[str, ...], tuple[str, ...]]],
    always: tuple[str, ...],
) -> None:
    if told.kind not in kinds:
        raise UsageError(f"{where} kind is {told.kind!r}", hint=nearest(told.kind, [*kinds]))
    needed, allowed = kinds[told.kind]
    found = {
        one.name
        for one in dataclasses.fields(told)
        if one.name != "kind" and getattr(told, one.name) != one.default
    }
    if missing := [name for name in needed if name not in found]:
        raise UsageError(f"{where} has no {missing[0]}", hint=f"{told.kind} needs it")
    if beside := sorted(found - {*allowed, *always}):
        hint = f"{told.kind} takes {', '.join(allowed)}"
        raise UsageError(f"{where} has {beside[0]}, which {told.kind} does not know", hint=hint)
    check_reference(told.password, f"{where} password")
    if not 0 <= told.port <= 65535:
        raise UsageError(f"{where} port is {told.port}", hint="between 1 and 65535")


def _pick(values: dict[str, _T], name: str, what: str, root: Path) -> _T:
    if name not in values:
        raise UsageError(
            f"{root / FILE_NAME} has no {what} {name!r}", hint=nearest(name, list(values))
        )
    return values[name]


def _table(path: Path, where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{path}: {where} must be a table ([{where}])")
    return value


def _tables(path: Path, kind: str, data: dict[str, Any], cls: type[_T]) -> dict[str, _T]:
    found: dict[str, _T] = {}
    assert dataclasses.is_dataclass(cls)
    known = tuple(f.name for f in dataclasses.fields(cls) if f.name != "name")
    for name, value in _table(path, kind, data.get(kind, {})).items():
        where = f"{kind}.{name}"
        table = _table(path, where, value)
        _reject_unknown(path, where, table, known)
        found[name] = _convert(path, where, {**table, "name": name}, cls)
    return found


def _machines(
    path: Path, data: dict[str, Any]
) -> tuple[dict[str, MachineConfig], dict[str, BoardConfig]]:
    """Those of QEMU, and boards."""
    split: dict[bool, dict[str, Any]] = {True: {}, False: {}}
    for name, table in _table(path, "machine", data.get("machine", {})).items():
        own = _table(path, f"machine.{name}", table)
        if own.get("kind") == "labgrid":
            own = _of_labgrid(path, name, own)
        split[own.get("kind") in ("baremetal", "labgrid")][name] = own
    for name, table in split[True].items():
        parts: tuple[tuple[str, type], ...] = (
            *(("power", PowerConfig), ("console", ConsoleConfig), ("system", SystemConfig)),
            ("network", NetworkConfig),
        )
        for part, cls in parts:
            where = f"machine.{name}.{part}"
            known = tuple(one.name for one in dataclasses.fields(cls))
            _reject_unknown(path, where, _table(path, where, table.get(part, {})), known)
    machines = _tables(path, "machine", {"machine": split[False]}, MachineConfig)
    return machines, _tables(path, "machine", {"machine": split[True]}, BoardConfig)


def _of_labgrid(path: Path, name: str, table: dict[str, Any]) -> dict[str, Any]:
    """A board whose power and console are those of its place, unless it says otherwise."""
    where = f"{path}: [machine.{name}]"
    if not table.get("place"):
        raise UsageError(f"{where} has no place", hint='place = "...", as labgrid calls it')
    return {"power": {"kind": "labgrid"}, "console": {"kind": "labgrid"}, **table}


def _reject_unknown(path: Path, where: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            place = f"[{where}]" if where else "the top level"
            raise UsageError(
                f"{path}: unknown key {key!r} in {place}", hint=nearest(key, list(known))
            )


def _convert(path: Path, where: str, value: dict[str, Any], cls: type[_T]) -> _T:
    try:
        return msgspec.convert(value, cls, dec_hook=lambda _type, raw: raw)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: [{where}] {error}") from error
