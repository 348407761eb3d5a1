"""Battles over the rows of an index, and what is left of them between tiers: sums of weights by pair of tiers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute.bradley_terry import fit_bradley_terry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prefroute.data import Battles

_ROWS = 2**13
"""Weights summed in float32 at a time; the sums of these are added in float64."""

_LEAST_COSINE = 1e-6
"""A largest cosine below this is 0 within the rounding of float32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RowBattles:
    """n battles between models, over the prompts of an index.

    Attributes:
        rows: Row of the index, shape (n,), int32.
        model_a: One model, a position in the list of models, shape (n,), int32.
        model_b: The other, shape (n,), int32.
        outcomes: Probability that `model_a` wins, shape (n,), float32.
        weights: How much each battle counts, shape (n,), float32.
    """

    rows: NDArray[np.int32]
    model_a: NDArray[np.int32]
    model_b: NDArray[np.int32]
    outcomes: NDArray[np.float32]
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, battles: Battles, rows: NDArray[np.integer], models: NDArray[np.integer]) -> RowBattles:
        """Take over a table, given the row of each of its prompts and the position of each of its models."""
        return cls(
            rows=rows[battles.prompt_index].astype(np.int32),
            model_a=models[battles.model_a].astype(np.int32),
            model_b=models[battles.model_b].astype(np.int32),
            outcomes=battles.outcomes.astype(np.float32),
            weights=battles.weights.astype(np.float32),
        )

    def __len__(self) -> int:
        """Number of battles."""
        return len(self.rows)

    def extended(self, more: RowBattles) -> RowBattles:
        """These battles, then those."""
        return RowBattles(**{name: np.concatenate([column, vars(more)[name]]) for name, column in vars(self).items()})

    def moved(self, order: NDArray[np.integer]) -> RowBattles:
        """The same battles for an index whose row i was row `order[i]`."""
        return RowBattles(**(vars(self) | {"rows": _inverse(order)[self.rows]}))


