"""Layer-wise learning-rate decay."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from electramed_jax.config import finetune
from electramed_jax.training.optimizers import layer_decay


def test_each_layer_has_a_fraction_of_the_rate_of_the_layer_above():
    factors = layer_decay.depth_factors(0.5, 3)
    assert factors["head"] == 1
    assert factors["layers"].tolist() == [0.125, 0.25, 0.5]
    assert factors["embeddings"] == 0.0625


@pytest.mark.parametrize(
    "case, rate, decay, layers",
    [
        ("lr=1e-4 decay=0.8 n_layers=12", 1e-4, 0.8, 12),
        ("lr=5e-5 decay=0.9 n_layers=24", 5e-5, 0.9, 24),
        ("lr=1.0 decay=0.8 n_layers=2", 1.0, 0.8, 2),
    ],
)
def test_the_google_rule_gives_the_rates_of_the_reference(shared_data, case, rate, decay, layers):
    expected = json.loads((shared_data / "oracle" / "layer_lrs.json").read_text())[case]
    factors = layer_decay.depth_factors(decay, layers, finetune.GOOGLE)
    ours = {"/embeddings/": factors["embeddings"], "/embeddings_project/": factors["embeddings"]}
    ours |= {"task_specific/": factors["head"]}
    ours |= {f"encoder/layer_{n}/": float(factor) for n, factor in enumerate(factors["layers"])}
    assert {name: rate * factor for name, factor in ours.items()} == pytest.approx(expected, rel=1e-6)


def test_stacked_layers_are_scaled_separately():
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


def test_a_parameter_without_a_depth_raises():
    params = {"generator": jnp.ones(2)}
    tx = layer_decay.scale_by_depth(0.1, 2)
    with pytest.raises(ValueError, match="layer-wise decay: no rule for the leaf 'generator'"):
        jax.eval_shape(tx.update, params, tx.init(params))
