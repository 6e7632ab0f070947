"""Measures the cost of a token as the width, the rows, the batch or the number of chips grow, with fitted exponents.

    python tests/benchmarks/growth.py                            # what the compiled programs hold; some minutes
    python tests/benchmarks/growth.py --estimate                 # and the compiler's estimate of time; longer
    python tests/benchmarks/growth.py --measure                  # and a step timed on this machine's CPU, on one device
    python tests/benchmarks/growth.py --only width --plot growth.png

Each series changes one size of a two-layer model (width 256, rows of 128 tokens, 32 rows a chip, 4 chips) and keeps the
others. Columns, all but memory by the token of the batch: the model's operations, counted from its sizes; the
program's, of all chips; bytes a chip exchanges in a step, over the tokens of that chip; HBM of a chip at the peak, over
its tokens; time of all chips, as the compiler estimates it; time of a CPU step, measured. Then, of each series, the
exponents of the power laws that fit best: the program's is to be the model's, and nothing is to grow with the batch or
the chips. The plot shows each column over its first value.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BASE = {"width": 256, "tokens": 128, "rows": 32, "chips": 4}
SERIES = {
    "width": (128, 256, 512, 1024),
    "tokens": (64, 128, 256, 512),
    "rows": (8, 32, 128),
    "chips": (4, 16, 64, 256),
}
TOPOLOGY = {4: "v5e:2x2", 16: "v5e:4x4", 64: "v5e:8x8", 256: "v5e:16x16"}
COLUMNS = {
    "model": "model, operations",
    "program": "program, operations",
    "exchanged": "exchanged, bytes",
    "memory": "memory, bytes",
    "estimate": "estimate, chip-ns",
    "cpu": "CPU, ns",
}


def settings(width: int, tokens: int) -> list[str]:
    """Of a model of this width, its generator a quarter as wide."""
    model = dict(
        num_layers=2, generator_num_layers=2, embedding_size=128, compute_dtype="bfloat16", dropout=0.0,
        attention_dropout=0.0, hidden_size=width, num_heads=width // 64, intermediate_size=4 * width,
        generator_hidden_size=width // 4, generator_num_heads=max(1, width // 256), generator_intermediate_size=width,
    )  # fmt: skip
    return [f"--config.model.{name}={value}" for name, value in model.items()] + [f"--max_seq_length={tokens}"]


def electramed(command: list[str], **environment: str) -> dict:
    """Returns the JSON of the command; raises with its message if there is none."""
    done = subprocess.run(
        [sys.executable, "-m", "electramed_jax.cli", *command, "--config=pretrain_tiny", "--json"],
        check=False, capture_output=True, text=True, cwd=REPOSITORY, env=os.environ | environment,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def costs(size: dict[str, int], *, estimate: bool, measure: bool) -> dict[str, float]:
    """Returns the costs of a token at one size."""
    width, tokens, rows, chips = size["width"], size["tokens"], size["rows"], size["chips"]
    sizes = settings(width, tokens)
    command = ["compile", f"--topology={TOPOLOGY[chips]}", f"--batch={rows}", *sizes]
    found = electramed(command + ([] if estimate else ["--quick"]))
    of_chip = rows * tokens
    cost = {
        "model": found["model_flops"] / of_chip,
        "program": found["program_flops"] / of_chip,
        "exchanged": sum(one["bytes"] for one in found["collectives"].values()) / of_chip,
        "memory": found["peak_bytes"] / of_chip,
    }
    if estimate:
        cost["estimate"] = found["estimated_step_seconds"] * 1e9 / of_chip
    if measure and chips == BASE["chips"]:  # the CPU is one device; its batch is a chip's
        timed = electramed(
            ["bench", "step", f"--config.batch_size={rows}", "--warm_up=1", "--repeats=5", *sizes], JAX_PLATFORMS="cpu"
        )
        cost["cpu"] = timed["seconds"]["step"]["median"] * 1e9 / of_chip
    return cost


def exponent(sizes: list[int], values: list[float]) -> float:
    """Returns the exponent of the best power law; nan if there is none to fit."""
    if len(values) < 2 or min(values) <= 0:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def known_of_all(found: list[dict[str, float]]) -> list[str]:
    """The columns of a series: a CPU's step is not one of many chips."""
    return [column for column in COLUMNS if all(column in cost for cost in found)]


def table(name: str, sizes: list[int], found: list[dict[str, float]]) -> list[str]:
    columns = known_of_all(found)
    lines = [f"| {name} | {' | '.join(COLUMNS[column] for column in columns)} |", "|" + "---|" * (len(columns) + 1)]
    for size, cost in zip(sizes, found, strict=True):
        lines.append(f"| {size:,} | {' | '.join(f'{cost[column]:,.4g}' for column in columns)} |")
    fitted = (exponent(sizes, [cost[column] for cost in found]) for column in columns)
    return [*lines, f"| exponent | {' | '.join(f'{one:+.2f}' for one in fitted)} |"]


def plot(path: str, series: dict[str, tuple[list[int], list[dict[str, float]]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(series), figsize=(4 * len(series), 4), squeeze=False, sharey=True)
    for panel, (name, (sizes, found)) in zip(panels[0], series.items(), strict=True):
        for column in known_of_all(found):
            values = [cost[column] / found[0][column] if found[0][column] else math.nan for cost in found]
            panel.loglog(sizes, values, marker="o", label=COLUMNS[column])
        panel.set_xlabel(name)
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.minorticks_off()
        panel.grid(visible=True, alpha=0.3)
    panels[0, 0].set_ylabel("cost of a token, over the first")
    panels[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(SERIES), help="one series")
    parser.add_argument("--estimate", action="store_true", help="compile in full, for an estimate of time")
    parser.add_argument("--measure", action="store_true", help="time steps on this machine's CPU, too")
    parser.add_argument("--plot", metavar="FILE.png", help="also draw them")
    args = parser.parse_args()
    known: dict[tuple[int, ...], dict[str, float]] = {}
    series = {}
    for name in [args.only] if args.only else SERIES:
        for value in SERIES[name]:
            size = BASE | {name: value}
            if tuple(size.values()) not in known:
                print(f"compiling {size}", file=sys.stderr, flush=True)
                known[tuple(size.values())] = costs(size, estimate=args.estimate, measure=args.measure)
        found = [known[tuple((BASE | {name: value}).values())] for value in SERIES[name]]
        series[name] = (list(SERIES[name]), found)
        print("\n".join([*table(name, *series[name]), ""]), flush=True)
    if args.plot:
        plot(args.plot, series)


if __name__ == "__main__":
    main()
