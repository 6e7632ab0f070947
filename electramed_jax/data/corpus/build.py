"""Files to documents over a pool of processes: read, clean, deduplicate, split; one part per input.

The output depends on the inputs and the options, not on the number of processes, and a run that was
killed is taken up where it stopped. The stages, each one task per input or per group of keys:

  read      `reading.read_source` of one input -> its lines, and keys that tell of its documents
  PMIDs     `dedup.outdated` of the keys of a group of PMIDs -> losses, and the texts' keys of the rest
  texts     `dedup.repeated` of the keys of a group of texts -> losses
  (sign, resemble: see `build_near_duplicates`, where these are to go)
  write     `documents_stages.write_parts` of one input's lines without what it lost

All that decides and all that writes a part is in those functions, which know no pool: with `beam` a
pipeline calls them (see `build_documents_beam`) and makes the same folder. Between the stages keys are
regrouped by `shuffle`: no process holds more than the keys of one group, about DOCUMENTS_PER_GROUP, and
what one input lost, however large the corpus and its files.

A finished documents folder can be an input beside newer files: what these supersede or withdraw
goes, as if all had been read at once. Only what was dropped when the folder was made is gone. A
document that lost to one of equal text does not come back when that one is withdrawn or revised
later, and a record that was dropped supersedes no older one that a later file may bring.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from electramed_jax.common import console
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.corpus import build_near_duplicates, corpus_dir, decontaminate, dedup, minhash, stages, stats
from electramed_jax.data.corpus import inputs as sources
from electramed_jax.data.corpus.filtering import MIN_CHARS, FilterConfig, InputStats
from electramed_jax.data.corpus.stages import DroppedRows
from electramed_jax.data.parallel import build_dir, shuffle_files
from electramed_jax.data.parallel.beam_runner import BeamRunner
from electramed_jax.data.parallel.process_pool import ProcessPool, peak_bytes
from electramed_jax.data.readers import document

DOCUMENTS_PER_GROUP = 500_000  # 30 MB of keys, and a few times that while they are sorted


def prepare(
    inputs: Iterable[str],
    output_dir: str,
    *,
    validation: float = 0.01,
    test: float = 0.01,
    workers: int | None = None,
    strict: bool = False,
    min_chars: int = MIN_CHARS,
    reading: document.PubmedOptions = document.PubmedOptions(),
    languages: Iterable[str] = (),
    exclude: Iterable[str] = (),
    near_duplicates: float | None = None,
    beam: BeamRunner | None = None,
) -> dict[str, Any]:
    """Makes a documents folder (see `corpus`); returns its account.

    Args:
      inputs: paths or glob patterns of what `documents.read` takes, and documents folders, which
        come first.
      validation, test, strict, min_chars, reading, languages: see `reading.Choices`.
      exclude: paths or patterns of evaluation files; a document that shares a PMID or a long
        sentence with one is dropped as `held_out`.
      near_duplicates: the similarity from which a document that resembles an earlier one is dropped
        as `near_duplicate`; None keeps them all.
      beam: has a pipeline do the work instead of `workers` processes here.

    Raises:
      UserError: no input, no document left, an output folder that holds something else.
    """
    choices = FilterConfig(validation, test, min_chars, tuple(languages), strict, reading)
    if near_duplicates is not None:
        minhash.check(near_duplicates)
    inputs = list(inputs)
    if beam is not None:
        beam.check([output_dir, *inputs])
    inputs = sources.find(inputs)
    evaluation = files.glob(exclude)
    request = stats.request(inputs, choices, evaluation, near_duplicates)
    if files.exists(files.join(output_dir, corpus_dir.FILE)):
        return _finished(output_dir, request)
    work = build_dir.open_build_dir(output_dir, request, lambda name: name in corpus_dir.SPLITS)
    index = _index(work, evaluation, request)
    if beam is None:
        counts, written = _run(workers, work, output_dir, inputs, choices, index, near_duplicates)
    else:
        from electramed_jax.data.corpus import build_beam as build_documents_beam

        counts, written = build_documents_beam.run(beam, work, output_dir, inputs, choices, index, near_duplicates)
    account = stats.corpus_stats(request, counts, written, decontaminate.load(index) if index else None)
    if not any(split["documents"] for split in account["splits"].values()):
        raise UserError(
            f"no document left of {len(inputs)} files; dropped: {account['dropped'] or 'none'}; "
            "check that the inputs hold text"
        )
    files.write_json(files.join(output_dir, corpus_dir.FILE), account)
    build_dir.close_build_dir(output_dir)
    if beam is None:
        console.say(f"memory: at most {peak_bytes() / 1e6:,.0f} MB in one process")
    return account


def _run(
    workers: int | None,
    work: str,
    output_dir: str,
    inputs: Sequence[sources.Source],
    choices: FilterConfig,
    index: str | None,
    near_duplicates: float | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Writes the parts; what reading and writing counted of each input."""
    with ProcessPool(workers) as pool:
        tasks = [(work, number, source, choices, index) for number, source in enumerate(inputs)]
        counts = list(pool.run(_read, tasks, "reading", inside="documents", count=lambda found: found["read"]))
        groups = _groups(counts)
        losses = _deduplicate(pool, work, counts, groups)
        if near_duplicates is not None:
            losses = build_near_duplicates.find(pool, losses, groups, near_duplicates)
        tasks = [(output_dir, number, losses) for number in range(len(inputs))]
        return counts, list(pool.run(_write, tasks, "writing", inside="documents", count=_documents_in))


