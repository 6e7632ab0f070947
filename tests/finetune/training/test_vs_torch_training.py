"""Fine-tuning steps equal those of transformers' models with torch's AdamW, as in transformers.Trainer.

Same initial weights, batches and hyper-parameters, float32, no dropout: the losses of 50 steps agree to 1e-4. Here several
examples share a row; there each has a padded row of its own.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest
import quick
from invented_corpus import TOKENS, tiny_init_encoder

from electramed_jax.config.finetune import FinetuneOptimizerConfig
from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.data.dataset.sampler import EpochSampler
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.task.task import IGNORE, SPAN_HEAD, Examples, Head
from electramed_jax.finetune.training import batches
from electramed_jax.finetune.training.step import TrainSpec, jit_train_step
from electramed_jax.hf import card, finetuned
from electramed_jax.hf.format.mapping import SEQUENCE, SPAN, TOKEN
from electramed_jax.training import sharding

WANTED = "compares with transformers on torch: install electramed_jax[parity]"
torch = pytest.importorskip("torch", reason=WANTED)
transformers = pytest.importorskip("transformers", reason=WANTED)
pytestmark = [pytest.mark.slow, pytest.mark.oracle]

STEPS, EXAMPLES, BATCH, LENGTH = 50, 40, 6, 20
OPTIMIZER = FinetuneOptimizerConfig(
    learning_rate=2e-3, warmup_fraction=0.0, layerwise_lr_decay=1.0, bias_correction=True, weight_decay=0.05
)
HEADS = {
    "NER": (Head(TOKEN, ("O", "B-Drug", "I-Drug")), "ElectraForTokenClassification"),
    "classification": (Head(SEQUENCE, ("a", "b", "c")), "ElectraForSequenceClassification"),
    "QA": (SPAN_HEAD, "ElectraForQuestionAnswering"),
}


def make_examples(head: Head, special) -> Examples:
    """Random pairs of texts. The labels depend on the words, so that the loss falls.

    Those of QA have equal lengths: the loss of transformers also counts the positions of padding.
    """
    draw, ids, labels = np.random.default_rng(0), [], []
    for _ in range(EXAMPLES):
        n = LENGTH - 3 if head.kind == SPAN else int(draw.integers(4, LENGTH - 3))
        words = draw.integers(7, len(TOKENS), n)
        example = np.int32([special.cls, *words[: n // 2], special.sep, *words[n // 2 :], special.sep])
        if head.kind == TOKEN:
            label = np.where(example < 7, IGNORE, example % 3)
        else:
            label = np.sort(np.argsort(example)[-2:]) if head.kind == SPAN else example[1] % 3
        ids.append(example)
        labels.append(np.int32(label))
    return Examples(ids, labels)


def torch_batch(examples: Examples, rows: list[int], head: Head, special) -> dict:
    length = max(len(examples.input_ids[row]) for row in rows)
    ids = np.full((len(rows), length), special.pad, np.int64)
    tags = np.full((len(rows), length), IGNORE, np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(examples.input_ids[row])] = examples.input_ids[row]
        if head.kind == TOKEN:
            tags[place, : len(examples.input_ids[row])] = examples.labels[row]
    separators = np.cumsum(ids == special.sep, axis=1) - (ids == special.sep)
    arrays = {"input_ids": ids, "attention_mask": ids != special.pad, "token_type_ids": (separators == 1) & (ids > 0)}
    labels = np.int64([examples.labels[row] for row in rows]) if head.kind != TOKEN else tags
    if head.kind == SPAN:
        arrays |= {"start_positions": labels[:, 0], "end_positions": labels[:, 1]}
    else:
        arrays |= {"labels": labels}
    return {name: torch.tensor(np.int64(array)) for name, array in arrays.items()}


def torch_losses(folder: str, name: str, examples: Examples, sampler: EpochSampler, special) -> list[float]:
    """Returns the losses of the loop of transformers.Trainer: its decay groups, linear schedule and clip."""
    head, architecture = HEADS[name]
    network = getattr(transformers, architecture).from_pretrained(folder).train()
    decayed = {n for n, _ in network.named_parameters() if not n.endswith("bias") and "LayerNorm" not in n}
    groups = [
        {"params": [p for n, p in network.named_parameters() if (n in decayed) == decay], "weight_decay": rate}
        for decay, rate in ((True, OPTIMIZER.weight_decay), (False, 0.0))
    ]
    betas = (OPTIMIZER.beta1, OPTIMIZER.beta2)
    adamw = torch.optim.AdamW(groups, lr=OPTIMIZER.learning_rate, betas=betas, eps=OPTIMIZER.epsilon)
    schedule = transformers.get_linear_schedule_with_warmup(adamw, 0, STEPS)
    losses = []
    for step in range(STEPS):
        loss = network(**torch_batch(examples, sampler.rows(step).tolist(), head, special)).loss
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), OPTIMIZER.clip_norm)
        adamw.step()
        schedule.step()
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize("name", HEADS)
def test_the_losses_of_fifty_steps_are_those_of_torch(name, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "jit", quick.jit)
    head, _ = HEADS[name]
    encoder = tiny_init_encoder(dropout=0.0, max_positions=LENGTH)
    tokenizer = Tokenizer.from_tokens(TOKENS, True)
    special = tokenizer.special
    spec = TrainSpec(encoder.model, head, special, OPTIMIZER, STEPS)
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    examples = make_examples(head, special)
    sampler = EpochSampler(EXAMPLES, BATCH, seed=0)
    with jax.set_mesh(mesh):
        state = spec.init(jax.random.key(0))
        settings = {"kind": head.kind, "labels": head.labels, "loss": head.loss, "postprocess": {}}
        data = card.CardData("a test", {}, {}, {})
        params = sharding.to_host(state.params)
        finetuned.export_finetuned(str(tmp_path), params, encoder.model, tokenizer, card_data=data, **settings)
        step_fn = jit_train_step(spec, mesh)
        sizes = [int(batches.needed_rows(examples, sampler, STEPS, LENGTH).max())]
        losses = []
        for step in range(STEPS):
            batch = batches.collate(examples, sampler.rows(step).tolist(), head, sizes, LENGTH, special.pad)
            arrays = batches.to_devices(batch, sharding.batch_sharding(mesh))
            state, sums = step_fn(state, arrays, jax.random.key(0))
            losses.append(float(sums["loss_sum"] / sums["count"]))
    wanted = torch_losses(str(tmp_path), name, examples, sampler, special)
    np.testing.assert_allclose(losses, wanted, atol=1e-4, rtol=0)
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5]), "the losses are of a model that learns"
