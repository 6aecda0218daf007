"""Boot one kernel with virtme-ng and with the rig, in turn: medians and how many times faster.

Run by ci/compare-virtme-ng. Both sides are emulated by the same QEMU with as many CPUs and as much
memory. The clock starts when QEMU does, on either side. The rig's stops when the output and exit
code of its first SSH command, `true`, are here; virtme-ng's when QEMU has ended after
`--exec true`, which is the first moment it knows the exit code.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

import platformdirs  # noqa: E402

from rig import config as configuration  # noqa: E402
from rig import kbuild, terminal  # noqa: E402
from rig.config import MachineConfig  # noqa: E402
from rig.errors import InfrastructureError, RigError  # noqa: E402
from rig.kbuild import Kernel  # noqa: E402
from rig.process import Completed, run  # noqa: E402
from rig.store import open_store  # noqa: E402

VERSION = "1.42"
FRAGMENT = "virtme"
QEMU = "qemu-system-x86_64"
UDEVD = ("/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd")
BOOT_S = 300.0
# Stands in for QEMU: writes when it started and ended, to the file $STAMPS names.
CLOCK = """\
#!/bin/sh
date +%s.%N >"$STAMPS"
"$QEMU" "$@"
code=$?
date +%s.%N >>"$STAMPS"
exit $code
"""


@dataclass
class Side:
    """One way of booting, and what it took every time: qemu_s from QEMU's start to the command's
    exit code, whole_s of the whole process."""

    name: str
    boot: Callable[[], tuple[float, float]]
    qemu_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Boot once more."""
        qemu_s, whole_s = self.boot()
        self.qemu_s.append(qemu_s)
        self.whole_s.append(whole_s)
        say(f"  {self.name:18} {qemu_s:6.2f} s   whole process {whole_s:6.2f} s")

    @property
    def value(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            "median_s": round(statistics.median(self.qemu_s), 3),
            "median_whole_s": round(statistics.median(self.whole_s), 3),
            "qemu_s": [round(s, 3) for s in self.qemu_s],
            "whole_s": [round(s, 3) for s in self.whole_s],
        }


