"""Runs `electramed` and records the training rows of each step: `python recorded_run.py FOLDER pretrain ...`.

Each process and start writes a file to FOLDER, with one line per step: the SHA-256 of every row on the devices of the
process, by its index in the global batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator

import jax
import numpy as np

from electramed_jax import cli
from electramed_jax.data.dataset import loader


@contextlib.contextmanager
def recording(folder: pathlib.Path) -> Iterator[None]:
    """Records the training rows of this process while the context is open."""
    folder.mkdir(parents=True, exist_ok=True)
    load = loader.Loader.at

    def at(self: loader.Loader, step: int) -> loader.Batch:
        batch = load(self, step)
        record_rows(folder, step + 1, batch["input_ids"])
        return batch

    loader.Loader.at = at
    try:
        yield
    finally:
        loader.Loader.at = load


def record_rows(folder: pathlib.Path, step: int, ids_BT: jax.Array) -> None:
    """Appends the digests of the rows on the devices of this process to its file."""
    rows = {}
    for shard in ids_BT.addressable_shards:
        first = shard.index[0].indices(len(ids_BT))[0]
        for index, row in enumerate(np.asarray(shard.data), first):
            rows[index] = hashlib.sha256(row.tobytes()).hexdigest()[:16]
    with open(folder / f"{jax.process_index()}-{os.getpid()}.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "rows": rows}) + "\n")


if __name__ == "__main__":
    with recording(pathlib.Path(sys.argv[1])):
        sys.exit(cli.main(sys.argv[2:]))
