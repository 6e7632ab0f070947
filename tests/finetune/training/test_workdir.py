"""A workdir of an earlier version, whose files lack the settings that were added since, is resumed."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest
from invented_corpus import tiny_init_encoder, write_conll

from electramed_jax.common.errors import UserError
from electramed_jax.config.finetune import FinetuneConfig, NerConfig, TaskConfig
from electramed_jax.finetune.make_task import make_task
from electramed_jax.finetune.training import workdir


def start(config: FinetuneConfig, folder: pathlib.Path) -> None:
    task, encoder, spec = make_task(config, tiny_init_encoder())
    workdir.init_workdir(str(folder), config, spec, encoder, task)


@pytest.fixture
def config(tmp_path) -> FinetuneConfig:
    return FinetuneConfig(task=TaskConfig(data=str(write_conll(tmp_path / "corpus")), max_seq_length=32), init="x")


@pytest.fixture
def earlier(config, tmp_path) -> pathlib.Path:
    """The files of version 0.1, which trained on the words of the file and had no bias correction."""
    folder = tmp_path / "run"
    start(dataclasses.replace(config, ner=NerConfig(words="file")), folder)
    for name, group, entry in (
        ("config.json", "ner", "words"),
        ("config.json", "optimizer", "bias_correction"),
        ("task.json", None, "words"),
        ("data.json", "sizes.train", "split_entity_words"),
    ):
        values = json.loads((folder / name).read_text())
        place = values
        for part in group.split(".") if group else ():
            place = place[part]
        del place[entry]
        (folder / name).write_text(json.dumps(values))
    return folder


def test_a_run_of_an_earlier_version_goes_on_with_the_words_of_the_file(config, earlier):
    kept = workdir.keep_earlier_words(config, str(earlier))
    assert (config.ner.words, kept.ner.words) == ("punctuation", "file")
    start(kept, earlier)
    assert json.loads((earlier / "config.json").read_text())["ner"]["words"] == "file"


def test_other_settings_are_compared_with_what_the_earlier_version_did(config, earlier):
    corrected = dataclasses.replace(config.optimizer, bias_correction=True)
    kept = workdir.keep_earlier_words(dataclasses.replace(config, optimizer=corrected), str(earlier))
    with pytest.raises(UserError, match=r"config.optimizer.bias_correction: False -> True"):
        start(kept, earlier)


def test_the_words_of_a_run_of_this_version_are_compared(config, tmp_path):
    start(config, tmp_path / "run")
    other = dataclasses.replace(config, ner=NerConfig(words="file"))
    assert workdir.keep_earlier_words(other, str(tmp_path / "run")) == other
    with pytest.raises(UserError, match=r"config.ner.words: 'punctuation' -> 'file'"):
        start(other, tmp_path / "run")
