"""Times training steps and predictions of ours and of transformers on torch, alternating in one process.

    python tests/benchmarks/finetune_steps_vs_torch.py --corpus=NCBI-disease --vocab=vocab.txt --texts=abstracts.jsonl

Both train the encoder of a preset (`--size`) on entities: the same sentences, batches of 32, AdamW, dropout 0.1, and find
entities in the same texts in windows of 128 word pieces that overlap by half. Counted is everything from the word pieces
to the updated weights, and from the text to the tags. The peer uses SDPA, float32, pads each batch to its longest sentence
and sorts the windows by length. Compilation and start-up are not counted; `finetune_vs_torch.py` times whole processes.

Times are those of the processor, on one core, in alternating blocks of ours and theirs, so that other programs of the machine
disturb both little and alike. The table has medians of the ratios of neighbouring blocks, with their extremes.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import finetune_vs_torch
import jax
import numpy as np

from electramed_jax.config.finetune import FinetuneConfig, FinetuneOptimizerConfig, NerConfig, TaskConfig
from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.data.dataset.sampler import EpochSampler
from electramed_jax.finetune.init_from import load_init_encoder
from electramed_jax.finetune.make_task import make_task
from electramed_jax.finetune.postprocess_config import PostprocessConfig
from electramed_jax.finetune.predictor import LoadedModel, Predictor
from electramed_jax.finetune.task.task import IGNORE, TRAIN
from electramed_jax.finetune.training import batches
from electramed_jax.finetune.training.step import TrainSpec, jit_train_step
from electramed_jax.hf import card, finetuned
from electramed_jax.training import sharding

BATCH, LENGTH, STEPS = 32, 128, 8  # STEPS: of a block


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="folder with train, dev and test in CoNLL's form")
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--texts", required=True, help='JSON lines with "text"')
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--documents", type=int, default=40, help="of a block")
    parser.add_argument("--blocks", type=int, default=5)
    args = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    os.environ["OMP_NUM_THREADS"] = "1"
    config = FinetuneConfig(
        task=TaskConfig(data=args.corpus, max_seq_length=LENGTH), ner=NerConfig(), init="scratch",
        init_size_from=args.size, vocab=args.vocab,
    )  # fmt: skip
    task, encoder, _ = make_task(config, load_init_encoder(config))
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    total = STEPS * (args.blocks + 2)
    spec = TrainSpec(encoder.model, task.head, task.tokenizer.special, FinetuneOptimizerConfig(), total)
    lines = pathlib.Path(args.texts).read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines[: args.documents]]
    sampler = EpochSampler(len(task.examples(TRAIN)), BATCH, 0)
    with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as folder:
        state = spec.init(jax.random.key(0))
        params = sharding.to_host(state.params)
        finetuned.export_finetuned(
            folder, params, encoder.model, task.tokenizer, kind=task.head.kind, labels=task.head.labels,
            loss=task.head.loss, postprocess={}, card_data=card.CardData("a comparison", {}, {}, {}),
        )  # fmt: skip
        train_ours, train_theirs = our_steps(task, spec, mesh, sampler, state), their_steps(task, sampler, folder)
        compare("training steps", train_ours, train_theirs, STEPS, args.blocks, "steps")
    model = LoadedModel("", encoder.model, task.head, task.tokenizer, params, PostprocessConfig("ner", LENGTH))
    predictor = Predictor(model, BATCH)
    find_theirs = their_predictions(task.tokenizer.backend, texts, train_theirs.network)
    compare("predict", lambda: predictor.entities(texts), find_theirs, len(texts), args.blocks, "documents")


def compare(what: str, ours: Callable[[], Any], theirs: Callable[[], Any], count: int, blocks: int, unit: str) -> None:
    """Prints the speeds and the ratio of two functions that do `count` units each; the first call is not counted."""
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for block in range(-1, blocks):
        for name, function in (("ours", ours), ("theirs", theirs)):
            start = time.process_time()
            function()
            if block >= 0:
                times[name].append(time.process_time() - start)
        if block >= 0:
            print(
                f"{what}, block {block}: ours {times['ours'][-1]:.2f} s  theirs {times['theirs'][-1]:.2f} s", flush=True
            )
    ratios = sorted(b / a for a, b in zip(times["ours"], times["theirs"], strict=True))
    speeds = {name: count / statistics.median(seconds) for name, seconds in times.items()}
    print(
        f"{what:<15} ours {speeds['ours']:.2f} {unit}/s  theirs {speeds['theirs']:.2f} {unit}/s  ratio "
        f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]",
        flush=True,
    )


def our_steps(task: Any, spec: TrainSpec, mesh: Any, sampler: EpochSampler, state: Any) -> Callable[[], None]:
    examples, step_fn = task.examples(TRAIN), jit_train_step(spec, mesh)
    needed = batches.needed_rows(examples, sampler, 3 * len(examples) // BATCH, LENGTH)  # the sizes of three epochs
    sizes, place = batches.choose_sizes(needed, 1, "cpu"), sharding.batch_sharding(mesh)
    held = {"state": state, "step": 0}

    def step(rows: list[int], pick: tuple[int, ...]) -> None:
        batch = batches.collate(examples, rows, task.head, pick, LENGTH, spec.special.pad)
        held["state"], sums = step_fn(held["state"], batches.to_devices(batch, place), jax.random.key(0))
        jax.block_until_ready(sums)

    for size in sizes[:-1]:  # compiles the others
        step(sampler.rows(0).tolist()[:1], (size,))

    def run() -> None:
        for _ in range(STEPS):
            step(sampler.rows(held["step"]).tolist(), sizes)
            held["step"] += 1

    return run


def their_steps(task: Any, sampler: EpochSampler, folder: str) -> Any:
    import torch
    import transformers

    torch.set_num_threads(1)
    network = transformers.ElectraForTokenClassification.from_pretrained(folder, attn_implementation="sdpa").train()
    adamw = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    examples = task.examples(TRAIN)

    class Run:
        step = 0

        def __init__(self) -> None:
            self.network = network

        def __call__(self) -> None:
            network.train()
            for _ in range(STEPS):
                rows = sampler.rows(self.step).tolist()
                ids, labels = ([one[row] for row in rows] for one in (examples.input_ids, examples.labels))
                length = max(map(len, ids))
                padded = np.zeros((len(rows), length), np.int64)
                tags = np.full((len(rows), length), IGNORE, np.int64)
                for place, (own, label) in enumerate(zip(ids, labels, strict=True)):
                    padded[place, : len(own)], tags[place, : len(own)] = own, label
                mask = torch.tensor(padded != 0).long()
                network(torch.tensor(padded), attention_mask=mask, labels=torch.tensor(tags)).loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                adamw.step()
                adamw.zero_grad()
                self.step += 1

    return Run()


def their_predictions(backend: Any, texts: list[str], network: Any) -> Callable[[], int]:
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )

    def run() -> int:
        network.eval()
        return finetune_vs_torch.predict_windows(network, tokenizer, texts)[1]

    return run


if __name__ == "__main__":
    main()
