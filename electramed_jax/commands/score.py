"""`electramed score`: pseudo-log-likelihoods of texts under an Electric model."""

from __future__ import annotations

import argparse
import json
from typing import Any

from electramed_jax.commands.output_text import open_output

HELP = """Scores texts with an Electric model: the higher, the more likely the text.

  electramed score --model=models/electric/discriminator --text "Aspirin inhibits cyclooxygenase."
  electramed score --model=runs/electric --input hypotheses.txt --output=scores.jsonl

The model is a workdir of electramed pretrain with config.objective.kind=electric, or the discriminator that electramed
export wrote from it. The input has one text in each line. The output has a line of JSON for each: the text, its
pseudo_log_likelihood (the sum over its word pieces of the log probability of each given all others, up to a constant
for each piece) and its number of word pieces. Compare texts of about the same length."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="workdir or exported folder of an Electric model")
    parser.add_argument("--input", metavar="FILE", help="texts, one in each line")
    parser.add_argument("--text", help="one text, instead of --input")
    parser.add_argument("--output", metavar="FILE", help="file to write (default: standard output)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.console import say
    from electramed_jax.common.errors import UserError
    from electramed_jax.finetune.task.split_files import read_lines
    from electramed_jax.hf.pretrained.pair import load_pair
    from electramed_jax.hf.pretrained.pseudo_likelihood import PseudoLikelihood

    if (args.input is None) == (args.text is None):
        raise UserError("wanted one input; give either --input FILE or --text TEXT")
    if args.json and not args.output:
        raise UserError("--json and the scores cannot share standard output; add --output=FILE for the scores")
    texts = [args.text] if args.text is not None else read_lines(args.input)
    model = PseudoLikelihood(load_pair(args.model))
    with open_output(args.output) as write:
        for text, score in zip(texts, model.score(texts), strict=True):
            write(json.dumps({"text": text, **score._asdict()}, ensure_ascii=False) + "\n")
    if args.output:
        say(f"wrote {args.output}: scores of {len(texts):,} texts")
    return {"model": args.model, "output": args.output, "texts": len(texts)}
