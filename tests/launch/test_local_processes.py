"""Several processes of one machine: what is started, and that they train together."""

from __future__ import annotations

import os
import subprocess

import pytest


@pytest.fixture
def launch(repository):
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        command = [str(repository / "launch" / "local_processes.sh"), *arguments]
        return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)

    return run


def test_a_dry_run_prints_every_process_and_starts_none(launch):
    done = launch("--dry-run", "pretrain", "--workdir=run", PROCESSES="2", DEVICES="4", PORT="5000")
    assert done.returncode == 0
    first, second = done.stdout.splitlines()
    assert first.endswith("electramed pretrain --workdir=run") and "JAX_PROCESS_ID=0" in first
    assert first.replace("PROCESS_ID=0", "PROCESS_ID=1") == second
    for setting in ("device_count=4", "JAX_COORDINATOR_ADDRESS=127.0.0.1:5000", "JAX_NUM_PROCESSES=2"):
        assert setting in first


def test_a_missing_setting_is_named(launch):
    done = launch("pretrain")
    assert done.returncode != 0 and "set PROCESSES" in done.stderr


def test_the_first_failing_process_decides_the_exit_code(launch):
    assert launch("pretrain", "--no-such-option", PROCESSES="2").returncode == 2
