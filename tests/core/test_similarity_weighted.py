"""Similarity weighting against a full logistic regression, tiers and names, growing, choosing, files."""

import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression

from prefroute.data import Battles
from prefroute.errors import ConfigurationError, DataError, PersistenceError
from prefroute.persistence import digest_of
from prefroute.routers import _fast_products, _index, _tier_sums
from prefroute.routers._index import build_index
from prefroute.routers._similarity_choice import CentredView
from prefroute.routers.similarity_weighted import SimilarityWeightedRouter
from prefroute.testing import FakeEmbedder
from prefroute.types import Battle, ModelPair

MODELS = [f"model-{number:02d}" for number in range(8)]
PAIR = ModelPair("model-00", "model-07")
QUERIES = [f"query {number}" for number in range(7)] + ["prompt 3"]


def battles(
    count: int = 400, *, prompts: int = 150, seed: int = 0, models: int = 8, start: int = 0, own: bool = False
) -> Battles:
    """Models of descending strength; ties, partial outcomes and weights among them."""
    random = np.random.default_rng(seed)
    a = random.integers(0, models, count)
    b = (a + random.integers(1, models, count)) % models
    outcomes = (random.random(count) < 1 / (1 + np.exp((a - b) * 0.5))).astype(float)
    outcomes = np.where(random.random(count) < 0.3, random.choice([0.5, 0.8], count), outcomes)
    index = np.arange(count) if own else random.integers(0, prompts, count)
    return Battles.from_rows(
        Battle(f"prompt {start + p}", MODELS[i], MODELS[j], o, w)
        for p, i, j, o, w in zip(index, a, b, outcomes, random.uniform(0.5, 2, count), strict=True)
    )


def fit(table: Battles | None = None, **options: Any) -> SimilarityWeightedRouter:
    options = {"embedder": FakeEmbedder(12), "pair": PAIR, "num_tiers": 4} | options
    return SimilarityWeightedRouter.fit(battles() if table is None else table, **options)


def regressed(
    table: Battles, queries: list[str], tiers: dict[str, int], *, base: float, centred: bool
) -> NDArray[np.float64]:
    """The published way: a logistic regression on two rows a battle for every query, same-tier rows dropped."""
    embedded = FakeEmbedder(12).embed([*table.prompts, *queries]).astype(np.float64)
    if centred:
        embedded -= embedded[: len(table.prompts)].mean(axis=0)
        embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    tier = np.array([tiers[name] - 1 for name in table.models])
    a, b = tier[table.model_a], tier[table.model_b]
    kept = np.flatnonzero(a != b)
    design = np.zeros((len(kept), max(tiers.values())))
    design[np.arange(len(kept)), a[kept]], design[np.arange(len(kept)), b[kept]] = 1, -1
    scores = []
    for query in embedded[len(table.prompts) :]:
        cosines = embedded[: len(table.prompts)] @ query
        weights = (base ** (1 + cosines / cosines.max()))[table.prompt_index] * table.weights
        rows = np.concatenate([weights * table.outcomes, weights * (1 - table.outcomes)])
        rows = rows.reshape(2, -1)[:, kept].ravel()
        regression = LogisticRegression(
            C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000, solver="newton-cholesky"
        )
        regression.fit(
            np.concatenate([design, design])[rows > 0, :-1], np.repeat([1, 0], len(kept))[rows > 0], rows[rows > 0]
        )
        x = np.append(regression.coef_[0], 0.0)
        scores.append(1 / (1 + np.exp(x[tiers[PAIR.weak] - 1] - x[tiers[PAIR.strong] - 1])))
    return np.array(scores)


