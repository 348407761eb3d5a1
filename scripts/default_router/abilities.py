"""Bradley-Terry abilities of the models of a battle set, to tell the stronger of two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RIDGE = 1.0
"""Keeps a model with few or one-sided votes at a finite ability; one vote's worth of shrinkage."""


@dataclass(frozen=True)
class Vote:
    """One comparison: `score` is 1 when the first model won, 0 when the second did, 0.5 for a tie."""

    prompt: str
    first: str
    second: str
    score: float


def abilities(votes: list[Vote]) -> dict[str, float]:
    """Fit P(first wins) = sigmoid(ability[first] - ability[second]) by Newton's method with a ridge.

    Args:
        votes: The comparisons.

    Returns:
        One ability a model, on the logit scale.

    Raises:
        RuntimeError: Newton's method did not converge.
    """
    names = sorted({name for vote in votes for name in (vote.first, vote.second)})
    index = {name: i for i, name in enumerate(names)}
    first = np.array([index[vote.first] for vote in votes])
    second = np.array([index[vote.second] for vote in votes])
    score = np.array([vote.score for vote in votes])
    design = np.zeros((len(votes), len(names)))
    design[np.arange(len(votes)), first] = 1.0
    design[np.arange(len(votes)), second] = -1.0
    ability = np.zeros(len(names))
    for _ in range(50):
        expected = 1.0 / (1.0 + np.exp(-design @ ability))
        gradient = design.T @ (score - expected) - RIDGE * ability
        curvature = (design * (expected * (1.0 - expected))[:, None]).T @ design + RIDGE * np.eye(len(names))
        step = np.linalg.solve(curvature, gradient)
        ability += step
        if np.abs(step).max() < 1e-9:  # noqa: PLR2004 - far below any difference that could matter
            return dict(zip(names, ability.tolist(), strict=True))
    msg = "abilities did not converge in 50 Newton steps"
    raise RuntimeError(msg)
