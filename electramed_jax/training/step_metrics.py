"""Metric sums of train steps, from the devices to the values that are logged; pre-training and fine-tuning share it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax

from electramed_jax.common.errors import UserError
from electramed_jax.common.step_timer import StepTimer
from electramed_jax.model import flops
from electramed_jax.training.step import MAX_STEPS_IN_FLIGHT, sum_metrics

Sums = Mapping[
    str, Any
]  # scalars that add up over steps; "loss_sum", "gradient_norm_sum", "token_count", "step_count", ...
Metrics = dict[str, float]

RERUN = "lower config.optimizer.learning_rate or lengthen its warmup_steps, then run the same command again"


class NonFiniteError(UserError):
    """A loss or a gradient norm is not finite: the run has diverged.

    Attributes:
      step: the first step with such a number.
      metrics: the metrics of that step.
    """

    def __init__(self, step: int, metrics: Metrics, message: str):
        super().__init__(message)
        self.step, self.metrics = step, metrics


class StepMetrics:
    """Collects the metric sums of dispatched steps and converts an interval of them to metrics.

    An interval may begin in one process and end in the next: a checkpoint holds the sums of the steps that are not
    logged yet, so that the logged metrics do not depend on interruptions.
    """

    def __init__(
        self,
        timer: StepTimer,
        total_steps: int,
        compute_metrics: Callable[[Sums], Metrics],
        *,
        step_flops: float,
        num_devices: int,
        pending_sums: Mapping[str, float] | None = None,
        label: str = "",
        advice: str = RERUN,
    ):
        """Starts at the step of the timer.

        Args:
          timer: counts the steps and their time.
          total_steps: of the run, for the ETA.
          compute_metrics: metrics by name from the sums of one or more steps.
          step_flops: floating-point operations of one step, for `model_flops_utilization`.
          num_devices: devices that share the step.
          pending_sums: sums of steps before this process that are not logged yet, from `state_dict`.
          label: prefix of errors, such as "seed 3: ".
          advice: what to do after a number that is not finite.
        """
        self._timer, self._total_steps = timer, total_steps
        self._compute_metrics, self._step_flops = compute_metrics, step_flops
        self._label, self._advice = label, advice
        self._first_step = timer.step + 1
        self._dispatched: list[tuple[int, Sums]] = []  # on the devices, in order
        self._pending_sums: dict[str, Any] = dict(pending_sums or {})  # on the host, not logged yet
        self._compiled = False
        peak = flops.peak_flops(jax.devices()[0].device_kind)
        self._peak_flops = peak * num_devices if peak else None

    def add(self, step: int, sums: Sums) -> None:
        """Queues the metric sums of a dispatched step.

        Blocks on the step dispatched `MAX_STEPS_IN_FLIGHT` earlier, which bounds the delay before a preemption is
        handled. The first call blocks on its own step, so that compilation is not timed.

        Raises:
          NonFiniteError: the first step of this process has a number that is not finite.
        """
        self._dispatched.append((step, sums))
        if len(self._dispatched) > MAX_STEPS_IN_FLIGHT:
            jax.block_until_ready(self._dispatched[-1 - MAX_STEPS_IN_FLIGHT])
        self._timer.count(step)
        if not self._compiled:
            self.check_finite()
            self._timer.start()
            self._compiled = True

    def check_finite(self) -> None:
        """Waits for all dispatched steps and adds their sums to the pending ones.

        Raises:
          NonFiniteError: names the first step with a loss or gradient norm that is not finite.
        """
        for step, sums in self._dispatched:
            sums = jax.device_get(sums)
            for name, value in (("loss", sums["loss_sum"]), ("gradient norm", sums["gradient_norm_sum"])):
                if not math.isfinite(value):
                    raise NonFiniteError(step, self._compute_metrics(sums), self._non_finite_message(step, name, value))
            # One step after the other, so that the sum has the same bits with a restart in between.
            self._pending_sums = sum_metrics([self._pending_sums, sums] if self._pending_sums else [sums])
        self._dispatched.clear()

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint holds: the timer's counters and the sums not logged yet.

        Raises:
          NonFiniteError: see `check_finite`.
        """
        self.check_finite()
        pending_sums = {name: float(value) for name, value in self._pending_sums.items()}
        return self._timer.state_dict() | {"pending_sums": pending_sums}

    def flush(self) -> Metrics:
        """Returns the metrics of the interval that ends with the newest step, and begins the next interval.

        Raises:
          NonFiniteError: see `check_finite`.
        """
        self.check_finite()
        sums, self._pending_sums = self._pending_sums, {}
        metrics = self._compute_metrics(sums)
        metrics |= self._timer.tick(float(sums["token_count"]), int(sums["step_count"]), self._total_steps)
        if "step_seconds" in metrics and self._peak_flops:
            metrics["model_flops_utilization"] = self._step_flops / metrics["step_seconds"] / self._peak_flops
        return metrics

    def _non_finite_message(self, step: int, name: str, value: float) -> str:
        message = f"{self._label}{name} is {value} at step {step}; stopped, the last checkpoint is from before it; "
        if step == self._first_step > 1:  # the parameters that failed are those of the checkpoint
            message += f"it has diverged already: move checkpoints/{step - 1} away, "
        return message + self._advice


def pop_pending_sums(counters: dict[str, Any]) -> dict[str, float]:
    """Removes and returns the pending sums of a checkpoint's counters; "untold" is the key of earlier versions."""
    earlier = counters.pop("untold", {})
    return counters.pop("pending_sums", earlier)
