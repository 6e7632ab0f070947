"""Compares the PubMed XML reader with two peers: articles a second, in one process on one core.

    pip install pubmed_parser
    python tests/benchmarks/pubmed_xml.py [--rounds 7] [FILE.xml.gz ...]

Without files, genuine articles of the reference data are put together, again and again, into one
file of the shape of PubMed's baseline (30 MB, gzip level 6) in a temporary folder. All read the same
.gz; the order changes from round to round; time is that of the processor, so that a busy machine
does not blur the ratios. Two peers:

- `pubmed_parser` (PyPI), parse_medline_xml, with the options under which it does least: the year
  alone of the date, authors and references as strings, MeSH headings without subheadings. It reads
  those (and journal, grants, chemicals) with every article; no option turns that off.
- `iterparse`: what one would write by hand with lxml for our fields alone: PMID, version, title,
  abstract with labels, year, language, date of revision; text by itertext.

Ours also takes off markup, marks and notices (see data/readers/pubmed/pubmed_text.py), and reads file and article
so that damage costs one article. Every reader must come to the same number of articles.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

from lxml import etree

from electramed_jax.data.readers import reader

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
HEAD = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2025//EN" \
"https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">
<PubmedArticleSet>
"""
SIZE = 30_000_000


def genuine_articles() -> Iterator[bytes]:
    folder = pathlib.Path(os.environ.get("ELECTRAMED_DATA", REPOSITORY.parent / "shared" / "data")) / "pubmed_xml"
    paths = sorted(folder.glob("*/*.xml*"))
    if not paths:
        raise SystemExit(f"no genuine files in {folder}: set ELECTRAMED_DATA, or name files")
    for path in paths:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for article in etree.fromstring(data, etree.XMLParser(resolve_entities=False, huge_tree=True)).iter(
            "PubmedArticle"
        ):
            article.tail = "\n"
            yield etree.tostring(article, encoding="utf-8")


def write_baseline_like(path: pathlib.Path) -> None:
    articles, size = list(genuine_articles()), 0
    with gzip.open(path, "wb", 6) as file:
        file.write(HEAD.encode())
        while size < SIZE:
            for article in articles:
                size += file.write(article)
        file.write(b"</PubmedArticleSet>\n")


def ours(path: str) -> int:
    drops: collections.Counter = collections.Counter()
    return sum(1 for _ in reader.read_documents(path, drops)) + drops.total()


def pubmed_parser(path: str) -> int:
    import pubmed_parser

    return sum(1 for _ in pubmed_parser.parse_medline_xml(path, year_info_only=True))


def iterparse(path: str) -> int:
    count = 0
    with gzip.open(path) as file:
        for _, element in etree.iterparse(file, tag="PubmedArticle"):
            citation = element.find("MedlineCitation")
            number, article = citation.find("PMID"), citation.find("Article")
            title = article.find("ArticleTitle")
            sections = article.findall("Abstract/AbstractText")
            taken = [
                number.text,
                number.get("Version"),
                "".join(title.itertext()) if title is not None else "",
                [(section.get("Label"), "".join(section.itertext())) for section in sections],
                article.findtext("Journal/JournalIssue/PubDate/Year"),
                article.findtext("Language"),
                [part.text for part in citation.iterfind("DateRevised/*")],
            ]
            count += bool(taken)
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]
    return count


READERS: dict[str, Callable[[str], int]] = {"ours": ours, "pubmed_parser": pubmed_parser, "iterparse": iterparse}


def measure(paths: list[str], rounds: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in READERS}
    for turn in range(rounds):
        names = list(READERS)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.process_time()
            counts = [READERS[name](path) for path in paths]
            rates[name].append(sum(counts) / (time.process_time() - start))
            if turn == 0:
                print(f"{name}: {sum(counts):,} articles", flush=True)
    for name, values in rates.items():
        print(f"{name:14} articles/s: {spread(values, ',.0f')}")
    for name in list(READERS)[1:]:
        print(f"ours / {name:14} {spread([a / b for a, b in zip(rates['ours'], rates[name], strict=True)], '.2f')}")


def spread(values: list[float], form: str) -> str:
    stats = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return "  ".join(f"{name} {value:{form}}" for name, value in stats.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="PubMed's .xml.gz files; default: one made of genuine articles")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not args.files:
            path = pathlib.Path(folder) / "baseline-like.xml.gz"
            write_baseline_like(path)
            print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")
            args.files = [str(path)]
        measure(args.files, args.rounds)


if __name__ == "__main__":
    main()
