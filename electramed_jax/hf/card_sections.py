"""Renders sections of the model card of a pre-training run: sources and licences, hardware and energy, curve."""

from __future__ import annotations

import dataclasses
import fnmatch
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax.common import markdown, step_timer
from electramed_jax.common.errors import UserError
from electramed_jax.data.dataset.manifest import Manifest
from electramed_jax.pretrain.history import History
from electramed_jax.training.starts import DeviceHours

CURVE_ROWS = 8  # validations in the table, evenly spread, including the last one
CURVE_METRICS = {  # metric -> heading of its column
    "loss": "loss",
    "generator_loss": "generator loss",
    "generator_accuracy": "generator accuracy",
    "discriminator_loss": "discriminator loss",
    "discriminator_auc": "discriminator AUC",
    "discriminator_recall": "recall",
    "replaced_fraction": "replaced",
}
UNSTATED = "not stated"

# Watts of one device, by `device_kind` of JAX. GPUs: the maximum in the manufacturer's data sheet. TPU v4 and v3: the
# mean per chip in production of Jouppi et al. 2023 (arXiv:2304.01433, table 4); a chip of v3 has two devices. Nothing
# is published for later TPUs.
WATTS = {
    "TPU v3": 110,
    "TPU v4": 170,
    "NVIDIA A100-PCIE-40GB": 250,
    "NVIDIA A100 80GB PCIe": 300,
    "NVIDIA A100-SXM4-40GB": 400,
    "NVIDIA A100-SXM4-80GB": 400,
    "NVIDIA H100 PCIe": 350,
    "NVIDIA H100 80GB HBM3": 700,
    "NVIDIA H200": 700,
    "NVIDIA L4": 72,
    "NVIDIA RTX A6000": 300,
    "NVIDIA GeForce RTX 3090": 350,
    "NVIDIA GeForce RTX 4090": 450,
    "Tesla P100-PCIE-16GB": 250,
    "Tesla V100-PCIE-16GB": 250,
    "Tesla V100-SXM2-16GB": 300,
    "Tesla V100-SXM2-32GB": 300,
    "Tesla T4": 70,
}
# Pattern of a source file's name -> licence: https://www.nlm.nih.gov/databases/download/terms_and_conditions.html
KNOWN_LICENCES = {
    "pubmed[0-9][0-9]n[0-9]*": "NLM's terms for PubMed data; abstracts may be their publishers' copyright"
}

Section = tuple[str, str]  # title, Markdown


@dataclasses.dataclass(frozen=True)
class PowerFacts:
    """Facts about power that the user states.

    Attributes:
      watts: of one device; None: from `WATTS`.
      carbon_intensity: of the electricity, in grams of CO2 equivalents per kWh; None: not known.
    """

    watts: float | None = None
    carbon_intensity: float | None = None

    @property
    def source(self) -> str:
        """Where the power of a device is from."""
        return (
            "of the manufacturer's data sheet or published measurements" if self.watts is None else "stated by the user"
        )


def run_sections(
    past: History,
    manifest: Manifest,
    step: int,
    *,
    licences: Mapping[str, str],
    power: PowerFacts,
    pictures: Sequence[str] = (),
) -> list[Section]:
    """Returns the sections for a checkpoint; sections without data are left out.

    Args:
      past: history of the run.
      manifest: of the packed dataset.
      step: of the checkpoint; later entries of the history are ignored.
      licences: {pattern of a source file's name: licence}, {"own*": "CC BY 4.0"}; overrides `KNOWN_LICENCES`.
      power: for the energy.
      pictures: image files of the learning curve, next to the card.
    """
    sections = [
        ("Sources and licences", render_sources(manifest, licences)),
        ("Hardware and energy", render_hardware(past.device_hours(step), power)),
        ("Learning curve", render_curve(past, step, pictures)),
    ]
    return [(title, text) for title, text in sections if text]


def render_sources(manifest: Manifest, licences: Mapping[str, str]) -> str:
    """Returns the tables of documents by licence and by format, and of dropped documents by reason.

    The licence of a document is the one that its input states; otherwise that of the name of its file, otherwise that
    of the dataset.
    """
    counts: dict[str, list[int]] = {}
    formats: Counter[str] = Counter()
    for source in manifest.sources:
        name = posixpath.basename(source.get("file", ""))
        patterns = {**licences, **KNOWN_LICENCES}.items()
        of_name = next((licence for pattern, licence in patterns if fnmatch.fnmatch(name, pattern)), "")
        for stated, kept in (source.get("licenses") or {"": source.get("kept", 0)}).items():
            row = counts.setdefault(_licence(stated, of_name, manifest.license), [0, 0])
            row[0] += 1
            row[1] += kept
        formats.update(source.get("formats", {}))
    if not counts:
        return ""
    rows = [[licence, f"{files:,}", f"{kept:,}"] for licence, (files, kept) in counts.items()]
    text = markdown.table(["licence of the texts", "source files", "documents kept"], rows)
    if formats:
        rows = [[name, f"{count:,}"] for name, count in formats.most_common()]
        text += "\n\n" + markdown.table(["format of the source", "documents read"], rows)
    dropped = {reason: count for reason, count in manifest.dropped.items() if count}
    if dropped:
        rows = [[reason, f"{count:,}"] for reason, count in sorted(dropped.items(), key=lambda pair: -pair[1])]
        text += "\n\n" + markdown.table(["reason for dropping", "documents"], rows)
    return text


