"""A board without hardware: a machine of QEMU's with Debian installed on its disk, which boots by
itself, GRUB first, whenever its power comes on. Its power is a QMP command away: run as a program,
`emulated_board.py on|off|status SOCKET`. Its firmware asks the network first.

One with UEFI for firmware has systemd-boot on its disk in GRUB's place.

A small one has the rig's own image on its disk, and firmware that begins a kernel of ours with it:
it is there in seconds, where that Debian takes a minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from rig import image, process  # noqa: E402
from rig.image import Image  # noqa: E402
from rig.kbuild import Kernel  # noqa: E402
from rig.store import Store, digest  # noqa: E402

SUITE, DISK_MIB, PART_MIB = "bookworm", 2048, 2047
SECTOR, START = 512, 2048
PACKAGES = (
    *("linux-image-amd64", "systemd-sysv", "udev", "openssh-server", "kexec-tools"),
    *("grub2-common", "grub-pc-bin", "iproute2", "kmod", "zstd"),
)
UEFI_PACKAGES = (
    *("linux-image-amd64", "systemd-sysv", "udev", "openssh-server", "systemd-boot"),
    *("dosfstools", "mtools", "iproute2", "kmod", "zstd"),
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
# What each boot of its own system writes, beside its journal.
EVERY_BOOT = {
    "/boot/grub/grubenv",
    "/etc/machine-id",
    "/var/lib/systemd/random-seed",
    "/var/log/lastlog",
    "/var/log/wtmp",
    "/var/log/btmp",
}
SERVED = "10.0.2.100:80"  # what the board calls it
HOST = "10.0.2.2"  # and this host, where it may
# What a kernel is told under emulation (rig/machine/plan.py).
APPEND = (
    "tsc=reliable no_timer_check watchdog_thresh=30 rcupdate.rcu_cpu_stall_timeout=60 norandmaps"
)
# What the system of a small one is told (images/debian/init.c): to be reached by its one card.
MAC = "52:54:00:12:34:56"
SMALL = (
    "console=ttyS0,115200 root=/dev/vda rootfstype=ext4 rw init=/usr/lib/rig/init loglevel=6 "
    f"rig_net={MAC},10.0.2.15,255.255.255.0,10.0.2.2"
)
# Only what a server in a rack has to do; the rest is minutes under emulation.
UNITS = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("e2scrub_reap.service", "fstrim.timer", "systemd-timesyncd.service", "getty@tty1.service"),
    *("kexec-load.service", "kexec.service", "systemd-networkd-wait-online.service"),
    *("modprobe@dm_mod.service", "modprobe@loop.service", "modprobe@fuse.service"),
    *("modprobe@configfs.service", "modprobe@drm.service", "getty-static.service"),
)
# $1 is the root; standard input the disk.
SETTLE = r"""
set -e
cd "$1"
printf 'UUID=%s / ext4 defaults,noatime 0 0\n' {uuid} >etc/fstab
printf 'MODULES=list\n' >etc/initramfs-tools/conf.d/board
printf '%s\n' virtio_pci virtio_blk ext4 >>etc/initramfs-tools/modules
chroot . update-initramfs -u
echo board >etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 board\n' >etc/hosts
chmod 700 root/.ssh && chmod 600 root/.ssh/authorized_keys etc/ssh/ssh_host_*_key
chown -R 0:0 root etc/ssh boot
for one in {units}; do ln -sfn /dev/null "etc/systemd/system/$one"; done
mkdir -p etc/systemd/system/multi-user.target.wants
ln -sfn /lib/systemd/system/systemd-networkd.service etc/systemd/system/multi-user.target.wants/
"""
# GRUB's boot sector and core go before the partition.
WITH_GRUB = r"""
mkdir -p boot/grub/i386-pc
cp usr/lib/grub/i386-pc/*.mod usr/lib/grub/i386-pc/*.lst boot/grub/i386-pc/
chroot . grub-editenv /boot/grub/grubenv create
chroot . grub-mkimage -O i386-pc -o /boot/grub/core.img -p '(hd0,msdos1)/boot/grub' \
    biosdisk part_msdos ext2 normal search search_fs_uuid linux serial terminal configfile loadenv \
    test echo
"""
# The firmware's partition, which systemd-boot takes kernels from, is made in a file of its own.
WITH_SYSTEMD_BOOT = r"""
mkdir -p efi
printf 'UUID=%s /efi vfat umask=0077 0 0\n' {esp} >>etc/fstab
chroot . mkfs.vfat -C -F 32 -i {fat} /esp.img {esp_kib}
put() {{ chroot . mcopy -i /esp.img "$1" "::$2"; }}
chroot . mmd -i /esp.img ::EFI ::EFI/BOOT ::loader ::loader/entries
put /usr/lib/systemd/boot/efi/systemd-bootx64.efi EFI/BOOT/BOOTX64.EFI
put /vmlinuz vmlinuz
put /initrd.img initrd.img
for one in loader.conf entries/debian.conf entries/rig.conf; do
    put "/boot/loader/$one" "loader/$one"
done
rm -rf boot/loader
"""
FILLED = r"""
rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/*
mount --bind "$1" "$1/mnt"
trap 'umount "$1/mnt"' EXIT
mke2fs -q -t ext4 -F -L board -U {uuid} -m 0 -O ^metadata_csum_seed,^orphan_file \
    -E offset={offset},lazy_itable_init=0,lazy_journal_init=0,nodiscard -d "$1/mnt" \
    /proc/self/fd/0 {part}M
"""
ESP_FAT, ESP_MIB, ESP_START = "626f6172", 320, 2048  # sectors
LOADER = {
    "loader.conf": "timeout 0\ndefault debian.conf\n",
    "entries/debian.conf": f"""\
title Debian GNU/Linux
linux /vmlinuz
initrd /initrd.img
options root=UUID={UUID} ro console=ttyS0,115200 systemd.show_status=false loglevel=6
""",
    # What its owner has put there, once (docs/add-a-board.md).
    "entries/rig.conf": "title rig: the kernel under test\nefi /rig/rig.efi\n",
}
OVMF = Path("/usr/share/OVMF")


@dataclass(frozen=True)
class Installed:
    """A disk nobody writes to, the key that logs in, and the key of the host. kernel: what the
    firmware begins by itself, with these words; None where it looks at the network and the disk.
    """

    disk: Path
    key: Path
    host_key: str
    kernel: Path | None = None
    append: str = ""
    uefi: bool = False

    def firmware(self, directory: Path) -> list[str]:
        """What QEMU is told of what comes first. directory: of what the firmware keeps."""
        if not self.uefi:
            return ["-kernel", str(self.kernel), "-append", self.append] if self.kernel else []
        kept = directory / "firmware.fd"
        shutil.copyfile(OVMF / "OVMF_VARS_4M.fd", kept)
        flash = "if=pflash,format=raw,unit"
        code = f"{flash}=0,readonly=on,file={OVMF / 'OVMF_CODE_4M.fd'}"
        return ["-drive", code, "-drive", f"{flash}=1,file={kept}"]


def installed(store: Store) -> Installed:
    """Debian on a disk: from the store, or installed now (a minute or two, and the network)."""
    script = (SETTLE + WITH_GRUB + FILLED).format(
        uuid=UUID, units=shlex.join(UNITS), part=PART_MIB, offset=START * SECTOR
    )
    grub = {"boot/grub/grub.cfg": GRUB, "boot/grub/custom.cfg": CUSTOM}

    def begin(disk: BinaryIO, directory: Path) -> None:
        far = b"\xfe\xff\xff"
        disk.seek(446)  # one partition, from the second MiB on, that is booted
        disk.write(struct.pack("<B3sB3sII", 0x80, far, 0x83, far, START, PART_MIB * 2048))
        disk.seek(510)
        disk.write(b"\x55\xaa")
        boot, core = ((directory / Path(one).name).read_bytes() for one in BOOTED)
        for at, data in ((0, boot[:440]), (SECTOR, core)):
            disk.seek(at)
            disk.write(data)

    return _of_store(store, _Recipe("3", PACKAGES, script, grub, BOOTED, begin))


def installed_for_uefi(store: Store) -> Installed:
    """The same with systemd-boot, for firmware that is UEFI: Debian's package ovmf."""
    if not OVMF.is_dir():
        raise RuntimeError(f"no UEFI firmware in {OVMF}: apt-get install ovmf")
    root = ESP_START + ESP_MIB * 2048
    part = DISK_MIB - root // 2048 - 1  # the last MiB has the partition table once more
    script = (SETTLE + WITH_SYSTEMD_BOOT + FILLED).format(
        uuid=UUID, units=shlex.join(UNITS), part=part, offset=root * SECTOR, fat=ESP_FAT,
        esp=f"{ESP_FAT[:4]}-{ESP_FAT[4:]}".upper(), esp_kib=ESP_MIB * 1024,
    )  # fmt: skip
    loader = {f"boot/loader/{name}": text for name, text in LOADER.items()}

    def begin(disk: BinaryIO, directory: Path) -> None:
        esp = (directory / "esp.img").read_bytes()
        disk.seek(ESP_START * SECTOR)
        disk.write(esp)
        (directory / "esp.img").unlink()
        _write_gpt(disk, {ESP_START: (ESP_TYPE, ESP_MIB * 2048), root: (LINUX_TYPE, part * 2048)})

    made = _of_store(store, _Recipe("1", UEFI_PACKAGES, script, loader, ("/esp.img",), begin))
    return replace(made, uefi=True)


ESP_TYPE = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
LINUX_TYPE = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def _write_gpt(disk: BinaryIO, partitions: dict[int, tuple[uuid.UUID, int]]) -> None:
    """A partition table (UEFI specification 2.10, section 5). partitions: first sector to type and
    number of sectors.
    """
    last = DISK_MIB * 2048 - 1
    entries = b""
    for number, (first, (kind, sectors)) in enumerate(partitions.items(), 1):
        own = uuid.UUID(UUID).int + number
        entries += struct.pack(
            "<16s16sQQQ72s", kind.bytes_le, uuid.UUID(int=own).bytes_le, first,
            first + sectors - 1, 0, f"part{number}".encode("utf-16-le"),
        )  # fmt: skip
    entries = entries.ljust(128 * 128, b"\0")

    def header(here: int, other: int, table: int) -> bytes:
        words = struct.pack(
            "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, here, other, 34, last - 33,
            uuid.UUID(UUID).bytes_le, table, 128, 128, zlib.crc32(entries),
        )  # fmt: skip
        return words[:16] + struct.pack("<I", zlib.crc32(words)) + words[20:]

    far = b"\xff\xff\xff"
    disk.seek(446)
    disk.write(struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, far, 1, last))
    disk.seek(510)
    disk.write(b"\x55\xaa" + header(1, last, 2))
    disk.seek(2 * SECTOR)
    disk.write(entries)
    disk.seek((last - 32) * SECTOR)
    disk.write(entries + header(last, 1, last - 32))


def small(kernel: Kernel, base: Image, directory: Path) -> Installed:
    """The rig's own image on a disk, with a host key of its own: who logs in to the kernel under
    test, whose root that image is as well, knows that it is not this system.
    """
    disk, key = directory / "small.img", directory / "small_key"
    process.run(["cp", "--sparse=always", str(base.disk), str(disk)], timeout_s=300)
    disk.chmod(0o600)
    process.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "small", "-f", str(key)],
        timeout_s=60,
    )
    binary = directory / "small_key.dropbear"
    binary.write_bytes(image.dropbear_key(key.read_text("ascii")))
    script = directory / "small.debugfs"
    held = "/etc/dropbear/host_key"
    script.write_text(f"rm {held}\nwrite {binary} {held}\nsif {held} mode 0100600\n")
    done = process.run(["debugfs", "-w", "-f", str(script), str(disk)], timeout_s=60)
    written = process.run(["debugfs", "-R", f"stat {held}", str(disk)], timeout_s=60).output
    if f"Size: {binary.stat().st_size}" not in written:
        raise RuntimeError(f"{held} is not in {disk}: {done.output}{written}")
    disk.chmod(0o444)
    public = " ".join((directory / "small_key.pub").read_text().split()[:2])
    return Installed(disk, base.client_key, public, kernel.boot, f"{SMALL} {APPEND}")


@dataclass(frozen=True)
class _Recipe:
    """version: raised when what makes the disk changes here. files: on it. out: what the script
    leaves in the root for `begin`, which writes what is before the first file system.
    """

    version: str
    packages: tuple[str, ...]
    script: str
    files: dict[str, str]
    out: tuple[str, ...]
    begin: Callable[[BinaryIO, Path], None]


def _of_store(store: Store, recipe: _Recipe) -> Installed:
    files = [one for pair in sorted(recipe.files.items()) for one in pair]
    key = digest(recipe.version, recipe.script, NETWORK, *files, *recipe.packages, *EXCLUDE)[:32]
    entry = store.publish("testboard", key, lambda directory: _install(directory, recipe))
    return Installed(
        entry / "disk.img",
        entry / "key",
        " ".join((entry / "host_key.pub").read_text().split()[:2]),
    )


def _install(directory: Path, recipe: _Recipe) -> None:
    for name in ("key", "host_key"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "board"]
        process.run([*words, "-f", str(directory / name)], timeout_s=60)
    overlay = directory / "overlay"
    files = {
        "root/.ssh/authorized_keys": (directory / "key.pub").read_text(),
        "etc/ssh/ssh_host_ed25519_key": (directory / "host_key").read_text(),
        "etc/ssh/ssh_host_ed25519_key.pub": (directory / "host_key.pub").read_text(),
        "etc/systemd/network/board.network": NETWORK,
        **recipe.files,
    }
    for name, text in files.items():
        path = overlay / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    disk, hook = directory / "disk.img", directory / "hook.sh"
    hook.write_text(recipe.script)
    with disk.open("w+b") as file:
        file.truncate(DISK_MIB << 20)
        words = [
            *("mmdebstrap", f"--mode={image.namespace_mode()}", "--variant=minbase"),
            *(f"--include={','.join(recipe.packages)}", "--format=null"),
            *(f"--dpkgopt=path-exclude={glob}" for glob in EXCLUDE),
            f"--customize-hook=copy-in {overlay}/root {overlay}/etc {overlay}/boot /",
            f'--customize-hook=sh {hook} "$1"',
            f"--customize-hook=copy-out {' '.join(recipe.out)} {directory}",
            *(SUITE, "-", *image.host_sources(SUITE)),
        ]
        process.run(words, timeout_s=1800, stdin=file, log=directory / "build.log")
        recipe.begin(file, directory)
    disk.chmod(0o444)


@dataclass(frozen=True)
class EmulatedBoard:
    """One that stands there, off. port: of its sshd; serial: of its line, which speaks telnet;
    served: what it boots from before its disk, if anybody listens there; all on loopback. monitor:
    for its power. overlay: what its disk has come to. by_tftp: its firmware fetches the script so.
    """

    name: str
    installed: Installed
    port: int
    serial: int
    served: int
    monitor: Path
    overlay: Path
    by_tftp: bool = False

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
{f"tftp = {self.served}" if self.by_tftp else ""}

[machine.{self.name}.system]
address = "127.0.0.1"
port = {self.port}
key = {json.dumps(str(self.installed.key))}
host_key = {json.dumps(self.installed.host_key)}
{'directory = "/efi/rig"' if self.installed.uefi else ""}
"""


@contextlib.contextmanager
def standing(
    name: str,
    made: Installed,
    directory: Path,
    *,
    memory_mib: int = 1536,
    by_tftp: bool = False,
) -> Iterator[EmulatedBoard]:
    """A board that is off; ended with the test. by_tftp: its firmware fetches the script so."""
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
        # UDP gets to this host from a network without bounds alone.
        script, bounds = (
            (f"tftp://{HOST}:{served}", "off") if by_tftp else (f"http://{SERVED}", "on")
        )
        network = f"user,id=net,restrict={bounds},ipv6=off,hostfwd=tcp:127.0.0.1:{port}-:22"
        network += f",bootfile={script}/{name}.ipxe"
        network += f",guestfwd=tcp:{SERVED}-cmd:{through}"
        # UEFI would ask the network for minutes, in its own ways.
        card = f"virtio-net-pci,netdev=net,mac={MAC},"
        card += "romfile=" if made.uefi else "bootindex=1"
        argv = [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
            # Not max: with what AVX2 is in QEMU 7.2, libcrypto's sha256 of a file is another one.
            *("-machine", "q35", "-accel", "tcg", "-cpu", "Nehalem,+invtsc,x-force-features=on"),
            *("-smp", "2", "-m", str(memory_mib), "-S", "-no-shutdown"),
            *("-drive", f"file={overlay},format=qcow2,if=none,id=disk,cache=unsafe"),
            *("-device", "virtio-blk-pci,drive=disk,bootindex=2", "-netdev", network),
            *("-device", card, "-device", "virtio-rng-pci"),
            "-chardev",
            f"socket,id=serial,host=127.0.0.1,port={serial},server=on,wait=off,telnet=on",
            *("-serial", "chardev:serial", *made.firmware(directory)),
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
            yield EmulatedBoard(name, made, port, serial, served, monitor, overlay, by_tftp)
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
