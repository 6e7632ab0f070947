"""Measures `prepare` from end to end: articles a second, memory, bytes on disk, extrapolated to all of PubMed.

    python tests/benchmarks/prepare.py [--rounds 3] [--files 6] [--memory 10 40 160]

- `xml`: genuine articles of the reference data, each copy under a PMID and a title of its own, in --files
  files of 5,000 in the shape of PubMed's baseline (.xml.gz).
- `abstracts`, `corpus`: the abstracts, and all with full texts, of the reference corpus (JSONL), as it is.
  Also with the options `--decontaminate` of the test sets, `--near_duplicates 0.8`.
- `filter`: looking for the test sets in those abstracts, alone: their index is made once, however large
  the corpus, and in a run of so few documents that shows.
- `memory`: corpora of the given numbers of files with 5,000 short generated documents each; the peak of the largest
  process must not grow with the number of files.

Every run is a program of its own; the order changes from round to round. The table has the rate by wall
clock and by processor time (articles a second and core). Other work on the machine hardly affects the second, so the
extrapolation uses it: 38 million citations in the number of files of PubMed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import pathlib
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from lxml import etree

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("ELECTRAMED_DATA", REPOSITORY.parent / "shared" / "data"))
ARTICLES_PER_FILE = 5000
CITATIONS = 38_000_000
CORES = (2, 16, 128)
TEST_SETS = ("ner/*/electramed/test.txt", "qa/*/electramed/*.json", "re/*/*/test.csv")
HEAD = b'<?xml version="1.0" encoding="utf-8"?>\n<PubmedArticleSet>\n'
PMID = re.compile(rb"(<PMID[^>]*>)\d+(</PMID>)")


def genuine_articles() -> list[bytes]:
    found = []
    for path in sorted((DATA / "pubmed_xml").glob("*/*.xml*")):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        tree = etree.fromstring(data, etree.XMLParser(resolve_entities=False, huge_tree=True))
        for article in tree.iter("PubmedArticle"):
            article.tail = "\n"
            found.append(etree.tostring(article, encoding="utf-8"))
    if not found:
        raise SystemExit(f"no genuine files in {DATA / 'pubmed_xml'}: set ELECTRAMED_DATA")
    return found


def jsonl(pattern: str) -> list[str]:
    return [str(path) for path in sorted((DATA / "corpus").glob(f"{pattern}.jsonl.gz"))]


def test_sets() -> list[str]:
    return [str(path) for pattern in TEST_SETS for path in sorted((DATA / "eval").glob(pattern))]


def write_baseline(folder: pathlib.Path, files: int) -> list[str]:
    articles, number, paths = genuine_articles(), 0, []
    for file in range(files):
        paths.append(str(folder / f"like{file:04d}.xml.gz"))
        with gzip.open(paths[-1], "wb", 6) as output:
            output.write(HEAD)
            for _ in range(ARTICLES_PER_FILE):
                article = articles[number % len(articles)]
                article = PMID.sub(rb"\g<1>%d\g<2>" % (60_000_000 + number), article, count=1)
                output.write(article.replace(b"</ArticleTitle>", b" Copy %d.</ArticleTitle>" % number, 1))
                number += 1
            output.write(b"</PubmedArticleSet>\n")
    return paths


def write_invented(folder: pathlib.Path, files: int) -> list[str]:
    words, paths = [f"word{n}" for n in range(5000)], []
    for file in range(files):
        draw = random.Random(file)
        paths.append(str(folder / f"invented{file:04d}.jsonl.gz"))
        with gzip.open(paths[-1], "wt", 1) as output:
            for number in range(ARTICLES_PER_FILE):
                pmid = file * ARTICLES_PER_FILE + number + 1
                text = " ".join(draw.choices(words, k=25))
                output.write(json.dumps({"pmid": pmid, "source": "pubmed", "text": text}) + "\n")
    return paths


def run(name: str, paths: list[str], workers: int, **options: object) -> dict:
    """One `prepare` in a program of its own: its seconds, processor seconds, peak, and counts."""
    with tempfile.TemporaryDirectory() as folder:
        request = json.dumps([paths, f"{folder}/documents", {"workers": workers, **options}])
        done = subprocess.run([sys.executable, __file__, "--one", request], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        return {"name": name, **json.loads(done.stdout)}


def one(request: str) -> None:
    from electramed_jax.data.corpus.build import prepare
    from electramed_jax.data.parallel import process_pool

    paths, output, options = json.loads(request)
    start = time.monotonic()
    info = prepare(paths, output, **options)
    seconds = time.monotonic() - start
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    size = sum(path.stat().st_size for path in pathlib.Path(output).glob("*/part-*"))
    print(
        json.dumps(
            {
                "seconds": seconds,
                "processor": sum(usage.ru_utime + usage.ru_stime for usage in used),
                "peak": process_pool.peak_bytes(),
                "read": sum(of_file["read"] for of_file in info["inputs"]),
                "text": sum(split["bytes"] for split in info["splits"].values()),
                "stored": size,
                "input": sum(os.path.getsize(path) for path in paths),
            }
        )
    )


def rates(folder: pathlib.Path, files: int, rounds: int) -> dict[str, list[dict]]:
    xml = write_baseline(folder, files)
    abstracts, corpus, tests = jsonl("abstracts-*"), jsonl("*"), test_sets()
    runs = {
        "xml, 1 process": (xml, 1, {}),
        "xml, 2 processes": (xml, 2, {}),
        "xml, 2, --decontaminate": (xml, 2, {"evaluation_files": tests}),
        "abstracts, 2 processes": (abstracts, 2, {}),
        "abstracts, 2, --near_duplicates": (abstracts, 2, {"near_duplicates": 0.8}),
        "corpus, 1 process": (corpus, 1, {}),
        "corpus, 2 processes": (corpus, 2, {}),
    }
    results: dict[str, list[dict]] = {name: [] for name in runs}
    for turn in range(rounds):
        names = list(runs)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            paths, workers, options = runs[name]
            results[name].append(run(name, paths, workers, **options))
    for name, of_name in results.items():
        by_clock = spread([result["read"] / result["seconds"] for result in of_name])
        by_core = spread([result["read"] / result["processor"] for result in of_name])
        megabytes = statistics.median(result["text"] / 1e6 / result["processor"] for result in of_name)
        peak = max(result["peak"] for result in of_name) / 1e6
        print(f"{name:31} documents/s {by_clock}; a core {by_core}, {megabytes:.1f} MB of text; peak {peak:.0f} MB")
    return results


def seconds_each(of_name: list[dict]) -> float:
    """Of a processor, a document."""
    return statistics.median(result["processor"] / result["read"] for result in of_name)


def filter_alone(rounds: int) -> float:
    """Seconds of a processor that one abstract takes to be looked through."""
    from electramed_jax.data.corpus import decontaminate

    index = decontaminate.read_index(test_sets())
    lines = (line for path in jsonl("abstracts-*") for line in gzip.open(path))  # noqa: SIM115 - closed with the process
    texts = [f"{record['title']}\n{record['text']}" for record in map(json.loads, lines)]
    index.matches(None, texts[0])
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        for text in texts:
            index.matches(None, text)
        seconds.append(time.process_time() - start)
    size = sum(map(len, texts)) / 1e6
    print(f"filter: {len(index.bounds) - 1:,} sentences in abstracts, MB/s {spread([size / s for s in seconds])}")
    return statistics.median(seconds) / len(texts)


def extrapolate(results: dict[str, list[dict]], of_filter: float) -> None:
    """Hours for all of PubMed, its XML read, with and without options, each core at work all the time."""
    plain = seconds_each(results["xml, 2 processes"])
    near = seconds_each(results["abstracts, 2, --near_duplicates"]) - seconds_each(results["abstracts, 2 processes"])
    costs = {"": plain, " --decontaminate": plain + of_filter, " --near_duplicates": plain + near}
    for option, cost in costs.items():
        hours = "  ".join(f"{cores} cores {CITATIONS * cost / cores / 3600:.2f} h" for cores in CORES)
        print(f"{CITATIONS:,} citations, prepare{option}: {hours}")
    result = results["xml, 2 processes"][0]
    read, text, stored = (CITATIONS / result["read"] * result[name] / 1e9 for name in ("input", "text", "stored"))
    print(f"on disk: {read:.0f} GB of .xml.gz become {text:.0f} GB of text in {stored:.0f} GB of parts")


def memory(folder: pathlib.Path, counts: list[int]) -> None:
    paths = write_invented(folder, max(counts))
    for count in counts:
        result = run("memory", paths[:count], 2)
        print(
            f"memory: {count:4} files, {result['read']:9,} documents: peak {result['peak'] / 1e6:.0f} MB in a process"
        )


def spread(values: list[float]) -> str:
    return f"{min(values):,.0f} / {statistics.median(values):,.0f} / {max(values):,.0f} (min/median/max)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=6)
    parser.add_argument("--memory", type=int, nargs="*", default=[10, 40, 160])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.one)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if args.rounds:
            results = rates(folder, args.files, args.rounds)
            extrapolate(results, filter_alone(args.rounds))
        if args.memory:
            memory(folder, args.memory)


if __name__ == "__main__":
    main()
