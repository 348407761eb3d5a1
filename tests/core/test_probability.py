"""Probability calibration: better numbers, the same ranking and decisions; the router that serves it."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefroute import load_router
from prefroute.data import Battles
from prefroute.errors import ConfigurationError, DataError, MissingExtraError, PersistenceError
from prefroute.evaluation import expected_calibration_error
from prefroute.persistence import CONFIG_FILE
from prefroute.probability import ProbabilityCalibration, fit_probabilities
from prefroute.routers.baselines import PromptLengthRouter, RandomRouter
from prefroute.routers.calibrated import CalibratedRouter
from prefroute.routers.similarity_weighted import SimilarityWeightedRouter
from prefroute.testing import FixedRouter
from prefroute.types import ModelPair

PROMPTS = ["x" * length for length in range(1, 401)]


def sample(seed: int, n: int = 2000, *, bend: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scores that say too much: the odds are those of half their logit, or bent as no logistic curve is."""
    generator = np.random.default_rng(seed)
    scores = generator.beta(0.7, 0.7, n)
    true = np.where(scores < 0.5, 0.1, 0.8) if bend else 1 / (1 + (1 / scores - 1) ** 0.5)
    return scores, (generator.random(n) < true).astype(float)


@pytest.mark.parametrize(("bend", "method"), [(False, "platt"), (True, "isotonic")])
def test_the_better_map_is_chosen_and_mends_the_error(bend: bool, method: str) -> None:
    fitted = fit_probabilities(*sample(0, bend=bend))
    assert fitted.calibration.method == method
    assert fitted.ece_before > 0.1
    assert fitted.ece_after < 0.05
    fresh, outcomes = sample(1, bend=bend)
    assert expected_calibration_error(fitted.calibration(fresh), outcomes) < 0.06
    assert set(fitted.as_dict()) == {"method", "n", "ece_before", "ece_after", "log_losses"}


def test_good_probabilities_are_left_alone() -> None:
    generator = np.random.default_rng(0)
    scores = generator.random(300)
    fitted = fit_probabilities(scores, (generator.random(300) < scores).astype(float))
    assert fitted.log_losses["none"] - min(fitted.log_losses.values()) < 0.01
    outcomes = np.full(300, 0.5)
    assert fit_probabilities(np.full(300, 0.5), outcomes).calibration.method == "none"


MAPS = [
    ProbabilityCalibration(method="none"),
    ProbabilityCalibration(method="platt", slope=1e-6, intercept=-3.0),
    ProbabilityCalibration(method="platt", slope=40.0, intercept=1.0),
    ProbabilityCalibration(method="isotonic", x=np.array([0.2, 0.6]), y=np.array([0.4, 0.4])),
]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.sampled_from(MAPS))
def test_no_ranking_changes(scores: list[float], mapping: ProbabilityCalibration) -> None:
    given_scores = np.array(scores)
    mapped = mapping(given_scores)
    assert ((mapped >= 0) & (mapped <= 1)).all()
    order = np.argsort(given_scores, kind="stable")
    assert (np.diff(mapped[order]) >= 0).all()
    apart = np.diff(given_scores[order]) > 1e-9
    assert (np.diff(mapped[order])[apart] > 0).all()


def test_ties_count_half_and_one_sided_outcomes_stay_finite() -> None:
    scores = np.linspace(0.6, 0.9, 400)
    half = fit_probabilities(scores, np.full(400, 0.5))
    assert half.calibration(scores) == pytest.approx(np.full(400, 0.5), abs=0.01)
    won = fit_probabilities(scores, np.ones(400))
    assert np.isfinite(won.calibration(scores)).all()
    backwards = fit_probabilities(scores, (scores < 0.7).astype(float))
    assert (np.diff(backwards.calibration(scores)) > 0).all()  # a router that errs is not turned round


def test_rows_of_one_prompt_stay_in_one_fold() -> None:
    # Scores say nothing; a fold that held copies of its own rows would learn them by heart.
    generator = np.random.default_rng(0)
    scores, outcomes = generator.random(60), generator.integers(0, 2, 60).astype(float)
    rows = np.repeat(scores, 20), np.repeat(outcomes, 20)
    together = fit_probabilities(*rows, groups=np.repeat(np.arange(60), 20))
    apart = fit_probabilities(*rows)
    assert together.log_losses["isotonic"] > np.log(2) > apart.log_losses["isotonic"]
    with pytest.raises(DataError, match="20 labelled prompts are too few"):
        fit_probabilities(np.repeat(scores[:20], 9), np.repeat(outcomes[:20], 9), groups=np.repeat(np.arange(20), 9))


@pytest.mark.parametrize("mapping", MAPS)
def test_the_inverse_leads_back(mapping: ProbabilityCalibration) -> None:
    scores = np.linspace(0, 1, 101)
    assert mapping.inverse(mapping(scores)) == pytest.approx(scores, abs=1e-9)


