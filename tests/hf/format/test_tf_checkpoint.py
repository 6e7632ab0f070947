"""Imported checkpoints of google-research/electra compute the same values as the code of their authors."""

from __future__ import annotations

import json
import re

import jax
import numpy as np
import oracle_numbers
import pytest
import transformers

from electramed_jax import cli
from electramed_jax.common.tree_rules import named_leaves
from electramed_jax.hf import convert
from electramed_jax.hf.format import tf_checkpoint

# Checkpoint, the reference's variables and results of it, the attention heads, which no shape shows.
CASES = {"c1": ("model.ckpt-3", "after3", "forward_after3", 2), "c2": ("electra_tiny", "vars", "outputs", 4)}


@pytest.fixture(scope="module", params=CASES)
def imported(request, shared_data, tmp_path_factory):
    """(case, folder of both networks)."""
    folder = tmp_path_factory.mktemp(request.param)
    options = [f"--input={shared_data}/oracle/{request.param}_ckpt", f"--num_heads={CASES[request.param][3]}"]
    assert cli.main(["import", *options, f"--converted={folder}"]) == 0
    return request.param, folder


@pytest.mark.slow
def test_imported_weights_equal_the_checkpoint_and_give_the_results_of_the_reference(imported, shared_data):
    case, folder = imported
    oracle = oracle_numbers.load(shared_data, case)
    imported_model = convert.import_folder(str(folder), tying="embeddings")
    wanted = named_leaves(oracle.params(CASES[case][1]))
    got = named_leaves(imported_model.params)
    assert set(got) == set(wanted)
    for name, leaf in wanted.items():
        np.testing.assert_array_equal(got[name], leaf, err_msg=name)
    for field, value in imported_model.model_settings().items():
        assert getattr(oracle.config.model, field) == value, field
    ours = jax.device_get(oracle_numbers.evaluator(oracle)(imported_model.params))
    theirs = oracle_numbers.read(oracle.folder / f"{CASES[case][2]}.npz")
    np.testing.assert_allclose(ours.loss, theirs["total_loss"], rtol=2e-6)
    used, tokens = oracle.outputs["masked_lm_weights"] > 0, oracle.inputs["input_mask"] > 0
    logits = ours.recorded["generator_logits"][..., : oracle.config.model.vocab_size]
    np.testing.assert_allclose(logits[used], theirs["generator_logits"][used], atol=1e-4)
    np.testing.assert_allclose(ours.recorded["discriminator_logits"][tokens], theirs["disc_logits"][tokens], atol=1e-4)


def test_transformers_opens_the_converted_folders(imported):
    _, folder = imported
    model, report = transformers.AutoModelForPreTraining.from_pretrained(
        folder / "discriminator", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    text = transformers.AutoTokenizer.from_pretrained(folder / "discriminator")("w1 w2", return_tensors="pt")
    assert model(**text).logits.shape == text["input_ids"].shape


def test_the_number_of_heads_follows_the_rule_of_the_reference():
    word, up = np.zeros((197, 128)), np.zeros((1024, 256))
    tensors = {
        "electra.embeddings.word_embeddings.weight": word,
        "electra.embeddings.position_embeddings.weight": np.zeros((512, 128)),
        "electra.encoder.layer.0.intermediate.dense.weight": up,
        "electra.encoder.layer.1.intermediate.dense.weight": up,
    }
    sizes = tf_checkpoint.infer_sizes(tensors)
    assert (sizes.num_heads, sizes.num_layers, sizes.hidden_size, sizes.embedding_size) == (4, 2, 256, 128)


def variables(*, own: bool) -> dict[str, np.ndarray]:
    """Variables of one-layer networks, the generator with or without an encoder of its own."""
    inner = ["embeddings/word_embeddings", "embeddings/LayerNorm/gamma", "embeddings_project/kernel"]
    inner += ["encoder/layer_0/output/dense/kernel", "encoder/layer_0/output/dense/bias"]
    names = [f"electra/{name}" for name in inner] + [f"generator/{name}" for name in inner[2:] if own]
    names += ["discriminator_predictions/dense_1/kernel", "generator_predictions/output_bias", "cls/extra"]
    return {name: np.full((1, 2), number) for number, name in enumerate(names)}


@pytest.mark.parametrize("own", [True, False])
def test_missing_parts_of_a_generator_are_those_of_the_discriminator(own):
    checkpoint = variables(own=own)
    tensors, left_out = tf_checkpoint.to_hf_tensors(checkpoint)
    encoder = "generator" if own else "electra"
    for theirs, ours in (
        ("electra.embeddings.word_embeddings.weight", "electra/embeddings/word_embeddings"),
        ("electra.embeddings.LayerNorm.weight", "electra/embeddings/LayerNorm/gamma"),
        ("electra.embeddings_project.weight", f"{encoder}/embeddings_project/kernel"),
        ("electra.encoder.layer.0.output.dense.bias", f"{encoder}/encoder/layer_0/output/dense/bias"),
        ("generator_lm_head.bias", "generator_predictions/output_bias"),
    ):
        assert tensors["generator"][theirs].flat[0] == checkpoint[ours].flat[0], theirs
    assert tensors["discriminator"]["discriminator_predictions.dense_prediction.weight"].shape == (2, 1)
    assert left_out == ["cls/extra"]


def test_variables_of_the_optimizer_are_not_read():
    for name in ("electra/x/kernel/adam_m", "electra/x/kernel/adam_v", "global_step"):
        assert tf_checkpoint.NOT_WEIGHTS.fullmatch(name)
    assert not tf_checkpoint.NOT_WEIGHTS.fullmatch("electra/x/kernel")


def test_mistakes_are_reported_in_one_line(shared_data, tmp_path, capsys):
    checkpoint = f"--input={shared_data}/oracle/c1_ckpt"
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "electra"}))
    for options, message in (
        ([checkpoint], "--converted=DIR"),
        ([checkpoint, f"--converted={tmp_path}/a", f"--vocab={tmp_path}/vocab.txt"], "5 tokens, but .* has 197"),
        ([checkpoint, f"--converted={tmp_path}/a", "--num_heads=3"], "--num_heads=3 does not divide"),
        ([checkpoint, f"--converted={tmp_path}/a", "--data=packed"], "--data and --output are given together"),
        ([f"--input={tmp_path}", f"--converted={tmp_path}/a"], "--converted applies to a TensorFlow checkpoint"),
        ([f"--input={tmp_path}"], "no config file to write; add --data=DIR"),
    ):
        assert cli.main(["import", *options]) == 2
        assert re.search(message, capsys.readouterr().err), message
    assert not (tmp_path / "a").exists()
