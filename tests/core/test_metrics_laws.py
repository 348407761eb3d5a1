"""Laws that every router's figures obey, whatever the data."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from prefroute.errors import ConfigurationError
from prefroute.evaluation import (
    apgr,
    average_quality,
    cost_quality_curve,
    cpt,
    gain_curve,
    oracle_scores,
    pgr,
    quality_at,
    recovery_curve,
    resample,
    roc_auc,
    routed_quality,
    strong_share,
)

ROW = st.tuples(st.integers(-3, 6), st.integers(0, 4), st.integers(0, 4))
ROWS = st.lists(ROW, min_size=1, max_size=25)
SHARES = np.linspace(0, 1, 21)


def columns(rows: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scores, strong, weak = np.array(rows, dtype=float).T
    return scores, strong, weak


@given(ROWS)
def test_no_router_leaves_the_oracle_and_its_mirror(rows: list[tuple[int, int, int]]) -> None:
    scores, strong, weak = columns(rows)
    oracle = oracle_scores(strong, weak)
    best, worst = (quality_at(known, strong, weak, SHARES) for known in (oracle, -oracle))
    own = quality_at(scores, strong, weak, SHARES)
    assert (own <= best + 1e-9).all()
    assert (own >= worst - 1e-9).all()
    if strong.sum() > weak.sum():
        assert apgr(oracle, oracle) + 1e-9 >= apgr(scores, oracle) >= 1 - apgr(oracle, oracle) - 1e-9


@given(ROWS)
def test_ends_and_means_of_the_curve(rows: list[tuple[int, int, int]]) -> None:
    scores, strong, weak = columns(rows)
    curve = cost_quality_curve(scores, strong, weak)
    assert (curve.shares[0], curve.shares[-1]) == (0.0, 1.0)
    assert (curve.quality[0], curve.quality[-1]) == pytest.approx((weak.mean(), strong.mean()))
    # One point of the curve for each threshold, and nothing else.
    for threshold in np.unique(scores):
        share = strong_share(scores, threshold)
        assert quality_at(scores, strong, weak, share) == pytest.approx(routed_quality(scores, strong, weak, threshold))
    assert average_quality(scores, strong, weak) == pytest.approx(
        weak.mean() + np.trapezoid(gain_curve(scores, strong - weak).quality, curve.shares)
    )


@given(ROWS)
def test_only_the_order_of_scores_counts(rows: list[tuple[int, int, int]]) -> None:
    scores, strong, weak = columns(rows)
    other = 1 / (1 + np.exp(-scores / 3))
    assert (quality_at(scores, strong, weak, SHARES) == quality_at(other, strong, weak, SHARES)).all()
    assert roc_auc(scores, strong - weak) == pytest.approx(roc_auc(other, strong - weak), nan_ok=True)


@given(ROWS)
def test_the_order_of_rows_does_not_count(rows: list[tuple[int, int, int]]) -> None:
    here, there = columns(rows), columns(rows[::-1])
    assert quality_at(*here, SHARES) == pytest.approx(quality_at(*there, SHARES))


@given(ROWS)
def test_swapping_the_models_mirrors_the_curve(rows: list[tuple[int, int, int]]) -> None:
    scores, strong, weak = columns(rows)
    assert quality_at(scores, strong, weak, SHARES) == pytest.approx(quality_at(-scores, weak, strong, SHARES)[::-1])
    assert average_quality(scores, strong, weak) == pytest.approx(average_quality(-scores, weak, strong))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 3)), min_size=1, max_size=5))
def test_random_orders_recover_a_half_on_average_and_ties_just_that(rows: list[tuple[int, int]]) -> None:
    scores, gains = np.array(rows, dtype=float).T
    if gains.sum() <= 0:
        return
    dealt = [apgr(np.array(order), gains) for order in permutations(range(len(gains)))]
    assert np.mean(dealt) == pytest.approx(0.5)
    assert apgr(np.zeros(len(gains)), gains) == pytest.approx(0.5)
    # A run of equal scores is the mean over all orders of breaking it.
    broken = [apgr(scores + 1e-3 * np.array(order), gains) for order in permutations(range(len(gains)))]
    assert apgr(scores, gains) == pytest.approx(np.mean(broken))


@given(ROWS, st.floats(0, 1))
def test_cpt_reaches_the_level_and_nothing_cheaper_does(rows: list[tuple[int, int, int]], level: float) -> None:
    scores, strong, weak = columns(rows)
    share = cpt(scores, strong - weak, level)
    if strong.sum() <= weak.sum():
        assert np.isnan(share)
        return
    curve = recovery_curve(scores, strong - weak)
    reached = np.interp(share, curve.shares, curve.recovered)
    assert reached >= level - 1e-9
    assert (curve.recovered[curve.shares < share - 1e-12] < level).all()


@given(ROWS)
def test_roc_auc_is_that_of_scikit_learn(rows: list[tuple[int, int, int]]) -> None:
    scores, strong, weak = columns(rows)
    better = strong > weak
    if better.all() or not better.any():
        assert np.isnan(roc_auc(scores, strong - weak))
    else:
        assert roc_auc(scores, strong - weak) == pytest.approx(roc_auc_score(better, scores))


def test_pgr_is_the_way_between_the_models() -> None:
    assert pgr(0.7, 0.8, 0.6) == pytest.approx(0.5)
    assert pgr(0.9, 0.8, 0.6) == pytest.approx(1.5)
    assert np.isnan(pgr(0.7, 0.6, 0.6))
    assert np.isnan(pgr(0.7, 0.6, 0.8))


def test_one_prompt_is_a_straight_line() -> None:
    one = np.array([0.3])
    assert quality_at(one, one + 1, one, np.array([0, 0.5, 1])) == pytest.approx([0.3, 0.8, 1.3])
    assert apgr(one, one) == pytest.approx(0.5)
    assert cpt(one, one, 0.25) == pytest.approx(0.25)


def test_a_peak_that_touches_the_level_counts_on_any_scale() -> None:
    gains = np.array([1.0, 1, 1, 1, -1, 0, 1, 1])
    scores = -np.arange(8.0)
    for scale in (1.0, 0.7, 1 / 3, 1e-9):
        assert cpt(scores, gains * scale, 0.8) == pytest.approx(0.5)
        found = resample(scores, gains * scale, np.ones((1, 8), dtype=np.int16), levels=(0.8,))
        assert found.cpts[0, 0] == pytest.approx(0.5)


def test_what_cannot_be_measured_says_why() -> None:
    one, nan = np.array([1.0]), np.array([np.nan])
    with pytest.raises(ConfigurationError, match="got nan among strong at row 0"):
        cost_quality_curve(one, nan, one)
    for counts in (np.zeros(1), np.ones(2), -one):
        with pytest.raises(ConfigurationError, match="counts must be one number of 0 or more for each of 1 prompts"):
            apgr(one, one, counts)
    with pytest.raises(ConfigurationError, match="one number a prompt each"):
        cost_quality_curve(one, np.ones(2), one)
    with pytest.raises(ConfigurationError, match=r"shares of strong calls must be in \[0, 1\], got 30"):
        quality_at(one, one, one, 30)
