"""The checksum of a state: equal on any mesh, different for different bits."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.training import fingerprint, sharding

TREE = {
    "a": np.random.default_rng(0).normal(size=(16, 8, 6)).astype(np.float32),
    "b": np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32).astype(jax.numpy.bfloat16),
    "step": np.int32(7),
}


def placed(tree, **mesh: int):
    """Places the tree on a mesh, split over its axes."""
    mesh = sharding.make_mesh(MeshConfig(**mesh))
    specs = {"a": jax.P("fsdp", "tensor", None), "b": jax.P(("data", "fsdp"), None), "step": jax.P()}
    shardings = {name: jax.sharding.NamedSharding(mesh, spec) for name, spec in specs.items()}
    return jax.device_put(tree, shardings), mesh


@pytest.mark.slow
def test_the_checksum_is_equal_on_any_mesh(quick_compilation):
    meshes = [dict(data=8), dict(data=1, fsdp=8), dict(data=1, tensor=8), dict(data=2, fsdp=2, tensor=2)]
    assert len({fingerprint.state_checksum(*placed(TREE, **mesh)) for mesh in meshes}) == 1


@pytest.mark.parametrize("name", TREE)
def test_a_flipped_bit_changes_the_checksum(quick_compilation, name):
    """Swapping two elements changes it, too."""
    first = fingerprint.state_checksum(*placed(TREE))
    flipped = np.array(TREE[name])
    flipped.reshape(-1).view(np.uint8)[-1] ^= 1
    assert fingerprint.state_checksum(*placed(TREE | {name: flipped}))[0] != first[0]
    if flipped.ndim:
        swapped = np.array(TREE[name])
        swapped[[0, 1]] = swapped[[1, 0]]
        assert fingerprint.state_checksum(*placed(TREE | {name: swapped}))[0] != first[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_number_is_detected(quick_compilation, value):
    broken = np.array(TREE["a"])
    broken[3, 2, 1] = value
    assert (
        fingerprint.state_checksum(*placed(TREE))[1]
        and not fingerprint.state_checksum(*placed(TREE | {"a": broken}))[1]
    )
