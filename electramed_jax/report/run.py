"""Reads the workdirs of a report: history, manifest and alerts of each run, and fine-tuning scores."""

from __future__ import annotations

import dataclasses
import posixpath
from typing import Any, NotRequired, TypedDict

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.config.pretrain import Config
from electramed_jax.data.dataset.manifest import Manifest
from electramed_jax.finetune.task import result_files
from electramed_jax.pretrain import history
from electramed_jax.pretrain.alerts import Alert
from electramed_jax.pretrain.verdict import Verdict

COMPILE_FILE = "compile.json"  # output of `electramed compile --json`, stored in the workdir
RESULTS_FILE = "results.json"  # of a fine-tuning workdir


class CompileResult(TypedDict):
    """The keys of compile.json that the report shows."""

    topology: str
    chips: int
    rows_per_chip: float
    row_length: int
    fits: bool
    peak_bytes: float
    available_bytes: float
    estimated_step_seconds: NotRequired[float]


@dataclasses.dataclass(frozen=True)
class Run:
    """A pre-training run, read from the small files of its workdir.

    Attributes:
      name: the last part of the path; more parts if two runs have the same.
      workdir: its path.
      history: metrics and starts.
      manifest: of the training dataset.
      alerts: of the whole history.
      verdict: on the whole history.
      compiled: contents of compile.json; None if there is none.
    """

    name: str
    workdir: str
    history: history.History
    manifest: Manifest
    alerts: tuple[Alert, ...]
    verdict: Verdict
    compiled: CompileResult | None

    @property
    def config(self) -> Config:
        """The resolved config."""
        return self.history.config

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a batch, padding included."""
        return self.config.batch_size * self.config.data.max_seq_length

    def latest(self, name: str) -> float | None:
        """Returns the newest value of a metric, from validation if possible, else from training."""
        for split in ("validation", "train"):
            values = [entry[name] for entry in self.history.split(split) if name in entry]
            if values:
                return values[-1]
        return None


def read_runs(workdirs: list[str]) -> list[Run]:
    """Reads the runs of several workdirs.

    Raises:
      UserError: a folder is not a training workdir, or is given twice.
    """
    workdirs = [workdir.rstrip("/") or workdir for workdir in workdirs]
    if len(set(workdirs)) < len(workdirs):
        raise UserError(f"{' '.join(workdirs)}: the same workdir twice; give each once")
    return [_read(workdir, name) for workdir, name in zip(workdirs, _names(workdirs), strict=True)]


def _read(workdir: str, name: str) -> Run:
    run_history = history.read_history(workdir)
    manifest = history.read_manifest(workdir)
    return Run(
        name=name,
        workdir=workdir,
        history=run_history,
        manifest=manifest,
        alerts=tuple(run_history.alerts(manifest)),
        verdict=run_history.verdict(manifest),
        compiled=_read_compiled(files.join(workdir, COMPILE_FILE)),
    )


def is_finetuned(workdir: str) -> bool:
    """Returns whether a workdir holds fine-tuning results."""
    return files.exists(files.join(workdir, RESULTS_FILE))


def name_workdirs(workdirs: list[str]) -> dict[str, str]:
    """Returns the workdirs by name: the last part of the path; more parts if two have the same."""
    workdirs = [workdir.rstrip("/") for workdir in workdirs]
    return dict(zip(_names(workdirs), workdirs, strict=True)) if workdirs else {}


def read_scores(workdir: str) -> dict[str, Any]:
    """Returns the content of results.json of a fine-tuning workdir."""
    return result_files.read_results(files.join(workdir, RESULTS_FILE))


def _read_compiled(path: str) -> CompileResult | None:
    advice = "remove it, or write it again with electramed compile ... --json"
    return files.read_json(path, CompileResult, advice=advice) if files.exists(path) else None


def _names(workdirs: list[str]) -> list[str]:
    """Returns the last parts of each path: the smallest number that makes all names different."""
    parts = [workdir.split("/") for workdir in workdirs]
    for count in range(1, max(map(len, parts)) + 1):
        names = [posixpath.join(*path[-count:]) if path[-count:] != [""] else "/" for path in parts]
        if len(set(names)) == len(names):
            return names
    return workdirs
