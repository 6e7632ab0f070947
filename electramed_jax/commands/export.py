"""`electramed export`: writes a checkpoint as Hugging Face folders with a model card."""

from __future__ import annotations

import argparse
import dataclasses
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax.commands import next_step, takeover_flag

HELP = """Writes Hugging Face folders, each with config.json, model.safetensors, the tokenizer and a model card:
discriminator/ and generator/ for a pre-training workdir, one folder for a fine-tuning workdir (its best seed on dev).

  electramed export --workdir=runs/small --output=models/small
  electramed export --workdir=runs/ncbi --output=models/ncbi --onnx
  electramed export --workdir=runs/small --output=models/small --license=apache-2.0 \\
      --data_license="own*=CC BY 4.0" --results runs/ncbi runs/bc5cdr --push=USER/electramed-small

--push uploads to USER/NAME-discriminator and USER/NAME-generator on the Hub, a fine-tuned model to USER/NAME. It uses
the token of `hf auth login` or HF_TOKEN."""

PRETRAINED_OPTIONS = ("step", "data_license", "results")
FINETUNED_OPTIONS = ("seed", "onnx")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="folder that electramed pretrain or finetune wrote"
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="folder to write: the parent of the two folders, or that of the fine-tuned model itself",
    )
    parser.add_argument("--step", type=int, metavar="N", help="step of the pre-training checkpoint (default: newest)")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the fine-tuning run (default: the best on dev)")
    parser.add_argument(
        "--onnx", action="store_true", default=None, help="also write model.onnx of a fine-tuned model (default: no)"
    )
    parser.add_argument("--name", help="name of the model on its card (default: that of the workdir)")
    parser.add_argument("--license", help="license of the weights on the card (default: none stated)")
    parser.add_argument(
        "--data_license",
        action="append",
        metavar="PATTERN=LICENCE",
        help="license of the source files with matching names, for the card; repeatable (default: none stated)",
    )
    parser.add_argument(
        "--results",
        nargs="+",
        metavar="WORKDIR",
        help="workdirs of models fine-tuned from this one, for the scores on the card (default: none)",
    )
    parser.add_argument(
        "--watts", type=float, help="watts of a device, for the energy on the card (default: by device kind)"
    )
    parser.add_argument("--push", metavar="USER/NAME", help="also upload to the Hugging Face Hub (default: no)")
    parser.add_argument(
        "--private", action="store_true", help="with --push: create new repositories as private (default: public)"
    )
    takeover_flag.add_argument(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.processes import distributed
    from electramed_jax.common.processes.folder_owner import own_folder
    from electramed_jax.finetune.training import workdir

    finetuned = workdir.is_finetuned(args.workdir)
    for option in PRETRAINED_OPTIONS if finetuned else FINETUNED_OPTIONS:
        if getattr(args, option) is not None:
            kind = "fine-tuned" if finetuned else "pre-trained"
            raise UserError(f"--{option} does not apply to {args.workdir}, which contains a {kind} model; omit it")
    if args.watts is not None and args.watts <= 0:
        raise UserError(f"--watts={args.watts:g}: wanted the power of one device in watts, above 0")
    if args.private and not args.push:
        raise UserError("--private has no effect without --push=USER/NAME; add it or omit --private")
    with distributed.distributed_context(), own_folder(args.output, takeover=args.takeover):
        exported = _export_finetuned(args) if finetuned else _export_pretrained(args)
        return exported | {"is_worker": not distributed.is_main()}


def _export_finetuned(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.processes import distributed
    from electramed_jax.common.processes.main_console import log_main
    from electramed_jax.config.finetune import CLS
    from electramed_jax.finetune import card_scores, load_model, postprocess_config, results, stages
    from electramed_jax.hf import card, card_sections, finetuned, onnx_export, push_to_hub

    repositories = push_to_hub.name_repositories(args.push, {"": args.output}) if args.push else {}
    trained = load_model.load_finetuned(args.workdir, args.seed)
    spec = trained.spec
    result = {"workdir": args.workdir, "seed": trained.seed, "output": args.output}
    if spec.head.pooling != CLS:
        raise UserError(
            f"{args.workdir}: trained with config.text.pooling={spec.head.pooling}, a head that transformers does not "
            "have; predict with the workdir, or train with config.text.pooling=cls"
        )
    if not distributed.is_main():
        return result
    data, recipe, scores = results.card_data(trained.results, trained.scores)
    name = _name(args)
    metadata = card_scores.hub_metadata(name, [trained.results], trained.seed)
    sections = [(f"Learning curve of seed {trained.seed}", results.dev_curve(trained.results, trained.scores))]
    if hardware := card_sections.render_hardware(stages.device_hours(args.workdir), args.watts):
        scope = f"Fine-tuning alone, all {len(trained.results['seeds'])} seeds."
        sections.append(("Hardware and energy", f"{scope}\n\n{hardware}"))
    finetuned.export_finetuned(
        args.output,
        trained.params,
        spec.model,
        trained.tokenizer,
        kind=spec.head.kind,
        labels=spec.head.labels,
        loss=spec.head.loss,
        postprocess=postprocess_config.to_json(trained.postprocess),
        card_data=card.CardData(name, data, recipe, scores, license=args.license, sections=sections, metadata=metadata),
    )
    log_main(f"wrote {args.output} (seed {trained.seed})")
    if args.onnx:
        difference = onnx_export.export_onnx(args.output)
        log_main(f"wrote {onnx_export.ONNX_FILE}; its logits differ from those of torch by up to {difference:.1g}")
        result["onnx_difference"] = difference
    return result | _push(args, repositories, f"Seed {trained.seed}")


def _export_pretrained(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.processes import distributed
    from electramed_jax.common.processes.main_console import log_main
    from electramed_jax.common.storage import files
    from electramed_jax.config.pretrain import MeshConfig
    from electramed_jax.finetune import load_model
    from electramed_jax.hf import card_sections, convert, push_to_hub
    from electramed_jax.pretrain import history
    from electramed_jax.pretrain.checkpoint import load_pretrained_state
    from electramed_jax.pretrain.workdir import read_vocab
    from electramed_jax.training import sharding

    mesh = sharding.make_mesh(MeshConfig())  # the devices of this machine, not those of the training
    licenses = card_sections.parse_licences(args.data_license or [])
    results = [load_model.read_results(folder) for folder in args.results or []]
    run_history = history.read_history(args.workdir)
    folders = {network: files.join(args.output, network) for network in convert.trained_networks(run_history.config)}
    _check_no_other_network(args.output, folders)
    repositories = push_to_hub.name_repositories(args.push, folders) if args.push else {}
    config, state = load_pretrained_state(args.workdir, mesh, args.step)
    step = int(state.step)
    params = sharding.to_host(state.params)
    result = {"workdir": args.workdir, "step": step} | folders
    if not distributed.is_main():
        return result
    manifest = history.read_manifest(args.workdir)
    pictures = _pictures(args.workdir, step)
    facts = _card_data(args, run_history, manifest, step, licenses, results, list(pictures))
    convert.export_networks(
        folders,
        params,
        config.model,
        read_vocab(args.workdir, config),
        lower_case=manifest.lower_case,
        keep_accents=manifest.keep_accents,
        card_data=facts,
        pictures=pictures,
    )
    for folder in folders.values():
        log_main(f"wrote {folder}")
    if convert.DISCRIMINATOR in folders:
        next_step.say_after_export(folders[convert.DISCRIMINATOR])
    return result | _push(args, repositories, f"Step {step:,} of {config.total_steps:,}")


def _check_no_other_network(output: str, folders: Mapping[str, str]) -> None:
    """Raises UserError if `output` holds a network of another export, which would open as the new one's partner."""
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.storage import files
    from electramed_jax.hf.format import mapping, model_dir

    for network in mapping.NETWORKS:
        folder = files.join(output, network)
        if network not in folders and files.exists(files.join(folder, model_dir.CONFIG)):
            raise UserError(
                f"{folder}: holds the {network} of another model; this run trains no {network}; remove the folder, or "
                "choose another --output"
            )


def _card_data(
    args: argparse.Namespace,
    run_history: Any,
    manifest: Any,
    step: int,
    licenses: Mapping[str, str],
    results: Sequence[Any],
    pictures: Sequence[str],
) -> Any:
    """Returns the `card.CardData` of a pre-training run at `step`."""
    from electramed_jax.finetune import card_scores
    from electramed_jax.hf import card, card_sections

    name = _name(args)
    facts = card.card_data_for_run(
        run_history.config,
        manifest,
        name=name,
        step=step,
        metrics=_last_validation(run_history, step),
        phases=run_history.phases(step),
        license=args.license,
    )
    sections = card_sections.run_sections(
        run_history, manifest, step, licences=licenses, watts=args.watts, pictures=pictures
    )
    scores = card_scores.scores_table(results)
    return dataclasses.replace(
        facts,
        sections=[*sections, ("Fine-tuned", scores)] if scores else sections,
        metadata={**facts.metadata, **card_scores.hub_metadata(name, results)},
    )


def _name(args: argparse.Namespace) -> str:
    return args.name or posixpath.basename(args.workdir.rstrip("/"))


def _last_validation(run_history: Any, step: int) -> dict[str, float]:
    """Returns the metrics of the last validation at or before `step`; {} if there is none."""
    entries = run_history.split("validation", step)
    if not entries:
        return {}
    metrics = {name: value for name, value in entries[-1].items() if name not in ("step", "split")}
    return {"measured at step": entries[-1]["step"]} | metrics


def _pictures(workdir: str, step: int) -> dict[str, bytes]:
    """Returns PNGs of the learning curves by file name; {} if matplotlib is not installed."""
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.processes.main_console import log_main
    from electramed_jax.report import pictures

    try:
        return pictures.learning_curves(workdir, step)
    except UserError as error:
        log_main(f"the card has no learning curves: {error}")
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
