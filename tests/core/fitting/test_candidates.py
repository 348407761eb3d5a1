"""What is chosen from: every kind over every embedder, each prompt embedded once."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from prefroute import load_router, training
from prefroute.data import Battles
from prefroute.embedding import ConcatenatedEmbedder, SurfaceEmbedder, as_embedder
from prefroute.embedding.registry import standardised
from prefroute.errors import ConfigurationError
from prefroute.evaluation.benchmarks import Benchmark
from prefroute.fitting import LIGHT, ON_REQUEST, fit_router
from prefroute.fitting.candidates import Candidate, Remembered, candidates_of, with_surface
from prefroute.fitting.cross_fitting import Labels, held_out_logits
from prefroute.routers._linear import part_widths
from prefroute.routers.baselines import PromptLengthRouter
from prefroute.routers.logistic_regression import LogisticRegressionRouter
from prefroute.testing import FakeEmbedder
from prefroute.training import MatrixFactorizationConfig
from prefroute.types import ModelPair

Toy = Callable[..., Benchmark]

PAIR = ModelPair("big", "small")
PROMPTS = [f"Tell me {n} things, or {n + 1}." for n in range(30)]


class Small(FakeEmbedder):
    dimensions = 8


class Counting(FakeEmbedder):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def embed(self, texts: Sequence[str]) -> Any:
        self.seen += texts
        return super().embed(texts)


def names(kinds: Sequence[str], embedders: Sequence[Any]) -> list[str]:
    return [candidate.name for candidate in candidates_of(kinds, embedders, prompts=PROMPTS, pair=PAIR)]


def test_kinds_and_embedders_are_crossed_in_the_order_of_the_kinds() -> None:
    assert names(("knn", "prompt-length", "knn", "bert", "logistic-regression"), ("static", "length")) == [
        "knn, static+surface",
        "knn, length",
        "prompt-length",
        "bert",
        "logistic-regression, static+surface",
        "logistic-regression, length",
    ]
    found = candidates_of((*LIGHT, *ON_REQUEST), ("surface",), prompts=PROMPTS, pair=PAIR)
    assert [candidate.kind for candidate in found] == [*LIGHT, *ON_REQUEST]
    assert [candidate.kind for candidate in found if candidate.takes_long] == ["bert"]


def test_embedders_of_one_class_are_all_tried() -> None:
    assert names(("knn",), (FakeEmbedder(4),)) == ["knn, FakeEmbedder"]
    both = names(("knn",), (FakeEmbedder(4), FakeEmbedder(8)))
    assert len(both) == len(set(both)) == 2


@pytest.mark.parametrize(("kinds", "got"), [(("knn", "svm", "x"), "got 'svm', 'x'"), ((), "got none")])
def test_unknown_kinds_are_refused(kinds: tuple[str, ...], got: str) -> None:
    with pytest.raises(ConfigurationError, match=f"must be some of prompt-length, .*, bert; {got}"):
        names(kinds, ("static",))


def test_an_embedder_is_needed_where_a_kind_has_one() -> None:
    with pytest.raises(ConfigurationError, match="at least one embedder, such as 'static'; got none"):
        names(("prompt-length", "knn"), ())
    assert names(("prompt-length",), ()) == ["prompt-length"]
    with pytest.raises(ConfigurationError, match="unknown embedder 'wrod2vec'"):
        names(("knn",), ("wrod2vec",))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("static", "static+surface"),
        ("openai:text-embedding-3-small", "openai:text-embedding-3-small+surface"),
        ("static+minilm", "static+minilm+surface"),
        ("length", "length"),
        ("static + length", "static + length"),
        ("surface+static", "surface+static"),
    ],
)
def test_the_surface_stands_beside_names_without_it(name: str, wanted: str) -> None:
    assert with_surface(name) == wanted


def test_what_is_remembered_is_what_the_embedder_gives() -> None:
    embedder = as_embedder("static+surface", prompts=PROMPTS)
    kept = Remembered(embedder, PROMPTS, progress=False)
    some = [PROMPTS[3], PROMPTS[0], PROMPTS[3]]
    assert (kept.embed(some) == np.asarray(embedder.embed(PROMPTS))[[3, 0, 3]]).all()
    assert kept.embed(some).dtype == np.float32
    assert part_widths(kept, kept.dimensions) == part_widths(embedder, kept.dimensions)
    assert len(part_widths(kept, kept.dimensions)) == 2


def test_a_router_learns_the_same_from_memory(toy: Toy) -> None:
    table = toy(60)
    battles = table.responses.to_battles()
    embedder = standardised(ConcatenatedEmbedder([Small(), SurfaceEmbedder()]), table.prompts)
    (candidate,) = candidates_of(("logistic-regression",), (embedder,), prompts=table.prompts, pair=PAIR)
    found: Any = candidate.learn(battles, None)
    wanted = LogisticRegressionRouter.fit(battles, embedder=embedder, pair=PAIR)
    assert (found.weights == wanted.weights).all()
    assert (found.bias, found.c) == (wanted.bias, wanted.c)


def test_every_prompt_is_embedded_once_for_all_folds(toy: Toy) -> None:
    embedder, table = Counting(), toy(60)
    fit_router(table, kinds=("knn",), embedders=(embedder,), folds=3, resamples=20)
    assert sorted(embedder.seen) == sorted(table.prompts)


@pytest.mark.parametrize("takes_long", [False, True])
def test_light_kinds_learn_on_one_thread_and_others_as_they_come(toy: Toy, takes_long: bool) -> None:
    seen = []

    def learn(battles: Battles, _: Path | None) -> Any:
        seen.append(blas_threads())
        return PromptLengthRouter.fit(battles, pair=PAIR)

    candidate = Candidate(kind="any", embedding=None, learn=learn, takes_long=takes_long)
    with threadpool_limits(2, user_api="blas"):
        held_out_logits(candidate, Labels.of(toy(60), 2, 0))
        assert blas_threads() == {2}
    assert seen == [{2} if takes_long else {1}] * 2


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.mark.parametrize("kind", ["similarity-weighted", "knn", "logistic-regression", "matrix-factorization"])
def test_the_saved_router_holds_the_embedder_itself(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    # As it comes it takes a minute, most of it to find out that there is no more to learn.
    quick = partial(MatrixFactorizationConfig, max_epochs=5, folds=1, learning_rate=1e-2)
    monkeypatch.setattr(training, "MatrixFactorizationConfig", quick)
    table = toy(60)
    fitted = fit_router(table, kinds=(kind,), embedders=("length+surface",), folds=2, curve=False, resamples=20)
    fitted.router.save_pretrained(tmp_path)
    loaded: Any = load_router(tmp_path)
    for router in (loaded, fitted.router):
        assert isinstance(router.embedder, ConcatenatedEmbedder)
    new = toy(20, seed=9).prompts
    assert set(new).isdisjoint(table.prompts)
    scores = loaded.win_probability(new)
    assert scores == pytest.approx(fitted.router.win_probability(new), abs=1e-12)
    assert np.ptp(scores) > 0.01
    # The memory is of the prompts, which are private.
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or b"Derive theorem" not in file.read_bytes(), file
