"""`electramed export`: writes a checkpoint as Hugging Face folders with a model card."""

from __future__ import annotations

import argparse
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
        "--base_model",
        metavar="USER/NAME",
        help="model on the Hub that this one was trained from, for the card (default: none stated)",
    )
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
    parser.add_argument(
        "--carbon_intensity",
        type=float,
        metavar="GRAMS",
        help="grams of CO2 equivalents per kWh of electricity, for the emissions on the card (default: none stated)",
    )
    parser.add_argument("--push", metavar="USER/NAME", help="also upload to the Hugging Face Hub (default: no)")
    parser.add_argument("--tag", help="with --push: tag of the uploaded revision, such as v1.0 (default: none)")
    parser.add_argument(
        "--private", action="store_true", help="with --push: create new repositories as private (default: public)"
    )
    takeover_flag.add_argument(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.api.exporting import export
    from electramed_jax.common.processes import distributed

    exported = export(
        args.workdir,
        args.output,
        step=args.step,
        seed=args.seed,
        onnx=args.onnx,
        name=args.name,
        license=args.license,
        base_model=args.base_model,
        data_license=args.data_license,
        results=args.results,
        watts=args.watts,
        carbon_intensity=args.carbon_intensity,
        push=args.push,
        tag=args.tag,
        private=args.private,
        takeover=args.takeover,
    )
    is_main = distributed.is_main()
    if is_main and "discriminator" in exported:
        next_step.print_after_export(exported["discriminator"])
    return exported | {"is_worker": not is_main}
