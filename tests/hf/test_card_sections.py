"""Sections of a model card: sources, hardware and learning curve; the Hub's own parser reads the card."""

from __future__ import annotations

import dataclasses

import huggingface_hub
import invented_metrics
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.config.pretrain import Config, DataConfig, ModelConfig
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.dataset.manifest import Manifest
from electramed_jax.hf import card, card_sections
from electramed_jax.hf.card_sections import PowerFacts
from electramed_jax.pretrain.history import History

(NLM,) = card_sections.KNOWN_LICENCES.values()
CONFIG = Config(model=ModelConfig(vocab_size=90), data=DataConfig(max_seq_length=32), batch_size=8)
UNKNOWN = PowerFacts()
START = {"device_kind": "TPU v4", "processes": 1}
PAST = History(
    CONFIG, invented_metrics.entries(), [START | {"step": 0, "devices": 4}, START | {"step": 2000, "devices": 8}]
)
MANIFEST = Manifest(
    row_length=32,
    dtype="uint16",
    vocab_size=90,
    vocab_sha256="",
    lower_case=True,
    special=SpecialIds(),
    splits={},
    sources=[
        {"file": "pubmed24n0001.xml.gz", "kept": 29_000},
        {"file": "gs://bucket/pubmed24n0002.xml.gz", "kept": 1_000},
        {"file": "own.jsonl", "kept": 7},
    ],
    dropped={"too short": 12, "no text": 0},
    length_histogram={},
    code_version="",
)


def test_documents_are_counted_by_licence_including_unknown_ones():
    text = card_sections.render_sources(MANIFEST, {"other*": "CC0"})
    assert f"| {NLM} | 2 | 30,000 |" in text and "| not stated | 1 | 7 |" in text
    assert "| too short | 12 |" in text and "no text" not in text
    assert "| mine | 2 | 30,000 |" in card_sections.render_sources(MANIFEST, {"pubmed*": "mine"})


def test_hardware_has_device_hours_up_to_the_checkpoint_and_the_assumptions_of_the_energy():
    text = card_sections.render_hardware(PAST.device_hours(3000), UNKNOWN)
    hours = 1999 * 0.5 * 4 / 3600 + 1000 * 0.5 * 8 / 3600
    assert "| 4 × TPU v4 | 16 min 40 s | 1.1 |" in text and "| 8 × TPU v4 | 8 min 20 s | 1.1 |" in text
    assert f"Estimated energy: {hours * 170 / 1000:.2g} kWh" in text and "cooling" in text
    assert "8 × TPU v4" not in card_sections.render_hardware(PAST.device_hours(1000), UNKNOWN)
    assert f"{hours * 50 / 1000:.2g} kWh" in card_sections.render_hardware(PAST.device_hours(3000), PowerFacts(50.0))


def test_no_energy_is_estimated_for_a_device_of_unknown_power():
    starts = [start | {"device_kind": "TPU v9"} for start in PAST.starts]
    text = card_sections.render_hardware(dataclasses.replace(PAST, starts=starts).device_hours(3000), UNKNOWN)
    assert "kWh" not in text and "not estimated" in text
    assert card_sections.render_hardware({}, UNKNOWN) == ""


def test_emissions_are_energy_times_carbon_intensity_and_the_hub_reads_them(tmp_path):
    hours, power = PAST.device_hours(3000), PowerFacts(watts=1000.0, carbon_intensity=400.0)
    metadata = card_sections.emissions_metadata(hours, power, "pre-training")
    grams = (1999 * 0.5 * 4 + 1000 * 0.5 * 8) / 3600 * 400
    assert f"Estimated emissions: {grams:.1f} g of CO2 equivalents, at 400 g/kWh" in card_sections.render_hardware(
        hours, power
    )
    facts = card.CardData("small", {}, {}, {}, metadata=metadata)
    (tmp_path / "README.md").write_text(card.render_card("discriminator", facts))
    found = huggingface_hub.ModelCard.load(tmp_path / "README.md").data.co2_eq_emissions
    assert found["emissions"] == pytest.approx(grams, rel=2e-3)
    assert (found["training_type"], found["hardware_used"]) == ("pre-training", "4 × TPU v4, 8 × TPU v4")
    assert "stated by the user" in found["source"] and "400 g/kWh" in found["source"]


