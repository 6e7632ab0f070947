"""The TPU kernel of attention, interpreted, is the plain form: result, gradients and dropped probabilities."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick
from jax.sharding import AxisType

from electramed_jax.model import attention, attention_kernel, random_bits, tpu_kernels

SIZES = {  # B, T, N, H
    "two groups of two heads": (1, 128, 4, 64),
    "two rows of a block": (2, 128, 4, 32),
    "one head, narrower than a register": (1, 256, 1, 64),
}


def inputs(B: int, T: int, N: int, H: int, dtype: str = "float32") -> types.SimpleNamespace:
    """Rows of documents of odd lengths, padding at their ends, and a gradient to bring back."""
    generator = np.random.default_rng(0)
    normal = lambda *shape: generator.normal(size=shape).astype(np.float32)  # noqa: E731
    segments = np.zeros((B, T), np.int32)
    for b in range(B):
        segments[b, : T - 19 * b - 7] = 1 + np.arange(T - 19 * b - 7) // (37 + b)
    return types.SimpleNamespace(
        qkv=jnp.asarray(2 * normal(3, B, T, N * H), dtype),
        bias=jnp.asarray(normal(3, N * H), dtype),
        segments=segments,
        dy=jnp.asarray(normal(B, T, N * H), dtype),
        heads=(N, H),
    )


def plain(given: types.SimpleNamespace, rate: float, key: jax.Array):
    def run(qkv, bias):
        qkv = qkv + bias[:, None, None, :]
        q, k, v = qkv.reshape(*qkv.shape[:3], *given.heads)
        y = attention.attend(q, k, v, given.segments, q.dtype, dropout_rate=rate, key=key)
        return y.reshape(qkv.shape[1:])

    return result_and_gradients(run, given)


def kernel(given: types.SimpleNamespace, rate: float, key: jax.Array):
    N, H = given.heads
    words = random_bits.words(key, (given.segments.shape[0], N))

    def run(qkv, bias):
        return attention_kernel.attend(qkv, bias, given.segments, words, H, rate, True)

    return result_and_gradients(run, given)


def result_and_gradients(run, given: types.SimpleNamespace) -> list[np.ndarray]:
    @quick.jit
    def both(qkv, bias, dy):
        y, back = jax.vjp(run, qkv, bias)
        return y, *back(dy)

    return [np.asarray(one, np.float32) for one in both(given.qkv, given.bias, given.dy)]


@pytest.mark.parametrize("sizes, rate", [(name, 0.1) for name in SIZES] + [("one head, narrower than a register", 0.0)])
def test_the_kernel_gives_the_plain_forms_result_and_gradients(sizes, rate):
    given, key = inputs(*SIZES[sizes]), jax.random.key(3)
    for ours, expected in zip(kernel(given, rate, key), plain(given, rate, key), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_in_bfloat16_the_kernel_is_as_near_to_the_truth_as_the_plain_form():
    half, key = inputs(1, 128, 2, 64, "bfloat16"), jax.random.key(3)
    exact = types.SimpleNamespace(**vars(half))
    for name in ("qkv", "bias", "dy"):
        setattr(exact, name, getattr(half, name).astype(jnp.float32))
    for ours, theirs, truth in zip(kernel(half, 0.1, key), plain(half, 0.1, key), plain(exact, 0.1, key), strict=True):
        error, allowed = (np.linalg.norm(one - truth) / np.linalg.norm(truth) for one in (ours, theirs))
        assert error < 1.2 * allowed < 0.03


def test_a_token_in_another_document_changes_nothing():
    given, key = inputs(1, 128, 2, 64), jax.random.key(0)
    y, dqkv, _ = kernel(given, 0.0, key)
    there = given.segments == 2
    given.qkv = jnp.where(there[None, :, :, None], 5.0, given.qkv)
    changed_y, changed_dqkv, _ = kernel(given, 0.0, key)
    np.testing.assert_array_equal(y[~there], changed_y[~there])
    np.testing.assert_array_equal(dqkv[:, ~there], changed_dqkv[:, ~there])
    assert not np.allclose(y[there], changed_y[there])


def test_on_a_mesh_each_device_runs_its_part_and_drops_the_same():
    given, key = inputs(2, 128, 4, 64), jax.random.key(3)
    expected = plain(given, 0.1, key)
    mesh = jax.make_mesh((1, 2, 2), ("data", "fsdp", "tensor"), (AxisType.Auto,) * 3, devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        for ours, alone in zip(kernel(given, 0.1, key), expected, strict=True):
            np.testing.assert_allclose(ours, alone, rtol=1e-4, atol=1e-4 * np.abs(alone).max())


def test_sizes_without_blocks_are_left_to_the_plain_form():
    suits = attention_kernel.suits
    assert suits(512, 12, 64) and suits(128, 1, 64) and suits(128, 4, 32)
    assert not suits(96, 12, 64), "rows that fill no register"
    assert not suits(1024, 12, 64), "a square that is too large"
    assert not suits(512, 3, 64), "half a register"
    assert not suits(512, 4, 96), "heads across registers"


def test_no_kernel_is_for_this_platform():
    assert not tpu_kernels.for_tpu()
