"""Converts text to token ids and back, by the WordPiece rules of the Hugging Face export."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.word_cache import WordCache


class Tokenizer:
    """BERT's tokenizer for a vocab.txt.

    A literal "[MASK]" or "[SEP]" in a text is text (three or more pieces), as in Google's code;
    Hugging Face's tokenizers map it to the special id. Otherwise the ids equal those of Hugging Face's tokenizer,
    which the export contains. They differ from those of Google's code for words of more than 100 characters,
    a capital sigma at the end of a word, and characters that Unicode has not assigned.

    Attributes:
      tokens: the vocabulary, by id.
      special: ids of the special tokens.
      lower_case: whether text is lower-cased, and stripped of accents unless `keep_accents`.
      keep_accents: whether lower-cased text keeps its accents.
      never_split: tokens, such as "@GENE$", that are one piece although the rules would split them.
    """

    def __init__(self, vocab_path: str, lower_case: bool = True, keep_accents: bool = False):
        self._set_up(vocab.read_vocab(vocab_path), lower_case, keep_accents, ())

    @classmethod
    def from_tokens(
        cls, tokens: Sequence[str], lower_case: bool, never_split: Sequence[str] = (), *, keep_accents: bool = False
    ) -> Tokenizer:
        """Returns a tokenizer for a list of tokens, of which those in `never_split` are always one piece."""
        tokenizer = cls.__new__(cls)
        tokenizer._set_up(list(tokens), lower_case, keep_accents, tuple(never_split))
        return tokenizer

    def _set_up(self, tokens: list[str], lower_case: bool, keep_accents: bool, never_split: tuple[str, ...]) -> None:
        self.tokens, self.never_split = tokens, never_split
        self.lower_case, self.keep_accents = lower_case, keep_accents
        self.special = vocab.special_ids(tokens)
        self._backend = self._new_backend()
        self._word_cache = WordCache(self._ids_of_words, ignore_case=lower_case)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns the ids of each text, int32[n], without [CLS] and [SEP]."""
        if self.never_split:  # the word cache splits at every punctuation mark
            return [np.array(ids, np.int32) for ids in self._ids_of_words(list(texts))]
        return self._word_cache.ids(texts)

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns the ids of each text (see `encode_batch`) and the offsets of the pieces, int32[n, 2].

        Piece i is `text[offsets[i, 0]:offsets[i, 1]]`, in characters of Python's str. Characters that the normalizer
        drops (accents, control characters) may be between pieces or inside one. No piece contains white space.
        """
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [
            (np.array(encoding.ids, np.int32), np.array(encoding.offsets, np.int32).reshape(-1, 2))
            for encoding in encodings
        ]

    def _ids_of_words(self, words: list[str]) -> list[list[int]]:
        """Returns the ids of each word.

        A word of ASCII letters and digits needs no normalization (the word cache has lower-cased it), so it is passed
        to the WordPiece model directly, in a quarter of the time.
        """
        pieces = self._backend.model.tokenize
        ids = [[piece.id for piece in pieces(w)] if w.isascii() and w.isalnum() else None for w in words]
        others = [word for word, known in zip(words, ids, strict=True) if known is None]
        encodings = iter(self._backend.encode_batch_fast(others, add_special_tokens=False))
        return [next(encodings).ids if known is None else known for known in ids]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Returns the text of the ids, with joined pieces and visible special tokens."""
        return self.backend.decode([int(number) for number in ids], skip_special_tokens=False)

    @functools.cached_property
    def backend(self) -> Any:
        """A `tokenizers.Tokenizer` with special tokens, template and decoder, for the export."""
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
        from tokenizers import AddedToken, models, pre_tokenizers
        from tokenizers import Tokenizer as Backend

        backend = Backend(
            models.WordPiece(
                {token: number for number, token in enumerate(self.tokens)},
                unk_token=vocab.UNK,
                max_input_chars_per_word=vocab.MAX_WORD_CHARACTERS,
                continuing_subword_prefix="##",
            )
        )
        backend.normalizer = vocab.normalizer(self.lower_case, self.keep_accents)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.add_tokens([AddedToken(token, normalized=False) for token in self.never_split])
        return backend
