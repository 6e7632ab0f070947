"""Trains a WordPiece vocabulary from the counts of words: deterministic, in bounded memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping

from electramed_jax.common import console
from electramed_jax.common.errors import UserError
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.word_counts import WordCounts

MAX_CHARACTERS = 1000  # letters in the alphabet, the most frequent ones; others become [UNK]
MIN_FREQUENCY = 2
# Distinct words in the trainer, the most frequent ones: 0.8 KB each. Of 31,090 tokens of a corpus with 253,099 distinct
# words, 634 are others with a cap of 200,000, and 1,114 with 100,000.
MAX_WORDS = 400_000
MAX_OCCURRENCES = 64_000_000  # the trainer takes a word once for each time it occurs; larger counts are scaled down
_BATCH_WORDS = 4096
_PARALLELISM = "TOKENIZERS_PARALLELISM"


def train_wordpiece(counts: WordCounts, size: int) -> list[str]:
    """Trains a WordPiece vocabulary. The same counts give the same tokens in the same order.

    The trainer of `tokenizers` adds single letters in the order of a hash map, which differs from
    run to run. Passing every letter, sorted, as a special token fixes that order.

    A corpus with up to MAX_WORDS distinct words and MAX_OCCURRENCES words gives the vocabulary that the trainer finds
    in its whole text. Of a larger one, the most frequent words are used, with counts in proportion.

    Args:
      counts: words of the corpus.
      size: number of tokens; a small corpus may give fewer.

    Returns:
      [PAD] [UNK] [CLS] [SEP] [MASK], then letters, then `##` letters, then pieces in merge order.

    Raises:
      UserError: no text, or `size` is too small for the letters alone.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    letters = _alphabet(counts.letters)
    if not letters:
        raise UserError("no text to train a vocabulary on; check the documents folder")
    fixed = [*vocab.SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    if size < len(fixed):
        raise UserError(
            f"size={size} is too small: the special tokens and the {len(letters)} letters of this "
            f"corpus alone are {len(fixed)} tokens; use --size {len(fixed) * 2} or more"
        )
    tokenizer = Tokenizer(models.WordPiece(unk_token=vocab.UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # the words are normalized and split already
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        show_progress=False,
        special_tokens=fixed,
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        continuing_subword_prefix="##",
    )
    total = counts.occurrences(MAX_WORDS)
    words = scale_counts(counts.most_frequent(MAX_WORDS), total, MAX_OCCURRENCES)
    with _one_thread(), console.progress(min(total, MAX_OCCURRENCES), "words", "finding word pieces") as advance:
        tokenizer.train_from_iterator(_repeat(words, advance), trainer)
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [token for token, _ in by_id]


def scale_counts(words: Iterable[tuple[str, int]], total: int, max_total: int) -> Iterator[tuple[str, int]]:
    """Yields the words with counts that add up to about `max_total` instead of `total`, if that is less.

    Counts are rounded to the nearest integer; words with zero are left out.
    """
    if total <= max_total:
        yield from words
        return
    for word, count in words:
        if scaled := (2 * count * max_total + total) // (2 * total):
            yield word, scaled


def _alphabet(counts: Mapping[str, int]) -> list[str]:
    """Returns the most frequent characters, sorted by code point."""
    return sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:MAX_CHARACTERS])


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Makes `tokenizers` train in one thread: each further one holds a part of the words again."""
    before = os.environ.get(_PARALLELISM)
    os.environ[_PARALLELISM] = "false"
    try:
        yield
    finally:
        del os.environ[_PARALLELISM]
        if before is not None:
            os.environ[_PARALLELISM] = before


def _repeat(words: Iterable[tuple[str, int]], advance: Callable[[int], None]) -> Iterator[str]:
    """Yields texts in which each word occurs as often as its count, at most _BATCH_WORDS words a text."""
    batch: list[str] = []
    for word, count in words:
        while count:
            times = min(count, _BATCH_WORDS - len(batch))
            batch += [word] * times
            count -= times
            if len(batch) == _BATCH_WORDS:
                yield " ".join(batch)
                advance(len(batch))
                batch = []
    yield " ".join(batch)
    advance(len(batch))
