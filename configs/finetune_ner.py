"""Named entities in CoNLL files, by google-research/electra's settings for fine-tuning.

    electramed finetune --config=configs/finetune_ner.py --config.init=runs/small --config.task.data=NCBI-disease \
      --config.seeds=5 --workdir=runs/ncbi
"""

from ml_collections import ConfigDict

from electramed_jax.config import finetune as config


def get_config() -> ConfigDict:
    settings = config.defaults("ner")
    settings.task.max_seq_length = 128
    settings.batch_size = 32
    settings.epochs = 10.0
    return settings
