"""Times each Pallas kernel on one GPU, at the sizes of a layer of ELECTRA-base, against its plain form.

    python tests/benchmarks/gpu_kernels.py [--rows 64]
    python tests/benchmarks/gpu_kernels.py --cpu_check    # the same code, tiny and interpreted: its times mean nothing

For each it prints microseconds forward, and forward and backward, of the kernel and of the plain form in bfloat16; and
how far results and gradients are from the plain form in float32, as norms of the difference over norms. A bfloat16's
rounding is 2e-3. Dropout leaves out the same numbers in both.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable

CPU_CHECK = "--cpu_check" in sys.argv
os.environ["JAX_PLATFORMS"] = "cpu" if CPU_CHECK or {"-h", "--help"} & set(sys.argv) else "cuda"

import jax
import jax.numpy as jnp
import side_by_side

from electramed_jax.model import attention, layers, masking
from electramed_jax.model.kernels import attention_gpu, gelu_gpu, residual_norm
from electramed_jax.model.kernels.attention_spec import AttentionSpec
from electramed_jax.model.ops import dropout_bits

T, N, H, F = (64, 2, 32, 256) if CPU_CHECK else (512, 12, 64, 3072)
D, KEY = N * H, jax.random.key(3)
Form = Callable[..., jax.Array]


def attention_case(rows: int, rate: float) -> tuple[Form, Form, list[jax.Array]]:
    config = side_by_side.sized("tiny", rows, T)
    ids = side_by_side.random_batch(config)["input_ids"]
    segments = masking.packed_segments(ids, config.data.special).segments_BT
    spec = AttentionSpec(H, rate, interpret="gpu" if CPU_CHECK else None)
    seeds, bounds = dropout_bits.dropout_seeds(KEY, (rows, N)), attention_gpu.document_bounds(segments)

    def kernel(product: jax.Array, bias: jax.Array) -> jax.Array:
        return attention_gpu._attend(product, bias, bounds, seeds, spec)

    def plain(product: jax.Array, bias: jax.Array) -> jax.Array:
        qkv = (product + bias.reshape(-1).astype(product.dtype)).reshape(rows, T, 3, N, H)
        y = attention.attend(
            *(qkv[:, :, i] for i in range(3)), segments, product.dtype, dropout_rate=rate, seeds_2BN=seeds
        )
        return y.reshape(rows, T, D)

    return kernel, plain, [normal(1, rows, T, 3 * D), normal(2, 3, D, dtype="float32")]


def norm_case(rows: int, rate: float) -> tuple[Form, Form, list[jax.Array]]:
    seeds = dropout_bits.dropout_seeds(KEY, (rows,))

    def kernel(*given: jax.Array) -> jax.Array:
        return residual_norm.residual_norm(*given, seeds, rate, "gpu" if CPU_CHECK else None)

    def plain(x: jax.Array, y: jax.Array, y_bias: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        return layers.layer_norm(x + layers.dropout(y + y_bias.astype(y.dtype), rate, seeds), scale, bias)

    tokens, features = [normal(i, rows, T, D) for i in (1, 2)], [normal(i, D, dtype="float32") for i in (3, 4, 5)]
    return kernel, plain, [*tokens, *features]


def gelu_case(rows: int, rate: float) -> tuple[Form, Form, list[jax.Array]]:
    kernel = functools.partial(gelu_gpu.biased_gelu, interpret=CPU_CHECK)
    return kernel, layers.biased_gelu, [normal(1, rows, T, F), normal(2, F, dtype="float32")]


CASES = {
    "attention": (attention_case, 0.0),
    "attention, dropout 0.1": (attention_case, 0.1),
    "dropout 0.1, residual, norm": (norm_case, 0.1),
    "residual, norm": (norm_case, 0.0),
    "bias, GELU": (gelu_case, 0.0),
}


def normal(seed: int, *shape: int, dtype: str = "bfloat16") -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, jnp.dtype(dtype))


def there_and_back(form: Form, dy: jax.Array, *given: jax.Array) -> tuple[jax.Array, ...]:
    y, back = jax.vjp(form, *given)
    return y, *back(dy.astype(y.dtype))


def microseconds(run: Callable[..., object], given: list[jax.Array], calls: int = 10, rounds: int = 5) -> float:
    """Returns the time of one of `calls` asynchronous calls; the median of `rounds`."""
    jax.block_until_ready(run(*given))
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        results = [run(*given) for _ in range(calls)]
        jax.block_until_ready(results[-1])
        seconds.append((time.perf_counter() - began) / calls)
    return 1e6 * statistics.median(seconds)


def off(ours: tuple[jax.Array, ...], exact: tuple[jax.Array, ...]) -> str:
    """Returns the distance of the results and the largest distance of the gradients."""
    errors = [
        float(jnp.linalg.norm((one.astype(jnp.float32) - other).ravel()) / jnp.linalg.norm(other.ravel()))
        for one, other in zip(ours, exact, strict=True)
    ]
    return f"{errors[0]:.1e}, {max(errors[1:]):.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4 if CPU_CHECK else 64)
    parser.add_argument("--cpu_check", action="store_true")
    args = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, {args.rows} rows of {T}, width {D}")
    print(f"{'':30}{'forward, µs':>20}{'and back, µs':>20}   off by (result, gradients)")
    print(f"{'':30}{'kernel':>10}{'plain':>10}{'kernel':>10}{'plain':>10}   kernel              plain")
    for name, (case, rate) in CASES.items():
        kernel, plain, given = case(args.rows, rate)
        dy = normal(9, *jax.eval_shape(plain, *given).shape)
        both = [jax.jit(functools.partial(there_and_back, form)) for form in (kernel, plain)]
        times = [microseconds(jax.jit(form), given) for form in (kernel, plain)]
        times += [microseconds(one, [dy, *given]) for one in both]
        exact = both[1](dy, *(one.astype(jnp.float32) for one in given))
        distances = [off(one(dy, *given), exact) for one in both]
        print(
            f"{name:30}" + "".join(f"{one:10.1f}" for one in times) + f"   {distances[0]:20}{distances[1]}", flush=True
        )


if __name__ == "__main__":
    main()
