"""Routers measured on a benchmark, beside the baselines, with intervals and without the prompts they learnt from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute._scoring import score_prompts
from prefroute.errors import ConfigurationError
from prefroute.evaluation.metrics import (
    apgr,
    average_quality,
    cpt,
    oracle_scores,
    quality_at,
    roc_auc,
    routed_quality,
    strong_share,
)
from prefroute.evaluation.published import apgr_published, cpt_published, published_points
from prefroute.evaluation.reliability import expected_calibration_error, outcomes_of
from prefroute.evaluation.resampling import (
    RESAMPLES,
    Comparison,
    Interval,
    Resampled,
    Verdict,
    compare,
    draw_counts,
    interval,
    random_control,
    resample,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from prefroute.data import Battles
    from prefroute.evaluation.benchmarks import Benchmark
    from prefroute.router import Router

LEVELS = (0.5, 0.8)
"""PGR that CPT is told for, as published."""

SHARES = tuple(round(step / 10, 1) for step in range(1, 10))
"""Shares of strong calls that quality is told at."""

GRID = np.linspace(0.0, 1.0, 101)
"""Shares of strong calls at which the bands of the curves are known."""

ORACLE = "oracle"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one router does on the rows it is measured on. NaN where a figure is not defined.

    Attributes:
        quality_weak: Mean quality of the weak model.
        quality_strong: Mean quality of the strong model.
        apgr: Average performance gap recovered, exact; 0.5 is chance.
        apgr_low: Lower end of its 95 % bootstrap interval over the prompts.
        apgr_high: Upper end.
        apgr_published: By the published 11 points.
        cpt50: Share of strong calls that recovers half of the gap, exact.
        cpt50_low: Lower end of its interval.
        cpt50_high: Upper end.
        cpt50_published: By the published 11 points.
        cpt80: Share of strong calls that recovers 80 % of the gap, exact.
        cpt80_low: Lower end of its interval.
        cpt80_high: Upper end.
        cpt80_published: By the published 11 points.
        quality_at: Mean quality by share of strong calls.
        average_quality: Mean quality over all shares of strong calls (AUC of the published code).
        roc_auc: Chance that a prompt which the strong model answers better outscores one which it does not.
        ece: Expected calibration error of the scores as P(strong wins); NaN for scores that are no chances.
        better_than_random: Whether it beats a coin that calls the strong model as often.
        random_low: Lower end of the 95 % range of that coin's APGR.
        random_high: Upper end.
        random_p_value: Of the test against the coin.
    """

    quality_weak: float
    quality_strong: float
    apgr: float
    apgr_low: float
    apgr_high: float
    apgr_published: float
    cpt50: float
    cpt50_low: float
    cpt50_high: float
    cpt50_published: float
    cpt80: float
    cpt80_low: float
    cpt80_high: float
    cpt80_published: float
    quality_at: dict[str, float]
    average_quality: float
    roc_auc: float
    ece: float
    better_than_random: Verdict
    random_low: float
    random_high: float
    random_p_value: float


