"""`electramed`, noting which rows each step is trained on: `python recorded_run.py FOLDER pretrain ...`.

FOLDER gets a file for each process and start, with a line a step: the SHA-256 of every row that this process's
devices hold, by its place in the global batch.
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
    """Notes what is trained on in this process, for the length of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    fetch = loader.Loader.at

    def at(self: loader.Loader, step: int) -> loader.Batch:
        batch = fetch(self, step)
        note(folder, step + 1, batch["input_ids"])
        return batch

    loader.Loader.at = at
    try:
        yield
    finally:
        loader.Loader.at = fetch


def note(folder: pathlib.Path, step: int, ids_BT: jax.Array) -> None:
    rows = {}
    for shard in ids_BT.addressable_shards:
        first = shard.index[0].indices(len(ids_BT))[0]
        for place, row in enumerate(np.asarray(shard.data), first):
            rows[place] = hashlib.sha256(row.tobytes()).hexdigest()[:16]
    with open(folder / f"{jax.process_index()}-{os.getpid()}.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "rows": rows}) + "\n")


if __name__ == "__main__":
    with recording(pathlib.Path(sys.argv[1])):
        sys.exit(cli.main(sys.argv[2:]))
