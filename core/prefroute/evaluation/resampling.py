"""How sure a figure is: bootstrap intervals over the prompts, paired comparisons, and a cost-matched random control."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from prefroute.errors import ConfigurationError
from prefroute.evaluation.metrics import _ROUNDING, _checked, _checked_level, _crossing, rank
from prefroute.inputs import as_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RESAMPLES = 1000
PERMUTATIONS = 999
CONFIDENCE = 0.95

_MOST = 100_000

_BATCH = 2**16
"""Numbers that are worked on at a time: what the processor's cache holds."""

Verdict = Literal["yes", "no", "cannot tell"]
"""Whether a router beats a coin that calls the strong model as often: `no` is that it does worse."""


def as_count(name: str, value: object) -> int:
    """Check a number of resamples.

    Raises:
        ConfigurationError: It is not an integer from 1 to 100,000.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
        msg = f"{name} must be a number from 1 to {_MOST:,}, got {value!r}"
        raise ConfigurationError(msg)
    return value


class Interval(NamedTuple):
    """A 95 % interval; both ends are NaN where the data do not bound it."""

    low: float
    high: float


class Resampled(NamedTuple):
    """Figures of one router on r resamples of the prompts.

    Attributes:
        gaps: Mean gain of the strong model, shape (r,).
        areas: Mean gain over the weak model, averaged over all shares of strong calls, shape (r,).
        cpts: Call-performance thresholds, NaN without a gap, shape (r, levels).
        gained: Mean gain over the weak model at each share asked for, shape (r, shares).
    """

    gaps: NDArray[np.float64]
    areas: NDArray[np.float64]
    cpts: NDArray[np.float64]
    gained: NDArray[np.float64]

    @property
    def apgrs(self) -> NDArray[np.float64]:
        """APGR of each, NaN where the strong model is no better, shape (r,)."""
        found: NDArray[np.float64] = np.full(len(self.gaps), np.nan)
        return np.divide(self.areas, self.gaps, out=found, where=self.gaps > 0)


class RandomControl(NamedTuple):
    """What the router's own call rates reach when they fall on prompts by chance.

    Attributes:
        low: Lower end of the 95 % range of the control's APGR; NaN without a gap.
        high: Upper end.
        p_value: Chance of an advantage of this size, either way, if scores and gains were unrelated.
        verdict: Whether the router beats it.
    """

    low: float
    high: float
    p_value: float
    verdict: Verdict


class Comparison(NamedTuple):
    """Two routers on the same prompts.

    Attributes:
        difference: APGR of the first less that of the second; NaN without a gap.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p_value: Two-sided, by the bootstrap.
    """

    difference: float
    low: float
    high: float
    p_value: float


def draw_counts(n: int, resamples: int, seed: int, groups: NDArray[np.int64] | None = None) -> NDArray[np.int16]:
    """Bootstrap draws of n rows.

    Args:
        n: Rows.
        resamples: Draws, with replacement, of as many rows or groups as there are.
        seed: Of the generator.
        groups: Group of each row, from 0, shape (n,): rows of one prompt are drawn together. None for each alone.

    Returns:
        How often each row is in each resample, shape (resamples, n).

    Raises:
        ConfigurationError: The seed is not an integer of 0 or more, or there are to be no resamples, or too many.
    """
    as_count("resamples", resamples)
    generator = np.random.default_rng(as_seed(seed))
    units = n if groups is None else int(groups.max(initial=-1)) + 1
    counts = np.empty((resamples, n), dtype=np.int16)
    for row in counts:
        drawn = np.bincount(generator.integers(0, units, units, dtype=np.int32), minlength=units)
        row[:] = drawn if groups is None else drawn[groups]
    return counts


def resample(
    scores: NDArray[np.float64],
    gains: NDArray[np.float64],
    draws: NDArray[np.integer[Any]],
    *,
    levels: Sequence[float] = (),
    shares: Sequence[float] | NDArray[np.float64] = (),
) -> Resampled:
    """The figures of a router on each resample of the prompts; exact, as on the prompts themselves.

    Args:
        scores: Router scores, shape (n,).
        gains: Quality of the strong answer minus that of the weak one, shape (n,).
        draws: From `draw_counts`, shape (r, n).
        levels: PGR that CPT is wanted at.
        shares: Shares of strong calls that the gain is wanted at.

    Returns:
        The figures.

    Raises:
        ConfigurationError: A level is outside [0, 1], or as `gain_curve`.
    """
    checked, gained = _checked(scores=scores, gains=gains)
    levels = [_checked_level(level) for level in levels]
    ranking = rank(checked)
    ranked_gains, untied = gained[ranking.order], len(ranking.ends) == len(checked)
    smallest = _ROUNDING * float(np.mean(np.abs(gained)))
    found = Resampled(
        gaps=np.empty(len(draws)),
        areas=np.empty(len(draws)),
        cpts=np.empty((len(draws), len(levels))),
        gained=np.empty((len(draws), len(shares))),
    )
    step = max(1, _BATCH // len(checked))
    for start in range(0, len(draws), step):
        part = slice(start, start + step)
        weight = np.take(draws[part], ranking.order, axis=1).astype(np.float64)
        reached = np.cumsum(weight, axis=1)
        total = reached[:, -1]
        weighted = weight * ranked_gains
        # Where the run of equal scores that each prompt is in has its middle: what comes after is the area's.
        if untied:
            before_middle = _row_dots(reached, weighted) - _row_dots(weight, weighted) / 2
        else:
            first = np.take(reached - weight, ranking.first, axis=1)
            before_middle = _row_dots(first + np.take(reached, ranking.last, axis=1), weighted) / 2
        gained_in_all = weighted.sum(axis=1)
        gaps = gained_in_all / total
        found.gaps[part] = np.where(np.abs(gaps) <= smallest, 0.0, gaps)
        found.areas[part] = (total * gained_in_all - before_middle) / total**2
        if levels or len(shares):
            ends = ranking.ends
            shared = reached[:, ends] / total[:, None], np.cumsum(weighted, axis=1)[:, ends] / total[:, None]
            curves = zip(*shared, strict=True)
            for row, ends_of_runs in enumerate(curves, start):
                share, gain = (np.append(0.0, column) for column in ends_of_runs)
                found.gained[row] = np.interp(shares, share, gain)
                has_gap = found.gaps[row] > 0
                found.cpts[row] = [_crossing(share, gain, level) if has_gap else np.nan for level in levels]
    return found


def resampled_apgr(
    scores: NDArray[np.float64], gains: NDArray[np.float64], draws: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """`apgr` on each resample of the prompts.

    Args:
        scores: Shape (n,).
        gains: Shape (n,).
        draws: From `draw_counts`, shape (r, n).

    Returns:
        Shape (r,); NaN where the strong model is no better.

    Raises:
        ConfigurationError: As `gain_curve`.
    """
    return resample(scores, gains, draws).apgrs


def interval(values: NDArray[np.float64], confidence: float = CONFIDENCE) -> Interval:
    """Percentile interval of resampled figures.

    A resample in which the figure is not defined could be anything: it counts as lower than all on the lower side,
    and as higher than all on the upper one.

    Args:
        values: Shape (r,), at least one.
        confidence: Share of resamples within.

    Returns:
        The interval; NaN for an end that undefined resamples reach.

    Raises:
        ConfigurationError: There are no figures.
    """
    if not len(values):
        msg = "an interval needs at least one resampled figure, got none"
        raise ConfigurationError(msg)
    outside = (1.0 - confidence) / 2.0 * (len(values) - 1)
    low = np.sort(np.where(np.isnan(values), -np.inf, values))[int(np.floor(outside))]
    high = np.sort(np.where(np.isnan(values), np.inf, values))[int(np.ceil(len(values) - 1 - outside))]
    return Interval(*(float(end) if np.isfinite(end) else float("nan") for end in (low, high)))


def random_control(
    scores: NDArray[np.float64],
    gains: NDArray[np.float64],
    *,
    groups: NDArray[np.int64] | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> RandomControl:
    """Test a router against a coin that calls the strong model exactly as often at every threshold.

    The control are the router's own scores, dealt to the prompts anew; rows of one prompt get one score, and ranks are
    those of rows. The test is two-sided at 5 %, of the router's mean gain over the control at equal cost, which is
    defined whichever model is better. It is divided by its standard error, ranks being estimated too (delta method), as
    in studentised permutation tests (Chung and Romano, Annals of Statistics 41, 2013): exact where scores and gains are
    unrelated, and near 5 % in large samples where they are related but the router gains nothing over the control.

    Args:
        scores: Router scores, shape (n,).
        gains: Quality of the strong answer minus that of the weak one, shape (n,).
        groups: Group of each row, from 0, shape (n,): rows of one prompt stay together. None for each alone.
        permutations: How often scores are dealt.
        seed: Of the generator.

    Returns:
        The control and the verdict.

    Raises:
        ConfigurationError: As `gain_curve`.
    """
    checked, gained = _checked(scores=scores, gains=gains)
    as_count("permutations", permutations)
    # On a scale of their own, so that squares neither vanish nor overflow.
    largest = float(np.abs(gained).max())
    scaled = gained / largest if largest else gained
    groups = np.arange(len(checked)) if groups is None else groups
    sizes = np.bincount(groups).astype(np.float64)
    ranking = rank(np.bincount(groups, checked) / sizes)
    excess = np.bincount(groups, scaled - scaled.mean()).astype(np.float64)
    starts = np.unique(ranking.first)
    generator = np.random.default_rng(as_seed(seed))
    observed, here = _advantage(sizes[ranking.order], excess[ranking.order], starts)
    dealt, sums = np.empty(permutations), np.empty(permutations)
    for turn in range(permutations):
        order = generator.permutation(len(sizes))
        dealt[turn], sums[turn] = _advantage(sizes[order], excess[order], starts)
    # Scores or gains that are all equal leave rounding, which says nothing.
    tells = len(starts) > 1 and float(np.abs(excess).max()) > _ROUNDING * len(checked)
    as_far = int(np.count_nonzero(np.abs(dealt) >= abs(observed) * (1 - 1e-9))) if tells else permutations
    p_value = (1.0 + as_far) / (1.0 + permutations)
    verdict: Verdict = "cannot tell" if p_value > 1.0 - CONFIDENCE else "yes" if here > 0 else "no"
    gap = float(scaled.mean())
    if gap <= _ROUNDING * float(np.abs(scaled).mean()):
        return RandomControl(float("nan"), float("nan"), p_value, verdict)
    low, high = interval(0.5 + sums / len(checked) / gap)
    return RandomControl(low, high, p_value, verdict)


def compare(first: Resampled, second: Resampled, difference: float) -> Comparison:
    """Compare two routers by the same resamples of the same prompts.

    Args:
        first: Of one router.
        second: Of the other, of the same draws.
        difference: APGR of the first less that of the second, on the prompts themselves.

    Returns:
        The comparison.

    Raises:
        ConfigurationError: They are not of the same draws.
    """
    if len(first.gaps) != len(second.gaps) or not np.allclose(first.gaps, second.gaps, atol=0.0):
        msg = "two routers are compared on the same draws of the same prompts; resample both with the same draws"
        raise ConfigurationError(msg)
    # The test is on gains, so that draws without a gap need not be left out.
    ahead = first.areas - second.areas
    beyond = min(np.count_nonzero(ahead <= 0), np.count_nonzero(ahead >= 0))
    p_value = min(1.0, 2.0 * (1.0 + float(beyond)) / (1.0 + len(ahead)))
    return Comparison(difference, *interval(first.apgrs - second.apgrs), p_value)


def _dot(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Not by BLAS: of vectors this long its threads wait for each other longer than they work."""
    return float(np.einsum("i,i->", left, right))


