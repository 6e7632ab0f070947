"""One network's Hugging Face folder, read and checked: config.json, weights, vocabulary.

Weights are read through safetensors and JSON alone. A pickle (pytorch_model.bin) can run code when
it is opened and is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from electramed_jax.common import files
from electramed_jax.common.errors import UserError
from electramed_jax.data import vocab
from electramed_jax.hf import architecture, mapping
from electramed_jax.hf.mapping import DISCRIMINATOR, GENERATOR, NETWORKS, Sizes

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
VOCABULARY, TOKENIZER, TOKENIZER_CONFIG = "vocab.txt", "tokenizer.json", "tokenizer_config.json"
ENCODER_PREFIX = "electra."
HEAD_PREFIX = {
    DISCRIMINATOR: "discriminator_predictions.",
    GENERATOR: "generator_predictions.",
}


@dataclasses.dataclass(frozen=True)
class Network:
    """One folder, read and checked; see `convert.Imported` for the attributes' meaning."""

    network: str
    sizes: Sizes
    tensors: dict[str, np.ndarray]
    vocabulary: list[str] | None
    lower_case: bool | None
    unused_rows: int


def find(folder: str) -> list[tuple[str, str | None]]:
    """(folder, network if its name says so) of each network in `folder`."""
    if files.exists(files.join(folder, CONFIG)):
        return [(folder, None)]
    below = [(files.join(folder, network), network) for network in NETWORKS]
    below = [(place, network) for place, network in below if files.exists(files.join(place, CONFIG))]
    if not below:
        raise UserError(
            f"{folder}: no {CONFIG} in it, nor in {DISCRIMINATOR}/ or {GENERATOR}/ below it; "
            "wanted a Hugging Face ELECTRA folder or the parent of two"
        )
    return below


def read(folder: str, wanted: str | None) -> Network:
    """Reads one folder; a network other than `wanted` is an error, None takes either.

    Rows of the word table beyond the vocabulary are dropped: some folders round their number up.
    """
    sizes, tensors = _read_sizes(folder), _read_weights(folder)
    network = _network_of(folder, tensors)
    if wanted not in (None, network):
        raise UserError(f"{folder}: holds a {network}; wanted a {wanted}; rename the folder to {network}")
    return _checked(folder, network, sizes, tensors)


def read_encoder(folder: str) -> Network:
    """The encoder of a folder, whatever head is on it, or none; but a generator's is an error."""
    sizes, tensors = _read_sizes(folder), _read_weights(folder)
    if any(name.startswith(HEAD_PREFIX[GENERATOR]) for name in tensors):
        raise UserError(f"{folder}: holds a generator; wanted a discriminator, or a model made of one")
    bare = not any(name.startswith(ENCODER_PREFIX) for name in tensors)  # ElectraModel, saved by itself
    tensors = {ENCODER_PREFIX + name if bare else name: tensor for name, tensor in tensors.items()}
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(ENCODER_PREFIX)}
    return _checked(folder, mapping.ENCODER, sizes, own)


def _read_sizes(folder: str) -> Sizes:
    path = files.join(folder, CONFIG)
    return architecture.from_json(files.read_json(path), path)


def _checked(folder: str, network: str, sizes: Sizes, tensors: dict[str, np.ndarray]) -> Network:
    """With its tokenizer, and without rows that no token has."""
    vocabulary, lower_case = _read_tokenizer(folder)
    rows = len(tensors.get(mapping.WORD_TABLE, ()))
    tokens = rows if vocabulary is None else len(vocabulary)
    if rows != sizes.vocab_size or tokens > rows:
        raise UserError(
            f"{folder}: the word table has {rows:,} rows, {CONFIG} says "
            f"vocab_size={sizes.vocab_size}, the vocabulary has {tokens:,} tokens; "
            "they belong to different models: find the files that were trained together"
        )
    for name in mapping.VOCABULARY_TENSORS:
        if name in tensors:
            tensors[name] = tensors[name][:tokens]
    sizes = dataclasses.replace(sizes, vocab_size=tokens)
    return Network(network, sizes, tensors, vocabulary, lower_case, rows - tokens)


def _read_weights(folder: str) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors import numpy as safetensors

    path = files.join(folder, WEIGHTS)
    if not files.exists(path):
        raise UserError(
            f"{folder}: no {WEIGHTS}; pickles such as pytorch_model.bin are not opened, since that "
            "can run code; if you trust it, convert it with transformers and torch: "
            "AutoModelForPreTraining (a generator: AutoModelForMaskedLM)"
            ".from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    try:
        return safetensors.load(files.read_bytes(path))
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); copy or download it again") from error


def _network_of(folder: str, tensors: Mapping[str, np.ndarray]) -> str:
    found = [network for network in NETWORKS if any(name.startswith(HEAD_PREFIX[network]) for name in tensors)]
    if len(found) != 1:
        heads = " and ".join(found) or "neither"
        classes = " or ".join(architecture.CLASSES.values())
        raise UserError(f"{folder}: {WEIGHTS} has the pre-training head of {heads}; wanted one, as {classes} save it")
    return found[0]


def _read_tokenizer(folder: str) -> tuple[list[str] | None, bool | None]:
    """(tokens by id, whether text is lower-cased), each None where no file tells."""
    vocab_path, tokenizer_path, settings_path = (
        files.join(folder, name) for name in (VOCABULARY, TOKENIZER, TOKENIZER_CONFIG)
    )
    settings = files.read_json(settings_path) if files.exists(settings_path) else {}
    lower_case = settings.get("do_lower_case")
    if files.exists(vocab_path):
        return vocab.read(vocab_path), lower_case
    if not files.exists(tokenizer_path):
        return None, lower_case
    backend = files.read_json(tokenizer_path)  # transformers 5 saves no vocab.txt
    if backend.get("model", {}).get("type") != "WordPiece":
        raise UserError(f"{tokenizer_path}: not a WordPiece tokenizer; only those can be imported")
    ids = dict(backend["model"]["vocab"])
    ids |= {added["content"]: added["id"] for added in backend.get("added_tokens", ())}
    if sorted(ids.values()) != list(range(len(ids))):
        raise UserError(f"{tokenizer_path}: ids with gaps; wanted one token for each id from 0 on")
    return sorted(ids, key=ids.__getitem__), lower_case
