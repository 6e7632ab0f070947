"""The operations counted from the sizes equal those of the traced program."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import small

from electramed_jax.config.pretrain import ObjectiveConfig
from electramed_jax.model import flops
from electramed_jax.pretrain.state import init_params

LENGTH, BATCH = 64, 4

SIZES = dict(
    vocab_size=256,  # a multiple of 128, because the count excludes padded entries and the program includes them
    embedding_size=32,
    hidden_size=128,
    num_heads=2,
    intermediate_size=512,
    generator_hidden_size=48,
    generator_intermediate_size=200,
)
VARIANTS = {
    "electra": {},
    "one width": dict(embedding_size=128),
    "untied": dict(tying="none"),
    "everything tied": dict(tying="all"),
    "uniform": dict(objective=ObjectiveConfig(kind="uniform")),
    "mlm": dict(tying="all", objective=ObjectiveConfig(kind="mlm")),
    "a quarter masked": dict(objective=ObjectiveConfig(mask_probability=0.25)),
}


def _config(**settings):
    return dataclasses.replace(small.config(LENGTH, **SIZES | settings), batch_size=BATCH)


def _loss(config):
    def loss(params):
        return small.loss_and_sums(config, params, np.ones((BATCH, LENGTH), np.int32))[0]

    return loss


def _matmul_operations(jaxpr) -> int:
    """Counts two operations per multiply-add of every matrix product in a jaxpr, the body of a scan once per iteration."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            outputs = np.prod(equation.outvars[0].aval.shape, dtype=np.int64)
            total += 2 * int(outputs * np.prod([left[axis] for axis in contracted], dtype=np.int64))
        trip_count = equation.params["length"] if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += trip_count * _matmul_operations(inner)
    return total


@pytest.mark.slow
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_forward_and_backward_passes_have_the_counted_matrix_products(variant):
    config = _config(**VARIANTS[variant])
    params = jax.eval_shape(lambda: init_params(config))
    counted = flops.train_step_flops(config)
    assert _matmul_operations(jax.make_jaxpr(_loss(config))(params).jaxpr) * 3 == counted
    assert _matmul_operations(jax.make_jaxpr(jax.grad(_loss(config)))(params).jaxpr) == counted


def test_the_count_of_the_compiler_is_slightly_higher():
    """XLA includes elementwise operations. One layer, because XLA counts the body of a loop once."""
    wide = dict(hidden_size=512, intermediate_size=2048, num_layers=1, generator_num_layers=1)
    config = _config(**wide)
    params = jax.eval_shape(lambda: init_params(config))
    forward = jax.jit(_loss(config)).lower(params).cost_analysis()["flops"]
    assert 1.0 < forward / (flops.train_step_flops(config) / 3) < 1.05


def test_peak_flops_of_a_known_and_of_an_unknown_chip():
    assert flops.peak_flops("TPU v4") == 275e12
    assert flops.peak_flops("cpu") is None
