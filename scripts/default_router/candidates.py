"""The routers that are compared: how each is fitted, and how it then scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED = 0
PROTOTYPES = 1000


@dataclass(frozen=True)
class Table:
    """Prompts as the candidates see them.

    Attributes:
        embeddings: Shape (n, d).
        log_lengths: log(1 + characters), shape (n,).
        outcomes: P(strong wins) as observed, shape (n,).
        weights: Weight of each prompt, shape (n,).
        sources: Number of the source of each prompt, shape (n,).
    """

    embeddings: NDArray[np.float64]
    log_lengths: NDArray[np.float64]
    outcomes: NDArray[np.float64]
    weights: NDArray[np.float64]
    sources: NDArray[np.int64]

    def __getitem__(self, rows: NDArray[np.bool_]) -> Table:
        """The chosen prompts."""
        return Table(
            self.embeddings[rows], self.log_lengths[rows], self.outcomes[rows], self.weights[rows], self.sources[rows]
        )


Scorer: TypeAlias = Callable[[Table], "NDArray[np.float64]"]
"""Scores prompts; reads no outcomes."""


@dataclass(frozen=True)
class Candidate:
    """One router to compare.

    Attributes:
        name: What it is called in the tables.
        fit: Learns from prompts and gives what scores others.
        length_scale: For a matrix factorization, how freely it may lean on the length of the prompt.
        ridge: For a matrix factorization, its regularisation.
    """

    name: str
    fit: Callable[[Table], Scorer]
    length_scale: float | None = None
    ridge: float | None = None

    @property
    def is_factorization(self) -> bool:
        """Whether it is of the kind that the package serves."""
        return self.ridge is not None


@dataclass(frozen=True)
class Factorization:
    """A fitted matrix factorization of one pair.

    Attributes:
        weights: Of the embedding, shape (d,).
        bias: Logit at embedding zero and mean length, averaged over the sources.
        length_weight: What one standard deviation of log length adds to the logit.
        length_mean: Mean log length.
        length_deviation: Standard deviation of the log length.
    """

    weights: NDArray[np.float64]
    bias: float
    length_weight: float
    length_mean: float
    length_deviation: float

    def __call__(self, table: Table) -> NDArray[np.float64]:
        """Logits, shape (n,)."""
        lengths = (table.log_lengths - self.length_mean) / self.length_deviation
        return table.embeddings @ self.weights + self.length_weight * lengths + self.bias


def all_candidates() -> list[Candidate]:
    """The baselines first, then everything that is compared; deliberately few."""
    factorizations = [factorization(scale, ridge) for scale in (0.0, 0.2, 1.0) for ridge in (10.0, 30.0)]
    prototypes = partial(fit_similarity, base=100.0, prototypes=PROTOTYPES)
    return [
        Candidate("random", lambda _: lambda table: np.zeros(len(table.outcomes))),
        Candidate("prompt length", lambda _: lambda table: table.log_lengths),
        *factorizations,
        Candidate("similarity-weighted, base 10, 1,000 prototypes", partial(prototypes, base=10.0)),
        Candidate("similarity-weighted, base 100, 1,000 prototypes", prototypes),
        Candidate("similarity-weighted, base 100, 1,000 prototypes, not centred", partial(prototypes, centred=False)),
        Candidate("similarity-weighted, base 100, every prompt", partial(prototypes, prototypes=None)),
        mixture(factorization(0.2, 30.0), prototypes),
        mixture(factorization(1.0, 30.0), prototypes),
    ]


def factorization(length_scale: float, ridge: float) -> Candidate:
    """A matrix factorization to compare."""
    length = f"length x {length_scale:g}" if length_scale else "no length"
    name = f"matrix factorization, {length}, ridge {ridge:g}"
    fit = partial(fit_factorization, length_scale=length_scale, ridge=ridge)
    return Candidate(name, fit, length_scale=length_scale, ridge=ridge)


def mixture(first: Candidate, second: Callable[[Table], Scorer]) -> Candidate:
    """Two routers' scores, standardised on the training prompts and added."""

    def fit(table: Table) -> Scorer:
        parts = []
        for part in (first.fit(table), second(table)):
            scores = part(table)
            parts.append((part, scores.mean(), scores.std()))
        return lambda other: np.sum([(part(other) - mean) / deviation for part, mean, deviation in parts], axis=0)

    return Candidate(f"mixture of {first.name} and similarity-weighted", fit)


