"""Bytes of the collectives in a compiled step, and random numbers that do not depend on the mesh."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick
import small
from jax.sharding import AxisType

from electramed_jax.aot import cost_model
from electramed_jax.common import tree_rules
from electramed_jax.config.pretrain import Config, MeshConfig
from electramed_jax.model import masking
from electramed_jax.model.kernels import residual_norm
from electramed_jax.model.ops import dropout_bits
from electramed_jax.pretrain.state import abstract_state
from electramed_jax.pretrain.step import jit_train_step
from electramed_jax.training import sharding
from electramed_jax.training.collectives import ROWS, FsdpCollectives

pytestmark = pytest.mark.slow

LENGTH, BATCH = 16, 32
SUMS = 50 * 4  # bytes of metric sums and of each leaf's part of the gradient norm, float32


def config_of(mesh: tuple[int, int, int], **model: object) -> Config:
    sizes = dict(embedding_size=16, generator_hidden_size=16) | model
    return dataclasses.replace(small.config(LENGTH, **sizes), batch_size=BATCH, mesh=MeshConfig(*mesh))


def compiled_step(config: Config) -> jax.stages.Compiled:
    mesh = sharding.make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        batch = {"input_ids": jax.ShapeDtypeStruct((BATCH, LENGTH), np.int32)}
        return jit_train_step(config, mesh).lower(abstract_state(config, mesh), batch).compile()


def collective_bytes(
    mesh: tuple[int, int, int], scan_layers: bool, gradient_accumulation_steps: int = 1
) -> dict[str, int]:
    """Returns the bytes of a compiled step by kind of collective."""
    config = config_of(mesh, scan_layers=scan_layers, dropout=0.1, attention_dropout=0.1)
    compiled = compiled_step(dataclasses.replace(config, gradient_accumulation_steps=gradient_accumulation_steps))
    return {kind: one.bytes for kind, one in cost_model.analyze(compiled.as_text()).collectives.items()}


def parameter_bytes(mesh: tuple[int, int, int]) -> tuple[int, int]:
    """Returns the float32 bytes of the parameters that fsdp splits, and of the others."""
    config = config_of(mesh)
    params = abstract_state(config, sharding.make_mesh(config.mesh)).params
    leaves = list(tree_rules.named_leaves(params).values())
    split = sum(leaf.size * 4 for leaf in leaves if "fsdp" in leaf.sharding.spec and mesh[1] > 1)
    return split, sum(leaf.size * 4 for leaf in leaves) - split


FORMS = pytest.mark.parametrize(("scan_layers", "gradient_accumulation_steps"), [(True, 1), (False, 1), (True, 4)])


@FORMS
def test_data_parallelism_all_reduces_the_gradients_and_nothing_else(
    scan_layers, gradient_accumulation_steps, quick_compilation
):
    _, gradients = parameter_bytes((8, 1, 1))
    found = collective_bytes((8, 1, 1), scan_layers, gradient_accumulation_steps)
    assert found.keys() == {"all-reduce"}
    assert gradients < found["all-reduce"] <= gradients + SUMS


@FORMS
def test_fsdp_all_gathers_each_parameter_and_reduce_scatters_each_gradient_once(
    scan_layers, gradient_accumulation_steps, quick_compilation
):
    split, whole = parameter_bytes((1, 8, 1))
    found = collective_bytes((1, 8, 1), scan_layers, gradient_accumulation_steps)
    assert found.keys() == {"all-gather", "reduce-scatter", "all-reduce"}
    assert found["all-gather"] == found["reduce-scatter"] == split > 10 * whole
    assert whole < found["all-reduce"] <= whole + SUMS


def test_with_fsdp_the_data_axis_all_reduces_only_the_shards(quick_compilation):
    split, whole = parameter_bytes((2, 4, 1))
    found = collective_bytes((2, 4, 1), False)
    assert found["all-gather"] == found["reduce-scatter"] == split
    assert split / 4 + whole < found["all-reduce"] <= split / 4 + whole + SUMS


def test_16_bit_products_compile_with_tensor_parallelism(quick_compilation):
    """XLA:CPU would abort the process at 16-bit sums."""
    compiled_step(config_of((2, 2, 2), compute_dtype="bfloat16"))


# ---- random numbers do not depend on the mesh -----------------------------------------------------------


def on_every_mesh(call):
    """Yields `call(row indices)` of 8 rows on several meshes, and without a mesh."""
    numbers, model = jnp.arange(8, dtype=jnp.int32), small.config().model
    for shape in [(8, 1, 1), (1, 8, 1), (2, 2, 2)]:
        with jax.set_mesh(jax.make_mesh(shape, sharding.MESH_AXES, (AxisType.Auto,) * 3)):
            collectives = FsdpCollectives({}, model)
            yield quick.jit(
                lambda rows, collectives=collectives: collectives.shard_map(lambda _, x: call(x), ROWS, {}, rows)
            )(numbers)
    yield call(numbers)


def assert_all_equal(results) -> None:
    first, *others = map(np.asarray, results)
    assert len(np.unique(first, axis=0)) == 8, "each row has its own numbers"
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_masks_and_samples_are_equal_on_every_mesh():
    assert_all_equal(on_every_mesh(lambda rows: masking.uniform_per_row(jax.random.key(0), (len(rows), 5))))


def test_dropout_is_equal_on_every_mesh():
    def keep(rows: jax.Array) -> jax.Array:
        return dropout_bits.dropout_mask(
            dropout_bits.dropout_seeds(jax.random.key(0), rows.shape), (len(rows), 16, 8), 0.5
        )

    assert_all_equal(on_every_mesh(keep))


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_dropout_of_the_kernels_is_equal_on_every_mesh(platform):
    x_BTD = np.random.default_rng(0).normal(size=(8, 64, 128)).astype(np.float32)
    zeros, ones = jnp.zeros(128), jnp.ones(128)

    def kernel(rows: jax.Array) -> jax.Array:
        seeds = dropout_bits.dropout_seeds(jax.random.key(1), rows.shape)
        x = jnp.asarray(x_BTD)[rows]
        return residual_norm.residual_norm(x, x, zeros, ones, zeros, seeds, 0.5, platform)

    first, *others = map(np.asarray, on_every_mesh(kernel))
    for other in others:
        np.testing.assert_allclose(first, other, rtol=1e-5, atol=1e-5)
