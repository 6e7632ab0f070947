"""Compares each kernel with its plain form on this device, on the sizes of a run, before the run uses it.

Result and gradients of both forms are compared with the plain form in float32, with and without dropout. A kernel is
equal if its error is not much larger than that of the plain form in the compute dtype. The same units must be dropped,
so that a wrong dropout mask is a large error.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from electramed_jax.common.errors import first_line
from electramed_jax.config.pretrain import KERNELS, EncoderConfig, ModelConfig
from electramed_jax.model import attention, layers
from electramed_jax.model.kernels import attention as attention_kernel
from electramed_jax.model.kernels import gelu as gelu_kernel
from electramed_jax.model.kernels import residual_norm as norm_kernel
from electramed_jax.model.kernels.attention_spec import AttentionSpec
from electramed_jax.model.ops import dropout_bits

# A kernel's error may be this many times the plain form's, but at least MIN_ALLOWED: in float32 the plain form may
# be exact. Measured on an H200 in bfloat16: up to 1.4 times (tests/benchmarks/README.md).
MAX_ERROR_RATIO, MIN_ALLOWED = 3.0, 1e-4
MAX_ROWS = 8  # of a check; kernels handle rows alone, or up to four short ones together
DOCUMENT_TOKENS = 100  # length of the documents of a row

Form = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class KernelCheck:
    """Result of comparing one kernel with its plain form.

    Attributes:
      kernel: its name in `model.kernels`.
      where: "discriminator" or "generator", and the dropout rate.
      error: relative error of the worst of result and gradients; NaN if the kernel did not run.
      allowed: the largest error that counts as equal.
      failure: why the kernel did not run; "" if it did.
      seconds: duration, compilation included.
    """

    kernel: str
    where: str
    error: float
    allowed: float
    failure: str
    seconds: float

    @property
    def is_equal(self) -> bool:
        """Whether the kernel ran and equals the plain form; NaN is not equal."""
        return not self.failure and self.error <= self.allowed

    def __str__(self) -> str:
        what = f"kernel {self.kernel} ({self.where})"
        if self.failure:
            return f"{what}: did not run ({self.failure})"
        relation = "equals" if self.is_equal else "differs from"
        return (
            f"{what}: {relation} the plain form, error {self.error:.1e} of at most {self.allowed:.1e}, "
            f"{self.seconds:.1f} s"
        )


def check_kernels(
    model: ModelConfig, row_length: int, rows: int, *, tensor_shards: int = 1, interpret: str | None = None
) -> list[KernelCheck]:
    """Returns one check for each kernel of `model.kernels`, encoder and dropout rate with sizes that it supports.

    The checks compile at the same time, on all cores of the host.

    Args:
      model: sizes, dtype, dropout rates and kernels. `attention_dropout` and `dropout` are checked with their rates and
        with 0.
      row_length: tokens of a row.
      rows: of a device; at most `MAX_ROWS` are used.
      tensor_shards: size of the mesh axis `tensor`, which divides heads and feed-forward widths.
      interpret: "tpu" or "gpu" runs these kernels in Pallas' interpret mode, for tests.
    """
    rows = min(rows, MAX_ROWS)
    cases = [
        (name, f"{label}, dropout {rate:g}", case)
        for label, sizes in _encoders(model).items()
        for name in KERNELS
        if model.uses_kernel(name)
        for rate, case in _cases(name, sizes, model, (rows, row_length), tensor_shards, interpret)
    ]
    dtype = jnp.dtype(model.compute_dtype)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(lambda one: _check(one[0], one[1], one[2], dtype), cases))


def _encoders(model: ModelConfig) -> dict[str, EncoderConfig]:
    encoders = {"discriminator": model.discriminator, "generator": model.generator}
    return encoders if model.tying != "all" else {"discriminator": model.discriminator}


@dataclasses.dataclass(frozen=True)
class _Case:
    """Two forms of a function, its float32 arguments, and the shape of its result."""

    kernel: Form
    plain: Form
    arguments: tuple[jax.Array, ...]
    shape: tuple[int, ...]


def _cases(
    name: str,
    sizes: EncoderConfig,
    model: ModelConfig,
    batch: tuple[int, int],
    shards: int,
    interpret: str | None,
) -> Iterator[tuple[float, _Case]]:
    """Yields (dropout rate, case) of a kernel on one encoder; nothing if the kernel does not support its sizes."""
    B, T = batch
    heads, width = sizes.num_heads // shards, sizes.intermediate_size // shards
    normal = _Normal()
    if name == "gelu":
        if interpret or gelu_kernel.supports(T, width, jnp.dtype(model.compute_dtype)):
            yield 0.0, _Case(_gelu(interpret), layers.biased_gelu, (normal(B, T, width), normal(width)), (B, T, width))
        return
    rate = model.attention_dropout if name == "attention" else model.dropout
    for one in sorted({0.0, rate}):
        paired = model.attention_dropout_hash == "paired"
        if name == "attention" and (
            interpret or attention_kernel.supports(T, heads, sizes.head_size, paired_dropout=paired)
        ):
            spec = AttentionSpec(sizes.head_size, one, paired, interpret)
            yield one, _attention_case(normal, B, T, sizes.hidden_size, heads, spec)
        if name == "residual_norm" and (interpret or norm_kernel.supports(T, sizes.hidden_size)):
            yield one, _norm_case(normal, B, T, sizes.hidden_size, one, interpret)


class _Normal:
    """Draws float32 arrays of standard normal numbers, each from a key of its own."""

    def __init__(self) -> None:
        self._key = jax.random.key(0)

    def __call__(self, *shape: int) -> jax.Array:
        self._key, key = jax.random.split(self._key)
        return jax.random.normal(key, shape)


def _gelu(interpret: str | None) -> Form:
    if interpret is None:
        return gelu_kernel.biased_gelu
    module = gelu_kernel.load_kernels(interpret)
    assert module is not None, "only GPUs have this kernel"
    return lambda x, bias: module.biased_gelu(x, bias, True)


def _attention_case(normal: _Normal, B: int, T: int, D: int, N: int, spec: AttentionSpec) -> _Case:
    segments_BT = jnp.broadcast_to(1 + jnp.arange(T, dtype=jnp.int32)[None] // DOCUMENT_TOKENS, (B, T))
    seeds_2BN = dropout_bits.dropout_seeds(jax.random.key(1), (B, N))
    assert seeds_2BN is not None, "there is a key"
    H = spec.head_size

    def kernel(x: jax.Array, weights: jax.Array, bias: jax.Array) -> jax.Array:
        return attention_kernel.attend(x, weights, bias, segments_BT, seeds_2BN, spec)

    def plain(x: jax.Array, weights: jax.Array, bias: jax.Array) -> jax.Array:
        qkv = jnp.einsum("btd,dcf->cbtf", x, weights) + bias[:, None, None, :]
        q, k, v = qkv.reshape(3, B, T, N, H)
        y = attention.attend(
            q,
            k,
            v,
            segments_BT,
            x.dtype,
            dropout_rate=spec.dropout_rate,
            seeds_2BN=seeds_2BN,
            paired_dropout=spec.paired_dropout,
        )
        return y.reshape(B, T, N * H)

    weights = 2 * D**-0.5 * normal(D, 3, N * H)
    return _Case(kernel, plain, (normal(B, T, D), weights, normal(3, N * H)), (B, T, N * H))


def _norm_case(normal: _Normal, B: int, T: int, D: int, rate: float, interpret: str | None) -> _Case:
    seeds_2B = dropout_bits.dropout_seeds(jax.random.key(1), (B,))
    assert seeds_2B is not None, "there is a key"

    def kernel(x: jax.Array, y: jax.Array, *features: jax.Array) -> jax.Array:
        y_bias, scale, bias = (feature.astype(jnp.float32) for feature in features)
        return norm_kernel.residual_norm(x, y, y_bias, scale, bias, seeds_2B, rate, interpret)

    def plain(x: jax.Array, y: jax.Array, y_bias: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        y = layers.dropout(y + y_bias.astype(y.dtype)[None, None], rate, seeds_2B)
        return layers.layer_norm(x + y, scale.astype(jnp.float32), bias.astype(jnp.float32))

    return _Case(kernel, plain, (normal(B, T, D), normal(B, T, D), normal(D), normal(D), normal(D)), (B, T, D))


def _check(name: str, where: str, case: _Case, dtype: jnp.dtype) -> KernelCheck:
    began = time.monotonic()
    arguments = [one.astype(dtype) for one in (*case.arguments, _Normal()(*case.shape))]
    error, allowed, failure = math.nan, math.nan, ""
    try:
        error, plain_error = map(float, jax.jit(functools.partial(_errors, case))(arguments))
        allowed = MAX_ERROR_RATIO * plain_error + MIN_ALLOWED
    except Exception as reason:  # noqa: BLE001 - whatever the compiler or the device raises, the plain form still works
        failure = first_line(reason)
    return KernelCheck(name, where, error, allowed, failure, time.monotonic() - began)


def _errors(case: _Case, arguments: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Returns the errors of the kernel and of the plain form, against the plain form in float32."""
    with jax.default_matmul_precision("highest"):
        exact = _results(case.plain, [one.astype(jnp.float32) for one in arguments])
    kernel, plain = (_results(form, arguments) for form in (case.kernel, case.plain))
    return _distance(kernel, exact), _distance(plain, exact)


def _results(form: Form, arguments: list[jax.Array]) -> list[jax.Array]:
    """Returns result and gradients of a form, in float32. The last argument is the gradient of the result."""
    *given, gradient = arguments
    y, vjp = jax.vjp(form, *given)
    return [one.astype(jnp.float32) for one in (y, *vjp(gradient.astype(y.dtype)))]


def _distance(ours: list[jax.Array], exact: list[jax.Array]) -> jax.Array:
    """Returns the largest relative error of result and gradients."""
    norm = jnp.linalg.norm
    return jnp.max(jnp.stack([norm(one - other) / norm(other) for one, other in zip(ours, exact, strict=True)]))
