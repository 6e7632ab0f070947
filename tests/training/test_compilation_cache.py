"""The compilation cache in the workdir of a run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from electramed_jax.training import compilation_cache as compiled


@pytest.fixture(autouse=True)
def only_the_cache_of_the_workdir(monkeypatch):
    """Disables the cache that the training tests share."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(compiled, "MIN_COMPILE_SECONDS", 0.0)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def compile_once() -> list[str]:
    """Compiles a program after clearing the in-memory caches. Returns the events of jax's persistent cache."""
    events: list[str] = []
    listen = lambda event, **_: events.append(event)  # noqa: E731
    jax.monitoring.register_event_listener(listen)
    try:
        jax.clear_caches()
        jax.jit(lambda x: jnp.sin(x) * 3)(jnp.ones(3)).block_until_ready()
    finally:
        jax.monitoring.unregister_event_listener(listen)
    return events


@pytest.mark.slow
def test_a_compiled_program_is_reused_and_nothing_is_written_outside_the_context(tmp_path):
    with compiled.use_compilation_cache(str(tmp_path)):
        assert "/jax/compilation_cache/cache_hits" not in compile_once()
    entries = sorted(tmp_path.rglob("*-cache"))
    assert entries
    with compiled.use_compilation_cache(str(tmp_path)):
        assert "/jax/compilation_cache/cache_hits" in compile_once()
    jax.jit(lambda x: x - 7)(jnp.ones(3)).block_until_ready()
    assert sorted(tmp_path.rglob("*-cache")) == entries


def test_a_damaged_program_is_recompiled(tmp_path):
    with compiled.use_compilation_cache(str(tmp_path)):
        compile_once()
    for path in tmp_path.rglob("*-cache"):
        path.write_bytes(path.read_bytes()[:20])
    with compiled.use_compilation_cache(str(tmp_path)), pytest.warns(UserWarning, match="persistent compilation cache"):
        compile_once()


def test_a_cache_folder_set_by_the_user_is_kept(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    with compiled.use_compilation_cache(str(tmp_path / "run")):
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
        compile_once()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["memory", "gs"])
def test_a_program_is_reused_from_a_remote_workdir(folder_in, kind):
    workdir = f"{folder_in(kind)}/run"
    with compiled.use_compilation_cache(workdir) as cache:
        assert "/jax/compilation_cache/cache_hits" not in compile_once()
        cache.store()
    with compiled.use_compilation_cache(workdir):
        assert "/jax/compilation_cache/cache_hits" in compile_once()


def test_storage_that_fails_does_not_end_a_run(capsys):
    with compiled.use_compilation_cache("unknown://bucket/run"):
        compile_once()
    assert "unknown://bucket/run/compiled" in capsys.readouterr().err
