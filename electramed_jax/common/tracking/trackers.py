"""Trackers: services that store and show runs, such as Weights & Biases, in addition to the files of a run.

A tracker is any object with the two methods of `Tracker`. `config.trackers` lists the trackers of a run: "wandb", or
"PACKAGE.MODULE:FUNCTION", a function that takes a `RunInfo` and returns a tracker. Training does not depend on them: a
tracker that raises an error is logged and not used again.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from electramed_jax.common.console import say
from electramed_jax.common.errors import UserError, first_line
from electramed_jax.common.storage import files

MAX_REASON = 200  # characters of an error of a tracker
MIN_SECRET = 8  # characters; a shorter value is a word or a number, not a key
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """Description of a run when it starts or resumes.

    Attributes:
      workdir: folder of the run.
      settings: resolved config as nested dicts.
      step: step after which the run starts. A tracker may have received entries of later steps before a crash; they are
        logged again.
    """

    workdir: str
    settings: Mapping[str, Any]
    step: int

    @property
    def name(self) -> str:
        """The last two parts of the workdir's path: runs/small, ncbi/seed-0."""
        return "/".join(self.workdir.rstrip("/").split("/")[-2:])


class Tracker(Protocol):
    """Interface of a tracker."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Stores the metrics of a step, by names such as "train/loss". Must not block: the training loop calls it."""
        ...

    def close(self) -> None:
        """Ends the run, finished or not."""
        ...


def check_trackers(names: str) -> None:
    """Raises a UserError unless each of the comma-separated names is an available tracker."""
    for name in _split_names(names):
        _find_factory(name)


class Trackers:
    """All trackers of a run. Its methods never raise: a tracker that fails is logged and dropped."""

    def __init__(self, names: str, run: RunInfo):
        """Opens the trackers of the comma-separated names."""
        self._open: dict[str, Tracker] = {}
        for name in _split_names(names):
            tracker = self._try(name, _find_factory(name), run)
            if tracker is not None:
                self._open[name] = tracker

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs the metrics of a step to every tracker."""
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.log, step, metrics)

    def close(self) -> None:
        """Closes every tracker."""
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.close)

    def _try(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:  # noqa: BLE001 each service raises its own, and none may stop the run
            reason = redact_secrets(first_line(error, sys.maxsize))[:MAX_REASON].rstrip(".")
            say(f"tracker {name}: {reason}; the run continues without it, metrics.jsonl has all metrics")
            self._open.pop(name, None)
            return None


def redact_secrets(text: str) -> str:
    """Returns the text without the values of environment variables that hold keys, such as WANDB_API_KEY."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= MIN_SECRET:
            text = text.replace(value, f"<{name}>")
    return text


def _split_names(names: str) -> Sequence[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _find_factory(name: str) -> Callable[[RunInfo], Tracker]:
    module, colon, function = name.partition(":")
    if name == WandB.NAME:
        WandB.import_wandb()
        return WandB
    if not colon:
        raise UserError(f"config.trackers={name!r}: no such tracker; wanted wandb or PACKAGE.MODULE:FUNCTION")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"config.trackers={name!r}: {error}") from error


class WandB:
    """Tracker for Weights & Biases. Respects its variables: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE=offline.

    A resumed run continues the same run there: the workdir stores its id.
    """

    NAME, ID_FILE = "wandb", "wandb-id.txt"

    @staticmethod
    def import_wandb() -> Any:
        """Returns the module `wandb`; raises a UserError if it is not installed."""
        try:
            import wandb
        except ImportError as error:
            raise UserError("config.trackers=wandb: not installed; pip install 'electramed_jax[wandb]'") from error
        return wandb

    def __init__(self, run: RunInfo):
        """Creates or resumes the run at Weights & Biases."""
        wandb = self.import_wandb()
        id_path = files.join(run.workdir, self.ID_FILE)
        if not files.exists(id_path):
            files.write_text(id_path, secrets.token_hex(8))
        self._run = wandb.init(
            project="electramed_jax",
            name=run.name,
            id=files.read_text(id_path).strip(),
            resume="allow",
            config=dict(run.settings),
            dir=files.local_path(run.workdir),
        )
        # W&B's own step counter cannot decrease: a run that resumes from a checkpoint would lose the steps after it.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs the metrics of a step; the client uploads them in the background."""
        self._run.log({"step": step, **metrics})

    def close(self) -> None:
        """Uploads the rest and ends the run."""
        self._run.finish()
