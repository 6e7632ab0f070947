"""The pool of processes: order of results, progress, killed workers and killed parents."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from electramed_jax.common import console
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import memory
from electramed_jax.data.parallel import process_pool


def test_results_come_in_the_order_of_the_tasks_for_any_number_of_processes():
    tasks = [(number, 2) for number in (5, 3, 9)]
    for workers in (1, 2):
        assert list(process_pool.run_tasks(pow, tasks, workers, "squaring")) == [25, 9, 81]


def test_a_killed_worker_is_a_user_error_that_suggests_fewer():
    with pytest.raises(UserError, match="was killed, most likely because memory ran out; .*--workers 1"):
        list(process_pool.run_tasks(os.abort, [(), ()], 2, "reading"))


def test_progress_is_printed_on_standard_error(capsys):
    list(process_pool.run_tasks(pow, [(2, 2)], 1, "squaring"))
    assert "squaring: 1 files" in capsys.readouterr().err


class CountingList(list):
    """A list that counts how many of its items have been taken."""

    taken = 0

    def __iter__(self):
        for item in super().__iter__():
            self.taken += 1
            yield item


def test_only_a_few_tasks_per_process_are_submitted_at_a_time():
    tasks = CountingList([(number, 2) for number in range(500)])
    results = process_pool.run_tasks(pow, tasks, 2, "squaring")
    assert next(results) == 0
    assert tasks.taken <= 8
    assert [next(results) for _ in range(99)] == [number**2 for number in range(1, 100)]
    assert tasks.taken <= 107
    results.close()


def test_a_pool_serves_several_stages_with_the_same_processes():
    with process_pool.ProcessPool(2) as shared:
        first = set(shared.run(os.getpid, [()] * 20, "naming"))
        second = set(shared.run(os.getpid, [()] * 20, "naming again"))
    assert len(first | second) <= 2 and os.getpid() not in first


def test_progress_also_counts_the_items_inside_the_tasks(capsys):
    with process_pool.ProcessPool(1) as alone:
        list(alone.run(pow, [(3, 2), (4, 2)], "squaring", unit="numbers", inside="points", count=int))
    assert "squaring: 2 numbers, 25 points in" in capsys.readouterr().err


@pytest.mark.slow
def test_the_peak_of_memory_is_that_of_the_largest_process():
    with process_pool.ProcessPool(2) as shared:
        before = memory.peak_bytes()
        list(shared.run(eval, [(f"len(b'x' * {before + 50_000_000})",), ("1",)], "filling"))
    assert memory.peak_bytes() >= before + 50_000_000


PARENT = """
import os
from electramed_jax.data.parallel import process_pool

if __name__ == "__main__":
    results = process_pool.run_tasks(os.getpid, [()] * 8, 2, "naming")
    print(next(results), flush=True)
    os.kill(os.getpid(), 9)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    killed = subprocess.run([sys.executable, str(tmp_path / "parent.py")], capture_output=True, text=True, timeout=60)
    assert killed.returncode == -9  # its pipes are closed only when its workers have ended too
    assert int(killed.stdout) > 0


def test_workers_have_the_console_level_of_their_parent():
    with console.at_level(console.QUIET):
        assert list(process_pool.run_tasks(console.level, [(), ()], 2, "asking")) == [console.QUIET] * 2
