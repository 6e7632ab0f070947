"""Options of fine-tuning that change how a model is trained, in whole runs of a small model."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick
from invented_corpus import DRUGS, tiny_init_encoder, write_conll

from electramed_jax import cli
from electramed_jax.common.errors import UserError
from electramed_jax.common.tree_rules import named_leaves
from electramed_jax.config import finetune as config_lib
from electramed_jax.config.finetune import FinetuneConfig, FinetuneOptimizerConfig, NerConfig, TaskConfig, TextConfig
from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.finetune import load_model, make_task, predictor, run
from electramed_jax.finetune.task.task import IGNORE
from electramed_jax.finetune.training import batches
from electramed_jax.finetune.training.step import TrainSpec, train_step
from electramed_jax.training import sharding

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick.jit)
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> pathlib.Path:
    return write_conll(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def relations(tmp_path_factory) -> pathlib.Path:
    """A drug before a gene is one relation, a gene before a drug another; three of four texts have none."""
    folder = tmp_path_factory.mktemp("relations")
    for seed, (split, count) in enumerate({"train": 48, "dev": 16, "test": 16}.items()):
        draw = np.random.default_rng(seed)
        rows = []
        for number in range(count):
            words = draw.choice(["the", "of", "patients", "dose"], 3)
            pair = ["@DRUG$", "@GENE$"] if draw.random() < 0.5 else ["@GENE$", "@DRUG$"]
            label = ("A" if pair[0] == "@DRUG$" else "B") if number % 4 == 0 else "false"
            middle = "treated" if label != "false" else words[1]
            rows.append(f"{words[0]} {pair[0]} {middle} {pair[1]} {words[2]}\t{label}")
        (folder / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    return folder


def config_of(folder: pathlib.Path, kind: str = "ner", **changes: object) -> FinetuneConfig:
    optimizer = FinetuneOptimizerConfig(learning_rate=0.005, layerwise_lr_decay=0.9)
    settings = dict(task=TaskConfig(kind, str(folder), max_seq_length=24), init="scratch", init_size_from="tiny")
    settings |= dict(optimizer=optimizer, batch_size=8, epochs=2.0, dropout=0.0, attention_dropout=0.0, log_every=1)
    config = FinetuneConfig(**settings | changes)
    config_lib.check(config)
    return config


def finetune(config: FinetuneConfig, workdir: pathlib.Path) -> dict:
    """Returns the content of results.json."""
    encoder = tiny_init_encoder(num_layers=2, dropout=config.dropout)
    task, encoder, spec = make_task.make_task(config, encoder)
    assert not run.run_finetuning(config, task, encoder, spec, str(workdir)).preempted
    return json.loads((workdir / "results.json").read_text())


@pytest.fixture(scope="module")
def batch_and_spec(relations):
    """A batch of relations in eight rows, and the spec of its step with dropout."""
    config = config_of(
        relations, "relations", optimizer=FinetuneOptimizerConfig(learning_rate=0.005, warmup_fraction=0.0)
    )
    task, encoder, described = make_task.make_task(config, tiny_init_encoder(num_layers=1, dropout=0.3))
    spec = TrainSpec(encoder.model, task.head, described.special, config.optimizer, 10)
    batch = batches.collate(task.examples("train"), range(16), task.head, [8], 24, described.special.pad)
    return {"input_ids": jnp.array(batch.input_ids), "labels": jnp.array(batch.labels)}, spec


def first_step(batch, spec: TrainSpec) -> tuple[dict, float]:
    """Returns the parameters after a step, by name, and the loss before."""
    with jax.set_mesh(sharding.make_mesh(MeshConfig(), jax.devices()[:1])):
        state, sums = jax.jit(train_step(spec))(jax.jit(spec.init)(jax.random.key(0)), batch, jax.random.key(1))
    return named_leaves(state.params), float(sums["loss_sum"] / sums["count"])


def test_micro_batches_change_the_memory_and_not_the_numbers(batch_and_spec):
    batch, spec = batch_and_spec
    spec = dataclasses.replace(spec, model=dataclasses.replace(spec.model, dropout=0.0, attention_dropout=0.0))
    whole, loss = first_step(batch, spec)
    parts, loss_of_parts = first_step(batch, dataclasses.replace(spec, gradient_accumulation_steps=4))
    assert loss_of_parts == pytest.approx(loss, rel=1e-5)
    for name, leaf in parts.items():
        np.testing.assert_allclose(leaf, whole[name], atol=2e-5, err_msg=name)


def test_r_drop_adds_the_divergence_of_two_masks_to_the_loss(batch_and_spec):
    batch, spec = batch_and_spec
    some, more = (first_step(batch, dataclasses.replace(spec, r_drop=weight))[1] for weight in (1e-9, 3.0))
    assert more > some + 1e-3


def test_frozen_layers_keep_their_parameters_and_do_not_count_for_the_norm(corpus):
    config = config_of(
        corpus, optimizer=FinetuneOptimizerConfig(freeze_layers=1, weight_decay=0.1, warmup_fraction=0.0)
    )
    task, encoder, described = make_task.make_task(config, tiny_init_encoder(num_layers=2, dropout=0.0))
    spec = TrainSpec(encoder.model, task.head, described.special, config.optimizer, 10)
    state = jax.jit(spec.init)(jax.random.key(0))
    gradients = jax.tree.map(np.ones_like, state.params)
    updates, _ = jax.jit(spec.tx().update)(gradients, state.opt_state, state.params)
    for name, update in named_leaves(updates).items():
        frozen = update[0] if "encoder/layers/" in name else update if not name.startswith("head") else None
        trained = update[1] if "encoder/layers/" in name else update if name.startswith("head") else None
        assert frozen is None or not np.any(frozen), name
        assert trained is None or np.all(trained != 0), name


def test_a_seed_ends_early_when_dev_no_longer_improves_and_test_can_be_left_alone(corpus, tmp_path):
    optimizer = FinetuneOptimizerConfig(learning_rate=0.0)
    config = config_of(corpus, optimizer=optimizer, epochs=30.0, early_stopping=2, score_test=False)
    results = finetune(config, tmp_path / "run")
    (scores,) = results["runs"]
    assert [entry["epoch"] for entry in scores["history"]] == [1.0, 2.0, 3.0], "the first evaluation is the best"
    assert scores["steps"] == 15 and list(results["scores"]) == ["dev"]
    assert not (tmp_path / "run/seed-0/predictions-test.txt").exists()
    assert finetune(config, tmp_path / "run") == results, "a finished run is not trained again"


@pytest.mark.parametrize("decoder", ["viterbi", "crf"])
def test_a_model_predicts_with_the_decoder_that_it_was_scored_with(corpus, tmp_path, decoder, capsys):
    config = config_of(corpus, ner=NerConfig(decoder=decoder), epochs=1.0)
    results = finetune(config, tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run/seed-0/records-test.jsonl").read_text().splitlines()]
    texts = [" ".join(record["words"]) for record in records]
    trained = load_model.load_finetuned(str(tmp_path / "run"))
    assert trained.spec.head.crf == (decoder == "crf") == bool(trained.postprocess.transitions)
    assert cli.main(["export", f"--workdir={tmp_path}/run", f"--output={tmp_path}/hf", "--quiet"]) == 0
    for folder in ("run", "hf"):
        predicted = predictor.Predictor(predictor.load_model(str(tmp_path / folder), None), 8).entities(texts)
        for record, text, entities in zip(records, texts, predicted, strict=True):
            words = [len(text[: entity.start].split()) for entity in entities]
            assert [(start, kind) for start, _, kind in record["predicted"]] == [
                (word, entity.type) for word, entity in zip(words, entities, strict=True)
            ]
    scores = results["scores"]["test"]
    assert scores["strict_f1"]["mean"] == scores["f1"]["mean"], "every predicted entity begins with B-"
    tags_seen = [line.split("\t")[2] for line in (tmp_path / "run/seed-0/predictions-dev.txt").read_text().split("\n")
                 if line]  # fmt: skip
    assert any(tag != "O" for tag in tags_seen) or any("no entity" in warning for warning in results["warnings"])


@pytest.mark.parametrize("pooling", ["mentions", "pieces"])
def test_relations_are_learned_with_a_pooling_and_class_weights(relations, tmp_path, pooling, capsys):
    text = TextConfig(pooling=pooling, class_weight_power=0.5)
    results = finetune(config_of(relations, "relations", text=text, epochs=25.0), tmp_path / "run")
    assert results["scores"]["dev"]["f1"]["mean"] > 60
    head = load_model.load_finetuned(str(tmp_path / "run")).spec.head
    counts = results["data"]["labels"]["train"]
    assert head.class_weights == pytest.approx([(48 / (3 * counts[label])) ** 0.5 for label in head.labels])
    model = predictor.load_model(str(tmp_path / "run"), None)
    assert set(head.markers) == {model.tokenizer.tokens.index(name) for name in ("@DRUG$", "@GENE$")}
    records = [json.loads(line) for line in (tmp_path / "run/seed-0/records-test.jsonl").read_text().splitlines()]
    (tmp_path / "in.tsv").write_text("\n".join(["sentence", *(record["text"] for record in records)]) + "\n")
    arguments = [f"--model={tmp_path}/run", f"--input={tmp_path}/in.tsv", f"--output={tmp_path}/out.jsonl", "--quiet"]
    assert cli.main(["predict", *arguments]) == 0
    predicted = [json.loads(line)["label"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [[label] for label in predicted] == [record["predicted"] for record in records]
    assert cli.main(["export", f"--workdir={tmp_path}/run", f"--output={tmp_path}/hf"]) == 0
    warning = f"transformers has no head that reads config.text.pooling={pooling} and refuses this folder"
    assert warning in capsys.readouterr().err
    arguments[0] = f"--model={tmp_path}/hf"
    assert cli.main(["predict", *arguments]) == 0
    exported = [json.loads(line)["label"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert exported == predicted


def test_predictions_that_are_all_negative_are_warned_about(relations, tmp_path, capsys):
    optimizer = FinetuneOptimizerConfig(
        learning_rate=0.01, layerwise_lr_decay=1e-9
    )  # the bias of the head alone learns
    results = finetune(config_of(relations, "relations", optimizer=optimizer, epochs=1.0), tmp_path / "run")
    warning = "all 16 predictions of dev are false, which means no relation"
    assert f"seed 0: {warning}" in results["warnings"]
    assert f"warning: seed 0, epoch 1.00: {warning}" in capsys.readouterr().err
    assert warning in (tmp_path / "run/results.md").read_text()


def test_a_pooling_needs_placeholders_in_the_texts(tmp_path):
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("sentence\tlabel\nthe dose\tA\na dose\tfalse\n")
    config = config_of(tmp_path, "relations", text=TextConfig(pooling="mentions"))
    with pytest.raises(UserError, match=r"no placeholder such as @GENE\$ in it, which config.text.pooling=mentions"):
        make_task.make_task(config, tiny_init_encoder())


def test_a_type_that_no_training_entity_has_trains_no_transition(tmp_path):
    """Its words have no label, and a CRF passes over them."""
    write_conll(tmp_path)
    (tmp_path / "dev.txt").write_text(f"{DRUGS[0]}\tB-Gene\nof\tO\n")
    task, _, _ = make_task.make_task(config_of(tmp_path, ner=NerConfig(decoder="crf")), tiny_init_encoder())
    assert dataclasses.replace(task.head, crf=False).labels == task.head.labels
    assert IGNORE in task.examples("dev").labels[0][1:-1]
