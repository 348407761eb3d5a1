"""Bootstrap, random control and paired comparison: exact on each resample, and right as often as they say."""

import numpy as np
import pytest

from prefroute.errors import ConfigurationError
from prefroute.evaluation import (
    apgr,
    compare,
    cpt,
    draw_counts,
    interval,
    quality_at,
    random_control,
    resample,
    resampled_apgr,
)


def sample(seed: int, n: int = 200, *, skill: float = 0.0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    hard = generator.random(n)
    scores = skill * hard + (1 - skill) * generator.random(n)
    gains = (generator.random(n) < 0.5 * hard).astype(float) - (generator.random(n) < 0.05)
    return np.round(scores, 1) if ties else scores, gains


@pytest.mark.parametrize("ties", [False, True])
def test_every_resample_is_measured_exactly(ties: bool) -> None:
    scores, gains = sample(0, 60, ties=ties)
    draws = draw_counts(60, 30, seed=1)
    found = resample(scores, gains, draws, levels=(0.0, 0.5, 1.0), shares=(0.0, 0.3, 1.0))
    assert resampled_apgr(scores, gains, draws) == pytest.approx(found.apgrs)
    for row, counts in enumerate(draws):
        rows = np.repeat(np.arange(60), counts)
        assert found.gaps[row] == pytest.approx(gains[rows].mean())
        assert found.apgrs[row] == pytest.approx(apgr(scores[rows], gains[rows]), nan_ok=True)
        assert found.cpts[row] == pytest.approx(
            [cpt(scores[rows], gains[rows], level) for level in (0.0, 0.5, 1.0)], nan_ok=True
        )
        at = quality_at(scores[rows], gains[rows], np.zeros(60), np.array([0.0, 0.3, 1.0]))
        assert found.gained[row] == pytest.approx(at)


def test_rows_of_one_prompt_are_drawn_together() -> None:
    groups = np.array([0, 1, 1, 2, 0])
    draws = draw_counts(5, 200, seed=0, groups=groups)
    assert (draws[:, 0] == draws[:, 4]).all()
    assert (draws[:, 1] == draws[:, 2]).all()
    assert (draws[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert (draw_counts(5, 200, seed=0).sum(axis=1) == 5).all()
    assert (draw_counts(5, 9, seed=3) == draw_counts(5, 9, seed=3)).all()
    with pytest.raises(ConfigurationError, match="seed must be"):
        draw_counts(5, 9, seed=-1)


def test_an_interval_counts_what_is_not_defined_on_both_sides() -> None:
    values = np.arange(1000.0)
    assert interval(values) == (24.0, 975.0)
    few = values.copy()
    few[:10] = np.nan
    assert interval(few).low < interval(np.sort(few)[:990]).low + 10
    assert interval(few).high >= 975.0
    many = values.copy()
    many[:30] = np.nan
    assert np.isnan(interval(many)).all()


def test_the_interval_of_the_bootstrap_covers() -> None:
    truth = np.mean([apgr(*sample(seed, 20_000, skill=0.5)) for seed in range(20)])
    inside = 0
    for seed in range(200):
        scores, gains = sample(1000 + seed, 150, skill=0.5)
        low, high = interval(resampled_apgr(scores, gains, draw_counts(150, 400, seed)))
        inside += low <= truth <= high
    assert 180 <= inside <= 199


def test_a_coin_is_called_better_or_worse_in_one_case_of_twenty() -> None:
    verdicts = [random_control(*sample(seed, 80), permutations=199, seed=seed).verdict for seed in range(400)]
    assert 6 <= verdicts.count("yes") + verdicts.count("no") <= 36
    assert min(verdicts.count("yes"), verdicts.count("no")) >= 1


def test_related_spread_without_a_relation_is_no_advantage() -> None:
    # The prompts with high scores differ more, either way: plain permutation would err far too often.
    wrong = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        scores = generator.random(200)
        gains = 0.1 + generator.normal(size=200) * (0.1 + 4 * (scores - 0.5) ** 2)
        wrong += random_control(scores, gains, permutations=199, seed=seed).verdict != "cannot tell"
    assert wrong <= 22


def test_skill_and_its_opposite_are_found() -> None:
    scores, gains = sample(0, 1000, skill=0.7)
    good, bad = random_control(scores, gains), random_control(-scores, gains)
    assert (good.verdict, bad.verdict) == ("yes", "no")
    assert good.p_value == bad.p_value == pytest.approx(0.001)
    assert good.low < 0.5 < good.high < apgr(scores, gains)
    # The strong model being the worse one, sending it what it is least bad at is still better than a coin.
    worse = random_control(scores, gains - 1)
    assert worse.verdict == "yes"
    assert np.isnan(worse.low)


@pytest.mark.parametrize(
    ("scores", "gains"),
    [(np.zeros(50), np.arange(50.0)), (np.arange(50.0), np.full(50, 0.3)), (np.array([1.0]), np.array([1.0]))],
)
def test_nothing_to_tell_apart_is_said(scores: np.ndarray, gains: np.ndarray) -> None:
    found = random_control(scores, gains)
    assert (found.verdict, found.p_value) == ("cannot tell", 1.0)


def test_rows_of_one_prompt_are_one_observation() -> None:
    scores, gains = sample(5, 40, skill=0.5)
    groups = np.repeat(np.arange(40), 25)
    alone = random_control(scores, gains)
    many = random_control(np.repeat(scores, 25), np.repeat(gains, 25), groups=groups)
    assert many.p_value == pytest.approx(alone.p_value, abs=0.02)
    assert random_control(np.repeat(scores, 25), np.repeat(gains, 25)).p_value < alone.p_value


@pytest.mark.parametrize("kind", ["one prompt fifty times", "score by size", "bent"])
def test_a_coin_is_no_better_for_uneven_prompts_or_a_bent_relation(kind: str) -> None:
    called = 0
    for seed in range(150):
        generator = np.random.default_rng(seed)
        sizes = (
            np.array([50, *[1] * 29]) if kind == "one prompt fifty times" else np.minimum(generator.zipf(1.6, 40), 60)
        )
        groups = np.repeat(np.arange(len(sizes)), sizes)
        scores, gains = generator.random(len(sizes)), generator.normal(0.2, 1, len(sizes))
        if kind == "score by size":
            scores += sizes
        rows = (scores[groups], gains[groups], groups)
        if kind == "bent":
            scores = generator.random(200)
            rows = (scores, np.cos(2 * np.pi * scores), np.arange(200))
        found = random_control(rows[0], rows[1], groups=rows[2], permutations=199, seed=seed)
        called += found.verdict != "cannot tell"
    assert called <= 18  # a plain permutation test errs 20 to 55 times here


@pytest.mark.parametrize("scale", [1e-170, 1.0, 1e300])
def test_the_scale_of_quality_does_not_count(scale: float) -> None:
    scores, gains = sample(0, 300, skill=0.7)
    assert random_control(scores, gains * scale).p_value == random_control(scores, gains).p_value


def test_numbers_of_resamples_are_checked() -> None:
    scores, gains = sample(0, 20)
    with pytest.raises(ConfigurationError, match="permutations must be a number from 1 to 100,000, got 0"):
        random_control(scores, gains, permutations=0)
    with pytest.raises(ConfigurationError, match="resamples must be"):
        draw_counts(20, 10**9, seed=0)
    with pytest.raises(ConfigurationError, match="at least one resampled figure"):
        interval(np.empty(0))


def test_two_routers_are_compared_on_the_same_draws() -> None:
    scores, gains = sample(3, 400, skill=0.7)
    other, _ = sample(99, 400)
    draws = draw_counts(400, 500, seed=0)
    first, second = resample(scores, gains, draws), resample(other, gains, draws)
    found = compare(first, second, apgr(scores, gains) - apgr(other, gains))
    back = compare(second, first, apgr(other, gains) - apgr(scores, gains))
    assert found.low > 0
    assert found.p_value == back.p_value < 0.01
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=1e-3)
    assert compare(first, first, 0.0) == (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(ConfigurationError, match="same draws"):
        compare(first, resample(other, gains, draw_counts(400, 500, seed=1)), 0.0)
