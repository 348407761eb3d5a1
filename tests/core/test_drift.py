"""Drift: no alarm without a change however often one looks, one with a change, and the figures of the report."""

import copy
import pickle

import numpy as np
import pytest

from prefroute import RoutingStats
from prefroute.calibration import Calibration
from prefroute.conversation import Settled
from prefroute.decider import Ask, Decider
from prefroute.drift import DriftMonitor
from prefroute.errors import ConfigurationError, ThresholdError
from prefroute.routers.baselines import RandomRouter
from prefroute.testing import FixedRouter


def monitor(generator: np.random.Generator, n: int = 300, rate: float = 0.3) -> DriftMonitor:
    calibration = Calibration(generator.beta(2, 3, n))
    return DriftMonitor(calibration, calibration.threshold_for(rate).threshold)


def test_looking_after_every_tenth_prompt_raises_few_false_alarms() -> None:
    generator = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        watching = monitor(generator, n=int(generator.choice([30, 100, 500])))
        for _ in range(60):
            for score in generator.beta(2, 3, 10):
                watching.record(float(score))
            if watching.report().drifted:
                alarms += 1
                break
    assert alarms <= 10


@pytest.mark.parametrize("shape", [(3, 2), (2, 6), (20, 30)])
def test_other_traffic_is_told(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(1)
    watching = monitor(generator)
    for score in generator.beta(*shape, 400):
        watching.record(float(score))
    report = watching.report()
    assert report.drifted
    assert report.e_value > 1000


def test_a_new_spread_at_the_same_rate_is_told_and_so_is_a_new_rate_of_few_classes() -> None:
    calibration = Calibration(np.linspace(0.001, 0.999, 999))
    watching = DriftMonitor(calibration, 0.7)
    for place in range(400):
        watching.record(0.85 if place % 10 < 3 else 0.35)  # 30 % strong, as calibrated
    assert watching.report().strong_rate == 0.3
    assert watching.report().drifted
    few = DriftMonitor(Calibration(np.linspace(0.01, 0.99, 12)), 0.7)  # one class: the rate alone can tell
    for _ in range(60):
        few.record(0.9)
    assert few.report().drifted


def test_many_scores_are_reported_at_once() -> None:
    watching = monitor(np.random.default_rng(0))
    watching._counts[3] += 30_000_000
    assert watching.report().n == 30_000_000


def test_a_router_calibrated_anew_is_watched_anew() -> None:
    router = RandomRouter()
    prompts = [f"prompt {number}" for number in range(200)]
    router.calibrate(prompts, 0.3)
    stats = Decider.of(router).stats
    router.calibrate(prompts[:100], 0.6)
    assert router.calibration is not None
    assert router.threshold is not None
    stats.watch(DriftMonitor(router.calibration, router.threshold))
    router.route_batch(prompts, stats=stats)
    report = stats.drift()
    assert report is not None
    assert (report.n, round(report.calibrated_rate, 1), report.drifted) == (200, 0.6, False)
    stats.watch(None)
    assert stats.drift() is None


def test_the_report_says_what_was_seen_and_expected() -> None:
    watching = DriftMonitor(Calibration(np.arange(1, 100) / 100), 0.705)
    assert watching.report().as_dict() == {
        "n": 0,
        "strong_rate": None,
        "calibrated_rate": 0.29,
        "low": None,
        "high": None,
        "e_value": 1.0,
        "drifted": False,
    }
    for score in (0.0, 0.5, 0.705, 1.0):
        watching.record(score)
    report = watching.report()
    assert (report.n, report.strong_rate) == (4, 0.5)
    assert report.low is not None
    assert report.high is not None
    assert report.low <= 0.29 <= report.high
    watching.reset()
    assert watching.report().n == 0


@pytest.mark.parametrize("scores", [[0.5], [0.5] * 100, [0.0, 1.0] * 50])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 2.0])
def test_any_sample_and_threshold_can_be_watched(scores: list[float], threshold: float) -> None:
    watching = DriftMonitor(Calibration(np.array(scores)), threshold)
    for score in scores * 3:
        watching.record(score)
    assert not watching.report().drifted


def test_adapters_watch_a_calibrated_router_by_themselves() -> None:
    router = RandomRouter()
    prompts = [f"prompt {number}" for number in range(200)]
    router.calibrate(prompts, 0.3)
    decider = Decider.of(router)
    assert decider.stats.drift() is not None
    decider.decide_batch([Ask(text=text) for text in prompts])
    report = decider.stats.drift()
    assert report is not None
    assert (report.n, report.strong_rate, report.drifted) == (200, 0.3, False)
    assert Decider.of(FixedRouter()).stats.drift() is None
    # What the router was not asked, or could not score, is no traffic of its own.
    decider.decide(Ask(settled=Settled("weak", "capability")))
    assert decider.stats.drift() == report
    for twin in (copy.copy(decider.stats), pickle.loads(pickle.dumps(decider.stats))):
        assert twin.drift() == report
        twin.reset()
        assert twin.drift().n == 0
    assert decider.stats.drift() == report


def test_what_cannot_be_watched_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="needs a Calibration, got NoneType"):
        DriftMonitor(None, 0.5)  # type: ignore[arg-type]
    with pytest.raises(ThresholdError):
        DriftMonitor(Calibration(np.array([0.5])), float("nan"))
    assert RoutingStats().drift() is None
