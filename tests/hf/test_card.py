"""The model card's front matter is YAML the Hub reads, and its tables survive any value."""

from __future__ import annotations

import pytest

from electramed_jax.hf import card

yaml = pytest.importorskip("yaml", reason="reads the card's front matter")

FACTS = card.CardData(
    name="electramed: small",
    data={"sources": "PubMed | abstracts\n2024", "documents": 28_714_373},
    recipe={"learning rate": 2e-4, "cased": False},
    metrics={"discriminator_auc": 0.93456},
    language="no",  # YAML 1.1 reads a bare `no` as false
    license="apache-2.0",
)


def front_matter(text: str) -> dict:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


@pytest.mark.parametrize("network", ["discriminator", "generator"])
def test_the_front_matter_is_yaml_and_keeps_strings_strings(network):
    values = front_matter(card.render_card(network, FACTS))
    assert values["language"] == "no"
    assert values["license"] == "apache-2.0"
    assert values["library_name"] == "transformers"
    assert "electra" in values["tags"]


def test_only_the_generator_fills_masks_on_the_hub():
    assert front_matter(card.render_card("generator", FACTS))["pipeline_tag"] == "fill-mask"
    assert "pipeline_tag" not in front_matter(card.render_card("discriminator", FACTS))


def test_a_licence_nobody_chose_is_not_claimed():
    unlicensed = card.CardData("m", {}, {}, {})
    assert "license" not in front_matter(card.render_card("generator", unlicensed))


def test_data_recipe_and_metrics_stand_in_the_card():
    text = card.render_card("discriminator", FACTS)
    assert "| sources | PubMed \\| abstracts 2024 |" in text
    assert "| documents | 28,714,373 |" in text
    assert "| learning rate | 0.0002 |" in text
    assert "| cased | no |" in text
    assert "| discriminator_auc | 0.9346 |" in text


def test_a_model_without_scores_says_so():
    assert "None were recorded." in card.render_card("generator", card.CardData("m", {}, {}, {}))


@pytest.mark.parametrize("network", ["discriminator", "generator"])
def test_the_example_is_python_that_compiles(network):
    example = card.render_card(network, FACTS).split("```python\n")[1].split("```")[0]
    compile(example, "example", "exec")
    assert f'folder = "{network}"' in example
