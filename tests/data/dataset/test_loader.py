"""Batches: the rows of the sampler, on any mesh and any number of hosts; damaged rows are errors."""

from __future__ import annotations

import json
import pathlib
import shutil
import socket
import subprocess
import sys
import threading

import invented_rows
import jax
import numpy as np
import pytest
from invented_rows import T
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from electramed_jax.common.errors import UserError
from electramed_jax.data.dataset import loader, mixture, row_reader
from electramed_jax.data.dataset.dataset import open_dataset
from electramed_jax.data.dataset.sampler import EpochSampler

SHARD_ROWS = {"train": (40, 40, 13), "validation": (30, 7), "test": ()}
MESHES = [(8, 1, 1), (2, 2, 2), (1, 1, 8)]


def sharding_on(shape: tuple[int, int, int]) -> NamedSharding:
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> pathlib.Path:
    """A packed dataset of small shards, the last of each split shorter; its test split is empty."""
    folder = tmp_path_factory.mktemp("packed")
    invented_rows.pack(str(folder), SHARD_ROWS)
    return folder


def contents(split: str) -> np.ndarray:
    """Returns the rows that `invented_rows.pack` wrote."""
    count = sum(SHARD_ROWS[split])
    first = 1000 + {"train": 0, "validation": 93 * T, "test": 130 * T}[split]
    return first + np.arange(count * T).reshape(count, T)


@pytest.fixture
def damaged(packed, tmp_path) -> tuple[str, int]:
    """A copy in which one byte of one training row differs, and that row's number."""
    folder = tmp_path / "damaged"
    shutil.copytree(packed, folder)
    row_of_shard_1 = 5
    invented_rows.flip_byte(str(folder / "pubmed-train.tfrecord-00001-of-00003"), row_of_shard_1)
    return str(folder), 40 + row_of_shard_1


@pytest.mark.parametrize("mesh", MESHES)
def test_a_batch_has_the_rows_of_the_sampler_and_each_device_its_part(packed, mesh):
    sharding = sharding_on(mesh)
    expected = contents("train")
    sampler = EpochSampler(num_rows=93, batch_size=16, seed=7)
    with loader.Loader(open_dataset(str(packed)), "train", 16, 7, sharding) as batches:
        for step in range(14):  # two and a half epochs, across their boundaries
            ids = batches.at(step)["input_ids"]
            assert ids.shape == (16, T) and ids.dtype == np.int32 and ids.sharding == sharding
            wanted = expected[sampler.rows(step)]
            np.testing.assert_array_equal(ids, wanted)
            for shard in ids.addressable_shards:
                np.testing.assert_array_equal(shard.data, wanted[shard.index])


def test_another_loader_gives_the_same_batch_at_the_same_step(packed):
    sharding = sharding_on((2, 2, 2))
    with loader.Loader(open_dataset(str(packed)), "train", 8, 3, sharding) as first:
        before = [np.asarray(first.at(step)["input_ids"]) for step in range(30)]
    with loader.Loader(open_dataset(str(packed)), "train", 8, 3, sharding) as resumed:
        for step in (17, 18, 29, 2, 2, 3):
            np.testing.assert_array_equal(resumed.at(step)["input_ids"], before[step])


def test_rows_are_read_once_for_several_devices(packed, monkeypatch):
    requested, read = [], row_reader.SplitRows.__getitem__

    def read_and_record(self: row_reader.SplitRows, wanted: np.ndarray) -> np.ndarray:
        requested.extend(wanted)
        return read(self, wanted)

    monkeypatch.setattr(row_reader.SplitRows, "__getitem__", read_and_record)
    batches = loader.ordered_batches(open_dataset(str(packed)), "train", 16, sharding_on((2, 2, 2)))
    next(batches)
    assert sorted(requested) == list(range(16))


def test_a_loader_has_the_facts_of_its_data(packed):
    with loader.Loader(open_dataset(str(packed)), "train", 31, 0, sharding_on((1, 1, 8))) as batches:
        assert batches.rows_in_epoch == 93
        assert batches.manifest.special.mask == 4
        assert [batches.epoch(step) for step in (0, 3, 6)] == [0.0, 1.0, 2.0]


def test_a_flipped_byte_stops_only_the_step_that_would_train_on_it(damaged):
    folder, bad_row = damaged
    sampler = EpochSampler(num_rows=93, batch_size=8, seed=1)
    with loader.Loader(open_dataset(folder), "train", 8, 1, sharding_on((8, 1, 1))) as batches:
        for step in range(11):
            if bad_row in sampler.rows(step):
                with pytest.raises(UserError, match="tfrecord-00001-of-00003: row 5 is damaged"):
                    batches.at(step)
            else:
                np.testing.assert_array_equal(batches.at(step)["input_ids"], contents("train")[sampler.rows(step)])


