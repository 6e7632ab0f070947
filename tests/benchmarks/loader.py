"""Measures shuffled rows a second and host memory of our loader, tf.data and grain, on the same rows from page cache.

    pip install -e .[tf] grain
    python tests/benchmarks/loader.py [--rows 262144] [--shards 64] [--rounds 3] [--only NAME ...]

Invented rows of 512 uint16 ids are written once to a temporary folder: as `electramed pack` writes them, and as
uncompressed ArrayRecord files (group size 1) for grain. Each contender then runs in a process of its own, interleaved,
so that a busy machine affects all of them and memory is counted separately. It feeds an epoch of shuffled batches of 256; for
"later" it first feeds one epoch that is not measured, so that the checksums of every block have been compared by then.
Import and opening are not counted. "Per core" is a second of processor time, all threads together: it is what to look
at on a busy machine, where a second by the clock is less than that.

  plan           row numbers alone: arithmetic
  rows           the rows themselves, as the loader reads them, first epoch: every CRC is compared
  rows, later    the same, second epoch
  mixture        as `rows`, the shards as two datasets of which one weighs three times the other
  loader         Loader.at: int32 on the device (CPU), first touch
  loader, later  the same, second epoch
  tf.data        files in random order, shuffle buffer of 16,384 rows, batch, one parse_example a batch, AUTOTUNE;
                 compares CRCs each time. Faster on two cores than interleaved files, and shuffled less than ours
  grain          MapDataset over ArrayRecordDataSource, global shuffle, 16 threads; on 1/8 of the rows

Memory is the process's own (anonymous) and what it has mapped of files (libraries, mostly), in MB.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np

LENGTH, BATCH = 512, 256
GRAIN_PART = 8
CONTENDERS = ("plan", "rows", "rows, later", "mixture", "loader", "loader, later", "tf.data", "grain")


def write(folder: pathlib.Path, rows: int, shards: int, *, for_grain: bool) -> None:
    from electramed_jax.common.storage import tfrecord
    from electramed_jax.data.dataset import manifest as manifests
    from electramed_jax.data.tokenizer import vocab

    tokens = [*vocab.SPECIAL_TOKENS, *(f"word{i}" for i in range(31_085))]
    ids = np.random.default_rng(0).integers(5, len(tokens), (rows // shards, LENGTH), np.uint16)
    written = []
    for name in ("whole", "first", "second"):
        vocab.write_vocab(str(folder / name / "vocab.txt"), tokens)
    for number in range(shards):
        ids += np.uint16(1)  # another shard; ids wrap around, which does not matter here
        name = manifests.shard_name("pubmed", "train", number, shards)
        with tfrecord.RowWriter(str(folder / "whole" / name), LENGTH, "uint16") as writer:
            writer.write(ids)
        os.link(folder / "whole" / name, folder / ("first", "second")[number % 2] / name)
        written.append(manifests.Shard(name, writer.rows, writer.sha256))
        if for_grain:
            from array_record.python.array_record_module import ArrayRecordWriter

            to = ArrayRecordWriter(str(folder / f"{number:03d}.array_record"), "group_size:1,uncompressed")
            for row in ids[: len(ids) // GRAIN_PART]:
                to.write(row.tobytes())
            to.close()
    for name, held in {"whole": written, "first": written[::2], "second": written[1::2]}.items():
        count = sum(shard.rows for shard in held)
        split = manifests.Split(tuple(held), count, count * LENGTH, count, 0, 1.0, 9.0)
        manifest = manifests.Manifest(
            row_length=LENGTH,
            dtype="uint16",
            vocab_size=len(tokens),
            vocab_sha256=vocab.sha256(str(folder / name / "vocab.txt")),
            lower_case=True,
            special=vocab.special_ids(tokens),
            splits={"train": split},
            sources=[],
            dropped={},
            length_histogram={},
            code_version="benchmark",
        )
        manifests.write_manifest(str(folder / name), manifest)


def batches(name: str, folder: pathlib.Path) -> Iterator[np.ndarray | None]:
    """The batches of an epoch; None where the clock starts."""
    kind = name.removesuffix(", later")
    if kind == "tf.data":
        yield from with_tf_data(folder)
    elif kind == "grain":
        yield from with_grain(folder)
    elif kind == "loader":
        yield from with_loader(str(folder / "whole"), later=name != kind)
    else:
        from electramed_jax.data.dataset import dataset, mixture
        from electramed_jax.data.dataset import row_reader as rows

        directory, weights = str(folder / "whole"), ""
        if kind == "mixture":
            directory, weights = f"{folder / 'first'},{folder / 'second'}", "3,1"
        found = dataset.open_dataset(directory)
        split = rows.DatasetRows(found, "train")
        order = mixture.make_sampler(found.num_rows("train"), mixture.parse_weights(weights), BATCH, 0)
        steps = len(split) // BATCH
        first = steps if name != kind else 0
        for step in range(first):
            split[order.rows(step)]
        yield None
        for step in range(first, first + steps):
            numbers = order.rows(step)
            yield numbers[:, None] if kind == "plan" else split[numbers]


def with_loader(directory: str, *, later: bool) -> Iterator[np.ndarray | None]:
    import jax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from electramed_jax.data.dataset.dataset import open_dataset
    from electramed_jax.data.dataset.loader import Loader

    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    with Loader(open_dataset(directory), "train", BATCH, 0, NamedSharding(mesh, PartitionSpec("data"))) as loader:
        steps = loader.rows_in_epoch // BATCH
        for step in range(steps if later else 0):
            loader.at(step)
        yield None
        for step in range(steps * later, steps * later + steps):
            yield loader.at(step)["input_ids"].block_until_ready()


def with_tf_data(folder: pathlib.Path) -> Iterator[np.ndarray | None]:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    def parse(examples: tf.Tensor) -> tf.Tensor:
        feature = {"input_ids": tf.io.FixedLenFeature([], tf.string)}
        return tf.io.decode_raw(tf.io.parse_example(examples, feature)["input_ids"], tf.uint16)

    paths = tf.data.Dataset.from_tensor_slices(sorted(map(str, folder.glob("whole/*.tfrecord-*")))).shuffle(
        1000, seed=0
    )
    examples = tf.data.TFRecordDataset(paths).shuffle(16_384, seed=0)
    data = examples.batch(BATCH).map(parse, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    yield None
    yield from data.as_numpy_iterator()


def with_grain(folder: pathlib.Path) -> Iterator[np.ndarray | None]:
    import grain

    source = grain.sources.ArrayRecordDataSource(sorted(map(str, folder.glob("*.array_record"))))
    data = grain.MapDataset.source(source).seed(0).shuffle().map(lambda data: np.frombuffer(data, np.uint16))
    options = grain.ReadOptions(num_threads=16, prefetch_buffer_size=500)
    yield None
    yield from data.batch(BATCH).to_iter_dataset(options)


def measure(name: str, folder: pathlib.Path) -> dict[str, float]:
    """Runs in the contender's own process."""
    feed, rows, memory = batches(name, folder), 0, {}
    opened = next(feed)
    assert opened is None
    started, worked = time.perf_counter(), time.process_time()
    for batch in feed:
        rows += len(batch)
        if rows % (128 * BATCH) == 0:
            memory = resident()
    seconds, busy = time.perf_counter() - started, time.process_time() - worked
    return {"rate": rows / seconds, "busy_rate": rows / busy} | memory


