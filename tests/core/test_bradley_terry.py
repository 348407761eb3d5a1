"""Bradley-Terry against choix and scikit-learn, its limits, and tiers against all partitions there are."""

from itertools import combinations
from typing import Any

import choix
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from prefroute.bradley_terry import Criterion, elo_ratings, fit_bradley_terry, optimal_tiers, win_matrix
from prefroute.errors import ConfigurationError, ConvergenceError

BASEBALL = np.array(
    # Seven baseball teams, wins of the row over the column (Agresti, Categorical Data Analysis, table 10.10).
    [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ],
    dtype=np.float64,
)


def pairs(wins: NDArray[np.float64]) -> list[tuple[int, int]]:
    return [(i, j) for i, j in np.argwhere(wins) for _ in range(int(wins[i, j]))]


def test_agresti_s_baseball_strengths() -> None:
    """His fit, in the order of the rows, with the last at 0."""
    strengths = fit_bradley_terry(BASEBALL, ridge=0.0)
    np.testing.assert_allclose(strengths - strengths[-1], [1.581, 1.436, 1.294, 1.248, 1.108, 0.684, 0], atol=1.5e-3)


@pytest.mark.parametrize("seed", range(3))
def test_choix_finds_the_same_strengths(seed: int) -> None:
    random = np.random.default_rng(seed)
    wins = random.integers(1, 9, (6, 6)).astype(np.float64)
    np.fill_diagonal(wins, 0)
    expected = choix.ilsr_pairwise(6, pairs(wins), alpha=0.0, tol=1e-12)
    np.testing.assert_allclose(fit_bradley_terry(wins, ridge=0.0), expected - expected.mean(), atol=1e-8)
    # choix adds alpha times the sum of squares, here it is half the ridge.
    expected = choix.opt_pairwise(6, pairs(wins), alpha=0.5, tol=1e-10)
    np.testing.assert_allclose(fit_bradley_terry(wins, ridge=1.0), expected, atol=1e-6)


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_scikit_learn_finds_the_same_strengths_from_weighted_rows_with_ties(ridge: float) -> None:
    random = np.random.default_rng(7)
    a, b = random.integers(0, 5, (2, 300))
    a, b = a[a != b], b[a != b]
    outcomes, weights = random.choice([0.0, 0.3, 0.5, 1.0], len(a)), random.uniform(0.1, 5, len(a))
    design = np.zeros((len(a), 5))
    design[np.arange(len(a)), a], design[np.arange(len(a)), b] = 1, -1
    regression = LogisticRegression(C=1 / ridge, fit_intercept=False, tol=1e-10, max_iter=1000, solver="newton-cg")
    regression.fit(
        np.concatenate([design, design]),
        np.repeat([1, 0], len(a)),
        sample_weight=np.concatenate([weights * outcomes, weights * (1 - outcomes)]) + 1e-300,
    )
    strengths = fit_bradley_terry(win_matrix(a, b, outcomes, weights, size=5), ridge=ridge)
    np.testing.assert_allclose(strengths, regression.coef_[0], atol=1e-6)


def test_two_models_have_the_odds_of_their_wins() -> None:
    strengths = fit_bradley_terry([[0, 30], [10, 0]], ridge=0.0)
    assert strengths[0] - strengths[1] == pytest.approx(np.log(3))
    assert np.diff(elo_ratings(strengths, anchor=1200)) == pytest.approx(-400 * np.log10(3))
    assert elo_ratings(strengths, anchor=1200).mean() == pytest.approx(1200)


WINS = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=1, max_dims=1, min_side=2, max_side=6), elements=st.just(0.0)
).flatmap(lambda row: hnp.arrays(np.float64, (3, len(row), len(row)), elements=st.floats(0, 1e6, width=32)))


@given(WINS)
@settings(max_examples=60, deadline=None)
def test_any_wins_give_a_maximum_of_mean_0_and_a_batch_is_its_parts(wins: NDArray[np.float64]) -> None:
    ridge = 1e-3
    strengths = fit_bradley_terry(wins, ridge=ridge)
    for matrix, found in zip(wins, strengths, strict=True):
        np.testing.assert_allclose(fit_bradley_terry(matrix, ridge=ridge), found, atol=1e-7)
        assert abs(found.mean()) < 1e-9
        losing = 1 / (1 + np.exp(found[:, None] - found))
        missed = matrix * losing
        np.fill_diagonal(missed, 0)
        gradient = (missed - missed.T).sum(axis=1) - ridge * found
        # Rounding leaves of the sums what it must, and no more.
        assert np.abs(gradient).max() <= 1e-9 * (1 + missed.sum())


def test_a_good_start_ends_where_a_bad_one_does() -> None:
    expected = fit_bradley_terry(BASEBALL)
    for start in (expected, np.array([9, -9, 9, -9, 9, -9, 9]), np.full(7, 1e3)):
        np.testing.assert_allclose(fit_bradley_terry(BASEBALL, start=start), expected, atol=1e-9)


def test_one_sided_wins_need_the_ridge() -> None:
    wins = [[0, 1e5], [0, 0]]
    strengths = fit_bradley_terry(wins, ridge=1e-6)
    assert 15 < strengths[0] - strengths[1] < 50
    with pytest.raises(ConvergenceError, match=r"140 steps.*ridge 0.*need a ridge"):
        fit_bradley_terry(wins, ridge=0.0)


