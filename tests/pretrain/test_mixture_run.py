"""`electramed pretrain` on several datasets, on remote ones, and on others than a run was started with."""

from __future__ import annotations

import json
import pathlib
import shutil

import numpy as np
import pytest
import quick_run

from electramed_jax import cli
from electramed_jax.common import tree_rules
from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.dataset import dataset, manifest
from electramed_jax.data.packing.build import pack
from electramed_jax.data.synthetic import pubmed_xml
from electramed_jax.pretrain.checkpoint import load_pretrained_state
from electramed_jax.training import sharding

TIMINGS = {"step_seconds", "tokens_per_second", "eta_seconds"}


@pytest.fixture(scope="module")
def other(packed, tmp_path_factory) -> pathlib.Path:
    """Other articles, packed with the vocabulary of `packed`."""
    folder = tmp_path_factory.mktemp("other")
    articles = pubmed_xml.write_pubmed_xml(str(folder / "xml"), articles=100, num_files=1, seed=1)
    prepare(articles, str(folder / "documents"), validation=0.1, test=0.0, workers=1)
    rows = str(folder / "other")
    pack(str(folder / "documents"), str(packed / "vocab.txt"), rows, row_length=quick_run.ROW_LENGTH, workers=1)
    return folder / "other"


@pytest.fixture(scope="module")
def pretrain(quick_compilation):
    """`electramed pretrain` into a workdir, in this process: returns its exit code."""

    def run(directory: object, workdir: pathlib.Path, *options: str, **settings: object) -> int:
        command = ["pretrain", *quick_run.settings(directory, **settings), f"--workdir={workdir}", *options]
        return cli.main(command)

    return run


@pytest.fixture(scope="module")
def mixed(pretrain, packed, other, tmp_path_factory) -> pathlib.Path:
    """A finished run on both, three to one. To be copied."""
    workdir = tmp_path_factory.mktemp("mixed") / "run"
    assert pretrain(f"{packed},{other}", workdir, data__weights="3,1") == 0
    return workdir


def leaves(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    state = load_pretrained_state(str(workdir), sharding.make_mesh(MeshConfig()))[1]
    return {name: np.asarray(leaf) for name, leaf in tree_rules.named_leaves(state).items()}


def entries(workdir: pathlib.Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in lines]


def assert_same_run(ours: pathlib.Path, theirs: pathlib.Path) -> None:
    expected = leaves(theirs)
    for name, leaf in leaves(ours).items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)
    assert entries(ours) == entries(theirs)


def test_a_run_on_a_mixture_keeps_a_manifest_of_all(packed, other, mixed):
    assert manifest.load_manifest(str(mixed / "dataset.json")) == dataset.open_dataset(f"{packed},{other}").manifest


def test_an_interrupted_run_on_a_mixture_is_bit_equal_to_an_undisturbed_one(
    pretrain, packed, other, mixed, tmp_path, capsys
):
    directory, workdir = f"{packed},{other}", tmp_path / "run"
    assert pretrain(directory, workdir, "--stop_after=7", data__weights="3,1") == 0
    assert pretrain(directory, workdir, data__weights="3,1") == 0
    assert_same_run(workdir, mixed)
    said = capsys.readouterr().err
    assert f"{packed}: " in said and "75.00% of those fed" in said and f"{other}: " in said and "25.00%" in said
    assert "changed" not in said


def test_remote_shards_train_the_model_that_local_ones_do(pretrain, packed, other, mixed, gcs, tmp_path):
    for folder in (packed, other):
        for file in folder.iterdir():
            gcs.objects[f"bucket/{folder.name}/{file.name}"] = file.read_bytes()
    gcs.fail(".tfrecord-", "503", "break", "flip", "silence")
    directory = f"gs://bucket/{packed.name},gs://bucket/{other.name}"
    cached = {"data__cache_directory": tmp_path / "cache", "data__weights": "3,1"}
    assert pretrain(directory, tmp_path / "run", **cached) == 0
    assert_same_run(tmp_path / "run", mixed)
    gcs.requests.clear()
    assert pretrain(directory, tmp_path / "again", "--stop_after=2", **cached) == 0
    assert gcs.downloads(".tfrecord-") == []


def test_a_model_of_a_mixture_is_evaluated_on_all_of_it_or_on_one(packed, other, mixed, capsys):
    assert cli.main(["evaluate", f"--workdir={mixed}", "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert cli.main(["evaluate", f"--workdir={mixed}", f"--data={other}", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one["unigram_cross_entropy"] == manifest.read_manifest(str(other)).splits["validation"].unigram_cross_entropy
    assert both["unigram_cross_entropy"] != one["unigram_cross_entropy"] and both["loss"] != one["loss"]


def test_the_card_of_a_model_of_a_mixture_tells_what_was_mixed(packed, other, mixed, tmp_path):
    assert cli.main(["export", f"--workdir={mixed}", f"--output={tmp_path}"]) == 0
    card = (tmp_path / "discriminator" / "README.md").read_text()
    documents = sum(manifest.read_manifest(str(folder)).splits["train"].documents for folder in (packed, other))
    assert f"| dataset | {packed.name} + {other.name} |" in card
    assert f"| documents | {documents:,} |" in card and "| mixed | by the weights 3,1 |" in card


def test_a_restart_on_other_rows_or_in_another_order_says_so_and_goes_on(
    pretrain, packed, other, mixed, tmp_path, capsys
):
    workdir, order = shutil.copytree(mixed, tmp_path / "run"), "rows come in another order from here on"
    copy = shutil.copytree(other, tmp_path / "copy")
    assert pretrain(f"{packed},{copy}", workdir, data__weights="3,1", log_every=5) == 0
    said = capsys.readouterr().err
    assert "changed since this run was last started: data.directory: " in said and "log_every: 4 -> 5" in said
    assert order not in said
    assert pretrain(f"{packed},{copy}", workdir, data__weights="1,1", log_every=5) == 0
    said = capsys.readouterr().err
    assert "data.weights: '3,1' -> '1,1'" in said and "log_every" not in said and order in said
    assert pretrain(packed, workdir, log_every=5) == 0
    said = capsys.readouterr().err
    rows = [manifest.read_manifest(str(folder)).splits["train"].rows for folder in (packed, other)]
    assert f"the training rows ({sum(rows):,} -> {rows[0]:,})" in said and order in said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data__weights": "3,1,1"}, "data.weights names 3 for 2 datasets"),
        ({"data__weights": "3,x"}, "config.data.weights='3,x'; wanted numbers above 0"),
        ({"data__cache_gigabytes": 0}, "config.data.cache_gigabytes=0.0 is out of range; wanted a number above 0"),
    ],
)
def test_settings_that_do_not_fit_the_datasets_are_refused_before_anything_is_written(
    pretrain, packed, other, tmp_path, capsys, settings, message
):
    assert pretrain(f"{packed},{other}", tmp_path / "run", **settings) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
