"""`jax.jit` for tests, which compile a program to run it once or twice: one sixth of the time, the same arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

OPTIONS: dict[str, int | bool] = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):  # later compilers have no such switch
    OPTIONS["xla_cpu_use_fusion_emitters"] = False
FLAGS = " ".join(f"--{name}={value}".lower() for name, value in OPTIONS.items())  # for a process of its own

_JIT = jax.jit  # tests put `jit` in its place


def jit(*function: Callable, compiler_options: dict | None = None, **how: Any) -> Callable:
    return _JIT(*function, compiler_options=OPTIONS | (compiler_options or {}), **how)
