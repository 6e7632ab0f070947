"""The registry of file formats: one row for each reader, and how the content of a file is recognized.

A new format is a module with `read(errors, options, deletions)` and a row in `FORMATS`. The rows are tried in order, so
a format that is a special case of another comes first. Content decides: the first bytes, the first element, the keys of
the first JSON object or the first lines. The name of a file decides only where its content fits no row, as for a
damaged file, and for Markdown, which has no mark of its own.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import re
from collections.abc import Callable

from electramed_jax.common.errors import UserError
from electramed_jax.data.readers import archive, record_fields
from electramed_jax.data.readers.head import Head

TEXT = "text"


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
      name: value of --format.
      module: the reader, below `electramed_jax.data.readers`; imported on first use.
      contents: what it reads, in one line.
      endings: usual endings of its files, without those of a compression.
      matches: whether the first bytes are of this format.
    """

    name: str
    module: str
    contents: str
    endings: tuple[str, ...]
    matches: Callable[[Head], bool]


_PUBMED = re.compile(r"<(?:Pubmed(?:Book)?Article(?:Set)?|MedlineCitation(?:Set)?|DeleteCitation|DeleteDocument)[\s>]")
_JATS = re.compile(r"<front[\s>]|<article-meta[\s>]|\sarticle-type=|//NLM//DTD ")
_ARTICLE = re.compile(r"<article[\s>]")
_MEDLINE = re.compile(r"(?:PMID|OWN |STAT|DCOM|LR  |IS  |DP  |TI  )- ")
_RIS = re.compile(r"\ufeff?TY  - \w{2,8}\s*$")
_PUBTATOR = re.compile(r"\ufeff?[^|\t ]{1,40}\|[ta]\|")
_RECORD_KEYS = {"text", "sections"}  # a JSON object with one of these is a record of this project's own form
_MIN_TABLE_LINES = 2


def _is_pubmed_xml(head: Head) -> bool:
    return bool(head.root) and head.root not in ("article", "html") and bool(_PUBMED.search(head.text))


def _is_jats(head: Head) -> bool:
    if head.root == "article":
        return bool(_JATS.search(head.text))
    return head.root in ("pmc-articleset", "articles", "article-set", "OAI-PMH") and bool(_ARTICLE.search(head.text))


def _is_bioc_xml(head: Head) -> bool:
    return head.root == "collection" and ("<document" in head.text or "BioC.dtd" in head.text)


def _is_bioc_json(head: Head) -> bool:
    keys = head.keys
    return (
        "passages" in keys
        or ("documents" in keys and bool({"infons", "source", "bioctype"} & keys))
        or "PubTator3" in keys
    )


def _is_s2orc(head: Head) -> bool:
    keys = head.keys
    return not _RECORD_KEYS & keys and (
        bool({"pdf_parse", "grobid_parse", "latex_parse"} & keys)
        or {"paper_id", "body_text"} <= keys
        or {"corpusid", "content"} <= keys
    )


def _is_europe_pmc(head: Head) -> bool:
    return "resultList" in head.keys or {"abstractText", "source"} <= head.keys


def _is_semantic_scholar(head: Head) -> bool:
    keys = head.keys
    return (
        "paperId" in keys
        or {"corpusid", "abstract"} <= keys
        or ({"data", "total"} <= keys and '"paperId"' in head.text)
    )


def _is_json(head: Head) -> bool:
    return bool(head.keys) and not head.is_json_lines


def _is_medline(head: Head) -> bool:
    tags = [line[:4] for line in head.lines[:30] if _MEDLINE.match(line)]
    return "PMID" in tags and len(tags) > 1


def _is_table(head: Head, separators: str) -> bool:
    """Returns whether the first lines have equal numbers of fields, the first of them names of fields."""
    lines = head.lines
    separator = record_fields.find_separator(lines[0]) if lines else ""
    if len(lines) < _MIN_TABLE_LINES or separator not in separators or separator not in lines[0]:
        return False
    try:
        header, first = itertools.islice(csv.reader(lines, delimiter=separator), 2)
    except (csv.Error, ValueError):
        return False
    return len(header) == len(first) > 1 and record_fields.has_text_field(header)


