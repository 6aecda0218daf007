"""What this host has, what is missing, and the one line that mends it; standard library only.

ci/bootstrap.py uses it before .venv exists, so everything but the accelerator's probe (which is
looked up when it is asked for) must import on a bare Python 3.11.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
import pwd
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rig.errors import InfrastructureError
from rig.process import run

FAMILIES = ("debian", "fedora", "arch")
NEEDED_DISK_GIB = 12
NEEDED_MEMORY_GIB = 4
NEEDED_SUBIDS = 65536
NEEDED_PYTHON = (3, 11)

APT_UPDATE = "apt-get update"

_TABLE = Path(__file__).with_name("packages.toml")
_APT_LISTS = Path("/var/lib/apt/lists")
_INSTALL = {
    "debian": "apt-get update && {sudo}apt-get install -y --no-install-recommends",
    "fedora": "dnf install -y",
    "arch": "pacman -S --needed --noconfirm",
}
_MODULES = (
    "ahocorasick_rs",
    "cryptography",
    "jinja2",
    "msgspec",
    "paramiko",
    "pexpect",
    "platformdirs",
    "pytest",
    "qemu.qmp",
    "rich",
    "watchfiles",
)


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    found: a version, a path or a figure; "" when there is nothing. wanted: what would do.
    packages: family -> the packages that bring it. note: one sentence for a person.
    remedy: the command that mends it where no package does, or ""; needs_root: of that command.
    """

    name: str
    ok: bool
    found: str = ""
    wanted: str = ""
    packages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    note: str = ""
    remedy: str = ""
    needs_root: bool = True


@dataclass(frozen=True)
class Report:
    """All checks, and the family of the system they were made on ("" when it is not known)."""

    checks: tuple[Check, ...]
    family: str
    root: bool

    @property
    def missing(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.ok)

    @property
    def exit_code(self) -> int:
        """0 when nothing is missing, else 3."""
        return 3 if self.missing else 0

    def packages(self, family: str) -> tuple[str, ...]:
        """The packages that bring what is missing, each once, in order."""
        names = (name for check in self.missing for name in check.packages.get(family, ()))
        return tuple(dict.fromkeys(names))

    def mend(self, family: str) -> str:
        """The one shell line that mends what can be mended in this family, or ""."""
        sudo = "" if self.root else "sudo "
        parts = []
        if names := self.packages(family):
            parts.append(f"{sudo}{_INSTALL[family].format(sudo=sudo)} {shlex.join(names)}")
        for check in self.missing:
            if check.remedy and not (names and check.remedy == APT_UPDATE):
                parts.append(f"{sudo if check.needs_root else ''}{check.remedy}")
        return " && ".join(parts)

    def to_json(self) -> str:
        """The report as one JSON object, with the mending line of every family."""
        value = {
            "ok": not self.missing,
            "family": self.family,
            "mend": {family: self.mend(family) for family in FAMILIES},
            "checks": [asdict(check) for check in self.checks],
        }
        return json.dumps(value, indent=1) + "\n"


@dataclass(frozen=True)
class Need:
    """One entry of packages.toml (the fields are explained there)."""

    name: str
    why: str
    command: str = ""
    header: str = ""
    library: str = ""
    module: tuple[str, ...] = ()
    version: str = ""
    minimum: str = ""
    only: str = ""
    packages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def needs() -> tuple[Need, ...]:
    """The table of packages.toml; KeyError or TypeError when an entry has not its shape."""
    entries = tomllib.loads(_TABLE.read_text(encoding="utf-8"))["need"]
    return tuple(_need(entry) for entry in entries)


def _need(entry: dict[str, object]) -> Need:
    packages = {}
    for family in FAMILIES:
        names = entry.pop(family, [])
        assert isinstance(names, list)
        packages[family] = tuple(str(name) for name in names)
    module = entry.pop("module", [])
    assert isinstance(module, list)
    words = {key: str(value) for key, value in entry.items()}
    return Need(**words, module=tuple(module), packages=packages)


