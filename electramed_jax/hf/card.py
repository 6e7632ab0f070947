"""The README.md of an exported network: what it is, its training data, recipe and scores."""

from __future__ import annotations

import dataclasses
import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax import __version__
from electramed_jax.common import markdown
from electramed_jax.config.pretrain import HF_FOLDER, Config, EncoderConfig
from electramed_jax.data.dataset.dataset import parse_folders
from electramed_jax.data.dataset.manifest import Manifest
from electramed_jax.hf.format.mapping import DISCRIMINATOR, GENERATOR, SEQUENCE, SPAN, TOKEN

TAGS = ("electra", "biomedical", "replaced-token-detection", "jax")
PURPOSES = {
    DISCRIMINATOR: """\
An ELECTRA discriminator for biomedical text: for every token, was it replaced by a small
generator's guess? This is the network to fine-tune, for named entities, relations and question
answering.""",
    GENERATOR: """\
An ELECTRA generator for biomedical text: a masked language model that draws the replacements its
discriminator has to find. It fills masks; for fine-tuning take the discriminator.""",
    TOKEN: "An ELECTRA discriminator fine-tuned to find named entities: an IOB2 tag for each word, at its first piece.",
    SEQUENCE: "An ELECTRA discriminator fine-tuned to label a text or a pair of texts.",
    SPAN: "An ELECTRA discriminator fine-tuned to find the answer to a question in a passage.",
}
USAGE = {
    DISCRIMINATOR: """\
from transformers import AutoModelForPreTraining, AutoTokenizer

folder = "discriminator"  # where these files are
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForPreTraining.from_pretrained(folder)
inputs = tokenizer("Aspirin inhibits cyclooxygenase.", return_tensors="pt")
replaced = model(**inputs).logits > 0  # one answer a token""",
    GENERATOR: """\
from transformers import AutoModelForMaskedLM, AutoTokenizer

folder = "generator"  # where these files are
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForMaskedLM.from_pretrained(folder)
inputs = tokenizer("Aspirin inhibits [MASK].", return_tensors="pt")
guesses = model(**inputs).logits.argmax(-1)  # one token a position""",
    TOKEN: """\
from transformers import pipeline

find = pipeline("token-classification", model="FOLDER", aggregation_strategy="first")  # where these files are
entities = find("Aspirin may cause stomach ulcers .")""",
    SEQUENCE: """\
from transformers import pipeline

label = pipeline("text-classification", model="FOLDER")  # where these files are
labels = label("Aspirin inhibits cyclooxygenase.")""",
    SPAN: """\
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

folder = "FOLDER"  # where these files are
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForQuestionAnswering.from_pretrained(folder)
question, passage = "What does aspirin inhibit?", "Aspirin inhibits cyclooxygenase."
inputs = tokenizer(question, passage, truncation="only_second", return_offsets_mapping=True, return_tensors="pt")
offsets = inputs.pop("offset_mapping")[0].tolist()
outputs = model(**inputs)
scores = outputs.start_logits[0][:, None] + outputs.end_logits[0]  # by first and last token
inside = torch.tensor([part == 1 for part in inputs.sequence_ids(0)])
allowed = (inside[:, None] & inside).triu().tril(29)  # in the passage, in order, 30 tokens at most
first, last = divmod(int(scores.where(allowed, -torch.inf).argmax()), len(inside))
answer = passage[offsets[first][0] : offsets[last][1]]""",
}
NOTES = {
    DISCRIMINATOR: """\
`AutoModel` and the fine-tuning classes report the keys `discriminator_predictions.*` as unexpected:
they leave the pre-training head behind, which is as it should be.""",
    GENERATOR: "The output matrix is the word table and is not stored a second time.",
    TOKEN: "Words that were learnt apart, as punctuation was in the corpus, are best given apart.",
    SEQUENCE: "Texts longer than those it was trained on were never seen whole.",
    SPAN: """\
A passage that is too long loses its end here: have the tokenizer make overlapping windows
(`return_overflowing_tokens=True, stride=...`) and take the best answer of all. transformers has had no pipeline
for this task since its version 5.""",
}
PIPELINES = {
    GENERATOR: "fill-mask",
    TOKEN: "token-classification",
    SEQUENCE: "text-classification",
    SPAN: "question-answering",
}
_RESEARCH = """\
For research on biomedical text. Text of other fields or languages was not in its training, and it knows nothing of
what was published after its training data.
"""
_MEASURE = "Measure it on held-out text like your own before you rely on it."
INTENDED_USE = {
    DISCRIMINATOR: f"{_RESEARCH}It writes no text: fine-tune it on labelled data. {_MEASURE}",
    GENERATOR: f"{_RESEARCH}It fills masks, one token at a time, and was never taught to write texts.",
    TOKEN: f"{_RESEARCH}It finds entities of its labels' types, as its corpus defines them. {_MEASURE}",
    SEQUENCE: f"{_RESEARCH}It knows the labels of its corpus and no others. {_MEASURE}",
    SPAN: f"{_RESEARCH}It copies an answer out of the passage, whether or not there is a good one. {_MEASURE}",
}
LIMITS = """\
The model reflects the literature it was trained on, its errors and gaps included. It is a tool for
research on text, not a medical device: nothing it says should guide a diagnosis or a treatment."""

