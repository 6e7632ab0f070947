"""Reads the history of a run from the small files of its workdir; needs no checkpoint and no device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from electramed_jax.common import config_io
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.common.tracking import metrics_writer
from electramed_jax.config.pretrain import Config, from_saved, to_dict
from electramed_jax.data.dataset.manifest import Manifest, load_manifest
from electramed_jax.pretrain import alerts as alerts_lib
from electramed_jax.pretrain.verdict import Verdict, judge
from electramed_jax.pretrain.workdir import DATASET_FILE, read_config, read_kernel_alerts, read_run_starts
from electramed_jax.training.starts import DeviceHours, Phase, device_hours, find_phases, split_wall_time


@dataclasses.dataclass(frozen=True)
class Interval:
    """The training steps between two entries of metrics.jsonl.

    Attributes:
      step: the last step.
      steps: number of steps.
      seconds: time spent on the steps, without compilation, evaluation and saving; 0 if they were not timed.
      tokens: non-pad tokens of the steps.
    """

    step: int
    steps: int
    seconds: float
    tokens: float


@dataclasses.dataclass(frozen=True)
class History:
    """Metrics and starts of a run, and their totals.

    Totals take `up_to`, the last step to include; None includes all steps.

    Attributes:
      config: the resolved config.
      entries: lines of metrics.jsonl, in order.
      starts: starts of the run that trained at least one step, from history.jsonl.
      kernel_alerts: kernels that failed their comparison with the plain form, from automatic.json.
    """

    config: Config
    entries: Sequence[alerts_lib.Entry]
    starts: Sequence[dict[str, Any]] = ()
    kernel_alerts: Sequence[alerts_lib.Alert] = ()

    def split(self, name: str, up_to: int | None = None) -> list[alerts_lib.Entry]:
        """Returns the entries of the split "train" or "validation", in order."""
        return [e for e in self.entries if e["split"] == name and (up_to is None or e["step"] <= up_to)]

    @property
    def step(self) -> int:
        """The newest step with an entry; 0 if there is none."""
        return max((entry["step"] for entry in self.entries), default=0)

    def alerts(self, manifest: Manifest) -> list[alerts_lib.Alert]:
        """Returns the alerts of the whole run: of its kernels, and of its metrics (see `alerts.find_alerts`)."""
        starts = [start["step"] for start in self.starts]
        return [*self.kernel_alerts, *alerts_lib.find_alerts(self.entries, self.config, manifest, starts)]

    def verdict(self, manifest: Manifest) -> Verdict:
        """Returns the verdict on the whole run; see `verdict.judge`."""
        return judge(self.entries, self.config, manifest, self.alerts(manifest))

    def intervals(self, up_to: int | None = None) -> list[Interval]:
        """Returns one interval for each training entry."""
        intervals, previous = [], 0
        tokens_per_step = float(self.config.batch_size) * self.config.data.max_seq_length  # padding included
        for entry in self.split("train", up_to):
            steps = entry["step"] - previous
            intervals.append(
                Interval(
                    step=entry["step"],
                    steps=steps,
                    seconds=entry.get("step_seconds", 0.0) * steps,
                    tokens=entry.get("fill_fraction", 0.0) * tokens_per_step * steps,
                )
            )
            previous = entry["step"]
        return intervals

    def tokens(self, up_to: int | None = None) -> float:
        """Returns the number of non-pad training tokens; a token of two epochs counts twice."""
        return sum(interval.tokens for interval in self.intervals(up_to))

    def seconds(self, up_to: int | None = None) -> float:
        """Returns the time of the training steps.

        Excludes compilation, evaluation, saving, and steps that were repeated after a crash.
        """
        return sum(interval.seconds for interval in self.intervals(up_to))

    def phases(self, up_to: int | None = None) -> list[Phase]:
        """Returns the phases of the run, each with its own settings; see `training.starts.find_phases`."""
        phases = find_phases(self.starts, self.step if up_to is None else up_to)
        # Settings that are derived from damaged changes count as not recorded.
        return [
            dataclasses.replace(phase, settings=None) if phase.settings and _is_unreadable(phase.settings) else phase
            for phase in phases
        ]

    def wall_time(self) -> dict[str, float]:
        """Returns the seconds of each part of the run's wall time; see `training.starts.split_wall_time`."""
        return split_wall_time(self.starts)

    def device_hours(self, up_to: int | None = None) -> DeviceHours:
        """Returns the device hours of the training steps; see `training.starts.device_hours`."""
        return device_hours(self.split("train", up_to), self.starts)


def describe_by_phase(
    phases: Sequence[Phase], config: Config, describe: Callable[[Config, str], Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns rows {name: value} of a recipe; a value that changed during the run names the steps of each value.

    {"learning rate": "0.0002 (steps 1 to 40,000); 0.0001 (steps 40,001 to 50,000)"}

    Args:
      phases: from `History.phases`.
      config: used if no phase has recorded settings.
      describe: returns the rows of a config and the code that trained with it.
    """
    if not any(phase.settings for phase in phases):
        return dict(describe(config, phases[-1].code if phases else ""))
    rows = [dict(describe(from_saved(phase.settings), phase.code)) if phase.settings else {} for phase in phases]
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: join_phases(phases, [row.get(name, "none" if row else "not recorded") for row in rows]) for name in names
    }


def join_phases(phases: Sequence[Phase], values: Sequence[Any]) -> Any:
    """Returns the value of all phases, or "a (steps 1 to 40); b (steps 41 to 50)" if it is not the same in all."""
    spans: list[tuple[int, int, Any]] = []  # first step, last step, value
    for phase, value in zip(phases, values, strict=True):
        if spans and spans[-1][2] == value:
            spans[-1] = (spans[-1][0], phase.last_step, value)
        else:
            spans.append((phase.first_step, phase.last_step, value))
    if len(spans) == 1:
        return spans[0][2]
    return "; ".join(f"{value} (steps {first:,} to {last:,})" for first, last, value in spans)


def changed_during_run(phases: Sequence[Phase]) -> dict[str, list[Any]]:
    """Returns {setting: its value in each phase} of the settings that are not the same in all phases."""
    recorded = [config_io.flatten(to_dict(from_saved(phase.settings))) if phase.settings else None for phase in phases]
    names = dict.fromkeys(name for settings in recorded if settings for name in settings)
    table = {name: [settings[name] if settings else "not recorded" for settings in recorded] for name in names}
    return {name: values for name, values in table.items() if any(value != values[0] for value in values)}


def read_history(workdir: str) -> History:
    """Reads config.json, metrics.jsonl and history.jsonl of a workdir.

    Raises:
      UserError: the folder is not a pre-training workdir.
    """
    alerts = [alerts_lib.Alert.from_json(values) for values in read_kernel_alerts(workdir)]
    return History(read_config(workdir), metrics_writer.read_metrics(workdir), read_run_starts(workdir), alerts)


def _is_unreadable(settings: Mapping[str, Any]) -> bool:
    try:
        from_saved(settings)
    except UserError:
        return True
    return False


def read_manifest(workdir: str) -> Manifest:
    """Reads the manifest of the dataset with which the run was last started."""
    return load_manifest(files.join(workdir, DATASET_FILE))
