"""Pre-training from Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from electramed_jax.api.settings import to_flags
from electramed_jax.common.processes import agreement, distributed, signals
from electramed_jax.common.processes.folder_owner import own_folder
from electramed_jax.common.run_clock import RunClock
from electramed_jax.config.pretrain import Config, from_flags
from electramed_jax.hf import initialize
from electramed_jax.pretrain import inputs, loop
from electramed_jax.pretrain import workdir as workdir_files
from electramed_jax.pretrain.loop import Outcome


def pretrain(
    config: str | Config = "pretrain_small",
    *,
    workdir: str,
    data: str = "",
    settings: Mapping[str, Any] | None = None,
    stop_after: int | None = None,
    takeover: bool = False,
    clock: RunClock | None = None,
) -> Outcome:
    """Trains a generator and a discriminator on packed rows; resumes from the newest checkpoint of the workdir.

        outcome = electramed_jax.pretrain("pretrain_tiny", data="packed", workdir="runs/tiny",
                                          settings={"total_steps": 2000, "optimizer.warmup_steps": 200})
        outcome.metrics["validation_discriminator_auc"]

    Args:
      config: name of a recipe (`electramed recipes`), path of a config file, or settings that were read before.
      workdir: folder for checkpoints and metrics, local or remote.
      data: packed folder, or several separated by commas; "": that of the config.
      settings: values of settings by dotted name, which replace those of a recipe or file.
      stop_after: save and stop after this step; the schedule still ends at `total_steps`. None: train to the end.
      takeover: take the workdir over from a run on another host that has ended.
      clock: measures the time of the run; None: from this call on.

    Returns:
      Steps, last validation metrics, alerts, verdict, and whether SIGTERM stopped the run.

    Raises:
      UserError: a setting, the data or the workdir is wrong; the message names the change.
    """
    clock = clock or RunClock()
    with signals.block_sigterm():  # until the loop has its own handler
        if isinstance(config, str):
            config = from_flags(to_flags(config, settings or {}))
        elif settings:
            raise TypeError("settings change a recipe or a config file; got a Config: use dataclasses.replace")
        if data:
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, directory=data))
        config, dataset = loop.resolve_with_dataset(config)
        with distributed.distributed_context():
            flags = {"--workdir": workdir, "--stop_after": stop_after}
            agreement.check_agreement(flags | inputs.run_fields(config, dataset) | agreement.environment_fields())
            with own_folder(workdir, takeover=takeover):
                starts = config.init and not workdir_files.has_checkpoints(workdir)
                init_params = initialize.init_params_from_hf(config, dataset, workdir) if starts else None
                return loop.run_pretraining(
                    config, dataset, workdir, init_params=init_params, stop_after=stop_after, clock=clock
                )
