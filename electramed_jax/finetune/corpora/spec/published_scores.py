"""Published test scores by corpus, with the variant of the data, the measure and the source of each.

A score compares with ours only if files and measure are the same. Each number was compared with the printed table that
its source names; those of ELECTRAMed and BioELECTRA with the listings and the README named, because their tables were
not at hand. Bio-ELECTRA (small) is missing for the same reason.
Scores on the exact files of a run are in `finetune/published.py`, which compares hashes.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A published score.

    Attributes:
      corpus: name in the registry.
      value: percent.
      measure: name that the measure has here.
      variant: the files that were scored.
    """

    model: str
    corpus: str
    value: float
    measure: str
    variant: str
    source: str


_BLURB = "BLURB's files"
_PUBMEDBERT = "Gu et al. 2021, arXiv 2007.15779, table 6; mean of 5 runs, 10 for small sets"
_MODELS = ("BERT-base uncased", "RoBERTa-base", "BioBERT v1.1", "SciBERT uncased", "SciBERT cased", "ClinicalBERT",
           "BlueBERT", "PubMedBERT")  # fmt: skip
# Corpus, our measure, and the score of each of `_MODELS`.
_TABLE = (
    ("bc5-chemical", "f1", (89.25, 89.43, 92.85, 92.49, 92.51, 90.80, 91.19, 93.33)),
    ("bc5-disease", "f1", (81.44, 80.65, 84.70, 84.54, 84.70, 83.04, 83.69, 85.62)),
    ("ncbi-disease", "f1", (85.67, 86.62, 89.13, 88.10, 88.25, 86.32, 88.04, 87.82)),
    ("bc2gm", "f1", (80.90, 80.90, 83.82, 83.36, 83.36, 81.71, 81.87, 84.52)),
    ("jnlpba-merged", "f1", (77.69, 77.86, 78.55, 78.68, 78.51, 78.07, 77.71, 79.10)),
    ("ebm-pico", "word_macro_f1", (72.34, 73.02, 73.18, 73.12, 73.06, 72.06, 72.54, 73.38)),
    ("chemprot", "f1", (71.86, 72.98, 76.14, 75.24, 75.00, 72.04, 71.46, 77.24)),
    ("ddi", "f1", (80.04, 79.52, 80.88, 81.06, 81.22, 78.20, 77.78, 82.36)),
    ("gad", "f1/1", (80.41, 80.63, 82.36, 82.38, 81.34, 80.48, 79.15, 83.96)),
    ("biosses", "pearson", (82.68, 81.25, 89.52, 86.25, 87.15, 91.23, 85.38, 92.30)),
    ("hoc", "f1", (80.20, 79.66, 81.54, 80.66, 81.16, 80.74, 80.48, 82.32)),
    ("pubmedqa", "accuracy", (51.62, 52.84, 60.24, 57.38, 51.40, 49.08, 48.44, 55.84)),
    ("bioasq-yesno", "accuracy", (70.36, 75.20, 84.14, 78.86, 74.22, 68.50, 68.71, 87.56)),
)
_LINKBERT = "Yasunaga et al. 2022, arXiv 2203.15827, table 7"
# Corpus, our measure, and the scores of BioLinkBERT-base and -large. The table gives PubMedBERT other scores than its
# own paper does on JNLPBA (80.06) and GAD (82.34).
_LINKBERT_TABLE = (
    ("bc5-chemical", "f1", 93.75, 94.04),
    ("bc5-disease", "f1", 86.10, 86.39),
    ("ncbi-disease", "f1", 88.18, 88.76),
    ("bc2gm", "f1", 84.90, 85.18),
    ("jnlpba-merged", "f1", 79.03, 80.06),
    ("ebm-pico", "word_macro_f1", 73.97, 74.19),
    ("chemprot", "f1", 77.57, 79.98),
    ("ddi", "f1", 82.72, 83.35),
    ("gad", "f1/1", 84.39, 84.90),
    ("biosses", "pearson", 93.25, 93.63),
    ("hoc", "f1", 84.35, 84.87),
    ("pubmedqa", "accuracy", 70.20, 72.18),
    ("bioasq-yesno", "accuracy", 91.43, 94.82),
)
_BIOM = "Alrowili and Shanker 2021 (BioM-Transformers), table 2; 5 runs"
_BIOM_CORPORA = (
    ("bc5-chemical", "f1", _BLURB),
    ("bc5-disease", "f1", _BLURB),
    ("ncbi-disease", "f1", _BLURB),
    ("chemprot", "f1", _BLURB),
    ("squad-2", "f1", "dev of SQuAD 2.0"),
    ("bioasq-factoid", "mrr", "BioASQ 7b, after SQuAD 2.0"),
)
_BIOM_SCORES = {
    "ELECTRA-base": (90.7, 83.0, 86.3, 73.7, 86.2, 52.5),
    "BioM-ELECTRA-base": (93.1, 85.2, 88.4, 77.6, 84.4, 52.3),
    "ELECTRA-large": (91.6, 84.4, 87.6, 75.3, 90.7, 53.0),
    "BioM-ELECTRA-large": (93.8, 85.9, 89.0, 78.6, 88.3, 54.1),
}
_ELECTRAMED = "Miolo, Mantoan, Orsenigo 2021, as listed by paperswithcode.com and wizwand.com"
_BIOMEGATRON = "Shin et al. 2020, table 2; after SQuAD"
_OTHERS = (
    Published(
        "ELECTRAMed-base", "ncbi-disease", 87.54, "f1", "MTL-Bioinformatics-2016, long sentences split", _ELECTRAMED
    ),
    Published("ELECTRAMed-base", "jnlpba", 73.65, "f1", "five types", _ELECTRAMED),
    Published("ELECTRAMed-base", "chemprot", 72.94, "f1", "BLUE's tables", _ELECTRAMED),
    Published("ELECTRAMed-base", "ddi", 79.13, "f1", "BLUE's tables", _ELECTRAMED),
    Published(
        "ELECTRAMed-base",
        "bioasq-factoid",
        44.62,
        "strict_accuracy",
        "7b, whole abstracts, after SQuAD 1.1",
        _ELECTRAMED,
    ),
    Published("BioELECTRA-base", "pubmedqa", 64.0, "accuracy", _BLURB, "README of kamalkraj/BioELECTRA"),
    Published("BioELECTRA-base", "mednli", 86.34, "accuracy", "the corpus's files", "README of kamalkraj/BioELECTRA"),
    Published("BioBERT-base", "bioasq-factoid", 41.1, "mrr", "BioASQ 7b", _BIOMEGATRON),
    Published("BioBERT-large", "bioasq-factoid", 50.1, "mrr", "BioASQ 7b", _BIOMEGATRON),
    Published("BioMegatron-345M", "bioasq-factoid", 52.5, "mrr", "BioASQ 7b", _BIOMEGATRON),
)
PUBLISHED: tuple[Published, ...] = (
    *(
        Published(model, corpus, value, measure, _BLURB, _PUBMEDBERT)
        for corpus, measure, values in _TABLE
        for model, value in zip(_MODELS, values, strict=True)
    ),
    *(
        Published(f"BioLinkBERT-{size}", corpus, value, measure, _BLURB, _LINKBERT)
        for corpus, measure, *values in _LINKBERT_TABLE
        for size, value in zip(("base", "large"), values, strict=True)
    ),
    *(
        Published(model, corpus, value, measure, variant, _BIOM)
        for model, values in _BIOM_SCORES.items()
        for (corpus, measure, variant), value in zip(_BIOM_CORPORA, values, strict=True)
    ),
    *_OTHERS,
)


def scores_of(corpus: str) -> list[Published]:
    """Returns the published scores of a corpus, the highest first, by measure."""
    return sorted((one for one in PUBLISHED if one.corpus == corpus), key=lambda one: (one.measure, -one.value))
