"""Which device holds what.

The mesh has three axes. A batch's rows are split over `data` and `fsdp` together. A parameter's dimensions
have logical names; each name is laid along one mesh axis:

    vocabulary, heads, feed_forward -> tensor        width -> fsdp

In the notation of the scaling book: word[V_tensor, E_fsdp], up/kernel[L, D_fsdp, F_tensor]. A dimension that
the axis does not divide is kept whole on every device. What is exchanged for it in a step: exchange.py.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding

from electramed_jax.common import tree_rules
from electramed_jax.common.errors import UserError
from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.model.ops import batch_axes

MESH_AXES = ("data", "fsdp", "tensor")
LOGICAL_AXIS_RULES = {
    "vocabulary": "tensor",
    "heads": "tensor",
    "feed_forward": "tensor",
    "width": "fsdp",
    None: None,
}

# Matched against the end of a leaf's name, so that an optimiser's moments follow their parameter.
PARAM_RULES = tree_rules.RuleTable(
    "sharding",
    (
        (r"(?:embeddings|embedding_delta)/word", ("vocabulary", "width")),
        (r"(?:embeddings|embedding_delta)/(?:position|token_type)", (None, "width")),
        (r"project/kernel", (None, "width")),
        (r"layers/attention/qkv/kernel", (None, "width", None, "heads", None)),
        (r"layers/attention/qkv/bias", (None, None, "heads", None)),
        (r"layers/attention/out/kernel", (None, "heads", None, "width")),
        (r"layers/feed_forward/up/kernel", (None, "width", "feed_forward")),
        (r"layers/feed_forward/up/bias", (None, "feed_forward")),
        (r"layers/feed_forward/down/kernel", (None, "feed_forward", "width")),
        (r"layers/(?:attention/out|feed_forward/down)/bias", (None, None)),
        (r"layers/(?:attention|feed_forward)/norm/(?:scale|bias)", (None, None)),
        (r"head/dense/kernel", ("width", None)),
        (r"head/logit/kernel", (None, None)),
        (r"head/output_bias", ("vocabulary",)),
        (r"(?:embeddings|embedding_delta|head)/norm/(?:scale|bias)", (None,)),
        (r"(?:project|head/dense|head/logit)/bias", (None,)),
        (r"step|count", ()),
    ),
)


def make_mesh(config: MeshConfig, devices: list | None = None) -> Mesh:
    """A (data, fsdp, tensor) mesh over all devices; UserError where they cannot be laid out so."""
    devices = jax.devices() if devices is None else devices
    rest = config.fsdp * config.tensor
    data = config.data if config.data != -1 else len(devices) // rest
    if data * rest != len(devices) or data == 0:
        raise UserError(
            f"mesh data={config.data} fsdp={config.fsdp} tensor={config.tensor} does not cover {len(devices)} devices; "
            "their product must be the number of devices (mesh.data=-1 takes what is left)"
        )
    shape, auto = (data, config.fsdp, config.tensor), (AxisType.Auto,) * 3
    slices = len({getattr(device, "slice_index", None) for device in devices})
    if slices == 1:
        return jax.make_mesh(shape, MESH_AXES, axis_types=auto, devices=devices)
    if data % slices:
        raise UserError(
            f"mesh data={data} does not divide over {slices} slices; between slices only data is exchanged: choose "
            f"mesh.fsdp and mesh.tensor whose product divides the {len(devices) // slices} chips of a slice"
        )
    # Slices are joined by the slower network, which then carries nothing but the gradients of `data`.
    within = (data // slices, config.fsdp, config.tensor)
    return Mesh(mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1), devices), MESH_AXES, axis_types=auto)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of int32[B, T]: rows over data and fsdp."""
    return NamedSharding(mesh, jax.P(batch_axes.BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, jax.P())


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """A NamedSharding for every leaf of a (state's) tree of arrays or ShapeDtypeStructs."""
    return tree_rules.map_named(lambda name, leaf: NamedSharding(mesh, partition_spec(name, leaf.shape, mesh)), tree)


def partition_spec(name: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> jax.P:
    """The mesh axis of each dimension of the leaf `name`, or None."""
    axes = [LOGICAL_AXIS_RULES[logical] for logical in PARAM_RULES(name)]
    assert len(axes) == len(shape), f"{name}: {len(axes)} axes for the shape {shape}"
    return jax.P(*[a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, shape, strict=True)])


def unsharded_bytes(params: Any, mesh: Mesh) -> dict[str, int]:
    """Bytes, by name, of the leaves that some axis for parameters (fsdp, tensor) holds whole but could split.

    It could where it is longer than 1 and divides a dimension that no other axis has taken. `data` is no such axis: to
    hold parameters whole is what it is for.
    """
    found = {}
    placed = tree_rules.named_leaves(tree_shardings(params, mesh))
    for name, leaf in tree_rules.named_leaves(params).items():
        taken = placed[name].spec
        free = [n for n, axis in zip(leaf.shape, taken, strict=True) if axis is None]
        idle = [axis for axis in ("fsdp", "tensor") if mesh.shape[axis] > 1 and axis not in taken]
        if any(n % mesh.shape[axis] == 0 for axis in idle for n in free):
            found[name] = leaf.size * leaf.dtype.itemsize
    return found


def to_host(tree: Any) -> Any:
    """The tree as numpy arrays, whole, in every process. All of them have to ask."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
