"""launch/local_processes.sh: the commands it starts, its exit code, and two processes that train together."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
import quick_run

pytestmark = pytest.mark.slow  # each test needs a trained run


@pytest.fixture
def launch(repository):
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        command = [str(repository / "launch" / "local_processes.sh"), *arguments]
        return subprocess.run(command, check=False, env=os.environ | environment, capture_output=True, text=True)

    return run


def test_a_dry_run_prints_every_process_and_starts_none(launch):
    done = launch("--dry-run", "pretrain", "--workdir=run", PROCESSES="2", DEVICES="4", PORT="5000")
    assert done.returncode == 0
    first, second = done.stdout.splitlines()
    assert first.endswith("electramed pretrain --workdir=run") and "JAX_PROCESS_ID=0" in first
    assert first.replace("PROCESS_ID=0", "PROCESS_ID=1") == second
    for setting in ("device_count=4", "JAX_COORDINATOR_ADDRESS=127.0.0.1:5000", "JAX_NUM_PROCESSES=2"):
        assert setting in first


def test_a_setting_that_is_no_number_is_one_line(launch):
    done = launch("pretrain", PROCESSES="two")
    assert done.returncode == 2 and done.stderr.endswith("PROCESSES=two: wanted a whole number\n")


def test_the_first_failing_process_decides_the_exit_code(launch):
    assert launch("pretrain", "--no-such-option", PROCESSES="2").returncode == 2


def test_two_processes_train_one_model_together(launch, packed, quick_compilation, tmp_path):
    settings = quick_run.settings(packed, total_steps=100, log_every=5, save_every=100, eval_every=100)
    command = ["pretrain", *settings, f"--workdir={tmp_path / 'run'}", "--stop_after=3"]
    done = launch(*command, PROCESSES="2", DEVICES="2", **quick_compilation)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"parameters on 4 (?:cpu )?device", done.stderr)) == 1  # process 0 prints for both
    assert f"saved step 3 in {tmp_path / 'run'}" in done.stderr
