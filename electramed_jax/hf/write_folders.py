"""Writes Hugging Face folders so that an incomplete one never opens, and none mixes an earlier export with the new one.

`from_pretrained` and `electramed import` need config.json. So the order is, for all folders of one export together:

1. config.json of an earlier export is removed;
2. the other files of an earlier export or download are removed: weights, tokenizer, card, pictures;
3. the new files are written, config.json last.

Other files in a folder, such as .git, stay.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from electramed_jax.common.storage import files
from electramed_jax.data.tokenizer import tokenizer as tokenize
from electramed_jax.data.tokenizer import vocab
from electramed_jax.hf.card_sections import CURVE_METRICS
from electramed_jax.hf.format import mapping, model_dir

# Files that belong to one model: ours, and those that transformers would load in addition to ours or instead of them.
MODEL_FILES = (
    model_dir.CONFIG, model_dir.TOKENIZER, model_dir.TOKENIZER_CONFIG, vocab.VOCAB_FILE, model_dir.CARD,
    "added_tokens.json", "special_tokens_map.json", "generation_config.json", "adapter_config.json",
    "model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack",
    "model.safetensors.index.json", "pytorch_model.bin.index.json", "model.onnx",
    *(f"{metric}.png" for metric in CURVE_METRICS),
)  # fmt: skip
_WEIGHT_PARTS = re.compile(r"(?:model|pytorch_model)-\d+-of-\d+\.(?:safetensors|bin)")


@dataclasses.dataclass(frozen=True)
class FolderContent:
    """Content of the folder of one network.

    Attributes:
      tensors: by Hugging Face's name.
      config: content of config.json.
      tokenizer: with the vocabulary of the model.
      card: text of README.md.
      pictures: PNG files of the card by name.
    """

    tensors: Mapping[str, np.ndarray]
    config: Mapping[str, Any]
    tokenizer: tokenize.Tokenizer
    card: str
    pictures: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def write_folders(contents: Mapping[str, FolderContent]) -> None:
    """Writes the folders of one export, local or remote; creates those that are missing; see the module."""
    for folder in contents:
        files.remove(files.join(folder, model_dir.CONFIG))
    for folder in contents:
        for name in files.list_dir(folder) if files.is_dir(folder) else ():
            if name in MODEL_FILES or _WEIGHT_PARTS.fullmatch(name):
                files.remove(files.join(folder, name))
    for folder, content in contents.items():
        _write_all_but_config(folder, content)
    for folder, content in contents.items():
        files.write_json(files.join(folder, model_dir.CONFIG), content.config)


def _write_all_but_config(folder: str, content: FolderContent) -> None:
    from safetensors import numpy as safetensors

    tokenizer, config = content.tokenizer, content.config
    assert len(tokenizer.tokens) == len(content.tensors[mapping.WORD_TABLE]) == config["vocab_size"]
    vocab.write_vocab(files.join(folder, vocab.VOCAB_FILE), tokenizer.tokens)
    files.write_text(files.join(folder, model_dir.TOKENIZER), tokenizer.backend.to_str(pretty=True))
    settings = _tokenizer_config(config["max_position_embeddings"], tokenizer)
    files.write_json(files.join(folder, model_dir.TOKENIZER_CONFIG), settings)
    files.write_text(files.join(folder, model_dir.CARD), content.card)
    for name, picture in content.pictures.items():
        with files.atomic_write(files.join(folder, name)) as file:
            file.write(picture)
    with files.atomic_write(files.join(folder, model_dir.WEIGHTS)) as file:
        file.write(safetensors.save(dict(content.tensors), metadata={"format": "pt"}))


def _tokenizer_config(max_positions: int, tokenizer: tokenize.Tokenizer) -> dict[str, Any]:
    return {
        "tokenizer_class": "ElectraTokenizer",
        "do_lower_case": tokenizer.lower_case,
        **({"strip_accents": False} if tokenizer.keep_accents else {}),
        "model_max_length": max_positions,
        "unk_token": vocab.UNK,
        "sep_token": vocab.SEP,
        "pad_token": vocab.PAD,
        "cls_token": vocab.CLS,
        "mask_token": vocab.MASK,
    }
