"""`electramed serve`: a local page and a JSON interface that apply a model to text."""

from __future__ import annotations

import argparse
from typing import Any

HELP = """Opens a local page that applies a model to text, and the same as a JSON interface. Stop it with Ctrl-C.

  electramed serve --model=runs/ncbi                       # then open http://127.0.0.1:8765
  electramed serve --model=models/small --port=0           # a pre-trained pair: replaced and masked words
  electramed serve --model=runs/ncbi --host=0.0.0.0        # for other machines: prints an address with a token
  curl http://127.0.0.1:8765/api/predict --json '{"inputs": [{"text": "Aspirin reduces fever."}]}'

The model is a workdir of electramed finetune (its best seed on dev) or pretrain (its newest checkpoint), or a folder of
electramed export. Entities are marked in the text with type and score; relations and classes get their probabilities;
answers are marked in their passage; a pre-trained model marks words that its discriminator takes for replaced, and its
generator proposes words for a masked one. Files are uploaded on the page; for many of them use electramed predict.
/openapi.json describes the interface. The page loads nothing from the network and stores nothing. Traffic is not
encrypted: to reach it from elsewhere, prefer a tunnel (ssh -L 8765:127.0.0.1:8765 MACHINE) to --host.
Needs pip install 'electramed_jax[serve]'."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="workdir or exported folder")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="seed of a fine-tuning workdir (default: the best on dev)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8765, metavar="N", help="0: a free one (default: 8765)")
    parser.add_argument(
        "--token",
        metavar="TEXT",
        help="token that requests need (default: none on a loopback address, elsewhere a random one)",
    )
    parser.add_argument(
        "--max_text", type=int, default=100_000, metavar="N", help="characters of a request (default: 100000)"
    )
    parser.add_argument("--max_upload", type=int, default=32, metavar="N", help="MiB of a file (default: 32)")
    parser.add_argument(
        "--max_pending", type=int, default=8, metavar="N", help="predictions that run or wait (default: 8)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    import secrets

    from electramed_jax.common import console
    from electramed_jax.common.errors import UserError

    for name in ("max_text", "max_upload", "max_pending"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name}={getattr(args, name)}: wanted 1 or more")
    if args.token is not None and not (args.token.isascii() and args.token.isalnum() and len(args.token) >= 8):
        raise UserError("--token: wanted 8 or more letters and digits")
    try:
        from electramed_jax.serve import server
        from electramed_jax.serve.access import LOOPBACK
        from electramed_jax.serve.app import create_app
        from electramed_jax.serve.limits import MIB, Limits
        from electramed_jax.serve.services import make_service
    except ImportError as error:
        if error.name and error.name.startswith("electramed_jax"):
            raise
        raise UserError(f"serve needs {error.name}; pip install 'electramed_jax[serve]'") from error

    is_local = args.host in LOOPBACK
    token = args.token or (None if is_local else secrets.token_hex(16))
    with server.bind(args.host, args.port) as listening:
        service = make_service(load(args.model, args.seed), args.model)
        console.say(f"compiling for {args.model}")
        service.predict([service.input_type(**{field.name: "a" for field in service.fields})])
        limits = Limits(args.max_text, args.max_upload * MIB, args.max_pending)
        host = f"[{args.host}]" if ":" in args.host else args.host
        address = f"http://{host}:{listening.getsockname()[1]}/"
        console.say(f"open {address}{f'?token={token}' if token else ''}   (Ctrl-C stops the server)")
        running = server.make_server(create_app(service, limits, token), verbose=args.verbose)
        with console.at_level(console.QUIET):  # no progress of uploaded files
            running.run(sockets=[listening])
        requests = running.server_state.total_requests
        console.say(f"stopped after {requests:,} requests")
    return {"model": args.model, "kind": service.kind, "url": address, "requests": requests}


def load(folder: str, seed: int | None) -> Any:
    """Returns the fine-tuned model or the pre-trained pair in a folder."""
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.storage import files
    from electramed_jax.finetune.predictor import load_model
    from electramed_jax.finetune.training import workdir
    from electramed_jax.hf import finetuned
    from electramed_jax.hf.format import model_dir
    from electramed_jax.hf.pretrained.pair import load_pair
    from electramed_jax.pretrain.workdir import DATASET_FILE

    is_pretrained = files.exists(files.join(folder, DATASET_FILE))
    if not is_pretrained and not workdir.is_finetuned(folder) and files.is_dir(folder):
        found = files.exists(files.join(folder, model_dir.CONFIG))
        classes = model_dir.read_config(folder).get("architectures") if found else None
        is_pretrained = not any(name in finetuned.HEAD_KINDS for name in classes or ())
    if not is_pretrained:
        return load_model(folder, seed)
    if seed is not None:
        raise UserError(f"--seed does not apply to {folder}, a pre-trained model; omit it")
    return load_pair(folder)
