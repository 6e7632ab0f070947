"""Builds a documents folder from input files with a pool of processes: read, clean, deduplicate, split.

The output depends on the inputs and the options, not on the number of processes. A run that was killed resumes.
Stages, each with one task per input or per group of keys:

  read      `filtering.read_source` of one input: lines, and keys for deduplication
  PMIDs     `dedup.superseded_mask` of a group of PMIDs: dropped rows, and the text keys of the remaining documents;
            `dedup.same_article_rows` of the identifiers of articles, if there are any
  texts     `dedup.duplicate_mask` of a group of texts: dropped rows
  (signatures and near-duplicates, if enabled: see `build_near_duplicates`)
  write     `stages.write_parts` of one input: its lines without the dropped rows

All decisions and all writing of parts are in these functions, which do not depend on the pool; `build_beam` calls them
from an Apache Beam pipeline and writes the same folder. Between the stages, `shuffle_files` groups the keys. A process
holds the keys of one group (about DOCUMENTS_PER_GROUP) and the dropped rows of one input, for any size of the corpus.

A finished documents folder can be an input together with newer files: records that the files supersede or withdraw are
dropped, as if all had been read at once. One difference remains: documents dropped when the folder was built are not
stored. A duplicate is not restored when the document it duplicated is withdrawn or revised later, and a dropped record
does not supersede an older one in a later file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import numpy as np

from electramed_jax.common import console
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes.memory import peak_bytes
from electramed_jax.common.storage import files
from electramed_jax.data.corpus import (
    build_near_duplicates,
    corpus_dir,
    decontaminate,
    dedup,
    inputs,
    minhash,
    stages,
    stats,
)
from electramed_jax.data.corpus.filtering import FilterConfig, InputStats
from electramed_jax.data.corpus.inputs import Source
from electramed_jax.data.corpus.stages import DroppedRows
from electramed_jax.data.parallel import build_dir, shuffle_files
from electramed_jax.data.parallel.beam_runner import BeamRunner
from electramed_jax.data.parallel.process_pool import ProcessPool

DOCUMENTS_PER_GROUP = 500_000  # 30 MB of keys, and a few times that while they are sorted


class ReadCounts(TypedDict):
    """Counts of reading one input, in the scratch folder; see `filtering.InputStats`."""

    read: int
    drops: dict[str, int]
    held_out: list[list[Any]]
    files_of_keys: int


class WrittenCounts(TypedDict):
    """Counts of writing the parts of one input, in the scratch folder; see `stages.write_parts`."""

    splits: dict[str, dict[str, Any]]
    lost: dict[str, int]


def prepare(
    patterns: Iterable[str],
    output_dir: str,
    config: FilterConfig = FilterConfig(),
    *,
    workers: int | None = None,
    evaluation_files: Iterable[str] = (),
    near_duplicates: float | None = None,
    beam: BeamRunner | None = None,
) -> dict[str, Any]:
    """Builds a documents folder (see `corpus_dir`); returns the contents of its documents.json.

    Args:
      patterns: paths and glob patterns of files, names of datasets (see `reader`), and documents folders, which are
        read first.
      output_dir: folder to create, or to complete if an earlier run was killed.
      config: what is kept, and the sizes of the splits.
      workers: number of processes; None is one per core.
      evaluation_files: paths or patterns; a document that shares a PMID or a long sentence with one of these files is
        dropped as `held_out`.
      near_duplicates: similarity, 0.5 to 1, from which a document is dropped as a `near_duplicate` of an earlier one;
        None keeps near-duplicates.
      beam: runs the stages in an Apache Beam pipeline instead of `workers` local processes.

    Raises:
      UserError: no input, no document left, or `output_dir` contains something else.
    """
    if near_duplicates is not None:
        minhash.check_threshold(near_duplicates)
    patterns = list(patterns)
    if beam is not None:
        beam.check([output_dir, *patterns])
    sources = inputs.find_sources(patterns)
    evaluation_paths = files.glob(evaluation_files)
    request = stats.build_request(sources, config, evaluation_paths, near_duplicates)
    if files.exists(files.join(output_dir, corpus_dir.FILE)):
        return _read_finished(output_dir, request)
    work = build_dir.open_build_dir(output_dir, request, lambda name: name in corpus_dir.SPLITS)
    index_path = _build_index(work, evaluation_paths, request)
    if beam is None:
        counts, written = _run(workers, work, output_dir, sources, config, index_path, near_duplicates)
    else:
        from electramed_jax.data.corpus import build_beam

        counts, written = build_beam.run(beam, work, output_dir, sources, config, index_path, near_duplicates)
    index = decontaminate.load_index(index_path) if index_path else None
    info = stats.corpus_stats(request, counts, written, index)
    if not any(split["documents"] for split in info["splits"].values()):
        unusable = [f"{row['file']}: {row['unusable']}" for row in info["inputs"] if "unusable" in row]
        raise UserError(
            f"no document left of {len(sources)} files; dropped: {info['dropped'] or 'none'}; "
            + (f"first unusable file: {unusable[0]}" if unusable else "check that the inputs contain text")
        )
    files.write_json(files.join(output_dir, corpus_dir.FILE), info)
    build_dir.close_build_dir(output_dir)
    if beam is None:
        console.say(f"memory: at most {peak_bytes() / 1e6:,.0f} MB in one process")
    return info


def _run(
    workers: int | None,
    work: str,
    output_dir: str,
    sources: Sequence[Source],
    config: FilterConfig,
    index_path: str | None,
    near_duplicates: float | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Writes the parts; returns the counts of reading and of writing of each input."""
    with ProcessPool(workers) as pool:
        read_tasks = [(work, number, source, config, index_path) for number, source in enumerate(sources)]
        counts = list(
            pool.run(_read_input, read_tasks, "reading", inside="documents", count=lambda found: found["read"])
        )
        groups = _slot_groups(counts)
        dropped = _deduplicate(pool, work, counts, groups, config.read_options.full_text)
        if near_duplicates is not None:
            dropped = build_near_duplicates.find_near_duplicates(pool, dropped, groups, near_duplicates)
        with_articles = any(input_counts.get("articles") for input_counts in counts)
        write_tasks = [(output_dir, number, dropped, with_articles) for number in range(len(sources))]
        written = pool.run(_write_input, write_tasks, "writing", inside="documents", count=_num_documents)
        return counts, list(written)


