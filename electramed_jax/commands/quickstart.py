"""`electramed quickstart`: runs the whole pipeline on generated text and prints each command."""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import random
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from electramed_jax.commands.command_runner import run_command
from electramed_jax.common.console import say

HELP = """Runs the whole pipeline on generated PubMed articles, from XML to Hugging Face folders, and prints each
command. At the end the trained discriminator marks replaced words. One to two minutes on two CPU cores, no network.

  electramed quickstart
  electramed quickstart --output=/tmp/first --steps=2000"""

NUM_WORDS = 38  # of each article; they fit in a row of 64 word pieces
NUM_ON_PAGE = 40  # articles on the page
LONG_WORD = r"\b[a-z]{4,}\b"
PAGE = "replaced_words.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", default="quickstart", metavar="DIR", help="folder of all files (default: quickstart)"
    )
    parser.add_argument("--articles", type=int, default=4000, metavar="N", help="articles to generate (default 4000)")
    parser.add_argument("--steps", type=int, default=700, metavar="N", help="training steps (default 700)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.data.synthetic import pubmed_xml

    began, out = time.monotonic(), pathlib.Path(args.output)
    say(f"Writing {args.articles:,} generated PubMed articles to {out / 'xml'}")
    pubmed_xml.write_pubmed_xml(str(out / "xml"), articles=args.articles)
    with_report = importlib.util.find_spec("plotly") is not None
    for command in commands(out, args.steps, with_report=with_report):
        run_command(command)
    metrics = _show_replaced_words(out)
    seconds = time.monotonic() - began
    say(f"\nDone in {seconds:.0f} s. Open in a browser:\n  {out / PAGE}    all {metrics['swapped_words']} articles")
    if with_report:
        say(f"  {out / 'run' / 'report' / 'report.html'}    curves, alerts, speed, data")
    for line in _next_lines(out, with_report):
        say(line)
    return {"output": str(out), "seconds": round(seconds, 1), "page": str(out / PAGE)} | metrics


def _next_lines(out: pathlib.Path, with_report: bool) -> list[str]:
    """Returns the commands for the user's own files; each runs with what is installed."""
    return [
        "",
        "Your own files (PubMed XML, JSONL, tables, plain text; electramed prepare --list_formats lists all):",
        "  electramed prepare --input 'FILES' --output documents --validation 0.05",
        "  electramed vocab --documents documents --output vocab.txt --size 8000",
        "  electramed pack --documents documents --vocab vocab.txt --output packed --max_seq_length 128",
        "  electramed pretrain --config=pretrain_tiny --config.data.directory=packed --workdir=runs/tiny",
        f"The model of this run: electramed inspect {out / 'models' / 'discriminator'}",
        *(
            []
            if with_report
            else ["Curves: pip install 'electramed_jax[report]' && " + f"electramed report {out / 'run'}"]
        ),
    ]


def commands(out: pathlib.Path, steps: int, *, with_report: bool) -> list[list[str]]:
    """Returns the commands in order, each as the words after `electramed`; `with_report` includes the report.

    A small generator that samples at temperature 2 makes replacements that are found after few steps: validation AUC
    0.87 and 34 of 83 words found at the end after 500 steps; with two layers and temperature 1 0.70 and 49 of 102 after
    600, 0.83 and 77 of 102 after 1,200.
    """
    return [
        ["prepare", "--input", f"{out}/xml/*.xml.gz", "--output", f"{out}/documents",
         "--validation", "0.05", "--test", "0.02"],
        ["vocab", "--documents", f"{out}/documents", "--output", f"{out}/vocab.txt", "--size", "2000", "--overwrite"],
        ["pack", "--documents", f"{out}/documents", "--vocab", f"{out}/vocab.txt", "--output", f"{out}/packed",
         "--max_seq_length", "64"],
        ["pretrain", "--config=pretrain_tiny", f"--config.data.directory={out}/packed",
         f"--config.total_steps={steps}", f"--config.optimizer.warmup_steps={max(1, steps // 10)}",
         "--config.batch_size=16", "--config.model.num_layers=2", "--config.model.generator_num_layers=1",
         "--config.objective.temperature=2.0",
         f"--config.log_every={max(1, steps // 20)}",
         f"--config.eval_every={max(1, steps // 4)}", "--config.eval_batches=16", f"--workdir={out}/run"],
        ["export", f"--workdir={out}/run", f"--output={out}/models", "--name=electramed-quickstart"],
        *([["report", f"{out}/run", "--rows=0"]] if with_report else []),
    ]  # fmt: skip


def _show_replaced_words(out: pathlib.Path) -> dict[str, Any]:
    """Replaces one word in each test article and shows which word the exported discriminator marks.

    Prints one article in which it was found and one in which it was missed, and writes a page with more.

    Returns:
      the number of articles and of replaced words found.
    """
    from electramed_jax.data.corpus import corpus_dir
    from electramed_jax.hf.pretrained import detect

    swaps = swap_words(list(corpus_dir.Texts(str(out / "documents"), "test")))
    folder = str(out / "models" / "discriminator")
    predictions = detect.predict_replaced(folder, [swap.text for swap in swaps])
    marked = [max(range(len(words)), key=lambda index: words[index][1]) for words in predictions]
    found = [words[one][0] == swap.new for swap, words, one in zip(swaps, predictions, marked, strict=True)]
    say("\nOne word of each test article was replaced. The discriminator marks the [most suspicious] word:")
    for is_found, label in ((True, "found "), (False, "missed")):
        if is_found in found:
            number = found.index(is_found)
            shown = [word for word, _ in predictions[number]]
            shown[marked[number]] = f"[{shown[marked[number]]} {predictions[number][marked[number]][1]:.2f}]"
            say(f"  {label}  {swaps[number].old} -> {swaps[number].new}:  {' '.join(shown)}")
    say(f"Found the replaced word in {sum(found)} of {len(swaps)} articles; a guess would find 1 of {NUM_WORDS}.")
    _write_page(out, swaps, predictions, sum(found))
    return {"swapped_words": len(swaps), "found_words": sum(found)}


def _write_page(
    out: pathlib.Path, swaps: Sequence[Swap], predictions: Sequence[Sequence[tuple[str, float]]], found: int
) -> None:
    """Writes PAGE: each word shaded by its predicted probability, the replaced one with the original."""
    from electramed_jax.report import examples_html, page
    from electramed_jax.report.examples import Token

    rows = [
        [
            Token(
                word, swap.old if word == swap.new else word, masked=False, guesses=(), replaced_probability=probability
            )
            for word, probability in words
        ]
        for swap, words in zip(swaps, predictions, strict=True)
    ]
    note = (
        f"One word of each article was replaced. The most suspicious word is the replaced one in {found} of "
        f"{len(swaps)} articles; a guess would find 1 of {NUM_WORDS}. The first {min(len(rows), NUM_ON_PAGE)} articles:"
    )
    card = examples_html.render_card("Articles that the discriminator was not trained on", note, rows[:NUM_ON_PAGE])
    (out / PAGE).write_text(page.render_page(["Replaced words"], [card], {}), encoding="utf-8")


class Swap(NamedTuple):
    """A lower-cased text in which the word `old` was replaced by `new`."""

    text: str
    old: str
    new: str


def swap_words(texts: Sequence[str]) -> list[Swap]:
    """Replaces one long word among the first words of each text by a word of another text. Deterministic."""
    rng = random.Random(0)
    beginnings = [" ".join(text.lower().split()[:NUM_WORDS]) for text in texts]
    words = sorted({word for text in beginnings for word in re.findall(LONG_WORD, text)})
    swaps = []
    for text in beginnings:
        if candidates := re.findall(LONG_WORD, text):
            old, new = rng.choice(candidates), rng.choice([word for word in words if word not in text])
            swaps.append(Swap(re.sub(rf"\b{old}\b", new, text, count=1), old, new))
    return swaps
