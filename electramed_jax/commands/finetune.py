"""`electramed finetune`: an encoder and a corpus in, a model and its scores out."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from electramed_jax.common.errors import EXIT_DONE, EXIT_PREEMPTED
from electramed_jax.common.processes import signals as sigterm

if TYPE_CHECKING:
    from electramed_jax.config.finetune import FinetuneConfig
    from electramed_jax.finetune.task.init_encoder import Start

HELP = """Trains an encoder on a corpus, chooses the best checkpoint on dev, and scores it on test.

  electramed finetune --config=configs/finetune_ner.py --config.init=runs/small \\
    --config.task.data=NCBI-disease --config.seeds=5 --workdir=runs/ncbi

config.init is a workdir of electramed pretrain or finetune, a Hugging Face ELECTRA folder, or scratch (with
--config.like=DIR for one of the same size). The workdir gets results.json and results.md, mean and standard deviation
over the seeds, and each seed's best parameters and predictions. SIGTERM saves and exits with 42: run the same command
again to go on."""
TAKES_CONFIG = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="checkpoints and scores go here; the same one resumes")


def run(args: argparse.Namespace) -> dict[str, Any]:
    with sigterm.held():  # until the run listens
        from electramed_jax.common.processes import distributed
        from electramed_jax.config import finetune as config_lib
        from electramed_jax.finetune import stages

        config = config_lib.from_flags(args.settings)
        with distributed.joined():
            outcome = stages.run_all(config, start_of(config), args.workdir)
    return {
        "workdir": args.workdir,
        "exit_code": EXIT_PREEMPTED if outcome.preempted else EXIT_DONE,
        "another_tells": not distributed.is_main(),
        "seeds": outcome.results.get("seeds", []),
        "scores": outcome.results.get("scores", {}),
    }


def start_of(config: FinetuneConfig) -> Start:
    """The encoder that `config.init` names, or the sizes of one from scratch."""
    import dataclasses

    from electramed_jax.common.errors import UserError
    from electramed_jax.config.finetune import SCRATCH
    from electramed_jax.config.pretrain import PRESETS
    from electramed_jax.data.tokenizer import vocab
    from electramed_jax.finetune import load_model as trained
    from electramed_jax.finetune.task.init_encoder import Start
    from electramed_jax.finetune.training import workdir
    from electramed_jax.hf import encoder as encoders

    params: dict[str, Any] = {}
    if config.init != SCRATCH and workdir.is_finetuned(config.init):
        held = trained.load(config.init)
        params, model, tokens = held.params, held.described.model, held.tokens
        source = f"{config.init} (seed {held.seed}), which began as {held.described.source}"
        encoder = encoders.Encoder({}, model, tokens, held.described.lower_case, source)
    elif config.init != SCRATCH:
        encoder = encoders.read(config.init)
        params = unflattened(encoder.leaves)
    elif config.like in PRESETS:
        if not config.vocab:
            raise UserError(f"config.like={config.like} needs a vocabulary; add --config.vocab=vocab.txt")
        model = PRESETS[config.like].model
        encoder = encoders.Encoder({}, model, vocab.read(config.vocab), config.lower_case, config.like)
    else:
        encoder = encoders.sizes(config.like)
    model = dataclasses.replace(
        encoder.model,
        vocab_size=len(encoder.tokens),
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        compute_dtype=config.compute_dtype,
        remat=config.remat,
    )
    if config.task.max_length > model.max_positions:
        raise UserError(
            f"config.task.max_length={config.task.max_length}: the encoder has positions for {model.max_positions}"
        )
    source = f"scratch, of the sizes of {encoder.source}" if config.init == SCRATCH else encoder.source
    return Start(source, model, encoder.tokens, encoder.lower_case, params)


def unflattened(leaves: dict[str, Any]) -> dict[str, Any]:
    """{"embeddings": {...}, "encoder": {...}} of an encoder's leaves."""
    from electramed_jax.hf.format import tying as networks

    ours = {n if n.startswith(networks.EMBEDDINGS) else f"encoder/{n}": leaf for n, leaf in leaves.items()}
    return networks.unflatten(ours)
