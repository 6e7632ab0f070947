"""Computes which rows a step trains on when several datasets are mixed by weight: integer arithmetic, like `sampler`.

Positions are divided into *rounds* of 65,536. Each member of the mixture has a fixed number of positions per round,
its *quota*: the weights in proportion, by largest remainder, and at least one. Which positions of a round belong to
which member is drawn again for each round. The i-th position of member k in a round is position `round * quota_k + i`
of that member's own `EpochSampler`, which gives the row. So each member has its own epochs, with every row once in
each, at a rate set by its weight, and the rows of a step depend only on its number.
"""

from __future__ import annotations

import dataclasses
import fractions
import functools
from collections.abc import Sequence

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.data.dataset.sampler import EpochSampler, permutation

# Large enough for a member with one row in 65,536; a round is shuffled in a few milliseconds.
ROUND_POSITIONS = 1 << 16
# Second word of Philox's key, as in `sampler`.
_STREAM = 0x6D69787475726530


@dataclasses.dataclass(frozen=True)
class MixtureSampler:
    """The order of rows of several members: a function of the attributes and the step alone.

    Rows are numbered across the members: row r of member k is sum(num_rows[:k]) + r.

    Attributes:
      num_rows: rows of each member.
      weights: relative share of each member in the batches; empty: proportional to num_rows.
      batch_size: rows in a global batch.
      seed: 0 <= seed < 2**64.

    Raises:
      UserError: a number is out of range, or the numbers of weights and members differ.
    """

    num_rows: tuple[int, ...]
    weights: tuple[fractions.Fraction, ...]
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.weights and len(self.weights) != len(self.num_rows):
            raise UserError(
                f"config.data.weights names {len(self.weights)} for {len(self.num_rows)} datasets; "
                "give one for each folder of config.data.directory, in the same order, or none"
            )
        _ = self.samplers  # checks the other numbers

    @functools.cached_property
    def quotas(self) -> tuple[int, ...]:
        """Positions of each member per round."""
        return compute_quotas(self.weights or self.num_rows)

    @functools.cached_property
    def samplers(self) -> tuple[EpochSampler, ...]:
        """The sampler of each member."""
        return tuple(EpochSampler(rows, self.batch_size, self.seed, member=k) for k, rows in enumerate(self.num_rows))

    def rows(self, step: int) -> np.ndarray:
        """Returns the row numbers of the global batch of `step` (from 0), in order: int64[batch_size]."""
        assert step >= 0, step
        position, end = step * self.batch_size, (step + 1) * self.batch_size
        pieces = []
        while position < end:
            number, begin = divmod(position, ROUND_POSITIONS)
            stop = min(ROUND_POSITIONS, begin + end - position)
            pieces.append(self._rows_of_round(number, begin, stop))
            position += stop - begin
        return np.concatenate(pieces)

    def epoch(self, step: int) -> float:
        """Returns the rows in the batches before `step`, divided by the rows of all members."""
        return step * self.batch_size / sum(self.num_rows)

    def _rows_of_round(self, number: int, begin: int, stop: int) -> np.ndarray:
        member, rank = _round(self.quotas, self.seed, number)
        member, rank = member[begin:stop], rank[begin:stop]
        rows, before = np.empty(len(member), np.int64), 0
        for k, (sampler, quota, num_rows) in enumerate(zip(self.samplers, self.quotas, self.num_rows, strict=True)):
            if len(indices := np.flatnonzero(member == k)):
                first = number * quota + int(rank[indices[0]])  # the member's positions here are consecutive
                rows[indices] = before + sampler.rows_at(first, first + len(indices))
            before += num_rows
        return rows


def make_sampler(
    num_rows: Sequence[int], weights: Sequence[fractions.Fraction], batch_size: int, seed: int
) -> EpochSampler | MixtureSampler:
    """Returns the sampler of these members: an `EpochSampler` for a single one, which gives the same order."""
    mixture = MixtureSampler(tuple(num_rows), tuple(weights), batch_size, seed)
    return mixture if len(num_rows) > 1 else mixture.samplers[0]


def parse_weights(text: str) -> tuple[fractions.Fraction, ...]:
    """Parses the setting data.weights, such as "3,1" or "0.75, 0.25"; "" gives no weights.

    Raises:
      UserError: not numbers above 0.
    """
    try:
        weights = tuple(fractions.Fraction(part.strip()) for part in text.split(",")) if text.strip() else ()
    except (ValueError, ZeroDivisionError):
        weights = (fractions.Fraction(0),)
    if any(weight <= 0 for weight in weights):
        raise UserError(f"config.data.weights={text!r}; wanted numbers above 0 with commas between, such as 3,1")
    return weights


def compute_quotas(weights: Sequence[fractions.Fraction | int]) -> tuple[int, ...]:
    """Returns the positions per round for each weight: by largest remainder, at least 1, ROUND_POSITIONS in total."""
    total = sum(weights)
    exact = [fractions.Fraction(weight) * ROUND_POSITIONS / total for weight in weights]
    quotas = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda k: quotas[k] - exact[k])  # stable: the first of equals
    for k in by_remainder[: ROUND_POSITIONS - sum(quotas)]:
        quotas[k] += 1
    for k, positions in enumerate(quotas):
        if not positions:
            quotas[k] += 1
            quotas[quotas.index(max(quotas))] -= 1
    return tuple(quotas)


# Small: a run passes through rounds in order.
@functools.lru_cache(maxsize=2)
def _round(quotas: tuple[int, ...], seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns int64[ROUND_POSITIONS] each: the member of each position, and how many earlier positions it has."""
    order = permutation((seed, _STREAM), (number, 0), ROUND_POSITIONS)
    member = np.repeat(np.arange(len(quotas)), quotas)[order]
    rank = np.empty(ROUND_POSITIONS, np.int64)
    for k, quota in enumerate(quotas):
        rank[member == k] = np.arange(quota)
    return member, rank
