"""Muon, against optax's implementation, on one device and split over several."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quick
import small
from optax import contrib

from electramed_jax.common import tree_rules
from electramed_jax.config.pretrain import MeshConfig, OptimizerConfig
from electramed_jax.pretrain.state import init_params
from electramed_jax.training import sharding
from electramed_jax.training.optimizers import muon, optimizer

CONFIG = OptimizerConfig(kind="muon", learning_rate=0.01, warmup_steps=0, decay_power=0.0, clip_norm=1e9)


def three_steps(tx: optax.GradientTransformation, params: dict) -> dict:
    opt_state = tx.init(params)
    for step in range(3):
        gradients = jax.tree.map(lambda x, step=step: jnp.sin(40 * x + step), params)
        updates, opt_state = tx.update(gradients, opt_state, params)
        params = optax.apply_updates(params, updates)
    return params


def matrices(tree: dict) -> dict[str, np.ndarray]:
    """Returns each hidden matrix of a tree by name, [inputs, outputs]."""
    found = {}
    for name, leaf in tree_rules.named_leaves(tree).items():
        if name.endswith("qkv/kernel"):
            found |= {f"{name}/{i}/{q}": x[:, q].reshape(len(x), -1) for i, x in enumerate(leaf) for q in range(3)}
        elif name.endswith("attention/out/kernel"):
            found |= {f"{name}/{i}": x.reshape(-1, x.shape[-1]) for i, x in enumerate(leaf)}
        elif "layers" in name and name.endswith("kernel"):
            found |= {f"{name}/{i}": x for i, x in enumerate(leaf)}
    return {name: np.asarray(x) for name, x in found.items()}


@pytest.mark.oracle
def test_a_step_equals_that_of_optax_on_one_array_per_matrix():
    gradients = jax.tree.map(lambda x: jnp.sin(40 * x), small.noisy_params(small.config()))
    hidden = {name: jnp.asarray(x) for name, x in matrices(gradients).items()}
    theirs = contrib.scale_by_muon(weight_dimension_numbers=dict.fromkeys(hidden, contrib.MuonDimensionNumbers(0, 1)))
    expected = quick.jit(lambda: theirs.update(hidden, theirs.init(hidden))[0])()
    hidden_only = tree_rules.map_named(lambda n, x: x if muon.is_hidden_matrix(n) else optax.MaskedNode(), gradients)
    ours = muon.scale_by_muon(0.95)
    got = matrices(quick.jit(lambda: ours.update(hidden_only, ours.init(hidden_only))[0])())
    assert got.keys() == expected.keys()
    for name, x in expected.items():
        np.testing.assert_allclose(got[name], 0.2 * np.sqrt(max(x.shape)) * x, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.oracle
def test_three_steps_equal_those_of_torch():
    """Compares with torch's Muon up to its arithmetic, which is bfloat16."""
    torch = pytest.importorskip("torch", reason="compares with torch: install electramed_jax[parity]")
    draw = np.random.default_rng(0)
    start, *gradients = draw.normal(size=(4, 16, 24)).astype(np.float32)
    weight = torch.nn.Parameter(torch.tensor(start))
    theirs = torch.optim.Muon([weight], lr=0.1, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    ours = optimizer.make_optimizer(
        OptimizerConfig(kind="muon", learning_rate=0.1, warmup_steps=0, decay_power=0.0, clip_norm=1e9), 100
    )

    def tree(x):
        return {"layers": {"feed_forward": {"up": {"kernel": jnp.asarray(x)[None]}}}}

    params = tree(start)
    state = ours.init(params)
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        theirs.step()
        updates, state = ours.update(tree(gradient), state, params)
        params = optax.apply_updates(params, updates)
    moved = params["layers"]["feed_forward"]["up"]["kernel"][0] - start
    expected = weight.detach().numpy() - start
    assert np.linalg.norm(moved - expected) < 0.03 * np.linalg.norm(expected)


@pytest.mark.parametrize("shape", [(8, 16), (16, 8), (8, 8)])
def test_an_update_has_equal_singular_values_and_the_size_of_adams(shape):
    draw = np.random.default_rng(0)
    gradient = draw.normal(size=(1, *shape)) * 10.0 ** draw.uniform(-1, 0, size=shape[1])
    tx = muon.scale_by_muon(0.95)
    name = {"layers": {"feed_forward": {"up": {"kernel": jnp.asarray(gradient, jnp.float32)}}}}
    update = np.asarray(tx.update(name, tx.init(name))[0]["layers"]["feed_forward"]["up"]["kernel"])[0]
    values = np.linalg.svd(update, compute_uv=False) / (0.2 * np.sqrt(max(shape)))
    assert np.all((values > 0.3) & (values < 1.3)), values
    assert np.linalg.norm(update) / np.sqrt(update.size) == pytest.approx(0.2, rel=0.3)


@pytest.mark.parametrize("mesh", [MeshConfig(fsdp=4), MeshConfig(fsdp=2, tensor=2)], ids=str)
def test_split_over_devices_the_steps_are_the_same_and_the_momentum_is_sharded(mesh):
    params, tx = small.noisy_params(small.config()), optimizer.make_optimizer(CONFIG, 100)
    expected = tree_rules.named_leaves(quick.jit(lambda: three_steps(tx, params))())
    devices = sharding.make_mesh(mesh)
    placed = jax.device_put(params, sharding.tree_shardings(params, devices))
    with jax.set_mesh(devices):
        got = quick.jit(lambda params: three_steps(tx, params))(placed)
    for name, leaf in tree_rules.named_leaves(got).items():
        np.testing.assert_allclose(leaf, expected[name], rtol=1e-4, atol=2e-6, err_msg=name)
    momentum = tree_rules.named_leaves(sharding.tree_shardings(jax.eval_shape(tx.init, params), devices))
    up = next(momentum[name] for name in momentum if name.endswith("discriminator/layers/feed_forward/up/kernel"))
    assert {"fsdp", "tensor"} <= set(up.spec)


@pytest.mark.parametrize("tying", ["embeddings", "none", "all", "gradient_disentangled"])
def test_muon_updates_the_matrices_of_all_layers_and_nothing_else(tying):
    shapes = jax.eval_shape(lambda: init_params(small.config(tying=tying)))
    for name in tree_rules.named_leaves(shapes):
        assert muon.is_hidden_matrix(name) == ("layers" in name and name.endswith("kernel")), name


def test_the_rate_is_constant_until_the_decay_starts():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10, decay_start=0.8)
    rates = optimizer.learning_rate_schedule(config, 1000)
    assert [float(rates(step)) for step in (5, 10, 800, 900, 1000)] == pytest.approx([0.5, 1, 1, 0.5, 0])
