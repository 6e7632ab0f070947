"""Runs `electramed` with a loader that hangs: `python hung_loader.py PROCESS STEP pretrain ...`.

In process PROCESS the batch of step STEP never arrives, as after the loss of a network file system.
"""

from __future__ import annotations

import sys
import threading

import jax

from electramed_jax import cli
from electramed_jax.data.dataset import loader


def main(process: str, step: str, *arguments: str) -> int:
    load = loader.Loader._read

    def read(self: loader.Loader, index: int) -> loader.Batch:
        if (jax.process_index(), index + 1) == (int(process), int(step)):
            threading.Event().wait()
        return load(self, index)

    loader.Loader._read = read
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
