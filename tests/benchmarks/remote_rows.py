"""Measures an epoch of shards on gs://: range requests, bytes, and the time that steps wait for their batch.

    pip install -e .[gcs]
    python tests/benchmarks/remote_rows.py [--rows 65536] [--batch 256] [--delay 0.1] [--step 0.05]

A small server on this machine replaces Google's (tests/support/fake_gcs.py); it lets `--delay` seconds pass
before it sends anything, as a service far away does. A training step is a pause of `--step` seconds. The rows, of 512
uint16 ids, are read through gcsfs by the training Loader:

  no read-ahead    blocks are read when the step after the next one needs them
  first epoch      as in training: blocks are read a window of 16,384 rows ahead, and kept in a cache on disk
  second epoch     from the cache on disk

The rows that were fed are compared with those of the files: all of them, once each.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import fake_gcs

LENGTH, SHARDS = 512, 8


def pack(folder: str, rows: int) -> None:
    from electramed_jax.common.storage import files, tfrecord
    from electramed_jax.data.dataset import manifest as manifests
    from electramed_jax.data.tokenizer import vocab

    tokens = [*vocab.SPECIAL_TOKENS, *(f"word{i}" for i in range(60_000))]
    vocab.write_vocab(files.join(folder, "vocab.txt"), tokens)
    draw, shards = np.random.default_rng(0), []
    for number in range(SHARDS):
        name = manifests.shard_name("pubmed", "train", number, SHARDS)
        with tfrecord.RowWriter(files.join(folder, name), LENGTH, "uint16") as writer:
            ids = draw.integers(5, len(tokens), (rows // SHARDS, LENGTH), np.uint16)
            # The first two ids are the number of the row.
            ids[:, :2] = np.stack(np.divmod(number * len(ids) + np.arange(len(ids)), 1 << 12), axis=1)
            writer.write(ids)
        shards.append(manifests.Shard(name, writer.rows, writer.sha256))
    split = manifests.Split(tuple(shards), rows, rows * LENGTH, rows, 0, 1.0, 9.0)
    manifest = manifests.Manifest(
        row_length=LENGTH,
        dtype="uint16",
        vocab_size=len(tokens),
        vocab_sha256=vocab.sha256(files.join(folder, "vocab.txt")),
        lower_case=True,
        special=vocab.special_ids(tokens),
        splits={"train": split},
        sources=[],
        dropped={},
        length_histogram={},
        code_version="benchmark",
    )
    manifests.write_manifest(folder, manifest)


def epoch(loader: object, number: int, batch: int, step_seconds: float) -> tuple[list[float], np.ndarray]:
    """(seconds that each step waited, the numbers of the rows that were fed)."""
    steps, waits, fed = loader.rows_in_epoch // batch, [], []
    for step in range(number * steps, (number + 1) * steps):
        began = time.perf_counter()
        ids = loader.at(step)["input_ids"]
        waits.append(time.perf_counter() - began)
        fed.append(np.asarray(ids[:, 0]) * (1 << 12) + np.asarray(ids[:, 1]))
        time.sleep(step_seconds)
    return waits, np.concatenate(fed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1 << 16)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--delay", type=float, default=0.1)
    parser.add_argument("--step", type=float, default=0.05)
    args = parser.parse_args()

    import jax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from electramed_jax.common.storage.disk_cache import DiskCache
    from electramed_jax.data.dataset import loader as loaders
    from electramed_jax.data.dataset.dataset import open_dataset

    sharding = NamedSharding(jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,)), PartitionSpec("data"))
    with fake_gcs.running() as storage, tempfile.TemporaryDirectory() as folder:
        pack("gs://bucket/packed", args.rows)
        size = sum(len(content) for name, content in storage.objects.items() if ".tfrecord-" in name)
        print(f"{args.rows:,} rows in {SHARDS} shards, {size:,} bytes; {args.delay} s a request, {args.step} s a step")
        storage.delay = args.delay
        cache = DiskCache(folder, 10 << 30)

        def measure(name: str, loader: loaders.Loader, number: int) -> None:
            storage.requests.clear()
            waits, fed = epoch(loader, number, args.batch, args.step)
            requests = storage.downloads(".tfrecord-")
            assert np.array_equal(np.sort(fed), np.arange(args.rows)), "every row once"
            traffic = f"{len(requests):4} range requests, {sum(r.sent for r in requests):12,} bytes"
            later = waits[1:]
            print(
                f"{name:14} {traffic}; waited {waits[0]:.2f} s for the first batch, then "
                f"median {statistics.median(later) * 1000:.1f} ms, max {max(later) * 1000:.0f} ms, "
                f"{sum(later):.2f} s in all"
            )

        ahead, loaders.ROWS_AHEAD = loaders.ROWS_AHEAD, 0
        with loaders.Loader(open_dataset("gs://bucket/packed"), "train", args.batch, 0, sharding) as loader:
            measure("no read-ahead", loader, 0)
        loaders.ROWS_AHEAD = ahead
        with loaders.Loader(
            open_dataset("gs://bucket/packed"), "train", args.batch, 0, sharding, cache=cache
        ) as loader:
            measure("first epoch", loader, 0)
            measure("second epoch", loader, 1)


if __name__ == "__main__":
    main()
