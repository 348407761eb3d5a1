"""The baselines: a uniform, repeatable coin, and logistic regression on the length of the prompt."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefroute import load_router
from prefroute.data import Battles
from prefroute.errors import ConfigurationError, ConvergenceError, DataError, PersistenceError
from prefroute.routers import baselines
from prefroute.routers.baselines import PromptLengthRouter, RandomRouter, fit_logistic_line
from prefroute.types import Battle, ModelPair

PAIR = ModelPair(strong="s", weak="w")
PROMPTS = [f"prompt number {index}" for index in range(4000)]


def battles(outcome_by_length: dict[int, float], weight: float = 1.0) -> Battles:
    return Battles.from_rows(
        Battle(prompt="x" * length, model_a="s", model_b="w", outcome=outcome, weight=weight)
        for length, outcome in outcome_by_length.items()
    )


def test_random_scores_are_uniform_and_seeds_are_independent() -> None:
    first, second = (RandomRouter(seed=seed).win_probability(PROMPTS) for seed in (0, 1))
    for scores in (first, second):
        counts = np.histogram(scores, bins=20, range=(0, 1))[0]
        # 20 bins have 19 degrees of freedom: a uniform sample stays below 43.8 in 999 of 1,000 cases.
        assert np.sum((counts - 200) ** 2 / 200) < 43.8
        distance = np.abs(np.sort(scores) - (np.arange(4000) + 0.5) / 4000).max() + 0.5 / 4000
        assert distance < 1.95 / np.sqrt(4000)  # Kolmogorov-Smirnov, 999 of 1,000.
    assert abs(np.corrcoef(first, second)[0, 1]) < 3.3 / np.sqrt(4000)
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 3.3 / np.sqrt(4000)


def test_random_scores_depend_on_seed_and_text_alone() -> None:
    scores = RandomRouter(seed=7).win_probability(PROMPTS)
    order = np.random.default_rng(0).permutation(len(PROMPTS))
    np.testing.assert_array_equal(
        RandomRouter(seed=7).win_probability([PROMPTS[index] for index in order]), scores[order]
    )
    # Pinned, so that a prompt still goes the same way after an update.
    assert RandomRouter().win_probability(["Why is the sky blue?"]) == pytest.approx([0.03289924719021442], abs=1e-15)
    assert RandomRouter().threshold == 0.5


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_the_threshold_of_a_random_router_is_the_share_that_stays_weak(threshold: float) -> None:
    decisions = RandomRouter(threshold=threshold).route_batch(PROMPTS)
    weak = sum(not decision.is_strong for decision in decisions) / len(decisions)
    assert weak == pytest.approx(threshold, abs=4 * np.sqrt(threshold * (1 - threshold) / len(PROMPTS)))


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5, "1", None, True])
def test_a_seed_that_is_none_is_refused(seed: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"seed must be an integer from 0 to 2\*\*63 - 1, got"):
        RandomRouter(seed=seed)


def test_untrained_length_scores_follow_the_stated_odds() -> None:
    scores = PromptLengthRouter().win_probability(["", "x" * 250, "x" * 2509])
    np.testing.assert_allclose(scores / (1 - scores), [1 / 251, 1, 10], rtol=1e-12)
    assert [d.route for d in PromptLengthRouter().route_batch(["x" * 249, "x" * 251])] == ["weak", "strong"]
    assert (PromptLengthRouter().pair, PromptLengthRouter().models) == (None, ())


@given(st.lists(st.integers(0, 5000), min_size=2, max_size=20), st.floats(0, 5), st.floats(-20, 20))
def test_scores_are_monotone_in_length(lengths: list[int], slope: float, intercept: float) -> None:
    texts = ["x" * length for length in sorted(lengths)]
    up = PromptLengthRouter(slope=slope, intercept=intercept).win_probability(texts)
    down = PromptLengthRouter(slope=-slope, intercept=intercept).win_probability(texts)
    assert (np.diff(up) >= 0).all()
    assert (np.diff(down) <= 0).all()


def test_fitting_agrees_with_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(3)
    x = generator.normal(5.0, 1.5, 300)
    outcomes = generator.choice([0.0, 0.25, 0.5, 1.0], 300, p=[0.2, 0.1, 0.2, 0.5])
    weights = generator.uniform(0.2, 3.0, 300)
    slope, intercept = fit_logistic_line(x, outcomes, weights)
    mean = np.average(x, weights=weights)
    deviation = np.sqrt(np.average((x - mean) ** 2, weights=weights))
    # A row of outcome y and weight w is a win of weight w y and a loss of weight w (1 - y).
    rows = np.append(x, [mean - deviation, mean + deviation])
    wins, rest = np.append(outcomes, [0.5, 0.5]), np.append(weights / weights.mean(), [0.5, 0.5])
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(
        np.tile(rows, 2)[:, None], np.repeat([1, 0], len(rows)), np.concatenate([rest * wins, rest * (1 - wins)])
    )
    assert slope == pytest.approx(reference.coef_[0, 0], abs=1e-5)
    assert intercept == pytest.approx(reference.intercept_[0], abs=1e-4)


@pytest.mark.parametrize("sign", [1, -1])
def test_it_learns_either_direction_and_splits_its_training_prompts_in_half(sign: int) -> None:
    generator = np.random.default_rng(0)
    outcomes = {
        length: float(generator.random() < 1 / (1 + np.exp(-sign * 2 * (np.log1p(length) - 5))))
        for length in range(20, 1020)
    }
    router = PromptLengthRouter.fit(battles(outcomes), pair=PAIR)
    assert router.slope == pytest.approx(sign * 2, abs=0.4)
    assert -router.intercept / router.slope == pytest.approx(5, abs=0.2)
    decisions = router.route_batch(["x" * length for length in outcomes])
    assert sum(decision.is_strong for decision in decisions) == 500
    assert (router.pair, router.models) == (PAIR, ("s", "w"))


@given(
    st.dictionaries(st.integers(0, 3000), st.sampled_from([0.0, 0.3, 0.5, 1.0]), min_size=1, max_size=12),
    st.sampled_from([1e-300, 1.0, 1e300]),
)
def test_any_labels_give_a_finite_router_and_swapping_the_models_mirrors_it(
    outcomes: dict[int, float], weight: float
) -> None:
    table = battles(outcomes, weight)
    router = PromptLengthRouter.fit(table, pair=PAIR)
    mirrored = PromptLengthRouter.fit(table, pair=ModelPair(strong="w", weak="s"))
    texts = ["x" * length for length in outcomes]
    scores = router.win_probability(texts)
    assert ((scores > 0) & (scores < 1)).all()
    np.testing.assert_allclose(scores, 1 - mirrored.win_probability(texts), rtol=0, atol=1e-6)
    # Logistic regression with an intercept is calibrated in the large, but for the one imagined tie.
    expected = (sum(outcomes.values()) + 0.5) / (len(outcomes) + 1)
    assert abs(scores.mean() - expected) <= 1 / (len(outcomes) + 1)


def test_prompts_of_one_length_teach_no_slope() -> None:
    table = Battles.from_rows(
        Battle(prompt=f"prompt {index}", model_a="w", model_b="s", outcome=0.25) for index in range(8)
    )
    router = PromptLengthRouter.fit(table, pair=PAIR)
    assert router.slope == pytest.approx(0, abs=1e-9)
    assert router.win_probability(["any"])[0] == pytest.approx((8 * 0.75 + 0.5) / 9)


def test_what_cannot_be_fitted_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="z"):
        PromptLengthRouter.fit(battles({3: 1.0}), pair=ModelPair(strong="s", weak="z"))
    with pytest.raises(ConfigurationError, match="pair must be a ModelPair"):
        PromptLengthRouter.fit(battles({3: 1.0}), pair=("s", "w"))  # type: ignore[arg-type]
    monkeypatch.setattr(baselines, "_MAX_STEPS", 1)
    with pytest.raises(ConvergenceError, match="did not converge in 1 steps; the largest gradient is "):
        PromptLengthRouter.fit(battles({3: 1.0, 9: 1.0}), pair=PAIR)


def test_both_can_be_had_by_name_untrained() -> None:
    for name, untrained in (("random", RandomRouter()), ("prompt-length", PromptLengthRouter())):
        router = load_router(name)
        assert type(router) is type(untrained)
        assert router.threshold == untrained.threshold
        np.testing.assert_array_equal(router.win_probability(PROMPTS[:50]), untrained.win_probability(PROMPTS[:50]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", None, True])
@pytest.mark.parametrize("name", ["slope", "intercept"])
def test_a_number_that_is_none_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be one finite number, got"):
        PromptLengthRouter(**{name: value})


@pytest.mark.parametrize(
    ("router", "settings", "problem"),
    [
        (RandomRouter(), {"seed": -1}, "seed must be"),
        (RandomRouter(), {"seed": "x"}, "seed: "),
        (PromptLengthRouter(), {"slope": 1.0}, "intercept: "),
        (PromptLengthRouter(), {"slope": 1.0, "intercept": 0.0, "pair": {"strong": "a", "weak": "a"}}, "a"),
        (PromptLengthRouter(), {"slope": "NaN", "intercept": 0.0, "pair": None}, "slope: "),
    ],
)
def test_damaged_settings_are_told(tmp_path: Path, router: Any, settings: dict[str, Any], problem: str) -> None:
    router.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "settings": settings}))
    with pytest.raises(PersistenceError, match=rf"config\.json: .*{problem}"):
        type(router).from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", [RandomRouter, PromptLengthRouter])
def test_only_few_short_texts_are_scored_on_the_loop(kind: Any) -> None:
    here, seen = threading.current_thread(), []
    real = kind.win_probability

    def watched(router: Any, prompts: Any) -> Any:
        seen.append(threading.current_thread() is here)
        return real(router, prompts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "win_probability", watched)
        for batch in (["short"], ["long " * 100_000], ["x"] * 100):
            asyncio.run(kind().aroute_batch(batch))

        class Mine(kind):  # type: ignore[misc]
            def win_probability(self, prompts: Any) -> Any:
                return super().win_probability(prompts)

        asyncio.run(Mine().aroute("short"))
    assert seen == [True, False, False, False]


def test_prompts_of_one_length_say_nothing_of_other_lengths() -> None:
    """Rounding leaves their deviation at 4e-16: a slope per such a deviation would be sure of everything."""
    rows = [Battle(f"is {number:04d} a prime?", "big", "small", float(number % 3 > 0)) for number in range(500)]
    router = PromptLengthRouter.fit(Battles.from_rows(rows), pair=ModelPair("big", "small"))
    scores = router.win_probability(["is 0001 a prime?", "is 1 a prime?", "is 100001 a prime?"])
    assert np.ptp(scores) < 0.2
