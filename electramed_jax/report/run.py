"""One run as a report sees it."""

from __future__ import annotations

import dataclasses
import posixpath
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.config.pretrain import Config
from electramed_jax.data.dataset.manifest import Manifest
from electramed_jax.pretrain import history
from electramed_jax.pretrain.alerts import Alert

COMPILE_FILE = "compile.json"  # what `electramed compile --json` prints, kept beside the checkpoints
RESULTS_FILE = "results.json"  # of fine-tuning


@dataclasses.dataclass(frozen=True)
class Run:
    """A workdir's small files, read.

    Attributes:
      name: the workdir's last part, longer where two runs share it.
      compiled: of `compile.json`, where there is one.
    """

    name: str
    workdir: str
    history: history.History
    manifest: Manifest
    alerts: tuple[Alert, ...]
    compiled: dict[str, Any] | None

    @property
    def config(self) -> Config:
        return self.history.config

    @property
    def tokens_per_step(self) -> int:
        """Padding included."""
        return self.config.batch_size * self.config.data.max_seq_length

    def last(self, name: str) -> float | None:
        """The newest figure of that name: of a validation where there is one, else of training."""
        for split in ("validation", "train"):
            values = [entry[name] for entry in self.history.split(split) if name in entry]
            if values:
                return values[-1]
        return None


def read_all(workdirs: list[str]) -> list[Run]:
    """UserError where one is no training workdir, or is named twice."""
    workdirs = [workdir.rstrip("/") or workdir for workdir in workdirs]
    if len(set(workdirs)) < len(workdirs):
        raise UserError(f"{' '.join(workdirs)}: the same workdir twice; name each once")
    return [_read(workdir, name) for workdir, name in zip(workdirs, _names(workdirs), strict=True)]


def _read(workdir: str, name: str) -> Run:
    past = history.read_history(workdir)
    manifest = history.read_manifest(workdir)
    return Run(
        name=name,
        workdir=workdir,
        history=past,
        manifest=manifest,
        alerts=tuple(past.alerts(manifest)),
        compiled=_if_there(files.join(workdir, COMPILE_FILE)),
    )


def is_finetuned(workdir: str) -> bool:
    """Whether a workdir holds scores of fine-tuning."""
    return files.exists(files.join(workdir, RESULTS_FILE))


def read_scores(workdirs: list[str]) -> dict[str, dict[str, Any]]:
    """What results.json of each workdir of fine-tuning holds, by the name of the workdir."""
    workdirs = [workdir.rstrip("/") for workdir in workdirs]
    named = zip(_names(workdirs), workdirs, strict=True) if workdirs else ()
    return {name: files.read_json(files.join(workdir, RESULTS_FILE)) for name, workdir in named}


def _if_there(path: str) -> Any:
    return files.read_json(path) if files.exists(path) else None


def _names(workdirs: list[str]) -> list[str]:
    """As many of a path's last parts as tell it from the others."""
    parts = [workdir.split("/") for workdir in workdirs]
    for count in range(1, max(map(len, parts)) + 1):
        names = [posixpath.join(*one[-count:]) if one[-count:] != [""] else "/" for one in parts]
        if len(set(names)) == len(names):
            return names
    return workdirs
