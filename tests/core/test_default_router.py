"""The bundled default router: offline, light, and defined on any text."""

import asyncio
import math
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefroute import Router, load_router
from prefroute.demo import PROMPTS
from prefroute.embedding import StaticEmbedder
from prefroute.persistence import DEFAULT_ROUTER
from prefroute.routers.matrix_factorization import MatrixFactorizationRouter

ROUTER = load_router()
HOSTILE = {
    "empty": "",
    "blank": " \t\n",
    "emoji": "🙂🚀🔥",
    "NUL": "a\x00b\x00",
    "lone surrogate": "\ud800 what is this \udfff",
    "megabyte": "why? " * 200_000,
    "megabyte without a space": "x" * 1_000_000,
    "megabyte of emoji": "🔥" * 250_000,
    "other scripts": "Доказать, что простых чисел бесконечно много. 证明素数有无穷多个。 أثبت",
    "combining marks": "e" + "\u0301" * 5000,
    "right to left override": "\u202eabc\u202c",
}


def test_it_has_a_threshold_of_its_own_and_splits_the_demo_prompts() -> None:
    assert ROUTER.threshold is not None
    assert 0 < ROUTER.threshold < 1
    routes = [decision.route for decision in ROUTER.route_batch(PROMPTS)]
    assert 0.2 <= routes.count("strong") / len(routes) <= 0.8


@given(st.text(st.characters()))
def test_any_text_has_a_finite_score_in_the_unit_interval(text: str) -> None:
    (score,) = ROUTER.win_probability([text])
    assert math.isfinite(score)
    assert 0 <= score <= 1


@settings(max_examples=50)
@given(st.lists(st.one_of(st.text(st.characters()), st.sampled_from(PROMPTS)), min_size=1, max_size=40))
def test_a_batch_scores_as_one_by_one(texts: list[str]) -> None:
    together = ROUTER.win_probability(texts)
    alone = np.array([ROUTER.win_probability([text])[0] for text in texts])
    assert together.dtype == np.float64
    assert together.shape == (len(texts),)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_scored_not_failed(name: str) -> None:
    decision = ROUTER.route(HOSTILE[name])
    assert decision.reason == "score"
    assert asyncio.run(ROUTER.aroute(HOSTILE[name])) == decision


@pytest.mark.parametrize("bad", ["a lone text", [None], ["a", 3], [b"bytes"]])
def test_what_is_no_text_is_a_type_error(bad: Any) -> None:
    with pytest.raises(TypeError, match="got"):
        ROUTER.win_probability(bad)


ONE_QUESTION = {
    "Russian": "Докажи, что простых чисел бесконечно много.",
    "Chinese": "证明素数有无穷多个。",
    "Japanese": "素数が無限に存在することを証明してください。",
    "Korean": "소수가 무한히 많음을 증명하세요.",
    "Arabic": "أثبت أن هناك عددا لا نهائيا من الأعداد الأولية.",
    "Hindi": "सिद्ध कीजिए कि अभाज्य संख्याएँ अनंत हैं।",
    "Thai": "จงพิสูจน์ว่ามีจำนวนเฉพาะอยู่เป็นจำนวนอนันต์",
    "Amharic": "ዋና ቁጥሮች ማለቂያ የሌላቸው መሆናቸውን አረጋግጥ።",
    "emoji": "🙂🚀🔥",
    "empty": "",
}


@pytest.mark.parametrize("name", ONE_QUESTION)
@pytest.mark.parametrize(("times", "near"), [(1, 0.03), (5000, 0.06)])
def test_text_that_it_knows_little_of_scores_near_the_average(name: str, times: int, near: float) -> None:
    (score,) = ROUTER.win_probability([ONE_QUESTION[name] * times])
    assert score == pytest.approx(ROUTER.threshold, abs=near)


@pytest.mark.parametrize("unknown", ["ዋና ", "🙂"])
def test_of_text_that_it_does_not_know_the_length_counts_and_no_more_than_a_little(unknown: str) -> None:
    scores = ROUTER.win_probability([unknown * times for times in (0, 1, 20, 100, 1000, 200_000)])
    assert (np.diff(scores) >= 0).all()
    assert scores[-1] > scores[0]
    assert scores[0] == pytest.approx(scores[1], abs=1e-9)
    assert scores[-2] == scores[-1]


def test_no_prompts_are_no_scores() -> None:
    assert ROUTER.win_probability([]).shape == (0,)


def test_sixteen_threads_get_the_same_scores() -> None:
    texts = [*PROMPTS, *HOSTILE.values()]
    expected = ROUTER.win_probability(texts)
    results: list[Any] = [None] * 16
    start = threading.Barrier(16)

    def work(slot: int) -> None:
        start.wait()
        results[slot] = [ROUTER.win_probability(texts) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for per_thread in results:
        for scores in per_thread:
            np.testing.assert_array_equal(scores, expected)


def test_it_survives_saving_and_loading(tmp_path: Any) -> None:
    ROUTER.save_pretrained(tmp_path / "copy")
    again = load_router(tmp_path / "copy")
    assert type(again) is type(ROUTER)
    assert again.threshold == ROUTER.threshold
    np.testing.assert_array_equal(again.win_probability(PROMPTS), ROUTER.win_probability(PROMPTS))
    assert isinstance(Router.from_pretrained("default"), Router)


def test_all_its_files_together_are_small() -> None:
    assert sum(path.stat().st_size for path in DEFAULT_ROUTER.parent.rglob("*") if path.is_file()) <= 8_000_000


def test_using_it_loads_no_heavy_package_and_opens_no_socket() -> None:
    code = """
import sys
def forbid(event, args):
    if event.startswith("socket."):
        raise SystemExit(event)
sys.addaudithook(forbid)
from prefroute import load_router
print(load_router().route("Why is the sky blue?").reason)
print(sorted({"torch", "transformers", "openai", "pandas", "model2vec", "sklearn"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("score\n[]\n", "")


async def test_only_few_short_texts_are_scored_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    here, seen = threading.current_thread(), []
    real = StaticEmbedder.embed

    def embed(embedder: Any, texts: Any) -> Any:
        seen.append(threading.current_thread() is here)
        return real(embedder, texts)

    monkeypatch.setattr(StaticEmbedder, "embed", embed)
    batches: list[list[str]] = [["short"], ["long " * 1000], [""] * 100]
    for limit in (None, 30):
        for batch in batches:
            await ROUTER.aroute_batch(batch, time_limit=limit)
    assert seen == [True, False, False] * 2

    class Mine(MatrixFactorizationRouter):
        def win_probability(self, prompts: Any) -> Any:
            return super().win_probability(prompts)

    class Embedder:
        def embed(self, texts: Any) -> Any:
            return ROUTER.embedder.embed(texts)  # type: ignore[attr-defined]

    parts: Any = {name: getattr(ROUTER, name) for name in ("models", "weights", "biases", "pair")}
    embedder = ROUTER.embedder  # type: ignore[attr-defined]
    on_the_instance = MatrixFactorizationRouter(embedder=embedder, **parts)
    on_the_instance.win_probability = on_the_instance.win_probability  # type: ignore[method-assign]
    for router in (
        Mine(embedder=embedder, **parts),
        MatrixFactorizationRouter(embedder=Embedder(), **parts),
        on_the_instance,
    ):
        seen.clear()
        await router.aroute("short", 0.5)
        assert seen == [False]
