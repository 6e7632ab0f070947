"""Deduplication: finds withdrawn, superseded and duplicate documents from their keys, group by group.

The rules apply in order; a document dropped by one does not take part in the next:

1. Withdrawn: if input n withdraws a PMID (DeleteCitation), its records of the inputs up to n are dropped.
2. Superseded: of several records of one PMID, the newest is kept: by version, then date of revision, then order of the
   inputs. A record that is itself dropped for its text (too short, held out) still supersedes older ones; a record
   without text has no key and supersedes none.
3. Duplicate: of documents with equal texts except for case, punctuation and white space, the first in the order of the
   inputs is kept. Texts are compared by 64-bit hashes: for 38 million different texts, the probability of any
   collision is 1 in 25,000.

(4. Near-duplicate, if enabled: see `minhash`.)

Rules 1 and 2 apply to PubMed records only: an abstract and a full text with one PMID are two documents. The functions
take keys in any order. The result is correct if all keys of a PMID (of a text) are in the array, so a corpus can be
processed in any number of groups.
"""

from __future__ import annotations

import numpy as np

from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.readers.document import OTHER_ABSTRACT_SOURCE, PUBMED_SOURCE, Document

DOCUMENT, UNUSED, WITHDRAWAL = range(3)  # kinds of keys: a usable record, a dropped record, a DeleteCitation
REASONS = ("", "withdrawn", "superseded", "duplicate", "near_duplicate")
KEPT, WITHDRAWN, SUPERSEDED, DUPLICATE, NEAR_DUPLICATE = range(len(REASONS))

KEY_DTYPE = np.dtype(
    [
        ("kind", "u1"),
        ("pmid", "<i8"),  # 0: none, or not a PubMed record
        ("part", "<u8"),  # 0, or for an OtherAbstract a hash of its id
        ("version", "<i8"),
        ("revised", "<i8"),
        ("input", "<i4"),
        ("row", "<i4"),  # index of the record in its input
        ("text", "<u8"),
    ]
)
TEXT_DTYPE = np.dtype([("text", "<u8"), ("input", "<i4"), ("row", "<i4")])
DROPPED_DTYPE = np.dtype([("input", "<i4"), ("row", "<i4"), ("reason", "u1")])

_ASCII_REMOVED = bytes(byte for byte in range(128) if not chr(byte).isalnum())
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads consecutive PMIDs


def document_key(document: Document, text: str, used: bool, number: int, row: int) -> tuple[int, ...]:
    """Returns the key (fields of KEY_DTYPE) of record `row` of input `number`."""
    is_other_abstract = document.source == OTHER_ABSTRACT_SOURCE
    pmid = document.pmid or 0 if is_other_abstract or document.source == PUBMED_SOURCE else 0
    part = corpus_dir.stable_hash(document.id) if is_other_abstract else 0
    kind = DOCUMENT if used else UNUSED
    return kind, pmid, part, document.version, document.revised or 0, number, row, text_hash(text)


def withdrawal_key(pmid: int, number: int) -> tuple[int, ...]:
    """Returns the key of a PMID that input `number` withdraws."""
    return WITHDRAWAL, pmid, 0, 0, 0, number, 0, 0


def text_hash(text: str) -> int:
    """Returns a 64-bit hash of the letters and digits of a text, ignoring case; of the text itself if it has none."""
    letters = text.casefold()
    if not letters.isascii():
        for character in set(letters):
            if not (character.isascii() or character.isalnum()):
                letters = letters.replace(character, "")
    return corpus_dir.stable_hash(letters.encode("utf-8", "replace").translate(None, _ASCII_REMOVED) or text)


def group_hashes(keys: np.ndarray) -> np.ndarray:
    """Returns uint64[n], equal for keys that `superseded_mask` must see together, otherwise well distributed."""
    return np.where(keys["pmid"] != 0, keys["pmid"].astype(np.uint64) * _MULTIPLIER, keys["text"])


