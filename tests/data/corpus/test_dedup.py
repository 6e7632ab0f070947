from __future__ import annotations

import random

import numpy as np
import pytest

from electramed_jax.data.corpus import dedup
from electramed_jax.data.parallel import shuffle_files
from electramed_jax.data.readers.document import Document


def keys(*rows: dict) -> np.ndarray:
    """Returns KEY_DTYPE[n]: by default documents of PMID 7, each in its own input."""
    defaults = {"kind": dedup.DOCUMENT, "pmid": 7, "part": 0, "version": 1, "revised": 0, "row": 0}
    filled = [defaults | {"input": number, "text": number} | row for number, row in enumerate(rows)]
    return np.array([tuple(row[name] for name in dedup.KEY_DTYPE.names) for row in filled], dedup.KEY_DTYPE)


def reasons(*rows: dict) -> list[str]:
    return [dedup.REASONS[reason] for reason in dedup.superseded_mask(keys(*rows))]


def document(**fields: object) -> Document:
    defaults = {"id": "PMID7", "pmid": 7, "title": "", "sections": (), "year": None, "source": "pubmed"}
    return Document(**defaults | fields)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ({}, {}),  # by the order of the inputs alone
        ({"revised": 20240101, "input": 5}, {"version": 2, "revised": 20200101, "input": 0}),
        ({"revised": 20200101, "input": 5}, {"revised": 20200102, "input": 0}),
        ({"revised": 0, "input": 5}, {"revised": 19990101, "input": 0}),
        ({"input": 3, "row": 1}, {"input": 3, "row": 2}),
    ],
)
def test_the_newest_record_of_a_pmid_is_kept_by_version_then_revision_then_input(older, newer):
    assert reasons(older, newer) == ["superseded", ""]
    assert reasons(newer, {"input": 1} | older) == ["", "superseded"] or not older


def test_a_withdrawal_applies_to_records_up_to_its_input_and_to_no_later_one():
    withdrawal = {"kind": dedup.WITHDRAWAL, "input": 1}
    assert reasons({"input": 0}, {"input": 1}, withdrawal) == ["withdrawn", "withdrawn", ""]
    assert reasons({"input": 0}, withdrawal, {"input": 2}) == ["withdrawn", "", ""]
    assert reasons({"input": 0}, withdrawal | {"pmid": 8}) == ["", ""]


def test_a_withdrawn_record_supersedes_nothing():
    withdrawal = {"kind": dedup.WITHDRAWAL, "input": 0}
    assert reasons({"version": 2, "input": 0}, withdrawal, {"version": 1, "input": 1}) == ["withdrawn", "", ""]


def test_a_newer_record_that_is_itself_dropped_still_supersedes():
    assert reasons({}, {"kind": dedup.UNUSED})[0] == "superseded"


def test_the_abstracts_of_one_record_are_kept_or_dropped_together():
    french, german = {"part": 1}, {"part": 2}
    assert reasons({"input": 0}, french | {"input": 0}, german | {"input": 0}) == ["", "", ""]
    assert reasons({"input": 0}, french | {"input": 0}, {"input": 1}) == ["superseded", "superseded", ""]


def test_only_pubmed_records_are_versions_of_each_other():
    assert dedup.document_key(document(), "text", True, 0, 0)[1] == 7
    assert dedup.document_key(document(source="pubmed-other-abstract"), "text", True, 0, 0)[1] == 7
    assert dedup.document_key(document(source="articles.jsonl"), "text", True, 0, 0)[1] == 0
    assert reasons({"pmid": 0}, {"pmid": 0}) == ["", ""]


def test_texts_are_equal_if_their_letters_and_digits_are():
    text = "BACKGROUND: The β-blocker (10 mg) helped — in 3 of 4 patients."
    same = "background the Β BLOCKER, 10\u00a0mg, helped in\n3 of 4 patients"
    assert dedup.text_hash(text) == dedup.text_hash(same)
    for other in (text.replace("3", "2"), text.replace("β", "α"), text.replace("helped", "help")):
        assert dedup.text_hash(other) != dedup.text_hash(text)