def test_a_map_over_a_map_keeps_the_decisions_of_the_first() -> None:
    router = fitted_router()
    router.calibrate(PROMPTS, 0.1)  # since then
    router.on_error, router.time_limit = "weak", 3.0
    again, _ = CalibratedRouter.fit(router, PROMPTS, np.tile([0.0, 1.0, 1.0, 1.0], 100))
    routes = [[decision.route for decision in each.route_batch(PROMPTS)] for each in (router, again)]
    assert routes[0] == routes[1]
    assert routes[0].count("strong") == 40
    assert (again.on_error, again.time_limit) == ("weak", 3.0)
    assert [again.threshold_for(rate) >= 0 for rate in (0.1, 0.5)] == [True, True]
    assert again.calibration is not None
    assert len(again.calibration) == 400


def test_more_battles_for_the_router_within_end_the_calibration(golden: Battles) -> None:
    inner = SimilarityWeightedRouter.fit(golden, pair=ModelPair("big", "small"))
    router = CalibratedRouter(router=inner, probabilities=MAPS[2])
    router.calibrate(PROMPTS[:50], 0.3)
    assert router.calibration is not None
    inner.add(golden.map_prompts(lambda text: text + " Again."))
    assert router.calibration is None
    with pytest.raises(ConfigurationError, match="needs a calibrated router"):
        router.threshold_for(0.3)


def test_nonsense_of_the_router_within_is_no_score() -> None:
    made = CalibratedRouter(router=FixedRouter(1.7), probabilities=MAPS[3])
    assert np.isnan(made.win_probability(["x"])).all()
    assert made.route("x").reason == "router_error"


@pytest.mark.parametrize(
    ("scores", "outcomes"), [([0.5], [0.5, 1.0]), ([1.5] * 60, [1.0] * 60), ([0.5] * 60, [2.0] * 60)]
)
def test_what_is_no_probability_is_refused(scores: list[float], outcomes: list[float]) -> None:
    with pytest.raises(DataError, match=r"one number in \[0, 1\] a prompt"):
        fit_probabilities(np.array(scores), np.array(outcomes))


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "isotonic", "x": np.array([0.5, 0.5]), "y": np.array([0.1, 0.2])},
        {"method": "isotonic", "x": np.array([0.1, 0.5]), "y": np.array([0.3, 0.2])},
        {"method": "isotonic", "x": np.array([0.1, 0.5]), "y": np.array([0.3, 1.2])},
        {"method": "isotonic", "x": np.array([]), "y": np.array([])},
        {"method": "platt", "slope": -1.0},
        {"method": "platt", "slope": float("inf")},
        {"method": "platt", "intercept": float("nan")},
        {"method": "other"},
    ],
)
def test_a_map_that_falls_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="map"):
        ProbabilityCalibration(**fields)  # type: ignore[arg-type]


def fitted_router() -> CalibratedRouter:
    inner = PromptLengthRouter(slope=3.0)
    inner.calibrate(PROMPTS, 0.3)
    outcomes = (np.random.default_rng(0).random(len(PROMPTS)) < np.linspace(0.2, 0.8, len(PROMPTS))).astype(float)
    router, _ = CalibratedRouter.fit(inner, PROMPTS, outcomes)
    return router


def test_the_router_decides_as_the_one_within(tmp_path: Path) -> None:
    router = fitted_router()
    inner = router.router
    before, after = inner.route_batch(PROMPTS), router.route_batch(PROMPTS)
    assert [decision.route for decision in before] == [decision.route for decision in after]
    assert [decision.score for decision in before] != [decision.score for decision in after]
    assert router.calibration is not None
    assert router.threshold_for(0.5) != inner.threshold_for(0.5)
    assert (router.win_probability(PROMPTS) == asyncio.run(router.awin_probability(PROMPTS))).all()
    router.save_pretrained(tmp_path)
    loaded = load_router(tmp_path)
    assert isinstance(loaded, CalibratedRouter)
    assert (loaded.win_probability(PROMPTS) == router.win_probability(PROMPTS)).all()
    assert (loaded.threshold, loaded.threshold_for(0.5)) == (router.threshold, router.threshold_for(0.5))
    again, _ = CalibratedRouter.fit(loaded, PROMPTS, np.tile([0.0, 1.0], 200))
    assert isinstance(again.router, PromptLengthRouter)  # not a map of a map


def test_a_threshold_beyond_every_score_stays_beyond() -> None:
    made = CalibratedRouter(router=FixedRouter(threshold=2.0), probabilities=MAPS[2])
    assert made.threshold == 2.0
    assert not hasattr(made, "device")
    assert CalibratedRouter(router=FixedRouter(threshold=None), probabilities=MAPS[1]).threshold is None


def test_other_parts_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a Router with a ProbabilityCalibration, got str and str"):
        CalibratedRouter(router="x", probabilities="y")  # type: ignore[arg-type]
    fitted_router().save_pretrained(tmp_path)
    config = tmp_path / CONFIG_FILE
    config.write_text(config.read_text().replace('"method": ', '"method": "none", "was": '))
    with pytest.raises(PersistenceError):
        load_router(tmp_path)
    other = tmp_path / "other"
    CalibratedRouter(router=RandomRouter(), probabilities=MAPS[1]).save_pretrained(other)
    with pytest.raises(ConfigurationError, match="uses no embedder"):
        load_router(other, embedder="static")


def test_a_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.linear_model", None)
    with pytest.raises(MissingExtraError, match=r"prefroute\[eval\]"):
        fit_probabilities(*sample(0, 100))
