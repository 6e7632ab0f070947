"""WordPiece vocabularies: vocab.txt files of one token a line, special tokens, the normalization of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.config.special_tokens import SpecialIds

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCAB_FILE = "vocab.txt"
MAX_WORD_CHARACTERS = 100  # Hugging Face's limit; google-research/electra's is 200. A longer word is [UNK].


def normalizer(lower_case: bool, keep_accents: bool) -> Any:
    """Returns BERT's normalizer. Cased text keeps its accents; lower-cased text only with `keep_accents`."""
    from tokenizers import normalizers

    # None, the default of BERT: accents are stripped if the text is lower-cased.
    return normalizers.BertNormalizer(lowercase=lower_case, strip_accents=False if keep_accents else None)


def read_vocab(path: str) -> list[str]:
    """Returns the tokens of a vocab.txt in the order of their ids.

    Raises:
      UserError: an empty file, or a repeated token.
    """
    tokens = files.read_text(path).split("\n")
    if tokens[-1] == "":
        tokens.pop()
    tokens = [token.rstrip("\r") for token in tokens]
    if not tokens:
        raise UserError(f"{path}: empty; wanted one token per line")
    if len(set(tokens)) != len(tokens):
        token, count = Counter(tokens).most_common(1)[0]
        raise UserError(f"{path}: token {token!r} occurs {count} times; wanted each token once")
    return tokens


def write_vocab(path: str, tokens: Sequence[str]) -> None:
    """Writes a vocab.txt atomically."""
    files.write_text(path, "".join(f"{token}\n" for token in tokens))


def sha256(path: str) -> str:
    """Returns the hexadecimal SHA-256 of a vocab.txt, which identifies the vocabulary."""
    return files.sha256(path)


def special_ids(tokens: Sequence[str]) -> SpecialIds:
    """Returns the ids of the five special tokens.

    Raises:
      UserError: some are missing.
    """
    ids = {token: number for number, token in enumerate(tokens)}
    missing = [token for token in SPECIAL_TOKENS if token not in ids]
    if missing:
        raise UserError(
            f"vocabulary of {len(tokens):,} tokens lacks {' '.join(missing)}; "
            "use the vocab.txt of a BERT or ELECTRA model, or make one with electramed vocab"
        )
    return SpecialIds(*(ids[token] for token in SPECIAL_TOKENS))
