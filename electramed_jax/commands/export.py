"""`electramed export`: a checkpoint as Hugging Face folders."""

from __future__ import annotations

import argparse
import posixpath
from typing import Any

HELP = """Writes discriminator/ and generator/ for AutoModel...from_pretrained to open, each with
config.json, model.safetensors, the tokenizer and a model card.

  electramed export --workdir=runs/small --output=models/small"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="what electramed pretrain wrote")
    parser.add_argument("--output", required=True, help="folder to write the two folders into")
    parser.add_argument("--step", type=int, help="checkpoint to export; default: the newest")
    parser.add_argument("--name", help="the model's name on its card; default: the workdir's")
    parser.add_argument("--license", help="of the weights, for the card; default: none is stated")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common import distributed

    with distributed.joined():
        return _export(args) | {"another_tells": not distributed.is_main()}


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
