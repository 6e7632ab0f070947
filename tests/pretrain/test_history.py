"""Totals of a run, computed from the small files of its workdir."""

from __future__ import annotations

import json
import math

import invented_metrics
import pytest

from electramed_jax.config.pretrain import Config, DataConfig, ModelConfig, to_dict
from electramed_jax.pretrain import history

CONFIG = Config(model=ModelConfig(vocab_size=100), data=DataConfig(max_seq_length=32), batch_size=8)


@pytest.fixture
def run_history(tmp_path) -> history.History:
    invented_metrics.write(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(CONFIG)))
    return history.read_history(str(tmp_path))


def test_tokens_and_seconds_add_up_over_all_steps(run_history):
    assert run_history.step == invented_metrics.STEPS
    assert run_history.tokens() == 3000 * 8 * 32 * 0.5
    assert run_history.seconds() == 2999 * 0.5, "the first step includes compilation and is not timed"


def test_device_hours_are_separate_for_each_kind_and_number_of_devices(run_history):
    hours = run_history.device_hours()
    assert hours.keys() == {("TPU v4", 4), ("TPU v4", 8)}
    assert math.isclose(hours["TPU v4", 4], 1999 * 0.5 * 4 / 3600)
    assert math.isclose(hours["TPU v4", 8], 1000 * 0.5 * 8 / 3600)


def test_totals_up_to_an_earlier_checkpoint_exclude_later_steps(run_history):
    assert run_history.tokens(up_to=1000) == 1000 * 8 * 32 * 0.5
    assert run_history.device_hours(up_to=1000).keys() == {("TPU v4", 4)}


def test_without_starts_there_are_no_device_hours(run_history):
    assert history.History(run_history.config, run_history.entries).device_hours() == {}
