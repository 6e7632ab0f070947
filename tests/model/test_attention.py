"""Self-attention is restricted to the document of each token."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick
import small

from electramed_jax.model import attention, masking
from electramed_jax.pretrain.state import merge_params

LENGTH = 32
FIRST, SECOND, THIRD = small.document(6, 4), small.document(3, seed=1), small.document(5, 2, seed=2)
PACKED = small.row(FIRST, SECOND, THIRD, length=LENGTH)
SPANS = {"first": slice(0, 13), "second": slice(13, 18), "third": slice(18, 28)}


@pytest.fixture(scope="module")
def logits():
    """Logits of both networks at every position, by network and by the name of the row."""
    config = small.config(LENGTH)

    @quick.jit
    def run(params, ids_BT):
        model = merge_params(config, params)
        structure = masking.packed_segments(ids_BT, small.SPECIAL)
        everywhere_BM = jnp.broadcast_to(jnp.arange(LENGTH), ids_BT.shape)
        masked = masking.MaskedTokens(everywhere_BM, jnp.ones(ids_BT.shape), ids_BT, ids_BT)
        return {
            "generator": model.generator_logits(masked, structure)[..., :150],
            "discriminator": model.discriminator_logits(ids_BT, structure),
        }

    changed = PACKED.copy()
    changed[[14, 16]] = 140, 141  # two words of the second document
    rows = {
        "packed": PACKED,
        "changed": changed,
        "first": small.row(FIRST, length=LENGTH),
        "second": small.row(SECOND, length=LENGTH),
        "third": small.row(THIRD, length=LENGTH),
    }
    both = jax.device_get(run(small.noisy_params(config), jnp.stack([jnp.asarray(ids) for ids in rows.values()])))
    return {network: types.SimpleNamespace(**dict(zip(rows, values, strict=True))) for network, values in both.items()}


@pytest.mark.slow
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_changing_one_document_changes_no_logit_of_other_documents(logits, network):
    difference_T = np.abs(logits[network].changed - logits[network].packed).reshape(LENGTH, -1).max(axis=-1)
    second = np.zeros(LENGTH, bool)
    second[SPANS["second"]] = True
    assert (difference_T[~second] == 0).all()
    assert (difference_T[second] > 1e-3).all(), "every token of the changed document is affected"


@pytest.mark.parametrize("network", ["generator", "discriminator"])
@pytest.mark.parametrize("document", list(SPANS))
def test_a_packed_document_has_the_same_logits_as_alone_in_a_row(logits, network, document):
    packed, alone = logits[network].packed[SPANS[document]], getattr(logits[network], document)
    np.testing.assert_allclose(packed, alone[: len(packed)], atol=1e-5, rtol=1e-5)


def test_attention_is_the_softmax_over_its_own_segment():
    """Compares with the definition, token by token in float64. Heads do not mix."""
    generator = np.random.default_rng(0)
    q, k, v = generator.normal(size=(3, 2, 6, 3, 4)).astype(np.float32)
    segments = np.array([[1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1]])
    ours = quick.jit(lambda *arrays: attention.attend(*arrays, q.dtype))(q, k, v, segments)
    for b, t, n in np.ndindex(2, 6, 3):
        keys = np.flatnonzero(segments[b] == segments[b, t])
        weights = np.exp(k[b, keys, n].astype(np.float64) @ q[b, t, n] / np.sqrt(4))
        np.testing.assert_allclose(ours[b, t, n], weights / weights.sum() @ v[b, keys, n], atol=1e-5)
