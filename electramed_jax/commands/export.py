"""`electramed export`: a checkpoint as Hugging Face folders, with a model card; on the Hub, if so wanted."""

from __future__ import annotations

import argparse
import dataclasses
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

HELP = """Writes folders for AutoModel...from_pretrained to open, each with config.json, model.safetensors, the
tokenizer and a model card: discriminator/ and generator/ of a pre-training workdir, one folder of a fine-tuning
workdir (the seed that is best on dev).

  electramed export --workdir=runs/small --output=models/small
  electramed export --workdir=runs/ncbi --output=models/ncbi
  electramed export --workdir=runs/small --output=models/small --license=apache-2.0 \\
      --data_license="own*=CC BY 4.0" --results runs/ncbi runs/bc5cdr --push=USER/electramed-small

--push uploads to the Hub, by the token of `hf auth login` or HF_TOKEN: to USER/NAME-discriminator and
USER/NAME-generator; a fine-tuned model to USER/NAME."""

ONLY_PRETRAINED = ("step", "data_license", "results")
ONLY_FINETUNED = ("seed",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="what electramed pretrain or finetune wrote")
    parser.add_argument(
        "--output", required=True, help="folder to write the two folders into; of a fine-tuned model, its"
    )
    parser.add_argument("--step", type=int, help="checkpoint of pre-training to export; default: the newest")
    parser.add_argument("--seed", type=int, help="of fine-tuning; default: the one that is best on dev")
    parser.add_argument("--name", help="the model's name on its card; default: the workdir's")
    parser.add_argument("--license", help="of the weights, for the card; default: none is stated")
    parser.add_argument(
        "--data_license",
        action="append",
        metavar="PATTERN=LICENCE",
        help="of the source files whose names match, for the card; may be given again for others",
    )
    parser.add_argument(
        "--results",
        nargs="+",
        metavar="WORKDIR",
        help="of models fine-tuned from this one, whose scores the card then tells",
    )
    parser.add_argument("--watts", type=float, help="power of a device, for the card's energy; default: by its kind")
    parser.add_argument("--push", metavar="USER/NAME", help="also upload to the Hugging Face Hub")
    parser.add_argument("--private", action="store_true", help="with --push: repositories that are made are private")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.processes import distributed
    from electramed_jax.finetune.training import workdir

    finetuned = workdir.is_finetuned(args.workdir)
    for wrong in ONLY_PRETRAINED if finetuned else ONLY_FINETUNED:
        if getattr(args, wrong) is not None:
            kind = "fine-tuned" if finetuned else "pre-trained"
            raise UserError(f"--{wrong} says nothing of {args.workdir}, which holds a {kind} model; leave it out")
    if args.watts is not None and args.watts <= 0:
        raise UserError(f"--watts={args.watts:g}: wanted the power of one device in watts, above 0")
    if args.private and not args.push:
        raise UserError("--private says nothing without --push=USER/NAME")
    with distributed.distributed_context():
        exported = _export_finetuned(args) if finetuned else _export(args)
        return exported | {"is_worker": not distributed.is_main()}


