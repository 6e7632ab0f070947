"""Renders the model card (README.md) of an exported model: purpose, use, training data, recipe and scores."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax.common import markdown
from electramed_jax.config.pretrain import HF_FOLDER, Config, EncoderConfig
from electramed_jax.data.dataset.dataset import parse_folders
from electramed_jax.data.dataset.manifest import Manifest
from electramed_jax.hf.format.mapping import DISCRIMINATOR, ELECTRIC, GENERATOR, SEQUENCE, SPAN, TOKEN
from electramed_jax.pretrain.history import describe_by_phase, join_phases
from electramed_jax.training.starts import Phase

TAGS = ("electra", "biomedical", "replaced-token-detection", "jax")
PURPOSES = {
    DISCRIMINATOR: """\
An ELECTRA discriminator for biomedical text. For each token it predicts whether a small generator
replaced it. This is the network to fine-tune for named entities, relations and question answering.""",
    GENERATOR: """\
An ELECTRA generator for biomedical text: a masked language model. During pre-training it samples the
replacements that the discriminator learns to detect. It fills masks; use the discriminator for fine-tuning.""",
    ELECTRIC: """\
An Electric model for biomedical text: a discriminator trained by noise-contrastive estimation, so that it gives each
token an energy. exp(-energy) is, up to a constant, the probability of the token given all others. It scores texts, and
is fine-tuned like an ELECTRA discriminator.""",
    TOKEN: """\
An ELECTRA discriminator fine-tuned for named entities. It predicts the IOB2 tag of each word at
its first piece.""",
    SEQUENCE: "An ELECTRA discriminator fine-tuned to label a text or a pair of texts.",
    SPAN: "An ELECTRA discriminator fine-tuned to find the answer to a question in a passage.",
}
USAGE = {
    DISCRIMINATOR: """\
from transformers import AutoModelForPreTraining, AutoTokenizer

