"""What a workdir's small files add up to."""

from __future__ import annotations

import json
import math

import invented_metrics
import pytest

from electramed_jax.config.pretrain import Config, DataConfig, ModelConfig, to_dict
from electramed_jax.pretrain import history

CONFIG = Config(model=ModelConfig(vocab_size=100), data=DataConfig(max_seq_length=32), batch_size=8)


@pytest.fixture
def past(tmp_path) -> history.History:
    invented_metrics.write(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(CONFIG)))
    return history.read(str(tmp_path))


def test_tokens_and_seconds_are_those_of_every_step(past):
    assert past.step == invented_metrics.STEPS
    assert past.tokens() == 3000 * 8 * 32 * 0.5
    assert past.seconds() == 2999 * 0.5, "the first step was compiled, and not timed"


def test_device_hours_are_kept_apart_by_what_computed_them(past):
    hours = past.device_hours()
    assert hours.keys() == {("TPU v4", 4), ("TPU v4", 8)}
    assert math.isclose(hours["TPU v4", 4], 1999 * 0.5 * 4 / 3600)
    assert math.isclose(hours["TPU v4", 8], 1000 * 0.5 * 8 / 3600)


def test_figures_of_an_earlier_checkpoint_leave_later_steps_out(past):
    assert past.tokens(up_to=1000) == 1000 * 8 * 32 * 0.5
    assert past.device_hours(up_to=1000).keys() == {("TPU v4", 4)}


def test_without_starts_nothing_is_claimed_of_devices(past):
    assert history.History(past.config, past.entries).device_hours() == {}
