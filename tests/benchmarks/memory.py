"""Measures peak memory and time of `prepare`, `vocab` and `pack` on corpora of several sizes.

    python tests/benchmarks/memory.py --documents 200000 1000000 2000000 [--workers 1] [--folder DIR]

The documents are the abstracts of the reference corpus, in files of PubMed XML. Each further copy has PMIDs and titles
of its own, and new words: the number of distinct words grows as V * copies ** beta, with beta measured on halves of the
real abstracts. The new words replace words that occur once, a letter of them exchanged for the number of the copy.

A stage is a program of its own. Peak memory is that of its largest process (VmHWM), and the largest sum of the resident
memory of all its processes, read every 50 ms; shared pages count in each. The last line extrapolates `vocab` to
38 million documents and 16 cores from the largest corpus: all processor time but that of the trainer divided by 16.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from typing import Any
from xml.sax.saxutils import escape

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("ELECTRAMED_DATA", REPOSITORY.parent / "shared" / "data"))
WORD = re.compile(r"[^\W\d_]{5,}")
CITATIONS, CORES = 38_000_000, 16


def read_abstracts() -> list[tuple[str, str]]:
    """Returns (title, text) of the real abstracts, in a random order."""
    found = []
    for path in sorted((DATA / "corpus").glob("abstracts-*.jsonl.gz")):
        with gzip.open(path, "rt") as file:
            found += [(record["title"], record["text"]) for record in map(json.loads, file)]
    random.Random(0).shuffle(found)
    return found


def exponent_of_growth(texts: list[str]) -> tuple[float, int]:
    """Returns the exponent of the growth of the distinct words with the text, and their number."""
    seen: set[str] = set()
    sizes = {}
    for number, text in enumerate(texts, 1):
        seen.update(text.lower().split())
        if number in (len(texts) // 2, len(texts)):
            sizes[number] = len(seen)
    half, whole = sizes.values()
    return math.log(whole / half) / math.log(2), whole


def write_corpus(folder: pathlib.Path, documents: int) -> list[str]:
    """Writes files of PubMed XML, one for each copy of the abstracts; returns their paths."""
    abstracts = read_abstracts()
    beta, distinct = exponent_of_growth([text for _, text in abstracts])
    counts = Counter(word for _, text in abstracts for word in WORD.findall(text))
    pieces = [re.split(f"({WORD.pattern})", text) for _, text in abstracts]
    once = [[n for n, piece in enumerate(of_text) if counts[piece] == 1] for of_text in pieces]
    total = sum(map(len, once))
    print(
        f"{len(abstracts):,} abstracts, {distinct:,} words between spaces, growth with exponent {beta:.3f}", flush=True
    )
    paths, written = [], 0
    for copy in range(-(-documents // len(abstracts))):
        share = distinct * ((copy + 1) ** beta - copy**beta) / total if copy else 0
        draw, mark = random.Random(copy), "".join(chr(ord("a") + int(digit)) for digit in f"{copy:04d}")
        paths.append(str(folder / f"copy{copy:04d}.xml.gz"))
        with gzip.open(paths[-1], "wt", 1, encoding="utf-8") as file:
            file.write('<?xml version="1.0" encoding="utf-8"?>\n<PubmedArticleSet>\n')
            for (title, _), of_text, replaceable in zip(abstracts, pieces, once, strict=True):
                if written == documents:
                    break
                written += 1
                changed = list(of_text)
                for n in replaceable:
                    if draw.random() < share:
                        changed[n] = changed[n][:2] + mark + changed[n][3:]
                file.write(
                    f"<PubmedArticle><MedlineCitation><PMID>{60_000_000 + written}</PMID><Article><ArticleTitle>"
                    f"{escape(title)} Copy {copy}.</ArticleTitle><Abstract><AbstractText>{escape(''.join(changed))}"
                    "</AbstractText></Abstract></Article></MedlineCitation></PubmedArticle>\n"
                )
            file.write("</PubmedArticleSet>\n")
    return paths


class PeakMemory(threading.Thread):
    """Reads the memory of a process and its children until it ends.

    Attributes:
      largest: peak of the largest process, bytes.
      total: peak of the sum, bytes.
    """

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.largest = self.total = 0
        self._pid, self._ended = pid, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.05):
            sizes = [_memory(pid) for pid in _tree(self._pid)]
            self.largest = max([self.largest, *(peak for peak, _ in sizes)])
            self.total = max(self.total, sum(now for _, now in sizes))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _tree(pid: int) -> list[int]:
    try:
        threads = list(pathlib.Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(below for child in children for below in _tree(child))]


def _memory(pid: int) -> tuple[int, int]:
    """Returns (peak, current) resident memory, bytes."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    found = dict(re.findall(r"^(VmHWM|VmRSS):\s+(\d+) kB", status, re.MULTILINE))
    return 1024 * int(found.get("VmHWM", 0)), 1024 * int(found.get("VmRSS", 0))


