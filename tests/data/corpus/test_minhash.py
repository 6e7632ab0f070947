from __future__ import annotations

import random
import re
import sys

import numpy as np
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.data.corpus import minhash as near_duplicates

THRESHOLD = 0.8


def signed(*texts: str) -> np.ndarray:
    return np.array(list(near_duplicates.signatures(texts)))


def similarity(one: str, other: str) -> float:
    """The Jaccard similarity of the five-word shingles of two texts, by its definition."""
    words = [re.findall(r"\w+", text.lower()) for text in (one, other)]
    sets = [{tuple(of_text[at : at + 5]) for at in range(len(of_text) - 4)} for of_text in words]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def changed(text: str, words: int, draw: random.Random) -> str:
    """The text with so many of its words replaced, at places of their own."""
    parts = text.split(" ")
    for place in draw.sample(range(len(parts)), words):
        parts[place] = f"word{draw.randrange(10**6)}"
    return " ".join(parts)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Texts of about 200 words that have next to nothing in common."""
    draw = random.Random(0)
    words = [f"w{number}" for number in range(3000)]
    return [" ".join(draw.choices(words, k=draw.randrange(150, 250))) for _ in range(300)]


def lost(signatures: np.ndarray, threshold: float = THRESHOLD) -> set[int]:
    """The numbers of the texts that are near to an earlier one, found as a corpus is: by bands, then in full."""
    hashes = near_duplicates.band_hashes(signatures, near_duplicates.rows_per_band(threshold))
    found = set()
    for band in hashes.T:
        entries = np.array([(value, 0, n, n) for n, value in enumerate(band)], near_duplicates.BAND)
        for group in near_duplicates.groups(entries):
            near = near_duplicates.near_duplicate_mask(signatures[group["at"]], threshold)
            found |= set(group["at"][near].tolist())
    return found


def test_a_signature_estimates_the_similarity_of_the_shingles(texts):
    draw = random.Random(1)
    pairs = [(text, changed(text, draw.randrange(1, 12), draw)) for text in texts]
    errors = []
    for one, other in pairs:
        a, b = signed(one, other)
        errors.append((a == b).mean() - similarity(one, other))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.045  # of 128 independent draws: 0.044 at most


def test_planted_near_duplicates_are_found_and_distinct_texts_stay(texts):
    draw = random.Random(2)
    copies = [changed(text, draw.randrange(1, 8), draw) for text in texts]
    near = {n for n, pair in enumerate(zip(texts, copies, strict=True)) if similarity(*pair) >= THRESHOLD}
    clearly_near = {n for n, pair in enumerate(zip(texts, copies, strict=True)) if similarity(*pair) >= 0.88}
    clearly_not = {n for n, pair in enumerate(zip(texts, copies, strict=True)) if similarity(*pair) < 0.7}
    assert len(near) > 150 and len(clearly_near) > 80 and len(clearly_not) > 10
    found = lost(signed(*texts, *copies))
    assert all(number >= len(texts) for number in found)  # no original, which are distinct and come first
    found = {number - len(texts) for number in found}
    recall, precision = len(found & near) / len(near), len(found & near) / len(found)
    assert recall > 0.9 and precision > 0.9, (recall, precision)
    assert clearly_near <= found and not clearly_not & found


def test_texts_equal_but_for_case_and_punctuation_are_as_near_as_can_be():
    one, other = signed("Zolamine lowered it, in rats; in mice too.", "ZOLAMINE lowered it in rats in mice, too")
    assert (one == other).all()


def test_order_counts_and_texts_shorter_than_a_shingle_are_compared_whole():
    a, b, c, d = signed("one two three", "one two three", "three two one", "")
    assert (a == b).all() and (a == c).mean() < 0.1 and (a == d).mean() < 0.1


def test_what_resembles_an_earlier_text_goes_though_that_one_goes_too():
    words = [f"w{n}" for n in range(200)]
    chain = [" ".join(words[start : start + 100]) for start in range(0, 60, 6)]
    assert similarity(chain[0], chain[2]) < 0.8 < similarity(chain[0], chain[1])
    assert near_duplicates.near_duplicate_mask(signed(*chain), THRESHOLD).tolist() == [False] + [True] * 9


def test_of_a_form_letter_one_copy_stays_however_many_there_are():
    signatures = np.repeat(signed("Dear colleague, here is the form we have all been waiting for."), 1000, axis=0)
    assert near_duplicates.near_duplicate_mask(signatures, THRESHOLD).tolist() == [False] + [True] * 999


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_are_the_longest_that_show_a_pair_at_the_threshold_with_the_promised_probability(threshold):
    def seen(rows: int) -> float:
        return 1 - (1 - threshold**rows) ** (near_duplicates.PERMUTATIONS // rows)

    rows = near_duplicates.rows_per_band(threshold)
    assert seen(rows) >= near_duplicates.SEEN
    assert rows == near_duplicates.PERMUTATIONS or seen(rows + 1) < near_duplicates.SEEN


def test_signatures_and_bands_are_the_same_on_every_machine():
    signatures = signed("In rats zolamine lowered the blood pressure at once.")
    assert signatures[0, :3].tolist() == [1038386668, 149465052, 424855497]
    assert near_duplicates.band_hashes(signatures, 7)[0, 0] == 5383520928492010059


@pytest.mark.parametrize("threshold", [0.0, 0.49, 1.01, float("nan")])
def test_a_threshold_that_makes_no_sense_is_refused(threshold):
    with pytest.raises(UserError, match="wanted a similarity from 0.5 to 1"):
        near_duplicates.check(threshold)


def test_the_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(UserError, match=r"electramed_jax\[dedup\]"):
        near_duplicates.check(0.8)
