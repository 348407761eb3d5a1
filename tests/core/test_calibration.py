"""Thresholds for a strong-call rate: what they promise, at ties, at the ends, with too few prompts, saved and used."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom

from prefroute import Router, load_router
from prefroute.calibration import Calibration, fewest_prompts, prompts_needed, share_interval
from prefroute.data import Battles
from prefroute.decider import Ask, Decider
from prefroute.errors import ConfigurationError, DataError, PersistenceError, RouterError, ScoreError
from prefroute.evaluation import strong_share
from prefroute.persistence import save_calibration
from prefroute.routers.baselines import PromptLengthRouter, RandomRouter
from prefroute.routers.similarity_weighted import SimilarityWeightedRouter
from prefroute.testing import FixedRouter
from prefroute.types import ModelPair

DATA = Path(os.environ.get("PREFROUTE_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the shared data are not at {DATA}; set PREFROUTE_DATA")

PROMPTS = [f"Question {number} of many" + "?" * (number % 7) for number in range(500)]


@pytest.mark.parametrize(("rank", "n", "m"), [(30, 100, 100), (1, 9, 50), (700, 1000, 333), (1, 1, 1)])
def test_the_interval_is_that_of_the_beta_binomial(rank: int, n: int, m: int) -> None:
    low, high = share_interval(rank, n, m)
    assert low * m == pytest.approx(betabinom.ppf(0.025, m, rank, n + 1 - rank))
    expected = betabinom.ppf(0.975, m, rank + 1, n - rank) if rank < n else m
    assert high * m == pytest.approx(expected)


def test_the_ends_are_certain_on_one_side() -> None:
    assert share_interval(0, 50, 50)[0] == 0.0
    assert share_interval(50, 50, 50)[1] == 1.0
    assert share_interval(0, 50, 50)[1] == pytest.approx(betabinom.ppf(0.975, 50, 1, 50) / 50)


@pytest.mark.parametrize(("n", "m", "rate", "decimals"), [(50, 50, 0.3, 9), (300, 1000, 0.1, 9), (300, 300, 0.5, 1)])
def test_the_rate_lands_within_its_interval_as_often_as_promised(n: int, m: int, rate: float, decimals: int) -> None:
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        sample, traffic = (np.round(generator.beta(2, 3, size), decimals) for size in (n, m))
        found = Calibration(sample).threshold_for(rate, next_prompts=m)
        inside += found.low <= strong_share(traffic, found.threshold) <= found.high
    # With ties the promise is near, not exact: see the module.
    assert inside >= 940 - (10 if decimals == 1 else 0)


@needs_data
def test_half_of_mmlu_calibrates_the_other() -> None:
    from prefroute.evaluation.benchmarks import read_mmlu

    prompts = read_mmlu(DATA / "routellm/mmlu").prompts
    scores = PromptLengthRouter().win_probability(prompts)  # with many ties
    router_scores = load_router().win_probability(prompts)
    for known in (scores, router_scores):
        inside = 0
        for seed in range(100):
            order = np.random.default_rng(seed).permutation(len(known))
            sample, traffic = known[order[::2]], known[order[1::2]]
            found = Calibration(sample).threshold_for(0.3, next_prompts=len(traffic))
            inside += found.low <= strong_share(traffic, found.threshold) <= found.high
        assert inside >= 90


@given(st.lists(st.integers(0, 12), min_size=1, max_size=60), st.integers(0, 100))
def test_the_threshold_does_what_it_says_to_its_own_sample(values: list[int], percent: int) -> None:
    scores, rate = np.array(values) / 12, percent / 100
    calibration = Calibration(scores)
    if len(scores) < fewest_prompts(rate):
        with pytest.raises(DataError, match=f"give {fewest_prompts(rate)} or more"):
            calibration.threshold_for(rate)
        return
    found = calibration.threshold_for(rate)
    assert strong_share(scores, found.threshold) == found.sample_rate
    assert found.low <= found.strong_rate <= found.high
    # No other threshold comes nearer to the wanted rank.
    ranks = {round(strong_share(scores, value) * len(scores)) for value in [*scores, 2.0]}
    wanted = rate * (len(scores) + 1)
    if rate not in {0.0, 1.0}:
        best = min(abs(rank - wanted) for rank in ranks)
        assert abs(found.sample_rate * len(scores) - wanted) == pytest.approx(best)


def test_ties_go_to_the_nearer_side_and_then_to_the_weak_one() -> None:
    def rank(scores: list[float], rate: float) -> float:
        found = Calibration(np.array(scores)).threshold_for(rate)
        return found.sample_rate * len(scores)

    tied = [0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.1]
    assert rank(tied, 0.3) == 1  # of 1 and 8 the nearer to 3
    assert rank(tied, 0.6) == 8
    assert rank([0.9, 0.5, 0.5, 0.1, 0.1], 1 / 3) == 1  # 1 and 3 are as near to 2: fewer strong calls
    everything = Calibration(np.full(40, 0.5)).threshold_for(0.3)
    assert (everything.sample_rate, everything.tied) == (0.0, 40)
    assert everything.high < 0.15


def test_zero_and_one_are_exact_and_hold_for_any_score() -> None:
    calibration = Calibration(np.array([0.0, 0.5, 1.0]))
    never, always = calibration.threshold_for(0), calibration.threshold_for(1)
    assert (never.strong_rate, never.low, never.high, never.threshold > 1) == (0.0, 0.0, 0.0, True)
    assert (always.strong_rate, always.low, always.high, always.threshold) == (1.0, 1.0, 1.0, 0.0)


def test_the_threshold_lies_between_scores_so_that_rounding_crosses_nothing() -> None:
    found = Calibration(np.array([0.2, 0.4, 0.6, 0.8])).threshold_for(0.4)
    assert found.threshold == pytest.approx(0.5)
    near = np.array([0.5, np.nextafter(0.5, 1)])
    assert strong_share(near, Calibration(near).at_rank(1).threshold) == 0.5


@pytest.mark.parametrize("rate", [30, -0.1, np.nan, "0.3", None, True])
def test_a_rate_is_a_share(rate: object) -> None:
    with pytest.raises(ConfigurationError, match="strong_rate must be a share of strong calls"):
        Calibration(np.array([0.5, 0.6])).threshold_for(rate)  # type: ignore[arg-type]


def test_percent_are_taken_for_what_they_are() -> None:
    with pytest.raises(ConfigurationError, match=r"for 30 % pass 0\.3"):
        RandomRouter().calibrate(PROMPTS, 30)


@pytest.mark.parametrize("scores", [[], [[0.5]], [np.nan], [1.5], [-0.1]])
def test_what_is_no_sample_of_scores_is_refused(scores: list[float]) -> None:
    with pytest.raises(DataError, match=r"one score in \[0, 1\]"):
        Calibration(np.array(scores))


def test_too_few_prompts_say_how_many_are_needed() -> None:
    with pytest.raises(DataError, match=r"20 prompts cannot tell a strong-call rate of 0\.01 from 0; give 99 or more"):
        RandomRouter().calibrate(PROMPTS[:20], 0.01)
    for rate in (0.1, 0.3, 0.5):
        widths = []
        for n in (prompts_needed(rate), round(prompts_needed(rate) / 1.2)):
            low, high = share_interval(round(rate * (n + 1)), n, n)
            widths.append(max(high - rate, rate - low))
        assert widths[0] <= 0.05 < widths[1]
    with pytest.raises(ConfigurationError, match="next_prompts must be"):
        Calibration(np.array([0.1, 0.9])).threshold_for(0.5, next_prompts=0)


def test_a_router_that_fails_is_not_calibrated() -> None:
    class Broken(Router):
        def win_probability(self, prompts: object) -> np.ndarray:
            raise OSError("away")

    class Wrong(Router):
        def win_probability(self, prompts: list[str]) -> np.ndarray:
            return np.full(len(prompts), 1.5)

    router = Broken()
    with pytest.raises(RouterError, match=r"router 'Broken' at prompts 0 to 499 failed: OSError$"):
        router.calibrate(PROMPTS, 0.3)
    assert router.calibration is None
    assert router.threshold is None
    with pytest.raises(ScoreError, match=r"gave 1\.5, wanted a probability"):
        Wrong().calibrate(PROMPTS, 0.3)
    with pytest.raises(DataError, match="there are no prompts to calibrate with"):
        RandomRouter().calibrate([], 0.3)


def test_a_calibrated_router_is_asked_for_any_rate_and_saved_with_it(tmp_path: Path) -> None:
    router = RandomRouter()
    with pytest.raises(ConfigurationError, match="needs a calibrated router"):
        router.threshold_for(0.3)
    found = router.calibrate(PROMPTS, 0.3)
    assert router.threshold == found.threshold
    router.save_pretrained(tmp_path)
    loaded = load_router(tmp_path)
    assert loaded.threshold == router.threshold
    assert loaded.calibration is not None
    assert (loaded.calibration.scores == np.sort(router.win_probability(PROMPTS))).all()
    for rate in (0.0, 0.1, 0.9, 1.0):
        assert loaded.threshold_for(rate) == router.threshold_for(rate)


def test_only_the_calibration_is_written_where_a_router_lies(tmp_path: Path) -> None:
    router = PromptLengthRouter(slope=2.0)
    router.save_pretrained(tmp_path)
    loaded = load_router(tmp_path)
    loaded.calibrate(PROMPTS, 0.3)
    save_calibration(loaded, tmp_path)
    loaded.calibrate(PROMPTS[:400], 0.5)
    save_calibration(loaded, tmp_path)
    assert sorted(path.name.partition("-")[0] for path in tmp_path.iterdir()) == ["calibration", "config.json"]
    again = load_router(tmp_path)
    assert isinstance(again, PromptLengthRouter)
    assert again.slope == 2.0
    assert again.calibration is not None
    assert len(again.calibration) == 400
    assert again.threshold == loaded.threshold
    # And a whole save leaves no calibration of before.
    again.calibration = None
    again.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_kill_between_two_writes_leaves_the_router_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    router = RandomRouter()
    router.calibrate(PROMPTS, 0.3)
    router.save_pretrained(tmp_path)
    before = router.threshold
    router.calibrate(PROMPTS[:100], 0.6)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prefroute.persistence.write_config", die)
    with pytest.raises(KeyboardInterrupt):
        save_calibration(router, tmp_path)
    loaded = load_router(tmp_path)
    assert loaded.threshold == before
    assert loaded.calibration is not None
    assert len(loaded.calibration) == 500


def test_a_damaged_calibration_is_refused(tmp_path: Path) -> None:
    router = RandomRouter()
    router.calibrate(PROMPTS, 0.3)
    router.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("calibration-*.safetensors")
    file.write_bytes(b"rest")
    with pytest.raises(PersistenceError, match="is not the file that was saved"):
        load_router(tmp_path)
    with pytest.raises(PersistenceError, match="holds no saved router"):
        save_calibration(router, tmp_path / "elsewhere")


def test_a_calibration_of_no_probabilities_is_refused(tmp_path: Path) -> None:
    from prefroute.persistence import digest_of, write_tensors

    router = RandomRouter()
    router.calibrate(PROMPTS, 0.3)
    router.save_pretrained(tmp_path)
    (file,) = tmp_path.glob("calibration-*.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    wrong = {r"one score in \[0, 1\]": np.array([2.0]), "holds no scores": np.array([1], dtype=np.int64)}
    for words, scores in wrong.items():
        write_tensors(file, {"scores": scores})
        config["files"][file.name] = digest_of(file)
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(PersistenceError, match=words):
            load_router(tmp_path)


def test_a_decider_takes_a_rate_in_place_of_a_threshold() -> None:
    router = RandomRouter()
    router.calibrate(PROMPTS, 0.3)
    decider = Decider.of(router, strong_rate=0.8)
    assert decider.threshold == router.threshold_for(0.8)
    decisions = decider.decide_batch([Ask(text=text) for text in PROMPTS])
    assert sum(decision.is_strong for decision in decisions) == round(0.8 * 501)
    with pytest.raises(ConfigurationError, match="threshold= or strong_rate=, not both"):
        Decider.of(router, threshold=0.5, strong_rate=0.8)
    with pytest.raises(ConfigurationError, match="needs a calibrated router"):
        Decider.of(FixedRouter(), strong_rate=0.8)
    with pytest.raises(ConfigurationError, match=r"for 80 % pass 0\.8"):
        Decider.of(router, strong_rate=80)


def test_ranks_and_rates_that_cannot_be_are_refused() -> None:
    calibration = Calibration(np.array([0.2, 0.5, 0.5, 0.9]))
    for rank in (-1, 5, 1.0, True):
        with pytest.raises(ConfigurationError, match="rank must be a number of prompts from 0 to 4"):
            calibration.at_rank(rank)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"rank 2 would cut scores that are equal \(0\.5\)"):
        calibration.at_rank(2)
    for rate in (1e-320, 1e-300, 1 - 1e-16):
        with pytest.raises(ConfigurationError, match="must be at least 1e-07 from both"):
            calibration.threshold_for(rate)
    with pytest.raises(ConfigurationError, match="within must be a distance above 0"):
        prompts_needed(0.3, 0.0)


def test_battles_that_are_added_end_a_calibration(golden: Battles, caplog: pytest.LogCaptureFixture) -> None:
    router = SimilarityWeightedRouter.fit(golden, pair=ModelPair("big", "small"))
    router.calibrate(PROMPTS[:50], 0.3)
    threshold = router.threshold
    router.add(golden.map_prompts(lambda text: text + " Again."))
    assert router.calibration is None
    assert router.threshold == threshold
    assert "calibrate again" in caplog.text
