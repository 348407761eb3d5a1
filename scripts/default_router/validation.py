"""Cross-validation of the candidates, the choice among them on sources never seen, and figures free of that choice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from default_router.candidates import FEATURES, Candidate, Linear, Sums, all_candidates, fit
from prefroute.data import prompt_groups
from prefroute.embedding import ConcatenatedEmbedder, LengthEmbedder, SurfaceEmbedder
from prefroute.evaluation import apgr, draw_counts, interval, resampled_apgr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from default_router.sources import Source
    from prefroute.embedding import Embedder

SEED = 0
FOLDS = 5
RESAMPLES = 1000

ALL_FOLDS = tuple(range(FOLDS))

LENGTH = LengthEmbedder(mean=5.4, deviation=0.9, limit=2.0, unit="bytes")
"""Round numbers of the five sources. The limit: a word or a book scores as 40 or 1,300 letters do."""

Figures = dict[str, dict[str, Any]]


def embedder_of(features: str, static: Embedder) -> Embedder:
    """What sees these features of a prompt, one of `FEATURES`; the router is served with it."""
    others: dict[str, Embedder] = {"embedding and length": LENGTH, "embedding and surface": SurfaceEmbedder()}
    return ConcatenatedEmbedder([static, others[features]]) if features in others else static


@dataclass(frozen=True)
class Corpus:
    """All training sources in one table.

    Attributes:
        names: Of the sources.
        designs: What the candidates see of the n prompts, by `FEATURES`, shape (n, d) each.
        log_lengths: log(1 + characters), the baseline, shape (n,).
        outcomes: P(strong wins) as observed, shape (n,).
        gains: Shape (n,).
        sources: Number of the source of each prompt, shape (n,).
        folds: Fold in which each prompt is held out, shape (n,).
    """

    names: list[str]
    designs: dict[str, NDArray[np.float64]]
    log_lengths: NDArray[np.float64]
    outcomes: NDArray[np.float64]
    gains: NDArray[np.float64]
    sources: NDArray[np.int64]
    folds: NDArray[np.int64]

    @cached_property
    def sums(self) -> dict[str, list[list[Sums]]]:
        """By features, of each source and fold."""
        parts = [[self.rows(source, [fold]) for fold in ALL_FOLDS] for source in self.numbers]
        return {
            features: [[Sums.of(design[rows], self.outcomes[rows]) for rows in row] for row in parts]
            for features, design in self.designs.items()
        }

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of all sources."""
        return tuple(range(len(self.names)))

    def rows(self, source: int, folds: Sequence[int] = ALL_FOLDS) -> NDArray[np.bool_]:
        """Which prompts are of this source and these folds."""
        members: NDArray[np.bool_] = (self.sources == source) & np.isin(self.folds, folds)
        return members

    @property
    def weights(self) -> NDArray[np.float64]:
        """Of each prompt when every source counts the same in all, shape (n,), 1 in sum."""
        counts = np.bincount(self.sources)
        return 1.0 / (len(counts) * counts[self.sources])

    def fit(self, candidate: Candidate, sources: Sequence[int], folds: Sequence[int] = ALL_FOLDS) -> Linear:
        """Fit a candidate on the prompts of these sources and folds."""
        sums = self.sums[candidate.features]
        return fit([reduce(add, [sums[source][fold] for fold in folds]) for source in sources], candidate)


def corpus(sources: list[Source], static: Embedder) -> Corpus:
    """Embed the sources and deal their prompts into folds; equal prompts share a fold.

    Raises:
        ValueError: A prompt is in two sources, so one cannot be left out.
    """
    prompts = [prompt for source in sources for prompt in source.prompts]
    numbers = np.repeat(np.arange(len(sources)), [len(source.prompts) for source in sources])
    groups = prompt_groups(prompts)
    if len(np.unique(np.stack([groups, numbers]), axis=1).T) != len(np.unique(groups)):
        msg = "a prompt is in two sources; leave it out of one of them"
        raise ValueError(msg)
    return Corpus(
        names=[source.name for source in sources],
        designs={features: embedder_of(features, static).embed(prompts).astype(np.float64) for features in FEATURES},
        log_lengths=log_lengths(prompts),
        outcomes=np.concatenate([source.outcomes for source in sources]),
        gains=np.concatenate([source.gains for source in sources]),
        sources=numbers,
        folds=_folds(groups, numbers),
    )


def log_lengths(prompts: list[str]) -> NDArray[np.float64]:
    """The baseline's scores: the longer, the higher; shape (n,)."""
    return np.log1p([float(len(prompt)) for prompt in prompts])


def out_of_fold(data: Corpus, choices: Sequence[Candidate]) -> NDArray[np.float64]:
    """Scores of each prompt by a candidate fitted without its fold, shape (n,); one candidate for each fold."""
    scores = np.empty(len(data.gains))
    for fold, candidate in enumerate(choices):
        weights, bias = data.fit(candidate, data.numbers, _without(ALL_FOLDS, fold))
        held_out = data.folds == fold
        scores[held_out] = data.designs[candidate.features][held_out] @ weights + bias
    return scores


