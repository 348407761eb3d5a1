"""Choices made on training prompts that are kept out: the base, centring, and scores for the threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prefroute._progress import tracked
from prefroute.bradley_terry import sigmoid
from prefroute.errors import ConfigurationError
from prefroute.routers._embedding import deal_folds
from prefroute.routers._index import moved

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from prefroute.routers._index import SimilarityIndex
    from prefroute.routers._tier_sums import TierSums

_FOLDS = 5
_JUDGED = 2000
"""Prompts that a choice is judged on, at most."""

_LEAST_CHANCE = 1e-9

_SAMPLED, _FEWEST_SAMPLED, _COSINES = 1000, 200, 200_000_000
"""Prompts whose scores the threshold is taken from: 1,000, fewer where that would take so many cosines."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to weigh battles.

    Attributes:
        base: As in `TierSums.strengths`.
        centred: Whether the mean embedding is subtracted.
    """

    base: float
    centred: bool


def win_probabilities(strengths: NDArray[np.float64], strong: int, weak: int) -> NDArray[np.float64]:
    """P(strong wins) from strengths of tiers, shape (b, num_tiers); shape (b,)."""
    return sigmoid(strengths[:, strong] - strengths[:, weak])


def left_out_strengths(
    index: SimilarityIndex,
    sums: TierSums,
    *,
    base: float,
    ridge: float,
    groups: NDArray[np.int64],
    seed: int,
    progress: bool = False,
) -> NDArray[np.float64]:
    """Strengths of the tiers as seen from training prompts whose own battles are kept out.

    Args:
        index: The index.
        sums: Its battles.
        base: As in `TierSums.strengths`.
        ridge: As in `TierSums.strengths`.
        groups: Number of each row's prompt; its other spellings are kept out too, shape (p,).
        seed: Draws up to 1,000 prompts.
        progress: Show a bar on stderr.

    Returns:
        Shape (k, num_tiers), for any pair of tiers to be scored from.
    """
    count = min(len(index), _affordable(_SAMPLED, len(index)))
    own = np.sort(np.random.default_rng(seed).choice(len(index), count, replace=False))
    found = np.empty((count, sums.num_tiers))
    for batch in tracked(list(index.batches(count)), "Finding the threshold", progress=progress):
        rows = own[batch]
        own_entries = groups[:, None] == groups[rows]
        # Without a name for the cosines, so that two batches of them are never held at once.
        found[batch] = sums.strengths(index.cosines(index.unpacked(rows)), base=base, ridge=ridge, hidden=own_entries)
    return found


class CentredView:
    """An index as it would be with its mean subtracted, without another copy of its rows.

    With unit rows r and mean m, cos(q, r - m) = (q . r - q . m) / |r - m| for a query q of length 1.
    """

    def __init__(self, index: SimilarityIndex) -> None:
        """Measure the rows.

        Args:
            index: In float32, not centred.
        """
        self._index = index
        self._mean = index.mean_row()
        self._inverse = index.inverse_distances(self._mean)  # (p,)

    def batches(self, count: int) -> Iterator[slice]:
        """As of the index."""
        return self._index.batches(count)

    def unpacked(self, chosen: slice | NDArray[np.integer]) -> NDArray[np.float32]:
        """Some rows, centred, shape (k, d)."""
        return moved(self._index.unpacked(chosen), self._mean)

    def cosines(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine of every centred row with every query from `unpacked`, shape (p, b)."""
        found = self._index.cosines(queries)
        found -= self._mean @ queries.T
        found *= self._inverse[:, None]
        return found


class Choice(NamedTuple):
    """The candidate chosen, and how it did.

    Attributes:
        best: The candidate.
        losses: Cross-validated log loss of every candidate.
        rows: Rows of the j prompts that they were judged on, shape (j,).
        scores: Logit of P(strong wins) by the best candidate without the fold of the prompt, less the logit that
            all battles outside that fold give when they weigh the same, shape (j,). Without the latter, which is
            higher where the prompts held out were worse for the strong model, folds can be compared.
        outcomes: P(strong wins) as observed, shape (j,).
    """

    best: Candidate
    losses: dict[Candidate, float]
    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    outcomes: NDArray[np.float64]