@pytest.mark.parametrize("table", [battles(), battles(400, own=True)], ids=["shared prompts", "one prompt a battle"])
@pytest.mark.parametrize(("base", "centred"), [(10.0, False), (100.0, True)])
def test_a_full_logistic_regression_gives_the_same(table: Battles, base: float, centred: bool) -> None:
    router = fit(table, base=base, centred=centred)
    expected = regressed(table, QUERIES, router.tiers, base=base, centred=centred)
    np.testing.assert_allclose(router.win_probability(QUERIES), expected, atol=1e-5)
    assert np.ptp(expected) > 0.01, "prompts matter"


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
@pytest.mark.parametrize("torch_helps", [True, False])
def test_smaller_indices_stay_within_a_thousandth(
    dtype: Any, torch_helps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch_helps:
        monkeypatch.setattr(_fast_products, "has_bfloat16", lambda: False)
        monkeypatch.setattr(_fast_products, "has_int8", lambda: False)
    exact, small = fit(), fit(index_dtype=dtype)
    assert small.index.rows.nbytes < exact.index.rows.nbytes
    np.testing.assert_allclose(small.win_probability(QUERIES), exact.win_probability(QUERIES), atol=1e-3)


def test_long_sums_are_cut_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit().win_probability(QUERIES)
    monkeypatch.setattr(_tier_sums, "_ROWS", 3)
    monkeypatch.setattr(_index, "_RESULTS", 400)
    np.testing.assert_allclose(fit().win_probability(QUERIES), whole, atol=1e-7)


@given(st.integers(0, 2**32), st.floats(1.1, 1e6))
@settings(max_examples=25, deadline=None)
def test_swapping_the_sides_of_battles_or_of_the_pair_changes_nothing(seed: int, base: float) -> None:
    table = battles(60, seed=seed)
    swapped = Battles.from_rows(
        Battle(row.prompt, row.model_b, row.model_a, 1 - row.outcome, row.weight) for row in table
    )
    router = fit(table, base=base, pair=ModelPair("tier 1", "tier 4"))
    other = fit(swapped[::-1], base=base, pair=ModelPair("tier 1", "tier 4"))
    scores = router.win_probability(QUERIES)
    assert ((scores > 0) & (scores < 1)).all()
    np.testing.assert_allclose(other.win_probability(QUERIES), scores, atol=1e-5)
    turned = router.with_pair(ModelPair("tier 4", "tier 1")).win_probability(QUERIES)
    np.testing.assert_allclose(turned, 1 - scores, atol=1e-9)


def test_one_sided_battles_stay_inside_0_and_1() -> None:
    table = Battles.from_rows(Battle(f"prompt {i}", "good", "bad", 1.0) for i in range(500))
    scores = fit(table, pair=ModelPair("good", "bad"), num_tiers=None).win_probability(QUERIES)
    assert ((scores > 0.99) & (scores < 1)).all()


def test_a_query_without_a_direction_sees_all_battles_alike() -> None:
    router = fit()
    zero, flat = router.win_probability_of_embeddings(np.zeros((1, 12))), fit(base=1 + 1e-9).win_probability(QUERIES)
    np.testing.assert_allclose(flat, zero[0], atol=1e-6)


def test_tiers_follow_ratings_and_are_few_where_models_are() -> None:
    router = fit(num_tiers=None)
    assert set(router.tiers.values()) == set(range(1, 9))
    by_rating = sorted(router.ratings, key=router.ratings.__getitem__, reverse=True)
    assert [router.tiers[name] for name in by_rating] == sorted(router.tiers.values())
    assert sum(router.ratings.values()) / 8 == pytest.approx(1000)
    assert router.models == tuple(MODELS)


def test_the_threshold_sends_half_of_such_prompts_to_the_strong_model() -> None:
    router = fit(battles(2000, prompts=800))
    assert router.threshold is not None
    scores = router.win_probability([f"another {number}" for number in range(600)])
    assert 0.4 < (scores >= router.threshold).mean() < 0.6
    again = fit(battles(2000, prompts=800))
    assert again.threshold == router.threshold
    assert fit(battles(2000, prompts=800), seed=1).threshold != pytest.approx(0.5)


def test_the_threshold_is_the_median_over_prompts_that_do_not_see_themselves() -> None:
    table = battles(60, prompts=25, models=2)
    options: dict[str, Any] = {"pair": ModelPair("model-00", "model-01"), "num_tiers": None, "base": 1e3}
    scores = [
        fit(table[table.prompt_index != i], **options).win_probability([prompt])[0]
        for i, prompt in enumerate(table.prompts)
    ]
    assert np.ptp(scores) > 0.1
    assert fit(table, **options).threshold == pytest.approx(np.median(scores), abs=1e-6)


def test_any_pair_or_tier_can_be_routed() -> None:
    router = fit()
    other = router.with_pair(ModelPair("model-03", "Tier 4"))
    assert other.index is router.index
    assert other._data is router._data
    assert other.threshold not in {None, router.threshold}
    strong, weak = router.tiers["model-00"], router.tiers["model-07"]
    by_tier = router.with_pair(ModelPair(f"tier {strong}", f"tier {weak}"))
    np.testing.assert_array_equal(by_tier.win_probability(QUERIES), router.win_probability(QUERIES))
    assert by_tier.threshold == router.threshold


def test_an_unseen_model_is_placed_by_likeness_tier_or_rating() -> None:
    router = fit()
    for way in ({"like": "model-06"}, {"tier": router.tiers["model-06"]}, {"rating": router.ratings["model-06"] + 1}):
        placed = router.with_model("new", **way)  # type: ignore[arg-type]
        assert placed.tiers["new"] == router.tiers["model-06"]
        assert "new" not in router.models
        assert placed.index is router.index
        assert placed.threshold == router.threshold
        scores = placed.with_pair(ModelPair("model-00", "new")).win_probability(QUERIES)
        expected = router.with_pair(ModelPair("model-00", "model-06")).win_probability(QUERIES)
        np.testing.assert_array_equal(scores, expected)
    assert router.with_model("best", rating=9000).tiers["best"] == 1
    for wrong in (
        {},
        {"like": "model-06", "tier": 1},
        {"tier": 5},
        {"tier": 0},
        {"rating": float("nan")},
        {"like": "x"},
    ):
        with pytest.raises(ConfigurationError):
            router.with_model("new", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="known already, in tier 1"):
        router.with_model("model-00", tier=2)


def test_names_that_cannot_be_routed_are_refused_with_a_remedy() -> None:
    with pytest.raises(ConfigurationError, match=r"'model-0'; near it: model-0.*with_model\(name, like=KNOWN\)"):
        fit(pair=ModelPair("model-0", "model-07"))
    with pytest.raises(ConfigurationError, match=r"'tier 5'.*tier 1 to tier 4"):
        fit(pair=ModelPair("tier 5", "model-07"))
    router = fit()
    inside = [name for name, tier in router.tiers.items() if tier == router.tiers["model-04"]]
    assert len(inside) > 1
    with pytest.raises(ConfigurationError, match=r"both in tier \d of 4 .*0\.5; name models of two tiers, one of tier"):
        fit(pair=ModelPair(inside[0], inside[1]))
    with pytest.raises(ConfigurationError, match="both in tier 1 of 1"):
        fit(num_tiers=1)
    with pytest.raises(ConfigurationError, match="ModelPair"):
        fit(pair=("model-00", "model-07"))


@pytest.mark.parametrize(
    "options",
    [
        {"base": 1.0},
        {"base": "10"},
        {"base": []},
        {"base": [10.0, float("nan")]},
        {"base": 1e40},
        {"centred": "yes"},
        {"centred": 1},
        {"ridge": 0.0},
        {"ridge": -1.0},
        {"num_tiers": 9},
        {"num_tiers": 0},
        {"index_dtype": "float16"},
        {"embedder": "no such"},
    ],
)
def test_arguments_that_cannot_be_used_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"got|unknown"):
        fit(**options)


