"""A board without hardware: a machine of QEMU's with Debian installed on its disk, which boots by
itself, GRUB first, whenever its power comes on. Its power is a QMP command away: run as a program,
`emulated_board.py on|off|status SOCKET`. Its firmware asks the network first.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from rig import image, process  # noqa: E402
from rig.store import Store, digest  # noqa: E402

SUITE, DISK_MIB, PART_MIB = "bookworm", 2048, 2047
SECTOR, START = 512, 2048
PACKAGES = (
    *("linux-image-amd64", "systemd-sysv", "udev", "openssh-server", "kexec-tools"),
    *("grub2-common", "grub-pc-bin", "iproute2", "kmod", "zstd"),
)
EXCLUDE = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
BOOTED = ("/usr/lib/grub/i386-pc/boot.img", "/boot/grub/core.img")
UUID = "626f6172-6400-4000-8000-000000000001"
GRUB = f"""\
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
if [ -s $prefix/grubenv ]; then load_env; fi
set default=0
if [ "$next_entry" ]; then set default="$next_entry"; set next_entry=; save_env next_entry; fi
set timeout=0
menuentry "Debian GNU/Linux" --id debian {{
    search --no-floppy --fs-uuid --set=root {UUID}
    linux /vmlinuz root=UUID={UUID} ro console=ttyS0,115200 systemd.show_status=false loglevel=6
    initrd /initrd.img
}}
if [ -f $prefix/custom.cfg ]; then source $prefix/custom.cfg; fi
"""
# What its owner has put there, once (docs/add-a-board.md).
CUSTOM = f"""\
menuentry "rig: the kernel under test" --id rig {{
    search --no-floppy --fs-uuid --set=root {UUID}
    source /var/lib/rig/grub.cfg
}}
"""
NETWORK = """\
[Match]
Type=ether

