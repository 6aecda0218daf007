"""rig.toml to frozen dataclasses, validated once; an unknown key names the nearest known one."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
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
    series: directory or mbox of patches, or "" for an unpatched kernel.
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
    arch: str = "x86_64"
    base: str = "tinyconfig"
    configs: tuple[str, ...] = ()
    make: tuple[str, ...] = ()
    accepted: str = ""


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
    mutants: MutantsConfig = field(default_factory=MutantsConfig)

    def kernel(self, name: str | None = None) -> KernelConfig:
        """The named kernel, or the default one; UsageError naming the nearest known name."""
        return _pick(self.kernels, name or self.default_kernel, "kernel", self.root)

    def machine(self, name: str | None = None) -> MachineConfig:
        """The named machine, or the default one; UsageError naming the nearest known name."""
        return _pick(self.machines, name or self.default_machine, "machine", self.root)


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
    machines = _tables(path, "machine", data, MachineConfig)
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
            "mutants": _convert(path, "mutants", mutants, MutantsConfig),
        },
        Config,
    )
    for kernel in kernels.values():
        _check_make(path, kernel)
    for machine in machines.values():
        _check_machine(path, machine)
    config.kernel()
    config.machine()
    return config


def nearest(word: str, known: list[str]) -> str:
    """A hint naming the known word closest to this one, or listing them all."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"


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
        raise UsageError(f"{where} kind is {machine.kind!r}", hint="known: qemu")
    if not 1 <= machine.cpus <= 64:
        raise UsageError(f"{where} cpus is {machine.cpus}", hint="between 1 and 64")
    if not 128 <= machine.memory_mib <= 1 << 20:
        raise UsageError(f"{where} memory_mib is {machine.memory_mib}", hint="at least 128")


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
