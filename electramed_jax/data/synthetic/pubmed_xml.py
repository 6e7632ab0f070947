"""Writes synthetic articles as PubMed XML: input for the whole pipeline, with text that a small model can learn."""

from __future__ import annotations

import gzip
from xml.sax import saxutils

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.synthetic.articles import Article, generate_article

FIRST_PMID = 90_000_001  # above any PMID in use, so that a synthetic article cannot be taken for a real one


def write_pubmed_xml(output_dir: str, articles: int = 6000, seed: int = 0, num_files: int = 4) -> list[str]:
    """Writes `invented-0001.xml.gz` and so on, each a PubmedArticleSet; the text is a function of the arguments.

    3 % of the articles have no abstract, half of the others a labelled one; titles and abstracts have inline markup.

    Args:
      output_dir: folder to create.
      articles: number of articles.
      seed: of the text.
      num_files: number of files, from 1 to `articles`.

    Returns:
      The paths of the files, in order.

    Raises:
      UserError: `num_files` out of range.
    """
    if not 1 <= num_files <= articles:
        raise UserError(f"articles={articles}, num_files={num_files}; wanted 1 to {articles} files")
    files.make_dirs(output_dir)
    bounds = [i * articles // num_files for i in range(num_files + 1)]
    paths = []
    for i in range(num_files):
        path = files.join(output_dir, f"invented-{i + 1:04d}.xml.gz")
        text = _HEAD + "".join(
            _pubmed_article(FIRST_PMID + number, generate_article(seed, number))
            for number in range(bounds[i], bounds[i + 1])
        )
        # No name or time in the gzip header: the bytes depend only on the text.
        with (
            files.atomic_write(path) as file,
            gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as compressed,
        ):
            compressed.write((text + "</PubmedArticleSet>\n").encode())
        paths.append(path)
    return paths


_HEAD = """\
<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2025//EN" \
"https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">
<PubmedArticleSet>
"""


def _pubmed_article(pmid: int, article: Article) -> str:
    """Formats one <PubmedArticle>, with its elements in the order of PubMed's DTD."""
    sections = "".join(
        f"<AbstractText>{text}</AbstractText>"
        if label is None
        else f'<AbstractText Label="{label}" NlmCategory="{label}">{text}</AbstractText>'
        for label, text in article.sections
    )
    abstract = f"<Abstract>{sections}</Abstract>" if sections else ""
    authors = "".join(
        f'<Author ValidYN="Y"><LastName>{last}</LastName><ForeName>{first}</ForeName>'
        f"<Initials>{first}</Initials></Author>"
        for last, first in article.authors
    )
    journal = saxutils.escape(article.journal)
    return f"""\
<PubmedArticle>
<MedlineCitation Status="MEDLINE" Owner="NLM">
<PMID Version="1">{pmid}</PMID>
<Article PubModel="Print">
<Journal><JournalIssue CitedMedium="Print"><Volume>{article.year - 1980}</Volume><PubDate>\
<Year>{article.year}</Year><Month>{article.month}</Month></PubDate></JournalIssue>\
<Title>{journal}</Title><ISOAbbreviation>{journal}</ISOAbbreviation></Journal>
<ArticleTitle>{article.title}</ArticleTitle>
<Pagination><MedlinePgn>{article.first_page}-{article.first_page + 7}</MedlinePgn></Pagination>
{abstract}
<AuthorList CompleteYN="Y">{authors}</AuthorList>
<Language>eng</Language>
<PublicationTypeList><PublicationType UI="D016428">Journal Article</PublicationType>\
</PublicationTypeList>
</Article>
<MedlineJournalInfo><MedlineTA>{journal}</MedlineTA></MedlineJournalInfo>
</MedlineCitation>
<PubmedData><PublicationStatus>ppublish</PublicationStatus>\
<ArticleIdList><ArticleId IdType="pubmed">{pmid}</ArticleId></ArticleIdList></PubmedData>
</PubmedArticle>
"""
