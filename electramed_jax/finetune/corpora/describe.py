"""The list of corpora and the description of one, as text and as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from electramed_jax.finetune.corpora.registry import CORPORA
from electramed_jax.finetune.corpora.spec import published_scores
from electramed_jax.finetune.corpora.spec.corpus import Corpus

_NOT_JSON = ("read",)


def list_lines() -> list[str]:
    """Returns a line per corpus: name, kind, measure, registration, and the files that its reader was checked with."""
    width = max(map(len, CORPORA))
    return [
        f"{name:<{width}}  {corpus.kind:<14}  {corpus.measure}"
        + (f"; registration: {corpus.registration}" if corpus.registration else "")
        + f"; reader checked with {corpus.checked} files"
        for name, corpus in CORPORA.items()
    ]


def description_lines(corpus: Corpus) -> list[str]:
    """Returns everything about a corpus, a fact per line."""
    return [
        f"{corpus.name}: {corpus.kind}",
        f"home: {corpus.home}",
        f"licence: {corpus.licence}",
        f"registration: {corpus.registration or 'none'}",
        *(f"original files, {split}: {name}" for split, name in corpus.files.items()),
        f"splits: {corpus.splits}",
        f"labels: {', '.join(corpus.labels) or 'none'}",
        f"measure: {corpus.measure}",
        *(f"note: {trap}" for trap in corpus.traps),
        *(
            f"expected in {split}: {', '.join(f'{count:,} {what}' for what, count in counts.items())}"
            for split, counts in corpus.counts.items()
        ),
        *(f"setting: {name}={value}" for name, value in corpus.settings.items()),
        f"settings from: {corpus.settings_source}",
        *(
            f"published: {one.measure} {one.value:g}, {one.model}, on {one.variant} ({one.source})"
            for one in published_scores.scores_of(corpus.name)
        ),
        f"reader checked with {corpus.checked} files",
    ]


def to_json(corpus: Corpus) -> dict[str, Any]:
    """Returns the fields of a corpus, and "published": the scores of other models."""
    fields = [field.name for field in dataclasses.fields(corpus) if field.name not in _NOT_JSON]
    published = [one._asdict() for one in published_scores.scores_of(corpus.name)]
    return {name: getattr(corpus, name) for name in fields} | {"published": published}
