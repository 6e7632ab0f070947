"""One GPU: ours beside transformers' ELECTRA pair on PyTorch, on the same rows, in one run meant for ten minutes.

    pip install -e .[cuda,parity]
    python tests/benchmarks/gpu.py                    # base at T=512, then small at T=128
    python tests/benchmarks/gpu.py --cpu_check        # the same code, tiny, on a CPU: no figure of it means anything

Written without a GPU at hand; no figure of a GPU has been measured with it. On a CPU, tiny, every contender has run to
the table (there, cuDNN's place is taken by the same call's plain form). Whether a run fits ten minutes is not known:
--only takes one size.

For each size it prints, of every contender: milliseconds a step (median and quartiles of interleaved rounds), non-pad
tokens a second, model FLOPs utilisation (electramed_jax.model.flops over the data sheet's dense bfloat16 peak), and the
ratio of our best to it. Wanted: utilisation of base at least 0.50, and 1.3 times the best of the peers.

Contenders compute in bfloat16 (the peers by autocast). `cudnn` is jax.nn.dot_product_attention on cuDNN's flash kernel,
told of documents by a mask; it takes no dropout on attention probabilities, so every contender goes without it here
(--attention_dropout=0.1 brings it back, and leaves cudnn out). Peers attend to the whole row: less work for them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
from collections.abc import Iterator
from unittest import mock

os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # torch needs its share of the memory
os.environ["JAX_PLATFORMS"] = "cpu" if "--cpu_check" in sys.argv else "cuda"

import jax
import numpy as np
import side_by_side
from side_by_side import quartiles, ratios

from electramed_jax.model import attention, flops

CPU_CHECK = "--cpu_check" in sys.argv
SIZES = {"base": ("base", 32, 512), "small": ("small", 128, 128)}  # preset, rows, T
TINY = {"tiny": ("tiny", 4, 32)}
OURS = {
    "ours, remat none": {"remat": "none"},
    "ours, remat full": {"remat": "full"},
    "ours, cudnn, remat none": {"remat": "none"},
    "ours, cudnn, remat full": {"remat": "full"},
}
PEERS = {
    "torch eager": dict(attention="eager"),
    "torch sdpa": dict(),
    "torch eager, compiled": dict(attention="eager", compiled=True),
    "torch sdpa, compiled": dict(compiled=True),
}


def fused_attend(q_BTNH, k_BTNH, v_BTNH, segments_BT, dtype, *, dropout_rate=0.0, key=None):
    """As attention.attend, by cuDNN's kernel."""
    assert key is None or dropout_rate == 0.0, "no dropout inside the kernel"
    same_B1TS = (segments_BT[:, :, None] == segments_BT[:, None, :])[:, None]
    kernel = "xla" if CPU_CHECK else "cudnn"
    return jax.nn.dot_product_attention(q_BTNH, k_BTNH, v_BTNH, mask=same_B1TS, implementation=kernel)


@contextlib.contextmanager
def attending_by(name: str) -> Iterator[None]:
    with mock.patch.object(attention, "attend", fused_attend) if "cudnn" in name else contextlib.nullcontext():
        yield


def compare(size: tuple[str, int, int], args: argparse.Namespace, peak: float | None) -> None:
    common = dict(compute_dtype="bfloat16", attention_dropout=args.attention_dropout, dropout=0.1)
    config = side_by_side.sized(*size, **common)
    batch = side_by_side.random_batch(config)
    rows = np.asarray(jax.device_get(batch["input_ids"]))
    steps = {}
    for name, settings in OURS.items():
        if "cudnn" in name and args.attention_dropout:
            continue
        with attending_by(name):
            step = side_by_side.our_step(side_by_side.sized(*size, **common | settings), batch)
            _enter(steps, name, step)
    import torch_pair

    for name, settings in PEERS.items():
        step = torch_pair.stepper(config, rows, device="cpu" if CPU_CHECK else "cuda", bfloat16=True, **settings)
        _enter(steps, name, step)
    wall, _ = side_by_side.rounds(steps, args.rounds)
    medians = {name: statistics.median(seconds) for name, seconds in wall.items()}
    best = min((name for name in steps if name in OURS), key=medians.get)
    tokens, work = int((rows != config.data.special.pad).sum()), flops.train_step(config)
    print(f"\n{size[0]}, T={size[2]}, {size[1]} rows, {tokens:,} tokens a step; {best} is our best")
    print(f"{'':26}{'ms a step':>30}{'tokens/s':>12}{'MFU':>8}   it / our best")
    for name in steps:
        told = quartiles([1e3 * seconds for seconds in wall[name]])
        utilisation = f"{work / medians[name] / peak:8.3f}" if peak else f"{'-':>8}"
        ratio = quartiles(ratios(wall, name, best))
        print(f"{name:26}{told:>30}{tokens / medians[name]:12,.0f}{utilisation}   {ratio}")


def _enter(steps: dict[str, side_by_side.Step], name: str, step: side_by_side.Step) -> None:
    """Warms a contender up; one that cannot run here (memory, compiler) is left out, and why is said."""
    try:
        side_by_side.warm(name, step)
    except Exception as error:
        print(f"{name}: left out: {str(error).splitlines()[0][:200]}", flush=True)
    else:
        steps[name] = step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu_check", action="store_true")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--attention_dropout", type=float, default=0.0)
    parser.add_argument("--only", choices=[*SIZES], help="one size")
    args = parser.parse_args()

    device = jax.devices()[0]
    if device.platform != ("cpu" if CPU_CHECK else "gpu"):
        sys.exit(f"on {device.device_kind}: wanted a GPU; --cpu_check tries the code on a CPU")
    peak = flops.peak_flops(device.device_kind)
    print(f"{device.device_kind}, peak {peak}, jax {jax.__version__}, rounds {args.rounds}")
    sizes = TINY if CPU_CHECK else {args.only: SIZES[args.only]} if args.only else SIZES
    for size in sizes.values():
        compare(size, args, peak)


if __name__ == "__main__":
    main()
