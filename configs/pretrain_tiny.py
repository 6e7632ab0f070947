"""Four layers of 128 with a generator of width 64: for smoke tests and for a first look on a laptop.

electramed pretrain --config=configs/pretrain_tiny.py --config.data.directory=DIR --workdir=DIR
"""

from electramed_jax.config import preset


def get_config():
    return preset("tiny")