def resident() -> dict[str, float]:
    """MB in memory, now: the process's own, and those mapped of files."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Rss")}
    return {"own": kilobytes["RssAnon"] / 1024, "mapped": kilobytes["RssFile"] / 1024}


def spread(values: list[float], form: str) -> str:
    stats = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return "  ".join(f"{name} {value:{form}}" for name, value in stats.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1 << 18)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], pathlib.Path(args.measure[1]))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write(folder, args.rows, args.shards, for_grain="grain" in args.only)
        results: dict[str, list[dict[str, float]]] = {name: [] for name in args.only}
        for turn in range(args.rounds):
            for name in args.only[turn % len(args.only) :] + args.only[: turn % len(args.only)]:
                command = [sys.executable, __file__, "--measure", name, str(folder)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                results[name].append(json.loads(done.stdout.splitlines()[-1]))
    for name, runs in results.items():
        own, mapped = (statistics.median(run[key] for run in runs) for key in ("own", "mapped"))
        rates, busy = (spread([run[key] / 1000 for run in runs], "6,.0f") for key in ("rate", "busy_rate"))
        print(f"{name:14} 1,000 rows/s: {rates}   per core: {busy}   MB: own {own:,.0f}, mapped {mapped:,.0f}")
    for peer in {"tf.data", "grain"} & results.keys():
        for ours in [name for name in ("rows", "loader") if name in results]:
            pairs = zip(results[ours], results[peer], strict=True)
            ratios = [(a["rate"] / b["rate"], a["busy_rate"] / b["busy_rate"]) for a, b in pairs]
            times, busy = (spread(list(each), ".1f") for each in zip(*ratios, strict=True))
            print(f"{ours} / {peer}: {times}   per core: {busy}")


if __name__ == "__main__":
    main()
