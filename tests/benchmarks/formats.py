"""Measures each reader of `prepare`: what it reads of genuine files, its speed against the best-known parser, and memory.

    pip install pubmed_parser biopython rispy
    python tests/benchmarks/formats.py [--only medline ris] [--rounds 5] [--documents 10000]

Reads: records and documents of the genuine files in the reference data; "lost" are records that are dropped, by reason.

Speed and memory: of one file in each format. PubMed XML, JATS, MEDLINE, PubTator and S2ORC: the genuine files, their records
repeated. The others are written from the abstracts of the reference corpus. Readers run in processes of their own,
ours and the other one in turns; a process reads a small part first, then the file. Ratios are those of the processor time
of each round: median [minimum, maximum]. Peak memory is that of our process (VmHWM), the imports of the format included;
with twice the documents in brackets.

The other parsers return what they read in their own objects, most with more fields than ours. Where there is no parser
but a library for the container (json, csv, pyarrow, datasets), the ratio is to a loop that takes the same fields with it.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from typing import Any
from xml.sax.saxutils import escape

sys.path.insert(0, os.path.dirname(__file__))
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("ELECTRAMED_DATA", REPOSITORY.parent / "shared" / "data"))

Record = dict[str, Any]


def abstracts(number: int) -> list[Record]:
    """Returns {"pmid", "title", "abstract"} of the corpus, again from the start if it has fewer."""
    found: list[Record] = []
    for path in sorted((DATA / "corpus").glob("abstracts-*.jsonl.gz")):
        with gzip.open(path, "rt") as file:
            found += [{"title": r["title"], "abstract": r["text"]} for r in map(json.loads, file)]
    return [{"pmid": str(60_000_000 + n), **found[n % len(found)]} for n in range(number)]


def genuine(folder: str, pattern: str) -> list[pathlib.Path]:
    return sorted((DATA / folder).glob(pattern))


def repeated(pieces: list[str], number: int) -> Iterable[str]:
    return (pieces[n % len(pieces)] for n in range(number))


def write_pubmed_xml(path: pathlib.Path, number: int) -> None:
    import pubmed_xml

    articles = list(pubmed_xml.genuine_articles())
    with gzip.open(path, "wb", 6) as file:  # the other parser reads no other files
        file.write(pubmed_xml.HEAD.encode())
        file.writelines(articles[n % len(articles)] for n in range(number))
        file.write(b"</PubmedArticleSet>\n")


def write_jats(path: pathlib.Path, number: int) -> None:
    articles = []
    for source in genuine("formats/jats", "*"):
        text = source.read_text(encoding="utf-8")
        articles.append(text[re.search(r"<article[\s>]", text).start() :])  # type: ignore[union-attr]
    with open(path, "w", encoding="utf-8") as file:
        file.write("<pmc-articleset>")
        file.writelines(repeated(articles, number // 50))
        file.write("</pmc-articleset>\n")


def write_bioc_xml(path: pathlib.Path, number: int) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write("<collection><source>PubMed</source><date>d</date><key>k</key>")
        for record in abstracts(number):
            file.write(f"<document><id>{record['pmid']}</id>")
            for kind in ("title", "abstract"):
                text = escape(record[kind])
                file.write(f'<passage><infon key="type">{kind}</infon><offset>0</offset><text>{text}</text></passage>')
            file.write("</document>\n")
        file.write("</collection>\n")


def bioc_json(records: list[Record]) -> Any:
    empty: Record = {"offset": 0, "sentences": [], "annotations": [], "relations": []}
    documents = [
        {
            "id": record["pmid"],
            "infons": {},
            "passages": [{"infons": {"type": kind}, "text": record[kind], **empty} for kind in ("title", "abstract")],
            "annotations": [],
            "relations": [],
        }
        for record in records
    ]
    return {"source": "PubMed", "date": "", "key": "", "infons": {}, "documents": documents}


def write_medline(path: pathlib.Path, number: int) -> None:
    text = "\n\n".join(source.read_text().strip() for source in genuine("formats/medline", "*"))
    records = re.split(r"\n\s*\n(?=PMID)", text)
    path.write_text("\n\n".join(repeated(records, number)) + "\n")


def write_pubtator(path: pathlib.Path, number: int) -> None:
    records = genuine("formats/pubtator", "*")[0].read_text().strip().split("\n\n")
    path.write_text("\n\n".join(repeated(records, number)) + "\n\n")


def write_s2orc(path: pathlib.Path, number: int) -> None:
    papers = [json.dumps(json.loads(source.read_text())) for source in genuine("formats/s2orc", "*")]
    path.write_text("\n".join(repeated(papers, number // 20)) + "\n")


def write_ris(path: pathlib.Path, number: int) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for record in abstracts(number):
            abstract = " ".join(record["abstract"].split())
            file.write(f"TY  - JOUR\nID  - {record['pmid']}\nTI  - {record['title']}\nAB  - {abstract}\nER  - \n\n")


def write_json(wrap: Callable[[list[Record]], Any]) -> Callable[[pathlib.Path, int], None]:
    return lambda path, number: path.write_text(json.dumps(wrap(abstracts(number))), encoding="utf-8") and None


def europe_pmc(records: list[Record]) -> Any:
    results = [
        {"id": r["pmid"], "source": "MED", "pmid": r["pmid"], "title": r["title"], "abstractText": r["abstract"]}
        for r in records
    ]
    return {"version": "6.9", "hitCount": len(results), "resultList": {"result": results}}


def semantic_scholar(records: list[Record]) -> Any:
    data = [
        {"paperId": f"{int(r['pmid']):040x}", "externalIds": {"PubMed": r["pmid"]}, "title": r["title"]}
        | {"abstract": r["abstract"]}
        for r in records
    ]
    return {"total": len(data), "data": data}


def json_lines(number: int) -> bytes:
    records = ({"pmid": int(r["pmid"]), "title": r["title"], "text": r["abstract"]} for r in abstracts(number))
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def write_csv(separator: str) -> Callable[[pathlib.Path, int], None]:
    def write(path: pathlib.Path, number: int) -> None:
        import csv

        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ("pmid", "title", "abstract"), delimiter=separator)
            writer.writeheader()
            writer.writerows(abstracts(number))

    return write


def write_parquet(path: pathlib.Path, number: int) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(abstracts(number)), path, row_group_size=2_000)


def write_arrow(path: pathlib.Path, number: int) -> None:
    import pyarrow as pa

    table = pa.Table.from_pylist(abstracts(number))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2_000)


def write_dataset(path: pathlib.Path, number: int) -> None:
    import datasets

    datasets.Dataset.from_list(abstracts(number)).save_to_disk(str(path))


def write_tar(path: pathlib.Path, number: int) -> None:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for part in range(10):
            data = json_lines(number // 10)
            member = tarfile.TarInfo(f"part-{part}.jsonl")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def write_zip(path: pathlib.Path, number: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for part in range(10):
            archive.writestr(f"part-{part}.jsonl", json_lines(number // 10))


def write_text(path: pathlib.Path, number: int) -> None:
    path.write_text("\n\n".join(f"{r['title']}\n{r['abstract']}" for r in abstracts(number)), encoding="utf-8")


def read_pubmed_parser(path: str) -> int:
    import pubmed_parser

    return sum(1 for _ in pubmed_parser.parse_medline_xml(path, year_info_only=True))


def read_pubmed_parser_jats(path: str) -> int:
    """Reads the files that `write_jats` puts together, as often: the parser takes one article a file."""
    import warnings

    import pubmed_parser

    warnings.filterwarnings("ignore")
    number = pathlib.Path(path).read_bytes().count(b"</article>")
    sources = [str(source) for source in genuine("formats/jats", "*")]
    return sum(bool(pubmed_parser.parse_pubmed_xml(sources[n % len(sources)])) for n in range(number))


def read_bioc_xml(path: str) -> int:
    from bioc import biocxml

    with open(path) as file:
        return sum(1 for document in biocxml.load(file).documents if [p.text for p in document.passages])


def read_bioc_json(path: str) -> int:
    from bioc import biocjson

    with open(path) as file:
        return sum(1 for document in biocjson.load(file).documents if [p.text for p in document.passages])


def read_biopython(path: str) -> int:
    from Bio import Medline

    with open(path) as file:
        return sum(1 for record in Medline.parse(file) if record.get("AB") or record.get("TI"))


def read_rispy(path: str) -> int:
    import rispy

    with open(path, encoding="utf-8") as file:
        return sum(1 for record in rispy.load(file) if record.get("abstract"))


def read_bioc_pubtator(path: str) -> int:
    from bioc import pubtator

    with open(path) as file:
        return sum(1 for document in pubtator.load(file) if document.title or document.abstract)


def read_with_json(path: str) -> int:
    data = pathlib.Path(path).read_text(encoding="utf-8")
    try:
        value = json.loads(data)
    except ValueError:  # lines
        return sum(1 for line in data.splitlines() if json.loads(line))
    for key in ("resultList", "result", "data"):
        value = value[key] if isinstance(value, dict) and key in value else value
    return sum(1 for record in value if record.get("abstract") or record.get("abstractText"))


def read_json_lines(path: str) -> int:
    with open(path, encoding="utf-8") as file:
        return sum(1 for line in file if json.loads(line)["text"])


def read_with_csv(path: str) -> int:
    import csv

    csv.field_size_limit(1 << 24)
    with open(path, newline="", encoding="utf-8") as file:
        return sum(
            1 for row in csv.DictReader(file, delimiter="\t" if path.endswith("tsv") else ",") if row["abstract"]
        )


def read_with_pyarrow(path: str) -> int:
    from pyarrow import parquet

    batches = parquet.ParquetFile(path).iter_batches(1_000)
    return sum(1 for batch in batches for row in batch.to_pylist() if row["abstract"])


def read_arrow_stream(path: str) -> int:
    import pyarrow as pa

    with pa.OSFile(path, "rb") as file, pa.ipc.open_stream(file) as stream:
        return sum(1 for batch in stream for row in batch.to_pylist() if row["abstract"])


def read_with_datasets(path: str) -> int:
    import datasets

    return sum(1 for row in datasets.load_from_disk(path) if row["abstract"])


def read_with_tarfile(path: str) -> int:
    with tarfile.open(path) as archive:
        return sum(1 for member in archive for line in archive.extractfile(member) or () if json.loads(line)["text"])


def read_with_zipfile(path: str) -> int:
    with zipfile.ZipFile(path) as archive:
        return sum(1 for name in archive.namelist() for line in archive.open(name) if json.loads(line)["text"])


# Format -> (name of the file, its writer, genuine files, the other parser, its name).
FORMATS: dict[str, tuple[str, Callable, list[pathlib.Path], Callable | None, str]] = {
    "pubmed_xml": (
        "a.xml.gz",
        write_pubmed_xml,
        [path for path in genuine("pubmed_xml", "*/*") if ".xml" in path.name],
        read_pubmed_parser,
        "pubmed_parser.parse_medline_xml",
    ),
    "jats": (
        "a.nxml",
        write_jats,
        genuine("formats/jats", "*"),
        read_pubmed_parser_jats,
        "pubmed_parser.parse_pubmed_xml",
    ),
    "bioc_xml": ("b.xml", write_bioc_xml, genuine("formats/bioc", "*.xml"), read_bioc_xml, "bioc.biocxml"),
    "bioc_json": ("b.json", write_json(bioc_json), genuine("formats/bioc", "*.json"), read_bioc_json, "bioc.biocjson"),
    "medline": ("a.nbib", write_medline, genuine("formats/medline", "*"), read_biopython, "Bio.Medline"),
    "ris": ("a.ris", write_ris, [], read_rispy, "rispy"),
    "pubtator": (
        "a.pubtator",
        write_pubtator,
        genuine("formats/pubtator", "*"),
        read_bioc_pubtator,
        "bioc.pubtator",
    ),
    "s2orc": ("s.jsonl", write_s2orc, genuine("formats/s2orc", "*"), read_with_json, "json"),
    "europe_pmc": ("e.json", write_json(europe_pmc), [], read_with_json, "json"),
    "semantic_scholar": ("p.json", write_json(semantic_scholar), [], read_with_json, "json"),
    "jsonl": (
        "a.jsonl",
        lambda path, number: path.write_bytes(json_lines(number)),
        genuine("corpus", "*.jsonl.gz"),
        read_json_lines,
        "json",
    ),
    "json": ("a.json", write_json(lambda records: records), [], read_with_json, "json"),
    "csv": ("a.csv", write_csv(","), [], read_with_csv, "csv"),
    "tsv": ("a.tsv", write_csv("\t"), [], read_with_csv, "csv"),
    "parquet": ("a.parquet", write_parquet, [], read_with_pyarrow, "pyarrow"),
    "arrow": ("a.arrow", write_arrow, [], read_arrow_stream, "pyarrow"),
    "hf": ("saved", write_dataset, [], read_with_datasets, "datasets"),
    "text": ("a.txt", write_text, [], None, ""),
    "markdown": ("a.md", write_text, [], None, ""),
    "tar": ("a.tar.gz", write_tar, [], read_with_tarfile, "tarfile, json"),
    "zip": ("a.zip", write_zip, [], read_with_zipfile, "zipfile, json"),
}


def read_ours(path: str) -> int:
    from electramed_jax.data.readers import reader
    from electramed_jax.data.readers.document import ReadOptions

    options = ReadOptions(titles_alone=True)
    drops: collections.Counter[str] = collections.Counter()
    return sum(1 for name in reader.find_inputs([path]) for _ in reader.read_documents(name, drops, options=options))


def run_once(who: str, name: str, small: str, path: str) -> None:
    """Reads a small file, then the file; prints documents, seconds of the processor and peak memory in MB."""
    read = read_ours if who == "ours" else FORMATS[name][3]
    assert read is not None
    read(small)
    start = time.process_time()
    count = read(path)
    seconds = time.process_time() - start
    peak = re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())
    assert peak is not None
    print(json.dumps([count, seconds, int(peak[1]) * 1024 / 1e6]))


def measure(name: str, folder: pathlib.Path, rounds: int, documents: int) -> str:
    """Returns the row of a format."""
    file, write, sources, other, other_name = FORMATS[name]
    paths = {}
    for number in (documents // 20, documents, 2 * documents):
        (folder / str(number)).mkdir(exist_ok=True)
        paths[number] = folder / str(number) / file
        write(paths[number], number)

    def run(who: str, number: int) -> list[float]:
        small = str(paths[documents // 20])
        command = [sys.executable, __file__, "--run", who, name, small, str(paths[number])]
        return list(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))

    results: dict[str, list[list[float]]] = {"ours": [], "other": []}
    for turn in range(rounds):
        for who in ("ours", "other") if turn % 2 else ("other", "ours"):
            if who == "ours" or other is not None:
                results[who].append(run(who, documents))
    count = int(results["ours"][0][0])
    rate = statistics.median(count / seconds for _, seconds, _ in results["ours"])
    ratio = "| |"
    if other is not None:
        ratios = [b[1] / a[1] for a, b in zip(results["ours"], results["other"], strict=True)]
        counts = "" if results["other"][0][0] == count else f" ({results['other'][0][0]:,} documents, ours {count:,})"
        memory = max(peak for _, _, peak in results["other"])
        ratio = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] × {other_name}{counts} | {memory:.0f} |"
    peak, twice = max(peak for _, _, peak in results["ours"]), run("ours", 2 * documents)[2]
    return f"| `{name}` | {reads(sources)} | {rate:,.0f} | {ratio} {peak:.0f} ({twice:.0f}) |"


def reads(sources: list[pathlib.Path]) -> str:
    """Returns what is read of the genuine files, and what is dropped: two columns."""
    from electramed_jax.data.readers import reader
    from electramed_jax.data.readers.document import ReadOptions

    if not sources:
        return "no genuine file | "
    drops: collections.Counter[str] = collections.Counter()
    documents = sum(
        1 for path in sources for _ in reader.read_documents(str(path), drops, options=ReadOptions(titles_alone=True))
    )
    lost = ", ".join(f"{count} {reason}" for reason, count in sorted(drops.items()))
    return f"{len(sources)} files, {documents:,} documents | {lost or 'none'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--run", nargs=4, metavar=("WHO", "FORMAT", "SMALL", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run_once(*args.run)
        return
    print("| format | genuine files | lost | documents/s | speed against | its memory, MB | peak memory, MB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in args.only:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(name, pathlib.Path(folder), args.rounds, args.documents), flush=True)


if __name__ == "__main__":
    main()
