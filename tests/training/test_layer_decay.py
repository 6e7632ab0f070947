"""Lower layers learn more slowly, by the rule in name."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electramed_jax.config import finetune
from electramed_jax.training import layer_decay


def test_each_layer_learns_at_a_fraction_of_the_one_above_it():
    found = layer_decay.depth_factors(0.5, 3)
    assert found["head"] == 1
    assert found["layers"].tolist() == [0.125, 0.25, 0.5]
    assert found["embeddings"] == 0.0625


@pytest.mark.parametrize(
    "case, rate, decay, layers",
    [
        ("lr=1e-4 decay=0.8 n_layers=12", 1e-4, 0.8, 12),
        ("lr=5e-5 decay=0.9 n_layers=24", 5e-5, 0.9, 24),
        ("lr=1.0 decay=0.8 n_layers=2", 1.0, 0.8, 2),
    ],
)
def test_googles_rule_gives_googles_rates(shared_data, case, rate, decay, layers):
    wanted = json.loads((shared_data / "oracle" / "layer_lrs.json").read_text())[case]
    found = layer_decay.depth_factors(decay, layers, finetune.GOOGLE)
    ours = {"/embeddings/": found["embeddings"], "/embeddings_project/": found["embeddings"]}
    ours |= {"task_specific/": found["head"]}
    ours |= {f"encoder/layer_{n}/": float(factor) for n, factor in enumerate(found["layers"])}
    assert {name: rate * factor for name, factor in ours.items()} == pytest.approx(wanted, rel=1e-6)


def test_stacked_layers_are_scaled_one_by_one():
    params = {
        "embeddings": {"word": jnp.ones((3, 2))},
        "encoder": {"project": {"kernel": jnp.ones(2)}, "layers": {"out": {"kernel": jnp.ones((2, 3, 2, 2))}}},
        "head": {"logit": {"bias": jnp.ones(4)}},
    }
    tx = layer_decay.scale_by_depth(0.1, 2)
    scaled, _ = tx.update(params, tx.init(params))
    kernel = np.asarray(scaled["encoder"]["layers"]["out"]["kernel"])
    assert np.unique(kernel[0]) == pytest.approx(0.01) and np.unique(kernel[1]) == pytest.approx(0.1)
    rest = {"word": scaled["embeddings"]["word"], "project": scaled["encoder"]["project"]["kernel"]}
    assert all(np.allclose(leaf, 0.001) for leaf in rest.values())
    assert np.all(scaled["head"]["logit"]["bias"] == 1)


def test_a_parameter_of_no_depth_is_a_mistake():
    params = {"generator": jnp.ones(2)}
    tx = layer_decay.scale_by_depth(0.1, 2)
    with pytest.raises(ValueError, match="layer-wise decay: no rule for the leaf 'generator'"):
        jax.eval_shape(tx.update, params, tx.init(params))
