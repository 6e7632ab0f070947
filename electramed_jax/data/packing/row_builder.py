"""Builds rows from tokenized documents and counts them. No file I/O: process pool and Beam pipeline share this code."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from typing import Any

import numpy as np

from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.dataset import manifest
from electramed_jax.data.packing import electra_format, pack
from electramed_jax.data.packing.token_files import Tokens
from electramed_jax.data.tokenizer import vocab

PAIRED_FRACTION = 0.9  # of the documents, those split into A and B
FORMATS = (PACKED, ELECTRA) = ("packed", "electra")


@dataclasses.dataclass(frozen=True)
class PackingSpec:
    """Settings of a packed dataset.

    Attributes:
      vocab_path: a vocab.txt that every process can read.
      lower_case, keep_accents: as in `Tokenizer`.
      row_length: T, ids in a row.
      format: one of FORMATS.
      name: of the dataset.
      window_tokens: tokens packed at a time.
    """

    vocab_path: str
    lower_case: bool
    row_length: int
    format: str
    name: str
    rows_per_shard: int
    window_tokens: int
    keep_accents: bool = False


@dataclasses.dataclass(frozen=True)
class RowBuilder:
    """Builds rows [n, T] in the format of a `PackingSpec`."""

    spec: PackingSpec
    tokens: list[str]
    special: SpecialIds
    sentence_ends: pack.SentenceEnds

    @classmethod
    def from_spec(cls, spec: PackingSpec) -> RowBuilder:
        """Reads the vocabulary of `spec` and returns the builder."""
        tokens = vocab.read_vocab(spec.vocab_path)
        return cls(spec, tokens, vocab.special_ids(tokens), pack.SentenceEnds.from_vocab(tokens))

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary."""
        return len(self.tokens)

    @property
    def dtype(self) -> str:
        """The dtype of ids on disk."""
        return manifest.dtype_for(self.vocab_size)

    def build(self, tokens: Tokens, stats: SplitStats) -> np.ndarray:
        """Returns rows int32[n, T] of a window of documents, each with a token, and adds them to `stats`."""
        packed = self._build_packed(tokens)
        built = packed if self.spec.format == PACKED else self._build_examples(tokens)
        stats.add_rows(built, packed, self.special)
        return built.rows

    def _build_packed(self, tokens: Tokens) -> pack.PackedRows:
        paired = tokens.random_bits < np.uint64(PAIRED_FRACTION * 2**64)
        return pack.pack_documents(
            tokens.ids, tokens.lengths, paired, self.spec.row_length, self.special, self.sentence_ends
        )

    def _build_examples(self, tokens: Tokens) -> pack.PackedRows:
        generators = map(random.Random, tokens.random_bits.tolist())
        return electra_format.build_examples(
            tokens.ids, tokens.sentence_lengths, tokens.sentence_counts, generators, self.spec.row_length, self.special
        )


@dataclasses.dataclass
class SplitStats:
    """Token and document statistics of a split or of a part of it. Statistics of two parts add with `+=`.

    Attributes:
      counts: int64[V], occurrences of each id in the rows; 0 for [PAD] [CLS] [SEP].
      split_documents: documents that are in more than one row.
      packed_rows, packed_tokens: what `rows` and `tokens` would be in the packed format.
      empty_documents: documents without a token; not in `documents`.
      histogram: documents by token count, as in `manifest.Manifest.length_histogram`.
    """

    counts: np.ndarray
    rows: int = 0
    tokens: int = 0
    documents: int = 0
    split_documents: int = 0
    dropped_tokens: int = 0
    packed_rows: int = 0
    packed_tokens: int = 0
    empty_documents: int = 0
    histogram: Counter[int] = dataclasses.field(default_factory=Counter)

    @classmethod
    def zeros(cls, vocab_size: int) -> SplitStats:
        """Returns the statistics of no documents."""
        return cls(np.zeros(vocab_size, np.int64))

    def add_documents(self, lengths: np.ndarray) -> None:
        """Counts documents of `lengths` tokens each."""
        nonzero = lengths[lengths > 0]
        self.documents += len(nonzero)
        self.empty_documents += len(lengths) - len(nonzero)
        bin_ends = 1 << np.ceil(np.log2(nonzero)).astype(np.int64)
        self.histogram += Counter(bin_ends.tolist())

    def add_rows(self, built: pack.PackedRows, packed: pack.PackedRows, special: SpecialIds) -> None:
        """Counts the rows of a window.

        Args:
          built: the rows.
          packed: rows of the same documents in the packed format.
        """
        self.counts += np.bincount(built.rows.reshape(-1), minlength=len(self.counts))
        self.counts[[special.pad, special.cls, special.sep]] = 0
        self.rows += len(built.rows)
        self.tokens += built.tokens
        self.split_documents += built.split_documents
        self.dropped_tokens += built.dropped_tokens
        self.packed_rows += len(packed.rows)
        self.packed_tokens += packed.tokens

    def __iadd__(self, other: SplitStats) -> SplitStats:
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self

    def to_json(self) -> dict[str, Any]:
        """Returns the statistics as JSON, for scratch files."""
        value = dataclasses.asdict(self)
        value["wordless"] = value.pop("empty_documents")  # the key of earlier versions
        return value | {"counts": self.counts.tolist(), "histogram": [list(item) for item in self.histogram.items()]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SplitStats:
        """Returns the statistics that `to_json` wrote."""
        value = dict(value)
        return cls(
            counts=np.array(value.pop("counts"), np.int64),
            empty_documents=value.pop("wordless"),
            histogram=Counter(dict(value.pop("histogram"))),
            **value,
        )

    def unigram_probabilities(self, special: SpecialIds) -> np.ndarray:
        """Returns the add-one-smoothed probability of each id, float64[V]; 1 for [PAD] [CLS] [SEP], never masked."""
        weights = self.counts + 1.0
        weights[[special.pad, special.cls, special.sep]] = 0
        probabilities = weights / weights.sum()
        probabilities[[special.pad, special.cls, special.sep]] = 1
        return probabilities

    def to_split(
        self, shards: tuple[manifest.Shard, ...], row_length: int, probabilities: np.ndarray
    ) -> manifest.Split:
        """Returns the manifest's entry of the split.

        Args:
          probabilities: `unigram_probabilities` of the training split.
        """
        nats = -float(self.counts @ np.log(probabilities))
        return manifest.Split(
            shards=shards,
            rows=self.rows,
            tokens=self.tokens,
            documents=self.documents,
            split_documents=self.split_documents,
            fill_fraction=_fraction(self.tokens, self.rows * row_length),
            unigram_cross_entropy=round(nats / max(1, int(self.counts.sum())), 6),
            split_fraction=_fraction(self.split_documents, self.documents),
            dropped_tokens=self.dropped_tokens,
            packed_fill_fraction=_fraction(self.packed_tokens, self.packed_rows * row_length),
        )


def _fraction(part: int, whole: int) -> float:
    return round(part / max(1, whole), 6)
