"""Prices as data, unknown prices as unknown, savings with their sign, and the paper's own figures."""

import json
from pathlib import Path

import numpy as np
import pytest

from prefroute.costs import PAPER_TOKENS, Price, Prices, savings
from prefroute.errors import ConfigurationError, DataError
from prefroute.evaluation.benchmarks import Benchmark
from prefroute.evaluation.evaluate import evaluate_scores
from prefroute.evaluation.savings import all_savings, answer_costs, savings_of
from prefroute.targets import rank_for_budget, rank_for_quality
from prefroute.types import ModelPair

PAIR = ModelPair("big", "small")


def test_the_papers_prices_and_savings() -> None:
    strong, weak = (price.of(*PAPER_TOKENS) for price in Prices.of_paper().values() if price is not None)
    assert strong is not None
    assert weak is not None
    assert (strong / sum(PAPER_TOKENS) * 1e6, weak / sum(PAPER_TOKENS) * 1e6) == pytest.approx((24.7, 0.24), abs=0.01)
    found = savings(0.1340, 0.4903, strong_cost=strong, weak_cost=weak, router_cost=0.0)
    assert found.call_ratio == pytest.approx(3.66, abs=0.005)
    assert found.cost_ratio == pytest.approx(3.48, abs=0.005)


def test_an_unknown_price_is_not_free() -> None:
    price = Price(input=1.0, output=None)
    assert price.of(10, 0) == pytest.approx(1e-5)
    assert price.of(10, 1) is None
    assert price.of(10, 0, cached_tokens=5) is None
    assert Price(input=1.0, output=2.0, cached_input=0.5).of(10, 1, cached_tokens=4) == pytest.approx(10e-6)
    assert Price(input=0.0, output=0.0).of(10, 10) == 0.0
    with pytest.raises(ConfigurationError, match="10 in, 1 out, 11 cached"):
        price.of(10, 1, cached_tokens=11)
    unknown = savings(0.2, 0.5, strong_cost=None, weak_cost=0.1, router_cost=0.0).as_dict()
    assert unknown.pop("call_ratio") == 2.5
    assert {name for name, value in unknown.items() if value is not None} == {"strong_rate", "router_cost"}
    own = savings(0.2, 0.5, strong_cost=1.0, weak_cost=0.1, router_cost=None)
    assert own.cost == pytest.approx(0.28)
    assert own.saved_against_strong is own.saved_against_random is own.cost_ratio is None


def test_savings_have_a_sign_and_count_the_router() -> None:
    found = savings(0.6, 0.5, strong_cost=1.0, weak_cost=0.5, router_cost=0.3)
    assert found.saved_against_strong == pytest.approx(1.0 - 0.8 - 0.3)
    assert found.saved_against_random == pytest.approx(0.75 - 0.8 - 0.3)
    assert found.cost_ratio == pytest.approx(0.75 / 1.1)
    for beyond in (-0.5, 1.3, float("nan")):
        none = savings(0.5, beyond, strong_cost=1.0, weak_cost=0.5, router_cost=0.0)
        assert none.random is none.saved_against_random is none.call_ratio is none.cost_ratio is None
        assert none.saved_against_strong == pytest.approx(0.25)
    assert savings(0.0, 0.0, strong_cost=1.0, weak_cost=0.5, router_cost=0.0).call_ratio is None