folder = "discriminator"  # the folder with these files
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForPreTraining.from_pretrained(folder)
inputs = tokenizer("Aspirin inhibits cyclooxygenase.", return_tensors="pt")
replaced = model(**inputs).logits > 0  # one prediction per token""",
    ELECTRIC: """\
from transformers import AutoModelForPreTraining, AutoTokenizer

folder = "discriminator"  # the folder with these files
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForPreTraining.from_pretrained(folder)
inputs = tokenizer("Aspirin inhibits cyclooxygenase.", return_tensors="pt")
energies = model(**inputs).logits[0, 1:-1]  # one per token, without [CLS] and [SEP]
score = -energies.sum()  # pseudo-log-likelihood of the text, up to a constant per token""",
    GENERATOR: """\
from transformers import AutoModelForMaskedLM, AutoTokenizer

folder = "generator"  # the folder with these files
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForMaskedLM.from_pretrained(folder)
inputs = tokenizer("Aspirin inhibits [MASK].", return_tensors="pt")
guesses = model(**inputs).logits.argmax(-1)  # one token per position""",
    TOKEN: """\
from transformers import pipeline

tagger = pipeline("token-classification", model="FOLDER", aggregation_strategy="first")  # the folder with these files
entities = tagger("Aspirin may cause stomach ulcers .")""",
    SEQUENCE: """\
from transformers import pipeline

classifier = pipeline("text-classification", model="FOLDER")  # the folder with these files
labels = classifier("Aspirin inhibits cyclooxygenase.")""",
    SPAN: """\
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

folder = "FOLDER"  # the folder with these files
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForQuestionAnswering.from_pretrained(folder)
question, passage = "What does aspirin inhibit?", "Aspirin inhibits cyclooxygenase."
inputs = tokenizer(question, passage, truncation="only_second", return_offsets_mapping=True, return_tensors="pt")
offsets = inputs.pop("offset_mapping")[0].tolist()
outputs = model(**inputs)
scores = outputs.start_logits[0][:, None] + outputs.end_logits[0]  # of each first and last token
inside = torch.tensor([part == 1 for part in inputs.sequence_ids(0)])
allowed = (inside[:, None] & inside).triu().tril(29)  # in the passage, in order, at most 30 tokens
first, last = divmod(int(scores.where(allowed, -torch.inf).argmax()), len(inside))
answer = passage[offsets[first][0] : offsets[last][1]]""",
}
NOTES = {
    DISCRIMINATOR: """\
`AutoModel` and the fine-tuning classes report the keys `discriminator_predictions.*` as unexpected. This is
expected: they do not use the pre-training head.""",
    ELECTRIC: """\
Compare scores of texts with the same number of tokens, such as the hypotheses of a recognizer. Method: Clark et al.,
[Pre-Training Transformers as Energy-Based Cloze Models](https://www.aclweb.org/anthology/2020.emnlp-main.20.pdf),
2020. The generator, a cloze model of two towers, has no class in transformers and is not exported.""",
    GENERATOR: "The output matrix is tied to the word embeddings and is not stored separately.",
    TOKEN: "Separate words and punctuation by spaces, as in the training corpus; results are best then.",
    SEQUENCE: "Texts longer than the longest training example were truncated during training.",
    SPAN: """\
This example truncates a long passage. To read all of it, let the tokenizer make overlapping windows
(`return_overflowing_tokens=True, stride=...`) and take the best answer of all windows. transformers has no pipeline
for this task from version 5 on.""",
}
OPTIMIZERS = {
    "adam": "Adam",
    "lamb": "LAMB",
    "muon": "Muon for the matrices of the layers, Adam for all other parameters",
}
PIPELINES = {
    GENERATOR: "fill-mask",
    TOKEN: "token-classification",
    SEQUENCE: "text-classification",
    SPAN: "question-answering",
}
# What the Hub's page of a model offers to try.
WIDGETS = {
    GENERATOR: [{"text": "Aspirin inhibits [MASK]."}],
    TOKEN: [{"text": "Aspirin may cause stomach ulcers."}],
    SEQUENCE: [{"text": "Aspirin inhibits cyclooxygenase."}],
    SPAN: [{"text": "What does aspirin inhibit?", "context": "Aspirin inhibits cyclooxygenase."}],
}
FURTHER_TAGS = {
    TOKEN: ("named-entity-recognition",),
    DISCRIMINATOR: ("pre-training",),
    GENERATOR: ("pre-training",),
    ELECTRIC: ("pre-training", "electric"),
}
_RESEARCH = """\
For research on biomedical text. The training data contains no text of other fields or languages, and nothing that was
published later.
"""
_MEASURE = "Evaluate it on held-out text of your own before you rely on it."
INTENDED_USE = {
    DISCRIMINATOR: f"{_RESEARCH}It does not generate text: fine-tune it on labelled data. {_MEASURE}",
    ELECTRIC: f"{_RESEARCH}It scores texts and does not generate them. {_MEASURE}",
    GENERATOR: f"{_RESEARCH}It fills masks, one token at a time, and is not trained to generate text.",
    TOKEN: f"{_RESEARCH}It finds entities of the types of its labels, as defined by the training corpus. {_MEASURE}",
    SEQUENCE: f"{_RESEARCH}It predicts only the labels of its training corpus. {_MEASURE}",
    SPAN: f"{_RESEARCH}It copies an answer from the passage, even if the answer is not in it. {_MEASURE}",
}
LIMITS = """\
The model reproduces the errors, gaps and biases of the literature it was trained on. It is a tool for research on
text, not a medical device: do not use its output for diagnosis or treatment."""

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


_HUB_LICENSE = re.compile(r"cc0-1\.0|cc-by(-nc)?(-nd|-sa)?(-[234]\.\d)?|apache-2\.0|mit|odc-by|pddl|odbl")


