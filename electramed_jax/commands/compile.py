"""`electramed compile`: compiles the train step for a TPU topology without a TPU."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from electramed_jax.commands import size_flags
from electramed_jax.common.console import say
from electramed_jax.common.errors import EXIT_DONE, EXIT_USER_ERROR, UserError

HELP = """Compiles the train step of a run for a TPU topology, on any machine. Prints memory, operations, communication
and the time of a step as the compiler estimates it. Needs pip install 'electramed_jax[tpu]'.

  electramed compile --config=pretrain_base --topology=v5e:4x4
  electramed compile --config=pretrain_base --topology=v5e:4x4 --find_batch

A topology is a generation (v4, v5e, v5p, v6e, tpu7x) and the number of chips along each side of the torus. A chip of
tpu7x is two devices: "per chip" then means per device. Exits with 2 if the step does not fit, or if parameters that a
mesh axis could shard are replicated on every chip."""
TAKES_CONFIG = "pretrain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--topology", required=True, help="generation and shape: v5e:4x4, v5p:2x2x4, ...")
    parser.add_argument(
        "--num_slices", type=int, default=1, metavar="N", help="slices connected by the data-center network (default 1)"
    )
    parser.add_argument(
        "--batch", type=int, metavar="N", help="rows a chip, or a group of mesh.tensor chips (default: the config's)"
    )
    parser.add_argument("--find_batch", action="store_true", help="search for the largest batch that fits, and use it")
    parser.add_argument("--quick", action="store_true", help="omit the estimate of time: takes a quarter of the time")
    size_flags.add_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.aot import chips
    from electramed_jax.aot.bundle_sizes import BundleSizes
    from electramed_jax.config import pretrain as config_lib

    config = config_lib.from_flags(args.settings)
    # libtpu needs a quarter of the compile time to dump its schedules. Only the estimate of kernels reads them.
    bundle_sizes = BundleSizes() if config.model.kernels != "none" and not args.quick else None
    chips.prepare_environment(bundle_sizes.flags if bundle_sizes else "")
    from electramed_jax.aot import compile, report
    from electramed_jax.model import automatic
    from electramed_jax.training import sharding

    topology = compile.get_topology(args.topology, args.num_slices)
    choice = automatic.choose(size_flags.resolve(config, args), topology.describe_devices())
    config = choice.config
    mesh = sharding.make_mesh(config.mesh, topology.devices)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if args.batch is not None:
        if args.batch < 1:
            raise UserError(f"--batch={args.batch}: wanted 1 row a chip or more")
        config = dataclasses.replace(config, batch_size=args.batch * shards)
        choice = dataclasses.replace(choice, config=config)
    say(f"compiling for {report.topology_line(topology, dict(mesh.shape))}; a minute or two for base")
    if args.find_batch:
        if "model.remat" in choice.reasons:
            choice = choice.replace("model.remat", "full", "the form that needs the least memory, for --find_batch")
        compiled = compile.find_batch(
            choice.config,
            topology,
            quick=args.quick,
            bundle_sizes=bundle_sizes,
            on_attempt=lambda compiled: say(report.attempt_line(compiled)),
        )
    else:
        choice, compiled = compile.compile_fastest_form(choice, topology, quick=args.quick, bundle_sizes=bundle_sizes)
    for line in choice.lines():
        say(f"automatic setting {line}")
    estimate = compile.estimate_time(compiled) if compiled.fits and not args.quick else None
    for line in report.report_lines(compiled, estimate):
        say(line)
    ok = compiled.fits and compiled.unsharded_fraction <= compile.MAX_UNSHARDED_FRACTION
    return report.to_json(compiled, estimate) | choice.to_json() | {"exit_code": EXIT_DONE if ok else EXIT_USER_ERROR}
