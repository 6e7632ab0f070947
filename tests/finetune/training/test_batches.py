"""Packing changes the cost of a batch and none of its numbers."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import quick
from invented_corpus import tiny_init_encoder

from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.dataset.sampler import EpochSampler
from electramed_jax.finetune.task.task import IGNORE, SIGMOID, SOFTMAX, SQUARED, Examples, Head
from electramed_jax.finetune.training import batches, losses, model
from electramed_jax.hf.format.mapping import SEQUENCE, SPAN, TOKEN
from electramed_jax.model import masking

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
HEADS = {
    "tags": Head(TOKEN, ("O", "B", "I")),
    "class": Head(SEQUENCE, ("a", "b", "c"), SOFTMAX),
    "label set": Head(SEQUENCE, ("a", "b", "c"), SIGMOID),
    "number": Head(SEQUENCE, ("score",), SQUARED),
    "answer": Head(SPAN, ("start", "end")),
}


def examples(head: Head, count: int = 9, longest: int = 14, seed: int = 0) -> Examples:
    draw = np.random.default_rng(seed)
    ids, labels = [], []
    for number in range(count):
        words = draw.integers(5, 25, draw.integers(1, longest - 3))
        middle = [SPECIAL.sep] if number % 2 and len(words) > 1 else []  # a pair
        example = [SPECIAL.cls, *words[: len(words) // 2], *middle, *words[len(words) // 2 :], SPECIAL.sep]
        ids.append(np.array(example, np.int32))
        n = len(example)
        if head.kind == TOKEN:
            labels.append(np.where(draw.random(n) < 0.5, IGNORE, draw.integers(0, 3, n)).astype(np.int32))
        elif head.kind == SPAN:
            labels.append(np.sort(draw.integers(0, n, 2)).astype(np.int32))
        elif head.loss == SOFTMAX:
            labels.append(np.int32(draw.integers(0, 3)))
        else:
            labels.append(draw.random(head.size).astype(np.float32).round(head.loss == SQUARED))
    return Examples(ids, labels)


def test_packed_examples_fit_and_overlap_nowhere():
    draw = np.random.default_rng(0)
    for _ in range(200):
        lengths = draw.integers(1, 33, draw.integers(1, 60)).tolist()
        placed = batches.pack(lengths, 32)
        taken = np.zeros((1 + max(row for row, _ in placed), 32), int)
        for length, (row, at) in zip(lengths, placed, strict=True):
            taken[row, at : at + length] += 1
        assert taken.max() == 1 and taken.any(axis=1).all()
        assert (
            len(taken) <= np.ceil(11 / 9 * sum(lengths) / 32 + 6 / 9) + 8
        )  # best-fit decreasing: 11/9 of the optimum; 8 rows of slack


def test_the_fullest_batch_of_a_run_fits_the_rows():
    held = examples(HEADS["tags"], 40)
    plan = EpochSampler(40, 8, seed=3)
    needed = batches.needed_rows(held, plan, 25, 16)
    rows = int(needed.max())
    used = []
    for step in range(25):
        batch = batches.collate(held, plan.rows(step).tolist(), HEADS["tags"], [rows], 16, SPECIAL.pad)
        assert len(batch.placements) == 8
        used.append(int((batch.input_ids != SPECIAL.pad).any(axis=1).sum()))
    assert used == needed.tolist()


def test_a_batch_has_the_smallest_size_that_it_fits_in_if_this_saves_enough():
    few, many = np.array([8] * 30 + [11]), np.array([8] * 900 + [9] * 450 + [7] * 300 + [11])
    assert batches.choose_sizes(few, 1, "gpu") == (11,), "30 steps are not worth another compilation"
    assert batches.choose_sizes(many, 1, "gpu") == (11, 8) == batches.choose_sizes(many[::-1], 1, "gpu")
    assert batches.choose_sizes(np.tile(many, 20), 1, "gpu") == (11, 9, 8, 7)
    assert batches.choose_sizes(many, 4, "gpu") == (12, 8), "rows are divided into four parts"
    assert batches.choose_sizes(np.tile(few, 3), 1, "gpu") == (11,)
    assert batches.choose_sizes(np.tile(few, 3), 1, "cpu") == (11, 8), "a CPU compiles in the time of few steps"
    held = examples(HEADS["tags"])
    assert len(batches.collate(held, range(9), HEADS["tags"], (9, 7, 5), 24, SPECIAL.pad).input_ids) == 5


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """Results of a batch: logits by example, mean loss, its denominator, and the gradients of all parameters."""

    own_logits: dict[int, np.ndarray]
    loss: float
    count: float
    gradients: dict


@pytest.fixture(scope="module", params=HEADS)
def results(request) -> tuple[Head, Examples, Result, Result]:
    """Of the same examples, packed and each in a row of its own."""
    head, config = HEADS[request.param], tiny_init_encoder(dropout=0.0, num_layers=1).model
    held = examples(head)

    def loss(params, ids, labels):
        structure = masking.packed_segments(ids, SPECIAL)
        logits = model.merge_params(config, head, params).logits(ids, structure)
        total, count = losses.task_loss(logits, {"labels": labels}, structure.segments_BT, head)
        return total / count, (logits, count)

    @quick.jit
    def compute(ids, labels):
        params = model.init_params(config, head, jax.random.key(0))
        return jax.value_and_grad(loss, has_aux=True)(params, ids, labels)

    def result(batch: batches.Batch) -> Result:
        (value, (logits, count)), gradients = compute(batch.input_ids, batch.labels)
        own = dict(batches.unpack_logits(np.asarray(logits), batch, held, head))
        return Result(own, float(value), float(count), gradients)

    packed = batches.collate(held, range(len(held)), head, [len(held)], 24, SPECIAL.pad)
    assert (packed.input_ids != SPECIAL.pad).any(axis=1).sum() < len(held), "nothing was packed"
    alone = [batches.Placement(number, number, 0) for number in range(len(held))]
    apart = batches.place_examples(held, alone, head, len(held), 24, SPECIAL.pad)
    return head, held, result(packed), result(apart)


@pytest.mark.slow
def test_packed_examples_have_the_logits_loss_and_gradients_they_have_alone(results):
    head, held, packed, apart = results
    assert packed.loss == pytest.approx(apart.loss, rel=1e-5) and packed.count == apart.count > 0
    for number, ids in enumerate(held.input_ids):
        np.testing.assert_allclose(packed.own_logits[number], apart.own_logits[number], atol=2e-5)
        shape = (head.size,) if head.kind == SEQUENCE else (len(ids), head.size)
        assert packed.own_logits[number].shape == shape
    for one, other in zip(jax.tree.leaves(packed.gradients), jax.tree.leaves(apart.gradients), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.slow
def test_the_loss_is_torchs(results):
    torch = pytest.importorskip("torch", reason="compares with torch: install electramed_jax[parity]")
    head, held, packed, _ = results
    each = [torch.tensor(packed.own_logits[number]) for number in range(len(held))]
    labels = [torch.tensor(np.asarray(label)) for label in held.labels]
    functional = torch.nn.functional
    if head.kind == TOKEN:
        wanted = functional.cross_entropy(torch.cat(each), torch.cat(labels).long(), ignore_index=IGNORE)
    elif head.kind == SPAN:
        one = [functional.cross_entropy(a.T, b.long()) for a, b in zip(each, labels, strict=True)]
        wanted = torch.stack(one).mean()
    elif head.loss == SOFTMAX:
        wanted = functional.cross_entropy(torch.stack(each), torch.stack(labels).long())
    elif head.loss == SIGMOID:
        wanted = functional.binary_cross_entropy_with_logits(torch.stack(each), torch.stack(labels))
    else:
        wanted = functional.mse_loss(torch.stack(each), torch.stack(labels))
    assert packed.loss == pytest.approx(float(wanted), rel=1e-5)


def test_every_example_is_in_one_eval_batch():
    held = examples(HEADS["tags"], 57)
    seen = [
        place.example
        for batch in batches.eval_batches(held, HEADS["tags"], 4, 16, SPECIAL.pad)
        for place in batch.placements
    ]
    assert sorted(seen) == list(range(57))
