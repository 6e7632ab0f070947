"""Services that keep and show runs, such as Weights & Biases, beside the files that a run writes in any case.

A tracker is anything with the two methods of `Tracker`. `config.trackers` names those of a run: "wandb", or
"PACKAGE.MODULE:FUNCTION", a function that takes a `RunInfo` and returns one. Training does not depend on them: what one of
them fails to do is said, and it is left alone from then on.
"""

from __future__ import annotations

import dataclasses
import importlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from electramed_jax.common.console import say
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """What there is to know of a run when it starts, or goes on.

    Attributes:
      workdir: its folder.
      settings: the resolved config, nested plain dicts.
      step: after which it begins; entries of later steps may have been seen before a crash, and come again.
    """

    workdir: str
    settings: Mapping[str, Any]
    step: int

    @property
    def name(self) -> str:
        """The last two parts of the folder's path: runs/small, ncbi/seed-0."""
        return "/".join(self.workdir.rstrip("/").split("/")[-2:])


class Tracker(Protocol):
    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """One entry; figures by names such as "train/loss". Called in the loop: it must not wait for a network."""
        ...

    def close(self) -> None:
        """The run ends, done or not."""
        ...


def check_trackers(names: str) -> None:
    """Raises UserError unless each of the names, with commas between, is one that could be opened."""
    for name in _names(names):
        _maker(name)


class Trackers:
    """Those of a run, as one that never fails."""

    def __init__(self, names: str, run: RunInfo):
        self._open: dict[str, Tracker] = {}
        for name in _names(names):
            made = self._tried(name, _maker(name), run)
            if made is not None:
                self._open[name] = made

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, tracker in list(self._open.items()):
            self._tried(name, tracker.log, step, figures)

    def close(self) -> None:
        for name, tracker in list(self._open.items()):
            self._tried(name, tracker.close)

    def _tried(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:  # of whichever service
            reason = (str(error) or type(error).__name__).split("\n")[0].rstrip(".")
            say(f"tracker {name}: {reason}; the run goes on without it, metrics.jsonl has everything")
            self._open.pop(name, None)
            return None


def _names(names: str) -> Sequence[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _maker(name: str) -> Callable[[RunInfo], Tracker]:
    module, colon, function = name.partition(":")
    if name == WandB.NAME:
        WandB.require()
        return WandB
    if not colon:
        raise UserError(f"config.trackers={name!r}: no tracker of that name; wanted wandb or PACKAGE.MODULE:FUNCTION")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"config.trackers={name!r}: {error}") from error


class WandB:
    """Weights & Biases. Its own variables hold: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE=offline.

    A run that goes on is the same run there: its id is kept in the workdir.
    """

    NAME, ID_FILE = "wandb", "wandb-id.txt"

    @staticmethod
    def require() -> Any:
        try:
            import wandb
        except ImportError as error:
            raise UserError("config.trackers=wandb: not installed; pip install 'electramed_jax[wandb]'") from error
        return wandb

    def __init__(self, run: RunInfo):
        wandb = self.require()
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
        # Not W&B's own count, which only grows: a run that went back to a checkpoint would lose what comes after.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log({"step": step, **figures})

    def close(self) -> None:
        self._run.finish()
