"""Thresholds for a wanted strong-call rate, and how far the rate of traffic to come may lie from it.

Of n prompts of one's own, scored, the threshold is laid between the r-th highest score and the next one. Where the
prompts to come are drawn as these were (exchangeable: the same users, the same kind of questions), the chance p that
one of them goes strong is then, for scores without ties, a Beta(r, n + 1 - r) variable at the r-th highest score and
Beta(r + 1, n - r) at the next one, whatever the distribution of the scores: they are the coverages of order statistics
(Wilks 1941). The number of strong calls among the next m prompts is beta-binomial. The interval runs from the lower
2.5 % point of the first to the upper 2.5 % point of the second, so it holds wherever between the two scores the
threshold lies. It needs no label and no model of the scores.

A binomial interval (Clopper-Pearson) for the next m prompts would be too narrow: it is one of the long-run rate, which
the interval here becomes as m grows, and leaves out that the next m prompts vary too. Where labels or costs chose the
rank, as for a quality or a budget, the interval of the rate holds nearly, not exactly.

Ties: prompts of one score go the same way, so a run of equal scores that the threshold would cut goes whole to the
side that leaves the rate nearest to the wanted one, and to the weak side where both are as near. For a score that many
prompts share the interval is that of a proportion; which run the threshold stands at also depends on the sample, so
with ties the guarantee is near, not exact.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute.errors import ConfigurationError, DataError
from prefroute.inputs import finite_or_none

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from prefroute.router import Router

CONFIDENCE = 0.95

ALL_STRONG, ALL_WEAK = 0.0, 2.0
"""Thresholds that no score falls below, and that none reaches."""

WITHIN = 0.05
"""How near to the wanted rate a user would expect to land, when told how many prompts that takes."""

_MOST_NEXT = 10_000_000
_MOST_COUNTED = 100_000


@dataclass(frozen=True, kw_only=True)
class CalibratedThreshold:
    """A threshold, and what it does to traffic like the sample.

    Attributes:
        threshold: Scores at or above it are strong.
        strong_rate: Predicted share of strong calls: r / (n + 1).
        low: Lower end of the 95 % prediction interval of the share among the next prompts.
        high: Upper end.
        n: Prompts of the sample.
        next_prompts: How many prompts to come the interval is for.
        sample_rate: Share of the sample that goes strong.
        tied: Prompts of the sample that share a score which the wanted rate would have had to cut.
    """

    threshold: float
    strong_rate: float
    low: float
    high: float
    n: int
    next_prompts: int
    sample_rate: float
    tied: int

    def as_dict(self) -> dict[str, Any]:
        """The figures, JSON-safe."""
        return asdict(self)


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """The scores that a router gave a sample of its user's prompts; what any strong-call rate is looked up in.

    Attributes:
        scores: Increasing, shape (n,), n of 1 or more.

    Raises:
        DataError: There are none, or one is not a probability.
    """

    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Sort, check and freeze the scores."""
        scores = np.sort(np.array(self.scores, dtype=np.float64))
        if scores.ndim != 1 or not len(scores) or not (scores[0] >= 0.0 and scores[-1] <= 1.0):
            found = f"shape {scores.shape}" + (f" from {scores.min()} to {scores.max()}" if scores.size else "")
            msg = f"a calibration needs one score in [0, 1] for each of its prompts, got {found}"
            raise DataError(msg)
        scores.flags.writeable = False
        object.__setattr__(self, "scores", scores)

    @classmethod
    def of(cls, router: Router, prompts: Sequence[str]) -> Calibration:
        """Score prompts.

        Args:
            router: The router.
            prompts: n texts, as the router will meet them: one that comes often in traffic comes often here.

        Returns:
            The calibration.

        Raises:
            DataError: There are no prompts.
            RouterError: The router failed, or gave something else than probabilities.
            PromptTypeError: Something is not text.
        """
        from prefroute._scoring import score_prompts

        scores = score_prompts(router, prompts)
        if not len(scores):
            msg = "there are no prompts to calibrate with; give some hundreds of your own, labels are not needed"
            raise DataError(msg)
        return cls(scores)

    def __len__(self) -> int:
        """Prompts of the sample."""
        return len(self.scores)

    def __repr__(self) -> str:
        """Size alone."""
        return f"Calibration({len(self)} prompts)"

    def threshold_for(self, strong_rate: float, *, next_prompts: int | None = None) -> CalibratedThreshold:
        """The threshold that sends a share of traffic to the strong model.

        Args:
            strong_rate: Wanted share of strong calls, in [0, 1]; 0 and 1 are exact.
            next_prompts: How many prompts to come the interval is for; None for as many as the sample has.

        Returns:
            The threshold and its interval; see the module for what it guarantees, and for ties.

        Raises:
            ConfigurationError: The rate is outside [0, 1], or `next_prompts` is not a number of prompts.
            DataError: The sample is too small for that rate; says how many prompts are needed.
        """
        rate = as_strong_rate(strong_rate)
        n = len(self)
        needed = fewest_prompts(rate)
        if n < needed:
            msg = f"{n} prompts cannot tell a strong-call rate of {rate:g} from {round(rate):d}; give {needed} or more"
            raise DataError(msg)
        if rate in {0.0, 1.0}:
            return self._ranked(n if rate else 0, ALL_STRONG if rate else ALL_WEAK, (rate, rate, rate), next_prompts, 0)
        wanted = min(max(round(rate * (n + 1)), 1), n)
        value = self.scores[n - wanted]
        below, above = (int(np.searchsorted(self.scores, value, side)) for side in ("left", "right"))
        # Ranks that leave the run of scores equal to the wanted one whole: none of it strong, or all.
        fewer, more = n - above, n - below
        rank = more if abs(more - rate * (n + 1)) < abs(fewer - rate * (n + 1)) else fewer
        return self.at_rank(rank, next_prompts=next_prompts, tied=more - fewer if rank != wanted else 0)

    def at_rank(self, rank: int, *, next_prompts: int | None = None, tied: int = 0) -> CalibratedThreshold:
        """The threshold between the r-th highest score and the next one.

        Args:
            rank: r, from 0 to n; the two scores must differ.
            next_prompts: As for `threshold_for`.
            tied: What to say of ties.

        Returns:
            The threshold and its interval.

        Raises:
            ConfigurationError: The rank is not from 0 to n, or would cut scores that are equal.
        """
        n = len(self)
        if isinstance(rank, bool) or not isinstance(rank, int) or not 0 <= rank <= n:
            msg = f"rank must be a number of prompts from 0 to {n}, got {rank!r}"
            raise ConfigurationError(msg)
        strong, weak = self.scores[n - rank :], self.scores[: n - rank]
        upper = float(strong[0]) if rank else 1.0
        lower = float(weak[-1]) if rank < n else 0.0
        if rank and rank < n and upper == lower:
            msg = f"rank {rank} would cut scores that are equal ({upper:g}); prompts of one score go the same way"
            raise ConfigurationError(msg)
        # Halfway, so that what rounding makes of a score, alone or in a batch, does not cross it. Of two scores next
        # to each other halfway is one of them.
        threshold = (upper + lower) / 2.0 if rank < n or upper > 0 else ALL_STRONG
        threshold = upper if threshold <= lower and rank else threshold
        if not rank and lower >= 1.0:
            threshold = ALL_WEAK
        m = self._next(next_prompts)
        return self._ranked(rank, threshold, (rank / (n + 1), *share_interval(rank, n, m)), next_prompts, tied)

    def _next(self, next_prompts: int | None) -> int:
        m = len(self) if next_prompts is None else next_prompts
        if isinstance(m, bool) or not isinstance(m, int) or not 1 <= m <= _MOST_NEXT:
            msg = f"next_prompts must be a number of prompts from 1 to {_MOST_NEXT:,}, got {next_prompts!r}"
            raise ConfigurationError(msg)
        return m

    def _ranked(
        self, rank: int, threshold: float, rates: tuple[float, float, float], next_prompts: int | None, tied: int
    ) -> CalibratedThreshold:
        strong_rate, low, high = rates
        return CalibratedThreshold(
            threshold=threshold,
            strong_rate=strong_rate,
            low=low,
            high=high,
            n=len(self),
            next_prompts=self._next(next_prompts),
            sample_rate=rank / len(self),
            tied=tied,
        )