def choose(
    candidates: Sequence[Candidate],
    index: SimilarityIndex,
    sums: TierSums,
    *,
    tiers: tuple[int, int],
    ridge: float,
    groups: NDArray[np.int64],
    seed: int,
    progress: bool = False,
) -> Choice | None:
    """Find the candidate whose P is nearest to the outcomes of prompts that are kept out.

    The prompts are cut into 5 folds. Those with a battle between the two tiers, up to 2,000, are scored from
    the battles of the other folds alone. The measure is the log loss: as a proper score it uses how far off
    each prompt is, where the area under the curve of recovered quality, which only sees the order of the
    prompts, is too noisy on so few to tell candidates apart.

    Args:
        candidates: At least one.
        index: In float32 and not centred, where a candidate is.
        sums: Its battles.
        tiers: The strong and the weak tier.
        ridge: As in `TierSums.strengths`.
        groups: Number of each row's prompt, the same for its spellings, which stay in one fold, shape (p,).
        seed: Draws the folds.
        progress: Show a bar on stderr.

    Returns:
        The best candidate (the first of equals); None where there is but one, and too few prompts to judge it.

    Raises:
        ConfigurationError: There are too few battles to choose by.
    """
    judged, outcomes, weights = sums.labels(*tiers)
    random = np.random.default_rng(seed)
    kept = np.sort(random.permutation(len(judged))[: _affordable(_JUDGED, len(index))])
    judged, outcomes, weights = judged[kept], outcomes[kept], weights[kept]
    if len(np.unique(groups[judged])) < _FOLDS:
        if len(candidates) == 1:
            return None
        msg = (
            f"the data have {len(judged)} prompts with battles between the two tiers, too few to choose by; "
            "give one base and centred=True or False instead of leaving the choice open"
        )
        raise ConfigurationError(msg)
    folds = deal_folds(groups, _FOLDS, np.random.default_rng(seed))
    found: dict[Candidate, NDArray[np.float64]] = {}
    for centred in sorted({candidate.centred for candidate in candidates}):
        view = CentredView(index) if centred else index
        group = [candidate for candidate in candidates if candidate.centred == centred]
        bases = [candidate.base for candidate in group]
        scores = _held_out_scores(
            view, sums, judged=judged, folds=folds, bases=bases, tiers=tiers, ridge=ridge, progress=progress
        )
        found |= dict(zip(group, scores, strict=True))
    losses = {candidate: _log_loss(scores, outcomes, weights) for candidate, scores in found.items()}
    best = min(candidates, key=losses.__getitem__)
    strong, weak = tiers
    without = [sums.overall(len(index), ridge=ridge, hidden=folds == fold) for fold in range(_FOLDS)]
    levels = np.array([strengths[strong] - strengths[weak] for strengths in without])
    chances = np.clip(found[best], _LEAST_CHANCE, 1.0 - _LEAST_CHANCE)
    scores = np.log(chances) - np.log1p(-chances) - levels[folds[judged]]
    return Choice(best, losses, judged, scores, outcomes)


def _affordable(count: int, size: int) -> int:
    """At most `count` queries of an index of this size, fewer where they would take too many cosines."""
    return min(count, max(_FEWEST_SAMPLED, _COSINES // size))


def _log_loss(scores: NDArray[np.float64], outcomes: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Weighted mean log loss of scores against outcomes in [0, 1], all of shape (n,)."""
    chances = np.clip(scores, _LEAST_CHANCE, 1.0 - _LEAST_CHANCE)
    losses = outcomes * np.log(chances) + (1.0 - outcomes) * np.log1p(-chances)
    return -float(np.average(losses, weights=weights))


def _held_out_scores(
    index: SimilarityIndex | CentredView,
    sums: TierSums,
    *,
    judged: NDArray[np.int64],
    folds: NDArray[np.int64],
    bases: Sequence[float],
    tiers: tuple[int, int],
    ridge: float,
    progress: bool,
) -> NDArray[np.float64]:
    """P(strong wins) of each prompt for each base, shape (bases, prompts)."""
    scores = np.empty((len(bases), len(judged)))
    for fold in tracked(range(_FOLDS), "Choosing", progress=progress):
        members = np.flatnonzero(folds[judged] == fold)
        hidden = folds == fold
        for batch in index.batches(len(members)):
            places = members[batch]
            cosines = index.cosines(index.unpacked(judged[places]))
            for row, base in zip(scores, bases, strict=True):
                strengths = sums.strengths(cosines.copy(), base=base, ridge=ridge, hidden=hidden)
                row[places] = win_probabilities(strengths, *tiers)
    return scores
