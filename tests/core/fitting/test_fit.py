"""From judged prompts to one calibrated router, and what is honestly said of it."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prefroute import load_router, training
from prefroute.bradley_terry import sigmoid
from prefroute.data import prompt_hashes
from prefroute.errors import ConfigurationError, DataError, MissingExtraError
from prefroute.evaluation import apgr
from prefroute.evaluation.benchmarks import Benchmark
from prefroute.fitting import FittedRouter, Settling, fit_router, prompts_to_settle
from prefroute.fitting import fit as module
from prefroute.fitting.candidates import Candidate
from prefroute.fitting.card import card_of, verdict, what_would_settle
from prefroute.fitting.cross_fitting import Labels, choose, held_out_logits
from prefroute.routers.baselines import PromptLengthRouter, RandomRouter
from prefroute.routers.calibrated import CalibratedRouter
from prefroute.routers.knn import KNNRouter
from prefroute.routers.logistic_regression import LogisticRegressionRouter
from prefroute.training import BertConfig
from prefroute.types import ModelPair

Toy = Callable[..., Benchmark]

PAIR = ModelPair("big", "small")
LENGTH: dict[str, Any] = {"kinds": ("prompt-length",), "curve": False, "resamples": 100}


def kinds_of(table: Benchmark) -> NDArray[np.float64]:
    """What a router would say that knew the two kinds of prompts and no more."""
    return np.array([float(text.startswith("Derive")) for text in table.prompts])


@pytest.fixture(scope="module")
def fitted(toy: Toy) -> FittedRouter:
    return fit_router(toy(), kinds=("prompt-length", "knn"), folds=5, resamples=300)


def test_what_tells_the_prompts_apart_is_found_and_told(fitted: FittedRouter, toy: Toy) -> None:
    assert fitted.chosen == "knn, static+surface"
    assert (fitted.name, fitted.folds, fitted.seed, fitted.left_out) == ("knn", 5, 0, {})
    assert fitted.figures.better_than_random == "yes"
    assert fitted.beats_random
    assert verdict(fitted) == "better than random; better than prompt length alone"
    assert (fitted.settling, what_would_settle(fitted)) == (None, [])
    assert fitted.figures.apgr == pytest.approx(apgr(kinds_of(toy()), toy().gains), abs=0.03)
    assert fitted.figures.apgr_low < fitted.figures.apgr < fitted.figures.apgr_high


def test_candidates_are_compared_on_their_held_out_loss(fitted: FittedRouter) -> None:
    length, knn = fitted.tried
    assert (length.name, knn.name) == ("prompt-length", "knn, static+surface")
    assert (knn.behind, knn.error) == (0.0, 0.0)
    assert length.behind == pytest.approx(length.loss - knn.loss)
    assert length.behind > length.error > 0
    assert 0.5 < length.apgr < knn.apgr
    assert [point.prompts for point in fitted.curve] == [20, 40, 80, 160]
    assert fitted.curve[-1].apgr == knn.apgr


def test_baselines_stand_beside_it_cross_fitted_too(fitted: FittedRouter) -> None:
    results = fitted.evaluation.results
    assert list(results) == ["knn", "random", "prompt-length", "oracle"]
    assert [name for name, result in results.items() if not result.is_baseline] == ["knn"]
    assert {result.n_overlap for result in results.values()} == {0}
    assert results["prompt-length"].figures is not None
    assert results["prompt-length"].figures.apgr == fitted.tried[0].apgr
    compared = fitted.evaluation.comparison("knn", "prompt-length")
    assert compared is not None


def test_what_is_measured_is_fitting_and_choosing_together(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    coins = [
        Candidate(kind=f"coin {seed}", embedding=None, learn=lambda *_, seed=seed: RandomRouter(seed=seed))
        for seed in range(40)
    ]
    monkeypatch.setattr(module, "candidates_of", lambda *_, **__: coins)
    table = toy(100)
    found = fit_router(table, folds=6, resamples=20, curve=False)
    labels = Labels.of(table, 6, 0)
    choice = choose([held_out_logits(coin, labels) for coin in coins], labels)
    # Not the scores of the one that happened to be the best.
    assert (choice.measured != choice.logits).any()
    scores = found.evaluation.results[found.name].scores
    assert (scores == found.probabilities.calibration(sigmoid(choice.measured))).all()
    assert (found.scores == found.probabilities.calibration(sigmoid(choice.logits))).all()


def test_new_prompts_go_where_their_kind_belongs_about_as_often_as_wanted(fitted: FittedRouter, toy: Toy) -> None:
    new = toy(400, seed=9)
    scores = fitted.router.win_probability(new.prompts)
    assert apgr(scores, new.gains) == pytest.approx(apgr(kinds_of(new), new.gains), abs=0.03)
    threshold = fitted.threshold
    assert fitted.router.threshold == threshold.threshold
    assert threshold.strong_rate == pytest.approx(0.5, abs=0.01)
    assert threshold.low <= np.mean([one.is_strong for one in fitted.router.route_batch(new.prompts)]) <= threshold.high
    calibration = fitted.router.calibration
    assert calibration is not None
    for rate in (0.25, 0.75):
        other = calibration.threshold_for(rate)
        assert np.mean(scores >= other.threshold) == pytest.approx(rate, abs=0.15)


def test_the_router_carries_what_is_known_of_it(fitted: FittedRouter, toy: Toy) -> None:
    table, router, figures = toy(), fitted.router, fitted.figures
    assert router.training_prompts is not None
    assert (np.sort(router.training_prompts) == np.sort(prompt_hashes(table.prompts))).all()
    length = fitted.evaluation.results["prompt-length"].figures
    assert length is not None
    assert router.validation is not None
    assert router.validation.prompts == 200
    assert (router.validation.apgr, router.validation.low) == (figures.apgr, figures.apgr_low)
    assert (router.validation.high, router.validation.length_apgr) == (figures.apgr_high, length.apgr)
    assert router.calibration is not None
    assert (router.calibration.scores == np.sort(fitted.scores)).all()
    # A router knows the labels that it learnt: held-out scores must not be its own of the same prompts.
    assert (fitted.scores != router.win_probability(table.prompts)).mean() > 0.9


def test_it_is_the_same_when_saved(fitted: FittedRouter, toy: Toy, tmp_path: Path) -> None:
    fitted.router.save_pretrained(tmp_path)
    loaded = load_router(tmp_path)
    for table in (toy(), toy(30, seed=9)):
        wanted = fitted.router.win_probability(table.prompts)
        assert loaded.win_probability(table.prompts) == pytest.approx(wanted, abs=1e-12)
    assert loaded.threshold == fitted.router.threshold
    assert loaded.validation == fitted.router.validation
    assert loaded.calibration is not None
    assert (loaded.calibration.scores == np.sort(fitted.scores)).all()
    assert loaded.training_prompts is not None
    assert len(loaded.training_prompts) == 200


def test_another_threshold_is_the_routers_too(toy: Toy) -> None:
    found = fit_router(toy(60), **LENGTH, strong_rate=0.2)
    assert found.threshold.strong_rate == pytest.approx(0.2, abs=0.02)
    assert found.router.calibration is not None
    other = found.router.calibration.threshold_for(0.7)
    moved = found.at(other)
    assert (moved.threshold, moved.router.threshold) == (other, other.threshold)
    assert moved.scores is found.scores


def test_the_seed_decides_to_the_last_bit(toy: Toy, tmp_path: Path) -> None:
    found = {}
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        options: dict[str, Any] = {"kinds": ("prompt-length", "knn"), "embedders": ("surface",), "folds": 3}
        made = fit_router(toy(60), **options, resamples=50, curve=False, seed=seed)
        made.router.save_pretrained(tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        saved = {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files}
        found[name] = (made.scores.tobytes(), made.evaluation.as_dict(), made.tried, saved)
    assert found["one"] == found["two"]
    assert all(mine != theirs for mine, theirs in zip(found["one"], found["other"], strict=True))


@pytest.fixture(scope="module")
def shuffled(toy: Toy) -> list[FittedRouter]:
    return [fit_router(toy(100, seed=seed, shuffled=True), **LENGTH, seed=seed) for seed in range(5)]


def test_shuffled_labels_cannot_be_told_from_random(shuffled: list[FittedRouter]) -> None:
    told = [made for made in shuffled if not made.beats_random]
    # 1 of 40 would pass by chance.
    assert len(told) >= 4
    for made in told:
        assert verdict(made) == "cannot be told from random with 100 prompts"
        assert "not shown to be any better than a coin" in card_of(made)


def test_labels_that_would_settle_it_are_named(shuffled: list[FittedRouter]) -> None:
    seen = set()
    for made in shuffled:
        figures, wanted = made.figures, made.settling
        if figures.better_than_random != "cannot tell":
            continue
        ends = (figures.apgr_low, figures.apgr_high)
        assert wanted is not None
        assert wanted.worthwhile == prompts_to_settle(100, *ends, 0.05)
        lead = figures.apgr - 0.5
        assert wanted.seen == (prompts_to_settle(100, *ends, lead) if lead > 0 else None)
        told = what_would_settle(made)
        assert len(told) == 1 + (lead > 0)
        assert f"one of APGR 0.55, about what is worth having, with about {wanted.worthwhile:,}" in told[-1]
        assert f"* {told[-1]}." in card_of(made)
        seen.add(lead > 0)
    assert seen == {True, False}


def test_few_different_prompts_are_refused(toy: Toy) -> None:
    spelt = tuple(f"{'PROMPT' if i >= 45 else 'prompt'} {i % 45}" for i in range(90))
    with pytest.raises(DataError, match=r"45 different prompts are too few to fit .* label 50 or more"):
        fit_router(toy(90, prompts=spelt), **LENGTH)
    assert fit_router(toy(50), **LENGTH).folds == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds must be a whole number of at least 2, got 1"),
        ({"folds": True}, "folds must be a whole number of at least 2, got True"),
        ({"folds": 2.5}, "folds must be a whole number of at least 2, got 2.5"),
        ({"strong_rate": 1.5}, r"strong_rate must be a share of strong calls in \[0, 1\], got 1.5"),
        ({"resamples": 0}, "resamples must be a number from 1"),
        ({"seed": -1}, "seed"),
        ({"kinds": ("oracle",)}, "must be some of prompt-length"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(toy: Toy, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fit_router(toy(60), **{**LENGTH, **options})


@pytest.mark.parametrize("strong", [0.0, 0.4])
def test_a_strong_model_that_is_no_better_ends_well(toy: Toy, strong: float) -> None:
    table = toy(100, strong=strong)
    assert table.gains.mean() <= 0
    found = fit_router(table, **{**LENGTH, "curve": True})
    assert math.isnan(found.figures.apgr)
    assert all(math.isnan(point.apgr) for point in found.curve)
    assert math.isnan(found.tried[0].apgr)
    validation = found.router.validation
    assert validation is not None
    assert (validation.apgr, validation.low, validation.high) == (None, None, None)
    assert "big did no better than small on these prompts: there is nothing to recover" in card_of(found)
    assert "nan" not in card_of(found)
    assert not found.beats_random
    assert verdict(found) == "none: big does no better than small, so there is nothing to recover"
    assert found.settling is not None
    assert (found.settling.seen, found.settling.worthwhile) == (None, None)
    assert math.isnan(found.settling.ceiling)
    assert "no number of labels can be named" in what_would_settle(found)[0]


@pytest.mark.parametrize("ties", [1, 5])
def test_a_strong_model_that_is_nearly_always_better_leaves_nothing_to_route(toy: Toy, ties: int) -> None:
    table = toy(100)
    strong = np.ones(100)
    strong[:ties] = 0.0
    found = fit_router(replace(table, strong=strong, weak=np.zeros(100)), **LENGTH)
    assert not found.beats_random
    assert found.settling == Settling(seen=None, worthwhile=None, ceiling=pytest.approx(0.5 + ties / 200))
    (told,) = what_would_settle(found)
    assert f"perfect routing gets no more than APGR {0.5 + ties / 200:.3f}, so send everything to it" in told


def test_prompts_that_the_router_cannot_tell_apart_are_cut_together() -> None:
    # Of two lengths: the folds score each a little differently, which no threshold may be laid between.
    hard = np.arange(120) % 6 != 0
    prompts = tuple(f"{'Prove' if one else 'Name'} {number:03}" for number, one in enumerate(hard))
    table = Benchmark(name="two", pair=PAIR, prompts=prompts, strong=np.ones(120), weak=1.0 - hard)
    found = fit_router(table, **LENGTH)
    assert len(np.unique(found.scores)) == len(np.unique(found.router.win_probability(prompts))) == 2
    assert found.own_rate == found.threshold.sample_rate
    assert found.threshold.tied == hard.sum()
    assert found.own_scores == pytest.approx(found.router.win_probability(prompts))


def test_a_rate_that_so_few_prompts_cannot_show_is_refused_before_the_work(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "candidates_of", None)
    with pytest.raises(DataError, match=r"a strong-call rate of 0.001 takes 999 prompts to lay a threshold by, got 60"):
        fit_router(toy(60), **LENGTH, strong_rate=0.001)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_all_or_nothing_can_be_asked_for(toy: Toy, rate: float) -> None:
    found = fit_router(toy(60), **LENGTH, strong_rate=rate)
    assert found.own_rate == rate


def test_labels_that_all_say_the_same_end_well(toy: Toy) -> None:
    table = toy(60)
    for gain in (0.0, 1.0):
        same = Benchmark(
            name="same", pair=PAIR, prompts=table.prompts, strong=np.full(60, 0.5 + gain / 2), weak=np.full(60, 0.5)
        )
        found = fit_router(same, **LENGTH)
        assert not found.beats_random
        said = "Cannot be told from random with 60 prompts" if gain else "None: big does no better than small"
        assert f"**{said}" in card_of(found)
        assert found.settling is not None


def test_a_candidate_that_fails_is_left_out_and_all_that_fail_are_told(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        msg = "no neighbours near"
        raise DataError(msg)

    monkeypatch.setattr(KNNRouter, "fit", fail)
    kinds = ("knn", "prompt-length")
    found = fit_router(toy(60), **{**LENGTH, "kinds": kinds})
    assert found.chosen == "prompt-length"
    assert [item.name for item in found.tried] == ["prompt-length"]
    assert found.left_out == {"knn, static+surface": "no neighbours near"}
    assert "* Left out: knn, static+surface: no neighbours near" in card_of(found)
    monkeypatch.setattr(PromptLengthRouter, "fit", fail)
    both = "knn, static.surface: no neighbours near; prompt-length: no neighbours near"
    with pytest.raises(DataError, match=f"no router could be fitted on these 60 prompts: {both}"):
        fit_router(toy(60), **{**LENGTH, "kinds": kinds})


def test_a_fault_of_the_program_is_not_taken_for_one_of_the_data(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(KNNRouter, "fit", fail)
    with pytest.raises(ZeroDivisionError):
        fit_router(toy(60), **{**LENGTH, "kinds": ("knn", "prompt-length")})


def test_a_package_that_is_missing_is_named_whatever_else_could_be_fitted(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        msg = "it needs scikit-learn"
        raise MissingExtraError(msg)

    monkeypatch.setattr(LogisticRegressionRouter, "fit", fail)
    with pytest.raises(MissingExtraError, match="it needs scikit-learn"):
        fit_router(toy(60), **{**LENGTH, "kinds": ("prompt-length", "logistic-regression")})


def test_calibrating_needs_scikit_learn(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingExtraError, match="pip install scikit-learn"):
        fit_router(toy(60), **LENGTH)


def test_length_alone_can_be_what_is_chosen(toy: Toy) -> None:
    table = toy(100)
    longer = tuple(f"{text} {'And why?' * (5 * text.startswith('Derive'))}" for text in table.prompts)
    found = fit_router(toy(100, prompts=longer), **LENGTH)
    assert (found.chosen, found.name, type(found.router)) == ("prompt-length", "prompt-length", PromptLengthRouter)
    assert list(found.evaluation.results) == ["prompt-length", "random", "oracle"]
    assert verdict(found) == "better than random"
    assert found.router.validation is not None
    assert found.router.validation.length_apgr == found.router.validation.apgr == found.figures.apgr


def test_a_router_that_scores_the_wrong_way_round_is_not_said_to_be_worse(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Those that derive are longer.
    wrong = Candidate(kind="wrong", embedding=None, learn=lambda *_: PromptLengthRouter(slope=-3.0, pair=PAIR))
    monkeypatch.setattr(module, "candidates_of", lambda *_, **__: [wrong])
    found = fit_router(toy(100), curve=False, resamples=100)
    assert found.figures.apgr_high < 0.5
    assert {result.figures and result.figures.better_than_random for result in found.evaluation.results.values()} == {
        "cannot tell",  # of the coin too
        "yes",  # of the oracle
    }
    assert verdict(found) == "cannot be told from random with 100 prompts"
    assert found.settling is not None
    assert found.settling.seen is None
    assert found.settling.worthwhile is not None


def overconfident(battles: Any, _: Path | None) -> PromptLengthRouter:
    """Knows the order, and takes each small difference for a sure thing."""
    found = PromptLengthRouter.fit(battles, pair=PAIR)
    sure = PromptLengthRouter(slope=6 * found.slope, intercept=6 * found.intercept, pair=PAIR)
    sure.note_training_prompts(battles.prompts)
    return sure


def test_probabilities_that_do_not_fit_are_mapped(toy: Toy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    candidate = Candidate(kind="sure", embedding=None, learn=overconfident)
    monkeypatch.setattr(module, "candidates_of", lambda *_, **__: [candidate])
    table = toy(150)
    found = fit_router(table, curve=False, resamples=50)
    assert found.probabilities.calibration.method != "none"
    assert found.probabilities.ece_after < found.probabilities.ece_before
    router: Any = found.router
    assert isinstance(router, CalibratedRouter)
    inner = router.router.win_probability(table.prompts)
    scores = router.win_probability(table.prompts)
    assert (scores == found.probabilities.calibration(inner)).all()
    # The threshold and the held-out scores are on the scale of what the router says.
    assert scores.min() < found.threshold.threshold < scores.max()
    assert np.mean(scores >= found.threshold.threshold) == pytest.approx(0.5, abs=0.1)
    assert "mapped by " in card_of(found)
    router.save_pretrained(tmp_path)
    loaded = load_router(tmp_path)
    assert loaded.win_probability(table.prompts) == pytest.approx(scores)
    assert loaded.threshold == found.threshold.threshold
    assert loaded.validation == found.router.validation is not None
    assert loaded.calibration is not None
    assert (loaded.calibration.scores == np.sort(found.scores)).all()
    assert loaded.training_prompts is not None
    assert (np.sort(loaded.training_prompts) == np.sort(prompt_hashes(table.prompts))).all()


def test_rows_that_repeat_a_prompt_are_one_prompt(toy: Toy) -> None:
    once = toy(60)
    twice = Benchmark(
        name="twice",
        pair=PAIR,
        prompts=(*once.prompts, *(text.upper() for text in once.prompts)),
        strong=np.tile(once.strong, 2),
        weak=np.tile(once.weak, 2),
    )
    found = fit_router(twice, **LENGTH)
    assert len(found.scores) == 120
    assert "120 judged prompts, 60 of them different" in card_of(found)
    single = fit_router(once, **LENGTH).figures
    assert found.figures.apgr == pytest.approx(single.apgr, abs=0.02)
    # Twice the rows are no more evidence.
    assert found.figures.apgr_high - found.figures.apgr_low == pytest.approx(
        single.apgr_high - single.apgr_low, rel=0.15
    )


def test_a_bert_is_a_candidate_among_others(toy: Toy, encoder_folder: Path) -> None:
    config = BertConfig(model=str(encoder_folder), steps=2, evaluations=1, learning_rate=1e-3, batch_size=8)
    found = fit_router(toy(60), kinds=("prompt-length", "bert"), folds=2, resamples=20, curve=False, bert=config)
    assert [item.name for item in found.tried] == ["prompt-length", "bert"]
    assert all(math.isfinite(item.loss) for item in found.tried)
    assert found.left_out == {}


def test_a_bert_that_was_killed_goes_on_and_is_not_fitted_for_a_curve(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[Path | None] = []
    config = BertConfig(model="never-loaded", steps=7)

    def train(battles: Any, *, pair: ModelPair, config: Any, checkpoints: Any, resume: bool) -> PromptLengthRouter:
        assert config.steps == 7
        assert resume == (checkpoints is not None)
        calls.append(checkpoints)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return PromptLengthRouter.fit(battles, pair=pair)

    def fit(work: Path | None, **more: Any) -> FittedRouter:
        return fit_router(toy(60), kinds=("bert",), folds=4, resamples=20, bert=config, work=work, **more)

    monkeypatch.setattr(training, "train_bert", train)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "work")
    found = fit(tmp_path / "work")
    # Two folds, the one that was killed, that one again with the fourth, and all prompts.
    assert len(calls) == 3 + 3
    assert calls[2] == calls[3]
    assert len({str(place) for place in calls}) == 5
    assert found.curve == ()
    assert found.chosen == "bert"
    before = len(calls)
    assert (fit(None).scores == found.scores).all()
    assert calls[before:] == [None] * 5
    # Other settings are another run, and find nothing here.
    before = len(calls)
    fit(tmp_path / "work", seed=1)
    assert len(calls) == before + 5
    assert {str(place) for place in calls[:before]}.isdisjoint(map(str, calls[before:]))