@dataclass(frozen=True, kw_only=True, eq=False)
class TierSums:
    """Battles between tiers, sorted by pair of tiers and by prompt; equal ones merged.

    Battles within a tier are left out. They say nothing about the strengths of tiers; the published code
    keeps them by mistake: both of their entries go to one column of the design, where the second overwrites
    the first, so each counts as a win or a loss against nobody, that is, as noise.

    Attributes:
        num_tiers: Number of tiers.
        pairs: Better and worse tier of each pair of tiers that met, shape (c, 2).
        starts: Where each pair's entries begin, and where the last one's end, shape (c + 1,).
        rows: Row of the index of each entry, shape (n,); None when that is 0, 1, 2, ...
        won: First row the weight with which the better tier won, second the worse, shape (2, n), float32.
    """

    num_tiers: int
    pairs: NDArray[np.int64]
    starts: NDArray[np.int64]
    rows: NDArray[np.int64] | None
    won: NDArray[np.float32]

    @classmethod
    def of(cls, battles: RowBattles, tiers: NDArray[np.integer], num_tiers: int) -> TierSums:
        """Derive the entries.

        Args:
            battles: Battles between models.
            tiers: Tier of each model; below 0 for none, whose battles are left out.
            num_tiers: Number of tiers.
        """
        tier_a, tier_b = tiers[battles.model_a].astype(np.int64), tiers[battles.model_b].astype(np.int64)
        kept = np.flatnonzero((tier_a != tier_b) & (tier_a >= 0) & (tier_b >= 0))
        tier_a, tier_b = tier_a[kept], tier_b[kept]
        better = np.where(tier_a < tier_b, battles.outcomes[kept], 1.0 - battles.outcomes[kept]).astype(np.float64)
        weight = battles.weights[kept].astype(np.float64)
        pair = np.minimum(tier_a, tier_b) * num_tiers + np.maximum(tier_a, tier_b)
        span = int(battles.rows.max(initial=0)) + 1
        keys, place = np.unique(pair * span + battles.rows[kept], return_inverse=True)
        won = np.stack([np.bincount(place, weight * p, len(keys)) for p in (better, 1.0 - better)])
        pair, rows = keys // span, (keys % span).astype(np.int64)
        found, starts = np.unique(pair, return_index=True)
        return cls(
            num_tiers=num_tiers,
            pairs=np.stack([found // num_tiers, found % num_tiers], axis=1),
            starts=np.append(starts, len(keys)),
            rows=None if np.array_equal(rows, np.arange(len(rows))) else rows,
            won=won.astype(np.float32),
        )

    def order(self, count: int) -> NDArray[np.int64]:
        """The rows sorted by the first pair of tiers that each has an entry for, those without any last.

        In an index of this order the entries of prompts with one entry each need no gathering.

        Args:
            count: Number of rows.

        Returns:
            Which row should come where, shape (count,).
        """
        first = np.full(count, len(self.pairs))
        entry_pair = np.repeat(np.arange(len(self.pairs)), np.diff(self.starts))
        np.minimum.at(first, np.arange(len(entry_pair)) if self.rows is None else self.rows, entry_pair)
        return np.argsort(first, kind="stable")

    def labels(self, strong: int, weak: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """What the prompts' battles between two tiers say.

        Returns:
            Rows of the k prompts that have such a battle, the observed probability that the first tier wins on
            each, and the weight of its battles; each of shape (k,).
        """
        which = np.flatnonzero((self.pairs == sorted((strong, weak))).all(axis=1))
        if not len(which):
            return np.empty(0, dtype=np.int64), np.empty(0), np.empty(0)
        entries = slice(*self.starts[which[0] : which[0] + 2])
        better, worse = self.won[:, entries].astype(np.float64)
        rows = np.arange(entries.start, entries.stop) if self.rows is None else self.rows[entries]
        return rows, (better if strong < weak else worse) / (better + worse), better + worse

    def overall(self, count: int, *, ridge: float, hidden: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Strengths when all battles weigh the same.

        Args:
            count: Rows of the index.
            ridge: See `fit_bradley_terry`.
            hidden: Rows to leave out, shape (count,).

        Returns:
            Shape (num_tiers,).
        """
        everything = np.ones((count, 1), dtype=np.float32)
        if hidden is not None:
            everything[hidden] = 0.0
        found: NDArray[np.float64] = fit_bradley_terry(self._wins(everything), ridge=ridge)[0]
        return found

    def strengths(
        self,
        cosines: NDArray[np.float32],
        *,
        base: float,
        ridge: float,
        hidden: Any = None,
    ) -> NDArray[np.float64]:
        """Strengths of the tiers as seen from each query.

        With s_i = cos_i / max_k cos_k, each battle weighs base^(s_i); the published base^(1 + s_i) is that
        times a constant, which moves no maximum. Where no cosine is above 0 all weigh the same.

        Args:
            cosines: Of rows with queries, shape (p, b); overwritten.
            base: What a battle of the most similar prompt weighs, that of an unrelated one weighing 1.
            ridge: In that unit; see `fit_bradley_terry`.
            hidden: An index into `cosines`: what is to be left out, as if those prompts were not there.

        Returns:
            Natural log-odds, mean 0, best tier first, shape (b, num_tiers).
        """
        if hidden is not None:
            cosines[hidden] = -np.inf
        largest = cosines.max(axis=0)
        scale = np.log(base) / np.where(largest > _LEAST_COSINE, largest, np.inf)
        weights = cosines if self.rows is not None else cosines[: self.won.shape[1]]
        if hidden is not None:
            cosines[hidden] = 0.0
        np.multiply(weights, scale.astype(np.float32), out=weights)
        np.exp(weights, out=weights)
        if hidden is not None:
            cosines[hidden] = 0.0
        return fit_bradley_terry(self._wins(weights), ridge=ridge, start=self._overall)

    def _wins(self, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        """Summed weights of wins, shape (b, num_tiers, num_tiers)."""
        sums = np.zeros((len(self.pairs), 2, weights.shape[1]))
        for pair, start, stop in self._blocks:
            block = weights[start:stop] if self.rows is None else weights[self.rows[start:stop]]
            sums[pair] += self.won[:, start:stop] @ block
        wins = np.zeros((weights.shape[1], self.num_tiers, self.num_tiers))
        better, worse = self.pairs.T
        wins[:, better, worse] = sums[:, 0].T
        wins[:, worse, better] = sums[:, 1].T
        return wins

    @cached_property
    def _blocks(self) -> list[tuple[int, int, int]]:
        """Pair, first and last entry of what is summed in float32 at a time."""
        return [
            (pair, start, min(start + _ROWS, int(stop)))
            for pair, (first, stop) in enumerate(zip(self.starts[:-1], self.starts[1:], strict=True))
            for start in range(int(first), int(stop), _ROWS)
        ]

    @cached_property
    def _overall(self) -> NDArray[np.float64]:
        """Strengths when all battles weigh the same: close to those of any query, so a good start."""
        count = self.won.shape[1] if self.rows is None else int(self.rows.max(initial=0)) + 1
        return self.overall(count, ridge=1.0)


def _inverse(order: NDArray[np.integer]) -> NDArray[np.int32]:
    inverse = np.empty(len(order), dtype=np.int32)
    inverse[order] = np.arange(len(order), dtype=np.int32)
    return inverse
