r"""Relations in the tables of BLUE (ChemProt, DDI-2013), with the fine-tuning settings of google-research/electra.

    electramed finetune --config=finetune_relations --config.init=runs/small --config.task.data=ChemProt \
      --config.seeds=5 --workdir=runs/chemprot

For labels of single texts or pairs, sets of labels, and scores of pairs set --config.task.kind=classification,
multilabel or similarity.
"""

from ml_collections import ConfigDict

from electramed_jax.config import finetune as config


def get_config() -> ConfigDict:
    settings = config.defaults("relations")
    settings.task.max_seq_length = 256
    settings.batch_size = 32
    settings.epochs = 5.0
    return settings
