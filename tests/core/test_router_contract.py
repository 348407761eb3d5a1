"""The contract that every router keeps. A new router is one factory and one line of `ROUTERS` (or `ON_EMBEDDINGS`)."""

import asyncio
import atexit
import json
import math
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefroute import PersistenceError, PromptTypeError, Router, load_router
from prefroute.data import Battles
from prefroute.demo import PROMPTS
from prefroute.embedding import as_embedder
from prefroute.persistence import write_tensors
from prefroute.routers.baselines import PromptLengthRouter, RandomRouter
from prefroute.testing import FakeEmbedder, FixedRouter
from prefroute.types import Battle, ModelPair

PAIR = ModelPair(strong="strong", weak="weak")
SECRET = "sk-never-shown"
HEAVY = ("openai", "pandas", "sklearn", "torch", "transformers")

HOSTILE = {
    "empty": "",
    "blank": " \t\r\n\u00a0\u3000",
    "one megabyte of words": "why? " * 200_000,
    "one megabyte without a space": "x" * 1_000_000,
    "one megabyte of emoji": "🔥" * 250_000,
    "lone surrogates": "\ud800 what \udfff is this \udc80",
    "NUL": "a\x00b\x00",
    "emoji": "🙂🚀👩‍👩‍👧",
    "right to left": "\u202e\u0645\u0627 \u0647\u0648 \u0623\u0643\u0628\u0631\u061f\u202c",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x9b",
    "unknown scripts": "𓀀𓁀 𒀀𒀁 ᚠᚢᚦ ꩺꩻ",
    "unassigned and private": "\u0378\ue000\U000f0000\U0010ffff",
    "combining marks": "e" + "\u0301" * 5000,
    "markup and markers": "<|eot_id|> [[1]] {prompt} %s </s>",
}