@lru_cache(maxsize=256)
def threshold_at(calibration: Calibration, strong_rate: float) -> float:
    """The threshold alone, remembered: the interval takes longer than many a router, and a call may bring its rate.

    Args:
        calibration: The scores.
        strong_rate: As for `Calibration.threshold_for`.

    Returns:
        Its threshold.

    Raises:
        DataError: The sample is too small for that rate.
    """
    return calibration.threshold_for(strong_rate).threshold


def as_strong_rate(value: object) -> float:
    """Check a wanted share of strong calls.

    Raises:
        ConfigurationError: It is not a number in [0, 1].
    """
    rate = finite_or_none(value)
    if rate is None or not 0.0 <= rate <= 1.0:
        hint = f"; for {rate:g} % pass {rate / 100:g}" if rate is not None and 2.0 <= rate <= 100.0 else ""  # noqa: PLR2004 - percent
        msg = f"strong_rate must be a share of strong calls in [0, 1], got {value!r}{hint}"
        raise ConfigurationError(msg)
    return rate


def fewest_prompts(strong_rate: float) -> int:
    """Prompts without which no score stands for a rate: one is expected on its either side.

    Args:
        strong_rate: The rate, in [0, 1].

    Returns:
        The number, 1 or more.

    Raises:
        ConfigurationError: The rate is so near to 0 or 1 that no sample could tell it from these.
    """
    smaller = min(strong_rate, 1.0 - strong_rate)
    if 0.0 < smaller < 1.0 / _MOST_NEXT:
        msg = f"a strong-call rate between 0 and 1 must be at least {1 / _MOST_NEXT:g} from both, got {strong_rate!r}"
        raise ConfigurationError(msg)
    return max(1, math.ceil(1.0 / smaller - 1e-9) - 1) if smaller > 0 else 1


