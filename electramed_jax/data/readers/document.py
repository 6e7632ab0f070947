"""`Document`, the options of the readers, and the counts of damaged input."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
from collections import Counter
from typing import Any, BinaryIO

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.common.storage.decompression import MAX_EXPANSION

PUBMED_SOURCE = "pubmed"
OTHER_ABSTRACT_SOURCE = "pubmed-other-abstract"  # differs from PUBMED_SOURCE: not a duplicate of its own article
ABSTRACT, FULL_TEXT = "abstract", "full_text"  # values of `Document.kind`
BOTH, REPLACE, APPEND = FULL_TEXT_RULES = ("both", "replace", "append")
REPAIRED_PREFIX = "repaired_"  # a count with this prefix is of documents that were kept, not dropped
MAX_LINE_BYTES = 16 << 20  # of a line, a record, or a document of several lines; full texts have up to 5 MB
MIN_USED_FRACTION = 0.01  # of the bytes of a file; with less, the file is unusable


_ESCAPES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)


@dataclasses.dataclass(frozen=True)
class Document:
    """A text with its provenance.

    Attributes:
      id: unique name; a hash of the text if the input has none.
      pmid: PubMed identifier, if known.
      title: "" if there is none.
      sections: (label or None, text) pairs in order; a structured abstract has one per AbstractText.
      year: year of publication, if known.
      source: "pubmed" for PubMed XML, "pubmed-other-abstract" for a further abstract of a PubMed record,
        otherwise the value in the record or the name of the file.
      language: ISO 639-2 code of the text (not of the article), as PubMed writes it ("eng"), if known.
      version: version of the PubMed record, from 1; PubMed keeps several versions of some articles.
      revised: day of the last revision of the PubMed record, as the number YYYYMMDD, if known.
      pmcid: identifier of the article in PubMed Central, such as "PMC13900"; "" if unknown.
      doi: identifier of the article, in lower case, such as "10.1186/bcr272"; "" if unknown.
      license: of the text, as the input states it, such as "CC BY 4.0"; "" if it states none.
      kind: ABSTRACT or FULL_TEXT of an article of the literature, which deduplication compares by its identifiers;
        "" for a PubMed record and for any other text.
      abstract_sections: number of the first sections that are the abstract of a full text.
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
    pmcid: str = ""
    doi: str = ""
    license: str = ""
    kind: str = ""
    abstract_sections: int = 0

    @property
    def text(self) -> str:
        """The text to tokenize: title and sections, one per line, each section after its label."""
        lines = [self.title] if self.title else []
        lines += [f"{label}: {body}" if label else body for label, body in self.sections]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """Options of the readers. The field names are keys of documents.json.

    Attributes:
      section_labels: keep the labels of a structured abstract, as "LABEL: text".
      titles_alone: keep a record that has a title and no abstract. The default is to drop it and to count it as
        `title_alone`, as the corpora of abstracts in this field do: such records are letters, editorials and
        old records of one line, without context to learn from.
      other_abstracts: languages of further abstracts (OtherAbstract) to read as separate documents: PubMed's
        codes separated by commas, such as "fre,ger". "eng" selects plain-language summaries and the abstracts
        of other indexers.
      captions: keep the captions of figures and tables of full texts, as sections.
      sub_articles: keep the letters and replies that are part of a full text, as separate documents.
      full_text: of an article with a PubMed record and a full text: BOTH keeps the two documents; REPLACE drops the
        record; APPEND drops it only if the full text begins with an abstract; otherwise the
        full text follows as a document without its title.
      format: name of the format of all files (see `formats`); "" recognizes each by its content.
      text_field: field or column with the text of JSON records and tables; several are separated by commas. "" finds
        the common names, as do `title_field` and `id_field`.
      title_field: field or column with the title.
      id_field: field or column with the identifier.

    Raises:
      UserError: `other_abstracts` is not a list of language codes, or `full_text` is unknown.
    """

    section_labels: bool = True
    titles_alone: bool = False
    other_abstracts: str = ""
    captions: bool = False
    sub_articles: bool = False
    full_text: str = BOTH
    format: str = ""
    text_field: str = ""
    title_field: str = ""
    id_field: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"([a-z]{3}(,[a-z]{3})*)?", self.other_abstracts):
            raise UserError(
                f"other_abstracts={self.other_abstracts!r}: wanted ISO 639-2 language codes as in PubMed, three "
                "lower-case letters each, separated by commas, such as fre,ger"
            )
        if self.full_text not in FULL_TEXT_RULES:
            raise UserError(f"full_text={self.full_text!r}: wanted one of {', '.join(FULL_TEXT_RULES)}")

    def to_request(self) -> dict[str, Any]:
        """Returns the options as JSON for documents.json: those for PubMed records, and changed ones.

        The options that exist since the first version are always written, so that a folder of that version is
        recognized as finished.
        """
        first = ("section_labels", "titles_alone", "other_abstracts")
        default = {field.name: field.default for field in dataclasses.fields(self)}
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name in first or value != default[name]}


