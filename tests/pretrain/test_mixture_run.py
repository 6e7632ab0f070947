"""`electramed pretrain` on mixtures, on remote datasets, and resumed on changed datasets."""

from __future__ import annotations

import json
import pathlib
import shutil

import numpy as np
import pytest
import quick_run

from electramed_jax import cli
from electramed_jax.common import tree_rules
from electramed_jax.common.storage import tfrecord
from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.dataset import dataset, manifest
from electramed_jax.data.packing.build import pack
from electramed_jax.data.synthetic import pubmed_xml
from electramed_jax.pretrain.checkpoint import load_pretrained_state
from electramed_jax.training import sharding

pytestmark = pytest.mark.slow

TIMINGS = {"step_seconds", "tokens_per_second", "eta_seconds", "host_memory_bytes"}


@pytest.fixture(scope="module")
def other(packed, tmp_path_factory) -> pathlib.Path:
    """A second dataset, packed with the vocabulary of `packed`."""
    folder = tmp_path_factory.mktemp("other")
    articles = pubmed_xml.write_pubmed_xml(str(folder / "xml"), articles=100, num_files=1, seed=1)
    prepare(articles, str(folder / "documents"), FilterConfig(validation=0.1, test=0.0), workers=1)
    rows = str(folder / "other")
    pack(str(folder / "documents"), str(packed / "vocab.txt"), rows, row_length=quick_run.ROW_LENGTH, workers=1)
    return folder / "other"


@pytest.fixture(scope="module")
def pretrain(quick_compilation):
    """Runs `electramed pretrain` in this process; returns its exit code."""

    def run(directory: object, workdir: pathlib.Path, *options: str, **settings: object) -> int:
        command = ["pretrain", *quick_run.settings(directory, **settings), f"--workdir={workdir}", *options]
        return cli.main(command)

    return run


@pytest.fixture(scope="module")
def mixed(pretrain, packed, other, tmp_path_factory) -> pathlib.Path:
    """The workdir of a finished run on both datasets with weights 3 and 1. Tests copy it before they write to it."""
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


def test_a_run_on_a_mixture_stores_the_merged_manifest(packed, other, mixed):
    assert manifest.load_manifest(str(mixed / "dataset.json")) == dataset.open_dataset(f"{packed},{other}").manifest


def test_an_interrupted_run_on_a_mixture_is_bit_identical_to_an_uninterrupted_one(
    pretrain, packed, other, mixed, tmp_path, capsys
):
    directory, workdir = f"{packed},{other}", tmp_path / "run"
    assert pretrain(directory, workdir, "--stop_after=7", data__weights="3,1") == 0
    assert pretrain(directory, workdir, data__weights="3,1") == 0
    assert_same_run(workdir, mixed)
    console = capsys.readouterr().err
    assert (
        f"{packed}: " in console
        and "75.00% of each batch on average" in console
        and f"{other}: " in console
        and "25.00%" in console
    )
    assert "changed" not in console


def test_remote_shards_give_the_same_run_as_local_ones(pretrain, packed, other, mixed, gcs, tmp_path):
    for folder in (packed, other):
        for file in folder.iterdir():
            gcs.objects[f"bucket/{folder.name}/{file.name}"] = file.read_bytes()
    ends = sum(min(len(data), tfrecord.END_BYTES) for name, data in gcs.objects.items() if ".tfrecord-" in name)
    gcs.fail(".tfrecord-", "503", "break", "flip", "silence")
    directory = f"gs://bucket/{packed.name},gs://bucket/{other.name}"
    cached = {"data__cache_directory": tmp_path / "cache", "data__weights": "3,1"}
    assert pretrain(directory, tmp_path / "run", **cached) == 0
    assert_same_run(tmp_path / "run", mixed)
    gcs.requests.clear()
    assert pretrain(directory, tmp_path / "again", "--stop_after=2", **cached) == 0
    assert sum(request.sent for request in gcs.downloads(".tfrecord-")) <= 2 * ends, "only to verify the ends of shards"


def test_evaluate_takes_the_whole_mixture_or_one_dataset(packed, other, mixed, capsys):
    assert cli.main(["evaluate", f"--workdir={mixed}", "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert cli.main(["evaluate", f"--workdir={mixed}", f"--data={other}", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one["unigram_cross_entropy"] == manifest.read_manifest(str(other)).splits["validation"].unigram_cross_entropy
    assert both["unigram_cross_entropy"] != one["unigram_cross_entropy"] and both["loss"] != one["loss"]


def test_the_model_card_lists_the_datasets_of_a_mixture(packed, other, mixed, tmp_path):
    assert cli.main(["export", f"--workdir={mixed}", f"--output={tmp_path}"]) == 0
    card = (tmp_path / "discriminator" / "README.md").read_text()
    documents = sum(manifest.read_manifest(str(folder)).splits["train"].documents for folder in (packed, other))
    assert f"| dataset | {packed.name} + {other.name} |" in card
    assert f"| documents | {documents:,} |" in card and "| mixed | by the weights 3,1 |" in card


def test_a_restart_with_other_rows_or_another_order_warns_and_resumes(pretrain, packed, other, mixed, tmp_path, capsys):
    workdir, order = shutil.copytree(mixed, tmp_path / "run"), "warning: the data order changes at this step"
    copy = shutil.copytree(other, tmp_path / "copy")
    assert pretrain(f"{packed},{copy}", workdir, data__weights="3,1", log_every=5) == 0
    console = capsys.readouterr().err
    assert "setting changed since the last start: data.directory: " in console and "log_every: 4 -> 5" in console
    assert order not in console
    assert pretrain(f"{packed},{copy}", workdir, data__weights="1,1", log_every=5) == 0
    console = capsys.readouterr().err
    assert "data.weights: '3,1' -> '1,1'" in console and order in console
    assert "log_every: 4 -> 5" in console, "the start before trained no step, so its settings do not count"
    assert pretrain(packed, workdir, log_every=5) == 0
    console = capsys.readouterr().err
    rows = [manifest.read_manifest(str(folder)).splits["train"].rows for folder in (packed, other)]
    assert (
        f"Cause: data.weights: '3,1' -> ''; training rows: {sum(rows):,} -> {rows[0]:,}" in console and order in console
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data__weights": "3,1,1"}, "data.weights names 3 for 2 datasets"),
        ({"data__weights": "3,x"}, "config.data.weights='3,x'; wanted numbers above 0"),
        ({"data__cache_gigabytes": 0}, "config.data.cache_gigabytes=0.0 is out of range; wanted a number above 0"),
    ],
)
def test_settings_that_contradict_the_datasets_are_rejected_before_anything_is_written(
    pretrain, packed, other, tmp_path, capsys, settings, message
):
    assert pretrain(f"{packed},{other}", tmp_path / "run", **settings) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