def superseded_mask(keys: np.ndarray) -> np.ndarray:
    """Applies rules 1 and 2 to KEY_DTYPE[n]; returns uint8[n], each WITHDRAWN, SUPERSEDED or KEPT."""
    reasons = np.full(len(keys), KEPT, np.uint8)
    is_record = (keys["kind"] != WITHDRAWAL) & (keys["pmid"] != 0)
    reasons[is_record & (keys["input"] <= _withdrawn_by(keys))] = WITHDRAWN
    versioned = np.flatnonzero(is_record & (reasons == KEPT))
    if not len(versioned):
        return reasons
    order = ("pmid", "version", "revised", "input", "part", "row")
    oldest_first = versioned[np.lexsort([keys[name][versioned] for name in reversed(order)])]
    ordered = keys[oldest_first]
    is_last = np.append(_differs(ordered, "pmid"), True)
    newest = ordered[is_last][np.cumsum(is_last) - is_last]  # record of the same PMID
    is_older = np.any([ordered[name] != newest[name] for name in ("version", "revised", "input")], axis=0)
    is_repeated = ~np.append(np.any([_differs(ordered, name) for name in order[:-1]], axis=0), True)
    reasons[oldest_first[is_older | is_repeated]] = SUPERSEDED
    return reasons


def duplicate_mask(texts: np.ndarray) -> np.ndarray:
    """Returns bool[n]: whether each of TEXT_DTYPE[n] has the hash of one earlier in the order of the inputs."""
    in_order = np.lexsort((texts["row"], texts["input"], texts["text"]))
    hashes = texts["text"][in_order]
    is_duplicate = np.zeros(len(texts), bool)
    is_duplicate[in_order[1:][hashes[1:] == hashes[:-1]]] = True
    return is_duplicate


def remaining_texts(keys: np.ndarray, reasons: np.ndarray) -> np.ndarray:
    """Returns TEXT_DTYPE[m] of the documents that rules 1 and 2 keep."""
    remaining = keys[(keys["kind"] == DOCUMENT) & (reasons == KEPT)]
    texts = np.empty(len(remaining), TEXT_DTYPE)
    for name in ("text", "input", "row"):
        texts[name] = remaining[name]
    return texts


def dropped_rows(rows: np.ndarray, reason: np.ndarray | int) -> np.ndarray:
    """Returns DROPPED_DTYPE[m], the documents among rows [n] (with "input" and "row") that have a reason.

    Args:
      rows: KEY_DTYPE[n] or a dtype without "kind", in which every row is a document.
      reason: uint8[n] or one reason for all; KEPT rows are left out.
    """
    dropped = np.empty(len(rows), DROPPED_DTYPE)
    dropped["input"], dropped["row"], dropped["reason"] = rows["input"], rows["row"], reason
    is_document = rows["kind"] == DOCUMENT if "kind" in (rows.dtype.names or ()) else True
    return dropped[(dropped["reason"] != KEPT) & is_document]


def _differs(rows: np.ndarray, name: str) -> np.ndarray:
    """Returns bool[n-1]: whether a field differs from that of the next row."""
    return rows[name][1:] != rows[name][:-1]


def _withdrawn_by(keys: np.ndarray) -> np.ndarray:
    """Returns int64[n]: the last input that withdraws the PMID of each key; -1 if none does."""
    withdrawals = keys[keys["kind"] == WITHDRAWAL]
    if not len(withdrawals):
        return np.full(len(keys), -1)
    withdrawals = np.sort(withdrawals, order=("pmid", "input"))
    last = np.append(withdrawals["pmid"][1:] != withdrawals["pmid"][:-1], True)
    pmids, inputs = withdrawals["pmid"][last], withdrawals["input"][last].astype(np.int64)
    index = np.minimum(np.searchsorted(pmids, keys["pmid"]), len(pmids) - 1)
    return np.where(pmids[index] == keys["pmid"], inputs[index], -1)