def test_no_battles_are_refused() -> None:
    with pytest.raises(DataError, match="no battles"):
        fit(battles()[:0])


class Compass:
    """Embeds "x y" far from the origin: all cosines are near 1 until the mean is subtracted."""

    def embed(self, texts: Any) -> Any:
        return np.array([[float(n) + 6.0 for n in text.split()] for text in texts], dtype=np.float32)


def compass(count: int = 240, *, gain: float = 0.4) -> Battles:
    random = np.random.default_rng(0)
    points = random.standard_normal((count, 2))
    won = random.random(count) < 0.5 + np.sign(points[:, 0]) * gain + 0.05
    return Battles.from_rows(Battle(f"{x} {y}", "good", "bad", float(w)) for (x, y), w in zip(points, won, strict=True))


def test_base_and_centring_are_chosen_on_prompts_kept_out(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"embedder": Compass(), "pair": ModelPair("good", "bad"), "num_tiers": None}
    with caplog.at_level(logging.INFO):
        router = fit(compass(), base=[10.0, 30.0], centred=None, progress=True, **options)
    assert router.index.mean is not None
    assert router.base in {10.0, 30.0}
    assert "Choosing" in capsys.readouterr().err
    assert "cross-validated log loss" in caplog.text
    same = fit(compass(), base=router.base, centred=True, **options)
    np.testing.assert_allclose(same.win_probability(["1 0"]), router.win_probability(["1 0"]), atol=1e-6)
    assert fit(compass(), base=(1.01, 100.0), index_dtype="int8", **options).index.dtype == "int8"


