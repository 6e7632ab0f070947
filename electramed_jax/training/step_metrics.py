"""What the loop says and writes down: sums of steps turned into metrics, and those into what a person reads."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import jax

from electramed_jax.common import step_timer
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes.main_console import log_main
from electramed_jax.config.pretrain import Config
from electramed_jax.model import flops
from electramed_jax.pretrain.step import compute_metrics
from electramed_jax.training import step as step_lib


class NonFiniteError(UserError):
    """The run has diverged."""

    def __init__(self, step: int, figures: dict[str, float], message: str):
        """`figures`: the metrics of that step."""
        super().__init__(message)
        self.step, self.figures = step, figures


class StepMetrics:
    """Collects the steps' sums on the device, and turns an interval of them into metrics.

    An interval may begin in one process and end in the next: a checkpoint keeps the sums of the
    steps that no entry has told of yet, so that entries do not depend on interruptions.
    """

    def __init__(
        self,
        config: Config,
        clock: step_timer.StepTimer,
        num_devices: int,
        untold: Mapping[str, float] | None = None,
    ):
        """`untold`: from `saved` of the process before."""
        self._config, self._clock = config, clock
        self._pending: list[tuple[int, Any]] = []
        self._first = clock.step + 1
        self._untold = dict(untold or {})
        self._began = time.monotonic()
        peak = flops.peak_flops(jax.devices()[0].device_kind)
        self._peak = peak * num_devices if peak else None
        self._started = False  # the first step of this process has come back

    def add(self, step: int, sums: Any) -> None:
        """A step was dispatched. The one `MAX_STEPS_IN_FLIGHT` before it is waited for, so that a run told to stop soon can;
        and a process's first one: it was compiled, too."""
        self._pending.append((step, sums))
        if len(self._pending) > step_lib.MAX_STEPS_IN_FLIGHT:
            jax.block_until_ready(self._pending[-1 - step_lib.MAX_STEPS_IN_FLIGHT])
        self._clock.count(step)
        if not self._started:
            self.check()
            seconds = time.monotonic() - self._began
            log_main(f"first step, compilation included, after {seconds:.1f} s")
            self._clock.start()
            self._started = True

    def check(self) -> None:
        """Waits for every step so far; raises `NonFiniteError` of the first with a loss or gradient norm that is not."""
        for step, sums in self._pending:
            sums = jax.device_get(sums)
            for name, value in (
                ("loss", sums["loss_sum"]),
                ("gradient norm", sums["gradient_norm_sum"]),
            ):
                if not math.isfinite(value):
                    figures = compute_metrics(sums, self._config)
                    raise NonFiniteError(
                        step,
                        figures,
                        f"{name} is {value} at step {step}; stopped, the last checkpoint is from before it; "
                        + (
                            f"it has diverged already: move checkpoints/{step - 1} away, "
                            if self._too_late(step)
                            else ""
                        )
                        + "lower config.optimizer.learning_rate or lengthen its warmup_steps, then run the same "
                        "command again",
                    )
            # One after the other, so that a sum is the same bits with a restart in between.
            self._untold = step_lib.sum_metrics([self._untold, sums] if self._untold else [sums])
        self._pending.clear()

    def _too_late(self, step: int) -> bool:
        """Whether the parameters that failed are those of the checkpoint this process began with."""
        return step == self._first > 1

    def saved(self) -> dict[str, Any]:
        """What a checkpoint keeps: the clock's figures, and sums not told of yet."""
        self.check()
        untold = {name: float(value) for name, value in self._untold.items()}
        return self._clock.saved() | {"untold": untold}

    def close(self, step: int) -> dict[str, float]:
        """Metrics of the interval that ends here."""
        self.check()
        sums, self._untold = self._untold, {}
        metrics = compute_metrics(sums, self._config)
        metrics |= self._clock.tick(float(sums["token_count"]), int(sums["step_count"]), self._config.total_steps)
        if "step_seconds" in metrics and self._peak:
            work = flops.train_step(self._config)
            metrics["model_flops_utilization"] = work / metrics["step_seconds"] / self._peak
        return metrics
