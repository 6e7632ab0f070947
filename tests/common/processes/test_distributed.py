"""Tests of several real processes: they exchange values, and all end if one of them does."""

from __future__ import annotations

import os
import pathlib
import signal
import socket

import pod
import pytest

from electramed_jax.common.errors import EXIT_PREEMPTED, UserError
from electramed_jax.common.processes import distributed

ROUNDS = pathlib.Path(pod.__file__).with_name("rounds.py")
FOREVER = 1_000_000


@pytest.fixture
def environment(monkeypatch):
    """Sets the variables that describe a cluster, after removing those of this machine."""
    for name in os.environ:
        if name.startswith(
            ("JAX_COORD", "JAX_NUM_PROC", "JAX_PROCESS", "SLURM_", "OMPI_", "TPU_", "MEGASCALE_", "KUBE")
        ):
            monkeypatch.delenv(name)

    def set_all(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.fixture
def joining(monkeypatch) -> list[tuple]:
    """Records the arguments of `jax.distributed.initialize`: (address, processes, number)."""
    calls = []
    monkeypatch.setattr("jax.distributed.initialize", lambda *arguments, **_: calls.append(arguments))
    return calls


# ---- detection of the other processes --------------------------------------------------------------------------


def test_without_variables_a_process_runs_alone(environment, joining):
    distributed.initialize()
    assert joining == []


def test_plain_processes_are_described_by_three_variables(environment, joining):
    environment(JAX_COORDINATOR_ADDRESS="host:1234", JAX_NUM_PROCESSES="4", JAX_PROCESS_ID="3")
    distributed.initialize()
    assert joining == [("host:1234", 4, 3)]


def test_under_slurm_jax_detects_the_other_processes(environment, joining):
    environment(
        SLURM_JOB_ID="4097", SLURM_STEP_NODELIST="node[07-10]", SLURM_NTASKS="8", SLURM_PROCID="5", SLURM_LOCALID="1"
    )
    distributed.initialize()
    assert joining == [("node07:61441", 8, 5)]


def test_on_gke_jax_detects_the_other_processes(environment, joining, monkeypatch):
    """Pretends to be a TPU host."""
    monkeypatch.setattr("jax._src.clusters.cloud_tpu_cluster.running_in_cloud_tpu_vm", True)
    environment(
        TPU_WORKER_HOSTNAMES="localhost,another.host",
        TPU_WORKER_ID="1",
        TPU_SKIP_MDS_QUERY="1",
        MEGASCALE_COORDINATOR_ADDRESS="localhost",
        MEGASCALE_NUM_SLICES="2",
        MEGASCALE_SLICE_ID="1",
    )
    distributed.initialize()
    assert joining == [("localhost:8482", 4, 3)]


@pytest.mark.parametrize("alone", [dict(SLURM_NTASKS="1"), dict(SLURM_NTASKS="8", JAX_NUM_PROCESSES="1")])
def test_one_task_or_a_process_count_of_one_runs_alone(environment, joining, alone):
    environment(SLURM_JOB_ID="1", SLURM_STEP_NODELIST="node7", SLURM_PROCID="0", SLURM_LOCALID="0", **alone)
    distributed.initialize()
    assert joining == []


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (dict(JAX_COORDINATOR_ADDRESS="host:1"), "ADDRESS is set but not JAX_NUM_PROCESSES and JAX_PROCESS_ID; set"),
        (dict(JAX_NUM_PROCESSES="two"), "JAX_NUM_PROCESSES='two' is not a number"),
        (
            dict(JAX_COORDINATOR_ADDRESS="host:1", JAX_NUM_PROCESSES="2", JAX_PROCESS_ID="2"),
            "JAX_PROCESS_ID=2 is out of range; wanted 0 to 1",
        ),
        (
            dict(JAX_COORDINATOR_ADDRESS="host", JAX_NUM_PROCESSES="2", JAX_PROCESS_ID="0"),
            "JAX_COORDINATOR_ADDRESS='host' is not an address; wanted host:port",
        ),
        (
            dict(SLURM_JOB_ID="x", SLURM_STEP_NODELIST="n", SLURM_NTASKS="2", SLURM_PROCID="0", SLURM_LOCALID="0"),
            "the other processes cannot be found .*or set JAX_NUM_PROCESSES=1 to run this process alone",
        ),
    ],
)
def test_invalid_variables_are_named(environment, joining, variables, message):
    environment(**variables)
    with pytest.raises(UserError, match=message):
        distributed.initialize()
    assert joining == []


def test_a_port_in_use_is_reported_before_any_process_waits(environment, joining):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        address = f"localhost:{taken.getsockname()[1]}"
        environment(JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES="2", JAX_PROCESS_ID="0")
        with pytest.raises(UserError, match=f"{address}: the port is in use"):
            distributed.initialize()


# ---- the end of a process -----------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_exchange_values_and_exit_with_0():
    with pod.start_processes(3, 1, 5, 40, program=ROUNDS) as processes:
        assert [process.wait() for process in processes] == [0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_after_one_process_is_killed_the_other_names_it_and_exits_with_42(victim):
    """Process 0 is also the coordinator; jax may detect its end before a collective fails."""
    with pod.start_processes(2, 1, FOREVER, 40, program=ROUNDS) as processes:
        processes[victim].wait_for("round 40")
        processes[victim].popen.kill()
        other = processes[1 - victim]
        assert other.wait(60) == EXIT_PREEMPTED
        assert f"[process {1 - victim} of 2] process {victim} ({socket.gethostname()}) ended" in last_line(other)
        assert "terminate called" not in other.stderr and "Traceback" not in other.stderr


@pytest.mark.slow
def test_after_process_0_hangs_the_other_names_it_and_exits_with_42():
    """No connection is closed, as after a power or network failure: only its silence reveals it."""
    with pod.start_processes(2, 1, FOREVER, 5, program=ROUNDS) as (first, second):
        first.wait_for("round 40")  # seconds: the names of the hosts are exchanged
        first.popen.send_signal(signal.SIGSTOP)
        assert second.wait(60) == EXIT_PREEMPTED
        assert f"process 0 ({socket.gethostname()}) has not answered for 5 s" in last_line(second)


@pytest.mark.slow
def test_a_user_error_of_process_0_is_printed_by_all_and_ends_them():
    """The connections of the others break when process 0 ends; they have read its reason before."""
    with pod.start_processes(2, 1, FOREVER, 40, 0, program=ROUNDS) as (first, second):
        assert (first.wait(60), second.wait(60)) == (2, EXIT_PREEMPTED)
        assert last_line(first).endswith("a mistake of its own")
        assert f"process 0 ({socket.gethostname()}) ended: a mistake of its own" in second.stderr


def last_line(process: pod.Process) -> str:
    return process.stderr.splitlines()[-1]