[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
"""
SERVED = "10.0.2.100:80"  # what the board calls it
# What a kernel is told under emulation (rig/machine/plan.py).
APPEND = (
    "tsc=reliable no_timer_check watchdog_thresh=30 rcupdate.rcu_cpu_stall_timeout=60 norandmaps"
)
# Only what a server in a rack has to do; the rest is minutes under emulation.
UNITS = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("e2scrub_reap.service", "fstrim.timer", "systemd-timesyncd.service", "getty@tty1.service"),
    *("kexec-load.service", "kexec.service", "systemd-networkd-wait-online.service"),
    *("modprobe@dm_mod.service", "modprobe@loop.service", "modprobe@fuse.service"),
    *("modprobe@configfs.service", "modprobe@drm.service", "getty-static.service"),
)
# $1 is the root; standard input the disk. GRUB's boot sector and core go before the partition.
INSTALL = r"""
set -e
cd "$1"
printf 'UUID=%s / ext4 defaults,noatime 0 0\n' {uuid} >etc/fstab
printf 'MODULES=list\n' >etc/initramfs-tools/conf.d/board
printf '%s\n' virtio_pci virtio_blk ext4 >>etc/initramfs-tools/modules
chroot . update-initramfs -u
echo board >etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 board\n' >etc/hosts
chmod 700 root/.ssh && chmod 600 root/.ssh/authorized_keys etc/ssh/ssh_host_*_key
chown -R 0:0 root etc/ssh boot/grub
for one in {units}; do ln -sfn /dev/null "etc/systemd/system/$one"; done
mkdir -p etc/systemd/system/multi-user.target.wants
ln -sfn /lib/systemd/system/systemd-networkd.service etc/systemd/system/multi-user.target.wants/
mkdir -p boot/grub/i386-pc
cp usr/lib/grub/i386-pc/*.mod usr/lib/grub/i386-pc/*.lst boot/grub/i386-pc/
chroot . grub-editenv /boot/grub/grubenv create
chroot . grub-mkimage -O i386-pc -o /boot/grub/core.img -p '(hd0,msdos1)/boot/grub' \
    biosdisk part_msdos ext2 normal search search_fs_uuid linux serial terminal configfile loadenv \
    test echo
rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/*
mount --bind "$1" "$1/mnt"
trap 'umount "$1/mnt"' EXIT
mke2fs -q -t ext4 -F -L board -U {uuid} -m 0 -O ^metadata_csum_seed,^orphan_file \
    -E offset=1048576,lazy_itable_init=0,lazy_journal_init=0,nodiscard -d "$1/mnt" \
    /proc/self/fd/0 {part}M
"""


@dataclass(frozen=True)
class Installed:
    """A disk nobody writes to, the key that logs in, and the key of the host."""

    disk: Path
    key: Path
    host_key: str


def installed(store: Store) -> Installed:
    """Debian on a disk: from the store, or installed now (a minute or two, and the network)."""
    script = INSTALL.format(uuid=UUID, units=shlex.join(UNITS), part=PART_MIB)
    key = digest("2", script, GRUB, CUSTOM, NETWORK, *PACKAGES, *EXCLUDE)[:32]
    entry = store.publish("testboard", key, lambda directory: _install(directory, script))
    return Installed(
        entry / "disk.img",
        entry / "key",
        " ".join((entry / "host_key.pub").read_text().split()[:2]),
    )


def _install(directory: Path, script: str) -> None:
    for name in ("key", "host_key"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "board"]
        process.run([*words, "-f", str(directory / name)], timeout_s=60)
    overlay = directory / "overlay"
    files = {
        "root/.ssh/authorized_keys": (directory / "key.pub").read_text(),
        "etc/ssh/ssh_host_ed25519_key": (directory / "host_key").read_text(),
        "etc/ssh/ssh_host_ed25519_key.pub": (directory / "host_key.pub").read_text(),
        "etc/systemd/network/board.network": NETWORK,
        "boot/grub/grub.cfg": GRUB,
        "boot/grub/custom.cfg": CUSTOM,
    }
    for name, text in files.items():
        path = overlay / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    disk = directory / "disk.img"
    with disk.open("w+b") as file:
        file.truncate(DISK_MIB << 20)
        file.seek(446)  # one partition, from the second MiB on, that is booted
        far = b"\xfe\xff\xff"
        file.write(struct.pack("<B3sB3sII", 0x80, far, 0x83, far, START, PART_MIB * 2048))
        file.seek(510)
        file.write(b"\x55\xaa")
        file.seek(0)
        hook = directory / "hook.sh"
        hook.write_text(script)
        words = [
            *("mmdebstrap", f"--mode={image.namespace_mode()}", "--variant=minbase"),
            *(f"--include={','.join(PACKAGES)}", "--format=null"),
            *(f"--dpkgopt=path-exclude={glob}" for glob in EXCLUDE),
            f"--customize-hook=copy-in {overlay}/root {overlay}/etc {overlay}/boot /",
            f'--customize-hook=sh {hook} "$1"',
            f"--customize-hook=copy-out {' '.join(BOOTED)} {directory}",
            *(SUITE, "-", *image.host_sources(SUITE)),
        ]
        process.run(words, timeout_s=1800, stdin=file, log=directory / "build.log")
        boot, core = ((directory / Path(one).name).read_bytes() for one in BOOTED)
        for at, data in ((0, boot[:440]), (SECTOR, core)):
            file.seek(at)
            file.write(data)
    disk.chmod(0o444)


@dataclass(frozen=True)
class EmulatedBoard:
    """One that stands there, off. port: of its sshd; serial: of its line, which speaks telnet;
    served: what it boots from before its disk, if anybody listens there; all on loopback. monitor:
    for its power. overlay: what its disk has come to.
    """

    name: str
    installed: Installed
    port: int
    serial: int
    served: int
    monitor: Path
    overlay: Path

    def power(self, word: str) -> str:
        """A shell command."""
        return shlex.join([sys.executable, __file__, word, str(self.monitor)])

    def toml(self, **more: object) -> str:
        """Its tables in rig.toml; more: of its machine's own."""
        extra = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
        return f"""
[machine.{self.name}]
kind = "baremetal"
append = "{APPEND}"
configs = ["lkdtm"]
{extra}
[machine.{self.name}.power]
kind = "command"
on = {json.dumps(self.power("on"))}
off = {json.dumps(self.power("off"))}
status = {json.dumps(self.power("status"))}
rest_s = 0.2

[machine.{self.name}.console]
kind = "telnet"
address = "127.0.0.1"
port = {self.serial}

[machine.{self.name}.network]
address = "127.0.0.1"
port = {self.served}
url = "http://{SERVED}"

[machine.{self.name}.system]
address = "127.0.0.1"
port = {self.port}
key = {json.dumps(str(self.installed.key))}
host_key = {json.dumps(self.installed.host_key)}
"""


@contextlib.contextmanager
def standing(
    name: str, store: Store, directory: Path, *, memory_mib: int = 1536
) -> Iterator[EmulatedBoard]:
    """A board that is off; ended with the test."""
    made = installed(store)
    overlay = directory / f"{name}.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(made.disk)]
    process.run([*words, str(overlay)], timeout_s=60)
    with tempfile.TemporaryDirectory(prefix="rig-board-") as place:  # short: a socket's path
        monitor = Path(place, "qmp")
        port, serial, served = _free_port(), _free_port(), _free_port()
        # What its firmware fetches, and nothing else of the world.
        through = shlex.join([sys.executable, __file__, "through", str(served)])
        if "," in through:
            raise RuntimeError(f"QEMU takes no comma in {through}")
        network = f"user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:{port}-:22"
        network += f",bootfile=http://{SERVED}/{name}.ipxe"
        network += f",guestfwd=tcp:{SERVED}-cmd:{through}"
        argv = [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
            # Not max: with what AVX2 is in QEMU 7.2, libcrypto's sha256 of a file is another one.
            *("-machine", "q35", "-accel", "tcg", "-cpu", "Nehalem,+invtsc,x-force-features=on"),
            *("-smp", "2", "-m", str(memory_mib), "-S", "-no-shutdown"),
            *("-drive", f"file={overlay},format=qcow2,if=none,id=disk,cache=unsafe"),
            *("-device", "virtio-blk-pci,drive=disk,bootindex=2", "-netdev", network),
            *("-device", "virtio-net-pci,netdev=net,bootindex=1", "-device", "virtio-rng-pci"),
            "-chardev",
            f"socket,id=serial,host=127.0.0.1,port={serial},server=on,wait=off,telnet=on",
            *("-serial", "chardev:serial"),
            *("-qmp", f"unix:{monitor},server=on,wait=off"),
        ]
        with (directory / f"{name}-qemu.log").open("wb") as log:
            started = process.spawn(argv, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 30
            while not monitor.exists():
                if time.monotonic() > deadline or started.poll() is not None:
                    raise RuntimeError((directory / f"{name}-qemu.log").read_text())
                time.sleep(0.05)
            yield EmulatedBoard(name, made, port, serial, served, monitor, overlay)
        finally:
            process.end(started, grace_s=0)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


# -- its power ------------------------------------------------------------------------------------


def switched(word: str, monitor: str) -> int:
    """Off is a machine that is stopped, and reset before it goes on."""
    with socket.socket(socket.AF_UNIX) as line, line.makefile("rw") as file:
        line.settimeout(20)
        line.connect(monitor)
        file.readline()  # the greeting
        _told(file, "qmp_capabilities")
        running = _told(file, "query-status")["status"] == "running"
        if word == "status":
            return 0 if running else 1
        if word == "off":
            _told(file, "stop")
        elif not running:
            _told(file, "system_reset")
            _told(file, "cont")
    return 0


def _told(file: Any, command: str) -> dict[str, Any]:
    file.write(json.dumps({"execute": command}) + "\n")
    file.flush()
    while True:
        said: dict[str, Any] = json.loads(file.readline())
        if "event" not in said:
            return dict(said["return"])


def through(port: str) -> int:
    """Standard input and output are a connection of the board's: hand it on to a port of ours."""
    with (
        contextlib.suppress(ConnectionRefusedError),
        socket.create_connection(("127.0.0.1", int(port))) as line,
    ):
        words = threading.Thread(target=_handed_on, args=(line,), daemon=True)
        words.start()
        while data := line.recv(1 << 16):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    return 0


def _handed_on(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, 1 << 16):
            line.sendall(data)
        line.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    word, *rest = sys.argv[1:]
    sys.exit(through(*rest) if word == "through" else switched(word, *rest))
