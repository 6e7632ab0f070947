"""A document of the corpus, the options of reading PubMed records, and the count of damaged input."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from typing import Any

from electramed_jax.common.errors import UserError

REPAIRED = "repaired_"  # a count of this prefix is of documents kept, not dropped


TFDS = "tfds:"


@dataclasses.dataclass(frozen=True)
class Document:
    """A text with its provenance.

    Attributes:
      id: unique name; derived from the text where the input gives none.
      sections: (label or None, text) in order; a structured abstract has one per AbstractText.
      source: "pubmed" for PubMed XML ("pubmed-other-abstract" for what stands beside an article's own
        abstract), otherwise what the record or the file name says.
      language: ISO 639-2 code of the text (not of the article behind it), as PubMed has it ("eng"),
        where known.
      version: of the PMID, from 1; PubMed keeps several of some articles.
      revised: the day PubMed last changed the record, as the number YYYYMMDD, where known.
    """

    id: str
    pmid: int | None
    title: str
    sections: tuple[tuple[str | None, str], ...]
    year: int | None
    source: str
    language: str | None = None
    version: int = 1
    revised: int | None = None

    @property
    def text(self) -> str:
        """Title and sections, one a line, labels in front: what is tokenised."""
        lines = [self.title] if self.title else []
        lines += [f"{label}: {body}" if label else body for label, body in self.sections]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class PubmedOptions:
    """What is made of a PubMed record. Plain values only: an account keeps them as JSON.

    Attributes:
      section_labels: keep the labels of a structured abstract, as "LABEL: text".
      titles_alone: keep a record that has a title and no abstract. Off, as in the corpora of abstracts
        this field trains on: these are letters, editorials and old records, a line of text each,
        with nothing around it to learn from; they are counted as `title_alone`.
      other_abstracts: languages of further abstracts (OtherAbstract) to take as documents of their
        own, as PubMed's codes with commas between: "fre,ger"; "eng" for summaries in plain language
        and the abstracts of other indexers.

    Raises:
      UserError: other_abstracts that are no such codes.
    """

    section_labels: bool = True
    titles_alone: bool = False
    other_abstracts: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"([a-z]{3}(,[a-z]{3})*)?", self.other_abstracts):
            raise UserError(
                f"other_abstracts={self.other_abstracts!r}: wanted languages as PubMed has them, three small "
                "letters each (ISO 639-2) with commas between, such as fre,ger"
            )


@dataclasses.dataclass
class ReadErrors:
    """Where damage in one file is reported: counted, or raised when strict.

    Attributes:
      cut: whether the bytes ended early, so that the last piece is not whole.
    """

    path: str
    drops: Counter
    strict: bool
    cut: bool = False

    def damaged(self, reason: str, line: int, detail: str) -> None:
        """Counts a damaged piece; line 0 stands for no line in particular.

        Raises:
          UserError: when strict.
        """
        if self.strict:
            place = f"{self.path}, line {line}" if line else self.path
            raise UserError(
                f"{place}: {detail}; mend the file, or run without --strict to skip such pieces "
                f"and count them as {reason}"
            )
        self.drops[reason] += 1

    def dropped(self, reason: str) -> None:
        """Counts a sound piece that is of no use."""
        self.drops[reason] += 1


def text_id(text: str) -> str:
    """A name for a document that has none: the same text, the same name."""
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()
    return f"text:{digest}"


def parse_positive_int(value: Any) -> int | None:
    """A positive number given as such or in digits, or None."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    digits = str(value).strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        return None
    return int(digits) or None
