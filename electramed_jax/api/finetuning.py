"""Fine-tuning from Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from electramed_jax.api.settings import to_flags
from electramed_jax.common import config_io
from electramed_jax.common.processes import agreement, distributed, signals
from electramed_jax.common.processes.folder_owner import own_folder
from electramed_jax.config.finetune import FinetuneConfig, from_flags
from electramed_jax.finetune import stages
from electramed_jax.finetune.corpora import prepare as corpora
from electramed_jax.finetune.init_from import load_init_encoder
from electramed_jax.finetune.run import Outcome


def finetune(
    config: str | FinetuneConfig = "finetune_ner",
    *,
    workdir: str,
    init: str = "",
    data: str = "",
    settings: Mapping[str, Any] | None = None,
    takeover: bool = False,
) -> Outcome:
    """Fine-tunes an encoder on a corpus, selects the best checkpoint on dev, and scores it on test.

        outcome = electramed_jax.finetune("finetune_ner", init="runs/small", data="NCBI-disease", workdir="runs/ncbi",
                                          settings={"seeds": 5})
        outcome.results["scores"]["test"]["f1"]["mean"]

    Args:
      config: name of a recipe (`electramed recipes`), path of a config file, or settings that were read before.
      workdir: folder for checkpoints and scores; an existing run is resumed.
      init: workdir of pre-training or fine-tuning, Hugging Face folder, or "scratch"; "": that of the config.
      data: folder of the corpus; "": that of the config.
      settings: values of settings by dotted name, which replace those of a recipe or file.
      takeover: take the workdir over from a run on another host that has ended.

    Returns:
      The content of results.json, and whether SIGTERM stopped the run.

    Raises:
      UserError: a setting, the corpus, the encoder or the workdir is wrong; the message names the change.
    """
    with signals.block_sigterm():  # until the run has its own handler
        given = {name: value for name, value in (("init", init), ("task.data", data)) if value} | dict(settings or {})
        if isinstance(config, str):
            config = read_config(to_flags(config, given))
        elif given:
            raise TypeError("init, data and settings change a recipe or a config file; got a FinetuneConfig")
        with distributed.distributed_context():
            values = {f"config.{name}": value for name, value in config_io.flatten(dataclasses.asdict(config)).items()}
            agreement.check_agreement({"--workdir": workdir} | values | agreement.environment_fields())
            with own_folder(workdir, takeover=takeover):
                return stages.run_stages(config, load_init_encoder(config), workdir)


def read_config(flags: list[str]) -> FinetuneConfig:
    """Returns the settings of `--config` flags, with those that `task.corpus` adds."""
    return from_flags(corpora.add_settings(flags))
