"""Contents of documents.json: the request, and the count of every record of every input, kept or dropped by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import electramed_jax
from electramed_jax.common.storage import files
from electramed_jax.data.corpus import corpus_dir, inputs
from electramed_jax.data.corpus.decontaminate import EvaluationIndex
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.readers.document import REPAIRED_PREFIX


def build_request(
    sources: Sequence[inputs.Source],
    config: FilterConfig,
    evaluation_paths: Sequence[str],
    near_duplicates: float | None,
) -> dict[str, Any]:
    """Returns everything the output depends on, as JSON."""
    names = inputs.short_names([source.path for source in sources])
    excluded = zip(inputs.short_names(evaluation_paths), map(files.sha256, evaluation_paths), strict=True)
    given = {key: value for key in ("name", "license") if (value := getattr(config, key))}
    return {
        **given,
        "inputs": [[name, source.size()] for name, source in zip(names, sources, strict=True)],
        "validation": config.validation,
        "test": config.test,
        "min_chars": config.min_chars,
        "languages": list(config.languages),
        "reading": config.read_options.to_request(),
        "exclude": [list(name_and_sha256) for name_and_sha256 in excluded],
        "near_duplicates": near_duplicates,
        "code_version": electramed_jax.__version__,
    }


def corpus_stats(
    request: dict[str, Any],
    counts: Sequence[dict[str, Any]],
    written: Sequence[dict[str, Any]],
    index: EvaluationIndex | None,
) -> dict[str, Any]:
    """Returns the contents of documents.json from the counts of reading and writing each input.

    For each input, `read` = `kept` + the sum of `dropped`. Reasons are those of the readers, `normalize.drop_reason`,
    "language", "held_out", and `dedup.REASONS`. A dropped record has one reason, the first that applied. Each
    evaluation file counts every document that matches it. An input that yields (almost) nothing has the reason as
    `unusable`.

    Args:
      request: of `build_request`.
      counts: `InputStats.to_json` of each input.
      written: result of `stages.write_parts` for each input.
      index: of the evaluation files, if any.
    """
    input_rows = []
    dropped: Counter[str] = Counter()
    repaired: Counter[str] = Counter()
    held_out: Counter[tuple[int, str]] = Counter()
    for (name, _), input_counts, parts in zip(request["inputs"], counts, written, strict=True):
        drops = Counter(input_counts["drops"])
        repairs = {reason: drops.pop(reason) for reason in list(drops) if reason.startswith(REPAIRED_PREFIX)}
        drops += Counter(parts["lost"])
        dropped += drops
        repaired += Counter(repairs)
        held_out += Counter({(file, kind): count for file, kind, count in input_counts["held_out"]})
        input_rows.append(
            {
                "file": name,
                "read": input_counts["read"],
                "kept": sum(part["documents"] for part in parts["splits"].values()),
                "dropped": dict(drops),
                "repaired": repairs,
                "formats": input_counts.get("formats", {}),
                "licenses": _licenses(parts.get("licenses", {}), request.get("license", "")),
                "sha256": {split: part["sha256"] for split, part in parts["splits"].items()},
            }
            | ({"unusable": input_counts["unusable"]} if input_counts.get("unusable") else {})
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
        "dropped": dict(dropped),
        "repaired": dict(repaired),
        "exclude": _evaluation_rows(request["exclude"], held_out, index),
        "inputs": input_rows,
    }


def _licenses(counts: dict[str, int], default: str) -> dict[str, int]:
    """Returns {licence: documents}, with the licence of the request for documents of inputs that state none."""
    found: Counter[str] = Counter()
    for name, count in counts.items():
        found[name or default] += count
    return dict(sorted(found.items()))


def _evaluation_rows(
    evaluation_files: Sequence[Sequence[str]], held_out: Counter[tuple[int, str]], index: EvaluationIndex | None
) -> list[dict[str, Any]]:
    if index is None:
        return []
    indexed = index.count_by_file(len(evaluation_files))
    return [
        {
            "file": name,
            "sha256": sha256,
            **counts,
            "held_out": {kind: held_out[number, kind] for kind in ("pmid", "sentence")},
        }
        for number, ((name, sha256), counts) in enumerate(zip(evaluation_files, indexed, strict=True))
    ]
