"""Which rows a step trains on where several datasets are mixed by weight: arithmetic on integers, as `data/plan.py`.

Positions are taken in *rounds* of 65,536. In each round, member k of the mixture has a fixed number of positions,
its *quota*: the weights in proportion, by largest remainder, and at least one. Which of the round's positions are
whose is drawn anew for every round. The i-th position of a round that is member k's stands at position
`round * quota_k + i` of that member alone, whose own `EpochSampler` says which row that is. So each member passes through
its own epochs, every row once in each, at a pace set by its weight; and where a step stands follows from its number.
"""

from __future__ import annotations

import dataclasses
import fractions
import functools
from collections.abc import Sequence

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.data.dataset.sampler import EpochSampler, permutation

# Enough to give a member of one row in 65,536 its due, and yet shuffled in some milliseconds.
ROUND_POSITIONS = 1 << 16
# Second word of Philox's key, as in `data/plan.py`.
_STREAM = 0x6D69787475726530


@dataclasses.dataclass(frozen=True)
class MixtureSampler:
    """The order in which rows of several members are fed: a function of these numbers and the step.

    Rows are numbered on from one member to the next: row r of member k is sum(num_rows[:k]) + r.

    Attributes:
      num_rows: of each member.
      weights: its share of the rows fed, in any unit; empty: as they have rows.
      batch_size: rows in a global batch.
      seed: 0 <= seed < 2**64.

    Raises:
      UserError: a number is out of range, or there are not as many weights as members.
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
        _ = self.plans

    @functools.cached_property
    def quotas(self) -> tuple[int, ...]:
        """Positions of each member in a round."""
        return quotas(self.weights or self.num_rows)

    @functools.cached_property
    def plans(self) -> tuple[EpochSampler, ...]:
        """Each member's order, as if it were alone."""
        return tuple(EpochSampler(rows, self.batch_size, self.seed, member=k) for k, rows in enumerate(self.num_rows))

    def rows(self, step: int) -> np.ndarray:
        """Row numbers of the global batch of `step` (from 0), in order: int64[batch_size]."""
        assert step >= 0, step
        position, end = step * self.batch_size, (step + 1) * self.batch_size
        pieces = []
        while position < end:
            number, offset = divmod(position, ROUND_POSITIONS)
            upto = min(ROUND_POSITIONS, offset + end - position)
            pieces.append(self._rows_of_round(number, offset, upto))
            position += upto - offset
        return np.concatenate(pieces)

    def epoch(self, step: int) -> float:
        """Rows fed when `step` begins, in rows of all members."""
        return step * self.batch_size / sum(self.num_rows)

    def _rows_of_round(self, number: int, offset: int, upto: int) -> np.ndarray:
        member, rank = _round(self.quotas, self.seed, number)
        member, rank = member[offset:upto], rank[offset:upto]
        rows, before = np.empty(len(member), np.int64), 0
        for k, (sampler, quota, num_rows) in enumerate(zip(self.plans, self.quotas, self.num_rows)):
            if len(chosen := np.flatnonzero(member == k)):
                first = number * quota + int(rank[chosen[0]])  # its positions here follow each other
                rows[chosen] = before + sampler.at(first, first + len(chosen))
            before += num_rows
        return rows


def make_sampler(
    num_rows: Sequence[int], weights: Sequence[fractions.Fraction], batch_size: int, seed: int
) -> EpochSampler | MixtureSampler:
    """The order of a `MixtureSampler` of these members; the plain `EpochSampler`, which is the same one, where there is but one."""
    mixture = MixtureSampler(tuple(num_rows), tuple(weights), batch_size, seed)
    return mixture if len(num_rows) > 1 else mixture.plans[0]


def parse_weights(text: str) -> tuple[fractions.Fraction, ...]:
    """Weights as a setting has them: "3,1" or "0.75, 0.25"; "" is none.

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


def quotas(weights: Sequence[fractions.Fraction | int]) -> tuple[int, ...]:
    """Positions of a round for each weight: by largest remainder, none without one, `ROUND_POSITIONS` in all."""
    total = sum(weights)
    exact = [fractions.Fraction(weight) * ROUND_POSITIONS / total for weight in weights]
    whole = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda k: whole[k] - exact[k])  # stable: the first of equals
    for k in by_remainder[: ROUND_POSITIONS - sum(whole)]:
        whole[k] += 1
    for k, positions in enumerate(whole):
        if not positions:
            whole[k] += 1
            whole[whole.index(max(whole))] -= 1
    return tuple(whole)


# Small: a run walks through rounds in order.
@functools.lru_cache(maxsize=2)
def _round(quotas: tuple[int, ...], seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """(the member, the count of its positions before this one) for each position of a round: int64 each."""
    order = permutation((seed, _STREAM), (number, 0), ROUND_POSITIONS)
    member = np.repeat(np.arange(len(quotas)), quotas)[order]
    rank = np.empty(ROUND_POSITIONS, np.int64)
    for k, quota in enumerate(quotas):
        rank[member == k] = np.arange(quota)
    return member, rank
