"""Fixture `slurm`: a SLURM cluster of one node on this machine. Use it with `from one_node_slurm import slurm`.

Needs Debian's packages `slurm-wlm` and `munge`, and root.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=1
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """Runs SLURM's commands on the cluster."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

    def __call__(self, *words: str, **settings: str) -> str:
        """Runs a command, which must succeed; returns its standard output."""
        environment = self.environment | settings
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    def state(self, job: str) -> str:
        """Returns the state of a job: `PENDING`, `RUNNING`, `COMPLETED`, ..."""
        shown = self("scontrol", "show", "job", job)
        return shown.split("JobState=")[1].split()[0]

    def wait_until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Waits until `condition()` is true; fails after `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"the condition is still false after {seconds} s"
            time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def slurm(tmp_path) -> Iterator[Slurm]:
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        pytest.skip(f"needs SLURM ({', '.join(missing)}): apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("needs root, to run SLURM's daemons")
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    host = socket.gethostname().split(".")[0]
    settings = {"host": host, "folder": folder, "ports": _free_ports(2), "cpus": os.cpu_count()}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**settings))
    files = {name: folder / f"munge.{name}" for name in ("socket", "log", "seed")}
    munged = ["munged", "--force", f"--key-file={key}", f"--pid-file={folder}/munged.pid"]
    cluster = Slurm(folder)
    try:
        cluster(*munged, f"--socket={files['socket']}", f"--log-file={files['log']}", f"--seed-file={files['seed']}")
        cluster("slurmctld")
        cluster("slurmd")
        cluster.wait_until(lambda: "idle" in cluster("sinfo", "--noheader"))
        yield cluster
        cluster("scancel", "--user=root", "--state=PENDING")
    finally:
        for name in ("slurmd", "slurmctld", "munged"):
            if (file := folder / f"{name}.pid").exists():
                os.kill(int(file.read_text()), signal.SIGTERM)