FORMATS = (
    Format(
        "pubmed_xml",
        "pubmed.pubmed_xml",
        "PubMed XML of any DTD year: articles and book chapters",
        (".xml",),
        _is_pubmed_xml,
    ),
    Format(
        "jats",
        "jats.jats_xml",
        "JATS full texts of PubMed Central, bioRxiv and publishers: one article, or a set",
        (".nxml", ".xml"),
        _is_jats,
    ),
    Format("bioc_xml", "exports.bioc_xml", "BioC collections in XML", (".xml",), _is_bioc_xml),
    Format("bioc_json", "exports.bioc_json", "BioC collections in JSON", (".json", ".jsonl"), _is_bioc_json),
    Format(
        "s2orc",
        "papers.s2orc",
        "S2ORC full texts in JSON (2019, 2020, doc2json, datasets of the API), CORD-19",
        (".json", ".jsonl"),
        _is_s2orc,
    ),
    Format(
        "europe_pmc",
        "papers.service_abstracts",
        "results of Europe PMC's search in JSON",
        (".json", ".jsonl"),
        _is_europe_pmc,
    ),
    Format(
        "semantic_scholar",
        "papers.service_abstracts",
        "records and datasets of Semantic Scholar in JSON",
        (".json", ".jsonl"),
        _is_semantic_scholar,
    ),
    Format("jsonl", "jsonl", "one JSON object a line", (".jsonl", ".ndjson", ".json"), lambda head: head.is_json_lines),
    Format("json", "tables.json_records", "an array of JSON objects, or one object", (".json",), _is_json),
    Format(
        "ris",
        "exports.ris",
        "RIS of reference managers and databases",
        (".ris", ".txt"),
        lambda head: bool(head.lines) and bool(_RIS.match(head.lines[0])),
    ),
    Format(
        "medline",
        "exports.medline",
        'PubMed\'s text export: .nbib, "Save as PubMed"',
        (".nbib", ".txt", ".medline"),
        _is_medline,
    ),
    Format(
        "pubtator",
        "exports.pubtator",
        "PubTator: PMID|t|title, PMID|a|abstract, annotations",
        (".txt", ".pubtator"),
        lambda head: bool(head.lines) and bool(_PUBTATOR.match(head.lines[0])),
    ),
    Format(
        "parquet",
        "tables.arrow_table",
        "Parquet tables",
        (".parquet", ".pq"),
        lambda head: head.data.startswith(b"PAR1"),
    ),
    Format(
        "arrow",
        "tables.arrow_table",
        "Arrow tables: files and streams",
        (".arrow", ".feather"),
        lambda head: head.data.startswith((b"ARROW1", b"\xff\xff\xff\xff")),
    ),
    Format("tsv", "tables.csv_table", "tables with tabs", (".tsv", ".tab", ".txt"), lambda head: _is_table(head, "\t")),
    Format(
        "csv",
        "tables.csv_table",
        "tables with commas, semicolons or bars",
        (".csv",),
        lambda head: _is_table(head, ",;|"),
    ),
    Format(
        archive.TAR,
        "archive",
        "tar archives of files in these formats",
        (".tar",),
        lambda head: head.data[257:262] == b"ustar",
    ),
    Format(
        archive.ZIP,
        "archive",
        "zip archives of files in these formats",
        (".zip",),
        lambda head: head.data.startswith((b"PK\x03\x04", b"PK\x05\x06")),
    ),
    Format(
        "markdown",
        "markdown",
        "Markdown: a document a file, sections by heading",
        (".md", ".markdown"),
        lambda head: head.name.endswith((".md", ".markdown")) and bool(head.data) and not head.is_binary,
    ),
    Format(TEXT, "plain_text", "plain text: documents separated by blank lines", (".txt", ".text"), lambda head: False),
)


# Ending of a name -> format of a file with content that fits no row.
_NAMES = {
    ".nxml": "jats",
    ".xml": "pubmed_xml",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".nbib": "medline",
    ".medline": "medline",
    ".ris": "ris",
    ".pubtator": "pubtator",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".csv": "csv",
    ".tar": archive.TAR,
    ".zip": archive.ZIP,
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": TEXT,
    ".text": TEXT,
}


def find_format(name: str) -> Format:
    """Returns the format of a name of --format.

    Raises:
      UserError: there is none.
    """
    for row in FORMATS:
        if row.name == name:
            return row
    raise UserError(
        f"format={name!r}: wanted one of {', '.join(row.name for row in FORMATS)}; "
        "electramed prepare --list_formats describes them"
    )


def recognize(head: Head) -> Format | None:
    """Returns the format of an input: by its content, or else by its name; None for one that no reader accepts."""
    for row in FORMATS:
        if row.matches(head):
            return row
    if named := format_of_name(head.name):
        return named
    is_markup = bool(head.root) or head.text.lstrip().startswith(("{", "["))
    return None if head.is_binary or is_markup or not head.data else find_format(TEXT)


def format_of_name(name: str) -> Format | None:
    """Returns the format of files with this name."""
    return next((find_format(row) for ending, row in _NAMES.items() if name.endswith(ending)), None)


def mismatch(head: Head, found: Format) -> str:
    """Returns a description of a name that is usual for another format than the recognized one; "" if it fits."""
    if head.name.endswith(found.endings):
        return ""
    other = format_of_name(head.name)
    return f"the name is that of {other.name}" if other else ""


def list_formats() -> str:
    """Returns a table of the formats, for --list_formats."""
    rows = [(row.name, " ".join(row.endings), row.contents) for row in FORMATS]
    rows += [
        ("hf:NAME", "", "Hugging Face datasets in the local cache, and folders of save_to_disk"),
        ("tfds:NAME", "", "datasets that TFDS has prepared"),
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {endings:<{widths[1]}}  {contents}" for name, endings, contents in rows)
