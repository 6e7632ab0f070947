"""`electramed export`: a checkpoint as Hugging Face folders."""

from __future__ import annotations

import argparse
import dataclasses
import posixpath
from typing import Any

HELP = """Writes discriminator/ and generator/ for AutoModel...from_pretrained to open, each with
config.json, model.safetensors, the tokenizer and a model card.

  electramed export --workdir=runs/small --output=models/small
  electramed export --workdir=runs/small --output=models/small --license=apache-2.0 \\
      --data_license="pubmed*=NLM terms" --results=runs/small-ncbi --push=USER/electramed-small

--push uploads to USER/NAME-discriminator and USER/NAME-generator on the Hub, by the token of `hf auth login` or
HF_TOKEN."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="what electramed pretrain wrote")
    parser.add_argument("--output", required=True, help="folder to write the two folders into")
    parser.add_argument("--step", type=int, help="checkpoint to export; default: the newest")
    parser.add_argument("--name", help="the model's name on its card; default: the workdir's")
    parser.add_argument("--license", help="of the weights, for the card; default: none is stated")
    parser.add_argument(
        "--data_license",
        action="append",
        default=[],
        metavar="PATTERN=LICENCE",
        help="of the source files whose names match, for the card; may be given again for others",
    )
    parser.add_argument(
        "--results", nargs="+", default=[], help="results.json of fine-tuning, or their workdirs, for the card"
    )
    parser.add_argument("--watts", type=float, help="power of a device, for the card's energy; default: by its kind")
    parser.add_argument("--push", metavar="USER/NAME", help="also upload to the Hugging Face Hub")
    parser.add_argument("--private", action="store_true", help="with --push: repositories that are made are private")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common import distributed

    with distributed.joined():
        return _export(args) | {"another_tells": not distributed.is_main()}


def _export(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common import distributed, files
    from electramed_jax.config import MeshConfig
    from electramed_jax.data import vocab
    from electramed_jax.hf import card_sections, convert, push
    from electramed_jax.training import checkpoint, history, sharding, workdir
    from electramed_jax.training.report import tell

    mesh = sharding.make_mesh(MeshConfig())  # whatever devices are here, not those of the training
    licences = card_sections.read_licences(args.data_license)
    results = [files.read_json(_results_path(path)) for path in args.results]
    past = history.read(args.workdir)
    folders = {network: files.join(args.output, network) for network in convert.networks_of(past.config)}
    repositories = push.repositories(args.push, folders) if args.push else {}
    config, state = checkpoint.load(args.workdir, mesh, args.step)
    step = int(state.step)
    params = sharding.to_host(state.params)
    if not distributed.is_main():
        return {"workdir": args.workdir, "step": step} | folders
    manifest = history.read_manifest(args.workdir)
    facts = _facts(args, past, manifest, step, licences, results)
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
    pushed = push.push(repositories, private=args.private, message=f"Step {step}") if repositories else {}
    for repository, commit in pushed.items():
        tell(f"pushed {repository}: {commit}")
    return {"workdir": args.workdir, "step": step} | folders | ({"pushed": pushed} if pushed else {})


def _facts(
    args: argparse.Namespace, past: Any, manifest: Any, step: int, licences: dict[str, str], results: list[Any]
) -> Any:
    from electramed_jax.hf import card, card_sections

    name = args.name or posixpath.basename(args.workdir.rstrip("/"))
    facts = card.facts_of(
        past.config,
        manifest,
        name=name,
        step=step,
        metrics=_last_validation(past, step),
        license=args.license,
    )
    index = card_sections.model_index(name, results)
    return dataclasses.replace(
        facts,
        sections=card_sections.of_run(
            past, manifest, step, licences=licences, watts=args.watts, results=results
        ),
        metadata={"model-index": index} if index else {},
    )


def _results_path(path: str) -> str:
    from electramed_jax.common import files

    return files.join(path, "results.json") if files.is_dir(path) else path


def _last_validation(past: Any, step: int) -> dict[str, float]:
    """Figures of the last validation up to `step`; none where there was none."""
    entries = past.split("validation", step)
    if not entries:
        return {}
    figures = {name: value for name, value in entries[-1].items() if name not in ("step", "split")}
    return {"measured at step": entries[-1]["step"]} | figures
