"""Small corpora that are easy to learn: drugs end in -ol, diseases in -itis."""

from __future__ import annotations

import pathlib
import random

from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.finetune.task.init_encoder import InitEncoder

DRUGS = ("atenolol", "metoprolol", "timolol")
DISEASES = ("gastritis", "arthritis", "nephritis")
OTHER = ("the", "of", "in", "with", "patients", "treated", "by", "a", "dose")
PIECES = ("at", "##en", "##ol", "met", "##op", "##r", "tim", "gast", "##ritis", "arth", "neph", "acute")
TOKENS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[unused0]",
    "[unused1]",
    *OTHER,
    *PIECES,
    "@",
    "$",
    "drug",
    "gene",
)


def conll(sentences: int, seed: int = 0, between: str = "\t") -> str:
    """Returns CoNLL text in IOB2 with two entity types; "acute gastritis" is one disease."""
    rng = random.Random(seed)
    lines = []
    for _ in range(sentences):
        for _ in range(rng.randrange(2, 9)):
            kind = rng.random()
            if kind < 0.2:
                lines.append(f"{rng.choice(DRUGS)}{between}B-Drug")
            elif kind < 0.3:
                lines += [f"acute{between}B-Disease", f"{rng.choice(DISEASES)}{between}I-Disease"]
            else:
                lines.append(f"{rng.choice(OTHER)}{between}O")
        lines.append("")
    return "\n".join(lines)


def write_conll(folder: pathlib.Path, train: int = 40, dev: int = 12, test: int = 12) -> pathlib.Path:
    """Writes train.txt, dev.txt and test.txt with these numbers of sentences."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (split, sentences) in enumerate({"train": train, "dev": dev, "test": test}.items()):
        (folder / f"{split}.txt").write_text(conll(sentences, number), encoding="utf-8")
    return folder


def tiny_init_encoder(tokens: tuple[str, ...] = TOKENS, dropout: float = 0.1, **sizes: int) -> InitEncoder:
    """Returns an encoder of two narrow layers, initialized from scratch."""
    model = ModelConfig(
        **dict(
            vocab_size=len(tokens),
            max_positions=32,
            embedding_size=8,
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            intermediate_size=32,
            dropout=dropout,
            attention_dropout=dropout,
            kernel_stddev=0.2,
            remat="none",
        )
        | sizes
    )
    return InitEncoder("scratch, for a test", model, tokens, True, {})
