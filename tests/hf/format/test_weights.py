"""Weights are read in every published format; a pickle that would run code is not opened."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors import torch as safetensors

from electramed_jax.common.errors import UserError
from electramed_jax.hf.format import weights

TENSORS = {
    "a.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b.bias": torch.tensor([0.5, -1.25], dtype=torch.bfloat16),
    "c.position_ids": torch.arange(4),
}


def save_whole(folder, form):
    save(TENSORS, folder / form)


def save_in_several(folder, form):
    stem, ending = form.split(".")
    places = {name: f"{stem}-0000{i % 2 + 1}-of-00002.{ending}" for i, name in enumerate(TENSORS)}
    for place in set(places.values()):
        save({name: TENSORS[name] for name in TENSORS if places[name] == place}, folder / place)
    (folder / f"{form}.index.json").write_text(json.dumps({"metadata": {"total_size": 48}, "weight_map": places}))


def save(tensors, path):
    (safetensors.save_file if path.suffix == ".safetensors" else torch.save)(tensors, path)


@pytest.mark.parametrize("form", [weights.SAFETENSORS, weights.TORCH])
@pytest.mark.parametrize("saved", [save_whole, save_in_several])
def test_every_format_gives_the_same_tensors(tmp_path, saved, form):
    saved(tmp_path, form)
    read = weights.read_tensors(str(tmp_path))
    assert set(read) == set(TENSORS)
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(np.asarray(read[name], np.float64), tensor.double().numpy(), err_msg=name)


class Program:
    """Object whose pickle runs code when it is opened."""

    def __reduce__(self):
        return os.mkdir, ("opened",)


@pytest.mark.parametrize("save_program", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_that_runs_code_is_not_opened(tmp_path, monkeypatch, save_program):
    monkeypatch.chdir(tmp_path)
    save_program({"a.weight": Program()}, tmp_path / weights.TORCH)
    with pytest.raises(UserError, match="not a file of tensors only") as error:
        weights.read_tensors(str(tmp_path))
    assert not (tmp_path / "opened").exists() and "\n" not in str(error.value)


def test_a_file_without_a_state_dict_is_refused(tmp_path):
    torch.save({"epoch": 3, "model": TENSORS}, tmp_path / weights.TORCH)
    with pytest.raises(UserError, match="not a state dict"):
        weights.read_tensors(str(tmp_path))


def test_the_error_for_a_missing_file_of_several_names_it(tmp_path):
    save_in_several(tmp_path, weights.SAFETENSORS)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="model-00002-of-00002.safetensors: missing"):
        weights.read_tensors(str(tmp_path))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "../other/model.safetensors"}}, "wanted the name of a file in the same folder"),
        (
            {"weight_map": {"a.weight": "model-1.safetensors", "d": "model-1.safetensors"}},
            "names d, which is in no file",
        ),
        ({"weight_map": ["a"]}, r"weight_map is \['a'\]; wanted an object"),
        ({}, "lacks 'weight_map'"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path, index, message):
    safetensors.save_file(TENSORS, tmp_path / "model-1.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=message):
        weights.read_tensors(str(tmp_path))


def test_the_error_for_a_folder_without_weights_names_the_wanted_files(tmp_path):
    (tmp_path / "tf_model.h5").write_bytes(b"")
    with pytest.raises(UserError, match="wanted model.safetensors or pytorch_model.bin"):
        weights.read_tensors(str(tmp_path))