def prompts_needed(strong_rate: float, within: float = WITHIN) -> int:
    """About how many prompts it takes to land near a rate: in 95 % of cases, of as many prompts to come.

    Args:
        strong_rate: The rate, in [0, 1].
        within: How near, in (0, 1).

    Returns:
        The number, to a twentieth: both the sample and what is to come vary.

    Raises:
        ConfigurationError: `within` is not above 0, or as `fewest_prompts`.
    """
    if not within > 0.0:
        msg = f"within must be a distance above 0, got {within!r}"
        raise ConfigurationError(msg)
    half_width = 1.959964
    spread = 2.0 * strong_rate * (1.0 - strong_rate) * (half_width / within) ** 2
    n = max(fewest_prompts(strong_rate), math.ceil(spread))
    # From what the normal approximation says up to where the interval itself fits.
    while n < _MOST_NEXT:
        low, high = share_interval(min(max(round(strong_rate * (n + 1)), 1), n), n, n)
        if max(high - strong_rate, strong_rate - low) <= within:
            break
        n = math.ceil(n * 1.05)
    return n


def share_interval(rank: int, n: int, next_prompts: int) -> tuple[float, float]:
    """95 % prediction interval of the share of strong calls at a threshold between two scores of a sample.

    Args:
        rank: How many scores of the sample lie at or above it.
        n: Prompts of the sample.
        next_prompts: Prompts to come, 1 or more.

    Returns:
        Both ends; see the module.
    """
    tail = (1.0 - CONFIDENCE) / 2.0
    # Of more prompts the share hardly varies less, and so the interval errs on the wide side.
    next_prompts = min(next_prompts, _MOST_COUNTED)
    low = _beta_binomial_quantile(tail, rank, n + 1 - rank, next_prompts, upper=False)
    return low, _beta_binomial_quantile(tail, rank + 1, n - rank, next_prompts, upper=True)


def _beta_binomial_quantile(tail: float, a: int, b: int, m: int, *, upper: bool) -> float:
    """The share k / m beyond which the beta-binomial(m, a, b) has at most `tail` on one side."""
    if a == 0 or b == 0:
        return 0.0 if a == 0 else 1.0
    chances = np.exp(_log_beta_binomial(a, b, m))
    if upper:
        beyond = np.cumsum(chances[::-1])[::-1]  # P(K >= k)
        return float(np.count_nonzero(beyond > tail) - 1) / m
    return float(np.count_nonzero(np.cumsum(chances) <= tail)) / m


def _log_beta_binomial(a: float, b: float, m: int) -> NDArray[np.float64]:
    """Logarithm of the chance of each count.

    Args:
        a: Above 0.
        b: Above 0.
        m: Trials.

    Returns:
        Of 0 to m, shape (m + 1,).
    """
    k = np.arange(m, dtype=np.float64)
    steps = np.log(m - k) + np.log(k + a) - np.log(k + 1.0) - np.log(m - k - 1.0 + b)
    logs = np.append(0.0, np.cumsum(steps))
    logs -= logs.max()
    normalised: NDArray[np.float64] = logs - np.log(np.exp(logs).sum())
    return normalised
