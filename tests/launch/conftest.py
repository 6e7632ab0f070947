from __future__ import annotations

import pathlib

import pytest
import quick_run
from stand_ins import Programs

from electramed_jax.data import build, synthetic


@pytest.fixture
def programs(tmp_path) -> Programs:
    """A PATH that holds stand-ins for the programs that launchers call, and the system's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    made = Programs(folder)
    for name in ("gcloud", "kubectl", "sbatch", "srun", "scontrol", "electramed", "sudo"):
        made.add(name)
    return made


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> pathlib.Path:
    """Some 200 invented articles as packed rows of 32."""
    folder = tmp_path_factory.mktemp("dataset")
    articles = synthetic.write_pubmed_xml(str(folder / "xml"), articles=200, num_files=1)
    documents, vocab, rows = (str(folder / name) for name in ("documents", "vocab.txt", "packed"))
    build.prepare(articles, documents, validation=0.1, test=0.0, workers=1)
    build.train_vocab(documents, vocab, size=600)
    build.pack(documents, vocab, rows, row_length=quick_run.ROW_LENGTH, workers=1)
    return folder / "packed"
