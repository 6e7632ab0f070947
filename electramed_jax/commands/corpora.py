"""`electramed corpora`: lists corpora, and prepares one from the files of its authors."""

from __future__ import annotations

import argparse
from typing import Any

HELP = """Lists the corpora that have a recipe, describes one, or prepares one from its authors' files.

  electramed corpora
  electramed corpora show ncbi-disease
  electramed corpora prepare ncbi-disease --source downloads/ncbi --output corpora/ncbi-disease
  electramed finetune --config=finetune_ner --config.task.corpus=ncbi-disease --config.init=runs/small \\
    --workdir=runs/ncbi

`prepare` finds the original files below --source, checks their numbers against the expected ones, and writes
train, dev and test files. Download the files yourself: some owners require a registration, all have a licence.
--config.task.corpus sets kind, files and settings of the recipe; settings on the command line come after them."""
LIST, SHOW, PREPARE = ACTIONS = ("list", "show", "prepare")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", default=LIST, choices=ACTIONS, help="default: list")
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="name of a corpus, for show and prepare")
    parser.add_argument("--source", default="", metavar="DIR", help="prepare: folder with the original files")
    parser.add_argument("--output", default="", metavar="DIR", help="prepare: folder to write; default: corpora/NAME")
    parser.add_argument(
        "--any_counts", action="store_true", help="prepare: accept files with other numbers than the expected ones"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common import console
    from electramed_jax.common.errors import UserError
    from electramed_jax.finetune.corpora import describe, prepare, registry

    if args.action == LIST:
        for line in describe.list_lines():
            console.say(line)
        return {"corpora": {name: describe.to_json(corpus) for name, corpus in registry.CORPORA.items()}}
    if not args.name:
        raise UserError(f"{args.action} needs the name of a corpus; electramed corpora lists them")
    corpus = registry.find_corpus(args.name)
    if args.action == SHOW:
        for line in describe.description_lines(corpus):
            console.say(line)
        return describe.to_json(corpus)
    if not args.source:
        raise UserError(f"prepare needs the original files; add --source FOLDER with the files of {corpus.home}")
    record = prepare.prepare(args.name, args.source, args.output, any_counts=args.any_counts)
    for split, counts in record["counts"].items():
        console.say(f"{split}: {', '.join(f'{count:,} {what}' for what, count in counts.items())}")
    checked = "the expected numbers" if record["expected_counts"] else "no expected numbers to compare with"
    console.say(f"wrote {record['output']} ({checked})")
    return record
