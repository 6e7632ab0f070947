"""Splits the parameter tree of the pair into two complete networks, and joins them again.

Exported networks are complete, so parameters that the pair shares are in both of them:

                            discriminator                generator
    tying                   embeddings                   embeddings             encoder
    embeddings              embeddings                   embeddings             generator
    none                    embeddings                   generator/embeddings   generator
    all                     embeddings                   embeddings             discriminator
    gradient_disentangled   embeddings + their delta     embeddings             generator

The leaves of one network are a flat dict with names "embeddings/...", "project/...", "layers/..." and "head/...".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.tree_rules import named_leaves
from electramed_jax.hf.format.mapping import DISCRIMINATOR, GENERATOR, NETWORKS

EMBEDDINGS = "embeddings/"
DELTA = "discriminator/embedding_delta/"
# Of the discriminator: the delta is added to the tables, and Hugging Face's model has no head that predicts tokens.
NOT_EXPORTED = ("embedding_delta/", "corrective_head/")
Leaves = dict[str, np.ndarray]


def split_networks(params: Mapping[str, Any], tying: str) -> dict[str, Leaves]:
    """Returns the leaves of each network that `params` holds completely: "discriminator", "generator" or both.

    Without a generator (objective.kind=uniform) only the discriminator is returned.
    """
    leaves = {name: np.asarray(leaf, np.float32) for name, leaf in named_leaves(params).items()}
    shared = {name: leaf for name, leaf in leaves.items() if name.startswith(EMBEDDINGS)}
    own = {network: _below(leaves, f"{network}/") for network in NETWORKS}
    delta = _below(leaves, DELTA)
    discriminator = {n: leaf for n, leaf in own[DISCRIMINATOR].items() if not n.startswith(NOT_EXPORTED)}
    generator = own[GENERATOR]
    if tying == "all":
        generator = {n: leaf for n, leaf in discriminator.items() if not n.startswith("head/")} | generator
    networks = {
        DISCRIMINATOR: _add_delta(shared, delta) | discriminator,
        GENERATOR: shared | generator,  # its own tables, if any, override the shared ones
    }
    return {network: leaves for network, leaves in networks.items() if any(n.startswith("head/") for n in leaves)}


def join_networks(networks: Mapping[str, Leaves], tying: str) -> dict[str, Any]:
    """Returns the parameter tree of the networks, the inverse of `split_networks`.

    Leaves of a missing network are missing in the tree. The delta of gradient-disentangled embeddings is a difference
    of rounded sums: equal to float32 rounding, not bit for bit.

    Raises:
      UserError: the two networks differ in parameters that `tying` shares.
    """
    discriminator, generator = networks.get(DISCRIMINATOR, {}), networks.get(GENERATOR, {})
    if discriminator and generator:
        _check_shared(discriminator, generator, tying)
    params = {f"{DISCRIMINATOR}/{n}": leaf for n, leaf in discriminator.items() if not n.startswith(EMBEDDINGS)}
    tables = {network: _with_prefix(leaves, EMBEDDINGS) for network, leaves in networks.items()}
    if tying == "none":
        params |= tables.get(DISCRIMINATOR, {}) | {f"{GENERATOR}/{n}": leaf for n, leaf in generator.items()}
        return unflatten(params)
    params |= tables.get(GENERATOR) or tables[DISCRIMINATOR]
    if tying == "gradient_disentangled" and discriminator:
        delta = {n: leaf - params[n] for n, leaf in tables[DISCRIMINATOR].items()}
        params |= {DELTA + n.removeprefix(EMBEDDINGS): leaf for n, leaf in delta.items()}
    for name, leaf in generator.items():
        if not name.startswith(EMBEDDINGS):
            encoder = DISCRIMINATOR if tying == "all" and not name.startswith("head/") else GENERATOR
            params[f"{encoder}/{name}"] = leaf
    return unflatten(params)


def detect_tying(networks: Mapping[str, Leaves]) -> str:
    """Returns the tying that shares most of the parameters that two networks have in common.

    One network alone has the tying "embeddings".

    Raises:
      UserError: no tying fits the networks.
    """
    if set(networks) != set(NETWORKS):
        return "embeddings"
    for tying in ("all", "embeddings", "none", "gradient_disentangled"):
        if not _find_difference(networks[DISCRIMINATOR], networks[GENERATOR], tying):
            return tying
    reason = _find_difference(networks[DISCRIMINATOR], networks[GENERATOR], "embeddings")
    raise UserError(f"no tying fits the two networks ({reason}); import one of them alone")


def _check_shared(discriminator: Leaves, generator: Leaves, tying: str) -> None:
    reason = _find_difference(discriminator, generator, tying)
    if reason:
        fitting = detect_tying({DISCRIMINATOR: discriminator, GENERATOR: generator})
        raise UserError(f"model.tying={tying} does not fit the two networks: {reason}; use model.tying={fitting}")


def _find_difference(discriminator: Leaves, generator: Leaves, tying: str) -> str:
    """Returns why a tying does not fit the networks; "" if it fits."""
    if tying == "none":
        return "the generator has a projection of its embeddings" if "project/kernel" in generator else ""
    if tying == "gradient_disentangled":
        a, b = discriminator["embeddings/word"].shape, generator["embeddings/word"].shape
        return "" if a == b else f"word tables of {list(a)} and {list(b)}"
    shared = [n for n in {**discriminator, **generator} if n.startswith(EMBEDDINGS)]
    if tying == "all":
        shared = [n for n in {**discriminator, **generator} if not n.startswith("head/")]
    both = discriminator.keys() & generator.keys()
    different = [n for n in shared if n not in both or not np.array_equal(discriminator[n], generator[n])]
    return f"{different[0]} differs" if different else ""


def _add_delta(shared: Leaves, delta: Leaves) -> Leaves:
    return {n: leaf + delta[n.removeprefix(EMBEDDINGS)] if delta else leaf for n, leaf in shared.items()}


def _with_prefix(leaves: Leaves, prefix: str) -> Leaves:
    return {name: leaf for name, leaf in leaves.items() if name.startswith(prefix)}


def _below(leaves: Leaves, prefix: str) -> Leaves:
    return {name.removeprefix(prefix): leaf for name, leaf in _with_prefix(leaves, prefix).items()}


def unflatten(leaves: Leaves) -> dict[str, Any]:
    """Returns the nested dicts of leaves named "a/b/c"."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = leaf
    return tree