@dataclass(frozen=True, eq=False, kw_only=True)
class RouterResult:
    """One router on one benchmark.

    Attributes:
        name: Of the router.
        is_baseline: Whether it is one of those that stand beside every router.
        scores: Of all rows, shape (n,).
        used: Rows it is measured on, shape (n,).
        n_overlap: Rows whose prompt it learnt from; None where that is not known.
        seconds: Time to score all rows.
        threshold: The router's own; None where it has none.
        strong_rate: Share of strong calls at its threshold, on the rows used.
        quality: Mean quality at its threshold.
        figures: What it does; None where no row is left.
        band: Lower and upper end of the 95 % band of mean quality at `GRID`, shape (2, 101); None likewise.
        resampled: The figures on each resample; None likewise.
    """

    name: str
    is_baseline: bool
    scores: NDArray[np.float64]
    used: NDArray[np.bool_]
    n_overlap: int | None
    seconds: float
    threshold: float | None = None
    strong_rate: float | None = None
    quality: float | None = None
    figures: Figures | None = None
    band: NDArray[np.float64] | None = None
    resampled: Resampled | None = None

    @property
    def n_used(self) -> int:
        """Rows it is measured on."""
        return int(np.count_nonzero(self.used))

    def as_dict(self) -> dict[str, Any]:
        """The figures, JSON-safe: what is not defined is None."""
        names = [item.name for item in fields(Figures)]
        found = {name: None if self.figures is None else _plain(getattr(self.figures, name)) for name in names}
        found["better_than_random"] = found["better_than_random"] or "cannot tell"
        own = {
            "n_used": self.n_used,
            "n_overlap": self.n_overlap,
            "seconds": self.seconds,
            "baseline": self.is_baseline,
            "threshold": self.threshold,
            "strong_rate_at_threshold": self.strong_rate,
            "quality_at_threshold": self.quality,
        }
        return found | own


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Two routers on the rows that neither learnt from.

    Attributes:
        first: Name of one.
        second: Name of the other.
        n: Rows.
        result: The comparison.
    """

    first: str
    second: str
    n: int
    result: Comparison

    def as_dict(self) -> dict[str, Any]:
        """The figures, JSON-safe."""
        figures = {name: _plain(value) for name, value in self.result._asdict().items()}
        return {"first": self.first, "second": self.second, "n": self.n, **figures}


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation:
    """All routers on one benchmark.

    Attributes:
        benchmark: The rows.
        results: By name of the router, in the order asked for, then the baselines.
        comparisons: Of every two routers but the oracle and the coin.
        resamples: Of the bootstrap.
        seed: Of whatever was drawn.
        kept_overlap: Whether rows that routers learnt from were kept.
    """

    benchmark: Benchmark
    results: dict[str, RouterResult]
    comparisons: list[PairedComparison] = field(default_factory=list)
    resamples: int = RESAMPLES
    seed: int = 0
    kept_overlap: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The figures, JSON-safe: `n`, `routers` by name, and the comparisons."""
        return {
            "benchmark": self.benchmark.name,
            "pair": {"strong": self.benchmark.pair.strong, "weak": self.benchmark.pair.weak},
            "n": len(self.benchmark),
            "n_contaminated": self.benchmark.removed,
            "overlap": "kept" if self.kept_overlap else "excluded",
            "resamples": self.resamples,
            "seed": self.seed,
            "routers": {name: result.as_dict() for name, result in self.results.items()},
            "comparisons": [item.as_dict() for item in self.comparisons],
        }


def baselines(
    benchmark: Benchmark, training: Battles | None = None, *, seed: int = 0, progress: bool = False
) -> dict[str, Router]:
    """What stands beside every router: a coin, the length of the prompt and, with training data, nearest neighbours.

    Args:
        benchmark: What is measured on; its pair is learnt.
        training: Battles of the pair; None for none.
        seed: Of the coin, and of what is drawn to fit.
        progress: Whether to show progress bars on stderr.

    Returns:
        Routers by name. The length is fitted to the training data where there are any.
    """
    from prefroute.routers.baselines import PromptLengthRouter, RandomRouter

    random = RandomRouter(seed=seed)
    if training is None:
        return {"random": random, "prompt-length": PromptLengthRouter()}
    from prefroute.routers.knn import KNNRouter

    return {
        "random": random,
        "prompt-length": PromptLengthRouter.fit(training, pair=benchmark.pair),
        "knn": KNNRouter.fit(training, pair=benchmark.pair, seed=seed, progress=progress),
    }