def _row_dots(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of the products in each row, without a matrix of them."""
    sums: NDArray[np.float64] = np.einsum("ij,ij->i", left, right)
    return sums


def _advantage(
    sizes: NDArray[np.float64], excess: NDArray[np.float64], starts: NDArray[np.int64]
) -> tuple[float, float]:
    """Gain over the control, divided by its standard error, and as it is.

    Args:
        sizes: Rows of each prompt, from the highest score down, shape (p,).
        excess: What its gains sum to, less the mean gain of its rows, shape (p,).
        starts: Where runs of equal scores begin, shape (k,).

    Returns:
        Both, summed over rows and averaged over all shares of strong calls.
    """
    n = float(sizes.sum())
    reached, gained = np.cumsum(sizes), np.cumsum(excess)
    middle, above = reached - sizes / 2, gained - excess / 2
    if len(starts) < len(sizes):
        lengths = np.diff(np.append(starts, len(sizes)))
        in_run, gain_in_run = np.add.reduceat(sizes, starts), np.add.reduceat(excess, starts)
        middle = np.repeat(np.cumsum(in_run) - in_run / 2, lengths)
        above = np.repeat(np.cumsum(gain_in_run) - gain_in_run / 2, lengths)
    products = (0.5 - middle / n) * excess
    # A prompt counts by its own rank, and by moving those of the others.
    influence = products + sizes * (above - _dot(sizes, above) / n) / n
    error, total = float(np.sqrt(_dot(influence, influence))), float(products.sum())
    return (total / error if error else 0.0), total
