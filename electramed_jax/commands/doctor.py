"""`electramed doctor`: what is wrong with this machine, and the command that mends it."""

from __future__ import annotations

import argparse
from typing import Any

from electramed_jax.common.errors import EXIT_DONE, EXIT_USER_ERROR

HELP = """Looks at what a run needs: versions, devices, memory, storage, clocks, the way to the other hosts. Each
line says what was found and, where it is not well, the command that mends it. Exits with 2 where something is wrong.

  electramed doctor
  electramed doctor --workdir=gs://bucket/runs/base --data=gs://bucket/packed
  electramed doctor --workdir=gs://bucket/runs/base --multihost       # on every host at once"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", help="a folder that runs will write to; a small file is written and removed")
    parser.add_argument("--data", help="packed folder, or several with commas between, to read")
    parser.add_argument(
        "--multihost",
        "--together",
        dest="multihost",
        action="store_true",
        help="connect to the other processes of the run and check all of them; start it on every host",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common import console
    from electramed_jax.common.processes import distributed, health

    if args.multihost:
        with distributed.distributed_context():
            checks = [*_alone(args), *health.check_processes(args.workdir)]
            told = distributed.is_main()
    else:
        checks, told = _alone(args), True
    for check in checks:
        if check.state == health.WRONG:
            console.fail(str(check))
        elif check.state == health.WARNING:
            console.warn(str(check))
        elif told:
            console.say(str(check))
    wrong = [check for check in checks if check.state == health.WRONG]
    return {
        "checks": [check.to_json() for check in checks],
        "wrong": [check.name for check in wrong],
        "exit_code": EXIT_USER_ERROR if wrong else EXIT_DONE,
        "is_worker": not told,
    }


def _alone(args: argparse.Namespace) -> list[Any]:
    """What one process can find out."""
    import jax
    from jax._src import hardware_utils

    from electramed_jax.common.processes import health

    devices = health.check_devices()
    checks = [
        health.check_python(),
        health.check_packages(),
        health.check_jaxlib(),
        devices,
        *([health.check_device_memory(jax.local_devices()[0])] if devices.state != health.WRONG else []),
        health.check_libtpu(hardware_utils.num_available_tpu_chips_and_device_id()[0]),
        health.check_memory(),
        health.check_coordinator(),
    ]
    if args.workdir:
        checks += health.check_storage(args.workdir)
    if args.data:
        checks.append(_dataset(args.data))
    return checks


def _dataset(directory: str) -> Any:
    """Whether a packed dataset is whole, by the sizes of its files."""
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.processes import health
    from electramed_jax.data.dataset import dataset

    try:
        manifest = dataset.open_dataset(directory).manifest
    except UserError as error:
        found, _, mend = str(error).rpartition("; ")
        return health.Check("dataset", health.WRONG, found, mend)
    train = manifest.splits["train"]
    return health.Check("dataset", health.OK, f"{directory}: {train.rows:,} training rows of {manifest.row_length}")