def test_no_emissions_are_stated_without_a_carbon_intensity_or_a_known_power():
    hours = PAST.device_hours(3000)
    assert card_sections.emissions_metadata(hours, PowerFacts(watts=1000.0), "pre-training") == {}
    assert "CO2" not in card_sections.render_hardware(hours, PowerFacts(watts=1000.0))
    with pytest.raises(UserError, match="the power of TPU v9 is not known; add --watts=W"):
        card_sections.emissions_metadata({("TPU v9", 4): 3.0}, PowerFacts(carbon_intensity=400.0), "pre-training")
    with pytest.raises(UserError, match="no device hours are recorded"):
        card_sections.emissions_metadata({}, PowerFacts(carbon_intensity=400.0), "pre-training")


def test_the_curve_is_the_validations_up_to_the_checkpoint():
    lines = card_sections.render_curve(PAST, 2000).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["1,000", "2,000"]
    assert "discriminator AUC" in lines[0]
    many = [{"step": step, "split": "validation", "loss": 1.0} for step in range(1, 101)]
    rows = card_sections.render_curve(History(CONFIG, many), 100).splitlines()[2:]
    assert len(rows) == card_sections.CURVE_ROWS and rows[-1].startswith("| 100 |")


def test_licences_are_read_from_the_command_line():
    assert card_sections.parse_licences(["other*=NLM terms", "own*=CC BY 4.0"]) == {
        "other*": "NLM terms",
        "own*": "CC BY 4.0",
    }
    with pytest.raises(UserError, match="wanted PATTERN=LICENCE"):
        card_sections.parse_licences(["NLM terms"])


@pytest.mark.parametrize("network", list(card.PURPOSES))
def test_the_parser_of_the_hub_reads_the_card_of_every_kind_of_model(network, tmp_path):
    sections = card_sections.run_sections(PAST, MANIFEST, 3000, licences={}, power=UNKNOWN, pictures=["loss.png"])
    card_data = card.CardData("electramed: small", {}, {}, {}, license="apache-2.0", sections=sections)
    (tmp_path / "README.md").write_text(card.render_card(network, card_data))
    read = huggingface_hub.ModelCard.load(tmp_path / "README.md")
    assert (read.data.license, read.data.language, read.data.library_name) == ("apache-2.0", "en", "transformers")
    titles = [line[3:] for line in read.text.splitlines() if line.startswith("## ")]
    assert titles == [
        *("Use", "Training data", "Recipe", "Metrics", "Sources and licences", "Hardware and energy"),
        *("Learning curve", "Intended use", "Limits", "Citation"),
    ]
    assert "2104.09585" in read.text and "![loss.png](loss.png)" in read.text


def test_licences_and_formats_that_the_inputs_state_are_on_the_card():
    sources = [
        {"file": "a.tar.gz", "kept": 9, "licenses": {"CC BY 4.0": 7, "CC0": 2}, "formats": {"jats": 10}},
        {"file": "own.jsonl", "kept": 3, "licenses": {"": 3}, "formats": {"jsonl": 3}},
        {"file": "pubmed24n0001.xml.gz", "kept": 5, "licenses": {"": 5}, "formats": {"pubmed_xml": 6}},
    ]
    manifest = dataclasses.replace(MANIFEST, sources=sources, license="MIT", name="pmc", dropped={})
    text = card_sections.render_sources(manifest, {})
    for row in ("| CC BY 4.0 | 1 | 7 |", "| CC0 | 1 | 2 |", "| MIT | 1 | 3 |", f"| {NLM} | 1 | 5 |", "| jats | 10 |"):
        assert row in text
