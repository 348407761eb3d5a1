"""APGR and CPT: known values, ties, counts, and the laws they obey."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefroute.errors import ConfigurationError
from prefroute.evaluation import apgr, cpt, recovery_curve

GAINS = np.array([1.0, 1.0, 0.0, 0.0])


def test_perfect_random_and_worst_routing() -> None:
    assert apgr(np.array([4.0, 3.0, 2.0, 1.0]), GAINS) == pytest.approx(0.75)
    assert apgr(np.zeros(4), GAINS) == pytest.approx(0.5)
    assert apgr(np.array([1.0, 2.0, 3.0, 4.0]), GAINS) == pytest.approx(0.25)


def test_without_a_gap_nothing_can_be_recovered() -> None:
    assert np.isnan(apgr(np.arange(4.0), -GAINS))
    assert np.isnan(cpt(np.arange(4.0), np.zeros(4), 0.5))


def test_ties_are_the_mean_over_their_orders() -> None:
    gains = np.array([1.0, 0.0, -1.0, 2.0])
    tied = apgr(np.array([2.0, 1.0, 1.0, 0.0]), gains)
    orders = [apgr(np.array([2.0, first, 1.5 - first, 0.0]), gains) for first in (1.0, 0.5)]
    assert tied == pytest.approx(np.mean(orders))


def test_counts_are_rows_repeated() -> None:
    generator = np.random.default_rng(0)
    scores, gains = generator.integers(0, 5, 40).astype(float), generator.normal(0.5, 1, 40)
    counts = generator.integers(0, 3, 40)
    repeated = np.repeat(scores, counts), np.repeat(gains, counts)
    assert apgr(scores, gains, counts) == pytest.approx(apgr(*repeated))
    assert cpt(scores, gains, 0.8, counts) == pytest.approx(cpt(*repeated, 0.8))


def test_cpt_is_read_off_the_curve() -> None:
    assert cpt(np.array([4.0, 3.0, 2.0, 1.0]), GAINS, 0.5) == pytest.approx(0.25)
    assert cpt(np.array([1.0, 2.0, 3.0, 4.0]), GAINS, 0.5) == pytest.approx(0.75)
    assert cpt(np.zeros(4), GAINS, 0.8) == pytest.approx(0.8)
    assert cpt(np.zeros(4), GAINS, 0.0) == 0.0
    # The first crossing counts, though the curve falls below the level again.
    assert cpt(np.array([3.0, 2.0, 1.0]), np.array([1.0, -1.0, 1.0]), 0.9) == pytest.approx(0.3)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(-2, 3)), min_size=1, max_size=30))
def test_the_laws(rows: list[tuple[int, int]]) -> None:
    scores, gains = np.array(rows, dtype=float).T
    curve = recovery_curve(scores, gains)
    assert (curve.shares[0], curve.shares[-1]) == (0.0, 1.0)
    if gains.sum() <= 0:
        assert np.isnan(apgr(scores, gains))
        return
    assert curve.recovered[-1] == pytest.approx(1.0)
    area = apgr(scores, gains)
    assert apgr(np.exp(scores) - 7, 3 * gains) == pytest.approx(area)  # only the order and the ratio of gains count
    assert apgr(-scores, gains) == pytest.approx(1 - area)  # the mirrored router
    assert apgr(gains, gains) >= area - 1e-9  # nobody beats the oracle
    levels = [cpt(scores, gains, level) for level in (0.1, 0.5, 0.9)]
    assert levels == sorted(levels)


@pytest.mark.parametrize(
    ("scores", "gains"), [([], []), ([1.0], [1.0, 2.0]), ([np.nan], [1.0]), ([1.0], [np.inf]), ([[1.0]], [[1.0]])]
)
def test_what_cannot_be_measured_is_refused(scores: list[float], gains: list[float]) -> None:
    with pytest.raises(ConfigurationError, match="scores and gains must be"):
        apgr(np.array(scores), np.array(gains))
    with pytest.raises(ConfigurationError, match=r"level must be in \[0, 1\], got 50"):
        cpt(np.array([1.0]), np.array([1.0]), 50)
