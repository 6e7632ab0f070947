from __future__ import annotations

import pytest

from electramed_jax.config import finetune as configs

FILES = ("finetune_ner", "finetune_qa", "finetune_relations")


@pytest.mark.parametrize("name", FILES)
def test_every_config_file_loads_and_holds_together(repository, name):
    config = configs.from_flags([f"--config={repository / 'configs' / name}.py", "--config.init=runs/small"])
    assert name == f"finetune_{config.task.kind}"


def test_every_config_file_is_tried(repository):
    assert {path.stem for path in (repository / "configs").glob("finetune_*.py")} == set(FILES)


def test_the_config_for_questions_has_electrameds_numbers(repository):
    """gmpoli/electramed run_factoid.py, whose optimiser takes google-research/electra's layer-wise decay."""
    config = configs.from_flags([f"--config={repository / 'configs' / 'finetune_qa.py'}", "--config.init=runs/base"])
    assert (config.task.max_seq_length, config.qa.doc_stride, config.qa.max_query_length) == (384, 128, 64)
    assert (config.batch_size, config.optimizer.learning_rate, config.epochs) == (32, 5e-5, 3.0)
    assert (config.optimizer.layerwise_lr_decay, config.optimizer.weight_decay) == (0.8, 0.01)
