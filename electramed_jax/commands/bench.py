"""`electramed bench`: how fast this machine is at a step, at feeding it, at preparing text and at saving."""

from __future__ import annotations

import argparse
import json
import tempfile
from typing import Any

from electramed_jax.commands import size_flags
from electramed_jax.common.console import say
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files

HELP = """Times one thing on this machine, after a warm-up: median and spread, device and versions.

  electramed bench step --config=configs/pretrain_small.py --max_seq_length=128 --config.batch_size=32
  electramed bench data --config=configs/pretrain_small.py --config.data.directory=packed
  electramed bench prepare --input 'baseline/*.xml.gz'
  electramed bench checkpoint --config=configs/pretrain_base.py

step and checkpoint need no dataset: rows are then random. --profile=DIR runs once more under the profiler; see
tensorboard --logdir DIR (with xprof), or open DIR's perfetto_trace.json.gz in Perfetto."""
TAKES_CONFIG = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=list(BENCHES), help="what to time")
    parser.add_argument("--warm_up", type=int, help="repeats before those counted (default 3; prepare, checkpoint: 1)")
    parser.add_argument("--repeats", type=int, help="that count (default 20; prepare, checkpoint: 5)")
    parser.add_argument("--profile", default="", metavar="DIR", help="profile one more repeat; not of prepare")
    parser.add_argument("--batches", type=int, default=64, help="of data: in a repeat (default 64)")
    parser.add_argument("--input", nargs="+", default=[], metavar="GLOB", help="of prepare: files to read")
    parser.add_argument("--workers", type=int, metavar="N", help="of prepare: processes (default: one per core)")
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="of checkpoint: an empty folder to save in, gs:// too (default: a temporary one)",
    )
    size_flags.add_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    slow = args.what in ("prepare", "checkpoint")
    args.warm_up = (1 if slow else 3) if args.warm_up is None else args.warm_up
    args.repeats = (5 if slow else 20) if args.repeats is None else args.repeats
    if args.batches < 1:
        raise UserError(f"--batches={args.batches}: wanted 1 or more")
    timings, figures, machine = BENCHES[args.what](args)
    for name, timing in timings.items():
        say(f"{name}: {timing}")
    for name, value in figures.items():
        say(f"{name}: {value:,.4g}" if isinstance(value, float) else f"{name}: {value:,}")
    say("on " + json.dumps(machine))
    if args.profile:
        say(f"profile: tensorboard --logdir {args.profile}")
    return (
        {"bench": args.what, "seconds": {name: timing.to_json() for name, timing in timings.items()}}
        | figures
        | {"machine": machine}
    )


def _step(args: argparse.Namespace) -> tuple[Any, ...]:
    from electramed_jax.pretrain import bench

    timing, figures = bench.bench_step(_config(args), **_counts(args))
    return {"step": timing}, figures, bench.machine_info()


def _data(args: argparse.Namespace) -> tuple[Any, ...]:
    from electramed_jax.config import pretrain as config_lib
    from electramed_jax.pretrain import bench, loop

    config, _ = loop.resolve_with_dataset(config_lib.from_flags(args.settings))
    timing, figures = bench.bench_data(config, batches=args.batches, **_counts(args))
    return {"data": timing}, figures, bench.machine_info()


def _checkpoint(args: argparse.Namespace) -> tuple[Any, ...]:
    from electramed_jax.pretrain import bench

    if args.output and files.exists(args.output) and (not files.is_dir(args.output) or files.list_dir(args.output)):
        raise UserError(f"--output={args.output}: is there and not empty; name an empty or a new folder")
    config = _config(args)
    with tempfile.TemporaryDirectory() as temporary:
        timings, figures = bench.bench_checkpoint(config, args.output or temporary, **_counts(args))
    return timings, figures, bench.machine_info()


def _prepare(args: argparse.Namespace) -> tuple[Any, ...]:
    from electramed_jax.common.timing import benchmark, time_call
    from electramed_jax.data.corpus import corpus_dir
    from electramed_jax.data.corpus.build import prepare
    from electramed_jax.data.corpus.filtering import FilterConfig
    from electramed_jax.pretrain import bench

    if not args.input:
        raise UserError("prepare needs --input, files or quoted patterns; see electramed prepare --help")
    if args.profile:
        raise UserError("--profile is not of prepare, whose work is done in processes of its own; leave it out")

    account: dict[str, Any] = {}

    def once() -> float:
        with tempfile.TemporaryDirectory() as output:
            seconds = time_call(
                lambda: prepare(args.input, output, FilterConfig(validation=0, test=0), workers=args.workers)
            )
            account.update(corpus_dir.read_documents_info(output))
        return seconds

    timing = benchmark(once, warm_up=args.warm_up, repeats=args.repeats)
    documents, size = (sum(split[name] for split in account["splits"].values()) for name in ("documents", "bytes"))
    figures = {
        "documents": documents,
        "documents_per_second": documents / timing.median,
        "text_bytes_per_second": size / timing.median,
    }
    return {"prepare": timing}, figures, bench.machine_info()


def _config(args: argparse.Namespace) -> Any:
    from electramed_jax.config import pretrain as config_lib
    from electramed_jax.data.dataset import synthetic_loader

    return size_flags.resolve(config_lib.from_flags(args.settings), args, synthetic_loader.SPECIAL)


def _counts(args: argparse.Namespace) -> dict[str, Any]:
    return {"warm_up": args.warm_up, "repeats": args.repeats, "profile": args.profile}


BENCHES = {"step": _step, "data": _data, "prepare": _prepare, "checkpoint": _checkpoint}
