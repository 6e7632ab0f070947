"""What a model card tells of a pre-training run beyond its settings: sources, hardware and energy, curve, scores."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax.common import chrono
from electramed_jax.common.errors import UserError
from electramed_jax.data.manifest import Manifest
from electramed_jax.training.history import History

CURVE_ROWS = 8  # validations shown, evenly spread, the last among them
CURVE = {
    "loss": "loss",
    "generator_loss": "generator loss",
    "generator_accuracy": "generator accuracy",
    "discriminator_loss": "discriminator loss",
    "discriminator_auc": "discriminator AUC",
    "discriminator_recall": "recall",
    "replaced_fraction": "replaced",
}
UNSTATED = "not stated"

# Watts of one device, by jax's `device_kind`. GPUs: the maximum of the maker's data sheet. TPU v4 and v3: the mean that
# Jouppi et al. 2023 (arXiv:2304.01433, table 4) measured in production, a chip; of later TPUs nothing is published.
WATTS = {
    "TPU v3": 220,
    "TPU v4": 170,
    "NVIDIA A100-SXM4-40GB": 400,
    "NVIDIA A100-SXM4-80GB": 400,
    "NVIDIA H100 80GB HBM3": 700,
    "NVIDIA H200": 700,
    "Tesla V100-SXM2-16GB": 300,
    "Tesla V100-SXM2-32GB": 300,
    "Tesla T4": 70,
}
TASKS = {"ner": "token-classification", "relations": "text-classification", "qa": "question-answering"}

Section = tuple[str, str]  # title, Markdown


def of_run(
    past: History,
    manifest: Manifest,
    step: int,
    *,
    licences: Mapping[str, str],
    watts: float | None,
    results: Sequence[Mapping[str, Any]],
) -> list[Section]:
    """The sections of a checkpoint's card, those left out of which nothing is known.

    Args:
      step: of the checkpoint; what came after it is not told.
      licences: of the texts, by pattern of a source file's name, such as {"pubmed*": "NLM terms"}.
      watts: of one device; None: by its kind, where that is known.
      results: what fine-tuning wrote as results.json, for any number of tasks.
    """
    found = [
        ("Sources and licences", sources(manifest, licences)),
        ("Hardware and energy", hardware(past, step, watts)),
        ("Learning curve", curve(past, step)),
        ("Fine-tuned", downstream(results)),
    ]
    return [(title, text) for title, text in found if text]


def sources(manifest: Manifest, licences: Mapping[str, str]) -> str:
    """Source files and the documents kept of them, by licence."""
    counts: dict[str, list[int]] = {}
    for source in manifest.sources:
        name = source.get("file", "")
        licence = next((said for pattern, said in licences.items() if fnmatch.fnmatch(name, pattern)), UNSTATED)
        row = counts.setdefault(licence, [0, 0])
        row[0] += 1
        row[1] += source.get("kept", 0)
    if not counts:
        return ""
    rows = [[licence, f"{files:,}", f"{kept:,}"] for licence, (files, kept) in counts.items()]
    text = table(["licence of the texts", "source files", "documents kept"], rows)
    dropped = {reason: count for reason, count in manifest.dropped.items() if count}
    if dropped:
        rows = [[reason, f"{count:,}"] for reason, count in sorted(dropped.items(), key=lambda pair: -pair[1])]
        text += "\n\n" + table(["dropped because", "documents"], rows)
    return text


def hardware(past: History, step: int, watts: float | None) -> str:
    """Device hours up to the step, and the energy that follows from them."""
    hours = past.device_hours(step)
    if not hours:
        return ""
    rows, energy, unknown = [], 0.0, False
    for (kind, count), used in hours.items():
        each = watts if watts is not None else WATTS.get(kind)
        unknown |= each is None
        energy += used * (each or 0) / 1000
        rows.append([f"{count:,} × {kind}", chrono.duration(used * 3600 / count), f"{used:,.2f}"])
    text = table(["devices", "time on steps", "device hours"], rows)
    text += "\n\nCompilation, evaluation, saving, and steps that were lost and done again are not in the time."
    if unknown:
        return f"{text} The energy is not estimated: the power of these devices is not known."
    source = "as its user states" if watts is not None else "by its maker's data sheet or published measurement"
    shown = f"{energy:,.1f}" if energy >= 0.1 else f"{energy:.2g}"
    return (
        f"{text} Estimated energy: {shown} kWh, for device hours at the power of a device {source}; hosts, cooling and "
        "idle time are left out."
    )


def curve(past: History, step: int) -> str:
    """Validations from the first to the checkpoint's."""
    entries = past.split("validation", step)
    if not entries:
        return ""
    last = len(entries) - 1
    places = sorted({round(last * number / max(1, CURVE_ROWS - 1)) for number in range(CURVE_ROWS)})
    shown = [entries[place] for place in places]
    names = [name for name in CURVE if any(name in entry for entry in shown)]
    rows = [[f"{e['step']:,}", *(f"{e[name]:.4g}" if name in e else "" for name in names)] for e in shown]
    return table(["step", *(CURVE[name] for name in names)], rows)


def downstream(results: Sequence[Mapping[str, Any]]) -> str:
    """Test scores (dev where there is no test) of fine-tuned models, each with the variant of its data."""
    rows = []
    for one in results:
        split, score = _score(one)
        sizes = ", ".join(f"{count:,} {name}" for name, count in one["data"]["sizes"].get(split, {}).items())
        rows.append([one["task"], one["variant"], f"{split}: {sizes}", one["primary"], score, str(len(one["seeds"]))])
    if not rows:
        return ""
    note = "Mean ± standard deviation over the seeds. Scores are comparable only where the variant of the data is the same."
    return table(["task", "data", "split", "score", "value", "seeds"], rows) + f"\n\n{note}"


def model_index(name: str, results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same for the Hub's metadata, which wants the kind of task by the Hub's own names."""
    found = []
    for one in results:
        split, _ = _score(one)
        value = one["scores"][split][one["primary"]]["mean"]
        found.append(
            {
                "task": {"type": TASKS.get(one["task"], "text-classification")},
                "dataset": {"name": one["variant"], "type": _slug(one["variant"]), "split": split},
                "metrics": [{"type": _slug(one["primary"]), "value": round(value, 6), "name": one["primary"]}],
            }
        )
    return [{"name": name, "results": found}] if found else []


def read_licences(told: Sequence[str]) -> dict[str, str]:
    """`["pubmed*=NLM terms"]` as a dictionary; UserError where one is neither."""
    pairs = [one.partition("=") for one in told]
    for one, (pattern, _, licence) in zip(told, pairs, strict=True):
        if not pattern.strip() or not licence.strip():
            raise UserError(f"--data_license={one!r}: wanted PATTERN=LICENCE, such as 'pubmed*=NLM terms'")
    return {pattern.strip(): licence.strip() for pattern, _, licence in pairs}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _score(one: Mapping[str, Any]) -> tuple[str, str]:
    split = "test" if "test" in one["scores"] else "dev"
    score = one["scores"][split][one["primary"]]
    spread = f" ± {score['standard_deviation']:.4f}" if len(one["seeds"]) > 1 else ""
    return split, f"{score['mean']:.4f}{spread}"


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
