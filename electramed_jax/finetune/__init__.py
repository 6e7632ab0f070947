"""A whole fine-tuning run: task, seeds, stages, results, predictions."""

from electramed_jax import make_callable

# Config files of earlier versions import the settings from here: `from electramed_jax.finetune import config`.
from electramed_jax.config import finetune as config

__all__ = ["config"]

make_callable(__name__)  # electramed_jax.finetune(...) is the function of the Python interface
