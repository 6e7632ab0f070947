"""Shared fixtures: eight virtual CPU devices, the reference data, fake storage, a packed dataset and its run config."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import types
import uuid

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import fake_gcs
import jax
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
    """Returns the folder of real corpora, vocabularies and reference numbers; skips the test if it does not exist."""
    folder = pathlib.Path(os.environ.get("ELECTRAMED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the reference data: no folder {folder} (set ELECTRAMED_DATA)")
    return folder


@pytest.fixture(scope="session")
def _fake_gcs():
    with fake_gcs.running() as storage:
        yield storage


@pytest.fixture
def gcs(_fake_gcs):
    """Redirects gs:// to an empty fake, `fake_gcs.Storage`, and removes the pauses between retries."""
    instant = types.SimpleNamespace(sleep=lambda _: asyncio.sleep(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gcsfs.retry.asyncio", instant)
        patch.setattr("electramed_jax.common.storage.remote.PAUSE_SECONDS", (0, 0, 0))
        yield _fake_gcs
    _fake_gcs.clear()


@pytest.fixture
def folder_in(request, tmp_path):
    """Returns `folder_in(kind)`, which makes a new folder on disk ("local"), in fsspec's "memory" or on "gs"."""

    def make(kind: str) -> str:
        if kind == "local":
            return str(tmp_path)
        if kind == "gs":
            request.getfixturevalue("gcs")
        return f"{kind}://{uuid.uuid4().hex}"

    return make


MULTIPROCESS = {"test_multiprocess.py", "test_local_processes.py", "test_slurm.py", "test_distributed.py"}


def pytest_collection_modifyitems(items):
    """Sets the markers that follow from a test's file or fixtures; `slow` is set in the test files."""
    for item in items:
        if "shared_data" in item.fixturenames:
            item.add_marker("reference_data")
        if "_vs_" in item.path.name:
            item.add_marker("oracle")
        if item.path.name in MULTIPROCESS:
            item.add_marker("multiprocess")


def pytest_configure():
    """Restores the handler of Ctrl-C: a shell's background process ignores it, and child processes inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _restore_sigterm():
    """Restores the handler of SIGTERM: a run that SIGTERM stopped ignores it, and child processes inherit that."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def repository() -> pathlib.Path:
    """Returns the root folder of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def quick_compilation(tmp_path_factory):
    """Replaces `jax.jit` by `quick.jit`, with a compilation cache for the session."""
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
    """Returns a dataset of about 200 synthetic articles packed in rows of 32 tokens."""
    return quick_run.pack(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def run_config(packed) -> Config:
    """Returns the config of `quick_run.settings` for the dataset."""
    return loop.resolve_with_dataset(from_flags(quick_run.settings(packed)))[0]