def test_nothing_to_choose_by_is_an_error_with_a_remedy() -> None:
    options: dict[str, Any] = {"embedder": Compass(), "pair": ModelPair("good", "bad"), "base": [10.0, 100.0]}
    with pytest.raises(ConfigurationError, match=r"4 prompts.*too few.*give one base"):
        fit(compass(4), num_tiers=None, **options)


def test_what_is_left_open_is_as_published_where_there_is_little_to_choose_by() -> None:
    options: dict[str, Any] = {"embedder": Compass(), "pair": ModelPair("good", "bad"), "num_tiers": None}
    few = SimilarityWeightedRouter.fit(compass(49), **options)
    assert (few.base, few.index.mean) == (10.0, None)
    assert SimilarityWeightedRouter.fit(compass(49), centred=True, **options).index.mean is not None
    assert SimilarityWeightedRouter.fit(compass(49), base=30.0, **options).base == 30.0
    many = SimilarityWeightedRouter.fit(compass(), **options)
    assert many.base > 10.0
    assert many.index.mean is not None


def test_an_index_is_judged_as_centred_without_a_copy() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32) + 1.0
    rows[7] = 0.0
    plain = build_index([rows], len(rows))
    view, centred = CentredView(plain), plain.centred()
    chosen = np.array([0, 7, 200])
    np.testing.assert_array_equal(view.unpacked(chosen), centred.unpacked(chosen))
    found = view.cosines(view.unpacked(chosen))
    np.testing.assert_allclose(found, centred.cosines(centred.unpacked(chosen)), atol=1e-6)
    assert not found[7].any()
    assert not found[:, 1].any()