def family_of(os_release: str) -> str:
    """The family a /etc/os-release text belongs to, or ""."""
    values = dict(re.findall(r"^(ID|ID_LIKE)=[\"']?([^\"'\n]*)", os_release, re.MULTILINE))
    words = f"{values.get('ID', '')} {values.get('ID_LIKE', '')}".split()
    known = {"ubuntu": "debian", "rhel": "fedora", "archlinux": "arch"}
    known.update({family: family for family in FAMILIES})
    return next((known[word] for word in words if word in known), "")


def host_family() -> str:
    """The family of this host, or ""."""
    for path in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        if path.is_file():
            return family_of(path.read_text(encoding="utf-8", errors="replace"))
    return ""


def forget() -> None:
    """Look again: drop what was remembered of this host, after packages were installed."""
    _include_directories.cache_clear()
    importlib.invalidate_caches()


def is_root() -> bool:
    """True when this process may install packages as it is."""
    return os.geteuid() == 0


def find_command(name: str) -> str | None:
    """The path of a program, looked for where root has it as well (mke2fs of an ordinary user)."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def newer(found: str, minimum: str) -> bool:
    """True when version `found` is at least `minimum`, compared number by number."""
    numbers = [int(part) for part in re.findall(r"\d+", found)]
    wanted = [int(part) for part in re.findall(r"\d+", minimum)]
    return numbers >= wanted


def version_in(text: str) -> str:
    """The first thing in a program's words that looks like its version, or ""."""
    match = re.search(r"(?<![\w.])v?(\d+\.\d+(?:\.\d+)*)", text)
    return match.group(1) if match else ""


def host_checks(*, versions: bool = True, tests: bool = False) -> tuple[Check, ...]:
    """Packages.toml's entries, apt lists, subordinate ids; without versions in milliseconds.

    tests: with what only the rig's own tests need, where the family has it.
    """
    family = host_family()
    wanted = [
        one
        for one in needs()
        if one.only in ("", family) or (tests and one.only == "tests" and one.packages.get(family))
    ]
    checks = [_check_need(need, versions) for need in wanted]
    if family == "debian":
        checks.append(_check_apt_lists(_APT_LISTS))
    checks.append(_check_subids(Path("/etc")))
    return tuple(checks)


def host_report(*, tests: bool = False) -> Report:
    """What the host itself lacks, quickly: what the set-up looks at before it does anything."""
    return Report(host_checks(versions=False, tests=tests), host_family(), is_root())


def examine(config_root: Path) -> Report:
    """Look at everything a run needs on this host; config_root is the checkout's directory."""
    checks: list[Check] = [_check_python(), *host_checks(), *_check_modules(config_root)]
    checks += [_check_disk(store_root()), _check_memory(Path("/proc/meminfo"))]
    checks += [_check_namespaces(), _check_accelerator()]
    return Report(tuple(checks), host_family(), is_root())


def render(report: Report) -> str:
    """The report for a terminal: one line a check, then the line that mends what is missing."""
    width = max((len(check.name) for check in report.checks), default=0)
    lines = [_line(check, width) for check in report.checks]
    if not report.missing:
        return "\n".join([*lines, "", "Nothing is missing.", ""])
    names = ", ".join(check.name for check in report.missing)
    lines += ["", f"Missing: {names}"]
    families = (report.family,) if report.family else FAMILIES
    for family in families:
        if line := report.mend(family):
            lines.append(f"Mend it with ({family}):" if len(families) > 1 else "Mend it with:")
            lines.append(f"  {line}")
    return "\n".join([*lines, ""])


def _line(check: Check, width: int) -> str:
    mark = "ok     " if check.ok else "MISSING"
    wanted = f" (wanted: {check.wanted})" if check.wanted and not check.ok else ""
    note = f"  {check.note}" if check.note else ""
    return f"{mark} {check.name:<{width}}  {check.found or '-'}{wanted}{note}".rstrip()