def test_texts_without_a_letter_are_compared_unchanged():
    assert dedup.text_hash("+ + +") == dedup.text_hash("+ + +") != dedup.text_hash("- - -")


def test_of_equal_texts_the_first_by_input_and_row_is_kept():
    texts = [(9, 1, 0), (9, 0, 4), (9, 0, 3), (8, 5, 5)]
    assert dedup.duplicate_mask(np.array(texts, dedup.TEXT_DTYPE)).tolist() == [True, True, False, False]


def dropped_by_brute_force(corpus: np.ndarray) -> set[tuple[int, int, int]]:
    """Applies the rules of the module's docstring by comparing all pairs; returns (input, row, reason)."""
    withdrawals = [key for key in corpus if key["kind"] == dedup.WITHDRAWAL]
    records = [key for key in corpus if key["kind"] != dedup.WITHDRAWAL]
    dropped = {}

    def is_superseded_by(key: np.void, other: np.void) -> bool:
        age, other_age = ([k[name] for name in ("version", "revised", "input")] for k in (key, other))
        is_repeated = age == other_age and key["part"] == other["part"] and key["row"] < other["row"]
        return bool(key["pmid"]) and key["pmid"] == other["pmid"] and (age < other_age or is_repeated)

    for key in records:
        if any(other["pmid"] == key["pmid"] and other["input"] >= key["input"] for other in withdrawals):
            dropped[key["input"], key["row"]] = dedup.WITHDRAWN
    current = [key for key in records if (key["input"], key["row"]) not in dropped]
    for key in current:
        if any(is_superseded_by(key, other) for other in current):
            dropped[key["input"], key["row"]] = dedup.SUPERSEDED
    first = {}
    for key in sorted(current, key=lambda key: (key["input"], key["row"])):
        is_kept = key["kind"] == dedup.DOCUMENT and (key["input"], key["row"]) not in dropped
        if is_kept and first.setdefault(key["text"], key) is not key:
            dropped[key["input"], key["row"]] = dedup.DUPLICATE
    used = {(key["input"], key["row"]) for key in records if key["kind"] == dedup.DOCUMENT}
    return {(*row, reason) for row, reason in dropped.items() if row in used}


@pytest.mark.parametrize("groups", [1, 4, 256])
def test_any_grouping_in_any_order_gives_the_result_of_comparing_all_pairs(groups):
    draw = random.Random(groups)
    rows = [
        {
            "kind": draw.choices((dedup.DOCUMENT, dedup.UNUSED, dedup.WITHDRAWAL), (8, 1, 1))[0],
            "pmid": draw.randrange(12),
            "part": draw.choice((0, 0, 1)),
            "version": draw.choice((1, 1, 2)),
            "revised": draw.choice((0, 20200101, 20210101)),
            "input": draw.randrange(6),
            "row": row,
            "text": draw.randrange(40) * 0x9E3779B97F4A7C15 % 2**64,
        }
        for row in range(150)
    ]
    corpus = keys(*rows)
    corpus = corpus[(corpus["kind"] != dedup.WITHDRAWAL) | (corpus["pmid"] != 0)]
    np.random.default_rng(groups).shuffle(corpus)
    slots = shuffle_files.hash_slots(dedup.group_hashes(corpus)) * groups // 256
    dropped, texts = [], []
    for group in range(groups):
        group_rows = corpus[slots == group]
        reasons_of_group = dedup.superseded_mask(group_rows)
        dropped.append(dedup.dropped_rows(group_rows, reasons_of_group))
        texts.append(dedup.remaining_texts(group_rows, reasons_of_group))
    texts = np.concatenate(texts)
    slots = shuffle_files.hash_slots(texts["text"]) * groups // 256
    for group in range(groups):
        group_rows = texts[slots == group]
        dropped.append(dedup.dropped_rows(group_rows[dedup.duplicate_mask(group_rows)], dedup.DUPLICATE))
    assert set(map(tuple, np.concatenate(dropped).tolist())) == dropped_by_brute_force(corpus)
