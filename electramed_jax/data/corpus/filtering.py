"""Records of one input to lines of a part and keys that decide which lines stay: no files written, no pool.

`read_source` is all of reading and cleaning; `dedup` (and `near_duplicates`) decide by the keys;
`remaining` puts what is left into its splits. `build_documents` runs them over a pool of processes.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.data.corpus import corpus_dir, dedup
from electramed_jax.data.corpus import decontaminate as held_out
from electramed_jax.data.corpus.inputs import Source
from electramed_jax.data.readers import normalize
from electramed_jax.data.readers.document import REPAIRED_PREFIX, Document, PubmedOptions

MIN_CHARS = 32
_LANGUAGE = re.compile("[a-z]{3}")


@dataclasses.dataclass(frozen=True)
class FilterConfig:
    """What is kept, and where it goes.

    Attributes:
      validation, test: fractions of the documents.
      min_chars: a shorter document (title and sections) is dropped as `too_short`.
      languages: ISO 639-2 codes; a document known to be in another is dropped as `language`, one of
        unknown language (which is all that is not PubMed's) stays. Empty: all languages.
      strict: raise at the first damaged piece instead of counting it.
      reading: of PubMed records.
    """

    validation: float = 0.01
    test: float = 0.01
    min_chars: int = MIN_CHARS
    languages: tuple[str, ...] = ()
    strict: bool = False
    reading: PubmedOptions = PubmedOptions()

    def __post_init__(self) -> None:
        if not (0 <= self.validation and 0 <= self.test and self.validation + self.test < 1):
            raise UserError(
                f"validation={self.validation}, test={self.test}: wanted fractions from 0 with a sum below 1"
            )
        if strange := [code for code in self.languages if not _LANGUAGE.fullmatch(code)]:
            raise UserError(f"language {strange[0]!r}: wanted three small letters as PubMed has them, such as eng")


@dataclasses.dataclass
class InputStats:
    """What became of the records of one input, as far as it can be told from that input alone.

    Attributes:
      read: records, damaged ones among them.
      drops: reason -> records; also of documents repaired (see `documents`).
      held_out: (number of the evaluation file, "pmid" or "sentence") -> documents.
    """

    read: int = 0
    drops: Counter = dataclasses.field(default_factory=Counter)
    held_out: Counter = dataclasses.field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """What `documents_account.account` takes of an input; always in the same order."""
        held_out = [[*how, count] for how, count in sorted(self.held_out.items())]
        return {"read": self.read, "drops": dict(sorted(self.drops.items())), "held_out": held_out}


def read_source(
    source: Source, number: int, choices: FilterConfig, evaluation: held_out.Index | None, tally: InputStats
) -> Iterator[tuple[tuple, bytes]]:
    """(key, line) of what input `number` says, in order.

    The key has one value per field of `dedup.KEY`. The line, for `remaining`, is of record `row` of the
    input; it is blank for a key that only tells that other records are out of date.

    Args:
      evaluation: what is held out; a document that shares a PMID or a long sentence with it is dropped.
      tally: what is read and dropped is counted here.

    Raises:
      UserError: see `documents.read`.
    """
    deletions: list[int] = []
    kept = 0
    for row, document in enumerate(source.read(tally.drops, choices.strict, choices.reading, deletions)):
        document = _cleaned(document)
        text = document.text
        reason = _reason_to_drop(document, text, choices, evaluation, tally)
        key = dedup.key(document, text, reason is None, number, row)
        if reason:
            tally.drops[reason] += 1
            yield key, b"\n"
        else:
            kept += 1
            split = corpus_dir.SPLITS.index(corpus_dir.split_of(document, choices.validation, choices.test))
            yield key, b"%d" % split + corpus_dir.to_line(document)
    for pmid in deletions:
        yield dedup.withdrawal(pmid, number), b"\n"
    repaired = sum(n for reason, n in tally.drops.items() if reason.startswith(REPAIRED_PREFIX))
    tally.read = kept + tally.drops.total() - repaired


def remaining(lines: Iterable[bytes], lost: Container[int]) -> Iterator[tuple[int, str, bytes]]:
    """(row, split, line of its part) of the lines of one input, in order, without the blank and the lost rows."""
    for row, line in enumerate(lines):
        if line != b"\n" and row not in lost:
            yield row, corpus_dir.SPLITS[int(line[:1])], line[1:]


def _cleaned(document: Document) -> Document:
    sections = (
        (normalize.clean(label) or None if label else None, normalize.clean(text)) for label, text in document.sections
    )
    return dataclasses.replace(
        document,
        id=normalize.clean(document.id),
        title=normalize.clean(document.title),
        sections=tuple((label, text) for label, text in sections if text),
        source=normalize.clean(document.source),
    )


def _reason_to_drop(
    document: Document, text: str, choices: FilterConfig, evaluation: held_out.Index | None, tally: InputStats
) -> str | None:
    if reason := normalize.drop_reason(text, choices.min_chars):
        return reason
    if choices.languages and document.language and document.language not in choices.languages:
        return "language"
    if evaluation is not None and (matches := evaluation.matches(document.pmid, text)):
        tally.held_out.update(matches)
        return "held_out"
    return None
