"""`electramed compile`: does the train step fit on a TPU pod, and how fast will it be, with no TPU at hand."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from electramed_jax.commands import size_flags
from electramed_jax.common.console import say
from electramed_jax.common.errors import EXIT_DONE, EXIT_USER_ERROR, UserError

HELP = """Compiles the real train step for a TPU topology, on any machine, and says whether it fits, what it
computes and exchanges, and how long the compiler reckons it takes. Needs pip install 'electramed_jax[tpu]'.

  electramed compile --config=configs/pretrain_base.py --topology=v5e:4x4
  electramed compile --config=configs/pretrain_base.py --topology=v5e:4x4 --find_batch

Topologies are a generation (v4, v5e, v5p, v6e) and the chips along each side of the torus. Exits with 2 where the
step doesn't fit, or parameters are whole on every chip that an axis of the mesh could split."""
TAKES_CONFIG = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--topology", required=True, help="what to compile for: v5e:4x4, v5p:2x2x4, ...")
    parser.add_argument("--num_slices", type=int, default=1, help="so many of them, joined by the slower network")
    parser.add_argument("--batch", type=int, help="rows for each chip (for each mesh.tensor chips); default: config")
    parser.add_argument("--find_batch", action="store_true", help="look for the largest batch that fits, and take it")
    parser.add_argument("--quick", action="store_true", help="no estimate of time, in a quarter of the time")
    size_flags.add_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.aot import chips
    from electramed_jax.aot.bundle_sizes import BundleSizes
    from electramed_jax.config import pretrain as config_lib

    config = config_lib.from_flags(args.settings)
    # To write them down takes libtpu a quarter of the time, and only kernels are counted by them.
    bundle_sizes = BundleSizes() if config.model.kernels == "auto" and not args.quick else None
    chips.prepare_environment(bundle_sizes.flags if bundle_sizes else "")
    from electramed_jax.aot import compile, report
    from electramed_jax.training import sharding

    config = size_flags.resolve(config, args)
    topology = compile.get_topology(args.topology, args.num_slices)
    mesh = sharding.make_mesh(config.mesh, topology.devices)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if args.batch is not None:
        if args.batch < 1:
            raise UserError(f"batch={args.batch}: wanted 1 row a chip or more")
        config = dataclasses.replace(config, batch_size=args.batch * shards)
    say(f"compiling for {report.topology_line(topology, dict(mesh.shape))}; a minute or two for base")
    if args.find_batch:
        compiled = compile.find_batch(
            config,
            topology,
            quick=args.quick,
            bundle_sizes=bundle_sizes,
            on_attempt=lambda compiled: say(report.attempt_line(compiled)),
        )
    else:
        compiled = compile.compile_step(config, topology, quick=args.quick, bundle_sizes=bundle_sizes)
    estimate = compile.estimate_time(compiled) if compiled.fits and not args.quick else None
    for line in report.report_lines(compiled, estimate):
        say(line)
    is_good = compiled.fits and compiled.unsharded_fraction <= compile.MAX_UNSHARDED_FRACTION
    return report.to_json(compiled, estimate) | {"exit_code": EXIT_DONE if is_good else EXIT_USER_ERROR}
