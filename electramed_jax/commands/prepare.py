"""`electramed prepare`: reads PubMed XML, JSONL or text and writes a documents folder."""

from __future__ import annotations

import argparse
from typing import Any

from electramed_jax.commands import runner_flags, takeover_flag
from electramed_jax.common import console
from electramed_jax.common.errors import EXIT_DONE, EXIT_UNUSABLE_INPUTS

HELP = """Reads PubMed XML, JSONL or text; cleans, deduplicates and splits it into train, validation and test.

  electramed prepare --input 'pubmed/*.xml.gz' --output documents
  electramed prepare --input 'pubmed/*.xml.gz' --output documents --decontaminate 'eval/**/test.*'

A damaged record is skipped and counted. An input of which nothing, or less than 1 %, can be used is named with the
reason, and the exit code is then 3 instead of 0."""

_NAMED_INPUTS = 20  # the terminal shows as many of the unusable inputs, and of those of which nothing was kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="GLOB",
        help="files or quoted patterns: .xml, .jsonl, .txt, also with .gz; '**' for subfolders; "
        "folders that prepare wrote, which newer input files update; "
        "TFDS datasets that are already built: 'tfds:NAME?split=train&text=abstract,article'",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--validation",
        type=float,
        default=0.01,
        metavar="FRACTION",
        help="part of the documents, 0 to 1 (default 0.01)",
    )
    parser.add_argument(
        "--test", type=float, default=0.01, metavar="FRACTION", help="part of the documents, 0 to 1 (default 0.01)"
    )
    runner_flags.add_arguments(parser)
    parser.add_argument(
        "--no_labels", action="store_true", help="drop the section labels of structured abstracts (default: keep)"
    )
    parser.add_argument(
        "--titles_alone", action="store_true", help="keep PubMed records with a title and no abstract (default: drop)"
    )
    parser.add_argument(
        "--other_abstracts",
        default="",
        metavar="LANGUAGES",
        help="also keep PubMed's further abstracts (OtherAbstract) in these languages, each as a document: fre,ger "
        "(default: none)",
    )
    parser.add_argument("--strict", action="store_true", help="stop at damaged input (default: skip and count it)")
    parser.add_argument(
        "--allow_unusable", action="store_true", help="exit with 0 even if some inputs were unusable (default: 3)"
    )
    _add_filters(parser)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--decontaminate",
        "--exclude",
        dest="decontaminate",
        nargs="+",
        default=[],
        metavar="GLOB",
        help="evaluation files (JSON of questions, CoNLL, PubTator, tables, lists of PMIDs): drop every document "
        "that shares a PMID or a long sentence with them (default: none)",
    )
    parser.add_argument(
        "--near_duplicates",
        type=float,
        metavar="SIMILARITY",
        help="also drop near-duplicates of an earlier document, by the Jaccard similarity of five-word phrases, "
        "0 to 1, e.g. 0.8 (default: drop equal texts only); needs electramed_jax[dedup]",
    )
    parser.add_argument(
        "--languages",
        nargs="+",
        default=[],
        metavar="CODE",
        help="keep texts in these languages, by PubMed's codes (eng fre), and texts of unknown language (default: all)",
    )
    takeover_flag.add_argument(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.storage.folder_lock import lock_folder
    from electramed_jax.data.corpus.build import prepare
    from electramed_jax.data.corpus.filtering import FilterConfig
    from electramed_jax.data.parallel import process_pool
    from electramed_jax.data.readers.document import PubmedOptions

    with lock_folder(args.output, takeover=args.takeover):
        info = prepare(
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
    for split, counts in info["splits"].items():
        console.say(f"{split}: {counts['documents']:,} documents, {counts['bytes']:,} bytes")
    for reason, count in (info["dropped"] | info["repaired"]).items():
        console.say(f"{reason}: {count:,}")
    for evaluation in info["exclude"]:
        dropped = evaluation["held_out"]
        console.say(
            f"dropped for {evaluation['file']}: {dropped['pmid']:,} by PMID, {dropped['sentence']:,} by sentence"
        )
    unusable = _name_lost_inputs(info, args.output)
    console.say(f"next: electramed vocab --documents {args.output} --output vocab.txt")
    summary = {key: info[key] for key in ("splits", "dropped", "repaired", "exclude")}
    return {
        "documents": args.output,
        "files": len(info["inputs"]),
        **summary,
        "unusable": unusable,
        "peak_process_bytes": process_pool.peak_bytes(),
        "exit_code": EXIT_UNUSABLE_INPUTS if unusable and not args.allow_unusable else EXIT_DONE,
    }


def _name_lost_inputs(info: dict[str, Any], folder: str) -> dict[str, str]:
    """Prints a line for each input of which nothing was kept; returns {file: reason} of the unusable ones."""
    dropped = [row for row in info["inputs"] if not row["kept"] and "unusable" not in row and row["dropped"]]
    for row in dropped[:_NAMED_INPUTS]:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in row["dropped"].items())
        console.say(f"{row['file']}: nothing kept ({reasons})")
    if len(dropped) > _NAMED_INPUTS:
        console.say(f"nothing kept of {len(dropped) - _NAMED_INPUTS:,} more files; see {folder}/documents.json")
    unusable = {row["file"]: row["unusable"] for row in info["inputs"] if "unusable" in row}
    for file, reason in list(unusable.items())[:_NAMED_INPUTS]:
        console.warn(f"{file}: {reason}")
    if unusable:
        console.warn(
            f"{len(unusable):,} of {len(info['inputs']):,} files were unusable; {folder}/documents.json lists them; "
            "replace or remove them and prepare into a new folder, or add --allow_unusable to exit with 0"
        )
    return unusable
