"""`jax.jit` without compiler optimizations, for tests that run a compiled program once or twice.

Compilation takes one sixth of the time; the arithmetic is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

OPTIONS: dict[str, int | bool] = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):  # later compilers do not have this option
    OPTIONS["xla_cpu_use_fusion_emitters"] = False
FLAGS = " ".join(
    f"--{name}={value}".lower() for name, value in OPTIONS.items()
)  # command-line form, for XLA_FLAGS of another process

_JIT = jax.jit  # the fixture quick_compilation replaces jax.jit by `jit`


def jit(*function: Callable, compiler_options: dict | None = None, **options: Any) -> Callable:
    """Calls `jax.jit` with `OPTIONS`; `compiler_options` take precedence."""
    return _JIT(*function, compiler_options=OPTIONS | (compiler_options or {}), **options)