def test_groups_that_never_met_have_the_mean_0_each() -> None:
    wins = np.zeros((4, 4))
    wins[0, 1], wins[1, 0], wins[2, 3], wins[3, 2] = 9, 3, 2, 1
    strengths = fit_bradley_terry(wins, ridge=1e-6)
    np.testing.assert_allclose(strengths, np.array([np.log(3), -np.log(3), np.log(2), -np.log(2)]) / 2, atol=1e-5)
    np.testing.assert_array_equal(fit_bradley_terry(np.zeros((2, 3, 3))), np.zeros((2, 3)))


def test_no_convergence_is_an_error() -> None:
    with pytest.raises(ConvergenceError, match=r"2 steps"):
        fit_bradley_terry(BASEBALL, max_steps=2)


def test_the_diagonal_and_the_caller_s_array_do_not_matter() -> None:
    wins = BASEBALL.copy()
    np.fill_diagonal(wins, 1e9)
    before = wins.copy()
    np.testing.assert_array_equal(fit_bradley_terry(wins), fit_bradley_terry(BASEBALL))
    np.testing.assert_array_equal(wins, before)


@pytest.mark.parametrize(
    ("wins", "options"),
    [
        ([[0, -1], [1, 0]], {}),
        ([[0, np.nan], [1, 0]], {}),
        ([[0, 1, 2], [1, 0, 2]], {}),
        ([1, 2], {}),
        (np.zeros((0, 0)), {}),
        ("wins", {}),
        (BASEBALL, {"ridge": -1.0}),
        (BASEBALL, {"ridge": np.nan}),
        (BASEBALL, {"tolerance": 0.0}),
        (BASEBALL, {"max_steps": 0}),
    ],
)
def test_what_cannot_be_fitted_is_refused(wins: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"got|number"):
        fit_bradley_terry(wins, **options)


def test_win_matrix_sums_weights_and_splits_ties() -> None:
    a, b = np.array([0, 1, 2, 1]), np.array([1, 0, 0, 1])
    wins = win_matrix(a, b, np.array([1.0, 0.5, 0.25, 1.0]), np.array([2.0, 4.0, 4.0, 9.0]), size=3)
    np.testing.assert_array_equal(wins, [[0, 4, 3], [2, 0, 0], [1, 0, 0]])
    assert win_matrix(a[:0], b[:0], np.empty(0), None, size=2).sum() == 0
    with pytest.raises(ConfigurationError, match="0 to 1, got 0 to 2"):
        win_matrix(a, b, np.ones(4), None, size=2)
    with pytest.raises(ConfigurationError, match="equally long"):
        win_matrix(a, b, np.ones(3), None, size=3)


def cost(values: NDArray[np.float64], tiers: NDArray[np.int32], criterion: Criterion) -> float:
    groups = [values[tiers == tier] for tier in np.unique(tiers)]
    return sum(float(group.var() * (1 if criterion == "variance" else len(group))) for group in groups)


@given(st.lists(st.floats(-3000, 3000), min_size=1, max_size=8), st.data(), st.sampled_from(["variance", "squares"]))
@settings(max_examples=80, deadline=None)
def test_no_partition_is_better(ratings: list[float], data: st.DataObject, criterion: Criterion) -> None:
    values = np.array(ratings)
    num_tiers = data.draw(st.integers(1, len(values)))
    tiers = optimal_tiers(values, num_tiers, criterion=criterion)
    order = np.argsort(-values, kind="stable")
    assert (np.diff(tiers[order]) >= 0).all(), "a better model never stands in a worse tier"
    assert set(tiers.tolist()) == set(range(num_tiers)), "no tier is empty"
    best = min(
        cost(values[order], np.searchsorted(cuts, np.arange(len(values)), side="right"), criterion)
        for cuts in combinations(range(1, len(values)), num_tiers - 1)
    )
    assert cost(values, tiers, criterion) <= best * (1 + 1e-9) + 1e-6


def test_the_criteria_differ_as_documented() -> None:
    ratings = [1300, 1290, 1100, 1090, 1080, 1070, 1060, 1050, 900]
    assert optimal_tiers(ratings, 3).tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 2]
    spread = [10.0, 8.0, 6.0, 4.0, 2.0, 0.0]
    assert optimal_tiers(spread, 3).tolist() == [0, 0, 1, 1, 2, 2]
    crowd = [14.0, 10.0] + [0.0] * 30
    assert optimal_tiers(crowd, 2).tolist() == [0] + [1] * 31
    assert optimal_tiers(crowd, 2, criterion="squares").tolist() == [0, 0] + [1] * 30


@pytest.mark.parametrize("num_tiers", [0, 4, 2.0, True, "2"])
def test_a_number_of_tiers_that_cannot_be_is_refused(num_tiers: Any) -> None:
    with pytest.raises(ConfigurationError, match="from 1 to the number of models, 3"):
        optimal_tiers([3.0, 1.0, 2.0], num_tiers)


def test_ratings_that_are_no_numbers_and_unknown_criteria_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="finite"):
        optimal_tiers([1.0, np.nan], 1)
    with pytest.raises(ConfigurationError, match="variance, squares"):
        optimal_tiers([1.0, 2.0], 1, criterion="median")  # type: ignore[arg-type]
