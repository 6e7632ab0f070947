"""Evaluation is deterministic, independent of the mesh, and ignores padding.

The same batches give bit-identical metrics. Another batch size gives other metrics: the masks of a batch depend on its
index and shape.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax
import numpy as np
import pytest
import small

from electramed_jax.config.pretrain import Config, MeshConfig
from electramed_jax.data.dataset.dataset import open_dataset
from electramed_jax.data.dataset.loader import ordered_batches
from electramed_jax.pretrain import evaluate
from electramed_jax.pretrain.state import abstract_state
from electramed_jax.pretrain.step import eval_step, jit_eval_step
from electramed_jax.training import sharding

pytestmark = pytest.mark.slow

BATCHES = 3


class Evaluation:
    """Parameters, batches and the eval step on one mesh; the parameters make attention depend on the context."""

    def __init__(self, config: Config, mesh_config: MeshConfig):
        self.config, self.mesh = config, sharding.make_mesh(mesh_config)
        self.rows = sharding.batch_sharding(self.mesh)
        where = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, self.mesh).params)
        self.params = jax.device_put(small.noisy_params(config), where)
        self.eval_step = jit_eval_step(config, self.mesh)

    def batches(self, count: int | None = BATCHES):
        data = self.config.data.directory
        return ordered_batches(open_dataset(data), "validation", self.config.batch_size, self.rows, count)

    def metrics(self, batches) -> dict[str, float]:
        with jax.set_mesh(self.mesh):
            return evaluate.evaluate(self.params, batches, self.eval_step, self.config)


@pytest.fixture(scope="module")
def evaluation(run_config, quick_compilation) -> Evaluation:
    return Evaluation(run_config, MeshConfig(8, 1, 1))


@pytest.fixture(scope="module")
def metrics(evaluation) -> dict[str, float]:
    return evaluation.metrics(evaluation.batches())


def test_two_evaluations_of_the_same_parameters_are_bit_identical(evaluation, metrics):
    assert evaluation.metrics(evaluation.batches()) == metrics
    assert 0.1 < metrics["discriminator_auc"] < 0.9, "the parameters are random"


def test_evaluation_does_not_use_dropout(evaluation):
    config = evaluation.config
    without = dataclasses.replace(config.model, dropout=0.0, attention_dropout=0.0)
    batch = next(evaluation.batches())

    def program(config: Config) -> str:
        return str(jax.make_jaxpr(eval_step(config))(evaluation.params, batch, np.int32(0)))

    assert config.model.dropout > 0
    assert program(config) == program(dataclasses.replace(config, model=without))


def test_metrics_do_not_depend_on_the_mesh(run_config, metrics, quick_compilation):
    """Within 1e-5: the order of the float32 sums differs."""
    other = Evaluation(run_config, MeshConfig(2, 2, 2))
    ours = other.metrics(other.batches())
    assert ours.keys() == metrics.keys()
    for name, value in metrics.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-5, atol=1e-7, err_msg=name)


def test_rows_of_padding_change_no_metric(evaluation, metrics):
    pad = evaluation.config.data.special.pad
    shape = (evaluation.config.batch_size, evaluation.config.data.max_seq_length)
    filler = {"input_ids": jax.device_put(np.full(shape, pad, np.int32), evaluation.rows)}
    padded = evaluation.metrics(itertools.chain(evaluation.batches(), [filler, filler]))
    assert padded == metrics


def test_every_token_has_the_same_weight_in_any_batch(evaluation, metrics):
    """A mean over the means of the batches would overweight the tokens of a batch with more padding."""
    batches = list(evaluation.batches())
    half_empty = np.asarray(batches[-1]["input_ids"]).copy()
    half_empty[1:] = evaluation.config.data.special.pad
    batches[-1] = {"input_ids": jax.device_put(half_empty, evaluation.rows)}
    with jax.set_mesh(evaluation.mesh):
        sums = [
            jax.device_get(evaluation.eval_step(evaluation.params, batch, np.int32(index)))
            for index, batch in enumerate(batches)
        ]
    tokens = np.array([s["token_count"] for s in sums])
    losses = np.array([s["discriminator_nll_sum"] for s in sums]) / tokens
    weighted, unweighted = float(np.average(losses, weights=tokens)), float(losses.mean())
    assert abs(weighted - unweighted) > 1e-4
    assert evaluation.metrics(batches)["discriminator_loss"] == pytest.approx(weighted, rel=1e-6)
