"""Routers on a benchmark: figures, baselines, what they learnt from, and what cannot be measured."""

import json
from pathlib import Path

import numpy as np
import pytest

from prefroute import Router, load_router
from prefroute.data import Battles, prompt_hashes
from prefroute.errors import ConfigurationError, RouterError
from prefroute.evaluation import apgr
from prefroute.evaluation.benchmarks import Benchmark
from prefroute.evaluation.evaluate import evaluate, evaluate_scores
from prefroute.evaluation.results import Evaluation
from prefroute.routers.baselines import PromptLengthRouter
from prefroute.routers.knn import KNNRouter
from prefroute.routers.similarity_weighted import SimilarityWeightedRouter
from prefroute.testing import FixedRouter
from prefroute.types import ModelPair

PAIR = ModelPair("big", "small")
ASKED = {
    "apgr",
    "apgr_low",
    "apgr_high",
    "apgr_published",
    "cpt50",
    "cpt80",
    "cpt50_published",
    "cpt80_published",
    "n_used",
    "n_overlap",
    "quality_at",
    "better_than_random",
    "seconds",
}


def benchmark(n: int = 120, seed: int = 0, *, gap: float = 0.5) -> Benchmark:
    generator = np.random.default_rng(seed)
    hard = generator.random(n)
    return Benchmark(
        name="made up",
        pair=PAIR,
        prompts=tuple(f"{'long ' * int(20 * h)}prompt {i}" for i, h in enumerate(hard)),
        strong=np.full(n, 1.0),
        weak=1.0 - gap * (generator.random(n) < hard),
    )


def measured(routers: dict[str, Router], table: Benchmark, **options: object) -> Evaluation:
    return evaluate(routers, table, resamples=100, **options)  # type: ignore[arg-type]


def test_every_figure_that_was_promised_is_there_and_json() -> None:
    table = benchmark()
    found = measured({"mine": PromptLengthRouter(slope=2.0)}, table)
    told = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert told["n"] == 120
    assert list(told["routers"]) == ["mine", "random", "prompt-length", "oracle"]
    for figures in told["routers"].values():
        assert set(figures) >= ASKED
        assert figures["better_than_random"] in {"yes", "no", "cannot tell"}
        assert list(figures["quality_at"]) == [f"0.{k}" for k in range(1, 10)]
    mine = told["routers"]["mine"]
    scores = PromptLengthRouter(slope=2.0).win_probability(table.prompts)
    assert mine["apgr"] == pytest.approx(apgr(scores, table.gains))
    assert mine["apgr_low"] < mine["apgr"] < mine["apgr_high"]
    assert mine["cpt50_low"] <= mine["cpt50"] <= mine["cpt50_high"]
    assert mine["better_than_random"] == "yes"
    assert mine["strong_rate_at_threshold"] == (scores >= 0.5).mean()
    assert told["routers"]["oracle"]["apgr"] >= mine["apgr"]
    assert {(item["first"], item["second"]) for item in told["comparisons"]} == {("mine", "prompt-length")}


def test_training_prompts_are_left_out_or_kept_and_counted() -> None:
    table = benchmark()
    router = PromptLengthRouter(slope=2.0)
    router.note_training_prompts([text.upper() for text in table.prompts[:50]])
    left = measured({"mine": router}, table)
    assert (left.results["mine"].n_used, left.results["mine"].n_overlap) == (70, 50)
    assert left.results["random"].n_used == 120
    rest = table.rows(np.arange(120) >= 50)
    alone = measured({"mine": PromptLengthRouter(slope=2.0)}, rest)
    assert left.results["mine"].figures == alone.results["mine"].figures
    kept = measured({"mine": router}, table, keep_overlap=True)
    assert (kept.results["mine"].n_used, kept.results["mine"].n_overlap) == (120, 50)
    assert kept.as_dict()["overlap"] == "kept"
    # Compared on what neither learnt from.
    assert left.comparisons[0].n == 70


def test_nothing_is_left_and_nothing_is_known() -> None:
    table = benchmark(40)
    learnt, unknown = PromptLengthRouter(slope=2.0), FixedRouter(0.5)
    learnt.note_training_prompts(table.prompts)
    told = measured({"learnt": learnt, "unknown": unknown}, table).as_dict()
    figures = told["routers"]["learnt"]
    assert (figures["n_used"], figures["n_overlap"], figures["apgr"]) == (0, 40, None)
    assert figures["better_than_random"] == "cannot tell"
    assert told["routers"]["unknown"]["n_overlap"] is None
    assert told["routers"]["unknown"]["better_than_random"] == "cannot tell"
    assert {(item["first"], item["second"]) for item in told["comparisons"]} == {("unknown", "prompt-length")}


