"""The last lines of pretrain, finetune and export: commands that can be run on what was just made."""

from __future__ import annotations

import importlib.util
import posixpath

from electramed_jax.common import console

_INPUTS = {"token": '--text "..."', "sequence": "--input FILE.tsv", "span": "--input QUESTIONS.json"}  # by kind of head


def print_after_pretraining(workdir: str, *, finished: bool) -> None:
    """Prints how to see the run, and how to export it or to continue."""
    console.say(f"see the curves: {report_command(workdir)}")
    if finished:
        name = posixpath.basename(workdir.rstrip("/"))
        console.say(f"next: electramed export --workdir={workdir} --output=models/{name}")
    else:
        console.say("next: the same command, without --stop_after, continues the run")


def print_after_export(folder: str) -> None:
    """Prints how to fine-tune an exported discriminator."""
    console.say(
        f"next: electramed finetune --config=finetune_ner --config.init={folder} --config.task.data=CORPUS "
        "--workdir=runs/ner (electramed corpora lists corpora)"
    )


def print_after_finetuning(workdir: str, kind: str) -> None:
    """Prints how to use a fine-tuned model; `kind` is that of its head."""
    console.say(f"see the scores: {report_command(workdir)}")
    console.say(f"next: electramed predict --model={workdir} {_INPUTS[kind]}")


def report_command(workdir: str) -> str:
    """Returns the command of the report, with the extra that it needs if that is not installed."""
    missing = importlib.util.find_spec("plotly") is None
    return ("pip install 'electramed_jax[report]' && " if missing else "") + f"electramed report {workdir}"
