"""Resamples of the prompts, and intervals of what they gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

INTERVAL = (2.5, 97.5)


def interval(values: NDArray[np.float64]) -> list[float]:
    """The 95 % percentile interval."""
    return [round(float(bound), 4) for bound in np.nanpercentile(values, INTERVAL)]


def draw_counts(n: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """How often each of n prompts is in each resample, shape (resamples, n).

    Drawn as when the shipped router was chosen: other draws of as good a generator can choose another candidate of
    those that cannot be told apart.
    """
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=resamples)