def test_adding_is_as_if_the_battles_had_been_there() -> None:
    """The tiers are those of the first battles, so both routers are compared after they were cut anew."""
    first, more = battles(300), battles(200, seed=1, start=75)
    router, whole = fit(first), fit(Battles.concatenate([first, more]))
    added = router.add(more)
    known = set(first.prompts)
    assert added.battles == 200
    assert added.new_prompts == len([text for text in more.prompts if text not in known])
    assert (added.new_models, added.waiting) == ((), 0)
    assert len(router.index) == len(whole.index)
    tiers = router.tiers
    expected = regressed(Battles.concatenate([first, more]), QUERIES, tiers, base=10, centred=False)
    np.testing.assert_allclose(router.win_probability(QUERIES), expected, atol=1e-5)
    router.refit()
    assert router.tiers == whole.tiers
    np.testing.assert_allclose(router.win_probability(QUERIES), whole.win_probability(QUERIES), atol=1e-6)
    assert router.threshold == pytest.approx(whole.threshold, abs=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_adding_to_a_centred_small_index_keeps_its_form(dtype: Any) -> None:
    router = fit(index_dtype=dtype, centred=True)
    router.add(battles(50, seed=1, start=500))
    assert router.index.dtype == dtype
    own = FakeEmbedder(12).embed(["prompt 3"])
    assert router.index.cosines(router.index.prepare(own)).max() == pytest.approx(1, abs=2e-2)


def test_battles_over_known_prompts_share_the_index() -> None:
    router = fit()
    index, before = router.index, router.win_probability(QUERIES)
    added = router.add(battles(50, seed=5)[:20])
    assert added.new_prompts == 0
    assert router.index is index
    assert not np.allclose(router.win_probability(QUERIES), before)
    assert router.add(battles()[:0]).battles == 0


def test_models_without_a_tier_wait_for_refit(caplog: pytest.LogCaptureFixture) -> None:
    router = fit()
    before = router.win_probability(QUERIES)
    more = Battles.from_rows(Battle(f"prompt {i}", "new", "model-07", 1.0) for i in range(30))
    with caplog.at_level(logging.WARNING):
        added = router.add(more)
    assert (added.new_models, added.waiting) == (("new",), 30)
    assert "30 battles of models without a tier count only after refit()" in caplog.text
    assert "new" in router.models
    assert "new" not in router.tiers
    np.testing.assert_array_equal(router.win_probability(QUERIES), before)
    with pytest.raises(ConfigurationError, match=r"no tier yet; call refit\(\)"):
        router.with_pair(ModelPair("new", "model-07"))
    assert router.with_model("new", tier=2).tiers["new"] == 2
    router.refit()
    assert router.tiers["new"] == 1
    assert router.with_pair(ModelPair("new", "model-07")).win_probability(QUERIES).min() > 0.5


def test_refit_keeps_placed_models_and_a_threshold_set_by_hand() -> None:
    router = fit().with_model("new", like="model-02")
    router.threshold = 0.123
    router.add(battles(300, seed=9, start=900))
    router.refit(progress=False)
    assert router.threshold == 0.123
    rating = router.ratings["new"]
    nearest = min(MODELS, key=lambda name: abs(router.ratings[name] - rating))
    assert router.tiers["new"] == router.tiers[nearest]


def test_a_refit_that_joins_the_pair_leaves_the_router_as_it_was() -> None:
    table = Battles.from_rows(
        [Battle(f"p{i}", "a", "b", 1.0) for i in range(20)] + [Battle(f"p{i}", "b", "a", 1.0) for i in range(10)]
    )
    router = fit(table, pair=ModelPair("a", "b"), num_tiers=2)
    scores = router.win_probability(QUERIES)
    router.add(Battles.from_rows(Battle(f"p{i}", "c", name, 1.0) for i in range(20) for name in "ab"))
    with pytest.raises(ConfigurationError, match="both in tier 2 of 2"):
        router.refit()
    np.testing.assert_array_equal(router.win_probability(QUERIES), scores)


def test_readers_see_a_router_before_or_after_but_never_between() -> None:
    first, more = battles(200), battles(200, seed=1, start=100)
    router, after = fit(first), fit(first)
    before = router.win_probability(QUERIES)
    after.add(more)
    allowed = (before, after.win_probability(QUERIES))
    stop, seen, failures = threading.Event(), [], []

    def read() -> None:
        try:
            while not stop.is_set():
                seen.append(router.win_probability(QUERIES))
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(16)]
    for thread in threads:
        thread.start()
    while len(seen) < 20 and not failures:
        time.sleep(0.001)
    router.add(more)
    stop_at = len(seen) + 20
    while len(seen) < stop_at and not failures:
        time.sleep(0.001)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert all(any(np.array_equal(scores, wanted) for wanted in allowed) for scores in seen)
    assert any(np.array_equal(scores, allowed[1]) for scores in seen)


