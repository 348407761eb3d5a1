"""Routers measured on a benchmark, beside the baselines, with intervals and without the prompts they learnt from."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute._scoring import score_prompts
from prefroute.data import prompt_hashes
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
from prefroute.evaluation.reliability import are_chances, expected_calibration_error, outcomes_of
from prefroute.evaluation.resampling import (
    RESAMPLES,
    as_count,
    compare,
    draw_counts,
    interval,
    random_control,
    resample,
)
from prefroute.evaluation.results import (
    COIN,
    GRID,
    KNN,
    LENGTH,
    LEVELS,
    ORACLE,
    Evaluation,
    Figures,
    PairedComparison,
    RouterResult,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from prefroute.data import Battles
    from prefroute.evaluation.benchmarks import Benchmark
    from prefroute.evaluation.resampling import Interval, Resampled
    from prefroute.router import Router

SHARES = tuple(round(step / 10, 1) for step in range(1, 10))
"""Shares of strong calls that quality is told at."""


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
        return {COIN: random, LENGTH: PromptLengthRouter()}
    from prefroute.routers.knn import KNNRouter

    return {
        COIN: random,
        LENGTH: PromptLengthRouter.fit(training, pair=benchmark.pair),
        KNN: KNNRouter.fit(training, pair=benchmark.pair, seed=seed, progress=progress),
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
    _check(routers, resamples)
    standing = baselines(benchmark, training, seed=seed, progress=progress)
    everyone = {**routers, **{name: router for name, router in standing.items() if name not in routers}}
    bench = _Bench(benchmark, resamples, seed)
    hashes = prompt_hashes(benchmark.prompts)
    results = {}
    for name, router in everyone.items():
        started = perf_counter()
        scores = score_prompts(router, benchmark.prompts, name=name, progress=progress)
        seconds = perf_counter() - started
        seen = None if router.training_prompts is None else np.isin(hashes, router.training_prompts)
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
    baselines: Mapping[str, NDArray[np.float64]] | None = None,
    held_out: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """`evaluate` for scores that are there already, cross-fitted ones, say.

    Args:
        scores: Of each router, shape (n,), by its name; NaN for a row that it is not to be measured on.
        benchmark: The rows.
        baselines: Likewise of what is to stand beside them: `random`, `prompt-length` and `knn`, say. The oracle always
            does.
        held_out: Whether each score was made without the label of its row, as by cross-fitting.
        resamples: Of the bootstrap.
        seed: Of whatever is drawn.

    Returns:
        The figures of each.

    Raises:
        ConfigurationError: Scores are not one finite number a row, a router is called oracle or as a baseline, or
            `resamples` is not a positive number.
    """
    standing = dict(baselines or {})
    _check([*scores, *standing], resamples)
    if twice := scores.keys() & standing.keys():
        msg = f"{', '.join(map(repr, sorted(twice)))} stands for a router and for a baseline; call yours something else"
        raise ConfigurationError(msg)
    bench = _Bench(benchmark, resamples, seed)
    results = {}
    for name, given in {**scores, **standing}.items():
        array = np.asarray(given, dtype=np.float64)
        if array.shape != (len(benchmark),):
            msg = f"scores of {name!r} must be of shape ({len(benchmark)},), got {array.shape}"
            raise ConfigurationError(msg)
        if np.isinf(array).any():
            msg = f"scores of {name!r} must be finite, or NaN where a row is not to be measured"
            raise ConfigurationError(msg)
        results[name] = bench.measure(
            RouterResult(
                name=name,
                is_baseline=name in standing,
                scores=array,
                used=~np.isnan(array),
                n_overlap=0 if held_out else None,
                seconds=0.0,
            )
        )
    return bench.concluded(results, keep_overlap=False)


class _Bench:
    """Measures on one benchmark; draws are made once for each set of rows."""

    def __init__(self, benchmark: Benchmark, resamples: int, seed: int) -> None:
        self.benchmark = benchmark
        self.resamples = resamples
        self.seed = seed
        self._groups = benchmark.groups
        self._drawn: tuple[bytes, NDArray[np.int16]] | None = None

    def draws(self, used: NDArray[np.bool_]) -> NDArray[np.int16]:
        """Of the rows that are used."""
        key = used.tobytes()
        # Of the latest rows alone: of 14,000 prompts they are 28 MB.
        if self._drawn is None or self._drawn[0] != key:
            groups = self.groups(used)
            self._drawn = key, draw_counts(len(groups), self.resamples, self.seed, groups)
        return self._drawn[1]

    def groups(self, used: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Of the rows that are used, numbered from 0."""
        return np.unique(self._groups[used], return_inverse=True)[1].astype(np.int64)

    def measure(self, result: RouterResult) -> RouterResult:
        """The result with its figures, where a row is left to measure on."""
        used = result.used
        if not used.any():
            return result
        scores, strong, weak = result.scores[used], self.benchmark.strong[used], self.benchmark.weak[used]
        resampled = resample(scores, strong - weak, self.draws(used), levels=list(LEVELS.values()), shares=GRID)
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
        ends = [interval(column) for column in resampled.cpts.T]
        return Figures(
            quality_weak=means[1],
            quality_strong=means[0],
            apgr=apgr(scores, gains),
            apgr_low=area.low,
            apgr_high=area.high,
            apgr_published=apgr_published(points, *means),
            **_cpts(scores, gains, ends),
            **{f"{name}_published": cpt_published(points, *means, level) for name, level in LEVELS.items()},
            quality_at=dict(
                zip(map(str, SHARES), quality_at(scores, strong, weak, np.array(SHARES)).tolist(), strict=True)
            ),
            average_quality=average_quality(scores, strong, weak),
            roc_auc=roc_auc(scores, gains),
            ece=expected_calibration_error(scores, outcomes_of(gains)) if are_chances(scores) else float("nan"),
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
            comparisons=self._comparisons([result for result in results.values() if not _is_coin(result)]),
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
        found = [
            result.resampled
            if result.resampled is not None and np.array_equal(result.used, both)
            else resample(result.scores[both], gains, self.draws(both))
            for result in (first, second)
        ]
        comparison = compare(found[0], found[1], areas[0] - areas[1])
        return PairedComparison(first=first.name, second=second.name, n=int(both.sum()), result=comparison)


def _check(names: Iterable[str], resamples: int) -> None:
    as_count("resamples", resamples)
    if ORACLE in names:
        msg = f"{ORACLE!r} is the name of the router that knows both answers; call yours something else"
        raise ConfigurationError(msg)


def _cpts(scores: NDArray[np.float64], gains: NDArray[np.float64], ends: Sequence[Interval]) -> dict[str, Any]:
    found: dict[str, float] = {}
    for (name, level), (low, high) in zip(LEVELS.items(), ends, strict=True):
        found |= {name: cpt(scores, gains, level), f"{name}_low": low, f"{name}_high": high}
    return found


def _is_coin(result: RouterResult) -> bool:
    """Whether it is the coin that stands beside every router; the control says all about it."""
    return result.is_baseline and result.name == COIN
