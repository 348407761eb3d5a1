"""What is made of held-out logits: scores that mean the same whoever gave them, and a map that they can bear."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prefroute import Router
from prefroute.bradley_terry import sigmoid
from prefroute.embedding import ConcatenatedEmbedder, LengthEmbedder, SurfaceEmbedder
from prefroute.evaluation.benchmarks import Benchmark
from prefroute.fitting import FittedRouter, fit_router
from prefroute.fitting import fit as module
from prefroute.fitting.candidates import Candidate
from prefroute.fitting.cross_fitting import Labels, choose
from prefroute.probability import fit_probabilities
from prefroute.testing import FakeEmbedder
from prefroute.types import ModelPair

Toy = Callable[..., Benchmark]

PAIR = ModelPair("big", "small")


class Small(FakeEmbedder):
    dimensions = 8


class Scores(Router):
    """Gives each prompt, in any spelling, the score that it is told."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([self.scores[text.lower()] for text in prompts])


def table_of(gains: NDArray[np.float64], prompts: Sequence[str] | None = None) -> Benchmark:
    texts = tuple(prompts or (f"prompt {i}" for i in range(len(gains))))
    return Benchmark(name="b", pair=PAIR, prompts=texts, strong=gains, weak=np.zeros(len(gains)))


def fit_scores(monkeypatch: pytest.MonkeyPatch, table: Benchmark, scores: dict[str, float]) -> FittedRouter:
    """A fit with one candidate, which learns nothing."""
    candidate = Candidate(kind="scores", embedding=None, learn=lambda *_: Scores(scores))
    monkeypatch.setattr(module, "candidates_of", lambda *_, **__: [candidate])
    return fit_router(table, curve=False, resamples=20)


def test_who_scores_every_prompt_of_a_fold_alike_puts_none_before_another() -> None:
    generator = np.random.default_rng(0)
    labels = Labels.of(table_of(generator.choice([-1.0, 1.0], 100)), 6, 0)
    # What a router that learns no more than the mean says of those held out, and one that is far from it.
    alike = generator.normal(size=labels.fold_count)[labels.folds]
    choice = choose([alike, 3.0 + 7.0 * alike], labels)
    assert np.ptp(choice.logits) == 0.0
    assert np.ptp(choice.measured) == 0.0


def test_candidates_that_differ_in_level_and_spread_alone_are_measured_as_one() -> None:
    generator = np.random.default_rng(0)
    row = generator.normal(size=200)
    # Between the two, so that it is for chance to say which has the less loss.
    gains = np.where(generator.random(200) < sigmoid(1.5 * row + 0.25), 1.0, -1.0)
    labels = Labels.of(table_of(gains), 10, 0)
    rows = [row, 2.0 * row + 0.5]
    losses = np.stack([np.logaddexp(0.0, one) - labels.outcomes * one for one in rows])
    elsewhere = {int(losses[:, labels.folds != fold].mean(axis=1).argmin()) for fold in range(labels.fold_count)}
    assert elsewhere == {0, 1}
    choice = choose(rows, labels)
    assert choice.measured == pytest.approx(choice.logits, abs=1e-6)


def test_rows_that_repeat_a_prompt_are_held_out_of_the_map_together(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    once = table_of(generator.choice([-1.0, 1.0], 60))
    scores = dict(zip(once.prompts, generator.uniform(0.1, 0.9, 60), strict=True))
    prompts = [*once.prompts, *map(str.upper, once.prompts), *map(str.title, once.prompts)]
    thrice = replace(once, prompts=tuple(prompts), strong=np.tile(once.strong, 3), weak=np.tile(once.weak, 3))
    single, triple = (fit_scores(monkeypatch, table, scores).probabilities for table in (once, thrice))
    assert triple.n == 3 * single.n
    assert triple.log_losses == pytest.approx(single.log_losses, abs=1e-6)


def test_the_map_is_no_isotonic_one_even_where_that_would_fit_best(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    chances = generator.uniform(0.05, 0.95, 300)
    # A step, which isotonic regression would follow best.
    table = table_of(np.where(generator.random(300) < np.where(chances < 0.7, 0.1, 0.9), 1.0, -1.0))
    scores = dict(zip(table.prompts, chances, strict=True))
    assert fit_probabilities(chances, (1.0 + table.gains) / 2.0).calibration.method == "isotonic"
    found = fit_scores(monkeypatch, table, scores)
    assert found.probabilities.calibration.method == "platt"
    assert set(found.probabilities.log_losses) == {"none", "platt"}


@pytest.mark.parametrize(
    "embedder",
    ["length", "surface", LengthEmbedder(), ConcatenatedEmbedder([Small(), SurfaceEmbedder()])],
    ids=["length", "surface", "embedder", "part"],
)
def test_what_is_seen_of_the_text_alone_is_standardised_by_the_prompts(toy: Toy, embedder: Any) -> None:
    table = toy(60)
    found: Any = fit_router(table, kinds=("knn",), embedders=(embedder,), folds=2, curve=False, resamples=20).router
    own = getattr(found, "router", found).embedder
    part = getattr(own, "parts", (own,))[-1]
    columns = part.embed(table.prompts)
    assert columns.mean(axis=0) == pytest.approx(0.0, abs=1e-3)
    spreads = columns.std(axis=0)
    # Of a feature that is the same in all prompts there is none.
    assert spreads[spreads > 1e-3] == pytest.approx(part.scale, rel=1e-3)