@pytest.mark.parametrize("options", [{}, {"centred": True}, {"index_dtype": "bfloat16"}, {"index_dtype": "int8"}])
def test_a_saved_router_is_the_same_and_goes_on_learning(options: dict[str, Any], tmp_path: Path) -> None:
    router = fit(base=30, ridge=1e-3, seed=4, **options).with_model("new", rating=800)
    router.add(battles(30, seed=2, start=400))
    router.save_pretrained(tmp_path)
    loaded = SimilarityWeightedRouter.from_pretrained(tmp_path, embedder=FakeEmbedder(12))
    for name in ("threshold", "tiers", "ratings", "pair", "base", "ridge", "seed", "num_tiers"):
        assert getattr(loaded, name) == getattr(router, name), name
    np.testing.assert_array_equal(loaded.win_probability(QUERIES), router.win_probability(QUERIES))
    for either in (router, loaded):
        assert either.add(battles(30, seed=2, start=401)).new_prompts > 0
        either.refit()
    np.testing.assert_array_equal(loaded.win_probability(QUERIES), router.win_probability(QUERIES))
    assert loaded.threshold == router.threshold
    loaded.save_pretrained(tmp_path)
    again = SimilarityWeightedRouter.from_pretrained(tmp_path, embedder=FakeEmbedder(12))
    np.testing.assert_array_equal(again.win_probability(QUERIES), router.win_probability(QUERIES))
    copy = pickle.loads(pickle.dumps(router))
    np.testing.assert_array_equal(copy.win_probability(QUERIES), router.win_probability(QUERIES))
    assert copy.add(battles(5)).battles == 5