@dataclasses.dataclass(frozen=True)
class CardData:
    """Content of a model card. Each mapping becomes a table of label and value.

    Attributes:
      name: of the model; title of the card.
      data: training data.
      recipe: training settings.
      metrics: scores on held-out data.
      language: ISO code of the text.
      license: of the weights, an identifier of the Hub; None: not stated.
      sections: further sections (title, Markdown), in order.
      metadata: further entries of the front matter, in the Hub's format.
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
    phases: Sequence[Phase] = (),
    license: str | None = None,
) -> CardData:
    """Returns the card content of a pre-training run: dataset, settings and scores of a validation.

    Args:
      config: of the newest start.
      manifest: of the dataset of the newest start.
      name: of the model.
      step: of the checkpoint.
      metrics: of the last validation.
      phases: of the run up to the checkpoint. A setting that changed is shown with the steps of each value.
      license: of the weights; None is that of the texts, if the dataset names one.
    """
    train = manifest.splits["train"]
    data = {
        "dataset": manifest.name,
        **({"licence of the texts": manifest.license} if manifest.license else {}),
        **_describe_mixture(config),
        "source files": len(manifest.sources),
        "documents": train.documents,
        "tokens": train.tokens,
        "vocabulary": manifest.vocab_size,
        "lower-cased": manifest.lower_case,
        **({"accents": "kept"} if manifest.keep_accents else {}),
    }
    fingerprints = [phase.train_rows[:16] or "not recorded" for phase in phases]
    if len(set(fingerprints)) > 1:  # the rows above are those of the last dataset
        data["SHA-256 of the training rows"] = join_phases(phases, fingerprints)
    recipe = describe_by_phase(phases, config, describe_recipe)
    steps = {"steps": f"{step:,} of {config.total_steps:,}"}
    return CardData(
        name,
        data,
        steps | recipe,
        metrics,
        license=license or _hub_license(manifest.license),
        metadata={"datasets": [manifest.name]},
    )


def describe_recipe(config: Config, code: str) -> dict[str, Any]:
    """Returns the rows of the recipe: {label: value}.

    Args:
      config: resolved settings.
      code: version of this package that trained with them; "" if it was not recorded.
    """
    model, objective = config.model, config.objective
    recipe = {
        "code": code or "not recorded",
        "objective": objective.kind,
        "started from": posixpath.basename(config.init.removeprefix(HF_FOLDER).rstrip("/")) or "random parameters",
        "batch": f"{config.batch_size:,} rows of {config.data.max_seq_length} tokens",
        "optimizer": OPTIMIZERS[config.optimizer.kind],
        "learning rate": config.optimizer.learning_rate,
        "schedule ends at step": _describe_schedule(config),
        "warm-up steps": config.optimizer.warmup_steps,
        "weight decay": config.optimizer.weight_decay,
        "masked": f"{objective.mask_probability:.0%} of the tokens",
        "discriminator": _describe_sizes(model.discriminator, model.embedding_size),
    }
    if objective.has_corrective_head:
        recipe["also predicts original tokens"] = f"loss weight {objective.corrective_weight:g}"
    if objective.kind != "uniform":
        recipe["generator"] = _describe_sizes(model.generator, model.generator_embedding_size)
        recipe["shared by both"] = model.tying
    return recipe


def _describe_schedule(config: Config) -> str:
    start = round(config.optimizer.decay_start * config.total_steps)
    return f"{config.total_steps:,}" + (f", constant until {start:,}" if start else "")


def _hub_license(name: str) -> str | None:
    """Returns the Hub's identifier of a licence such as "CC BY 4.0"; "other" for an unknown name, None for none."""
    identifier = "-".join(name.lower().split())
    return (identifier if _HUB_LICENSE.fullmatch(identifier) else "other") if name else None


def _describe_mixture(config: Config) -> dict[str, str]:
    """Returns the mixing weights of several packed folders; {} for one folder."""
    if len(parse_folders(config.data.directory)) < 2:
        return {}
    return {"mixed": f"by the weights {config.data.weights}" if config.data.weights else "in proportion to their rows"}


def _describe_sizes(sizes: EncoderConfig, embedding_size: int) -> str:
    return (
        f"{sizes.num_layers} layers of width {sizes.hidden_size}, {sizes.num_heads} attention heads, "
        f"feed-forward width {sizes.intermediate_size}, embedding size {embedding_size}"
    )


def render_card(network: str, card_data: CardData) -> str:
    """Returns the model card as Markdown with YAML front matter.

    Args:
      network: a key of `PURPOSES`: a pre-trained network or the kind of a fine-tuned head.
      card_data: content of the card.
    """
    parts = [
        _front_matter(network, card_data),
        f"# {markdown.escape(card_data.name)}: {network}",
        PURPOSES[network],
        "## Use",
        f"```python\n{USAGE[network]}\n```",
        NOTES[network],
        "## Training data",
        _render_table(card_data.data),
        "## Recipe",
        _render_table(card_data.recipe),
        "## Metrics",
        _render_table(card_data.metrics) if card_data.metrics else "None were recorded.",
        *(part for title, body in card_data.sections for part in (f"## {title}", body)),
        "## Intended use",
        INTENDED_USE[network],
        "## Limits",
        LIMITS,
        "## Citation",
        "The training recipe is ELECTRAMed's; the method is ELECTRA:",
        CITATION,
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(network: str, card_data: CardData) -> str:
    from huggingface_hub import ModelCardData

    values = dict(
        language=card_data.language,
        license=card_data.license,
        library_name="transformers",
        tags=[*TAGS, *FURTHER_TAGS.get(network, ())],
        pipeline_tag=PIPELINES.get(network),
        widget=WIDGETS.get(network),
        **card_data.metadata,
    )
    if "model-index" in values:
        values["model_name"] = card_data.name
    return f"---\n{ModelCardData(**_printable(values)).to_yaml()}\n---"


def _printable(value: Any) -> Any:
    """Returns a JSON value whose texts hold only characters that YAML allows, emoji included."""
    if isinstance(value, Mapping):
        return {key: _printable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(inner) for inner in value]
    return markdown.one_line(value) if isinstance(value, str) else value


def _render_table(rows: Mapping[str, Any]) -> str:
    return markdown.table(["", ""], list(rows.items()))
