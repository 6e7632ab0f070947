"""`electramed prepare`: PubMed XML, JSONL or text to a documents folder."""

from __future__ import annotations

import argparse
from typing import Any

from electramed_jax.common import console

HELP = "read PubMed XML, JSONL or text; clean, deduplicate and split it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="GLOB",
        help="files or quoted patterns: .xml, .jsonl, .txt, also with .gz; '**' for subfolders; "
        "TFDS datasets that are prepared: 'tfds:NAME?split=train&text=abstract,article'",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--validation", type=float, default=0.01, help="fraction of the documents (default 0.01)")
    parser.add_argument("--test", type=float, default=0.01, help="fraction of the documents (default 0.01)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--no_labels", action="store_true", help="drop the labels of structured abstracts")
    parser.add_argument("--strict", action="store_true", help="stop at damaged input instead of counting it")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.data import build, documents

    account = build.prepare(
        args.input,
        args.output,
        validation=args.validation,
        test=args.test,
        workers=args.workers,
        strict=args.strict,
        reading=documents.Reading(section_labels=not args.no_labels),
    )
    for split, figures in account["splits"].items():
        console.say(f"{split}: {figures['documents']:,} documents, {figures['bytes']:,} bytes")
    for reason, count in (account["dropped"] | account["repaired"]).items():
        console.say(f"{reason}: {count:,}")
    console.say(f"next: electramed vocab --documents {args.output} --output vocab.txt")
    summary = {key: account[key] for key in ("splits", "dropped", "repaired")}
    return {"documents": args.output, "files": len(account["inputs"]), **summary}
