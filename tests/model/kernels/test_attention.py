"""The attention kernels, in interpret mode, equal plain attention: result, gradients, dropped probabilities."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick
from jax.sharding import AxisType

from electramed_jax.model import attention
from electramed_jax.model.kernels import attention as attention_kernel
from electramed_jax.model.kernels import attention_gpu, attention_tpu
from electramed_jax.model.kernels.attention_spec import AttentionSpec
from electramed_jax.model.ops import dropout_bits

pytestmark = pytest.mark.slow

SIZES = {  # B, T, N, H
    "two groups of two heads": (1, 128, 4, 64),
    "two rows of a block": (2, 128, 4, 32),
    "one head, narrower than a register": (1, 256, 1, 64),
}


for_each_platform = pytest.mark.parametrize("platform", ["tpu", "gpu"])


def inputs(B: int, T: int, N: int, H: int, dtype: str = "float32") -> types.SimpleNamespace:
    """Returns rows of documents of odd lengths with padding at the end, and an output gradient."""
    generator = np.random.default_rng(0)
    normal = lambda *shape: generator.normal(size=shape).astype(np.float32)  # noqa: E731
    segments = np.zeros((B, T), np.int32)
    for b in range(B):
        segments[b, : T - 19 * b - 7] = 1 + np.arange(T - 19 * b - 7) // (37 + b)
    F = N * H
    return types.SimpleNamespace(
        x=jnp.asarray(normal(B, T, F), dtype),
        kernel=jnp.asarray(2 * F**-0.5 * normal(F, 3, F), dtype),
        bias=jnp.asarray(normal(3, F), dtype),
        segments=segments,
        dy=jnp.asarray(normal(B, T, F), dtype),
        heads=(N, H),
    )


def seeds_of(key: jax.Array, case: types.SimpleNamespace) -> jax.Array:
    return dropout_bits.dropout_seeds(key, (len(case.segments), case.heads[0]))


def plain(case: types.SimpleNamespace, rate: float, key: jax.Array, *, paired: bool = False):
    def run(x, kernel, bias):
        qkv = jnp.einsum("btd,dcf->cbtf", x, kernel) + bias[:, None, None, :]
        q, k, v = qkv.reshape(*qkv.shape[:3], *case.heads)
        dropout = dict(dropout_rate=rate, seeds_2BN=seeds_of(key, case), paired_dropout=paired)
        y = attention.attend(q, k, v, case.segments, q.dtype, **dropout)
        return y.reshape(x.shape)

    return result_and_gradients(run, case)


def kernel(case: types.SimpleNamespace, rate: float, key: jax.Array, platform: str, *, paired: bool = False):
    seeds = seeds_of(key, case)

    def run(x, kernel, bias):
        spec = AttentionSpec(case.heads[1], rate, paired, interpret=platform)
        return attention_kernel.attend(x, kernel, bias, jnp.asarray(case.segments), seeds, spec)

    return result_and_gradients(run, case)


def result_and_gradients(run, case: types.SimpleNamespace) -> list[np.ndarray]:
    @quick.jit
    def forward_and_backward(x, kernel, bias, dy):
        y, vjp = jax.vjp(run, x, kernel, bias)
        return y, *vjp(dy)

    return [np.asarray(one, np.float32) for one in forward_and_backward(case.x, case.kernel, case.bias, case.dy)]


def assert_near(ours: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for ours_leaf, expected_leaf in zip(ours, expected, strict=True):
        np.testing.assert_allclose(ours_leaf, expected_leaf, rtol=1e-4, atol=1e-4 * np.abs(expected_leaf).max())


@for_each_platform
@pytest.mark.parametrize("sizes, rate", [(name, 0.1) for name in SIZES] + [("one head, narrower than a register", 0.0)])
def test_the_kernel_equals_plain_attention_in_result_and_gradients(sizes, rate, platform):
    case, key = inputs(*SIZES[sizes]), jax.random.key(3)
    assert_near(kernel(case, rate, key, platform), plain(case, rate, key))


def test_with_one_hash_for_two_the_tpu_kernel_drops_what_plain_attention_drops():
    case, key = inputs(2, 256, 2, 64), jax.random.key(3)
    expected = plain(case, 0.3, key, paired=True)
    assert_near(kernel(case, 0.3, key, "tpu", paired=True), expected)
    assert not np.allclose(plain(case, 0.3, key)[0], expected[0]), "other probabilities than with a hash for each"


@for_each_platform
def test_segment_ids_may_be_any_numbers(platform):
    case, key = inputs(2, 256, 1, 64), jax.random.key(3)
    case.segments = np.random.default_rng(1).permutation(256)[case.segments].astype(np.int32)
    assert_near(kernel(case, 0.1, key, platform), plain(case, 0.1, key))


@for_each_platform
def test_in_bfloat16_the_kernel_is_as_accurate_as_plain_attention(platform):
    """The gradient of the projection is XLA's product; that of jax 0.12 for CPUs has 1.6 times the error in one form."""
    half, key = inputs(1, 128, 2, 64, "bfloat16"), jax.random.key(3)
    exact = types.SimpleNamespace(**vars(half))
    for name in ("x", "kernel", "bias", "dy"):
        setattr(exact, name, getattr(half, name).astype(jnp.float32))
    results = kernel(half, 0.1, key, platform), plain(half, 0.1, key), plain(exact, 0.1, key)
    for ours, theirs, truth in zip(*results, strict=True):
        error, allowed = (np.linalg.norm(one - truth) / np.linalg.norm(truth) for one in (ours, theirs))
        assert error < 1.7 * allowed < 0.03


@for_each_platform
def test_a_token_of_another_document_changes_nothing(platform):
    case, key = inputs(1, 128, 2, 64), jax.random.key(0)
    y, dx, *_ = kernel(case, 0.0, key, platform)
    is_other = case.segments == 2
    case.x = jnp.where(is_other[:, :, None], 5.0, case.x)
    changed_y, changed_dx, *_ = kernel(case, 0.0, key, platform)
    np.testing.assert_array_equal(y[~is_other], changed_y[~is_other])
    np.testing.assert_array_equal(dx[~is_other], changed_dx[~is_other])
    assert not np.allclose(y[is_other], changed_y[is_other])


@for_each_platform
def test_on_a_mesh_each_device_runs_its_shard_and_drops_the_same(platform):
    case, key = inputs(2, 128, 4, 64), jax.random.key(3)
    expected = plain(case, 0.1, key)
    mesh = jax.make_mesh((1, 2, 2), ("data", "fsdp", "tensor"), (AxisType.Auto,) * 3, devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        assert_near(kernel(case, 0.1, key, platform), expected)


def test_unsupported_sizes_are_rejected():
    supports = attention_tpu.supports
    assert supports(512, 12, 64) and supports(128, 1, 64) and supports(128, 4, 32)
    assert not supports(96, 12, 64), "a row must fill registers"
    assert not supports(1024, 12, 64), "the square is too large"
    assert not supports(512, 3, 64), "the heads fill half a register"
    assert not supports(512, 4, 96), "a head crosses registers"
    supports = attention_gpu.supports
    assert supports(512, 12, 64) and supports(64, 3, 32) and supports(2048, 12, 128)
    assert not supports(96, 12, 64), "the row is one and a half blocks"
    assert not supports(512, 4, 96), "the head size is not a power of two"
    assert not attention_kernel.supports(512, 12, 64), "there is no kernel for a CPU"
