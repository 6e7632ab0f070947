"""A persistent compilation cache in the workdir, so that a resumed run does not compile its step again."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import platform
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from electramed_jax.common.storage import files

CACHE_FOLDER = "compiled"  # in the workdir; may be deleted at any time
MIN_COMPILE_SECONDS = 0.5  # programs that compile faster are not stored


@contextlib.contextmanager
def use_compilation_cache(workdir: str) -> Iterator[None]:
    """Inside the context, jax stores compiled programs in workdir/compiled and reuses them.

    Does nothing if the user set a folder (JAX_COMPILATION_CACHE_DIR) or disabled the cache
    (JAX_ENABLE_COMPILATION_CACHE=false), or if the workdir is remote: set a local folder then. The key of a program is
    its text, options, devices and versions. jax recompiles entries that cannot be read.
    """
    local = files.local_path(workdir)
    if local is None or _option("jax_compilation_cache_dir") or not _option("jax_enable_compilation_cache"):
        yield
        return
    before = _option("jax_persistent_cache_min_compile_time_secs")
    _set_cache(files.join(local, CACHE_FOLDER, _platform_folder()), min(before, MIN_COMPILE_SECONDS))
    try:
        yield
    finally:
        _set_cache(None, before)


def _option(name: str) -> Any:
    return getattr(jax.config, name)  # jax sets its options as attributes at run time


def _set_cache(folder: str | None, min_compile_seconds: float) -> None:
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", min_compile_seconds)
    compilation_cache.reset_cache()  # jax reads the options once


def _platform_folder() -> str:
    """Returns the name of the platform, for CPUs with a hash of the instruction set.

    Programs for CPUs run only on their own instruction set, and several hosts may share a workdir.
    """
    if jax.default_backend() != "cpu":
        return jax.default_backend()
    features = platform.machine()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        features += "".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
    return f"cpu-{hashlib.sha256(features.encode()).hexdigest()[:12]}"
