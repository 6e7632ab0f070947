"""The checksum of a state: equal on any mesh, different for different bits, and between replicas."""

from __future__ import annotations

import socket

import jax
import numpy as np
import pytest

from electramed_jax.common.errors import UserError
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


@pytest.mark.parametrize(
    ("mesh", "corrupt"),
    [(dict(data=4, fsdp=2), [3]), (dict(data=2, fsdp=2, tensor=2), [3, 7]), (dict(data=1, fsdp=8), [])],
    ids=["majority", "two-replicas", "no-replica"],
)
def test_the_device_whose_replica_differs_is_named(quick_compilation, mesh, corrupt):
    """Two replicas have no majority: both are named. A shard without a replica cannot be compared."""
    mesh = sharding.make_mesh(MeshConfig(**mesh))
    where = jax.sharding.NamedSharding(mesh, jax.P("fsdp", "tensor"))
    shards = [
        jax.device_put(TREE["a"][index] + (device.id == 3), device)
        for device, index in where.devices_indices_map(TREE["a"].shape).items()
    ]
    tree = {"a": jax.make_array_from_single_device_arrays(TREE["a"].shape, where, shards)}
    checksum = fingerprint.state_checksum(tree, mesh)
    assert sorted(checksum.corrupt) == [
        f"device {number} of this process ({socket.gethostname()})" for number in corrupt
    ]
    if corrupt:
        with pytest.raises(UserError, match="after step 70 the train state of device 3 .* no checkpoint"):
            fingerprint.check_replicas(checksum, 70)


def test_the_checksum_of_saved_checkpoints_does_not_change(quick_compilation):
    """The value of checkpoints that exist: sum over leaves and elements, as in the formula of the module."""
    value = 0
    for number, name in enumerate(sorted(TREE)):
        bits = np.atleast_1d(TREE[name]).reshape(-1)
        bits = bits.view({2: np.uint16, 4: np.uint32}[bits.dtype.itemsize]).astype(object)
        value += (2 * number + 1) * sum(int(bit) * (2 * index + 1) for index, bit in enumerate(bits))
    assert fingerprint.state_checksum(*placed(TREE, data=2, fsdp=2, tensor=2)).value == value % 2**32
