"""Reads and checks the Hugging Face folder of one network: config.json, weights, vocabulary."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, json_values
from electramed_jax.data.tokenizer import vocab
from electramed_jax.hf.format import config_json, mapping, weights
from electramed_jax.hf.format.mapping import DISCRIMINATOR, GENERATOR, NETWORKS, Sizes

CONFIG, WEIGHTS, CARD = "config.json", weights.SAFETENSORS, "README.md"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
ENCODER_PREFIX = "electra."
BARE_PREFIXES = ("embeddings.", "embeddings_project.", "encoder.")  # tensors of an ElectraModel
HEAD_PREFIX = {
    DISCRIMINATOR: "discriminator_predictions.",
    GENERATOR: "generator_predictions.",
}
KNOWN_PREFIXES = (ENCODER_PREFIX, *HEAD_PREFIX.values(), "generator_lm_head.")
_ADVICE = "copy or download the whole folder again"


class TokenizerConfig(TypedDict, total=False):
    """The keys of tokenizer_config.json that are read."""

    do_lower_case: bool | None
    strip_accents: bool | None


class AddedToken(TypedDict):
    """A token of tokenizer.json in addition to those of the model."""

    id: int
    content: str


class WordPieceModel(TypedDict):
    """The model in tokenizer.json."""

    type: NotRequired[str | None]
    vocab: NotRequired[Any]  # {token: id} of WordPiece; a list of other models


class TokenizerJson(TypedDict):
    """The keys of tokenizer.json that are read."""

    model: NotRequired[WordPieceModel]
    added_tokens: NotRequired[list[AddedToken] | None]


@dataclasses.dataclass(frozen=True)
class Network:
    """Content of the folder of one network.

    Attributes:
      network: "discriminator", "generator", "encoder" (no pre-training head), or the kind of a fine-tuned head.
      sizes: from config.json; the vocabulary without unused rows.
      tensors: by Hugging Face's name.
      vocabulary, lower_case, keep_accents, unused_rows, unexpected: as in `convert.ImportedModel`.
    """

    network: str
    sizes: Sizes
    tensors: dict[str, np.ndarray]
    vocabulary: list[str] | None
    lower_case: bool | None
    keep_accents: bool
    unused_rows: int
    unexpected: tuple[str, ...] = ()


def find_networks(folder: str) -> list[tuple[str, str | None]]:
    """Returns (folder, network) of each network in `folder`.

    The network is None if `folder` holds one network itself, so that its name does not decide which one.

    Raises:
      UserError: there is no network in the folder.
    """
    if files.exists(files.join(folder, CONFIG)):
        return [(folder, None)]
    below: list[tuple[str, str | None]] = [
        (path, network) for network in NETWORKS if files.exists(files.join(path := files.join(folder, network), CONFIG))
    ]
    if not below:
        raise UserError(
            f"{folder}: no {CONFIG} in it or in its {DISCRIMINATOR}/ or {GENERATOR}/; "
            "wanted a Hugging Face ELECTRA folder or the parent of two (from the Hub: hf download NAME --local-dir DIR)"
        )
    return below


def is_electric(folder: str) -> bool:
    """Returns whether config.json says that the logits of a discriminator are energies."""
    values = files.read_json(files.join(folder, CONFIG))
    return isinstance(values, dict) and values.get(config_json.OBJECTIVE) == mapping.ELECTRIC


def read_network(folder: str, wanted: str | None, *, allow_headless: bool = False) -> Network:
    """Reads the folder of a pre-trained network.

    Rows of the word table beyond the vocabulary are dropped: some folders pad their number. Tensors that belong neither
    to an ELECTRA encoder nor to a pre-training head, such as the head of a fine-tuned model, are dropped too.

    Args:
      folder: local or remote.
      wanted: the network that the folder must hold; None: either.
      allow_headless: accept an encoder without a pre-training head in place of a discriminator.

    Raises:
      UserError: another network, or files that are damaged or do not fit each other.
    """
    sizes, tensors = _read_sizes(folder), _add_encoder_prefix(weights.read_tensors(folder))
    network = _detect_network(folder, tensors, allow_headless)
    if wanted not in (None, network) and (wanted, network) != (DISCRIMINATOR, mapping.ENCODER):
        raise UserError(f"{folder}: holds a {network}; wanted a {wanted}; rename the folder to {network}")
    known = {name: tensor for name, tensor in tensors.items() if name.startswith(KNOWN_PREFIXES)}
    unexpected = tuple(sorted(set(tensors) - set(known)))
    return dataclasses.replace(_check_network(folder, network, sizes, known), unexpected=unexpected)


def read_encoder(folder: str) -> Network:
    """Reads the encoder of a folder with any head or none.

    Raises:
      UserError: the folder holds a generator, or its files are damaged or do not fit each other.
    """
    sizes, tensors = _read_sizes(folder), _add_encoder_prefix(weights.read_tensors(folder))
    if any(name.startswith(HEAD_PREFIX[GENERATOR]) for name in tensors):
        raise UserError(f"{folder}: holds a generator; wanted a discriminator or a model fine-tuned from one")
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(ENCODER_PREFIX)}
    return _check_network(folder, mapping.ENCODER, sizes, own)


def read_finetuned(folder: str, kind: str, num_vectors: int = 1) -> Network:
    """Reads a fine-tuned model.

    Args:
      kind: a key of `mapping.HEAD_RULES`.
      num_vectors: vectors of an example that the head reads, see `mapping.Sizes`.
    """
    sizes, tensors = _read_sizes(folder), weights.read_tensors(folder)
    last = mapping.HEAD_RULES[kind][-1].theirs
    if last not in tensors:
        raise UserError(
            f"{folder}: no tensor {last}, which the architecture in {CONFIG} has; copy the whole folder again"
        )
    sizes = dataclasses.replace(sizes, num_labels=len(tensors[last]), num_vectors=num_vectors)
    return _check_network(folder, kind, sizes, tensors)


def read_never_split(folder: str) -> tuple[str, ...]:
    """Returns the tokens, such as @GENE$, that the folder's tokenizer never splits; without the special tokens."""
    path = files.join(folder, TOKENIZER)
    if not files.exists(path):
        return ()
    added = files.read_json(path, TokenizerJson, advice=_ADVICE).get("added_tokens") or ()
    return tuple(token["content"] for token in added if token["content"] not in vocab.SPECIAL_TOKENS)


