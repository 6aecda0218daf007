"""A cluster of Slurm's on loopback: its controller and two nodes, for real, ended with the test."""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import emulated_bmc

from rig import process

READY_S = 60.0
NODES = ("n1", "n2")
CONF = """\
ClusterName=rig
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={munge},cred_expire=5
CredType=cred/munge
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool-%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd-%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdParameters=config_overrides
MpiDefault=none
SlurmdTimeout=5
SlurmctldTimeout=30
InactiveLimit=0
KillWait=10
MinJobAge=300
JobRequeue=1
SchedulerParameters=sched_interval=1,requeue_setup_env_fail
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class Cluster:
    """One that runs. env: for whoever talks to it. nodes: its slurmd, by name."""

    place: Path
    env: Mapping[str, str]
    nodes: dict[str, subprocess.Popen[bytes]]

    def said(self, *words: str) -> str:
        """What a command of Slurm's says."""
        return process.run(words, env=self.env, timeout_s=60, check=False).output

    def kill(self, node: str) -> None:
        """As if the node's power was pulled: its slurmd, and the steps it had started."""
        slurmd = self.nodes[node]
        slurmd.kill()
        slurmd.wait()
        # The daemons of steps first: they would tell the controller how what they started ended.
        for wanted in (b"slurmstepd", b""):
            for entry in Path("/proc").iterdir():
                with contextlib.suppress(OSError):
                    if entry.name.isdigit() and _is_of(entry, node, wanted):
                        os.kill(int(entry.name), 9)


def _is_of(entry: Path, node: str, words: bytes) -> bool:
    """Whether a process was started by a node's slurmd, and is called so."""
    if words not in (entry / "cmdline").read_bytes():
        return False
    return f"SLURMD_NODENAME={node}\0".encode() in (entry / "environ").read_bytes()


@contextlib.contextmanager
def cluster(place: Path, cpus: int = 4) -> Iterator[Cluster]:
    """Two nodes of so many CPUs each, whatever this host has."""
    emulated_bmc.wanted("slurmctld", "slurmd", "sbatch", "munged")
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (place / name).mkdir(parents=True)
    munge = place / "munge.socket"
    ports = {node: emulated_bmc.free_port() for node in NODES}
    nodes = "\n".join(
        f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[node]} CPUs={cpus} "
        "RealMemory=4096 State=UNKNOWN"
        for node in NODES
    )
    conf = place / "slurm.conf"
    told = {"controller": emulated_bmc.free_port(), "user": getpass.getuser()}
    conf.write_text(CONF.format(**told, munge=munge, place=place, nodes=nodes))
    env = {**os.environ, "SLURM_CONF": str(conf)}
    with contextlib.ExitStack() as stack:
        _munged(place, munge, stack)
        _daemon(["slurmctld", "-D", "-f", conf, "-i"], place / "controller.out", env, stack)
        slurmds = {
            node: _daemon(
                ["slurmd", "-D", "-N", node, "-f", conf], place / f"{node}.out", env, stack
            )
            for node in NODES
        }
        found = Cluster(place, env, slurmds)
        deadline = time.monotonic() + READY_S
        while found.said("sinfo", "-h", "-o", "%D %t").strip() != f"{len(NODES)} idle":
            if time.monotonic() > deadline:
                logs = "\n".join(p.read_text()[-1500:] for p in sorted(place.glob("*.log")))
                raise RuntimeError(f"no cluster: {found.said('sinfo')}\n{logs}")
            time.sleep(0.2)
        yield found


def _munged(place: Path, socket: Path, stack: contextlib.ExitStack) -> None:
    key = place / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    files = {"key-file": key, "log-file": place / "munged.log", "pid-file": place / "munged.pid",
             "seed-file": place / "munged.seed", "socket": socket}  # fmt: skip
    words = ["munged", "-F", "--force", *(f"--{name}={path}" for name, path in files.items())]
    _daemon(words, place / "munged.out", dict(os.environ), stack)
    deadline = time.monotonic() + READY_S
    while not socket.exists():
        if time.monotonic() > deadline:
            raise RuntimeError((place / "munged.out").read_text())
        time.sleep(0.05)


def _daemon(
    words: Sequence[str | Path], log: Path, env: Mapping[str, str], stack: contextlib.ExitStack
) -> subprocess.Popen[bytes]:
    file = stack.enter_context(log.open("wb"))
    started = process.spawn(words, stdout=file, stderr=subprocess.STDOUT, env=env)
    stack.callback(process.end, started, grace_s=3)
    return started
