"""ELECTRA-Large: 24 layers of width 1024, a generator of width 256, rows of 512 tokens, a quarter of them masked.

    electramed pack --max_seq_length=512 ...
    electramed pretrain --config=pretrain_large --config.data.directory=DIR --workdir=DIR

Source of the numbers: google-research/electra configure_pretraining.py, model_size "large".

Compiled ahead of time in the plain form (see pretrain_base.py) for a vocabulary of 31,090 (rows per step, rows per
chip, peak HBM per chip, step time as estimated by the compiler of libtpu 0.0.42.1), each by
`electramed compile --config=pretrain_large --topology=...`:

    v5p:2x4x4                                   2,048 rows  64 per chip   9.4 of 95.74 GiB   653 ms
    v5p:4x4x8                                   2,048 rows  16 per chip   6.4 of 95.74 GiB   178 ms
    v5e:16x16                                   2,048 rows   8 per chip   5.8 of 15.75 GiB   201 ms
"""

from electramed_jax.config import preset

MACHINE = "v5e:16x16"  # of the estimate above
STEP_SECONDS = 0.201


def get_config():
    return preset("large")