def test_prices_are_read_and_overridden(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"big": {"input": 2, "output": 8}, "small": {"input": 1}, "other": None}))
    prices = Prices.read(file)
    assert prices["big"] == Price(input=2, output=8)
    assert prices["small"] == Price(input=1, output=None)
    assert prices["other"] is prices["unlisted"] is None
    assert prices.overridden({"big": None})["big"] is None
    assert prices.overridden({"new": Price(input=1, output=1)})["big"] is not None
    assert len(prices) == len(list(prices)) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "must hold an object"),
        ("{", "cannot be read as prices"),
        ("[" * 100_000, "cannot be read as prices"),
        ('{"a": {"per": 1}}', "the price of 'a' must be an object with input, cached_input, output"),
        ('{"a": {"input": -1, "output": 1}}', "'a': the input price must be"),
        ('{"a": {"input": "1", "output": 1}}', "got '1'"),
    ],
)
def test_what_is_no_price_list_says_where(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "prices.json"
    file.write_text(text)
    with pytest.raises(DataError, match=words):
        Prices.read(file)
    with pytest.raises(DataError, match="cannot be read as prices"):
        Prices.read(tmp_path / "none.json")


def benchmark(**numbers: np.ndarray) -> Benchmark:
    n = 100
    return Benchmark(
        name="b",
        pair=PAIR,
        prompts=tuple(f"prompt {i}" for i in range(n)),
        strong=np.ones(n),
        weak=(np.arange(n) < 50).astype(float),
        numbers=numbers,
    )


def test_answers_cost_what_columns_or_prices_say() -> None:
    prices = {"big": Price(input=10.0, output=30.0), "small": None}
    cost = np.linspace(1, 2, 100)
    assert answer_costs(benchmark()) == (None, None)
    assert answer_costs(benchmark(strong_cost=cost)).strong is not None
    by_tokens = answer_costs(benchmark(), prices, tokens=(100, 200))
    assert by_tokens.strong == pytest.approx(np.full(100, 0.007))
    assert by_tokens.weak is None
    tokens = {"input_tokens": cost, "strong_output_tokens": 2 * cost, "weak_output_tokens": cost}
    assert answer_costs(benchmark(**tokens), prices).strong == pytest.approx(cost * 70e-6)


def test_a_router_saves_at_its_points() -> None:
    table = benchmark(strong_cost=np.full(100, 1.0), weak_cost=np.full(100, 0.1))
    evaluation = evaluate_scores({"good": np.arange(100.0) / 100, "none": np.full(100, np.nan)}, table, resamples=20)
    costs = answer_costs(table)
    found = savings_of(evaluation.results["good"], costs, router_cost=0.01)
    assert found["cpt50"].strong_rate == pytest.approx(0.25)
    assert found["cpt50"].cost == pytest.approx(0.1 + 0.25 * 0.9)
    assert found["cpt50"].saved_against_random == pytest.approx(0.25 * 0.9 - 0.01)
    assert "threshold" not in found
    every = all_savings(evaluation, costs)
    assert set(every) == {"good", "none"}
    assert every["none"] == {}
    assert every["good"]["cpt80"].saved_against_strong is None  # the router's own cost is not known


@pytest.mark.parametrize(("wanted", "n"), [(0.9, 300), (0.95, 300), (0.98, 300), (0.99, 300), (0.98, 100)])
def test_the_fewest_calls_that_keep_a_quality_are_safe(wanted: float, n: int) -> None:
    kept, ranks = 0, []
    for seed in range(200):
        generator = np.random.default_rng(seed)

        def draw(n: int, generator: np.random.Generator = generator) -> tuple[np.ndarray, ...]:
            scores = generator.random(n)
            strong = (generator.random(n) < 0.85).astype(float)
            # The weak model loses where the score is high, and hardly ever elsewhere.
            return scores, strong, strong * (generator.random(n) > 0.4 * scores**2)

        scores, strong, weak = draw(n)
        found = rank_for_quality(scores, strong, weak, wanted)
        threshold = np.sort(scores)[::-1][found.rank - 1] if found.rank else 2.0
        scores, strong, weak = draw(5000)
        kept += found.rank == n or np.where(scores >= threshold, strong, weak).mean() >= wanted * strong.mean()
        ranks.append(found.rank / n)
        assert found.quality >= wanted - 1e-9
    assert kept >= 188
    assert np.mean(ranks) < 0.5 or wanted > 0.95


def test_quality_at_the_ends() -> None:
    ones = np.ones(20)
    assert rank_for_quality(np.arange(20.0), ones, ones, 1.0).rank == 20  # no sample shows that nothing is lost
    assert rank_for_quality(np.arange(2000.0), np.ones(2000), np.ones(2000), 0.9).rank == 0
    assert rank_for_quality(np.arange(20.0), ones, 0 * ones, 1.0).rank == 20
    assert rank_for_quality(np.full(20, 0.5), ones, 0 * ones, 0.9).rank == 20
    with pytest.raises(ConfigurationError, match=r"for 95 % pass 0\.95"):
        rank_for_quality(ones, ones, ones, 95)
    with pytest.raises(DataError, match="mean quality is 0"):
        rank_for_quality(ones, 0 * ones, ones, 0.9)


def test_a_budget_pays_for_so_many() -> None:
    scores, strong, weak = np.arange(10.0), np.full(10, 1.0), np.full(10, 0.5)
    assert rank_for_budget(scores, strong, weak, 0.75) == (5, 0.75)
    assert rank_for_budget(scores, strong, weak, 5).rank == 10
    assert rank_for_budget(np.zeros(10), strong, weak, 0.75).rank == 0
    with pytest.raises(DataError, match=r"1,000 requests cost \$500 at the least, above the budget of \$100"):
        rank_for_budget(scores, strong, weak, 0.1)
    with pytest.raises(ConfigurationError, match="budget must be"):
        rank_for_budget(scores, strong, weak, 0)
