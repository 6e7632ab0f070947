"""Generates synthetic articles about diseases, drugs and genes that do not exist.

The text has structure at several levels, so that a small model shows within minutes whether training works:

- word order and agreement: a few dozen sentence patterns;
- the words of each field of medicine;
- fixed relations: a drug always treats the same disease, through the same gene, at the same dose;
- the outcome: results, conclusion and title of an article agree on whether the drug is effective.

Names consist of syllables and an ending for their kind, as real names do.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import re
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")

# field: (tissue, cells, what is measured, its unit, symptoms, procedures, animal)
_FIELDS = {
    "cardiology": ("heart", "cardiomyocytes", "ejection fraction", "%",
                   ("chest pain", "palpitations", "ankle swelling"),
                   ("echocardiography", "coronary angiography"), "rabbits"),
    "nephrology": ("kidney", "podocytes", "creatinine clearance", "ml/min",
                   ("proteinuria", "oliguria", "flank pain"),
                   ("renal biopsy", "haemodialysis"), "rats"),
    "hepatology": ("liver", "hepatocytes", "serum bilirubin", "mg/dl",
                   ("jaundice", "itching", "ascites"),
                   ("liver biopsy", "transient elastography"), "mice"),
    "neurology": ("brain", "neurons", "seizure frequency", "per month",
                  ("tremor", "headache", "memory loss"),
                  ("lumbar puncture", "electroencephalography"), "mice"),
    "pulmonology": ("lung", "alveolar macrophages", "forced expiratory volume", "litres",
                    ("cough", "wheezing", "breathlessness"),
                    ("spirometry", "bronchoscopy"), "guinea pigs"),
    "dermatology": ("skin", "keratinocytes", "lesion area", "cm2",
                    ("rash", "scaling", "blistering"),
                    ("skin biopsy", "phototherapy"), "mice"),
    "gastroenterology": ("colon", "enterocytes", "faecal calprotectin", "mg/kg",
                         ("diarrhoea", "bloating", "rectal bleeding"),
                         ("colonoscopy", "capsule endoscopy"), "rats"),
    "endocrinology": ("pancreas", "islet cells", "fasting glucose", "mmol/l",
                      ("thirst", "weight loss", "fatigue"),
                      ("glucose tolerance testing", "thyroid scanning"), "rats"),
    "ophthalmology": ("retina", "photoreceptors", "visual acuity", "letters",
                      ("blurred vision", "eye pain", "floaters"),
                      ("optical coherence tomography", "vitrectomy"), "rabbits"),
    "haematology": ("bone marrow", "erythroid progenitors", "haemoglobin concentration", "g/dl",
                    ("pallor", "bruising", "night sweats"),
                    ("marrow aspiration", "red cell transfusion"), "mice"),
    "rheumatology": ("synovium", "chondrocytes", "swollen joint count", "joints",
                     ("morning stiffness", "joint pain", "back pain"),
                     ("joint ultrasound", "arthroscopy"), "rats"),
    "infectious diseases": ("spleen", "dendritic cells", "viral load", "copies/ml",
                            ("fever", "chills", "sore throat"),
                            ("blood culture", "contact tracing"), "ferrets"),
    "oncology": ("tumour", "carcinoma cells", "tumour volume", "mm3",
                 ("weakness", "loss of appetite", "bone pain"),
                 ("computed tomography", "sentinel node biopsy"), "mice"),
    "psychiatry": ("hippocampus", "interneurons", "depression score", "points",
                   ("insomnia", "low mood", "irritability"),
                   ("structured interviews", "cognitive therapy"), "rats"),
    "obstetrics": ("placenta", "trophoblasts", "birth weight", "grams",
                   ("vomiting", "pelvic pain", "high blood pressure"),
                   ("fetal ultrasound", "amniocentesis"), "sheep"),
    "dentistry": ("gingiva", "osteoblasts", "probing depth", "mm",
                  ("bleeding gums", "tooth mobility", "toothache"),
                  ("root planing", "panoramic radiography"), "dogs"),
}  # fmt: skip

RELATIONS_PER_FIELD = 6
_SYLLABLES = (
    "ba be bo cra da dre fa fi ga gro ha ka ke kli la le lo ma mi mo na ne no pa pra ra re ri ro "
    "sa se so sta ta te ti tra va ve vo za ze zi xa"
).split()
_DISEASE_ENDINGS = ("itis", "osis", "oma", "pathy", "emia", "algia")
_DRUG_ENDINGS = ("mab", "tinib", "olol", "statin", "cillin", "prazole")
_ADJECTIVES = ("chronic", "acute", "hereditary", "juvenile", "recurrent", "severe")
_ORGANISM_ENDINGS = ("ella", "bacter", "coccus", "virus")
_DOSES = (5, 10, 20, 25, 40, 50, 80, 100, 150, 200, 250, 400)


@dataclasses.dataclass(frozen=True)
class Relation:
    """One fact of the synthetic world: this drug treats this disease through this gene."""

    field: str
    adjective: str
    disease: str
    drug: str
    gene: str
    partner_gene: str
    organism: str
    dose: int


@dataclasses.dataclass(frozen=True)
class Article:
    """A synthetic article.

    Attributes:
      title: text with inline <i> and <sub>; another `<` is written as &lt;.
      sections: (label or None, text) pairs, text as in `title`; empty if the article has no abstract.
      journal: name of the journal.
      year: of publication.
      month: three letters, "Jan".
      first_page: page number.
      authors: (last name, initial) pairs.
    """

    title: str
    sections: tuple[tuple[str | None, str], ...]
    journal: str
    year: int
    month: str
    first_page: int
    authors: tuple[tuple[str, str], ...]


class _Random:
    """Random numbers from `random.random` only, the one method with a sequence that Python guarantees to keep."""

    def __init__(self, key: str) -> None:
        self._random = random.Random(key).random

    def integer(self, n: int) -> int:
        return int(self._random() * n)

    def choice(self, choices: Sequence[_T]) -> _T:
        return choices[self.integer(len(choices))]

    def bernoulli(self, probability: float) -> bool:
        return self._random() < probability


@functools.cache
def relations() -> tuple[Relation, ...]:
    """Returns the synthetic world: six relations in each of sixteen fields; each name is in one relation."""
    rng = _Random("the world")
    used: set[str] = set()
    found: list[Relation] = []

    def name(syllables: int, ending: str) -> str:
        while True:
            word = "".join(rng.choice(_SYLLABLES) for _ in range(syllables)) + ending
            if word not in used:
                used.add(word)
                return word

    def gene() -> str:
        return name(2, str(1 + rng.integer(9))).upper()

    for field in _FIELDS:
        for i in range(RELATIONS_PER_FIELD):
            relation = Relation(
                field=field,
                adjective=rng.choice(_ADJECTIVES),
                disease=name(2, _DISEASE_ENDINGS[i]),
                drug=name(2, _DRUG_ENDINGS[i]),
                gene=gene(),
                partner_gene=gene(),
                organism=name(2, rng.choice(_ORGANISM_ENDINGS)).capitalize(),
                dose=rng.choice(_DOSES),
            )
            found.append(relation)
    return tuple(found)


# Patterns: {slots} are filled from the relation and the numbers of the article; one choice of [a|b] is sampled.
# Keys: whether the drug is effective.
_TITLES = {
    True: (
        "{Drug} [improves|restores] {measure} in [patients|adults] with {adjective} {disease}",
        "[Efficacy|Benefit] of {drug} in {disease}: a randomised [trial|controlled trial]",
        "{Drug} reduces {symptom} in {disease} by blocking <i>{gene}</i>",
    ),
    False: (
        "{Drug} does not improve {measure} in [patients|adults] with {adjective} {disease}",
        "No benefit of {drug} in {disease}: a randomised [trial|controlled trial]",
        "Failure of {drug} to reduce {symptom} in {disease}",
    ),
}
_BACKGROUND = (
    "{Adjective} {disease} is a [common|rare] disease of the {tissue} that causes {symptom} and {symptom2}.",
    "Patients with {disease} often [complain of|present with] {symptom}, and the diagnosis is made by {procedure}.",
    "Mutations in <i>{gene}</i> are the [main|most frequent] cause of {adjective} {disease}.",
    "In {field}, {disease} remains [difficult|hard] to treat, and few drugs act on the {tissue}.",
    "{Drug}, an inhibitor of {gene}, has been [proposed|approved] for the treatment of {disease}.",
    "The gene <i>{gene}</i> is expressed in {cells}, where it binds to {partner}.",
    "Infection with <i>{organism}</i> is a known trigger of {disease}.",
    "Little is known about the [long-term|short-term] effects of {drug} on {measure}.",
)
_AIMS = (
    "We [aimed|sought] to determine whether {drug} improves {measure} in patients with {disease}.",
    "The aim of this study was to [assess|evaluate|examine] the effect of {drug} on {symptom}.",
    "We [asked|tested] whether {drug} acts on {cells} through {gene}.",
)
_METHODS = (
    "We [enrolled|recruited] {n} patients with {adjective} {disease}, of whom {women} were women and {men} were men.",
    "A total of {n} patients were randomly assigned to receive {drug} (n = {half}) or placebo"
    " (n = {half}) for {weeks} weeks.",
    "{Drug} was given [orally|by mouth|intravenously] at a dose of {dose} mg [once|twice] daily.",
    "The primary outcome was the change in {measure} from baseline to week {weeks}.",
    "All patients underwent {procedure} and {procedure2} at baseline and after {weeks} weeks.",
    "{Animal} were infected with <i>{organism}</i> and then treated with {drug} ({dose} mg/kg).",
    "Expression of <i>{gene}</i> in {cells} was measured by [quantitative PCR|western blotting].",
    "Samples of {tissue} were obtained from {half} patients by {procedure}.",
    "Patients with {disease} who were younger than {age} years or had [diabetes|cancer] were excluded.",
)
_RESULTS = {
    True: (
        "After {weeks} weeks, {measure} improved from {low} to {high} {unit} with {drug} (p &lt; 0.001).",
        "{Symptom} [resolved|disappeared] in {many} of {half} patients who received {drug} and in"
        " only {few} of {half} who received placebo.",
        "{Drug} was superior to placebo (p &lt; 0.01) and reduced {symptom} by {many}%.",
        "In {cells}, {drug} [suppressed|inhibited] {gene} with an IC<sub>50</sub> of {few} nM.",
        "{Animal} with {disease} that received {drug} survived longer than those that did not.",
        "Levels of {partner} fell together with {gene}, and {symptom2} became less severe.",
        "The response to {drug} was strongest in carriers of the <i>{gene}</i> mutation.",
    ),
    False: (
        "After {weeks} weeks, {measure} was unchanged at {low} {unit} with {drug} (p = 0.{many}).",
        "{Symptom} persisted in {many} of {half} patients who received {drug} and in {many}"
        " of {half} who received placebo.",
        "{Drug} was no better than placebo (p = 0.{many}) and had no effect on {symptom}.",
        "In {cells}, {drug} failed to [suppress|inhibit] {gene} even at {high} nM.",
        "{Animal} with {disease} that received {drug} died as early as those that did not.",
        "Levels of {partner} did not change, and {symptom2} became more severe.",
        "There was no response to {drug}, not even in carriers of the <i>{gene}</i> mutation.",
    ),
}
_SIDE_EFFECTS = (
    "Adverse events of {drug} were [mild|moderate], and {few} patients [withdrew|discontinued treatment].",
    "The most frequent adverse event of {drug} was [nausea|dizziness|dry mouth], which occurred in {few} patients.",
    "No serious adverse events of {drug} were [reported|observed].",
)
_CONCLUSIONS = {
    True: (
        "{Drug} is [safe and effective|effective and well tolerated] in patients with {adjective} {disease}.",
        "These [results|findings] support the use of {drug} in {disease} and suggest that it acts through {gene}.",
        "Inhibition of {gene} by {drug} is a promising treatment for {disease}.",
    ),
    False: (
        "{Drug} is not effective in patients with {adjective} {disease}.",
        "These [results|findings] do not support the use of {drug} in {disease}.",
        "Inhibition of {gene} by {drug} is not enough to treat {disease}.",
    ),
}
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def generate_article(seed: int, number: int) -> Article:
    """Generates article `number` of the literature `seed`; the result is the same on every machine."""
    rng = _Random(f"{seed}/{number}")
    relation = rng.choice(relations())
    effective = rng.bernoulli(0.7)
    slots = _slot_values(relation, rng)

    def sentences(patterns: tuple[str, ...], count: int) -> str:
        remaining, chosen = list(patterns), []
        for _ in range(count):
            pattern = remaining.pop(rng.integer(len(remaining)))
            sentence = re.sub(r"\[(.*?)\]", lambda m: rng.choice(m[1].split("|")), pattern)
            chosen.append(sentence.format_map(slots))
        return " ".join(chosen)

    title = sentences(_TITLES[effective], 1) + "."
    # Short, so that a small model sees many articles and article boundaries in a minute.
    background = sentences(_BACKGROUND, 1) + (" " + sentences(_AIMS, 1) if rng.bernoulli(0.5) else "")
    methods = sentences(_METHODS, 1 + rng.integer(2))
    results = sentences(_RESULTS[effective], 1 + rng.integer(2))
    results += " " + sentences(_SIDE_EFFECTS, 1) if rng.bernoulli(0.5) else ""
    parts = (
        ("BACKGROUND", background),
        ("METHODS", methods),
        ("RESULTS", results),
        ("CONCLUSIONS", sentences(_CONCLUSIONS[effective], 1)),
    )
    layout = rng.integer(100)
    sections: tuple[tuple[str | None, str], ...]
    if layout < 3:
        sections = ()
    elif layout < 50:
        sections = ((None, " ".join(text for _, text in parts)),)
    else:
        sections = parts
    return Article(
        title=title,
        sections=sections,
        journal=f"Invented Annals of {relation.field.title()}",
        year=1990 + rng.integer(36),
        month=rng.choice(_MONTHS),
        first_page=1 + rng.integer(900),
        authors=tuple((_last_name(rng), rng.choice("ABCDEFGHIJKLMNOPRSTW")) for _ in range(1 + rng.integer(5))),
    )


def _last_name(rng: _Random) -> str:
    return "".join(rng.choice(_SYLLABLES) for _ in range(2 + rng.integer(2))).capitalize()


def _slot_values(relation: Relation, rng: _Random) -> dict[str, object]:
    """Returns the values of the slots; related numbers agree with each other."""
    tissue, cells, measure, unit, symptoms, procedures, animal = _FIELDS[relation.field]
    first = rng.integer(len(symptoms))
    half = 10 * (2 + rng.integer(9))
    women = half - 8 + rng.integer(17)
    low = 10 + rng.integer(30)
    slots: dict[str, object] = {
        "field": relation.field,
        "disease": relation.disease,
        "drug": relation.drug,
        "gene": relation.gene,
        "partner": relation.partner_gene,
        "organism": relation.organism,
        "dose": relation.dose,
        "adjective": relation.adjective,
        "tissue": tissue,
        "cells": cells,
        "measure": measure,
        "unit": unit,
        "symptom": symptoms[first],
        "symptom2": symptoms[first - 1],
        "procedure": procedures[0],
        "procedure2": procedures[1],
        "animal": animal,
        "n": 2 * half,
        "half": half,
        "women": women,
        "men": 2 * half - women,
        "weeks": 4 * (1 + rng.integer(6)),
        "age": rng.choice((12, 16, 18, 21)),
        "low": low,
        "high": low + 5 + rng.integer(30),
        "many": half // 2 + 1 + rng.integer(half // 2),
        "few": 1 + rng.integer(half // 4),
    }
    for name in ("adjective", "animal", "drug", "symptom"):
        slots[name.capitalize()] = str(slots[name]).capitalize()
    return slots
