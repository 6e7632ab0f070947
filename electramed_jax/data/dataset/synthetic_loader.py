"""Batches of random token ids, for benchmarks and compilation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.dataset.manifest import Manifest, dtype_for

if TYPE_CHECKING:
    import jax

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)  # of random rows


class SyntheticLoader:
    """The interface of `data.loader.Loader` over random rows: for benchmarks and compilation.

    Rows are built as `data/pack.py` builds them, `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]` one
    after the other, the last document cut to fit, some rows ending in a little [PAD]. Ids of text
    are uniform over the vocabulary: there is nothing to learn. A row depends on (seed, step, its
    place in the batch) and on nothing else, hence not on the number of hosts.

    Args:
      batch_size: rows of the global batch.
      row_length: T, at least 16.
      vocab_size: ids 0 to 4 are the special tokens.
      seed: of the ids.
      sharding: as in `Loader`.

    Attributes:
      manifest: a Manifest without splits.
      rows_in_epoch: the batch size: there is no end to the data.

    Raises:
      UserError: a batch size that the mesh cannot share out, a row or vocabulary that is too small.
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
        if row_length < _SHORTEST_ROW or vocab_size <= SPECIAL.mask + 1:
            raise UserError(
                f"row_length={row_length}, vocab_size={vocab_size}; wanted {_SHORTEST_ROW} or more"
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

        self._prefetched = loader.StepPrefetcher(read)

    def at(self, step: int) -> dict[str, jax.Array]:
        """{"input_ids": int32[B, T]} of `step`."""
        return self._prefetched.at(step)

    def epoch(self, step: int) -> float:
        """Always 0.0: random rows never come round again."""
        return 0.0

    def close(self) -> None:
        self._prefetched.close()

    def __enter__(self) -> SyntheticLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _row(self, step: int, place: int) -> np.ndarray:
        length, text = self.manifest.row_length, SPECIAL.mask + 1
        raw = np.random.Philox(
            key=np.array([self._seed, _STREAM], np.uint64),
            counter=np.array([0, 0, step, place], np.uint64),
        ).random_raw(2 * length)
        row = (text + raw[:length] % np.uint64(self.manifest.vocab_size - text)).astype(np.int32)
        dice = iter(raw[length:].tolist())
        # Documents of 8 tokens up to a row and a half: some fill the row, most share it.
        begin = 0
        while length - begin >= _SHORTEST_DOCUMENT:
            size = _SHORTEST_DOCUMENT + next(dice) % (3 * length // 2)
            end = min(begin + size, length)
            row[begin], row[end - 1] = SPECIAL.cls, SPECIAL.sep
            if next(dice) % 10:
                row[begin + 2 + next(dice) % (end - begin - 4)] = SPECIAL.sep
            begin = end
        row[begin:] = SPECIAL.pad
        return row


_SHORTEST_ROW = 16


_SHORTEST_DOCUMENT = 8


_STREAM = 0x73796E7468657469  # apart from the plan's stream of the same seed
