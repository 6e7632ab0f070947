"""ELECTRA-Large: twenty-four layers of 1024 with a generator of width 256, rows of 512 tokens, a quarter of
them masked.

    electramed pack --row_length=512 ...
    electramed pretrain --config=configs/pretrain_large.py --config.data.directory=DIR --workdir=DIR

Source of the numbers: google-research/electra configure_pretraining.py, model_size "large".
"""

from electramed_jax.config import preset


def get_config():
    return preset("large")
