"""Serving a matrix factorization: the pair's formula, other pairs, models placed after training, saving."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prefroute import load_router
from prefroute.embedding import as_embedder
from prefroute.errors import ConfigurationError, PersistenceError
from prefroute.persistence import write_tensors
from prefroute.routers._linear import Standardisation, part_widths
from prefroute.routers.matrix_factorization import MatrixFactorizationRouter, TrainingReport
from prefroute.testing import FakeEmbedder
from prefroute.types import ModelPair

MODELS = ("ant", "bee", "cat", "dog")
REPORT = TrainingReport(
    battles=10,
    prompts=5,
    models=4,
    ties_dropped=0,
    epochs=(3, 4),
    best_epochs=(1, 2),
    train_loss=0.5,
    validation_loss=0.6,
    validation_prompts=5,
)


class SixEmbedder(FakeEmbedder):
    dimensions = 6

    def __init__(self) -> None:
        super().__init__(6)


def router(**changes: Any) -> MatrixFactorizationRouter:
    generator = np.random.default_rng(3)
    parts: dict[str, Any] = {
        "embedder": SixEmbedder(),
        "models": MODELS,
        "weights": generator.standard_normal((4, 6)),
        "biases": generator.standard_normal(4),
        "ratings": [1300.0, 900.0, 1100.0, 1000.0],
        "centre": np.full(6, 0.1),
        "pair": ModelPair("ant", "bee"),
        "threshold": 0.4,
        "training": REPORT,
    }
    return MatrixFactorizationRouter(**(parts | changes))


def rows(n: int = 7) -> Any:
    return np.random.default_rng(9).standard_normal((n, 6)).astype(np.float32)


def expected(weights: Any, biases: Any, strong: int, weak: int) -> Any:
    scores = rows().astype(np.float64) @ weights.T + biases
    return 1.0 / (1.0 + np.exp(scores[:, weak] - scores[:, strong]))


@pytest.mark.parametrize(("strong", "weak"), [(0, 1), (1, 0), (2, 3), (3, 0)])
def test_every_pair_follows_the_formula(strong: int, weak: int) -> None:
    made = router()
    of_pair = made.with_pair(ModelPair(MODELS[strong], MODELS[weak]))
    found = of_pair.win_probability_of_embeddings(rows())
    np.testing.assert_allclose(found, expected(made.weights, made.biases, strong, weak), atol=1e-12)
    assert of_pair.pair == ModelPair(MODELS[strong], MODELS[weak])
    assert np.shares_memory(of_pair.weights, made.weights)


@settings(deadline=None, max_examples=40)
@given(
    weights=arrays(np.float64, (4, 6), elements=st.floats(-50, 50)),
    shift=arrays(np.float64, 6, elements=st.floats(-50, 50)),
)
def test_laws_of_pairs(weights: Any, shift: Any) -> None:
    """The two sides of a pair add up to one; what is added to every model changes nothing."""
    made = router(weights=weights)
    there = made.win_probability_of_embeddings(rows())
    back = made.with_pair(ModelPair("bee", "ant")).win_probability_of_embeddings(rows())
    np.testing.assert_allclose(there + back, 1.0, atol=1e-12)
    shifted = router(weights=weights + shift, biases=made.biases + 3.0).win_probability_of_embeddings(rows())
    np.testing.assert_allclose(shifted, there, atol=1e-9)


def test_extreme_scores_stay_probabilities() -> None:
    made = router(weights=np.outer([1e6, -1e6, 0, 0], np.ones(6)))
    found = made.win_probability_of_embeddings(np.stack([np.ones(6), -np.ones(6)]).astype(np.float32))
    np.testing.assert_array_equal(found, [1.0, 0.0])


def test_another_pair_gets_the_score_of_the_mean_prompt_as_threshold() -> None:
    made = router()
    pair = ModelPair("dog", "cat")
    found = made.with_pair(pair).threshold
    assert found == pytest.approx(made.with_pair(pair).win_probability_of_embeddings(np.full((1, 6), 0.1))[0])
    assert router(centre=None).with_pair(pair).threshold is None
    assert made.with_pair(made.pair).threshold == 0.4


def test_a_model_like_a_known_one_scores_like_it() -> None:
    made = router().with_model("new", like="cat")
    assert made.models == (*MODELS, "new")
    assert made.pair == ModelPair("ant", "bee")
    assert made.threshold == 0.4
    new = made.with_pair(ModelPair("new", "bee")).win_probability_of_embeddings(rows())
    known = made.with_pair(ModelPair("cat", "bee")).win_probability_of_embeddings(rows())
    np.testing.assert_array_equal(new, known)
    np.testing.assert_array_equal(made.ratings, [1300, 900, 1100, 1000, 1100])


@pytest.mark.parametrize(
    ("rating", "mix"),
    [
        (1200.0, {"ant": 0.5, "cat": 0.5}),
        (1025.0, {"cat": 0.25, "dog": 0.75}),
        (1100, {"cat": 1.0}),
        (5000.0, {"ant": 1.0}),
        (-1.0, {"bee": 1.0}),
    ],
)
def test_a_model_of_a_rating_stands_between_its_neighbours(rating: float, mix: dict[str, float]) -> None:
    made = router()
    placed = made.with_model("new", rating=rating)
    share = np.array([mix.get(name, 0.0) for name in MODELS])
    np.testing.assert_allclose(placed.weights[-1], share @ made.weights, atol=1e-12)
    np.testing.assert_allclose(placed.biases[-1], share @ made.biases, atol=1e-12)
    assert placed.ratings is not None
    assert placed.ratings[-1] == pytest.approx(np.clip(rating, 900, 1300))


def test_placing_and_pairing_keep_the_settings_of_the_router() -> None:
    made = router()
    made.on_error, made.time_limit = "weak", 3.0
    for other in (made.with_model("new", like="ant"), made.with_pair(ModelPair("cat", "dog"))):
        assert (other.on_error, other.time_limit, other.training) == ("weak", 3.0, REPORT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "ant", "like": "bee"}, "not taken"),
        ({"name": "", "like": "bee"}, "not taken"),
        ({"name": "new"}, "exactly one"),
        ({"name": "new", "like": "bee", "rating": 1000.0}, "exactly one"),
        ({"name": "new", "like": "elk"}, "unknown model 'elk'; known: ant, bee"),
        ({"name": "new", "rating": float("nan")}, "finite"),
        ({"name": "new", "rating": "high"}, "finite"),
    ],
)
def test_a_model_that_cannot_be_placed_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        router().with_model(**arguments)


def test_without_ratings_a_model_is_placed_by_likeness_only() -> None:
    made = router(ratings=None)
    with pytest.raises(ConfigurationError, match="like="):
        made.with_model("new", rating=1000.0)
    assert made.with_model("new", like="ant").ratings is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.zeros((3, 6))}, r"weights .* must be 4 x 6"),
        ({"weights": np.zeros((4, 5))}, r"weights .* must be 4 x 6"),
        ({"weights": np.full((4, 6), np.nan)}, "not all finite"),
        ({"weights": "many"}, r"weights .* must be"),
        ({"biases": [1.0]}, "biases must be 4"),
        ({"ratings": [1.0, 2.0]}, "ratings must be 4"),
        ({"centre": [1.0]}, "centre must be 6"),
        ({"models": "abcd"}, "different names"),
        ({"models": ("ant", "ant", "bee", "cat")}, "different names"),
        ({"models": (1, 2, 3, 4)}, "different names"),
        ({"pair": ("ant", "bee")}, "ModelPair"),
        ({"pair": ModelPair("ant", "elk")}, "unknown model 'elk'"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        router(**changes)


def test_embeddings_of_another_size_are_refused() -> None:
    for wrong in (np.zeros((2, 5)), np.zeros(6)):
        with pytest.raises(ConfigurationError, match="n x 6"):
            router().win_probability_of_embeddings(wrong)


def test_arrays_of_a_router_cannot_be_changed_but_those_given_can() -> None:
    given_weights = np.ones((4, 6))
    made = router(weights=given_weights)
    with pytest.raises(ValueError, match="read-only"):
        made.weights[0, 0] = 2.0
    given_weights[0, 0] = 1.0


def test_a_save_keeps_everything(tmp_path: Path) -> None:
    made = router().with_model("new", rating=950.0)
    made.save_pretrained(tmp_path)
    loaded = load_router(tmp_path, embedder=SixEmbedder())
    assert isinstance(loaded, MatrixFactorizationRouter)
    assert (loaded.models, loaded.pair, loaded.threshold, loaded.training) == (
        (*MODELS, "new"),
        made.pair,
        0.4,
        REPORT,
    )
    for name in ("weights", "biases", "ratings", "centre"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(made, name))


def test_a_save_without_the_optional_parts_loads(tmp_path: Path) -> None:
    router(ratings=None, centre=None, training=None, threshold=None).save_pretrained(tmp_path)
    loaded = MatrixFactorizationRouter.from_pretrained(tmp_path, embedder=SixEmbedder())
    assert (loaded.ratings, loaded.centre, loaded.training, loaded.threshold) == (None, None, None, None)


def test_damaged_saves_are_refused(tmp_path: Path) -> None:
    def damaged(name: str, change: Any) -> Path:
        folder = tmp_path / name
        router().save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        change(folder, config)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    cases = {
        "no biases": (lambda folder, _: write_tensors(folder / "router.safetensors", {"weights": np.eye(6)}), "biases"),
        "unknown pair": (lambda _, config: config["settings"].update(strong="elk"), "unknown model 'elk'"),
        "bad report": (lambda _, config: config["settings"]["training"].update(epochs="many"), "epochs"),
    }
    for name, (change, message) in cases.items():
        with pytest.raises(PersistenceError, match=message):
            load_router(damaged(name, change), embedder=SixEmbedder())


def test_only_short_texts_on_a_quick_embedder_are_scored_on_the_loop() -> None:
    static = as_embedder("static")
    made = router(embedder=static, weights=np.zeros((4, 256)), centre=None)
    assert made._is_quick(["short"])
    assert not made._is_quick(["x" * 600])
    assert not made._is_quick(["short"] * 9)
    assert not router()._is_quick(["short"])


@settings(deadline=None, max_examples=30)
@given(arrays(np.float32, (5, 4), elements=st.floats(-100, 100, width=32)))
def test_standardising_folds_back_exactly(embeddings: Any) -> None:
    standard = Standardisation.fit(embeddings, [3, 1])
    weights, biases = np.arange(8.0).reshape(2, 4) - 3.0, np.array([0.5, -1.0])
    raw_weights, raw_biases = standard.folded(weights, biases)
    direct = ((embeddings.astype(np.float64) - standard.centre) / standard.scale) @ weights.T + biases
    size = np.abs(raw_weights).max() * 100 + 1
    np.testing.assert_allclose(embeddings @ raw_weights.T + raw_biases, direct, atol=1e-12 * size, rtol=1e-9)


def test_standardising_evens_coordinates_within_each_part_only() -> None:
    generator = np.random.default_rng(0)
    embeddings = (generator.standard_normal((500, 5)) * [1, 2, 3, 0, 0.5]).astype(np.float32) + 7
    found = Standardisation.fit(embeddings, [4, 1])(embeddings)
    spread = found.std(axis=0)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)
    assert spread[:3] == pytest.approx(spread[0], rel=1e-4)
    assert spread[3] == 0
    assert np.square(found).sum(axis=1).mean() == pytest.approx(1, rel=1e-4)
    usual = float(np.sqrt(np.mean(embeddings.std(axis=0)[:4] ** 2)))
    assert spread[4] / spread[0] == pytest.approx(embeddings[:, 4].std() / usual, rel=1e-4)


def test_part_widths() -> None:
    assert part_widths(as_embedder("static+length"), 257) == [256, 1]
    assert part_widths(as_embedder("static+length"), 300) == [300]
    assert part_widths(FakeEmbedder(8), 8) == [8]