def evaluate(
    routers: Mapping[str, Router],
    benchmark: Benchmark,
    *,
    training: Battles | None = None,
    keep_overlap: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: bool = False,
) -> Evaluation:
    """Measure routers on a benchmark, beside the baselines.

    A router is measured on the rows whose prompt it did not learn from, as far as it knows (`training_prompts`).

    Args:
        routers: By name.
        benchmark: The rows.
        training: Battles that the baselines are fitted on; None to leave kNN out, and the length as it comes.
        keep_overlap: Measure on rows that a router learnt from, too.
        resamples: Of the bootstrap.
        seed: Of whatever is drawn.
        progress: Whether to show progress bars on stderr.

    Returns:
        The figures of each.

    Raises:
        RouterError: A router failed, or gave something that is not one number a prompt; says which.
        ConfigurationError: `resamples` is not a positive number, or a router is called oracle.
        DataError: The baselines cannot be fitted on the training data.
    """
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 1:
        msg = f"resamples must be a positive number, got {resamples!r}"
        raise ConfigurationError(msg)
    if ORACLE in routers:
        msg = f"{ORACLE!r} is the name of the router that knows both answers; call yours something else"
        raise ConfigurationError(msg)
    standing = baselines(benchmark, training, seed=seed, progress=progress)
    everyone = {**routers, **{name: router for name, router in standing.items() if name not in routers}}
    bench = _Bench(benchmark, resamples, seed)
    results = {}
    for name, router in everyone.items():
        started = perf_counter()
        scores = score_prompts(router, benchmark.prompts, name=name, progress=progress)
        seconds = perf_counter() - started
        seen = _overlap(router, benchmark)
        used = np.ones(len(benchmark), dtype=bool) if seen is None or keep_overlap else ~seen
        results[name] = bench.measure(
            RouterResult(
                name=name,
                is_baseline=name in standing and name not in routers,
                scores=scores,
                used=used,
                n_overlap=None if seen is None else int(np.count_nonzero(seen)),
                seconds=seconds,
                threshold=router.threshold,
            )
        )
    return bench.concluded(results, keep_overlap=keep_overlap)


