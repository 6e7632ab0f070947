"""Metrics of train steps: model FLOPs utilization, and errors for numbers that are not finite."""

from __future__ import annotations

import functools

import jax
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.common.step_timer import StepTimer
from electramed_jax.config.pretrain import Config
from electramed_jax.model import flops
from electramed_jax.pretrain.step import compute_metrics
from electramed_jax.training.step_metrics import StepMetrics

SUMS = dict.fromkeys(
    (
        "step_count loss_sum gradient_norm_sum learning_rate_sum generator_nll_sum generator_correct_sum "
        "sampled_correct_sum masked_count token_count slot_count"
    ).split(),
    1.0,
)


def step_metrics_of(config: Config, timer: StepTimer, num_devices: int = 8) -> StepMetrics:
    return StepMetrics(
        timer,
        config.total_steps,
        functools.partial(compute_metrics, config=config),
        step_flops=flops.train_step_flops(config),
        num_devices=num_devices,
    )


@pytest.mark.parametrize(("device", "known"), [("cpu", False), ("TPU v5 lite", True)])
def test_utilization_is_logged_only_if_the_peak_is_known(run_config, monkeypatch, device, known):
    if known:
        monkeypatch.setitem(flops.PEAK_FLOPS, jax.devices()[0].device_kind, flops.PEAK_FLOPS[device])
    seconds = iter(range(100))
    step_metrics = step_metrics_of(run_config, StepTimer(now=lambda: next(seconds)), num_devices=4)
    for step in (1, 2):
        step_metrics.add(step, SUMS)
    metrics = step_metrics.flush()
    assert metrics["step_seconds"] == 1.0
    if known:
        assert metrics["model_flops_utilization"] == pytest.approx(flops.train_step_flops(run_config) / (4 * 197e12))
    else:
        assert "model_flops_utilization" not in metrics


@pytest.mark.parametrize(
    ("name", "message"), [("loss_sum", "loss is nan"), ("gradient_norm_sum", "gradient norm is nan")]
)
def test_the_first_step_that_is_not_finite_is_named_at_a_later_check(run_config, name, message):
    step_metrics = step_metrics_of(run_config, StepTimer())
    for step in range(1, 6):
        step_metrics.add(step, SUMS | {name: float("nan") if step in (3, 4) else 1.0})
    for check in (step_metrics.state_dict, step_metrics.flush):
        with pytest.raises(UserError, match=f"{message} at step 3; stopped"):
            check()


def test_the_error_of_a_first_step_that_is_not_finite_names_the_checkpoint(run_config):
    """The parameters of the checkpoint are finite, but the next loss is not for any learning rate."""
    step_metrics = step_metrics_of(run_config, StepTimer(step=13))
    with pytest.raises(UserError, match="at step 14; stopped.* it has diverged already: move checkpoints/13 away"):
        step_metrics.add(14, SUMS | {"loss_sum": float("inf")})
