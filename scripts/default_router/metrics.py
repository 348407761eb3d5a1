"""Intervals of what resampling the prompts gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

INTERVAL = (2.5, 97.5)


def interval(values: NDArray[np.float64]) -> list[float]:
    """The 95 % percentile interval."""
    return [round(float(bound), 4) for bound in np.nanpercentile(values, INTERVAL)]
