"""WordPiece vocabularies: deterministic training, and vocab.txt files of one token a line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from electramed_jax.common import console
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.config.special_tokens import SpecialIds

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCAB_FILE = "vocab.txt"
MAX_CHARACTERS = 1000  # letters in the alphabet, the most frequent ones; others become [UNK]
MIN_FREQUENCY = 2
MAX_WORD_CHARACTERS = 100  # Hugging Face's limit; google-research/electra's is 200. A longer word is [UNK].
_CODE_POINTS = 0x110000
_BATCH = 256
# Characters that neither separate words nor are words by themselves (punctuation, Chinese characters).
_LONG_WORD = re.compile(
    r"[^\s!-/:-@\[-`{-~\u2000-\u206f\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]"
    rf"{{{MAX_WORD_CHARACTERS + 1},}}"
)


def train_wordpiece(texts: Iterable[str], size: int, lower_case: bool = True, count: int | None = None) -> list[str]:
    """Trains a WordPiece vocabulary. The same texts give the same tokens in the same order.

    The trainer of `tokenizers` adds single letters in the order of a hash map, which differs from
    run to run. Passing every letter, sorted, as a special token fixes that order.

    Words of more than MAX_WORD_CHARACTERS, such as a sequence of a genome, are left out: the tokenizer maps them to
    [UNK], and the time of training grows with the length of the longest word.

    Args:
      texts: iterated twice (for letters, then for words), so not a generator.
      size: number of tokens; a small corpus may give fewer.
      lower_case: lower-case and strip accents, like `Tokenizer`.
      count: number of texts, for the progress display.

    Returns:
      [PAD] [UNK] [CLS] [SEP] [MASK], then letters, then `##` letters, then pieces in merge order.

    Raises:
      UserError: no text, or `size` is too small for the letters alone.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    assert iter(texts) is not texts, "texts are iterated twice; pass a list, not a generator"
    normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    with console.progress(count, "documents", "counting letters") as advance:
        letters = _alphabet(_with_progress(texts, advance), normalizer.normalize_str)
    if not letters:
        raise UserError("no text to train a vocabulary on; check the documents folder")
    fixed = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    if size < len(fixed):
        raise UserError(
            f"size={size} is too small: the special tokens and the {len(letters)} letters of this "
            f"corpus alone are {len(fixed)} tokens; use --size {len(fixed) * 2} or more"
        )
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNK))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        show_progress=False,
        special_tokens=fixed,
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        continuing_subword_prefix="##",
    )
    with console.progress(count, "documents", "finding word pieces") as advance:
        tokenizer.train_from_iterator(_drop_long_words(_with_progress(texts, advance)), trainer)
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [token for token, _ in by_id]


def read_vocab(path: str) -> list[str]:
    """Returns the tokens of a vocab.txt in the order of their ids.

    Raises:
      UserError: an empty file, or a repeated token.
    """
    tokens = files.read_text(path).split("\n")
    if tokens[-1] == "":
        tokens.pop()
    tokens = [token.rstrip("\r") for token in tokens]
    if not tokens:
        raise UserError(f"{path}: empty; wanted one token per line")
    if len(set(tokens)) != len(tokens):
        token, count = Counter(tokens).most_common(1)[0]
        raise UserError(f"{path}: token {token!r} occurs {count} times; wanted each token once")
    return tokens


def write_vocab(path: str, tokens: Sequence[str]) -> None:
    """Writes a vocab.txt atomically."""
    files.write_text(path, "".join(f"{token}\n" for token in tokens))


def sha256(path: str) -> str:
    """Returns the hexadecimal SHA-256 of a vocab.txt, which identifies the vocabulary."""
    return files.sha256(path)


def special_ids(tokens: Sequence[str]) -> SpecialIds:
    """Returns the ids of the five special tokens.

    Raises:
      UserError: some are missing.
    """
    ids = {token: number for number, token in enumerate(tokens)}
    missing = [token for token in SPECIAL_TOKENS if token not in ids]
    if missing:
        raise UserError(
            f"vocabulary of {len(tokens):,} tokens lacks {' '.join(missing)}; "
            "use the vocab.txt of a BERT or ELECTRA model, or make one with electramed vocab"
        )
    return SpecialIds(*(ids[token] for token in SPECIAL_TOKENS))


def _alphabet(texts: Iterable[str], normalize: Callable[[str], str]) -> list[str]:
    """Returns the most frequent characters of the normalized texts except white space, sorted by code point.

    Each distinct character is normalized once, by itself: BERT's normalizer maps a text character by
    character, except for the order of combining marks.
    """
    raw = np.zeros(_CODE_POINTS, np.int64)
    for batch in _batches(texts):
        points = np.frombuffer("".join(batch).encode("utf-32-le"), np.uint32)
        values, times = np.unique(points, return_counts=True)
        raw[values] += times
    counts: Counter[str] = Counter()
    for point in np.flatnonzero(raw).tolist():
        for letter in normalize(chr(point)):
            counts[letter] += int(raw[point])
    by_count = sorted(
        (letter for letter in counts if not letter.isspace()), key=lambda letter: (-counts[letter], letter)
    )
    return sorted(by_count[:MAX_CHARACTERS])


def _drop_long_words(texts: Iterable[str]) -> Iterator[str]:
    """Yields the texts without words of more than MAX_WORD_CHARACTERS."""
    for batch in _batches(texts):
        if _has_long_run(" ".join(batch)):  # a fast check that most batches pass
            batch = [_LONG_WORD.sub(" ", text) if _has_long_run(text) else text for text in batch]
        yield from batch


def _has_long_run(text: str) -> bool:
    """Returns whether more than MAX_WORD_CHARACTERS bytes in a row are no space."""
    spaces = np.flatnonzero(np.frombuffer(f" {text} ".encode(), np.uint8) == ord(" "))
    return bool(np.diff(spaces).max() - 1 > MAX_WORD_CHARACTERS)


def _with_progress(texts: Iterable[str], advance: Callable[[int], None]) -> Iterator[str]:
    for batch in _batches(texts):
        yield from batch
        advance(len(batch))


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch
