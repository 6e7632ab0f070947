"""What a run has done so far, from the small files of its workdir: no checkpoint is opened, no device needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from electramed_jax.common.storage import files
from electramed_jax.common.tracking import metrics_writer
from electramed_jax.config.pretrain import Config
from electramed_jax.data.dataset import manifest as manifests
from electramed_jax.pretrain import alerts as watch
from electramed_jax.pretrain import workdir as workdirs
from electramed_jax.training.starts import DeviceHours, device_hours, read_starts


@dataclasses.dataclass(frozen=True)
class Interval:
    """The steps that one training entry tells of.

    Attributes:
      step: the last of them.
      steps: how many.
      seconds: spent on them, without compilation, evaluation and saving; 0 where nothing was timed.
      tokens: seen in them, padding left out.
    """

    step: int
    steps: int
    seconds: float
    tokens: float


@dataclasses.dataclass(frozen=True)
class History:
    """Entries of metrics.jsonl and starts.json, and what they add up to."""

    config: Config
    entries: Sequence[watch.Entry]
    starts: Sequence[dict[str, Any]] = ()

    def split(self, name: str, up_to: int | None = None) -> list[watch.Entry]:
        """The entries of "train" or "validation", in order."""
        return [e for e in self.entries if e["split"] == name and (up_to is None or e["step"] <= up_to)]

    @property
    def step(self) -> int:
        """The newest step told of."""
        return max((entry["step"] for entry in self.entries), default=0)

    def alerts(self, manifest: manifests.Manifest) -> list[watch.Alert]:
        """As `watch.alerts`, of the whole history."""
        return watch.alerts(self.entries, self.config, manifest, [start["step"] for start in self.starts])

    def intervals(self, up_to: int | None = None) -> list[Interval]:
        """One for each training entry."""
        found, before, slots = [], 0, self.config.batch_size * self.config.data.max_seq_length
        for entry in self.split("train", up_to):
            steps = entry["step"] - before
            found.append(
                Interval(
                    step=entry["step"],
                    steps=steps,
                    seconds=entry.get("step_seconds", 0.0) * steps,
                    tokens=entry["fill_fraction"] * slots * steps,
                )
            )
            before = entry["step"]
        return found

    def tokens(self, up_to: int | None = None) -> float:
        """Seen in training, padding left out; a token seen twice counts twice."""
        return sum(interval.tokens for interval in self.intervals(up_to))

    def seconds(self, up_to: int | None = None) -> float:
        """Spent on the steps that the run is made of: neither on compilation, evaluation and saving, nor on steps
        that a crash made it do again."""
        return sum(interval.seconds for interval in self.intervals(up_to))

    def device_hours(self, up_to: int | None = None) -> DeviceHours:
        """See `device_hours`."""
        return device_hours(self.split("train", up_to), self.starts)


def read(workdir: str) -> History:
    """UserError where it is no training workdir."""
    return History(workdirs.read_config(workdir), metrics_writer.read_metrics(workdir), read_starts(workdir))


def read_manifest(workdir: str) -> manifests.Manifest:
    """Of the dataset that the workdir's run was last started on."""
    return manifests.load_manifest(files.join(workdir, workdirs.DATASET_FILE))