def _check_need(need: Need, versions: bool) -> Check:
    if need.header:
        return _check_header(need)
    if need.library:
        return _check_library(need)
    if need.module:
        return _check_importable(need)
    path = find_command(need.command)
    wanted = need.minimum or "any"
    make = functools.partial(Check, need.name, wanted=wanted, packages=need.packages)
    if path is None:
        return make(ok=False, note=need.why)
    if not versions or not need.version:
        return make(ok=True, found=path)
    found = version_in(_words([path, need.version]))
    if not need.minimum or newer(found, need.minimum):
        return make(ok=True, found=found)
    return make(ok=False, found=found or "version unknown", note=f"{path}: too old: {need.why}")


def _words(argv: list[str]) -> str:
    """What a command prints, or "" when it does not run or does not end within 10 s."""
    try:
        return run(argv, timeout_s=10, check=False).output
    except InfrastructureError:
        return ""


def _check_header(need: Need) -> Check:
    make = functools.partial(Check, need.name, wanted=need.header, packages=need.packages)
    for directory in _include_directories():
        if (directory / need.header).is_file():
            return make(ok=True, found=str(directory / need.header))
    return make(ok=False, note=need.why)


def _check_library(need: Need) -> Check:
    """The compiler gives a library's bare name back when it finds none."""
    make = functools.partial(Check, need.name, wanted=need.library, packages=need.packages)
    words = _words(["gcc", f"-print-file-name={need.library}"]).strip()
    found = words if Path(words).is_absolute() and Path(words).is_file() else ""
    return make(ok=bool(found), found=found, note="" if found else need.why)


@functools.cache
def _include_directories() -> tuple[Path, ...]:
    """Where the C compiler looks for <headers>: its own word, else the usual place."""
    usual = (Path("/usr/include"), Path("/usr/local/include"))
    if find_command("gcc") is None:
        return usual
    words = _words(["gcc", "-E", "-v", "-x", "c", "/dev/null"])
    found = re.findall(r"^ (/\S+)$", words, re.MULTILINE)
    return tuple(Path(name) for name in found) or usual


def _check_importable(need: Need) -> Check:
    absent = [name for name in need.module if importlib.util.find_spec(name) is None]
    return Check(
        need.name,
        ok=not absent,
        found="" if absent else sys.executable,
        wanted=" ".join(need.module),
        packages=need.packages,
        note=f"{sys.executable} has no {', '.join(absent)}: {need.why}" if absent else "",
    )


def _check_apt_lists(lists: Path) -> Check:
    """apt-get download finds nothing on a system where `apt-get update` has never run."""
    found = any(lists.glob("*_Packages*"))
    return Check(
        "apt lists",
        ok=found,
        found=str(lists) if found else "",
        wanted="package lists",
        note="" if found else "apt-get has no package lists: Debian's kernel source is not found",
        remedy="" if found else APT_UPDATE,
    )


def _check_python() -> Check:
    found = ".".join(str(number) for number in sys.version_info[:3])
    wanted = ".".join(str(number) for number in NEEDED_PYTHON)
    packages = {"debian": ("python3",), "fedora": ("python3",), "arch": ("python",)}
    return Check("python", sys.version_info >= NEEDED_PYTHON, found, wanted, packages)


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that a dotted name is in is not there
        return False


def _check_modules(config_root: Path) -> list[Check]:
    absent = [name for name in _MODULES if not _has_module(name)]
    check = Check(
        "python modules",
        ok=not absent,
        found="" if absent else f"{len(_MODULES)} in {sys.prefix}",
        wanted=", ".join(absent or _MODULES),
        note="`make setup` installs them into .venv" if absent else "",
        remedy=f"make -C {shlex.quote(str(config_root))} setup" if absent else "",
        needs_root=False,
    )
    return [check]


def store_root() -> Path:
    """Where the store is or will be: $RIG_STORE, else rig in the user's cache directory."""
    if named := os.environ.get("RIG_STORE"):
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "rig"


def _check_disk(store: Path) -> Check:
    """Room for a first build; what the store holds already counts, for it need not be built."""
    place = next(path for path in (store, *store.parents) if path.is_dir())
    free = shutil.disk_usage(place).free / 2**30
    held = any(store.glob("kernel/*"))
    wanted = 2 if held else NEEDED_DISK_GIB
    note = f"in {store}" if free >= wanted else f"in {store}; $RIG_STORE can name another place"
    return Check("disk", free >= wanted, f"{free:.0f} GiB free", f"{wanted} GiB", note=note)


