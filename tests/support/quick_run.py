"""A pre-training run of seconds: 20 steps of a one-layer model with dropout; each periodic event occurs more than once."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import quick

from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.packing import build
from electramed_jax.data.synthetic import pubmed_xml
from electramed_jax.data.tokenizer.train_vocab import train_vocab

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
ROW_LENGTH = 32
TOTAL_STEPS, LOG_EVERY, SAVE_EVERY, EVAL_EVERY = 20, 4, 5, 10
SETTINGS = {
    "model.max_positions": ROW_LENGTH,
    "model.embedding_size": 8,
    "model.hidden_size": 16,
    "model.num_layers": 1,
    "model.num_heads": 2,
    "model.intermediate_size": 32,
    "model.generator_hidden_size": 16,
    "model.generator_num_layers": 1,
    "model.generator_num_heads": 2,
    "model.generator_intermediate_size": 32,
    "model.dropout": 0.1,
    "model.attention_dropout": 0.1,
    "model.attention_dropout_hash": "single",
    "model.compute_dtype": "float32",
    "model.kernels": "none",
    "model.remat": "none",
    "model.scan_layers": True,
    "mesh.fsdp": 1,
    "optimizer.warmup_steps": 3,
    "optimizer.learning_rate": 0.01,
    "batch_size": 8,
    "total_steps": TOTAL_STEPS,
    "log_every": LOG_EVERY,
    "save_every": SAVE_EVERY,
    "eval_every": EVAL_EVERY,
    "eval_batches": 2,
    "max_to_keep": 100,
}


def pack(folder: pathlib.Path) -> pathlib.Path:
    """Packs 200 synthetic articles; returns the folder of the dataset."""
    articles = pubmed_xml.write_pubmed_xml(str(folder / "xml"), articles=200, num_files=1)
    documents, vocab, rows = (str(folder / name) for name in ("documents", "vocab.txt", "packed"))
    prepare(articles, documents, FilterConfig(validation=0.1, test=0.0), workers=1)
    train_vocab(documents, vocab, size=600)
    build.pack(documents, vocab, rows, row_length=ROW_LENGTH, workers=1)
    return folder / "packed"


def settings(dataset: pathlib.Path, **changed: object) -> list[str]:
    """Returns the settings as command-line flags; `model__dropout=0` changes `model.dropout`."""
    changes = {name.replace("__", "."): value for name, value in changed.items()}
    values = SETTINGS | {"data.directory": dataset} | changes
    config = f"--config={REPOSITORY / 'configs' / 'pretrain_tiny.py'}"
    return [config, *(f"--config.{name}={value}" for name, value in values.items())]


def start(*arguments: object, devices: int = 8, program: object = None, **environment: str) -> subprocess.Popen:
    """Starts `electramed` in another process on virtual devices; its standard error is a pipe of lines.

    Args:
      program: a script to run instead.
      environment: variables in addition to those of this process.
    """
    variables = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": quick.FLAGS}
    script = [program] if program else ["-m", "electramed_jax.cli"]
    return subprocess.Popen(
        [sys.executable, *map(str, script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | variables | environment,
    )
