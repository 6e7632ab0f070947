"""PubTator reader: `PMID|t|title`, `PMID|a|abstract`, then annotations, which are left out.

Reasons: `no_text` (neither title nor abstract), `bad_line` (a line of no known form).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from electramed_jax.data.readers import byte_stream
from electramed_jax.data.readers.document import ABSTRACT, Document, ReadErrors, parse_positive_int

SOURCE = "pubtator"

_TEXT = re.compile(r"\ufeff?([^|\t]{1,40})\|([ta])\|(.*)", re.DOTALL)
_ANNOTATION = re.compile(r"\S{1,40}\t")


def read(errors: ReadErrors, *_: object) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`.

    Raises:
      UserError: damage, if `errors` is strict.
    """
    name, texts = "", {"t": "", "a": ""}
    for number, line, replaced in byte_stream.read_lines(errors):
        if match := _TEXT.match(line):
            if name and match[1] != name:
                yield from _document(name, texts, errors)
                texts = {"t": "", "a": ""}
            name = match[1]
            texts[match[2]] = " ".join(f"{texts[match[2]]} {match[3]}".split())
            if replaced:
                byte_stream.report_replaced_bytes(errors, number, replaced)
        elif line.strip() and not _ANNOTATION.match(line):
            errors.report_damaged("bad_line", number, "neither PMID|t|title, PMID|a|abstract nor an annotation")
    if name and not errors.truncated:
        yield from _document(name, texts, errors)


def _document(name: str, texts: dict[str, str], errors: ReadErrors) -> Iterator[Document]:
    if not (texts["t"] or texts["a"]):
        errors.count_dropped("no_text")
        return
    pmid = parse_positive_int(name)
    yield Document(
        id=f"PMID{pmid}" if pmid else name,
        pmid=pmid,
        title=texts["t"],
        sections=((None, texts["a"]),) if texts["a"] else (),
        year=None,
        source=SOURCE,
        kind=ABSTRACT,
    )
