"""Compares the JATS reader with pubmed_parser: speed on one core, and the text of each article.

    pip install pubmed_parser
    python tests/benchmarks/jats.py [--rounds 7] [FILE.nxml ...]

pubmed_parser.parse_pubmed_xml reads title, abstract, authors and affiliations of an article; parse_pubmed_paragraph reads
the paragraphs of its body. Ours reads title, abstract and body at once. Rates are articles a second of process time, the
orders of the readers rotate, and the ratios are taken round by round.

Without files: the genuine articles of the reference data. `--texts` lists for each article the words that one of both
has and the other has not.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import re
import statistics
import time
import warnings
from collections.abc import Callable

from electramed_jax.data.readers import reader
from electramed_jax.data.readers.document import Document, ReadOptions

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
OPTIONS = ReadOptions(titles_alone=True)


def ours(path: str) -> int:
    return sum(1 for _ in reader.read_documents(path, collections.Counter(), options=OPTIONS))


def pubmed_parser_metadata(path: str) -> int:
    import pubmed_parser

    return bool(pubmed_parser.parse_pubmed_xml(path))


def pubmed_parser_all(path: str) -> int:
    import pubmed_parser

    pubmed_parser.parse_pubmed_paragraph(path, all_paragraph=True)
    return bool(pubmed_parser.parse_pubmed_xml(path))


READERS: dict[str, Callable[[str], int]] = {
    "ours": ours,
    "parse_pubmed_xml": pubmed_parser_metadata,
    "with paragraphs": pubmed_parser_all,
}


def measure(paths: list[str], rounds: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in READERS}
    for turn in range(rounds + 1):
        names = list(READERS)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.process_time()
            count = sum(READERS[name](path) for _ in range(5) for path in paths)
            if turn:  # the first round imports and fills caches
                rates[name].append(count / (time.process_time() - start))
    for name, values in rates.items():
        print(f"{name:18} articles/s: {spread(values, ',.0f')}")
    for name in list(READERS)[1:]:
        print(f"ours / {name:18} {spread([a / b for a, b in zip(rates['ours'], rates[name], strict=True)], '.2f')}")


def spread(values: list[float], form: str) -> str:
    stats = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return "  ".join(f"{name} {value:{form}}" for name, value in stats.items())


def words(text: str) -> collections.Counter[str]:
    return collections.Counter(re.findall(r"\w+", text))


def compare(paths: list[str]) -> None:
    import pubmed_parser

    for path in paths:
        document: Document = next(iter(reader.read_documents(path, collections.Counter(), options=OPTIONS)))
        theirs = pubmed_parser.parse_pubmed_xml(path)
        paragraphs = pubmed_parser.parse_pubmed_paragraph(path, all_paragraph=True)
        abstract = " ".join(text for _, text in document.sections[: document.abstract_sections])
        body = " ".join(text for _, text in document.sections[document.abstract_sections :])
        print(f"\n{os.path.basename(path)}")
        for name, own, other in (
            ("title", document.title, theirs["full_title"]),
            ("abstract", abstract, theirs["abstract"]),
            ("body", body, " ".join(paragraph["text"] for paragraph in paragraphs)),
        ):
            own_words, other_words = words(own), words(other)
            more, fewer = own_words - other_words, other_words - own_words
            print(
                f"  {name}: {own_words.total():,} words, theirs {other_words.total():,}; only ours {more.total():,}: "
                f"{' '.join(more)[:160]} | only theirs {fewer.total():,}: {' '.join(fewer)[:160]}"
            )


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="JATS files; default: the genuine articles of the reference data")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", action="store_true", help="compare the texts instead of the speed")
    args = parser.parse_args()
    folder = pathlib.Path(os.environ.get("ELECTRAMED_DATA", REPOSITORY.parent / "shared" / "data")) / "formats" / "jats"
    paths = args.files or [str(path) for path in sorted(folder.glob("*.*"))]
    if not paths:
        raise SystemExit(f"no genuine files in {folder}: set ELECTRAMED_DATA, or name files")
    if args.texts:
        compare(paths)
    else:
        measure(paths, args.rounds)


if __name__ == "__main__":
    main()
