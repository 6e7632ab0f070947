"""What a model card tells of a pre-training run beyond its settings: sources, hardware and energy, curve."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Mapping, Sequence

from electramed_jax.common import markdown, step_timer
from electramed_jax.common.errors import UserError
from electramed_jax.data.dataset.manifest import Manifest
from electramed_jax.pretrain.history import History
from electramed_jax.training.starts import DeviceHours

CURVE_ROWS = 8  # validations shown, evenly spread, the last among them
CURVE_METRICS = {
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
# Jouppi et al. 2023 (arXiv:2304.01433, table 4) measured in production, a chip, which of v3 are two devices; of later
# TPUs nothing is published.
WATTS = {
    "TPU v3": 110,
    "TPU v4": 170,
    "NVIDIA A100-SXM4-40GB": 400,
    "NVIDIA A100-SXM4-80GB": 400,
    "NVIDIA H100 80GB HBM3": 700,
    "NVIDIA H200": 700,
    "Tesla V100-SXM2-16GB": 300,
    "Tesla V100-SXM2-32GB": 300,
    "Tesla T4": 70,
}
# Files whose texts' terms are known, by name: https://www.nlm.nih.gov/databases/download/terms_and_conditions.html
KNOWN_LICENCES = {
    "pubmed[0-9][0-9]n[0-9]*": "NLM's terms for PubMed data; abstracts may be their publishers' copyright"
}

Section = tuple[str, str]  # title, Markdown


def run_sections(
    past: History,
    manifest: Manifest,
    step: int,
    *,
    licences: Mapping[str, str],
    watts: float | None,
    pictures: Sequence[str] = (),
) -> list[Section]:
    """The sections of a checkpoint's card, those left out of which nothing is known.

    Args:
      step: of the checkpoint; what came after it is not told.
      licences: of the texts, by pattern of a source file's name, {"own*": "CC BY 4.0"}; they go before `KNOWN_LICENCES`.
      watts: of one device; None: by its kind, where that is known.
      pictures: files beside the card that show the curve.
    """
    found = [
        ("Sources and licences", render_sources(manifest, licences)),
        ("Hardware and energy", render_hardware(past.device_hours(step), watts)),
        ("Learning curve", render_curve(past, step, pictures)),
    ]
    return [(title, text) for title, text in found if text]


def render_sources(manifest: Manifest, licences: Mapping[str, str]) -> str:
    """Source files and the documents kept of them, by licence."""
    counts: dict[str, list[int]] = {}
    for source in manifest.sources:
        name = posixpath.basename(source.get("file", ""))
        said = (said for pattern, said in {**licences, **KNOWN_LICENCES}.items() if fnmatch.fnmatch(name, pattern))
        licence = next(said, UNSTATED)
        row = counts.setdefault(licence, [0, 0])
        row[0] += 1
        row[1] += source.get("kept", 0)
    if not counts:
        return ""
    rows = [[licence, f"{files:,}", f"{kept:,}"] for licence, (files, kept) in counts.items()]
    text = markdown.table(["licence of the texts", "source files", "documents kept"], rows)
    dropped = {reason: count for reason, count in manifest.dropped.items() if count}
    if dropped:
        rows = [[reason, f"{count:,}"] for reason, count in sorted(dropped.items(), key=lambda pair: -pair[1])]
        text += "\n\n" + markdown.table(["dropped because", "documents"], rows)
    return text


def render_hardware(hours: DeviceHours, watts: float | None) -> str:
    """Device hours, and the energy that follows from them."""
    if not hours:
        return ""
    rows, energy, unknown = [], 0.0, False
    for (kind, count), used in hours.items():
        each = watts if watts is not None else WATTS.get(kind)
        unknown |= each is None
        energy += used * (each or 0) / 1000
        rows.append([f"{count:,} × {kind}", step_timer.format_duration(used * 3600 / count), _few_digits(used)])
    text = markdown.table(["devices", "time on steps", "device hours"], rows)
    text += "\n\nCompilation, evaluation, saving, and steps that were lost and done again are not in the time."
    if unknown:
        return f"{text} The energy is not estimated: the power of these devices is not known."
    source = "as its user states" if watts is not None else "by its maker's data sheet or published measurement"
    return (
        f"{text} Estimated energy: {_few_digits(energy)} kWh, for device hours at the power of a device {source}; "
        "hosts, cooling and idle time are left out."
    )


def _few_digits(value: float) -> str:
    return f"{value:,.1f}" if value >= 1 else f"{value:.2g}"


def render_curve(past: History, step: int, pictures: Sequence[str] = ()) -> str:
    """Validations from the first to the checkpoint's, drawn and as a table."""
    entries = past.split("validation", step)
    if not entries:
        return ""
    last = len(entries) - 1
    places = sorted({round(last * number / max(1, CURVE_ROWS - 1)) for number in range(CURVE_ROWS)})
    shown = [entries[place] for place in places]
    names = [name for name in CURVE_METRICS if any(name in entry for entry in shown)]
    rows = [[f"{e['step']:,}", *(f"{e[name]:.4g}" if name in e else "" for name in names)] for e in shown]
    drawn = " ".join(f"![{name}]({name})" for name in pictures)
    return f"{drawn}\n\n{markdown.table(['step', *(CURVE_METRICS[name] for name in names)], rows)}".strip()


def parse_licences(told: Sequence[str]) -> dict[str, str]:
    """`["pubmed*=NLM terms"]` as a dictionary; UserError where one is neither."""
    pairs = [one.partition("=") for one in told]
    for one, (pattern, _, licence) in zip(told, pairs, strict=True):
        if not pattern.strip() or not licence.strip():
            raise UserError(f"--data_license={one!r}: wanted PATTERN=LICENCE, such as 'own*=CC BY 4.0'")
    return {pattern.strip(): licence.strip() for pattern, _, licence in pairs}