def evaluate_scores(
    scores: Mapping[str, NDArray[np.float64]],
    benchmark: Benchmark,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """`evaluate` for scores that are there already, cross-fitted ones, say; without baselines but the oracle.

    Args:
        scores: Of each router, shape (n,), by its name; NaN for a row that it is not to be measured on.
        benchmark: The rows.
        resamples: Of the bootstrap.
        seed: Of whatever is drawn.

    Returns:
        The figures of each.

    Raises:
        ConfigurationError: Scores are not one number a row.
    """
    bench = _Bench(benchmark, resamples, seed)
    results = {}
    for name, given in scores.items():
        array = np.asarray(given, dtype=np.float64)
        if array.shape != (len(benchmark),):
            msg = f"scores of {name!r} must be of shape ({len(benchmark)},), got {array.shape}"
            raise ConfigurationError(msg)
        used = ~np.isnan(array)
        results[name] = bench.measure(
            RouterResult(name=name, is_baseline=False, scores=array, used=used, n_overlap=None, seconds=0.0)
        )
    return bench.concluded(results, keep_overlap=False)


class _Bench:
    """Measures on one benchmark; draws are made once for each set of rows."""

    def __init__(self, benchmark: Benchmark, resamples: int, seed: int) -> None:
        self.benchmark = benchmark
        self.resamples = resamples
        self.seed = seed
        self._groups = benchmark.groups
        self._drawn: dict[bytes, NDArray[np.int16]] = {}

    def draws(self, used: NDArray[np.bool_]) -> NDArray[np.int16]:
        """Of the rows that are used."""
        key = used.tobytes()
        if key not in self._drawn:
            groups = self.groups(used)
            self._drawn[key] = draw_counts(len(groups), self.resamples, self.seed, groups)
        return self._drawn[key]

    def groups(self, used: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Of the rows that are used, numbered from 0."""
        return np.unique(self._groups[used], return_inverse=True)[1].astype(np.int64)

    def measure(self, result: RouterResult) -> RouterResult:
        """The result with its figures, where a row is left to measure on."""
        used = result.used
        if not used.any():
            return result
        scores, strong, weak = result.scores[used], self.benchmark.strong[used], self.benchmark.weak[used]
        resampled = resample(scores, strong - weak, self.draws(used), levels=LEVELS, shares=GRID)
        level = float(weak.mean())
        ends = np.array([interval(column) for column in resampled.gained.T]).T
        threshold = result.threshold
        return replace(
            result,
            figures=self._figures(scores, strong, weak, resampled, self.groups(used)),
            band=level + ends,
            resampled=resampled,
            strong_rate=None if threshold is None else strong_share(scores, threshold),
            quality=None if threshold is None else routed_quality(scores, strong, weak, threshold),
        )

    def _figures(
        self,
        scores: NDArray[np.float64],
        strong: NDArray[np.float64],
        weak: NDArray[np.float64],
        resampled: Resampled,
        groups: NDArray[np.int64],
    ) -> Figures:
        gains, means = strong - weak, (float(strong.mean()), float(weak.mean()))
        points = published_points(scores, strong, weak)
        control = random_control(scores, gains, groups=groups, seed=self.seed)
        area = interval(resampled.apgrs)
        levels = {level: interval(column) for level, column in zip(LEVELS, resampled.cpts.T, strict=True)}
        return Figures(
            quality_weak=means[1],
            quality_strong=means[0],
            apgr=apgr(scores, gains),
            apgr_low=area.low,
            apgr_high=area.high,
            apgr_published=apgr_published(points, *means),
            **_cpts(scores, gains, levels),
            **{f"{_cpt_name(level)}_published": cpt_published(points, *means, level) for level in LEVELS},
            quality_at=dict(
                zip(map(str, SHARES), quality_at(scores, strong, weak, np.array(SHARES)).tolist(), strict=True)
            ),
            average_quality=average_quality(scores, strong, weak),
            roc_auc=roc_auc(scores, gains),
            ece=expected_calibration_error(scores, outcomes_of(gains)) if _are_chances(scores) else float("nan"),
            better_than_random=control.verdict,
            random_low=control.low,
            random_high=control.high,
            random_p_value=control.p_value,
        )

    def concluded(self, results: dict[str, RouterResult], *, keep_overlap: bool) -> Evaluation:
        """All results with the oracle's, and every two routers compared."""
        known = oracle_scores(self.benchmark.strong, self.benchmark.weak)
        oracle = RouterResult(
            name=ORACLE,
            is_baseline=True,
            scores=known,
            used=np.ones(len(known), dtype=bool),
            n_overlap=0,
            seconds=0.0,
        )
        return Evaluation(
            benchmark=self.benchmark,
            results={**results, ORACLE: self.measure(oracle)},
            comparisons=self._comparisons([result for name, result in results.items() if name != "random"]),
            resamples=self.resamples,
            seed=self.seed,
            kept_overlap=keep_overlap,
        )

    def _comparisons(self, results: Sequence[RouterResult]) -> list[PairedComparison]:
        return [
            self._compared(first, second)
            for place, first in enumerate(results)
            for second in results[place + 1 :]
            if (first.used & second.used).any()
        ]

    def _compared(self, first: RouterResult, second: RouterResult) -> PairedComparison:
        both = first.used & second.used
        gains = self.benchmark.gains[both]
        areas = [apgr(result.scores[both], gains) for result in (first, second)]
        draws = self.draws(both)
        found = [
            result.resampled
            if result.resampled is not None and np.array_equal(result.used, both)
            else resample(result.scores[both], gains, draws)
            for result in (first, second)
        ]
        comparison = compare(found[0], found[1], areas[0] - areas[1])
        return PairedComparison(first=first.name, second=second.name, n=int(both.sum()), result=comparison)


def _cpts(scores: NDArray[np.float64], gains: NDArray[np.float64], levels: Mapping[float, Interval]) -> dict[str, Any]:
    found: dict[str, float] = {}
    for level, ends in levels.items():
        name = _cpt_name(level)
        found |= {name: cpt(scores, gains, level), f"{name}_low": ends.low, f"{name}_high": ends.high}
    return found


def _cpt_name(level: float) -> str:
    return f"cpt{round(level * 100)}"


def _are_chances(scores: NDArray[np.float64]) -> bool:
    return bool(((scores >= 0.0) & (scores <= 1.0)).all())


def _overlap(router: Router, benchmark: Benchmark) -> NDArray[np.bool_] | None:
    if router.training_prompts is None:
        return None
    from prefroute.data import seen_prompts

    return seen_prompts(benchmark.prompts, router.training_prompts)


def _plain(value: Any) -> Any:
    """A figure as JSON knows it."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