def read_config(folder: str) -> dict[str, Any]:
    """Returns the content of config.json, an object."""
    return files.read_json(files.join(folder, CONFIG), dict[str, Any], advice=_ADVICE)


def _add_encoder_prefix(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the tensors under the names of a model with a head, also if a bare ElectraModel was saved."""
    if any(name.startswith(ENCODER_PREFIX) for name in tensors):
        return tensors
    return {
        ENCODER_PREFIX + name if name.startswith(BARE_PREFIXES) else name: tensor for name, tensor in tensors.items()
    }


def _read_sizes(folder: str) -> Sizes:
    return config_json.from_config_json(read_config(folder), files.join(folder, CONFIG))


def _check_network(folder: str, network: str, sizes: Sizes, tensors: dict[str, np.ndarray]) -> Network:
    """Returns the network with its tokenizer and without unused rows of the word table, after checking the sizes."""
    vocabulary, lower_case, keep_accents = _read_tokenizer(folder)
    rows = len(tensors.get(mapping.WORD_TABLE, ()))
    tokens = rows if vocabulary is None else len(vocabulary)
    if rows != sizes.vocab_size or tokens > rows:
        raise UserError(
            f"{folder}: the word table has {rows:,} rows, {CONFIG} has "
            f"vocab_size={sizes.vocab_size}, the vocabulary has {tokens:,} tokens; "
            "these files belong to different models; use files that were trained together"
        )
    for name in mapping.VOCABULARY_TENSORS:
        if name in tensors:
            tensors[name] = tensors[name][:tokens]
    sizes = dataclasses.replace(sizes, vocab_size=tokens)
    return Network(network, sizes, tensors, vocabulary, lower_case, keep_accents, rows - tokens)


def _detect_network(folder: str, tensors: Mapping[str, np.ndarray], allow_headless: bool) -> str:
    networks = [network for network in NETWORKS if any(name.startswith(HEAD_PREFIX[network]) for name in tensors)]
    if not networks and allow_headless:
        return mapping.ENCODER
    if len(networks) != 1:
        heads = " and ".join(networks) or "neither"
        classes = " or ".join(config_json.CLASSES[network] for network in NETWORKS)
        raise UserError(f"{folder}: has the pre-training head of {heads}; wanted exactly one, as {classes} save it")
    return networks[0]


def _read_tokenizer(folder: str) -> tuple[list[str] | None, bool | None, bool]:
    """Returns (tokens by id, whether text is lower-cased, whether lower-cased text keeps its accents).

    The first two are None if no file contains them.
    """
    vocab_path, tokenizer_path, settings_path = (
        files.join(folder, name) for name in (vocab.VOCAB_FILE, TOKENIZER, TOKENIZER_CONFIG)
    )
    settings: TokenizerConfig = {}
    if files.exists(settings_path):
        settings = files.read_json(settings_path, TokenizerConfig, advice=_ADVICE)
    lower_case, strip_accents = settings.get("do_lower_case"), settings.get("strip_accents")
    if lower_case is False and strip_accents:
        raise UserError(
            f"{settings_path}: strip_accents=true with do_lower_case=false; wanted a tokenizer that keeps the accents "
            "of cased text"
        )
    keep_accents = lower_case is not False and strip_accents is False
    if files.exists(vocab_path):
        return vocab.read_vocab(vocab_path), lower_case, keep_accents
    if not files.exists(tokenizer_path):
        return None, lower_case, keep_accents
    return _vocabulary_of_tokenizer(tokenizer_path), lower_case, keep_accents


def _vocabulary_of_tokenizer(path: str) -> list[str]:
    """Returns the tokens by id of a tokenizer.json: transformers 5 saves no vocab.txt."""
    backend = files.read_json(path, TokenizerJson, advice=_ADVICE)
    model = backend.get("model", {})
    if model.get("type") != "WordPiece":
        raise UserError(f"{path}: not a WordPiece tokenizer; only WordPiece can be imported")
    ids = json_values.convert(model.get("vocab"), dict[str, int], f"{path}: model.vocab", advice=_ADVICE)
    ids = ids | {added["content"]: added["id"] for added in backend.get("added_tokens") or ()}
    if sorted(ids.values()) != list(range(len(ids))):
        raise UserError(f"{path}: the token ids have gaps; wanted one token for each id from 0; {_ADVICE}")
    return sorted(ids, key=ids.__getitem__)