def fit_factorization(table: Table, *, length_scale: float, ridge: float) -> Factorization:
    """Fit the factorization of one pair: ridge logistic regression with outcomes in [0, 1].

    Each source has an intercept of its own, unpenalised: how much better the strong model is on a
    source as a whole then teaches the weights nothing, so they do not learn to tell the sources apart.

    Args:
        table: Training prompts.
        length_scale: Deviations of log length are multiplied by this before the ridge, so that a smaller
            one penalises leaning on the length more; 0 leaves the length out.
        ridge: Penalty on the squared weights, against a total weight of n prompts.

    Returns:
        The fitted factorization.
    """
    weights = table.weights * (len(table.weights) / table.weights.sum())
    mean = float(np.average(table.log_lengths, weights=weights))
    deviation = float(np.sqrt(np.average((table.log_lengths - mean) ** 2, weights=weights)))
    length = (table.log_lengths - mean) / deviation * length_scale
    present = np.unique(table.sources)
    intercepts = (table.sources[:, None] == present).astype(np.float64)
    design = np.hstack([table.embeddings, length[:, None], intercepts])
    # Next to nothing on the intercepts keeps the curvature invertible when a feature is left out.
    penalty = np.r_[np.full(design.shape[1] - len(present), ridge), np.full(len(present), 1e-6)]
    found = _logistic(design, table.outcomes, weights, penalty)
    dimensions = table.embeddings.shape[1]
    return Factorization(
        weights=found[:dimensions],
        bias=float(found[dimensions + 1 :].mean()),
        length_weight=float(found[dimensions] * length_scale),
        length_mean=mean,
        length_deviation=deviation,
    )


def fit_similarity(table: Table, *, base: float, prototypes: int | None = PROTOTYPES, centred: bool = True) -> Scorer:
    """Fit similarity weighting: the mean outcome of the training prompts, weighted by base**similarity.

    With one pair of tiers the weighted Bradley-Terry estimate is that weighted mean. Outcomes are taken
    as differences from the mean of their source, for the same reason as the factorization's intercepts.

    Args:
        table: Training prompts.
        base: How much nearer prompts count more.
        prototypes: Cluster the prompts to this many points with summed outcomes; None keeps every prompt.
        centred: Whether the mean embedding is subtracted first.

    Returns:
        What scores prompts.
    """
    centre = np.average(table.embeddings, axis=0, weights=table.weights) if centred else np.zeros(1)
    points = _normalised(table.embeddings - centre)
    weights = table.weights
    outcomes = table.outcomes.copy()
    for source in np.unique(table.sources):
        rows = table.sources == source
        outcomes[rows] -= np.average(outcomes[rows], weights=weights[rows])
    if prototypes is not None:
        points, labels = _clusters(points, prototypes)
        outcomes = np.asarray(np.bincount(labels, weights * outcomes, prototypes), dtype=np.float64)
        weights = np.asarray(np.bincount(labels, weights, prototypes), dtype=np.float64)
        outcomes /= np.maximum(weights, 1e-9)
    return partial(_similarity_scores, centre=centre, points=points, weights=weights, outcomes=outcomes, base=base)


def _similarity_scores(
    table: Table,
    *,
    centre: NDArray[np.float64],
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    outcomes: NDArray[np.float64],
    base: float,
) -> NDArray[np.float64]:
    queries = _normalised(table.embeddings - centre).astype(np.float32)
    references = points.astype(np.float32).T
    scores = np.empty(len(queries))
    for start in range(0, len(queries), 2000):  # The whole matrix of similarities would be gigabytes.
        similar = queries[start : start + 2000] @ references
        largest = np.maximum(similar.max(axis=1, keepdims=True), 1e-6)
        near = base ** (similar / largest - 1.0) * weights
        scores[start : start + 2000] = (near @ outcomes) / near.sum(axis=1)
    return scores


def _logistic(
    design: NDArray[np.float64],
    outcomes: NDArray[np.float64],
    weights: NDArray[np.float64],
    penalty: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Penalised logistic regression by Newton's method; outcomes may be fractions."""
    found = np.zeros(design.shape[1])
    for _ in range(50):
        expected = 1.0 / (1.0 + np.exp(-design @ found))
        gradient = design.T @ (weights * (outcomes - expected)) - penalty * found
        curvature = (design * (weights * expected * (1.0 - expected))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        found += step
        if np.abs(step).max() < 1e-9:  # noqa: PLR2004 - far below any difference that could matter
            return found
    msg = "the factorization did not converge in 50 Newton steps"
    raise RuntimeError(msg)


def _clusters(points: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from sklearn.cluster import MiniBatchKMeans

    kmeans = MiniBatchKMeans(count, random_state=SEED, n_init=1, batch_size=2048, max_iter=30).fit(points)
    return _normalised(kmeans.cluster_centers_), kmeans.labels_


def _normalised(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    norms: NDArray[np.float64] = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(norms, 1e-9)