def test_a_shard_that_vanishes_is_named_at_the_step_that_needs_it(packed, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(packed, folder)
    with loader.Loader(open_dataset(str(folder)), "train", 96, 1, sharding_on((8, 1, 1))) as batches:
        (folder / "pubmed-train.tfrecord-00002-of-00003").unlink()
        with pytest.raises(UserError, match="tfrecord-00002-of-00003: no such file"):
            batches.at(0)


@pytest.mark.parametrize(
    "split, batch_size, message",
    [
        ("training", 16, "no split 'training'; it has train, validation, test"),
        ("test", 16, "split 'test' has no rows"),
        ("train", 1001, "batch_size=1001 is not divisible by data×fsdp=8; use 1000 or 1008"),
        ("train", 5, "batch_size=5 is not divisible by data×fsdp=8; use 8"),
        ("train", 0, "batch_size=0 is not divisible by data×fsdp=8; use 8"),
    ],
)
def test_invalid_splits_and_batch_sizes_are_refused_at_once(packed, split, batch_size, message):
    sharding = sharding_on((4, 2, 1))
    with pytest.raises(UserError, match=message):
        loader.Loader(open_dataset(str(packed)), split, batch_size, 0, sharding)
    with pytest.raises(UserError, match=message):
        loader.ordered_batches(open_dataset(str(packed)), split, batch_size, sharding)


@pytest.mark.parametrize("mesh", MESHES)
def test_an_evaluation_has_every_row_in_order_and_then_rows_of_padding(packed, mesh):
    batches = list(loader.ordered_batches(open_dataset(str(packed)), "validation", 16, sharding_on(mesh)))
    ids = np.concatenate([np.asarray(batch["input_ids"]) for batch in batches])
    assert ids.shape == (48, T) and ids.dtype == np.int32
    np.testing.assert_array_equal(ids[:37], contents("validation"))
    assert (ids[37:] == 0).all()


def test_the_batches_of_a_short_evaluation_are_spread_over_the_split(packed):
    sharding = sharding_on((8, 1, 1))
    batches = list(loader.ordered_batches(open_dataset(str(packed)), "train", 8, sharding, max_batches=3))
    ids = np.concatenate([np.asarray(batch["input_ids"]) for batch in batches])
    wanted = np.concatenate([np.arange(8), 31 + np.arange(8), 62 + np.arange(8)])
    np.testing.assert_array_equal(ids, contents("train")[wanted])


def test_with_more_batches_than_the_split_has_all_rows_are_evaluated(packed):
    batches = loader.ordered_batches(open_dataset(str(packed)), "validation", 8, sharding_on((8, 1, 1)), 100)
    assert len(list(batches)) == 5


def test_the_next_two_steps_are_loaded_in_the_background():
    made = {step: threading.Event() for step in range(4)}

    def make(step: int) -> loader.Batch:
        made[step].set()
        return {"step": step}

    batches = loader.StepPrefetcher(make)
    assert batches.at(0) == {"step": 0}
    assert made[1].wait(timeout=30) and made[2].wait(timeout=30)
    batches.close()
    assert not made[3].is_set()


def test_an_error_is_raised_at_its_own_step_and_the_next_request_tries_again():
    attempts = []

    def make(step: int) -> loader.Batch:
        attempts.append(step)
        if step == 1 and attempts.count(1) == 1:
            raise UserError("storage is unavailable")
        return {"step": step}

    batches = loader.StepPrefetcher(make)
    assert batches.at(0) == {"step": 0}
    with pytest.raises(UserError, match="storage is unavailable"):
        batches.at(1)
    assert batches.at(1) == {"step": 1}
    batches.close()


def test_remote_shards_give_the_same_batches_as_local_ones(packed, gcs):
    for file in packed.iterdir():
        gcs.objects[f"bucket/{file.name}"] = file.read_bytes()
    sampler = EpochSampler(num_rows=93, batch_size=8, seed=3)
    with loader.Loader(open_dataset("gs://bucket"), "train", 8, 3, sharding_on((8, 1, 1))) as batches:
        for step in range(24):
            ids = batches.at(step)["input_ids"]
            np.testing.assert_array_equal(ids, contents("train")[sampler.rows(step)])
    evaluated = list(loader.ordered_batches(open_dataset("gs://bucket"), "validation", 16, sharding_on((8, 1, 1))))
    np.testing.assert_array_equal(np.concatenate([b["input_ids"] for b in evaluated])[:37], contents("validation"))


def test_blocks_are_read_a_window_ahead_of_the_step_that_needs_them(packed, monkeypatch):
    monkeypatch.setattr(loader, "ROWS_AHEAD", 40)
    prefetched, prefetch = [], row_reader.DatasetRows.prefetch

    def prefetch_and_record(self: row_reader.DatasetRows, numbers: np.ndarray) -> None:
        prefetched.append(numbers.tolist())
        prefetch(self, numbers)

    monkeypatch.setattr(row_reader.DatasetRows, "prefetch", prefetch_and_record)
    sampler = EpochSampler(num_rows=93, batch_size=8, seed=3)
    with loader.Loader(open_dataset(str(packed)), "train", 8, 3, sharding_on((8, 1, 1))) as batches:
        batches.at(0)
    assert prefetched[:2] == [sampler.rows(0).tolist(), sampler.rows(5).tolist()]


@pytest.fixture
def second(tmp_path) -> tuple[str, np.ndarray]:
    """Another packed folder of the same vocabulary, and its training rows."""
    folder = str(tmp_path / "second")
    return folder, invented_rows.pack(folder, {"train": (31,), "validation": (8,)}, first_id=5000)["train"]


@pytest.mark.parametrize("weights", ["", "3,1"])
def test_several_folders_are_mixed_and_rows_are_numbered_across_them(packed, second, weights):
    directory, both = f"{packed},{second[0]}", np.concatenate([contents("train"), second[1]])
    order = mixture.make_sampler((93, 31), mixture.parse_weights(weights), 16, 7)
    with loader.Loader(open_dataset(directory), "train", 16, 7, sharding_on((2, 2, 2)), weights=weights) as batches:
        assert batches.rows_in_epoch == 124 and batches.manifest.splits["train"].rows == 124
        for step in range(20):
            np.testing.assert_array_equal(batches.at(step)["input_ids"], both[order.rows(step)])
        lines = batches.mixture_summary(1000)
    assert lines[1] == f"{second[0]}: 31 rows, 25.00% of each batch on average, 129.0 epochs in 1,000 steps"


def test_an_evaluation_of_several_folders_has_each_row_of_each_once(packed, second):
    batches = list(
        loader.ordered_batches(open_dataset(f"{packed},{second[0]}"), "validation", 16, sharding_on((8, 1, 1)))
    )
    ids = np.concatenate([np.asarray(batch["input_ids"]) for batch in batches])
    wanted = np.concatenate([contents("validation"), 5000 + 31 * T + np.arange(8 * T).reshape(8, T)])
    np.testing.assert_array_equal(ids[:45], wanted)
    assert (ids[45:] == 0).all()


def test_a_folder_without_training_rows_is_named(packed, tmp_path):
    folder = str(tmp_path / "held_out")
    invented_rows.pack(folder, {"train": (), "validation": (8,)})
    with pytest.raises(UserError, match=f"{folder}: split 'train' has no rows; leave out the folder"):
        loader.Loader(open_dataset(f"{packed},{folder}"), "train", 16, 7, sharding_on((8, 1, 1)))
    batches = loader.ordered_batches(open_dataset(f"{folder},{packed}"), "train", 16, sharding_on((8, 1, 1)))
    np.testing.assert_array_equal(next(batches)["input_ids"], contents("train")[:16])


HOST = """
import json, sys
import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

port, host, folder, out = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", 4)
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(host))
from electramed_jax.data.dataset import loader, row_reader
from electramed_jax.data.dataset.dataset import open_dataset

requested, read = [], row_reader.SplitRows.__getitem__
row_reader.SplitRows.__getitem__ = lambda self, rows: requested.extend(map(int, rows)) or read(self, rows)
mesh = jax.make_mesh((4, 1, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
rows_by_step = []
with loader.Loader(open_dataset(folder), "train", 16, 7, sharding) as batches:
    for step in range(8):
        rows = {}
        for shard in batches.at(step)["input_ids"].addressable_shards:
            for i, row in zip(range(*shard.index[0].indices(16)), np.asarray(shard.data).tolist()):
                rows[i] = row
        rows_by_step.append(rows)
with open(out, "w") as file:
    json.dump({"rows": rows_by_step, "requested": requested}, file)
"""


@pytest.mark.slow
def test_two_hosts_have_the_batch_of_one_host_and_read_half_of_it_each(packed, tmp_path, repository):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outs = [tmp_path / f"{host}.json" for host in range(2)]
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, str(port), str(host), str(packed), str(out)],
            cwd=repository,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host, out in enumerate(outs)
    ]
    try:
        for process in hosts:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors
    finally:
        for process in hosts:
            process.kill()
    outputs = [json.loads(out.read_text()) for out in outs]
    sampler = EpochSampler(num_rows=93, batch_size=16, seed=7)
    for step in range(8):
        rows = {int(i): row for one in outputs for i, row in one["rows"][step].items()}
        global_batch = [rows[i] for i in range(16)]
        np.testing.assert_array_equal(global_batch, contents("train")[sampler.rows(step)])
        assert [len(one["rows"][step]) for one in outputs] == [8, 8]
    steps_read = range(8 + loader.PREFETCHED_STEPS)
    for host, one in enumerate(outputs):
        own = [sampler.rows(step)[8 * host : 8 * host + 8] for step in steps_read]
        # Steps prefetched at the very end may have been dropped when the loader closed.
        assert set(one["requested"]) <= set(np.concatenate(own).tolist())
        assert 8 * 8 <= len(one["requested"]) <= 8 * len(steps_read)
