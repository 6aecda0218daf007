"""Whether KVM can run a kernel here, found out by letting it try for three seconds.

What it tries is the kernel under test, so that "nothing came out" may also mean a host that was
busy or a kernel that is dead: that answer is believed for a day only.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import platformdirs

from rig import process
from rig.errors import InfrastructureError

_DEVICE = Path("/dev/kvm")
_PROBE_S = 3.0
_DOUBT_S = 24 * 3600.0
_BANNER = "Linux version "

# Machines may be made side by side: probes at once would keep each other from the CPU.
_one_probe = threading.Lock()


@dataclass(frozen=True)
class Finding:
    """What a probe found: reason why not KVM, or "".

    sure: KVM ran the kernel, or QEMU itself said why it cannot. when: seconds since 1970.
    """

    reason: str
    sure: bool
    when: float

    def holds(self, now: float) -> bool:
        """Whether it is to be believed still."""
        return self.sure or 0 <= now - self.when < _DOUBT_S


@dataclass(frozen=True)
class Acceleration:
    """How the machine's CPU is made: name is "kvm" or "tcg", reason why not KVM, or ""."""

    name: str
    reason: str = ""

    @property
    def notice(self) -> str:
        """The sentence every verdict must show, or ""."""
        return f"emulated by TCG, not KVM: {self.reason}" if self.name == "tcg" else ""


def accelerator(
    kernel: Path, wanted: str, *, qemu: str = "qemu-system-x86_64", cache: Path | None = None
) -> Acceleration:
    """Decide between KVM and TCG. kernel: what QEMU is given with -kernel.

    wanted: "tcg" is taken as it is; "auto" falls back to TCG with the reason; "kvm" raises
    InfrastructureError where KVM cannot run this. What a probe found is kept per host kernel and
    QEMU in `cache` (default: the user's cache directory); that nothing came out, for a day.
    """
    if wanted == "tcg":
        return Acceleration("tcg", "asked for")
    reason = _closed() or _probed(kernel, qemu, cache or _default_cache())
    if reason and wanted == "kvm":
        raise InfrastructureError(
            f"KVM was asked for and cannot be used: {reason}",
            hint='accel = "auto" or "tcg" in rig.toml emulates instead',
        )
    return _choice(reason)


def _closed() -> str:
    """Why /dev/kvm cannot be opened, or ""."""
    if not _DEVICE.exists():
        return "this host has no /dev/kvm"
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return "/dev/kvm is not writable for this user (group kvm)"
    return ""


def _default_cache() -> Path:
    return platformdirs.user_cache_path("rig") / "kvm.json"


def remembered(
    *, qemu: str = "qemu-system-x86_64", cache: Path | None = None
) -> Acceleration | None:
    """What "auto" will choose, as far as it can be said without starting anything, or None."""
    closed = _closed()
    if closed:
        return Acceleration("tcg", closed)
    known = _load(cache or _default_cache()).get(_key(qemu))
    return _choice(known.reason) if known and known.holds(time.time()) else None


def _choice(reason: str) -> Acceleration:
    return Acceleration("tcg", reason) if reason else Acceleration("kvm")


def _key(qemu: str) -> str:
    host = os.uname()
    return " ".join((host.release, host.version, host.machine, qemu))


def _probed(kernel: Path, qemu: str, cache: Path) -> str:
    """What the probe found on this host kernel, now or earlier: a reason, or ""."""
    with _one_probe:
        key, known = _key(qemu), _load(cache)
        if key not in known or not known[key].holds(time.time()):
            known[key] = probe(kernel, qemu)
            _save(cache, known)
        return known[key].reason


def probe(kernel: Path, qemu: str) -> Finding:
    """Start the kernel under KVM, without disk or network, until its first line comes out.

    A kernel that is broken later still passes: the question is whether KVM runs one at all.
    """
    if not kernel.is_file():
        raise InfrastructureError(f"there is no kernel {kernel} to try KVM with")
    argv = [
        *(qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "512", "-serial", "stdio"),
        *("-kernel", str(kernel), "-append", "console=ttyS0 earlyprintk=serial,ttyS0 panic=-1"),
    ]
    seen, refused = _try(argv)
    if any(_BANNER in line for line in seen):
        return Finding("", True, time.time())
    said = next((line.strip() for line in seen if line.strip()), "")
    reason = f"/dev/kvm cannot run a kernel here: no console line in {_PROBE_S:.0f} s" + (
        f" ({said})" if said else ""
    )
    return Finding(reason, refused and bool(said), time.time())


def _try(argv: list[str]) -> tuple[list[str], bool]:
    """What came out until QEMU's end or the deadline, and whether QEMU failed by itself."""
    seen: list[str] = []
    try:
        done = process.run(argv, timeout_s=_PROBE_S, on_line=seen.append, check=False)
    except InfrastructureError as error:
        if "did not end" not in error.message:
            raise
        return seen, False
    return seen, done.returncode != 0


def _load(path: Path) -> dict[str, Finding]:
    """What is known; nothing where the file is missing or not of this form."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Finding])
    except (OSError, msgspec.DecodeError):
        return {}


def _save(path: Path, known: dict[str, Finding]) -> None:
    """Write and rename: two rigs may probe at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(msgspec.json.format(msgspec.json.encode(known), indent=1))
    Path(file.name).replace(path)