def test_routers_remember_what_they_learnt_from_when_saved(golden: Battles, tmp_path: Path) -> None:
    hashes = np.unique(prompt_hashes(golden.prompts))
    for kind in (KNNRouter, SimilarityWeightedRouter, PromptLengthRouter):
        router = kind.fit(golden, pair=PAIR)
        assert router.training_prompts is not None
        assert (router.training_prompts == hashes).all()
        router.save_pretrained(tmp_path / kind.__name__)
        loaded = load_router(tmp_path / kind.__name__)
        assert loaded.training_prompts is not None
        assert (loaded.training_prompts == hashes).all()
    more = golden.map_prompts(lambda text: text + " Once more.")
    router = load_router(tmp_path / "SimilarityWeightedRouter")
    assert isinstance(router, SimilarityWeightedRouter)
    router.add(more)
    assert router.training_prompts is not None
    assert len(router.training_prompts) == 2 * len(hashes)
    assert (router.with_pair(PAIR).training_prompts == router.training_prompts).all()


def test_baselines_are_fitted_where_there_is_data_to_fit_them_on(golden: Battles) -> None:
    table = Benchmark(
        name="g",
        pair=PAIR,
        prompts=tuple(
            f"Derive {n} theorems about soup." if n % 2 else f"Name {n} facts about soup." for n in range(40)
        ),
        strong=np.ones(40),
        weak=1.0 - np.arange(40) % 2,
    )
    found = measured({"random": load_router("random")}, table, training=golden)
    assert list(found.results) == ["random", "prompt-length", "knn", "oracle"]
    assert not found.results["random"].is_baseline
    knn = found.results["knn"].figures
    assert knn is not None
    assert knn.apgr == pytest.approx(0.75, abs=0.05)


def test_a_coin_is_within_its_own_range_and_its_mean_is_a_half() -> None:
    table = benchmark(300)
    areas, inside = [], 0
    for seed in range(40):
        scores = np.random.default_rng(seed).random(300)
        figures = evaluate_scores({"coin": scores}, table, resamples=20, seed=seed).results["coin"].figures
        assert figures is not None
        areas.append(figures.apgr)
        inside += figures.random_low <= figures.apgr <= figures.random_high
    assert np.mean(areas) == pytest.approx(0.5, abs=0.02)
    assert inside >= 35


@pytest.mark.parametrize("gap", [0.0, -0.5])
def test_without_a_gap_apgr_is_not_defined_and_the_verdict_still_is(gap: float) -> None:
    table = benchmark(gap=gap)
    told = measured({"mine": PromptLengthRouter(slope=2.0)}, table).as_dict()["routers"]["mine"]
    assert told["apgr"] is told["apgr_low"] is told["cpt50"] is told["cpt50_published"] is None
    assert told["quality_at"]["0.5"] is not None
    # Long prompts are those where the strong model loses most.
    assert told["better_than_random"] == ("cannot tell" if gap == 0 else "no")


def test_one_prompt_is_measured_and_tells_nothing() -> None:
    told = measured({"mine": PromptLengthRouter()}, benchmark(1, 3)).as_dict()
    assert told["routers"]["mine"]["better_than_random"] == "cannot tell"


def test_rows_of_one_prompt_are_drawn_together() -> None:
    once = benchmark(60)
    thrice = Benchmark(
        name="thrice",
        pair=PAIR,
        prompts=once.prompts * 3,
        strong=np.tile(once.strong, 3),
        weak=np.tile(once.weak, 3),
    )
    router = {"mine": PromptLengthRouter(slope=2.0)}
    one, three = (measured(router, table).results["mine"].figures for table in (once, thrice))
    assert one is not None
    assert three is not None
    assert three.apgr == pytest.approx(one.apgr)
    assert three.apgr_high - three.apgr_low == pytest.approx(one.apgr_high - one.apgr_low, rel=0.05)


def test_scores_that_are_there_already_are_measured_where_they_are_numbers() -> None:
    table = benchmark(50)
    scores = np.where(np.arange(50) < 20, np.nan, np.arange(50.0))
    found = evaluate_scores({"mine": scores}, table, resamples=50)
    assert found.results["mine"].n_used == 30
    assert list(found.results) == ["mine", "oracle"]
    assert found.results["mine"].n_overlap is None
    held_out = evaluate_scores({"mine": scores, "random": scores}, table, held_out=True, resamples=50)
    assert held_out.results["mine"].n_overlap == 0
    assert len(held_out.comparisons) == 1  # a router that is only called random is compared like any other
    with pytest.raises(ConfigurationError, match=r"scores of 'mine' must be of shape \(50,\)"):
        evaluate_scores({"mine": scores[:3]}, table)
    with pytest.raises(ConfigurationError, match="scores of 'mine' must be finite, or NaN"):
        evaluate_scores({"mine": np.full(50, np.inf)}, table)
    with pytest.raises(ConfigurationError, match="'oracle' is the name"):
        evaluate_scores({"oracle": scores}, table)


def test_what_fails_is_named() -> None:
    class Broken(Router):
        def win_probability(self, prompts: object) -> np.ndarray:
            raise OSError("away")

    table = benchmark(5)
    with pytest.raises(RouterError, match=r"router 'bad' at prompts 0 to 4 failed: OSError$"):
        measured({"bad": Broken()}, table)
    with pytest.raises(ConfigurationError, match="'oracle' is the name of the router that knows both answers"):
        measured({"oracle": FixedRouter()}, table)
    with pytest.raises(ConfigurationError, match="resamples must be a number from 1 to 100,000, got 0"):
        evaluate({"mine": FixedRouter()}, table, resamples=0)
