"""Converts a checkpoint of google-research/electra (TensorFlow 1) to Hugging Face folders."""

from __future__ import annotations

import posixpath
from typing import Any

from electramed_jax import __version__
from electramed_jax.common import markdown
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.tokenizer import tokenizer as tokenize
from electramed_jax.data.tokenizer import vocab
from electramed_jax.hf import card
from electramed_jax.hf.format import config_json, mapping, tf_checkpoint
from electramed_jax.hf.format.mapping import DISCRIMINATOR
from electramed_jax.hf.write_folders import FolderContent, write_folders

CARD = """\
---
library_name: "transformers"
tags: ["electra"]
---

# {name}: {network}

A checkpoint of google-research/electra, converted by electramed_jax {version}. The checkpoint does not record its
training data. Its licence is the one it was published under.

## Use

```python
{use}
```
"""


def convert_checkpoint(
    prefix: str, output: str, *, vocab_path: str, lower_case: bool, keep_accents: bool = False, num_heads: int | None
) -> dict[str, Any]:
    """Writes OUTPUT/discriminator and OUTPUT/generator, if the checkpoint has them.

    Args:
      prefix: of the checkpoint, from `tf_checkpoint.find_checkpoint`.
      output: parent folder.
      vocab_path: vocab.txt that the model was trained with.
      lower_case, keep_accents: normalization of the text that the model was trained on, as in `Tokenizer`.
      num_heads: attention heads of the discriminator; None: by ELECTRA's rule.

    Returns:
      {"converted": folders, "left_out": variables that belong to no network}.

    Raises:
      UserError: the checkpoint cannot be read or is of another model, or the vocabulary does not fit it.
    """
    tensors, left_out = tf_checkpoint.to_hf_tensors(tf_checkpoint.read_variables(prefix))
    if not tensors:
        raise UserError(
            f"{prefix}: no variables of a pre-trained ELECTRA; wanted discriminator_predictions/... or "
            "generator_predictions/..."
        )
    if not files.exists(vocab_path):
        raise UserError(f"{vocab_path}: missing; set the vocabulary of the checkpoint with --vocab=FILE")
    tokenizer = tokenize.Tokenizer.from_tokens(vocab.read_vocab(vocab_path), lower_case, keep_accents=keep_accents)
    name = posixpath.basename(posixpath.dirname(prefix)) or posixpath.basename(prefix)
    contents = {}
    for network, named in tensors.items():
        sizes = tf_checkpoint.infer_sizes(named, num_heads if network == DISCRIMINATOR else None)
        if sizes.hidden_size % sizes.num_heads:
            raise UserError(f"--num_heads={num_heads} does not divide the width of the encoder, {sizes.hidden_size}")
        if len(tokenizer.tokens) != sizes.vocab_size:
            raise UserError(
                f"{vocab_path}: {len(tokenizer.tokens):,} tokens, but {prefix} has {sizes.vocab_size:,}; set the "
                "vocabulary that it was trained with: --vocab=FILE"
            )
        try:
            mapping.from_hf_tensors(named, sizes, network)  # checks that all tensors are there, with these shapes
        except UserError as error:
            raise UserError(f"{prefix}: {error}") from error
        config = config_json.to_config_json(sizes, network, sizes.to_model_config(), tokenizer.special.pad)
        text = CARD.format(name=markdown.escape(name), network=network, version=__version__, use=card.USAGE[network])
        contents[files.join(output, network)] = FolderContent(named, config, tokenizer, text)
    write_folders(contents)
    return {"converted": list(contents), "left_out": left_out}
