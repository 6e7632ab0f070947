"""Eight virtual CPU devices for every test, and the door to the real data."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import types
import uuid

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import pretend_gcs
import pytest
import quick
import quick_run
from jax.experimental.compilation_cache import compilation_cache

from electramed_jax.config import Config, from_flags
from electramed_jax.pretrain import loop

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
COMPILATION_CACHE = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real corpora, vocabularies and reference numbers, or a skip that says where it was sought."""
    folder = pathlib.Path(os.environ.get("ELECTRAMED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the reference data: no folder {folder} (set ELECTRAMED_DATA)")
    return folder


@pytest.fixture(scope="session")
def _pretended_gcs():
    with pretend_gcs.running() as storage:
        yield storage


@pytest.fixture
def gcs(_pretended_gcs):
    """gs:// on this machine, through gcsfs, empty; see `pretend_gcs.Storage`. gcsfs does not pause before trying again."""
    instant = types.SimpleNamespace(sleep=lambda _: asyncio.sleep(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gcsfs.retry.asyncio", instant)
        patch.setattr("electramed_jax.common.storage.remote.PAUSE_SECONDS", (0, 0, 0))
        yield _pretended_gcs
    _pretended_gcs.clear()


@pytest.fixture
def folder_in(request, tmp_path):
    """`folder_in(kind)`: a fresh folder on disk ("local"), in fsspec's "memory", or on "gs"."""

    def make(kind: str) -> str:
        if kind == "local":
            return str(tmp_path)
        if kind == "gs":
            request.getfixturevalue("gcs")
        return f"{kind}://{uuid.uuid4().hex}"

    return make


def pytest_configure():
    """Started in the background by a shell, a process ignores Ctrl-C, and so would those that tests start and stop."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _sigterm_as_before():
    """A run that SIGTERM has stopped ignores it from then on; the next test's processes would inherit that."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def repository() -> pathlib.Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def quick_compilation(tmp_path_factory):
    """The package's `jax.jit` compiles as `quick.jit` does, and each program once for the whole session."""
    wanted = COMPILATION_CACHE | {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled"))}
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
    return loop.resolve_with_dataset(from_flags(quick_run.settings(packed)))[0]