def changed(name: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "router.safetensors"
        tensors = {key: tensor.copy() for key, tensor in load_file(path).items()}
        tensors[name] = value(tensors[name])
        save_file({key: tensor for key, tensor in tensors.items() if tensor is not None}, path)

    return change


def set_to(place: Any, number: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(tensor: NDArray[Any]) -> NDArray[Any]:
        tensor[place] = number
        return tensor

    return change


def setting(name: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["settings"][name] = value
        (folder / "config.json").write_text(json.dumps(config))

    return change


def cut_index(folder: Path) -> None:
    np.save(folder / "index.npy", np.load(folder / "index.npy")[:-1])


@pytest.mark.parametrize(
    "damage",
    [
        *[changed(name, lambda _: None) for name in ("rows", "weights", "prompt_ids", "tiers", "held_out")],
        *[changed(name, lambda tensor: tensor[:-1]) for name in ("rows", "outcomes", "prompt_ids", "ratings", "tiers")],
        *[changed(name, set_to(0, -1)) for name in ("rows", "model_a", "outcomes", "weights")],
        *[changed(name, set_to(0, 10**6)) for name in ("rows", "model_b", "outcomes", "tiers")],
        *[changed(name, set_to(0, np.nan)) for name in ("outcomes", "weights", "ratings", "held_out")],
        *[changed(name, lambda tensor: tensor.astype(np.int64)) for name in ("rows", "tiers")],
        changed("tiers", set_to(slice(None), 0)),
        changed("held_out", lambda tensor: np.ascontiguousarray(tensor[:, 1:])),
        setting("models", ["a"]),
        setting("models", ["a"] * 8),
        setting("models", "model"),
        setting("num_tiers", 0),
        setting("num_tiers", 10**9),
        setting("pair", {"strong": "model-00", "weak": "nobody"}),
        setting("pair", {"strong": "x", "weak": "x"}),
        setting("base", 0.5),
        setting("ridge", -1.0),
        setting("seed", "1"),
        setting("more", 1),
        cut_index,
        lambda folder: (folder / "index.npy").unlink(),
    ],
)
def test_a_damaged_folder_is_refused(damage: Callable[[Path], None], tmp_path: Path) -> None:
    fit().save_pretrained(tmp_path)
    damage(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    # As one would who means harm: the digests fit.
    config["files"] = {name: digest_of(tmp_path / name) for name in config["files"] if (tmp_path / name).exists()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PersistenceError):
        SimilarityWeightedRouter.from_pretrained(tmp_path, embedder=FakeEmbedder(12))


def test_the_embedder_is_saved_or_must_be_brought(tmp_path: Path) -> None:
    fit().save_pretrained(tmp_path)
    with pytest.raises(PersistenceError, match="FakeEmbedder"):
        SimilarityWeightedRouter.from_pretrained(tmp_path)
    router = fit(embedder=None)
    router.save_pretrained(tmp_path / "static")
    loaded = SimilarityWeightedRouter.from_pretrained(tmp_path / "static")
    np.testing.assert_array_equal(loaded.win_probability(QUERIES), router.win_probability(QUERIES))
    with pytest.raises(ConfigurationError, match="rows of 12 numbers"):
        fit().win_probability_of_embeddings(np.ones((1, 3)))


def test_the_choice_counts_battles_by_their_weight() -> None:
    """Few heavy battles with a signal among many light ones without."""
    signal, noise = compass(100), compass(400, gain=0.0)
    assert signal.prompts != noise.prompts
    table = Battles.concatenate(
        [
            signal.with_columns(weights=np.full(len(signal), 100.0)),
            noise.with_columns(weights=np.full(len(noise), 1e-3)),
        ]
    )
    options: dict[str, Any] = {"embedder": Compass(), "pair": ModelPair("good", "bad"), "num_tiers": None}
    chosen = SimilarityWeightedRouter.fit(table, base=(1.01, 300.0), centred=True, **options)
    assert (
        chosen.base == SimilarityWeightedRouter.fit(signal, base=(1.01, 300.0), centred=True, **options).base == 300.0
    )


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True, None])
def test_a_seed_that_cannot_be_is_refused(seed: Any) -> None:
    with pytest.raises(ConfigurationError, match="seed must be an integer"):
        fit(seed=seed)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e12])
def test_only_the_proportions_of_the_weights_count(scale: float) -> None:
    table = battles(300)
    scaled = table.with_columns(weights=table.weights * scale)
    router, other = fit(table), fit(scaled)
    np.testing.assert_allclose(other.win_probability(QUERIES), router.win_probability(QUERIES), atol=1e-6)
    more = battles(100, seed=1, start=75)
    router.add(more)
    other.add(more.with_columns(weights=more.weights * scale))
    np.testing.assert_allclose(other.win_probability(QUERIES), router.win_probability(QUERIES), atol=1e-6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_forked_child_scores_as_its_parent(dtype: Any) -> None:
    """torch's threads are not in the child: waiting for them would never end."""
    code = f"""
import os, signal, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from prefroute.routers.similarity_weighted import SimilarityWeightedRouter
from prefroute.testing import FakeEmbedder
from prefroute.types import Battle, ModelPair
from prefroute.data import Battles
rows = [Battle(f"prompt {{n}}", "a", "b", float(n % 3 > 0)) for n in range(3000)]
router = SimilarityWeightedRouter.fit(
    Battles.from_rows(rows), embedder=FakeEmbedder(64), pair=ModelPair("a", "b"), index_dtype={dtype!r}, base=10.0,
    centred=False,
)
texts = [f"query {{n}}" for n in range(64)]
expected = router.win_probability(texts)
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(int(not np.allclose(router.win_probability(texts), expected, atol=1e-3)))
_, status = os.waitpid(child, 0)
sys.exit(status and 1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
