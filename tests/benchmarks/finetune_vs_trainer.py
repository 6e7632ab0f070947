"""Compares fine-tuning with transformers' Trainer: losses step by step, and dev scores over several seeds.

    pip install accelerate        # Trainer needs it, electramed_jax does not
    python tests/benchmarks/finetune_vs_trainer.py losses --data=../shared/data/eval --vocab=vocab.txt
    python tests/benchmarks/finetune_vs_trainer.py seeds --data=../shared/data/eval --vocab=vocab.txt

Both start from the same random weights of a narrow encoder and see the same examples in the same order, with AdamW, the
linear schedule and the clip of Trainer's defaults.

    losses   50 steps in float32 without dropout of entities (NCBI-disease), relations (ChemProt) and questions (BioASQ 7b,
             windows of full length, because the loss of transformers counts padding); the largest difference of a loss
    seeds    entities of a part of NCBI-disease with dropout 0.1, five seeds of weights, order and dropout; mean of dev's
             F1 with its 95 % interval (Student's t), ours and theirs
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import tempfile
from typing import Any, ClassVar

import jax
import numpy as np

from electramed_jax.config.finetune import FinetuneConfig, FinetuneOptimizerConfig, NerConfig, TaskConfig
from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.data.dataset.sampler import EpochSampler
from electramed_jax.finetune.init_from import load_init_encoder
from electramed_jax.finetune.make_task import make_task
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.task import DEV, IGNORE, TRAIN, Examples, Task
from electramed_jax.finetune.training import batches
from electramed_jax.finetune.training.predict_logits import predict_logits
from electramed_jax.finetune.training.step import TrainSpec, jit_predict_step, jit_train_step
from electramed_jax.hf import card, finetuned
from electramed_jax.hf.format import config_json
from electramed_jax.hf.format.mapping import SPAN, TOKEN
from electramed_jax.training import sharding

BATCH, LENGTH, STEPS = 16, 128, 50
SEEDS, EPOCHS, SENTENCES = 5, 5, 800
T_95 = 2.776  # Student's t for 4 degrees of freedom
OPTIMIZER = FinetuneOptimizerConfig(
    learning_rate=5e-4, warmup_fraction=0.0, layerwise_lr_decay=1.0, bias_correction=True, weight_decay=0.01
)
FILES = {
    "entities": TaskConfig(kind="ner", data="ner/NCBI-disease/electramed", max_seq_length=LENGTH),
    "relations": TaskConfig(
        kind="relations", train="re/ChemProt/rebuilt/train.csv", dev="re/ChemProt/electramed/dev.csv",
        max_seq_length=LENGTH,
    ),
    "questions": TaskConfig(
        kind="qa", train="qa/BioASQ-7b/rebuilt/BioASQ-train-factoid-7b-snippet.json", dev_fraction=0.1, max_seq_length=LENGTH
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """A task with its encoder, and the order of its examples."""

    task: Task
    encoder: InitEncoder
    examples: Examples
    spec: TrainSpec
    mesh: jax.sharding.Mesh

    def sampler(self, seed: int) -> EpochSampler:
        return EpochSampler(len(self.examples), BATCH, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("losses", "seeds"))
    parser.add_argument("--data", required=True, help="folder with ner/, re/ and qa/")
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    args = parser.parse_args()
    compare_losses(args) if args.what == "losses" else compare_seeds(args)


def make_case(name: str, args: argparse.Namespace, *, dropout: float, steps: int, limit: int | None = None) -> Case:
    """Returns the case of a task; `limit`: the first examples alone."""
    root = pathlib.Path(args.data)
    paths = {
        field: str(root / value)
        for field in ("data", "train", "dev")
        if (value := getattr(FILES[name], field)) and (root / value).exists()
    }
    config = FinetuneConfig(
        task=dataclasses.replace(FILES[name], **paths), ner=NerConfig(words="file"), init="scratch",
        init_size_from="tiny", vocab=args.vocab, dropout=dropout, attention_dropout=dropout,
    )  # fmt: skip
    task, encoder, _ = make_task(config, load_init_encoder(config))
    examples = task.examples(TRAIN)
    kept = [row for row, ids in enumerate(examples.input_ids) if task.head.kind != SPAN or len(ids) == LENGTH][:limit]
    examples = Examples([examples.input_ids[row] for row in kept], [examples.labels[row] for row in kept])
    spec = TrainSpec(encoder.model, task.head, task.tokenizer.special, OPTIMIZER, steps)
    return Case(task, encoder, examples, spec, sharding.make_mesh(MeshConfig(), jax.devices()[:1]))


def train_ours(case: Case, seed: int, folder: str) -> tuple[list[float], Any]:
    """Writes the initial weights to the folder and trains; returns the losses and the logits of dev."""
    sampler, special, steps = case.sampler(seed), case.spec.special, case.spec.total_steps
    with jax.set_mesh(case.mesh):
        state = case.spec.init(jax.random.key(seed))
        finetuned.export_finetuned(
            folder, sharding.to_host(state.params), case.encoder.model, case.task.tokenizer, kind=case.task.head.kind,
            labels=case.task.head.labels, loss=case.task.head.loss, postprocess={},
            card_data=card.CardData("a comparison", {}, {}, {}),
        )  # fmt: skip
        needed = batches.needed_rows(case.examples, sampler, steps, LENGTH)
        sizes, step_fn, losses = [int(needed.max())], jit_train_step(case.spec, case.mesh), []
        for step in range(steps):
            rows = sampler.rows(step).tolist()
            batch = batches.collate(case.examples, rows, case.task.head, sizes, LENGTH, special.pad)
            arrays = batches.to_devices(batch, sharding.batch_sharding(case.mesh))
            state, sums = step_fn(state, arrays, jax.random.key(seed))
            losses.append(float(sums["loss_sum"] / sums["count"]))
        logits = predict_logits(
            jit_predict_step(case.spec, case.mesh), state.params, case.task.examples(DEV), case.spec, case.mesh,
            rows=BATCH, row_length=LENGTH,
        )  # fmt: skip
    return losses, logits


def train_theirs(case: Case, seed: int, folder: str) -> tuple[list[float], Any]:
    """Trains the weights in the folder with Trainer; returns the losses and the logits of dev."""
    import torch
    import transformers

    special, head = case.spec.special, case.task.head
    order = [row for step in range(case.spec.total_steps) for row in case.sampler(seed).rows(step).tolist()]

    def collate(rows: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
        length = max(len(ids) for ids, _ in rows)
        ids = np.full((len(rows), length), special.pad, np.int64)
        tags = np.full((len(rows), length), IGNORE, np.int64)
        for place, (own, label) in enumerate(rows):
            ids[place, : len(own)] = own
            if head.kind == TOKEN:
                tags[place, : len(own)] = label
        before = np.cumsum(ids == special.sep, axis=1) - (ids == special.sep)
        mask = ids != special.pad
        arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": (before == 1) & mask}
        labels = tags if head.kind == TOKEN else np.array([label for _, label in rows], np.int64)
        if head.kind == SPAN:
            arrays |= {"start_positions": labels[:, 0], "end_positions": labels[:, 1]}
        else:
            arrays |= {"labels": labels}
        return {name: torch.tensor(np.asarray(array, np.int64)) for name, array in arrays.items()}

    class InOrder(transformers.Trainer):
        """Trainer that sees the examples in the given order and keeps each loss."""

        losses: ClassVar[list[float]] = []

        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **options: Any) -> Any:
            found = super().compute_loss(model, inputs, return_outputs=return_outputs, **options)
            if model.training:
                self.losses.append(float((found[0] if return_outputs else found).detach()))
            return found

    network = getattr(transformers, config_json.CLASSES[head.kind]).from_pretrained(folder)
    network.config.hidden_dropout_prob = case.encoder.model.dropout
    arguments = transformers.TrainingArguments(
        output_dir=folder + "/trainer", per_device_train_batch_size=BATCH, per_device_eval_batch_size=BATCH,
        num_train_epochs=1, learning_rate=OPTIMIZER.learning_rate, weight_decay=OPTIMIZER.weight_decay,
        adam_beta1=OPTIMIZER.beta1, adam_beta2=OPTIMIZER.beta2, adam_epsilon=OPTIMIZER.epsilon,
        max_grad_norm=OPTIMIZER.clip_norm, warmup_steps=0, lr_scheduler_type="linear", optim="adamw_torch",
        save_strategy="no", report_to="none", logging_strategy="no", disable_tqdm=True, use_cpu=True, seed=seed,
        dataloader_drop_last=True, remove_unused_columns=False,
    )  # fmt: skip
    dataset = [(case.examples.input_ids[row], case.examples.labels[row]) for row in order]
    trainer = InOrder(network, arguments, data_collator=collate, train_dataset=dataset)
    InOrder.losses = []
    trainer.train()
    network.eval()
    dev, logits = case.task.examples(DEV), []
    if head.kind == TOKEN:
        for begin in range(0, len(dev), BATCH):
            part = [(ids, np.full(len(ids), IGNORE)) for ids in dev.input_ids[begin : begin + BATCH]]
            with torch.inference_mode():
                found = network(**collate(part)).logits.numpy()
            logits += [row[: len(ids)] for row, (ids, _) in zip(found, part, strict=True)]
    return InOrder.losses, logits


def compare_losses(args: argparse.Namespace) -> None:
    for name in FILES:
        case = make_case(name, args, dropout=0.0, steps=STEPS)
        with tempfile.TemporaryDirectory() as folder:
            ours, _ = train_ours(case, 0, folder)
            theirs, _ = train_theirs(case, 0, folder)
        assert len(theirs) == STEPS, len(theirs)
        difference = np.abs(np.subtract(ours, theirs))
        print(
            f"{name:<10} {len(case.examples):,} examples; loss {theirs[0]:.4f} to {theirs[-1]:.4f}; largest difference "
            f"of {STEPS} steps {difference.max():.1e} (step {1 + difference.argmax()})",
            flush=True,
        )


def compare_seeds(args: argparse.Namespace) -> None:
    steps = EPOCHS * SENTENCES // BATCH
    case = make_case("entities", args, dropout=0.1, steps=steps, limit=SENTENCES)
    scores: dict[str, list[float]] = {"ours": [], "Trainer": []}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            for name, train in (("ours", train_ours), ("Trainer", train_theirs)):
                losses, logits = train(case, seed, folder)
                scores[name].append(case.task.score(DEV, logits)["f1"])
                print(
                    f"seed {seed} {name:<8} last losses {np.mean(losses[-20:]):.4f}  dev F1 {scores[name][-1]:.2f}",
                    flush=True,
                )
    if len(args.seeds) != SEEDS:
        return
    for name, values in scores.items():
        half = T_95 * np.std(values, ddof=1) / np.sqrt(SEEDS)
        print(f"{name:<8} {np.mean(values):.2f} [{np.mean(values) - half:.2f}, {np.mean(values) + half:.2f}]")
    differences = np.subtract(scores["ours"], scores["Trainer"])
    half = T_95 * np.std(differences, ddof=1) / np.sqrt(SEEDS)
    print(f"ours - Trainer by seed: {np.mean(differences):+.2f} ± {half:.2f}")


if __name__ == "__main__":
    main()
