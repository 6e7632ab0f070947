"""`electramed prepare`: PubMed XML, JSONL or text to a documents folder."""

from __future__ import annotations

import argparse
from typing import Any

from electramed_jax.commands import runner_flags
from electramed_jax.common import console

HELP = "read PubMed XML, JSONL or text; clean, deduplicate and split it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="GLOB",
        help="files or quoted patterns: .xml, .jsonl, .txt, also with .gz; '**' for subfolders; "
        "folders made by prepare, which newer files bring up to date; "
        "TFDS datasets that are prepared: 'tfds:NAME?split=train&text=abstract,article'",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--validation", type=float, default=0.01, help="fraction of the documents (default 0.01)")
    parser.add_argument("--test", type=float, default=0.01, help="fraction of the documents (default 0.01)")
    runner_flags.add_arguments(parser)
    parser.add_argument("--no_labels", action="store_true", help="drop the labels of structured abstracts")
    parser.add_argument(
        "--titles_alone", action="store_true", help="keep PubMed records that have a title and no abstract"
    )
    parser.add_argument(
        "--other_abstracts",
        default="",
        metavar="LANGUAGES",
        help="also take PubMed's further abstracts in these languages, each a document: fre,ger (default none)",
    )
    parser.add_argument("--strict", action="store_true", help="stop at damaged input instead of counting it")
    _add_choices(parser)


def _add_choices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--decontaminate",
        "--exclude",
        dest="decontaminate",
        nargs="+",
        default=[],
        metavar="GLOB",
        help="evaluation files (JSON of questions, CoNLL, PubTator, tables, lists of PMIDs): drop every document "
        "that shares a PMID or a long sentence with them",
    )
    parser.add_argument(
        "--near_duplicates",
        type=float,
        metavar="SIMILARITY",
        help="drop also what resembles an earlier document: 0.8 means four fifths of its five-word phrases "
        "(default: equal texts only; needs datasketch)",
    )
    parser.add_argument(
        "--languages",
        nargs="+",
        default=[],
        metavar="CODE",
        help="keep texts in these languages, as PubMed writes them (eng fre), and those of unknown language "
        "(default: all)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.data.corpus.build import prepare
    from electramed_jax.data.corpus.filtering import FilterConfig
    from electramed_jax.data.parallel import process_pool
    from electramed_jax.data.readers.document import PubmedOptions

    account = prepare(
        args.input,
        args.output,
        FilterConfig(
            validation=args.validation,
            test=args.test,
            languages=tuple(args.languages),
            strict=args.strict,
            pubmed_options=PubmedOptions(
                section_labels=not args.no_labels,
                titles_alone=args.titles_alone,
                other_abstracts=args.other_abstracts,
            ),
        ),
        workers=args.workers,
        evaluation_files=args.decontaminate,
        near_duplicates=args.near_duplicates,
        beam=runner_flags.beam(args),
    )
    for split, figures in account["splits"].items():
        console.say(f"{split}: {figures['documents']:,} documents, {figures['bytes']:,} bytes")
    for reason, count in (account["dropped"] | account["repaired"]).items():
        console.say(f"{reason}: {count:,}")
    for of_file in account["exclude"]:
        held_out = of_file["held_out"]
        console.say(
            f"held out by {of_file['file']}: {held_out['pmid']:,} by PMID, {held_out['sentence']:,} by sentence"
        )
    console.say(f"next: electramed vocab --documents {args.output} --output vocab.txt")
    summary = {key: account[key] for key in ("splits", "dropped", "repaired", "exclude")}
    return {
        "documents": args.output,
        "files": len(account["inputs"]),
        **summary,
        "peak_process_bytes": process_pool.peak_bytes(),
    }
