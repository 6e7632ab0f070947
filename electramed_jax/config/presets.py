"""Complete settings of the four model sizes: tiny, and ELECTRA's small, base and large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from electramed_jax.common.config_io import AUTO
from electramed_jax.config.pretrain import Config, MeshConfig, ModelConfig, ObjectiveConfig, OptimizerConfig, to_dict

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def encoder_sizes(hidden_size: int, num_layers: int, generator_fraction: float) -> dict[str, Any]:
    """Returns the fields of `ModelConfig` for both encoders, by ELECTRA's rules.

    Heads are 64 wide, feed-forward layers four times the width of the encoder; the generator is as deep as the
    discriminator but narrower. Source: google-research/electra run_pretraining.py:338-348, util/training_utils.py:109.

    Args:
      hidden_size, num_layers: of the discriminator.
      generator_fraction: width of the generator divided by that of the discriminator.
    """
    generator = round(hidden_size * generator_fraction)
    return dict(
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=max(1, hidden_size // 64),
        intermediate_size=4 * hidden_size,
        generator_hidden_size=generator,
        generator_num_layers=num_layers,
        generator_num_heads=max(1, generator // 64),
        generator_intermediate_size=4 * generator,
    )


# A run with a preset chooses these settings from its devices: model/automatic.py.
AUTOMATIC: dict[str, Any] = dict(
    compute_dtype=AUTO, remat=AUTO, scan_layers=AUTO, kernels=AUTO, attention_dropout_hash=AUTO
)
AUTOMATIC_MESH = MeshConfig(fsdp=AUTO)

PRESETS = {
    # for smoke tests, laptops and this project's tests
    "tiny": Config(
        model=ModelConfig(
            embedding_size=128,
            **encoder_sizes(128, 4, 0.5),
            dropout=0.0,
            attention_dropout=0.0,
            kernel_stddev=0.08,
            **AUTOMATIC,
        ),
        mesh=AUTOMATIC_MESH,
        optimizer=OptimizerConfig(learning_rate=5e-4, warmup_steps=500),
        batch_size=32,
        total_steps=20_000,
        eval_every=1_000,
        save_every=1_000,
    ),
    # google-research/electra configure_pretraining.py: model_size small
    "small": Config(
        model=ModelConfig(embedding_size=128, **encoder_sizes(256, 12, 0.25), **AUTOMATIC),
        mesh=AUTOMATIC_MESH,
        optimizer=OptimizerConfig(learning_rate=5e-4),
        batch_size=128,
    ),
    # ... base, with the 1M steps of 256 rows of ELECTRAMed
    "base": Config(
        model=ModelConfig(embedding_size=768, **encoder_sizes(768, 12, 1 / 3), **AUTOMATIC),
        mesh=AUTOMATIC_MESH,
        optimizer=OptimizerConfig(learning_rate=2e-4),
        batch_size=256,
    ),
    # ... large; masks a quarter of the tokens
    "large": Config(
        model=ModelConfig(embedding_size=1024, **encoder_sizes(1024, 24, 0.25), **AUTOMATIC),
        mesh=AUTOMATIC_MESH,
        objective=ObjectiveConfig(mask_probability=0.25),
        optimizer=OptimizerConfig(learning_rate=2e-4),
        batch_size=2048,
        total_steps=400_000,
    ),
}


def preset(size: str) -> ConfigDict:
    """Returns the settings of a size (tiny, small, base or large) as an editable `ConfigDict`, for config files."""
    from ml_collections import ConfigDict

    return ConfigDict(to_dict(PRESETS[size]))
