"""The front matter of a model card is YAML that the Hub reads, and its tables keep any value."""

from __future__ import annotations

import dataclasses

import huggingface_hub
import pytest

from electramed_jax.hf import card

yaml = pytest.importorskip("yaml", reason="reads the card's front matter")

CARD_DATA = card.CardData(
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
def test_the_front_matter_is_yaml_and_keeps_the_types_of_its_values(network):
    values = front_matter(card.render_card(network, CARD_DATA))
    assert values["language"] == "no"
    assert values["license"] == "apache-2.0"
    assert values["library_name"] == "transformers"
    assert "electra" in values["tags"]


@pytest.mark.parametrize("network", [*card.PIPELINES, "discriminator"])
def test_the_hub_reads_back_the_metadata_of_every_kind_of_model(network):
    """huggingface_hub parses the card, and finds the scores, the pipeline and a widget example for it."""
    entry = {
        "task": {"type": "token-classification"},
        "dataset": {"name": "NCBI-disease", "type": "ncbi-disease", "split": "test"},
        "metrics": [{"type": "f1", "value": 87.5, "name": "f1, percent"}],
    }
    metadata = {
        "datasets": ["pubmed"],
        "base_model": "someone/electra",
        "model-index": [{"name": "m", "results": [entry]}],
    }
    text = card.render_card(network, dataclasses.replace(CARD_DATA, metadata=metadata))
    read = huggingface_hub.ModelCard(text).data
    assert (read.base_model, read.datasets, read.license) == ("someone/electra", ["pubmed"], "apache-2.0")
    (result,) = read.eval_results
    assert (result.task_type, result.dataset_split, result.metric_value) == ("token-classification", "test", 87.5)
    assert read.pipeline_tag == card.PIPELINES.get(network)
    assert bool(read.get("widget")) == (network in card.PIPELINES)


def test_only_the_generator_has_the_fill_mask_pipeline():
    assert front_matter(card.render_card("generator", CARD_DATA))["pipeline_tag"] == "fill-mask"
    assert "pipeline_tag" not in front_matter(card.render_card("discriminator", CARD_DATA))


def test_a_card_has_no_licence_unless_one_is_given():
    unlicensed = card.CardData("m", {}, {}, {})
    assert "license" not in front_matter(card.render_card("generator", unlicensed))


def test_the_card_has_tables_of_data_recipe_and_metrics():
    text = card.render_card("discriminator", CARD_DATA)
    assert "| sources | PubMed \\| abstracts 2024 |" in text
    assert "| documents | 28,714,373 |" in text
    assert "| learning rate | 0.0002 |" in text
    assert "| cased | no |" in text
    assert "| discriminator_auc | 0.9346 |" in text


def test_the_card_of_a_model_without_scores_has_no_table_of_them():
    assert "None were recorded." in card.render_card("generator", card.CardData("m", {}, {}, {}))


@pytest.mark.parametrize("network", ["discriminator", "generator"])
def test_the_example_of_the_card_compiles(network):
    example = card.render_card(network, CARD_DATA).split("```python\n")[1].split("```")[0]
    compile(example, "example", "exec")
    assert f'folder = "{network}"' in example


HOSTILE = (
    "<script>alert(1)</script>",
    "x\n---\nlicense: mit\n---",
    '": [evil](javascript:alert(1))',
    "| a | b |",
    "\x1b[2J \x00 \u202e \x85 \u2028",
    "\U0001f600 {{ braces }}",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_names_settings_and_articles_is_only_text_in_the_card(text):
    """A renderer shows it; it starts no tag, link or row, and no key in the front matter."""
    import lxml.html
    import markdown_it

    metadata = {"model-index": [{"name": text, "results": []}]}
    data = card.CardData(text, {"source": text, text: 1}, {"encoder": text}, {text: 0.5}, text, text, metadata=metadata)
    rendered = card.render_card("discriminator", data)
    values = front_matter(rendered)
    own = card.render_card("discriminator", card.CardData("m", {"s": 1}, {}, {}, license="mit", metadata=metadata))
    assert list(values) == list(front_matter(own))
    assert values["license"] == values["language"] == values["model-index"][0]["name"]
    body = rendered.split("---\n", 2)[2]
    shown = lxml.html.document_fromstring(markdown_it.MarkdownIt("commonmark").enable("table").render(body))
    allowed = {"html", "body", "h1", "h2", "p", "pre", "code", "table", "thead", "tbody", "tr", "th", "td"}
    assert {element.tag for element in shown.iter()} <= allowed
    assert all(len(row) == 2 for row in shown.iter("tr"))
