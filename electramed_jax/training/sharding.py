"""Sharding: the device mesh, one rule per parameter, and the sharding of every array of a train state.

The mesh has the axes `data`, `fsdp` and `tensor`. The rows of a batch are split over `data` and `fsdp` together. A rule
names the logical axis of each dimension of a parameter, and `LOGICAL_AXIS_RULES` assigns a mesh axis to it:

    vocabulary, heads, feed_forward -> tensor        width -> fsdp

In the notation of the scaling book: word[V_tensor, E_fsdp], up/kernel[L, D_fsdp, F_tensor]. A dimension that the mesh
axis does not divide is replicated. collectives.py has the communication that follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding

from electramed_jax.common import tree_rules
from electramed_jax.common.config_io import AUTO
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


class ParamRule(NamedTuple):
    """How a parameter is split over the mesh, and how a step gathers it along `fsdp`."""

    axes: tuple[str | None, ...]  # logical axis of each dimension; "width" is split over fsdp and gathered
    gather_dtype: Literal["compute", "float32"] = "float32"  # of the all-gather and of the gradient's reduction
    stacked: bool = False  # dimension 0 is the layer: each layer is gathered by itself
    is_looked_up: bool = False  # float32 after the gather: a row's gradient is a sum over tokens, added up in float32


def _per_layer(*axes: str | None, gather_dtype: Literal["compute", "float32"] = "float32") -> ParamRule:
    return ParamRule((None, *axes), gather_dtype, stacked=True)


# Kernels that the model multiplies in its compute_dtype are gathered in it, and so are word tables: activations are
# rounded to it after the look-up anyway, and a table is two fifths of the bytes of base. All others are float32.
# A rule matches the end of a leaf's name, so that it covers the optimizer's moments of the parameter, too.
PARAM_RULES = tree_rules.RuleTable(
    "sharding",
    (
        (
            r"(?:embeddings|embedding_delta)/word",
            ParamRule(("vocabulary", "width"), gather_dtype="compute", is_looked_up=True),
        ),
        (r"(?:embeddings|embedding_delta)/(?:position|token_type)", ParamRule((None, "width"))),
        (r"project/kernel", ParamRule((None, "width"), gather_dtype="compute")),
        (r"layers/attention/qkv/kernel", _per_layer("width", None, "heads", None, gather_dtype="compute")),
        (r"layers/attention/qkv/bias", _per_layer(None, "heads", None)),
        (r"layers/attention/out/kernel", _per_layer("heads", None, "width", gather_dtype="compute")),
        (r"layers/feed_forward/up/kernel", _per_layer("width", "feed_forward", gather_dtype="compute")),
        (r"layers/feed_forward/up/bias", _per_layer("feed_forward")),
        (r"layers/feed_forward/down/kernel", _per_layer("feed_forward", "width", gather_dtype="compute")),
        (r"layers/(?:attention/out|feed_forward/down)/bias", _per_layer(None)),
        (r"layers/(?:attention|feed_forward)/norm/(?:scale|bias)", _per_layer(None)),
        (r"(?:corrective_)?head/dense/kernel", ParamRule(("width", None), gather_dtype="compute")),
        (r"head/logit/kernel", ParamRule((None, None))),
        (r"head/crf/transitions", ParamRule((None, None))),
        (r"(?:corrective_)?head/output_bias", ParamRule(("vocabulary",))),
        (r"(?:embeddings|embedding_delta|(?:corrective_)?head)/norm/(?:scale|bias)", ParamRule((None,))),
        (r"(?:project|(?:corrective_)?head/dense|head/logit)/bias", ParamRule((None,))),
        (r"step|count", ParamRule(())),
    ),
)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a (data, fsdp, tensor) mesh over all devices. `fsdp=auto` is 1 here; pre-training chooses it before.

    Raises:
      UserError: the mesh does not cover the devices, or `data` does not divide over several slices.
    """
    devices = jax.devices() if devices is None else devices
    fsdp = 1 if config.fsdp == AUTO else config.fsdp  # evaluation, export and fine-tuning choose nothing
    per_data = fsdp * config.tensor
    data = config.data if config.data != -1 else len(devices) // per_data
    if data * per_data != len(devices) or data == 0:
        raise UserError(
            f"mesh data={config.data} fsdp={config.fsdp} tensor={config.tensor} does not cover {len(devices)} devices; "
            "their product must be the number of devices (mesh.data=-1 uses the remaining ones)"
        )
    shape, auto = (data, fsdp, config.tensor), (AxisType.Auto,) * 3
    slices = len({getattr(device, "slice_index", None) for device in devices})
    if slices == 1:
        return jax.make_mesh(shape, MESH_AXES, axis_types=auto, devices=devices)
    if data % slices:
        raise UserError(
            f"mesh data={data} does not divide over {slices} slices; only the data axis may span slices: choose "
            f"mesh.fsdp and mesh.tensor with a product that divides the {len(devices) // slices} chips of a slice"
        )
    # The network between slices is the slower one: it carries only the gradient reduction over `data`.
    within = (data // slices, fsdp, config.tensor)
    return Mesh(mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1), devices), MESH_AXES, axis_types=auto)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch `int32[B, T]`: rows over data and fsdp."""
    return NamedSharding(mesh, jax.P(batch_axes.BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device has a full copy of."""
    return NamedSharding(mesh, jax.P())


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """Returns a NamedSharding for every leaf of a tree of parameters or of a train state."""
    return tree_rules.map_named(lambda name, leaf: NamedSharding(mesh, partition_spec(name, leaf.shape, mesh)), tree)


def partition_spec(name: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> jax.P:
    """Returns the mesh axis of each dimension of the leaf `name`; None where it is not split."""
    axes = [LOGICAL_AXIS_RULES[logical] for logical in PARAM_RULES(name).axes]
    assert len(axes) == len(shape), f"{name}: {len(axes)} axes for the shape {shape}"
    return jax.P(*[a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, shape, strict=True)])


def unsharded_bytes(params: Any, mesh: Mesh) -> dict[str, int]:
    """Returns the bytes, by name, of parameters that `fsdp` or `tensor` replicates but could split.

    The axis could split a parameter where it is longer than 1 and divides a dimension that no other axis splits. `data`
    does not count: it always replicates parameters.
    """
    unsharded = {}
    shardings = tree_rules.named_leaves(tree_shardings(params, mesh))
    for name, leaf in tree_rules.named_leaves(params).items():
        spec = shardings[name].spec
        free = [n for n, axis in zip(leaf.shape, spec, strict=True) if axis is None]
        idle = [axis for axis in ("fsdp", "tensor") if mesh.shape[axis] > 1 and axis not in spec]
        if any(n % mesh.shape[axis] == 0 for axis in idle for n in free):
            unsharded[name] = leaf.size * leaf.dtype.itemsize
    return unsharded


def to_host(tree: Any) -> Any:
    """Returns the tree as numpy arrays, unsharded, in every process. A collective: all processes must call it."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
