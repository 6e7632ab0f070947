"""Measures the time and memory of training a vocabulary on some hundred megabytes of text.

    electramed prepare --input 'corpus/*.jsonl.gz' --output documents
    python tests/benchmarks/vocab.py --documents documents [--size 31090] [--rounds 3]

Runs `electramed vocab` as its own program, from start to end, and prints whether every round wrote the
same bytes. Memory is the peak of its resident set. Processor time is the better measure on a busy machine.
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from electramed_jax.data.corpus import corpus_dir


def spread(values: list[float]) -> str:
    return f"min {min(values):.1f}  median {statistics.median(values):.1f}  max {max(values):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", required=True, help="made by electramed prepare")
    parser.add_argument("--size", type=int, default=31_090)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    text = sum(len(text.encode()) for text in corpus_dir.Texts(args.documents))
    wall, processor, digests = [], [], set()
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "vocab.txt"
        for _ in range(args.rounds):
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "electramed_jax.cli", "vocab", f"--documents={args.documents}",
                 f"--output={output}", f"--size={args.size}"],
                check=True,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            wall.append(time.perf_counter() - began)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            digests.add(hashlib.sha256(output.read_bytes()).hexdigest())
        tokens = len(output.read_text().splitlines())
    print(f"{tokens:,} tokens of {text / 1e6:.0f} MB of text; the same bytes each time: {len(digests) == 1}")
    print(f"wall seconds       {spread(wall)}")
    print(f"processor seconds  {spread(processor)}")
    print(f"peak memory        {after.ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
