"""Config, manifest and entries of metrics.jsonl of an invented run of ELECTRA-Small that is healthy."""

from __future__ import annotations

import math

from electramed_jax.config.pretrain import Config, DataConfig, ModelConfig, OptimizerConfig
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.dataset.manifest import Manifest, Split

VOCABULARY = 31_090
CONFIG = Config(
    model=ModelConfig(vocab_size=VOCABULARY),
    optimizer=OptimizerConfig(warmup_steps=10_000),
    data=DataConfig(directory="packed", max_seq_length=128),
    batch_size=128,
    total_steps=1_000_000,
)
SPLIT = Split((), rows=1, tokens=1, documents=1, split_documents=0, fill_fraction=0.99, unigram_cross_entropy=7.18)
MANIFEST = Manifest(
    row_length=128,
    dtype="uint16",
    vocab_size=VOCABULARY,
    vocab_sha256="",
    lower_case=True,
    special=SpecialIds(),
    splits={"train": SPLIT, "validation": SPLIT},
    sources=[],
    dropped={},
    length_histogram={},
    code_version="",
)
HEALTHY = {
    "loss": 13.1,
    "generator_loss": 3.42,
    "generator_accuracy": 0.432,
    "sampled_accuracy": 0.328,
    "discriminator_loss": 0.195,
    "discriminator_accuracy": 0.929,
    "discriminator_precision": 0.74,
    "discriminator_recall": 0.4,
    "replaced_fraction": 0.093,
    "fill_fraction": 0.99,
}
FRESH = HEALTHY | {
    "generator_loss": math.log(VOCABULARY),
    "discriminator_loss": math.log(2),
    "discriminator_accuracy": 0.5,
    "replaced_fraction": 0.15,
}


def train(*steps: int, **metrics: float) -> list[dict]:
    return [{"step": step, "split": "train"} | HEALTHY | metrics for step in steps]


def validation(step: int, **metrics: float) -> dict:
    return {"step": step, "split": "validation"} | HEALTHY | {"discriminator_auc": 0.9} | metrics
