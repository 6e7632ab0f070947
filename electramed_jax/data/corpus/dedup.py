"""Deduplication: finds withdrawn, superseded and duplicate documents from their keys, group by group.

The rules apply in order; a document dropped by one does not take part in the next:

1. Withdrawn: if input n withdraws a PMID (DeleteCitation), its records of the inputs up to n are dropped.
2. Superseded: of several records of one PMID, the newest is kept: by version, then date of revision, then order of the
   inputs. A record that is itself dropped for its text (too short, held out) still supersedes older ones; a record
   without text has no key and supersedes none.
3. Duplicate: of documents with equal texts except for case, punctuation and white space, the first in the order of the
   inputs is kept. Texts are compared by 64-bit hashes: for 38 million different texts, the probability of any
   collision is 1 in 25,000.

4. Same article: of the full texts with a common PMID, PMCID or DOI, the first in the order of the inputs is kept; and
   of abstracts that are not PubMed records (such as those of a search service), the PubMed record or else the first.
   `full_text` decides about an article with both: "both" keeps the abstract and the full text, "replace" drops the
   abstract, "append" makes sure that the text of the article follows its abstract, each once: it drops the abstract if
   the full text begins with one, and otherwise keeps it and takes the title off the full text.

(5. Near-duplicate, if enabled: see `minhash`.)

Rules 1 and 2 apply to PubMed records, rule 4 to them and to documents with a `kind`; a text without one (JSONL, tables)
is compared by its text alone. The functions take keys in any order. The result is correct if all keys of a PMID (of a
text, of an identifier) are in the array, so a corpus can be processed in any number of groups.
"""

from __future__ import annotations

import numpy as np

from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.readers.document import (
    APPEND,
    BOTH,
    FULL_TEXT,
    OTHER_ABSTRACT_SOURCE,
    PUBMED_SOURCE,
    Document,
)

DOCUMENT, UNUSED, WITHDRAWAL = range(3)  # kinds of keys: a usable record, a dropped record, a DeleteCitation
REASONS = ("", "withdrawn", "superseded", "duplicate", "near_duplicate", "same_article", "has_full_text", "")
KEPT, WITHDRAWN, SUPERSEDED, DUPLICATE, NEAR_DUPLICATE, SAME_ARTICLE, HAS_FULL_TEXT, WITHOUT_ABSTRACT = range(
    len(REASONS)
)
NOT_DROPPED = (KEPT, WITHOUT_ABSTRACT)  # the second loses its title, because a PubMed record has it
FULL_TEXT_LINK, RECORD_LINK, ABSTRACT_LINK = range(3)  # ranks in LINK_DTYPE, the kept one of an article first

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
LINK_DTYPE = np.dtype(
    [("article", "<u8"), ("rank", "u1"), ("has_abstract", "?"), ("input", "<i4"), ("row", "<i4")]
)  # has_abstract: of a full text
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


def document_links(document: Document, number: int, row: int) -> list[tuple[int, ...]]:
    """Returns a link (fields of LINK_DTYPE) for each identifier of a used document; none if rule 4 does not apply.

    The link of a PubMed record to its PMID is not among them: `record_links` takes it from its key.
    """
    if document.kind:
        rank = FULL_TEXT_LINK if document.kind == FULL_TEXT else ABSTRACT_LINK
        identifiers = [document.pmcid, document.doi]
        articles = [_pmid_hash(document.pmid)] if document.pmid else []
    elif document.source == PUBMED_SOURCE:
        rank, identifiers, articles = RECORD_LINK, [document.pmcid, document.doi], []
    else:
        return []
    articles += [corpus_dir.stable_hash(identifier) for identifier in identifiers if identifier]
    has_abstract = document.abstract_sections > 0
    return [(article, rank, has_abstract, number, row) for article in articles]


def record_links(keys: np.ndarray) -> np.ndarray:
    """Returns LINK_DTYPE[m], the links of the usable PubMed records among KEY_DTYPE[n] to their PMIDs."""
    records = keys[(keys["kind"] == DOCUMENT) & (keys["pmid"] != 0) & (keys["part"] == 0)]
    links = np.empty(len(records), LINK_DTYPE)
    links["article"], links["rank"], links["has_abstract"] = group_hashes(records), RECORD_LINK, False
    for name in ("input", "row"):
        links[name] = records[name]
    return links


def same_article_rows(links: np.ndarray, full_text: str) -> np.ndarray:
    """Applies rule 4 to LINK_DTYPE[n]; returns DROPPED_DTYPE[m], a row once for each of its identifiers at most.

    Args:
      links: all links of each article in them.
      full_text: BOTH, REPLACE or APPEND.
    """
    links = np.sort(links, order=("article", "rank", "input", "row"))
    begins = np.append(True, links["article"][1:] != links["article"][:-1])[: len(links)]
    group = np.cumsum(begins) - 1
    ranks = links["rank"]
    has_full_text, has_record = (
        np.bincount(group, ranks == rank, minlength=int(begins.sum())) > 0 for rank in (FULL_TEXT_LINK, RECORD_LINK)
    )
    is_repeated = np.append(False, ~begins[1:] & (ranks[1:] == ranks[:-1]))[: len(links)]
    reasons = np.full(len(links), KEPT, np.uint8)
    is_replaced = has_full_text
    if full_text == APPEND:
        is_replaced = has_full_text & links["has_abstract"][begins]  # the first link is that of the full text
        has_other = np.bincount(group, ranks != FULL_TEXT_LINK, minlength=int(begins.sum())) > 0
        reasons[(ranks == FULL_TEXT_LINK) & (has_other & ~is_replaced)[group]] = WITHOUT_ABSTRACT
    if full_text != BOTH:
        reasons[(ranks != FULL_TEXT_LINK) & is_replaced[group]] = HAS_FULL_TEXT
    reasons[(ranks == ABSTRACT_LINK) & (has_record[group] | is_repeated)] = SAME_ARTICLE
    reasons[(ranks == FULL_TEXT_LINK) & is_repeated] = SAME_ARTICLE
    return dropped_rows(links, reasons)


def linked_rows(links: np.ndarray, keys: np.ndarray, reasons: np.ndarray, full_text: str) -> np.ndarray:
    """Applies rule 4 to a group: LINK_DTYPE[m], and KEY_DTYPE[n] with the results of `superseded_mask`, uint8[n]."""
    records = record_links(keys[reasons == KEPT])
    return same_article_rows(np.concatenate([links, records]), full_text)


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


def _pmid_hash(pmid: int) -> int:
    """Returns the hash of `group_hashes` for one PMID."""
    return pmid * int(_MULTIPLIER) % 2**64


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


def reasons_by_row(dropped: np.ndarray) -> dict[int, int]:
    """Returns {row: reason} of DROPPED_DTYPE[n] of one input; a reason to drop a row prevails over WITHOUT_ABSTRACT."""
    last_wins = np.sort(dropped, order=("row", "reason"))[::-1]
    pairs = zip(last_wins["row"].tolist(), last_wins["reason"].tolist(), strict=True)
    return dict(pairs)


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