def _finished(output_dir: str, request: dict[str, Any]) -> dict[str, Any]:
    """The account of the folder that stands in `output_dir`, if it is the one asked for."""
    account = corpus_dir.read_documents_info(output_dir)
    if account["request"] != request:
        raise UserError(
            f"{output_dir}: holds documents of another request (other inputs, options or "
            "program version); choose another --output, or remove it"
        )
    build_dir.close_build_dir(output_dir)
    console.say(f"{output_dir}: already prepared from the same inputs; nothing to do")
    return account


def _index(work: str, evaluation: Sequence[str], request: dict[str, Any]) -> str | None:
    """The path of the index of the evaluation files; its name tells which, as processes keep it in memory."""
    if not evaluation:
        return None
    path = files.join(work, f"held_out-{corpus_dir.stable_hash(repr(request['exclude'])):016x}.npz")
    if not files.exists(path):
        decontaminate.read(evaluation).save(path)
    return path


def _read(work: str, number: int, source: sources.Source, choices: FilterConfig, index: str | None) -> dict[str, Any]:
    """Puts the lines of one input into a file and their keys into others; counts what it read."""
    done = files.join(work, f"counts-{number:05d}.json")
    if files.exists(done):
        return files.read_json(done)
    tally = InputStats()
    with shuffle_files.Writer(_keys_prefix(work, number), stages.slots_of_keys, shuffle_files.HASH_SLOTS) as keys:
        for some in stages.filter_input(work, number, source, choices, index, tally):
            keys.write(some)
    counts = tally.as_json() | {"files_of_keys": keys.files}
    files.write_json(done, counts)
    return counts


def _deduplicate(
    pool: ProcessPool, work: str, counts: Sequence[dict[str, Any]], groups: Sequence[tuple[int, int]]
) -> DroppedRows:
    losses = DroppedRows(work, len(counts))
    keys = [
        shuffle_files.file_path(_keys_prefix(work, number), file)
        for number, of_input in enumerate(counts)
        for file in range(of_input["files_of_keys"])
    ]
    tasks = [(keys, losses, *group) for group in groups]
    of_pmids = list(pool.run(_decide_pmids, tasks, "comparing PMIDs", unit="groups"))
    texts = [_texts_path(work, *group) for group in groups]
    tasks = [(texts, losses, *group) for group in groups]
    of_texts = list(pool.run(_decide_texts, tasks, "comparing texts", unit="groups"))
    return losses.and_of([*of_pmids, *of_texts])


def _decide_pmids(keys: Sequence[str], losses: DroppedRows, first: int, end: int) -> str:
    """Finds the losses of a group of PMIDs, and the texts' keys of what is left; returns its name."""
    name = f"pmids-{first:03d}-{end:03d}"
    if not losses.has(name):
        group = shuffle_files.read(keys, dedup.KEY_DTYPE, shuffle_files.HASH_SLOTS, first, end)
        reasons = dedup.superseded_mask(group)
        texts = dedup.texts_of(group, reasons)
        slots = shuffle_files.hash_slots(texts["text"])
        shuffle_files.write(_texts_path(losses.folder, first, end), texts, slots, shuffle_files.HASH_SLOTS)
        losses.write(name, dedup.dropped_rows(group, reasons))
    return name


def _decide_texts(texts: Sequence[str], losses: DroppedRows, first: int, end: int) -> str:
    """Finds the losses of a group of texts; returns its name."""
    name = f"texts-{first:03d}-{end:03d}"
    if not losses.has(name):
        group = shuffle_files.read(texts, dedup.TEXT_DTYPE, shuffle_files.HASH_SLOTS, first, end)
        losses.write(name, dedup.dropped_rows(group[dedup.duplicate_mask(group)], dedup.DUPLICATE))
    return name


def _write(output_dir: str, number: int, losses: DroppedRows) -> dict[str, Any]:
    """Puts the parts of one input in place, and its lines away."""
    work = losses.folder
    done = files.join(work, f"written-{number:05d}.json")
    if not files.exists(done):
        written = stages.write_input(output_dir, work, number, losses.of(number))
        files.write_json(done, written)
    stages.remove_lines(work, number)
    return files.read_json(done)


def _groups(counts: Sequence[dict[str, Any]]) -> list[tuple[int, int]]:
    """The hash slots [first, end) of each group: as few groups as have DOCUMENTS_PER_GROUP or less."""
    wanted = sum(of_input["read"] for of_input in counts) / DOCUMENTS_PER_GROUP
    slots = shuffle_files.HASH_SLOTS
    while slots > 1 and shuffle_files.HASH_SLOTS / slots < wanted:
        slots //= 2
    return [(first, first + slots) for first in range(0, shuffle_files.HASH_SLOTS, slots)]


def _documents_in(written: dict[str, Any]) -> int:
    return sum(figures["documents"] for figures in written["splits"].values())


def _keys_prefix(work: str, number: int) -> str:
    return files.join(work, f"keys-{number:05d}")


def _texts_path(work: str, first: int, end: int) -> str:
    return files.join(work, f"texts-{first:03d}-{end:03d}")
