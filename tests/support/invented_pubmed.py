"""Small invented PubMed files, and the documents that the reader finds in them."""

from __future__ import annotations

import pathlib
from collections import Counter

from electramed_jax.data.readers import document, reader

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle//EN" "https://dtd.invalid/p.dtd">
<PubmedArticleSet>
"""
TAIL = "</PubmedArticleSet>\n"


def article(
    pmid: int = 99_000_001,
    title: str = "Invented title.",
    abstract: str = "<AbstractText>Invented abstract.</AbstractText>",
    date: str = "<Year>2001</Year>",
    more: str = "",
    other: str = "",
    version: str = ' Version="1"',
    revised: str = "",
) -> str:
    """Returns a PubmedArticle with `more` at the end of its Article and `other` at the end of its MedlineCitation."""
    return f"""<PubmedArticle>
<MedlineCitation Status="MEDLINE"><PMID{version}>{pmid}</PMID>{revised}
<Article><Journal><JournalIssue><PubDate>{date}</PubDate></JournalIssue></Journal>
<ArticleTitle>{title}</ArticleTitle><Abstract>{abstract}</Abstract>{more}</Article>
{other}</MedlineCitation>
<PubmedData><ArticleIdList><ArticleId IdType="pubmed">1</ArticleId></ArticleIdList></PubmedData>
</PubmedArticle>
"""


def read(
    folder: pathlib.Path,
    xml: str | bytes,
    strict: bool = False,
    deletions: list[int] | None = None,
    **options: object,
) -> tuple[list[document.Document], dict[str, int]]:
    """Returns (documents, drops) of a file with the contents `xml`; `options` are fields of `ReadOptions`."""
    path = folder / "a.xml"
    path.write_bytes(xml.encode() if isinstance(xml, str) else xml)
    drops: Counter = Counter()
    found = reader.read_documents(str(path), drops, strict, document.ReadOptions(**options), deletions)
    return list(found), dict(drops)


def read_one(folder: pathlib.Path, **parts: str) -> document.Document:
    """Returns the document of a file with one `article(**parts)`."""
    (found,), drops = read(folder, HEAD + article(**parts) + TAIL)
    assert drops == {}
    return found
