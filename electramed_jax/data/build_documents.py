"""Files to documents: read, clean, split and deduplicate over a pool, one part per input.

The output depends on the inputs and the options, not on the number of processes, and an
interrupted run is taken up where it stopped. Two documents are duplicates when their cleaned texts
are equal, or when both are PubMed articles of one PMID; the first in the order of the (sorted)
inputs stays. An abstract and a full text of one PMID are two documents, in the same split.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import IO, Any

import numpy as np

import electramed_jax
from electramed_jax.common import console, files
from electramed_jax.common.errors import UserError
from electramed_jax.data import clean, corpus, documents, pool, workspace

MIN_CHARS = 32
PUBMED = "pubmed"
_GZIP_LEVEL = 6


def prepare(
    inputs: Iterable[str],
    output_dir: str,
    *,
    validation: float = 0.01,
    test: float = 0.01,
    workers: int | None = None,
    strict: bool = False,
    min_chars: int = MIN_CHARS,
    reading: documents.Reading = documents.Reading(),
) -> dict[str, Any]:
    """Makes a documents folder (see `corpus`) from files or patterns; returns its account.

    Args:
      inputs: paths or glob patterns of what `documents.read` takes.
      validation, test: fractions of the documents.
      strict: raise at the first damaged piece instead of counting it.
      min_chars: a shorter document (title and sections) is dropped as `too_short`.
      reading: of PubMed records.

    Raises:
      UserError: no input, no document left, an output folder that holds something else.
    """
    if not (0 <= validation and 0 <= test and validation + test < 1):
        raise UserError(f"validation={validation}, test={test}: wanted fractions from 0 with a sum below 1")
    paths = documents.find(inputs)
    if not paths:
        raise UserError("no input files; give at least one path or pattern with --input")
    names = _short_names(paths)
    request = {
        "inputs": [[name, documents.size(path)] for name, path in zip(names, paths, strict=True)],
        "validation": validation,
        "test": test,
        "min_chars": min_chars,
        "reading": dataclasses.asdict(reading),
        "code_version": electramed_jax.__version__,
    }
    if files.exists(files.join(output_dir, corpus.FILE)):
        account = corpus.read(output_dir)
        if account["request"] != request:
            raise UserError(
                f"{output_dir}: holds documents of another request (other inputs, options or "
                "program version); choose another --output, or remove it"
            )
        workspace.close(output_dir)
        console.say(f"{output_dir}: already prepared from the same inputs; nothing to do")
        return account
    work = workspace.open_in(output_dir, request, lambda name: name in corpus.SPLITS)
    stage = [(path, work, number, validation, test, strict, min_chars, reading) for number, path in enumerate(paths)]
    found = list(pool.run(_stage, stage, workers, "reading"))
    duplicates = _duplicates([_load_keys(work, number) for number in range(len(paths))])
    finish = [(work, output_dir, number, rows) for number, rows in enumerate(duplicates)]
    finished = list(pool.run(_finish, finish, workers, "deduplicating"))
    account = _account(names, found, finished, request)
    if not sum(split["documents"] for split in account["splits"].values()):
        raise UserError(
            f"no document left of {len(paths)} files; dropped: {account['dropped'] or 'none'}; "
            "check that the inputs hold text"
        )
    files.write_json(files.join(output_dir, corpus.FILE), account)
    workspace.close(output_dir)
    return account


@dataclasses.dataclass(frozen=True)
class _Keys:
    """What deduplication needs of each document of a part.

    Attributes:
      text: uint64[n], hash of the text; pmid: int64[n], 0 for none; split: uint8[n], its number.
    """

    text: np.ndarray
    pmid: np.ndarray
    split: np.ndarray


def _short_names(paths: Sequence[str]) -> list[str]:
    """Names without the folder all inputs share: an account does not depend on where they lie."""
    shared = os.path.commonprefix(list(paths))
    return [path[shared.rfind("/") + 1 :] for path in paths]


def _staged(work: str, split: str, number: int) -> str:
    return files.join(work, f"{split}-{number:05d}.jsonl.gz")


def _stage(
    path: str,
    work: str,
    number: int,
    validation: float,
    test: float,
    strict: bool,
    min_chars: int,
    reading: documents.Reading,
) -> dict[str, Any]:
    """Reads one input into one scratch part per split; returns {"read", "drops"}."""
    done = files.join(work, f"counts-{number:05d}.json")
    if files.exists(done):
        return files.read_json(done)
    drops: Counter = Counter()
    texts, pmids, splits = [], [], []
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(_gzip_writer(_staged(work, split, number))) for split in corpus.SPLITS]
        for document in documents.read(path, drops, strict, reading):
            document = _cleaned(document)
            text = document.text
            if reason := clean.reason_to_drop(text, min_chars):
                drops[reason] += 1
                continue
            split = corpus.SPLITS.index(corpus.split_of(document, validation, test))
            outputs[split].write(corpus.to_line(document))
            texts.append(corpus.stable_hash(text))
            pmids.append(document.pmid or 0 if document.source == PUBMED else 0)
            splits.append(split)
    with files.atomic_write(files.join(work, f"keys-{number:05d}.npz")) as file:
        np.savez(
            file,
            text=np.array(texts, np.uint64),
            pmid=np.array(pmids, np.int64),
            split=np.array(splits, np.uint8),
        )
    repaired = sum(n for reason, n in drops.items() if reason.startswith(documents.REPAIRED))
    counts = {"read": len(texts) + drops.total() - repaired, "drops": dict(sorted(drops.items()))}
    files.write_json(done, counts)
    return counts


def _cleaned(document: documents.Document) -> documents.Document:
    sections = ((clean.clean(label) or None if label else None, clean.clean(text)) for label, text in document.sections)
    return dataclasses.replace(
        document,
        id=clean.clean(document.id),
        title=clean.clean(document.title),
        sections=tuple((label, text) for label, text in sections if text),
        source=clean.clean(document.source),
    )


@contextlib.contextmanager
def _gzip_writer(path: str) -> Iterable[IO[bytes]]:
    """A gzip file whose bytes depend on nothing but what is written: no time, no name."""
    with (
        files.atomic_write(path) as raw,
        gzip.GzipFile("", "wb", _GZIP_LEVEL, fileobj=raw, mtime=0) as file,
    ):
        yield file


def _load_keys(work: str, number: int) -> _Keys:
    with files.open_read(files.join(work, f"keys-{number:05d}.npz")) as file:
        arrays = np.load(file)
        return _Keys(arrays["text"], arrays["pmid"], arrays["split"])


def _duplicates(parts: Sequence[_Keys]) -> list[dict[str, list[int]]]:
    """For each part and split, the rows that repeat an earlier document."""
    texts = np.concatenate([part.text for part in parts])
    pmids = np.concatenate([part.pmid for part in parts])
    repeated = _repeats(texts) | (_repeats(pmids) & (pmids != 0))
    ends = np.cumsum([len(part.text) for part in parts])[:-1]
    found = []
    for part, again in zip(parts, np.split(repeated, ends), strict=True):
        of_split = [again[part.split == number] for number in range(len(corpus.SPLITS))]
        rows = [np.flatnonzero(flags).tolist() for flags in of_split]
        found.append(dict(zip(corpus.SPLITS, rows, strict=True)))
    return found


def _repeats(values: np.ndarray) -> np.ndarray:
    """bool[n]: whether the same value stands earlier."""
    again = np.ones(len(values), bool)
    again[np.unique(values, return_index=True)[1]] = False
    return again


def _finish(work: str, output_dir: str, number: int, duplicates: dict[str, list[int]]) -> dict[str, dict[str, Any]]:
    """Puts the scratch parts of one input in place without the duplicates; counts what is there."""
    figures = {}
    for split, rows in duplicates.items():
        staged, final = _staged(work, split, number), corpus.part_path(output_dir, split, number)
        if not files.exists(final):
            if rows:
                unique = files.join(work, f"unique-{split}-{number:05d}.jsonl.gz")
                _copy_without(staged, unique, set(rows))
                staged = unique
            files.make_dirs(files.join(output_dir, split))
            files.move(staged, final)
        with files.open_read(final) as raw, gzip.GzipFile(fileobj=raw) as lines:
            sizes = [len(line) for line in lines]
        figures[split] = {
            "documents": len(sizes),
            "bytes": sum(sizes),
            "sha256": files.sha256(final),
        }
    return figures


def _copy_without(source: str, target: str, skipped: set[int]) -> None:
    with (
        files.open_read(source) as raw,
        gzip.GzipFile(fileobj=raw) as lines,
        _gzip_writer(target) as output,
    ):
        for number, line in enumerate(lines):
            if number not in skipped:
                output.write(line)


def _account(
    names: Sequence[str],
    found: Sequence[dict[str, Any]],
    finished: Sequence[dict[str, dict[str, Any]]],
    request: dict[str, Any],
) -> dict[str, Any]:
    inputs, total, repairs = [], Counter(), Counter()
    for name, counts, splits in zip(names, found, finished, strict=True):
        drops = Counter(counts["drops"])
        repaired = {r: drops.pop(r) for r in list(drops) if r.startswith(documents.REPAIRED)}
        kept = sum(figures["documents"] for figures in splits.values())
        if duplicates := counts["read"] - drops.total() - kept:
            drops["duplicate"] = duplicates
        total += drops
        repairs += Counter(repaired)
        inputs.append(
            {
                "file": name,
                "read": counts["read"],
                "kept": kept,
                "dropped": dict(drops),
                "repaired": repaired,
                "sha256": {split: figures["sha256"] for split, figures in splits.items()},
            }
        )
    splits = {
        split: {key: sum(part[split][key] for part in finished) for key in ("documents", "bytes")}
        for split in corpus.SPLITS
    }
    return {
        "format_version": corpus.FORMAT_VERSION,
        "code_version": electramed_jax.__version__,
        "request": request,
        "splits": splits,
        "dropped": dict(total),
        "repaired": dict(repairs),
        "inputs": inputs,
    }
