"""Batches of random token ids, for benchmarks and ahead-of-time compilation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.dataset.manifest import Manifest, dtype_for

if TYPE_CHECKING:
    import jax

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)  # in random rows
_MIN_ROW_LENGTH = 16
_MIN_DOCUMENT_LENGTH = 8
_STREAM = 0x73796E7468657469  # separates these random numbers from those of `sampler` for the same seed


class SyntheticLoader:
    """Random rows with the interface of `loader.Loader`.

    Rows have the packed format: `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]` one after the other, the last
    document cut to fit, some rows with a few [PAD] at the end. Ids of text are uniform over the vocabulary, so
    a model learns nothing from them. A row is a function of (seed, step, position in the batch) alone, so it does
    not depend on the number of hosts.

    Args:
      batch_size: rows of the global batch.
      row_length: T, at least 16.
      vocab_size: ids 0 to 4 are the special tokens.
      seed: of the ids.
      sharding: see `Loader`.

    Attributes:
      manifest: a Manifest without splits.
      rows_in_epoch: the batch size, since the data has no end.

    Raises:
      UserError: a batch size that the mesh does not divide, a row or vocabulary that is too small.
    """

    def __init__(
        self,
        batch_size: int,
        row_length: int,
        vocab_size: int,
        seed: int,
        sharding: jax.sharding.NamedSharding,
    ) -> None:
        from electramed_jax.data.dataset import loader

        loader.check_batch_size(batch_size, sharding)
        if row_length < _MIN_ROW_LENGTH or vocab_size <= SPECIAL.mask + 1:
            raise UserError(
                f"row_length={row_length}, vocab_size={vocab_size}; wanted {_MIN_ROW_LENGTH} or more"
                f" and more than {SPECIAL.mask + 1}"
            )
        self.manifest = Manifest(
            row_length=row_length,
            dtype=dtype_for(vocab_size),
            vocab_size=vocab_size,
            vocab_sha256="",
            lower_case=True,
            special=SPECIAL,
            splits={},
            sources=[],
            dropped={},
            length_histogram={},
            code_version="",
            name="synthetic",
        )
        self.rows_in_epoch = batch_size
        self._seed = seed

        def read(step: int) -> dict[str, jax.Array]:
            return loader.global_batch(
                lambda first, end: np.stack([self._row(step, i) for i in range(first, end)]),
                (batch_size, row_length),
                sharding,
            )

        self._prefetcher = loader.StepPrefetcher(read)

    def at(self, step: int) -> dict[str, jax.Array]:
        """Returns {"input_ids": int32[B, T]} of `step`."""
        return self._prefetcher.at(step)

    def epoch(self, _step: int) -> float:
        """Returns 0.0: random rows are never repeated."""
        return 0.0

    def close(self) -> None:
        """Stops prefetching."""
        self._prefetcher.close()

    def __enter__(self) -> SyntheticLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _row(self, step: int, position: int) -> np.ndarray:
        length, text = self.manifest.row_length, SPECIAL.mask + 1
        raw = np.random.Philox(
            key=np.array([self._seed, _STREAM], np.uint64),
            counter=np.array([0, 0, step, position], np.uint64),
        ).random_raw(2 * length)
        row = (text + raw[:length] % np.uint64(self.manifest.vocab_size - text)).astype(np.int32)
        numbers = iter(raw[length:].tolist())
        # Documents of 8 tokens up to one and a half rows: some fill a row, most share it with others.
        begin = 0
        while length - begin >= _MIN_DOCUMENT_LENGTH:
            size = _MIN_DOCUMENT_LENGTH + next(numbers) % (3 * length // 2)
            end = min(begin + size, length)
            row[begin], row[end - 1] = SPECIAL.cls, SPECIAL.sep
            if next(numbers) % 10:
                row[begin + 2 + next(numbers) % (end - begin - 4)] = SPECIAL.sep
            begin = end
        row[begin:] = SPECIAL.pad
        return row