def _read_finished(output_dir: str, request: dict[str, Any]) -> dict[str, Any]:
    """Returns the documents.json of a finished `output_dir`.

    Raises:
      UserError: it was built from another request.
    """
    info = corpus_dir.read_documents_info(output_dir)
    if info["request"] != request:
        raise UserError(
            f"{output_dir}: contains documents of another request (other inputs, options or "
            "program version); choose another --output, or remove it"
        )
    build_dir.close_build_dir(output_dir)
    console.say(f"{output_dir}: already prepared from the same inputs; nothing to do")
    return info


def _build_index(work: str, evaluation_paths: Sequence[str], request: dict[str, Any]) -> str | None:
    """Writes the index of the evaluation files and returns its path; None without such files.

    The path contains a hash of the request, because processes cache the index by its path.
    """
    if not evaluation_paths:
        return None
    path = files.join(work, f"held_out-{corpus_dir.stable_hash(repr(request['exclude'])):016x}.npz")
    if not files.exists(path):
        decontaminate.read_index(evaluation_paths).save(path)
    return path


def _read_input(work: str, number: int, source: Source, config: FilterConfig, index_path: str | None) -> dict[str, Any]:
    """Writes the lines of one input to a file and their keys to others; returns the counts."""
    done = files.join(work, f"counts-{number:05d}.json")
    if files.exists(done):
        return dict(files.read_json(done, ReadCounts, advice=build_dir.ADVICE))
    input_stats = InputStats()
    slots = shuffle_files.HASH_SLOTS
    with (
        shuffle_files.Writer(_keys_prefix(work, number), stages.key_slots, slots) as key_writer,
        shuffle_files.Writer(_links_prefix(work, number), stages.link_slots, slots) as link_writer,
    ):
        for keys, links in stages.filter_input(work, number, source, config, index_path, input_stats):
            key_writer.write(keys)
            if len(links):
                link_writer.write(links)
    counts = input_stats.to_json() | {"files_of_keys": key_writer.files, "files_of_links": link_writer.files}
    files.write_json(done, counts)
    return counts


