"""Gradient accumulation: a step in micro-batches equals the step of the whole batch and needs less memory."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from electramed_jax.common import tree_rules
from electramed_jax.common.errors import UserError
from electramed_jax.config.pretrain import Config, MeshConfig, OptimizerConfig
from electramed_jax.pretrain.state import abstract_state, create
from electramed_jax.pretrain.step import accumulate_gradients, jit_train_step, sample_masks
from electramed_jax.training import sharding, state

pytestmark = pytest.mark.slow

LENGTH, ROWS = 16, 32
MESHES = {"one device": MeshConfig(1, 1, 1), "2x2x2": MeshConfig(2, 2, 2)}


def config_of(gradient_accumulation_steps: int, **model: object) -> Config:
    return dataclasses.replace(
        small.config(LENGTH, **model),
        # With the default epsilon Adam's first update is the gradient's sign; this one makes its size matter.
        optimizer=OptimizerConfig(learning_rate=0.1, warmup_steps=0, epsilon=1.0, clip_norm=1e9),
        batch_size=ROWS,
        gradient_accumulation_steps=gradient_accumulation_steps,
    )


def rows() -> np.ndarray:
    """Returns rows of different lengths, so that micro-batches differ in tokens and in masked positions."""
    lengths = np.random.default_rng(0).integers(1, LENGTH - 2, ROWS)
    return np.stack([small.row(small.document(n, seed=n), length=LENGTH) for n in lengths.tolist()])


def one_step(config: Config, mesh_name: str):
    axes = MESHES[mesh_name]
    mesh = sharding.make_mesh(axes, jax.devices()[: axes.data * axes.fsdp * axes.tensor])
    with jax.set_mesh(mesh):
        start = state.replace_params(create(config, mesh), small.noisy_params(config))
        batch = {"input_ids": jax.device_put(rows(), sharding.batch_sharding(mesh))}
        return jax.device_get(jit_train_step(config, mesh)(start, batch))


@pytest.fixture(scope="module")
def whole(quick_compilation):
    return one_step(config_of(1), "one device")


@pytest.mark.parametrize("mesh", MESHES)
def test_a_step_in_micro_batches_is_the_step_of_the_whole_batch(whole, mesh, quick_compilation):
    """Masks, samples and normalization are the same; only the order of float32 sums differs."""
    expected, expected_sums = whole
    got, sums = one_step(config_of(4), mesh)
    for name, value in expected_sums.items():
        np.testing.assert_allclose(sums[name], value, rtol=2e-5, err_msg=name)
    updates = tree_rules.named_leaves(jax.tree.map(np.subtract, expected.params, small.noisy_params(config_of(1))))
    assert max(np.abs(leaf).max() for leaf in updates.values()) > 1e-3
    for name, leaf in tree_rules.named_leaves(got.params).items():
        np.testing.assert_allclose(leaf, tree_rules.named_leaves(expected.params)[name], atol=2e-6, err_msg=name)


def test_each_micro_batch_has_its_own_rows_and_dropout_key():
    ids_BT = jnp.asarray(rows())
    batch = sample_masks(ids_BT, config_of(4), "train", jnp.int32(0))
    sums, _ = accumulate_gradients(
        lambda part, key: ({"ids": jnp.sum(part.ids_BT), "key": jax.random.uniform(key), "rows": len(part.ids_BT)}, {}),
        batch,
        jax.random.key(0),
        4,
    )
    uniform = [float(jax.random.uniform(key)) for key in jax.random.split(jax.random.key(0), 4)]
    assert len(set(uniform)) == 4
    assert sums["key"] == pytest.approx(sum(uniform))
    assert (sums["ids"], sums["rows"]) == (rows().sum(), ROWS)


def test_an_error_about_a_batch_size_that_does_not_divide_suggests_one_that_does():
    config = dataclasses.replace(config_of(3), batch_size=32)
    with pytest.raises(UserError, match=r"not divisible by gradient_accumulation_steps×data×fsdp=24; use 24, or fewer"):
        jit_train_step(config, sharding.make_mesh(MeshConfig(8, 1, 1)))


def test_micro_batches_need_less_memory(quick_compilation):
    """Compares the temporary memory that the compiler reports."""

    def temporary_bytes(gradient_accumulation_steps: int) -> int:
        config = dataclasses.replace(config_of(gradient_accumulation_steps), batch_size=256)
        mesh = sharding.make_mesh(MESHES["one device"], jax.devices()[:1])
        with jax.set_mesh(mesh):
            batch = {"input_ids": jax.ShapeDtypeStruct((256, LENGTH), np.int32)}
            lowered = jit_train_step(config, mesh).lower(abstract_state(config, mesh), batch)
            return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(8) < 0.4 * temporary_bytes(1)
