"""`electramed bench`: times a train step, the input pipeline, prepare or a checkpoint on this machine."""

from __future__ import annotations

import argparse
import json
import tempfile
from typing import Any

from electramed_jax.commands import size_flags
from electramed_jax.common.console import say
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files

HELP = """Times one part of the pipeline on this machine after a warm-up: median, spread, device and versions.

  electramed bench step --config=pretrain_small --max_seq_length=128 --config.batch_size=32
  electramed bench data --config=pretrain_small --config.data.directory=packed
  electramed bench prepare --input 'baseline/*.xml.gz'
  electramed bench checkpoint --config=pretrain_base

step and checkpoint need no dataset: without one they use random rows. --profile=DIR runs one more repeat under the
profiler; see tensorboard --logdir DIR (with xprof), or open DIR's perfetto_trace.json.gz in Perfetto."""
TAKES_CONFIG = "pretrain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=list(BENCHES), help="the part to time")
    parser.add_argument(
        "--warm_up", type=int, metavar="N", help="untimed repeats before (default 3; prepare, checkpoint: 1)"
    )
    parser.add_argument("--repeats", type=int, metavar="N", help="timed repeats (default 20; prepare, checkpoint: 5)")
    parser.add_argument(
        "--profile", default="", metavar="DIR", help="profile one more repeat into this folder; not for prepare"
    )
    parser.add_argument("--batches", type=int, default=64, metavar="N", help="data: batches of a repeat (default 64)")
    parser.add_argument("--input", nargs="+", default=[], metavar="GLOB", help="prepare: files or quoted patterns")
    parser.add_argument("--workers", type=int, metavar="N", help="prepare: number of processes (default: one per core)")
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="checkpoint: an empty folder to save in, local or gs:// (default: a temporary one)",
    )
    size_flags.add_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    slow = args.what in ("prepare", "checkpoint")
    args.warm_up = (1 if slow else 3) if args.warm_up is None else args.warm_up
    args.repeats = (5 if slow else 20) if args.repeats is None else args.repeats
    if args.batches < 1:
        raise UserError(f"--batches={args.batches}: wanted 1 or more")
    timings, rates, machine = BENCHES[args.what](args)
    for name, timing in timings.items():
        say(f"{name}: {timing}")
    for name, value in rates.items():
        say(f"{name}: {value:,.4g}" if isinstance(value, float) else f"{name}: {value:,}")
    say("on " + json.dumps(machine))
    if args.profile:
        say(f"profile: tensorboard --logdir {args.profile}")
    return (
        {"bench": args.what, "seconds": {name: timing.to_json() for name, timing in timings.items()}}
        | rates
        | {"machine": machine}
    )


def _step(args: argparse.Namespace) -> tuple[Any, ...]:
    from electramed_jax.bench import bench

    timing, rates = bench.bench_step(_config(args), **_repeat_options(args))
    return {"step": timing}, rates, bench.machine_info()


def _data(args: argparse.Namespace) -> tuple[Any, ...]:
    from electramed_jax.bench import bench
    from electramed_jax.config import pretrain as config_lib
    from electramed_jax.pretrain import loop

    config, _ = loop.resolve_with_dataset(config_lib.from_flags(args.settings))
    timing, rates = bench.bench_data(config, batches=args.batches, **_repeat_options(args))
    return {"data": timing}, rates, bench.machine_info()


def _checkpoint(args: argparse.Namespace) -> tuple[Any, ...]:
    from electramed_jax.bench import bench

    if args.output and files.exists(args.output) and (not files.is_dir(args.output) or files.list_dir(args.output)):
        raise UserError(f"--output={args.output}: exists and is not empty; name an empty or a new folder")
    config = _config(args)
    with tempfile.TemporaryDirectory() as temporary:
        timings, rates = bench.bench_checkpoint(config, args.output or temporary, **_repeat_options(args))
    return timings, rates, bench.machine_info()


def _prepare(args: argparse.Namespace) -> tuple[Any, ...]:
    from electramed_jax.bench import bench
    from electramed_jax.common.timing import benchmark, time_call
    from electramed_jax.data.corpus import corpus_dir
    from electramed_jax.data.corpus.build import prepare
    from electramed_jax.data.corpus.filtering import FilterConfig

    if not args.input:
        raise UserError("prepare needs --input: files or quoted patterns; see electramed prepare --help")
    if args.profile:
        raise UserError("--profile does not work with prepare, which runs in a process pool; omit it")

    info: dict[str, Any] = {}

    def timed_run() -> float:
        with tempfile.TemporaryDirectory() as output:
            seconds = time_call(
                lambda: prepare(args.input, output, FilterConfig(validation=0, test=0), workers=args.workers)
            )
            info.update(corpus_dir.read_documents_info(output))
        return seconds

    timing = benchmark(timed_run, warm_up=args.warm_up, repeats=args.repeats)
    documents, num_bytes = (sum(split[name] for split in info["splits"].values()) for name in ("documents", "bytes"))
    rates = {
        "documents": documents,
        "documents_per_second": documents / timing.median,
        "text_bytes_per_second": num_bytes / timing.median,
    }
    return {"prepare": timing}, rates, bench.machine_info()


def _config(args: argparse.Namespace) -> Any:
    from electramed_jax.config import pretrain as config_lib
    from electramed_jax.data.dataset import synthetic_loader

    return size_flags.resolve(config_lib.from_flags(args.settings), args, synthetic_loader.SPECIAL)


def _repeat_options(args: argparse.Namespace) -> dict[str, Any]:
    return {"warm_up": args.warm_up, "repeats": args.repeats, "profile": args.profile}


BENCHES = {"step": _step, "data": _data, "prepare": _prepare, "checkpoint": _checkpoint}
