r"""Named entities in CoNLL files, with the fine-tuning settings of google-research/electra.

    electramed finetune --config=finetune_ner --config.init=runs/small --config.task.data=NCBI-disease \
      --config.seeds=5 --workdir=runs/ncbi

The defaults are those of google-research/electra configure_finetuning.py.
"""

from ml_collections import ConfigDict

from electramed_jax.config import finetune as config


def get_config() -> ConfigDict:
    settings = config.defaults("ner")
    settings.task.max_seq_length = 128
    settings.batch_size = 32
    settings.epochs = 10.0
    return settings
