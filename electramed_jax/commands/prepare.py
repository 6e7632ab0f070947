"""`electramed prepare`: reads files of any supported format and writes a documents folder."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from typing import Any

from electramed_jax.commands import runner_flags, takeover_flag
from electramed_jax.common import console
from electramed_jax.common.errors import EXIT_DONE, EXIT_UNUSABLE_INPUTS, UserError

HELP = """Reads PubMed, PubMed Central, JSON, tables or text; cleans, deduplicates and splits it into train, validation
and test.

  electramed prepare --input 'pubmed/*.xml.gz' --output documents
  electramed prepare --input 'pmc/*.tar.gz' --output documents --captions
  electramed prepare --list_formats
  electramed prepare --input 'pubmed/*.xml.gz' --output documents --decontaminate 'eval/**/test.*'

A damaged record is skipped and counted. An input of which nothing, or less than 1 %, can be used is named with the
reason, and the exit code is then 3 instead of 0."""

_ENDS_EARLY = re.compile("truncated_|damaged_(?!member)").match  # reasons after which the rest of a file is not read
_NAMED_INPUTS = 20  # the terminal shows as many of the unusable inputs, and of those of which nothing was kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        nargs="+",
        metavar="GLOB",
        help="files or quoted patterns, '**' for subfolders; their format is recognized by their content, also "
        "compressed (gz, bz2, xz, zst) and inside tar and zip archives; "
        "folders that prepare wrote, which newer input files update; "
        "TFDS datasets that are already built: 'tfds:NAME?split=train&text=abstract,article'; "
        "Hugging Face datasets in the local cache: 'hf:NAME?split=train', and folders of save_to_disk",
    )
    parser.add_argument("--output", metavar="DIR", help="folder to write")
    parser.add_argument(
        "--name",
        default="",
        help="name of the corpus, for packed files and the model card (default: pubmed, or corpus for other inputs)",
    )
    parser.add_argument(
        "--license",
        default="",
        metavar="LICENCE",
        help="licence of the documents without one of their own, for the model card (default: not stated)",
    )
    _add_formats(parser)
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


def _add_formats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--list_formats", action="store_true", help="print the formats that are read, and exit")
    parser.add_argument(
        "--format", default="", metavar="NAME", help="format of all input files (default: recognized by the content)"
    )
    for part, what in (("text", "the text; several, separated by commas"), ("title", "the title"), ("id", "the id")):
        parser.add_argument(
            f"--{part}_field",
            default="",
            metavar="NAME",
            help=f"field of JSON records or column of tables with {what} (default: the common names)",
        )
    parser.add_argument(
        "--captions", action="store_true", help="keep the captions of figures and tables of full texts (default: drop)"
    )
    parser.add_argument(
        "--sub_articles",
        action="store_true",
        help="keep the letters and replies in full texts, each as a document (default: drop)",
    )
    parser.add_argument(
        "--full_text",
        default="both",
        metavar="both|replace|append",
        help="an article with an abstract in PubMed and a full text: both (default) keeps two documents; replace drops "
        "the abstract; append drops it if the full text begins with an abstract",
    )


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
    from electramed_jax.common.processes import memory
    from electramed_jax.common.storage.folder_lock import lock_folder
    from electramed_jax.data.corpus.build import prepare
    from electramed_jax.data.corpus.filtering import FilterConfig
    from electramed_jax.data.readers import formats
    from electramed_jax.data.readers.document import ReadOptions

    if args.list_formats:
        sys.stdout.write(formats.list_formats() + "\n")
        return {"formats": [row.name for row in formats.FORMATS]}
    if not (args.input and args.output):
        raise UserError("the following arguments are required: --input and --output; see electramed prepare --help")
    with lock_folder(args.output, takeover=args.takeover):
        info = prepare(
            args.input,
            args.output,
            FilterConfig(
                validation=args.validation,
                test=args.test,
                languages=tuple(args.languages),
                strict=args.strict,
                name=args.name,
                license=args.license,
                read_options=ReadOptions(
                    section_labels=not args.no_labels,
                    titles_alone=args.titles_alone,
                    other_abstracts=args.other_abstracts,
                    captions=args.captions,
                    sub_articles=args.sub_articles,
                    full_text=args.full_text,
                    format=args.format,
                    text_field=args.text_field,
                    title_field=args.title_field,
                    id_field=args.id_field,
                ),
            ),
            workers=args.workers,
            evaluation_files=args.decontaminate,
            near_duplicates=args.near_duplicates,
            beam=runner_flags.beam(args),
        )
    formats_read: Counter[str] = Counter()
    for row in info["inputs"]:
        formats_read.update(row.get("formats", {}))
    if formats_read:
        console.say("read: " + ", ".join(f"{name} {count:,}" for name, count in formats_read.most_common()))
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
        "formats": dict(formats_read),
        "unusable": unusable,
        "peak_process_bytes": memory.peak_bytes(),
        "exit_code": EXIT_UNUSABLE_INPUTS if unusable and not args.allow_unusable else EXIT_DONE,
    }


def _name_lost_inputs(info: dict[str, Any], folder: str) -> dict[str, str]:
    """Prints a line for each input that was lost, as a whole or from some place on.

    Returns:
      {file: reason} of the unusable ones.
    """
    dropped = [row for row in info["inputs"] if not row["kept"] and "unusable" not in row and row["dropped"]]
    for row in dropped[:_NAMED_INPUTS]:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in row["dropped"].items())
        console.say(f"{row['file']}: nothing kept ({reasons})")
    if len(dropped) > _NAMED_INPUTS:
        console.say(f"nothing kept of {len(dropped) - _NAMED_INPUTS:,} more files; see {folder}/documents.json")
    ends_early = [row for row in info["inputs"] if row["kept"] and any(map(_ENDS_EARLY, row["dropped"]))]
    for row in ends_early[:_NAMED_INPUTS]:
        reasons = ", ".join(reason for reason in row["dropped"] if _ENDS_EARLY(reason))
        console.warn(f"{row['file']}: incomplete ({reasons}); the text before the damage is kept, what follows is lost")
    if len(ends_early) > _NAMED_INPUTS:
        console.warn(f"{len(ends_early) - _NAMED_INPUTS:,} more files are incomplete; see {folder}/documents.json")
    unusable = {row["file"]: row["unusable"] for row in info["inputs"] if "unusable" in row}
    for file, reason in list(unusable.items())[:_NAMED_INPUTS]:
        console.warn(f"{file}: {reason}")
    if unusable:
        console.warn(
            f"{len(unusable):,} of {len(info['inputs']):,} files were unusable; {folder}/documents.json lists them; "
            "replace or remove them and prepare into a new folder, or add --allow_unusable to exit with 0"
        )
    return unusable
