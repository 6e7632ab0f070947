"""Tokens of documents to rows, and the figures of a split: what a pool and a pipeline share, without files."""

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

PAIRED_FRACTION = 0.9
FORMATS = (PACKED, ELECTRA) = ("packed", "electra")


@dataclasses.dataclass(frozen=True)
class PackingSpec:
    """What rows are asked for.

    Attributes:
      vocab_path: where every process finds the vocabulary.
      format: one of FORMATS.
      name: of the dataset.
      window_tokens: how many are packed at a time.
    """

    vocab_path: str
    lower_case: bool
    row_length: int
    format: str
    name: str
    rows_per_shard: int
    window_tokens: int


@dataclasses.dataclass(frozen=True)
class RowBuilder:
    """Makes rows of T ids in one of FORMATS."""

    row_length: int
    format: str
    tokens: list[str]
    special: SpecialIds
    sentence_ends: pack.SentenceEnds

    @classmethod
    def of(cls, order: PackingSpec) -> RowBuilder:
        tokens = vocab.read_vocab(order.vocab_path)
        ends = pack.SentenceEnds.of(tokens)
        return cls(order.row_length, order.format, tokens, vocab.special_ids(tokens), ends)

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    @property
    def dtype(self) -> str:
        return manifest.dtype_for(self.vocab_size)

    def rows(self, tokens: Tokens, figures: SplitStats) -> np.ndarray:
        """Rows [n, T] of a window of documents, each of which has a token; counted in `figures`."""
        packed = self._packed(tokens)
        made = packed if self.format == PACKED else self._examples(tokens)
        figures.add_rows(made, packed, self.special)
        return made.rows

    def _packed(self, tokens: Tokens) -> pack.PackedRows:
        paired = tokens.draws < np.uint64(PAIRED_FRACTION * 2**64)
        return pack.pack_documents(
            tokens.ids, tokens.lengths, paired, self.row_length, self.special, self.sentence_ends
        )

    def _examples(self, tokens: Tokens) -> pack.PackedRows:
        randoms = map(random.Random, tokens.draws.tolist())
        return electra_format.build_examples(
            tokens.ids, tokens.sentences, tokens.sentence_counts, randoms, self.row_length, self.special
        )


@dataclasses.dataclass
class SplitStats:
    """What is counted of a split, or of a part of it: figures of parts add up.

    Attributes:
      counts: int64[V], how often each id occurs in the rows; 0 of [PAD] [CLS] [SEP].
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
    wordless: int = 0
    histogram: Counter = dataclasses.field(default_factory=Counter)

    @classmethod
    def none(cls, vocab_size: int) -> SplitStats:
        """Of nothing."""
        return cls(np.zeros(vocab_size, np.int64))

    def add_documents(self, lengths: np.ndarray) -> None:
        """Counts documents of so many tokens each, none for those that are wordless."""
        some = lengths[lengths > 0]
        self.documents += len(some)
        self.wordless += len(lengths) - len(some)
        ends = 1 << np.ceil(np.log2(some)).astype(np.int64)
        self.histogram += Counter(ends.tolist())

    def add_rows(self, made: pack.PackedRows, packed: pack.PackedRows, special: SpecialIds) -> None:
        """Counts a window: its rows, and what they would be in the packed format."""
        self.counts += np.bincount(made.rows.reshape(-1), minlength=len(self.counts))
        self.counts[[special.pad, special.cls, special.sep]] = 0
        self.rows += len(made.rows)
        self.tokens += made.tokens
        self.split_documents += made.split_documents
        self.dropped_tokens += made.dropped_tokens
        self.packed_rows += len(packed.rows)
        self.packed_tokens += packed.tokens

    def __iadd__(self, other: SplitStats) -> SplitStats:
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {
            "counts": self.counts.tolist(),
            "histogram": [list(of_bin) for of_bin in self.histogram.items()],
        }

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> SplitStats:
        counts = np.array(value["counts"], np.int64)
        return cls(**value | {"counts": counts, "histogram": Counter(dict(value["histogram"]))})

    def smoothed(self, special: SpecialIds) -> np.ndarray:
        """Add-one-smoothed probability of each id; of [PAD] [CLS] [SEP], which are never masked, 1."""
        weights = self.counts + 1.0
        weights[[special.pad, special.cls, special.sep]] = 0
        frequency = weights / weights.sum()
        frequency[[special.pad, special.cls, special.sep]] = 1
        return frequency

    def split(self, shards: tuple[manifest.Shard, ...], row_length: int, frequency: np.ndarray) -> manifest.Split:
        """The figures as a manifest has them, `frequency` being `smoothed` of the training split."""
        nats = -float(self.counts @ np.log(frequency))
        return manifest.Split(
            shards=shards,
            rows=self.rows,
            tokens=self.tokens,
            documents=self.documents,
            split_documents=self.split_documents,
            fill_fraction=_share(self.tokens, self.rows * row_length),
            unigram_cross_entropy=round(nats / max(1, int(self.counts.sum())), 6),
            split_fraction=_share(self.split_documents, self.documents),
            dropped_tokens=self.dropped_tokens,
            packed_fill_fraction=_share(self.packed_tokens, self.packed_rows * row_length),
        )


def _share(part: int, whole: int) -> float:
    return round(part / max(1, whole), 6)
