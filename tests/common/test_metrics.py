"""Metrics on disk read as if nothing had ever been interrupted."""

from __future__ import annotations

import json

import pytest
from small_disk import fill, small_disk

from electramed_jax.common import metrics
from electramed_jax.common.errors import UserError

__all__ = ["small_disk"]  # a fixture


def written(workdir, steps, *, resumed_step=0) -> None:
    with metrics.MetricsWriter(str(workdir), resumed_step=resumed_step) as log:
        for step in steps:
            log.write(step, "train", {"loss": step / 4})


def steps_in(workdir) -> list[int]:
    return [entry["step"] for entry in metrics.read(str(workdir))]


def test_an_entry_is_a_line_of_json_with_its_step_and_split_first(tmp_path):
    written(tmp_path, [1])
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "split": "train", "loss": 0.25}\n'


def test_a_resumed_run_drops_what_its_predecessor_wrote_after_the_checkpoint(tmp_path):
    written(tmp_path, [1, 2, 3, 4])
    written(tmp_path, [3, 4, 5], resumed_step=2)
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5]


def test_an_entry_is_on_disk_as_soon_as_it_is_written(tmp_path):
    """A killed process loses none."""
    with metrics.MetricsWriter(str(tmp_path), resumed_step=0) as log:
        log.write(1, "validation", {"loss": 1.0})
        assert steps_in(tmp_path) == [1]
        (events,) = (tmp_path / "tensorboard").iterdir()
        assert b"validation/loss" in events.read_bytes()


def test_a_last_line_cut_off_by_a_crash_is_left_out_and_then_replaced(tmp_path):
    written(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "spl')
    assert steps_in(tmp_path) == [1, 2]
    written(tmp_path, [3], resumed_step=2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_an_entry_is_found_by_step_and_split(tmp_path):
    written(tmp_path, [5])
    assert metrics.has(str(tmp_path), 5, "train")
    assert not metrics.has(str(tmp_path), 5, "validation")
    assert not metrics.has(str(tmp_path), 6, "train")
    assert not metrics.has(str(tmp_path / "nowhere"), 5, "train")


def test_a_full_disk_is_said_at_once_and_leaves_whole_entries(small_disk):
    disk = small_disk(64 * 1024)
    with metrics.MetricsWriter(str(disk), resumed_step=0) as log:
        log.write(1, "train", {"loss": 1.0})
        fill(disk)
        with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be written \(No space left on device\)"):
            for step in range(2, 10_000):
                log.write(step, "train", {"loss": 1.0})
    assert steps_in(disk) == list(range(1, len(steps_in(disk)) + 1))