def _export_finetuned(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.processes import distributed
    from electramed_jax.common.processes.main_console import log_main
    from electramed_jax.finetune import card_scores, load_model, postprocess_config, results, stages
    from electramed_jax.hf import card, card_sections, finetuned, push_to_hub

    repositories = push_to_hub.name_repositories(args.push, {"": args.output}) if args.push else {}
    held = load_model.load_finetuned(args.workdir, args.seed)
    described = held.spec
    told = {"workdir": args.workdir, "seed": held.seed, "output": args.output}
    if not distributed.is_main():
        return told
    data, recipe, scores = results.card_data(held.results, held.scores)
    name = _name(args)
    metadata = card_scores.hub_metadata(name, [held.results], held.seed)
    sections = [(f"Learning curve of seed {held.seed}", results.dev_curve(held.results, held.scores))]
    if hardware := card_sections.render_hardware(stages.device_hours(args.workdir), args.watts):
        whose = f"Fine-tuning alone, of all {len(held.results['seeds'])} seeds."
        sections.append(("Hardware and energy", f"{whose}\n\n{hardware}"))
    finetuned.export_finetuned(
        args.output,
        held.params,
        described.model,
        held.tokenizer,
        kind=described.head.kind,
        labels=described.head.labels,
        loss=described.head.loss,
        postprocess=postprocess_config.to_json(held.postprocess),
        card_data=card.CardData(name, data, recipe, scores, license=args.license, sections=sections, metadata=metadata),
    )
    log_main(f"wrote {args.output} (seed {held.seed})")
    return told | _push(args, repositories, f"Seed {held.seed}")


def _export(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.processes import distributed
    from electramed_jax.common.processes.main_console import log_main
    from electramed_jax.common.storage import files
    from electramed_jax.config.pretrain import MeshConfig
    from electramed_jax.data.tokenizer import vocab
    from electramed_jax.finetune import load_model
    from electramed_jax.hf import card_sections, convert, push_to_hub
    from electramed_jax.pretrain import history
    from electramed_jax.pretrain.checkpoint import load_pretrained_state
    from electramed_jax.training import sharding

    mesh = sharding.make_mesh(MeshConfig())  # whatever devices are here, not those of the training
    licences = card_sections.parse_licences(args.data_license or [])
    results = [load_model.read_results(folder) for folder in args.results or []]
    past = history.read_history(args.workdir)
    folders = {network: files.join(args.output, network) for network in convert.trained_networks(past.config)}
    repositories = push_to_hub.name_repositories(args.push, folders) if args.push else {}
    config, state = load_pretrained_state(args.workdir, mesh, args.step)
    step = int(state.step)
    params = sharding.to_host(state.params)
    told = {"workdir": args.workdir, "step": step} | folders
    if not distributed.is_main():
        return told
    manifest = history.read_manifest(args.workdir)
    pictures = _pictures(args.workdir, step)
    facts = _facts(args, past, manifest, step, licences, results, list(pictures))
    tokens = vocab.read_vocab(files.join(args.workdir, vocab.VOCAB_FILE))
    for network, folder in folders.items():
        for name, picture in pictures.items():
            with files.atomic_write(files.join(folder, name)) as file:
                file.write(picture)
        convert.export_network(
            network,
            folder,
            params,
            config.model,
            tokens,
            lower_case=manifest.lower_case,
            card_data=facts,
        )
        log_main(f"wrote {folder}")
    return told | _push(args, repositories, f"Step {step:,} of {config.total_steps:,}")


def _facts(
    args: argparse.Namespace,
    past: Any,
    manifest: Any,
    step: int,
    licences: Mapping[str, str],
    results: Sequence[Any],
    pictures: Sequence[str],
) -> Any:
    from electramed_jax.finetune import card_scores
    from electramed_jax.hf import card, card_sections

    name = _name(args)
    facts = card.card_data_for_run(
        past.config,
        manifest,
        name=name,
        step=step,
        metrics=_last_validation(past, step),
        license=args.license,
    )
    sections = card_sections.run_sections(past, manifest, step, licences=licences, watts=args.watts, pictures=pictures)
    scores = card_scores.scores_table(results)
    return dataclasses.replace(
        facts,
        sections=[*sections, ("Fine-tuned", scores)] if scores else sections,
        metadata=card_scores.hub_metadata(name, results),
    )


def _name(args: argparse.Namespace) -> str:
    return args.name or posixpath.basename(args.workdir.rstrip("/"))


def _last_validation(past: Any, step: int) -> dict[str, float]:
    """Figures of the last validation up to `step`; none where there was none."""
    entries = past.split("validation", step)
    if not entries:
        return {}
    figures = {name: value for name, value in entries[-1].items() if name not in ("step", "split")}
    return {"measured at step": entries[-1]["step"]} | figures


def _pictures(workdir: str, step: int) -> dict[str, bytes]:
    """PNGs of the learning curve, by file name; a card does without where there is no matplotlib."""
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.processes.main_console import log_main
    from electramed_jax.report import pictures

    try:
        return pictures.learning_curves(workdir, step)
    except UserError as error:
        log_main(f"no curves are drawn on the card: {error}")
        return {}


def _push(args: argparse.Namespace, repositories: Mapping[str, str], message: str) -> dict[str, Any]:
    from electramed_jax.common.processes.main_console import log_main
    from electramed_jax.hf import push_to_hub

    if not repositories:
        return {}
    pushed = push_to_hub.push_folders(repositories, private=args.private, message=message)
    for commit in pushed.values():
        log_main(f"pushed: {commit}")
    return {"pushed": pushed}
