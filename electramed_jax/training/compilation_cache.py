"""Compiled programs kept in the workdir, so that a run that goes on need not compile its step again."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import platform
from collections.abc import Iterator

import jax
from jax.experimental.compilation_cache import compilation_cache

from electramed_jax.common.storage import files

CACHE_FOLDER = "compiled"  # in the workdir; may be removed at any time
MIN_COMPILE_SECONDS = 0.5  # of compilation: what is faster is not kept


@contextlib.contextmanager
def use_compilation_cache(workdir: str) -> Iterator[None]:
    """Inside, jax keeps and looks for compiled programs in workdir/compiled.

    Nothing changes where the user named a place (JAX_COMPILATION_CACHE_DIR) or switched it off
    (JAX_ENABLE_COMPILATION_CACHE=false), nor where the workdir is remote: name a local place there. jax finds a program
    by its text, its options, the devices and the versions, and compiles anew what cannot be read.
    """
    local = files.local_path(workdir)
    if local is None or jax.config.jax_compilation_cache_dir or not jax.config.jax_enable_compilation_cache:
        yield
        return
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    _use(files.join(local, CACHE_FOLDER, _host()), min(before, MIN_COMPILE_SECONDS))
    try:
        yield
    finally:
        _use(None, before)


def _use(folder: str | None, least_seconds: float) -> None:
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least_seconds)
    compilation_cache.reset_cache()  # jax looks at the settings once


def _host() -> str:
    """A folder's name: a CPU's programs are for its own instruction set, and a workdir may meet several hosts."""
    if jax.default_backend() != "cpu":
        return jax.default_backend()
    features = platform.machine()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        features += "".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
    return f"cpu-{hashlib.sha256(features.encode()).hexdigest()[:12]}"
