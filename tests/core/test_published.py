"""The published 11-point figures against the formulas of the published code, written out with pandas."""

import numpy as np
import pandas as pd
import pytest

from prefroute.errors import ConfigurationError
from prefroute.evaluation import apgr, apgr_published, cpt, cpt_published, published_points


def published(scores: np.ndarray, strong: np.ndarray, weak: np.ndarray) -> pd.DataFrame:
    """What `Benchmark.evaluate` of routellm 0.2.0 yields, by the same calls."""
    _, thresholds = pd.qcut(scores, 10, retbins=True)
    rows = []
    for i, threshold in enumerate(thresholds):
        chosen = scores >= threshold if i != len(thresholds) - 1 else scores > threshold
        rows.append((chosen.mean() * 100, np.where(chosen, strong, weak).mean() * 100))
    return pd.DataFrame(rows, columns=["strong_percentage", "accuracy"]).sort_values("strong_percentage")


@pytest.mark.parametrize("seed", range(11))
def test_points_areas_and_crossings_are_the_published_ones(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n = 1301 + seed  # among them sizes whose quantiles fall on scores
    scores = generator.random(n)
    weak = (generator.random(n) < 0.6).astype(float)
    strong = (generator.random(n) < 0.5 + 0.5 * scores).astype(float)
    points = published_points(scores, strong, weak)
    frame = published(scores, strong, weak)
    assert points.shares == pytest.approx(frame.strong_percentage.to_numpy() / 100, abs=1e-9)
    assert points.quality == pytest.approx(frame.accuracy.to_numpy() / 100, abs=1e-9)
    high, low = strong.mean() * 100, weak.mean() * 100
    area = np.trapezoid(frame.accuracy, frame.strong_percentage / 100)
    assert apgr_published(points, high / 100, low / 100) == pytest.approx((area - low) / (high - low), abs=1e-9)
    for level in (0.2, 0.5, 0.8):
        crossing = np.interp(level * (high - low) + low, frame.accuracy, frame.strong_percentage) / 100
        assert cpt_published(points, high / 100, low / 100, level) == pytest.approx(crossing, abs=1e-9)


def test_it_comes_near_the_exact_figures() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random(5000)
    gains = (generator.random(5000) < 0.1 + 0.4 * scores).astype(float)
    points = published_points(scores, gains, np.zeros(5000))
    assert apgr_published(points, gains.mean(), 0.0) == pytest.approx(apgr(scores, gains), abs=0.01)
    assert cpt_published(points, gains.mean(), 0.0, 0.5) == pytest.approx(cpt(scores, gains, 0.5), abs=0.01)


def test_scores_that_are_equal_are_defined() -> None:
    strong, weak = np.array([1.0, 1.0, 0.0]), np.array([0.0, 1.0, 0.0])
    points = published_points(np.full(3, 0.5), strong, weak)
    assert (points.shares[0], points.shares[-1]) == (0.0, 1.0)
    assert apgr_published(points, strong.mean(), weak.mean()) == pytest.approx(0.5)


def test_without_a_gap_there_is_nothing_to_recover() -> None:
    points = published_points(np.arange(3.0), np.zeros(3), np.ones(3))
    assert np.isnan(apgr_published(points, 0.0, 1.0))
    assert np.isnan(cpt_published(points, 0.0, 1.0, 0.5))
    with pytest.raises(ConfigurationError, match="level must be"):
        cpt_published(points, 1.0, 0.0, 50)