def _licence(stated: str, of_name: str, of_dataset: str) -> str:
    """Returns the licence of documents; the licence of the dataset gives way to what is known of a file by its name."""
    if of_name and stated in ("", of_dataset):
        return of_name
    return stated or of_dataset or UNSTATED


def estimate_energy(hours: DeviceHours, watts: float | None) -> float | None:
    """Returns the kWh of the devices; None if nothing is recorded, or the power of a device is not known."""
    each = {kind: WATTS.get(kind) if watts is None else watts for kind, _ in hours}
    if not hours or None in each.values():
        return None
    return sum(used * (each[kind] or 0) / 1000 for (kind, _), used in hours.items())


def emissions_metadata(hours: DeviceHours, power: PowerFacts, training_type: str) -> dict[str, Any]:
    """Returns "co2_eq_emissions" for the front matter, in grams; {} without a carbon intensity.

    Args:
      training_type: "pre-training" or "fine-tuning", as the Hub names them.

    Raises:
      UserError: a carbon intensity is given, but the energy is not known.
    """
    if power.carbon_intensity is None:
        return {}
    energy = estimate_energy(hours, power.watts)
    if energy is None:
        kinds = ", ".join(dict.fromkeys(kind for kind, _ in hours))
        lacking = (
            f"the power of {kinds} is not known; add --watts=W" if hours else "no device hours are recorded; omit it"
        )
        raise UserError(f"--carbon_intensity={power.carbon_intensity:g}: {lacking}")
    grams = energy * power.carbon_intensity
    return {
        "co2_eq_emissions": {
            "emissions": float(f"{grams:.3g}"),
            "source": f"device hours × power of a device, {power.source}, × {power.carbon_intensity:g} g/kWh",
            "training_type": training_type,
            "hardware_used": ", ".join(f"{count:,} × {kind}" for kind, count in hours),
        }
    }


def render_hardware(hours: DeviceHours, power: PowerFacts) -> str:
    """Returns the table of device hours, the estimated energy, and its emissions if the carbon intensity is known."""
    if not hours:
        return ""
    rows = [
        [f"{count:,} × {kind}", step_timer.format_duration(used * 3600 / count), _few_digits(used)]
        for (kind, count), used in hours.items()
    ]
    text = markdown.table(["devices", "time on steps", "device hours"], rows)
    text += "\n\nThe time does not include compilation, evaluation, checkpoints, and steps repeated after a restart."
    energy = estimate_energy(hours, power.watts)
    if energy is None:
        return f"{text} The energy is not estimated, because the power of these devices is not known."
    text += f" Estimated energy: {_few_digits(energy)} kWh: device hours times the power of a device, {power.source}."
    if power.carbon_intensity is not None:
        grams = energy * power.carbon_intensity
        text += f" Estimated emissions: {_mass(grams)} of CO2 equivalents, at {power.carbon_intensity:g} g/kWh."
    return f"{text} Hosts, cooling and idle time are not included."


def _mass(grams: float) -> str:
    return f"{_few_digits(grams / 1000)} kg" if grams >= 1000 else f"{_few_digits(grams)} g"


def _few_digits(value: float) -> str:
    return f"{value:,.1f}" if value >= 1 else f"{value:.2g}"


def render_curve(past: History, step: int, pictures: Sequence[str] = ()) -> str:
    """Returns the pictures and the table of validations up to the checkpoint."""
    entries = past.split("validation", step)
    if not entries:
        return ""
    last = len(entries) - 1
    rows_shown = sorted({round(last * number / max(1, CURVE_ROWS - 1)) for number in range(CURVE_ROWS)})
    shown = [entries[row] for row in rows_shown]
    names = [name for name in CURVE_METRICS if any(name in entry for entry in shown)]
    rows = [[f"{e['step']:,}", *(f"{e[name]:.4g}" if name in e else "" for name in names)] for e in shown]
    images = " ".join(f"![{name}]({name})" for name in pictures)
    return f"{images}\n\n{markdown.table(['step', *(CURVE_METRICS[name] for name in names)], rows)}".strip()


def parse_licences(arguments: Sequence[str]) -> dict[str, str]:
    """Returns {"pubmed*": "NLM terms"} for ["pubmed*=NLM terms"]; UserError if an argument has another form."""
    pairs = [one.partition("=") for one in arguments]
    for one, (pattern, _, licence) in zip(arguments, pairs, strict=True):
        if not pattern.strip() or not licence.strip():
            raise UserError(f"--data_license={one!r}: wanted PATTERN=LICENCE, such as 'own*=CC BY 4.0'")
    return {pattern.strip(): licence.strip() for pattern, _, licence in pairs}
