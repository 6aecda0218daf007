"""What switches a board, for real and without a board: OpenIPMI's simulator, the Redfish emulator
of sushy-tools, pdudaemon. All on loopback, ended with the test.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rig import doctor, process

USER, PASSWORD = "rig", "pw-of-the-bmc"
READY_S = 60.0
LAN = """\
name "board"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_operator md5
    allowed_auths_admin md5
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "{chassis}"
  user 2 true "{user}" "{password}" operator 10 md5
"""
EMULATION = """\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
mc_enable 0x20
"""
# The simulator calls it with "0x20 get power" and "0x20 set power 1". `stuck`: it does nothing.
CHASSIS = """\
#!/bin/sh
cd {directory} || exit 1
echo "$*" >>asked
shift; what=$1; shift
while [ $# -gt 0 ]; do
    if [ $what = get ]; then
        if [ $1 = power ]; then echo power:$(cat power); else echo $1:default; fi
    else
        [ $1 = power ] && [ ! -e stuck ] && {{ {switch} }} && echo $2 >power
        shift
    fi
    shift
done
exit 0
"""


@dataclass(frozen=True)
class Switch:
    """What a BMC switches: shell commands."""

    on: str
    off: str


@dataclass(frozen=True)
class Emulated:
    """One that runs. port: on loopback. directory: with `power` ("0" or "1") where it has it."""

    port: int
    directory: Path

    @property
    def powered(self) -> bool:
        return (self.directory / "power").read_text().strip() == "1"


def wanted(*programs: str) -> None:
    """Skip a test where one of these is not installed: on CI the gate of skips forbids it."""
    for one in programs:
        if doctor.find_command(one) is None:
            pytest.skip(f"{one} is not installed")


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def running(words: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        started = process.spawn(words, stdout=file, stderr=subprocess.STDOUT, cwd=log.parent)
        try:
            yield started
        finally:
            process.end(started, grace_s=2)


def wait_for_port(port: int, started: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and started.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nobody listens on port {port}:\n{log.read_text()[-2000:]}")


def wait_for_listener(port: int, started: subprocess.Popen[bytes], log: Path) -> None:
    """As wait_for_port, of one that serves a single client: it is not to be that one."""
    deadline = time.monotonic() + READY_S
    wanted = f":{port:04X} 00000000:0000 0A"
    while time.monotonic() < deadline and started.poll() is None:
        if wanted in Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text():
            return
        time.sleep(0.05)
    raise RuntimeError(f"nobody listens on port {port}:\n{log.read_text()[-2000:]}")


@contextlib.contextmanager
def ipmi(directory: Path, sol: str = "", switch: Switch | None = None) -> Iterator[Emulated]:
    """A BMC that is off. sol: whose line it serves over LAN ("tcp:ADDRESS:PORT"). switch: what it
    switches, if anything.
    """
    wanted("ipmi_sim", "ipmitool")
    port = free_port(socket.SOCK_DGRAM)
    chassis = directory / "chassis"
    does = f"case $2 in 1) {switch.on};; *) {switch.off};; esac;" if switch else ":;"
    chassis.write_text(CHASSIS.format(directory=directory, switch=does))
    chassis.chmod(0o755)
    (directory / "power").write_text("0\n")
    told = {"port": port, "chassis": f"{chassis} 0x20", "user": USER, "password": PASSWORD}
    line = f'sol "{sol}" 115200\n' if sol else ""
    (directory / "lan.conf").write_text(LAN.format(**told) + line)
    (directory / "board.emu").write_text(EMULATION)
    (directory / "state").mkdir()
    words = ["ipmi_sim", "-c", "lan.conf", "-f", "board.emu", "-s", "state", "-n"]
    with running(words, directory / "ipmi.log") as started:
        deadline = time.monotonic() + READY_S
        while f":{port:04X} " not in Path("/proc/net/udp").read_text():
            if time.monotonic() > deadline or started.poll() is not None:
                raise RuntimeError((directory / "ipmi.log").read_text()[-2000:])
            time.sleep(0.05)
        yield Emulated(port, directory)


def certificate(directory: Path) -> tuple[Path, Path]:
    """One that a BMC has signed for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bmc")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    paths = directory / "bmc.pem", directory / "bmc.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return paths


@contextlib.contextmanager
def redfish(directory: Path, systems: Sequence[str] = ("board",)) -> Iterator[Emulated]:
    """A BMC of these systems; its certificate is bmc.pem."""
    port = free_port()
    pem, key = certificate(directory)
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(rounds=4)).decode()
    (directory / "users").write_text(f"{USER}:{hashed}\n")
    fakes = [
        {
            "uuid": f"{number:08d}-0000-4000-8000-000000000000",
            "name": name,
            "power_state": "Off",
            "nics": [],
        }
        for number, name in enumerate(systems, 1)
    ]
    settings = {
        "SUSHY_EMULATOR_LISTEN_IP": "127.0.0.1",
        "SUSHY_EMULATOR_LISTEN_PORT": port,
        "SUSHY_EMULATOR_SSL_CERT": str(pem),
        "SUSHY_EMULATOR_SSL_KEY": str(key),
        "SUSHY_EMULATOR_AUTH_FILE": str(directory / "users"),
        "SUSHY_EMULATOR_FAKE_DRIVER": True,
        "SUSHY_EMULATOR_FAKE_SYSTEMS": fakes,
        "SUSHY_EMULATOR_STATE_DIR": str(directory),
    }
    text = "".join(f"{name} = {value!r}\n" for name, value in settings.items())
    (directory / "sushy.conf").write_text(text)
    program = str(Path(sys.executable).with_name("sushy-emulator"))
    log = directory / "redfish.log"
    words = [program, "--fake", "--config", str(directory / "sushy.conf")]
    with running(words, log) as started:
        wait_for_port(port, started, log)
        yield Emulated(port, directory)


@contextlib.contextmanager
def pdudaemon(directory: Path) -> Iterator[Emulated]:
    """One that has the PDU `rack1`, whose outlet 7 is the board's; `power` says what it did."""
    wanted("pdudaemon")
    port = free_port()
    (directory / "power").write_text("0\n")
    pdu = {
        "driver": "localcmdline",
        "cmd_on": f"test %s = 7 && echo 1 >{directory}/power",
        "cmd_off": f"test %s = 7 && echo 0 >{directory}/power",
    }
    daemon = {"hostname": "127.0.0.1", "port": port, "logging_level": "DEBUG", "listener": "http"}
    (directory / "pdu.conf").write_text(json.dumps({"daemon": daemon, "pdus": {"rack1": pdu}}))
    log = directory / "pdudaemon.log"
    own = str(directory / "own.log")
    words = ["pdudaemon", "--conf", str(directory / "pdu.conf"), "--logfile", own]
    with running(words, log) as started:
        wait_for_port(port, started, log)
        yield Emulated(port, directory)
