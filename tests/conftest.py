"""Eight virtual CPU devices for every test, and the door to the real data."""

from __future__ import annotations

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real corpora, vocabularies and reference numbers, or a skip that says where it was sought."""
    folder = pathlib.Path(os.environ.get("ELECTRAMED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the reference data: no folder {folder} (set ELECTRAMED_DATA)")
    return folder


@pytest.fixture(scope="session")
def repository() -> pathlib.Path:
    return REPOSITORY
