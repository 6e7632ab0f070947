"""4 layers of width 128 and a generator of width 64, for smoke tests and a first run on a laptop.

    electramed pretrain --config=pretrain_tiny --config.data.directory=DIR --workdir=DIR

Compiled ahead of time in the plain form (see pretrain_base.py) for a vocabulary of 31,090 (rows per step, rows per
chip, peak HBM per chip, step time as estimated by the compiler of libtpu 0.0.42.1), each by
`electramed compile --config=pretrain_tiny --topology=...`:

    v5e:2x2 --max_seq_length=128                   32 rows   8 per chip   0.2 of 15.75 GiB     2 ms
"""

from electramed_jax.config import preset


def get_config():
    return preset("tiny")
