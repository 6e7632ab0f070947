"""`electramed predict`: predicts entities, labels or answers with a fine-tuned model."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from electramed_jax.commands.output_text import open_output

if TYPE_CHECKING:
    from electramed_jax.finetune.predictor import LoadedModel

HELP = """Predicts with a fine-tuned model: entities in texts, labels of texts, or answers to questions.

  electramed predict --model=runs/ncbi --text "Deficiency of the enzyme causes phenylketonuria."
  electramed predict --model=runs/ncbi --input 'pubmed/*.xml.gz' --output=diseases.jsonl
  electramed predict --model=models/ncbi --input notes.txt --output=diseases.json --format=bioc
  electramed predict --model=runs/chemprot --input test.tsv --output=relations.jsonl
  electramed predict --model=runs/bioasq --input BioASQ-test-factoid-7b-1.json --output=7b1.json --format=bioasq

The model is a workdir of electramed finetune (its best seed on dev) or a folder of electramed export.
  entities    reads every format of electramed prepare --list_formats (PubMed XML, text, JSON, CSV, ...), also
              compressed; writes jsonl, csv, conll, bioc (BioC JSON), pubtator, html, or brat (a folder with two files
              for each document); long texts are read in overlapping windows
  labels      reads .tsv, .csv, .jsonl as in training but without labels, or the other formats with one text for each
              document; writes jsonl, csv or html
  answers     reads .json of SQuAD or BioASQ; writes jsonl, csv or html (the best five of each passage), squad or bioasq
              (the best over all passages)
Offsets count the characters of the text as it was read. The output appears when it is complete. electramed serve shows
the same predictions on a local page."""

FOUND = {"token": "entities in", "sequence": "labelled of", "span": "answered of"}  # by kind of head, for the last line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="folder that electramed finetune or export wrote")
    parser.add_argument("--input", nargs="+", default=[], metavar="GLOB", help="files or quoted patterns")
    parser.add_argument("--text", help="one text, instead of --input")
    parser.add_argument(
        "--output", metavar="FILE", help="file to write, for brat a new folder (default: standard output)"
    )
    parser.add_argument(
        "--format",
        default="jsonl",
        help="jsonl, csv, html, conll, bioc, pubtator, brat, squad or bioasq, by kind of model (default: jsonl)",
    )
    parser.add_argument(
        "--html", dest="format", action="store_const", const="html", help="write a page for a browser: --format=html"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="seed of a workdir (default: the best on dev)")
    parser.add_argument(
        "--batch_size", type=int, default=32, metavar="N", help="rows of a step, each one window long (default 32)"
    )
    parser.add_argument(
        "--text_column",
        "--text_field",
        default="",
        metavar="NAME",
        help="text column of tables, or field of JSON (default: that of the training, or a common name)",
    )
    parser.add_argument(
        "--second_text_column",
        default="",
        metavar="NAME",
        help="second text column of tables of pairs (default: that of the training)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop at damaged documents (default: skip and count them)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common import console
    from electramed_jax.common.storage import files
    from electramed_jax.config.finetune import FILE
    from electramed_jax.finetune import predict_files
    from electramed_jax.finetune.output.entity_formats import BRAT
    from electramed_jax.finetune.predictor import Predictor, load_model
    from electramed_jax.finetune.text_classification.tables import Columns
    from electramed_jax.hf.format.mapping import TOKEN

    _check_options(args)
    paths = files.glob(args.input)
    model = load_model(args.model, args.seed)
    _check_model_options(args, model)
    kind, postprocess = model.head.kind, model.postprocess
    predict_files.check_files(paths, kind)
    columns = Columns(
        args.text_column or postprocess.columns.text, args.second_text_column or postprocess.columns.second
    )
    stats = predict_files.PredictionStats()
    predictor = Predictor(model, args.batch_size)
    with contextlib.ExitStack() as stack:
        if args.text is not None:
            paths, columns = [stack.enter_context(_text_file(args.text))], Columns()
        options: Any = dict(
            batch_tokens=args.batch_size * postprocess.max_seq_length, columns=columns, strict=args.strict
        )
        if args.format == BRAT:
            _write_folder(args.output, predict_files.predict_brat(predictor, paths, stats, **options))
        else:
            write = stack.enter_context(open_output(args.output))
            if args.output is None and sys.stdout.isatty():  # a progress bar would be drawn between the predictions
                stack.enter_context(console.at_level(console.QUIET))
            for piece in predict_files.predict_files(predictor, paths, args.format, stats, **options):
                write(piece)
    for reason, count in stats.dropped.items():
        repaired = reason.startswith("repaired_")
        console.say(f"{count:,} {'repaired' if repaired else 'skipped'}: {reason}; --strict stops at the first")
    if args.output:
        console.say(
            f"wrote {args.output}: {stats.predictions:,} {FOUND[kind]} {stats.items:,} {predict_files.ITEM_NAMES[kind]}"
        )
    if kind == TOKEN and postprocess.words == FILE:
        console.say(
            "note: the model was trained on the words of its corpus, and a text is split at each punctuation mark: "
            "text_f1 in results.json is the score that applies"
        )
    counts = {"read": stats.items, "found": stats.predictions, "dropped": dict(stats.dropped)}
    return {"model": args.model, "kind": postprocess.kind, "output": args.output} | counts


def _check_options(args: argparse.Namespace) -> None:
    """Raises UserError for options that exclude each other or are out of range."""
    from electramed_jax.common.errors import UserError

    if bool(args.input) == (args.text is not None):
        raise UserError("wanted one input; give either --input FILES or --text TEXT")
    if args.json and not args.output:
        raise UserError(
            "--json and the predictions cannot share standard output; add --output=FILE for the predictions"
        )
    if args.batch_size < 1:
        raise UserError(f"--batch_size={args.batch_size}: wanted 1 or more")


def _check_model_options(args: argparse.Namespace, model: LoadedModel) -> None:
    """Raises UserError for options that this kind of model does not support."""
    from electramed_jax.common.errors import UserError
    from electramed_jax.finetune import predict_files
    from electramed_jax.finetune.output.entity_formats import BRAT
    from electramed_jax.hf.format.mapping import SPAN

    formats = predict_files.FORMATS[model.head.kind]
    if args.format not in formats:
        raise UserError(
            f"--format={args.format}: {args.model} is a model for {model.postprocess.kind}; "
            f"wanted one of {', '.join(formats)}"
        )
    if args.text is not None and model.head.kind == SPAN:
        raise UserError("--text contains no question; add --input with a file in SQuAD or BioASQ format instead")
    if args.text is not None and not args.text.strip():
        raise UserError("--text is empty; wanted a text")
    if args.format == BRAT and (not args.output or os.path.exists(args.output)):
        got = f"{args.output} exists" if args.output else "--format=brat writes a folder"
        raise UserError(f"{got}; name a new local folder with --output=DIR")


@contextlib.contextmanager
def _text_file(text: str) -> Iterator[str]:
    """Yields the path of a temporary JSONL file with one text, which token and sequence models read."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        json.dump({"id": "text", "text": text}, file)
        file.flush()
        yield file.name


def _write_folder(folder: str, contents: Iterable[tuple[str, str]]) -> None:
    """Writes a folder of text files, which appears when it is complete."""
    from electramed_jax.common.storage import files

    os.makedirs(os.path.dirname(os.path.abspath(folder)), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(folder)), prefix=".predict-") as temporary:
        partial = os.path.join(temporary, "output")
        os.mkdir(partial)
        for name, content in contents:
            files.write_text(os.path.join(partial, name), content)
        os.rename(partial, folder)
