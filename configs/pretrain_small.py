"""ELECTRA-Small: twelve layers of 256, embeddings of 128, a generator of width 64, rows of 128 tokens.

    electramed pack --row_length=128 ...
    electramed pretrain --config=configs/pretrain_small.py --config.data.directory=DIR --workdir=DIR

Source of the numbers: google-research/electra configure_pretraining.py, model_size "small".
"""

from electramed_jax.config import preset


def get_config():
    return preset("small")
