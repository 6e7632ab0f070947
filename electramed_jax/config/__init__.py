"""Settings of pre-training (`pretrain.py`) and fine-tuning (`finetune.py`), presets and special token ids.

Each field is declared with its help, unit and range (`fields.py`).

Config files import from here: `from electramed_jax.config import preset`.
"""

from electramed_jax.config.presets import PRESETS, encoder_sizes, preset
from electramed_jax.config.pretrain import (
    Config,
    DataConfig,
    EncoderConfig,
    MeshConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    check,
    from_dict,
    from_flags,
    from_saved,
    pad_vocab_size,
    resolve,
    to_dict,
)
from electramed_jax.config.special_tokens import SpecialIds

__all__ = [
    "PRESETS",
    "Config",
    "DataConfig",
    "EncoderConfig",
    "MeshConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "SpecialIds",
    "check",
    "encoder_sizes",
    "from_dict",
    "from_flags",
    "from_saved",
    "pad_vocab_size",
    "preset",
    "resolve",
    "to_dict",
]
