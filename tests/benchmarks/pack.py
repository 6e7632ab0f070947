"""Compares `electramed pack` with google-research/electra: tokens a second from documents to rows, and padding.

    electramed prepare --input 'abstracts/*.jsonl.gz' --output documents
    electramed vocab --documents documents --output vocab.txt
    git clone https://github.com/google-research/electra
    pip install tensorflow-cpu six
    python tests/benchmarks/pack.py --documents documents --vocab vocab.txt --electra electra

Both take the same text (the first megabytes of the training split, put into a file or part per
process) to TFRecord files with the same vocabulary, row length and number of processes, each as its
own program from start to end, interleaved: `build_pretraining_dataset.py --num-processes N` from plain
text, a sentence a line, and `electramed pack --workers N` in both formats from the documents folder.
The tokens are those of the text, however many of them a program keeps, so the ratio of the rates is
that of the times. Processor time is that of the program and all its processes: the fairer figure on
a busy machine.
"""

from __future__ import annotations

import argparse
import glob
import os
import pathlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np

from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.dataset import manifest
from electramed_jax.data.dataset.row_reader import SplitRows
from electramed_jax.data.readers.document import Document

SENTENCE_END = re.compile(r"(?<=[.?!]) +(?![0-9])")
GOOGLE = "google-research/electra"


def documents_of(folder: str, megabytes: float) -> Iterator[Document]:
    size = 0
    for number in range(len(corpus_dir.read_documents_info(folder)["inputs"])):
        for document in corpus_dir.read_part(corpus_dir.part_path(folder, "train", number)):
            size += len(document.text)
            if size > megabytes * 1e6:
                return
            yield document


def write_inputs(folder: pathlib.Path, source: str, megabytes: float, processes: int) -> None:
    """The same text as a documents folder and as text files, one part and one file per process."""
    (folder / "text").mkdir()
    documents = list(documents_of(source, megabytes))
    for number in range(processes):
        mine = documents[number::processes]
        (folder / f"{number}.jsonl").write_bytes(b"".join(map(corpus_dir.to_line, mine)))
        sentences = (SENTENCE_END.sub("\n", document.text) for document in mine)
        (folder / "text" / f"{number}.txt").write_text("\n\n".join(sentences))
    prepare([str(folder / "*.jsonl")], str(folder / "documents"), FilterConfig(validation=0, test=0), workers=processes)


def timed(command: list[str], **options: object) -> tuple[float, float]:
    """Wall and processor seconds of a program and its processes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def programs(args: argparse.Namespace, folder: pathlib.Path) -> dict[str, Callable[[], tuple[float, float]]]:
    vocabulary, length, processes = os.path.abspath(args.vocab), str(args.max_seq_length), str(args.processes)

    def ours(format: str) -> Callable[[], tuple[float, float]]:
        def run() -> tuple[float, float]:
            shutil.rmtree(folder / format, ignore_errors=True)
            return timed(
                [sys.executable, "-m", "electramed_jax.cli", "pack", f"--documents={folder / 'documents'}",
                 f"--vocab={vocabulary}", f"--output={folder / format}", f"--max_seq_length={length}",
                 f"--format={format}", f"--workers={processes}"]
            )  # fmt: skip

        return run

    def google() -> tuple[float, float]:
        return timed(
            [sys.executable, "build_pretraining_dataset.py", f"--corpus-dir={folder / 'text'}",
             f"--vocab-file={vocabulary}", f"--output-dir={folder / 'google'}", f"--max-seq-length={length}",
             f"--num-processes={processes}"],
            cwd=args.electra,
        )  # fmt: skip

    found = {f"--format {format}": ours(format) for format in ("packed", "electra")}
    return found | ({GOOGLE: google} if args.electra else {})


def padding_of_google(folder: pathlib.Path, row_length: int) -> tuple[int, int]:
    """(rows, tokens that are not padding)."""
    import tensorflow as tf

    spec = {"input_mask": tf.io.FixedLenFeature([row_length], tf.int64)}
    rows = tokens = 0
    for record in tf.data.TFRecordDataset(glob.glob(str(folder / "google" / "*"))):
        rows += 1
        tokens += int(tf.reduce_sum(tf.io.parse_single_example(record, spec)["input_mask"]))
    return rows, tokens


def tokens_of_text(folder: pathlib.Path) -> int:
    packed = manifest.read_manifest(str(folder / "packed"))
    around = [packed.special.pad, packed.special.cls, packed.special.sep]
    rows = SplitRows(str(folder / "packed"), packed, "train")
    return int(np.isin(rows[np.arange(len(rows))], around, invert=True).sum())


def show_padding(args: argparse.Namespace, folder: pathlib.Path, text_tokens: int) -> None:
    counts = {}
    for format in ("packed", "electra"):
        split = manifest.read_manifest(str(folder / format)).splits["train"]
        counts[f"--format {format}"] = (split.rows, split.tokens)
    if args.electra:
        counts[GOOGLE] = padding_of_google(folder, args.max_seq_length)
    print(f"{'':24}{'rows':>10}{'padding':>10}{'tokens a row':>14}")
    for name, (rows, tokens) in counts.items():
        print(f"{name:24}{rows:>10,}{1 - tokens / (rows * args.max_seq_length):>10.1%}{text_tokens / rows:>14.1f}")


def spread(values: list[float], form: str) -> str:
    stats = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return "  ".join(f"{name} {value:{form}}" for name, value in stats.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", required=True, help="made by electramed prepare")
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--electra", help="a checkout of google-research/electra; without it ours alone is measured")
    parser.add_argument("--megabytes", type=float, default=40.0, help="of text (default 40)")
    parser.add_argument("--max_seq_length", type=int, default=512)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_inputs(folder, args.documents, args.megabytes, args.processes)
        seconds: dict[str, list[tuple[float, float]]] = {}
        for turn in range(args.rounds):
            order = list(programs(args, folder).items())
            for program, run in order[turn % len(order) :] + order[: turn % len(order)]:
                seconds.setdefault(program, []).append(run())
                print(f"round {turn + 1}: {program}: {seconds[program][-1][0]:.1f} s", flush=True)
        text_tokens = tokens_of_text(folder)
        print(f"{args.megabytes:g} MB of text, {text_tokens:,} tokens, {args.processes} processes")
        for kind, what in enumerate(("wall", "processor")):
            for program, values in seconds.items():
                print(f"{what:10} {program:24} tokens/s: {spread([text_tokens / v[kind] for v in values], ',.0f')}")
            for program in seconds if args.electra else ():
                if program != GOOGLE:
                    ratios = [b[kind] / a[kind] for a, b in zip(seconds[program], seconds[GOOGLE], strict=True)]
                    print(f"{what:10} {program:24} times {GOOGLE}'s rate: {spread(ratios, '.1f')}")
        show_padding(args, folder, text_tokens)


if __name__ == "__main__":
    main()
