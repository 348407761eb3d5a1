"""Logistic regression on embeddings: scikit-learn's own fit, its choices, and what it refuses."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefroute import load_router
from prefroute.data import Battles
from prefroute.errors import ConfigurationError, DataError, MissingExtraError, PersistenceError
from prefroute.routers._linear import Standardisation
from prefroute.routers.logistic_regression import C_GRID, LogisticRegressionRouter
from prefroute.testing import FakeEmbedder
from prefroute.types import Battle, ModelPair

pytest.importorskip("sklearn", reason="needs the train extra")

PAIR = ModelPair("strong", "weak")
SIZE, DIMENSIONS = 300, 6


class TableEmbedder:
    dimensions = DIMENSIONS

    def __init__(self) -> None:
        spread = np.linspace(0.2, 2.0, DIMENSIONS)
        drawn = np.random.default_rng(1).standard_normal((SIZE, DIMENSIONS))
        self.table = (drawn * spread + 3).astype(np.float32)

    def embed(self, texts: Sequence[str]) -> Any:
        return self.table[[int(text) for text in texts]]


EMBEDDER = TableEmbedder()
TEXTS = [str(i) for i in range(SIZE)]
CHANCE = 1 / (1 + np.exp(-(EMBEDDER.table - 3) @ [3.0, -2.0, 1.0, 0.0, 0.0, 0.5] - 0.5))


def battles() -> Battles:
    """Soft outcomes with weights; battles of another model that must be left out."""
    rows = [
        Battle(text, "strong", "weak", float(chance), weight=1.0 + i % 3)
        for i, (text, chance) in enumerate(zip(TEXTS, CHANCE, strict=True))
    ]
    return Battles.from_rows([*rows, *(Battle(text, "weak", "other", 1.0) for text in TEXTS)])


def fit(table: Battles | None = None, **changes: Any) -> LogisticRegressionRouter:
    options: dict[str, Any] = {"embedder": EMBEDDER, "pair": PAIR}
    return LogisticRegressionRouter.fit(battles() if table is None else table, **(options | changes))


def test_it_learns_soft_outcomes() -> None:
    router = fit()
    np.testing.assert_allclose(router.win_probability(TEXTS), CHANCE, atol=0.05)
    assert router.models == ("strong", "weak")


def test_it_is_scikit_learn_on_standardised_rows_with_each_outcome_split_in_two() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rows = StandardScaler().fit_transform(EMBEDDER.table.astype(np.float64)) / np.sqrt(DIMENSIONS)
    weights = (1.0 + np.arange(SIZE) % 3) / 2.0
    outcomes = (1 - 1 / (SIZE + 1)) * CHANCE + 0.5 / (SIZE + 1)
    model = LogisticRegression(C=0.5, tol=1e-8, max_iter=1000)
    model.fit(
        np.vstack([rows, rows]),
        [1] * SIZE + [0] * SIZE,
        sample_weight=np.concatenate([weights * outcomes, weights * (1 - outcomes)]),
    )
    router = fit(c=0.5)
    np.testing.assert_allclose(router.win_probability(TEXTS), model.predict_proba(rows)[:, 1], atol=2e-3)
    assert router.c == 0.5


def test_c_is_chosen_by_what_is_held_out() -> None:
    assert fit().c == max(C_GRID)
    noise = Battles.from_rows(
        Battle(text, "strong", "weak", float(outcome))
        for text, outcome in zip(TEXTS, np.random.default_rng(4).integers(0, 2, SIZE), strict=True)
    )
    assert fit(noise).c in C_GRID[:2]


def test_the_threshold_sends_about_half_to_the_strong_model() -> None:
    router = fit()
    assert router.threshold is not None
    assert 0.45 < np.mean(router.win_probability(TEXTS) >= router.threshold) < 0.55


def test_the_same_seed_gives_the_same_router() -> None:
    first, second = fit(seed=3), fit(seed=3)
    np.testing.assert_array_equal(first.weights, second.weights)
    assert first.threshold == second.threshold


@pytest.mark.parametrize("outcome", [0.0, 0.5, 1.0])
def test_outcomes_that_are_all_alike_give_finite_scores(outcome: float) -> None:
    table = Battles.from_rows(Battle(text, "strong", "weak", outcome) for text in TEXTS[:20])
    found = fit(table).win_probability(TEXTS)
    np.testing.assert_allclose(found, outcome, atol=0.1)
    assert ((found > 0) & (found < 1)).all()


def test_a_save_keeps_everything(tmp_path: Path) -> None:
    router = fit()
    router.save_pretrained(tmp_path)
    loaded = load_router(tmp_path, embedder=EMBEDDER)
    assert isinstance(loaded, LogisticRegressionRouter)
    assert (loaded.pair, loaded.threshold, loaded.c) == (PAIR, router.threshold, router.c)
    np.testing.assert_array_equal(loaded.win_probability(TEXTS), router.win_probability(TEXTS))


def test_damaged_saves_are_refused(tmp_path: Path) -> None:
    from prefroute.persistence import write_tensors

    fit(c=1.0).save_pretrained(tmp_path)
    write_tensors(tmp_path / "router.safetensors", {"other": np.zeros(3)})
    with pytest.raises(PersistenceError, match="lacks weights"):
        load_router(tmp_path, embedder=EMBEDDER)
    write_tensors(tmp_path / "router.safetensors", {"weights": np.zeros(3)})
    with pytest.raises(PersistenceError, match=r"weights .* must be 6"):
        load_router(tmp_path, embedder=EMBEDDER)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c": 0.0}, "c must be"),
        ({"c": []}, "c must be"),
        ({"c": [1.0, float("nan")]}, "c must be"),
        ({"c": "large"}, "c must be"),
        ({"folds": 1}, "folds must be"),
        ({"folds": True}, "folds must be"),
        ({"pair": ("strong", "weak")}, "ModelPair"),
        ({"embedder": 7}, "embedder"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fit(**changes)


def test_parts_that_do_not_fit_are_refused() -> None:
    for weights, bias, message in (
        (np.zeros(5), 0.0, r"weights .* must be 6"),
        (np.full(6, np.inf), 0.0, "not all finite"),
        (np.zeros(6), float("nan"), "bias"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            LogisticRegressionRouter(embedder=EMBEDDER, weights=weights, bias=bias, pair=PAIR)


def test_too_little_data_is_refused() -> None:
    with pytest.raises(DataError, match="over one prompt only"):
        fit(Battles.from_rows([Battle("0", "strong", "weak", 1.0)]))
    with pytest.raises(DataError, match="no battle between"):
        fit(pair=ModelPair("strong", "other"))
    two = Battles.from_rows([Battle("0", "strong", "weak", 1.0), Battle("1", "strong", "weak", 0.0)])
    assert np.isfinite(fit(two).win_probability(TEXTS)).all()


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefroute.routers.logistic_regression.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"prefroute\[train\]"):
        fit()


def test_a_constant_coordinate_gets_no_weight() -> None:
    """Rounding leaves it a deviation of 1e-8; blown up to the usual spread it would decide everything elsewhere."""
    rows = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    rows[:, 1] = 0.7
    standard = Standardisation.fit(rows, [4])
    moved = standard(rows)
    assert not moved[:, 1].any()
    weights, _ = standard.folded(np.ones((1, 4)), np.zeros(1))
    assert weights[0, 1] == 0.0
    assert np.isfinite(weights).all()
    constant = Standardisation.fit(np.full((5, 3), 0.1, dtype=np.float32), [3])
    assert not constant(np.ones((2, 3), dtype=np.float32)).any()


@pytest.mark.parametrize("wrong", [[[1.0]], None, "text", [["a", "b"]], [[1j, 1j]], [[float("nan"), 1.0]]])
def test_embeddings_that_cannot_be_scored_are_refused(wrong: Any) -> None:
    router = LogisticRegressionRouter(embedder=FakeEmbedder(2), weights=[1.0, 2.0], pair=ModelPair("a", "b"))
    with pytest.raises(ConfigurationError, match="embeddings must be"):
        router.win_probability_of_embeddings(wrong)
    np.testing.assert_allclose(router.win_probability_of_embeddings([[0, 0]]), 0.5)  # type: ignore[arg-type]
