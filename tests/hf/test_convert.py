"""Exported folders are complete, imported folders are checked, and a round trip through files is exact."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from safetensors import numpy as safetensors

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.common.tree_rules import diff_trees, named_leaves
from electramed_jax.config.pretrain import TYINGS
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.hf import convert

FILES = ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
FILES += ["tokenizer_config.json", "vocab.txt"]


def export(pair, parent: pathlib.Path, **casing: bool) -> pathlib.Path:
    convert.export_networks(
        {network: str(parent / network) for network in ("discriminator", "generator")},
        pair.params,
        pair.model,
        pair.vocabulary,
        **{"lower_case": True} | casing,
        card_data=pair.card_data,
    )
    return parent


def edit_json(path: pathlib.Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folder(make_pair, tmp_path) -> pathlib.Path:
    return export(make_pair(), tmp_path)


def test_both_folders_have_every_file_that_a_loader_needs(folder):
    for network in ("discriminator", "generator"):
        assert sorted(path.name for path in (folder / network).iterdir()) == FILES


def test_each_config_has_the_sizes_of_its_own_network(folder):
    discriminator, generator = (
        json.loads((folder / network / "config.json").read_text()) for network in ("discriminator", "generator")
    )
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    assert [discriminator[key] for key in sizes] == [16, 2, 2, 20]
    assert [generator[key] for key in sizes] == [8, 3, 4, 10]
    assert discriminator["embedding_size"] == generator["embedding_size"] == 12
    assert discriminator["architectures"] == ["ElectraForPreTraining"]
    assert generator["architectures"] == ["ElectraForMaskedLM"]


def test_vocab_txt_config_and_word_table_agree_on_the_vocabulary(folder, make_pair):
    tokens = make_pair().vocabulary
    for network in ("discriminator", "generator"):
        config = json.loads((folder / network / "config.json").read_text())
        weights = safetensors.load_file(folder / network / "model.safetensors")
        assert (folder / network / "vocab.txt").read_text().splitlines() == tokens
        assert config["vocab_size"] == len(tokens)
        assert len(weights["electra.embeddings.word_embeddings.weight"]) == len(tokens)
        assert config["pad_token_id"] == tokens.index("[PAD]") == 3


def test_the_output_matrix_of_the_generator_is_not_stored_twice(folder):
    names = safetensors.load_file(folder / "generator" / "model.safetensors")
    assert "generator_lm_head.weight" not in names
    assert "generator_lm_head.bias" in names


def test_an_untied_generator_is_exported_with_its_own_embedding_size(make_pair, tmp_path):
    export(make_pair(tying="none"), tmp_path)
    assert json.loads((tmp_path / "generator" / "config.json").read_text())["embedding_size"] == 8


@pytest.mark.parametrize(("lower_case", "keep_accents"), [(True, False), (True, True), (False, False)])
def test_the_tokenizer_is_exported_with_its_case_and_accents(make_pair, tmp_path, lower_case, keep_accents):
    export(make_pair(), tmp_path, lower_case=lower_case, keep_accents=keep_accents)
    settings = json.loads((tmp_path / "discriminator" / "tokenizer_config.json").read_text())
    assert settings["do_lower_case"] is lower_case
    assert settings["model_max_length"] == 24
    imported = convert.import_folder(str(tmp_path))
    assert (imported.lower_case, imported.keep_accents) == (lower_case, keep_accents)
    backend = Tokenizer(str(tmp_path / "discriminator" / "vocab.txt"), lower_case, keep_accents).backend
    assert (tmp_path / "discriminator" / "tokenizer.json").read_text() == backend.to_str(pretty=True)


def test_a_cased_tokenizer_without_accents_is_an_error(folder):
    edit_json(folder / "discriminator" / "tokenizer_config.json", do_lower_case=False, strip_accents=True)
    with pytest.raises(UserError, match="strip_accents=true with do_lower_case=false; wanted a tokenizer that keeps"):
        convert.import_folder(str(folder))


@pytest.mark.parametrize("tying", TYINGS)
def test_an_imported_pair_equals_the_exported_one(make_pair, tmp_path, tying):
    pair = make_pair(tying=tying)
    imported = convert.import_folder(str(export(pair, tmp_path)))
    assert imported.networks == ("discriminator", "generator")
    assert dataclasses.replace(pair.model, **imported.model_settings()) == pair.model
    assert imported.tying == tying
    assert imported.vocabulary == pair.vocabulary
    assert diff_trees(pair.params, imported.params, "before", "after") == []
    after = named_leaves(imported.params)
    for name, leaf in named_leaves(pair.params).items():
        padded = name.endswith(("/word", "output_bias"))
        real = leaf[: pair.model.vocab_size] if padded else leaf
        rounding = 1e-6 if "embedding_delta" in name else 0.0
        np.testing.assert_allclose(after[name][: len(real)], real, rtol=0, atol=rounding)
        assert not after[name][len(real) :].any(), f"{name}: padding is not zero"


def test_exporting_an_import_writes_the_same_weights(make_pair, folder, tmp_path):
    imported = convert.import_folder(str(folder))
    again = dataclasses.replace(make_pair(), params=imported.params)
    export(again, tmp_path / "again")
    for name in ("discriminator/model.safetensors", "generator/model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("network", ["discriminator", "generator"])
def test_one_network_can_be_imported_alone(make_pair, folder, network):
    imported = convert.import_folder(str(folder / network))
    assert imported.networks == (network,)
    assert set(imported.params) == {"embeddings", network}
    model = make_pair().model
    for field, value in imported.model_settings().items():
        assert getattr(model, field) == value


def test_a_generator_in_the_place_of_a_discriminator_is_refused(folder):
    (folder / "discriminator").rename(folder / "other")
    (folder / "generator").rename(folder / "discriminator")
    with pytest.raises(UserError, match="holds a generator; wanted a discriminator"):
        convert.import_folder(str(folder))


def test_truncated_weights_are_refused(folder):
    weights = folder / "discriminator" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(UserError, match="not a complete safetensors file"):
        convert.import_folder(str(folder / "discriminator"))


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(UserError, match="no config.json in it"):
        convert.import_folder(str(tmp_path))


def test_weights_without_a_pre_training_head_are_refused(folder):
    path = folder / "discriminator" / "model.safetensors"
    weights = safetensors.load_file(path)
    headless = {name: leaf for name, leaf in weights.items() if name.startswith("electra.")}
    safetensors.save_file(headless, path)
    with pytest.raises(UserError, match="head of neither; wanted exactly one, as ElectraForPreTraining"):
        convert.import_folder(str(folder / "discriminator"))


def test_an_encoder_without_a_head_is_accepted_if_allowed(folder):
    path = folder / "discriminator" / "model.safetensors"
    weights = safetensors.load_file(path)
    bare = {name.removeprefix("electra."): leaf for name, leaf in weights.items() if name.startswith("electra.")}
    safetensors.save_file(bare | {"classifier.bias": np.zeros(2, np.float32)}, path)
    imported = convert.import_folder(str(folder / "discriminator"), allow_headless=True)
    assert imported.networks == ("discriminator",) and "head" not in imported.params["discriminator"]
    np.testing.assert_array_equal(
        imported.params["embeddings"]["position"], bare["embeddings.position_embeddings.weight"]
    )
    assert imported.unexpected == ("classifier.bias",)


def test_tensors_of_other_heads_are_dropped_and_listed(folder):
    path = folder / "discriminator" / "model.safetensors"
    safetensors.save_file(safetensors.load_file(path) | {"classifier.bias": np.zeros(2, np.float32)}, path)
    imported = convert.import_folder(str(folder))
    assert imported.unexpected == ("classifier.bias",) and imported.networks == ("discriminator", "generator")


@pytest.mark.parametrize(
    "key, value",
    [("hidden_act", "relu"), ("layer_norm_eps", 1e-5), ("position_embedding_type", "relative_key")],
)
def test_an_unsupported_architecture_is_refused(folder, key, value):
    edit_json(folder / "discriminator" / "config.json", **{key: value})
    with pytest.raises(UserError, match=f"{key}={value!r}; only models with"):
        convert.import_folder(str(folder))


def test_another_kind_of_model_is_refused(folder):
    edit_json(folder / "discriminator" / "config.json", model_type="bert")
    with pytest.raises(UserError, match="model_type='bert'; wanted 'electra'; only ELECTRA models"):
        convert.import_folder(str(folder))


def test_the_error_for_a_config_of_other_sizes_names_folder_and_tensor(folder):
    edit_json(folder / "discriminator" / "config.json", intermediate_size=24)
    with pytest.raises(UserError, match=r"discriminator: .*intermediate.dense.weight \[20, 16\]"):
        convert.import_folder(str(folder / "discriminator"))


def test_a_vocabulary_longer_than_the_word_table_is_refused(folder):
    path = folder / "discriminator" / "vocab.txt"
    path.write_text(path.read_text() + "more\n")
    with pytest.raises(UserError, match="64 rows.*vocab_size=64, the vocabulary has 65 tokens"):
        convert.import_folder(str(folder / "discriminator"))


def test_a_vocab_size_that_differs_from_the_word_table_is_refused(folder):
    edit_json(folder / "generator" / "config.json", vocab_size=66)
    with pytest.raises(UserError, match="64 rows.*vocab_size=66"):
        convert.import_folder(str(folder / "generator"))


def test_rows_beyond_the_vocabulary_are_dropped_and_counted(folder, make_pair):
    path = folder / "generator" / "vocab.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    imported = convert.import_folder(str(folder / "generator"))
    assert imported.unused_rows == 1
    assert imported.vocab_size == len(make_pair().vocabulary) - 1
    assert not imported.params["embeddings"]["word"][len(make_pair().vocabulary) - 1 :].any()


def test_a_vocabulary_is_read_from_tokenizer_json_without_a_vocab_txt(folder, make_pair):
    (folder / "discriminator" / "vocab.txt").unlink()
    imported = convert.import_folder(str(folder / "discriminator"))
    assert imported.vocabulary == make_pair().vocabulary


def test_networks_with_different_vocabularies_are_not_a_pair(folder):
    path = folder / "generator" / "vocab.txt"
    path.write_text(path.read_text().replace("aspirin", "naproxen"))
    with pytest.raises(UserError, match="different vocabularies"):
        convert.import_folder(str(folder))


def test_half_precision_weights_become_float32(folder):
    path = folder / "discriminator" / "model.safetensors"
    weights = safetensors.load_file(path)
    safetensors.save_file({name: leaf.astype(np.float16) for name, leaf in weights.items()}, path)
    leaves = named_leaves(convert.import_folder(str(folder / "discriminator")).params)
    assert {leaf.dtype for leaf in leaves.values()} == {np.dtype(np.float32)}


def test_an_export_with_another_vocabulary_is_refused_before_anything_is_written(make_pair, tmp_path):
    pair = dataclasses.replace(make_pair(), vocabulary=[*make_pair().vocabulary, "more"])
    with pytest.raises(UserError, match="65 tokens but the model has 64"):
        export(pair, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_exporting_a_generator_that_was_not_trained_is_refused(make_pair, tmp_path):
    pair = make_pair(kind="uniform")
    with pytest.raises(UserError, match="this model has no generator"):
        export(pair, tmp_path)


def test_an_interrupted_export_leaves_no_config_json(make_pair, folder, monkeypatch):
    def full_disk(*args, **kwargs):
        raise UserError("disk full")

    monkeypatch.setattr(safetensors, "save", full_disk)
    with pytest.raises(UserError, match="disk full"):
        export(make_pair(seed=1), folder)
    with pytest.raises(UserError, match="no config.json"):
        convert.import_folder(str(folder / "discriminator"))


@pytest.mark.parametrize("writes", range(2 * len(FILES)))
def test_a_re_export_that_is_killed_at_any_write_opens_nothing_or_a_complete_network(
    make_pair, folder, monkeypatch, writes
):
    """Neither the pair nor one network is a mixture of the earlier export and the new one."""
    remaining, write = [writes], files.atomic_write

    def write_until_killed(*args, **kwargs):
        if not remaining[0]:
            raise KeyboardInterrupt
        remaining[0] -= 1
        return write(*args, **kwargs)

    new = make_pair(seed=1)
    monkeypatch.setattr(files, "atomic_write", write_until_killed)
    with pytest.raises(KeyboardInterrupt):
        export(new, folder)
    monkeypatch.undo()
    if writes < 2 * len(FILES) - 1:
        with pytest.raises(UserError, match="no config.json"):
            convert.import_folder(str(folder))
    else:
        opened = convert.import_folder(str(folder))
        assert opened.networks == ("discriminator",)
        kernel = new.params["discriminator"]["head"]["dense"]["kernel"]
        np.testing.assert_array_equal(opened.params["discriminator"]["head"]["dense"]["kernel"], kernel)


def test_an_export_removes_the_files_of_an_earlier_model_and_keeps_those_of_the_user(make_pair, tmp_path):
    folder = tmp_path / "discriminator"
    stale = ("pytorch_model.bin", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "loss.png")
    for name in (*stale, "added_tokens.json", "special_tokens_map.json", "notes.txt", ".git/HEAD"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("of the user or of an earlier model")
    export(make_pair(), tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "notes.txt", ".git"])


def test_remote_folders_are_written_and_read(make_pair):
    pair = make_pair()
    convert.export_networks(
        {"discriminator": "memory://exported"},
        pair.params,
        pair.model,
        pair.vocabulary,
        lower_case=True,
        card_data=pair.card_data,
    )
    imported = convert.import_folder("memory://exported")
    kernel = pair.params["discriminator"]["head"]["dense"]["kernel"]
    np.testing.assert_array_equal(imported.params["discriminator"]["head"]["dense"]["kernel"], kernel)
