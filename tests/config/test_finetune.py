"""Settings of fine-tuning."""

from __future__ import annotations

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.config import finetune as configs

FILES = ("finetune_ner", "finetune_qa", "finetune_relations")


@pytest.mark.parametrize("name", FILES)
def test_every_config_file_loads(repository, name):
    config = configs.from_flags([f"--config={repository / 'configs' / name}.py", "--config.init=runs/small"])
    assert name == f"finetune_{config.task.kind}"


def test_every_config_file_is_tested(repository):
    assert {path.stem for path in (repository / "configs").glob("finetune_*.py")} == set(FILES)


def test_the_qa_config_has_the_settings_of_electramed(repository):
    """gmpoli/electramed run_factoid.py, with google-research/electra's layer-wise learning rate decay."""
    config = configs.from_flags([f"--config={repository / 'configs' / 'finetune_qa.py'}", "--config.init=runs/base"])
    assert (config.task.max_seq_length, config.qa.doc_stride, config.qa.max_query_length) == (384, 128, 64)
    assert (config.batch_size, config.optimizer.learning_rate, config.epochs) == (32, 5e-5, 3.0)
    assert (config.optimizer.layerwise_lr_decay, config.optimizer.weight_decay) == (0.8, 0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["epochs=0"], "config.epochs=0.0 is out of range; wanted a number above 0"),
        (["task.max_seq_length=7"], "config.task.max_seq_length=7 is out of range; wanted at least 8"),
        (["task.kind=parsing"], "config.task.kind='parsing' is out of range; wanted one of ner, relations"),
        (
            ["optimizer.warmup_fraction=1"],
            "config.optimizer.warmup_fraction=1.0 is out of range; wanted a number from 0",
        ),
        (["optimizer.layerwise_lr_decay_rule=torch"], "wanted one of exact, google"),
        (["seed=-1"], "config.seed=-1 is out of range; wanted a number of at least 0"),
        (["mesh.data=-2"], "config.mesh.data=-2 is out of range; wanted -1 or above 0"),
        (["init=scratch"], "add --config.init_size_from=DIR"),
        (["init_size_from=tiny"], "config.init_size_from and config.vocab are only for config.init=scratch; got"),
        (["qa.pretrain_stage.train=squad.json"], "is for config.task.kind=qa; got ner"),
        (["ner.decoder=beam"], "config.ner.decoder='beam' is out of range; wanted one of argmax, viterbi, crf"),
        (["task.kind=relations", "ner.decoder=crf"], "config.ner.decoder is for config.task.kind=ner; got relations"),
        (["text.pooling=pieces"], "config.text.pooling is for config.task.kind=relations or classification; got ner"),
        (["text.document_column=id"], "config.text.document_column is for config.task.kind=multilabel; got ner"),
        (["task.kind=relations", "text.pooling=pieces", "text.placeholders=pieces"], "by whole placeholders; add"),
        (["r_drop=1", "dropout=0", "attention_dropout=0"], "compares two dropout masks; set config.dropout above 0"),
        (["r_drop=1", "ner.decoder=crf"], "config.r_drop has no form for config.ner.decoder=crf"),
    ],
)
def test_the_error_for_a_setting_out_of_range_names_it(repository, settings, message):
    given = ["--config.init=runs/small", *(f"--config.{setting}" for setting in settings)]
    with pytest.raises(UserError) as caught:
        configs.from_flags([f"--config={repository / 'configs' / 'finetune_ner.py'}", *given])
    assert message in str(caught.value)


def test_a_config_file_of_an_earlier_version_has_the_defaults_of_newer_settings(tmp_path):
    path = tmp_path / "earlier.py"
    path.write_text(
        "from electramed_jax.config import finetune as config\n\n\ndef get_config():\n"
        '    settings = config.defaults("ner")\n    settings.unlock()\n'
        '    settings.init = "runs/small"\n    del settings.ner.words, settings.optimizer.bias_correction\n'
        "    return settings\n"
    )
    config = configs.from_flags([f"--config={path}"])
    assert (config.ner.words, config.optimizer.bias_correction) == ("punctuation", False)