def _deduplicate(
    pool: ProcessPool,
    work: str,
    counts: Sequence[dict[str, Any]],
    groups: Sequence[tuple[int, int]],
    full_text: str,
) -> DroppedRows:
    dropped = DroppedRows(work, len(counts))
    links = [
        shuffle_files.file_path(_links_prefix(work, number), file)
        for number, input_counts in enumerate(counts)
        for file in range(input_counts.get("files_of_links", 0))
    ]
    keys = [
        shuffle_files.file_path(_keys_prefix(work, number), file)
        for number, input_counts in enumerate(counts)
        for file in range(input_counts["files_of_keys"])
    ]
    pmid_tasks = [(keys, links, full_text, dropped, *group) for group in groups]
    pmid_groups = list(pool.run(_deduplicate_pmids, pmid_tasks, "comparing PMIDs", unit="groups"))
    texts = [_texts_path(work, *group) for group in groups]
    text_tasks = [(texts, dropped, *group) for group in groups]
    text_groups = list(pool.run(_deduplicate_texts, text_tasks, "comparing texts", unit="groups"))
    return dropped.with_groups([*pmid_groups, *text_groups])


def _deduplicate_pmids(
    keys: Sequence[str], links: Sequence[str], full_text: str, dropped: DroppedRows, first: int, end: int
) -> str:
    """Writes the dropped rows of a group of PMIDs and the text keys of the others; returns the group's name."""
    name = f"pmids-{first:03d}-{end:03d}"
    if not dropped.has_group(name):
        group = shuffle_files.read(keys, dedup.KEY_DTYPE, shuffle_files.HASH_SLOTS, first, end)
        reasons = dedup.superseded_mask(group)
        texts = dedup.remaining_texts(group, reasons)
        slots = shuffle_files.hash_slots(texts["text"])
        shuffle_files.write(_texts_path(dropped.folder, first, end), texts, slots, shuffle_files.HASH_SLOTS)
        rows = dedup.dropped_rows(group, reasons)
        if links:
            group_links = shuffle_files.read(links, dedup.LINK_DTYPE, shuffle_files.HASH_SLOTS, first, end)
            rows = np.concatenate([rows, dedup.linked_rows(group_links, group, reasons, full_text)])
        dropped.write_group(name, rows)
    return name


def _deduplicate_texts(texts: Sequence[str], dropped: DroppedRows, first: int, end: int) -> str:
    """Writes the dropped rows of a group of texts; returns the group's name."""
    name = f"texts-{first:03d}-{end:03d}"
    if not dropped.has_group(name):
        group = shuffle_files.read(texts, dedup.TEXT_DTYPE, shuffle_files.HASH_SLOTS, first, end)
        dropped.write_group(name, dedup.dropped_rows(group[dedup.duplicate_mask(group)], dedup.DUPLICATE))
    return name


def _write_input(output_dir: str, number: int, dropped: DroppedRows, with_articles: bool) -> dict[str, Any]:
    """Writes the parts of one input and removes its lines; returns the counts."""
    work = dropped.folder
    done = files.join(work, f"written-{number:05d}.json")
    if not files.exists(done):
        written = stages.write_input(output_dir, work, number, dropped.read_input(number), with_articles)
        files.write_json(done, written)
    stages.remove_lines(work, number)
    return dict(files.read_json(done, WrittenCounts, advice=build_dir.ADVICE))


def _slot_groups(counts: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    """Returns the hash slots [first, end) of each group: the fewest groups of at most DOCUMENTS_PER_GROUP."""
    min_groups = sum(input_counts["read"] for input_counts in counts) / DOCUMENTS_PER_GROUP
    slots = shuffle_files.HASH_SLOTS
    while slots > 1 and shuffle_files.HASH_SLOTS / slots < min_groups:
        slots //= 2
    return [(first, first + slots) for first in range(0, shuffle_files.HASH_SLOTS, slots)]


def _num_documents(written: dict[str, Any]) -> int:
    return sum(part["documents"] for part in written["splits"].values())


def _keys_prefix(work: str, number: int) -> str:
    return files.join(work, f"keys-{number:05d}")


def _links_prefix(work: str, number: int) -> str:
    return files.join(work, f"links-{number:05d}")


def _texts_path(work: str, first: int, end: int) -> str:
    return files.join(work, f"texts-{first:03d}-{end:03d}")
