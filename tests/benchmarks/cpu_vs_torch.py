"""Times a training step on the CPU against transformers' ELECTRA pair on PyTorch, interleaved in one process.

    pip install -e .[parity]
    python tests/benchmarks/cpu_vs_torch.py [--rounds 10] [--only ours "eager float32"] [--batch_size 32]

ELECTRA-small, rows of 128 tokens, batch 32, dropout 0.1, a vocabulary of 31,090, random packed rows. Each round runs
one step of every contender, so that a busy machine affects all of them. A ratio is that of one round; the table
has the median and the quartiles of the rounds. Processor seconds (user and system, all threads) are a second measure.
torch's threads wait actively, so on a busy machine its processor seconds are too high. `compiled` is
torch.compile (needs a C++ compiler). See torch_pair.py for what the peer does.
"""

from __future__ import annotations

import argparse
import os

os.environ["JAX_PLATFORMS"] = "cpu"

import numpy as np
import side_by_side
from side_by_side import quartiles, ratios

FLOAT32 = {"compute_dtype": "float32"}
OURS = {  # settings that are not named here are those that a run on this machine chooses
    "ours": FLOAT32,
    "ours, remat none": FLOAT32 | {"remat": "none"},
    "ours, remat dots": FLOAT32 | {"remat": "dots"},
    "ours, remat full": FLOAT32 | {"remat": "full"},
    "ours, bfloat16": {"compute_dtype": "bfloat16"},
    "ours, no dropout": FLOAT32 | {"dropout": 0.0, "attention_dropout": 0.0},
}
PEERS = {
    "eager float32": dict(attention="eager"),
    "sdpa float32": dict(),
    "sdpa bfloat16": dict(bfloat16=True),
    "compiled float32": dict(compiled=True),
    "compiled bfloat16": dict(bfloat16=True, compiled=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=[*OURS, *PEERS], default=["ours", *PEERS])
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--max_seq_length", type=int, default=128)
    args = parser.parse_args()

    sizes = ("small", args.batch_size, args.max_seq_length)
    config = side_by_side.sized(*sizes)
    batch, steps = side_by_side.random_batch(config), {}
    for name in args.only:
        if name in OURS:
            steps[name] = side_by_side.our_step(side_by_side.sized(*sizes, **OURS[name]), batch)
        else:
            import torch_pair

            steps[name] = torch_pair.stepper(config, np.asarray(batch["input_ids"]), device="cpu", **PEERS[name])
        side_by_side.warm(name, steps[name])
    wall, processor = side_by_side.rounds(steps, args.rounds)
    first = args.only[0]
    print(f"{'':20}{'wall s':>24}{'processor s':>26}   {first} / it: wall, processor (median, quartiles of rounds)")
    for name in steps:
        columns = [quartiles(ratios(seconds, first, name)) for seconds in (wall, processor)]
        print(f"{name:20}{quartiles(wall[name]):>24}{quartiles(processor[name]):>26}   {columns[0]}  {columns[1]}")


if __name__ == "__main__":
    main()
