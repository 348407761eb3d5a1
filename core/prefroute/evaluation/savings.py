"""What a router saves on a benchmark, in US dollars."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prefroute.costs import Savings, savings
from prefroute.evaluation.metrics import cost_quality_curve, pgr
from prefroute.evaluation.results import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from prefroute.costs import Price
    from prefroute.evaluation.benchmarks import Benchmark
    from prefroute.evaluation.results import Evaluation, RouterResult


class AnswerCosts(NamedTuple):
    """Cost of each answer in US dollars, shape (n,); None where it is not known."""

    strong: NDArray[np.float64] | None
    weak: NDArray[np.float64] | None


def answer_costs(
    benchmark: Benchmark,
    prices: Mapping[str, Price | None] | None = None,
    *,
    tokens: tuple[float, float] | None = None,
) -> AnswerCosts:
    """What the answers of a benchmark cost.

    Args:
        benchmark: Its columns of costs are taken first, then its columns of tokens with the prices.
        prices: By name of the model; None for none. A model without a price costs an unknown amount.
        tokens: Mean tokens of a prompt and of an answer, where the benchmark has no columns of them.

    Returns:
        The costs.
    """
    pair, found = benchmark.pair, []
    for side, name in (("strong", pair.strong), ("weak", pair.weak)):
        column = benchmark.column(f"{side}_cost")
        price = (prices or {}).get(name)
        if column is None and price is not None:
            column = _priced(benchmark, side, price, tokens)
        found.append(column)
    return AnswerCosts(*found)


def savings_of(result: RouterResult, costs: AnswerCosts, *, router_cost: float | None = None) -> dict[str, Savings]:
    """What a router saves at the thresholds that recover 50 % and 80 % of the gap, and at its own.

    Args:
        result: Of the router.
        costs: Of the answers of its benchmark.
        router_cost: The router's own cost a request, US dollars; None where it is not known.

    Returns:
        Savings by point: `"cpt50"`, `"cpt80"` and `"threshold"`; those that are not defined are left out.
    """
    figures, used = result.figures, result.used
    if figures is None or np.isnan(figures.apgr):
        return {}
    points = {name: (getattr(figures, name), level) for name, level in LEVELS.items()}
    if result.strong_rate is not None and result.quality is not None:
        points["threshold"] = (result.strong_rate, pgr(result.quality, figures.quality_strong, figures.quality_weak))
    strong, weak = (None if column is None else column[used] for column in costs)
    found = {}
    for name, (rate, random_rate) in points.items():
        cost = None
        if strong is not None and weak is not None:
            cost = float(np.interp(rate, *cost_quality_curve(result.scores[used], strong, weak)))
        found[name] = savings(
            rate,
            random_rate,
            strong_cost=None if strong is None else float(strong.mean()),
            weak_cost=None if weak is None else float(weak.mean()),
            router_cost=router_cost,
            cost=cost,
        )
    return found


def all_savings(
    evaluation: Evaluation, costs: AnswerCosts, *, router_cost: float | None = None
) -> dict[str, dict[str, Savings]]:
    """`savings_of` every router that is not a baseline, by its name."""
    return {
        name: savings_of(result, costs, router_cost=router_cost)
        for name, result in evaluation.results.items()
        if not result.is_baseline
    }


def _priced(
    benchmark: Benchmark, side: str, price: Price, tokens: tuple[float, float] | None
) -> NDArray[np.float64] | None:
    """Tokens of each row times the price; None where either is not known."""
    given, answered = benchmark.column("input_tokens"), benchmark.column(f"{side}_output_tokens")
    if given is None or answered is None:
        if tokens is None:
            return None
        given, answered = (np.full(len(benchmark), float(number)) for number in tokens)
    costs = [price.of(float(one), float(other)) for one, other in zip(given, answered, strict=True)]
    return None if None in costs else np.array(costs, dtype=np.float64)
