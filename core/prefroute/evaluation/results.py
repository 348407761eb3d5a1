"""What an evaluation found: figures of each router, and comparisons of every two."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute._text import plain
from prefroute.evaluation.resampling import RESAMPLES, Comparison

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prefroute.evaluation.benchmarks import Benchmark
    from prefroute.evaluation.resampling import Resampled, Verdict

COIN, LENGTH, KNN, ORACLE = "random", "prompt-length", "knn", "oracle"
"""Names of what stands beside every router; the last is the router that knows both answers."""

LEVELS = {"cpt50": 0.5, "cpt80": 0.8}
"""PGR that CPT is told for, as published, by the name of the figure."""

GRID = np.linspace(0.0, 1.0, 101)
"""Shares of strong calls at which the bands of the curves are known."""


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

    @property
    def against_random(self) -> str:
        """Whether it beats a coin, for people; of a coin itself that is not asked."""
        if self.figures is None or (self.is_baseline and self.name == COIN):
            return "-"
        return self.figures.better_than_random

    def as_dict(self) -> dict[str, Any]:
        """The figures, JSON-safe: what is not defined is None."""
        names = [item.name for item in fields(Figures)]
        found = {name: None if self.figures is None else getattr(self.figures, name) for name in names}
        found["better_than_random"] = found["better_than_random"] or "cannot tell"
        own: dict[str, Any] = {
            "n_used": self.n_used,
            "n_overlap": self.n_overlap,
            "seconds": self.seconds,
            "baseline": self.is_baseline,
            "threshold": self.threshold,
            "strong_rate_at_threshold": self.strong_rate,
            "quality_at_threshold": self.quality,
        }
        values: dict[str, Any] = plain(found | own)
        return values


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
        values: dict[str, Any] = plain(
            {"first": self.first, "second": self.second, "n": self.n, **self.result._asdict()}
        )
        return values

    def seen_from(self, name: str) -> Comparison:
        """The comparison of one of the two with the other, whichever stands first."""
        if name == self.first:
            return self.result
        found = self.result
        return Comparison(-found.difference, -found.high, -found.low, found.p_value)


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

    def comparison(self, first: str, second: str) -> PairedComparison | None:
        """The paired comparison of two routers, whichever stands first in it."""
        wanted = {first, second}
        return next((item for item in self.comparisons if {item.first, item.second} == wanted), None)

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
