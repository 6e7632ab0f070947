"""Reads PMIDs and text passages from evaluation files, for decontamination.

The format is detected from the content, because names are unreliable (BLUE's `.csv` are tab-separated):

- JSON, one value or one per line: SQuAD, BioASQ, PubMedQA, documents. Text is in `context`, `text`, `abstract`, ...;
  PMIDs are in `pmid` and in the URLs of articles.
- PubTator: `PMID|t|title`, `PMID|a|abstract`.
- CoNLL, BIO, IOB: one token per line, its label last, a blank line after each sentence.
- Tables, tab- or comma-separated: fields of several words are text; a PMID is a first field such as `10064839.T1.T5`
  or `10064839`. Anonymized entities such as `@CHEMICAL$` end a passage.
- One number per line: PMIDs.
- Anything else: plain text.
"""

from __future__ import annotations

import csv
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import decompression, json_values
from electramed_jax.data.readers import byte_stream
from electramed_jax.data.readers.document import ReadErrors

_TEXT_KEYS = {"abstract", "context", "contexts", "passage", "sections", "sentence", "text", "title"}
_ARTICLE_URL = re.compile(r"(?:/pubmed/|pubmed\.ncbi\.nlm\.nih\.gov/)(\d{1,9})(?!\d)")
_PUBTATOR = re.compile(r"(\d{1,9})\|[ta]\|(.*)")
_FIRST_FIELD = re.compile(r"(\d{1,9})\.\D.*|(\d{6,9})")  # a shorter number without suffix is a row number
_ANONYMIZED = re.compile(r"@[A-Za-z-]+\$")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_BRACKET_TOKENS = {"-LRB-", "-RRB-", "-LSB-", "-RSB-", "-LCB-", "-RCB-"}
_MAX_PMID_DIGITS = 9
_SAMPLE_LINES = 200
_TOKEN_LINE_FIELDS = 6  # a line of plain text has more


def read_passages(path: str) -> tuple[set[int], list[str]]:
    """Returns (PMIDs, passages) of one file; a passage is a sentence, or a part of one between anonymized entities.

    Raises:
      UserError: the file is missing, is not text, or contains neither.
    """
    text = _read_text(path)
    pmids: set[int] = set()
    try:
        passages = list(_passages(text, pmids))
    except json_values.NestedTooDeeplyError as error:
        raise UserError(f"{path}: its JSON is nested too deeply; wanted questions, documents or passages") from error
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read as a table ({error}); repair it, or save it tab-separated") from error
    if not pmids and not any(passages):
        raise UserError(f"{path}: contains neither a PMID nor text; give evaluation files to --decontaminate")
    return pmids, passages


def _read_text(path: str) -> str:
    data = decompression.read_whole(path)
    mark, encoding = byte_stream.detect_encoding(data)
    data = data.removeprefix(mark)
    if encoding != "utf-8":
        data = data.decode(encoding, "replace").encode()
    if b"\0" in data[:4096] or data.lstrip().startswith((b"<?xml", b"<!DOCTYPE")):
        raise UserError(f"{path}: unknown evaluation format; wanted JSON, CoNLL, PubTator, a table or a list of PMIDs")
    return byte_stream.decode(data, ReadErrors(path, Counter(), strict=False))[0]


def _passages(text: str, pmids: set[int]) -> Iterator[str]:
    sample = [line for line in text[:1_000_000].splitlines() if line.strip()][:_SAMPLE_LINES]
    if (values := _parse_json(text)) is not None:
        yield from _from_json(values, pmids, False)
    elif any(map(_PUBTATOR.match, sample)):
        for pmid, body in _PUBTATOR.findall(text):
            pmids.add(int(pmid))
            yield from _sentences(body)
    elif sample and all(_is_pmid(line.strip()) for line in sample):
        pmids.update(int(line) for line in text.split() if _is_pmid(line))
    elif (delimiter := _delimiter(sample)) is not None:
        yield from _from_table(text, delimiter, pmids)
    elif sample and 2 <= statistics.median(len(line.split()) for line in sample) <= _TOKEN_LINE_FIELDS:
        yield from _from_tokens(text.splitlines())
    else:
        yield from _sentences(text)


def _parse_json(text: str) -> Any | None:
    """Returns the JSON value of the file, or the list of those of its lines; None if it is not JSON."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json_values.parse_json(text, "", finite=False)
    except json_values.NestedTooDeeplyError:
        raise
    except UserError:
        try:
            return [json_values.parse_json(line, "", finite=False) for line in text.splitlines() if line.strip()]
        except UserError:
            return None


def _from_json(value: Any, pmids: set[int], is_text: bool) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name.lower() == "pmid" and _is_pmid(str(inner)):
                pmids.add(int(inner))
            else:
                yield from _from_json(inner, pmids, name.lower() in _TEXT_KEYS)
    elif isinstance(value, list):
        for inner in value:
            yield from _from_json(inner, pmids, is_text)
    elif isinstance(value, str):
        pmids.update(map(int, _ARTICLE_URL.findall(value)))
        if is_text:
            yield from _sentences(value)


def _is_pmid(text: str) -> bool:
    return len(text) <= _MAX_PMID_DIGITS and text.isdecimal()


def _delimiter(sample: list[str]) -> str | None:
    """Returns the delimiter of a table: most lines have several fields, one of them of several words."""
    for delimiter in "\t,":
        wordy = sum(len(row) > 1 and any(map(_is_text, row)) for row in _rows(sample, delimiter))
        # Plain text has commas too; in a table, every line has the same number.
        widths = {len(row) for row in _rows(sample, delimiter)}
        if wordy > len(sample) / 2 and (delimiter == "\t" or len(widths) == 1):
            return delimiter
    return None


def _from_table(text: str, delimiter: str, pmids: set[int]) -> Iterator[str]:
    for row in _rows(text.splitlines(), delimiter):
        if row and (match := _FIRST_FIELD.fullmatch(row[0])):
            pmids.add(int(match[1] or match[2]))
        for field in filter(_is_text, row):
            for piece in _ANONYMIZED.split(field):
                yield from _sentences(piece)


def _rows(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    if delimiter == "\t":
        return (line.split(delimiter) for line in lines)
    csv.field_size_limit(decompression.MAX_WHOLE_BYTES)  # the default, 128 KiB, is less than a long text
    return csv.reader(lines)


def _is_text(field: str) -> bool:
    return field.strip().count(" ") >= 3


def _from_tokens(lines: list[str]) -> Iterator[str]:
    tokens: list[str] = []
    for line in [*lines, ""]:
        fields = line.split()
        if fields and fields[0] != "-DOCSTART-":
            tokens += [field for field in fields[:1] if field not in _BRACKET_TOKENS]
        elif tokens:
            yield " ".join(tokens)
            tokens = []


def _sentences(text: str) -> Iterator[str]:
    return filter(None, map(str.strip, _SENTENCE_END.split(text)))
