"""Prints the share of padding in the batches of fine-tuning: of training, and of dev as it is scored.

    python tests/benchmarks/finetune_padding.py --data=../shared/data/eval --vocab=vocab.txt

For comparison: one example in each row, padded to the longest of its batch (transformers' data collators).
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib

import numpy as np

from electramed_jax.config.finetune import FinetuneConfig, TaskConfig
from electramed_jax.data.dataset.sampler import EpochSampler
from electramed_jax.finetune.init_from import load_init_encoder
from electramed_jax.finetune.make_task import make_task
from electramed_jax.finetune.task.task import DEV, TRAIN
from electramed_jax.finetune.training import batches

BATCH, EPOCHS = 32, 3
TASKS = {
    "NCBI-disease": TaskConfig(kind="ner", data="ner/NCBI-disease/electramed", max_seq_length=128),
    "BC5CDR": TaskConfig(kind="ner", data="ner/BC5CDR/electramed", max_seq_length=128),
    "ChemProt": TaskConfig(
        kind="relations", train="re/ChemProt/rebuilt/train.csv", dev="re/ChemProt/electramed/dev.csv",
        max_seq_length=128,
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with ner/ and re/")
    parser.add_argument("--vocab", required=True)
    args = parser.parse_args()
    root = pathlib.Path(args.data)
    for name, given in TASKS.items():
        paths = {field: str(root / path) for field in ("data", "train", "dev") if (path := getattr(given, field))}
        config = FinetuneConfig(
            task=dataclasses.replace(given, **paths), init="scratch", init_size_from="tiny", vocab=args.vocab
        )
        task, _, _ = make_task(config, load_init_encoder(config))
        examples = task.examples(TRAIN)
        lengths = np.array([len(ids) for ids in examples.input_ids])
        sampler, steps = EpochSampler(len(examples), BATCH, 0), EPOCHS * len(examples) // BATCH
        needed = batches.needed_rows(examples, sampler, steps, task.max_length)
        sizes = np.sort(batches.choose_sizes(needed, 1, "cpu"))
        rows = sizes[np.searchsorted(sizes, needed)].sum()
        tokens = sum(lengths[sampler.rows(step)].sum() for step in range(steps))
        theirs = sum(BATCH * lengths[sampler.rows(step)].max() for step in range(steps))
        dev = [len(ids) for ids in task.examples(DEV).input_ids]
        dev_rows = 1 + max(row for row, _ in batches.pack(dev, task.max_length))
        dev_rows = -(-dev_rows // sizes[-1]) * sizes[-1]
        print(
            f"{name:<13} training {1 - tokens / (rows * task.max_length):.1%} padding in rows of {task.max_length} "
            f"({', '.join(map(str, sizes))} rows a batch), dev {1 - sum(dev) / (dev_rows * task.max_length):.1%}; "
            f"padded to the longest of a batch: {1 - tokens / theirs:.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
