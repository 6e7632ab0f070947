"""Exported fine-tuned models of random parameters, one of each kind."""

from __future__ import annotations

import jax
import numpy as np
from invented_corpus import TOKENS, tiny_init_encoder

from electramed_jax.common import tree_rules
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune import postprocess_config
from electramed_jax.finetune.postprocess_config import PostprocessConfig
from electramed_jax.finetune.task.task import SIGMOID, SOFTMAX, SQUARED, Head
from electramed_jax.finetune.training import model
from electramed_jax.hf import card, finetuned
from electramed_jax.hf.format.mapping import SEQUENCE, SPAN, TOKEN

LENGTH = 48  # pieces of a window
VOCABULARY = (*("@DRUG$" if token == "[unused0]" else token for token in TOKENS), ",", ".", "?", "(", ")")
TYPES = ("O", "B-Disease", "I-Disease", "B-Drug", "I-Drug")
HEADS = {
    "ner": Head(TOKEN, TYPES),
    "relations": Head(SEQUENCE, ("a", "b", "c"), SOFTMAX),
    "multilabel": Head(SEQUENCE, ("a", "b", "c"), SIGMOID),
    "similarity": Head(SEQUENCE, ("score",), SQUARED),
    "qa": Head(SPAN, ("start", "end")),
}


def exported(folder: str, kind: str) -> str:
    """A model of random parameters."""
    head = HEADS[kind]
    sizes = tiny_init_encoder(VOCABULARY, dropout=0.0, max_positions=LENGTH).model
    draw = np.random.default_rng(4)
    shapes = jax.eval_shape(lambda: model.init_params(sizes, head, jax.random.key(0)))
    params = tree_rules.map_named(
        lambda n, leaf: (0.4 * draw.normal(size=leaf.shape) + n.endswith("scale")).astype(np.float32), shapes
    )
    finetuned.export_finetuned(
        folder,
        params,
        sizes,
        Tokenizer.from_tokens(VOCABULARY, True, ("@DRUG$",)),
        kind=head.kind,
        labels=head.labels,
        loss=head.loss,
        postprocess=postprocess_config.to_json(PostprocessConfig(kind, LENGTH, max_query_length=8, doc_stride=16)),
        card_data=card.CardData("a test", {}, {}, {}),
    )
    return folder
