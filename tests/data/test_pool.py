from __future__ import annotations

import os
import subprocess
import sys

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.data import pool


def test_results_come_in_the_order_of_the_tasks_for_any_number_of_processes():
    tasks = [(number, 2) for number in (5, 3, 9)]
    for workers in (1, 2):
        assert list(pool.run(pow, tasks, workers, "squaring")) == [25, 9, 81]


def test_a_killed_worker_is_a_user_error_that_suggests_fewer():
    with pytest.raises(UserError, match="was killed, most likely for memory; .*--workers 1"):
        list(pool.run(os.abort, [(), ()], 2, "reading"))


def test_progress_is_told_on_standard_error(capsys):
    list(pool.run(pow, [(2, 2)], 1, "squaring"))
    assert "squaring: 1 files" in capsys.readouterr().err


PARENT = """
import os
from electramed_jax.data import pool

if __name__ == "__main__":
    results = pool.run(os.getpid, [()] * 8, 2, "naming")
    print(next(results), flush=True)
    os.kill(os.getpid(), 9)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    killed = subprocess.run(
        [sys.executable, str(tmp_path / "parent.py")], capture_output=True, text=True, timeout=60
    )
    assert killed.returncode == -9  # its pipes are closed only when its workers are gone as well
    assert int(killed.stdout) > 0
