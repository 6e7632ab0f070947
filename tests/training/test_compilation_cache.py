"""A run that goes on finds its compiled step in the workdir."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from electramed_jax.training import compilation_cache as compiled


@pytest.fixture(autouse=True)
def no_cache_but_the_workdirs(monkeypatch):
    """The one that tests of training share is out of the way."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(compiled, "MIN_COMPILE_SECONDS", 0.0)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def compile_once() -> list[str]:
    """Compiles a program in a process that has forgotten it; returns the events of jax's cache."""
    events: list[str] = []
    listen = lambda event, **_: events.append(event)  # noqa: E731
    jax.monitoring.register_event_listener(listen)
    try:
        jax.clear_caches()
        jax.jit(lambda x: jnp.sin(x) * 3)(jnp.ones(3)).block_until_ready()
    finally:
        jax.monitoring.unregister_event_listener(listen)
    return events


def test_what_was_compiled_is_found_again_and_nothing_is_written_afterwards(tmp_path):
    with compiled.use_compilation_cache(str(tmp_path)):
        assert "/jax/compilation_cache/cache_hits" not in compile_once()
    kept = sorted(tmp_path.rglob("*-cache"))
    assert kept
    with compiled.use_compilation_cache(str(tmp_path)):
        assert "/jax/compilation_cache/cache_hits" in compile_once()
    jax.jit(lambda x: x - 7)(jnp.ones(3)).block_until_ready()
    assert sorted(tmp_path.rglob("*-cache")) == kept


def test_a_damaged_program_is_compiled_anew(tmp_path):
    with compiled.use_compilation_cache(str(tmp_path)):
        compile_once()
    for path in tmp_path.rglob("*-cache"):
        path.write_bytes(path.read_bytes()[:20])
    with compiled.use_compilation_cache(str(tmp_path)), pytest.warns(UserWarning, match="persistent compilation cache"):
        compile_once()


def test_the_place_that_a_user_named_is_left_alone(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    with compiled.use_compilation_cache(str(tmp_path / "run")):
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
        compile_once()
    assert not (tmp_path / "run").exists()


def test_a_remote_workdir_keeps_none():
    with compiled.use_compilation_cache("gs://bucket/run"):
        assert not jax.config.jax_compilation_cache_dir
