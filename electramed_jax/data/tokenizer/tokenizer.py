"""Text to token ids and back, with the WordPiece rules that the Hugging Face export carries on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.word_cache import WordCache

MAX_WORD_CHARACTERS = 100  # Hugging Face's limit; google-research/electra's is 200


class Tokenizer:
    """BERT's tokenizer over a vocab.txt.

    A literal "[MASK]" or "[SEP]" in a text stays text (three or more pieces), as in Google's code;
    Hugging Face's tokenizers would turn it into the special id. In all else it is Hugging Face's,
    which the export carries on; that departs from Google's in words of more than 100 characters,
    a capital sigma at a word's end, and characters that Unicode has not assigned.

    Attributes:
      tokens: the vocabulary, by id.
      special: ids of the special tokens.
      lower_case: whether text is lower-cased and stripped of accents.
      whole: tokens, such as "@GENE$", that are one piece although the rules would cut them.
    """

    def __init__(self, vocab_path: str, lower_case: bool = True):
        self._set_up(vocab.read_vocab(vocab_path), lower_case, ())

    @classmethod
    def from_tokens(cls, tokens: Sequence[str], lower_case: bool, never_split: Sequence[str] = ()) -> Tokenizer:
        """With a vocabulary at hand; those of its tokens that are `never_split` are never cut, wherever they stand."""
        tokenizer = cls.__new__(cls)
        tokenizer._set_up(list(tokens), lower_case, tuple(never_split))
        return tokenizer

    def _set_up(self, tokens: list[str], lower_case: bool, never_split: tuple[str, ...]) -> None:
        self.tokens, self.lower_case, self.never_split = tokens, lower_case, never_split
        self.special = vocab.special_ids(tokens)
        self._plain = self._new_backend()
        self._words = WordCache(self._ids_of_words, ignore_case=lower_case)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, int32[n], without [CLS] and [SEP]."""
        if self.never_split:  # a word table cuts around every mark
            return [np.array(ids, np.int32) for ids in self._ids_of_words(list(texts))]
        return self._words.ids(texts)

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids as of `encode_batch`, int32[n], and where each piece stands in its text, int32[n, 2].

        Piece i is of `text[offsets[i, 0]:offsets[i, 1]]`: characters, as Python counts them. What the normaliser
        drops (accents, control characters) may stand between pieces or inside one; white space stands in none.
        """
        encodings = self._plain.encode_batch(list(texts), add_special_tokens=False)
        return [
            (np.array(encoding.ids, np.int32), np.array(encoding.offsets, np.int32).reshape(-1, 2))
            for encoding in encodings
        ]

    def _ids_of_words(self, words: list[str]) -> list[list[int]]:
        """Ids of each word; one of ASCII letters and digits, which normalising leaves alone (the table has
        put them in small letters), goes straight to the word pieces, in a quarter of the time."""
        pieces = self._plain.model.tokenize
        ids = [[piece.id for piece in pieces(w)] if w.isascii() and w.isalnum() else None for w in words]
        others = [word for word, known in zip(words, ids, strict=True) if known is None]
        encodings = iter(self._plain.encode_batch_fast(others, add_special_tokens=False))
        return [next(encodings).ids if known is None else known for known in ids]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of the ids, pieces joined, special tokens shown."""
        return self.backend.decode([int(number) for number in ids], skip_special_tokens=False)

    @functools.cached_property
    def backend(self) -> Any:
        """For the export: a `tokenizers.Tokenizer` with special tokens, template and decoder."""
        from tokenizers import AddedToken, decoders, processors

        backend = self._new_backend()
        backend.add_special_tokens(
            [AddedToken(token, special=True, normalized=False) for token in vocab.SPECIAL_TOKENS]
        )
        backend.post_processor = processors.TemplateProcessing(
            single=f"{vocab.CLS}:0 $A:0 {vocab.SEP}:0",
            pair=f"{vocab.CLS}:0 $A:0 {vocab.SEP}:0 $B:1 {vocab.SEP}:1",
            special_tokens=[(vocab.CLS, self.special.cls), (vocab.SEP, self.special.sep)],
        )
        backend.decoder = decoders.WordPiece(prefix="##")
        return backend

    def _new_backend(self) -> Any:
        from tokenizers import AddedToken, models, normalizers, pre_tokenizers
        from tokenizers import Tokenizer as Backend

        backend = Backend(
            models.WordPiece(
                {token: number for number, token in enumerate(self.tokens)},
                unk_token=vocab.UNK,
                max_input_chars_per_word=MAX_WORD_CHARACTERS,
                continuing_subword_prefix="##",
            )
        )
        backend.normalizer = normalizers.BertNormalizer(lowercase=self.lower_case)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.add_tokens([AddedToken(token, normalized=False) for token in self.never_split])
        return backend
