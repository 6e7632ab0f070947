"""Filters one input: its documents to lines of a part and keys for deduplication. Writes no files, uses no pool.

`read_source` reads and cleans; `dedup` (and `minhash`) compare the keys; `remaining_lines` selects the lines that are
left with their splits. `build` runs them in a pool of processes.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.data.corpus import corpus_dir, dedup
from electramed_jax.data.corpus.decontaminate import EvaluationIndex
from electramed_jax.data.corpus.inputs import Source
from electramed_jax.data.readers import normalize
from electramed_jax.data.readers.document import REPAIRED_PREFIX, Document, ReadOptions

MIN_CHARS = 32
_WITHOUT_TEXT = ("empty", "no_text", "too_short")  # reasons; an input of nothing else is unusable
_LANGUAGE = re.compile("[a-z]{3}")


@dataclasses.dataclass(frozen=True)
class FilterConfig:
    """Selects the documents of a corpus and the sizes of its splits.

    Attributes:
      validation: fraction of the documents.
      test: fraction of the documents.
      min_chars: a document with fewer characters (title and sections) is dropped as `too_short`.
      languages: ISO 639-2 codes; a document in another language is dropped as `language`. A document of unknown
        language (any document that is not from PubMed) is kept. Empty: all languages.
      strict: raise at the first damaged piece instead of counting it.
      read_options: what is read, and in which format.
      name: of the corpus, for manifests and model cards; "" for none.
      license: of the documents without one of their own; "" if it is unknown.

    Raises:
      UserError: invalid fractions or language codes.
    """

    validation: float = 0.01
    test: float = 0.01
    min_chars: int = MIN_CHARS
    languages: tuple[str, ...] = ()
    strict: bool = False
    read_options: ReadOptions = ReadOptions()
    name: str = ""
    license: str = ""

    def __post_init__(self) -> None:
        if not (0 <= self.validation and 0 <= self.test and self.validation + self.test < 1):
            raise UserError(
                f"validation={self.validation}, test={self.test}: wanted fractions from 0 with a sum below 1"
            )
        if invalid := [code for code in self.languages if not _LANGUAGE.fullmatch(code)]:
            raise UserError(f"language {invalid[0]!r}: wanted three lower-case letters as in PubMed, such as eng")
        if self.name:
            corpus_dir.check_name(self.name)


@dataclasses.dataclass
class InputStats:
    """Counts of one input, before deduplication.

    Attributes:
      read: records, including damaged ones.
      drops: reason -> records; also the repairs of kept documents (REPAIRED_PREFIX).
      held_out: (number of the evaluation file, "pmid" or "sentence") -> documents.
      formats: name of the format -> documents that its reader found.
      articles: lines with the identifiers of an article.
      unusable: why the input yields (almost) nothing; "" if it is usable.
    """

    read: int = 0
    drops: Counter[str] = dataclasses.field(default_factory=Counter)
    held_out: Counter[tuple[int, str]] = dataclasses.field(default_factory=Counter)
    formats: Counter[str] = dataclasses.field(default_factory=Counter)
    articles: int = 0
    unusable: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the counts as JSON for `stats.corpus_stats`, in a fixed order."""
        held_out = [[*match, count] for match, count in sorted(self.held_out.items())]
        return {
            "read": self.read,
            "drops": dict(sorted(self.drops.items())),
            "held_out": held_out,
            "formats": dict(sorted(self.formats.items())),
            "articles": self.articles,
            "unusable": self.unusable,
        }


def read_source(
    source: Source, number: int, config: FilterConfig, index: EvaluationIndex | None, stats: InputStats
) -> Iterator[tuple[tuple[int, ...], bytes, list[tuple[int, ...]]]]:
    """Yields (key, line, links) of each record of one input, in order.

    A key has one value per field of `dedup.KEY_DTYPE`, a link per field of `dedup.LINK_DTYPE`. Line n belongs to record
    n and is read by `remaining_lines`; it is blank for a record that was dropped and for a withdrawal.

    Args:
      source: the input.
      number: of the input.
      config: what is kept.
      index: documents that match it are dropped.
      stats: updated in place.

    Raises:
      UserError: see `reader.read_documents`.
    """
    deletions: list[int] = []
    unusable: list[str] = []
    kept = 0
    documents = source.read(stats.drops, config.strict, config.read_options, deletions, unusable, stats.formats)
    for row, document in enumerate(documents):
        document = _clean_document(document)
        text = document.text
        reason = _drop_reason(document, text, config, index, stats)
        key = dedup.document_key(document, text, reason is None, number, row)
        if reason:
            stats.drops[reason] += 1
            yield key, b"\n", []
        else:
            kept += 1
            split = corpus_dir.SPLITS.index(corpus_dir.assign_split(document, config.validation, config.test))
            header = f"{split}{document.license.replace('{', '(')}".encode()
            stats.articles += bool(document.kind)
            yield key, header + corpus_dir.to_line(document), dedup.document_links(document, number, row)
    for pmid in deletions:
        yield dedup.withdrawal_key(pmid, number), b"\n", []
    repaired = sum(count for reason, count in stats.drops.items() if reason.startswith(REPAIRED_PREFIX))
    stats.read = kept + stats.drops.total() - repaired
    without_text = {reason: count for reason, count in stats.drops.items() if reason in _WITHOUT_TEXT}
    if not unusable and without_text and stats.read == sum(without_text.values()) and not deletions:
        counts = ", ".join(f"{reason}: {count:,}" for reason, count in without_text.items())
        unusable.append(f"nothing in it can be used: no text of {config.min_chars} characters or more ({counts})")
    stats.unusable = "; ".join(unusable)


def remaining_lines(lines: Iterable[bytes], dropped: Mapping[int, int]) -> Iterator[tuple[int, str, str, bytes]]:
    """Yields (row, split, licence, line of its part) for the lines of one input that remain, in order.

    Args:
      lines: of `read_source`: the digit of the split, the licence, and the line of the part.
      dropped: row -> index in `dedup.REASONS`.
    """
    for row, line in enumerate(lines):
        reason = dropped.get(row, dedup.KEPT)
        if line == b"\n" or reason not in dedup.NOT_DROPPED:
            continue
        header, brace, rest = line.partition(b"{")
        line = brace + rest
        if reason == dedup.WITHOUT_ABSTRACT:
            line = corpus_dir.without_abstract(line)
        yield row, corpus_dir.SPLITS[int(header[:1])], header[1:].decode("utf-8"), line


def _clean_document(document: Document) -> Document:
    sections = (
        (normalize.clean(label) or None if label else None, normalize.clean(text)) for label, text in document.sections
    )
    return dataclasses.replace(
        document,
        id=normalize.clean(document.id),
        title=normalize.clean(document.title),
        sections=tuple((label, text) for label, text in sections if text),
        source=normalize.clean(document.source),
        license=" ".join(normalize.clean(document.license).split()),
    )


def _drop_reason(
    document: Document, text: str, config: FilterConfig, index: EvaluationIndex | None, stats: InputStats
) -> str | None:
    if reason := normalize.drop_reason(text, config.min_chars):
        return reason
    if config.languages and document.language and document.language not in config.languages:
        return "language"
    if index is not None and (matches := index.matches(document.pmid, text)):
        stats.held_out.update(matches)
        return "held_out"
    return None
