"""`electramed export`: a checkpoint as Hugging Face folders."""

from __future__ import annotations

import argparse
import posixpath
from typing import Any

HELP = """Writes folders for AutoModel...from_pretrained to open, each with config.json, model.safetensors, the
tokenizer and a model card: discriminator/ and generator/ of a pre-training workdir, one folder of a fine-tuning
workdir (the seed that is best on dev).

  electramed export --workdir=runs/small --output=models/small
  electramed export --workdir=runs/ncbi --output=models/ncbi"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="what electramed pretrain or finetune wrote")
    parser.add_argument("--output", required=True, help="folder to write the two folders into; of a fine-tuned model, its")
    parser.add_argument("--step", type=int, help="checkpoint of pre-training to export; default: the newest")
    parser.add_argument("--seed", type=int, help="of fine-tuning; default: the one that is best on dev")
    parser.add_argument("--name", help="the model's name on its card; default: the workdir's")
    parser.add_argument("--license", help="of the weights, for the card; default: none is stated")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common import distributed
    from electramed_jax.common.errors import UserError
    from electramed_jax.finetune import workdir

    finetuned = workdir.is_finetuned(args.workdir)
    wrong = "step" if finetuned else "seed"
    if getattr(args, wrong) is not None:
        kind = "fine-tuned" if finetuned else "pre-trained"
        raise UserError(f"--{wrong} says nothing of {args.workdir}, which holds a {kind} model; leave it out")
    with distributed.joined():
        exported = _export_finetuned(args) if finetuned else _export(args)
        return exported | {"another_tells": not distributed.is_main()}


def _export_finetuned(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common import distributed
    from electramed_jax.finetune import results, trained
    from electramed_jax.hf import card, finetuned
    from electramed_jax.training.report import tell

    held = trained.load(args.workdir, args.seed)
    described = held.described
    if distributed.is_main():
        data, recipe, scores = results.for_card(held.results, held.scores)
        name = args.name or posixpath.basename(args.workdir.rstrip("/"))
        finetuned.export(
            args.output,
            held.params,
            described.model,
            held.tokenizer,
            kind=described.head.kind,
            labels=described.head.labels,
            loss=described.head.loss,
            facts=card.Facts(name, data, recipe, scores, license=args.license),
        )
        tell(f"wrote {args.output} (seed {held.seed})")
    return {"workdir": args.workdir, "seed": held.seed, "output": args.output}


def _export(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common import distributed, files
    from electramed_jax.config import MeshConfig
    from electramed_jax.data import manifest as manifests
    from electramed_jax.data import vocab
    from electramed_jax.hf import card, convert
    from electramed_jax.training import checkpoint, sharding, workdir
    from electramed_jax.training.report import tell

    mesh = sharding.make_mesh(MeshConfig())  # whatever devices are here, not those of the training
    config, state = checkpoint.load(args.workdir, mesh, args.step)
    step = int(state.step)
    folders = {network: files.join(args.output, network) for network in convert.networks_of(config)}
    params = sharding.to_host(state.params)
    if not distributed.is_main():
        return {"workdir": args.workdir, "step": step} | folders
    manifest = manifests.load(files.join(args.workdir, workdir.DATASET_FILE))
    facts = card.facts_of(
        config,
        manifest,
        name=args.name or posixpath.basename(args.workdir.rstrip("/")),
        step=step,
        metrics=_last_validation(args.workdir, step),
        license=args.license,
    )
    tokens = vocab.read(files.join(args.workdir, workdir.VOCAB_FILE))
    for network, folder in folders.items():
        convert.export_network(
            network,
            folder,
            params,
            config.model,
            tokens,
            lower_case=manifest.lower_case,
            facts=facts,
        )
        tell(f"wrote {folder}")
    return {"workdir": args.workdir, "step": step} | folders


def _last_validation(workdir: str, step: int) -> dict[str, float]:
    """Figures of the last validation up to `step`; none where there was none."""
    from electramed_jax.common import metrics

    entries = [e for e in metrics.read(workdir) if e["split"] == "validation" and e["step"] <= step]
    if not entries:
        return {}
    figures = {name: value for name, value in entries[-1].items() if name not in ("step", "split")}
    return {"measured at step": entries[-1]["step"]} | figures