@dataclasses.dataclass
class ReadErrors:
    """Collects the errors of one file: counts them, or raises if `strict`.

    Attributes:
      path: the file.
      drops: reason -> number of pieces; updated in place.
      strict: raise at the first damaged piece.
      max_line_bytes: of a line, and of a document of several lines.
      max_expansion: bytes after decompression per byte of the file.
      truncated: whether the bytes ended early, so that the last piece is incomplete.
      stream: bytes that are read instead of the file `path`: the member of an archive.
      converted: whether the file was converted from another encoding, which is counted for each document.
      has_utf8: whether a character beyond ASCII was found in UTF-8.
      file_bytes: size of the file; None if the reader does not use `byte_stream`.
      file_bytes_read: bytes of the file that were read, of `file_bytes`.
      bytes_read: bytes that were read, after decompression.
      used_bytes: those of them in intact records, if the reader counts them.
      damage: reason -> description of its first piece, for damaged pieces that are not used.
      dropped: number of intact pieces that are not used.
    """

    path: str
    drops: Counter[str]
    strict: bool
    max_line_bytes: int = MAX_LINE_BYTES
    max_expansion: float = MAX_EXPANSION
    truncated: bool = False
    converted: bool = False
    has_utf8: bool = False
    file_bytes: int | None = None
    file_bytes_read: int = 0
    bytes_read: int = 0
    used_bytes: int = 0
    damage: dict[str, str] = dataclasses.field(default_factory=dict)
    dropped: int = 0
    stream: BinaryIO | None = None

    def open(self) -> contextlib.AbstractContextManager[BinaryIO]:
        """Opens the bytes to read; they are closed after a `with` block only if they are a file."""
        return files.open_read(self.path) if self.stream is None else contextlib.nullcontext(self.stream)

    def report_damaged(self, reason: str, line: int, detail: str) -> None:
        """Counts a damaged piece. `line` is its line number, or 0 if unknown.

        Raises:
          UserError: if `strict`.
        """
        if self.strict:
            place = f"{self.path}, line {line}" if line else self.path
            raise UserError(
                f"{place}: {detail}; fix the file, or run without --strict to skip such pieces "
                f"and count them as {reason}"
            )
        self.drops[reason] += 1
        if not reason.startswith(REPAIRED_PREFIX):
            self.damage.setdefault(reason, f"line {line}: {detail}" if line > 1 else detail)

    def count_dropped(self, reason: str) -> None:
        """Counts an intact piece that is not used."""
        self.drops[reason] += 1
        self.dropped += 1

    def describe_unusable(self, documents: int, text_bytes: int) -> str:
        """Returns why the file is unusable, after it was read; "" if it is usable.

        Unusable: no document, though no intact record was dropped; or damage, and less than MIN_USED_FRACTION of the
        file was read and is in intact records.

        Args:
          documents: number of documents that were read.
          text_bytes: size of their text, at least; used where the reader does not count `used_bytes`.
        """
        if self.file_bytes is None or ((self.dropped or documents) and not self.damage):
            return ""
        if not self.file_bytes or not (self.bytes_read or self.damage):
            return "empty"
        used = max(self.used_bytes, text_bytes) / max(1, self.bytes_read) * self.file_bytes_read / self.file_bytes
        if used >= MIN_USED_FRACTION:
            return ""
        reasons = [f"{detail} ({reason}: {self.drops[reason]:,})" for reason, detail in self.damage.items()]
        found = f"only {used:.2%} of it can be used" if documents else "nothing in it can be used"
        return f"{found}: {'; '.join(reasons) or 'no text in this format'}"


def replace_lone_surrogates(json_text: str) -> str:
    r"""Replaces the escape of half a surrogate pair in JSON, such as "\ud800" alone, by that of U+FFFD.

    UTF-8, and so every output file and the tokenizer, cannot represent it. The length of the JSON does not change.
    """
    if "\\ud" not in json_text and "\\uD" not in json_text:
        return json_text
    return _ESCAPES.sub(lambda escape: "\\ufffd" if escape["half"] else escape[0], json_text)


def text_id(text: str) -> str:
    """Returns the id of a document that has none: a hash of its text."""
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()
    return f"text:{digest}"


def parse_positive_int(value: Any) -> int | None:
    """Converts an int or a string of digits to a positive int; returns None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    digits = str(value).strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        return None
    return int(digits) or None
