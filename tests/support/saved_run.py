"""A workdir with a checkpoint of random parameters on a dataset of synthetic sentences; no step is trained."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import numpy as np

from electramed_jax.config import pretrain as config_lib
from electramed_jax.config.pretrain import Config, MeshConfig, ModelConfig, ObjectiveConfig
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.packing import build
from electramed_jax.data.tokenizer.train_vocab import train_vocab
from electramed_jax.pretrain import loop
from electramed_jax.pretrain.checkpoint import checkpoint_manager
from electramed_jax.pretrain.state import abstract_state
from electramed_jax.pretrain.workdir import init_workdir
from electramed_jax.training import sharding

WORDS = "aspirin inhibits fever in the rat and binds a kinase of unknown function".split()
MODEL = ModelConfig(
    max_positions=32,
    embedding_size=8,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    intermediate_size=16,
    generator_hidden_size=8,
    generator_num_layers=1,
    generator_num_heads=1,
    generator_intermediate_size=16,
)


def pack(folder: pathlib.Path) -> str:
    """Packs synthetic sentences; returns the folder of the dataset."""
    rng = np.random.default_rng(0)
    texts = (" ".join(rng.choice(WORDS, 30)) for _ in range(60))
    lines = [json.dumps({"text": f"{text}."}) for text in texts]
    (folder / "text.jsonl").write_text("\n".join(lines))
    documents, vocab_path = str(folder / "documents"), str(folder / "vocab.txt")
    prepare([str(folder / "text.jsonl")], documents, FilterConfig(validation=0.1, test=0.1), workers=1)
    train_vocab(documents, vocab_path, size=90)
    build.pack(documents, vocab_path, str(folder / "rows"), row_length=32, workers=1)
    return str(folder / "rows")


def save(packed: str, workdir: pathlib.Path, kind: str = "electra", tying: str = "embeddings", *, seed: int = 1):
    """Writes a workdir with a checkpoint of random parameters at step 3; returns the config and the parameters."""
    config, dataset = loop.resolve_with_dataset(
        Config(
            model=dataclasses.replace(MODEL, tying=tying),
            objective=ObjectiveConfig(kind=kind),
            data=config_lib.DataConfig(directory=packed),
            seed=5,
        )
    )
    rng = np.random.default_rng(seed)
    state = jax.tree.map(
        lambda leaf: jax.device_put(rng.normal(size=leaf.shape).astype(leaf.dtype), leaf.sharding),
        abstract_state(config, sharding.make_mesh(MeshConfig())),
    )
    init_workdir(str(workdir), config, dataset)
    with checkpoint_manager(str(workdir), config) as checkpoints:
        step = jax.device_put(np.int32(3), state.step.sharding)
        checkpoints.save(3, dataclasses.replace(state, step=step), {"step": 3})
    entries = [(2, "validation", 0.25), (3, "train", 0.5), (4, "validation", 0.75)]
    others = {"generator_loss": 3.0, "generator_accuracy": 0.3, "fill_fraction": 0.5}
    lines = [json.dumps({"step": s, "split": n, "discriminator_auc": v} | others) for s, n, v in entries]
    (workdir / "metrics.jsonl").write_text("\n".join(lines))
    return config, jax.device_get(state.params)
