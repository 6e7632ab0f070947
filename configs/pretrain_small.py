"""ELECTRA-Small: 12 layers of width 256, embeddings of width 128, a generator of width 64, rows of 128 tokens.

    electramed pack --max_seq_length=128 ...
    electramed pretrain --config=pretrain_small --config.data.directory=DIR --workdir=DIR

Source of the numbers: google-research/electra configure_pretraining.py, model_size "small".

Compiled ahead of time for a vocabulary of 31,090 with the default settings (rows per step, rows per chip, peak HBM per
chip, step time as estimated by the compiler of libtpu 0.0.42.1), each by
`electramed compile --config=pretrain_small --topology=...`:

    v5e:2x2 --max_seq_length=128                  128 rows  32 per chip   0.5 of 15.75 GiB   7.7 ms
    v5e:4x4 --max_seq_length=128                  128 rows   8 per chip   0.2 of 15.75 GiB   3.6 ms
"""

from electramed_jax.config import preset

MACHINE = "v5e:2x2"  # of the estimate above
STEP_SECONDS = 0.0077


def get_config():
    return preset("small")
