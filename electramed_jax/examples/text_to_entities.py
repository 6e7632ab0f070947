# %% [markdown]
"""From text to entities, in Python: documents, vocabulary, pre-training, fine-tuning, predictions.

    python -m electramed_jax.examples.text_to_entities

Text and annotations are generated, and the models are so small that everything ends in about a minute on two cores.
With your own files change the paths of step 1 and 4, and the recipes: `electramed recipes` lists them.
"""

# %%
from __future__ import annotations

import pathlib
import re

import electramed_jax
from electramed_jax.data.synthetic import articles, pubmed_xml

folder = pathlib.Path("text-to-entities")
TINY = {"model.num_layers": 2, "model.generator_num_layers": 2}  # half the depth of the recipe

# %% [markdown]
# ## 1. Text: any files that `electramed prepare --list_formats` lists
# Here 600 PubMed records about drugs and diseases that do not exist.

# %%
pubmed_xml.write_pubmed_xml(str(folder / "xml"), articles=600)
documents = electramed_jax.prepare([str(folder / "xml" / "*.xml.gz")], str(folder / "documents"), workers=1)
print({split: counts["documents"] for split, counts in documents["splits"].items()})

# %% [markdown]
# ## 2. Vocabulary and packed rows of 64 tokens

# %%
vocab = electramed_jax.train_vocab(str(folder / "documents"), str(folder / "vocab.txt"), size=1000, workers=1)
electramed_jax.pack(vocab_path=vocab["vocab"], documents_dir=str(folder / "documents"),
                    output_dir=str(folder / "packed"), row_length=64, workers=1)  # fmt: skip
dataset = electramed_jax.load_dataset(str(folder / "packed"))
print(f"{dataset.manifest.splits['train'].rows} rows, vocabulary of {dataset.manifest.vocab_size}")

# %% [markdown]
# ## 3. Pre-training
# A real run has many thousand steps. The result has the metrics of the last validation, alerts and a verdict.

# %%
pretrained = electramed_jax.pretrain(
    "pretrain_tiny",
    data=str(folder / "packed"),
    workdir=str(folder / "pretrained"),
    settings={"total_steps": 30, "batch_size": 16, "optimizer.warmup_steps": 3, "log_every": 10} | TINY,
)
print(f"AUC after {pretrained.step} steps: {pretrained.metrics['validation_discriminator_auc']:.3f}")
electramed_jax.export(str(folder / "pretrained"), str(folder / "models"))

# %% [markdown]
# ## 4. A corpus with entities: train, dev and test in CoNLL format
# A word and its tag a line, an empty line between sentences. Here the names of drugs and diseases are known.

# %%
KINDS = {name: kind for one in articles.relations() for kind, name in (("Drug", one.drug), ("Disease", one.disease))}


def to_conll(text: str) -> str:
    """Returns the words of a text with their tags."""
    words = re.findall(r"\w+|[^\w\s]", text)
    return "".join(f"{word}\t{'B-' + KINDS[word.lower()] if word.lower() in KINDS else 'O'}\n" for word in words) + "\n"


corpus = folder / "corpus"
corpus.mkdir(parents=True, exist_ok=True)
for split, numbers in {"train": range(200), "dev": range(200, 240), "test": range(240, 280)}.items():
    generated = (articles.generate_article(1, number) for number in numbers)
    texts = (text for one in generated for text in (one.title, *(text for _, text in one.sections[-1:])))
    (corpus / f"{split}.txt").write_text("".join(map(to_conll, texts)))

# %% [markdown]
# ## 5. Fine-tuning and scores

# %%
finetuned = electramed_jax.finetune(
    "finetune_ner",
    init=str(folder / "pretrained"),
    data=str(corpus),
    workdir=str(folder / "finetuned"),
    settings={"epochs": 8.0, "batch_size": 32, "optimizer.learning_rate": 2e-3, "task.max_seq_length": 64},
)
score = finetuned.results["scores"]["test"]["f1"]["mean"]
print(f"F1 on test: {score:.1f}")

# %% [markdown]
# ## 6. Entities of new text, with offsets and confidence

# %%
relation = articles.relations()[0]
text = f"We compared {relation.drug} with placebo in patients with {relation.disease}."
predictor = electramed_jax.Predictor.from_pretrained(str(folder / "finetuned"))
entities = [(text[one.start : one.stop], one.type, one.confidence) for one in predictor.entities([text])[0]]
for name, kind, confidence in entities:
    print(f"{name}: {kind} ({confidence:.2f})")