def levelled(data: Corpus, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores with one mean and spread in each fold of each source, shape (n,): candidates differ in both.

    Only where folds are scored by different candidates; pooled as they come, that alone would rank prompts. No label
    is looked at.
    """
    found = scores.copy()
    for source in data.numbers:
        for fold in ALL_FOLDS:
            rows = data.rows(source, [fold])
            spread = float(scores[rows].std())
            found[rows] = (scores[rows] - scores[rows].mean()) / (spread or 1.0)
    return found


def left_out(data: Corpus, choices: Sequence[Candidate]) -> NDArray[np.float64]:
    """Scores of each prompt by a candidate fitted without its source, shape (n,); one for each source."""
    scores = np.empty(len(data.gains))
    for source, candidate in enumerate(choices):
        weights, bias = data.fit(candidate, _without(data.numbers, source))
        rows = data.rows(source)
        scores[rows] = data.designs[candidate.features][rows] @ weights + bias
    return scores


@dataclass(frozen=True)
class Choice:
    """What came out of leaving out one source after the other.

    Attributes:
        best: The candidate of the highest mean APGR.
        chosen: The simplest that is no more than a standard error behind it.
        figures: APGR of each candidate on each source, fitted on the others.
        behind: How far the mean of each is behind the best, and the standard error of that.
    """

    best: Candidate
    chosen: Candidate
    figures: dict[Candidate, list[float]]
    behind: dict[Candidate, tuple[float, float]]


def choose(data: Corpus, sources: Sequence[int], folds: Sequence[int] = ALL_FOLDS) -> Choice:
    """Choose the simplest candidate that cannot be told from the best on sources that it was not fitted on.

    Args:
        data: The corpus.
        sources: Sources to look at, at least two.
        folds: Folds to look at.

    Returns:
        The choice. The standard error is that of the paired difference over resamples of the prompts.
    """
    figures: dict[Candidate, list[float]] = {}
    means: dict[Candidate, NDArray[np.float64]] = {}
    draws = {source: draw_counts(int(data.rows(source, folds).sum()), RESAMPLES, SEED + source) for source in sources}
    for candidate in all_candidates():
        resampled = []
        figures[candidate] = []
        for source in sources:
            rows = data.rows(source, folds)
            weights, _ = data.fit(candidate, _without(sources, source), folds)
            scores, gains = data.designs[candidate.features][rows] @ weights, data.gains[rows]
            figures[candidate].append(apgr(scores, gains))
            resampled.append(resampled_apgr(scores, gains, draws[source]))
        means[candidate] = np.mean(resampled, axis=0)
    best = max(figures, key=lambda candidate: np.mean(figures[candidate]))
    behind = {
        candidate: (float(np.mean(figures[best]) - np.mean(figure)), float(np.std(means[best] - means[candidate])))
        for candidate, figure in figures.items()
    }
    close = [candidate for candidate, (distance, error) in behind.items() if distance <= error]
    return Choice(best, min(close, key=lambda candidate: candidate.simplicity), figures, behind)


def choices_by_fold(data: Corpus) -> list[Candidate]:
    """What is chosen without each fold, so that figures on it owe nothing to the choice."""
    return [choose(data, data.numbers, _without(ALL_FOLDS, fold)).chosen for fold in ALL_FOLDS]


def choices_by_source(data: Corpus) -> list[Candidate]:
    """What is chosen without each source."""
    return [choose(data, _without(data.numbers, source)).chosen for source in data.numbers]


class Resampler:
    """APGR by source with intervals; the same resamples of prompts for everything, so differences are paired."""

    def __init__(self, data: Corpus) -> None:
        """Draw the resamples of each source."""
        self.data = data
        self.draws = [draw_counts(int(data.rows(i).sum()), RESAMPLES, SEED + i) for i in data.numbers]

    def resampled(self, scores: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """APGR on each resample of each source and, last, their plain mean, shape (r,) each."""
        found = [
            resampled_apgr(scores[rows], self.data.gains[rows], self.draws[i])
            for i, rows in enumerate(map(self.data.rows, self.data.numbers))
        ]
        return [*found, np.mean(found, axis=0)]

    def points(self, scores: NDArray[np.float64]) -> list[float]:
        """APGR on each source and, last, their plain mean."""
        found = [apgr(scores[rows], self.data.gains[rows]) for rows in map(self.data.rows, self.data.numbers)]
        return [*found, float(np.mean(found))]

    def figures(self, scores: NDArray[np.float64]) -> Figures:
        """APGR on each source and their mean, with intervals, and the difference to prompt length."""
        values, resamples = self.points(scores), self.resampled(scores)
        base, resamples_of_base = self.points(self.data.log_lengths), self.resampled(self.data.log_lengths)
        rows = zip([*self.data.names, "mean"], values, resamples, base, resamples_of_base, strict=True)
        return {
            name: figure(value, resampled) | {"over_length": figure(value - length, resampled - of_length)}
            for name, value, resampled, length, of_length in rows
        }


def figure(value: float, resampled: NDArray[np.float64]) -> dict[str, Any]:
    """One figure with its 95 % interval, rounded."""
    return {"apgr": round(value, 4), "interval": [round(end, 4) for end in interval(resampled)]}


def weighted_quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """The value that this share of the weight lies at or below."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] * share)])


def _without(numbers: Sequence[int], left: int) -> tuple[int, ...]:
    return tuple(number for number in numbers if number != left)


def _folds(groups: NDArray[np.int64], sources: NDArray[np.int64]) -> NDArray[np.int64]:
    """Deal whole groups into folds, evenly within each source."""
    generator = np.random.default_rng(SEED)
    firsts = np.unique(groups, return_index=True)[1]  # first[g] is the first prompt of group g
    fold_of_group = np.empty(len(firsts), dtype=np.int64)
    for source in np.unique(sources):
        members = np.flatnonzero(sources[firsts] == source)
        fold_of_group[generator.permutation(members)] = np.arange(len(members)) % FOLDS
    return fold_of_group[groups]
