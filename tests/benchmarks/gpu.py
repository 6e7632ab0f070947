"""Times a training step on one GPU against transformers' ELECTRA pair on PyTorch, on the same rows. Some minutes.

    pip install -e .[cuda,parity]
    python tests/benchmarks/gpu.py [--ahead]          # base at T=512, then small at T=128
    python tests/benchmarks/gpu.py --cpu_check        # the same code, tiny, on a CPU: its times mean nothing

For each size it prints, of every contender: milliseconds a step (median and quartiles of interleaved rounds of
`--steps` steps each), non-pad tokens a second, model FLOPs utilization (electramed_jax.model.flops over the data
sheet's dense bfloat16 peak), and the ratio of our best to it. Targets: utilization of base at least 0.50, and 1.3 times
the best of the peers. --ahead compiles the peers at the same time in their own processes, into caches: it
needs the memory of all of them.

Contenders compute in bfloat16 (the peers by autocast), with --dropout and --attention_dropout. Peers attend to the
whole row: less work for them than a mask of documents would be.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # torch needs its share of the memory
os.environ["JAX_PLATFORMS"] = "cpu" if "--cpu_check" in sys.argv else "cuda"

import jax
import numpy as np
import side_by_side
from side_by_side import quartiles, ratios

from electramed_jax.config.pretrain import ALL_KERNELS, Config
from electramed_jax.model import flops

CPU_CHECK = "--cpu_check" in sys.argv
SIZES = {"tiny": ("tiny", 4, 32)} if CPU_CHECK else {"base": ("base", 64, 512), "small": ("small", 512, 128)}
OURS = {  # preset, rows, T above; settings of the model here
    "ours, kernels": {"kernels": ALL_KERNELS, "remat": "none", "scan_layers": False},
    "ours, no kernels": {"kernels": "none", "remat": "none", "scan_layers": False},
}
PEERS = {
    "torch eager": dict(attention="eager"),
    "torch sdpa": dict(),
    "torch eager, compiled": dict(attention="eager", compiled=True),
    "torch sdpa, compiled": dict(compiled=True),
}


def contender(name: str, size: str, args: argparse.Namespace) -> side_by_side.Step:
    config, rows = sized(size, args), rows_of(size, args)
    if name in OURS:
        return side_by_side.our_step(sized(size, args, **OURS[name]), rows)
    import torch_pair

    device = "cpu" if CPU_CHECK else "cuda"
    return torch_pair.stepper(config, np.asarray(rows["input_ids"]), device=device, bfloat16=True, **PEERS[name])


def sized(size: str, args: argparse.Namespace, **settings: object) -> Config:
    common = dict(compute_dtype="bfloat16", attention_dropout=args.attention_dropout, dropout=args.dropout)
    preset, rows, length = SIZES[size]
    return side_by_side.sized(preset, args.rows or rows, length, **common | settings)


def rows_of(size: str, args: argparse.Namespace) -> dict[str, jax.Array]:
    return side_by_side.random_batch(sized(size, args))


def compiled_ahead(sizes: list[str], names: list[str], args: argparse.Namespace) -> list[subprocess.Popen]:
    return [
        subprocess.Popen([sys.executable, *sys.argv, "--only", size, "--contenders", name, "--rounds", "0"])
        for size in sizes
        for name in names
        if PEERS.get(name, {}).get("compiled")
    ]


def warmed(size: str, names: list[str], args: argparse.Namespace) -> dict[str, side_by_side.Step]:
    """Returns the contenders after their first steps; prints why one cannot run here (memory, compiler) and omits it."""
    steps = {}
    for name in names:
        try:
            step = contender(name, size, args)
            side_by_side.warm(f"{size}, {name}", step)
        except Exception as error:  # noqa: BLE001 - any failure of a peer is printed
            print(f"{size}, {name}: omitted: {str(error).splitlines()[0][:200]}", flush=True)
        else:
            steps[name] = step
    return steps


def compare(size: str, steps: dict[str, side_by_side.Step], args: argparse.Namespace, peak: float | None) -> None:
    wall, _ = side_by_side.rounds(steps, args.rounds, args.steps)
    medians = {name: statistics.median(seconds) for name, seconds in wall.items()}
    best = min((name for name in steps if name in OURS), key=medians.get)
    config, rows = sized(size, args), np.asarray(rows_of(size, args)["input_ids"])
    tokens, work = int((rows != config.data.special.pad).sum()), flops.train_step_flops(config)
    print(f"\n{size}, T={rows.shape[1]}, {len(rows)} rows, {tokens:,} tokens a step; {best} is our best")
    print(f"{'':26}{'ms a step':>30}{'tokens/s':>12}{'MFU':>8}   it / our best")
    for name in steps:
        milliseconds = quartiles([1e3 * seconds for seconds in wall[name]])
        utilisation = f"{work / medians[name] / peak:8.3f}" if peak else f"{'-':>8}"
        ratio = quartiles(ratios(wall, name, best))
        print(f"{name:26}{milliseconds:>30}{tokens / medians[name]:12,.0f}{utilisation}   {ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu_check", action="store_true")
    parser.add_argument("--ahead", action="store_true", help="compile the peers in other processes meanwhile")
    parser.add_argument("--rounds", type=int, default=10, help="0: compile only")
    parser.add_argument("--steps", type=int, default=8, help="of a contender in a round")
    parser.add_argument("--rows", type=int, help="of a batch, instead of 64 and 512")
    parser.add_argument("--dropout", type=float, default=0.1, help="of hidden states")
    parser.add_argument("--attention_dropout", type=float, default=0.0)
    parser.add_argument("--only", choices=[*SIZES], help="one size")
    parser.add_argument("--contenders", nargs="+", choices=[*OURS, *PEERS], default=[*OURS, *PEERS])
    args = parser.parse_args()

    device = jax.devices()[0]
    if device.platform != ("cpu" if CPU_CHECK else "gpu"):
        sys.exit(f"on {device.device_kind}: wanted a GPU; --cpu_check tries the code on a CPU")
    peak = flops.peak_flops(device.device_kind)
    print(f"{device.device_kind}, peak {peak}, jax {jax.__version__}, rounds {args.rounds}")
    sizes = [args.only] if args.only else [*SIZES]
    ours, peers = ([name for name in args.contenders if name in group] for group in (OURS, PEERS))
    ahead = compiled_ahead(sizes, peers, args) if args.ahead and args.rounds else []
    steps = {size: warmed(size, ours, args) for size in sizes}
    for process in ahead:
        process.wait()
    for size in sizes:
        steps[size] |= warmed(size, peers, args)
        if args.rounds:
            compare(size, steps.pop(size), args, peak)


if __name__ == "__main__":
    main()
