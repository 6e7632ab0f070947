"""Which documents of a corpus are out of date, and which repeat another: decided on keys, group by group.

The rules, in their order; a document lost to one has no part in the next:

1. Withdrawn: a PMID withdrawn by input n (DeleteCitation) loses its records of the inputs up to n.
2. Superseded: of several records of one PMID the newest stays, by version, then date of revision,
   then place in the order of the inputs. A record that is then dropped for its text (too short, held
   out) supersedes older ones all the same; one without any text is not known of here.
3. Duplicate: of documents whose texts are equal but for case, punctuation and white space the first
   in the order of the inputs stays. Texts are compared by 64-bit hashes: among 38 million different
   ones the odds that any two collide are 1 in 25,000.

(4. `near_duplicates`, where wanted.)

Rules 1 and 2 are of PubMed's own records: an abstract and a full text of one PMID are two documents.
The functions here take arrays of keys in any order, and are right as long as all keys of a PMID (of
a text) are among them: so a corpus can be decided in as many groups as memory asks for.
"""

from __future__ import annotations

import numpy as np

from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.readers import pubmed_record
from electramed_jax.data.readers.document import Document

DOCUMENT, UNUSED, WITHDRAWAL = range(3)  # kinds of a key: to be kept, read but dropped, DeleteCitation
REASONS = ("", "withdrawn", "superseded", "duplicate", "near_duplicate")
KEPT, WITHDRAWN, SUPERSEDED, DUPLICATE, NEAR_DUPLICATE = range(len(REASONS))

KEY_DTYPE = np.dtype(
    [
        ("kind", "u1"),
        ("pmid", "<i8"),  # 0: none, or not PubMed's record
        ("part", "<u8"),  # of a record that makes several documents: 0 for the article's own
        ("version", "<i8"),
        ("revised", "<i8"),
        ("input", "<i4"),
        ("row", "<i4"),  # of the record in its input
        ("text", "<u8"),
    ]
)
TEXT_DTYPE = np.dtype([("text", "<u8"), ("input", "<i4"), ("row", "<i4")])
DROPPED_DTYPE = np.dtype([("input", "<i4"), ("row", "<i4"), ("reason", "u1")])

_ASCII_OTHERS = bytes(byte for byte in range(128) if not chr(byte).isalnum())
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: neighbouring PMIDs fall far apart


def key(document: Document, text: str, used: bool, number: int, row: int) -> tuple:
    """The key (see KEY) of record `row` of input `number`."""
    pmid = document.pmid or 0 if document.source in (pubmed_record.SOURCE, pubmed_record.OTHER_ABSTRACT_SOURCE) else 0
    part = corpus_dir.stable_hash(document.id) if document.source == pubmed_record.OTHER_ABSTRACT_SOURCE else 0
    kind = DOCUMENT if used else UNUSED
    return kind, pmid, part, document.version, document.revised or 0, number, row, text_hash(text)


def withdrawal(pmid: int, number: int) -> tuple:
    """The key that says that input `number` withdraws a PMID."""
    return WITHDRAWAL, pmid, 0, 0, 0, number, 0, 0


def text_hash(text: str) -> int:
    """64 bits of the letters and digits of a text, without case; of the text itself where it has none."""
    letters = text.casefold()
    if not letters.isascii():
        for other in set(letters):
            if not (other.isascii() or other.isalnum()):
                letters = letters.replace(other, "")
    return corpus_dir.stable_hash(letters.encode("utf-8", "replace").translate(None, _ASCII_OTHERS) or text)


def group_hashes(keys: np.ndarray) -> np.ndarray:
    """uint64[n]: equal where keys must be decided together by `superseded_mask`, well spread otherwise."""
    return np.where(keys["pmid"] != 0, keys["pmid"].astype(np.uint64) * _SPREAD, keys["text"])


def superseded_mask(keys: np.ndarray) -> np.ndarray:
    """uint8[n]: for each of KEY[n] WITHDRAWN, SUPERSEDED or KEPT, by rules 1 and 2."""
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
    newest = ordered[is_last][np.cumsum(is_last) - is_last]  # of the same PMID
    is_older = np.any([ordered[name] != newest[name] for name in ("version", "revised", "input")], axis=0)
    is_repeated = ~np.append(np.any([_differs(ordered, name) for name in order[:-1]], axis=0), True)
    reasons[oldest_first[is_older | is_repeated]] = SUPERSEDED
    return reasons


def duplicate_mask(texts: np.ndarray) -> np.ndarray:
    """bool[n]: whether each of TEXT[n] has the hash of one that stands before it in the order of the inputs."""
    in_order = np.lexsort((texts["row"], texts["input"], texts["text"]))
    hashes = texts["text"][in_order]
    again = np.zeros(len(texts), bool)
    again[in_order[1:][hashes[1:] == hashes[:-1]]] = True
    return again


def texts_of(keys: np.ndarray, reasons: np.ndarray) -> np.ndarray:
    """TEXT[m] of the documents that rules 1 and 2 leave."""
    left = keys[(keys["kind"] == DOCUMENT) & (reasons == KEPT)]
    texts = np.empty(len(left), TEXT_DTYPE)
    for name in TEXT_DTYPE.names:
        texts[name] = left[name]
    return texts


def dropped_rows(places: np.ndarray, reason: np.ndarray | int) -> np.ndarray:
    """LOSS[n] of KEY[n] or TEXT[n]; what was no document is no loss."""
    lost = np.empty(len(places), DROPPED_DTYPE)
    lost["input"], lost["row"], lost["reason"] = places["input"], places["row"], reason
    is_document = places["kind"] == DOCUMENT if "kind" in places.dtype.names else True
    return lost[(lost["reason"] != KEPT) & is_document]


def _differs(rows: np.ndarray, name: str) -> np.ndarray:
    """bool[n-1]: whether a field differs from that of the next row."""
    return rows[name][1:] != rows[name][:-1]


def _withdrawn_by(keys: np.ndarray) -> np.ndarray:
    """int64[n]: the last input that withdraws the PMID of each key; -1 for none."""
    marks = keys[keys["kind"] == WITHDRAWAL]
    if not len(marks):
        return np.full(len(keys), -1)
    marks = np.sort(marks, order=("pmid", "input"))
    last = np.append(marks["pmid"][1:] != marks["pmid"][:-1], True)
    pmids, inputs = marks["pmid"][last], marks["input"][last].astype(np.int64)
    at = np.minimum(np.searchsorted(pmids, keys["pmid"]), len(pmids) - 1)
    return np.where(pmids[at] == keys["pmid"], inputs[at], -1)
