"""Rows in google-research/electra's format: equal to the reference's examples for the same random numbers."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest

from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.packing import electra_format
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.model import masking

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
FIRST_WORD = 5


class ReferenceGenerator:
    """One generator for all documents, as in the reference; the first target length is T, without a draw."""

    def __init__(self, seed: int):
        generator = random.Random(seed)  # not a base class: a subclass that overrides random() draws other integers
        self.randint = generator.randint
        self._draws = itertools.chain([0.5], iter(generator.random, None))

    def random(self) -> float:
        return next(self._draws)


def make(documents: list[list[int]], row_length: int, seed: int = 0, generators=None):
    """Returns examples of documents given as lengths of sentences; token n of the corpus has id FIRST_WORD + n."""
    sizes = np.array([size for sentences in documents for size in sentences])
    return electra_format.build_examples(
        np.arange(sizes.sum()) + FIRST_WORD,
        sizes,
        np.array([len(sentences) for sentences in documents]),
        generators or [random.Random(f"{seed} {number}") for number in range(len(documents))],
        row_length,
        SPECIAL,
    )


def segments_of(row: np.ndarray) -> list[list[int]]:
    """Checks the form of a row; returns A and B."""
    ids = row[row != SPECIAL.pad]
    assert row[0] == SPECIAL.cls and ids[-1] == SPECIAL.sep and (row[len(ids) :] == SPECIAL.pad).all()
    parts = np.split(ids[1:-1], np.flatnonzero(ids[1:-1] == SPECIAL.sep))
    return [part[part >= FIRST_WORD].tolist() for part in parts]


def documents_of(length: int, count: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.Generator(np.random.Philox(seed))
    return [rng.integers(3, 60, rng.integers(1, length)).tolist() for _ in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("case", range(5))
def test_with_the_random_numbers_of_the_reference_rows_and_token_types_equal_its_examples_and_segment_ids(
    shared_data, case
):
    folder = shared_data / "oracle" / "data"
    runs = json.loads((folder / "examples.json").read_text())
    run = [run for run in runs if run["do_lower_case"] and run["strip_accents"]][case]
    tokenizer = Tokenizer(str(folder / "vocab.txt"))
    lines = (folder / "text.txt").read_text().split("\n")
    if run["blanks_separate_docs"]:
        documents = [list(g) for blank, g in itertools.groupby(lines, lambda line: not line.strip()) if not blank]
    else:
        documents = [lines]
    sentences = [[ids for ids in tokenizer.encode_batch(lines) if len(ids)] for lines in documents]
    generator = ReferenceGenerator(run["seed"])
    made = electra_format.build_examples(
        np.concatenate(list(itertools.chain.from_iterable(sentences))),
        np.array([len(ids) for of_document in sentences for ids in of_document]),
        np.array([len(of_document) for of_document in sentences]),
        [generator] * len(sentences),
        run["max_length"],
        tokenizer.special,
    )
    wanted = {key: np.array([one[key] for one in run["examples"]]) for key in run["examples"][0]}
    np.testing.assert_array_equal(made.rows, wanted["input_ids"])
    structure = masking.packed_segments(made.rows, tokenizer.special)
    np.testing.assert_array_equal(structure.token_types_BT, wanted["segment_ids"])
    np.testing.assert_array_equal(structure.segments_BT, wanted["input_mask"])
    assert made.tokens == wanted["input_mask"].sum()
    words = sum(len(ids) for of_document in sentences for ids in of_document)
    around = np.isin(made.rows, [tokenizer.special.pad, tokenizer.special.cls, tokenizer.special.sep])
    assert made.dropped_tokens == words - (~around).sum() > 0
    if generator.random() < electra_format.SHORTER_FRACTION:  # the reference draws one more target length at the end
        generator.randint(5, run["max_length"])
    assert generator.random() == run["next_random_after"]


def test_the_segments_of_a_row_come_from_one_document_and_no_token_is_repeated():
    documents = documents_of(40, 200)
    made = make(documents, 128)
    ends = np.cumsum([sum(sentences) for sentences in documents]) + FIRST_WORD
    segments = [segments_of(row) for row in made.rows]
    tokens = [token for row in segments for segment in row for token in segment]
    assert len(set(tokens)) == len(tokens) == ends[-1] - FIRST_WORD - made.dropped_tokens
    of_row = [set(np.searchsorted(ends, np.concatenate(row), "right").tolist()) for row in segments]
    assert all(len(document) == 1 for document in of_row)
    order = [document.pop() for document in of_row]
    assert order == sorted(order) and set(order) == set(range(200))
    assert made.split_documents == sum(order.count(document) > 1 for document in set(order)) > 50


def test_one_example_in_ten_has_one_segment_and_one_in_twenty_aims_at_a_shorter_length():
    made = list(electra_format.split_segments([1] * 200_000, 100, random.Random(4)))[:-1]
    assert np.mean([not b for a, b in made if len(a) + len(b) == 100]) == pytest.approx(0.1, abs=0.02)
    lengths = np.array([len(a) + len(b) for a, b in made])
    assert np.mean(lengths < 100) == pytest.approx(0.05, abs=0.015)
    assert lengths.min() < 15 and lengths.max() == 100


def test_an_example_depends_on_its_document_alone():
    documents = documents_of(30, 50)
    together = [segments_of(row) for row in make(documents, 64).rows]
    at, apart = 0, []
    for number, sentences in enumerate(documents):
        alone = make([sentences], 64, generators=[random.Random(f"0 {number}")])
        apart += [[[token + at for token in segment] for segment in segments_of(row)] for row in alone.rows]
        at += sum(sentences)
    assert together == apart


def test_a_sentence_longer_than_the_row_is_cut_and_counted():
    made = make([[500]], 64)
    ((only,),) = [segments_of(row) for row in made.rows]
    assert only == list(range(FIRST_WORD, FIRST_WORD + 62))
    assert (made.tokens, made.dropped_tokens, made.split_documents) == (64, 438, 0)


def test_no_documents_give_no_rows():
    made = make([], 64)
    assert made.rows.shape == (0, 64) and made.tokens == made.dropped_tokens == 0
