"""`electramed quickstart`: runs the whole pipeline on generated text and prints each command."""

from __future__ import annotations

import argparse
import pathlib
import random
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from electramed_jax.common.console import say
from electramed_jax.common.errors import EXIT_INTERRUPTED, UserError

HELP = """Runs the whole pipeline on generated PubMed articles, from XML to Hugging Face folders, and prints each
command. At the end the trained discriminator marks replaced words. A few minutes on two CPU cores, no network.

  electramed quickstart
  electramed quickstart --output=/tmp/first --steps=2000"""

NUM_SHOWN = 6  # articles printed with the word that the discriminator marks
NUM_WORDS = 38  # of each article; they fit in a row of 64 word pieces
LONG_WORD = r"\b[a-z]{4,}\b"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", default="quickstart", metavar="DIR", help="folder of all files (default: quickstart)"
    )
    parser.add_argument("--articles", type=int, default=6000, metavar="N", help="articles to generate (default 6000)")
    parser.add_argument("--steps", type=int, default=1200, metavar="N", help="training steps (default 1200)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.data.synthetic import pubmed_xml

    began, out = time.monotonic(), pathlib.Path(args.output)
    say(f"Writing {args.articles:,} generated PubMed articles to {out / 'xml'}")
    pubmed_xml.write_pubmed_xml(str(out / "xml"), articles=args.articles)
    for command in commands(out, args.steps):
        _run_command(command)
    metrics = _show_replaced_words(out)
    say(
        f"\nDone in {time.monotonic() - began:.0f} s. The models are in {out / 'models'}; with transformers:\n"
        f'  AutoModelForPreTraining.from_pretrained("{out / "models" / "discriminator"}")\n'
        f"Curves: tensorboard --logdir {out / 'run'}. Next: train on real text, see README.md."
    )
    return {"output": str(out), "seconds": round(time.monotonic() - began, 1)} | metrics


def commands(out: pathlib.Path, steps: int) -> list[list[str]]:
    """Returns the commands in order, each as the words after `electramed`."""
    return [
        ["prepare", "--input", f"{out}/xml/*.xml.gz", "--output", f"{out}/documents",
         "--validation", "0.05", "--test", "0.02"],
        ["vocab", "--documents", f"{out}/documents", "--output", f"{out}/vocab.txt", "--size", "2000", "--overwrite"],
        ["pack", "--documents", f"{out}/documents", "--vocab", f"{out}/vocab.txt", "--output", f"{out}/packed",
         "--max_seq_length", "64"],
        ["pretrain", "--config=pretrain_tiny", f"--config.data.directory={out}/packed",
         f"--config.total_steps={steps}", f"--config.optimizer.warmup_steps={max(1, steps // 10)}",
         "--config.batch_size=16", "--config.model.num_layers=2", "--config.model.generator_num_layers=2",
         f"--config.log_every={max(1, steps // 12)}",
         f"--config.eval_every={max(1, steps // 3)}", f"--workdir={out}/run"],
        ["evaluate", f"--workdir={out}/run", "--split=test"],
        ["export", f"--workdir={out}/run", f"--output={out}/models", "--name=electramed-quickstart"],
    ]  # fmt: skip


def _run_command(command: Sequence[str]) -> None:
    from electramed_jax import cli  # runs a command as a shell does

    say("\n$ electramed " + " ".join(f'"{word}"' if "*" in word else word for word in command))
    code = cli.main(command)
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise UserError(f"electramed {command[0]} exited with {code}; see its message above")


def _show_replaced_words(out: pathlib.Path) -> dict[str, Any]:
    """Replaces one word in each test article and prints which word the exported discriminator marks.

    Returns:
      the number of articles and of replaced words found.
    """
    from electramed_jax.data.corpus import corpus_dir
    from electramed_jax.hf import detect

    swaps = swap_words(list(corpus_dir.Texts(str(out / "documents"), "test")))
    folder = str(out / "models" / "discriminator")
    predictions = detect.predict_replaced(folder, [swap.text for swap in swaps])
    say("\nOne word of each test article was replaced. The discriminator marks the [most suspicious] word:")
    found = 0
    for number, (swap, probabilities) in enumerate(zip(swaps, predictions, strict=True)):
        marked = max(range(len(probabilities)), key=lambda index: probabilities[index][1])
        suspect, probability = probabilities[marked]
        found += suspect == swap.new
        if number < NUM_SHOWN:
            words = [word for word, _ in probabilities]
            words[marked] = f"[{suspect} {probability:.2f}]"
            say(f"  {'found ' if suspect == swap.new else 'missed'}  {swap.old} -> {swap.new}:  {' '.join(words)}")
    say(f"Found the replaced word in {found} of {len(swaps)} articles; a guess would find 1 of {NUM_WORDS}.")
    return {"swapped_words": len(swaps), "found_words": found}


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
