from __future__ import annotations

import random
import re
import sys

import numpy as np
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.data.corpus import minhash

THRESHOLD = 0.8


def signatures_of(*texts: str) -> np.ndarray:
    return np.array(list(minhash.compute_signatures(texts)))


def similarity(one: str, other: str) -> float:
    """Returns the Jaccard similarity of the five-word shingles of two texts, by definition."""
    words = [re.findall(r"\w+", text.lower()) for text in (one, other)]
    sets = [{tuple(tokens[start : start + 5]) for start in range(len(tokens) - 4)} for tokens in words]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def changed(text: str, words: int, draw: random.Random) -> str:
    """Returns the text with this number of words replaced, at different positions."""
    parts = text.split(" ")
    for position in draw.sample(range(len(parts)), words):
        parts[position] = f"word{draw.randrange(10**6)}"
    return " ".join(parts)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Returns texts of about 200 words that share almost no shingles."""
    draw = random.Random(0)
    words = [f"w{number}" for number in range(3000)]
    return [" ".join(draw.choices(words, k=draw.randrange(150, 250))) for _ in range(300)]


def find_duplicates(signatures: np.ndarray, threshold: float = THRESHOLD) -> set[int]:
    """Returns the numbers of near-duplicates of earlier texts, by bands and then in full as for a corpus."""
    hashes = minhash.band_hashes(signatures, minhash.rows_per_band(threshold))
    found = set()
    for band in hashes.T:
        entries = np.array([(value, 0, n, n) for n, value in enumerate(band)], minhash.BAND_DTYPE)
        for group in minhash.group_by_hash(entries):
            near = minhash.near_duplicate_mask(signatures[group["at"]], threshold)
            found |= set(group["at"][near].tolist())
    return found


def test_a_signature_estimates_the_similarity_of_the_shingles(texts):
    draw = random.Random(1)
    pairs = [(text, changed(text, draw.randrange(1, 12), draw)) for text in texts]
    errors = []
    for one, other in pairs:
        a, b = signatures_of(one, other)
        errors.append((a == b).mean() - similarity(one, other))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.045  # of 128 independent draws: 0.044 at most


def test_near_duplicates_are_found_and_distinct_texts_are_kept(texts):
    draw = random.Random(2)
    copies = [changed(text, draw.randrange(1, 8), draw) for text in texts]
    near = {n for n, pair in enumerate(zip(texts, copies, strict=True)) if similarity(*pair) >= THRESHOLD}
    clearly_near = {n for n, pair in enumerate(zip(texts, copies, strict=True)) if similarity(*pair) >= 0.88}
    clearly_not = {n for n, pair in enumerate(zip(texts, copies, strict=True)) if similarity(*pair) < 0.7}
    assert len(near) > 150 and len(clearly_near) > 80 and len(clearly_not) > 10
    found = find_duplicates(signatures_of(*texts, *copies))
    assert all(number >= len(texts) for number in found)  # no original: originals are distinct and first
    found = {number - len(texts) for number in found}
    recall, precision = len(found & near) / len(near), len(found & near) / len(found)
    assert recall > 0.9 and precision > 0.9, (recall, precision)
    assert clearly_near <= found and not clearly_not & found


def test_texts_that_differ_only_in_case_and_punctuation_have_equal_signatures():
    one, other = signatures_of("Zolamine lowered it, in rats; in mice too.", "ZOLAMINE lowered it in rats in mice, too")
    assert (one == other).all()


def test_word_order_matters_and_texts_shorter_than_a_shingle_are_compared_as_one():
    a, b, c, d = signatures_of("one two three", "one two three", "three two one", "")
    assert (a == b).all() and (a == c).mean() < 0.1 and (a == d).mean() < 0.1


def test_a_near_duplicate_of_a_dropped_text_is_dropped():
    words = [f"w{n}" for n in range(200)]
    chain = [" ".join(words[start : start + 100]) for start in range(0, 60, 6)]
    assert similarity(chain[0], chain[2]) < 0.8 < similarity(chain[0], chain[1])
    assert minhash.near_duplicate_mask(signatures_of(*chain), THRESHOLD).tolist() == [False] + [True] * 9


def test_one_copy_of_a_form_letter_is_kept_for_any_number_of_copies():
    signatures = np.repeat(
        signatures_of("Enclosed is the form that all of our colleagues have been waiting for."), 1000, axis=0
    )
    assert minhash.near_duplicate_mask(signatures, THRESHOLD).tolist() == [False] + [True] * 999


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_are_the_longest_with_the_minimal_recall_at_the_threshold(threshold):
    def recall(rows: int) -> float:
        return 1 - (1 - threshold**rows) ** (minhash.PERMUTATIONS // rows)

    rows = minhash.rows_per_band(threshold)
    assert recall(rows) >= minhash.MIN_RECALL
    assert rows == minhash.PERMUTATIONS or recall(rows + 1) < minhash.MIN_RECALL


def test_signatures_and_bands_are_the_same_on_every_machine():
    signatures = signatures_of("In rats zolamine lowered the blood pressure at once.")
    assert signatures[0, :3].tolist() == [1038386668, 149465052, 424855497]
    assert minhash.band_hashes(signatures, 7)[0, 0] == 5383520928492010059


@pytest.mark.parametrize("threshold", [0.0, 0.49, 1.01, float("nan")])
def test_an_invalid_threshold_is_rejected(threshold):
    with pytest.raises(UserError, match="wanted a similarity from 0.5 to 1"):
        minhash.check_threshold(threshold)


def test_a_missing_datasketch_is_an_error_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(UserError, match=r"electramed_jax\[dedup\]"):
        minhash.check_threshold(0.8)