def _battles() -> Battles:
    """Four models; the parts of one question fare alike, and what embedders see as nothing is among the prompts."""
    names = ("strong", "other", "another", "weak")
    prompts = [f"{prompt} Part {part}." for prompt in PROMPTS for part in range(3)] + ["", "🙂🚀"]
    generator = np.random.default_rng(5)
    rows = []
    for index, prompt in enumerate(prompts):
        for a, b in ((0, 1), (1, 2), (2, 3), (0, 3)):
            gain = 0.14 * (b - a) * (1 if index // 3 % 2 else -0.3)
            outcome = float(generator.choice([1.0, 0.5, 0.0], p=[0.45 + gain, 0.1, 0.45 - gain]))
            left, right, outcome = (a, b, outcome) if index % 2 else (b, a, 1 - outcome)
            rows.append(Battle(prompt=prompt, model_a=names[left], model_b=names[right], outcome=outcome))
    return Battles.from_rows(rows)


BATTLES = _battles()


class KeyedEmbedder(FakeEmbedder):
    """Holds a key, as a client of a service does; cannot be saved."""

    def __init__(self) -> None:
        super().__init__(12)
        self.api_key = SECRET


EMBEDDERS: dict[str, Any] = {
    "fake": KeyedEmbedder(),
    "static": as_embedder("static"),
}


def bundled(_: Any) -> Router:
    return load_router()


def length_fitted(_: Any) -> Router:
    return PromptLengthRouter.fit(BATTLES, pair=PAIR)


def similarity_weighted(**options: Any) -> Callable[[Any], Router]:
    def build(embedder: Any) -> Router:
        from prefroute.routers.similarity_weighted import SimilarityWeightedRouter

        return SimilarityWeightedRouter.fit(BATTLES, embedder=embedder, pair=PAIR, **options)

    return build


def matrix_factorization(embedder: Any) -> Router:
    from prefroute.training import MatrixFactorizationConfig, train_matrix_factorization

    config = MatrixFactorizationConfig(max_epochs=3, folds=2, dimensions=16, learning_rate=3e-3)
    return train_matrix_factorization(BATTLES, embedder=embedder, pair=PAIR, config=config)


def of_routellm(embedder: Any) -> Router:
    from prefroute.compat.routellm import load_matrix_factorization

    generator = np.random.default_rng(0)
    dimensions = embedder.embed(["x"]).shape[1]
    shapes = {"P.weight": (4, 6), "text_proj.0.weight": (6, dimensions), "classifier.0.weight": (1, 6)}
    with tempfile.TemporaryDirectory() as folder:
        tensors = {name: generator.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
        write_tensors(Path(folder) / "model.safetensors", tensors)
        return load_matrix_factorization(folder, embedder=embedder, models=BATTLES.models, pair=PAIR, threshold=0.5)


def knn(embedder: Any) -> Router:
    from prefroute.routers.knn import KNNRouter

    return KNNRouter.fit(BATTLES, embedder=embedder, pair=PAIR)


def logistic_regression(embedder: Any) -> Router:
    from prefroute.routers.logistic_regression import LogisticRegressionRouter

    return LogisticRegressionRouter.fit(BATTLES, embedder=embedder, pair=PAIR)


@cache
def tiny(kind: str) -> str:
    """Folder of a tiny transformer with random weights."""
    from prefroute.testing import write_tiny_encoder, write_tiny_llama

    folder = Path(tempfile.mkdtemp(prefix="prefroute-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write = write_tiny_encoder if kind == "bert" else write_tiny_llama
    return str(write(folder, texts=PROMPTS))


def bert(labels: int) -> Callable[[Any], Router]:
    def train(_: Any) -> Router:
        from prefroute.training import BertConfig, train_bert

        config = BertConfig(model=tiny("bert"), labels=labels, steps=12, learning_rate=1e-2, evaluations=2)  # type: ignore[arg-type]
        return train_bert(BATTLES, pair=PAIR, config=config)

    return train


def causal_lm(_: Any) -> Router:
    from prefroute.training import CausalLMConfig, train_causal_lm

    config = CausalLMConfig(model=tiny("llama"), steps=12, learning_rate=1e-2, evaluations=2, instruction="Rate it.")
    return train_causal_lm(BATTLES, pair=PAIR, config=config)


def calibrated(_: Any) -> Router:
    from prefroute.routers.calibrated import CalibratedRouter

    outcomes = np.random.default_rng(0).integers(0, 3, 60) / 2
    return CalibratedRouter.fit(load_router(), [f"{PROMPTS[i % 20]} {i}" for i in range(60)], outcomes)[0]


ROUTERS: dict[str, Callable[[Any], Router]] = {
    "fixed": lambda _: FixedRouter(0.25, {PROMPTS[0]: 0.75}),
    "bundled default": bundled,
    "random": lambda _: RandomRouter(seed=3),
    "prompt-length untrained": lambda _: PromptLengthRouter(),
    "prompt-length": length_fitted,
    "calibrated": calibrated,
    "bert": bert(1),
    "bert of three labels": bert(3),
    "causal-lm": causal_lm,
}
"""Routers that need no embedder, or bring their own."""

ON_EMBEDDINGS: dict[str, Callable[[Any], Router]] = {
    "similarity-weighted float32": similarity_weighted(index_dtype="float32"),
    "similarity-weighted bfloat16": similarity_weighted(index_dtype="bfloat16"),
    "similarity-weighted int8": similarity_weighted(index_dtype="int8"),
    "similarity-weighted centred": similarity_weighted(centred=True, base=100.0),
    "matrix-factorization": matrix_factorization,
    "checkpoint of RouteLLM": of_routellm,
    "knn": knn,
    "logistic-regression": logistic_regression,
}
"""Routers that are tried on each of `EMBEDDERS`."""

CASES = [*ROUTERS, *(f"{name} on {embedder}" for name in ON_EMBEDDINGS for embedder in EMBEDDERS)]
SERVED_BY_TORCH = {"similarity-weighted bfloat16 on static", "similarity-weighted int8 on static"}
"""Those that multiply with torch where it is installed, as their documentation says."""

TRANSFORMERS = {"bert", "bert of three labels", "causal-lm"}
"""Those that are nothing without torch: it is imported when they are loaded."""

NOT_FITTED = {"fixed", "bundled default", "random", "prompt-length untrained", "calibrated"}
NOT_FITTED |= {f"checkpoint of RouteLLM on {embedder}" for embedder in EMBEDDERS}


@dataclass(frozen=True)
class Case:
    name: str
    router: Router
    embedder: Any


def build(name: str) -> Case:
    """Make the router anew."""
    kind, _, embedder_name = name.partition(" on ")
    embedder = EMBEDDERS.get(embedder_name)
    return Case(name, (ON_EMBEDDINGS if embedder_name else ROUTERS)[kind](embedder), embedder)


built = cache(build)
"""One router a name, shared by the tests as threads of a server share it."""

every_router = pytest.mark.parametrize("name", CASES)


def scores_of(case: Case, texts: Any) -> Any:
    """Scores, checked for what all scores are."""
    scores = case.router.win_probability(texts)
    assert isinstance(scores, np.ndarray), f"{case.name}: got {type(scores).__name__}"
    assert (scores.shape, scores.dtype) == ((len(texts),), np.float64), f"{case.name}: {scores.shape} {scores.dtype}"
    assert np.isfinite(scores).all(), f"{case.name}: {scores}"
    assert ((scores >= 0) & (scores <= 1)).all(), f"{case.name}: {scores}"
    return scores


@every_router
def test_a_batch_scores_as_one_by_one_in_any_order(name: str) -> None:
    case = built(name)
    texts = [*PROMPTS, *HOSTILE.values(), *BATTLES.prompts[:8], PROMPTS[0]]
    together = scores_of(case, texts)
    alone = np.concatenate([scores_of(case, [text]) for text in texts])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6, err_msg=f"{name}: one by one")
    backwards = scores_of(case, tuple(reversed(texts)))[::-1]
    np.testing.assert_allclose(together, backwards, rtol=0, atol=1e-6, err_msg=f"{name}: in reverse, as a tuple")
    many = scores_of(case, texts[:6] * 100)
    np.testing.assert_allclose(many, np.tile(alone[:6], 100), rtol=0, atol=1e-6, err_msg=f"{name}: a large batch")


@every_router
def test_no_prompts_are_no_scores(name: str) -> None:
    assert scores_of(built(name), []).shape == (0,)
    assert built(name).router.route_batch([]) == []


@every_router
def test_hostile_text_is_scored_not_failed(name: str) -> None:
    case = built(name)
    for kind, text in HOSTILE.items():
        decision = case.router.route(text, 0.5, on_error="raise")
        assert decision.reason == "score", f"{name}: {kind}"
        assert decision.score is not None, f"{name}: {kind}"
        assert 0 <= decision.score <= 1, f"{name}: {kind}"


@every_router
@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.one_of(st.text(st.characters()), st.sampled_from(PROMPTS)), min_size=1, max_size=8))
def test_any_text_at_all_has_a_score(name: str, texts: list[str]) -> None:
    case = built(name)
    together = scores_of(case, texts)
    last = scores_of(case, texts[-1:])
    np.testing.assert_allclose(together[-1:], last, rtol=0, atol=1e-6, err_msg=name)


@every_router
@pytest.mark.parametrize("bad", ["a lone text", b"bytes", [None], ["a", 3], [b"bytes"], [["a"]], None, 3])
def test_what_is_no_text_is_a_type_error(name: str, bad: Any) -> None:
    with pytest.raises(PromptTypeError, match="got"):
        built(name).router.win_probability(bad)
    with pytest.raises(PromptTypeError, match="got"):
        built(name).router.route_batch(bad)


@every_router
def test_nothing_that_comes_in_or_goes_out_is_shared(name: str) -> None:
    case = built(name)
    texts = list(PROMPTS)
    first = scores_of(case, texts)
    assert texts == list(PROMPTS), f"{name} changed the list that it was given"
    kept = first.copy()
    if first.flags.writeable:
        first[:] = -1
    np.testing.assert_array_equal(scores_of(case, texts), kept, err_msg=f"{name} gives out what it keeps")


@every_router
def test_async_scores_are_the_same(name: str) -> None:
    case = built(name)

    async def ask() -> tuple[Any, Any]:
        together = await asyncio.gather(*(case.router.aroute_batch(PROMPTS, 0.5, on_error="raise") for _ in range(4)))
        return await case.router.awin_probability(PROMPTS), together

    expected = scores_of(case, PROMPTS)
    scores, together = asyncio.run(ask())
    np.testing.assert_array_equal(scores, expected, err_msg=name)
    for decisions in together:
        decided = [decision.score for decision in decisions]
        np.testing.assert_allclose(decided, expected, rtol=0, atol=1e-6, err_msg=f"{name}: four at once")


@every_router
def test_made_twice_it_scores_the_same(name: str) -> None:
    columns = [BATTLES.outcomes.copy(), BATTLES.weights.copy(), BATTLES.prompt_index.copy(), BATTLES.model_a.copy()]
    first, second = built(name), build(name)
    np.testing.assert_array_equal(scores_of(first, PROMPTS), scores_of(second, PROMPTS), err_msg=name)
    assert first.router.threshold == second.router.threshold, name
    for before, after in zip(
        columns, [BATTLES.outcomes, BATTLES.weights, BATTLES.prompt_index, BATTLES.model_a], strict=True
    ):
        np.testing.assert_array_equal(before, after, err_msg=f"{name} changed the battles")


@every_router
def test_sixteen_threads_get_the_same_scores(name: str) -> None:
    case = built(name)
    texts = [*PROMPTS[:8], "", "🙂", "\ud800", "word " * 2000]
    expected = scores_of(case, texts)
    results: list[Any] = [None] * 16
    start = threading.Barrier(16)

    def work(slot: int) -> None:
        start.wait()
        results[slot] = [case.router.win_probability(texts) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for slot, answers in enumerate(results):
        assert answers is not None, f"{name}: thread {slot} failed"
        for scores in answers:
            # BLAS divides its sums otherwise while other threads use it: the last digits of float32 may differ.
            np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6, err_msg=f"{name}: thread {slot}")


@every_router
def test_its_repr_is_short_and_tells_no_secret(name: str) -> None:
    shown = repr(built(name).router)
    assert len(shown) <= 300, f"{name}: {shown}"
    assert "\n" not in shown, f"{name}: {shown}"
    assert SECRET not in shown, f"{name}: {shown}"
    assert not any(prompt in shown for prompt in BATTLES.prompts if prompt), f"{name}: {shown}"


@every_router
def test_a_fitted_router_knows_its_pair_and_a_threshold_that_splits_its_prompts(name: str) -> None:
    router: Any = built(name).router
    assert router.threshold is not None, name
    assert math.isfinite(router.threshold), name
    if name in NOT_FITTED:
        return
    assert router.pair == PAIR, name
    assert {"strong", "weak"} <= set(router.models), name
    assert list(router.models) == sorted(set(router.models)), name
    decisions = router.route_batch(list(BATTLES.prompts))
    assert 0.1 <= np.mean([decision.is_strong for decision in decisions]) <= 0.9, name


@every_router
def test_the_swapped_pair_mirrors_the_scores(name: str) -> None:
    case = built(name)
    router: Any = case.router
    if not hasattr(router, "with_pair"):
        return  # A router that was fitted to one pair knows no other.
    pair: ModelPair = router.pair
    swapped = Case(name, router.with_pair(ModelPair(strong=pair.weak, weak=pair.strong)), case.embedder)
    assert type(swapped.router) is type(router), name
    assert router.pair == pair, f"{name}: with_pair changed the router itself"
    np.testing.assert_allclose(scores_of(swapped, PROMPTS), 1 - scores_of(case, PROMPTS), atol=1e-6, err_msg=name)


@every_router
def test_given_embeddings_score_as_their_texts(name: str) -> None:
    case = built(name)
    of_embeddings = getattr(case.router, "win_probability_of_embeddings", None)
    if of_embeddings is None:
        assert case.embedder is None, f"{name} scores embeddings, so it should take them"
        return
    rows = case.router.embedder.embed(PROMPTS)  # type: ignore[attr-defined]
    np.testing.assert_allclose(of_embeddings(rows), scores_of(case, PROMPTS), rtol=0, atol=1e-6, err_msg=name)
    assert of_embeddings(rows[:0]).shape == (0,), name


@every_router
def test_saved_and_loaded_it_scores_the_same(name: str, tmp_path: Path) -> None:
    case = built(name)
    if not case.router.router_type:
        with pytest.raises(PersistenceError, match="cannot be saved"):
            case.router.save_pretrained(tmp_path)
        return
    case.router.save_pretrained(tmp_path)
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()), name
    assert not {path.suffix for path in tmp_path.rglob("*")} & {".pkl", ".pickle", ".joblib", ".pt"}, name
    own = {}
    if isinstance(case.embedder, FakeEmbedder):
        with pytest.raises(PersistenceError, match="embedder="):
            load_router(tmp_path)
        own = {"embedder": case.embedder}
    texts = [*PROMPTS, "", "🙂", "\ud800"]
    for loaded in (load_router(tmp_path, **own), type(case.router).from_pretrained(tmp_path, **own)):
        assert type(loaded) is type(case.router), name
        again = scores_of(Case(name, loaded, case.embedder), texts)
        np.testing.assert_allclose(again, scores_of(case, texts), rtol=0, atol=1e-9, err_msg=name)
        for attribute in ("threshold", "pair", "models"):
            assert getattr(loaded, attribute, None) == getattr(case.router, attribute, None), f"{name}: {attribute}"


def test_loading_and_serving_needs_no_heavy_package(tmp_path: Path) -> None:
    """One process for all of them; each is charged with the packages that it was first to load."""
    names = [
        name for name in CASES if "fake" not in name and name not in TRANSFORMERS and built(name).router.router_type
    ]
    for index, name in enumerate(names):
        built(name).router.save_pretrained(tmp_path / str(index))
    serving = [index for index, name in enumerate(names) if name not in SERVED_BY_TORCH]
    code = f"""
import json, sys
from prefroute import load_router
def heavy():
    return sorted(set({HEAVY!r}) & set(sys.modules))
routers, loading, serving = [], [], []
for index in range({len(names)}):
    routers.append(load_router({str(tmp_path)!r} + f"/{{index}}"))
    loading.append(heavy())
for index in {serving}:
    assert routers[index].route("Why is the sky blue?", 0.5).reason == "score", index
    serving.append(heavy())
print(json.dumps([loading, serving]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded, served = json.loads(done.stdout)
    assert dict(zip(names, loaded, strict=True)) == {name: [] for name in names}
    assert dict(zip((names[index] for index in serving), served, strict=True)) == {names[i]: [] for i in serving}
