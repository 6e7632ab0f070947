"""Seconds a training step on the CPU: ours beside transformers' ELECTRA pair on PyTorch, in turns, in one process.

    pip install -e .[parity]
    python tests/benchmarks/cpu_vs_torch.py [--pairs 10] [--only ours "eager float32"] [--batch_size 32]

ELECTRA-small, rows of 128 tokens, batch 32, dropout 0.1, a vocabulary of 31,090, random packed rows. Each round runs
one step of every contender, so that a busy machine meets all of them; a ratio is that of one round, and the median of
rounds is told with their quartiles. Processor seconds (user and system, all threads) are the second witness.
`compiled` is torch.compile (needs a C++ compiler). See torch_pair.py for what the peer does.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import resource
import statistics
import time
from collections.abc import Callable

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

from electramed_jax import config as config_lib
from electramed_jax.data.synthetic import SyntheticLoader
from electramed_jax.training import sharding
from electramed_jax.training import state as state_lib
from electramed_jax.training import step as step_lib

VOCAB_SIZE = 31_090
SPECIAL = config_lib.SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)  # of SyntheticLoader's rows
OURS = {
    "ours": {},
    "ours, remat none": {"remat": "none"},
    "ours, remat dots": {"remat": "dots"},
    "ours bfloat16": {"compute_dtype": "bfloat16"},
    "ours without dropout": {"dropout": 0.0, "attention_dropout": 0.0},
}
PEERS = {
    "eager float32": dict(attention="eager"),
    "sdpa float32": dict(),
    "sdpa bfloat16": dict(bfloat16=True),
    "compiled bfloat16": dict(bfloat16=True, compiled=True),
}


def small(batch_size: int, row_length: int, **model: object) -> config_lib.Config:
    preset = config_lib.PRESETS["small"]
    preset = dataclasses.replace(preset, batch_size=batch_size, model=dataclasses.replace(preset.model, **model))
    return config_lib.resolve(preset, vocab_size=VOCAB_SIZE, row_length=row_length, special=SPECIAL)


def our_stepper(config: config_lib.Config, batch: dict[str, jax.Array]) -> Callable[[], float]:
    mesh = sharding.make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        state, train_step = state_lib.create(config, mesh), step_lib.jit_train_step(config, mesh)

    def step() -> float:
        nonlocal state
        with jax.set_mesh(mesh):
            state, sums = train_step(state, batch)
            return float(sums["loss_sum"])

    return step


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def timed(step: Callable[[], float]) -> tuple[float, float]:
    """Wall and processor seconds."""
    cpu, began = cpu_seconds(), time.perf_counter()
    step()
    return time.perf_counter() - began, cpu_seconds() - cpu


def quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{middle:6.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=[*OURS, *PEERS], default=["ours", *PEERS])
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--row_length", type=int, default=128)
    args = parser.parse_args()

    config = small(args.batch_size, args.row_length)
    rows = sharding.batch_sharding(sharding.make_mesh(config.mesh))
    with SyntheticLoader(args.batch_size, args.row_length, VOCAB_SIZE, 0, rows) as loader:
        batch = loader.at(0)
    steps = {}
    for name in args.only:
        if name in OURS:
            steps[name] = our_stepper(small(args.batch_size, args.row_length, **OURS[name]), batch)
        else:
            import torch_pair

            steps[name] = torch_pair.stepper(config, np.asarray(batch["input_ids"]), device="cpu", **PEERS[name])
        began = time.perf_counter()
        losses = [steps[name]() for _ in range(2)]
        print(
            f"{name}: warm after {time.perf_counter() - began:.1f} s, losses {losses[0]:.2f} {losses[1]:.2f}",
            flush=True,
        )
    wall, cpu = ({name: [] for name in steps} for _ in range(2))
    for _ in range(args.pairs):
        for name, step in steps.items():
            seconds, processor = timed(step)
            wall[name].append(seconds)
            cpu[name].append(processor)
    first = args.only[0]
    print(f"{'':24}{'wall s':>22}{'processor s':>24}   {first} / it: wall, processor (median, quartiles of rounds)")
    for name in steps:
        ratios = [quartiles([a / b for a, b in zip(of[first], of[name], strict=True)]) for of in (wall, cpu)]
        print(f"{name:24}{quartiles(wall[name]):>22}{quartiles(cpu[name]):>24}   {ratios[0]}  {ratios[1]}")


if __name__ == "__main__":
    main()