def say(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def check_host() -> None:
    """What pip does not bring: QEMU, and udev in the root file system that virtme-ng shares.

    Without udevd its init has no script ports and falls back to a console, and the exit code is
    lost: vng then says 255. InfrastructureError with the line that installs what is missing.
    """
    if not shutil.which(QEMU):
        raise InfrastructureError(f"{QEMU} is not installed", hint="ask rig doctor")
    if not any(Path(path).exists() for path in UDEVD):
        raise InfrastructureError(
            "virtme-ng needs udevd in the file system it shares, which is this host's",
            hint="apt-get install --no-install-recommends udev",
        )


def install(version: str) -> Path:
    """vng of this version, in a virtual environment of its own in the user's cache."""
    place = platformdirs.user_cache_path("rig-compare") / f"virtme-ng-{version}"
    if not (place / "installed").exists():
        say(f"installing virtme-ng {version} in {place}")
        shutil.rmtree(place, ignore_errors=True)
        run([sys.executable, "-m", "venv", place], timeout_s=300)
        pip = [place / "bin/python", "-m", "pip", "install", "--quiet"]
        run([*map(str, pip), f"virtme-ng=={version}"], timeout_s=600)
        (place / "installed").touch()
    return place / "bin/vng"


def vng_command(vng: Path, image: Path, machine: MachineConfig) -> list[str]:
    """`vng --exec true` as its own manual has it for a host without KVM.

    9p is said outright because virtiofsd is not tried then. --skip-modules: the kernel has none.
    """
    return [
        *(str(vng), "--run", str(image), "--disable-kvm", "--force-9p", "--skip-modules"),
        *("--cpus", str(machine.cpus), "--memory", f"{machine.memory_mib}M", "--exec", "true"),
    ]


def virtme_ng(words: list[str], clock: Path) -> tuple[float, float]:
    """One run of vng, on a QEMU that is timed."""
    stamps = clock.with_name("stamps")
    stamps.unlink(missing_ok=True)
    path = f"{Path(words[0]).parent}:{os.environ['PATH']}"  # vng starts its other half by name
    env = {**os.environ, "STAMPS": str(stamps), "QEMU": str(shutil.which(QEMU)), "PATH": path}
    done = run([*words, "--qemu", str(clock)], env=env, timeout_s=BOOT_S, check=False)
    times = [float(line) for line in stamps.read_text().split()] if stamps.exists() else []
    if done.returncode != 0 or len(times) != 2:
        raise InfrastructureError(
            f"virtme-ng's --exec true failed with exit code {done.returncode}",
            hint="with --verbose in that line it shows the kernel's console",
            output=done.output[-4000:],
            reproduce=f"PATH={Path(words[0]).parent}:$PATH {shlex.join(words)}",
        )
    return times[1] - times[0], done.duration_s


def rig_command(kernel: str, machine: str, *more: str) -> list[str]:
    """`rig boot` of the same kernel."""
    rig = str(ROOT / ".venv/bin/rig")
    words = ["--config", FRAGMENT, "--machine", machine, "--json", *more]
    return [rig, "--quiet", "boot", kernel, *words, "--", "true"]


def rig(words: list[str]) -> tuple[float, float]:
    """One run of `rig boot --json`."""
    done = run(words, timeout_s=BOOT_S, cwd=ROOT, separate=True, check=False)
    fact = _fact(done)
    if done.returncode != 0 or fact is None:
        raise InfrastructureError(
            f"rig boot failed with exit code {done.returncode}"
            if done.returncode
            else "rig boot --json has no fact first_command_s",
            output=done.errors[-4000:],
            reproduce=done.command,
        )
    return fact, done.duration_s


def _fact(done: Completed) -> float | None:
    """Seconds from QEMU's start to the end of the first command."""
    try:
        return float(json.loads(done.output)["machine"]["first_command_s"])
    except (ValueError, KeyError):
        return None


def compare(kernel: Kernel, machine: MachineConfig, vng: Path, rounds: int) -> dict[str, Any]:
    """All sides in turn, `rounds` times; the rig's first boots make its snapshot beforehand."""
    with tempfile.TemporaryDirectory(prefix="rig-compare-") as directory:
        clock = Path(directory, "qemu")
        clock.write_text(CLOCK)
        clock.chmod(0o755)
        words = vng_command(vng, kernel.image, machine)
        from_power_on = rig_command(kernel.name, machine.name, "--cold")
        from_snapshot = rig_command(kernel.name, machine.name)
        say("making the snapshot")
        rig(from_snapshot)
        sides = [
            Side("virtme-ng", lambda: virtme_ng(words, clock)),
            Side("rig, cold", lambda: rig(from_power_on)),
            Side("rig, restored", lambda: rig(from_snapshot)),
        ]
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for side in sides:
                side.measure()
    theirs, cold, restored = (side.value for side in sides)
    return {
        "kernel": {"release": kernel.release, "config": kernel.facts["config"]},
        "machine": {"cpus": machine.cpus, "memory_mib": machine.memory_mib},
        "qemu": run([QEMU, "--version"], timeout_s=20).output.splitlines()[0],
        "load": [round(one, 2) for one in os.getloadavg()],
        "rounds": rounds,
        "virtme_ng": {**theirs, "version": vng.parent.parent.name.rpartition("-")[2]},
        "rig_cold": cold,
        "rig_restored": restored,
        **ratios(theirs, cold, restored),
    }


def ratios(
    theirs: dict[str, Any], cold: dict[str, Any], restored: dict[str, Any]
) -> dict[str, float]:
    """How many times faster we are: from QEMU's start, and as whole processes."""
    return {
        f"ratio_{name}{suffix}": round(theirs[key] / ours[key], 2)
        for name, ours in (("cold", cold), ("restored", restored))
        for suffix, key in (("", "median_s"), ("_whole", "median_whole_s"))
    }


def table(found: dict[str, Any]) -> str:
    """For a person."""
    rows = [("virtme-ng", found["virtme_ng"], "", "")]
    for name in ("cold", "restored"):
        ratios = (f"{found[f'ratio_{name}{kind}']:.1f} x" for kind in ("", "_whole"))
        rows.append((f"rig, {name}", found[f"rig_{name}"], *ratios))
    lines = [f"{'median of ' + str(found['rounds']):18}{'from QEMU':>12}{'':>8}{'whole':>12}"]
    for name, side, ratio, whole in rows:
        qemu_s, whole_s = side["median_s"], side["median_whole_s"]
        lines.append(f"{name:18}{qemu_s:>10.2f} s{ratio:>8}{whole_s:>10.2f} s{whole:>8}")
    return "\n".join(lines)


def build(kernel: str | None) -> Kernel:
    """The kernel with what virtme-ng needs: from the store, or built now (minutes)."""
    config = configuration.load(ROOT / configuration.FILE_NAME)
    plain = config.kernel(kernel)
    wanted = dataclasses.replace(plain, configs=(*plain.configs, FRAGMENT))
    with terminal.TerminalProgress() as progress:
        return kbuild.build(config, wanted, open_store(), progress=progress)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    made.add_argument("kernel", nargs="?", metavar="KERNEL", help="[kernel.KERNEL] of rig.toml")
    made.add_argument("-n", dest="rounds", type=int, default=5, help="times each (default 5)")
    made.add_argument("--machine", metavar="M", help="[machine.M] of rig.toml")
    made.add_argument("--json", type=Path, metavar="F", help="write the figures to F too")
    made.add_argument("--virtme-ng", default=VERSION, metavar="V", help=f"default {VERSION}")
    return made


def main(argv: list[str]) -> int:
    """Compare; 0, or the exit code of what failed."""
    options = parser().parse_args(argv)
    if options.rounds < 1:
        parser().error("-n must be at least 1")
    config = configuration.load(ROOT / configuration.FILE_NAME)
    try:
        machine = config.emulated(options.machine)
        check_host()
        vng = install(options.virtme_ng)
        found = compare(build(options.kernel), machine, vng, options.rounds)
    except RigError as error:
        terminal.show_error(error)
        return error.exit_code
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(f"{table(found)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
