"""`jax.jit` for tests, which compile a program to run it once or twice: one sixth of the time, the same arithmetic."""

from __future__ import annotations

import functools

import jax

jit = functools.partial(
    jax.jit,
    compiler_options={"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False},
)
