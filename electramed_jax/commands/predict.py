"""`electramed predict`: a fine-tuned model and files in, its answers out."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from electramed_jax.finetune.predictor import LoadedModel

HELP = """Finds entities in texts or PubMed XML, labels the rows of a table, or answers questions, as the model can.

  electramed predict --model=runs/ncbi --text "Deficiency of the enzyme causes phenylketonuria."
  electramed predict --model=runs/ncbi --input 'pubmed/*.xml.gz' --output=diseases.jsonl
  electramed predict --model=models/ncbi --input notes.txt --output=diseases.json --format=bioc
  electramed predict --model=runs/chemprot --input test.tsv --output=relations.jsonl
  electramed predict --model=runs/bioasq --input BioASQ-test-factoid-7b-1.json --output=7b1.json --format=bioasq

The model is a workdir of electramed finetune (the seed that is best on dev) or a folder of electramed export.
  entities    .txt (documents between empty lines), .jsonl ("text", and "title", "id"), .xml, each also with .gz; to
              jsonl, bioc (BioC JSON) or pubtator; a long text is read in windows that overlap
  labels      .tsv, .csv, .jsonl as for training, without labels; or .txt, .xml, a document each; to jsonl
  answers     .json of SQuAD or BioASQ, to jsonl (the best five of each passage), squad or bioasq (over all passages)
Offsets are characters of the text that stands beside them. The output appears when it is whole."""

FOUND = {"token": "entities in", "sequence": "labelled of", "span": "answered of"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="what electramed finetune or export wrote")
    parser.add_argument("--input", nargs="+", default=[], metavar="GLOB", help="files or quoted patterns")
    parser.add_argument("--text", help="one text, in place of files")
    parser.add_argument("--output", metavar="FILE", help="default: standard output")
    parser.add_argument("--format", default="jsonl", help="jsonl (default), bioc, pubtator, squad, bioasq")
    parser.add_argument("--seed", type=int, help="of a workdir; default: the one that is best on dev")
    parser.add_argument(
        "--batch_size", type=int, default=32, help="rows of a step, each as long as the model's windows"
    )
    parser.add_argument("--text_column", default="", help="of tables; default: as in training")
    parser.add_argument("--second_text_column", default="", help="of tables of pairs")
    parser.add_argument("--strict", action="store_true", help="stop at damaged documents instead of leaving them out")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common import console
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.storage import files
    from electramed_jax.finetune import predict_files
    from electramed_jax.finetune.predictor import Predictor
    from electramed_jax.finetune.text_classification.tables import Columns
    from electramed_jax.hf.format.mapping import SPAN

    if bool(args.input) == (args.text is not None):
        raise UserError("what is to be read? give either --input FILES or --text TEXT")
    if args.json and not args.output:
        raise UserError("--json ends standard output with a line of its own; add --output=FILE for the answers")
    if args.batch_size < 1:
        raise UserError(f"--batch_size={args.batch_size}: wanted a number above 0")
    paths = files.glob(args.input)
    model = model_of(args.model, args.seed)
    kind, decoding = model.head.kind, model.postprocess
    if args.format not in predict_files.FORMATS[kind]:
        listed = ", ".join(predict_files.FORMATS[kind])
        raise UserError(f"--format={args.format}: {args.model} is a model for {decoding.kind}; it writes {listed}")
    if args.text is not None and (kind == SPAN or not args.text.strip()):
        raise UserError(
            "--text is empty" if kind != SPAN else "--text has no question; give a file of SQuAD's form, --input"
        )
    predict_files.check_files(paths, kind)
    columns = Columns(args.text_column or decoding.columns.text, args.second_text_column or decoding.columns.second)
    stats = predict_files.PredictionStats()
    predictor = Predictor(model, args.batch_size)
    with contextlib.ExitStack() as stack:
        if args.text is not None:
            paths, columns = [stack.enter_context(_as_file(args.text))], Columns()
        write = stack.enter_context(_sink(args.output))
        if args.output is None and sys.stdout.isatty():  # a bar would be drawn between the answers
            stack.enter_context(console.at_level(console.QUIET))
        for piece in predict_files.predict_files(
            predictor,
            paths,
            args.format,
            stats,
            batch_tokens=args.batch_size * decoding.max_seq_length,
            columns=columns,
            strict=args.strict,
        ):
            write(piece)
    for reason, count in stats.dropped.items():
        repaired = reason.startswith("repaired_")
        console.say(f"{count:,} {'mended' if repaired else 'left out'}: {reason}; --strict names the first")
    if args.output:
        console.say(
            f"wrote {args.output}: {stats.predictions:,} {FOUND[kind]} {stats.items:,} {predict_files.ITEM_NAMES[kind]}"
        )
    counts = {"read": stats.items, "found": stats.predictions, "dropped": dict(stats.dropped)}
    return {"model": args.model, "kind": decoding.kind, "output": args.output} | counts


def model_of(place: str, seed: int | None) -> LoadedModel:
    """The model of a workdir of electramed finetune, or of a Hugging Face folder.

    Raises:
      UserError: neither, or a damaged one.
    """
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.storage import files
    from electramed_jax.finetune import load_model
    from electramed_jax.finetune import postprocess_config as decoding
    from electramed_jax.finetune.predictor import LoadedModel
    from electramed_jax.finetune.task.task import Head
    from electramed_jax.finetune.training import workdir
    from electramed_jax.hf import finetuned
    from electramed_jax.pretrain import workdir as pretraining

    if not files.is_dir(place):
        raise UserError(
            f"{place}: no such folder; wanted a workdir of electramed finetune or a folder of electramed export"
        )
    if workdir.is_finetuned(place):
        held = load_model.load_finetuned(place, seed)
        described = held.spec
        source = f"{place} (seed {held.seed})"
        return LoadedModel(source, described.model, described.head, held.tokenizer, held.params, held.postprocess)
    if files.exists(files.join(place, pretraining.DATASET_FILE)):
        raise UserError(
            f"{place}: a workdir of pre-training; fine-tune it first: electramed finetune --config.init={place}"
        )
    if seed is not None:
        raise UserError(f"--seed says nothing of {place}, which holds one model; leave it out")
    folder = finetuned.load_finetuned(place)
    head = Head(folder.kind, folder.labels, folder.loss)
    read_off = decoding.from_json(folder.postprocess, head, folder.model.max_positions, place)
    return LoadedModel(place, folder.model, head, folder.tokenizer, folder.params, read_off)


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[str]:
    """One text, in a form that models for entities and for labels read."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        json.dump({"id": "text", "text": text}, file)
        file.flush()
        yield file.name


@contextlib.contextmanager
def _sink(path: str | None) -> Iterator[Callable[[str], Any]]:
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.storage import files

    if path is None:
        try:
            yield sys.stdout.write
            sys.stdout.flush()
        except BrokenPipeError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is flushed into it at the end
            raise UserError("nobody reads standard output any more; add --output=FILE to keep the answers") from error
        return
    with files.atomic_write(path) as file:
        yield lambda piece: file.write(piece.encode("utf-8"))
