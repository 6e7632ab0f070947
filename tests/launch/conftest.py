"""Fixtures of the launcher tests: a PATH of stand-ins, a packed dataset, fast compilation."""

from __future__ import annotations

import pathlib

import pytest
import quick
import quick_run
from stub_programs import Programs

from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.packing.build import pack
from electramed_jax.data.synthetic import pubmed_xml
from electramed_jax.data.tokenizer.train_vocab import train_vocab


@pytest.fixture
def programs(tmp_path) -> Programs:
    """Stand-ins for the programs that launchers call, on a PATH before those of the system."""
    folder = tmp_path / "bin"
    folder.mkdir()
    stand_ins = Programs(folder)
    for name in ("gcloud", "kubectl", "sbatch", "srun", "scontrol", "electramed", "sudo"):
        stand_ins.add(name)
    return stand_ins


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> pathlib.Path:
    """About 200 generated articles as packed rows of 32 tokens."""
    folder = tmp_path_factory.mktemp("dataset")
    articles = pubmed_xml.write_pubmed_xml(str(folder / "xml"), articles=200, num_files=1)
    documents, vocab, rows = (str(folder / name) for name in ("documents", "vocab.txt", "packed"))
    prepare(articles, documents, FilterConfig(validation=0.1, test=0.0), workers=1)
    train_vocab(documents, vocab, size=600)
    pack(documents, vocab, rows, row_length=quick_run.ROW_LENGTH, workers=1)
    return folder / "packed"


@pytest.fixture(scope="session")
def quick_compilation(tmp_path_factory) -> dict[str, str]:
    """Environment of test processes: two CPU devices each, fast compilation, and a shared compilation cache."""
    return {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{quick.FLAGS} --xla_force_host_platform_device_count=2",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
