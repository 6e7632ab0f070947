"""`electramed doctor`: checks this machine for a run and prints the command that fixes each problem."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from electramed_jax.common.errors import EXIT_DONE, EXIT_USER_ERROR

HELP = """Checks what a run needs on this machine: versions, devices, memory, storage, clocks, the network to the other
hosts. Prints one line per check and, for a problem, the command that fixes it. Exits with 2 if a check fails.

  electramed doctor
  electramed doctor --workdir=gs://bucket/runs/base --data=gs://bucket/packed
  electramed doctor --workdir=gs://bucket/runs/base --multihost      # on every host at once
  electramed doctor --multihost --config=configs/electramed_base.py --data=gs://bucket/packed

--multihost compares the hosts as a run does before its first step: settings of --config, packages, code, dataset of
--data, devices, clocks."""
TAKES_CONFIG = "pretrain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", metavar="DIR", help="check that this folder can be written: writes and removes a small file"
    )
    parser.add_argument("--data", metavar="DIR", help="check this packed folder, or several separated by commas")
    parser.add_argument(
        "--multihost",
        "--together",
        dest="multihost",
        action="store_true",
        help="connect to the other processes of the run and check all of them; start it on every host",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common import console
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.processes import distributed, health

    if args.settings and not args.multihost:
        raise UserError("--config is compared between hosts; add --multihost, or leave it out")
    if args.multihost:
        with distributed.distributed_context():
            checks = [*_check_host(args), *health.check_processes(args.workdir, _fields(args))]
            is_main = distributed.is_main()
    else:
        checks, is_main = _check_host(args), True
    for check in checks:
        if check.state == health.WRONG:
            console.fail(str(check))
        elif check.state == health.WARNING:
            console.warn(str(check))
        elif is_main:
            console.say(str(check))
    wrong = [check for check in checks if check.state == health.WRONG]
    return {
        "checks": [check.to_json() for check in checks],
        "wrong": [check.name for check in wrong],
        "exit_code": EXIT_USER_ERROR if wrong else EXIT_DONE,
        "is_worker": not is_main,
    }


def _fields(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what the processes of a run must agree on, by name."""
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.processes import agreement
    from electramed_jax.config import pretrain as config_lib
    from electramed_jax.data.dataset import dataset
    from electramed_jax.pretrain import inputs

    fields: dict[str, Any] = {"--workdir": args.workdir}
    opened = None
    if args.data:
        with contextlib.suppress(UserError):  # reported by the check of the dataset
            opened = dataset.open_dataset(args.data)
    if args.settings:
        fields |= inputs.run_fields(config_lib.from_flags(args.settings), opened)
    elif opened is not None:
        fields["dataset"] = opened.fingerprint()
    return fields | agreement.environment_fields()


def _check_host(args: argparse.Namespace) -> list[Any]:
    """Returns the `health.Check`s that need no other process."""
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
    if devices.state != health.WRONG:
        checks += _check_kernels()
    if args.workdir:
        checks += health.check_storage(args.workdir)
    if args.data:
        checks.append(_check_dataset(args.data))
    return checks


def _check_kernels() -> list[Any]:
    """Returns one `health.Check` for each kernel that a run of ELECTRA-Base would use, or why it would use none."""
    from electramed_jax.commands.size_flags import SCIVOCAB
    from electramed_jax.common.processes import health
    from electramed_jax.config import pretrain as config_lib
    from electramed_jax.config.presets import PRESETS
    from electramed_jax.model.automatic import choose
    from electramed_jax.model.kernel_check import check_kernels
    from electramed_jax.pretrain.automatic import detect_devices

    base = PRESETS["base"]
    config = config_lib.resolve(base, vocab_size=SCIVOCAB, max_seq_length=512, special=base.data.special)
    choice = choose(config, detect_devices())
    if choice.config.model.kernels == "none":
        return [health.Check("kernels", health.OK, f"none: {choice.reasons['model.kernels']}")]
    fix = "a run uses the plain form instead; try another version of jax or of the device's driver"
    return [
        health.Check("kernels", health.OK if one.is_equal else health.WARNING, str(one), "" if one.is_equal else fix)
        for one in check_kernels(choice.config.model, config.data.max_seq_length, rows=8)
    ]


def _check_dataset(directory: str) -> Any:
    """Returns a `health.Check` that the shards of a packed dataset exist with the sizes of its manifest."""
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.processes import health
    from electramed_jax.data.dataset import dataset

    try:
        manifest = dataset.open_dataset(directory).manifest
    except UserError as error:
        detail, _, fix = str(error).rpartition("; ")
        return health.Check("dataset", health.WRONG, detail, fix)
    train = manifest.splits["train"]
    return health.Check("dataset", health.OK, f"{directory}: {train.rows:,} training rows of {manifest.row_length}")
