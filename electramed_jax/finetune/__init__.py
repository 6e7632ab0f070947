"""A whole fine-tuning run: task, seeds, stages, results, predictions."""

# Config files of earlier versions import the settings from here: `from electramed_jax.finetune import config`.
from electramed_jax.config import finetune as config

__all__ = ["config"]
