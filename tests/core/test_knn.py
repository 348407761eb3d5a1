"""Nearest neighbours: the mean of the right prompts, ties, the choice of k, files."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prefroute.data import Battles
from prefroute.errors import ConfigurationError, DataError, PersistenceError
from prefroute.persistence import digest_of
from prefroute.routers._index import build_index
from prefroute.routers.knn import KNNRouter
from prefroute.testing import FakeEmbedder
from prefroute.types import Battle, ModelPair

PAIR = ModelPair("big", "small")


class Numbers:
    """Embeds the text "a b c" as those numbers."""

    dimensions = 2

    def embed(self, texts: Any) -> Any:
        return np.array([[float(number) for number in text.split()] for text in texts], dtype=np.float32)


CIRCLE = [(np.cos(angle), np.sin(angle)) for angle in np.linspace(0, 2.5, 12)]
TEXTS = [f"{x} {y}" for x, y in CIRCLE]
OUTCOMES = [1.0, 1.0, 0.5, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.5, 0.0]


def battles() -> Battles:
    rows = [Battle(text, "big", "small", outcome) for text, outcome in zip(TEXTS, OUTCOMES, strict=True)]
    return Battles.from_rows([*rows, Battle("9 9", "big", "other", 0.0)])


def router(**options: Any) -> KNNRouter:
    return KNNRouter.fit(battles(), embedder=Numbers(), pair=PAIR, **options)


def test_the_score_is_the_mean_of_the_nearest() -> None:
    fitted = router(k=3)
    assert len(fitted.index) == 12, "other pairs are left out"
    np.testing.assert_allclose(fitted.win_probability([TEXTS[1], TEXTS[5], "-1 1"]), [2.5 / 3, 1 / 3, 0.5 / 3])
    assert fitted.models == ("big", "small")
    assert fitted.win_probability([]).shape == (0,)


def test_neighbours_count_by_weight_and_by_cosine() -> None:
    parts: dict[str, Any] = {
        "embedder": Numbers(),
        "index": build_index([np.array([[1, 0], [1, 1], [0, 1]])], 3),
        "outcomes": np.array([1.0, 0.0, 1.0]),
        "pair": PAIR,
    }
    weighted = KNNRouter(weights=np.array([1.0, 3.0, 1.0]), k=2, **parts)
    assert weighted.win_probability(["1 0.1"])[0] == pytest.approx(1 / 4)
    by_cosine = KNNRouter(weights=np.ones(3), k=3, similarity_weighted=True, **parts)
    assert by_cosine.win_probability(["1 0"])[0] == pytest.approx(1 / (1 + 0.5**0.5))
    assert by_cosine.win_probability(["0 0"])[0] == pytest.approx(2 / 3), "no cosine to weigh by"


def test_prompts_that_tie_share_the_last_places() -> None:
    texts = ["1 0", "2 0", "3 0", "0 1"]
    rows = [Battle(text, "big", "small", outcome) for text, outcome in zip(texts, [1.0, 0.0, 0.0, 1.0], strict=True)]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        fitted = KNNRouter.fit(Battles.from_rows([rows[i] for i in order]), embedder=Numbers(), pair=PAIR, k=2)
        np.testing.assert_allclose(fitted.win_probability(["1 0", "0 1", "0 0"]), [1 / 3, (1 + 1 / 3) / 2, 0.5])


def test_k_is_the_one_with_the_least_error_on_prompts_kept_out() -> None:
    random = np.random.default_rng(0)
    points = random.standard_normal((300, 2))
    chance = np.where(points[:, 0] > 0, 0.9, 0.1)
    rows = [
        Battle(f"{x} {y}", "big", "small", float(random.random() < p)) for (x, y), p in zip(points, chance, strict=True)
    ]
    fitted = KNNRouter.fit(Battles.from_rows(rows), embedder=Numbers(), pair=PAIR, k=[1, 20, 240])
    assert fitted.k == 20
    default = KNNRouter.fit(Battles.from_rows(rows), embedder=Numbers(), pair=PAIR)
    assert default.k in {10, 30, 100}
    scores = default.win_probability([f"{x} {y}" for x, y in random.standard_normal((500, 2))])
    assert default.threshold is not None
    assert 0.3 < (scores >= default.threshold).mean() < 0.7
    with pytest.raises(DataError, match="battles over 1 prompt"):
        KNNRouter.fit(Battles.from_rows(rows[:1]), embedder=Numbers(), pair=PAIR)


@pytest.mark.parametrize("k", [0, 13, 1.5, True, [], [3, 13], "3"])
def test_a_k_that_cannot_be_is_refused(k: Any) -> None:
    with pytest.raises(ConfigurationError, match="k must be"):
        router(k=k)


def test_data_without_the_pair_are_refused() -> None:
    with pytest.raises(DataError, match="tiny"):
        KNNRouter.fit(battles(), embedder=Numbers(), pair=ModelPair("big", "tiny"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_saved_router_is_the_same(dtype: Any, tmp_path: Path) -> None:
    fitted = router(k=4, similarity_weighted=True, index_dtype=dtype)
    fitted.save_pretrained(tmp_path)
    loaded = KNNRouter.from_pretrained(tmp_path, embedder=Numbers())
    np.testing.assert_array_equal(loaded.win_probability(TEXTS), fitted.win_probability(TEXTS))
    assert (loaded.threshold, loaded.k, loaded.pair) == (fitted.threshold, 4, PAIR)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.win_probability(TEXTS), fitted.win_probability(TEXTS))
    with pytest.raises(PersistenceError, match="Numbers"):
        KNNRouter.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("outcomes", np.full(12, 2.0)),
        ("outcomes", np.full(12, np.nan)),
        ("outcomes", np.ones(3)),
        ("outcomes", np.ones(12, dtype=np.float32)),
        ("weights", np.zeros(12)),
        ("weights", None),
    ],
)
def test_a_damaged_folder_is_refused(name: str, value: Any, tmp_path: Path) -> None:
    router(k=3).save_pretrained(tmp_path)
    path = tmp_path / "router.safetensors"
    tensors = {key: tensor.copy() for key, tensor in load_file(path).items()}
    tensors.pop(name)
    save_file(tensors if value is None else tensors | {name: value}, path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["files"]["router.safetensors"] = digest_of(path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PersistenceError, match=name):
        KNNRouter.from_pretrained(tmp_path, embedder=Numbers())


def test_an_embedder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    fitted = router(k=3)
    fitted.save_pretrained(tmp_path)

    class Wide(FakeEmbedder):
        dimensions = 8

    with pytest.raises(ConfigurationError, match="gives 8 numbers a prompt, the index has 2"):
        KNNRouter.from_pretrained(tmp_path, embedder=Wide())
    with pytest.raises(ConfigurationError, match="rows of 2 numbers"):
        KNNRouter.from_pretrained(tmp_path, embedder=FakeEmbedder(8)).win_probability(["x"])
