"""Placeholders such as @CHEMICAL$, which replace the two mentions of a possible relation.

As ordinary text, @CHEMICAL$ is three to five word pieces, "chemical" among them. As a whole token it is an entry of the
vocabulary: it replaces an unused entry ([unused0]) or is appended.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

import numpy as np

from electramed_jax.finetune.task.init_encoder import InitEncoder

PATTERN = re.compile(r"@[A-Z][A-Z0-9-]*\$")
UNUSED = re.compile(r"\[unused\d+\]")


def find_placeholders(texts: Iterable[str]) -> list[str]:
    """Returns the distinct placeholders in the texts, sorted."""
    return sorted({placeholder for text in texts for placeholder in PATTERN.findall(text)})


def add_to_vocabulary(encoder: InitEncoder, placeholders: Sequence[str]) -> InitEncoder:
    """Returns the encoder with these placeholders in its vocabulary; existing entries do not change.

    The embedding of a new entry is the mean over the word pieces of its word: @CHEMICAL$ is initialized as "chemical".
    """
    tokens = list(encoder.tokens)
    free = [number for number, token in enumerate(tokens) if UNUSED.fullmatch(token)]
    new: dict[int, str] = {}
    for placeholder in placeholders:
        if placeholder not in tokens:
            if free:
                number = free.pop(0)
                tokens[number] = placeholder
            else:
                number = len(tokens)
                tokens.append(placeholder)
            new[number] = placeholder
    model = dataclasses.replace(encoder.model, vocab_size=len(tokens))
    params = encoder.params
    if params and new:
        rows = params["embeddings"]["word"]
        table = np.zeros((model.padded_vocab_size, rows.shape[1]), np.float32)
        table[: len(encoder.tokens)] = rows[: len(encoder.tokens)]
        words = [re.sub(r"[@$-]+", " ", placeholder).strip() for placeholder in new.values()]
        pieces = encoder.make_tokenizer().encode_batch(words)
        for number, ids in zip(new, pieces, strict=True):
            table[number] = rows[ids].mean(axis=0)
        params = params | {"embeddings": params["embeddings"] | {"word": table}}
    return dataclasses.replace(encoder, model=model, tokens=tokens, params=params)
