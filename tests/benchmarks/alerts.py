"""Triggers every alert of pretrain/alerts.py once, in real runs with one fault each, and prints the alerts.

    python tests/benchmarks/alerts.py [NAME...]

Each run trains a two-layer pair of networks on generated texts for some hundred steps. The steps before the first
check are shortened to fit (MIN_STEPS and
TRANSIENT_STEPS), the checks are unchanged. A healthy run comes first and must give no alert. About four minutes on
two cores. On a busy machine there are also alerts of a dropping throughput.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import quick

os.environ["XLA_FLAGS"] = quick.FLAGS

import numpy as np
import quick_run

from electramed_jax import cli
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.dataset import loader
from electramed_jax.data.packing import build
from electramed_jax.data.tokenizer.train_vocab import train_vocab
from electramed_jax.pretrain import alerts

SETTLED, TRANSIENT = 150, 200
WORDS, LENGTH = 60, 28
UNIFORM = {"objective__kind": "uniform"}  # replacements that stay easy to find
SIZES = dict(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=128)
SETTINGS = {
    **{f"model__{name}": value for name, value in SIZES.items()},
    **{f"model__generator_{name}": value for name, value in (SIZES | {"hidden_size": 8, "num_heads": 1}).items()},
    **dict(model__embedding_size=32, model__kernel_stddev=0.15, model__dropout=0.0, model__attention_dropout=0.0),
    **dict(optimizer__learning_rate=3e-3, optimizer__warmup_steps=50, batch_size=32),
    **dict(total_steps=600, log_every=10, eval_every=50, save_every=100),
}


def pack(folder: pathlib.Path) -> pathlib.Path:
    """Texts of two words each, of which one comes four times as often as the other.

    Soon a discriminator finds every word that is neither; in the end a generator draws none of those.
    """
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("bcdfgaeiou"), 5)) for _ in range(WORDS)]
    lines = []
    for _ in range(2500):
        pair = rng.choice(names, 2, replace=False)
        lines.append(json.dumps({"text": " ".join(rng.choice(pair, LENGTH, p=[0.8, 0.2])) + "."}))
    (folder / "text.jsonl").write_text("\n".join(lines))
    documents, vocab = str(folder / "documents"), str(folder / "vocab.txt")
    prepare([str(folder / "text.jsonl")], documents, FilterConfig(validation=0.1, test=0.0), workers=1)
    train_vocab(documents, vocab, size=300)
    build.pack(documents, vocab, str(folder / "rows"), row_length=quick_run.ROW_LENGTH, workers=1)
    return folder / "rows"


def pretrain(data: pathlib.Path, workdir: pathlib.Path, **changed: object) -> list[str]:
    """Returns the alerts of a run, and its last line if it ended with an error."""
    settings = quick_run.settings(data, **SETTINGS | changed)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as output:
        code = cli.main(["pretrain", *settings, f"--workdir={workdir}"])
    lines = output.getvalue().splitlines()
    if os.environ.get("VERBOSE"):
        print(output.getvalue())
    return [line for line in lines if line.startswith("alert")] + (lines[-1:] if code else [])


def healthy(data: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """A healthy run."""
    return pretrain(data, folder / "run", **UNIFORM)


def first_loss(data: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Initial kernels ten times too wide."""
    return pretrain(data, folder / "run", model__kernel_stddev=2.0, total_steps=60)


def nothing_learnt(data: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """A learning rate a thousand times too low: no better than "all original", no use of context."""
    return pretrain(data, folder / "run", optimizer__learning_rate=3e-6, total_steps=250)


def falling_auc(data: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """A resumed run with a learning rate a hundred times as high: the discriminator diverges."""
    pretrain(data, folder / "run", **UNIFORM)
    return pretrain(data, folder / "run", **UNIFORM, optimizer__learning_rate=0.3, total_steps=900)


def diverging(data: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """A resumed run with a learning rate so high that the generator diverges too."""
    pretrain(data, folder / "run")
    return pretrain(data, folder / "run", optimizer__learning_rate=0.3, total_steps=750)


def strong_generator(data: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Texts that are easy to predict, and a generator as wide as its discriminator."""
    wide = {f"model__generator_{name}": value for name, value in SIZES.items()}
    return pretrain(data, folder / "run", **wide, total_steps=500)


def low_fill(data: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Rows that differ from those of the manifest."""
    other = folder / "data"
    shutil.copytree(data, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["splits"]["train"]["fill_fraction"] += 0.03
    (other / "manifest.json").write_text(json.dumps(manifest))
    return pretrain(other, folder / "run", **UNIFORM, batch_size=128, total_steps=100)


def slow(data: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Rows that arrive late from step 400 on, as from slow storage."""
    at = loader.Loader.at

    def late(self: loader.Loader, step: int) -> object:
        if step >= 400:
            time.sleep(0.1)
        return at(self, step)

    loader.Loader.at = late
    try:
        return pretrain(data, folder / "run", **UNIFORM)
    finally:
        loader.Loader.at = at


def not_finite(data: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """A learning rate that gives non-finite losses: the run stops, and its last line is the alert."""
    return pretrain(data, folder / "run", optimizer__learning_rate=1e30, optimizer__warmup_steps=0)


CASES: tuple[Callable[[pathlib.Path, pathlib.Path], list[str]], ...] = (
    healthy,
    first_loss,
    nothing_learnt,
    falling_auc,
    diverging,
    strong_generator,
    low_fill,
    slow,
    not_finite,
)


@contextlib.contextmanager
def shortened() -> Iterator[None]:
    kept = alerts.MIN_STEPS, alerts.TRANSIENT_STEPS
    alerts.MIN_STEPS, alerts.TRANSIENT_STEPS = SETTLED, TRANSIENT
    yield
    alerts.MIN_STEPS, alerts.TRANSIENT_STEPS = kept


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, shortened():
        with contextlib.redirect_stderr(io.StringIO()):
            data = pack(pathlib.Path(scratch))
        for case in CASES:
            if sys.argv[1:] and case.__name__ not in sys.argv[1:]:
                continue
            folder = pathlib.Path(scratch) / case.__name__
            folder.mkdir()
            print(f"\n{case.__name__}: {case.__doc__}", flush=True)
            for line in case(data, folder) or ["(silent)"]:
                print(f"  {line}", flush=True)


if __name__ == "__main__":
    main()
