"""Placeholders such as @CHEMICAL$, which stand for the two mentions between which there may be a relation.

Cut into pieces, @CHEMICAL$ is three to five of them, and the word "chemical" like any other. Whole, it is an entry of
the vocabulary: it takes the place of one that was kept free for such ends ([unused0]), or is added behind the last.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

import numpy as np

from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.task.init_encoder import InitEncoder

PATTERN = re.compile(r"@[A-Z][A-Z0-9-]*\$")
UNUSED = re.compile(r"\[unused\d+\]")


def find_placeholders(texts: Iterable[str]) -> list[str]:
    """Each that stands in the texts, sorted."""
    return sorted({placeholder for text in texts for placeholder in PATTERN.findall(text)})


def add_to_vocabulary(start: InitEncoder, wanted: Sequence[str]) -> InitEncoder:
    """The encoder with these entries in its vocabulary; those it has stay as they are.

    The row of a new entry is the mean of the rows of its word's pieces: @CHEMICAL$ begins as "chemical".
    """
    tokens = list(start.tokens)
    free = [number for number, token in enumerate(tokens) if UNUSED.fullmatch(token)]
    new: dict[int, str] = {}
    for placeholder in wanted:
        if placeholder not in tokens:
            if free:
                number = free.pop(0)
                tokens[number] = placeholder
            else:
                number = len(tokens)
                tokens.append(placeholder)
            new[number] = placeholder
    model = dataclasses.replace(start.model, vocab_size=len(tokens))
    params = start.params
    if params and new:
        rows = params["embeddings"]["word"]
        table = np.zeros((model.padded_vocab_size, rows.shape[1]), np.float32)
        table[: len(start.tokens)] = rows[: len(start.tokens)]
        words = [re.sub(r"[@$-]+", " ", placeholder).strip() for placeholder in new.values()]
        pieces = Tokenizer.from_tokens(start.tokens, start.lower_case).encode_batch(words)
        for number, ids in zip(new, pieces, strict=True):
            table[number] = rows[ids].mean(axis=0)
        params = params | {"embeddings": params["embeddings"] | {"word": table}}
    return dataclasses.replace(start, model=model, tokens=tokens, params=params)
