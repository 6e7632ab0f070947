"""The account of a documents folder: what was asked for, and what became of every record of every input."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import electramed_jax
from electramed_jax.common.storage import files
from electramed_jax.data.corpus import corpus_dir, decontaminate
from electramed_jax.data.corpus import inputs as sources
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.readers import document


def request(
    inputs: Sequence[sources.Source], choices: FilterConfig, evaluation: Sequence[str], near_duplicates: float | None
) -> dict[str, Any]:
    """Everything the output depends on, as JSON."""
    names = sources.short_names([source.path for source in inputs])
    excluded = zip(sources.short_names(evaluation), map(files.sha256, evaluation), strict=True)
    return {
        "inputs": [[name, source.size()] for name, source in zip(names, inputs, strict=True)],
        "validation": choices.validation,
        "test": choices.test,
        "min_chars": choices.min_chars,
        "languages": list(choices.languages),
        "reading": dataclasses.asdict(choices.reading),
        "exclude": [list(of_file) for of_file in excluded],
        "near_duplicates": near_duplicates,
        "code_version": electramed_jax.__version__,
    }


def corpus_stats(
    request: dict[str, Any],
    counts: Sequence[dict[str, Any]],
    written: Sequence[dict[str, Any]],
    evaluation: decontaminate.Index | None,
) -> dict[str, Any]:
    """The account, from what reading and writing counted of each input.

    Of each input `read_documents_info` = `kept` + the sum of `dropped`, by reason: those of `documents.read`,
    `clean.reason_to_drop`, "language", "held_out", and of `dedup.REASONS`. A record has one reason, the first
    that applied; an evaluation file counts each document it would have held out by itself.
    """
    inputs, total, repairs, held = [], Counter(), Counter(), Counter()
    for (name, _), of_input, parts in zip(request["inputs"], counts, written, strict=True):
        drops = Counter(of_input["drops"])
        repaired = {reason: drops.pop(reason) for reason in list(drops) if reason.startswith(document.REPAIRED_PREFIX)}
        drops += Counter(parts["lost"])
        total += drops
        repairs += Counter(repaired)
        held += Counter({(file, how): count for file, how, count in of_input["held_out"]})
        inputs.append(
            {
                "file": name,
                "read": of_input["read"],
                "kept": sum(figures["documents"] for figures in parts["splits"].values()),
                "dropped": dict(drops),
                "repaired": repaired,
                "sha256": {split: figures["sha256"] for split, figures in parts["splits"].items()},
            }
        )
    splits = {
        split: {key: sum(parts["splits"][split][key] for parts in written) for key in ("documents", "bytes")}
        for split in corpus_dir.SPLITS
    }
    return {
        "format_version": corpus_dir.FORMAT_VERSION,
        "code_version": electramed_jax.__version__,
        "request": request,
        "splits": splits,
        "dropped": dict(total),
        "repaired": dict(repairs),
        "exclude": _excluded(request["exclude"], held, evaluation),
        "inputs": inputs,
    }


def _excluded(
    evaluation_files: Sequence[Sequence[str]], held: Counter, evaluation: decontaminate.Index | None
) -> list[dict[str, Any]]:
    if evaluation is None:
        return []
    sought = evaluation.counts(len(evaluation_files))
    return [
        {"file": name, "sha256": sha256, **numbers, "held_out": {how: held[n, how] for how in ("pmid", "sentence")}}
        for n, ((name, sha256), numbers) in enumerate(zip(evaluation_files, sought, strict=True))
    ]
