"""Files of invented articles with revisions, withdrawals, duplicates and near-duplicates."""

from __future__ import annotations

import json
import pathlib
import random

from invented_pubmed import HEAD, TAIL, article

SENTENCE = (
    "The invented drug number {} lowered the pressure of blood in all of the many rats that were given any of it."
)


def write_xml(path: pathlib.Path, *records: str) -> str:
    path.write_text(HEAD + "".join(records) + TAIL)
    return str(path)


def record(number: int, text: str | None = None, revised: int = 0, **parts: str) -> str:
    """Returns an article with PMID 99,000,000 + number, revised on this day of May 2020."""
    date = f"<DateRevised><Year>2020</Year><Month>5</Month><Day>{revised}</Day></DateRevised>" if revised else ""
    abstract = f"<AbstractText>{text or SENTENCE.format(number)}</AbstractText>"
    return article(99_000_000 + number, f"Invented title {number}.", abstract, revised=date, **parts)


def withdrawal(*numbers: int) -> str:
    pmids = "".join(f'<PMID Version="1">{99_000_000 + number}</PMID>' for number in numbers)
    return f"<DeleteCitation>{pmids}</DeleteCitation>"


def write_jsonl(path: pathlib.Path, *records: dict) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def literature(folder: pathlib.Path, seed: int = 0, count: int = 6) -> list[str]:
    """Writes files with new articles, revisions, withdrawals, duplicate texts and near-duplicates."""
    rng = random.Random(seed)
    folder.mkdir()
    paths: list[str] = []
    versions: dict[int, int] = {}
    for number in range(count):
        records = []
        for _ in range(20):
            article_number = rng.randrange(10, 90)
            versions[article_number] = versions.get(article_number, 0) + 1
            kind = rng.random()
            if kind < 0.15:
                text = SENTENCE.format(rng.randrange(5))
            elif kind < 0.3:
                words = [f"term{n}" for n in range(150)]
                words[rng.randrange(len(words))] = f"word{rng.randrange(1000)}"
                text = " ".join(words)
            else:
                text = f"{SENTENCE.format(article_number)} Version {versions[article_number]}."
            title = "" if kind < 0.3 else f"Title {article_number}."
            records.append(article(99_000_000 + article_number, title, f"<AbstractText>{text}</AbstractText>"))
        if number % 2:
            records.append(withdrawal(*rng.sample(range(10, 90), 5)))
        paths.append(write_xml(folder / f"{number}.xml", *records))
    return paths
