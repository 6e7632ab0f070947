"""ELECTRA-Base: twelve layers of 768 with a generator of width 256, rows of 512 tokens, bfloat16.

    electramed pack --row_length=512 ...
    electramed pretrain --config=configs/pretrain_base.py --config.data.directory=DIR --workdir=DIR

Source of the numbers: google-research/electra configure_pretraining.py, model_size "base". For the published
ELECTRAMed recipe, with its vocabulary pinned, see electramed_base.py.
"""

from electramed_jax.config import preset


def get_config():
    return preset("base")
