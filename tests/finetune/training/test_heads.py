"""Heads and losses beyond those of transformers: CRF, poolings, class weights, R-Drop."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.finetune.task.task import IGNORE, SIGMOID, Head
from electramed_jax.finetune.training import crf, losses, pooling
from electramed_jax.hf.format.mapping import SEQUENCE, TOKEN
from electramed_jax.model import masking

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
DRUG, GENE = 5, 6


def test_the_loss_of_the_crf_is_that_of_trying_all_sequences():
    """Two examples share a row, and word pieces without a label lie between the labelled ones."""
    draw = np.random.default_rng(0)
    labels = np.array([[IGNORE, 1, IGNORE, 2, 0, IGNORE, IGNORE, 2, 1, IGNORE], [IGNORE, 0] + [IGNORE] * 8], np.int32)
    segments = np.array([[1] * 6 + [2] * 4, [1] * 3 + [0] * 7], np.int32)
    logits = draw.normal(size=(2, 10, 3)).astype(np.float32)
    transitions = draw.normal(size=(4, 3)).astype(np.float32)

    def loss_of(row: int, places: list[int]) -> float:
        def score(path):
            pairs = sum(transitions[a, b] for a, b in itertools.pairwise(path))
            return transitions[3, path[0]] + pairs + sum(logits[row, p, y] for p, y in zip(places, path, strict=True))

        every = [score(path) for path in itertools.product(range(3), repeat=len(places))]
        return np.logaddexp.reduce(every) - score(labels[row, places].tolist())

    wanted = loss_of(0, [1, 3, 4]) + loss_of(0, [7, 8]) + loss_of(1, [1])
    assert float(
        crf.negative_log_likelihood(*map(jnp.array, (logits, labels, segments, transitions)))
    ) == pytest.approx(wanted, rel=1e-5)
    head = Head(TOKEN, ("O", "B", "I"), crf=True)
    total, count = losses.task_loss(
        jnp.array(logits), {"labels": jnp.array(labels)}, jnp.array(segments), head, jnp.array(transitions)
    )
    assert float(total) == pytest.approx(wanted, rel=1e-5) and count == 6


@pytest.mark.oracle
def test_the_loss_of_the_crf_is_that_of_pytorch_crf():
    torch = pytest.importorskip("torch", reason="compares with torch: install electramed_jax[parity]")
    torchcrf = pytest.importorskip("torchcrf", reason="compares with pytorch-crf: install electramed_jax[parity]")
    draw = np.random.default_rng(1)
    logits, transitions = draw.normal(size=(3, 7, 4)).astype(np.float32), draw.normal(size=(5, 4)).astype(np.float32)
    labels = draw.integers(0, 4, (3, 7)).astype(np.int32)
    theirs = torchcrf.CRF(4, batch_first=True)
    with torch.no_grad():
        theirs.transitions.copy_(torch.tensor(transitions[:4]))
        theirs.start_transitions.copy_(torch.tensor(transitions[4]))
        theirs.end_transitions.zero_()
        wanted = -theirs(torch.tensor(logits), torch.tensor(labels).long(), reduction="sum")
    ours = crf.negative_log_likelihood(*map(jnp.array, (logits, labels, np.ones((3, 7), np.int32), transitions)))
    assert float(ours) == pytest.approx(float(wanted), rel=1e-5)


ROW = np.array([[2, 9, 10, DRUG, 11, GENE, 12, 3, 2, DRUG, 13, 3, 2, 14, 15, 3, 0]], np.int32)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("mentions", [[[3], [5]], [[9], [9]], [[], []]]),
        ("pieces", [[[1, 2], [4], [6]], [[], [], [10]], [[13, 14], [], []]]),
    ],
)
def test_a_pooling_reads_the_parts_around_the_placeholders_of_its_own_example(name, parts):
    """Compares three examples in a row: with two placeholders, with one, without any."""
    head = Head(SEQUENCE, ("a", "b"), pooling=name, markers=(DRUG, GENE))
    structure = masking.packed_segments(jnp.array(ROW), SPECIAL)
    hidden = np.random.default_rng(0).normal(size=(1, 17, 3)).astype(np.float32)
    pooled = np.asarray(pooling.pool(jnp.array(hidden), jnp.array(ROW), structure, head))
    assert pooled.shape[-1] == 3 * (1 + len(parts[0])), "the token itself and each part"
    for start, of_example in zip((0, 8, 12), parts, strict=True):
        means = [hidden[0, tokens].mean(axis=0) if tokens else np.zeros(3) for tokens in of_example]
        np.testing.assert_allclose(pooled[0, start], np.concatenate([hidden[0, start], *means]), atol=1e-6)


def test_class_weights_are_those_of_torchs_cross_entropy():
    torch = pytest.importorskip("torch", reason="compares with torch: install electramed_jax[parity]")
    draw = np.random.default_rng(0)
    head = Head(SEQUENCE, ("a", "b", "c"), class_weights=(0.5, 2.0, 7.0))
    logits, labels = draw.normal(size=(1, 6, 3)).astype(np.float32), draw.integers(0, 3, (1, 6)).astype(np.int32)
    labels[0, 2] = IGNORE
    total, count = losses.task_loss(jnp.array(logits), {"labels": jnp.array(labels)}, jnp.ones((1, 6), jnp.int32), head)
    wanted = torch.nn.functional.cross_entropy(
        torch.tensor(logits[0]), torch.tensor(labels[0]).long(), weight=torch.tensor(head.class_weights)
    )
    assert float(total / count) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("loss", ["softmax", SIGMOID])
def test_the_divergence_of_r_drop_is_the_mean_of_torchs_two(loss):
    torch = pytest.importorskip("torch", reason="compares with torch: install electramed_jax[parity]")
    p, q = np.random.default_rng(0).normal(size=(2, 1, 5, 3)).astype(np.float32)
    weights = np.array([[1, 0, 1, 1, 0]], np.float32)
    found = losses.divergence(jnp.array(p), jnp.array(q), jnp.array(weights), Head(SEQUENCE, ("a", "b", "c"), loss))
    a, b = torch.tensor(p), torch.tensor(q)
    if loss == SIGMOID:
        log = [torch.distributions.Bernoulli(logits=x) for x in (a, b)]
    else:
        log = [torch.distributions.Categorical(logits=x) for x in (a, b)]
    each = (torch.distributions.kl_divergence(*log) + torch.distributions.kl_divergence(*log[::-1])) / 2
    each = each.mean(dim=-1) if loss == SIGMOID else each
    assert float(found) == pytest.approx(float((each * torch.tensor(weights)).sum()), rel=1e-4)
