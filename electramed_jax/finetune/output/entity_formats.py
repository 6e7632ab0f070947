"""Output formats of documents with entities: JSON lines, BioC JSON, PubTator, CoNLL, CSV, brat, HTML.

Offsets are characters (Unicode code points) of the document's text: title, sections and their labels, joined by line
breaks (`Document.text`). They are the same numbers in all formats.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from electramed_jax.finetune.output import entity_page, entity_tables
from electramed_jax.finetune.output.annotated_document import AnnotatedDocument

JSONL, BIOC, PUBTATOR, CONLL, CSV, HTML = ONE_FILE_FORMATS = ("jsonl", "bioc", "pubtator", "conll", "csv", "html")
BRAT = "brat"  # a folder with two files for each document: written by `brat.py`
FORMATS = (*ONE_FILE_FORMATS, BRAT)


def get_writer(form: str) -> Callable[[Iterable[AnnotatedDocument], str], Iterator[str]]:
    """Returns the writer of one of `ONE_FILE_FORMATS`: (documents, name of the model) -> pieces of text."""
    writers: dict[str, Callable[[Iterable[AnnotatedDocument], str], Iterator[str]]] = {
        JSONL: _jsonl,
        BIOC: _bioc,
        PUBTATOR: _pubtator,
        CONLL: entity_tables.write_conll,
        CSV: entity_tables.write_csv,
        HTML: entity_page.write_html,
    }
    return writers[form]


def _jsonl(documents: Iterable[AnnotatedDocument], _model: str) -> Iterator[str]:
    for document, parts in documents:
        text = document.text
        entities = [
            {
                "start": one.start,
                "end": one.stop,
                "text": text[one.start : one.stop],
                "type": one.type,
                "confidence": round(one.confidence, 6),
            }
            for _, found in parts
            for one in found
        ]
        pmid = {} if document.pmid is None else {"pmid": document.pmid}
        yield json.dumps({"id": document.id, **pmid, "text": text, "entities": entities}, ensure_ascii=False) + "\n"


def _bioc(documents: Iterable[AnnotatedDocument], model: str) -> Iterator[str]:
    """Yields a BioC collection, one document per line. Source: BioC's DTD, and the JSON that NCBI serves."""
    today, infons = datetime.date.today().isoformat(), {"model": model}
    head = {"source": "electramed predict", "date": today, "key": "", "infons": infons}
    yield json.dumps(head, ensure_ascii=False)[:-1] + ', "documents": ['
    between = "\n"
    for document, parts in documents:
        infons = {} if document.pmid is None else {"pmid": str(document.pmid)}
        made: dict[str, Any] = {"id": document.id, "infons": infons, "passages": [], "annotations": [], "relations": []}
        number = 0
        for passage, found in parts:
            annotations = []
            for one in found:
                number += 1
                place = one.start - passage.start
                annotations.append(
                    {
                        "id": f"T{number}",
                        "infons": {"type": one.type, "confidence": f"{one.confidence:.6f}"},
                        "text": passage.text[place : place + one.stop - one.start],
                        "locations": [{"offset": one.start, "length": one.stop - one.start}],
                    }
                )
            made["passages"].append(
                {
                    "offset": passage.start,
                    "infons": {"type": passage.type} | ({"section": passage.label} if passage.label else {}),
                    "text": passage.text,
                    "sentences": [],
                    "annotations": annotations,
                    "relations": [],
                }
            )
        yield between + json.dumps(made, ensure_ascii=False)
        between = ",\n"
    yield "\n]}\n"


def _pubtator(documents: Iterable[AnnotatedDocument], _model: str) -> Iterator[str]:
    """Yields PMID|t|title, PMID|a|abstract, then PMID, start, end, mention, type, "-" (no concept), and an empty line.

    A text without a title becomes the abstract. Its offsets are one higher, because readers put a line break between
    title and abstract.
    """
    for document, parts in documents:
        text = document.text
        identifier = re.sub(r"[\s|]", "_", str(document.pmid or document.id))
        title = document.title
        shift = 0 if title else 1
        lines = [f"{identifier}|t|{_line(title)}", f"{identifier}|a|{_line(text[len(title) + 1 - shift :])}"]
        for _, found in parts:
            for one in found:
                mention = _line(text[one.start : one.stop])
                lines.append(f"{identifier}\t{one.start + shift}\t{one.stop + shift}\t{mention}\t{one.type}\t-")
        yield "\n".join(lines) + "\n\n"


def _line(text: str) -> str:
    """Replaces each line break and tab with a space, so that offsets stay."""
    return re.sub(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]", " ", text)
