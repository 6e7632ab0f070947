from __future__ import annotations

import random

import numpy as np
import pytest

from electramed_jax.data.corpus import dedup
from electramed_jax.data.parallel import shuffle_files
from electramed_jax.data.readers.document import Document


def keys(*rows: dict) -> np.ndarray:
    """KEY[n]: documents of PMID 7, each in an input of its own, unless said otherwise."""
    usual = {"kind": dedup.DOCUMENT, "pmid": 7, "part": 0, "version": 1, "revised": 0, "row": 0}
    filled = [usual | {"input": number, "text": number} | row for number, row in enumerate(rows)]
    return np.array([tuple(row[name] for name in dedup.KEY_DTYPE.names) for row in filled], dedup.KEY_DTYPE)


def reasons(*rows: dict) -> list[str]:
    return [dedup.REASONS[reason] for reason in dedup.superseded_mask(keys(*rows))]


def document(**fields: object) -> Document:
    usual = {"id": "PMID7", "pmid": 7, "title": "", "sections": (), "year": None, "source": "pubmed"}
    return Document(**usual | fields)


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
def test_the_newest_record_of_a_pmid_stays_by_version_then_revision_then_place(older, newer):
    assert reasons(older, newer) == ["superseded", ""]
    assert reasons(newer, {"input": 1} | older) == ["", "superseded"] or not older


def test_a_withdrawal_reaches_the_records_up_to_its_input_and_none_that_comes_later():
    withdrawal = {"kind": dedup.WITHDRAWAL, "input": 1}
    assert reasons({"input": 0}, {"input": 1}, withdrawal) == ["withdrawn", "withdrawn", ""]
    assert reasons({"input": 0}, withdrawal, {"input": 2}) == ["withdrawn", "", ""]
    assert reasons({"input": 0}, withdrawal | {"pmid": 8}) == ["", ""]


def test_a_record_that_was_withdrawn_supersedes_nothing():
    withdrawal = {"kind": dedup.WITHDRAWAL, "input": 0}
    assert reasons({"version": 2, "input": 0}, withdrawal, {"version": 1, "input": 1}) == ["withdrawn", "", ""]


def test_a_newer_record_that_is_of_no_use_itself_still_supersedes():
    assert reasons({}, {"kind": dedup.UNUSED})[0] == "superseded"


def test_the_abstracts_of_one_record_stay_together_and_go_together():
    french, german = {"part": 1}, {"part": 2}
    assert reasons({"input": 0}, french | {"input": 0}, german | {"input": 0}) == ["", "", ""]
    assert reasons({"input": 0}, french | {"input": 0}, {"input": 1}) == ["superseded", "superseded", ""]


def test_only_records_of_pubmed_itself_are_versions_of_each_other():
    assert dedup.key(document(), "text", True, 0, 0)[1] == 7
    assert dedup.key(document(source="pubmed-other-abstract"), "text", True, 0, 0)[1] == 7
    assert dedup.key(document(source="articles.jsonl"), "text", True, 0, 0)[1] == 0
    assert reasons({"pmid": 0}, {"pmid": 0}) == ["", ""]


def test_texts_are_equal_when_their_letters_and_digits_are():
    text = "BACKGROUND: The β-blocker (10 mg) helped — in 3 of 4 patients."
    same = "background the Β BLOCKER, 10\u00a0mg, helped in\n3 of 4 patients"
    assert dedup.text_hash(text) == dedup.text_hash(same)
    for other in (text.replace("3", "2"), text.replace("β", "α"), text.replace("helped", "help")):
        assert dedup.text_hash(other) != dedup.text_hash(text)


def test_texts_without_a_letter_are_compared_as_they_stand():
    assert dedup.text_hash("+ + +") == dedup.text_hash("+ + +") != dedup.text_hash("- - -")


def test_of_equal_texts_the_first_by_input_and_row_stays():
    places = [(9, 1, 0), (9, 0, 4), (9, 0, 3), (8, 5, 5)]
    assert dedup.duplicate_mask(np.array(places, dedup.TEXT_DTYPE)).tolist() == [True, True, False, False]


def decided_one_by_one(corpus: np.ndarray) -> set[tuple[int, int, int]]:
    """(input, row, reason) of what the rules of the module's docstring lose, found by comparing all with all."""
    marks = [key for key in corpus if key["kind"] == dedup.WITHDRAWAL]
    records = [key for key in corpus if key["kind"] != dedup.WITHDRAWAL]
    lost = {}

    def is_outdated_by(key: np.void, other: np.void) -> bool:
        age, of_other = ([k[name] for name in ("version", "revised", "input")] for k in (key, other))
        again = age == of_other and key["part"] == other["part"] and key["row"] < other["row"]
        return bool(key["pmid"]) and key["pmid"] == other["pmid"] and (age < of_other or again)

    for key in records:
        if any(mark["pmid"] == key["pmid"] and mark["input"] >= key["input"] for mark in marks):
            lost[key["input"], key["row"]] = dedup.WITHDRAWN
    standing = [key for key in records if (key["input"], key["row"]) not in lost]
    for key in standing:
        if any(is_outdated_by(key, other) for other in standing):
            lost[key["input"], key["row"]] = dedup.SUPERSEDED
    first = {}
    for key in sorted(standing, key=lambda key: (key["input"], key["row"])):
        if key["kind"] == dedup.DOCUMENT and (key["input"], key["row"]) not in lost:
            if first.setdefault(key["text"], key) is not key:
                lost[key["input"], key["row"]] = dedup.DUPLICATE
    used = {(key["input"], key["row"]) for key in records if key["kind"] == dedup.DOCUMENT}
    return {(*place, reason) for place, reason in lost.items() if place in used}


@pytest.mark.parametrize("groups", [1, 4, 256])
def test_any_grouping_in_any_order_decides_as_comparing_all_with_all_does(groups):
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
    lost, texts = [], []
    for group in range(groups):
        of_group = corpus[slots == group]
        found = dedup.superseded_mask(of_group)
        lost.append(dedup.dropped_rows(of_group, found))
        texts.append(dedup.texts_of(of_group, found))
    texts = np.concatenate(texts)
    slots = shuffle_files.hash_slots(texts["text"]) * groups // 256
    for group in range(groups):
        of_group = texts[slots == group]
        lost.append(dedup.dropped_rows(of_group[dedup.duplicate_mask(of_group)], dedup.DUPLICATE))
    assert set(map(tuple, np.concatenate(lost).tolist())) == decided_one_by_one(corpus)
