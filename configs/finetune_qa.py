r"""BioASQ factoid questions with the settings of ELECTRAMed (gmpoli/electramed run_factoid.py).

    electramed finetune --config=finetune_qa --config.init=runs/base --workdir=runs/bioasq \
      --config.task.train=training7b.json --config.task.dev_fraction=0.1 \
      --config.task.test='BioASQ-test-factoid-7b-*.json' --config.qa.gold='7B*_golden.json'

Windows, batch size, learning rate and epochs are from run_factoid.py. Files are in SQuAD's format or in BioASQ's own
(training and golden files of the organizers, http://participants-area.bioasq.org/; passages are then snippets).

To train on SQuAD's questions first, as BioBERT and ELECTRAMed do (train-v1.1.json and dev-v1.1.json from
https://rajpurkar.github.io/SQuAD-explorer/), add

      --config.qa.pretrain_stage.train=train-v1.1.json --config.qa.pretrain_stage.dev=dev-v1.1.json

For SQuAD alone: --config.qa.measures=squad --config.task.train=train-v2.0.json --config.task.dev=dev-v2.0.json
"""

from ml_collections import ConfigDict

from electramed_jax.config import finetune as config


def get_config() -> ConfigDict:
    settings = config.defaults("qa")
    settings.qa.measures = "bioasq"
    settings.task.max_seq_length = 384
    settings.batch_size = 32
    settings.optimizer.learning_rate = 5e-5
    settings.epochs = 3.0
    return settings