CITATION = """\
```bibtex
@article{miolo2021electramed,
  title   = {ELECTRAMed: a new pre-trained language representation model for biomedical NLP},
  author  = {Miolo, Giacomo and Mantoan, Giulio and Orsenigo, Carlotta},
  journal = {arXiv preprint arXiv:2104.09585},
  year    = {2021}
}
@inproceedings{clark2020electra,
  title     = {ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators},
  author    = {Clark, Kevin and Luong, Minh-Thang and Le, Quoc V. and Manning, Christopher D.},
  booktitle = {International Conference on Learning Representations},
  year      = {2020}
}
```"""


@dataclasses.dataclass(frozen=True)
class CardData:
    """What a card tells; each mapping is a table of label and value.

    Attributes:
      name: of the model, the card's title.
      data: what it was trained on.
      recipe: how.
      metrics: how well it does, on held-out data.
      language: ISO code of the text.
      license: of the weights, an identifier the Hub knows; left out where None.
      sections: more to tell, (title, Markdown) in order.
      metadata: more for the front matter, values as the Hub wants them.
    """

    name: str
    data: Mapping[str, Any]
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Any]
    language: str = "en"
    license: str | None = None
    sections: Sequence[tuple[str, str]] = ()
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def card_data_for_run(
    config: Config,
    manifest: Manifest,
    *,
    name: str,
    step: int,
    metrics: Mapping[str, float],
    license: str | None = None,
) -> CardData:
    """What there is to tell about a run: its dataset, its settings, and its last validation."""
    train, model, objective = manifest.splits["train"], config.model, config.objective
    data = {
        "dataset": manifest.name,
        **_describe_mixture(config),
        "source files": len(manifest.sources),
        "documents": train.documents,
        "tokens": train.tokens,
        "vocabulary": manifest.vocab_size,
        "lower-cased": manifest.lower_case,
    }
    recipe = {
        "code": f"electramed_jax {__version__}",
        "objective": objective.kind,
        "started from": posixpath.basename(config.init.removeprefix(HF_FOLDER).rstrip("/")) or "random parameters",
        "steps": f"{step:,} of {config.total_steps:,}",
        "batch": f"{config.batch_size:,} rows of {config.data.max_seq_length} tokens",
        "learning rate": config.optimizer.learning_rate,
        "warm-up steps": config.optimizer.warmup_steps,
        "weight decay": config.optimizer.weight_decay,
        "masked": f"{objective.mask_probability:.0%} of the tokens",
        "discriminator": _describe_sizes(model.discriminator, model.embedding_size),
    }
    if objective.kind != "uniform":
        recipe["generator"] = _describe_sizes(model.generator, model.generator_embedding_size)
        recipe["shared by both"] = model.tying
    return CardData(name, data, recipe, metrics, license=license)


def _describe_mixture(config: Config) -> dict[str, str]:
    """By which weights several packed folders were mixed; of one there is nothing to tell."""
    if len(parse_folders(config.data.directory)) < 2:
        return {}
    return {"mixed": f"by the weights {config.data.weights}" if config.data.weights else "as they have rows"}


def _describe_sizes(sizes: EncoderConfig, embedding_size: int) -> str:
    return (
        f"{sizes.num_layers} layers of {sizes.hidden_size}, attention heads {sizes.num_heads}, "
        f"feed-forward {sizes.intermediate_size}, embeddings {embedding_size}"
    )


def render_card(network: str, facts: CardData) -> str:
    """The card of a network, a key of `PURPOSES`, as Markdown with YAML front matter."""
    parts = [
        _front_matter(network, facts),
        f"# {markdown.one_line(facts.name)}: {network}",
        PURPOSES[network],
        "## Use",
        f"```python\n{USAGE[network]}\n```",
        NOTES[network],
        "## Training data",
        _render_table(facts.data),
        "## Recipe",
        _render_table(facts.recipe),
        "## Metrics",
        _render_table(facts.metrics) if facts.metrics else "None were recorded.",
        *(part for title, told in facts.sections for part in (f"## {title}", told)),
        "## Intended use",
        INTENDED_USE[network],
        "## Limits",
        LIMITS,
        "## Citation",
        "The recipe is ELECTRAMed's, and its method ELECTRA's:",
        CITATION,
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(network: str, facts: CardData) -> str:
    values: dict[str, Any] = {"language": facts.language}
    if facts.license is not None:
        values["license"] = facts.license
    values |= {"library_name": "transformers", "tags": list(TAGS)}
    if network in PIPELINES:
        values["pipeline_tag"] = PIPELINES[network]
    values |= facts.metadata
    # JSON values are YAML values, quoted wherever YAML would read something else into them.
    lines = [f"{key}: {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def _render_table(rows: Mapping[str, Any]) -> str:
    return markdown.table(["", ""], list(rows.items()))
