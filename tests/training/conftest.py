"""A tiny dataset packed by the real pipeline, and a compiler in a hurry."""

from __future__ import annotations

import pathlib

import jax
import pytest
import quick
import quick_run
from jax.experimental.compilation_cache import compilation_cache

from electramed_jax.config import pretrain as config_lib
from electramed_jax.config.pretrain import Config
from electramed_jax.pretrain import loop

CACHE = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture(scope="session")
def quick_compilation(tmp_path_factory):
    """The package's `jax.jit` compiles as `quick.jit` does, and each program once for the whole session."""
    wanted = CACHE | {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled"))}
    before = {name: getattr(jax.config, name) for name in wanted}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick.jit)
        for name, value in wanted.items():
            jax.config.update(name, value)
            patch.setenv(name.upper(), str(value))  # for the processes that tests start
        compilation_cache.reset_cache()
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> pathlib.Path:
    """Some 200 invented articles as packed rows of 32."""
    return quick_run.pack(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def run_config(packed) -> Config:
    """What `quick_run.settings` makes of the dataset."""
    return loop.resolve_with_dataset(config_lib.from_flags(quick_run.settings(packed)))
