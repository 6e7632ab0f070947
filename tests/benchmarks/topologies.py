"""Prints the table of topologies: memory, operations, communication and estimated time of each config on TPUs.

    python tests/benchmarks/topologies.py                     # every row: about two minutes each on two cores
    python tests/benchmarks/topologies.py --only base --quick # a part of it, without estimates of time

Each row is one `electramed compile` (the command is in the last column), in a process of its own. Peak: HBM of a device
(a chip; on tpu7x one of its two cores), of what a program may use. Operations: the program's over the model's; above 1
is recomputation. Collectives: bytes of a device and step. Step and utilization are the compiler's estimates; nothing is
run.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
GIB = 2**30
ROWS = [
    ("pretrain_tiny", "--topology=v5e:2x2 --max_seq_length=128"),
    ("pretrain_small", "--topology=v5e:2x2 --max_seq_length=128"),
    ("pretrain_small", "--topology=v5e:4x4 --max_seq_length=128"),
    ("electramed_base", "--topology=v5e:4x4"),
    ("electramed_base", "--topology=v5e:8x8"),
    ("electramed_base", "--topology=v5e:8x8 --batch=16"),
    ("electramed_base", "--topology=v5e:16x16"),
    ("electramed_base", "--topology=v5e:16x16 --batch=16"),
    ("electramed_base", "--topology=v5e:4x4 --num_slices=2 --batch=16"),
    ("electramed_base", "--topology=v4:2x2x4"),
    ("electramed_base", "--topology=v5p:2x2x4"),
    ("electramed_base", "--topology=v6e:4x4"),
    ("electramed_base", "--topology=tpu7x:2x2x4"),
    ("pretrain_large", "--topology=v5p:4x4x8"),
    ("pretrain_large", "--topology=v5e:16x16"),
    ("electramed_base", "--topology=v5e:4x4 --config.model.dropout=0 --config.model.attention_dropout=0"),
    ("electramed_base", "--topology=v5e:4x4 --config.model.remat=dots --config.model.scan_layers=True"),
    (
        "electramed_base",
        "--topology=v5e:4x4 --config.model.kernels=none --config.model.remat=full --config.model.scan_layers=True "
        "--config.mesh.fsdp=1",
    ),
    ("electramed_base", "--topology=v5e:4x4 --find_batch"),
]


def compiled(config: str, arguments: list[str]) -> tuple[dict | None, str]:
    """Returns the JSON of the command or None, and its standard error."""
    command = [sys.executable, "-m", "electramed_jax.cli", "compile", f"--config=configs/{config}.py", "--json"]
    done = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True, cwd=REPOSITORY)
    return (json.loads(done.stdout) if done.stdout else None), done.stderr


def row(config: str, arguments: list[str], result: dict) -> str:
    peak, available = result["peak_bytes"] / GIB, result["available_bytes"] / GIB
    moved = sum(one["bytes"] for one in result.get("collectives", {}).values()) / 1e6
    step, part = result.get("estimated_step_seconds"), result.get("estimated_utilization")
    columns = [
        config.removeprefix("pretrain_"),
        f"{result['num_slices']} x {result['topology']}" if result["num_slices"] > 1 else result["topology"],
        f"{result['devices']}",
        "{data} x {fsdp} x {tensor}".format(**result["mesh"]),
        f"{result['batch_size']:,} ({result['rows_per_chip']:g})",
        f"{peak:.2f} of {available:.2f}" + ("" if result["fits"] else " DOES NOT FIT"),
        f"{result['program_flops'] / result['model_flops']:.2f}" if result["fits"] else "",
        f"{moved:,.0f}" if result["fits"] else "",
        f"{step * 1e3:,.1f}" if step else "",
        f"{part:.1%}" if part else "",
        f"{result['compile_seconds']:.0f}",
        f"`{' '.join(arguments)}`",
    ]
    return f"| {' | '.join(columns)} |"


HEADER = (
    "| config | topology | devices | data x fsdp x tensor | batch (a chip) | peak, GiB | operations | collectives, MB "
    "| step, ms | utilization | compiled in, s | arguments |\n|" + "---|" * 12
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only rows with this text in their config or arguments")
    parser.add_argument("--quick", action="store_true", help="no estimates of time")
    args = parser.parse_args()
    print(HEADER, flush=True)
    failed = 0
    for config, settings in ROWS:
        if args.only not in f"{config} {settings}":
            continue
        arguments = settings.split() + ["--quick"] * args.quick
        result, output = compiled(config, arguments)
        if result is None:
            print(output, file=sys.stderr)
        else:
            print(row(config, settings.split(), result), flush=True)
        failed += result is None or not result["fits"]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
