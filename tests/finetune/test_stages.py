from __future__ import annotations

import dataclasses
import functools
import json
import random

import jax
import pytest
import quick

from electramed_jax.common.errors import UserError
from electramed_jax.config import finetune as configs
from electramed_jax.config.finetune import FinetuneConfig, FinetuneOptimizerConfig, QaConfig, QaStageConfig, TaskConfig
from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.data.tokenizer import vocab
from electramed_jax.finetune import stages
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.training import sharding

GENES = [f"gene{number}" for number in range(8)]
FILLER = ["cell", "dose", "mouse", "tissue", "serum", "plate"]
TOKENS = [*vocab.SPECIAL_TOKENS, *GENES, *FILLER, "which", "blocks", "binds", "?", "."]
MODEL = ModelConfig(
    vocab_size=len(TOKENS),
    max_positions=32,
    embedding_size=16,
    hidden_size=32,
    num_layers=1,
    num_heads=2,
    intermediate_size=64,
    dropout=0.0,
    attention_dropout=0.0,
    kernel_stddev=0.1,
    remat="none",
)
START = InitEncoder("scratch", MODEL, TOKENS, True, {})


@pytest.fixture(scope="module", autouse=True)
def one_device_and_quick_compilation():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick.jit)
        patch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:1]))
        yield


def write(path, prefix: str, count: int, seed: int) -> str:
    """Questions with the word after "blocks" as the answer."""
    rng = random.Random(seed)
    paragraphs = []
    for number in range(count):
        words = rng.choices(FILLER, k=8)
        place = rng.randrange(1, 8)
        words[place - 1 : place + 1] = ["blocks", rng.choice(GENES)]
        words.append(f"binds {rng.choice(GENES)} .")
        context = " ".join(words)
        text = words[place]
        answers = [{"text": text, "answer_start": context.index(f"blocks {text}") + len("blocks ")}]
        qas = [{"id": f"{prefix}{number}_000", "question": f"which blocks ? {prefix}{number}", "answers": answers}]
        paragraphs.append({"context": context, "qas": qas})
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return str(path)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> FinetuneConfig:
    """BioASQ's questions after SQuAD's; the second stage learns nothing."""
    folder = tmp_path_factory.mktemp("questions")
    made = FinetuneConfig(
        task=TaskConfig(
            kind="qa",
            train=write(folder / "bioasq.json", "a", 24, 1),
            dev=write(folder / "bioasq-dev.json", "b", 24, 2),
            test=write(folder / "bioasq-test.json", "c", 24, 3),
            max_seq_length=32,
        ),
        qa=QaConfig(
            measures="bioasq",
            doc_stride=8,
            max_query_length=8,
            pretrain_stage=QaStageConfig(
                train=write(folder / "squad.json", "d", 160, 4),
                dev=write(folder / "squad-dev.json", "e", 40, 5),
                epochs=12.0,
                learning_rate=1e-2,
            ),
        ),
        init="scratch",
        init_size_from="tiny",
        optimizer=FinetuneOptimizerConfig(learning_rate=0.0, layerwise_lr_decay=1.0),
        batch_size=32,
        epochs=1.0,
        eval_every=100,
    )
    configs.check(made)
    return made


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The workdir of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    assert not stages.run_stages(config, START, str(folder)).preempted
    return folder


def results(folder) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_the_second_stage_starts_from_the_parameters_of_the_first(whole):
    first, second = results(whole / "first"), results(whole)
    assert first["scores"]["dev"]["exact_match"]["mean"] > 90, "the first stage learns its questions"
    assert "mrr" not in first["scores"]["dev"] and "test" not in first["scores"]
    assert second["scores"]["test"]["strict_accuracy"]["mean"] > 90, "encoder and head were taken along"
    assert "squad.json" in second["encoder"]


@pytest.mark.slow
def test_a_run_stopped_in_its_first_stage_resumes_there(config, whole, tmp_path, monkeypatch):
    folder, calls = tmp_path / "run", iter(range(1000))
    with monkeypatch.context() as patch:
        patch.setattr(
            "electramed_jax.common.processes.preemption.Preemption.reached", lambda self, *_: next(calls) > 10
        )
        assert stages.run_stages(config, START, str(folder)).preempted
    assert (folder / "first" / "seed-0" / "checkpoints").exists() and not (folder / "results.json").exists()
    stages.run_stages(config, START, str(folder))
    assert results(folder)["scores"] == results(whole)["scores"]
    assert results(folder / "first")["scores"] == results(whole / "first")["scores"]


def test_an_error_of_the_second_stage_is_raised_before_the_first_is_trained(config, tmp_path):
    wrong = dataclasses.replace(config, task=dataclasses.replace(config.task, test=str(tmp_path / "absent.json")))
    with pytest.raises(UserError, match="absent.json"):
        stages.run_stages(wrong, START, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_first_stage_may_not_train_on_evaluated_questions_of_the_second(config, tmp_path):
    first = dataclasses.replace(config.qa.pretrain_stage, train=config.task.test)
    leaky = dataclasses.replace(config, qa=dataclasses.replace(config.qa, pretrain_stage=first))
    with pytest.raises(UserError, match="bioasq-test.json: question c0_000 and 23 more of the first stage"):
        stages.run_stages(leaky, START, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_first_stage_is_for_questions_alone(config):
    with pytest.raises(UserError, match="config.qa.pretrain_stage.train is for config.task.kind=qa; got ner"):
        configs.check(dataclasses.replace(config, task=dataclasses.replace(config.task, kind="ner")))