def run_stage(name: str, arguments: list[str]) -> dict[str, Any]:
    """Runs a command; returns its seconds, processor seconds, peaks, and its JSON result."""
    started, before = time.monotonic(), os.times()
    process = subprocess.Popen(
        [sys.executable, "-m", "electramed_jax.cli", name, *arguments, "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    memory = PeakMemory(process.pid)
    memory.start()
    output, _ = process.communicate()
    memory.stop()
    if process.returncode:
        sys.exit(f"{name} {' '.join(arguments)}: exit code {process.returncode}")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    result = json.loads(output.splitlines()[-1])
    return {
        "seconds": time.monotonic() - started,
        "processor": used,
        "largest": memory.largest,
        "total": memory.total,
        "result": result,
    }


def measure(folder: pathlib.Path, documents: int, workers: int) -> float:
    """Prints a row for each stage; returns the processor seconds of `vocab`."""
    inputs = folder / f"xml-{documents}"
    inputs.mkdir()
    write_corpus(inputs, documents)
    out, vocab, packed = (str(folder / f"{name}-{documents}") for name in ("documents", "vocab", "packed"))
    common = [f"--workers={workers}"]
    stages = {
        "prepare": [f"--input={inputs}/*.xml.gz", f"--output={out}"],
        "vocab": [f"--documents={out}", f"--output={vocab}"],
        "pack": [f"--documents={out}", f"--vocab={vocab}", f"--output={packed}"],
    }
    for name, arguments in stages.items():
        found = run_stage(name, arguments + common)
        print(
            f"| {documents:,} | {name} | {found['seconds']:.0f} | {found['processor']:.0f} | "
            f"{found['largest'] / 1e6:.0f} | {found['total'] / 1e6:.0f} |"
            + (f" {found['result']['distinct_words']:,} distinct words" if name == "vocab" else ""),
            flush=True,
        )
        if name == "vocab":
            seconds = found["processor"]
    for path in (str(inputs), out, vocab, packed):
        shutil.rmtree(path)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[200_000, 1_000_000, 2_000_000])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", help="where the corpora are written (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        print("| documents | stage | s | processor s | largest process, MB | all processes, MB |", flush=True)
        print("|---|---|---|---|---|---|", flush=True)
        seconds = {count: measure(pathlib.Path(name), count, args.workers) for count in args.documents}
    if len(seconds) > 1:
        few, many = sorted(seconds)[-2:]
        each = (seconds[many] - seconds[few]) / (many - few)
        constant = seconds[many] - each * many
        minutes = (each * CITATIONS / CORES + constant) / 60
        print(f"vocab: {each * 1e6:.0f} µs a document and {constant:.0f} s")
        print(f"vocab: {CITATIONS:,} documents on {CORES} cores: {minutes:.1f} min")


if __name__ == "__main__":
    main()
