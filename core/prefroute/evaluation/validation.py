"""Whether a router learnt anything: its scores of prompts that were kept out of its training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prefroute.evaluation.metrics import apgr
from prefroute.evaluation.resampling import draw_counts, resampled_apgr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_RESAMPLES = 1000
_DECIMALS = 7
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What a router recovers on training prompts, each scored without its own label.

    Attributes:
        prompts: Prompts of the pair that were scored so.
        apgr: Average performance gap recovered on them; 0.5 is what random routing gets. None where the strong
            model is no better on them than the weak one.
        low: Lower end of its 95 % bootstrap interval over the prompts.
        high: Upper end.
        length_apgr: The same when the longest prompts go to the strong model.
    """

    prompts: int
    apgr: float | None
    low: float | None
    high: float | None
    length_apgr: float | None


def validate(
    scores: NDArray[np.float64],
    outcomes: NDArray[np.float64],
    lengths: Sequence[int] | NDArray[np.int64],
    *,
    seed: int = 0,
) -> Validation:
    """Measure scores that were made without the labels they are measured by.

    Scores of a cross-validation must be free of each fold's level before: it is higher where the prompts held out
    were worse for the strong model, and pooled over the folds that alone ranks prompts against their outcomes.

    Args:
        scores: Shape (n,).
        outcomes: P(strong wins) as observed, shape (n,).
        lengths: Characters of each prompt, shape (n,).
        seed: Of the resamples.

    Returns:
        The figures. The interval leaves out resamples in which the strong model is no better.
    """
    gains = 2.0 * outcomes - 1.0
    count = len(scores)
    # Scores that differ only by rounding are equal; in what order it left them says nothing.
    scores = np.round(scores, _DECIMALS)
    area = apgr(scores, gains) if count else float("nan")
    if np.isnan(area):
        return Validation(prompts=count, apgr=None, low=None, high=None, length_apgr=None)
    areas = resampled_apgr(scores, gains, draw_counts(count, _RESAMPLES, seed))
    low, high = np.nanpercentile(areas, _INTERVAL)
    length_area = apgr(np.asarray(lengths, dtype=np.float64), gains)
    return Validation(prompts=count, apgr=area, low=float(low), high=float(high), length_apgr=length_area)