def _check_memory(meminfo: Path) -> Check:
    match = re.search(r"^MemTotal:\s+(\d+) kB", meminfo.read_text(encoding="ascii"), re.MULTILINE)
    gib = int(match.group(1)) / 2**20 if match else 0.0
    # A machine sold with 4 GB shows a little less: what the kernel took for itself is gone.
    return Check(
        "memory", gib >= NEEDED_MEMORY_GIB * 0.9, f"{gib:.1f} GiB", f"{NEEDED_MEMORY_GIB} GiB"
    )


def subids(text: str, names: Iterable[str]) -> int:
    """How many subordinate ids a subuid or subgid text gives to any of these names."""
    wanted = set(names)
    return sum(count for owner, _, count in _ranges(text) if owner in wanted)


def free_subids(texts: Iterable[str]) -> str:
    """A range of subordinate ids that nobody has in any of these texts, as usermod takes it."""
    ends = [start + count for text in texts for _, start, count in _ranges(text)]
    first = max([100000, *ends])
    return f"{first}-{first + NEEDED_SUBIDS - 1}"


def _ranges(text: str) -> list[tuple[str, int, int]]:
    rows = re.findall(r"^([^:#\n]+):(\d+):(\d+)\s*$", text, re.MULTILINE)
    return [(owner, int(start), int(count)) for owner, start, count in rows]


def _check_subids(etc: Path) -> Check:
    make = functools.partial(Check, "subordinate ids", wanted=str(NEEDED_SUBIDS))
    if is_root():
        return make(ok=True, found="root needs none")
    user = _user_name()
    paths = [etc / "subuid", etc / "subgid"]
    texts = [path.read_text(encoding="utf-8") if path.is_file() else "" for path in paths]
    count = min(subids(text, (user, str(os.getuid()))) for text in texts)
    if count >= NEEDED_SUBIDS:
        return make(ok=True, found=str(count))
    span = free_subids(texts)
    return make(
        ok=False,
        found=str(count),
        note="mmdebstrap builds the image in a user namespace with these ids",
        remedy=f"usermod --add-subuids {span} --add-subgids {span} {shlex.quote(user)}",
    )


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _check_namespaces() -> Check:
    make = functools.partial(Check, "user namespaces", wanted="usable")
    if is_root():
        return make(ok=True, found="root needs none")
    try:
        done = run(["unshare", "--user", "--map-root-user", "true"], timeout_s=10, check=False)
    except InfrastructureError as error:
        return make(ok=False, note=error.message)
    if done.returncode == 0:
        return make(ok=True, found="usable")
    remedy = "sysctl -w kernel.unprivileged_userns_clone=1"
    switch = Path("/proc/sys/kernel/unprivileged_userns_clone")
    return make(ok=False, note=done.output.strip(), remedy=remedy if switch.exists() else "")


def _check_accelerator() -> Check:
    """Never a failure: without KVM the machine is emulated, slowly, and every verdict says so."""
    make = functools.partial(Check, "accelerator", ok=True, wanted="kvm, or else tcg")
    kernel = _built_kernel(store_root())
    if kernel is None:
        return make(found="not probed", note=device_note(Path("/dev/kvm")))
    try:
        from rig.machine.accel import accelerator
    except ModuleNotFoundError as error:  # a bare Python: .venv is missing, which is said above
        return make(found="not probed", note=f"no module {error.name}")
    try:
        found = accelerator(kernel, "auto")
    except InfrastructureError as error:
        return make(found="not probed", note=error.message)
    return make(found=found.name, note=found.reason)


def _built_kernel(store: Path) -> Path | None:
    """A kernel to try KVM with: any that was built for this architecture."""
    return next(store.glob("kernel/*/vmlinux.boot"), None)


def device_note(device: Path) -> str:
    """What can be said of /dev/kvm without running anything on it."""
    if not device.exists():
        return f"no {device}: machines are emulated by TCG, about ten times slower"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} is there but not writable for you: add yourself to its group (kvm)"
    return f"{device} is there and writable; whether it runs a kernel is tried once one is built"
