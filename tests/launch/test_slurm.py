"""launch/slurm.sbatch: its submission, its reaction to exit codes, and a run under a real SLURM."""

from __future__ import annotations

import shlex
import sys

import pytest
import quick_run
from one_node_slurm import slurm

__all__ = ["slurm"]  # a fixture

AWKWARD = ["pretrain", "two words", "it's", '"quoted"', "$HOME `id`", "*", "", "two\nlines"]
STEP = ["--kill-on-bad-exit=0", "--label"]
INSIDE = {"SLURM_JOB_ID": "7"}


def test_the_script_submits_itself_with_one_process_per_gpu(programs, repository):
    assert programs.launch("slurm.sbatch", *AWKWARD, NODES="4", GPUS_PER_NODE="8").returncode == 0
    size = ["--nodes=4", "--ntasks-per-node=8", "--cpus-per-task=8", "--gpus-per-node=8"]
    assert programs.calls() == [["sbatch", *size, str(repository / "launch" / "slurm.sbatch"), *AWKWARD]]


def test_without_gpus_there_is_one_process_per_node(programs):
    programs.launch("slurm.sbatch", "pretrain", NODES="2", GPUS_PER_NODE="0", CPUS_PER_PROCESS="16")
    (words,) = programs.calls("sbatch")
    assert words[:3] == ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=16"] and "gpus" not in " ".join(words)


def test_a_dry_run_prints_the_submission_and_the_step_and_runs_nothing(programs):
    settings = {"NODES": "4", "GPUS_PER_NODE": "8"}
    dry = programs.launch("slurm.sbatch", "--dry-run", *AWKWARD, **settings)
    assert not programs.calls()
    programs.launch("slurm.sbatch", *AWKWARD, **settings)
    programs.launch("slurm.sbatch", *AWKWARD, **INSIDE, SLURM_CPUS_PER_TASK="8")
    assert shlex.split(dry.stdout) == [word for call in programs.calls() for word in call]


def test_the_step_gets_the_command_unchanged(programs):
    assert programs.launch("slurm.sbatch", *AWKWARD, **INSIDE).returncode == 0
    assert programs.calls() == [["srun", *STEP, "electramed", *AWKWARD]]


def test_exit_42_requeues_the_job_and_other_codes_end_it(programs):
    for code in (0, 1, 2, 137):
        programs.add("srun", f"sys.exit({code})")
        assert programs.launch("slurm.sbatch", "pretrain", **INSIDE).returncode == code
    assert not programs.calls("scontrol")
    programs.add("srun", "sys.exit(42)")
    assert programs.launch("slurm.sbatch", "pretrain", **INSIDE).returncode == 42
    assert programs.calls("scontrol") == [["requeue", "7"]]


@pytest.mark.slow
def test_two_processes_under_a_real_slurm_save_are_requeued_and_finish(
    slurm, packed, quick_compilation, tmp_path, repository
):
    programs = tmp_path / "bin"
    programs.mkdir()
    electramed = programs / "electramed"
    electramed.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m electramed_jax.cli "$@"\n')
    electramed.chmod(0o755)
    total = 100
    settings = quick_run.settings(packed, total_steps=total, log_every=5, save_every=total, eval_every=total)
    environment = quick_compilation | {"PATH": f"{programs}:{slurm.environment['PATH']}"}
    where = ["--parsable", "--nodes=1", "--ntasks-per-node=2", "--overcommit", f"--chdir={repository}"]
    log = tmp_path / "job.log"
    command = ["pretrain", *settings, f"--workdir={tmp_path / 'run'}"]
    script = str(repository / "launch" / "slurm.sbatch")
    job = slurm("sbatch", *where, f"--output={log}", script, *command, **environment).strip()

    slurm.wait_until(lambda: log.exists() and "step 5/" in log.read_text())
    slurm("scancel", "--signal=TERM", job)  # as SLURM does before the time limit
    slurm.wait_until(lambda: slurm.state(job) == "PENDING")
    saved = log.read_text()
    assert f"job {job} is requeued" in saved and "0: saved step" in saved
    slurm("scontrol", "update", f"JobId={job}", "StartTime=now+3")  # the default is two minutes later
    slurm.wait_until(lambda: slurm.state(job) in ("COMPLETED", "FAILED"))
    assert slurm.state(job) == "COMPLETED", log.read_text()
    resumed = log.read_text().removeprefix(saved)
    assert "0: resuming from step" in resumed and f"0: saved step {total}" in resumed
