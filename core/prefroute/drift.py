"""Whether live traffic still looks like the prompts that a router was calibrated with.

Two things are watched: the share of scores at or above the threshold, and how scores spread over the tenths of the
calibration sample. If traffic is drawn as the sample was, the chances of these classes are, over samples, Dirichlet
distributed with the classes' sizes in the sample for parameters (coverages of order statistics), so what traffic does
has a known probability. It is compared with that under a mixture of wider distributions around the same centre. The
ratio is an e-value: if nothing has changed it ever reaches 20, however often one looks, with a chance of at most 5 %
(Ville's inequality; Ramdas et al., "Game-theoretic statistics and safe anytime-valid inference", 2023). A usual test,
looked at after every prompt, would raise a false alarm sooner or later.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from copy import copy
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute.calibration import Calibration, share_interval
from prefroute.errors import ConfigurationError
from prefroute.inputs import as_threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

ALARM = 20.0
"""E-value from which traffic is said to have changed: an error of 5 %."""

_CLASSES = 10
_FEWEST_A_CLASS = 10


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """Live traffic beside the calibration sample.

    Attributes:
        n: Scores seen.
        strong_rate: Share of them at or above the threshold; None before the first.
        calibrated_rate: The share that the calibration predicts.
        low: Lower end of the 95 % prediction interval for this many prompts; None before the first.
        high: Upper end.
        e_value: Evidence that traffic has changed; without a change it ever reaches 20 with a chance of at most 5 %.
        drifted: Whether it is 20 or more.
    """

    n: int
    strong_rate: float | None
    calibrated_rate: float
    low: float | None
    high: float | None
    e_value: float
    drifted: bool

    def as_dict(self) -> dict[str, Any]:
        """The figures, JSON-safe."""
        return asdict(self)


class DriftMonitor:
    """Counts live scores by the classes of a calibration sample.

    Not safe for threads by itself: give it to `RoutingStats(monitor=...)`, which adapters do on their own for a
    calibrated router, and ask `stats.drift()`.

    Args:
        calibration: Of the router that decides.
        threshold: What its scores are compared with.

    Raises:
        ConfigurationError: There is no calibration, or the threshold is not a finite number.
    """

    def __init__(self, calibration: Calibration, threshold: float) -> None:
        if not isinstance(calibration, Calibration):
            msg = f"a drift monitor needs a Calibration, got {type(calibration).__name__}; call router.calibrate first"
            raise ConfigurationError(msg)
        self.calibration = calibration
        self.threshold = as_threshold(threshold)
        scores = calibration.scores
        n = len(scores)
        self._strong_rank = n - int(np.searchsorted(scores, self.threshold, "left"))
        classes = max(1, min(_CLASSES, n // _FEWEST_A_CLASS))
        wanted = scores[[n * step // classes - 1 for step in range(1, classes)]] if classes > 1 else scores[:0]
        self._edges: list[float] = np.unique(wanted[wanted < scores[-1]]).tolist()
        ranks = np.searchsorted(scores, self._edges, "right")
        self._sizes: list[float] = np.diff(np.concatenate([[0], ranks, [n + 1]])).astype(float).tolist()
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        self._counts = [0] * len(self._sizes)
        self._strong = 0

    def record(self, score: float) -> None:
        """Count one score."""
        self._counts[bisect_left(self._edges, score)] += 1
        self._strong += score >= self.threshold

    def report(self) -> DriftReport:
        """What was seen, and whether it fits the calibration."""
        seen, rank, n = sum(self._counts), self._strong_rank, len(self.calibration)
        low, high = share_interval(rank, n, seen) if seen else (None, None)
        # A threshold between two scores of the sample has a chance between those of both: the milder evidence counts.
        rate = min(
            _log_evidence([self._strong, seen - self._strong], [max(above, 0.5), max(n + 1 - above, 0.5)])
            for above in (rank, rank + 1)
        )
        spread = _log_evidence(self._counts, self._sizes)
        # The mean of two e-values is one.
        e_value = (_bounded_exp(rate) + _bounded_exp(spread)) / 2.0
        return DriftReport(
            n=seen,
            strong_rate=self._strong / seen if seen else None,
            calibrated_rate=rank / (n + 1),
            low=low,
            high=high,
            e_value=e_value,
            drifted=e_value >= ALARM,
        )

    def copy(self) -> DriftMonitor:
        """One with the same counts."""
        made = copy(self)
        made._counts = list(self._counts)  # noqa: SLF001 - same class
        return made


def _log_evidence(counts: Sequence[int], sizes: Sequence[float]) -> float:
    """Logarithm of the e-value of counts against a Dirichlet distribution of these parameters."""
    total = sum(sizes)
    here = _log_chance(counts, sizes)
    wider = total / 4.0
    mixture: list[float] = []
    while wider >= 1.0 or not mixture:
        mixture.append(_log_chance(counts, [size / total * wider for size in sizes]))
        wider /= 4.0
    most = max(mixture)
    return most + math.log(sum(math.exp(part - most) for part in mixture) / len(mixture)) - here


def _log_chance(counts: Sequence[int], sizes: Sequence[float]) -> float:
    """Of one sequence with these counts, by the Dirichlet-multinomial distribution."""
    total, seen = sum(sizes), sum(counts)
    parts = sum(math.lgamma(size + count) - math.lgamma(size) for size, count in zip(sizes, counts, strict=True))
    return parts + math.lgamma(total) - math.lgamma(total + seen)


def _bounded_exp(log: float) -> float:
    return math.exp(min(log, 690.0))
